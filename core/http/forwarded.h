/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The client's address behind trusted proxies: each of them has added to a list whom it has heard, as in
 * "X-Forwarded-For: client, proxy". What an address says is believed if it is a trusted one. For realip, geo and whoever
 * else wants to know.
 */
#ifndef CORE_HTTP_FORWARDED_H
#define CORE_HTTP_FORWARDED_H

#include "core/http/msg.h"
#include "core/os/socket.h"

struct forwarded {
    bool (*is_trusted)(const void *owner, const struct addr *a);
    const void *owner;
    bool recursive; /* trusted addresses in the list are passed over too, from its end on */
};

/*
 * *a is the address that the list has come from, then the one that it names (without a port: 0). What is no address
 * ends the search: nobody vouches for what stands before it. False: *a stays.
 */
bool forwarded_in(const struct forwarded *how, struct str list, struct addr *a);
/* The same with the lines of X-Forwarded-For, which are one list. */
bool forwarded_for(const struct forwarded *how, const struct fields *fields, struct addr *a);

#endif
