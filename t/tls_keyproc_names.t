# SPDX-License-Identifier: BSD-2-Clause
#
# ssl_key_process with certificates and keys that variables name: the process opens the keys, with its own rights, and only
# such as the directive can lead to; pairs that are replaced; and a worker that means harm.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/lib";
use POSIX ();
use Test::More;
use Proxyd;
use Proxyd::Certs;
use Proxyd::KeyProcess qw(fds socket_of holds needles);

plan skip_all => 'needs the super-user' if $> != 0;

use constant { OK => 0, REFUSED => 1, NO_KEY => 2, DONTWAIT => 0x40 };
use constant { SIGN => 1, FIND => 3 };

my $p     = Proxyd->new;
my $certs = Proxyd::Certs->new($p->dir . '/certs');
my $dir   = $p->dir;
my ($uid, $gid) = (getpwnam 'nobody')[2, 3];
my @names = (map { "$_.test" } qw(one two three spare locked roots foreign curve));
$certs->make($_, names => [$_]) for @names[0 .. 2, 5];
$certs->make('rsa.test', key => 'rsa');
$certs->make('spare.test', key => 'rsa');
$certs->make('locked.test', password => 'secret');
$certs->make('client', subject => '/CN=client');
$certs->make('foreign.test');
$certs->make('outside');
Proxyd::Certs::run('cp', $certs->path('two.test.key'), $certs->path('foreign.test.key'));
mkdir "$dir/elsewhere";
Proxyd::Certs::run('cp', $certs->path("outside.$_"), "$dir/elsewhere/outside.test.$_") for qw(key crt);
POSIX::mkfifo($certs->path('pipe.test.key'), 0600) or die $!;
Proxyd::Certs::run('cp', $certs->path('one.test.crt'), $certs->path('pipe.test.crt'));
$p->write_file('passwords', "wrong\nsecret\n");
# Only the key process may read them; but one only the super-user.
my @keys = glob "$dir/certs/*.key $dir/elsewhere/*.key";
chmod 0600, @keys;
chown $uid, $gid, grep { !/roots/ } @keys;

sub lay {
    my ($name, $cert, @which) = @_;
    for (@which ? @which : qw(key crt)) {
        Proxyd::Certs::run('cp', '-p', $certs->path("$cert.$_"), $certs->path("$name.new"));
        rename $certs->path("$name.new"), $certs->path("$name.$_") or die $!;
    }
}
sub conf {
    my ($cache) = @_;
    return <<"EOT";
user daemon;
worker_processes 2;
ssl_key_process on;
http {
    ssl_ciphers ALL:\@SECLEVEL=0;
    $cache
    server { listen 127.0.0.1:{{port}} ssl; server_name _; ssl_password_file passwords;
        ssl_certificate certs/\$ssl_server_name.crt; ssl_certificate_key certs/\$ssl_server_name.key; return 200 "\$ssl_server_name"; }
    server { listen 127.0.0.1:{{port:fixed}} ssl;
        ssl_certificate certs/one.test.\${ssl_server_name}; ssl_certificate_key certs/one.test.key; return 200 fixed; }
    server { listen 127.0.0.1:{{port:peer}} ssl; ssl_certificate certs/rsa.test.crt; ssl_certificate_key certs/rsa.test.key;
        ssl_verify_client on; ssl_client_certificate certs/ca.crt; return 200 "\$ssl_client_s_dn"; }
    server { listen 127.0.0.1:{{port:plain}};
        location / { set \$who client; proxy_pass https://127.0.0.1:{{port:peer}}; proxy_ssl_session_reuse off;
            proxy_ssl_certificate certs/\$who.crt; proxy_ssl_certificate_key certs/\$who.key; } }
}
EOT
}
Proxyd::Certs::run('cp', $certs->path('one.test.crt'), $certs->path('one.test.crt.test'));
symlink 'one.test.crt', $certs->path('one.test.pem.test');
$p->write_conf(conf(''));
$p->expect_log(qr/(?:key|worker) process \d+ exited on signal 9/, qr/\[crit\].*SSL_do_handshake\(\) failed/, qr/refused a worker's request/,
    qr/cannot load certificate key/, qr/does not have the key/);
$p->start;

sub key_process { my ($one) = Proxyd::KeyProcess::key_processes($p, @_); return $one }
sub shown { my ($name, %o) = @_; return $certs->shown($p->port($o{port} // 'main'), name => $name, %o) }
sub lines { my $re = shift; return scalar grep { /$re/ } split /\n/, $p->error_log }

for my $cache ('', 'ssl_certificate_cache max=10 valid=1h;', 'ssl_certificate_cache max=1 valid=0;') {
    if ($cache ne '') {
        $p->write_conf(conf($cache));
        $p->reload;
        Proxyd::wait_for(sub { Proxyd::KeyProcess::key_processes($p) == 1 }, 10);
    }
    for my $n (1 .. 3) {
        is shown($_), $_, "$cache $_ ($n)" for qw(one.test two.test three.test locked.test);
        is shown('rsa.test', version => 'TLSv12', ciphers => $_), 'rsa.test', "$cache RSA: $_ ($n)" for qw(AES128-SHA ECDHE-RSA-AES128-GCM-SHA256);
    }
    is shown('pem.test', port => 'fixed'), 'one.test', "$cache a key that no variable names" for 1 .. 2;
    is $p->get('/', port => 'plain')->body, 'CN=client', "$cache a client's certificate" for 1 .. 3;
    # What is replaced is served, at once, or with the next look at the certificate's file.
    lay('two.test', 'spare.test');
    is shown('two.test'), 'spare.test', "$cache replaced ($_)" for 1 .. 4;
    Proxyd::Certs::run('cp', '-p', $certs->path('three.test.key'), $certs->path('two.test.key'));
    Proxyd::Certs::run('cp', '-p', $certs->path('three.test.crt'), $certs->path('two.test.crt'));
    is shown('two.test'), 'three.test', "$cache in place ($_)" for 1 .. 4;
    $certs->make('two.test');
    chmod 0600, $certs->path('two.test.key');
    chown $uid, $gid, $certs->path('two.test.key');
    is shown('two.test'), 'two.test', "$cache and made anew ($_)" for 1 .. 2;
    is shown($_), 'none', "$cache $_" for qw(nobody.test roots.test foreign.test pipe.test outside.test);
    is shown($_), 'none', "$cache $_" for '../elsewhere/outside.test', '..', 'a/b', '.';
}
$p->wait_log(qr{\[error\].*cannot load certificate key "\Q$dir\E/certs/roots\.test\.key": the key process cannot open it, or it is not the certificate's key in \S+proxyd\.conf:\d+ while SSL handshaking, client: 127});
like $p->error_log, qr{cannot load certificate key "\Q$dir\E/certs/\w+\.test\.key": BIO_new_file\(\) failed .*(?:Permission denied|No such file).* in \S+proxyd\.conf:\d+}, 'the process says why';
unlike $p->error_log, qr/BEGIN/, 'no content is told';

if (!$ENV{TEST_PROXYD_SANITIZED}) {
    my @secrets = map { needles($certs->path("$_.key")) } qw(one.test three.test rsa.test);
    shown($_) for qw(one.test three.test rsa.test) x 4;
    ok holds(key_process(), @secrets), 'keys are in the key process\'s memory';
    ok !holds($_, @secrets), 'but in no worker\'s' for $p->workers;
    ok !holds($p->master, @secrets), 'nor in the master\'s';
}

# --- a worker that is somebody else's ---------------------------------------------------------------------

SKIP: {
    my ($worker) = $p->workers;
    my $socket = socket_of($worker) or skip 'its socket cannot be had', 1;
    my $id = 1 << 63;
    my $text = ' ' x 64 . "TLS 1.3, server CertificateVerify\0" . 'x' x 32;
    my $status = sub {
        my ($number, $op, $name, $data) = @_;
        kill 'STOP', $worker;
        $id++;
        send $socket, pack('Q L2 C4 S2 L2', $id, $number, 0, $op, 0, $op == SIGN ? 4 : 0, 0, 0, 0, length $data, length $name) . $name . $data, 0;
        my ($of, $got) = (0);
        for (1 .. 100) {
            vec(my $bits = '', fileno $socket, 1) = 1;
            select $bits, undef, undef, 5 or last;
            recv $socket, my ($answer), 4096, DONTWAIT;
            ($of, $got) = unpack 'Q L', $answer if length($answer // '') >= 16;
            last if $of == $id;
        }
        kill 'CONT', $worker;
        return $of == $id ? $got : undef;
    };
    # The first 32 bytes are the digest of the public half; of EC, of its first number.
    my $print = sub {
        my ($file) = @_;
        my ($hex) = `openssl pkey -in $file -text -noout` =~ /^pub:\s*((?:\s+[0-9a-f:]+\n)+)/m;
        $hex =~ s/[^0-9a-f]//g;
        require Digest::SHA;
        return Digest::SHA::sha256(substr(pack('H*', $hex), 1, 32) =~ s/^\0+//r);
    };
    my $one = $print->($certs->path('one.test.key'));
    my @numbers = grep { $status->($_, FIND, $one . "$dir/certs/one.test.key", '') == OK && $status->($_, FIND, $one . "$dir/certs/x.key", '') == NO_KEY } 0 .. 10;
    is scalar(@numbers), 2, 'a server\'s key, and a client\'s';
    my ($number) = grep { $status->($_, SIGN, $one . "$dir/certs/one.test.key", $text) == OK } @numbers;
    ok defined $number, 'the server\'s signs as a server, and only that one' or skip 'nothing to try', 1;
    is $status->($number, SIGN, $one . "$dir/certs/one.test.key", 'a token'), REFUSED, 'but nothing that is not TLS';
    is $status->($number, FIND, 'x' x 32 . "$dir/certs/one.test.key", ''), NO_KEY, 'a key of another public half';
    my $out = $print->("$dir/elsewhere/outside.test.key");
    for my $path ("$dir/elsewhere/outside.test.key", "$dir/certs/../elsewhere/outside.test.key", "$dir/certs/x/../../elsewhere/outside.test.key",
        "certs/one.test.key", "$dir/certs/one.test.crt", "$dir/certs/", "$dir/certs/one.test.key\0.key", "/etc/passwd", "", "/",
        "$dir/certs/../../../../../../../../../etc/x.key", "data:x.key", "store:x.key") {
        is $status->($number, FIND, $out . $path, ''), REFUSED, "not $path" =~ s/\0/\\0/r;
    }
    is $status->($number, FIND, $out . "$dir/certs/" . 'x/' x 600 . '.key', ''), NO_KEY, 'a long name';
    is $status->($number, FIND, $out . "$dir/certs/" . 'x' x 4080 . '.key', ''), REFUSED, 'one that is too long';
    is $status->($number, FIND, '', ''), REFUSED, 'none';
    is $status->($number, FIND, 'x' x 31, ''), REFUSED, 'half a digest';
    is $status->($number, FIND, $one . "$dir/certs/pipe.test.key", ''), NO_KEY, 'a pipe stops nobody';
    for my $other (0 .. 20) {
        next if $other == $number;
        my $s = $status->($other, FIND, $out . "$dir/elsewhere/outside.test.key", '');
        fail "number $other leads elsewhere" if $s != REFUSED;
    }
    $status->($number, FIND, $one . "$dir/certs/x$_.key", '') for 1 .. 300;
    cmp_ok lines(qr/refused a worker's request/), '<', 60, 'the log is not filled';
    is shown('one.test'), 'one.test', "and others are served ($_)" for 1 .. 4;
    close $socket;
}

# --- deaths --------------------------------------------------------------------------------------------

{
    my $old = key_process();
    kill 'KILL', $old;
    ok Proxyd::KeyProcess::successor($p, $old), 'the process dies';
    is shown($_), $_, "its successor: $_" for qw(one.test three.test locked.test);
    kill 'KILL', ($p->workers)[0];
    Proxyd::wait_for(sub { $p->workers == 2 }, 10);
    is shown($_), $_, "another worker: $_" for qw(one.test three.test locked.test);
}
is $p->run(add => ['-t'])->{status}, 0, '-t is content';
$p->stop;
done_testing;
