# SPDX-License-Identifier: BSD-2-Clause
# serial
#
# What a proxied request over kept-alive connections costs once the worker is warm: no allocation,
# and of system calls one read and one write on each side and the waits.  Allocations are counted
# by t/bench/malloc_count.c, preloaded; system calls by strace.
use strict;
use warnings;
no warnings 'exec';
use FindBin;
use lib "$FindBin::Bin/lib";
use POSIX qw(WNOHANG);
use Test::More;
use Load;
use Proxyd;

plan skip_all => 'a sanitizer allocates and asks the system for itself'
    if Proxyd::sanitized();

use constant { WARM => 300, COUNTED => 2000 };

my $conf = <<'EOT';
worker_processes 1;
http {
    access_log {{dir}}/access.log combined buffer=64k;
    keepalive_requests 1000000;
    keepalive_timeout 600s;
    open_file_cache max=100;
    open_file_cache_valid 600s;
    upstream app { server 127.0.0.1:{{port:app}}; keepalive 8; keepalive_requests 1000000; }
    server {
        listen 127.0.0.1:{{port}};
        root {{dir}}/html;
        location / { proxy_pass http://app; proxy_http_version 1.1; proxy_set_header Connection ""; }
        location /static/ { }
        location /text { return 200 "a text\n"; }
    }
}
EOT
my $p = Proxyd->new(conf => $conf);
my $dir = $p->dir;
$p->write_file('html/static/file', 's' x 1024);
my $body = 'b' x 1024;
my $app = $p->origin('app', sub {
    my ($c) = @_;
    while ($c->request) { $c->write("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 1024\r\n\r\n$body") }
});

# N requests one after the other over an open connection, each answer read whole: how many were right.
sub ask {
    my ($s, $n, $bytes, $length) = @_;
    my $good = 0;
    for (1 .. $n) {
        syswrite $s, $bytes;
        my $in = '';
        while (1) {
            sysread $s, $in, 65536, length $in or return $good;
            last if $in =~ /\r\n\r\n/ && length($in) >= $+[0] + $length;
        }
        $good++ if $in =~ m{^HTTP/1\.1 200 };
    }
    return $good;
}

sub open_connection {
    my $s = $p->connect->sock;
    $s->blocking(1);
    return $s;
}

my $fields = "Host: www.example.com\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64)\r\nAccept: */*\r\nCookie: a=b; c=d\r\n";
my %requests = (
    proxied => ["GET /a/path?with=args HTTP/1.1\r\n$fields\r\n", 1024],
    posted => ["POST /a/path HTTP/1.1\r\n${fields}Content-Length: 200\r\n\r\n" . 'p' x 200, 1024],
    static => ["GET /static/file HTTP/1.1\r\n$fields\r\n", 1024],
    text => ["GET /text HTTP/1.1\r\n$fields\r\n", 7],
);

# --- allocations --------------------------------------------------------------------------------
my $counter = Load::build($dir, 'bench/malloc_count.c', add => ['-shared', '-fPIC']);
SKIP: {
    skip "no C compiler: $@", 1 unless $counter;
    $p->write_file('count', "\0" x 16);
    $p->start(env => { LD_PRELOAD => $counter, BENCH_MALLOC_COUNT => "$dir/count" });
    my $s = open_connection();
    # A file that changed a moment ago may change again unseen, and is read each time.
    $p->wait_for(sub { time - (stat "$dir/html/static/file")[10] >= 2 });
    for my $kind (sort keys %requests) {
        my ($bytes, $length) = @{ $requests{$kind} };
        ask($s, WARM, $bytes, $length);
        my ($before, $freed) = unpack 'Q2', $p->read_file('count');
        cmp_ok $before, '>', 0, "$kind: the counter counts";
        is ask($s, COUNTED, $bytes, $length), COUNTED, "$kind: answered";
        my ($after, $freed_after) = unpack 'Q2', $p->read_file('count');
        SKIP: {
            skip 'nginx allocates', 1 if Proxyd::is_nginx();
            # The access log's buffer and the minute's timers may want something; a request may not.
            cmp_ok $after - $before, '<=', 2, "$kind: no allocation per request, " . ($after - $before) . ' in ' . COUNTED;
        }
    }
    close $s;
    # Many connections, requests on each of them in turn: the pools are as warm as one.
    my @many = map { open_connection() } 1 .. 50;
    my $good = 0;
    my $round = sub { $good += ask($_, 1, @{ $requests{proxied} }) for @many };
    $round->() for 1 .. 5;
    my ($before) = unpack 'Q2', $p->read_file('count');
    $round->() for 1 .. 20;
    my ($after) = unpack 'Q2', $p->read_file('count');
    is $good, 25 * 50, 'many connections: answered';
    cmp_ok $after - $before, '<=', 2, 'many connections: no allocation, ' . ($after - $before) . ' in 1000' unless Proxyd::is_nginx();
    close $_ for @many;
    # A connection of its own for each: the memory of the last one serves again.
    my $fresh = sub { my $c = open_connection(); $good += ask($c, 1, @{ $requests{proxied} }); close $c };
    $fresh->() for 1 .. 50;
    ($before) = unpack 'Q2', $p->read_file('count');
    $good = 0;
    $fresh->() for 1 .. 200;
    ($after) = unpack 'Q2', $p->read_file('count');
    is $good, 200, 'new connections: answered';
    cmp_ok $after - $before, '<=', 2, 'new connections: no allocation, ' . ($after - $before) . ' in 200' unless Proxyd::is_nginx();
    delete $p->{pid} unless $p->end_server('QUIT', 0, 8);
}

# --- system calls -------------------------------------------------------------------------------
sub which { my ($n) = @_; for (split /:/, $ENV{PATH}) { return "$_/$n" if -x "$_/$n" } return }

# The calls that a process makes while the code runs: name => count.  As strace -c would count them,
# but from the moment on that the tracer has seen what the probe asked for.
sub calls {
    my ($pid, $probe, $code) = @_;
    my $out = "$dir/strace.out";
    unlink $out;
    my $tracer = fork;
    die "fork: $!" unless defined $tracer;
    if (!$tracer) {
        open STDERR, '>', "$dir/strace.err";
        exec which('strace'), '-s', 0, '-e', 'signal=none', '-o', $out, '-p', $pid;
        POSIX::_exit(127);
    }
    my $seen = sub { $probe->(); ($p->read_file($out) // '') =~ /recv/ || waitpid($tracer, WNOHANG) == $tracer };
    $p->wait_for($seen, 10);
    my $skip = length($p->read_file($out) // '') or return undef;
    $code->();
    kill 'INT', $tracer;
    waitpid $tracer, 0;
    my %n;
    my $text = substr $p->read_file($out), $skip;
    $n{$1}++ while $text =~ /^(\w+)\(/mg;
    return \%n;
}

SKIP: {
    skip 'strace is not installed', 1 unless which('strace');
    $p->start;
    my ($worker) = $p->workers;
    my $s = open_connection();
    ask($s, WARM, @{ $requests{$_} }) for sort keys %requests;
    # Reads and writes that each kind needs.
    my %needs = (proxied => 2, posted => 2, static => 1, text => 1);
    for my $kind (sort keys %requests) {
        ask($s, 10, @{ $requests{$kind} });
        my $good;
        my $n = calls($worker, sub { ask($s, 1, @{ $requests{$kind} }) }, sub { $good = ask($s, COUNTED, @{ $requests{$kind} }) });
        skip 'strace may not attach', 1 unless $n;
        is $good, COUNTED, "$kind: answered";
        my %left = %$n;
        my $take = sub { my $sum = 0; $sum += delete $left{$_} || 0 for @_; return $sum };
        my $read = $take->(qw(read readv recvfrom recvmsg));
        my $write = $take->(qw(write writev sendto sendmsg));
        my $wait = $take->(qw(epoll_wait epoll_pwait epoll_pwait2));
        note "$kind: " . join ', ', map { sprintf '%s %.3f', $_, $n->{$_} / COUNTED } sort { $n->{$b} <=> $n->{$a} } keys %$n;
        next if Proxyd::is_nginx();
        my ($want, $log) = (COUNTED * $needs{$kind}, COUNTED / 100);
        is $read, $want, "$kind: $needs{$kind} read(s) a request";
        # The buffered access log is written now and then.
        ok $write >= $want && $write <= $want + $log, "$kind: $needs{$kind} write(s) a request" or diag $write;
        # One for each event, and one more when a timer is due.
        ok $wait <= $want + $log, "$kind: $needs{$kind} wait(s) a request" or diag $wait;
        my $others = 0;
        $others += $_ for values %left;
        cmp_ok $others, '<=', 5, "$kind: nothing else" or diag explain \%left;
    }
    close $s;
}
$p->stop;
done_testing;
