/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Private to the engine: what req.c and subrequest.c need of each other.
 */
#ifndef CORE_HTTP_SUBREQUEST_H
#define CORE_HTTP_SUBREQUEST_H

#include "core/http/req.h"

/* How deep subrequests nest, which is nginx's 50 below the first. */
#define SUBREQUEST_DEPTH 51

/* Where a request is: req.step. */
enum step {
    STEP_POST_READ,
    STEP_SERVER_REWRITE,
    STEP_FIND,
    STEP_REWRITE,
    STEP_POST_REWRITE,
    STEP_PREACCESS,
    STEP_ACCESS,
    STEP_POST_ACCESS,
    STEP_PRECONTENT,
    STEP_CONTENT,
    STEP_ANSWERING,
};

/* req.c ---------------------------------------------------------------------------------------- */

/* What main requests and subrequests have in common; *r is zero. */
void req_init(struct req *r, struct arena *arena);
/* Runs the phase of the log, once. */
void req_end_log(struct req *r);
/* Cancels whatever r waits for. What is left is its memory. */
void req_release(struct req *r);
/* The main request's answer is out, and no child is left. */
void req_finish_main(struct req *r);

/* subrequest.c --------------------------------------------------------------------------------- */

/* Ends all children: with `background` those too that have a life of their own. */
void subrequest_end_all(struct req *r, bool background);
/* One with output in the answer is over, or is never to be started. */
void subrequest_leave_turn(struct req *r);

#endif
