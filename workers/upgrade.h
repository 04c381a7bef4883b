/* SPDX-License-Identifier: BSD-2-Clause */
/* Handing everything over to a new binary, and taking it over from an old one or from systemd. */
#ifndef WORKERS_UPGRADE_H
#define WORKERS_UPGRADE_H

#include "core/config/config.h"

/* Variables of the environment. */
#define UPGRADE_SOCKETS "PROXYD"       /* "6;7;" */
#define UPGRADE_ZONES "PROXYD_ZONES"   /* "name:8;" */
#define UPGRADE_HALF "PROXYD_SLOTS"    /* which half of the zones' slots the new binary's workers use */

/* Remembers how this program was started, before anything changes argv. */
void upgrade_remember(int argc, char **argv);
/* The command line as one string. */
const char *upgrade_command_line(void);
/* Takes over what the environment names: sockets, zones. True if an older binary started us. */
bool upgrade_inherit(void);
/* The half (0, 1) of the slots that this binary's workers use. */
unsigned upgrade_half(void);
/* Starts the program anew with all sockets and zones of the configuration. Its process id, or -1 (logged). */
pid_t upgrade_start(const struct config *config);

#endif
