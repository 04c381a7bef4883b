# SPDX-License-Identifier: BSD-2-Clause
#
# TLS to servers: proxy_pass https and proxy_ssl_*: who is believed, what is shown and told to the server, which connections and
# sessions are used again.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/lib";
use Test::More;
use Proxyd;
use Proxyd::Certs;

my $p     = Proxyd->new;
my $certs = Proxyd::Certs->new($p->dir . '/certs');
$certs->make('other', ca => 1);
$certs->make('good', names => ['good.test']);
$certs->make('gone', names => ['good.test']);
$certs->make('ip', subject => '/CN=127.0.0.1');
$certs->make('middle', ca => 1, by => 'ca');
$certs->make('deep', by => 'middle', names => ['good.test']);
$certs->make('locked', password => 'second');
$certs->make('client', subject => '/CN=client');
$certs->revoke('ca', 'gone');
$p->write_file('passwords', "first\nsecond\n");
$p->write_file('html/large', join '', map { pack 'N', $_ } 0 .. 300_000);

my $origin = '"$ssl_server_name|$ssl_session_reused|$connection_requests|$ssl_client_s_dn|$ssl_protocol|$http_host"';
my $listen = 'listen 127.0.0.1';
$p->write_conf(<<"EOT");
http {
    root {{dir}}/html;
    log_format up '\$uri \$upstream_connect_time \$upstream_status';
    access_log {{dir}}/up.log up;
    upstream kept { server 127.0.0.1:{{port:good}}; keepalive 4; }
    upstream two { server 127.0.0.1:{{port:gone}} max_fails=0; server 127.0.0.1:{{port:good}} max_fails=0; }

    server {
        $listen:{{port:good}} ssl;
        ssl_certificate certs/good.crt;
        ssl_certificate_key certs/good.key;
        ssl_client_certificate certs/ca.crt;
        ssl_verify_client optional;
        location / { return 200 $origin; }
        location /large { }
        location /move { return 301 https://127.0.0.1:{{port:good}}/move/x; }
        location /echo { client_max_body_size 0; proxy_pass http://127.0.0.1:{{port:plain}}; }
    }
    server { $listen:{{port:gone}} ssl; ssl_certificate certs/gone.crt; ssl_certificate_key certs/gone.key; return 200 gone; }
    server { $listen:{{port:deep}} ssl; ssl_certificate certs/deep.crt; ssl_certificate_key certs/deep.key; return 200 deep; }
    server { $listen:{{port:ip}} ssl; ssl_certificate certs/ip.crt; ssl_certificate_key certs/ip.key; return 200 ip; }
    server { $listen:{{port:v12}} ssl; ssl_protocols TLSv1.2; ssl_certificate certs/good.crt; ssl_certificate_key certs/good.key;
             return 200 $origin; }
    server { $listen:{{port:pp}} ssl proxy_protocol; ssl_certificate certs/good.crt; ssl_certificate_key certs/good.key;
             return 200 \$proxy_protocol_addr; }
    server { $listen:{{port:plain}}; location / { return 200 plain; } }

    server {
        $listen:{{port}};
        proxy_ssl_name good.test;
        proxy_ssl_trusted_certificate certs/ca.crt;
        client_max_body_size 0;
        location /basic { proxy_pass https://127.0.0.1:{{port:good}}; }
        location /large { proxy_pass https://127.0.0.1:{{port:good}}; proxy_ssl_verify on; }
        location /move { proxy_pass https://127.0.0.1:{{port:good}}; }
        location /echo { proxy_pass https://127.0.0.1:{{port:good}}; }
        location /sni { proxy_pass https://127.0.0.1:{{port:good}}; proxy_ssl_server_name on; proxy_ssl_verify on; }
        location /ipsni { proxy_pass https://127.0.0.1:{{port:good}}; proxy_ssl_server_name on; proxy_ssl_name \$proxy_host; }
        location /vars { set \$where 127.0.0.1:{{port:good}}; proxy_pass https://\$where; proxy_ssl_verify on; }
        location /wrong { proxy_pass https://127.0.0.1:{{port:good}}; proxy_ssl_name wrong.test; proxy_ssl_verify on; }
        location /argname { proxy_pass https://kept; proxy_ssl_name \$arg_name; proxy_ssl_verify on; proxy_ssl_server_name on; }
        location /wrongca { proxy_pass https://127.0.0.1:{{port:good}}; proxy_ssl_trusted_certificate certs/other.crt; proxy_ssl_verify on; }
        location /crl { proxy_pass https://127.0.0.1:{{port:gone}}; proxy_ssl_crl certs/ca.crl; proxy_ssl_verify on; }
        location /crlok { proxy_pass https://127.0.0.1:{{port:good}}; proxy_ssl_crl certs/ca.crl; proxy_ssl_verify on; }
        location /next { proxy_pass https://two; proxy_ssl_crl certs/ca.crl; proxy_ssl_verify on; }
        location /deep { proxy_pass https://127.0.0.1:{{port:deep}}; proxy_ssl_verify on; }
        location /shallow { proxy_pass https://127.0.0.1:{{port:deep}}; proxy_ssl_verify on; proxy_ssl_verify_depth 0; }
        location /ip { proxy_pass https://127.0.0.1:{{port:ip}}; proxy_ssl_name 127.0.0.1; proxy_ssl_verify on; }
        location /client { proxy_pass https://127.0.0.1:{{port:good}}; proxy_ssl_certificate certs/client.crt;
                           proxy_ssl_certificate_key certs/client.key; }
        location /command { proxy_pass https://127.0.0.1:{{port:good}}; proxy_ssl_conf_command Certificate certs/client.crt;
                            proxy_ssl_conf_command PrivateKey certs/client.key; }
        location /locked { proxy_pass https://127.0.0.1:{{port:good}}; proxy_ssl_password_file passwords;
                           proxy_ssl_certificate certs/locked.crt; proxy_ssl_certificate_key certs/locked.key; }
        location /kept { proxy_pass https://kept; proxy_http_version 1.1; proxy_set_header Connection ""; }
        location /anew { proxy_pass https://127.0.0.1:{{port:good}}; proxy_ssl_session_reuse off; proxy_set_header Connection close; }
        location /again { proxy_pass https://127.0.0.1:{{port:good}}; proxy_set_header X-A a; proxy_ssl_conf_command Options -Bugs;
                          proxy_set_header Connection close; }
        location /v12 { proxy_pass https://127.0.0.1:{{port:v12}}; proxy_set_header Connection close; }
        location /v13 { proxy_pass https://127.0.0.1:{{port:v12}}; proxy_ssl_protocols TLSv1.3; }
        location /pp { proxy_pass https://127.0.0.1:{{port:pp}}; proxy_send_proxy_protocol v1; }
        location /plain { proxy_pass https://127.0.0.1:{{port:plain}}; }
        location /refused { proxy_pass https://127.0.0.1:{{port:closed}}; }
        location /ws { proxy_pass https://127.0.0.1:{{port:cut}}; proxy_set_header Upgrade \$http_upgrade; proxy_set_header Connection upgrade; }
        location /silent { proxy_pass https://127.0.0.1:{{port:silent}}; proxy_connect_timeout 200ms; }
        location /cut { proxy_pass https://127.0.0.1:{{port:cut}}; }
    }
}
EOT

my $silent = IO::Socket::INET->new(LocalAddr => '127.0.0.1', LocalPort => $p->port('silent'), Listen => 5, ReuseAddr => 1)
    or die "listen: $!";
# An origin whose answers end with the connection; without close_notify where it says so.
my $cut = IO::Socket::INET->new(LocalAddr => '127.0.0.1', LocalPort => $p->port('cut'), Listen => 5, ReuseAddr => 1)
    or die "listen: $!";
my $pid = fork;
if (!$pid) {
    local $SIG{PIPE} = 'IGNORE';
    while (my $c = $cut->accept) {
        IO::Socket::SSL->start_SSL($c, SSL_server => 1, SSL_cert_file => $certs->path('good.crt'),
            SSL_key_file => $certs->path('good.key')) or next;
        my $line = <$c>;
        while (defined(my $l = <$c>)) { last if $l =~ /^\r?$/ }
        if ($line =~ /ws/) {
            print $c "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n";
            while (sysread $c, my $data, 16384) { print $c uc $data }
            next;
        }
        print $c "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhello";
        $c->close(SSL_no_shutdown => ($line =~ /bad/ ? 1 : 0));
    }
    POSIX::_exit(0);
}
END { kill TERM => $pid if $pid }
close $cut;

$p->expect_log(qr/upstream|SSL|recv\(\) failed|connect\(\) failed/);
$p->start;
sub body { my $r = $p->get(@_); return $r->{status} == 200 ? $r->{body} : "status $r->{status}" }

like(body('/basic'), qr/^\|.\|1\|\|TLSv1\.3\|127\.0\.0\.1:\d+$/, 'https; no server name by default');
like(body('/sni'), qr/^good\.test\|/, 'server name is sent');
like(body('/ipsni'), qr/^\|/, 'an address is none');
like(body('/vars'), qr/^\|.*TLSv1\.3/, 'variables in proxy_pass');
is(length body('/large'), 4 * 300_001, 'large answer');
is(body('/large'), $p->read_file('html/large'), 'intact');
is($p->post('/echo', 'x' x 500_000)->{status}, 200, 'large body');
for (['/wrong', 'upstream SSL certificate does not match "wrong.test" while SSL handshaking to upstream, client: .* upstream: "https://'],
     ['/wrongca', 'upstream SSL certificate verify error: \(\d+:(?:unable to (?:get local issuer|verify the first)) certificate'],
     ['/crl', 'upstream SSL certificate verify error: \(23:certificate revoked\)'],
     ['/shallow', 'upstream SSL certificate verify error: '],
     ['/v13', 'SSL_do_handshake\(\) failed \(SSL: error:[^)]*\) while SSL handshaking to upstream'],
     ['/plain', 'SSL_do_handshake\(\) failed \(SSL: error:[^)]*\) while SSL handshaking to upstream'],
     ['/refused', 'connect\(\) failed .*while connecting to upstream']) {
    my ($uri, $log) = @$_;
    is($p->get($uri)->{status}, 502, $uri);
    like($p->error_log, qr/\[error\].*$log/, "$uri: log");
}
is($p->get('/silent')->{status}, 504, 'a handshake that does not end');
like($p->error_log, qr/upstream timed out \(110: [^)]*\) while SSL handshaking to upstream/, 'log');
like(body('/crlok'), qr/TLS/, 'a list without it');
is(body('/deep'), 'deep', 'one authority between');
is(body('/ip'), 'ip', 'a certificate for an address');
like(body('/next'), qr/TLS/, 'another server is asked') for 1 .. 2;
like(body('/client'), qr/CN=client/, 'our certificate');
like(body('/command'), qr/CN=client/, 'by commands, whose files are below the configuration');
like(body('/locked'), qr/CN=locked/, 'its key has a password');
body('/kept');
like(body('/kept'), qr/^\|.\|2\|/, 'the connection is kept');
like(body('/argname?name=good.test'), qr/^good\.test\|.\|1\|/, 'not for other settings');
is(body('/argname?name=bad.test'), 'status 502', 'nor for another name');
like(body('/argname?name=good.test'), qr/^good\.test\|/, 'the first name goes on');
is(body('/argname?name='), 'status 502', 'an empty name is nobody');
body('/again'); like(body('/again'), qr/^\|r\|1\|/, 'session is resumed (1.3)');
body('/v12'); like(body('/v12'), qr/^\|r\|1\|.*TLSv1\.2/, 'session is resumed (1.2)');
body('/anew'); like(body('/anew'), qr/^\|\.\|1\|/, 'proxy_ssl_session_reuse off');
is(body('/pp'), '127.0.0.1', 'PROXY header in front of TLS');
my $r = $p->get('/move');
like($r->{head} || join("\n", %{ $r->{headers} || {} }), qr{http://localhost:\d+/move/x}, 'proxy_redirect default');
is(body('/cut/good'), 'hello', 'ends by close_notify');
eval { $p->get('/cut/bad') };
ok($p->wait_log(qr/upstream closed connection without close_notify/), 'without it: may be cut');
{
    my $c = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $p->port, Timeout => 5) or die "connect: $!";
    local $SIG{ALRM} = sub { die "no answer\n" };
    alarm 10;
    print $c "GET /ws HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n";
    my ($head, $data) = ('', '');
    while ($head !~ /\r\n\r\n/) { sysread($c, $head, 1, length $head) or last }
    like($head, qr/^HTTP\/1\.1 101 /, 'a tunnel over TLS');
    for my $n (1, 200_000) {
        my $pid = fork;
        if (!$pid) { print $c 'a' x $n; $c->flush; POSIX::_exit(0) }
        $data = '';
        while (length $data < $n) { sysread($c, $data, 65536, length $data) or last }
        waitpid $pid, 0;
        is($data, 'A' x $n, "$n bytes there and back");
    }
    alarm 0;
}
ok($p->wait_log(qr{^/basic 0\.\d+ 200}m, 'up.log'), 'connect time') or diag $p->read_file('up.log');

for (['proxy_ssl_verify on;', qr/no proxy_ssl_trusted_certificate for proxy_ssl_verify/],
     ['proxy_ssl_certificate certs/client.crt;', qr/no "proxy_ssl_certificate_key" is defined for certificate/],
     ['proxy_ssl_certificate_cache max=0;', qr/invalid parameter "max=0"/],
     ['proxy_ssl_certificate $host.crt;', qr/no "proxy_ssl_certificate_key" is defined for certificate "\$host\.crt"/],
     ['proxy_ssl_certificate $host.crt; proxy_ssl_certificate_key store:$host;', qr/variables in "store:" are not supported/],
     ['proxy_ssl_certificate $nothing.crt; proxy_ssl_certificate_key a.key;', qr/unknown "nothing" variable/],
     ['proxy_ssl_trusted_certificate none.crt; proxy_ssl_verify on;', qr/none\.crt/]) {
    my ($text, $error) = @$_;
    my $q = Proxyd->new;
    Proxyd::Certs::run('cp', '-r', $p->dir . '/certs', $q->dir);
    $q->write_conf("http { upstream u { zone u 64k; server 127.0.0.1:1; } server { listen 127.0.0.1:{{port}}; location / { proxy_pass https://127.0.0.1:1; $text } } }");
    my $run = $q->run(add => ['-t']);
    is($run->{status}, 1, $text);
    like($run->{err}, $error, "$text: error");
}

# A name has the port of its scheme, whoever names it first.
for my $order ([qw(http https)], [qw(https http)]) {
    my $q = Proxyd->new;
    $q->write_conf('http { server { listen 127.0.0.1:{{port}}; '
        . join('', map { "location /$_ { proxy_pass $_://localhost; } " } @$order) . '} }');
    for (['http', 80], ['https', 443]) {
        my ($scheme, $port) = @$_;
        my $run = $q->run(add => ['--explain', 'http://127.0.0.1:' . $q->port . "/$scheme"]);
        like($run->{out}, qr/^ *peer +\S+:$port$/m, "@$order: $scheme means port $port");
    }
}
$p->stop;
done_testing;
