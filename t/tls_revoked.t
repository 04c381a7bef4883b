# SPDX-License-Identifier: BSD-2-Clause
#
# Sessions of clients with certificates, over reloads: they stay good as long as nothing has changed that the certificate is
# judged by, and no longer.
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
$certs->make('client');
$certs->make('other');
$certs->revoke('ca', 'other');
$p->write_conf(<<'EOC');
http {
    server {
        listen 127.0.0.1:{{port}} ssl;
        ssl_certificate certs/a.crt;
        ssl_certificate_key certs/a.key;
        ssl_client_certificate certs/ca.only;
        ssl_crl certs/ca.crl;
        ssl_verify_client on;
        ssl_session_cache shared:one:1m;
        error_page 495 @refused;
        location / { return 200 "$ssl_client_verify $ssl_session_reused"; }
        location @refused { return 200 "$ssl_client_verify $ssl_session_reused"; }
    }
}
EOC
$p->write_file('request', "GET / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n");
$p->start;

sub client {
    my ($version) = @_;
    my $session = $certs->path("session.$version");
    my $in  = -e $session ? "-sess_in $session" : '';
    my $out = `timeout 10 openssl s_client -connect 127.0.0.1:@{[ $p->port ]} -servername a.test -ign_eof -$version $in -sess_out $session -cert @{[ $certs->path('client.only') ]} -key @{[ $certs->path('client.key') ]} < @{[ $p->dir ]}/request 2>/dev/null`;
    return $out =~ /\r\n\r\n((?:SUCCESS|FAILED:[\w ]+) [.r])/ ? $1 : $out;
}

my @versions = qw(tls1_2 tls1_3);
is client($_), 'SUCCESS .', "$_: a new session" for @versions;
is client($_), 'SUCCESS r', "$_: is resumed" for @versions;
ok $p->reload, 'a reload';
is client($_), 'SUCCESS r', "$_: is resumed after it" for @versions;
$certs->revoke('ca', 'client', 'other');
is client($_), 'SUCCESS r', "$_: the file has changed, and has not been read" for @versions;
ok $p->reload, 'a reload';
is client($_), 'FAILED:certificate revoked .', "$_: then the session is no good" for @versions;
$p->stop;

done_testing;
