/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Fuzz target: what variables are looked up in. Cookies: a value lies in its field, behind its name. Host
 * names with wildcards and networks: what is found is what a search through all of them finds. The
 * first byte says which.
 */
#include "core/base/arena.h"
#include "core/http/hostnames.h"
#include "core/http/msg.h"
#include "modules/http/geo_table.h"

#define NAMES_MAX 32
#define NETS_MAX 64

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(bool good, const char *what)
{
    if (!good) {
        fprintf(stderr, "%s\n", what);
        abort();
    }
}

/* Up to the line feed, which is taken too. */
static struct str take_line(struct str *text)
{
    ssize_t end = str_chr(*text, '\n');
    struct str line = end < 0 ? *text : str_from(text->ptr, (size_t) end);

    *text = str_skip(*text, end < 0 ? text->len : (size_t) end + 1);
    return line;
}

/* Cookies ---------------------------------------------------------------------------------------- */

/* The first line is the name, the others are fields. */
static void check_cookies(struct arena *arena, struct str text)
{
    struct str name = take_line(&text), value;
    struct msg m;
    bool inside = false;

    msg_init(&m, arena, 4);
    while (text.len > 0 && m.fields.count < 8)
        fields_add_token(&m, &m.fields, T_COOKIE, take_line(&text));
    if (!cookie_get(&m.fields, name, &value))
        return;
    for (unsigned i = 0; i < m.fields.count; i++) {
        struct str field = m.fields.items[i].value, before;

        if (value.ptr < field.ptr || value.ptr + value.len > field.ptr + field.len)
            continue;
        before = str_trim(str_from(field.ptr, (size_t) (value.ptr - field.ptr)));
        inside = inside || (before.len > 0 && before.ptr[before.len - 1] == '=');
    }
    check(inside, "a value that no field holds");
    check(str_chr(value, ';') < 0, "more than a value");
}

/* Host names -------------------------------------------------------------------------------------- */

/* How good a match the pattern is, in the order of nginx; 0: none. */
static size_t rate(struct str pattern, struct str name)
{
    size_t scale = 1 << 20;

    if (pattern.len > 1 && pattern.ptr[0] == '.') {
        if (str_eq(str_skip(pattern, 1), name))
            return 3 * scale;
        return str_ends(name, pattern) ? 2 * scale + pattern.len : 0;
    }
    if (pattern.len > 2 && str_starts(pattern, STR("*.")))
        return str_ends(name, str_skip(pattern, 1)) ? 2 * scale + pattern.len - 1 : 0;
    if (pattern.len > 2 && str_ends(pattern, STR(".*"))) {
        pattern.len--;
        return name.len > pattern.len && str_starts(name, pattern) ? scale + pattern.len : 0;
    }
    return str_eq(pattern, name) ? 3 * scale : 0;
}

static void check_hostnames(struct arena *arena, struct str text)
{
    struct str names[NAMES_MAX], name = take_line(&text), key;
    const struct str *want = NULL;
    struct hostnames h;
    unsigned count = 0;

    hostnames_init(&h, arena);
    while (text.len > 0 && count < NAMES_MAX) {
        names[count] = take_line(&text);
        if (hostnames_add(&h, names[count], &names[count]) == HOSTNAMES_FINE)
            count++;
    }
    for (unsigned i = 0; i < count; i++) {
        if (rate(names[i], name) > (want != NULL ? rate(*want, name) : 0))
            want = &names[i];
    }
    check(hostnames_find(&h, name, &key) == want, "another host name");
}

/* Networks ---------------------------------------------------------------------------------------- */

static bool covers(const struct cidr *c, const unsigned char addr[16])
{
    for (unsigned i = 0; i < 16; i++) {
        if ((addr[i] & c->mask[i]) != c->addr[i])
            return false;
    }
    return true;
}

static unsigned length(const struct cidr *c)
{
    unsigned n = 0;

    for (unsigned i = 0; i < 16; i++)
        n += (unsigned) __builtin_popcount(c->mask[i]);
    return n;
}

/* An address, then a network in each three bytes: the length, the first byte, the last. */
static void check_nets(struct arena *arena, const uint8_t *data, size_t size)
{
    struct geo_builder *b = geo_builder_new(arena);
    struct cidr nets[NETS_MAX];
    unsigned char addr[16] = { 0 };
    unsigned count = 0;
    uint32_t want = 0;

    if (size < 2)
        return;
    addr[0] = data[0];
    addr[15] = data[1];
    for (size_t i = 2; i + 3 <= size && count < NETS_MAX; i += 3) {
        struct cidr *c = &nets[count++];

        *c = (struct cidr){ .family = AF_INET6 };
        for (unsigned k = 0; k < 16; k++) {
            unsigned len = data[i] % 129, bits = len > k * 8 ? MIN(len - k * 8, 8) : 0;

            c->mask[k] = (unsigned char) (0xff00u >> bits);
        }
        c->addr[0] = data[i + 1] & c->mask[0];
        c->addr[15] = data[i + 2] & c->mask[15];
        geo_add_net(b, c, count);
    }
    for (unsigned i = 0; i < count; i++) {
        if (covers(&nets[i], addr) && (want == 0 || length(&nets[i]) >= length(&nets[want - 1])))
            want = i + 1;
    }
    check(geo_find6(geo_table_new(b, arena), addr) == want, "another network");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct arena *arena;

    if (size == 0)
        return 0;
    arena = arena_new();
    switch (data[0] % 3) {
    case 0: check_cookies(arena, str_from((const char *) data + 1, size - 1)); break;
    case 1: check_hostnames(arena, str_from((const char *) data + 1, size - 1)); break;
    default: check_nets(arena, data + 1, size - 1); break;
    }
    arena_destroy(arena);
    arena_trim();
    return 0;
}
