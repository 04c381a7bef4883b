# SPDX-License-Identifier: BSD-2-Clause
#
# Records on the wire, as openssl, gnutls-cli and curl read them: pieces of random sizes through each cipher, what a client asks of their
# size (RFC 6066), RecordPadding, KTLS switched off, ends of answers, aborted ones.
use strict;
use warnings;
no warnings 'exec';
use Digest::SHA qw(sha256_hex);
use FindBin;
use lib "$FindBin::Bin/lib";
use Test::More;
use Proxyd;
use Proxyd::Certs;

plan skip_all => 'proxyd only' if Proxyd::is_nginx();
sub which { my ($n) = @_; for (split /:/, $ENV{PATH}) { return "$_/$n" if -x "$_/$n" } return }
my $p     = Proxyd->new;
my $certs = Proxyd::Certs->new($p->dir . '/certs');
$certs->make('a', names => ['a.test']);
my $size = 1_200_000;
my $large = join '', map { pack 'N', $_ * 2654435761 % 4294967296 } 1 .. $size / 4;
my $sum = sha256_hex($large);
$p->write_file('html/large', $large);
$p->write_file('html/small', "small\n" x 30);

$p->write_conf(<<'EOT');
http {
    root {{dir}}/html;
    ssl_certificate certs/a.crt;
    ssl_certificate_key certs/a.key;
    ssl_ciphers ALL:@SECLEVEL=0;
    log_format main "$status $bytes_sent $body_bytes_sent $request_uri";
    access_log {{dir}}/access.log main;
    proxy_buffering off;
    proxy_http_version 1.1;

    server {
        listen 127.0.0.1:{{port}} ssl;
        location /pieces { proxy_pass http://127.0.0.1:{{port:pieces}}; }
        location /again { proxy_pass https://127.0.0.1:{{port}}/pieces; }
        location /slow { alias html/large; limit_rate 2m; limit_rate_after 100k; }
    }
    server {
        listen 127.0.0.1:{{port:padded}} ssl;
        ssl_conf_command RecordPadding 512;
    }
    server {
        listen 127.0.0.1:{{port:own}} ssl;
        ssl_conf_command Options -KTLS;
    }
    # Where the kernel can encrypt, it does; else all is as ever. What it does then: t/tls_kernel.t.
    server {
        listen 127.0.0.1:{{port:kernel}} ssl;
        sendfile on;
        ssl_conf_command Options PrioritizeChaCha,KTLS;
    }
    server {
        listen 127.0.0.1:{{port:both}} ssl;
        ssl_conf_command RecordPadding 512;
        ssl_conf_command Options +ktls;
    }
}
EOT

# Pieces of any size, most of them small.
$p->origin('pieces', sub {
    my ($conn) = @_;
    srand 7;
    while (my $r = $conn->request) {
        $conn->write("HTTP/1.1 200 OK\r\nContent-Length: $size\r\n\r\n");
        for (my $at = 0, my $n; $at < $size; $at += $n) {
            $n = 1 + int rand((1, 30, 1500, 20000, 90000)[rand 5]);
            $n = $size - $at if $n > $size - $at;
            $conn->write(substr $large, $at, $n);
        }
    }
});
$p->start;

# What a client writes to its output, behind the head.
sub body_of { my ($out) = @_; return $out =~ /\r\n\r\n(.*)/s ? $1 : "nothing: $out" }

sub s_client {
    my ($port, $path, @how) = @_;
    my $file = $p->dir . '/request';
    $p->write_file('request', "GET $path HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n");
    return join '', `openssl s_client -connect 127.0.0.1:@{[ $p->port($port) ]} -servername a.test -quiet -ign_eof @how < $file 2>/dev/null`;
}

my @ciphers = (
    ['-tls1_3 -ciphersuites TLS_AES_128_GCM_SHA256',       '+VERS-TLS1.3:+AES-128-GCM'],
    ['-tls1_3 -ciphersuites TLS_AES_256_GCM_SHA384',       '+VERS-TLS1.3:+AES-256-GCM'],
    ['-tls1_3 -ciphersuites TLS_CHACHA20_POLY1305_SHA256', '+VERS-TLS1.3:+CHACHA20-POLY1305'],
    ['-tls1_2 -cipher ECDHE-ECDSA-AES128-GCM-SHA256',      '+VERS-TLS1.2:+AES-128-GCM'],
    ['-tls1_2 -cipher ECDHE-ECDSA-AES256-GCM-SHA384',      '+VERS-TLS1.2:+AES-256-GCM'],
    ['-tls1_2 -cipher ECDHE-ECDSA-CHACHA20-POLY1305',      '+VERS-TLS1.2:+CHACHA20-POLY1305'],
    ['-tls1_2 -cipher ECDHE-ECDSA-AES128-CCM',             '+VERS-TLS1.2:+AES-128-CCM'],
    ['-tls1_2 -cipher ECDHE-ECDSA-AES128-SHA256',          '+VERS-TLS1.2:+AES-128-CBC:+SHA256'],
);
for (@ciphers) {
    my ($openssl, $gnutls) = @$_;
    is sha256_hex(body_of(s_client('main', $_, $openssl))), $sum, "$openssl: $_" for qw(/large /pieces /again);
  SKIP: {
        skip 'gnutls-cli is not installed', 1 unless which('gnutls-cli');
        for my $path ('/pieces') {
            $p->write_file('request', "GET $path HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n");
            # Its input must not end before the answer does, and what it says of the session goes elsewhere.
            my $said = $p->dir . '/said';
            my $out = join '', `(cat @{[ $p->dir ]}/request; sleep 30 & echo \$! > @{[ $p->dir ]}/sleep; wait) | (gnutls-cli --insecure --logfile=$said --priority 'NONE:+ECDHE-ECDSA:+AEAD:+SIGN-ALL:+GROUP-ALL:+CTYPE-X509:$gnutls' -p @{[ $p->port('main') ]} 127.0.0.1 2>/dev/null; kill \$(cat @{[ $p->dir ]}/sleep))`;
            is sha256_hex(body_of($out)), $sum, "gnutls-cli, $gnutls: $path";
        }
    }
}

# A client's wish, RFC 6066: s_client ends with an alert where a record is larger.
for my $version ('-tls1_2', '-tls1_3') {
    for my $length (512, 1024, 2048, 4096) {
        is sha256_hex(body_of(s_client('main', '/large', $version, "-maxfraglen $length"))), $sum, "$version -maxfraglen $length";
    }
}

# Lengths of encrypted records that come.
sub lengths {
    my ($port, @how) = @_;
    my $out = s_client($port, '/small', '-msg', @how);
    return map { hex(join '', split ' ', $_) } $out =~ /^<<<[^\n]*RecordHeader[^\n]*\n\s+17 03 03 (\w\w \w\w)/mg;
}
ok !(grep { ($_ - 16) % 512 } lengths('padded', '-tls1_3')), 'RecordPadding: all records are as long as multiples of 512';
ok scalar(lengths('padded', '-tls1_3')), 'there are some';
ok scalar(grep { ($_ - 16) % 512 } lengths('main', '-tls1_3')), 'else they are as long as they are';
is body_of(s_client('own', '/small', $_)), "small\n" x 30, "Options -KTLS, $_" for '-tls1_2', '-tls1_3';

is sha256_hex(body_of(s_client($_->[0], '/large', $_->[1]))), $sum, "Options KTLS, @$_"
    for map { my $port = $_; map { [$port, $_] } '-tls1_2', '-tls1_3' } qw(kernel both);
ok !(grep { ($_ - 16) % 512 } lengths('both', '-tls1_3')), '... and padded where that is asked for, too';
{
    my $r = $p->run(add => ['-t']);
    like $r->{err}, qr/\[warn\] "Options KTLS" is ignored: the kernel pads no records, as "RecordPadding" wants it in \S+:\d+\n/, 'as -t warns';
    my @told = $p->error_log =~ /\[notice\] [^\n]*kTLS is not used: setsockopt\(TCP_ULP, "tls"\) failed/g;
    cmp_ok scalar(@told), '<=', 1, 'that the kernel cannot is told once';
    ok @told || -d '/sys/module/tls' || grep({ /\stls_/ } do { open my $fh, '<', '/proc/kallsyms'; <$fh> }), '... if it cannot';
}

SKIP: {
    skip 'curl is not installed', 4 unless which('curl');
    for my $version ('--tlsv1.3', '--tls-max 1.2') {
        is sha256_hex(join '', `curl -sk $version --http1.1 https://127.0.0.1:@{[ $p->port('main') ]}/slow`), $sum, "curl $version: a slow one";
        like join('', `curl -skI $version --http1.1 -H 'Connection: close' https://127.0.0.1:@{[ $p->port('main') ]}/large`),
            qr{^HTTP/1.1 200 OK\r\n.*Content-Length: $size\r\n}s, "curl $version: a head";
    }
}

# Clients that go in the midst of records; the count is of what they could have had.
for my $n (1 .. 20) {
    my $c = $certs->connect($p->port('main'));
    $c->send("GET /large HTTP/1.1\r\nHost: a.test\r\n\r\n");
    sysread $c->sock, my $some, 100 * $n;
    $c->close;
}
is sha256_hex(body_of(s_client('main', '/large'))), $sum, 'after clients that went';
ok !(grep { my ($sent, $body) = /^200 (\d+) (\d+)/; $body > $size || $sent < $body } split /\n/, $p->access_log), 'bytes that were sent';

$p->stop;
done_testing();
