# SPDX-License-Identifier: BSD-2-Clause
#
# The same configuration file run by nginx and by the server under test: the same answers, field
# for field and in the same order, apart from the values of Server and Date.  What a current nginx
# does by default and Debian's 1.22 does not (HTTP/1.1 and kept-alive connections to upstreams) is
# set explicitly below.
#
# Known differences, by the number of differing things:
#   1. The server's name at the foot of built-in error pages, and with it their Content-Length.
#   2. The boundary of multipart/byteranges, which is random or a counter.
#   3. Expires, and everything else made from the current time.
# Requests which proxyd answers more strictly on purpose (two Host lines, a port that is no number
# in Host, HTTP/1.0 with Transfer-Encoding) are tested in http_requests.t and not here.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/lib";
use JSON::PP ();
use Test::More;
use Proxyd;
use Proxyd::Differential;

plan skip_all => 'nginx is not installed' unless Proxyd::Differential::available();

my $conf = <<'EOT';
worker_processes 1;
http {
    types { text/html html; text/plain txt; text/css css; image/png png; application/javascript js;
        application/json json; }
    default_type application/octet-stream;
    proxy_http_version 1.1;
    proxy_set_header Connection "";
    large_client_header_buffers 4 2k;
    sendfile on;
    keepalive_timeout 65;
    map $uri $kind { default other; ~\.css$ style; /index.html home; } #? map
    map $http_user_agent $agent { hostnames; default -; "~*curl/(?<v>[\d.]+)" "curl-$v"; } #? map
    geo $local { default 0; 127.0.0.0/8 1; } #? geo
    upstream app { server 127.0.0.1:{{port:app}}; keepalive 8; }

    server {
        listen 127.0.0.1:{{port}} default_server;
        server_name main.test;
        root {{dir}}/html;
        index index.html index.htm;

        location / { try_files $uri $uri/ =404; }
        location /plain/ { alias {{dir}}/html/; }
        location = /exact { return 200 "exact\n"; }
        location ^~ /assets/ { expires 30d; add_header X-Kind kind; alias {{dir}}/html/; }
        location ~* \.(png|css)$ { add_header X-Re $1 always; }
        location /spa/ { try_files $uri /spa/index.html; }
        location /auto { return 301 /exact; }
        location /ret/ { location /ret/200 { return 200 "$request_method $uri $args\n"; }
            location /ret/204 { return 204; } location /ret/301 { return 301 /x$is_args$args; }
            location /ret/302 { return 302 https://other.test$request_uri; } location /ret/303 {
                return 303 /y; } location /ret/307 { return 307 /z; } location /ret/308 {
                return 308 /z; }
            location /ret/400 { return 400; } location /ret/401 { return 401; } location /ret/402 {
                return 402; } location /ret/403 { return 403; } location /ret/404 { return 404 nope;
                }
            location /ret/405 { return 405; } location /ret/408 { return 408; } location /ret/410 {
                return 410; } location /ret/413 { return 413; } location /ret/416 { return 416; }
                location /ret/418 { return 418; } location /ret/429 { return 429; }
            location /ret/500 { return 500; } location /ret/501 { return 501; } location /ret/502 {
                return 502; } location /ret/503 { return 503; } location /ret/504 { return 504; }
                location /ret/507 { return 507; } location /ret/599 { return 599; } }
        location /vars {
            add_header X-Vars "$scheme|$host|$server_name|$server_port|$request_method|$uri|$args|$is_args|$request_uri|$remote_addr|$server_protocol|$content_type|$content_length|$http_cookie|$cookie_k|$arg_k|$http_user_agent|$document_root|$request_filename|$request_completion|$request_body|$nginx_version_x|$limit_rate|$https|$binary_x" ;
            set $nginx_version_x ""; set $binary_x ""; return 200 "v\n"; }
        location /rw/ { rewrite ^/rw/a/(.*)$ /exact last; rewrite ^/rw/b/(.*)$ /a.txt break;
            rewrite ^/rw/c/(.*)$ /d/$1 redirect; rewrite ^/rw/d/(.*)$ /e/$1?k=v permanent;
            rewrite ^/rw/e/(.*)$ /ret/200/$1?new=1 last; rewrite ^/rw/f/(.*)$ https://h.test/$1;
                rewrite ^/rw/g/(.*)$ /ret/200/$1? last; return 404; }
        location /if/ { if ($request_method = POST) { return 405; } if ($args ~ "block=(\w+)") {
            return 403 "blocked $1\n"; } if ($http_x_flag) { add_header X-Flag $http_x_flag; }
            add_header X-None 1; alias {{dir}}/html/; }
        location /deny/ { deny all; }
        location /limit/ { limit_except GET HEAD { deny all; } alias {{dir}}/html/; }
        location /errs/ { error_page 404 /404.html; error_page 403 =200 /exact;
            error_page 500 502 @named; alias {{dir}}/html/none/; }
        location /errs/named/ { error_page 404 = @named; }
        location /errs/dead/ { error_page 502 =503 /404.html;
            proxy_pass http://127.0.0.1:{{port:closed}}; }
        location /errs/redir/ { error_page 404 https://other.test/missing; }
        location /errs/loop/ { error_page 404 /errs/loop/again; }
        location @named { add_header X-Named 1 always; return 200 "named $uri\n"; }
        location /internal/ { internal; alias {{dir}}/html/; }
        location /hdr/ { add_header X-A 1; add_header X-B 2 always;
            add_header Cache-Control no-store; add_header X-Empty ""; expires -1;
            alias {{dir}}/html/; }
        location /small/ { client_max_body_size 8; proxy_pass http://app; }
        location /noetag/ { etag off; alias {{dir}}/html/; }
        location /onerange/ { max_ranges 1; alias {{dir}}/html/; }
        location /charset/ { charset utf-8; alias {{dir}}/html/; } #? charset
        location /map/ { return 200 "$kind|$agent\n"; } #? map
        location /geo/ { return 200 "$local\n"; } #? geo
        location /dead/ { proxy_pass http://127.0.0.1:{{port:closed}}; }
        location /app/ { proxy_pass http://app; }
        location /strip/ { proxy_pass http://app/; }
        location /swap/ { proxy_pass http://app/other/; }
        location /appun/ { proxy_pass http://app/app/; proxy_buffering off; }
        location /apphdr/ { proxy_pass http://app/app/; proxy_set_header Connection ""; proxy_set_header Host $host;
            proxy_set_header X-Real-IP $remote_addr;
            proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
            proxy_set_header X-Forwarded-Proto $scheme; proxy_hide_header X-App;
                proxy_pass_header Server; }
        location /appint/ { proxy_pass http://app/app/; proxy_intercept_errors on;
            error_page 404 /404.html; error_page 500 =200 /exact; }
        location ~ ^/appre/(?<tail>.*)$ { proxy_pass http://app/re/$tail$is_args$args; }
        location /appredir/ { proxy_pass http://app/app/; proxy_redirect http://app/ /front/;
            proxy_cookie_path / /front/; #? proxy_cookie_path
            proxy_cookie_domain app.test front.test; #? proxy_cookie_domain
        }
    }
    server {
        listen 127.0.0.1:{{port}};
        server_name other.test *.other.test ~^re(?<num>\d+)\.test$;
        add_header X-Server "$server_name|$host|$num";
        location / { return 200 "other\n"; }
        location /abs { absolute_redirect off; return 301 /there; }
    }
}
EOT

my %files = (
    'index.html'     => "<h1>home</h1>\n",
    'a.txt'          => "0123456789abcdef\n",
    'b.css'          => "body{}\n",
    'c.png'          => "\x89PNG",
    'd/index.html'   => "dir\n",
    'd/e/f.txt'      => "deep\n",
    'empty'          => '',
    'nodir/x'        => 'x',
    '404.html'       => "custom 404\n",
    'spa/index.html' => "spa\n",
    'sp ace.txt'     => "sp\n",
    "u\xc3\xa4.txt"  => "u\n",
    'big.txt'        => join('', map { "line $_\n" } 1 .. 20_000),
    'noext'          => "?\n",
    'data.json'      => "{}\n",
    'script.js'      => "1\n",
    'p%25.txt'       => "p\n",
    'q?.txt'         => "q\n"
);

my ($tested, $theirs) = Proxyd::Differential::start(conf => $conf, files => \%files,
    origins => { app => \&application }, closed => ['closed']);

# Answers by path alone, so that both servers get the same.
sub application {
    my ($c) = @_;
    my $json = JSON::PP->new->canonical->latin1;
    while (my $q = $c->request) {
        my ($name) = $q->{uri} =~ m{/(\w+)(?:\?.*)?$};
        $name = '' unless defined $name;
        my $no_body = $q->{method} eq 'HEAD';
        my $reply   = sub {
            my ($head, $body) = @_;
            $c->write("HTTP/1.1 $head\r\nContent-Length: "
                    . length($body)
                    . "\r\n\r\n"
                    . ($no_body ? '' : $body));
        };
        if ($name eq 'plain') {
            $reply->(
                "200 OK\r\nContent-Type: text/plain\r\nX-App: 1\r\nServer: app/1\r\nx-lower: L\r\nX-App: 2",
                "plain\n"
            );
        }
        elsif ($name eq 'chunked') {
            $c->write(
                "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nTransfer-Encoding: chunked\r\n\r\n"
                    . ($no_body ? '' : "3\r\nabc\r\n3\r\ndef\r\n0\r\n\r\n"));
        }
        elsif ($name eq 'close') {
            $c->write("HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n"
                    . ($no_body ? '' : 'until close'));
            return;
        }
        elsif ($name eq 'nocontent') { $c->write("HTTP/1.1 204 No Content\r\nX-App: 1\r\n\r\n") }
        elsif ($name eq 'notmod') {
            $c->write(
                "HTTP/1.1 304 Not Modified\r\nETag: \"x\"\r\nLast-Modified: Fri, 14 Jul 2017 02:40:00 GMT\r\n\r\n"
            );
        }
        elsif ($name eq 'notfound') {
            $reply->("404 Not Found\r\nContent-Type: text/plain", "app 404\n");
        }
        elsif ($name eq 'oops') { $reply->("500 Internal Server Error", "app 500\n") }
        elsif ($name eq 'redirect') {
            $reply->("302 Found\r\nLocation: http://app/app/there?x=y", '');
        }
        elsif ($name eq 'relative') { $reply->("301 Moved Permanently\r\nLocation: /rel", '') }
        elsif ($name eq 'cookies') {
            $reply->(
                "200 OK\r\nSet-Cookie: a=1; Path=/; Domain=app.test\r\nSet-Cookie: b=2; path=/x; HttpOnly\r\nCache-Control: private\r\nVary: Cookie",
                "c\n"
            );
        }
        elsif ($name eq 'tagged') {
            $reply->(
                "200 OK\r\nETag: \"tag\"\r\nLast-Modified: Fri, 14 Jul 2017 02:40:00 GMT\r\nAccept-Ranges: bytes\r\nExpires: Thu, 01 Jan 1970 00:00:00 GMT\r\nContent-Language: de\r\nContent-Encoding: x-own",
                "0123456789"
            );
        }
        elsif ($name eq 'accel') {
            $reply->(
                "200 OK\r\nX-Accel-Redirect: /internal/a.txt\r\nContent-Type: x/y\r\nSet-Cookie: k=v\r\nX-Gone: 1",
                "b"
            );
        }
        elsif ($name eq 'garbled') { $c->write("HTTP/1.1 200 OK\r\nContent-Le"); return }
        elsif ($name eq 'gone')    { return }
        elsif ($name eq 'status')  { $reply->("299 My Own Words",                   "299\n") }
        elsif ($name eq 'large')   { $reply->("200 OK\r\nContent-Type: text/plain", 'z' x 300_000) }
        elsif ($name eq 'refresh') {
            $reply->(
                "200 OK\r\nRefresh: 5; url=http://app/x\r\nLink: </a>; rel=preload\r\nWWW-Authenticate: Basic",
                "r"
            );
        }
        else {
            $reply->(
                "200 OK\r\nContent-Type: application/json",
                $json->encode(
                    {
                        method  => $q->{method},
                        uri     => $q->{uri},
                        headers => $q->{headers},
                        body    => $q->{body}
                    }
                )
            );
        }
    }
}

# --- the table ------------------------------------------------------------------------------------
my @table;    # [bytes, methods]

sub add { push @table, Proxyd::Differential::row(@_) }

my @static =
    qw(/ /index.html /a.txt /b.css /c.png /d /d/ /d/e /d/e/ /d/e/f.txt /empty /nodir/ /nodir
    /missing /missing/ /noext /data.json /script.js /sp%20ace.txt /u%c3%a4.txt
    /p%2525.txt /q%3F.txt /a.txt? /a.txt?x=y /a%2Etxt //a.txt /./a.txt /d/../a.txt /d//e/f.txt
    /%61.txt /404.html /exact /exact/ /exact?x /EXACT /spa/ /spa/x/y /spa /auto /autox
    /assets/b.css /assets/a.txt /assets/missing /assets /plain/ /plain/a.txt /plain /internal/a.txt
    /deny/ /deny/x /charset/a.txt /charset/c.png /noetag/a.txt /hdr/a.txt /hdr/missing
    /hdr/ /hdr/d /big.txt /vars /vars?k=1&j=2 /if/a.txt /if/a.txt?block=it /if/missing /limit/a.txt
    /errs/x /errs/named/x /errs/dead/x /errs/redir/x /errs/loop/x /missing.css /missing.png
    /map/x.css /map/y /geo/);
for my $uri (@static) { add('GET', $uri); add('HEAD', $uri) }
add('GET', "/ret/$_?a=b")
    for
    qw(200 204 301 302 303 307 308 400 401 402 403 404 405 408 410 413 416 418 429 500 501 502 503
    504 507 599);
add('HEAD', "/ret/$_")         for qw(200 301 404 500);
add('POST', "/ret/$_", 'body') for qw(200 204 301 404 413 500);
add('GET', "/rw/$_/x%20y?q=1") for qw(a b c d e f g h);

for my $m (qw(POST PUT DELETE OPTIONS PATCH PROPFIND FOO TRACE)) {
    add($m, $_) for qw(/a.txt /exact /missing /limit/a.txt /deny/ /if/a.txt /app/echo);
}
add('POST', $_, 'x=1')
    for
    qw(/a.txt /exact /missing /d /errs/x /errs/dead/x /if/a.txt /small/x /app/echo /strip/echo
    /vars);
add('POST', '/small/x',  'longer than eight');
add('POST', '/app/echo', 'Transfer-Encoding', 'chunked',  "3\r\nabc\r\n0\r\n\r\n");
add('POST', '/exact',    'Transfer-Encoding', 'chunked',  "3\r\nabc\r\n0\r\n\r\n");
add('PUT',  '/app/echo', 'Content-Type',      'text/own', 'put body');
# ranges and conditions
my ($tag, $lm) = ('"59682f00-11"', 'Fri, 14 Jul 2017 02:40:00 GMT');
no warnings 'qw';
add('GET', '/a.txt', 'Range', $_)
    for
    qw(bytes=0-3 bytes=4- bytes=-3 bytes=0-0 bytes=5-500 bytes=-500 bytes=16-16 bytes=17-
    bytes=99-100 bytes=3-1 bytes=x-y bytes=- other=0-1 bytes=0-1,4-5
    bytes=0-1,3-3,-1 bytes=0-1,99- bytes=0-16 bytes=0-), 'bytes=1-2 , 4-5', 'bytes = 1-2',
    'bytes=0-1,0-1,0-1';
add('HEAD', '/a.txt',          'Range', 'bytes=0-3');
add('GET',  '/onerange/a.txt', 'Range', 'bytes=0-1,4-5');
add('GET',  '/empty',          'Range', 'bytes=0-0');
add('GET',  '/big.txt',        'Range', 'bytes=1000-200000');
add('GET',  '/a.txt',          'Range', 'bytes=0-3', 'If-Range', $_)
    for $tag, '"no"', $lm, 'Fri, 14 Jul 2017 02:40:01 GMT';
add('GET', '/missing', 'Range', 'bytes=0-3');
add('GET', '/exact',   'Range', 'bytes=0-1');

for my $m (qw(GET HEAD)) {
    add($m, '/a.txt', 'If-Modified-Since', $_)
        for $lm, 'Fri, 14 Jul 2017 02:39:59 GMT', 'Fri, 14 Jul 2017 02:40:01 GMT', 'nonsense';
    add($m, '/a.txt', 'If-None-Match', $_) for $tag, "W/$tag", '*', '"x", "y"', "\"x\", $tag";
}
add('GET', '/a.txt', 'If-Match', $_) for $tag, '*', '"x"', "W/$tag";
add('GET', '/a.txt', 'If-Unmodified-Since', $_)
    for $lm, 'Fri, 14 Jul 2017 02:39:59 GMT', 'nonsense';
for my $time ($lm, 'Fri, 14 Jul 2017 02:39:59 GMT', 'Fri, 14 Jul 2017 02:40:01 GMT', 'nonsense') {
    for my $t ($tag, '*', '"x"') {
        add('GET', '/a.txt', 'If-None-Match', $t, 'If-Modified-Since', $time);
        add('GET', '/a.txt', 'If-Match', $t, 'If-Unmodified-Since', $time);
        add('GET', '/a.txt', 'If-Match', $t, 'If-Modified-Since', $time);
        add('GET', '/a.txt', 'If-None-Match', $t, 'If-Unmodified-Since', $time);
    }
}
add('GET', '/hdr/a.txt',    'If-None-Match',     $tag);
add('GET', '/assets/b.css', 'If-Modified-Since', $lm);
add('GET', '/app/tagged',   'If-None-Match',     '"tag"');
add('GET', '/app/tagged',   'Range',             'bytes=0-3');
# the application
my @app =
    qw(plain chunked close nocontent notmod notfound oops redirect relative cookies tagged accel
    garbled gone status large refresh echo);
for my $name (@app) {
    add('GET',  "/app/$name");
    add('HEAD', "/app/$name") unless $name =~ /garbled|gone/;
    add('GET',  "/appun/$name");
    add('GET',  "/apphdr/$name");
    add('GET',  "/appint/$name");
    add('GET',  "/appredir/$name");
}
add('GET', $_)
    for
    qw(/app /app/ /app/%41?x=%20 /app//x/../y /strip/ /strip/a%20b?c /strip/a%2Fb /swap/ /swap/x
    /appre/a/b?c=d /appre/%41 /dead/ /dead/x?y);
add('GET', '/app/echo', 'X-One', 1, 'x-two', 2, 'X-One', 3, 'Cookie', 'a=b', 'Accept-Encoding',
    'gzip', 'User-Agent', 'curl/7.1', 'Referer', 'http://r.test/', 'X_Under', 'u');
add('GET', '/apphdr/echo', 'X-Forwarded-For', '1.2.3.4', 'Host', 'Main.TEST:8080');
add('GET', '/vars?k=1', 'Cookie', 'j=1; k=two', 'User-Agent', 'Curl/8.2 x', 'Content-Type', 'a/b');
add('GET', '/if/a.txt', 'X-Flag',     'up');
add('GET', '/map/x',    'User-Agent', 'Curl/8.2 x');
# hosts
add('GET', '/', 'Host', $_)
    for 'other.test', 'OTHER.test', 'a.other.test', 'a.b.other.test', 're42.test', 'rex.test',
    'unknown.test', 'main.test:99', 'other.test.', '127.0.0.1';
add('GET', '/abs', 'Host', 'other.test');
add('GET', '/d', 'Host', $_) for 'unknown.test', 'Main.Test:1', '[::1]:80';
# bytes as they are
my $h = "Host: main.test\r\n";
push @table, map { [$_, ['GET']] } "GET / HTTP/1.0\r\n\r\n",
    "GET /a.txt HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", "GET /app/chunked HTTP/1.0\r\n\r\n",
    "GET /app/close HTTP/1.0\r\n\r\n",
    "GET /d HTTP/1.0\r\n\r\n",  "GET / HTTP/1.1\r\n\r\n",   "GET / HTTP/2.0\r\n$h\r\n",
    "GET / HTTP/1.x\r\n$h\r\n", "get / HTTP/1.1\r\n$h\r\n", "GET /a b HTTP/1.1\r\n$h\r\n",
    "GET /%zz HTTP/1.1\r\n$h\r\n",
    "GET /../x HTTP/1.1\r\n$h\r\n",          "GET / HTTP/1.1\nHost: main.test\n\n",
    "\r\n\r\nGET /exact HTTP/1.1\r\n$h\r\n", "GET http://other.test/x HTTP/1.1\r\n$h\r\n",
    "GET / HTTP/1.1\r\nHost: a b\r\n\r\n",
    "GET / HTTP/1.1\r\nHost:\r\n\r\n",     "GET / HTTP/1.1\r\n${h}X A: b\r\n\r\n",
    "GET / HTTP/1.1\r\n${h}A : b\r\n\r\n", 'GET /' . 'l' x 5000 . " HTTP/1.1\r\n$h\r\n",
    "GET / HTTP/1.1\r\n${h}X: " . 'l' x 5000 . "\r\n\r\n",
    "POST /app/echo HTTP/1.1\r\n${h}Content-Length: x\r\n\r\n",
    "POST /app/echo HTTP/1.1\r\n${h}Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "POST /app/echo HTTP/1.1\r\n${h}Transfer-Encoding: foo\r\n\r\n",
    "POST /app/echo HTTP/1.1\r\n${h}Transfer-Encoding: chunked\r\n\r\nzz\r\n",
    "GET / HTTP/1.1\r\n${h}Connection: close\r\n\r\n",
    "GET /missing HTTP/1.1\r\n${h}Connection: close\r\n\r\n",
    "POST /small/x HTTP/1.1\r\n${h}Content-Length: 100\r\nExpect: 100-continue\r\n\r\n",
    "POST /exact HTTP/1.1\r\n${h}Content-Length: 2\r\nExpect: 100-continue\r\n\r\nab";
cmp_ok scalar @table, '>=', 250, 'a table of ' . @table . ' requests';

Proxyd::Differential::compare($tested, $theirs, @table);
for ($tested, $theirs) { $_->stop }
done_testing;
