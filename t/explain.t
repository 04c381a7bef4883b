# SPDX-License-Identifier: BSD-2-Clause
#
# --explain: each step that it tells, and that the running server does what it says: the same
# status, the same location (each names itself in a field), the same Location and the same request
# to the upstream. Nothing is connected, bound, sent or written meanwhile.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/lib";
use JSON::PP ();
use Test::More import => ['!explain'];
use Proxyd;

my %files = (
    'html/a.txt' => "a\n", 'html/dir/index.html' => "i\n", passwords => "u:{PLAIN}p\n", 'html/big' => 'x' x 200_000,
    'html/inc.html' => '<!--# include virtual="/static/a.txt" --><!--# include virtual="/checkup" -->',
);
my $p = Proxyd->new(files => \%files, conf => <<'EOT');
http {
    root {{dir}}/html;
    upstream backend {
        server 127.0.0.1:{{port:up}} weight=3;
        server 127.0.0.1:{{port:up2}} backup;
        server 127.0.0.1:{{port:up3}} down;
    }
    upstream dead { server 127.0.0.1:{{port:up3}} down; }
    map $http_x_kind $kind { default plain; ~^(?<k>\w)x special-$k; } #? map

    server {
        listen 127.0.0.1:{{port}};
        server_name main.test *.wild.test tail.* ~^re(?<digits>\d+)\.test$;
        add_header X-Loc server always;
        error_page 404 /errors/404.txt;
        error_page 410 =200 @gone;
        error_page 502 504 = @fallback;

        location = / { add_header X-Loc root always; return 204; }
        location /static/ { add_header X-Loc static always; alias {{dir}}/html/; }
        location /dir/ { add_header X-Loc dir always; }
        location ~ index\.html$ { add_header X-Loc index always; }
        location ^~ /final/ { add_header X-Loc final always; return 200 "final"; }
        location ~* \.CAPS$ { add_header X-Loc caps always; return 200 "caps"; }
        location /nested/ {
            add_header X-Loc nested always;
            location /nested/inner/ { add_header X-Loc inner always; return 200 "inner"; }
            location ~ /deep { add_header X-Loc deep always; return 302 /elsewhere; }
        }
        location /try/ { add_header X-Loc try always; try_files $uri /a.txt/ @named; }
        location /tryfile/ { add_header X-Loc tryfile always; try_files /none /a.txt =404; }
        location /trycode/ { add_header X-Loc trycode always; try_files /none =403; }
        location /tryuri/ { add_header X-Loc tryuri always; try_files /none /final/x?y=z; }
        location @named { add_header X-Loc named always; return 200 "named"; }
        location /old/ { add_header X-Loc old always; rewrite ^/old/(.*)$ /static/$1 last; }
        location /moved/ { add_header X-Loc moved always; rewrite ^/moved/(.*)$ /new/$1 permanent; }
        location /if {
            add_header X-Loc if always;
            if ($arg_a = 1) { add_header X-Loc if-a always; return 403; }
            if ($request_method = PUT) { return 405; }
            return 200 "if";
        }
        location /set { add_header X-Loc set always; set $mine b$arg_v; return 200 $mine; }
        location /gone { add_header X-Loc gone always; return 410; }
        location @gone { add_header X-Loc gonepage always; return 200 "gone"; }
        location /internal/ { add_header X-Loc internal always; internal; }
        location /errors/ { add_header X-Loc errors always; internal; }
        location /close { return 444; }
        location /access/ {
            add_header X-Loc access always;
            deny 127.0.0.9; allow 127.0.0.0/8; deny all; alias {{dir}}/html/;
        }
        location /any/ { add_header X-Loc any always; satisfy any; deny all; return 200 x; }
        location /anyfile/ { add_header X-Loc anyfile always; satisfy any; deny all; alias {{dir}}/html/; }
        location /limit/ { add_header X-Loc limit always; client_max_body_size 10; alias {{dir}}/html/; }
        location /except/ {
            add_header X-Loc except always;
            limit_except GET { deny all; }
            alias {{dir}}/html/;
        }
        location /up/ {
            add_header X-Loc up always;
            proxy_pass http://backend/base/;
            proxy_set_header X-Kind $kind; #? map
            proxy_set_header X-Real $remote_addr;
        }
        location /plain/ { add_header X-Loc plain always; proxy_pass http://127.0.0.1:{{port:up}}; }
        location /dead/ { add_header X-Loc dead always; proxy_pass http://dead; error_page 502 /none; }
        location /deadpage/ { add_header X-Loc deadpage always; proxy_pass http://dead; }
        location @fallback { add_header X-Loc fallback always; return 200 "fallback"; }
        location /name/ { add_header X-Loc name always; proxy_pass http://$arg_h; error_page 502 /none; }
        location /slash/ { add_header X-Loc slash always; proxy_pass http://backend; }
        location /rate/ { add_header X-Loc rate always; limit_rate 1k; alias {{dir}}/html/; }
        location /memory/ { add_header X-Loc memory always; sendfile off; alias {{dir}}/html/; }
        location /threads/ { add_header X-Loc threads always; sendfile off; aio threads; alias {{dir}}/html/; }
        location /auth/ { add_header X-Loc auth always; auth_request /check; alias {{dir}}/html/; } #? auth_request
        location /authup/ { add_header X-Loc authup always; auth_request /checkup; alias {{dir}}/html/; } #? auth_request
        location /checkup { proxy_pass http://backend/ok; }
        location /check { return 403; }
        location /mirror/ { add_header X-Loc mirror always; mirror /checkup; alias {{dir}}/html/; } #? mirror
        location /dav/ { add_header X-Loc dav always; dav_methods PUT DELETE MKCOL COPY MOVE; alias {{dir}}/html/; } #? dav_methods
        location /list/ { add_header X-Loc list always; autoindex on; index none; alias {{dir}}/html/dir/; } #? autoindex
        location = /stub { add_header X-Loc stub always; stub_status; } #? stub_status
        location = /gif { add_header X-Loc gif always; empty_gif; } #? empty_gif
        location /real/ { add_header X-Loc real always; set_real_ip_from 127.0.0.1; real_ip_header X-Real; deny 10.0.0.0/8; alias {{dir}}/html/; } #? set_real_ip_from
        location /basic/ { add_header X-Loc basic always; auth_basic x; auth_basic_user_file {{dir}}/passwords; } #? auth_basic
        location /ssi/ { add_header X-Loc ssi always; ssi on; alias {{dir}}/html/; } #? ssi
        location /loop/ { rewrite ^ /loop/x last; }
        location /spool/ {
            add_header X-Loc spool always;
            client_body_buffer_size 1k; proxy_pass http://backend; proxy_request_buffering on;
        }
    }
    server {
        listen 127.0.0.1:{{port}};
        server_name second.test;
        add_header X-Loc second always;
        return 301 https://main.test$request_uri;
    }
    server {
        listen 127.0.0.1:{{port:many}};
        listen 127.0.0.2:{{port:many}};
        server_name many.test;
        add_header X-Loc many always;
        location / { return 200 $server_addr; }
    }
    server {
        listen 127.0.0.3:{{port:many}} default_server;
        server_name third.test;
        add_header X-Loc third always;
        location / { return 200 $server_addr; }
    }
}
EOT
my $port = $p->port;
my $dir  = $p->dir;

# Its status, its lines and what they say of the end.
sub explain {
    my ($url, @args) = @_;
    my $r = $p->run(args => ['-p', "$dir/", '-c', 'proxyd.conf', '-e', 'error.log', '--explain', $url, @args]);
    $r->{answer} = $r->{out} =~ /^\s+status\s+(\d+)/m ? $1 : $r->{out} =~ /^\s+status\s+as the upstream/m ? 'upstream' : '';
    # Steps that follow each other under one word.
    my ($what, %fields) = ('');
    for (split /\n/, $r->{out}) {
        $what = $1 if /^  (?:#\d+ )?(\w+) /;
        next unless $what eq 'header' && /^ +(?:header +)?(\S+?): (.*?)(?: {2,}\S+:\d+)?$/;
        push @{ $fields{ lc $1 } }, $2;
    }
    $r->{fields} = \%fields;
    return $r;
}

# The number of the line of the configuration that holds a text.
my @lines = split /\n/, $p->read_file('proxyd.conf');
sub line { my ($text) = @_; my ($n) = grep { index($lines[$_], $text) >= 0 } 0 .. $#lines; return $n + 1 }

# --- before the server runs: nothing is there, and nothing will be ---------------------------------
sub tree { return join "\n", sort grep { !m{/run\.} } split /\n/, qx{find '$dir' -printf '%p %s %T@\\n'} }
my $before = tree();
my $r = explain("http://main.test:$port/up/x");
is $r->{status}, 0, 'without a server: status';
is tree(), $before, 'no file was written or touched';

# --- requests: [name, path, [steps], { host, method, headers, from }] --------------------------------
# In a step LINE{text} is the line of the configuration with that text.
my @table = (
    ['exact', '/', ['location = / (exact) LINE{location = /}', 'return 204 LINE{location = /}']],
    ['prefix and file', '/static/a.txt', ['location /static/ (longest prefix, no regex matches) LINE{location /static/}',
        "file $dir/html/a.txt LINE{location /static/}"]],
    ['missing file', '/static/none', ['log [error] open() "' . $dir . '/html/none" failed (2: No such file or directory)',
        'error_page 404 /errors/404.txt LINE{error_page 404}', 'redirect internally to /errors/404.txt',
        'location /errors/ (longest prefix, no regex matches)']],
    ['directory', '/dir', ["file $dir/html/dir LINE{root $dir}", 'is a directory: only its slash is lacking']],
    ['index, a regex takes it', '/dir/', ["index $dir/html/dir/index.html: is there",
        'redirect internally to /dir/index.html', 'location ~ index\.html$ (the first regex that matches)']],
    ['final prefix', '/final/index.html', ['location ^~ /final/ (longest prefix, no regex is asked)']],
    ['regex without case', '/x.caps', ['location ~* \.CAPS$ (the first regex that matches)']],
    ['nested prefix', '/nested/inner/x', ['location /nested/inner/ (longest prefix, no regex matches, inside /nested/) LINE{location /nested/inner/}']],
    ['nested regex', '/nested/deep', ['location ~ /deep (the first regex that matches, inside /nested/)']],
    ['no location', '/nothing', ["location none (the server's own settings)", "file $dir/html/nothing LINE{root $dir}"]],
    ['try_files to a name', '/try/x', ["try_files $dir/html/try/x: not there LINE{location /try/}",
        "$dir/html/a.txt: is no directory", 'the last argument: @named', 'redirect internally to @named', 'location @named']],
    ['try_files', '/tryfile/', ["$dir/html/a.txt: is there"]],
    ['try_files with a code', '/trycode/', ['the last argument: =403']],
    ['try_files to a URI', '/tryuri/', ['redirect internally to /final/x?y=z', 'location ^~ /final/']],
    ['rewrite last', '/old/a.txt', ['location /old/', 'rewrite "^/old/(.*)$" to "/static/a.txt", last LINE{location /old/}',
        'location /static/', "file $dir/html/a.txt"]],
    ['rewrite permanent', '/moved/x?q', ['rewrite "^/moved/(.*)$" redirects (301) to "/new/x?q" LINE{location /moved/}']],
    ['if', '/if?a=1', ['location /if', 'if ($arg_a = 1) is true LINE{if ($arg_a = 1)}', 'return 403 LINE{if ($arg_a = 1)}']],
    ['if not', '/if', ['if ($arg_a = 1) is false', '($request_method = PUT) is false', 'return 200 "if"']],
    ['set', '/set?v=2', ['set $mine to "b2" LINE{set $mine}', 'return 200 "b2"']],
    ['method', '/if', [], { method => 'PUT' }],
    ['error_page with a status', '/gone', ['error_page 410 =200 @gone LINE{error_page 410}', 'location @gone']],
    ['internal', '/internal/x', ['internal 404: not for requests from outside LINE{location /internal/}']],
    ['access', '/access/a.txt', ['access granted by "allow 127.0.0.0/8" LINE{deny 127.0.0.9}']],
    ['no access', '/access/a.txt', ['access forbidden by "deny 127.0.0.9"', 'log [error] access forbidden by rule'],
        { from => '127.0.0.9', unseen => 1, status => 403 }],
    ['no access at all', '/access/a.txt', ['access forbidden by "deny all"'], { from => '2001:db8::1', unseen => 1, status => 403 }],
    ['satisfy any', '/anyfile/a.txt', ['satisfy any: 403 is not the last word', 'any: nothing has granted access LINE{location /anyfile/}']],
    ['body', '/limit/a.txt', ['limit client_max_body_size 10: a body of 11 bytes is too large LINE{location /limit/}'],
        { method => 'POST', body => 'x' x 11 }],
    ['body that fits', '/limit/a.txt', ['limit client_max_body_size 10: a body of 10 bytes is let in'],
        { method => 'POST', body => 'x' x 10 }],
    ['limit_except', '/except/a.txt', ['limit_except has other settings for PUT LINE{limit_except GET}',
        'access forbidden by "deny all" LINE{limit_except GET}'], { method => 'PUT' }],
    ['limit_except not', '/except/a.txt', ["file $dir/html/a.txt"]],
    ['slash added', '/slash', ['location /slash/ (the URI lacks only the final slash)']],
    ['no live server', '/dead/', ['log [error] no live upstreams', 'error_page 502 /none']],
    ['no live server, a page', '/deadpage/x', ['error_page 502 = @fallback LINE{error_page 502 504}', 'location @fallback']],
    ['no resolver', '/name/?h=some.test', ['proxy_pass http://some.test/name/?h=some.test',
        'log [error] no resolver defined to resolve some.test']],
    ['limit_rate', '/rate/big', ["file $dir/html/big"], { slow => 1 }],
    ['in memory', '/memory/big', ["file $dir/html/big"]],
    ['threads', '/threads/big', ["file $dir/html/big"]],
    ['loop', '/loop/', ['log [error] rewrite or internal redirection cycle while processing "/loop/x"']],
    ['escapes', '/static/%61.txt', ["file $dir/html/a.txt"]],
    ['a NUL', '/static/a%00', ['log [info] client sent invalid request']],
    ['out of the root', '/../x', ['log [info] client sent invalid request']],
    ['dots', '/static/../final/x', ['location ^~ /final/']],
    ['HEAD', '/static/a.txt', [], { method => 'HEAD' }],
    ['unknown method', '/static/a.txt', [], { method => 'BREW' }],
    ['range', '/static/big', [], { headers => [Range => 'bytes=0-9'] }],
    ['no range', '/static/big', [], { headers => [Range => 'bytes=999999-'] }],
    ['condition', '/static/a.txt', [], { headers => ['If-None-Match' => '*'] }],
    ['bad host', '/', ['status 400'], { host => 'a/b' }],
    ['empty host', '/', ['status 400'], { host => '', status => 400 }],
    ['the other server', '/x?y', ['server second.test (exact name) LINE{server_name second.test}-2'], { host => 'second.test' }],
    ['wildcard', '/', ['server main.test (wildcard *.wild.test)'], { host => 'a.b.wild.test' }],
    ['wildcard behind', '/', ['server main.test (wildcard tail.*)'], { host => 'tail.org' }],
    ['name by regex', '/', ['server main.test (~^re(?<digits>\d+)\.test$ matches)'], { host => 're12.test' }],
    ['no such name', '/', ['server main.test (the default server: no name fits)'], { host => 'nobody.test' }],
    ['case and final dot', '/', ['server main.test (exact name)'], { host => 'MAIN.test.' }],
    ['upstream', '/up/x%20y/%2f?z=1', ['location /up/', 'proxy_pass http://backend/base/x%20y/?z=1 LINE{proxy_pass http://backend/base/}',
        'upstream backend (round robin, 3 servers) LINE{upstream backend}',
        'peer 127.0.0.1:' . $p->port('up') . ' weight=3, asked first LINE{weight=3}',
        '127.0.0.1:' . $p->port('up2') . ' backup', '127.0.0.1:' . $p->port('up3') . ' down',
        'error_page 502, if no server answers: @fallback'], { headers => ['X-Kind' => 'Ax', 'User-Agent' => 'me'] }],
    ['upstream as it is', '/plain/%41?b', ['proxy_pass http://127.0.0.1:' . $p->port('up') . '/plain/%41?b',
        'upstream 127.0.0.1:' . $p->port('up') . ' (1 server)']],
    ['a subrequest that refuses', '/auth/a.txt', ['#1 subrequest GET /check', '#1 location /check (longest prefix, no regex matches) LINE{location /check }',
        '#1 status 403 Forbidden'], { needs => 'auth_request' }],
    ['a subrequest to an upstream', '/authup/a.txt', ['#1 subrequest GET /checkup', '#1 proxy_pass http://backend/ok', '#1 status as the upstream answers (taken to be 200)',
        "file $dir/html/a.txt"], { needs => 'auth_request' }],
    ['mirror', '/mirror/a.txt', ['#1 subrequest GET /checkup (in the background)', '#1 proxy_pass http://backend/ok'], { needs => 'mirror' }],
    ['included', '/ssi/inc.html', ['#1 subrequest GET /static/a.txt', '#2 subrequest GET /checkup', "#1 file $dir/html/a.txt", '#2 status as the upstream answers'], { needs => 'ssi' }],
    ['a directory listed', '/list/', ['autoindex lists the directory LINE{location /list/}'], { needs => 'autoindex' }],
    ['status', '/stub', ['stub_status answers LINE{location = /stub}'], { needs => 'stub_status' }],
    ['a picture', '/gif', ['empty_gif answers LINE{location = /gif}'], { needs => 'empty_gif' }],
    ['another client', '/real/a.txt', ['set_real_ip_from lets 10.1.2.3 be the client LINE{location /real/}', 'access forbidden by "deny 10.0.0.0/8" LINE{location /real/}'],
        { headers => ['X-Real' => '10.1.2.3'], needs => 'set_real_ip_from' }],
    ['no password', '/basic/', ['auth_basic no user or password came for "auth_basic" LINE{location /basic/}'], { needs => 'auth_basic' }],
    ['a file to be written', '/dav/new.txt', ['dav_methods would write "' . $dir . '/html/new.txt" LINE{location /dav/}'],
        { method => 'PUT', body => 'x', needs => 'dav_methods', there => 'new.txt' }],
    ['a file to be replaced', '/dav/new.txt', ['dav_methods would replace "' . $dir . '/html/new.txt"'], { method => 'PUT', body => 'y', needs => 'dav_methods' }],
    ['a directory to be made', '/dav/made/', ['dav_methods would make "' . $dir . '/html/made"'], { method => 'MKCOL', needs => 'dav_methods', there => 'made' }],
    ['one that is there', '/dav/made/', ['log [error] mkdir()'], { method => 'MKCOL', needs => 'dav_methods' }],
    ['one in none', '/dav/none/made/', ['log [error] mkdir()'], { method => 'MKCOL', needs => 'dav_methods' }],
    ['a file to be copied', '/dav/new.txt', ['dav_methods would copy "' . $dir . '/html/new.txt"'],
        { method => 'COPY', headers => [Destination => '/dav/copied.txt'], needs => 'dav_methods', there => 'copied.txt' }],
    ['a file to be removed', '/dav/new.txt', ['dav_methods would remove "' . $dir . '/html/new.txt"'], { method => 'DELETE', needs => 'dav_methods', gone => 'new.txt' }],
    ['a file that is not there', '/dav/new.txt', [], { method => 'DELETE', needs => 'dav_methods' }],
    ['a body for the upstream', '/spool/', ['Content-Length: 5000'], { method => 'POST', body => 'x' x 5000 }],
);

my @origins = map { $p->echo_origin($_) } qw(up up2);
$p->start;
my $access = $p->access_log;

# What a line that says the step looks like.
sub step_re {
    my ($step) = @_;
    my $at = '';
    if ($step =~ s/ LINE\{(.*)\}(?:-(\d+))?$//) { $at = '\s+proxyd\.conf:' . (line($1) - ($2 || 0)) . '$' }
    my $re = quotemeta $step;
    $re =~ s/\\ /\\s+/g; # columns
    # A step has its word in front, or stands below one that has the same.
    return qr/^ +(?:\w+ +)?$re.*$at/m;
}

for (@table) {
    my ($name, $path, $steps, $o) = @$_;
    $o ||= {};
    next if $o->{needs} && !$p->has($o->{needs});
    my $host   = $o->{host} // 'main.test';
    my $method = $o->{method} || 'GET';
    my @h      = @{ $o->{headers} || [] };
    push @h, 'Content-Length', length $o->{body} if defined $o->{body};
    my @args = ('-X', $method);
    push @args, '-H', "Host: $host";
    for (my $i = 0; $i < @h; $i += 2) { push @args, '-H', "$h[$i]: $h[$i + 1]" }
    push @args, '--from', $o->{from} if $o->{from};
    my $e = explain("http://main.test:$port$path", @args);
    is $e->{status}, 0, "$name: explained" or diag $e->{err};
    is $e->{err}, '', "$name: nothing to complain about";
    like $e->{out}, step_re($_), "$name: $_" or diag $e->{out} for @$steps;
    unlike $e->{out}, qr/^ +(?:#\d+ )?(?!location|limit_except)\w+ +location /m, "$name: locations are called that";
    like $e->{out}, qr/^  listen +127\.0\.0\.1:$port +proxyd\.conf:\d+$/m, "$name: the address";
    is $e->{answer}, $o->{status}, "$name: the status" if $o->{status};
    ok !-e "$dir/html/$o->{there}", "$name: not done" if $o->{there};
    ok -e "$dir/html/$o->{gone}", "$name: not done" if $o->{gone};
    next if $o->{unseen} || $o->{slow};

    # What the server does.
    my $real = $p->request($method, $path, host => $host, headers => $o->{headers}, body => $o->{body});
    if ($e->{answer} eq 'upstream') {
        my $rep  = Proxyd::report($real);
        my @sent = $e->{out} =~ /^ +(?:send +)?((?:[\w-]+: |[A-Z]+ ).*)$/mg;
        my ($first) = $e->{out} =~ /^  send +(.*)$/m;
        is $first, "$rep->{method} $rep->{uri} HTTP/1.1", "$name: the request that is sent";
        for my $h (@{ $rep->{headers} }) {
            next if lc $h->[0] eq 'connection';
            ok scalar(grep { lc $_ eq lc "$h->[0]: $h->[1]" } @sent), "$name: sends $h->[0]: $h->[1]"
                or diag $e->{out};
        }
    } else {
        is $e->{answer}, $real->status, "$name: the status" or diag $e->{out};
        is $e->{fields}{location} ? $e->{fields}{location}[0] : undef, $real->header('Location'), "$name: Location";
    }
    is $e->{fields}{'x-loc'} ? $e->{fields}{'x-loc'}[0] : undef, $real->header('X-Loc'), "$name: X-Loc" or diag $e->{out};
}
like explain("http://main.test:$port/close")->{out}, qr/^  status +444: the connection is closed without an answer$/m, 'return 444';
is scalar(grep { /explain|127\.0\.0\.9/ } split /\n/, $p->access_log), 0, 'nothing of it in the access log';

# --- addresses --------------------------------------------------------------------------------------
my $many = $p->port('many');
for (['many.test', undef, '127.0.0.1', 'many', 2], ['third.test', undef, '127.0.0.3', 'third', 2],
    ['third.test', '127.0.0.2', '127.0.0.2', 'many'], ['many.test', "127.0.0.3:$many", '127.0.0.3', 'third'],
    ['127.0.0.3', undef, '127.0.0.3', 'third'])
{
    my ($host, $to, $addr, $loc, $others) = @$_;
    my $e = explain("http://$host:$many/", $to ? ('--to', $to) : ());
    my $about = "$host" . ($to ? " to $to" : '');
    like $e->{out}, qr/^  listen +\Q$addr:$many\E/m, "$about: $addr";
    is $e->{fields}{'x-loc'}[0], $loc, "$about: the server";
    is $e->{out} =~ /one of 3 on this port: --to ADDRESS chooses another/ ? 1 : 0, $others ? 1 : 0, "$about: is there a choice";
    my $s = $p->raw("$addr:$many", "GET / HTTP/1.1\r\nHost: $host\r\nConnection: close\r\n\r\n", count => 1)->{responses}[0];
    is $s && $s->header('X-Loc'), $loc, "$about: and really";
}
$r = explain("https://main.test:$port/static/a.txt");
is $r->{status}, 0, 'https where no TLS is spoken: status';
like $r->{out}, qr/^  note +no TLS is spoken here/m, 'https where no TLS is spoken: said';

# --- what cannot be explained -----------------------------------------------------------------------
for (["http://main.test:1/", qr/^proxyd: nothing listens on port 1; there is 127\.0\.0\.1:$port \(.*:\d+\), /],
    ["https://main.test/", qr/nothing listens on port 443; there is/],
    ["http://127.0.0.9:$port/", qr/nothing listens on 127\.0\.0\.9:$port; there is/],
    ['ftp://main.test/', qr/the URL's scheme "ftp" is neither http nor https/],
    ['http:///x', qr/no host in the URL/], ['/x', qr/no host in the URL/],
    ['http://main.test:x/', qr/invalid port "x" in the URL/], ['http://main.test:0/', qr/invalid port "0"/],
    ['http://main.test:65536/', qr/invalid port "65536"/], ['http://main.test:99999999999999999999/', qr/invalid port/],
    ['http://[::1/', qr/no "\]" behind the address/], ['http://[::1]x/', qr/something between "\]" and the port/],
    ['http://me@main.test/', qr/a user's name in the URL/],
    ["http://main.test:$port/a b", qr/a byte that ends a request line: write %20/],
    ["http://main.test:$port/a\r\nX: y", qr/write %0D/], ["http://main.test:$port/a\n", qr/write %0A/],
    ["http://main.test:$port/", qr/"a b" is no method/, '-X', 'a b'],
    ["http://main.test:$port/", qr/"GET\r\nX:" is no method/, '-X', "GET\r\nX:"],
    ["http://main.test:$port/", qr/invalid option: "-H : x"/, '-H', ': x'],
    ["http://main.test:$port/", qr/invalid option: "-H nothing"/, '-H', 'nothing'],
    ["http://main.test:$port/", qr/"a b: c" is no header field/, '-H', 'a b: c'],
    ["http://main.test:$port/", qr/the value of the field "A" holds a line end/, '-H', "A: b\r\nC: d"],
    ["http://main.test:$port/", qr/invalid address "x" of --from/, '--from', 'x'],
    ["http://main.test:$port/", qr/invalid address "x\.test" of --to/, '--to', 'x.test'],
    ["http://main.test:$port/", qr/nothing listens on 10\.0\.0\.1:$port; there is/, '--to', '10.0.0.1'],
    ["http://main.test:$port/", qr/options "--explain" and "-t" exclude each other/, '-t'])
{
    my ($url, $re, @args) = @$_;
    my $e = explain($url, @args);
    (my $about = "$url @args") =~ s/[\r\n]/./g;
    is $e->{status}, 1, "$about: status 1";
    like $e->{err}, $re, "$about: why";
    is $e->{out}, '', "$about: nothing on standard output";
}
for (['--from', '127.0.0.1'], ['--to', '127.0.0.1']) {
    like $p->run(args => ['-t', @$_])->{err}, qr/^proxyd: option "$_->[0]" requires "--explain"$/m, "$_->[0] alone";
}
for (qw(--explain --from --to)) {
    like $p->run(args => [$_, '--json'])->{err}, qr/^proxyd: option "$_" requires /m,
        "$_: an option is not its value";
}

# Anything that a client may send is explained, not more and not less.
for ("/\x{1}", '/%', '/%zz', '/%00', '/%0a%0d', '//', '/./..', '/' . 'a' x 9000, '/?' . 'q' x 40000, '/%c0%af', "/\xff\xfe", '/\\..\\',
    '/;#', '?', '#', '/static/%2e%2e/%2e%2e/etc/passwd', '/up/' . '%0d%0aX:%20y', '/name/?h=%0d%0a', '/name/?h=' . 'a' x 5000)
{
    my $e = explain("http://main.test:$port$_");
    my $about = substr $_, 0, 40;
    $about =~ s/[^ -~]/./g;
    if ($_ =~ /\x{1}/) { is $e->{status}, 1, "$about: refused"; next }
    is $e->{status}, 0, "$about: explained" or diag $e->{err};
    like $e->{out}, qr/^  status +\S/m, "$about: to its end";
    unlike $e->{out}, qr/[^\n -~\x80-\xff]/, "$about: nothing that a terminal takes for a command";
}
for (['Host' => ''], ['Host' => 'a:b:c'], ['Content-Length' => '-1'], ['Content-Length' => '99999999999999999999'], ['Transfer-Encoding' => 'chunked'],
    ['Transfer-Encoding' => 'x'], ['Expect' => '100-continue'], ['Connection' => 'upgrade'], ['X' => 'y' x 50000], ['Cookie' => "\xff\x80"])
{
    my $e = explain("http://main.test:$port/up/x", '-X', 'POST', '-H', "$_->[0]: $_->[1]");
    my $about = substr "$_->[0]: $_->[1]", 0, 40;
    is $e->{status}, 0, "$about: explained" or diag $e->{err};
    like $e->{out}, qr/^  status +\S/m, "$about: to its end";
}

# --- JSON -------------------------------------------------------------------------------------------
$r = explain("http://main.test:$port/access/a.txt", '--json', '--from', '127.0.0.9');
my $j = eval { JSON::PP->new->decode($r->{out}) } || {};
is $j->{method}, 'GET', 'JSON: method';
is $j->{status}, 403, 'JSON: status';
ok $j->{ok} && !$j->{upstream}, 'JSON: ok';
my ($step) = grep { $_->{what} eq 'access' } @{ $j->{steps} };
is_deeply $step, { request => 0, what => 'access', text => 'forbidden by "deny 127.0.0.9"', file => "$dir/proxyd.conf", line => line('deny 127.0.0.9') }, 'JSON: a step';
$j = eval { JSON::PP->new->decode(explain("http://main.test:$port/up/x", '--json')->{out}) } || {};
ok $j->{upstream} && exists $j->{status} && !defined $j->{status}, 'JSON: the upstream decides';
$r = explain('http://main.test:1/', '--json');
$j = eval { JSON::PP->new->decode($r->{out}) } || {};
ok $r->{status} == 1 && !$j->{ok}, 'JSON: not ok';
like $j->{error}, qr/^nothing listens on port 1;/, 'JSON: why';

# --- a configuration with an error, and none of http ------------------------------------------------
$p->write_file('bad.conf', "events {}\nhttp { nonsense on; }\n");
$r = $p->run(args => ['-p', "$dir/", '-c', 'bad.conf', '--explain', 'http://x/']);
is $r->{status}, 1, 'bad configuration: status';
like $r->{err}, qr/^proxyd: \[emerg\] unknown directive "nonsense" in .*bad\.conf:2$/m, 'bad configuration: said';
$p->write_file('none.conf', "events {}\n");
$r = $p->run(args => ['-p', "$dir/", '-c', 'none.conf', '--explain', 'http://x/']);
is $r->{status}, 1, 'no http block: status';
like $r->{err}, qr/^proxyd: the configuration has no "http" block$/m, 'no http block: said';

# --- the system calls -------------------------------------------------------------------------------
SKIP: {
    my ($strace) = grep { -x } map { "$_/strace" } split /:/, $ENV{PATH};
    skip 'strace is not installed', 1 unless $strace;
    skip 'a sanitizer makes calls of its own', 1 if Proxyd::sanitized();
    for my $path ('/up/x', '/static/a.txt', '/name/?h=some.test', '/threads/big', '/dead/', '/spool/') {
        my $out = "$dir/strace.out";
        my $pid = fork;
        if (!$pid) {
            open STDOUT, '>', '/dev/null';
            open STDERR, '>', "$dir/strace.err";
            exec $strace, '-f', '-o', $out, Proxyd::binary(), '-p', "$dir/", '-c', 'proxyd.conf', '--explain',
                "http://main.test:$port$path", ($path eq '/spool/' ? ('-X', 'POST', '-H', 'Content-Length: 5000') : ());
        }
        waitpid $pid, 0;
        my $calls = $p->read_file('strace.out') // '';
        skip 'strace may not trace', 1 unless $calls =~ /execve/;
        my @bad = grep { /^\d+ +(?:socket|socketpair|bind|listen|connect|accept4?|send\w*|recv\w*|clone3?|v?fork|kill|unlink\w*|rename\w*|mkdir\w*|link\w*|symlink\w*|chmod|f?chown\w*)\(/
            || (/^\d+ +(?:open|openat|creat)\(/ && /O_WRONLY|O_RDWR|O_CREAT/)
            || (/^\d+ +(?:write|pwrite64|writev|sendfile)\((\d+)/ && $1 > 2) } split /\n/, $calls;
        is_deeply \@bad, [], "$path: no call that binds, connects, sends, forks or writes";
    }
}

# --- as nobody, who may write nowhere ---------------------------------------------------------------
SKIP: {
    skip 'not the super-user', 1 if $> != 0;
    my $uid = getpwnam('nobody');
    my $pid = fork;
    if (!$pid) {
        open STDOUT, '>', "$dir/nobody.out";
        open STDERR, '>', "$dir/nobody.err";
        $) = $( = 65534;
        $> = $< = $uid;
        exec Proxyd::binary(), '-p', "$dir/", '-c', 'proxyd.conf', '--explain', "http://main.test:$port/static/a.txt";
    }
    waitpid $pid, 0;
    is $?, 0, 'as nobody: status' or diag $p->read_file('nobody.err');
    like $p->read_file('nobody.out'), qr/^  status +200 OK$/m, 'as nobody: explained';
}
$p->stop;
done_testing;
