# SPDX-License-Identifier: BSD-2-Clause
#
# Active health checks over TLS: by the location's proxy_ssl_*, as its requests are sent.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/lib";
use Test::More;
use IO::Socket::SSL;
use Proxyd;
use Proxyd::Certs;

plan skip_all => 'proxyd only' if Proxyd::is_nginx();

my $p     = Proxyd->new;
my $certs = Proxyd::Certs->new($p->dir . '/certs');
$certs->make('good', names => ['good.test', 'group']);
$certs->make('old', names => ['good.test'], days => -1);
$certs->make('other', ca => 1);
$certs->make('client', subject => '/CN=client');

# At once: an origin reads it at any time.
sub put {
    my ($name, $text) = @_;
    $p->write_file("$name.new", $text);
    rename $p->dir . "/$name.new", $p->dir . "/$name" or die "$name: $!";
}
sub answer { my ($text) = @_; return "HTTP/1.1 200 OK\r\nContent-Length: " . length($text) . "\r\n\r\n$text" }

# An origin over TLS, which may be told other ways by files NAME-KEY: cert (which one), mode ("slow", "plain", "cut", "half",
# "quiet"), answer. It notes what was asked, by whom, under which name.
sub tls_origin {
    my ($name, %o) = @_;
    return $p->origin($name, sub {
        my ($conn) = @_;
        my $cert = $p->read_file("$name-cert") // 'good';
        my $mode = $p->read_file("$name-mode") // '';
        my $c    = $conn->sock;
        if ($mode eq 'slow') { sleep 1 while -e $p->dir . "/$name-mode"; return }
        if ($mode eq 'plain') { print $c "HTTP/1.0 400 Bad\r\n\r\n"; $c->flush; return }
        IO::Socket::SSL->start_SSL($c, SSL_server => 1, SSL_cert_file => $certs->path("$cert.crt"),
            SSL_key_file => $certs->path("$cert.key"), %o) or return;
        my $shown = $c->peer_certificate('cn') // '-';
        my $asked = $c->get_servername // '-';
        my $n = 0;
        while (1) {
            my $head = '';
            while ($head !~ /\r\n\r\n/) { sysread($c, $head, 4096, length $head) or return }
            my ($line) = $head =~ /^(.*?)\r\n/;
            $n++;
            open my $fh, '>>', $p->dir . "/$name-asked";
            print $fh "$line|$asked|$shown|$n\n";
            close $fh;
            if ($mode eq 'quiet') { sleep 1 while -e $p->dir . "/$name-mode"; return }
            my $text = $line =~ m{ /check} ? $p->read_file("$name-answer") // answer('ok') : answer($name);
            syswrite $c, $mode eq 'half' ? substr($text, 0, length($text) - 1) : $text;
            if ($mode eq 'cut') { $c->close(SSL_no_shutdown => 1); return }
            return if $text !~ /Content-Length/ || $mode eq 'half' || $head =~ /Connection: close/;
        }
    });
}
sub asked { return $p->read_file("$_[0]-asked") // '' }
sub logged { my ($re, @file) = @_; return $p->wait_log($re, $file[0], 20) }
sub lines { my ($re) = @_; return scalar(() = ($p->error_log || '') =~ /$re/g) }
sub body { my $r = $p->get($_[0]); return $r->status == 200 ? $r->body : $r->status }

my @origins = qw(a b v c k t n m);
tls_origin($_) for grep { !/[cm]/ } @origins;
tls_origin($_, SSL_verify_mode => SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, SSL_ca_file => $certs->path('ca.crt')) for qw(c m);

my $groups = join '', map { "upstream up_$_ { zone z 1m; server 127.0.0.1:{{port:$_}} max_fails=0; }\n" } @origins;
my $check  = 'health_check interval=100ms uri=/check';
my $verify = 'proxy_ssl_verify on; proxy_ssl_trusted_certificate certs/ca.crt;';
$p->write_conf(<<"EOT");
error_log error.log info;
http {
    proxy_connect_timeout 2s;
    proxy_read_timeout 2s;
    $groups
    upstream group { zone z; server 127.0.0.1:{{port:b}}; }
    upstream wrong { zone z; server 127.0.0.1:{{port:a}}; }
    upstream untrusted { zone z; server 127.0.0.1:{{port:a}}; }
    upstream nocert { zone z; server 127.0.0.1:{{port:c}}; }
    upstream plain { zone z; server 127.0.0.1:{{port:plain}}; }
    upstream self { zone z; server 127.0.0.1:{{port:self}}; }
    log_format self '\$ssl_session_reused \$uri TLS';
    server { listen 127.0.0.1:{{port:self}} ssl proxy_protocol; ssl_certificate certs/good.crt; ssl_certificate_key certs/good.key;
             access_log {{dir}}/self.log self; return 200 ok; }
    match ok { status 200; body ~ ok; require \$good; }
    map "\$upstream_status\$ssl_protocol\$https" \$good { 200 1; }
    server {
        listen 127.0.0.1:{{port}};
        location /a { proxy_pass https://up_a; $check match=ok; }
        location /b { proxy_pass https://group; $check; $verify proxy_ssl_server_name on; }
        location /v { proxy_pass https://up_v; $check; $verify proxy_ssl_name good.test:443; proxy_ssl_server_name on; }
        location /c { proxy_pass https://up_c; $check; proxy_ssl_certificate certs/client.crt; proxy_ssl_certificate_key certs/client.key; }
        location /k { proxy_pass https://up_k; $check keepalive_time=1h; proxy_ssl_protocols TLSv1.3; }
        location /t { proxy_pass https://up_t; health_check interval=100ms type=tcp; }
        location /n { proxy_pass https://up_n; $check; $verify proxy_ssl_name \$check_name; proxy_ssl_server_name on; }
        location /m { proxy_pass https://up_m; $check; proxy_ssl_certificate certs/\$shown.crt; proxy_ssl_certificate_key certs/\$shown.key; }
        location /self { proxy_pass https://self; $check mandatory; proxy_send_proxy_protocol v1; }
        location /self2 { proxy_pass https://self; health_check interval=100ms uri=/s; proxy_send_proxy_protocol v1; proxy_ssl_session_reuse off; }
        location /wrong { proxy_pass https://wrong; $check; $verify proxy_ssl_name wrong.test; }
        location /untrusted { proxy_pass https://untrusted; $check; proxy_ssl_verify on; proxy_ssl_trusted_certificate certs/other.crt; }
        location /nocert { proxy_pass https://nocert; $check; proxy_ssl_protocols TLSv1.2; }
        location /plain { proxy_pass https://plain; $check; }
    }
    map \$host \$shown { default shown; }
    map \$host \$check_name { up_n good.test; }
}
EOT
put('n-cert', 'good');
put('t-mode', 'slow'); # nobody shakes hands
$p->origin('plain', sub { my ($c) = @_; $c->write("HTTP/1.0 400 Bad\r\n\r\n") });
$p->expect_log(qr/SSL|upstream/);
$p->start;

ok Proxyd::wait_for(sub { asked('a') =~ tr/\n// > 2 }, 20), 'a check over TLS';
like asked('a'), qr{^GET /check HTTP/1.0\|-\|-\|1\n}, 'asks as one without; no name, no certificate';
ok logged(qr/^r \/check TLS/m, 'self.log'), 'sessions are resumed';
ok logged(qr/peer is healthy .*upstream "self"/), 'a PROXY header goes in front of TLS';
is body('/a'), 'a', 'requests go there';
ok Proxyd::wait_for(sub { asked('b') =~ /^GET .*\|group\|/ }, 20), 'proxy_ssl_name is the group unless it is set';
is body('/b'), 'b', 'which the certificate is for';
ok Proxyd::wait_for(sub { asked('v') =~ /^GET .*\|good\.test\|/ }, 20), 'proxy_ssl_name, without its port';
is body('/v'), 'v', 'verified';
ok Proxyd::wait_for(sub { asked('c') =~ /\|client\|/ }, 20), 'our certificate is shown';
is body('/c'), 'c', 'and taken';
ok Proxyd::wait_for(sub { asked('n') =~ /^GET .*\|good\.test\|/ }, 20), 'a name by variables';
ok Proxyd::wait_for(sub { asked('k') =~ /\|5\n/ }, 20), 'keepalive_time: many checks over one connection';
is scalar(() = asked('k') =~ /\|1\n/g), 1, 'which stays, though there are session tickets';
ok Proxyd::wait_for(sub { ($p->read_file('self.log') // '') =~ /(?:\/s TLS\s+.*?){3}/s });
unlike $p->read_file('self.log'), qr/^r \/s /m, 'proxy_ssl_session_reuse off';
unlike $p->error_log, qr/unhealthy.*upstream "(?:up_\w|group|self)"/, 'all of these are well, the one that is only connected to included';

# what is wrong, in the log at info, and what comes of it
for (['wrong', 'upstream SSL certificate does not match "wrong.test"'],
     ['untrusted', 'upstream SSL certificate verify error: \(\d+:[^)]*\)'],
     ['nocert', '(?:SSL_do_handshake\(\) failed \(SSL: error:[^)]*\)|peer closed connection in SSL handshake[^,]*)'],
     ['plain', 'SSL_do_handshake\(\) failed \(SSL: error:[^)]*\)']) {
    my ($group, $why) = @$_;
    ok logged(qr/\[info\] \S+ $why while SSL handshaking to upstream, health check "" of peer \S+ in upstream "$group"/), "$group: why";
    ok logged(qr/\[warn\] \S+ peer is unhealthy while SSL handshaking to upstream, health check "" of peer \S+ in upstream "$group"/),
        "$group: unhealthy";
    is body("/$group"), 502, "$group: nobody is sent there";
}
is lines(qr/peer is unhealthy/), 4, 'and no others';

# One that is well, falls sick in some way, and is well again.
sub falls_sick {
    my ($what, $group, $why, %files) = @_;
    my ($bad, $well) = (lines(qr/peer is unhealthy .*upstream "$group"/), lines(qr/peer is healthy .*upstream "$group"/));
    put($_, $files{$_}) for keys %files;
    ok Proxyd::wait_for(sub { lines(qr/peer is unhealthy .*upstream "$group"/) > $bad }, 20), "$what: sick";
    like $p->error_log, qr/\[info\] \S+ $why, health check "\w*" of peer \S+ in upstream "$group"/, "$what: why";
    unlink map { $p->dir . "/$_" } keys %files;
    ok Proxyd::wait_for(sub { lines(qr/peer is healthy .*upstream "$group"/) > $well }, 20), "$what: well again";
}
falls_sick('expired', 'up_n', 'upstream SSL certificate verify error: \(10:certificate has expired\) while SSL handshaking to upstream',
    'n-cert' => 'old');
falls_sick('a handshake that does not end', 'up_a', 'upstream timed out \(110: [^)]*\) while SSL handshaking to upstream', 'a-mode' => 'slow');
falls_sick('no TLS at all', 'up_a', 'SSL_do_handshake\(\) failed \(SSL: [^)]*\) while SSL handshaking to upstream', 'a-mode' => 'plain');
falls_sick('silence', 'up_a', 'upstream timed out \(110: [^)]*\) while reading response header from upstream', 'a-mode' => 'quiet');
falls_sick('a body that is cut', 'up_a', 'upstream prematurely closed connection while reading response body from upstream', 'a-mode' => 'half');
falls_sick('a body that anybody may have cut', 'up_a', 'upstream closed connection without close_notify: its answer may be cut while checking status code',
    'a-mode' => 'cut', 'a-answer' => "HTTP/1.0 200 OK\r\n\r\nok");
falls_sick('another status', 'up_k', 'the status is 500 while checking status code', 'k-answer' => "HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n");
falls_sick('another body', 'up_a', 'the body of 4 bytes does not match "ok" while checking body', 'a-answer' => answer('nono'));
{
    put('a-answer', "HTTP/1.0 200 OK\r\n\r\nok");
    my $n = asked('a') =~ tr/\n//;
    my $bad = lines(qr/peer is unhealthy .*upstream "up_a"/);
    ok Proxyd::wait_for(sub { asked('a') =~ tr/\n// > $n + 3 }, 20), 'a body up to close_notify';
    is lines(qr/peer is unhealthy .*upstream "up_a"/), $bad, 'is whole';
}
is body('/a'), 'a', 'served in the end';

# The certificate that we show cannot be had: what the server is remains as it was found to be.
{
    my $cannot = sub { lines(qr/\[error\] \S+ cannot load certificate [^\n]*, health check "" of peer \S+ in upstream "up_m"/) };
    my $says = qr/\[error\] \S+ the server is not checked, and stays as it is: "proxy_ssl_certificate" in \S+:\d+ cannot be used while SSL handshaking to upstream, health check "" of peer \S+ in upstream "up_m"/;
    my $verdicts = sub { lines(qr/peer is (?:un)?healthy [^\n]*upstream "up_m"/) };
    my $more = sub { my $n = $cannot->() + $_[0]; return Proxyd::wait_for(sub { $cannot->() >= $n }, 20) };
    my $copy = sub { put("certs/shown.$_", scalar $p->read_file("certs/client.$_")) for qw(crt key) };
    my $gone = sub { unlink map { $p->dir . "/certs/shown.$_" } qw(crt key) };

    ok $more->(4), 'no certificate: again and again';
    is $verdicts->(), 0, 'nothing is said of the server';
    is lines($says), 1, 'but of the directive, once';
    is body('/m'), 500, 'requests do not get there';
    $copy->();
    ok Proxyd::wait_for(sub { asked('m') =~ /\|client\|/ }, 20), 'there is one';
    is body('/m'), 'm', 'all is well';
    put('m-answer', "HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n");
    ok logged(qr/peer is unhealthy [^\n]*upstream "up_m"/), 'a server that is sick';
    $gone->();
    ok $more->(4), 'and no certificate again';
    is lines($says), 2, 'which is said again';
    is body('/m'), 502, 'is still sick';
    unlink $p->dir . '/m-answer';
    $copy->();
    ok logged(qr/peer is healthy [^\n]*upstream "up_m"/), 'until it is found to be well';
    $gone->();
    ok $more->(4), 'gone once more';
    is $verdicts->(), 2, 'and it stays well';
}
$p->stop;

done_testing;
