# SPDX-License-Identifier: BSD-2-Clause
#
# rewrite, return, set, if, break: the same configuration run by nginx and by the server under test,
# answers field for field, and the lines of the error log (rewrite_log, uninitialized variables,
# cycles) word for word.
#
# Excluded, as wanted differences: relative paths in -f (the prefix here, the working directory
# there); a 304 has no Content-Length here; a map that sets captures in the midst of a text is 500 there;
# return 494 closes the connection here.
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
error_log {{dir}}/error.log notice;
http {
    types { text/html html; text/plain txt; application/json json; }
    default_type application/octet-stream;
    proxy_http_version 1.1;
    proxy_set_header Connection "";
    rewrite_log on;
    root {{dir}}/html;
    map $arg_m $mapped { default none; ~^(?<named>x+)(y*)$ "$1-$2-$named"; }

    server {
        listen 127.0.0.1:{{port}} default_server;
        server_name main.test;
        location = /show { return 200 "show $uri|$args|$1|$2\n"; }
        location /show/ { return 200 "show/ $uri|$args|$request_uri|$1|$2\n"; }
        location @named { return 200 "named $uri|$args\n"; }
        location @rename { rewrite ^/(.*)$ /show/r/$1 last; return 500; }
        location @rebreak { rewrite ^/(.*)$ /a.txt break; }

        # flags
        location /last/ { rewrite ^/last/(.*)$ /show/$1 last; return 500; }
        location /break/ { rewrite ^/break/(.*)$ /$1 break; return 200 "not reached"; }
        location /none/ { rewrite ^/none/(.*)$ /show/1/$1; rewrite ^/show/1/(.*)$ /show/2/$1; }
        location /noneret/ { rewrite ^/noneret/(.*)$ /show/1/$1; return 200 "ret $uri|$1\n"; }
        location /nonebreak/ { rewrite ^/nonebreak/(.*)$ /$1; break; return 500; }
        location /redir/ { rewrite ^/redir/(.*)$ /x/$1 redirect; return 500; }
        location /perm/ { rewrite ^/perm/(.*)$ /x/$1?n=1 permanent; }
        location /permq/ { rewrite ^/permq/(.*)$ /x/$1? permanent; }
        location /permqq/ { rewrite ^/permqq/(.*)$ /x/$1?a=$1? permanent; }
        location /http/ { rewrite ^/http/(.*)$ http://h.test/$1; return 500; }
        location /https/ { rewrite ^/https/(.*)$ https://h.test/$1 permanent; }
        location /scheme/ { rewrite ^/scheme/(.*)$ $scheme://h.test/$1 last; return 500; }
        location /httplast/ { rewrite ^/httplast/(.*)$ http://h.test/$1 break; }
        location /requri/ { rewrite ^ https://h.test$request_uri? permanent; }
        location /requri2/ { rewrite ^ https://h.test$request_uri permanent; }
        location /varurl/ { set $to http://v.test/; rewrite ^/varurl/(.*)$ $to$1 redirect; }
        location /varurl2/ { set $to http://v.test/; rewrite ^/varurl2/(.*)$ $to$1 last; }
        location /rel/ { rewrite ^/rel/(.*)$ $1 redirect; }
        location /rellast/ { rewrite ^/rellast/(.*)$ show/$1 last; }

        # arguments
        location /args1/ { rewrite ^/args1/(.*)$ /show/?p=$1 last; }
        location /args2/ { rewrite ^/args2/(.*)$ /show/?p=$1? last; }
        location /args3/ { rewrite ^/args3/(.*)$ /show/$1? last; }
        location /args4/ { rewrite ^/args4/(.*)$ /show/?p=$1&q=$arg_q last; }
        location /args5/ { rewrite ^/args5/(.*)$ /show/?a=1?b=$1 last; }
        location /args6/ { set $v "/show/?x=1"; rewrite ^/args6/(.*)$ $v last; }
        location /args7/ { rewrite ^/args7/(.*)$ /show/?$args last; }
        location /args8/ { rewrite ^ /show/?? last; }
        location /args9/ { set $args "n=$arg_o"; rewrite ^/args9/(.*)$ /show/$1 last; }
        location /setargs/ { set $args "a=b&c"; return 200 "$args|$is_args|$request_uri|$arg_a\n"; }

        # the URI
        location /zero/ { rewrite ^/zero/(.*)$ $2; }
        location /zerobreak/ { rewrite ^/zerobreak/(.*)$ $2 break; }
        location /onlyq/ { rewrite ^/onlyq/(.*)$ ? last; }
        location /cycle/ { rewrite ^/cycle/(.*)$ /cycle/x$1 last; }
        location /cycle2/ { rewrite ^/cycle2/(.*)$ /cycle3/$1; }
        location /cycle3/ { rewrite ^/cycle3/(.*)$ /cycle2/$1; }
        location /ten1/ { rewrite "^/ten1/(x{0,8})$" /ten1/x$1 last; return 200 "ten $uri\n"; }
        location /ten2/ { rewrite "^/ten2/(x{0,9})$" /ten2/x$1 last; return 200 "ten $uri\n"; }
        location /case/ { rewrite (?i)^/CASE/(.*)$ /show/$1 last; }
        location /quant/ { rewrite "^/quant/(\d{2})/(\d{3})$" /show/$2-$1 last; return 404; }
        location /name/ { rewrite ^/name/(?<first>[^/]+)/(?<second>.*)$ /show/$second/$first last; }
        location /setcap/ { if ($uri ~ ^/setcap/(.*)$) { set $kept $1; } rewrite ^/(s)(e).*$ /show/$kept/$1$2 last; }
        location /lost/ { if ($uri ~ ^/lost/(.*)$) { } rewrite ^/nothing$ /x; return 200 "<$1>\n"; }
        location /nogroup/ { if ($uri ~ ^/nogroup/(.*)$) { } if ($uri ~ nogroup) { } return 200 "<$1>\n"; }
        location ~ ^/loccap/(\w+)/(\w+) { return 200 "$1 $2\n"; }
        location ~ ^/loccap2/(\w+)/(\w+) { if ($arg_x ~ (.)(.)) { return 200 "if $1 $2\n"; } return 200 "out <$1> <$2>\n"; }
        location /mapcap/ { if ($uri ~ ^/mapcap/(.*)$) { } return 200 "$1 $mapped $1 $2\n"; }

        # return
        location /ret/0 { return 0; }
        location /ret/1 { return 1 text; }
        location /ret/99 { return 99; }
        location /ret/100 { return 100; }
        location /ret/150 { return 150 hm; }
        location /ret/199 { return 199 hm; }
        location /ret/200 { return 200; }
        location /ret/200e { return 200 ""; }
        location /ret/200v { return 200 $arg_none; }
        location /ret/201 { return 201 /created; }
        location /ret/202 { return 202 "a$uri"; }
        location /ret/204t { return 204; }
        location /ret/206 { return 206 part; }
        location /ret/299 { return 299 own; }
        location /ret/300 { return 300 many; }
        location /ret/301 { return 301; }
        location /ret/301t { return 301 http://h.test/$arg_a; }
        location /ret/301e { return 301 ""; }
        location /ret/301r { return 301 rel; }
        location /ret/302 { return 302 /a?b=c; }
        location /ret/303 { return 303 //x/y; }
        location /ret/304 { return 304; }
        location /ret/305 { return 305 x; }
        location /ret/307 { return 307 /t; }
        location /ret/308 { return 308 /p; }
        location /ret/399 { return 399 x; }
        location /ret/400 { return 400 bad; }
        location /ret/404e { return 404 ""; }
        location /ret/404v { return 404 $arg_none; }
        location /ret/404 { return 404; }
        location /ret/404t { return 404 "gone $uri"; }
        location /ret/444 { return 444; }
        location /ret/444t { return 444 text; }
        location /ret/494 { return 494; }
        location /ret/495 { return 495; }
        location /ret/497 { return 497; }
        location /ret/499 { return 499; }
        location /ret/503 { return 503 "wait"; }
        location /ret/600 { return 600; }
        location /ret/600t { return 600 big; }
        location /ret/999 { return 999; }
        location /ret/url { return http://h.test/$arg_a; }
        location /ret/urls { return https://h.test/; }
        location /ret/scheme { return $scheme://h.test$request_uri; }
        location /ret/nl { return 200 "a\nb\tc\\d\"e"; }
        location /ret/json.json { return 200 "{}"; }
        location /ret/x.txt { return 200 "t"; }
        location /ret/type { default_type text/css; return 200 "t"; }
        location /ret/err { error_page 404 /errpage; return 404; }
        location /ret/errcode { error_page 404 =200 /errpage; return 404; }
        location /ret/errtext { error_page 404 /errpage; return 404 text; }
        location /ret/errredir { error_page 301 /errpage; return 301 /else; }
        location = /errpage { return 200 "errpage $status $uri\n"; }
        location /ret/errfail { error_page 404 /errfail; return 404; }
        location = /errfail { return 403; }
        location /ret/errfailt { error_page 404 /errfailt; return 404; }
        location = /errfailt { return 403 "text $uri"; }
        location /ret/errredirect { error_page 404 /errredirect; return 404; }
        location = /errredirect { return 302 /off; }
        location /ret/errrw { error_page 404 /errrw; return 404; }
        location = /errrw { rewrite ^ /show?x=1 redirect; }
        location /ret/codestatus { error_page 404 =403 /show?s=$status; return 404; }
        location /ret/err204 { error_page 404 =200 /ret/204t; return 404; }
        location /ret/code204 { error_page 404 =204 /ret/200; return 404; }
        location /ret/code204t { error_page 404 =204 /ret/204type; return 404; }
        location /ret/204type { add_header Content-Type x/y; charset utf-8; return 200 text; }
        location /ret/err204none { error_page 404 /ret/204t; return 404; }
        location /ret/errapp { error_page 302 = @app; return 302 /there; }
        location @app { proxy_pass http://127.0.0.1:{{port:app}}; }
        location /dot/ { rewrite ^/dot/(.*)$ /dotted/$1 last; }
        location /dotted/ { return 200 ok; }
        location /ret/named { error_page 404 = @rename; return 404; }
        location /ret/rebreak { error_page 404 = @rebreak; return 404; }

        # if
        location /if/eq { if ($arg_a = b) { return 200 yes; } return 200 no; }
        location /if/ne { if ($arg_a != b) { return 200 yes; } return 200 no; }
        location /if/eqv { if ($arg_a = "$arg_b") { return 200 yes; } return 200 no; }
        location /if/eqe { if ($arg_a = "") { return 200 yes; } return 200 no; }
        location /if/true { if ($arg_a) { return 200 yes; } return 200 no; }
        location /if/re { if ($arg_a ~ ^b+$) { return 200 yes; } return 200 no; }
        location /if/rei { if ($arg_a ~* ^b+$) { return 200 yes; } return 200 no; }
        location /if/nre { if ($arg_a !~ ^b+$) { return 200 yes; } return 200 no; }
        location /if/nrei { if ($arg_a !~* ^b+$) { return 200 yes; } return 200 no; }
        location /if/paren { if ( $arg_a = b ) { return 200 yes; } return 200 no; }
        location /if/quoted { if ($arg_a ~ "^(b|c)$") { return 200 "yes $1"; } return 200 no; }
        location /if/group { if ($arg_a ~ (b|c)) { return 200 "yes $1"; } return 200 no; }
        location /if/and { if ($arg_a = and) { return 200 yes; } return 200 no; }
        location /if/f { if (-f $document_root/$arg_a) { return 200 yes; } return 200 no; }
        location /if/nf { if (!-f $document_root/$arg_a) { return 200 yes; } return 200 no; }
        location /if/d { if (-d $document_root/$arg_a) { return 200 yes; } return 200 no; }
        location /if/nd { if (!-d $document_root/$arg_a) { return 200 yes; } return 200 no; }
        location /if/e { if (-e $document_root/$arg_a) { return 200 yes; } return 200 no; }
        location /if/ne2 { if (!-e $document_root/$arg_a) { return 200 yes; } return 200 no; }
        location /if/x { if (-x $document_root/$arg_a) { return 200 yes; } return 200 no; }
        location /if/nx { if (!-x $document_root/$arg_a) { return 200 yes; } return 200 no; }
        location /if/emptyd { if (-d $arg_none) { return 200 yes; } return 200 no; }
        location /if/emptye { if (-e "") { return 200 yes; } return 200 no; }
        location /if/emptyne { if (!-e $arg_none) { return 200 yes; } return 200 no; }
        location /if/last { set $x 0; if ($arg_a) { set $x 1; add_header X-A 1; } if ($arg_b) { set $x "${x}2"; add_header X-B 1; }
            set $x "${x}end"; return 200 "$x\n"; }
        location /if/break { set $x 1; if ($arg_a) { set $x 2; break; } set $x 3; return 200 "$x\n"; }
        location /if/breaks/ { set $x 1; if ($arg_a) { add_header X-I $x; break; } add_header X-O $x; return 404; }
        location /if/rw/ { if ($arg_a) { rewrite ^/if/rw/(.*)$ /show/$1 last; } if ($arg_b) { rewrite ^/if/rw/(.*)$ /$1 break; } return 200 "stay\n"; }
        location /if/rwnone/ { if ($arg_a) { rewrite ^/if/rwnone/(.*)$ /show/$1; } set $y after; }
        location /if/proxy/ { if ($arg_a) { proxy_pass http://127.0.0.1:{{port:app}}; } return 200 "no\n"; }
        location /if/proxy2/ { proxy_pass http://127.0.0.1:{{port:app}}/base/; if ($arg_a) { add_header X-If 1; } }
        location /if/alias/ { alias {{dir}}/html/; if ($arg_a) { add_header X-If 1; } }
        location /if/try/ { try_files /none.txt /a.txt; if ($arg_a) { add_header X-If 1; } }

        # the URI given to what follows
        location /al/ { alias {{dir}}/html/; rewrite ^/al/b/(.*)$ /al/$1 break; rewrite ^/al/c/(.*)$ /al/$1; }
        location /al2/ { alias {{dir}}/html/; rewrite ^/al2/b/(.*)$ /al2/$1; break; }
        location /p/ { proxy_pass http://127.0.0.1:{{port:app}}/base/; rewrite ^/p/b/(.*)$ /p/$1 break; rewrite ^/p/l/(.*)$ /p/$1 last;
            rewrite ^/p/n/(.*)$ /p/$1; }
        location /p2/ { proxy_pass http://127.0.0.1:{{port:app}}/base/; rewrite ^/p2/n/(.*)$ /p2/$1; break; }
        location /p3/ { proxy_pass http://127.0.0.1:{{port:app}}; rewrite ^/p3/b/(.*)$ /p3/$1 break; }
        location /unin { return 200 "<$unin>\n"; }
        location /unin2 { uninitialized_variable_warn off; return 200 "<$unin>\n"; }
        location /never { set $unin x; set $http_own y; set $arg_own z; return 200 "$unin $http_own $arg_own"; }
        location /pre { return 200 "$http_own|$arg_own"; }
        location /selfset { set $me "a$me"; set $me "b$me"; return 200 $me; }
        location /nolog { rewrite_log off; rewrite ^ /show last; }
        location /rate { set $limit_rate 100k; return 200 "$limit_rate\n"; }
        location /break0 { break; return 200 x; }
        location /sub { return 200 "$arg_sub"; }
        location / { }
    }
    server {
        listen 127.0.0.1:{{port}};
        server_name srv.test;
        set $level server;
        if ($arg_block) { return 403 "blocked $arg_block\n"; }
        if ($http_user_agent ~ (bad)) { set $level $1; rewrite ^ /bad last; }
        rewrite ^/old/(.*)$ /new/$1;
        rewrite ^/oldb/(.*)$ /new/$1 break;
        rewrite ^/oldl/(.*)$ /new/$1 last;
        rewrite ^/to/(.*)$ http://t.test/$1;
        rewrite ^/pr/(.*)$ /p/$1 break;
        rewrite ^/pl/(.*)$ /p/$1 last;
        rewrite ^/pn/(.*)$ /p/$1;
        rewrite ^/ab/(.*)$ /al/$1 break;
        if ($arg_stop) { break; }
        set $level "$level-end";
        location /new/ { return 200 "new $uri $level\n"; }
        location = /bad { return 200 "bad $level\n"; }
        location /p/ { proxy_pass http://127.0.0.1:{{port:app}}/base/; }
        location /al/ { alias {{dir}}/html/; }
        location / { return 200 "root $uri $level\n"; }
    }
    server {
        listen 127.0.0.1:{{port}};
        server_name ret.test;
        return 301 https://main.test$request_uri;
    }
    server {
        listen 127.0.0.1:{{port}};
        server_name err.test;
        error_page 410 /gone;
        if ($uri != /gone) { return 410; }
        location = /gone { return 200 "gone page\n"; }
    }
    server {
        listen 127.0.0.1:{{port}};
        server_name err2.test;
        error_page 410 /gone;
        return 410;
    }
}
EOT

sub application {
    my ($c) = @_;
    while (my $q = $c->request) {
        my $body = "$q->{method} $q->{uri}\n";
        $c->write("HTTP/1.1 200 OK\r\nContent-Length: " . length($body) . "\r\n\r\n$body");
    }
}
my ($tested, $theirs) = Proxyd::Differential::start(
    conf    => $conf,
    files   => { 'a.txt' => "a\n", 'd/e.txt' => "e\n", 'x.html' => "x\n", 'base/a.txt' => "ba\n" },
    origins => { app => \&application },
);

my @table;
sub add { push @table, Proxyd::Differential::row(@_) }
for my $tail ('x', 'x/y?q=1', 'a%20b?q=1&r=2', 'a%2Fb%3Fc%26d%2Be%25f', 'a+b', '%c3%a4', '', 'a.txt', 'a%0Ab', 'a%23b;c=d?e=%20') {
    add('GET', "/$_/$tail")
        for qw(last break none noneret nonebreak redir perm permq permqq http https scheme httplast
        requri requri2 varurl varurl2 rel rellast args1 args2 args3 args4 args5 args6 args7 args8 args9
        case setcap lost nogroup mapcap p p/b p/l p/n p2 p2/n p3 p3/b);
}
add('GET', $_)
    for qw(/setargs/ /setargs/?x=y /zero/x /zerobreak/x /onlyq/x /cycle/ /cycle2/x /ten1/ /ten2/
    /quant/12/345 /quant/1/2 /name/one/two?x /loccap/a/b /loccap2/a/b /loccap2/a/b?x=12
    /mapcap/a?m=q /CASE/x /al/a.txt /al/b/a.txt /al/c/a.txt /al2/a.txt /al2/b/a.txt /unin /unin2 /never
    /pre?own=1 /selfset /nolog /rate /break0 /show /show?x /ret/named /ret/rebreak);
add('GET', "/pre?own=1", 'Own', 'v');
add('GET', "/if/$_") for qw(emptyd emptye emptyne);
add('GET', "/dot/$_") for qw(.txt a/.txt a/b.txt .html a.html/.x.txt .x.html);
add('GET', "/dotted/$_") for qw(.txt a/.txt a/b.txt .x.html);
while ($conf =~ m{location (/ret/\S+)}g) {
    my $uri = $1;
    # not an answer at all there
    next if $uri =~ m{/ret/(?:0|1|99|100|150|199|304|494)$};
    add($_, "$uri?a=b%20c") for qw(GET HEAD);
}
add('POST', $_, 'body') for qw(/ret/200 /ret/204t /ret/301t /ret/404 /ret/404t /last/x /p/x);
for my $name (qw(eq ne eqv eqe true re rei nre nrei paren quoted group and)) {
    add('GET', "/if/$name$_") for '', qw(?a=b ?a=B ?a=bb ?a=b&b=b ?a=c&b=b ?a= ?a=0 ?a=00 ?a=and);
}
for my $name (qw(f nf d nd e ne2 x nx)) {
    add('GET', "/if/$name?a=$_") for qw(a.txt d none d/e.txt a.txt/x), 'x' x 300;
}
add('GET', "/if/$_")
    for qw(last last?a=1 last?b=1 last?a=1&b=1 break break?a=1 breaks/a.txt breaks/a.txt?a=1
    rw/x rw/x?a=1 rw/a.txt?b=1 rwnone/x rwnone/x?a=1 proxy/x proxy/x?a=1 proxy2/x proxy2/x?a=1
    alias/a.txt alias/a.txt?a=1 try/x try/x?a=1);
add('GET', $_, 'Host', 'srv.test')
    for qw(/ /?block=1 /old/x /oldb/x /oldl/x /oldl/x?stop=1 /to/a%20b?x /pr/x /pl/x /pn/x /pr/a%20b /ab/a.txt /x?stop=1);
add('GET', '/x', 'Host', 'srv.test', 'User-Agent', 'bad');
add('GET', '/a%2Fb?c=d', 'Host', 'ret.test');
add('GET', '/x', 'Host', $_) for qw(err.test err2.test);
cmp_ok scalar @table, '>=', 300, 'a table of ' . @table . ' requests';
Proxyd::Differential::compare($tested, $theirs, @table);

# The lines of the log that belong to this module, without time and process. Control bytes are
# where ours goes its own way: a line of the log stays one line.
sub lines {
    my ($s) = @_;
    my ($dir, $port) = ($s->dir, $s->port);
    return map { s/\Q$dir\E/DIR/gr =~ s/\b$port\b/PORT/gr }
        map { /(\[\w+\]) \d+#\d+: \*\d+ (.*)/ ? "$1 $2" : () }
        grep { !m{/a(?:%0A|\?b"|$)} }
        grep { /match|rewritten|uninitialized|cycle|zero length|alias/ } split /\n/, $s->error_log;
}
my @ours = lines($tested);
my @want = lines($theirs);
cmp_ok scalar @want, '>=', 500, 'lines of the log: ' . @want;
my $differ = 0;
for my $i (0 .. ($#ours > $#want ? $#ours : $#want)) {
    next if ($ours[$i] // '') eq ($want[$i] // '');
    fail "line $i of the log";
    diag 'ours:   ' . ($ours[$i] // '-') . "\n" . 'theirs: ' . ($want[$i] // '-');
    last if ++$differ > 3;
}
ok !$differ, 'the same lines';
$_->expect_log(qr/URI was rewritten/) for $tested, $theirs;
$_->stop for $tested, $theirs;
done_testing;
