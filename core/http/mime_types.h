/* SPDX-License-Identifier: BSD-2-Clause */
/* Lists of media types, as charset_types and its like give them. text/html is always among them. */
#ifndef CORE_HTTP_MIME_TYPES_H
#define CORE_HTTP_MIME_TYPES_H

#include "core/http/req.h"

struct mime_types {
    struct str_list names; /* lower case */
    bool any;              /* "*" */
};

/* [struct mime_types]; the row's default is written as its arguments. */
conf_setter conf_set_mime_types;
/* Whether the answer's Content-Type, without parameters, is one of them. */
bool mime_types_match(const struct mime_types *types, const struct req *r);

#endif
