# SPDX-License-Identifier: BSD-2-Clause
#
# geo: networks and ranges, IPv4 and IPv6, where the address comes from, and bases of hundreds of
# thousands of networks. What -t says of doubtful lines is in golden/geo_*.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/lib";
use Socket qw(AF_INET AF_INET6 inet_ntop inet_pton);
use Test::More;
use Proxyd;

# Networks like those of a routing table; what each address finds is computed here a second time.
my $count = Proxyd::sanitized() ? 4_000 : 100_000;
srand 42;
my (%v4, %v6);
while (keys %v4 < $count) {
    my $len = (8, 12, 16, 18, 20, 22, 24, 24, 28, 32)[rand 10];
    my $net = int(rand 2**32) & (0xffffffff << 32 - $len);
    $v4{"$net/$len"} = 'c' . int rand 250;
}
while (keys %v6 < $count / 4) {
    my $len = (20, 32, 40, 48, 56, 64)[rand 6];
    my $bits = substr(unpack('B32', pack 'n2', 0x2a00 + rand 4, rand 65536) . unpack('B32', pack 'N', rand 2**32), 0, $len);
    $v6{$bits} = 'd' . int rand 250;
}
my $base = '';
for (keys %v4) {
    my ($net, $len) = split m{/};
    $base .= join('.', unpack 'C4', pack 'N', $net) . "/$len $v4{$_};\n";
}
for (keys %v6) {
    $base .= inet_ntop(AF_INET6, pack 'B128', $_ . '0' x (128 - length)) . '/' . length() . " $v6{$_};\n";
}

# The value of the longest network.
sub want {
    my ($addr) = @_;
    if ($addr =~ /:/) {
        my $bits = unpack 'B128', inet_pton(AF_INET6, $addr);
        for (reverse 0 .. 64) { my $v = $v6{ substr $bits, 0, $_ }; return $v if defined $v }
        return 'none';
    }
    my $n = unpack 'N', pack 'C4', split /\./, $addr;
    for my $len (reverse 0 .. 32) {
        my $v = $v4{ ($len ? $n & (0xffffffff << 32 - $len) & 0xffffffff : 0) . "/$len" };
        return $v if defined $v;
    }
    return 'none';
}

my $p = Proxyd->new(
    files => { 'geo.base' => $base, 'more.geo' => "10.2.0.0/16 RU;\n192.168.2.0/24 RU;\n127.0.5.0/24 X;\n",
        'ranges.geo' => join('', map { "20.$_.0.0-20.$_.255.255 r$_;\n" } 0 .. 255) },
    conf => <<'EOT');
http {
    geo $arg_ip $country { default ZZ; include more.geo; delete 127.0.5.0/24; 127.0.0.0/24 US; 127.0.0.1/32 RU; 10.1.0.0/16 RU;
        192.168.1.0/24 UK; 2001:db8::/32 DOC; 2001:db8:0:1::/64 ONE; 2001:db8::1 HOST; 0.0.0.0/1 LOW; }
    geo $arg_ip $zero { 0.0.0.0/0 any4; ::/0 any6; 1.2.3.4/32 one; }
    geo $arg_ip $nodefault { 1.2.3.4 one; }
    geo $arg_ip $bad { default D; 255.255.255.255 invalid; }
    geo $arg_ip $text { default "two words"; 1.2.3.4 $uri; 1.2.3.5 ""; }
    geo $arg_ip $range { ranges; default ZZ; include ranges.geo; 10.0.0.0-10.255.255.255 TEN; 10.1.2.0-10.1.2.255 IN; 10.1.2.3-10.1.2.3 ONE;
        10.1.2.0-10.1.2.1 LEFT; 10.1.2.250-10.1.2.255 RIGHT; 11.0.0.0-12.0.0.0 gone; delete 11.0.0.0-12.0.0.0; 255.255.255.0-255.255.255.255 TOP; }
    geo $arg_ip $empty { }
    geo $arg_ip $emptyrange { ranges; }
    geo $client { default other; 127.0.0.1 v4; ::1 v6; unix: bad; }
    geo $arg_ip $large { default none; include geo.base; }
    geo $proxied { proxy 127.0.0.0/8; proxy 2001:db8::/32; default ZZ; 127.0.0.1 me; 1.0.0.0/8 one; 2.0.0.0/8 two; 2001:db8::/32 doc; 2002::/16 six; }
    geo $recursive { proxy 127.0.0.0/8; proxy 2001:db8::/32; proxy_recursive; default ZZ; 127.0.0.1 me; 1.0.0.0/8 one; 2.0.0.0/8 two; 2001:db8::/32 doc; }
    geo $arg_ip $untrusted { proxy 1.1.1.1; default ZZ; 9.9.9.9 nine; 1.1.1.1 self; }
    geo $arg_ip $fresh { volatile; default D; 1.2.3.4 one; 5.6.7.8 five; }
    geo $arg_ip $cached { default D; 1.2.3.4 one; 5.6.7.8 five; }
    geo $late $twice { default D; 10.0.0.1 mapped; }
    map $arg_k $late { a 10.0.0.1; default -; }
    server {
        listen 127.0.0.1:{{port}};
        listen unix:{{dir}}/sock;
        location /country { return 200 "$country"; }
        location /zero { return 200 "$zero|$nodefault|$bad|$text"; }
        location /range { return 200 "$range|$empty|$emptyrange"; }
        location /client { return 200 "$client"; }
        location /large { return 200 "$large"; }
        location /proxied { return 200 "$proxied|$recursive"; }
        location /untrusted { return 200 "$untrusted"; }
        location /fresh { set $a "$fresh,$cached"; set $args ip=5.6.7.8; return 200 "$a|$fresh,$cached"; }
        location /twice { return 200 "$twice"; }
        location /if { if ($country = RU) { return 403; } return 200 ok; }
    }
}
EOT
# "unix:" is no network.
my $conf = $p->read_file('proxyd.conf');
like $p->run(add => ['-t'])->{err}, qr/\[emerg\] invalid network "unix:" in/, 'no network';
$conf =~ s/ unix: bad;//;
$p->write_file('proxyd.conf', $conf);
my $r = $p->run(add => ['-t']);
is $r->{status}, 0, 'a good configuration' or diag $r->{err};
unlike $r->{err}, qr/\[warn\]/, 'no doubts';
$p->expect_log(qr/invalid network "unix:"/);
$p->start;
sub body { $p->get($_[0], @_[1 .. $#_])->body }

my %country = ('127.0.0.1' => 'RU', '127.0.0.2' => 'US', '127.0.5.1' => 'LOW', '10.1.255.255' => 'RU', '10.2.0.0' => 'RU', '192.168.1.9' => 'UK',
    '192.168.2.9' => 'RU', '192.168.3.0' => 'ZZ', '2001:db8::1' => 'HOST', '2001:db8::2' => 'DOC', '2001:db8:0:1::' => 'ONE', '2001:DB8:0:1:ffff::' => 'ONE',
    '2001:db9::' => 'ZZ', '::' => 'ZZ', '::ffff:127.0.0.1' => 'RU', '::127.0.0.1' => 'ZZ', '128.0.0.0' => 'ZZ', '0.0.0.0' => 'LOW', '127.255.255.255' => 'LOW',
    # what is no address is 255.255.255.255
    '' => 'ZZ', 'foo' => 'ZZ', '127.0.0.1:80' => 'ZZ', '127.0.0' => 'ZZ', '127.0.0.256' => 'ZZ', '[::1]' => 'ZZ', 'unix:' => 'ZZ', '127.0.0.1%20' => 'ZZ',
    '2001:db8::1/128' => 'ZZ', '127.0.0.1/32' => 'ZZ');
is body("/country?ip=$_"), $country{$_}, "country of $_" for sort keys %country;
is body('/zero?ip=1.2.3.4'), 'one|one|D|$uri', 'values are plain text';
is body('/zero?ip=1.2.3.5'), 'any4||D|', 'an empty one too';
is body('/zero?ip=9.9.9.9'), 'any4||D|two words', '0.0.0.0/0 is the default of IPv4, without one the value is empty';
is body('/zero?ip=::5'), 'any6||D|two words', '::/0 that of IPv6';
is body('/zero?ip=bad'), 'any4||invalid|two words', 'what is no address';
is body('/zero?ip=unix:'), 'any4||invalid|two words', 'a socket neither';
is body('/zero'), 'any4||invalid|two words', 'nothing neither';
my %range = ('10.0.0.0' => 'TEN', '9.255.255.255' => 'ZZ', '10.1.1.255' => 'TEN', '10.1.2.0' => 'LEFT', '10.1.2.1' => 'LEFT', '10.1.2.2' => 'IN', '10.1.2.3' => 'ONE', '10.1.2.4' => 'IN',
    '10.1.2.249' => 'IN', '10.1.2.250' => 'RIGHT', '10.1.2.255' => 'RIGHT', '10.1.3.0' => 'TEN', '10.255.255.255' => 'TEN', '11.0.0.0' => 'ZZ', '12.0.0.0' => 'ZZ',
    '255.255.255.255' => 'TOP', 'bad' => 'TOP', '2001::1' => 'TOP', '::ffff:10.1.2.3' => 'ONE', '20.0.0.0' => 'r0', '20.77.1.1' => 'r77', '20.255.255.255' => 'r255', '21.0.0.0' => 'ZZ');
is body("/range?ip=$_"), "$range{$_}||", "range of $_" for sort keys %range;
is body('/client'), 'v4', 'the client';
my $c = Proxyd::Http::connect_to('unix:' . $p->dir . '/sock');
$c->send("GET /client HTTP/1.0\r\n\r\n");
is $c->response->body, 'other', 'a client without an address';

my @probe = ((map { join '.', map { int rand 256 } 1 .. 4 } 1 .. 150), (map { sprintf '%x:%x:%x::%x', 0x2a00 + rand 4, rand 65536, rand 65536, rand 65536 } 1 .. 100));
for (map { (keys %v4)[$_] } 0 .. 99) { push @probe, join '.', unpack 'C4', pack 'N', (split m{/})[0] }
my $x = $p->raw('main', join('', map { "GET /large?ip=$_ HTTP/1.1\r\nHost: h\r\n\r\n" } @probe[0 .. 49]), count => 50);
my $wrong = grep { $x->{responses}[$_]->body ne want($probe[$_]) } 0 .. 49;
$wrong += grep { body("/large?ip=$_") ne want($_) } @probe[50 .. $#probe];
is $wrong, 0, @probe . ' addresses among ' . ($count + int $count / 4) . ' networks';

my @forwarded = (
    ['1.0.0.1' => 'one|one'],
    ['1.0.0.1, 2.0.0.1' => 'two|two'],
    ['1.0.0.1, 127.0.0.2' => 'ZZ|one'],
    ['2.0.0.1, 1.0.0.1, 127.0.0.2, 127.0.0.3' => 'ZZ|one'],
    ['1.0.0.1,2001:db8::7' => 'doc|one'],
    ['127.0.0.1' => 'me|me'],
    ['127.0.0.9, 127.0.0.8' => 'ZZ|ZZ'],
    ['junk' => 'me|me'],
    ['1.0.0.1, junk' => 'me|me'],
    ['junk, 127.0.0.2' => 'ZZ|ZZ'],
    ['1.0.0.1:8080' => 'one|one'],
    ['[2001:db8::1]:80' => 'doc|doc'],
    ['unix:/x' => 'me|me'],
    ['' => 'me|me'],
    [', ,' => 'me|me'],
    [join(', ', '1.0.0.1', ('127.0.0.2') x 400) => 'ZZ|one'],
);
is body('/proxied', headers => ['X-Forwarded-For' => $_->[0]]), $_->[1], 'X-Forwarded-For: ' . substr $_->[0], 0, 50 for @forwarded;
is body('/proxied', headers => ['X-Forwarded-For' => '1.0.0.1', 'X-Forwarded-For' => '127.0.0.2']), 'ZZ|one', 'two lines are one list';
is body('/proxied', headers => ['X-Forwarded-For' => '1.0.0.1', 'X-Forwarded-For' => '']), 'me|me', 'and an empty last line names nobody';
is body('/proxied'), 'me|me', 'none';
is body('/untrusted?ip=9.9.9.9', headers => ['X-Forwarded-For' => '1.1.1.1']), 'nine', 'only proxies are believed';
is body('/untrusted?ip=1.1.1.1', headers => ['X-Forwarded-For' => '9.9.9.9']), 'nine', 'and one that a variable names is';
is body('/fresh?ip=1.2.3.4'), 'one,one|five,one', 'volatile';
is body('/twice?k=a') . body('/twice?k=b'), 'mappedD', 'the address of a map that stands later';
is $p->get('/if?ip=127.0.0.1')->status . $p->get('/if?ip=127.0.0.2')->status, '403200', 'in an if';
$p->stop;
done_testing;
