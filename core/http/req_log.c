/* SPDX-License-Identifier: BSD-2-Clause */
/* The suffix of log lines that belong to a request. Runs only when a line is written. */
#include "core/http/req_log.h"

#include "core/http/client.h"

size_t req_describe(const struct logger *log, char *buf, size_t size)
{
    struct req *r = log->data, *main = r->main;
    char peer[ADDR_TEXT];
    struct addr room;
    size_t n = addr_format(client_peer(r->client, &room), false, peer, sizeof(peer));
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
