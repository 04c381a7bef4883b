/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The cache of small files' contents: a hash table by path with the least recently used at the
 * end of a list, bounded in bytes, one for each worker. Called by static only; reads the file, asks
 * the file system nothing else.
 */
#include "modules/http/small_files.h"

#include <errno.h>
#include <unistd.h>

#include "core/base/clock.h"
#include "core/base/hash.h"
#include "core/base/list.h"

#define BUCKETS 4096

struct entry {
    struct small_file file; /* first */
    struct list lru;
    struct entry *next;
    uint64_t hash;
    size_t bytes; /* what it costs */
    size_t path_len;
    char path[];
};

static struct list lru = { &lru, &lru };
static struct entry **buckets;
static size_t used, limit;
static struct entry *unkept; /* given once, freed at the next call */

size_t file_etag(char etag[FILE_ETAG_MAX], const struct file_info *info)
{
    char *p = etag;

    *p++ = '"';
    p = fmt_hex(p, (uint64_t) info->mtime.tv_sec);
    *p++ = '-';
    p = fmt_hex(p, info->size);
    *p++ = '"';
    return (size_t) (p - etag);
}

void small_files_limit(size_t bytes)
{
    limit = bytes;
}

static void entry_free(struct entry *e)
{
    block_unref(e->file.content);
    free(e);
}

static void forget(struct entry *e)
{
    struct entry **p = &buckets[e->hash % BUCKETS];

    while (*p != e)
        p = &(*p)->next;
    *p = e->next;
    list_remove(&e->lru);
    used -= e->bytes;
    entry_free(e);
}

static struct entry *find(struct str path, uint64_t hash)
{
    struct entry *e = buckets ? buckets[hash % BUCKETS] : NULL;

    while (e != NULL && (e->hash != hash || e->path_len != path.len
                         || memcmp(e->path, path.ptr, path.len) != 0))
        e = e->next;
    return e;
}

static void drop_unkept(void)
{
    if (unkept != NULL)
        entry_free(unkept);
    unkept = NULL;
}

struct small_file *small_files_find(struct str path)
{
    struct entry *e;

    drop_unkept();
    if (limit == 0)
        return NULL;
    e = find(path, hash_bytes(path.ptr, path.len));
    if (e == NULL)
        return NULL;
    if (lru.next != &e->lru) {
        list_remove(&e->lru);
        list_push_front(&lru, &e->lru);
    }
    return &e->file;
}

static bool same_time(struct timespec a, struct timespec b)
{
    return a.tv_sec == b.tv_sec && a.tv_nsec == b.tv_nsec;
}

static bool same_file(const struct file_info *a, const struct file_info *b)
{
    return a->ino == b->ino && a->dev == b->dev && a->size == b->size && a->mode == b->mode
           && same_time(a->mtime, b->mtime) && same_time(a->ctime, b->ctime);
}

bool small_file_current(const struct small_file *f, const struct file_info *now)
{
    return same_file(&f->info, now);
}

/* All of the file, and nothing of another version of it. */
static bool read_whole(struct entry *e, const struct file_info *info)
{
    size_t got = 0, size = (size_t) info->size;
    struct stat st;

    if (size > 0)
        e->file.content = block_new_exact(size);
    while (got < size) {
        ssize_t n = pread(info->file->fd, e->file.content->data + got, size - got, (off_t) got);

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return false;
        got += (size_t) n;
    }
    return fstat(info->file->fd, &st) == 0 && (uint64_t) st.st_size == info->size
           && same_time(st.st_mtim, info->mtime);
}

/*
 * Times are as coarse as the kernel's tick, or a second and more where the file system keeps no
 * fractions: a file that is being written may change and keep its time.
 */
static bool may_change_unseen(const struct file_info *info)
{
    int64_t now_ms = (int64_t) clock_time() * 1000 + (int64_t) clock_time_ms();
    int64_t then_ms = (int64_t) info->ctime.tv_sec * 1000 + info->ctime.tv_nsec / 1000000;

    return now_ms - then_ms < (info->ctime.tv_nsec == 0 ? 2000 : 100);
}

struct small_file *small_files_read(struct str path, const struct file_info *info)
{
    struct entry *e;
    size_t bytes = sizeof(*e) + path.len + sizeof(struct block) + (size_t) info->size;

    drop_unkept();
    if (limit == 0 || bytes > limit || info->size > SMALL_FILE_MAX || info->direct)
        return NULL;
    e = mem_zalloc(sizeof(*e) + path.len);
    e->file.info = *info;
    e->file.info.file = NULL;
    if (!read_whole(e, info)) {
        entry_free(e);
        return NULL;
    }
    fmt_http_date(e->file.date, info->mtime.tv_sec);
    e->file.etag_len = (unsigned char) file_etag(e->file.etag, info);
    if (may_change_unseen(info)) {
        unkept = e;
        return &e->file;
    }
    if (buckets == NULL)
        buckets = mem_zalloc(BUCKETS * sizeof(struct entry *));
    e->hash = hash_bytes(path.ptr, path.len);
    e->bytes = bytes;
    e->path_len = path.len;
    memcpy(e->path, path.ptr, path.len);
    while (used + bytes > limit)
        forget(container_of(lru.prev, struct entry, lru));
    e->next = buckets[e->hash % BUCKETS];
    buckets[e->hash % BUCKETS] = e;
    list_push_front(&lru, &e->lru);
    used += bytes;
    return &e->file;
}

void small_files_forget(struct str path)
{
    struct entry *e;

    drop_unkept();
    e = find(path, hash_bytes(path.ptr, path.len));
    if (e != NULL)
        forget(e);
}

void small_files_free(void)
{
    drop_unkept();
    while (!list_empty(&lru))
        forget(container_of(lru.next, struct entry, lru));
    free(buckets);
    buckets = NULL;
}
