# SPDX-License-Identifier: BSD-2-Clause
#
# secure_link: the manual's two examples, inheritance, times, and links that are not what they should be.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/lib";
use Digest::MD5 qw(md5 md5_hex);
use MIME::Base64 qw(encode_base64 encode_base64url);
use Test::More;
use Proxyd;

my $p = Proxyd->new(conf => <<'EOT');
worker_processes 1;
http {
    default_type text/plain;
    large_client_header_buffers 4 64k;
    secure_link $arg_outer;
    secure_link_md5 "outer $uri";
    log_format link '$request_uri [$secure_link] [$secure_link_expires]';
    access_log {{dir}}/access.log link;
    server {
        listen 127.0.0.1:{{port}};
        location / { return 200 "[$secure_link]"; }
        location /s/ {
            secure_link $arg_md5,$arg_expires;
            secure_link_md5 "$secure_link_expires$uri$remote_addr secret";
            if ($secure_link = "") { return 403; }
            if ($secure_link = "0") { return 410; }
            return 200 "[$secure_link] [$secure_link_expires]";
        }
        location /md5only/ { secure_link_md5 "inner $uri"; return 200 "[$secure_link]"; }
        location /agent/ { secure_link $http_x_link; secure_link_md5 "$http_user_agent$cookie_id";
            return 200 "[$secure_link]"; }
        location /p/ {
            secure_link_secret secret;
            if ($secure_link = "") { return 403; }
            rewrite ^ /secure/$secure_link;
        }
        location /secure/ { internal; return 200 "secure $uri"; }
        location /q/ { secure_link_secret word; return 200 "[$secure_link] [$secure_link_expires]";
            location /q/half/ { secure_link $arg_outer; return 200 "[$secure_link]"; }
            location /q/own/ { secure_link $arg_outer; secure_link_md5 "q $uri"; return 200 "[$secure_link]"; }
            location /q/in/ { return 200 "[$secure_link]"; } }
        location /empty/ { secure_link_secret ""; return 200 "[$secure_link]"; }
    }
}
EOT
$p->start;

sub sum { encode_base64url(md5(join '', @_)) }

# The manual's.
is $p->get('/s/link?md5=_e4Nc3iduzkWRm01TBBNYw&expires=2147483647')->body, '[1] [2147483647]', 'the first example';
is $p->get('/p/5e814704a28d9bc1914ff19fa0c4a00a/link')->body, 'secure /secure/link', 'the second example';

# A link with a time. [what, md5, expires, status]
my $sum = sub { my ($e) = @_; sum("$e/s/x127.0.0.1 secret") };
for (
    ['in the future', $sum->(4102444800), '4102444800', 200], ['long past', $sum->(1), '1', 410], ['just past', $sum->(time - 2), time - 2, 410],
    ['soon', $sum->(time + 100), time + 100, 200], ['no time after the comma', $sum->(''), '', 403], ['a time of 0', $sum->(0), '0', 403],
    ['another time', $sum->(4102444800), '4102444801', 403], ['a word', $sum->('x'), 'x', 403], ['negative', $sum->(-1), '-1', 403],
    ['a sign', $sum->('+4102444800'), '+4102444800', 403], ['too large', $sum->('9' x 30), '9' x 30, 403], ['a second comma', $sum->('5,6'), '5,6', 403],
    ['with padding', $sum->(4102444800) . '==', '4102444800', 200], ['wrong padding', $sum->(4102444800) . '=', '4102444800', 403],
    ['cut short', substr($sum->(4102444800), 0, 21), '4102444800', 403], ['too long', $sum->(4102444800) . 'A', '4102444800', 403],
    ['nothing', '', '4102444800', 403], ['not of the alphabet', '+' x 22, '4102444800', 403], ['much too long', 'A' x 20_000, '4102444800', 403],
) {
    my ($what, $md5, $expires, $status) = @$_;
    my $r = $p->get("/s/x?md5=$md5&expires=$expires");
    is $r->status, $status, "a time: $what";
    is $r->body, "[1] [$expires]", 'body' if $status == 200;
}
is $p->get('/s/y?md5=' . $sum->(4102444800) . '&expires=4102444800')->status, 403, 'another link';
is $p->get('/s/%78?md5=' . $sum->(4102444800) . '&expires=4102444800')->status, 200, 'another way to write it';
is $p->get('/s/')->status, 403, 'no arguments';

# Without a time, levels, other parts of the request.
for (
    ['/x?outer=' . sum('outer /x'), '[1]', 'inherited'], ['/x', '[]', 'none given'], ['/x?outer=' . sum('outer /y'), '[]', 'another link'],
    ['/x?outer=' . sum('outer /x') . ',4102444800', '[1]', 'a time that the checksum does not cover'], ['/x?outer=' . sum('outer /x') . ',1', '[0]', 'which is past'],
    ['/md5only/x?outer=' . sum('inner /md5only/x'), '[1]', 'one of the two of its own'], ['/q/own/x?outer=' . sum('q /q/own/x'), '[1]', 'instead of the secret above'],
    ['/q/half/x?outer=' . sum('outer /q/half/x'), '[]', 'of which a secret in between has hidden one'],
    ['/q/' . md5_hex('xword') . '/x', '[x] []', 'the other form, instead of that above'], ['/q/in/' . md5_hex('xword') . '/x', '[]', 'a prefix has no slash in it'],
    ['/empty/' . md5_hex('x') . '/x', '[x]', 'an empty secret'],
) {
    is $p->get($_->[0])->body, $_->[1], $_->[2];
}
is $p->get('/agent/', headers => ['X-Link', sum('me7'), 'User-Agent', 'me', 'Cookie', 'id=7'])->body, '[1]', 'fields';
is $p->get('/agent/', headers => ['X-Link', sum('me7'), 'User-Agent', 'you', 'Cookie', 'id=7'])->body, '[]', 'other fields';

# /prefix/hash/link
for (
    [md5_hex('linksecret') . '/link', 200, 'right'], [uc(md5_hex('linksecret')) . '/link', 200, 'in capitals'], [md5_hex('linksecret') . '/lin', 403, 'another link'],
    [md5_hex('link') . '/link', 403, 'without the secret'], [md5_hex('a/b/csecret') . '/a/b/c', 200, 'slashes in the link'], [md5_hex('secret') . '/', 403, 'an empty link'],
    [md5_hex('secret'), 403, 'no link'], ['', 403, 'no hash'], ['x/link', 403, 'a short hash'], [md5_hex('linksecret') . '0/link', 403, 'a long hash'],
    [substr(md5_hex('linksecret'), 0, 31) . 'g/link', 403, 'no hexadecimal'], ['/' . md5_hex('linksecret') . '/link', 403, 'an empty part'],
    [md5_hex('link?asecret') . '/link?a', 200, 'arguments belong to it'], [md5_hex('linksecret') . '/link?a', 403, 'and cannot be left out'],
    [md5_hex('a%20bsecret') . '/a%20b', 200, 'as it was written'], ['a' x 30_000 . '/x', 403, 'very long'],
) {
    is $p->get("/p/$_->[0]")->status, $_->[1], "with a secret: $_->[2]";
}
ok $p->wait_log(qr{^/s/link\?\S+ \[1\] \[2147483647\]$}m, 'access.log'), 'in the log';

$p->stop;
done_testing;
