# SPDX-License-Identifier: BSD-2-Clause
#
# Active health checks by gRPC: what is asked of a real server, over h2c and TLS, and what is made of answers that no such
# server would give.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/lib";
use Test::More;
use Proxyd;
use Proxyd::Certs;

plan skip_all => 'proxyd only' if Proxyd::is_nginx();

my ($python) = grep { system("$_ -c 'import grpc' 2>/dev/null") == 0 } '/usr/bin/python3', 'python3';
plan skip_all => 'python3-grpcio is not installed' unless $python;

my $p = Proxyd->new;
sub logged { my ($re) = @_; return $p->wait_log($re, undef, 20) }
sub lines { my ($re) = @_; return scalar(() = ($p->error_log || '') =~ /$re/g) }
sub say_so {
    my ($what) = @_;
    $p->write_file('grpc.new', $what);
    rename $p->dir . '/grpc.new', $p->dir . '/grpc' or die $!;
}
sub body { my $r = $p->get(@_); return $r->status == 200 ? $r->body : $r->status }

# --- a real server --------------------------------------------------------------------------------
my @pids;
sub serve {
    my (@args) = @_;
    my $pid = fork;
    die "fork: $!" unless defined $pid;
    if (!$pid) {
        open STDIN, '<', '/dev/null';
        open STDERR, '>', '/dev/null' unless $ENV{TEST_PROXYD_KEEP};
        exec $python, "-I", "$FindBin::Bin/apps/grpc_health.py", @args or POSIX::_exit(127);
    }
    push @pids, $pid;
}
END { local $?; kill 'KILL', $_ for @pids; waitpid $_, 0 for @pids }

my $certs = Proxyd::Certs->new($p->dir . '/certs');
$certs->make('good', names => ['grpc.test']);
serve($p->port('h2c'), $p->dir);
serve($p->port('tls'), $p->dir, $certs->path('good.crt'), $certs->path('good.key'));
for my $port ('h2c', 'tls') {
    ok Proxyd::wait_for(sub { IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $p->port($port)) }, 20), "a server of gRPC: $port";
}
$p->write_conf(<<'EOT');
error_log error.log info;
http {
    upstream clear { zone z 512k; server 127.0.0.1:{{port:h2c}}; }
    upstream tls { zone z; server 127.0.0.1:{{port:tls}}; }
    upstream wrong { zone z; server 127.0.0.1:{{port:tls}}; }
    upstream none { zone z; server 127.0.0.1:{{port:h2c}}; }
    upstream web { zone z; server 127.0.0.1:{{port:web}}; }
    upstream webtls { zone z; server 127.0.0.1:{{port:webtls}}; }
    proxy_ssl_verify on;
    proxy_ssl_trusted_certificate certs/ca.crt;
    server {
        listen 127.0.0.1:{{port}};
        location /clear { proxy_pass http://clear; health_check interval=100ms type=grpc; proxy_set_header X-Check yes;
                          proxy_set_header Connection upgrade; }
        location /tls { proxy_pass https://tls; proxy_ssl_name grpc.test; proxy_set_header Host grpc.test:50051;
                        health_check mandatory interval=100ms type=grpc grpc_service=my.Service; }
        location /wrong { proxy_pass https://wrong; proxy_ssl_name other.test; health_check interval=100ms type=grpc; }
        location /none { proxy_pass http://none; health_check interval=100ms type=grpc grpc_status=UNIMPLEMENTED; }
        location /none2 { proxy_pass http://none; health_check interval=100ms type=grpc grpc_service=other grpc_status=12; }
        location /web { proxy_pass http://web; health_check interval=100ms type=grpc; }
        location /webtls { proxy_pass https://webtls; proxy_ssl_verify off; health_check interval=100ms type=grpc; }
    }
    server { listen 127.0.0.1:{{port:web}}; return 200 web; }
    server { listen 127.0.0.1:{{port:webtls}} ssl; ssl_certificate certs/good.crt; ssl_certificate_key certs/good.key; return 200 web; }
}
EOT
say_so('serving 1');
$p->start;
sub asked { $p->read_file('grpc.asked') // '' }
ok Proxyd::wait_for(sub { asked() =~ /^Check - / && asked() =~ /^Check 0a0a/m }, 10), 'both are asked';
like asked(), qr{^Check - (?!.*connection)(?=.*x-check=yes).*$}m, 'for the server as a whole; literal fields go along, but not those of HTTP/1';
like asked(), qr{^Check 0a0a\Q@{[ unpack 'H*', 'my.Service' ]}\E }m, 'for a service';
ok logged(qr/\[notice\] \S+ peer is healthy while checking gRPC status, health check "" of peer \S+ in upstream "tls"/), 'TLS, with ALPN: healthy';
ok logged(qr/\[info\] \S+ upstream SSL certificate does not match "other.test" while SSL handshaking to upstream, health check.*upstream "wrong"/),
    'a certificate for another name';
ok logged(qr/\[info\] \S+ upstream does not speak HTTP\/2: it did not begin with SETTINGS while reading response header from upstream.*upstream "web"/),
    'a server of HTTP/1';
ok logged(qr/\[info\] \S+ (?:upstream|SSL_do_handshake).*upstream "webtls"/), 'and over TLS';
ok logged(qr/peer is unhealthy .*upstream "$_"/), "$_: unhealthy" for 'web', 'webtls', 'wrong';
is lines(qr/unhealthy .*upstream "(?:clear|tls|none)"/), 0, 'the others are not';

# What it says, and what comes of it in "clear" and "none" (which takes 12 as well).
for (['serving 0', 'the service is in status 0 UNKNOWN', 0],
     ['serving 2', 'the service is in status 2 NOT_SERVING', 0],
     ['serving 3', 'the service is in status 3 SERVICE_UNKNOWN', 0],
     ['serving 9', 'the service is in status 9', 0],
     ['status 12', 'the gRPC status is 12 UNIMPLEMENTED', 1],
     ['none', 'the gRPC status is 12 UNIMPLEMENTED', 1],
     ['status 5', 'the gRPC status is 5 NOT_FOUND', 0],
     ['bytes 0801120378797a', undef, 1],
     ['bytes 08', 'upstream sent an invalid gRPC message', 0]) {
    my ($what, $why, $none) = @$_;
    my %bad = map { $_ => lines(qr/unhealthy .*upstream "$_"/) } 'clear', 'none';
    my $n = asked() =~ tr/\n//;
    say_so($what);
    if (defined $why) {
        ok Proxyd::wait_for(sub { lines(qr/unhealthy .*upstream "clear"/) > $bad{clear} }, 10), "$what: sick";
        like $p->error_log, qr/\[info\] \S+ $why while checking gRPC status, health check "" of peer \S+ in upstream "clear"/, "$what: why";
        is body('/clear'), 502, "$what: nobody is sent there";
    }
    else {
        ok Proxyd::wait_for(sub { asked() =~ tr/\n// > $n + 8 }), "$what: asked";
    }
    if ($none) {
        is lines(qr/unhealthy .*upstream "none"/), $bad{none}, "$what: well where grpc_status says so, as a server that serves is";
    }
    else {
        ok Proxyd::wait_for(sub { lines(qr/unhealthy .*upstream "none"/) > $bad{none} }, 10), "$what: sick in spite of grpc_status";
    }
    my %well = map { $_ => lines(qr/peer is healthy .*upstream "$_"/) } 'clear', 'none';
    say_so('serving 1');
    ok Proxyd::wait_for(sub { lines(qr/peer is healthy .*upstream "clear"/) > $well{clear} }, 10), "$what: well again" if defined $why;
    ok Proxyd::wait_for(sub { lines(qr/peer is healthy .*upstream "none"/) > $well{none} }, 10), "$what: there too" if !$none;
}
kill 'KILL', @pids;
waitpid $_, 0 for @pids;
@pids = ();
ok logged(qr/connect\(\) failed .*while connecting to upstream, health check "" of peer \S+ in upstream "tls"/), 'a server that has gone';
$p->stop;

# --- answers byte by byte ---------------------------------------------------------------------------
sub frame {
    my ($type, $flags, $stream, $payload) = @_;
    return substr(pack('N', length $payload), 1) . pack('CCN', $type, $flags, $stream) . $payload;
}
my %type = (data => 0, headers => 1, priority => 2, rst => 3, settings => 4, push => 5, ping => 6, goaway => 7, window => 8, cont => 9);
sub f { my ($type, $flags, $stream, $payload) = @_; return frame($type{$type}, $flags, $stream, $payload // '') }
sub lit { my ($name, $value) = @_; return "\0" . chr(length $name) . $name . pack('C', length $value) . $value }
my $settings = f('settings', 0, 0);
my $ct       = lit('content-type', 'application/grpc');
my $head     = f('headers', 4, 1, "\x88$ct");
my $message  = "\0\0\0\0\2\x08\1";
my $data     = f('data', 0, 1, $message);
my $end      = f('headers', 5, 1, lit('grpc-status', '0'));
my $reading  = 'reading response (?:header|body) from upstream';
my $judging  = 'checking gRPC status';
# what, the bytes, the reason of a failure ('': it passes)
my @cases = (
    ['a good answer', $settings . $head . $data . $end, ''],
    ['with all that may come in between', f('settings', 0, 0, pack('nNnN', 3, 100, 0x99, 1)) . f('window', 0, 0, pack 'N', 99) . f('settings', 1, 0)
        . f('ping', 0, 0, 'x' x 8) . f('ping', 1, 0, 'x' x 8) . frame(77, 255, 5, 'what') . f('priority', 0, 7, 'x' x 5) . f('window', 0, 1, pack 'N', 1)
        . $head . f('goaway', 0, 0, pack 'NN', 1, 0) . $data . $end, ''],
    ['headers in pieces', $settings . f('headers', 0, 1, "\x88") . f('cont', 0, 1, '') . f('cont', 4, 1, $ct) . $data
        . f('headers', 1, 1, "\0\x0bgrpc-") . f('cont', 4, 1, "status\0010"), ''],
    ['padding and priority', $settings . f('headers', 0x2c, 1, "\x03" . 'p' x 5 . "\x88$ct" . "\0\0\0") . f('data', 8, 1, "\xff$message" . "\0" x 255) . $end, ''],
    ['an informational answer in front', $settings . f('headers', 4, 1, "\x08\x03103") . $head . $data . $end, ''],
    ['the message in pieces', $settings . $head . join('', map { f('data', 0, 1, $_) } split(//, $message), '') . $end, ''],
    ['a message with other fields', $settings . $head . f('data', 0, 1, "\0\0\0\0\x19" . "\x11" . 'x' x 8 . "\x1a\x03abc" . "\x25abcd" . "\x08\1" . "\x30\x96\1")
        . $end, 'upstream sent no single whole gRPC message', $judging],
    ['the same of the right length', $settings . $head . f('data', 0, 1, "\0\0\0\0\x18" . "\x11" . 'x' x 8 . "\x1a\x03abc" . "\x25abcd" . "\x08\1" . "\x30\x96\1")
        . $end, ''],
    ['no fields at all beside :status', $settings . f('headers', 4, 1, "\x88") . $data . $end, ''],
    ['a server that resets the stream behind its answer', $settings . $head . $data . $end . f('rst', 0, 1, pack 'N', 0), ''],
    # no HTTP/2
    ['nothing', '', 'upstream prematurely closed connection'],
    ['HTTP/1', "HTTP/1.1 400 Bad Request\r\n\r\n", 'upstream does not speak HTTP/2'],
    ['no SETTINGS first', $head . $data . $end, 'upstream does not speak HTTP/2'],
    ['an acknowledgement first', f('settings', 1, 0) . $settings . $head . $data . $end, 'upstream does not speak HTTP/2'],
    # what is cut
    ['SETTINGS alone', $settings, 'upstream prematurely closed connection'],
    ['no trailers', $settings . $head . $data, 'upstream prematurely closed connection'],
    ['a frame that is cut', $settings . $head . substr($data, 0, -1), 'upstream prematurely closed connection'],
    # frames
    ['a huge frame', $settings . substr(pack('N', 16385), 1) . pack('CCN', 0, 0, 1), 'upstream sent invalid frame of type 0 and 16385 bytes'],
    ['SETTINGS of 7 bytes', f('settings', 0, 0, 'x' x 7), 'upstream sent invalid frame'],
    ['an acknowledgement with a payload', $settings . f('settings', 1, 0, 'x' x 6), 'upstream sent invalid frame'],
    ['PING of 7 bytes', $settings . f('ping', 0, 0, 'x' x 7), 'upstream sent invalid frame'],
    ['PING on a stream', $settings . f('ping', 0, 1, 'x' x 8), 'upstream sent invalid frame'],
    ['WINDOW_UPDATE of 3 bytes', $settings . f('window', 0, 0, 'x' x 3), 'upstream sent invalid frame'],
    ['GOAWAY of 7 bytes', $settings . f('goaway', 0, 0, 'x' x 7), 'upstream sent invalid frame'],
    ['RST_STREAM of 5 bytes', $settings . f('rst', 0, 1, 'x' x 5), 'upstream sent invalid frame'],
    ['HEADERS on stream 0', $settings . f('headers', 4, 0, "\x88"), 'upstream sent invalid frame'],
    ['HEADERS on stream 3', $settings . f('headers', 4, 3, "\x88"), 'upstream sent a frame for a stream that there is not'],
    ['DATA on stream 2', $settings . f('data', 0, 2, 'x'), 'upstream sent a frame for a stream that there is not'],
    ['PUSH_PROMISE', $settings . f('push', 4, 1, "\0\0\0\2\x88"), 'upstream sent PUSH_PROMISE'],
    ['GOAWAY', $settings . f('goaway', 0, 0, pack('NN', 0, 11) . 'calm'), 'upstream sent GOAWAY with error 11'],
    ['RST_STREAM', $settings . f('rst', 0, 1, pack 'N', 7), 'upstream reset the stream with error 7'],
    ['RST_STREAM behind the head', $settings . $head . f('rst', 0, 1, pack 'N', 8), 'upstream reset the stream with error 8'],
    ['too long padding', $settings . f('headers', 0xc, 1, "\x09\x88"), 'upstream sent a frame with too long padding'],
    ['no padding length', $settings . $head . f('data', 8, 1, ''), 'upstream sent invalid frame'],
    ['no priority', $settings . f('headers', 0x24, 1, "\x88"), 'upstream sent invalid frame'],
    ['DATA first', $settings . $data, 'upstream sent DATA in front of HEADERS'],
    ['CONTINUATION first', $settings . f('cont', 4, 1, "\x88"), 'upstream sent another frame than CONTINUATION'],
    ['PING in a block', $settings . f('headers', 0, 1, "\x88") . f('ping', 0, 0, 'x' x 8), 'upstream sent another frame than CONTINUATION'],
    ['CONTINUATION of another stream', $settings . f('headers', 0, 1, "\x88") . f('cont', 4, 3, ''), 'upstream sent a frame for a stream that there is not'],
    # floods
    ['PING without end', $settings . f('ping', 0, 0, 'x' x 8) x 1000, 'upstream sent too many frames'],
    ['SETTINGS without end', $settings x 1000, 'upstream sent too many frames'],
    ['empty DATA without end', $settings . $head . f('data', 0, 1) x 1000, 'upstream sent too many frames'],
    ['empty CONTINUATION without end', $settings . f('headers', 0, 1, "\x88") . f('cont', 0, 1) x 1000, 'upstream sent too many frames'],
    ['CONTINUATION without end', $settings . f('headers', 0, 1, "\x88") . f('cont', 0, 1, 'x' x 16000) x 3, 'upstream sent too big header'],
    ['a large list of fields', $settings . f('headers', 4, 1, "\x88" . "\x40\1a\x7f\x81\x1d" . 'x' x 3840 . "\xbe" x 10), 'upstream sent too big header'],
    ['a large message', $settings . $head . f('data', 0, 1, "\0\0\0\x10\0" . 'x' x 4096), 'upstream sent too big response'],
    ['padding without end', $settings . $head . f('data', 8, 1, "\xff" . "\0" x 255) x 256, 'upstream sent too (?:big response|many frames)'],
    ['informational answers without end', $settings . f('headers', 4, 1, "\x08\x03103" . "\0\1a\xff\xa9\x45" . "\0" x 9000) x 20, 'upstream sent too big response'],
    ['large unknown frames without end', $settings . frame(77, 0, 0, 'x' x 16384) x 20, 'upstream sent too big response'],
    # fields
    ['an index of nothing', $settings . f('headers', 4, 1, "\xff\x7f"), 'upstream sent invalid header block with an index that nothing is at'],
    ['a bad Huffman code', $settings . f('headers', 4, 1, "\x88\0\x81\xff\0"), 'upstream sent invalid header block'],
    ['a table that is too large', $settings . f('headers', 4, 1, "\x3f\xe2\x1f\x88"), 'upstream sent invalid header block with a table size that is not allowed'],
    ['no :status', $settings . f('headers', 4, 1, $ct), 'upstream sent no :status'],
    ['an empty block', $settings . f('headers', 4, 1, ''), 'upstream sent no :status'],
    ['two of :status', $settings . f('headers', 4, 1, "\x88\x88"), 'upstream sent invalid :status'],
    ['a :status of two digits', $settings . f('headers', 4, 1, "\x08\x0220"), 'upstream sent invalid :status'],
    ['a :status that is no number', $settings . f('headers', 4, 1, "\x08\x03abc"), 'upstream sent invalid :status'],
    ['another status', $settings . f('headers', 5, 1, "\x08\x03503"), 'the status is 503'],
    ['another content-type', $settings . f('headers', 4, 1, "\x88" . lit('content-type', 'text/html')) . $data . $end, 'upstream sent an answer that is not of gRPC'],
    ['an informational answer alone', $settings . f('headers', 5, 1, "\x08\x03100"), 'upstream sent an informational answer alone'],
    ['trailers that do not end', $settings . $head . $data . f('headers', 4, 1, lit('grpc-status', '0')), 'upstream sent invalid trailers'],
    [':status in trailers', $settings . $head . $data . f('headers', 5, 1, "\x88" . lit('grpc-status', '0')), 'upstream sent invalid trailers'],
    ['no grpc-status', $settings . $head . f('data', 1, 1, $message), 'upstream sent no grpc-status', $judging],
    ['a grpc-status in the head alone', $settings . f('headers', 4, 1, "\x88" . lit('grpc-status', '0')) . $data . f('headers', 5, 1, ''),
        'upstream sent no grpc-status', $judging],
    ['no grpc-status in trailers', $settings . $head . $data . f('headers', 5, 1, ''), 'upstream sent no grpc-status', $judging],
    ['a grpc-status that is none', $settings . $head . $data . f('headers', 5, 1, lit('grpc-status', 'x')), 'upstream sent invalid grpc-status'],
    ['a large grpc-status', $settings . $head . $data . f('headers', 5, 1, lit('grpc-status', '99999999999')), 'upstream sent invalid grpc-status'],
    ['a grpc-status without name', $settings . f('headers', 5, 1, "\x88" . lit('grpc-status', '77')), 'the gRPC status is 77', $judging],
    # messages
    ['no message', $settings . $head . $end, 'upstream sent no single whole gRPC message', $judging],
    ['half a message', $settings . $head . f('data', 0, 1, substr $message, 0, -1) . $end, 'upstream sent no single whole gRPC message', $judging],
    ['two messages', $settings . $head . $data . $data . $end, 'upstream sent no single whole gRPC message', $judging],
    ['a compressed message', $settings . $head . f('data', 0, 1, "\1" . substr $message, 1) . $end, 'upstream sent a compressed gRPC message', $judging],
    ['a number without end', $settings . $head . f('data', 0, 1, "\0\0\0\0\x0c\x08" . "\xff" x 11) . $end, 'upstream sent an invalid gRPC message', $judging],
    ['a group', $settings . $head . f('data', 0, 1, "\0\0\0\0\1\x0b") . $end, 'upstream sent an invalid gRPC message', $judging],
    ['a string that is cut', $settings . $head . f('data', 0, 1, "\0\0\0\0\3\x12\xff\x0f") . $end, 'upstream sent an invalid gRPC message', $judging],
);
$p = Proxyd->new;
my $conf = "error_log error.log info;\nhttp { proxy_read_timeout 2s;\n";
my $locations = '';
for my $n (0 .. $#cases) {
    $conf .= "upstream u$n { zone all 1m; server 127.0.0.1:{{port:raw}}; }\n";
    $locations .= "location /$n { proxy_pass http://u$n; health_check mandatory interval=1h type=grpc grpc_service=case$n.; }\n";
}
$p->write_conf("$conf server { listen 127.0.0.1:{{port}};\n$locations}\n}\n");
$p->origin('raw', sub {
    my ($c) = @_;
    my $in = '';
    while ($in !~ /case(\d+)\./) { sysread($c->sock, $in, 4096, length $in) or return }
    my ($n) = $in =~ /case(\d+)\./;
    my $answer = $cases[$n][1];
    # in pieces of all sizes
    for (my ($at, $step) = (0, 1); $at < length $answer; $at += $step, $step = $step % 700 * 3 + 1) {
        $c->write(substr $answer, $at, $step) or return;
    }
    shutdown $c->sock, 1;
    1 while sysread $c->sock, $in, 4096;
});
$p->start;
for my $n (0 .. $#cases) {
    my ($what, undef, $why, $action) = @{ $cases[$n] };
    my $word = $why eq '' ? 'healthy' : 'unhealthy';
    my $log = $p->wait_log(qr/peer is (\w+) while [^\n]*upstream "u$n"/, undef, 10) // '';
    is $log, $word, "$what: $word";
    next if $why eq '';
    $action //= '[\w ]+';
    like $p->error_log, qr/\[info\] \S+ (?:$why).* while $action, health check "" of peer \S+ in upstream "u$n"/, "$what: why";
}
$p->stop;
done_testing;
