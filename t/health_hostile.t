# SPDX-License-Identifier: BSD-2-Clause
#
# Active health checks of servers that mean ill: an answer that drips forever; a thousand handshakes that come to nothing, after which
# nothing is left over; a reload and the end of the worker that checks, in the midst of handshakes.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/lib";
use IO::Socket::INET;
use Test::More;
use Proxyd;

plan skip_all => 'proxyd only' if Proxyd::is_nginx();

sub lines { my ($p, $re) = @_; return scalar(() = ($p->error_log || '') =~ /$re/g) }

# --- a byte now and then, faster than any timer ----------------------------------------------------
my $p = Proxyd->new;
$p->origin('drip', sub {
    my ($c) = @_;
    sysread $c->sock, my $in, 4096;
    $c->write("HTTP/1.0 200 OK\r\nContent-Length: 200000\r\n\r\n") or return;
    while ($c->write('x')) { select undef, undef, undef, 0.0002 }
});
$p->write_conf(<<'EOT');
error_log error.log info;
http {
    proxy_read_timeout 200ms;
    upstream drip { zone z 512k; server 127.0.0.1:{{port:drip}}; }
    server { listen 127.0.0.1:{{port}}; location / { proxy_pass http://drip; health_check mandatory interval=1h; } }
}
EOT
$p->start;
ok $p->wait_log(qr/\[info\] \S+ upstream timed out .*upstream "drip"/, undef, 10), 'an answer that drips ends at twice proxy_read_timeout';
ok $p->wait_log(qr/peer is unhealthy .*upstream "drip"/, undef, 5), 'unhealthy';
$p->stop;

# --- handshakes that come to nothing ------------------------------------------------------------------
$p = Proxyd->new;
$p->origin('plain', sub { my ($c) = @_; sysread $c->sock, my $in, 4096; $c->write("HTTP/1.0 400 Bad\r\n\r\n") });
$p->origin('closes', sub { my ($c) = @_; sysread $c->sock, my $in, 4096; close $c->sock });
my $silent = IO::Socket::INET->new(LocalAddr => '127.0.0.1', LocalPort => $p->port('silent'), Listen => 4096, ReuseAddr => 1) or die "listen: $!";
my ($groups, $places) = ('', '');
for my $group (qw(plain closes silent)) {
    $groups .= "upstream $group { zone z 2m; server 127.0.0.1:{{port:$group}}; }\n";
    $places .= "location /$group$_ { proxy_pass https://$group; proxy_ssl_server_name on; proxy_ssl_name \$host; health_check interval=10ms "
        . ($_ % 2 ? 'type=grpc' : "uri=/$_") . "; }\n" for 1 .. 4;
}
$p->write_conf(<<"EOT");
worker_processes 2;
error_log error.log info;
http {
    proxy_connect_timeout 60ms;
    $groups
    server { listen 127.0.0.1:{{port}}; $places }
}
EOT
$p->expect_log(qr/worker process \d+ (?:exited on signal 9|was killed)|SIGKILL|signal 9/);
$p->start;
# So many of each kind, in the log at info.
my %ends = (plain => qr/SSL_do_handshake\(\) failed[^\n]*upstream "plain"/,
    closes => qr/(?:peer closed connection in SSL handshake|SSL_do_handshake\(\) failed)[^\n]*upstream "closes"/,
    silent => qr/upstream timed out[^\n]*while SSL handshaking to upstream[^\n]*upstream "silent"/);
sub fds { my $n = 0; for my $pid ($p->workers($p->master)) { opendir my $d, "/proc/$pid/fd" or next; $n += grep { !/^\./ } readdir $d } return $n }
sub failed_all { my ($n) = @_; return Proxyd::wait_for(sub { !grep { lines($p, $ends{$_}) < $n } keys %ends }, 60) }
ok failed_all(20), 'handshakes fail';
my $before = fds();
ok failed_all(334), 'a thousand of them';
# as many as may be under way, more or less than at the other look
cmp_ok fds(), '<=', $before + 16, 'no descriptors are left';

# Silence is what is met when these come.
my %now = map { $_ => lines($p, $ends{$_}) } keys %ends;
ok $p->reload, 'reload in the midst of handshakes';
ok Proxyd::wait_for(sub { !grep { lines($p, $ends{$_}) < $now{$_} + 10 } keys %ends }, 20), 'the new worker goes on checking';
for my $pid ($p->workers($p->master)) {
    %now = map { $_ => lines($p, $ends{$_}) } keys %ends;
    kill 'KILL', $pid;
    ok Proxyd::wait_for(sub { !grep { $_ == $pid } $p->workers($p->master) }, 10), 'a worker dies';
    ok Proxyd::wait_for(sub { !grep { lines($p, $ends{$_}) < $now{$_} + 10 } keys %ends }, 20), 'another one checks, if it was that';
}
is $p->get('/silent1')->status, 502, 'all are sick';
$p->stop;
done_testing;
