/* SPDX-License-Identifier: BSD-2-Clause */
/* Walking X-Forwarded-For and its like from the end: see forwarded.h. */
#include "core/http/forwarded.h"

/* "1.2.3.4", "1.2.3.4:80", "::1", "[::1]", "[::1]:80". */
static bool parse(struct addr *a, struct str text)
{
    if (str_casestarts(text, STR("unix:")))
        return false;
    if (addr_parse(a, text, 0, false) == 0)
        return true;
    if (addr_parse(a, text, 1, false) != 0)
        return false;
    addr_set_port(a, 0);
    return true;
}

/* Cuts the last member off a list separated by commas and blanks. False: nothing is left. */
static bool take_last(struct str *list, struct str *member)
{
    size_t end = list->len, start;

    while (end > 0 && (list->ptr[end - 1] == ' ' || list->ptr[end - 1] == ','))
        end--;
    for (start = end; start > 0; start--) {
        if (list->ptr[start - 1] == ' ' || list->ptr[start - 1] == ',')
            break;
    }
    *member = str_from(list->ptr + start, end - start);
    list->len = start;
    return end > start;
}

/* True: the search may go on in the list before this one. */
static bool walk(const struct forwarded *how, struct str list, struct addr *a, bool *found)
{
    struct str member;
    struct addr next;
    bool taken = false;

    while (how->is_trusted(how->owner, a)) {
        if (taken && (list.len == 0 || !how->recursive))
            return how->recursive;
        if (!take_last(&list, &member) || !parse(&next, member))
            return false;
        *a = next;
        taken = *found = true;
    }
    return false;
}

bool forwarded_in(const struct forwarded *how, struct str list, struct addr *a)
{
    bool found = false;

    walk(how, list, a, &found);
    return found;
}

bool forwarded_for(const struct forwarded *how, const struct fields *fields, struct addr *a)
{
    bool found = false;

    for (unsigned i = fields->count; i-- > 0;) {
        const struct field *f = &fields->items[i];

        if (f->token == T_X_FORWARDED_FOR && !f->deleted && !walk(how, f->value, a, &found))
            break;
    }
    return found;
}
