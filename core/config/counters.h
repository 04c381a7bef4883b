/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Named sets of counters over all workers: what a status zone, a resolver, a limit, a cache count. Each worker
 * counts in memory of its own, which nobody else writes: counting costs one addition without lock. Sums are made when
 * somebody asks. Counts outlive workers, reloads and binary upgrades, as long as a set's kind and name stay.
 *
 * A kind says what its counters are called, so that whoever shows them (the API, a page, Prometheus) needs to know
 * nothing of whoever counts.
 */
#ifndef CORE_CONFIG_COUNTERS_H
#define CORE_CONFIG_COUNTERS_H

#include "core/config/resource.h"

#define COUNTER_TAGS \
    32 /* different tags that a worker can count in a set; more are only in no tag's count */
#define COUNTER_TAGS_SUM 128 /* in a sum */

struct counter_kind {
    const char *name; /* "server_zone": part of a set's identity, with the number of counters */
    const char *const *
        names; /* of the counters, NULL-terminated; "responses.2xx": what is before a dot is an object around it */
    unsigned
        gauges; /* so many, from the first on, also fall: they end with their worker and are not reset */
    unsigned
        tags; /* the place, plus one, in names of what is counted by tag (status codes); 0: nothing is */
};

/* Lives as long as its configuration. */
struct counter_set {
    struct list link;
    const struct counter_kind *kind;
    struct str name;
    struct str key; /* private: kind and name */
    unsigned count; /* counters */
    unsigned words; /* with what tags need */
    uint64_t *mine; /* this worker's; never NULL: outside of workers nobody sees what is counted */
    zone_off_t entry; /* private: in the zone */
};

/* The set of that kind and name, found or new. For setters. */
struct counter_set *counters_define(struct conf *cf, const struct counter_kind *kind,
                                    struct str name);
/* The next set after prev (NULL: the first one) whose kind has that name, in the order of the file; NULL: no more. */
struct counter_set *counters_next(const struct config *config, const char *kind,
                                  const struct counter_set *prev);

/* In a worker. */
static inline void counters_add(struct counter_set *set, unsigned counter, uint64_t n)
{
    set->mine[counter] += n;
}
/* One more of the tag, 1 … 65535. */
void counters_tag(struct counter_set *set, unsigned tag);

struct counter_tag {
    unsigned tag;
    uint64_t count;
};
struct counter_sums {
    uint64_t *values;         /* set->count */
    struct counter_tag *tags; /* by tag */
    unsigned tag_count;
};
/* What all workers have counted since the last reset, in the arena. */
void counters_sum(const struct counter_set *set, struct arena *arena, struct counter_sums *out);
/* From now on sums begin at 0; what gauges say stays. */
void counters_reset(const struct counter_set *set);

/* When the file is read: asks for the memory, if there are sets. 0, or -1: reported. */
int counters_configure(struct conf *cf);
/* In a worker, before it counts. */
void counters_start(const struct config *config);

#endif
