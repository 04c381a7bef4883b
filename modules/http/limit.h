/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What limit_req and limit_conn share and nobody else includes: zones by a key, the settings of a
 * refusal, and the variable that says how a request fared.
 */
#ifndef MODULES_HTTP_LIMIT_H
#define MODULES_HTTP_LIMIT_H

#include "core/config/counters.h"
#include "core/http/req.h"
#include "core/zone/cells.h"

/* A zone and its key: res->spec.data of a zone that is defined. */
struct limit_zone {
    struct res_zone *res;
    struct expr *key;
    struct str source; /* the key's */
    struct cells_known known; /* in a worker */
    struct conf_pos pos;
    struct counter_set *counts; /* how requests fared, for status */
};

/* Begins the settings of both modules at STORE_LOC. */
struct limit_settings {
    unsigned log_level;
    int64_t status;
    bool dry_run;
};

/* Who limits: the place in a main request where it is kept how that fared. */
enum limiter { LIMITER_REQ, LIMITER_CONN };

enum limit_result {
    LIMIT_NOT_JUDGED,
    LIMIT_PASSED,
    LIMIT_DELAYED,
    LIMIT_REJECTED,
    LIMIT_DELAYED_DRY_RUN,
    LIMIT_REJECTED_DRY_RUN,
};

/* Configuration ------------------------------------------------------------------------------ */

/*
 * "NAME_zone key zone=NAME:SIZE …" into *zone, which the caller has allocated. Other parameters are
 * handed to `other`, with their number; NULL: there are none. NULL or a sentence.
 */
const char *limit_zone_set(struct conf *cf, struct limit_zone *zone, const struct zone_kind *kind,
                           const char *(*other)(struct conf *cf, unsigned n,
                                                struct limit_zone *zone));
/* The digits of "name=DIGITS": above zero, at most max, which greater ones are taken for. -1: no number. */
int limit_number(struct str digits, uint64_t max, uint64_t *out);

extern const struct conf_enum limit_log_levels[];
extern const struct conf_range limit_statuses;

/* The rows of struct limit_settings, the member `settings` of type. name: "limit_req". */
#define LIMIT_ROWS(name, type)                                                                    \
    ROW(name "_log_level", CTX_HSL, ARGS1, conf_set_enum, STORE_LOC, type, settings.log_level,    \
        INHERIT_SCALAR, "error", "info | notice | warn | error",                                  \
        "Level of the log lines on requests that " name " refuses.", .extra = limit_log_levels),  \
        ROW(name "_status", CTX_HSL, ARGS1, conf_set_num, STORE_LOC, type, settings.status,       \
            INHERIT_SCALAR, "503", "code", "Status of requests that " name " refuses.",           \
            .extra = &limit_statuses),                                                            \
        ROW(name "_dry_run", CTX_HSL, ARG_FLAG, conf_set_flag, STORE_LOC, type, settings.dry_run, \
            INHERIT_SCALAR, "off", "on | off", "Counts and logs, but lets all requests pass.")

/* Requests ----------------------------------------------------------------------------------- */

/*
 * The digest of the zone's key for the request; the memory has been asked for what is known of it. 0: it is
 * not to be counted, being empty or longer than max bytes, which is logged unless `quietly`.
 */
uint64_t limit_digest(struct req *r, struct limit_zone *zone, size_t max, bool quietly);
/*
 * Zones with the same key share a digest, which is remembered for as long as nothing but the hooks of limits runs. Each of
 * them that reads digests ends with this.
 */
void limit_forget_digest(void);

/* The table that is the root of both modules' zones. */
static inline struct cells *limit_table(const struct zone *zone)
{
    return cells_of(zone);
}

static inline enum limit_result limit_result(const struct req *r, enum limiter limiter)
{
    return r->main->limited[limiter];
}

static inline void limit_set_result(struct req *r, enum limiter limiter, enum limit_result result)
{
    r->main->limited[limiter] = (unsigned char) result;
}

/* The request is refused: the verdict, with or without dry run. */
enum verdict limit_refuse(struct req *r, enum limiter limiter,
                          const struct limit_settings *settings);
/* The text of $limit_*_status, a module's get function. False: not judged. */
bool limit_result_text(const struct req *r, enum limiter limiter, struct str *out);

#endif
