/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Fuzz target: password files. What is found does not depend on how the file is cut into pieces,
 * and is a line's own: the file holds it behind the name and a colon. Input: the user, a NUL, the
 * file.
 */
#include "modules/http/htpasswd.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void search(struct htpasswd *h, struct str user, struct str file, size_t piece)
{
    htpasswd_start(h, user);
    for (size_t at = 0; at < file.len; at += piece) {
        if (htpasswd_feed(h, file.ptr + at, MIN(piece, file.len - at)))
            return;
    }
    htpasswd_end(h);
}

static void check_line(const struct htpasswd *h, struct str file)
{
    char *line = malloc(h->user.len + h->len + 2), *p = line;

    *p++ = '\n';
    memcpy(p, h->user.ptr, h->user.len);
    p += h->user.len;
    *p++ = ':';
    memcpy(p, h->hash, h->len);
    p += h->len;
    if (h->len >= HTPASSWD_HASH_MAX + 1
        || (!str_starts(file, str_from(line + 1, (size_t) (p - line) - 1))
            && str_find(file, str_from(line, (size_t) (p - line))) < 0))
        abort();
    free(line);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct htpasswd whole, cut;
    struct str all = str_from((const char *) data, size), user, file;
    ssize_t nul = str_chr(all, '\0');

    if (nul <= 0)
        return 0;
    user = str_from(all.ptr, (size_t) nul);
    file = str_skip(all, (size_t) nul + 1);
    search(&whole, user, file, file.len + 1);
    for (size_t piece = 1; piece < 9; piece++) {
        search(&cut, user, file, piece);
        if (cut.found != whole.found || cut.unusable != whole.unusable || cut.len != whole.len
            || memcmp(cut.hash, whole.hash, whole.len) != 0)
            abort();
    }
    if (!whole.found)
        return 0;
    check_line(&whole, file);
    /* The cheap kinds, whatever the data. */
    if (!whole.unusable && !password_is_slow(str_from(whole.hash, whole.len)))
        password_matches(user, str_from(whole.hash, whole.len));
    return 0;
}
