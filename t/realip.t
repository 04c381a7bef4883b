# SPDX-License-Identifier: BSD-2-Clause
#
# realip, where differential_auth.t cannot tell: it holds for one request and not for the connection; logs,
# access rules and proxied fields see the address; PROXY headers, unix sockets, IPv6; long lists.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/lib";
use IO::Socket::IP;
use Test::More;
use Proxyd;

my $v6 = IO::Socket::IP->new(LocalHost => '::1', LocalPort => 0, Proto => 'tcp', Listen => 1) ? 1 : 0;
my $say = 'return 200 "$remote_addr|$remote_port|$realip_remote_addr"';
my $p = Proxyd->new(conf => <<"EOT" =~ s/SAY/$say/gr =~ s/#V6 /$v6 ? '' : '#'/ger);
worker_processes 1;
http {
    root {{dir}}/html;
    default_type text/plain;
    large_client_header_buffers 8 64k;
    log_format main '\$remote_addr/\$realip_remote_addr/\$realip_remote_port \$request_uri \$status';
    access_log {{dir}}/access.log main;
    server {
        listen 127.0.0.1:{{port}};
        listen unix:{{dir}}/http.sock;
        set_real_ip_from 127.0.0.1;
        set_real_ip_from 10.0.0.0/8;
        location / { SAY; }
        location /acl/ { deny 9.9.9.9; allow 5.5.5.5; deny all; alias {{dir}}/html/; }
        location /none { return 404; }
        location /log/ { alias {{dir}}/html/nothing/; }
        location /any/ { satisfy any; allow 5.5.5.5; deny all; auth_basic x;
            auth_basic_user_file {{dir}}/none; alias {{dir}}/html/; }
        location /auth/ { auth_request /decide; error_page 404 \@say; }
        location /decide { if (\$remote_addr = 5.5.5.5) { return 204; } return 403; }
        location \@say { SAY; }
        location /redirect { rewrite ^ /say last; }
        location /page { error_page 404 /say; return 404; }
        location /proxy/ { proxy_pass http://127.0.0.1:{{port:app}}; proxy_set_header X-Forwarded-For \$proxy_add_x_forwarded_for;
            proxy_set_header X-Real-IP \$remote_addr; }
        location /own/ { set_real_ip_from 127.0.0.1; real_ip_header X-Own; set_real_ip_from 20.0.0.0/8;
            try_files /none \@say; }
        location /own/recursive/ { real_ip_recursive on; try_files /none \@say; }
        location /own/other/ { set_real_ip_from 99.0.0.0/8; try_files /none \@say; }
    }
    server {
        listen 127.0.0.1:{{port:list}};
#V6     listen [::1]:{{port:list}};
        set_real_ip_from 127.0.0.0/8; set_real_ip_from ::1; set_real_ip_from 10.0.0.0/8;
        real_ip_header X-Forwarded-For;
        real_ip_recursive on;
        location / { SAY; }
    }
    server {
        listen 127.0.0.1:{{port:once}};
        set_real_ip_from 127.0.0.0/8; set_real_ip_from 10.0.0.0/8;
        real_ip_header X-Forwarded-For;
        location / { SAY; }
    }
    server {
        listen unix:{{dir}}/trusted.sock;
        set_real_ip_from unix:;
        location / { SAY; }
    }
    server {
        listen 127.0.0.1:{{port:pp}} proxy_protocol;
        set_real_ip_from localhost;
        real_ip_header proxy_protocol;
        location / { SAY; }
    }
    server {
        listen 127.0.0.1:{{port:ppx}} proxy_protocol;
        set_real_ip_from 10.0.0.0/8;
        real_ip_header proxy_protocol;
        location / { SAY; }
    }
}
EOT
$p->write_file('html/a.txt', "a\n");
$p->echo_origin('app');
$p->start;

# "remote_addr|remote_port|realip_remote_addr": the answer, a port of the test's own as PORT.
sub said {
    my ($r) = @_;
    my $b = ref $r ? $r->body : $r;
    $b =~ s/\|\d{5}\|/|PORT|/;
    return $b;
}
sub is_said { my ($want, $name, $uri, $headers, $port) = @_; is said($p->get($uri, headers => $headers, port => $port || 'main')), $want, $name }

# --- one request, not the connection ------------------------------------------------------------------------
my $c = $p->connect('main');
sub ask { my ($uri, @h) = @_; my $t = "GET $uri HTTP/1.1\r\nHost: x\r\n"; while (my ($n, $v) = splice @h, 0, 2) { $t .= "$n: $v\r\n" } return "$t\r\n" }
my @turns = (['1.1.1.1', '1.1.1.1||127.0.0.1'], [undef, '127.0.0.1|PORT|127.0.0.1'], ['2.2.2.2:22', '2.2.2.2|22|127.0.0.1'], ['junk', '127.0.0.1|PORT|127.0.0.1'],
    ['10.0.0.1', '10.0.0.1||127.0.0.1'], ['2001:db8::1', '2001:db8::1||127.0.0.1'], ['[2001:db8::1]:65535', undef], [undef, '127.0.0.1|PORT|127.0.0.1']);
for (@turns) {
    $c->send(ask('/', $_->[0] ? ('X-Real-IP', $_->[0]) : ()));
    my $r = $c->response;
    is $_->[1] ? said($r) : $r->body, $_->[1] // '2001:db8::1|65535|127.0.0.1', 'on one connection: ' . ($_->[0] // 'no field');
}
$c->close;
$c = $p->connect('main');
$c->send(join '', map { ask('/', $_->[0] ? ('X-Real-IP', $_->[0]) : ()) } (@turns) x 5);
for (1 .. 5) {
    is $_->[1] ? said($c->response) : $c->response->body, $_->[1] // '2001:db8::1|65535|127.0.0.1', 'pipelined: ' . ($_->[0] // 'no field') for @turns;
}
$c->close;
$c = $p->connect('main');
$c->send("GET / HTTP/1.1\r\nHost: x\r\nX-Real-IP: 3.3.3.3\r\n\r\n");
is said($c->response), '3.3.3.3||127.0.0.1', 'before a bad request';
$c->send("GARBAGE\r\n\r\n");
is $c->response->status, 400, 'a bad request';
Proxyd::wait_for(sub { $p->access_log =~ / 400$/m });
is_deeply [split /\n/, $p->access_log =~ /^(\S+)\/\d+ \S* 400$/m ? $1 : '-'], ['127.0.0.1/127.0.0.1'], 'is the socket\'s peer\'s';
$c->close;

# --- who sees it ---------------------------------------------------------------------------------------------
for (['5.5.5.5', 200], ['9.9.9.9', 403], ['127.0.0.1', 403], ['junk', 403], ['5.5.5.5, 9.9.9.9', 403], ['9.9.9.9, 5.5.5.5', 200]) {
    is $p->get('/acl/a.txt', headers => ['X-Real-IP', $_->[0]])->status, $_->[1], "access rules: $_->[0]";
}
is $p->get('/any/a.txt', headers => ['X-Real-IP', '5.5.5.5'])->status, 200, 'satisfy any by the address';
is $p->get('/any/a.txt', headers => ['X-Real-IP', '5.5.5.6'])->status, 401, 'satisfy any, neither';
is $p->get('/auth/', headers => ['X-Real-IP', $_->[0]])->status, $_->[1], "the subrequest sees $_->[0]" for ['5.5.5.5', 404], ['5.5.5.6', 403];
is_said('5.5.5.5||127.0.0.1', 'behind a rewrite', '/redirect', ['X-Real-IP', '5.5.5.5']);
is_said('5.5.5.5||127.0.0.1', 'in an error page', '/page', ['X-Real-IP', '5.5.5.5']);
is $p->get('/log/x', headers => ['X-Real-IP', '6.6.6.6'])->status, 404, 'logged';
ok $p->wait_log(qr{open\(\) "\S+/nothing/x" failed .*, client: 6\.6\.6\.6, server}), 'in the error log';
ok $p->wait_log(qr{^6\.6\.6\.6/127\.0\.0\.1/\d+ /log/x 404$}m, 'access.log'), 'in the access log';
my $rep = Proxyd::report($p->get('/proxy/', headers => ['X-Real-IP', '7.7.7.7', 'X-Forwarded-For', '1.2.3.4']));
is Proxyd::report_header($rep, 'X-Forwarded-For'), '1.2.3.4, 7.7.7.7', 'in $proxy_add_x_forwarded_for';
is Proxyd::report_header($rep, 'X-Real-IP'), '7.7.7.7', 'in $remote_addr';

# --- levels -----------------------------------------------------------------------------------------------------
is_said('1.1.1.1||127.0.0.1', 'the location\'s field', '/own/', ['X-Own', '1.1.1.1']);
is_said('2.2.2.2||127.0.0.1', 'the server\'s comes first, and stays', '/own/', ['X-Own', '1.1.1.1', 'X-Real-IP', '2.2.2.2']);
is_said('20.0.0.1||127.0.0.1', 'not recursive', '/own/', ['X-Own', '1.1.1.1, 20.0.0.1']);
is_said('10.0.0.1||127.0.0.1', 'recursive, the server\'s networks', '/own/recursive/', ['X-Real-IP', '1.1.1.1, 10.0.0.1']);
is_said('127.0.0.1|PORT|127.0.0.1', 'networks are replaced as a whole', '/own/other/', ['X-Own', '1.1.1.1']);

# --- lists --------------------------------------------------------------------------------------------------------
my $many = join ', ', '4.4.4.4', map { '10.' . join '.', $_ >> 8, $_ & 255, 1 } 1 .. 3500;
my $garbage = join ',', map { "x$_" } 1 .. 5000;
for (
    [$many, '4.4.4.4|', '10.13.172.1|'], ["$garbage,4.4.4.4", '4.4.4.4|', '4.4.4.4|'], ["4.4.4.4,$garbage", '127.0.0.1|PORT', '127.0.0.1|PORT'],
    ["4.4.4.4,$garbage,10.0.0.1", '10.0.0.1|', '10.0.0.1|'], [',' x 30_000, '127.0.0.1|PORT', '127.0.0.1|PORT'], [', 4.4.4.4', '4.4.4.4|', '4.4.4.4|'],
    ['4.4.4.4' . ' ,' x 10_000, '4.4.4.4|', '4.4.4.4|'], ['1' x 60_000, '127.0.0.1|PORT', '127.0.0.1|PORT'], ['[::1]', '::1|', '::1|'],
    ['4.4.4.4, [::1]', '4.4.4.4|', '::1|'], ["4.4.4.4\t10.0.0.1", '127.0.0.1|PORT', '127.0.0.1|PORT'], ["\xff\xfe", '127.0.0.1|PORT', '127.0.0.1|PORT'],
    ['::ffff:4.4.4.4', '::ffff:4.4.4.4|', '::ffff:4.4.4.4|'], ['4.4.4.4, ::ffff:10.1.1.1', '4.4.4.4|', '::ffff:10.1.1.1|'], ['fe80::1%eth0', '127.0.0.1|PORT', '127.0.0.1|PORT'],
    ['"4.4.4.4"', '127.0.0.1|PORT', '127.0.0.1|PORT'], ['4.4.4.4:', '127.0.0.1|PORT', '127.0.0.1|PORT'], [']:80', '127.0.0.1|PORT', '127.0.0.1|PORT'], ['[', '127.0.0.1|PORT', '127.0.0.1|PORT'],
) {
    my ($list, $rec, $once) = @$_;
    my $short = substr $list =~ s/[^ -~]/?/gr, 0, 30;
    is_said("$rec|127.0.0.1", "recursive: $short", '/', ['X-Forwarded-For', $list], 'list');
    is_said("$once|127.0.0.1", "once: $short", '/', ['X-Forwarded-For', $list], 'once');
}
my @lines = map { ('X-Forwarded-For', '10.0.' . ($_ >> 8) . '.' . ($_ & 255)) } 0 .. 899;
is_said('4.4.4.4||127.0.0.1', '900 lines', '/', ['X-Forwarded-For', '4.4.4.4', @lines], 'list');
is_said('10.0.3.131||127.0.0.1', '900 lines, the last', '/', ['X-Forwarded-For', '4.4.4.4', @lines], 'once');
is_said('10.0.3.131||127.0.0.1', 'an empty line ends the search', '/', ['X-Forwarded-For', '4.4.4.4', 'X-Forwarded-For', '', 'X-Forwarded-For', '10.0.3.131'], 'list');
is_said('10.0.3.131||127.0.0.1', 'so does one of commas', '/', ['X-Forwarded-For', '4.4.4.4', 'X-Forwarded-For', ' , ,', 'X-Forwarded-For', '10.0.3.131'], 'list');

# --- IPv6, unix sockets, PROXY headers ------------------------------------------------------------------------------
SKIP: {
    skip 'no IPv6 here', 2 unless $v6;
    my $port = $p->port('list');
    my $r = $p->raw("[::1]:$port", "GET / HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 4.4.4.4\r\n\r\nGET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    is said($r->{responses}[0]), '4.4.4.4||::1', 'from an IPv6 peer';
    is said($r->{responses}[1]), '::1|PORT|::1', 'and without the field';
}
for (['trusted', '4.4.4.4||unix:', 'unix:||unix:'], ['http', 'unix:||unix:', 'unix:||unix:']) {
    my ($name, @want) = @$_;
    my $r = $p->raw('unix:' . $p->dir . "/$name.sock", "GET / HTTP/1.1\r\nHost: x\r\nX-Real-IP: 4.4.4.4\r\n\r\nGET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    is said($r->{responses}[$_]), $want[$_], "unix socket $name, request $_" for 0, 1;
}
for (['pp', "PROXY TCP4 1.2.3.4 5.6.7.8 1234 80\r\n", '1.2.3.4|1234|127.0.0.1'], ['pp', "PROXY TCP6 2001:db8::1 2001:db8::2 1234 80\r\n", '2001:db8::1|1234|127.0.0.1'],
    ['pp', "PROXY UNKNOWN\r\n", '127.0.0.1|PORT|127.0.0.1'], ['ppx', "PROXY TCP4 1.2.3.4 5.6.7.8 1234 80\r\n", '127.0.0.1|PORT|127.0.0.1']) {
    my ($port, $head, $want) = @$_;
    my $r = $p->raw($port, $head . "GET / HTTP/1.1\r\nHost: x\r\n\r\nGET / HTTP/1.1\r\nHost: x\r\nX-Real-IP: 9.9.9.9\r\nConnection: close\r\n\r\n");
    is said($r->{responses}[$_]), $want, "$port $head, request $_" =~ s/\r\n//r for 0, 1;
}

$p->stop;
done_testing;
