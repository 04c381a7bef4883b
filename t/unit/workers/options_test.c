/* SPDX-License-Identifier: BSD-2-Clause */
/* The command line: letters together, values beside and behind, and nginx's words for what is wrong. */
#include "workers/options.h"

#include <signal.h>

#include "t/unit/tap.h"

static char error[200];

/* Parses up to six arguments, NULL-terminated. */
static int parse(struct options *o, const char *a, const char *b, const char *c, const char *d)
{
    const char *argv[] = { "proxyd", a, b, c, d, NULL };
    int argc = 1;

    while (argv[argc])
        argc++;
    error[0] = '\0';
    return options_parse(o, argc, (char *const *) (uintptr_t) argv, error, sizeof(error));
}

int main(void)
{
    struct options o;

    ok(parse(&o, "-tq", "-c", "a.conf", NULL) == 0 && o.test && o.quiet, "letters together");
    is_str(o.file, "a.conf", "a value as the next argument");
    ok(parse(&o, "-tca.conf", "-p/x", NULL, NULL) == 0 && o.test, "a value behind its letter");
    is_str(o.file, "a.conf", "which ends the word");
    is_str(o.prefix, "/x", "another");
    ok(parse(&o, "-T", "-e", "", "-gdaemon off;") == 0 && o.test && o.dump, "-T tests and dumps");
    is_str(o.error_log, "", "an empty value");
    is_str(o.globals, "daemon off;", "directives");
    ok(parse(&o, "-V", NULL, NULL, NULL) == 0 && o.version && o.configure && !o.help, "-V");
    ok(parse(&o, "-?", NULL, NULL, NULL) == 0 && o.version && o.help && !o.configure, "-?");
    ok(parse(&o, "-", NULL, NULL, NULL) == 0, "a lone dash says nothing");
    ok(parse(&o, "-s", "reload", NULL, NULL) == 0, "-s");
    is_int(o.signal_number, SIGHUP, "reload is SIGHUP");
    parse(&o, "-sstop", NULL, NULL, NULL);
    is_int(o.signal_number, SIGTERM, "stop is SIGTERM");

    is_int(parse(&o, "-z", NULL, NULL, NULL), -1, "an unknown letter");
    is_str(error, "invalid option: \"z\"", "is named");
    is_int(parse(&o, "-tz", NULL, NULL, NULL), -1, "in the midst of others");
    is_str(error, "invalid option: \"z\"", "too");
    is_int(parse(&o, "stop", NULL, NULL, NULL), -1, "a word without a dash");
    is_str(error, "invalid option: \"stop\"", "is named");
    is_int(parse(&o, "-tqc", NULL, NULL, NULL), -1, "-c at the end");
    is_str(error, "option \"-c\" requires file name", "lacks its value");
    parse(&o, "-p", NULL, NULL, NULL);
    is_str(error, "option \"-p\" requires directory name", "-p");
    parse(&o, "-e", NULL, NULL, NULL);
    is_str(error, "option \"-e\" requires file name", "-e");
    parse(&o, "-g", NULL, NULL, NULL);
    is_str(error, "option \"-g\" requires parameter", "-g");
    is_int(parse(&o, "-s", "dance", NULL, NULL), -1, "an unknown word for -s");
    is_str(error, "invalid option: \"-s dance\"", "is named");
    is_int(parse(&o, "-x", "variables", NULL, NULL), -1, "an unknown word for -x");
    is_str(error, "invalid option: \"-x variables\"", "is named");

    ok(parse(&o, "--lint", NULL, NULL, NULL) == 0 && o.lint && o.test, "--lint tests");
    ok(parse(&o, "-t", "--offline", "--json", NULL) == 0 && o.offline && o.json && !o.lint,
       "--offline and --json with -t");
    ok(parse(&o, "--lint", "--json", "--offline", "-q") == 0, "and with --lint");
    ok(parse(&o, "--help", NULL, NULL, NULL) == 0 && o.help && o.version, "--help");
    ok(parse(&o, "--version", NULL, NULL, NULL) == 0 && o.version && !o.configure, "--version");
    is_int(parse(&o, "--explain", "http://a/b", "-X", "PUT"), 0, "--explain");
    is_str(o.explain, "http://a/b", "its URL");
    is_str(o.method, "PUT", "-X");
    is_int(parse(&o, "-HA: b", "--explain=/x=y", "-H", "C:"), 0, "-H, in any order");
    is_str(o.explain, "/x=y", "a value behind =");
    is_int((int) o.header_count, 2, "two fields");
    is_str(o.headers[0], "A: b", "the first");
    is_str(o.headers[1], "C:", "the second, empty");

    is_int(parse(&o, "--lin", NULL, NULL, NULL), -1, "an unknown word");
    is_str(error, "invalid option: \"--lin\"", "is named");
    is_int(parse(&o, "--", NULL, NULL, NULL), -1, "two dashes alone");
    is_str(error, "invalid option: \"-\"", "are a letter that is none");
    is_int(parse(&o, "-t-", NULL, NULL, NULL), -1, "a dash among letters");
    is_str(error, "invalid option: \"-\"", "is none either");
    parse(&o, "--explain", NULL, NULL, NULL);
    is_str(error, "option \"--explain\" requires URL", "--explain without one");
    parse(&o, "--explain=", NULL, NULL, NULL);
    is_str(error, "option \"--explain\" requires URL", "an empty one");
    parse(&o, "--lint=1", NULL, NULL, NULL);
    is_str(error, "option \"--lint\" takes no value", "a flag with a value");
    parse(&o, "--json", NULL, NULL, NULL);
    is_str(error, "option \"--json\" requires \"-t\", \"--lint\" or \"--explain\"", "--json alone");
    parse(&o, "--offline", NULL, NULL, NULL);
    is_str(error, "option \"--offline\" requires \"-t\" or \"--explain\"", "--offline alone");
    parse(&o, "-T", "--json", NULL, NULL);
    is_str(error, "options \"--json\" and \"-T\" exclude each other", "two tenants of stdout");
    parse(&o, "-X", "PUT", NULL, NULL);
    is_str(error, "option \"-X\" requires \"--explain\"", "-X alone");
    parse(&o, "-H", "a: b", NULL, NULL);
    is_str(error, "option \"-H\" requires \"--explain\"", "-H alone");
    parse(&o, "--from", "10.0.0.1", NULL, NULL);
    is_str(error, "option \"--from\" requires \"--explain\"", "--from alone");
    parse(&o, "--to=10.0.0.1", NULL, NULL, NULL);
    is_str(error, "option \"--to\" requires \"--explain\"", "--to alone");
    is_int(parse(&o, "--explain=/", "--from=10.0.0.1", "--to", "::1"), 0, "--from and --to");
    is_str(o.from, "10.0.0.1", "the client's address");
    is_str(o.to, "::1", "the address it connects to");
    parse(&o, "--explain=/", "-H", "word", NULL);
    is_str(error, "invalid option: \"-H word\"", "a field without a colon");
    parse(&o, "--explain=/", "-X", NULL, NULL);
    is_str(error, "option \"-X\" requires method", "-X without a method");
    parse(&o, "--explain=/", "-t", NULL, NULL);
    is_str(error, "options \"--explain\" and \"-t\" exclude each other", "-t and --explain");
    return done_testing();
}
