# SPDX-License-Identifier: BSD-2-Clause
#
# Keys that providers of OpenSSL keep to themselves ("store:"): a token as PKCS #11 has it (t/peers/token.c stands for it), whose keys are
# good for one process and no fork of it, and a TPM. Workers and the key process, many handshakes at once, reloads, servers
# and clients; PINs; what is said of what is not there.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/lib";
use POSIX ();
use Test::More;
use Proxyd;
use Proxyd::Certs;
use Proxyd::KeyProcess qw(key_processes);
use Proxyd::Tpm;

my $p     = Proxyd->new;
my $certs = Proxyd::Certs->new($p->dir . '/certs');
my $dir   = $p->dir;
my $root  = $> == 0;
my ($cc)  = grep { system("command -v $_ >/dev/null 2>&1") == 0 } $ENV{CC} // (), qw(cc gcc clang);
plan skip_all => 'needs a compiler for the provider' unless $cc;
Proxyd::Certs::run(split(' ', $cc), '-shared', '-fPIC', '-O1', '-o', "$dir/token.so", "$FindBin::Bin/peers/token.c", '-lcrypto');

# A token with three keys, and certificates of theirs.
$certs->make('ec', names => ['a.test']);
$certs->make('rsa', names => ['a.test'], key => 'rsa');
$certs->make('client', subject => '/CN=client');
mkdir "$dir/tokens";
mkdir "$dir/tokens/web";
rename $certs->path("$_.key"), "$dir/tokens/web/$_.pem" for qw(ec rsa client);
$certs->make('plain', names => ['plain.test']);
$p->write_file($_->[0], $_->[1]) for ['pin', "2468\n"], ['pins', "wrong\n2468\n"], ['wrong', "1\n2\n3\n4\n5\n"];

sub clear_log { $p->write_file('tokens/log', ''); chmod 0666, "$dir/tokens/log" }
sub token_log { return split /\n/, $p->read_file('tokens/log') }

sub openssl_conf {
    my ($file, $name, $section) = @_;
    return $p->write_file($file, "openssl_conf = init\n[init]\nproviders = providers\n[providers]\ndefault = own\n$name = other\n"
            . "[own]\nactivate = 1\n[other]\nactivate = 1\n$section");
}
clear_log();
my $conf    = openssl_conf('openssl.cnf', 'token', "module = $dir/token.so\nfolder = $dir/tokens\npin = 2468\n");
my $lone    = $p->write_file('lone.cnf', "openssl_conf = init\n[init]\nproviders = providers\n[providers]\nlegacy = other\n[other]\nactivate = 1\n");
my $broken  = openssl_conf('broken.cnf', 'pkcs11', "module = $dir/none.so\n");
my $key     = sub { my ($object, $how) = @_; '"store:pkcs11:token=web;object=' . $object . (defined $how ? "?$how" : '') . '"' };
my $by_file = "pin-source=$dir/pin";

# What -t says --------------------------------------------------------------------------------------

sub verdict {
    my ($text, $with, @add) = @_;
    local $ENV{OPENSSL_CONF} = $with // $conf;
    $p->write_file('proxyd.conf', $p->expand("pid {{dir}}/pid; error_log stderr; events {}\n"
            . "http { access_log off;\nserver { listen 127.0.0.1:{{port}} ssl; ssl_certificate certs/ec.crt;\n$text\n} }\n"));
    my $r = $p->run(add => ['-t', @add]);
    my ($line) = $r->{err} =~ /\[emerg\] (.*)/;
    $line //= $r->{err} =~ /test is successful/ ? 'good' : $r->{err};
    $line =~ s/\Q$dir\E/DIR/g;
    return $line;
}

my $cannot = 'cannot load certificate key "store:pkcs11:token=web;object=';
for (
    ['a PIN in a file', 'ssl_certificate_key ' . $key->('ec', $by_file) . ';', 'good'],
    ['a PIN in the URI', 'ssl_certificate_key ' . $key->('ec', 'pin-value=2468') . ';', 'good'],
    ['the second of the passwords', 'ssl_password_file pins; ssl_certificate_key ' . $key->('ec') . ';', 'good'],
    ['no PIN', 'ssl_certificate_key ' . $key->('ec') . ';', qr{^\Q${cannot}ec": it asks for a PIN, name a file that holds it by "ssl_password_file" or in the URI by "pin-source" (SSL: error:\E.*no PIN.*\) in DIR/proxyd.conf:4$}],
    ['a wrong PIN is not shown', 'ssl_certificate_key ' . $key->('ec', 'pin-value=1357&x=y') . ';', qr{^\Q${cannot}ec?pin-value=***&x=y": OSSL_STORE_load() failed (SSL: error:\E.*the PIN is wrong.*\) in DIR/proxyd.conf:4$}],
    ['a token that locks itself', 'ssl_password_file wrong; ssl_certificate_key ' . $key->('ec') . ';', qr{^\Q${cannot}ec": OSSL_STORE_load() failed (SSL: error:\E.*the token is locked}],
    ['no such object', 'ssl_certificate_key ' . $key->('none', $by_file) . ';', qr{^\Q${cannot}none?pin-source=DIR/pin": no private key is found there in DIR/proxyd.conf:4\E$}],
    ['the key of another certificate', 'ssl_certificate_key ' . $key->('client', $by_file) . ';', qr{^SSL_CTX_use_PrivateKey\("store:pkcs11:token=web;object=client\?pin-source=DIR/pin"\) failed \(SSL: error:05800074:x509 certificate routines::key values mismatch\) in DIR/proxyd.conf:4$}],
    ['without a provider', 'ssl_certificate_key ' . $key->('ec', $by_file) . ';', qr{^\Q${cannot}ec?pin-source=DIR/pin": no provider for "pkcs11:" is loaded, activate one in "/dev/null" (or name another file by the environment's OPENSSL_CONF) in DIR/proxyd.conf:4\E$}, '/dev/null'],
    ['a provider that cannot be loaded', 'ssl_certificate_key ' . $key->('ec', $by_file) . ';', qr{^\Q${cannot}ec?pin-source=DIR/pin": no provider for "pkcs11:" is loaded, activate one in "DIR/broken.cnf"\E.*\(SSL: error:.*could not load the shared library.*DIR/none\.so}, $broken],
    ['without the library\'s own', 'ssl_certificate_key ' . $key->('ec', $by_file) . ';', qr{^\QSSL_CTX_new() failed: the library's configuration (OPENSSL_CONF) activates providers, and "default" is none of them (SSL: error:\E.*\) in DIR/proxyd.conf:3$}, $lone],
    ['a file that stands for a key', 'ssl_certificate_key reference;', qr{^cannot load certificate key "DIR/reference": .*\(SSL: error:.*\) in DIR/proxyd.conf:4$}],
    ['a certificate beside', 'ssl_certificate_key ' . $key->('ec', $by_file) . "; ssl_certificate certs/rsa.crt; ssl_certificate_key " . $key->('rsa', $by_file) . ';', 'good'],
    ['late', 'ssl_certificate_load lazy; ssl_certificate_key ' . $key->('ec', $by_file) . ';', 'good'],
    ['watched', 'ssl_certificate_watch on; ssl_certificate_key ' . $key->('ec', $by_file) . ';', 'good'],
    ['no variables', 'ssl_certificate_key "store:pkcs11:object=$host";', 'variables in "store:" are not supported in DIR/proxyd.conf:4'],
) {
    my ($name, $text, $want, $with) = @$_;
    $p->write_file('reference', "-----BEGIN TSS2 PRIVATE KEY-----\nMAA=\n-----END TSS2 PRIVATE KEY-----\n");
    my $got = verdict($text, $with);
    ref $want ? like($got, $want, $name) : is($got, $want, $name);
}
like(verdict('ssl_certificate_key ' . $key->('none', $by_file) . ';', $conf, '-g', 'ssl_key_process on;'), qr{^\Q${cannot}none?pin-source=DIR/pin": no private key is found there in DIR/proxyd.conf:4\E$}, 'the key process\'s keys are looked for as well') if $root;
clear_log();
is(verdict('ssl_certificate_key ' . $key->('none') . ';', $conf, '--offline'), 'good', '--offline asks no token');
is(scalar(token_log()), 0, 'it has not been spoken to');
like(verdict('location / { proxy_pass https://127.0.0.1:1; proxy_ssl_certificate certs/client.crt; proxy_ssl_certificate_key ' . $key->('none', $by_file)
    . '; } ssl_certificate_key ' . $key->('ec', $by_file) . ';'), qr{^\Q${cannot}none?pin-source=DIR/pin": no private key is found there in DIR/proxyd.conf:4\E$}, 'the same of a client\'s key');

unlink "$dir/error.log"; # of these

# Processes ----------------------------------------------------------------------------------------

my $port = $p->port('main');

sub servers {
    my (%o) = @_;
    my ($main, $pair) = @o{qw(main pair)};
    return ($root ? "user daemon;\n" : '') . "worker_processes 2;\n$main\nhttp {\n" . <<"EOT" }
    log_format none '';
    access_log off;
    server {
        listen 127.0.0.1:{{port}} ssl;
        server_name a.test;
        $pair
        location /up {
            proxy_pass https://127.0.0.1:{{port:up}}/;
            proxy_ssl_certificate certs/client.crt;
            proxy_ssl_certificate_key @{[$o{client}]};
            proxy_ssl_session_reuse off;
        }
        location / { return 200 "\$ssl_protocol \$ssl_cipher"; }
    }
    server {
        listen 127.0.0.1:{{port}} ssl;
        server_name plain.test;
        ssl_certificate certs/plain.crt;
        ssl_certificate_key certs/plain.key;
        return 200 plain;
    }
    server {
        listen 127.0.0.1:{{port:up}} ssl;
        ssl_certificate certs/plain.crt;
        ssl_certificate_key certs/plain.key;
        ssl_verify_client on;
        ssl_client_certificate certs/ca.crt;
        return 200 "\$ssl_client_s_dn";
    }
}
EOT

# N handshakes at once: how many had their answer.
sub many {
    my ($n, @o) = @_;
    my @children = map {
        my $pid = fork;
        if ($pid == 0) { POSIX::_exit($certs->get($port, '/', name => 'a.test', @o)->{body} =~ /^TLSv1/ ? 0 : 1) }
        $pid;
    } 1 .. $n;
    return scalar grep { waitpid($_, 0) == $_ && $? == 0 } @children;
}

my $rsa = 'ECDHE-RSA-AES128-GCM-SHA256';

sub handshakes {
    my ($name, %o) = @_;
    like($certs->get($port, '/', name => 'a.test')->{body}, qr/^TLSv1\.3 /, "$name: TLS 1.3");
    for my $cipher ('ECDHE-ECDSA-AES128-GCM-SHA256', $rsa, $o{decrypts} ? 'AES128-GCM-SHA256' : ()) {
        is($certs->get($port, '/', name => 'a.test', version => 'TLSv12', ciphers => $cipher)->{body}, "TLSv1.2 $cipher", "$name: $cipher");
    }
    is($certs->get($port, '/', name => 'plain.test')->{body}, 'plain', "$name: a key in a file beside");
    is(many($o{many} // 24), $o{many} // 24, "$name: many at once");
    is(many(8, version => 'TLSv12', ciphers => $rsa), 8, "$name: many at once with RSA");
}

# Nobody but these has signed anything, and nobody has used, or freed, what it was not the one to open.
sub signed_by {
    my ($name, @pids) = @_;
    my %seen = map { /^(\d+) (?:sign|decrypt)$/ ? ($1 => 1) : () } token_log();
    my %may  = map { $_ => 1 } @pids;
    is(join(' ', grep { !$may{$_} } keys %seen), '', "$name: signed by those who may");
    is(join(' ', grep { /inherited/ } token_log()), '', "$name: nothing that was inherited is used");
    ok(scalar(keys %seen), "$name: by somebody");
}

my $token_pair = "ssl_certificate certs/ec.crt; ssl_certificate_key " . $key->('ec', $by_file) . "; ssl_certificate certs/rsa.crt; ssl_certificate_key "
    . $key->('rsa', $by_file) . '; ssl_ciphers ALL;';
my %conf = (pair => $token_pair, client => $key->('client', $by_file));

for my $process (0, $root ? 1 : ()) {
    my $name = $process ? 'key process' : 'workers';
    my $main = $process ? 'ssl_key_process on;' : '';
    clear_log();
    $p->write_conf(servers(%conf, main => $main));
    $p->start(env => { OPENSSL_CONF => $conf });
    Proxyd::wait_for(sub { $p->workers == 2 });
    my @who = $process ? key_processes($p) : ($p->workers, $p->master);
    handshakes($name, decrypts => 1);
    is($certs->get($port, '/up', name => 'a.test')->{body}, 'CN=client', "$name: a client's key, to a server behind");
    signed_by($name, @who);

    # A worker's successor has keys of its own.
    my ($victim) = $p->workers;
    my @before = $p->workers;
    kill 'KILL', $victim;
    $p->expect_log(qr/worker process \d+ exited on signal 9/);
    ok(Proxyd::wait_for(sub { my @now = $p->workers; @now == 2 && !grep { $_ == $victim } @now }), "$name: another worker");
    is(many(16), 16, "$name: handshakes with it");
    push @who, $p->workers unless $process;
    signed_by($name, @who);

    my %earlier = map { $_ => 1 } $p->workers;
    ok($p->reload, "$name: reload");
    # One that leaves beside one that has come are two as well.
    Proxyd::wait_for(sub { 2 == grep { !$earlier{$_} } $p->workers });
    push @who, $process ? key_processes($p) : $p->workers;
    handshakes("$name, reloaded", many => 8);
    signed_by("$name, reloaded", @who);

    # An object that is no more.
    rename "$dir/tokens/web/rsa.pem", "$dir/tokens/web/rsa.away";
    $p->expect_log(qr/cannot load certificate key "store:pkcs11:token=web;object=rsa\?pin-source=[^"]*": no private key is found there/);
    $p->signal('HUP');
    ok($p->wait_log(qr/\[emerg\] .*object=rsa.*: no private key is found there in .*:\d+/), "$name: a reload fails for a key that is not there");
    is(many(4), 4, "$name: what was before goes on");
    if (!$process) {
        my @old = $p->workers;
        kill 'KILL', @old;
        ok(Proxyd::wait_for(sub { my @now = $p->workers; @now == 2 && !grep { my $n = $_; grep { $_ == $n } @old } @now }), "$name: other workers");
        ok($p->wait_log(qr/\[alert\] .*object=rsa.*, the worker process goes on without it in .*:\d+/), "$name: they say what they do not have");
        is(many(4), 4, "$name: and go on with the rest");
        is($certs->get($port, '/', name => 'a.test', version => 'TLSv12', ciphers => $rsa)->{status}, 0, "$name: there is no handshake with that key");
        ok($p->wait_log(qr/\[error\] .*the provider of certificate key "store:pkcs11:token=web;object=rsa[^"]*" did not give it to this process in .*:\d+/), "$name: the log says why");
    }
    rename "$dir/tokens/web/rsa.away", "$dir/tokens/web/rsa.pem";
    $p->signal('TERM');
    Proxyd::wait_for(sub { waitpid($p->master, POSIX::WNOHANG()) == $p->master }, 10);
    delete $p->{pid};
}

# Without a master nothing is a fork.
clear_log();
$p->write_conf("master_process off;\n" . servers(%conf, main => ''));
$p->start(env => { OPENSSL_CONF => $conf });
handshakes('a single process', decrypts => 1, many => 8);
signed_by('a single process', $p->master);
ok(!(grep { /pin-value=\d|2468/ } $p->error_log), 'no PIN stands in the log');
$p->signal('TERM');
Proxyd::wait_for(sub { waitpid($p->master, POSIX::WNOHANG()) == $p->master }, 10);
delete $p->{pid};

# In the background; upgraded.
if ($root) {
    for my $process (0, 1) {
        my $name = $process ? 'a daemon, key process' : 'a daemon';
        clear_log();
        $p->write_conf("daemon on;\nenv OPENSSL_CONF;\n" . servers(%conf, main => $process ? 'ssl_key_process on;' : ''));
        $p->start(daemon => 1, env => { OPENSSL_CONF => $conf });
        is(many(8), 8, "$name: handshakes");
        ok($p->reload, "$name: reload");
        is(many(8), 8, "$name: handshakes after it");
        my $old = $p->master;
        my $new = $p->upgrade_begin(2);
        ok($new, "$name: upgrade");
        is(many(8), 8, "$name: handshakes with the new one");
        kill 'QUIT', $old;
        ok($p->adopt($new), "$name: the old one has gone");
        is(many(8), 8, "$name: and without the old one");
        is(join(' ', grep { /inherited/ } token_log()), '', "$name: nothing that was inherited is used");
        $p->signal('TERM');
        ok(Proxyd::wait_for(sub { !Proxyd::alive($new) }, 10), "$name: stopped");
        delete @$p{qw(pid daemon)};
    }
}

# A TPM ---------------------------------------------------------------------------------------------

SKIP: {
    skip 'needs swtpm and tpm2-openssl', 1 unless Proxyd::Tpm::available();
    my $tpm = Proxyd::Tpm->start("$dir/tpm");
    my %env = (OPENSSL_CONF => openssl_conf('tpm.cnf', 'tpm2', ''), TPM2OPENSSL_TCTI => $tpm->tcti);
    my @ask = ('-propquery', '?provider=tpm2');
    my ($ec, $rsa_key, $file) = ('handle:0x81000001', 'handle:0x81000002', "$dir/file.key");
    {
        local @ENV{ keys %env } = values %env;
        $tpm->make_key(0x81000001, 'ec');
        $tpm->make_key(0x81000002, 'rsa');
        Proxyd::Certs::run('openssl', 'genpkey', @ask, '-algorithm', 'EC', '-pkeyopt', 'group:P-256', '-out', $file);
        for (['tpm_ec', $ec], ['tpm_rsa', $rsa_key], ['tpm_file', $file]) {
            Proxyd::Certs::run('openssl', 'req', '-new', '-x509', @ask, '-key', $_->[1], '-subj', '/CN=a.test', '-days', 30, '-out', $certs->path("$_->[0].crt"));
        }
    }
    like(Proxyd::Certs::slurp($file), qr/BEGIN TSS2 PRIVATE KEY/, 'a file that only the TPM can read');
    my $pair = "ssl_certificate certs/tpm_ec.crt; ssl_certificate_key store:$ec; ssl_certificate certs/tpm_rsa.crt; ssl_certificate_key store:$rsa_key;";
    for my $process (0, $root ? 1 : ()) {
        my $name = $process ? 'TPM, key process' : 'TPM, workers';
        my $main = $process ? 'ssl_key_process on;' : '';
        $p->write_conf(servers(main => $main, pair => $pair, client => 'certs/client.pem'));
        Proxyd::Certs::run('cp', "$dir/tokens/web/client.pem", $certs->path('client.pem'));
        $p->start(env => \%env);
        handshakes($name);
        ok($p->reload, "$name: reload");
        is(many(16), 16, "$name: many at once after it");
        $p->signal('TERM');
        Proxyd::wait_for(sub { waitpid($p->master, POSIX::WNOHANG()) == $p->master }, 10);
        delete $p->{pid};
    }
    # In the place of a key in a file. What is loaded takes room in the TPM until it starts anew, without a
    # manager of resources as the kernel has it.
    for my $more ('', 'ssl_certificate_watch on;', 'ssl_certificate_load lazy;', $root ? 'key process' : ()) {
        my $main = $more eq 'key process' ? 'ssl_key_process on;' : 'master_process off;';
        $tpm->stop;
        $tpm = Proxyd::Tpm->start("$dir/tpm");
        $env{TPM2OPENSSL_TCTI} = $tpm->tcti;
        my $pair = "ssl_certificate certs/tpm_file.crt; ssl_certificate_key $file;" . ($more =~ /;/ ? $more : '');
        $p->write_conf(servers(main => $main, pair => $pair, client => 'certs/client.pem'));
        $p->start(env => \%env);
        like($certs->get($port, '/', name => 'a.test')->{body}, qr/^TLSv1\.3 /, "a reference in a file: $more");
        $p->signal('TERM');
        Proxyd::wait_for(sub { waitpid($p->master, POSIX::WNOHANG()) == $p->master }, 10);
        delete $p->{pid};
    }
    $tpm->stop;
}

$p->stop;
done_testing;
