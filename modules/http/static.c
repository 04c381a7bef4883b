/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Files: the last content hook. Small ones come from memory and leave in one write with the head,
 * larger ones are a FILE piece that the protocol sends by reference; where they have to be read
 * (sendfile off, aio threads, directio) the file_mem filter does it.
 */
#include <errno.h>

#include "core/base/fmt.h"
#include "core/config/resource.h"
#include "core/event/threads.h"
#include "core/http/answer.h"
#include "modules/http/file_cache.h"
#include "modules/http/file_mem.h"
#include "modules/http/small_files.h"

/* configure: switch=http_static_module default=always */

static unsigned static_slot;

struct static_main {
    size_t cache_size;
};

static enum verdict redirect_to_directory(struct req *r)
{
    struct str path = fmt_escape_dup(r->arena, r->uri, FMT_ESCAPE_URI);

    return req_redirect(r, 301,
                        str_printf(r->arena, "%.*s/%s%.*s", STR_ARG(path), r->args.len ? "?" : "",
                                   STR_ARG(r->args)));
}

/* What the head says of a file. The texts of a cached one save making them again. */
static void set_head(struct req *r, const struct file_info *info, const struct small_file *small)
{
    /* A server that redirected here (X-Accel-Redirect) may have named the type. */
    struct str type = fields_get(&r->out.fields, T_CONTENT_TYPE) ? STR("") : req_content_type(r);

    r->out.status = 200;
    r->out.content_length = (int64_t) info->size;
    r->last_modified = info->mtime.tv_sec;
    r->allow_ranges = true;
    if (type.len > 0)
        fields_set(&r->out, &r->out.fields, T_CONTENT_TYPE, type);
    /* Another status than these takes no Last-Modified: the head writer decides then. */
    if (small != NULL && r->err_status == 0) {
        char *date = arena_bytes(r->arena, FMT_HTTP_DATE);

        memcpy(date, small->date, FMT_HTTP_DATE);
        fields_set(&r->out, &r->out.fields, T_LAST_MODIFIED, str_from(date, FMT_HTTP_DATE));
    }
    if (r->loc->core->etag) {
        char *etag = arena_bytes(r->arena, FILE_ETAG_MAX);
        size_t len;

        if (small != NULL) {
            len = small->etag_len;
            memcpy(etag, small->etag, len);
        } else {
            len = file_etag(etag, info);
        }
        fields_set(&r->out, &r->out.fields, T_ETAG, str_from(etag, len));
    }
}

static enum verdict answer_file(struct req *r, struct chain *body)
{
    enum verdict v = answer_head(r);

    if (v == V_NEXT)
        v = answer_body(r, body, BODY_END) == V_ABORT ? V_ABORT : V_ANSWER;
    chain_clear(body);
    return v;
}

static enum verdict send_small(struct req *r, const struct small_file *f)
{
    struct chain body = CHAIN_INIT;

    r->log.action = "sending response to client";
    if (!r->body.complete)
        body_discard(r);
    set_head(r, &f->info, f);
    if (f->content != NULL)
        chain_push_mem(&body, f->content, f->content->data, (size_t) f->info.size);
    return answer_file(r, &body);
}

/* Takes over info->file. */
static enum verdict send_file(struct req *r, struct file_info *info)
{
    struct chain body = CHAIN_INIT;

    r->log.action = "sending response to client";
    if (!r->body.complete)
        body_discard(r);
    set_head(r, info, NULL);
    if (info->direct)
        file_mem_direct(r);
    if (info->size > 0)
        chain_push_file(&body, info->file, 0, info->size);
    chain_file_unref(info->file);
    return answer_file(r, &body);
}

static bool may_use_memory(const struct req *r)
{
    return r->loc->core->disable_symlinks == SYMLINKS_ALLOWED;
}

/* The line that says where files are: alias or root. */
static struct conf_pos where_root(const struct req *r)
{
    return req_where(r, r->loc->core->alias != NULL ? "alias" : "root");
}

/* A small file that is in memory and still the same on disk. */
static bool find_small(struct req *r, struct str path, enum verdict *v)
{
    const struct small_file *f = small_files_find(path);
    struct file_info now;

    if (f == NULL)
        return false;
    if (file_lookup(r, path, 0, &now) != 0 || !small_file_current(f, &now)) {
        small_files_forget(path);
        return false;
    }
    if (r->method == METHOD_POST)
        *v = req_status(r, 405);
    else
        *v = send_small(r, f);
    return true;
}

static enum verdict open_and_send(struct req *r, struct str path)
{
    const struct small_file *f;
    struct file_info info;

    if (file_lookup(r, path, FILE_OPEN, &info) != 0)
        return req_status(r, file_failure(r, path, &info));
    if (S_ISDIR(info.mode)) {
        req_trace(r, where_root(r), "file is a directory: only its slash is lacking");
        return redirect_to_directory(r);
    }
    if (info.file == NULL) {
        log_crit(&r->log, 0, "\"%.*s\" is not a regular file", STR_ARG(path));
        return req_status(r, 404);
    }
    if (r->method == METHOD_POST) {
        chain_file_unref(info.file);
        return req_status(r, 405);
    }
    if (info.size <= SMALL_FILE_MAX && may_use_memory(r)) {
        f = small_files_read(path, &info);
        if (f != NULL) {
            chain_file_unref(info.file);
            return send_small(r, f);
        }
    }
    return send_file(r, &info);
}

static enum verdict static_run(struct req *r)
{
    struct str path;
    size_t root;
    enum verdict v;

    if ((r->method & (METHOD_GET | METHOD_HEAD | METHOD_POST)) == 0)
        return req_status(r, 405);
    if (r->uri.len > 0 && r->uri.ptr[r->uri.len - 1] == '/')
        return V_NEXT;
    if (req_map_path(r, &path, &root, 0) != 0)
        return req_status(r, 500);
    req_trace(r, where_root(r), "file %.*s", STR_ARG(path));
    if (may_use_memory(r) && find_small(r, path, &v))
        return v;
    return open_and_send(r, path);
}

static int static_worker_start(const struct config *config)
{
    if (config->http != NULL) {
        const struct http_main *http = config->http;
        const struct static_main *m = level_conf(http->level, STORE_MAIN, static_slot);

        small_files_limit(m->cache_size);
    }
    return 0;
}

static void static_worker_stop(const struct config *config)
{
    (void) config;
    small_files_free();
    file_cache_free();
}

static const char *set_cache_size(struct conf *cf, void *field)
{
    size_t *size = field;

    if (!str_eq(cf->args[1], STR("off")))
        return conf_set_size(cf, field);
    *size = 0;
    return NULL;
}

static const struct directive directives[] = {
    ROW("small_file_cache", CTX_HTTP, ARGS1, set_cache_size, STORE_MAIN, struct static_main,
        cache_size, INHERIT_SCALAR, "8m", "size | off",
        "Memory of each worker for the contents of small files that are asked for often."),
    ROW_END,
};

static const struct hook hooks[] = {
    { PHASE_CONTENT, HOOK_STATIC, static_run, NULL },
    HOOK_END,
};

static const struct http_module http_static = { .hooks = hooks };

const struct module module_http_static = {
    .name = "http_static",
    .slot = &static_slot,
    .conf_size = { [STORE_MAIN] = sizeof(struct static_main) },
    .directives = directives,
    .http = &http_static,
    .worker_start = static_worker_start,
    .worker_stop = static_worker_stop,
};
