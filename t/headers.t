# SPDX-License-Identifier: BSD-2-Clause
#
# Fields: add_header, add_trailer and their inheritance, expires, more_set_headers and its relatives,
# proxy_set_header_inherit, early hints, ranges of proxied answers.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/lib";
use POSIX ();
use Test::More;
use Time::Local qw(timegm);
use Proxyd;

my @codes = (200, 201, 204, 206, 301, 302, 303, 304, 307, 308, 400, 403, 404, 405, 418, 500, 502, 503);
my $codes = join "\n", map {
    "location = /code/$_ { add_header X-A a; add_header X-B b always; add_trailer X-T t; add_trailer X-U u always;"
        . " expires 1h; return $_; }"
} @codes;
my @expires = ('1h', '+2d', '-1', '-1h', '0', 'epoch', 'max', 'off', 'modified 1h', 'modified +1000000000',
    'modified -1h', '@15h30m', '@0', '@24h', '$arg_e', 'modified $arg_e');
my $expires = join "\n", map { "location /expires/$_/ { alias {{dir}}/html/; expires $expires[$_]; }" } 0 .. $#expires;

my $statuses = join "\n", map {
    "location = /status/$_ { more_set_headers -s 404 -s '500 503' 'X-St: s'; more_set_headers -s '' 'X-All: a'; return $_; }"
} 200, 404, 500, 503, 403;

my $p = Proxyd->new(
    files => { 'html/a.txt' => "0123456789\n", 'html/a.html' => "<p>\n" },
    conf  => <<'EOT' =~ s/CODES/$codes/r =~ s/EXPIRES/$expires/r =~ s/STATUSES/$statuses/r);
http {
    types { text/plain txt; text/html html; }
    root {{dir}}/html;
    map $sent_http_content_type $by_type { default off; text/html 1h; ~^text/plain max; }
    upstream app { server 127.0.0.1:{{port:app}}; }
    add_header X-Http h;
    add_trailer X-Thttp h;
    more_set_headers "X-More-Http: h";
    proxy_set_header X-Http h;
    server {
        listen 127.0.0.1:{{port}};
        CODES
        EXPIRES
        location /bytype/ { alias {{dir}}/html/; expires $by_type; }

        # ranges
        location /refused/ { alias {{dir}}/html/; add_header X-A a; add_header X-B b always; expires 1h;
            location /refused/page/ { alias {{dir}}/html/; error_page 416 /page416; } }
        location /page416 { add_header X-A page; add_header X-B page always; return 416; }

        # inheritance
        location /on/ { return 200 x; }
        location /on/own { add_header X-Own o; add_trailer X-Town o; return 200 x; }
        location /off/ { add_header_inherit off; add_trailer_inherit off; return 200 x;
            location /off/own { add_header X-Own o; add_trailer X-Town o; return 200 x;
                location /off/own/inner { return 200 x; } }
            location /off/back { add_header_inherit on; return 200 x; } }
        location /merge/ { add_header_inherit merge; add_trailer_inherit merge; add_header X-One 1; add_trailer X-Tone 1; return 200 x;
            location /merge/two { add_header X-Two 2;
                if ($arg_i) { add_header X-If i; return 200 x; } return 200 x; }
            location /merge/none { return 200 x; }
            location /merge/on { add_header_inherit on; add_header X-On o; return 200 x; }
            location /merge/off { add_header_inherit off; add_header X-Off o; return 200 x; }
            location /merge/same { add_header X-One again; return 200 x; } }

        # trailers
        location /trailer { add_trailer X-Done "$request_completion|$status|$upstream_response_length"; add_trailer X-Arg "$arg_t";
            add_trailer X-Lines "$uri"; proxy_pass http://app/plain; }
        location /trailerboth { add_trailer X-Ours o; proxy_pass_trailers on; proxy_pass http://app/trailers; }

        # headers_more
        location /more/ { proxy_pass http://app/;
            location /more/set { more_set_headers "X-App: changed" "X-New: $arg_v" 'Server: mine'; proxy_pass http://app/fields; }
            location /more/type { more_set_headers "Content-Type: text/x-own"; proxy_pass http://app/fields; }
            location /more/clear { more_clear_headers X-App Server Date ETag Last-Modified; proxy_pass http://app/fields; }
            location /more/wild { more_clear_headers "X-Hidden-*" "Last-*"; proxy_pass http://app/fields; }
            location /more/empty { more_set_headers "X-App: " "X-Two"; proxy_pass http://app/fields; }
            location /more/order { more_set_headers "X-S: 1"; more_clear_headers X-S; more_set_headers "X-S: 2"; proxy_pass http://app/fields; }
            location /more/length { more_clear_headers Content-Length; proxy_pass http://app/fields; }
        }
        STATUSES
        location /statustype/ { more_set_headers -s 200 -t 'text/html text/css' "X-Both: b"; alias {{dir}}/html/; }
        location /moreif/ { more_set_headers "X-If: no"; alias {{dir}}/html/; if ($arg_i) { more_set_headers "X-If: yes"; } }
        location /moreadd/ { more_clear_headers X-Http; more_set_headers "X-Http: mine"; add_header X-Http add; alias {{dir}}/html/; }
        location /morelm/ { more_set_headers "Last-Modified: never" "ETag: own"; alias {{dir}}/html/; }
        location /moreranges/ { more_clear_headers Accept-Ranges; alias {{dir}}/html/; }
        location /morelines { more_set_headers "X-Lines: $arg_x$uri"; return 200 x; }
        location /in/ { more_set_input_headers "X-In: $arg_v" "X-Two: 2"; more_clear_input_headers X-Gone "X-Wild-*";
            more_set_input_headers -r "X-Only: replaced"; proxy_pass http://app/echo; }
        location /inhost/ { more_set_input_headers "Host: Other.Test:81"; proxy_set_header Host $http_host; proxy_set_header X-Host $host;
            proxy_set_header X-Port $request_port; proxy_pass http://app/echo; }
        location /intype/ { more_set_input_headers -t "text/x-own text/x-two" "X-Typed: t"; proxy_pass http://app/echo; }
        location /innest/ { more_set_input_headers "X-A: 1" "X-B: 1";
            location /innest/b { more_set_input_headers "X-B: 2"; proxy_pass http://app/echo; } }
        location /inlines/ { more_set_input_headers "X-Uri: $uri"; proxy_pass http://app/echo/; }
        location /inenc/ { more_clear_input_headers Accept-Encoding Range; alias {{dir}}/html/; }

        location /addloc { add_header Location /rel; add_trailer X-Seen $sent_http_location; return 201 made; }
        location /addloc2 { add_header Location /rel; return 302 /own; }
        # proxy_set_header_inherit
        location /ph/ { proxy_pass http://app/echo;
            location /ph/own { proxy_set_header X-Own o; proxy_pass http://app/echo; }
            location /ph/merge { proxy_set_header_inherit merge; proxy_set_header X-Own o; proxy_pass http://app/echo;
                location /ph/merge/in { proxy_set_header X-In i; proxy_set_header x-own other; proxy_pass http://app/echo; }
                location /ph/merge/none { proxy_pass http://app/echo; } }
            location /ph/off { proxy_set_header_inherit off; proxy_pass http://app/echo;
                location /ph/off/own { proxy_set_header X-Own o; proxy_pass http://app/echo;
                    location /ph/off/own/in { proxy_pass http://app/echo; } } }
        }
        # early hints
        location /hints/ { early_hints $arg_h 0; proxy_pass http://app/hints; }
        location /hintshide/ { early_hints 1; proxy_hide_header X-Secret; proxy_pass http://app/hints; }
        location /hintsno/ { proxy_pass http://app/hints; }
        location /hintsmany/ { early_hints 1; proxy_pass http://app/many; }
        location /hintsflood/ { early_hints 1; proxy_buffer_size 4k; proxy_pass http://app/flood; }
        location /hintsthen/ { early_hints 1; proxy_pass http://app/hintsthen; proxy_intercept_errors on; error_page 404 /a.txt; }

        # ranges
        location /fr/ { proxy_force_ranges on; proxy_pass http://app/; }
        location /frbuf/ { proxy_force_ranges on; proxy_buffering off; proxy_pass http://app/; }
        location /nofr/ { proxy_pass http://app/; }
        location /frmax0/ { proxy_force_ranges on; max_ranges 0; proxy_pass http://app/; }
    }
}
EOT

my $big = join '', map { sprintf "%07d\n", $_ } 1 .. 100_000;
my $echo = Proxyd::Origin::echo_handler();
$p->origin('app', sub {
    my ($c) = @_;
    # what the echo handler reads is ours to hand on
    while (my $q = $c->request) {
        my ($name) = $q->{uri} =~ m{^/(\w+)};
        my $reply = sub { my ($head, $body) = @_; $c->write("HTTP/1.1 $head\r\nContent-Length: " . length($body) . "\r\n\r\n" . ($q->{method} eq 'HEAD' ? '' : $body)) };
        if ($name eq 'echo') {
            $reply->("200 OK\r\nContent-Type: application/json", JSON::PP->new->canonical->latin1->encode({ headers => $q->{headers}, uri => $q->{uri} }));
        }
        elsif ($name eq 'fields') {
            $reply->("200 Fine\r\nContent-Type: text/html; charset=x\r\nX-App: 1\r\nX-App: 2\r\nX-Two: t\r\nX-Hidden-A: a\r\nX-HIDDEN-b: b\r\n"
                    . "ETag: \"e\"\r\nLast-Modified: Fri, 14 Jul 2017 02:40:00 GMT\r\nServer: app", "body\n");
        }
        elsif ($name eq 'trailers') {
            $c->write("HTTP/1.1 200 OK\r\nTrailer: X-Theirs\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nX-Theirs: t\r\n\r\n");
        }
        elsif ($name eq 'hints') {
            $c->write("HTTP/1.1 103 Early Hints\r\nLink: </a>; rel=preload\r\nX-Secret: s\r\nServer: app\r\nDate: x\r\nContent-Type: a/b\r\nConnection: X-Hop, keep-alive\r\n"
                    . "X-Hop: h\r\nKeep-Alive: a\r\nLink: </b>\r\nContent-Length: 5\r\nSet-Cookie: a=b\r\n\r\n");
            $reply->("200 OK\r\nLink: </final>", "final\n");
        }
        elsif ($name eq 'many') {
            $c->write("HTTP/1.1 100 Continue\r\n\r\n" . join '', map { "HTTP/1.1 103 x\r\nLink: </$_>\r\n\r\n" } 1 .. 3);
            $reply->("200 OK", "final\n");
        }
        elsif ($name eq 'flood') {
            $c->write(join '', map { "HTTP/1.1 103 x\r\nLink: </$_>\r\n\r\n" } 1 .. 1000);
            $reply->("200 OK", "final\n");
        }
        elsif ($name eq 'hintsthen') {
            $c->write("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n");
            $reply->('404 Not Found', '');
        }
        elsif ($name eq 'big')   { $reply->("200 OK\r\nETag: \"e\"\r\nLast-Modified: Fri, 14 Jul 2017 02:40:00 GMT", $big) }
        elsif ($name eq 'none')  { $reply->("200 OK", '') }
        elsif ($name eq 'part')  { $reply->("206 Partial Content\r\nContent-Range: bytes 0-1/5", 'ab') }
        elsif ($name eq 'chunk') { $c->write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n") }
        else                     { $reply->("200 OK\r\nContent-Type: text/plain", "plain\n") }
    }
});
$p->start;

sub fields { my ($r, $re) = @_; return join ' ', map { "$_->[0]=$_->[1]" } grep { $_->[0] =~ $re } @{ $r->headers } }
sub trailers { return join ' ', map { "$_->[0]=$_->[1]" } @{ $_[0]{trailers} || [] } }
sub json { return JSON::PP->new->latin1->decode($_[0]->body) }
sub sent { my ($r, $name) = @_; return join ',', map { $_->[1] } grep { lc $_->[0] eq lc $name } @{ json($r)->{headers} } }

# --- statuses ---------------------------------------------------------------------------------------
my %usual = map { $_ => 1 } 200, 201, 204, 206, 301, 302, 303, 304, 307, 308;
for my $code (@codes) {
    my $r = $p->get("/code/$code");
    is fields($r, qr/^X-[AB]$/), $usual{$code} ? 'X-A=a X-B=b' : 'X-B=b', "add_header with $code";
    is defined $r->header('Expires') ? 1 : 0, $usual{$code} ? 1 : 0, "expires with $code";
    my $want = $code == 204 || $code == 304 ? '' : $usual{$code} ? 'X-T=t X-U=u' : 'X-U=u';
    is trailers($r), $want, "add_trailer with $code";
}

# --- expires ----------------------------------------------------------------------------------------
my $mtime = 1_500_000_000;
utime $mtime, $mtime, $p->dir . "/html/a.$_" for qw(txt html);
my %months = map { (qw(Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec))[$_] => $_ } 0 .. 11;
sub seconds {
    my ($d) = @_;
    return undef unless defined $d && $d =~ /^\w{3}, (\d\d) (\w{3}) (\d{4}) (\d\d):(\d\d):(\d\d) GMT$/;
    return timegm($6, $5, $4, $1, $months{$2}, $3);
}
# what it says, with Expires as an offset from Date
sub expiry {
    my ($uri) = @_;
    my $r = $p->get($uri);
    my $e = $r->header('Expires');
    my $offset = defined $e ? seconds($e) - seconds($r->header('Date')) : 'none';
    return ($offset, $r->header('Cache-Control'), $e);
}
my @want = (
    [3600, 'max-age=3600'], [172_800, 'max-age=172800'], [-1, 'no-cache'], [-3600, 'no-cache'], [0, 'max-age=0'],
    ['Thu, 01 Jan 1970 00:00:01 GMT', 'no-cache'], ['Thu, 31 Dec 2037 23:55:55 GMT', 'max-age=315360000'], ['none', undef],
    ['Fri, 14 Jul 2017 03:40:00 GMT', 'no-cache'], undef, ['Fri, 14 Jul 2017 01:40:00 GMT', 'no-cache'],
);
for (0 .. $#want) {
    my $w = $want[$_] or next;
    my ($offset, $control, $e) = expiry("/expires/$_/a.txt");
    is $w->[0] =~ /GMT/ ? $e : $offset, $w->[0], "expires $expires[$_]";
    is $control, $w->[1], "expires $expires[$_]: Cache-Control";
}
for (11 .. 13) {
    my ($offset, $control) = expiry("/expires/$_/a.txt");
    cmp_ok $offset, '>', 0, "expires $expires[$_] is to come";
    cmp_ok $offset, '<=', 86_400 + 3600, 'within a day';
    is $control, "max-age=$offset", 'and said twice';
}
my $i = 14;
for (['1h', 3600, 'max-age=3600'], ['-1', -1, 'no-cache'], ['off', 'none', undef], ['x', 'none', undef], ['', 'none', undef],
    ['%40x', 'none', undef]) {
    my ($offset, $control) = expiry("/expires/$i/a.txt?e=$_->[0]");
    is $offset, $_->[1], "expires \$arg_e, '$_->[0]'";
    is $control, $_->[2], 'Cache-Control';
}
is((expiry("/expires/15/a.txt?e=1h"))[2], 'Fri, 14 Jul 2017 03:40:00 GMT', 'modified with a variable');
is((expiry('/bytype/a.html'))[0], 3600, 'by type');
is((expiry('/bytype/a.txt'))[1], 'max-age=315360000', 'another');

# --- inheritance ------------------------------------------------------------------------------------
my %inherited = (
    '/on/'             => ['X-Http=h',                        'X-Thttp=h'],
    '/on/own'          => ['X-Own=o',                         'X-Town=o'],
    '/off/'            => ['',                                ''],
    '/off/own'         => ['X-Own=o',                         'X-Town=o'],
    '/off/own/inner'   => ['',                                ''],
    '/off/back'        => ['',                                ''],
    '/merge/'          => ['X-One=1 X-Http=h',                'X-Tone=1 X-Thttp=h'],
    '/merge/two'       => ['X-Two=2 X-One=1 X-Http=h',        'X-Tone=1 X-Thttp=h'],
    '/merge/two?i=1'   => ['X-If=i X-Two=2 X-One=1 X-Http=h', 'X-Tone=1 X-Thttp=h'],
    '/merge/none'      => ['X-One=1 X-Http=h',                'X-Tone=1 X-Thttp=h'],
    '/merge/on'        => ['X-On=o',                          'X-Tone=1 X-Thttp=h'],
    '/merge/off'       => ['X-Off=o',                         'X-Tone=1 X-Thttp=h'],
    '/merge/same'      => ['X-One=again X-One=1 X-Http=h',    'X-Tone=1 X-Thttp=h'],
);
for (sort keys %inherited) {
    my $r = $p->get($_);
    is fields($r, qr/^X-(?!More)/), $inherited{$_}[0], "$_: fields";
    is trailers($r), $inherited{$_}[1], "$_: trailers";
}

# --- trailers ---------------------------------------------------------------------------------------
my $r = $p->get('/trailer');
is $r->framing, 'chunked', 'trailers need chunks';
is trailers($r), 'X-Done=|200|6 X-Lines=/trailer', 'evaluated at the end, empty ones left out';
is trailers($p->get('/trailer/a%0d%0ab:c')), 'X-Done=|200|6 X-Lines=/trailer/a  b:c', 'no line ends';
is $p->get('/trailer', version => '1.0')->header('Content-Length'), 6, 'HTTP/1.0 has none';
is $p->head('/trailer')->header('Content-Length'), 6, 'HEAD has none';
is trailers($p->get('/trailerboth')), 'X-Theirs=t X-Ours=o', 'behind the upstream\'s';

# --- headers_more -----------------------------------------------------------------------------------
$r = $p->get('/more/set?v=val');
is fields($r, qr/^(?:X-(?!H(?i:id))|Server)/), 'Server=mine X-Two=t X-More-Http=h X-App=changed X-New=val X-Http=h', 'set';
is fields($p->get('/more/set'), qr/^X-New/), '', 'an empty value is none';
is $p->get('/more/type')->header('Content-Type'), 'text/x-own', 'the type, without charset';
$r = $p->get('/more/clear');
is fields($r, qr/^(?:X-App|Server|Date|ETag|Last-Modified)$/), '', 'cleared, also what is made up';
is $r->body, "body\n", 'the body is there';
is fields($p->get('/more/wild'), qr/^(?:X-Hid|Last)/i), '', 'a prefix, in any case';
is fields($p->get('/more/empty'), qr/^X-(?:App|Two)/), '', 'a name alone';
is fields($p->get('/more/order'), qr/^X-(?:S|More)/), 'X-More-Http=h X-S=2', 'one after the other';
$r = $p->get('/more/length');
is $r->framing . $r->body, "chunkedbody\n", 'no Content-Length: chunks';
for (200, 404, 500, 503, 403) {
    is fields($p->get("/status/$_"), qr/^X-(?:St|All)/), /404|50/ ? 'X-St=s X-All=a' : 'X-All=a', "-s with $_";
}
is fields($p->get("/statustype/a.$_"), qr/^X-Both/), $_ eq 'html' ? 'X-Both=b' : '', "-s and -t with $_" for qw(html txt);
is fields($p->get('/statustype/missing.html'), qr/^X-Both/), '', '-s with another status';
is fields($p->get('/moreif/a.txt'), qr/^X-If/), 'X-If=no', 'outside of if';
is fields($p->get('/moreif/a.txt?i=1'), qr/^X-If/), 'X-If=yes', 'inside';
my $refused = $p->get('/refused/a.txt', headers => ['Range', 'bytes=99-']);
is $refused->status, 416, 'a range that is not there';
is fields($refused, qr/^(?:X-[AB]|Cache-Control|Content-Range)$/), 'Cache-Control=max-age=3600 X-A=a X-B=b Content-Range=bytes */11',
    'has the fields of the content';
$refused = $p->get('/refused/page/a.txt', headers => ['Range', 'bytes=99-']);
is fields($refused, qr/^(?:X-[AB]|Cache-Control)$/), 'X-B=page', 'a page for it has those of an error';
is fields($p->get('/moreadd/a.txt'), qr/^X-Http/), 'X-Http=mine X-Http=add', 'add_header comes later';
is fields($p->get('/morelm/a.txt'), qr/^(?:Last-Modified|ETag)/), 'Last-Modified=never ETag=own', 'typed fields';
is $p->get('/moreranges/a.txt', headers => ['Range', 'bytes=0-1'])->status, 200, 'no Accept-Ranges, no ranges';
$r = $p->get('/morelines/a%0d%0aX-Evil:1?x=1');
is fields($r, qr/^X-(?:Lines|Evil)/), 'X-Lines=1/morelines/a  X-Evil:1', 'a value stays on its line';
is_deeply $r->{bad}, [], 'and is well formed';

# input
$r = $p->get('/in/?v=val', headers => ['X-In', 'theirs', 'X-IN', 'twice', 'X-Gone', 'g', 'X-Wild-A', 'a', 'x-wild-b', 'b', 'X-Stay', 's']);
is sent($r, 'X-In'), 'val', 'replaced, all of them';
is sent($r, 'X-Two'), '2', 'added';
is sent($r, 'X-Gone') . sent($r, 'X-Wild-A') . sent($r, 'X-Wild-B'), '', 'cleared';
is sent($r, 'X-Stay'), 's', 'others stay';
is sent($r, 'X-Only'), '', '-r does not add';
is sent($p->get('/in/', headers => ['X-Only', 'o', 'X-In', 'i']), 'X-Only'), 'replaced', '-r replaces';
is sent($p->get('/in/', headers => ['X-In', 'i']), 'X-In'), '', 'an empty value clears';
$r = $p->get('/inhost/');
is join('|', map { sent($r, $_) } qw(Host X-Host X-Port)), 'Other.Test:81|other.test|81', 'Host and what follows from it';
is sent($p->get('/intype/', headers => ['Content-Type', $_->[0]]), 'X-Typed'), $_->[1], "-t with $_->[0]"
    for ['text/x-own', 't'], ['TEXT/X-TWO; a=b', 't'], ['text/plain', ''];
is sent($p->get('/intype/'), 'X-Typed'), '', '-t without type';
$r = $p->get('/innest/b');
is sent($r, 'X-A') . sent($r, 'X-B'), '12', 'outer ones first';
$r = $p->get('/inlines/a%0d%0aX-Evil:1');
is sent($r, 'X-Uri') . '|' . sent($r, 'X-Evil'), '/inlines/a  X-Evil:1|', 'no line ends go to the upstream';
is $p->get('/inenc/a.txt', headers => ['Range', 'bytes=0-1'])->status, 200, 'a Range that is cleared';

# --- a Location that is only added --------------------------------------------------------------------
$r = $p->get('/addloc');
is fields($r, qr/^Location/), 'Location=/rel', 'stays as it is';
like $r->raw, qr/X-Seen: \/rel\r\n/, 'and has its variable';
like fields($p->get('/addloc2'), qr/^Location/), qr{^Location=http://\S+/own Location=/rel$}, 'beside one of a redirect';

# --- proxy_set_header_inherit -----------------------------------------------------------------------
my %ph = (
    '/ph/'           => ['h', '',      ''],
    '/ph/own'        => ['',  'o',     ''],
    '/ph/merge'      => ['h', 'o',     ''],
    '/ph/merge/in'   => ['h', 'other', 'i'],
    '/ph/merge/none' => ['h', 'o',     ''],
    '/ph/off'        => ['',  '',      ''],
    '/ph/off/own'    => ['',  'o',     ''],
    '/ph/off/own/in' => ['',  '',      ''],
);
for my $u (sort keys %ph) {
    $r = $p->get($u);
    is_deeply [map { sent($r, $_) } qw(X-Http X-Own X-In)], $ph{$u}, "proxy_set_header at $u";
    is sent($r, 'Host'), 'app', 'and one Host';
}

# --- early hints ------------------------------------------------------------------------------------
sub hints { return join '; ', map { my $h = $_; join ' ', $h->{status}, map { "$_->[0]=$_->[1]" } @{ $h->headers } } @{ $_[0]{interim} } }
my $all = '103 Link=</a>; rel=preload X-Secret=s Content-Type=a/b Link=</b> Set-Cookie=a=b';
$r = $p->get('/hints/?h=1');
is hints($r), $all, 'a hint, without fields of one hop, in order';
is $r->body . $r->header('Link'), "final\n</final>", 'and the answer';
is hints($p->get('/hints/')), '', 'not where all strings are empty or 0';
is hints($p->get('/hints/?h=0')), '', '0';
is hints($p->get('/hintsno/')), '', 'off by default';
is hints($p->get('/hints/?h=1', version => '1.0')), '', 'nor in HTTP/1.0';
is $p->get('/hints/?h=1', version => '1.0')->body, "final\n", 'which gets its answer';
unlike hints($p->get('/hintshide/')), qr/Secret/, 'proxy_hide_header';
is hints($p->get('/hintsmany/')), join('; ', map { "103 Link=</$_>" } 1 .. 3), 'several, a 100 is not for the client';
is $p->get('/hintsflood/')->status, 502, 'hints without end';
$r = $p->get('/hintsthen/');
is hints($r) . $r->body, "103 Link=</a>0123456789\n", 'an error page after them';
my $x = $p->raw('main', "GET /hints/?h=1 HTTP/1.1\r\nHost: a\r\n\r\nGET /a.txt HTTP/1.1\r\nHost: a\r\n\r\n", count => 2);
is $x->{responses}[1]->body, "0123456789\n", 'keep-alive after them';

# --- ranges of proxied answers ------------------------------------------------------------------------
sub range {
    my ($uri, $range, @h) = @_;
    return $p->get($uri, headers => ['Range', "bytes=$range", @h]);
}
for my $where (qw(fr frbuf)) {
    for (['0-3', 0, 4], ['8-', 8, length($big) - 8], ['-8', length($big) - 8, 8], ['100000-299999', 100_000, 200_000],
        ['799999-900000', 799_999, 1], ['0-799999', 0, 800_000]) {
        $r = range("/$where/big", $_->[0]);
        is $r->status . $r->reason, '206Partial Content', "$where: $_->[0]";
        is $r->header('Content-Range'), sprintf('bytes %d-%d/800000', $_->[1], $_->[1] + $_->[2] - 1), 'Content-Range';
        ok $r->body eq substr($big, $_->[1], $_->[2]), 'the part';
    }
    $r = range("/$where/big", '0-1,3-4');
    is $r->status . length $r->body, '200800000', "$where: several parts: the whole, for it is not kept";
    $r = range("/$where/big", '800000-');
    is $r->status . '|' . $r->header('Content-Range'), '416|bytes */800000', "$where: behind the end";
    is range("/$where/big", '0-1', 'If-Range', $_->[0])->status, $_->[1], "If-Range: $_->[0]"
        for ['"e"', 206], ['"f"', 200], ['W/"e"', 200], ['Fri, 14 Jul 2017 02:40:00 GMT', 206],
        ['Fri, 14 Jul 2017 02:40:01 GMT', 200];
}
is range('/nofr/big', '0-3')->status, 200, 'without proxy_force_ranges the origin decides';
is range('/frmax0/big', '0-3')->status, 200, 'max_ranges 0';
is range('/fr/chunk', '0-1')->status, 200, 'an unknown length';
is range('/fr/none', '0-1')->status, 200, 'nothing to take a part of';
$r = range('/fr/part', '0-0');
is $r->status . $r->body, '206ab', 'what is a part already';
$r = $p->head('/fr/big', headers => ['Range', 'bytes=0-3']);
is $r->status . $r->header('Content-Length'), '2064', 'HEAD';
$x = $p->raw('main', "GET /fr/big HTTP/1.1\r\nHost: a\r\nRange: bytes=0-3\r\n\r\nGET /a.txt HTTP/1.1\r\nHost: a\r\n\r\n", count => 2);
is $x->{responses}[1]->body, "0123456789\n", 'keep-alive after a part';
# a file may be cut into many
$r = $p->get('/a.txt', headers => ['Range', 'bytes=8-9,0-1,-2']);
is $r->status, 206, 'parts of a file in any order';
is scalar(() = $r->body =~ /Content-Range: bytes/g), 3, 'three of them';
like $r->body, qr/Content-Range: bytes 8-9\/11\r\n\r\n89\r\n.*0-1\/11\r\n\r\n01\r\n.*9-10\/11\r\n\r\n9\n\r\n--/s, 'as asked for';

$p->stop;
done_testing;
