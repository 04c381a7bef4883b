# SPDX-License-Identifier: BSD-2-Clause
#
# mirror in nginx and here: the client's answer, and the copies byte for byte.
#
# Known difference: with "mirror_request_body off" nginx promises the body's length and sends no body; here there is no
# length either.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/lib";
use Digest::MD5 qw(md5_hex);
use Test::More;
use Proxyd;
use Proxyd::Differential;

plan skip_all => 'nginx is not installed' unless Proxyd::Differential::available();

my $conf = <<'EOT';
worker_processes 1;
http {
    default_type text/plain;
    proxy_http_version 1.1;
    proxy_set_header Connection "";
    error_page 404 /missing;
    server {
        listen 127.0.0.1:{{port}};
        mirror /copy;
        location / { proxy_pass http://127.0.0.1:{{port:app}}; }
        location /copy { internal; proxy_pass http://127.0.0.1:{{port:copy}}$request_uri; }
        location /copyuri { internal; proxy_pass http://127.0.0.1:{{port:copy}}; proxy_set_header Connection ""; proxy_set_header X-Vars "$uri|$args|$request_uri|$request_method|$is_args"; }
        location /copymap/ { internal; proxy_pass http://127.0.0.1:{{port:copy}}/mapped/; }
        location /copyget { internal; proxy_method GET; proxy_pass_request_body off; proxy_set_header Connection ""; proxy_set_header Content-Length ""; proxy_pass http://127.0.0.1:{{port:copy}}; }
        location /copyrewrite { internal; rewrite ^ /rewritten?r=1 break; proxy_pass http://127.0.0.1:{{port:copy}}; }
        location /copyif { if ($request_method = POST) { return 204; } proxy_pass http://127.0.0.1:{{port:copy}}; }
        location /copylast { rewrite ^/copylast(.*)$ /copyuri/last$1 last; }
        location /uri { mirror /copyuri; proxy_pass http://127.0.0.1:{{port:app}}; }
        location /map { mirror /copymap/x; proxy_pass http://127.0.0.1:{{port:app}}; }
        location /many { mirror /copy; mirror /copyuri; mirror /copymap/; mirror /copylast; proxy_pass http://127.0.0.1:{{port:app}}; }
        location /get { mirror /copyget; proxy_pass http://127.0.0.1:{{port:app}}; }
        location /rewrite { mirror /copyrewrite; proxy_pass http://127.0.0.1:{{port:app}}; }
        location /cond { mirror /copyif; mirror /copyuri; proxy_pass http://127.0.0.1:{{port:app}}; }
        location /off { mirror off; proxy_pass http://127.0.0.1:{{port:app}}; }
        location /question { mirror /copyuri?own=1; proxy_pass http://127.0.0.1:{{port:app}}; }
        location /relative { mirror copyuri; proxy_pass http://127.0.0.1:{{port:app}}; }
        location /nobody { mirror_request_body off; mirror /copyget; proxy_pass http://127.0.0.1:{{port:app}}; }
        location /404 { return 404; }
        location /missing { return 404 "missing\n"; }
        location /limited { client_max_body_size 4; proxy_pass http://127.0.0.1:{{port:app}}; }
        location /auth { satisfy any; allow all; deny all; proxy_pass http://127.0.0.1:{{port:app}}; }
        location /denied { deny all; proxy_pass http://127.0.0.1:{{port:app}}; }
        location /file { root {{dir}}/html; }
        location /dir/ { root {{dir}}/html; index index.html; }
        location /try { root {{dir}}/html; try_files /none /uri/tried?t=1; }
    }
}
EOT

my ($tested, $theirs) = Proxyd::Differential::start(
    conf => $conf,
    files => { file => "a file\n", 'dir/index.html' => "an index\n" },
    origins => {
        app => sub {
            my ($c) = @_;
            while (my $r = $c->request) {
                my $body = "$r->{method} $r->{uri} $r->{body}";
                $c->write("HTTP/1.1 200 OK\r\nContent-Length: " . length($body) . "\r\n\r\n" . ($r->{method} eq 'HEAD' ? '' : $body));
            }
        },
        copy => sub {
            my ($c) = @_;
            while (my $r = $c->request) {
                my $head = $r->{head} =~ s/\r\n/ ~ /gr;
                $c->{origin}->note("M $head" . length($r->{body}) . ' ' . md5_hex($r->{body}));
                $c->write("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n" . ($r->{method} eq 'HEAD' ? '' : 'no'));
            }
        },
    });
my ($origin) = grep { $_->{log} =~ /copy/ } @{ $tested->{origins} };

# What the origin of the copies got of a request; the answer to a second one on the connection says that all is over.
sub copies {
    my ($s, $row) = @_;
    $origin->reset_counts;
    my $x = $s->raw('main', $row->[0] . "GET /off/end HTTP/1.1\r\nHost: main.test\r\nConnection: close\r\n\r\n",
        count => 2, methods => [@{ $row->[1] }, 'GET'], timeout => 5);
    my @l = sort $origin->lines(qr/^M /);
    s/127\.0\.0\.1:\d+/ADDRESS/g for @l;
    return \@l;
}

my @row = map { Proxyd::Differential::row(@$_) } (
    ['GET', '/a'], ['GET', '/a?b=c&d'], ['HEAD', '/a'], ['OPTIONS', '/a'], ['DELETE', '/a'],
    ['POST', '/a', 'Content-Type', 'text/x', 'body'], ['PUT', '/a?x', 'a longer body' x 1000],
    ['POST', '/a', ''], ['POST', '/a', 'Transfer-Encoding', 'chunked', "3\r\nabc\r\n0\r\n\r\n"],
    ['PATCH', '/uri/x?y', 'patch'],
    ['GET', '/uri'], ['GET', '/uri/b?c'], ['GET', '/uri/%41%20b'], ['HEAD', '/uri'], ['GET', '/map?q'],
    ['GET', '/many/x'], ['POST', '/many/x?y', 'four times'], ['POST', '/get?z', 'dropped'],
    ['GET', '/rewrite?a'], ['POST', '/cond', 'c'], ['GET', '/cond'], ['GET', '/off'],
    ['GET', '/question'], ['GET', '/question?mine'], ['GET', '/relative?x'],
    ['POST', '/nobody', 'not copied'], ['GET', '/404'], ['GET', '/missing'], ['GET', '/auth'], ['GET', '/denied'],
    ['GET', '/copy'], ['GET', '/file'], ['GET', '/file', 'Range', 'bytes=1-3'], ['GET', '/file2'], ['GET', '/dir/'], ['POST', '/file', 'x'],
    ['GET', '/try?u'], ['GET', '/a', 'Cookie', 'a=b', 'X-Own', 'mine', 'Accept-Encoding', 'gzip'],
    ['GET', '/a', 'If-None-Match', '"x"'],
);
for my $row (@row) {
    my ($line) = $row->[0] =~ /^(.*?) HTTP/;
    is_deeply(copies($tested, $row), copies($theirs, $row), "$line: copies");
}
Proxyd::Differential::compare($tested, $theirs, @row,
    map { Proxyd::Differential::row(@$_) } ['POST', '/limited', 'too long']);
$_->stop for $tested, $theirs;
done_testing();
