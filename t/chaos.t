# SPDX-License-Identifier: BSD-2-Clause
# serial
#
# Three servers under load, of which one at a time misbehaves in every way there is, in random order: the
# clients must not notice more than what cannot be hidden.  What the clients saw is compared with
# what the servers logged.  PROXYD_LONG=1: 2,000 requests a second, every fault on every server.
# CHAOS_SEED=N repeats an order.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/lib";
use List::Util qw(max shuffle);
use Test::More;
use Time::HiRes qw(clock_gettime CLOCK_MONOTONIC);
use Load;
use Proxyd;

plan skip_all => 'proxyd only' if Proxyd::is_nginx();

my $seed = $ENV{CHAOS_SEED} || 1 + int rand 1e6;
srand $seed;
diag "seed $seed";
my ($slow, $long) = (Proxyd::sanitized(), $ENV{PROXYD_LONG});
my ($rate, $kept, $fresh) = $long ? ($slow ? 600 : 2000, 600, 200) : ($slow ? 150 : 500, 80, 40);
my $step = $rate / 2;                # requests that a fault lasts at least
my $timeout = $slow ? '1500ms' : '700ms';
my $interval_ms = 250;                 # of health checks
my $max_conns = $kept + $fresh;      # the load alone never fills a server
my @names = qw(a b c);

my $p = Proxyd->new(log => 'info', conf => <<"EOT");
worker_processes 4;
worker_rlimit_nofile 8192;
events { worker_connections 4096; }
http {
    access_log off;
    keepalive_requests 1000000;
    upstream rr {
        zone rr 128k;
        @{[ map { "server 127.0.0.1:{{port:$_}} fail_timeout=1s max_conns=$max_conns;" } @names ]}
        keepalive 16;
    }
    upstream lc {
        zone lc 128k;
        least_conn;
        @{[ map { "server 127.0.0.1:{{port:$_}} fail_timeout=1s max_conns=$max_conns;" } @names ]}
        keepalive 16;
    }
    proxy_http_version 1.1;
    proxy_set_header Connection "";
    proxy_next_upstream error timeout invalid_header;
    proxy_connect_timeout $timeout;
    proxy_send_timeout $timeout;
    proxy_read_timeout $timeout;
    server {
        listen 127.0.0.1:{{port}} backlog=2048;
        location /rr/ { proxy_pass http://rr; health_check uri=/health-rr interval=${interval_ms}ms; }
        location /lc/ { proxy_pass http://lc; health_check uri=/health-lc interval=${interval_ms}ms; }
        location /who/rr/ { proxy_pass http://rr/; add_header X-Who \$upstream_addr always; }
        location /who/lc/ { proxy_pass http://lc/; add_header X-Who \$upstream_addr always; }
    }
}
EOT
my $dir = $p->dir;
my $program = Load::build($dir, 'chaos_load') or plan skip_all => "no C compiler: $@";

# --- the servers ----------------------------------------------------------------------------------
my %origin;
sub begin {
    my ($name) = @_;
    $origin{$name} = Load->spawn($program, 'origin', $p->port($name), "$dir/origin-$name.log", $seed);
    $origin{$name}->answer;
}
sub kill_origin {
    my ($name) = @_;
    my $o = delete $origin{$name};
    kill 'KILL', $o->pid;
    $o->stop;
}
sub mode { my ($name, $mode) = @_; $origin{$name}->command("mode $mode") }
sub now_us { int 1e6 * clock_gettime(CLOCK_MONOTONIC) }

# The lines of a server's log since the last time.
my (%at, %lines);
sub read_more {
    my ($name) = @_;
    open my $fh, '<', "$dir/origin-$name.log" or return;
    seek $fh, $at{$name} || 0, 0;
    while (my $l = <$fh>) {
        last if $l !~ /\n\z/;
        $at{$name} = tell $fh;
        push @{ $lines{$name} }, $l;
    }
}

# Whether a server has answered checks and requests of both groups since a time.
sub serves {
    my ($name, $since) = @_;
    my %n = map { $_ => 0 } qw(A0 A1 Hrr Hlc);
    read_more($name);
    for (reverse @{ $lines{$name} || [] }) {
        my ($kind, $id, @rest) = split;
        last if $rest[-1] < $since;
        if ($kind eq 'A') { $n{ 'A' . (($id >> 4) & 1) }++ }    # the load changes groups with this bit
        if ($kind eq 'H') { $n{"H$id"} += 10 }
    }
    return !grep { $_ < 10 } values %n;
}

begin($_) for @names;
$p->start;
ok $p->wait_for(sub { $p->workers == 4 }), 'four workers';
my @workers = $p->workers;
sub fds { return join ' ', map { my @f = glob "/proc/$_/fd/*"; scalar @f } @workers }

# All connections to servers are gone when these have gone. Health checks come and go.
sub without_servers {
    mode($_, 'refuse') for @names;
    my %seen;
    $p->wait_for(sub { $seen{ fds() }++ > 5 }, 5);
    my ($usual) = sort { $seen{$b} <=> $seen{$a} } keys %seen;
    return $usual;
}

# All serve, in turn. Whom least_conn prefers has fewer connections than the others.
sub all_in_turn {
    return $p->wait_for(sub {
        my %served;
        for my $group (qw(rr lc)) {
            $served{"$group " . ($p->get("/who/$group/?id=1&len=1")->header('X-Who') // '')}++ for 1 .. 12;
        }
        return keys %served == 6 && 4 == max values %served;
    }, 20);
}

my $fds = without_servers();
mode($_, 'ok') for @names;
ok all_in_turn(), 'all servers are in turn';

my $load = Load->spawn($program, 'load', $rate, $kept, $fresh, $p->port, "$dir/load.log");
my %total;
sub count {
    my ($line) = $load->command('report');
    @total{qw(started complete cut refused wrong)} = split ' ', $line;
    return $total{started};
}
sub more_requests { my $until = count() + $_[0]; return $p->wait_for(sub { count() >= $until }, 60) }

# --- the faults -----------------------------------------------------------------------------------
my @faults = qw(stop kill refuse garbage slow slowbody reset early headclose short long midway trickle mixed);
my @plan = shuffle map { my $f = $_; map { [$_, $f] } $long ? @names : $names[rand @names] } @faults;
my @hard; # when a server stood still or lost its connections: [name, from, to]
more_requests($step);
for my $round (@plan) {
    my ($name, $fault) = @$round;
    my $from = now_us();
    if ($fault eq 'stop') { kill 'STOP', $origin{$name}->pid }
    elsif ($fault eq 'kill') { kill_origin($name) }
    else { mode($name, $fault) }
    ok more_requests($step), "$name: $fault";
    if ($fault eq 'stop') {
        # Sometimes it dies without having moved again.
        kill 'CONT', $origin{$name}->pid;
        if (rand(2) < 1) { kill_origin($name); begin($name) }
    }
    elsif ($fault eq 'kill') { begin($name) }
    else { mode($name, 'ok') }
    push @hard, [$name, $from, now_us()] if $fault =~ /stop|kill|refuse/;
    # What it was asked at the last moment may yet fail, when the next one is at fault.
    $load->command('settle');
    my $since = now_us();
    ok $p->wait_for(sub { serves($name, $since) }, 30), "$name: back after $fault";
}
more_requests($step);
$load->command('pause');
count();
note "$total{started} requests: $total{complete} complete, $total{cut} cut, $total{refused} refused";
read_more($_) for @names;

# --- what came of it -------------------------------------------------------------------------------
my (%begun, %done, %health, %posts);
for my $name (@names) {
    for (@{ $lines{$name} }) {
        my ($kind, $id, @rest) = split;
        if ($kind eq 'B') { push @{ $begun{$id} }, [$name, $rest[1]]; $posts{$id}++ if $rest[0] =~ /^(?:POST|PATCH)$/ }
        if ($kind eq 'A') { push @{ $done{$id} }, [$name, @rest] }
        if ($kind eq 'H') { push @{ $health{"$name $id"} }, $rest[0] }
    }
}
my @load = split /\n/, $p->read_file('load.log') // '';

sub show { my ($what, @bad) = @_; ok !@bad, $what or diag join "\n", 'seed ' . $seed, @bad > 20 ? @bad[0 .. 19] : @bad }
sub fate { my ($id) = @_; return join ', ', map { "@$_" } @{ $begun{$id} || [] }, @{ $done{$id} || [] } }

show('no request has an end that should never be', grep { /^F/ } @load);
show('none that may be repeated is refused', grep { /^E \d+ (?!POST|PATCH)/ } @load);
my @twice = grep { $posts{$_} > 1 } sort { $a <=> $b } keys %posts;
show('no POST and no PATCH reaches servers twice', map { "$_: " . fate($_) } @twice);
ok keys %posts > $total{started} / 8, 'there were POSTs';
my %acted;
$acted{ $_->[1] }++ for map { @$_ } values %done;
for my $way (qw(garbage slow slowbody reset early short midway trickle)) { ok $acted{$way}, ($acted{$way} // 0) . " times $way" }

# A server cut the answer, or was itself cut off.
sub was_cut {
    my ($id) = @_;
    for my $d (@{ $done{$id} || [] }) {
        my ($name, $action, $t) = @$d;
        return 1 if $action =~ /^(?:reset|headclose|short|slowbody)$/;
        for (@hard) { return 1 if $name eq $_->[0] && $t > $_->[1] - 5e6 && $t < $_->[2] + 1e6 }
    }
    return 0;
}
show('no answer is cut but by a server', map { "$_: " . fate($_) } grep { !was_cut($_) } map { /^C (\d+)/ } @load);
my %was_cut = map { /^C (\d+)/ ? ($1 => 1) : () } @load;
my $cuts = keys %was_cut;
cmp_ok $cuts, '>', 0, "$cuts answers were cut, and seen so";
# Those whose servers failed before an answer: each POST that failed had been sent, or was about to be.
my %unsent = map { /^E (\d+) (?:POST|PATCH)/ && !$posts{$1} ? ($1 => 1) : () } @load;
note scalar(keys %unsent) . ' POSTs failed that no server has read';

# Health checks: at most one an interval, whatever a server that stood still found when it went on.
for my $key (sort keys %health) {
    my ($name) = split ' ', $key;
    my @t = sort { $a <=> $b } @{ $health{$key} };
    my @stood = grep { $_->[0] eq $name } @hard;
    my @bad;
    my $first = 0;
    for my $i (1 .. $#t) {
        # What was read late says nothing about when it was sent: count anew.
        if (grep { $t[$i] > $_->[1] && $t[ $i - 1 ] < $_->[2] + 1e6 } @stood) { $first = $i; next }
        my $intervals = ($t[$i] - $t[$first]) / ($interval_ms * 1e3);
        push @bad, sprintf '%d checks in %.2f intervals', $i - $first + 1, $intervals if $i - $first > $intervals + 1;
    }
    my $all = ($t[-1] - $t[0]) / ($interval_ms * 1e3);
    push @bad, sprintf '%d checks in all %.2f intervals', scalar @t, $all if @t > $all + 2;
    show("health checks of $key: " . @t . sprintf(' in %.1f intervals', $all), @bad);
}

# --- what is left ----------------------------------------------------------------------------------
is join(' ', $p->workers), "@workers", 'no worker died';
ok all_in_turn(), 'all servers have the same number of connections';
is fds(), $fds, 'no worker holds a descriptor more than before'
    if $p->wait_for(sub { without_servers() eq $fds }, 20) || 1;
mode($_, 'ok') for @names;
# Every place of every server can be taken: none is held by a request that is gone.
SKIP: {
    skip 'too many connections to hold', 2 if $long;
    ok all_in_turn(), 'all are in turn again';
    my @held;
    for my $n (1 .. 3 * $max_conns) {
        my $c = $p->connect;
        $c->send("GET /who/lc/hold?id=$n HTTP/1.1\r\nHost: a\r\n\r\n");
        push @held, $c;
    }
    my $waiting = sub { read_more($_) for @names; return scalar grep { /^W/ } map { @$_ } values %lines };
    $p->wait_for(sub { $waiting->() >= 3 * $max_conns }, 10);
    is $waiting->(), 3 * $max_conns, 'max_conns lets as many in as it says';
    $_->close for @held;
}
my @alarming = grep { /\[(?:crit|alert|emerg)\]/ } split /\n/, $p->error_log;
show('nothing alarming in the error log', @alarming);
$load->stop;
$_->stop for values %origin;
$p->stop;
done_testing;
