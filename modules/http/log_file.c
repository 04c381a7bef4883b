/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Where lines of access logs go: straight to a file, through a buffer (compressed if wanted), or
 * to files whose names come from variables, which open_log_file_cache keeps open. Descriptors of named
 * files are the master's and are opened anew by it and by each worker (workers/logs.c).
 */
#include <errno.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#include "core/base/clock.h"
#include "core/base/hash.h"
#include "core/config/resource.h"
#include "core/os/file.h"
#include "modules/http/log.h"

#define COMPLAIN_S 60

/* Writing ----------------------------------------------------------------------------------------- */

static time_t disk_full_s; /* when ENOSPC came last: nothing is tried again in that second */
static time_t complained_s;

static bool may_complain(void)
{
    if (complained_s != 0 && clock_time() - complained_s < COMPLAIN_S)
        return false;
    complained_s = clock_time();
    return true;
}

static void write_fd(const struct logger *log, int fd, struct str path, struct str text)
{
    ssize_t n;

    if (fd < 0 || (disk_full_s != 0 && disk_full_s == clock_time()))
        return;
    do
        n = write(fd, text.ptr, text.len);
    while (n < 0 && errno == EINTR);
    if (n == (ssize_t) text.len)
        return;
    if (n < 0) {
        int err = errno;

        if (err == ENOSPC)
            disk_full_s = clock_time();
        if (may_complain())
            log_alert(log, err, "write() to \"%.*s\" failed", STR_ARG(path));
        return;
    }
    if (may_complain())
        log_alert(log, 0, "write() to \"%.*s\" was incomplete: %zd of %zu", STR_ARG(path), n,
                  text.len);
}

void log_file_write(struct req *r, struct res_file *file, struct str line)
{
    write_fd(&r->log, file->file.fd, file->file.path, line);
}

/* Buffers ----------------------------------------------------------------------------------------- */

/* A gzip member of what is collected. 0, or -1: write it as it is. */
static int compress_text(const struct log_buffer *b, char **out, size_t *len)
{
    z_stream z = { .zalloc = Z_NULL };
    uLong bound;
    int rc;

    if (deflateInit2(&z, b->gzip, Z_DEFLATED, MAX_WBITS + 16, MAX_MEM_LEVEL, Z_DEFAULT_STRATEGY)
        != Z_OK)
        return -1;
    bound = deflateBound(&z, (uLong) b->used);
    *out = mem_alloc(bound);
    z.next_in = (Bytef *) (void *) b->data;
    z.avail_in = (uInt) b->used;
    z.next_out = (Bytef *) *out;
    z.avail_out = (uInt) bound;
    rc = deflate(&z, Z_FINISH);
    *len = z.total_out;
    deflateEnd(&z);
    if (rc == Z_STREAM_END)
        return 0;
    free(*out);
    return -1;
}

static void flush(struct log_buffer *b)
{
    char *packed;
    size_t len;

    timer_stop(&b->timer);
    if (b->used == 0)
        return;
    if (b->gzip != 0 && compress_text(b, &packed, &len) == 0) {
        write_fd(log_main, b->file->file.fd, b->file->file.path, str_from(packed, len));
        free(packed);
    } else {
        write_fd(log_main, b->file->file.fd, b->file->file.path, str_from(b->data, b->used));
    }
    b->used = 0;
}

static void flush_file(struct res_file *file)
{
    flush(file->data);
}

static void flush_timer(struct timer *timer)
{
    flush(container_of(timer, struct log_buffer, timer));
}

struct log_buffer *log_buffer_of(struct conf *cf, struct res_file *file, size_t size,
                                 uint64_t flush_ms, int gzip, bool *conflict)
{
    struct log_buffer *b = file->data;

    *conflict = false;
    if (file->flush != NULL) {
        *conflict = b->size != size || b->flush_ms != flush_ms || b->gzip != gzip;
        return b;
    }
    b = ARENA_NEW(cf->arena, struct log_buffer);
    b->file = file;
    b->size = size;
    b->flush_ms = flush_ms;
    b->gzip = gzip;
    b->timer.fire = flush_timer;
    b->timer.deadline_ms = TIMER_OFF;
    file->data = b;
    file->flush = flush_file;
    return b;
}

void log_buffer_write(struct req *r, struct log_buffer *b, struct str line)
{
    if (b->data == NULL)
        b->data = mem_alloc(b->size);
    if (line.len > b->size - b->used)
        flush(b);
    if (line.len > b->size) {
        write_fd(&r->log, b->file->file.fd, b->file->file.path, line);
        return;
    }
    memcpy(b->data + b->used, line.ptr, line.len);
    b->used += line.len;
    if (b->used == b->size)
        flush(b);
    else if (b->flush_ms != 0 && !timer_active(&b->timer))
        timer_set(&b->timer, b->flush_ms);
}

/* Files named by variables -------------------------------------------------------------------------- */

#define BUCKETS 256

struct open_file {
    struct list lru;
    struct open_file *next;
    const struct log_files_conf *owner;
    uint64_t hash, used_ms, checked_ms, uses;
    int fd; /* -1: not used often enough to be kept open */
    dev_t dev;
    ino_t ino;
    size_t path_len;
    char path[];
};

static struct list open_files = { &open_files, &open_files };
static struct open_file *buckets[BUCKETS];
static unsigned open_count;

static void close_file(struct open_file *f)
{
    if (f->fd >= 0)
        close(f->fd);
    f->fd = -1;
}

static void forget(struct open_file *f)
{
    struct open_file **p = &buckets[f->hash % BUCKETS];

    while (*p != f)
        p = &(*p)->next;
    *p = f->next;
    list_remove(&f->lru);
    close_file(f);
    free(f);
    open_count--;
}

static struct open_file *find(const struct log_files_conf *conf, struct str path, uint64_t hash)
{
    struct open_file *f = buckets[hash % BUCKETS];

    while (f != NULL && (f->hash != hash || f->owner != conf || f->path_len != path.len
                         || memcmp(f->path, path.ptr, path.len) != 0))
        f = f->next;
    return f;
}

static struct open_file *add(const struct log_files_conf *conf, struct str path, uint64_t hash)
{
    struct open_file *f = mem_zalloc(sizeof(*f) + path.len + 1);

    f->owner = conf;
    f->hash = hash;
    f->fd = -1;
    f->path_len = path.len;
    memcpy(f->path, path.ptr, path.len);
    f->next = buckets[hash % BUCKETS];
    buckets[hash % BUCKETS] = f;
    list_push_front(&open_files, &f->lru);
    open_count++;
    return f;
}

/* Drops what is idle, and the least recently used beyond max. */
static void expire(const struct log_files_conf *conf)
{
    for (unsigned i = 0; i < 2 && !list_empty(&open_files); i++) {
        struct open_file *f = container_of(open_files.prev, struct open_file, lru);

        if (open_count < conf->max && clock_ms() - f->used_ms <= f->owner->inactive_s * 1000)
            return;
        forget(f);
    }
}

/* A file that was moved away or removed is opened anew. */
static void check(struct open_file *f, const struct log_files_conf *conf)
{
    struct stat st;

    if (f->fd < 0 || clock_ms() - f->checked_ms < conf->valid_s * 1000)
        return;
    f->checked_ms = clock_ms();
    if (stat(f->path, &st) != 0 || st.st_dev != f->dev || st.st_ino != f->ino)
        close_file(f);
}

static int open_path(struct req *r, struct str path)
{
    int fd = file_open_append(path.ptr, 0644);

    if (fd < 0 && may_complain())
        log_crit(&r->log, errno, "open() \"%.*s\" failed", STR_ARG(path));
    return fd;
}

static void write_cached(struct req *r, struct str path, const struct log_files_conf *conf,
                         struct str line)
{
    uint64_t hash = hash_bytes(path.ptr, path.len);
    struct open_file *f = find(conf, path, hash);
    struct stat st;

    if (f == NULL) {
        expire(conf);
        f = add(conf, path, hash);
    } else {
        list_remove(&f->lru);
        list_push_front(&open_files, &f->lru);
        check(f, conf);
    }
    f->uses++;
    f->used_ms = clock_ms();
    if (f->fd < 0) {
        f->fd = open_path(r, path);
        f->checked_ms = clock_ms();
        if (f->fd >= 0 && fstat(f->fd, &st) == 0) {
            f->dev = st.st_dev;
            f->ino = st.st_ino;
        }
    }
    write_fd(&r->log, f->fd, path, line);
    if (f->uses < conf->min_uses)
        close_file(f);
}

void log_path_write(struct req *r, struct str path, const struct log_files_conf *cache,
                    struct str line)
{
    int fd;

    if (memchr(path.ptr, '\0', path.len) != NULL)
        return;
    if (cache->on) {
        write_cached(r, path, cache, line);
        return;
    }
    fd = open_path(r, path);
    if (fd < 0)
        return;
    write_fd(&r->log, fd, path, line);
    close(fd);
}

void log_files_stop(const struct config *config)
{
    struct list *files = &config->resources->files;

    for (struct list *l = files->next; l != files; l = l->next) {
        struct res_file *file = container_of(l, struct res_file, link);
        struct log_buffer *b = file->data;

        if (file->flush != flush_file)
            continue;
        flush(b);
        timer_drop(&b->timer);
        free(b->data);
        b->data = NULL;
    }
    while (!list_empty(&open_files))
        forget(container_of(open_files.next, struct open_file, lru));
}
