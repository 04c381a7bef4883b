# SPDX-License-Identifier: BSD-2-Clause
#
# Names that are resolved while a group serves: `resolve`, SRV records, their TTL, what becomes of addresses that stay, come
# and go; names in proxy_pass; names that do not resolve at the start or any more.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/lib";
use Test::More;
use Proxyd;
use Proxyd::Dns;

plan skip_all => 'proxyd only' if Proxyd::is_nginx();

my $p = Proxyd->new;
my $port = $p->port('shared');
my $dns = Proxyd::Dns->start(file => $p->dir . '/records', log => $p->dir . '/questions');

# Servers that differ in their address say which one they are.
my %origins = map {
    my $n = $_;
    $n => Proxyd::Origin->start(listen => "127.0.0.$n:$port", log => $p->dir . "/origin-$n",
        handler => sub {
            my ($c) = @_;
            while (my $q = $c->request) { $c->write("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n$n") }
        })
} 2 .. 5;

sub a { my ($name, $ttl, @n) = @_; return map { "$name $ttl A 127.0.0.$_" } @n }
sub srv { my ($name, $priority, $weight, $n) = @_; return "$name 1 SRV $priority $weight $port n$n.test" }

my @targets = map { "n$_.test 1 A 127.0.0.$_" } 2 .. 5;
my @long = a('long.test', 3600, 2);

$dns->records(a('moves.test', 1, 2, 3), a('hash.test', 1, 2, 3), @long, @targets,
    srv('_http._tcp.svc.test', 1, 3, 2), srv('_http._tcp.svc.test', 1, 1, 3), srv('_http._tcp.svc.test', 2, 1, 4),
    srv('a.b.svc.test', 1, 1, 5),
    map { srv('_http._tcp.heavy.test', 1, $_ == 4 ? 6000 : 65535, $_) } 2 .. 4);
my $conf = <<"EOT";
worker_processes 4;
daemon on;
error_log error.log info;
http {
    resolver 127.0.0.1:@{[$dns->port]} ipv6=off;
    resolver_timeout 2s;
    log_format up '\$uri \$upstream_addr \$upstream_last_server_name';
    access_log access.log up;
    proxy_http_version 1.1;
    proxy_set_header Connection "";
    proxy_connect_timeout 1s;
    upstream moves { zone moves 256k; server moves.test:$port resolve; }
    upstream hash { zone moves; hash \$arg_k consistent; server hash.test:$port resolve; }
    upstream long { zone moves; resolver 127.0.0.1:@{[$dns->port]} valid=1s ipv6=off; server long.test:$port resolve; }
    upstream svc { zone moves; server svc.test service=http resolve; }
    upstream dots { zone moves; server svc.test service=a.b resolve; }
    upstream spare { zone moves; server svc.test service=http resolve backup; server 127.0.0.5:$port; }
    upstream heavy { zone moves; hash \$arg_k consistent; server heavy.test service=http resolve; }
    upstream late { server late.test:$port; }
    upstream mixed { server late.test:$port; server 127.0.0.5:$port; }
    server {
        listen 127.0.0.1:{{port}};
        location / { proxy_pass http://\$arg_g; }
        location /moves { proxy_pass http://moves; }
        location /hash { proxy_pass http://hash; }
        location /long { proxy_pass http://long; }
        location /svc { proxy_pass http://svc; }
        location /dots { proxy_pass http://dots; }
        location /spare { proxy_pass http://spare; }
        location /heavy { proxy_pass http://heavy; }
        location /late { proxy_pass http://late; }
        location /mixed { proxy_pass http://mixed; }
        location /plain { proxy_pass http://plain.test:$port; }
        location /never { proxy_pass http://never.test:$port; }
        location /pid { return 200 \$pid; }
    }
}
EOT
$p->write_conf($conf);
$p->start(daemon => 1);
$p->expect_log(qr/host not found in upstream|could not be resolved|no live upstreams|did not resolve|exited on signal 9/);

# Each server that answers, in order of its name.
sub seen { my ($uri, $n) = @_; my %s; $s{ $p->get("$uri?k=$_")->body }++ for 1 .. $n; return join '', map { /^\d$/ ? $_ : 'x' } sort keys %s }
sub becomes { my ($uri, $want, $what) = @_; my $got; Proxyd::wait_for(sub { ($got = seen($uri, $uri =~ m{^/h} ? 100 : 24)) eq $want }, 15); is $got, $want, $what }
sub count { my ($uri, $n) = @_; my %s; $s{ $p->get($uri)->body }++ for 1 .. $n; return join ' ', map { "$_:$s{$_}" } sort keys %s }

becomes('/moves', '23', 'resolve: both addresses serve');
is count('/moves', 20), '2:10 3:10', 'in turns over all workers';
becomes('/hash', '23', 'a method with a table');
my %before = map { $_ => $p->get("/hash?k=$_")->body } 1 .. 40;
is_deeply { map { $_ => $p->get("/hash?k=$_")->body } 1 .. 40 }, \%before, 'all workers agree on it';
becomes('/svc', '23', 'service: the records of the highest priority serve');
is count('/svc', 40), '2:30 3:10', 'by their weights';
becomes('/dots', '5', 'service with a dot');
becomes('/heavy', '234', 'service with heavy records and a table');
my ($heavy) = do { local (@ARGV, $/) = '/proc/' . $p->get('/pid')->body . '/status'; <> } =~ /^VmRSS:\s+(\d+) kB/m;
ok $heavy < 65536 || $ENV{TEST_PROXYD_SANITIZED}, 'which is as large as it needs to be' or diag "$heavy kB";
is seen('/spare', 8), '5', 'a backup that is a name rests';
like $p->access_log, qr{^/svc 127\.0\.0\.2:$port svc\.test$}m, 'log: address and name';

# --- records that change ------------------------------------------------------------------------------
$dns->records(a('moves.test', 1, 3, 4), a('hash.test', 1, 2, 3, 4), a('long.test', 3600, 5), @targets,
    srv('_http._tcp.svc.test', 1, 1, 4), srv('_http._tcp.svc.test', 2, 1, 3), srv('a.b.svc.test', 1, 1, 5));
becomes('/moves', '34', 'one address comes, one goes');
is count('/moves', 20), '3:10 4:10', 'in turns';
becomes('/hash', '234', 'a table is built anew');
my $same = grep { my $b = $p->get("/hash?k=$_")->body; $b eq $before{$_} || $b eq '4' } 1 .. 40;
is $same, 40, 'consistent: keys move only to the new one';
becomes('/long', '5', 'valid= overrides the TTL');
becomes('/svc', '4', 'priorities change');

# --- records that vanish --------------------------------------------------------------------------------
my $moved = $dns->questions(qr/moves/);
$dns->records('moves.test nxdomain', 'hash.test servfail', 'long.test silent', @targets);
ok Proxyd::wait_for(sub { $dns->questions(qr/moves/) >= $moved + 4 }, 20), 'asked again and again';
is seen('/moves', 12), '34', 'NXDOMAIN: the addresses known stay';
is seen('/hash', 100), '234', 'SERVFAIL: they too';
is seen('/long', 12), '5', 'silence: they too';
like $p->error_log, qr/\[warn\].*moves\.test could not be resolved \(Host not found\) in upstream "moves"/, 'it is said';

# --- reload, death of the one who asks --------------------------------------------------------------------
ok $p->reload, 'reload while the name does not resolve';
is seen('/moves', 12), '34', 'the addresses known are taken over';
$p->write_conf($conf =~ s/server moves.test:$port resolve;/server moves.test:$port resolve max_fails=3; server 127.0.0.5:$port;/r);
ok $p->reload, 'reload with other servers';
is seen('/moves', 12), '345', 'there, too';
my @old = $p->workers;
kill 'KILL', @old;
ok Proxyd::wait_for(sub { my %o = map { $_ => 1 } @old; my @w = grep { !$o{$_} } $p->workers; @w == 4 }, 20), 'all workers die';
ok Proxyd::wait_for(sub { my $s = eval { seen('/moves', 12) }; ($s // '') eq '345' }, 10), 'the addresses are in the zone';
$dns->records(a('moves.test', 1, 2), @targets);
becomes('/moves', '25', 'and another worker asks');

# --- names that do not resolve at the start ------------------------------------------------------------------
is $p->get('/late')->status, 502, 'a name that nobody knows: 502, the rest serves';
is $p->get('/never')->status, 502, 'in proxy_pass too';
like $p->error_log, qr/\[error\].*no live upstreams \("never\.test:$port" did not resolve\) while connecting to upstream/, 'the log says which';
is seen('/mixed', 6), '5', 'the other server of the group serves';
$dns->records(a('moves.test', 1, 2), a('late.test', 1, 3), a('plain.test', 1, 2), @targets);
becomes('/late', '3', 'found later: it serves');
becomes('/mixed', '35', 'beside the other');
becomes('/plain', '2', 'in proxy_pass too');
$dns->records(a('moves.test', 1, 2), a('late.test', 1, 4), a('plain.test', 1, 4, 5), @targets);
becomes('/plain', '45', 'a name in proxy_pass follows its records');
becomes('/late', '4', 'a name in a group that was found late, too');
$p->stop;
$dns->stop;
$_->stop for values %origins;
done_testing;
