# SPDX-License-Identifier: BSD-2-Clause
#
# sub_filter: what is replaced and what is not, whatever pieces the body comes in; what becomes of the
# head; subrequests and other filters beside it.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/lib";
use Test::More;
use Proxyd;

my $long = 'abcdefghij' x 50;
my $p    = Proxyd->new(
    conf => <<"EOT",
http {
    types { text/html html; text/plain txt; text/css css; }
    default_type text/html;
    map \$arg_e \$empty { default ""; }
    upstream app { server 127.0.0.1:{{port:app}}; }
    sub_filter_types text/plain;
    server {
        listen 127.0.0.1:{{port}};
        root {{dir}}/html;
        location / { }
        location /once { sub_filter one 1; alias {{dir}}/html; }
        location /all { sub_filter one 1; sub_filter_once off; alias {{dir}}/html; }
        location /case { sub_filter OnE "<\$uri>"; sub_filter_once off; alias {{dir}}/html; }
        location /several { sub_filter one 1; sub_filter two 2; sub_filter three ""; alias {{dir}}/html; }
        location /order { sub_filter abcd L; sub_filter abc S; sub_filter bcdx X; sub_filter_once off;
            proxy_pass http://app; }
        location /order2 { sub_filter abc S; sub_filter abcd L; sub_filter_once off; proxy_pass http://app; }
        location /many { sub_filter a1 A; sub_filter b2 B; sub_filter c3 C; sub_filter d4 D; sub_filter e5 E;
            sub_filter f6 F; sub_filter g789 G; sub_filter_once off; proxy_pass http://app; }
        location /var { sub_filter "\$arg_find" "[\$arg_with]"; sub_filter "x\$empty" y; sub_filter "\$empty" z;
            sub_filter_once off; alias {{dir}}/html; }
        location /novar { sub_filter "\$empty" z; sub_filter_once off; alias {{dir}}/html; }
        location /star { sub_filter one 1; sub_filter_types *; alias {{dir}}/html; }
        location /html { sub_filter one 1; sub_filter_types text/html; alias {{dir}}/html; }
        location /keep { sub_filter one 1; sub_filter_last_modified on; alias {{dir}}/html; }
        location /dribble { sub_filter needle N; sub_filter nee X; sub_filter_once off; proxy_pass http://app;
            proxy_buffering off; }
        location /long { sub_filter $long L; sub_filter_once off; proxy_pass http://app; proxy_buffering off; }
        location /err { sub_filter "404 Not Found" gone; sub_filter_once off; }
        location /ret { sub_filter one 1; return 200 "one one"; }
        location /outer { sub_filter one 1; location /outer/in { sub_filter two 2; return 200 "one two"; }
            location /outer/same { return 200 "one two"; } }
        location /file { sub_filter_once off; sub_filter "line 1" "LINE"; sendfile on; alias {{dir}}/html; }
    }
}
EOT
    files => {
        'html/a.html'   => "one One two oNE three\n",
        'html/a.txt'    => "one One two oNE three\n",
        'html/a.css'    => "one\n",
        'html/none.html' => "nothing here\n",
        'html/empty.html' => '',
        'html/big.html' => join('', map { "line $_ of the file\n" } 1 .. 40_000)
    });

# The pieces that the path names, in hexadecimal, a write each; "@SIZE.BYTE" repeats.
$p->origin('app', sub {
    my ($c) = @_;
    while (my $r = $c->request) {
        my ($how, $text) = $r->{uri} =~ m{^/\w+/(\w+)/(.*)};
        $text =~ s/%([0-9a-f]{2})/chr hex $1/gei;
        $c->write("HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nLast-Modified: Fri, 14 Jul 2017 02:40:00 GMT\r\n"
            . "ETag: \"tag\"\r\nAccept-Ranges: bytes\r\n");
        if ($how eq 'whole') {
            $c->write('Content-Length: ' . length($text) . "\r\n\r\n$text");
            next;
        }
        my $size = $how =~ /^by(\d+)/ ? $1 : 1;
        $c->write("Transfer-Encoding: chunked\r\n\r\n");
        for (unpack "(a$size)*", $text) {
            $c->write(sprintf("%x\r\n%s\r\n", length $_, $_));
            select undef, undef, undef, 0.002 if length $text < 100;
        }
        $c->write("0\r\n\r\n");
    }
});
$p->start;

sub body { my ($uri, $want, $name) = @_; is $p->get($uri)->body, $want, $name || $uri }

body '/a.html',       "one One two oNE three\n", 'not asked for';
body '/once/a.html',  "1 One two oNE three\n",   'once is the default';
body '/all/a.html',   "1 1 two 1 three\n",       'any case, every time';
body '/case/a.html',  "</case/a.html> </case/a.html> two </case/a.html> three\n", 'variables in the replacement';
body '/several/a.html', "1 One 2 oNE \n", 'each of several once, an empty replacement';
body '/once/a.txt',   "1 One two oNE three\n", 'types are inherited';
body '/once/a.css',   "one\n", 'another type';
body '/star/a.css',   "1\n",   'all types';
body '/html/a.txt',   "one One two oNE three\n", 'types of a level replace those above';
body '/var/a.html?find=one&with=%20x', "[%20x] [%20x] two [%20x] three\n", 'a variable to look for';
body '/var/a.html',   "one One two oNE three\n", 'a variable that is empty is left out';
body '/novar/a.html', "one One two oNE three\n", 'all of them empty';
body '/ret',          '1 one', 'return';
body '/outer/in',     'one 2', 'a level replaces';
body '/outer/same',   '1 two', 'a level inherits';
like $p->get('/err/none')->body, qr{<title>gone</title>.*<h1>gone</h1>}s, 'error pages';

my $big = $p->get('/file/big.html')->body;
my $want = $p->read_file('html/big.html') =~ s/line 1/LINE/gr;
ok $big eq $want, 'a large file' or diag length($big) . ' bytes instead of ' . length $want;

# The order of definition and the leftmost place.
for (['abcd', 'L'], ['abc', 'S'], ['abcx', 'Sx'], ['ababcd', 'abL'], ['aabcdx', 'aLx'], ['bcdx', 'X'], ['abcabcd', 'SL'],
    ['ab', 'ab'], ['abcdabc', 'LS']) {
    my ($in, $out) = @$_;
    body "/order/$_/$in", $out, "$in $_" for qw(whole by1 by2 by3);
}
for (['abcd', 'Sd'], ['abc', 'S'], ['abcdabcd', 'SdSd']) {
    my ($in, $out) = @$_;
    body "/order2/$_/$in", $out, "$in $_, the other order" for qw(whole by1);
}
my $text = join '', map { ('a1', 'b2', 'c3', 'd4', 'e5', 'f6', 'g789', 'g78', 'x', 'a', 'G789')[$_ * 7 % 11] } 1 .. 200;
(my $done = $text) =~ s/(a1|b2|c3|d4|e5|f6|g789)/uc substr $1, 0, 1/gie;
body "/many/$_/$text", $done, "many strings, $_" for qw(whole by1 by7);

body '/dribble/by1/xneedleneeneedxnee', 'xNXXdxX', 'byte by byte';
body '/dribble/by1/xneedl',             'xXdl',     'an unfinished one at the end';
body '/dribble/whole/needl',            'Xdl',      'the same in one piece';
body "/long/by7/$long$long" . substr($long, 0, 400), 'LL' . substr($long, 0, 400), 'a long string';
body "/long/by100/" . substr($long, 10) . "!$long", substr($long, 10) . "!L", "nearly a long string, then one";

# What the head says.
my $r = $p->get('/all/a.html');
is $r->header('Content-Length'), undef, 'no length';
is $r->header('Last-Modified'),  undef, 'no Last-Modified';
is $r->header('ETag'),           undef, 'no ETag';
is $r->header('Accept-Ranges'),  undef, 'no ranges';
is $r->framing, 'chunked', 'chunked';
$r = $p->get('/keep/a.html');
like $r->header('Last-Modified'), qr/GMT$/, 'sub_filter_last_modified keeps Last-Modified';
like $r->header('ETag'), qr{^W/"}, 'and a weak ETag';
$r = $p->get('/all/a.css');
is $r->header('Content-Length'), 4, 'another type keeps its length';
ok defined $r->header('ETag'), 'and its ETag';
$r = $p->get('/all/empty.html');
is $r->header('Content-Length'), 0, 'nothing to replace in an empty body';
ok defined $r->header('Last-Modified'), 'whose head stays';
$r = $p->get('/order/whole/abcd');
is $r->header($_), undef, "proxied: no $_" for 'Last-Modified', 'ETag', 'Content-Length';
$r = $p->get('/all/a.html', headers => [Range => 'bytes=0-1']);
is $r->status, 200, 'a range of what has no length';
$r = $p->head('/all/a.html');
is $r->status . $r->body, '200', 'HEAD';
is $r->header('Content-Length'), undef, 'whose length is not known';

# Kept alive, pipelined.
my $x = $p->raw('main', "GET /all/a.html HTTP/1.1\r\nHost: a\r\n\r\nGET /ret HTTP/1.1\r\nHost: a\r\n\r\n", count => 2);
is $x->{responses}[1]->body, '1 one', 'the connection is kept';
is $p->get('/all/a.html', version => '1.0')->body, "1 1 two 1 three\n", 'HTTP/1.0';

$p->stop;
done_testing;
