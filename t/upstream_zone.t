# SPDX-License-Identifier: BSD-2-Clause
#
# A group of servers in a zone: four workers that count as one. Turns, limits and failures are exact over
# all of them, survive a reload and an upgrade, and what a dead worker held is given back.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/lib";
use Test::More;
use Proxyd;

plan skip_all => 'proxyd only' if Proxyd::is_nginx();

my @names = qw(a b c d);
my $p = Proxyd->new;

# Says its name; on /hold, once the file "go" is there.
sub origin {
    my ($name) = @_;
    return sub {
        my ($c) = @_;
        while (my $q = $c->request) {
            if ($q->{uri} =~ /hold/) { Proxyd::wait_for(sub { -e $p->dir . '/go' }, 30) }
            my $status = -e $p->dir . "/bad-$name" ? '500 Internal Server Error' : '200 OK';
            $c->write("HTTP/1.1 $status\r\nContent-Length: 1\r\n\r\n$name");
        }
    };
}
$p->origin($_, origin($_)) for @names;

sub conf {
    my ($servers, $more) = @_;
    $more //= '';
    return <<"EOT";
worker_processes 4;
daemon on;
http {
    upstream turns { zone turns 64k; @{[ map { "server 127.0.0.1:{{port:$_}};" } @$servers ]} }
    upstream least { zone turns; least_conn; @{[ map { "server 127.0.0.1:{{port:$_}};" } @$servers ]} }
    upstream limit { zone limit 64k; server 127.0.0.1:{{port:a}} max_conns=2; }
    upstream fails { zone fails 64k; @{[ map { "server 127.0.0.1:{{port:$_}} fail_timeout=1h;" } @$servers ]} }
    proxy_http_version 1.1;
    proxy_set_header Connection "";
    proxy_next_upstream error timeout http_500;
    $more
    server {
        listen 127.0.0.1:{{port}};
        location /turns { proxy_pass http://turns; }
        location /least { proxy_pass http://least; }
        location /limit { proxy_pass http://limit; }
        location /fails { proxy_pass http://fails; }
        location /pid { return 200 \$pid; }
    }
}
EOT
}

sub bodies { my ($uri, $n) = @_; return join '', map { $p->get($uri)->body } 1 .. $n }

$p->write_conf(conf(\@names));
$p->start(daemon => 1);
Proxyd::wait_for(sub { $p->workers == 4 });
my %pids = map { $p->get('/pid')->body => 1 } 1 .. 100;
cmp_ok scalar(keys %pids), '>', 1, 'several workers answer';

is bodies('/turns', 24), 'abcd' x 6, 'one turn over all workers';
is bodies('/least', 8), 'abcd' x 2, 'another group in the same zone has turns of its own';

# --- max_conns --------------------------------------------------------------------------------------
my $holds = 0;

# Two requests that the server has got and not answered.
sub hold {
    unlink $p->dir . '/go';
    $holds += 2;
    my @c = map { my $c = $p->connect; $c->send("GET /limit/hold HTTP/1.1\r\nHost: x\r\n\r\n"); $c } 1, 2;
    ok Proxyd::wait_for(sub { $p->{origins}[0]->lines(qr/hold/) == $holds }), 'two are under way';
    return @c;
}
my @held = hold();
is $p->get('/limit')->status, 502, 'two connections are all that max_conns allows, whichever worker is asked' for 1 .. 8;
$p->write_file('go', '');
is $_->response->body, 'a', 'those that were let in are answered' for @held;
is $p->get('/limit')->body, 'a', 'and then there is room again' for 1 .. 8;

# --- what a dead worker held ------------------------------------------------------------------------
@held = hold();
is $p->get('/limit')->status, 502, 'full again';
$p->expect_log(qr/exited on signal 9/);
kill 'KILL', $p->workers;
ok Proxyd::wait_for(sub { my $r = eval { $p->get('/limit') }; $r && $r->status == 200 }, 10),
    'workers that are killed give back what they held';
$p->write_file('go', '');
is $p->get('/limit')->status, 200, 'all of it' for 1 .. 4;
is length(bodies('/turns', 8)), 8, 'and the turns go on';

# --- failures -----------------------------------------------------------------------------------------
$p->write_file('bad-b', '');
unlike bodies('/fails', 40), qr/b/, 'a server that fails is passed over';
is scalar($p->{origins}[1]->lines(qr/fails/)), 1, 'after one failure, whichever worker saw it';
unlink $p->dir . '/bad-b';
ok $p->reload, 'reload';
unlike bodies('/fails', 12), qr/b/, 'a reload does not forget that it failed';
$p->write_conf(conf([qw(a b c)]));
ok $p->reload, 'reload with other servers';
my $seen = bodies('/fails', 12);
unlike $seen, qr/[bd]/, 'nor does one that changes the group';
like $seen, qr/a.*c|c.*a/, 'the others serve';
is length(bodies('/turns', 6) =~ s/d//gr), 6, 'the server that is gone is not asked';

# --- binary upgrade -------------------------------------------------------------------------------------
$p->signal('USR2');
ok Proxyd::wait_for(sub {
    my $pid = $p->pid_file || 0;
    -e $p->dir . '/proxyd.pid.oldbin' && $pid > 0 && $pid != $p->master && $p->workers($pid) == 4;
}, 15), 'upgrade: a new master and its workers';
my $new = $p->pid_file;
$p->signal('QUIT');
ok $p->adopt($new), 'the old one goes';
unlike bodies('/fails', 12), qr/b/, 'the new program does not forget either';
$p->stop;

# --- too small -----------------------------------------------------------------------------------------
my $q = Proxyd->new;
my $many = join " ", map { my $n = $_; map { "server 127.1.$n.$_:1;" } 1 .. 100 } 1 .. 4;
$q->write_conf("http { upstream u { zone z 32k; $many } server { listen 127.0.0.1:{{port}}; location / { proxy_pass http://u; } } }");
is $q->start(expect_failure => 1), 1, 'a zone that is too small: no start';
$q->expect_log(qr/zone|make it larger/);
like $q->read_file('stderr') . $q->error_log, qr/no memory in zone "z" for upstream "u": make it larger/, 'it says so';
for (['zone z 1k;', 'zone "z" is too small'], ['zone z 1x;', 'invalid zone size "1x"'], ['zone "";', 'invalid zone name ""'],
    ['zone z;', 'zero size shared memory zone "z"']) {
    $q->write_conf("http { upstream u { $_->[0] server 127.0.0.1:1; } }");
    like $q->run(args => ['-t', '-p', $q->dir . '/', '-c', 'proxyd.conf', '-e', 'error.log'])->{err}, qr/\Q$_->[1]\E/, "$_->[0] $_->[1]";
}
$q->stop;
done_testing;
