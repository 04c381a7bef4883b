# SPDX-License-Identifier: BSD-2-Clause
#
# slice in nginx and here: answers field for field, and the Range and number of the requests that the origin gets.
#
# Known differences:
#   1. Where a later part fails, what came before it reaches the client here, and in nginx only if it was much.
#   2. A 416 has the fields that add_header adds once, and none of the origin's; in nginx it has all, and those with "always" twice.
#      The page that error_page has for it is not cut by the Range again.
#   3. With max_ranges 0 nginx ignores the client's Range, but begins with the part that it names.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/lib";
use Test::More;
use Proxyd;
use Proxyd::Differential;

plan skip_all => 'nginx is not installed' unless Proxyd::Differential::available();
my $numbers = pack 'N*', 0 .. 20_000;

sub origin {
    my ($c) = @_;
    while (my $r = $c->request) {
        my $range = $r->{h}{range} // '-';
        $c->{origin}->note("S $r->{method} $r->{uri} $range");
        my ($n) = $r->{uri} =~ m{/(\d+)};
        my $head = "Content-Type: text/plain\r\nLast-Modified: Sun, 06 Nov 1994 08:49:37 GMT\r\nX-Range: $range\r\n"
            . ($r->{uri} =~ /weak/ ? "ETag: W/\"v1\"\r\n" : $r->{uri} =~ /none/ ? '' : "ETag: \"v1\"\r\n")
            . ($r->{uri} =~ /accept/ ? "Accept-Ranges: bytes\r\n" : '') . ($r->{uri} =~ /cookie/ ? "Set-Cookie: a=$range\r\n" : '');
        my $head_only = $r->{method} eq 'HEAD';
        my ($from, $to) = $range =~ /^bytes=(\d+)-(\d+)$/;
        if (!defined $from || $r->{uri} =~ /whole/) {
            $c->write("HTTP/1.1 200 OK\r\n${head}Content-Length: $n\r\n\r\n" . ($head_only ? '' : substr $numbers, 0, $n));
            next;
        }
        if ($from >= $n) { $c->write("HTTP/1.1 416 Nope\r\nContent-Range: bytes */$n\r\nContent-Length: 4\r\n\r\n" . ($head_only ? '' : 'nope')); next }
        $to = $n - 1 if $to >= $n;
        $c->write("HTTP/1.1 206 Partial Content\r\n${head}Content-Range: bytes $from-$to/$n\r\nContent-Length: "
            . ($to - $from + 1) . "\r\n\r\n" . ($head_only ? '' : substr $numbers, $from, $to - $from + 1));
    }
}

my $conf = <<'EOT';
worker_processes 1;
http {
    proxy_http_version 1.1;
    proxy_set_header Connection "";
    proxy_set_header Range $slice_range;
    slice 5000;
    server {
        listen 127.0.0.1:{{port}};
        location / { proxy_pass http://127.0.0.1:{{port:app}}; }
        location /own/ { add_header X-Own "$status|$sent_http_content_range" always; expires 1h; proxy_pass http://127.0.0.1:{{port:app}}; }
        location /gzip/ { gzip on; gzip_min_length 1; gzip_types text/plain; proxy_pass http://127.0.0.1:{{port:app}}; } #? gzip
        location /max0/ { max_ranges 0; proxy_pass http://127.0.0.1:{{port:app}}; }
        location /max3/ { max_ranges 3; proxy_pass http://127.0.0.1:{{port:app}}; }
        location /force/ { proxy_force_ranges on; proxy_pass http://127.0.0.1:{{port:app}}; }
        location /off/ { slice 0; proxy_pass http://127.0.0.1:{{port:app}}; }
        location /page/ { proxy_intercept_errors on; error_page 416 = /page416; proxy_pass http://127.0.0.1:{{port:app}}; }
        location /page416 { return 200 "a page"; }
        location /hide/ { proxy_hide_header X-Range; proxy_pass http://127.0.0.1:{{port:app}}; }
    }
}
EOT
my ($tested, $theirs) = Proxyd::Differential::start(conf => $conf, origins => { app => \&origin });
my ($origin) = @{ $tested->{origins} };

my @row;
for my $uri ('/12345', '/10000', '/4999', '/5000', '/5001', '/0', '/weak/12345', '/none/12345', '/accept/12345', '/whole/12345', '/own/12345',
    '/max0/12345', '/max3/12345', '/force/12345', '/off/12345', '/page/12345', '/hide/12345', '/cookie/12345') {
    push @row, ['GET', $uri], ['HEAD', $uri];
    push @row, ['GET', $uri, 'Range', $_] for 'bytes=0-0', 'bytes=-3000', 'bytes=0-4,6-7';
    push @row, ['GET', $uri, 'Range', $_] for $uri =~ /max0/ ? () : ('bytes=7000-', 'bytes=20000-');
    push @row, ['GET', $uri, 'Range', $_] for $uri =~ /max0|page/ ? () : ('bytes=x', 'bytes=12345-');
    push @row, ['HEAD', $uri, 'Range', 'bytes=4000-6000'];
}
push @row, ['GET', '/12345', 'Range', $_] for 'bytes=0-4999', 'bytes=0-5000', 'bytes=4999-5000', 'bytes=5000-9999', 'bytes=10000-12344',
    'bytes=10000-99999', 'bytes=-1', 'bytes=-2345', 'bytes=-2346', 'bytes=-12345', 'bytes=-99999', 'bytes=-0', 'bytes=9-5', 'bytes= 1 - 2 ',
    'bytes=1-2,', 'bytes=,1-2', 'bytes=', 'bytes', 'Bytes=1-2', 'items=1-2', 'bytes=99999999999999999999-', 'bytes=0-99999999999999999999';
for my $etag ('"v1"', '"v2"', 'W/"v1"', 'Sun, 06 Nov 1994 08:49:37 GMT', 'Sun, 06 Nov 1994 08:49:38 GMT') {
    push @row, ['GET', '/12345', 'Range', 'bytes=7000-7001', 'If-Range', $etag];
    push @row, ['GET', '/12345', 'If-None-Match', $etag], ['GET', '/12345', 'If-Match', $etag] if $etag =~ /"/;
    push @row, ['GET', '/12345', 'If-Modified-Since', $etag], ['GET', '/12345', 'If-Unmodified-Since', $etag] if $etag =~ /GMT/;
}
push @row, ['POST', '/12345', 'Range', 'bytes=6000-6001', 'body'];
@row = map { Proxyd::Differential::row(@$_) } @row;

sub parts {
    my ($s, $row) = @_;
    $origin->reset_counts;
    my $answer = Proxyd::Differential::answer($s, $row);
    $answer =~ s/^(?:X-Range|X-Own|Expires|Cache-Control|Set-Cookie): .*\n//mg if $answer =~ /^HTTP\S+ 416/m;
    return join("\n", $origin->lines(qr/^S /)) . "\n$answer";
}
for my $row (@row) {
    my ($what) = $row->[0] =~ s/\r\nHost: main\.test\r\n/\r\n/r =~ s/\r\n\r\n.*//sr =~ s/\r\n/ + /gr;
    is(parts($tested, $row), parts($theirs, $row), $what);
}
$_->stop for $tested, $theirs;
done_testing();
