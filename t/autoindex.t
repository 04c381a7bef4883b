# SPDX-License-Identifier: BSD-2-Clause
#
# Directory listings, random_index, index and empty_gif. What t/differential_files.t compares with
# nginx byte for byte is here only as far as it must hold without nginx.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/lib";
use JSON::PP ();
use POSIX ();
use Test::More;
use Proxyd;

my $u50 = "\xc3\xbc" x 50;
my %files = (
    'ai/b'            => 'bb',
    'ai/a'            => '',
    'ai/zdir/inner'   => '1',
    'ai/adir/inner'   => '1',
    'ai/.hidden'      => '1',
    'ai/.hid/x'       => '1',
    'ai/<&">'         => '1',
    'ai/%41 ?#'       => '1',
    "ai/$u50"         => '1',
    "ai/${u50}e"      => '1',
    'ai/k9999'        => 'x' x 9999,
    'ai/k10000'       => 'x' x 10_000,
    'one/only.txt'    => "only\n",
    'one/.dot'        => "dot\n",
    'one/sub/x'       => "x\n",
    'many/1'          => '1',
    'many/2'          => '2',
    'many/3'          => '3',
    'none/.dot'       => 'dot',
    'idx/second.html' => "second\n",
    'idx/a/x.special' => "special\n",
    'abs.txt'         => "absolute\n",
);
my $p = Proxyd->new(files => { map { ("html/$_" => $files{$_}) } keys %files }, env => { TZ => 'XYZ-2' },
    conf => <<'EOT');
env TZ;
http {
    root {{dir}}/html;
    types { text/plain txt; text/html html; }
    server {
        listen 127.0.0.1:{{port}};
        location /ai/ { autoindex on; }
        location /ai/adir/ { autoindex off; }
        location /off/ { alias {{dir}}/html/ai/; }
        location /round/ { alias {{dir}}/html/ai/; autoindex on; autoindex_exact_size off; }
        location /local/ { alias {{dir}}/html/ai/; autoindex on; autoindex_localtime on; }
        location /utf8/ { alias {{dir}}/html/ai/; autoindex on; charset utf-8; }
        location /xml/ { alias {{dir}}/html/ai/; autoindex on; autoindex_format xml; }
        location /json/ { alias {{dir}}/html/ai/; autoindex on; autoindex_format json; }
        location /jsonp/ { alias {{dir}}/html/ai/; autoindex on; autoindex_format jsonp; }
        location /big/ { autoindex on; autoindex_format json; }
        location /err/ { autoindex on; error_page 404 /abs.txt; }
        location /if/ { alias {{dir}}/html/ai/; if ($arg_list) { set $x 1; } autoindex on; }
        location /one/ { random_index on; }
        location /many/ { random_index on; }
        location /none/ { random_index on; autoindex on; }
        location /oneoff/ { alias {{dir}}/html/one/; random_index off; }
        location /idx/ { index missing.html $arg_i second.html /abs.txt; }
        location /idxabs/ { alias {{dir}}/html/none/; index x /abs.txt; }
        location /idx/a/ { index x.special; }
        location ~ \.special$ { return 200 "taken: $uri\n"; }
        location /idxargs/ { alias {{dir}}/html/idx/; index second.html; }
        location = /idxargs/second.html { return 200 "args: $args\n"; }
        location = /gif { empty_gif; }
    }
}
EOT
my $when = 1_500_000_000;    # 14 July 2017, 02:40 UTC
my $dir  = $p->dir . '/html/ai';
symlink 'nowhere', "$dir/dangling" or die $!;
system 'touch', '-h', '-d', "\@$when", "$dir/dangling";
opendir my $d, $dir or die $!;
utime $when, $when, "$dir/$_" for grep { !/^\.|dangling/ } readdir $d;
$p->write_file("html/big/" . sprintf('%05d', $_) . 'x' x 100, '') for 1 .. 3000;
$p->start;

# --- HTML ---------------------------------------------------------------------------------------
my $r = $p->get('/ai/');
is $r->status, 200, 'a listing';
is $r->header('Content-Type'), 'text/html', 'is HTML';
is $r->framing, 'chunked', 'of unknown length';
my @lines = split /\r\n/, $r->body;
is $lines[1], '<head><title>Index of /ai/</title></head>', 'title';
is $lines[3], '<h1>Index of /ai/</h1><hr><pre><a href="../">../</a>', 'heading and the way up';
my @names = map { /^<a href="[^"]*">(.*)<\/a>/ && $1 ne '../' ? $1 : () } @lines;
is_deeply [grep { /dir/ } @names[0, 1]], ['adir/', 'zdir/'], 'directories come first';
unlike $r->body, qr/hid|\.dot/, 'nothing that begins with a dot';
like $r->body, qr{<a href="a">a</a> {50}14-Jul-2017 02:40 {19}0\r\n}, 'name, time and size in columns';
like $r->body, qr{<a href="adir/">adir/</a> {46}14-Jul-2017 02:40 {19}-\r\n}, 'a directory has no size';
like $r->body, qr{<a href="%3C%26%22%3E">&lt;&amp;&quot;&gt;</a> {47}14-}, 'escaped for a link and for a page';
like $r->body, qr{<a href="%2541%20%3F%23">%41 \?#</a>}, 'what is special in a URI';
like $r->body, qr{>(?:\xc3\xbc){23}\xc3\.\.&gt;</a> 14-}, 'bytes are counted without charset';
like $r->body, qr{>dangling</a>.*14-Jul-2017 02:40 }, 'a link that leads nowhere is listed';
$r = $p->get('/utf8/');
like $r->body, qr{>\Q$u50\E</a> 14-}, 'fifty characters fit';
like $r->body, qr{>(?:\xc3\xbc){47}\.\.&gt;</a> 14-}, 'one more does not';
is $r->header('Content-Type'), 'text/html; charset=utf-8', 'with its charset';
like $p->get('/round/')->body, qr{>k9999</a> {46}14-Jul-2017 02:40 {4}9999\r\n.*}s, 'small sizes stay';
like $p->get('/round/')->body, qr{>k10000</a> {45}14-Jul-2017 02:40 {5}10K\r\n}, 'larger ones are rounded';
like $p->get('/round/')->body, qr{>adir/</a> {46}14-Jul-2017 02:40 {7}-\r\n}, 'and directories have none';
like $p->get('/local/')->body, qr{>a</a> {50}14-Jul-2017 04:40 }, 'local time';
$r = $p->head('/ai/');
is $r->status . '|' . $r->body, '200|', 'HEAD';
is $r->header('Content-Type'), 'text/html', 'HEAD has the type';

# --- other forms ----------------------------------------------------------------------------------
$r = $p->get('/xml/');
is $r->header('Content-Type'), 'text/xml; charset=utf-8', 'XML says its charset';
like $r->body, qr{\A<\?xml version="1.0"\?>\r\n<list>\r\n<directory mtime="2017-07-14T02:40:00Z">adir</directory>\r\n},
    'XML begins';
like $r->body, qr{<file mtime="2017-07-14T02:40:00Z" size="2">b</file>\r\n}, 'a file in XML';
like $r->body, qr{<other mtime="2017-07-14T02:40:00Z">dangling</other>\r\n}, 'neither file nor directory';
like $r->body, qr{>&lt;&amp;&quot;&gt;<}, 'escaped in XML';
$r = $p->get('/json/');
is $r->header('Content-Type'), 'application/json', 'JSON';
my $list = JSON::PP->new->latin1->decode($r->body);
is scalar @$list, 11, 'all entries';
my ($b) = grep { $_->{name} eq 'b' } @$list;
is_deeply $b, { name => 'b', type => 'file', mtime => 'Fri, 14 Jul 2017 02:40:00 GMT', size => 2 }, 'one';
$r = $p->get('/jsonp/?callback=f.a_1');
is $r->header('Content-Type'), 'application/javascript', 'JSONP';
like $r->body, qr{\A/\* callback \*/\r\nf\.a_1\(\[\r\n.*\r\n\]\);\z}s, 'calls the function';
is $p->get('/jsonp/')->header('Content-Type'), 'application/json', 'no callback: JSON';
is $p->get('/jsonp/?callback=')->header('Content-Type'), 'application/json', 'an empty one: JSON';
for my $bad ('alert(1)', 'a%28b', 'a-b', '%0aa', 'a;b') {
    is $p->get("/jsonp/?callback=$bad")->status, 400, "callback $bad";
}
like $p->wait_log(qr/(client sent invalid callback name: "a-b")/), qr/invalid/, 'is logged';

# --- when there is none ---------------------------------------------------------------------------
is $p->get($_->[0])->status, $_->[1], "$_->[0] $_->[1]"
    for ['/off/', 403], ['/ai/adir/', 403], ['/gone/', 404], ['/err/', 404], ['/ai/a', 200], ['/if/?list=1', 200],
    ['/if/', 200];
is $p->get('/err/')->body, "absolute\n", 'error_page for a missing directory';
is $p->request('POST', '/ai/', body => 'x')->status, 403, 'not for POST';
is $p->request('PUT', '/ai/', body => 'x')->status, 405, 'nor PUT';
is $p->get('/ai')->status, 301, 'a directory without slash redirects';

# a long listing arrives whole, however slowly it is taken; the connection goes on
my $c = $p->connect;
$c->send("GET /big/ HTTP/1.1\r\nHost: x\r\n\r\nGET /abs.txt HTTP/1.1\r\nHost: x\r\n\r\n");
$r = $c->response;
$list = JSON::PP->new->decode($r->body);
is scalar @$list, 3000, 'three thousand entries';
is_deeply [map { $_->{name} } @$list], [sort map { $_->{name} } @$list], 'sorted';
is $c->response->body, "absolute\n", 'keep-alive after it';
$c->close;
# a client that leaves in the midst of it is no harm
$c = $p->connect;
$c->send("GET /big/ HTTP/1.1\r\nHost: x\r\n\r\n");
$c->wait_input(5);
$c->abort;
is $p->get('/abs.txt')->status, 200, 'still there';

# --- random_index ---------------------------------------------------------------------------------
is $p->get('/one/')->body, "only\n", 'the only file, neither dot file nor directory';
is $p->get('/one/')->header('Content-Type'), 'text/plain', 'as itself';
is $p->get('/oneoff/')->status, 403, 'random_index off';
like $p->get('/none/')->body, qr/Index of/, 'nothing to choose: the next in turn';
my %seen;
$seen{ $p->get('/many/')->body }++ for 1 .. 300;
is join('', sort keys %seen), '123', 'each is chosen';
cmp_ok $_, '>', 50, 'about as often' for values %seen;
is $p->request('HEAD', '/one/')->header('Content-Length'), 5, 'HEAD';
is $p->request('PUT', '/one/', body => '')->status, 405, 'no PUT';

# --- index ----------------------------------------------------------------------------------------
is $p->get('/idx/')->body, "second\n", 'the first that is there';
is $p->get('/idx/?i=a/x.special')->body, "taken: /idx/a/x.special\n", 'a variable among them, another location';
is $p->get('/idx/a/')->body, "taken: /idx/a/x.special\n", 'a regular expression takes it';
is $p->get('/idxabs/')->body, "absolute\n", 'the last one absolute';
is $p->get('/idxargs/?k=v')->body, "args: k=v\n", 'arguments are kept';

# --- empty_gif ------------------------------------------------------------------------------------
$r = $p->get('/gif');
is length $r->body, 43, 'forty-three bytes';
like $r->body, qr/\AGIF89a\x01\x00\x01\x00.*\x3b\z/s, 'that are a GIF of one pixel';
is $r->header('Content-Type'), 'image/gif', 'its type';
is $r->header('Last-Modified'), 'Mon, 28 Sep 1970 06:00:00 GMT', 'its date';
is $p->head('/gif')->header('Content-Length'), 43, 'HEAD';
is $p->get('/gif', headers => ['If-Modified-Since', 'Mon, 28 Sep 1970 06:00:00 GMT'])->status, 304, 'not modified';
is $p->post('/gif', 'x')->status, 405, 'no POST';

$p->stop;
done_testing;
