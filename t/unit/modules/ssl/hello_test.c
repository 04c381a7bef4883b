/* SPDX-License-Identifier: BSD-2-Clause */
/* Fingerprints of ClientHello messages: published examples, odd ones, and every cut of a good one. */
#include <stdlib.h>

#include "modules/ssl/hello.h"
#include "t/unit/tap.h"

static unsigned char msg[8192];
static size_t len;

static void put(unsigned width, size_t n)
{
    while (width-- > 0)
        msg[len++] = (unsigned char) (n >> (8 * width));
}

/* A place for a length of that width, filled in by `close_at`. */
static size_t open_at(unsigned width)
{
    put(width, 0);
    return len;
}

static void close_at(size_t at, unsigned width)
{
    size_t n = len - at;

    for (unsigned i = 0; i < width; i++)
        msg[at - 1 - i] = (unsigned char) (n >> (8 * i));
}

static void list(unsigned prefix, const unsigned *numbers, unsigned width)
{
    size_t at = open_at(prefix);

    for (; *numbers != 0x10000; numbers++)
        put(width, *numbers);
    close_at(at, prefix);
}
#define LIST(prefix, width, ...) list(prefix, (const unsigned[]){ __VA_ARGS__, 0x10000 }, width)

static size_t whole, extensions;

static void begin(unsigned version)
{
    len = 0;
    put(1, 1);
    whole = open_at(3);
    put(2, version);
    for (unsigned i = 0; i < 32; i++)
        put(1, i);
    put(1, 0); /* session id */
}

/* After the ciphers. */
static void begin_extensions(void)
{
    put(1, 1); /* compression: none */
    put(1, 0);
    extensions = open_at(2);
}

static void empty_extension(unsigned type)
{
    put(2, type);
    put(2, 0);
}

static void end(void)
{
    close_at(extensions, 2);
    close_at(whole, 3);
}

#define EXTENSION(type, ...) \
    do { \
        size_t at_; \
        put(2, type); \
        at_ = open_at(2); \
        __VA_ARGS__; \
        close_at(at_, 2); \
    } while (0)

static void alpn(const char *name)
{
    size_t n = strlen(name);

    put(2, n + 1);
    put(1, n);
    memcpy(msg + len, name, n);
    len += n;
}

/* In memory of just that size, so that a sanitizer sees any byte too far. */
static int parse(struct hello *h, size_t n, unsigned char **copy)
{
    *copy = malloc(n > 0 ? n : 1);
    memcpy(*copy, msg, n);
    return hello_parse(h, *copy, n);
}

static const char *ja3(void)
{
    static char text[HELLO_JA3_LEN + 1];
    unsigned char *copy;
    struct hello h;
    bool good = parse(&h, len, &copy) == 0 && hello_ja3(&h, text) == 0;

    free(copy);
    return good ? text : "malformed";
}

static const char *ja4(void)
{
    static char text[HELLO_JA4_LEN + 1];
    unsigned char *copy;
    struct hello h;
    bool good = parse(&h, len, &copy) == 0 && hello_ja4(&h, text) == 0;

    free(copy);
    return good ? text : "malformed";
}

/* "769,47-53-5-10-49161-49162-49171-49172-50-56-19-4,0-10-11,23-24-25,0" */
static void published_ja3(bool grease)
{
    begin(769);
    if (grease)
        LIST(2, 2, 0x0a0a, 47, 53, 5, 10, 49161, 49162, 49171, 49172, 50, 56, 19, 4);
    else
        LIST(2, 2, 47, 53, 5, 10, 49161, 49162, 49171, 49172, 50, 56, 19, 4);
    begin_extensions();
    if (grease)
        empty_extension(0x3a3a);
    empty_extension(0);
    if (grease)
        EXTENSION(10, LIST(2, 2, 0xfafa, 23, 24, 25));
    else
        EXTENSION(10, LIST(2, 2, 23, 24, 25));
    EXTENSION(11, LIST(1, 1, 0));
    end();
}

/* Its JA4 begins t13d1516h2: what a browser sends, in an order of its own. */
static void published_ja4(void)
{
    begin(0x0303);
    LIST(2, 2, 0x2a2a, 0x1301, 0x1302, 0x1303, 0xc02b, 0xc02f, 0xc02c, 0xc030, 0xcca9, 0xcca8, 0xc013,
         0xc014, 0x9c, 0x9d, 0x2f, 0x35);
    begin_extensions();
    empty_extension(0x8a8a);
    empty_extension(0x001b);
    empty_extension(0x0000);
    empty_extension(0x0033);
    EXTENSION(0x0010, alpn("h2"));
    empty_extension(0x4469);
    empty_extension(0x0017);
    empty_extension(0x002d);
    EXTENSION(0x000d, LIST(2, 2, 0x0403, 0x0804, 0x0401, 0x0503, 0x0805, 0x0501, 0x0806, 0x0601));
    empty_extension(0x0005);
    empty_extension(0x0023);
    empty_extension(0x0012);
    EXTENSION(0x002b, LIST(1, 2, 0x9a9a, 0x0304, 0x0303));
    empty_extension(0xff01);
    EXTENSION(0x000b, LIST(1, 1, 0));
    EXTENSION(0x000a, LIST(2, 2, 29, 23, 24));
    empty_extension(0x0015);
    end();
}

static void alpn_signs(void)
{
    static const struct {
        const char *name, *signs;
    } rows[] = {
        { "http/1.1", "h1" }, { "h2", "h2" }, { "x", "xx" }, { "\xab\xcd", "ad" },
        { "\x20z", "2a" },    { "0\xab", "3b" }, { "", "00" },
    };

    for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        char expected[11];

        begin(0x0303);
        LIST(2, 2, 0x1301);
        begin_extensions();
        EXTENSION(16, alpn(rows[i].name));
        end();
        snprintf(expected, sizeof(expected), "t12i0101%s", rows[i].signs);
        is_mem(ja4(), expected, 10, "the first protocol's signs: %u", i);
    }
}

static void cuts(void)
{
    unsigned accepted = 0;
    size_t all;

    published_ja4();
    all = len;
    for (size_t n = 0; n < all; n++) {
        unsigned char *copy;
        struct hello h;

        accepted += parse(&h, n, &copy) == 0;
        free(copy);
    }
    is_uint(accepted, 0, "no beginning of a message is taken for one");
    msg[len++] = 0;
    is_str(ja3(), "malformed", "nor one with more behind it");
    published_ja4();
    msg[0] = 2;
    is_str(ja3(), "malformed", "nor another message");
}

static void odd_ones(void)
{
    begin(0x0300);
    LIST(2, 2, 4, 5);
    put(1, 1);
    put(1, 0);
    close_at(whole, 3);
    is_mem(ja4(), "ts3i020000_", 11, "no extensions at all: JA4");
    is_mem(ja4() + 24, "000000000000", 12, "whose last part is zeros then");
    ok(strcmp(ja3(), "malformed") != 0, "no extensions at all: JA3");

    begin(0x0303);
    LIST(2, 1, 0x13, 0x01, 0x13);
    begin_extensions();
    end();
    is_str(ja3(), "malformed", "half a cipher");

    begin(0x0303);
    LIST(2, 2, 0x1301);
    begin_extensions();
    EXTENSION(10, put(2, 6), put(2, 23));
    end();
    is_str(ja3(), "malformed", "a list that is said to be longer than its extension");

    begin(0x0303);
    {
        size_t at = open_at(2);

        for (unsigned i = 0; i < 600; i++)
            put(2, 0x4000 + i);
        close_at(at, 2);
    }
    begin_extensions();
    end();
    is_str(ja4(), "malformed", "more ciphers than there are: no JA4");
    ok(strcmp(ja3(), "malformed") != 0, "JA3 has no need to sort them");
}

int main(void)
{
    published_ja3(false);
    is_str(ja3(), "ada70206e40642a3e4461f35503241d5", "the published example of JA3");
    published_ja3(true);
    is_str(ja3(), "ada70206e40642a3e4461f35503241d5", "GREASE does not change it");
    published_ja4();
    is_str(ja4(), "t13d1516h2_8daaf6152771_e5627efa2ab1", "the published example of JA4");
    alpn_signs();
    cuts();
    odd_ones();
    return done_testing();
}
