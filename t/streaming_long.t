# SPDX-License-Identifier: BSD-2-Clause
#
# Bodies far larger than memory, both ways and in all modes of buffering: the worker stays small,
# every byte arrives, and a slow client does not hold a server's connection where there is
# buffering. 512 MiB each; PROXYD_LONG=1: 10 GiB.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/lib";
use Test::More;
use Proxyd;

my $size = ($ENV{PROXYD_LONG} ? 10240 : 512) * 1048576;
my $disk = ($ENV{PROXYD_LONG} ? 1024 : 128) * 1048576; # what is spooled, for the sake of the disk
my $most = Proxyd::sanitized() ? 400 : 50;               # MiB of the worker

my $p = Proxyd->new(conf => <<'EOT');
worker_processes 1;
http {
    client_max_body_size 0;
    access_log off;
    upstream s { server 127.0.0.1:{{port:s}}; keepalive 4; }
    upstream h2 { server 127.0.0.1:{{port:h}} max_conns=1; keepalive 4; }
    upstream h { server 127.0.0.1:{{port:h}} max_conns=1; keepalive 4; }
    server {
        listen 127.0.0.1:{{port}};
        location /on/ { proxy_pass http://s/; proxy_max_temp_file_size 64m; }
        location /off/ { proxy_pass http://s/; proxy_buffering off; }
        location /auto/ { proxy_pass http://s/; proxy_buffering auto; proxy_max_temp_file_size 64m; }
        location /nodisk/ { proxy_pass http://s/; proxy_max_temp_file_size 0; }
        location /up/ { proxy_pass http://s/; proxy_request_buffering off; }
        location /upon/ { proxy_pass http://s/; }
        location /hold/on/ { proxy_pass http://h/; }
        location /hold/off/ { proxy_pass http://h2/; proxy_buffering off; }
    }
}
EOT

my $block = join '', map { chr($_ & 255) } 0 .. 262143;

# Sends n bytes; at the end it is known that the other end has, or had, room for them.
sub pour {
    my ($sock, $n, $chunked) = @_;
    my $head = sprintf "%x\r\n", length $block;
    while ($n > 0) {
        my $piece = $n < length $block ? substr($block, 0, $n) : $block;
        $n -= length $piece;
        $piece = sprintf("%x\r\n", length $piece) . "$piece\r\n" if $chunked;
        my $off = 0;
        while ($off < length $piece) {
            my $k = syswrite $sock, $piece, length($piece) - $off, $off;
            return 0 unless defined $k;
            $off += $k;
        }
    }
    return $chunked ? syswrite($sock, "0\r\n\r\n") : 1;
}

my $origin = sub {
    my ($c) = @_;
    $c->{head_only} = 1;
    while (my $q = $c->request) {
        my ($what, $n) = $q->{uri} =~ m{/(\w+)/(\d+)};
        if ($what eq 'down') {
            $c->write("HTTP/1.1 200 OK\r\nContent-Length: $n\r\n\r\n");
            pour($c->sock, $n, 0) or return;
        }
        elsif ($what eq 'chunked') {
            $c->write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
            pour($c->sock, $n, 1) or return;
        }
        elsif (($q->{h}{'transfer-encoding'} // '') eq 'chunked') {
            # Chunks are not looked at: their end is, and how many bytes there were at least.
            my $got = length $c->{in};
            while (substr($c->{in}, -5) ne "0\r\n\r\n") {
                $c->{in} = substr $c->{in}, -5 if length $c->{in} > 5;
                my $had = length $c->{in};
                $c->more or return;
                $got += length($c->{in}) - $had;
            }
            $c->{in} = '';
            my $all = $got >= $n && $got < $n * 1.1 ? $n : $got;
            $c->write("HTTP/1.1 200 OK\r\nContent-Length: " . length($all) . "\r\n\r\n$all");
        }
        else {
            my $got = length $c->{in};
            while ($got < $q->{h}{'content-length'}) {
                $c->{in} = '';
                $c->more or return;
                $got += length $c->{in};
            }
            $c->{in} = '';
            $c->write("HTTP/1.1 200 OK\r\nContent-Length: " . length($got) . "\r\n\r\n$got");
        }
        $c->{origin}->note("D $what");
    }
};
$p->origin('s', $origin);
my $h = $p->origin('h', $origin);
$p->start;
my ($worker) = $p->workers;

# The most memory that the worker has had, in MiB.
sub peak {
    open my $fh, '<', "/proc/$worker/status" or return 1e9;
    my ($kb) = join('', <$fh>) =~ /^VmHWM:\s*(\d+)/m;
    return $kb / 1024;
}

# Reads an answer to its end; bytes behind the head, and whether what came is what was sent.
sub drink {
    my ($sock) = @_;
    my ($buf, $got, $head, $sum) = ('', 0, undef, 1);
    while ((my $k = sysread $sock, $buf, 262144, length $buf) > 0) {
        if (!defined $head) {
            next unless $buf =~ s/^(.*?\r\n\r\n)//s;
            $head = $1;
        }
        # Of a body that is not chunked each byte is known.
        my $at = $got % length $block;
        $sum = 0 if $head !~ /chunked/ && $buf ne substr $block . $block . $block, $at, length $buf;
        $got += length $buf;
        $buf = '';
    }
    return ($got, $sum, $head);
}

sub open_client {
    my $c = $p->connect;
    $c->sock->blocking(1);
    return $c;
}

sub check {
    my ($what) = @_;
    my $peak = peak();
    cmp_ok $peak, '<', $most, "$what: the worker has stayed small";
    diag sprintf '%s: the worker has had %.1f MiB', $what, $peak if $ENV{PROXYD_LONG};
}

for my $mode (qw(off auto nodisk on)) {
    my $c = open_client();
    syswrite $c->sock, "GET /$mode/down/$size HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    my ($got, $same) = drink($c->sock);
    is "$got $same", "$size 1", "$mode: all bytes came down";
    check("down, $mode");
    $c->close;
}
{
    my $c = open_client();
    syswrite $c->sock, "GET /auto/chunked/$size HTTP/1.0\r\n\r\n";
    my ($got) = drink($c->sock);
    is $got, $size, 'auto, chunked: all bytes came down';
    check('down, chunked');
    $c->close;
}
for (['up', $size, 0], ['up', $size, 1], ['upon', $disk, 0], ['upon', $disk, 1]) {
    my ($loc, $n, $chunked) = @$_;
    my $c = open_client();
    my $framing = $chunked ? 'Transfer-Encoding: chunked' : "Content-Length: $n";
    syswrite $c->sock, "PUT /$loc/up/$n HTTP/1.1\r\nHost: a\r\nConnection: close\r\n$framing\r\n\r\n";
    ok pour($c->sock, $n, $chunked), "$loc: sent";
    my ($got, undef, $head) = drink($c->sock);
    like $head, qr/^HTTP\/1.1 200/, "$loc, $framing: all bytes went up";
    is $got, length $n, 'as the server says';
    check("up, $loc");
    $c->close;
}
# --- whose connection a slow client holds -----------------------------------------------------------------
my $n = 32 * 1048576;
for my $mode ('on', 'off') {
    $h->reset_counts;
    my $slow = open_client();
    syswrite $slow->sock, "GET /hold/$mode/down/$n HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    ok $p->wait_for(sub { $h->requests }), "$mode: the server is asked";
    if ($mode eq 'on') {
        ok $p->wait_for(sub { $h->lines(qr/^D down/) }, 20), 'buffered: the server is rid of it while the client has read nothing';
    }
    # There may be one at a time: another request is refused as long as the slow one's is held.
    my $free = sub { $p->get("/hold/$mode/down/5")->status == 200 };
    if ($mode eq 'on') { ok $p->wait_for($free), 'its connection is free for others' }
    else               { ok !$free->(), 'its connection is held' }
    my ($got, $same) = drink($slow->sock);
    is "$got $same", "$n 1", 'the slow client gets all of it';
    $slow->close;
}
is join(' ', $p->workers), $worker, 'by the same worker';
$p->stop;
done_testing;
