# SPDX-License-Identifier: BSD-2-Clause
#
# Five thousand connections that do not get through their handshake: half a hello, nothing at all, a byte now and then. Others do not
# wait longer for it, the worker sleeps, the memory is bounded and given back, the time of client_header_timeout ends them, and where
# worker_connections are used up that is logged and gets over.
# serial
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/lib";
use Test::More;
use Time::HiRes qw(time sleep);
use Proxyd;
use Proxyd::Certs;

plan skip_all => 'proxyd only' if Proxyd::is_nginx();
my $count = Proxyd::sanitized() ? 1000 : 5000;
# The connections are held by this process.
if (!$ENV{TEST_WAITING_LIMIT}) {
    $ENV{TEST_WAITING_LIMIT} = 1;
    exec 'sh', '-c', 'ulimit -n 8000 2> /dev/null; exec "$@"', 'sh', $^X, "-I$FindBin::Bin/lib", $0;
}
chomp(my $files = `sh -c 'ulimit -n'`);
plan skip_all => "only $files descriptors" if $files < $count + 500;

# Half of a hello, as openssl sends it.
my $hello = "\x16\x03\x01\x01\x2e\x01\x00\x01\x2a\x03\x03" . 'r' x 32 . "\x20" . 's' x 32 . "\x00\x3e" . "\x13\x02\x13\x03\x13\x01\xc0\x2c" x 7;

sub server {
    my (%o) = @_;
    my $p     = Proxyd->new;
    my $certs = Proxyd::Certs->new($p->dir . '/certs');
    $certs->make('a', names => ['a.test']);
    $p->write_conf(<<"EOT");
worker_processes 1;
worker_rlimit_nofile 8000;
events { worker_connections $o{connections}; }
http {
    ssl_certificate certs/a.crt;
    ssl_certificate_key certs/a.key;
    server { listen 127.0.0.1:{{port}} ssl backlog=4096; client_header_timeout 600s; location / { return 200 ok; } }
    server { listen 127.0.0.1:{{port:short}} ssl backlog=4096; client_header_timeout 1s; location / { return 200 ok; } }
}
EOT
    $p->start;
    return $p;
}

my @kinds = (
    ['half a hello', $hello],
    ['nothing', ''],
    ['a byte', "\x16"],
);

# N connections, a third of each kind.
sub wait_at {
    my ($p, $port, $n) = @_;
    return map { my $c = $p->connect($port); $c->send($kinds[$_ % 3][1]) if $_ % 3 != 1; $c } 0 .. $n - 1;
}

sub rss_kb { my ($p, $worker) = @_; return $p->read_file("/proc/$worker/status") =~ /VmRSS:\s+(\d+)/ ? $1 : 0 }
sub ticks { my ($p, $worker) = @_; my @f = split ' ', $p->read_file("/proc/$worker/stat"); return $f[13] + $f[14] }
sub median { my @s = sort { $a <=> $b } @_; return $s[@s / 2] }
sub held { my ($p, $worker) = @_; return scalar(() = glob "/proc/$worker/fd/*") }

my $loaded = server(connections => 7500);
my $idle   = server(connections => 7500);
my ($worker) = $loaded->workers;

# One handshake and one request. The client's context is made once: that takes longer than all the rest.
my $context = IO::Socket::SSL::SSL_Context->new(SSL_verify_mode => 0);

sub round_trip {
    my ($p)  = @_;
    my $from = time;
    my $sock = $p->connect('main')->sock;
    $sock->blocking(1);
    my $ssl = IO::Socket::SSL->start_SSL($sock, SSL_reuse_ctx => $context, SSL_hostname => 'a.test', Timeout => 10) or return undef;
    my $c = Proxyd::Http->wrap($ssl);
    $c->send("GET / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n");
    my $r = $c->response;
    $c->close;
    return $r && $r->status == 200 ? time - $from : undef;
}
for my $p ($loaded, $idle) { round_trip($p) for 1 .. 20 }
my $before = rss_kb($loaded, $worker);
my $fds    = held($loaded, $worker);
my @waiting = wait_at($loaded, 'main', $count);
ok $loaded->wait_for(sub { held($loaded, $worker) >= $fds + $count }, 30), "$count connections wait";

# Those that drip send their next bytes while others are served.
my @rest = split //, substr $hello, 1;
my (@with, @without, $failed);
for my $try (1 .. 3) {
    (@with, @without) = ();
    for my $i (1 .. 60) {
        if ($i % 10 == 0 && @rest) {
            my $byte = shift @rest;
            for (my $n = 2; $n < @waiting; $n += 3) { syswrite $waiting[$n]->sock, $byte }
            round_trip($loaded);
        }
        for ([$loaded, \@with], [$idle, \@without]) {
            my $took = round_trip($_->[0]);
            if (defined $took) { push @{ $_->[1] }, $took } else { $failed++ }
        }
    }
    last if median(@with) <= 2 * median(@without);
}
is $failed, undef, 'all others are served';
cmp_ok median(@with), '<=', 2 * median(@without), 'and wait no longer than twice the usual time';
note sprintf 'median %.2f ms, without %.2f ms', 1000 * median(@with), 1000 * median(@without);

my $each = (rss_kb($loaded, $worker) - $before) * 1024 / $count;
note sprintf '%.0f bytes a connection', $each;
cmp_ok $each, '<', 40_000, 'memory of each is bounded' unless Proxyd::sanitized();
ok $loaded->wait_for(sub { my $from = ticks($loaded, $worker); sleep 0.5; return ticks($loaded, $worker) - $from <= 2 }, 20), 'the worker sleeps';
is held($loaded, $worker), $fds + $count, 'they are all still there';
$_->close for @waiting;
@waiting = ();
ok $loaded->wait_for(sub { held($loaded, $worker) == $fds }, 30), 'closed by the clients: gone';
ok defined round_trip($loaded), 'served as before';
my $left;
my $few = $loaded->wait_for(sub { ($left = (rss_kb($loaded, $worker) - $before) * 1024 / $count) < $each / 2 }, Proxyd::sanitized() ? 0 : 10);
note sprintf '%.0f bytes a connection are left', $left;
ok $few, 'their memory is given back' unless Proxyd::sanitized();
$idle->stop;

# --- client_header_timeout ends them, even if they say something from time to time -----------------------

{
    my @some = wait_at($loaded, 'short', 300);
    my $open = 300;
    my @more = split //, substr $hello, 1;
    ok $loaded->wait_for(sub {
        my $byte = shift @more // "\0";
        local $SIG{PIPE} = 'IGNORE';
        for my $n (grep { $_ % 3 == 2 } 0 .. $#some) { syswrite $some[$n]->sock, $byte if !$some[$n]->eof }
        $open = grep { $_->fill } @some;
        return $open == 0;
    }, 20), 'client_header_timeout: all are closed' or diag "$open are open";
    my $log = $loaded->error_log;
    my $timed = () = $log =~ /\[info\] .*client timed out \(110: Connection timed out\) while SSL handshaking, client/g;
    my $silent = () = $log =~ /\[info\] .*client timed out \(110: Connection timed out\) while (?:waiting for request|SSL handshaking), client/g;
    cmp_ok $timed, '>=', 100, 'client_header_timeout: logged for those that have begun';
    is $silent, 300, 'client_header_timeout: and for each one';
}
$loaded->stop;

# --- worker_connections -------------------------------------------------------------------------------------

{
    my $p = server(connections => 64);
    $p->expect_log(qr/worker_connections are not enough/);
    my @all = map { my $x = $p->connect('main'); $x->send($hello); $x } 1 .. 100;
    ok $p->wait_log(qr/\[\w+\] .*64 worker_connections are not enough/), 'worker_connections: said when they are used up';
    my $lines = () = $p->error_log =~ /worker_connections are not enough/g;
    cmp_ok $lines, '<=', 100, 'worker_connections: not more often than there are connections';
    $_->close for @all;
    ok $p->wait_for(sub { defined round_trip($p) }, 10), 'worker_connections: served again when they are free';
    is scalar(grep { !defined round_trip($p) } 1 .. 20), 0, 'worker_connections: all';
    $p->stop;
}
done_testing;
