/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What is known of the modules: their numbers, an index of all rows by name, and for each module
 * the members that inheritance has to look at. Made once per process; checks the tables for what
 * a programmer may get wrong. Knows of no file and no value.
 */
#include "core/config/parse.h"

#define ROWS_MAX 4096 /* of one module */

unsigned module_count;
static struct arena *arena;
static struct table names;
static struct module_info *infos;

const struct module_info *module_info(const struct module *module)
{
    return &infos[*module->slot];
}

const struct known_row *known_row(struct str name)
{
    return table_get(&names, name);
}

const struct known_row *known_next(unsigned *i)
{
    const struct table_entry *e = table_next(&names, i);

    return e ? e->value : NULL;
}

const struct directive *module_row(const struct module *module, const char *name, unsigned context,
                                   unsigned *number)
{
    const struct directive *rows = module->directives, *any = NULL;

    for (unsigned i = 0; rows && rows[i].name; i++) {
        if (strcmp(rows[i].name, name) != 0)
            continue;
        if (any == NULL || (rows[i].contexts & context)) {
            any = &rows[i];
            *number = i;
            if (rows[i].contexts & context)
                break;
        }
    }
    return any;
}

static bool overlap(const struct directive *a, const struct directive *b)
{
    return a->size && b->size && a->store == b->store && a->offset < b->offset + b->size
           && b->offset < a->offset + a->size;
}

/* The number of the first row that row i goes together with. */
static unsigned row_key(const struct directive *rows, unsigned i)
{
    for (unsigned j = 0; j < i; j++) {
        bool grouped = rows[i].group && rows[i].group == rows[j].group
                       && rows[i].store == rows[j].store;

        if (grouped || overlap(&rows[i], &rows[j]))
            return row_key(rows, j);
    }
    return i;
}

static void check_row(const struct module *module, const struct directive *row)
{
    /* Contradictions that would show as odd behaviour far from here. */
    ASSERT(row->store < STORES);
    ASSERT(row->name[0] == '.' || row->set != NULL);
    ASSERT((row->inherit == INHERIT_DONE) == (row->size == 0));
    ASSERT(row->size == 0 || row->offset + row->size <= module->conf_size[row->store]);
    ASSERT(row->inherit != INHERIT_DONE || row->def == NULL || row->name[0] != '.');
    ASSERT(!(row->args & ARG_RAW_BLOCK) || (row->args & ARG_BLOCK));
}

static void index_row(const struct module *module, const struct directive *row, unsigned number)
{
    struct known_row *known, *first;

    if (row->name[0] == '.')
        return;
    known = ARENA_NEW(arena, struct known_row);
    *known = (struct known_row){ module, row, number, NULL };
    first = table_get(&names, str_cstr(row->name));
    if (first == NULL) {
        table_put(&names, str_cstr(row->name), known);
        return;
    }
    for (;; first = first->next) {
        /* Two modules may share a name only in different blocks. */
        if (first->row->contexts & row->contexts) {
            fprintf(stderr, "proxyd: directive \"%s\" is declared twice: by %s and %s\n", row->name,
                first->module->name, module->name);
            ASSERT(!"a directive is declared twice for one context");
        }
        if (first->next == NULL)
            break;
    }
    first->next = known;
}

static void add_module(const struct module *module)
{
    struct module_info *info = &infos[*module->slot];
    const struct directive *rows = module->directives;

    while (rows && rows[info->rows].name)
        info->rows++;
    ASSERT(info->rows <= ROWS_MAX);
    info->keys = ARENA_ARRAY(arena, unsigned short, info->rows);
    for (unsigned s = 0; s < STORES; s++)
        info->members[s] = ARENA_ARRAY(arena, struct conf_member, info->rows);
    for (unsigned i = 0; rows && i < info->rows; i++) {
        unsigned store = rows[i].store;

        check_row(module, &rows[i]);
        index_row(module, &rows[i], i);
        info->keys[i] = (unsigned short) row_key(rows, i);
        if (rows[i].size)
            info->members[store][info->member_count[store]++] =
                (struct conf_member){ &rows[i], i, info->keys[i] };
    }
}

void config_modules_init(void)
{
    if (arena)
        return;
    arena = arena_new_large();
    table_init(&names, arena);
    for (module_count = 0; modules[module_count]; module_count++) {
        ASSERT(modules[module_count]->slot != NULL);
        *modules[module_count]->slot = module_count;
    }
    infos = ARENA_ARRAY(arena, struct module_info, module_count);
    for (unsigned i = 0; i < module_count; i++)
        add_module(modules[i]);
}

void config_modules_free(void)
{
    arena_destroy(arena);
    arena = NULL;
    infos = NULL;
    names = (struct table){ 0 };
}
