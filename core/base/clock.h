/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Time, read once per turn of the loop. Durations and deadlines count monotonic milliseconds;
 * what people read is wall-clock time. The texts are formatted at most once a second.
 */
#ifndef CORE_BASE_CLOCK_H
#define CORE_BASE_CLOCK_H

#include <time.h>

#include "core/base/str.h"

/* Reads both clocks. The loop calls it after every epoll_wait; tests may call it too. */
void clock_update(void);

uint64_t clock_ms(void);      /* monotonic, milliseconds, as of the last update */
uint64_t clock_us(void);      /* monotonic, microseconds, as of the last update */
time_t clock_time(void);      /* wall clock, seconds since the epoch */
unsigned clock_time_ms(void); /* milliseconds within that second, 0..999 */

/* Cached texts, valid until the next clock_update. */
struct str clock_http_date(void); /* "Sun, 06 Nov 1994 08:49:37 GMT" */
struct str clock_log_local(void); /* "06/Nov/1994:08:49:37 +0000" ($time_local) */
struct str clock_iso8601(void);   /* "1994-11-06T08:49:37+00:00" ($time_iso8601) */
struct str clock_error_log(void); /* "1994/11/06 08:49:37" */
struct str clock_syslog(void);    /* "Nov  6 08:49:37" (RFC 3164, 4.1.2) */

#endif
