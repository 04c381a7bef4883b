/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The media types that a body filter works on: what NAME_types directives become. text/html always
 * belongs to them.
 */
#ifndef MODULES_HTTP_TYPE_SET_H
#define MODULES_HTTP_TYPE_SET_H

#include "core/http/req.h"

struct type_set {
    bool any;           /* "*": whatever the type, and none at all */
    struct table names; /* lower case */
};

/* For rows whose member is a struct type_set * with the default "text/html". */
conf_setter type_set_setter;
#define TYPE_SET_ARGS (ARGS1_MORE | ARG_REPEAT)

/* Whether the answer's Content-Type, parameters aside, is among them. */
bool type_set_has(const struct type_set *set, const struct req *r);

#endif
