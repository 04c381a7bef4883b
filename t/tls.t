# SPDX-License-Identifier: BSD-2-Clause
#
# TLS for clients: which server a name gets, what its settings do, what a client's certificate leads to,
# plain requests on a TLS port, PROXY headers in front of TLS, hostile beginnings, large and slow transfers.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/lib";
use Test::More;
use Proxyd;
use Proxyd::Certs;

my $p     = Proxyd->new;
my $certs = Proxyd::Certs->new($p->dir . '/certs');
$certs->make('a', names => ['a.test']);
$certs->make('r', names => ['a.test'], key => 'rsa');
$certs->make('b', names => ['b.test']);
$certs->make('locked', names => ['locked.test'], password => 'secret two');
$certs->make('middle', ca => 1, by => 'ca');
$certs->make('deep', by => 'middle');
$certs->make('client', subject => '/C=XX/O=Org, Ltd/CN=client');
$certs->make('bad');
$certs->make('stranger', by => 'self');
$certs->revoke('ca', 'bad');
my $inline = Proxyd::Certs::slurp($certs->path('b.crt'));
my $inkey  = Proxyd::Certs::slurp($certs->path('b.key'));
$p->write_file('passwords', "first\nsecret two\n");
$p->write_file('html/large', join '', map { pack 'N', $_ } 0 .. 500_000);
$p->write_file('html/small', "small\n");

$p->write_conf(<<"EOT");
http {
    default_type text/plain;
    root {{dir}}/html;
    client_header_timeout 1s;
    log_format main '\$server_port \$status \$ssl_protocol \$ssl_session_reused \$request';
    access_log {{dir}}/access.log main;
    ssl_certificate certs/a.crt;
    ssl_certificate_key certs/a.key;
    ssl_certificate certs/r.crt;
    ssl_certificate_key certs/r.key;

    server {
        listen 127.0.0.1:{{port}} ssl;
        server_name a.test;
        location / { }
        location /who { return 200 "\$server_name \$scheme \$https \$ssl_protocol \$ssl_server_name"; }
        location /cipher { return 200 "\$ssl_cipher"; }
        location /ech { return 200 "[\$ssl_ech_status|\$ssl_ech_outer_server_name]"; }
        location /conn { return 200 "\$connection_requests \$ssl_session_reused \$ssl_alpn_protocol|\$ssl_early_data"; }
        location /id { return 200 "\$ssl_session_id"; }
        location /lists { return 200 "\$ssl_ciphers \$ssl_curve \$ssl_curves"; }
        location /dir { return 301 /elsewhere; }
        location /echo { client_max_body_size 0; proxy_pass http://127.0.0.1:{{port:origin}}; }
        location /none { return 200 "[\$ssl_client_s_dn|\$ssl_client_cert|\$ssl_client_verify]"; }
    }
    server {
        listen 127.0.0.1:{{port}} ssl;
        server_name b.test;
        ssl_certificate "data:$inline";
        ssl_certificate_key "data:$inkey";
        ssl_protocols TLSv1.2;
        ssl_prefer_server_ciphers on;
        ssl_ciphers ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384;
        ssl_ecdh_curve secp384r1;
        ssl_buffer_size 4k;
        location / { }
        location /who { return 200 "\$server_name \$ssl_protocol \$ssl_cipher \$ssl_curve"; }
    }
    server {
        listen 127.0.0.1:{{port}} ssl;
        server_name .wild.test "~^(?<label>r\\d+)\\.re\\.test\$";
        location /who { return 200 "wild \$label"; }
    }
    server {
        listen 127.0.0.1:{{port}} ssl;
        server_name locked.test;
        ssl_password_file passwords;
        ssl_certificate certs/locked.crt;
        ssl_certificate_key certs/locked.key;
        location /who { return 200 "locked"; }
    }
    server {
        listen 127.0.0.1:{{port}} ssl;
        server_name verify.test;
        ssl_client_certificate certs/ca.crt;
        ssl_crl certs/ca.crl;
        ssl_verify_client on;
        error_page 496 = \@none;
        location / { return 200 "\$ssl_client_verify"; }
        location \@none { return 200 "none \$status"; }
    }
    server {
        listen 127.0.0.1:{{port}} ssl;
        server_name plain.test;
        ssl_client_certificate certs/ca.crt;
        ssl_verify_client on;
        location / { return 200 "\$ssl_client_s_dn|\$ssl_client_i_dn|\$ssl_client_s_dn_legacy|\$ssl_client_i_dn_legacy|\$ssl_client_verify|\$ssl_client_v_remain"; }
        location /serial { return 200 "\$ssl_client_serial \$ssl_client_fingerprint \$ssl_client_v_start \$ssl_client_v_end"; }
        location /signed { return 200 "\$ssl_sigalg \$ssl_client_sigalg \$ssl_sigalgs"; }
        location /pem { return 200 "\$ssl_client_raw_cert"; }
        location /folded { return 200 "\$ssl_client_cert"; }
        location /escaped { return 200 "\$ssl_client_escaped_cert"; }
    }
    server {
        listen 127.0.0.1:{{port}} ssl;
        server_name optional.test;
        ssl_trusted_certificate certs/ca.crt;
        ssl_verify_client optional;
        ssl_verify_depth 2;
        location / { return 200 "\$ssl_client_verify"; }
    }
    server {
        listen 127.0.0.1:{{port}} ssl;
        server_name noca.test;
        ssl_verify_client optional_no_ca;
        location / { return 200 "\$ssl_client_verify"; }
    }
    server {
        listen 127.0.0.1:{{port}} ssl;
        server_name rejected.test;
        ssl_reject_handshake on;
    }
    server {
        listen 127.0.0.1:{{port:plain}} ssl;
        error_page 497 =301 https://\$host\$request_uri;
    }
    server {
        listen 127.0.0.1:{{port:proxy}} ssl proxy_protocol;
        location / { return 200 "\$proxy_protocol_addr \$scheme"; }
    }
    server {
        listen 127.0.0.1:{{port:reject}} ssl default_server;
        ssl_reject_handshake on;
    }
    server {
        listen 127.0.0.1:{{port:reject}} ssl;
        server_name a.test;
        location / { return 200 "let in"; }
    }
    server {
        listen 127.0.0.1:{{port:dhe}} ssl;
        ssl_dhparam dh.pem;
        ssl_ciphers DHE-RSA-AES128-GCM-SHA256;
        ssl_protocols TLSv1.2;
        location / { return 200 "\$ssl_cipher"; }
    }
    server {
        listen 127.0.0.1:{{port:command}} ssl;
        ssl_conf_command Ciphersuites TLS_CHACHA20_POLY1305_SHA256;
        location / { return 200 "\$ssl_cipher"; }
    }
    server {
        listen 127.0.0.1:{{port:override}} ssl;
        ssl_conf_command Certificate certs/client.crt;
        ssl_conf_command PrivateKey certs/client.key;
    }
    server {
        listen 127.0.0.1:{{port:groups}} ssl;
        server_name one.test;
        ssl_ecdh_curve secp384r1;
        ssl_conf_command NumTickets 0;
        location / { return 200 "\$ssl_curve."; }
    }
    server {
        listen 127.0.0.1:{{port:groups}} ssl;
        server_name any.test;
        location / { return 200 "\$ssl_curve."; }
    }
    server {
        listen 127.0.0.1:{{port:groups}} ssl;
        server_name command.test;
        ssl_conf_command Groups P-521;
        location / { return 200 "\$ssl_curve."; }
    }
}
EOT
Proxyd::Certs::run('openssl', 'dhparam', '-dsaparam', '-out', $p->dir . '/dh.pem', '1024') unless -e $p->dir . '/dh.pem';
$p->write_file('dh.pem', <<'EOT');
-----BEGIN DH PARAMETERS-----
MIIBCAKCAQEA//////////+t+FRYortKmq/cViAnPTzx2LnFg84tNpWp4TZBFGQz
+8yTnc4kmz75fS/jY2MMddj2gbICrsRhetPfHtXV/WVhJDP1H18GbtCFY2VVPe0a
87VXE15/V8k1mE8McODmi3fipona8+/och3xWKE2rec1MKzKT0g6eXq8CrGCsyT7
YdEIqUuyyOP7uWrat2DX9GgdT0Kj3jlN9K5W7edjcrsZCwenyO4KbXCeAvzhzffi
7MA0BM0oNC9hkXL+nOmFg/+OTxIy7vKBg8P+OxtMb61zO7X8vC7CIAXFjvGDfRaD
ssbzSibBsu/6iGtCOGEoXJf//////////wIBAg==
-----END DH PARAMETERS-----
EOT
$p->echo_origin('origin');
$p->start;
my $main = $p->port('main');

sub subject_of { my ($c) = @_; return $c->sock->peer_certificate('subject') }

# --- servers by name ------------------------------------------------------------------------------

for (
    [{},                        'a.test https on TLSv1.3 ', 'no name: the default server'],
    [{ name => 'a.test' },      'a.test https on TLSv1.3 a.test', 'its name'],
    [{ name => 'A.Test' },      'a.test https on TLSv1.3 A.Test', 'in capitals', 'a.test'],
    [{ name => 'other.test' },  'a.test https on TLSv1.3 other.test', 'a name that nobody has'],
    [{ name => 'b.test' },      'b.test TLSv1.2 ECDHE-ECDSA-AES128-GCM-SHA256 secp384r1', 'settings of the one that has it'],
    [{ name => 'x.wild.test' }, 'wild ', 'a wildcard'],
    [{ name => 'r12.re.test' }, 'wild r12', 'a regex, with its group'],
    [{ name => 'locked.test' }, 'locked', 'a key with a password'],
    [{ name => 'b.test', host => 'a.test' }, 'a.test https on TLSv1.2 b.test', 'the Host counts for the request'],
    [{ version => 'TLSv1_2', name => 'a.test' }, 'a.test https on TLSv1.2 a.test', 'TLS 1.2'],
) {
    my ($how, $want, $what) = @$_;
    is $certs->get($main, '/who', %$how)->body, $want, "server: $what";
}
{
    my $c = $certs->connect($main, name => 'a.test', version => 'TLSv1_2', ciphers => 'ECDHE-ECDSA-AES128-GCM-SHA256');
    is $c->sock->get_cipher, 'ECDHE-ECDSA-AES128-GCM-SHA256', 'the ECDSA pair';
    $c->close;
    $c = $certs->connect($main, name => 'a.test', version => 'TLSv1_2', ciphers => 'ECDHE-RSA-AES128-GCM-SHA256');
    is $c->sock->get_cipher, 'ECDHE-RSA-AES128-GCM-SHA256', 'the RSA pair';
    $c->close;
    $c = $certs->connect($main, name => 'b.test');
    like subject_of($c), qr/CN=b$/, "a server's own certificate, from the configuration";
    $c->close;
    ok !$certs->connect($main, name => 'a.test', version => 'TLSv1_1'), 'TLS 1.1 is refused';
    ok $p->wait_log(qr/\[info\] .*SSL_do_handshake\(\) failed \(SSL: error:[^)]*unsupported protocol[^)]*\) while SSL handshaking, client: 127\.0\.0\.1, server: 127\.0\.0\.1:\d+/), 'and logged';
    ok !$certs->connect($main, name => 'rejected.test'), 'ssl_reject_handshake by name';
    ok $p->wait_log(qr/\[info\] .*handshake rejected while SSL handshaking, client/), 'and logged';
    ok !$certs->connect($p->port('reject')), 'ssl_reject_handshake without a name';
    is $certs->get($p->port('reject'), '/', name => 'a.test')->body, 'let in', 'the others are let in';
    is $certs->get($p->port('dhe'), '/', version => 'TLSv1_2')->body, 'DHE-RSA-AES128-GCM-SHA256', 'ssl_dhparam';
    is $certs->get($p->port('command'), '/')->body, 'TLS_CHACHA20_POLY1305_SHA256', 'ssl_conf_command';
    $c = $certs->connect($p->port('override'));
    like subject_of($c), qr/CN=client$/, 'ssl_conf_command: files are below the configuration';
    $c->close;
}

# An address's first server has groups and tickets of its own, of which those with other names know nothing.
for (
    ['one.test', 'P-384' => 'secp384r1', 'X25519' => '', 'P-521' => ''],
    ['any.test', 'P-384' => 'secp384r1', 'X25519' => 'X25519', 'P-256' => 'prime256v1', 'P-521' => 'secp521r1', 'ffdhe2048' => 'ffdhe2048'],
    ['command.test', 'P-384' => '', 'P-521' => 'secp521r1'],
) {
    my ($name, %want) = @$_;
    for my $group (sort keys %want) {
        $p->write_file('request', "GET / HTTP/1.1\r\nHost: $name\r\nConnection: close\r\n\r\n");
        my $out = join '', `openssl s_client -connect 127.0.0.1:@{[ $p->port('groups') ]} -servername $name -groups $group -ign_eof <@{[ $p->dir ]}/request 2>/dev/null`;
        is $out =~ /\r\n\r\n(\w+)\./ ? $1 : '', $want{$group}, "$name: $group";
        is scalar(() = $out =~ /New Session Ticket arrived/g), $name eq 'one.test' ? 0 : 2, "$name: tickets" if $want{$group};
    }
}

# --- what is agreed on ------------------------------------------------------------------------------

is $certs->get($main, '/conn', name => 'a.test', alpn => ['http/1.1'])->body, '1 . http/1.1|', 'ALPN';
is $certs->get($main, '/conn', name => 'a.test')->body, '1 . |', 'no ALPN';
is $certs->get($main, '/ech', name => 'a.test')->body, '[|]', 'no encrypted hello';
ok !$certs->connect($main, name => 'a.test', alpn => ['foo']), 'ALPN without a common protocol';
like $certs->get($main, '/lists', name => 'a.test')->body,
    qr/^(?:[\w-]+:)*TLS_AES_256_GCM_SHA384\S* X25519 (?:\w+:)*prime256v1/, 'what the client offers';
like $certs->get($main, '/signed', name => 'plain.test', cert => 'client')->body,
    qr/^ecdsa_secp256r1_sha256 ecdsa_secp256r1_sha256 (?:\w+:)*ecdsa_secp256r1_sha256:(?:\w+:)*rsa_pss_rsae_sha256/, 'signatures';
is $certs->get($main, '/signed', name => 'plain.test', cert => 'client', version => 'TLSv1_2', ciphers => 'ECDHE-RSA-AES128-GCM-SHA256')->body
    =~ /^(\S+)/ && $1, 'rsa_pss_rsae_sha256', 'an RSA signature';
like $certs->get($main, '/id', name => 'a.test')->body, qr/^[0-9a-f]{64}$/, 'session id';
like $certs->get($main, '/dir', name => 'a.test')->header('Location'), qr{^https://a\.test:$main/elsewhere$}, 'redirects say https';
for my $version ('-tls1_2', '-tls1_3') {
    my @how = (name => 'a.test', version => $version, session => "session$version");
    is join(' ', $certs->s_client($main, '/conn', @how)), 'New 1 . |', "$version: a new session";
    is join(' ', $certs->s_client($main, '/conn', @how)), 'Reused 1 r |', "$version: is resumed";
    # a server that asks for a certificate does not take the session of one that does not
    my ($how, $body) = $certs->s_client($main, '/', @how, keep => 1, name => 'plain.test');
    is $how, 'New', "$version: but not by a server that asks for more";
    like $body, qr/No required SSL certificate/, "$version: which asks for it";
}

# --- plain requests -----------------------------------------------------------------------------------

{
    my $r = $p->get('/x');
    is $r->status, 400, 'a plain request to a TLS port';
    like $r->body, qr{<title>400 The plain HTTP request was sent to HTTPS port</title>}, 'and its page';
    is $r->header('Connection'), 'close', 'ends the connection';
    ok $p->wait_log(qr/\[info\] .*client sent plain HTTP request to HTTPS port while reading client request headers, client: 127.0.0.1, server: a.test, request: "GET \/x HTTP\/1.1"/), 'and is logged';
    ok $p->wait_log(qr/^\d+ 400 - - GET \/x HTTP\/1.1$/m, 'access.log'), 'without variables of TLS';
    $r = $p->get('/y?z', port => 'plain', host => 'h.test');
    is $r->status . ' ' . ($r->header('Location') // ''), '301 https://h.test/y?z', 'error_page 497';
    is $p->request('POST', '/x', body => 'x' x 100_000)->status, 400, 'with a body';
    my $x = $p->raw('main', "GET /x HTTP/1.1\r\nHost: a\r\n\r\n", piece => 1, count => 1);
    is $x->{responses}[0] && $x->{responses}[0]->status, 400, 'byte by byte';
}

# --- clients' certificates ------------------------------------------------------------------------------

for (
    ['verify.test', undef, 'none 200', 'on: none: error_page 496'],
    ['verify.test', 'client', 'SUCCESS', 'on: a good one'],
    ['verify.test', 'bad', qr/The SSL certificate error/, 'on: a revoked one'],
    ['verify.test', 'stranger', qr/The SSL certificate error/, 'on: a stranger'],
    ['plain.test', undef, qr/No required SSL certificate was sent/, 'on: none'],
    ['plain.test', 'bad', qr/SUCCESS/, 'without ssl_crl'],
    ['plain.test', 'client', qr/^CN=client,O=Org\\, Ltd,C=XX\|CN=ca\|\/C=XX\/O=Org, Ltd\/CN=client\|\/CN=ca\|SUCCESS\|29$/, 'names'],
    ['plain.test', 'deep', 'CN=deep|CN=middle|/CN=deep|/CN=middle|SUCCESS|29', 'an authority between'],
    ['optional.test', undef, 'NONE', 'optional: none'],
    ['optional.test', 'client', 'SUCCESS', 'optional: a good one'],
    ['optional.test', 'deep', 'SUCCESS', 'optional: a deep one'],
    ['optional.test', 'stranger', qr/The SSL certificate error/, 'optional: a stranger'],
    ['noca.test', undef, 'NONE', 'optional_no_ca: none'],
    ['noca.test', 'stranger', qr/^FAILED:self.signed certificate$/, 'optional_no_ca: a stranger'],
    ['noca.test', 'client', qr/^FAILED:unable to verify the first certificate$/, 'optional_no_ca: unknown authority'],
) {
    my ($name, $cert, $want, $what) = @$_;
    for my $version ('TLSv1_3', 'TLSv1_2') {
        my $r = $certs->get($main, '/', name => $name, cert => $cert, version => $version);
        ref $want ? like($r->body, $want, "$version: $what") : is($r->body, $want, "$version: $what");
    }
}
is $certs->get($main, '/none', name => 'a.test', cert => 'client')->body, '[||NONE]', 'not asked for';
for (['verify.test', 'CN = ca'], ['optional.test', ''], ['noca.test', '']) {
    # ssl_client_certificate is told to the client, ssl_trusted_certificate is not
    my ($name, $want) = @$_;
    for my $version ('-tls1_2', '-tls1_3') {
        my $out = `openssl s_client -connect 127.0.0.1:$main -servername $name $version </dev/null 2>/dev/null`;
        is $out =~ /^Acceptable client certificate CA names\n(.*)/m ? $1 : '', $want, "$version: authorities of $name";
    }
}
{
    my $only = $certs->path('client.only');
    my %want;
    for (qw(serial fingerprint startdate enddate)) { ($want{$_}) = `openssl x509 -in $only -noout -$_` =~ /=(.*)/ }
    ($want{fingerprint} = lc $want{fingerprint}) =~ s/://g;
    is $certs->get($main, '/serial', name => 'plain.test', cert => 'client')->body,
        "$want{serial} $want{fingerprint} $want{startdate} $want{enddate}", 'serial, fingerprint and times';
    my $pem = Proxyd::Certs::slurp($only);
    chomp(my $cut = $pem);
    is $certs->get($main, '/pem', name => 'plain.test', cert => 'client')->body, $pem, 'raw';
    (my $folded = $cut) =~ s/\n/\n\t/g;
    is $certs->get($main, '/folded', name => 'plain.test', cert => 'client')->body, $folded, 'for a header';
    (my $escaped = $pem) =~ s/([^A-Za-z0-9._~-])/sprintf '%%%02X', ord $1/ge;
    is $certs->get($main, '/escaped', name => 'plain.test', cert => 'client')->body, $escaped, 'escaped';
}
ok $p->wait_log(qr/\[info\] .*client sent no required SSL certificate while reading client request headers, client/), '496 in the log';
ok $p->wait_log(qr/\[info\] .*client SSL certificate verify error: \(23:certificate revoked\) while reading client request headers, client/), '495 in the log';
is $certs->get($main, '/', name => 'a.test', host => 'plain.test')->status, 421, 'a name that was not negotiated';
is $certs->get($main, '/', name => 'plain.test', host => 'verify.test', cert => 'client')->status, 421, 'nor this one';
is $certs->get($main, '/', name => 'PLAIN.test', host => 'plain.TEST', cert => 'client')->status, 200, 'capitals are no difference';
is $certs->get($main, '/who', name => 'plain.test', host => 'a.test')->status, 200, 'a server that asks for nothing';
is $certs->get($main, '/', name => undef, host => 'plain.test')->status, 400, 'without a name it is judged by the Host';
ok $p->wait_log(qr/client attempted to request the server name different from the one that was negotiated while reading client request headers/), '421 in the log';

# --- PROXY ----------------------------------------------------------------------------------------------

for my $piece (undef, 5) {
    my $c = Proxyd::Http::connect_to($p->port('proxy'));
    $c->send("PROXY TCP4 192.0.2.7 192.0.2.8 1000 443\r\n", piece => $piece);
    my $r = $certs->get($p->port('proxy'), '/', on => $c);
    is $r->body, '192.0.2.7 https', 'a PROXY header in front of TLS' . ($piece ? ', in pieces' : '');
}
{
    my $x = $p->raw('proxy', "PROXY TCP4 192.0.2.7 192.0.2.8 1000 443\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", count => 1);
    is $x->{responses}[0] && $x->{responses}[0]->status, 400, 'a PROXY header in front of a plain request';
    ok !$certs->connect($p->port('proxy')), 'no PROXY header';
    ok $p->wait_log(qr/\[error\] .*broken header: .* while reading PROXY protocol/), 'is logged';
}

# --- transfers -----------------------------------------------------------------------------------------

my $large = $p->read_file('html/large');
for my $name ('a.test', 'b.test') {
    ok $certs->get($main, '/large', name => $name)->body eq $large, "$name: a large file";
}
{
    my $c = $certs->connect($main, name => 'a.test');
    for my $i (1 .. 3) {
        $c->send("GET /conn HTTP/1.1\r\nHost: a.test\r\n\r\n");
        is $c->response->body, "$i . |", "kept alive: $i";
    }
    $c->send("GET /small HTTP/1.1\r\nHost: a.test\r\n\r\n" x 5);
    is join('', map { $c->response->body } 1 .. 5), "small\n" x 5, 'pipelined';
    $c->send("GET /large HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n");
    my $r = $c->response(timeout => 20);
    ok $r && $r->body eq $large, 'a large one behind them';
    $c->close;
    $c = $certs->connect($main, name => 'a.test');
    $c->send("GET /small HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n", piece => 1);
    is $c->response->body, "small\n", 'a request of tiny records';
    is sysread($c->sock, my $rest, 10), 0, 'and the end is announced';
    $c->close;
    my $body = 'x' x 300_000;
    $c = $certs->connect($main, name => 'a.test');
    $c->send("POST /echo HTTP/1.1\r\nHost: a.test\r\nContent-Length: 300000\r\nConnection: close\r\n\r\n$body");
    $r = $c->response(timeout => 20);
    is Proxyd::report($r)->{body_length} // length(Proxyd::report($r)->{body} // ''), 300_000, 'a large body';
    $c->close;
}
{
    # a client that reads late: what has been encrypted for it waits, and nothing is lost
    my $c = $certs->connect($main, name => 'a.test');
    $c->send("GET /large HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n");
    $p->get('/x') for 1 .. 5;
    my $r = $c->response(timeout => 20);
    ok $r && $r->body eq $large, 'a client that reads late';
    $c->close;
}

# --- hostile beginnings -----------------------------------------------------------------------------------

for (
    ["\x16\x03\x01\xff\xff" . 'x' x 70_000, 'a record that is too large'],
    ["\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00", 'a hello that is too short'],
    ["\x16\x03\x01\x00\x00" x 100, 'empty records'],
    ["\x80\x2e\x01\x00\x02" . 'x' x 100, 'a hello of SSLv2'],
    ["\x16" . 'garbage' x 1000, 'garbage'],
    ["\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" . "\xff" x 501, 'garbage in a hello'],
) {
    my ($bytes, $what) = @$_;
    my $x = $p->raw('main', $bytes);
    ok $x->{eof}, "$what: closed";
    $x = $p->raw('main', $bytes, piece => 3) if length $bytes < 500;
    ok $x->{eof}, "$what: closed, in pieces";
}
{
    my $hello;
    # a whole handshake byte by byte is the kernel's business; a hello in single segments is ours
    my $c = Proxyd::Http::connect_to($main);
    $c->send("\x16\x03");
    ok $p->wait_log(qr/\[info\] .*client timed out \(110: Connection timed out\) while SSL handshaking, client/, 'error.log', 5), 'a hello that does not go on';
    ok $p->wait_for(sub { !$c->fill }), 'is closed';
    $c->close;
    $c = Proxyd::Http::connect_to($main);
    $c->send("\x16\x03\x01\x00\x30");
    $c->close;
    ok $p->wait_log(qr/\[info\] .*peer closed connection in SSL handshake while SSL handshaking/), 'a client that goes away';
}
{
    # a client that wants to renegotiate is refused: the request behind it is never reached, or answered as it is
    open my $s, '|-', "openssl s_client -connect 127.0.0.1:$main -servername a.test -tls1_2 > @{[ $p->dir ]}/renegotiation 2>&1" or die $!;
    local $SIG{PIPE} = 'IGNORE';
    $s->autoflush(1);
    print $s "R\n";
    $p->wait_for(sub { ($p->read_file('renegotiation') // '') =~ /RENEGOTIATING\n.*\n/s }, 5);
    close $s;
    like $p->read_file('renegotiation'), qr/no renegotiation/, 'renegotiation is refused';
    is $certs->get($main, '/small', name => 'a.test')->status, 200, 'and all goes on';
}
unlike $p->error_log, qr/\[(?:crit|error)\](?!.*broken header)/, 'nothing is worse than info';
$p->stop;

# --- one address, servers with other authorities each: the first one's do not speak for the others ------------------------

{
    my $q     = Proxyd->new;
    my $their = Proxyd::Certs->new($q->dir . '/certs');
    $their->make('server');
    $their->make('ca2', ca => 1);
    $their->make('one');
    $their->make('two', by => 'ca2');
    $q->write_conf(<<'EOT');
http {
    ssl_certificate certs/server.crt;
    ssl_certificate_key certs/server.key;
    ssl_verify_client on;
    ssl_client_certificate certs/ca.crt;
    server { listen 127.0.0.1:{{port}} ssl; server_name a.test; return 200 a; }
    server { listen 127.0.0.1:{{port}} ssl; server_name b.test; ssl_client_certificate certs/ca2.crt; return 200 b; }
    server { listen 127.0.0.1:{{port}} ssl; server_name c.test; return 200 c; }
}
EOT
    $q->start;
    my %want = (a => { one => 200, two => 400 }, b => { one => 400, two => 200 }, c => { one => 200, two => 400 });
    for my $host (qw(a b c)) {
        for my $cert (qw(one two)) {
            my %o = (host => "$host.test", cert => $cert);
            is $their->get('127.0.0.1:' . $q->port, '/', %o, name => "$host.test")->status, $want{$host}{$cert}, "$host for $cert, by name";
            my $nameless = $cert eq 'two' ? 400 : $host eq 'b' ? 421 : 200;
            is $their->get('127.0.0.1:' . $q->port, '/', %o)->status, $nameless, 'without';
            is $their->get('127.0.0.1:' . $q->port, '/', %o, name => 'x.test')->status, $nameless, 'and with one that nobody has';
        }
    }
    $q->stop;
}

done_testing;
