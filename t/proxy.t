# SPDX-License-Identifier: BSD-2-Clause
#
# Proxying: what is sent to the upstream, what comes back, and what happens when it misbehaves.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/lib";
use Digest::MD5;
use Test::More;
use Time::HiRes qw(time);
use Proxyd;

my $nginx = Proxyd::is_nginx();
my $p     = Proxyd->new(conf => <<'EOT');
worker_processes 1;
http {
    proxy_http_version 1.1;
    proxy_set_header Connection "";
    proxy_buffering on;
    client_max_body_size 0;
    log_format up '$uri|$status|$upstream_addr|$upstream_status|$upstream_cache_status';
    access_log {{dir}}/access.log combined;
    access_log {{dir}}/up.log up;
    upstream echo { server 127.0.0.1:{{port:echo}}; keepalive 4; }
    upstream nokeep { server 127.0.0.1:{{port:echo}}; }
    upstream s { server 127.0.0.1:{{port:script}}; keepalive 4; }
    upstream wrr { server 127.0.0.1:{{port:w1}} weight=5; server 127.0.0.1:{{port:w2}} weight=1;
        server 127.0.0.1:{{port:w3}}; }
    upstream backup { server 127.0.0.1:{{port:closed}} max_fails=1 fail_timeout=60;
        server 127.0.0.1:{{port:w1}} backup; }
    upstream down { server 127.0.0.1:{{port:w1}} down; server 127.0.0.1:{{port:w2}}; }
    upstream fails { server 127.0.0.1:{{port:closed}} max_fails=2 fail_timeout=60;
        server 127.0.0.1:{{port:w1}}; }
    upstream alldead { server 127.0.0.1:{{port:closed}} max_fails=1 fail_timeout=60;
        server 127.0.0.1:{{port:closed2}} max_fails=1 fail_timeout=60; }
    upstream ux { server unix:{{dir}}/up.sock; }
    upstream two { server 127.0.0.1:{{port:script}} max_fails=0; server 127.0.0.1:{{port:w1}}
        max_fails=0 backup; }
    upstream onlydown { server 127.0.0.1:{{port:w1}} down; }
    upstream ka1 { server 127.0.0.1:{{port:ka}}; keepalive 1; }
    upstream kareq { server 127.0.0.1:{{port:kb}}; keepalive 4; keepalive_requests 3; }

    server {
        listen 127.0.0.1:{{port}};
        server_name front.test;

        location /plain/ { proxy_pass http://echo; }
        location /slash/ { proxy_pass http://echo/; }
        location /path/ { proxy_pass http://echo/other/; }
        location /noslash { proxy_pass http://echo/other; }
        location /pathnoslash/ { proxy_pass http://echo/other; }
        location /query/ { proxy_pass http://echo/other?a=b; }
        location = /exact { proxy_pass http://echo/else; }
        location ~ ^/re/(.*) { proxy_pass http://echo; }
        location /var/ { proxy_pass http://127.0.0.1:{{port:echo}}$request_uri; }
        location /varuri/ { set $u /v/x?y; proxy_pass http://127.0.0.1:{{port:echo}}$u; }
        location /varhost/ { set $h 127.0.0.1; proxy_pass http://$h:{{port:echo}}; }
        location /varhosturi/ { set $h 127.0.0.1; proxy_pass http://$h:{{port:echo}}/fixed; }
        location /vargroup/ { set $g echo; proxy_pass http://$g; }
        location ~ ^/revar/(?<rest>.*) { proxy_pass http://echo/got/$rest$is_args$args; }
        location /rwbreak/ { rewrite ^/rwbreak/(.*) /new/$1 break; proxy_pass http://echo; }
        location /rwbreakuri/ { rewrite ^/rwbreakuri/(.*) /new/$1 break;
            proxy_pass http://echo/ignored/; }
        location /rwlast/ { rewrite ^/rwlast/(.*) /plain/$1 last; }
        location /ifpass/ { if ($arg_a) { proxy_pass http://echo; } proxy_pass http://echo/outer/; }
        location /tryproxy/ { try_files /none @echo; }
        location @echo { proxy_pass http://echo; }

        location /default/ { proxy_pass http://nokeep; proxy_set_header X-Only 1; }
        location /hdr/ { proxy_pass http://echo; proxy_set_header Host "own:$http_host";
            proxy_set_header X-Empty ""; proxy_set_header X-A "$arg_a-1";
            proxy_set_header X-Real $remote_addr;
                proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
                proxy_set_header Accept-Encoding "";
            proxy_set_header Connection "";
            location /hdr/inherit/ { proxy_pass http://echo; proxy_hide_header X-N; }
            location /hdr/replace/ { proxy_pass http://echo; proxy_set_header X-Inner 1; } }
        location /nohdr/ { proxy_pass http://echo; proxy_pass_request_headers off; } #? proxy_pass_request_headers
        location /nobody/ { proxy_pass http://echo; proxy_pass_request_body off; proxy_set_header Content-Length ""; } #? proxy_pass_request_body
        location /method/ { proxy_pass http://echo; proxy_method PUT; } #? proxy_method
        location /body/ { proxy_pass http://echo; proxy_set_body "fixed $arg_a"; } #? proxy_set_body
        location /v10/ { proxy_pass http://echo; proxy_http_version 1.0; }
        location /stream/ { proxy_pass http://echo; proxy_request_buffering off; }
        location /spool/ { proxy_pass http://echo; client_body_buffer_size 1k; }

        location /o/ { proxy_pass http://s/; }
        location /ou/ { proxy_pass http://s/; proxy_buffering off; }
        location /hide/ { proxy_pass http://s/; proxy_hide_header X-One;
            proxy_hide_header Content-Type; }
        location /pass/ { proxy_pass http://s/; proxy_pass_header Server; proxy_pass_header Date;
            proxy_pass_header X-Accel-Buffering; }
        location /ignore/ { proxy_pass http://s/; proxy_ignore_headers X-Accel-Redirect; } #? proxy_ignore_headers
        location /redir/ { proxy_pass http://s/; }
        location /rediroff/ { proxy_pass http://s/; proxy_redirect off; }
        location /redirown/ { proxy_pass http://s/; proxy_redirect http://up.test/ /mine/;
            proxy_redirect ~*^http://re\.test/(.*)$ http://$host/r/$1; proxy_redirect / /rel/; }
        location /small/ { proxy_pass http://s/; proxy_buffer_size 1k; proxy_buffers 4 1k;
            proxy_busy_buffers_size 2k; }
        location /disk/ { proxy_pass http://s/; proxy_buffers 2 4k; proxy_busy_buffers_size 4k;
            proxy_max_temp_file_size 50m; proxy_temp_file_write_size 8k; }
        location /nodisk/ { proxy_pass http://s/; proxy_buffers 2 4k; proxy_busy_buffers_size 4k;
            proxy_max_temp_file_size 0; }
        location /slow/ { proxy_pass http://s/; proxy_read_timeout 200ms; }
        location /sendslow/ { proxy_pass http://s/; proxy_send_timeout 200ms;
            proxy_request_buffering off; }
        location /int/ { proxy_pass http://s/; proxy_intercept_errors on; error_page 404 500 /err; }
        location /err { return 200 "intercepted:$upstream_status"; }
        location /page/ { proxy_pass http://127.0.0.1:{{port:closed}}; error_page 502 =200 /err502;
            }
        location /err502 { return 200 "down:$request_method:$upstream_status"; }
        location /fallback/ { proxy_pass http://127.0.0.1:{{port:closed}};
            error_page 502 504 = @echo; }
        location /fallbackuri/ { proxy_pass http://127.0.0.1:{{port:closed}};
            error_page 502 = /plain/fb; }
        location /ignoreabort/ { proxy_pass http://s/; proxy_ignore_client_abort on; }
        location /rate/ { proxy_pass http://s/; proxy_limit_rate 100m; } #? proxy_limit_rate
        location /force/ { proxy_pass http://s/; proxy_force_ranges on; } #? proxy_force_ranges
        location /addhdr/ { proxy_pass http://s/;
            add_header X-Up "$upstream_http_x_one|$upstream_status|$upstream_cookie_sid"; }

        location /wrr/ { proxy_pass http://wrr; }
        location /backup/ { proxy_pass http://backup; }
        location /down/ { proxy_pass http://down; }
        location /fails/ { proxy_pass http://fails; }
        location /alldead/ { proxy_pass http://alldead; }
        location /onlydown/ { proxy_pass http://onlydown; }
        location /ux/ { proxy_pass http://ux; }
        location /uxlit/ { proxy_pass http://unix:{{dir}}/up.sock:/lit/; }
        location /next/ { proxy_pass http://two/;
            proxy_next_upstream error timeout invalid_header http_500 http_503 http_404;
            proxy_read_timeout 200ms; }
        location /nextoff/ { proxy_pass http://two/; proxy_next_upstream off; }
        location /nextidem/ { proxy_pass http://two/;
            proxy_next_upstream error timeout http_500 non_idempotent; }
        location /nexttries/ { proxy_pass http://two/; proxy_next_upstream http_500; proxy_next_upstream_tries 1; } #? proxy_next_upstream_tries
        location /ka/ { proxy_pass http://ka1; }
        location /kareq/ { proxy_pass http://kareq; }
        location /kaclose/ { proxy_pass http://ka1; proxy_set_header Connection close; }

        location /files/ { internal; alias {{dir}}/html/; }
        location /xa/ { proxy_pass http://s/; }
        location @xa { return 200 "named:$request_method:$uri"; }
    }
}
EOT
$p->write_file('html/file.txt', 'the file');

# --- origins --------------------------------------------------------------------------------------
my $chunk  = 'x' x 65536;
my %script = (
    ok => sub {
        my ($c, $q) = @_;
        $c->write(
            "HTTP/1.1 200 OK\r\nServer: origin/1\r\nDate: Mon, 01 Jan 2001 00:00:00 GMT\r\nX-One: 1\r\nx-TWO: 2\r\nX-One: 3\r\nSet-Cookie: sid=s1\r\nSet-Cookie: b=2\r\nContent-Type: text/own\r\nContent-Length: 2\r\nX-Accel-Buffering: no\r\nX-Accel-Limit-Rate: 0\r\n\r\nok"
        );
    },
    chunked => sub {
        $_[0]->write(
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n4;x=y\r\ndefg\r\n0\r\nX-Trailer: t\r\n\r\n"
        );
    },
    chunkedbytes => sub {
        my ($c) = @_;
        for (
            split //,
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n4\r\ndefg\r\n0\r\n\r\n"
            )
        {
            $c->write($_);
        }
    },
    eof      => sub { $_[0]->write("HTTP/1.1 200 OK\r\n\r\nuntil the end"); 0 },
    eof10    => sub { $_[0]->write("HTTP/1.0 200 OK\r\n\r\nten");           0 },
    lf       => sub { $_[0]->write("HTTP/1.1 200 OK\nContent-Length: 2\n\nlf") },
    noreason => sub { $_[0]->write("HTTP/1.1 200\r\nContent-Length: 2\r\n\r\nnr") },
    reason   => sub { $_[0]->write("HTTP/1.1 299 Own Words\r\nContent-Length: 2\r\n\r\nrs") },
    204      => sub { $_[0]->write("HTTP/1.1 204 No Content\r\nX-One: 1\r\n\r\n") },
    304      => sub {
        $_[0]->write("HTTP/1.1 304 Not Modified\r\nETag: \"e\"\r\nContent-Length: 55\r\n\r\n");
    },
    404 => sub { $_[0]->write("HTTP/1.1 404 Not Found\r\nContent-Length: 3\r\n\r\n404") },
    500 => sub { $_[0]->write("HTTP/1.1 500 Oops\r\nContent-Length: 3\r\n\r\n500") },
    503 =>
        sub { $_[0]->write("HTTP/1.1 503 Later\r\nRetry-After: 7\r\nContent-Length: 3\r\n\r\n503") }
    ,
    head => sub {
        my ($c, $q) = @_;
        $c->write("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"
                . ($q->{method} eq 'HEAD' ? '' : 'hello'));
    },
    headchunked => sub {
        my ($c, $q) = @_;
        $c->write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
                . ($q->{method} eq 'HEAD' ? '' : "2\r\nok\r\n0\r\n\r\n"));
    },
    100 => sub {
        $_[0]->write("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n1xx");
    },
    103 => sub {
        $_[0]->write(
            "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n103"
        );
    },
    garbage  => sub { $_[0]->write("garbage that is no answer\r\n\r\n"); 0 },
    empty    => sub { 0 },
    reset    => sub { $_[0]->abort;                                  0 },
    half     => sub { $_[0]->write("HTTP/1.1 200 OK\r\nContent-Le"); 0 },
    badfield =>
        sub { $_[0]->write("HTTP/1.1 200 OK\r\nBad\0Name: x\r\nContent-Length: 2\r\n\r\nbf"); 0 },
    badlength  => sub { $_[0]->write("HTTP/1.1 200 OK\r\nContent-Length: x2\r\n\r\nbl"); 0 },
    twolengths => sub {
        $_[0]->write("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nabc");
        0;
    },
    tecl => sub {
        $_[0]->write(
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"
        );
        0;
    },
    badte    => sub { $_[0]->write("HTTP/1.1 200 OK\r\nTransfer-Encoding: frob\r\n\r\nxx"); 0 },
    badchunk => sub {
        $_[0]->write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\nzz\r\n");
        0;
    },
    http2      => sub { $_[0]->write("HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n");     0 },
    status99   => sub { $_[0]->write("HTTP/1.1 99 Low\r\nContent-Length: 0\r\n\r\n");     0 },
    short      => sub { $_[0]->write("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc"); 0 },
    shortchunk =>
        sub { $_[0]->write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab"); 0 },
    extra => sub {
        $_[0]->write(
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"
        );
    },
    bighead => sub {
        $_[0]->write(
            "HTTP/1.1 200 OK\r\nX-Big: " . 'b' x 100_000 . "\r\nContent-Length: 2\r\n\r\nbh");
        0;
    },
    twok => sub {
        $_[0]->write("HTTP/1.1 200 OK\r\nX-Big: " . 'b' x 2000 . "\r\nContent-Length: 2\r\n\r\n2k");
    },
    endless => sub {
        my ($c) = @_;
        $c->write("HTTP/1.1 200 OK\r\n");
        for (1 .. 10_000) { $c->write("X-$_: " . 'y' x 1000 . "\r\n") or last }
        0;
    },
    flood => sub {
        my ($c) = @_;
        for (1 .. 20_000) { $c->write("HTTP/1.1 100 Continue\r\n\r\n") or last }
        0;
    },
    silent => sub { $_[0]->wait_close; 0 },
    stall  => sub {
        $_[0]->write("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc");
        $_[0]->wait_close;
        0;
    },
    noread => sub { $_[0]->wait_close; 0 },
    big    => sub {
        my ($c) = @_;
        $c->write("HTTP/1.1 200 OK\r\nContent-Length: 104857600\r\n\r\n");
        for (1 .. 1600) { $c->write($chunk) or return 0 }
        1;
    },
    bigchunked => sub {
        my ($c) = @_;
        $c->write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
        for (1 .. 160) { $c->write("10000\r\n$chunk\r\n") or return 0 }
        $c->write("0\r\n\r\n");
        1;
    },
    bigeof => sub {
        my ($c) = @_;
        $c->write("HTTP/1.1 200 OK\r\n\r\n");
        for (1 .. 160) { $c->write($chunk) or return 0 }
        0;
    },
    ranged => sub {
        $_[0]->write(
            "HTTP/1.1 200 OK\r\nAccept-Ranges: bytes\r\nETag: \"r\"\r\nContent-Length: 10\r\n\r\n0123456789"
        );
    },
    loc => sub {
        my ($c, $q) = @_;
        my ($l) = $q->{uri} =~ /\?(.*)/;
        $c->write(
            "HTTP/1.1 302 Found\r\nLocation: $l\r\nRefresh: 3; url=$l\r\nContent-Length: 0\r\n\r\n");
    },
    xa => sub {
        my ($c, $q) = @_;
        my ($l) = $q->{uri} =~ /\?(.*)/;
        $c->write(
            "HTTP/1.1 200 OK\r\nX-Accel-Redirect: $l\r\nContent-Type: text/up\r\nSet-Cookie: a=b\r\nX-Other: lost\r\nCache-Control: private\r\nContent-Disposition: inline\r\nContent-Length: 4\r\n\r\nbody"
        );
    },
    hop => sub {
        $_[0]->write(
            "HTTP/1.1 200 OK\r\nConnection: X-Hop, keep-alive\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\nProxy-Authenticate: Basic\r\nTrailer: X-T\r\nUpgrade: foo\r\nX-Stay: 1\r\nContent-Length: 2\r\n\r\nok"
        );
    },
    close => sub {
        $_[0]->write("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok");
        0;
    },
    upload => sub {
        my ($c, $q) = @_;
        my $n = $q->{length};
        $c->write("HTTP/1.1 200 OK\r\nContent-Length: " . length($n) . "\r\n\r\n$n");
    },
    early => sub {
        $_[0]->write("HTTP/1.1 403 No\r\nConnection: close\r\nContent-Length: 2\r\n\r\nno");
        0;
    },
);
my $script = $p->origin(
    'script',
    sub {
        my ($c) = @_;
        $c->{discard} = 1;
        while (my $q = $c->request) {
            my ($name) = $q->{uri} =~ m{([^/?]+)(?:\?|$)};
            my $do     = $script{ $name || 'ok' } || $script{404};
            my $r      = $do->($c, $q);
            last if defined $r && $r eq '0';
        }
    }
);
my $echo = $p->echo_origin('echo');
$p->echo_origin($_) for qw(w1 w2 w3);
my $ka = $p->echo_origin('ka');
my $kb = $p->echo_origin('kb');
my $ux = $p->echo_origin("unix:@{[ $p->dir ]}/up.sock");
$p->port('closed');
$p->port('closed2');
$p->start;

my ($r, $rep, $x, $c);
sub get { return $p->get($_[0], host => 'front.test', @_[1 .. $#_]) }
sub rep { return Proxyd::report(get(@_)) }
sub rh  { return Proxyd::report_header($_[0], $_[1]) }
sub st  { return get(@_)->status }

# --- the URI --------------------------------------------------------------------------------------
my @uris = (
    ['/plain/x',                '/plain/x'],
    ['/plain/%41/./b//c?d=%20', '/plain/%41/./b//c?d=%20'],
    ['/plain/a%2fb',            '/plain/a%2fb'],
    ['/plain/x?',               '/plain/x?'],
    ['/plain/\\"<>^`{}|',       '/plain/\\"<>^`{}|'],
    ['/slash/x',                '/x'],
    ['/slash/',                 '/'],
    ['/slash/x?a=b',            '/x?a=b'],
    ['/slash/%41%20b',          '/A%20b'],
    ['/slash/a//b/../c',        '/a/c'],
    ['/slash/a%2fb',            '/a/b'],
    ['/slash/a%3Fb',            '/a%3Fb'],
    ['/slash/a%23b',            '/a%23b'],
    ['/slash/a%25b',            '/a%25b'],
    ["/slash/\xc3\xa4",         "/\xc3\xa4", 1],
    ['/slash/a+b;c=d',          '/a+b;c=d'],
    ['/path/x',                 '/other/x'],
    ['/path/',                  '/other/'],
    ['/noslash',                '/other'],
    ['/noslash/x',              '/other/x'],
    ['/noslashx',               '/otherx'],
    ['/pathnoslash/x',          '/otherx'],
    ['/query/x',                '/other?a=bx'],
    ['/exact',                  '/else'],
    ['/exact?q',                '/else?q'],
    ['/re/%41?b',               '/re/%41?b'],
    ['/var/%41?b',              '/var/%41?b'],
    ['/varuri/z?q',             '/v/x?y'],
    ['/varhost/%41?b',          '/varhost/%41?b'],
    ['/varhosturi/z?q',         '/fixed'],
    ['/vargroup/z?q',           '/vargroup/z?q'],
    ['/revar/a/b?q=1',          '/got/a/b?q=1'],
    ['/rwbreak/a%20b?q',        '/new/a%20b?q'],
    ['/rwbreakuri/a?q',         '/new/a?q'],
    ['/rwlast/%41?q',           '/plain/A?q'],
    ['/ifpass/x',               '/outer/x'],
    ['/ifpass/%41?a=1',         '/ifpass/%41?a=1'],
    ['/tryproxy/%41?q',         '/tryproxy/%41?q'],
);
for (@uris) {
    next if $_->[2];
    is rep($_->[0])->{uri}, $_->[1], "URI of $_->[0]";
}

# --- fields of the request ------------------------------------------------------------------------
$rep = Proxyd::report(
    $p->http(
        "GET /plain/h HTTP/1.1\r\nHost: Front.Test:99\r\nUser-Agent: ua\r\nx-OdD: Case\r\nAccept: */*\r\nX-A: 1\r\nCookie: a=b\r\nX-A: 2\r\n\r\n"
    )
);
is join('|', map { "$_->[0]=$_->[1]" } @{ $rep->{headers} }),
    'Host=echo|User-Agent=ua|x-OdD=Case|Accept=*/*|X-A=1|Cookie=a=b|X-A=2',
    'Host of the group first, then the client\'s, in order and case';
is $rep->{version},           '1.1',                           'proxy_http_version 1.1';
is rep('/v10/x')->{version},  '1.0',                           'proxy_http_version 1.0';
is rh(rep('/var/x'), 'Host'), '127.0.0.1:' . $p->port('echo'), 'Host is host and port of the URL';
$rep = rep('/default/x');
is rh($rep, 'X-Only'), 1,        'proxy_set_header';
is rh($rep, 'Host'),   'nokeep', 'the default Host stays with it';
SKIP: {
    skip 'nginx 1.22 has HTTP/1.0 and close as defaults', 3 if $nginx;
    my $q =
        Proxyd->new(conf =>
            "http { server { listen 127.0.0.1:{{port}}; location / { proxy_pass http://127.0.0.1:{{port:e}}; } } }\n"
        );
    my $e = $q->echo_origin('e');
    $q->start;
    my $rep = Proxyd::report($q->get('/'));
    is $rep->{version},                           '1.1', 'HTTP/1.1 by default';
    is Proxyd::report_header($rep, 'Connection'), undef, 'without Connection';
    my $u =
        Proxyd->new(conf =>
            "http { upstream e { server 127.0.0.1:{{port:e}}; } server { listen 127.0.0.1:{{port}}; location / { proxy_pass http://e; } location /2/ { proxy_pass http://e; } } }\n"
        );
    my $e2 = $u->echo_origin('e');
    $u->start;
    $u->get('/') for 1 .. 5;
    is $e2->connections, 1, 'kept alive by default';
    $_->stop for $q, $u;
}
$rep = rep(
    '/hdr/x?a=z',
    headers => [
        'X-Empty',         'gone',    'Accept-Encoding', 'gzip',
        'X-Forwarded-For', '9.9.9.9', 'X-Through',       't'
    ]
);
is rh($rep, 'Host'),            'own:front.test',     'Host of our own';
is rh($rep, 'X-Empty'),         undef,                'an empty value removes the client\'s field';
is rh($rep, 'Accept-Encoding'), undef,                'Accept-Encoding too';
is rh($rep, 'X-A'),             'z-1',                'variables in a value';
is rh($rep, 'X-Real'),          '127.0.0.1',          '$remote_addr';
is rh($rep, 'X-Forwarded-For'), '9.9.9.9, 127.0.0.1', '$proxy_add_x_forwarded_for';
is rh($rep, 'X-Through'),       't',                  'others go through';
is rh(rep('/hdr/inherit/x'), 'X-Real'), '127.0.0.1',  'inherited by a location without any';
$rep = rep('/hdr/replace/x');
is join('|', map { defined rh($rep, $_) ? $_ : () } qw(X-Real X-Inner)), 'X-Inner',
    'one of its own replaces them all';
is rh($rep, 'Host'), 'echo', 'and the default Host is back';
$p->with(
    'proxy_pass_request_headers',
    sub {
        is rh(rep('/nohdr/x', headers => ['X-A', 1]), 'X-A'), undef,
            'proxy_pass_request_headers off';
    }
);
$rep = rep(
    '/plain/x',
    headers => [
        'Keep-Alive',       '5',    'Upgrade', 'foo',
        'TE',               'gzip', 'Expect',  '100-continue',
        'Proxy-Connection', 'keep-alive'
    ]
);
is rh($rep, $_), undef, "$_ is not forwarded" for qw(Keep-Alive Upgrade Expect Connection);
SKIP: {
    skip 'nginx 1.22 forwards these', 5 if $nginx;
    is rh($rep, 'TE'), undef, 'TE is not forwarded';
    $rep = rep('/plain/x',
        headers => ['Connection', 'X-Secret, X-Two', 'X-Secret', 1, 'X-Two', 2, 'X-Three', 3]);
    is rh($rep, 'X-Secret'), undef, 'a field named in Connection';
    is rh($rep, 'X-Two'),    undef, 'another';
    is rh($rep, 'X-Three'),  3,     'not one that is not named';
    $rep = rep('/plain/x', headers => ['Max-Forwards', '3']);
    ok defined $rep, 'Max-Forwards does no harm';
}
# --- the body to the upstream ---------------------------------------------------------------------
$r   = $p->post('/plain/b', 'hello');
$rep = Proxyd::report($r);
is $rep->{body},               'hello', 'a body';
is rh($rep, 'Content-Length'), 5,       'with its length';
$rep = Proxyd::report(
    $p->http(
        "POST /plain/ HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
    )
);
is $rep->{body}, 'abcde', 'a chunked body';
is rh($rep, 'Content-Length'),    5,     'is sent with a length once it was buffered';
is rh($rep, 'Transfer-Encoding'), undef, 'and without Transfer-Encoding';
$rep = Proxyd::report(
    $p->http(
        "POST /stream/ HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
    )
);
is $rep->{body}, 'abcde', 'unbuffered: the body';
$c = $p->connect;
$c->send("POST /stream/ HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n");
ok $p->wait_for(sub { !$c->wait_input(0.02) }),
    'unbuffered: nothing comes before the end of the body';
$c->send("2\r\nde\r\n0\r\n\r\n");
$rep = Proxyd::report($c->response);
$c->close;
is "$rep->{body}|$rep->{framing}", 'abcde|chunked', 'unbuffered: chunked again';
$rep = Proxyd::report($p->post('/stream/', 'fixed length'));
is "$rep->{body}|$rep->{framing}", 'fixed length|length', 'unbuffered with a length';
$rep = Proxyd::report($p->post('/spool/x', 'q' x 50_000));
is length $rep->{body}, 50_000, 'a body by way of a temporary file';
$p->with(
    'proxy_pass_request_body',
    sub {
        $rep = Proxyd::report($p->post('/nobody/x', 'hello'));
        is "$rep->{body}|" . (rh($rep, 'Content-Length') // 'none'), '|none',
            'proxy_pass_request_body off';
    }
);
$p->with('proxy_method',
    sub { is Proxyd::report($p->post('/method/x', 'hello'))->{method}, 'PUT', 'proxy_method' });
$p->with(
    'proxy_set_body',
    sub {
        $rep = Proxyd::report($p->post('/body/x?a=1', 'hello'));
        is "$rep->{body}|" . rh($rep, 'Content-Length'), 'fixed 1|7', 'proxy_set_body';
    }
);
is Proxyd::report($p->request($_, '/plain/x'))->{method}, $_, "$_ goes through"
    for qw(PUT DELETE PATCH OPTIONS FOO);
$c = $p->connect;
$c->send("POST /stream/x HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\n\r\nabc");
my $before = $echo->connections;
$c->send('def');
is Proxyd::report($c->response)->{body}, 'abcdef', 'unbuffered, in two halves';
$c->close;

# --- the answer -----------------------------------------------------------------------------------
$r = get('/o/ok', keep => 1);
is $r->body, 'ok', 'an answer';
is join('|', $r->names),
    'Server|Date|Content-Type|Content-Length|Connection|X-One|x-TWO|X-One|Set-Cookie|Set-Cookie',
    'ours first, then the upstream\'s in order and case';
isnt $r->header('Server'),           'origin/1',                      'Server is ours';
isnt $r->header('Date'),             'Mon, 01 Jan 2001 00:00:00 GMT', 'Date too';
is $r->header('X-Accel-Limit-Rate'), undef,                           'X-Accel-... are hidden';
$r = get('/hide/ok');
is $r->header('X-One'), undef, 'proxy_hide_header';
$r = get('/pass/ok');
is $r->header('Server'),            'origin/1',                      'proxy_pass_header Server';
is $r->header('Date'),              'Mon, 01 Jan 2001 00:00:00 GMT', 'Date';
is $r->header('X-Accel-Buffering'), 'no',                            'X-Accel-Buffering';
is get('/addhdr/ok')->header('X-Up'), '1, 3|200|s1', '$upstream_http_, _status, _cookie_'
    unless $nginx;

for my $loc ('o', 'ou') {
    my $how = $loc eq 'o' ? 'buffered' : 'unbuffered';
    $r = get("/$loc/chunked");
    is $r->body . '|' . $r->framing,    'abcdefg|chunked', "$how: chunked";
    is get("/$loc/chunkedbytes")->body, 'abcdefg',         "$how: byte by byte";
    $r = get("/$loc/eof");
    is $r->body . '|' . $r->framing, 'until the end|chunked', "$how: until the end becomes chunked";
    $r = $p->request('GET', "/$loc/eof", version => '1.0');
    is $r->body . '|' . $r->framing, 'until the end|eof', "$how: HTTP/1.0 client";
    $r = $p->request('GET', "/$loc/chunked", version => '1.0');
    is $r->body . '|' . $r->framing, 'abcdefg|eof', "$how: chunked for an HTTP/1.0 client";
    is get("/$loc/eof10")->body,     'ten',         "$how: HTTP/1.0 upstream";
    is get("/$loc/lf")->body,        'lf',          "$how: bare LF";
    is get("/$loc/noreason")->body,  'nr',          "$how: no reason phrase";
    $r = get("/$loc/reason");
    is $r->status . ' ' . $r->reason, '299 Own Words', "$how: its reason phrase";
    $r = get("/$loc/204");
    is $r->status . '|'
        . ($r->header('Content-Length') // '-') . '|'
        . ($r->header('Transfer-Encoding') // '-'), '204|-|-', "$how: 204";
    $r = get("/$loc/304");
    is $r->status . '|' . $r->header('ETag') . '|' . $r->body, '304|"e"|', "$how: 304";
    is st("/$loc/$_"), $_, "$how: $_ goes through" for 404, 500, 503;
    is get("/$loc/503")->header('Retry-After'), 7, "$how: Retry-After";
    $r = $p->head("/$loc/head");
    is $r->status . '|' . $r->header('Content-Length') . '|' . $r->body, '200|5|', "$how: HEAD";
    is $p->head("/$loc/headchunked")->status, 200, "$how: HEAD of a chunked answer";
    $x = $p->raw(
        'main',
        "HEAD /$loc/headchunked HTTP/1.1\r\nHost: a\r\n\r\nGET /$loc/head HTTP/1.1\r\nHost: a\r\n\r\n",
        count   => 2,
        methods => ['HEAD', 'GET']
    );
    is join(' ', map { $_->status . $_->body } @{ $x->{responses} }), '200 200hello',
        "$how: nothing follows an answer to HEAD";
SKIP: {
        skip 'nginx 1.22 takes it for the answer', 1 if $nginx;
        $r = get("/$loc/100");
        is $r->status . $r->body, '2001xx', "$how: 100 Continue of the upstream is skipped";
    }
    is get("/$loc/hop")->header('X-Stay'), 1, "$how: other fields stay";
SKIP: {
        skip 'nginx 1.22 forwards fields named in Connection', 1 if $nginx;
        is get("/$loc/hop")->header('X-Hop'), undef,
            "$how: a field named in the upstream's Connection";
    }
    is get("/$loc/hop")->header('Keep-Alive'), undef, "$how: Keep-Alive is not forwarded";
    is get("/$loc/early", body => 'x' x 100)->status, 403,
        "$how: an answer before the body is read";
    is get("/$loc/close")->body, 'ok', "$how: Connection: close";
    # what is wrong
    is st("/$loc/$_"), 502, "$how: $_" for qw(empty reset half bighead endless);
SKIP: {
        skip 'laxer in nginx 1.22', 8 if $nginx;
        is st("/$loc/$_"), 502, "$how: $_"
            for qw(twolengths tecl badfield http2 status99 garbage badte badlength);
    }
    $r = get("/$loc/short");
    is $r->status . '|' . $r->{complete}, '200|0', "$how: a short body is seen to be short";
    $r = get("/$loc/shortchunk");
    is $r->status . '|' . $r->{complete}, '200|0', "$how: a short chunk too";
    $r = get("/$loc/badchunk");
    is $r->status . '|' . $r->{complete}, '200|0', "$how: a malformed chunk too"
        if $r->status == 200;
    $r = get("/$loc/extra");
    is $r->body,                'ok',    "$how: bytes after the body are dropped";
    is get("/$loc/head")->body, 'hello', "$how: and are not the next answer";
}
like $p->error_log,
    qr{\[error\] \d+#\d+: \*\d+ upstream sent too big header while reading response header from upstream, client: 127\.0\.0\.1, server: front\.test, request: "GET /o/bighead HTTP/1\.1", upstream: "http://127\.0\.0\.1:\d+/bighead", host: "front\.test"},
    'too big header: the log line';
like $p->error_log,
    qr{upstream prematurely closed connection while reading response header from upstream, client},
    'closed: the log line';
like $p->error_log,
    qr{\[error\] \S+ \*\d+ (?:recv\(\)|readv\(\)) failed \(104: Connection reset by peer\) while reading response header from upstream},
    'reset: the log line';
like $p->error_log, qr{upstream prematurely closed connection while reading upstream, client},
    'short: the log line';
is st('/small/twok'),    502,  'proxy_buffer_size 1k';
is get('/o/twok')->body, '2k', 'enough otherwise';
$p->with(
    'proxy_force_ranges',
    sub {
        is $p->get('/force/ranged', headers => ['Range', 'bytes=2-4'])->body, '234',
            'proxy_force_ranges';
    }
);
is get('/o/ranged', headers => ['Range', 'bytes=2-4'])->status, 200,
    'otherwise ranges are the upstream\'s business';
is get('/o/ranged', headers => ['If-None-Match', '"r"'])->status, 200, 'and so are conditions';

# --- large bodies ---------------------------------------------------------------------------------
sub rss {
    my ($pid) = @_;
    open my $fh, '<', "/proc/$pid/status" or return 0;
    my ($kb) = join('', <$fh>) =~ /VmHWM:\s*(\d+)/;
    return $kb;
}
my ($worker) = $p->workers;
for (['/o/big', 'buffered'], ['/ou/big', 'unbuffered'], ['/nodisk/big', 'without a temporary file'])
{
    my $c = $p->connect;
    $c->send("GET $_->[0] HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    my ($n, $head) = (0, '');
    while ($c->wait_input(10)) {
        $head = $c->{in} if $head eq '';
        $n += length $c->{in};
        $c->{in} = '';
    }
    my ($h) = $head =~ /^(.*?\r\n\r\n)/s;
    is $n - length $h, 104857600, "100 MB, $_->[1]";
    $c->close;
}
is length get("/$_/bigchunked")->body, 10485760, "10 MB chunked: $_"       for qw(o ou disk nodisk);
is length get("/$_/bigeof")->body,     10485760, "10 MB until the end: $_" for qw(o ou);
{
    my $c   = $p->connect;
    my $len = 100 * 1048576;
    $c->send("POST /o/upload HTTP/1.1\r\nHost: a\r\nContent-Length: $len\r\n\r\n");
    my $mb = 'u' x 1048576;
    $c->send($mb) for 1 .. 100;
    is $c->response(timeout => 20)->body, $len, '100 MB upload, buffered on disk';
    $c->send("POST /sendslow/upload HTTP/1.1\r\nHost: a\r\nContent-Length: $len\r\n\r\n");
    $c->send($mb) for 1 .. 100;
    is $c->response(timeout => 20)->body, $len, '100 MB upload, unbuffered';
    $c->close;
}
cmp_ok rss($worker), '<',
    Proxyd::sanitized() ? 300_000 : 40_000,
    'memory stayed bounded';
is join(' ', $p->workers), $worker, 'by the same worker';

# --- redirects ------------------------------------------------------------------------------------
my $front = 'http://front.test:' . $p->port;
for (
    ['/redir/loc?http://s/abc',        "$front/redir/abc"],
    ['/redir/loc?http://else/abc',     'http://else/abc'],
    ['/redir/loc?/abc',                '/abc'],
    ['/rediroff/loc?http://s/abc',     'http://s/abc'],
    ['/redirown/loc?http://up.test/q', "$front/mine/q"],
    ['/redirown/loc?http://re.test/q', 'http://front.test/r/q'],
    ['/redirown/loc?/q',               "$front/rel/q"]
    )
{
    is get($_->[0])->header('Location'), $_->[1], "Location of $_->[0]";
}
is get('/redirown/loc?http://up.test/q')->header('Refresh'), '3; url=/mine/q',
    'Refresh is changed too';

# --- X-Accel-Redirect -----------------------------------------------------------------------------
$r = get('/xa/xa?/files/file.txt');
is $r->status . ' ' . $r->body, '200 the file', 'X-Accel-Redirect';
is $r->header('Content-Type'),  'text/up',      'the upstream\'s type';
is join('|', map { $r->header($_) // '' } qw(Set-Cookie Cache-Control Content-Disposition X-Other)),
    'a=b|private|inline|', 'what comes along and what does not';
is get('/xa/xa?@xa')->body,                       'named:GET:/xa/xa', 'to a named location';
is $p->post('/xa/xa?/files/file.txt', 'x')->body, 'the file',         'a POST becomes GET';
is st('/xa/xa?/files/none'),                      404,                'a file that is not there';
$p->with('proxy_ignore_headers',
    sub { is get('/ignore/xa?/files/file.txt')->body, 'body', 'proxy_ignore_headers' });
is st('/files/file.txt'), 404, 'the location itself is internal';

# --- errors ---------------------------------------------------------------------------------------
is get('/int/404')->body,          'intercepted:404', 'proxy_intercept_errors';
is st('/int/503'),                 503,               'only what error_page names';
is get('/page/x')->body,           'down:GET:502',    'error_page for 502';
is $p->post('/page/x', 'z')->body, 'down:GET:502',    'a POST becomes GET';
$rep = Proxyd::report($p->post('/fallback/x?y', 'body'));
is "$rep->{method} $rep->{uri} $rep->{body}", 'POST /fallback/x?y body',
    'a named fallback gets the request unchanged';
$rep = Proxyd::report($p->post('/fallbackuri/x?y', 'body'));
is "$rep->{method} $rep->{uri} $rep->{body}", 'GET /plain/fb body',
    'a URI fallback gets GET, with the body';
is st('/slow/silent'), 504, 'proxy_read_timeout before the head';
like $p->error_log,
    qr{\[error\] \S+ \*\d+ upstream timed out \(110: Connection timed out\) while reading response header from upstream},
    'its log line';
$r = get('/slow/stall');
is $r->status . '|' . $r->{complete}, '200|0', 'proxy_read_timeout in the body';
is st('/alldead/x'),                  502,     'no server answers';
is st('/alldead/x'),                  502,     'no live upstreams';
ok $p->wait_log(
    qr{\[error\] \S+ \*\d+ no live upstreams while connecting to upstream, client: \S+ server: \S+ request: "GET /alldead/x HTTP/1.1", upstream: "http://alldead/alldead/x"}
), 'its log line';
is st('/onlydown/x'), 502, 'only a server that is down';
ok $p->wait_log(qr{connect\(\) failed \(111: Connection refused\) while connecting to upstream}),
    'refused: the log line';
like $p->read_file('up.log'),
    qr{^/alldead/x\|502\|127\.0\.0\.1:\d+, 127\.0\.0\.1:\d+\|502, 502\|-$}m,
    'two attempts in the log';
like $p->read_file('up.log'), qr{^/alldead/x\|502\|alldead\|502\|-$}m, 'and none: the group';

# --- the choice of a server -----------------------------------------------------------------------
my $seq = join '', map { rep('/wrr/x')->{name} =~ /(\d)/ } 1 .. 14;
my %n;
$n{$_}++ for split //, $seq;
is join(' ', map { $n{$_} } 1 .. 3), '10 2 2', 'weights 5, 1, 1 over 14 requests';
unlike $seq, qr/11111/, 'spread out';
is rep('/backup/x')->{name},                         'w1',       'a backup';
is rep('/backup/x')->{name},                         'w1',       'still';
is join(' ', map { rep('/down/x')->{name} } 1 .. 3), 'w2 w2 w2', 'down';
is join(' ', map { rep('/fails/x')->{name} } 1 .. 8), 'w1 w1 w1 w1 w1 w1 w1 w1',
    'a failed server is passed over';
my $refused = () = $p->error_log =~ m{Connection refused\)[^\n]*"GET /fails/x}g;
is $refused,                    2,           'max_fails=2 attempts were made, then no more';
is rep('/ux/x?y')->{uri},       '/ux/x?y',   'a unix socket';
is rep('/uxlit/x?y')->{uri},    '/lit/x?y',  'a unix socket in proxy_pass';
is rh(rep('/uxlit/x'), 'Host'), 'localhost', 'its Host';

# --- the next server ------------------------------------------------------------------------------
is rep("/next/$_")->{name}, 'w1', "next after $_"
    for qw(empty reset half 500 503 404 silent), $nginx ? () : qw(garbage flood);
is st('/nextoff/empty'), 502, 'proxy_next_upstream off';
$p->with('proxy_next_upstream_tries',
    sub { is st('/nexttries/500'), 500, 'proxy_next_upstream_tries 1' });
is $p->post('/next/500',   'x')->status, 500, 'a POST is not repeated';
is $p->post('/next/empty', 'x')->status, 502, 'not after a closed connection either';
is Proxyd::report($p->post('/nextidem/500', 'xyz'))->{body}, 'xyz', 'unless non_idempotent';
is Proxyd::report($p->request('PUT', '/next/500', body => 'put'))->{body}, 'put',
    'a PUT is, with its body';
is Proxyd::report($p->post('/backup/x', 'p'))->{body}, 'p', 'POST to a backup';
is $p->get('/next/short')->status,                     200, 'not once the head was passed on';

# --- kept-alive connections -----------------------------------------------------------------------
$p->get('/ka/x') for 1 .. 10;
is $ka->connections, 1, 'ten requests over one connection';
$p->get('/kareq/x') for 1 .. 9;
is $kb->connections, 3, 'keepalive_requests 3';
$ka->reset_counts;
$p->get('/kaclose/x') for 1 .. 3;
cmp_ok $ka->connections, '>=', 2, 'Connection: close in the request is honoured';
{
    # the upstream closes a pooled connection just when the next request comes
    my $q = Proxyd->new(conf => <<'EOT');
http {
    proxy_http_version 1.1; proxy_set_header Connection "";
    upstream once { server 127.0.0.1:{{port:once}}; keepalive 4; }
    server { listen 127.0.0.1:{{port}}; location / { proxy_pass http://once; } }
}
EOT
    my $once = $q->origin(
        'once',
        sub {
            my ($c) = @_;
            my $r = $c->request or return;
            $c->write("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\none");
            # takes the second request's bytes and closes without an answer
            $c->more;
            $c->abort;
        }
    );
    $q->start;
    is $q->get('/1')->body,         'one', 'first request of a pooled connection';
    is $q->get('/2')->body,         'one', 'a dead pooled connection grants another try';
    is $q->get('/3')->body,         'one', 'every time';
    is $q->post('/4', 'x')->status, 502,   'not for a POST that was sent';
    $q->stop;
}

# --- a client that goes away ----------------------------------------------------------------------
for (['/o/silent', 'waiting for the head'], ['/ou/stall', 'in the body']) {
    $script->reset_counts;
    $c = $p->connect;
    $c->send("GET $_->[0] HTTP/1.1\r\nHost: a\r\n\r\n");
    $p->wait_for(sub { $script->requests });
    $c->response(timeout => 0.2) if $_->[0] =~ /stall/ && $c->wait_input(2);
    $c->close;
    ok $p->wait_for(sub { $script->lines(qr/^X/) }),
        "client gone, $_->[1]: the upstream connection is closed";
}
ok $p->wait_log(qr{"GET /o/silent HTTP/1\.1" 499 0}, 'access.log'), 'logged as 499';
$c = $p->connect;
$c->send("GET /o/silent?2 HTTP/1.1\r\nHost: a\r\n\r\n");
$c->half_close;
ok $p->wait_log(qr{"GET /o/silent\?2 HTTP/1\.1" 499 0}, 'access.log'),
    'a half-close is a going away too';
$c->close;
$script->reset_counts;
$c = $p->connect;
$c->send("GET /ignoreabort/ok HTTP/1.1\r\nHost: a\r\n\r\n");
$c->close;
ok $p->wait_log(qr{"GET /ignoreabort/ok HTTP/1\.1" 200}, 'access.log'),
    'proxy_ignore_client_abort on';
ok !$p->wait_for(sub { $p->read_file('error.log') =~ /\[(?:alert|crit)\]/ }, 0.01),
    'nothing at alert or crit'
    or diag grep { /\[(?:alert|crit)\]/ } split /^/, $p->error_log;
is join(' ', $p->workers), $worker, 'still the same worker';
$p->stop;
done_testing;
