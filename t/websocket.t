# SPDX-License-Identifier: BSD-2-Clause
#
# Upgraded connections: proxy_upgrade, WebSocket through real peers, what is not passed on, time limits, counts, the end of a
# tunnel from each side, splicing, backpressure, reloads, and the goodbye when the worker ends.
use strict;
use warnings;
use FindBin;
use IPC::Open2;
use lib "$FindBin::Bin/lib";
use Test::More;
use Proxyd;

plan skip_all => 'proxyd only' if Proxyd::is_nginx();
my $python = '/usr/bin/python3';
plan skip_all => "no websockets for $python" if system("$python -c 'import websockets' 2>/dev/null") != 0;

my $peer = "$FindBin::Bin/apps/websocket_peer.py";
my $p = Proxyd->new;
my $big = Proxyd::sanitized() ? 20_000_000 : 100_000_000;
my @started;
END { local $?; for (@started) { kill 'KILL', $_; waitpid $_, 0 } }

# Says what it was asked, and then does what the first line of data tells it.
my $raw = $p->origin('raw', sub {
    my ($c) = @_;
    while (my $q = $c->request) {
        my $seen = join '|', map { "$_->[0]: $_->[1]" } grep { $_->[0] =~ /^(?:Upgrade|Connection|Host|HTTP2-Settings)$/i } @{ $q->{headers} };
        if ($q->{uri} =~ m{/plain}) {
            my $text = "HTTP/$q->{version} [$seen]";
            $c->write("HTTP/1.1 200 OK\r\nContent-Length: " . length($text) . "\r\n\r\n$text");
            next;
        }
        my ($to) = $q->{uri} =~ m{to=([\w.]+)};
        my ($count) = $q->{uri} =~ m{flood=(\d+)};
        my $extra = $q->{uri} =~ /extra/ ? 'early' : '';
        $c->write("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: " . ($to || 'test') . "\r\n\r\n$extra");
        if ($count) { $c->write('x' x 65536) for 1 .. $count / 65536; }
        my $s = $c->sock;
        while (sysread $s, my $buf, 65536) {
            if ($buf =~ /^die/) { $c->abort; return }
            if ($buf =~ /^bye/) { $c->write('bye!'); return }
            if ($buf =~ /^frames/) { $c->write("\x81\x02hi\x82\x7e\x01\x00" . 'p' x 255); next }
            if ($buf =~ /^rest/) { $c->write('q'); next }
            if ($buf =~ /^swallow (\d+)/) { my $left = $1; while ($left > 0) { $left -= sysread($s, $buf, 65536) || last } $c->write('done'); next }
            $c->write($buf);
        }
        return;
    }
});

my $conf = <<'EOT';
worker_processes 1;
worker_shutdown_timeout {{timeout}};
events { worker_connections 4096; }
http {
    log_format up '$request_uri $status $bytes_sent $upstream_bytes_sent $upstream_bytes_received';
    access_log {{dir}}/up.log up;
    upstream ws  { server 127.0.0.1:{{port:ws}}; keepalive 4; }
    upstream raw { server 127.0.0.1:{{port:raw}}; keepalive 4; }
    server {
        listen 127.0.0.1:{{port}};
        proxy_set_header X-Test yes;
        location /ws    { proxy_pass http://ws; proxy_upgrade auto; }
        location /nginx { proxy_pass http://ws; proxy_http_version 1.1;
                          proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection upgrade; proxy_set_header X-Test yes; }
        location /auto  { proxy_pass http://raw; proxy_upgrade auto; }
        location /off   { proxy_pass http://raw; }
        location /old   { proxy_pass http://raw; proxy_upgrade auto; proxy_http_version 1.0; }
        location /own   { proxy_pass http://raw; proxy_upgrade auto; proxy_set_header Upgrade ""; }
        location /keep  { proxy_pass http://raw; proxy_upgrade auto; proxy_set_header Connection ""; }
        location /mine  { proxy_pass http://raw; proxy_upgrade auto; proxy_set_header Connection close; }
        location /body  { proxy_pass http://raw; proxy_upgrade auto; proxy_set_body text; }
        location /short { proxy_pass http://raw; proxy_upgrade auto; proxy_read_timeout 300ms; }
        location /slow  { proxy_pass http://raw; proxy_upgrade auto; proxy_send_timeout 300ms; proxy_read_timeout 1h; }
        location /outer { proxy_upgrade auto; proxy_pass http://raw; location /outer/inner { proxy_pass http://raw; }
                          location /outer/off { proxy_upgrade off; proxy_pass http://raw; } }
    }
}
EOT
my $timeout = '1h';
sub conf { my $c = $conf; $c =~ s/\{\{timeout\}\}/$_[0]/; return $c }
$p->write_conf(conf($timeout));
my $ws_port = $p->port('ws');
{
    my $pid = open2(my $out, my $in, $python, $peer, 'serve', $ws_port);
    push @started, $pid;
    is scalar(<$out>), "ready\n", 'the WebSocket server is there';
}
$p->start;
my $url = 'ws://127.0.0.1:' . $p->port;

sub client { my ($mode, $path, @args) = @_; return join '', qx{timeout 120 $python $peer $mode '$url$path' @args 2>&1} }
sub ask {
    my ($uri, %o) = @_;
    my $c = $p->connect;
    my $version = $o{version} || '1.1';
    my $method = $o{method} || 'GET';
    my $fields = defined $o{fields} ? $o{fields} : "Connection: Upgrade\r\nUpgrade: test\r\n";
    $c->send("$method $uri HTTP/$version\r\nHost: x\r\n$fields\r\n" . ($o{data} || ''));
    return $c;
}
sub head { my ($c) = @_; Proxyd::wait_for(sub { $c->fill; ${ \$c->in } =~ /\r\n\r\n/ }, 10); my ($h, $rest) = split /\r\n\r\n/, $c->in, 2; return ($h, $rest) }
sub got { my ($c, $re) = @_; return Proxyd::wait_for(sub { $c->fill if !$c->eof; $c->in =~ $re }, 10) }
sub last_line { my ($re) = @_; my $l; Proxyd::wait_for(sub { ($l) = grep { /$re/ } reverse split /\n/, -e $p->dir . '/up.log' ? $p->read_file('up.log') : ''; $l }, 10); return $l }

# --- real peers -----------------------------------------------------------------------------------
for my $path ('/ws', '/nginx') {
    is client('basic', $path), join('', map { "$_\n" } (map { "echo $_ True" } 0 + 5, 0, 125, 126, 65535, 65536, 1000),
        'fragments up one two three', 'fragments down True', 'pong', "field ['yes']", 'closed 1000'), "$path: messages, fragments, ping, close";
}
is client('big', '/ws', $big), "down True\nboth True\nclosed 1000\n", "a message of $big bytes, each way";

# --- what is passed on ----------------------------------------------------------------------------
my @passed = (
    # uri, fields, what the server sees of Connection and Upgrade
    ['/auto/plain', "Connection: Upgrade\r\nUpgrade: websocket\r\n", '[Host: raw|Connection: upgrade|Upgrade: websocket]', 'auto'],
    ['/auto/plain', "Connection: keep-alive, UPGRADE\r\nUpgrade: WebSocket\r\n", 'Upgrade: WebSocket]', 'a list, in any case'],
    ['/auto/plain', "Connection: Upgrade\r\nUpgrade: foo/2, bar\r\n", 'Upgrade: foo/2, bar]', 'several protocols, with versions'],
    ['/auto/plain', "Upgrade: websocket\r\n", '[Host: raw]', 'Upgrade without Connection'],
    ['/auto/plain', "Connection: upgrade\r\n", '[Host: raw]', 'Connection without Upgrade'],
    ['/auto/plain', "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n", '[Host: raw]', 'never h2c'],
    ['/auto/plain', "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: H2C, websocket\r\nHTTP2-Settings: AAMAAABk\r\n", '[Host: raw|Connection: upgrade|Upgrade: websocket]', 'h2c is taken out of a list'],
    ['/auto/plain', "Connection: Upgrade\r\nUpgrade: b\@d, /1, x/\r\n", '[Host: raw]', 'what is no protocol is not passed'],
    ['/auto/plain', "Connection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 0\r\n", 'Upgrade: websocket]', 'a length of 0 is no body'],
    ['/off/plain', "Connection: Upgrade\r\nUpgrade: websocket\r\n", '[Host: raw]', 'off is the default'],
    ['/old/plain', "Connection: Upgrade\r\nUpgrade: websocket\r\n", 'HTTP/1.1 [Host: raw|Connection: upgrade|Upgrade: websocket]', 'with HTTP/1.1, whatever proxy_http_version says'],
    ['/old/plain', '', 'HTTP/1.0 [Host: raw]', 'others are sent as ever'],
    ['/own/plain', "Connection: Upgrade\r\nUpgrade: websocket\r\n", '[Host: raw]', 'proxy_set_header Upgrade has the last word'],
    ['/mine/plain', "Connection: Upgrade\r\nUpgrade: websocket\r\n", '[Connection: close|Host: raw]', 'so has Connection with a value'],
    ['/keep/plain', "Connection: Upgrade\r\nUpgrade: websocket\r\n", 'Connection: upgrade|Upgrade: websocket]', 'an empty Connection forbids nothing'],
    ['/body/plain', "Connection: Upgrade\r\nUpgrade: websocket\r\n", '[Host: raw]', 'not with a body that is set'],
    ['/outer/inner/plain', "Connection: Upgrade\r\nUpgrade: x\r\n", 'Upgrade: x]', 'inherited'],
    ['/outer/off/plain', "Connection: Upgrade\r\nUpgrade: x\r\n", '[Host: raw]', 'turned off again'],
);
for (@passed) {
    my ($uri, $fields, $want, $name) = @$_;
    my $c = ask($uri, fields => $fields);
    my $r = $c->response(method => 'GET');
    ok $r->body =~ /\Q$want\E$/, $name or diag $r->body;
}
for (["Content-Length: 3\r\n", 'abc', 'a body'], ["Transfer-Encoding: chunked\r\n", "3\r\nabc\r\n0\r\n\r\n", 'a chunked body']) {
    my ($fields, $data, $name) = @$_;
    my $r = ask('/auto/plain', method => 'POST', fields => "Connection: Upgrade\r\nUpgrade: websocket\r\n$fields", data => $data)->response(method => 'POST');
    ok $r->body =~ /\[Host: raw\]$/, "$name: no upgrade" or diag $r->body;
}
ok ask('/auto/plain', version => '1.0')->response(method => 'GET')->body =~ /\[Host: raw\]$/, 'not from HTTP/1.0';
{
    my $before = $raw->connections;
    my $c = $p->connect;
    for (1 .. 3) { $c->send("GET /auto/plain HTTP/1.1\r\nHost: x\r\n\r\n"); $c->response(method => 'GET') }
    cmp_ok $raw->connections - $before, '<=', 1, 'requests without Upgrade go over kept connections';
}
for (['/auto/?to=other', 'upstream changed to a protocol that was not offered'], ['/off/?', 'upstream sent unexpected status 101'], ['/own/?', 'upstream sent unexpected status 101']) {
    my ($uri, $why) = @$_;
    is ask($uri)->response(method => 'GET')->status, 502, "$uri: a 101 that nobody asked for";
    ok $p->wait_log(qr/\Q$why/), "$uri: $why";
}
$p->expect_log(qr/upstream (?:changed to|sent unexpected)/);

# --- the tunnel -----------------------------------------------------------------------------------
{
    my $c = ask('/auto/?extra', data => 'early too');
    my ($h) = head($c);
    like $h, qr{^HTTP/1.1 101 Switching Protocols\r\n.*^Connection: upgrade}ms, '101 is passed on';
    like $h, qr{^Upgrade: test}m, 'with the protocol';
    ok got($c, qr/early.*early too/s), 'bytes behind both heads';
    $c->send('ping'); ok got($c, qr/ping/), 'bytes go both ways';
    $c->send('bye'); ok got($c, qr/bye!$/), 'the last ones of the server';
    ok Proxyd::wait_for(sub { $c->fill; $c->eof }), 'the server closes: so does the connection';
    $c->close;
    my ($s, $sent, $up, $down) = last_line(qr{^/auto/\?extra }) =~ /\S+ (\S+) (\S+) (\S+) (\S+)/;
    is $s, 101, 'the status in the log';
    is $sent, length($c->in), '$bytes_sent counts the head and all that followed';
    cmp_ok $up, '>', length('early tooping bye'), '$upstream_bytes_sent counts';
    is $down - length("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: test\r\n\r\n"), length('early' . 'early too' . 'ping' . 'bye!'), '$upstream_bytes_received counts';
}
{
    my $c = ask('/auto/?half'); head($c);
    $c->send('last'); $c->half_close;
    ok Proxyd::wait_for(sub { $c->fill; $c->eof }), 'half-closed by the client: closed, as nginx does';
    like last_line(qr{half}), qr/ 101 /, 'logged';
}
{
    my $c = ask('/auto/?rst'); head($c);
    $c->send('die');
    ok Proxyd::wait_for(sub { $c->fill; $c->eof }), 'the server resets: closed';
    ok last_line(qr{\?rst }), 'logged';
    my $d = ask('/auto/?crst'); head($d); $d->abort;
    ok last_line(qr{\?crst }), 'the client resets: the tunnel is gone';
}
{
    my $c = ask('/short/?idle'); head($c);
    for (1 .. 4) { select undef, undef, undef, 0.15; $c->send('x'); }
    ok got($c, qr/xxxx$/), 'proxy_read_timeout counts from the last byte in either direction';
    ok Proxyd::wait_for(sub { $c->fill; $c->eof }), 'proxy_read_timeout: closed';
    ok $p->wait_log(qr/upstream timed out \(110: [^)]*\) while proxying upgraded connection/), 'and it is said why';
    $p->expect_log(qr/upstream timed out/);
}

# --- much ------------------------------------------------------------------------------------------
sub memory { my ($w) = $p->workers; my ($kb) = $p->read_status($w) =~ /VmRSS:\s+(\d+)/; return $kb }
sub Proxyd::read_status { my ($self, $pid) = @_; open my $f, '<', "/proc/$pid/status" or return ''; local $/; return <$f> }
{
    my $c = ask("/auto/?flood=" . 50 * 65536 * 16);
    head($c);
    my $before = memory();
    # Nobody reads: what the server sends waits at the server.
    select undef, undef, undef, 0.3;
    cmp_ok memory() - $before, '<', 2000, 'a client that does not read costs little memory';
    my $n = length((split /\r\n\r\n/, $c->in, 2)[1]);
    my $s = $c->sock;
    $s->blocking(1);
    while ($n < 50 * 65536 * 16) { my $k = sysread $s, my $buf, 1 << 20; last if !$k; $n += $k; }
    is $n, 50 * 65536 * 16, 'and gets everything when it does';
    $c->close;
    like last_line(qr{flood}), qr/ 101 \d{8} /, 'counted, spliced or not';
}
{
    my $n = 20_000_000;
    my $c = ask('/auto/?swallow'); head($c);
    $c->send(sprintf 'swallow %d', $n);
    select undef, undef, undef, 0.05;
    $c->send('u' x 1_000_000) for 1 .. $n / 1_000_000;
    ok got($c, qr/done$/), 'much from the client';
    $c->close;
    my ($up) = last_line(qr{\?swallow}) =~ /(\d+) \d+$/;
    cmp_ok $up, '>', $n, 'counted';
}
{
    my $c = ask('/slow/?to=test&flood=0'); head($c);
    # The server answers and then reads nothing while we flood it: it echoes, and we do not read the echo.
    my $s = $c->sock; $s->blocking(0);
    my $end = time + 20; my $dead = 0;
    while (time < $end && !$dead) { my $k = syswrite $s, 'v' x 65536; if (!defined $k) { $dead = 1 if $!{EPIPE} || $!{ECONNRESET}; select undef, undef, undef, 0.02 } }
    ok $dead, 'proxy_send_timeout: closed when the server takes nothing';
    ok last_line(qr{^/slow}), 'logged';
    $p->expect_log(qr/upstream timed out/);
}

SKIP: {
    skip 'sanitizers have memory of their own', 1 if Proxyd::sanitized();
    my $before = memory();
    my @idle;
    for (1 .. 300) { my $c = ask('/auto/?rest'); push @idle, $c }
    for (@idle) { head($_); $_->send('x' x 20000); got($_, qr/x{20000}$/) }
    my $each = (memory() - $before) * 1024 / 300;
    cmp_ok $each, '<', 40_000, 'an idle tunnel holds no buffer' or diag $each;
    diag "an idle tunnel: $each bytes";
}

# --- reload and the end ---------------------------------------------------------------------------
my $count = Proxyd::sanitized() ? 100 : 500;
my $pid = open2(my $from, my $to, $python, $peer, 'hold', "$url/ws", $count);
push @started, $pid;
$to->autoflush(1);
is scalar(<$from>), "open $count\n", "$count WebSockets are open";
my @old = $p->workers;
$p->write_conf(conf('300ms'));
{
    # The old worker still has the old worker_shutdown_timeout.
    $p->signal('HUP');
    ok Proxyd::wait_for(sub { my @w = grep { $_ != $old[0] } $p->workers; @w }), 'a new worker after the reload';
    print $to "talk\n";
    is scalar(<$from>), "talked $count\n", 'none is lost by a reload';
    ok kill(0, $old[0]), 'the old worker stays for them';
}
# Those of a worker that has the short timeout.
my $pid2 = open2(my $from2, my $to2, $python, $peer, 'hold', "$url/ws", 20);
push @started, $pid2;
$to2->autoflush(1);
is scalar(<$from2>), "open 20\n", '20 more';
my $frames = ask('/auto/?to=websocket&half', fields => "Connection: upgrade\r\nUpgrade: websocket\r\n"); head($frames);
$frames->send('frames'); ok got($frames, qr/\x81\x02hi\x82\x7e\x01\x00p{255}$/), 'in the midst of a frame';
my ($new) = grep { $_ != $old[0] } $p->workers;
kill 'QUIT', $new;
ok $p->wait_log(qr/worker_shutdown_timeout is over/), 'worker_shutdown_timeout is over';
print $to2 "end\n";
is scalar(<$from2>), "ended [(1001, 20)]\n", 'each WebSocket is told: 1001, going away';
ok Proxyd::wait_for(sub { $frames->fill; $frames->eof }), 'the one in the midst of a frame is closed';
ok $frames->in =~ /p{255}$/, 'without a Close inside the frame';
# A fast end: one attempt to tell.
print $to "end\n";
kill 'TERM', $old[0];
is scalar(<$from>), "ended [(1001, $count)]\n", 'a fast shutdown tells too';
$p->expect_log(qr/worker_shutdown_timeout|closing \d+ connections/);
$p->stop(name => 'the server stops cleanly');
done_testing;
