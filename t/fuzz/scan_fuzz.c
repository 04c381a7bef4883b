/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Fuzz target: all scanners give one answer, from each of the first 40 bytes on, and read nothing
 * else.
 */
#include "core/http/h1.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    for (size_t skip = 0; skip <= size && skip < 40; skip++) {
        size_t len = size - skip;
        char *copy = malloc(len > 0 ? len : 1);

        if (len > 0)
            memcpy(copy, data + skip, len);
        for (unsigned c = SCAN_TOKEN; c <= SCAN_URI; c++) {
            size_t expected;

            scan_use(SCAN_PORTABLE);
            expected = scan_span((enum scan_class) c, copy, len);
            for (unsigned k = SCAN_SSE42; k <= SCAN_AVX2; k++) {
                scan_use((enum scan_kind) k);
                if (scan_span((enum scan_class) c, copy, len) != expected)
                    abort();
            }
        }
        free(copy);
    }
    return 0;
}
