# SPDX-License-Identifier: BSD-2-Clause
#
# proxy_buffering auto: what a server says bit by bit goes on bit by bit, without a setting for each
# such location; everything else is buffered.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/lib";
use Test::More;
use Proxyd;

plan skip_all => 'proxyd only' if Proxyd::is_nginx();

my $p = Proxyd->new;
my $go = $p->dir . '/go';
my %type = (sse => 'text/event-stream; charset=utf-8', ndjson => 'application/x-ndjson', seq => 'application/json-seq',
    mixed => 'multipart/x-mixed-replace; boundary=x', text => 'text/plain');

# The first part, then, once the client has it, the second one.
$p->origin('app', sub {
    my ($c) = @_;
    while (my $q = $c->request) {
        my ($kind, $how) = $q->{uri} =~ m{/(\w+)/(\w+)};
        my $large = $kind eq 'large';
        my $head = "HTTP/1.1 200 OK\r\nContent-Type: " . ($type{$kind} // 'text/plain') . "\r\n";
        my @parts = $large ? ('x' x 3_000_000) : ('one', 'two');
        if ($how eq 'length') { $head .= 'Content-Length: ' . length(join '', @parts) . "\r\n" }
        elsif ($how eq 'chunked') {
            $head .= "Transfer-Encoding: chunked\r\n";
            $_ = sprintf("%x\r\n%s\r\n", length, $_) for @parts;
            push @parts, "0\r\n\r\n";
        }
        else { $head .= "Connection: close\r\n" }
        $c->write("$head\r\n" . shift @parts);
        if (!$large) { Proxyd::wait_for(sub { -e $go }, 20); unlink $go }
        $c->write(join '', @parts) if @parts;
        return if $how eq 'close';
    }
});
$p->write_conf(<<'EOT');
http {
    proxy_http_version 1.1;
    server {
        listen 127.0.0.1:{{port}};
        proxy_buffering auto;
        location / { proxy_pass http://127.0.0.1:{{port:app}}; proxy_socket_rcvbuf 64k; proxy_socket_sndbuf 32k;
            proxy_send_lowat 1k; proxy_bind_dynamic on; proxy_bind 127.0.0.1; }
        location /off/ { proxy_buffering off; proxy_pass http://127.0.0.1:{{port:app}}/; }
        location /ssi/ { ssi on; ssi_types *; proxy_pass http://127.0.0.1:{{port:app}}/; }
    }
}
EOT
$p->start;

# The first part comes before the second one is sent; then the answer is complete.
sub streamed {
    my ($uri) = @_;
    my $c = $p->connect;
    $c->send("GET $uri HTTP/1.1\r\nHost: x\r\n\r\n");
    my $first = Proxyd::wait_for(sub { $c->fill; $c->in =~ /\r\n\r\n.*one/s }, 10);
    $p->write_file('go', '');
    my $r = $c->response;
    return $first && $r && $r->{complete} && $r->body eq 'onetwo';
}
for my $kind (qw(sse ndjson seq mixed text)) {
    ok streamed("/$kind/$_"), "$kind, $_: the first part is not kept" for qw(chunked close);
}
ok streamed("/$_/length"), "$_ with a length" for qw(sse ndjson);
ok streamed('/off/text/length'), 'off: anything';
ok streamed('/ssi/text/chunked'), 'through a filter';
my $r = $p->get('/large/chunked');
is length $r->body, 3_000_000, 'a large one is whole';
is length $p->get('/large/length')->body, 3_000_000, 'with a length too';
$p->stop;

my $q = Proxyd->new;
for (['proxy_buffering maybe;', 'invalid value "maybe"'], ['proxy_socket_rcvbuf 3g;', 'invalid value'],
    ['proxy_socket_sndbuf x;', '"proxy_socket_sndbuf" directive invalid value']) {
    $q->write_conf("http { $_->[0] }");
    like $q->run(args => ['-t', '-p', $q->dir . '/', '-c', 'proxyd.conf', '-e', 'error.log'])->{err}, qr/\Q$_->[1]\E/, "$_->[0] $_->[1]";
}
done_testing;
