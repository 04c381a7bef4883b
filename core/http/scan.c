/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * How many bytes from ptr on belong to a class: the innermost loop of the HTTP/1 parser. In 32
 * bytes a step with AVX2, 16 with SSE4.2, else by table, chosen at the first call; all three give
 * the same answer, and none reads a byte outside ptr..ptr + len. Called by codecs; knows nothing of
 * messages.
 */
#include "core/http/h1.h"

#if defined(__x86_64__)
#include <immintrin.h>
#define WITH_X86 1
#endif

typedef size_t scan_fn(const char *ptr, size_t len);

/* Bit of each class in which a byte is allowed: 1 token (RFC 9110, 5.6.2), 2 field value, 4 URI. */
#define VALUE_URI (2 | 4)
#define ALL (1 | 2 | 4)
static const unsigned char allowed[256] = {
    [0x01 ... 0x09] = 2,  [0x0b ... 0x0c] = 2,
    [0x0e ... 0x20] = 2,  [0x7f] = 2,
    ['!'] = ALL,          ['"'] = VALUE_URI,
    ['#' ... '\''] = ALL, ['(' ... ')'] = VALUE_URI,
    ['*' ... '+'] = ALL,  [','] = VALUE_URI,
    ['-' ... '.'] = ALL,  ['/'] = VALUE_URI,
    ['0' ... '9'] = ALL,  [':' ... '@'] = VALUE_URI,
    ['A' ... 'Z'] = ALL,  ['[' ... ']'] = VALUE_URI,
    ['^' ... 'z'] = ALL,  ['{'] = VALUE_URI,
    ['|'] = ALL,          ['}'] = VALUE_URI,
    ['~'] = ALL,          [0x80 ... 0xff] = VALUE_URI,
};

static inline __attribute__((always_inline)) size_t scan_table(const char *ptr, size_t len,
                                                               size_t i, unsigned bit)
{
    while (i < len && (allowed[(unsigned char) ptr[i]] & bit))
        i++;
    return i;
}

static size_t token_portable(const char *ptr, size_t len)
{
    return scan_table(ptr, len, 0, 1);
}

static size_t value_portable(const char *ptr, size_t len)
{
    return scan_table(ptr, len, 0, 2);
}

static size_t uri_portable(const char *ptr, size_t len)
{
    return scan_table(ptr, len, 0, 4);
}

#ifdef WITH_X86

/*
 * Whether the len bytes (4 to 15) hold no NUL, CR or LF: two words that overlap. A byte above such a
 * one may be taken for it too, and is then looked at again by table. Most values and names that are
 * written are that short; byte by byte they cost 500 instructions a request.
 */
static inline bool short_value_clean(const char *ptr, size_t len)
{
    const uint64_t ones = 0x0101010101010101u;
    uint64_t a = 0, b = 0, found;

    if (len >= 8) {
        memcpy(&a, ptr, 8);
        memcpy(&b, ptr + len - 8, 8);
    } else {
        uint32_t low, high;

        memcpy(&low, ptr, 4);
        memcpy(&high, ptr + len - 4, 4);
        a = b = (uint64_t) high << 32 | low;
    }
    found = (a - ones) & ~a;
    found |= ((a ^ ones * '\r') - ones) & ~(a ^ ones * '\r');
    found |= ((a ^ ones * '\n') - ones) & ~(a ^ ones * '\n');
    found |= (b - ones) & ~b;
    found |= ((b ^ ones * '\r') - ones) & ~(b ^ ones * '\r');
    found |= ((b ^ ones * '\n') - ones) & ~(b ^ ones * '\n');
    return (found & ones * 0x80) == 0;
}

/*
 * Tokens by two look-ups of 16 entries: token_low[low half] has the bit of each high half (2 to 7)
 * with which that low half makes a token sign; token_high[high half] is that bit.
 */
#define TOKEN_LOW                                                                                  \
    (char) 0xe8, (char) 0xfc, (char) 0xf8, (char) 0xfc, (char) 0xfc, (char) 0xfc, (char) 0xfc,     \
        (char) 0xfc, (char) 0xf8, (char) 0xf8, (char) 0xf4, (char) 0x54, (char) 0xd0, (char) 0x54, \
        (char) 0xf4, (char) 0x70
#define TOKEN_HIGH 0, 0, 4, 8, 16, 32, 64, (char) 128, 0, 0, 0, 0, 0, 0, 0, 0

/* In each case a mask with a bit for every byte that is not allowed. */
#define SSE __attribute__((target("sse4.2")))
#define AVX __attribute__((target("avx2")))

SSE static inline unsigned bad_token16(__m128i v)
{
    __m128i half = _mm_set1_epi8(15);
    __m128i low = _mm_shuffle_epi8(_mm_setr_epi8(TOKEN_LOW), _mm_and_si128(v, half));
    __m128i high =
        _mm_shuffle_epi8(_mm_setr_epi8(TOKEN_HIGH), _mm_and_si128(_mm_srli_epi16(v, 4), half));

    return (unsigned) _mm_movemask_epi8(
        _mm_cmpeq_epi8(_mm_and_si128(low, high), _mm_setzero_si128()));
}

SSE static inline unsigned bad_value16(__m128i v)
{
    __m128i nul = _mm_cmpeq_epi8(v, _mm_setzero_si128());
    __m128i lf = _mm_cmpeq_epi8(v, _mm_set1_epi8('\n'));
    __m128i cr = _mm_cmpeq_epi8(v, _mm_set1_epi8('\r'));

    return (unsigned) _mm_movemask_epi8(_mm_or_si128(nul, _mm_or_si128(lf, cr)));
}

SSE static inline unsigned bad_uri16(__m128i v)
{
    __m128i low = _mm_cmpeq_epi8(_mm_min_epu8(v, _mm_set1_epi8(0x20)), v);
    __m128i del = _mm_cmpeq_epi8(v, _mm_set1_epi8(0x7f));

    return (unsigned) _mm_movemask_epi8(_mm_or_si128(low, del));
}

AVX static inline unsigned bad_token32(__m256i v)
{
    __m256i half = _mm256_set1_epi8(15);
    __m256i low =
        _mm256_shuffle_epi8(_mm256_setr_epi8(TOKEN_LOW, TOKEN_LOW), _mm256_and_si256(v, half));
    __m256i high = _mm256_shuffle_epi8(_mm256_setr_epi8(TOKEN_HIGH, TOKEN_HIGH),
                                       _mm256_and_si256(_mm256_srli_epi16(v, 4), half));

    return (unsigned) _mm256_movemask_epi8(
        _mm256_cmpeq_epi8(_mm256_and_si256(low, high), _mm256_setzero_si256()));
}

AVX static inline unsigned bad_value32(__m256i v)
{
    __m256i nul = _mm256_cmpeq_epi8(v, _mm256_setzero_si256());
    __m256i lf = _mm256_cmpeq_epi8(v, _mm256_set1_epi8('\n'));
    __m256i cr = _mm256_cmpeq_epi8(v, _mm256_set1_epi8('\r'));

    return (unsigned) _mm256_movemask_epi8(_mm256_or_si256(nul, _mm256_or_si256(lf, cr)));
}

AVX static inline unsigned bad_uri32(__m256i v)
{
    __m256i low = _mm256_cmpeq_epi8(_mm256_min_epu8(v, _mm256_set1_epi8(0x20)), v);
    __m256i del = _mm256_cmpeq_epi8(v, _mm256_set1_epi8(0x7f));

    return (unsigned) _mm256_movemask_epi8(_mm256_or_si256(low, del));
}

/* The last 16 bytes once more rather than the rest one by one: what is seen twice was allowed. */
#define SCAN_LAST16(name)                                                            \
    if (len >= 16) {                                                                 \
        unsigned bad = bad_##name##16(                                               \
            _mm_loadu_si128((const __m128i *) (const void *) (ptr + len - 16)));     \
                                                                                     \
        return bad != 0 ? len - 16 + (unsigned) __builtin_ctz(bad) : len;            \
    }                                                                                \
    if (bit == 2 && len >= 4 && short_value_clean(ptr, len))                         \
        return len;

#define SCAN_SSE(name, allowed_bit)                                                          \
    SSE static size_t name##_sse42(const char *ptr, size_t len)                              \
    {                                                                                        \
        const unsigned bit = allowed_bit;                                                    \
        size_t i = 0;                                                                        \
                                                                                             \
        for (; len - i >= 16; i += 16) {                                                     \
            unsigned bad =                                                                   \
                bad_##name##16(_mm_loadu_si128((const __m128i *) (const void *) (ptr + i))); \
                                                                                             \
            if (bad != 0)                                                                    \
                return i + (unsigned) __builtin_ctz(bad);                                    \
        }                                                                                    \
        SCAN_LAST16(name)                                                                    \
        return scan_table(ptr, len, 0, bit);                                                 \
    }

#define SCAN_AVX(name, allowed_bit)                                                             \
    AVX static size_t name##_avx2(const char *ptr, size_t len)                                  \
    {                                                                                           \
        const unsigned bit = allowed_bit;                                                       \
        size_t i = 0;                                                                           \
                                                                                                \
        for (; len - i >= 32; i += 32) {                                                        \
            unsigned bad =                                                                      \
                bad_##name##32(_mm256_loadu_si256((const __m256i *) (const void *) (ptr + i))); \
                                                                                                \
            if (bad != 0)                                                                       \
                return i + (unsigned) __builtin_ctz(bad);                                       \
        }                                                                                       \
        if (len - i >= 16) {                                                                    \
            unsigned bad =                                                                      \
                bad_##name##16(_mm_loadu_si128((const __m128i *) (const void *) (ptr + i)));    \
                                                                                                \
            if (bad != 0)                                                                       \
                return i + (unsigned) __builtin_ctz(bad);                                       \
        }                                                                                       \
        SCAN_LAST16(name)                                                                       \
        return scan_table(ptr, len, 0, bit);                                                    \
    }

SCAN_SSE(token, 1)
SCAN_SSE(value, 2)
SCAN_SSE(uri, 4)
SCAN_AVX(token, 1)
SCAN_AVX(value, 2)
SCAN_AVX(uri, 4)

#endif /* WITH_X86 */

static size_t token_first(const char *ptr, size_t len);
static size_t value_first(const char *ptr, size_t len);
static size_t uri_first(const char *ptr, size_t len);

/* Until the first call, functions that choose. */
static scan_fn *scanners[] = { token_first, value_first, uri_first };

static void set_scanners(scan_fn *token, scan_fn *value, scan_fn *uri)
{
    scanners[SCAN_TOKEN] = token;
    scanners[SCAN_FIELD_VALUE] = value;
    scanners[SCAN_URI] = uri;
}

void scan_use(enum scan_kind kind)
{
#ifdef WITH_X86
    __builtin_cpu_init();
    if (kind >= SCAN_AVX2 && __builtin_cpu_supports("avx2")) {
        set_scanners(token_avx2, value_avx2, uri_avx2);
        return;
    }
    if (kind >= SCAN_SSE42 && __builtin_cpu_supports("sse4.2")) {
        set_scanners(token_sse42, value_sse42, uri_sse42);
        return;
    }
#endif
    (void) kind;
    set_scanners(token_portable, value_portable, uri_portable);
}

void scan_force_portable(bool on)
{
    scan_use(on ? SCAN_PORTABLE : SCAN_BEST);
}

static size_t token_first(const char *ptr, size_t len)
{
    scan_use(SCAN_BEST);
    return scanners[SCAN_TOKEN](ptr, len);
}

static size_t value_first(const char *ptr, size_t len)
{
    scan_use(SCAN_BEST);
    return scanners[SCAN_FIELD_VALUE](ptr, len);
}

static size_t uri_first(const char *ptr, size_t len)
{
    scan_use(SCAN_BEST);
    return scanners[SCAN_URI](ptr, len);
}

size_t scan_span(enum scan_class c, const char *ptr, size_t len)
{
    return scanners[c](ptr, len);
}
