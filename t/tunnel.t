# SPDX-License-Identifier: BSD-2-Clause
#
# The tunnel module: CONNECT to what the client names and to what the configuration names, who is refused, next servers, time
# limits, the log, and what other places make of CONNECT.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/lib";
use Test::More;
use Proxyd;

plan skip_all => 'proxyd only' if Proxyd::is_nginx();
my $p = Proxyd->new;

# Echoes; "bye" ends it.
my $echo = $p->origin('echo', sub {
    my ($c) = @_;
    my $s = $c->sock;
    while (sysread $s, my $buf, 65536) {
        if ($buf =~ /^bye/) { $c->write('bye!'); return }
        if ($buf =~ /^flood (\d+)/) { $c->write('x' x 65536) for 1 .. $1; next }
        $c->write($buf);
    }
});
my $http = $p->echo_origin('http');
$p->port('dead');
my $conf = <<'EOT';
worker_processes 1;
http {
    log_format t '$request [$status] $host $request_port $uri $request_uri [$upstream_addr] [$upstream_status] $bytes_sent';
    access_log {{dir}}/t.log t;
    upstream group { server 127.0.0.1:{{port:echo}}; }
    upstream next  { server 127.0.0.1:{{port:dead}} max_fails=0; server 127.0.0.1:{{port:echo}} max_fails=0 backup; }
    geo $upstream_last_addr $good { volatile; default 0; 127.0.0.1 1; }
    map $upstream_last_addr $second { volatile; default 0; "127.0.0.1:{{port:echo}}" 1; }
    map $request_port $allow_port { {{port:echo}} 1; {{port:http}} 1; {{port:dead}} 1; }
    server {
        listen 127.0.0.1:{{port}};
        if ($allow_port != 1) { return 502; }
        tunnel_pass;
    }
    server { listen 127.0.0.1:{{port:fixed}};  location / { tunnel_pass 127.0.0.1:{{port:echo}}; } }
    server { listen 127.0.0.1:{{port:unix}};   location / { tunnel_pass unix:{{dir}}/none.sock; } }
    server { listen 127.0.0.1:{{port:group}};  location / { tunnel_pass group; } }
    server { listen 127.0.0.1:{{port:var}};    location / { set $g group; tunnel_pass $g; } }
    server { listen 127.0.0.1:{{port:next}};   location / { tunnel_pass next; } }
    server { listen 127.0.0.1:{{port:off}};    location / { tunnel_pass next; tunnel_next_upstream off; } }
    server { listen 127.0.0.1:{{port:tries}};  location / { tunnel_pass next; tunnel_next_upstream_tries 1; } }
    server { listen 127.0.0.1:{{port:allowed}}; location / { tunnel_pass group; tunnel_allow_upstream $good 1; } }
    server { listen 127.0.0.1:{{port:denied}}; location / { tunnel_pass group; tunnel_allow_upstream $good 0; } }
    server { listen 127.0.0.1:{{port:deniednext}}; location / { tunnel_pass next; tunnel_next_upstream denied; tunnel_allow_upstream $second; } }
    server { listen 127.0.0.1:{{port:deniedstop}}; location / { tunnel_pass next; tunnel_allow_upstream 0; } }
    server { listen 127.0.0.1:{{port:silent}}; location / { tunnel_pass group; tunnel_read_timeout 200ms; tunnel_buffer_size 4k; } }
    server { listen 127.0.0.1:{{port:noresolver}}; location / { tunnel_pass; } }
    server { listen 127.0.0.1:{{port:mixed}};
        location / { proxy_pass http://127.0.0.1:{{port:http}}; }
        location /t { tunnel_pass; } }
    server { listen 127.0.0.1:{{port:acl}};    location / { deny all; tunnel_pass; } }
    server { listen 127.0.0.1:{{port:if}};     location / { if ($http_x = go) { tunnel_pass group; } } }
    server { listen 127.0.0.1:{{port:plain}};  location / { return 200 plain; } }
    server { listen 127.0.0.1:{{port:proxyallow}}; location / { proxy_pass http://127.0.0.1:{{port:http}}; proxy_allow_upstream $http_x; } }
}
EOT
$p->write_conf($conf);
$p->start;
my ($echo_port, $http_port) = ($p->port('echo'), $p->port('http'));

sub open_to {
    my ($at, $target, $fields, $more, $version) = @_;
    my $c = $p->connect(defined $at ? $p->port($at) : ());
    $c->send("CONNECT $target HTTP/" . ($version || '1.1') . "\r\nHost: $target\r\n" . ($fields || '') . "\r\n" . ($more || ''));
    return $c;
}
sub got { my ($c, $re) = @_; return Proxyd::wait_for(sub { $c->fill if !$c->eof; $c->in =~ $re }, 10) }
sub gone { my ($c) = @_; return Proxyd::wait_for(sub { $c->fill; $c->eof }, 10) }
sub status { my ($c) = @_; got($c, qr/\r\n\r\n/); return ($c->in =~ m{^HTTP/1.1 (\d+)})[0] }
sub logged { my ($re) = @_; return Proxyd::wait_for(sub { -e $p->dir . '/t.log' && $p->read_file('t.log') =~ $re }, 10) }

# --- the tunnel -----------------------------------------------------------------------------------
{
    my $c = open_to(undef, "127.0.0.1:$echo_port", '', 'early');
    is status($c), 200, 'CONNECT is answered';
    my ($head) = split /\r\n\r\n/, $c->in;
    unlike $head, qr/^(?:Content-Length|Transfer-Encoding|Connection)/mi, 'without framing';
    ok got($c, qr/\r\n\r\nearly$/), 'what was sent at once goes through';
    $c->send("GET / HTTP/1.1\r\n\r\n"); ok got($c, qr{earlyGET / HTTP/1.1\r\n\r\n$}), 'and nobody looks inside';
    $c->send('bye'); ok got($c, qr/bye!$/) && gone($c), 'the server ends it';
    ok logged(qr{^CONNECT 127.0.0.1:$echo_port HTTP/1.1 \[200\] 127.0.0.1 $echo_port / 127.0.0.1:$echo_port \[127.0.0.1:$echo_port\] \[200\] \d+$}m), 'the log line'
        or diag $p->read_file('t.log');
}
{
    my $c = open_to(undef, "127.0.0.1:$http_port");
    is status($c), 200, 'an HTTP server';
    $c->{in} = '';
    for (1, 2) { $c->send("GET /$_ HTTP/1.1\r\nHost: inner\r\n\r\n"); my $r = $c->response; like $r->body, qr{"uri":"/$_"}, "request $_ inside" }
    $c->half_close; ok gone($c), 'half-closed by the client: closed';
}
{
    my $c = open_to('fixed', 'anything:1');
    is status($c), 200, 'an address that is configured';
    $c->send('flood 60'); ok Proxyd::wait_for(sub { $c->fill; length(($c->in =~ /\r\n\r\n(x*)/)[0] // "") == 3932160 }), "much"; $c->send('bye'); ok got($c, qr/bye!$/), 'then the end'; gone($c);
}
is status(open_to($_, 'name:1')), 200, "tunnel_pass: $_" for qw(group var next allowed);
is status(open_to('if', 'name:1', "X: go\r\n")), 200, 'in "if"';
is status(open_to('if', 'name:1')), 405, 'not in "if": there is no handler';
is status(open_to('fixed', 'a:1', '', '', '1.0')), 200, 'from HTTP/1.0';
is status(open_to('fixed', 'a:1', "Content-Length: 0\r\n")), 200, 'a length of 0';

# --- refused ----------------------------------------------------------------------------------------
{
    my $c = $p->connect($p->port('fixed'));
    $c->send("CONNECT / HTTP/1.1\r\nHost: a:1\r\n\r\n");
    is status($c), 400, 'a path where the Host is in order';
}
for (
    [undef, '127.0.0.1:22', '', 502, 'by the configuration'],
    ['plain', 'a:1', '', 405, 'a server without tunnel_pass'],
    ['mixed', "127.0.0.1:$echo_port", '', 405, 'a location with proxy_pass'],
    ['acl', "127.0.0.1:$echo_port", '', 403, 'by access rules'],
    ['fixed', 'a:1', "Content-Length: 3\r\n", 400, 'with a body'],
    ['fixed', 'a:1', "Transfer-Encoding: chunked\r\n", 400, 'with a chunked body'],
    ['fixed', 'a', '', 400, 'without a port'],
    ['fixed', 'a:', '', 400, 'with an empty port'],
    ['fixed', '/a:1', '', 400, 'with a path'],
    ['fixed', 'http://a:1/', '', 400, 'with a URL'],
    ['fixed', '*', '', 400, 'with an asterisk'],
    ['fixed', 'a@b:1', '', 400, 'with a user'],
    ['fixed', 'a:1x', '', 400, 'with a port that is no number'],
    ['fixed', 'a:65536', '', 400, 'with a port that is none'],
    ['unix', 'a:1', '', 502, 'a socket that is not there'],
    [undef, '127.0.0.1:' . $p->port('dead'), '', 502, 'nobody listens'],
    ['off', 'a:1', '', 502, 'tunnel_next_upstream off'],
    ['tries', 'a:1', '', 502, 'tunnel_next_upstream_tries 1'],
    ['denied', 'a:1', '', 502, 'tunnel_allow_upstream'],
    ['deniedstop', 'a:1', '', 502, 'tunnel_allow_upstream, no next server'],
    ['deniednext', 'a:1', '', 200, 'tunnel_next_upstream denied'],
    ['noresolver', 'name.example:1', '', 502, 'a name without resolver'],
) {
    my ($at, $target, $fields, $want, $name) = @$_;
    is status(open_to($at, $target, $fields)), $want, $name;
}
ok $p->wait_log(qr/no resolver defined to resolve name.example/), 'and that is said';
ok $p->wait_log(qr/access to upstream server denied/), 'denied: said too';
ok logged(qr{^CONNECT a:1 HTTP/1.1 \[502\] a 1 / a:1 \[127.0.0.1:$echo_port\] \[502\]}m), 'a denied server is in the log';
is $p->get('/', port => $p->port('fixed'))->status, 405, 'other methods are not allowed';
is $p->get('/', port => $p->port('proxyallow'))->status, 502, 'proxy_allow_upstream: denied';
is $p->get('/', port => $p->port('proxyallow'), headers => ['X', 1])->status, 200, 'proxy_allow_upstream: allowed';
{
    my $c = open_to('silent', 'a:1'); is status($c), 200, 'tunnel_read_timeout';
    ok gone($c), 'closed after silence';
    ok $p->wait_log(qr/upstream timed out \(110: [^)]*\) while proxying connection/), 'and it is said why';
}
$p->expect_log(qr/upstream timed out|access to upstream|connect\(\)|no resolver|no port/);
$p->stop(name => 'the server stops cleanly');
done_testing;
