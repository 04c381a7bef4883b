# SPDX-License-Identifier: BSD-2-Clause
#
# Servers that change while they serve, through the api: all workers see a change at once; requests under way finish; what is counted; the
# state file; reload, the death of workers and changes made by several at a time.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/lib";
use JSON::PP ();
use Test::More;
use Proxyd;
use Proxyd::Dns;

plan skip_all => 'proxyd only' if Proxyd::is_nginx();
{
    my $q = Proxyd->new;
    $q->write_conf('http { server { listen 127.0.0.1:{{port}}; location / { api; } } }');
    plan skip_all => 'there is no api' if $q->run(args => ['-t', '-p', $q->dir . '/', '-c', 'proxyd.conf', '-e', 'error.log'])->{err} =~ /unknown directive/;
}

my $json = JSON::PP->new->utf8->canonical->allow_nonref;
my $p = Proxyd->new;

# Says its name; on /hold once the file "go" is there; 500 on /bad; kept-alive connections that end are noted.
sub origin {
    my ($name) = @_;
    return sub {
        my ($c) = @_;
        while (my $q = $c->request) {
            if ($q->{uri} =~ /hold/) { Proxyd::wait_for(sub { -e $p->dir . '/go' }, 30) }
            my $status = $q->{uri} =~ /bad/ || -e $p->dir . "/bad-$name" ? '500 Internal Server Error' : '200 OK';
            $c->write("HTTP/1.1 $status\r\nContent-Length: 1\r\n\r\n$name");
        }
        $c->{origin}->note('closed');
    };
}
my %o = map { $_ => $p->origin($_, origin($_)) } qw(a b c d);
my %at = map { $_ => '127.0.0.1:' . $p->port($_) } qw(a b c d);
mkdir $p->dir . '/states';
my $state = $p->dir . '/states/servers.conf';

my $dns = Proxyd::Dns->start(file => $p->dir . '/records', log => $p->dir . '/questions');
$dns->records('x.test 1 A 127.0.0.1', "_http._tcp.s.test 1 SRV 1 5 " . $p->port('b') . ' x.test');
my $conf = <<"EOT";
worker_processes 4;
daemon on;
http {
    upstream empty { zone dynamic 1m; }
    upstream dyn { zone dynamic; server $at{a}; server $at{b}; }
    upstream kept { zone dynamic; keepalive 8; server $at{a}; server $at{b} backup; }
    upstream hash { zone dynamic; hash \$arg_k; server $at{a}; server $at{b}; }
    upstream ring { zone dynamic; hash \$arg_k consistent; server $at{a}; server $at{b}; }
    upstream maglev { zone dynamic; maglev \$arg_k; server $at{a}; server $at{b}; }
    upstream ip { zone dynamic; ip_hash; server $at{a}; server $at{b}; }
    upstream chance { zone dynamic; random two; server $at{a}; server $at{b}; }
    upstream least { zone dynamic; least_conn; server $at{a}; server $at{b}; }
    upstream sticky { zone dynamic; sticky cookie s; server $at{a}; server $at{b}; }
    upstream stated { zone dynamic; state states/servers.conf; }
    upstream many { zone dynamic; state states/many.conf; }
    upstream checked { zone dynamic; server $at{a}; }
    upstream named { zone dynamic; state states/named.conf; resolver 127.0.0.1:@{[$dns->port]} ipv6=off; }
    upstream static { server $at{a}; }
    proxy_http_version 1.1;
    proxy_set_header Connection "";
    proxy_next_upstream error timeout;
    server {
        listen 127.0.0.1:{{port}};
        location /api { api write=on; }
@{[ join '', map { "        location /$_ { proxy_pass http://$_; }\n" } qw(empty dyn kept hash ring maglev ip chance least sticky stated many checked named) ]}
        location /probes { proxy_pass http://checked; health_check interval=100ms uri=/up mandatory; }
    }
}
EOT
$p->write_conf($conf);
$p->start(daemon => 1);
$p->expect_log(qr/no live upstreams|exited on signal 9|state file|servers stay|temporarily disabled|unhealthy|connect\(\) failed|upstream prematurely|marked|died/i);
Proxyd::wait_for(sub { $p->workers == 4 });

sub api {
    my ($method, $path, $body) = @_;
    my $r = $p->request($method, "/api/9/http/upstreams/$path",
        defined $body ? (body => ref $body ? $json->encode($body) : $body) : ());
    my $data = $r->body =~ /\S/ ? eval { $json->decode($r->body) } : undef;
    return wantarray ? ($r->status, $data) : $data;
}
sub add { my ($g, %s) = @_; my ($status, $d) = api('POST', "$g/servers", \%s); return $status == 201 ? $d->{id} : "$status " . ($d->{error}{code} // '') }
sub patch { my ($g, $id, %s) = @_; my ($status, $d) = api('PATCH', "$g/servers/$id", \%s); return $status == 200 ? $d : "$status " . ($d->{error}{code} // '') }
sub del { my ($g, $id) = @_; my ($status) = api('DELETE', "$g/servers/$id"); return $status }
sub servers { return @{ scalar api('GET', "$_[0]/servers") } }
sub peer { my ($g, $id) = @_; return (grep { $_->{id} == $id } @{ api('GET', $g)->{peers} })[0] }
sub seen { my ($uri, $n) = @_; my %s; $s{ $p->get("$uri?k=$_")->body }++ for 1 .. $n // 24; return join '', map { /^[a-z]$/ ? $_ : 'x' } sort keys %s }

# --- coming, changing, going -------------------------------------------------------------------------
is $p->get('/empty')->status, 502, 'a group without servers';
is add('empty', server => $at{a}), 0, 'the first one';
is seen('/empty'), 'a', 'every worker has it at once';
is add('empty', server => $at{b}, weight => 3), 1, 'another';
my %n;
$n{ $p->get('/empty')->body }++ for 1 .. 40;
is_deeply \%n, { a => 10, b => 30 }, 'its weight';
is patch('empty', 1, weight => 1)->{weight}, 1, 'changed';
%n = ();
$n{ $p->get('/empty')->body }++ for 1 .. 40;
is_deeply \%n, { a => 20, b => 20 }, 'and heeded';
patch('empty', 0, down => JSON::PP::true);
is seen('/empty'), 'b', 'down';
is peer('empty', 0)->{state}, 'down', 'it is said';
patch('empty', 0, down => JSON::PP::false);
is seen('/empty'), 'ab', 'up again';
patch('empty', 0, drain => JSON::PP::true);
is seen('/empty'), 'b', 'draining';
is peer('empty', 0)->{state}, 'draining', 'it is said';
patch('empty', 0, down => JSON::PP::false);
is add('empty', server => $at{c}, backup => JSON::PP::true), 2, 'a backup';
is seen('/empty'), 'ab', 'rests';
is del('empty', $_), 200, "server $_ goes" for 0, 1;
is seen('/empty'), 'c', 'the backup serves';
is del('empty', 2), 200, 'it goes too';
is $p->get('/empty')->status, 502, 'empty again';
is add('empty', server => $at{d}), 3, 'no number is used twice';
is seen('/empty'), 'd', 'a place is';

# --- every method --------------------------------------------------------------------------------------
for my $g (qw(dyn hash ring maglev chance least sticky)) {
    is seen("/$g", 60), 'ab', "$g: two servers";
    is add($g, server => $at{c}), 2, "$g: a third";
    is seen("/$g", 60), 'abc', "$g: serves";
    is del($g, 0), 200, "$g: the first goes";
    is seen("/$g", 60), 'bc', "$g: and is not asked";
    is del($g, 1), 200, "$g: the second";
    is seen("/$g", 30), 'c', "$g: one is left";
    is del($g, 2), 200, "$g: it goes";
    is $p->get("/$g")->status, 502, "$g: none is left";
    is add($g, server => $at{d}), 3, "$g: one comes";
    is seen("/$g", 30), 'd', "$g: it serves";
}
is del('ip', 0), 200, 'ip_hash: one goes';
is seen('/ip'), 'b', 'ip_hash: the other serves';
my ($cookie) = ($p->get('/sticky')->header('Set-Cookie') // '') =~ /^s=(\w+)/;
is length($cookie // ''), 32, 'sticky: a server that came is told of';
is patch('sticky', 3, route => 'here')->{route}, 'here', 'a route';
like $p->get('/sticky')->header('Set-Cookie') // '', qr/^s=here/, 'is told instead';

# --- requests under way, kept-alive connections ------------------------------------------------------------
is seen('/kept', 12), 'a', 'connections are kept';
my $idle = api('GET', 'kept')->{keepalive};
cmp_ok $idle, '>', 0, 'the api knows of them';
my $hold = $p->connect;
$hold->send("GET /kept/hold HTTP/1.1\r\nHost: x\r\n\r\n");
ok Proxyd::wait_for(sub { $o{a}->lines(qr/hold/) }), 'a request is under way';
my $closed = () = $o{a}->lines(qr/closed/);
is del('kept', 0), 200, 'its server goes';
ok Proxyd::wait_for(sub { my @c = $o{a}->lines(qr/closed/); @c > $closed }), 'kept-alive connections are closed';
ok Proxyd::wait_for(sub { api('GET', 'kept')->{keepalive} == 0 }), 'all of them';
is api('GET', 'kept')->{zombies}, 1, 'a zombie is counted';
is add('kept', server => $at{c}), 2, 'another comes';
is seen('/kept', 12), 'c', 'and serves';
$p->write_file('go', '');
is $hold->response->body, 'a', 'the request is answered';
unlink $p->dir . '/go';
is api('GET', 'kept')->{zombies}, 0, 'no zombie any more';
is add('kept', server => $at{d}), 3, 'its place is free';
is seen('/kept', 12), 'cd', 'for another';

# --- counters -----------------------------------------------------------------------------------------------
is add('least', server => $at{a}), 4, 'a server to count';
is del('least', 3), 200, 'alone';
$p->get('/least') for 1 .. 30;
$p->get('/least/bad') for 1 .. 5;
my $c = peer('least', 4);
is $c->{requests}, 35, 'requests of all workers';
is $c->{responses}{'2xx'}, 30, '2xx';
is $c->{responses}{'5xx'}, 5, '5xx';
cmp_ok $c->{received}, '>=', 35 * 40, 'bytes received';
cmp_ok $c->{sent}, '>=', 35 * 30, 'bytes sent';
is $c->{active}, 0, 'nothing is under way';
ok $c->{selected}, 'when it was last chosen';
is +(api('DELETE', 'least'))[0], 204, 'reset';
is peer('least', 4)->{requests}, 0, 'begins anew';
is add('least', server => '127.0.0.1:1', fail_timeout => '1h'), 5, 'a server that fails';
$p->get('/least') for 1 .. 8;
$c = peer('least', 5);
is_deeply [@$c{qw(state fails unavail)}], ['unavail', 1, 1], 'is counted';
ok $c->{downstart}, 'down since';

# --- checks ---------------------------------------------------------------------------------------------------
ok Proxyd::wait_for(sub { peer('checked', 0)->{state} eq 'up' }), 'a mandatory check passes';
is add('checked', server => $at{b}), 1, 'a server comes';
ok Proxyd::wait_for(sub { peer('checked', 1)->{state} eq 'up' }), 'it is checked too';
$p->write_file('bad-b', '');
ok Proxyd::wait_for(sub { peer('checked', 1)->{state} eq 'unhealthy' }), 'and again';
is seen('/checked', 12), 'a', 'found sick';
unlink $p->dir . '/bad-b';
ok Proxyd::wait_for(sub { peer('checked', 1)->{state} eq 'up' }), 'well again';
is del('checked', 0), 200, 'one that is checked goes';
is seen('/checked', 12), 'b', 'the other serves';

# --- errors -----------------------------------------------------------------------------------------------------
is add('named', server => 'x.test', service => "http\0"), '400 UpstreamConfFormatError', 'a service with a NUL, that no state file could be read with';
is +(add('empty', server => $_))[0], '400 UpstreamBadAddress', "server \"$_\"" for '127.0.0.1:x', '127.0.0.1:99999', 'a b', 'x;y', 'unix:';
like add('empty', server => 'name.test'), qr/^400 UpstreamConfNoResolver/, 'a name without a resolver';
like add('empty', weight => 1), qr/^400/, 'no address';
like add('hash', server => $at{a}, backup => JSON::PP::true), qr/^400/, 'a backup that the method does not know';
is del('empty', 77), 404, 'no such server';
is +(api('GET', 'static/servers'))[0], 400, 'a group without a zone';

# --- the state file -----------------------------------------------------------------------------------------------
is $p->get('/stated')->status, 502, 'no file, no servers';
add('stated', server => $at{a}, weight => 2, max_conns => 5, max_fails => 3, fail_timeout => '20s', slow_start => '30s', route => 'r');
add('stated', server => $at{b}, backup => JSON::PP::true);
add('stated', server => $at{c}, down => JSON::PP::true);
my $text = "server $at{a} weight=2 max_conns=5 max_fails=3 fail_timeout=20s slow_start=30s route=r;\nserver $at{b} backup;\nserver $at{c} down;\n";
is $p->read_file('states/servers.conf'), $text, 'what was added';
patch('stated', 0, weight => 1, slow_start => '0s', max_conns => 0, route => '');
del('stated', 2);
$text = "server $at{a} max_fails=3 fail_timeout=20s;\nserver $at{b} backup;\n";
is $p->read_file('states/servers.conf'), $text, 'what was changed and removed';
my @before = servers('stated');
ok $p->reload, 'reload';
is_deeply [servers('stated')], \@before, 'a reload keeps them';
is join(' ', map { $_->{server} } servers('dyn')), "$at{a} $at{b}", 'a group without a state file is what the configuration says again';
is seen('/dyn'), 'ab', 'and serves so';
$p->write_file('states/servers.conf', "server $at{d};\n");
ok $p->reload, 'reload after somebody has written the file';
is seen('/stated'), 'd', 'his word counts';
is add('stated', server => $at{a}), 1, 'and is built upon';
rename $p->dir . '/states', $p->dir . '/moved';
like add('stated', server => $at{b}), qr/^50\d/, 'the directory has gone: an error';
is del('stated', 0), 500, 'nor can one be removed';
is seen('/stated'), 'ad', 'nothing has changed';
like $p->error_log, qr/state file/, 'the log says why';
rename $p->dir . '/moved', $p->dir . '/states';
rename "$state", "$state.moved";
mkdir $state;
is +(api('POST', 'stated/servers', { server => $at{b} }))[0], 500, 'the file cannot be written: an error';
is +(api('PATCH', 'stated/servers/0', { weight => 5 }))[0], 500, 'nor can one be changed';
is scalar(servers('stated')), 2, 'nothing has changed';
is +(servers('stated'))[0]{weight}, 1, 'nothing at all';
rmdir $state;
rename "$state.moved", $state;
is add('stated', server => $at{b}), 2, 'it is back: no number was lost';
ok $p->reload(), 'reload';
is seen('/stated'), 'abd', 'all of them';
$p->write_conf($conf =~ s{(location /stated \{ proxy_pass http://stated;)}{$1 health_check interval=1h;}r);
ok $p->reload(), 'reload with other checks';
is seen('/stated'), 'abd', 'all of them, still';
is add('stated', server => $at{c}), 3, 'and another';
is seen('/stated'), 'abcd', 'serves';
is del('stated', 3), 200, 'goes';
$p->write_conf($conf);
ok $p->reload(), 'reload without them';
is seen('/stated'), 'abd', 'as it was';
$p->expect_log(qr/./);

# --- names ----------------------------------------------------------------------------------------------------------
is add('named', server => 'x.test:' . $p->port('a'), max_fails => 2), 0, 'a name';
ok Proxyd::wait_for(sub { servers('named') == 2 }, 10), 'is resolved';
my @named = servers('named');
is_deeply [@{ $named[1] }{qw(server parent host max_fails)}], [$at{a}, 0, 'x.test:' . $p->port('a'), 2], 'its address';
is seen('/named'), 'a', 'serves';
like del('named', 1), qr/^400$/, 'and cannot be removed by itself';
is $p->read_file('states/named.conf'), 'server x.test:' . $p->port('a') . " max_fails=2 resolve;\n", 'the file has the name';
patch('named', 0, max_fails => 7);
is +(servers('named'))[1]{max_fails}, 7, 'what changes for the name changes for its address';
is add('named', server => 's.test', service => 'http'), 2, 'a service';
ok Proxyd::wait_for(sub { my @s = servers('named'); @s == 4 && $s[3]{weight} == 5 }, 10), 'is resolved, with its weight';
is seen('/named'), 'ab', 'and serves';
is del('named', 0), 200, 'the name goes';
is seen('/named'), 'b', 'and its address';
$dns->records('x.test 1 A 127.0.0.1', "_http._tcp.s.test 1 SRV 1 5 " . $p->port('c') . ' x.test');
ok Proxyd::wait_for(sub { seen('/named', 8) eq 'c' }, 10), 'the service moves';
ok $p->reload, 'reload';
is seen('/named', 8), 'c', 'its address is known still';

# --- a reload that fails --------------------------------------------------------------------------------------------
my $dyn = add('dyn', server => $at{c});
my $full = join ' ', map { my $n = $_; map { "server 127.1.$n.$_:1;" } 1 .. 100 } 1 .. 4;
$p->write_conf($conf =~ s/upstream static/upstream full { zone full 32k; $full } upstream static/r);
ok $p->reload(fails => 1), 'a reload that fails when zones have been taken over';
is seen('/dyn'), 'abc', 'changes without a state file are still there';
is add('dyn', server => $at{d}), $dyn + 1, 'and others can be made';
is seen('/dyn'), 'abcd', 'and seen';
my ($victim) = $p->workers;
kill 'KILL', $victim;
ok Proxyd::wait_for(sub { my @w = $p->workers; @w == 4 && !grep { $_ == $victim } @w }, 10), 'a worker dies, another one begins';
is seen('/dyn', 60), 'abcd', 'and has them as well';
is seen('/stated'), 'abd', 'as well as those of a state file';
$p->write_conf($conf);

# --- a new binary ---------------------------------------------------------------------------------------------------
$p->signal('USR2');
ok Proxyd::wait_for(sub {
    my $pid = $p->pid_file || 0;
    -e $p->dir . '/proxyd.pid.oldbin' && $pid > 0 && $pid != $p->master && $p->workers($pid) == 4;
}, 15), 'upgrade: a new master and its workers';
my $new = $p->pid_file;
$p->signal('QUIT');
ok $p->adopt($new), 'the old one goes';
is seen('/stated'), 'abd', 'the servers of the state file are there';
is add('stated', server => $at{c}), 3, 'their numbers go on';
is del('stated', 3), 200, 'and they can be changed';

# --- many at a time -----------------------------------------------------------------------------------------------
my @pids;
for my $k (1 .. 4) {
    my $pid = fork // die;
    if (!$pid) {
        my ($ok, %mine) = (1);
        for my $i (1 .. 40) {
            my $id = eval { add('many', server => "127.$k.0.$i:1", down => JSON::PP::true) };
            next unless defined $id;
            $ok = 0 if $id !~ /^\d+$/ || $mine{$id}++;
            if ($i % 2) { $ok = 0 unless del('many', $id) == 200 }
        }
        POSIX::_exit($ok ? 0 : 1);
    }
    push @pids, $pid;
}
$p->get('/dyn') for 1 .. 100;
my $bad = 0;
for (@pids) { waitpid $_, 0; $bad++ if $? }
is $bad, 0, 'four at a time';
my @many = servers('many');
is scalar(@many), 80, 'none is lost';
is join('', map { "server $_->{server} down;\n" } @many), $p->read_file('states/many.conf'), 'the file says the same';

# --- more changes than are remembered, while a configuration is read: a log that is a pipe is opened when somebody reads it ---
system 'mkfifo', $p->dir . '/pipe';
my $usual = $p->read_file('proxyd.conf');
$p->write_file('proxyd.conf', $usual =~ s/^http \{/http { access_log pipe;/mr);
@before = $p->workers;
$p->signal('HUP');
# It has come to the pipe when the master sleeps in the opening of it; where that cannot be seen, two seconds will do.
Proxyd::wait_for(sub { open my $fh, '<', "/proc/@{[ $p->master ]}/wchan" or return; (<$fh> // '') =~ /fifo|pipe|partner/ }, 2);
my @late = map { add('many', server => "127.8.0.$_:1", down => JSON::PP::true) } 1 .. 12;
is scalar(grep { /^\d+$/ } @late), 12, 'changes while a reload is under way';
open my $pipe, '<', $p->dir . '/pipe' or die $!;
ok Proxyd::wait_for(sub { my @w = $p->workers; @w == 4 && !grep { my $w = $_; grep { $_ == $w } @before } @w }, 10), 'which ends';
is scalar(grep { $_->{server} =~ /^127\.8\./ } servers('many')), 12, 'and loses none of them';
is join('', map { "server $_->{server} down;\n" } servers('many')), $p->read_file('states/many.conf'), 'nor does the file';
del('many', $_) for @late;
$p->write_file('proxyd.conf', $usual);
@before = $p->workers;
$p->signal('HUP');
ok Proxyd::wait_for(sub { my @w = $p->workers; @w == 4 && !grep { my $w = $_; grep { $_ == $w } @before } @w }, 10), 'without the pipe';
close $pipe;

# --- an older state file, put back by hand ------------------------------------------------------------------------------
my $older = $p->read_file('states/many.conf');
add('many', server => '127.7.0.1:1', down => JSON::PP::true);
$p->write_file('states/many.conf', $older);
@before = $p->workers;
$p->signal('HUP');
ok Proxyd::wait_for(sub { my @w = $p->workers; @w == 4 && !grep { my $w = $_; grep { $_ == $w } @before } @w }, 10), 'a reload';
is join('', map { "server $_->{server} down;\n" } servers('many')), $older, 'takes it';

# --- deaths, all the time ---------------------------------------------------------------------------------------------
my $editor = fork // die;
if (!$editor) {
    for my $i (1 .. 150) { eval { my $id = add('many', server => "127.9.0.$i:1", down => JSON::PP::true); del('many', $id) if $id =~ /^\d+$/ && $i % 3 } }
    POSIX::_exit(0);
}
for my $i (1 .. 12) {
    my @w = $p->workers;
    kill 'KILL', $w[$i % @w] if @w;
    if ($i % 4 == 0) { $p->signal('HUP') }
    select undef, undef, undef, 0.05;
}
waitpid $editor, 0;
ok Proxyd::wait_for(sub { $p->workers >= 4 }, 20), 'workers are there';
ok Proxyd::wait_for(sub { my @s = eval { servers('many') }; @s && join('', map { "server $_->{server} down;\n" } @s) eq $p->read_file('states/many.conf') }, 10)
    || add('many', server => '127.0.0.9:1', down => JSON::PP::true) =~ /^\d+$/, 'the group lives';
add('many', server => '127.0.0.8:1', down => JSON::PP::true);
is join('', map { "server $_->{server} down;\n" } servers('many')), $p->read_file('states/many.conf'), 'and says what its file says';
is seen('/stated'), 'abd', 'the others serve';
my $file = $p->read_file('states/servers.conf');

# --- the end of everything ----------------------------------------------------------------------------------------------
my @all = ($p->master, $p->workers);
kill 'KILL', @all;
Proxyd::wait_for(sub { !grep { kill 0, $_ } @all });
unlink $p->dir . '/proxyd.pid';
$p->start(daemon => 1);
Proxyd::wait_for(sub { $p->workers == 4 });
is seen('/stated'), 'abd', 'kill -9 of all: the servers are there again';
is $p->read_file('states/servers.conf'), $file, 'as they were';
$p->stop;
$dns->stop;
done_testing;
