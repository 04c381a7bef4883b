# SPDX-License-Identifier: BSD-2-Clause
#
# What each of a group's servers gets of many requests, with four workers that share a zone: exactly its share where turns are
# taken, nearly where chance decides. And a thousand servers.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/lib";
use IO::Socket::INET;
use Test::More;
use Proxyd;

plan skip_all => 'proxyd only' if Proxyd::is_nginx();

my @names = qw(a b c d);
my @weights = (5, 3, 1, 1);
my %methods = (
    turns => '', weights => 'W', least => 'least_conn;', leastw => 'W least_conn;', random => 'random;', randomw => 'W random;',
    two => 'random two;', twoleast => 'random two least_conn;', hash => 'hash $arg_k;', ring => 'hash $arg_k consistent;',
    maglev => 'maglev $arg_k;',
);

sub group {
    my ($name) = @_;
    my $method = $methods{$name};
    my $weighted = $method =~ s/^W//;
    return "upstream $name { zone shared 2m; $method " . join('', map {
        "server 127.0.0.1:{{port:$names[$_]}}" . ($weighted ? " weight=$weights[$_]" : '') . '; '
    } 0 .. $#names) . "keepalive 100; keepalive_requests 1000000; }\n";
}

# The same four a thousand times.
sub crowd {
    my ($name, $more) = @_;
    return "upstream $name { zone shared; $more " . join('', map {
        "server 127.0.0.1:{{port:$names[$_ % 4]}} weight=@{[ $_ % 4 < 2 ? 2 : 1 ]}; "
    } 0 .. 999) . "keepalive 100; }\n";
}

my $p = Proxyd->new;
$p->write_conf(<<"EOT");
worker_processes 4;
worker_rlimit_nofile 8192;
daemon on;
events { worker_connections 2048; }
http {
    @{[ map { group($_) } sort keys %methods ]}
    @{[ crowd('manyturns', '') . crowd('manyleast', 'least_conn;') . crowd('manytime', 'least_time header;') ]}
    proxy_http_version 1.1;
    proxy_set_header Connection "";
    keepalive_requests 1000000;
    server {
        listen 127.0.0.1:{{port}};
        location ~ ^/(\\w+)\$ { proxy_pass http://\$1; }
    }
    @{[ map { "server { listen 127.0.0.1:{{port:$_}}; return 200 <$_>; }\n" } @names ]}
}
EOT
$p->start(daemon => 1);
Proxyd::wait_for(sub { $p->workers == 4 });

# How often each was asked, out of n requests over connections to several workers, that are sent many at a time.
my $key = 0;
sub asked {
    my ($group, $n) = @_;
    my %count = map { $_ => 0 } @names;
    my $order = '';
    for my $turn (1 .. 8) {
        my $s = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $p->port) or die "connect: $!";
        for (my $left = $n / 8; $left > 0; $left -= 125) {
            my ($text, $got) = ('', 0);
            print $s map { $key++; "GET /$group?k=key$key HTTP/1.1\r\nHost: x\r\n\r\n" } 1 .. 125;
            while ($got < 125) {
                sysread $s, $text, 65536, length $text or last;
                $got = () = $text =~ /<[a-d]>/g;
            }
            is $got, 125, "$group: all are answered" if $got != 125;
            $order .= $1 while $text =~ /<([a-d])>/g;
        }
    }
    $count{$_}++ for split //, $order;
    return ($order, @count{@names});
}

# As smooth round robin is defined.
sub smooth {
    my ($n, @w) = @_;
    my @current = (0) x @w;
    my ($order, $total) = ('', 0);
    $total += $_ for @w;
    for (1 .. $n) {
        my $best = 0;
        $current[$_] += $w[$_] for 0 .. $#w;
        for (1 .. $#w) { $best = $_ if $current[$_] > $current[$best] }
        $current[$best] -= $total;
        $order .= $names[$best % 4];
    }
    return $order;
}

sub same_order {
    my ($got, $expected, $what) = @_;
    ok $got eq $expected, $what or diag substr($got, 0, 60) . "…, expected " . substr($expected, 0, 60);
}

for ([turns => 1, 1, 1, 1], [weights => @weights], [least => 1, 1, 1, 1], [leastw => @weights]) {
    my ($group, @w) = @$_;
    my ($order) = asked($group, 4000);
    same_order($order, smooth(4000, @w), "$group: the order of smooth round robin over four workers");
}
for (['manyturns'], ['manyleast']) {
    my ($order) = asked($_->[0], 4000);
    same_order($order, smooth(4000, map { $_ % 4 < 2 ? 2 : 1 } 0 .. 999), "$_->[0]: a thousand servers, too");
}
cmp_ok +(asked('manytime', 1000))[1], '>', 0, 'least_time among a thousand';

# Two per cent of all requests up or down, which is many times what chance does.
for ([random => 25, 25, 25, 25], [randomw => 50, 30, 10, 10], [two => 25, 25, 25, 25], [twoleast => 25, 25, 25, 25],
    [hash => 25, 25, 25, 25], [maglev => 25, 25, 25, 25]) {
    my ($group, @share) = @$_;
    my ($order, @count) = asked($group, 20000);
    my @off = grep { abs($count[$_] / 200 - $share[$_]) > 2 } 0 .. 3;
    ok !@off, "$group: shares within 2 %" or diag "@count";
}
my (undef, @ring) = asked('ring', 20000);
ok !(grep { $_ < 3000 || $_ > 7000 } @ring), 'a ring of 160 points each is less even' or diag "@ring";
$p->stop;
done_testing;
