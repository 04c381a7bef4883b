# SPDX-License-Identifier: BSD-2-Clause
#
# The API on servers of groups: their statuses one by one, and their handshakes.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/lib";
use IO::Socket::INET;
use JSON::PP ();
use Test::More;
use Proxyd;
use Proxyd::Certs;

plan skip_all => 'nginx has no api' if Proxyd::is_nginx();

my $p     = Proxyd->new;
my $certs = Proxyd::Certs->new($p->dir . '/certs');
$certs->make('good', names => ['good.test']);
$certs->make('old', names => ['good.test'], days => -1);
$certs->make('gone', names => ['good.test']);
$certs->make('self', names => ['good.test'], by => 'self');
$certs->make('client', by => 'self');
$certs->revoke('ca', 'gone');
my @certs = qw(good old gone self);
my $origins = join '', map { "server { listen 127.0.0.1:{{port:$_}} ssl; ssl_certificate certs/$_.crt; ssl_certificate_key certs/$_.key; return 200 \$ssl_session_reused; }\n" } @certs;
my $groups = join '', map { "upstream $_ { zone z 1m; server 127.0.0.1:{{port:$_}} max_fails=0; }\n" } @certs, 'v12', 'silent', 'asks';
my $places = join '', map { "location /$_ { proxy_pass https://$_; proxy_ssl_verify on; }\n" } @certs;
$p->write_conf(<<"EOT");
worker_processes 2;
http {
    $groups
    upstream name { zone z; server 127.0.0.1:{{port:good}} max_fails=0; }
    upstream clear { zone z; server 127.0.0.1:{{port:codes}} max_fails=0; }
    upstream checked { zone z; server 127.0.0.1:{{port:good}}; }
    $origins
    server { listen 127.0.0.1:{{port:v12}} ssl; ssl_protocols TLSv1.2; ssl_certificate certs/good.crt; ssl_certificate_key certs/good.key; return 200 ok; }
    server {
        listen 127.0.0.1:{{port}};
        proxy_set_header Connection close;
        proxy_ssl_name good.test;
        proxy_ssl_trusted_certificate certs/ca.crt;
        proxy_ssl_crl certs/ca.crl;
        proxy_connect_timeout 300ms;
        $places
        location /name { proxy_pass https://name; proxy_ssl_verify on; proxy_ssl_name other.test; }
        location /v12 { proxy_pass https://v12; proxy_ssl_protocols TLSv1.3; }
        location /silent { proxy_pass https://silent; }
        location /asks { proxy_pass https://asks; proxy_ssl_protocols TLSv1.2; proxy_ssl_certificate certs/client.crt; proxy_ssl_certificate_key certs/client.key; }
        location /clear { proxy_pass http://clear; }
        location /checked { proxy_pass https://checked; health_check interval=100ms; }
        location /api { api write=on; }
    }
}
EOT
$p->expect_log(qr/SSL|upstream|connect/);
# It says the code that it is asked for.
$p->origin('codes', sub {
    my ($c) = @_;
    while (my $q = $c->request) {
        my ($code) = $q->{uri} =~ /(\d+)$/;
        $c->write("HTTP/1.1 $code Text\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        last;
    }
});
my $silent = IO::Socket::INET->new(LocalAddr => '127.0.0.1', LocalPort => $p->port('silent'), Listen => 5, ReuseAddr => 1) or die "listen: $!";
# It refuses certificates that its authority has not signed, by an alert within the handshake.
my $asks = fork;
if (!$asks) {
    open STDIN, '<', '/dev/null';
    open STDOUT, '>', '/dev/null';
    open STDERR, '>', '/dev/null';
    exec 'openssl', 's_server', '-accept', '127.0.0.1:' . $p->port('asks'), '-cert', $certs->path('good.crt'), '-key', $certs->path('good.key'),
        '-Verify', 1, '-verify_return_error', '-CAfile', $certs->path('ca.crt'), '-tls1_2', '-www' or POSIX::_exit(127);
}
END { local $?; if ($asks) { kill 'KILL', $asks; waitpid $asks, 0 } }
ok Proxyd::wait_for(sub { IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $p->port('asks')) }, 10), 'a server that asks for certificates';
$p->start;

sub peer {
    my ($group, $version) = @_;
    my $r = $p->get('/api/' . ($version || 9) . "/http/upstreams/$group");
    return JSON::PP->new->decode($r->body)->{peers}[0];
}
my %none = (handshakes => 0, handshakes_failed => 0, session_reuses => 0, no_common_protocol => 0, handshake_timeout => 0, peer_rejected_cert => 0,
    verify_failures => { expired_cert => 0, revoked_cert => 0, hostname_mismatch => 0, other => 0 });
sub with { my ($verify, %o) = @_; return { %none, %o, verify_failures => { %{ $none{verify_failures} }, %$verify } } }

is_deeply peer('good')->{ssl}, \%none, 'nothing has been asked yet';
my $reused = 0;
$reused += $p->get('/good')->body eq 'r' for 1 .. 6;
is_deeply peer('good')->{ssl}, with({}, handshakes => 6, session_reuses => $reused), "handshakes, $reused of them resumed";
cmp_ok $reused, '>', 0, 'some are';
for (['old', with({ expired_cert => 2 }, handshakes_failed => 2)],
     ['gone', with({ revoked_cert => 2 }, handshakes_failed => 2)],
     ['self', with({ other => 2 }, handshakes_failed => 2)],
     ['name', with({ hostname_mismatch => 2 }, handshakes_failed => 2)],
     ['v12', with({}, handshakes_failed => 2, no_common_protocol => 2)],
     ['silent', with({}, handshakes_failed => 2, handshake_timeout => 2)],
     ['asks', with({}, handshakes_failed => 2, peer_rejected_cert => 2)]) {
    my ($group, $want) = @$_;
    like $p->get("/$group")->status, qr/^50[24]$/, $group for 1 .. 2;
    is_deeply peer($group)->{ssl}, $want, "$group: is counted" or diag explain peer($group)->{ssl};
}
ok !exists peer('good', 7)->{ssl}, 'not before version 8';
ok !exists peer('clear')->{ssl}, 'nor of servers that are spoken to without TLS';
ok Proxyd::wait_for(sub { peer('checked')->{health_checks}{checks} > 2 }, 10), 'health checks';
is_deeply peer('checked')->{ssl}, \%none, 'are counted elsewhere';

# statuses
$p->get("/clear/$_") for 200, 200, 404, 500, 200, 301;
is_deeply peer('clear')->{responses}, { '1xx' => 0, '2xx' => 3, '3xx' => 1, '4xx' => 1, '5xx' => 1, total => 6,
    codes => { 200 => 3, 301 => 1, 404 => 1, 500 => 1 } }, 'responses.codes';
ok !exists peer('clear', 6)->{responses}{codes}, 'not before version 7';
# What comes first, and be it anything, takes no place from what comes later.
my @odd = (430, 432 .. 450, 452 .. 470, 512 .. 519);
my @known = (101, 200 .. 208, 226, 300 .. 305, 307, 308, 400 .. 419, 421 .. 426, 428, 429, 431, 451, 499, 500 .. 508, 510, 511, 520);
my %before = %{ peer('clear')->{responses} };
$p->get("/clear/$_") for @odd, grep { $_ != 101 } @known;
my $r = peer('clear')->{responses};
is_deeply { map { $_ => $r->{codes}{$_} - ($before{codes}{$_} // 0) } keys %{ $r->{codes} } },
    { map { $_ => 1 } grep { $_ != 101 } @known }, 'each code that is known';
is $r->{'4xx'} - $before{'4xx'}, scalar(grep { /^4/ } @odd, @known), 'the class has all of them';
is $r->{'5xx'} - $before{'5xx'}, scalar(grep { /^5/ } @odd, @known), 'and this one';
is $r->{total} - $before{total}, @odd + @known - 1, 'and the total';
is $p->request('DELETE', '/api/9/http/upstreams/clear')->status, 204, 'a reset';
is_deeply peer('clear')->{responses}, { '1xx' => 0, '2xx' => 0, '3xx' => 0, '4xx' => 0, '5xx' => 0, total => 0, codes => {} }, 'all begins anew';
$p->get("/clear/$_") for 200, 404;
is_deeply peer('clear')->{responses}{codes}, { 200 => 1, 404 => 1 }, 'and goes on';
$p->request('DELETE', '/api/9/http/upstreams/good');
is_deeply peer('good')->{ssl}, \%none, 'handshakes too';
$p->stop;
done_testing;
