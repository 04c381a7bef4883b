/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The command line: single letters, which may stand together, where the value follows at once or as
 * the next argument; and long words, where it follows "=" or as the next argument.
 */
#include "workers/options.h"

#include <stdio.h>

#include "workers/signals.h"

/* A long word: the flag it sets, or where its value goes. */
struct word {
    const char *name;
    bool *flag;
    const char **value;
    const char *lacks;
};

/* The arguments, and where in them we are. */
struct reading {
    struct options *o;
    int argc, at;
    char *const *argv;
    char *error;
    size_t size;
};

static int PRINTF_LIKE(2, 3) wrong(struct reading *r, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(r->error, r->size, fmt, ap);
    va_end(ap);
    return -1;
}

/* What a letter that takes a value lacks, and where the value goes. */
static const char **value_of(struct options *o, char letter, const char **lacks)
{
    *lacks = "parameter";
    switch (letter) {
    case 'p':
        *lacks = "directory name";
        return &o->prefix;
    case 'c':
        *lacks = "file name";
        return &o->file;
    case 'e':
        *lacks = "file name";
        return &o->error_log;
    case 'g':
        return &o->globals;
    case 's':
        return &o->signal;
    case 'x':
        return &o->manual;
    case 'X':
        *lacks = "method";
        return &o->method;
    case 'H':
        *lacks = "header field";
        return &o->headers[MIN(o->header_count, OPTIONS_HEADERS_MAX - 1)];
    default:
        return NULL;
    }
}

static bool set_flag(struct options *o, char letter)
{
    switch (letter) {
    case '?':
    case 'h':
        o->help = o->version = true;
        return true;
    case 'v':
        o->version = true;
        return true;
    case 'V':
        o->version = o->configure = true;
        return true;
    case 't':
        o->test = true;
        return true;
    case 'T':
        o->test = o->dump = true;
        return true;
    case 'q':
        o->quiet = true;
        return true;
    default:
        return false;
    }
}

/* What follows as the next argument; or NULL. */
static const char *next(struct reading *r)
{
    return r->at + 1 < r->argc ? r->argv[++r->at] : NULL;
}

/* Letters: p is behind the dash. */
static int read_letters(struct reading *r, const char *p)
{
    struct options *o = r->o;

    for (; *p; p++) {
        const char *lacks;
        const char **value;

        if (set_flag(o, *p))
            continue;
        value = value_of(o, *p, &lacks);
        if (!value)
            return wrong(r, "invalid option: \"%c\"", *p);
        *value = p[1] ? p + 1 : next(r);
        if (!*value)
            return wrong(r, "option \"-%c\" requires %s", *p, lacks);
        if (*p == 'H' && ++o->header_count > OPTIONS_HEADERS_MAX)
            return wrong(r, "too many options \"-H\", the limit is %d", OPTIONS_HEADERS_MAX);
        return 0;
    }
    return 0;
}

/* A long word, which begins behind the two dashes. */
static int read_word(struct reading *r, const char *word)
{
    struct options *o = r->o;
    const struct word words[] = {
        { "help", &o->help, NULL, NULL },
        { "version", &o->version, NULL, NULL },
        { "lint", &o->lint, NULL, NULL },
        { "offline", &o->offline, NULL, NULL },
        { "json", &o->json, NULL, NULL },
        { "explain", NULL, &o->explain, "URL" },
        { "from", NULL, &o->from, "address" },
        { "to", NULL, &o->to, "address" },
    };
    size_t len = strcspn(word, "=");

    for (unsigned i = 0; i < ARRAY_LEN(words); i++) {
        const struct word *w = &words[i];

        if (strlen(w->name) != len || strncmp(w->name, word, len) != 0)
            continue;
        if (w->flag && word[len] == '=')
            return wrong(r, "option \"--%s\" takes no value", w->name);
        if (w->flag) {
            *w->flag = true;
            return 0;
        }
        *w->value = word[len] == '=' ? word + len + 1 : next(r);
        /* None of these values begins with a dash: that is the next option. */
        if (!*w->value || !**w->value || **w->value == '-')
            return wrong(r, "option \"--%s\" requires %s", w->name, w->lacks);
        return 0;
    }
    return wrong(r, "invalid option: \"--%s\"", word);
}

/* What needs what beside it. */
static int check_company(struct reading *r)
{
    const struct options *o = r->o;

    if (o->offline && !o->test && !o->explain)
        return wrong(r, "option \"--offline\" requires \"-t\" or \"--explain\"");
    if (o->json && !o->test && !o->explain)
        return wrong(r, "option \"--json\" requires \"-t\", \"--lint\" or \"--explain\"");
    if (o->json && o->dump)
        return wrong(r, "options \"--json\" and \"-T\" exclude each other");
    if (o->explain && o->test)
        return wrong(r, "options \"--explain\" and \"%s\" exclude each other",
                     o->lint ? "--lint" : "-t");
    if (o->explain && o->signal)
        return wrong(r, "options \"--explain\" and \"-s\" exclude each other");
    if (o->method && !o->explain)
        return wrong(r, "option \"-X\" requires \"--explain\"");
    if ((o->from || o->to) && !o->explain)
        return wrong(r, "option \"--%s\" requires \"--explain\"", o->from ? "from" : "to");
    if (o->header_count && !o->explain)
        return wrong(r, "option \"-H\" requires \"--explain\"");
    return 0;
}

static int check_values(struct reading *r)
{
    struct options *o = r->o;

    if (o->signal && (o->signal_number = signal_by_word(o->signal)) == 0)
        return wrong(r, "invalid option: \"-s %s\"", o->signal);
    if (o->manual && strcmp(o->manual, "directives") != 0)
        return wrong(r, "invalid option: \"-x %s\"", o->manual);
    if (o->method && !*o->method)
        return wrong(r, "option \"-X\" requires method");
    for (unsigned i = 0; i < o->header_count; i++) {
        const char *colon = strchr(o->headers[i], ':');

        if (!colon || colon == o->headers[i])
            return wrong(r, "invalid option: \"-H %s\"", o->headers[i]);
    }
    return 0;
}

int options_parse(struct options *o, int argc, char *const *argv, char *error, size_t size)
{
    struct reading r = { .o = o, .argc = argc, .argv = argv, .error = error, .size = size };

    memset(o, 0, sizeof(*o));
    for (r.at = 1; r.at < argc; r.at++) {
        const char *arg = argv[r.at];
        int rc;

        if (arg[0] != '-')
            return wrong(&r, "invalid option: \"%s\"", arg);
        if (arg[1] == '-' && arg[2])
            rc = read_word(&r, arg + 2);
        else
            rc = read_letters(&r, arg + 1);
        if (rc)
            return rc;
    }
    o->version |= o->help;
    o->test |= o->lint;
    return check_company(&r) ? -1 : check_values(&r);
}
