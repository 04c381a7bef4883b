# SPDX-License-Identifier: BSD-2-Clause
#
# Master and workers: signals, reload, upgrade, death and the end.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/lib";
use POSIX ();
use IO::Socket::INET;
use Test::More;
use Proxyd;

my $conf = <<'EOT';
worker_processes 2;
http {
    server {
        listen 127.0.0.1:{{port}};
        location / { return 200 "one:$pid\n"; }
        location /slow/ { proxy_pass http://127.0.0.1:{{port:slow}}/; }
        location /old { return 200 old; }
    }
}
EOT
my $p   = Proxyd->new(conf => $conf);
my $dir = $p->dir;

# An origin that answers as soon as a file named as the URI is there.
sub gate {
    my ($p) = @_;
    my $dir = $p->dir;
    return $p->origin(
        'slow',
        sub {
            my ($c) = @_;
            while (my $r = $c->request) {
                my ($name) = $r->{uri} =~ /(\w+)$/;
                $c->write("HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nslow");
                Proxyd::wait_for(sub { -e "$dir/gate-$name" }, 10);
                $c->write('done');
            }
        }
    );
}
my $origin = gate($p);
$p->start;
my $master = $p->master;

# --- at rest --------------------------------------------------------------------------------------
is $p->pid_file, $master, 'the pid file holds the master';
ok $p->wait_for(sub { $p->workers == 2 }), 'two workers';
my @w    = $p->workers;
my $name = Proxyd::program();
like $p->title($master), qr/^$name: master process /, 'the master\'s title';
is $p->title($_), "$name: worker process", 'a worker\'s title' for @w;
ok $p->wait_log(qr/\[notice\] $master#\d+: start worker process $_\n/), "and the log says so: $_"
    for @w;
my ($mainpid) = $p->get('/')->body =~ /one:(\d+)/;
ok scalar(grep { $_ == $mainpid } @w), 'a worker answers';

# --- reload ---------------------------------------------------------------------------------------
my $c = $p->connect;
$c->send("GET /slow/a HTTP/1.1\r\nHost: a\r\n\r\n");
ok $p->wait_for(sub { $origin->requests }), 'a request is under way';
my $idle = $p->connect;
$idle->send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
$idle->response;
$p->write_conf($conf =~ s/one:/two:/r =~ s/location \/old.*//r);
ok $p->reload, 'reload: new workers serve, the old ones do not accept';
is $p->master, $p->pid_file, 'the same master';
like $p->get('/')->body,    qr/^two:/, 'the new configuration';
like $p->get('/old')->body, qr/^two:/, 'all of it';
ok $p->wait_for(sub { $idle->wait_input(0.1); $idle->eof }), 'an idle connection was closed';
ok $p->wait_for(sub { 1 == grep { Proxyd::alive($_) } @w }), 'the old worker with a request under way stays';
like $p->error_log,
    qr/\[notice\] $master#\d+: signal 1 \(SIGHUP\) received from \d+, reconfiguring/,
    'HUP in the log';
like $p->error_log, qr/\[notice\] \d+#\d+: gracefully shutting down/,
    'and the farewell of the old workers';
$p->write_file('gate-a', '');
my $r = $c->response;
is $r->body,       'slowdone', 'the request under way is served to its end';
is $r->{complete}, 1,          'whole';
ok $p->wait_for(
    sub {
        !grep { Proxyd::alive($_) } @w;
    }
    ),
    'then the old worker goes';
ok $p->wait_log(qr/\[notice\] $master#\d+: worker process $_ exited with code 0/),
    "worker $_: code 0"
    for @w;
$c->close;

# a changed number of workers
for my $n (4, 1, 3) {
    $p->write_conf($conf =~ s/worker_processes 2/worker_processes $n/r);
    ok $p->reload,                              "reload to $n workers";
    ok $p->wait_for(sub { $p->workers == $n }), "$n of them";
    my $ok = 0;
    for (1 .. 40) { $ok++ if $p->get('/')->status == 200 }
    is $ok, 40, 'every connection is served';
}

# bad configurations
for (
    [
        'an unknown directive',
        sub { $_[0] =~ s/location \/ /frobnicate; location \/ /r },
        qr/unknown directive "frobnicate"/
    ],
    ['a syntax error', sub { "$_[0]\n}" }, qr/unexpected "\}"/],
    [
        'a log that cannot be opened',
        sub { $_[0] =~ s/http \{/http { access_log {{dir}}\/none\/x.log;/r },
        qr{open\(\) "\S+/none/x\.log" failed}
    ],
    [
        'an unknown upstream host',
        sub {
            $_[0] =~ s!http://127.0.0.1:\{\{port:slow\}\}/!http://no.such.host.invalid!r
                =~ s/http \{/http { upstream_resolve_failure emerg;/r;
        },
        qr/host not found in upstream/
    ]
    )
{
    my ($what, $change, $says) = @$_;
    @w = sort $p->workers;
    $p->write_conf($change->($conf =~ s/one:/bad:/r));
    $p->expect_log($says);
    $p->reload(fails => 1);
    ok $p->wait_log($says), "$what: said in the log";
    is join(' ', sort $p->workers), join(' ', @w), "$what: the same workers";
    like $p->get('/')->body, qr/^one:/, "$what: the old configuration serves";
}

# a port that is taken
my $busy = IO::Socket::INET->new(
    LocalAddr => '127.0.0.1',
    LocalPort => $p->port('busy'),
    Listen    => 1,
    ReuseAddr => 1
) or die $!;
$p->write_conf(
    $conf =~ s/(listen 127[^;]*;)/$1 listen 127.0.0.1:{{port:busy}};/r =~ s/one:/busy:/r);
$p->expect_log(
    qr/bind\(\) to 127\.0\.0\.1:\d+ failed \(98: Address already in use\)|still could not bind\(\)/
);
$p->reload(fails => 1);
ok $p->wait_log(qr/\[emerg\] $master#\d+: still could not bind\(\)/),
    'a taken port: retried, then given up';
like $p->error_log,
    qr/\[emerg\] $master#\d+: bind\(\) to 127\.0\.0\.1:@{[ $p->port('busy') ]} failed \(98: Address already in use\)/,
    'and named';
like $p->get('/')->body, qr/^one:/, 'the old configuration serves';
close $busy;
ok $p->reload, 'the port is free again';
like $p->get('/', port => 'busy')->body, qr/^busy:/, 'a socket added by reload';

# a socket removed
$p->write_conf($conf);
ok $p->reload, 'back';
ok $p->wait_for(sub { !IO::Socket::INET->new(PeerAddr => '127.0.0.1:' . $p->port('busy')) }),
    'a socket removed by reload refuses';
is $p->get('/')->status, 200, 'the other serves';

# a unix socket, added and removed
$p->write_conf($conf =~ s/(listen 127[^;]*;)/$1 listen unix:{{dir}}\/l.sock;/r);
ok $p->reload, 'a unix socket is added';
is $p->get('/', port => "unix:$dir/l.sock")->status, 200, 'and serves';
$p->write_conf($conf);
ok $p->reload,                              'and removed';
ok $p->wait_for(sub { !-e "$dir/l.sock" }), 'from the file system too';

# --- the death of a worker ------------------------------------------------------------------------
$p->expect_log(qr/worker process \d+ exited on signal 9/);
@w = $p->workers;
kill 'KILL', $w[0];
ok $p->wait_log(qr/\[alert\] $master#\d+: worker process $w[0] exited on signal 9/),
    'a killed worker is an alert';
ok $p->wait_for(
    sub {
        my @n = $p->workers;
        @n == 2 && !grep { $_ == $w[0] } @n;
    }
    ),
    'and gets a successor';
my $served = 0;
for (1 .. 40) { $served++ if $p->get('/')->status == 200 }
is $served, 40, 'which serves';
($w[0]) = $p->workers;
kill 'TERM', $w[0];
ok $p->wait_for(sub { my @n = $p->workers; @n == 2 && !Proxyd::alive($w[0]) }),
    'one that was sent TERM too';
is $p->get('/')->status, 200, 'serving';

# --- USR1 -----------------------------------------------------------------------------------------
rename "$dir/access.log", "$dir/access.old";
$p->signal('USR1');
ok $p->wait_for(sub { -e "$dir/access.log" }), 'USR1 reopens';
ok $p->wait_for(sub { $p->get('/usr1'); ($p->access_log // '') =~ /usr1/ }),
    'and the workers write to it';

# --- QUIT -----------------------------------------------------------------------------------------
$c = $p->connect;
my $before = $origin->requests;
$c->send("GET /slow/b HTTP/1.1\r\nHost: a\r\n\r\n");
$p->wait_for(sub { $origin->requests > $before });
my $half = $p->connect;
$half->send("GET /half HTTP/1.1\r\nHo");
$idle = $p->connect;
$idle->send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
$idle->response;
$p->wait_for(sub { ($p->error_log // '') =~ /./ });
$p->signal('QUIT');
ok $p->wait_for(sub { $idle->wait_input(0.1); $idle->eof }), 'QUIT closes idle connections';
ok $p->wait_for(sub { !IO::Socket::INET->new(PeerAddr => '127.0.0.1:' . $p->port) }),
    'and does not accept any more';
$half->send("st: a\r\n\r\n");
$r = $half->response;
is $r && $r->status,               200,     'a request half read is served';
is $r && $r->header('Connection'), 'close', 'and its connection closed';
$p->write_file('gate-b', '');
is $c->response->body, 'slowdone', 'the one under way too';
$p->stop(signal => 'QUIT', name => 'ended by QUIT with status 0');

# --- TERM, worker_shutdown_timeout ----------------------------------------------------------------
$p      = Proxyd->new(conf => $conf =~ s/^/worker_shutdown_timeout 200ms;\n/r);
$dir    = $p->dir;
$origin = gate($p);
$p->start;
$p->wait_for(sub { $p->workers == 2 });
@w = $p->workers;
$c = $p->connect;
$c->send("GET /slow/never HTTP/1.1\r\nHost: a\r\n\r\n");
$p->wait_for(sub { $origin->requests });
ok $p->reload, 'reload with worker_shutdown_timeout';
ok $p->wait_for(
    sub {
        !grep { Proxyd::alive($_) } @w;
    }
    ),
    'the old worker does not wait for ever';
ok $p->wait_for(sub { $c->wait_input(0.1); $c->eof }), 'its connection is closed';
$c = $p->connect;
$c->send("GET /slow/never HTTP/1.1\r\nHost: a\r\n\r\n");
$p->wait_for(sub { $origin->requests > 1 });
$p->stop(signal => 'TERM', name => 'TERM ends at once, with status 0');
$p = Proxyd->new(conf => $conf);
$p->start;
$p->stop(signal => 'INT', name => 'INT is TERM');

# --- upgrade --------------------------------------------------------------------------------------
sub upgraded {
    my $p = Proxyd->new(conf => "daemon on;\n$conf");
    $p->start(daemon => 1);
    $p->wait_for(sub { $p->workers == 2 });
    my @old = $p->workers;
    $p->signal('USR2');
    ok $p->wait_for(
        sub {
            -e $p->dir . '/proxyd.pid.oldbin'
                && ($p->pid_file || 0) > 0
                && $p->pid_file != $p->master;
        }
        ),
        'USR2: a new master';
    my $new = $p->pid_file;
    is $p->pid_file('proxyd.pid.oldbin'), $p->master, '.oldbin holds the old one';
    ok $p->wait_for(sub { $p->workers($new) == 2 }), 'the new one has workers';
    is scalar(grep { Proxyd::alive($_) } @old), 2,   'the old workers are still there';
    is $p->get('/')->status,                    200, 'served by either';
    $p->signal('WINCH');
    ok $p->wait_for(
        sub {
            !grep { Proxyd::alive($_) } @old;
        }
        ),
        'WINCH ends the old workers';
    ok Proxyd::alive($p->master), 'not the old master';
    return ($p, $new, @old);
}
my $new;
($p, $new, @w) = upgraded();
my %of = map { $_ => 1 } $p->workers($new);
my ($pid) = $p->get('/')->body =~ /(\d+)/;
ok $of{$pid}, 'the new workers serve';
$p->signal('QUIT');
ok $p->adopt($new),                                          'QUIT ends the old master';
ok $p->wait_for(sub { !-e $p->dir . '/proxyd.pid.oldbin' }), 'and its pid file';
is $p->pid_file,         $new, 'the new pid file stays';
is $p->get('/')->status, 200,  'serving';
ok $p->reload, 'the new master reloads';
is $p->get('/')->status, 200, 'serving';
$p->stop(name => 'the upgraded server stops cleanly');

($p, $new) = upgraded();
$p->signal('HUP');
ok $p->wait_for(sub { $p->workers == 2 }),
    'the way back: HUP starts the old master\'s workers again';
$p->signal('QUIT', $new);
ok $p->wait_for(sub { !Proxyd::alive($new) }), 'QUIT ends the new master';
ok $p->wait_for(
    sub {
        -e $p->dir . '/proxyd.pid'
            && ($p->pid_file || 0) == $p->master
            && !-e $p->dir . '/proxyd.pid.oldbin';
    }
    ),
    'the pid file has its name back';
is $p->get('/')->status, 200, 'serving';
$p->stop(name => 'stopped after the way back');

# an upgrade that fails
$p = Proxyd->new(conf => "daemon on;\n$conf");
$p->start(daemon => 1);
$p->wait_for(sub { $p->workers == 2 });
@w = $p->workers;
$p->write_conf("daemon on;\nfrobnicate;\n$conf");
$p->expect_log(qr/frobnicate/, qr/new binary process \d+ exited|exited with code 1/);
$p->signal('USR2');
ok $p->wait_log(qr/unknown directive "frobnicate"/), 'an upgrade with a bad file: says why';
ok $p->wait_for(sub { ($p->pid_file || 0) == $p->master && !-e $p->dir . '/proxyd.pid.oldbin' }),
    'the pid file has its name back';
is join(' ', $p->workers), "@w", 'the same workers';
is $p->get('/')->status,   200,  'serving';
$p->stop;

# --- ways to start --------------------------------------------------------------------------------
$p = Proxyd->new(conf => $conf);
$p->start(closed_fds => 1);
is $p->get('/')->status, 200, 'started with closed standard descriptors';
my %fd = map { $_ => readlink "/proc/@{[ $p->master ]}/fd/$_" } 0 .. 2;
SKIP: {
    skip 'nginx opens others in their place', 3 if Proxyd::is_nginx();
    unlike $fd{$_} // '', qr/socket:|access\.log/,
        "descriptor $_ became neither a socket nor the access log"
        for sort keys %fd;
}
$p->stop;

$p = Proxyd->new(conf => "daemon on;\n$conf");
$p->start(daemon => 1);
is $p->get('/')->status, 200,        'daemon on';
isnt $p->master,         $p->{pgid}, 'the starter has gone';
my ($state, $group) = Proxyd::stat_of($p->master);
isnt $group, $p->{pgid}, 'in a session of its own';
$p->stop;

$p = Proxyd->new(conf => "daemon off;\nmaster_process off;\n$conf");
$p->start;
is $p->get('/')->status,      200, 'master_process off';
is scalar(() = $p->children), 0,   'no children';
$p->stop(signal => 'TERM');

# a busy port at start
$busy = IO::Socket::INET->new(
    LocalAddr => '127.0.0.1',
    LocalPort => Proxyd::free_port(),
    Listen    => 1,
    ReuseAddr => 1
) or die $!;
$p = Proxyd->new(conf => $conf =~ s/\{\{port\}\}/$busy->sockport/er);
$p->expect_log(qr/bind\(\)/);
is $p->start(expect_failure => 1), 1, 'a busy port at start: status 1';
ok !-e $p->dir . '/proxyd.pid', 'no pid file';
is
    scalar(() =
        $p->read_file('stderr') =~
        /^$name: \[emerg\] bind\(\) to 127\.0\.0\.1:\d+ failed \(98: Address already in use\)$/mg),
    5, 'five tries';
like $p->read_file('stderr'), qr/^$name: \[emerg\] still could not bind\(\)$/m, 'then no more';
close $busy;

# two instances of the same configuration
$p = Proxyd->new(conf => $conf);
$p->start;
my $r2 = $p->run;
is $r2->{status}, 1, 'a second instance on the same address fails';
like $r2->{err}, qr/Address already in use/, 'and says why';
$p->expect_log(qr/bind\(\)/);
is $p->pid_file,         $p->master, 'the first one\'s pid file is unharmed';
is $p->get('/')->status, 200,        'and so is its service';
$p->stop;
done_testing;
