# SPDX-License-Identifier: BSD-2-Clause
#
# slice: contents fetched in parts: what the client gets, which parts are asked for, and what happens when a
# part is not what it should be.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/lib";
use Digest::MD5 qw(md5_hex);
use Test::More;
use Time::HiRes qw(sleep);
use Proxyd;

my $nginx = Proxyd::is_nginx();
my $p     = Proxyd->new(conf => <<'EOT');
worker_processes 1;
http {
    proxy_http_version 1.1;
    proxy_set_header Connection "";
    proxy_set_header Range $slice_range;
    log_format full '$uri|$status|$body_bytes_sent|$slice_range';
    access_log {{dir}}/access.log full;
    upstream o { server 127.0.0.1:{{port:o}}; keepalive 4; }
    charset_map x-a x-b { 41 42; }
    charset_map x-a utf-8 { 41 C3A9; }
    server {
        listen 127.0.0.1:{{port}};
        slice 1000;
        location / { proxy_pass http://o; }
        location /large/ { slice 64k; proxy_pass http://o; }
        location /huge/ { slice 1m; proxy_buffers 4 4k; proxy_buffer_size 4k; proxy_busy_buffers_size 8k; proxy_pass http://o; }
        location /unbuffered/ { proxy_buffering off; proxy_pass http://o; }
        location /mem/ { slice 100k; sendfile off; proxy_buffers 2 4k; proxy_buffer_size 4k; proxy_busy_buffers_size 4k; proxy_pass http://o; }
        location /off/ { slice 0; proxy_pass http://o; }
        location /unused/ { proxy_set_header Range ""; proxy_pass http://o; }
        location /one/ { slice 1; proxy_pass http://o; }
        location /exact/ { slice 5k; proxy_pass http://o; }
        location /maxranges/ { max_ranges 0; proxy_pass http://o; }
        location /sub/ { sub_filter_types *; sub_filter none none; proxy_pass http://o; } #? sub_filter
        location /added/ { add_before_body /static/before; addition_types *; proxy_pass http://o; }
        location /bytes/ { charset x-b; source_charset x-a; charset_types *; proxy_pass http://o; }
        location /utf8/ { charset utf-8; source_charset x-a; charset_types *; proxy_pass http://o; }
        location /errors/ { error_page 404 500 502 /page; proxy_intercept_errors on; proxy_pass http://o; }
        location /page { slice 0; return 200 "a page\n"; }
        location /rewritten/ { rewrite ^/rewritten/(.*) /plain/$1?r=1 break; proxy_pass http://o; }
        location ~ ^/re/(?<rest>.*)$ { proxy_pass http://o/plain/$rest; }
        location /named/ { try_files /none @parts; }
        location @parts { proxy_pass http://o; }
        location /rate/ { limit_rate 100k; proxy_pass http://o; }
        location /headers/ { add_header X-Own $status; proxy_pass http://o; }
        location /logged/ { log_subrequest on; proxy_pass http://o; }
        location /static/ { alias {{dir}}/html/; }
        location /text { return 200 "[$slice_range]"; }
    }
}
EOT
my $dir = $p->dir;

# A content whose every four bytes say where they stand.
my $numbers = pack 'N*', 0 .. 6_000_000;
sub content { return substr $numbers, 0, $_[0] }

my %size = (empty => 0, tiny => 1, even => 5000, odd => 5001, plain => 5500, single => 700, slice => 1000, big => 300_000, huge => 6_000_000, giant => 24_000_000);

sub handler {
    my ($c) = @_;
    while (my $r = $c->request) {
        my ($name) = $r->{uri} =~ m{/(\w+)(?:\?|$)};
        my $range = $r->{h}{range} // '-';
        $c->{origin}->note("S $range $r->{uri}");
        my ($from, $to) = $range =~ /^bytes=(\d+)-(\d+)$/;
        my ($kind) = $r->{uri} =~ m{/bad-(\w+)/};
        $kind //= '';
        my $n = $size{$name} // 5500;
        my $later = defined $from && $from >= 1000;
        my $etag = $kind eq 'etag' && $later ? '"other"' : $kind eq 'noetag' && $later ? undef : '"v1"';
        $etag = $later ? '"v1"' : undef if $kind eq 'lateetag';
        my $head = "Content-Type: text/x-test\r\nLast-Modified: Sun, 06 Nov 1994 08:49:37 GMT\r\nX-Range: $range\r\n"
            . (defined $etag ? "ETag: $etag\r\n" : '');
        my $body = content($n);
        my $whole = sub { $c->write("HTTP/1.1 200 OK\r\n${head}Content-Length: $n\r\nAccept-Ranges: bytes\r\n\r\n" . ($r->{method} eq 'HEAD' ? '' : $body)) };
        if (!defined $from || $kind eq 'ignore') { $whole->(); next }
        if ($kind eq 'late200' && $later) { $whole->(); next }
        if ($kind eq 'status' && $later) { $c->write("HTTP/1.1 404 Not Found\r\nContent-Length: 4\r\n\r\ngone"); next }
        if ($kind eq 'first') { $c->write("HTTP/1.1 404 Not Found\r\nContent-Length: 4\r\n\r\ngone"); next }
        if ($kind eq 'close' && $later) { return }
        if ($kind eq 'stall' && $later) { $c->wait_close; return }
        if ($from >= $n) { $c->write("HTTP/1.1 416 Nope\r\nContent-Range: bytes */$n\r\nContent-Length: 0\r\n\r\n"); next }
        $to = $n - 1 if $to >= $n;
        $to -= 10 if $kind eq 'shorter' && $later;
        my $part = substr $body, $from, $to - $from + 1;
        my $cr = "bytes $from-$to/$n";
        $cr = "bytes $from-$to/*" if $kind eq 'star';
        $cr = "bytes $from-$to/" . ($n + 1) if $kind eq 'grows' && $later;
        $cr = "pages $from-$to/$n" if $kind eq 'unit';
        $cr = sprintf 'bytes %d-%d/%d', $from + 1000, $to + 1000, $n if $kind eq 'shifted';
        $cr = 'bytes 5-1/10' if $kind eq 'reversed';
        $cr = 'bytes 0-99999999999999999999/100' if $kind eq 'overflow';
        $cr = 'bytes 0-999' if $kind eq 'cut';
        $cr = $kind eq 'norange' ? '' : "Content-Range: $cr\r\n";
        if ($kind eq 'broken' && $later) {
            $c->write("HTTP/1.1 206 Part\r\n${head}${cr}Content-Length: " . length($part) . "\r\n\r\n" . substr $part, 0, 100);
            return;
        }
        if ($kind eq 'little' || $kind eq 'much') {
            $part = $kind eq 'little' ? substr $part, 0, -5 : "${part}extra" if $later;
            $c->write("HTTP/1.1 206 Part\r\n${head}${cr}Content-Length: " . length($part) . "\r\n\r\n$part");
            next;
        }
        if ($kind eq 'chunked') {
            $c->write("HTTP/1.1 206 Part\r\n${head}${cr}Transfer-Encoding: chunked\r\n\r\n"
                . join('', map { sprintf "%x\r\n%s\r\n", length, $_ } unpack '(a333)*', $part) . "0\r\n\r\n");
            next;
        }
        $c->write("HTTP/1.1 206 Part\r\n${head}${cr}Accept-Ranges: bytes\r\nContent-Length: " . length($part) . "\r\n\r\n"
            . ($r->{method} eq 'HEAD' ? '' : $part));
    }
}
my $o = $p->origin('o', \&handler);
$p->write_file('html/a.txt', 'static text');
$p->write_file('html/before', 'before:');
$p->start;

# The parts that were asked for, as "0-999 1000-1999".
sub parts { return join ' ', map { /^S (?:bytes=)?(\S+)/ ? $1 : () } $o->lines(qr/^S /) }

sub all_parts { my ($n, $size, $from) = @_; return join ' ', map { my $a = $_ * $size; "$a-" . ($a + $size - 1) } ($from || 0) .. int(($n - 1) / $size) }

sub fetch {
    my ($uri, %o) = @_;
    $o->reset_counts;
    return $p->request($o{method} || 'GET', $uri, %o, headers => $o{headers} || []);
}

# A whole content.
sub whole {
    my ($uri, $slice, $name) = @_;
    my ($file) = $uri =~ m{/(\w+)$};
    my $n = $size{$file};
    my $r = fetch($uri);
    is($r->status, 200, "$name: 200");
    ok($r->{complete}, "$name: complete");
    is($r->header('Content-Length'), $n, "$name: its length");
    is(md5_hex($r->body), md5_hex(content($n)), "$name: its content");
    is(parts(), all_parts($n, $slice), "$name: the parts");
    return $r;
}

# --- whole contents -----------------------------------------------------------------------------------

my $r = whole('/plain', 1000, 'five and a half parts');
is($r->header('Content-Range'), undef, 'no Content-Range');
is($r->header('Accept-Ranges'), 'bytes', 'Accept-Ranges');
is($r->header('ETag'), '"v1"', 'ETag');
is($r->header('X-Range'), 'bytes=0-999', 'other fields are those of the first part');
is($r->reason, 'OK', 'the reason is that of 200');
whole('/even', 1000, 'whole parts');
whole('/odd', 1000, 'a part of one byte');
whole('/single', 1000, 'less than a part');
whole('/slice', 1000, 'just a part');
whole('/tiny', 1000, 'one byte');
whole('/exact/plain', 5120, 'two parts');
whole('/large/big', 65536, 'larger ones');
whole('/large/huge', 65536, 'many');
whole('/huge/huge', 1 << 20, 'parts that go through a file');
whole('/mem/huge', 102_400, 'and are read from it again');
whole('/unbuffered/plain', 1000, 'unbuffered');
whole('/bad-chunked/plain', 1000, 'chunked parts');
whole('/re/plain', 1000, 'a regex location with captures');
whole('/named/plain', 1000, 'a named location');
whole('/rate/plain', 1000, 'with limit_rate');
$r = fetch('/one/single');
is(md5_hex($r->body), md5_hex(content(700)), 'parts of one byte');
is(scalar(split ' ', parts()), 700, '700 of them');
$r = fetch('/rewritten/plain');
is(md5_hex($r->body), md5_hex(content(5500)), 'a rewritten URI');
is(scalar(() = $o->lines(qr{/plain/plain\?r=1$})), 6, 'in each part');
$r = fetch('/headers/plain');
is($r->header('X-Own'), '200', 'add_header sees the 200');
like($p->access_log, qr{^/plain\|200\|5500\|-$}m, 'logged with all bytes');
is(scalar(() = $p->access_log =~ m{^/single\|}mg), 1, 'parts are not logged');
fetch('/logged/plain');
ok($p->wait_for(sub { 6 == (() = $p->access_log =~ m{^/logged/plain\|}mg) }), 'unless log_subrequest says so');

# Keep-alive, HTTP/1.0, a pipelined request behind.
my $x = $p->raw('main', "GET /plain HTTP/1.1\r\nHost: a\r\n\r\nGET /single HTTP/1.1\r\nHost: a\r\n\r\n", count => 2);
is(join(' ', map { length $_->body } @{ $x->{responses} }), '5500 700', 'two on one connection');
$r = $p->get('/plain', version => '1.0');
is(length $r->body, 5500, 'HTTP/1.0');

# --- what is not sliced ---------------------------------------------------------------------------------

for (['/off/plain', '-', 'slice 0'], ['/unused/plain', '-', '$slice_range is not used'], ['/bad-ignore/plain', '0-999', 'the server ignores Range']) {
    my ($uri, $want, $name) = @$_;
    $r = fetch($uri);
    is($r->status . ' ' . md5_hex($r->body), '200 ' . md5_hex(content(5500)), "$name: all of it");
    is(parts(), $want, "$name: one request");
}
$r = fetch('/bad-first/plain');
is($r->status . $r->body, '404gone', 'an error goes as it is');
$r = fetch('/empty');
is($r->status, 416, 'an empty content has no part');
is($r->header('Content-Range'), 'bytes */0', 'as the server says');
is($p->get('/static/a.txt')->body, 'static text', 'a static file');
is($p->get('/text')->body, '[bytes=0-999]', 'the variable alone') unless $nginx;
$r = fetch('/plain', method => 'HEAD');
is($r->status, 200, 'HEAD');
is($r->header('Content-Length'), 5500, 'has the whole length');
is(parts(), '0-999', 'and costs one request');

# --- ranges on top --------------------------------------------------------------------------------------

my $all = content(5500);
for (
    # Range, first, last (inclusive), the parts asked for
    ['bytes=0-9', 0, 9, '0-999'],
    ['bytes=0-999', 0, 999, '0-999'],
    ['bytes=0-1000', 0, 1000, '0-999 1000-1999'],
    ['bytes=999-1000', 999, 1000, '0-999 1000-1999'],
    ['bytes=1000-1999', 1000, 1999, '1000-1999'],
    ['bytes=1500-3500', 1500, 3500, '1000-1999 2000-2999 3000-3999'],
    ['bytes=2999-2999', 2999, 2999, '2000-2999'],
    ['bytes=5000-', 5000, 5499, '5000-5999'],
    ['bytes=5499-9999', 5499, 5499, '5000-5999'],
    ['bytes=0-', 0, 5499, all_parts(5500, 1000)],
    ['bytes=0-99999999', 0, 5499, all_parts(5500, 1000)],
    ['bytes=-1', 5499, 5499, '0-999 5000-5999'],
    ['bytes=-500', 5000, 5499, '0-999 5000-5999'],
    ['bytes=-501', 4999, 5499, '0-999 4000-4999 5000-5999'],
    ['bytes=-4500', 1000, 5499, all_parts(5500, 1000)],
    ['bytes=-4600', 900, 5499, all_parts(5500, 1000)],
    ['bytes=-9999', 0, 5499, all_parts(5500, 1000)],
    ['BYTES= 2000-2001', 2000, 2001, '2000-2999'],
) {
    my ($range, $first, $last, $parts) = @$_;
    $r = fetch('/plain', headers => [Range => $range]);
    is($r->status, 206, "$range: 206");
    is($r->header('Content-Range'), "bytes $first-$last/5500", "$range: Content-Range");
    is($r->header('Content-Length'), $last - $first + 1, "$range: length");
    ok($r->body eq substr($all, $first, $last - $first + 1), "$range: the bytes");
    is(parts(), $parts, "$range: the parts");
}
for (
    ['bytes=0-1,5-6', 200, all_parts(5500, 1000), 'several ranges: the whole'],
    ['bytes=abc', 416, '0-999', 'no range at all'],
    ['bytes=5500-', 416, '5000-5999', 'behind the end, within the last part'],
    ['bytes=9999-', 416, '9000-9999', 'behind the last part'],
    ['bytes=5-1', 416, '0-999', 'backwards'],
    ['pages=1-2', 200, all_parts(5500, 1000), 'another unit'],
    ['bytes=99999999999999999999-', 416, '0-999', 'too large a number'],
) {
    my ($range, $status, $parts, $name) = @$_;
    $r = fetch('/plain', headers => [Range => $range]);
    is($r->status, $status, "$name: $status");
    is($r->header('Content-Range'), 'bytes */5500', "$name: Content-Range") if $status == 416;
    is(md5_hex($r->body), md5_hex($all), "$name: the content") if $status == 200;
    is(parts(), $parts, "$name: the parts");
}
$r = fetch('/plain', headers => [Range => 'bytes=2000-2001', 'If-Range' => '"v1"']);
is($r->status . parts(), '2060-999 2000-2999', 'If-Range holds: found out with the first part');
ok($r->body eq substr($all, 2000, 2), 'the bytes');
$r = fetch('/plain', headers => [Range => 'bytes=2000-2001', 'If-Range' => '"v2"']);
is($r->status . md5_hex($r->body), 200 . md5_hex($all), 'If-Range does not hold: the whole');
$r = fetch('/maxranges/plain', headers => [Range => 'bytes=2000-2001']);
is($r->status, 200, 'max_ranges 0: the whole') ;
# (nginx begins with the part that the ignored Range names)
is(md5_hex($r->body) . parts(), md5_hex($all) . all_parts(5500, 1000), 'its content') unless $nginx;
SKIP: {
    skip 'sub_filter is not built in', 2 unless $p->has('sub_filter');
    $r = fetch('/sub/plain', headers => [Range => 'bytes=2000-2001']);
    is($r->status, 200, 'a filter that changes the content: no ranges of it');
    is(md5_hex($r->body) . parts(), md5_hex($all) . '2000-2999 ' . all_parts(5500, 1000), 'its content') unless $nginx;
}
# what a filter makes of each part
(my $bytes = $all) =~ tr/A\x80-\xff/B?/;
(my $utf8 = $all) =~ s/(A)|[\x80-\xff]/$1 ? "\xc3\xa9" : '?'/ge;
$r = fetch('/bytes/plain');
is($r->status . md5_hex($r->body), 200 . md5_hex($bytes), 'a charset of one byte');
$r = fetch('/bytes/plain', headers => [Range => 'bytes=1500-3500']);
is($r->status . md5_hex($r->body), 206 . md5_hex(substr $bytes, 1500, 2001), 'and a part of it');
is(parts(), '1000-1999 2000-2999 3000-3999', 'by the parts that it takes');
$r = fetch('/utf8/plain');
is($r->status . md5_hex($r->body), 200 . md5_hex($utf8), 'one of several bytes');
$r = fetch('/added/plain');
is(md5_hex($r->body), md5_hex("before:$all"), 'something before it');
unless ($nginx) { # which sends what the Range names of the parts, without saying so
    for (['utf8', $utf8], ['added', "before:$all"]) {
        $r = fetch("/$_->[0]/plain", headers => [Range => 'bytes=2000-2001']);
        is($r->status . md5_hex($r->body), 200 . md5_hex($_->[1]), "/$_->[0]/: no ranges of it");
    }
}
$r = fetch('/plain', method => 'HEAD', headers => [Range => 'bytes=1500-3500']);
is($r->status . ' ' . $r->header('Content-Length'), '206 2001', 'HEAD with a range');
is(parts(), '1000-1999', 'costs one request');
$x = $p->raw('main', "GET /plain HTTP/1.1\r\nHost: a\r\nRange: bytes=10-1010\r\n\r\nGET /tiny HTTP/1.1\r\nHost: a\r\n\r\n", count => 2);
is(join(' ', map { length $_->body } @{ $x->{responses} }), '1001 1', 'and the connection goes on');
my $big = content(6_000_000);
$r = fetch('/mem/huge', headers => [Range => 'bytes=150000-5000000']);
ok($r->body eq substr($big, 150_000, 4_850_001), 'a large range through files');
$r = fetch('/huge/huge', headers => [Range => 'bytes=3000000-']);
ok($r->body eq substr($big, 3_000_000), 'from the middle on');
is(parts(), all_parts(6_000_000, 1 << 20, 2), 'its parts');

# --- parts that are not what they should be ----------------------------------------------------------------

# URI, whether the first part is already wrong, what the log says.
for (
    ['etag', 0, 'etag mismatch in slice response'],
    ['noetag', 0, 'etag mismatch in slice response'],
    ['status', 0, 'unexpected status code 404 in slice response'],
    ['late200', 0, 'unexpected status code 200 in slice response'],
    ['close', 0, 'unexpected status code 502 in slice response'],
    ['shorter', 0, 'unexpected range in slice response: 1000-1990'],
    ['broken', 0, 'upstream prematurely closed connection'],
    ['star', 1, 'no complete length in slice response'],
    ['norange', 1, 'invalid range in slice response'],
    ['unit', 1, 'invalid range in slice response'],
    ['cut', 1, 'invalid range in slice response'],
    ['reversed', 1, $nginx ? 'unexpected range' : 'invalid range in slice response'],
    ['overflow', 1, 'invalid range in slice response'],
    ['shifted', 1, 'unexpected range in slice response: 1000-2000'],
    ['little', 0, 'slice response ends at 1995 instead of 2000'],
    ['much', 0, 'slice response ends at 2005 instead of 2000'],
) {
    my ($kind, $first, $line) = @$_;
    next if $nginx && $kind =~ /little|much/;
    $r = fetch("/bad-$kind/plain");
    ok(!$r->{complete}, "$kind: the answer is cut short");
    is($r->status, $first ? 0 : 200, "$kind: " . ($first ? 'nothing at all' : 'after its head'));
    ok(length $r->body < 5500 && substr($all, 0, length $r->body) eq $r->body, "$kind: what came is right")
        unless $kind eq 'much';
    ok($p->wait_log(qr{\[error\] .*\Q$line\E.*request: "GET /bad-$kind/plain}), "$kind: the log says why") or diag($p->error_log =~ /(.*bad-$kind.*)/);
}
whole('/bad-lateetag/plain', 1000, 'an ETag that comes later');
$r = fetch('/errors/bad-status/plain');
ok(!$r->{complete} && $r->body !~ /page/, 'error_page does not stand in for a part');
$r = fetch('/errors/bad-first/plain');
is($r->body, "a page\n", 'for the whole it does');

# A client that leaves takes the part under way along; one that is slow is waited for.
my $c = $p->connect('main');
$c->send("GET /bad-stall/plain HTTP/1.1\r\nHost: a\r\n\r\n");
ok($p->wait_for(sub { parts() =~ /1000-1999$/ }), 'a part is stalled');
$c->close;
ok($p->wait_for(sub { $o->lines(qr/^X/) }), 'the client leaves: the part is given up');
ok($p->wait_log(qr{^/bad-stall/plain\|200\|}m, 'access.log'), 'and the request is logged');

$o->reset_counts;
$c = $p->connect('main');
$c->send("GET /large/giant HTTP/1.1\r\nHost: a\r\n\r\n");
my $seen = 0;
$p->wait_for(sub { my $n = () = parts() =~ /-/g; my $same = $n > 0 && $n == $seen; $seen = $n; sleep 0.2; return $same }, 20);
cmp_ok($seen, '<', 300, "a slow client: $seen of 367 parts were fetched ahead");
$r = $c->response(timeout => 20);
is(md5_hex($r->body), md5_hex(content(24_000_000)), 'it gets all of it in the end');
$c->close;

$p->stop;
done_testing();
