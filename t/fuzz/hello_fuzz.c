/* SPDX-License-Identifier: BSD-2-Clause */
/* ClientHello messages: any bytes, read and made into both fingerprints. */
#include "core/base/base.h"
#include "modules/ssl/hello.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char ja3[HELLO_JA3_LEN], ja4[HELLO_JA4_LEN];
    struct hello h;

    if (hello_parse(&h, data, size) != 0)
        return 0;
    ASSERT(hello_ja3(&h, ja3) == 0);
    if (hello_ja4(&h, ja4) == 0)
        ASSERT(ja4[0] == 't' && ja4[10] == '_' && ja4[23] == '_');
    return 0;
}
