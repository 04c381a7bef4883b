# SPDX-License-Identifier: BSD-2-Clause
#
# num_map: numbers, ranges and comparisons; single numbers first, then ranges in the order of the file.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/lib";
use Test::More;
use Proxyd;

my $count = Proxyd::sanitized() ? 2_000 : 30_000;
my $p = Proxyd->new(
    files => { 'more.num' => "500 included;\n600-700 range;\n",
        'large.num' => join('', map { $_ * 10 . '-' . ($_ * 10 + 4) . " r$_;\n" . ($_ * 10 + 2) . " s$_;\n" } 1 .. $count)
            . "0-999999999 outer;\n" },
    conf => <<'EOT');
http {
    num_map $arg_n $port { default 0; 80 1; 443 1; <=1023 low; 8080-8090 1; 9000-9100 a; 9050-9200 b; 9060 c; >60000 high; }
    num_map $arg_n $none { 1 one; }
    num_map $arg_n $signs { default -; -5 m5; -10--6 mrange; -3-3 around; <-100 verylow; >=100 big; >200 never; }
    num_map $arg_n $decimals { default -; 0.5 half; 1-2 range; <0.1 fast; >2.000000001 slow; 1.25 quarter; }
    num_map $arg_n $value { default "d$uri"; 1 "n$arg_n"; include more.num; }
    num_map $arg_n $large { default none; include large.num; }
    num_map $arg_n $empty { }
    num_map $arg_n $fresh { volatile; default $arg_n; }
    num_map $arg_n $cached { default $arg_n; }
    num_map $limits $wide { default -; 18446744073709551615 max; 0-18446744073709551614 other; }
    map $arg_n $limits { default $arg_n; }
    server {
        listen 127.0.0.1:{{port}};
        location / { return 200 "$port|$none|$signs|$decimals"; }
        location /value { return 200 "$value"; }
        location /large { return 200 "$large"; }
        location /wide { return 200 "$wide|$empty"; }
        location /fresh { set $a "$fresh$cached"; set $args n=2; return 200 "$a|$fresh$cached"; }
    }
}
EOT
$p->start;
my @rows = (
    # n        port  none  signs    decimals
    ['80',     '1',  '',   '-',     'slow'],
    ['79',     'low', '',  '-',     'slow'],
    ['1023',   'low', '',  'big',   'slow'],
    ['1024',   '0',  '',   'big',   'slow'],
    ['443',    '1',  '',   'big',   'slow'],
    ['8079',   '0',  '',   'big',   'slow'],
    ['8080',   '1',  '',   'big',   'slow'],
    ['8090',   '1',  '',   'big',   'slow'],
    ['8091',   '0',  '',   'big',   'slow'],
    ['9055',   'a',  '',   'big',   'slow'],
    ['9060',   'c',  '',   'big',   'slow'],
    ['9100',   'a',  '',   'big',   'slow'],
    ['9101',   'b',  '',   'big',   'slow'],
    ['9200',   'b',  '',   'big',   'slow'],
    ['60000',  '0',  '',   'big',   'slow'],
    ['60001',  'high', '', 'big',   'slow'],
    ['18446744073709551615', 'high', '', 'big', 'slow'],
    ['18446744073709551616', '0', '', '-', '-'],
    ['1',      'low', 'one', 'around', 'range'],
    ['01',     'low', 'one', 'around', 'range'],
    ['1.0',    'low', 'one', 'around', 'range'],
    ['0',      'low', '',  'around', 'fast'],
    ['-0',     'low', '',  'around', 'fast'],
    ['-3',     'low', '',  'around', 'fast'],
    ['-4',     'low', '',  '-',     'fast'],
    ['-5',     'low', '',  'm5',    'fast'],
    ['-6',     'low', '',  'mrange', 'fast'],
    ['-10',    'low', '',  'mrange', 'fast'],
    ['-11',    'low', '',  '-',     'fast'],
    ['-100',   'low', '',  '-',     'fast'],
    ['-100.5', 'low', '',  'verylow', 'fast'],
    ['0.5',    'low', '',  'around', 'half'],
    ['0.50',   'low', '',  'around', 'half'],
    ['0.1',    'low', '',  'around', '-'],
    ['0.099',  'low', '',  'around', 'fast'],
    ['1.25',   'low', '',  'around', 'quarter'],
    ['1.999',  'low', '',  'around', 'range'],
    ['2.000000001', 'low', '', 'around', '-'],
    ['2.000000002', 'low', '', 'around', 'slow'],
    ['3.001',  'low', '',  '-', 'slow'],
    # no numbers
    (map { [$_, '0', '', '-', '-'] } '', 'x', '1x', '-', '.', '1.', '.5', '1e3', '0x10', '1,5', '+1', '--1', '1-2'),
);
for (@rows) {
    my ($n, @want) = @$_;
    is $p->get("/?n=$n")->body, join('|', @want), "n=$n";
}
is $p->get('/value?n=1')->body, 'n1', 'variables in values';
is $p->get('/value?n=2')->body, 'd/value', 'and in the default';
is $p->get('/value?n=500')->body . $p->get('/value?n=650')->body, 'includedrange', 'include';
is $p->get('/large?n=' . $_->[0])->body, $_->[1], "n=$_->[0] among many"
    for ['9', 'outer'], ['10', 'r1'], ['12', 's1'], ['14', 'r1'], ['15', 'outer'], [$count * 10 + 2, "s$count"], [$count * 10 + 5, 'outer'], ['1000000000', 'none'];
is $p->get('/wide?n=18446744073709551615')->body, 'max|', 'the greatest number';
is $p->get('/wide?n=18446744073709551614')->body, 'other|', 'and the one below';
is $p->get('/fresh?n=1')->body, '11|21', 'volatile';
$p->stop;
done_testing;
