# SPDX-License-Identifier: BSD-2-Clause
#
# sub_filter, addition and server side includes: the same pages by nginx and by the server under test, and
# for the includes the same complaints in the error log.
#
# Known differences, left out below:
#   1. Text at the end of a page that looks like the beginning of a command ("<!-") is lost by nginx.
#   2. nginx breaks the connection off when errmsg is empty and when a command waits in an included page
#      whose own text has gone out.
#   3. The words of PCRE2 are completed by the place of the error here.
#   4. What nginx's sub_filter holds back at the end goes out as it is, even if a shorter string is in it.
#   5. A stub for an empty answer of an upstream comes twice in nginx.
#   6. ssi_value_length is 255 in nginx where nothing is set; its manual says 256.
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
    types { text/html html; text/plain txt; text/css css; }
    default_type text/html;
    proxy_http_version 1.1;
    proxy_set_header Connection "";
    log_subrequest off;
    upstream app { server 127.0.0.1:{{port:app}}; keepalive 8; }
    server {
        listen 127.0.0.1:{{port}};
        server_name main.test;
        root {{dir}}/html;

        location /sub/ { sub_filter one 1; sub_filter two ""; sub_filter_types text/plain; alias {{dir}}/html/; }
        location /suball/ { sub_filter one 1; sub_filter_once off; sub_filter_types *; alias {{dir}}/html/; }
        location /sublm/ { sub_filter one 1; sub_filter_last_modified on; alias {{dir}}/html/; }
        location /subvar/ { sub_filter $arg_a "[$uri]"; sub_filter_once off; alias {{dir}}/html/; }
        location /subapp/ { sub_filter one 1; sub_filter_once off; proxy_pass http://app; }
        location /suborder/ { sub_filter abcd L; sub_filter abc S; sub_filter b B; sub_filter_once off;
            proxy_pass http://app; }

        location /add/ { add_before_body /before; add_after_body /after; alias {{dir}}/html/; }
        location /addtxt/ { add_after_body /after; addition_types text/plain; alias {{dir}}/html/; }
        location /addnone/ { add_before_body /before; add_after_body ""; alias {{dir}}/html/; }
        location /addsub/ { add_before_body /before; sub_filter e E; sub_filter_once off; alias {{dir}}/html/; }
        location /addssi/ { add_before_body /ssi/before.html; add_after_body /before; ssi on; alias {{dir}}/html/; }
        location /addmiss/ { add_before_body /none; alias {{dir}}/html/; }
        location = /before { return 200 "before "; }
        location = /after { return 200 " after"; }

        location /ssi/ { ssi on; alias {{dir}}/html/ssi/; }
        location /ssilm/ { ssi on; ssi_last_modified on; alias {{dir}}/html/ssi/; }
        location /ssisilent/ { ssi on; ssi_silent_errors on; ssi_value_length 20; alias {{dir}}/html/ssi/; }
        location /ssitxt/ { ssi on; ssi_types text/plain; alias {{dir}}/html/ssi/; }
        location /ssisub/ { ssi on; sub_filter one 1; sub_filter_once off; alias {{dir}}/html/ssi/; }
        location /nossi/ { alias {{dir}}/html/ssi/; }
        location /app/ { ssi on; proxy_pass http://app; }
        location /echo { return 200 "[$uri|$args|$request_method]"; }
        location /204 { return 204; }
        location /fail { return 503; }
        location /redir { return 302 /echo; }
        location /page { error_page 404 /echo; return 404; }
    }
}
EOT

# Pages with commands, one test each.
my %page = (
    plain    => 'no command < <! <!- <!-- <!---# here',
    tags     => 'a<<!--#echo var="uri"-->b<!<!--#echo var="uri"-->c<!-<!--#echo var="uri"-->d<!--<!--#echo var="uri"-->e',
    blanks   => "<!--#  echo \t var = \"uri\" \r\n  -->|<!--#echo\nvar=\n'uri'-->",
    echo     => '<!--#echo var="nope"-->|<!--#echo var="nope" default="$uri"-->|<!--#echo var="nope" default=""-->|'
        . '<!--#echo var="nope" default="a\"b<"-->|<!--#echo var="URI"-->|<!--#echo var="arg_x"-->|<!--#echo var="http_host"-->',
    encoding => '<!--#set var="a" value="<>&\"\'%41 ü"--><!--#echo var="a"-->|<!--#echo var="a" encoding="url"-->|'
        . '<!--#echo var="a"-->|<!--#echo var="a" encoding="none"-->|<!--#echo var="a" encoding="foo"-->|'
        . '<!--#echo encoding="entity" var="a"-->',
    url => '<!--#set var="a" value="!\"#\$%&\'()*+,-./09:;<=>?@AZ[\\\\]^_`az{|}~' . "\t\x7f" . '"-->'
        . '<!--#echo var="a" encoding="url"-->',
    quoting => '<!--#set var="a" value="x\$y\\z\q\"-\\\'"--><!--#echo var="a" encoding="none"-->|'
        . '<!--#set var="b" value="${a}b$nope-$a\$"--><!--#echo var="b"-->|<!--#set var=\'c\' value=\'say "hi" \\\' \'--><!--#echo var="c"-->',
    seterr => '<!--#set var="a" value="$"-->|<!--#set var="a" value="${x"-->|<!--#set var="a" value="a$-"-->|'
        . '<!--#set var="a" value="${}"-->|<!--#set value="a"-->|<!--#set var="a" var="b" value="1"-->|<!--#set foo="a"-->|<!--#bar a="b"-->',
    config  => '<!--#config errmsg="ERR<>"--><!--#echo-->|<!--#config timefmt="%d"--><!--#echo var="date_gmt"-->|<!--#config-->|'
        . '<!--#config timefmt="x"--><!--#echo var="date_local"-->',
    setset  => '<!--#set var="A" value="1"--><!--#echo var="a"--><!--#set var="a" value="$A$A"--><!--#echo var="A"-->'
        . '<!--#set var="uri" value="mine"--><!--#echo var="uri"-->',
    if_true   => 'a<!--#if expr="$uri"-->yes<!--#else-->no<!--#endif-->b',
    if_false  => 'a<!--#if expr="$nope" -->yes<!--#else-->no<!--#endif-->b',
    if_empty  => 'a<!--#if expr="" -->yes<!--#else-->no<!--#endif-->b',
    if_word   => 'a<!--#if expr="abc" -->yes<!--#else-->no<!--#endif-->b',
    if_equal  => 'a<!--#if expr="$arg_x = v$arg_y" -->yes<!--#else-->no<!--#endif-->b<!--#if expr="$arg_x=1"-->1<!--#endif-->'
        . '<!--#if expr="$arg_x != 2"-->not 2<!--#endif-->',
    if_upper  => '<!--#if expr="ABC = abc"-->yes<!--#else-->no<!--#endif--><!--#if expr="$ARG_X = 1"-->yes<!--#endif-->',
    if_brace  => '<!--#if expr="${arg_x}y = 1y"-->yes<!--#else-->no<!--#endif-->',
    if_regex  => 'a<!--#if expr="$uri = /(\w+)\.(?P<ext>html)/" -->yes <!--#echo var="0" -->|<!--#echo var="1" -->|'
        . '<!--#echo var="2" -->|<!--#echo var="3" -->|<!--#echo var="ext" --><!--#else-->no<!--#endif-->b',
    if_regex2 => 'a<!--#if expr="$uri != /^\/x/" -->yes<!--#else-->no<!--#endif--><!--#if expr="$uri = /html\$/"-->end<!--#endif-->'
        . '<!--#if expr="$uri = //"-->empty<!--#else-->not<!--#endif--><!--#if expr="$nope = /^\$/"-->none<!--#endif-->',
    if_dollar => 'a<!--#if expr="$uri = /^foo$/" -->yes<!--#endif-->b',
    if_slash  => 'a<!--#if expr="$nope = /" -->yes<!--#else-->no<!--#endif--><!--#if expr="$uri = \/ssi\/if_slash.html"-->same<!--#else-->other<!--#endif-->b',
    if_open   => 'a<!--#if expr="$nope = /x" -->yes<!--#else-->no<!--#endif-->b',
    if_bad    => 'a<!--#if expr="$nope ~ x y" -->yes<!--#else-->no<!--#endif-->b<!--#if expr="("-->x<!--#endif-->',
    if_var    => 'a<!--#if expr="$uri = $" -->yes<!--#else-->no<!--#endif-->b<!--#if expr="$uri = ${uri"-->x<!--#endif-->',
    elif      => 'a<!--#if expr="" -->1<!--#elif expr="x"-->2<!--#elif expr="x"-->3<!--#else-->4<!--#endif-->b'
        . '<!--#if expr="x" -->1<!--#elif expr="x"-->2<!--#else-->4<!--#endif-->c<!--#if expr="" -->1<!--#elif expr=""-->2<!--#else-->4<!--#endif-->',
    nested1   => 'a<!--#if expr="" -->yes<!--#if expr="x"-->in<!--#else-->no<!--#endif-->b<!--#endif-->c',
    nested2   => 'a<!--#if expr="x" -->yes<!--#if expr="x"-->in<!--#else-->no<!--#endif-->b<!--#endif-->c',
    context   => 'a<!--#if expr="x" -->1<!--#else-->2<!--#elif expr="x"-->3<!--#else-->4<!--#endif-->c<!--#else--><!--#endif--><!--#elif expr="x"-->',
    untaken   => 'a<!--#if expr="" -->1<!--#foo--><!--#echo x="y"--><!--#echo va-->2<!--#set var="q" value="1"--><!--#endif-->c<!--#echo var="q"-->',
    malformed => '<!--#echo var="uri"--->|<!--#echo var="uri" -- >-->|<!--#echo var="uri"default="x"-->|<!--#echo var=uri-->|'
        . '<!--#echo var-->|<!--#echo var-x="a"-->|<!--#echo -var="uri"-->|<!--#ec-ho var="uri"-->|<!--#echo var "uri"-->|<!--#-->|<!--# -->|',
    lengths   => '<!--#' . 'c' x 32 . '-->|<!--#' . 'c' x 33 . ' x="y"-->|<!--#echo ' . 'p' x 32 . '="y"-->|<!--#echo ' . 'p' x 33 . '="y"-->|'
        . '<!--#set var="a" value="' . 'v' x 255 . '"--><!--#echo var="a"-->|',
    params    => '<!--#echo ' . 'a="1" ' x 17 . '-->|<!--#echo ' . 'a="1" ' x 16 . '-->|<!--#echo var="uri" a="1"-->',
    unended   => 'abc<!--#echo var="uri"',
    unended2  => 'abc<!--#',
    block     => 'x<!--#block name="b"-->blk <!--#echo var="uri" encoding=\'none\' default="a\"b"--> end<!--#endblock-->y'
        . '<!--#include virtual="/echo" stub="b"-->|<!--#include virtual="/fail" stub="b"-->|<!--#include virtual="/ssi/none" stub="b"-->|'
        . '<!--#include virtual="/nossi/none" stub="b"-->|<!--#include virtual="/echo" stub="zz"-->',
    blocks    => '<!--#block name="b"-->1<!--#endblock--><!--#block name="b"-->2<!--#endblock--><!--#include virtual="/fail" stub="b"-->'
        . '<!--#block name="e"--><!--#endblock-->|<!--#include virtual="/fail" stub="e"-->|<!--#endblock-->|<!--#block name="c"-->a<!--#block name="d"-->b<!--#endblock-->c<!--#endblock-->d',
    stubs     => '<!--#block name="b"-->stub<!--#endblock--><!--#include virtual="/ssi/empty.html" stub="b"-->|<!--#include virtual="/204" stub="b"-->|'
        . '<!--#include virtual="/redir" stub="b"-->|<!--#include virtual="/page" stub="b"-->|<!--#include virtual="/app/404" stub="b"-->|'
        . '<!--#include virtual="/app/200" stub="b"-->',
    include   => '<!--#include virtual="/echo?a=b&c"-->|<!--#include virtual="../p.html"-->|<!--#include file="/echo"-->|'
        . '<!--#include virtual="%2e%2e/echo"-->|<!--#include virtual="/dir/%2e%2e/echo"-->|<!--#include virtual="/ec%68o"-->|'
        . '<!--#include virtual="/echo%3fx"-->|<!--#include virtual="/echo%253fx"-->|<!--#include virtual="/echo/..x"-->',
    relative  => '<!--#include virtual="part.html"-->|<!--#include file="part.html"-->|<!--#include virtual="$arg_p"-->|<!--#include virtual="${nope}part.html"-->',
    incerr    => '<!--#include virtual="/echo" file="x"-->|<!--#include-->|<!--#include virtual="/echo" wait="maybe"-->|'
        . '<!--#include file="/echo" wait="yes"-->|<!--#include virtual="/echo" set="q" stub="b"-->|<!--#include virtual="/echo" wait="NO"-->|<!--#include virtual="/echo" wait="Yes"-->',
    incset    => '<!--#include virtual="/echo" set="q"--><!--#echo var="q"-->|<!--#include virtual="/fail" set="r"--><!--#echo var="r"-->|'
        . '<!--#include virtual="/ssi/part.html" set="s"--><!--#echo var="S" encoding="none"-->|<!--#include virtual="/app/200" set="q"--><!--#echo var="q"-->',
    shared    => '<!--#include file="setter.html"--><!--#echo var="fromchild"-->|<!--#include virtual="setter.html" wait="yes"--><!--#echo var="fromchild"-->',
    setter    => '<!--#set var="fromchild" value="$fromchild+"-->s',
    errinc    => '<!--#config errmsg="E"--><!--#include virtual="errpart.html"--><!--#bad-->',
    errpart   => '<!--#bad-->|<!--#echo var="uri"-->',
    part      => 'part <!--#echo var="uri"-->',
    methods   => '<!--#include virtual="/app/method"-->',
    self      => '<!--#include virtual="self.html"-->x',
    order     => join('|', map { qq(<!--#include virtual="/app/slow/$_"-->) } 0 .. 5),
    nestinc   => 'a<!--#include virtual="order.html"-->b<!--#include virtual="/app/slow/1"-->c',
    long      => '<!--#set var="a" value="' . 'v' x 20 . '"-->|<!--#set var="a" value="' . 'v' x 21 . '"-->|<!--#set var="a" value="' . 'v' x 19 . '\""-->|',
    empty     => '',
);
my %files = (
    'a.html' => "one One two oNE three\n",
    'a.txt'  => "one One two oNE three\n",
    'a.css'  => "one\n",
    'empty.html' => '',
    'ssi/p.txt' => '<!--#echo var="uri"-->',
    'ssi/p.css' => '<!--#echo var="uri"-->',
    'ssi/before.html' => 'B<!--#echo var="uri"-->B',
    map { ("ssi/$_.html" => $page{$_}) } keys %page
);

my ($tested, $theirs) = Proxyd::Differential::start(conf => $conf, files => \%files,
    origins => { app => \&application });

# Answers by path alone, so that both servers get the same.
sub application {
    my ($c) = @_;
    while (my $r = $c->request) {
        my $path = $r->{uri};
        my ($status, $body) = ('200 OK', "$r->{method} $path one");
        if ($path =~ m{/slow/(\d)}) { select undef, undef, undef, 0.02 * (5 - $1); $body = "<$1>" }
        if ($path =~ m{/404}) { $status = '404 Not Found' }
        if ($path =~ m{/empty}) { $body = '' }
        if ($path =~ m{/method}) { $body = "$r->{method} $path [$r->{body}] " . ($r->{h}{'content-length'} // '-') }
        if ($path =~ m{/suborder/(.*)}) { $body = $1 }
        my $head = "HTTP/1.1 $status\r\nContent-Type: text/html; charset=utf-8\r\nETag: \"x\"\r\nLast-Modified: Fri, 14 Jul 2017 02:40:00 GMT\r\n";
        if ($path =~ m{chunked}) { $c->write("${head}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"); next }
        $c->write("${head}Content-Length: " . length($body) . "\r\n\r\n$body");
    }
}

# The complaints that a request caused, without what names the request.
sub complaints {
    my ($s, $uri) = @_;
    my $dir = $s->dir;
    my @l = grep { /\[error\]/ } split /\n/, $s->error_log // '';
    s/^.*?\*\d+ //, s/,? (?:while|client:).*//, s/\Q$dir\E/DIR/g for @l;
    $s->write_file('error.log', '');
    return join "\n", @l;
}

sub row { Proxyd::Differential::row(@_) }

Proxyd::Differential::compare($tested, $theirs,
    (map { row(GET => $_) } qw(/sub/a.html /sub/a.txt /sub/a.css /suball/a.html /suball/a.css /sublm/a.html /sub/empty.html
        /sub/none.html /subvar/a.html?a=one /subvar/a.html /subapp/x /subapp/404 /subapp/empty /suborder/abcd /suborder/abcabcdxb
        /suborder/ababcbcdax)),
    (map { row(HEAD => $_) } qw(/sub/a.html /add/a.html /ssi/echo.html)),
    (map { row(GET => $_) } qw(/add/a.html /add/a.css /add/none /add/empty.html /addtxt/a.txt /addtxt/a.html /addnone/a.html
        /addsub/a.html /addssi/a.html /addmiss/a.html)),
    row(GET => '/add/a.html', Range => 'bytes=0-3'),
    row(GET => '/sub/a.html', 'If-Modified-Since' => 'Fri, 14 Jul 2017 02:40:00 GMT'),
    row(GET => '/ssi/echo.html', Range => 'bytes=0-3'),
    (map { row(GET => $_) } qw(/ssilm/echo.html /ssi/p.txt /ssi/p.css /ssitxt/p.txt /ssitxt/echo.html /nossi/echo.html /ssisub/include.html)),
    row(POST => '/app/method', 'body'),
);

complaints($_) for $tested, $theirs;
for my $page (sort keys %page) {
    my $uri = "/ssi/$page.html?x=1&p=part.html";
    Proxyd::Differential::compare($tested, $theirs, row(GET => $uri));
    is complaints($tested), complaints($theirs), "$page: complaints";
}
for my $page (qw(malformed seterr lengths echo long)) {
    Proxyd::Differential::compare($tested, $theirs, row(GET => "/ssisilent/$page.html"));
    is complaints($tested), complaints($theirs), "$page: complaints, silent";
}

$_->stop(name => 'stopped') for $tested, $theirs;
done_testing;
