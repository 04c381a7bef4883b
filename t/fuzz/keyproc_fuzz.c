/* SPDX-License-Identifier: BSD-2-Clause */
/* What a worker sends to the key process: a byte for the kind of key, one for its uses, then any datagram. */
#include "modules/ssl/keyproc.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct keyproc_request rq;
    enum keyproc_kind kind;
    unsigned uses;

    if (size < 2)
        return 0;
    kind = (enum keyproc_kind)(data[0] % KEYPROC_KINDS);
    uses = data[1] % (2 * KEYPROC_DHE);
    data += 2;
    size -= 2;
    if (keyproc_check(data, size, kind, uses) != NULL) {
        keyproc_is_signed_by_tls(data, size, uses);
        return 0;
    }
    /* What is let through has the shape that the operations rely on. */
    ASSERT(keyproc_parse(&rq, data, size) == 0);
    ASSERT(rq.len + rq.name_len == size - sizeof(rq) && rq.len <= KEYPROC_PAYLOAD_MAX);
    ASSERT(rq.name_len <= KEYPROC_NAME_MAX);
    if (rq.op == KEYPROC_FIND) {
        ASSERT(rq.name_len > 0 && rq.len == 0);
        return 0;
    }
    if (rq.op == KEYPROC_DECRYPT) {
        ASSERT(kind == KEYPROC_RSA && (uses & KEYPROC_SERVER));
        return 0;
    }
    ASSERT(rq.op == KEYPROC_SIGN && rq.digest < KEYPROC_DIGESTS && rq.padding <= KEYPROC_PSS);
    ASSERT(rq.len >= 16 && (uses & (KEYPROC_SERVER | KEYPROC_CLIENT)));
    ASSERT(keyproc_digest_by_name(keyproc_digest_name(rq.digest)) == rq.digest);
    return 0;
}
