/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * random_index: one of a directory's files stands for it, each as likely as any other. Of the
 * names only one is kept at a time (reservoir sampling), however many there are.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>

#include "core/http/req.h"
#include "core/os/process.h"

/* configure: switch=http_random_index_module default=on */

static unsigned random_index_slot;

struct random_index_conf {
    bool on;
};

/* 0 <= n < limit, without the bias of a plain remainder. */
static uint64_t below(uint64_t limit)
{
    uint64_t past = UINT64_MAX - UINT64_MAX % limit, n;

    do
        n = random_u64();
    while (n >= past);
    return n % limit;
}

/* Whether it is a regular file. -1: that cannot be said (logged). */
static int is_file(struct req *r, DIR *dir, const struct dirent *d, const char *path)
{
    struct stat st;

    if (d->d_type == DT_REG)
        return 1;
    if (d->d_type != DT_UNKNOWN && d->d_type != DT_LNK)
        return 0;
    if (fstatat(dirfd(dir), d->d_name, &st, 0) == 0)
        return S_ISREG(st.st_mode);
    if (errno == ENOENT || errno == ELOOP)
        return 0;
    log_crit(&r->log, errno, "stat() \"%s%s\" failed", path, d->d_name);
    return errno == EACCES ? 0 : -1;
}

static int choose(struct req *r, DIR *dir, const char *path, char name[256])
{
    const struct dirent *d;
    uint64_t seen = 0;

    name[0] = '\0';
    while (errno = 0, (d = readdir(dir)) != NULL) {
        int rc;

        if (d->d_name[0] == '.')
            continue;
        rc = is_file(r, dir, d, path);
        if (rc < 0)
            return -1;
        if (rc > 0 && below(++seen) == 0)
            snprintf(name, 256, "%s", d->d_name);
    }
    if (errno == 0)
        return 0;
    log_crit(&r->log, errno, "readdir() \"%s\" failed", path);
    return -1;
}

static enum verdict no_directory(struct req *r, const char *path)
{
    bool known = errno == ENOENT || errno == ENOTDIR || errno == ENAMETOOLONG || errno == EACCES;
    unsigned status = !known ? 500 : errno == EACCES ? 403 : 404;

    LOG(&r->log, known ? LOG_ERROR_LEVEL : LOG_CRIT_LEVEL, errno, "opendir() \"%s\" failed", path);
    return req_status(r, status);
}

static enum verdict random_index_run(struct req *r)
{
    const struct random_index_conf *conf = req_loc_conf(r, random_index_slot);
    struct str path;
    char name[256];
    size_t root;
    DIR *dir;
    int rc;

    if (!conf->on || r->uri.len == 0 || r->uri.ptr[r->uri.len - 1] != '/' ||
        (r->method & (METHOD_GET | METHOD_HEAD | METHOD_POST)) == 0)
        return V_NEXT;
    req_trace(r, req_where(r, "random_index"), "random_index takes one of the directory's files");
    if (req_map_path(r, &path, &root, 0) != 0)
        return req_status(r, 500);
    dir = opendir(path.ptr);
    if (dir == NULL)
        return no_directory(r, path.ptr);
    rc = choose(r, dir, path.ptr, name);
    closedir(dir);
    if (rc != 0)
        return req_status(r, 500);
    if (name[0] == '\0')
        return V_NEXT;
    return req_restart_uri(r, str_printf(r->arena, "%.*s%s", STR_ARG(r->uri), name), r->args);
}

static bool random_index_wanted(const struct level *level)
{
    const struct random_index_conf *conf = level_conf(level, STORE_LOC, random_index_slot);

    return conf->on;
}

static const struct directive directives[] = {
    ROW("random_index", CTX_LOCATION, ARG_FLAG, conf_set_flag, STORE_LOC, struct random_index_conf,
        on, INHERIT_SCALAR, "off", "on | off", "Lets any of a directory's files stand for it."),
    ROW_END,
};

static const struct hook hooks[] = {
    { PHASE_CONTENT, HOOK_RANDOM_INDEX, random_index_run, random_index_wanted },
    HOOK_END,
};

static const struct http_module http_random_index = { .hooks = hooks };

const struct module module_http_random_index = {
    .name = "http_random_index",
    .slot = &random_index_slot,
    .conf_size = { [STORE_LOC] = sizeof(struct random_index_conf) },
    .directives = directives,
    .http = &http_random_index,
};
