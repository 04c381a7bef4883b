/* SPDX-License-Identifier: BSD-2-Clause */
/* HPACK: the examples of RFC 7541, appendix C; what is no HPACK; and whatever is encoded, decoded again. */
#include "core/base/chain.h"
#include "core/http/hpack.h"
#include "t/unit/tap.h"

static struct arena *arena;
static char got[200000];
static size_t got_len;

static void take(void *data, const struct hpack_field *f)
{
    int n = snprintf(got + got_len, sizeof(got) - got_len, "%.*s: %.*s%s\n", STR_ARG(f->name),
                     STR_ARG(f->value), f->never_indexed ? " (never)" : "");

    (void) data;
    got_len += (size_t) n;
}

static struct str from_hex(const char *hex)
{
    char *p = arena_bytes(arena, strlen(hex) / 2 + 1), *q = p;
    unsigned byte;

    for (; *hex != '\0'; hex += 2) {
        while (*hex == ' ')
            hex++;
        if (sscanf(hex, "%2x", &byte) != 1)
            break;
        *q++ = (char) byte;
    }
    /* Behind the end nobody may read. */
    char *exact = mem_alloc((size_t) (q - p) + 1);
    memcpy(exact, p, (size_t) (q - p));
    arena_defer(arena, free, exact);
    return str_from(exact, (size_t) (q - p));
}

static enum hpack_result decode(struct hpack_decoder *d, struct str block, size_t max)
{
    got_len = 0;
    got[0] = '\0';
    return hpack_decode(d, arena, block, max, take, NULL);
}

/* The table as the RFC shows it, the newest first. */
static const char *shown(const struct hpack_table *t)
{
    static char text[4000];
    size_t n = 0;

    text[0] = '\0';
    for (unsigned age = 0; age < t->count; age++) {
        struct hpack_field f = hpack_table_get(t, age);

        n += (size_t) snprintf(text + n, sizeof(text) - n, "%.*s: %.*s\n", STR_ARG(f.name),
                               STR_ARG(f.value));
    }
    snprintf(text + n, sizeof(text) - n, "%zu", t->size);
    return text;
}

/* Appendix C --------------------------------------------------------------------------------- */

struct example {
    const char *name, *hex, *list, *table;
    const char
        *ours; /* where that is another block: we leave a string plain that would not be shorter */
};

static const char first[] = ":method: GET\n:scheme: http\n:path: /\n:authority: www.example.com\n";
static const char second[] = ":method: GET\n:scheme: http\n:path: /\n:authority: www.example.com\n"
                             "cache-control: no-cache\n";
static const char third[] = ":method: GET\n:scheme: https\n:path: /index.html\n"
                            ":authority: www.example.com\ncustom-key: custom-value\n";
#define DATE "Mon, 21 Oct 2013 20:13:21 GMT"
#define DATE2 "Mon, 21 Oct 2013 20:13:22 GMT"
#define COOKIE "foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1"
static const char answer1[] =
    ":status: 302\ncache-control: private\ndate: " DATE "\nlocation: https://www.example.com\n";
static const char answer2[] =
    ":status: 307\ncache-control: private\ndate: " DATE "\nlocation: https://www.example.com\n";
static const char answer3[] = ":status: 200\ncache-control: private\ndate: " DATE2
                              "\nlocation: https://www.example.com\ncontent-encoding: gzip\n"
                              "set-cookie: " COOKIE "\n";
static const char table1[] = ":authority: www.example.com\n57";
static const char table2[] = "cache-control: no-cache\n:authority: www.example.com\n110";
static const char table3[] =
    "custom-key: custom-value\ncache-control: no-cache\n:authority: www.example.com\n164";
static const char table4[] =
    "location: https://www.example.com\ndate: " DATE "\ncache-control: private\n:status: 302\n222";
static const char table5[] =
    ":status: 307\nlocation: https://www.example.com\ndate: " DATE "\ncache-control: private\n222";
static const char table6[] = "set-cookie: " COOKIE "\ncontent-encoding: gzip\ndate: " DATE2 "\n215";

static const struct example alone[] = {
    { "C.2.1", "400a637573746f6d2d6b65790d637573746f6d2d686561646572",
      "custom-key: custom-header\n", "custom-key: custom-header\n55", NULL },
    { "C.2.2", "040c2f73616d706c652f70617468", ":path: /sample/path\n", "0", NULL },
    { "C.2.3", "100870617373776f726406736563726574", "password: secret (never)\n", "0", NULL },
    { "C.2.4", "82", ":method: GET\n", "0", NULL },
};
static const struct example plain_requests[] = {
    { "C.3.1", "828684410f7777772e6578616d706c652e636f6d", first, table1, NULL },
    { "C.3.2", "828684be58086e6f2d6361636865", second, table2, NULL },
    { "C.3.3", "828785bf400a637573746f6d2d6b65790c637573746f6d2d76616c7565", third, table3, NULL },
};
static const struct example coded_requests[] = {
    { "C.4.1", "828684418cf1e3c2e5f23a6ba0ab90f4ff", first, table1, NULL },
    { "C.4.2", "828684be5886a8eb10649cbf", second, table2, NULL },
    { "C.4.3", "828785bf408825a849e95ba97d7f8925a849e95bb8e8b4bf", third, table3, NULL },
};
static const struct example plain_answers[] = {
    { "C.5.1",
      "4803333032580770726976617465611d4d6f6e2c203231204f637420323031332032303a31333a323120474d54"
      "6e1768747470733a2f2f7777772e6578616d706c652e636f6d",
      answer1, table4, NULL },
    { "C.5.2", "4803333037c1c0bf", answer2, table5, NULL },
    { "C.5.3",
      "88c1611d4d6f6e2c203231204f637420323031332032303a31333a323220474d54c05a04677a69707738666f6f"
      "3d4153444a4b48514b425a584f5157454f50495541585157454f49553b206d61782d6167653d333630303b2076"
      "657273696f6e3d31",
      answer3, table6, NULL },
};
static const struct example coded_answers[] = {
    { "C.6.1",
      "488264025885aec3771a4b6196d07abe941054d444a8200595040b8166e082a62d1bff6e919d29ad171863c78f"
      "0b97c8e9ae82ae43d3",
      answer1, table4, NULL },
    { "C.6.2", "4883640effc1c0bf", answer2, table5, "4803333037c1c0bf" },
    { "C.6.3",
      "88c16196d07abe941054d444a8200595040b8166e084a62d1bffc05a839bd9ab77ad94e7821dd7f2e6c7b335df"
      "dfcd5b3960d5af27087f3672c1ab270fb5291f9587316065c003ed4ee5b1063d5007",
      answer3, table6, NULL },
};

/* Encodes a list as `take` writes it: the examples are what comes of it. */
static struct str encode(struct hpack_encoder *e, const char *list)
{
    char *buf = arena_bytes(arena, 2 * strlen(list) + 2000);
    char *p = hpack_encode_begin(e, buf);

    while (*list != '\0') {
        const char *colon = strstr(list + 1, ": "), *end = strchr(list, '\n');

        p = hpack_encode(e, p, str_from(list, (size_t) (colon - list)),
                         str_from(colon + 2, (size_t) (end - colon - 2)), HPACK_INDEX);
        list = end + 1;
    }
    return str_from(buf, (size_t) (p - buf));
}

static void run(const struct example *all, size_t count, size_t max, bool ours)
{
    struct hpack_decoder d;
    struct hpack_encoder e;

    hpack_decoder_init(&d);
    hpack_encoder_init(&e, 4096);
    hpack_decoder_limit(&d, 4096);
    hpack_table_resize(&d.table, max);
    hpack_table_resize(&e.table, max);
    for (size_t i = 0; i < count; i++) {
        struct str block = from_hex(all[i].hex);

        is_int(decode(&d, block, 10000), HPACK_OK, "%s", all[i].name);
        is_str(got, all[i].list, "%s: list", all[i].name);
        is_str(shown(&d.table), all[i].table, "%s: table", all[i].name);
        if (ours) {
            struct str out = encode(&e, all[i].list);

            block = all[i].ours != NULL ? from_hex(all[i].ours) : block;
            is_bytes(out.ptr, out.len, block.ptr, block.len, "%s: encoded", all[i].name);
            is_str(shown(&e.table), all[i].table, "%s: the encoder's table", all[i].name);
        }
    }
    hpack_decoder_free(&d);
    hpack_encoder_free(&e);
}

static void test_examples(void)
{
    for (size_t i = 0; i < ARRAY_LEN(alone); i++)
        run(&alone[i], 1, 4096, false);
    run(plain_requests, 3, 4096, false);
    run(coded_requests, 3, 4096, true);
    run(plain_answers, 3, 256, false);
    run(coded_answers, 3, 256, true);
}

/* Integers: C.1, and the edges. */
static void test_integers(void)
{
    static const struct {
        unsigned prefix;
        uint32_t value;
        const char *hex;
    } good[] = {
        { 5, 10, "0a" },      { 5, 1337, "1f9a0a" },
        { 8, 42, "2a" },      { 5, 30, "1e" },
        { 5, 31, "1f00" },    { 7, 126, "7e" },
        { 7, 127, "7f00" },   { 7, 254, "7f7f" },
        { 7, 255, "7f8001" }, { 8, HPACK_INT_MAX, "ff80feff7f" },
    };
    static const char *const bad[] = {
        "", "1f", "1f80", "1f8080808000", "1fffffffff7f", "1fffffff7f", "1fffffffffffffffffff7f"
    };

    for (size_t i = 0; i < ARRAY_LEN(good); i++) {
        struct str in = from_hex(good[i].hex);
        const char *p = in.ptr;
        uint32_t value = 0;
        char buf[8], *end = hpack_write_int(buf, 0, good[i].prefix, good[i].value);

        ok(hpack_read_int(&p, in.ptr + in.len, good[i].prefix, &value) && value == good[i].value &&
               p == in.ptr + in.len,
           "%s is %u", good[i].hex, good[i].value);
        is_bytes(buf, (size_t) (end - buf), in.ptr, in.len, "%u is %s", good[i].value, good[i].hex);
    }
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        struct str in = from_hex(bad[i]);
        const char *p = in.ptr;
        uint32_t value;

        ok(!hpack_read_int(&p, in.ptr + in.len, 5, &value), "\"%s\" is no integer", bad[i]);
    }
}

/* Errors ------------------------------------------------------------------------------------- */

static void test_errors(void)
{
    static const struct {
        const char *hex, *why;
    } bad[] = {
        { "80", "index 0" },
        { "be", "an index behind the static table, while the other one is empty" },
        { "ff", "an index that is cut" },
        { "ffffffffff7f", "an index that is far too large" },
        { "7e0161", "a name's index that nothing is at" },
        { "4001", "a name that is cut" },
        { "400161", "no value" },
        { "40016105", "a value that is cut" },
        { "4001617fffffffff7f61", "a length that is far too large" },
        { "3fe21f", "a table of 4097 bytes" },
        { "823e", "a table size behind a field" },
        { "3f", "a table size that is cut" },
        { "40016184ffffffff", "EOS in a value" },
        { "400161811f", "padding of zeros: \"a\" and 000" },
        { "40016182 1fff", "padding of more than 7 bits" },
        { "4001618118", "padding that is not of ones" },
        { "40016181fe", "a code that is cut" },
    };

    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        struct hpack_decoder d;

        hpack_decoder_init(&d);
        is_int(decode(&d, from_hex(bad[i].hex), 10000), i == 13 ? HPACK_OK : HPACK_ERROR, "%s",
               bad[i].why);
        ok(i == 13 || d.why != NULL, "%s: why", bad[i].why);
        hpack_decoder_free(&d);
    }
}

static void test_limits(void)
{
    struct hpack_decoder d;

    hpack_decoder_init(&d);
    is_int(decode(&d, from_hex("8286"), 42 + 43), HPACK_OK, "a list of the largest size");
    is_int(decode(&d, from_hex("8286"), 42 + 42), HPACK_TOO_LARGE, "and one byte more");
    is_str(got, ":method: GET\n", "what fits is there");
    is_int(decode(&d, from_hex("4001610162 82"), 33), HPACK_TOO_LARGE, "too large at once");
    is_str(got, "", "nothing comes behind what was too large");
    is_str(shown(&d.table), "a: b\n34", "but the table is as the encoder has it");
    is_int(decode(&d, from_hex("be"), 100), HPACK_OK, "and is used");
    is_str(got, "a: b\n", "rightly");
    /* sizes */
    is_int(decode(&d, from_hex("20"), 100), HPACK_OK, "a table of no size");
    is_str(shown(&d.table), "0", "is empty");
    is_int(decode(&d, from_hex("4001610162"), 100), HPACK_OK, "an entry that does not fit");
    is_str(shown(&d.table), "0", "is not there");
    is_int(decode(&d, from_hex("20 3fe11f 82"), 100), HPACK_OK, "two sizes at the beginning");
    is_uint(d.table.max, 4096, "the last one counts");
    hpack_decoder_limit(&d, 100);
    is_int(decode(&d, from_hex("82"), 100), HPACK_ERROR, "a smaller limit has to be confirmed");
    is_int(decode(&d, from_hex("3f46 82"), 100), HPACK_ERROR, "by what is within it");
    is_int(decode(&d, from_hex("3f45 82"), 100), HPACK_OK, "as this is");
    is_int(decode(&d, from_hex("82"), 100), HPACK_OK, "once");
    hpack_decoder_limit(&d, 0);
    hpack_decoder_limit(&d, 100);
    is_int(decode(&d, from_hex("3f45 82"), 100), HPACK_ERROR, "the least limit in between too");
    is_int(decode(&d, from_hex("20 3f46 82"), 100), HPACK_ERROR, "and then the last one");
    is_int(decode(&d, from_hex("3f45 20 82"), 100), HPACK_OK, "which counts again");
    hpack_decoder_limit(&d, 4096);
    is_int(decode(&d, from_hex("82"), 100), HPACK_OK, "a larger one need not be taken");
    is_uint(d.table.max, 0, "and is not");
    hpack_decoder_free(&d);
}

static void test_encoder_sizes(void)
{
    struct hpack_encoder e;
    char buf[HPACK_BEGIN_MAX];

    hpack_encoder_init(&e, 4096);
    is_int(hpack_encode_begin(&e, buf) - buf, 0, "nothing is said of the default");
    hpack_encoder_limit(&e, 65536);
    is_int(hpack_encode_begin(&e, buf) - buf, 0, "nor where more is allowed than is wanted");
    hpack_encoder_limit(&e, 100);
    is_bytes(buf, (size_t) (hpack_encode_begin(&e, buf) - buf), "\x3f\x45", 2, "less");
    is_int(hpack_encode_begin(&e, buf) - buf, 0, "once");
    hpack_encoder_limit(&e, 0);
    hpack_encoder_limit(&e, 200);
    is_bytes(buf, (size_t) (hpack_encode_begin(&e, buf) - buf), "\x20\x3f\xa9\x01", 4,
             "the least size in between is said");
    hpack_encoder_free(&e);
    hpack_encoder_init(&e, 0);
    is_bytes(buf, (size_t) (hpack_encode_begin(&e, buf) - buf), "\x20", 1, "no table at all");
    hpack_encoder_free(&e);
}

static void test_how(void)
{
    struct hpack_encoder e;
    struct hpack_decoder d;
    char buf[100], *p;

    hpack_encoder_init(&e, 4096);
    hpack_decoder_init(&d);
    p = hpack_encode(&e, buf, STR("x"), STR("!"), HPACK_PLAIN);
    p = hpack_encode(&e, p, STR("authorization"), STR("!"), HPACK_NEVER);
    p = hpack_encode(&e, p, STR(":method"), STR("GET"), HPACK_NEVER);
    p = hpack_encode(&e, p, STR(":method"), STR("GET"), HPACK_PLAIN);
    is_int(decode(&d, str_from(buf, (size_t) (p - buf)), 1000), HPACK_OK, "ways of encoding");
    is_str(got, "x: !\nauthorization: ! (never)\n:method: GET (never)\n:method: GET\n",
           "as wanted");
    is_str(shown(&e.table), "0", "none of which enters the table");
    is_str(shown(&d.table), "0", "on either side");
    hpack_encoder_free(&e);
    hpack_decoder_free(&d);
}

/* There and back ----------------------------------------------------------------------------- */

static uint64_t state = 1;

static unsigned any(unsigned n)
{
    state = state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (unsigned) (state >> 33) % n;
}

static void test_huffman(void)
{
    char plain[300], coded[1300], back[2100];

    for (unsigned n = 0; n < 3000; n++) {
        size_t len = any(sizeof(plain));
        unsigned kind = any(3);
        struct str s;
        char *end;

        for (size_t i = 0; i < len; i++)
            plain[i] = (char) (kind == 0 ? any(256) : kind == 1 ? 'a' + any(26) : n);
        s = str_from(plain, len);
        end = hpack_huffman_encode(coded, s);
        if ((size_t) (end - coded) != hpack_huffman_len(s)) {
            ok(false, "another length than was said");
            return;
        }
        s = str_from(coded, (size_t) (end - coded));
        end = hpack_huffman_decode(back, s);
        if (end == NULL || (size_t) (end - back) != len || memcmp(back, plain, len) != 0 ||
            len > hpack_huffman_room(s.len)) {
            ok(false, "string %u of %zu bytes", n, len);
            return;
        }
    }
    ok(true, "strings come back from Huffman's code");
}

/* A block of random fields, out of few names and values, so that there is much to be found and thrown out. */
static bool round_trip(struct hpack_encoder *e, struct hpack_decoder *d)
{
    struct arena *own = arena_new(), *saved = arena;
    char *block = arena_bytes(own, 100000), *p;
    static char expected[sizeof(got)];
    size_t n = 0;
    bool fine;

    arena = own;
    if (any(10) == 0) {
        size_t limit = any(3) == 0 ? 0 : any(600);

        hpack_encoder_limit(e, limit);
        hpack_decoder_limit(d, limit);
    }
    p = hpack_encode_begin(e, block);
    for (unsigned i = any(12); i > 0; i--) {
        static char name[2000], value[2000];
        unsigned how = any(4), name_len, value_len;

        name_len = (unsigned) snprintf(name, sizeof(name), "%.*s%u", (int) any(40),
                                       "a-name-that-is-rather-long-in-the-end-xy", any(8));
        value_len = (unsigned) snprintf(value, sizeof(value), "%0*u", (int) any(90) + 1, any(6));
        if (how == 3) /* a name of the static table */
            name_len = (unsigned) snprintf(name, sizeof(name), "cookie");
        p = hpack_encode(e, p, str_from(name, name_len), str_from(value, value_len),
                         how == 3 ? HPACK_INDEX : (enum hpack_how) how);
        n += (size_t) snprintf(expected + n, sizeof(expected) - n, "%.*s: %.*s%s\n", (int) name_len,
                               name, (int) value_len, value, how == HPACK_NEVER ? " (never)" : "");
    }
    expected[n] = '\0';
    fine = decode(d, str_from(block, (size_t) (p - block)), 1000000) == HPACK_OK &&
           strcmp(got, expected) == 0 && e->table.size == d->table.size &&
           e->table.count == d->table.count && e->table.size <= e->table.max;
    arena = saved;
    arena_destroy(own);
    return fine;
}

static void test_round_trips(void)
{
    struct hpack_encoder e;
    struct hpack_decoder d;
    unsigned n = 0;

    hpack_encoder_init(&e, 8192);
    hpack_decoder_init(&d);
    while (n < 5000 && round_trip(&e, &d))
        n++;
    is_uint(n, 5000, "blocks come back, whatever the table throws out");
    ok(e.table.room <= 2 * 8192 + 512, "and do not take more memory than they may");
    hpack_encoder_free(&e);
    hpack_decoder_free(&d);
}

int main(void)
{
    arena = arena_new();
    test_integers();
    test_examples();
    test_errors();
    test_limits();
    test_encoder_sizes();
    test_how();
    test_huffman();
    test_round_trips();
    arena_destroy(arena);
    arena_trim();
    block_trim();
    return done_testing();
}
