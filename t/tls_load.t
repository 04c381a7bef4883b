# SPDX-License-Identifier: BSD-2-Clause
#
# ssl_certificate_load: when certificates are parsed. Many, by threads; and late, by the first handshake that needs them: which errors
# are found then, and which at the start.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/lib";
use Test::More;
use Proxyd;
use Proxyd::Certs;

my $p     = Proxyd->new;
my $certs = Proxyd::Certs->new($p->dir . '/certs');
my $dir   = $p->dir;
$certs->make($_) for qw(one two);
$certs->make('rsa', key => 'rsa');
$certs->make('locked', password => 'secret');
$certs->make('stapled', ext => 'authorityInfoAccess=OCSP;URI:http://127.0.0.1:1/');
$p->write_file('passwords', "secret\n");
$p->write_file('certs/rubbish.crt', "rubbish\n");
Proxyd::Certs::run('cp', $certs->path('one.crt'), $certs->path('odd.crt'));
Proxyd::Certs::run('cp', $certs->path('two.key'), $certs->path('odd.key'));
Proxyd::Certs::run('cp', $certs->path('one.key'), $certs->path('first.key'));
my $pem = Proxyd::Certs::slurp($certs->path('one.crt'));

my %rsa = (version => 'TLSv12', ciphers => 'ECDHE-RSA-AES128-GCM-SHA256');
my %ec  = (version => 'TLSv12', ciphers => 'ECDHE-ECDSA-AES128-GCM-SHA256');
my $pair = sub { "ssl_certificate certs/$_[0].crt; ssl_certificate_key certs/" . ($_[1] // $_[0]) . '.key;' };

# Keys may be read by the master alone; each worker has to be asked.
my $root = $> == 0;
chmod 0600, glob("$dir/certs/*.key") if $root;
my $conf = sub {
    my ($more) = @_;
    return "worker_processes 2;\n" . ($root ? "user nobody nogroup;\n" : '') . <<"EOT";
http {
    ssl_certificate_load lazy;
    server { listen 127.0.0.1:{{port}} ssl; @{[ $pair->('one') ]} location / { return 200 "\$ssl_server_name"; } }
    server { listen 127.0.0.1:{{port}} ssl; server_name again.test; @{[ $pair->('one') ]} location / { return 200 again; } }
    server { listen 127.0.0.1:{{port}} ssl; server_name two.test; @{[ $pair->('two') ]} location / { return 200 two; } }
    server { listen 127.0.0.1:{{port}} ssl; server_name both.test; @{[ $pair->('two') ]} @{[ $pair->('rsa') ]} location / { return 200 both; } }
    server { listen 127.0.0.1:{{port}} ssl; server_name locked.test; ssl_password_file passwords; @{[ $pair->('locked') ]} }
    server { listen 127.0.0.1:{{port}} ssl; server_name data.test; ssl_certificate "data:$pem"; ssl_certificate_key certs/first.key; }
    server { listen 127.0.0.1:{{port}} ssl; server_name eager.test; ssl_certificate_load eager; @{[ $pair->('two') ]} }
    server { listen 127.0.0.1:{{port}} ssl; server_name stapled.test; ssl_stapling on; ssl_trusted_certificate certs/ca.only; @{[ $pair->('stapled') ]} }
    server { listen 127.0.0.1:{{port}} ssl; server_name inherits.test; ssl_protocols TLSv1.2; @{[ $pair->('rsa') ]} }
    $more
}
EOT
};
my $faulty = join '', map { "server { listen 127.0.0.1:{{port}} ssl; server_name $_->[0].test; $_->[1] }\n" }
    ['rubbish', $pair->('rubbish', 'one')], ['odd', $pair->('odd')], ['unlocked', $pair->('locked')];
$p->write_conf($conf->($faulty));
$p->expect_log(qr/cannot load certificate|SSL_CTX_use_PrivateKey|stapl|OCSP|requesting certificate status|configuration/);
$p->start;

sub shown {
    my ($name, %o) = @_;
    my $c = $certs->connect($p->port('main'), name => $name, %o) or return 'none';
    my $cn = $c->sock->peer_certificate('cn');
    $c->close;
    return $cn;
}
for my $round (1 .. 3) {
    for (
        ['', 'one'], ['again.test', 'one'], ['two.test', 'two'], ['both.test', 'rsa', %rsa], ['both.test', 'two', %ec],
        ['locked.test', 'locked'], ['data.test', 'one'], ['eager.test', 'two'], ['stapled.test', 'stapled'], ['inherits.test', 'rsa'],
        ['rubbish.test', 'none'], ['odd.test', 'none'], ['unlocked.test', 'none'],
    ) {
        my ($name, $want, %o) = @$_;
        is shown($name, %o), $want, "round $round: \"$name\"" . (%o ? " $o{ciphers}" : '');
    }
}
my $said = qr/in \Q$dir\E\/proxyd\.conf:\d+ \(by "ssl_certificate_load lazy"; "proxyd -t" checks all certificates\) while SSL handshaking, client/;
like $p->error_log, qr/\[error\] .*cannot load certificate "\Q$dir\E\/certs\/rubbish\.crt": PEM_read_bio_X509_AUX\(\) failed \(SSL: .*\) $said/, 'log: rubbish';
like $p->error_log, qr/\[error\] .*SSL_CTX_use_PrivateKey\("\Q$dir\E\/certs\/odd\.key"\) failed \(SSL: error:[^)]*mismatch\) in \Q$dir\E\/proxyd\.conf:\d+ while/, 'log: a key of another';
like $p->error_log, qr/cannot load certificate key "\Q$dir\E\/certs\/locked\.key": PEM_read_bio_PrivateKey\(\) failed \(SSL: .*\) $said/, 'log: a locked key';

# a connection that has begun before the first handshake of its server was over
{
    my $q = Proxyd->new;
    Proxyd::Certs::run('cp', '-r', "$dir/certs", $q->dir);
    $q->write_conf('worker_processes 1; http { ssl_certificate_load lazy; server { listen 127.0.0.1:{{port}} ssl; ' . $pair->('two')
        . ' } server { listen 127.0.0.1:{{port:three}} ssl; ' . $pair->('two') . $pair->('rsa') . ' } }');
    $q->start;
    for my $port ('main', 'three') {
        my $ctx = Net::SSLeay::CTX_new();
        my $ssl = Net::SSLeay::new($ctx);
        my ($in, $out) = map { Net::SSLeay::BIO_new(Net::SSLeay::BIO_s_mem()) } 1, 2;
        Net::SSLeay::set_bio($ssl, $in, $out);
        Net::SSLeay::connect($ssl);
        my $hello = Net::SSLeay::BIO_read($out);
        my $sock  = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $q->port($port)) or die $!;
        syswrite $sock, substr $hello, 0, 20;
        # that one is certain to come after it: the only worker has served it
        for (1 .. 3) { my $c = $certs->connect($q->port($port)) or die $@; $c->close }
        syswrite $sock, substr $hello, 20;
        sysread $sock, my $answer, 1;
        is unpack('C', $answer), 22, "late: $port: a connection from before";
        close $sock;
    }
    $q->stop;
}

# sessions are good across workers and a reload, and only where the same is shown
my ($how) = $certs->s_client($p->port('main'), '/', session => 's', name => 'two.test', version => '-tls1_2');
is $how, 'New', 'a session';
$p->reload;
($how) = $certs->s_client($p->port('main'), '/', session => 's', name => 'two.test', version => '-tls1_2', keep => 1);
is $how, 'Reused', 'a session: after a reload';
($how) = $certs->s_client($p->port('main'), '/', session => 's', name => 'again.test', version => '-tls1_2', keep => 1);
is $how, 'New', 'a session: not elsewhere';

# a new file is read at a reload
$certs->make('one', subject => '/CN=newer');
chmod 0600, $certs->path('one.key') if $root;
is shown(''), 'one', 'a new file: not yet';
$p->reload;
is shown(''), 'newer', 'a new file: at a reload';

# --- -t reads all of them; what is not there is found at the start ------------------------------------

my $run = $p->run(add => ['-t']);
is $run->{status}, 1, '-t';
for my $what ('cannot load certificate "DIR/certs/rubbish.crt": PEM_read_bio_X509_AUX\(\) failed') {
    my $re = $what =~ s/DIR/\Q$dir\E/r;
    like $run->{err}, qr/\[emerg\] $re/, '-t: finds it';
}
for (
    ['ssl_certificate certs/none.crt; ssl_certificate_key certs/one.key;', qr/\[emerg\] cannot load certificate "DIR\/certs\/none\.crt": it cannot be read \(2: No such file or directory\) in DIR\/proxyd\.conf:\d+/],
    ['ssl_certificate certs/one.crt; ssl_certificate_key certs/none.key;', qr/\[emerg\] cannot load certificate key "DIR\/certs\/none\.key": it cannot be read \(2: No such file or directory\) in/],
    ['ssl_certificate certs/one.crt; ssl_certificate_key certs/dir.key;', qr/\[emerg\] cannot load certificate key "DIR\/certs\/dir\.key": it cannot be read \(21: Is a directory\) in/],
    ['ssl_certificate /dev/null; ssl_certificate_key certs/one.key;', qr/\[emerg\] cannot load certificate "\/dev\/null": "ssl_certificate_load lazy" needs a regular file in/],
    ['ssl_certificate_watch on; ' . $pair->('one'), qr/\[emerg\] "ssl_certificate_load lazy" and "ssl_certificate_watch" cannot be combined yet in/],
) {
    my ($text, $want) = @$_;
    my $q = Proxyd->new;
    Proxyd::Certs::run('cp', '-r', "$dir/certs", $q->dir);
    mkdir $q->dir . '/certs/dir.key';
    $q->write_conf("http { ssl_certificate_load lazy; server { listen 127.0.0.1:{{port}} ssl;\n$text } }");
    my $err = $q->run->{err};
    my $other = $q->dir;
    $err =~ s/\Q$other\E/DIR/g;
    like $err, $want, "at the start: $text";
}
$p->stop;

# --- many: by threads --------------------------------------------------------------------------------

my $many = Proxyd->new;
Proxyd::Certs::run("$FindBin::Bin/../scripts/make-certificates", $many->dir . '/many', 150, 'ec', $many->port('main'));
$many->expect_log(qr/cannot load certificate/);
my $locked = Proxyd::Certs->new($many->dir . '/certs');
$locked->make('locked', password => 'secret');
$many->write_file('passwords', "secret\n");
for my $load ('eager', 'lazy') {
    my $text = "http { ssl_certificate_load $load; include many/*.conf; server { listen 127.0.0.1:{{port}} ssl; server_name locked.test;"
        . " ssl_password_file passwords; ssl_certificate certs/locked.crt; ssl_certificate_key certs/locked.key; } }";
    $many->write_file('many/servers.conf', $many->expand(join '', map {
        "server { listen 127.0.0.1:{{port}} ssl; server_name n$_.test; ssl_certificate many/$_.crt; ssl_certificate_key many/$_.key; }\n" } 0 .. 149));
    $many->write_conf($text);
    $load eq 'eager' ? $many->start : $many->reload;
    my $wrong = 0;
    for my $name ((map { "n$_.test" } grep { $_ % 7 == 0 } 0 .. 149), 'locked.test') {
        my $c = $certs->connect($many->port('main'), name => $name);
        my $cn = $c ? $c->sock->peer_certificate('cn') : "none";
        $c->close if $c;
        $wrong++ if $cn ne $name && $cn ne 'locked';
    }
    is $wrong, 0, "many: $load";
    $many->reload;
    my $c = $certs->connect($many->port('main'), name => 'n99.test');
    is $c->sock->peer_certificate('cn'), 'n99.test', "many: $load: after a reload";
    $c->close;
    if ($load eq 'eager') {
        $many->write_file('many/78.crt', "rubbish\n");
        my $run = $many->run(add => ['-t']);
        like $run->{err}, qr/\[emerg\] cannot load certificate "[^"]*many\/78\.crt": PEM_read_bio_X509_AUX\(\) failed \(SSL: .*\) in [^ ]*servers\.conf:79/, 'many: a broken one is named';
        unlike $run->{err}, qr/test is successful/, 'many: and not let through';
        Proxyd::Certs::run('cp', $many->dir . '/many/77.crt', $many->dir . '/many/78.crt');
    }
}
$many->stop;
done_testing;
