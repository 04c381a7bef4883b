# SPDX-License-Identifier: BSD-2-Clause
#
# Hostile URIs against every way in which a URI becomes a path, a redirect or a request to a server:
# the status is that of nginx, nothing outside of the roots comes out, no field is made of what was in a URI,
# each request leaves one line in the access log, and none of it depends on what the connection
# carried before.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/lib";
use Test::More;
use Proxyd;
use Proxyd::Differential;

plan skip_all => 'proxyd only' if Proxyd::is_nginx();
plan skip_all => 'no nginx to compare with' unless Proxyd::Differential::available();

my $conf = <<'EOT';
http {
    large_client_header_buffers 4 8k;
    log_format one '$status $request_length';
    access_log {{dir}}/access.log one;
    upstream app { server 127.0.0.1:{{port:app}}; }
    server {
        listen 127.0.0.1:{{port}};
        server_name main.test;
        root {{dir}}/html;
        location /al/ { alias {{dir}}/aliased/; }
        location ~ ^/re/(.+)$ { alias {{dir}}/html/$1; }
        location /try/ { try_files $uri $uri/ =404; }
        location /px/ { proxy_pass http://app/base/; }
        location /praw/ { proxy_pass http://app; }
        location /rw/ { rewrite ^/rw/(.*)$ /$1 last; }
        location /rb/ { rewrite ^/rb/(.*)$ /sub/$1 break; }
        location /nest/ { location ~ \.php$ { return 403; } root {{dir}}; }
        location ~ \.php$ { return 200 "php $uri"; }
        location /uri/ { return 200 "<$uri> <$args>"; }
        location /deny/ { deny all; }
        location /red/ { return 301 http://x$uri; }
        location /rel/ { return 302 $uri; }
        location /rewritten/ { rewrite (?s)^/rewritten/(.*)$ http://x/$1 redirect; }
        location /set/ { add_header X-U $uri; return 200 ok; }
        location /up/ { proxy_pass http://app$uri; proxy_set_header X-U $uri; }
    }
    server {
        listen 127.0.0.1:{{port}};
        server_name other.test;
        location / { return 200 "other $uri"; }
    }
}
EOT

my @tails = (
    # out of the root
    '../secret.txt', '..%2fsecret.txt', '%2e%2e/secret.txt', '%2e%2e%2fsecret.txt', '.%2e/secret.txt', '%2e./secret.txt',
    '%252e%252e%252fsecret.txt', '%25%32%65%25%32%65/secret.txt', '..\\secret.txt', '..%5csecret.txt', '%2e%2e%5csecret.txt',
    '....//secret.txt', '..;/secret.txt', 'sub/../../secret.txt', 'sub/%2e%2e/%2e%2e/secret.txt', 'sub/../../../secret.txt',
    '../' x 20 . 'etc/passwd', '%2e%2e/' x 20 . 'etc/passwd', '%2F%2e%2e%2Fsecret.txt', '..%00/secret.txt',
    '..%c0%afsecret.txt', '%c0%ae%c0%ae/secret.txt', '%e0%80%ae%e0%80%ae/secret.txt', '..%252fsecret.txt', '..//secret.txt', '/../secret.txt',
    '.../secret.txt', '..', '%2e%2e', '../', '..?', '../..', '..%2f..',
    # the same file in other words
    'a.txt', '/a.txt', './a.txt', './/./a.txt', 'sub/../a.txt', 'sub//in.txt', 'sub/./in.txt', 'sub/.//../sub/in.txt', '%61.txt', 'a%2etxt', '%61%2e%74%78%74',
    'sub%2fin.txt', 'sub%2Fin.txt', 'sub%5cin.txt', 'sub\\in.txt', 'A.TXT', 'a.txt/', 'a.txt/.', 'a.txt/..', 'a.txt/../a.txt', 'sub/in.txt/../../a.txt',
    'sub', 'sub/', 'sub/.', 'sub/..', 'sub/...', '.', './', '...', '..a.txt', '.hidden', '%2ehidden',
    # NUL, controls, line ends
    'a.txt%00', 'a.txt%00.html', '%00', 'sub/%00', 'a.txt%0a', '%0d%0aX-Injected:%20yes', '%0aX-Injected:%20yes', 'a%0db', '%09', '%01', '%7f', "a\x01.txt", "a\x7f.txt", "a\t.txt",
    # escapes that are none
    '%', '%4', '%zz', '%u0061', '%-1', '% 41', 'a%2', 'a.txt%', '%%36%31.txt', '%2', '%g0',
    # bytes beyond ASCII
    'utf8-%c3%a9.txt', "utf8-\xc3\xa9.txt", '%c0%af', '%c0%80', '%e0%80%af', '%f0%80%80%af', '%ff', "\xff", '%fe%ff', "\xc0\xaf", '%ef%bb%bfa.txt',
    # delimiters
    'sp%20ace.txt', 'sp+ace.txt', 'a.txt;x=1', 'a.txt;/../../secret.txt', 'a.txt%3fx', 'a.txt%23x', 'a.txt#frag', 'a.txt?../secret.txt', 'a.txt?%00',
    'a.txt?a%0d%0ab', '#', '?', '??', '?#', '~', '~root/', 'C:/a.txt', 'a.txt::$DATA', 'file:///etc/passwd', 'x.php/../a.txt', 'a.txt/x.php', 'x.php%00.txt', 'x%2ephp', 'x.ph%70?',
    '"', '<script>', '{}', '|', '^', '`', "'", '$uri', '${uri}', '*', '@named', ',', '&', '=',
    # long ones
    'n' x 255, 'n' x 256, 'n' x 5000, 'd/' x 2000, './' x 3500, '%61' x 2500, 'x/../' x 1500, '/' x 4000, 'x' x 9000, '?' . 'q' x 9000,
);
my @prefixes = ('/', '/al/', '/re/', '/try/', '/px/', '/praw/', '/rw/', '/rb/', '/nest/', '/uri/', '/deny/');
my @targets = (
    'http://main.test/a.txt', 'http://other.test/a.txt', 'HTTP://OTHER.TEST/a.txt', 'http://other.test:1/a.txt', 'http://main.test', 'http://other.test?x', 'http://other.test/',
    'https://main.test/a.txt', 'ftp://main.test/a.txt', 'http:///a.txt', 'http://', 'http:/', 'http:', 'http://user@main.test/a.txt', 'http://main.test:99999/a.txt', 'http://main.test:/a.txt',
    'http://main.test:x/a.txt', 'http://[::1]/a.txt', 'http://[::1/a.txt', 'http://main.test/../secret.txt', 'http://main.test/%2e%2e/secret.txt', 'http://main.test//a.txt',
    'http://other.test\\a.txt', 'http://main.test%00/a.txt', 'http://main.test#/a.txt', 'http://ma in.test/', 'http://../a.txt', 'http://./a.txt',
    (map { "http://ma${_}in.test/a.txt" } '_', '!', '~', '$', '&', '(', '*', '+', ',', ';', '=', '%41', '%', '"', '<', '|', "\xe9", '..', '-', '/'),
    'http://main.test./a.txt', 'http://main.test../a.txt', 'http://.main.test/a.txt', 'http://-/a.txt', 'http://main.test:80:80/a.txt', 'http://main.test:080/a.txt', 'http://127.0.0.1/a.txt', 'http://[::ffff:1.2.3.4]/a.txt', 'http://[v1.x]/a.txt',
    '*', 'a.txt', '\\a.txt', '\\\\other.test\\a', 'main.test:80', '//other.test/a.txt', '///a.txt', '/\\other.test/', 'data:x', 'javascript:x', '.', '..', '../a.txt', '%2fa.txt', '?', '#',
);

my %files = (
    'a.txt' => "a\n", 'sub/in.txt' => "in\n", 'sp ace.txt' => "blank\n", '.hidden' => "hidden\n", '..a.txt' => "dots\n",
    "utf8-\xc3\xa9.txt" => "utf8\n", 'try/a.txt' => "try\n", 'x.php' => "source\n",
);
my ($p, $theirs) = Proxyd::Differential::start(conf => $conf, files => \%files,
    origins => { app => Proxyd::Origin::echo_handler(name => 'app') });
for my $s ($p, $theirs) {
    $s->write_file('secret.txt', "SECRET\n");
    $s->write_file('aliased/a.txt', "aliased\n");
    utime 1_500_000_000, 1_500_000_000, $s->dir . '/aliased/a.txt';
}

sub bytes { my ($target) = @_; return "GET $target HTTP/1.1\r\nHost: main.test\r\n\r\n" }

# What counts of an answer: its status and what depends on the URI.
sub essence {
    my ($s, $r) = @_;
    return 'nothing' unless $r;
    my $body = $r->body;
    my ($dir, $port) = ($s->dir, $s->port);
    if ($body =~ /^\{/) { # the origin's report
        my $rep = Proxyd::report($r);
        $body = "sent $rep->{method} $rep->{uri}";
    } elsif ($r->status >= 300) {
        $body = '';
    }
    my $location = $r->header('Location') // '';
    $location =~ s/:$port\b//;
    $location =~ s/\Q$dir\E/DIR/g;
    return join ' | ', $r->status, $location, $body;
}

sub ask { my ($s, $bytes, @o) = @_; return $s->raw('main', $bytes, count => 1, timeout => 5, @o)->{responses}[0] }
sub printable { my $t = substr $_[0], 0, 70; $t =~ s/([^ -~])/sprintf '\x%02x', ord $1/ge; return $t }

# Differences that are wanted: what a registered name may hold (RFC 3986, 3.2.2) is a host here in a request
# target as it is in Host; a port beyond 65535, and an address of a future kind, are none.
my %ours = (
    (map { ("http://ma${_}in.test/a.txt" => "200 |  | a\n") } '_', '!', '~', '$', '&', '(', '*', '+', ',', ';', '='),
    'http://main.test:99999/a.txt' => '400 |  | ', 'http://[v1.x]/a.txt' => '400 |  | ',
);

my ($asked, %alone) = (0);
for my $target ((map { my $pre = $_; map { "$pre$_" } @tails } @prefixes), @targets) {
    my $got  = ask($p, bytes($target));
    my $want = ask($theirs, bytes($target));
    my $name = printable($target);
    $asked++;
    $alone{$target} = essence($p, $got);
    is $alone{$target}, $ours{$target} // essence($theirs, $want), $name;
    my $raw = $got ? $got->{raw} : '';
    fail "$name: something from outside of the roots" if $raw =~ /SECRET|root:x:/;
    fail "$name: a field made of the URI" if $got && defined $got->header('X-Injected');
}
# A line is written when its answer is out: the last one may be a moment behind.
sub logged { my $n = shift; return Proxyd::wait_for(sub { $n <= split /\n/, $p->access_log }) && scalar split /\n/, $p->access_log }
is logged($asked), $asked, 'one line for each in the access log';

# --- a decoded line end in what a variable is put into: nginx makes a field of it, here it makes none -----
for my $pre ('/red/', '/rel/', '/rewritten/', '/set/', '/up/') {
    for my $end ('%0d%0a', '%0a', '%0d', '%0d%0a%0d%0a') {
        my $got = ask($p, bytes("${pre}a${end}X-Injected:%20yes"));
        my $rep = $got && $got->body =~ /^\{/ ? Proxyd::report($got) : {};
        ok $got && $got->{complete} && !defined $got->header('X-Injected')
            && !defined Proxyd::report_header($rep, 'X-Injected') && !@{ $got->{bad} }, "$pre, $end: no field of the client's making";
        $asked++;
    }
}
is logged($asked), $asked, 'and one line for each of them';

# --- many on one connection: each answer is the one that it had alone -------------------------------
srand 1;
my @pool = grep { $alone{$_} =~ /^(?:200|404|301|403)\b/ && length $_ < 500 } sort keys %alone;
my $differ = 0;
for my $round (1 .. 20) {
    my @some = map { $pool[rand @pool] } 1 .. 25;
    my $x = $p->raw('main', join('', map { bytes($_) } @some), count => scalar @some, timeout => 10);
    for my $i (0 .. $#some) {
        my $got = essence($p, $x->{responses}[$i]);
        next if $got eq $alone{ $some[$i] };
        $differ++;
        diag printable($some[$i]) . " behind " . printable($some[$i - 1]) . ": $got, alone $alone{$some[$i]}" if $differ < 10;
    }
}
is $differ, 0, 'requests behind each other on a connection do not see each other';
$theirs->stop;
$p->stop;
done_testing;
