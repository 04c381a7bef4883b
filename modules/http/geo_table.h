/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Values by address: networks (the most specific one decides) or ranges of IPv4 addresses. Collected by a
 * builder while the configuration is read; the table made of it is a sorted list of the addresses
 * where the value changes, searched eight at a time.
 * A value is a number of the owner's; 0 stands for none.
 */
#ifndef MODULES_HTTP_GEO_TABLE_H
#define MODULES_HTTP_GEO_TABLE_H

#include "core/os/socket.h"

struct geo_builder;
struct geo_table;

/* Lives in that arena, which may go when the table has been made. */
struct geo_builder *geo_builder_new(struct arena *arena);
/*
 * The network has that value from now on. The value that this very network had before, or 0. Its address has no bits
 * behind the mask.
 */
uint32_t geo_add_net(struct geo_builder *b, const struct cidr *net, uint32_t value);
/* False: that network is not there. */
bool geo_delete_net(struct geo_builder *b, const struct cidr *net);

enum geo_range_result {
    GEO_RANGE_ADDED,
    GEO_RANGE_REPLACED, /* a range with these bounds was there: *old is its value */
    GEO_RANGE_OVERLAPS, /* one that does not hold it is in its way: *other */
};
struct geo_range {
    uint32_t first, last; /* host byte order */
};
/*
 * A range inside of one that was there before cuts it in pieces. As in nginx, ranges are kept by the /16 that they
 * are in, and *other is what lies in such a one.
 */
enum geo_range_result geo_add_range(struct geo_builder *b, struct geo_range r, uint32_t value,
                                    uint32_t *old, struct geo_range *other);
/* False: there is no such range. */
bool geo_delete_range(struct geo_builder *b, struct geo_range r);

/* Of all that was added, in another arena. */
struct geo_table *geo_table_new(struct geo_builder *b, struct arena *arena);
/* Host byte order. */
uint32_t geo_find4(const struct geo_table *t, uint32_t addr);
uint32_t geo_find6(const struct geo_table *t, const unsigned char addr[16]);

#endif
