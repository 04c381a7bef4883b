# SPDX-License-Identifier: BSD-2-Clause
#
# Encryption by the kernel: run by t/tls_kernel.t in a machine whose kernel can. The kernel's own counters say what it has done.
use strict;
use warnings;
use Digest::SHA qw(sha256_hex);
use IO::Socket::INET;
use IO::Socket::SSL;
use Net::SSLeay;
use Test::More;
use Time::HiRes qw(sleep time);
use Proxyd;
use Proxyd::Certs;
use Proxyd::Http;
use Proxyd::Origin;

my $p     = Proxyd->new(log => 'debug');
my $certs = Proxyd::Certs->new($p->dir . '/certs');
$certs->make('a', names => ['a.test', 'b.test']);
my $size  = 3_000_001;
my $large = join '', map { pack 'N', $_ * 2654435761 % 4294967296 } 1 .. $size / 4 + 1;
$large = substr $large, 0, $size;
my $sum = sha256_hex($large);
my $small = "small\n" x 30;
$p->write_file('html/large', $large);
$p->write_file('html/small', $small);

# What the kernel counts, by name.
sub counts {
    open my $fh, '<', '/proc/net/tls_stat' or return {};
    return { map { split } <$fh> };
}

my $before;
sub mark { $before = counts()->{TlsTxSw} || 0 }
sub taken { return (counts()->{TlsTxSw} || 0) - $before }

ok !-e '/sys/module/tls', 'the module is not loaded yet';
$p->write_conf(<<'EOT');
http {
    root {{dir}}/html;
    ssl_certificate certs/a.crt;
    ssl_certificate_key certs/a.key;
    ssl_ciphers ALL:@SECLEVEL=0;
    sendfile on;
    keepalive_requests 1000;
    lingering_close off;

    server {
        listen 127.0.0.1:{{port}} ssl;
        server_name a.test;
        ssl_conf_command Options KTLS;
        location /proxied { proxy_pass http://127.0.0.1:{{port:origin}}; }
        location /unbuffered { proxy_pass http://127.0.0.1:{{port:origin}}/proxied; proxy_buffering off; }
        location /memory { alias {{dir}}/html/large; sendfile off; }
        location /chunks { alias {{dir}}/html/large; sendfile_max_chunk 100k; }
        location /limited { alias {{dir}}/html/large; limit_rate 2m; limit_rate_after 600k; }
        location /put { proxy_pass https://127.0.0.1:{{port:put}}/put; proxy_ssl_conf_command Options KTLS; }
        client_max_body_size 0;
    }
    server {
        listen 127.0.0.1:{{port}} ssl;
        server_name b.test;
    }
    server {
        listen 127.0.0.1:{{port:narrow}} ssl sndbuf=16k;
        ssl_conf_command Options KTLS;
        location /memory { alias {{dir}}/html/large; sendfile off; }
    }
    server {
        listen 127.0.0.1:{{port:lingering}} ssl sndbuf=16k;
        ssl_conf_command Options KTLS;
        lingering_close always;
    }
    server {
        listen 127.0.0.1:{{port:off}} ssl;
        ssl_conf_command Options -KTLS;
    }
    server {
        listen 127.0.0.1:{{port:put}} ssl;
        client_max_body_size 0;
        location /put { root {{dir}}; dav_methods PUT; client_body_temp_path {{dir}}/put-tmp; create_full_put_path on; }
    }
}
EOT
$p->origin('origin', sub {
    my ($conn) = @_;
    while (my $r = $conn->request) {
        $conn->write("HTTP/1.1 200 OK\r\nContent-Length: $size\r\n\r\n");
        $conn->write(substr $large, $_ * 50_000, 50_000) for 0 .. $size / 50_000;
    }
});
$p->start;
ok -d '/sys/module/tls', 'the master has had it loaded';
my ($worker) = $p->workers;

# A connection; what => [SSL_version, SSL_cipher_list, SSL_ciphersuites], name, rcvbuf.
sub dial {
    my ($port, %o) = @_;
    my $sock = IO::Socket::INET->new(Proto => 'tcp') or die $!;
    my $tcp = $o{rcvbuf} ? do {
        socket(my $s, PF_INET, SOCK_STREAM, 0) or die $!;
        setsockopt $s, SOL_SOCKET, SO_RCVBUF, pack 'l', $o{rcvbuf};
        connect $s, pack_sockaddr_in($p->port($port), inet_aton('127.0.0.1')) or die $!;
        IO::Socket::INET->new_from_fd($s, '+<') } : IO::Socket::INET->new(PeerAddr => '127.0.0.1:' . $p->port($port)) or die "connect: $!";
    return IO::Socket::SSL->start_SSL($tcp, SSL_verify_mode => 0, SSL_hostname => $o{name} || 'a.test', %{ $o{ssl} || {} }) || die "TLS: $IO::Socket::SSL::SSL_ERROR";
}

my %rest; # what was read too much, by connection

sub ask { my ($c, $path, @fields) = @_; print $c join("\r\n", "GET $path HTTP/1.1", 'Host: a.test', @fields, '', '') }

# The next answer: status, fields, body. Slowly: pauses of so many seconds between reads of so many bytes.
sub answer {
    my ($c, %o) = @_;
    my $in = delete $rest{$c} // '';
    my $want;
    while (1) {
        if (!defined $want && $in =~ /^(.*?\r\n\r\n)/s) {
            my $head = $1;
            $want = length($head) + ($head =~ /^Content-Length: (\d+)/mi ? $1 : 0);
        }
        last if defined $want && length $in >= $want;
        sleep $o{pause} if $o{pause};
        my $n = sysread $c, $in, $o{piece} || 65536, length $in;
        last unless $n;
    }
    return ('', '', '') unless $in =~ s/^(HTTP\S+ (\d+).*?)\r\n\r\n//s;
    my ($head, $status) = ($1, $2);
    my ($length) = $head =~ /^Content-Length: (\d+)/mi;
    my $body = substr $in, 0, $length || 0, '';
    $rest{$c} = $in if length $in;
    return ($status, $head, $body);
}

sub get { my ($c, $path, @fields) = @_; ask($c, $path, @fields); return answer($c) }

# The end as it is said: close_notify, then nothing.
sub ended {
    my ($c) = @_;
    my $n = sysread $c, my $more, 10;
    my $said = Net::SSLeay::get_shutdown($c->_get_ssl_object) & 2;
    return defined $n && $n == 0 && $said;
}

my %suites = (
    TLSv1_3 => [qw(TLS_AES_128_GCM_SHA256 TLS_AES_256_GCM_SHA384 TLS_CHACHA20_POLY1305_SHA256)],
    TLSv1_2 => [qw(ECDHE-ECDSA-AES128-GCM-SHA256 ECDHE-ECDSA-AES256-GCM-SHA384 ECDHE-ECDSA-CHACHA20-POLY1305)],
);
sub suite {
    my ($version, $name) = @_;
    return { SSL_version => $version, $version eq 'TLSv1_3' ? (SSL_ciphersuites => $name) : (SSL_cipher_list => "$name:\@SECLEVEL=0") };
}

for my $version (sort keys %suites) {
    for my $name (@{ $suites{$version} }) {
        mark();
        my $c = dial('main', ssl => suite($version, $name));
        my ($status, $head, $body) = get($c, '/small');
        is $body, $small, "$name: a short answer";
        is taken(), 0, "$name: for which nobody asked the kernel";
        ($status, $head, $body) = get($c, '/large');
        is sha256_hex($body), $sum, "$name: a file";
        is taken(), 1, "$name: the kernel encrypts";
        is +(get($c, '/small'))[2], $small, "$name: a short answer after it";
        ($status, $head, $body) = get($c, '/large', 'Range: bytes=100000-2000000');
        ok $status == 206 && $body eq substr($large, 100000, 1900001), "$name: a range";
        ($status, $head, $body) = get($c, '/large', 'Range: bytes=5-70000,1000000-1200000');
        my ($boundary) = $head =~ /boundary=(\S+)/;
        ok $status == 206 && index($body, substr $large, 5, 69996) > 0 && index($body, substr($large, 1000000, 200001) . "\r\n--$boundary--\r\n") > 0, "$name: two ranges";
        is sha256_hex((get($c, '/proxied'))[2]), $sum, "$name: a proxied answer";
        is sha256_hex((get($c, '/large', 'Connection: close'))[2]), $sum, "$name: the last one";
        ok ended($c), "$name: close_notify";
        is taken(), 1, "$name: all by one socket";
    }
}

# Whether files are read into the worker, which the kernel counts, too.
sub reads { open my $fh, '<', "/proc/$worker/io" or die $!; return join('', <$fh>) =~ /^syscr: (\d+)/m ? $1 : die }
{
    my $c = dial('main');
    get($c, '/large');
    my $n = reads();
    get($c, '/large') for 1 .. 3;
    my $by_sendfile = reads() - $n;
    $n = reads();
    get($c, '/memory') for 1 .. 3;
    cmp_ok $by_sendfile, '<', 40, 'a file is not read';
    cmp_ok reads() - $n, '>', 100, 'but where sendfile is off';
    for my $path (qw(/memory /chunks /limited /proxied /unbuffered)) {
        is sha256_hex((get($c, $path))[2]), $sum, "$path, kept alive";
    }
}
mark();
for my $path (qw(/memory /chunks /limited /proxied /unbuffered)) {
    my $c = dial('main');
    is sha256_hex((get($c, $path, 'Connection: close'))[2]), $sum, "$path, closed";
    ok ended($c), "$path: close_notify";
}
is taken(), 5, 'all that is long is the kernel\'s';

# Who does not get it.
mark();
{
    my $c = dial('main', name => 'b.test');
    print $c "GET /large HTTP/1.1\r\nHost: b.test\r\nConnection: close\r\n\r\n";
    is sha256_hex((answer($c))[2]), $sum, 'a server that did not ask for it, chosen by name';
    is sha256_hex((get(dial('off'), '/large'))[2]), $sum, 'one that does not want it';
    for my $name (qw(ECDHE-ECDSA-AES128-SHA256 ECDHE-ECDSA-AES128-CCM)) {
        is sha256_hex((get(dial('main', ssl => suite('TLSv1_2', $name)), '/large'))[2]), $sum, "$name, which the library keeps to itself";
        like $p->error_log, qr/kTLS is not used: the library keeps the keys of TLSv1\.2, "$name"/, '... as the log says';
    }
    my $c2 = dial('main');
    get($c2, '/small') for 1 .. 100;
    is +(get($c2, '/small', 'Connection: close'))[2], $small, 'a hundred short answers';
    ok ended($c2), '... and close_notify';
}
is taken(), 0, 'none of these is the kernel\'s';

# Slow readers: what the kernel has accepted and TCP has no room for is not lost with the socket.
mark();
for my $port (qw(narrow lingering)) {
    for my $pause (0.002, 0.01) {
        for my $version (sort keys %suites) {
            my $c = dial($port, rcvbuf => 8192, ssl => { SSL_version => $version });
            ask($c, '/large', 'Range: bytes=0-700000', 'Connection: close');
            my ($status, $head, $body) = answer($c, pause => $pause, piece => 12000);
            ok $body eq substr($large, 0, 700001), "$port, $pause s, $version: all comes" or diag length $body;
            ok ended($c), "$port, $pause s, $version: close_notify";
        }
    }
}
{
    my $c = dial('narrow', rcvbuf => 4096);
    for my $length (100_000, 200_000) {
        ask($c, '/memory', "Range: bytes=0-$length");
        ok +(answer($c, pause => 0.005, piece => 3000))[2] eq substr($large, 0, $length + 1), "slowly, kept alive: $length";
    }
    ask($c, '/large', 'Range: bytes=0-200000', 'Connection: close');
    sleep 0.5;
    ok +(answer($c))[2] eq substr($large, 0, 200001), 'after a pause: all comes';
    ok ended($c), '... and the end';
}
is taken(), 9, 'all by the kernel';

# Clients that go in the midst.
for my $n (1 .. 10) {
    my $c = dial('main');
    ask($c, '/large');
    sysread $c, my $some, 5000 * $n;
    $n % 2 ? Proxyd::Http::abort({ sock => $c }) : close $c;
}
is +(get(dial('main'), '/small'))[2], $small, 'after clients that went';

# Key updates. The client's own are the library's business; a new one for our data the kernel cannot be given.
sub s_client {
    my ($steps, @how) = @_;
    my $out = $p->dir . '/s_client.out';
    unlink $out;
    open my $pipe, '|-', "openssl s_client -connect 127.0.0.1:@{[ $p->port('main') ]} -servername a.test -tls1_3 -msg @how > $out 2>&1" or die $!;
    $pipe->autoflush(1);
    local $SIG{PIPE} = 'IGNORE';
    my $seen = sub { my ($re) = @_; Proxyd::wait_for(sub { ($p->read_file($out) // '') =~ $re }, 20) };
    for (@$steps) {
        my ($say, $re) = @$_;
        print $pipe $say if defined $say;
        $seen->($re) or last;
    }
    close $pipe;
    return ($p->read_file($out) // '') =~ s/^    (?:[0-9a-f]{2} ?)+\r?\n|^    [0-9a-f]{4} - .*\n//mgr;
}
my $head_of_large = "GET /large HTTP/1.1\r\nHost: a.test\r\nRange: bytes=0-100000\r\n\r\n";
my $small_request = "GET /small HTTP/1.1\r\nHost: a.test\r\n\r\n";
{
    mark();
    my $out = s_client([[undef, qr/Verify return code/], [$head_of_large, qr/Content-Range/], ["k\n", qr/KEYUPDATE/], [$small_request, qr/(small\r?\n){30}/],
        ["GET /small HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n", qr/Connection: close.*close_notify/s]]);
    like $out, qr/Connection: close.*small.*close_notify/s, 'a client that takes a new key goes on';
    is taken(), 1, 'with the kernel';
    $out = s_client([[undef, qr/Verify return code/], [$head_of_large, qr/Content-Range/], ["K\n", qr/KEYUPDATE/], [$small_request, qr/<<<[^\n]*close_notify/]]);
    like $out, qr/<<<[^\n]*Alert[^\n]*close_notify/, 'one that asks for ours to be new is told the end';
    unlike $out, qr/bad record mac|Alert[^\n]*fatal/i, '... in a way that it can read';
    like $p->error_log, qr/\[info\] [^\n]*kTLS: the peer asks for a new key, which the kernel cannot be given/, '... and the log says why';
    $out = s_client([[undef, qr/Verify return code/], ["K\n", qr/KEYUPDATE/], [$head_of_large, qr/Content-Range/], [$small_request, qr/(small\r?\n){30}/]]);
    like $out, qr/Content-Range.*small/s, 'before the kernel has keys it may ask';
}

# The other end: a body for a server behind.
{
    mark();
    my $c = dial('main');
    print $c "PUT /put HTTP/1.1\r\nHost: a.test\r\nContent-Length: $size\r\nConnection: close\r\n\r\n", $large;
    is +(answer($c))[0], 201, 'a body for a server behind, by proxy_ssl_conf_command';
    is sha256_hex($p->read_file('put') // ''), $sum, 'has arrived';
    is taken(), 1, 'encrypted by the kernel';
}

# A worker that is to go finishes what it has begun.
{
    my $c = dial('narrow', rcvbuf => 8192);
    ask($c, '/large', 'Range: bytes=0-900000');
    sysread $c, my $first, 5000;
    ok $p->reload, 'reload in the midst of an answer';
    $rest{$c} = $first;
    ok +(answer($c, pause => 0.001))[2] eq substr($large, 0, 900001), 'all of it comes';
    ok ended($c), '... and the end';
}

%rest = ();
ok Proxyd::wait_for(sub { counts()->{TlsCurrTxSw} == 0 }, 20), 'all sockets have been let go' or diag explain counts();
is counts()->{TlsRxSw}, 0, 'what comes is the library\'s';
is scalar(() = $p->error_log =~ /kTLS is not used: setsockopt/g), 0, 'nothing was refused';
$p->stop;
done_testing;
