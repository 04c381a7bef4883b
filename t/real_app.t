# SPDX-License-Identifier: BSD-2-Clause
#
# An application that believes to be alone at its root, under a path of a server: its redirects and
# cookies are rewritten, WebSockets, event streams, large uploads and downloads go through, for a
# headless Chromium, for Python's websockets and for curl.
use strict;
use warnings;
no warnings 'exec';
use Cwd qw(abs_path);
use Digest::SHA;
use FindBin;
use JSON::PP ();
use lib "$FindBin::Bin/lib";
use POSIX qw(WNOHANG);
use Test::More;
use Proxyd;

my $apps = abs_path("$FindBin::Bin/apps");
my $slow = Proxyd::sanitized();
my @started;
END { local $?; for (@started) { kill 'KILL', -$_; waitpid $_, 0 } }

sub which { my ($n) = @_; for (split /:/, $ENV{PATH}) { return "$_/$n" if -x "$_/$n" } return }
for (qw(curl node)) { plan skip_all => "$_ is not installed" unless which($_) }

my $p = Proxyd->new(conf => <<'EOT');
worker_processes 2;
http {
    map $http_upgrade $upgrades { default upgrade; "" ""; }
    client_max_body_size 0;
    upstream app { server 127.0.0.1:{{port:app}}; keepalive 8; }
    proxy_http_version 1.1;
    proxy_set_header Host app.internal;
    proxy_set_header Upgrade $http_upgrade;
    proxy_set_header Connection $upgrades;
    proxy_set_header X-Forwarded-Prefix /front;
    proxy_redirect http://app.internal/ /front/;
    proxy_cookie_path / /front/;
    proxy_cookie_path /account/ /front/account/;
    proxy_cookie_domain app.internal $host;
    proxy_cookie_flags tls nosecure samesite=lax;
    proxy_cookie_flags lang secure samesite=strict;
    server {
        listen 127.0.0.1:{{port}};
        location /front/ { proxy_pass http://app/; }
        # The pings of a connection that is silent else come more often.
        location = /front/ws { proxy_pass http://app/ws; proxy_read_timeout 2s; proxy_send_timeout 2s; }
        location = /front/ticks { proxy_pass http://app/ticks; proxy_buffering off; }
        location /unbuffered/ { proxy_pass http://app/; proxy_request_buffering off; proxy_buffering off; }
        location /outside/ { proxy_pass http://app/; }
        location /plain/ { proxy_pass http://app/; proxy_redirect off; proxy_cookie_path off; proxy_cookie_domain off; proxy_cookie_flags off; }
    }
}
EOT
my $dir = $p->dir;

# --- processes ----------------------------------------------------------------------------------
sub spawn {
    my ($name, @command) = @_;
    my $pid = fork;
    die "fork: $!" unless defined $pid;
    if (!$pid) {
        setpgrp 0, 0;
        open STDIN, '<', '/dev/null';
        open STDOUT, '>', "$dir/$name.out";
        open STDERR, '>', "$dir/$name.err";
        exec { $command[0] } @command;
        POSIX::_exit(127);
    }
    push @started, $pid;
    return $pid;
}

# Waits for a program's end.
sub ended { my ($pid, $timeout) = @_; return $p->wait_for(sub { waitpid($pid, WNOHANG) == $pid }, $timeout) }

sub curl {
    my $pid = spawn('curl', which('curl'), '-sS', '--max-time', 300, '--noproxy', '*', @_);
    ended($pid, 310);
    @started = grep { $_ != $pid } @started;
    return $p->read_file('curl.out') // '';
}
my $true = JSON::PP::true;
sub decode { return eval { JSON::PP->new->utf8->decode($_[0] // '') } || {} }
sub sum_of { return Digest::SHA->new(256)->addfile($_[0], 'b')->hexdigest }

spawn('app', which('node'), "$apps/node_app.js", $p->port('app'));
ok $p->wait_for(sub { ($p->read_file('app.out') // '') =~ /ready/ }, 60), 'the application runs';
$p->start;
my $url = 'http://127.0.0.1:' . $p->port;

# --- redirects and cookies, to the letter -------------------------------------------------------------
my $local = 'http://localhost:' . $p->port;
sub field { my ($uri, $name) = @_; return [$p->get($uri)->header($name)] }
is_deeply field('/front/go', 'Location'), ["$local/front/account?from=go"], 'a redirect of the application, below the prefix';
is_deeply field('/front/absolute', 'Location'), ["$local/front/account"], 'made from the name that it was asked under';
is_deeply field('/front/elsewhere', 'Location'), ['http://elsewhere.test/x'], 'one to somewhere else stays';
is_deeply field('/front/refresh', 'Refresh'), ['5; url=/front/account'], 'Refresh';
is_deeply field('/plain/go', 'Location'), ['http://app.internal/account?from=go'], 'off';
my @plain = ('sid=abc; Path=/; Domain=app.internal; HttpOnly', 'lang=en; Path=/; Domain=.app.internal; Max-Age=3600',
    'deep=1; Path=/account/; Domain=app.internal', 'tls=1; Path=/; Secure; SameSite=None', 'bare=1');
sub set_cookies { return [map { $_->[1] } grep { lc $_->[0] eq 'set-cookie' } @{ $p->get($_[0])->{headers} }] }
is_deeply set_cookies('/plain/cookies/set'), \@plain, 'cookies as they are';
is_deeply set_cookies('/front/cookies/set'), ['sid=abc; Path=/front/; Domain=localhost; HttpOnly',
    'lang=en; Path=/front/; Domain=.localhost; Max-Age=3600; Secure; SameSite=Strict',
    'deep=1; Path=/front/account/; Domain=localhost', 'tls=1; Path=/front/; SameSite=Lax', 'bare=1'], 'and rewritten';

# --- large bodies ---------------------------------------------------------------------------------------
my $mib = $slow ? 24 : 200;
my $size = $mib << 20;
{
    open my $fh, '>', "$dir/upload" or die $!;
    binmode $fh;
    my $block = pack 'N*', map { $_ * 2654435761 % 4294967296 } 0 .. 262142;
    print $fh pack('N', $_), $block for 1 .. $mib;
    close $fh or die $!;
}
my $sum = sum_of("$dir/upload");
for my $to (qw(front unbuffered)) {
    my $r = decode(curl('-H', 'Expect:', '-H', 'Content-Type: x/y', '--data-binary', "\@$dir/upload", "$url/$to/upload"));
    is_deeply [@$r{qw(size sum)}], [$size, $sum], "$to: $mib MB up, with a length" or diag $p->read_file('curl.err');
    $r = decode(curl('-H', 'Transfer-Encoding: chunked', '-X', 'POST', '-T', "$dir/upload", "$url/$to/upload"));
    is_deeply [@$r{qw(size sum)}], [$size, $sum], "$to: in chunks" or diag $p->read_file('curl.err');
}
my $piece = substr 'streamed content, over and over; ' x 2000, 0, 65536;
my $want = Digest::SHA->new(256);
$want->add($piece) for 1 .. $mib * 16;
$want = $want->hexdigest;
for my $from (qw(front unbuffered)) {
    curl('-o', "$dir/download", "$url/$from/stream?mib=$mib");
    is sum_of("$dir/download"), $want, "$from: $mib MB down, octet for octet" or diag $p->read_file('curl.err');
}
unlink "$dir/upload", "$dir/download";

# --- Python's websockets -----------------------------------------------------------------------------------
SKIP: {
    my ($python) = grep { defined && system("$_ -c 'import websockets' 2>/dev/null") == 0 } '/usr/bin/python3', which('python3');
    skip 'python3-websockets is not installed', 11 unless $python;
    my $client = spawn('websockets', $python, "$apps/ws_client.py", $url =~ s/^http/ws/r . '/front/ws', $slow ? 5 : 1);
    ok ended($client, 300), 'the client came to its end';
    my $r = decode($p->read_file('websockets.out'));
    my %want = (many => 0, large => $true, pipelined => $true, pings => $true, protocol => 'chat',
        closed => [4999, 'as asked'], closing => 4001, lost => $true, idle => 'still here', refused => 404);
    is_deeply $r->{$_}, $want{$_}, "websockets: $_" for sort keys %want;
    diag $p->read_file('websockets.err') if -s "$dir/websockets.err";
}
my $log = sub { return decode(curl("$url/front/log")) };
ok $p->wait_for(sub { grep { $_ eq 'websocket closed 4001' } @{ $log->() } }, 20), 'the client\'s code reached the application';

# --- a browser ----------------------------------------------------------------------------------------------
SKIP: {
    my $chromium = which('chromium') or skip 'chromium is not installed', 20;
    my $report = {};
    local $ENV{HOME} = "$dir/profile";
    mkdir $ENV{HOME};
    my $browser = spawn('chromium', $chromium, qw(--headless --no-sandbox --disable-gpu --disable-quic --no-first-run
        --disable-background-networking --disable-component-update --disable-sync --disable-dev-shm-usage
        --no-proxy-server --remote-debugging-port=0), "--user-data-dir=$ENV{HOME}", "$url/front/app");
    # However long a browser takes to start: what is awaited is its report.
    my $gone = 0;
    $p->wait_for(sub {
        my $r = $p->get('/front/page-report')->body;
        $report = decode($r);
        return %$report || ($gone ||= waitpid($browser, WNOHANG) == $browser);
    }, 400);
    kill 'KILL', -$browser;
    waitpid $browser, 0 unless $gone;
    @started = grep { $_ != $browser } @started;
    ok scalar(keys %$report), 'the page ran to its end' or diag substr $p->read_file('chromium.err') // '', -2000;
    # `lang` has become Secure, which a browser takes from 127.0.0.1 or not.
    my %want = (
        json => '/front', redirect => [$true, '/front/account?from=go', 200], upload => [$true, $true],
        file => [$true, $true], download => 16 << 20, piecewise => 4 << 20, abort => 'the application knows',
        parallel => 60, events => [map { "$_" } 0 .. 7], text => ["Gr\x{fc}\x{df}e", 'chat', ''], binary => $true,
        sizes => $true, burst => 2000, many => 30, closed => [4321, 'as asked', $true], closing => [4000, $true],
    );
    is_deeply $report->{$_}, $want{$_}, "Chromium: $_" or diag explain $report->{$_} for sort keys %want;
    my $c = ref $report->{cookies} eq 'HASH' ? $report->{cookies} : { page => [] };
    is join(' ', grep { !/^lang/ } @{ $c->{page} }), 'tls=1', 'the page sees its cookies: none that is HttpOnly or of another path';
    delete $c->{$_}{lang} for qw(app deep outside);
    is_deeply $c->{app}, { sid => 'abc', tls => 1 }, 'the application gets them';
    is_deeply $c->{deep}, { sid => 'abc', tls => 1, deep => 1 }, 'and that of a path of its own there';
    is_deeply $c->{outside}, {}, 'outside of the prefix nothing is sent';
}

unlike $p->error_log, qr/\[(?:crit|alert|emerg)\]/, 'nothing alarming in the error log';
unlike $p->access_log, qr/" 5\d\d /, 'and no 5xx';
$p->stop;
done_testing;
