/* SPDX-License-Identifier: BSD-2-Clause */
/* Addresses as text, networks, and sockets that listen, share an address and connect. */
#include "core/os/socket.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/base/arena.h"
#include "t/unit/tap.h"

static const char *text_of(const struct addr *a, bool with_port)
{
    static char buf[ADDR_TEXT];

    addr_format(a, with_port, buf, sizeof(buf));
    return buf;
}

static void test_parse(void)
{
    static const struct {
        const char *text;
        unsigned port;
        bool wildcard;
        int rc;
        const char *formatted;
    } cases[] = {
        { "127.0.0.1:80", 0, false, 0, "127.0.0.1:80" },
        { "127.0.0.1", 80, false, 0, "127.0.0.1:80" },
        { "255.255.255.255:65535", 0, false, 0, "255.255.255.255:65535" },
        { "[::1]:8080", 80, false, 0, "[::1]:8080" },
        { "[::1]", 80, false, 0, "[::1]:80" },
        { "::1", 80, false, 0, "[::1]:80" },
        { "[2001:DB8::A]:1", 0, false, 0, "[2001:db8::a]:1" },
        { "[::ffff:1.2.3.4]:1", 0, false, 0, "[::ffff:1.2.3.4]:1" },
        { "unix:/run/a.sock", 0, false, 0, "unix:/run/a.sock" },
        { "*:80", 0, true, 0, "0.0.0.0:80" },
        { "*", 80, true, 0, "0.0.0.0:80" },
        { "8000", 80, true, 0, "0.0.0.0:8000" },
        { "[::]:80", 0, true, 0, "[::]:80" },
        { "127.0.0.1", 0, false, -2, NULL },
        { "[::1]", 0, false, -2, NULL },
        { "::1", 0, false, -2, NULL },
        { "*", 0, true, -2, NULL },
        { "127.0.0.1:0", 80, false, -2, NULL },
        { "127.0.0.1:65536", 80, false, -2, NULL },
        { "127.0.0.1:99999999999999999999", 80, false, -2, NULL },
        { "127.0.0.1:", 80, false, -2, NULL },
        { "127.0.0.1:x", 80, false, -2, NULL },
        { "127.0.0.1:-1", 80, false, -2, NULL },
        { ":80", 80, true, -2, NULL },
        { "[::1", 80, false, -2, NULL },
        { "[]", 80, false, -2, NULL },
        { "[::1]80", 80, false, -2, NULL },
        { "[::1]:", 80, false, -2, NULL },
        { "[127.0.0.1]:80", 80, false, -2, NULL },
        { "[::1%lo]:80", 80, false, -2, NULL },
        { "a:b:c", 80, false, -2, NULL },
        { "65536", 80, true, -2, NULL },
        { "0", 80, true, -2, NULL },
        { "unix:", 0, false, -2, NULL },
        { "", 80, true, -2, NULL },
        { "localhost", 80, false, -1, NULL },
        { "localhost:80", 0, false, -1, NULL },
        { "localhost:99999", 0, false, -2, NULL },
        { "80", 80, false, -1, NULL },
        { "*:80", 80, false, -1, NULL },
        { "1.2.3", 80, false, -1, NULL },
        { "1.2.3.256", 80, false, -1, NULL },
        { "1.2.3.4.5:80", 80, false, -1, NULL },
        { "01.2.3.4.5", 80, false, -1, NULL },
    };
    struct addr a;
    char path[sizeof(a.un.sun_path) + 8];

    for (unsigned i = 0; i < ARRAY_LEN(cases); i++) {
        int rc = addr_parse(&a, str_cstr(cases[i].text), cases[i].port, cases[i].wildcard);

        is_int(rc, cases[i].rc, "\"%s\" is %s", cases[i].text, cases[i].rc ? "refused" : "read");
        if (rc == 0 && cases[i].rc == 0)
            is_str(text_of(&a, true), cases[i].formatted, "as %s", cases[i].formatted);
    }
    is_int(addr_parse(&a, str_from("1.2.3.4\0", 8), 80, false), -1, "a NUL in an address");
    memset(path, 'p', sizeof(path));
    memcpy(path, "unix:", 5);
    is_int(addr_parse(&a, str_from(path, 5 + sizeof(a.un.sun_path)), 0, false), -2, "a long path");
    is_int(addr_parse(&a, str_from(path, 4 + sizeof(a.un.sun_path)), 0, false), 0, "the longest");
    is_uint(strlen(text_of(&a, true)), 4 + sizeof(a.un.sun_path), "is shown whole");
}

static void test_format(void)
{
    struct arena *arena = arena_new();
    struct addr a, b;
    char small[6];

    addr_parse(&a, STR("192.168.10.1:443"), 0, false);
    is_str(text_of(&a, false), "192.168.10.1", "without port");
    is_uint(addr_format(&a, true, small, sizeof(small)), 5, "what does not fit is cut");
    is_str(small, "192.1", "with a NUL");
    is_uint(addr_format(&a, true, small, 0), 0, "no room at all");
    is_uint(addr_port(&a), 443, "the port");
    addr_set_port(&a, 65535);
    is_str(addr_dup_text(arena, &a, true).ptr, "192.168.10.1:65535", "changed");
    addr_parse(&b, STR("192.168.10.1:1"), 0, false);
    ok(addr_eq(&a, &b, false) && !addr_eq(&a, &b, true), "equal but for the port");
    addr_parse(&b, STR("[::1]:65535"), 0, false);
    ok(!addr_eq(&a, &b, false), "families differ");
    is_str(text_of(&b, false), "::1", "IPv6 without port has no brackets");
    ok(!addr_is_wildcard(&a) && !addr_is_wildcard(&b), "not any address");
    addr_parse(&a, STR("80"), 0, true);
    addr_parse(&b, STR("[::]:80"), 0, true);
    ok(addr_is_wildcard(&a) && addr_is_wildcard(&b), "any address");
    addr_parse(&a, STR("unix:/a"), 0, false);
    addr_parse(&b, STR("unix:/b"), 0, false);
    ok(!addr_eq(&a, &b, true), "paths differ");
    addr_parse(&b, STR("unix:/a"), 0, false);
    ok(addr_eq(&a, &b, true), "or not");
    is_str(text_of(&a, false), "unix:", "a path is hidden with the port");
    memset(&a, 0, sizeof(a));
    a.sa.sa_family = AF_UNIX;
    a.len = sizeof(sa_family_t);
    is_str(text_of(&a, true), "unix:", "a peer without a name");
    is_uint(addr_port(&a), 0, "and without a port");
    arena_destroy(arena);
}

static void test_resolve(void)
{
    struct arena *arena = arena_new();
    const char *error = NULL;
    struct addr *out;
    int n = addr_resolve(arena, STR("localhost"), 81, &out, &error);

    ok(n >= 1, "localhost is found");
    if (n >= 1)
        is_str(text_of(&out[0], true), "127.0.0.1:81", "IPv4 first, with the port");
    n = addr_resolve(arena, STR("10.1.2.3"), 5, &out, &error);
    ok(n == 1 && addr_port(&out[0]) == 5, "an address is itself");
    is_int(addr_resolve(arena, STR(""), 1, &out, &error), -1, "no name");
    is_str(error, "host not found", "is not found");
    is_int(addr_resolve(arena, str_from("localhost\0x", 11), 1, &out, &error), -1, "a NUL");
    arena_destroy(arena);
}

static bool matches(const struct cidr *c, const char *address)
{
    struct addr a;

    ASSERT(addr_parse(&a, str_cstr(address), 1, false) == 0);
    return cidr_match(c, &a.sa);
}

static void test_cidr(void)
{
    static const struct {
        const char *text;
        int rc;
    } cases[] = {
        { "1.2.3.4", 0 },     { "10.0.0.0/8", 0 },
        { "0.0.0.0/0", 0 },   { "1.2.3.4/32", 0 },
        { "::/0", 0 },        { "::1/128", 0 },
        { "::1", 0 },         { "2001:db8::/33", 0 },
        { "10.0.0.1/8", 1 },  { "1.2.3.4/31", 0 },
        { "1.2.3.5/31", 1 },  { "::1/127", 1 },
        { "1.2.3.4/0", 1 },   { "1.2.3.4/33", -1 },
        { "::/129", -1 },     { "1.2.3.4/", -1 },
        { "1.2.3.4/-1", -1 }, { "1.2.3.4/8/8", -1 },
        { "/8", -1 },         { "", -1 },
        { "1.2.3", -1 },      { "[::1]", -1 },
        { "all", -1 },        { "1.2.3.4/18446744073709551616", -1 },
    };
    struct sockaddr_un un = { .sun_family = AF_UNIX };
    struct cidr c;

    for (unsigned i = 0; i < ARRAY_LEN(cases); i++)
        is_int(cidr_parse(&c, str_cstr(cases[i].text)), cases[i].rc, "network \"%s\"",
               cases[i].text);
    cidr_parse(&c, STR("10.32.0.0/11"));
    ok(matches(&c, "10.32.0.0") && matches(&c, "10.63.255.255"), "within");
    ok(!matches(&c, "10.31.255.255") && !matches(&c, "10.64.0.0"), "without");
    ok(matches(&c, "::ffff:10.40.1.1"), "a mapped address counts as IPv4");
    ok(!matches(&c, "::ffff:11.40.1.1") && !matches(&c, "::10.40.1.1"), "others do not");
    ok(!cidr_match(&c, (struct sockaddr *) (void *) &un), "nor does a unix socket");
    cidr_parse(&c, STR("0.0.0.0/0"));
    ok(matches(&c, "1.2.3.4") && !matches(&c, "::1"), "all of IPv4");
    cidr_parse(&c, STR("2001:db8:8000::/33"));
    ok(matches(&c, "2001:db8:ffff::1") && !matches(&c, "2001:db8:7fff::1"), "IPv6");
    ok(!matches(&c, "1.2.3.4"), "IPv4 is no IPv6");
}

/* The address that the system gave to a socket. */
static struct addr name_of(int fd)
{
    struct addr a;

    memset(&a, 0, sizeof(a));
    a.len = sizeof(a.ss);
    ASSERT(getsockname(fd, &a.sa, &a.len) == 0);
    return a;
}

static int int_option(int fd, int level, int name)
{
    int v = -1;
    socklen_t len = sizeof(v);

    getsockopt(fd, level, name, &v, &len);
    return v;
}

/* A free port of the loopback address. */
static struct addr loopback(void)
{
    struct addr a;

    addr_parse(&a, STR("127.0.0.1:1"), 0, false);
    addr_set_port(&a, 0);
    return a;
}

static void test_listen(void)
{
    struct listen_options o = LISTEN_OPTIONS_DEFAULT;
    const char *step = NULL;
    struct addr a = loopback();
    int first, second, other;

    o.reuseport = true;
    first = socket_listen(&a, &o, true, &step);
    ok(first >= 0, "a listening socket");
    a = name_of(first);
    ok(fcntl(first, F_GETFL) & O_NONBLOCK && fcntl(first, F_GETFD) & FD_CLOEXEC,
       "that does not block and is not inherited");
    is_int(int_option(first, SOL_SOCKET, SO_ACCEPTCONN), 1, "and listens");
    second = socket_listen(&a, &o, false, &step);
    ok(second >= 0, "another one on its address");
    other = socket_listen(&a, &o, true, &step);
    is_int(other, -1, "a stranger's first one");
    is_int(errno, EADDRINUSE, "finds the address in use");
    is_str(step, "bind()", "when it binds");
    o.keepalive = 1;
    o.keepidle = 77;
    o.rcvbuf = 65536;
    o.deferred = true;
    is_int(socket_listen_options(first, &a, &o), 0, "options may change later");
    is_int(int_option(first, IPPROTO_TCP, TCP_KEEPIDLE), 77, "keep-alive");
    is_int(int_option(first, SOL_SOCKET, SO_KEEPALIVE), 1, "that is on");
    ok(int_option(first, SOL_SOCKET, SO_RCVBUF) >= 65536, "buffers");
    ok(int_option(first, IPPROTO_TCP, TCP_DEFER_ACCEPT) > 0, "deferred accept");
    o.deferred = false;
    is_int(socket_listen_options(first, &a, &o), 0, "and back");
    is_int(int_option(first, IPPROTO_TCP, TCP_DEFER_ACCEPT), 0, "to none");
    close(first);
    close(second);
    addr_parse(&a, STR("192.0.2.1:1"), 0, false);
    ok(socket_listen(&a, &o, true, &step) == -1 && errno == EADDRNOTAVAIL, "not our address");
}

static void test_listen_v6(void)
{
    struct listen_options o = LISTEN_OPTIONS_DEFAULT;
    struct addr a;
    const char *step;
    int fd;

    addr_parse(&a, STR("[::]:1"), 0, false);
    addr_set_port(&a, 0);
    fd = socket_listen(&a, &o, true, &step);
    if (fd < 0) {
        skip("no IPv6 here");
        return;
    }
    is_int(int_option(fd, IPPROTO_IPV6, IPV6_V6ONLY), 1, "IPv6 alone unless told otherwise");
    close(fd);
    o.ipv6only = false;
    fd = socket_listen(&a, &o, true, &step);
    is_int(int_option(fd, IPPROTO_IPV6, IPV6_V6ONLY), 0, "or both");
    close(fd);
}

static void test_unix(void)
{
    char dir[] = "/tmp/proxyd-socket-XXXXXX", path[64];
    struct listen_options o = LISTEN_OPTIONS_DEFAULT;
    const char *step;
    struct addr a;
    struct stat st;
    bool connected;
    int fd, client;

    if (mkdtemp(dir) == NULL)
        return;
    snprintf(path, sizeof(path), "unix:%s/s", dir);
    addr_parse(&a, str_cstr(path), 0, false);
    o.reuseport = true;
    fd = socket_listen(&a, &o, true, &step);
    ok(fd >= 0 && stat(path + 5, &st) == 0, "a unix socket");
    is_int(st.st_mode & 0777, 0666, "that everybody may use");
    ok(socket_listen(&a, &o, false, &step) == -1 && errno == EADDRINUSE, "is never shared");
    ok(stat(path + 5, &st) == 0, "and survives the attempt");
    client = socket_connect(&a, NULL, &connected);
    ok(client >= 0 && connected, "connects at once");
    is_int(socket_nodelay(client, true), 0, "TCP options are nothing to it");
    is_int(socket_cork(client, true), 0, "nor an error");
    close(client);
    close(fd);
    unlink(path + 5);
    client = socket_connect(&a, NULL, &connected);
    ok(client == -1 && errno == ENOENT && !connected, "no socket, no connection");
    rmdir(dir);
}

static void test_connect(void)
{
    struct listen_options o = LISTEN_OPTIONS_DEFAULT;
    struct addr a = loopback(), local = loopback(), peer;
    struct pollfd pfd;
    const char *step;
    bool connected;
    int listener = socket_listen(&a, &o, true, &step), client, server;

    a = name_of(listener);
    addr_parse(&local, STR("127.0.0.2:1"), 0, false);
    addr_set_port(&local, 0);
    client = socket_connect(&a,
                            &(struct connect_options){ .local = &local, .keepalive = true,
                                                       .rcvbuf = 65536, .sndbuf = 32768 },
                            &connected);
    ok(client >= 0, "a connection from an address");
    /* The kernel keeps twice as much as it was told, for its own needs. */
    is_int(int_option(client, SOL_SOCKET, SO_RCVBUF), 2 * 65536, "with a receive buffer");
    is_int(int_option(client, SOL_SOCKET, SO_SNDBUF), 2 * 32768, "and one to send");
    is_int(int_option(client, SOL_SOCKET, SO_KEEPALIVE), 1, "that is kept alive");
    pfd = (struct pollfd){ client, POLLOUT, 0 };
    poll(&pfd, 1, 5000);
    is_int(socket_error(client), 0, "is made");
    pfd = (struct pollfd){ listener, POLLIN, 0 };
    poll(&pfd, 1, 5000);
    peer.len = sizeof(peer.ss);
    server = accept(listener, &peer.sa, &peer.len);
    is_str(text_of(&peer, false), "127.0.0.2", "from that address");
    ok(fcntl(client, F_GETFL) & O_NONBLOCK && fcntl(client, F_GETFD) & FD_CLOEXEC, "not blocking");
    ok(!(fcntl(server, F_GETFL) & O_NONBLOCK), "an accepted one blocks");
    ok(socket_nonblock(server) == 0 && fcntl(server, F_GETFL) & O_NONBLOCK, "until told not to");
    ok(socket_cloexec(server, true) == 0 && fcntl(server, F_GETFD) & FD_CLOEXEC, "close-on-exec");
    ok(socket_cloexec(server, false) == 0 && !(fcntl(server, F_GETFD) & FD_CLOEXEC), "and off");
    ok(socket_nodelay(server, true) == 0 && int_option(server, IPPROTO_TCP, TCP_NODELAY) == 1,
       "no delay");
    ok(socket_cork(server, true) == 0 && int_option(server, IPPROTO_TCP, TCP_CORK) == 1, "corked");
    is_int(socket_linger_reset(server), 0, "to be reset");
    close(server);
    pfd = (struct pollfd){ client, POLLIN, 0 };
    poll(&pfd, 1, 5000);
    is_int(socket_error(client), ECONNRESET, "the peer sees a reset");
    close(client);
    addr_parse(&local, STR("192.0.2.9:1"), 0, false);
    client = socket_connect(&a, &(struct connect_options){ .local = &local, .step = &step }, &connected);
    ok(client == -1 && errno == EADDRNOTAVAIL, "no address of this host");
    is_str(step, "bind()", "cannot be bound");
    close(listener);
    client = socket_connect(&a, NULL, &connected);
    if (client >= 0) {
        pfd = (struct pollfd){ client, POLLOUT, 0 };
        poll(&pfd, 1, 5000);
        is_int(socket_error(client), ECONNREFUSED, "nobody listens any more");
        close(client);
    } else {
        is_int(errno, ECONNREFUSED, "nobody listens any more");
    }
}

int main(void)
{
    test_parse();
    test_format();
    test_resolve();
    test_cidr();
    test_listen();
    test_listen_v6();
    test_unix();
    test_connect();
    arena_trim();
    return done_testing();
}
