/* SPDX-License-Identifier: BSD-2-Clause */
/* Password files, cut at every byte, and every kind of hash. */
#include <errno.h>
#include <unistd.h>

#include "core/base/base.h"
#include "modules/http/htpasswd.h"
#include "t/unit/tap.h"

/* The user's hash, when the text comes in pieces of `piece` bytes; NULL: there is none. */
static const char *find(struct str text, const char *user, size_t piece)
{
    static struct htpasswd h;

    htpasswd_start(&h, str_cstr(user));
    for (size_t at = 0; at < text.len; at += piece) {
        if (htpasswd_feed(&h, text.ptr + at, MIN(piece, text.len - at)))
            return h.found && !h.unusable ? h.hash : NULL;
    }
    return htpasswd_end(&h) && !h.unusable ? h.hash : NULL;
}

static void test_file(void)
{
    static const struct {
        const char *text, *user, *hash;
    } cases[] = {
        { "a:1\nb:2\n", "a", "1" },
        { "a:1\nb:2\n", "b", "2" },
        { "a:1\nb:2", "b", "2" },
        { "a:1\r\nb:2\r\n", "a", "1" },
        { "a:1\r\nb:2\r\n", "b", "2" },
        { "a:1:comment:more\nb:2\n", "a", "1" },
        { "# a:0\na:1\n", "a", "1" },
        { "#a:0\n", "#a", NULL },
        { "\n\n\na:1\n", "a", "1" },
        { "\r\na:1\n", "a", "1" },
        { "ab:1\na:2\n", "a", "2" },
        { "a:1\nab:2\n", "ab", "2" },
        { "a:1\na:2\n", "a", "1" },
        { "a\nb:2\n", "a", NULL },
        { "a\nb:2\n", "b", "2" },
        { "ab\nabc:2\n", "abc", "2" },
        { "a", "a", NULL },
        { "a:", "a", "" },
        { "a:\nb:1\n", "a", "" },
        { ":1\n", "a", NULL },
        { " a:1\n", "a", NULL },
        { "a :1\n", "a ", "1" },
        { "a\r:1\n", "a", NULL },
        { "", "a", NULL },
        { "x y:1\n", "x y", "1" },
        { "a:1 \n", "a", "1 " },
        { "a\nb:1\n", "a\nb", NULL },
        { "A:1\n", "a", NULL },
    };

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct str text = str_cstr(cases[i].text);
        bool same = true;

        for (size_t piece = 1; piece <= text.len + 1; piece++) {
            const char *got = find(text, cases[i].user, piece);

            same &= (got == NULL) == (cases[i].hash == NULL) &&
                    (got == NULL || strcmp(got, cases[i].hash) == 0);
        }
        ok(same, "\"%s\" in case %zu, in pieces of any size", cases[i].user, i);
    }
    is_str(find(str_from("a:x\0y\n", 6), "a", 2), "x", "a NUL is part of the hash");
}

static void test_long(void)
{
    size_t size = 300000;
    char *text = malloc(size);

    memset(text, 'x', size);
    memcpy(text + size - 6, "\nu:ok\n", 6);
    is_str(find(str_from(text, size), "u", 8192), "ok", "behind a long line");
    memcpy(text, "u:", 2);
    ok(find(str_from(text, size), "u", 8192) == NULL, "a hash of 300000 bytes is of no use");
    text[2 + HTPASSWD_HASH_MAX] = '\n';
    is_uint(strlen(find(str_from(text, size), "u", 8192)), HTPASSWD_HASH_MAX, "the longest hash");
    free(text);
}

static void test_search(void)
{
    static struct htpasswd h;
    char path[] = "/tmp/proxyd-htpasswd-XXXXXX";
    int fd = mkstemp(path);

    ASSERT(fd >= 0);
    unlink(path);
    for (unsigned i = 0; i < 2000; i++)
        ASSERT(dprintf(fd, "user%u:{PLAIN}%u\n", i, i) > 0);
    for (unsigned i = 0; i < 2000; i += 37) {
        char name[32];

        snprintf(name, sizeof(name), "user%u", i);
        lseek(fd, 0, SEEK_SET);
        htpasswd_start(&h, str_cstr(name));
        ok(htpasswd_search(&h, fd) == 0 && h.found && strtoul(h.hash + 7, NULL, 10) == i,
           "%s of 2000", name);
    }
    ok(ftruncate(fd, (off_t) HTPASSWD_FILE_MAX + 10000) == 0, "a hole behind");
    lseek(fd, 0, SEEK_SET);
    htpasswd_start(&h, STR("nobody"));
    ok(htpasswd_search(&h, fd) == -1 && errno == EFBIG,
       "a file without end is not read to its end");
    close(fd);
    htpasswd_start(&h, STR("nobody"));
    ok(htpasswd_search(&h, fd) == -1 && errno == EBADF, "an error is told");
}

static bool fits(const char *password, const char *hash)
{
    return password_matches(str_cstr(password), str_cstr(hash));
}

static void test_hashes(void)
{
    static const struct {
        const char *password, *hash;
    } good[] = {
        { "", "$apr1$s$e2aCb9PLCjZ2t55SoAxXn." },
        { "", "$apr1$12345678$sHuPAw7VA9xjRbJz7zKV7/" },
        { "a", "$apr1$s$EpqI6uEp3OR4bun9kSXHW/" },
        { "0123456789abcdef", "$apr1$12345678$vc38ZupyU1KkWqFuFfTA/." },
        { "a rather longer password of more than 32 bytes", "$apr1$s$IfmVeMmotE8chIdpCnG.Q/" },
        { "a rather longer password of more than 32 bytes",
          "$apr1$12345678$vzbZGWkRL0asS1zBUonVp0" },
        { "pw", "$y$j9T$abcdefghijklmnop$wRwvHNqzMkHLG74uLLCRVTwaZ.a1aIothEUeYGf9oED" },
        { "x", "$2b$04$abcdefghijklmnopqrstuuPp7HPfoAs8I2dCQCQ/fW7zEJv8I8C8e" },
        { "x", "{PLAIN}x" },
        { "", "{PLAIN}" },
        { "pw", "{SHA}GpHWL3ymc5liWkNopqtdSjuqYHM=" },
    };

    for (size_t i = 0; i < ARRAY_LEN(good); i++) {
        char other[128];

        ok(fits(good[i].password, good[i].hash), "%s", good[i].hash);
        snprintf(other, sizeof(other), "%sx", good[i].password);
        ok(!fits(other, good[i].hash), "another password");
        snprintf(other, sizeof(other), "%sx", good[i].hash);
        ok(!fits(good[i].password, other), "another hash");
        if (good[i].hash[0] == '$') {
            snprintf(other, sizeof(other), "%.*s", (int) strlen(good[i].hash) - 1, good[i].hash);
            ok(!fits(good[i].password, other), "a hash cut short");
        }
    }
}

static void test_bad_hashes(void)
{
    static const char *const bad[] = {
        "",
        "x",
        "*",
        "*0",
        "*1",
        "$",
        "$1$",
        "$9$x",
        "$2y$99$",
        "$6$rounds=",
        "$apr1$",
        "$apr1$$",
        "$apr1$salt",
        "$apr1$saltsaltsalt$e2aCb9PLCjZ2t55SoAxXn.",
        "{",
        "{SHA}",
        "{SSHA}",
        "{SHA}====",
        "{SHA}!!!!",
        "{SSHA}YWJj",
        "{SSHA}A",
        "{SHA}GpHWL3ymc5liWkNopqtdSjuqYHM",
        "{SHA}GpHWL3ymc5liWkNopqtdSjuqYHMA",
        "{sha}x",
        "{MD5}x",
        "{PLAIN}\n",
    };

    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        ok(!fits("pw", bad[i]), "nothing fits \"%s\"", bad[i]);
    ok(!password_matches(str_from("p\0", 2), STR("{PLAIN}p")), "a NUL in the password");
    ok(!password_matches(STR("p"), str_from("{PLAIN}p\0q", 10)), "a NUL in the hash");
    ok(password_is_slow(STR("$2y$")) && password_is_slow(STR("ab")) &&
           !password_is_slow(STR("{SHA}")),
       "what goes to a thread");
}

int main(void)
{
    test_file();
    test_long();
    test_search();
    test_hashes();
    test_bad_hashes();
    return done_testing();
}
