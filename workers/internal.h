/* SPDX-License-Identifier: BSD-2-Clause */
/* What the files of this folder share and nobody else needs. */
#ifndef WORKERS_INTERNAL_H
#define WORKERS_INTERNAL_H

#include "core/config/config.h"

/* logs.c: opens what is not open yet. 0, or -1 with the reason logged. */
int logs_open(struct config *config);

/* zones.c: makes, keeps or attaches each zone. 0, or -1 (logged) with what was made gone again. */
int zones_open(struct config *config, const struct config *old);
/* For -t: of the kinds that say so each zone is made, and goes again. 0, or -1: logged. */
int zones_try(const struct config *config);
/* Lets go of config's zones. restore: the configuration for which they go on after all, as it adopted
 * them; or NULL. */
void zones_close(struct config *config, const struct config *restore);
/* Remembers the memfds of an older binary: "NAME:FD;…", names percent-encoded. */
void zones_inherit(const char *text);
struct str zones_export(struct arena *arena, const struct config *config);
void zones_cloexec(const struct config *config, bool on);
/* Closes what was inherited and is not used. */
void zones_forget(void);

#endif
