/* SPDX-License-Identifier: BSD-2-Clause */
/* The argument of `expires`, read without a request: for headers.c and its test. */
#ifndef MODULES_HTTP_EXPIRES_H
#define MODULES_HTTP_EXPIRES_H

#include "core/base/str.h"

enum expires_kind {
    EXPIRES_OFF,
    EXPIRES_ACCESS,   /* so long from now */
    EXPIRES_MODIFIED, /* so long from the last change */
    EXPIRES_DAILY,    /* "@15h30m": at that time of the day */
    EXPIRES_EPOCH,
    EXPIRES_MAX,
};

struct expires {
    enum expires_kind kind;
    int64_t seconds; /* may be negative; DAILY: from midnight */
};

enum expires_error { EXPIRES_FINE, EXPIRES_INVALID, EXPIRES_LONG_DAILY, EXPIRES_DAILY_MODIFIED };

/* text: "epoch", "max", "off" or a time with an optional sign or "@"; modified: the word stood before it. */
enum expires_error expires_parse(struct str text, bool modified, struct expires *out);

#endif
