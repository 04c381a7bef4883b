/* SPDX-License-Identifier: BSD-2-Clause */
/* keyval: HTTP variables that are looked up in a zone of pairs, and stored there when they are set. */
#include "core/http/req.h"
#include "modules/keyval/keyval.h"

/* configure: switch=http_keyval_module default=on */

static unsigned keyval_slot;

struct keyval_var {
    struct expr *key;
    struct res_zone *zone;
};

static bool get_keyval(struct eval *e, const struct var *v, struct str *out)
{
    const struct keyval_var *kv = (const struct keyval_var *) v->data;

    if (unlikely(kv->zone->zone == NULL))
        return false; /* there is no memory where requests are only tried */
    return keyval_match(keyval_of(kv->zone), expr_eval(e, kv->key), e->arena, out);
}

/* `set $variable value` stores the pair. What cannot be stored is still the variable's value in this request. */
static void set_keyval(struct eval *e, const struct var *v, struct str value)
{
    const struct keyval_var *kv = (const struct keyval_var *) v->data;
    enum keyval_result rc = KEYVAL_OK;

    if (likely(kv->zone->zone != NULL))
        rc = keyval_set(keyval_of(kv->zone), expr_eval(e, kv->key), value, 0, KEYVAL_PUT);
    if (rc != KEYVAL_OK)
        log_error(e->log, 0, "could not set \"%.*s\" in keyval zone \"%.*s\": %s", STR_ARG(v->name),
                  STR_ARG(kv->zone->spec.name), keyval_result_text(rc));
    var_store(e, v, value);
}

static const char *set_variable(struct conf *cf, void *field)
{
    struct keyval_var *kv = ARENA_NEW(cf->arena, struct keyval_var);
    struct str name = cf->args[2];
    const char *error = NULL;
    struct var *v;

    (void) field;
    kv->key = expr_compile(cf, cf->args[1], 0, &error);
    if (kv->key == NULL)
        return conf_error_arg(cf, 1, "%s", error);
    if (name.len < 2 || name.ptr[0] != '$')
        return conf_error_arg(cf, 2, "invalid variable name \"%.*s\"", STR_ARG(name));
    if (!str_starts(cf->args[3], STR("zone=")) || cf->args[3].len == 5)
        return conf_error_arg(cf, 3, "invalid parameter \"%.*s\"", STR_ARG(cf->args[3]));
    kv->zone = keyval_refer(cf, str_skip(cf->args[3], 5), &error);
    if (kv->zone == NULL)
        return error;
    v = var_define(cf, conf_var_space(cf), str_skip(name, 1), VAR_CHANGEABLE, &error);
    if (v == NULL)
        return conf_error_arg(cf, 2, "%s", error);
    v->get = get_keyval;
    v->set = set_keyval;
    v->data = (uintptr_t) kv;
    return NULL;
}

static const struct directive directives[] = {
    ROW_CALL("keyval", CTX_HTTP, ARGS3 | ARG_REPEAT, set_variable, STORE_MAIN,
             "key $variable zone=name",
             "A variable whose value is looked up by a key in a zone of pairs; `set` stores it there."),
    ROW_CALL("keyval_zone", CTX_HTTP, ARGS1_MORE | ARG_REPEAT, keyval_set_zone, STORE_MAIN,
             "zone=name:size [state=file] [timeout=time] [type=string | ip | prefix] [sync]",
             "Shared memory for pairs of keys and values; workers keep the state file, in a "
             "directory that they may write to."),
    ROW_END,
};

static const struct http_module http_keyval = { .variables = NULL };

const struct module module_http_keyval = {
    .name = "http_keyval",
    .slot = &keyval_slot,
    .directives = directives,
    .http = &http_keyval,
    .post = keyval_check_states,
    .worker_start = keyval_workers_start,
    .worker_stop = keyval_workers_stop,
};
