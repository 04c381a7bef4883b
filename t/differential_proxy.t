# SPDX-License-Identifier: BSD-2-Clause
#
# What the proxy module makes of requests and answers, held against nginx's: proxy_redirect,
# proxy_cookie_*, X-Accel-…, fields hidden and passed, and what is sent to the server. The origin
# says what the request's X-Say-… fields ask for, and shows what it was sent.
#
# Known differences, left out here: fields named in Connection and TE are not passed on (RFC 9110,
# 7.6.1); a 1xx of the server is not taken for its answer; of an Accept-Ranges that came with an
# X-Accel-Redirect and the file's own only one is sent; a target that is no path is refused where
# it is named, and not in the server's root.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/lib";
use Test::More;
use Proxyd;
use Proxyd::Differential;

plan skip_all => 'nginx is not installed' unless Proxyd::Differential::available();

my $conf = <<'EOT';
worker_processes 1;
http {
    proxy_http_version 1.1;
    proxy_set_header Connection "";
    types { text/html html; text/plain txt; text/x-own own; }
    default_type application/octet-stream;
    charset_types text/plain;
    map $uri $part { default x; ~/m(\w+) $1; }
    upstream up { server 127.0.0.1:{{port:o}}; keepalive 4; }
    server {
        listen 127.0.0.1:{{port}};
        server_name main.test;
        root {{dir}}/html;

        location /r/default/ { proxy_pass http://up/inner/; }
        location /r/default2/ { proxy_pass http://up/inner/; proxy_redirect default; }
        location /r/nouri/ { proxy_pass http://up; }
        location /r/port/ { proxy_pass http://127.0.0.1:{{port:o}}/; }
        location = /r/exact { proxy_pass http://up/inner; }
        location ~ ^/r/re/ { proxy_pass http://up; }
        location /r/var/ { set $x up; proxy_pass http://$x; }
        location /r/off/ { proxy_pass http://up/; proxy_redirect off; }
        location /r/plain/ { proxy_pass http://up/; proxy_redirect http://a.test/ /mine/; }
        location /r/full/ { proxy_pass http://up/; proxy_redirect http://a.test/ https://b.test/; }
        location /r/vars/ { proxy_pass http://up/; proxy_redirect http://$host/ /h/$server_port/; }
        location /r/many/ { proxy_pass http://up/; proxy_redirect default;
            proxy_redirect http://a.test/one/ /1/; proxy_redirect http://a.test/ /any/;
            proxy_redirect / /slash/; }
        location /r/regex/ { proxy_pass http://up/; proxy_redirect ~^http://([^/:]+)(:\d+)?/(.+)$ /$1/$3;
            proxy_redirect ~*^HTTPS://(?<where>[a-z.]+)/ /secure/$where/; }
        location /r/rel/ { proxy_pass http://up/; proxy_redirect / /; }
        location /r/empty/ { proxy_pass http://up/; proxy_redirect http://a.test ""; }
        location /r/abs/ { absolute_redirect off; proxy_pass http://up/; proxy_redirect http://a.test/ /mine/; }
        location /r/outer/ { proxy_redirect http://a.test/ /outer/;
            location /r/outer/in/ { proxy_pass http://up/; }
            location /r/outer/off/ { proxy_pass http://up/; proxy_redirect off; }
            location /r/outer/own/ { proxy_pass http://up/; proxy_redirect http://b.test/ /own/; } }

        location /c/none/ { proxy_pass http://up/; }
        location /c/domain/ { proxy_pass http://up/; proxy_cookie_domain a.test b.test;
            proxy_cookie_domain .dot.test .new.test; proxy_cookie_domain ~\.(\w+)\.re\.test$ $1.got.test;
            proxy_cookie_domain ~^only\.test$ "" ; proxy_cookie_domain www.$host $host; }
        location /c/path/ { proxy_pass http://up/; proxy_cookie_path /two/ /; proxy_cookie_path ~*^/user/([^/]+) /u/$1;
            proxy_cookie_path ~^/Case(?<r>.*) /case$r; proxy_cookie_path $uri /some$uri; proxy_cookie_path / /rest/; }
        location /c/flags/ { proxy_pass http://up/; proxy_cookie_flags one httponly; proxy_cookie_flags two secure samesite=strict;
            proxy_cookie_flags three nosecure nohttponly nosamesite; proxy_cookie_flags four samesite=lax;
            proxy_cookie_flags five samesite=none secure; proxy_cookie_flags ~^re nohttponly samesite=strict;
            proxy_cookie_flags $arg_c secure; proxy_cookie_flags seven secure httponly nosecure; proxy_cookie_flags eight samesite=lax nosamesite;
            proxy_cookie_flags nine httponly nohttponly nosamesite; }
        location /c/all/ { proxy_pass http://up/; proxy_cookie_flags ~ nosecure samesite=strict; }
        location /c/three/ { proxy_pass http://up/; proxy_cookie_flags one httponly; proxy_cookie_path / /p/; proxy_cookie_domain a.test b.test; }
        location /c/outer/ { proxy_cookie_path / /outer/; proxy_cookie_domain a.test b.test; proxy_cookie_flags ~ secure;
            location /c/outer/in/ { proxy_pass http://up/; }
            location /c/outer/off/ { proxy_pass http://up/; proxy_cookie_path off; proxy_cookie_domain off; proxy_cookie_flags off; } }

        location /x/ { proxy_pass http://up/; }
        location /x/ignore/ { proxy_pass http://up/;
            proxy_ignore_headers X-Accel-Redirect X-Accel-Limit-Rate X-Accel-Buffering X-Accel-Charset X-Accel-Expires; }
        location /x/pass/ { proxy_pass http://up/; proxy_pass_header X-Accel-Limit-Rate; proxy_pass_header X-Accel-Charset;
            proxy_pass_header X-Accel-Buffering; proxy_pass_header X-Accel-Expires; proxy_pass_header X-Accel-Redirect;
            proxy_pass_header Server; proxy_pass_header Date; proxy_pass_header X-Pad; }
        location /x/charset/ { proxy_pass http://up/; charset utf-8; }
        location /internal/ { internal; alias {{dir}}/html/; add_header X-Internal "$uri|$args|$request_method"; }
        location /vars { return 200 "$uri|$args|$request_method|$request_uri\n"; }
        location @named { return 200 "named $uri|$args|$request_method\n"; }
        location /again/ { internal; proxy_pass http://up/; proxy_set_header X-Say-1 ""; proxy_set_header Connection ""; }

        location /h/hide/ { proxy_pass http://up/; proxy_hide_header X-One; proxy_hide_header Content-Type;
            proxy_hide_header Set-Cookie; proxy_hide_header ETag; proxy_hide_header Last-Modified; proxy_hide_header Cache-Control; }
        location /h/both/ { proxy_pass http://up/; proxy_hide_header X-One; proxy_pass_header X-One; }
        location /h/ { proxy_pass http://up/; }

        location /q/method/ { proxy_pass http://up/; proxy_method POST; }
        location /q/methodvar/ { proxy_pass http://up/; proxy_method $arg_m; }
        location /q/methodhead/ { proxy_pass http://up/; proxy_method HEAD; }
        location /q/body/ { proxy_pass http://up/; proxy_set_body "b=$arg_b"; }
        location /q/nobody/ { proxy_pass http://up/; proxy_pass_request_body off; }
        location /q/nobody2/ { proxy_pass http://up/; proxy_pass_request_body off; proxy_set_header Content-Length ""; proxy_set_header Connection ""; }
        location /q/nohdr/ { proxy_pass http://up/; proxy_pass_request_headers off; }
        location /q/neither/ { proxy_pass http://up/; proxy_pass_request_headers off; proxy_pass_request_body off; }
        location /q/v10/ { proxy_pass http://up/; proxy_http_version 1.0; }
        location /q/set/ { proxy_pass http://up/; proxy_set_header X-A "$http_x_b"; proxy_set_header X-Empty $arg_none;
            proxy_set_header User-Agent ""; proxy_set_header X-Twice 1; proxy_set_header X-Twice 2; proxy_set_header Connection close; }
        location /q/xff/ { proxy_pass http://up/; proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
            proxy_set_header X-To "$proxy_host|$proxy_port"; proxy_set_header Connection ""; }
        location /q/stream/ { proxy_pass http://up/; proxy_request_buffering off; }
        location /q/ { proxy_pass http://up/; }

        location /i/ { proxy_pass http://up/; proxy_intercept_errors on; error_page 404 500 /vars; error_page 401 @named;
            error_page 302 =200 /vars; error_page 403 /internal/f.txt; }
        location /i/off/ { proxy_pass http://up/; error_page 404 /vars; }
        location /f/ { proxy_pass http://up/; proxy_force_ranges on; }
        location /nf/ { proxy_pass http://up/; }
        location /u/a/ { proxy_pass http://up/b; }
        location /u/q/ { proxy_pass http://up/b?x=1&y=; }
        location /u/e/ { proxy_pass http://up/%20sp/; }
        location /u/rw/ { rewrite ^/u/rw/(.*)$ /n/$1?z break; proxy_pass http://up/ignored/; }
        location /u/if/ { if ($arg_i) { proxy_pass http://up; } proxy_pass http://up/else/; }
        location /u/le/ { proxy_pass http://up/x/; limit_except GET { proxy_pass http://up; } }
        location ~ ^/u/v/(.*)$ { proxy_pass http://up/v/$1$is_args$args; }
        location /u/map/ { proxy_pass http://up/$part; }
    }
}
EOT

my $origin = sub {
    my ($c) = @_;
    while (my $q = $c->request) {
        my ($status, $body, @say) = ('200 OK', undef);
        for (@{ $q->{headers} }) {
            my ($n, $v) = @$_;
            if    (lc $n eq 'x-say-status') { $status = $v }
            elsif (lc $n eq 'x-say-body')   { $body   = $v }
            elsif ($n =~ /^x-say/i)         { push @say, $v =~ s/ORIGIN/$c->{origin}{listen}/gr }
        }
        $body = join('', map { "$_->[0]: $_->[1]\n" } ['line', "$q->{method} $q->{uri} $q->{version}"],
            (grep { $_->[0] !~ /^x-say/i } @{ $q->{headers} }), ['body', $q->{body}])
            unless defined $body;
        my $none = $status =~ /^(?:204|304)/;
        $c->write("HTTP/1.1 $status\r\n" . join('', map { "$_\r\n" } @say)
                . ($none ? '' : 'Content-Length: ' . length($body) . "\r\n") . "\r\n"
                . ($none || $q->{method} eq 'HEAD' ? '' : $body));
    }
};
my ($tested, $theirs) = Proxyd::Differential::start(
    conf    => $conf,
    origins => { o => $origin },
    files   => { 'f.txt' => 'the file', 'a b.txt' => 'blank' },
);

# say(METHOD, URI, "Field: value" ...): the server answers with these fields.
sub say_ {
    my ($method, $uri, @say) = @_;
    my $n = 0;
    return Proxyd::Differential::row($method, $uri, 'X-Say-Body', 'x', map { ('X-Say-' . ++$n, $_) } @say);
}
sub with_status { my ($status, @rest) = @_; my $row = say_(@rest); $row->[0] =~ s/\r\n/\r\nX-Say-Status: $status\r\n/; return $row }
sub row { Proxyd::Differential::row(@_) }

my @table;
my @locations = ('http://up/inner/x', 'http://up/inner', 'http://up/', 'http://up', 'http://UP/inner/x',
    'http://127.0.0.1:ORIGIN/x', 'http://a.test/one/x?y=z', 'http://a.test/', 'http://a.test', 'HTTP://a.test/x',
    'https://c.test/x', 'http://main.test/z', 'http://b.test:80/q', '/rel/x', 'rel', '//a.test/x', '');
for my $loc (qw(default default2 nouri port var off plain full vars many regex rel empty abs outer/in outer/off outer/own), 're') {
    push @table, map { with_status('302 Found', 'GET', "/r/$loc/t", "Location: $_") } @locations;
}
push @table, map { with_status('302 Found', 'GET', '/r/exact', "Location: $_") } @locations;
push @table, map { with_status('201 Created', 'POST', '/r/plain/', "Location: $_") } @locations[6 .. 9];
for my $loc (qw(default plain many off regex)) {
    push @table, map { say_('GET', "/r/$loc/t", "Refresh: $_") } '5', '5; url=http://a.test/one/x', '5;URL=http://a.test/y',
        '0; url=/x', '1; url="http://a.test/z"', 'url=http://up/inner/q', '5; url=', '';
    push @table, with_status('302 Found', 'GET', "/r/$loc/t", 'Location: http://a.test/1', 'Refresh: 1; url=http://a.test/2');
}
my @cookies = (
    'one=1', 'one=1; Domain=a.test', 'one=1; domain=.a.test', 'one=1;Domain=A.TEST;Path=/two/x', 'one=1; Domain=dot.test',
    'one=1; Domain=.dot.test', 'one=1; Domain=www.re.test', 'one=1; domain=x.sub.re.test', 'one=1; Domain=only.test; Secure',
    'one=1; Domain=www.main.test', 'one=1; Domain=xa.test', 'one=1; Domain=', 'one=1; Domain', 'one=1; Domain = a.test ; Path = /two/z',
    'two=2; Path=/two/', 'two=2; path=/two', 'two=2; Path=/USER/bob/x', 'two=2; Path=/Casex', 'two=2; path=/casex',
    'two=2; Path=/c/path/t', 'two=2; Path=other', 'two=2; Path=', 'two=2; Secure; HttpOnly', 'two=2; SameSite=None', 'two=2; Secure; SameSite=Lax; Path=/',
    'three=3; Secure; HttpOnly; SameSite=Strict; Path=/two/q', 'three=3; secure ; httponly;samesite=lax', 'four=4; SameSite=None; Max-Age=5',
    'four=4; SameSite', 'five=5', 'five=5; secure', 'rex=1; HttpOnly', 'xre=1; HttpOnly', 'ONE=1', 'varname=1', 'six=6; Secure', 'seven=7', 'seven=7; Secure', 'eight=8; SameSite=None', 'eight=8', 'nine=9; HttpOnly; samesite=none',
    '=novalue', 'novalue', '', ';', 'a=b;', 'a=b;;Path=/two/x', 'q="x; Path=/two/y"; Path=/two/z', 'one=1; Expires=Wed, 09 Jun 2030 10:18:14 GMT; Path=/two/d; Domain=a.test; Secure');
for my $loc (qw(none domain path flags all three outer/in outer/off)) {
    push @table, map { say_('GET', "/c/$loc/t?c=varname", "Set-Cookie: $_") } @cookies;
    push @table, say_('GET', "/c/$loc/t", 'Set-Cookie: one=1; Path=/two/a; Domain=a.test', 'X-Between: 1', 'Set-Cookie: two=2; Path=/b');
}
# X-Accel-…
for my $loc ('x', 'x/ignore', 'x/pass', 'x/charset') {
    for my $m (qw(GET HEAD POST)) {
        push @table, map { say_($m, "/$loc/t?q", "X-Accel-Redirect: $_", 'Content-Type: text/own', 'Content-Disposition: inline',
            'Set-Cookie: a=1', 'Set-Cookie: b=2', 'Cache-Control: private', 'Cache-Control: no-store', 'Expires: Thu, 01 Jan 1970 00:00:10 GMT',
            'X-Other: lost', 'ETag: "e"', 'Last-Modified: Sat, 01 Jan 2000 00:00:00 GMT', 'Content-Encoding: x', 'Location: /l', 'Refresh: 1', 'WWW-Authenticate: x') }
            ($loc eq 'x/charset' ? () : ('http://h.test/vars', 'vars')), '/internal/f.txt', '/internal/f.txt?a=b', '/internal/none', '@named', '@nowhere', '/vars?x=%20y', '/vars/%41%20b', '/internal/a%20b.txt', '/internal/../vars', '/internal/%2e%2e/vars', '/vars?', '', '/internal/', '/again/x';
    }
    push @table, map { say_('GET', "/$loc/t", $_) } 'X-Accel-Limit-Rate: 1000000', 'X-Accel-Limit-Rate: off', 'X-Accel-Limit-Rate: x', 'X-Accel-Buffering: no', 'X-Accel-Buffering: yes',
        'X-Accel-Buffering: NO', 'X-Accel-Expires: 5', 'X-Accel-Expires: @9', 'X-Accel-Unknown: 1', 'X-Pad: 1';
    for my $type ('text/html', 'text/plain; charset=koi8-r', 'image/png') {
        push @table, map { say_('GET', "/$loc/t", "X-Accel-Charset: $_", "Content-Type: $type") } 'koi8-r', 'utf-8', '';
    }
    push @table, with_status('404 Not Found', 'GET', "/$loc/t", 'X-Accel-Redirect: /internal/f.txt');
    push @table, with_status('500 Oops', 'GET', "/$loc/t", 'X-Accel-Redirect: @named');
    push @table, with_status('206 Part', 'GET', "/$loc/t", 'X-Accel-Redirect: /internal/f.txt', 'Content-Range: bytes 0-1/5');
}
# fields of answers
for my $loc (qw(h h/hide h/both x/pass)) {
    push @table, say_('GET', "/$loc/t", 'X-One: 1', 'x-one: 2', 'Content-Type: text/html', 'Set-Cookie: a', 'ETag: "x"', 'Last-Modified: Sat, 01 Jan 2000 00:00:00 GMT',
        'Cache-Control: a', 'Server: app/1', 'Date: Sat, 01 Jan 2000 00:00:00 GMT', 'X-Pad: 1', 'Vary: A', 'Vary: B', 'Age: 3', 'Via: 1.1 z', 'Content-Language: de', 'Allow: GET', 'X-Empty:', 'Accept-Ranges: bytes');
    push @table, map { with_status($_, 'GET', "/$loc/t", 'X-One: 1') } '200 OK', '201 Created', '202', '204 No', '299 Own', '301 M', '302 F', '303 S', '304 N', '307 T', '308 P', '400 B', '401 U', '403 F', '404 N', '410 G', '416 R', '418 T', '429 M', '451 L', '500 I', '501 N', '502 B', '503 U', '504 T', '599 X', '600 Y', '999 Z';
    push @table, map { with_status($_, 'HEAD', "/$loc/t", 'X-One: 1') } '200 OK', '304 N', '404 N';
}
# requests
for my $loc (qw(q q/method q/methodvar q/methodhead q/body q/nobody q/nobody2 q/nohdr q/neither q/v10 q/set q/xff q/stream)) {
    push @table, row('GET', "/$loc/t?b=1&m=PATCH", 'X-B', 'bee', 'User-Agent', 'ua', 'Accept', '*/*', 'X-Forwarded-For', '1.1.1.1', 'X-Empty', 'e');
    push @table, row('GET', "/$loc/t?m=", 'Cookie', 'a=b', 'Cookie', 'c=d', 'If-None-Match', '"x"', 'If-Modified-Since', 'Sat, 01 Jan 2000 00:00:00 GMT', 'Range', 'bytes=0-1', 'Expect', 'x', 'Keep-Alive', '5', 'Upgrade', 'h2c', 'X-Twice', '9', 'x_under', '1');
    push @table, row('HEAD', "/$loc/t");
    push @table, map { row($_, "/$loc/t", 'the body') } qw(POST PUT DELETE GET PATCH);
    push @table, row('POST', "/$loc/t", 'Content-Type', 'text/x', '');
    push @table, row('POST', "/$loc/t", 'Transfer-Encoding', 'chunked', "3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n");
}
# nginx takes an empty proxy_method for a method, waits for the body of an answer to HEAD that its
# client did not ask for, and passes the client's Content-Length on without the body.
@table = grep {
    !($_->[0] =~ m{ /q/methodvar/} && $_->[0] !~ /m=PATCH/ || $_->[0] =~ m{ /q/methodhead/} && $_->[1][0] ne 'HEAD'
        || $_->[0] =~ m{ /q/(?:nobody|neither)/} && $_->[0] =~ /\nContent-Length|\nTransfer/)
} @table;
# errors that are intercepted, ranges, URIs
for my $status ('404 N', '500 I', '401 U', '302 F', '403 F', '503 U', '200 OK', '304 N') {
    push @table, map { with_status($status, $_, '/i/t?q', 'WWW-Authenticate: Basic realm="r"', 'Location: /l', 'X-One: 1', 'Content-Type: text/html', 'Set-Cookie: c') } qw(GET HEAD POST);
    push @table, with_status($status, 'GET', '/i/off/t', 'WWW-Authenticate: x', 'WWW-Authenticate: y');
}
for my $loc (qw(f nf)) {
    for my $range ('bytes=0-3', 'bytes=2-', 'bytes=-2', 'bytes=100-', 'bytes=0-1,4-5', 'x') {
        push @table, row('GET', "/$loc/t", 'Range', $range, 'X-Say-Body', '0123456789', 'X-Say-1', 'ETag: "e"');
        push @table, row('GET', "/$loc/t", 'Range', $range, 'If-Range', '"e"', 'X-Say-Body', '0123456789', 'X-Say-1', 'ETag: "e"', 'X-Say-2', 'Accept-Ranges: none');
        push @table, row('GET', "/$loc/t", 'Range', $range, 'X-Say-Body', '0123456789', 'X-Say-Status', '404 N');
    }
}
push @table, map { row('GET', $_) } map { my $l = $_; map { "/u/$l/$_" } '', 'x', 'x?y', 'a%20b', 'a%2Fb', 'a%3fb', 'a%23', "\xc3\xa4", 'a//b', 'a/../b', 'a+b;c', '%41', '?i=1', 'mone' } qw(a q e rw if le v map);
@table = grep { $_->[0] !~ m{^GET /u/v/a%20b} } @table; # a blank in a URI: ours goes out escaped
push @table, row('POST', '/u/le/x', 'b'), row('PUT', '/u/if/x?i=1', 'b');
Proxyd::Differential::compare($tested, $theirs, @table);
$_->stop for $tested, $theirs;
done_testing;
