# SPDX-License-Identifier: BSD-2-Clause
#
# ssl_key_process, where somebody means harm: a worker that does not read its answers keeps no other one from the next key process; the
# process's own log goes to nobody's socket; a crowd that waits for its turn is served to the last.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/lib";
use IO::Socket::INET;
use POSIX ();
use Test::More;
use Proxyd;
use Proxyd::Certs;
use Proxyd::KeyProcess qw(fds socket_of);

plan skip_all => 'needs the super-user' if $> != 0;

use constant DONTWAIT => 0x40;
use constant FIBRES => 1024; # as many handshakes may pause

my $p     = Proxyd->new;
my $certs = Proxyd::Certs->new($p->dir . '/certs');
$certs->make('ec', names => ['a.test']);
my $syslog = IO::Socket::INET->new(LocalAddr => '127.0.0.1', Proto => 'udp') or die $!;

sub conf_of {
    my ($workers) = @_;
    return <<"EOT";
user daemon;
worker_processes $workers;
worker_rlimit_nofile 8192;
ssl_key_process on;
error_log error.log notice;
error_log syslog:server=127.0.0.1:@{[$syslog->sockport]},tag=keys notice;
events { worker_connections 4096; }
http {
    ssl_certificate certs/ec.crt;
    ssl_certificate_key certs/ec.key;
    server { listen 127.0.0.1:{{port}} ssl backlog=4096; location / { return 200 "here"; } }
    server { listen 127.0.0.1:{{port:plain}}; location / { return 200 "plain"; } }
}
EOT
}
$p->write_conf(conf_of(2));
$p->start;
my $port = $p->port('main');

sub key_processes { return Proxyd::KeyProcess::key_processes($p, @_) }
sub successor { return Proxyd::KeyProcess::successor($p, @_) }
sub threads { my $pid = shift; return scalar(() = glob "/proc/$pid/task/*") }
sub answers { return $certs->get($port, '/', name => 'a.test')->status == 200 }

my ($worker) = $p->workers;
my $socket = socket_of($worker) or plan skip_all => 'a worker\'s socket cannot be had';
$p->expect_log(qr/the key process refused a worker's request/, qr/(?:key|worker) process \d+ exited on signal 9/);

# --- a worker that does not read ------------------------------------------------------------------

{
    my ($old) = key_processes();
    my $sent = 0;
    kill 'STOP', $worker;
    # Until the process can answer no more, and has stopped reading.
    Proxyd::wait_for(sub { $sent++ while defined send $socket, 'x' x 20, DONTWAIT; select undef, undef, undef, 0.2; return !defined send $socket, 'x' x 20, DONTWAIT }, 20);
    cmp_ok $sent, '>', 10, "a worker sends, and reads no answer ($sent)";
    kill 'KILL', $old;
    my $new = successor($old);
    ok Proxyd::wait_for(sub { threads($new) == 3 }, 10), 'the next key process has a thread for each worker' or diag threads($new);
    close $socket;
    kill 'KILL', $worker;
    ok Proxyd::wait_for(sub { threads($new) == 3 && !grep({ $_ == $worker } $p->workers) && $p->workers == 2 }, 10), 'and for the one that follows that worker';
    ok answers(), "handshakes go on ($_)" for 1 .. 4;
}

# --- its log --------------------------------------------------------------------------------------

{
    # The master's socket to the log's server is open when the next process begins, and closed in it; then workers' sockets
    # come, into all gaps, since those of workers that have died are held.
    my ($old) = key_processes();
    kill 'KILL', $old;
    successor($old);
    my @held;
    for (1 .. 24) {
        my ($gone) = $p->workers;
        push @held, socket_of($gone);
        kill 'KILL', $gone;
        Proxyd::wait_for(sub { my @now = $p->workers; @now == 2 && !grep { $_ == $gone } @now }, 10);
    }
    my $got = '';
    my $drain = sub { $got .= "$_\n" while defined recv($syslog, $_, 2000, DONTWAIT) && length; return $got };
    $drain->();
    $got = '';
    ok Proxyd::wait_for(sub {
        my $s = socket_of(($p->workers)[0]);
        send $s, 'y' x 20, DONTWAIT;
        return $drain->() =~ /keys: .*the key process refused a worker's request/;
    }, 5), 'the process\'s alerts reach the log\'s server';
    ok answers(), 'and handshakes go on';
}

# --- a crowd ---------------------------------------------------------------------------------------

# What a client says first.
sub hello {
    my $listener = IO::Socket::INET->new(Listen => 1, LocalAddr => '127.0.0.1') or die $!;
    my $pid = fork // die $!;
    if ($pid == 0) {
        open $_, '+>', '/dev/null' for *STDIN, *STDOUT, *STDERR;
        exec 'openssl', 's_client', '-connect', '127.0.0.1:' . $listener->sockport, '-servername', 'a.test';
    }
    my $c = $listener->accept;
    sysread $c, my ($hello), 16384;
    close $c;
    waitpid $pid, 0;
    return $hello;
}

{
    $p->write_conf(conf_of(1));
    $p->reload;
    Proxyd::wait_for(sub { key_processes() == 1 && $p->workers == 1 }, 20);
    my ($process) = key_processes();
    my ($only) = $p->workers;
    my $hello = hello();
    my @crowd;
    my $base = fds($only);
    my $join = sub {
        my ($n, $bytes) = @_;
        for (1 .. $n) {
            my $c = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $port) or die $!;
            syswrite $c, $bytes;
            push @crowd, $c;
        }
        Proxyd::wait_for(sub { fds($only) >= $base + @crowd }, 20) or diag fds($only) - $base;
        $p->get('/', port => 'plain');
    };
    kill 'STOP', $process;
    $join->(FIBRES, $hello);
    $join->(FIBRES + 50, pack('C n n', 22, 0x0301, 40) . "\1" x 40);
    # One more behind all others.
    $join->(1, $hello);
    my $last = $crowd[-1];
    $p->expect_log(qr/the key process did not answer in time/, qr/\[crit\].*SSL_do_handshake\(\) failed/);
    kill 'CONT', $process;
    vec(my $bits = '', fileno $last, 1) = 1;
    sysread $last, my ($answer), 3 if select $bits, undef, undef, 15;
    is $answer // 'nothing', "\26\3\3", 'the last one is served, though those before it needed no key after all';
    # Those that go away while they wait hand on their turn as well.
    @crowd = ();
    ok answers(), 'and so are the next ones';
}

done_testing;
