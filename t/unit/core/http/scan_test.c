/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Scanners: every byte at every place of every length, by each instruction set, in memory that
 * ends there.
 */
#include "core/http/h1.h"
#include "t/unit/tap.h"

static bool allowed(enum scan_class class_, unsigned c)
{
    switch (class_) {
    case SCAN_TOKEN:
        return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
               (c != 0 && c < 128 && strchr("!#$%&'*+-.^_`|~", (int) c) != NULL);
    case SCAN_FIELD_VALUE: return c != 0 && c != '\r' && c != '\n';
    case SCAN_URI: return c > 0x20 && c != 0x7f;
    }
    return false;
}

int main(void)
{
    static const char *kinds[] = { "portable", "SSE4.2", "AVX2" };
    static const char *classes[] = { "tokens", "values", "URIs" };

    for (unsigned k = SCAN_PORTABLE; k <= SCAN_AVX2; k++) {
        scan_use((enum scan_kind) k);
        for (unsigned class_ = SCAN_TOKEN; class_ <= SCAN_URI; class_++) {
            unsigned wrong = 0;

            for (size_t len = 0; len < 100; len++) {
                char *buf = malloc(len > 0 ? len : 1);

                memset(buf, 'a', len);
                wrong += scan_span((enum scan_class) class_, buf, len) != len;
                for (size_t at = 0; at < len; at++) {
                    for (unsigned c = 0; c < 256; c += len < 70 ? 1 : 3) {
                        buf[at] = (char) c;
                        wrong += scan_span((enum scan_class) class_, buf, len) !=
                                 (allowed((enum scan_class) class_, c) ? len : at);
                    }
                    buf[at] = 'a';
                }
                free(buf);
            }
            is_uint(wrong, 0, "%s of %s", kinds[k], classes[class_]);
        }
    }
    scan_force_portable(true);
    is_uint(scan_span(SCAN_TOKEN, "abc:", 4), 3, "portable when told so");
    scan_force_portable(false);
    is_uint(scan_span(SCAN_TOKEN, "abc:", 4), 3, "and back");
    return done_testing();
}
