# SPDX-License-Identifier: BSD-2-Clause
#
# Bytes that no library would send: hellos with odd names, protocols, tickets, lengths and versions, records out of place before
# the handshake, and floods of records that are correctly encrypted behind it. Each gets what Debian's nginx sends back where it is there
# (both are built on the same library), costs at most one line of the log, and harms nobody else.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/lib";
use Test::More;
use Proxyd;
use Proxyd::Certs;
use Proxyd::Differential;

plan skip_all => 'proxyd only' if Proxyd::is_nginx();
my $p     = Proxyd->new;
my $dir   = $p->dir;
my $certs = Proxyd::Certs->new("$dir/certs");
$certs->make('a', names => ['a.test']);
$certs->make('b', names => ['b.test']);
my $cc = $ENV{CC} || 'cc';
my $records = "$dir/records";
is system("$cc -std=gnu11 -D_GNU_SOURCE -O1 '$FindBin::Bin/load/records.c' -o $records -lssl -lcrypto"), 0, 'the client builds';

my $conf = <<"EOT";
worker_processes 1;
http {
    ssl_certificate $dir/certs/a.crt;
    ssl_certificate_key $dir/certs/a.key;
    ssl_protocols TLSv1.2 TLSv1.3;
    client_header_timeout 5s;
    server {
        listen 127.0.0.1:{{port}} ssl;
        server_name a.test;
        location / { return 200 "a \$ssl_server_name"; }
    }
    server {
        listen 127.0.0.1:{{port}} ssl;
        server_name b.test;
        ssl_certificate $dir/certs/b.crt;
        ssl_certificate_key $dir/certs/b.key;
        location / { return 200 "b \$ssl_server_name"; }
    }
    server { listen 127.0.0.1:{{port:plain}}; location / { return 200 plain; } }
}
EOT
$p->write_conf($conf);
$p->start;
my @servers = ($p);
if (Proxyd::Differential::available()) {
    push @servers, Proxyd->new(binary => '/usr/sbin/nginx');
    $servers[1]->write_conf($conf);
    $servers[1]->start;
}
my ($worker) = $p->workers;
sub rss { my ($kb) = ($p->read_file("/proc/$worker/status") // '') =~ /VmRSS:\s+(\d+)/; return $kb // 0 }
sub lines_of { return [grep { /\[\w+\] .*, client: / } split /\n/, $_[0]->error_log // ''] }

# --- hellos --------------------------------------------------------------------------------------

sub ext { my ($type, $body) = @_; return pack 'n n/a*', $type, $body }
sub sni { return ext(0, pack 'n/a*', join '', map { pack 'C n/a*', ref $_ ? @$_ : (0, $_) } @_) }
sub alpn { return ext(16, pack 'n/a*', join '', map { pack 'C/a*', $_ } @_) }

# A ClientHello: version, random, session, ciphers, methods, and extensions beside those that TLS 1.3 needs (sane => 0: without them).
sub hello {
    my (%o) = @_;
    my $ext = '';
    if ($o{sane} // 1) {
        $ext = ext(10, pack 'n/a*', pack 'n', 0x1d) . ext(13, pack 'n/a*', pack 'n*', 0x0403, 0x0804)
            . ext(43, $o{versions} // "\x02\x03\x04") . ext(51, pack 'n/a*', pack 'n n/a*', 0x1d, 'k' x 32);
    }
    $ext .= $o{ext} // '';
    my $body = pack('n', $o{version} // 0x0303) . 'r' x 32 . pack('C/a*', $o{session} // '')
        . pack('n/a*', $o{ciphers} // pack 'n*', 0x1301, 0xc02b) . pack('C/a*', $o{methods} // "\0")
        . ($o{bare} ? '' : pack 'n/a*', $ext);
    $body .= $o{tail} // '';
    return pack('C', 1) . substr(pack('N', length $body), 1) . $body;
}

# As records of at most SIZE bytes each.
sub in_records {
    my ($message, $size, $version) = @_;
    my $out = '';
    while (length $message) { $out .= pack 'C n n/a*', 22, $version // 0x0301, substr $message, 0, $size // 16384, '' }
    return $out;
}

# What came back: an alert, a handshake, a page, or nothing.
sub outcome {
    my ($server, $bytes, %o) = @_;
    my $x = $server->raw($o{port} // 'main', $bytes, half_close => 1, piece => $o{piece}, methods => []);
    my $raw = $x->{raw};
    return 'nothing' if $raw eq '';
    return "page $1" if $raw =~ m{<title>(\d+ [^<]*)</title>};
    my ($type, $body) = unpack 'C x2 n/a', $raw;
    return sprintf 'alert %d %d', unpack 'C2', $body if $type == 21;
    return ($body =~ /^\x02/ ? 'hello' : 'handshake') if $type == 22;
    return "type $type";
}

my $longest = 'n' x 65000;
my @hellos = (
    ['as it should be', in_records(hello())],
    ['its records a byte each', in_records(hello(ext => sni('b.test')), 1)],
    ['its records three bytes each, sent by two', in_records(hello(ext => sni('b.test')), 3), piece => 2],
    ['a padding that fills the record', in_records(hello(ext => ext(21, "\0" x 16200)))],
    ['a padding of two records', in_records(hello(ext => ext(21, "\0" x 20000)))],
    ['the longest extensions', in_records(hello(ext => ext(21, "\0" x 65000)))],
    ['many small extensions', in_records(hello(ext => join '', map { ext(0xff00 + $_, 'x') } 2 .. 200))],
    ['thousands of them', in_records(hello(ext => join '', map { ext(0x5000 + $_, '') } 1 .. 10000))],
    ['one extension twice', in_records(hello(ext => sni('a.test') . sni('b.test')))],
    ['an extension that is cut short', in_records(hello(ext => "\0\0\xff\xff"))],
    ['no extensions', in_records(hello(bare => 1))],
    ['something behind them', in_records(hello(tail => 'tail'))],
    ['a message of 16 MB is announced', in_records("\x01\xff\xff\xff" . 'x' x 10000)],
    ['another message', in_records("\x0b" . substr hello(), 1)],
    ['two hellos', in_records(hello() . hello())],
    ['an empty hello', in_records("\x01\0\0\0")],
    ['no ciphers', in_records(hello(ciphers => ''))],
    ['an odd number of bytes of them', in_records(hello(ciphers => "\x13\x01\xc0"))],
    ['unknown ones', in_records(hello(ciphers => "\xfa\xfa" x 1000))],
    ['only NULL', in_records(hello(ciphers => "\0\x02", sane => 0))],
    ['only anonymous ones', in_records(hello(ciphers => "\xc0\x18", sane => 0))],
    ['30000 ciphers', in_records(hello(ciphers => "\x13\x01" x 30000))],
    ['no compression method', in_records(hello(methods => ''))],
    ['only deflate', in_records(hello(methods => "\1"))],
    ['deflate as well', in_records(hello(methods => "\1\0"))],
    ['a long session', in_records(hello(session => 's' x 32))],
    ['one that is too long', in_records(hello(session => 's' x 33))],
    ['SSLv3', in_records(hello(version => 0x0300, sane => 0), 16384, 0x0300)],
    ['TLS 1.0', in_records(hello(version => 0x0301, sane => 0))],
    ['TLS 1.1', in_records(hello(version => 0x0302, sane => 0))],
    ['TLS 1.9', in_records(hello(version => 0x030a, sane => 0))],
    ['TLS 4', in_records(hello(version => 0x0404))],
    ['version 0', in_records(hello(version => 0, sane => 0))],
    ['versions: none', in_records(hello(versions => "\0"))],
    ['versions: odd', in_records(hello(versions => "\x03\x03\x04\x03"))],
    ['versions: unknown', in_records(hello(versions => "\x04\x7a\x7a\x05\x05"))],
    ['versions: 1.0', in_records(hello(versions => "\x02\x03\x01"))],
    ['a record of version 3.5', in_records(hello(), 16384, 0x0305)],
    ['a record of version 5.5', in_records(hello(), 16384, 0x0505)],
    ['a record of version 0', in_records(hello(), 16384, 0)],
    ['the second record of another version', in_records(substr(hello(), 0, 20)) . in_records(substr(hello(), 20), 16384, 0x0204)],
    ['a record of 65535', "\x16\x03\x01\xff\xff" . 'x' x 70000],
    ['a record of 16385', pack('C n n/a*', 22, 0x0301, "\x01\0\xff\xff" . 'x' x 16381)],
    ['an empty record', "\x16\x03\x01\0\0" . in_records(hello())],
    ['a thousand of them', "\x16\x03\x01\0\0" x 1000 . in_records(hello())],
    ['SSLv2', pack('n/a*', "\x01\0\x02\0\x03\0\0\0\x10\x07\0\xc0" . 'c' x 16) ^ "\x80"],
    ['SSLv2 with TLS in it', pack('n/a*', "\x01\x03\x03\0\x03\0\0\0\x10\0\0\x2f" . 'c' x 16) ^ "\x80"],
    ['SSLv2, endless', "\xff\xff\x01\0\x02" . 'x' x 70000],

    ['a name', in_records(hello(ext => sni('b.test')))],
    ['a name in capitals', in_records(hello(ext => sni('B.TEST')))],
    ['a name with a dot behind it', in_records(hello(ext => sni('b.test.')))],
    ['a name of 255', in_records(hello(ext => sni('n' x 255)))],
    ['a name of 256', in_records(hello(ext => sni('n' x 256)))],
    ['a huge name', in_records(hello(ext => sni($longest)))],
    ['an empty name', in_records(hello(ext => sni('')))],
    ['two names', in_records(hello(ext => sni('b.test', 'a.test')))],
    ['a hundred names', in_records(hello(ext => sni(('b.test') x 100)))],
    ['a name of another type', in_records(hello(ext => sni([1, 'b.test'])))],
    ['no name in the list', in_records(hello(ext => sni()))],
    ['an empty list', in_records(hello(ext => ext(0, '')))],
    ['a list that is too long', in_records(hello(ext => ext(0, "\0\x20\0\0\x06b.test")))],
    ['a name with NUL', in_records(hello(ext => sni("b.test\0.a.test")))],
    ['a name of NUL', in_records(hello(ext => sni("\0")))],
    ['an address', in_records(hello(ext => sni('127.0.0.1')))],
    ['an address in brackets', in_records(hello(ext => sni('[::1]')))],
    ['a name with a port', in_records(hello(ext => sni('b.test:443')))],
    ['a name with a slash', in_records(hello(ext => sni('../b.test/')))],
    ['a name with a blank and a line end', in_records(hello(ext => sni("b.test \r\nX: y")))],
    ['a name of bytes', in_records(hello(ext => sni(join '', map { chr } 128 .. 255)))],
    ['dots', in_records(hello(ext => sni('..')))],

    ['ALPN: http/1.1', in_records(hello(ext => alpn('http/1.1')))],
    ['ALPN: the last of many', in_records(hello(ext => alpn((map { "x$_" } 1 .. 5000), 'http/1.1')))],
    ['ALPN: unknown', in_records(hello(ext => alpn('unknown')))],
    ['ALPN: h2 only', in_records(hello(ext => alpn('h2')))],
    ['ALPN: h2 and http/1.0', in_records(hello(ext => alpn('h2', 'http/1.0')))],
    ['ALPN: an empty list', in_records(hello(ext => alpn()))],
    ['ALPN: an empty name', in_records(hello(ext => alpn('')))],
    ['ALPN: an empty name behind a good one', in_records(hello(ext => alpn('http/1.1', '')))],
    ['ALPN: no list', in_records(hello(ext => ext(16, '')))],
    ['ALPN: cut short', in_records(hello(ext => ext(16, "\0\x09\x09http/1.1")))],
    ['ALPN: something behind it', in_records(hello(ext => ext(16, pack('n/a*', "\x08http/1.1") . 'x')))],
    ['ALPN of TLS 1.2: unknown', in_records(hello(sane => 0, ext => alpn('unknown') . ext(10, "\0\2\0\x1d")))],

    ['a ticket of garbage', in_records(hello(sane => 0, ext => ext(35, 'g' x 200) . ext(10, "\0\2\0\x1d")))],
    ['a huge ticket', in_records(hello(sane => 0, ext => ext(35, 'g' x 60000) . ext(10, "\0\2\0\x1d")))],
    ['a ticket of a byte', in_records(hello(sane => 0, ext => ext(35, 'g') . ext(10, "\0\2\0\x1d")))],
    ['a ticket of 1.3 of garbage', in_records(hello(ext => ext(45, "\1\1") . ext(41, pack('n/a*', pack 'n/a* N', 'g' x 200, 7) . pack 'n/a*', pack 'C/a*', 'b' x 32)))],
    ['many of them', in_records(hello(ext => ext(45, "\1\1") . ext(41, pack('n/a*', (pack 'n/a* N', 'g' x 100, 7) x 200) . pack 'n/a*', (pack 'C/a*', 'b' x 32) x 200)))],
    ['one without its binder', in_records(hello(ext => ext(45, "\1\1") . ext(41, pack('n/a*', pack 'n/a* N', 'g' x 200, 7) . "\0\0")))],
    ['one that is not the last extension', in_records(hello(ext => ext(45, "\1\1") . ext(41, pack('n/a*', pack 'n/a* N', 'g' x 200, 7) . pack 'n/a*', pack 'C/a*', 'b' x 32) . sni('b.test')))],
    ['early data without a ticket', in_records(hello(ext => ext(42, ''))) . "\x17\x03\x03\x40\0" . 'e' x 16384],
    ['a key share of nothing', in_records(hello(sane => 0, ext => ext(10, "\0\2\0\x1d") . ext(13, "\0\2\4\3") . ext(43, "\2\3\4") . ext(51, "\0\0")))],
    ['a key share of the wrong length', in_records(hello(sane => 0, ext => ext(10, "\0\2\0\x1d") . ext(13, "\0\2\4\3") . ext(43, "\2\3\4") . ext(51, pack 'n/a*', pack 'n n/a*', 0x1d, 'k' x 31)))],
    ['a key share of zeros', in_records(hello(sane => 0, ext => ext(10, "\0\2\0\x1d") . ext(13, "\0\2\4\3") . ext(43, "\2\3\4") . ext(51, pack 'n/a*', pack 'n n/a*', 0x1d, "\0" x 32)))],

    ['a heartbeat', "\x18\x03\x02\0\3\1\x40\0"],
    ['a heartbeat behind a hello', in_records(hello()) . "\x18\x03\x02\0\3\1\x40\0"],
    ['ChangeCipherSpec first', "\x14\x03\x03\0\1\1"],
    ['ChangeCipherSpec behind the hello', in_records(hello()) . "\x14\x03\x03\0\1\1"],
    ['a flood of them', in_records(hello()) . "\x14\x03\x03\0\1\1" x 10000],
    ['a flood of them first', "\x14\x03\x03\0\1\1" x 10000],
    ['ChangeCipherSpec of 1.2, too early', in_records(hello(sane => 0, ext => ext(10, "\0\2\0\x1d"))) . "\x14\x03\x03\0\1\1"],
    ['data first', "\x17\x03\x03\0\4data"],
    ['data behind the hello', in_records(hello()) . "\x17\x03\x03\0\4data"],
    ['an unknown type', "\x63\x03\x03\0\4data"],
    ['a warning', "\x15\x03\x01\0\2\1\x5a"],
    ['warnings', "\x15\x03\x01\0\2\1\x5a" x 10000],
    ['warnings behind the hello', in_records(hello()) . "\x15\x03\x03\0\2\1\x5a" x 10000],
    ['a fatal alert', "\x15\x03\x01\0\2\2\x28"],
    ['close notify', "\x15\x03\x01\0\2\1\0"],
    ['close notify, again and again', "\x15\x03\x01\0\2\1\0" x 10000],
    ['an alert of a byte', "\x15\x03\x01\0\1\2"],
    ['an alert of three', "\x15\x03\x01\0\3\2\x28\0"],
    ['an alert of level 7', "\x15\x03\x01\0\2\7\0"],
    ['plain HTTP', "GET / HTTP/1.0\r\n\r\n"],
    ['plain HTTP behind a hello', in_records(hello()) . "GET / HTTP/1.1\r\nHost: a\r\n\r\n"],
    ['plain SMTP', "EHLO a\r\n" x 100],
    ['zeros', "\0" x 100000],
    ['nothing', ''],
    ['a byte', "\x16"],
    ['TLS to a plain port', in_records(hello()), port => 'plain'],
);
sub small { my ($what) = @_; return $certs->get($p->port, '/', name => 'b.test')->body eq 'b b.test' ? 1 : diag("after $what") && 0 }

my $before = rss();
for my $row (@hellos) {
    my ($what, $bytes, %o) = @$row;
    my $had = @{ lines_of($p) };
    my @got = map { outcome($_, $bytes, %o) } @servers;
    if (@got > 1) { is $got[0], $got[1], "hello: $what: as nginx has it" }
    else { pass "hello: $what: $got[0]" }
    $p->wait_for(sub { @{ lines_of($p) } > $had }, 0.05) if $got[0] ne 'hello';
    my @new = @{ lines_of($p) };
    splice @new, 0, $had;
    cmp_ok scalar(@new), '<=', 1, "hello: $what: one line of the log at most" or diag join "\n", @new;
    is join("\n", grep { !/\[info\]/ } @new), '', "hello: $what: of the level info";
}
ok small('hellos'), 'hellos: and all goes on';

# --- behind a handshake ----------------------------------------------------------------------------

sub behind { my ($server, $version, @spec) = @_; return `timeout 60 $records @{[ $server->port ]} $version @spec 2>&1` }

my $request = '23:1:' . unpack 'H*', "GET / HTTP/1.1\r\nHost: a.test\r\n\r\n";
my $update  = '1800000101';    # and asks for one
my $polite  = '1800000100';
my @floods = (
    ['a request', $request],
    ['spoilt', 'spoilt', $request],
    ['an empty record', '23:1:', $request],
    ['empty records', '23:32:', $request],
    ['many empty records', '23:100000:', $request],
    ['tiny records', '23:5000:0d0a', $request],
    ['a record of 16385', '23:1:' . '41' x 16385],
    ['a heartbeat', '24:1:014000', $request],
    ['heartbeats', '24:10000:010010' . '41' x 32, $request],
    ['an unknown type', '99:1:00', $request],
    ['ChangeCipherSpec', '20:1:01', $request],
    ['many of them', '20:10000:01', $request],
    ['a warning', '21:1:015a', $request],
    ['warnings', '21:4:015a', $request],
    ['many warnings', '21:10000:015a', $request],
    ['no_renegotiation', '21:1:0164', $request],
    ['a fatal alert', '21:1:0228'],
    ['close notify', '21:1:0100', $request],
    ['close notify behind a request', $request, '21:1:0100'],
    ['close notify, again and again', '21:10000:0100'],
    ['an alert of a byte', '21:1:01', $request],
    ['an empty handshake record', '22:1:', $request],
    ['empty handshake records', '22:10000:', $request],
    ['a hello', '22:1:' . unpack('H*', hello()), $request],
    ['hellos', '22:1000:' . unpack('H*', hello(sane => 0)), $request],
    ['a HelloRequest', '22:1:00000000', $request],
    ['HelloRequests', '22:10000:00000000', $request],
    ['a ticket', '22:1:0400000a00000000000000000000', $request],
    ['Finished', '22:1:1400000c' . '00' x 12, $request],
    ['a message of 16 MB', '22:1000:01ffffff' . '00' x 16000],
    ['half a message', '22:1:18000001', $request],
    ['a key update', "22:1:$polite", $request],
    ['a key update that asks for one', "22:1:$update", $request],
    ['ten of them', "22:10:$update", $request],
    ['a key update of another kind', '22:1:1800000107', $request],
    ['a longer one', '22:1:180000020000', $request],
    ['many key updates', "22:20000:$polite", $request],
    ['many that ask', "22:20000:$update", $request],
);
sub told { my ($said) = @_; return join ' ', grep { !/^sent/ } split /\n/, $said }
for my $version ('1.2', '1.3') {
    for my $row (@floods) {
        my ($what, @spec) = @$row;
        my $had = @{ lines_of($p) };
        my @got = map { told(behind($_, $version, @spec)) } @servers;
        # nginx closes without a word where the client has said that it will send no more.
        if (@got > 1) { is $got[0], $what =~ /^close notify/ ? $got[1] =~ s/end (?:eof|reset)/end close notify/r : $got[1], "$version: $what: as nginx has it" }
        else { pass "$version: $what: $got[0]" }
        my @new = @{ lines_of($p) };
        splice @new, 0, $had;
        cmp_ok scalar(@new), '<=', 1, "$version: $what: one line of the log at most" or diag join "\n", @new[0 .. 1];
        is join("\n", grep { !/\[info\]/ } @new), '', "$version: $what: of the level info";
    }
}
ok small('floods'), 'floods: and all goes on';

# Who says nothing behind the handshake, or does not even begin one, is told of in the log when the time for a request is over.
for my $port ('main', 'plain') {
    my $c = $port eq 'main' ? $certs->connect($p->port) : $p->connect($port);
    ok $p->wait_for(sub { !$c->fill }, 20), "$port: silence: closed";
    is scalar(grep { /client timed out \(110: Connection timed out\) while waiting for request, client: 127.0.0.1/ } @{ lines_of($p) }), $port eq 'main' ? 1 : 2, "$port: silence: logged";
}

# Answers to key updates that nobody reads: the connection is given up before they are many.
{
    my $had  = @{ lines_of($p) };
    my $said = behind($p, '1.3', 'narrow', 'unread', "22:2000000:$update");
    like $said, qr/^end (?:eof|reset)$/m, 'unread answers: given up' or diag $said;
    cmp_ok $said =~ /^sent (\d+)/m ? $1 : 0, '<', 2_000_000, 'unread answers: before the end';
    my @new = @{ lines_of($p) };
    is @new - $had, 1, 'unread answers: one line of the log';
    like $new[-1], qr/\[info\]/, 'unread answers: of the level info';
}
is join(' ', $p->workers), $worker, 'the same worker as in the beginning';
cmp_ok rss() - $before, '<', 16_000, 'and no larger by much' unless Proxyd::sanitized();
# Nothing is left that keeps it busy.
sub ticks { my @f = split ' ', $p->read_file("/proc/$worker/stat"); return $f[13] + $f[14] }
ok $p->wait_for(sub { my $from = ticks(); select undef, undef, undef, 0.3; return ticks() - $from <= 2 }, 20), 'and idle';

$p->stop;
$servers[1]->stop if @servers > 1;
done_testing;
