# SPDX-License-Identifier: BSD-2-Clause
#
# The command line, and how configuration errors are reported.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/lib";
use Test::More;
use Proxyd;

my $nginx = Proxyd::is_nginx();
my $me    = Proxyd::program();
my $conf  = <<'EOT';
http {
    server {
        listen 127.0.0.1:{{port}};
        location / { return 200 ok; }
    }
}
EOT

# --- -v, -V, -h, bad switches ---------------------------------------------------------------------
my $p   = Proxyd->new(conf => $conf);
my $dir = $p->dir;
my $r   = $p->run(args => ['-v']);
is $r->{status}, 0,  '-v: status';
is $r->{out},    '', '-v: nothing on stdout';
like $r->{err}, qr{^nginx version: nginx/\d+\.\d+\.\d+\n}m,
    '-v: the language level, as tools read it';
SKIP: {
    skip 'proxyd only', 2 if $nginx;
    like $r->{err},
        qr{\Aproxyd version: proxyd/\d+\.\d+\.\d+\S*\nnginx version: nginx/1\.31\.4\n\z},
        '-v: both lines, in order';
    like $p->run(args => ['-V'])->{err}, qr{\Aproxyd version: proxyd/}, '-V begins likewise';
}
$r = $p->run(args => ['-V']);
is $r->{status}, 0, '-V: status';
like $r->{err}, qr{^built (?:by|with) }m,       '-V: built';
like $r->{err}, qr{^built with OpenSSL }m,      '-V: OpenSSL';
like $r->{err}, qr{^TLS SNI support enabled$}m, '-V: SNI';
like $r->{err}, qr{^configure arguments:}m,     '-V: configure arguments';
for my $switch ('-h', '-?') {
    $r = $p->run(args => [$switch]);
    is $r->{status}, 0, "$switch: status";
    like $r->{err}, qr/^Usage: /m,     "$switch: usage";
    like $r->{err}, qr/^  -\Q$_\E\b/m, "$switch names -$_" for qw(v V t T q s p e c g);
}
for (['-z'], ['-c'], ['-p'], ['-g'], ['-e'], ['-s'], ['word'], ['-tz']) {
    $r = $p->run(args => $_);
    is $r->{status}, 1, "@$_: status 1";
    like $r->{err}, qr/^$me: (?:invalid option|option "-\w" requires|.*)/m, "@$_: says so";
}
like $p->run(args => ['-z'])->{err}, qr/^$me: invalid option: "z"$/m, 'invalid option: wording';
like $p->run(args => ['word'])->{err}, qr/^$me: invalid option: "word"$/m,
    'invalid argument: wording';
like $p->run(args => ['-c'])->{err}, qr/^$me: option "-c" requires file name$/m,
    '-c without a name: wording';
like $p->run(args => ['-p'])->{err}, qr/^$me: option "-p" requires directory name$/m, '-p: wording';
like $p->run(args => ['-g'])->{err}, qr/^$me: option "-g" requires parameter$/m,      '-g: wording';
like $p->run(args => ['-e'])->{err}, qr/^$me: option "-e" requires file name$/m,      '-e: wording';
like $p->run(args => ['-s'])->{err}, qr/^$me: option "-s" requires parameter$/m,      '-s: wording';
like $p->run(args => ['-s', 'frob'])->{err}, qr/^$me: invalid option: "-s frob"$/m,
    '-s frob: wording';

# --- -t -------------------------------------------------------------------------------------------
$r = $p->run(add => ['-t']);
is $r->{status}, 0, '-t: status';
is $r->{err},
    "$me: the configuration file $dir/proxyd.conf syntax is ok\n$me: configuration file $dir/proxyd.conf test is successful\n",
    '-t: the two lines on stderr, nothing else';
is $r->{out}, '', '-t: nothing on stdout';
ok -e "$dir/error.log",                       '-t opens the logs';
ok -e "$dir/access.log",                      '-t opens the access log';
ok -d "$dir/tmp/body" && -d "$dir/tmp/proxy", '-t makes the temporary directories';
is $p->run(add => ['-t', '-q'])->{err}, '', '-t -q: silence';
is $p->run(add => ['-tq'])->{err},      '', '-tq: silence';
$r = $p->run(args => ['-t', '-p', $dir, '-c', 'proxyd.conf', '-e', 'error.log']);
is $r->{status}, 0, '-p without a final slash';
$r = $p->run(args => ["-tp$dir", "-cproxyd.conf", "-eerror.log"]);
is $r->{status}, 0, 'values written next to their switches';
$r = $p->run(args => ['-t', '-p', "$dir/", '-c', "$dir/proxyd.conf", '-e', "$dir/error.log"]);
is $r->{status}, 0, 'absolute -c and -e';
$r = $p->run(args => ['-t', '-p', "$dir/", '-c', 'proxyd.conf', '-e', 'other-error.log']);
ok -e "$dir/other-error.log", '-e is relative to -p, the file exists from the start';
$r = $p->run(args => ['-t', '-p', "$dir/", '-c', 'proxyd.conf', '-e', 'stderr']);
is $r->{status}, 0, '-e stderr';
$r = $p->run(args => ['-t', '-p', "$dir/", '-c', 'none.conf', '-e', 'error.log']);
is $r->{status}, 1, 'no such file: status';
like $r->{err},
    qr{^$me: \[emerg\] open\(\) "\Q$dir\E/none.conf" failed \(2: No such file or directory\)$}m,
    'no such file: wording';
like $r->{err}, qr{^$me: configuration file \Q$dir\E/none.conf test failed$}m,
    'no such file: last line';
$r = $p->run(args => ['-t', '-p', "$dir/", '-c', 'proxyd.conf', '-e', 'nosuch/error.log']);
like $r->{err},
    qr{\[alert\] could not open error log file: open\(\) "\Q$dir\E/nosuch/error.log" failed \(2: No such file or directory\)},
    'unopenable -e: an alert';

# --- -T -------------------------------------------------------------------------------------------
$p->write_file('inc/a.conf', "# included\nserver_tokens off;\n");
$p->write_conf(
    "http {\n    include inc/*.conf;\n    include inc/a.con?;\n    server { listen 127.0.0.1:{{port}}; }\n}\n"
        =~ s/    include inc\/a.con\?;\n//r);
$r = $p->run(add => ['-T']);
is $r->{status}, 0, '-T: status';
like $r->{out}, qr{\A# configuration file \Q$dir\E/proxyd.conf:\n}, '-T: begins with the file';
is scalar(() = $r->{out} =~ /^# configuration file /mg), 2, '-T: each file once';
like $r->{out}, qr{^# configuration file \Q$dir\E/inc/a.conf:\n# included\nserver_tokens off;\n}m,
    '-T: an included file, comments too';
like $r->{err}, qr/test is successful/, '-T tests as well';
is $p->run(add => ['-T', '-q'])->{err}, '', '-T -q: only the dump';

# --- -g -------------------------------------------------------------------------------------------
$p->write_conf($conf);
$r = $p->run(add => ['-t', '-g', 'worker_rlimit_nofile 1000;']);
is $r->{status}, 0, '-g';
$r = $p->run(add => ['-t', '-g', 'worker_processes 2;']);
is $r->{status}, 1, '-g is read first: a second worker_processes is a duplicate';
like $r->{err}, qr{\[emerg\] "worker_processes" directive is duplicate in \Q$dir\E/proxyd.conf:\d+},
    'said of the file';
$r = $p->run(add => ['-t', '-g', 'frobnicate;']);
like $r->{err}, qr{^$me: \[emerg\] unknown directive "frobnicate" in command line$}m,
    '-g: an error in the command line';
$r = $p->run(add => ['-t', '-g', 'error_log extra.log;']);
is $r->{status}, 0, '-g error_log adds';
ok -e "$dir/extra.log", 'and is relative to the prefix';
$r = $p->run(add => ['-t', '-g', 'env A']);
is $r->{status}, 1, '-g without a semicolon';

# --- -s -------------------------------------------------------------------------------------------
unlink "$dir/proxyd.pid";
$r = $p->run(add => ['-s', 'reload']);
is $r->{status}, 1, '-s without a server: status';
like $r->{err},
    qr{^$me: \[error\] open\(\) "\Q$dir\E/proxyd.pid" failed \(2: No such file or directory\)$}m,
    '-s without a server: wording';
$p->write_file('proxyd.pid', "word\n");
$r = $p->run(add => ['-s', 'reload']);
is $r->{status}, 1, '-s with a bad pid file';
like $r->{err}, qr{\[error\] invalid PID number "\S*" in "\Q$dir\E/proxyd.pid"}, 'wording';
unlink "$dir/proxyd.pid";

# --- errors at start ------------------------------------------------------------------------------
$p->write_conf("http {\n    frobnicate;\n}\n");
is $p->start(expect_failure => 1), 1, 'a configuration error exits with status 1';
ok !-e "$dir/proxyd.pid", 'and no pid file';
like $p->read_file('error.log'),
    qr{\[emerg\] \d+#\d+: unknown directive "frobnicate" in \Q$dir\E/proxyd.conf:\d+},
    'the error is in the log of -e too';
like $p->read_file('stderr'), qr{^$me: \[emerg\] unknown directive "frobnicate"}m, 'and on stderr';
$p->expect_log(qr/frobnicate|none\.conf|is duplicate|in command line/);

# --- -s with a server -----------------------------------------------------------------------------
$p->write_conf($conf);
$p->start;
is $p->get('/')->body,                         'ok', 'it serves';
is $p->run(add => ['-s', 'reload'])->{status}, 0,    '-s reload';
ok $p->wait_log(qr/\[notice\] \d+#\d+: signal 1 \(SIGHUP\) received/), 'reached the master';
$p->write_file('access.log', '');
rename "$dir/access.log", "$dir/access.old";
is $p->run(add => ['-s', 'reopen'])->{status}, 0, '-s reopen';
ok $p->wait_for(sub { -e "$dir/access.log" }), 'the log is opened anew';
is $p->run(add => ['-t'])->{status}, 0,          '-t beside a running server ignores its port';
is $p->pid_file,                     $p->master, 'and leaves its pid file alone';
is $p->run(add => ['-s', 'quit'])->{status}, 0,  '-s quit';
ok $p->wait_for(sub { !Proxyd::alive($p->master) || !-e "$dir/proxyd.pid" }), 'it ends';
$p->stop(name => 'gone after -s quit');

my $q = Proxyd->new(conf => $conf);
$q->start;
is $q->run(add => ['-s', 'stop'])->{status}, 0, '-s stop';
ok $q->wait_for(sub { !-e $q->dir . '/proxyd.pid' }), 'it ends';
$q->stop(name => 'gone after -s stop');

# --- the language ---------------------------------------------------------------------------------
sub tested {
    my ($text, %files) = @_;
    my $t = Proxyd->new(conf => $text);
    $t->write_file($_, $files{$_}) for keys %files;
    my $r = $t->run(add => ['-t'], timeout => 60);
    $r->{dir} = $t->dir;
    $t->discard;
    return $r;
}
my $server = 'server { listen 127.0.0.1:{{port}}; %s }';
is tested("http {\n    include none/*.conf;\n}\n")->{status}, 0,
    'include: a mask without a match is no error';
is tested("http {\n    include none.conf;\n}\n")->{status}, 1, 'include: a name without a file is';
is tested(
    "http {\n    include x[ab].conf;\n}\n",
    'xa.conf' => 'server_tokens off;',
    'xb.conf' => 'sendfile on;',
    'xc.conf' => 'bad;'
    )->{status},
    0, 'include: a character class';
like tested("http {\n    include d/*;\n}\n", map { ("d/$_" => "tcp_nodelay on; # $_\n") } qw(b a))
    ->{err},
    qr{"tcp_nodelay" directive is duplicate in \S+/d/b:1}, 'include: in sorted order';
is tested(
    "http {\n    include a.conf;\n}\n",
    'a.conf'   => 'include d/b.conf;',
    'd/b.conf' => 'sendfile on;'
    )->{status}, 0,
    'include: nested names are relative to the main file';
is tested("http {\n    include a.conf;\n}\n", 'a.conf' => 'server_tokens off; server',)->{status},
    1, 'include: cannot end inside a directive';
my $long = 'x' x 4000;
is tested(sprintf "http { $server }", "return 200 \"$long\";")->{status}, 0, 'a word of 4000 bytes';
is tested(sprintf "http { $server }", 'add_header A "' . join("\n", ('y' x 70) x 50) . '";')
    ->{status}, 0, 'a quoted word over 50 lines';
is tested('http { ' . sprintf($server, '') . (' ' x 200_000) . "server_tokens off;}\n")->{status},
    0, 'a very long line';
is(
    ($r = tested("http {\n" . ('#' . 'z' x 3_000 . "\n") . sprintf($server, '') . "}\n"))->{status},
    0,
    'a very long comment'
) or diag substr $r->{err}, 0, 300;

if (Proxyd->new->has('map')) {
    is(
        (
            $r = tested(
                "http {\n  map_hash_max_size 65536; map_hash_bucket_size 128; map \$uri \$x { hostnames; default 0; "
                    . join('', map { "h$_.test $_;" } 1 .. 20_000) . "}\n"
                    . sprintf($server, 'return 200 $x;') . "}\n"
            )
        )->{status},
        0,
        'a block of 20,000 rows'
    ) or diag substr $r->{err}, 0, 300;
}
like tested("http {\n    server_name \"a;\n}\n")->{err},
    qr/unexpected end of file, expecting ";" or "}"/, 'a quote left open';
like tested("\xef\xbb\xbfworker_processes 1;\n" =~ s/\A/\n/r)->{err},
    qr/unknown directive "\xef\xbb\xbfworker_processes"/, 'a byte order mark is reported';

# --- 10,000 server blocks
my $many = "http {\n  server_names_hash_max_size 65536;\n" . join(
    '',
    map {
              "  server { listen 127.0.0.1:{{port}}; server_name s$_.test www.s$_.test;"
            . " location / { return 200 $_; } location /a/ { root /tmp; } }\n"
    } 1 .. 10_000
) . "}\n";
my $t = Proxyd->new(conf => $many);
$r = $t->run(add => ['-t'], timeout => 60);
is $r->{status}, 0, '10,000 server blocks' or diag substr $r->{err}, 0, 500;
$t->start;
is $t->get('/', host => "s$_.test")->body, $_, "server $_ of them" for 1, 5000, 9999, 10_000;
$t->stop;

# --- beyond nginx ---------------------------------------------------------------------------------
SKIP: {
    skip 'proxyd only', 12 if $nginx;
    my $x = Proxyd->new;
    $r = $x->run(args => ['-x', 'directives']);
    $x->discard;
    is $r->{status}, 0, '-x directives';
    like $r->{out}, qr/\b\Q$_\E\b/, "-x directives: $_"
        for qw(listen proxy_pass try_files error_page);
    $r = tested("http {\n    proxy_pas http://a;\n}\n");
    like $r->{err},
        qr{^proxyd: \[emerg\] unknown directive "proxy_pas" in \Q$r->{dir}\E/proxyd.conf:\d+$}m,
        'a near name: the line stays greppable';
    like $r->{err}, qr{^\s*(?:\d+ ?\|)?\s*proxy_pas http://a;.*\n[ |]*\^}m,
        'then the source line with a caret';
    like $r->{err},                      qr/did you mean "?proxy_pass"?\?/, 'did you mean';
    unlike tested("zzzqqq 1;\n")->{err}, qr/did you mean/, 'no guess where nothing is near';
    $r = tested(
        "http {\n    sendfile maybe;\n    tcp_nopush perhaps;\n    server {\n        listen 127.0.0.1:{{port}};\n        frobnicate;\n        root;\n    }\n}\n"
    );
    is scalar(() = $r->{err} =~ /^proxyd: \[emerg\] /mg), 4, 'four independent errors in one -t'
        or diag $r->{err};
    is $r->{status}, 1, 'and status 1';
    is scalar(
        () = tested(
            "http {\n    server {\n        listen 127.0.0.1:{{port}}\n        server_name a;\n    }\n}\n"
        )->{err} =~ /^proxyd: \[emerg\] /mg
        ),
        1,
        'a broken structure is reported once';
}
done_testing;
