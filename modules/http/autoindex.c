/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * autoindex: what is in a directory, as a page, XML or JSON. The directory is read at once and
 * sorted; the text is made piece by piece as the client takes it, so that a directory of a million
 * names does not stand in memory twice. What a page says of one entry is in autoindex_text.c.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/http/answer.h"
#include "modules/http/autoindex.h"

/* configure: switch=http_autoindex_module default=on */

#define AHEAD (64 * 1024) /* text that may wait for the client */

static unsigned autoindex_slot;

struct autoindex_conf {
    bool on, localtime, exact_size;
    unsigned format;
};

/*
 * Reading ----------------------------------------------------------------------------------------
 */

static enum verdict failed(struct req *r, const char *call, const char *path)
{
    int err = errno;

    switch (err) {
    case ENOENT:
    case ENOTDIR:
    case ENAMETOOLONG:
        log_error(&r->log, err, "%s \"%s\" failed", call, path);
        return req_status(r, 404);
    case EACCES: log_error(&r->log, err, "%s \"%s\" failed", call, path); return req_status(r, 403);
    default: log_crit(&r->log, err, "%s \"%s\" failed", call, path); return req_status(r, 500);
    }
}

/* What is known of one name. 0; 1: not to be listed; -1: the listing cannot be had (logged). */
static int look_at(struct req *r, int fd, const char *dir, const char *name, struct stat *st)
{
    if (fstatat(fd, name, st, 0) == 0)
        return 0;
    if (errno != ENOENT && errno != ELOOP) {
        bool skip = errno == EACCES;

        log_crit(&r->log, errno, "stat() \"%s%s\" failed", dir, name);
        return skip ? 1 : -1;
    }
    /* A link that leads nowhere is listed as what it is. */
    if (fstatat(fd, name, st, AT_SYMLINK_NOFOLLOW) == 0)
        return 0;
    if (errno == ENOENT)
        return 1; /* removed since */
    log_crit(&r->log, errno, "lstat() \"%s%s\" failed", dir, name);
    return -1;
}

static int read_entries(struct req *r, DIR *dir, const char *path, struct autoindex_list *list)
{
    const struct dirent *d;

    while (errno = 0, (d = readdir(dir)) != NULL) {
        struct autoindex_entry *e;
        struct stat st;
        int rc;

        if (d->d_name[0] == '.')
            continue;
        rc = look_at(r, dirfd(dir), path, d->d_name, &st);
        if (rc < 0)
            return -1;
        if (rc > 0)
            continue;
        list->items =
            arena_grow(r->arena, list->items, list->count, &list->capacity, sizeof(*list->items));
        e = &list->items[list->count++];
        e->name = str_dup(r->arena, str_cstr(d->d_name));
        e->kind = S_ISDIR(st.st_mode)   ? ENTRY_DIRECTORY
                  : S_ISREG(st.st_mode) ? ENTRY_FILE
                                        : ENTRY_OTHER;
        e->size = (uint64_t) st.st_size;
        e->mtime = st.st_mtime;
    }
    if (errno == 0)
        return 0;
    log_crit(&r->log, errno, "readdir() \"%s\" failed", path);
    return -1;
}

static int by_name(const void *a, const void *b)
{
    const struct autoindex_entry *x = a, *y = b;

    if ((x->kind == ENTRY_DIRECTORY) != (y->kind == ENTRY_DIRECTORY))
        return x->kind == ENTRY_DIRECTORY ? -1 : 1;
    return strcmp(x->name.ptr, y->name.ptr);
}

/*
 * Answering --------------------------------------------------------------------------------------
 */

/* Makes and hands on text until enough waits. V_ANSWER or V_ABORT. */
static enum verdict send_more(struct req *r, struct autoindex_list *list)
{
    while (!list->ended) {
        struct chain chain = CHAIN_INIT;
        enum verdict v;

        /* A child's output is collected as a whole: nobody would tell that it has drained. */
        if (r == r->main && (answer_full(r, AHEAD) || r->filter_waits))
            break;
        list->ended = autoindex_text(list, &chain, AHEAD / 2);
        v = answer_body(r, &chain, list->ended ? BODY_END : 0);
        if (v == V_ABORT)
            return V_ABORT;
    }
    return V_ANSWER;
}

static void drained(struct req *r)
{
    struct autoindex_list *list = req_ctx(r, autoindex_slot);

    if (list != NULL && send_more(r, list) == V_ABORT)
        req_abort(r, 0);
}

/* The function that a script asked for. -1: a name that could be anything but one. */
static int callback_name(struct req *r, struct str *out)
{
    *out = STR_NULL;
    if (!var_by_name(&r->eval, STR("arg_callback"), out) || out->len == 0)
        return 0;
    for (size_t i = 0; i < out->len; i++) {
        unsigned char c = (unsigned char) out->ptr[i], low = ascii_lower(c);

        if ((low >= 'a' && low <= 'z') || (c >= '0' && c <= '9') || c == '_' || c == '.')
            continue;
        log_info(&r->log, 0, "client sent invalid callback name: \"%.*s\"", STR_ARG(*out));
        return -1;
    }
    return 0;
}

static void set_type(struct req *r, enum autoindex_format format)
{
    static const char *const types[] = {
        [AUTOINDEX_HTML] = "text/html",
        [AUTOINDEX_XML] = "text/xml",
        [AUTOINDEX_JSON] = "application/json",
        [AUTOINDEX_JSONP] = "application/javascript",
    };

    r->out.status = 200;
    fields_set(&r->out, &r->out.fields, T_CONTENT_TYPE, str_cstr(types[format]));
    if (format == AUTOINDEX_XML)
        r->charset = STR("utf-8");
}

static enum verdict list_directory(struct req *r, DIR *dir, struct str path,
                                   struct autoindex_list *list)
{
    enum verdict v;

    /* Before the head: what cannot be read gets an error page. */
    if (r->method != METHOD_HEAD && read_entries(r, dir, path.ptr, list) != 0)
        return req_status(r, 500);
    set_type(r, list->format);
    v = answer_head(r);
    if (v != V_NEXT)
        return v;
    list->utf8 = str_caseeq(r->charset, STR("utf-8"));
    if (list->count > 1)
        qsort(list->items, list->count, sizeof(*list->items), by_name);
    r->on_drain = drained;
    return send_more(r, list);
}

static enum verdict autoindex_run(struct req *r)
{
    const struct autoindex_conf *conf = req_loc_conf(r, autoindex_slot);
    struct autoindex_list *list;
    struct str path;
    enum verdict v;
    size_t root;
    DIR *dir;

    if (!conf->on || r->uri.len == 0 || r->uri.ptr[r->uri.len - 1] != '/' ||
        (r->method & (METHOD_GET | METHOD_HEAD)) == 0)
        return V_NEXT;
    req_trace(r, req_where(r, "autoindex"), "autoindex lists the directory");
    body_discard(r);
    list = ARENA_NEW(r->arena, struct autoindex_list);
    list->arena = r->arena;
    list->uri = r->uri;
    list->format = (enum autoindex_format) conf->format;
    list->localtime = conf->localtime;
    list->exact_size = conf->exact_size;
    if (list->format == AUTOINDEX_JSONP) {
        if (callback_name(r, &list->callback) != 0)
            return req_status(r, 400);
        if (list->callback.len == 0)
            list->format = AUTOINDEX_JSON;
    }
    if (req_map_path(r, &path, &root, 0) != 0)
        return req_status(r, 500);
    dir = opendir(path.ptr);
    if (dir == NULL)
        return failed(r, "opendir()", path.ptr);
    req_ctx_set(r, autoindex_slot, list, CTX_PASS);
    v = list_directory(r, dir, path, list);
    closedir(dir);
    return v;
}

/*
 * Configuration ----------------------------------------------------------------------------------
 */

static bool autoindex_wanted(const struct level *level)
{
    const struct autoindex_conf *conf = level_conf(level, STORE_LOC, autoindex_slot);

    return conf->on;
}

static const struct conf_enum formats[] = { { "html", AUTOINDEX_HTML },
                                            { "json", AUTOINDEX_JSON },
                                            { "jsonp", AUTOINDEX_JSONP },
                                            { "xml", AUTOINDEX_XML },
                                            { NULL, 0 } };

static const struct directive directives[] = {
    ROW("autoindex", CTX_HSL, ARG_FLAG, conf_set_flag, STORE_LOC, struct autoindex_conf, on,
        INHERIT_SCALAR, "off", "on | off", "Lists directories that have no index file."),
    ROW("autoindex_format", CTX_HSL, ARGS1, conf_set_enum, STORE_LOC, struct autoindex_conf, format,
        INHERIT_SCALAR, "html", "html | xml | json | jsonp", "The form of directory listings.",
        .extra = formats),
    ROW("autoindex_localtime", CTX_HSL, ARG_FLAG, conf_set_flag, STORE_LOC, struct autoindex_conf,
        localtime, INHERIT_SCALAR, "off", "on | off",
        "Whether HTML listings give times of the local zone, or UTC."),
    ROW("autoindex_exact_size", CTX_HSL, ARG_FLAG, conf_set_flag, STORE_LOC, struct autoindex_conf,
        exact_size, INHERIT_SCALAR, "on", "on | off",
        "Whether HTML listings give sizes in bytes, or rounded to K, M and G."),
    ROW_END,
};

static const struct hook hooks[] = {
    { PHASE_CONTENT, HOOK_AUTOINDEX, autoindex_run, autoindex_wanted },
    HOOK_END,
};

static const struct http_module http_autoindex = { .hooks = hooks };

const struct module module_http_autoindex = {
    .name = "http_autoindex",
    .slot = &autoindex_slot,
    .conf_size = { [STORE_LOC] = sizeof(struct autoindex_conf) },
    .directives = directives,
    .http = &http_autoindex,
};
