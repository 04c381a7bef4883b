# SPDX-License-Identifier: BSD-2-Clause
#
# Names with many addresses, as many as an answer by UDP holds, and a hundred, for which TCP is needed: servers with `resolve`, and
# proxy_pass by name; then with none, and with as many again.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/lib";
use Test::More;
use Proxyd;
use JSON::PP ();
use Proxyd::Dns;

plan skip_all => 'proxyd only' if Proxyd::is_nginx();

my %many = (udp => 28, tcp => 100);
my $p    = Proxyd->new;
my $port = $p->port('shared');
my %dns  = map { $_ => Proxyd::Dns->start(file => $p->dir . "/records-$_", log => $p->dir . "/questions-$_", tcp => $_ eq 'tcp') } 'udp', 'tcp';
# It says which address it was asked at.
my $origin = $p->origin("0.0.0.0:$port", sub {
    my ($c) = @_;
    my $at = $c->sock->sockhost;
    while ($c->request) { $c->write("HTTP/1.1 200 OK\r\nContent-Length: " . length($at) . "\r\n\r\n$at") }
});

sub all { my ($name, $from) = @_; return map { "$name 1 A 127.0.1.$_" } $from .. $from + $many{ $name =~ /tcp/ ? 'tcp' : 'udp' } - 1 }
sub records {
    my ($from) = @_;
    for my $way (keys %dns) {
        # with other records a name is known, but has no address that is asked for
        $dns{$way}->records(map { $from ? all($_, $from) : "$_ 1 AAAA ::1" } map { "$_-$way.test" } 'big', 'passed', 'plain');
    }
}
records(1);
$p->write_conf(<<"EOT");
worker_processes 2;
error_log error.log info;
http {
    proxy_set_header Connection close;
    resolver_timeout 3s;
    server {
        listen 127.0.0.1:{{port}};
        resolver 127.0.0.1:@{[ $dns{udp}->port ]} ipv6=off;
        location /udp { proxy_pass http://udp; }
        location /passed-udp { proxy_pass http://passed-udp.test:$port\$arg_none; }
        location /api { api; }
    }
    server {
        listen 127.0.0.1:{{port:tcp}};
        resolver 127.0.0.1:@{[ $dns{tcp}->port ]} ipv6=off;
        location /tcp { proxy_pass http://tcp; }
        location /passed-tcp { proxy_pass http://passed-tcp.test:$port\$arg_none; }
    }
    upstream udp { zone udp 512k; resolver 127.0.0.1:@{[ $dns{udp}->port ]} ipv6=off; server big-udp.test:$port resolve; }
    upstream tcp { zone tcp 512k; resolver 127.0.0.1:@{[ $dns{tcp}->port ]} ipv6=off; server big-tcp.test:$port resolve; }
}
EOT
$p->expect_log(qr/resolve|upstream/);
$p->start;

sub get { my ($uri) = @_; return $p->get($uri, $uri =~ /tcp/ ? (port => 'tcp') : ()) }
# How many times each address answers, of n requests.
sub seen {
    my ($uri, $n) = @_;
    my %seen;
    for (1 .. $n) { my $r = get($uri); $seen{ $r->status == 200 ? $r->body : $r->status }++ }
    return \%seen;
}
sub peers { return scalar @{ JSON::PP->new->decode($p->get("/api/9/http/upstreams/$_[0]")->body)->{peers} } }

for my $way ('udp', 'tcp') {
    my $many = $many{$way};
    ok Proxyd::wait_for(sub { peers($way) == $many }, 15), "$way: a server for each address";
    is_deeply seen("/$way", 2 * $many), { map { ("127.0.1.$_" => 2) } 1 .. $many }, "$way: each serves, in turn";
    my $seen = seen("/passed-$way", 300);
    is scalar(grep { !/^127\.0\.1\.\d+$/ } keys %$seen), 0, "$way: proxy_pass by name" or diag explain $seen;
    cmp_ok scalar(keys %$seen), '>', 20, "$way: many of them serve";
}
cmp_ok scalar($dns{tcp}->questions(qr/ tcp$/)), '>', 0, 'what was cut has been asked for by TCP';
is scalar($dns{udp}->questions(qr/ tcp$/)), 0, 'and only that';

# none at all, and others
records(0);
for my $way ('udp', 'tcp') {
    my $asked = $dns{$way}->questions(qr/^big/);
    ok Proxyd::wait_for(sub { $dns{$way}->questions(qr/^big/) > $asked + 1 }, 20), "$way: no address any more";
    is seen("/$way", 20)->{502} // 0, 0, "$way: those known stay";
    ok Proxyd::wait_for(sub { get("/passed-$way")->status == 502 }, 10), "$way: proxy_pass by name: 502";
}
like $p->error_log, qr/passed-$_\.test could not be resolved/, "$_: it is said" for 'udp', 'tcp';
records(101);
for my $way ('udp', 'tcp') {
    my $many = $many{$way};
    ok Proxyd::wait_for(sub { my $s = seen("/$way", $many); keys %$s == $many && !grep { !/\.(?:1\d\d|200)$/ } keys %$s }, 20), "$way: as many others";
    ok Proxyd::wait_for(sub { get("/passed-$way")->status == 200 }, 10), "$way: proxy_pass by name goes on";
    is peers($way), $many, "$way: the old ones are gone";
}
$p->stop;
done_testing;
