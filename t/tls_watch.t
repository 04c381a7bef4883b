# SPDX-License-Identifier: BSD-2-Clause
#
# ssl_certificate_watch: files of certificates and keys that are replaced in each of the ways in which people and programs do that,
# and those that are not fit to be served; by workers that may not read them, new workers, and with stapling.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/lib";
use File::Path qw(make_path);
use MIME::Base64;
use Test::More;
use Proxyd;
use Proxyd::Certs;
use Proxyd::Watched qw(watch_of shown becomes looked replace lines);

my $p     = Proxyd->new;
my $certs = Proxyd::Certs->new($p->dir . '/certs');
watch_of($p, $certs);
my $dir   = $p->dir;
my $responder = $p->port('responder');
my $aia = "authorityInfoAccess=OCSP;URI:http://127.0.0.1:$responder";
$certs->make($_) for qw(one two three);
$certs->make('rsa', key => 'rsa');
$certs->make("locked$_", password => 'secret') for 1, 2;
$certs->make("staple$_", ext => "$aia/x") for 1, 2;
$certs->make('staple3', ext => "$aia/elsewhere");
$certs->make('middle', ca => 1, by => 'ca');
$certs->make('deep', by => 'middle');
$p->write_file('passwords', "secret\n");
$certs->{dir} eq "$dir/certs" or die;

sub copy { Proxyd::Certs::run('cp', @_) }
# NAME's files come into being as those of CERT.
sub lay {
    my ($name, $cert) = @_;
    copy($certs->path("$cert.$_"), $certs->path("$name.$_")) for qw(key crt);
}
my $bad   = 11; # servers for what is not fit
my @plain = (qw(rename inplace type chain off shared slow clock both single respawn), map { "bad$_" } 0 .. $bad - 1);
lay($_, 'one') for @plain;
lay('locked', 'locked1');
lay('stapled', 'staple1');
make_path("$dir/certs/live", "$dir/certs/..1", "$dir/certs/archive");
for my $n (qw(crt key)) {
    copy($certs->path("one.$n"), "$dir/certs/archive/1.$n");
    symlink "../archive/1.$n", "$dir/certs/live/link.$n" or die $!;
    copy($certs->path("one.$n"), "$dir/certs/..1/k8s.$n");
    symlink "..data/k8s.$n", "$dir/certs/k8s.$n" or die $!;
}
symlink '..1', "$dir/certs/..data" or die $!;
# Only the master may read them.
my $root = $> == 0;
chmod 0600, glob("$dir/certs/*.key $dir/certs/*/*.key $dir/certs/..1/*.key") if $root;
chmod 0644, map { $certs->path("$_.key") } qw(one rsa); # names with variables are the workers' own business

my $servers = '';
for my $name (@plain, 'live/link', 'k8s') {
    my $watch = $name eq 'off' ? 'off' : 'on';
    (my $port = $name) =~ s{.*/}{};
    $servers .= "server { listen 127.0.0.1:{{port:$port}} ssl; ssl_certificate_watch $watch; ssl_certificate certs/$name.crt;"
        . " ssl_certificate_key certs/$name.key; return 200 \"\$pid \$ssl_session_reused\"; }\n";
}
$p->write_conf(<<"EOT");
worker_processes 2;
@{[ $root ? 'user nobody nogroup;' : '' ]}
http {
    $servers
    server { listen 127.0.0.1:{{port:again}} ssl; ssl_certificate_watch on; ssl_certificate certs/shared.crt; ssl_certificate_key certs/shared.key; return 200 again; }
    server { listen 127.0.0.1:{{port:pair}} ssl; ssl_certificate_watch on;
        ssl_certificate certs/both.crt; ssl_certificate_key certs/both.key;
        ssl_certificate certs/rsa.crt; ssl_certificate_key certs/rsa.key; return 200 pair; }
    server { listen 127.0.0.1:{{port:locked}} ssl; ssl_certificate_watch on; ssl_password_file passwords;
        ssl_certificate certs/locked.crt; ssl_certificate_key certs/locked.key; return 200 locked; }
    server { listen 127.0.0.1:{{port:stapled}} ssl; ssl_certificate_watch on; ssl_stapling on; ssl_trusted_certificate certs/ca.only;
        ssl_certificate certs/stapled.crt; ssl_certificate_key certs/stapled.key; return 200 stapled; }
    server { listen 127.0.0.1:{{port:mixed}} ssl; ssl_certificate_watch on;
        ssl_certificate certs/clock.crt; ssl_certificate_key certs/clock.key;
        ssl_certificate certs/\$ssl_server_name.crt; ssl_certificate_key certs/\$ssl_server_name.key; return 200 mixed; }
}
EOT
my %status = map { ("staple$_" => 'V') } 1 .. 3;
my $origin = $p->origin('responder', sub {
    my ($c) = @_;
    my $req = $c->request or return;
    my ($base64) = $req->{uri} =~ m{^/\w+/(.+)$} or return;
    $base64 =~ s/%([0-9A-F]{2})/chr hex $1/ge;
    my $file = "$dir/request.$c->{n}";
    open my $fh, '>', $file or die;
    print $fh decode_base64($base64);
    close $fh;
    $c->write("HTTP/1.1 200 OK\r\nContent-Type: application/ocsp-response\r\n\r\n" . $certs->ocsp_answer('ca', $file, status => \%status));
});
$p->expect_log(qr/certificate "[^"]*" has changed, but cannot be used|nothing is stapled to the new certificate|cannot load certificate key/);
$p->start;

sub write_in_place {
    my ($name, $text, $which) = @_;
    open my $fh, '+<', $certs->path("$name.$which") or die $!;
    truncate $fh, 0;
    print $fh $text;
    close $fh;
}

# What is published is the master's alone to write.
SKIP: {
    skip 'of the super-user only', 1 if !$root;
    my $maps = sub {
        my ($pid) = @_;
        open my $fh, '<', "/proc/$pid/smaps" or die $!;
        my ($in, %seen);
        while (<$fh>) {
            $in = $1 if /^[0-9a-f]+-[0-9a-f]+ (\S+)/;
            $in = '' if /^[0-9a-f]+-/ && !/memfd:proxyd-pairs/;
            $seen{$in . (/ mw\b/ ? ' may be written' : '')}++ if $in && /^VmFlags:/;
        }
        return join ', ', sort keys %seen;
    };
    is $maps->($p->master), 'rw-s may be written', 'the master writes';
    is $maps->($_), 'r--s', 'a worker reads' for $p->workers;
    is scalar(grep { (readlink($_) // '') =~ /proxyd-pairs/ } map { glob "/proc/$_/fd/*" } $p->workers), 0, 'and has nothing to open it by';
}

# --- the ways of replacing -------------------------------------------------------------------------

is shown($_), 'one', "$_: at first" for qw(rename inplace type chain off bad0 shared again link k8s);
is lines(qr/was replaced/), 0, 'nothing has been replaced';
replace('rename', 'two');
becomes('rename', 'two', 'by a rename');
replace('rename', 'three');
becomes('rename', 'three', 'by another');
replace('rename', 'one');
becomes('rename', 'one', 'back again');
for my $n (qw(crt key)) {
    copy($certs->path("two.$n"), "$dir/certs/archive/2.$n");
    symlink "../archive/2.$n", "$dir/certs/live/new" or die $!;
    rename "$dir/certs/live/new", "$dir/certs/live/link.$n" or die $!;
}
becomes('link', 'two', 'by links, as certbot does');
mkdir "$dir/certs/..2";
copy($certs->path("two.$_"), "$dir/certs/..2/k8s.$_") for qw(crt key);
symlink '..2', "$dir/certs/..data_tmp" or die $!;
rename "$dir/certs/..data_tmp", "$dir/certs/..data" or die $!;
becomes('k8s', 'two', 'by a link of the folder, as Kubernetes does');
write_in_place('inplace', Proxyd::Certs::slurp($certs->path("two.$_")), $_) for qw(crt key);
becomes('inplace', 'two', 'in place');
replace('type', 'rsa');
becomes('type', 'rsa', 'by one with a key of another type');
like shown('type', version => 'TLSv12', ciphers => 'ECDHE-ECDSA-AES128-GCM-SHA256'), qr/^none$/, 'which leaves nothing of the old one';
replace('chain', 'deep');
becomes('chain', 'deep', 'with a chain');
{
    my $out = `openssl s_client -showcerts -connect 127.0.0.1:@{[ $p->port('chain') ]} </dev/null 2>/dev/null`;
    is scalar(() = $out =~ /BEGIN CERTIFICATE/g), 2, 'the chain is sent';
}
replace('locked', 'locked2');
becomes('locked', 'locked2', 'with a password');
replace('shared', 'two');
becomes($_, 'two', "two servers: $_") for qw(shared again);
my %rsa = (version => 'TLSv12', ciphers => 'ECDHE-RSA-AES128-GCM-SHA256');
my %ec  = (version => 'TLSv12', ciphers => 'ECDHE-ECDSA-AES128-GCM-SHA256');
replace('both', 'two');
becomes('pair', 'two', 'one of two', %ec);
is shown('pair', %rsa), 'rsa', 'the other stays';
is shown('mixed', name => 'rsa', %rsa), 'rsa', 'beside a name with variables';
replace('off', 'two');
looked();
is shown('off'), 'one', 'not where it is off';
is shown('mixed', name => 'one', %ec), 'one', 'variables come last';
utime undef, undef, $certs->path('rename.crt');
my $replaced = lines(qr{"\Q$dir\E/certs/rename.crt" was replaced});
looked();
is lines(qr{"\Q$dir\E/certs/rename.crt" was replaced}), $replaced, 'a new time is no new content';

# --- what is not fit ------------------------------------------------------------------------------

# Each on a server of its own.
my $says = qr/\[error\] .*certificate "\Q$dir\E\/certs\/bad\d+\.crt" has changed, but cannot be used: /;
my $pem  = Proxyd::Certs::slurp($certs->path('two.crt'));
my @bad = (
    ['half of it',      sub { write_in_place($_[0], substr($pem, 0, 300), 'crt') }, 'crt', qr/PEM_read_bio_X509_AUX\(\) failed/],
    ['nearly all',      sub { write_in_place($_[0], substr($pem, 0, -10), 'crt') }, 'crt', qr/PEM_read_bio_X509_AUX\(\) failed/],
    ['nothing',         sub { write_in_place($_[0], '', 'crt') }, 'crt', qr/PEM_read_bio_X509_AUX\(\) failed/],
    ['not there',       sub { unlink $certs->path("$_[0].crt") }, 'crt', qr/No such file or directory/],
    ['without its key', sub { replace($_[0], 'two', 'crt') }, 'key', qr/it is not the certificate's key/],
    ['no key',          sub { unlink $certs->path("$_[0].key") }, 'key', qr/No such file or directory/],
    ['a broken key',    sub { $p->write_file("certs/$_[0].key", "-----BEGIN PRIVATE KEY-----\nx") }, 'key', qr/PEM_read_bio_PrivateKey\(\) failed/],
    ['a locked key',    sub { replace($_[0], 'locked1') }, 'key', qr/PEM_read_bio_PrivateKey\(\) failed/],
    ['too much',        sub { $p->write_file("certs/$_[0].crt", $pem . ('#' x 100_000) . "\n") }, 'crt', qr/too large/],
    ['a folder',        sub { unlink $certs->path("$_[0].crt"); mkdir $certs->path("$_[0].crt") }, 'crt', qr/not a regular file/],
    ['a pipe',          sub { unlink $certs->path("$_[0].crt"); POSIX::mkfifo($certs->path("$_[0].crt"), 0600) }, 'crt', qr/not a regular file/],
);
@bad == $bad or die;
$bad[$_][1]->("bad$_") for 0 .. $#bad;
for (0 .. $#bad) {
    my ($what, undef, $which, $why) = @{ $bad[$_] };
    ok $p->wait_log(qr{\[error\] .*certificate "\Q$dir\E/certs/bad$_\.crt" has changed, but cannot be used: "\Q$dir\E/certs/bad$_\.$which": $why}), "unfit: $what: logged";
    is shown("bad$_"), 'one', "unfit: $what: the old one is kept";
}
looked();
is lines($says), scalar @bad, 'unfit: once for each state';
like $p->error_log, qr/$says.*; the one before it stays in force, for "ssl_certificate" in \Q$dir\E\/proxyd\.conf:\d+$/m, 'unfit: the directive';
unlike $p->error_log, qr/BEGIN/, 'unfit: no content';
write_in_place('bad0', substr($pem, 0, 310), 'crt');
ok $p->wait_for(sub { lines($says) == @bad + 1 }), 'unfit: in another way';
replace('bad0', 'three');
becomes('bad0', 'three', 'unfit: and then fit');
for (map { "bad$_" } 1 .. $#bad) { # a reload is as strict as ever
    rmdir $certs->path("$_.crt");
    replace($_, 'one');
}
# what was before, while something unfit was there
replace('slow', 'two', 'crt');
ok $p->wait_log(qr{certs/slow\.crt" has changed, but}), 'half a change';
replace('slow', 'one', 'crt');
looked();
is shown('slow'), 'one', 'and back';

# --- sessions, workers, configurations ---------------------------------------------------------------

my ($how) = $certs->s_client($p->port('rename'), '/', session => 's', name => 'x', version => '-tls1_2');
is $how, 'New', 'a session';
replace('rename', 'three');
becomes('rename', 'three', 'a session: replaced');
($how) = $certs->s_client($p->port('rename'), '/', session => 's', name => 'x', version => '-tls1_2');
is $how, 'Reused', 'a session: goes on';
($how) = $certs->s_client($p->port('inplace'), '/', session => 's', name => 'x', version => '-tls1_2');
isnt $how, 'Reused', 'a session: not with other files';

my @old = $p->workers($p->master);
$p->expect_log(qr/exited on signal 9/);
replace('respawn', 'two');
becomes('respawn', 'two', 'a worker dies');
kill KILL => @old;
ok $p->wait_for(sub { my @new = $p->workers($p->master); return @new == 2 && !grep { my $w = $_; grep { $w == $_ } @old } @new }), 'others come';
becomes('respawn', 'two', 'which have what is new');
is shown('off'), 'one', 'and nothing else';
$p->reload;
becomes($_, 'two', "reload: $_") for qw(respawn off inplace);
replace('respawn', 'three');
becomes('respawn', 'three', 'reload: and it goes on');

# --- stapling --------------------------------------------------------------------------------------

sub stapled {
    my $out = `openssl s_client -status -connect 127.0.0.1:@{[ $p->port('stapled') ]} </dev/null 2>/dev/null`;
    my ($subject) = $out =~ /^subject=.*?CN ?= ?(\w+)/m;
    my ($serial) = $out =~ /Serial Number: (\w+)/;
    return "$subject " . ($serial // 'none');
}
sub serial { return `openssl x509 -noout -serial -in @{[ $certs->path("$_[0].only") ]}` =~ s/serial=|\s//gr }
ok $p->wait_for(sub { stapled() eq 'staple1 ' . serial('staple1') }), 'stapled' or diag stapled();
replace('stapled', 'staple2');
my %seen;
ok $p->wait_for(sub { my $s = stapled(); $seen{$s}++; return $s eq 'staple2 ' . serial('staple2') }, 20), 'stapled: to the new one' or diag explain \%seen;
is_deeply [grep { !/^(\w+) none$/ && $_ ne "staple1 " . serial('staple1') && $_ ne "staple2 " . serial('staple2') } keys %seen], [], 'stapled: each its own';
replace('stapled', 'staple3');
becomes('stapled', 'staple3', 'stapled: one with another responder');
ok $p->wait_log(qr/\[warn\] .*nothing is stapled to the new certificate "\Q$dir\E\/certs\/stapled\.crt" until a reload: its responder is another one/), 'stapled: said';
is stapled(), 'staple3 none', 'stapled: nothing';
$p->reload;
ok $p->wait_for(sub { stapled() eq 'staple3 ' . serial('staple3') }, 20), 'stapled: after a reload';

# --- without a master --------------------------------------------------------------

my $q = Proxyd->new;
$q->write_conf("master_process off;\nhttp { ssl_certificate_watch on; server { listen 127.0.0.1:{{port}} ssl; ssl_certificate $dir/certs/single.crt;"
    . " ssl_certificate_key $dir/certs/single.key; return 200 x; } }");
$q->start;
sub single { return $certs->shown($q->port('main')) }
is single(), 'one', 'a single process';
replace('single', 'two');
ok $q->wait_for(sub { single() eq 'two' }, 20), 'a single process looks, too';
$q->stop;

# --- many at once: some in each of the master's turns --------------------------------------------------

my $many = Proxyd->new;
mkdir $many->dir . '/many';
sub lay_many { my ($cert) = @_; for my $n (0 .. 99) { copy($certs->path("$cert.$_"), $many->dir . "/many/$n.$_") for qw(crt key) } }
lay_many('one');
$many->write_conf('worker_processes 1; http { ssl_certificate_watch on; server_names_hash_max_size 4096; ' . join('', map {
    "server { listen 127.0.0.1:{{port}} ssl; server_name n$_.test; ssl_certificate many/$_.crt; ssl_certificate_key many/$_.key; }\n" } 0 .. 99) . '}');
$many->expect_log(qr/has changed, but cannot be used/); # half of a pair, on a slow machine
$many->start;
lay_many('two');
ok $many->wait_for(sub { 100 == grep { /was replaced/ } split /\n/, $many->error_log }, 30), 'many: all are replaced';
is scalar(grep {
    my $c = $certs->connect($many->port('main'), name => "n$_.test");
    my $cn = $c ? $c->sock->peer_certificate('cn') : 'none';
    $c->close if $c;
    $cn ne 'two';
} 0 .. 99), 0, 'many: and shown';
$many->stop;
$p->stop;
done_testing;
