# SPDX-License-Identifier: BSD-2-Clause
# serial
#
# Constant load while the server is reloaded, upgraded and robbed of its workers: no request fails
# but those which a killed worker was serving.
#
# A client may find a kept-alive connection closed when it sends the next request on it; by RFC 9112
# section 9.3.1 it then repeats a GET on a new one, and so do the clients here.  Anything else (a
# refused or reset connection, a half answer, a closed new connection) is a failure.  POSTs always
# have a connection of their own.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/lib";
use IO::Socket::INET;
use POSIX ();
use Socket qw(IPPROTO_TCP TCP_NODELAY);
use Test::More;
use Time::HiRes qw(time sleep);
use Proxyd;

my $clients = 4;
my $conf = <<'EOT';
daemon on;
worker_processes 2;
http {
    access_log off;
    upstream app { server 127.0.0.1:{{port:app}}; keepalive 16; }
    server {
        listen 127.0.0.1:{{port}} backlog=1024;
        location / { return 200 "round 0\n"; }
        location /app/ { proxy_pass http://app; proxy_http_version 1.1; proxy_set_header Connection ""; }
    }
}
EOT
my $p = Proxyd->new(conf => $conf, log => 'notice');
my $app = $p->origin('app', sub {
    my ($c) = @_;
    while (my $q = $c->request) {
        my $body = "$q->{method} " . length($q->{body}) . "\n";
        $c->write("HTTP/1.1 200 OK\r\nContent-Length: " . length($body) . "\r\n\r\n$body");
    }
});
$p->start(daemon => 1);
my $port = $p->port;
my $dir = $p->dir;

# --- a client: lines "F time what" on failure, "N count retries" at the end ------------------------------
sub connect_now {
    my $s = IO::Socket::INET->new(PeerAddr => "127.0.0.1:$port", Timeout => 5) or return undef;
    setsockopt($s, IPPROTO_TCP, TCP_NODELAY, 1);
    return $s;
}

# Returns '' if all went well, 'closed' if the connection ended before any byte, else what failed.
sub exchange {
    my ($s, $bytes, $want) = @_;
    defined syswrite($s, $bytes) or return 'closed';
    my $in = '';
    while (1) {
        my $n = sysread $s, $in, 65536, length $in;
        return $in eq '' ? 'closed' : 'half an answer: ' . substr($in, 0, 60) unless $n;
        next unless $in =~ /^(.*?\r\n\r\n)/s;
        my $head = $1;
        return "answered $head" unless $head =~ m{^HTTP/1\.1 200 };
        my ($len) = $head =~ /^Content-Length: (\d+)/mi or return 'no length';
        next if length $in < length($head) + $len;
        my $body = substr $in, length $head;
        return "wrong body $body" unless $body =~ $want;
        return $head =~ /^Connection: close/mi ? 'close' : '';
    }
}

sub client {
    my ($id) = @_;
    my ($stop, $n, $again, $s) = (0, 0, 0);
    open my $out, '>', "$dir/client-$id" or die;
    $out->autoflush(1);
    $SIG{TERM} = sub { $stop = 1 };
    $SIG{PIPE} = 'IGNORE';
    my $h = "Host: a\r\n";
    my @kinds = (["GET / HTTP/1.1\r\n$h\r\n", qr/^round \d+\n$/], ["GET /app/x HTTP/1.1\r\n$h\r\n", qr/^GET 0\n$/],
        ["POST /app/y HTTP/1.1\r\n${h}Content-Length: 1000\r\nConnection: close\r\n\r\n" . 'p' x 1000, qr/^POST 1000\n$/, 1],
        ["GET / HTTP/1.1\r\n${h}Connection: close\r\n\r\n", qr/^round/, 1]);
    my @mix = (0, 0, 1, 0, 2, 0, 1, 3, 0, 0);
    until ($stop) {
        my ($bytes, $want, $alone) = @{ $kinds[$mix[$n++ % @mix]] };
        my $fresh = $alone || !$s;
        my $c = $fresh ? connect_now() : $s;
        my $r = $c ? exchange($c, $bytes, $want) : "connect: $!";
        if ($r eq 'closed' && !$fresh) {
            $again++;
            $c = connect_now();
            $r = $c ? exchange($c, $bytes, $want) : "connect: $!";
        }
        if ($r eq '' || $r eq 'close') { $s = $r eq '' ? $c : undef unless $alone }
        else {
            printf $out "F %.3f %s %s\n", time, $fresh ? 'new' : 'kept', $r =~ s/\s+/ /gr;
            undef $s unless $alone;
        }
    }
    print $out "N $n $again\n";
}

my @pids;
for my $id (1 .. $clients) {
    my $pid = fork;
    die 'fork' unless defined $pid;
    if (!$pid) { client($id); POSIX::_exit(0) }
    push @pids, $pid;
}
END { local $?; kill 'KILL', @pids if @pids }

sub failures { return map { my $t = $p->read_file("client-$_") // ''; $t =~ /^F .*$/mg } 1 .. $clients }
my $begin = time;

# --- reloads --------------------------------------------------------------------------------------------
my $reloaded = 0;
for my $round (1 .. 20) {
    my $workers = 1 + $round % 4;
    $p->write_conf($conf =~ s/round 0/round $round/r =~ s/worker_processes 2/worker_processes $workers/r);
    $reloaded++ if $p->reload;
}
is $reloaded, 20, '20 reloads, the number of workers changing';
is_deeply [failures()], [], 'no request failed';

# --- upgrades -------------------------------------------------------------------------------------------
my $upgraded = 0;
for my $round (1 .. 5) {
    my $old = $p->master;
    $p->wait_for(sub { !-e "$dir/proxyd.pid.oldbin" });
    $p->signal('USR2');
    $p->wait_for(sub { -e "$dir/proxyd.pid.oldbin" && ($p->pid_file || 0) > 0 && $p->pid_file != $old }, 10) or last;
    my $new = $p->pid_file;
    $p->wait_for(sub { scalar $p->workers($new) });
    $p->signal('QUIT');
    $upgraded++ if $p->adopt($new);
}
is $upgraded, 5, '5 binary upgrades';
is_deeply [failures()], [], 'no request failed';

# --- deaths ---------------------------------------------------------------------------------------------
$p->expect_log(qr/exited on signal 9/);
$p->write_conf($conf);
$p->reload;
$p->wait_for(sub { $p->workers == 2 });
my $deaths = 0;
for (1 .. 5) {
    my ($victim) = $p->workers;
    kill 'KILL', $victim;
    $deaths++ if $p->wait_for(sub { my @w = $p->workers; @w == 2 && !grep { $_ == $victim } @w });
    sleep 0.05;
}
is $deaths, 5, '5 workers killed and replaced';
my @lost = failures();
cmp_ok scalar @lost, '<=', 5 * $clients, 'a death costs at most what was being served: ' . @lost;
is_deeply [grep { /connect:/ } @lost], [], 'nobody was refused';

my $seconds = time - $begin;
kill 'TERM', @pids;
waitpid $_, 0 for splice @pids;
my ($total, $again) = (0, 0);
for (1 .. $clients) {
    my ($n, $a) = ($p->read_file("client-$_") // '') =~ /^N (\d+) (\d+)$/m;
    $total += $n // 0;
    $again += $a // 0;
}
note sprintf '%d requests in %.1f s, %d repeated', $total, $seconds, $again;
cmp_ok $total, '>', 5000, 'there was load';
$p->stop;
done_testing;
