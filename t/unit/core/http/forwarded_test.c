/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * X-Forwarded-For as anybody may write it: random lines of members good and bad are walked by the
 * module and by a plain reading of the rule, from the last member to the first for as long as
 * what was found is trusted. Then random bytes, each line in memory of its own size: what is found
 * must stand there.
 */
#include "core/http/forwarded.h"
#include "t/unit/tap.h"

#define LINES 4
#define MEMBERS 5
#define ROUNDS 40000

static const struct member {
    const char *text;
    const char *address; /* NULL: is none */
    bool trusted;
} members[] = {
    { "10.0.0.1", "10.0.0.1", true },       { "10.255.0.2:8080", "10.255.0.2", true },
    { "::ffff:10.1.2.3", "::ffff:10.1.2.3", true }, { "[fd00::1]:1", "fd00::1", true },
    { "fd00::2", "fd00::2", true },         { "10.0.0.3", "10.0.0.3", true },
    { "[fd00::3]", "fd00::3", true },       { "10.9.9.9:65535", "10.9.9.9", true },
    { "4.4.4.4", "4.4.4.4", false },        { "2001:db8::1", "2001:db8::1", false },
    { "[::1]:80", "::1", false },           { "11.0.0.1", "11.0.0.1", false },
    { "junk", NULL, false },                { "10.0.0.1:0", NULL, false },
    { "10.0.0.1:65536", NULL, false },      { "10.0.0.1:", NULL, false },
    { "10.0.0", NULL, false },              { "010.0.0.1.", NULL, false },
    { "0xa.0.0.1", NULL, false },           { "167772161", NULL, false },
    { "10.0.0.256", NULL, false },          { "[10.0.0.1]", NULL, false },
    { "[::1", NULL, false },                { "fe80::1%lo", NULL, false },
    { "\"10.0.0.1\"", NULL, false },        { "unix:/x", NULL, false },
    { "10.0.0.1;x", NULL, false },          { "*", NULL, false },
    { "10.0.0.1\t10.0.0.1", NULL, false },  { "unknown", NULL, false },
};

static struct cidr nets[2];

static bool is_trusted(const void *owner, const struct addr *a)
{
    (void) owner;
    return cidr_match(&nets[0], &a->sa) || cidr_match(&nets[1], &a->sa);
}

static struct forwarded conf = { is_trusted, NULL, false };
static uint64_t seed = 0x9e3779b97f4a7c15ull;

static unsigned rnd(unsigned below)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return (unsigned) (seed >> 20) % below;
}

struct line {
    const struct member *members[MEMBERS];
    unsigned count;
    bool separator_first;
    char text[256];
};

static void separators(char *p)
{
    static const char *const some[] = { ",", ", ", " ", " ,", ",,", " , ,  " };

    strcat(p, some[rnd(ARRAY_LEN(some))]);
}

static void make_line(struct line *line)
{
    memset(line, 0, sizeof(*line));
    line->separator_first = rnd(8) == 0;
    if (line->separator_first)
        separators(line->text);
    line->count = rnd(MEMBERS + 1);
    for (unsigned i = 0; i < line->count; i++) {
        /* Mostly trusted ones, or nothing would be walked far. */
        line->members[i] = &members[rnd(4) ? rnd(8) : rnd(ARRAY_LEN(members))];
        strcat(line->text, line->members[i]->text);
        if (i + 1 < line->count || rnd(6) == 0)
            separators(line->text);
    }
}

/* The rule, plainly. The address, NULL: the peer's. */
static const char *expected(const struct line *lines, unsigned count)
{
    const char *found = NULL;

    while (count-- > 0) {
        const struct line *line = &lines[count];

        for (unsigned i = line->count; i-- > 0;) {
            if (line->members[i]->address == NULL)
                return found;
            found = line->members[i]->address;
            if (!line->members[i]->trusted || !conf.recursive)
                return found;
        }
        /* What stands before a separator is no address, nor is an empty line. */
        if (line->separator_first || line->count == 0)
            return found;
    }
    return found;
}

static struct addr peer_of_all(void)
{
    struct addr a;

    (void) addr_parse(&a, STR("10.0.0.99:1"), 0, false);
    return a;
}

static bool walked(struct arena *arena, const struct str *lines, unsigned count, struct addr *a)
{
    struct msg in;

    msg_init(&in, arena, LINES);
    for (unsigned i = 0; i < count; i++)
        fields_add_token(&in, &in.fields, T_X_FORWARDED_FOR, lines[i]);
    *a = peer_of_all();
    return forwarded_for(&conf, &in.fields, a);
}

static void test_members(bool recursive)
{
    unsigned wrong = 0, far = 0;

    conf.recursive = recursive;
    for (unsigned round = 0; round < ROUNDS && wrong == 0; round++) {
        struct arena *arena = arena_new();
        unsigned count = rnd(LINES + 1);
        struct line lines[LINES];
        struct str texts[LINES];
        const char *want;
        struct addr a;
        char text[ADDR_TEXT];
        size_t len;

        for (unsigned i = 0; i < count; i++) {
            make_line(&lines[i]);
            texts[i] = str_cstr(lines[i].text);
        }
        want = expected(lines, count);
        far += want != NULL;
        if (walked(arena, texts, count, &a) != (want != NULL))
            wrong++;
        len = addr_format(&a, false, text, sizeof(text));
        if (!str_eq(str_from(text, len), str_cstr(want != NULL ? want : "10.0.0.99")))
            wrong++;
        for (unsigned i = 0; wrong != 0 && i < count; i++)
            diag("\"%s\"", lines[i].text);
        if (wrong != 0)
            diag("wanted %s, got %.*s", want != NULL ? want : "the peer", (int) len, text);
        arena_destroy(arena);
    }
    ok(wrong == 0 && far > ROUNDS / 4, "%s: lists of good and bad members, %u with an address",
       recursive ? "recursive" : "once", far);
}

static void test_bytes(void)
{
    static const char bytes[] = "0123456789....::::[],,  afx%/\t\0\xff-";
    unsigned found = 0, wrong = 0;

    conf.recursive = true;
    for (unsigned round = 0; round < ROUNDS; round++) {
        struct arena *arena = arena_new();
        unsigned count = 1 + rnd(2);
        struct str lines[2];
        struct addr a;

        for (unsigned i = 0; i < count; i++) {
            size_t len = rnd(20);
            char *p = mem_alloc(len + 1);

            for (size_t k = 0; k < len; k++)
                p[k + 1] = bytes[rnd(sizeof(bytes) - 1)];
            lines[i] = str_from(p + 1, len);
        }
        if (walked(arena, lines, count, &a)) {
            found++;
            wrong += a.sa.sa_family != AF_INET && a.sa.sa_family != AF_INET6;
        }
        for (unsigned i = 0; i < count; i++)
            free((char *) (uintptr_t) lines[i].ptr - 1);
        arena_destroy(arena);
    }
    ok(wrong == 0 && found > 0, "random bytes, of which %u are addresses", found);
}

int main(void)
{
    ok(cidr_parse(&nets[0], STR("10.0.0.0/8")) == 0 && cidr_parse(&nets[1], STR("fd00::/16")) == 0,
       "trusted networks");
    test_members(true);
    test_members(false);
    test_bytes();
    return done_testing();
}
