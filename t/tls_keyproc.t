# SPDX-License-Identifier: BSD-2-Clause
#
# ssl_key_process: handshakes of every kind with keys that only a process of another user has; its death, workers' deaths,
# reloads, upgrades; that no key is in any other process's memory; what is said of keys that are wrong.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/lib";
use File::Copy qw(copy);
use POSIX ();
use Test::More;
use Proxyd;
use Proxyd::Certs;
use Proxyd::KeyProcess qw(fds socket_of holds needles);

plan skip_all => 'needs the super-user' if $> != 0;

my $p     = Proxyd->new;
my $certs = Proxyd::Certs->new($p->dir . '/certs');
$certs->make('ec', names => ['a.test']);
$certs->make('rsa', names => ['a.test'], key => 'rsa');
$certs->make('locked', names => ['locked.test'], key => 'rsa', password => 'open sesame');
$certs->make('client', subject => '/CN=client', key => 'rsa');
for my $type (['ed25519', 'ED25519'], ['ed448', 'ED448'], ['pss', 'RSA-PSS', '-pkeyopt', 'rsa_keygen_bits:2048']) {
    my ($name, $algorithm, @opt) = @$type;
    my $base = $certs->path($name);
    Proxyd::Certs::run('openssl', 'genpkey', '-algorithm', $algorithm, @opt, '-out', "$base.key");
    Proxyd::Certs::run('openssl', 'req', '-new', '-x509', '-key', "$base.key", '-subj', "/CN=$name.test", '-days', 30, '-out', "$base.crt");
}
$p->write_file('passwords', "wrong\nopen sesame\n");
Proxyd::Certs::run('openssl', 'dhparam', '-dsaparam', '-out', $certs->path('dh.pem'), '2048');
chmod 0600, $certs->path("$_.key") for qw(ec rsa locked client ed25519 ed448 pss);

my $who = 'location / { return 200 "$ssl_server_name $ssl_protocol $ssl_cipher $ssl_session_reused"; }';
my $servers = join '', map { my ($name, @more) = @$_; <<"EOT" } (
    server {
        listen 127.0.0.1:{{port}} ssl;
        server_name $name;
        @more
        $who
    }
EOT
    ['a.test', 'ssl_dhparam certs/dh.pem; ssl_session_cache shared:s:1m;'], ['same.test'],
    ['locked.test', 'ssl_password_file passwords; ssl_certificate certs/locked.crt; ssl_certificate_key certs/locked.key;'],
    (map { ["$_.test", "ssl_certificate certs/$_.crt; ssl_certificate_key certs/$_.key;"] } qw(ed25519 ed448 pss)));

my $conf = <<"EOT";
user daemon;
worker_processes 2;
ssl_key_process on;
http {
    default_type text/plain;
    ssl_certificate certs/ec.crt;
    ssl_certificate_key certs/ec.key;
    ssl_certificate certs/rsa.crt;
    ssl_certificate_key certs/rsa.key;
    ssl_ciphers ALL:\@SECLEVEL=0;
    ssl_protocols TLSv1 TLSv1.1 TLSv1.2 TLSv1.3;
$servers
    server {
        listen 127.0.0.1:{{port:plain}};
        location / {
            proxy_pass https://127.0.0.1:{{port:peer}};
            proxy_ssl_certificate certs/client.crt;
            proxy_ssl_certificate_key certs/client.key;
            proxy_ssl_session_reuse off;
        }
        location /plain { return 200 "plain"; }
        location /old/ {
            proxy_pass https://127.0.0.1:{{port:peer}};
            proxy_ssl_protocols TLSv1.2;
            proxy_ssl_certificate certs/client.crt;
            proxy_ssl_certificate_key certs/client.key;
            proxy_ssl_session_reuse off;
        }
    }
    server {
        listen 127.0.0.1:{{port:peer}} ssl;
        ssl_verify_client on;
        ssl_client_certificate certs/ca.crt;
        location / { return 200 "\$ssl_client_verify \$ssl_client_s_dn \$ssl_protocol"; }
    }
}
EOT
$p->write_conf($conf);
$p->start;

sub key_processes { return Proxyd::KeyProcess::key_processes($p, @_) }

sub s_client {
    my ($name, @args) = @_;
    my $port = $p->port('main');
    my $out = `printf 'GET / HTTP/1.1\\r\\nHost: $name\\r\\nConnection: close\\r\\n\\r\\n' | timeout 20 openssl s_client -connect 127.0.0.1:$port -servername $name -ign_eof @args 2>&1`;
    my ($body) = $out =~ /\r\n\r\n(\S+ \S+ \S+ [.r])/;
    my ($type) = $out =~ /Peer signature type: (\S+)/;
    return !defined $body ? 'none' : defined $type ? "$body $type" : $body;
}

# --- handshakes ------------------------------------------------------------------------------------

for (
    ['a.test', '-tls1_3', 'TLSv1.3 TLS_AES_256_GCM_SHA384', 'ECDSA'],
    ['same.test', '-tls1_3', 'TLSv1.3 TLS_AES_256_GCM_SHA384', 'ECDSA'],
    ['a.test', '-tls1_3 -sigalgs rsa_pss_rsae_sha256', 'TLSv1.3 TLS_AES_256_GCM_SHA384', 'RSA-PSS'],
    ['a.test', '-tls1_3 -sigalgs rsa_pss_rsae_sha512', 'TLSv1.3 TLS_AES_256_GCM_SHA384', 'RSA-PSS'],
    ['a.test', '-tls1_2', 'TLSv1.2 ECDHE-ECDSA-AES256-GCM-SHA384', 'ECDSA'],
    ['a.test', '-tls1_2 -cipher ECDHE-RSA-AES128-GCM-SHA256 -sigalgs RSA+SHA256', 'TLSv1.2 ECDHE-RSA-AES128-GCM-SHA256', 'RSA'],
    ['a.test', '-tls1_2 -cipher ECDHE-RSA-AES128-GCM-SHA256 -sigalgs RSA+SHA1:RSA+SHA512', 'TLSv1.2 ECDHE-RSA-AES128-GCM-SHA256', 'RSA'],
    ['a.test', '-tls1_2 -cipher ECDHE-RSA-AES128-GCM-SHA256 -groups P-521', 'TLSv1.2 ECDHE-RSA-AES128-GCM-SHA256', 'RSA-PSS'],
    ['a.test', '-tls1_2 -cipher DHE-RSA-AES128-GCM-SHA256', 'TLSv1.2 DHE-RSA-AES128-GCM-SHA256', 'RSA-PSS'],
    ['a.test', '-tls1_2 -cipher AES128-SHA', 'TLSv1.2 AES128-SHA'],
    ['a.test', '-tls1_1 -cipher AES128-SHA:@SECLEVEL=0', 'TLSv1.1 AES128-SHA'],
    ['a.test', '-tls1_1 -cipher ECDHE-RSA-AES128-SHA:@SECLEVEL=0', 'TLSv1.1 ECDHE-RSA-AES128-SHA', 'RSA'],
    ['locked.test', '-tls1_3', 'TLSv1.3 TLS_AES_256_GCM_SHA384', 'RSA-PSS'],
    ['ed25519.test', '-tls1_3', 'TLSv1.3 TLS_AES_256_GCM_SHA384', 'ed25519'],
    ['ed25519.test', '-tls1_2', 'TLSv1.2 ECDHE-ECDSA-AES256-GCM-SHA384', 'ed25519'],
    ['ed448.test', '-tls1_3', 'TLSv1.3 TLS_AES_256_GCM_SHA384', 'ed448'],
    ['pss.test', '-tls1_3', 'TLSv1.3 TLS_AES_256_GCM_SHA384', 'RSA-PSS'],
) {
    my ($name, $args, $want, $type) = @$_;
    is s_client($name, $args), "$name $want ." . (defined $type ? " $type" : ''), "$name $args";
}
{
    my @args = ($p->port('main'), '/', name => 'a.test', session => 'tickets', version => '-tls1_3');
    $certs->s_client(@args);
    is_deeply [$certs->s_client(@args)], ['Reused', 'a.test TLSv1.3 TLS_AES_256_GCM_SHA384 r'], 'a session is resumed';
}
is $p->get('/', port => 'plain')->body, 'SUCCESS CN=client TLSv1.3', 'a client\'s certificate shown to an upstream';
is $p->get('/old/', port => 'plain')->body, 'SUCCESS CN=client TLSv1.2', 'the same with TLS 1.2';
{
    # A handshake that goes away while it waits, or says nothing sensible.
    for my $n (1 .. 20) {
        my $c = $p->connect;
        my $hello = pack 'C n n', 22, 0x0301, 40;
        $c->send($hello . ("\1" x ($n * 2)));
        $n % 2 ? $c->close : $c->abort;
    }
    is s_client('a.test', '-tls1_3'), 'a.test TLSv1.3 TLS_AES_256_GCM_SHA384 . ECDSA', 'after bad clients';
}

# --- the process -----------------------------------------------------------------------------------

sub status_of {
    my ($pid, $field) = @_;
    open my $fh, '<', "/proc/$pid/status" or return '';
    my ($line) = grep { /^$field:/ } <$fh>;
    return $line =~ /^\w+:\s*(.*)/ ? $1 =~ s/\s+/ /gr : '';
}

my ($key_process) = key_processes();
my $nobody = getpwnam 'nobody';
is status_of($key_process, 'Uid'), join(' ', ($nobody) x 4), 'the process is nobody\'s';
is status_of($key_process, 'NoNewPrivs'), 1, 'it gains nothing by another program';
is status_of($key_process, 'CapPrm'), '0' x 16, 'it has no capability';
is +(stat "/proc/$key_process/environ")[4], 0, 'its memory is not its user\'s to read';
{
    open my $fh, '<', "/proc/$key_process/limits" or die $!;
    like join('', <$fh>), qr/^Max core file size\s+0\s+0/m, 'it leaves no core file';
}
is fds($key_process), 3 + 1 + 1 + 2, 'it has the standard descriptors, the log, the master\'s socket and one for each worker';

my @secrets = ((map { needles($certs->path("$_.key")) } qw(rsa ec client ed25519)), needles($certs->path('locked.key'), '-passin', 'pass:"open sesame"'));
SKIP: {
    skip 'a sanitizer\'s memory is too large to be searched', 6 if $ENV{TEST_PROXYD_SANITIZED};
    ok scalar(@secrets) > 15, 'parts of the keys are known';
    ok holds($key_process, @secrets), 'they are in the key process\'s memory';
    ok !holds($_, @secrets), 'but in no worker\'s' for $p->workers;
    ok !holds($p->master, @secrets), 'nor in the master\'s';
    ok !(grep { holds($_, 'open sesame') } $p->workers), 'and no worker knows a password';
}

# --- logs -------------------------------------------------------------------------------------------

{
    rename $p->dir . '/error.log', $p->dir . '/error.log.1';
    $p->signal('USR1');
    my $log = sub { return join ' ', sort grep { /error\.log/ } map { readlink $_ // () } glob "/proc/$key_process/fd/*" };
    ok Proxyd::wait_for(sub { $log->() eq $p->dir . '/error.log' }, 5), 'after USR1 it writes to the new log' or diag $log->();
    unlike $p->error_log('error.log.1'), qr/\[alert\]/, 'nothing bad in the first log';
}

# --- a worker that is somebody else's --------------------------------------------------------------

SKIP: {
    my ($worker) = $p->workers;
    my $socket = socket_of($worker) or skip 'its socket cannot be had', 4;
    $p->expect_log(qr/the key process refused a worker's request/);
    srand 17;
    my $random = sub { join '', map { chr int rand 256 } 1 .. $_[0] };
    for my $n (1 .. 1500) {
        my $payload = $n % 3 == 0 ? $random->(int rand 300) : $n % 3 == 1 ? ' ' x 64 . "TLS 1.3, server CertificateVerify\0" . $random->(int rand 60)
            : $random->(64) . pack 'C n C/a', 3, 29, $random->(int rand 140);
        my $message = pack('Q L2 C4 S2 L2', 1 << 63 | $n, $n % 5 ? int rand 12 : int rand 1 << 32, $n % 19 ? 0 : int rand 1 << 32, $n % 7 ? 1 + int rand 2 : int rand 256,
            int rand 4, int rand 8, $n % 11 ? 0 : 1, $n % 2 ? 0 : 0x303, 0, $n % 13 ? length $payload : int rand 1 << 32, $n % 23 ? 0 : 1) . $payload;
        $message = $random->(1 + int rand 40) if $n % 17 == 0;
        syswrite $socket, $message;
    }
    syswrite $socket, 'x' x 100_000;
    ok kill(0, $key_process), 'the key process survives bytes of any kind';
    like s_client('a.test', '-tls1_3'), qr/^a\.test /, "and signs ($_)" for 1 .. 2;
    $p->wait_log(qr/\[alert\].*the key process refused a worker's request: /);
    cmp_ok scalar(() = $p->error_log =~ /refused a worker's request/g), '<', 20, 'it does not fill the log';
}

# --- a process that takes its time ------------------------------------------------------------------

{
    my $port = $p->port('main');
    kill 'STOP', $key_process;
    my @waits = map {
        my $limit = $_ < 8 ? 1 : 20; # most give up
        my $pid = fork // die $!;
        if ($pid == 0) {
            open STDOUT, '>', '/dev/null';
            open STDERR, '>', '/dev/null';
            open STDIN, '-|', 'printf "GET / HTTP/1.0\r\nHost: a.test\r\n\r\n"';
            exec 'timeout', $limit, 'openssl', 's_client', '-connect', "127.0.0.1:$port", '-servername', 'a.test', '-ign_eof';
        }
        $pid;
    } 1 .. 10;
    is $p->get('/plain', port => 'plain')->body, 'plain', "the loop turns while handshakes wait ($_)" for 1 .. 6;
    my @codes = map { waitpid $waits[$_], 0; $? >> 8 } 0 .. 6;
    is_deeply \@codes, [(124) x 7], 'these have gone before they were answered';
    kill 'CONT', $key_process;
    @codes = map { waitpid $waits[$_], 0; $? >> 8 } 7 .. 9;
    is_deeply \@codes, [(0) x 3], 'the others are answered';
}

# --- deaths ----------------------------------------------------------------------------------------

$p->expect_log(qr/key process \d+ exited on signal 9/, qr/worker process \d+ exited on signal 9/);

# Clients that make new connections until told to end: how many handshakes, and how many of them failed.
my $stop = $p->dir . '/stop';
sub clients {
    my ($n) = @_;
    my @clients;
    unlink $stop;
    for (1 .. $n) {
        pipe my $report_in, my $report;
        my $pid = fork // die $!;
        if ($pid == 0) {
            my ($good, $bad) = (0, 0);
            until (-e $stop) {
                my $r = $certs->get($p->port('main'), '/', name => 'a.test');
                $r->status == 200 ? $good++ : $bad++;
            }
            syswrite $report, "$good $bad";
            POSIX::_exit(0);
        }
        push @clients, [$pid, $report_in];
    }
    return \@clients;
}

sub ended {
    my ($clients) = @_;
    my ($good, $bad) = (0, 0);
    $p->write_file('stop', '');
    for (@$clients) {
        my ($pid, $report) = @$_;
        sysread $report, my ($text), 100;
        waitpid $pid, 0;
        my ($g, $b) = split ' ', $text // '0 1';
        $good += $g;
        $bad += $b;
    }
    return ($good, $bad);
}

sub lines_of_log { return ($p->access_log // '') =~ tr/\n// }
sub successor { return Proxyd::KeyProcess::successor($p, @_) }

{
    my $clients = clients(4);
    my $killed = 0;
    # Who dies young is succeeded after a pause.
    for (1 .. 3) {
        my ($old) = key_processes();
        my $want = lines_of_log() + 30;
        Proxyd::wait_for(sub { lines_of_log() >= $want }, 20);
        kill 'KILL', $old and $killed++;
        ok successor($old), "killed, it is started again ($_)";
    }
    my $want = lines_of_log() + 30;
    Proxyd::wait_for(sub { lines_of_log() >= $want }, 20);
    my ($good, $bad) = ended($clients);
    is $killed, 3, 'three were killed';
    cmp_ok $good, '>=', 100, "handshakes under load ($good)";
    is $bad, 0, 'none is lost by it';
    ($key_process) = key_processes();
    is status_of($key_process, 'Uid'), join(' ', ($nobody) x 4), 'the successor is nobody\'s, too';
    is s_client('locked.test', '-tls1_3'), 'locked.test TLSv1.3 TLS_AES_256_GCM_SHA384 . RSA-PSS', 'it has opened the protected key again';
}
{
    my @workers = $p->workers;
    kill 'KILL', $workers[0];
    Proxyd::wait_for(sub { my @now = $p->workers; @now == 2 && !grep { $_ == $workers[0] } @now }, 10);
    is s_client('a.test', '-tls1_3'), 'a.test TLSv1.3 TLS_AES_256_GCM_SHA384 . ECDSA', "after a worker's death ($_)" for 1 .. 4;
    is fds($key_process), 3 + 1 + 1 + 2, 'the dead worker\'s socket is closed';
}

# --- reloads ---------------------------------------------------------------------------------------

{
    my $master_fds;
    my $clients = clients(2);
    for my $n (1 .. 20) {
        my ($old) = key_processes();
        $p->reload;
        Proxyd::wait_for(sub { my @now = key_processes(); @now == 1 && $now[0] != $old && $p->workers == 2 }, 20);
        $master_fds = fds($p->master) if $n == 2;
    }
    my ($good, $bad) = ended($clients);
    is $bad, 0, "no handshake is lost by reloads ($good were made)";
    is scalar(key_processes()), 1, 'one key process is left after many reloads';
    is fds($p->master), $master_fds, 'and no descriptor more in the master';
    is fds((key_processes())[0]), 3 + 1 + 1 + 2, 'or in it';
    unlike $p->error_log, qr/key process \d+ exited with code [1-9]/, 'all ended well';
}
{
    # A connection of the old configuration keeps its worker, and that one its key process.
    my $c = $certs->connect($p->port('main'), name => 'a.test') or die $@;
    my ($old) = key_processes();
    $p->signal('HUP');
    Proxyd::wait_for(sub { key_processes() == 2 && $p->workers == 3 }, 10);
    is scalar(key_processes()), 2, 'a connection of the old configuration keeps the old key process';
    $c->close;
    ok Proxyd::wait_for(sub { key_processes() == 1 && !kill 0, $old }, 10), 'the old key process ends with the last of its workers';
}

# --- keys that are wrong -----------------------------------------------------------------------------

my $dir = $p->dir;
sub errors_of {
    my ($main, $pair, $http) = @_;
    my $port = $p->port('wrong');
    my $text = join "\n", 'user daemon;', 'daemon off;', "pid $dir/wrong.pid;", "error_log $dir/wrong.log;", 'events {}', $main,
        'http {', $http // '', "server { listen 127.0.0.1:$port ssl;", "ssl_certificate certs/$pair->[0];", "ssl_certificate_key $pair->[1];", '}', '}', '';
    $p->write_file('wrong.conf', $text);
    my $r = $p->run(args => ['-p', "$dir/", '-c', 'wrong.conf', '-e', 'wrong.log']);
    my ($said) = map { s/^proxyd: //mr } join "\n", grep { /^proxyd: \[emerg\]/ } split /\n/, $r->{err};
    return ($r->{status}, $said);
}
copy($certs->path('ec.key'), $certs->path('broken.key'));
$p->write_file('certs/broken.key', "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n");
mkdir "$dir/certs/folder.key";
for (
    ['another certificate\'s key', ['ec.crt', 'certs/rsa.key'], qr/^\[emerg\] SSL_CTX_use_PrivateKey\("\S+rsa\.key"\) failed \(SSL: error:.*key type mismatch\) in \S+wrong\.conf:11$/],
    ['another key of that type', ['rsa.crt', 'certs/client.key'], qr/^\[emerg\] SSL_CTX_use_PrivateKey\("\S+client\.key"\) failed \(SSL: error:.*key values mismatch\) in \S+wrong\.conf:11$/],
    ['no such file', ['ec.crt', 'certs/none.key'], qr/^\[emerg\] cannot load certificate key "\S+none\.key": BIO_new_file\(\) failed \(SSL: .*No such file.*\) in \S+wrong\.conf:11$/],
    ['no key in it', ['ec.crt', 'certs/broken.key'], qr/^\[emerg\] cannot load certificate key "\S+broken\.key": PEM_read_bio_PrivateKey\(\) failed \(SSL: .*\) in \S+wrong\.conf:11$/],
    ['a folder', ['ec.crt', 'certs/folder.key'], qr/^\[emerg\] cannot load certificate key "\S+folder\.key": .* in \S+wrong\.conf:11$/],
    ['none of the passwords', ['locked.crt', 'certs/locked.key'], qr/^\[emerg\] cannot load certificate key "\S+locked\.key": PEM_read_bio_PrivateKey\(\) failed/, 'ssl_password_file wrongs;'],
) {
    my ($what, $pair, $want, $http) = @$_;
    $p->write_file('wrongs', "no\nneither\n");
    my ($status, $said) = errors_of('ssl_key_process on;', $pair, $http);
    is $status, 1, "$what: does not start";
    like $said, $want, "$what: the reason";
    next if $what =~ /certificate's/; # which the library takes for a key without a certificate
    my ($status_without, $without) = errors_of('', $pair, $http);
    is $said, $without, "$what: as without the process";
}
{
    my $key = Proxyd::Certs::slurp($certs->path('ec.key'));
    for (
        ['a literal key', 'ssl_key_process on;', ['ec.crt', "\"data:$key\""], qr/^\[emerg\] "ssl_key_process" cannot keep a key that is written in the configuration: it has to be in a file in/],
        ['the workers\' user', 'ssl_key_process on; ssl_key_process_user daemon;', ['ec.crt', 'certs/ec.key'], qr/^\[emerg\] the key process has the workers' user "daemon", name another one by "ssl_key_process_user" in \S+:6$/],
        ['the super-user', 'ssl_key_process on; ssl_key_process_user root;', ['ec.crt', 'certs/ec.key'], qr/^\[emerg\] the key process cannot be the super-user's in \S+:6$/],
        ['no such user', 'ssl_key_process_user nosuchuser;', ['ec.crt', 'certs/ec.key'], qr/^\[emerg\] getpwnam\("nosuchuser"\) failed in \S+:6$/],
        ['no such group', 'ssl_key_process_user nobody nosuchgroup;', ['ec.crt', 'certs/ec.key'], qr/^\[emerg\] getgrnam\("nosuchgroup"\) failed in \S+:6$/],
        ['no master', 'ssl_key_process on; master_process off;', ['ec.crt', 'certs/ec.key'], qr/^\[emerg\] "ssl_key_process" needs "master_process on" in \S+:6$/],
        ['a key by ssl_conf_command', 'ssl_key_process on;', ['ec.crt', 'certs/ec.key; ssl_conf_command PrivateKey certs/ec.key'], qr/^\[emerg\] "ssl_key_process" cannot keep the key of "ssl_conf_command PrivateKey"/],
    ) {
        my ($what, $main, $pair, $want) = @$_;
        my ($status, $said) = errors_of($main, $pair);
        is $status, 1, "$what: refused";
        like $said, $want, "$what: why";
    }
}
{
    # A reload with a wrong key changes nothing.
    my @before = (sort { $a <=> $b } $p->workers, key_processes());
    $p->expect_log(qr/\[emerg\] .*key values mismatch/, qr/the configuration was not changed/);
    copy($certs->path('rsa.key'), $certs->path('saved'));
    copy($certs->path('client.key'), $certs->path('rsa.key'));
    $p->signal('HUP');
    $p->wait_log(qr/the configuration was not changed/);
    is_deeply [sort { $a <=> $b } $p->workers, key_processes()], \@before, 'a reload with a wrong key changes nothing';
    # Nor does the death of the process now: it goes on without that key, and the others serve.
    $p->expect_log(qr/the key process goes on without this key/, qr/the key process does not have the key/, qr/\[crit\].*SSL_do_handshake\(\) failed/);
    my ($old) = key_processes();
    kill 'KILL', $old;
    $key_process = successor($old);
    is s_client('ed25519.test', '-tls1_3'), 'ed25519.test TLSv1.3 TLS_AES_256_GCM_SHA384 . ed25519', 'the others go on';
    is s_client('a.test', '-tls1_3 -sigalgs rsa_pss_rsae_sha256'), 'none', 'that one fails';
    $p->wait_log(qr/the key process does not have the key, while it was to sign with key \d+ while SSL handshaking, client: 127/);
    copy($certs->path('saved'), $certs->path('rsa.key'));
    $p->reload;
    Proxyd::wait_for(sub { key_processes() == 1 }, 10);
    is s_client('a.test', '-tls1_3 -sigalgs rsa_pss_rsae_sha256'), 'a.test TLSv1.3 TLS_AES_256_GCM_SHA384 . RSA-PSS', 'until the next reload';
}

# --- the end -----------------------------------------------------------------------------------------

for my $signal (qw(TERM QUIT KILL)) {
    my ($one) = key_processes();
    my @workers = $p->workers;
    if ($signal eq 'KILL') {
        kill 'KILL', $p->master;
        $p->expect_log(qr/the master process has gone/);
    } else {
        $p->signal($signal);
    }
    ok Proxyd::wait_for(sub { !kill 0, $one }, 20), "$signal: the process ends with the master";
    waitpid $p->master, 0;
    Proxyd::wait_for(sub { !grep { kill 0, $_ } @workers }, 20);
    unlink "$dir/proxyd.pid";
    $p->start if $signal ne 'KILL';
}
delete $p->{pid};

# --- in the background, and a new binary ---------------------------------------------------------------

{
    my $d = Proxyd->new;
    my $other = Proxyd::Certs->new($d->dir . '/certs');
    $other->make('ec', names => ['a.test']);
    $d->write_conf(<<"EOT");
daemon on;
user daemon;
worker_processes 1;
ssl_key_process on;
http {
    ssl_certificate certs/ec.crt;
    ssl_certificate_key certs/ec.key;
    server { listen 127.0.0.1:{{port}} ssl; location / { return 200 "here"; } }
}
EOT
    $d->start(daemon => 1);
    my $keys_of = sub { my ($master) = @_; return grep { $d->title($_) =~ /key process/ } $d->children($master) };
    Proxyd::wait_for(sub { $d->workers });
    is scalar($keys_of->($d->master)), 1, 'in the background: the process is the master\'s child';
    is $other->get($d->port('main'), '/', name => 'a.test')->body, 'here', 'and signs';
    my $old = $d->master;
    my ($old_key) = $keys_of->($old);
    my $new = $d->upgrade_begin(1);
    is scalar($keys_of->($new)), 1, 'a new binary has a process of its own';
    ok kill(0, $old_key), 'the old one\'s is still there';
    is $other->get($d->port('main'), '/', name => 'a.test')->body, 'here', 'the new one serves';
    kill 'QUIT', $old;
    ok Proxyd::wait_for(sub { !kill(0, $old) && !kill(0, $old_key) }, 10), 'and ends with the old master';
    $d->adopt($new);
    is $other->get($d->port('main'), '/', name => 'a.test')->body, 'here', 'the new one serves on';
    $d->stop;
}

done_testing;
