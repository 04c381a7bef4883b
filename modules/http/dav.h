/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the files of the dav module share: its settings, and work on the file system that is done
 * in steps.
 */
#ifndef MODULES_HTTP_DAV_H
#define MODULES_HTTP_DAV_H

#include <sys/stat.h>

#include "core/http/req.h"

extern unsigned dav_slot;

struct dav_conf {
    unsigned methods; /* METHOD_ bits */
    int64_t min_delete_depth;
    bool create_full_put_path;
    unsigned access; /* permission bits of new files */
};

/* Permissions of directories: whoever may read may also look in. */
static inline unsigned dav_dir_access(unsigned access)
{
    return access | (access & 0444) >> 2;
}

/* Answers (dav.c) ------------------------------------------------------------------------------ */

/* An answer without content; 201 with a Location where `created` is given. */
enum verdict dav_answer(struct req *r, unsigned status, struct str created);
/* For a request that is only explained, once all that can be looked at beforehand is well: what would be done. */
void dav_explain(struct req *r, const char *what, struct str path);
/*
 * Logs what failed with errno err and says the status that stands for it; `missing` is that of
 * ENOENT.
 */
enum verdict dav_failed(struct req *r, int err, unsigned missing, const char *call,
                        const char *path);
/* The directories above `path` under disable_symlinks. V_NEXT: they may be used. */
enum verdict dav_check_links(struct req *r, struct str path);
/* The same directory, NUL-terminated: an alias need not end in a slash where the URI does. */
struct str dav_without_slash(struct arena *arena, struct str path);
/* Makes the missing directories above path. 0 or -1 with errno. */
int dav_make_path(struct arena *arena, struct str path, unsigned access);
/* Whether a body comes along with a method that takes none. */
bool dav_has_body(const struct req *r);
enum { DEPTH_ZERO, DEPTH_ONE, DEPTH_INFINITY, DEPTH_INVALID };
/* The Depth field; a malformed one is logged. */
unsigned dav_depth(struct req *r, unsigned otherwise);
/*
 * If-Match, If-None-Match and If-Unmodified-Since for what is there (st; NULL: nothing). V_NEXT,
 * or 412.
 */
enum verdict dav_precondition(struct req *r, const struct stat *st);
/* A name beside `path` that nobody else has. */
struct str dav_beside(struct arena *arena, struct str path);

/*
 * PUT (dav_put.c) and COPY and MOVE (dav_copy.c) -------------------------------------------------
 */

enum verdict dav_put(struct req *r, const struct dav_conf *conf);
enum verdict dav_copy_move(struct req *r, const struct dav_conf *conf);

/* Trees (dav_tree.c) --------------------------------------------------------------------------- */

#define DAV_DEPTH_MAX 256 /* directories below the first */

enum dav_op { DAV_DELETE, DAV_COPY };

struct dav_level;

/*
 * A file or a directory with all that is below it, worked off in steps that do not hold the worker
 * up.
 */
struct dav_tree {
    enum dav_op op;
    struct str from, to; /* NUL-terminated; to: what COPY makes, which must not exist */
    bool only_this;      /* COPY: the directory without what is in it */
    bool keep_links;     /* COPY: symbolic links too, for a move; else they are left out */
    /* after a failure */
    int err;
    const char *call;
    struct str path;
    /* private */
    struct arena *arena;
    struct dav_level *levels;
    unsigned depth;
    int in, out; /* the file under way; -1 */
    struct timespec times[2];
    bool begun;
};

void dav_tree_init(struct dav_tree *t, struct arena *arena, enum dav_op op, struct str from,
                   struct str to);
/* 1: there is more to do; 0: done; -1: failed. */
int dav_tree_step(struct dav_tree *t);
/* Gives up what is open. */
void dav_tree_close(struct dav_tree *t);

#endif
