# SPDX-License-Identifier: BSD-2-Clause
#
# ssl_key_process with ssl_certificate_watch: a pair that has been replaced is served without a reload, and neither workers nor the
# master ever see its key; what is not fit to be served; keys that are not needed any more; deaths in the midst; a worker that means harm.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/lib";
use POSIX ();
use Test::More;
use Proxyd;
use Proxyd::Certs;
use Proxyd::KeyProcess qw(fds socket_of holds needles);
use Proxyd::Watched qw(watch_of shown becomes looked replace lines);

plan skip_all => 'needs the super-user' if $> != 0;

use constant { GRACE_S => 1 + 5, DONTWAIT => 0x40 }; # client_header_timeout, and what is added to it
use constant { OK => 0, REFUSED => 1, NO_KEY => 2 };

my $p     = Proxyd->new;
my $certs = Proxyd::Certs->new($p->dir . '/certs');
watch_of($p, $certs);
my $dir   = $p->dir;
$certs->make($_) for qw(one two three);
$certs->make($_, key => 'rsa') for qw(rsa rsa2);
$certs->make("locked$_", password => 'secret') for 1, 2;
$certs->make('middle', ca => 1, by => 'ca');
$certs->make('deep', by => 'middle');
$p->write_file('passwords', "wrong\nsecret\n");
for my $base ($certs->path('curve')) { # of a kind that signs nothing
    Proxyd::Certs::run('openssl', 'genpkey', '-algorithm', 'X25519', '-out', "$base.key");
    Proxyd::Certs::run('openssl', 'pkey', '-in', "$base.key", '-pubout', '-out', "$base.pub");
    Proxyd::Certs::run('openssl', 'x509', '-new', '-force_pubkey', "$base.pub", '-subj', '/CN=curve', '-CA', $certs->path('ca.only'),
        '-CAkey', $certs->path('ca.key'), '-out', "$base.crt");
}

sub lay {
    my ($name, $cert) = @_;
    Proxyd::Certs::run('cp', '-p', $certs->path("$cert.$_"), $certs->path("$name.$_")) for qw(key crt);
}
sub write_in_place {
    my ($name, $text) = @_;
    open my $fh, '+<', $certs->path($name) or die $!;
    truncate $fh, 0;
    print $fh $text;
    close $fh;
}

my @plain = qw(rename type chain shared clock lost load stop hostile);
my @bad   = map { "bad$_" } 0 .. 8;
chmod 0600, glob "$dir/certs/*.key";
lay($_, 'one') for @plain, @bad;
lay('locked', 'locked1');
lay('both', 'rsa');
my $servers = join '', map { <<"EOT" } @plain, @bad;
    server { listen 127.0.0.1:{{port:$_}} ssl; ssl_certificate certs/$_.crt; ssl_certificate_key certs/$_.key; return 200 \$pid; }
EOT
sub conf {
    my ($workers) = @_;
    return <<"EOT";
user daemon;
worker_processes $workers;
ssl_key_process on;
http {
    client_header_timeout 1s;
    ssl_certificate_watch on;
    ssl_ciphers ALL:\@SECLEVEL=0;
    $servers
    server { listen 127.0.0.1:{{port:again}} ssl; ssl_certificate certs/shared.crt; ssl_certificate_key certs/shared.key; return 200 again; }
    server { listen 127.0.0.1:{{port:still}} ssl; ssl_certificate_watch off; ssl_certificate certs/shared.crt; ssl_certificate_key certs/shared.key; return 200 still; }
    server { listen 127.0.0.1:{{port:pair}} ssl; ssl_certificate certs/one.crt; ssl_certificate_key certs/one.key;
        ssl_certificate certs/both.crt; ssl_certificate_key certs/both.key; return 200 pair; }
    server { listen 127.0.0.1:{{port:locked}} ssl; ssl_password_file passwords;
        ssl_certificate certs/locked.crt; ssl_certificate_key certs/locked.key; return 200 locked; }
    server { listen 127.0.0.1:{{port:plain}}; return 200 plain; }
}
EOT
}
$p->write_conf(conf(2));
$p->expect_log(qr/certificate "[^"]*" has changed, but cannot be used/, qr/(?:key|worker) process \d+ exited on signal 9/,
    qr/the key process goes on without|does not have the key/, qr/\[crit\].*SSL_do_handshake\(\) failed/, qr/refused a worker's request/);
$p->start;

sub key_process { my ($one) = Proxyd::KeyProcess::key_processes($p, @_); return $one }
sub successor { return Proxyd::KeyProcess::successor($p, @_) }


# --- what is replaced -------------------------------------------------------------------------------

is shown($_), 'one', "$_: at first" for qw(rename type shared again still bad0 pair);
is lines(qr/was replaced/), 0, 'nothing has been replaced';
# (What is as old as the server is read once more, and has descriptors for that.)
looked();
my $fds = fds($p->master);
sub no_descriptor {
    my ($what) = @_;
    ok Proxyd::wait_for(sub { fds($p->master) == $fds && fds(key_process()) == 3 + 1 + 1 + 2 }, 10), $what
        or diag fds($p->master), " $fds ", fds(key_process());
}
replace('rename', 'two');
becomes('rename', 'two', 'replaced');
replace('rename', 'three');
becomes('rename', 'three', 'and again');
replace('rename', 'one');
becomes('rename', 'one', 'and back');
replace('type', 'rsa');
becomes('type', 'rsa', 'by one with a key of another type');
is shown('type', version => 'TLSv12', ciphers => 'AES128-SHA'), 'rsa', 'which decrypts, too';
is shown('type', version => 'TLSv12', ciphers => 'ECDHE-RSA-AES128-GCM-SHA256'), 'rsa', 'and signs for TLS 1.2';
is shown('type', version => 'TLSv12', ciphers => 'ECDHE-ECDSA-AES128-GCM-SHA256'), 'none', 'nothing is left of the old one';
replace('chain', 'deep');
becomes('chain', 'deep', 'with a chain');
replace('locked', 'locked2');
becomes('locked', 'locked2', 'with a password');
replace('shared', 'two');
becomes($_, 'two', "two servers: $_") for qw(shared again);
is shown('still'), 'one', 'a server that does not watch goes on with the first key' for 1 .. 4;
replace('both', 'rsa2');
becomes('pair', 'rsa2', 'one of two', version => 'TLSv12', ciphers => 'ECDHE-RSA-AES128-GCM-SHA256');
is shown('pair', version => 'TLSv12', ciphers => 'ECDHE-ECDSA-AES128-GCM-SHA256'), 'one', 'the other stays';
{
    # A certificate that is made anew for the same key.
    my $base = $certs->path('rename');
    Proxyd::Certs::run('openssl', 'req', '-new', '-x509', '-key', "$base.key", '-subj', '/CN=renewed', '-days', 30, '-out', "$base.new");
    rename "$base.new", "$base.crt" or die $!;
    becomes('rename', 'renewed', 'another certificate with the same key');
    replace('rename', 'one');
    becomes('rename', 'one', 'and back');
}
my $before = lines(qr{rename\.crt" was replaced});
utime undef, undef, $certs->path("rename.$_") for qw(crt key);
looked();
is lines(qr{rename\.crt" was replaced}), $before, 'a new time is no new content';
no_descriptor('no descriptor is left behind');

# --- who has seen it ----------------------------------------------------------------------------------

SKIP: {
    skip 'a sanitizer\'s memory is too large to be searched', 1 if $ENV{TEST_PROXYD_SANITIZED};
    my @new = ((map { needles($certs->path("$_.key")) } qw(rsa rsa2 deep three)), needles($certs->path('locked2.key'), '-passin', 'pass:secret'));
    replace('clock', 'three');
    becomes('clock', 'three', 'another one');
    cmp_ok scalar(@new), '>', 15, 'parts of the keys are known';
    ok holds(key_process(), needles($certs->path('rsa.key'))), 'a new key is in the key process\'s memory';
    ok !holds($_, @new), 'but in no worker\'s' for $p->workers;
    ok !holds($p->master, @new), 'nor in the master\'s';
    ok !(grep { holds($_, 'secret' . "\n", "wrong\nsecret") } $p->workers), 'and no worker knows a password';
    # It goes with the last handshake that may need it.
    my @old = needles($certs->path('rsa2.key'));
    replace('both', 'rsa');
    becomes('pair', 'rsa', 'the old one is replaced', version => 'TLSv12', ciphers => 'ECDHE-RSA-AES128-GCM-SHA256');
    ok holds(key_process(), @old), 'a key that is not in force is kept for a while';
    ok Proxyd::wait_for(sub { !holds(key_process(), @old) }, GRACE_S + 20), 'and then nothing is left of it';
}

# --- what is not fit -----------------------------------------------------------------------------------

my $says = qr/\[error\] .*certificate "\Q$dir\E\/certs\/bad\d\.crt" has changed, but cannot be used: /;
my $pem  = Proxyd::Certs::slurp($certs->path('two.crt'));
my $key  = Proxyd::Certs::slurp($certs->path('two.key'));
my @unfit = (
    ['half a certificate', sub { write_in_place("$_[0].crt", substr($pem, 0, 300)) }, 'crt', qr/PEM_read_bio_X509_AUX\(\) failed/],
    ['without its key',    sub { replace($_[0], 'two', 'crt') }, 'key', qr/it is not the certificate's key/],
    ['another key',        sub { replace($_[0], 'rsa', 'key') }, 'key', qr/it is not the certificate's key/],
    ['no key',             sub { unlink $certs->path("$_[0].key") }, 'key', qr/No such file or directory/],
    ['half a key',         sub { replace($_[0], 'two', 'crt'); write_in_place("$_[0].key", substr($key, 0, 90)) }, 'key', qr/PEM_read_bio_PrivateKey\(\) failed/],
    ['a locked key',       sub { replace($_[0], 'locked1') }, 'key', qr/PEM_read_bio_PrivateKey\(\) failed/],
    ['too much',           sub { $p->write_file("certs/$_[0].key", $key . '#' x 100_000) }, 'key', qr/too large/],
    ['a pipe',             sub { unlink $certs->path("$_[0].key"); POSIX::mkfifo($certs->path("$_[0].key"), 0600) }, 'key', qr/not a regular file/],
    ['a key of no use',    sub { replace($_[0], 'curve') }, 'crt', qr/"ssl_key_process" can keep only RSA, ECDSA, Ed25519 and Ed448 keys/],
);
$unfit[$_][1]->("bad$_") for 0 .. $#unfit;
for (0 .. $#unfit) {
    my ($what, undef, $which, $why) = @{ $unfit[$_] };
    ok $p->wait_log(qr{\[error\] .*certificate "\Q$dir\E/certs/bad$_\.crt" has changed, but cannot be used: "\Q$dir\E/certs/bad$_\.$which": $why}, undef, 10), "unfit: $what: logged";
    is shown("bad$_"), 'one', "unfit: $what: the old one is kept" for 1 .. 3;
}
looked();
is lines($says), scalar @unfit, 'unfit: once for each';
unlike $p->error_log, qr/BEGIN/, 'unfit: no content';
replace("bad$_", 'three') for 0 .. $#unfit;
becomes("bad$_", 'three', 'unfit: and then fit') for 0 .. $#unfit;
no_descriptor('no descriptor is left behind');

# --- deaths ---------------------------------------------------------------------------------------------

{
    my $old = key_process();
    kill 'KILL', $old;
    ok successor($old), 'the key process dies';
    becomes($_->[0], $_->[1], "its successor has what is in force: $_->[0]") for ['type', 'rsa'], ['locked', 'locked2'], ['shared', 'two'], ['bad1', 'three'];
    replace('type', 'two');
    becomes('type', 'two', 'and what comes');
    replace('locked', 'locked1');
    becomes('locked', 'locked1', 'also with a password');
}
{
    # The key is not there when the successor looks for it.
    my $hidden = $certs->path('lost.key');
    rename $hidden, "$hidden.away" or die $!;
    my $old = key_process();
    kill 'KILL', $old;
    successor($old);
    ok $p->wait_log(qr{cannot load certificate key "\Q$hidden\E": .*, the key process goes on without it}), 'a key is lost';
    is shown('lost'), 'none', 'then there is no handshake';
    is shown('type'), 'two', 'others go on';
    rename "$hidden.away", $hidden or die $!;
    becomes('lost', 'one', 'until it is there again, without a reload');
}
{
    # A replacement while there is no process to hand it to.
    my $old = key_process();
    kill 'STOP', $old;
    replace('stop', 'two');
    is $p->get('/', port => 'plain')->body, 'plain', 'the process is stopped: the loop turns' for 1 .. 3;
    kill 'KILL', ($p->workers)[0];
    ok Proxyd::wait_for(sub { $p->workers == 2 }, 10), 'and the master works';
    kill 'CONT', $old;
    becomes('stop', 'two', 'it goes on');
    kill 'STOP', $old;
    replace('stop', 'three');
    my $from = time;
    Proxyd::wait_for(sub { time >= $from + 2 }, 5); # the master has offered it
    kill 'KILL', $old;
    successor($old);
    becomes('stop', 'three', 'what was sent to one that has died is sent again');
}
{
    my @old = $p->workers;
    kill KILL => @old;
    ok $p->wait_for(sub { my @new = $p->workers; return @new == 2 && !grep { my $w = $_; grep { $w == $_ } @old } @new }), 'workers die';
    becomes('stop', 'three', 'new ones have what is new');
    replace('stop', 'one');
    becomes('stop', 'one', 'and what comes');
}

# --- under load ---------------------------------------------------------------------------------------

{
    my $stop = "$dir/stop";
    my @clients = map {
        pipe my $in, my $out;
        my $pid = fork // die $!;
        if ($pid == 0) {
            my ($good, $bad, %names) = (0, 0);
            until (-e $stop) {
                my $name = shown('load', $_ % 2 ? (version => 'TLSv12') : ());
                $name eq 'none' ? $bad++ : $good++;
                $names{$name}++;
            }
            syswrite $out, join ' ', $good, $bad, sort keys %names;
            POSIX::_exit(0);
        }
        [$pid, $in];
    } 1 .. 4;
    for my $n (1 .. 6) {
        my $want = lines(qr{load\.crt" was replaced}) + 1;
        replace('load', (qw(two rsa one))[$n % 3]);
        ok Proxyd::wait_for(sub { lines(qr{load\.crt" was replaced}) >= $want }, 10), "under load: replaced ($n)";
    }
    $p->write_file('stop', '');
    my ($good, $bad, %names) = (0, 0);
    for (@clients) {
        my ($pid, $in) = @$_;
        sysread $in, my ($text), 200;
        waitpid $pid, 0;
        my ($g, $b, @names) = split ' ', $text // '0 1';
        $good += $g;
        $bad += $b;
        $names{$_}++ for @names;
    }
    cmp_ok $good, '>', 20, "under load: handshakes ($good)";
    is $bad, 0, 'under load: none is lost';
    is_deeply [sort keys %names], [qw(one rsa two)], 'under load: with all certificates';
}

# --- a worker that is somebody else's ----------------------------------------------------------------------

SKIP: {
    my ($worker) = $p->workers;
    my $socket = socket_of($worker) or skip 'its socket cannot be had', 1;
    my $id = 1 << 63;
    # To sign for TLS 1.3 with a key. Answers to others are none of ours.
    my $status = sub {
        my ($number, $generation) = @_;
        my $text = ' ' x 64 . "TLS 1.3, server CertificateVerify\0" . 'x' x 32;
        kill 'STOP', $worker;
        my ($got, $of);
        $id++;
        send $socket, pack('Q L2 C4 S2 L2', $id, $number, $generation, 1, 0, 4, 0, 0, 0, length $text, 0) . $text, 0;
        for (1 .. 100) {
            vec(my $bits = '', fileno $socket, 1) = 1;
            select $bits, undef, undef, 5 or last;
            recv $socket, my ($answer), 4096, DONTWAIT;
            next if !defined $answer || length $answer < 16;
            ($of, $got) = unpack 'Q L', $answer;
            last if $of == $id;
        }
        $got = undef if ($of // 0) != $id;
        kill 'CONT', $worker;
        return $got;
    };
    # The number of "hostile": it has been replaced once, no other one was at that time.
    replace('hostile', 'two');
    becomes('hostile', 'two', 'a pair is replaced');
    my @numbers = grep { $status->($_, 1) == OK } 0 .. 30;
    my ($number) = grep { $status->($_, 0) == OK && $status->($_, 2) == NO_KEY } @numbers;
    ok defined $number, 'the new key signs, and so does the old one for a while';
    is $status->($number, 7), NO_KEY, 'there is no other one';
    is $status->($number, 0xffffffff), NO_KEY, 'of any generation';
    is $status->(1000, 0), REFUSED, 'or number';
    ok Proxyd::wait_for(sub { $status->($number, 0) == NO_KEY }, GRACE_S + 20), 'the old one does not sign for ever';
    is $status->($number, 1), OK, 'the new one does';
    # Nothing that it sends puts anything into force, or out of it.
    for my $what (0 .. 5) {
        send $socket, pack('L4 Q', $what, $number, 2, 0, 0), DONTWAIT;
        send $socket, pack('L4 Q', $what, $number, 2, 16, 0) . 'x' x 16, DONTWAIT;
    }
    is $status->($number, 1), OK, 'it cannot speak for the master';
    is $status->($number, 2), NO_KEY, 'or bring keys';
    close $socket;
    kill 'KILL', $worker;
    ok Proxyd::wait_for(sub { !grep({ $_ == $worker } $p->workers) && $p->workers == 2 }, 10), 'it dies';
    becomes('hostile', 'two', 'others never knew');
}

# --- configurations --------------------------------------------------------------------------------------

replace($_, 'one') for @bad;
becomes('bad0', 'one', 'all are well');
{
    my $old = key_process();
    $p->reload;
    ok Proxyd::wait_for(sub { Proxyd::KeyProcess::key_processes($p) == 1 && key_process() != $old }, 10), 'a reload';
    becomes('still', 'two', 'reads the files');
    becomes('rename', 'one', 'all of them');
    replace('rename', 'rsa');
    becomes('rename', 'rsa', 'and it goes on');
    no_descriptor('no descriptor is left behind');
}
{
    my $r = $p->run(add => ['-t']);
    is $r->{status}, 0, '-t is content' or diag $r->{err};
}
{
    my $d = Proxyd->new;
    lay('upgrade', 'one');
    $d->write_conf(<<"EOT");
daemon on;
user daemon;
worker_processes 1;
ssl_key_process on;
http { server { listen 127.0.0.1:{{port}} ssl; ssl_certificate_watch on; ssl_certificate $dir/certs/upgrade.crt; ssl_certificate_key $dir/certs/upgrade.key; return 200 x; } }
EOT
    $d->start(daemon => 1);
    my $shows = sub {
        my ($want) = @_;
        return $d->wait_for(sub { my $c = $certs->connect($d->port('main')) or return 0; my $cn = $c->sock->peer_certificate('cn'); $c->close; return $cn eq $want }, 20);
    };
    ok $shows->('one'), 'in the background';
    replace('upgrade', 'two');
    ok $shows->('two'), 'the master that went there watches';
    my $old = $d->master;
    my $new = $d->upgrade_begin(1);
    ok $shows->('two'), 'a new binary has what is in force';
    replace('upgrade', 'three');
    ok $shows->('three'), 'and what comes';
    kill 'QUIT', $old;
    $d->adopt($new);
    replace('upgrade', 'rsa');
    ok $shows->('rsa'), 'also later';
    $d->stop;
}

# --- many at once -------------------------------------------------------------------------------------------

my $many = Proxyd->new;
mkdir $many->dir . '/many';
sub lay_many { my ($cert) = @_; for my $n (0 .. 99) { Proxyd::Certs::run('cp', $certs->path("$cert.$_"), $many->dir . "/many/$n.$_") for qw(crt key) } }
lay_many('one');
$many->write_conf("user daemon;\nssl_key_process on;\nworker_processes 1;\n" . 'http { ssl_certificate_watch on; server_names_hash_max_size 4096; ' . join('', map {
    "server { listen 127.0.0.1:{{port}} ssl; server_name n$_.test; ssl_certificate many/$_.crt; ssl_certificate_key many/$_.key; }\n" } 0 .. 99) . '}');
$many->expect_log(qr/has changed, but cannot be used/, qr/exited on signal 9|goes on without/); # half of a pair, on a slow machine
$many->start;
lay_many('two');
ok $many->wait_for(sub { 100 == grep { /was replaced/ } split /\n/, $many->error_log }, 30), 'many: all are replaced';
my ($of_many) = Proxyd::KeyProcess::key_processes($many);
lay_many('three');
kill 'KILL', $of_many;
ok $many->wait_for(sub { 200 == grep { /was replaced/ } split /\n/, $many->error_log }, 30), 'many: also when the process dies';
is scalar(grep {
    my $c = $certs->connect($many->port('main'), name => "n$_.test");
    my $cn = $c ? $c->sock->peer_certificate('cn') : 'none';
    $c->close if $c;
    $cn ne 'three';
} 0 .. 99), 0, 'many: and shown';
$many->stop;
$p->stop;
done_testing;
