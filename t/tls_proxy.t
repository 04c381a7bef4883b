# SPDX-License-Identifier: BSD-2-Clause
#
# Clients that speak TLS, in front of what the proxy does with a connection: upgrades, stored answers, bodies that nobody
# reads, pipelines, ranges, limits.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/lib";
use Test::More;
use Proxyd;
use Proxyd::Certs;

plan skip_all => 'proxyd only' if Proxyd::is_nginx();
my $p     = Proxyd->new;
my $certs = Proxyd::Certs->new($p->dir . '/certs');
my $flood = Proxyd::sanitized() ? 10_000_000 : 50_000_000;
$certs->make('a', names => ['a.test']);

my $origin = $p->origin('origin', sub {
    my ($c) = @_;
    while (my $q = $c->request) {
        if ($q->{uri} =~ m{^/ws}) {
            $c->write("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n\x81\x02hi");
            while ($c->{in} ne '' || $c->more) {
                my $in = $c->{in};
                $c->{in} = '';
                if ($in =~ /flood/) { $c->write("\x82\x7f" . pack('Q>', $flood)); $c->write('x' x 100_000) for 1 .. $flood / 100_000; $c->write("\x81\x03end") }
                else { $c->write("\x81" . chr(length $in) . $in) if length $in < 126 }
            }
            return;
        }
        if ($q->{uri} =~ /slow/) {
            $c->write("HTTP/1.1 200 OK\r\nContent-Length: 3000000\r\n\r\n" . 's' x 1_000_000);
            Proxyd::wait_for(sub { -e $p->dir . '/left' }, 20);
            $c->write('s' x 2_000_000);
            next;
        }
        if ($q->{uri} =~ /(late\d)/) { my $file = $p->dir . "/$1"; Proxyd::wait_for(sub { -e $file }, 20) }
        my $text = "$q->{uri} " . length($q->{body} // '');
        $c->write("HTTP/1.1 200 OK\r\nContent-Length: " . length($text) . "\r\n\r\n$text");
    }
});
$p->write_file('html/large', join '', map { pack 'N', $_ } 0 .. 500_000);
my $large = $p->read_file('html/large');
$p->write_conf(<<'EOC');
worker_processes 1;
error_log {{dir}}/error.log info;
worker_shutdown_timeout 200ms;
http {
    root {{dir}}/html;
    sendfile on;
    ssl_certificate certs/a.crt;
    ssl_certificate_key certs/a.key;
    client_max_body_size 0;
    upstream o { server 127.0.0.1:{{port:origin}}; keepalive 4; }
    server {
        listen 127.0.0.1:{{port}} ssl;
        location / { }
        location /none { return 200 none; }
        location /stub { stub_status; }
        location /ws { proxy_pass http://o; proxy_upgrade auto; limit_rate 1000; }
        location /p { proxy_pass http://o; }
        location /stream { proxy_pass http://o; proxy_request_buffering off; }
        location /slow { proxy_pass http://o; proxy_store {{dir}}/html/stored; }
        location /close { return 200 bye; keepalive_timeout 0; }
        location /limit { alias {{dir}}/html/large; limit_rate 1m; limit_rate_after 1m; }
    }
}
EOC
$p->start;
my $H = "Host: a.test\r\n";
sub client { my $c = $certs->connect('127.0.0.1:' . $p->port); ok $c, 'connected' or BAIL_OUT($@); return $c }
sub until_in { my ($c, $re) = @_; return Proxyd::wait_for(sub { $c->fill if !$c->eof; $c->in =~ $re }, 20) }
sub gone { my ($c) = @_; return Proxyd::wait_for(sub { $c->fill if !$c->eof; $c->eof }, 20) }
my $upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n";

{
    my $c = client();
    $c->send("GET /ws HTTP/1.1\r\n$H$upgrade");
    ok until_in($c, qr/^HTTP\/1.1 101 .*\r\n\r\n\x81\x02hi$/s), 'an upgrade, and what came with it';
    for my $text (qw(one two)) {
        $c->{in} = '';
        $c->send($text);
        ok until_in($c, qr/^\x81\x03$text$/), "an echo of $text";
    }
    $c->{in} = '';
    $c->send('flood');
    ok $p->wait_for(sub { $c->wait_input(1); length $c->in > 200_000 }), 'much begins';
    ok Proxyd::wait_for(sub { for (1 .. 1000) { last if !$c->fill } length $c->in == $flood + 15 }, 60), 'and ends, whatever limit_rate says';
    is length($c->in), $flood + 15, 'all of it has come';
    is substr($c->in, -3), 'end', 'to the last frame';
    ok substr($c->in, 10, $flood) eq 'x' x $flood, 'unchanged';
    $c->{in} = '';
    $c->send('more');
    ok until_in($c, qr/^\x81\x04more$/), 'and it goes on';
    $c->close;
    ok $p->wait_for(sub { $certs->get('127.0.0.1:' . $p->port, '/stub')->body =~ /^Active connections: 1 / }), 'closed by the client: gone';
}
{
    my $c = client();
    my $body = 'b' x 900_000;
    $c->send("POST /none HTTP/1.1\r\n${H}Content-Length: 900000\r\n\r\n${body}GET /p/1 HTTP/1.1\r\n$H\r\nGET /large HTTP/1.1\r\n${H}Range: bytes=100000-299999\r\n\r\nHEAD /p/2 HTTP/1.1\r\n$H\r\n");
    is $c->response->body, 'none', 'a body that nobody reads';
    is $c->response->body, '/p/1 0', 'a pipelined request behind it';
    my $r = $c->response;
    is $r->status, 206, 'a range';
    ok $r->body eq substr($large, 100000, 200000), 'its bytes';
    is $c->response(method => 'HEAD')->status, 200, 'HEAD';
    $c->{in} = '';
    $c->send("POST /none HTTP/1.1\r\n${H}Content-Length: 5\r\n\r\nab");
    is $c->response->body, 'none', 'answered before the body has come';
    $c->send('cde');
    ok $p->wait_for(sub { $certs->get('127.0.0.1:' . $p->port, '/stub')->body =~ /Reading: 0 Writing: 1 Waiting: 1/ }), 'at rest behind it';
    for my $uri ('/p/3', '/stream/3') {
        $c->send("POST $uri HTTP/1.1\r\n${H}Content-Length: 900000\r\nExpect: 100-continue\r\n\r\n");
        ok until_in($c, qr/^HTTP\/1.1 100 Continue\r\n\r\n/), "$uri: 100" ;
        $c->{in} =~ s/^HTTP.*?\r\n\r\n//s;
        $c->send($body);
        is $c->response->body, "$uri 900000", 'and the body goes through';
    }
    $c->send("GET /large HTTP/1.1\r\n$H\r\n" x 3);
    ok $c->response->body eq $large, 'a file' for 1 .. 3;
    $c->send("POST /close HTTP/1.1\r\n${H}Content-Length: 2000000\r\n\r\n" . $body x 2);
    is $c->response->body, 'bye', 'the last answer';
    $c->send('b' x 200_000);
    ok gone($c), 'closed';
    ok !$c->{reset}, 'without a reset';
}
{
    my $c = client();
    $c->send("GET /limit HTTP/1.1\r\n${H}\r\n");
    ok $c->response->body eq $large, 'limit_rate';
    $c->send("GET /slow HTTP/1.1\r\n$H\r\n");
    ok until_in($c, qr/ssss/), 'an answer begins that is stored';
    $c->close;
    $p->write_file('left', '');
    ok $p->wait_for(sub { -e $p->dir . '/html/stored' }, 20), 'and is stored without the client';
    is -s $p->dir . '/html/stored', 3_000_000, 'whole';
}
for my $n (2, 3) {
    # close_notify alone says that the client will ask for no more, as nginx sees it; with FIN, that it has gone.
    my $c = $certs->connect('127.0.0.1:' . $p->port, version => "TLSv1$n");
    $c->send("GET /p/late$n HTTP/1.1\r\n$H\r\n");
    ok $p->wait_for(sub { $origin->lines(qr/late$n/) == 1 }), "a request under way, TLS 1.$n";
    Net::SSLeay::shutdown($c->sock->_get_ssl_object);
    $p->write_file("late$n", '');
    ok until_in($c, qr{/p/late$n 0$}), 'after a close_notify there is an answer';
    ok gone($c), 'and no more than that';
    $c->close;
    my $missing = $n + 4;
    $c = $certs->connect('127.0.0.1:' . $p->port, version => "TLSv1$n");
    $c->send("GET /p/late$missing HTTP/1.1\r\n$H\r\n");
    ok $p->wait_for(sub { $origin->lines(qr/late$missing/) == 1 }), 'another';
    Net::SSLeay::shutdown($c->sock->_get_ssl_object);
    CORE::shutdown($c->sock, 1);
    ok $p->wait_log(qr{ "GET /p/late$missing HTTP/1.1" 499 }, 'access.log'), 'a client that closes its end has gone';
    $p->write_file("late$missing", '');
}
{
    my $c = client();
    $c->send("GET /ws HTTP/1.1\r\n$H$upgrade");
    ok until_in($c, qr/\x81\x02hi$/s), 'a tunnel is open';
    $c->{in} = '';
    $p->reload;
    ok until_in($c, qr/^\x88.\x03\xe9/), 'when its worker ends it is told 1001';
    $c->send("\x88\x80abcd");
    ok gone($c), 'and closed behind its answer';
}
$p->stop(name => 'the server stops cleanly');
done_testing;
