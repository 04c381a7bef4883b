# SPDX-License-Identifier: BSD-2-Clause
#
# proxy_send_proxy_protocol: PROXY headers in front of connections to servers, read by a program that takes them apart, by
# Debian's nginx, and by the server itself.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/lib";
use Socket qw(inet_ntop AF_INET6);
use Test::More;
use Proxyd;

plan skip_all => 'proxyd only' if Proxyd::is_nginx();
my $nginx = '/usr/sbin/nginx';
my $p = Proxyd->new;

# Takes the header off, and answers each request with what it said.
sub take_header {
    my ($c) = @_;
    while (length $c->{in} < 16) { $c->more or return 'none' }
    if (substr($c->{in}, 0, 12) eq "\r\n\r\n\0\r\nQUIT\n") {
        my ($cmd, $family, $len) = unpack 'CCn', substr $c->{in}, 12, 4;
        while (length $c->{in} < 16 + $len) { $c->more or return 'cut' }
        my $rest = substr $c->{in}, 16, $len;
        substr($c->{in}, 0, 16 + $len) = '';
        return 'v2 LOCAL' if $cmd == 0x20 && !$len;
        if ($family == 0x11) { my ($s, $d, $sp, $dp) = unpack 'a4a4nn', $rest; return sprintf 'v2 %vd:%d %vd:%d', $s, $sp, $d, $dp }
        my ($s, $d, $sp, $dp) = unpack 'a16a16nn', $rest;
        return sprintf 'v2 [%s]:%d [%s]:%d', inet_ntop(AF_INET6, $s), $sp, inet_ntop(AF_INET6, $d), $dp;
    }
    if ($c->{in} =~ s/^(PROXY [^\r]*)\r\n//) { return "v1 $1" }
    return 'none';
}
my $origin = $p->origin('app', sub {
    my ($c) = @_;
    my $header = take_header($c);
    my $n = 0;
    while (my $q = $c->request) {
        $n++;
        return if $q->{uri} =~ /drop/ && $n == 1 && $header !~ /again/ && !-e $p->dir . '/dropped' && $p->write_file('dropped', '');
        my $text = "$header #$n" . ($q->{body} ? " $q->{body}" : '');
        $c->write("HTTP/1.1 200 OK\r\nContent-Length: " . length($text) . "\r\n\r\n$text");
    }
});

$p->write_conf(<<'EOT');
worker_processes 1;
http {
    log_format u '$uri $upstream_bytes_sent $request_length';
    access_log {{dir}}/u.log u;
    upstream app { zone app 128k; server 127.0.0.1:{{port:app}}; keepalive 8; }
    upstream two { server 127.0.0.1:{{port:app}} max_fails=0; server 127.0.0.1:{{port:app}} max_fails=0; }
    upstream nt { ntlm; server 127.0.0.1:{{port:app}}; keepalive 8; }
    server {
        listen 127.0.0.1:{{port}};
        location /nt   { proxy_pass http://nt; proxy_send_proxy_protocol v1; }
        location /ntoff { proxy_pass http://nt; }
        location /     { tunnel_pass nt; }
        listen unix:{{dir}}/s.sock;
        location /off  { proxy_pass http://app; }
        location /v1   { proxy_pass http://app; proxy_send_proxy_protocol v1;
                         location /v1/off { proxy_pass http://app; proxy_send_proxy_protocol off; }
                         location /v1/in  { proxy_pass http://app; } }
        location /v2   { proxy_pass http://app; proxy_send_proxy_protocol v2; }
        location /two  { proxy_pass http://two; proxy_send_proxy_protocol v1; }
        location /real { proxy_pass http://app; proxy_send_proxy_protocol v1;
                         set_real_ip_from 127.0.0.1; real_ip_header X-Real-IP; }
        location /real2 { proxy_pass http://app; proxy_send_proxy_protocol v2;
                         set_real_ip_from 127.0.0.1; real_ip_header X-Real-IP; }
        location /self1 { proxy_pass http://127.0.0.1:{{port:self}}; proxy_send_proxy_protocol v1; }
        location /self2 { proxy_pass http://127.0.0.1:{{port:self}}; proxy_send_proxy_protocol v2; }
        location /nginx1 { proxy_pass http://127.0.0.1:{{port:nginx}}; proxy_send_proxy_protocol v1; }
        location /nginx2 { proxy_pass http://127.0.0.1:{{port:nginx}}; proxy_send_proxy_protocol v2; }
    }
    server {
        listen 127.0.0.1:{{port:self}} proxy_protocol;
        location / { return 200 "$proxy_protocol_addr:$proxy_protocol_port $proxy_protocol_server_addr:$proxy_protocol_server_port"; }
    }
    server {
        listen 127.0.0.1:{{port:checked}};
        location / { proxy_pass http://app; proxy_send_proxy_protocol v2; health_check interval=100ms uri=/health; }
    }
}
EOT
my $nginx_pid;
END { local $?; if ($nginx_pid) { kill 'QUIT', $nginx_pid; waitpid $nginx_pid, 0 } }
if (-x $nginx) {
    my ($dir, $port) = ($p->dir . '/nginx', $p->port('nginx'));
    mkdir $dir;
    open my $f, '>', "$dir/n.conf" or die;
    print $f <<"EOT";
daemon off; master_process off; pid $dir/pid; error_log $dir/error.log info;
events { }
http { access_log off;
    client_body_temp_path $dir/b; proxy_temp_path $dir/p; fastcgi_temp_path $dir/f; scgi_temp_path $dir/s; uwsgi_temp_path $dir/u;
    server { listen 127.0.0.1:$port proxy_protocol;
        return 200 "\$proxy_protocol_addr:\$proxy_protocol_port \$proxy_protocol_server_addr:\$proxy_protocol_server_port"; } }
EOT
    close $f;
    $nginx_pid = fork;
    if (!$nginx_pid) { open STDERR, '>', '/dev/null'; exec { $nginx } $nginx, '-c', "$dir/n.conf" or POSIX::_exit(1) }
    Proxyd::wait_for(sub { IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $port) });
}
$p->start;
my $port = $p->port;

sub body { my ($c, $uri, $fields, $method, $data) = @_;
    $fields ||= ''; $method ||= 'GET';
    $c->send("$method $uri HTTP/1.1\r\nHost: x\r\n$fields\r\n" . (defined $data ? $data : ''));
    return $c->response(method => $method)->body }
my $c = $p->connect;
my $mine = $c->sock->sockport;
is body($c, '/v1'), "v1 PROXY TCP4 127.0.0.1 127.0.0.1 $mine $port #1", 'v1: the client and the address it came to';
is body($c, '/v1/in'), "v1 PROXY TCP4 127.0.0.1 127.0.0.1 $mine $port #1", 'inherited; and a connection of its own for each request';
is body($c, '/v2'), "v2 127.0.0.1:$mine 127.0.0.1:$port #1", 'v2';
is body($c, '/v2'), "v2 127.0.0.1:$mine 127.0.0.1:$port #1", 'again';
is body($c, '/off'), 'none #1', 'off is the default: no header';
is body($c, '/off'), 'none #2', 'and the connection is kept';
is body($c, '/v1/off'), 'none #3', 'turned off';
is body($c, '/v1'), "v1 PROXY TCP4 127.0.0.1 127.0.0.1 $mine $port #1", 'a kept connection without header is not taken';
my $d = $p->connect;
is body($d, '/v2'), 'v2 127.0.0.1:' . $d->sock->sockport . " 127.0.0.1:$port #1", 'another client, another header';
is body($c, '/v2', "Content-Length: 4\r\n", 'POST', 'data'), "v2 127.0.0.1:$mine 127.0.0.1:$port #1 data", 'in front of a request with a body';
is body($c, '/real', "X-Real-IP: 192.0.2.7\r\n"), "v1 PROXY TCP4 192.0.2.7 127.0.0.1 0 $port #1", "realip's address";
is body($c, '/real', "X-Real-IP: 2001:db8::7\r\n"), "v1 PROXY TCP6 2001:db8::7 ::ffff:127.0.0.1 0 $port #1", 'an IPv6 one: the other is mapped';
is body($c, '/real2', "X-Real-IP: 2001:db8::7\r\n"), "v2 [2001:db8::7]:0 [::ffff:127.0.0.1]:$port #1", 'in version 2';
like body($c, '/two/drop'), qr/^v1 PROXY TCP4 127.0.0.1 127.0.0.1 $mine $port #1$/, 'each attempt begins with the header';
for (['/v1', 'v1 PROXY UNKNOWN #1'], ['/v2', 'v2 LOCAL #1']) {
    my ($uri, $want) = @$_;
    require IO::Socket::UNIX;
    my $s = IO::Socket::UNIX->new(Peer => $p->dir . '/s.sock') or die $!;
    print $s "GET $uri HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"; $s->flush;
    local $/; my $all = <$s>;
    like $all, qr/\r\n\r\n\Q$want\E$/, "$uri: a client on a unix socket has no address";
}
is body($c, "/self$_"), "127.0.0.1:$mine 127.0.0.1:$port", "version $_, read by ourselves" for 1, 2;
SKIP: {
    skip 'no nginx', 2 unless $nginx_pid;
    is body($c, "/nginx$_"), "127.0.0.1:$mine 127.0.0.1:$port", "version $_, read by nginx" for 1, 2;
}
ok Proxyd::wait_for(sub { scalar $origin->lines(qr{/health}) }), 'health checks come with a header too: LOCAL';
$p->expect_log(qr/upstream prematurely closed/);
# --- connections that belong to a client --------------------------------------------------------------------
{
    my $c = $p->connect;
    my $ask = sub { $c->send("GET $_[0] HTTP/1.1\r\nHost: x\r\nAuthorization: NTLM x\r\n\r\n"); my $r = $c->response; $r ? $r->body : 'nothing' };
    like $ask->('/nt'), qr/^v1 PROXY TCP4 .* #1$/, 'ntlm: a connection begins with a header';
    like $ask->('/nt'), qr/^v1 PROXY TCP4 .* #2$/, 'and is kept for its client, without another one';
    is $ask->('/ntoff'), 'none #1', 'it does not serve where no header is wanted';
    is $ask->('/ntoff'), 'none #2', 'which has its own';
    like $ask->('/nt'), qr/^v1 PROXY TCP4 .* #1$/, 'nor the other way round';
    is $ask->('/ntoff'), 'none #1', 'each time anew';
    $c->send("CONNECT x:1 HTTP/1.1\r\nHost: x:1\r\n\r\n");
    ok Proxyd::wait_for(sub { $c->fill; $c->in =~ /^HTTP\S+ 200 [^\n]*\r\n(?:[^\r]+\r\n)*\r\n/ }), 'a tunnel to the group';
    $c->send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    ok Proxyd::wait_for(sub { $c->fill; $c->in =~ /none #(\d+)$/ }), 'says something';
    is +($c->in =~ /#(\d+)$/)[0], 1, 'over a connection of its own';
    $c->close;
}
$p->stop(name => 'the server stops cleanly');
done_testing;
