/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * if, elif, else: conditions, read and tested. nginx's own forms ($variable, $variable OPERATOR
 * value, -f path) keep their meaning to the byte; where the words are none of them, conditions may be
 * combined with "and", "or", "not" and parentheses. rewrite.c runs the chain.
 */
#include <errno.h>

#include "modules/http/file_cache.h"
#include "modules/http/rewrite.h"

#define PARENTHESES_MAX 16

/* Testing ---------------------------------------------------------------------------------------- */

static bool is_true(struct str s)
{
    return s.len > 0 && !(s.len == 1 && s.ptr[0] == '0');
}

static bool test_file(struct req *r, const struct condition *c, const struct run *run)
{
    struct str path = rewrite_value(r, &c->operand, run);
    struct file_info info;

    if (path.len == 0)
        return false; /* no name is not the prefix's */
    if (path.ptr[0] != '/') {
        path = str_printf(r->arena, "%s%.*s", r->server->config->prefix, STR_ARG(path));
        path.ptr = str_z(r->arena, path);
    }
    if (file_lookup(r, path, 0, &info) != 0) {
        if (info.err != ENOENT && info.err != ENOTDIR && info.err != ENAMETOOLONG)
            log_crit(&r->log, info.err, "%s \"%.*s\" failed", info.failed, STR_ARG(path));
        return false;
    }
    switch (c->test) {
    case IF_FILE: return S_ISREG(info.mode);
    case IF_DIR: return S_ISDIR(info.mode);
    case IF_EXEC: return (info.mode & S_IXUSR) != 0;
    default: return true;
    }
}

/* The inner conditions, as far as they matter. The depth is limited when they are read. */
static int test_inner(struct req *r, const struct condition *c, const struct run *run)
{
    bool all = c->test == IF_ALL;

    for (const struct condition *x = c->inner; x != NULL; x = x->next) {
        int rc = condition_test(r, x, run);

        if (rc < 0 || (rc == 0) == all)
            return rc;
    }
    return all;
}

int condition_test(struct req *r, const struct condition *c, const struct run *run)
{
    struct str value = STR("");
    int yes;

    if (c->var != NULL)
        var_value(&r->eval, c->var, &value);
    switch (c->test) {
    case IF_TRUE: yes = is_true(value); break;
    case IF_EQUAL: yes = str_eq(value, rewrite_value(r, &c->operand, run)); break;
    case IF_REGEX: yes = rewrite_match(r, c->regex, c->captures, value, run->log); break;
    case IF_ALL:
    case IF_ANY: yes = test_inner(r, c, run); break;
    default: yes = test_file(r, c, run);
    }
    return yes < 0 ? -1 : (yes != 0) != c->negated;
}

/* One condition, in the words from..last ---------------------------------------------------------- */

static const char *invalid(struct conf *cf, unsigned arg)
{
    return conf_error_arg(cf, arg, "invalid condition \"%.*s\"", STR_ARG(cf->args[arg]));
}

static bool is_operator(struct str op)
{
    if (op.len > 0 && op.ptr[0] == '!')
        op = str_skip(op, 1);
    return str_eq(op, STR("=")) || str_eq(op, STR("~")) || str_eq(op, STR("~*"));
}

/* Those with an unknown letter too: they are errors. */
static bool is_file_test(struct str op)
{
    return (op.len == 2 && op.ptr[0] == '-') ||
           (op.len == 3 && op.ptr[0] == '!' && op.ptr[1] == '-');
}

/* $variable [operator operand] */
static const char *variable_condition(struct conf *cf, unsigned cur, unsigned last,
                                      struct condition *c)
{
    struct str op, name = str_skip(cf->args[cur], 1);

    if (cur != last && cur + 2 != last)
        return invalid(cf, cur);
    c->var = var_refer(cf, conf_var_space(cf), name);
    c->test = IF_TRUE;
    if (cur == last)
        return NULL;
    op = cf->args[cur + 1];
    if (!is_operator(op))
        return conf_error_arg(cf, cur + 1, "unexpected \"%.*s\" in condition", STR_ARG(op));
    c->negated = op.ptr[0] == '!';
    if (c->negated)
        op = str_skip(op, 1);
    if (op.ptr[0] == '=') {
        c->test = IF_EQUAL;
        return rewrite_compile(cf, last, 0, &c->operand);
    }
    c->test = IF_REGEX;
    return http_regex(cf, last, cf->args[last], op.len == 2, &c->regex, &c->captures);
}

/* -f path, !-f path … */
static const char *file_condition(struct conf *cf, unsigned cur, unsigned last, struct condition *c)
{
    struct str op = cf->args[cur];

    if (cur + 1 != last)
        return invalid(cf, cur);
    c->negated = op.ptr[0] == '!';
    switch (op.ptr[op.len - 1]) {
    case 'f': c->test = IF_FILE; break;
    case 'd': c->test = IF_DIR; break;
    case 'e': c->test = IF_EXISTS; break;
    case 'x': c->test = IF_EXEC; break;
    default: return invalid(cf, cur);
    }
    return rewrite_compile(cf, last, EXPR_Z, &c->operand);
}

static const char *simple_condition(struct conf *cf, unsigned cur, unsigned last,
                                    struct condition *c)
{
    struct str s = cf->args[cur];

    if (s.len > 1 && s.ptr[0] == '$')
        return variable_condition(cf, cur, last, c);
    if (is_file_test(s))
        return file_condition(cf, cur, last, c);
    return invalid(cf, cur);
}

/* Conditions combined ------------------------------------------------------------------------------ */

/*
 * or := and { "or" and };  and := item { "and" item };  item := { "not" } ( "(" or ")" | condition ).
 * A parenthesis may touch the word beside it. Of a value only those at its end that have no partner in it
 * are taken, so that ~ ^/(a|b) keeps its own; a word in quotes keeps them all.
 */
struct reader {
    struct conf *cf;
    unsigned at;     /* the next word */
    unsigned closes; /* ")" taken off the end of the word before */
    unsigned depth;
};

static bool at_end(const struct reader *rd)
{
    return rd->at >= rd->cf->nargs;
}

static const char *read_any(struct reader *rd, struct condition **out);

/* An unquoted word that stands alone. */
static bool is_word(const struct conf *cf, unsigned n, struct str word)
{
    return str_eq(cf->args[n], word) && !conf_arg_quoted(cf, n);
}

static bool accept_word(struct reader *rd, struct str word)
{
    if (rd->closes > 0 || at_end(rd) || !is_word(rd->cf, rd->at, word))
        return false;
    rd->at++;
    return true;
}

/* A parenthesis at the front of the next word. */
static bool accept_paren(struct reader *rd, char c)
{
    struct str *s;

    if (at_end(rd) || conf_arg_quoted(rd->cf, rd->at))
        return false;
    s = &rd->cf->args[rd->at];
    if (s->len == 0 || s->ptr[0] != c)
        return false;
    *s = str_skip(*s, 1);
    if (s->len == 0)
        rd->at++;
    return true;
}

/* Takes the ")" without a partner off the end of a word. */
static void take_closes(struct reader *rd, unsigned n)
{
    struct str *s = &rd->cf->args[n];
    int open = 0;

    if (conf_arg_quoted(rd->cf, n))
        return;
    for (size_t i = 0; i < s->len; i++) {
        if (s->ptr[i] == '\\')
            i++;
        else if (s->ptr[i] == '(' || s->ptr[i] == ')')
            open += s->ptr[i] == '(' ? 1 : -1;
    }
    for (; open < 0 && s->len > 0 && s->ptr[s->len - 1] == ')'; open++) {
        *s = str_dup(rd->cf->arena, str_from(s->ptr, s->len - 1));
        rd->closes++;
    }
}

static const char *unexpected_end(const struct reader *rd)
{
    return conf_error_arg(rd->cf, rd->cf->nargs - 1, "unexpected end of condition");
}

static const char *read_condition(struct reader *rd, struct condition **out)
{
    struct conf *cf = rd->cf;
    unsigned first = rd->at, last = first;

    if (is_file_test(cf->args[first])) {
        last = first + 1;
    } else {
        take_closes(rd, first);
        if (rd->closes == 0 && first + 1 < cf->nargs && is_operator(cf->args[first + 1]))
            last = first + 2;
    }
    if (last >= cf->nargs)
        return unexpected_end(rd);
    if (last > first)
        take_closes(rd, last);
    if (rd->closes > 0 && cf->args[last].len == 0)
        return conf_error_arg(cf, last, "unexpected \")\" in condition");
    rd->at = last + 1;
    *out = ARENA_NEW(cf->arena, struct condition);
    return simple_condition(cf, first, last, *out);
}

static const char *read_item(struct reader *rd, struct condition **out)
{
    bool negated = false;
    const char *error;

    while (accept_word(rd, STR("not")))
        negated = !negated;
    if (rd->closes > 0 || at_end(rd))
        return unexpected_end(rd);
    if (accept_paren(rd, '(')) {
        if (++rd->depth > PARENTHESES_MAX)
            return conf_error(rd->cf, "too many nested parentheses in condition");
        error = read_any(rd, out);
        if (error != NULL)
            return error;
        if (rd->closes > 0)
            rd->closes--;
        else if (at_end(rd))
            return unexpected_end(rd);
        else if (!accept_paren(rd, ')'))
            return conf_error_arg(rd->cf, rd->at, "unexpected \"%.*s\" in condition",
                                  STR_ARG(rd->cf->args[rd->at]));
        rd->depth--;
    } else if ((error = read_condition(rd, out)) != NULL) {
        return error;
    }
    (*out)->negated ^= negated;
    return NULL;
}

/* Items with one word between them. */
static const char *read_list(struct reader *rd, enum if_test test, struct condition **out)
{
    struct str word = test == IF_ALL ? STR("and") : STR("or");
    struct condition *list, **end;
    const char *error;

    if (test == IF_ALL)
        error = read_item(rd, out);
    else
        error = read_list(rd, IF_ALL, out);
    if (error != NULL || !accept_word(rd, word))
        return error;
    list = ARENA_NEW(rd->cf->arena, struct condition);
    list->test = test;
    list->inner = *out;
    end = &list->inner->next;
    do {
        error = test == IF_ALL ? read_item(rd, end) : read_list(rd, IF_ALL, end);
        if (error != NULL)
            return error;
        end = &(*end)->next;
    } while (accept_word(rd, word));
    *out = list;
    return NULL;
}

static const char *read_any(struct reader *rd, struct condition **out)
{
    return read_list(rd, IF_ANY, out);
}

static const char *combined_condition(struct conf *cf, struct condition **out)
{
    struct reader rd = { .cf = cf, .at = 1 };
    const char *error = read_any(&rd, out);

    if (error != NULL)
        return error;
    if (rd.closes > 0)
        return conf_error_arg(cf, rd.at - 1, "unexpected \")\" in condition");
    if (!at_end(&rd))
        return conf_error_arg(cf, rd.at, "unexpected \"%.*s\" in condition",
                              STR_ARG(cf->args[rd.at]));
    return NULL;
}

/*
 * Whether the words cur..last, without the outer parentheses, are more than one condition of nginx's:
 * there is one of our words where nginx has no place for it.
 */
static bool is_combined(const struct conf *cf, unsigned cur, unsigned last)
{
    struct str s = cf->args[cur];

    if (cur == last || (cur + 2 == last && is_operator(cf->args[cur + 1])) ||
        (cur + 1 == last && is_file_test(s)))
        return s.len > 0 && s.ptr[0] == '(' && !conf_arg_quoted(cf, cur);
    if (s.len > 0 && s.ptr[0] == '(')
        return true;
    for (unsigned i = cur; i <= last; i++) {
        if (is_word(cf, i, STR("and")) || is_word(cf, i, STR("or")) || is_word(cf, i, STR("not")))
            return true;
    }
    return false;
}

/* The directive's words, for people. */
static struct str words_of(struct conf *cf)
{
    struct str s = cf->args[0];

    for (unsigned i = 1; i < cf->nargs; i++) {
        const char *q = conf_arg_quoted(cf, i) ? "\"" : "";

        s = str_printf(cf->arena, "%.*s %s%.*s%s", STR_ARG(s), q, STR_ARG(cf->args[i]), q);
    }
    return s;
}

static const char *parse_condition(struct conf *cf, struct condition **out)
{
    unsigned cur = 1, last = cf->nargs - 1;
    struct str first = cf->args[1], end = cf->args[last], s;

    if (first.len == 0 || first.ptr[0] != '(')
        return invalid(cf, cur);
    cf->args[cur] = str_skip(first, 1);
    if (cf->args[cur].len == 0)
        cur++;
    s = cf->args[last];
    if (cur > last || s.len == 0 || s.ptr[s.len - 1] != ')')
        return invalid(cf, last);
    if (s.len == 1)
        last--;
    else
        cf->args[last] = str_dup(cf->arena, str_from(s.ptr, s.len - 1));
    if (last < cur)
        return invalid(cf, cur);
    if (is_combined(cf, cur, last)) {
        cf->args[cf->nargs - 1] = end;
        cf->args[1] = first;
        return combined_condition(cf, out);
    }
    *out = ARENA_NEW(cf->arena, struct condition);
    return simple_condition(cf, cur, last, *out);
}

/* The directives ----------------------------------------------------------------------------------- */

static struct if_code *chain_at(struct conf *cf, struct level *level, unsigned place)
{
    return &rewrite_conf_of(cf, level)->codes->items[place].cond;
}

/* Reads the block that follows as the chain's next arm. */
static const char *add_arm(struct conf *cf, unsigned place, const struct if_arm *given)
{
    struct if_code *chain = chain_at(cf, cf->level, place);
    struct if_arm *arm;
    struct level *level;
    const char *error;

    chain->arms = arena_grow(cf->arena, chain->arms, chain->count, &chain->capacity, sizeof(*arm));
    arm = &chain->arms[chain->count++];
    *arm = *given;
    arm->pos = cf->pos;
    arm->loc = http_if_location(cf, &level);
    error = conf_block(cf, level);
    /* The chain may have moved meanwhile, but none can be inside another: the arms have not. */
    arm->inner = rewrite_conf_of(cf, level)->codes;
    return error;
}

const char *set_if(struct conf *cf, void *field)
{
    struct if_arm arm = { .text = words_of(cf) };
    const char *error = parse_condition(cf, &arm.condition);

    (void) field;
    if (error != NULL)
        return error;
    rewrite_add_code(cf, CODE_IF);
    return add_arm(cf, rewrite_conf_of(cf, cf->level)->codes->count - 1, &arm);
}

/* elif or else belong to the chain whose last arm stands right before them. */
static const char *continue_chain(struct conf *cf, const struct if_arm *arm)
{
    const struct code_list *codes = rewrite_conf_of(cf, cf->level)->codes;
    const char *before = cf->before ? cf->before->name : "";

    if (strcmp(before, "if") != 0 && strcmp(before, "elif") != 0)
        return conf_error_arg(cf, 0, "\"%s\" directive must follow \"if\" or \"elif\"",
                              cf->args[0].ptr);
    if (codes == NULL || codes->count == 0 || codes->items[codes->count - 1].op != CODE_IF) {
        /* The first one was wrong, and said so. Ours goes on by itself. */
        rewrite_add_code(cf, CODE_IF);
        codes = rewrite_conf_of(cf, cf->level)->codes;
    }
    return add_arm(cf, codes->count - 1, arm);
}

const char *set_elif(struct conf *cf, void *field)
{
    struct if_arm arm = { .text = words_of(cf) };
    const char *error = parse_condition(cf, &arm.condition);

    (void) field;
    return error != NULL ? error : continue_chain(cf, &arm);
}

const char *set_else(struct conf *cf, void *field)
{
    struct if_arm arm = { .text = STR("else") };

    (void) field;
    if (cf->nargs > 1 && str_eq(cf->args[1], STR("if")))
        return conf_error_arg(cf, 1, "\"else if\" is written \"elif\"");
    if (cf->nargs > 1)
        return conf_error(cf, "invalid number of arguments in \"else\" directive");
    return continue_chain(cf, &arm);
}
