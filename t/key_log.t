# SPDX-License-Identifier: BSD-2-Clause
#
# ssl_key_log and proxy_ssl_key_log: what both ends of a connection write is the same, at every level, after a reopening, and only
# where it was asked for.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/lib";
use Test::More;
use Proxyd;
use Proxyd::Certs;

plan skip_all => 'nginx has it in its commercial edition' if Proxyd::is_nginx();

my $p     = Proxyd->new;
my $certs = Proxyd::Certs->new($p->dir . '/certs');
$certs->make('a', names => ['a.test']);
my $certificate = 'ssl_certificate certs/a.crt; ssl_certificate_key certs/a.key;';
my $conf = <<"EOT";
worker_processes 2;
http {
    $certificate
    ssl_key_log {{dir}}/above.keys;
    proxy_ssl_session_reuse off;

    server { listen 127.0.0.1:{{port:above}} ssl; return 200 above; }
    server { listen 127.0.0.1:{{port:own}} ssl; server_name a.test; ssl_key_log own.keys; return 200 own; }
    server { listen 127.0.0.1:{{port:own}} ssl; server_name b.test; ssl_key_log b.keys; return 200 b; }
    server { listen 127.0.0.1:{{port:v12}} ssl; ssl_protocols TLSv1.2; ssl_key_log v12.keys; return 200 v12; }

    proxy_ssl_key_log up-above.keys;
    server {
        listen 127.0.0.1:{{port}};
        location /above { proxy_pass https://127.0.0.1:{{port:own}}; }
        location /own { proxy_ssl_key_log up-own.keys; proxy_pass https://127.0.0.1:{{port:v12}}; }
        location /same { proxy_ssl_key_log up-own.keys; proxy_ssl_name x; proxy_pass https://127.0.0.1:{{port:own}}; }
    }
}
EOT
$p->write_conf($conf);
$p->start;

# The lines of a file that are secrets, sorted.
sub keys_in {
    my ($file) = @_;
    return [] unless -e $p->dir . "/$file";
    return [sort grep { /^[A-Z]/ } split /\n/, $p->read_file($file)];
}

# What the client writes in a connection of that version to that port.
sub client_keys {
    my ($port, $version, $name) = @_;
    my $file = $p->dir . '/client.keys';
    unlink $file;
    open my $s, '|-', "openssl s_client -connect 127.0.0.1:@{[ $p->port($port) ]} -servername $name $version"
        . " -keylogfile $file -ign_eof >@{[ $p->dir ]}/out 2>&1" or die $!;
    print $s "GET / HTTP/1.1\r\nHost: $name\r\nConnection: close\r\n\r\n";
    close $s;
    return keys_in('client.keys');
}

my @tls13 = qw(CLIENT_HANDSHAKE_TRAFFIC_SECRET CLIENT_TRAFFIC_SECRET_0 EXPORTER_SECRET
    SERVER_HANDSHAKE_TRAFFIC_SECRET SERVER_TRAFFIC_SECRET_0);
sub labels { my %seen; $seen{ (split / /)[0] }++ for @{ $_[0] }; return [sort keys %seen] }

for (['above', '-tls1_3', 'a.test', 'above.keys', \@tls13], ['own', '-tls1_3', 'a.test', 'own.keys', \@tls13],
    ['own', '-tls1_2', 'a.test', 'own.keys', ['CLIENT_RANDOM']], ['v12', '-tls1_2', 'a.test', 'v12.keys', ['CLIENT_RANDOM']]) {
    my ($port, $version, $name, $file, $labels) = @$_;
    my $before = keys_in($file);
    my $client = client_keys($port, $version, $name);
    my %before = map { $_ => 1 } @$before;
    is_deeply(labels($client), $labels, "$port $version: what a client writes");
    is_deeply([grep { !$before{$_} } @{ keys_in($file) }], $client, "$port $version: the server writes to $file");
    like($client->[0], qr/^[A-Z0-9_]+ [0-9a-f]{64} [0-9a-f]{64,96}$/, 'label, random, secret');
}
is((stat $p->dir . "/$_")[2] & 07777, 0600, "$_ is the owner's") for qw(above.keys own.keys up-own.keys);

# A server chosen by name has the file of its own, from when the name is known.
my $own    = keys_in('own.keys');
my $client = client_keys('own', '-tls1_3', 'b.test');
is_deeply(keys_in('b.keys'), $client, 'by name: the one');
is_deeply(keys_in('own.keys'), $own, 'by name: not the other');

# Towards servers: both ends are ours.
for (['/above', 'up-above.keys', 'own.keys', 5], ['/own', 'up-own.keys', 'v12.keys', 1], ['/same', 'up-own.keys', 'own.keys', 5]) {
    my ($uri, $file, $origin, $count) = @$_;
    my %before = map { $_ => 1 } @{ keys_in($file) }, @{ keys_in($origin) };
    is($p->get($uri)->{status}, 200, "$uri: answered");
    my @new = grep { !$before{$_} } @{ keys_in($file) };
    is(scalar @new, $count, "$uri: lines in $file");
    is_deeply([grep { !$before{$_} } @{ keys_in($origin) }], \@new, "$uri: the server's own are the same");
}

# Reopened as logs are.
rename $p->dir . '/own.keys', $p->dir . '/own.old' or die $!;
my $old = keys_in('own.old');
$p->signal('USR1');
ok($p->wait_for(sub { -e $p->dir . '/own.keys' }), 'USR1 opens it anew');
ok($p->wait_for(sub { my $keys = client_keys('own', '-tls1_3', 'a.test'); my %there = map { $_ => 1 } @{ keys_in('own.keys') };
        !grep { !$there{$_} } @$keys }), 'and what follows is there');
is_deeply([grep { !m/^#/ } @{ keys_in('own.old') }[0 .. $#$old]], $old, 'what stood there stays');
is((stat $p->dir . '/own.keys')[2] & 07777, 0600, "the new one is the owner's");

# After a reload without it nothing is written.
$p->write_conf($conf =~ s/\w*ssl_key_log [^;]*;//gr);
ok($p->reload, 'reload');
my $now = keys_in('above.keys');
client_keys('above', '-tls1_3', 'a.test');
is_deeply(keys_in('above.keys'), $now, 'not asked for: not written');
$p->stop;

for (['server { ssl_key_log; }', qr/invalid number of arguments in "ssl_key_log" directive/],
    ['server { ssl_key_log a b; }', qr/invalid number of arguments in "ssl_key_log" directive/],
    ['server { ssl_key_log ""; }', qr/the path of "ssl_key_log" is empty/],
    ['ssl_key_log a; ssl_key_log b;', qr/"ssl_key_log" directive is duplicate/],
    ['server { location / { ssl_key_log a; } }', qr/"ssl_key_log" directive is not allowed here/],
    ['server { location / { proxy_ssl_key_log ""; } }', qr/the path of "proxy_ssl_key_log" is empty/],
    ['server { location / { if ($arg_a) { proxy_ssl_key_log a; } } }', qr/"proxy_ssl_key_log" directive is not allowed here/],
    ['server { location / { proxy_ssl_key_log a; proxy_ssl_key_log b; } }', qr/"proxy_ssl_key_log" directive is duplicate/]) {
    my ($text, $error) = @$_;
    my $q = Proxyd->new;
    $q->write_conf("http { $text }");
    my $run = $q->run(add => ['-t']);
    isnt($run->{status}, 0, $text);
    like($run->{err}, $error, 'and why');
}
done_testing();
