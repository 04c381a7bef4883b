# SPDX-License-Identifier: BSD-2-Clause
#
# Requests over TLS to Debian's nginx and to the server under test: variables, clients' certificates, plain
# requests on a TLS port, servers by name.  Not compared: $ssl_curve (not in nginx 1.22 without its patch level),
# a 421's keep-alive, and settings of the named server that nginx 1.22 takes from the default one (protocols, curves).
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/lib";
use File::Temp;
use Socket qw(AF_UNIX SOCK_STREAM);
use Test::More;
use Proxyd;
use Proxyd::Certs;
use Proxyd::Differential;

plan skip_all => 'no nginx here' unless Proxyd::Differential::available();

my $dir   = File::Temp::tempdir(CLEANUP => 1);
my $certs = Proxyd::Certs->new("$dir/certs");
chmod 0755, $dir;
$certs->make('a');
$certs->make('b', key => 'rsa');
$certs->make('client', subject => '/C=XX/O=Org, "Ltd"+x/CN=client');
$certs->make('middle', ca => 1, by => 'ca');
$certs->make('deep', by => 'middle');
$certs->make('deeper', ca => 1, by => 'middle');
$certs->make('deepest', by => 'deeper');
$certs->make('stranger', by => 'self');

my $values = join '|', map { "$_=\$$_" } qw(scheme https ssl_protocol ssl_cipher ssl_ciphers ssl_curves ssl_server_name ssl_session_reused
    ssl_alpn_protocol ssl_early_data server_name status);
my $client = join '|', map { "$_=\$ssl_client_$_" } qw(verify s_dn i_dn s_dn_legacy i_dn_legacy serial fingerprint v_start v_end v_remain
    raw_cert cert escaped_cert);
my ($tested, $theirs) = Proxyd::Differential::start(conf => <<"EOT");
http {
    root {{dir}}/html;
    default_type text/plain;
    ssl_certificate $dir/certs/a.crt;
    ssl_certificate_key $dir/certs/a.key;
    ssl_protocols TLSv1.2 TLSv1.3;
    ssl_client_certificate $dir/certs/ca.crt;
    server {
        listen 127.0.0.1:{{port}} ssl;
        server_name a.test;
        error_page 497 = /plain;
        location / { return 200 "$values"; }
        location /redirect { return 301 /other; }
        location /plain { return 200 "plain \$scheme \$request_uri \$https \$ssl_protocol \$status"; }
        location /client { return 200 "$client"; }
    }
    server {
        listen 127.0.0.1:{{port}} ssl;
        server_name b.test *.b.test ~^r\\d+\\.;
        ssl_certificate $dir/certs/b.crt;
        ssl_certificate_key $dir/certs/b.key;
        location / { return 200 "$values"; }
    }
    server {
        listen 127.0.0.1:{{port}} ssl;
        server_name on.test;
        ssl_verify_client on;
        location / { return 200 "$client"; }
    }
    server {
        listen 127.0.0.1:{{port}} ssl;
        server_name deep.test;
        ssl_verify_client optional;
        ssl_verify_depth 2;
        error_page 495 496 /page;
        location / { return 200 "$client"; }
        location /page { return 200 "page \$status \$ssl_client_verify"; }
    }
    server {
        listen 127.0.0.1:{{port}} ssl;
        server_name noca.test;
        ssl_verify_client optional_no_ca;
        location / { return 200 "$client"; }
    }
    server {
        listen 127.0.0.1:{{port}} ssl;
        server_name rejected.test;
        ssl_reject_handshake on;
    }
}
EOT

my %how;
{
    no warnings 'redefine';
    my $plain = \&Proxyd::connect;
    *Proxyd::connect = sub {
        my ($self, $port) = @_;
        return $plain->($self, $port) if $how{plain};
        return $certs->connect($self->port($port), %how)
            || nobody();
    };
}

# A connection that has ended.
sub nobody {
    socketpair my $here, my $there, AF_UNIX, SOCK_STREAM, 0 or die $!;
    close $there;
    return Proxyd::Http->wrap(bless $here, 'IO::Handle');
}

sub row { return Proxyd::Differential::row(@_) }

sub same {
    my ($what, $row, %o) = @_;
    %how = %o;
    is Proxyd::Differential::answer($tested, $row), Proxyd::Differential::answer($theirs, $row), $what;
}

my @hosts = qw(a.test b.test on.test deep.test noca.test other.test x.b.test r1.test);
for my $version ('TLSv1_2', 'TLSv1_3') {
    for my $name (undef, @hosts) {
        same("$version, " . ($name // 'no name'), row('GET', '/', Host => $name // 'a.test'), name => $name, version => $version);
    }
    for my $cert (qw(client deep deepest stranger)) {
        for my $name (qw(a.test on.test deep.test noca.test)) {
            same("$version, $cert at $name", row('GET', '/client', Host => $name), name => $name, version => $version, cert => $cert);
        }
    }
}
for my $name (qw(a.test b.test on.test other.test)) {
    for my $host (@hosts, 'A.TEST', 'a.test.', 'a.test:99') {
        next if $host eq 'on.test' || $host =~ /deep|noca/;    # 421: see above
        same("$name, then $host", row('GET', '/', Host => $host), name => $name);
    }
    same("$name, HTTP/1.0 without a Host", ["GET / HTTP/1.0\r\n\r\n", ['GET']], name => $name) if $name ne 'on.test';
}
same('a redirect', row('GET', '/redirect'), name => 'a.test');
same('ALPN', row('GET', '/', Host => 'a.test'), name => 'a.test', alpn => ['http/1.0', 'http/1.1']);
for my $method (qw(GET HEAD POST)) {
    same("plain $method", row($method, '/x?y=1', Host => 'a.test', $method eq 'POST' ? 'body' : ()), plain => 1);
    same("plain $method elsewhere", row($method, '/x?y=1', Host => 'b.test', $method eq 'POST' ? 'body' : ()), plain => 1);
}
same('plain HTTP/1.0', ["GET /x HTTP/1.0\r\n\r\n", ['GET']], plain => 1);
same('plain and bad', ["GET /x HTTP/1.1\r\n\r\n", ['GET']], plain => 1);

$tested->stop;
$theirs->stop;
done_testing;
