# SPDX-License-Identifier: BSD-2-Clause
#
# proxy_bind, above all "transparent": the server sees the client's address. The test runs in a network of its own, between
# one for clients and one for the server, which are joined by pairs of interfaces. All three are without a name: they
# are gone with the processes in them, however those end.
#
#     clients 10.97.1.2, .3, fd97:1::2, ::3 -- 10.97.1.1, fd97:1::1  proxyd  10.97.2.1, fd97:2::1 -- 10.97.2.2, fd97:2::2 server
#
# What the server answers goes to the client's address, and comes by here, for this is its way to everywhere. A rule
# for what comes from that interface says that all addresses are this machine's.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/lib";
use Test::More;
use Load;
use Proxyd;

plan skip_all => 'proxyd only' if Proxyd::is_nginx();
plan skip_all => 'this needs root' if $> != 0;
sub which { my ($n) = @_; for (split(/:/, $ENV{PATH}), '/sbin', '/usr/sbin') { return "$_/$n" if -x "$_/$n" } return }
for (qw(unshare nsenter setpriv ip curl)) { plan skip_all => "$_ is not installed" unless which($_) }
if (!$ENV{TEST_PROXYD_OWN_NETWORK}) {
    plan skip_all => 'no network can be made here' if system('unshare -n ip link add a0 type veth peer name b0 2>/dev/null');
    $ENV{TEST_PROXYD_OWN_NETWORK} = 1;
    exec 'unshare', '-n', $^X, "-I$FindBin::Bin/lib", $0, @ARGV or die "unshare: $!";
}

sub run { my (@command) = @_; return system(@command) == 0 || die "@command: $?" }

# Another network, that lives as long as its process.
sub network {
    my $holder = Load->spawn('unshare', '-n', 'sh', '-c', 'echo .; exec cat');
    $holder->answer;
    return $holder;
}
my ($clients, $servers) = (network(), network());
sub within { my ($network, @command) = @_; return ('nsenter', '-t', $network->pid, '-n', @command) }
run(qw(ip link set lo up));
for (['clients', $clients, 1], ['servers', $servers, 2]) {
    my ($name, $network, $n) = @$_;
    run(qw(ip link add), $name, qw(type veth peer name eth0 netns), $network->pid);
    run(qw(ip addr add), "10.97.$n.1/24", 'dev', $name);
    run(qw(ip addr add), "fd97:$n\::1/64", 'dev', $name, 'nodad');
    run(qw(ip link set), $name, 'up');
    run(within($network, qw(ip link set lo up)));
    for my $host (2, 3) {
        run(within($network, qw(ip addr add), "10.97.$n.$host/24", qw(dev eth0)));
        run(within($network, qw(ip addr add), "fd97:$n\::$host/64", qw(dev eth0 nodad)));
    }
    run(within($network, qw(ip link set eth0 up)));
    run(within($network, qw(ip route add default via), "10.97.$n.1"));
    run(within($network, qw(ip -6 route add default via), "fd97:$n\::1"));
}
for my $family ('-4', '-6') {
    run('ip', $family, qw(rule add iif servers lookup 100));
    run('ip', $family, qw(route add local default dev lo table 100));
}

# The server: "ADDRESS PORT CONNECTION REQUEST", connections and the requests of each by number. /close ends the connection, /hold is
# answered when there is a file "go".
my $p = Proxyd->new;
my $dir = $p->dir;
$p->write_file('server.pl', <<'EOT');
use strict;
use warnings;
use IO::Select;
use IO::Socket::IP;
my ($dir, @at) = @ARGV;
$| = 1;
$SIG{CHLD} = 'IGNORE';
my @listen = map { /^(.*):(\d+)$/; IO::Socket::IP->new(LocalHost => $1, LocalPort => $2, Listen => 64, ReuseAddr => 1, V6Only => 1) or die "$_: $@" } @at;
print ".\n";
my $number = 0;
while (my @ready = IO::Select->new(@listen, \*STDIN)->can_read) {
    for my $l (@ready) {
        exit if $l == \*STDIN;
        my $c = $l->accept or next;
        $number++;
        next if fork;
        for (my $n = 1; ; $n++) {
            my $head = '';
            while ($head !~ /\r\n\r\n/) { sysread $c, $head, 4096, length $head or exit }
            if ($head =~ m{^GET /hold}) { select undef, undef, undef, 0.02 until -e "$dir/go" }
            my $body = join(' ', $c->peerhost, $c->peerport, $number, $n) . "\n";
            my $close = $head =~ m{^GET /close} ? "Connection: close\r\n" : '';
            syswrite $c, "HTTP/1.1 200 OK\r\n${close}Content-Length: " . length($body) . "\r\n\r\n$body";
            exit if $close;
        }
    }
}
EOT
my $server = Load->spawn(within($servers, $^X, "$dir/server.pl", $dir, map { ("10.97.2.2:$_", "fd97:2::2:$_") } 8080, 8081));
$server->answer;

my $conf = <<'EOT';
events { worker_connections 512; }
http {
    proxy_http_version 1.1;
    proxy_set_header Connection "";
    map $remote_addr $back { ~: "[$remote_addr]:$remote_port"; default "$remote_addr:$remote_port"; }
    upstream v4 { server 10.97.2.2:8080; }
    upstream v6 { server [fd97:2::2]:8080; }
    upstream both { zone both 64k; server 10.97.2.2:8080; server 10.97.2.2:8081; keepalive 8; }
    upstream other { server 10.97.2.2:8081; }
    upstream once { zone once 64k; server 10.97.2.2:8080; server 10.97.2.2:8081; keepalive 0; }
    upstream shared { server 10.97.2.2:8080; keepalive 8; }
    server {
        listen 10.97.1.1:8000;
        listen [fd97:1::1]:8000;
        proxy_bind $remote_addr transparent;
        location /v4/ { proxy_pass http://v4/; }
        location /v6/ { proxy_pass http://v6/; }
        location /nopool/ { proxy_pass http://10.97.2.2:8080/; }
        location /off/ { proxy_bind off; proxy_pass http://v4/; }
        location /port4/ { proxy_bind $remote_addr:$remote_port transparent; proxy_pass http://v4/; }
        location /port6/ { proxy_bind [$remote_addr]:$remote_port transparent; proxy_pass http://v6/; }
        location /nokeep/ { proxy_bind $back transparent; proxy_pass http://once/; }
        location /bound/ { proxy_pass http://shared/; }
        location /free/ { proxy_bind off; proxy_pass http://shared/; }
        location /arg/ { proxy_bind $arg_a; proxy_pass http://both/; }
        location /many/ { proxy_bind $arg_a; proxy_pass http://once/; }
        location /argport/ { proxy_bind 10.97.2.1:$arg_p; proxy_pass http://shared/; }
        location /argport2/ { proxy_bind 10.97.2.1:$arg_p; proxy_pass http://other/; }
    }
}
EOT

# What a client with that address gets: [ADDRESS, PORT, CONNECTION, REQUEST] for each URI, or its status.
sub ask {
    my ($from, @uris) = @_;
    my ($address, $port) = @$from;
    my $to = $address =~ /:/ ? '[fd97:1::1]' : '10.97.1.1';
    my @port = $port ? ('--local-port', $port) : ();
    open my $fh, '-|', within($clients, 'curl', '-gsS', '-m', '20', '--interface', $address, @port, '-w', '%{http_code}\n',
        map { "http://$to:8000$_" } @uris) or die "curl: $!";
    my @got;
    while (my $l = <$fh>) {
        if ($l =~ /^(\d{3})$/) { push @got, $1 if $1 != 200 }
        elsif ($l =~ /^[\da-f.:]+ \d+ \d+ \d+$/) { push @got, [split ' ', $l] }
    }
    close $fh;
    return wantarray ? @got : $got[0];
}
sub peer { my ($got) = @_; return ref $got ? $got->[0] : $got }
sub lines { my ($re) = @_; return scalar(() = ($p->error_log || '') =~ /$re/g) }
# Inheritable, permitted, effective, ambient.
sub capabilities {
    my ($pid) = @_;
    my $text = $p->read_file("/proc/$pid/status") // '';
    return join ' ', map { $text =~ /^Cap$_:\s+0*(\w+)$/m } qw(Inh Prm Eff Amb);
}
my @a = (['10.97.1.2'], ['10.97.1.3'], ['fd97:1::2'], ['fd97:1::3']);

# --- workers of another user ---------------------------------------------------------------------------------
$p->write_conf("user nobody nogroup;\n$conf");
$p->start;
my ($worker) = $p->workers;
# It is root when it begins.
Proxyd::wait_for(sub { (stat "/proc/$worker")[4] });
is((stat "/proc/$worker")[4], scalar getpwnam('nobody'), 'the worker is not root');
Proxyd::wait_for(sub { capabilities($worker) eq '0 2000 2000 0' });
is capabilities($worker), '0 2000 2000 0', 'and has kept CAP_NET_RAW alone';
for my $n (0, 1) {
    is peer(scalar ask($a[$n], '/v4/')), $a[$n][0], "IPv4: the server sees $a[$n][0]";
    is peer(scalar ask($a[ $n + 2 ], '/v6/')), $a[ $n + 2 ][0], "IPv6: the server sees $a[$n + 2][0]";
}
is peer(scalar ask($a[0], '/nopool/')), '10.97.1.2', 'without a group';
is peer(scalar ask($a[0], '/off/')), '10.97.2.1', 'off: the address of this machine';
is ask($a[2], '/v4/'), 500, 'an IPv6 client, an IPv4 server';
like $p->error_log, qr/\[crit\] \S+ \*\d+ bind\(fd97:1::2\) failed \(97: [^)]*\) while connecting to upstream, client: fd97:1::2/,
    'which the log says';

# --- with the client's port ----------------------------------------------------------------------------------
{
    my @got = ask(['10.97.1.2', 41001], '/port4/', '/port4/', '/port4/');
    is_deeply [map { [@$_[0, 1]] } grep { ref } @got], [(['10.97.1.2', 41001]) x 3], 'address and port';
    is_deeply [map { $_->[3] } grep { ref } @got], [1, 2, 3], 'over one connection';
    @got = ask(['fd97:1::3', 41002], '/port6/', '/port6/');
    is_deeply [map { [@$_[0, 1]] } grep { ref } @got], [(['fd97:1::3', 41002]) x 2], 'IPv6: address and port';
    # Each connection is closed here first, and the next one is from the same port.
    @got = ask(['10.97.1.3', 41003], ('/nokeep/') x 4);
    is_deeply [map { ref $_ ? [@$_[0, 1, 3]] : $_ } @got], [(['10.97.1.3', 41003, 1]) x 4], 'one connection after the other';
    @got = ask(['10.97.1.3', 41004], ('/nokeep/close') x 4);
    is_deeply [map { ref $_ ? [@$_[0, 1, 3]] : $_ } @got], [(['10.97.1.3', 41004, 1]) x 4], 'also where the server closes';
    is ask($a[3], '/nokeep/'), 500, 'an address of the wrong family';
}

# --- kept connections ----------------------------------------------------------------------------------------
{
    my @got = map { scalar ask($_, '/bound/') } @a[0, 1, 0, 1, 1, 0];
    is_deeply [map { peer($_) } @got], [map { $_->[0] } @a[0, 1, 0, 1, 1, 0]], 'kept for one address, never used for another';
    is_deeply [map { $_->[3] } @got], [1, 1, 2, 2, 3, 3], 'but for the same';
    @got = map { scalar ask($a[0], $_) } qw(/free/ /bound/ /free/ /bound/);
    is_deeply [map { peer($_) } @got], [qw(10.97.2.1 10.97.1.2 10.97.2.1 10.97.1.2)], 'nor for who wants none, nor the other way round';
    is_deeply [map { $_->[3] } @got], [1, 4, 2, 5], 'each its own';
}

# --- what cannot be bound -------------------------------------------------------------------------------------
{
    is ask($a[0], '/arg/?a=192.0.2.9'), 500, 'an address of no interface, without transparent';
    is lines(qr/\[crit\] \S+ \*\d+ bind\(192\.0\.2\.9\) failed \(99: [^)]*\) while connecting to upstream/), 1, 'one line';
    unlike $p->error_log, qr/upstream server temporarily disabled/, 'no server is to blame';
    is peer(scalar ask($a[0], '/arg/?a=10.97.2.1')), '10.97.2.1', 'one that is';
    is peer(scalar ask($a[0], '/arg/')), '10.97.2.1', 'an empty one: none';
    is peer(scalar ask($a[0], '/arg/?a=nothing')), '10.97.2.1', 'what is no address: none';
    is lines(qr/\[error\] \S+ \*\d+ invalid local address "nothing"/), 1, 'and a line';
    is peer(scalar ask($a[0], '/arg/?a=unix:/x')), '10.97.2.1', 'nor is a unix socket';
    is lines(qr{invalid local address "unix:/x"}), 1, 'one';
    is peer(scalar ask($a[0], '/argport/?p=70000')), '10.97.2.1', 'a port that is none: no address at all';
    is ask($a[0], '/argport/?p=80'), 500, 'a port that only root may have';
    is lines(qr/\[crit\] \S+ \*\d+ bind\(10\.97\.2\.1:80\) failed \(13: /), 1, 'is named';
    is join(' ', @{ ask($a[0], '/argport/?p=45000') }[0, 1]), '10.97.2.1 45000', 'an address with a port';
    is join(' ', @{ ask($a[0], '/argport2/?p=45000') }[0, 1]), '10.97.2.1 45000', 'the same at once to another server';
}

# --- many connections ------------------------------------------------------------------------------------------
{
    my $range = '/proc/sys/net/ipv4/ip_local_port_range';
    my $usual = $p->read_file($range);
    $p->write_file($range, '46000 46009');
    my (@held, %seen);
    for my $n (1 .. 22) {
        open my $fh, '-|', within($clients, qw(curl -gsS -m 30 -w %{http_code}\n), '--interface', '10.97.1.2',
            "http://10.97.1.1:8000/many/hold?a=10.97.2.1&n=$n") or die "curl: $!";
        push @held, $fh;
    }
    ok Proxyd::wait_for(sub { lines(qr/connect\(\) to 10\.97\.2\.2:\d+ failed \(99: /) >= 4 }, 20), 'more than there are ports';
    $p->write_file('go', '');
    for my $fh (@held) { local $/; my $got = <$fh>; close $fh; $seen{ $got =~ /(\d{3})\n\z/ ? $1 : $got }++ }
    unlink "$dir/go";
    $p->write_file($range, $usual);
    is_deeply \%seen, { 200 => 20, 502 => 2 }, 'each port serves for each server';
    like $p->error_log, qr/\[crit\] \S+ \*\d+ connect\(\) to 10\.97\.2\.2:808\d failed \(99: Cannot assign requested address\) while connecting/,
        'the log says what failed';
    unlike $p->error_log, qr/upstream server temporarily disabled/, 'of which no server is the cause';
}

# --- kept only when it is needed -------------------------------------------------------------------------------
(my $plain = $conf) =~ s/ transparent//g;
$p->write_conf("user nobody nogroup;\n$plain");
# Once the workers before are gone.
sub kept { my ($want) = @_; return Proxyd::wait_for(sub { $want eq join ',', map { capabilities($_) } $p->workers }, 20) }
ok $p->reload, 'another configuration';
ok kept('0 0 0 0'), 'nothing is kept without "transparent"';
is ask($a[0], '/v4/'), 500, 'nor would it do';
$p->write_conf("user nobody nogroup;\n$conf");
ok $p->reload, 'and again with it';
ok kept('0 2000 2000 0'), 'kept';
is peer(scalar ask($a[0], '/v4/')), '10.97.1.2', 'served';
$p->stop;

# --- who has not got it ----------------------------------------------------------------------------------------
sub remedy { return qr/\[alert\] \S+ \*\d+ "transparent" needs the capability CAP_NET_RAW, which this worker does not have: setsockopt\($_[0]\) failed \(1: Operation not permitted\) while connecting to upstream, client: / }
sub start_as {
    my ($user, $own, @how) = @_;
    $p = Proxyd->new;
    $p->write_conf("$user$conf");
    $p->write_file('start', "#!/bin/sh\nexec setpriv @how '@{[ Proxyd::binary() ]}' \"\$@\"\n");
    chmod 0755, $p->dir . '/start';
    $p->{binary} = $p->dir . '/start';
    run('chown', '-R', $own, $p->dir) if $own;
    $p->expect_log(qr/needs the capability CAP_NET_RAW/);
    $p->start;
}
start_as("user nobody nogroup;\n", undef, '--bounding-set', '-net_raw,-net_admin');
ok $p->wait_log(qr/\[error\] \S+ "transparent" needs the capability CAP_NET_RAW, which workers do not have: start as root/, undef, 20),
    'root without it: said at the start';
is ask($a[0], '/v4/'), 500, 'what needs it fails';
like $p->error_log, remedy('IP_TRANSPARENT'), 'and the log says why';
is peer(scalar ask($a[0], '/off/')), '10.97.2.1', 'other things go on';
$p->stop;

my @nobody = ('--reuid', 'nobody', '--regid', 'nogroup', '--clear-groups');
start_as('', 'nobody:nogroup', @nobody, '--inh-caps', '-all');
is ask($a[2], '/v6/'), 500, 'not root: fails as well';
like $p->error_log, remedy('IPV6_TRANSPARENT'), 'for IPv6';
$p->stop;

start_as('', 'nobody:nogroup', @nobody, '--inh-caps', '-all,+net_raw', '--ambient-caps', '-all,+net_raw');
is peer(scalar ask($a[0], '/v4/')), '10.97.1.2', 'not root, but with that capability: works';
unlike $p->error_log, qr/CAP_NET_RAW/, 'without a word';
$p->stop;

$server->stop;
$_->stop for $clients, $servers;
done_testing;
