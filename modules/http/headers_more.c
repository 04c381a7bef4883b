/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * more_set_headers and its three relatives, as the headers-more module has them: fields of the
 * answer, or of the request, are replaced, added or cleared, in the order of the directives, outer
 * levels' before inner ones'. Answers of all statuses are meant unless -s says which. The
 * request's are changed at the end of the rewrite phase. What frames a message or belongs to the
 * connection is nobody's to set.
 */
#include "core/http/answer.h"
#include "core/http/h1.h"

/* configure: switch=http_headers_more_module default=on */

static unsigned more_slot;
extern const struct module module_http_headers_more;

/* "Name: value"; clear: the name alone, or a prefix of names. */
struct more_field {
    struct str name;
    enum token token;
    struct expr *value; /* NULL: cleared */
    bool prefix;
};

/* One directive. */
struct more_rule {
    struct more_field *fields;
    unsigned field_count, field_capacity;
    unsigned *statuses; /* none: all */
    unsigned status_count, status_capacity;
    struct str_list types; /* none: all */
    bool only_existing;    /* -r */
};

struct more_rules {
    struct more_rule *items;
    unsigned count, capacity;
};

struct more_conf {
    struct more_rules out, in;
};

/* What a rule is for --------------------------------------------------------------------------- */

static bool has_type(const struct more_rule *rule, const struct fields *f)
{
    struct str type;
    ssize_t end;

    if (rule->types.count == 0)
        return true;
    type = fields_value(f, T_CONTENT_TYPE);
    end = str_chr(type, ';');
    if (end >= 0)
        type.len = (size_t) end;
    type = str_trim(type);
    for (unsigned i = 0; i < rule->types.count; i++) {
        if (str_caseeq(rule->types.items[i], type))
            return true;
    }
    return false;
}

static bool has_status(const struct more_rule *rule, unsigned status)
{
    for (unsigned i = 0; i < rule->status_count; i++) {
        if (rule->statuses[i] == status)
            return true;
    }
    return rule->status_count == 0;
}

/* Fields in general ---------------------------------------------------------------------------- */

static void add(struct msg *m, const struct more_field *f, struct str value)
{
    if (f->token == T_NONE)
        fields_add(m, &m->fields, f->name, value);
    else
        fields_add_token(m, &m->fields, f->token, value)->name = f->name;
}

static void clear_prefix(struct msg *m, struct str prefix)
{
    struct fields *all = &m->fields;

    for (unsigned i = 0; i < all->count; i++) {
        const struct field *f = &all->items[i];

        if (!f->deleted && str_casestarts(f->name, prefix))
            fields_delete_name(all, f->name);
    }
}

/* The answer ----------------------------------------------------------------------------------- */

/* Fields that the head's writer would make up, or that stand elsewhere until it does. */
static void clear_typed(struct req *r, enum token t)
{
    switch (t) {
    case T_CONTENT_TYPE: r->charset = STR_NULL; break;
    case T_CONTENT_LENGTH: answer_clear_length(r); break;
    case T_LAST_MODIFIED: answer_clear_last_modified(r); break;
    case T_ACCEPT_RANGES: answer_clear_ranges(r); break;
    case T_SERVER:
    case T_DATE:
        /* One without a value keeps the writer from making one up. */
        fields_add_token(&r->out, &r->out.fields, t, STR_NULL)->in_order = true;
        break;
    default: break;
    }
}

static void set_out(struct req *r, const struct more_field *f)
{
    static const enum token typed[] = { T_SERVER, T_DATE, T_LAST_MODIFIED };
    struct str value = f->value != NULL ? expr_eval(&r->eval, f->value) : STR_NULL;

    if (f->prefix) {
        clear_prefix(&r->out, f->name);
        for (unsigned i = 0; i < ARRAY_LEN(typed); i++) {
            if (str_casestarts(token_name(typed[i]), f->name))
                clear_typed(r, typed[i]);
        }
        return;
    }
    fields_delete_name(&r->out.fields, f->name);
    if (value.len == 0) {
        clear_typed(r, f->token);
        return;
    }
    if (f->token == T_LAST_MODIFIED || f->token == T_CONTENT_TYPE)
        clear_typed(r, f->token);
    add(&r->out, f, value);
}

static enum head_verdict more_head(struct req *r, void **ctx)
{
    const struct more_conf *conf = req_loc_conf(r, more_slot);

    (void) ctx;
    if (r != r->main)
        return HEAD_PASS;
    for (unsigned i = 0; i < conf->out.count; i++) {
        const struct more_rule *rule = &conf->out.items[i];

        if (!has_status(rule, r->out.status) || !has_type(rule, &r->out.fields))
            continue;
        for (unsigned k = 0; k < rule->field_count; k++)
            set_out(r, &rule->fields[k]);
    }
    return HEAD_PASS;
}

/* The request ---------------------------------------------------------------------------------- */

/* A decoded $uri may hold line ends, which would begin fields of the client's making further on. */
static struct str one_line(struct req *r, struct str value)
{
    size_t clean = scan_span(SCAN_FIELD_VALUE, value.ptr, value.len);
    char *copy;

    if (likely(clean == value.len))
        return value;
    copy = arena_bytes(r->arena, value.len);
    memcpy(copy, value.ptr, value.len);
    for (size_t i = clean; i < value.len; i++) {
        if (copy[i] == '\r' || copy[i] == '\n' || copy[i] == '\0')
            copy[i] = ' ';
    }
    return str_from(copy, value.len);
}

/* $host follows; the server that was chosen by the old one stays. */
static void set_host(struct req *r, struct str value)
{
    struct str host = STR_NULL;
    unsigned port = 0;

    if (value.len > 0 && h1_host_normalize(r->arena, value, &host, &port) != 0) {
        host = str_lower(r->arena, value);
        port = 0;
    }
    r->host = r->main->host = host;
    r->main->host_port = port;
}

static void set_in(struct req *r, const struct more_rule *rule, const struct more_field *f)
{
    struct str value = STR_NULL;

    if (f->prefix) {
        clear_prefix(r->in, f->name);
        return;
    }
    if (rule->only_existing && fields_find(&r->in->fields, f->name) == NULL)
        return;
    if (f->value != NULL)
        value = one_line(r, expr_eval(&r->eval, f->value));
    fields_delete_name(&r->in->fields, f->name);
    if (value.len > 0)
        add(r->in, f, value);
    if (f->token == T_HOST)
        set_host(r, value);
}

static enum verdict more_run(struct req *r)
{
    const struct more_conf *conf = req_loc_conf(r, more_slot);

    for (unsigned i = 0; i < conf->in.count; i++) {
        const struct more_rule *rule = &conf->in.items[i];

        if (!has_type(rule, &r->in->fields))
            continue;
        for (unsigned k = 0; k < rule->field_count; k++)
            set_in(r, rule, &rule->fields[k]);
    }
    return V_NEXT;
}

/* Configuration -------------------------------------------------------------------------------- */

static bool is_input(const struct conf *cf)
{
    return str_ends(cf->args[0], STR("input_headers"));
}

/*
 * Those that the writers of messages alone decide about. Cleared they may be: it has no effect, or
 * (Content-Length) chunks.
 */
static bool is_framing(enum token t, bool input)
{
    switch (t) {
    case T_CONTENT_LENGTH:
    case T_TRANSFER_ENCODING:
    case T_CONNECTION:
    case T_KEEP_ALIVE:
    case T_TE: return true;
    case T_EXPECT: return input;
    default: return false;
    }
}

static const char *add_field(struct conf *cf, unsigned arg, struct more_rule *rule)
{
    struct more_field f = { .value = NULL };
    struct str text = cf->args[arg], value = STR_NULL;
    bool clear = str_starts(cf->args[0], STR("more_clear")), input = is_input(cf);
    ssize_t colon = str_chr(text, ':');
    const char *error = NULL;
    uint32_t hash;

    f.name = str_trim(colon >= 0 ? str_from(text.ptr, (size_t) colon) : text);
    if (colon >= 0 && !clear)
        value = str_trim(str_skip(text, (size_t) colon + 1));
    if (value.len == 0 && f.name.len > 1 && f.name.ptr[f.name.len - 1] == '*') {
        f.prefix = true;
        f.name.len--;
    }
    if (!is_token(f.name) || str_chr(f.name, '*') >= 0)
        return conf_error_arg(cf, arg, "invalid header name \"%.*s\"", STR_ARG(f.name));
    f.token = token_lookup(f.name, &hash);
    if (is_framing(f.token, input) && !f.prefix && (input || value.len > 0))
        return conf_error_arg(cf, arg, "the header \"%.*s\" cannot be changed", STR_ARG(f.name));
    if (value.len > 0) {
        f.value = expr_compile(cf, value, 0, &error);
        if (f.value == NULL)
            return conf_error_arg(cf, arg, "%s", error);
    }
    rule->fields = arena_grow(cf->arena, rule->fields, rule->field_count, &rule->field_capacity,
                              sizeof(*rule->fields));
    rule->fields[rule->field_count++] = f;
    return NULL;
}

/* The next word of a list. */
static bool next_word(struct str *list, struct str *word)
{
    size_t n = 0;

    *list = str_trim(*list);
    while (n < list->len && list->ptr[n] != ' ' && list->ptr[n] != '\t')
        n++;
    *word = str_from(list->ptr, n);
    *list = str_skip(*list, n);
    return n > 0;
}

static const char *add_statuses(struct conf *cf, unsigned arg, struct more_rule *rule)
{
    struct str list = cf->args[arg], word;

    while (next_word(&list, &word)) {
        uint64_t n;

        if (str_to_u64(word, &n) != 0 || n < 100 || n > 999)
            return conf_error_arg(cf, arg, "invalid status code \"%.*s\"", STR_ARG(word));
        rule->statuses = arena_grow(cf->arena, rule->statuses, rule->status_count,
                                    &rule->status_capacity, sizeof(*rule->statuses));
        rule->statuses[rule->status_count++] = (unsigned) n;
    }
    return NULL;
}

static void add_types(struct conf *cf, unsigned arg, struct more_rule *rule)
{
    struct str list = cf->args[arg], word;

    while (next_word(&list, &word))
        str_list_add(cf->arena, &rule->types, word);
}

/* -s, -t or -r at *arg, which moves to the option's value. */
static const char *add_option(struct conf *cf, unsigned *arg, struct more_rule *rule)
{
    struct str option = cf->args[*arg];
    bool input = is_input(cf);

    if (str_eq(option, STR("-r")) && input && str_starts(cf->args[0], STR("more_set"))) {
        rule->only_existing = true;
        return NULL;
    }
    if (!str_eq(option, STR("-t")) && (input || !str_eq(option, STR("-s"))))
        return conf_error_arg(cf, *arg, "invalid option name: \"%.*s\"", STR_ARG(option));
    if (++*arg == cf->nargs)
        return conf_error_arg(cf, *arg - 1, "option %.*s takes an argument", STR_ARG(option));
    if (option.ptr[1] == 's')
        return add_statuses(cf, *arg, rule);
    add_types(cf, *arg, rule);
    return NULL;
}

static const char *set_more(struct conf *cf, void *field)
{
    struct more_rules *rules = field;
    struct more_rule rule = { .fields = NULL };

    for (unsigned i = 1; i < cf->nargs; i++) {
        const char *error;

        if (cf->args[i].len > 0 && cf->args[i].ptr[0] == '-')
            error = add_option(cf, &i, &rule);
        else
            error = add_field(cf, i, &rule);
        if (error != NULL)
            return error;
    }
    if (rule.field_count == 0)
        return conf_error(cf, "no header is named in \"%.*s\"", STR_ARG(cf->args[0]));
    rules->items =
        arena_grow(cf->arena, rules->items, rules->count, &rules->capacity, sizeof(*rules->items));
    rules->items[rules->count++] = rule;
    return NULL;
}

/* Outer rules come first. */
static void prepend(struct conf *cf, struct more_rules *rules, const struct more_rules *outer)
{
    struct more_rules all = { NULL, 0, 0 };

    for (unsigned i = 0; i < outer->count + rules->count; i++) {
        all.items = arena_grow(cf->arena, all.items, all.count, &all.capacity, sizeof(*all.items));
        all.items[all.count++] =
            i < outer->count ? outer->items[i] : rules->items[i - outer->count];
    }
    *rules = all;
}

static int more_finish(struct conf *cf, struct level *level, struct level *parent)
{
    struct more_conf *conf = level_conf(level, STORE_LOC, more_slot);
    const struct more_conf *outer = NULL;

    if (conf != NULL && parent != NULL && parent->conf[STORE_LOC] != NULL)
        outer = level_conf(parent, STORE_LOC, more_slot);
    if (outer == NULL || outer == conf)
        return 0;
    if (conf_is_set(level, &module_http_headers_more, "more_set_headers") ||
        conf_is_set(level, &module_http_headers_more, "more_clear_headers"))
        prepend(cf, &conf->out, &outer->out);
    if (conf_is_set(level, &module_http_headers_more, "more_set_input_headers") ||
        conf_is_set(level, &module_http_headers_more, "more_clear_input_headers"))
        prepend(cf, &conf->in, &outer->in);
    return 0;
}

static bool out_wanted(const struct level *level)
{
    const struct more_conf *conf = level_conf(level, STORE_LOC, more_slot);

    return conf->out.count > 0;
}

static bool in_wanted(const struct level *level)
{
    const struct more_conf *conf = level_conf(level, STORE_LOC, more_slot);

    return conf->in.count > 0;
}

#define MORE_ROW(name_, member_, syntax_, doc_)                                                   \
    ROW(name_, CTX_HSLI, ARGS1_MORE | ARG_REPEAT, set_more, STORE_LOC, struct more_conf, member_, \
        INHERIT_WHOLE, NULL, syntax_, doc_, )

static const struct directive directives[] = {
    MORE_ROW("more_set_headers", out, "[-t types] [-s statuses] 'Name: value' ...",
             "Replaces fields of answers, or adds them; outer levels' rules run first."),
    MORE_ROW("more_clear_headers", out, "[-t types] [-s statuses] Name ...",
             "Takes fields out of answers; a name may end in \"*\"."),
    MORE_ROW("more_set_input_headers", in, "[-r] [-t types] 'Name: value' ...",
             "Replaces fields of requests, or adds them; -r: only those that are there."),
    MORE_ROW("more_clear_input_headers", in, "[-t types] Name ...",
             "Takes fields out of requests; a name may end in \"*\"."),
    ROW_END,
};

static const struct hook hooks[] = {
    { PHASE_REWRITE, HOOK_REWRITE + 10, more_run, in_wanted },
    HOOK_END,
};

static const struct filter filters[] = {
    { .rank = FILTER_MORE_HEADERS, .head = more_head, .wanted = out_wanted },
    FILTER_END,
};

static const struct http_module http_headers_more = { .hooks = hooks, .filters = filters };

const struct module module_http_headers_more = {
    .name = "http_headers_more",
    .slot = &more_slot,
    .conf_size = { [STORE_LOC] = sizeof(struct more_conf) },
    .directives = directives,
    .http = &http_headers_more,
    .finish = more_finish,
};
