/* SPDX-License-Identifier: BSD-2-Clause */
/* allow and deny: the first rule that fits the client's address decides. */
#include "core/http/client.h"

/* configure: switch=http_access_module default=on */

static unsigned access_slot;

enum rule_kind { RULE_NET, RULE_UNIX, RULE_ALL };

struct rule {
    enum rule_kind kind;
    bool deny;
    struct cidr net;
    struct str text; /* "deny 10.0.0.0/8" */
    struct conf_pos pos;
};

struct rules {
    struct rule *items;
    unsigned count, capacity;
};

struct access_conf {
    struct rules rules;
};

static bool fits(const struct rule *rule, const struct sockaddr *sa)
{
    switch (rule->kind) {
    case RULE_ALL:
        return true;
    case RULE_UNIX:
        return sa->sa_family == AF_UNIX;
    case RULE_NET:
        break;
    }
    return sa->sa_family != AF_UNIX && cidr_match(&rule->net, sa);
}

static enum verdict access_run(struct req *r)
{
    const struct access_conf *conf = req_loc_conf(r, access_slot);
    struct addr room;
    const struct addr *peer = req_peer(r, &room);

    for (unsigned i = 0; i < conf->rules.count; i++) {
        const struct rule *rule = &conf->rules.items[i];

        if (!fits(rule, &peer->sa))
            continue;
        if (!rule->deny) {
            req_trace(r, rule->pos, "access granted by \"%.*s\"", STR_ARG(rule->text));
            return V_ALLOW;
        }
        if (r->loc->core->satisfy == SATISFY_ALL)
            log_error(&r->log, 0, "access forbidden by rule");
        req_refused(r, rule->pos, "access forbidden by \"%.*s\"", STR_ARG(rule->text));
        return req_status(r, 403);
    }
    return V_NEXT;
}

static const char *set_rule(struct conf *cf, void *field)
{
    struct rules *rules = field;
    struct rule rule = { .deny = cf->args[0].ptr[0] == 'd', .pos = cf->pos };
    struct str text = cf->args[1];

    rule.text = str_printf(cf->arena, "%.*s %.*s", STR_ARG(cf->args[0]), STR_ARG(text));
    if (str_eq(text, STR("all"))) {
        rule.kind = RULE_ALL;
    } else if (str_eq(text, STR("unix:"))) {
        rule.kind = RULE_UNIX;
    } else {
        int rc = cidr_parse(&rule.net, text);

        if (rc < 0)
            return conf_error_arg(cf, 1, "invalid parameter \"%.*s\"", STR_ARG(text));
        if (rc > 0)
            conf_warn_at(cf, cf->arg_pos[1], "low address bits of %.*s are meaningless",
                         STR_ARG(text));
    }
    rules->items = arena_grow(cf->arena, rules->items, rules->count, &rules->capacity,
                              sizeof(*rules->items));
    rules->items[rules->count++] = rule;
    return NULL;
}

static bool access_wanted(const struct level *level)
{
    const struct access_conf *conf = level_conf(level, STORE_LOC, access_slot);

    return conf->rules.count > 0;
}

static const struct directive directives[] = {
    ROW("allow", CTX_HSL | CTX_LIMIT_EXCEPT, ARGS1 | ARG_REPEAT, set_rule, STORE_LOC,
        struct access_conf, rules, INHERIT_WHOLE, NULL, "address | CIDR | unix: | all",
        "Allows access for an address or a network.", .group = 1),
    ROW("deny", CTX_HSL | CTX_LIMIT_EXCEPT, ARGS1 | ARG_REPEAT, set_rule, STORE_LOC,
        struct access_conf, rules, INHERIT_WHOLE, NULL, "address | CIDR | unix: | all",
        "Denies access for an address or a network.", .group = 1),
    ROW_END,
};

static const struct hook hooks[] = {
    { PHASE_ACCESS, HOOK_ACCESS, access_run, access_wanted },
    HOOK_END,
};

static const struct http_module http_access = { .hooks = hooks };

const struct module module_http_access = {
    .name = "http_access",
    .slot = &access_slot,
    .conf_size = { [STORE_LOC] = sizeof(struct access_conf) },
    .directives = directives,
    .http = &http_access,
};
