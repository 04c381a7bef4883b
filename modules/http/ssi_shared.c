/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What a page and everything that it includes have in common: variables that were set, captures of
 * the last match, blocks. All of it together is limited: "set" in a loop of includes could double
 * it without end.
 */
#include "modules/http/ssi.h"

struct ssi_value {
    struct block *block;
    size_t len;
};

struct ssi_block {
    struct ssi_block *next; /* of all, complete or not */
    struct str name;
    struct chain content;
};

struct ssi_shared {
    struct arena *arena;
    struct table values; /* lower case -> struct ssi_value * */
    struct table blocks; /* -> struct ssi_block *, complete */
    struct ssi_block *all_blocks;
    struct ssi_value subject;
    struct regex_match match; /* count 0: none yet */
    size_t bytes;
};

static void release(void *arg)
{
    struct ssi_shared *s = arg;
    const struct table_entry *e;

    for (unsigned i = 0; (e = table_next(&s->values, &i)) != NULL;)
        block_unref(((struct ssi_value *) e->value)->block);
    for (struct ssi_block *b = s->all_blocks; b != NULL; b = b->next)
        chain_clear(&b->content);
    block_unref(s->subject.block);
}

struct ssi_shared *ssi_shared(struct req *r)
{
    struct ssi_request *q = ssi_request(r->main);

    if (q->shared == NULL) {
        struct ssi_shared *s = ARENA_NEW(r->main->arena, struct ssi_shared);

        s->arena = r->main->arena;
        table_init(&s->values, s->arena);
        table_init(&s->blocks, s->arena);
        arena_defer(s->arena, release, s);
        q->shared = s;
    }
    return q->shared;
}

static bool grow(struct ssi_shared *s, size_t more, const struct logger *log)
{
    if (more <= SSI_MEMORY_MAX - s->bytes) {
        s->bytes += more;
        return true;
    }
    log_error(log, 0, "SSI variables and blocks take more than %zu bytes", SSI_MEMORY_MAX);
    return false;
}

/* Variables ----------------------------------------------------------------------------------- */

static bool store(struct ssi_shared *s, struct ssi_value *v, struct str value,
                  const struct logger *log)
{
    if (!grow(s, value.len, log))
        return false;
    s->bytes -= v->len;
    block_unref(v->block);
    v->block = NULL;
    v->len = value.len;
    if (value.len > 0) {
        v->block = block_new_exact(value.len);
        memcpy(v->block->data, value.ptr, value.len);
    }
    return true;
}

static struct ssi_value *find(const struct ssi_shared *s, struct str name)
{
    char lower[256]; /* longer than any name that fits into ssi_value_length's default */

    if (s->values.count == 0)
        return NULL;
    if (name.len > sizeof(lower))
        return table_get(&s->values, str_lower(s->arena, name));
    for (size_t i = 0; i < name.len; i++)
        lower[i] = (char) ascii_lower((unsigned char) name.ptr[i]);
    return table_get(&s->values, str_from(lower, name.len));
}

bool ssi_shared_find(const struct ssi_shared *s, struct str name, struct str *out,
                     struct block **block)
{
    const struct ssi_value *v;

    *out = STR("");
    if (name.len == 1 && name.ptr[0] >= '0' && name.ptr[0] <= '9') {
        unsigned i = (unsigned) (name.ptr[0] - '0');

        if (i < s->match.count) {
            int from = s->match.pos[2 * i], to = s->match.pos[2 * i + 1];

            *block = s->subject.block;
            if (from >= 0 && to > from)
                *out = str_from(s->subject.block->data + from, (size_t) (to - from));
            return true;
        }
    }
    v = find(s, name);
    if (v == NULL)
        return false;
    *block = v->block;
    if (v->len > 0)
        *out = str_from(v->block->data, v->len);
    return true;
}

bool ssi_shared_get(const struct ssi_shared *s, struct str name, struct str *out)
{
    struct block *block;

    return ssi_shared_find(s, name, out, &block);
}

bool ssi_shared_set(struct ssi_shared *s, struct str name, struct str value,
                    const struct logger *log)
{
    struct ssi_value *v = find(s, name);

    if (v == NULL) {
        if (!grow(s, sizeof(*v) + name.len, log))
            return false;
        v = ARENA_NEW(s->arena, struct ssi_value);
        table_put(&s->values, str_lower(s->arena, name), v);
    }
    return store(s, v, value, log);
}

void ssi_shared_matched(struct ssi_shared *s, const struct regex *re, const struct regex_match *m,
                        struct str subject, const struct logger *log)
{
    s->match.count = 0;
    if (!store(s, &s->subject, subject, log))
        return;
    s->match = *m;
    for (unsigned i = 0; i < regex_names(re); i++) {
        unsigned group;
        struct str name = regex_name(re, i, &group);
        struct str value = STR("");

        if (group < m->count && m->pos[2 * group] >= 0)
            value = str_from(subject.ptr + m->pos[2 * group],
                             (size_t) (m->pos[2 * group + 1] - m->pos[2 * group]));
        ssi_shared_set(s, name, value, log);
    }
}

/* Blocks -------------------------------------------------------------------------------------- */

/*
 * Pages that are included at the same time may each be in the midst of a block: it is its page's alone until it is
 * complete. The first of a name is the one that is found.
 */
struct ssi_block *ssi_shared_block(struct ssi_shared *s, struct str name)
{
    struct ssi_block *b;

    if (table_get(&s->blocks, name) != NULL || s->bytes > SSI_MEMORY_MAX)
        return NULL;
    b = ARENA_NEW(s->arena, struct ssi_block);
    b->name = str_dup(s->arena, name);
    b->next = s->all_blocks;
    s->all_blocks = b;
    s->bytes = MIN(s->bytes + sizeof(*b) + name.len, SSI_MEMORY_MAX);
    return b;
}

bool ssi_shared_add(struct ssi_shared *s, struct ssi_block **block, struct chain *content,
                    const struct logger *log)
{
    if (*block == NULL) {
        chain_clear(content);
        return true;
    }
    if (!grow(s, (size_t) content->bytes, log)) {
        chain_clear(content);
        ssi_shared_block_end(s, block);
        return false;
    }
    chain_append(&(*block)->content, content);
    return true;
}

void ssi_shared_block_end(struct ssi_shared *s, struct ssi_block **block)
{
    if (*block != NULL && table_get(&s->blocks, (*block)->name) == NULL)
        table_put(&s->blocks, (*block)->name, *block);
    *block = NULL;
}

bool ssi_shared_stub(const struct ssi_shared *s, struct str name, struct chain *out)
{
    const struct ssi_block *b = table_get(&s->blocks, name);

    if (b == NULL)
        return false;
    for (const struct piece *p = b->content.first; p != NULL; p = p->next)
        chain_push_mem(out, p->mem.block, p->mem.ptr, (size_t) p->len);
    return true;
}
