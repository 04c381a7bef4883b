# SPDX-License-Identifier: BSD-2-Clause
#
# What -t says of certificates, keys and parameters that cannot be used: nginx's words, and the line; and
# that nothing of it is read with --offline. Cases without files are in t/golden/tls_*.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/lib";
use Test::More;
use Proxyd;
use Proxyd::Certs;

my $p     = Proxyd->new;
my $certs = Proxyd::Certs->new($p->dir . '/certs');
$certs->make('a');
$certs->make('b');
$certs->make('locked', password => 'secret');
$p->write_file('certs/not.pem', "not a certificate\n");
$p->write_file('certs/wrong',   "wrong\n");
$p->write_file('certs/right',   "wrong\nsecret\r\n");
$p->write_file('certs/broken.crt', Proxyd::Certs::slurp($certs->path('a.crt'))
        . "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
my $dir = $p->dir;

sub verdict {
    my ($text, @add) = @_;
    $p->write_file('proxyd.conf', $p->expand("pid {{dir}}/pid; error_log stderr; events {}\n"
            . "http { access_log off;\nserver { listen 127.0.0.1:{{port}} ssl;\n$text\n} }\n"));
    my $r = $p->run(add => ['-t', @add]);
    my ($line) = $r->{err} =~ /\[emerg\] (.*)/;
    $line //= $r->{err} =~ /test is successful/ ? 'good' : $r->{err};
    $line =~ s/\Q$dir\E/DIR/g;
    return $line;
}

my $pair = 'ssl_certificate certs/a.crt; ssl_certificate_key certs/a.key;';
my $at   = 'in DIR/proxyd.conf:4';
for (
    [$pair, 'good'],
    ['ssl_certificate certs/a.crt;', "no \"ssl_certificate_key\" is defined for certificate \"DIR/certs/a.crt\" $at"],
    ["$pair ssl_certificate certs/b.crt;", "no \"ssl_certificate_key\" is defined for certificate \"DIR/certs/b.crt\" $at"],
    ['ssl_certificate certs/a.crt; ssl_certificate_key certs/no.key;', qr{^cannot load certificate key "DIR/certs/no\.key": BIO_new_file\(\) failed \(SSL: error:80000002:system library::No such file or directory:calling fopen\(DIR/certs/no\.key, r\) error:10000080:BIO routines::no such file\) \Q$at\E$}],
    ['ssl_certificate certs/a.crt; ssl_certificate_key certs/b.key;', qr{^SSL_CTX_use_PrivateKey\("DIR/certs/b\.key"\) failed \(SSL: error:05800074:x509 certificate routines::key values mismatch\) \Q$at\E$}],
    ['ssl_certificate certs/not.pem; ssl_certificate_key certs/a.key;', qr{^cannot load certificate "DIR/certs/not\.pem": PEM_read_bio_X509_AUX\(\) failed \(SSL: error:0480006C:PEM routines::no start line:Expecting: TRUSTED CERTIFICATE\) \Q$at\E$}],
    ['ssl_certificate certs/broken.crt; ssl_certificate_key certs/a.key;', qr{^cannot load certificate "DIR/certs/broken\.crt": PEM_read_bio_X509\(\) failed \(SSL: .*\) \Q$at\E$}],
    ['ssl_certificate certs/a.crt; ssl_certificate_key certs/not.pem;', qr{^cannot load certificate key "DIR/certs/not\.pem": PEM_read_bio_PrivateKey\(\) failed \(SSL: .*\) \Q$at\E$}],
    ['ssl_certificate certs/locked.crt; ssl_certificate_key certs/locked.key; ssl_password_file certs/right;', 'good'],
    ['ssl_certificate certs/locked.crt; ssl_certificate_key certs/locked.key; ssl_password_file certs/wrong;', qr{^cannot load certificate key "DIR/certs/locked\.key": PEM_read_bio_PrivateKey\(\) failed \(SSL: .*bad decrypt.*\) \Q$at\E$}],
    ['ssl_certificate data:nothing; ssl_certificate_key certs/a.key;', qr{^cannot load certificate "data:nothing": PEM_read_bio_X509_AUX\(\) failed}],
    ['ssl_certificate certs/a.crt; ssl_certificate_key store:DIR/certs/a.key;', 'good'],
    ['ssl_certificate certs/a.crt; ssl_certificate_key store:DIR/certs/none;', qr{^cannot load certificate key "store:DIR/certs/none": OSSL_STORE_\w+\(\) failed}],
    ['ssl_certificate certs/a.crt; ssl_certificate_key engine:pkcs11:id;', qr{^engines are not supported, OpenSSL 3 has providers \("store:…"\) in their place \Q$at\E$}],
    ["$pair ssl_ciphers none-such;", "SSL_CTX_set_cipher_list(\"none-such\") failed (SSL: error:0A0000B9:SSL routines::no cipher match) $at"],
    ["$pair ssl_ciphers '';", qr{^SSL_CTX_set_cipher_list\(""\) failed \(SSL: .*no cipher match\) \Q$at\E$}],
    ["$pair ssl_ecdh_curve '';", qr{^SSL_CTX_set1_curves_list\(""\) failed \Q$at\E$}],
    ["$pair ssl_client_certificate certs/none;", 'good'],
    ["$pair ssl_conf_command Certificate certs/b.crt; ssl_conf_command PrivateKey certs/b.key;", 'good'],
    ["$pair ssl_conf_command Certificate certs/none;", qr{^SSL_CONF_cmd\("Certificate", "certs/none"\) failed \(SSL: .*DIR/certs/none}],
    ["$pair ssl_ecdh_curve none-such;", qr{^SSL_CTX_set1_curves_list\("none-such"\) failed \(SSL: .*\) \Q$at\E$}],
    ["$pair ssl_dhparam certs/none;", qr{^BIO_new_file\("DIR/certs/none"\) failed \(SSL: .*\) \Q$at\E$}],
    ["$pair ssl_dhparam certs/not.pem;", qr{^PEM_read_bio_DHparams\("DIR/certs/not\.pem"\) failed \(SSL: .*\) \Q$at\E$}],
    ["$pair ssl_conf_command Nothing on;", qr{^SSL_CONF_cmd\("Nothing", "on"\) failed \(SSL: .*cmd=Nothing\) \Q$at\E$}],
    ["$pair ssl_conf_command Options Nothing;", qr{^SSL_CONF_cmd\("Options", "Nothing"\) failed \(SSL: .*\) \Q$at\E$}],
    ["$pair ssl_conf_command Options -SessionTicket; ssl_conf_command MinProtocol TLSv1.2;", 'good'],
    ["$pair ssl_verify_client on;", 'no ssl_client_certificate for ssl_verify_client in DIR/proxyd.conf:3'],
    ["$pair ssl_verify_client optional;", 'no ssl_client_certificate for ssl_verify_client in DIR/proxyd.conf:3'],
    ["$pair ssl_verify_client optional_no_ca;", 'good'],
    ["$pair ssl_verify_client on; ssl_trusted_certificate certs/ca.crt;", 'good'],
    ["$pair ssl_verify_client on; ssl_client_certificate certs/none;", qr{^SSL_CTX_load_verify_locations\("DIR/certs/none"\) failed \(SSL: .*\) \Q$at\E$}],
    ["$pair ssl_ocsp leaf; ssl_verify_client optional_no_ca;", '"ssl_ocsp" is incompatible with "ssl_verify_client optional_no_ca" in DIR/proxyd.conf:3'],
    ["$pair ssl_ocsp on;", 'good'],
    ["$pair ssl_ocsp on; ssl_verify_client on;", 'no ssl_client_certificate for ssl_verify_client in DIR/proxyd.conf:3'],
    ["$pair ssl_ocsp on; ssl_verify_client on; ssl_client_certificate certs/ca.crt;", 'good'],
    ["$pair ssl_ocsp on; ssl_ocsp_responder https://a/;", "invalid URL prefix in OCSP responder \"https://a/\" in \"ssl_ocsp_responder\" $at"],
    ["$pair ssl_ocsp on; ssl_ocsp_responder http:///;", "no host in OCSP responder \"/\" in \"ssl_ocsp_responder\" $at"],
    ["$pair ssl_ocsp on; ssl_ocsp_responder http://127.0.0.1:0/;", "invalid port in OCSP responder \"127.0.0.1:0/\" in \"ssl_ocsp_responder\" $at"],
    ["$pair ssl_ocsp on; ssl_ocsp_responder http://none.invalid/;", "host not found in OCSP responder \"none.invalid/\" in \"ssl_ocsp_responder\" $at"],
    ["$pair ssl_ocsp off; ssl_ocsp_responder https://a/;", 'good'],
    ["$pair ssl_trusted_certificate certs/none;", qr{^SSL_CTX_load_verify_locations\("DIR/certs/none"\) failed \(SSL: .*\) \Q$at\E$}],
    ["$pair ssl_crl certs/none;", qr{^X509_LOOKUP_load_file\("DIR/certs/none"\) failed \(SSL: .*\) \Q$at\E$}],
    ["$pair } server { listen 127.0.0.1:{{port}} ssl; server_name b;", 'good'],
    ["$pair ssl_reject_handshake on;", 'good'],
) {
    my ($text, $want) = @$_;
    (my $written = $text) =~ s/DIR/$dir/g;
    my $got = verdict($written);
    ref $want ? like($got, $want, $text) : is($got, $want, $text);
}
is verdict('ssl_certificate certs/none; ssl_certificate_key certs/none; ssl_password_file certs/none; ssl_dhparam none;', '--offline'),
    'good', '--offline reads none of it';

# --- a key of another type than its certificate -------------------------------------------------------

# The library pairs them by type: that is no error, and in the end it may even be right.
$certs->make('rsa', key => 'rsa');
for (
    ['a', 'rsa', 'certificate "DIR/certs/a.crt" cannot be used: no certificate key of its type is defined, "DIR/certs/rsa.key" is of another one in DIR/proxyd.conf:4'],
    ['rsa', 'a', 'certificate "DIR/certs/rsa.crt" cannot be used: no certificate key of its type is defined, "DIR/certs/a.key" is of another one in DIR/proxyd.conf:4'],
    ['rsa', 'rsa', undef, 'a', 'rsa', 'certificate "DIR/certs/a.crt" cannot be used: no certificate key of its type is defined, "DIR/certs/rsa.key" is of another one in DIR/proxyd.conf:4'],
    ['a', 'rsa', undef, 'rsa', 'a'],
    ['a', 'a', undef, 'b', 'b', undef, 'rsa', 'rsa'],
) {
    my ($text, @want) = ('');
    for (my @pairs = @$_; my ($certificate, $key, $warning) = splice @pairs, 0, 3;) {
        $text .= "ssl_certificate certs/$certificate.crt; ssl_certificate_key certs/$key.key; ";
        push @want, $warning // ();
    }
    is verdict($text), 'good', "$text is no error";
    my $err = $p->run(add => ['-t'])->{err} =~ s/\Q$dir\E/DIR/gr;
    is_deeply [grep { /cannot be used/ } $err =~ /\[warn\] (.*)/g], \@want, 'but said';
}
$p->discard;

done_testing;
