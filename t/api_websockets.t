# SPDX-License-Identifier: BSD-2-Clause
#
# A thousand changes of a group's servers through the API under thousands of open WebSockets: none is lost, the workers
# are the same, their memory is what it was. After kill -9 of all processes and a start the servers are as they were changed.
# PROXYD_LONG=1: 10,000 sockets instead of 1,000.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/lib";
use JSON::PP ();
use POSIX ();
use Test::More;
use Load;
use Proxyd;

plan skip_all => 'nginx has no api' if Proxyd::is_nginx();

my $slow = Proxyd::sanitized();
my $sockets = $ENV{PROXYD_LONG} ? 10_000 : $slow ? 300 : 1_000;
my $changes = $slow ? 300 : 1_000;
my $workers = 4;
my $files = $sockets + 1024; # the client has one for each, a worker two for each of a quarter of them

# Perl has no setrlimit: the shell has, and then it runs this file again.
if (!$ENV{TEST_PROXYD_WEBSOCKETS_FILES}) {
    $ENV{TEST_PROXYD_WEBSOCKETS_FILES} = $files;
    my $raise = '{ ulimit -S -n "$0" || ulimit -n "$0"; } 2>/dev/null; exec "$@"';
    exec '/bin/sh', '-c', $raise, $files, $^X, $0, @ARGV or die "sh: $!";
}
my $limit = POSIX::sysconf(POSIX::_SC_OPEN_MAX);
plan skip_all => "only $limit open files are allowed, $files are needed" if defined $limit && $limit < $files;

my $json = JSON::PP->new->utf8->canonical;
my $p = Proxyd->new(log => 'warn', conf => <<"EOT");
worker_processes $workers;
worker_rlimit_nofile $files;
events { worker_connections $files; }
http {
    access_log off;
    keepalive_requests 1000000;
    upstream app { zone app 256k; state {{dir}}/state/app.conf; }
    server {
        listen 127.0.0.1:{{port}} backlog=4096;
        location /api { api write=on; }
        location / {
            proxy_pass http://app;
            proxy_http_version 1.1;
            proxy_set_header Connection \$http_connection;
            proxy_set_header Upgrade \$http_upgrade;
            proxy_read_timeout 1h;
            proxy_send_timeout 1h;
        }
    }
}
EOT
mkdir $p->dir . '/state';
chmod 0777, $p->dir . '/state';
my $program = Load::build($p->dir, 'websockets') or plan skip_all => "no C compiler: $@";
my @origins = map { Load->spawn($program, 'origin', $p->port("app$_")) } 0 .. 2;
$_->answer for @origins;
$p->start;

# One connection to the API for all calls: they all come to one worker. Now and then it is another one.
my ($connection, $calls);
sub api {
    my ($method, $path, $body) = @_;
    $connection = $p->connect if !$connection || $calls++ % 50 == 0;
    $body = defined $body ? $json->encode($body) : '';
    $connection->send("$method /api/9/http/upstreams/app$path HTTP/1.1\r\nHost: localhost\r\nContent-Length: "
        . length($body) . "\r\n\r\n$body");
    my $r = $connection->response(method => $method) or die "$method $path: no answer";
    return ($r->status, $r->body eq '' ? undef : $json->decode($r->body));
}
sub servers { return (api('GET', '/servers'))[1] }
sub peers { return (api('GET', ''))[1] }

# Memory of the workers' own, kilobytes.
sub memory {
    my $kb = 0;
    for my $pid ($p->workers) {
        open my $fh, '<', "/proc/$pid/smaps_rollup" or next;
        /^Private_(?:Clean|Dirty):\s+(\d+)/ and $kb += $1 while <$fh>;
    }
    return $kb;
}
sub zone_pages { return $json->decode($p->get('/api/9/slabs/app?fields=pages')->body)->{pages}{used} }

is((api('POST', '/servers', { server => '127.0.0.1:' . $p->port("app$_") }))[0], 201, "server $_") for 0 .. 2;

my $client = Load->spawn($program, 'client', $p->port, $sockets);
is(join(' ', $client->answer), "open $sockets", "$sockets WebSockets are open");
is(join(' ', $client->command('ping')), "alive $sockets lost 0", 'and work');
my @pids = sort $p->workers;
my $before = peers();
my $active = 0;
$active += $_->{active} for @{ $before->{peers} };
is($active, $sockets, 'each is a connection of some server');

# --- changes -----------------------------------------------------------------------------------------

# One round: five changes that leave the group with three servers, of which one, with its sockets, was exchanged for another.
my ($done, @failed) = (0);
sub change {
    my ($want, @call) = @_;
    my ($status, $answer) = api(@call);
    $done++;
    push @failed, "$call[0] $call[1]: $status " . $json->encode($answer) if $status != $want;
    return $answer;
}
sub round {
    my ($n) = @_;
    my $new = change(201, 'POST', '/servers', { server => '127.0.0.1:' . $p->port('app' . $n % 3), weight => 1 + $n % 5,
        route => "r$n", down => JSON::PP::true });
    change(200, 'PATCH', "/servers/$new->{id}", { down => JSON::PP::false, max_fails => $n % 4, slow_start => '5s' });
    my $old = servers()->[0]{id};
    change(200, 'PATCH', "/servers/$old", { drain => JSON::PP::true });
    change(200, 'PATCH', "/servers/$old", { max_conns => $n, fail_timeout => '7s' });
    change(200, 'DELETE', "/servers/$old");
}

# What comes with the first use of anything is not a leak: a tenth of the changes is made before memory is looked at.
my $n = 0;
round($n++) while $done < $changes / 10;
$p->get('/') for 1 .. 40;
my ($memory, $pages) = (memory(), zone_pages());
while ($done < $changes) {
    round($n++);
    is(join(' ', $client->command('ping')), "alive $sockets lost 0", "after $done changes") if $n % 40 == 0;
}
is_deeply(\@failed, [], "$done changes, all well");
is(join(' ', $client->command('ping')), "alive $sockets lost 0", 'no WebSocket was lost');
is_deeply([sort $p->workers], \@pids, 'the workers are the same');
cmp_ok(zone_pages(), '<=', $pages + 1, "the zone's memory is what it was: $pages pages");
SKIP: {
    skip 'a sanitizer keeps books of its own', 1 if $slow;
    cmp_ok(memory(), '<', $memory + 64 * $workers, "so is the workers': $memory kB");
}
my $now = peers();
is(scalar @{ $now->{peers} }, 3, 'three servers');
cmp_ok($now->{zombies}, '>', 0, 'removed ones still have connections');
is($p->get('/')->status, 200, 'requests are served');

# --- the end of the sockets ----------------------------------------------------------------------------

my $last = servers();
$client->stop;
ok($p->wait_for(sub { my $s = peers(); my $a = 0; $a += $_->{active} for @{ $s->{peers} }; $s->{zombies} == 0 && $a == 0 }, 30),
    'with their connections the removed servers go');

# --- kill -9 -------------------------------------------------------------------------------------------

my @all = ($p->master, $p->workers);
$p->expect_log(qr{exited on signal 9|the master process has gone});
kill 'KILL', @all;
waitpid $p->master, 0;
$p->wait_for(sub { !grep { Proxyd::alive($_) } @all }, 10);
undef $connection;
unlink $p->dir . '/proxyd.pid';
$p->start;
my @again = map { { %$_ } } @{ servers() };
delete $_->{id} for @again, @$last;
is($json->encode(\@again), $json->encode($last), 'after kill -9 and a start the servers are as they were changed');
is($p->get('/')->status, 200, 'and serve');

$p->stop;
$_->stop for @origins;
done_testing();
