# SPDX-License-Identifier: BSD-2-Clause
#
# TLS sessions: kept in a cache or carried in tickets, resumed at every worker, after a reload and by a new binary, expired, and
# refused where they do not belong; keys of tickets from files and their rotation.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/lib";
use Test::More;
use Proxyd;
use Proxyd::Certs;

my $p     = Proxyd->new;
my $certs = Proxyd::Certs->new($p->dir . '/certs');
$certs->make('a', names => ['a.test']);
$certs->make($_) for qw(client other);
$certs->revoke('ca', 'other');
$p->write_file('one.key', join '', map { chr } 1 .. 80);
$p->write_file('two.key', join '', map { chr } 101 .. 148);

my %sections = (
    cache   => 'ssl_session_cache shared:one:1m; ssl_session_tickets off;',
    both    => 'ssl_session_cache builtin:100 shared:one:1m; ssl_session_tickets off;',
    ticket  => '',
    other   => 'ssl_session_cache shared:two:32k; ssl_session_tickets off; ssl_verify_client optional_no_ca;',
    none    => 'ssl_session_cache none; ssl_session_tickets off;',
    off     => 'ssl_session_cache off; ssl_session_tickets off;',
    refused => 'ssl_session_cache shared:one:1m none; ssl_session_tickets off;',
    twice   => 'ssl_session_cache off; ssl_session_cache builtin:10; ssl_session_cache shared:one:1m; ssl_session_tickets off;',
    short   => 'ssl_session_timeout 1s;',
    brief   => 'ssl_session_timeout 1s; ssl_session_cache shared:one:1m; ssl_session_tickets off;',
    key1    => 'ssl_session_ticket_key one.key;',
    key2    => 'ssl_session_ticket_key two.key;',
    key21   => 'ssl_session_ticket_key two.key; ssl_session_ticket_key one.key;',
    inherit => '',
    crl     => 'ssl_verify_client on; ssl_client_certificate certs/ca.crt; ssl_crl certs/ca.crl; ssl_session_cache shared:one:1m; ssl_session_tickets off;',
);

sub conf {
    my (%o) = @_;
    my $servers = '';
    for (sort keys %sections) {
        $servers .= <<"EOT";
    server {
        listen 127.0.0.1:{{port:$_}} ssl;
        server_name $_.test;
        $sections{$_}
        location / { return 200 "\$ssl_session_reused \$pid \$ssl_session_id"; }
    }
EOT
    }
    # One address: the first server has no tickets, the second has one of the keys.
    for (['default', 'ssl_session_tickets off;'], ['named', $sections{key1}]) {
        $servers .= "    server { listen 127.0.0.1:{{port:names}} ssl; server_name $_->[0].test; $_->[1]\n"
            . "        location / { return 200 \"\$ssl_session_reused \$pid \$ssl_session_id\"; } }\n";
    }
    return ($o{daemon} ? "daemon on;\n" : '') . "worker_processes 4;\nhttp {\n"
        . "    ssl_certificate certs/a.crt;\n    ssl_certificate_key certs/a.key;\n$servers}\n";
}

# Whether a second connection resumes what the first got; many: of how many that do.
sub resumed {
    my ($from, $to, $version, %o) = @_;
    my $session = "$from.$to.$version.session";
    unlink $certs->path($session) unless $o{again};
    my ($how) = $o{again} ? 'New' : $certs->s_client($p->port($from), '/', name => 'a.test', version => "-$version", session => $session);
    return "first: $how" if $how ne 'New';
    my ($count, %pids) = (0);
    for (1 .. $o{many} || 1) {
        my ($second, $body) = $certs->s_client($p->port($to), '/', name => 'a.test', version => "-$version", session => $session, keep => $o{again});
        my ($said, $pid, $id) = split / /, $body;
        $count++ if $second eq 'Reused' && $said eq 'r' && ($id // '') =~ /^[0-9a-f]{64}$/;
        $pids{ $pid // '' } = 1;
    }
    ${ $o{pids} } = keys %pids if $o{pids};
    return $count;
}

$p->write_conf(conf(daemon => 1));
$p->start(daemon => 1);

for my $version ('tls1_2', 'tls1_3') {
    for my $kind (qw(cache both twice ticket key1 key2)) {
        my $pids;
        is(resumed($kind, $kind, $version, many => 24, pids => \$pids), 24, "$version $kind: always resumed");
        cmp_ok($pids, '>', 1, 'by several workers');
    }
    is(resumed($_, $_, $version), 0, "$version: never with $_ and no tickets") for qw(none off refused);
    is(resumed('cache', 'both', $version), 1, "$version: servers share a zone");
    is(resumed('ticket', 'inherit', $version), 1, "$version: and the keys of tickets");
    is(resumed('cache', 'other', $version), 0, "$version: not with another zone");
    is(resumed('key1', 'key21', $version), 1, "$version: a second key decrypts");
    is(resumed('key21', 'key1', $version), 0, "$version: the first one encrypts");
    is(resumed('key1', 'key2', $version), 0, "$version: another key does not fit");
    is(resumed('key1', 'ticket', $version), 0, "$version: nor do shared ones");
    for my $kind (qw(short brief)) {
        resumed($kind, $kind, $version);
        ok($p->wait_for(sub { resumed($kind, $kind, $version, again => 1) eq '0' }, 10), "$version $kind: expires");
    }
}

for my $version ('-tls1_2', '-tls1_3') {
    my %o = (version => $version, session => "named$version");
    is(($certs->s_client($p->port('names'), '/', name => 'named.test', %o))[0], 'New', "$version: a server by name");
    is(($certs->s_client($p->port('names'), '/', name => 'named.test', %o, keep => 1))[0], 'Reused', 'has tickets');
    is(($certs->s_client($p->port('key1'), '/', name => 'named.test', %o, keep => 1))[0], 'Reused', 'of its own key');
    is(($certs->s_client($p->port('names'), '/', name => 'default.test', %o, keep => 1))[0], 'New', 'and the first has none');
}

# A zone that is full: old sessions go for new ones.
for (1 .. 150) { $certs->get('127.0.0.1:' . $p->port('other'), '/', version => 'TLSv12') }
is(resumed('other', 'other', 'tls1_2'), 1, 'a full zone takes new sessions');

# A client that has been let in, and is revoked then.
{
    my @ask = ($p->port('crl'), '/', name => 'a.test', version => '-tls1_2', session => 'crl', cert => 'client');
    is(($certs->s_client(@ask))[0], 'New', 'a client with a certificate');
    is(($certs->s_client(@ask, keep => 1))[0], 'Reused', 'is known again');
    $p->reload;
    is(($certs->s_client(@ask, keep => 1))[0], 'Reused', 'after a reload');
    $certs->revoke('ca', qw(other client));
    $p->reload;
    my ($how, $body) = $certs->s_client(@ask, keep => 1);
    is($how, 'New', 'but not by those who have another list');
    like($body, qr/The SSL certificate error/, 'which names it');
}

# A reload, then a new binary: resumed by both.
my @kinds = map { my $k = $_; map { [$k, $_] } 'tls1_2', 'tls1_3' } qw(cache ticket);
is(resumed(@$_[0, 0, 1]), 1, "@$_ before") for @kinds;
ok($p->reload, 'reloaded');
is(resumed(@$_[0, 0, 1], again => 1), 1, "@$_ after a reload") for @kinds;
$p->signal('USR2');
my $new;
ok($p->wait_for(sub {
    my $id = $p->pid_file;
    return defined $p->pid_file('proxyd.pid.oldbin') && defined $id && $id != $p->master && ($new = $id);
}, 10), 'a new binary');
$p->signal('QUIT');
ok($p->adopt($new), 'the old one ends');
is(resumed(@$_[0, 0, 1], again => 1), 1, "@$_ by the new binary") for @kinds;
$p->stop;

done_testing();
