/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The manual that the rows make: Markdown, module by module, with what nginx's manual gives of
 * each directive: syntax, default, contexts, and a line of explanation. Printed by "-x
 * directives"; docs/directives.md is this. Reads the tables only.
 */
#include "core/config/parse.h"

static void print_row(struct arena *arena, const struct directive *row, FILE *out)
{
    bool block = row->args & ARG_BLOCK;
    const char *syntax = row->syntax ? row->syntax : row->args & ARG_FLAG ? "on | off" : "";

    fprintf(out, "### %s\n\n", row->name);
    if (row->doc && row->doc[0])
        fprintf(out, "%s\n\n", row->doc);
    /* The semicolon or braces are part of the syntax as nginx's manual shows it. */
    fprintf(out, "- Syntax: `%s%s%s%s`\n", row->name, syntax[0] ? " " : "", syntax,
        !block ? ";" : strchr(syntax, '{') ? "" : " { ... }");
    if (row->def)
        fprintf(out, "- Default: `%s%s%s;`\n", row->name, row->def[0] ? " " : "", row->def);
    else
        fprintf(out, "- Default: none\n");
    fprintf(out, "- Context: %s\n", context_names(arena, row->contexts).ptr);
    if (row->args & ARG_REPEAT)
        fprintf(out, "- May be given several times.\n");
    fputc('\n', out);
}

static void print_module(struct arena *arena, const char *name, const struct directive *rows,
                         FILE *out)
{
    bool any = false;

    for (unsigned i = 0; rows && rows[i].name; i++) {
        if (rows[i].name[0] == '.')
            continue;
        if (!any)
            fprintf(out, "## %s\n\n", name);
        any = true;
        print_row(arena, &rows[i], out);
    }
}

void config_manual(FILE *out)
{
    struct arena *arena = arena_new();
    const struct directive core[] = { include_row, { .name = NULL } };

    fputs("# Directives\n\n", out);
    print_module(arena, "config", core, out);
    for (unsigned i = 0; i < module_count; i++)
        print_module(arena, modules[i]->name, modules[i]->directives, out);
    arena_destroy(arena);
}
