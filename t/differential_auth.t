# SPDX-License-Identifier: BSD-2-Clause
#
# Who may come in, asked of nginx and of the server under test: auth_basic, auth_request, satisfy,
# limit_except, internal, realip, secure_link. The same answers and the same error log lines.
#
# Known differences, not in the table: nginx decodes credentials up to the first "=" and does not look at what
# follows; it takes ",1.2.3.4" for one malformed address, and "[::1]" without a port too; it
# truncates a password at a NUL; it sends the request's Content-Length to the deciding server
# without a body (the configuration below hides that); 1.22 passes on only the first of several challenges.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/lib";
use Digest::MD5 qw(md5 md5_hex);
use Digest::SHA qw(sha1);
use MIME::Base64 qw(encode_base64 encode_base64url);
use Test::More;
use Proxyd;
use Proxyd::Differential;

plan skip_all => 'nginx is not installed' unless Proxyd::Differential::available();

my $all   = join '|', qw(aaa bbb ccc);
my @combo = map { my $x = $_; map { [$x, $_] } qw(none allow deny) } qw(none basic request both);
my $conf  = <<'EOT';
worker_processes 1;
http {
    default_type text/plain;
    proxy_http_version 1.1;
    proxy_set_header Connection "";
    upstream app { server 127.0.0.1:{{port:app}}; keepalive 8; }
    map $arg_realm $realm { default "r $arg_realm"; none off; }
    map $remote_port $port { default other; "" none; 80 80; 443 443; 65535 65535; }
    log_format who "$remote_addr $port $remote_user $status $uri";
    access_log {{dir}}/access.log who;

    server {
        listen 127.0.0.1:{{port}} default_server;
        server_name main.test;
        root {{dir}}/html;
        error_page 418 /nothing;

        location /basic/ { auth_basic closed; auth_basic_user_file {{dir}}/html/pw;
            alias {{dir}}/html/; }
        location /basic/off/ { auth_basic off; alias {{dir}}/html/; }
        location /basic/quoted/ { auth_basic "the \"site\" 'x' $host";
            auth_basic_user_file {{dir}}/html/pw; alias {{dir}}/html/; }
        location /basic/empty/ { auth_basic ""; auth_basic_user_file {{dir}}/html/pw;
            alias {{dir}}/html/; }
        location /basic/realm/ { auth_basic $realm; auth_basic_user_file {{dir}}/html/$arg_f;
            alias {{dir}}/html/; }
        location /basic/page/ { auth_basic x; auth_basic_user_file {{dir}}/html/pw;
            error_page 401 /a.txt; alias {{dir}}/html/; }
        location /basic/named/ { auth_basic x; auth_basic_user_file {{dir}}/html/pw;
            error_page 401 = @named; alias {{dir}}/html/; }
        location /basic/again/ { auth_basic x; auth_basic_user_file {{dir}}/html/pw;
            error_page 401 /basic/again2/; alias {{dir}}/html/; }
        location /basic/again2/ { auth_basic y; auth_basic_user_file {{dir}}/html/pw;
            alias {{dir}}/html/; }
        location /basic/nofile/ { auth_basic x; auth_basic_user_file {{dir}}/html/none;
            alias {{dir}}/html/; }
        location /basic/dir/ { auth_basic x; auth_basic_user_file {{dir}}/html/;
            alias {{dir}}/html/; }
        location /basic/user { auth_basic x; auth_basic_user_file {{dir}}/html/pw;
            add_header X-User $remote_user always; try_files /a.txt =404; }
        location /basic/return/ { auth_basic x; auth_basic_user_file {{dir}}/html/pw;
            return 200 in; }
        location /basic/index/ { auth_basic x; auth_basic_user_file {{dir}}/html/pw;
            index none a.txt; alias {{dir}}/html/; }
        location /basic/limit/ { limit_except GET { auth_basic x;
            auth_basic_user_file {{dir}}/html/pw; } proxy_pass http://app; }
        location @named { return 200 "named $remote_user"; }
        location /user { return 200 "user=$remote_user"; }

        location = /auth { internal; proxy_pass http://app/auth?$args;
            proxy_pass_request_body off; proxy_set_header Content-Length ""; }
        location /st/200 { return 200; }
        location /st/204 { return 204; }
        location /st/301 { return 301 /x; }
        location /st/400 { return 400; }
        location /st/401 { return 401; }
        location /st/403 { return 403; }
        location /st/404 { return 404; }
        location /st/500 { return 500; }
        location /st/file { alias {{dir}}/html/a.txt; }
        location /st/none { alias {{dir}}/html/none; }
        location /st/deny { deny all; return 204; }
        location /st/denyfile { deny all; alias {{dir}}/html/a.txt; }
        location /st/page { error_page 404 =204 /a.txt; return 404; }
        location /st/basic { auth_basic x; auth_basic_user_file {{dir}}/html/pw;
            alias {{dir}}/html/a.txt; }
        location /st/app { proxy_pass http://app/$http_x_auth; proxy_pass_request_body off;
            proxy_set_header Content-Length ""; proxy_set_header X-Uri $request_uri;
            proxy_set_header X-Method $request_method; }
        location /st/down { proxy_pass http://127.0.0.1:{{port:closed}}; }
        location /st/intercept { proxy_pass http://app/401;
            proxy_pass_request_body off; proxy_set_header Content-Length ""; proxy_intercept_errors on;
            error_page 401 /nothing; }
        ASKS
        location /ask/set/ { auth_request /st/app; auth_request_set $who $upstream_http_x_who;
            auth_request_set $code $upstream_status; auth_request_set $limit_rate 100k;
            add_header X-Who "$who/$code" always; alias {{dir}}/html/; }
        location /ask/setpage/ { auth_request /st/app; auth_request_set $who $upstream_http_x_who;
            error_page 401 403 = @who; alias {{dir}}/html/; }
        location @who { return 200 "who=$who code=$code up=$upstream_http_x_who"; }
        location /ask/outer/ { auth_request /st/401; location /ask/outer/in/ {
            auth_request off; alias {{dir}}/html/; } }
        location /ask/twice/ { auth_request /st/app; index none a.txt; alias {{dir}}/html/; }
        location /ask/proxy/ { auth_request /st/app; proxy_pass http://app; }
        location /ask/return/ { auth_request /st/401; return 200 "first"; }

        COMBOS

        location /int/ { internal; alias {{dir}}/html/; }
        location /intrw/ { rewrite ^/intrw/(.*) /int/$1 last; }
        location /intbreak/ { rewrite ^/intbreak/(.*) /$1 break; internal; }
        location /intpage/ { error_page 404 /int/a.txt; return 404; }
        location /le/ { limit_except GET { deny all; } alias {{dir}}/html/; }
        location /le/post/ { limit_except POST { deny all; } return 200 x; }
        location /le/allow/ { limit_except GET { allow 127.0.0.1; deny all; } proxy_pass http://app; }
        location /le/two/ { satisfy any; limit_except GET POST { deny all; auth_basic x;
            auth_basic_user_file {{dir}}/html/pw; } proxy_pass http://app; }
        location /le/named/ { try_files /none @le; }
        location @le { limit_except GET { deny all; } proxy_pass http://app; }
        location /le/nested/ { limit_except GET { deny all; }
            location /le/nested/in/ { proxy_pass http://app; } }

        location /ri/ { set_real_ip_from 127.0.0.0/8; set_real_ip_from 10.0.0.0/8;
            return 200 "early $remote_addr"; }
        REALIPS

        location /s/ { secure_link $arg_md5,$arg_expires;
            secure_link_md5 "$secure_link_expires$uri secret";
            add_header X-Link "$secure_link/$secure_link_expires" always;
            if ($secure_link = "") { return 403; } if ($secure_link = "0") { return 410; }
            alias {{dir}}/html/; }
        location /s/plain/ { secure_link $arg_md5; secure_link_md5 "$uri secret";
            add_header X-Link "[$secure_link][$secure_link_expires]" always; alias {{dir}}/html/; }
        location /s/half/ { secure_link $arg_md5; secure_link_md5 "";
            return 200 "[$secure_link]"; }
        location /p/ { secure_link_secret secret; if ($secure_link = "") { return 403; }
            rewrite ^ /secure/$secure_link; }
        location /p/in/ { return 200 "[$secure_link]"; }
        location /secure/ { internal; return 200 "secure $uri $args"; }
    }
    server {
        listen 127.0.0.1:{{port}};
        server_name real.test;
        set_real_ip_from 127.0.0.1; set_real_ip_from 10.0.0.0/8; set_real_ip_from 2001:db8::/32;
        real_ip_header X-Forwarded-For; real_ip_recursive on;
        location / { return 200 "$remote_addr $port $realip_remote_addr"; }
        location /acl/ { allow 1.2.3.4; deny all; alias {{dir}}/html/; }
        location /fwd/ { proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
            proxy_pass http://app/echo; }
    }
    server {
        listen 127.0.0.1:{{port}};
        server_name untrusted.test;
        set_real_ip_from 10.0.0.0/8;
        location / { return 200 "$remote_addr $realip_remote_addr"; }
    }
}
EOT

my $asks = join '', map { "location /ask/$_/ { auth_request /st/$_; alias {{dir}}/html/; }\n" }
    qw(200 204 301 400 401 403 404 500 file none deny denyfile page basic app down intercept);
my $combos = '';
for my $satisfy (qw(all any)) {
    for (@combo) {
        my ($auth, $access) = @$_;
        $combos .= "location /c/$satisfy/$auth/$access/ { satisfy $satisfy; alias {{dir}}/html/; ";
        $combos .= "auth_basic x; auth_basic_user_file {{dir}}/html/pw; " if $auth =~ /basic|both/;
        $combos .= "auth_request /st/app; " if $auth =~ /request|both/;
        $combos .= $access eq 'none' ? '' : "$access all; ";
        $combos .= "}\n";
    }
}
my $realips = '';
for my $header (qw(X-Real-IP X-Forwarded-For x-forwarded-for X-Own proxy_protocol)) {
    for my $rec (qw(on off)) {
        # Behind try_files: the content comes after the second run of the module.
        $realips .= "location /ri/$header/$rec/ { set_real_ip_from 127.0.0.0/8; "
            . "set_real_ip_from 10.0.0.0/8; set_real_ip_from 2001:db8::/32; real_ip_header $header; "
            . "real_ip_recursive $rec; try_files /none \@ri; }\n";
    }
}
$realips .= 'location @ri { return 200 "$remote_addr $port $realip_remote_addr"; }';
$conf =~ s/ASKS/$asks/;
$conf =~ s/COMBOS/$combos/;
$conf =~ s/REALIPS/$realips/;

sub ssha { '{SSHA}' . encode_base64(sha1("$_[0]$_[1]") . $_[1], '') }
my $pw = join "\n", '# users', '', 'sha:{SHA}' . encode_base64(sha1('pw'), ''),
    'ssha:' . ssha('pw', 'salty'), 'plain:{PLAIN}pw', 'comment:{PLAIN}pw:a comment',
    'crlf:{PLAIN}pw' . "\r", 'des:' . crypt('pw', 'ab'), 'md5:' . crypt('pw', '$1$abcdefgh$'),
    'sha256:' . crypt('pw', '$5$rounds=1000$abcdefgh$'),
    'sha512:' . crypt('pw', '$6$rounds=1000$abcdefgh$'),
    'bcrypt:' . crypt('pw', '$2y$05$abcdefghijklmnopqrstuu'),
    'apr1:$apr1$abcdefgh$' . 'XXXX', 'empty:', 'emptyplain:{PLAIN}', 'bad:$9$nonsense', 'star:*',
    '#hash:{PLAIN}pw', 'two:{PLAIN}first', 'two:{PLAIN}second', 'nocolon', 'sha1:{SHA}xx',
    'ssha1:{SSHA}YWJj', 'space user:{PLAIN}p w', 'last:{PLAIN}pw';
my $apr1 = `openssl passwd -apr1 -salt abcdefgh pw`;
chomp $apr1;
$pw =~ s/\$apr1\$abcdefgh\$XXXX/$apr1/;

my ($tested, $theirs) = Proxyd::Differential::start(
    conf    => $conf,
    files   => { 'a.txt' => "a\n", 'nothing' => "nothing\n", 'pw' => $pw, 'pw2' => "u:{PLAIN}p" },
    closed  => ['closed'],
    origins => {
        app => sub {
            my ($c) = @_;
            while (my $req = $c->request) {
                my ($status) = $req->{uri} =~ m{(\d{3})};
                my $extra = $req->{uri} =~ /401/ ? "WWW-Authenticate: Bearer realm=\"up\"\r\n" : '';
                my $body  = join "|", map { defined $_ ? $_ : '-' } $req->{method}, $req->{uri},
                    @{ $req->{h} }{qw(x-uri x-method content-length x-forwarded-for)}, $req->{body};
                $status ||= 200;
                my $length = $status == 204 ? '' : 'Content-Length: ' . length($body) . "\r\n";
                $c->write("HTTP/1.1 $status Whatever\r\n${extra}X-Who: w$status\r\n$length\r\n"
                    . ($length && $req->{method} ne 'HEAD' ? $body : ''));
            }
        },
    });

sub row { Proxyd::Differential::row(@_) }
sub basic { ('Authorization', 'Basic ' . encode_base64($_[0], '')) }

my @rows;
# every kind of hash, right and wrong
push @rows, map { (row('GET', '/basic/a.txt', basic("$_:pw")), row('GET', '/basic/a.txt', basic("$_:no"))) }
    qw(sha ssha plain comment crlf des md5 sha256 sha512 bcrypt apr1 empty emptyplain bad star hash
    sha1 ssha1 last nobody), '#hash';
push @rows, row('GET', '/basic/a.txt', basic('two:first')), row('GET', '/basic/a.txt', basic('two:second')),
    row('GET', '/basic/a.txt', basic('nocolon:')), row('GET', '/basic/a.txt', basic('space user:p w')),
    row('GET', '/basic/a.txt', basic('emptyplain:')), row('GET', '/basic/a.txt', basic('empty:')),
    row('GET', '/basic/a.txt', basic('plain:pw:more'));
# what is no credentials
push @rows, map { row('GET', '/basic/a.txt', 'Authorization', $_) } 'Basic', 'Basic ', 'basic ' . encode_base64('plain:pw', ''),
    'BASIC   ' . encode_base64('plain:pw', ''), 'Basic !!!!', 'Basic ' . encode_base64('plain', ''),
    'Basic ' . encode_base64(':pw', ''), 'Bearer abc', 'Basic YQ',
    'Basic cGxhaW46cHc', 'Basic cGxhaW46cHc=', 'Basic A', 'Digest x', "Basic\tcGxhaW46cHc=", '';
push @rows, row('GET', '/basic/a.txt'), row('HEAD', '/basic/a.txt'), row('POST', '/basic/a.txt', 'body'),
    map { my $p = $_; (row('GET', "/basic/$p"), row('GET', "/basic/$p", basic('plain:pw')),
        row('GET', "/basic/$p", basic('plain:no'))) } qw(off/a.txt quoted/a.txt empty/a.txt realm/a.txt?f=pw
        realm/a.txt?f=pw&realm=none realm/a.txt?realm=1&f=pw2 realm/a.txt?f=gone page/a.txt named/a.txt
        again/a.txt nofile/a.txt dir/a.txt user return/x index/ limit/x);
push @rows, row('GET', '/basic/realm/a.txt?f=pw2', basic('u:p')), row('POST', '/basic/limit/200', 'b'),
    row('POST', '/basic/limit/200', basic('plain:pw'), 'b'),
    map { row('GET', '/user', 'Authorization', $_) } 'Basic cGxhaW46cHc=', 'Basic x', 'Basic OnB3', 'Basic cGxhaW4=', 'Bearer q';
# auth_request
push @rows, map { (row('GET', "/ask/$_/a.txt"), row('POST', "/ask/$_/a.txt", 'body')) }
    qw(200 204 301 400 401 403 404 500 file none deny denyfile page basic down intercept);
for my $code (200, 204, 299, 302, 400, 401, 403, 404, 500, 503) {
    push @rows, map { row('GET', "/ask/$_", 'X-Auth', $code) } qw(app/a.txt set/a.txt setpage/a.txt twice/ proxy/200);
    push @rows, row('HEAD', '/ask/app/a.txt', 'X-Auth', $code), row('POST', '/ask/proxy/200', 'X-Auth', $code, 'a body');
}
# what is meant for the content does not touch the decision
for my $h (['Range', 'bytes=0-0'], ['If-Modified-Since', 'Fri, 14 Jul 2017 02:40:00 GMT'], ['If-None-Match', '"59682f00-2"'],
    ['If-Match', '"x"'], ['If-Unmodified-Since', 'Fri, 14 Jul 2000 02:40:00 GMT'], ['Accept-Encoding', 'gzip']) {
    push @rows, map { row('GET', "/ask/$_/a.txt", @$h) } qw(file page app 403);
}
push @rows, row('GET', '/auth'), row('GET', '/ask/outer/a.txt'), row('GET', '/ask/outer/in/a.txt'), row('GET', '/ask/return/'),
    row('POST', '/ask/proxy/200', 'X-Auth', 200, 'Transfer-Encoding', 'chunked', "3\r\nabc\r\n0\r\n\r\n");
# satisfy
for my $satisfy (qw(all any)) {
    for (@combo) {
        my $uri = "/c/$satisfy/$_->[0]/$_->[1]/a.txt";
        for my $up ($_->[0] =~ /request|both/ ? (200, 401, 403, 500) : (200)) {
            push @rows, map { row('GET', $uri, 'X-Auth', $up, @$_) } [], [basic('plain:pw')], [basic('plain:no')],
                [basic('bcrypt:pw')], [basic('bcrypt:no')];
        }
    }
}
# internal, limit_except
push @rows, map { row('GET', $_) } qw(/int/a.txt /intrw/a.txt /intbreak/a.txt /intpage/x);
push @rows, map { my $u = $_; map { row($_, $u, $_ eq 'POST' ? 'b' : ()) } qw(GET HEAD POST DELETE PUT) }
    qw(/le/a.txt /le/post/x /le/allow/200 /le/two/200 /le/named/200 /le/nested/200 /le/nested/in/200);
push @rows, row('DELETE', '/le/two/200', basic('plain:pw'));
# realip
my @lists = ('1.2.3.4', '1.2.3.4:80', '1.2.3.4:0', '1.2.3.4:99999', '1.2.3.4:x', '1.2.3.4, 5.6.7.8', '1.2.3.4,5.6.7.8',
    '1.2.3.4,10.0.0.1', '1.2.3.4, 10.0.0.1, 10.0.0.2', '10.0.0.3, 10.0.0.1', '1.2.3.4 5.6.7.8', 'garbage',
    'garbage, 10.0.0.1', '1.2.3.4, garbage', '1.2.3.4,', ', 10.0.0.1', ' , ', '::1', '[::1]:80', '2001:db8::5',
    '9.9.9.9, 2001:db8::5', '[2001:db8::5]:443', '9.9.9.9, [2001:db8::5]:443', '1.2.3', '1.2.3.4.5', '256.1.1.1', 'unix:/x',
    'unix:', '::ffff:10.0.0.1', '9.9.9.9, ::ffff:10.0.0.1', 'localhost', '1.2.3.4;5.6.7.8', '127.0.0.1', '1.2.3.4, 127.0.0.1',
    '1.2.3.4, unknown, 10.0.0.1', '_x', '0.0.0.0', '1.2.3.4:65535', '1.2.3.4:65536');
for my $path (map { my $h = $_; map { "$h/$_" } qw(on off) } qw(X-Real-IP X-Forwarded-For x-forwarded-for X-Own)) {
    my ($name) = split m{/}, $path;
    push @rows, map { row('GET', "/ri/$path/x", $name, $_) } @lists;
    push @rows, row('GET', "/ri/$path/x"), row('GET', "/ri/$path/x", $name, '1.1.1.1', $name, '2.2.2.2'),
        row('GET', "/ri/$path/x", $name, '1.1.1.1', $name, '10.0.0.2'), row('GET', "/ri/$path/x", $name, '10.0.0.1', $name, '10.0.0.2'),
        row('GET', "/ri/$path/x", $name, '1.1.1.1', $name, 'junk'), row('GET', "/ri/$path/x", $name, '1.1.1.1, junk', $name, '10.0.0.2');
}
push @rows, row('GET', '/ri/proxy_protocol/on/x', 'X-Real-IP', '1.2.3.4'), row('GET', '/ri/x', 'X-Real-IP', '1.2.3.4');
push @rows, map { (row('GET', '/', 'Host', 'real.test', 'X-Forwarded-For', $_), row('GET', '/acl/a.txt', 'Host', 'real.test',
    'X-Forwarded-For', $_), row('GET', '/fwd/', 'Host', 'real.test', 'X-Forwarded-For', $_)) } @lists;
push @rows, row('GET', '/', 'Host', 'real.test'), row('GET', '/', 'Host', 'untrusted.test', 'X-Real-IP', '1.2.3.4');
# secure_link
sub link_md5 { encode_base64url(md5($_[0])) }
for my $exp ('', 1, 100, 2147483647, 4102444800, 'x', '-1', '0', '12x', '99999999999999999999', '%205') {
    push @rows, row('GET', '/s/a.txt?md5=' . link_md5("$exp/s/a.txt secret") . "&expires=$exp");
}
push @rows, row('GET', '/s/a.txt?md5=' . link_md5('2147483647/s/a.txt secret') . '==&expires=2147483647'),
    row('GET', '/s/a.txt?md5=' . link_md5('2147483647/s/b.txt secret') . '&expires=2147483647'), row('GET', '/s/a.txt'),
    row('GET', '/s/a.txt?md5=abc&expires=2147483647'), row('GET', '/s/a.txt?md5=' . ('A' x 22) . '&expires=2147483647'),
    row('GET', '/s/a.txt?md5=' . ('A' x 25) . '&expires=2147483647'), row('GET', '/s/a.txt?md5=' . md5_hex('x')),
    row('GET', '/s/plain/a.txt?md5=' . link_md5('/s/plain/a.txt secret')), row('GET', '/s/plain/a.txt?md5=bad'),
    row('GET', '/s/plain/a.txt?md5=' . link_md5('/s/plain/a.txt secret') . ',5'), row('GET', '/s/plain/a.txt'),
    row('GET', '/s/half/x?md5=' . link_md5(''));
push @rows, map { row('GET', "/p/$_") } md5_hex('linksecret') . '/link', uc(md5_hex('linksecret')) . '/link', md5_hex('link') . '/link',
    md5_hex('a/b.txtsecret') . '/a/b.txt', md5_hex('link?x=1secret') . '/link?x=1', md5_hex('linksecret') . '/link?x=1',
    md5_hex('secret') . '/', md5_hex('secret'), 'short/link', '', md5_hex('a%20bsecret') . '/a%20b', md5_hex('a bsecret') . '/a%20b',
    ('z' x 32) . '/link', md5_hex('linksecret') . '0/link';
push @rows, row('GET', '/p/in/' . md5_hex('xsecret') . '/x'), row('GET', '/p//' . md5_hex('xsecret') . '/x');

Proxyd::Differential::compare($tested, $theirs, @rows);

# The lines of the logs: the same, in the same order, but for what proxyd says at info besides.
sub errors {
    my ($s) = @_;
    my $dir = $s->dir;
    my @l = grep { /\[(?:error|crit|warn)\]|no user\/password/ } split /\n/, $s->error_log;
    for (@l) {
        s/^.*?\[(\w+)\] \d+#\d+: \*\d+ /$1: /;
        s/\Q$dir\E/DIR/g;
        s/\bpread\(\)/read()/;
        s/ while [a-z ]+, client/, client/;
        s/, upstream: .*//;
        s/, host: .*//;
    }
    return @l;
}

sub same {
    my ($ours, $other, $name) = @_;
    cmp_ok scalar @$other, '>', 200, "$name: lines were logged";
    my ($n) = sort { $b <=> $a } scalar @$ours, scalar @$other;
    my @differ = grep { ($ours->[$_] // '') ne ($other->[$_] // '') } 0 .. $n - 1;
    ok !@differ, "$name: the same lines" or diag join "\n",
        map { 'ours:   ' . ($ours->[$_] // '-') . "\ntheirs: " . ($other->[$_] // '-') }
        grep { defined } @differ[0 .. 9];
}

$_->signal('QUIT') for $tested, $theirs;
Proxyd::wait_for(sub { !grep { $_->workers } $tested, $theirs });
same([errors($tested)], [errors($theirs)], 'error log');
same([split /\n/, $tested->access_log], [split /\n/, $theirs->access_log], 'access log');

$_->stop for $tested, $theirs;
done_testing;
