/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Inheritance by rule: a toy module with a row of every kind, read from files with http, server,
 * location, nested location, if and limit_except, and checked at each level against what nginx
 * does with such directives.
 */
#include "t/unit/core/config/toy.h"

struct toy_srv {
    struct str name;
    size_t buffer;
};

struct toy_loc {
    size_t scalar;
    bool flag;
    struct str_list whole;
    struct str_list rules;   /* allow and deny: one list, two rows */
    struct str root, alias;  /* one group, two members */
    struct str_list headers; /* proxy_set_header: replaced as a whole … */
    bool default_headers;    /* … and its defaults with it */
    struct str_list try;     /* never inherited */
    size_t never;            /* never inherited, with a default */
    struct str pass;         /* implicit */
    const char *handler;     /* implicit, without a directive */
    unsigned finished;
    unsigned private_;       /* no row: this level's alone */
};

struct toy_main {
    size_t limit;
    unsigned finished;
};

static unsigned toy_slot, plain_slot, peer_slot;
const struct module module_toy, module_plain, module_peer;

static const char *open_block(struct conf *cf, void *field)
{
    unsigned context = (unsigned) (uintptr_t) cf->row->extra;

    (void) field;
    if (context == CTX_IF_LOCATION && cf->level->context == CTX_SERVER)
        context = CTX_IF_SERVER;
    return conf_block(cf, conf_level(cf, context, NULL));
}

static const char *set_rule(struct conf *cf, void *field)
{
    str_list_add(cf->arena, field,
                 str_printf(cf->arena, "%s %s", cf->args[0].ptr, cf->args[1].ptr));
    return NULL;
}

static const char *set_header(struct conf *cf, void *field)
{
    struct toy_loc *loc = container_of(field, struct toy_loc, headers);

    loc->default_headers = false;
    return set_rule(cf, field);
}

static const char *set_pass(struct conf *cf, void *field)
{
    const char **handler = conf_field(cf, cf->level, cf->module, ".handler");

    *handler = "pass";
    return conf_set_str(cf, field);
}

static const char *set_private(struct conf *cf, void *field)
{
    struct toy_loc *loc = field;

    (void) cf;
    loc->private_++;
    return NULL;
}

#define BLOCK(name_, in_, makes_)                                                                \
    {                                                                                            \
        .name = name_, .contexts = in_, .args = ARGS_ANY | ARG_BLOCK | ARG_REPEAT,               \
        .set = open_block, .inherit = INHERIT_DONE, .extra = (const void *) (uintptr_t) (makes_) \
    }
#define HSL_ROW(name_, args_, set_, member_, inherit_, def_, ...) \
    ROW(name_, CTX_HSLI | CTX_LIMIT_EXCEPT, args_, set_, STORE_LOC, struct toy_loc, member_, \
        inherit_, def_, "value", "A toy.", __VA_ARGS__)

static const struct directive toy_rows[] = {
    BLOCK("events", CTX_MAIN, CTX_EVENTS),
    BLOCK("http", CTX_MAIN, CTX_HTTP),
    BLOCK("server", CTX_HTTP, CTX_SERVER),
    BLOCK("location", CTX_SERVER | CTX_LOCATION, CTX_LOCATION),
    BLOCK("if", CTX_SERVER | CTX_LOCATION, CTX_IF_LOCATION),
    BLOCK("limit_except", CTX_LOCATION, CTX_LIMIT_EXCEPT),
    BLOCK("upstream", CTX_HTTP, CTX_UPSTREAM),
    ROW("limit", CTX_EVENTS, ARGS1, conf_set_size, STORE_MAIN, struct toy_main, limit,
        INHERIT_SCALAR, "512", "n", "A main row in events."),
    ROW("name", CTX_SERVER, ARGS1, conf_set_str, STORE_SRV, struct toy_srv, name, INHERIT_NONE,
        NULL, "n", "A server row."),
    ROW("buffer", CTX_HTTP | CTX_SERVER, ARGS1, conf_set_size, STORE_SRV, struct toy_srv, buffer,
        INHERIT_SCALAR, "1k", "n", "A server row that http may give."),
    HSL_ROW("scalar", ARGS1, conf_set_size, scalar, INHERIT_SCALAR, "8k"),
    HSL_ROW("flag", ARG_FLAG, conf_set_flag, flag, INHERIT_SCALAR, "on"),
    HSL_ROW("whole", ARGS1_MORE | ARG_REPEAT, conf_set_list, whole, INHERIT_WHOLE, "one two"),
    HSL_ROW("allow", ARGS1 | ARG_REPEAT, set_rule, rules, INHERIT_WHOLE, NULL),
    HSL_ROW("deny", ARGS1 | ARG_REPEAT, set_rule, rules, INHERIT_WHOLE, NULL),
    HSL_ROW("root", ARGS1, conf_set_str, root, INHERIT_SCALAR, "html", .group = 1),
    ROW("alias", CTX_LOCATION, ARGS1, conf_set_str, STORE_LOC, struct toy_loc, alias,
        INHERIT_SCALAR, NULL, "p", "The other of the group.", .group = 1),
    HSL_ROW("header", ARGS2 | ARG_REPEAT, set_header, headers, INHERIT_WHOLE, NULL, .group = 2),
    HSL_ROW(".default_headers", ARG_FLAG, conf_set_flag, default_headers, INHERIT_SCALAR, "on",
            .group = 2),
    HSL_ROW("try", ARGS1_MORE, conf_set_list, try, INHERIT_NONE, NULL),
    HSL_ROW("never", ARGS1, conf_set_size, never, INHERIT_NONE, "7"),
    HSL_ROW("pass", ARGS1, set_pass, pass, INHERIT_IMPLICIT, NULL),
    HSL_ROW(".handler", ARGS1, NULL, handler, INHERIT_IMPLICIT, NULL),
    ROW_CALL("private", CTX_HSLI, ARGS0 | ARG_REPEAT, set_private, STORE_LOC, "",
             "Writes where no row is."),
    ROW_END,
};

static int toy_finish(struct conf *cf, struct level *level, struct level *parent)
{
    (void) cf;
    (void) parent;
    if (level->context != CTX_MAIN)
        ((struct toy_loc *) level_conf(level, STORE_LOC, toy_slot))->finished++;
    else
        ((struct toy_main *) level_conf(level, STORE_MAIN, toy_slot))->finished++;
    return 0;
}

const struct module module_toy = {
    .name = "toy",
    .slot = &toy_slot,
    .conf_size = { sizeof(struct toy_main), sizeof(struct toy_srv), sizeof(struct toy_loc) },
    .directives = toy_rows,
    .finish = toy_finish,
};

/* A module that many configurations never name. */
struct plain_loc {
    size_t n;
};
static const struct directive plain_rows[] = {
    ROW("plain", CTX_HSL, ARGS1, conf_set_size, STORE_LOC, struct plain_loc, n, INHERIT_SCALAR, "3",
        "n", "Another module's row."),
    ROW_END,
};
const struct module module_plain = {
    .name = "plain",
    .slot = &plain_slot,
    .conf_size = { 0, 0, sizeof(struct plain_loc) },
    .directives = plain_rows,
};

/* A row that means one thing in http and another in upstream. */
struct peer_srv {
    size_t n;
};
static const struct directive peer_rows[] = {
    ROW("buffer", CTX_UPSTREAM, ARGS1, conf_set_size, STORE_SRV, struct peer_srv, n, INHERIT_SCALAR,
        "32", "n", "In upstream alone."),
    ROW_END,
};
static int peer_finish(struct conf *cf, struct level *level, struct level *parent)
{
    (void) parent;
    /* A default that is known only now. */
    if (level->context == CTX_HTTP)
        return conf_apply(cf, level, &module_peer, "buffer", "64") != NULL;
    return 0;
}
const struct module module_peer = {
    .name = "peer",
    .slot = &peer_slot,
    .conf_size = { 0, sizeof(struct peer_srv), 0 },
    .directives = peer_rows,
    .finish = peer_finish,
};

const struct module *const modules[] = { &module_toy, &module_plain, &module_peer, NULL };

/* The level at a path of child numbers below http, ended by -1. */
static struct level *at(const struct config *config, const int *path)
{
    struct level *level = container_of(config->main->children.next, struct level, sibling);

    while (level->context != CTX_HTTP)
        level = container_of(level->sibling.next, struct level, sibling);
    for (; *path >= 0; path++) {
        struct list *l = level->children.next;

        for (int i = 0; i < *path; i++)
            l = l->next;
        level = container_of(l, struct level, sibling);
    }
    return level;
}

#define LEVEL(...) at(config, (const int[]){ __VA_ARGS__ })
#define LOC(...) ((struct toy_loc *) level_conf(LEVEL(__VA_ARGS__), STORE_LOC, toy_slot))
#define SRV(...) ((struct toy_srv *) level_conf(LEVEL(__VA_ARGS__), STORE_SRV, toy_slot))

static const char *joined(const struct str_list *list)
{
    static char buf[256];
    size_t n = 0;

    buf[0] = '\0';
    for (unsigned i = 0; i < list->count && n < sizeof(buf); i++)
        n += (size_t) snprintf(buf + n, sizeof(buf) - n, "%s%s", i ? "," : "", list->items[i].ptr);
    return buf;
}

static void defaults(void)
{
    struct config *config = toy_read("http { server { location / { } } }");
    struct toy_loc *loc;

    if (!ok(config != NULL, "nothing set"))
        return;
    loc = LOC(-1);
    is_uint(loc->scalar, 8192, "default of a scalar");
    ok(loc->flag, "default of a flag");
    is_str(joined(&loc->whole), "one,two", "default of an array");
    is_str(loc->root.ptr, "html", "default in a group");
    is_uint(loc->never, 7, "default of a row that is not inherited");
    is_uint(LOC(0, 0, -1)->never, 7, "which is the same further down");
    config_free(config);
}

static void shared(void)
{
    struct config *config =
        toy_read("http { server { location / { location /a { } } }\n"
                 "server { location / { scalar 1; } location /b { plain 4; } } }");

    if (!ok(config != NULL, "levels that set nothing"))
        return;
    ok(LOC(0, 0, 0, -1) == LOC(-1), "share the structure of http, four levels up");
    ok(LEVEL(0, 0, 0, -1)->conf[STORE_LOC] == LEVEL(-1)->conf[STORE_LOC], "and the whole array");
    ok(LOC(1, 0, -1) != LOC(-1), "a level that sets something has its own");
    ok(level_conf(LEVEL(1, 0, -1), STORE_LOC, plain_slot) ==
           level_conf(LEVEL(-1), STORE_LOC, plain_slot),
       "of that module only");
    ok(LOC(1, 1, -1) == LOC(1, -1), "and shares the others");
    ok(SRV(1, 0, -1) == SRV(1, -1), "a location sees the server's structures");
    ok(level_conf(LEVEL(1, 0, -1), STORE_MAIN, toy_slot) != NULL, "and the main ones");
    is_uint(LOC(-1)->finished, 1, "finish once at http");
    is_uint(LOC(1, 0, -1)->finished, 1, "and once where a structure is owned");
    config_free(config);
}

static void scalars(void)
{
    struct config *config = toy_read(
        "events { limit 9; } http { scalar 1; buffer 2; server { scalar 2; name a;\n"
        " location / { flag off; location /n { } if (x) { scalar 4; } limit_except GET { scalar 5; } } }\n"
        "server { name b; buffer 3; } }");

    if (!ok(config != NULL, "scalars"))
        return;
    is_uint(((struct toy_main *) level_conf(LEVEL(0, 0, -1), STORE_MAIN, toy_slot))->limit, 9,
        "events writes into main's structure");
    is_uint(((struct toy_main *) level_conf(config->main, STORE_MAIN, toy_slot))->finished, 1,
        "which is finished once");
    is_uint(LOC(-1)->scalar, 1, "http's own");
    is_uint(LOC(0, -1)->scalar, 2, "server's own");
    is_uint(LOC(0, 0, -1)->scalar, 2, "inherited by a location that sets something else");
    ok(!LOC(0, 0, 0, -1)->flag, "a nested location inherits off");
    is_uint(LOC(0, 0, 1, -1)->scalar, 4, "if sets its own");
    ok(!LOC(0, 0, 1, -1)->flag, "and inherits the rest");
    is_uint(LOC(0, 0, 2, -1)->scalar, 5, "limit_except sets its own");
    ok(LOC(1, -1)->flag, "the other server is untouched");
    is_str(SRV(0, -1)->name.ptr, "a", "a server's name");
    is_uint(SRV(0, -1)->buffer, 2, "http's value in a server");
    is_uint(SRV(1, -1)->buffer, 3, "a server's own value");
    config_free(config);
}

static void arrays(void)
{
    struct config *config = toy_read(
        "http { whole a b; whole c; server { location / { whole x; location /n { } } location /m { } }\n"
        "server { whole \"\"; location / { } } }");

    if (!ok(config != NULL, "whole arrays"))
        return;
    is_str(joined(&LOC(-1)->whole), "a,b,c", "rows of one level add up, the default is gone");
    is_str(joined(&LOC(0, 0, -1)->whole), "x", "a level's own replaces all");
    is_str(joined(&LOC(0, 0, 0, -1)->whole), "x", "and is inherited");
    is_str(joined(&LOC(0, 1, -1)->whole), "a,b,c", "a level without inherits all");
    is_str(joined(&LOC(1, 0, -1)->whole), "", "an empty value stops it, unlike none");
    is_uint(LOC(1, 0, -1)->whole.count, 1, "since it is a value");
    config_free(config);
    config = toy_read("http { server { } }");
    is_str(joined(&LOC(0, -1)->whole), "one,two", "the default of an array");
    config_free(config);
}

static void groups(void)
{
    struct config *config = toy_read(
        "http { allow 1; deny all; root /h; header A 1; server {\n"
        " location /a { deny 2; location /b { allow 3; allow 4; } location /c { } }\n"
        " location /d { alias /x; location /e { } location /f { root /y; } }\n"
        " location /g { header B 2; location /h { scalar 1; } } } }");

    if (!ok(config != NULL, "groups"))
        return;
    is_str(joined(&LOC(-1)->rules), "allow 1,deny all", "two rows, one list, in the file's order");
    is_str(joined(&LOC(0, 0, -1)->rules), "deny 2", "a deny of its own drops the allows above too");
    is_str(joined(&LOC(0, 0, 0, -1)->rules), "allow 3,allow 4", "and an allow the denies");
    is_str(joined(&LOC(0, 0, 1, -1)->rules), "deny 2", "a level with neither inherits both");
    is_str(LOC(0, 1, -1)->alias.ptr, "/x", "alias");
    ok(LOC(0, 1, -1)->root.ptr == NULL, "with alias neither http's root nor the default is there");
    is_str(LOC(0, 1, 0, -1)->alias.ptr, "/x", "alias is inherited");
    ok(LOC(0, 1, 0, -1)->root.ptr == NULL, "together with the absence of root");
    is_str(LOC(0, 1, 1, -1)->root.ptr, "/y", "a root below");
    ok(LOC(0, 1, 1, -1)->alias.ptr == NULL, "takes alias away");
    is_str(LOC(0, 0, -1)->root.ptr, "/h", "elsewhere root is inherited");
    is_str(joined(&LOC(0, 2, -1)->headers), "header B", "headers are replaced");
    is_str(joined(&LOC(0, 2, 0, -1)->headers), "header B",
           "and inherited by a level that owns a structure");
    ok(!LOC(0, 2, 0, -1)->default_headers, "without the defaults coming back");
    config_free(config);
    config = toy_read("http { server { location / { scalar 1; } } }");
    ok(LOC(0, 0, -1)->default_headers, "nobody set a header: the defaults are there");
    config_free(config);
}

static void never(void)
{
    struct config *config = toy_read(
        "http { server { try a b; never 9; location / { location /n { scalar 3; } if (x) { } } }\n"
        "server { location / { } private; location /p { } location /q { scalar 5; } } }");

    if (!ok(config != NULL, "what is never inherited"))
        return;
    is_str(joined(&LOC(0, -1)->try), "a,b", "is there where it is set");
    ok(LOC(0, 0, -1) != LOC(0, -1), "a level that sets nothing may not share it");
    is_uint(LOC(0, 0, -1)->try.count, 0, "and has none");
    is_uint(LOC(0, -1)->never, 9, "with a default: set here");
    is_uint(LOC(0, 0, -1)->never, 7, "the default again below");
    is_uint(LOC(0, 0, -1)->scalar, 8192, "while scalars go on");
    is_uint(LOC(0, 0, 0, -1)->try.count, 0, "nor a nested location");
    is_uint(LOC(0, 0, 0, -1)->never, 7, "nor its default");
    ok(LOC(0, 0, 1, -1) == LOC(0, 0, -1), "below the copy is shared again");
    is_uint(LOC(1, -1)->private_, 1, "a member without a row is set");
    is_uint(LOC(1, 1, -1)->private_, 0, "and not seen by a level that sets nothing");
    is_uint(LOC(1, 2, -1)->private_, 0, "nor by one that does");
    config_free(config);
}

static void implicit(void)
{
    struct config *config = toy_read(
        "http { server { location / { pass up; location /n { } location /s { scalar 1; }\n"
        " if (x) { } if (y) { scalar 2; } limit_except GET { } if (z) { pass other; } } location /o { } } }");

    if (!ok(config != NULL, "implicit rows"))
        return;
    is_str(LOC(0, 0, -1)->pass.ptr, "up", "where it is set");
    is_str(LOC(0, 0, -1)->handler, "pass", "with the member that has no directive");
    ok(LOC(0, 0, 0, -1)->pass.ptr == NULL, "not in a nested location that sets nothing");
    ok(LOC(0, 0, 0, -1)->handler == NULL, "nor the handler");
    ok(LOC(0, 0, 1, -1)->pass.ptr == NULL, "nor in one that sets something");
    is_uint(LOC(0, 0, 1, -1)->scalar, 1, "which has its own value");
    ok(LOC(0, 0, 2, -1) == LOC(0, 0, -1), "an empty if shares all of it");
    is_str(LOC(0, 0, 3, -1)->pass.ptr, "up", "an if with settings inherits it");
    is_str(LOC(0, 0, 3, -1)->handler, "pass", "and the handler");
    is_str(LOC(0, 0, 4, -1)->pass.ptr, "up", "limit_except too");
    is_str(LOC(0, 0, 5, -1)->pass.ptr, "other", "and an if may have its own");
    ok(LOC(0, 1, -1)->pass.ptr == NULL, "a sibling has none");
    config_free(config);
}

static void by_block(void)
{
    struct config *config = toy_read(
        "http { buffer 5; upstream a { buffer 6; } upstream b { } server { } }");

    if (!ok(config != NULL, "one name, two blocks"))
        return;
    is_uint(SRV(2, -1)->buffer, 5, "http's row in a server");
    is_uint(((struct peer_srv *) level_conf(LEVEL(0, -1), STORE_SRV, peer_slot))->n, 6,
        "another row in upstream");
    is_uint(((struct peer_srv *) level_conf(LEVEL(2, -1), STORE_SRV, peer_slot))->n, 64,
        "with a default that finish derived one level up");
    is_uint(SRV(0, -1)->buffer, 5, "the first row's value is not changed there");
    config_free(config);
}

int main(void)
{
    static const char *const files[] = { "t.conf", NULL };

    toy_start();
    defaults();
    shared();
    scalars();
    arrays();
    groups();
    never();
    implicit();
    by_block();
    toy_end(files);
    return done_testing();
}
