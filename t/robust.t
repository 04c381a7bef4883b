# SPDX-License-Identifier: BSD-2-Clause
#
# Peers that stop, vanish, trickle or flood, at every stage: the worker lives on, with bounded
# memory and no descriptor left behind.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/lib";
use Test::More;
use Proxyd;

my $p = Proxyd->new(log => 'warn', conf => <<'EOT');
worker_processes 1;
events { worker_connections 4096; }
http {
    client_header_timeout 2s;
    client_body_timeout 2s;
    send_timeout 5s;
    keepalive_timeout 5s;
    client_max_body_size 0;
    large_client_header_buffers 4 4k;
    access_log off;
    proxy_http_version 1.1;
    proxy_set_header Connection "";
    upstream app { server 127.0.0.1:{{port:app}} max_fails=0; keepalive 8; }
    upstream cut { server 127.0.0.1:{{port:cut}} max_fails=0; keepalive 8; }
    server {
        listen 127.0.0.1:{{port}} backlog=1024;
        root {{dir}}/html;
        location /ok { return 200 "ok\n"; }
        location /app/ { proxy_pass http://app; }
        location /stream/ { proxy_pass http://app; proxy_request_buffering off; proxy_buffering off;
            }
        location /cut/ { proxy_pass http://cut; proxy_read_timeout 5s; }
        location /cutun/ { proxy_pass http://cut; proxy_read_timeout 5s; proxy_buffering off; }
        location /file { sendfile on; }
    }
}
EOT
$p->write_file('html/file', 'f' x 3_000_000);
my $app = $p->echo_origin('app');

# Sends the first N bytes of an answer (N is in the URI), then closes or resets.
my %answers = (
    l => "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 10\r\n\r\n0123456789",
    c =>
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n01234\r\n5;x=y\r\n56789\r\n0\r\nA: b\r\n\r\n",
    i => "HTTP/1.1 103 Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 404 No\r\nContent-Length: 2\r\n\r\nno",
);
my $cut = $p->origin(
    'cut',
    sub {
        my ($c) = @_;
        while (my $r = $c->request) {
            my ($kind, $how, $n) = $r->{uri} =~ m{/(\w)/(\w)/(\d+)} or last;
            my $all = $answers{$kind};
            if ($how eq 't') { $c->write($_) for split //, $all }
            else             { $c->write(substr $all, 0, $n) }
            last if $how eq 'c';
            if ($how eq 'r') { $c->abort; last }
        }
    }
);
$p->start;
my ($worker) = $p->workers;

sub fds { my @f = glob "/proc/$worker/fd/*"; return scalar @f }

sub rss {
    open my $fh, '<', "/proc/$worker/status" or return 0;
    return join('', <$fh>) =~ /VmHWM:\s*(\d+)/ ? $1 : 0;
}

sub healthy {
    my ($what) = @_;
    my $r = $p->get('/ok');
    is $r->body . join(' ', $p->workers), "ok\n$worker", "$what: the same worker serves";
}
$p->get($_) for '/ok', '/app/x', '/file';
$p->wait_for(sub { 1 });
my $fds = fds();

# --- requests cut at every byte -------------------------------------------------------------------
my %requests = (
    get     => "GET /ok?a=%41 HTTP/1.1\r\nHost: a.b\r\nX-Y: z\r\n\r\n",
    post    => "POST /app/x HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n12345",
    chunked =>
        "POST /app/x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3;e\r\nabc\r\n2\r\nde\r\n0\r\nT: u\r\n\r\n",
    stream =>
        "POST /stream/x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n",
    pipelined => "GET /ok HTTP/1.1\r\nHost: a\r\n\r\nGET /app/x HTTP/1.1\r\nHost: a\r\n\r\n",
);
for my $name (sort keys %requests) {
    my $bytes = $requests{$name};
    for my $n (0 .. length $bytes) {
        my $c = $p->connect;
        $c->send(substr $bytes, 0, $n);
        $n % 2 ? $c->abort : $c->close;
    }
    healthy("$name cut and closed or reset at every byte");
    my $finished = 0;
    for my $n (1 .. length($bytes) - 1) {
        # in two writes, the second only when the first was surely read alone
        my $c = $p->connect;
        $c->send(substr $bytes, 0, $n);
        $c->wait_input(0.0005);
        $c->send(substr $bytes, $n);
        my $r = $c->response(timeout => 5);
        $finished++ if $r && $r->status == 200 && $r->{complete};
        $c->close;
    }
    is $finished, length($bytes) - 1, "$name split at every byte is answered";
}

# --- answers cut at every byte --------------------------------------------------------------------
for my $loc ('cut', 'cutun') {
    for my $kind (sort keys %answers) {
        my $len  = length $answers{$kind};
        my $head = rindex($answers{$kind}, "\r\n\r\n") + 4;
        $head = index($answers{$kind}, "\r\n\r\n") + 4 if $kind eq 'c';
        for my $how ('c', 'r') {
            my @wrong;
            for my $n (0 .. $len - 1) {
                my $r = $p->get("/$loc/$kind/$how/$n");
                if ($n < $head) {
                    push @wrong, "$n: " . $r->status
                        if $r->status != 502 && !($kind eq 'i' && Proxyd::is_nginx());
                }
                else {
                    push @wrong, "$n: complete"
                        if $r->{complete}
                        && $r->status == 200
                        && $r->body eq '0123456789'
                        && $n < $len - 10;
                }
            }
            is "@wrong", '',
                "$loc: answer $kind " . ($how eq 'c' ? 'closed' : 'reset') . ' at every byte';
        }
        next if $kind eq 'i' && Proxyd::is_nginx();
        my $r = $p->get("/$loc/$kind/t/0");
        is $r->body, $kind eq 'i' ? 'no' : '0123456789', "$loc: answer $kind in 1-byte writes";
    }
}
healthy('answers cut');

# --- slow heads, slow bodies ----------------------------------------------------------------------
my @slow;
for (1 .. 500) {
    my $c = $p->connect;
    $c->send($_ % 2
        ? "GET /ok HTTP/1.1\r\nHost: a\r\nX: "
        : "POST /app/x HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nabc");
    push @slow, $c;
}
healthy('500 slow heads and bodies');
my $closed = 0;
for (@slow) {
    $closed++ if $p->wait_for(sub { $_->wait_input(0.5); $_->eof }, 10);
}
is $closed, 500, 'all of them are closed in time';
$_->close for @slow;

# --- floods ---------------------------------------------------------------------------------------
my $limit = Proxyd::sanitized() ? 400_000 : 60_000;
{
    # thousands of requests whose answers nobody reads
    my $c     = $p->connect;
    my $bytes = "GET /file HTTP/1.1\r\nHost: a\r\n\r\n" x 50;
    for (1 .. 200) {
        local $SIG{PIPE} = 'IGNORE';
        my $n = syswrite $c->sock, $bytes;
        last unless $n;
    }
    healthy('pipelined requests, answers unread');
    $c->abort;
    $c = $p->connect;
    for (1 .. 200) {
        my $n = syswrite $c->sock, "GET /app/x HTTP/1.1\r\nHost: a\r\n\r\n" x 100;
        last unless $n;
    }
    healthy('the same, proxied');
    $c->abort;
}
{
    my $c = $p->connect;
    $c->send("GET /ok HTTP/1.1\r\nHost: a\r\n");
    for (1 .. 5000) { last if $c->send("X-$_: " . 'v' x 1000 . "\r\n") < 1000 || $c->eof }
    my $r = $c->response;
    is $r && $r->status, 400, 'an endless head';
    $c->close;
    $c = $p->connect;
    $c->send("GET /");
    for (1 .. 1000) { last if $c->send('u' x 10_000) < 10_000 || $c->eof }
    $r = $c->response;
    is $r && $r->status, 414, 'an endless request line';
    $c->close;
    $c = $p->connect;
    $c->send("\r\n" x 100_000);
    $c->send("GET /ok HTTP/1.1\r\nHost: a\r\n\r\n");
    $r = $c->response(timeout => 3);
    ok !$r || $r->status =~ /^(?:200|400)$/, 'empty lines without end';
    $c->close;
    $r = $p->post(
        '/app/x', join('', map { "1\r\na\r\n" } 1 .. 50_000) . "0\r\n\r\n",
        headers   => ['Transfer-Encoding', 'chunked'],
        no_length => 1
    );
    is length(Proxyd::report($r)->{body} // ''), 50_000, '50,000 chunks of one byte';
    $r = $p->get('/file', headers => ['Range', 'bytes=' . join ',', map { "$_-$_" } 1 .. 500]);
    ok $r->status =~ /^(?:200|206|416|400)$/, '500 ranges';
    healthy('floods');
}

# --- a client that reads slowly -------------------------------------------------------------------
{
    my $c = $p->connect;
    $c->send("GET /file HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    my $n = 0;
    while (!$c->eof) {
        vec(my $rin = '', fileno $c->sock, 1) = 1;
        select $rin, undef, undef, 5 or last;
        my $got = sysread $c->sock, my $b, $n < 2000 ? 1 : 65536;
        last if defined $got && $got == 0;
        $n += $got // 0;
    }
    cmp_ok $n, '>', 3_000_000, 'a file read in 1-byte reads at first';
    $c->close;
}

cmp_ok rss(), '<', $limit, 'memory stayed bounded';
ok $p->wait_for(sub { fds() <= $fds + 2 }, 10), 'no descriptor is left'
    or diag "$fds, then " . fds();
unlike $p->error_log // '', qr/\[(?:alert|emerg|crit)\]/, 'nothing at crit or above';
$p->stop;
done_testing;
