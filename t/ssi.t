# SPDX-License-Identifier: BSD-2-Clause
#
# Server side includes: commands and conditions from the manual, whatever pieces a page comes in; includes that
# run side by side and stand in order; stubs, variables, limits; pages that include themselves; clients that leave.
# What nginx does with the same pages is in differential_filters.t.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/lib";
use Test::More;
use Proxyd;

my $error = '[an error occurred while processing the directive]';
my $p     = Proxyd->new(
    conf => <<'EOT',
http {
    types { text/html html; text/plain txt; }
    default_type text/html;
    upstream app { server 127.0.0.1:{{port:app}}; keepalive 4; }
    server {
        listen 127.0.0.1:{{port}};
        root {{dir}}/html;
        set $mine "set <here>";
        location / { ssi on; }
        location /off/ { alias {{dir}}/html/; }
        location /silent/ { ssi on; ssi_silent_errors on; alias {{dir}}/html/; }
        location /short/ { ssi on; ssi_value_length 5; alias {{dir}}/html/; }
        location /txt/ { ssi on; ssi_types text/plain; alias {{dir}}/html/;
            location /txt/same/ { alias {{dir}}/html/; }
            location /txt/other/ { ssi_types text/css; alias {{dir}}/html/; }
            location /txt/off/ { ssi off; alias {{dir}}/html/; } }
        location /all/ { ssi on; ssi_types *; alias {{dir}}/html/; }
        location /if/ { if ($arg_ssi) { ssi on; } alias {{dir}}/html/; }
        location /lm/ { ssi on; ssi_last_modified on; alias {{dir}}/html/; }
        location /app/ { ssi on; proxy_pass http://app; }
        location /unbuffered/ { ssi on; proxy_pass http://app/app/; proxy_buffering off; }
        location /plain/ { proxy_pass http://app/app/; }
        location /dead/ { proxy_pass http://127.0.0.1:{{port:dead}}; }
        location /big/ { subrequest_output_buffer_size 64k; alias {{dir}}/html/; }
        location /kept/ { ssi on; subrequest_output_buffer_size 512k; alias {{dir}}/html/big/; }
        location /straight/ { proxy_pass http://app/app/; proxy_buffering off; }
        location /few/ { ssi on; subrequests_limit 20; alias {{dir}}/html/; }
        location /echo { return 200 "[$uri|$args|$request_method]"; }
        location /204 { return 204; }
        location /denied { deny all; return 200 "not denied"; }
        location /internal { internal; return 200 internal; }
        location /page404 { error_page 404 /echo; return 404; }
        location /err { error_page 404 /errpage.html; return 404; }
        location /named { try_files /none @named; }
        location @named { return 200 "named"; }
    }
}
EOT
);

my $marks = $p->dir . '/marks';
mkdir $marks;
sub mark   { my $f = "$marks/" . $_[0] =~ tr{/}{_}r; open my $fh, '>', $f or die; close $fh }
sub marked { -e "$marks/$_[0]" }
sub await  { my ($m) = @_; Proxyd::wait_for(sub { marked($m) }, 10) }

$p->origin('app', sub {
    my ($c) = @_;
    while (my $r = $c->request) {
        my ($what, $arg) = $r->{uri} =~ m{^/app/(\w+)/?(.*)};
        my $head = "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n";
        my $body = "<$what $arg>";
        mark("$what-$arg");
        # /app/after/A/B: answered once the request for /app/after/B has come
        if ($what eq 'after' && $arg =~ m{^(\w+)/(\w+)$}) {
            mark("after-$1");
            $body = await("after-$2") ? "<$1>" : "<$1 waited in vain>";
        }
        if ($what eq 'done') {
            my ($name, $other) = split m{/}, $arg;
            $body = "<$name" . (marked("done-$other-sent") ? " after $other" : '') . '>';
            mark("done-$name-sent");
        }
        if ($what eq 'method') { $body = "$r->{method} [$r->{body}]" }
        if ($what eq 'empty')  { $body = '' }
        if ($what eq 'size')   { $body = 'x' x $arg }
        if ($what eq 'hang') { $c->write("${head}Content-Length: 100\r\n\r\nbegun"); $c->wait_close; return }
        if ($what eq 'cut')  { $c->write("${head}Content-Length: 100\r\n\r\ncut"); return }
        if ($what eq 'chunked') { $c->write("${head}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"); next }
        if ($what eq 'none') { $c->write("HTTP/1.1 204 No Content\r\n\r\n"); next }
        if ($what eq 'pieces') {
            my ($size, $page) = $arg =~ m{^(\d+)/(\w+)};
            $c->write("${head}Transfer-Encoding: chunked\r\n\r\n");
            for (unpack "(a$size)*", $p->read_file("html/$page.html")) {
                $c->write(sprintf "%x\r\n%s\r\n", length $_, $_) or return;
                select undef, undef, undef, 0.001;
            }
            $c->write("0\r\n\r\n");
            next;
        }
        if ($what eq 'halves') {    # the second half when the include of the first has been asked for
            my @half = ('a<!--#include virtual="/app/mark/half"-->b', 'c');
            $c->write("${head}Content-Length: " . length(join '', @half) . "\r\n\r\n$half[0]");
            $c->write(await('mark-half') ? $half[1] : '!');
            next;
        }
        $c->write("${head}Content-Length: " . length($body) . "\r\n\r\n$body");
    }
});
$p->start;

sub page {
    my ($text, %o) = @_;
    $p->write_file('html/page.html', $text);
    return $p->get(($o{at} // '/') . 'page.html' . ($o{args} // ''), %o);
}

sub shows {
    my ($text, $want, $name, %o) = @_;
    is page($text, %o)->body, $want, $name // $text;
}

# The most that the worker has ever had in memory.
sub worker_memory {
    my ($w) = $p->workers;
    return $p->read_file("/proc/$w/status") =~ /VmHWM:\s+(\d+)/ ? $1 : -1;
}

# Commands -----------------------------------------------------------------------------------------

shows 'no < <! <!- <!-- <!--x# commands <!-', 'no < <! <!- <!-- <!--x# commands <!-', 'text that looks like a command';
shows '<!--#echo var="uri"--><', '/page.html<', 'the last sign begins a command';
shows '<!--#echo var="mine"-->', 'set &lt;here&gt;', 'entities are the default';
shows '<!--#echo var="mine" encoding="none"--><!--#echo var="mine"-->', 'set <here>set <here>', 'an encoding stays';
shows '<!--#echo var="mine" encoding="url"-->', 'set%20%3Chere%3E', 'url';
shows '<!--#echo var="nope"-->', '(none)', 'an unknown variable';
shows '<!--#echo var="nope" default="x"-->', 'x', 'its default';
shows '<!--#set var="a" value="1$mine\$"--><!--#echo var="a" encoding="none"-->', '1set <here>$', 'set';
shows '<!--#config errmsg=""-->a<!--#nothing-->b', 'ab', 'no message at all';
shows '<!--#config errmsg="E" timefmt="%s"--><!--#x--><!--#if expr="$date_gmt = /^\d+\$/"-->s<!--#endif-->', 'Es', 'config';
like page('<!--#echo var="date_local"-->')->body, qr/^\w+day, \d\d-\w{3}-\d{4} \d\d:\d\d:\d\d \w+$/, 'the form of dates';
like page('<!--#echo var="date_gmt"-->')->body, qr/ GMT$/, 'date_gmt';
shows '<!--#if expr="$arg_a"-->1<!--#elif expr="$arg_b = x"-->2<!--#elif expr="$arg_b != /^y/"-->3<!--#else-->4<!--#endif-->', 4,
    'none of the branches', args => '?b=yes';
shows '<!--#if expr="$arg_a"-->1<!--#elif expr="$arg_b = x"-->2<!--#elif expr="$arg_b != /^y/"-->3<!--#else-->4<!--#endif-->', 2,
    'the second branch', args => '?b=x';
shows '<!--#if expr="$arg_m = /(.+)@(?P<domain>.+)/"--><!--#echo var="1"--> <!--#echo var="domain"--><!--#echo var="3"--><!--#endif-->',
    'me here(none)', 'captures', args => '?m=me@here';
shows "<!--#bad-->|<!--#echo-->|<!--#if expr=\"x ~ y\"-->", "$error|$error|$error", 'errors';
shows '<!--#bad-->|<!--#echo x', '|', 'silent errors, and a command without an end', at => '/silent/';
shows '<!--#set var="a" value="12345"--><!--#echo var="a"--><!--#set var="a" value="123456"-->', "12345$error", 'ssi_value_length',
    at => '/short/';
shows '<!--#echo var="uri"-->', '<!--#echo var="uri"-->', 'ssi off', at => '/off/';
shows '<!--#echo var="uri"-->', '<!--#echo var="uri"-->', 'not in this if', at => '/if/';
shows '<!--#echo var="uri"-->', '/if/page.html', 'in this if', at => '/if/', args => '?ssi=1';
$p->write_file('html/a.txt', '<!--#echo var="uri"-->');
is $p->get("$_->[0]a.txt")->body, $_->[1], "types: $_->[0]"
    for ['/', '<!--#echo var="uri"-->'], ['/txt/', '/txt/a.txt'], ['/txt/same/', '/txt/same/a.txt'],
    ['/txt/other/', '<!--#echo var="uri"-->'], ['/txt/off/', '<!--#echo var="uri"-->'], ['/all/', '/all/a.txt'];
shows '<!--#echo var="uri"-->', '/txt/page.html', 'text/html is always among them', at => '/txt/';

# The head -------------------------------------------------------------------------------------------

my $r = page('x<!--#echo var="uri"-->');
is $r->header($_), undef, "no $_" for 'Content-Length', 'Last-Modified', 'ETag', 'Accept-Ranges';
$r = page('x', at => '/lm/');
like $r->header('Last-Modified'), qr/GMT/, 'ssi_last_modified keeps it';
like $r->header('ETag'), qr{^W/"}, 'and a weak ETag';
$r = page('');
is $r->header('Content-Length'), 0, 'an empty page stays as it is';
$p->write_file('html/page.html', '<!--#include virtual="/app/mark/head"-->');
$r = $p->head('/page.html');
is $r->status . $r->body, 200, 'HEAD';
ok !marked('mark-head'), 'includes nothing';
my $x = $p->raw('main', "GET /page.html HTTP/1.1\r\nHost: a\r\n\r\nGET /echo HTTP/1.1\r\nHost: a\r\n\r\n", count => 2);
is join('', map { $_->body } @{ $x->{responses} }), '<mark head>[/echo||GET]', 'a request behind it';
is $p->get('/page.html', version => '1.0')->body, '<mark head>', 'HTTP/1.0';

# Pieces ------------------------------------------------------------------------------------------------

my $all = 'a<!-- b --><<!--#set var="v" value="a\"b"-->c<!-<!--#echo var="v"-->d<!--#bad x-y="1"-->e<!--#if expr="$v = /a.b/"-->'
    . "f\n<!--#include virtual=\"/echo?1\"-->g<!--#else-->h<!--#endif--><!--#block name=\"s\"-->st<!--#echo var='v'-->ub<!--#endblock-->"
    . 'i<!--#include virtual="/dead/" stub="s"-->j<!--#include virtual="/app/x/1" set="w" --><!--#echo var="w" encoding="none"-->k<!--#include file="part.html"-->l<!-';
$p->write_file('html/part.html', 'part <!--#echo var="v"-->');
my $want = "a<!-- b --><c<!-a&quot;bd${error}ef\n[/echo|1|GET]gist<!--#echo var=\"v\" -->ubj<x 1>kpart a&quot;bl<!-";
shows $all, $want, 'everything in one piece';
$p->write_file('html/all.html', $all);
is $p->get("/app/pieces/$_/all")->body, $want, "pieces of $_ bytes" for 1, 2, 3, 7, 50;

# Includes -----------------------------------------------------------------------------------------------

shows '<!--#include virtual="/echo?a=b"-->|<!--#include file="part.html"-->|<!--#include virtual="$arg_x"-->',
    '[/echo|a=b|GET]|part (none)|part (none)', 'virtual, file, variables, relative ones', args => '?x=part.html';
shows "<!--#include virtual=\"$_\"-->", $error, "unsafe: $_" for '../x', '/a/../b', '/a/%2e%2e/b', '/..', '%2E./x', '/a%2f..%2fb', "/a%00b";
shows '<!--#include file="../part.html"-->', $error, 'unsafe file';
like page('<!--#include virtual="/none"-->x')->body, qr{^<html>.*404 Not Found.*x$}s, 'what is not there inserts its page';
shows '<!--#include virtual="/denied"-->|<!--#include virtual="/internal"-->|<!--#include virtual="/named"-->', 'not denied|internal|named',
    'access is not asked again, internal places may be included';
shows '<!--#include virtual="/off/raw.html"-->|<!--#include virtual="/raw.html"-->', '<!--#echo var="uri"-->|/raw.html', "an include has its own location's settings"
    if $p->write_file('html/raw.html', '<!--#echo var="uri"-->');
is page('<!--#include virtual="/plain/method"-->|<!--#include virtual="/app/method"-->', body => 'b')->status, 200, 'a body that nobody reads';
$p->write_file('html/page.html', '<!--#include virtual="/page.html"-->');

my @n = (1 .. 6);
shows join('', map { qq($_<!--#include virtual="/app/after/$_/@{[ $_ < 6 ? $_ + 1 : 6 ]}"-->) } @n), join('', map {"$_<$_>"} @n),
    'each is answered once the next one has been asked: side by side, and in order';
shows '<!--#include virtual="/app/done/a/b" wait="yes"--><!--#include virtual="/app/done/b/a"-->', '<a><b after a>', 'wait="yes" lets one finish first';
shows '1<!--#include virtual="/app/x/1" wait="yes"-->2<!--#include virtual="/app/x/2" wait="yes"-->3', '1<x 1>2<x 2>3', 'several that wait';
$p->write_file('html/inner.html', 'i<!--#include virtual="/app/x/3" wait="yes"-->j<!--#include virtual="/app/x/4"-->k');
shows '1<!--#include virtual="/inner.html"-->2<!--#include virtual="/app/x/5"-->3', '1i<x 3>j<x 4>k2<x 5>3', 'an include that waits itself';
is $p->get('/unbuffered/halves')->body, 'a<mark half>bc', 'an include is asked for before the page is complete';
is $p->post('/app/method', 'hello')->body, 'POST [hello]', 'a body';
$p->write_file('html/part.html', '<!--#set var="v" value="$v+"-->p');
shows '<!--#include file="part.html"--><!--#echo var="v"--><!--#include virtual="part.html" wait="yes"--><!--#echo var="v"-->', 'p+p++',
    'variables are those of the whole page';

# set --------------------------------------------------------------------------------------------------------

shows '<!--#include virtual="/app/x/1" set="a"-->[<!--#echo var="a" encoding="none"-->]', '[<x 1>]', 'set from an upstream';
shows '<!--#include virtual="/raw.html" set="a"-->[<!--#echo var="a"-->]', '[/raw.html]', 'set from a file with commands';
shows '<!--#include virtual="/none" set="a"-->[<!--#echo var="a"-->]', '[]', 'set from a failure';
shows '<!--#set var="a" value="old"--><!--#include virtual="/none" set="a"-->[<!--#echo var="a"-->]', '[old]', 'which changes nothing';
shows '<!--#include virtual="/app/size/4096" set="a"-->[<!--#echo var="a"-->]', '[' . 'x' x 4096 . ']', 'as long as it may be';
shows '<!--#include virtual="/app/size/4097" set="a"-->[<!--#echo var="a"-->]', '[]', 'too long';
ok $p->wait_log(qr/too big subrequest response/), 'which is logged';
$p->write_file('html/big.txt', 'y' x 60_000);
shows '<!--#include virtual="/big/big.txt" set="a"-->[<!--#echo var="a"-->]', '[' . 'y' x 60_000 . ']', 'subrequest_output_buffer_size';
shows '<!--#include virtual="/app/cut/" set="a"-->[<!--#echo var="a"-->]', '[]', 'an answer that was cut short';

# What is kept in memory may include in turn: all of it is kept, of any origin, and counts.
sub kept {
    my ($inner, $want, $name) = @_;
    $p->write_file('html/big/kept.html', "<$inner>");
    is page('<!--#include virtual="/kept/kept.html" set="a"-->[<!--#echo var="a" encoding="none"-->]')->body, "[$want]", $name;
}
kept '<!--#include virtual="/big/big.txt"-->', '<' . 'y' x 60_000 . '>', 'set from a page that includes a file';
kept '<!--#include virtual="/plain/size/400000"-->', '<' . 'x' x 400_000 . '>', 'an upstream';
kept '<!--#include virtual="/straight/size/400000"-->|<!--#include virtual="/straight/size/5"-->', '<' . 'x' x 400_000 . '|xxxxx>', 'unbuffered ones';
kept '<!--#include virtual="/plain/size/400000"--><!--#include virtual="/plain/size/200000"-->', '', 'ones that together are too long';
kept '<!--#include virtual="/plain/size/5"--><!--#include virtual="/plain/cut/"-->', '', 'one that was cut short';

# Stubs ------------------------------------------------------------------------------------------------------

my $block = '<!--#block name="b"-->stub <!--#echo var="uri"--><!--#endblock-->';
my $raw = 'stub <!--#echo var="uri" -->';
for (['/204', $raw], ['/none', 'stub /none'], ['/dead/', $raw], ['/echo', '[/echo||GET]'], ['/app/empty', $raw], ['/app/chunked', 'stub /app/chunked'],
    ['/plain/chunked', $raw], ['/app/none', $raw], ['/page404', $raw], ['/app/x/1', '<x 1>'], ['/empty.html', $raw]) {
    my ($uri, $stub) = @$_;
    $p->write_file('html/empty.html', '');
    shows "$block<!--#include virtual=\"$uri\" stub=\"b\"-->|<!--#include virtual=\"$uri\" stub=\"b\" wait=\"yes\"-->!", "$stub|$stub!", "stub: $uri";
}

# Limits -----------------------------------------------------------------------------------------------------

is page('<!--#include virtual="/page.html"-->x')->body, $error . 'x' x 52, 'a page that includes itself';
ok $p->wait_log(qr/\[error\].*subrequests cycle while processing "\/page.html"/), 'which is logged';
$r = page('<!--#include virtual="page.html"--><!--#include virtual="page.html"-->.');
is $r->status . $r->{complete}, 2001, 'twice: it ends';
cmp_ok length($r->body), '<', 1_000_000, 'before it is large';
ok $p->wait_log(qr/more than 1000 subrequests/), 'by the number of subrequests';
$r = page('<!--#include virtual="/echo"-->' x 30, at => '/few/');
is $r->body, '[/echo||GET]' x 20 . $error x 10, 'subrequests_limit';
$r = page('<!--#include virtual="/app/x/1"-->' x 300);
is $r->body, '<x 1>' x 300, 'hundreds of includes';
# Worker_connections is 512: they are not all at work at once.
is page('<!--#include virtual="/plain/x/1"-->' x 900)->body, '<x 1>' x 900, 'more than there are connections';
$p->write_file('html/thirty.html', '<!--#include virtual="/plain/x/1"-->' x 30 . '.');
is page('<!--#include virtual="/thirty.html"-->' x 30)->body, ('<x 1>' x 30 . '.') x 30, 'of several pages';
$r = page('<!--#set var="a" value="0123456789"-->' . '<!--#set var="a" value="$a$a"-->' x 40 . 'end');
like $r->body, qr/^(?:\Q$error\E)+end$/, 'a value that doubles comes to an end';
ok $p->wait_log(qr/too long value of/), 'which is logged';
$r = page('<!--#set var="a" value="0123456789"-->' . '<!--#set var="a" value="$a$a"-->' x 15
    . join('', map { "<!--#set var=\"b$_\" value=\"\$a\"-->" } 1 .. 100) . 'end');
like $r->body, qr/^(?:\Q$error\E)+end$/, 'so do many variables';

# Slow and absent clients ------------------------------------------------------------------------------------

$p->write_file('html/mega.txt', join '', map { "line $_\n" } 1 .. 100_000);
my $mega = $p->read_file('html/mega.txt');
ok page('<!--#include virtual="/mega.txt"-->+<!--#include virtual="/app/size/3000000"-->+<!--#include virtual="/mega.txt" wait="yes"-->')->body
    eq "$mega+" . 'x' x 3_000_000 . "+$mega", 'large ones';
$p->write_file('html/value.txt', '<' x 15_000);
my $before = worker_memory();
$r = page('<!--#include virtual="/big/value.txt" set="v"-->' . '<!--#echo var="v"-->' x 500 . '<!--#include virtual="/raw.html"-->');
is length $r->body, 500 * 60_000 + 9, 'a short page with a lot of output';
$p->write_file('html/heavy.html', '<!--#include virtual="/big/value.txt" set="v"-->' . '<!--#echo var="v"-->' x 100 . '<!--#include virtual="/app/x/2"-->');
$r = page('<!--#include virtual="/app/after/front/heavy"--><!--#include virtual="/heavy.html"-->|<!--#include virtual="/app/after/heavy/front"-->|'
    . '<!--#include virtual="/heavy.html" wait="yes"-->.');
is length $r->body, 12_000_000 + length('<front><x 2>|<heavy>|<x 2>.'), 'included pages with a lot of output, behind a slow one';
cmp_ok worker_memory() - $before, '<', 10_000, 'which is not made all at once (kB)' unless Proxyd::sanitized();
SKIP: {
    skip 'a sanitizer has memory of its own', 2 if Proxyd::sanitized();
    $before = worker_memory();
    $p->write_file('html/page.html', '<!--#include virtual="/app/after/large/rest" wait="yes"-->' . ('y' x 99 . "\n") x 300_000);
    my $c = $p->connect('main');
    $c->send("GET /page.html HTTP/1.0\r\n\r\n");
    await('after-large');
    $p->get('/echo') for 1 .. 400;    # turns of the loop, in each of which more could be read
    mark('after-rest');
    is length(($c->read_eof(30) =~ /\r\n\r\n(.*)/s)[0]), 30_000_000 + length '<large>', 'a large page that waits';
    cmp_ok worker_memory() - $before, '<', 10_000, 'is not read in the meantime (kB)';
}
$p->write_file('html/page.html', '<!--#include virtual="/app/hang/1"--><!--#include virtual="/app/hang/2"--><!--#include virtual="/inner.html"-->');
my $c = $p->connect('main');
$c->send("GET /page.html HTTP/1.1\r\nHost: a\r\n\r\n");
ok await('hang-1') && await('hang-2'), 'two includes that hang';
$c->close;
ok $p->wait_log(qr/^X \d+\n(?:.*\n)*?X \d+/m, 'origin-app.log'), 'are let go when the client leaves';
ok $p->wait_log(qr/GET \/page.html HTTP\/1.1" (?:200|499)/, 'access.log'), 'and it is logged';
$p->write_file('html/page.html', '<!--#include virtual="/app/hang/3" wait="yes"-->x');
$c = $p->connect('main');
$c->send("GET /page.html HTTP/1.1\r\nHost: a\r\n\r\n");
await('hang-3');
$c->abort;
ok $p->wait_log(qr/^(?:X \d+\n(?:.*\n)*?){2}X \d+/m, 'origin-app.log'), 'so is one that the page waits for';
$r = page('a<!--#include virtual="/app/cut/"-->b');
ok !$r->{complete}, 'an include that is cut short is no complete page';
is $p->get('/echo')->body, '[/echo||GET]', 'the server is fine';

$p->stop;
# --- blocks of pages that come at the same time -------------------------------------------------------
{
    my $q = Proxyd->new;
    # Each page stops in the midst of its block until the other one has come to its own.
    $q->origin('app', sub {
        my ($c) = @_;
        while (my $r = $c->request) {
            my ($me, $other) = $r->{uri} =~ /one/ ? qw(one two) : qw(two one);
            my $chunk = sub { $c->write(map { sprintf "%x\r\n%s\r\n", length, $_ } @_) };
            $c->write("HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nTransfer-Encoding: chunked\r\n\r\n");
            $chunk->(qq(<!--#block name="$me"-->$me-));
            $q->write_file("there-$me", '');
            Proxyd::wait_for(sub { -e $q->dir . "/there-$other" }, 20);
            $chunk->(qq(whole<!--#endblock-->[<!--#include virtual="/empty" stub="$me"-->]));
            $c->write("0\r\n\r\n");
        }
    });
    $q->write_file('html/page.html', '<!--#include virtual="/app/one"--><!--#include virtual="/app/two"-->');
    $q->write_conf(<<'EOT');
http {
    default_type text/html;
    ssi on;
    server {
        listen 127.0.0.1:{{port}};
        root {{dir}}/html;
        location /app/ { proxy_pass http://127.0.0.1:{{port:app}}; proxy_http_version 1.1; proxy_buffering off; }
        location /empty { return 204; }
    }
}
EOT
    $q->start;
    is $q->get('/page.html')->body, '[one-whole][two-whole]', 'blocks of two pages that come at the same time are kept apart';
    $q->stop;
}

done_testing;
