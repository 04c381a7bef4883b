# SPDX-License-Identifier: BSD-2-Clause
#
# Real applications and real clients: scripts/quickstart in front of a Node application, of
# Python's http.server and of its own demo, driven by curl and by a headless Chromium that loads a
# page with a hundred assets.
use strict;
use warnings;
no warnings 'exec';
use Cwd qw(abs_path);
use Digest::SHA;
use File::Path qw(make_path);
use FindBin;
use IO::Socket::INET;
use JSON::PP ();
use lib "$FindBin::Bin/lib";
use POSIX qw(WNOHANG);
use Test::More;
use Proxyd;

my $root = abs_path("$FindBin::Bin/..");
my $p = Proxyd->new;
my $dir = $p->dir;
my @started;
END { local $?; for (@started) { kill 'KILL', $_; waitpid $_, 0 } }

sub which { my ($n) = @_; for (split /:/, $ENV{PATH}) { return "$_/$n" if -x "$_/$n" } return }
for (qw(curl node python3)) { plan skip_all => "$_ is not installed" unless which($_) }

# --- processes ----------------------------------------------------------------------------------
sub spawn {
    my ($name, $env, @command) = @_;
    my $pid = fork;
    die "fork: $!" unless defined $pid;
    if (!$pid) {
        setpgrp 0, 0;
        $ENV{$_} = $env->{$_} for keys %$env;
        open STDIN, '<', '/dev/null';
        open STDOUT, '>', "$dir/$name.out";
        open STDERR, '>&', \*STDOUT;
        chdir $env->{CWD} if $env->{CWD};
        exec { $command[0] } @command;
        POSIX::_exit(127);
    }
    push @started, $pid;
    return $pid;
}

sub listens {
    my ($port) = @_;
    my $s = IO::Socket::INET->new(PeerAddr => "127.0.0.1:$port", Timeout => 1) or return 0;
    close $s;
    return 1;
}

# A checkout as far as quickstart needs it, with the binary under test already built in it.
sub quickstart {
    my ($name, $port, @origin) = @_;
    my $at = "$dir/$name";
    make_path("$at/objs", "$at/scripts");
    symlink "$root/$_", "$at/$_" for qw(conf html configure);
    symlink Proxyd::binary(), "$at/objs/proxyd";
    $p->write_file("$at/objs/Makefile", "all:\n");
    $p->write_file("$at/scripts/quickstart", $p->read_file("$root/scripts/quickstart"));
    chmod 0755, "$at/scripts/quickstart";
    my $pid = spawn($name, { PORT => $port }, "$at/scripts/quickstart", @origin);
    ok $p->wait_for(sub { $p->read_file("$at/run/logs/proxyd.pid") && listens($port) }, 120),
        "quickstart runs: $name" or diag $p->read_file("$dir/$name.out");
    like $p->read_file("$dir/$name.out"), qr{http://127\.0\.0\.1:$port/}, 'and says where';
    return $pid;
}

sub ends_well {
    my ($name, $pid) = @_;
    kill 'INT', $pid;
    my $status;
    ok $p->wait_for(sub { waitpid($pid, WNOHANG) == $pid && (($status = $?), 1) }, 10), "$name: Ctrl-C ends it";
    @started = grep { $_ != $pid } @started;
    is $status, 0, "$name: with status 0";
    my $log = $p->read_file("$dir/$name/run/logs/error.log") // '';
    unlike $log, qr/\[(?:alert|emerg|crit)\]/, "$name: nothing alarming in the log";
    ok !Proxyd::sanitizer_output($log . $p->read_file("$dir/$name.out")), "$name: no report of a sanitizer";
    return $log;
}

# Runs a program; returns what it printed.
sub output {
    my @command = @_;
    my $pid = open my $fh, '-|';
    die "fork: $!" unless defined $pid;
    if (!$pid) {
        open STDERR, '>', "$dir/command.err";
        exec { $command[0] } @command;
        POSIX::_exit(127);
    }
    binmode $fh;
    local $/;
    my $out = <$fh>;
    close $fh;
    return $out;
}

sub curl { return output(which('curl'), '-sS', '--max-time', 60, '--noproxy', '*', @_) }
sub decode { return eval { JSON::PP->new->decode($_[0]) } || {} }

# --- a Node application -------------------------------------------------------------------------
my ($app, $port) = map { Proxyd::free_port() } 1 .. 2;
spawn('app', {}, which('node'), "$root/t/apps/node_app.js", $app);
ok $p->wait_for(sub { ($p->read_file('app.out') // '') =~ /ready/ }, 20), 'the Node application runs';
my $proxy = quickstart('node', $port, "http://127.0.0.1:$app");
my $url = "http://127.0.0.1:$port";

is curl("$url/"), "hello\n", 'GET';
my $h = decode(curl('-H', 'X-Forwarded-For: 10.1.2.3', "$url/headers"));
is $h->{host}, "127.0.0.1:$port", 'the application sees the name that the client used';
is $h->{'x-real-ip'}, '127.0.0.1', 'and the client\'s address';
is $h->{'x-forwarded-for'}, '10.1.2.3, 127.0.0.1', 'and those before';
is $h->{'x-forwarded-proto'}, 'http', 'and the scheme';
like curl('-I', "$url/"), qr/^HTTP\/1\.1 200 OK\r\n.*^Content-Length: 6\r\n/msi, 'HEAD';
like curl('-i', "$url/missing"), qr/^HTTP\/1\.1 404 .*the application's own page/s, 'the application\'s own error page';
like curl('-i', "$url/empty"), qr/^HTTP\/1\.1 204 .*\r\n\r\n\z/s, 'an answer without a body';
is curl('-o', '/dev/null', '-w', '%{http_code}', "$url/crash"), 502, 'an application that hangs up';
is curl('-X', 'DELETE', '-o', '/dev/null', '-w', '%{http_code}', "$url/thing"), 204, 'DELETE';
like curl('-i', '-X', 'PUT', '-d', 'abcd', "$url/thing"), qr/^HTTP\/1\.1 201 .*^Location: \/thing\/1\r\n.*\n4\n\z/msi, 'PUT';
is_deeply decode(curl('-d', 'a=1&b=two words', "$url/form")), { a => 1, b => 'two words' }, 'a form';

# cookies and redirects
my $jar = "$dir/jar";
is_deeply decode(curl('-L', '-c', $jar, '-b', $jar, "$url/login")), { session => 's3cret', theme => 'dark blue' }, 'cookies over a redirect';
is_deeply decode(curl('-b', $jar, "$url/account")), { session => 's3cret', theme => 'dark blue' }, 'and kept';
is curl('-o', '/dev/null', '-w', '%{redirect_url}', "$url/absolute"), "$url/account", 'an absolute redirect';

# uploads
my $size = 50 * 1024 * 1024;
open my $fh, '>', "$dir/upload" or die $!;
binmode $fh;
print $fh pack('N*', map { $_ * 2654435761 % 4294967296 } $_ * 65536 .. $_ * 65536 + 65535) for 0 .. $size / 262144 - 1;
close $fh;
my $sum = Digest::SHA->new(256)->addfile("$dir/upload", 'b')->hexdigest;
my @plain = ('-H', 'Content-Type: application/x-upload');
my $r = decode(curl(@plain, '--data-binary', "\@$dir/upload", "$url/upload"));
is_deeply $r, { size => $size, sum => $sum, type => 'application/x-upload', framing => $size }, '50 MB uploaded, with a length';
$r = decode(curl(@plain, '-H', 'Transfer-Encoding: chunked', '-T', "$dir/upload", '-X', 'POST', "$url/upload"));
is "$r->{size} $r->{sum}", "$size $sum", '50 MB uploaded in chunks';
$r = decode(curl('-F', "file=\@$dir/upload", "$url/upload"));
cmp_ok $r->{size} || 0, '>', $size, 'as a form\'s file';
is curl('-o', '/dev/null', '-w', '%{http_code}', '-H', 'Content-Length: 70000000', '-d', 'x', "$url/upload"), 413, '70 MB are too much for quickstart\'s limit';

# what streams
curl('-o', "$dir/stream", "$url/stream?mib=50");
is -s "$dir/stream", $size, '50 MB downloaded';
my $piece = substr 'streamed content, over and over; ' x 2000, 0, 65536;
my $want = Digest::SHA->new(256);
$want->add($piece) for 1 .. 800;
is(Digest::SHA->new(256)->addfile("$dir/stream", 'b')->hexdigest, $want->hexdigest, 'octet for octet');
is curl('-N', "$url/events?n=4&end=1"), join('', map { "id: $_\ndata: event $_\n\n" } 0 .. 3), 'server-sent events';
{
    # An event must reach the client while the answer is still open.
    my $c = Proxyd::Http::connect_to($port);
    $c->send("GET /events?n=1 HTTP/1.1\r\nHost: a\r\n\r\n");
    ok $p->wait_for(sub { $c->wait_input(0.5); $c->in =~ /data: event 0/ }, 10), 'an event arrives at once';
    ok !$c->eof, 'the answer stays open';
    $c->close;
    ok $p->wait_for(sub { curl("$url/log") =~ /events closed/ }, 10), 'and the application learns that the client has gone';
}

# compressed by the application
my $text = 'text worth compressing ' x 5000;
is curl("$url/gzip"), $text, 'not compressed where nobody asks for it';
my $packed = curl('-H', 'Accept-Encoding: gzip', "$url/gzip");
cmp_ok length $packed, '<', 5000, 'compressed by the application';
is curl('--compressed', "$url/gzip"), $text, 'and as it was when unpacked';
like curl('-I', '-H', 'Accept-Encoding: gzip', "$url/gzip"), qr/^$_\r$/mi, "with $_"
    for 'Content-Encoding: gzip', 'Vary: Accept-Encoding';

# fifty requests at a time over curl's own connections
my @many = map { ('-o', "$dir/many-$_", "$url/assets/" . ($_ * 5 % 100) . '.js') } 1 .. 200;
is curl('-Z', '--parallel-max', 50, '-w', '%{http_code} ', @many) =~ s/200 //gr, '', '200 requests in parallel';

# --- a browser ----------------------------------------------------------------------------------
SKIP: {
    my $chromium = which('chromium') or skip 'chromium is not installed', 4;
    my $profile = "$dir/profile";
    mkdir $profile;
    local $ENV{HOME} = $profile;
    my $dom = output('/usr/bin/timeout', '-k', 5, 90, $chromium, qw(--headless --no-sandbox --disable-gpu --disable-quic
        --no-first-run --disable-background-networking --disable-component-update --disable-sync
        --disable-dev-shm-usage --no-proxy-server --virtual-time-budget=30000),
        "--user-data-dir=$profile", '--dump-dom', "$url/page");
    like $dom, qr/loaded 100 of 100/, 'Chromium loaded a page with 100 assets' or diag substr($dom, -500) . ($p->read_file('command.err') // '');
    my $report = decode(curl("$url/page-report"));
    is $report->{loaded}, 100, 'its script reported so through the proxy';
    is_deeply $report->{events}, [map { "event $_" } 0 .. 4], 'server-sent events reached it';
    is $report->{cookie}, 'page=seen', 'and the cookie';
}
my $access = $p->read_file('node/run/logs/access.log') // '';
is scalar(() = $access =~ / 50\d /g), 1, 'the access log knows one error of the application';
my $log = ends_well('node', $proxy);
# A kept-alive connection that hangs up is tried again.
like join('', $log =~ /\[error\] \S+ \*\d+ (\w+)/g), qr/^(?:upstream){1,2}client$/,
    'the error log two: the one that hung up, and the one that was too large' or diag $log;

# --- Python's http.server -----------------------------------------------------------------------
my $py = Proxyd::free_port();
make_path("$dir/site/sub");
$p->write_file('site/sub/small.txt', "small\n");
rename "$dir/upload", "$dir/site/large.bin";
spawn('python', { CWD => "$dir/site" }, which('python3'), '-u', '-m', 'http.server', $py, '--bind', '127.0.0.1');
ok $p->wait_for(sub { listens($py) }, 20), 'http.server runs';
$port = Proxyd::free_port();
$proxy = quickstart('http-server', $port, "127.0.0.1:$py");
$url = "http://127.0.0.1:$port";
is curl("$url/sub/small.txt"), "small\n", 'a file';
like curl("$url/"), qr{<a href="large\.bin">}, 'a listing';
is curl('-L', '-o', '/dev/null', '-w', '%{url_effective} %{http_code}', "$url/sub"), "$url/sub/ 200", 'a directory without its slash';
is curl('-o', '/dev/null', '-w', '%{http_code}', "$url/none"), 404, 'none';
curl('-o', "$dir/large", "$url/large.bin");
is(Digest::SHA->new(256)->addfile("$dir/large", 'b')->hexdigest, $sum, '50 MB, octet for octet');
like curl('-I', "$url/large.bin"), qr/^HTTP\/1\.1 200 .*^Content-Length: $size\r\n/msi, 'HEAD';
my ($modified) = curl('-I', "$url/sub/small.txt") =~ /^Last-Modified: (.*?)\r$/mi;
is curl('-o', '/dev/null', '-w', '%{http_code}', '-H', "If-Modified-Since: $modified", "$url/sub/small.txt"), 304, 'not modified';
is curl('-o', '/dev/null', '-w', '%{http_code}', '-d', 'x', "$url/"), 501, 'POST, which it does not know';
ends_well('http-server', $proxy);

# --- quickstart's own demo ----------------------------------------------------------------------
$port = Proxyd::free_port();
$proxy = quickstart('demo', $port);
$url = "http://127.0.0.1:$port";
my $page = curl("$url/");
is $page, $p->read_file("$root/html/demo.html"), 'the demo page';
is curl('-r', '10-19', "$url/"), substr($page, 10, 10), 'a range of it';
like curl('-i', '-r', '10-19', "$url/"), qr{^HTTP/1\.1 206 .*^Content-Range: bytes 10-19/@{[ length $page ]}\r}msi, 'with its fields';
is curl('-o', '/dev/null', '-w', '%{http_code}', '-r', '999999-', "$url/"), 416, 'a range that is not there';
like curl('-r', '0-4,10-14', "$url/"), qr/^\r\n--\w+\r\n.*bytes 0-4\/.*bytes 10-14\//s, 'two ranges';
my ($etag) = curl('-I', "$url/") =~ /^ETag: (.*?)\r$/mi;
is curl('-o', '/dev/null', '-w', '%{http_code}', '-H', "If-None-Match: $etag", "$url/"), 304, 'not modified';
ends_well('demo', $proxy);
pass 'all done';
done_testing;
