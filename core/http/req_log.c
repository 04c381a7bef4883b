/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What is said of a request: the suffix of log lines that belong to it, which line of the configuration
 * refused it, and the steps that --explain shows. Runs only when somebody reads it.
 */
#include "core/http/req_log.h"

#include "core/http/client.h"

void (*req_tracer)(struct req *r, struct conf_pos pos, const char *text);

size_t req_describe(const struct logger *log, char *buf, size_t size)
{
    struct req *r = log->data, *main = r->main;
    char peer[ADDR_TEXT];
    struct addr room;
    size_t n = addr_format(req_peer(r, &room), false, peer, sizeof(peer));
    struct str host = fields_value(&main->in->fields, T_HOST);
    struct str referer = fields_value(&main->in->fields, T_REFERER);
    FILE *f = fmemopen(buf, size, "w");
    long len;

    if (f == NULL)
        return 0;
    setvbuf(f, NULL, _IONBF, 0);
    fprintf(f, ", client: %.*s, server: %.*s", (int) n, peer, STR_ARG(r->server->name));
    if (main->in->line.len > 0)
        fprintf(f, ", request: \"%.*s\"", STR_ARG(main->in->line));
    if (r != main)
        fprintf(f, ", subrequest: \"%.*s\"", STR_ARG(r->uri));
    if (r->describe_upstream != NULL) {
        char up[1024];
        size_t k = r->describe_upstream(r, up, sizeof(up));

        if (k > 0)
            fprintf(f, ", upstream: \"%.*s\"", (int) k, up);
    }
    if (host.ptr != NULL)
        fprintf(f, ", host: \"%.*s\"", STR_ARG(host));
    if (referer.ptr != NULL)
        fprintf(f, ", referrer: \"%.*s\"", STR_ARG(referer));
    len = ftell(f);
    fclose(f);
    return len < 0 ? 0 : MIN((size_t) len, size);
}

/* The sentence, cut to what a log line can hold. */
static void sentence(char *buf, size_t size, const char *fmt, va_list ap)
{
    int n = vsnprintf(buf, size, fmt, ap);

    if (n < 0)
        buf[0] = '\0';
}

void req_refused(struct req *r, struct conf_pos pos, const char *fmt, ...)
{
    char text[LOG_LINE / 2];
    va_list ap;

    if (!log_admits(&r->log, LOG_INFO_LEVEL) && req_tracer == NULL)
        return;
    va_start(ap, fmt);
    sentence(text, sizeof(text), fmt, ap);
    va_end(ap);
    log_info(&r->log, 0, "%s in %s:%u", text, pos.file, pos.line);
    if (req_tracer != NULL)
        req_tracer(r, pos, text);
}

void req_trace_write(struct req *r, struct conf_pos pos, const char *fmt, ...)
{
    char text[LOG_LINE / 2];
    va_list ap;

    va_start(ap, fmt);
    sentence(text, sizeof(text), fmt, ap);
    va_end(ap);
    req_tracer(r, pos, text);
}
