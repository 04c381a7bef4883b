# SPDX-License-Identifier: BSD-2-Clause
# serial
#
# Reloads that change the configuration, binary upgrades and killed workers, in random order, under
# a constant load of requests and of what lasts: downloads, uploads and WebSocket sessions that
# begin in one configuration and end several later.  Only what a killed worker held may be lost.
# PROXYD_LONG=1: 50 reloads, 5 upgrades, 12 deaths.  CHAOS_SEED=N repeats an order.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/lib";
use List::Util qw(shuffle);
use Test::More;
use Load;
use Proxyd;

plan skip_all => 'proxyd only' if Proxyd::is_nginx();

my $seed = $ENV{CHAOS_SEED} || 1 + int rand 1e6;
srand $seed;
diag "seed $seed";
my ($slow, $long) = (Proxyd::sanitized(), $ENV{PROXYD_LONG});
my ($rate, $each) = $slow ? (200, 2) : (1000, 4);
my ($reloads, $upgrades, $deaths) = $long ? (50, 5, 12) : $slow ? (5, 1, 2) : (10, 2, 4);

sub which { my ($n) = @_; for (split /:/, $ENV{PATH}) { return "$_/$n" if -x "$_/$n" } return }
my ($python) = grep { defined && system("$_ -c 'import websockets' 2>/dev/null") == 0 } '/usr/bin/python3', which('python3');
plan skip_all => 'python3-websockets is not installed' unless $python;
my $node = which('node') or plan skip_all => 'node is not installed';

my $p = Proxyd->new(log => 'notice');
my $dir = $p->dir;

# A configuration like no other.
my ($round, $workers) = (0, 2);
sub new_conf {
    $round++;
    $workers = 1 + int rand 4;
    my $any = sub { $_[rand @_] };
    my $method = $any->('', 'least_conn;', 'ip_hash;', 'random;', 'hash $request_uri consistent;');
    my $zone = $any->('', 'zone app 128k;', 'zone app 256k;');
    my $check = $zone && rand(2) < 1 ? 'health_check interval=100ms uri=/app/?seed=1&len=1&chunked=0;' : '';
    my $weight = 1 + int rand 5;
    my $keepalive = $any->('', 'keepalive 4;', 'keepalive 32;');
    my $buffers = 4 + int rand 8;
    my $log = $any->('access_log off;', 'access_log {{dir}}/access.log combined buffer=32k flush=1s;', 'access_log {{dir}}/access.log;');
    $p->write_conf(<<"EOT");
daemon on;
worker_processes $workers;
worker_shutdown_timeout 60s;
events { worker_connections 2048; }
http {
    $log
    keepalive_requests 1000000;
    client_max_body_size 0;
    map \$http_upgrade \$upgrades { default upgrade; "" ""; }
    upstream app { $zone $method server 127.0.0.1:{{port:app}} weight=$weight; server 127.0.0.1:{{port:app2}}; $keepalive }
    upstream node { server 127.0.0.1:{{port:node}}; $keepalive }
    proxy_http_version 1.1;
    proxy_set_header Connection "";
    proxy_buffers $buffers 8k;
    server {
        listen 127.0.0.1:{{port}} backlog=2048;
        root {{dir}}/html;
        location /round { return 200 "round $round\\n"; }
        location /app/ { proxy_pass http://app; $check }
        location = /app/stream { proxy_pass http://node/stream; }
        location = /app/upload { proxy_pass http://node/upload; }
        location /direct/ { proxy_pass http://node/; proxy_buffering off; proxy_request_buffering off; }
        location ~ ^/(?:app|direct)/ws { rewrite ^ /ws break; proxy_pass http://node; proxy_set_header Upgrade \$http_upgrade; proxy_set_header Connection \$upgrades; }
    }
}
EOT
}

my $program = Load::build($dir, 'lost_load') or plan skip_all => "no C compiler: $@";
# The body that the load expects of seed 7.
$p->write_file('html/file', join '', map { chr(97 + (7 + $_ * 7 + int($_ / 26)) % 26) } 0 .. 1999);
my @origins = map { Load->spawn($program, 'origin', $p->port($_)) } qw(app app2);
$_->answer for @origins;
my $app = Load->spawn($node, "$FindBin::Bin/apps/node_app.js", $p->port('node'));
readline $app->{out};
new_conf();
$p->start(daemon => 1);
die $p->error_log unless $p->pid_file;
my $load = Load->spawn($program, 'load', $rate, 16, 8, $p->port);
my $lasting = Load->spawn($python, "$FindBin::Bin/load/long_load.py", $p->port, $each);

# How both loads fared since the last time.
my %total = (requests => 0, lasting => 0);
my %open;      # ports of clients that a worker held when it died: they may notice later
sub failures {
    my $r = $load->report;
    my ($line, @lasting) = $lasting->command('report');
    $total{requests} += $r->{requests};
    $total{lasting} += (split ' ', $line)[0];
    @lasting = grep { my (undef, $port) = split; !delete $open{$port} } @lasting;
    return ($r->{failed}, $r->{first}, @lasting);
}

sub last_errors {
    my @lines = grep { /\[(?:error|crit|alert)\]/ } split /\n/, $p->error_log;
    return @lines > 20 ? @lines[-20 .. -1] : @lines;
}

# None failed, and the step lasted long enough to say so.
sub nothing_lost {
    my ($what) = @_;
    my $until = $total{requests} + $rate / 10;
    my (@bad, $failed);
    $p->wait_for(sub {
        my ($n, $first, @lasting) = failures();
        $failed += $n + @lasting;
        push @bad, @$first, @lasting;
        return $total{requests} >= $until;
    }, 30);
    ok !$failed && $total{requests} >= $until, "$what: nothing was lost"
        or diag join "\n", "seed $seed, $failed failed", @bad, 'the log:', last_errors();
}

# --- what happens --------------------------------------------------------------------------------
my @wrong;
sub reload {
    new_conf();
    push @wrong, "no reload $round" unless $p->reload(timeout => 30);
    my $body = $p->get('/round')->body;
    push @wrong, "$round: $body" if $body ne "round $round\n";
    nothing_lost("reload, $workers workers");
}

sub upgrade {
    my $new = $p->upgrade_begin($workers);
    push @wrong, 'no upgrade' and return unless $new;
    $p->signal('QUIT');
    push @wrong, 'the old master stays' unless $p->adopt($new, 40);
    nothing_lost("upgrade, $workers workers");
}

# Any worker may die, one that is on its way out too.
my $held = 0;
sub death {
    my @all = $p->workers;
    my $victim = $all[rand @all];
    my $retired = $p->retired($victim);
    nothing_lost('before a death');
    kill 'STOP', $victim;
    # It may have gone of its own accord.
    $p->wait_for(sub { ((Proxyd::stat_of($victim))[0] || 'X') =~ /[TXZ]/ });
    my $n = my @clients = $p->clients_of($victim, $p->port);
    $open{$_} = 1 for @clients;
    $held += $n;
    kill 'KILL', $victim;
    push @wrong, "$victim lives" unless $p->wait_for(sub { !Proxyd::alive($victim) }, 10);
    push @wrong, 'no successor' unless $p->wait_for(sub { $workers == grep { !$p->retired($_) } $p->workers }, 20);
    my $until = $total{requests} + $rate / 5;
    my ($failed, @bad) = (0);
    $p->wait_for(sub {
        my ($more, $first, @lasting) = failures();
        $failed += $more;
        push @bad, @lasting, grep { !/(?:closed|reset by peer|Broken pipe) after/i } @$first;
        return $total{requests} >= $until;
    }, 30);
    cmp_ok $failed, '<=', $n, 'death of a worker' . ($retired ? ' on its way out' : '') . ": at most what it held: $failed of $n";
    ok !@bad, 'and nothing else' or diag join "\n", "seed $seed", @bad, 'the log:', last_errors();
}

$p->expect_log(qr/exited on signal 9/);
nothing_lost('at rest');
for my $what (shuffle(('reload') x $reloads, ('upgrade') x $upgrades, ('death') x $deaths)) {
    { reload => \&reload, upgrade => \&upgrade, death => \&death }->{$what}->();
}
is "@wrong", '', 'each reload brought its configuration, each upgrade its program';
cmp_ok $held, '>', 0, "those that died held $held connections";
$lasting->command('end');
nothing_lost('until all had ended');
ok $p->wait_for(sub { $workers == (() = $p->children) }, 30), 'and all old workers have gone';
note "$total{requests} requests, $total{lasting} downloads, uploads and sessions";
cmp_ok $total{lasting}, '>', 0, 'some of what lasts came to its end';
$_->stop for $load, $lasting, $app, @origins;
unlike $p->error_log, qr/\[(?:crit|alert|emerg)\](?!.*exited on signal 9)/, 'nothing alarming in the error log';
$p->stop;
done_testing;
