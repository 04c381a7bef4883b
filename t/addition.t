# SPDX-License-Identifier: BSD-2-Clause
#
# addition: where the two texts stand, for which answers, and beside which other filters.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/lib";
use Test::More;
use Proxyd;

my $p = Proxyd->new(
    conf => <<'EOT',
http {
    types { text/html html; text/plain txt; text/css css; }
    default_type text/html;
    upstream app { server 127.0.0.1:{{port:app}}; }
    addition_types text/plain;
    server {
        listen 127.0.0.1:{{port}};
        root {{dir}}/html;
        add_before_body /before;
        location / { }
        location /both/ { add_after_body /after; alias {{dir}}/html/; }
        location /none/ { add_before_body ""; alias {{dir}}/html/; }
        location /after/only/ { add_before_body ""; add_after_body /after; alias {{dir}}/html/; }
        location /css/ { addition_types text/css; alias {{dir}}/html/; }
        location /all/ { addition_types *; alias {{dir}}/html/; }
        location /app/ { add_after_body /app/after; proxy_pass http://app; }
        location /query/ { add_before_body /app/q?x=1; alias {{dir}}/html/; }
        location /missing/ { add_before_body /nothing; alias {{dir}}/html/; }
        location /body/ { add_before_body /app/method; proxy_pass http://app/app/; }
        location /hang/ { add_before_body /app/hang; alias {{dir}}/html/; }
        location /self/ { add_before_body /self/a.html; alias {{dir}}/html/; }
        location /204 { return 204; }
        location /500 { return 500; }
        location /err/ { error_page 404 =200 /a.html; }
        location = /before { add_header X-Child 1; return 200 "before "; }
        location = /after { internal; return 200 " after"; }
    }
}
EOT
    files => { 'html/a.html' => 'html', 'html/a.txt' => 'text', 'html/a.css' => 'css', 'html/empty.html' => '',
        'html/big.html' => 'b' x 500_000 });
$p->origin('app', sub {
    my ($c) = @_;
    while (my $r = $c->request) {
        if ($r->{uri} =~ /hang/) { $c->wait_close; return }
        my $body = $r->{uri} =~ /method/ ? "$r->{method} [$r->{body}]" : "<$r->{uri}>";
        $c->write("HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\nETag: \"tag\"\r\nAccept-Ranges: bytes\r\n"
            . 'Content-Length: ' . length($body) . "\r\n\r\n$body");
    }
});
$p->start;

sub body { my ($uri, $want, $name) = @_; is $p->get($uri)->body, $want, $name || $uri }

body '/a.html',         'before html',       'before, inherited';
body '/both/a.html',    'before html after', 'before and after';
body '/none/a.html',    'html',              'an empty one cancels';
body '/after/only/a.html', 'html after',     'after';
body '/a.txt',          'before text',       'addition_types, inherited';
body '/a.css',          'css',               'another type';
body '/css/a.css',      'before css',        'addition_types of a level';
body '/css/a.txt',      'text',              'which replace those above';
body '/css/a.html',     'before html',       'but for text/html';
body '/all/a.css',      'before css',        'all types';
body '/both/empty.html', 'before  after',    'an empty body';
ok $p->get('/both/big.html')->body eq 'before ' . 'b' x 500_000 . ' after', 'a large body';
body '/app/x',          'before </app/x></app/after>', 'proxied, both';
body '/query/a.html',   'before ' =~ s/.*/<\/app\/q%3Fx=1>html/r, 'no arguments are split off';
like $p->get('/missing/a.html')->body, qr{404 Not Found.*html$}s, 'a text that is not there';
is $p->post('/body/method', 'data')->body, 'GET [data]POST [data]', 'the body of a request';
unlike $p->get($_)->body, qr/before/, "only for 200: $_" for '/500', '/missing', '/204';
body '/err/x', 'before html', 'an error page with status 200';
body '/self/a.html', 'htmlhtml', 'what is added gets no addition';

my $r = $p->get('/both/a.html');
is $r->header($_), undef, "no $_" for 'Content-Length', 'Accept-Ranges', 'X-Child';
like $r->header('ETag'), qr{^W/"}, 'a weak ETag';
ok defined $r->header('Last-Modified'), 'Last-Modified stays';
is $p->get('/both/a.html', headers => [Range => 'bytes=0-1'])->status, 200, 'no ranges';
$r = $p->head('/both/a.html');
is $r->status . $r->body, 200, 'HEAD';
my $x = $p->raw('main', "GET /both/a.html HTTP/1.1\r\nHost: a\r\n\r\n" x 2, count => 2);
is join('|', map { $_->body } @{ $x->{responses} }), 'before html after|before html after', 'a kept connection';
is $p->get('/both/a.html', version => '1.0')->body, 'before html after', 'HTTP/1.0';
is $p->get('/both/a.html', headers => ['If-None-Match' => $p->get('/both/a.html')->header('ETag')])->status, 304, 'not modified';

my $c = $p->connect('main');
$c->send("GET /hang/a.html HTTP/1.1\r\nHost: a\r\n\r\n");
$p->wait_log(qr/^R .*hang/m, 'origin-app.log');
$c->close;
ok $p->wait_log(qr/^X /m, 'origin-app.log'), 'a client that leaves';
$p->stop;
done_testing;
