/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Key-value pairs in shared memory, kept in a file: the zones that keyval_zone makes, for variables
 * (http, stream) and for whoever changes them at run time. Keys and values are UTF-8. Every call takes
 * the zone's lock for a moment; none waits for a disk.
 */
#ifndef MODULES_KEYVAL_KEYVAL_H
#define MODULES_KEYVAL_KEYVAL_H

#include "core/config/resource.h"

#define KEYVAL_KEY_MAX 4095
#define KEYVAL_PREFIX_MAX 1023 /* keys of a zone of type=prefix */
#define KEYVAL_VALUE_MAX (1u << 20)

enum keyval_type {
    KEYVAL_STRING, /* the key itself */
    KEYVAL_IP,     /* keys are addresses and networks: the smallest one that holds what is looked for */
    KEYVAL_PREFIX, /* the longest key that what is looked for begins with */
};

/* What keyval_zone says. Lives as long as its configuration. */
struct keyval_zone {
    struct res_zone *res;
    enum keyval_type type;
    uint64_t timeout_ms; /* 0: pairs stay */
    struct str state;    /* the file's absolute path, NUL-terminated; empty: none */
    struct conf_pos pos;
    struct keyval_saver *saver; /* private: in a worker, what writes the file */
};

enum keyval_result {
    KEYVAL_OK,
    KEYVAL_ABSENT,   /* no such key */
    KEYVAL_EXISTS,   /* KEYVAL_ADD: it is there already */
    KEYVAL_FULL,     /* the zone has no memory left */
    KEYVAL_TOO_LONG, /* key or value */
    KEYVAL_BAD_KEY,  /* neither an address nor a network (type=ip) */
    KEYVAL_BAD_TEXT, /* not UTF-8 */
};
/* "the zone is full" … */
const char *keyval_result_text(enum keyval_result result);

struct keyval_pair {
    struct str key, value;
    uint64_t left_ms; /* until it expires; 0: it stays */
};

enum keyval_mode { KEYVAL_PUT, KEYVAL_ADD, KEYVAL_REPLACE };

/* The value for what is looked for, by the rule of the zone's type, copied into the arena. */
bool keyval_match(struct keyval_zone *kz, struct str wanted, struct arena *arena,
                  struct str *value);
/* The pair of this very key, copied. */
enum keyval_result keyval_get(struct keyval_zone *kz, struct str key, struct arena *arena,
                              struct keyval_pair *out);
/*
 * New or changed. expires_ms: from now on; 0: after the zone's timeout, if it has any. KEYVAL_REPLACE changes only what
 * is there (else KEYVAL_ABSENT), KEYVAL_ADD only what is not.
 */
enum keyval_result keyval_set(struct keyval_zone *kz, struct str key, struct str value,
                              uint64_t expires_ms, enum keyval_mode mode);
enum keyval_result keyval_delete(struct keyval_zone *kz, struct str key);
/* All pairs. */
void keyval_clear(struct keyval_zone *kz);

/*
 * Visits the pairs, oldest first, a few at a time, so that the lock is never held for long: begin with a zeroed structure
 * and call until it says false. What is set or deleted meanwhile may be seen or not; a key that is deleted and made
 * anew may be seen twice, the later time with the newer value. The pair given to visit is valid during its call,
 * which happens with the lock held: it must not call anything of this file.
 */
struct keyval_walk {
    uint64_t serial; /* of the pair visited last */
    size_t key_len;
    char key[KEYVAL_KEY_MAX + 1];
};
bool keyval_walk(struct keyval_zone *kz, struct keyval_walk *walk, unsigned max,
                 void (*visit)(void *data, const struct keyval_pair *pair), void *data);

/* For modules that have a keyval_zone directive: its setter, and what the workers do for the state files. */
conf_setter keyval_set_zone;
int keyval_check_states(struct conf *cf);
int keyval_workers_start(const struct config *config);
void keyval_workers_stop(const struct config *config);
/* The zone that a directive names; it may be defined later. NULL with a sentence in *error. */
struct res_zone *keyval_refer(struct conf *cf, struct str name, const char **error);
static inline struct keyval_zone *keyval_of(const struct res_zone *res)
{
    return res->spec.data;
}

#endif
