# SPDX-License-Identifier: BSD-2-Clause
#
# ssl_ocsp: clients' certificates are checked by OCSP. The responder's answers are made by openssl; the first part of
# the path says what is wrong with them.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/lib";
use MIME::Base64 qw(decode_base64);
use Test::More;
use Proxyd;
use Proxyd::Certs;
use Proxyd::Dns;

my $p     = Proxyd->new;
my $certs = Proxyd::Certs->new($p->dir . '/certs');
my $port  = $p->port('responder');
my $dead  = $p->port('dead');
my $aia   = sub { "authorityInfoAccess=OCSP;URI:http://127.0.0.1:$port/$_[0]" };

$certs->make('a', names => ['a.test']);
$certs->make('good', ext => $aia->('plain'));
$certs->make('bad', ext => $aia->('plain'));
$certs->make('bare');
$certs->make('https', ext => 'authorityInfoAccess=OCSP;URI:https://127.0.0.1/');
$certs->make('stranger', by => 'self', ext => $aia->('plain'));
$certs->make('middle', ca => 1, by => 'ca', ext => $aia->('plain'));
$certs->make('rotten', ca => 1, by => 'ca', ext => $aia->('plain'));
$certs->make('deep', by => 'middle', ext => $aia->('middle'));
$certs->make('sunk', by => 'rotten', ext => $aia->('rotten'));
$certs->make('own', ca => 1, by => 'ca', ext => $aia->('own'));
$certs->make('below', by => 'own', ext => $aia->('below'));
$certs->make('signer', ext => 'extendedKeyUsage=OCSPSigning');
$certs->make('usurper', by => 'self', ext => 'extendedKeyUsage=OCSPSigning');
my %status = (good => 'V', bad => 'R', bare => 'V', deep => 'V', middle => 'V', sunk => 'V', rotten => 'R', own => 'V', below => 'V');
# A good answer, about another certificate.
system("openssl ocsp -issuer @{[ $certs->path('ca.only') ]} -cert @{[ $certs->path('bare.only') ]} -no_nonce -reqout @{[ $p->dir ]}/bare.request >/dev/null 2>&1") == 0 or die;

# Another clock for openssl, so that what it says is over.
$p->write_file('past.c', "#include <time.h>\ntime_t time(time_t *t) { struct timespec s; clock_gettime(CLOCK_REALTIME, &s);"
        . " s.tv_sec -= 86400; if (t) *t = s.tv_sec; return s.tv_sec; }\n");
my $past = $p->dir . '/past.so';
my $have_past = system("cc -shared -fPIC -o $past @{[ $p->dir ]}/past.c 2>/dev/null") == 0;

my $answer = sub {
    my ($c) = @_;
    my $req = $c->request or return;
    my ($mode, $base64) = $req->{uri} =~ m{^/(\w+)/(.+)$} or return;
    return if $mode eq 'cut';
    if ($mode eq 'slow') { $c->wait_close(30); return }
    $base64 =~ s/%([0-9A-F]{2})/chr hex $1/ge;
    my $file = $p->dir . "/request.$c->{n}";
    open my $fh, '>', $file or die;
    print $fh decode_base64($base64);
    close $fh;
    $file = $p->dir . '/bare.request' if $mode eq 'another';
    my %o = (status => \%status);
    $o{env}     = { LD_PRELOAD => $past, ASAN_OPTIONS => 'verify_asan_link_order=0' } if $mode eq 'past';
    $o{by}      = $mode if $mode =~ /^(?:signer|usurper)$/;
    $o{by}      = 'good' if $mode eq 'itself';
    $o{by}      = 'own' if $mode eq 'own';
    $o{openssl} = ['-badsig', '-nmin', 60] if $mode eq 'forged';
    $o{openssl} = [] if $mode eq 'timeless';
    $o{status}  = {} if $mode eq 'unknown';
    my $der = $certs->ocsp_answer($mode =~ /^(?:middle|rotten)$/ ? $mode : $mode eq 'below' ? 'own' : 'ca', $file, %o);
    my $head = "HTTP/1.0 200 OK\r\nContent-Type: application/ocsp-response\r\n";
    if ($mode eq 'endless') { eval { $c->write($head . "\r\n" . 'x' x 200_000) }; $c->wait_close(10); return }
    if ($mode eq 'heads') { eval { $c->write($head . ('X: ' . 'x' x 1000 . "\r\n") x 200) }; $c->wait_close(10); return }
    if ($mode eq 'chunked') { $c->write($head . sprintf "Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n", length $der, $der); return }
    if ($mode eq 'moved') { $c->write("HTTP/1.0 302 Found\r\nLocation: http://127.0.0.1:$port/plain/$base64\r\n\r\n"); return }
    if ($mode eq 'length') { $c->write($head . 'Content-Length: ' . (length($der) + 1) . "\r\n\r\n$der"); return }
    if ($mode eq 'nothing') { $c->write($head . "Content-Length: 0\r\n\r\n"); return }
    if ($mode eq 'trailing') { $der .= "\0" }
    if ($mode eq 'kept') { $c->write($head . 'Content-Length: ' . length($der) . "\r\n\r\n$der"); $c->wait_close(10); return }
    $der = 'garbage' if $mode eq 'garbage';
    my $all = "HTTP/1.0 200 OK\r\nContent-Type: application/ocsp-response\r\n\r\n$der";
    if ($mode eq 'pieces') { $c->write($_) for split //, $all; return }
    $c->write($all);
};
my $origin = $p->origin('responder', $answer);
my $dns = Proxyd::Dns->start(file => $p->dir . '/records', log => $p->dir . '/questions', port => $p->port('dns'));
$dns->records('responder.test 60 A 127.0.0.1');

my $servers = '';
my $server = sub {
    my ($name, $text) = @_;
    $servers .= "server { listen 127.0.0.1:{{port}} ssl; server_name $name.test; $text }\n";
};
my @hostile = qw(another endless heads chunked moved length nothing trailing);
my @modes = (@hostile, qw(kept plain pieces signer unknown garbage cut forged usurper itself timeless middle rotten));
push @modes, 'past' if $have_past;
$server->($_, "ssl_ocsp leaf; ssl_ocsp_responder http://127.0.0.1:$port/$_;") for @modes;
$server->('aia', 'ssl_ocsp leaf;');
$server->('chain', 'ssl_ocsp on;');
$server->('off', 'ssl_ocsp off;');
$server->('optional', 'ssl_ocsp on; ssl_verify_client optional;');
$server->('unverified', 'ssl_ocsp on; ssl_verify_client off;');
$server->('dead', "ssl_ocsp leaf; ssl_ocsp_responder http://127.0.0.1:$dead/;");
$server->('cached', "ssl_ocsp leaf; ssl_ocsp_cache shared:known:1m; ssl_ocsp_responder http://127.0.0.1:$port/cached;");
$server->('cachedtoo', "ssl_ocsp leaf; ssl_ocsp_cache shared:known:1m; ssl_ocsp_responder http://127.0.0.1:$port/cached;");
$server->('cachedchain', 'ssl_ocsp on; ssl_ocsp_cache shared:known:1m;');
$server->('uncached', "ssl_ocsp leaf; ssl_ocsp_cache off; ssl_ocsp_responder http://127.0.0.1:$port/uncached;");
$server->('named', "ssl_ocsp leaf; ssl_ocsp_responder http://responder.test:$port/named; resolver 127.0.0.1:@{[ $dns->port ]};");
$server->('lost', "ssl_ocsp leaf; ssl_ocsp_responder http://lost.test:$port/lost; resolver 127.0.0.1:@{[ $dns->port ]};");

$p->write_conf(<<"EOC");
worker_processes 2;
error_log {{dir}}/error.log info;
http {
    client_header_timeout 30s;
    ssl_certificate certs/a.crt;
    ssl_certificate_key certs/a.key;
    ssl_client_certificate certs/ca.only;
    ssl_verify_client on;
    ssl_verify_depth 3;
    error_page 495 \@refused;
    server {
        listen 127.0.0.1:{{port}} ssl default_server;
        location / { return 200 "default \$ssl_client_verify"; }
    }
    server {
        listen 127.0.0.1:{{port}} ssl;
        server_name page.test;
        ssl_ocsp leaf;
        error_page 404 /x;
    }
    server {
        listen 127.0.0.1:{{port:slow}} ssl;
        client_header_timeout 1s;
        ssl_ocsp leaf;
        ssl_ocsp_responder http://127.0.0.1:$port/slow;
    }
    @{[ $servers =~ s/ \}\n/ location \/ { return 200 "\$ssl_client_verify \$ssl_session_reused"; } location \@refused { return 200 "\$status \$ssl_client_verify"; } }\n/gr ]}
}
EOC
$p->start;
my $main = $p->port('main');

sub says {
    my ($name, $cert, %o) = @_;
    return $certs->get($main, '/', name => "$name.test", cert => $cert, %o)->body;
}
sub asked { my ($mode) = @_; return scalar $origin->lines(qr{R .*/$mode/}) }

my $failed = '400 FAILED:certificate status request failed';
for my $version ('TLSv1_3', 'TLSv1_2') {
    is says(@$_[0, 1], version => $version), $_->[2], "$version: $_->[0], $_->[1]" for (
        (map { [$_, 'good', 'SUCCESS .'] } qw(plain kept pieces signer aia chain off optional timeless)),
        (map { [$_, 'bad', '400 FAILED:certificate revoked'] } qw(plain aia chain optional)),
        ['off', 'bad', 'SUCCESS .'],
        ['unknown', 'good', '400 FAILED:certificate status unknown'],
        (map { [$_, 'good', $failed] } @hostile, qw(garbage cut forged usurper itself dead), $have_past ? 'past' : ()),
        ['aia', 'bare', $failed],
        ['aia', 'https', $failed],
        ['plain', 'bare', 'SUCCESS .'],
        ['aia', 'stranger', '400 FAILED:self-signed certificate'],
        ['unverified', 'bad', 'NONE .'],
        # chains: the authority between is asked about, by itself, or not
        ['chain', 'deep', 'SUCCESS .'],
        ['chain', 'sunk', '400 FAILED:certificate revoked'],
        # one between that speaks for itself
        ['aia', 'below', 'SUCCESS .'],
        ['chain', 'below', $failed],
        ['aia', 'deep', 'SUCCESS .'],
        ['aia', 'sunk', 'SUCCESS .'],
        # an answer of one authority about another's certificate
        ['middle', 'good', $failed],
        ['plain', 'deep', $failed],
        # names
        ['named', 'good', 'SUCCESS .'],
        ['lost', 'good', $failed],
    );
    like says('optional', undef, version => $version), qr/^NONE/, "$version: no certificate, nobody to ask about";
    like says('plain', undef, version => $version), qr/No required SSL certificate was sent/, "$version: one is required";
}
{
    my $r = $certs->get($main, '/', name => 'page.test', cert => 'bad');
    is $r->status, 400, 'the status without an error_page';
    like $r->body, qr/The SSL certificate error/, 'and its page';
    ok $p->wait_log(qr/\[info\] .*client SSL certificate verify error: certificate revoked while reading client request headers, client: 127.0.0.1, server: page.test/), 'is logged';
    ok $p->wait_log(qr/\[error\] .*\Q$_\E/), "logged: $_" for 'd2i_OCSP_RESPONSE() failed', 'OCSP_basic_verify() failed', 'OCSP responder prematurely closed connection',
        'no OCSP responder URL in the client\'s certificate', 'invalid URL prefix in OCSP responder "https://127.0.0.1/"', 'lost.test could not be resolved',
        "connect() failed (111: Connection refused) while requesting certificate status, responder: 127.0.0.1, peer: 127.0.0.1:$dead";
    is $certs->get($main, '/', name => undef, host => 'plain.test', cert => 'good')->status, 421, 'a server that was not named: its question was not asked';
    is $certs->get($main, '/', name => 'plain.test', host => 'aia.test', cert => 'good')->status, 421, 'nor one by another name';
}
{
    # a responder that does not answer: the time for the handshake and the first head runs on
    my $c = $certs->connect($p->port('slow'), cert => 'good');
    $c->send("GET / HTTP/1.1\r\nHost: slow.test\r\nConnection: close\r\n\r\n");
    my $r = $c->response(timeout => 10);
    ok !$r, 'a slow responder: no answer';
    ok $p->wait_log(qr/\[info\] .*client timed out \(110: Connection timed out\) while SSL handshaking/), 'but the end';
    $c->close;
    # a client that goes away meanwhile
    $c = $certs->connect($p->port('slow'), cert => 'good');
    $c->abort;
    is says('plain', 'good'), 'SUCCESS .', 'and all goes on';
}

# --- what is known ------------------------------------------------------------------------------------------

is says('cached', 'good'), 'SUCCESS .', 'asked';
is asked('cached'), 1, 'once';
is says('cached', 'good'), 'SUCCESS .', "known: $_" for 1 .. 12;
is says('cachedtoo', 'good'), 'SUCCESS .', 'to another server too';
is asked('cached'), 1, 'nobody is asked again, whichever worker';
is says('cached', 'bad'), '400 FAILED:certificate revoked', "a bad one: $_" for 1 .. 6;
is asked('cached'), 2, 'is known too';
is says('uncached', 'good'), 'SUCCESS .', "without a cache: $_" for 1 .. 3;
is asked('uncached'), 3, 'each is asked for';
is says('cachedchain', 'deep'), 'SUCCESS .', "a chain: $_" for 1 .. 5;
is scalar($origin->lines(qr{R .*/middle/})), 2 * 2 + 2 + 1, 'of which both are known';
ok $p->reload, 'a reload';
is says('cached', 'good'), 'SUCCESS .', 'is known to the next configuration';
is asked('cached'), 2, 'which does not ask';

# --- sessions -----------------------------------------------------------------------------------------------

for my $version ('tls1_2', 'tls1_3') {
    my $session = $certs->path("session.$version");
    my $client = sub {
        my ($name, $cert) = @_;
        my $request = $p->dir . '/request';
        $p->write_file('request', "GET / HTTP/1.1\r\nHost: $name.test\r\nConnection: close\r\n\r\n");
        my $in = -e $session ? "-sess_in $session" : '';
        my $out = `timeout 10 openssl s_client -connect 127.0.0.1:$main -servername $name.test -ign_eof -$version $in -sess_out $session -cert @{[ $certs->path("$cert.only") ]} -cert_chain @{[ $certs->path("$cert.crt") ]} -key @{[ $certs->path("$cert.key") ]} < $request 2>/dev/null`;
        return $out =~ /\r\n\r\n(SUCCESS \S|495[^\n]*?failed|495[^\n]*?revoked)/ ? $1 : $out;
    };
    my $before = asked('plain');
    is $client->('chain', 'good'), 'SUCCESS .', "$version: a session";
    is asked('plain'), $before + 1, 'asked about';
    is $client->('chain', 'good'), 'SUCCESS r', "$version: is resumed";
    is asked('plain'), $before + 2, 'and asked about again';
    unlink $session;
    is $client->('chain', 'deep'), 'SUCCESS .', "$version: a session whose certificates are not all known";
    is $client->('chain', 'deep'), 'SUCCESS .', "$version: is not resumed";
    unlink $session;
}
unlike $p->error_log, qr/\[(?:crit|alert|emerg)\]/, 'nothing is worse than error';
$p->stop;

done_testing;
