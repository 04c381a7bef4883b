/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Syslog and the memory ring. Opened while the configuration is read, written to from log.c and,
 * for syslog, from access logs. Writing must neither block nor allocate.
 */
#include "core/os/log_writers.h"

#include <errno.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "core/base/arena.h"
#include "core/base/clock.h"
#include "core/base/fmt.h"
#include "core/os/process.h"

#define SYSLOG_PORT 514
#define FACILITY_LOCAL7 23

/* RFC 3164, 4.1.1: the index is the facility's number. */
static const char facilities[][10] = {
    "kern",   "user",   "mail",     "daemon", "auth",   "intern", "lpr",    "news",
    "uucp",   "clock",  "authpriv", "ftp",    "ntp",    "audit",  "alert",  "cron",
    "local0", "local1", "local2",   "local3", "local4", "local5", "local6", "local7",
};

static int fail(struct arena *arena, const char **error, const char *what, struct str value)
{
    *error = str_printf(arena, "%s \"%.*s\"", what, STR_ARG(value)).ptr;
    return -1;
}

static int parse_server(struct arena *arena, struct str value, struct syslog_target *out,
                        const char **error)
{
    int rc = addr_parse(&out->addr, value, SYSLOG_PORT, false);
    struct str host = value;
    uint64_t port = SYSLOG_PORT;
    struct addr *found;
    const char *why;
    ssize_t colon;

    out->server = str_dup(arena, value);
    if (rc == 0)
        return 0;
    if (rc == -2)
        return fail(arena, error, "invalid syslog server", value);
    colon = str_rchr(value, ':');
    if (colon >= 0) {
        /* addr_parse has refused what is no port. */
        host.len = (size_t) colon;
        if (str_to_u64(str_skip(value, (size_t) colon + 1), &port))
            return fail(arena, error, "invalid port in syslog server", value);
    }
    if (addr_resolve(arena, host, (unsigned) port, &found, &why) < 0) {
        *error = str_printf(arena, "%s in syslog server \"%.*s\"", why, STR_ARG(value)).ptr;
        return -1;
    }
    out->addr = found[0];
    return 0;
}

static int parse_facility(struct arena *arena, struct str value, struct syslog_target *out,
                          const char **error)
{
    for (unsigned i = 0; i < ARRAY_LEN(facilities); i++) {
        if (str_eq(value, str_cstr(facilities[i]))) {
            out->facility = i;
            return 0;
        }
    }
    return fail(arena, error, "unknown syslog facility", value);
}

static int parse_severity(struct arena *arena, struct str value, struct syslog_target *out,
                          const char **error)
{
    int level = log_level_parse(value);

    if (level < 0)
        return fail(arena, error, "unknown syslog severity", value);
    out->severity = (enum log_level) level;
    return 0;
}

static int parse_tag(struct arena *arena, struct str value, struct syslog_target *out,
                     const char **error)
{
    if (value.len == 0 || value.len > SYSLOG_TAG_MAX)
        return fail(arena, error, "syslog \"tag\" must have 1 to 32 characters, not", value);
    for (size_t i = 0; i < value.len; i++) {
        unsigned char c = ascii_lower((unsigned char) value.ptr[i]);

        if (!(c >= 'a' && c <= 'z') && !(c >= '0' && c <= '9') && c != '_')
            return fail(arena, error,
                        "syslog \"tag\" only allows alphanumeric characters and underscore in",
                        value);
    }
    out->tag = str_dup(arena, value);
    return 0;
}

static const struct syslog_param {
    struct str name; /* with the equals sign */
    int (*parse)(struct arena *arena, struct str value, struct syslog_target *out,
                 const char **error);
} syslog_params[] = {
    { STR_INIT("server="), parse_server },
    { STR_INIT("facility="), parse_facility },
    { STR_INIT("severity="), parse_severity },
    { STR_INIT("tag="), parse_tag },
};

/* seen has a bit for each parameter: none may stand twice. */
static int parse_param(struct arena *arena, struct str param, unsigned *seen,
                       struct syslog_target *out, const char **error)
{
    if (str_eq(param, STR("nohostname"))) {
        out->nohostname = true;
        return 0;
    }
    for (unsigned i = 0; i < ARRAY_LEN(syslog_params); i++) {
        const struct syslog_param *p = &syslog_params[i];

        if (!str_starts(param, p->name))
            continue;
        if (*seen & 1u << i)
            return fail(arena, error, "duplicate syslog", str_from(p->name.ptr, p->name.len - 1));
        *seen |= 1u << i;
        return p->parse(arena, str_skip(param, p->name.len), out, error);
    }
    return fail(arena, error, "unknown syslog parameter", param);
}

int syslog_parse(struct arena *arena, struct str params, struct syslog_target *out,
                 const char **error)
{
    unsigned seen = 0;

    *out = (struct syslog_target){
        .facility = FACILITY_LOCAL7,
        .severity = LOG_INFO_LEVEL,
        .tag = STR("proxyd"),
        .fd = -1,
    };
    for (;;) {
        ssize_t comma = str_chr(params, ',');
        struct str param = comma < 0 ? params : str_from(params.ptr, (size_t) comma);

        if (parse_param(arena, param, &seen, out, error))
            return -1;
        if (comma < 0)
            break;
        params = str_skip(params, (size_t) comma + 1);
    }
    if (out->server.ptr == NULL) {
        *error = "no syslog server specified";
        return -1;
    }
    return 0;
}

/* "<PRI>Nov  6 08:49:37 HOST TAG: "; buf has room for 128 bytes and a host name. */
static size_t syslog_header(const struct syslog_target *t, enum log_level severity, char *buf)
{
    /* The severities of syslog are our levels, counted from emerg as 0. */
    unsigned level = severity > LOG_EMERG_LEVEL ? (unsigned) severity - 1 : 0;
    char *p = buf;

    *p++ = '<';
    p = fmt_u64(p, t->facility * 8 + level);
    *p++ = '>';
    p = fmt_str(p, clock_syslog());
    *p++ = ' ';
    if (!t->nohostname) {
        p = fmt_str(p, process_hostname());
        *p++ = ' ';
    }
    p = fmt_str(p, t->tag);
    *p++ = ':';
    *p++ = ' ';
    return (size_t) (p - buf);
}

static int syslog_connect(struct syslog_target *t)
{
    t->fd = socket(t->addr.sa.sa_family, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (t->fd < 0)
        return -1;
    if (connect(t->fd, &t->addr.sa, t->addr.len)) {
        int saved = errno;

        syslog_close(t);
        errno = saved;
        return -1;
    }
    return 0;
}

void syslog_send(struct syslog_target *t, enum log_level severity, const char *text, size_t len)
{
    char header[128 + PROCESS_HOSTNAME_MAX];
    struct iovec iov[2];
    struct msghdr msg = { .msg_iov = iov, .msg_iovlen = 2 };
    ssize_t n = -1;

    if (t->busy)
        return;
    t->busy = true;
    iov[0] = (struct iovec){ header, syslog_header(t, severity, header) };
    iov[1] = (struct iovec){ (void *) (uintptr_t) text, len };
    /* A second try with a new socket: the server may have been started anew. */
    for (int i = 0; i < 2; i++) {
        bool was_open = t->fd >= 0;

        if (!was_open && syslog_connect(t))
            break;
        n = sendmsg(t->fd, &msg, MSG_NOSIGNAL);
        if (n >= 0 || errno == EAGAIN || errno == EMSGSIZE || errno == ENOBUFS)
            break;
        int saved = errno;
        syslog_close(t);
        errno = saved;
        if (!was_open)
            break;
    }
    if (n >= 0) {
        t->failed = false;
    } else if (!t->failed && errno != EAGAIN && errno != ENOBUFS) {
        t->failed = true;
        log_alert(log_main, errno, "send() to syslog server \"%.*s\" failed", STR_ARG(t->server));
    }
    t->busy = false;
}

void syslog_close(struct syslog_target *t)
{
    if (t->fd >= 0)
        close(t->fd);
    t->fd = -1;
}

static void write_syslog(struct log_file *file, enum log_level level, const char *line, size_t len)
{
    if (len && line[len - 1] == '\n')
        len--;
    syslog_send(file->data, level, line, len);
}

static void write_memory(struct log_file *file, enum log_level level, const char *line, size_t len)
{
    struct log_memory *m = file->data;

    (void) level;
    if (len > m->size) {
        line += len - m->size;
        len = m->size;
    }
    while (len) {
        size_t n = MIN(len, m->size - m->at);

        memcpy(m->data + m->at, line, n);
        line += n;
        len -= n;
        m->at += n;
        if (m->at == m->size) {
            m->at = 0;
            m->wrapped = true;
        }
    }
}

void log_memory_read(const struct log_memory *m, struct str out[2])
{
    out[0] = m->wrapped ? str_from(m->data + m->at, m->size - m->at) : str_from(m->data, 0);
    out[1] = str_from(m->data, m->at);
}

bool log_file_is_special(struct str spec)
{
    return str_starts(spec, STR("syslog:")) || str_starts(spec, STR("memory:"));
}

void log_file_disconnect(struct log_file *file)
{
    if (file->write == write_syslog)
        syslog_close(file->data);
}

static void close_syslog(void *arg)
{
    syslog_close(arg);
}

static void unmap_memory(void *arg)
{
    struct log_memory *m = arg;

    munmap(m->data, m->size);
}

static int open_memory(struct arena *arena, struct str text, struct log_file *out,
                       const char **error)
{
    struct log_memory *m = ARENA_NEW(arena, struct log_memory);
    uint64_t size;

    if (str_to_size(text, &size) || size == 0 || size > SIZE_MAX / 2)
        return fail(arena, error, "invalid size of a memory log", text);
    m->size = (size_t) size;
    m->data = mmap(NULL, m->size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (m->data == MAP_FAILED)
        return fail(arena, error, "there is no memory for a memory log of", text);
    arena_defer(arena, unmap_memory, m);
    out->write = write_memory;
    out->data = m;
    return 0;
}

static int open_syslog(struct arena *arena, struct str params, struct log_file *out,
                       const char **error)
{
    struct syslog_target *t = ARENA_NEW(arena, struct syslog_target);

    if (syslog_parse(arena, params, t, error))
        return -1;
    arena_defer(arena, close_syslog, t);
    out->write = write_syslog;
    out->data = t;
    return 0;
}

int log_file_open_special(struct arena *arena, struct str spec, struct log_file *out,
                          const char **error)
{
    *out = (struct log_file){ .path = STR(""), .fd = -1 };
    if (str_starts(spec, STR("memory:")))
        return open_memory(arena, str_skip(spec, 7), out, error);
    if (str_starts(spec, STR("syslog:")))
        return open_syslog(arena, str_skip(spec, 7), out, error);
    return fail(arena, error, "unknown log", spec);
}
