# SPDX-License-Identifier: BSD-2-Clause
#
# ssl_key_process with ssl_certificate_load lazy: keys that the key process parses when a handshake first needs them; those that are
# not fit; deaths, reloads; and a worker that means harm.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/lib";
use Test::More;
use Proxyd;
use Proxyd::Certs;
use Proxyd::KeyProcess qw(fds socket_of holds needles);

plan skip_all => 'needs the super-user' if $> != 0;

use constant DONTWAIT => 0x40;

my $p     = Proxyd->new;
my $certs = Proxyd::Certs->new($p->dir . '/certs');
my $dir   = $p->dir;
my @names = map { "n$_" } 0 .. 19;
$certs->make('one');
$certs->make('rsa', key => 'rsa');
$certs->make('locked', password => 'secret');
$certs->make($_) for qw(late broken other client);
$p->write_file('passwords', "wrong\nsecret\n");
sub copy { Proxyd::Certs::run('cp', '-p', @_) }
for my $name (@names) {
    copy($certs->path("one.$_"), $certs->path("$name.$_")) for qw(crt key);
}
copy($certs->path("one.$_"), $certs->path("wrong.$_")) for qw(crt key);
copy($certs->path('other.key'), $certs->path('wrong.key'));
$p->write_file('certs/broken.key', "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n");
chmod 0600, glob "$dir/certs/*.key";

my $servers = join '', map { my ($name, @more) = @$_; <<"EOT" } (map { [$_] } @names, 'rsa', 'late', 'wrong', 'broken'), ['locked', 'ssl_password_file passwords;'];
    server { listen 127.0.0.1:{{port}} ssl; server_name $name.test; @more ssl_certificate certs/$name.crt; ssl_certificate_key certs/$name.key; return 200 \$pid; }
EOT
sub conf {
    my ($load) = @_;
    return <<"EOT";
user daemon;
worker_processes 2;
ssl_key_process on;
http {
    ssl_certificate_load $load;
    ssl_ciphers ALL:\@SECLEVEL=0;
    $servers
    server { listen 127.0.0.1:{{port}} ssl; server_name twice.test;
        ssl_certificate certs/n0.crt; ssl_certificate_key certs/n0.key; ssl_certificate certs/rsa.crt; ssl_certificate_key certs/rsa.key; return 200 x; }
    server { listen 127.0.0.1:{{port}} ssl; server_name eager.test; ssl_certificate_load eager; ssl_certificate certs/n0.crt; ssl_certificate_key certs/n0.key; return 200 x; }
}
EOT
}
$p->write_conf(conf('lazy'));
$p->expect_log(qr/(?:key|worker) process \d+ exited on signal 9/, qr/does not have the key/, qr/\[crit\].*SSL_do_handshake\(\) failed/,
    qr/refused a worker's request/, qr/goes on without/);
$p->start;

sub key_process { my ($one) = Proxyd::KeyProcess::key_processes($p, @_); return $one }
sub shown { my ($name, %o) = @_; return $certs->shown($p->port('main'), name => "$name.test", %o) }
sub lines { my $re = shift; return scalar grep { /$re/ } split /\n/, $p->error_log }

# --- handshakes -----------------------------------------------------------------------------------

# What is not parsed is not a key yet, but its text: the private part's bytes are there only then.
my @late = grep { length $_ == 24 } needles($certs->path('late.key'));
my $searched = !$ENV{TEST_PROXYD_SANITIZED};
ok !holds(key_process(), @late), 'a key that nobody has asked for is not parsed' if $searched;
is shown('late'), 'late', "a first handshake, and others ($_)" for 1 .. 6;
ok holds(key_process(), @late), 'then it is' if $searched;
is shown($_), 'one', "$_" for @names;
is shown('rsa', version => 'TLSv12', ciphers => $_), 'rsa', "RSA: $_" for qw(AES128-SHA ECDHE-RSA-AES128-GCM-SHA256) x 4;
is shown('locked'), 'locked', "with a password ($_)" for 1 .. 4;
is shown('twice', version => 'TLSv12', ciphers => 'ECDHE-ECDSA-AES128-GCM-SHA256'), 'one', "two pairs ($_)" for 1 .. 4;
is shown('twice', version => 'TLSv12', ciphers => 'ECDHE-RSA-AES128-GCM-SHA256'), 'rsa', "the other one ($_)" for 1 .. 4;
is shown('eager'), 'one', 'beside a server with its keys at hand';
if ($searched) {
    my @secrets = ((map { needles($certs->path("$_.key")) } qw(rsa late one)), needles($certs->path('locked.key'), '-passin', 'pass:secret'));
    ok !holds($_, @secrets), 'no worker has a key, or its text' for $p->workers;
    ok !holds($p->master, @secrets), 'nor has the master';
    my @text = (split /\n/, Proxyd::Certs::slurp($certs->path('rsa.key')))[2 .. 10];
    ok !holds(key_process(), @text), 'and of a parsed one not even the process has the text';
}

# --- what is not fit ----------------------------------------------------------------------------------

is shown('wrong'), 'none', "another certificate's key ($_)" for 1 .. 6;
is lines(qr{\[error\].*cannot load certificate key "\Q$dir\E/certs/wrong\.key": it is not the certificate's key .* in \S+proxyd\.conf:\d+ \(by "ssl_certificate_load lazy"}), 1, 'is told once';
is shown('broken'), 'none', "no key ($_)" for 1 .. 6;
is lines(qr{\[error\].*cannot load certificate key "\Q$dir\E/certs/broken\.key": PEM_read_bio_PrivateKey\(\) failed}), 1, 'is told once, too';
is shown('n0'), 'one', 'others go on';
unlike $p->error_log, qr/BEGIN|AAAA/, 'no content is told';

# --- a worker that means harm ---------------------------------------------------------------------------

SKIP: {
    my ($worker) = $p->workers;
    my $socket = socket_of($worker) or skip 'its socket cannot be had', 1;
    my $text = ' ' x 64 . "TLS 1.3, server CertificateVerify\0" . 'x' x 32;
    my $ask = sub {
        my ($number, $generation, $data) = @_;
        send $socket, pack('Q L2 C4 S2 L2', 1 << 62, $number, $generation, 1, 0, 4, 0, 0, 0, length $data, 0) . $data, 0;
    };
    $ask->($_ % 40, $_ % 3, $_ % 2 ? $text : 'x' x 40) for 1 .. 400;
    is shown('n1'), 'one', "all keys are asked for, and others are served ($_)" for 1 .. 4;
    is fds(key_process()), 3 + 1 + 1 + 2, 'it has no descriptor more';
    ok lines(qr/refused a worker's request/) < 20, 'the log is not filled';
    close $socket;
}

# --- deaths, reloads -----------------------------------------------------------------------------------

for (1 .. 2) {
    my $old = key_process();
    kill 'KILL', $old;
    ok Proxyd::KeyProcess::successor($p, $old), "the process dies ($_)";
    is shown($_), 'one', "its successor: $_" for @names[0 .. 3], 'twice';
    is shown('locked'), 'locked', 'its successor: with a password';
}
{
    my @old = $p->workers;
    kill 'KILL', @old;
    ok $p->wait_for(sub { my @new = $p->workers; return @new == 2 && !grep { my $w = $_; grep { $w == $_ } @old } @new }), 'workers die';
    is shown($_), 'one', "new ones: $_" for @names[0 .. 3];
}
copy($certs->path('other.key'), $certs->path('n3.key'));
copy($certs->path('other.crt'), $certs->path('n3.crt'));
is shown('n3'), 'one', 'what is replaced is not served';
$p->reload;
is shown('n3'), 'other', "until a reload ($_)" for 1 .. 4;
is shown('n4'), 'one', 'which changes nothing else';
{
    # What cannot even be read is an error at once.
    unlink $certs->path('n5.key') or die $!;
    $p->expect_log(qr/cannot load certificate key/, qr/the configuration was not changed/);
    $p->reload(fails => 1);
    ok $p->wait_log(qr{\[emerg\].*cannot load certificate key "\Q$dir\E/certs/n5\.key": it cannot be read \(2: No such file or directory\) in \S+proxyd\.conf:\d+}), 'a file that is not there';
    is shown('n5'), 'one', 'the old configuration goes on';
    copy($certs->path('one.key'), $certs->path('n5.key'));
}
{
    my $r = $p->run(add => ['-t']);
    is $r->{status}, 1, '-t parses all';
    like $r->{err}, qr{SSL_CTX_use_PrivateKey\("\Q$dir\E/certs/wrong\.key"\) failed .*key values mismatch}, 'and finds what is wrong';
    $p->expect_log(qr/key values mismatch/);
}
$p->stop;
done_testing;
