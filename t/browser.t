# SPDX-License-Identifier: BSD-2-Clause
#
# browser: what User-Agent makes of $modern_browser, $ancient_browser and $msie.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/lib";
use Test::More;
use Proxyd;

my $p = Proxyd->new(files => { 'html/index.html' => 'plain', 'html/index.modern.html' => 'modern' }, conf => <<'EOT');
http {
    ancient_browser_value outer;
    server {
        listen 127.0.0.1:{{port}};
        root {{dir}}/html;
        location /none { return 200 "$modern_browser|$ancient_browser|$msie"; }
        location /list { modern_browser msie 5.5; modern_browser gecko 1.0.0; modern_browser opera 9.0; modern_browser safari 413;
            modern_browser konqueror 3.0; ancient_browser Links Lynx netscape4; ancient_browser w3m;
            return 200 "$modern_browser|$ancient_browser|$msie";
            location /list/inherits { return 200 "$modern_browser|$ancient_browser|$msie"; }
            location /list/replaces { modern_browser msie 7; ancient_browser_value inner; return 200 "$modern_browser|$ancient_browser|$msie"; } }
        location /unlisted { modern_browser msie 5.5; modern_browser unlisted; ancient_browser Links; modern_browser_value yes; ancient_browser_value "";
            return 200 "$modern_browser|$ancient_browser|$msie"; }
        location /fine { modern_browser gecko 1.2.3.4; return 200 "$modern_browser|$ancient_browser|$msie"; }
        location /index/ { alias {{dir}}/html/; modern_browser_value "modern."; modern_browser gecko 1.0; index index.${modern_browser}html index.html; }
        location /if { ancient_browser Lynx; modern_browser unlisted; if ($ancient_browser) { return 302 /ancient.html; } return 200 ok; }
    }
}
EOT
$p->start;
sub body { my ($uri, $ua) = @_; $p->get($uri, headers => [defined $ua ? ('User-Agent' => $ua) : ()])->body }

my $moz4 = 'Mozilla/4.0 (compatible; ';
my @rows = (
    # User-Agent, /list, /unlisted
    [undef,                                       '|outer|',  'yes||'],
    ['curl/7.1',                                  '|outer|',  'yes||'],
    ["${moz4}MSIE 5.5; Windows)",                 '1||1',     'yes||1'],
    ["${moz4}MSIE 5.4; Windows)",                 '|outer|1', '||1'],
    ["${moz4}MSIE 5.49; Windows)",                '1||1',     'yes||1', 'parts are numbers: 49 is more than 5'],
    ["${moz4}MSIE 6.0b; Windows)",                '1||1',     'yes||1'],
    ["${moz4}MSIE 10.0)",                         '1||1',     'yes||1'],
    ["${moz4}MSIE 6.0; X11) Opera 7.50  [en]",    '|outer|',  '||', 'Opera is not taken for MSIE'],
    ["${moz4}MSIE 6.0; X11) Opera 9.10  [en]",    '1||',      '||', 'nor where it is not listed'],
    ['Opera/9.01 (X11; FreeBSD 6 i386; U; en)',   '1||',      '||'],
    ['Opera/8.99 (X11)',                          '|outer|',  '||'],
    ['Opera',                                     '|outer|',  'yes||'],
    ['Mozilla/5.0 (X11; U; rv:1.0.0) Gecko/2002', '1||',      'yes||'],
    ['Mozilla/5.0 (X11; U; rv:0.9.9) Gecko/2002', '|outer|',  'yes||'],
    ['Mozilla/5.0 (Macintosh) AppleWebKit/500 (KHTML, like Gecko) Safari/413', '1||', 'yes||'],
    ['Mozilla/5.0 (Macintosh) AppleWebKit/500 (KHTML, like Gecko) Safari/412.7', '|outer|', 'yes||'],
    ['Mozilla/5.0 (compatible; Konqueror/3.1)',   '1||',      'yes||'],
    ['Mozilla/5.0 (compatible; Konqueror/2.9)',   '|outer|',  'yes||'],
    ['Links (2.1)',                               '|outer|',  '||'],
    ['x w3m/1',                                   '|outer|',  'yes||'],
    ['MSIE 9.0 where MSIE does not stand',        '|outer|1', 'yes||1'],
    ["${moz4}MSIE ",                              '|outer|',  'yes||'],
    ["${moz4}MSIE 99999999999999999999999999.1)", '1||1',     'yes||1'],
);
for my $row (@rows) {
    my ($ua, $list, $unlisted, $why) = @$row;
    is body('/list', $ua) . ' ' . body('/unlisted', $ua), "$list $unlisted", (defined $ua ? substr $ua, 0, 60 : 'none') . ($why ? ": $why" : '');
}
is body('/none', $_), '|outer|', "$_ without any list" for 'Mozilla/5.0 (X11; rv:9.0)', 'Mozilla/4.7 [en]';
is body('/list/inherits', "${moz4}MSIE 5.5; W)"), '1||1', 'inherited';
is body('/list/replaces', "${moz4}MSIE 6.0; W)"), '|inner|1', 'a list of its own replaces the outer one';
is body('/list/replaces', 'Mozilla/5.0 (X11; rv:1.0)'), '|inner|', 'as a whole';
my %fine = ('1.2.3.4' => 1, '1.2.3.3' => 0, '1.2.3' => 0, '1.2.4' => 1, '1.3' => 1, '2' => 1, '1.2.2.99' => 0, '1.2.3.4.9' => 1);
is body('/fine', "Mozilla/5.0 (X; rv:$_)"), $fine{$_} ? '1||' : '|outer|', "gecko $_ against 1.2.3.4" for sort keys %fine;
is body('/index/', 'Mozilla/5.0 (X; rv:1.1)'), 'modern', 'an index file by it';
is body('/index/', 'other'), 'plain', 'and the usual one';
is $p->get('/if', headers => ['User-Agent' => 'Lynx'])->status . $p->get('/if')->status, '302200', 'as a condition';
$p->stop;
done_testing;
