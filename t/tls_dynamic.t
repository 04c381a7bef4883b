# SPDX-License-Identifier: BSD-2-Clause
#
# Certificates whose names hold variables, at both ends: which one is shown, what is said when it cannot be loaded, what
# ssl_certificate_cache keeps and for how long, sessions, and who may use a kept connection to a server.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/lib";
use Test::More;
use Proxyd;
use Proxyd::Certs;

my $p     = Proxyd->new;
my $certs = Proxyd::Certs->new($p->dir . '/certs');
$certs->make($_, names => [$_]) for qw(a.test b.test c.test one two turn hit first second);
$certs->make("rsa-$_", key => 'rsa') for qw(a.test b.test);
$certs->make('locked', password => 'second');
$certs->make("client$_", subject => "/CN=client$_") for 1, 2;
$certs->make('stranger', by => 'self');
$p->write_file('passwords', "first\nsecond\n");
$p->write_file('certs/x.test.crt', "not a certificate\n");
my %pem = map { $_ => Proxyd::Certs::slurp($certs->path("one.$_")) } qw(crt key);
mkdir $p->dir . '/certs/dir.crt';
{
    open my $fh, '>', $p->dir . '/certs/huge.crt' or die $!;
    truncate $fh, 1024 * 1024 + 1;
}
POSIX::mkfifo($certs->path('pipe.crt'), 0644);
Proxyd::Certs::run('cp', $certs->path('b.test.key'), $certs->path('odd.key'));
Proxyd::Certs::run('cp', $certs->path('a.test.crt'), $certs->path('odd.crt'));

my $ssl  = 'listen 127.0.0.1';
my $both = 'ssl_certificate certs/$ssl_server_name.crt; ssl_certificate_key certs/$ssl_server_name.key;';
$p->write_conf(<<"EOT");
worker_processes 1;
http {
    map \$ssl_server_name \$file { a.test a.test; up.test ../certs/a.test; rel.test certs/a.test; default ''; abs.test {{dir}}/certs/a.test; }
    map \$ssl_server_name \$pem { data.test "data:$pem{crt}"; default "data:rubbish"; }
    map \$ssl_server_name \$pem_key { data.test "data:$pem{key}"; default "data:secret"; }
    map \$ssl_server_name \$raw { data.test "$pem{crt}"; }
    map \$ssl_server_name \$raw_key { data.test "$pem{key}"; }
    map \$ssl_server_name \$kind { default one; two.test two; }
    server {
        $ssl:{{port}} ssl;
        $both
        location / { return 200 "\$ssl_server_name \$ssl_session_reused \$connection_requests"; }
    }
    server { $ssl:{{port:named}} ssl; server_name ~^(www\\.)?(?<domain>.+)\$; $both return 200 "\$server_name"; }
    server { $ssl:{{port:two}} ssl;
        ssl_certificate certs/\$ssl_server_name.crt; ssl_certificate_key certs/\$ssl_server_name.key;
        ssl_certificate certs/rsa-\$ssl_server_name.crt; ssl_certificate_key certs/rsa-\$ssl_server_name.key; return 200 two; }
    server { $ssl:{{port:mixed}} ssl;
        ssl_certificate certs/rsa-a.test.crt; ssl_certificate_key certs/rsa-a.test.key;
        ssl_certificate certs/\$ssl_server_name.crt; ssl_certificate_key certs/\$ssl_server_name.key; return 200 mixed; }
    server { $ssl:{{port:half}} ssl; ssl_certificate certs/b.test.crt; ssl_certificate_key certs/\$ssl_server_name.key; return 200 half; }
    server { $ssl:{{port:map}} ssl; ssl_certificate \$file.crt; ssl_certificate_key \$file.key; return 200 map; }
    server { $ssl:{{port:empty}} ssl; ssl_certificate \$file; ssl_certificate_key \$file; return 200 empty; }
    server { $ssl:{{port:upwards}} ssl; ssl_certificate certs/../certs/\$ssl_server_name.crt; ssl_certificate_key certs/../certs/\$ssl_server_name.key; return 200 up; }
    server { $ssl:{{port:pem}} ssl; ssl_certificate \$pem; ssl_certificate_key \$pem_key; return 200 pem; }
    server { $ssl:{{port:data}} ssl; ssl_certificate data:\$raw; ssl_certificate_key data:\$raw_key; return 200 data; }
    server { $ssl:{{port:addr}} ssl; ssl_certificate certs/\$kind.crt; ssl_certificate_key certs/\$kind.key;
        ssl_certificate_cache off; return 200 "\$remote_addr"; }
    server { $ssl:{{port:locked}} ssl; ssl_password_file passwords; ssl_certificate certs/\$ssl_server_name.crt;
        ssl_certificate_key certs/\$ssl_server_name.key; ssl_certificate_cache max=3; return 200 locked; }
    server { $ssl:{{port:unlocked}} ssl; ssl_certificate certs/\$ssl_server_name.crt; ssl_certificate_key certs/\$ssl_server_name.key;
        ssl_certificate_cache max=3; return 200 unlocked; }
    server { $ssl:{{port:verify}} ssl; $both ssl_verify_client on; ssl_client_certificate certs/ca.crt; return 200 "\$ssl_client_s_dn"; }
    server { $ssl:{{port:kept}} ssl; $both ssl_certificate_cache max=4 valid=1h inactive=1h; return 200 kept; }
    server { $ssl:{{port:checked}} ssl; $both ssl_certificate_cache max=4 valid=0s; return 200 checked; }
    server { $ssl:{{port:idle}} ssl; $both ssl_certificate_cache max=4 inactive=0s valid=1h; return 200 idle; }
    server { $ssl:{{port:small}} ssl; $both ssl_certificate_cache max=2 valid=1h inactive=1h; return 200 small; }
    server { $ssl:{{port:uneven}} ssl; ssl_certificate certs/\$ssl_server_name.crt; ssl_certificate_key certs/uneven.key;
        ssl_certificate_cache max=4 valid=1h inactive=1h; return 200 uneven; }
    server { $ssl:{{port:session}} ssl; $both ssl_session_tickets off; ssl_session_cache shared:s:1m; return 200 "\$ssl_session_reused"; }

    # the server's end of what is passed on
    server { $ssl:{{port:origin}} ssl; ssl_certificate certs/one.crt; ssl_certificate_key certs/one.key;
        ssl_client_certificate certs/ca.crt; ssl_verify_client optional; keepalive_timeout 60s;
        location / { return 200 "\$ssl_client_s_dn \$ssl_client_verify \$connection \$ssl_session_reused"; } }
    upstream kept { server 127.0.0.1:{{port:origin}}; keepalive 8; }
    server { listen 127.0.0.1:{{port:plain}};
        proxy_http_version 1.1; proxy_set_header Connection "";
        proxy_ssl_certificate certs/\$arg_c.crt; proxy_ssl_certificate_key certs/\$arg_c.key;
        location /kept { proxy_pass https://kept; }
        location /each { proxy_pass https://127.0.0.1:{{port:origin}}; }
        location /cached { proxy_pass https://127.0.0.1:{{port:origin}}; proxy_ssl_certificate_cache max=2 valid=1h inactive=1h; }
        location /locked { proxy_pass https://127.0.0.1:{{port:origin}}; proxy_ssl_password_file passwords; }
        location /maybe { proxy_pass https://127.0.0.1:{{port:origin}}; proxy_ssl_certificate \$arg_c; proxy_ssl_certificate_key \$arg_c; }
        location /literal { proxy_pass https://kept; proxy_ssl_certificate certs/client1.crt; proxy_ssl_certificate_key certs/client1.key; }
        location /anew { proxy_pass https://127.0.0.1:{{port:origin}}; proxy_set_header Connection close; }
        location /none { proxy_pass https://kept; proxy_ssl_certificate ''; }
    }
}
EOT
$p->expect_log(qr/cannot load certificate|SSL_use_PrivateKey|while SSL handshaking to upstream/);
$p->start;

# The subject of what is shown: get(PORT, name => ..., rest as for connect).
sub shown { my ($port, %o) = @_; return $certs->shown($p->port($port), %o) }

# --- which one -------------------------------------------------------------------------------------

my %rsa = (version => 'TLSv12', ciphers => 'ECDHE-RSA-AES128-GCM-SHA256');
my %ec  = (version => 'TLSv12', ciphers => 'ECDHE-ECDSA-AES128-GCM-SHA256');
for (
    ['main',    'a.test', 'a.test'],
    ['main',    'b.test', 'b.test'],
    ['main',    'c.test', 'c.test'],
    ['main',    'C.Test', 'none'],     # the name is as the client writes it
    ['main',    'd.test', 'none'],
    ['main',    '',       'none'],
    ['named',   'a.test', 'a.test'],
    ['two',     'a.test', 'rsa-a.test', %rsa],
    ['two',     'a.test', 'a.test', %ec],
    ['two',     'b.test', 'rsa-b.test', %rsa],
    ['two',     'c.test', 'none', %ec], # one of the two is missing
    ['mixed',   'b.test', 'rsa-a.test', %rsa],
    ['mixed',   'b.test', 'b.test', %ec],
    ['half',    'b.test', 'b.test'],
    ['half',    'a.test', 'none'],
    ['map',     'a.test', 'none'],     # a relative name is below the configuration's folder
    ['map',     'rel.test', 'a.test'],
    ['map',     'abs.test', 'a.test'],
    ['map',     'up.test', 'none'],
    ['empty',   'none.test', 'none'],
    ['upwards', 'a.test', 'a.test'],
    ['pem',     'data.test', 'one'],
    ['data',    'data.test', 'one'],
    ['pem',     'other.test', 'none'],
    ['addr',    'one.test', 'one'],
    ['addr',    'two.test', 'two'],
    ['addr',    '',         'one'],
    ['locked',  'locked', 'locked'],
    ['locked',  'locked', 'locked'],
    ['locked',  'a.test', 'a.test'],
    ['unlocked', 'locked', 'none'],    # nobody is asked for a password
    ['main',    'x.test', 'none'],
    ['main',    'odd',    'none'],
    ['main',    'dir',    'none'],
    ['main',    'pipe',   'none'],
    ['main',    'huge',   'none'],
) {
    my ($port, $name, $want, %o) = @$_;
    is shown($port, name => $name, %o), $want, "$port: \"$name\"" . (%o ? " $o{ciphers}" : '');
}
is shown('main', name => 'a.test'), 'a.test', 'and goes on';
is $certs->get($p->port('main'), '/', name => 'b.test')->body, 'b.test . 1', 'a request';
is $certs->get($p->port('verify'), '/', name => 'b.test', cert => 'client1')->body, 'CN=client1', 'with a client certificate';

my $dir = $p->dir;
my $no  = qr/\(SSL: error:80000002:system library::No such file or directory:calling fopen\(\Q$dir\E\/certs\/d\.test\.crt, r\) error:10000080:BIO routines::no such file\)/;
for (
    ['a file that is not there', qr/\[error\] .*\*\d+ cannot load certificate "\Q$dir\E\/certs\/d\.test\.crt": BIO_new_file\(\) failed $no while SSL handshaking, client: 127\.0\.0\.1, server: 127\.0\.0\.1:\d+/],
    ['the handshake\'s own line', qr/\[info\] .*SSL_do_handshake\(\) failed \(SSL: error:0A000179:SSL routines::cert cb error\) while SSL handshaking/],
    ['an empty name',            qr/\[error\] .*cannot load certificate "": the variables leave it empty in \Q$dir\E\/proxyd\.conf:\d+ while SSL handshaking/],
    ['without a server name',    qr/cannot load certificate "\Q$dir\E\/certs\/\.crt": BIO_new_file\(\) failed/],
    ['upwards',                  qr/\[error\] .*cannot load certificate "\.\.\/certs\/a\.test\.crt": the variables lead upwards by "\.\." in \Q$dir\E\/proxyd\.conf:\d+/],
    ['rubbish',                  qr/cannot load certificate "\Q$dir\E\/certs\/x\.test\.crt": PEM_read_bio_X509_AUX\(\) failed \(SSL: error:0480006C:PEM routines::no start line/],
    ['a key of another',         qr/\[error\] .*SSL_use_PrivateKey\("\Q$dir\E\/certs\/odd\.key"\) failed \(SSL: error:05800074:x509 certificate routines::key values mismatch\)/],
    ['a locked key',             qr/cannot load certificate key "\Q$dir\E\/certs\/locked\.key": PEM_read_bio_PrivateKey\(\) failed \(SSL: /],
    ['a pipe',                   qr/cannot load certificate "\Q$dir\E\/certs\/pipe\.crt": it is not a regular file/],
    ['a huge file',              qr/cannot load certificate "\Q$dir\E\/certs\/huge\.crt": it is too large/],
    ['data',                     qr/cannot load certificate "\$pem": PEM_read_bio_X509_AUX\(\) failed/],
) {
    like $p->error_log, $_->[1], "log: $_->[0]";
}
unlike $p->error_log, qr/PRIVATE|BEGIN|data:secret|rubbish/, 'log: no data';

# what the client sees: an alert, and no more; a name that no host can have
for my $name ('d.test', '../certs/a.test', 'x/y', 'a.test/') {
    my $out = `openssl s_client -connect 127.0.0.1:@{[ $p->port('main') ]} -servername '$name' </dev/null 2>&1`;
    like $out, qr/alert internal error/, "alert: $name";
}
like $p->error_log, qr/\[info\] .*client asked for an invalid server name while SSL handshaking/, 'log: an invalid name';

# --- rotation, and the cache -----------------------------------------------------------------------

# NAME's files are CERT's from now on, by a rename, as certbot and others do.
sub put {
    my ($name, $cert) = @_;
    for (qw(key crt)) {
        Proxyd::Certs::run('cp', $certs->path("$cert.$_"), $certs->path("$name.new"));
        rename $certs->path("$name.new"), $certs->path("$name.$_") or die $!;
    }
}
for (
    ['main',    'without a cache: at once',                    'second'],
    ['kept',    'kept while it is valid',                      'first'],
    ['checked', 'looked at when it is not valid any more',     'second'],
    ['idle',    'not kept when nobody has asked for it',       'second'],
) {
    my ($port, $what, $want) = @$_;
    put('turn', 'first');
    is shown($port, name => 'turn'), 'first', "cache: $what: before";
    put('turn', 'second');
    select undef, undef, undef, 0.005; # the clock of `inactive` counts milliseconds
    is shown($port, name => 'turn'), $want, "cache: $what";
}
put('hit', 'first');
is shown('small', name => 'hit'), 'first', 'cache: max=2: a pair';
put('hit', 'second');
is shown('small', name => 'hit'), 'first', 'cache: is kept';
is shown('small', name => 'a.test'), 'a.test', 'cache: until another comes';
is shown('small', name => 'hit'), 'second', 'cache: then it is read again';
# One key for many names, of which the cache has not seen all.
Proxyd::Certs::run('cp', $certs->path("first.$_->[0]"), $certs->path("$_->[1]")) for ['crt', 'u1.crt'], ['crt', 'u2.crt'], ['key', 'uneven.key'];
is shown('uneven', name => 'u1'), 'first', 'cache: a common key';
Proxyd::Certs::run('cp', $certs->path("second.$_->[0]"), $certs->path("$_->[1]")) for ['crt', 'u2.crt'], ['key', 'uneven.key'];
is shown('uneven', name => 'u2'), 'second', 'cache: one that does not fit is read again';
is shown('uneven', name => 'u1'), 'none', 'cache: and still does not fit';
Proxyd::Certs::run('cp', $certs->path('rsa-a.test.crt'), $certs->path('u3.crt'));
Proxyd::Certs::run('cp', $certs->path('rsa-a.test.key'), $certs->path('uneven.key'));
is shown('uneven', name => 'u3'), 'rsa-a.test', 'cache: nor does one of another type';
put('old', 'first');
is shown('kept', name => 'old'), 'first', 'cache: a file';
unlink $certs->path("old.$_") for qw(crt key);
is shown('kept', name => 'old'), 'first', 'cache: that is no more';
put('gone', 'first');
is shown('checked', name => 'gone'), 'first', 'cache: a file that is checked';
unlink $certs->path("gone.$_") for qw(crt key);
is shown('checked', name => 'gone'), 'none', 'cache: and is no more';
put('gone', 'second');
is shown('checked', name => 'gone'), 'second', 'cache: and is there again';

# --- sessions --------------------------------------------------------------------------------------

for my $version ('-tls1_2', '-tls1_3') {
    for my $port ('main', 'session') {
        my ($how) = $certs->s_client($p->port($port), '/', session => "$port$version", name => 'a.test', version => $version);
        is $how, 'New', "session: $port $version";
        ($how) = $certs->s_client($p->port($port), '/', session => "$port$version", name => 'a.test', version => $version, keep => 1);
        is $how, 'Reused', "session: $port $version, again";
        ($how) = $certs->s_client($p->port($port), '/', session => "$port$version", name => 'b.test', version => $version, keep => 1);
        is $how, 'New', "session: $port $version, another name has another certificate";
        # asking what is verified is another matter
        ($how) = $certs->s_client($p->port('verify'), '/', session => "$port$version", name => 'a.test', version => $version, keep => 1);
        isnt $how, 'Reused', "session: $port $version, elsewhere";
    }
}

# --- to servers ------------------------------------------------------------------------------------

sub body { my $r = $p->get(@_, port => 'plain'); return $r->status == 200 ? $r->body : 'status ' . $r->status }
for (
    ['/each?c=client1',   qr/^CN=client1 SUCCESS /],
    ['/each?c=client2',   qr/^CN=client2 SUCCESS /],
    ['/cached?c=client1', qr/^CN=client1 SUCCESS /],
    ['/cached?c=client1', qr/^CN=client1 SUCCESS /],
    ['/cached?c=client2', qr/^CN=client2 SUCCESS /],
    ['/cached?c=client1', qr/^CN=client1 SUCCESS /],
    ['/locked?c=locked',  qr/^CN=locked SUCCESS /],
    ['/each?c=locked',    qr/^status 500$/],
    ['/each?c=nobody',    qr/^status 500$/],
    ['/each?c=../certs/client1', qr/^status 500$/],
    ['/each',             qr/^status 500$/],
    ['/maybe',            qr/^ NONE /],
    ['/none',             qr/^ NONE /],
    ['/literal',          qr/^CN=client1 SUCCESS /],
) {
    like body($_->[0]), $_->[1], "upstream: $_->[0]";
}
like $p->error_log, qr/\[error\] .*cannot load certificate "\Q$dir\E\/certs\/nobody\.crt": BIO_new_file\(\) failed \(SSL: [^)]*\)[^)]*\) while SSL handshaking to upstream, client: .*upstream: "https:/, 'upstream: log';
like $p->error_log, qr/cannot load certificate "certs\/\.\.\/certs\/client1\.crt": the variables lead upwards/, 'upstream: log';

# A kept connection is of use to whoever shows the same certificate, and so is a session.
my (%number, %seen);
for my $round (1 .. 3) {
    for my $c (1, 2) {
        my ($dn, $verify, $connection) = split / /, body("/kept?c=client$c");
        is $dn, "CN=client$c", "kept: round $round: client$c";
        $number{$c} //= $connection;
        is $connection, $number{$c}, "kept: round $round: its own connection";
    }
}
isnt $number{1}, $number{2}, 'kept: two connections';
is((split / /, body('/none'))[0], '', 'kept: none shown');
isnt((split / /, body('/literal'))[2], $number{1}, 'kept: other settings');
for my $i (1 .. 6) {
    my $c = $i % 2 + 1;
    like body("/anew?c=client$c"), qr/^CN=client$c SUCCESS \d+ [r.]$/, "sessions: client$c";
}
like body("/anew?c=client1"), qr/ r$/, 'sessions: resumed';

# --- a reload, and -t ------------------------------------------------------------------------------

$p->reload;
is shown('main', name => 'b.test'), 'b.test', 'after a reload';
is $p->run(add => ['-t'])->{status}, 0, '-t loads none of these';
$p->stop;
done_testing;
