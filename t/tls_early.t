# SPDX-License-Identifier: BSD-2-Clause
#
# Early data of TLS 1.3 (ssl_early_data): answered at once, replayed, held back where that would not be safe, refused with 425 and
# asked again, not accepted, broken off.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/lib";
use IO::Select;
use IO::Socket::INET;
use Socket qw(SOL_SOCKET SO_RCVBUF inet_aton pack_sockaddr_in);
use Test::More;
use Proxyd;
use Proxyd::Certs;

my $p     = Proxyd->new;
my $certs = Proxyd::Certs->new($p->dir . '/certs');
$certs->make('a', names => ['a.test']);
$certs->make('client');
$p->write_file('html/large', 'x' x 1_000_000);
$p->write_file('html/sorry', "not so early\n");

$p->write_conf(<<'EOC');
worker_processes 3;
error_log {{dir}}/error.log info;
http {
    log_format main '$server_name $request_method $uri $status [$ssl_early_data]';
    access_log {{dir}}/access.log main;
    client_header_timeout 1s;
    root {{dir}}/html;
    ssl_certificate certs/a.crt;
    ssl_certificate_key certs/a.key;
    ssl_early_data on;
    server {
        listen 127.0.0.1:{{port}} ssl;
        server_name a.test;
        location / { return 200 "$request_method [$ssl_early_data] $ssl_session_reused."; }
        location /large { }
        location /425 {
            if ($ssl_early_data) { return 425; }
            return 200 "late enough";
        }
        location /page {
            error_page 425 /sorry;
            if ($ssl_early_data) { return 425; }
            return 200 "late enough";
        }
        location /sorry { }
        location /origin { proxy_pass http://127.0.0.1:{{port:origin}}; proxy_set_header Early-Data $ssl_early_data; }
    }
    server {
        listen 127.0.0.1:{{port}} ssl;
        server_name off.test;
        ssl_early_data off;
        location / { return 200 "off [$ssl_early_data]."; }
    }
    server {
        listen 127.0.0.1:{{port}} ssl;
        server_name verify.test;
        ssl_verify_client optional_no_ca;
        location / { return 200 "verify [$ssl_early_data] $ssl_client_verify."; }
    }
    server {
        listen 127.0.0.1:{{port}} ssl;
        server_name kept.test;
        ssl_session_tickets off;
        ssl_session_cache shared:one:1m;
        location / { return 200 "kept [$ssl_early_data] $ssl_session_reused."; }
    }
    server {
        listen 127.0.0.1:{{port:late}} ssl default_server;
        ssl_early_data off;
        location / { return 200 "default [$ssl_early_data]."; }
    }
    server {
        listen 127.0.0.1:{{port:late}} ssl;
        server_name a.test;
        location / { return 200 "named [$ssl_early_data]."; }
    }
    server {
        listen 127.0.0.1:{{port:other}} ssl;
        server_name a.test;
        ssl_ecdh_curve secp384r1;
        location / { return 200 "other [$ssl_early_data]."; }
    }
    server {
        listen 127.0.0.1:{{port:off}} ssl;
        server_name a.test;
        ssl_early_data off;
        location / { return 200 "off [$ssl_early_data]."; }
    }
    server {
        listen 127.0.0.1:{{port:verify}} ssl;
        server_name a.test;
        ssl_verify_client optional_no_ca;
        location / { return 200 "verify [$ssl_early_data] $ssl_client_verify."; }
    }
    server {
        listen 127.0.0.1:{{port:proxy}} ssl proxy_protocol;
        server_name a.test;
        location / { return 200 "$proxy_protocol_addr [$ssl_early_data]."; }
    }
    server {
        listen 127.0.0.1:{{port:narrow}} ssl sndbuf=4k;
        server_name a.test;
        client_header_timeout 10s;
    }
}
EOC
my $origin = $p->origin('origin', sub {
    my ($c) = @_;
    while (my $req = $c->request) {
        my $early = $req->{h}{'early-data'} // '';
        my $body = "$req->{method} early=$early.";
        $c->write($early eq '1' && $req->{uri} =~ /strict/ ? "HTTP/1.1 425 Too Early\r\nContent-Length: 5\r\n\r\nlater"
            : "HTTP/1.1 200 OK\r\nContent-Length: " . length($body) . "\r\n\r\n$body");
    }
});
$p->start;
my ($main, $n) = ($p->port('main'), 0);

sub text { my ($method, $uri, %o) = @_; return "$method $uri HTTP/1.1\r\nHost: " . ($o{host} // 'a.test') . "\r\n"
    . ($o{keep} ? '' : "Connection: close\r\n") . ($o{body} ? 'Content-Length: ' . length($o{body}) . "\r\n" : '') . "\r\n" . ($o{body} // '') }

# s_client: early => request in early data, then => what is said behind it. Everything that it prints.
sub client {
    my (%o) = @_;
    my $port = $o{port} || $main;
    my @command = ('openssl', 's_client', '-connect', "127.0.0.1:$port", '-servername', $o{name} || 'a.test', '-ign_eof',
        @{ $o{args} || [] });
    push @command, '-sess_in', $o{session} if $o{session};
    push @command, '-sess_out', $o{out} if $o{out};
    if (defined $o{early}) {
        $p->write_file('early', $o{early});
        push @command, '-early_data', $p->dir . '/early';
    }
    $p->write_file('then', $o{then} // '');
    return scalar `timeout 20 @command < @{[ $p->dir ]}/then 2>&1`;
}

# A new session of a server, in a file.
sub session {
    my (%o) = @_;
    my $file = $p->dir . '/session.' . $n++;
    client(%o, out => $file, then => text('GET', '/', host => $o{name}));
    return $file;
}
sub early { my ($early, %o) = @_; return client(early => $early, session => session(%o), %o) }

# The first flight of a client, in which early data is, recorded.
sub flight {
    my ($early, %o) = @_;
    my $session = session(%o);
    my $listen  = IO::Socket::INET->new(LocalAddr => '127.0.0.1', Listen => 1, Proto => 'tcp') or die $!;
    $p->write_file('early', $early);
    my $pid = fork // die;
    if ($pid == 0) {
        open STDIN, '<', '/dev/null';
        open STDOUT, '>', '/dev/null';
        open STDERR, '>', '/dev/null';
        exec 'openssl', 's_client', '-connect', '127.0.0.1:' . $listen->sockport, '-servername', $o{name} || 'a.test', '-tls1_3', '-sess_in',
            $session, '-early_data', $p->dir . '/early' or exit 1;
    }
    my $sock = $listen->accept;
    my ($all, $done) = ('', 0);
    while (!$done && IO::Select->new($sock)->can_read(10) && sysread $sock, $all, 65536, length $all) {
        for (my $at = 0; length($all) >= $at + 5; ) {
            my $len = unpack 'n', substr $all, $at + 3, 2;
            last if length($all) < $at + 5 + $len;
            $done = 1 if ord(substr $all, $at, 1) == 23;
            $at += 5 + $len;
        }
    }
    kill KILL => $pid;
    waitpid $pid, 0;
    return $all;
}
sub logged { my ($re) = @_; return scalar grep { /$re/ } split /\n/, $p->access_log // '' }

# --- accepted ---------------------------------------------------------------------------------------------

like early(text('GET', '/')), qr/GET \[1\] r\..*Early data was accepted|Early data was accepted.*GET \[1\] r\./s, 'a request in early data';
like early(text('GET', '/', keep => 1), then => text('GET', '/')), qr/GET \[1\] r\..*GET \[\] r\./s, 'and one behind the handshake';
like early(text('GET', '/', keep => 1) . text('HEAD', '/', keep => 1) . text('GET', '/')), qr/GET \[1\] r\..*200 OK.*GET \[1?\] r\./s, 'several at once';
like early(substr(text('GET', '/'), 0, 20), then => substr text('GET', '/'), 20), qr/GET \[\] r\./s, 'one of which a part is early: it is complete later';
{
    my $out = early(text('GET', '/large'));
    is(($out =~ tr/x//) >= 1_000_000, 1, 'a large answer, and the end: all of it comes') or diag substr $out, 0, 2000;
    like $out, qr/\nclosed\n?/, 'and its end';
}
for my $method (qw(HEAD OPTIONS TRACE)) {
    early(text($method, "/$method"));
    ok $p->wait_log(qr{^a.test $method /$method \d+ \[1\]}m, 'access.log'), "$method is not held back";
}
for (1 .. 6) { like early(text('GET', '/')), qr/Early data was accepted/, "whichever worker: $_" }
for (1 .. 4) { like early(text('GET', '/', host => 'kept.test'), name => 'kept.test'), qr/kept \[1\] r\./, "sessions in a cache: $_" }
like early(text('GET', '/'), port => $p->port('late')), qr/named \[1\]\./, 'the named server accepts it, the default one does not';

# A client through which nothing more comes once the handshake can end, until it has, and the last of the answer is with the server.
{
    $p->write_file('html/last', 'x' x 30_000);
    my $session = session();
    my $listen  = IO::Socket::INET->new(LocalAddr => '127.0.0.1', Listen => 1, Proto => 'tcp') or die $!;
    $p->write_file('early', text('GET', '/last'));
    open my $out, '-|', "sleep 15 | timeout 15 openssl s_client -connect 127.0.0.1:@{[ $listen->sockport ]} -servername a.test -tls1_3"
        . " -ign_eof -sess_in $session -early_data @{[ $p->dir ]}/early 2>&1" or die $!;
    my $client = $listen->accept;
    my $server = IO::Socket::INET->new(Proto => 'tcp') or die $!;
    setsockopt $server, SOL_SOCKET, SO_RCVBUF, 4096;
    connect $server, pack_sockaddr_in($p->port('narrow'), inet_aton('127.0.0.1')) or die $!;
    my ($both, $told, $bytes) = (IO::Select->new($client, $server), 0);
    # The server's flight is small; the client's second one is what comes after it.
    while (my @ready = $both->can_read(10)) {
        my $from = (grep { $_ == $client } @ready) ? $client : $server;
        my $n = sysread $from, $bytes, $from == $server ? 500 : 65536 or last;
        syswrite $from == $server ? $client : $server, $bytes;
        $told += $n if $from == $server;
        $both->remove($server) if $told >= 500;
        last if $told >= 500 && $from == $client;
    }
    ok !IO::Select->new($client)->can_read(0.5), 'the handshake has ended, the answer has not';
    while (sysread $server, $bytes, 65536) { syswrite $client, $bytes }
    shutdown $client, 1;
    my $all = join '', <$out>;
    my $come = 0;
    $come += length $1 while $all =~ /(x{10,})/g; # s_client tells of tickets in between
    is $come, 30_000,
        'all of an answer whose end was still with us when the handshake ended';
}

# --- held back --------------------------------------------------------------------------------------------

for my $method (qw(POST PUT DELETE PATCH)) {
    my $out = early(text($method, '/', body => 'abc'));
    like $out, qr/Early data was accepted/, "$method: early data";
    like $out, qr/$method \[\] r\./, "$method: waits for the handshake";
}
like early(text('GET', '/', keep => 1) . text('POST', '/origin', keep => 1, body => 'abc') . text('GET', '/')),
    qr/GET \[1\] r\..*POST early=\..*GET \[\] r\./s, 'one behind others';
# bodies, of which a part is early
sub body { my ($n, $fields) = @_; return "GET /origin HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\nContent-Length: $n\r\n$fields\r\n" }
like early(body(6, '') . 'abc', then => 'def'), qr/GET early=1?\./, 'half of a body';
like early(body(6, "Expect: 100-continue\r\n"), then => 'abcdef'), qr/100 Continue.*GET early=1?\./s, 'a body that is waited for';
like early(text('POST', '/origin', body => 'x' x 5000) =~ s/x{4000}\z//r, then => 'x' x 4000), qr/POST early=\./, 'half of one that is held back';
like early("GET / HTTP/1.1\r\nHost: a.test\r\nUpgrade: websocket\r\nConnection: upgrade, close\r\n\r\nframes"), qr/GET \[\] r\./,
    'what is said in a tunnel is no question: it waits';
like early(text('GET', '/', host => 'off.test')), qr/off \[\]\./, 'a server that wants none, by its Host';

# --- replayed ---------------------------------------------------------------------------------------------

{
    my $get  = flight(text('GET', '/replayed', keep => 1));
    my $post = flight(text('POST', '/origin/replayed', keep => 1, body => 'abc'));
    for my $i (1 .. 2) {
        my $c = Proxyd::Http::connect_to($main);
        $c->send($get);
        ok $p->wait_for(sub { logged(qr{GET /replayed 200 \[1\]}) == $i }), "a recorded request is answered: $i";
        $c->close;
    }
    my $c = Proxyd::Http::connect_to($main);
    $c->send($get, piece => 1);
    ok $p->wait_for(sub { logged(qr{GET /replayed 200 \[1\]}) == 3 }), 'byte by byte';
    $c->close;
    for my $i (1 .. 2) {
        $c = Proxyd::Http::connect_to($main);
        $c->send($post);
        ok $p->wait_for(sub { logged(qr{POST .* 408}) == $i }), "one that is not safe never is: $i";
        $c->close;
    }
    ok $p->wait_log(qr/\[info\] .*client timed out .*while waiting for the end of the SSL handshake/), 'which the log says';
    is scalar $origin->lines(qr{replayed}), 0, 'and no origin has seen it';
    $c = Proxyd::Http::connect_to($main);
    $c->send($post);
    ok $c->wait_input(5), 'the handshake waits for its client';
    $c->half_close;
    ok $p->wait_for(sub { logged(qr{POST .* 400}) == 1 }), 'a client that goes away meanwhile';
    $c->close;
    $c = Proxyd::Http::connect_to($main);
    $c->send($get . "\x17\x03\x03\x00\x20" . 'x' x 32);
    ok $p->wait_log(qr/\[info\] .*SSL_do_handshake\(\) failed \(SSL: error:[^)]*bad record mac/), 'garbage behind it';
    $c->close;
    $c = Proxyd::Http::connect_to($p->port('proxy'));
    $c->send("PROXY TCP4 192.0.2.7 192.0.2.8 1000 443\r\n" . flight(text('GET', '/proxied', keep => 1), port => $main));
    ok $p->wait_log(qr{GET /proxied 200 \[1\]}, 'access.log'), 'a PROXY header in front';
    $c->close;
    $c = Proxyd::Http::connect_to($main);
    $c->send(flight("GET /partial HTTP/1.1\r\nHost: a.test\r\n"));
    ok $p->wait_log(qr{^a.test - - 408 \[1\]}m, 'access.log'), 'a head that does not go on';
    $c->close;
}

# --- 425 ----------------------------------------------------------------------------------------------------

like early(text('GET', '/425', keep => 1), then => text('GET', '/425')),
    qr{HTTP/1.1 425 Too Early\r?\n.*<title>425 Too Early</title>.*HTTP/1.1 200 OK.*late enough}s, '425, and again on the same connection';
like early(text('GET', '/page', keep => 1), then => text('GET', '/page')),
    qr{HTTP/1.1 425 Too Early\r?\n.*not so early.*HTTP/1.1 200 OK.*late enough}s, 'error_page 425';
like early(text('GET', '/origin/strict', keep => 1), then => text('GET', '/origin/strict')),
    qr{HTTP/1.1 425 Too Early\r?\n.*later.*HTTP/1.1 200 OK.*GET early=\.}s, "an origin's 425 is passed on";
like early(text('GET', '/origin/easy')), qr{GET early=1\.}, 'and its consent';

# --- not accepted ------------------------------------------------------------------------------------------

for (
    ['another group is asked for', qr/other \[\]/, port => $p->port('other'), in => { port => $main }],
    ['a server that wants none', qr/off \[\]/, port => $p->port('off'), in => { port => $main }],
    ['clients are verified', qr/verify \[\] NONE/, port => $p->port('verify'), in => { port => $main }],
) {
    my ($what, $want, %o) = @$_;
    my $in = delete $o{in};
    my $request = text('GET', '/', host => $o{name});
    my $out = client(early => $request, then => $request, session => session(%$in), %o);
    like $out, qr/Early data was (?:rejected|not sent)/, "$what: not accepted";
    like $out, $want, "$what: and asked again";
}
{
    my $file = session(name => 'verify.test', args => ['-cert', $certs->path('client.only'), '-key', $certs->path('client.key')]);
    like `openssl sess_id -in $file -noout -text`, qr/Max Early Data: 0\b/, 'no session of a client with a certificate is for early data';
    $file = session(name => 'off.test');
    like `openssl sess_id -in $file -noout -text`, qr/Max Early Data: 0\b/, 'nor of a server that wants none';
    $file = session();
    like `openssl sess_id -in $file -noout -text`, qr/Max Early Data: 16384\b/, 'others are for so much';
    like client(early => 'x' x 20_000, session => $file), qr/400 Bad Request|Request-URI Too Large|Cannot write early data|Error writing early data/, 'and no more';
    like client(then => text('GET', '/'), session => session()), qr/GET \[\] r\./, 'a session without early data';
    like client(then => text('GET', '/'), args => ['-no_tls1_3']), qr/GET \[\] \.\./, 'TLS 1.2';
}
unlike $p->error_log, qr/\[(?:crit|error|alert)\]/, 'nothing is worse than info';
$p->stop;

done_testing;
