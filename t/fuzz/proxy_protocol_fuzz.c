/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Fuzz target: PROXY headers. A header that is accepted is incomplete at every byte before its end,
 * and does not depend on what follows; its addresses can be written down, and are the same in a header made of them.
 */
#include "core/http/proxy_protocol.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static ssize_t parse(const uint8_t *data, size_t size, struct addr *source, struct addr *dest,
                     bool *known)
{
    char *copy = malloc(size > 0 ? size : 1);
    ssize_t n;

    if (size > 0)
        memcpy(copy, data, size);
    n = proxy_protocol_parse(copy, size, source, dest, known);
    free(copy);
    return n;
}

/* What is written of addresses is read as the same ones, but for unix sockets, of which nothing is told. */
static void write_again(const struct addr *source, const struct addr *dest)
{
    char buf[PROXY_PROTOCOL_MAX];
    struct addr a, b;

    for (unsigned version = 1; version <= 2; version++) {
        size_t n = proxy_protocol_write(buf, version, source, dest);
        bool known = false;

        if (parse((const uint8_t *) buf, n, &a, &b, &known) != (ssize_t) n)
            abort();
        if (known != (source->sa.sa_family != AF_UNIX)
            || (known && !(addr_eq(&a, source, true) && addr_eq(&b, dest, true))))
            abort();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct addr source, dest, a, b;
    char text[ADDR_TEXT];
    bool known = false, k = false;
    ssize_t n = parse(data, size, &source, &dest, &known);

    if (n <= 0)
        return 0;
    if ((size_t) n > size || parse(data, (size_t) n, &a, &b, &k) != n || k != known)
        abort();
    for (size_t cut = 0; cut < (size_t) n; cut += 1 + cut / 100) {
        if (parse(data, cut, &a, &b, &k) != 0)
            abort();
    }
    if (known) {
        addr_format(&source, true, text, sizeof(text));
        addr_format(&dest, true, text, sizeof(text));
        write_again(&source, &dest);
    }
    return 0;
}
