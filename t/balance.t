# SPDX-License-Identifier: BSD-2-Clause
#
# Methods of choosing a server that go by a key or an address give the server that nginx gives, so
# that caches behind them stay warm when one is put in the other's place; and the directives that
# name a method.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/lib";
use IO::Socket::INET;
use Test::More;
use Proxyd;
use Proxyd::Differential;

my @names = map { "o$_" } 1 .. 7;

# Answers with its own name.
sub answers {
    my ($name) = @_;
    return sub {
        my ($c) = @_;
        while (my $q = $c->request) {
            $c->write("HTTP/1.1 200 OK\r\nContent-Length: " . length($name) . "\r\n\r\n$name");
        }
    };
}

sub servers { join '', map { "server 127.0.0.1:{{port:$_}}@{[ $_ eq 'o3' ? $_[0] : '' ]}; " } @names }

my $conf = <<"EOT";
http {
    upstream hash     { hash \$arg_k; @{[ servers('') ]} }
    upstream hashw    { hash "\$arg_k-x"; @{[ servers(' weight=5') ]} }
    upstream hashdown { hash \$arg_k; @{[ servers(' down') ]} }
    upstream ring     { hash \$arg_k consistent; @{[ servers('') ]} }
    upstream ringw    { hash \$arg_k consistent; @{[ servers(' weight=3') ]} }
    upstream ringdown { hash \$arg_k consistent; @{[ servers(' down') ]} }
    upstream address  { ip_hash; @{[ servers('') ]} }
    upstream addressw { ip_hash; @{[ servers(' weight=2') ]} }
    upstream failing  { hash \$arg_k consistent; server 127.0.0.1:{{port:closed}} max_fails=0;
        @{[ servers('') ]} }
    upstream hashfail { hash \$arg_k; server 127.0.0.1:{{port:closed}} max_fails=0; @{[ servers('') ]} }
    upstream nokey    { hash \$arg_k; @{[ servers('') ]} }
    upstream nokeyr   { hash \$arg_k consistent; @{[ servers(' weight=2') ]} }
    proxy_http_version 1.1;
    proxy_set_header Connection "";
    server {
        listen 127.0.0.1:{{port}};
        location ~ ^/(\\w+)\$ { proxy_pass http://\$1; }
    }
}
EOT

SKIP: {
    skip 'nginx is not installed', 1 unless Proxyd::Differential::available();
    my ($tested, $theirs) = Proxyd::Differential::start(
        conf    => $conf,
        origins => { map { $_ => answers($_) } @names },
        closed  => ['closed']
    );

    # The bodies of n answers over one connection.
    my $many = sub {
        my ($s, $from, @paths) = @_;
        my $socket = IO::Socket::INET->new(LocalAddr => $from, PeerAddr => '127.0.0.1',
            PeerPort => $s->port('main')) or die "connect: $!";
        my $c = Proxyd::Http->wrap($socket);
        return join ' ', map {
            $c->send("GET $_ HTTP/1.1\r\nHost: x\r\n\r\n");
            my $r = $c->response;
            $r && $r->status == 200 ? $r->body : 'none';
        } @paths;
    };
    for my $group (qw(hash hashw hashdown ring ringw ringdown failing hashfail)) {
        my @paths = map { "/$group?k=key$_" } 1 .. 200;
        my @answers = map { $many->($_, '127.0.0.1', @paths) } $tested, $theirs;
        is $answers[0], $answers[1], "$group: the same servers for 200 keys";
        unlike $answers[0], qr/none/, 'all answered';
    }
    for my $group (qw(nokey nokeyr)) {
        my @answers = map { $many->($_, '127.0.0.1', ("/$group") x 10, ("/$group?k=") x 6) } $tested, $theirs;
        is $answers[0], $answers[1], "$group: without a key servers take turns";
        like $answers[0], qr/o1 o2 .*o4 o5 o6 o7/, 'one after the other';
    }
    for my $group (qw(address addressw)) {
        my @same = grep {
            my $from = '127.' . ($_ * 7 % 250) . ".$_.1";
            $many->($tested, $from, "/$group") eq $many->($theirs, $from, "/$group")
        } 1 .. 60;
        is scalar(@same), 60, "$group: the same servers for 60 addresses";
    }
    $_->stop for $tested, $theirs;
}

# --- the directives -------------------------------------------------------------------------------
my $p = Proxyd->new;
my @cases = (
    ['least_conn;',                            undef],
    ['ip_hash;',                               undef],
    ['hash $uri;',                             undef],
    ['hash $uri consistent;',                  undef],
    ['hash $uri consistent bounded_load=1.5;', undef],
    ['maglev $uri;',                           undef],
    ['random;',                                undef],
    ['random two;',                            undef],
    ['random two least_conn;',                 undef],
    ['random two least_time=header;',          undef],
    ['random two least_time=last_byte;',       undef],
    ['least_time header;',                     undef],
    ['least_time last_byte inflight;',         undef],
    ['hash;',                                  'invalid number of arguments in "hash" directive'],
    ['hash $uri ring;',                        'invalid parameter "ring"'],
    ['hash $uri consistent bounded_load=0.5;', 'invalid factor in "bounded_load=0.5"'],
    ['hash $uri consistent bounded_load=x;',   'invalid factor in "bounded_load=x"'],
    ['random three;',                          'invalid parameter "three"'],
    ['random two fastest;',                    'invalid parameter "fastest"'],
    ['least_time body;',                       'invalid parameter "body"'],
    ['least_time header now;',                 'invalid parameter "now"'],
    ['least_conn now;',                        'invalid number of arguments in "least_conn" directive'],
    ['ip_hash; server 127.0.0.1:2 backup;', 'balancing method does not support parameter "backup"'],
    ['random; server 127.0.0.1:2 slow_start=5s;', 'balancing method does not support parameter "slow_start=5s"'],
    ['least_conn; server 127.0.0.1:2 slow_start=5s backup;', undef],
    ['server 127.0.0.1:2 slow_start=5x;', 'invalid parameter "slow_start=5x"'],
    ['ip_hash; least_conn;',                   'load balancing method redefined'],
);
for my $case (@cases) {
    my ($line, $error) = @$case;
    $p->write_conf("http { upstream u { $line server 127.0.0.1:1; } server { listen 127.0.0.1:{{port}};
        location / { proxy_pass http://u; } } }");
    my $r = $p->run(args => ['-t', '-p', $p->dir . '/', '-c', 'proxyd.conf', '-e', 'error.log']);
    if (defined $error) { like $r->{err}, qr/\Q$error\E/, "$line: $error" }
    else { is $r->{status}, 0, $line or diag $r->{err} }
}
$p->write_conf('http { upstream u { server 127.0.0.1:1 weight=1000001; } }');
like $p->run(args => ['-t', '-p', $p->dir . '/', '-c', 'proxyd.conf', '-e', 'error.log'])->{err},
    qr/invalid parameter "weight=1000001"/, 'a weight that is too large';
done_testing;
