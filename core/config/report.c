/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What is said about a configuration, kept for programs to read: filled by a log target of main's
 * and by error.c, which knows the parts. Memory is the report's own, since the config may be gone when it
 * is printed.
 */
#include "core/config/config.h"

void conf_report_init(struct conf_report *report, struct arena *arena)
{
    *report = (struct conf_report){ .arena = arena };
    list_init(&report->messages);
}

static const char *copy(struct arena *arena, const char *s)
{
    return s ? str_z(arena, str_cstr(s)) : NULL;
}

void conf_report_add(struct conf_report *report, const struct conf_message *m)
{
    struct arena *arena = report->arena;
    struct conf_message *mine = ARENA_NEW(arena, struct conf_message);

    *mine = *m;
    mine->text = str_dup(arena, m->text);
    mine->pos.file = copy(arena, m->pos.file);
    mine->hint = copy(arena, m->hint);
    list_push_back(&report->messages, &mine->link);
}

/* Takes " in /FILE:LINE" off the end of the text. */
static void split_place(struct arena *arena, struct conf_message *m)
{
    ssize_t colon = str_rchr(m->text, ':'), at = -1, next;
    struct str rest = m->text;
    uint64_t line;

    if (colon < 0 || str_to_u64(str_skip(m->text, (size_t) colon + 1), &line) || line > UINT32_MAX)
        return;
    while ((next = str_find(rest, STR(" in /"))) >= 0) {
        at = rest.ptr - m->text.ptr + next;
        rest = str_skip(rest, (size_t) next + 1);
    }
    if (at < 0 || at > colon)
        return;
    m->pos.file = str_z(arena, str_from(m->text.ptr + at + 4, (size_t) (colon - at) - 4));
    m->pos.line = (unsigned) line;
    m->text.len = (size_t) at;
}

void conf_report_line(struct conf_report *report, enum log_level level, struct str line)
{
    struct conf_message m = { .level = level, .text = line };
    ssize_t at;

    if (report->pending) {
        m = *report->pending;
        m.level = level;
        conf_report_add(report, &m);
        return;
    }
    /* "TIME [LEVEL] PID#TID: MESSAGE" */
    at = str_find(line, STR("] "));
    if (at >= 0)
        m.text = str_skip(line, (size_t) at);
    at = str_find(m.text, STR(": "));
    if (at >= 0)
        m.text = str_skip(m.text, (size_t) at + 2);
    if (m.text.len && m.text.ptr[m.text.len - 1] == '\n')
        m.text.len--;
    split_place(report->arena, &m);
    conf_report_add(report, &m);
}
