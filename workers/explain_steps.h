/* SPDX-License-Identifier: BSD-2-Clause */
/* What the files of --explain share: the request asked about, and the steps it took. */
#ifndef WORKERS_EXPLAIN_STEPS_H
#define WORKERS_EXPLAIN_STEPS_H

#include "core/http/http.h"
#include "core/os/socket.h"
#include "workers/options.h"

/* The URL in its parts. */
struct explain_url {
    bool https;
    struct str host;      /* as it stands there, brackets included */
    struct str authority; /* host and port as Host has them */
    unsigned port;
    struct str target; /* path and arguments, as sent */
};

/* NULL, or what is wrong. */
const char *explain_parse_url(struct arena *arena, const char *text, struct explain_url *url);

/* What a client would send; NULL with a sentence in *error. */
struct str explain_request(struct arena *arena, const struct options *o,
                           const struct explain_url *url, const char **error);

struct explain_step {
    struct explain_step *next;
    unsigned request; /* 0: the client's; 1 …: subrequests, as they began */
    struct str what;  /* "location" */
    struct str text;
    struct conf_pos pos; /* file NULL: no line of the configuration */
};

struct explanation {
    const struct config *config;
    struct arena *arena;
    struct str method;
    const char *url;
    struct explain_step *first, *last;
    unsigned status;   /* of the answer; 0: none */
    bool upstream;     /* the status is the upstream's to choose */
    const char *error; /* why nothing can be explained; NULL */
};

/* Where it arrives, and from whom. */
struct explain_route {
    struct http_listen *listen;
    struct addr from, local;
};

/* 0, or -1: said. Adds the first steps. */
int explain_find_route(struct explanation *e, const struct options *o,
                       const struct explain_url *url, struct http_main *http,
                       struct explain_route *route);

/* Nothing can be explained, and this is why. Returns -1. */
int explain_fail(struct explanation *e, const char *sentence);
void explain_add(struct explanation *e, unsigned request, struct str what, struct str text,
                 struct conf_pos pos);
/* Puts something else into a step's place. */
void explain_replace(struct explanation *e, struct explain_step *s, struct str what,
                     struct str text, struct conf_pos pos);
/* To standard output. 0 or -1. */
int explain_print(const struct explanation *e);
/* The same as one JSON object. */
int explain_print_json(const struct explanation *e);

#endif
