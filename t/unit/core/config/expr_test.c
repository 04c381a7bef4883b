/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Variables and expressions: definitions in any order, families, values cached and fresh, cycles,
 * captures, what is refused, and that literals and single values cost no memory.
 */
#include "t/unit/core/config/toy.h"

struct toy {
    struct expr *a, *b, *path, *z;
    struct expr_list any;
    struct expr_size rate;
};

static unsigned toy_slot;
static struct var_space *space;
static unsigned asked;
const struct module module_toy;

static bool get_host(struct eval *e, const struct var *v, struct str *out)
{
    (void) e;
    (void) v;
    asked++;
    *out = STR("example.org");
    return true;
}

static bool get_arg(struct eval *e, const struct var *v, struct str *out)
{
    asked++;
    *out = str_printf(e->arena, "[%s]", v->suffix.ptr);
    return v->suffix.len > 0;
}

static bool get_none(struct eval *e, const struct var *v, struct str *out)
{
    (void) e;
    (void) v;
    (void) out;
    asked++;
    return false;
}

static bool get_expr(struct eval *e, const struct var *v, struct str *out)
{
    *out = expr_eval(e, (const struct expr *) v->data);
    return true;
}

static const struct var_row rows[] = {
    { .name = "host", .get = get_host },
    { .name = "uri", .get = get_host, .flags = VAR_FRESH },
    { .name = "none", .get = get_none },
    { .name = "args", .get = get_host, .flags = VAR_CHANGEABLE },
    { .name = "maybe", .flags = VAR_WEAK },
    { .name = "arg_", .get = get_arg, .flags = VAR_PREFIX | VAR_FRESH },
    { .name = "arg_long_", .get = get_none, .flags = VAR_PREFIX },
    { .name = NULL },
};

static const char *set_http(struct conf *cf, void *field)
{
    struct level *level = conf_level(cf, CTX_HTTP, NULL);

    (void) field;
    space = ARENA_NEW(cf->arena, struct var_space);
    var_space_init(space, cf->arena);
    var_space_rows(space, rows);
    level->vars = space;
    return conf_block(cf, level);
}

static const char *set_def(struct conf *cf, void *field)
{
    const char *error = NULL;
    struct expr *x = expr_compile(cf, cf->args[2], 0, &error);
    struct var *v;

    (void) field;
    if (x == NULL)
        return error;
    v = var_define(cf, conf_var_space(cf), cf->args[1],
        VAR_CHANGEABLE | (str_starts(cf->args[1], STR("arg_")) ? VAR_WEAK : 0)
            | (str_starts(cf->args[1], STR("fresh")) ? VAR_FRESH : 0), &error);
    if (v == NULL)
        return error;
    v->get = get_expr;
    v->data = (uintptr_t) x;
    return NULL;
}

static const char *set_path(struct conf *cf, void *field)
{
    const char *error = NULL;
    struct expr *x = expr_compile(cf, cf->args[1], EXPR_Z | EXPR_PREFIX, &error);

    *(struct expr **) field = x;
    return error;
}

static const char *set_z(struct conf *cf, void *field)
{
    const char *error = NULL;

    *(struct expr **) field = expr_compile(cf, cf->args[1], EXPR_Z, &error);
    return error;
}

static const char *set_outside(struct conf *cf, void *field)
{
    const char *error = NULL;
    struct expr *x = expr_compile(cf, cf->args[1], 0, &error);
    struct str text;

    ok(field == NULL, "a module has no location structure at main");
    ok(x && expr_is_literal(x, &text) && str_eq(text, STR("a$b")),
       "outside of http a dollar is a dollar");
    return NULL;
}

#define TOY(name_, args_, set_, member_)                                                         \
    ROW(name_, CTX_HTTP, args_, set_, STORE_LOC, struct toy, member_, INHERIT_SCALAR, NULL, "x", \
        "A toy.")

static const struct directive toy_rows[] = {
    { .name = "http", .contexts = CTX_MAIN, .args = ARGS0 | ARG_BLOCK, .set = set_http,
      .inherit = INHERIT_DONE },
    ROW_CALL("def", CTX_HTTP, ARGS2 | ARG_REPEAT, set_def, STORE_LOC, "name value", "A variable."),
    TOY("a", ARGS1, conf_set_expr, a),
    TOY("b", ARGS1, conf_set_expr, b),
    TOY("path", ARGS1, set_path, path),
    TOY("z", ARGS1, set_z, z),
    TOY("any", ARGS1_MORE, conf_set_exprs, any),
    TOY("rate", ARGS1, conf_set_expr_size, rate),
    ROW_CALL("outside", CTX_MAIN, ARGS1, set_outside, STORE_LOC, "x", "Where no variables are."),
    ROW_END,
};

static int toy_post(struct conf *cf)
{
    return space ? var_space_check(cf, space) : 0;
}

const struct module module_toy = {
    .name = "toy",
    .slot = &toy_slot,
    .conf_size = { 0, 0, sizeof(struct toy) },
    .directives = toy_rows,
    .post = toy_post,
};
const struct module *const modules[] = { &module_toy, NULL };

static struct config *config;
static struct value *values;
static struct eval subject;

/* The structure read from a text, and a fresh subject to evaluate for. */
static struct toy *use(const char *text)
{
    space = NULL;
    config = toy_read(text);
    if (config == NULL)
        return NULL;
    values = NULL;
    asked = 0;
    subject =
        (struct eval){ .arena = arena_new(), .space = space, .values = &values, .log = &toy_log };
    return level_conf(container_of(config->main->children.next, struct level, sibling), STORE_LOC,
        toy_slot);
}

static void done(void)
{
    arena_destroy(subject.arena);
    config_free(config);
}

static void is_value(const struct expr *x, const char *expected, const char *name)
{
    struct str s = expr_eval(&subject, x);

    is_bytes(s.ptr, s.len, expected, strlen(expected), "%s", name);
}

static void evaluating(void)
{
    struct toy *toy = use(
        "http { a plain; b x-${host}-$arg_foo$none.$HOST; any $host $none 0; rate 10k; z $host; }");
    struct regex_match match = { .count = 3, .pos = { 0, 5, 1, 3, -1, -1 } };
    struct str s;
    size_t used;

    if (!ok(toy != NULL, "expressions"))
        return;
    used = arena_used(subject.arena);
    is_value(toy->a, "plain", "a literal");
    is_uint(arena_used(subject.arena), used, "costs no memory");
    ok(expr_is_literal(toy->a, &s) && str_eq(s, STR("plain")), "and says that it is one");
    is_value(toy->b, "x-example.org-[foo].example.org", "text and variables in one");
    is_uint(asked, 3, "each variable was asked once");
    is_value(toy->b, "x-example.org-[foo].example.org", "the same again");
    is_uint(asked, 4, "only the fresh one is asked again");
    used = arena_used(subject.arena);
    is_value(toy->any.items[0], "example.org", "a single variable");
    is_uint(arena_used(subject.arena), used, "costs no memory either");
    ok(expr_any_true(&subject, &toy->any), "a list with a value is true");
    toy->any.items++;
    toy->any.count--;
    ok(!expr_any_true(&subject, &toy->any), "empty and 0 are not");
    is_uint(expr_size(&subject, &toy->rate), 10240, "a size");
    s = expr_eval(&subject, toy->z);
    is_str(s.ptr, "example.org", "terminated when asked for");
    done();

    toy = use("http { a $1$2$3-$1; b $1; path $1/x; rate $1; z ${host}; }");
    is_value(toy->a, "-", "captures without a match are empty");
    subject.match = &match;
    subject.match_subject = STR("abcde");
    is_value(toy->a, "bc-bc", "captures, one unset, one that does not exist");
    used = arena_used(subject.arena);
    is_value(toy->b, "bc", "one alone");
    is_uint(arena_used(subject.arena), used, "without a copy");
    ok(expr_uses_captures(toy->a) && expr_max_capture(toy->a) == 3, "the highest is known");
    ok(!expr_uses_captures(toy->z), "and that there are none");
    is_uint(expr_size(&subject, &toy->rate), 0, "a size that is none");
    is_bytes(expr_eval(&subject, toy->path).ptr, strlen(toy_dir) + 5,
        str_printf(subject.arena, "%s/bc/x", toy_dir).ptr, strlen(toy_dir) + 5,
        "a relative path is completed");
    is_str(expr_source(toy->path).ptr, "$1/x", "the source is kept");
    done();
}

static void paths(void)
{
    struct toy *toy = use("http { path logs/x; def d /abs; a $d; z \"\"; }");

    is_str(expr_eval(&subject, toy->path).ptr, toy_path("logs/x"),
           "a literal path is completed once");
    is_value(toy->z, "", "an empty literal");
    done();
    toy = use("http { def d /abs; def e \"\"; path $e$d/x; }");
    is_str(expr_eval(&subject, toy->path).ptr, "/abs/x",
           "an absolute one stays, whatever made it so");
    done();
}

static void caching(void)
{
    struct toy *toy = use("http { a $later; def later $host; b $fresh2; def fresh2 $uri; }");
    const struct var *later;
    struct str s;

    is_value(toy->a, "example.org", "used before it is defined");
    is_value(toy->b, "example.org", "a fresh one");
    asked = 0;
    is_value(toy->a, "example.org", "a cached value");
    is_uint(asked, 0, "is not computed again");
    is_value(toy->b, "example.org", "what is fresh");
    is_uint(asked, 1, "is");
    ok(var_by_name(&subject, STR("Later"), &s) && str_eq(s, STR("example.org")), "found by name");
    ok(!var_by_name(&subject, STR("nothing"), &s) && s.len == 0, "an unknown name is not");
    ok(var_by_name(&subject, STR("ARG_x"), &s) && str_eq(s, STR("[x]")), "a family member by name");
    later = space->indexed[0];
    var_store(&subject, later, STR("stored"));
    is_value(toy->a, "stored", "what was stored");
    var_forget(&subject, later);
    is_value(toy->a, "example.org", "and forgotten");
    done();
}

static void cycles(void)
{
    struct toy *toy = use("http { a $x; def x $y; def y a$x; b $fresh1; def fresh1 b$fresh1; }");

    is_value(toy->a, "a", "a cycle ends");
    is_uint(toy_count("cycle while evaluating variable \"x\""), 1, "and is logged");
    is_value(toy->b, "b", "so does one of a fresh variable");
    is_value(toy->b, "b", "each time");
    done();
}

static void defining(void)
{
    struct toy *toy =
        use("http { a $maybe; b $arg_q; def arg_q set; def args 1; def x 1; def x 2; z $x; }");

    if (!ok(toy != NULL, "definitions"))
        return;
    is_value(toy->a, "", "a weak one that nobody defined");
    is_value(toy->b, "[q]", "a weak definition leaves a family its own");
    is_value(toy->z, "2", "a later definition counts");
    done();
    toy = use("http { a $arg_long_x; b $arg_lon; }");
    is_value(toy->a, "", "the longest prefix is the family");
    is_value(toy->b, "[lon]", "and else a shorter one");
    done();
    toy = use("outside a$b; http { }");
    ok(toy != NULL, "which is no error");
    done();
}

static void refusing(void)
{
    static const char *const cases[][2] = {
        { "a \"${host\";", "the closing bracket in \"host\" variable is missing in " },
        { "a \"${a-b}\";", "the closing bracket in \"a\" variable is missing in " },
        { "a $;", "invalid variable name in " },
        { "a \"x$ y\";", "invalid variable name in " },
        { "a \"${}\";", "invalid variable name in " },
        { "def host 1;", "the duplicate \"host\" variable in " },
        { "def \"\" 1;", "invalid variable name \"$\" in " },
        { "a $hots; b $hots;", "unknown \"hots\" variable in " },
        { "a $0;", "unknown \"0\" variable in " },
        { "a \"${1}\";", "unknown \"1\" variable in " },
        { "rate 1x;", "\"rate\" directive invalid value in " },
    };

    for (unsigned i = 0; i < ARRAY_LEN(cases); i++) {
        char text[128];

        snprintf(text, sizeof(text), "http { %s }", cases[i][0]);
        ok(use(text) == NULL, "refused: %s", cases[i][0]);
        is_uint(toy_count(cases[i][1]), 1, "%s", cases[i][1]);
    }
    use("http { a $hots; }");
    ok(strstr(toy_shown, "did you mean \"$host\"?") != NULL, "the nearest variable is named");
}

static void long_ones(void)
{
    char text[4096] = "http { a ";
    size_t n = strlen(text);
    struct toy *toy;

    for (int i = 0; i < 100; i++)
        n += (size_t) sprintf(text + n, "%d${host}", i);
    strcpy(text + n, "; }");
    toy = use(text);
    is_uint(expr_eval(&subject, toy->a).len, 100 * 11 + 190, "a hundred variables in one");
    done();
}

int main(void)
{
    static const char *const files[] = { "t.conf", NULL };

    toy_start();
    evaluating();
    paths();
    caching();
    cycles();
    defining();
    refusing();
    long_ones();
    toy_end(files);
    return done_testing();
}
