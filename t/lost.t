# SPDX-License-Identifier: BSD-2-Clause
# serial
#
# Nothing is lost: a constant load of thousands of requests a second, over kept-alive connections
# and over new ones, POSTs with and without a length among them, proxied and static, through 20
# reloads that change the number of workers and the addresses listened on, five binary upgrades,
# one taken back, and five killed workers.  The load repeats nothing: a request that loses the race
# against the close of a connection at rest counts as failed.  Only a killed worker may cost
# requests, and at most those whose connections it had accepted; what is queued on its socket is
# served by its successor.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/lib";
use Test::More;
use Time::HiRes qw(time);
use Load;
use Proxyd;

my $slow = Proxyd::sanitized();
my ($rate, $kept, $fresh) = $slow ? (500, 24, 8) : (3000, 48, 16);
my ($reloads, $upgrades, $deaths) = $slow ? (8, 2, 3) : (20, 5, 5);

my $conf = <<'EOT';
daemon on;
worker_processes 1;
worker_shutdown_timeout 20s;
events { worker_connections 2048; }
http {
    access_log off;
    keepalive_requests 1000000;
    client_max_body_size 1m;
    upstream app { server 127.0.0.1:{{port:app}}; keepalive 32; }
    server {
        listen 127.0.0.1:{{port}} backlog=2048;
        listen 127.0.0.1:{{port:second}} backlog=2048;
        #extra
        root {{dir}}/html;
        location /round { return 200 "round 0\n"; }
        location /app/ {
            proxy_pass http://app;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
        }
    }
}
EOT
my $p = Proxyd->new(conf => $conf, log => 'notice');
my $dir = $p->dir;
my $program = Load::build($dir, 'lost_load') or plan skip_all => "no C compiler: $@";

# The body that the load expects of seed 7.
$p->write_file('html/file', join '', map { chr(97 + (7 + $_ * 7 + int($_ / 26)) % 26) } 0 .. 1999);
my $origin = Load->spawn($program, 'origin', $p->port('app'));
$origin->answer;
$p->start(daemon => 1);
my @ports = ($p->port, $p->port('second'));
my $load = Load->spawn($program, 'load', $rate, $kept, $fresh, @ports);
my $begin = time;
my $total = 0;

# How the load fared since the last time: at least `least` requests, on kept-alive connections and
# on new ones, and none failed.
sub nothing_lost {
    my ($what, $least) = @_;
    $least = int $least;
    my $r = $load->report;
    for (1 .. 500) {    # a quick step may end before enough was asked
        last if $r->{requests} >= $least && $r->{kept} && $r->{fresh};
        select undef, undef, undef, 0.02;
        my $more = $load->report;
        $r->{$_} += $more->{$_} for qw(requests failed kept fresh);
        push @{ $r->{first} }, @{ $more->{first} };
    }
    $total += $r->{requests};
    # nginx does not wait for a request on its way when it closes a connection at rest.
    my $raced = Proxyd::is_nginx() ? grep { /^F kept .* after 0 of the answer/ } @{ $r->{first} } : 0;
    my $ok = $r->{failed} <= $raced && $r->{requests} >= $least && $r->{kept} && $r->{fresh};
    ok $ok, "$what: none of $r->{requests} requests failed"
        or diag "$r->{failed} failed, $r->{kept} on kept and $r->{fresh} on new connections\n"
        . join "\n", @{ $r->{first} };
}

nothing_lost('at rest', $rate / 4);

# --- reloads ------------------------------------------------------------------------------------
my ($reloaded, $round, @wrong) = (0, 0);
my $workers = 1;
for (1 .. $reloads) {
    $round++;
    $workers = (1, 4, 2, 3, 1, 2)[$round % 6];
    my $extra = $round % 3 ? "listen 127.0.0.1:{{port:extra}} backlog=2048;" : '';
    $extra .= ' listen 127.0.0.1:{{port:more}};' if $round % 2;
    # Nobody who connects to an address that goes may count on it.
    $load->command("targets @ports") unless $round % 3;
    $p->write_conf($conf =~ s/round 0/round $round/r =~ s/#extra/$extra/r
        =~ s/worker_processes 1/worker_processes $workers/r);
    $reloaded++ if $p->reload;
    $load->command("targets @ports " . $p->port('extra')) if $round % 3;
    my $body = $p->get('/round')->body;
    push @wrong, "$round: $body" if $body ne "round $round\n";
    nothing_lost("reload $round, $workers workers, listening on " . (2 + (() = $extra =~ /listen/g)), $rate / 20);
}
is $reloaded, $reloads, "$reloads reloads";
is "@wrong", '', 'each brought its configuration';
$load->command("targets @ports");
$p->write_conf($conf =~ s/worker_processes 1/worker_processes 2/r);
$p->reload;
nothing_lost('back to two workers', $rate / 10);
ok $p->wait_for(sub { 2 == (() = $p->children) }, 20), 'the workers of all rounds have gone';
nothing_lost('and while they went', $rate / 20);

# --- upgrades -----------------------------------------------------------------------------------
my $upgraded = 0;
for my $n (1 .. $upgrades) {
    my $new = $p->upgrade_begin(2) or last;
    $p->signal('QUIT');
    $upgraded++ if $p->adopt($new);
    nothing_lost("upgrade $n", $rate / 20);
}
is $upgraded, $upgrades, "$upgrades binary upgrades";

my $new = $p->upgrade_begin(2);
ok $new, 'one more, to be taken back';
$p->signal('HUP');
ok $p->wait_for(sub { $p->workers == 2 }, 10), 'HUP: the old master has workers again';
$p->signal('QUIT', $new);
ok $p->wait_for(sub { !Proxyd::alive($new) }, 20), 'QUIT: the new master has gone';
ok $p->wait_for(sub { ($p->pid_file || 0) == $p->master }, 10), 'the pid file is the old one\'s';
nothing_lost('an upgrade taken back', $rate / 10);

# --- deaths -------------------------------------------------------------------------------------
sub state_of { return (Proxyd::stat_of($_[0]))[0] || '' }

$p->expect_log(qr/exited on signal 9/);
my ($killed, $queued, $answered) = (0, 0, 0);
for my $n (1 .. $deaths) {
    $p->wait_for(sub { $p->workers == 2 }, 10);
    $load->report;
    my $victim = ($p->workers)[$n % 2];
    kill 'STOP', $victim;
    $p->wait_for(sub { state_of($victim) eq 'T' });
    my $open = () = $p->clients_of($victim, @ports);
    # Some of these wait in the queue of the one that stands still.
    my @new = map { $p->connect($ports[$_ % @ports]) } 1 .. 24;
    $_->send("GET /round HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n") for @new;
    kill 'KILL', $victim;
    $killed++ if $p->wait_for(sub {
        my @w = $p->workers;
        return @w == 2 && !grep { $_ == $victim } @w;
    }, 10);
    $queued += @new;
    for my $c (@new) {
        my $r = $c->response;
        $answered++ if $r && $r->body eq "round 0\n";
        $c->close;
    }
    my $r = $load->report;
    my @other = grep { !/(?:closed|reset by peer|Broken pipe) after/i } @{ $r->{first} };
    cmp_ok $r->{failed}, '<=', $open, "death $n: at most the $open open connections: $r->{failed}"
        or diag join "\n", @{ $r->{first} };
    is "@other", '', "death $n: nobody was refused or kept waiting";
}
is $killed, $deaths, "$deaths workers killed and replaced";
is $answered, $queued, 'what was queued when they died was served';
# The load counts only if it was one: on a slow machine the last step lasts until it has been.
my $owed = $rate * 2 + 1 - $total;
nothing_lost('after the deaths', $owed > $rate / 10 ? $owed : $rate / 10);

my $seconds = time - $begin;
$load->stop;
$origin->stop;
note sprintf '%d requests in %.1f s', $total, $seconds;
cmp_ok $total, '>', $rate * 2, 'there was load';
$p->stop;
done_testing;
