# SPDX-License-Identifier: BSD-2-Clause
#
# What an idle kept-alive connection costs: 8,000 of them, each after one proxied request, may add
# at most 512 bytes of user memory each to the worker, whatever it has prepared for connections to
# come included.  Compared are a worker with room for 256 connections that holds none, and one
# with room for 8,000 that holds them.  The server is its own origin, over a small pool.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/lib";
use POSIX ();
use Socket;
use Test::More;
use Proxyd;

use constant { COUNT => 8000, LIMIT => 512, GROUP => 16 };

# nginx closes idle connections when fewer than a sixteenth of its slots are free.
my $slots = int((COUNT + 128) * 16 / 15) + 1;
my $files = $slots + 256;

# Perl has no setrlimit: the shell has, and then it runs this file again.
if (!$ENV{TEST_PROXYD_MEMORY_FILES}) {
    $ENV{TEST_PROXYD_MEMORY_FILES} = $files;
    my $raise = '{ ulimit -S -n "$0" || ulimit -n "$0"; } 2>/dev/null; exec "$@"';
    exec '/bin/sh', '-c', $raise, $files, $^X, $0, @ARGV or die "sh: $!";
}
my $limit = POSIX::sysconf(POSIX::_SC_OPEN_MAX);
plan skip_all => "only $limit open files are allowed, $files are needed"
    if defined $limit && $limit < $files;
plan skip_all => 'a sanitizer keeps books of its own'
    if Proxyd::sanitized();

sub server {
    my ($connections) = @_;
    my $p = Proxyd->new(conf => <<"EOT");
worker_rlimit_nofile $files;
events { worker_connections $connections; }
http {
    access_log off;
    keepalive_timeout 600s;
    keepalive_requests 100000;
    upstream self { server 127.0.0.1:{{port:origin}}; keepalive 32; }
    server {
        listen 127.0.0.1:{{port}};
        location / {
            proxy_pass http://self;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
        }
    }
    server {
        listen 127.0.0.1:{{port:origin}};
        location / { return 200 "0123456789abcdef"; }
    }
}
EOT
    return $p->start;
}

sub client {
    my ($p) = @_;
    socket my $s, PF_INET, SOCK_STREAM, 0 or die "socket: $!";
    connect $s, pack_sockaddr_in($p->port, INADDR_LOOPBACK) or die "connect: $!";
    setsockopt $s, SOL_SOCKET, SO_RCVTIMEO, pack('l!l!', 10, 0);
    return $s;
}

# One request on each of the sockets, all under way at the same time; how many were answered.
sub ask {
    my $good = 0;
    syswrite $_, "GET /some/path?q=1 HTTP/1.1\r\nHost: localhost\r\nAccept: */*\r\n\r\n" for @_;
    for my $s (@_) {
        my $in = '';
        while ($in !~ /\r\n\r\n.{16}\z/s) { last unless sysread $s, $in, 4096, length $in }
        $good++ if $in =~ m{^HTTP/1\.1 200 .*\r\n\r\n0123456789abcdef\z}s;
    }
    return $good;
}

# Octets of the process that are its own: the larger of private and anonymous memory.
sub memory {
    my ($pid) = @_;
    my %kib = (Anonymous => 0, Private => 0);
    open my $fh, '<', "/proc/$pid/smaps_rollup" or die "smaps_rollup: $!";
    while (<$fh>) {
        $kib{$1} += $2 if /^(Private|Anonymous)\w*:\s+(\d+) kB/;
    }
    return 1024 * ($kib{Private} > $kib{Anonymous} ? $kib{Private} : $kib{Anonymous});
}

sub warm_up {
    my ($p) = @_;
    my $good = 0;
    for (1 .. 8) {
        my @clients = map { client($p) } 1 .. GROUP;
        $good += ask(@clients) for 1 .. 4;
    }
    return $good == 8 * 4 * GROUP;
}

my $small = server(256);
ok(warm_up($small), 'a server with few slots answers');
my $base = memory(($small->workers)[0]);
$small->stop;

my $p = server($slots);
ok(warm_up($p), 'a server with many slots answers');
my ($worker) = $p->workers;
my $before = memory($worker);
my ($good, @idle) = (0);
for (1 .. COUNT / GROUP) {
    my @clients = map { client($p) } 1 .. GROUP;
    $good += ask(@clients);
    push @idle, @clients;
}
is($good, COUNT, COUNT . ' connections had their answer');
my $after = memory($worker);
my $each = ($after - $base) / COUNT;
diag(sprintf 'per idle connection: %.0f octets, %.0f of them beforehand', $each,
    ($before - $base) / COUNT);
SKIP: {
    skip 'the limit is not meant for nginx', 1 if Proxyd::is_nginx();
    cmp_ok($each, '<=', LIMIT, 'user memory per idle connection');
}
$good = 0;
for (my $i = 0; $i < COUNT; $i += GROUP) { $good += ask(@idle[$i .. $i + GROUP - 1]) }
is($good, COUNT, 'all of them were still open, and answer again');
is(($p->workers)[0], $worker, 'by the same worker');
@idle = ();
$p->stop;
done_testing;
