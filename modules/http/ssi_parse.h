/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The syntax of server side includes: text, and commands "<!--# name param="value" ... -->" in it.
 * Input comes in pieces of any size; text is handed back as the part of the piece that it is,
 * commands are copied into one buffer that each of them uses anew. Needs no request.
 */
#ifndef MODULES_HTTP_SSI_PARSE_H
#define MODULES_HTTP_SSI_PARSE_H

#include "core/base/arena.h"
#include "core/base/log.h"
#include "modules/http/search.h"

#define SSI_OPENING "<!--#"
#define SSI_NAME_MAX 32   /* bytes of the name of a command or a parameter */
#define SSI_PARAMS_MAX 16 /* of a command */

struct ssi_param {
    struct str name, value; /* the value as written, backslashes too */
    char quote;             /* what it was written in */
};

enum ssi_event {
    SSI_MORE,    /* the piece is used up */
    SSI_TEXT,    /* text has been found */
    SSI_COMMAND, /* a command is complete: p->command, p->params, p->param_count */
    SSI_BROKEN,  /* a command that makes no sense has ended; why was logged */
};

struct ssi_text {
    unsigned opening; /* so many bytes of SSI_OPENING, of former pieces, come first */
    size_t len;       /* then so many from the beginning of this piece */
};

struct ssi_place {
    size_t name, name_len, value, value_len; /* in p->buf */
    char quote;
};

struct ssi_parser {
    /* The caller's. */
    struct arena *arena;
    const struct logger *log;
    const struct search *opening; /* ssi_opening() */
    size_t value_max;             /* bytes of a value */

    /* The command that is complete; valid until the next call. */
    struct str command;
    struct ssi_param params[SSI_PARAMS_MAX];
    unsigned param_count; /* may be more than there is room for: that is an error */

    /* Private. */
    unsigned state, quoted_state;
    unsigned matched; /* bytes of SSI_OPENING at the end of the former pieces */
    size_t command_len;
    struct ssi_place places[SSI_PARAMS_MAX + 1];
    char *buf;
    size_t len, size;
};

/* What finds SSI_OPENING; one for all parsers. */
struct search *ssi_opening(struct arena *arena);
/* The caller's members are set, the others zero. *used bytes of the piece are done with. */
enum ssi_event ssi_parse(struct ssi_parser *p, struct str piece, size_t *used,
                         struct ssi_text *text);
/*
 * No more text follows: how many bytes of SSI_OPENING have turned out to be text. A command that
 * has not ended is lost.
 */
unsigned ssi_parse_end(struct ssi_parser *p);

#endif
