/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The commands of server side includes but include itself: what each takes, where it may stand,
 * what it does. Errors are logged here in nginx's words; the page shows errmsg.
 */
#include "modules/http/ssi_commands.h"

#include "core/base/clock.h"
#include "core/base/fmt.h"

#define DATE_MAX 2048

/* Dates --------------------------------------------------------------------------------------- */

struct str ssi_date(struct arena *arena, struct str format, bool gmt)
{
    char text[DATE_MAX];
    time_t now = clock_time();
    struct tm tm;

    if (str_eq(format, STR("%s")))
        return str_printf(arena, "%lld", (long long) now);
    if (gmt)
        gmtime_r(&now, &tm);
    else
        localtime_r(&now, &tm);
    return str_dup(arena, str_from(text, strftime(text, sizeof(text), str_z(arena, format), &tm)));
}

static bool get_date(struct eval *e, const struct var *v, struct str *out)
{
    struct req *r = req_of(e);
    const struct ssi_request *q = req_ctx(r, ssi_slot);

    *out = ssi_date(r->arena, q != NULL && q->pass != NULL ? q->pass->timefmt : SSI_TIMEFMT,
                    v->data != 0);
    return true;
}

const struct var_row ssi_variables[] = {
    { "date_local", get_date, NULL, 0, VAR_FRESH },
    { "date_gmt", get_date, NULL, 1, VAR_FRESH },
    { NULL, NULL, NULL, 0, 0 },
};

/* echo ---------------------------------------------------------------------------------------- */

enum { ECHO_VAR, ECHO_DEFAULT, ECHO_ENCODING };

/* Quotes, blanks, what is special in HTML or in a URI, controls, bytes above ASCII. */
static bool escaped_in_url(unsigned char c)
{
    return c <= ' ' || c >= 0x7f || strchr("\"#%'<>\\^`{|}", c) != NULL;
}

/* Bytes come by reference to block (NULL: they outlive the answer), entities between them. */
static void put_escaped(struct chain *out, struct block *block, struct str s, bool url)
{
    static const char hex[] = "0123456789ABCDEF";
    size_t from = 0;

    for (size_t i = 0; i < s.len; i++) {
        unsigned char c = (unsigned char) s.ptr[i];
        struct str entity = STR_NULL;
        char percent[3];

        if (url && escaped_in_url(c)) {
            percent[0] = '%';
            percent[1] = hex[c >> 4];
            percent[2] = hex[c & 15];
            entity = str_from(percent, 3);
        } else if (!url) {
            entity = c == '<'   ? STR("&lt;")
                     : c == '>' ? STR("&gt;")
                     : c == '&' ? STR("&amp;")
                     : c == '"' ? STR("&quot;")
                                : STR_NULL;
        }
        if (entity.len == 0)
            continue;
        ssi_put(out, block, str_from(s.ptr + from, i - from));
        chain_write(out, entity.ptr, entity.len);
        from = i + 1;
    }
    ssi_put(out, block, str_skip(s, from));
}

void ssi_put(struct chain *out, struct block *block, struct str s)
{
    /* A piece costs more than a short copy. */
    if (s.len < 256)
        chain_write(out, s.ptr, s.len);
    else
        chain_push_mem(out, block, s.ptr, s.len);
}

static enum ssi_result run_echo(struct ssi *s, const struct str *const *params, struct chain *out)
{
    const struct str *encoding = params[ECHO_ENCODING];
    struct block *block = NULL;
    struct str value;

    if (!ssi_shared_find(s->shared, *params[ECHO_VAR], &value, &block) &&
        !var_by_name(&s->r->eval, *params[ECHO_VAR], &value)) {
        /* The parser's memory does not last: a short copy is always made, a long one here. */
        value = params[ECHO_DEFAULT] == NULL ? STR("(none)") : *params[ECHO_DEFAULT];
        if (value.len >= 256)
            value = str_dup(s->r->arena, value);
    }
    if (value.len == 0)
        return SSI_OK;
    if (encoding == NULL)
        ;
    else if (str_eq(*encoding, STR("none")))
        s->encoding = SSI_PLAIN;
    else if (str_eq(*encoding, STR("url")))
        s->encoding = SSI_URL;
    else if (str_eq(*encoding, STR("entity")))
        s->encoding = SSI_ENTITY;
    else
        log_error(&s->r->log, 0, "unknown encoding \"%.*s\" in the \"echo\" command",
                  STR_ARG(*encoding));
    if (s->encoding == SSI_PLAIN)
        ssi_put(out, block, value);
    else
        put_escaped(out, block, value, s->encoding == SSI_URL);
    return SSI_OK;
}

/* config, set --------------------------------------------------------------------------------- */

enum { CONFIG_TIMEFMT, CONFIG_ERRMSG };

static enum ssi_result run_config(struct ssi *s, const struct str *const *params, struct chain *out)
{
    (void) out;
    if (params[CONFIG_TIMEFMT] != NULL)
        s->timefmt = str_dup(s->r->arena, *params[CONFIG_TIMEFMT]);
    if (params[CONFIG_ERRMSG] != NULL)
        s->errmsg = str_dup(s->r->arena, *params[CONFIG_ERRMSG]);
    return SSI_OK;
}

enum { SET_VAR, SET_VALUE };

static enum ssi_result run_set(struct ssi *s, const struct str *const *params, struct chain *out)
{
    struct str value;

    (void) out;
    if (ssi_evaluate(&s->scope, *params[SET_VALUE], 0, &value) != 0 ||
        !ssi_shared_set(s->shared, *params[SET_VAR], value, &s->r->log))
        return SSI_FAILED;
    return SSI_OK;
}

/* if, elif, else, endif ----------------------------------------------------------------------- */

static enum ssi_result run_elif(struct ssi *s, const struct str *const *params, struct chain *out)
{
    int holds;

    (void) out;
    if (s->chosen) {
        s->output = false;
        return SSI_OK;
    }
    holds = ssi_condition(&s->scope, *params[0]);
    if (holds < 0)
        return SSI_FAILED;
    s->output = s->chosen = holds;
    s->conditional = SSI_IF;
    return SSI_OK;
}

static enum ssi_result run_if(struct ssi *s, const struct str *const *params, struct chain *out)
{
    if (s->conditional != SSI_NO_IF) {
        log_error(&s->r->log, 0, "the \"if\" command inside the \"if\" command");
        return SSI_FAILED;
    }
    return run_elif(s, params, out);
}

static enum ssi_result run_else(struct ssi *s, const struct str *const *params, struct chain *out)
{
    (void) params;
    (void) out;
    s->output = !s->chosen;
    s->conditional = SSI_ELSE;
    return SSI_OK;
}

static enum ssi_result run_endif(struct ssi *s, const struct str *const *params, struct chain *out)
{
    (void) params;
    (void) out;
    s->output = true;
    s->chosen = false;
    s->conditional = SSI_NO_IF;
    return SSI_OK;
}

/* block, endblock ----------------------------------------------------------------------------- */

static enum ssi_result run_block(struct ssi *s, const struct str *const *params, struct chain *out)
{
    (void) out;
    ssi_shared_block_end(s->shared, &s->current);
    s->current = ssi_shared_block(s->shared, *params[0]);
    s->output = false;
    s->block = true;
    return SSI_OK;
}

static enum ssi_result run_endblock(struct ssi *s, const struct str *const *params,
                                    struct chain *out)
{
    (void) params;
    (void) out;
    ssi_shared_block_end(s->shared, &s->current);
    s->output = true;
    s->block = false;
    return SSI_OK;
}

/* A command in a block is for whoever shows the block: it is kept as text. */
static enum ssi_result keep_command(struct ssi *s)
{
    const struct ssi_parser *p = &s->parser;
    struct chain text = CHAIN_INIT;

    chain_printf(&text, "<!--#%.*s", STR_ARG(p->command));
    for (unsigned i = 0; i < MIN(p->param_count, (unsigned) SSI_PARAMS_MAX); i++) {
        const struct ssi_param *param = &p->params[i];
        char quote = str_chr(param->value, '"') < 0 ? '"' : param->quote;

        chain_printf(&text, " %.*s=%c", STR_ARG(param->name), quote);
        chain_write(&text, param->value.ptr, param->value.len);
        chain_write(&text, &quote, 1);
    }
    chain_write(&text, " -->", 4);
    return ssi_shared_add(s->shared, &s->current, &text, &s->r->log) ? SSI_OK : SSI_FAILED;
}

/* Which command ------------------------------------------------------------------------------- */

struct param_row {
    const char *name; /* NULL ends */
    unsigned index;
    bool mandatory;
};

struct command_row {
    const char *name;
    enum ssi_result (*run)(struct ssi *s, const struct str *const *params, struct chain *out);
    const struct param_row *params;
    enum ssi_condition
        latest;    /* where in an if it may stand: not behind this; SSI_NO_IF: anywhere */
    bool in_block; /* ends a block, so that it is carried out in one */
};

static const struct param_row no_params[] = { { NULL, 0, false } };
static const struct param_row echo_params[] = { { "var", ECHO_VAR, true },
                                                { "default", ECHO_DEFAULT, false },
                                                { "encoding", ECHO_ENCODING, false },
                                                { NULL, 0, false } };
static const struct param_row config_params[] = { { "errmsg", CONFIG_ERRMSG, false },
                                                  { "timefmt", CONFIG_TIMEFMT, false },
                                                  { NULL, 0, false } };
static const struct param_row set_params[] = { { "var", SET_VAR, true },
                                               { "value", SET_VALUE, true },
                                               { NULL, 0, false } };
static const struct param_row if_params[] = { { "expr", 0, true }, { NULL, 0, false } };
static const struct param_row block_params[] = { { "name", 0, true }, { NULL, 0, false } };
static const struct param_row include_params[] = {
    { "virtual", INCLUDE_VIRTUAL, false }, { "file", INCLUDE_FILE, false },
    { "wait", INCLUDE_WAIT, false },       { "set", INCLUDE_SET, false },
    { "stub", INCLUDE_STUB, false },       { NULL, 0, false }
};

static const struct command_row commands[] = {
    { "include", ssi_include, include_params, SSI_NO_IF, false },
    { "echo", run_echo, echo_params, SSI_NO_IF, false },
    { "config", run_config, config_params, SSI_NO_IF, false },
    { "set", run_set, set_params, SSI_NO_IF, false },
    { "if", run_if, if_params, SSI_NO_IF, false },
    { "elif", run_elif, if_params, SSI_IF, false },
    { "else", run_else, no_params, SSI_IF, false },
    { "endif", run_endif, no_params, SSI_ELSE, false },
    { "block", run_block, block_params, SSI_NO_IF, false },
    { "endblock", run_endblock, no_params, SSI_NO_IF, true },
};

#define PARAMS_LAST INCLUDE_STUB

static const struct command_row *find_command(struct str name)
{
    for (size_t i = 0; i < ARRAY_LEN(commands); i++) {
        if (str_eq(name, str_cstr(commands[i].name)))
            return &commands[i];
    }
    return NULL;
}

/* Sorts the parameters by what they are for. False: logged. */
static bool sort_params(struct ssi *s, const struct command_row *row, const struct str **sorted)
{
    const struct ssi_parser *p = &s->parser;
    const struct logger *log = &s->r->log;

    if (p->param_count > SSI_PARAMS_MAX) {
        log_error(log, 0, "too many SSI command parameters: \"%.*s\"", STR_ARG(p->command));
        return false;
    }
    for (unsigned i = 0; i < p->param_count; i++) {
        const struct param_row *known = row->params;

        while (known->name != NULL && !str_eq(p->params[i].name, str_cstr(known->name)))
            known++;
        if (known->name == NULL) {
            log_error(log, 0, "invalid parameter name: \"%.*s\" in \"%.*s\" SSI command",
                      STR_ARG(p->params[i].name), STR_ARG(p->command));
            return false;
        }
        if (sorted[known->index] != NULL) {
            log_error(log, 0, "duplicate \"%s\" parameter in \"%.*s\" SSI command", known->name,
                      STR_ARG(p->command));
            return false;
        }
        sorted[known->index] = &p->params[i].value;
    }
    for (const struct param_row *known = row->params; known->name != NULL; known++) {
        if (known->mandatory && sorted[known->index] == NULL) {
            log_error(log, 0, "mandatory \"%s\" parameter is absent in \"%.*s\" SSI command",
                      known->name, STR_ARG(p->command));
            return false;
        }
    }
    return true;
}

enum ssi_result ssi_command(struct ssi *s, struct chain *out)
{
    const struct command_row *row = find_command(s->parser.command);
    const struct str *params[PARAMS_LAST + 1] = { NULL };

    if (row == NULL) {
        if (!s->output)
            return SSI_OK;
        log_error(&s->r->log, 0, "invalid SSI command: \"%.*s\"", STR_ARG(s->parser.command));
        return SSI_FAILED;
    }
    if (!s->output && !row->in_block) {
        if (s->block)
            return keep_command(s);
        if (row->latest == SSI_NO_IF)
            return SSI_OK;
    }
    if (row->latest != SSI_NO_IF && (s->conditional == SSI_NO_IF || s->conditional > row->latest)) {
        log_error(&s->r->log, 0, "invalid context of SSI command: \"%.*s\"",
                  STR_ARG(s->parser.command));
        return SSI_FAILED;
    }
    if (!sort_params(s, row, params))
        return SSI_FAILED;
    return row->run(s, params, out);
}
