# SPDX-License-Identifier: BSD-2-Clause
#
# sticky: one client, one server; by a cookie of ours, by routes, by the servers' own sessions.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/lib";
use Digest::MD5 qw(md5_hex);
use Test::More;
use Proxyd;

plan skip_all => 'proxyd only' if Proxyd::is_nginx();

my @names = qw(a b c);
my $p = Proxyd->new;

# Says its name; /login begins a session of its own.
sub origin {
    my ($name) = @_;
    return sub {
        my ($c) = @_;
        while (my $q = $c->request) {
            if ($q->{uri} =~ /wait=(\w+)/) {
                $p->write_file("waits-$name", '');
                select undef, undef, undef, 0.02 while !-e $p->dir . "/go-$1";
            }
            my $status = -e $p->dir . "/bad-$name" ? '503 Service Unavailable' : '200 OK';
            my $more = $q->{uri} =~ /login=(\w+)/ ? "Set-Cookie: session=$1; Path=/\r\n" : '';
            $c->write("HTTP/1.1 $status\r\n${more}Content-Length: 1\r\n\r\n$name");
        }
    };
}
$p->origin($_, origin($_)) for @names;

sub servers { join '', map { "server 127.0.0.1:{{port:$_}} " . ($_[0]{$_} // $_[1] // '') . ';' } @names }

my $routes = servers({ a => 'route=one', b => 'route=two', c => 'route=three' });
$p->write_conf(<<"EOT");
worker_processes 2;
http {
    upstream plain   { @{[ servers({}) ]} sticky cookie srv; }
    upstream full    { @{[ servers({}) ]} sticky cookie srv expires=1h domain=.x.test path=/p httponly secure samesite=lax; }
    upstream forever { @{[ servers({}) ]} sticky cookie srv expires=max samesite=\$arg_same; }
    upstream named   { $routes sticky cookie srv; }
    upstream route   { $routes sticky route \$cookie_route \$arg_route; }
    upstream ids     { @{[ servers({ a => 'sid=one', b => 'sid=two', c => 'sid=three' }) ]} sticky route \$arg_route; }
    upstream idc     { @{[ servers({ a => 'sid=one', b => 'sid=two', c => 'sid=three' }) ]} sticky cookie srv; }
    upstream going   { zone going 512k; @{[ servers({}) ]} sticky cookie srv; }
    upstream drained { @{[ servers({ a => 'route=one drain', b => 'route=two', c => 'route=three' }) ]} sticky route \$arg_route; }
    upstream down    { @{[ servers({ a => 'route=one down', b => 'route=two', c => 'route=three' }) ]} sticky route \$arg_route; }
    upstream learn   { zone learn 64k; @{[ servers({}) ]}
        sticky learn create=\$upstream_cookie_session lookup=\$cookie_session lookup=\$arg_session zone=sessions:1m; }
    upstream early   { @{[ servers({}) ]}
        sticky learn header create=\$upstream_cookie_session lookup=\$cookie_session zone=sessions:1m timeout=1h; }
    proxy_next_upstream error timeout http_503;
    server {
        listen 127.0.0.1:{{port}};
        location /api { api write=on; }
        location ~ ^/(\\w+)\$ { proxy_pass http://\$1/\$is_args\$args; }
    }
}
EOT
$p->start;

# Bodies of n requests with these fields.
sub bodies { my ($uri, $n, @headers) = @_; return join '', map { $p->get($uri, headers => [@headers])->body } 1 .. $n }
sub once_each { return join '', sort split //, $_[0] }

# --- cookie ------------------------------------------------------------------------------------------
my $r = $p->get('/plain');
my ($cookie) = ($r->header('Set-Cookie') // '') =~ /^srv=([0-9a-f]{32})$/;
ok defined $cookie, 'a new client gets a cookie' or diag $r->header('Set-Cookie');
is $cookie, md5_hex('127.0.0.1:' . $p->port($r->body)), 'the MD5 of the address';
is bodies('/plain', 6, Cookie => "srv=$cookie"), $r->body x 6, 'with it, it stays where it was, whichever worker';
is $p->get('/plain', headers => [Cookie => "srv=$cookie"])->header('Set-Cookie'), undef, 'and is not told again';
like bodies('/plain', 8, Cookie => 'srv=nonsense'), qr/a.*b|b.*c|c.*a/, 'a cookie of nobody binds to nobody';
isnt $p->get('/plain', headers => [Cookie => 'srv=nonsense'])->header('Set-Cookie'), undef, 'and gives way to one of ours';
$p->write_file('bad-' . $r->body, '');
my $other = $p->get('/plain', headers => [Cookie => "srv=$cookie"]);
isnt $other->body, $r->body, 'a server that fails: another one';
like $other->header('Set-Cookie'), qr/^srv=(?!$cookie)[0-9a-f]{32}$/, 'to which the client is bound now';
unlink $p->dir . '/bad-' . $r->body;

$r = $p->get('/full');
like $r->header('Set-Cookie'),
    qr/^srv=[0-9a-f]{32}; expires=\w{3}, \d\d-\w{3}-\d{4} [\d:]{8} GMT; max-age=3600; domain=\.x\.test; path=\/p; httponly; secure; samesite=lax$/,
    'all attributes';
my ($full) = $r->header('Set-Cookie') =~ /^srv=(\w+)/;
like $p->get('/full', headers => [Cookie => "srv=$full"])->header('Set-Cookie'), qr/^srv=$full; expires=/, 'one that expires is renewed';
like $p->get('/forever?same=strict')->header('Set-Cookie'), qr/; expires=Thu, 31-Dec-37 23:55:55 GMT; max-age=315360000; samesite=strict$/,
    'expires=max, samesite by a variable';
like $p->get('/forever')->header('Set-Cookie'), qr/; max-age=315360000$/, 'which may be empty';
like $p->get('/named')->header('Set-Cookie'), qr/^srv=(?:one|two|three)$/, 'the route is the value where there is one';
is bodies('/named', 4, Cookie => 'other=1; srv=two'), 'bbbb', 'and leads there';

is bodies('/ids?route=three', 4), 'cccc', 'sid: routes lead there';
is bodies('/idc', 4, Cookie => 'srv=two'), 'bbbb', 'and cookies';
like $p->get('/idc')->header('Set-Cookie'), qr/^srv=(?:one|two|three)$/, 'which have it as their value';

# A server that goes while it is asked: nobody is bound to it.
my $late = $p->connect;
$late->send("GET /going?wait=now HTTP/1.1\r\nHost: x\r\n\r\n");
my ($gone) = map { Proxyd::wait_for(sub { grep { -e $p->dir . "/waits-$_" } @names }) ? grep { -e $p->dir . "/waits-$_" } @names : () } 1;
my ($id) = grep { $names[$_] eq $gone } 0 .. 2;
is $p->request('DELETE', "/api/9/http/upstreams/going/servers/$id")->status, 200, 'a server goes';
# Both workers, and those who use the memory again.
unlike bodies('/going', 12), qr/$gone/, 'and is not asked any more';
$p->get('/forever?same=' . 'x' x 3000) for 1 .. 12;
$p->write_file('go-now', '');
$r = $late->response;
is $r->body, $gone, 'but what it was asked before is answered';
is $r->header('Set-Cookie'), undef, 'without a cookie';

# --- route -------------------------------------------------------------------------------------------
is bodies('/route?route=three', 4), 'cccc', 'a route in the URI';
is bodies('/route?route=three', 4, Cookie => 'route=one'), 'aaaa', 'the first variable that is not empty';
is length(bodies('/route?route=four', 4)), 4, 'an unknown one';
is $p->get('/route?route=one')->header('Set-Cookie'), undef, 'no cookie of ours';
is bodies('/drained?route=one', 3), 'aaa', 'drain: those who are bound are served';
unlike bodies('/drained', 12), qr/a/, 'others go elsewhere';
unlike bodies('/down?route=one', 6), qr/a/, 'down: nobody is';

# --- learn -------------------------------------------------------------------------------------------
for my $group (qw(learn early)) {
    for my $id (qw(s1 s2 s3 s4)) {
        my $first = $p->get("/$group?login=$group$id")->body;
        is bodies("/$group", 4, Cookie => "session=$group$id"), $first x 4, "$group: session $id stays where it began";
    }
}
my $first = $p->get('/learn?login=uri')->body;
is bodies('/learn?session=uri', 4), $first x 4, 'another variable to look in';
$p->write_file("bad-$first", '');
isnt $p->get('/learn?session=uri')->body, $first, 'a server that fails: another one';
unlink $p->dir . "/bad-$first";
ok $p->reload, 'reload';
my $second = $p->get('/early?login=again')->body;
is bodies('/early', 4, Cookie => 'session=again'), $second x 4, 'sessions after a reload';
$p->stop;

# --- what is wrong -----------------------------------------------------------------------------------
my $q = Proxyd->new;
for (
    ['sticky;',                               'invalid number of arguments in "sticky" directive'],
    ['sticky tape;',                          'invalid parameter "tape"'],
    ['sticky cookie;',                        'no cookie name in "sticky cookie"'],
    ['sticky cookie "a b";',                  'invalid cookie name "a b"'],
    ['sticky cookie a expires=soon;',         'invalid parameter "expires=soon"'],
    ['sticky cookie a samesite=maybe;',       'invalid parameter "samesite=maybe"'],
    ['sticky cookie a quick;',                'invalid parameter "quick"'],
    ['sticky route;',                         'no variable in "sticky route"'],
    ['sticky route a;',                       'invalid variable name "a"'],
    ['sticky learn create=$a;',               '"sticky learn" requires "lookup"'],
    ['sticky learn create=$uri lookup=$uri;', '"sticky learn" requires "zone"'],
    ['sticky learn lookup=$uri zone=s:1m;',   '"sticky learn" requires "create"'],
    ['sticky learn create=$uri lookup=$uri zone=s:1;',  'zone "s" is too small'],
    ['sticky learn create=$uri lookup=$uri zone=s:1m sync;', 'sessions cannot be shared between hosts'],
    ['sticky cookie a; sticky cookie b;',     '"sticky" directive is duplicate'],
) {
    $q->write_conf("http { upstream u { $_->[0] server 127.0.0.1:1; } }");
    my $r = $q->run(args => ['-t', '-p', $q->dir . '/', '-c', 'proxyd.conf', '-e', 'error.log']);
    like $r->{err}, qr/\Q$_->[1]\E/, "$_->[0] $_->[1]";
}
done_testing;
