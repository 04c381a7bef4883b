# SPDX-License-Identifier: BSD-2-Clause
#
# Servers that speak TLS badly: what the client is told, and that one line of the log says why, in nginx's words.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/lib";
use IO::Socket::SSL;
use POSIX ();
use Socket;
use Test::More;
use Proxyd;
use Proxyd::Certs;

my $p     = Proxyd->new;
my $certs = Proxyd::Certs->new($p->dir . '/certs');
my $base  = $certs->make('good', names => ['good.test', '*.wild.test'], subject => '/CN=common.test');
$certs->make('cn', subject => '/CN=common.test');
$p->write_file('certs/long.crt', Proxyd::Certs::slurp("$base.crt") . Proxyd::Certs::slurp($certs->path('ca.only')) x 400);

# One process a connection. The plan is the request's path, or "plan" where no request is read.
my %servers;
sub server {
    my ($name, $plan, %o) = @_;
    my $listening = IO::Socket::INET->new(LocalAddr => '127.0.0.1', LocalPort => $p->port($name), Listen => 50, ReuseAddr => 1)
        or die "listen: $!";
    my $pid = fork;
    return $servers{$name} = $pid if $pid;
    local $SIG{PIPE} = 'IGNORE';
    local $SIG{CHLD} = 'IGNORE';
    while (my $raw = $listening->accept) {
        next if fork;
        alarm 20;
        if (ref $plan) { $plan->($raw); POSIX::_exit(0) }
        open my $below, '+<&', $raw or die;
        my $c = IO::Socket::SSL->start_SSL($raw, SSL_server => 1, SSL_cert_file => $certs->path($o{cert} || 'good.crt'),
            SSL_key_file => $certs->path($o{key} || 'good.key'), $o{version} ? (SSL_version => $o{version}) : ()) or POSIX::_exit(1);
        while (1) {
            my $request = '';
            while ($request !~ /\r\n\r\n/) { sysread($c, $request, 4096, length $request) or POSIX::_exit(0) }
            my ($path) = $request =~ m{^\w+ /\w+/(\w+)};
            my $part = "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc";
            my $record = "\x17\x03\x03\0\x20" . 'z' x 32;
            if    ($path eq 'garbage')  { syswrite $below, 'garbage that is no record at all' }
            elsif ($path eq 'record')   { syswrite $below, $record }
            elsif ($path eq 'within')   { syswrite $c, $part; syswrite $below, $record }
            elsif ($path eq 'cut')      { syswrite $c, $part; POSIX::_exit(0) }
            elsif ($path eq 'reset')    { setsockopt $below, SOL_SOCKET, SO_LINGER, pack 'ii', 1, 0; POSIX::_exit(0) }
            elsif ($path eq 'again')    { my $ssl = $c->_get_ssl_object; Net::SSLeay::renegotiate($ssl); Net::SSLeay::do_handshake($ssl);
                                          syswrite $c, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nagain" }
            elsif ($path eq 'alert')    { syswrite $below, "\x15\x03\x03\0\x02\x02\x28" }
            else                        { my $text = Net::SSLeay::get_servername($c->_get_ssl_object) // ''; my $s = $c->get_session_reused ? 'r' : '.';
                                          syswrite $c, "HTTP/1.1 200 OK\r\nContent-Length: " . (length($text) + 2) . "\r\n\r\n$s $text"; next }
            sysread $c, $request, 1;
            POSIX::_exit(0);
        }
    }
    POSIX::_exit(0);
}

server(hello => sub { sysread $_[0], my $in, 4096 });
server(alert => sub { sysread $_[0], my $in, 4096; syswrite $_[0], "\x15\x03\x03\0\x02\x02\x28"; sysread $_[0], $in, 1 });
server(plain => sub { sysread $_[0], my $in, 4096; syswrite $_[0], "HTTP/1.1 400 Bad\r\n\r\n"; sysread $_[0], $in, 1 });
server(trickle => sub { sysread $_[0], my $in, 4096; for my $byte (split //, "\x16\x03\x03\x20\0\x02\0\x10" . "\0" x 500) {
    syswrite $_[0], $byte or last; select undef, undef, undef, 0.02 } });
server(long => undef, cert => 'long.crt');
server(v13 => undef, version => 'TLSv13');
server(v12 => undef, version => 'TLSv12');
server(cn => undef, cert => 'cn.crt', key => 'cn.key');

my $names = join '', map { "location /name_$_ { proxy_pass https://127.0.0.1:{{port:v13}}; proxy_ssl_verify on; proxy_ssl_name \$arg_name; "
    . ($_ eq 'sni' ? 'proxy_ssl_server_name on; ' : '') . "}\n" } qw(plain sni);
$p->write_conf(<<"EOT");
error_log {{dir}}/error.log info;
http {
    upstream two { server 127.0.0.1:{{port:v13}}; server 127.0.0.1:{{port:v13}} backup; }
    proxy_ssl_trusted_certificate certs/ca.crt;
    proxy_connect_timeout 5s;
    server {
        listen 127.0.0.1:{{port}};
        @{[ map { "location /$_/ { proxy_pass https://127.0.0.1:{{port:$_}}; }\n" } qw(hello alert plain long v13 v12) ]}
        location /trickle/ { proxy_pass https://127.0.0.1:{{port:trickle}}; proxy_connect_timeout 300ms; }
        location /cn/ { proxy_pass https://127.0.0.1:{{port:cn}}; proxy_ssl_verify on; proxy_ssl_name \$arg_name; }
        location /long_name/ { proxy_pass https://two; proxy_ssl_verify on; proxy_ssl_name \$arg_name; proxy_ssl_server_name on; }
        $names
    }
}
EOT
$p->expect_log(qr/SSL|upstream|peer closed|recv\(\) failed/);
$p->start;

my $seen = length $p->error_log;
# The lines of the log that came with a request, at info and above.
sub lines {
    my $log = substr $p->error_log, $seen;
    $seen += length $log;
    return grep { /\[(?:info|error|crit|alert)\]/ && !/closed keepalive|SSL_shutdown/ } split /\n/, $log;
}
for (
    ['/hello/x',     502, qr/\[error\] .*\*\d+ peer closed connection in SSL handshake while SSL handshaking to upstream, client: .*upstream: "https:/],
    ['/alert/x',     502, qr/\[error\] .*\*\d+ SSL_do_handshake\(\) failed \(SSL: error:.*alert number 40\) while SSL handshaking to upstream/],
    ['/plain/x',     502, qr/\[error\] .*\*\d+ SSL_do_handshake\(\) failed \(SSL: error:.*\) while SSL handshaking to upstream/],
    ['/long/x',      502, qr/\[error\] .*\*\d+ SSL_do_handshake\(\) failed \(SSL: error:.*excessive message size.*\) while SSL handshaking to upstream/],
    ['/trickle/x',   504, qr/\[error\] .*\*\d+ upstream timed out \(110: [^)]*\) while SSL handshaking to upstream/],
    (map { my $v = $_; (
        ["/$v/garbage", 502, qr/\[error\] .*\*\d+ SSL_read\(\) failed \(SSL: error:.*\) while reading response header from upstream, client: /],
        ["/$v/record",  502, qr/\[error\] .*\*\d+ SSL_read\(\) failed \(SSL: error:.*bad record mac.*\) while reading response header from upstream, client: /],
        ["/$v/within",  200, qr/\[error\] .*\*\d+ SSL_read\(\) failed \(SSL: error:.*bad record mac.*\) while reading upstream, client: /],
        ["/$v/cut",     200, qr/\[error\] .*\*\d+ upstream prematurely closed connection while reading upstream, client: /],
        ["/$v/reset",   502, qr/\[error\] .*\*\d+ recv\(\) failed \(104: [^)]*\) while reading response header from upstream, client: /],
    ) } qw(v13 v12)),
    ['/v12/alert',   502, qr/\[error\] .*\*\d+ SSL_read\(\) failed \(SSL: error:.*\) while reading response header from upstream, client: /],
) {
    my ($uri, $status, $says) = @$_;
    my $r = eval { $p->get($uri) };
    is $r ? $r->{status} : 0, $status, $uri;
    ok $p->wait_for(sub { substr($p->error_log, $seen) =~ $says }), "$uri: logged";
    my @lines = lines();
    is scalar(@lines), 1, "$uri: once" or diag join "\n", @lines;
}

is $p->get('/v12/again')->{body}, 'again', 'a HelloRequest is declined, and the answer behind it taken';
lines();

# Who the server must be, and what it is told of it.
for (
    ['good.test', 'good.test'], ['GOOD.test', 'GOOD.test'], ['good.test:8443', 'good.test'], ['good.test.', 'good.test'], ['good.test.:443', 'good.test'],
    ['a.wild.test', 'a.wild.test'], ['b.a.wild.test'], ['wild.test'], ['x.good.test'], ['common.test'], ['127.0.0.1'], ['[::1]'], ['[::1]:443'],
    ['good.test%00.evil.test'], ['.'], [''], ['['], ['[good.test'],
) {
    my ($name, $sni) = @$_;
    my $shown = length $name > 50 ? 'a long name' : "\"$name\"";
    is $p->get("/name_$_/x?name=$name")->{status}, defined $sni ? 200 : 502, "$shown, $_" for qw(plain sni);
    like $p->get("/name_sni/x?name=$name")->{body}, qr/^. \Q$sni\E$/, "$shown is told" if defined $sni;
    like $p->get("/name_plain/x?name=$name")->{body}, qr/^. $/, "$shown is not told unless asked to" if defined $sni;
}
# A name that is too long for TLS is a client's fault: no server counts as failed for it.
for (1 .. 2) {
    my $long = 'x' x 256;
    is $p->get("/name_sni/x?name=$long")->{status}, 500, 'a long name';
    is $p->get("/name_plain/x?name=$long")->{status}, 502, 'which is not told is nobody\'s';
    like $p->get('/long_name/x?name=' . $long)->{status}, qr/^500$/, 'a long name in a group';
    is $p->get('/long_name/x?name=good.test')->{status}, 200, 'whose servers are well';
}
like $p->error_log, qr/\[error\] .*SSL_set_tlsext_host_name\("x{256}"\) failed/, 'it is logged';
is $p->get('/cn/x?name=common.test')->{status}, 200, 'a common name counts where there are no others';
is $p->get('/cn/x?name=other.test')->{status}, 502, 'if it is the one';
kill TERM => values %servers;
$p->stop;
done_testing;
