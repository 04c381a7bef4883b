# SPDX-License-Identifier: BSD-2-Clause
#
# What scanners find: sslscan at the default settings, at the installed file's, and at others, held against lists of what is weak and
# against what was configured; testssl.sh for known attacks.
use strict;
use warnings;
no warnings 'exec';
use FindBin;
use lib "$FindBin::Bin/lib";
use Test::More;
use Proxyd;
use Proxyd::Certs;

sub which { my ($n) = @_; return scalar grep { -x "$_/$n" } split /:/, $ENV{PATH} }
plan skip_all => 'sslscan is not installed' unless which('sslscan');

my @some = qw(ECDHE-RSA-AES256-GCM-SHA384 ECDHE-ECDSA-AES128-GCM-SHA256 ECDHE-RSA-AES128-GCM-SHA256 ECDHE-ECDSA-CHACHA20-POLY1305);
my $some = join ':', @some;
my $p     = Proxyd->new;
my $certs = Proxyd::Certs->new($p->dir . '/certs');
$certs->make('a', names => ['a.test']);
$certs->make('r', names => ['a.test'], key => 'rsa');
Proxyd::Certs::run('openssl', 'dhparam', '-dsaparam', '-out', $p->dir . '/dh.pem', '2048');
$p->write_conf(<<"EOT");
http {
    ssl_certificate certs/a.crt;
    ssl_certificate_key certs/a.key;
    ssl_certificate certs/r.crt;
    ssl_certificate_key certs/r.key;
    server { listen 127.0.0.1:{{port}} ssl; return 200 ok; }
    server { listen 127.0.0.1:{{port:all}} ssl; ssl_protocols SSLv2 SSLv3 TLSv1 TLSv1.1 TLSv1.2 TLSv1.3; }
    # The library's own floor, gone: what is left is what the directives say.
    server {
        listen 127.0.0.1:{{port:floor}} ssl;
        ssl_protocols SSLv3 TLSv1 TLSv1.1 TLSv1.2 TLSv1.3;
        ssl_ciphers HIGH:!aNULL:!MD5:\@SECLEVEL=0;
    }
    server {
        listen 127.0.0.1:{{port:listed}} ssl;
        ssl_protocols TLSv1.2 TLSv1.3;
        ssl_ciphers $some;
        ssl_prefer_server_ciphers on;
        ssl_ecdh_curve secp384r1:X25519;
        ssl_conf_command Ciphersuites TLS_CHACHA20_POLY1305_SHA256:TLS_AES_256_GCM_SHA384;
    }
    server { listen 127.0.0.1:{{port:dhe}} ssl; ssl_dhparam dh.pem; }
    # The default server's protocols are not those of a server by name, nor the other way round.
    server { listen 127.0.0.1:{{port:mixed}} ssl; server_name a.test; ssl_protocols TLSv1.3; }
    server { listen 127.0.0.1:{{port:mixed}} ssl; server_name b.test; ssl_protocols TLSv1.2; ssl_ciphers ECDHE-RSA-AES128-GCM-SHA256; }
}
EOT
$p->start;

# testssl.sh mostly waits: it does so while the others run.
my $testssl;
my $csv = $p->dir . '/testssl.csv';
if (which('testssl')) {
    $testssl = fork // die "fork: $!";
    if (!$testssl) {
        open STDIN,  '<', '/dev/null';
        open STDOUT, '>', $p->dir . '/testssl.out';
        open STDERR, '>&', \*STDOUT;
        exec 'testssl', qw(--quiet --color 0 --warnings off --nodns none --ip 127.0.0.1 -p -s -U --csvfile), $csv,
            '127.0.0.1:' . $p->port('main');
        POSIX::_exit(127);
    }
}

# What sslscan finds: { protocols => [those enabled], ciphers => { PROTOCOL => [NAMES] }, bits => [...], groups => { PROTOCOL => [NAMES] }, ... }
sub scan {
    my ($port, @args) = @_;
    my $xml = `sslscan --no-colour --xml=- @args 127.0.0.1:$port 2>&1`;
    my %got = (protocols => [], ciphers => {}, bits => [], strengths => [], groups => {}, group_bits => [], signatures => [], heartbleed => 0, heartbleed_tests => 0, text => $xml);
    for my $element ($xml =~ /<(\w[^>]*)>/g) {
        my ($name) = $element =~ /^(\w+)/;
        my %a = $element =~ /([\w-]+)="([^"]*)"/g;
        if ($name eq 'protocol' && $a{enabled}) { push @{ $got{protocols} }, uc($a{type}) . "v$a{version}" }
        if ($name eq 'cipher') {
            push @{ $got{ciphers}{ $a{sslversion} } }, $a{cipher};
            push @{ $got{bits} }, $a{bits};
            push @{ $got{strengths} }, $a{strength};
        }
        if ($name eq 'group') {
            push @{ $got{groups}{ $a{sslversion} } }, $a{name};
            push @{ $got{group_bits} }, $a{bits};
        }
        if ($name eq 'heartbleed') { $got{heartbleed_tests}++; $got{heartbleed} += $a{vulnerable} }
        $got{renegotiation} = \%a if $name eq 'renegotiation';
        $got{compression}   = $a{supported} if $name eq 'compression';
        push @{ $got{signatures} }, $a{name} if $name eq 'connection-signature-algorithm';
    }
    return \%got;
}

# What may stand in no report.
sub nothing_weak {
    my ($what, $got) = @_;
    my @ciphers = map { @$_ } values %{ $got->{ciphers} };
    cmp_ok scalar(@ciphers), '>', 2, "$what: ciphers were found" or diag $got->{text};
    is join(' ', grep { /NULL|EXP|RC[24]|DES|MD5|IDEA|SEED|GOST|anon|^A(?:EC)?DH|PSK|SRP/i } @ciphers), '', "$what: no weak cipher";
    is scalar(grep { $_ < 112 } @{ $got->{bits} }), 0, "$what: none of less than 112 bits";
    is join(' ', grep { !/^(?:strong|acceptable)$/ } @{ $got->{strengths} }), '', "$what: none that the scanner calls weak";
    my @groups = map { @$_ } values %{ $got->{groups} };
    cmp_ok scalar(@groups), '>', 0, "$what: groups were found";
    is join(' ', grep { !/^(?:secp256r1|secp384r1|secp521r1|x25519|x448|ffdhe\d{4})\b/i } @groups), '', "$what: no weak group";
    is scalar(grep { $_ < 112 } @{ $got->{group_bits} }), 0, "$what: and all of 112 bits";
    is join(' ', grep { /^SSL/ } @{ $got->{protocols} }), '', "$what: no SSL";
    cmp_ok $got->{heartbleed_tests}, '>', 0, "$what: heartbleed was tried";
    is $got->{heartbleed}, 0, "$what: not vulnerable to it";
    ok !$got->{compression}, "$what: no compression";
    ok !($got->{renegotiation}{supported} && !$got->{renegotiation}{secure}), "$what: no insecure renegotiation";
}

# By name, in the order of the library's list, without those that no key of ours fits.
sub expanded {
    my ($list, $more) = @_;
    return [grep { !/PSK|SRP|^DHE-DSS/ && ($more || !/^DHE/) } split /[:\s]+/, `openssl ciphers -s -tls1_2 '$list'`];
}

my $got = scan($p->port('main'), '--show-sigs');
nothing_weak('default', $got);
is "@{ $got->{protocols} }", 'TLSv1.2 TLSv1.3', 'default: protocols';
is_deeply $got->{ciphers}{'TLSv1.2'}, expanded('HIGH:!aNULL:!MD5'), 'default: TLS 1.2 has what the default of ssl_ciphers names';
is_deeply [sort @{ $got->{ciphers}{'TLSv1.3'} }], [qw(TLS_AES_128_GCM_SHA256 TLS_AES_256_GCM_SHA384 TLS_CHACHA20_POLY1305_SHA256)], 'default: TLS 1.3';
is join(' ', grep { /sha1|md5|dsa_sha1/i } @{ $got->{signatures} }), '', 'default: no signature with SHA-1 or MD5';
my $port = $p->port('main');
like `openssl s_client -connect 127.0.0.1:$port -tls1_2 -fallback_scsv < /dev/null 2>&1`, qr/alert inappropriate fallback/, 'default: a fallback is noticed';

$got = scan($p->port('all'));
nothing_weak('all protocols', $got);

$got = scan($p->port('floor'));
nothing_weak('without a floor', $got);
is "@{ $got->{protocols} }", 'TLSv1.0 TLSv1.1 TLSv1.2 TLSv1.3', 'without a floor: what was asked for, and the library still has';

$got = scan($p->port('listed'));
nothing_weak('a list', $got);
is_deeply $got->{ciphers}{'TLSv1.2'}, \@some, 'a list: those, in this order';
is_deeply $got->{ciphers}{'TLSv1.3'}, [qw(TLS_CHACHA20_POLY1305_SHA256 TLS_AES_256_GCM_SHA384)], 'a list: of TLS 1.3, in this order';
for my $version ('TLSv1.2', 'TLSv1.3') {
    is_deeply [sort map { lc s/ .*//r } @{ $got->{groups}{$version} }], [qw(secp384r1 x25519)], "a list: groups of $version";
}

$got = scan($p->port('dhe'));
nothing_weak('ssl_dhparam', $got);
is_deeply [sort @{ $got->{ciphers}{'TLSv1.2'} }], [sort @{ expanded('HIGH:!aNULL:!MD5', 1) }], 'ssl_dhparam: DHE as well';
is join(' ', grep { $_ < 2048 } $got->{text} =~ / dhebits="(\d+)"/g), '', 'ssl_dhparam: as long as given';

$got = scan($p->port('mixed'));
is "@{ $got->{protocols} }", 'TLSv1.3', 'two servers: the first one';
$got = scan($p->port('mixed'), '--sni-name=b.test');
is "@{ $got->{protocols} }", 'TLSv1.2', 'two servers: the second one';
is_deeply $got->{ciphers}{'TLSv1.2'}, ['ECDHE-RSA-AES128-GCM-SHA256'], 'two servers: its cipher';

# --- the installed file, its TLS server uncommented --------------------------------------------------

{
    my $q = Proxyd->new;
    my $text = Proxyd::Certs::slurp("$FindBin::Bin/../conf/proxyd.conf");
    my $count = $text =~ s/^    #(server \{\n    #    listen       443 ssl;.*?\n)    #\}\n/    $1    }\n/ms;
    is $count, 1, 'installed: there is an example of a server with TLS';
    my ($front, $server, $rest) = $text =~ /^(.*?)(^    server \{\n    #    listen       443.*?\n    \}\n)(.*)$/ms;
    $server =~ s/^    #/    /mg;
    $text = "$front$server$rest";
    my ($port, $plain) = ($q->port('main'), $q->port('plain'));
    $text =~ s/\b443 ssl;/127.0.0.1:$port ssl;/;
    $text =~ s/\blisten( +)80;/listen${1}127.0.0.1:$plain;/g;
    $text =~ s/^worker_processes.*\n/worker_processes 1;\n/m;
    $q->write_file('mime.types', "types { text/html html; }\n");
    mkdir $q->dir . "/$_" for qw(logs conf.d);
    my @pair = $text =~ /ssl_certificate\w*\s+(\S+);/g;
    is @pair, 2, 'installed: with a certificate';
    $q->write_file($pair[0], Proxyd::Certs::slurp($certs->path('r.crt')));
    $q->write_file($pair[1], Proxyd::Certs::slurp($certs->path('r.key')));
    $q->write_conf($text);
    my $r = $q->run(add => ['-t']);
    is $r->{status}, 0, 'installed: -t' or diag $r->{err};
    $q->start;
    $got = scan($port);
    nothing_weak('installed', $got);
    is "@{ $got->{protocols} }", 'TLSv1.2 TLSv1.3', 'installed: protocols';
    $q->stop;
}

# --- known attacks ----------------------------------------------------------------------------------

SKIP: {
    skip 'testssl is not installed', 1 unless $testssl;
    ok $p->wait_for(sub { waitpid($testssl, POSIX::WNOHANG()) == $testssl }, 400), 'testssl: done'
        or do { kill 'KILL', $testssl; waitpid $testssl, 0 };
    my %rows = map { my @f = /"([^"]*)"/g; ($f[0] => [@f[3, 4]]) } split /\n/, $p->read_file('testssl.csv') // '';
    # The default of ssl_ciphers admits CBC, for clients that know nothing better.
    delete @rows{qw(cipherlist_AVERAGE LUCKY13)};
    is join("\n", map { "$_: @{ $rows{$_} }" } grep { $rows{$_}[0] !~ /^(?:OK|INFO|severity)$/ } sort keys %rows), '', 'testssl: nothing is wrong';
    for (qw(heartbleed CCS ticketbleed ROBOT secure_renego secure_client_renego CRIME_TLS POODLE_SSL SWEET32 FREAK DROWN LOGJAM BEAST RC4)) {
        is $rows{$_}[0], 'OK', "testssl: $_";
    }
}
unlike $p->error_log, qr/\[(?:crit|alert|error)\]/, 'nothing is worse than info';
$p->stop;
done_testing;
