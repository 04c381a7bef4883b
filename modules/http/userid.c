/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * userid: gives each client a number in a cookie, as mod_uid did: four 32-bit words (service, time,
 * process, sequence) in base64. Version 1 has them in the machine's byte order, version 2 in the
 * network's.
 */
#include <sys/time.h>
#include <unistd.h>

#include "core/base/clock.h"
#include "core/base/fmt.h"
#include "core/http/answer.h"
#include "core/http/client.h"

/* configure: switch=http_userid_module default=on */

#define UID_TEXT 22              /* base64 digits of 16 bytes, without padding */
#define EXPIRES_MAX INT64_MAX
#define NO_SERVICE UINT64_MAX
#define SEQUENCE_V2 0x03030302u  /* lowest: no byte of it is 0 */
#define SEQUENCE_STEP 0x100u

static unsigned userid_slot;

/* Of this worker. */
static uint32_t start_value, sequence_v1 = 1, sequence_v2 = SEQUENCE_V2;

enum { USERID_OFF, USERID_LOG, USERID_V1, USERID_ON };

enum { FLAG_SECURE = 1, FLAG_HTTPONLY = 2, FLAG_SAMESITE = 4, FLAG_STRICT = 8, FLAG_LAX = 16,
       FLAG_NONE = 32, FLAG_OFF = 64 };

struct userid_conf {
    unsigned enable, flags;
    uint64_t service;      /* NO_SERVICE: the server's address */
    struct str name;
    struct str domain;     /* "; domain=example.com", or empty */
    struct str path;       /* "; path=/" */
    struct str p3p;
    int64_t expires_s;     /* 0: with the session */
    unsigned char mark;    /* 0: none */
    const struct var *reset; /* $uid_reset */
};

/* Of a request. The last word is 0 where there is no number. */
struct uid {
    uint32_t got[4], set[4];
    struct str cookie;
    bool reset;
};

/* The number that came ----------------------------------------------------------------------------- */

/* The whole field that the cookie stands in, for the log. */
static struct str cookie_line(const struct fields *fields, struct str cookie)
{
    for (const struct field *f = fields_get(fields, T_COOKIE); f; f = fields_next(fields, f)) {
        if (cookie.ptr >= f->value.ptr && cookie.ptr <= f->value.ptr + f->value.len)
            return f->value;
    }
    return cookie;
}

/* Only 22 digits are looked at: a mark or anything else may stand where the padding should. */
static void read_cookie(struct req *r, const struct userid_conf *conf, struct uid *uid)
{
    const struct fields *fields = &r->in->fields;
    struct str line, bytes;

    if (!cookie_get(fields, conf->name, &uid->cookie))
        return;
    line = cookie_line(fields, uid->cookie);
    if (uid->cookie.len < UID_TEXT) {
        log_error(&r->log, 0, "client sent too short userid cookie \"%.*s\"", STR_ARG(line));
        return;
    }
    if (fmt_base64_decode(r->arena, str_from(uid->cookie.ptr, UID_TEXT), false, &bytes) != 0) {
        log_error(&r->log, 0, "client sent invalid userid cookie \"%.*s\"", STR_ARG(line));
        return;
    }
    ASSERT(bytes.len == sizeof(uid->got));
    memcpy(uid->got, bytes.ptr, sizeof(uid->got));
}

static struct uid *uid_of(struct req *r, const struct userid_conf *conf)
{
    struct uid *uid = req_ctx(r, userid_slot);

    if (uid != NULL)
        return uid;
    uid = ARENA_NEW(r->arena, struct uid);
    req_ctx_set(r, userid_slot, uid, CTX_PASS);
    read_cookie(r, conf, uid);
    return uid;
}

/* The number that is set --------------------------------------------------------------------------- */

/* The last four bytes of the server's address, as they stand in memory. */
static uint32_t local_word(struct req *r)
{
    const struct addr *a = client_local(r->client);
    uint32_t word = 0;

    if (a->sa.sa_family == AF_INET)
        memcpy(&word, &a->in.sin_addr, sizeof(word));
    else if (a->sa.sa_family == AF_INET6)
        memcpy(&word, a->in6.sin6_addr.s6_addr + 12, sizeof(word));
    return word;
}

static void new_v1(const struct userid_conf *conf, uint32_t set[4])
{
    set[0] = conf->service == NO_SERVICE ? 0 : (uint32_t) conf->service;
    set[1] = (uint32_t) clock_time();
    set[2] = start_value;
    set[3] = sequence_v1;
    sequence_v1 += SEQUENCE_STEP;
}

static void new_v2(struct req *r, const struct userid_conf *conf, uint32_t set[4])
{
    set[0] = conf->service == NO_SERVICE ? local_word(r) : htonl((uint32_t) conf->service);
    set[1] = htonl((uint32_t) clock_time());
    set[2] = htonl(start_value);
    set[3] = htonl(sequence_v2);
    sequence_v2 += SEQUENCE_STEP;
    if (sequence_v2 < SEQUENCE_V2)
        sequence_v2 = SEQUENCE_V2;
}

/* The cookie lacks the mark: the same number is sent again, with it. */
static bool wants_mark(const struct userid_conf *conf, struct str cookie)
{
    return conf->mark != 0
           && !(cookie.len > UID_TEXT + 1 && (unsigned char) cookie.ptr[UID_TEXT] == conf->mark
                && cookie.ptr[UID_TEXT + 1] == '=');
}

/* Whether the configuration wants numbers that came to be forgotten ($uid_reset). */
static bool wants_reset(struct req *r, const struct userid_conf *conf, const struct uid *uid)
{
    struct str value = STR("");

    if (!var_value(&r->eval, conf->reset, &value) || value.len == 0 || str_eq(value, STR("0")))
        return false;
    if (str_eq(value, STR("log")))
        log_notice(&r->log, 0, "userid cookie \"%.*s=%08X%08X%08X%08X\" was reset",
                   STR_ARG(conf->name), uid->got[0], uid->got[1], uid->got[2], uid->got[3]);
    return true;
}

/* Decides what the client gets; uid->set[3] stays 0 if nothing. */
static void create(struct req *r, const struct userid_conf *conf, struct uid *uid)
{
    if (uid->set[3] != 0)
        return;
    if (uid->got[3] != 0 && !(uid->reset = wants_reset(r, conf, uid))) {
        if (wants_mark(conf, uid->cookie))
            memcpy(uid->set, uid->got, sizeof(uid->set));
        return;
    }
    if (conf->enable == USERID_V1)
        new_v1(conf, uid->set);
    else
        new_v2(r, conf, uid->set);
}

/* The filter --------------------------------------------------------------------------------------- */

static char *put_expires(char *p, int64_t expires_s)
{
    time_t when;
    struct tm tm;
    char text[64];
    size_t n;

    if (expires_s == 0)
        return p;
    if (expires_s == EXPIRES_MAX)
        return fmt_str(p, STR("; expires=Thu, 31-Dec-37 23:55:55 GMT"));
    when = clock_time() + expires_s;
    if (gmtime_r(&when, &tm) == NULL)
        return p;
    /* Two digits of the year, as old browsers had it, while they do. */
    n = strftime(text, sizeof(text),
                 tm.tm_year + 1900 > 2037 ? "; expires=%a, %d-%b-%Y %H:%M:%S GMT"
                                          : "; expires=%a, %d-%b-%y %H:%M:%S GMT",
                 &tm);
    return fmt_str(p, str_from(text, n));
}

static char *put_flags(char *p, unsigned flags)
{
    if (flags & FLAG_SECURE)
        p = fmt_str(p, STR("; secure"));
    if (flags & FLAG_HTTPONLY)
        p = fmt_str(p, STR("; httponly"));
    if (flags & FLAG_STRICT)
        p = fmt_str(p, STR("; samesite=strict"));
    if (flags & FLAG_LAX)
        p = fmt_str(p, STR("; samesite=lax"));
    if (flags & FLAG_NONE)
        p = fmt_str(p, STR("; samesite=none"));
    return p;
}

static struct str cookie_text(struct req *r, const struct userid_conf *conf, const struct uid *uid)
{
    struct str digits;
    char *start = arena_bytes(r->arena, conf->name.len + conf->domain.len + conf->path.len + 256);
    char *p = fmt_str(start, conf->name);

    *p++ = '=';
    if (uid->got[3] == 0 || uid->reset) {
        digits = fmt_base64(r->arena, str_from((const char *) uid->set, sizeof(uid->set)), false);
        p = fmt_str(p, digits);
        if (conf->mark != 0)
            p[-2] = (char) conf->mark;
    } else {
        p = fmt_str(p, str_from(uid->cookie.ptr, UID_TEXT));
        *p++ = (char) conf->mark;
        *p++ = '=';
    }
    p = put_expires(p, conf->expires_s);
    p = fmt_str(p, conf->domain);
    p = fmt_str(p, conf->path);
    p = put_flags(p, conf->flags);
    return str_from(start, (size_t) (p - start));
}

static enum head_verdict userid_head(struct req *r, void **ctx)
{
    const struct userid_conf *conf = req_loc_conf(r, userid_slot);
    struct uid *uid;

    (void) ctx;
    if (r != r->main || conf->enable < USERID_V1)
        return HEAD_PASS;
    uid = uid_of(r, conf);
    create(r, conf, uid);
    if (uid->set[3] == 0)
        return HEAD_PASS;
    fields_add_token(&r->out, &r->out.fields, T_SET_COOKIE, cookie_text(r, conf, uid));
    if (conf->p3p.len > 0)
        fields_add(&r->out, &r->out.fields, STR("P3P"), conf->p3p);
    return HEAD_PASS;
}

static bool userid_wanted(const struct level *level)
{
    const struct userid_conf *conf = level_conf(level, STORE_LOC, userid_slot);

    return conf->enable >= USERID_V1;
}

/* Variables ---------------------------------------------------------------------------------------- */

static bool is_uid(struct req *r, struct str *out, struct str name, const uint32_t uid[4])
{
    if (uid[3] == 0)
        return false;
    *out = str_printf(r->arena, "%.*s=%08X%08X%08X%08X", STR_ARG(name), uid[0], uid[1], uid[2],
                      uid[3]);
    return true;
}

static bool get_got(struct eval *e, const struct var *v, struct str *out)
{
    struct req *r = req_of(e);
    const struct userid_conf *conf = req_loc_conf(r, userid_slot);

    (void) v;
    return conf->enable != USERID_OFF && is_uid(r, out, conf->name, uid_of(r->main, conf)->got);
}

static bool get_set(struct eval *e, const struct var *v, struct str *out)
{
    struct req *r = req_of(e);
    const struct userid_conf *conf = req_loc_conf(r, userid_slot);
    struct uid *uid;

    (void) v;
    if (conf->enable < USERID_V1)
        return false;
    uid = uid_of(r->main, conf);
    create(r->main, conf, uid);
    return is_uid(r, out, conf->name, uid->set);
}

/* Empty, until `set` or a map says something. */
static bool get_reset(struct eval *e, const struct var *v, struct str *out)
{
    (void) e;
    (void) v;
    *out = STR("");
    return true;
}

static const struct var_row variables[] = {
    { "uid_got", get_got, NULL, 0, 0 },
    { "uid_set", get_set, NULL, 0, 0 },
    { "uid_reset", get_reset, NULL, 0, VAR_CHANGEABLE },
    { NULL, NULL, NULL, 0, 0 },
};

/* Configuration ------------------------------------------------------------------------------------ */

static const struct conf_enum enable_names[] = {
    { "off", USERID_OFF }, { "log", USERID_LOG }, { "v1", USERID_V1 }, { "on", USERID_ON },
    { NULL, 0 }
};

static const struct conf_enum flag_names[] = {
    { "off", FLAG_OFF },
    { "secure", FLAG_SECURE },
    { "httponly", FLAG_HTTPONLY },
    { "samesite=strict", FLAG_SAMESITE | FLAG_STRICT },
    { "samesite=lax", FLAG_SAMESITE | FLAG_LAX },
    { "samesite=none", FLAG_SAMESITE | FLAG_NONE },
    { NULL, 0 }
};

/* Numbers that are set can be reset: the variable gets its index here. */
static const char *set_userid(struct conf *cf, void *field)
{
    struct userid_conf *conf = container_of(field, struct userid_conf, enable);

    const char *error = conf_set_enum(cf, field);

    if (conf->enable >= USERID_V1)
        conf->reset = var_refer(cf, conf_var_space(cf), STR("uid_reset"));
    return error;
}

/* One samesite counts, the first; a flag may be there once. */
static const char *set_flags(struct conf *cf, void *field)
{
    unsigned *flags = field;

    for (unsigned i = 1; i < cf->nargs; i++) {
        const struct conf_enum *e = flag_names;

        while (e->name != NULL && !str_eq(cf->args[i], str_cstr(e->name)))
            e++;
        if (e->name == NULL)
            return conf_error_arg(cf, i, "invalid value \"%s\"", cf->args[i].ptr);
        if (*flags & e->value)
            conf_warn_at(cf, cf->arg_pos[i], "duplicate value \"%s\"", e->name);
        else
            *flags |= e->value;
    }
    return NULL;
}

static const char *set_domain(struct conf *cf, void *field)
{
    *(struct str *) field = STR("");
    if (!str_eq(cf->args[1], STR("none")))
        *(struct str *) field = str_printf(cf->arena, "; domain=%s", cf->args[1].ptr);
    return NULL;
}

static const char *set_path(struct conf *cf, void *field)
{
    *(struct str *) field = str_printf(cf->arena, "; path=%s", cf->args[1].ptr);
    return NULL;
}

static const char *set_p3p(struct conf *cf, void *field)
{
    *(struct str *) field = str_eq(cf->args[1], STR("none")) ? STR("") : cf->args[1];
    return NULL;
}

static const char *set_expires(struct conf *cf, void *field)
{
    int64_t *expires_s = field;
    uint64_t ms;

    if (str_eq(cf->args[1], STR("max")))
        *expires_s = EXPIRES_MAX;
    else if (str_eq(cf->args[1], STR("off")))
        *expires_s = 0;
    else if (str_to_ms(cf->args[1], true, &ms) != 0 || ms / 1000 > INT32_MAX)
        return conf_error_arg(cf, 1, "\"userid_expires\" directive invalid value");
    else
        *expires_s = (int64_t) (ms / 1000);
    return NULL;
}

static const char *set_mark(struct conf *cf, void *field)
{
    struct str text = cf->args[1];
    unsigned char c = text.len == 1 ? (unsigned char) text.ptr[0] : 0, lower = ascii_lower(c);

    if (str_eq(text, STR("off")))
        c = 0;
    else if (!(lower >= 'a' && lower <= 'z') && !(c >= '0' && c <= '9') && c != '=')
        return conf_error_arg(cf, 1, "\"userid_mark\" directive value must be \"off\" or a single "
                                     "letter, digit or \"=\"");
    *(unsigned char *) field = c;
    return NULL;
}

static const char *set_service(struct conf *cf, void *field)
{
    uint64_t n;

    /* The default, which is no number. */
    if (str_eq(cf->args[1], STR("address")))
        return *(uint64_t *) field = NO_SERVICE, NULL;
    if (str_to_u64(cf->args[1], &n) != 0 || n > INT64_MAX)
        return conf_error_arg(cf, 1, "\"userid_service\" directive invalid number");
    *(uint64_t *) field = (uint32_t) n;
    return NULL;
}

static int userid_worker_start(const struct config *config)
{
    struct timeval now;

    (void) config;
    gettimeofday(&now, NULL);
    start_value = (uint32_t) (now.tv_usec / 20) << 16 | (uint32_t) getpid();
    return 0;
}

#define USERID_ROW(name_, args_, set_, member_, def_, syntax_, doc_, ...) \
    ROW(name_, CTX_HSL, args_, set_, STORE_LOC, struct userid_conf, member_, INHERIT_SCALAR, def_, \
        syntax_, doc_, __VA_ARGS__)

static const struct directive directives[] = {
    USERID_ROW("userid", ARGS1, set_userid, enable, "off", "on | v1 | log | off",
               "Gives clients a number in a cookie, or only logs what they send.",
               .extra = enable_names, .group = 1),
    /* Written by the same setter: it travels along. */
    { .name = ".reset", .store = STORE_LOC, .offset = offsetof(struct userid_conf, reset),
      .size = sizeof(struct var *), .inherit = INHERIT_SCALAR, .group = 1 },
    USERID_ROW("userid_service", ARGS1, set_service, service, "address",
               "number | address",
               "Which server gave the number; its address by default."),
    USERID_ROW("userid_name", ARGS1, conf_set_str, name, "uid", "name", "Name of the cookie."),
    USERID_ROW("userid_domain", ARGS1, set_domain, domain, "none", "name | none",
               "Domain of the cookie."),
    USERID_ROW("userid_path", ARGS1, set_path, path, "/", "path", "Path of the cookie."),
    USERID_ROW("userid_expires", ARGS1, set_expires, expires_s, "off", "time | max | off",
               "How long the browser keeps the cookie; off: until it is closed."),
    USERID_ROW("userid_flags", ARGS123, set_flags, flags, "off", "off | flag ...",
               "Attributes of the cookie: secure, httponly, samesite=strict, lax or none."),
    USERID_ROW("userid_p3p", ARGS1, set_p3p, p3p, "none", "string | none",
               "P3P field that goes with the cookie."),
    USERID_ROW("userid_mark", ARGS1, set_mark, mark, "off", "letter | digit | = | off",
               "Mark in the cookie's padding; one without it is sent anew with the same number."),
    ROW_END,
};

static const struct filter filters[] = {
    { .rank = FILTER_USERID, .head = userid_head, .wanted = userid_wanted },
    FILTER_END,
};

static const struct http_module http_userid = { .variables = variables, .filters = filters };

const struct module module_http_userid = {
    .name = "http_userid",
    .slot = &userid_slot,
    .conf_size = { [STORE_LOC] = sizeof(struct userid_conf) },
    .directives = directives,
    .http = &http_userid,
    .worker_start = userid_worker_start,
};
