# SPDX-License-Identifier: BSD-2-Clause
#
# api and status_zone: each path, method and error; counters of four workers add up exactly, survive
# reloads and deaths, and are reset.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/lib";
use IO::Socket::INET;
use JSON::PP ();
use Test::More;
use Proxyd;
use Proxyd::Dns;

plan skip_all => 'nginx has no api' if Proxyd::is_nginx();

my $json = JSON::PP->new->utf8->canonical->allow_nonref;
my $WORKERS = 4;

my $conf = <<'EOT';
daemon on;
worker_processes WORKERS;
http {
    upstream dynamic { zone dynamic 256k; server 127.0.0.1:1; }
    upstream fixed { server 127.0.0.1:1; }
    keyval_zone zone=one:64k;
    keyval_zone zone=timed:64k timeout=1h;
    keyval_zone zone=ip:64k type=ip;
    keyval $arg_k $one zone=one;
    limit_req_zone $arg_k zone=rate:64k rate=1r/m;
    limit_req_zone $arg_k zone=dry:64k rate=1r/m;
    limit_req_zone $arg_k zone=slow:64k rate=20r/s;
    limit_conn_zone $arg_k zone=conns:64k;
    resolver 127.0.0.1:{{port:dns}} ipv6=off status_zone=names;
    server {
        listen 127.0.0.1:{{port}};
        location /api { api write=on; }
        location /slash/ { api; }
        location = /exact { api; }
        location ~ ^/regex { api; }
        location /ro { api write=off; }
        location /closed { api write=on; deny all; }
        location /small { api write=on; client_body_buffer_size 32; }
        location /filed { api write=on; client_body_in_file_only clean; }
        location /limited { api write=on; limit_except GET { deny all; } }
        location /ssi { ssi on; ssi_types *; default_type text/html; try_files /ssi.txt =404; }
    }
    server {
        listen 127.0.0.1:{{port:counted}};
        server_name first;
        status_zone first;
        location / { return 200 ok; }
        location /201 { status_zone a; return 201 ok; }
        location /a/ { status_zone a; return 200 ok;
            location /a/b { return 404 no; }
            location /a/off { status_zone off; return 200 ok; } }
        location /if { if ($arg_x) { status_zone b; return 202 x; } return 200 ok; }
        location /if-in { status_zone a; if ($arg_x) { return 203 x; } return 200 ok; }
        location /redirect { status_zone from; rewrite ^ /a/ last; }
        location /page { status_zone from; error_page 404 /a/page; return 404; }
        location /444 { status_zone a; return 444; }
        location /599 { status_zone many; return 599 x; }
        location /code { status_zone many; if ($arg_c = 1) { return 211 x; } if ($arg_c = 2) { return 212 x; } return 213 x; }
        location /rate { limit_req zone=rate burst=1 nodelay; try_files /ssi.txt =404; }
        location /rate/slow { limit_req zone=slow burst=2; try_files /ssi.txt =404; }
        location /dry { limit_req zone=dry burst=1; limit_req_dry_run on; limit_conn conns 2; try_files /ssi.txt =404; }
        location /conns { limit_conn conns 1; proxy_pass http://127.0.0.1:{{port:slow}}; }
        location /name { proxy_pass http://$arg_n:1/; }
    }
    server { listen 127.0.0.1:{{port:counted}}; server_name second; status_zone first; return 204; }
    server { listen 127.0.0.1:{{port:counted}}; server_name third; status_zone off; return 204; }
    server { listen 127.0.0.1:{{port:counted}}; server_name fourth; status_zone fourth; return 204; }
}
EOT
sub conf { my ($workers) = @_; return $conf =~ s/WORKERS/$workers/r }

my $p = Proxyd->new(conf => conf($WORKERS), files => { 'html/ssi.txt' => '<!--#include virtual="/api/9/processes" -->' });
my $dns = Proxyd::Dns->start(port => $p->port('dns'), file => $p->dir . '/names', log => $p->dir . '/questions');
$dns->records('one.test 60 A 127.0.0.1', 'other.test refused');
$p->start(daemon => 1);

sub api {
    my ($method, $path, $body, %o) = @_;
    my $r = $p->request($method, $path, defined $body ? (body => $body) : (), %o);
    $r->{json} = $r->body eq '' ? undef : eval { $json->decode($r->body) };
    return $r;
}
sub data { api('GET', "/api/9$_[0]")->{json} }
sub hit { my ($uri, %o) = @_; return $p->request('GET', $uri, port => $p->port('counted'), host => 'first', %o) }

# --- paths -------------------------------------------------------------------------------------------

my $versions = [1 .. 9];
my $roots = [qw(nginx processes connections slabs http resolvers ssl workers)];
my $empty_zone = { '1xx' => 0, '2xx' => 0, '3xx' => 0, '4xx' => 0, '5xx' => 0, codes => {}, total => 0 };
my $ssl = { (map { $_ => 0 } qw(handshakes handshakes_failed session_reuses no_common_protocol no_common_cipher
    handshake_timeout peer_rejected_cert)),
    verify_failures => { map { $_ => 0 } qw(no_cert expired_cert revoked_cert hostname_mismatch other) } };
my @keys = (
    ['/api', $versions], ['/api/', $versions], ['/slash/', $versions], ['/exact', $versions], ['/regex', $versions],
    ['/api/9', $roots], ['/api/9/', $roots], ['/slash/9', $roots], ['/regex/9/', $roots],
    ['/api/1/', [qw(nginx processes connections slabs http ssl)]],
    ['/api/5/', [qw(nginx processes connections slabs http resolvers ssl)]],
    ['/api/1/http', [qw(requests server_zones caches keyvals upstreams)]],
    ['/api/5/http/', [qw(requests server_zones location_zones caches keyvals upstreams)]],
    ['/api/9/http/', [qw(requests server_zones location_zones caches limit_conns limit_reqs keyvals upstreams)]],
    ['/api/9/processes', { respawned => 0 }], ['/api/9/processes/', { respawned => 0 }],
    ['/api/9/http/caches', {}], ['/api/9/http/caches/', {}], ['/api/9/http/caches?fields=', []],
    ['/api/9/http/server_zones?fields=', [qw(first fourth)]],
    ['/api/9/http/location_zones?fields=', [qw(a b from many)]],
    ['/api/9/http/keyvals', { one => {}, timed => {}, ip => {} }],
    ['/api/9/http/keyvals?fields=', [qw(one timed ip)]],
    ['/api/9/http/keyvals/one', {}],
    ['/api/9/http/upstreams?fields=', ['dynamic']],
    ['/api/9/http/server_zones/fourth', { processing => 0, requests => 0, responses => $empty_zone, discarded => 0,
        received => 0, sent => 0, ssl => $ssl }],
    ['/api/9/http/server_zones?fields=processing,requests', { map { $_ => { processing => 0, requests => 0 } } qw(first fourth) }],
    ['/api/9/http/server_zones/first?fields=sent', { sent => 0 }],
    ['/api/9/http/server_zones/first?fields=nothing', {}],
    ['/api/9/http/server_zones/first?x=y&fields=%73ent', { sent => 0 }],
    ['/api/9/http/location_zones/b', { requests => 0, responses => $empty_zone, discarded => 0, received => 0, sent => 0 }],
    ['/api/9/http/location_zones/b?fields=requests,sent', { requests => 0, sent => 0 }],
    ['/api/7/http/server_zones/first?fields=responses,ssl', { responses => $empty_zone }],
    ['/api/8/http/server_zones/first?fields=ssl', { ssl => $ssl }],
    ['/api/6/http/location_zones/b?fields=responses', { responses => { %$empty_zone{qw(1xx 2xx 3xx 4xx 5xx total)} } }],
    ['/api/9/ssl', $ssl], ['/api/9/ssl?fields=handshakes', { handshakes => 0 }],
    ['/api/9/resolvers?fields=', ['names']],
    ['/api/9/resolvers/names', { requests => { map { $_ => 0 } qw(name srv addr) },
        responses => { map { $_ => 0 } qw(noerror formerr servfail nxdomain notimp refused timedout unknown) } }],
);
for (@keys) {
    my ($uri, $want) = @$_;
    my $r = api('GET', $uri);
    is($r->status, 200, "$uri: 200");
    is($json->encode($r->{json} // 'none'), $json->encode($want), "$uri: what it says");
    is($r->header('Content-Type'), 'application/json', "$uri: type");
}

my $n = data('/nginx');
like($n->{version}, qr/^\d+\.\d+\.\d+$/, 'nginx: version');
like($n->{build}, qr{^proxyd/\d}, 'nginx: build');
is($n->{address}, '127.0.0.1', 'nginx: address');
is($n->{generation}, 1, 'nginx: generation');
is($n->{ppid}, $p->master, 'nginx: ppid');
ok((grep { $_ == $n->{pid} } $p->workers), 'nginx: pid is a worker');
like($n->{$_}, qr/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/, "nginx: $_") for qw(load_timestamp timestamp);
is(join(',', sort keys %{ api('GET', '/api/9/nginx?fields=version,pid,none')->{json} }), 'pid,version', 'nginx: fields');
is(join(',', map { $_->{id} } @{ data('/workers') }), join(',', 0 .. $WORKERS - 1), 'workers: ids');
is(join(',', sort map { $_->{pid} } @{ data('/workers') }), join(',', sort $p->workers), 'workers: pids');
is(data('/workers/2')->{pid}, data('/workers')->[2]{pid}, 'one worker');
is(join(',', sort keys %{ data('/workers/2') }), 'connections,http,id,pid', "a worker's fields");
my $slab = data('/slabs/one');
is(join(',', sort keys %$slab), 'pages,slots', "a slab's fields");
is($slab->{pages}{used} + $slab->{pages}{free}, 15, 'pages of 64k, one for their descriptors');
ok((grep { $_->{used} > 0 && $_->{reqs} > 0 } values %{ $slab->{slots} }), 'some slots are used');
ok(!(grep { !exists $slab->{slots}{$_} } 16, 32, 64, 128, 256, 2048), 'slots by size');
ok((grep { $_ eq 'dynamic' } @{ api('GET', '/api/9/slabs?fields=')->{json} }), 'slabs: names');
is(join(',', sort keys %{ api('GET', '/api/9/slabs/one?fields=pages')->{json} }), 'pages', 'slab: fields');
like($p->get('/ssi')->body, qr/^\{"respawned":0\}$/, 'an answer included in a page');

# HEAD is GET without a body; OPTIONS says what is allowed.
my $head = api('HEAD', '/api/9/processes');
is($head->status . ' ' . $head->header('Content-Length') . " '" . $head->body . "'", "200 15 ''", 'HEAD');
for (
    ['/api/9/nginx', 'GET, HEAD, OPTIONS'],
    ['/api/9/http/keyvals/one', 'GET, HEAD, OPTIONS, POST, PATCH, DELETE'],
    ['/api/9/http/upstreams/dynamic/servers', 'GET, HEAD, OPTIONS, POST'],
    ['/ro/9/http/keyvals/one', 'GET, HEAD, OPTIONS'],
) {
    my $r = api('OPTIONS', $_->[0]);
    is($r->status . ' ' . $r->header('Allow'), "204 $_->[1]", "OPTIONS $_->[0]");
}

# --- errors ------------------------------------------------------------------------------------------

my $kv = '/api/9/http/keyvals/one';
for (
    ['GET', '/api/9/none', undef, 404, 'PathNotFound', 'path not found'],
    ['GET', '/api/9/nginx/x', undef, 404, 'PathNotFound', 'path not found'],
    ['GET', '/api/9/http/none/', undef, 404, 'PathNotFound', 'path not found'],
    ['GET', '/apix', undef, 404, 'PathNotFound', 'path not found'],
    ['GET', '/api/9/stream/', undef, 404, 'PathNotFound', 'path not found'],
    ['GET', '/api/8/workers', undef, 404, 'PathNotFound', 'path not found'],
    ['GET', '/api/4/resolvers', undef, 404, 'PathNotFound', 'path not found'],
    ['GET', '/api/5/http/limit_reqs', undef, 404, 'PathNotFound', 'path not found'],
    ['GET', '/api/0/', undef, 404, 'UnknownVersion', 'unknown version'],
    ['GET', '/api/10/', undef, 404, 'UnknownVersion', 'unknown version'],
    ['GET', '/api/09/', undef, 404, 'UnknownVersion', 'unknown version'],
    ['GET', '/api/99999999999999999999/', undef, 404, 'UnknownVersion', 'unknown version'],
    ['GET', '/api/x/nginx', undef, 404, 'UnknownVersion', 'unknown version'],
    ['GET', '/api/nginx', undef, 404, 'UnknownVersion', 'unknown version'],
    ['GET', '/api/9/workers/4', undef, 404, 'WorkerNotFound', 'worker not found'],
    ['GET', '/api/9/workers/x', undef, 404, 'WorkerNotFound', 'worker not found'],
    ['GET', '/api/9/workers/4294967295', undef, 404, 'WorkerNotFound', 'worker not found'],
    ['DELETE', '/api/9/workers/4294967295', undef, 404, 'WorkerNotFound', 'worker not found'],
    ['GET', '/api/9/slabs/none', undef, 404, 'SlabNotFound', 'slab not found'],
    ['DELETE', '/api/9/slabs/none', undef, 404, 'SlabNotFound', 'slab not found'],
    ['GET', '/api/9/http/server_zones/a', undef, 404, 'ServerZoneNotFound', 'server zone not found'],
    ['DELETE', '/api/9/http/server_zones/a', undef, 404, 'ServerZoneNotFound', 'server zone not found'],
    ['GET', '/api/9/http/location_zones/first', undef, 404, 'LocationZoneNotFound', 'location zone not found'],
    ['GET', '/api/9/http/location_zones/off', undef, 404, 'LocationZoneNotFound', 'location zone not found'],
    ['GET', '/api/9/http/limit_reqs/none', undef, 404, 'LimitReqNotFound', 'limit_req not found'],
    ['GET', '/api/9/http/limit_conns/none', undef, 404, 'LimitConnNotFound', 'limit_conn not found'],
    ['GET', '/api/9/http/caches/none', undef, 404, 'CacheNotFound', 'cache not found'],
    ['GET', '/api/9/resolvers/none', undef, 404, 'ResolverZoneNotFound', 'resolver zone not found'],
    ['GET', '/api/9/http/upstreams/none', undef, 404, 'UpstreamNotFound', 'upstream not found'],
    ['GET', '/api/9/http/upstreams/fixed', undef, 400, 'UpstreamStatic', 'upstream is static'],
    ['GET', '/api/9/http/upstreams/fixed/servers', undef, 400, 'UpstreamStatic', 'upstream is static'],
    ['DELETE', '/api/9/http/upstreams/fixed', undef, 400, 'UpstreamStatic', 'upstream is static'],
    ['GET', '/api/9/http/keyvals/none', undef, 404, 'KeyvalNotFound', 'keyval not found'],
    ['GET', "$kv?key=none", undef, 404, 'KeyvalKeyNotFound', 'keyval key not found'],
    ['POST', '/api/9/nginx', '{}', 405, 'MethodNotAllowed', 'method is not allowed for this path'],
    ['DELETE', '/api/9/nginx', undef, 405, 'MethodNotAllowed', 'method is not allowed for this path'],
    ['PUT', $kv, '{}', 405, 'MethodNotAllowed', 'method is not allowed for this path'],
    ['DELETE', '/api', undef, 405, 'MethodNotAllowed', 'method is not allowed for this path'],
    (map { [$_, '/ro/9/http/keyvals/one', '{"a":"b"}', 405, 'MethodDisabled', 'method disabled'] } qw(POST PATCH DELETE)),
    ['DELETE', '/slash/9/processes', undef, 405, 'MethodDisabled', 'method disabled'],
    ['DELETE', '/slash/9/none', undef, 405, 'MethodDisabled', 'method disabled'],
    ['POST', $kv, '', 415, 'JsonError', qr/^json error: /],
    ['POST', $kv, '{"a":"b"', 415, 'JsonError', 'json error: unexpected end'],
    ['POST', $kv, '{"a":"b"} x', 415, 'JsonError', qr/^json error: /],
    ['POST', $kv, "{\"a\":\"\xff\"}", 415, 'JsonError', 'json error: invalid UTF-8'],
    ['POST', $kv, ('[' x 100) . (']' x 100), 415, 'JsonError', qr/^json error: /],
    ['POST', $kv, '[]', 400, 'KeyvalFormatError', 'invalid JSON: an object is expected'],
    ['POST', $kv, '"a"', 400, 'KeyvalFormatError', 'invalid JSON: an object is expected'],
    ['POST', $kv, '{}', 400, 'KeyvalFormatError', 'key required'],
    ['POST', $kv, '{"a":1}', 400, 'KeyvalFormatError', 'invalid value format'],
    ['POST', $kv, '{"a":null}', 400, 'KeyvalFormatError', 'invalid value format'],
    ['POST', $kv, '{"a":[]}', 400, 'KeyvalFormatError', 'invalid value format'],
    ['POST', $kv, '{"a":{}}', 400, 'KeyvalFormatError', 'value required'],
    ['POST', $kv, '{"a":{"value":1}}', 400, 'KeyvalFormatError', 'invalid value format'],
    ['POST', $kv, '{"a":{"value":{}}}', 400, 'KeyvalFormatError', 'invalid value format'],
    ['POST', $kv, '{"a":{"value":"b","x":1}}', 400, 'KeyvalFormatError', 'invalid key format'],
    ['POST', $kv, '{"a":{"value":"b","expire":1000}}', 400, 'KeyvalFormatError', 'keyval timeout is not enabled'],
    ['POST', '/api/9/http/keyvals/timed', '{"a":{"expire":1000}}', 400, 'KeyvalFormatError', 'value required'],
    (map { ['POST', '/api/9/http/keyvals/timed', "{\"a\":{\"value\":\"b\",\"expire\":$_}}", 400, 'KeyvalFormatError',
        'invalid expire format'] } '"1s"', -1, 0, 1.5, 'true', '99999999999999999999'),
    ['POST', '/api/9/http/keyvals/ip', '{"x":"y"}', 400, 'KeyvalFormatError', qr/address/],
    ['POST', $kv, '{"' . ('k' x 5000) . '":"y"}', 413, 'KeyvalTooLong', qr/long/],
    ['PATCH', $kv, '{"a":"b"}', 404, 'KeyvalKeyNotFound', 'keyval key not found'],
    ['PATCH', $kv, '{"a":null}', 404, 'KeyvalKeyNotFound', 'keyval key not found'],
    ['PATCH', $kv, '{"a":"b","c":"d"}', 400, 'KeyvalFormatError', 'only one key can be updated'],
    ['PATCH', '/api/9/http/keyvals/timed', '{"a":{"expire":5}}', 404, 'KeyvalKeyNotFound', 'keyval key not found'],
    ['POST', '/small/9/http/keyvals/one', '{"a":"0123456789012345678901234567890"}', 413, 'BodyTooLarge', qr/larger/],
) {
    my ($method, $uri, $body, $status, $code, $text) = @$_;
    my $what = "$method $uri " . substr $body // '', 0, 40;
    $what =~ s/[^ -~]/?/g;
    my $r = api($method, $uri, $body);
    my $e = $r->{json} || {};
    is($r->status, $status, "$what: status");
    is($e->{error}{status}, $status, "$what: in the error too");
    is($e->{error}{code}, $code, "$what: code");
    ref $text ? like($e->{error}{text}, $text, "$what: text") : is($e->{error}{text}, $text, "$what: text");
    like($e->{request_id}, qr/^[0-9a-f]{32}$/, "$what: request_id");
    like($e->{href}, qr{^https://}, "$what: href");
    like($r->header('Allow'), qr/^GET, HEAD/, "$what: Allow") if $status == 405;
    is(join(',', sort keys %$e), 'error,href,request_id', "$what: nothing else");
}
is(join(',', sort keys %{ api('GET', '/api/3/none')->{json} }), 'error,href,method,path,request_id', 'errors of old versions');
is(api('GET', '/closed/9/nginx')->status, 403, 'access rules hold');
is(api('GET', '/limited/9/processes')->status, 200, 'limit_except: what is let');
is(api('DELETE', '/limited/9/processes')->status, 403, 'limit_except: what is not');
my $chunked = $p->raw('main', "POST /small/9/http/keyvals/one HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
    . "40\r\n" . ('x' x 64) . "\r\n0\r\n\r\n");
like($chunked->{raw}, qr{^HTTP/1\.1 413 .*"BodyTooLarge"}s, 'a chunked body that is too large');

# After an error the connection goes on. (What is idle is counted below: a request that had come with the body before it was
# once counted as being read for ever.)
{
    my $c = $p->connect;
    $c->send("POST /api/9/nginx HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}GET /api/9/processes HTTP/1.1\r\nHost: x\r\n\r\n");
    is($c->response(method => 'POST')->status, 405, 'an error');
    is($c->response(method => 'GET')->body, '{"respawned":0}', 'and the next request on the connection');
}

# --- pairs -------------------------------------------------------------------------------------------

my $timed = '/api/9/http/keyvals/timed';
for (
    ['POST', $kv, '{"a":"1","b":"2"}', 201, { a => '1', b => '2' }, 'several into an empty zone'],
    ['POST', $kv, '{"c":"3","d":"4"}', 400, { a => '1', b => '2' }, 'not into one that is not'],
    ['POST', $kv, '{"c":"3"}', 201, { a => '1', b => '2', c => '3' }, 'one is fine'],
    ['POST', $kv, '{"c":"x"}', 409, { a => '1', b => '2', c => '3' }, 'one that is there'],
    ['PATCH', $kv, '{"c":"x"}', 204, { a => '1', b => '2', c => 'x' }, 'is changed'],
    ['PATCH', $kv, '{"c":{"value":"y"}}', 204, { a => '1', b => '2', c => 'y' }, 'as an object'],
    ['PATCH', $kv, '{"a":null}', 204, { b => '2', c => 'y' }, 'null deletes'],
    ['PATCH', $kv, '{"b":""}', 204, { b => '', c => 'y' }, 'an empty value'],
    ['POST', $kv, '{"\u00e9\"\u0000 &/":"line\nfeed"}', 201, { b => '', c => 'y', "\x{e9}\"\0 &/" => "line\nfeed" }, 'any text'],
    ['DELETE', $kv, undef, 204, {}, 'all'],
    ['POST', '/small/9/http/keyvals/one', '{"a":"small"}', 201, { a => 'small' }, 'a body that just fits'],
    ['POST', '/filed/9/http/keyvals/one', '{"f":"file"}', 201, { a => 'small', f => 'file' }, 'a body in a file'],
) {
    my ($method, $uri, $body, $status, $want, $what) = @$_;
    my $r = api($method, $uri, $body);
    is($r->status, $status, "pairs: $what: status");
    is($json->encode(api('GET', $kv)->{json}), $json->encode($want), "pairs: $what");
    is($r->body, '', "pairs: $what: no body") if $status < 300;
}
is($json->encode(api('GET', "$kv?key=%61")->{json}), '{"a":"small"}', 'one pair');
is(api('POST', $timed, '{"x":{"value":"y","expire":300}}')->status, 201, 'a pair for 300 ms');
ok($p->wait_for(sub { !keys %{ api('GET', $timed)->{json} } }, 10), 'is gone after them');
is(api('POST', $timed, '{"x":"y"}')->status, 201, 'a pair for an hour');
is(api('PATCH', $timed, '{"x":{"expire":200}}')->status, 204, 'less time for it');
ok($p->wait_for(sub { !keys %{ api('GET', $timed)->{json} } }, 10), 'and it goes with its value');

# --- counters over all workers -------------------------------------------------------------------------

sub zone { my ($kind, $name) = @_; return data("/http/${kind}_zones/$name") }
sub settled {
    my ($kind, $name, $requests) = @_;
    return $p->wait_for(sub { my $z = zone($kind, $name);
        $z->{requests} == $requests && $z->{responses}{total} + $z->{discarded} == $requests }, 10);
}

my ($sent, $received) = (0, 0);
for my $i (1 .. 200) {
    my $uri = $i % 4 ? '/' : '/201';
    $sent += length hit($uri)->{raw};
    $received += length "GET $uri HTTP/1.1\r\nHost: first\r\nConnection: close\r\n\r\n";
}
ok(settled('server', 'first', 200), 'server zone: requests');
my $z = zone('server', 'first');
is($json->encode($z->{responses}), $json->encode({ %$empty_zone, '2xx' => 200, total => 200, codes => { 200 => 150, 201 => 50 } }),
    'responses by class and code');
is("$z->{processing} $z->{discarded}", '0 0', 'none under way, none discarded');
is($z->{sent}, $sent, 'bytes sent');
is($z->{received}, $received, 'bytes received');
$z = zone('location', 'a');
is("$z->{requests} $z->{responses}{codes}{201}", '50 50', 'location zone');
my @loads = map { $_->{http}{requests}{total} } @{ data('/workers') };
cmp_ok((scalar grep { $_ > 0 } @loads), '>', 1, 'more than one worker had requests');

# A name of several servers and locations; nesting, if, redirects, error pages.
hit('/', host => 'second') for 1 .. 5;
hit('/', host => 'third') for 1 .. 5;
ok(settled('server', 'first', 205), 'two servers share a zone; off counts nothing');
for (
    ['/a/', 'a', 200, 1, 'a location'], ['/a/b', 'a', 404, 1, 'inherited by a nested one'],
    ['/a/off', 'a', 200, 0, 'off there'], ['/if', 'b', 200, 0, 'not if'], ['/if?x=1', 'b', 202, 1, 'if'],
    ['/if-in?x=1', 'a', 203, 1, 'if has what is around it'], ['/if-in', 'a', 200, 1, 'and without if'],
    ['/redirect', 'a', 200, 1, 'a rewritten request counts where it ends'], ['/redirect', 'from', 200, 0, 'not where it began'],
    ['/page', 'a', 404, 1, 'so does an error page'], ['/599', 'many', 599, 1, 'any code'],
    ['/code?c=1', 'many', 211, 1, 'any code'], ['/code?c=2', 'many', 212, 1, 'any code'],
) {
    my ($uri, $zone, $code, $more, $what) = @$_;
    my $before = zone('location', $zone);
    hit($uri);
    ok(settled('location', $zone, $before->{requests} + $more), "$uri in $zone: $what");
    my $after = zone('location', $zone);
    is(($after->{responses}{codes}{$code} || 0) - ($before->{responses}{codes}{$code} || 0), $more, "$uri in $zone: $code");
}
my $before = zone('location', 'a');
hit('/444');
ok(settled('location', 'a', $before->{requests} + 1), '444 counts');
is(zone('location', 'a')->{discarded}, $before->{discarded} + 1, 'as discarded');
$before = zone('server', 'first');
$p->raw('counted', "nonsense\r\n\r\n");
ok(settled('server', 'first', $before->{requests} + 1), 'a head that cannot be understood counts');
is(zone('server', 'first')->{responses}{codes}{400}, 1, 'as 400');
{
    my $c = $p->connect('counted');
    $c->send("POST /a/ HTTP/1.1\r\nHost: fourth\r\nContent-Length: 10\r\n\r\n");
    $c->response(method => 'POST');
    my $d = $p->connect('counted');
    $d->send("GET / HTTP/1.1\r\nHost: fourth\r\n\r\n");
    is($d->response(method => 'GET')->status, 204, 'a request to another server');
    ok($p->wait_for(sub { zone('server', 'fourth')->{requests} == 2 }, 10), 'a request under way is counted');
    $c->send('0123456789');
    ok(settled('server', 'fourth', 2), 'and its answer');
    is(zone('server', 'fourth')->{processing}, 0, 'nothing is under way then');
}

# The resolver.
hit("/name?n=$_") for qw(one.test none.test other.test);
ok($p->wait_for(sub { data('/resolvers/names')->{responses}{refused} > 0 }, 10), 'resolver: refused');
my $res = data('/resolvers/names');
is($res->{responses}{noerror}, 1, 'resolver: answers');
is($res->{responses}{nxdomain}, 1, 'resolver: no such name');
cmp_ok($res->{requests}{name}, '>=', 3, 'resolver: questions');

# Limits.
sub limit { my ($kind, $name) = @_; return $json->encode(data("/http/limit_${kind}s/$name")) }
is(limit('req', 'rate'), '{"delayed":0,"delayed_dry_run":0,"passed":0,"rejected":0,"rejected_dry_run":0}', 'limit_req: none yet');
is(limit('conn', 'conns'), '{"passed":0,"rejected":0,"rejected_dry_run":0}', 'limit_conn: none yet');
$p->expect_log(qr/limiting (?:requests|connections)|delaying request/);
hit('/rate?k=a') for 1 .. 5;
is(limit('req', 'rate'), '{"delayed":0,"delayed_dry_run":0,"passed":2,"rejected":3,"rejected_dry_run":0}', 'limit_req: passed and rejected');
hit('/rate'), is(data('/http/limit_reqs/rate')->{passed}, 2, 'limit_req: without a key nothing is counted');
hit('/rate/slow?k=a') for 1 .. 3;
my $slow = data('/http/limit_reqs/slow');
is($slow->{passed} + $slow->{delayed}, 3, 'limit_req: delayed');
cmp_ok($slow->{delayed}, '>', 0, 'limit_req: some were');
hit('/dry?k=a') for 1 .. 5;
is(limit('req', 'dry'), '{"delayed":0,"delayed_dry_run":1,"passed":1,"rejected":0,"rejected_dry_run":3}', 'limit_req: dry run');
is(limit('conn', 'conns'), '{"passed":5,"rejected":0,"rejected_dry_run":0}', 'limit_conn: passed');
{
    my $silent = IO::Socket::INET->new(LocalAddr => '127.0.0.1', LocalPort => $p->port('slow'), Listen => 5, ReuseAddr => 1) or die;
    my $c = $p->connect('counted');
    $c->send("GET /conns?k=a HTTP/1.1\r\nHost: first\r\n\r\n");
    ok($p->wait_for(sub { data('/http/limit_conns/conns')->{passed} == 6 }, 10), 'limit_conn: one more');
    is(hit('/conns?k=a')->status, 503, 'limit_conn: too many');
    is(limit('conn', 'conns'), '{"passed":6,"rejected":1,"rejected_dry_run":0}', 'limit_conn: rejected');
    $p->expect_log(qr/upstream|client prematurely/);
}
is($json->encode(api('GET', '/api/9/http/limit_reqs?fields=')->{json}), '["rate","dry","slow"]', 'limit_reqs: names');
is($json->encode(api('GET', '/api/9/http/limit_conns?fields=passed')->{json}), '{"conns":{"passed":6}}', 'limit_conns: fields');

# Connections and requests.
my $req = data('/http/requests');
hit('/') for 1 .. 20;
is(data('/http/requests')->{total} - $req->{total}, 21, 'requests, those of the API too');
cmp_ok($req->{current}, '>=', 1, 'this one is under way');
my $con = data('/connections');
is(data('/connections')->{accepted} - $con->{accepted}, 1, 'connections');
{
    my @idle = map { my $c = $p->connect; $c->send("GET /api/9/processes HTTP/1.1\r\nHost: x\r\n\r\n"); $c->response(method => 'GET'); $c } 1 .. 5;
    ok($p->wait_for(sub { data('/connections')->{idle} == 5 }, 10), 'idle connections') or diag($json->encode(data('/connections')), $json->encode(data('/workers')));
}

# --- what survives -------------------------------------------------------------------------------------

my %now = map { $_ => zone('server', 'first')->{$_} } qw(requests sent received discarded);
sub survived {
    my ($what) = @_;
    my $z = zone('server', 'first');
    is($z->{$_}, $now{$_}, "$what: $_") for sort keys %now;
    is($z->{processing}, 0, "$what: nothing under way");
}
$p->reload;
is(data('/nginx')->{generation}, 2, 'a reload is another generation');
survived('a reload');
$p->expect_log(qr/exited on signal 9/);
my $victim = data('/workers')->[0]{pid}; # not one of before the reload that is still leaving
kill 'KILL', $victim;
ok($p->wait_for(sub { data('/processes')->{respawned} == 1 }, 10), 'a worker died');
ok($p->wait_for(sub { my @w = @{ data('/workers') }; @w == $WORKERS && !grep { $_->{pid} == $victim } @w }, 10),
    'and has a successor');
survived('the death of a worker');
$conf =~ s/status_zone first; return 204/status_zone new; return 204/;
$p->write_conf(conf(2));
$p->reload;
ok($p->wait_for(sub { @{ data('/workers') } == 2 }, 10), 'fewer workers');
survived('a reload with another zone and fewer workers');
is(zone('server', 'new')->{requests}, 0, 'the new zone');

# A new binary has workers of its own, and goes on with what was counted.
{
    my $old = $p->master;
    kill 'USR2', $old;
    my ($new, %seen) = (0);
    ok($p->wait_for(sub { ($new = $p->pid_file || 0) && $new != $old && $p->workers($new) == 2 }, 15), 'a new binary');
    my $ask = sub {
        my $w = data('/workers');
        $seen{scalar @$w}++;
        return grep { my $n = $_->{pid}; grep { $n == $_ } $p->workers($new) } @$w;
    };
    $ask->() for 1 .. 10;
    kill 'WINCH', $old;
    ok($p->wait_for($ask, 15), 'answers');
    # One that has just been started may not have said so yet.
    ok($seen{2} && !grep({ $_ > 2 } keys %seen), 'and whoever is asked names the workers of his own');
    survived('two binaries');
    kill 'QUIT', $old;
    ok($p->adopt($new), 'the old one goes');
    survived('a new binary');
}

# --- resets --------------------------------------------------------------------------------------------

for (
    ['/http/server_zones/first', sub { my $z = zone('server', 'first'); $z->{requests} + $z->{sent} + $z->{responses}{total} + keys %{ $z->{responses}{codes} } }],
    ['/http/location_zones/a', sub { zone('location', 'a')->{requests} }],
    ['/http/limit_reqs/rate', sub { my $n = data('/http/limit_reqs/rate'); $n->{passed} + $n->{rejected} }],
    ['/http/limit_conns/conns', sub { data('/http/limit_conns/conns')->{passed} }],
    ['/resolvers/names', sub { data('/resolvers/names')->{requests}{name} }],
    ['/processes', sub { data('/processes')->{respawned} }],
    ['/slabs/one', sub { my $n = 0; $n += $_->{reqs} for values %{ data('/slabs/one')->{slots} }; $n }],
    ['/ssl', sub { data('/ssl')->{handshakes} }],
) {
    my ($path, $value) = @$_;
    is(api('DELETE', "/api/9$path")->status, 204, "DELETE $path");
    is($value->(), 0, "DELETE $path: begins anew");
}
hit('/201');
ok(settled('server', 'first', 1), 'and counts on');
is($json->encode(zone('server', 'first')->{responses}{codes}), '{"201":1}', 'codes too');
api('DELETE', '/api/9/http/requests');
is(data('/http/requests')->{total}, 1, 'DELETE /http/requests: this one');
api('DELETE', '/api/9/connections');
is(data('/connections')->{accepted}, 1, 'DELETE /connections: this one');
api('DELETE', '/api/9/workers');
my $total = 0;
$total += $_->{http}{requests}{total} for @{ data('/workers') };
is($total, 1, 'DELETE /workers: this one');
api('DELETE', '/api/9/workers/0');
cmp_ok(data('/workers/0')->{http}{requests}{total}, '<=', 1, 'DELETE /workers/0');

$p->stop;
$dns->stop;
done_testing();
