/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Work that can stop in its midst: it runs on a stack of its own, and whatever it calls may pause it, so that the loop turns
 * meanwhile. For handshakes, which are the library's code and cannot be left in any other way. One thread.
 */
#ifndef MODULES_SSL_FIBRE_H
#define MODULES_SSL_FIBRE_H

#include "core/base/base.h"

struct fibre;

#define FIBRES_MAX 1024 /* at once, in one process */

enum fibre_state { FIBRE_ENDED, FIBRE_PAUSED, FIBRE_NONE };

/*
 * Runs work(arg) until it ends, *result being what it returned, or until it pauses: then *fibre is set, and the next call goes on with
 * it. errno is what the work left. FIBRE_NONE: too many have paused, nothing was done.
 */
enum fibre_state fibre_run(struct fibre **fibre, int (*work)(void *arg), void *arg, int *result);
/* The one that runs now, or NULL; and its arg. */
struct fibre *fibre_current(void);
void *fibre_arg(const struct fibre *fibre);
/* Back to who runs it. Returns when it is run again. */
void fibre_pause(void);
/* From now on it must not pause: fibre_is_cancelled is to be asked before. */
void fibre_cancel(struct fibre *fibre);
bool fibre_is_cancelled(const struct fibre *fibre);
/* Whether fibre_run would start another. */
bool fibre_available(void);
/* Frees stacks that are kept for the next ones. */
void fibre_trim(void);

#endif
