/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Levels and what they hold. While the file is read a level keeps a short list of the structures
 * made there and of the rows set. Then, from main down, each level gets its arrays of structures:
 * its own ones completed from the parent's by the rows' rules, all others shared with the parent.
 * Defaults are applied where a structure first appears. Called by the parser and by setters.
 *
 * A structure may be shared only while nothing in it is private to the level that owns it. So
 * each has a small head that says what must not be seen further down ("taint"), and each array
 * says the sum, which lets most levels share the whole array at the cost of one test.
 */
#include "core/config/parse.h"

enum {
    TAINT_PRIVATE =
        1, /* something of this level alone: a row of INHERIT_NONE, members without a row */
    TAINT_IMPLICIT = 2, /* an INHERIT_IMPLICIT value: only if and limit_except may see it */
};

#define CTX_SEES_IMPLICIT (CTX_IF_SERVER | CTX_IF_LOCATION | CTX_LIMIT_EXCEPT)
#define CTX_TOP (CTX_HTTP | CTX_STREAM)

static const unsigned store_contexts[STORES] = {
    [STORE_MAIN] = CTX_MAIN | CTX_HTTP | CTX_STREAM,
    [STORE_SRV] = CTX_HTTP | CTX_SERVER | CTX_UPSTREAM | CTX_STREAM | CTX_STREAM_SERVER
                  | CTX_STREAM_UPSTREAM,
    [STORE_LOC] = CTX_HTTP | CTX_SERVER | CTX_LOCATION | CTX_IF_SERVER | CTX_IF_LOCATION
                  | CTX_LIMIT_EXCEPT | CTX_STREAM | CTX_STREAM_SERVER,
};

/* Stands before each structure, and before each array of them. */
struct conf_head {
    unsigned taint;
} __attribute__((aligned(16)));

static unsigned *taint_of(void *conf)
{
    return &((struct conf_head *) conf - 1)->taint;
}

static void *head_alloc(struct conf *cf, size_t size)
{
    return (struct conf_head *) arena_zalloc(cf->arena, sizeof(struct conf_head) + size) + 1;
}

/* Where a store lives ------------------------------------------------------------------------ */

static bool lives_at(const struct level *level, const struct module *module, unsigned store)
{
    unsigned contexts = store_contexts[store];

    if (module->conf_size[store] == 0)
        return false;
    if (module->http || module->stream) {
        if (module->http == NULL)
            contexts &= CTX_STREAM | CTX_STREAM_SERVER | CTX_STREAM_UPSTREAM;
        if (module->stream == NULL)
            contexts &= ~(unsigned) (CTX_STREAM | CTX_STREAM_SERVER | CTX_STREAM_UPSTREAM);
        if (store == STORE_MAIN)
            contexts &= CTX_TOP;
    } else if (store == STORE_MAIN) {
        contexts = CTX_MAIN;
    }
    return (level->context & contexts) != 0;
}

struct level *level_home(struct level *level, const struct module *module, unsigned store)
{
    for (; level; level = level->parent) {
        if (lives_at(level, module, store))
            return level;
    }
    return NULL;
}

/* The structure appears here for the first time: nothing to inherit. */
static bool is_top(const struct level *level, unsigned store)
{
    return level->context & (store == STORE_MAIN ? CTX_MAIN | CTX_TOP : CTX_TOP);
}

/* What is made while reading ----------------------------------------------------------------- */

static struct level_own *find_own(const struct level *level, const struct module *module)
{
    struct level_own *own = level->own;

    while (own && own->module != module)
        own = own->next;
    return own;
}

static struct level_own *make_own(struct conf *cf, struct level *level, const struct module *module)
{
    struct level_own *own = find_own(level, module);

    if (own == NULL) {
        own = ARENA_NEW(cf->arena, struct level_own);
        own->module = module;
        own->set = arena_zalloc(cf->arena, (2 * module_info(module)->rows + 7) / 8);
        own->next = level->own;
        level->own = own;
    }
    return own;
}

static bool bit(const struct level_own *own, unsigned n)
{
    return own && (own->set[n / 8] & (1u << (n % 8)));
}

static void set_bit(struct level_own *own, unsigned n)
{
    own->set[n / 8] |= (unsigned char) (1u << (n % 8));
}

/* A level's own array for a store: a copy of the parent's that the level shared up to now. */
static void **own_array(struct conf *cf, const struct level *level, unsigned store)
{
    void **above = level->parent ? level->parent->conf[store] : NULL;
    void **array = head_alloc(cf, module_count * sizeof(*array));

    if (above) {
        memcpy(array, above, module_count * sizeof(*array));
        *taint_of(array) = *taint_of(above);
    }
    return array;
}

/*
 * The zeroed structure of a level where the store lives; after inheritance a copy of what is seen
 * there.
 */
static void *own_struct(struct conf *cf, struct level *level, const struct module *module,
                        unsigned store)
{
    struct level_own *own = make_own(cf, level, module);
    unsigned index = *module->slot;
    void **array = level->conf[store];

    if (own->conf[store])
        return own->conf[store];
    own->conf[store] = head_alloc(cf, module->conf_size[store]);
    if (array) {
        if (array[index])
            memcpy(own->conf[store], array[index], module->conf_size[store]);
        if (level->parent && array == level->parent->conf[store])
            level->conf[store] = array = own_array(cf, level, store);
        array[index] = own->conf[store];
    }
    return own->conf[store];
}

static void add_taint(struct level *level, void *conf, unsigned store, unsigned taint)
{
    *taint_of(conf) |= taint;
    if (level->conf[store])
        *taint_of(level->conf[store]) |= taint;
}

void *conf_own(struct conf *cf, struct level *level, const struct module *module, unsigned store)
{
    struct level *home = level_home(level, module, store);
    void *conf;

    if (home == NULL)
        return NULL;
    conf = own_struct(cf, home, module, store);
    add_taint(home, conf, store, TAINT_PRIVATE);
    return conf;
}

static void mark(struct conf *cf, struct level *level, const struct module *module, unsigned number)
{
    const struct module_info *info = module_info(module);
    struct level_own *own = make_own(cf, level, module);

    set_bit(own, number);
    set_bit(own, info->rows + info->keys[number]);
}

/* What it means for those below that the row is set here. */
static unsigned row_taint(const struct directive *row)
{
    switch (row->inherit) {
    case INHERIT_NONE: return TAINT_PRIVATE;
    case INHERIT_IMPLICIT: return TAINT_IMPLICIT;
    case INHERIT_DONE: return row->args & ARG_BLOCK ? 0 : TAINT_PRIVATE;
    default: return 0;
    }
}

void level_mark(struct conf *cf, struct level *level, const struct module *module, unsigned number)
{
    const struct directive *row = &module->directives[number];
    struct level *home = level_home(level, module, row->store);

    mark(cf, level, module, number);
    if (home == NULL)
        return;
    if (home != level)
        mark(cf, home, module, number);
    if (row_taint(row))
        add_taint(home, own_struct(cf, home, module, row->store), row->store, row_taint(row));
}

bool level_row_set(const struct level *level, const struct module *module, unsigned number)
{
    return bit(find_own(level, module), number);
}

void *level_field(struct conf *cf, struct level *level, const struct module *module,
                  const struct directive *row)
{
    struct level *home = level_home(level, module, row->store);

    if (home == NULL)
        return NULL;
    return (char *) own_struct(cf, home, module, row->store) + row->offset;
}

/* For setters and modules -------------------------------------------------------------------- */

bool conf_is_set(const struct level *level, const struct module *module, const char *name)
{
    unsigned number = 0;

    ASSERT(module_row(module, name, level->context, &number) != NULL);
    return level_row_set(level, module, number);
}

void *conf_field(struct conf *cf, struct level *level, const struct module *module,
                 const char *name)
{
    unsigned number = 0;
    const struct directive *row = module_row(module, name, level->context, &number);
    void *field;

    ASSERT(row != NULL);
    field = level_field(cf, level, module, row);
    ASSERT(field != NULL);
    level_mark(cf, level, module, number);
    return field;
}

/* Calls the row's setter with a text for words, writing to field. */
static const char *set_text(struct conf *cf, struct level *level, const struct module *module,
                            const struct directive *row, void *field, const char *text)
{
    struct conf saved = *cf;
    struct words words = { 0 };
    const char *error;
    struct str copy = str_printf(cf->arena, "%s %s", row->name, text);

    parse_words(cf->arena, copy.ptr, &words);
    for (unsigned i = 0; i < words.count; i++)
        words.pos[i] = level->pos;
    cf->level = level;
    cf->module = module;
    cf->row = row;
    cf->args = words.items;
    cf->arg_pos = words.pos;
    cf->nargs = words.count;
    cf->pos = level->pos;
    cf->has_block = false;
    error = row->set(cf, field);
    *cf = saved;
    return error;
}

const char *conf_apply(struct conf *cf, struct level *level, const struct module *module,
                       const char *name, const char *text)
{
    unsigned number = 0;
    const struct directive *row = module_row(module, name, level->context, &number);
    void *field;

    ASSERT(row != NULL && row->set != NULL);
    field = level_field(cf, level, module, row);
    level_mark(cf, level, module, number);
    return set_text(cf, level, module, row, field, text);
}

/* Inheritance -------------------------------------------------------------------------------- */

static void apply_default(struct conf *cf, struct level *level, const struct module *module,
                          const struct directive *row, char *conf)
{
    const char *error;

    if (row->def == NULL || row->set == NULL)
        return;
    error = set_text(cf, level, module, row, conf + row->offset, row->def);
    if (error && error != conf_stopped)
        error_report(cf, level->pos,
            conf_error(cf, "the default \"%s\" of \"%s\" cannot be used: %s", row->def, row->name,
                error), NULL);
}

/*
 * One member of a structure that the level owns and where the row's group is not set. Returns the
 * taint that comes along.
 */
static unsigned take_member(struct conf *cf, struct level *level, const struct module *module,
                            const struct directive *row, char *conf, char *above)
{
    unsigned taint = *taint_of(above);
    bool copy = true;

    if (row->inherit == INHERIT_NONE)
        /* Where nothing private is above, the parent's member holds the default. */
        copy = !(taint & TAINT_PRIVATE);
    else if (row->inherit == INHERIT_IMPLICIT)
        copy = !(taint & TAINT_IMPLICIT) || (level->context & CTX_SEES_IMPLICIT);
    if (!copy) {
        apply_default(cf, level, module, row, conf);
        return 0;
    }
    memcpy(conf + row->offset, above + row->offset, row->size);
    return row->inherit == INHERIT_IMPLICIT ? taint & TAINT_IMPLICIT : 0;
}

/* Completes a structure from the parent's, or with the defaults when there is none above. */
static void complete(struct conf *cf, struct level *level, const struct module *module,
                     unsigned store, char *conf, char *above)
{
    const struct module_info *info = module_info(module);
    const struct level_own *own = find_own(level, module);

    for (unsigned i = 0; i < info->member_count[store]; i++) {
        const struct conf_member *m = &info->members[store][i];

        if (bit(own, info->rows + m->key))
            continue;
        if (above)
            *taint_of(conf) |= take_member(cf, level, module, m->row, conf, above);
        else
            apply_default(cf, level, module, m->row, conf);
    }
}

/* Whether the level may not share the structure that it sees above. */
static bool leaks(const struct level *level, unsigned taint)
{
    if (level->context & CTX_SEES_IMPLICIT)
        taint &= ~(unsigned) TAINT_IMPLICIT;
    return taint != 0;
}

static bool owns_any(const struct level *level, unsigned store)
{
    for (const struct level_own *own = level->own; own; own = own->next) {
        if (own->conf[store])
            return true;
    }
    return false;
}

/* The level's array for one store: the parent's, or one of its own. */
static void inherit_store(struct conf *cf, struct level *level, unsigned store)
{
    void **above = level->parent ? level->parent->conf[store] : NULL;
    bool top = is_top(level, store);
    void **array;

    level->conf[store] = above;
    if (!(level->context & store_contexts[store]))
        return;
    if (above && !top && !owns_any(level, store) && !leaks(level, *taint_of(above)))
        return;
    array = own_array(cf, level, store);
    *taint_of(array) = 0;
    level->conf[store] = NULL; /* own_struct makes zeroed structures as long as there is no array */
    for (unsigned i = 0; i < module_count; i++) {
        const struct module *module = modules[i];
        const struct level_own *own;
        char *parent = array[i];

        if (lives_at(level, module, store)) {
            if (parent == NULL)
                array[i] = own_struct(cf, level, module, store);
            else if ((own = find_own(level, module)) && own->conf[store])
                array[i] = own->conf[store];
            else if (leaks(level, *taint_of(parent)))
                array[i] = own_struct(cf, level, module, store);
            if (array[i] != parent)
                complete(cf, level, module, store, array[i], parent);
        }
        if (array[i])
            *taint_of(array) |= *taint_of(array[i]);
    }
    level->conf[store] = array;
}

static bool owns_structure(const struct level_own *own)
{
    for (unsigned s = 0; s < STORES; s++) {
        if (own->conf[s])
            return true;
    }
    return false;
}

/* finish of each module, in the modules' order, that owns a structure here. */
static void finish_level(struct conf *cf, struct level *level)
{
    for (unsigned i = 0; level->own && i < module_count; i++) {
        const struct module *module = modules[i];
        const struct level_own *own = module->finish ? find_own(level, module) : NULL;
        unsigned errors = cf->config->errors;

        if (own == NULL || !owns_structure(own))
            continue;
        cf->level = level;
        cf->module = module;
        cf->pos = level->pos;
        if (module->finish(cf, level, level->parent) && cf->config->errors == errors)
            cf->config->errors++; /* logged by the module in its own way */
    }
}

static void inherit_level(struct conf *cf, struct level *level)
{
    for (unsigned s = 0; s < STORES; s++)
        inherit_store(cf, level, s);
    finish_level(cf, level);
    for (struct list *l = level->children.next; l != &level->children; l = l->next) {
        if (conf_parser(cf)->stop)
            return;
        inherit_level(cf, container_of(l, struct level, sibling));
    }
}

void inherit_all(struct conf *cf)
{
    inherit_level(cf, cf->config->main);
    cf->level = cf->config->main;
    cf->module = NULL;
}
