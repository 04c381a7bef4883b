/* SPDX-License-Identifier: BSD-2-Clause */
/* PROXY headers of both versions: addresses, what is incomplete, what is refused. */
#include "core/http/proxy_protocol.h"
#include "t/unit/tap.h"

#define STRING(s) s, sizeof(s) - 1
#define V2 "\r\n\r\n\0\r\nQUIT\n"

static struct addr source, dest;
static bool known;

static ssize_t parse(const char *ptr, size_t len)
{
    ssize_t n, part;
    char *copy = malloc(len > 0 ? len : 1);

    memcpy(copy, ptr, len);
    known = false;
    memset(&source, 0, sizeof(source));
    memset(&dest, 0, sizeof(dest));
    n = proxy_protocol_parse(copy, len, &source, &dest, &known);
    /* No beginning of a good header is refused, or taken for all of it. */
    for (ssize_t cut = 0; cut < n; cut++) {
        struct addr a, b;
        bool k;
        char *less = malloc(cut > 0 ? (size_t) cut : 1);

        memcpy(less, ptr, (size_t) cut);
        part = proxy_protocol_parse(less, (size_t) cut, &a, &b, &k);
        free(less);
        if (part != 0)
            ok(false, "%zd of %zd bytes are incomplete: %zd", cut, n, part);
    }
    free(copy);
    return n;
}

static void addresses(const char *from, const char *to, const char *what)
{
    char text[ADDR_TEXT];

    ok(known, "%s: known", what);
    text[addr_format(&source, true, text, sizeof(text))] = '\0';
    is_str(text, from, "%s: source", what);
    text[addr_format(&dest, true, text, sizeof(text))] = '\0';
    is_str(text, to, "%s: destination", what);
}

static void test_v1(void)
{
    static const struct {
        const char *line;
        const char *what;
    } bad[] = {
        { "GET / HTTP/1.1\r\n", "a request" },
        { "PROXY\r\n", "nothing behind PROXY" },
        { "PROXY \r\n", "nothing behind the blank" },
        { "PROXY TCP4 1.2.3.4 5.6.7.8 1 2\n", "bare LF" },
        { "PROXY TCP4 1.2.3.4 5.6.7.8 1\r\n", "one port" },
        { "PROXY TCP4 1.2.3.4 5.6.7.8 1 2 3\r\n", "three ports" },
        { "PROXY TCP4 1.2.3.4 5.6.7.8 1 \r\n", "an empty port" },
        { "PROXY TCP4 1.2.3.4 5.6.7.8 1 65536\r\n", "a port too high" },
        { "PROXY TCP4 1.2.3.4 5.6.7.8 01 2\r\n", "a port with a leading zero" },
        { "PROXY TCP4 1.2.3.4 5.6.7.8 -1 2\r\n", "a negative port" },
        { "PROXY TCP4  1.2.3.4 5.6.7.8 1 2\r\n", "two blanks" },
        { "PROXY TCP4 1.2.3.400 5.6.7.8 1 2\r\n", "no address" },
        { "PROXY TCP4 ::1 ::1 1 2\r\n", "the other family" },
        { "PROXY TCP6 1.2.3.4 5.6.7.8 1 2\r\n", "the other family, 6" },
        { "PROXY UDP4 1.2.3.4 5.6.7.8 1 2\r\n", "no such transport" },
        { "PROXY UNKNOWNX\r\n", "nearly UNKNOWN" },
        { "proxy TCP4 1.2.3.4 5.6.7.8 1 2\r\n", "lower case" },
        { "\r\nPROXY UNKNOWN\r\n", "an empty line in front" },
    };
    char line[200];

    is_int(parse(STRING("PROXY TCP4 1.2.3.4 5.6.7.8 1234 80\r\nGET")), 36, "version 1");
    addresses("1.2.3.4:1234", "5.6.7.8:80", "version 1");
    is_int(parse(STRING("PROXY TCP6 ::1 fe80::2 0 65535\r\n")), 32, "IPv6");
    addresses("[::1]:0", "[fe80::2]:65535", "IPv6");
    is_int(parse(STRING("PROXY UNKNOWN\r\n")), 15, "unknown");
    ok(!known, "is not known");
    is_int(parse(STRING("PROXY UNKNOWN whatever it is\r\n")), 30, "unknown with a rest");
    for (unsigned i = 0; i < ARRAY_LEN(bad); i++)
        is_int(parse(bad[i].line, strlen(bad[i].line)), -1, "%s", bad[i].what);
    is_int(parse(STRING("PROXY TCP4 1.2.3.4\0 5.6.7.8 1 2\r\n")), -1, "NUL");
    memset(line, 'x', sizeof(line));
    memcpy(line, "PROXY UNKNOWN ", 14);
    is_int(parse(line, 106), 0, "106 bytes without an end");
    is_int(parse(line, 107), -1, "107 bytes without an end");
    memcpy(line + 105, "\r\n", 2);
    is_int(parse(line, 150), 107, "107 bytes");
    is_int(parse("", 0), 0, "nothing yet");
}

static void test_v2(void)
{
    char big[5000];

    is_int(parse(STRING(V2 "\x21\x11\0\x0c\1\2\3\4\5\6\7\x8\x04\xd2\0\x50GET")), 28, "version 2");
    addresses("1.2.3.4:1234", "5.6.7.8:80", "version 2");
    is_int(
        parse(STRING(
            V2
            "\x21\x21\0\x24\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\1\xfe\x80\0\0\0\0\0\0\0\0\0\0\0\0\0\2\0\1\0\2")),
        52, "IPv6");
    addresses("[::1]:1", "[fe80::2]:2", "IPv6");
    is_int(parse(STRING(V2 "\x21\x11\0\x10\1\2\3\4\5\6\7\x8\x04\xd2\0\x50\3\0\1x")), 32,
           "more fields are skipped");
    is_int(parse(STRING(V2 "\x20\0\0\0")), 16, "LOCAL");
    ok(!known, "is not known");
    is_int(parse(STRING(V2 "\x20\x11\0\x0c\1\2\3\4\5\6\7\x8\x04\xd2\0\x50")), 28,
           "LOCAL with addresses");
    ok(!known, "is not known either");
    is_int(parse(STRING(V2 "\x21\0\0\3xyz")), 19, "an unspecified family");
    ok(!known, "is not known");
    memset(big, 0, sizeof(big));
    memcpy(big, V2 "\x21\x31\0\xd8/run/a", 22);
    memcpy(big + 16 + 108, "/run/b", 6);
    is_int(parse(big, 16 + 216), 232, "unix");
    addresses("unix:/run/a", "unix:/run/b", "unix");
    memset(big + 16, 'x', 216);
    is_int(parse(big, 232), 232, "paths that fill their places");
    is_int(parse(STRING(V2 "\x11\x11\0\x0c\1\2\3\4\5\6\7\x8\x04\xd2\0\x50")), -1,
           "another version");
    is_int(parse(STRING(V2 "\x22\x11\0\x0c\1\2\3\4\5\6\7\x8\x04\xd2\0\x50")), -1,
           "another command");
    is_int(parse(STRING(V2 "\x21\x41\0\x0c\1\2\3\4\5\6\7\x8\x04\xd2\0\x50")), -1, "another family");
    is_int(parse(STRING(V2 "\x21\x13\0\x0c\1\2\3\4\5\6\7\x8\x04\xd2\0\x50")), -1,
           "another transport");
    is_int(parse(STRING(V2 "\x21\x11\0\x0b\1\2\3\4\5\6\7\x8\x04\xd2\0")), -1, "addresses cut off");
    is_int(parse(STRING(V2 "\x21\x21\0\x0c\1\2\3\4\5\6\7\x8\x04\xd2\0\x50")), -1,
           "IPv6 in the room of IPv4");
    is_int(parse(STRING(V2 "\x21\x11\xff\xff")), -1, "longer than is allowed");
    is_int(parse(STRING("\r\n\r\nX")), -1, "another signature");
    memcpy(big, V2 "\x21\x11\x0f\xf0", 16);
    is_int(parse(big, 4096), 4096, "as long as is allowed");
}

static struct addr address(const char *text)
{
    struct addr a;

    if (addr_parse(&a, str_cstr(text), 0, false) != 0)
        ok(false, "\"%s\" is an address", text);
    return a;
}

static void test_write(void)
{
    static const struct {
        const char *from, *to, *v1, *read_from, *read_to;
    } rows[] = {
        { "1.2.3.4:1234", "5.6.7.8:80", "PROXY TCP4 1.2.3.4 5.6.7.8 1234 80\r\n", NULL, NULL },
        { "[::1]:65535", "[fe80::2]:1", "PROXY TCP6 ::1 fe80::2 65535 1\r\n", NULL, NULL },
        { "1.2.3.4:5", "[2001:db8::1]:80", "PROXY TCP6 ::ffff:1.2.3.4 2001:db8::1 5 80\r\n",
          "[::ffff:1.2.3.4]:5", NULL },
        { "[2001:db8::1]:80", "1.2.3.4:5", "PROXY TCP6 2001:db8::1 ::ffff:1.2.3.4 80 5\r\n", NULL,
          "[::ffff:1.2.3.4]:5" },
    };
    char buf[PROXY_PROTOCOL_MAX];
    struct addr unix_addr = address("unix:/run/x"), v4 = address("1.2.3.4:5");
    size_t n;

    for (unsigned i = 0; i < ARRAY_LEN(rows); i++) {
        struct addr from = address(rows[i].from), to = address(rows[i].to);

        for (unsigned version = 1; version <= 2; version++) {
            n = proxy_protocol_write(buf, version, &from, &to);
            if (version == 1)
                is_bytes(buf, n, rows[i].v1, strlen(rows[i].v1), "version 1: %s", rows[i].v1);
            is_int(parse(buf, n), (ssize_t) n, "version %u is read again", version);
            ok(known, "and known");
            addresses(rows[i].read_from ? rows[i].read_from : rows[i].from,
                      rows[i].read_to ? rows[i].read_to : rows[i].to, "as it was written");
        }
    }
    n = proxy_protocol_write(buf, 1, &unix_addr, &v4);
    is_bytes(buf, n, "PROXY UNKNOWN\r\n", (size_t) 15, "a unix socket has no address to tell");
    n = proxy_protocol_write(buf, 2, &v4, &unix_addr);
    is_bytes(buf, n, V2 "\x20\0\0\0", (size_t) 16, "nor in version 2");
    n = proxy_protocol_write(buf, 1, NULL, NULL);
    is_int(parse(buf, n), (ssize_t) n, "nobody's connection: UNKNOWN is read");
    ok(!known, "and not known");
    n = proxy_protocol_write(buf, 2, NULL, NULL);
    is_int(parse(buf, n), 16, "LOCAL is read");
    ok(!known, "and not known");
}

int main(void)
{
    test_write();
    test_v1();
    test_v2();
    return done_testing();
}
