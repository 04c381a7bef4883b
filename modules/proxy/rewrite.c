/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Fields of an answer that are changed on their way: Location and Refresh by proxy_redirect,
 * Set-Cookie by proxy_cookie_domain, proxy_cookie_path and proxy_cookie_flags. Setters for these
 * directives, and the field hook of the backend.
 */
#include "core/base/fmt.h"
#include "modules/proxy/proxy.h"

/* Setters ------------------------------------------------------------------------------------- */

/* "~pattern", "~*pattern" or a string with variables. */
static const char *set_from(struct conf *cf, unsigned arg, bool caseless, struct proxy_rewrite *rw)
{
    struct str text = cf->args[arg];
    const char *sentence = NULL;

    if (text.len == 0 || text.ptr[0] != '~') {
        rw->from = expr_compile(cf, text, 0, &sentence);
        return rw->from == NULL ? sentence : NULL;
    }
    text = str_skip(text, 1);
    if (text.len > 0 && text.ptr[0] == '*') {
        text = str_skip(text, 1);
        caseless = true;
    }
    if (text.len == 0)
        return conf_error_arg(cf, arg, "empty regex");
    return http_regex(cf, arg, text, caseless, &rw->regex, &rw->captures);
}

static const char *add_rewrite(struct conf *cf, struct proxy_rewrites *list,
                               const struct proxy_rewrite *rw)
{
    list->items = arena_grow(cf->arena, list->items, list->count, &list->capacity,
                             sizeof(*list->items));
    list->items[list->count++] = *rw;
    return NULL;
}

static const char *duplicate(struct conf *cf)
{
    return conf_error(cf, "\"%s\" directive is duplicate", cf->args[0].ptr);
}

static const char *set_rewrite(struct conf *cf, struct proxy_rewrites *list, bool caseless)
{
    struct proxy_rewrite rw = { 0 };
    const char *error;

    if (list->off)
        return duplicate(cf);
    if (cf->nargs == 2 && str_eq(cf->args[1], STR("off"))) {
        if (list->count > 0)
            return duplicate(cf);
        list->off = true;
        return NULL;
    }
    if (cf->nargs != 3)
        return conf_error_arg(cf, 1, "invalid parameter \"%s\"", cf->args[1].ptr);
    error = set_from(cf, 1, caseless, &rw);
    if (error != NULL)
        return error;
    rw.to = expr_compile(cf, cf->args[2], 0, &error);
    return rw.to == NULL ? error : add_rewrite(cf, list, &rw);
}

const char *proxy_set_redirect(struct conf *cf, void *field)
{
    struct proxy_rewrite rw = { .is_default = true };

    if (cf->nargs == 2 && str_eq(cf->args[1], STR("default"))) {
        if (container_of(field, struct proxy_loc, redirects)->pass == NULL)
            return "\"proxy_redirect default\" should be placed after the \"proxy_pass\" directive";
        return add_rewrite(cf, field, &rw);
    }
    return set_rewrite(cf, field, false);
}

const char *proxy_set_cookie_domain(struct conf *cf, void *field)
{
    return set_rewrite(cf, field, true);
}

const char *proxy_set_cookie_path(struct conf *cf, void *field)
{
    return set_rewrite(cf, field, false);
}

static const struct {
    struct str name;
    unsigned bit;
} cookie_flag_names[] = {
    { STR_INIT("secure"), COOKIE_SECURE },
    { STR_INIT("httponly"), COOKIE_HTTPONLY },
    { STR_INIT("samesite=strict"), COOKIE_STRICT },
    { STR_INIT("samesite=lax"), COOKIE_LAX },
    { STR_INIT("samesite=none"), COOKIE_NONE },
    { STR_INIT("nosecure"), COOKIE_NO_SECURE },
    { STR_INIT("nohttponly"), COOKIE_NO_HTTPONLY },
    { STR_INIT("nosamesite"), COOKIE_NO_SAMESITE },
};

static unsigned cookie_flag(struct str text)
{
    for (unsigned i = 0; i < ARRAY_LEN(cookie_flag_names); i++) {
        if (str_caseeq(cookie_flag_names[i].name, text))
            return cookie_flag_names[i].bit;
    }
    return 0;
}

const char *proxy_set_cookie_flags(struct conf *cf, void *field)
{
    struct proxy_cookie_flags *list = field;
    struct proxy_cookie_flag flag = { 0 };
    struct proxy_rewrite rw = { 0 };
    const char *error;
    struct str literal;

    if (list->off)
        return duplicate(cf);
    if (cf->nargs == 2 && str_eq(cf->args[1], STR("off"))) {
        list->off = true;
        return list->count > 0 ? duplicate(cf) : NULL;
    }
    if (cf->nargs == 2)
        return conf_error_arg(cf, 1, "invalid parameter \"%s\"", cf->args[1].ptr);
    if (str_eq(cf->args[1], STR("~"))) {
        flag.name = NULL; /* every cookie */
    } else {
        error = set_from(cf, 1, true, &rw);
        if (error != NULL)
            return error;
        flag.name = rw.from;
        flag.regex = rw.regex;
    }
    for (unsigned i = 2; i < cf->nargs; i++) {
        struct expr *x = expr_compile(cf, cf->args[i], 0, &error);

        if (x == NULL)
            return error;
        if (expr_is_literal(x, &literal) && cookie_flag(literal) == 0)
            return conf_error_arg(cf, i, "unknown flag \"%s\"", cf->args[i].ptr);
        flag.flags.items = arena_grow(cf->arena, flag.flags.items, flag.flags.count,
                                      &flag.flags.capacity, sizeof(*flag.flags.items));
        flag.flags.items[flag.flags.count++] = x;
    }
    list->items = arena_grow(cf->arena, list->items, list->count, &list->capacity,
                             sizeof(*list->items));
    list->items[list->count++] = flag;
    return NULL;
}

/* The default for this location's proxy_pass. */
static struct proxy_rewrite default_redirect(struct arena *arena, const struct proxy_pass *pass)
{
    struct proxy_rewrite rw = { .is_default = true };
    bool has_uri = pass->uri.len > 0;

    rw.from = expr_literal(arena, str_printf(arena, "%.*s%.*s", STR_ARG(pass->text),
                                             STR_ARG(has_uri ? pass->uri : STR("/"))));
    rw.to = expr_literal(arena, has_uri ? pass->location : STR("/"));
    return rw;
}

int proxy_finish_redirects(struct conf *cf, struct level *level, struct proxy_loc *p)
{
    struct proxy_rewrites *out = ARENA_NEW(cf->arena, struct proxy_rewrites);
    struct proxy_rewrite rw;

    p->redirect = out;
    if (p->pass == NULL || p->redirects.off)
        return 0;
    if (p->redirects.count == 0 && p->pass->url == NULL) {
        rw = default_redirect(cf->arena, p->pass);
        add_rewrite(cf, out, &rw);
    }
    for (unsigned i = 0; i < p->redirects.count; i++) {
        rw = p->redirects.items[i];
        if (rw.is_default && p->pass->url != NULL) {
            conf_error_at(cf, level->pos,
                          "\"proxy_redirect default\" cannot be used with \"proxy_pass\" directive "
                          "with variables");
            return -1;
        }
        if (rw.is_default)
            rw = default_redirect(cf->arena, p->pass);
        add_rewrite(cf, out, &rw);
    }
    return 0;
}

/* Rewriting ----------------------------------------------------------------------------------- */

/* 1: matches, and $1… are its captures. */
static bool matches(struct req *r, const struct regex *re, struct var **captures,
                    struct str subject)
{
    struct regex_match *m = ARENA_NEW(r->arena, struct regex_match);

    if (regex_exec(re, subject, m) != 1)
        return false;
    r->eval.match = m;
    r->eval.match_subject = subject;
    if (captures != NULL)
        http_store_captures(&r->eval, captures, m, subject);
    return true;
}

/* The first rewrite that applies to text. */
static bool rewrite(struct req *r, const struct proxy_rewrites *list, struct str text,
                    struct str *out)
{
    for (unsigned i = 0; i < list->count; i++) {
        const struct proxy_rewrite *rw = &list->items[i];
        struct str from;

        if (rw->regex != NULL) {
            if (!matches(r, rw->regex, rw->captures, text))
                continue;
            *out = expr_eval(&r->eval, rw->to);
            return true;
        }
        from = expr_eval(&r->eval, rw->from);
        if (!str_starts(text, from))
            continue;
        text = str_skip(text, from.len);
        from = expr_eval(&r->eval, rw->to);
        *out = str_printf(r->arena, "%.*s%.*s", STR_ARG(from), STR_ARG(text));
        return true;
    }
    return false;
}

/* "5; url=…" */
static bool rewrite_refresh(struct req *r, const struct proxy_rewrites *list, struct str *value)
{
    ssize_t at = str_casefind(*value, STR("url="));
    struct str url;

    if (at < 0 || !rewrite(r, list, str_skip(*value, (size_t) at + 4), &url))
        return false;
    *value = str_printf(r->arena, "%.*s%.*s", (int) at + 4, value->ptr, STR_ARG(url));
    return true;
}

static struct str without_dot(struct str s)
{
    return s.len > 0 && s.ptr[0] == '.' ? str_skip(s, 1) : s;
}

/* A domain is replaced whole; dots in front do not count, the attribute's stays. */
static bool rewrite_domain(struct req *r, const struct proxy_rewrites *list, struct str *value)
{
    struct str domain = without_dot(*value), to;

    for (unsigned i = 0; i < list->count; i++) {
        const struct proxy_rewrite *rw = &list->items[i];

        if (rw->regex != NULL ? !matches(r, rw->regex, rw->captures, *value)
                              : !str_caseeq(domain, without_dot(expr_eval(&r->eval, rw->from))))
            continue;
        to = expr_eval(&r->eval, rw->to);
        if (rw->regex != NULL)
            *value = to;
        else
            *value = str_printf(r->arena, "%s%.*s", domain.len < value->len ? "." : "",
                                STR_ARG(without_dot(to)));
        return true;
    }
    return false;
}

static unsigned flags_for(struct req *r, const struct proxy_cookie_flags *list, struct str name)
{
    for (unsigned i = 0; i < list->count; i++) {
        const struct proxy_cookie_flag *f = &list->items[i];
        unsigned bits = 0;

        if (f->regex != NULL ? !matches(r, f->regex, NULL, name)
                             : f->name != NULL && !str_caseeq(expr_eval(&r->eval, f->name), name))
            continue;
        for (unsigned k = 0; k < f->flags.count; k++)
            bits |= cookie_flag(expr_eval(&r->eval, f->flags.items[k]));
        return bits;
    }
    return 0;
}

/* A cookie taken apart: its own name and value first, then the attributes. */
struct cookie_part {
    struct str name, value;
    bool has_value;
};
struct cookie {
    struct cookie_part *parts;
    unsigned count, capacity;
};

static void add_part(struct arena *arena, struct cookie *c, struct cookie_part part)
{
    c->parts = arena_grow(arena, c->parts, c->count, &c->capacity, sizeof(*c->parts));
    c->parts[c->count++] = part;
}

static struct cookie_part cut_part(struct str text)
{
    ssize_t eq = str_chr(text, '=');

    if (eq < 0)
        return (struct cookie_part){ .name = str_trim(text) };
    return (struct cookie_part){ .name = str_trim(str_from(text.ptr, (size_t) eq)),
                                 .value = str_trim(str_skip(text, (size_t) eq + 1)),
                                 .has_value = true };
}

static void cut_cookie(struct arena *arena, struct str text, struct cookie *c)
{
    ssize_t semicolon;

    while ((semicolon = str_chr(text, ';')) >= 0) {
        add_part(arena, c, cut_part(str_from(text.ptr, (size_t) semicolon)));
        text = str_skip(text, (size_t) semicolon + 1);
    }
    add_part(arena, c, cut_part(text));
}

static struct str join_cookie(struct arena *arena, const struct cookie *c)
{
    size_t room = 0;
    char *buf, *p;

    for (unsigned i = 0; i < c->count; i++)
        room += c->parts[i].name.len + c->parts[i].value.len + 3;
    p = buf = arena_bytes(arena, room);
    for (unsigned i = 0; i < c->count; i++) {
        const struct cookie_part *part = &c->parts[i];

        p = fmt_str(i == 0 ? p : fmt_str(p, STR("; ")), part->name);
        if (part->has_value)
            p = fmt_str(fmt_str(p, STR("=")), part->value);
    }
    return str_from(buf, (size_t) (p - buf));
}

static struct str wanted_same_site(unsigned flags)
{
    return flags & COOKIE_STRICT ? STR("Strict")
           : flags & COOKIE_LAX  ? STR("Lax")
           : flags & COOKIE_NONE ? STR("None")
                                 : STR_NULL;
}

/* Whether one of the bits is set; it no longer is. */
static bool take_flag(unsigned *flags, unsigned bits)
{
    bool set = (*flags & bits) != 0;

    *flags &= ~bits;
    return set;
}

/* What the flags do with an attribute that is there. False: it goes. */
static bool flag_attribute(struct cookie_part *part, unsigned *flags)
{
    struct str same = wanted_same_site(*flags);

    if (str_caseeq(part->name, STR("secure")))
        return take_flag(flags, COOKIE_SECURE) || !(*flags & COOKIE_NO_SECURE);
    if (str_caseeq(part->name, STR("httponly")))
        return take_flag(flags, COOKIE_HTTPONLY) || !(*flags & COOKIE_NO_HTTPONLY);
    if (!str_caseeq(part->name, STR("samesite")))
        return true;
    if (!take_flag(flags, COOKIE_STRICT | COOKIE_LAX | COOKIE_NONE))
        return !(*flags & COOKIE_NO_SAMESITE);
    *part = (struct cookie_part){ STR("SameSite"), same, true };
    return true;
}

static void apply_flags(struct arena *arena, struct cookie *c, unsigned flags)
{
    unsigned kept = 1;

    for (unsigned i = 1; i < c->count; i++) {
        if (flag_attribute(&c->parts[i], &flags))
            c->parts[kept++] = c->parts[i];
    }
    c->count = kept;
    if (flags & COOKIE_SECURE)
        add_part(arena, c, (struct cookie_part){ .name = STR("Secure") });
    if (flags & COOKIE_HTTPONLY)
        add_part(arena, c, (struct cookie_part){ .name = STR("HttpOnly") });
    if (wanted_same_site(flags).ptr != NULL)
        add_part(arena, c,
                 (struct cookie_part){ STR("SameSite"), wanted_same_site(flags), true });
}

/* A cookie that no directive is about stays as it was written, byte for byte. */
static bool rewrite_cookie(struct req *r, const struct proxy_loc *conf, struct str *value)
{
    struct cookie c = { NULL, 0, 0 };
    bool changed = false;
    unsigned flags;

    cut_cookie(r->arena, *value, &c);
    if (!c.parts[0].has_value)
        return false;
    for (unsigned i = 1; i < c.count; i++) {
        struct cookie_part *part = &c.parts[i];

        if (!part->has_value)
            continue;
        if (str_caseeq(part->name, STR("domain")))
            changed |= rewrite_domain(r, &conf->cookie_domains, &part->value);
        else if (str_caseeq(part->name, STR("path")))
            changed |= rewrite(r, &conf->cookie_paths, part->value, &part->value);
    }
    flags = flags_for(r, &conf->cookie_flags, c.parts[0].name);
    if (!changed && flags == 0)
        return false;
    apply_flags(r->arena, &c, flags);
    *value = join_cookie(r->arena, &c);
    return true;
}

bool proxy_rewrite_field(struct exchange *x, const struct field *f, struct str *value)
{
    const struct proxy_req *pr = x->data;
    const struct proxy_loc *conf = pr->conf;
    struct req *r = x->req;

    switch ((enum token) f->token) {
    case T_LOCATION:
        return rewrite(r, conf->redirect, f->value, value);
    case T_REFRESH:
        return rewrite_refresh(r, conf->redirect, value);
    case T_SET_COOKIE:
        if (likely(conf->cookie_domains.count == 0 && conf->cookie_paths.count == 0
                   && conf->cookie_flags.count == 0))
            return false;
        return rewrite_cookie(r, conf, value);
    default:
        return false;
    }
}
