# SPDX-License-Identifier: BSD-2-Clause
#
# split_clients: each string falls into the part that the manual's arithmetic on its hash says, always
# into the same one, and the parts have the sizes that were asked for.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/lib";
use Test::More;
use Proxyd;

# MurmurHash2, 32 bits, seed 0.
sub murmur2 {
    my @c = unpack 'C*', $_[0];
    my ($m, $mask) = (0x5bd1e995, 0xffffffff);
    my $mul = sub { use integer; ($_[0] * $m) & $mask };
    my $h = @c;
    while (@c >= 4) {
        my $k = $c[0] | $c[1] << 8 | $c[2] << 16 | $c[3] << 24;
        splice @c, 0, 4;
        $k = $mul->($k);
        $k = $mul->($k ^ $k >> 24);
        $h = $mul->($h) ^ $k;
    }
    $h ^= $c[2] << 16 if @c == 3;
    $h ^= $c[1] << 8 if @c >= 2;
    $h = $mul->($h ^ $c[0]) if @c;
    $h = $mul->($h ^ $h >> 13);
    return $h ^ $h >> 15;
}

# parts: [hundredths of a percent or undef for "*", value] ...
sub part {
    my ($text, @parts) = @_;
    my ($h, $end) = (murmur2($text), 0);
    for (@parts) {
        my ($percent, $value) = @$_;
        return $value unless defined $percent;
        use integer;
        $end += $percent * 0xffffffff / 10000;
        return $value if $h < $end;
    }
    return '';
}

my $p = Proxyd->new(conf => <<'EOT');
http {
    split_clients "${arg_k}AAA" $variant { 0.5% .one; 2.0% .two; * ""; }
    split_clients $arg_k $parts { 10% a; 20.5% b; 0.25% c; 33.33% d; * e; }
    split_clients $arg_k $rest { 50% half; }
    split_clients $arg_k $all { 33.33% x; 33.33% y; 33.34% z; * never; }
    split_clients $arg_k $only { * "all of $uri"; }
    split_clients $late $chained { 50% a; 50% b; * c; }
    map $arg_k $late { default "x$arg_k"; }
    split_clients $arg_k $early { 50% first; * second; * third; }
    server {
        listen 127.0.0.1:{{port}};
        location / { return 200 "$variant|$parts|$rest|$all|$only|$chained|$early"; }
        location /set { set $a $parts; set $args k=other; return 200 "$a$parts"; }
    }
}
EOT
$p->start;

my @keys = ('', 'a', 'ab', 'abc', 'abcd', 'abcde', '127.0.0.1', '::1', 'x' x 1000, map { "client-$_" } 1 .. 2000);
my (%count, @wrong);
while (my @some = splice @keys, 0, 40) {
    my $x = $p->raw('main', join('', map { "GET /?k=$_ HTTP/1.1\r\nHost: h\r\n\r\n" } @some), count => scalar @some);
    for my $i (0 .. $#some) {
        my $k = $some[$i];
        my @got = split /\|/, $x->{responses}[$i]->body, -1;
        my @want = (
            part($k . 'AAA', [50, '.one'], [200, '.two'], [undef, '']),
            part($k, [1000, 'a'], [2050, 'b'], [25, 'c'], [3333, 'd'], [undef, 'e']),
            part($k, [5000, 'half']),
            part($k, [3333, 'x'], [3333, 'y'], [3334, 'z'], [undef, 'never']),
            'all of $uri',
            part("x$k", [5000, 'a'], [5000, 'b'], [undef, 'c']),
            part($k, [5000, 'first'], [undef, 'second']),
        );
        push @wrong, "$k: @got, not @want" if "@got" ne "@want";
        $count{$got[1]}++;
    }
}
is_deeply \@wrong, [], 'each falls where its hash says';
my %size = (a => 0.1, b => 0.205, d => 0.3333, e => 0.3592);
cmp_ok abs($count{$_} / 2009 - $size{$_}), '<', 0.05, "part $_ has about its size" for sort keys %size;
is $p->get('/set?k=1')->body, part('1', [1000, 'a'], [2050, 'b'], [25, 'c'], [3333, 'd'], [undef, 'e']) x 2, 'the value is kept for the request';
$p->stop;
done_testing;
