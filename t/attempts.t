# SPDX-License-Identifier: BSD-2-Clause
#
# Attempts of one request: when the next server is asked (proxy_next_upstream and its kin), what
# counts against a server, which servers may be asked at all (proxy_allow_upstream), what each is
# sent (proxy_request_dynamic), and connections that belong to a client (ntlm).
use strict;
use warnings;
use FindBin;
use IO::Socket::INET;
use lib "$FindBin::Bin/lib";
use Test::More;
use Proxyd;

my @conditions = qw(error timeout invalid_header denied http_500 http_502 http_503 http_504 http_403
    http_404 http_429 off);
my $locations = join "\n", map {
    "location /$_/ { proxy_pass http://pair; proxy_next_upstream $_; }
     location /wait/$_/ { proxy_pass http://pair; proxy_next_upstream $_; proxy_read_timeout 100ms; }
     location /refused/$_/ { proxy_pass http://refused; proxy_next_upstream $_; }
     location /denied/$_/ { proxy_pass http://pair; proxy_next_upstream $_; proxy_allow_upstream \$is_b; }
     location /count/$_/ { proxy_pass http://count_$_; proxy_next_upstream $_; }
     location /wait/count/$_/ { proxy_pass http://count_$_; proxy_next_upstream $_; proxy_read_timeout 100ms; }"
} @conditions;
my $groups = join "\n", map {
    "upstream count_$_ { server 127.0.0.1:{{port:a}} max_fails=1 fail_timeout=60; server 127.0.0.1:{{port:b}} backup; }"
} @conditions;

my $p = Proxyd->new(conf => <<"EOT");
worker_processes 1;
http {
    log_format up '\$request_uri|\$status|\$upstream_addr|\$upstream_status|\$upstream_bytes_sent';
    access_log {{dir}}/up.log up;
    log_format rate '\$request_uri \$upstream_response_time';
    geo \$upstream_last_addr \$local { volatile; 127.0.0.1 1; default 0; }
    map \$upstream_last_addr \$is_b { volatile; 127.0.0.1:{{port:b}} 1; default 0; }
    upstream pair { server 127.0.0.1:{{port:a}} max_fails=0; server 127.0.0.1:{{port:b}} backup; }
    upstream refused { server 127.0.0.1:{{port:closed}} max_fails=0; server 127.0.0.1:{{port:b}} backup; }
    upstream three { server 127.0.0.1:{{port:closed}} max_fails=0; server 127.0.0.1:{{port:closed2}} max_fails=0;
        server 127.0.0.1:{{port:closed3}} max_fails=0; server 127.0.0.1:{{port:b}} backup; }
    upstream slow { server 127.0.0.1:{{port:a}} max_fails=0; server 127.0.0.2:{{port:a}} max_fails=0;
        server 127.0.0.1:{{port:b}} backup; }
    upstream named { server localhost:{{port:closed}} max_fails=0; server 127.0.0.1:{{port:b}} backup; }
    upstream early { server 127.0.0.1:{{port:e}} max_fails=0; server 127.0.0.1:{{port:b}} backup; }
    upstream single { server 127.0.0.1:{{port:a}} max_fails=1 fail_timeout=60; }
    upstream nt { ntlm; server 127.0.0.1:{{port:n}}; server 127.0.0.2:{{port:n}}; keepalive 8; }
    upstream ntlocal { server 127.0.0.1:{{port:n}}; ntlm; }
    $groups
    server {
        listen 127.0.0.1:{{port}};
        $locations
        location /default/ { proxy_pass http://pair; }
        location /wait/default/ { proxy_pass http://pair; proxy_read_timeout 100ms; }
        location /idem/ { proxy_pass http://pair; proxy_next_upstream error http_500; }
        location /nonidem/ { proxy_pass http://pair; proxy_next_upstream error http_500 non_idempotent; }
        location /refusedpost/ { proxy_pass http://refused; }
        location /stream/ { proxy_pass http://pair; proxy_request_buffering off; proxy_next_upstream error http_500 non_idempotent; }
        location /large/ { proxy_pass http://early; client_max_body_size 0; }
        location /slarge/ { proxy_pass http://early; client_max_body_size 0; proxy_request_buffering off; }
        location /rate/ { proxy_pass http://pair; proxy_limit_rate \$arg_r; access_log {{dir}}/rate.log rate; }
        location /bind/ { proxy_pass http://pair; proxy_bind \$arg_a; }
        location /bindport/ { proxy_pass http://single; proxy_bind 127.0.0.3:{{port:from}}; }
        location /bindoff/ { proxy_bind 127.0.0.4; location /bindoff/x/ { proxy_pass http://pair; proxy_bind off; }
            location /bindoff/y/ { proxy_pass http://pair; } }
        location /sendslow/ { proxy_pass http://early; client_max_body_size 0; proxy_send_timeout 100ms; }
        location /connslow/ { proxy_pass http://127.0.0.1:{{port:full}}; proxy_connect_timeout 100ms; }
        location /tries0/ { proxy_pass http://three; proxy_next_upstream_tries 0; }
        location /tries2/ { proxy_pass http://three; proxy_next_upstream_tries 2; }
        location /time/ { proxy_pass http://slow; proxy_read_timeout 300ms; proxy_next_upstream_timeout 100ms; }
        location /single/ { proxy_pass http://single; proxy_next_upstream error http_500; }
        location /geo/ { proxy_pass http://pair; proxy_allow_upstream \$local; }
        location /two/ { proxy_pass http://pair; proxy_allow_upstream \$local \$arg_x; }
        location /dyn/ { proxy_pass http://named; proxy_request_dynamic on; proxy_set_header Host \$upstream_last_server_name;
            proxy_set_body "to \$upstream_last_addr"; }
        location /nodyn/ { proxy_pass http://named; proxy_set_header Host \$upstream_last_server_name;
            proxy_set_body "to \$upstream_last_addr"; }
        location /nt/ { proxy_pass http://nt; }
        location /nt2/ { proxy_pass http://nt; }
        location /ntlocal/ { proxy_pass http://ntlocal; }
        location /ntlocal2/ { proxy_pass http://ntlocal; }
    }
}
EOT

my $b = sub {
    my ($c) = @_;
    while (my $q = $c->request) {
        my $said = "b $q->{method} " . ($q->{h}{host} // '-') . " $q->{body}";
        $c->write("HTTP/1.1 200 OK\r\nContent-Length: " . length($said) . "\r\n\r\n$said");
    }
};
my $a = sub {
    my ($c) = @_;
    while (my $q = $c->request) {
        my ($what) = $q->{uri} =~ m{([^/?]*)(?:\?.*)?$};
        if ($what =~ /^\d+$/) { $c->write("HTTP/1.1 $what X\r\nContent-Length: 1\r\n\r\na") }
        elsif ($what eq 'who') {
            my $who = $c->sock->peerhost . ':' . $c->sock->peerport;
            $c->write("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: " . length($who) . "\r\n\r\n$who");
            return;
        }
        elsif ($what eq 'much') { $c->write("HTTP/1.1 200 OK\r\nContent-Length: 300000\r\n\r\n" . 'm' x 300_000) }
        elsif ($what eq 'ok') { $c->write("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na") }
        elsif ($what eq 'close') { return }
        elsif ($what eq 'reset') { return $c->abort }
        elsif ($what eq 'garbage') { $c->write("SSH-2.0-x\r\n\r\n"); return }
        elsif ($what eq 'half') { $c->write("HTTP/1.1 200 OK\r\nX: "); return }
        elsif ($what eq 'deaf') { select undef, undef, undef, 20; return } # reads no more
        elsif ($what eq 'silent') { return $c->wait_close }
        # Answers without reading the body, and closes.
        elsif ($what eq 'early') {
            $c->write("HTTP/1.1 413 Large\r\nContent-Length: 3\r\nConnection: close\r\n\r\nbig");
            return $c->abort;
        }
        # Begins to, and breaks off.
        elsif ($what eq 'begun') {
            $c->write("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n12345");
            select undef, undef, undef, 0.2;
            return $c->abort;
        }
        # A kept-alive connection that dies when it is used again.
        elsif ($what eq 'once') {
            $c->write("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na");
            $c->more;
            return $c->abort;
        }
    }
};
$p->origin('a', $a);
$p->origin('b', $b);
$p->origin('e', sub { my ($c) = @_; $c->{head_only} = 1; $a->($c) });
{
    package main;
    my $n = $p->port('n');
    # Says by which connection it was asked.
    my $who = sub {
        my ($c) = @_;
        my $user = '-';
        while (my $q = $c->request) {
            my $auth = $q->{h}{authorization} // '';
            $user = $1 if $auth =~ /^(?:NTLM|Negotiate) user=(\w+)/i;
            my $said = "$c->{origin}{listen} $c->{n} $user";
            my $more = $q->{uri} =~ /close/ ? "Connection: close\r\n" : '';
            $c->write("HTTP/1.1 200 OK\r\n${more}Content-Length: " . length($said) . "\r\n\r\n$said");
            return if $more;
        }
    };
    $p->origin('n', $who);
    push @{ $p->{origins} }, Proxyd::Origin->start(listen => "127.0.0.2:$n", handler => $who, log => $p->dir . '/n2.log');
    push @{ $p->{origins} }, Proxyd::Origin->start(listen => '127.0.0.2:' . $p->port('a'), handler => $a, log => $p->dir . '/a2.log');
}
$p->start;

sub line { my ($uri) = @_; return $p->wait_log(qr{^(\Q$uri\E\|.*)$}m, 'up.log') }

# --- proxy_next_upstream: each condition alone ---------------------------------------------------------
my %needs = (close => 'error', reset => 'error', half => 'error', silent => 'timeout',
    garbage => 'invalid_header', map { $_ => "http_$_" } 500, 502, 503, 504, 403, 404, 429);
my %status = (close => 502, reset => 502, half => 502, silent => 504, garbage => 502);
for my $condition (@conditions) {
    for my $what (sort keys %needs) {
        my $r = $p->get(($what eq 'silent' ? '/wait' : '') . "/$condition/$what");
        if ($needs{$what} eq $condition) { like $r->body, qr/^b GET/, "$condition: $what: the next" }
        else { is $r->status, $status{$what} // $what, "$condition: $what: no other" }
    }
    my $r = $p->get("/refused/$condition/x");
    is $r->status, $condition eq 'error' ? 200 : 502, "$condition: a refused connection";
    $r = $p->get("/denied/$condition/ok");
    is $r->status, $condition eq 'denied' ? 200 : 502, "$condition: a server that is denied";
}
for (sort keys %needs) {
    my $r = $p->get(($_ eq 'silent' ? '/wait' : '') . "/default/$_");
    is $r->status, $needs{$_} =~ /^(?:error|timeout)$/ ? 200 : $status{$_} // $_, "default: $_";
}
# --- what counts against a server -----------------------------------------------------------------------
for (
    ['error', 'close', 1], ['off', 'close', 1], ['timeout', 'silent', 1], ['off', 'silent', 1],
    ['invalid_header', 'garbage', 1], ['off', 'garbage', 1], ['http_500', '500', 1],
    ['http_502', '502', 1], ['http_503', '503', 1], ['http_504', '504', 1], ['http_429', '429', 1],
    ['http_403', '403', 0], ['http_404', '404', 0],
    )
{
    my ($condition, $what, $counts) = @$_;
    next if $condition eq 'off' && $what ne 'close';
    $p->get(($what eq 'silent' ? '/wait' : '') . "/count/$condition/$what");
    is $p->get("/count/$condition/ok")->body =~ /^b/ ? 1 : 0, $counts, "$what with $condition: counted";
}
{
    my $q = $p->get('/count/denied/500');
    is $q->status, 500, 'a status that is not listed';
    is $p->get('/count/denied/ok')->body, 'a', 'does not count';
}
is $p->get('/single/close')->status, 502, 'a single server';
is $p->get('/single/ok')->body, 'a', 'is never marked down';
is $p->get('/single/500')->status, 500, 'and has nobody to stand in for it';

# --- methods that are not repeated ------------------------------------------------------------------------
for my $m (qw(POST LOCK PATCH)) {
    is $p->request($m, '/idem/close', body => 'x')->status, 502, "$m that was sent";
    is $p->request($m, '/idem/500', body => 'x')->status, 500, "$m that was answered";
    is $p->request($m, '/nonidem/500', body => 'xyz')->body, "b $m pair xyz", "$m, non_idempotent";
    is $p->request($m, '/refusedpost/', body => 'x')->status, 200, "$m that was not sent";
}
for my $m (qw(PUT DELETE GET OPTIONS FOO)) {
    is $p->request($m, '/idem/close', body => 'xyz')->body, "b $m pair xyz", "$m";
}
is $p->post('/stream/500', 'xyz')->body, 'b POST pair xyz', 'a streamed body that had come with the head';
{
    my $c = $p->connect;
    $c->send("PUT /stream/500 HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n");
    $c->send('x' x 100_000);
    is $c->response->status, 500, 'not one that is on its way';
    $c->close;
}
# --- answers that come before the request has been sent -----------------------------------------------------
{
    my $c = $p->connect;
    for my $reused (0, 1) {
        my $how = $reused ? 'over a connection that was kept' : 'over a new connection';
        $p->get('/large/ok') if $reused;
        my $r = $p->post('/large/early', 'x' x 8_000_000);
        is $r->status . $r->body, '413big', "an answer to a body that is not read, $how";
        $p->get('/large/ok') if $reused;
        $r = $p->request('PUT', '/large/begun', body => 'x' x 8_000_000);
        is $r->status . $r->body . $r->{complete}, '200123450', "one that breaks off, $how";
        $r = $p->post('/slarge/early', 'x' x 30_000_000);
        is $r->status . $r->body, '413big', "the same of one that is passed on as it comes, $how";
        like line('/large/begun'), qr{\|200\|127\.0\.0\.1:\d+\|200\|}, 'nobody else is asked';
    }
    $c->close;
}
# --- time-outs say what was under way -------------------------------------------------------------------------
is $p->post('/sendslow/deaf', 'x' x 8_000_000)->status, 504, 'proxy_send_timeout';
like $p->error_log, qr{\[error\] \S+ \*\d+ upstream timed out \(110: Connection timed out\) while sending request to upstream, client: [^\n]*sendslow}, 'its log line';
{
    # Nobody accepts, and the queue is full: the next connection stays half open.
    my $port = $p->port('full');
    my $listen = IO::Socket::INET->new(LocalAddr => "127.0.0.1:$port", Listen => 1, ReuseAddr => 1) or die $!;
    my @queued;
    for (1 .. 8) {
        my $c = IO::Socket::INET->new(PeerAddr => "127.0.0.1:$port", Timeout => 0.2) or last;
        push @queued, $c;
    }
    is $p->get('/connslow/')->status, 504, 'proxy_connect_timeout';
    like $p->error_log, qr{\[error\] \S+ \*\d+ upstream timed out \(110: Connection timed out\) while connecting to upstream, client: [^\n]*connslow}, 'its log line';
}
# --- tries and time ---------------------------------------------------------------------------------------
is $p->get('/tries0/x')->status, 200, 'proxy_next_upstream_tries 0: all';
like line('/tries0/x'), qr{\|502, 502, 502, 200\|}, 'each once';
is $p->get('/tries2/x')->status, 502, 'proxy_next_upstream_tries 2';
like line('/tries2/x'), qr{\|502, 502\|}, 'two attempts';
is $p->get('/time/silent')->status, 504, 'proxy_next_upstream_timeout';
like line('/time/silent'), qr{\|504\|\d}, 'no second attempt after it';

# --- proxy_limit_rate, proxy_bind -----------------------------------------------------------------------------
for (['200000', 0.4], ['0', 0], ['', 0], ['junk', 0], ['18446744073709551615', 0], ['9223372036854775807', 0], ['100m', 0]) {
    my ($rate, $least) = @$_;
    is length $p->get("/rate/much?r=$rate")->body, 300_000, "proxy_limit_rate $rate: all of it";
    cmp_ok $p->wait_log(qr{^\Q/rate/much?r=$rate\E (\S+)$}m, 'rate.log'), '>=', $least, 'in time';
}
like $p->get('/bind/who?a=127.0.0.5')->body, qr/^127\.0\.0\.5:/, 'proxy_bind of a variable';
like $p->get('/bind/who?a=')->body, qr/^127\.0\.0\.1:/, 'an empty value: none';
like $p->get('/bind/who?a=junk')->body, qr/^127\.0\.0\.1:/, 'what is no address: none';
like $p->error_log, qr{\[error\] [^\n]*invalid local address "junk" while connecting to upstream}, 'which is logged';
is $p->get('/bindport/who')->body, '127.0.0.3:' . $p->port('from'), 'with a port';
like $p->get('/bindoff/x/who')->body, qr/^127\.0\.0\.1:/, 'off';
like $p->get('/bindoff/y/who')->body, qr/^127\.0\.0\.4:/, 'inherited';
is $p->get('/bind/who?a=192.0.2.1')->status, 500, 'an address of another machine';
like $p->error_log, qr{\[crit\] \S+ \*\d+ bind\(192\.0\.2\.1\) failed \(99: [^)]*\) while connecting to upstream}, 'which is logged';

# --- proxy_allow_upstream -----------------------------------------------------------------------------------
is $p->get('/geo/ok')->body, 'a', 'a geo of $upstream_last_addr';
is $p->get('/two/ok')->status, 502, 'all strings must be true';
is $p->get('/two/ok?x=0')->status, 502, '"0" is not';
is $p->get('/two/ok?x=1')->body, 'a', 'these are';
like line('/denied/denied/ok'), qr{\|200\|127\.0\.0\.1:\d+, 127\.0\.0\.1:\d+\|502, 200\|0, \d\d+$}, 'nothing was sent to the one';
like $p->error_log, qr{\[error\] [^\n]*access to upstream server denied while connecting to upstream, client: [^\n]*upstream: "http://127}, 'the log line';
like $p->error_log, qr{\[info\] [^\n]*access to 127\.0\.0\.1:\d+ denied by "proxy_allow_upstream \$local \.\.\." in \S+proxyd\.conf:\d+}, 'and the rule';

# --- proxy_request_dynamic ------------------------------------------------------------------------------------
my $bport = $p->port('b');
is $p->get('/dyn/x')->body, "b GET 127.0.0.1:$bport to 127.0.0.1:$bport", 'proxy_request_dynamic on: made anew';
is $p->get('/nodyn/x')->body, 'b GET localhost:' . $p->port('closed') . ' to 127.0.0.1:' . $p->port('closed'), 'off: the first one\'s';

# --- ntlm -----------------------------------------------------------------------------------------------------
sub ask {
    my ($c, $uri, $auth) = @_;
    $c->send("GET $uri HTTP/1.1\r\nHost: a\r\n" . ($auth ? "Authorization: $auth\r\n" : '') . "\r\n");
    return $c->response->body;
}
my @c = map { $p->connect } 1 .. 3;
my @bound;
for my $k (0 .. 1) {
    $bound[$k] = ask($c[$k], '/nt/x', ($k ? 'Negotiate' : 'NTLM') . " user=u$k");
    like $bound[$k], qr/ u$k$/, "client $k authenticates";
}
isnt $bound[0], $bound[1], 'over connections of their own';
for my $k (0, 1, 1, 0) {
    is ask($c[$k], $_, undef), $bound[$k], "client $k goes on over its own: $_" for '/nt/x', '/nt2/y';
}
unlike ask($c[2], '/nt/x'), qr/u[01]$/, 'nobody else does' for 1 .. 4;
is ask($c[0], '/nt/x', 'ntlm user=u9'), $bound[0] =~ s/u0$/u9/r, 'another message of the dialogue';
my $old = ask($c[0], '/nt/close');
like $old, qr/ u9$/, 'the server closes it';
unlike ask($c[0], '/nt/x'), qr/u\d$/, 'then it is another one';
$c[1]->close;
ok $p->wait_for(sub { unlinked($bound[1]) }), 'it ends with its client';

# Whether the connection that was described is closed at the server's end: none of ours is left.
sub unlinked {
    my ($host) = $_[0] =~ /^(?:([\d.]+):)?/;
    my $port = sprintf '%04X', $p->port('n');
    my $n = 0;
    open my $fh, '<', '/proc/net/tcp' or return 0;
    while (<$fh>) { $n++ if /^\s*\d+: [0-9A-F]{8}:$port \S+ 01 / }
    return $n <= 2 + 1;
}
my $l = $p->connect;
my $mine = ask($l, '/ntlocal/x', 'NTLM user=l');
is ask($l, '/ntlocal/x'), $mine, 'without keepalive: kept for the location';
unlike ask($l, '/ntlocal2/x'), qr/ l$/, 'not for another one';
is ask($l, '/ntlocal/x'), $mine, 'still there';
$_->close for $c[0], $c[2], $l;
$p->stop;

{
    # A worker that ends while a client has a connection bound.
    my $q = Proxyd->new(conf => "worker_processes 1; http { upstream n { ntlm; server 127.0.0.1:{{port:n}}; } server { listen 127.0.0.1:{{port}}; location / { proxy_pass http://n; } } }");
    $q->origin('n', $b);
    $q->start;
    my $c = $q->connect;
    like ask($c, '/x', 'NTLM x'), qr/^b GET/, 'bound';
    $q->stop;
    $c->close;
}
done_testing;
