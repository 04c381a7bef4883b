/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Private to server side includes: what the filter (ssi.c), the commands and the variables share.
 */
#ifndef MODULES_HTTP_SSI_H
#define MODULES_HTTP_SSI_H

#include "core/http/answer.h"
#include "core/http/mime_types.h"
#include "modules/http/ssi_expr.h"
#include "modules/http/ssi_parse.h"

/* What the blocks and variables of one main request may hold, all includes together. */
#define SSI_MEMORY_MAX ((size_t) 16 << 20)

struct ssi_conf {
    bool enable, last_modified, silent_errors, ignore_recycled_buffers;
    size_t min_file_chunk, value_length;
    struct mime_types types;
    const struct search *opening;
};

/* ssi_shared.c: what all parts of one main request have in common. ----------------------------- */

struct ssi_shared;
struct ssi_block;
/* Made at first use. */
struct ssi_shared *ssi_shared(struct req *r);
/* An SSI variable, or $0 … $9 of the last match. Names count in lower case. */
bool ssi_shared_get(const struct ssi_shared *s, struct str name, struct str *out);
/*
 * The same; for a value out of which pieces are made, *block is what they refer to (NULL: memory
 * that outlives them).
 */
bool ssi_shared_find(const struct ssi_shared *s, struct str name, struct str *out,
                     struct block **block);
/* Copies the value. False: too much memory is in use, logged. */
bool ssi_shared_set(struct ssi_shared *s, struct str name, struct str value,
                    const struct logger *log);
void ssi_shared_matched(struct ssi_shared *s, const struct regex *re, const struct regex_match *m,
                        struct str subject, const struct logger *log);
/* Begins a block of a page's; NULL: there is one of that name, and what follows is dropped. */
struct ssi_block *ssi_shared_block(struct ssi_shared *s, struct str name);
/* Adds to it (NULL: drops). False: too much memory is in use, logged; the block ends. */
bool ssi_shared_add(struct ssi_shared *s, struct ssi_block **block, struct chain *content,
                    const struct logger *log);
/* It is complete: stubs find it. *block is NULL then. */
void ssi_shared_block_end(struct ssi_shared *s, struct ssi_block **block);
/* References to a block's content. False: there is none of that name. */
bool ssi_shared_stub(const struct ssi_shared *s, struct str name, struct chain *out);

/* One request's pass through the filter. ------------------------------------------------------- */

enum ssi_condition { SSI_NO_IF, SSI_IF, SSI_ELSE };
enum ssi_encoding { SSI_PLAIN, SSI_URL, SSI_ENTITY };

struct ssi {
    struct req *r;
    const struct ssi_conf *conf;
    struct ssi_shared *shared;
    struct ssi_parser parser;
    struct ssi_block *current; /* the block that the page is in; NULL: none, or one that is dropped */
    struct ssi_scope scope;
    struct chain in; /* not parsed yet */
    unsigned flags;  /* BODY_END, withheld with it */
    bool output;     /* text goes out: not in a branch that was not taken, not in a block */
    bool block;      /* text belongs to a block */
    bool chosen;     /* a branch of the present if has been taken */
    enum ssi_condition conditional;
    enum ssi_encoding encoding;
    struct str timefmt, errmsg;
    bool waiting; /* for an include, or, because of much output: */
    bool pausing; /* for the next turn, */
    bool paused;  /* or for output to drain */
    struct wait wait;
    struct later later;
};

/* What the module keeps of a request: the pass, and for an included one what stands in for it. */
struct ssi_request {
    struct ssi *pass;
    struct ssi_shared *shared; /* of a main request */
    struct chain *stub;
    bool stub_needed; /* nothing has come out of it yet */
};
extern unsigned ssi_slot;
struct ssi_request *ssi_request(struct req *r);

enum ssi_result { SSI_OK, SSI_FAILED /* logged */, SSI_WAIT };
/* ssi_commands.c: carries out the command that the parser has completed. */
enum ssi_result ssi_command(struct ssi *s, struct chain *out);
/* ssi.c: the include that the pass waits for is over. */
void ssi_go_on(struct ssi *s);
/* ssi_stub.c */
void ssi_stub_attach(struct req *child, struct chain *stub);
enum head_verdict ssi_stub_head(struct req *r, void **ctx);
enum verdict ssi_stub_body(struct req *r, void *ctx, struct chain *chain, unsigned *flags);
/* $date_gmt, $date_local */
extern const struct var_row ssi_variables[];
/* "%s" and what strftime makes of others; at most 2 KiB. */
struct str ssi_date(struct arena *arena, struct str format, bool gmt);

#define SSI_TIMEFMT STR("%A, %d-%b-%Y %H:%M:%S %Z")

#endif
