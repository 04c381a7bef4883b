# SPDX-License-Identifier: BSD-2-Clause
#
# mirror: what copies look like, that nobody waits for them who should not, and that whatever becomes
# of them the client does not see it.
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
    client_max_body_size 8m;
    log_format full '$uri|$request_method|$status|$request_uri';
    access_log {{dir}}/access.log full;
    upstream main { server 127.0.0.1:{{port:main_origin}}; keepalive 4; }
    upstream copy { server 127.0.0.1:{{port:copy}}; keepalive 4; }

    server {
        listen 127.0.0.1:{{port}};
        mirror /copy;
        location /plain { proxy_pass http://main; }
        location /two { mirror /copy; mirror /copy2; proxy_pass http://main; }
        location /off { mirror off; proxy_pass http://main;
            location /off/inner { proxy_pass http://main; }
            location /off/again { mirror /copy2; proxy_pass http://main; } }
        location /nobody { mirror_request_body off; proxy_pass http://main; }
        location /stream { mirror_request_body off; proxy_request_buffering off; proxy_pass http://main; }
        location /buffered { proxy_request_buffering off; proxy_pass http://main; }
        location /spool { client_body_buffer_size 1k; proxy_pass http://main; }
        location /if { if ($arg_a) { set $x 1; } proxy_pass http://main; }
        location /return { return 200 "never mirrored\n"; }
        location /static/ { alias {{dir}}/html/; }
        location /lost { mirror /nowhere; mirror /dead; mirror /denied; mirror /direct; mirror /empty; proxy_pass http://main; }
        location /stalled { mirror /stall; proxy_pass http://main; }
        location /allstalled { mirror /stall; proxy_pass http://127.0.0.1:{{port:stall}}; }
        location /logged { mirror /copylogged; proxy_pass http://main; }
        location /self { mirror /self; proxy_pass http://main; }
        location /errors { error_page 404 /plain/error; return 404; }
        location /errpass { mirror /copy2; proxy_intercept_errors on; error_page 418 /plain/error; proxy_pass http://main; }
        location /named { try_files /none @named; }
        location @named { mirror /copy2; proxy_pass http://main; }
        location /refused { deny all; mirror /copy; proxy_pass http://main; }
        location /large { mirror /bigcopy; proxy_pass http://main; }

        location /copy { internal; proxy_pass http://copy$request_uri; proxy_set_header X-Uri "$uri|$args"; }
        location /copy2 { internal; proxy_pass http://copy/second; proxy_set_header X-Uri "$uri|$args"; }
        location /copylogged { internal; log_subrequest on; proxy_pass http://copy; }
        location /bigcopy { internal; proxy_pass http://copy/big; }
        location /denied { internal; deny all; proxy_pass http://copy/denied; }
        location /direct { proxy_pass http://copy/direct; }
        location /dead { internal; proxy_pass http://127.0.0.1:{{port:closed}}; }
        location /empty { internal; proxy_pass http://copy/empty; }
        location /stall { internal; proxy_pass http://127.0.0.1:{{port:stall}}; }
    }
}
EOT
my $dir = $p->dir;
$p->write_file('html/a.txt', 'static text');

# What the copies' origin got: [method, uri, X-Uri, body's length and digest, framing].
sub copy_handler {
    my ($c) = @_;
    while (my $r = $c->request) {
        my $x = defined $r->{h}{'x-uri'} ? $r->{h}{'x-uri'} : '';
        $c->{origin}->note(join ' ', 'M', $r->{method}, $r->{uri}, $x || '-', length $r->{body},
            md5_hex($r->{body}), $r->{framing});
        if ($r->{uri} =~ /empty/) { return }
        my $body = $r->{uri} =~ /big/ ? 'x' x 5_000_000 : 'ignored';
        $c->write("HTTP/1.1 500 Oops\r\nContent-Length: " . length($body) . "\r\n\r\n" . ($r->{method} eq 'HEAD' ? '' : $body));
    }
}

# Answers when the test lets it.
sub stall_handler {
    my ($c) = @_;
    while (my $r = $c->request) {
        until (-e "$dir/go") {
            my $in = '';
            vec($in, fileno($c->sock), 1) = 1;
            if (select($in, undef, undef, 0.01)) { $c->{origin}->note("X $c->{n}"), return unless $c->more }
        }
        $c->write("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nlate");
    }
}

my $main  = $p->origin('main_origin', sub {
    my ($c) = @_;
    while (my $r = $c->request) {
        my $status = $r->{uri} =~ /errpass/ ? 418 : 200;
        my $body = "$r->{method} $r->{uri} " . length($r->{body}) . ' ' . md5_hex($r->{body});
        $c->write("HTTP/1.1 $status OK\r\nContent-Length: " . length($body) . "\r\n\r\n" . ($r->{method} eq 'HEAD' ? '' : $body));
    }
});
my $copy  = $p->origin('copy', \&copy_handler);
my $stall = $p->origin('stall', \&stall_handler);
$p->port('closed');
$p->start;

sub copies { my @l = sort map { s/^M //r } $copy->lines(qr/^M /); return @l }

my $none = md5_hex('');

# One request and the copies that are to come of it ("METHOD URI X-URI", of a bodiless one).
sub copied {
    my ($name, $method, $uri, $status, @want) = @_;
    $copy->reset_counts;
    my $r = $p->request($method, $uri);
    is($r->status, $status, "$name: $status");
    $p->wait_for(sub { copies() >= @want });
    my @got = map { (split ' ')[0 .. 2] ? join ' ', (split ' ')[0 .. 2] : () } copies();
    is_deeply(\@got, [sort @want], "$name: the copies") or diag(explain(\@got));
    return $r;
}

# --- what is copied ---------------------------------------------------------------------------------

my $r = copied('GET', 'GET', '/plain/a?b=c', 200, 'GET /plain/a?b=c /copy|b=c');
is($r->body, "GET /plain/a?b=c 0 $none", 'the answer is the original one');
copied('HEAD', 'HEAD', '/plain', 200, 'HEAD /plain /copy|');
copied('DELETE', 'DELETE', '/plain', 200, 'DELETE /plain /copy|');
copied('an unknown method', 'PURGE', '/plain', 200, 'PURGE /plain /copy|');
copied('two copies', 'GET', '/two?x', 200, 'GET /two?x /copy|x', 'GET /second?x /copy2|x');
copied('off', 'GET', '/off', 200);
copied('off is inherited', 'GET', '/off/inner', 200);
copied('on again', 'GET', '/off/again', 200, 'GET /second /copy2|');
copied('with an if', 'GET', '/if?a=1', 200, 'GET /if?a=1 /copy|a=1');
copied('return comes before', 'GET', '/return', 200);
copied('a static file', 'GET', '/static/a.txt', 200, 'GET /static/a.txt /copy|');
copied('a missing one', 'GET', '/static/b.txt', 404, 'GET /static/b.txt /copy|');
copied('a refused request', 'GET', '/refused', 403);
copied('internal', 'GET', '/copy', 404);
copied('no copies of copies', 'GET', '/self', 200);
copied('escaped', 'GET', '/plain/%20a%2Fb', 200, 'GET /plain/%20a%2Fb /copy|');
copied('an error page', 'GET', '/errors', 404, 'GET /errors /copy|');
copied('an error page behind a copy', 'GET', '/errpass', 418, 'GET /errpass /copy|', 'GET /second /copy2|');
copied('a named location', 'GET', '/named', 200, 'GET /second /copy2|');
is(scalar(() = $p->access_log =~ m{^/copy\S*\|500}mg), 0, 'copies are not logged');
copied('logged', 'GET', '/logged?a', 200, 'GET /copylogged?a -');
ok($p->wait_log(qr{^/copylogged\|GET\|500\|/logged\?a$}m, 'access.log'), 'unless log_subrequest says so');

# --- bodies ------------------------------------------------------------------------------------------

sub body_copied {
    my ($name, $uri, $body, %o) = @_;
    $copy->reset_counts;
    my $sent = $o{chunked}
        ? $p->http("POST $uri HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
            . join('', map { sprintf "%x\r\n%s\r\n", length, $_ } unpack '(a70000)*', $body) . "0\r\n\r\n")
        : $p->post($uri, $body, %o);
    my $want = length($body) . ' ' . md5_hex($body);
    is($sent->body, "POST $uri $want", "$name: the original");
    $want = '0 ' . $none if $o{without};
    $p->wait_for(sub { copies() >= 1 });
    my ($got) = copies();
    like($got // '', qr{^POST \Q$uri\E /copy\| \Q$want\E}, "$name: the copy");
}

my $mb = join '', map { chr(33 + $_ % 90) x 64 } 1 .. 16384;
body_copied('a small body', '/plain', 'some text');
body_copied('an empty one', '/plain', '');
body_copied('a megabyte', '/plain', $mb);
body_copied('in a file', '/spool', $mb);
body_copied('just in a file', '/spool', 'y' x 1025);
body_copied('chunked', '/plain', $mb, chunked => 1);
body_copied('chunked, in a file', '/spool', $mb, chunked => 1);
body_copied('unbuffered, buffered for the copy', '/buffered', $mb);
body_copied('chunked, unbuffered', '/buffered', $mb, chunked => 1);
if (!$nginx) { # nginx promises a body to the copy, and sends none
    body_copied('without the body', '/nobody', $mb, without => 1);
    body_copied('unbuffered, without', '/stream', $mb, without => 1);
    body_copied('chunked, unbuffered, without', '/stream', $mb, without => 1, chunked => 1);
}

# While the copy goes its way, the body streams.
SKIP: {
    skip 'nginx promises a body', 2 if $nginx;
    $copy->reset_counts;
    $main->reset_counts;
    my $c = $p->connect('main');
    $c->send("POST /stream/slow HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\nConnection: close\r\n\r\n12345");
    ok($p->wait_for(sub { copies() == 1 && ($main->requests || 0) == 1 }), 'original and copy are sent before the body has come');
    $c->send('67890');
    is($c->response->body, 'POST /stream/slow 10 ' . md5_hex('1234567890'), 'which arrives whole');
    $c->close;
}
$r = $p->http("POST /plain HTTP/1.1\r\nHost: a\r\nContent-Length: 9000000\r\nConnection: close\r\n\r\n");
is($r->status, 413, 'a body that is too large');

# --- what becomes of copies is nobody's business -------------------------------------------------------

$copy->reset_counts;
is($p->get('/lost?q')->status, 200, 'copies that fail');
ok($p->wait_log(qr/\[error\] .*connect\(\) failed \(111: Connection refused\) while connecting to upstream.*subrequest: "\/dead"/), 'the log says so');
ok($p->wait_for(sub { grep { m{^GET /denied} } copies() }), 'access rules are not asked for copies');
ok($p->wait_for(sub { grep { m{^GET /direct} } copies() }), 'any location will do');
ok($p->wait_log(qr/upstream prematurely closed connection.*subrequest: "\/empty"/), 'one that gets no answer');
$r = $p->get('/large');
is($r->body, "GET /large 0 $none", 'a copy with a large answer');
ok($p->wait_log(qr{^/large\|}m, 'access.log'), 'is over soon');

# A stalled copy.
my $c = $p->connect('main');
$c->send("GET /stalled/1 HTTP/1.1\r\nHost: a\r\n\r\nGET /plain/2 HTTP/1.1\r\nHost: a\r\n\r\n");
is($c->response->body, "GET /stalled/1 0 $none", 'the answer does not wait for a stalled copy');
ok($p->wait_for(sub { ($stall->requests || 0) >= 1 }), 'which is on its way');
ok(!$c->response(timeout => 0.3), 'the next request on the connection does');
unlike($p->access_log, qr{^/stalled/1\|}m, 'and so does the log');
is($p->get('/plain/3')->status, 200, 'other connections are served');
$p->write_file('go', '');
is($c->response->body, "GET /plain/2 0 $none", 'when the copy is over, the next one is served');
like($p->access_log, qr{^/stalled/1\|GET\|200\|}m, 'the first is logged');
$c->send("GET /plain/4 HTTP/1.1\r\nHost: a\r\n\r\n");
is($c->response->body, "GET /plain/4 0 $none", 'and the connection goes on');
$c->close;
unlink "$dir/go";

# The client leaves with the answer.
$stall->reset_counts;
$c = $p->connect('main');
$c->send("GET /stalled/5 HTTP/1.1\r\nHost: a\r\n\r\n");
is($c->response->body, "GET /stalled/5 0 $none", 'an answer');
ok($p->wait_for(sub { ($stall->requests || 0) == 1 }), 'a copy under way');
$c->close;
sleep 0.1;
is(scalar(() = $stall->lines(qr/^X/)), 0, 'the client has gone, the copy goes on');
$p->write_file('go', '');
ok($p->wait_log(qr{^/stalled/5\|GET\|200\|}m, 'access.log'), 'and is waited for');
unlink "$dir/go";

# The client leaves before the answer.
$stall->reset_counts;
$c = $p->connect('main');
$c->send("GET /allstalled HTTP/1.1\r\nHost: a\r\n\r\n");
ok($p->wait_for(sub { ($stall->requests || 0) == 2 }), 'original and copy are stalled');
$c->close;
ok($p->wait_log(qr{^/allstalled\|GET\|499\|}m, 'access.log'), 'the client has gone');
ok($p->wait_for(sub { 2 == (() = $stall->lines(qr/^X/)) }), 'and takes both along');

# A connection that is to be closed.
$c = $p->connect('main');
$c->send("GET /stalled/6 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
is($c->response->body, "GET /stalled/6 0 $none", 'an answer before the close');
$p->write_file('go', '');
ok(!$c->response && $c->eof, 'closed in the end');
$c->close;
unlink "$dir/go";

# A reload waits for copies as for any request.
$c = $p->connect('main');
$c->send("GET /stalled/7 HTTP/1.1\r\nHost: a\r\n\r\n");
is($c->response->body, "GET /stalled/7 0 $none", 'an answer');
my ($old) = $p->workers;
$p->reload;
ok(Proxyd::alive($old), 'the old worker has a copy under way');
$p->write_file('go', '');
ok($p->wait_for(sub { !Proxyd::alive($old) }), 'and ends with it');
like($p->access_log, qr{^/stalled/7\|GET\|200\|}m, 'logged');
$c->close;

$p->stop;
done_testing();
