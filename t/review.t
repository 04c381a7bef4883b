# SPDX-License-Identifier: BSD-2-Clause
#
# Moments at which two things that are each right meet: streamed request bodies and error pages, full duplex
# and slow clients, tunnels that end, bodies that nobody read and what follows them.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/lib";
use Socket qw(SOL_SOCKET SO_RCVBUF);
use Test::More;
use Proxyd;

my $p = Proxyd->new(log => 'warn', conf => <<'EOT');
worker_processes 1;
events { worker_connections 256; }
http {
    access_log off;
    client_body_buffer_size 16k;
    client_max_body_size 0;
    proxy_http_version 1.1;
    proxy_set_header Connection "";
    lingering_timeout 1s;
    map $http_upgrade $connection_field { default upgrade; "" ""; }
    server {
        listen 127.0.0.1:{{port}};
        listen 127.0.0.1:{{port:narrow}} sndbuf=8k;
        location = /status { stub_status; }
        location /ok { return 200 "ok\n"; }
        location /refused/ {
            proxy_request_buffering off;
            proxy_pass http://127.0.0.1:{{port:none}};
            error_page 502 @whole;
        }
        location /refused/again {
            proxy_request_buffering off;
            proxy_pass http://127.0.0.1:{{port:none}};
            error_page 502 @stream;
        }
        location /cut/named {
            proxy_request_buffering off;
            proxy_pass http://127.0.0.1:{{port:cut}};
            error_page 502 @whole;
        }
        location /cut/stream {
            proxy_request_buffering off;
            proxy_pass http://127.0.0.1:{{port:cut}};
            error_page 502 @stream;
        }
        location /cut/page {
            proxy_request_buffering off;
            proxy_pass http://127.0.0.1:{{port:cut}};
            error_page 502 /page;
        }
        location @whole { proxy_pass http://127.0.0.1:{{port:echo}}; }
        location @stream { proxy_request_buffering off; proxy_pass http://127.0.0.1:{{port:echo}}; }
        location /page { proxy_pass http://127.0.0.1:{{port:echo}}; }
        location /tunnel/ {
            proxy_pass http://127.0.0.1:{{port:tunnel}};
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection $connection_field;
        }
        location /small/ {
            client_max_body_size 10;
            proxy_pass http://127.0.0.1:{{port:echo}};
            error_page 413 @whole;
        }
        location /inject/ {
            proxy_set_header X-Uri $uri;
            proxy_pass http://127.0.0.1:{{port:echo}}$uri;
        }
        location /accel/ { proxy_pass http://127.0.0.1:{{port:accel}}; }
        location /safari {
            keepalive_disable safari;
            return 200 "ok\n";
        }
        location = /padded { error_page 404 /none; return 404; }
        location = /plain { msie_padding off; return 404; }
        location = /refresh { msie_refresh on; return 301 /to?a=1&b=2; }
        location /duplex {
            proxy_pass http://127.0.0.1:{{port:duplex}};
            proxy_buffering off;
            proxy_read_timeout 4s;
        }
    }
}
EOT
$p->port('none');    # nobody listens there
$p->echo_origin('echo');
# Takes some of a request, then goes.
$p->origin('cut', sub { my ($c) = @_; $c->more until $c->{in} =~ /\r\n\r\n.{5}/s; });
$p->origin(
    'accel',
    sub {
        my ($c) = @_;
        my $r = $c->request or return;
        my %to = (up => '/ok/../safari', end => '/ok/..', fine => '/ok');
        my ($name) = $r->{uri} =~ m{/(\w+)$};
        $c->write("HTTP/1.1 200 OK\r\nX-Accel-Redirect: $to{$name}\r\nContent-Length: 0\r\n\r\n");
        return 1;
    }
);
my $flood = 60_000;
$p->origin(
    'tunnel',
    sub {
        my ($c) = @_;
        my $r = $c->request or return;
        $c->write("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n");
        if ($r->{uri} =~ /flood/) { $c->write('t' x $flood . 'END'); return }
        $c->more until length $c->{in} >= 4;
        $c->write("got $c->{in}");
    }
);
# Sends half of its answer before it reads the request's body, the other half after it.
my $size = 6_000_000;
$p->origin(
    'duplex',
    sub {
        my ($c) = @_;
        $c->more until $c->{in} =~ s/^.*?\r\n\r\n//s;
        $c->write("HTTP/1.1 200 OK\r\nContent-Length: " . 2 * $size . "\r\n\r\n" . 'a' x $size);
        my $got = length $c->{in};
        while ($got < $size) {
            $c->{in} = '';
            $c->more or last;
            $got += length $c->{in};
        }
        $c->write('b' x $size);
    }
);
$p->start;

# --- a streamed body and what error_page makes of it ----------------------------------------------
sub in_two {
    my ($uri, $first, $second) = @_;
    my $c = $p->connect;
    $c->send("POST $uri HTTP/1.1\r\nHost: a\r\nContent-Length: "
            . length($first . $second)
            . "\r\n\r\n$first");
    $c->wait_input(0.05);
    $c->send($second);
    my $r = $c->response(timeout => 5) || Proxyd::none();
    $c->close;
    return $r;
}
for my $uri ('/refused/x', '/refused/again') {
    my $r = in_two($uri, '12345', '67890');
    is $r->status . (Proxyd::report($r)->{body} || ''), '5021234567890',
        "$uri: no server took the body, the fallback gets it, though its end came later";
    $r = in_two($uri, '12345', 'b' x 50_000);
    is length(Proxyd::report($r)->{body} || ''), 50_005, "$uri: and a large one";
}
for my $uri ('/cut/named', '/cut/stream') {
    my $r = in_two($uri, '12345', '67890');
    is $r->status . ($r->header('content-type') || ''), '502text/html',
        "$uri: a POST whose body is gone is not repeated without it";
}
{
    my $r = $p->post('/cut/named', '1234567890');
    is $r->status . (Proxyd::report($r)->{body} || ''), '5021234567890',
        'a body that had come with the head is sent again';
}
my $page = in_two('/cut/page', '12345', '67890');
my $report = Proxyd::report($page);
is join(' ', $page->status, map { defined $_ ? $_ : '-' } @$report{qw(method body)}), '502 GET ',
    'a page is fetched without the body that is gone';

# --- tunnels ---------------------------------------------------------------------------------------
my $upgrade = "Host: a\r\nConnection: upgrade\r\nUpgrade: x\r\n";
{
    my $c = $p->connect;
    $c->send("GET /tunnel/x HTTP/1.1\r\n${upgrade}Content-Length: 4\r\n\r\nBODY");
    $c->wait_input(5);
    $c->send('tunn');
    like $c->read_eof(5), qr/\r\n\r\ngot tunn\z/, 'the body of a request for a tunnel is sent once';
    $c->close;
}
{
    my $c = $p->connect('narrow');
    setsockopt $c->sock, SOL_SOCKET, SO_RCVBUF, 4096;
    $c->send("GET /tunnel/flood HTTP/1.1\r\n$upgrade\r\n");
    my ($body) = $c->read_eof(10) =~ /\r\n\r\n(.*)/s;
    is length($body) . substr($body, -3), $flood + 3 . 'END',
        'what the server sent before it closed a tunnel arrives';
    $c->close;
}

# --- both ways at once, with a client that does not read -------------------------------------------
{
    my $c = $p->connect;
    $c->send("POST /duplex HTTP/1.1\r\nHost: a\r\nContent-Length: $size\r\n\r\n" . 'r' x $size,
        timeout => 5);
    my $r = $c->response(timeout => 10) || Proxyd::none();
    is length($r->body) . substr($r->body, -1), 2 * $size . 'b',
        'the rest of a request is sent after the answer was held back';
    $c->close;
}

# --- bodies that nobody read -----------------------------------------------------------------------
{
    my $c = $p->connect;
    $c->send("POST /ok HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n12345");
    $c->response(timeout => 5);
    $c->send("67890GET /status HTTP/1.1\r\nHost: a\r\n\r\n");
    my $r = $c->response(timeout => 5) || Proxyd::none();
    like $r->body, qr/^Active connections: 1 \n.*^Reading: 0 Writing: 1 Waiting: 0 $/ms,
        'the counts are right after a body was dropped';
    my $idle = $p->connect;
    $p->wait_for(sub { ($p->get('/status')->body =~ /Active connections: (\d+)/)[0] == 3 });
    like $p->get('/status')->body, qr/^Reading: 0 Writing: 1 Waiting: 2 $/m,
        'connections without a request are waiting';
    $_->close for $c, $idle;
}
{
    # Longer than lingering_timeout altogether, but never silent for that long.
    my $c = $p->connect;
    $c->send("POST /ok HTTP/1.1\r\nHost: a\r\nContent-Length: 8\r\n\r\n");
    $c->response(timeout => 5);
    for (1 .. 8) {
        $c->wait_input(0.2);
        $c->send('x');
    }
    $c->send("GET /ok HTTP/1.1\r\nHost: a\r\n\r\n");
    my $r = $c->response(timeout => 5) || Proxyd::none();
    is $r->status, 200, 'a body that is dropped may come slowly';
    $c->close;
}

# --- many requests at once -------------------------------------------------------------------------
{
    # More than a read takes, some answered at once and some by a server.
    my $all = join '', map { 'GET ' . ($_ % 3 ? '/ok' : '/page') . "/$_ HTTP/1.1\r\nHost: a\r\n\r\n" }
        1 .. 900;
    my $x = $p->raw(undef, $all, count => 900, timeout => 10);
    is scalar(grep { $_->status == 200 } @{ $x->{responses} }), 900,
        'pipelined requests are answered, however reads cut them';
}
for my $size (3000, 3700, 4400, 6500) {
    # The end of a dropped body and a request for a server come in one read.
    my $pair = "POST /ok HTTP/1.1\r\nHost: a\r\nContent-Length: $size\r\n\r\n" . 'x' x $size
        . "GET /page HTTP/1.1\r\nHost: a\r\n\r\n";
    my $x = $p->raw(undef, $pair x 20, count => 40, timeout => 10);
    is scalar(grep { $_->status == 200 } @{ $x->{responses} }), 40,
        "requests behind dropped bodies of $size bytes are answered";
}
{
    # A client that resets while 100 Continue and an error are being written.
    for (1 .. 20) {
        my $c = $p->connect;
        $c->send("POST /nowhere/$_ HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 9\r\n\r\n"
                x 3);
        $c->abort;
    }
    is $p->get('/ok')->status, 200, 'served after resets in the midst of 100 Continue';
}

# --- error pages of bodies, and what a server's redirect may name ---------------------------------------
{
    # The failure is told once: the page behind error_page is asked without a body, and answers.
    my $x = $p->raw(undef, "POST /small/x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
            . "14\r\n" . 'x' x 20 . "\r\n0\r\n\r\n", count => 1, timeout => 5);
    my $r = $x->{responses}[0];
    is $r && $r->status, 413, 'a chunked body that is too large, and its proxied page';
    like $r && $r->body, qr/"body"\s*:\s*""/, 'the page is asked without the body';
}
is $p->get("/accel/$_->[0]")->status, $_->[1], "X-Accel-Redirect to $_->[2]"
    for ['up', 404, '/ok/../safari'], ['end', 404, '/ok/..'], ['fine', 200, '/ok'];

{
    # Line ends that the client has escaped must not come apart in what is sent on.
    my $body = $p->get('/inject/a%0d%0aX-Evil:%201%20b')->body;
    unlike $body, qr/"X-Evil"/i, 'a decoded line end begins no field';
    like $body, qr{/inject/a%0D%0AX-Evil:%201%20b}, '... nor ends the request line';
}

# --- browsers with habits ---------------------------------------------------------------------------------
my $safari = 'Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15) AppleWebKit/605 Version/17 Safari/605';
my $msie   = 'Mozilla/4.0 (compatible; MSIE 7.0; Windows NT 6.0)';
my %agent  = (safari => $safari, chrome => "$safari Chrome/120", msie => $msie, curl => 'curl/8');
sub as { my ($uri, $who) = @_; return $p->get($uri, keep => 1, headers => [ "User-Agent", $agent{$who} ]) }
is as('/safari', 'safari')->header('Connection'), 'close',      'keepalive_disable safari';
is as('/safari', 'chrome')->header('Connection'), 'keep-alive', '... not for Chrome';
cmp_ok length as('/padded', 'msie')->body, '>=', 512, 'msie_padding';
cmp_ok length as('/padded', 'curl')->body, '<', 512, '... for those who need it';
cmp_ok length as('/plain', 'msie')->body, '<', 512, '... unless it is off';
my $refresh = as('/refresh', 'msie');
is $refresh->status, 200, 'msie_refresh';
like $refresh->body, qr{URL=/to\?a=1&amp;b=2"}, '... names the place';
is $refresh->header('Location'), undef, '... and is no redirect';
is as('/refresh', 'curl')->status, 301, 'others are redirected';

$p->stop;
done_testing;
