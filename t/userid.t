# SPDX-License-Identifier: BSD-2-Clause
#
# userid: the cookie that is set, the one that is read, marks, resets, and what the variables say.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/lib";
use MIME::Base64;
use Test::More;
use Proxyd;

my $vars = 'add_header X-Uid "$uid_got|$uid_set";';
my $p = Proxyd->new(files => { 'html/a.txt' => 'a' }, conf => <<"EOT");
http {
    log_format uid '\$uri \$uid_got|\$uid_set';
    access_log {{dir}}/access.log uid;
    userid_name outer;
    server {
        listen 127.0.0.1:{{port}};
        listen [::1]:{{port:six}};
        root {{dir}}/html;
        userid_name uid;
        location /on { userid on; $vars return 200 x; }
        location /v1 { userid v1; $vars return 200 x; }
        location /v1service { userid v1; userid_service 258; $vars return 200 x; }
        location /service { userid on; userid_service 1; $vars return 200 x; }
        location /log { userid log; $vars return 200 x; }
        location /off { $vars return 200 x; }
        location /full { userid on; userid_name id; userid_domain example.com; userid_path /path; userid_expires max;
            userid_p3p 'policyref="/w3c/p3p.xml"'; userid_flags samesite=strict httponly secure; return 200 x;
            location /full/none { userid_domain none; userid_expires off; userid_p3p none; userid_flags off; return 200 x; } }
        location /year { userid on; userid_expires 365d; return 200 x; }
        location /long { userid on; userid_expires 20y; return 200 x; }
        location /lax { userid on; userid_flags samesite=lax; return 200 x; }
        location /none { userid on; userid_flags secure samesite=none; return 200 x; }
        location /mark { userid on; userid_mark M; userid_expires 1h; $vars return 200 x; }
        location /markeq { userid on; userid_mark =; $vars return 200 x; }
        location /reset { userid on; set \$uid_reset \$arg_r; $vars return 200 x; }
        location /static/ { userid on; alias {{dir}}/html/; }
        location /404 { userid on; }
        location /redirect { userid on; return 301 /x; }
        location /errpage { userid on; userid_service 7; error_page 404 /page; return 404; }
        location /page { userid on; userid_service 8; $vars return 200 page; }
        location /set { userid on; set \$a \$uid_set; return 200 "\$a"; }
    }
}
EOT
$p->start;
sub get { my ($uri, $cookie, %o) = @_; $p->get($uri, %o, headers => [defined $cookie ? (Cookie => $cookie) : ()]) }
# The four words of a cookie, in the order of its bytes.
sub words { my ($r, $name) = @_; ($r->header('Set-Cookie') // '') =~ /^\Q$name\E=([A-Za-z0-9+\/]{22})(..);/ or return; return unpack 'N4', decode_base64("$1==") }
sub hex_of { my ($letter, @w) = @_; return join '', map { sprintf '%08X', $_ } @w }

# Version 2: the server's address, the time, the process, the sequence, all in network order.
my $r = get('/on');
my ($date) = time;
my @w = words($r, 'uid');
like $r->header('Set-Cookie'), qr{^uid=[A-Za-z0-9+/]{22}==; path=/$}, 'a cookie';
is $w[0], 0x7f000001, 'the server\'s address';
cmp_ok abs($w[1] - $date), '<', 30, 'the time';
is $w[3] & 0xff, 2, 'the sequence begins at 03030302';
is $r->header('X-Uid'), '|uid=' . join('', map { sprintf '%08X', unpack 'V', pack 'N', $_ } @w), '$uid_set has the words as they lie in memory';
my @next = words(get('/on'), 'uid');
is $next[3] - $w[3], 0x100, 'the next one';
is $next[2], $w[2], 'of the same process';
@w = words(get('/on', undef, port => '[::1]:' . $p->port('six')), 'uid');
is $w[0], 1, 'an IPv6 address: its last four bytes';
@w = words(get('/service'), 'uid');
is $w[0], 1, 'userid_service';

# Version 1: in the machine's order, and no service.
$r = get('/v1');
@w = unpack 'V4', pack 'N4', words($r, 'uid');
is $w[0], 0, 'version 1: no service';
cmp_ok abs($w[1] - $date), '<', 30, 'the time in little-endian order';
is $w[3], 1, 'the sequence begins at 1';
is $r->header('X-Uid'), '|uid=' . join('', map { sprintf '%08X', $_ } @w), 'its words';
@w = unpack 'V4', pack 'N4', words(get('/v1service'), 'uid');
is "$w[0] $w[3]", '258 257', 'the next one, with a service';

# Reading.
my $id  = 'fwAAAWbM9mcvUAAAAwMDAg';
my $hex = 'uid=0100007F67F6CC660000502F02030303';
for ("uid=$id==", "uid=$id", "uid=${id}xy", "a=1; UID=$id==", "b=2,uid=$id==; c=3", "uid=  $id==") {
    $r = get('/on', $_);
    is +($r->header('X-Uid') // '') . ($r->header('Set-Cookie') // ''), "$hex|", "Cookie: $_";
}
is get('/log', "uid=$id==")->header('X-Uid'), "$hex|", 'userid log reads';
ok !defined get('/log')->header('Set-Cookie'), 'and does not set';
is get('/off', "uid=$id==")->header('X-Uid'), '|', 'userid off does neither';
ok !defined get('/off')->header('Set-Cookie'), 'nothing is set';
for (['uid=short', 'short'], ['x=y; uid=!!!!!!!!!!!!!!!!!!!!!!!!', 'invalid'], ['uid=' . 'A' x 21, 'short'], ['uid=', 'short']) {
    my ($cookie, $what) = @$_;
    like get('/on', $cookie)->header('Set-Cookie'), qr/^uid=/, "$cookie: a new one";
    my $level = $what eq 'short' ? 'too short' : 'invalid';
    like $p->error_log, qr/\[error\].* client sent $level userid cookie "\Q$cookie\E", client: 127/, 'with a line in the log';
}
like get('/on', 'uid=' . 'A' x 22)->header('Set-Cookie'), qr/^uid=/, 'a number that ends with 0 is none';
like get('/on', "outer=$id==")->header('Set-Cookie'), qr/^uid=/, 'another name';

# Attributes.
like get('/full')->header('Set-Cookie'), qr{^id=[\w+/]{22}==; expires=Thu, 31-Dec-37 23:55:55 GMT; domain=example\.com; path=/path; secure; httponly; samesite=strict$}, 'all attributes';
is get('/full')->header('P3P'), 'policyref="/w3c/p3p.xml"', 'P3P';
$r = get('/full/none');
like $r->header('Set-Cookie'), qr{^id=[\w+/]{22}==; path=/path$}, 'taken back inside';
ok !defined $r->header('P3P'), 'P3P too';
like get('/year')->header('Set-Cookie'), qr{; expires=\w{3}, \d\d-\w{3}-\d\d \d\d:\d\d:\d\d GMT; path=/$}, 'a time';
like get('/long')->header('Set-Cookie'), qr{; expires=\w{3}, \d\d-\w{3}-20\d\d \d\d:\d\d:\d\d GMT; path=/$}, 'behind 2037 with the whole year';
like get('/lax')->header('Set-Cookie'), qr{; path=/; samesite=lax$}, 'samesite=lax';
like get('/none')->header('Set-Cookie'), qr{; path=/; secure; samesite=none$}, 'samesite=none';

# Marks.
like get('/mark')->header('Set-Cookie'), qr{^uid=[\w+/]{22}M=; expires=}, 'a marked one';
like get('/mark', "uid=$id==")->header('Set-Cookie'), qr{^uid=${id}M=; expires=}, 'without the mark the same number comes again';
is get('/mark', "uid=$id==")->header('X-Uid'), "$hex|$hex", 'and counts as set';
ok !defined get('/mark', "uid=${id}M=")->header('Set-Cookie'), 'with it, nothing';
like get('/mark', "uid=${id}m=")->header('Set-Cookie'), qr{^uid=${id}M=}, 'case matters';
ok !defined get('/markeq', "uid=$id==")->header('Set-Cookie'), '= is a mark';
like get('/markeq', "uid=${id}M=")->header('Set-Cookie'), qr{^uid=${id}==}, 'that takes others off';

# Reset.
ok !defined get("/reset?r=$_", "uid=$id==")->header('Set-Cookie'), "reset \"$_\": no" for '', '0';
for ('1', 'log', '00') {
    $r = get("/reset?r=$_", "uid=$id==");
    like $r->header('Set-Cookie'), qr/^uid=(?!$id)/, "reset $_: a new one";
    like $r->header('X-Uid'), qr/^$hex\|uid=/, 'both are known';
}
my @told = $p->error_log =~ /(\[notice\].* userid cookie "$hex" was reset, client: 127)/g;
is scalar @told, 1, 'and "log" tells of it';

# With other answers.
like get('/static/a.txt')->header('Set-Cookie'), qr/^uid=/, 'a file';
$r = $p->get('/static/a.txt', headers => ['If-Modified-Since' => get('/static/a.txt')->header('Last-Modified')]);
is $r->status, 304, 'a file that has not changed';
like $r->header('Set-Cookie'), qr/^uid=/, 'gets one as well';
like get('/404')->header('Set-Cookie'), qr/^uid=/, 'an error';
like get('/redirect')->header('Set-Cookie'), qr/^uid=/, 'a redirect';
like $p->head('/on')->header('Set-Cookie'), qr/^uid=/, 'HEAD';
$r = get('/errpage');
@w = words($r, 'uid');
is $w[0], 8, 'the settings of the error page';
is scalar(@{ [$r->header_all('Set-Cookie')] }), 1, 'and one cookie';
$r = get('/set');
my ($cookie) = $r->header('Set-Cookie') =~ /^uid=([^;]+)/;
is $r->body, 'uid=' . join('', map { sprintf '%08X', $_ } unpack 'V4', decode_base64($cookie)), '$uid_set before the answer is what is sent';
get('/on', "uid=$id==");
ok $p->wait_log(qr/^\/on \Q$hex\E\|-$/m, 'access.log'), 'in the access log';
ok $p->wait_log(qr/^\/on -\|uid=\w{32}$/m, 'access.log'), 'the other way round';
my $x = $p->raw('main', "GET /on HTTP/1.1\r\nHost: h\r\n\r\n" x 2, count => 2);
isnt $x->{responses}[0]->header('Set-Cookie'), $x->{responses}[1]->header('Set-Cookie'), 'each request on a connection gets its own';
$p->stop;
done_testing;
