# SPDX-License-Identifier: BSD-2-Clause
#
# proxy_socket_keepalive: whether the system sends probes over an idle connection to a server, as /proc tells.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/lib";
use Test::More;
use Proxyd;

plan skip_all => 'no /proc/net/tcp' unless -r '/proc/net/tcp';

my $p = Proxyd->new(conf => <<'EOT');
http {
    proxy_http_version 1.1;
    proxy_set_header Connection "";
    upstream on  { server 127.0.0.1:{{port:on}};  keepalive 1; }
    upstream off { server 127.0.0.1:{{port:off}}; keepalive 1; }
    server {
        listen 127.0.0.1:{{port}};
        proxy_socket_keepalive on;
        location /on { proxy_pass http://on; }
        location /off { proxy_pass http://off; proxy_socket_keepalive off; }
    }
}
EOT
for my $name (qw(on off)) {
    $p->origin($name, sub {
        my ($c) = @_;
        while (my $q = $c->request) {
            $c->write("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        }
    });
}
$p->start;

# Whether a connection to the port waits for the keep-alive timer: number 2 of the kernel's.
sub probes {
    my ($port) = @_;
    open my $f, '<', '/proc/net/tcp' or die "/proc/net/tcp: $!";
    my @found = grep { /^\s*\d+: \S+ \S+:(\S+) 01 \S+ (\d\d):/ && hex($1) == $port } <$f>;
    return join ' ', map { / 01 \S+ (\d\d):/ ? $1 : () } @found;
}

for my $name (qw(on off)) {
    is $p->get("/$name")->body, 'ok', "$name: an answer";
    my $expected = $name eq 'on' ? '02' : '00';
    for (1 .. 100) {
        last if probes($p->port($name)) eq $expected;
        select undef, undef, undef, 0.02;    # other timers go before it
    }
    is probes($p->port($name)), $expected, "and then probes are $name";
}
$p->stop;
done_testing;
