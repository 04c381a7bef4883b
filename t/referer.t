# SPDX-License-Identifier: BSD-2-Clause
#
# valid_referers: which values of Referer leave $invalid_referer empty.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/lib";
use Test::More;
use Proxyd;

my $p = Proxyd->new(conf => <<'EOT');
http {
    server {
        listen 127.0.0.1:{{port}};
        server_name www.own.test *.wild.test own2.test ~^re(?<n>\d)\.test$ .both.test;
        valid_referers none blocked server_names *.example.com example.* www.example.org/galleries/ ~\.google\. UPPER.test;
        location / { return 200 "$invalid_referer"; }
        location /strict/ { valid_referers a.test ~^only/ ~two$; return 200 "$invalid_referer"; }
        location /names/ { valid_referers server_names; return 200 "$invalid_referer"; }
        location /two/ { valid_referers none; valid_referers .two.test b.test/p c.test:80; return 200 "$invalid_referer";
            location /two/inner/ { return 200 "$invalid_referer"; } }
        location /if/ { valid_referers a.test; if ($invalid_referer) { return 403; } return 200 "ok"; }
        location /map/ { return 200 "$mapped"; }
        location /set/ { set $invalid_referer own; return 200 "$invalid_referer"; }
        referer_hash_max_size 512;
        referer_hash_bucket_size 32;
    }
    map $invalid_referer $mapped { "" fine; 1 bad; }
    server {
        listen 127.0.0.1:{{port:none}};
        location / { return 200 "[$invalid_referer]"; }
    }
}
EOT
$p->start;
sub body { my ($uri, $r) = @_; $p->get($uri, headers => [defined $r ? (Referer => $r) : ()])->body }

my @rows = (
    # Referer, /, /strict/, /names/, /two/
    [undef,                                   '',  '1', '1', ''],
    ['',                                      '',  '1', '1', '1'],
    ['gone',                                  '',  '1', '1', '1'],
    ['ftp://a.test/',                         '',  '1', '1', '1'],
    ['http://a',                              '',  '1', '1', '1'],    # too short for a URL
    ['http://a.test/',                        '1', '',  '1', '1'],
    ['https://a.test/x',                      '1', '',  '1', '1'],
    ['HTTPS://A.Test:8443/x',                 '1', '',  '1', '1'],
    ['http://a.test',                         '1', '',  '1', '1'],
    ['http://a.test.evil/',                   '1', '1', '1', '1'],
    ['http://only/x.y',                       '1', '',  '1', '1'],
    ['http://evil.test/only/',                '1', '1', '1', '1'],
    ['http://evil.test/TWO',                  '1', '',  '1', '1'],
    ['http://www.own.test/',                  '',  '1', '',  '1'],
    ['http://x.wild.test/',                   '',  '1', '',  '1'],
    ['http://wild.test/',                     '1', '1', '1', '1'],
    ['http://own2.test:99/',                  '',  '1', '',  '1'],
    ['http://re7.test/',                      '',  '1', '',  '1'],
    ['http://rex.test/',                      '1', '1', '1', '1'],
    ['http://both.test/',                     '',  '1', '',  '1'],
    ['http://a.both.test/',                   '',  '1', '',  '1'],
    ['http://www.example.com/',               '',  '1', '1', '1'],
    ['http://example.com/',                   '',  '1', '1', '1'],    # example.*
    ['http://example.co.uk/',                 '',  '1', '1', '1'],
    ['http://xexample.com/',                  '1', '1', '1', '1'],
    ['http://www.example.org/galleries/1',    '',  '1', '1', '1'],
    ['http://www.example.org:80/galleries/',  '',  '1', '1', '1'],
    ['http://www.example.org/galleries',      '1', '1', '1', '1'],
    ['http://www.example.org/Galleries/',     '1', '1', '1', '1'],
    ['http://www.example.org/',               '1', '1', '1', '1'],
    ['http://www.google.de/?q=x',             '',  '1', '1', '1'],
    ['http://evil.test/?x=.google.',          '',  '1', '1', '1'],    # the regex sees all that follows
    ['http://upper.TEST/',                    '',  '1', '1', '1'],
    ['http://two.test/',                      '1', '1', '1', ''],
    ['http://x.two.test/',                    '1', '1', '1', ''],
    ['http://b.test/path',                    '1', '1', '1', ''],
    ['http://b.test/q',                       '1', '1', '1', '1'],
    ['http://user@a.test/',                   '1', '1', '1', '1'],
    ['http://' . 'a.' x 128 . 'example.com/', '1', '1', '1', '1'],    # longer than a host may be
    ['http://' . 'a.' x 100 . 'example.com/', '',  '1', '1', '1'],
);
for my $row (@rows) {
    my ($r, @want) = @$row;
    is join('|', map { body($_, $r) } '/', '/strict/', '/names/', '/two/'), join('|', @want),
        defined $r ? substr "Referer: $r", 0, 50 : 'no Referer';
}
is body('/two/inner/', 'http://two.test/'), '', 'inherited by a location inside';
is $p->get('/if/', headers => [Referer => 'http://a.test/'])->status, 200, 'as a condition';
is $p->get('/if/')->status, 403, 'which refuses';
is body('/map/', 'http://evil.test/') . body('/map/', 'http://own2.test/'), 'badfine', 'in a map';
is body('/set/', 'http://evil.test/'), 'own', 'it can be set';
is $p->get('/', port => 'none', headers => [Referer => 'http://x.test/'])->body, '[]', 'everything is valid without valid_referers';
my $x = $p->raw('main', "GET /strict/ HTTP/1.1\r\nHost: h\r\nReferer: http://a.test/\r\n\r\nGET /strict/ HTTP/1.1\r\nHost: h\r\nReferer: http://b.test/\r\n\r\n", count => 2);
is join('', map { '[' . $_->body . ']' } @{ $x->{responses} }), '[][1]', 'each request for itself';
$p->stop;
done_testing;
