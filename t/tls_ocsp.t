# SPDX-License-Identifier: BSD-2-Clause
#
# OCSP: what is stapled to the server's certificates. The responder's answers
# are made by openssl; the first part of the path says what is wrong with them.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/lib";
use MIME::Base64 qw(decode_base64);
use Test::More;
use Proxyd;
use Proxyd::Certs;

my $p     = Proxyd->new;
my $certs = Proxyd::Certs->new($p->dir . '/certs');
my $port  = $p->port('responder');
my $dead  = $p->port('dead');
my $aia   = sub { "authorityInfoAccess=OCSP;URI:http://127.0.0.1:$port/$_[0]" };

$certs->make('named', names => ['named.test'], ext => $aia->('plain') . "\ntlsfeature=status_request");
$certs->make('signer', ext => 'extendedKeyUsage=OCSPSigning');
$certs->make('usurper', by => 'self', ext => 'extendedKeyUsage=OCSPSigning');
$certs->make('bare');
my %status = (named => 'V', bare => 'V');

# Another clock for openssl, so that what it says is over.
$p->write_file('past.c', "#include <time.h>\ntime_t time(time_t *t) { struct timespec s; clock_gettime(CLOCK_REALTIME, &s);"
        . " s.tv_sec -= 86400; if (t) *t = s.tv_sec; return s.tv_sec; }\n");
my $past = $p->dir . '/past.so';
my $have_past = system("cc -shared -fPIC -o $past @{[ $p->dir ]}/past.c 2>/dev/null") == 0;

my $n = 0;
my $answer = sub {
    my ($c) = @_;
    my $req = $c->request or return;
    my ($mode, $base64) = $req->{uri} =~ m{^/(\w+)/(.+)$} or return;
    return if $mode eq 'cut';
    $base64 =~ s/%([0-9A-F]{2})/chr hex $1/ge;
    my $file = $p->dir . "/request.$c->{n}";
    open my $fh, '>', $file or die;
    print $fh decode_base64($base64);
    close $fh;
    my %o = (status => { %status, $mode eq 'sick' ? (bare => 'R') : () });
    $o{env}     = { LD_PRELOAD => $past, ASAN_OPTIONS => 'verify_asan_link_order=0' } if $mode eq 'past';
    $o{by}      = $mode if $mode eq 'signer' || $mode eq 'usurper';
    $o{openssl} = ['-badsig', '-nmin', 60] if $mode eq 'forged';
    $o{status}  = {} if $mode eq 'unknown';
    my $der = $certs->ocsp_answer('ca', $file, %o);
    if ($req->{h}{host} ne "127.0.0.1:$port") { $der = 'no host' }
    $der = 'garbage' if $mode eq 'garbage';
    $der .= 'x'      if $mode eq 'trailing';
    $der = 'x' x 70_000 if $mode eq 'large';
    my $type = $mode eq 'type' ? 'text/html' : 'application/ocsp-response';
    my $code = $mode eq 'error' ? '503 No' : '200 OK';
    my $length = $mode eq 'eof' || $mode eq 'large' ? '' : 'Content-Length: ' . (length($der) + ($mode eq 'short' ? 1 : 0)) . "\r\n";
    $length = "Transfer-Encoding: chunked\r\n" if $mode eq 'chunked';
    my $all = "HTTP/1.0 $code\r\nContent-Type: $type\r\n$length\r\n$der";
    if ($mode eq 'slow') { $c->write(substr $all, 0, 30); $c->wait_close(30); return }
    if ($mode eq 'pieces') { $c->write($_) for split //, $all; return }
    $c->write($all);
};
my $origin = $p->origin('responder', $answer);

# NAME => [first part of the path, certificate, what s_client sees, what the log says]
my @bad = (
    ['garbage',  qr/d2i_OCSP_RESPONSE\(\) failed/],
    ['trailing', qr/trailing bytes behind the OCSP response/],
    ['large',    qr/OCSP responder sent too large response/],
    ['type',     qr{OCSP responder sent invalid "Content-Type" header: "text/html"}],
    ['error',    qr/OCSP responder sent invalid response/],
    ['chunked',  qr/OCSP responder sent invalid response/],
    ['short',    qr/OCSP responder prematurely closed connection/],
    ['cut',      qr/OCSP responder prematurely closed connection/],
    ['forged',   qr/OCSP_basic_verify\(\) failed \(SSL:/],
    ['usurper',  qr/OCSP_basic_verify\(\) failed \(SSL:/],
    ['unknown',  qr/certificate status "unknown" in the OCSP response/],
    ['sick',     qr/certificate status "revoked" in the OCSP response/],
    $have_past ? ['past', qr/OCSP_check_validity\(\) failed/] : (),
    ['slow',     undef],
);
my @good = qw(plain eof pieces signer);
my $servers = '';
for my $mode (@good, map { $_->[0] } @bad) {
    my $verify = $mode eq 'usurper' || $mode eq 'signer' ? 'on' : 'off';
    $servers .= "server { listen 127.0.0.1:{{port}} ssl; server_name $mode.test; ssl_certificate certs/bare.crt; "
        . "ssl_certificate_key certs/bare.key; ssl_stapling_verify $verify; "
        . "ssl_stapling_responder http://127.0.0.1:$port/$mode; }\n";
}
my $request = $p->dir . '/fixed.request';
Proxyd::Certs::run('openssl', 'ocsp', '-issuer', $certs->path('ca.only'), '-cert', $certs->path('bare.only'), '-no_nonce',
    '-reqout', $request);
$p->write_file('certs/fixed.der', $certs->ocsp_answer('ca', $request, status => \%status));
$p->write_file('certs/over.der', $certs->ocsp_answer('ca', $request, status => \%status,
    env => { LD_PRELOAD => $past })) if $have_past;
for my $file ('fixed', $have_past ? 'over' : ()) {
    $servers .= "server { listen 127.0.0.1:{{port}} ssl; server_name $file.test; ssl_certificate certs/bare.crt; "
        . "ssl_certificate_key certs/bare.key; ssl_stapling_file certs/$file.der; }\n";
}

$p->write_conf(<<"EOT");
worker_processes 3;
error_log {{dir}}/error.log info;
http {
    ssl_trusted_certificate certs/ca.only;
    ssl_stapling on;
    server {
        listen 127.0.0.1:{{port}} ssl;
        server_name named.test;
        ssl_certificate certs/named.crt;
        ssl_certificate_key certs/named.key;
    }
    server {
        listen 127.0.0.1:{{port}} ssl;
        server_name off.test;
        ssl_certificate certs/named.crt;
        ssl_certificate_key certs/named.key;
        ssl_stapling off;
    }
    server {
        listen 127.0.0.1:{{port}} ssl;
        server_name dead.test;
        ssl_certificate certs/bare.crt;
        ssl_certificate_key certs/bare.key;
        ssl_stapling_responder http://127.0.0.1:$dead/;
    }
    $servers
}
EOT
my %kept = map { $_ => Proxyd::Certs::slurp($certs->path($_)) } qw(ca.only bare.crt bare.key usurper.crt usurper.key usurper.only);
$p->start;
my $main = $p->port('main');

# What is stapled for a name: the response's words, or '' if nothing is.
sub stapled {
    my ($name, @args) = @_;
    my $out = `openssl s_client -status -connect 127.0.0.1:$main -servername $name @args < /dev/null 2>/dev/null`;
    return $out =~ /OCSP response: no response sent/ ? '' : $out =~ /(OCSP Response Status.*?Next Update.*?\n)/s ? $1 : "?$out";
}

for my $mode ('named', @good) {
    ok $p->wait_for(sub { stapled("$mode.test") =~ /successful.*Cert Status: good/s }), "$mode: stapled";
    # Another worker may learn of the response a moment later.
    ok $p->wait_for(sub { stapled("$mode.test", '-tls1_2') =~ /Cert Status: good/ }), "$mode: by TLS 1.2";
}
is stapled('off.test'), '', 'off';
like stapled('fixed.test'), qr/Cert Status: good/, 'a file';
is stapled('over.test'), '', 'a file whose time is over' if $have_past;
for (@bad) {
    my ($mode, $says) = @$_;
    ok $p->wait_log(qr{\[error\] [^\n]*$says[^\n]* while requesting certificate status, responder: 127.0.0.1, peer: 127.0.0.1:$port, certificate: "[^"]*certs/bare.crt"}, 'error.log', 15), "$mode: logged" if $says;
    is stapled("$mode.test"), '', "$mode: nothing is stapled";
}
ok $p->wait_log(qr/connect\(\) failed \(111: Connection refused\) while requesting certificate status, responder: 127.0.0.1, peer: 127.0.0.1:$dead/), 'a dead one: logged';
is stapled('dead.test'), '', 'a dead one: nothing is stapled';
{
    # one question serves all workers, and those of the next configuration
    my @asked = $origin->lines(qr{R .*/plain/});
    is scalar @asked, 2, 'one question a certificate';
    my $before = $origin->connections;
    my $waiting = $origin->lines(qr{R .*/slow/}); # a responder keeps a worker waiting
    $p->reload;
    ok $p->wait_for(sub { stapled('plain.test') =~ /good/ }), 'after a reload';
    ok $p->wait_for(sub { $origin->lines(qr{R .*/slow/}) > $waiting }, 10), 'after a reload it is asked by those who stay';
    like stapled('named.test'), qr/good/, 'after a reload, another';
}
$p->origin("127.0.0.1:$dead", sub {
    my ($c) = @_;
    my $req = $c->request or return;
    my ($base64) = $req->{uri} =~ m{^/(.+)$} or return;
    $base64 =~ s/%([0-9A-F]{2})/chr hex $1/ge;
    my $file = $p->dir . "/late.$c->{n}";
    open my $fh, '>', $file or die;
    print $fh decode_base64($base64);
    close $fh;
    $c->write("HTTP/1.1 200 OK\r\ncontent-type: application/ocsp-response\r\n\r\n" . $certs->ocsp_answer('ca', $file, status => \%status));
});
ok $p->wait_for(sub { stapled('dead.test') =~ /good/ }, 20), 'a dead one that has come to life is asked again';
$p->stop;

# --- what -t says: certificates that nothing can be stapled to are good without ----------------------------

for (
    ['bare', '', qr/\[warn\] "ssl_stapling" ignored, no OCSP responder URL in the certificate "[^"]*bare\.crt"/],
    ['usurper', 'ssl_stapling_responder http://127.0.0.1/;', qr//],
    ['bare', 'ssl_stapling_responder https://127.0.0.1/;', qr/\[warn\] "ssl_stapling" ignored, invalid URL prefix in OCSP responder "https:\/\/127.0.0.1\/" in the certificate "/],
    ['bare', 'ssl_stapling_responder http:///x;', qr/\[warn\] "ssl_stapling" ignored, no host in OCSP responder "/],
    ['bare', 'ssl_stapling_responder http://127.0.0.1:0/;', qr/\[warn\] "ssl_stapling" ignored, invalid port in OCSP responder "/],
    ['bare', 'ssl_stapling_responder http://a@b/;', qr/\[warn\] "ssl_stapling" ignored, invalid host in OCSP responder "/],
    ['bare', 'ssl_stapling_file certs/bare.crt;', qr/\[emerg\] d2i_OCSP_RESPONSE_bio\("[^"]*bare\.crt"\) failed/],
    ['bare', 'ssl_stapling_file certs/none;', qr/\[emerg\] BIO_new_file\("[^"]*none"\) failed/],
    ['bare', 'ssl_trusted_certificate certs/usurper.only;', qr/\[warn\] "ssl_stapling" ignored, issuer certificate not found for certificate "/],
) {
    my ($cert, $more, $says) = @$_;
    my $q = Proxyd->new;
    mkdir $q->dir . '/certs';
    $q->write_file("certs/$_", $kept{$_}) for keys %kept;
    $q->write_conf("http { @{[ $more =~ /trusted/ ? '' : 'ssl_trusted_certificate certs/ca.only;' ]} server { listen 127.0.0.1:{{port}} ssl; ssl_stapling on; ssl_certificate certs/$cert.crt; "
        . "ssl_certificate_key certs/$cert.key; $more } }");
    my $r = $q->run(add => ['-t']);
    like $r->{err}, $says, "$cert $more";
    is $r->{err} =~ /\[emerg\]/ ? 1 : 0, "$says" =~ /emerg/ ? 1 : 0, 'an error or not';
}

done_testing;
