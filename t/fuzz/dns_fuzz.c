/* SPDX-License-Identifier: BSD-2-Clause */
/* Answers of name servers: any bytes as a message, read for each type of record. */
#include "core/base/base.h"
#include "modules/resolver/dns.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void found(void *arg, const struct dns_record *record)
{
    unsigned type = *(unsigned *) arg;

    ASSERT(record->ttl_s <= INT32_MAX);
    ASSERT(type == DNS_SRV ? strlen(record->target) <= DNS_NAME_MAX : record->addr.len > 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const unsigned types[] = { DNS_A, DNS_AAAA, DNS_SRV };

    /* What arrives over UDP or TCP is never longer. */
    if (size > 65535)
        return 0;
    for (unsigned i = 0; i < ARRAY_LEN(types); i++) {
        unsigned type = types[i];

        dns_answers(data, size, type, found, &type);
    }
    return 0;
}
