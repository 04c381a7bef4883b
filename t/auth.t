# SPDX-License-Identifier: BSD-2-Clause
#
# Who may come in, where differential_auth.t cannot tell: password files that change, are odd or
# hostile; hashes computed in threads; auth_delay; the deciding server of auth_request and the
# connection to it; auth_require; internal_redirect; inheritance; one line of the log for each refusal.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/lib";
use JSON::PP ();
use MIME::Base64 qw(encode_base64);
use POSIX qw(mkfifo);
use Test::More;
use Proxyd;

sub basic { ('Authorization', 'Basic ' . encode_base64($_[0], '')) }

# Takes about a second, or several where memory is watched.
my $slow = crypt('pw', Proxyd::sanitized() ? '$2y$12$abcdefghijklmnopqrstuu' : '$2y$14$abcdefghijklmnopqrstuu');

my $p = Proxyd->new(conf => <<'EOT');
worker_processes 1;
http {
    default_type text/plain;
    root {{dir}}/html;
    proxy_http_version 1.1;
    proxy_set_header Connection "";
    log_format main '$request_uri $status user=$remote_user time=$request_time $var';
    access_log {{dir}}/access.log main;
    map $arg_role $is_admin { default 0; admin 1; }
    auth_basic outer;
    auth_basic_user_file {{dir}}/pw/outer;

    server {
        listen 127.0.0.1:{{port}};
        server_name basic;
        large_client_header_buffers 4 128k;
        location / { }
        location /off/ { auth_basic off; alias {{dir}}/html/; }
        location /realm/ { auth_basic "inner $arg_r"; alias {{dir}}/html/; }
        location /file/ { auth_basic_user_file {{dir}}/pw/$arg_f; alias {{dir}}/html/; }
        location /file/in/ { alias {{dir}}/html/; }
        location /cached/ { error_log {{dir}}/debug.log debug; alias {{dir}}/html/; }
        location /uncached/ { error_log {{dir}}/debug.log debug; auth_basic_cache_time 0; alias {{dir}}/html/; }
        location /relative/ { auth_basic_user_file pw/outer; alias {{dir}}/html/; }
        location /limit/ { auth_basic off; limit_except GET { auth_basic limited; }
            alias {{dir}}/html/; }
        location /re/ { auth_basic off; location ~ "(?s)^/re/(?<realm>.*)$" { auth_basic "$realm";
            alias {{dir}}/html/; } }
    }
    server {
        listen 127.0.0.1:{{port:delay}};
        auth_basic_user_file {{dir}}/pw/outer;
        auth_delay 300ms;
        location / { }
        location /none/ { auth_delay 0; alias {{dir}}/html/; }
        location /deny/ { auth_basic off; deny all; }
        location /return/ { auth_basic off; return 401; }
        location /any/ { satisfy any; deny all; alias {{dir}}/html/; }
        location /request/ { auth_basic off; auth_request /401; alias {{dir}}/html/; }
        location /403/ { auth_basic off; auth_request /403; alias {{dir}}/html/; }
        location /require/ { auth_basic off; auth_require $arg_x error=401; alias {{dir}}/html/; }
        location /page/ { error_page 401 = @login; alias {{dir}}/html/; }
        location /twice/ { error_page 401 /any/login; recursive_error_pages on; }
        location /long/ { auth_delay 1h; }
        location @login { return 200 login; }
        location /401 { return 401; }
        location /403 { return 403; }
    }
    server {
        listen 127.0.0.1:{{port:request}};
        auth_basic off;
        auth_request /ask;
        auth_request_set $var "set=$upstream_http_x_var";
        location / { proxy_pass http://127.0.0.1:{{port:app}}; }
        location /file/ { alias {{dir}}/html/; }
        location /own/ { auth_request_set $other "$upstream_status"; add_header X-Var "[$var][$other]";
            alias {{dir}}/html/; }
        location /same/ { auth_request_set $var "again-$upstream_http_x_var"; add_header X-Var "$var";
            alias {{dir}}/html/; }
        location /off/ { auth_request off; alias {{dir}}/html/; }
        location /slow/ { auth_request /ask_slow; alias {{dir}}/html/; }
        location /cut/ { auth_request /ask_cut; alias {{dir}}/html/; }
        location /cycle/ { auth_request /cycle/x; alias {{dir}}/html/; }
        location /args/ { auth_request /arg?x=1; alias {{dir}}/html/; }
        location /arg { return 200; }
        location /big/ { auth_request /ask_big; alias {{dir}}/html/; }
        location = /ask { internal; proxy_pass http://127.0.0.1:{{port:auth}};
            proxy_set_header X-Uri $request_uri; proxy_set_header X-Method $request_method; }
        location = /ask_slow { internal; proxy_pass http://127.0.0.1:{{port:auth}}/slow; }
        location = /ask_cut { internal; proxy_pass http://127.0.0.1:{{port:auth}}/cut; }
        location = /ask_big { internal; proxy_pass http://127.0.0.1:{{port:auth}}/big; }
    }
    server {
        listen 127.0.0.1:{{port:require}};
        auth_basic off;
        location / { auth_require $is_admin; alias {{dir}}/html/; }
        location /several/ { auth_require $arg_a $arg_b; auth_require $arg_c error=401;
            auth_require $arg_d error=503; alias {{dir}}/html/; }
        location /several/off/ { auth_require off; alias {{dir}}/html/; }
        location /several/own/ { auth_require $arg_e; alias {{dir}}/html/; }
        location /any/ { satisfy any; deny all; auth_require $is_admin; alias {{dir}}/html/; }
        location /any401/ { satisfy any; auth_basic x; auth_require $is_admin; alias {{dir}}/html/; }
        location /any503/ { satisfy any; deny all; auth_require $is_admin error=503;
            alias {{dir}}/html/; }
        location /asked/ { auth_request /who; auth_request_set $who "$arg_who$http_x_who";
            auth_require $who; alias {{dir}}/html/; }
        location /limit/ { limit_except GET { auth_require $is_admin; }
            proxy_pass http://127.0.0.1:{{port:app}}; }
        location /who { return 200; }
    }
    server {
        listen 127.0.0.1:{{port:redirect}};
        auth_basic off;
        location /uri/ { internal_redirect /to/$arg_t; }
        location /args/ { internal_redirect /to/x?q=$arg_q; }
        location /named/ { internal_redirect @named; }
        location /empty/ { internal_redirect $arg_to; try_files /a.txt =404; }
        location /auth/ { auth_basic x; internal_redirect @named; }
        location /deny/ { deny all; internal_redirect @named; }
        location /outer/ { internal_redirect @named; location /outer/in/ { alias {{dir}}/html/; }
            location /outer/not/ { internal_redirect ""; alias {{dir}}/html/; } }
        location /loop/a { internal_redirect /loop/b; }
        location /loop/b { internal_redirect /loop/a; }
        location /none/ { internal_redirect @nowhere; }
        location /le/ { internal_redirect @le; }
        location @le { limit_except GET { deny all; } return 200 le; }
        location @named { return 200 "named $uri?$args $request_method"; }
        location /to/ { internal; return 200 "to $uri?$args"; }
        location /if/ { if ($arg_x) { set $y 1; } internal_redirect @named; }
    }
    server {
        listen 127.0.0.1:{{port:server}};
        auth_basic off;
        internal_redirect @all;
        location / { alias {{dir}}/html/; }
        location @all { return 200 "all $uri"; }
    }
}
EOT

$p->write_file('html/a.txt', "a\n");
sub users { $p->write_file('pw/outer', join '', map { "$_\n" } @_) }
users('u:{PLAIN}pw', "slow:$slow", "nul:{PLAIN}p\0w", "cr:{PLAIN}pw\r", 'x' x 100_000 . ':{PLAIN}pw', 'huge:' . 'y' x 100_000,
    'after:{PLAIN}pw');
my %opened;
$p->origin('auth', sub {
    my ($c) = @_;
    while (my $req = $c->request) {
        my $ask = $req->{h}{'x-ask'} || '200';
        if ($req->{uri} eq '/cut')  { return }
        if ($req->{uri} eq '/slow') { $c->wait_close; return }
        my $body = $req->{uri} eq '/big' ? 'b' x 1_000_000 : $req->{h}{'x-body'} ? 'forbidden' : '';
        my @say = map { "$_: " . ($req->{h}{$_} // '-') . "/" } qw(x-uri x-method content-length transfer-encoding);
        $c->{origin}->note("A @say$req->{body}");
        my $more = $ask == 401 ? "WWW-Authenticate: Basic realm=\"one\"\r\nwww-authenticate: Bearer\r\n" : '';
        $c->write("HTTP/1.1 $ask X\r\n${more}X-Var: v$ask\r\nSet-Cookie: a=b\r\nContent-Length: " . length($body) . "\r\n\r\n$body");
    }
});
$p->echo_origin('app');
$p->start;
my $auth = $p->{origins}[0];

# [name, method, uri, headers, status, www-authenticate or undef, port]
sub table {
    for (@_) {
        my ($name, $method, $uri, $headers, $status, $challenge, $port, $body) = @$_;
        my $r = $p->request($method, $uri, headers => $headers, port => $port || 'main');
        is $r->status, $status, "$name: status";
        is $r->header('WWW-Authenticate'), $challenge, "$name: challenge";
        is $r->body, $body, "$name: body" if defined $body;
    }
}

# --- inheritance ---------------------------------------------------------------------------------
my $outer = 'Basic realm="outer"';
table(
    ['inherited', 'GET', '/a.txt', [], 401, $outer],
    ['inherited, let in', 'GET', '/a.txt', [basic('u:pw')], 200, undef, 'main', "a\n"],
    ['HEAD', 'HEAD', '/a.txt', [], 401, $outer],
    ['POST', 'POST', '/a.txt', [basic('u:pw')], 405, undef],
    ['off', 'GET', '/off/a.txt', [], 200],
    ['own realm', 'GET', '/realm/a.txt?r=x', [], 401, 'Basic realm="inner x"'],
    ['own realm, outer file', 'GET', '/realm/a.txt', [basic('u:pw')], 200],
    ['own file, outer realm', 'GET', '/file/a.txt?f=outer', [], 401, $outer],
    ['own file', 'GET', '/file/a.txt?f=outer', [basic('u:pw')], 200],
    ['own file not inherited by a neighbour', 'GET', '/file/in/a.txt?f=outer', [basic('u:pw')], 200],
    ['relative to the configuration', 'GET', '/relative/a.txt', [basic('u:pw')], 200],
    ['limit_except: listed', 'GET', '/limit/a.txt', [], 200],
    ['limit_except: HEAD is GET', 'HEAD', '/limit/a.txt', [], 200],
    ['limit_except: other', 'POST', '/limit/a.txt', [], 401, 'Basic realm="limited"'],
    ['limit_except: other, let in', 'POST', '/limit/a.txt', [basic('u:pw')], 405],
);

# --- a challenge cannot be broken out of ------------------------------------------------------------
my $r = $p->get('/re/a%0d%0aSet-Cookie:%20x=y');
is $r->status, 401, 'a realm with line ends: status';
is $r->header('Set-Cookie'), undef, 'no field of its own';
is_deeply $r->{bad}, [], 'a well-formed head';

# --- odd files --------------------------------------------------------------------------------------
table(
    ['behind a long line and a long hash', 'GET', '/a.txt', [basic('after:pw')], 200],
    ['a long hash', 'GET', '/a.txt', [basic('huge:' . 'y' x 100)], 401, $outer],
    ['CR before the line\'s end', 'GET', '/a.txt', [basic('cr:pw')], 200],
    ['NUL in the file', 'GET', '/a.txt', [basic('nul:p')], 401, $outer],
    ['NUL in the password', 'GET', '/a.txt', [basic("u:pw\0x")], 401, $outer],
    ['NUL in the name', 'GET', '/a.txt', [basic("u\0:pw")], 401, $outer],
    ['no file', 'GET', '/file/a.txt?f=none', [basic('u:pw')], 403],
    ['no file, no credentials', 'GET', '/file/a.txt?f=none', [], 401, $outer],
    ['a directory', 'GET', '/file/a.txt?f=.', [basic('u:pw')], 500],
    ['below a file', 'GET', '/file/a.txt?f=outer/x', [basic('u:pw')], 500],
    ['an empty file', 'GET', '/file/a.txt?f=empty', [basic('u:pw')], 401, $outer],
    ['a FIFO does not block', 'GET', '/file/a.txt?f=fifo', [basic('u:pw')], 401, $outer],
) if $p->write_file('pw/empty', '') && mkfifo($p->dir . '/pw/fifo', 0644);

# --- a file that changes is followed at once ----------------------------------------------------------
users('new:{PLAIN}pw');
table(['changed: the old user', 'GET', '/a.txt', [basic('u:pw')], 401, $outer], ['changed: the new one', 'GET', '/a.txt', [basic('new:pw')], 200]);
unlink $p->dir . '/pw/outer';
table(['gone', 'GET', '/a.txt', [basic('new:pw')], 403]);
users('u:{PLAIN}pw', "slow:$slow");
table(['there again', 'GET', '/a.txt', [basic('u:pw')], 200]);

# --- hostile credentials: the right status, one line, and the connection goes on -----------------------
sub lines { my ($re) = @_; my @l = ($p->error_log || '') =~ /^.*$re.*$/mg; return scalar @l }
my $before = lines(qr/\[error\]/);
my @bad = map { "Basic $_" } '', ':', '====', '!', 'YQ', 'dTpwdw===', 'dTpwd=', 'dTpwdw==x', encode_base64(':', ''), encode_base64("\0", ''),
    encode_base64("\0:\0", ''), encode_base64("u\n:pw", ''), encode_base64("a\nb\r\n[error] forged: pw:pw", ''), encode_base64("\xff\xfe:\xfd", ''),
    encode_base64('u' x 40_000 . ':pw', ''), encode_base64('u:' . 'p' x 40_000, ''), 'A' x 65_000, encode_base64(':' x 30_000, '');
my $n = 0;
my $c = $p->connect('main');
for my $bad (@bad, 'Bearer x', 'Basic', 'basicdTpwdw==', '') {
    $c->send("GET /a.txt HTTP/1.1\r\nHost: x\r\nAuthorization: $bad\r\n\r\n");
    my $res = $c->response;
    is $res && $res->status, 401, 'malformed: ' . substr $bad =~ s/[^ -~]/?/gr, 0, 40;
    $n++;
}
$c->send("GET /a.txt HTTP/1.1\r\nHost: x\r\nAuthorization: Basic dTpwdw==\r\n\r\nGET /a.txt HTTP/1.1\r\nHost: x\r\n\r\n");
is $c->response->status, 200, 'and then the right ones';
is $c->response->status, 401, 'which are not remembered';
$c->close;
is lines(qr/^\[error\]/), 0, 'a name cannot forge a line of the log';
ok !grep({ !m{^\d{4}/\d\d/\d\d } } split /\n/, $p->error_log), 'each line of the log is one';
is lines(qr/no user\/password was provided/) > 0, 1, 'those without a user say so';

# --- a slow hash does not hold others up ------------------------------------------------------------------
my @waiting = map { $p->connect('main') } 1 .. 3;
$_->send("GET /a.txt HTTP/1.1\r\nHost: x\r\n" . join(': ', basic('slow:pw')) . "\r\n\r\nGET /off/a.txt HTTP/1.1\r\nHost: x\r\n\r\n") for @waiting;
is $p->get('/off/a.txt')->status, 200, 'others are answered';
ok !grep({ $_->wait_input(0) } @waiting), 'before the passwords have been checked';
$waiting[2]->abort;
is $_->response(timeout => 60)->status, 200, 'the right password' for @waiting[0, 1];
is $_->response->status, 200, 'and the request behind it' for @waiting[0, 1];
table(['a slow hash, the wrong password', 'GET', '/a.txt', [basic('slow:no')], 401, $outer]);
is $p->wait_log(qr/user "slow": password mismatch/), 'user "slow": password mismatch', 'which is logged';
ok $p->wait_log(qr{^/a.txt 499 user=slow}m, 'access.log'), 'a client that left is 499';

# --- what fitted a moment ago is not computed again -----------------------------------------------------------
sub remembered { my @l = ($p->read_file('debug.log') // '') =~ /the password fitted a moment ago/g; return scalar @l }
my $quick = crypt('pw', '$2y$04$abcdefghijklmnopqrstuu');
users('u:{PLAIN}pw', "slow:$slow", "quick:$quick", "other:$quick");
for (['slow:pw', 200, 1, 'checked before'], ['slow:no', 401, 1, 'another password'], ['quick:pw', 200, 1, 'for the first time'], ['quick:pw', 200, 2, 'again'],
    ['quick:no', 401, 2, 'a wrong one'], ['quick:no', 401, 2, 'which is never remembered'], ['other:pw', 200, 3, 'the same password under the same hash']) {
    is $p->get('/cached/a.txt', headers => [basic($_->[0])])->status, $_->[1], "$_->[3]: status";
    is remembered(), $_->[2], "$_->[3]: remembered";
}
is $p->get('/uncached/a.txt', headers => [basic('quick:pw')])->status, 200, 'auth_basic_cache_time 0: status';
is remembered(), 3, 'nothing is remembered';
users('u:{PLAIN}pw', 'quick:' . crypt('changed', '$2y$04$abcdefghijklmnopqrstuu'));
is $p->get('/cached/a.txt', headers => [basic('quick:pw')])->status, 401, 'a password that has been changed';
is $p->get('/cached/a.txt', headers => [basic('quick:changed')])->status, 200, 'the new one';
is $p->get('/cached/a.txt', headers => [basic('other:pw')])->status, 401, 'a user who has been taken away';

# --- auth_delay ---------------------------------------------------------------------------------------------
sub delays { lines(qr/\[info\].*delaying unauthorized request/) }
my $count = delays();
for (
    ['/a.txt', [], 401, 1], ['/a.txt', [basic('u:no')], 401, 1], ['/a.txt', [basic('u:pw')], 200, 0],
    ['/none/a.txt', [], 401, 0], ['/deny/a.txt', [], 403, 0], ['/return/x', [], 401, 0], ['/any/a.txt', [], 401, 1],
    ['/any/a.txt', [basic('u:pw')], 200, 0], ['/request/a.txt', [], 401, 1], ['/403/a.txt', [], 403, 0],
    ['/require/a.txt', [], 401, 1], ['/require/a.txt?x=1', [], 200, 0], ['/page/a.txt', [], 200, 1], ['/twice/a.txt', [], 401, 2],
) {
    my ($uri, $headers, $status, $times) = @$_;
    my $res = $p->get("$uri" . ($uri =~ /\?/ ? '&' : '?') . 'd', headers => $headers, port => 'delay');
    is $res->status, $status, "auth_delay $uri @$headers: status";
    $count += $times;
    is delays(), $count, "auth_delay $uri @$headers: delayed $times times";
}
ok $p->wait_log(qr{^/twice/a.txt\?d 401 .*time=(\S+)}m, 'access.log') >= 0.6, 'the time is waited out, twice';
ok $p->wait_log(qr{^/request/a.txt\?d 401 .*time=(\S+)}m, 'access.log') >= 0.3, 'and once';
$c = $p->connect('delay');
$c->send("GET /long/ HTTP/1.1\r\nHost: x\r\n\r\n");
ok $p->wait_for(sub { delays() == $count + 1 }), 'a long delay has begun';
$c->close;
ok $p->wait_log(qr{^/long/ 499 }m, 'access.log'), 'and ends when the client goes';
my $x = $p->raw('delay', "GET /a.txt HTTP/1.1\r\nHost: x\r\n\r\nGET /a.txt HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
        . join(': ', basic('u:pw')) . "\r\n\r\n");
is join(' ', map { $_->status } @{ $x->{responses} }), '401 200', 'a pipelined request waits for its turn';

# --- auth_request -------------------------------------------------------------------------------------------
my $deny = $p->get('/x', headers => ['X-Ask', 401], port => 'request');
is $deny->status, 401, '401 is passed on';
is_deeply [grep { lc $_->[0] eq 'www-authenticate' } @{ $deny->headers }],
    [['WWW-Authenticate', 'Basic realm="one"'], ['www-authenticate', 'Bearer']], 'with all its challenges';
is $deny->header('Set-Cookie'), undef, 'and no other field';
for ([200, 200], [204, 200], [299, 200], [403, 403], [404, 500], [300, 500], [400, 500], [503, 500], [407, 500]) {
    my $res = $p->get("/x", headers => ['X-Ask', $_->[0]], port => 'request');
    is $res->status, $_->[1], "an answer of $_->[0]";
    is $res->header('WWW-Authenticate'), undef, 'no challenge';
    ok $p->wait_log(qr/\[error\].*auth request unexpected status: $_->[0], client/), 'is logged' if $_->[1] == 500;
}
$auth->reset_counts;
my $rep = Proxyd::report($p->post('/x', 'a body', port => 'request'));
is $rep->{body}, 'a body', 'the content gets the body';
is(($auth->lines(qr/^A/))[0], 'A x-uri: /x/ x-method: POST/ content-length: -/ transfer-encoding: -/', 'the deciding server does not, nor its length');
$rep = Proxyd::report($p->http("POST /y HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n3\r\nabc\r\n0\r\n\r\n", port => 'request'));
is $rep->{body}, 'abc', 'nor of a chunked one';
is(($auth->lines(qr/^A/))[1], 'A x-uri: /y/ x-method: POST/ content-length: -/ transfer-encoding: -/', 'of which it hears nothing');
$p->get('/file/a.txt', headers => $_, port => 'request') for ([], ['X-Body', 1], ['X-Ask', 403, 'X-Body', 1], ['X-Ask', 401]);
is $auth->connections, 0, 'the connection to the deciding server was kept alive';
is $p->get('/own/a.txt', port => 'request')->header('X-Var'), '[][200]', 'auth_request_set is inherited as a whole';
is $p->get('/same/a.txt', port => 'request')->header('X-Var'), 'again-v200', 'and evaluated with the subrequest\'s variables';
ok $p->wait_log(qr{^/x 401 .* set=v401}m, 'access.log'), 'it is set when access is denied, too';
is $p->get('/off/a.txt', port => 'request')->status, 200, 'off';
is $p->get('/cut/a.txt', port => 'request')->status, 500, 'a deciding server that says nothing';
is $p->get('/big/a.txt', port => 'request')->body, "a\n", 'one that says a lot';
is $p->get('/cycle/a.txt', port => 'request')->status, 500, 'a location that decides about itself does not ask again';
is $p->get('/file/a.txt', headers => ['Range', 'bytes=0-0'], port => 'request')->status, 206, 'ranges are the content\'s';
$x = $p->raw('request', join '', map { "GET /file/a.txt?$_ HTTP/1.1\r\nHost: x\r\nX-Ask: " . ($_ % 3 ? 200 : 403) . "\r\n"
        . ($_ == 30 ? "Connection: close\r\n" : '') . "\r\n" } 1 .. 30);
is join(' ', map { $_->status } @{ $x->{responses} }), join(' ', map { $_ % 3 ? 200 : 403 } 1 .. 30), 'pipelined requests, each with its own decision';
$c = $p->connect('request');
$c->send("GET /slow/a.txt HTTP/1.1\r\nHost: x\r\n\r\n");
ok $p->wait_for(sub { $auth->lines(qr/^R .*slow/) }), 'a slow decision is under way';
is $p->get('/file/a.txt', port => 'request')->status, 200, 'and holds up nobody';
$c->close;
ok $p->wait_log(qr{^/slow/a.txt 499 }m, 'access.log'), 'the client goes';
ok $p->wait_for(sub { $auth->lines(qr/^X/) }), 'and so does the question';

# Both bytes and end are there before the worker looks: nobody is asked yet when the end is seen.
sub gone_before {
    my ($p, $text, $port) = @_;
    my ($worker) = $p->workers;
    kill 'STOP', $worker;
    my $gone = $p->connect($port);
    $gone->send($text);
    $gone->close;
    kill 'CONT', $worker;
}
gone_before($p, "GET /slow/gone.txt HTTP/1.1\r\nHost: x\r\n\r\n", 'request');
ok $p->wait_log(qr{^/slow/gone.txt 499 }m, 'access.log'), 'a client that has gone before the question is asked';

# --- auth_require -------------------------------------------------------------------------------------------
table(map { [$_->[0], 'GET', $_->[0], $_->[3] || [], $_->[1], $_->[2], 'require'] }
    ['/a.txt', 403], ['/a.txt?role=user', 403], ['/a.txt?role=admin', 200],
    ['/several/a.txt', 403], ['/several/a.txt?a=1', 403], ['/several/a.txt?a=1&b=0', 403], ['/several/a.txt?a=1&b=1', 401],
    ['/several/a.txt?a=1&b=1&c=x', 503], ['/several/a.txt?a=1&b=1&c=x&d=00', 200], ['/several/off/a.txt', 200],
    ['/several/own/a.txt', 403], ['/several/own/a.txt?e=1', 200], ['/any/a.txt', 403], ['/any/a.txt?role=admin', 200],
    ['/any401/a.txt', 401, 'Basic realm="x"'], ['/any401/a.txt?role=admin', 200], ['/any401/a.txt', 200, undef, [basic('u:pw')]],
    ['/any503/a.txt', 503], ['/any503/a.txt?role=admin', 200], ['/asked/a.txt', 200, undef, ['X-Who', 'me']], ['/asked/a.txt?who=me', 403], ['/asked/a.txt', 403], ['/limit/x', 200]);
table(['limit_except', 'POST', '/limit/x', [], 403, undef, 'require'], ['limit_except, let in', 'POST', '/limit/x?role=admin', [], 200, undef, 'require']);
ok $p->wait_log(qr{\[info\].*access refused with 401 by "auth_require \$arg_c" in \S+proxyd\.conf:\d+}), 'which line refused is told';

# --- internal_redirect -----------------------------------------------------------------------------------------
for (
    ['GET', '/uri/x?t=1', 200, 'to /to/1?'], ['GET', '/args/x?q=2&z', 200, 'to /to/x?q=2'], ['GET', '/named/x?a', 200, 'named /named/x?a GET'],
    ['POST', '/named/x?a', 200, 'named /named/x?a POST'], ['GET', '/empty/', 200, "a\n"], ['GET', '/empty/?to=@named', 200, 'named /empty/?to=@named GET'],
    ['GET', '/empty/?to=/to/y', 200, 'to /to/y?'], ['GET', '/auth/x', 401], ['GET', '/deny/x', 403], ['GET', '/outer/in/a.txt', 200, 'named /outer/in/a.txt? GET'],
    ['GET', '/outer/not/a.txt', 200, "a\n"], ['GET', '/loop/a', 500], ['GET', '/none/', 500], ['GET', '/to/x', 404], ['GET', '/if/?x=1', 200, 'named /if/?x=1 GET'],
    ['POST', '/le/', 403], ['GET', '/le/', 200, 'le'],
) {
    my ($method, $uri, $status, $body) = @$_;
    my $res = $p->request($method, $uri, port => 'redirect');
    is $res->status, $status, "internal_redirect: $method $uri";
    is $res->body, $body, 'body' if defined $body;
}
is $p->request('GET', '/auth/x', headers => [basic('u:pw')], port => 'redirect')->body, 'named /auth/x? GET', 'behind the access rules';
is $p->get('/a.txt', port => 'server')->body, 'all /a.txt', 'set for a server, it is inherited, and ends where it leads to';

# --- a hash under way outlives a reload, and does not keep a worker from ending ---------------------------------
users("slow:$slow");
my $slowly = "GET /uncached/a.txt HTTP/1.1\r\nHost: x\r\n" . join(': ', basic('slow:pw')) . "\r\n\r\n";
$c = $p->connect('main');
$c->send("${slowly}GET / HTTP/1.1\r\n");
is $p->get('/off/a.txt')->status, 200, 'the request before has been read';
ok $p->reload, 'reloaded meanwhile';
is $c->response(timeout => 60)->status, 200, 'answered by the old worker';
$c->close;
my @last = map { $p->connect('main') } 1 .. 8;
$_->send($slowly) for @last;
is $p->get('/off/a.txt')->status, 200, 'passwords are being checked';
$p->stop(signal => 'TERM', timeout => 60);
done_testing;
