# SPDX-License-Identifier: BSD-2-Clause
#
# Servers that refuse our certificate, or miss it. Up to TLS 1.2 they do so within the handshake; with TLS 1.3 when our handshake
# is over and the request is on its way.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/lib";
use JSON::PP;
use Test::More;
use Load;
use Proxyd;
use Proxyd::Certs;

plan skip_all => 'proxyd only' if Proxyd::is_nginx();
my $p = Proxyd->new;
my $certs = Proxyd::Certs->new($p->dir . '/certs');
$certs->make('good', names => ['good.test']);
$certs->make('known', subject => '/CN=known');
$certs->make('unknown', by => 'self');
$certs->make('old', days => -1);

# PORT VERSION: counts the requests that got through, answers them, and notes what became of handshakes.
$p->write_file('server.py', <<'EOT');
import socket, ssl, sys, threading
port, version, cert, key, ca = sys.argv[1:]
ctx = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
ctx.minimum_version = ctx.maximum_version = getattr(ssl.TLSVersion, version)
ctx.load_cert_chain(cert, key)
ctx.load_verify_locations(ca)
ctx.verify_mode = ssl.CERT_REQUIRED
asked = 0
def serve(raw):
    global asked
    try:
        c = ctx.wrap_socket(raw, server_side=True)
        data = b''
        while b'\r\n\r\n' not in data:
            more = c.recv(4096)
            if not more: return
            data += more
        asked += 1
        c.sendall(b'HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok')
        c.close()
    except (OSError, ssl.SSLError):
        raw.close()
s = socket.socket()
s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
s.bind(('127.0.0.1', int(port)))
s.listen(64)
def accept():
    while True: threading.Thread(target=serve, args=(s.accept()[0],), daemon=True).start()
threading.Thread(target=accept, daemon=True).start()
print('.', flush=True)
for line in sys.stdin: print(asked, '\n.', sep='', flush=True)
EOT

my %kinds = (py12 => 'TLSv1_2', py13 => 'TLSv1_3', op12 => '-tls1_2', op13 => '-tls1_3');
my @pair = map { $certs->path("good.$_") } qw(crt key);
my (%server, @openssl);
END { local $?; kill 'KILL', @openssl if @openssl }
for my $kind (sort keys %kinds) {
    my $port = $p->port($kind);
    if ($kind =~ /^py/) {
        $server{$kind} = Load->spawn('python3', $p->dir . '/server.py', $port, $kinds{$kind}, @pair, $certs->path('ca.crt'));
        $server{$kind}->answer;
        next;
    }
    my $pid = fork;
    if (!$pid) {
        open STDIN, '<', '/dev/null';
        open STDOUT, '>', '/dev/null';
        open STDERR, '>', '/dev/null';
        exec 'openssl', 's_server', '-accept', "127.0.0.1:$port", '-cert', $pair[0], '-key', $pair[1], '-Verify', 1, '-verify_return_error',
            '-CAfile', $certs->path('ca.crt'), $kinds{$kind}, '-www' or POSIX::_exit(127);
    }
    push @openssl, $pid;
    ok Proxyd::wait_for(sub { IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $port) }, 10), "$kind listens";
}

my %shown = (unknown => 'proxy_ssl_certificate certs/unknown.crt; proxy_ssl_certificate_key certs/unknown.key;',
    old => 'proxy_ssl_certificate certs/old.crt; proxy_ssl_certificate_key certs/old.key;', none => '',
    known => 'proxy_ssl_certificate certs/known.crt; proxy_ssl_certificate_key certs/known.key;');
my ($groups, $places) = ('', '');
for my $kind (sort keys %kinds) {
    for my $shown (sort keys %shown) {
        $groups .= "upstream ${kind}_$shown { zone z 1m; server 127.0.0.1:{{port:$kind}} max_fails=0; }\n";
        $groups .= "upstream next_${kind}_$shown { zone z; server 127.0.0.1:{{port:$kind}} max_fails=0; server 127.0.0.1:{{port:open}} backup; }\n";
        $places .= "location /$kind/$shown { $shown{$shown} proxy_pass https://${kind}_$shown; }\n";
        $places .= "location /next/$kind/$shown { $shown{$shown} proxy_pass https://next_${kind}_$shown; }\n";
    }
}
$p->write_conf(<<"EOT");
http {
    $groups
    upstream sick { zone z; server 127.0.0.1:{{port:py13}}; }
    log_format up '\$request_method \$uri \$upstream_status';
    access_log {{dir}}/up.log up;
    server { listen 127.0.0.1:{{port:open}} ssl; ssl_certificate certs/good.crt; ssl_certificate_key certs/good.key; return 200 open; }
    server {
        listen 127.0.0.1:{{port}};
        client_max_body_size 0;
        $places
        location /sick { $shown{unknown} proxy_pass https://sick; health_check interval=100ms; }
        location /api { api write=on; }
    }
}
EOT
$p->expect_log(qr/SSL/);
$p->start;
sub lines { my ($re) = @_; return scalar(() = ($p->error_log || '') =~ /$re/g) }
sub tls { my ($group) = @_; return JSON::PP->new->decode($p->get("/api/9/http/upstreams/$group")->body)->{peers}[0]{ssl} }

my %says = (unknown => 'the server refused our certificate: ', old => 'the server refused our certificate: ',
    none => 'the server wants a certificate, and none was shown: ');
for my $kind (sort keys %kinds) {
    my $late = $kind =~ /13/;
    is $p->get("/$kind/known")->status, 200, "$kind: one that is known";
    is tls("${kind}_known")->{handshakes_failed}, 0, 'no failure';
    for my $shown (qw(unknown old none)) {
        # Before TLS 1.3 there is no alert for the want of one.
        my $words = $late || $shown ne 'none' ? $says{$shown} : '';
        my $what = $late ? 'SSL_read\(\) failed \(SSL: error:[^)]*\) while (?:reading response header from|sending request to) upstream'
            : 'SSL_do_handshake\(\) failed \(SSL: error:[^)]*\) while SSL handshaking to upstream';
        is $p->get("/$kind/$shown")->status, 502, "$kind, $shown: an error";
        is lines(qr{\[error\] \S+ \*\d+ $words$what, client: [^\n]*GET /$kind/$shown }), 1, 'and a line that says why'
            or diag grep { m{/$kind/$shown } } split /^/, $p->error_log;
        my $n = tls("${kind}_$shown");
        is "$n->{peer_rejected_cert} $n->{handshakes_failed} $n->{handshakes}", join(' ', $words ne '' ? 1 : 0, 1, $late ? 1 : 0), 'counted';
        is $p->get("/next/$kind/$shown")->body, 'open', 'another server is asked';
        # Of a request that was on its way nobody may be told twice. It may have come to nothing before it was.
        my $post = $p->post("/next/$kind/$shown", 'x' x 10);
        like $post->status, $late ? qr/^(?:200|502)$/ : qr/^200$/, 'with a POST too';
        is $p->post("/$kind/$shown", 'x' x 3_000_000)->status, 502, 'a large one';
        is $late || $words ne '' ? tls("${kind}_$shown")->{peer_rejected_cert} : 2, 2, 'is counted once';
    }
}
for my $kind (qw(py12 py13)) { is [$server{$kind}->command('count')]->[0] + 0, 1, "$kind: but one request got through" }

# A check that is refused: the server is not well, and the log says why.
ok $p->wait_log(qr/\[info\] \S+ the server refused our certificate: SSL_read\(\) failed \(SSL: error:[^)]*\) while [^,]*, health check "" of peer \S+ in upstream "sick"/, undef, 20), 'health checks';
ok $p->wait_log(qr/peer is unhealthy [^\n]*upstream "sick"/, undef, 20), 'are failures';
$p->stop;
$_->stop for values %server;
done_testing;
