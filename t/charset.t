# SPDX-License-Identifier: BSD-2-Clause
#
# Charsets: what is announced and when, tables both ways, sequences split between reads, subrequests'
# and upstreams' texts, the tables that are installed.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/lib";
use Test::More;
use Time::HiRes ();
use Proxyd;

my $conf_dir = "$FindBin::Bin/../conf";
my $koi  = "\xf0\xd2\xc9\xd7\xc5\xd4 \xa3\xb3";                             # "Privet", yo in both cases
my $win  = "\xcf\xf0\xe8\xe2\xe5\xf2 \xb8\xa8";
my $utf8 = "\xd0\x9f\xd1\x80\xd0\xb8\xd0\xb2\xd0\xb5\xd1\x82 \xd1\x91\xd0\x81";

my $p = Proxyd->new(
    files => {
        'html/koi.html' => $koi,
        'html/koi.txt'  => $koi,
        'html/win.html' => $win,
        'html/u.html'   => $utf8,
        'html/u.css'    => $utf8,
        'html/ascii.html' => "plain\n",
        'html/bad.html'   => "a\xffb\xc3<i>\xe2\x82\xf0\x9f\x98\x80\xed\xa0\x80\xc0\xafz\xd0",
        'html/big.html'   => $utf8 x 40_000,
        'html/empty.html' => '',
        'html/cut.html'   => "\xd0\x9f\xd0",
        'html/ssi.html'   => "$koi<" . join('|', map { "<!--#include virtual=\"$_\" -->" } qw(/sub/koi.txt /sub/win.html /sub/u.html
            /sub/cut.html /app/win?slow /subapp/none /subapp/koi?slow /app/unknown)) . ">$koi",
    },
    conf => <<'EOT' =~ s/CONF/$conf_dir/gr);
http {
    types { text/html html; text/plain txt; text/css css; }
    default_type application/octet-stream;
    include CONF/koi-win;
    include CONF/koi-utf;
    include CONF/win-utf;
    charset_map own utf-8 { 80 E282AC ; # euro
        81 D0B0; }
    charset_map iso-8859-5 _ { }
    upstream app { server 127.0.0.1:{{port:app}}; }
    server {
        listen 127.0.0.1:{{port}};
        root {{dir}}/html;
        charset koi8-r;
        location /inherit/ { alias {{dir}}/html/; }
        location /off/ { charset off; alias {{dir}}/html/; }
        location /koi-win/ { charset windows-1251; source_charset koi8-r; alias {{dir}}/html/; }
        location /win-koi/ { source_charset windows-1251; alias {{dir}}/html/; }
        location /koi-utf/ { charset UTF-8; source_charset koi8-r; alias {{dir}}/html/; }
        location /utf-koi/ { charset koi8-r; source_charset utf-8; alias {{dir}}/html/; }
        location /utf-win/ { charset windows-1251; source_charset utf-8; alias {{dir}}/html/; }
        location /utf-own/ { charset own; source_charset utf-8; alias {{dir}}/html/; }
        location /css/ { charset_types text/css; alias {{dir}}/html/; }
        location /none/ { types { } default_type ""; alias {{dir}}/html/; }
        location /var/ { charset $arg_c; source_charset koi8-r; alias {{dir}}/html/; }
        location /cond/ { alias {{dir}}/html/; if ($arg_w) { charset windows-1251; source_charset koi8-r; } }
        location /text { default_type text/plain; return 200 "t"; }
        location /gone { return 404; }
        location /moved { return 301 /x; }
        location /app/ { proxy_pass http://app/; }
        location /over/ { charset utf-8; override_charset on; proxy_pass http://app/; }
        location /plainapp/ { charset off; proxy_pass http://app/; }
        location /ignore/ { proxy_ignore_headers X-Accel-Charset; proxy_pass http://app/; }
        location /slow/ { charset koi8-r; source_charset utf-8; proxy_buffering off; proxy_pass http://app/; }
        location /ssi/ { ssi on; charset utf-8; source_charset koi8-r; override_charset on; alias {{dir}}/html/; } #? ssi
        location /ssi-koi/ { ssi on; charset koi8-r; source_charset koi8-r; alias {{dir}}/html/; } #? ssi
        location /ssi-off/ { ssi on; charset off; alias {{dir}}/html/; } #? ssi
        location /ssi-app/ { ssi on; charset off; proxy_pass http://app/; } #? ssi
        location /add/ { charset utf-8; source_charset koi8-r; add_before_body /sub/win.html; add_after_body /app/none; alias {{dir}}/html/; }
        location /sub/ { charset off; source_charset koi8-r; alias {{dir}}/html/; types { } default_type image/png; }
        location /sub/win.html { charset off; source_charset windows-1251; alias {{dir}}/html/win.html; }
        location /sub/u.html { charset off; source_charset utf-8; alias {{dir}}/html/u.html; }
        location /sub/cut.html { charset off; source_charset utf-8; alias {{dir}}/html/cut.html; }
        location /subapp/ { source_charset koi8-r; proxy_pass http://app/; }
        location /range/ { charset windows-1251; source_charset koi8-r; alias {{dir}}/html/; }
        location /etag/ { charset utf-8; source_charset koi8-r; alias {{dir}}/html/; }
    }
}
EOT

# The path says what the head holds; slow: a byte at a time.
$p->origin('app', sub {
    my ($c) = @_;
    while (my $q = $c->request) {
        my ($name) = $q->{uri} =~ m{/(\w+)};
        my %types = (
            koi     => ["text/html; charset=koi8-r",                          $koi],
            quoted  => ["text/html; foo=bar; charset=\"KOI8-R\"",             $koi],
            win     => ["text/html; charset=windows-1251",                    $win],
            none    => [undef,                                                $koi],
            ssi     => ["text/html; charset=koi8-r",                          "$koi<<!--#include virtual=\"/sub/u.html\" -->>"],
            unknown => ["text/html; charset=x-none",                          $koi],
            plain   => ['text/html',                                          $koi],
            accel   => ["text/html; charset=koi8-r\r\nX-Accel-Charset: utf-8", $koi],
            accelx  => ["text/html\r\nX-Accel-Charset: x-none",               $koi],
            coded   => ["text/html; charset=koi8-r\r\nContent-Encoding: gzip", $koi],
            bytes   => ['text/html',                                          $utf8],
        );
        my ($type, $body) = @{ $types{$name} };
        my $head = "HTTP/1.1 200 OK\r\n" . (defined $type ? "Content-Type: $type\r\n" : "") . "ETag: \"e\"\r\n";
        if ($q->{uri} =~ /slow/) {
            $c->write("${head}Transfer-Encoding: chunked\r\n\r\n");
            for (split //, $body) {
                $c->write("1\r\n$_\r\n");
                Time::HiRes::sleep(0.001);
            }
            $c->write("0\r\n\r\n");
            next;
        }
        $c->write("${head}Content-Length: " . length($body) . "\r\n\r\n" . ($q->{method} eq 'HEAD' ? '' : $body));
    }
});
$p->start;

sub is_answer {
    my ($uri, $type, $body, $what) = @_;
    local $Test::Builder::Level = $Test::Builder::Level + 1;
    my $r = $p->get($uri);
    is $r->header('Content-Type'), $type, "$uri: type";
    is $r->body, $body, $what || "$uri: body" if defined $body;
    return $r;
}

# --- announcing -------------------------------------------------------------------------------------
is_answer('/koi.html', 'text/html; charset=koi8-r', $koi);
is_answer('/inherit/koi.txt', 'text/plain; charset=koi8-r', $koi);
is_answer('/off/koi.html', 'text/html', $koi);
is_answer('/u.css', 'text/css', $utf8, 'a type that is not on the list');
is_answer('/css/u.css', 'text/css; charset=koi8-r', $utf8, 'but on this one');
is_answer('/css/koi.html', 'text/html; charset=koi8-r', $koi, 'text/html always is');
is_answer('/css/koi.txt', 'text/plain', $koi, 'text/plain is no longer');
is_answer('/none/koi.html', undef, $koi, 'no type, no charset');
is_answer('/text', 'text/plain; charset=koi8-r', 't');
is_answer('/gone', 'text/html; charset=koi8-r', undef);
is_answer('/moved', 'text/html', undef);
is $p->head('/koi.html')->header('Content-Type'), 'text/html; charset=koi8-r', 'HEAD';

# --- recoding ---------------------------------------------------------------------------------------
my $r = is_answer('/koi-win/koi.html', 'text/html; charset=windows-1251', $win);
is $r->header('Content-Length'), length $win, 'byte by byte: the length stays';
is_answer('/win-koi/win.html', 'text/html; charset=koi8-r', $koi, 'the same table the other way');
$r = is_answer('/koi-utf/koi.html', 'text/html; charset=utf-8', $utf8);
is $r->framing, 'chunked', 'UTF-8 has another length';
is_answer('/utf-koi/u.html', 'text/html; charset=koi8-r', $koi);
is_answer('/utf-win/u.html', 'text/html; charset=windows-1251', $win);
is_answer('/koi-utf/ascii.html', 'text/html; charset=utf-8', "plain\n");
is_answer('/utf-koi/empty.html', 'text/html; charset=koi8-r', '');
is_answer('/utf-koi/big.html', 'text/html; charset=koi8-r', $koi x 40_000, 'pieces end within characters');
is_answer('/utf-own/u.html', 'text/html; charset=own',
    '&#1055;&#1088;&#1080;&#1074;&#1077;&#1090; &#1105;&#1025;', 'what has no byte becomes a reference');
is_answer('/koi-utf/bad.html', 'text/html; charset=utf-8', undef);
# Malformed input: one "?" for each part that could have been something, and nothing behind it is lost.
is_answer('/utf-own/bad.html', 'text/html; charset=own', 'a?b?<i>?&#128512;???' . '??z?', 'malformed UTF-8');
is $p->head('/koi-utf/koi.html')->header('Content-Length'), undef, 'HEAD: no length';
is $p->head('/koi-utf/koi.html')->header('Accept-Ranges'), undef, 'no ranges either';

# --- variables, if ----------------------------------------------------------------------------------
is_answer('/var/koi.html?c=utf-8', 'text/html; charset=utf-8', $utf8);
is_answer('/var/koi.html?c=WINDOWS-1251', 'text/html; charset=WINDOWS-1251', $win);
is_answer('/var/koi.html?c=koi8-r', 'text/html; charset=koi8-r', $koi);
is_answer('/var/koi.html?c=iso-8859-5', 'text/html', $koi, 'no table: left alone');
like $p->wait_log(qr/(no "charset_map" between the charsets "koi8-r" and "iso-8859-5")/), qr/no/, 'and logged';
is_answer('/cond/koi.html', 'text/html; charset=koi8-r', $koi);
is_answer('/cond/koi.html?w=1', 'text/html; charset=windows-1251', $win);

# --- upstreams --------------------------------------------------------------------------------------
is_answer('/app/plain', 'text/html; charset=koi8-r', $koi);
is_answer('/app/win', 'text/html; charset=windows-1251', $win, 'an upstream knows best');
is_answer('/over/win', 'text/html; charset=utf-8', $utf8, 'unless it is overridden');
is_answer('/over/koi', 'text/html; charset=utf-8', $utf8);
is_answer('/over/quoted', 'text/html; foo=bar; charset=utf-8', $utf8, 'a quoted charset');
is_answer('/over/unknown', 'text/html; charset=x-none', $koi, 'an unknown one is left');
is_answer('/over/coded', 'text/html; charset=koi8-r', $koi, 'so is coded text');
is_answer('/plainapp/accel', 'text/html; charset=utf-8', $utf8, 'X-Accel-Charset');
is_answer('/ignore/accel', 'text/html; charset=koi8-r', $koi, 'ignored');
is_answer('/app/accelx', 'text/html', $koi, 'X-Accel-Charset with an unknown one');
like $p->wait_log(qr/(unknown charset "x-none" to override)/), qr/unknown/, 'is logged';
is_answer('/slow/bytes?slow', 'text/html; charset=koi8-r', $koi, 'a byte at a time');

# --- subrequests: into what the main answer says it is in, whatever they are -------------------------
SKIP: {
    skip 'no ssi', 8 unless $p->has('ssi');
    my @parts = ($utf8, $utf8, $utf8, substr($utf8, 0, 2) . '?', $utf8, $utf8, $utf8, $koi);
    is_answer('/ssi/ssi.html', 'text/html; charset=utf-8', "$utf8<" . join('|', @parts[0 .. 2], substr($utf8, 0, 2) . "\xd0",
        @parts[4 .. 7]) . ">$utf8", 'included text of any charset');
    @parts = ($koi, $koi, $koi, substr($koi, 0, 1) . '?', $koi, $koi, $koi, $koi);
    is_answer('/ssi-koi/ssi.html', 'text/html; charset=koi8-r', "$koi<" . join('|', @parts) . ">$koi", 'the other way');
    is_answer('/ssi-off/ssi.html', 'text/html', "$koi<" . join('|', $koi, $win, $utf8, "\xd0\x9f\xd0", $win, $koi, $koi, $koi) . ">$koi",
        'a main answer that says nothing');
    is_answer('/ssi-app/ssi', 'text/html; charset=koi8-r', "$koi<$koi>", 'what an upstream says it is in');
}
is_answer('/add/koi.html', 'text/html; charset=utf-8', "$utf8$utf8$koi", 'addition');

# --- ranges -----------------------------------------------------------------------------------------
$r = $p->get('/range/koi.html', headers => ['Range', 'bytes=1-3']);
is $r->status . $r->body, '206' . substr($win, 1, 3), 'a range, recoded byte by byte';
$r = $p->get('/etag/koi.html', headers => ['Range', 'bytes=1-3']);
is $r->status . $r->body, "200$utf8", 'no range where lengths differ';

# keep-alive behind a recoded answer
my $x = $p->raw('main', "GET /koi-utf/koi.html HTTP/1.1\r\nHost: x\r\n\r\nGET /koi.txt HTTP/1.1\r\nHost: x\r\n\r\n", count => 2);
is $x->{responses}[1]->body, $koi, 'the next request';
$p->stop;
done_testing;
