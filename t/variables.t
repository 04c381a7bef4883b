# SPDX-License-Identifier: BSD-2-Clause
#
# Every variable of the http core, of the upstream module and of the log: its value while a request
# runs and when it is logged; which values are kept for a request and which are computed anew.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/lib";
use Sys::Hostname;
use Test::More;
use Proxyd;

my @core = qw(arg_k arg_b arg_none args binary_remote_addr body_bytes_sent bytes_sent connection connection_requests
    connection_time content_length content_type cookie_c cookie_none document_root document_uri host hostname http_user_agent
    http_x_one http_none https is_args is_request_port limit_rate msec nginx_version pid pipe proxy_protocol_addr
    proxy_protocol_port proxy_protocol_server_addr proxy_protocol_server_port proxy_protocol_tlv_alpn query_string realpath_root
    remote_addr remote_port remote_user request request_body request_body_file request_completion request_filename
    request_id request_length request_method request_port request_time request_uri scheme sent_http_content_type
    sent_http_content_length sent_http_x_sent sent_http_connection sent_http_none sent_trailer_none server_addr
    server_name server_port server_protocol status tcpinfo_rtt tcpinfo_rttvar tcpinfo_snd_cwnd tcpinfo_rcv_space time_iso8601
    time_iso8601_ms time_local uri);
my @upstream = qw(upstream_addr upstream_bytes_received upstream_bytes_sent upstream_cache_etag upstream_cache_last_modified
    upstream_cache_status upstream_connect_time upstream_cookie_sid upstream_cookie_none upstream_header_time upstream_http_x_up
    upstream_http_none upstream_last_addr upstream_last_server_name upstream_queue_time upstream_response_length
    upstream_response_time upstream_status upstream_trailer_x_tail upstream_trailer_none);
my $now  = join '', map { "$_=<\$$_>\n" } @core, @upstream;
my $late = join '', map { "$_=<\$$_>;" } @core, @upstream;
my $long = 'l' x 3000;

my $conf = <<'EOT';
http {
    log_format all escape=none '$arg_id: LATE';
    log_format defaults '$arg_id "$http_x_q" $arg_none $cookie_c';
    access_log off;
    default_type text/plain;
    map $arg_k $kept { default "$arg_k"; }
    map $arg_k $fresh { volatile; default "$arg_k"; }
    map $uri $uri_kept { default "$uri"; }
    map $uri $uri_fresh { volatile; default "$uri"; }
    map $status $at_status { default "s$status"; }
    upstream app { server 127.0.0.1:{{port:dead}} max_fails=0; server 127.0.0.1:{{port:app}}; }
    upstream named { server localhost:{{port:app}}; }
    server {
        listen 127.0.0.1:{{port}};
        listen 127.0.0.1:{{port:pp}} proxy_protocol;
        listen unix:{{dir}}/sock;
        server_name first.test second.test;
        root {{dir}}/html;
        location /now { access_log {{dir}}/all.log all; add_header X-Sent sent; return 200 "NOW"; }
        location /file { access_log {{dir}}/all.log all; add_header X-Sent sent; alias {{dir}}/html/a.txt; }
        location /app { access_log {{dir}}/all.log all; proxy_pass http://app; proxy_http_version 1.1; proxy_next_upstream error;
            add_header X-Mine "$upstream_addr|$upstream_status|$upstream_http_x_up|$upstream_cookie_sid"; }
        location /named { access_log {{dir}}/all.log all; proxy_pass http://named; }
        location /dead { access_log {{dir}}/all.log all; proxy_pass http://127.0.0.1:{{port:dead}}; error_page 502 = /app/again; }
        location /bodyfile { access_log {{dir}}/all.log all; client_body_in_file_only clean; proxy_pass http://127.0.0.1:{{port:app}};
            proxy_set_header X-File $request_body_file; proxy_set_header X-Body $request_body; }
        # Asked for before it is known: a chunked body has a length when it has been read.
        location /lengths { set $early "[$content_length]"; proxy_pass http://127.0.0.1:{{port:app}}; proxy_set_header X-Length $content_length;
            add_header X-Length "$early$content_length"; }
        location /body { access_log {{dir}}/all.log all; proxy_pass http://127.0.0.1:{{port:app}}; proxy_set_header X-Body $request_body;
            proxy_set_header X-File $request_body_file; }
        location /defaults { access_log {{dir}}/defaults.log defaults; return 204; }
        location /alias/ { alias {{dir}}/link/; return 200 "$document_root|$realpath_root|$request_filename"; }
        location ~ ^/re/(.*)$ { alias {{dir}}/html/$1; return 200 "$document_root|$request_filename"; }
        location /nowhere { root {{dir}}/missing; return 200 "[$realpath_root]"; }

        location /kept { set $a "$kept,$fresh,$arg_k,$args,$uri,$document_uri,$query_string,$is_args"; rewrite ^ /keptagain?k=2 last; }
        location /keptagain { return 200 "$a|$kept,$fresh,$arg_k,$args,$uri,$document_uri,$query_string,$is_args|$request_uri"; }
        location /early { set $e $sent_http_x_h; add_header X-H h; access_log {{dir}}/early.log all; return 200 "$e"; }
        location /earlystatus { set $e $at_status; return 201 "$e|$at_status|$status"; }
        location /sub/ { auth_request /subauth; alias {{dir}}/html/; add_header X-Map "$uri_kept|$uri_fresh|$uri"; }
        location = /subauth { set $t "$uri_kept$uri_fresh"; return 204; }
        location /id { return 200 "$request_id $request_id"; }
        location /setargs { set $args "k=new&x"; return 200 "$args|$arg_k|$is_args|$query_string|$request_uri|$request"; }
        location /noargs { set $args ""; return 200 "[$args$is_args$arg_k]"; }
        location /rate { set $limit_rate $arg_r; return 200 "$limit_rate"; }
        location /method { error_page 405 /methodpage; return 405; }
        location /methodpage { return 200 "$request_method|$request"; }
        location /odd { return 200 "$arg_|$http_|$cookie_|$sent_http_|$upstream_http_|$arg_1x|$ARG_K|$Http_X_One|${http_x_one}x|$arg_a_b|$http_content_length"; }
        location /long { return 200 "$arg_LONG$http_LONG$cookie_LONG|$arg_k"; }
        location /uninit { if ($arg_k) { set $u yes; } return 200 "[$u]"; }
        location /uninitoff { uninitialized_variable_warn off; if ($arg_k) { set $u2 yes; } return 200 "[$u2]"; }
    }
}
EOT
$conf =~ s/LATE/$late/;
$conf =~ s/NOW/$now/;
$conf =~ s/LONG/$long/g;
my $p = Proxyd->new(conf => $conf, files => { 'html/a.txt' => "0123456789\n" });
symlink $p->dir . '/html', $p->dir . '/link';
$p->origin('app', sub {
    my ($c) = @_;
    while (my $q = $c->request) {
        my %h = map { lc $_->[0] => $_->[1] } @{ $q->{headers} };
        my $body = join '|', map { defined $h{$_} ? $h{$_} : '-' } 'x-body', 'x-file';
        $c->write("HTTP/1.1 200 OK\r\nX-Up: one\r\nx-up: two\r\nSet-Cookie: other=1\r\nSet-Cookie: sid=abc; path=/\r\nSet-Cookie: SID=second\r\nTransfer-Encoding: chunked\r\n\r\n"
            . sprintf("%x\r\n%s\r\n", length $body, $body) . "0\r\nX-Tail: end\r\n\r\n");
    }
});
$p->start;

sub parse { my %v = $_[0] =~ /(\w+)=<([^>]*)>/g; return \%v }
sub logged { my ($id) = @_; my $l = $p->wait_log(qr/^\Q$id\E: (.*)$/m, 'all.log'); return parse($l || '') }
# Each row: name => regex or text.
sub check {
    my ($what, $got, %want) = @_;
    for my $n (sort keys %want) {
        my $w = $want{$n};
        ref $w ? like($got->{$n}, qr/^$w$/, "$what: \$$n") : is($got->{$n}, $w, "$what: \$$n");
    }
}

# --- the core --------------------------------------------------------------------------------------
my ($port, $dir) = ($p->port, $p->dir);
my $head = "GET /now/a%20b?k=1&b=x%20y&id=core&K=9 HTTP/1.1\r\nHost: Second.TEST:8099\r\nUser-Agent: ua/1\r\nX-One: 1\r\nx-one: 2\r\n"
    . "Cookie: c=one; d=two\r\nCookie: e=three\r\nAuthorization: Basic dXNlcjpwYXNz\r\nContent-Type: a/b\r\nContent-Length: 3\r\n\r\n";
my $x = $p->raw('main', "GET /id HTTP/1.1\r\nHost: h\r\n\r\n" . "${head}abc", count => 2);
my $r = $x->{responses}[1];
my $v = parse($r->body);
my %core = (
    arg_k => '1', arg_b => 'x%20y', arg_none => '', args => 'k=1&b=x%20y&id=core&K=9', query_string => 'k=1&b=x%20y&id=core&K=9', is_args => '?',
    binary_remote_addr => "\x7f\0\0\1", connection => qr/\d+/, connection_requests => '2', connection_time => qr/0\.\d{3}/,
    content_length => '3', content_type => 'a/b', cookie_c => 'one', cookie_none => '', document_root => "$dir/html", realpath_root => "$dir/html",
    document_uri => '/now/a b', uri => '/now/a b', request_uri => '/now/a%20b?k=1&b=x%20y&id=core&K=9', request_filename => "$dir/html/now/a b",
    host => 'second.test', hostname => lc hostname(), http_user_agent => 'ua/1', http_x_one => '1, 2', http_none => '', https => '', scheme => 'http',
    is_request_port => ':', request_port => '8099', limit_rate => '0', msec => qr/\d{10}\.\d{3}/, nginx_version => qr/1\.\d+\.\d+/, pid => qr/\d+/,
    proxy_protocol_addr => '', proxy_protocol_port => '', proxy_protocol_server_addr => '', proxy_protocol_server_port => '', proxy_protocol_tlv_alpn => '',
    remote_addr => '127.0.0.1', remote_port => qr/\d{4,5}/, remote_user => 'user', request => 'GET /now/a%20b?k=1&b=x%20y&id=core&K=9 HTTP/1.1',
    request_body => '', request_body_file => '', request_id => qr/[0-9a-f]{32}/, request_method => 'GET', server_addr => '127.0.0.1', server_name => 'first.test',
    server_port => $port, server_protocol => 'HTTP/1.1', tcpinfo_rtt => qr/\d+/, tcpinfo_rttvar => qr/\d+/, tcpinfo_snd_cwnd => qr/\d+/, tcpinfo_rcv_space => qr/\d+/,
    time_iso8601 => qr/\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d\d:\d\d/, time_iso8601_ms => qr/\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}[+-]\d\d:\d\d/,
    time_local => qr{\d\d/\w{3}/\d{4}:\d\d:\d\d:\d\d [+-]\d{4}}, request_time => qr/\d+\.\d{3}/, sent_http_none => '', sent_trailer_none => '',
);
check('now', $v, %core, body_bytes_sent => '0', bytes_sent => '0', request_completion => '', sent_http_x_sent => '', sent_http_content_type => '',
    sent_http_content_length => '', sent_http_connection => 'keep-alive', status => '200', pipe => 'p', request_length => qr/\d+/);
my $l = logged('core');
is $l->{$_}, $v->{$_}, "logged: \$$_ is as before" for grep { !/time|msec|bytes|sent|completion|length|tcpinfo/ } sort keys %core;
check('logged', $l, body_bytes_sent => length $r->body, bytes_sent => length $r->raw, status => '200', request_length => length("${head}abc"),
    # read before the answer was there, and kept
    request_completion => '', sent_http_x_sent => '', sent_http_content_type => '', sent_http_content_length => '', sent_http_connection => 'keep-alive');
is $v->{pid}, ($p->workers)[0], 'the worker\'s pid';
cmp_ok abs($v->{msec} - time), '<', 30, 'the time';

$r = $p->get('/file?id=file');
$l = logged('file');
check('of a file, logged', $l, request_completion => 'OK', sent_http_x_sent => 'sent', sent_http_content_type => 'text/plain', sent_http_content_length => '11', sent_http_connection => 'close',
    body_bytes_sent => '11', bytes_sent => length $r->raw, pipe => '.', connection_requests => '1', remote_user => '', is_request_port => '', request_port => '', host => 'localhost',
    request_filename => "$dir/html/a.txt", document_root => "$dir/html/a.txt");
$p->head('/file?id=head');
check('HEAD, logged', logged('head'), body_bytes_sent => '0', sent_http_content_length => '11', request_method => 'HEAD', status => '200');
$p->get('/file?id=range', headers => [Range => 'bytes=0-3']);
check('a range, logged', logged('range'), body_bytes_sent => '4', sent_http_content_length => '4', status => '206');
$p->http("GET http://URL.test:81/now?id=url HTTP/1.0\r\nHost: field.test\r\n\r\n");
check('a URL, logged', logged('url'), host => 'url.test', request_port => '81', server_protocol => 'HTTP/1.0', request_uri => '/now?id=url', sent_http_connection => 'close', uri => '/now');
$p->http("GET /now?id=nohost HTTP/1.0\r\n\r\n");
check('no Host, logged', logged('nohost'), host => 'first.test', request_port => '', is_request_port => '');

my $c = Proxyd::Http::connect_to("unix:$dir/sock");
$c->send("GET /now?id=unix HTTP/1.0\r\n\r\n");
check('over a socket', parse($c->response->body), remote_addr => 'unix:', remote_port => '', server_addr => "unix:$dir/sock", server_port => '', binary_remote_addr => 'unix:');
my $tlv = "\x01\0\2h2";
my $proxy2 = "\r\n\r\n\0\r\nQUIT\n\x21\x11" . pack('n', 12 + length $tlv) . "\1\2\3\4\5\6\7\x08" . pack('nn', 1111, 2222) . $tlv;
$x = $p->raw('pp', $proxy2 . "GET /now?id=pp HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n", count => 1);
check('PROXY', parse($x->{responses}[0]->body), proxy_protocol_addr => '1.2.3.4', proxy_protocol_port => '1111', proxy_protocol_server_addr => '5.6.7.8', proxy_protocol_server_port => '2222',
    proxy_protocol_tlv_alpn => 'h2', remote_addr => '127.0.0.1');

# --- bodies ------------------------------------------------------------------------------------------
is $p->post('/body?id=body', 'the body')->body, 'the body|-', '$request_body while proxying';
check('a body, logged', logged('body'), request_body => 'the body', request_body_file => '', content_length => '8');
like $p->post('/bodyfile?id=bodyfile', 'in a file')->body, qr{^-\|$dir/tmp/body/\d+$}, '$request_body_file';
check('a body in a file, logged', logged('bodyfile'), request_body => '', request_body_file => qr{\Q$dir\E/tmp/body/\d+});
$p->http("POST /body?id=chunked HTTP/1.1\r\nHost: h\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n");
check('a chunked body, logged', logged('chunked'), request_body => 'abcde', content_length => '5');
my $early = $p->http("POST /lengths HTTP/1.1\r\nHost: h\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n");
is $early->header('X-Length'), '[]3', 'the length of a chunked body, before and after it was read';

# --- upstreams ---------------------------------------------------------------------------------------
my ($app, $dead) = ('127.0.0.1:' . $p->port('app'), '127.0.0.1:' . $p->port('dead'));
$p->expect_log(qr/nothing/);
# Which of the two servers comes first depends on the requests before.
my ($first, $u);
for my $try (1, 2) {
    $first = $p->get("/app?id=app$try");
    $u = logged("app$try");
    last if $u->{upstream_addr} =~ /,/;
}
my $t = qr/\d+\.\d{3}/;
is $u->{upstream_addr}, "$dead, $app", 'two servers';
is $first->header('X-Mine'), "$dead, $app|502, 200|one, two|abc", 'while the head goes out';
check('upstream, logged', $u, upstream_status => '502, 200', upstream_last_addr => $app, upstream_last_server_name => $app, upstream_connect_time => qr/-, $t/,
    upstream_header_time => qr/-, $t/, upstream_response_time => qr/$t, $t/, upstream_response_length => '0, 3', upstream_bytes_received => qr/0, \d{3}/,
    upstream_bytes_sent => qr/0, \d{2,3}/, upstream_cache_status => '', upstream_cache_etag => '', upstream_cache_last_modified => '', upstream_queue_time => '-, -',
    upstream_cookie_sid => 'abc', upstream_cookie_none => '', upstream_http_x_up => 'one, two', upstream_http_none => '', upstream_trailer_x_tail => 'end', upstream_trailer_none => '');
$p->get('/named?id=named');
check('a name', logged('named'), upstream_addr => qr/(?:127\.0\.0\.1|\[::1\]):\d+.*/, upstream_last_server_name => 'localhost:' . $p->port('app'));
$p->get('/dead?id=dead');
check('no upstream', logged('core'), map { $_ => '' } @upstream);
# error_page leaves no arguments, and what the second location logs has none.
like $p->wait_log(qr/^: (.*)$/m, 'all.log'), qr/upstream_addr=<\Q$dead\E : .*\Q$app\E>.*upstream_status=<502 : (?:502, )?200>/, 'from one upstream to another';

# --- kept, and computed anew -----------------------------------------------------------------------------
is $p->get('/kept?k=1')->body, '1,1,1,k=1,/kept,/kept,k=1,?|1,2,2,k=2&k=1,/keptagain,/keptagain,k=2&k=1,?|/kept?k=1', 'a map is kept, URI and arguments are not';
$r = $p->get('/early?id=early');
is $r->header('X-H'), 'h', 'a field';
like $p->wait_log(qr/^(early: .*)$/m, 'early.log'), qr/sent_http_x_sent=<>/, 'logged';
is $p->get('/earlystatus')->body, 's000|s000|201', 'a map of $status is kept, $status is not';
is $p->get('/sub/a.txt')->header('X-Map'), '/subauth|/sub/a.txt|/sub/a.txt', 'what a subrequest has asked for first is kept for the main request';
my ($one, $two) = split / /, $p->get('/id')->body;
is $one, $two, '$request_id is kept';
isnt $one, (split / /, $p->get('/id')->body)[0], 'and another one for the next request';
is $p->get('/setargs?k=old')->body, 'k=new&x|new|?|k=new&x|/setargs?k=old|GET /setargs?k=old HTTP/1.1', 'set $args';
is $p->get('/noargs?k=old')->body, '[]', 'to nothing';
is $p->get('/rate?r=10k')->body, '10240', 'set $limit_rate';
is $p->get('/rate?r=x')->body, '0', 'to what is none';
like $p->error_log, qr/\[error\].* invalid \$limit_rate "x"/, 'which is told';
is $p->post('/method', '')->body, 'GET|POST /method HTTP/1.1', '$request_method of an error page';

# --- paths ----------------------------------------------------------------------------------------------
is $p->get('/alias/x')->body, "$dir/link/|$dir/html|$dir/link/x", 'alias over a symbolic link';
is $p->get('/re/x/y')->body, "$dir/html/x/y|$dir/html/x/y", 'alias with a capture';
is $p->get('/nowhere')->body, '[]', '$realpath_root of what is not there';
like $p->error_log, qr{\[crit\].* realpath\(\) "$dir/missing" failed \(2: No such file or directory\)}, 'which is told';

# --- names ------------------------------------------------------------------------------------------------
is $p->get('/odd?=e&1x=one&k=K&a_b=ab&a-b=no', headers => ['X-One' => 'o', Cookie => '=e'])->body, '||e|||one|K|o|ox|ab|', 'odd names';
is $p->get("/long?$long=a&k=2", headers => [$long => 'h', Cookie => "$long=c"])->body, 'ahc|2', 'names of 3000 bytes';
is $p->get('/long?' . ('a' x 2900) . '&k=1')->body, '|1', 'that are not there';
$p->get('/defaults?id=d', headers => ['X-Q' => "a\"b\\\x01\xff"]);
ok $p->wait_log(qr/^d "a\\x22b\\x5C\\x01\\xFF" - -$/m, 'defaults.log'), 'in the log: escaped, "-" for nothing';

is $p->get('/uninit')->body . $p->get('/uninit?k=1')->body, '[][yes]', 'a variable that nobody has set';
my @warned = $p->error_log =~ /(\[warn\].* using uninitialized "u" variable, client: 127)/g;
is scalar @warned, 1, 'is warned of once';
is $p->get('/uninitoff')->body, '[]', 'and where that is off';
unlike $p->error_log, qr/uninitialized "u2"/, 'it is not';
$p->stop;
done_testing;
