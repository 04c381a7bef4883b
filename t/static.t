# SPDX-License-Identifier: BSD-2-Clause
#
# Files and everything around them: roots, types, ranges, conditions, location and server choice,
# internal redirects, error pages, access, rewrite.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/lib";
use Digest::MD5 qw(md5_hex);
use Test::More;
use Proxyd;

my @codes    = (200, 201, 204, 206, 301, 302, 303, 304, 307, 308, 400, 403, 404, 418, 500, 503);
my $hdrcodes = join "\n",
    map { "location = /hdrcode/$_ { add_header X-A a; add_header X-C c always; return $_; }" }
    @codes;
my $p = Proxyd->new(conf => <<'EOT' =~ s/HDRCODES/$hdrcodes/r);
worker_processes 1;
http {
    types { text/html html htm; text/plain txt; image/png png; application/x-shout LOUD; }
    default_type application/octet-stream;
    root {{dir}}/html;
    map $arg_v $mapped { default none; one 1; "~^t(?<rest>.*)" "re-$rest"; } #? map

    server {
        listen 127.0.0.1:{{port}};
        server_name localhost;

        location /types/plain/ { types { } default_type text/x-own; alias {{dir}}/html/; }
        location /alias/ { alias {{dir}}/html/dir/; }
        location /aliasfile { alias {{dir}}/html/a.txt; }
        location ~ ^/aliasre/(.*)$ { alias {{dir}}/html/$1; }
        location /rootvar/ { root {{dir}}/html/$arg_r; }
        location /idx/ { index none.html second.html /a.txt; }
        location /idxre/ { index x.special; }
        location ~ \.special$ { return 200 "special:$uri"; }
        location /idxabs/ { index /a.txt; }
        location /noindex/ { }
        location /etagoff/ { etag off; alias {{dir}}/html/; }
        location /imsoff/ { if_modified_since off; alias {{dir}}/html/; }
        location /imsbefore/ { if_modified_since before; alias {{dir}}/html/; }
        location /norange/ { max_ranges 0; alias {{dir}}/html/; }
        location /onerange/ { max_ranges 1; alias {{dir}}/html/; }
        location /cached/ { open_file_cache max=10 inactive=60s; open_file_cache_valid 60s;
            open_file_cache_errors on; alias {{dir}}/html/; }
        location /sendfile/ { sendfile on; tcp_nopush on; sendfile_max_chunk 64k;
            alias {{dir}}/html/; }
        location /nosendfile/ { sendfile off; output_buffers 2 8k; alias {{dir}}/html/; }
        location /aio/ { aio threads; alias {{dir}}/html/; }
        location /aiosend/ { aio threads; sendfile on; alias {{dir}}/html/; }
        location /directio/ { directio 1; alias {{dir}}/html/; }
        location /directioaio/ { directio 1; aio threads; alias {{dir}}/html/; }
        location /rate/ { limit_rate 1m; limit_rate_after 300k; alias {{dir}}/html/; }
        location /ratevar/ { set $limit_rate 2m; alias {{dir}}/html/; }
        location /symlinks/ { disable_symlinks on from={{dir}}/html; alias {{dir}}/html/; } #? disable_symlinks
        location /relredir/ { absolute_redirect off; }
        location /namedredir/ { server_name_in_redirect on; }
        location /noportredir/ { port_in_redirect off; }

        location /expires/1h/ { expires 1h; alias {{dir}}/html/; }
        location /expires/neg/ { expires -1; alias {{dir}}/html/; }
        location /expires/epoch/ { expires epoch; alias {{dir}}/html/; }
        location /expires/max/ { expires max; alias {{dir}}/html/; }
        location /expires/off/ { expires off; alias {{dir}}/html/; }
        location /expires/mod/ { expires modified 1h; alias {{dir}}/html/; }
        location /hdr/ { add_header X-A "a$arg_x"; add_header X-B $arg_none;
            add_header X-C c always; alias {{dir}}/html/; }
        location /hdr/inner/ { add_header X-D d; alias {{dir}}/html/; }
        location /hdr/keep/ { root {{dir}}/html; }
        location /hdr/cc/ { add_header Cache-Control "a"; add_header Cache-Control "b";
            add_header Last-Modified ""; alias {{dir}}/html/; }
        HDRCODES

        location /try/ { try_files $uri $uri/ $uri.html /dir/file.txt; }
        location /trycode/ { try_files /none =418; }
        location /trynamed/ { try_files $uri @fallback; }
        location /tryuri/ { try_files /none /ret?x=$uri&$args; }
        location /tryalias/ { alias {{dir}}/html/; try_files $uri /dir/file.txt; }
        location ~ ^/tryre/(.*)$ { alias {{dir}}/html; try_files /none/$1 /$1 /tryalias/none;
            add_header X-File $request_filename; }
        location ~ ^/tryrewhole/(.*)$ { alias {{dir}}/html/$1; try_files "" =404; default_type x/y; }
        location ~ ^/tryredir/(.*)$ { alias {{dir}}/html/$1; try_files / =404; }
        location ~ ^/tryrenamed/(.*)$ { alias {{dir}}/html; try_files /$1 @fallback; }
        location /trydir/ { try_files $uri/ =404; }
        location @fallback { return 200 "fallback:$uri:$args"; }
        location = /ret { return 200 "ret:$uri:$args"; }

        location /ep/plain/ { error_page 404 /errors/404.txt; }
        location /ep/equal/ { error_page 404 = /errors/404.txt; }
        location /ep/code/ { error_page 404 =202 /errors/404.txt; }
        location /ep/named/ { error_page 404 @errnamed; }
        location /ep/namedeq/ { error_page 404 = @errnamed; }
        location /ep/url/ { error_page 404 http://other.test/x; }
        location /ep/url301/ { error_page 404 =301 http://other.test/x$uri; }
        location /ep/var/ { error_page 404 /errors/$arg_p.txt; }
        location /ep/several/ { error_page 403 404 405 /errors/404.txt; error_page 404 /errors/none;
            }
        location /ep/gone/ { error_page 404 /errors/none; }
        location /ep/rec/ { recursive_error_pages on; error_page 404 /ep/rec2/x; }
        location /ep/rec2/ { recursive_error_pages on; error_page 404 =200 /errors/404.txt; }
        location /ep/norec/ { error_page 404 /ep/rec2/x; }
        location /ep/302/ { error_page 302 =200 /errors/404.txt; return 302 /x; }
        location /ep/text/ { error_page 404 /errors/404.txt; return 404 "own text"; }
        location /ep/post/ { error_page 405 =200 /method; }
        location /ep/postnamed/ { error_page 405 =200 @method; }
        location /ep/internal/ { error_page 404 =200 /int/a.txt; }
        location /ep/hdr/ { error_page 404 /errhdr/404.txt; add_header X-Outer 1 always; }
        location /ep/none/ { error_page 404 =444 /x444; }
        location /x444 { return 444; }
        location /errhdr/ { alias {{dir}}/html/errors/; add_header X-Inner 1 always; }
        location /method { return 200 "$request_method"; }
        location @method { return 200 "$request_method"; }
        location @errnamed { return 200 "named:$uri"; }
        location /int/ { internal; alias {{dir}}/html/; }
        location /intrw/ { rewrite ^/intrw/(.*) /int/$1 last; }
        location /loop/ { rewrite ^ /loop/x last; }
        location /looptry/ { try_files /none /looptry/y; }

        location /return/200 { return 200; }
        location /return/text { return 200 "t:$uri\n"; }
        location /return/type { default_type text/html; return 200 h; }
        location /return/204 { return 204; }
        location /return/301 { return 301 /there?x=$arg_a; }
        location /return/302 { return 302 http://other.test/; }
        location /return/303 { return 303 /there; }
        location /return/307 { return 307 $scheme://$host/there; }
        location /return/308 { return 308 /there; }
        location /return/url { return http://other.test/u; }
        location /return/scheme { return $scheme://a.test; }
        location /return/404 { return 404; }
        location /return/404t { return 404 "no\n"; }
        location /return/418 { return 418; }
        location /return/444 { return 444; }
        location /return/499 { return 499; }
        location /return/500 { return 500; }
        location /return/503 { return 503; }
        location /return/empty { return 200 ""; }

        location /satisfy/all/ { satisfy all; allow 127.0.0.1; deny all; alias {{dir}}/html/; }
        location /deny/ { deny all; alias {{dir}}/html/; }
        location /denyone/ { deny 127.0.0.1; allow all; alias {{dir}}/html/; }
        location /allownet/ { allow 127.0.0.0/8; deny all; alias {{dir}}/html/; }
        location /allowother/ { allow 10.0.0.0/8; allow 2001:db8::/32; deny all;
            alias {{dir}}/html/; }
        location /denyreturn/ { deny all; return 200 "rewrite comes first"; }
        location /limitexcept/ { limit_except GET { deny all; } alias {{dir}}/html/; }
        location /denypage/ { deny all; error_page 403 =200 @errnamed; }

        location /if/arg { if ($arg_a) { return 200 yes; } return 200 no; }
        location /if/eq { if ($arg_a = b) { return 200 yes; } return 200 no; }
        location /if/ne { if ($arg_a != b) { return 200 yes; } return 200 no; }
        location /if/re { if ($arg_a ~ "^x(\d+)$") { return 200 "yes$1"; } return 200 no; }
        location /if/rei { if ($arg_a ~* "^x") { return 200 yes; } return 200 no; }
        location /if/nre { if ($arg_a !~ "^x") { return 200 yes; } return 200 no; }
        location /if/nrei { if ($arg_a !~* "^x") { return 200 yes; } return 200 no; }
        location /if/f { if (-f $document_root/$arg_a) { return 200 yes; } return 200 no; }
        location /if/nf { if (!-f $document_root/$arg_a) { return 200 yes; } return 200 no; }
        location /if/d { if (-d $document_root/$arg_a) { return 200 yes; } return 200 no; }
        location /if/e { if (-e $document_root/$arg_a) { return 200 yes; } return 200 no; }
        location /if/x { if (-x $document_root/$arg_a) { return 200 yes; } return 200 no; }
        location /if/zero { set $z 0; if ($z) { return 200 yes; } return 200 no; }
        location /if/last { set $r ""; add_header X-0 0; if ($arg_a) { set $r "${r}1";
            add_header X-1 1; } if ($arg_b) { set $r "${r}2"; add_header X-2 2; } set $r "${r}3";
            return 200 $r; }
        location /if/hdr/ { alias {{dir}}/html/; add_header X-0 0; if ($arg_a) { add_header X-1 1; }
            if ($arg_b) { add_header X-2 2; } }
        location /if/break { if ($arg_a) { break; return 200 never; } return 200 after; }

        location /rw/last/ { rewrite ^/rw/last/(.*)$ /ret2/$1 last; return 200 never; }
        location /rw/break/ { rewrite ^/rw/break/(.*)$ /$1 break; return 200 never; }
        location /rw/redirect/ { rewrite ^/rw/redirect/(.*)$ /x/$1 redirect; }
        location /rw/permanent/ { rewrite ^/rw/permanent/(.*)$ /x/$1?p=q permanent; }
        location /rw/abs/ { rewrite ^/rw/abs/(.*)$ http://other.test/$1; }
        location /rw/args/ { rewrite ^/rw/args/(.*)$ /ret2/$1?new=1 last; }
        location /rw/noargs/ { rewrite ^/rw/noargs/(.*)$ /ret2/$1? last; }
        location /rw/chain/ { rewrite ^/rw/chain/(.*)$ /rw/mid/$1;
            rewrite ^/rw/mid/(.*)$ /ret2/m-$1; }
        location /rw/named/ { rewrite ^/rw/named/(?<nm>[a-z]+) /ret2/$nm last; }
        location /rw/miss/ { rewrite ^/other /x last; return 200 "miss:[$1]"; }
        location /ret2/ { return 200 "ret2:$uri:$args"; }
        location /cap/ { if ($uri ~ "^/cap/(.*)$") { set $c $1; } if ($uri ~ "nomatch(.)") {
            return 200 never; } return 200 "[$1][$c]"; }

        location /map { return 200 "$mapped"; } #? map #? map
        location /vars {
            return 200 "$scheme|$server_port|$server_addr|$remote_addr|$request_method|$is_args|$args|$arg_A|$document_uri|$query_string|$server_protocol|$http_x_y|$cookie_k|$content_length|$content_type|$hostname_x"; set $hostname_x h; }
    }
}
EOT

my $dir   = $p->dir;
my %files = (
    'a.txt'               => "0123456789\n",
    'page.html'           => '<p>',
    'x.png'               => 'PNG',
    'noext'               => 'n',
    'u.unknown'           => 'u',
    's.LOUD'              => 'loud',
    'empty.txt'           => '',
    'dir/file.txt'        => 'in dir',
    'dir/index.html'      => 'dir index',
    'idx/second.html'     => 'second',
    'idxre/x.special'     => 'file',
    'idxabs/z'            => 'z',
    'noindex/f'           => 'f',
    'try/here.txt'        => 'here',
    'try/page.html'       => 'try page',
    'try/d/index.html'    => 'try d',
    'trydir/d/index.html' => 'trydir d',
    'trynamed/f'          => 'tn',
    'errors/404.txt'      => 'custom 404',
    'errors/var.txt'      => 'custom var',
    'rootvar/f'           => 'rv0',
    'sub/rootvar/f'       => 'rv1',
    'sp ace.txt'          => 'space',
    'relredir/d/f'        => '',
    'namedredir/d/f'      => '',
    'noportredir/d/f'     => '',
    'umlaut/\xc3\xa4.txt' => '',
    'd ir/f'              => 'x',
    'q?m/f'               => 'y',
    'hdr/keep/f'          => 'kept',
    'unreadable.txt'      => 'no',
    '.hidden'             => 'dot',
    'ep/post/a.txt'       => 'x',
    'ep/postnamed/a.txt'  => 'x'
);
$p->write_file("html/$_", $files{$_}) for keys %files;
my $big = join '', map { pack 'N', $_ * 2654435761 % 4294967296 } 1 .. 100_000;
$p->write_file('html/big.bin', $big);
utime 1_000_000_000, 1_000_000_000, "$dir/html/$_" for 'a.txt', 'big.bin', 'empty.txt';
chmod 0755, "$dir/html/noext";
symlink 'a.txt', "$dir/html/link.txt";
my $lm   = 'Sun, 09 Sep 2001 01:46:40 GMT';
my $etag = '"3b9aca00-b"';
$p->start;
my $port = $p->port;

my ($r, $x);
sub get  { return $p->get(@_) }
sub st   { return $p->get(@_)->status }
sub body { my $r = $p->get(@_); return $r->status . ' ' . $r->body }
sub rng  { my ($uri, $range, @h) = @_; return $p->get($uri, headers => ['Range', $range, @h]) }

# --- a file ---------------------------------------------------------------------------------------
$r = get('/a.txt', keep => 1);
is $r->status, 200,            'a file';
is $r->body,   "0123456789\n", 'its content';
is join('|', $r->names),
    'Server|Date|Content-Type|Content-Length|Last-Modified|Connection|ETag|Accept-Ranges',
    'order of the fields';
is $r->header('Content-Length'), 11,      'length';
is $r->header('Last-Modified'),  $lm,     'Last-Modified';
is $r->header('ETag'),           $etag,   'ETag is the time and the size in hex';
is $r->header('Accept-Ranges'),  'bytes', 'Accept-Ranges';
like $r->header('Date'),   qr/^\w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT$/,  'Date';
like $r->header('Server'), Proxyd::is_nginx() ? qr{^nginx/} : qr{^proxyd/\d}, 'Server';
$r = $p->head('/a.txt');
is $r->header('Content-Length'),                11,          'HEAD: length';
is $r->body,                                    '',          'HEAD: no body';
is get('/empty.txt')->header('Content-Length'), 0,           'an empty file';
is st('/none.txt'),                             404,         'no such file';
is st('/a.txt/b'),                              404,         'a file is no directory';
is st('/a.txt/'),                               404,         'a file with a slash';
is st('/dir/none/x'),                           404,         'no such directory';
is body('/sp%20ace.txt'),                       '200 space', 'an escaped name';
is st('/.hidden'),                              200,         'a hidden file is a file';
is $p->post('/a.txt', 'x')->status,             405,         'POST to a file';
is $p->request($_, '/a.txt')->status,           405,         "$_ to a file" for qw(PUT DELETE FOO);
is $p->request('OPTIONS', '/a.txt')->status,    405,         'OPTIONS of a file';

my %type = (
    '/page.html'         => 'text/html',
    '/a.txt'             => 'text/plain',
    '/x.png'             => 'image/png',
    '/noext'             => 'application/octet-stream',
    '/u.unknown'         => 'application/octet-stream',
    '/s.LOUD'            => 'application/x-shout',
    '/types/plain/a.txt' => 'text/x-own'
);
is get($_)->header('Content-Type'), $type{$_}, "type of $_" for sort keys %type;

# --- root, alias, index ---------------------------------------------------------------------------
is body('/alias/file.txt'),       '200 in dir',       'alias';
is body('/alias/'),               '200 dir index',    'alias and index';
is body('/aliasfile'),            "200 0123456789\n", 'alias of a file';
is body('/aliasre/dir/file.txt'), '200 in dir',       'alias with a capture';
is body('/rootvar/f'),            '200 rv0',          'root with an empty variable';
is body('/rootvar/f?r=sub'),      '200 rv1',          'root with a variable';
is body('/dir/'),                 '200 dir index',    'index.html is the default index';
is body('/idx/'),                 '200 second',       'the second index';
is body('/idxre/'), '200 special:/idxre/x.special',
    'an index is an internal redirect, a regex location takes it';
is body('/idxabs/'),  "200 0123456789\n", 'an absolute index';
is st('/noindex/'),   403,                'no index: 403';
is st('/nosuchdir/'), 404,                'no directory: 404';
$r = get('/dir');
is $r->status,             301,                           'a directory without its slash';
is $r->header('Location'), "http://localhost:$port/dir/", 'with scheme, host and port';
is get('/dir?a=b')->header('Location'), "http://localhost:$port/dir/?a=b", 'the arguments stay';
is get('/d%20ir')->header('Location'),  "http://localhost:$port/d%20ir/",  'escaped anew';
is get('/q%3Fm')->header('Location'),   "http://localhost:$port/q%3Fm/",   'the question mark too';
is get('/dir', host => 'Some.Host:99')->header('Location'), "http://some.host:$port/dir/",
    'the requested host, the listening port';
is get('/relredir/d')->header('Location'), '/relredir/d/', 'absolute_redirect off';
is get('/namedredir/d', host => 'zzz')->header('Location'), "http://localhost:$port/namedredir/d/",
    'server_name_in_redirect on';
is get('/noportredir/d')->header('Location'), 'http://localhost/noportredir/d/',
    'port_in_redirect off';

# --- ranges ---------------------------------------------------------------------------------------
for (
    ['bytes=0-3',     '0123',         '0-3'],
    ['bytes=4-',      "456789\n",     '4-10'],
    ['bytes=-3',      "89\n",         '8-10'],
    ['bytes=0-0',     '0',            '0-0'],
    ['bytes=-1',      "\n",           '10-10'],
    ['bytes=5-99',    "56789\n",      '5-10'],
    ['bytes=-99',     "0123456789\n", '0-10'],
    ['bytes=0-10',    "0123456789\n", '0-10'],
    ['bytes= 1 - 2 ', '12',           '1-2'],
    ['BYTES=1-2',     '12',           '1-2'],
    ['bytes=1-2,',    '12',           '1-2', 1]
    )
{
    my ($range, $want, $cr, $maybe) = @$_;
    $r = rng('/a.txt', $range);
    next if $maybe && $r->status != 206;
    is $r->status . ' ' . $r->body . ' ' . ($r->header('Content-Range') || ''),
        "206 $want bytes $cr/11", "Range $range";
}
is rng('/a.txt', 'bytes=0-3')->header('Content-Length'), 4,     'length of a part';
is rng('/a.txt', 'bytes=0-3')->header('Accept-Ranges'),  undef, 'no Accept-Ranges in 206';
for (
    'bytes=11-',                   'bytes=20-30', 'bytes=5-2',
    'bytes=-',                     'bytes=a-b',   'bytes=1',
    'bytes=99999999999999999999-', 'bytes=-0',    'bytes=0-99999999999999999999'
    )
{
    $r = rng('/a.txt', $_);
    is $r->status,                  416,          "Range $_: 416" or diag $r->body;
    is $r->header('Content-Range'), 'bytes */11', 'with the length' if $r->status == 416;
}
is rng('/a.txt', $_)->status, 200, "Range \"$_\" is ignored"
    for 'lines=0-3', 'bytes', 'byte=0-3', '0-3';
is $p->request('POST', '/return/text', headers => ['Range', 'bytes=0-1'])->status, 200,
    'no range where nothing has them';
$r = rng('/a.txt', 'bytes=0-1,4-5,-2');
is $r->status, 206, 'several ranges';
like $r->header('Content-Type'), qr{^multipart/byteranges; boundary=(\w+)$}, 'multipart';
my ($b) = $r->header('Content-Type') =~ /boundary=(\w+)/;
is $r->body,
    join(
    '',
    map { "\r\n--$b\r\nContent-Type: text/plain\r\nContent-Range: bytes $_->[0]/11\r\n\r\n$_->[1]" }
        ['0-1', '01'],
    ['4-5',  '45'],
    ['9-10', "9\n"]
    ) . "\r\n--$b--\r\n", 'the parts';
is $r->header('Content-Length'), length $r->body,                      'and their length';
is $p->head('/a.txt', headers => ['Range', 'bytes=0-1'])->status, 206, 'HEAD with Range';
is rng('/a.txt', 'bytes=0-1,20-30')->status, 206,  'one range that fits is enough';
is rng('/a.txt', 'bytes=0-1,20-30')->body,   '01', 'and comes alone';
is rng('/a.txt', 'bytes=' . join ',', map { '0-10' } 1 .. 20)->status, 200,
    'ranges larger than the file: the whole file';
is rng('/norange/a.txt', 'bytes=0-1')->status,                  200,   'max_ranges 0';
is rng('/norange/a.txt', 'bytes=0-1')->header('Accept-Ranges'), undef, 'and no Accept-Ranges';
is rng('/onerange/a.txt', 'bytes=0-1')->status,                 206,   'max_ranges 1: one';
is rng('/onerange/a.txt', 'bytes=0-1,3-4')->status,             200,   'two';
is rng('/a.txt', 'bytes=0-1', 'If-Range', $etag)->status,       206,   'If-Range, the ETag';
is rng('/a.txt', 'bytes=0-1', 'If-Range', '"other"')->status,   200,   'another ETag';
is rng('/a.txt', 'bytes=0-1', 'If-Range', "W/$etag")->status,   200,   'a weak ETag never';
is rng('/a.txt', 'bytes=0-1', 'If-Range', $lm)->status,         206,   'If-Range, the date';
is rng('/a.txt', 'bytes=0-1', 'If-Range', 'Sun, 09 Sep 2001 01:46:41 GMT')->status, 200,
    'another date';
is rng('/big.bin', 'bytes=200000-299999')->body, substr($big, 200_000, 100_000),
    'a range of a large file';

# --- conditions -----------------------------------------------------------------------------------
sub cond { my ($uri, @h) = @_; return $p->get($uri, headers => \@h)->status }
my $older = 'Sun, 09 Sep 2001 01:46:39 GMT';
my $newer = 'Sun, 09 Sep 2001 01:46:41 GMT';
is cond('/a.txt', 'If-Modified-Since', $lm),    304, 'If-Modified-Since, the time';
is cond('/a.txt', 'If-Modified-Since', $older), 200, 'older';
is cond('/a.txt', 'If-Modified-Since', $newer), 200, 'exact by default: newer is another time';
is cond('/imsbefore/a.txt', 'If-Modified-Since', $newer), 304, 'if_modified_since before';
is cond('/imsbefore/a.txt', 'If-Modified-Since', $older), 200, 'before: older';
is cond('/imsoff/a.txt',    'If-Modified-Since', $lm),    200, 'off';
is cond('/a.txt', 'If-Modified-Since', 'Sunday, 09-Sep-01 01:46:40 GMT'), 304, 'RFC 850 date';
is cond('/a.txt', 'If-Modified-Since', 'Sun Sep  9 01:46:40 2001'),       304, 'asctime date';
is cond('/a.txt', 'If-Modified-Since', 'yesterday'),                      200, 'garbage is ignored';
is cond('/a.txt', 'If-None-Match',     $etag),                            304, 'If-None-Match';
is cond('/a.txt', 'If-None-Match',     "W/$etag"),                        304, 'weak comparison';
is cond('/a.txt', 'If-None-Match',     "\"a\", $etag, \"b\""),            304, 'a list';
is cond('/a.txt', 'If-None-Match',     '*'),                              304, 'a star';
is cond('/a.txt', 'If-None-Match',     '"x"'),                            200, 'another';
is cond('/a.txt', 'If-None-Match',     '"x"', 'If-Modified-Since', $lm), 200,
    'another tag, the same time';
is cond('/a.txt', 'If-None-Match', $etag, 'If-Modified-Since', $lm), 304, 'both the same';
is cond('/a.txt', 'If-None-Match', $etag, 'If-Modified-Since', $_), 200, "the same tag, but not the time: $_" for $older, 'yesterday';
is cond('/a.txt', 'If-Match', $etag, 'If-Unmodified-Since', $older), 412, 'If-Match holds, If-Unmodified-Since does not';
is cond('/a.txt', 'If-Match', '"x"', 'If-Unmodified-Since', $lm), 412, 'the other way round';
is cond('/a.txt', 'If-Match', $etag, 'If-Unmodified-Since', $lm), 200, 'both hold';
is cond('/a.txt',         'If-Match',            $etag),     200, 'If-Match';
is cond('/a.txt',         'If-Match',            '*'),       200, 'If-Match star';
is cond('/a.txt',         'If-Match',            '"x"'),     412, 'If-Match, another';
is cond('/a.txt',         'If-Match',            "W/$etag"), 412, 'If-Match compares strongly';
is cond('/a.txt',         'If-Unmodified-Since', $lm),       200, 'If-Unmodified-Since, the time';
is cond('/a.txt',         'If-Unmodified-Since', $newer),    200, 'newer';
is cond('/a.txt',         'If-Unmodified-Since', $older),    412, 'older';
is cond('/etagoff/a.txt', 'If-None-Match',       $etag),     200, 'no tag, no match';
is get('/etagoff/a.txt')->header('ETag'),   undef, 'etag off';
is cond('/none.txt', 'If-None-Match', '*'), 404,   'only a 200 is judged';
is cond('/none.txt', 'If-Match', '"x"'),    404,   'If-Match with 404';
$r = $p->get('/a.txt', headers => ['If-None-Match', $etag], keep => 1);
is join('|', $r->names), 'Server|Date|Last-Modified|Connection|ETag',    '304: its fields';
is cond('/a.txt', 'If-None-Match', $etag, 'Range', 'bytes=0-1'),    304, '304 goes before 206';
is $p->head('/a.txt', headers => ['If-None-Match', $etag])->status, 304, 'HEAD';

# --- ways to send a large file --------------------------------------------------------------------
for (
    qw(/big.bin /sendfile/big.bin /nosendfile/big.bin /aio/big.bin /aiosend/big.bin /directio/big.bin /directioaio/big.bin /cached/big.bin
    /cached/big.bin /rate/big.bin /ratevar/big.bin),
    $p->has('disable_symlinks') ? '/symlinks/big.bin' : ()
    )
{
    is md5_hex(get($_)->body), md5_hex($big), $_;
}
for (qw(/aio /directio /nosendfile /sendfile)) {
    is rng("$_/big.bin", 'bytes=12345-54321')->body, substr($big, 12345, 54321 - 12344),
        "$_: a range";
}
$x = $p->raw('main', "GET /big.bin HTTP/1.1\r\nHost: a\r\n\r\n" x 4, count => 4);
is join(' ', map { md5_hex $_->body } @{ $x->{responses} }), join(' ', (md5_hex $big) x 4),
    'four large files on one connection';
is body('/cached/a.txt'), "200 0123456789\n", 'open_file_cache: first';
is body('/cached/a.txt'), "200 0123456789\n", 'open_file_cache: again';
is st('/cached/none'),    404,                'open_file_cache_errors: first';
$p->write_file('html/none', 'now');
is st('/cached/none'), 404, 'open_file_cache_errors: remembered';
unlink "$dir/html/none";
$p->with('disable_symlinks', sub { is st('/symlinks/link.txt'), 403, 'disable_symlinks' });
is st('/link.txt'), 200, 'symlinks otherwise';

# --- expires, add_header --------------------------------------------------------------------------
$r = get('/expires/1h/a.txt');
is $r->header('Cache-Control'), 'max-age=3600', 'expires 1h';
like $r->header('Expires'), qr/ GMT$/, 'and a date';
is get('/expires/neg/a.txt')->header('Cache-Control'), 'no-cache',                  'expires -1';
is get('/expires/epoch/a.txt')->header('Expires'), 'Thu, 01 Jan 1970 00:00:01 GMT', 'expires epoch';
is get('/expires/epoch/a.txt')->header('Cache-Control'), 'no-cache',                'and no-cache';
is get('/expires/max/a.txt')->header('Expires'), 'Thu, 31 Dec 2037 23:55:55 GMT',   'expires max';
is get('/expires/max/a.txt')->header('Cache-Control'), 'max-age=315360000',         'ten years';
is get('/expires/off/a.txt')->header('Expires'),       undef,                       'expires off';
is get('/expires/mod/a.txt')->header('Expires'), 'Sun, 09 Sep 2001 02:46:40 GMT',
    'expires modified';
is get('/expires/1h/none')->header('Expires'), undef, 'not with 404';
$r = get('/hdr/a.txt?x=1');
is $r->header('X-A'), 'a1',  'add_header with a variable';
is $r->header('X-B'), undef, 'an empty value is left out';
is $r->header('X-C'), 'c',   'always';
$r = get('/hdr/none');
is $r->header('X-A'), undef, 'add_header is not for 404';
is $r->header('X-C'), 'c',   'always is';
$r = get('/hdr/inner/a.txt');
is join('|', map { defined $r->header($_) ? $_ : () } qw(X-A X-C X-D)), 'X-D',
    'an inner add_header replaces the outer ones';
is get('/hdr/keep/f')->header('X-C'), undef, 'nothing from a sibling';
$r = get('/hdr/cc/a.txt');
is join('|', $r->header_all('Cache-Control')), 'a|b', 'two Cache-Control lines';
is $r->header('Last-Modified'),                undef, 'an empty Last-Modified removes it';

for (@codes) {
    $r = get("/hdrcode/$_");
    is join('', $r->header('X-A') // '', $r->header('X-C') // ''),
        /^(?:20[0146]|30[123478])$/ ? 'ac' : 'c', "add_header with $_";
}

# --- try_files ------------------------------------------------------------------------------------
is body('/try/here.txt'), '200 here',     'try_files: a file';
is body('/try/page'),     '200 try page', 'with a suffix';
is body('/try/d/'),       '200 try d',    'a directory';
$r = get('/try/d');
is $r->status,                 301,                               'a directory without its slash';
is body('/try/none'),          '200 in dir',                      'the last one is a redirect';
is st('/trycode/x'),           418,                               'a code';
is body('/trynamed/f'),        '200 tn',                          'named: not needed';
is body('/trynamed/none?a=b'), '200 fallback:/trynamed/none:a=b', 'named: URI and arguments stay';
is body('/tryuri/z?q=1'),      '200 ret:/ret:x=/tryuri/z&q=1',    'the last one with arguments';
is body('/tryalias/a.txt'),    "200 0123456789\n",                'under alias';
is body('/tryalias/none'),     '200 in dir',                      'under alias, fallback';
$r = get('/tryre/a.txt');
is $r->body . $r->header('Content-Type'), "0123456789\ntext/plain", 'under the alias of a regex location: the name stands behind it';
is $r->header('X-File'), $p->dir . '/html/a.txt', '... in $request_filename as well';
is body('/tryre/none'), '200 in dir', '... fallback';
$r = get('/tryrewhole/a.txt');
is $r->body . $r->header('Content-Type'), "0123456789\nx/y", '... the alias alone';
is st('/tryrewhole/none'), 404, '... which is not there';
is st('/tryredir/dir'), 301, '... a directory leaves the path alone';
is body('/tryrenamed/none?a=b'), '200 fallback:/tryrenamed/none:a=b', '... named';
is st('/trydir/d'),            301,                               'directory form: found';
is st('/trydir/d/'),           404, 'directory form: its index enters again, and is no directory';
is st('/trydir/none'),         404, 'directory form: not found';

# --- error_page -----------------------------------------------------------------------------------
is body('/ep/plain/x'),   '404 custom 404',          'error_page: the status stays';
is body('/ep/equal/x'),   '200 custom 404',          '=: the page\'s status';
is body('/ep/code/x'),    '202 custom 404',          '=code';
is body('/ep/named/x'),   '404 named:/ep/named/x',   'named';
is body('/ep/namedeq/x'), '200 named:/ep/namedeq/x', '= named';
$r = get('/ep/url/x');
is $r->status . ' ' . $r->header('Location'), '302 http://other.test/x', 'URL';
$r = get('/ep/url301/x');
is $r->status . ' ' . $r->header('Location'), '301 http://other.test/x/ep/url301/x',
    'URL with =301';
is body('/ep/var/x?p=var'),    '404 custom var', 'a variable';
is st('/ep/several/x'),        404,              'the first row wins';
is get('/ep/several/x')->body, 'custom 404',     'its page';
like body('/ep/gone/x'), qr/^404 .*404 Not Found/s, 'a page that is not there: the built-in one';
is body('/ep/rec/x'), '200 custom 404', 'recursive_error_pages on';
like body('/ep/norec/x'), qr/^404 .*404 Not Found/s, 'off: the second error has its built-in page';
is body('/ep/302/x'),                     '200 custom 404', 'error_page 302 catches return 302';
is body('/ep/text/x'),                    '404 own text',   'a return with text is no error';
is $p->post('/ep/post/a.txt', 'x')->body, 'GET',            'a POST becomes GET';
is $p->post('/ep/postnamed/a.txt', 'x')->body, 'POST',      'not for a named location';
is body('/ep/internal/x'), "200 0123456789\n",              'an internal location may be the page';
$r = get('/ep/hdr/x');
is join('|', grep { defined $r->header($_) } qw(X-Outer X-Inner)), 'X-Inner',
    'add_header of the page\'s location';
is get('/ep/none/x')->status,                         0,   '=444 to return 444: closed';
is $p->head('/ep/plain/x')->status,                   404, 'HEAD: status';
is $p->head('/ep/plain/x')->header('Content-Length'), 10,  'HEAD: length of the page';
is st('/int/a.txt'),                                  404, 'internal';
is body('/intrw/a.txt'), "200 0123456789\n",               'internal after a rewrite';
is st('/loop/x'),        500,                              'a rewrite loop ends in 500';
is st('/looptry/x'),     500,                              'a try_files loop too';
ok $p->wait_log(
    qr{rewrite or internal redirection cycle while (?:processing|redirect|internally redirecting)[^\n]*"/loop}
), 'and is logged';

# --- return ---------------------------------------------------------------------------------------
$r = get('/return/200');
is $r->status . '|' . $r->body . '|' . $r->header('Content-Length'), '200||0', 'return 200';
$r = get('/return/text');
is $r->body,                                    "t:/return/text\n",         'text';
is $r->header('Content-Type'),                  'application/octet-stream', 'the default type';
is get('/return/type')->header('Content-Type'), 'text/html', 'default_type of the location';
$r = get('/return/204');
is $r->status . '|'
    . ($r->header('Content-Length') // 'none') . '|'
    . ($r->header('Content-Type') // 'none'), '204|none|none', 'return 204';
$r = get('/return/301?a=7');
is $r->status . ' ' . $r->header('Location'), "301 http://localhost:$port/there?x=7", 'return 301';
like $r->body, qr{<title>301 Moved Permanently</title>}, 'its page';
is get('/return/302')->header('Location'),                'http://other.test/', 'return 302';
is st('/return/303'),                                     303,                  'return 303';
is get('/return/307', host => 'a.b')->header('Location'), 'http://a.b/there',   'return 307';
is st('/return/308'),                                     308,                  'return 308';
$r = get('/return/url');
is $r->status . ' ' . $r->header('Location'), '302 http://other.test/u', 'return URL';
is get('/return/scheme')->header('Location'), 'http://a.test',           'return $scheme://...';
like body('/return/404'),
    qr{^404 <html>\r\n<head><title>404 Not Found</title></head>\r\n<body>\r\n<center><h1>404 Not Found</h1></center>\r\n<hr><center>\w+/[\w.]+</center>\r\n</body>\r\n</html>\r\n},
    'the built-in page';
is get('/return/404')->header('Content-Type'), 'text/html', 'its type';
is body('/return/404t'),                       "404 no\n",  'return 404 with text';
is st("/return/$_"),                           $_,          "return $_" for 418, 500, 503;
is get('/return/444')->status,                 0,           'return 444: closed without an answer';
is body('/return/empty'),                      '200 ',      'return 200 ""';

# --- access ---------------------------------------------------------------------------------------
is st('/satisfy/all/a.txt'),                   200, 'allow';
is st('/deny/a.txt'),                          403, 'deny all';
is st('/denyone/a.txt'),                       403, 'deny one';
is st('/allownet/a.txt'),                      200, 'allow a network';
is st('/allowother/a.txt'),                    403, 'not of the networks';
is st('/denyreturn/'),                         200, 'rewrite runs before access';
is st('/limitexcept/a.txt'),                   200, 'limit_except: GET';
is $p->head('/limitexcept/a.txt')->status,     200, 'limit_except GET allows HEAD';
is $p->post('/limitexcept/a.txt', '')->status, 403, 'limit_except: POST';
is body('/denypage/x'),                        '200 named:/denypage/x', 'error_page of 403';
ok $p->wait_log(
    qr/\[error\] \d+#\d+: \*\d+ access forbidden by rule, client: 127\.0\.0\.1, server: localhost, request: "GET \/deny\/a\.txt HTTP\/1\.1", host: "localhost"/
), 'and its log line';

# --- if, set, rewrite -----------------------------------------------------------------------------
for (
    ['arg',   ['a=1',     'yes'],   ['',        'no'], ['a=', 'no'], ['a=0', 'no']],
    ['eq',    ['a=b',     'yes'],   ['a=B',     'no'], ['',   'no']],
    ['ne',    ['a=b',     'no'],    ['a=c',     'yes']],
    ['re',    ['a=x12',   'yes12'], ['a=X12',   'no']],
    ['rei',   ['a=Xy',    'yes'],   ['a=y',     'no']],
    ['nre',   ['a=x',     'no'],    ['a=y',     'yes']],
    ['nrei',  ['a=X',     'no'],    ['a=y',     'yes']],
    ['f',     ['a=a.txt', 'yes'],   ['a=dir',   'no'], ['a=zz', 'no']],
    ['nf',    ['a=a.txt', 'no'],    ['a=zz',    'yes']],
    ['d',     ['a=dir',   'yes'],   ['a=a.txt', 'no']],
    ['e',     ['a=dir',   'yes'],   ['a=a.txt', 'yes'], ['a=zz', 'no']],
    ['x',     ['a=noext', 'yes'],   ['a=a.txt', 'no']],
    ['zero',  ['',        'no']],
    ['break', ['a=1',     '404'], ['',    'after']],
    ['last',  ['',        '3'],   ['a=1', '13'], ['a=1&b=1', '123']]
    )
{
    my ($name, @cases) = @$_;
    for (@cases) {
        $r = get("/if/$name?$_->[0]");
        is $r->status == 200 ? $r->body : $r->status, $_->[1], "if $name ($_->[0])";
    }
}

sub hdrs {
    my $r = get("/if/hdr/a.txt$_[0]");
    return join '', map { defined $r->header("X-$_") ? $_ : () } 0 .. 2;
}
is hdrs(''),                '0',                  'if: none true';
is hdrs('?a=1'),            '1',                  'if: one true replaces the settings';
is hdrs('?a=1&b=1'),        '2',                  'if: the last true one';
is body('/rw/last/z?q'),    '200 ret2:/ret2/z:q', 'rewrite last';
is body('/rw/break/a.txt'), "200 0123456789\n",   'rewrite break';
is get('/rw/redirect/z?q=1')->header('Location'), "http://localhost:$port/x/z?q=1",
    'rewrite redirect';
is st('/rw/redirect/z'), 302, 'with 302';
is get('/rw/permanent/z?q=1')->header('Location'), "http://localhost:$port/x/z?p=q&q=1",
    'rewrite permanent joins the arguments';
is st('/rw/permanent/z'),                301,                          'with 301';
is get('/rw/abs/z')->header('Location'), 'http://other.test/z',        'rewrite to a URL redirects';
is body('/rw/args/z?q=1'),               '200 ret2:/ret2/z:new=1&q=1', 'new arguments go first';
is body('/rw/noargs/z?q=1'),             '200 ret2:/ret2/z:',          'a final ? drops the old';
is body('/rw/chain/z'),   '200 ret2:/ret2/m-z:', 'one after the other, then the search';
is body('/rw/named/abc'), '200 ret2:/ret2/abc:', 'named captures';
is body('/rw/miss/z'),    '200 miss:[]',         'a miss leaves no captures';
is body('/cap/zz'),       '200 [][zz]',          'a failed match empties $1';
$p->with(
    'map',
    sub {
        is body('/map?v=one'), '200 1',     'map: a string';
        is body('/map?v=two'), '200 re-wo', 'map: a regex with a capture';
        is body('/map?v=x'),   '200 none',  'map: default';
    }
);
is $p->get('/vars?A=1&b', headers => ['X-Y', 'xy', 'Cookie', 'j=0; k=v; l=1'])->body,
    "http|$port|127.0.0.1|127.0.0.1|GET|?|A=1&b|1|/vars|A=1&b|HTTP/1.1|xy|v|||", 'variables';
$p->stop;

# --- which location -------------------------------------------------------------------------------
my $l = Proxyd->new(conf => <<'EOT');
http {
    server {
        listen 127.0.0.1:{{port}};
        location / { return 200 root; }
        location = / { return 200 exactroot; }
        location /a { return 200 a; }
        location /a/ { return 200 aslash; }
        location = /a/b { return 200 exact; }
        location /a/b { return 200 ab; }
        location ^~ /a/np/ { return 200 noregex; }
        location ~ \.php$ { return 200 php; }
        location ~* \.(jpg|PNG)$ { return 200 "img-$1"; }
        location ~ ^/re/(?<part>[^/]+) { return 200 "re-$part"; }
        location ~ ^/re/second { return 200 never; }
        location /n/ {
            location /n/in/ { return 200 nested; }
            location = /n/eq { return 200 nestedexact; }
            location ~ \.php$ { return 200 nestedphp; }
            location ~ \.x$ { location ~ a\.x$ { return 200 deepregex; } return 200 nestedx; }
            return 200 outer;
        }
        location ^~ /nn/ { location ~ \.php$ { return 200 nnphp; } return 200 nn; }
        location "/sp ace" { return 200 space; }
        location /%41 { return 200 literalpercent; }
        location /Case { return 200 case; }
        location ~ ^/(v\d)/ { location ~ /(z\d)$ { return 200 "in:$1"; } return 200 "v:$1"; }
        location /slash/ { proxy_pass http://127.0.0.1:1; }
        location /slash2/ { return 200 s; }
    }
}
EOT
$l->start;
for (
    ['/',           'exactroot'],
    ['/x',          'root'],
    ['/a',          'a'],
    ['/ab',         'a'],
    ['/a/',         'aslash'],
    ['/a/b',        'exact'],
    ['/a/b/',       'ab'],
    ['/a/bc',       'ab'],
    ['/a/c',        'aslash'],
    ['/a/x.php',    'php'],
    ['/a/np/x.php', 'noregex'],
    ['/a/np/',      'noregex'],
    ['/a/np',       'aslash'],
    ['/x.php',      'php'],
    ['/x.PHP',      'root'],
    ['/x.jpg',      'img-jpg'],
    ['/x.JPG',      'img-JPG'],
    ['/x.png',      'img-png'],
    ['/re/abc/d',   're-abc'],
    ['/re/second',  're-second'],
    ['/re/',        'root'],
    ['/n/',         'outer'],
    ['/n/x',        'outer'],
    ['/n/in/',      'nested'],
    ['/n/in/x',     'nested'],
    ['/n/eq',       'nestedexact'],
    ['/n/x.php',    'nestedphp'],
    ['/n/in/x.php', 'nestedphp'],
    ['/n/y.x',      'nestedx'],
    ['/n/a.x',      'deepregex'],
    ['/nn/x.php',   'nnphp'],
    ['/nn/x.jpg',   'nn'],
    ['/sp%20ace',   'space'],
    ['/%41',        'root'],
    ['/%2541',      'literalpercent'],
    ['/case',       'root'],
    ['/Case',       'case'],
    ['/v1/q',       'v:v1'],
    ['/v1/z9',      'in:z9'],
    ['/a/../a/b',   'exact'],
    ['/?x',         'exactroot'],
    ['/a/b?x=.php', 'exact'],
    ['//a//b',      'exact'],
    ['/slash2',     'root']
    )
{
    is $l->get($_->[0])->body, $_->[1], "location of $_->[0]";
}
$r = $l->get('/slash?a=b');
is $r->status . ' ' . ($r->header('Location') || ''),
    '301 http://localhost:' . $l->port . '/slash/?a=b', 'a proxied prefix without its slash';
$l->stop;

# --- which server ---------------------------------------------------------------------------------
my $s = Proxyd->new(conf => <<'EOT');
http {
    server { listen 127.0.0.1:{{port}}; server_name first.test;
        return 200 "first|$host|$server_name"; }
    server { listen 127.0.0.1:{{port}} default_server; server_name _;
        return 200 "default|$host|$server_name"; }
    server { listen 127.0.0.1:{{port}}; server_name exact.test www.exact.test;
        return 200 "exact|$host|$server_name"; }
    server { listen 127.0.0.1:{{port}}; server_name *.wild.test; return 200 "wild|$host"; }
    server { listen 127.0.0.1:{{port}}; server_name *.deep.wild.test; return 200 "deep|$host"; }
    server { listen 127.0.0.1:{{port}}; server_name .dot.test; return 200 "dot|$host"; }
    server { listen 127.0.0.1:{{port}}; server_name mail.*; return 200 "tail|$host"; }
    server { listen 127.0.0.1:{{port}}; server_name mail.wild.*; return 200 "longtail|$host"; }
    server { listen 127.0.0.1:{{port}}; server_name ~^(?<sub>\w+)\.re\.test$;
        return 200 "re|$sub|$host"; }
    server { listen 127.0.0.1:{{port}}; server_name ~^x\d+\.re\.test$; return 200 never; }
    server { listen 127.0.0.1:{{port}}; server_name ""; return 200 "empty|$host"; }
    server { listen 127.0.0.1:{{port}}; server_name "~^(.+)\.many\.test$" other.many;
        return 200 "many|$1"; }
    server { listen 127.0.0.1:{{port:b}}; server_name b1.test; return 200 "b1|$host"; }
    server { listen 127.0.0.1:{{port:b}}; server_name b2.test exact.test; return 200 "b2|$host"; }
    server { listen 127.0.0.1:{{port:c}}; return 200 "c|$host|$server_name"; }
    server { listen *:{{port:d}}; server_name wild.addr; return 200 star; }
    server { listen 127.0.0.1:{{port:d}}; server_name one.addr; return 200 one; }
    server { listen 127.0.0.3:{{port:d}}; return 200 three; }
    server { listen unix:{{dir}}/s.sock; return 200 "unix|$remote_addr|$host"; }
    server { listen [::1]:{{port:v6}}; return 200 "v6|$remote_addr|$server_addr"; }
}
EOT
$s->start;
for (
    ['first.test',       'first|first.test|first.test'],
    ['nobody.test',      'default|nobody.test|_'],
    ['exact.test',       'exact|exact.test|exact.test'],
    ['www.exact.test',   'exact|www.exact.test|exact.test'],
    ['EXACT.test:99',    'exact|exact.test|exact.test'],
    ['a.wild.test',      'wild|a.wild.test'],
    ['a.b.wild.test',    'wild|a.b.wild.test'],
    ['wild.test',        'default|wild.test|_'],
    ['a.deep.wild.test', 'deep|a.deep.wild.test'],
    ['dot.test',         'dot|dot.test'],
    ['a.dot.test',       'dot|a.dot.test'],
    ['xdot.test',        'default|xdot.test|_'],
    ['mail.foo',         'tail|mail.foo'],
    ['mail.a.b',         'tail|mail.a.b'],
    ['mail.wild.x',      'longtail|mail.wild.x'],
    ['mail.wild.test',   'wild|mail.wild.test'],
    ['abc.re.test',      're|abc|abc.re.test'],
    ['x1.re.test',       're|x1|x1.re.test'],
    ['ABC.re.test',      're|abc|abc.re.test'],
    ['q.many.test',      'many|q'],
    ['other.many',       'many|'],
    ['exact.test.',      'exact|exact.test|exact.test']
    )
{
    is $s->get('/', host => $_->[0])->body, $_->[1], "server of $_->[0]";
}
is $s->request('GET', '/', version => '1.0', host => undef)->body, 'empty|',
    'no Host: the server named ""';
is $s->get('/', port => 'b', host => 'exact.test')->body, 'b2|exact.test',
    'names are of an address';
is $s->get('/', port => 'b', host => 'first.test')->body, 'b1|first.test',
    'the first is the default';
is $s->request('GET', '/', version => '1.0', host => undef, port => 'c')->body, 'c||',
    'no name at all';
is $s->get('/', port => 'd', host => 'x')->body, 'one', 'the address before the star';
is $s->get('/', port => '127.0.0.2:' . $s->port('d'), host => 'one.addr')->body, 'star',
    'the star takes the other addresses';
is $s->get('/', port => '127.0.0.3:' . $s->port('d'))->body, 'three', 'another address';
is $s->get('/', port => "unix:@{[ $s->dir ]}/s.sock")->body, 'unix|unix:|localhost',
    'a unix socket';
SKIP: {
    skip 'no IPv6', 1 unless -e '/proc/net/if_inet6';
    my $c = Proxyd::Http::connect_to('[::1]:' . $s->port('v6')) or skip 'no IPv6', 1;
    $c->send("GET / HTTP/1.0\r\n\r\n");
    is $c->response->body, 'v6|::1|::1', 'IPv6';
}
$s->stop;
done_testing;
