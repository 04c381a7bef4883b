/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Host names with wildcards: "example.com", "*.example.com", ".example.com" (both), "www.example.*",
 * each with a value of its owner's. What is looked up costs the same however many there are. For
 * server_name, map, valid_referers and whoever else has lists of hosts.
 */
#ifndef CORE_HTTP_HOSTNAMES_H
#define CORE_HTTP_HOSTNAMES_H

#include "core/base/hash.h"

/*
 * exact: "example.com"; head: "*.example.com" under ".example.com"; tail: "www.example.*" under
 * "www.example.". A name is only searched as far as the longest key of a table goes: a peer cannot
 * make us hash a long name once for each of its dots.
 */
struct hostnames {
    struct table exact, head, tail;
    size_t head_max, tail_max;
};

enum hostnames_error { HOSTNAMES_FINE, HOSTNAMES_INVALID, HOSTNAMES_CONFLICT };

void hostnames_init(struct hostnames *h, struct arena *arena);
static inline bool hostnames_empty(const struct hostnames *h)
{
    return h->exact.count + h->head.count + h->tail.count == 0;
}
/* name: lower case, in memory that lives as long as the table. value: not NULL. */
enum hostnames_error hostnames_add(struct hostnames *h, struct str name, void *value);
/*
 * In lower case; the exact name, else the longest wildcard in front, else the longest one behind.
 * *key: the part of it that was found ("example.com" or ".example.com"). NULL: none.
 */
void *hostnames_find(const struct hostnames *h, struct str name, struct str *key);

#endif
