/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Looking up files, and open_file_cache: descriptors, sizes, times and failures by path, for
 * each pair of max and inactive that the configuration names, in each worker. Entries are checked
 * again after open_file_cache_valid, dropped when unused for `inactive`, least recently used first when
 * there are `max`. Used by static, index, try_files and rewrite's file tests; sends nothing.
 */
#include "modules/http/file_cache.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "core/base/clock.h"
#include "core/base/hash.h"
#include "core/base/list.h"

#define PATH_COMPONENT_MAX 256

struct cached {
    struct list lru;
    struct cached *next; /* of the same bucket */
    uint64_t hash;
    struct file_info info; /* info.file: our own reference, or NULL */
    uint64_t checked_ms;
    uint64_t used_ms;
    uint64_t uses; /* since it was last idle for `inactive` */
    size_t path_len;
    char path[];
};

struct file_cache {
    struct file_cache *next;
    unsigned max;
    uint64_t inactive_s;
    unsigned count;
    unsigned mask;
    struct list lru; /* most recently used first */
    struct cached **buckets;
};

static struct file_cache *caches;

/* Without the cache --------------------------------------------------------------------------- */

static void take_stat(struct file_info *out, const struct stat *st)
{
    out->size = (uint64_t) st->st_size;
    out->mtime = st->st_mtim;
    out->ctime = st->st_ctim;
    out->ino = st->st_ino;
    out->dev = st->st_dev;
    out->mode = st->st_mode;
}

static int fail(struct file_info *out, const char *call)
{
    out->err = errno;
    out->failed = call;
    return -1;
}

static bool wants_direct(const struct core_loc *core, const struct file_info *info)
{
    return core->directio != UINT64_MAX && info->size >= core->directio && S_ISREG(info->mode);
}

/* Completes what a descriptor tells; takes it over. */
static int take_fd(const struct core_loc *core, int fd, struct file_info *out)
{
    struct stat st;

    if (fstat(fd, &st) != 0) {
        fail(out, "fstat()");
        close(fd);
        return -1;
    }
    take_stat(out, &st);
    if (!S_ISREG(st.st_mode)) {
        close(fd);
        return 0;
    }
    /* A file system that cannot do it is read in the ordinary way. */
    if (wants_direct(core, out))
        out->direct = fcntl(fd, F_SETFL, O_RDONLY | O_DIRECT) == 0;
    out->file = chain_file_new(fd);
    return 0;
}

static int open_plain(const struct core_loc *core, const char *path, struct file_info *out)
{
    /* O_NONBLOCK: a fifo must not hold up the worker. */
    int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);

    return fd < 0 ? fail(out, "open()") : take_fd(core, fd, out);
}

/*
 * One step of a path whose symbolic links are judged: opens `name` in dir. A link is refused
 * (ELOOP), or followed if it and its target have one owner.
 */
static int open_step(int dir, const char *name, int flags, bool same_owner)
{
    struct stat link, target;
    int fd;

    if (!same_owner)
        return openat(dir, name, flags | O_NOFOLLOW | O_CLOEXEC);
    fd = openat(dir, name, flags | O_CLOEXEC);
    if (fd < 0)
        return -1;
    if (fstatat(dir, name, &link, AT_SYMLINK_NOFOLLOW) != 0 || fstat(fd, &target) != 0) {
        close(fd);
        return -1;
    }
    if (S_ISLNK(link.st_mode) && link.st_uid != target.st_uid) {
        close(fd);
        errno = ELOOP;
        return -1;
    }
    return fd;
}

/* Opens an absolute path component by component; the first `trusted` bytes are not judged. */
static int open_judged(const char *path, size_t trusted, int flags, bool same_owner)
{
    char name[PATH_COMPONENT_MAX];
    const char *p = path + trusted;
    int dir, fd;

    if (trusted > 0) {
        char *start = strndup(path, trusted);

        if (start == NULL)
            return -1;
        dir = open(start, O_PATH | O_DIRECTORY | O_CLOEXEC);
        free(start);
    } else {
        dir = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
    }
    while (dir >= 0) {
        size_t n;
        bool last;

        while (*p == '/')
            p++;
        n = strcspn(p, "/");
        if (n >= sizeof(name)) {
            close(dir);
            errno = ENAMETOOLONG;
            return -1;
        }
        last = p[n + strspn(p + n, "/")] == '\0';
        memcpy(name, n ? p : ".", n ? n : 1);
        name[n ? n : 1] = '\0';
        fd = open_step(dir, name, last ? flags : O_PATH | O_DIRECTORY, same_owner);
        if (fd < 0 && errno == ENOTDIR && !last && !same_owner) {
            /* O_PATH|O_DIRECTORY|O_NOFOLLOW says ENOTDIR of a link too. */
            struct stat st;

            errno = ENOTDIR;
            if (fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) == 0)
                errno = S_ISLNK(st.st_mode) ? ELOOP : ENOTDIR;
        }
        {
            int err = errno;

            close(dir);
            errno = err;
        }
        if (last || fd < 0)
            return fd;
        dir = fd;
        p += n;
    }
    return -1;
}

static int lookup_judged(struct req *r, struct str path, struct file_info *out)
{
    const struct core_loc *core = r->loc->core;
    size_t trusted = 0;
    int fd;

    if (core->disable_symlinks_from != NULL) {
        struct str from = expr_eval(&r->eval, core->disable_symlinks_from);

        if (from.len <= path.len && memcmp(from.ptr, path.ptr, from.len) == 0)
            trusted = from.len;
        if (trusted == path.len)
            trusted = 0;
    }
    fd = open_judged(path.ptr, trusted, O_RDONLY | O_NONBLOCK,
                     core->disable_symlinks == SYMLINKS_SAME_OWNER);
    return fd < 0 ? fail(out, "openat()") : take_fd(core, fd, out);
}

static int lookup_now(const struct core_loc *core, const char *path, unsigned flags,
                      struct file_info *out)
{
    struct stat st;

    if (flags & FILE_OPEN)
        return open_plain(core, path, out);
    if (stat(path, &st) != 0)
        return fail(out, "stat()");
    take_stat(out, &st);
    return 0;
}

/* The cache ----------------------------------------------------------------------------------- */

static struct file_cache *cache_of(const struct open_file_cache_conf *conf)
{
    struct file_cache *c;
    unsigned buckets = 16;

    for (c = caches; c != NULL; c = c->next) {
        if (c->max == conf->max && c->inactive_s == conf->inactive_s)
            return c;
    }
    while (buckets < conf->max && buckets < 65536)
        buckets *= 2;
    c = mem_zalloc(sizeof(*c));
    c->max = conf->max;
    c->inactive_s = conf->inactive_s;
    c->mask = buckets - 1;
    c->buckets = mem_zalloc(buckets * sizeof(struct cached *));
    list_init(&c->lru);
    c->next = caches;
    caches = c;
    return c;
}

static struct cached **bucket_place(struct file_cache *c, const struct cached *e)
{
    struct cached **p = &c->buckets[e->hash & c->mask];

    while (*p != e)
        p = &(*p)->next;
    return p;
}

static void forget(struct file_cache *c, struct cached *e)
{
    *bucket_place(c, e) = e->next;
    list_remove(&e->lru);
    chain_file_unref(e->info.file);
    free(e);
    c->count--;
}

/* The idle ones, a few at a time, and the oldest where there is no room. */
static void expire(struct file_cache *c, bool room)
{
    for (unsigned i = 0; i < 3 && !list_empty(&c->lru); i++) {
        struct cached *e = container_of(c->lru.prev, struct cached, lru);

        if (!(room && c->count >= c->max) && clock_ms() - e->used_ms <= c->inactive_s * 1000)
            return;
        forget(c, e);
    }
}

static struct cached *find(struct file_cache *c, struct str path, uint64_t hash)
{
    struct cached *e = c->buckets[hash & c->mask];

    while (e != NULL && (e->hash != hash || e->path_len != path.len
                         || memcmp(e->path, path.ptr, path.len) != 0))
        e = e->next;
    return e;
}

static struct cached *add(struct file_cache *c, struct str path, uint64_t hash)
{
    struct cached *e = mem_zalloc(sizeof(*e) + path.len + 1);

    e->hash = hash;
    e->path_len = path.len;
    memcpy(e->path, path.ptr, path.len);
    e->next = c->buckets[hash & c->mask];
    c->buckets[hash & c->mask] = e;
    list_push_front(&c->lru, &e->lru);
    c->count++;
    return e;
}

static bool same_file(const struct file_info *info, const struct stat *st)
{
    return info->err == 0 && info->ino == st->st_ino && info->dev == st->st_dev
           && info->size == (uint64_t) st->st_size && info->mtime.tv_sec == st->st_mtim.tv_sec
           && info->mtime.tv_nsec == st->st_mtim.tv_nsec;
}

/* Whether the entry still tells the truth, as far as it is to be asked. */
static bool is_current(const struct core_loc *core, struct cached *e)
{
    struct stat st;

    if (clock_ms() - e->checked_ms < core->open_file_cache_valid_s * 1000)
        return true;
    if (stat(e->path, &st) != 0 || !same_file(&e->info, &st))
        return false;
    e->checked_ms = clock_ms();
    return true;
}

/* What the entry says, for the caller. False: it has no descriptor and one is wanted. */
static bool give(const struct cached *e, unsigned flags, struct file_info *out)
{
    if ((flags & FILE_OPEN) && e->info.err == 0 && e->info.file == NULL && S_ISREG(e->info.mode))
        return false;
    *out = e->info;
    if (flags & FILE_OPEN) {
        if (out->file != NULL)
            out->file->refs++;
    } else {
        out->file = NULL;
    }
    return true;
}

/* Takes over what was found out about the path. */
static void fill(const struct core_loc *core, struct cached *e, unsigned flags,
                 const struct file_info *info)
{
    bool keep = (flags & FILE_OPEN) && info->file != NULL
                && e->uses >= (uint64_t) core->open_file_cache_min_uses;

    chain_file_unref(e->info.file);
    e->info = *info;
    e->info.file = keep ? info->file : NULL;
    if (keep)
        info->file->refs++;
    e->checked_ms = clock_ms();
}

static int lookup_cached(const struct core_loc *core, struct str path, unsigned flags,
                         struct file_info *out)
{
    struct file_cache *c = cache_of(&core->open_file_cache);
    uint64_t hash = hash_bytes(path.ptr, path.len);
    struct cached *e;
    int rc;

    expire(c, false);
    e = find(c, path, hash);
    if (e != NULL) {
        e->uses++;
        e->used_ms = clock_ms();
        list_remove(&e->lru);
        list_push_front(&c->lru, &e->lru);
        if ((e->info.err == 0 || core->open_file_cache_errors) && is_current(core, e)
            && give(e, flags, out))
            return out->err ? -1 : 0;
    }
    rc = lookup_now(core, path.ptr, flags, out);
    if (rc != 0 && !core->open_file_cache_errors) {
        if (e != NULL)
            forget(c, e);
        return rc;
    }
    if (e == NULL) {
        expire(c, true);
        e = add(c, path, hash);
        e->uses = 1;
        e->used_ms = clock_ms();
    }
    fill(core, e, flags, out);
    return rc;
}

int file_lookup(struct req *r, struct str path, unsigned flags, struct file_info *out)
{
    const struct core_loc *core = r->loc->core;

    memset(out, 0, sizeof(*out));
    if (unlikely(core->disable_symlinks != SYMLINKS_ALLOWED)) {
        int rc = lookup_judged(r, path, out);

        if (rc == 0 && !(flags & FILE_OPEN)) {
            chain_file_unref(out->file);
            out->file = NULL;
        }
        return rc;
    }
    if (core->open_file_cache.on)
        return lookup_cached(core, path, flags, out);
    return lookup_now(core, path.ptr, flags, out);
}

unsigned file_failure(struct req *r, struct str path, const struct file_info *info)
{
    enum log_level level = LOG_CRIT_LEVEL;
    unsigned status = 500;

    switch (info->err) {
    case ENOENT:
    case ENOTDIR:
    case ENAMETOOLONG:
        level = LOG_ERROR_LEVEL;
        status = 404;
        break;
    case EACCES:
    case ELOOP:
    case EMLINK:
        level = LOG_ERROR_LEVEL;
        status = 403;
        break;
    default:
        break;
    }
    if (status != 404 || r->loc->core->log_not_found)
        LOG(&r->log, level, info->err, "%s \"%.*s\" failed", info->failed, STR_ARG(path));
    return status;
}

void file_cache_free(void)
{
    struct file_cache *c;

    while ((c = caches) != NULL) {
        caches = c->next;
        while (!list_empty(&c->lru))
            forget(c, container_of(c->lru.next, struct cached, lru));
        free(c->buckets);
        free(c);
    }
}
