# SPDX-License-Identifier: BSD-2-Clause
#
# What a hello says of the client ($ssl_ja3_hash, $ssl_ja4, computed here once more from the bytes of a hello that a
# plain listener was sent), what -t says of certificates, and directives that this library cannot serve.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/lib";
use Digest::MD5 qw(md5_hex);
use Digest::SHA qw(sha256_hex);
use IO::Socket::INET;
use Test::More;
use Proxyd;
use Proxyd::Certs;

my $p     = Proxyd->new;
my $certs = Proxyd::Certs->new($p->dir . '/certs');
$certs->make('a', names => ['a.test'], days => 90);

$p->write_conf(<<"EOT");
http {
    default_type text/plain;
    ssl_certificate certs/a.crt;
    ssl_certificate_key certs/a.key;
    server {
        listen 127.0.0.1:{{port}} ssl;
        location / { return 200 "\$ssl_ja3_hash \$ssl_ja4"; }
    }
    server {
        listen 127.0.0.1:{{port}} ssl;
        server_name a.test;
        location / { return 200 "\$ssl_ja3_hash \$ssl_ja4"; }
    }
    server {
        listen 127.0.0.1:{{port:plain}};
        location / { return 200 "[\$ssl_ja3_hash|\$ssl_ja4]"; }
    }
}
EOT
$p->start;

# --- fingerprints ----------------------------------------------------------------------------------

# The hello that COMMAND sends to a listener which says nothing: its handshake message.
sub captured {
    my (@command) = @_;
    my $listen = IO::Socket::INET->new(Listen => 1, LocalAddr => '127.0.0.1', LocalPort => 0) or die $!;
    my $port = $listen->sockport;
    my $pid = fork // die $!;
    if ($pid == 0) {
        open STDIN,  '<', '/dev/null';
        open STDOUT, '>', '/dev/null';
        open STDERR, '>', '/dev/null';
        s/PORT/$port/ for @command;
        exec @command or exit 127;
    }
    my $c = $listen->accept;
    my ($head, $body) = ('', '');
    $c->read($head, 5);
    $c->read($body, unpack 'x3 n', $head);
    close $c;
    waitpid $pid, 0;
    return $body;
}

sub no_grease { return grep { !(($_ & 0x0f0f) == 0x0a0a && ($_ >> 8) == ($_ & 255)) } @_ }

# ("JA3 digest JA4") of a hello, from the published descriptions of both.
sub fingerprints {
    my ($m) = @_;
    my ($version, $session, $rest) = unpack 'x4 n x32 C/a a*', $m;
    my ($ciphers, $methods, $extensions) = unpack 'n/a C/a n/a', $rest;
    my @ciphers = no_grease(unpack 'n*', $ciphers);
    my %ext;
    my @types;
    while (length $extensions) {
        (my $type, my $data, $extensions) = unpack 'n n/a a*', $extensions;
        push @types, $type;
        $ext{$type} = $data;
    }
    @types = no_grease(@types);
    my @groups   = no_grease(unpack 'x2 n*', $ext{10} // "\0\0");
    my @formats  = unpack 'x C*', $ext{11} // "\0";
    my @versions = sort { $a <=> $b } no_grease(unpack 'x n*', $ext{43} // "\0");
    my @sigs     = no_grease(unpack 'x2 n*', $ext{13} // "\0\0");
    my $alpn     = exists $ext{16} ? unpack 'x2 C/a', $ext{16} : '';
    my $ja3 = md5_hex(join ',', $version, map { join '-', @$_ } \@ciphers, \@types, \@groups, \@formats);
    my %name = (0x0304 => '13', 0x0303 => '12', 0x0302 => '11', 0x0301 => '10');
    my $hex  = sub { join ',', map { sprintf '%04x', $_ } @_ };
    my $ja4 = sprintf 't%s%s%02d%02d%s_%s_%s', $name{ @versions ? $versions[-1] : $version }, exists $ext{0} ? 'd' : 'i',
        scalar @ciphers, scalar @types, $alpn eq '' ? '00' : substr($alpn, 0, 1) . substr($alpn, -1),
        substr(sha256_hex($hex->(sort { $a <=> $b } @ciphers)), 0, 12),
        substr(sha256_hex($hex->(sort { $a <=> $b } grep { $_ != 0 && $_ != 16 } @types)
                . (@sigs ? '_' . $hex->(@sigs) : '')), 0, 12);
    return "$ja3 $ja4";
}

for (
    ['as the library has it', []],
    ['with a name',           ['-servername', 'a.test']],
    ['TLS 1.2',               ['-tls1_2', '-servername', 'a.test']],
    ['ALPN',                  ['-alpn', 'http/1.1,h2']],
    ['few groups, retried',   ['-groups', 'ffdhe2048:P-256', '-servername', 'a.test']],
    ['few ciphers',           ['-tls1_2', '-cipher', 'ECDHE-ECDSA-AES128-GCM-SHA256', '-noservername']],
) {
    my ($what, $args) = @$_;
    my @command = ('openssl', 's_client', '-connect', '127.0.0.1:PORT', '-ign_eof', @$args);
    my $want = fingerprints(captured(@command));
    my $port = $p->port('main');
    s/PORT/$port/ for @command;
    my $request = $certs->path('request');
    open my $fh, '>', $request or die $!;
    print $fh "GET / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n";
    close $fh;
    my $out = `@command < $request 2>/dev/null`;
    my ($got) = $out =~ /\r\n\r\n(\w{32} t\w{9}_\w{12}_\w{12})/;
    is $got, $want, "fingerprints: $what";
}
is $p->get('/', port => 'plain')->body, '[|]', 'fingerprints: none without TLS';

# --- what -t says ----------------------------------------------------------------------------------

$certs->make('middle', ca => 1, by => 'ca');
$certs->make('deep',   by => 'middle', days => 90);
$certs->make('soon',   days => 10);
$certs->make('tomorrow', days => 1);
$certs->make('self',   by => 'self', days => 90);
Proxyd::Certs::run('sh', '-c', join ' && ', map { "cat $_" } map { $certs->path("$_.only") . ' > ' . $certs->path("$_.alone.crt") } 'deep');
Proxyd::Certs::run('sh', '-c', 'cat ' . join(' ', map { $certs->path($_) } 'deep.only', 'ca.only') . ' > ' . $certs->path('wrong.crt'));
$certs->make('old', by => 'self', days => -1);

# --json knows of each.
{
    my $port = $p->port('tested');
    $p->write_file('tested.conf', "events { }\nhttp {\nserver { listen 127.0.0.1:$port ssl;\nssl_certificate certs/deep.crt;\nssl_certificate_key certs/deep.key;\n} }\n");
    my $r = $p->run(args => ['-t', '--json', '-p', $p->dir . '/', '-c', $p->dir . '/tested.conf', '-e', 'error.log']);
    like $r->{out}, qr/"level":"notice","message":"certificate \\"[^"]*deep\.crt\\" expires in (?:89|90) days, on \d{4}-\d\d-\d\d [^"]*UTC","file":"[^"]*","line":4,/, '--json says when each certificate expires';
    unlike $r->{err}, qr/expires/, 'people are told when it is soon';
}

sub tested {
    my (@servers) = @_;
    my $conf = "events { }\nhttp {\n";
    my $port = $p->port('tested');
    $conf .= "server { listen 127.0.0.1:$port ssl; server_name $_->[2]; $_->[3]\nssl_certificate certs/$_->[0].crt;\nssl_certificate_key certs/$_->[1].key;\n}\n"
        for map { [$servers[$_][0], $servers[$_][1], "n$_", $servers[$_][2] // ''] } 0 .. $#servers;
    $p->write_file('tested.conf', "$conf}\n");
    my $dir = $p->dir;
    my $binary = $ENV{TEST_PROXYD_BINARY};
    my $out = `$binary -t -p $dir -c $dir/tested.conf 2>&1`;
    return join '', grep { !/syntax is ok|test is successful|could not open error log/ } map { "$_\n" } split /\n/, $out =~ s/$dir/DIR/gr;
}

for (
    ['a fresh one',            [['a', 'a']],       [], qr/expire/],
    ['its chain is not whole', [['a', 'a']],       [qr/\[warn\] .*the chain in "DIR\/certs\/a\.crt" may be incomplete: "\/CN=ca", which is not known here, is missing in DIR\/tested\.conf:4/]],
    ['the root is trusted',    [['a', 'a', 'ssl_trusted_certificate certs/ca.crt;']], [], qr/incomplete/],
    ['signed by itself',       [['self', 'self']], [], qr/incomplete/],
    ['an intermediate',        [['deep', 'deep']], [qr/incomplete: "\/CN=ca"/]],
    ['without it',             [['deep.alone', 'deep']], [qr/incomplete: "\/CN=middle"/]],
    ['another in its place',   [['wrong', 'deep']], [qr/\[warn\] .*certificate number 2 in "DIR\/certs\/wrong\.crt" has not issued the one before it in/]],
    ['soon',                   [['soon', 'soon']], [qr/\[warn\] .*"DIR\/certs\/soon\.crt" expires in (?:9|10) days, on/]],
    ['very soon',              [['tomorrow', 'tomorrow']], [qr/\[warn\] .*expires in (?:0 days|1 day), on/]],
    ['past',                   [['old', 'old']],   [qr/\[warn\] .*certificate "DIR\/certs\/old\.crt" has expired on \d{4}/]],
    ['no compression',         [['self', 'self', 'ssl_certificate_compression off;']], [], qr/compression/],
    # from 3.2 on the library has it, and says nothing
    ['compression',            [['self', 'self', 'ssl_certificate_compression on;']],
        `openssl version` =~ /^OpenSSL 3\.[01]\./ ? [qr/\[warn\] .*"ssl_certificate_compression" is not supported on this platform, ignored in/] : []],
) {
    my ($what, $servers, $want, $unwanted) = @$_;
    my $out = tested(@$servers);
    like $out, $_, "-t: $what" for @$want;
    unlike $out, $unwanted, "-t: $what" if $unwanted;
    unlike $out, qr/emerg/, "-t: $what: no error";
}
{
    my @lines = tested(['soon', 'soon'], ['a', 'a'], ['soon', 'soon'], ['soon', 'soon']) =~ /(certs\/soon\.crt" expires)/g;
    is @lines, 1, '-t: once for a file';
    like tested(['a', 'soon']), qr/\[emerg\] .*SSL_CTX_use_PrivateKey\("DIR\/certs\/soon\.key"\) failed \(SSL: .*key values mismatch\) in DIR\/tested\.conf:5/, '-t: not its key';
}

# --- files are read again at a reload when they have changed ----------------------------------------

sub shown {
    my $c = $certs->connect($p->port('main'), @_) or return "no: $@";
    my $serial = $c->sock->get_sslversion . ' ' . unpack 'H*', $c->sock->get_fingerprint_bin('sha1');
    $c->close;
    return $serial;
}
my $first = shown();
isnt $first, '', 'shown';
$p->reload;
is shown(), $first, 'reload: the same file, the same certificate';
$certs->make('a', names => ['a.test'], days => 90);
is shown(), $first, 'a new file is not looked at before a reload';
$p->reload;
isnt shown(), $first, 'reload: the new file';

$p->stop;
done_testing;
