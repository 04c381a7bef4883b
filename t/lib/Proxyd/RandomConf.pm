# SPDX-License-Identifier: BSD-2-Clause
#
# Makes small configurations and requests by chance, always the same for the same seed: servers with
# nested locations in which the directives that get in each other's way meet (rewrite, if, set,
# return, error_page, try_files, index, add_header, filters, access rules, proxy_pass).  What it
# writes is valid for nginx 1.22, and nothing in it depends on time, on the process or on the disk
# but for the files that files() names.
package Proxyd::RandomConf;

use strict;
use warnings;

sub pick   { return $_[int rand @_] }
sub chance { return rand() < $_[0] }
sub some   { my ($most, @of) = @_; return map { pick(@of) } 1 .. 1 + int rand $most }

sub files {
    my %f = map { ($_ => "<$_> one One two three\n") } qw(index.html a.txt b.html a/index.html a/b.txt a/b/c.html
        b/a.html b/index.txt c/x e.html a/a/a.txt);
    $f{'ssi.html'} = $f{'a/ssi.html'} = 'S<!--#echo var="uri"-->|<!--#echo var="args"-->|<!--#include virtual="/a.txt"-->|'
        . '<!--#include virtual="/a/b.txt?in=1"-->|<!--#if expr="$arg_x = /(\w)/"-->t<!--#else-->f<!--#endif-->one';
    $f{'empty.html'} = '';
    $f{htpasswd} = "user:{PLAIN}pass\nother:{SHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g=\n";
    $f{'sp ace.txt'} = "sp one\n";
    return \%f;
}

# What stands in http {} beside the servers.
sub common {
    return <<'EOC';
    types { text/html html; text/plain txt; }
    default_type application/x-def;
    proxy_http_version 1.1;
    proxy_set_header Connection "";
    map $uri $m1 { default d; /a/ slash; ~^/b beta; ~\.txt$ txt; }
    map $arg_x $m2 { default $arg_y; 1 one; 2 $uri; "" none; }
    map $arg_y $mv { volatile; default "$uri-$args"; 1 ""; }
    geo $http_x_geo $g { default out; 10.0.0.0/8 ten; 10.1.0.0/16 tenone; }
    split_clients $uri $sc { 30% three; * rest; }
    upstream app { server 127.0.0.1:{{port:app}}; keepalive 8; }
    log_format rnd '$http_x_id|$status|$uri|$args|$request_method'
        '|$upstream_status|$request_uri|$remote_addr|$remote_user|$v1|$v2|$http_host|$upstream_http_x_app';
    access_log {{dir}}/access.log rnd;
EOC
}

our $in_if;
our %named;

sub literal { return pick(qw(x one /a /b/ a.txt 1 2), '', '-') }

sub variable {
    return pick(qw($uri $args $arg_x $arg_y $1 $2 $v1 $v2 $request_uri $document_root $host $is_args
        $request_method $g $http_x_a $cookie_k $m2 $mv $g $sc $query_string $realpath_root $scheme $remote_user
        $status $sent_http_x_1 $content_type $document_uri $server_name $remote_addr $http_referer $invalid_referer
        $content_length $upstream_status $upstream_http_x_app $server_protocol $request
        $limit_rate $request_completion $proxy_host $proxy_add_x_forwarded_for $http_cookie $secure_link $auth1));
}

sub value {
    my $r = rand;
    return '"' . literal() . '"' if $r < 0.2;
    return variable() if $r < 0.45;
    my $v = join pick('', '-', '|', '/'), map { chance(0.6) ? braced(variable()) : literal() } 1 .. 1 + int rand 3;
    return "\"$v\"";
}

sub braced { my ($v) = @_; return $v =~ s/^\$([a-z]\w*)$/\${$1}/r }

sub path { return '/' . join('/', map { pick(qw(a b c)) } 1 .. 1 + int rand 2) . pick('', '', '/', '.txt', '.html') }

sub known_path {
    return pick(qw(/ /index.html /a.txt /b.html /a/ /a/b.txt /a/b/c.html /b/a.html /b/ /a /ssi.html /e.html /empty.html /none /c/x /a/a/a.txt),
        path());
}

sub regex {
    return pick('^/(\w+)', '^/a/(.*)$', '^/(a|b)/(.*)$', '/(.*)\.txt$', '(?i)A', '^(.*)$', '^/b', '.', '"^/(.{1,3})/"', '^/(?<n1>\w+)/', 'zzz', '^/([^/]*)/([^/]*)',
        '^/a', '"^/\w{1}/?$"');
}

sub replacement {
    return pick('/a/$1', '/$2/$1', '/a.txt', '/b/$1?k=$2', '/a/?', '/$1?$args', '/$1?x=1&y=$arg_x', '$1', '/b$uri', '/c', '/a/b.txt', '/$1.html', '/e.html?',
        'http://h.test/$1', 'https://h.test$request_uri?', '$scheme://h.test/$1', '/$v1/$1', '$uri.txt', '/$1%20$2', '"/a b/$1"', '/b/?z=$uri', known_path());
}

sub r_rewrite {
    return 'rewrite ' . regex() . ' ' . replacement() . pick('', '', ' last', ' last', ' break', ' break', ' redirect', ' permanent') . ';';
}
sub r_set { return 'set ' . pick('$v1', '$v1', '$v2', '$v2', '$args') . ' ' . value() . ';' }
sub r_break { return 'break;' }

sub r_return {
    my $r = rand;
    return 'return ' . pick(200, 404, 403, 410, 503, 201, 400, 418) . ' ' . value() . ';' if $r < 0.4;
    return 'return ' . pick(404, 403, 500, 204, 410, 503, 401, 405, 413, 200, 416, 502) . ';' if $r < 0.7;
    return 'return ' . pick(301, 302, 303, 307, 308) . ' ' . pick('/a', '/b/?x=$arg_x', '$request_uri', 'http://h.test$uri', '$v1', '"$1"', '/$m1', '//x', 'rel', '""') . ';';
}

sub condition {
    return pick('$arg_x', '$arg_x = 1', '$arg_x != 1', '$uri ~ ' . pick('^/a', '^/(\w)', '\.txt$', '(.)/(.)', '"^/(.{2})"'), '$uri !~ ^/b', '$http_x_a ~* ^(F)o', '$arg_y !~* z',
        '$request_method = POST', '-f $request_filename', '!-f $request_filename', '-d $request_filename', '!-e $request_filename', '-e $document_root$uri',
        '$v1', '$v1 = $v2', '$v1 = x', '$m1 = txt', '$g = ten', '$args ~ x=(\d)', '$invalid_referer', '$cookie_k ~ (.+)');
}

sub r_if {
    my ($depth) = @_;
    local $in_if = 1;
    my @b = map { chance(0.6) || !$named{location} ? rewriting(1) : in_if() } 1 .. 1 + int rand 3;
    my %seen;
    @b = grep { single($_, \%seen) } @b;
    return 'if (' . condition() . ') { ' . join(' ', @b) . ' }';
}

# Whether a directive that may stand but once in a block is here for the first time.
sub single {
    my ($d, $seen) = @_;
    my ($name) = $d =~ /^(\w+)/;
    return 1 if $name =~ /^(?:rewrite|set|if|return|break|add_header|error_page|sub_filter|allow|deny|index|auth_request_set|add_trailer|proxy_set_header|proxy_hide_header)$/;
    $name = 'root' if $name eq 'alias';
    return !$seen->{$name}++;
}

sub rewriting {
    my ($no_if) = @_;
    my $r = rand;
    return r_rewrite() if $r < 0.4;
    return r_set() if $r < 0.6;
    return r_if() if $r < 0.8 && !$no_if;
    return r_return() if $r < 0.93;
    return r_break();
}

sub target { return pick('/e.html', '/a.txt', '/b/', '/none', '@n1', '@n2', known_path(), '/a/b.txt?e=1', '/a/$arg_x', '/b/$1', '/e/$status') }

sub r_error_page {
    my @codes = some(3, 403, 404, 404, 404, 405, 410, 500, 502, 503, 301, 302, 401, 400, 413, 416, 418, 405);
    my $how = pick('', '', '', ' =', ' =', ' =200', ' =403', ' =404', ' =301', ' =503', ' =204');
    my $to = chance(0.1) ? pick('http://h.test/e', 'https://h.test$uri') : target();
    return "error_page @codes$how $to;";
}

sub r_try_files {
    my @f = some(3, '$uri', '$uri', '$uri/', '$uri.html', '/a$uri', '/$arg_x', '$uri$is_args', '/none', '"$v1"', '/b/', '$1', '/e.html', '$uri/index.html');
    return "try_files @f " . pick('=404', '=404', '=403', '=410', '=503', '@n1', '@n2', '/a.txt', '/e.html?$args', '/b/', '$uri.txt', '/$arg_x', '/none') . ';';
}

sub r_header {
    return 'add_header X-' . pick(1, 1, 2, 3) . ' ' . value() . pick('', '', '', ' always') . ';' if chance(0.75);
    return 'add_header ' . pick('Cache-Control no-store', 'Last-Modified ""', 'ETag x', 'Content-Type x/y', 'Location /hm', 'Set-Cookie "a=$arg_x"', 'Last-Modified $http_x_a', 'Link "</x>"', 'Cache-Control "public"',
        'Vary X-A', 'Server x', 'Date y', 'Accept-Ranges none', 'Content-Encoding own')
        . pick('', ' always') . ';';
}

sub r_proxy {
    my $to = $in_if ? pick('http://app', 'http://127.0.0.1:{{port:app}}', 'http://app$uri', 'http://app/v$request_uri', 'http://app$1')
        : pick('http://app', 'http://app', 'http://app/', 'http://app/z/', 'http://app/z', 'http://app$uri', 'http://app$request_uri', 'http://app/y$is_args$args', 'http://$v1', 'http://127.0.0.1:{{port:app}}/s/');
    $to = 'http://app' if $to =~ m{^http://(?:127\S*|app)/} && $to !~ /\$/ && ($in_if || $named{now});
    $to = 'http://app' if $to eq 'http://$v1';
    return "proxy_pass $to;";
}

# What may stand in "if" in a location.
sub in_if {
    while (1) {
        my $d = plain();
        return $d if $d =~ /^(?:add_header|add_trailer|error_page|proxy_pass|expires|root|charset|ssi) /;
    }
}

# Directives that are no steps of rewriting.
sub plain {
    my $r = rand;
    return r_header() if $r < 0.22;
    return r_error_page() if $r < 0.34;
    return r_proxy() if $r < 0.40 && $named{location};
    return 'expires ' . pick('-1', 'epoch', 'off', 'max', '$v1', '$arg_x') . ';' if $r < 0.44;
    return 'root {{dir}}/html' . pick('', '/a', '/b/', '$document_uri', '/$arg_x', '/$g') =~ s/\$document_uri/\/none/r . ';' if $r < 0.49;
    return 'default_type ' . pick('text/html', 'text/plain', 'x/y', '""') . ';' if $r < 0.52;
    return 'charset ' . pick('utf-8', 'koi8-r', 'off', '$g') . ';' if $r < 0.56;
    return 'sub_filter ' . pick("one 1", "'<' '['", 'ONE ""', '$arg_x "$uri!"', "two '\$1'") . ';' if $r < 0.62;
    return 'sub_filter_once ' . pick('on', 'off') . ';' if $r < 0.64;
    return 'sub_filter_types ' . pick('text/plain', '*', 'x/y') . ';' if $r < 0.65;
    return 'sub_filter_last_modified on;' if $r < 0.66;
    return 'etag off;' if $r < 0.67;
    return 'ssi on;' if $r < 0.70;
    return 'add_before_body ' . pick('/a.txt', '/a/b.txt?ab=1', '/none', '""') . ';' if $r < 0.72;
    return 'add_after_body ' . pick('/a.txt', '/b/a.html', '""') . ';' if $r < 0.74;
    return 'absolute_redirect ' . pick('on', 'off') . ';' if $r < 0.76;
    return 'proxy_intercept_errors on;' if $r < 0.78;
    return 'recursive_error_pages on;' if $r < 0.80;
    return 'proxy_redirect ' . pick('off', 'http://app/ /fr/', 'http://app/ $uri/', '~^http://(\w+)/(.*)$ /$1-$2') . ';' if $r < 0.82;
    return 'max_ranges ' . pick(0, 1, 2) . ';' if $r < 0.83;
    return 'if_modified_since ' . pick('off', 'before') . ';' if $r < 0.84;
    return 'server_name_in_redirect on;' if $r < 0.85;
    return 'port_in_redirect off;' if $r < 0.86;
    return 'add_trailer X-T ' . value() . ';' if $r < 0.87 ;
    return 'types { ' . pick('text/plain html; text/html txt;', 'a/b txt;', '') . ' }' if $r < 0.89;
    return 'valid_referers ' . pick('none h.test', 'none blocked *.h.test', 'h.test', 'server_names', '~h\.', '*.test/a none') . ';' if $r < 0.91;
    return r_access();
}

sub r_access {
    my $r = rand;
    return pick('allow', 'deny') . ' ' . pick('all', '127.0.0.1', '10.0.0.0/8', '10.1.1.1', '::1') . ';' if $r < 0.4;
    return 'satisfy ' . pick('any', 'all') . ';' if $r < 0.52;
    return 'auth_basic ' . pick('off', '"r $arg_x"', 'realm') . ';' if $r < 0.62;
    return 'auth_request ' . pick('/auth/200', '/auth/403', '/auth/401', '/auth/500', '/auth/302', 'off', '/authp') . ';' if $r < 0.72;
    return 'auth_request_set $auth1 ' . pick('$upstream_http_x_app', '$upstream_status', '$uri') . ';' if $r < 0.78;
    return 'client_max_body_size ' . pick(2, 4, 0) . ';' if $r < 0.82;
    return 'internal;' if $r < 0.85 && $named{location};
    return 'real_ip_header ' . pick('X-Geo', 'X-Real-IP', 'X-Forwarded-For') . '; set_real_ip_from 127.0.0.1;' if $r < 0.88 && !$named{location};
    return 'chunked_transfer_encoding off;' if $r < 0.89;
    return 'proxy_set_header ' . pick('Host $v1', 'X-U $uri', 'X-A ""', 'X-1 $1') . ';' if $r < 0.94;
    return 'proxy_hide_header ' . pick('X-App', 'ETag', 'Content-Type') . ';' if $r < 0.96;
    return 'proxy_method ' . pick('POST', 'GET', '$arg_x') . ';' if $r < 0.97;
    return 'proxy_pass_request_body off;' if $r < 0.98;
    return 'log_not_found off;';
}

sub contents {
    my ($level, $prefix) = @_;
    my @d = map { chance(0.45) ? rewriting() : plain() } 1 .. int rand 6;
    push @d, 'index ' . join(' ', some(2, 'index.html', 'none.html', 'index.txt', '$g', 'a.html', '/a.txt')) . ';' if chance(0.15);
    push @d, 'autoindex on;' if chance(0.05) && $prefix ne '~';
    push @d, r_try_files() if chance($level ? 0.2 : 0.06);
    if ($level && $prefix ne '@') {
        push @d, 'alias {{dir}}/html' . ($prefix eq '~' ? pick('/$1', '/a/$1', '/') : pick('/', '/a/', '/b', '')) . ';' if chance(0.1) && !grep { /^(?:root|proxy_pass)/ } @d;
        push @d, 'limit_except ' . pick('GET', 'GET POST', 'PUT') . ' { ' . pick('deny all;', 'allow 10.0.0.0/8; deny all;', 'auth_basic r;', 'deny 127.0.0.1;') . ' }' if chance(0.05);
    }
    @d = grep { !/^try_files.*\$uri\.txt;$/ } @d if grep { /^alias/ } @d;
    my %seen;
    @d = grep { single($_, \%seen) } @d;
    return @d;
}

# A location below PREFIX (which begins with the name of its parent).
sub location {
    my ($level, $parent, $names) = @_;
    my $r = rand;
    my ($head, $kind, $below);
    if ($r < 0.25 || $parent eq '~') {
        $head = pick('~ ^/a/(\w+)', '~ ^/(\w)(.*)$', '~ \.txt$', '~* \.HTML$', '~ ^/b/(?<n1>.*)$', '~ /(.)/', '~ "^/(.{1,4})$"', '~ (a)');
        ($kind, $below) = ('~', '~');
    }
    else {
        my $path = $parent . pick(qw(a b c a/ b/ e), '', 'a/b', 'a.txt', 'b/a.html');
        $path = "/$path" unless $path =~ m{^/};
        $path =~ s{//}{/}g;
        my $mod = pick('', '', '', '', '= ', '^~ ');
        ($head, $kind, $below) = ("$mod$path", $mod, $mod eq '= ' ? undef : $path);
    }
    return () if $names->{$head =~ s/^\^~ //r}++;
    local $named{location} = 1;
    local $named{now} = $kind eq '~';
    my @d = contents($level, $kind);
    if (defined $below && $level < 3 && chance(0.25)) {
        my %inner;
        push @d, map { location($level + 1, $below, \%inner) } 1 .. 1 + int rand 2;
    }
    return "location $head { " . join(' ', @d) . ' }';
}

# The server called NAME.
sub server {
    my ($name) = @_;
    local $in_if = 0;
    local %named = ();
    my @d = ('listen 127.0.0.1:{{port}};', "server_name $name;", 'root {{dir}}/html;', 'auth_basic_user_file {{dir}}/html/htpasswd;',
        'set $v1 x; set $v2 ""; set $auth1 a;');
    my @own = grep { !/^(?:root|chunked)/ && (!/^(?:return|rewrite|try_files|deny)/ || chance(0.15)) } contents(0, '');
    push @d, @own;
    my %names = ('/auth/' => 1);
    push @d, map { location(1, '/', \%names) } 1 .. 2 + int rand 5;
    for my $n (qw(@n1 @n2)) {
        local $named{location} = 1;
        local $named{now} = 1;
        push @d, "location $n { " . join(' ', grep { !/^(?:alias)/ } contents(1, '@')) . ' }';
    }
    push @d, 'location ^~ /auth/ { location = /auth/200 { return 200; } location = /auth/403 { return 403; } location = /auth/401 { add_header WWW-Authenticate own always; return 401; } '
        . 'location = /auth/500 { return 500; } location = /auth/302 { return 302 /x; } } location = /authp { internal; proxy_pass http://app; proxy_pass_request_body off; proxy_set_header Content-Length ""; }';
    return "server {\n    " . join("\n    ", @d) . "\n    }\n";
}

sub escaped { my ($p) = @_; return chance(0.1) ? $p =~ s/([a-z])/sprintf '%%%02x', ord $1/er : $p }

# A request to the server called NAME: [bytes, [method]].
sub request {
    my ($name, $id) = @_;
    my $method = pick(('GET') x 8, 'HEAD', 'POST', 'POST', pick(qw(PUT DELETE OPTIONS)));
    my $uri = escaped(known_path());
    $uri .= pick('/', '/b', '.txt', '%20x', '/../b', '//a', '/./', '/b/%2e%2e', '%2Fb', '/index.html') if chance(0.2);
    $uri =~ s{^//\.\.}{/..x};    # no URI at all: there the default server answers, here the named one
    $uri .= '?' . join '&', some(3, 'x=1', 'x=2', 'x=a', 'y=1', 'y=b', 'k', 'x=a.txt', 'y=%20', '', 'x=b/a.html') if chance(0.5);
    my $host = pick(($name) x 6, uc $name, "$name:81", "$name.");
    my @h = ("X-Id: $id");
    push @h, pick('Range: bytes=0-3', 'Range: bytes=-2', 'Range: bytes=1-2,4-5', 'If-None-Match: *', 'If-Match: "x"',
        'If-Modified-Since: Fri, 14 Jul 2017 02:40:00 GMT', 'If-Unmodified-Since: Thu, 13 Jul 2017 02:40:00 GMT') if chance(0.15);
    push @h, 'Referer: ' . pick('http://h.test/x', 'http://a.test/a', 'nonsense', 'http://' . $name) if chance(0.15);
    push @h, 'Cookie: ' . pick('k=v', 'k=a; j=b', 'j=b') if chance(0.15);
    push @h, 'X-A: ' . pick('foo', 'Fob', 'Fri, 14 Jul 2017 02:40:00 GMT') if chance(0.2);
    push @h, pick('X-Geo', 'X-Real-IP', 'X-Forwarded-For') . ': ' . pick('10.1.1.1', '10.2.2.2', '8.8.8.8', 'bad') if chance(0.3);
    push @h, 'Authorization: Basic ' . pick('dXNlcjpwYXNz', 'dXNlcjp4', 'b3RoZXI6dGVzdA==', '!!') if chance(0.3);
    push @h, 'Connection: close' if chance(0.05);
    my $version = chance(0.05) ? '1.0' : '1.1';
    my $body = $method =~ /P(?:OS|U)T/ && chance(0.8) ? pick('', 'x', 'x=1&y=2') : undef;
    push @h, 'Content-Length: ' . length $body if defined $body;
    return [join("\r\n", "$method $uri HTTP/$version", "Host: $host", @h, '', defined $body ? $body : ''), [$method]];
}

# An origin whose answers depend on the request alone.
sub application {
    my ($c) = @_;
    while (my $q = $c->request) {
        my $host = $q->{h}{host} // '-';
        $host = 'HOST' if $host =~ /:/;
        my $shown = join ' ', map { "$_=" . ($q->{h}{$_} // '-') } qw(x-u x-a x-1 content-length);
        $q->{uri} =~ s/ /%20/g;
        my $body = "$q->{method} $q->{uri} [$q->{body}] $host $shown one\n";
        my ($status, $more) = ('200 OK', "X-App: 1\r\n");
        my $n = unpack '%8C*', $q->{uri};
        if ($n % 7 == 1) { $status = '404 Not Found' }
        if ($n % 7 == 2) { ($status, $more) = ('302 Found', "Location: http://app/l?q\r\n") }
        if ($n % 7 == 3) { ($status, $more) = ('503 Oops', "X-App: 3\r\n") }
        if ($n % 7 == 4) { $more .= "ETag: \"e\"\r\nLast-Modified: Fri, 14 Jul 2017 02:40:00 GMT\r\n" }
        if ($n % 7 == 5) { $more .= "X-Accel-Redirect: " . ($n % 2 ? '/a.txt' : '@n1') . "\r\n" }
        my $chunked = $n % 3 == 0;
        my $out = "HTTP/1.1 $status\r\nContent-Type: " . ($n % 2 ? 'text/html' : 'text/plain') . "\r\n$more";
        $out .= $chunked ? "Transfer-Encoding: chunked\r\n\r\n" : 'Content-Length: ' . length($body) . "\r\n\r\n";
        if ($q->{method} ne 'HEAD') {
            $out .= $chunked ? sprintf("%x\r\n%s\r\n0\r\n\r\n", length $body, $body) : $body;
        }
        $c->write($out);
    }
}

1;
