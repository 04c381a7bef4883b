/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Zones as a whole: the mapping, its identity, attaching that of an older binary, the workers'
 * slots. Called by the master when it reads a configuration and when a worker has ended;
 * workers inherit the mapping. What lies inside is the business of slab.c, keyed.c and the users.
 */
#include <errno.h>
#include <sys/stat.h>

#include "core/base/log.h"
#include "core/os/process.h"
#include "core/zone/layout.h"

unsigned zone_worker;

static uint64_t align_up(uint64_t n, uint64_t to)
{
    return (n + to - 1) / to * to;
}

/* FNV-1a over bytes and their length, so that "ab","c" and "a","bc" differ. */
static uint64_t identity_add(uint64_t hash, const void *ptr, size_t len)
{
    const unsigned char *p = ptr;
    uint64_t n = len;
    size_t i;

    for (i = 0; i < len + sizeof(n); i++) {
        unsigned char c = i < len ? p[i] : (unsigned char) (n >> 8 * (i - len));

        hash = (hash ^ c) * 0x100000001b3ull;
    }
    return hash;
}

static uint64_t identity(const struct zone_spec *spec)
{
    uint64_t numbers[3] = { spec->size, spec->kind->version, spec->kind->slot_size };
    uint64_t hash = 0xcbf29ce484222325ull;

    hash = identity_add(hash, spec->name.ptr, spec->name.len);
    hash = identity_add(hash, spec->kind->name, strlen(spec->kind->name));
    hash = identity_add(hash, spec->params.ptr, spec->params.len);
    return identity_add(hash, numbers, sizeof(numbers));
}

static uint64_t slot_stride(const struct zone_spec *spec)
{
    return align_up(spec->kind->slot_size, 64); /* no two workers in one cache line */
}

static uint64_t slots_offset(void)
{
    return align_up(sizeof(struct zone_header), ZONE_PAGE);
}

/* Slots lie besides the configured size: pages of workers that never were cost no memory. */
static uint64_t pages_offset(const struct zone_spec *spec)
{
    return align_up(slots_offset() + slot_stride(spec) * ZONE_WORKERS, ZONE_PAGE);
}

static size_t total_size(const struct zone_spec *spec)
{
    return (size_t) (pages_offset(spec) + spec->size / ZONE_PAGE * ZONE_PAGE);
}

static char *copy(struct str s)
{
    char *z = mem_alloc(s.len + 1);

    if (s.len != 0)
        memcpy(z, s.ptr, s.len);
    z[s.len] = '\0';
    return z;
}

/* What this process knows of a mapping of that specification. */
static struct zone *zone_new(const struct zone_spec *spec, void *base, int fd)
{
    struct zone *zone = mem_zalloc(sizeof(*zone));
    uint64_t pages = spec->size / ZONE_PAGE;
    uint64_t used = (pages * sizeof(struct zone_page) + ZONE_PAGE - 1) / ZONE_PAGE;

    zone->base = base;
    zone->header = base;
    zone->pages = (struct zone_page *) (void *) (zone->base + pages_offset(spec));
    zone->pool = zone->base + pages_offset(spec) + used * ZONE_PAGE;
    zone->total = total_size(spec);
    zone->page_count = (uint32_t) (pages - used);
    zone->size = spec->size;
    zone->fd = fd;
    zone->owners = 1;
    zone->kind = spec->kind;
    zone->data = spec->data;
    if (zone->kind->scattered)
        shm_want_huge(base, zone->total);
    zone->name = str_from(copy(spec->name), spec->name.len);
    zone->params = str_from(copy(spec->params), spec->params.len);
    return zone;
}

static void header_fill(struct zone *zone, const struct zone_spec *spec)
{
    struct zone_header *header = zone->header;
    struct zone_slab *slab = &header->slab;

    header->layout = ZONE_LAYOUT;
    header->lock_size = sizeof(pthread_mutex_t);
    header->identity = identity(spec);
    header->total = zone->total;
    memcpy(header->name, zone->name.ptr, MIN(zone->name.len, sizeof(header->name) - 1));
    header->slots = slots_offset();
    header->slot_stride = slot_stride(spec);
    slab->pages = (uint64_t) ((char *) zone->pages - zone->base);
    slab->pool = (uint64_t) (zone->pool - zone->base);
    slab->count = zone->page_count;
    slab_init(zone, true);
}

/*
 * The first init, under the lock as every later one is. magic is stored last: before it there is
 * no zone.
 */
static int zone_start(struct zone *zone, const struct logger *log)
{
    int err = zone_mutex_init(&zone->header->lock);
    int rc = 0;

    if (err != 0) {
        log_emerg(log, err, "no lock for shared memory zone \"%.*s\"", STR_ARG(zone->name));
        return -1;
    }
    zone_lock(zone);
    if (zone->kind->init != NULL)
        rc = zone->kind->init(zone, zone->data);
    ZONE_SET(zone->header->state, ZONE_READY);
    ZONE_SET(zone->header->magic, ZONE_MAGIC);
    zone_unlock(zone);
    return rc;
}

struct zone *zone_create(const struct zone_spec *spec, const struct logger *log)
{
    char name[64];
    struct zone *zone;
    void *base;
    int fd;

    if (spec->size < ZONE_MIN || spec->size > ZONE_MAX) {
        log_emerg(log, 0, "shared memory zone \"%.*s\" is too %s", STR_ARG(spec->name),
                  spec->size < ZONE_MIN ? "small" : "large");
        return NULL;
    }
    (void) snprintf(name, sizeof(name), "zone:%.*s", (int) MIN(spec->name.len, 50), spec->name.ptr);
    base = shm_create(name, total_size(spec), &fd);
    if (base == NULL) {
        log_emerg(log, errno, "no memory for shared memory zone \"%.*s\" of %zu bytes",
                  STR_ARG(spec->name), spec->size);
        return NULL;
    }
    zone = zone_new(spec, base, fd);
    header_fill(zone, spec);
    if (zone_start(zone, log) != 0) {
        zone_destroy(zone);
        return NULL;
    }
    return zone;
}

/* NULL, or why the mapping cannot serve the specification. */
static const char *header_differs(const struct zone_header *header, const struct zone_spec *spec)
{
    if (header->magic != ZONE_MAGIC)
        return "it is not a zone";
    if (header->layout != ZONE_LAYOUT || header->lock_size != sizeof(pthread_mutex_t))
        return "its layout is of another version";
    if (header->identity != identity(spec) || header->total != total_size(spec))
        return "its size, parameters or version differ";
    if (header->state != ZONE_READY && header->state != ZONE_WIPING)
        return "it was never initialised";
    return NULL;
}

struct zone *zone_attach(int fd, const struct zone_spec *spec, const struct logger *log)
{
    size_t total = total_size(spec);
    const char *why = "its size differs";
    struct stat st;
    void *base;

    if (spec->size < ZONE_MIN || spec->size > ZONE_MAX)
        return NULL; /* zone_create, which comes next, says so */
    if (fstat(fd, &st) != 0 || (uint64_t) st.st_size < total)
        goto differs;
    base = shm_attach(fd, total);
    if (base == NULL) {
        log_warn(log, errno, "inherited shared memory zone \"%.*s\" cannot be mapped",
                 STR_ARG(spec->name));
        return NULL;
    }
    why = header_differs(base, spec);
    if (why == NULL)
        return zone_new(spec, base, fd);
    shm_destroy(base, total, -1);
differs:
    log_notice(log, 0, "inherited shared memory zone \"%.*s\" starts anew: %s", STR_ARG(spec->name),
               why);
    return NULL;
}

bool zone_matches(const struct zone *zone, const struct zone_spec *spec)
{
    return str_eq(zone->name, spec->name) && zone->kind == spec->kind && zone->size == spec->size &&
           str_eq(zone->params, spec->params);
}

int zone_adopt(struct zone *zone, const struct zone_spec *spec, const struct logger *log)
{
    int rc = 0;

    ASSERT(zone->kind == spec->kind);
    zone_lock(zone);
    if (zone->kind->adopt != NULL)
        rc = zone->kind->adopt(zone, spec->data);
    if (rc == 0)
        zone->data = spec->data;
    zone_unlock(zone);
    if (rc != 0)
        log_debug(log, "shared memory zone \"%.*s\" refused to be adopted", STR_ARG(zone->name));
    return rc;
}

struct zone *zone_share(struct zone *zone)
{
    zone->owners++;
    return zone;
}

void zone_destroy(struct zone *zone)
{
    if (zone == NULL || --zone->owners > 0)
        return;
    shm_destroy(zone->base, zone->total, zone->fd);
    free((char *) (uintptr_t) zone->name.ptr);
    free((char *) (uintptr_t) zone->params.ptr);
    free(zone);
}

int zone_fd(const struct zone *zone)
{
    return zone->fd;
}

struct str zone_name(const struct zone *zone)
{
    return zone->name;
}

const struct zone_kind *zone_kind(const struct zone *zone)
{
    return zone->kind;
}

void *zone_at(const struct zone *zone, zone_off_t off)
{
    ASSERT(off < zone->total);
    return off == 0 ? NULL : zone->base + off;
}

zone_off_t zone_off(const struct zone *zone, const void *ptr)
{
    zone_off_t off;

    if (ptr == NULL)
        return 0;
    off = (zone_off_t) ((const char *) ptr - zone->base);
    ASSERT((const char *) ptr > zone->base && off < zone->total);
    return off;
}

void zone_set_root(struct zone *zone, zone_off_t root)
{
    ZONE_SET(zone->header->root, root);
}

zone_off_t zone_root(const struct zone *zone)
{
    return zone->header->root;
}

unsigned zone_generation(const struct zone *zone)
{
    return __atomic_load_n(&zone->header->generation, __ATOMIC_ACQUIRE);
}

uint64_t zone_recoveries(const struct zone *zone)
{
    return __atomic_load_n(&zone->header->recoveries, __ATOMIC_RELAXED);
}

void zone_set_worker(unsigned worker)
{
    ASSERT(worker < ZONE_WORKERS);
    zone_worker = worker;
}

void *zone_slot(struct zone *zone, unsigned worker)
{
    ASSERT(worker < ZONE_WORKERS);
    if (zone->kind->slot_size == 0)
        return NULL;
    return zone->base + slots_offset() + align_up(zone->kind->slot_size, 64) * worker;
}

void zone_worker_gone(struct zone *zone, unsigned worker, const struct logger *log)
{
    void *slot = zone_slot(zone, worker);

    if (slot == NULL)
        return;
    log_debug(log, "shared memory zone \"%.*s\": slot %u is given back", STR_ARG(zone->name),
              worker);
    if (zone->kind->worker_gone != NULL)
        zone->kind->worker_gone(zone, slot);
    memset(slot, 0, zone->kind->slot_size);
}
