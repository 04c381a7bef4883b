# SPDX-License-Identifier: BSD-2-Clause
#
# Directory listings, charsets, fields, WebDAV: the same requests to this server and to nginx, the
# answers and what is on the disk afterwards held against each other.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/lib";
use Test::More;
use Proxyd::Differential;

umask 0;    # nginx leaves permissions to it, we do not
plan skip_all => 'no nginx to compare with' unless Proxyd::Differential::available();

my @fields = (
    'Server own',         'Date own',         'Content-Type x/y',      'Connection own',
    'Keep-Alive own',     'Location own',     'Vary Own',              'Last-Modified own',
    'ETag own',           'Expires own',      'Cache-Control own',     'Link own',
    'Accept-Ranges none', 'X-Own "$uri"',     'X-Empty "$arg_none"',   'Allow GET',
    'Age 5',              'Set-Cookie a=1',   'Content-Encoding own',  'Content-Range own',
    'Last-Modified "Fri, 14 Jul 2017 02:40:01 GMT"', 'Last-Modified ""', 'ETag ""', 'Cache-Control ""',
);
my $fields = '';
for (0 .. $#fields) {
    $fields .= "location /f/$_/ { alias {{dir}}/html/t/; add_header $fields[$_]; }\n"
        . "location /fp/$_/ { proxy_pass http://app/; add_header $fields[$_] always; }\n";
}
my @expires = ('1h', '-1', '0', 'epoch', 'max', 'off', 'modified 1h', 'modified +10y', 'modified -1h',
    'modified 0', '1y1M1w1d1h1m1s', '$arg_e', 'modified $arg_e');
my $expires = '';
for (0 .. $#expires) {
    $expires .= "location /e/$_/ { alias {{dir}}/html/t/; expires $expires[$_]; }\n"
        . "location /er/$_/ { expires $expires[$_]; return 200 x; }\n"
        . "location /ep/$_/ { expires $expires[$_]; proxy_pass http://app/; }\n";
}

my $conf = <<'EOT' =~ s/FIELDS/$fields/r =~ s/EXPIRES/$expires/r;
http {
    types { text/html html; text/plain txt; text/css css; }
    default_type application/octet-stream;
    charset_map one two { 80 81; 81 80; A0 41; C1 E0; }
    charset_map one utf-8 { 80 E282AC; C1 D0B0; C2 D0B1; E0 C3BC; FF C3BF; }
    charset_map two utf-8 { 80 D0B0; }
    charset_map iso-8859-5 _ { }
    upstream app { server 127.0.0.1:{{port:app}}; }
    server {
        listen 127.0.0.1:{{port}};
        server_name main.test;
        root {{dir}}/html;

        location /ai/ { autoindex on; }
        location /u8/ { alias {{dir}}/html/ai/; autoindex on; charset utf-8; }
        location /round/ { alias {{dir}}/html/ai/; autoindex on; autoindex_exact_size off; }
        location /local/ { alias {{dir}}/html/ai/; autoindex on; autoindex_localtime on; }
        location /xml/ { alias {{dir}}/html/ai/; autoindex on; autoindex_format xml; }
        location /json/ { alias {{dir}}/html/ai/; autoindex on; autoindex_format json; }
        location /jsonp/ { alias {{dir}}/html/ai/; autoindex on; autoindex_format jsonp; }
        location /gone/ { autoindex on; }
        location /ri/ { random_index on; }
        location /ridot/ { random_index on; }
        location /gif { empty_gif; }
        location /gif1h { empty_gif; expires max; charset utf-8; }

        location /cs/announce/ { charset one; alias {{dir}}/html/t/; }
        location /cs/off/ { charset off; alias {{dir}}/html/t/; }
        location /cs/types/ { charset one; charset_types text/css; alias {{dir}}/html/t/; }
        location /cs/any/ { charset one; charset_types *; alias {{dir}}/html/t/; }
        location /cs/bytes/ { charset two; source_charset one; alias {{dir}}/html/t/; }
        location /cs/back/ { charset one; source_charset two; alias {{dir}}/html/t/; }
        location /cs/to8/ { charset utf-8; source_charset one; alias {{dir}}/html/t/; }
        location /cs/from8/ { charset one; source_charset utf-8; alias {{dir}}/html/t/; }
        location /cs/same/ { charset ONE; source_charset one; alias {{dir}}/html/t/; }
        location /cs/var/ { charset $arg_c; source_charset one; alias {{dir}}/html/t/; }
        location /cs/svar/ { charset utf-8; source_charset $arg_s; alias {{dir}}/html/t/; }
        location /cs/var0/ { charset $arg_c; alias {{dir}}/html/t/; }
        location /cs/p/ { charset two; proxy_pass http://app/; }
        location /cs/po/ { charset utf-8; override_charset on; proxy_pass http://app/; }
        location /cs/ps/ { charset two; source_charset one; proxy_pass http://app/; }
        location /cs/pi/ { charset two; proxy_ignore_headers X-Accel-Charset; proxy_pass http://app/; }
        location /cs/pn/ { proxy_pass http://app/; }
        location /cs/redir { charset utf-8; return 302 /x; }
        location /cs/text { charset utf-8; default_type text/plain; return 200 "caf\xc3\xa9"; }
        location /cs/err { charset utf-8; return 404; }
        location /cs/if/ { alias {{dir}}/html/t/; charset one; if ($arg_x) { charset two; } }

        location /tf/proxy/ { proxy_pass http://app; try_files /t/a.html @tf; }
        location /q/ { proxy_pass http://app/n; try_files /t/a.html @tf; }
        location /z/ { proxy_pass http://app/n/; try_files /z/none /t/a.html @tf; }
        location /tf/literal/ { alias {{dir}}/html/t/; try_files /tf/literal/a.html @tf; }
        location /tf/var/ { alias {{dir}}/html/t/; try_files $uri /tf/var$arg_x =404; }
        location /tf/twice/ { alias {{dir}}/html/t/; try_files $uri /tf/twice//tf/show?$args; }
        location /tf/noslash { alias {{dir}}/html/t; try_files $uri$is_args /tf/noslash/tf/show?$args; }
        location ~ ^/tf/re/(.*)$ { alias {{dir}}/html/t; try_files $uri /$1 $1 =404; }
        location ~ ^/tf/whole/(.*)$ { alias {{dir}}/html/t/$1; try_files "" @tf; add_header X-F $request_filename; }
        location /tf/show { return 200 "show $uri $args"; }
        location @tf { return 200 "tf $uri $request_filename"; }
        location /et/ { add_header X-0 0; add_header ETag "\"x\""; add_header X-1 1; alias {{dir}}/html/t/; }
        location /etp/ { add_header X-0 0; add_header ETag x; add_header X-1 1; proxy_pass http://app/; }
        location /etnone/ { add_header X-0 0; add_header ETag ""; add_header X-1 1; alias {{dir}}/html/t/; }
        location /dav/ { dav_methods PUT DELETE MKCOL COPY MOVE; }
        location /davfull/ { alias {{dir}}/html/dav/; dav_methods PUT DELETE MKCOL COPY MOVE;
            create_full_put_path on; dav_access group:rw all:r; }
        location /davdeep/ { alias {{dir}}/html/dav/; dav_methods DELETE; min_delete_depth 3; }
        location /davput/ { dav_methods PUT; }

        location /trail/ { alias {{dir}}/html/t/; add_trailer X-T "$uri"; add_trailer X-E "$arg_e"; }
        location /trailp/ { proxy_pass http://app/; add_trailer X-T "$status"; }
        location /trail404 { add_trailer X-T t; return 404; }
        location /trail404a { add_trailer X-T t always; return 404; }
        location /trailoff/ { alias {{dir}}/html/t/; chunked_transfer_encoding off; add_trailer X-T t; }
        location /trail0/ { alias {{dir}}/html/t/; add_trailer X-T ""; }

        location /fr/ { proxy_pass http://app/; proxy_force_ranges on; }
        location /frs/ { proxy_pass http://app/; proxy_force_ranges on; charset two; source_charset one; }
        location /fr8/ { proxy_pass http://app/; proxy_force_ranges on; charset utf-8; source_charset one; }
        location /frm/ { proxy_pass http://app/; proxy_force_ranges on; max_ranges 2; }
        location /nr/ { proxy_pass http://app/; }
        FIELDS
        EXPIRES
    }
}
EOT

my %files = (
    (map { ("ai/$_" => '') } 'a', 'a:b', "b\xff\xfe", "c\x01x", 'q?u#o\'te"<&>.txt', 'sp ace+%25',
        (map { $_ x 49, $_ x 50, $_ x 51 } 'x', "\xc3\xa9", "\xe2\x82\xac"), '.hidden', 'd ir&<>/f',
        'dir/f', ('D' x 49) . '/f', ('E' x 50) . '/f', ('F' x 51) . '/f', ("\xc3\xbc" x 49) . '/f',
        ("\xc3\xb6" x 51) . '/f', "back\\slash", "tab\tbed", "line\nfeed"),
    (map { ("ai/s$_" => 'x' x $_) } 1, 1023, 9999, 10000, 10239, 10240, 10752, 1048575, 1048576,
        1572863, 1572864),
    'ri/only'       => "only\n",
    'ri/.not'       => "dot\n",
    'ridot/.not'    => "dot\n",
    't/a.html'      => "<p>\x80\x81\xa0\xc1\xc2\xe0\xff\xfe</p>\n",
    't/plain.txt'   => "only ascii\n",
    't/c.css'       => "c {}\n",
    't/bin'         => "\x80\n",
    't/u.html'      => "\xe2\x82\xac \xd0\xb0\xd0\xb1 \xc3\xbc \xe4\xb8\xad \xf0\x9f\x98\x80 end\n",
    't/big.html'    => "\x80\xc1 text " x 30_000,
    't/bigu.html'   => "\xe2\x82\xac\xd0\xb1 text \xe4\xb8\xad" x 20_000,
    'dav/f.txt'     => "file\n",
    'dav/g.txt'     => "other\n",
    'dav/c/a'       => "a\n",
    'dav/c/d/b'     => "b\n",
    'dav/c2/x'      => "x\n",
    'davput/x'      => "x\n",
);

my ($tested, $theirs) = Proxyd::Differential::start(conf => $conf, files => \%files,
    origins => { app => \&application });
for my $s ($tested, $theirs) {
    my $dir = $s->dir . '/html/ai';
    symlink 'nowhere', "$dir/dangling" or die $!;
    system 'touch', '-h', '-d', '2017-07-14 02:40:00 UTC', "$dir/dangling";
    symlink 'a', "$dir/link";
    system 'mkfifo', "$dir/fifo";
    utime 1_500_000_000, 1_500_000_000, "$dir/fifo", grep { -d } glob "'$dir'/*";
    opendir my $d, $dir or die $!;
    utime 1_500_000_000, 1_500_000_000, "$dir/$_" for grep { !/^\./ && -d "$dir/$_" } readdir $d;
}

sub application {
    my ($c) = @_;
    while (my $q = $c->request) {
        my ($name, $args) = $q->{uri} =~ m{/(\w*)(?:\?(.*))?$};
        my %a     = map { split /=/, $_, 2 } split /&/, defined $args ? $args : '';
        my %heads = (
            html => "Content-Type: text/html",
            one  => "Content-Type: text/html; charset=one",
            caps => "Content-Type: text/html; Charset=\"ONE\"",
            unk  => "Content-Type: text/html; charset=unknown",
            accel  => "Content-Type: text/html\r\nX-Accel-Charset: two",
            accelu => "Content-Type: text/html\r\nX-Accel-Charset: unknown",
            accelo => "Content-Type: text/html; charset=one\r\nX-Accel-Charset: two",
            enc    => "Content-Type: text/html\r\nContent-Encoding: x-own",
            css    => "Content-Type: text/css",
            none   => "X-None: 1",
            fields => "Content-Type: text/html\r\nCache-Control: a\r\nCache-Control: b\r\nExpires: x\r\n"
                . "ETag: \"e\"\r\nLast-Modified: Fri, 14 Jul 2017 02:40:00 GMT\r\nLink: <a>\r\nServer: app",
            ranges => "Content-Type: text/html\r\nAccept-Ranges: bytes\r\nETag: \"e\"",
            weak   => "Content-Type: text/html\r\nETag: W/\"e\"",
        );
        my $head = $heads{$name} || $heads{html};
        my $body = "\x80\x81\xc1 text \xe0 0123456789\n";
        if ($name eq 'chunk') {
            $c->write("HTTP/1.1 200 OK\r\n$head\r\nTransfer-Encoding: chunked\r\n\r\n"
                    . ($q->{method} eq 'HEAD' ? '' : sprintf "%x\r\n$body\r\n0\r\n\r\n", length $body));
            next;
        }
        my $status = $name eq 'err' ? '404 Not Found' : '200 OK';
        $c->write("HTTP/1.1 $status\r\n$head\r\nContent-Length: " . length($body) . "\r\n\r\n"
                . ($q->{method} eq 'HEAD' ? '' : $body));
    }
}

my @table;
sub add { push @table, Proxyd::Differential::row(@_) }
sub both { add('GET', $_); add('HEAD', $_) for @_ }

# listings
for my $uri (qw(/ai/ /ai /u8/ /round/ /local/ /xml/ /json/ /jsonp/ /jsonp/?callback= /jsonp/?callback=a.b_1Z
    /jsonp/?callback=a%28 /jsonp/?callback=a! /jsonp/?x=1&callback=f&y /json/?callback=f /ai/dir/ /xml/dir/
    /gone/ /ai/.hidden /ai/dir /ri/ /ri/?a=b /ridot/ /ri /gif /gif1h /gif?x)) {
    add($_, $uri) for qw(GET HEAD);
}
add($_, '/ai/') for qw(POST PUT DELETE OPTIONS);
add($_, '/ri/') for qw(POST PUT);
add($_, '/gif') for qw(POST PUT DELETE);
add('POST', '/gif', 'body');
add('GET', '/gif', 'If-Modified-Since', 'Mon, 28 Sep 1970 06:00:00 GMT');
add('GET', '/gif', 'Range', 'bytes=0-5');

add('GET', "/tf/$_/a.html"), add('GET', "/tf/$_/none?x=/a.html") for qw(proxy literal var twice noslash re whole);
add('GET', $_) for qw(/q/x /z/x?y /z/a.html /et/a.html /etp/html /etp/fields /etnone/a.html);

# charsets
for my $where (qw(announce off types any bytes back to8 same)) {
    for my $f (qw(a.html plain.txt c.css bin big.html missing)) {
        add('GET', "/cs/$where/$f");
    }
    add('HEAD', "/cs/$where/a.html");
    add('GET', "/cs/$where/a.html", 'Range', 'bytes=3-5');
}
add('GET', "/cs/from8/$_") for qw(u.html plain.txt bigu.html);
add('GET', "/cs/if/a.html$_") for '', '?x=1';
add('GET', "/cs/var/a.html?c=$_") for 'one', 'two', 'utf-8', 'UTF-8', 'unknown', '', 'iso-8859-5', 'off';
add('GET', "/cs/var0/a.html?c=$_") for 'one', 'utf-8', 'unknown', '';
add('GET', "/cs/svar/a.html?s=$_") for 'one', 'two', 'utf-8', 'unknown', '';
for my $where (qw(p po ps pi pn)) {
    add('GET', "/cs/$where/$_") for qw(html one caps unk accel accelu accelo enc css none chunk);
    add('HEAD', "/cs/$where/one");
}
add('GET', "/cs/$_") for qw(redir text err);

# fields
for (0 .. $#fields) {
    add('GET', "/f/$_/a.html");
    add('GET', "/f/$_/missing");
    add('GET', "/fp/$_/$_") for qw(fields err html);
}
for (0 .. $#expires) {
    for my $u ("/e/$_/a.html", "/e/$_/missing", "/er/$_/", "/ep/$_/fields", "/ep/$_/html") {
        add('GET', $u);
        add('GET', "$u?e=$_") for $expires[$_] =~ /arg/ ? qw(1h -1 epoch max off x 0) : ();
    }
}
for my $u (qw(/trail/a.html /trail/a.html?e=1 /trail/missing /trailp/html /trailp/chunk /trailp/err /trail404
    /trail404a /trailoff/a.html /trail0/a.html)) {
    add($_, $u) for qw(GET HEAD);
}
push @table, ["GET /trail/a.html HTTP/1.0\r\n\r\n", ['GET']];

# ranges of proxied answers
for my $where (qw(fr frs fr8 frm nr)) {
    for my $u (qw(html ranges weak fields chunk err)) {
        add('GET', "/$where/$u", 'Range', $_)
            for 'bytes=0-3', 'bytes=-4', 'bytes=5-', 'bytes=0-1,3-4', 'bytes=0-1,3-4,6-7',
            'bytes=0-9,5-12', 'x';
        # Not with the origin's fields: a 416 of nginx's goes out with what they say of another answer.
        add('GET', "/$where/$u", 'Range', 'bytes=90-') if $u ne 'fields';
        add('HEAD', "/$where/$u", 'Range', 'bytes=0-3');
        add('GET', "/$where/$u");
    }
    add('GET', "/$where/ranges", 'Range', 'bytes=0-3', 'If-Range', $_) for '"e"', '"f"', 'W/"e"';
    # Not with the weak tag that is there: nginx takes it for a strong one.
    add('GET', "/$where/weak", 'Range', 'bytes=0-3', 'If-Range', $_) for 'W/"f"', '"e"';
    add('GET', "/$where/fields", 'Range', 'bytes=0-3', 'If-Range', $_)
        for 'Fri, 14 Jul 2017 02:40:00 GMT', 'Fri, 14 Jul 2017 02:40:01 GMT';
}
Proxyd::Differential::compare($tested, $theirs, @table);

# --- WebDAV: step by step, with the disk compared as well -------------------------------------------
sub tree {
    my ($s) = @_;
    my $dir = $s->dir . '/html';
    my $out = qx{cd '$dir' && find dav davput -printf '%p %y %m ' -a \\( -type f -exec md5sum {} \\; -o -printf '\\n' \\) | sort};
    return $out;
}
# Not here, for we do otherwise: a PUT without a body, or into a directory that is not there; a copy
# onto itself, into itself, or to where there is no directory; Depth: 0 of a collection; a
# destination in another location, or with a malformed escape.
my @steps = (
    ['PUT', '/dav/new', 'hello'], ['PUT', '/dav/new', 'again'], ['PUT', '/dav/', 'x'], ['PUT', '/dav/c', 'x'],
    ['PUT', '/dav/r', 'Content-Range', 'bytes 0-0/1', 'x'],
    ['PUT', '/dav/dated', 'Date', 'Fri, 14 Jul 2017 02:40:00 GMT', 'x'],
    ['GET', '/dav/dated'], ['PUT', '/dav/sp%20%c3%a4%3f', 'x'], ['PUT', '/davfull/p/q/r', 'deep'],
    ['PUT', '/dav/large', 'z' x 500_000], ['PUT', '/dav/chunked', 'Transfer-Encoding', 'chunked', "3\r\nabc\r\n0\r\n\r\n"],
    ['PUT', '/t/a.html', 'x'], ['PUT', '/dav/exp', 'Expect', '100-continue', 'x'],
    ['MKCOL', '/dav/m'], ['MKCOL', '/dav/m/'], ['MKCOL', '/dav/m/'], ['MKCOL', '/dav/n/o/'], ['MKCOL', '/dav/f.txt/'],
    ['MKCOL', '/dav/body/', 'x'], ['MKCOL', '/davfull/mm/'],
    ['DELETE', '/dav/none'], ['DELETE', '/dav/f.txt/'], ['DELETE', '/dav/c'], ['DELETE', '/dav/none/'],
    ['DELETE', '/dav/c/', 'Depth', '0'], ['DELETE', '/dav/c/', 'Depth', '1'], ['DELETE', '/dav/c/', 'Depth', 'x'],
    ['DELETE', '/dav/new', 'Depth', '1'], ['DELETE', '/dav/new', 'x'], ['DELETE', '/dav/new', 'Depth', '0'],
    ['DELETE', '/dav/dated', 'Depth', 'infinity'], ['DELETE', '/davdeep/c/'], ['DELETE', '/davdeep/c/d/'],
    ['DELETE', '/davput/x'], ['COPY', '/davput/x', 'Destination', '/davput/y'],
    ['COPY', '/dav/f.txt'], ['COPY', '/dav/f.txt', 'Destination', ''], ['COPY', '/dav/f.txt', 'Destination', '/dav/copy'],
    ['COPY', '/dav/f.txt', 'Destination', '/dav/copy'], ['COPY', '/dav/g.txt', 'Destination', '/dav/copy', 'Overwrite', 'F'],
    ['COPY', '/dav/g.txt', 'Destination', '/dav/copy', 'Overwrite', 'x'],
    ['COPY', '/dav/g.txt', 'Destination', '/dav/copy', 'Overwrite', 't'],
    ['COPY', '/dav/f.txt', 'Destination', 'http://main.test/dav/copy2'],
    ['COPY', '/dav/f.txt', 'Destination', 'http://main.test:99/dav/copy3'],
    ['COPY', '/dav/f.txt', 'Destination', 'https://main.test/dav/copy4'],
    ['COPY', '/dav/f.txt', 'Destination', 'http://other.test/dav/copy5'],
    ['COPY', '/dav/f.txt', 'Destination', 'http://main.test'], ['COPY', '/dav/f.txt', 'Destination', 'dav/x'],
    (map { ['COPY', '/dav/f.txt', 'Destination', $_] } '/dav/../../x', '/dav/%2e%2e/%2e%2e/x', '/../x', '/dav/%00x',
        '/dav/c2', '/dav/c2/', '/dav/a%20b', '/dav/./dot', '/dav/c2/../up'),
    ['COPY', '/dav/f.txt', 'Destination', '/dav/x', 'body'], ['COPY', '/dav/none', 'Destination', '/dav/x'],
    ['COPY', '/dav/c2', 'Destination', '/dav/c3'], ['COPY', '/dav/c2/', 'Destination', '/dav/c3'],
    ['COPY', '/dav/c2/', 'Destination', '/dav/c3/'], ['COPY', '/dav/c2/', 'Destination', '/dav/c4/', 'Depth', '1'],
    ['COPY', '/dav/f.txt', 'Destination', '/dav/copy9', 'Depth', '0'],
    ['COPY', '/dav/f.txt', 'Destination', '/dav/copy8', 'Depth', '1'],
    ['COPY', '/dav/c2/', 'Destination', '/dav/c/'], ['COPY', '/dav/c2/', 'Destination', '/dav/c3/', 'Overwrite', 'F'],
    ['MOVE', '/dav/copy', 'Destination', '/dav/moved'], ['MOVE', '/dav/copy', 'Destination', '/dav/moved'],
    ['MOVE', '/dav/moved', 'Destination', '/dav/g.txt'], ['MOVE', '/dav/g.txt', 'Destination', '/dav/way/to/it'],
    ['MOVE', '/dav/copy2', 'Destination', '/dav/copy3', 'Overwrite', 'F'],
    ['MOVE', '/dav/copy2', 'Destination', '/dav/x', 'Depth', '0'],
    ['MOVE', '/dav/c3/', 'Destination', '/dav/c5/'], ['MOVE', '/dav/c5/', 'Destination', '/dav/c2/'],
    ['MOVE', '/dav/c2/', 'Destination', '/dav/c6/', 'Depth', '0'], ['MOVE', '/dav/c2/', 'Destination', '/dav/c6/', 'Depth', 'infinity'],
    ['DELETE', '/dav/c6/'], ['DELETE', '/dav/way/'], ['POST', '/dav/f.txt'], ['PROPFIND', '/dav/'], ['GET', '/dav/f.txt'],
);
for my $step (@steps) {
    my $row  = Proxyd::Differential::row(@$step);
    my $what = join ' ', map { substr $_, 0, 60 } @$step;
    # what was written just now has the present's date
    my ($ours, $nginx) = map { s/^(Last-Modified|ETag): .*/$1: TIME/mgr } map { Proxyd::Differential::answer($_, $row) } $tested, $theirs;
    is $ours, $nginx, $what;
    is tree($tested), tree($theirs), "the disk after $what";
}
for ($tested, $theirs) { $_->stop }
done_testing;
