# SPDX-License-Identifier: BSD-2-Clause
#
# The API on groups of servers: what is shown, each change and each error, numbers over four workers, changes under
# load, the state file, kill -9.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/lib";
use IO::Socket::INET;
use JSON::PP ();
use Test::More;
use Proxyd;

plan skip_all => 'nginx has no api' if Proxyd::is_nginx();

my $json = JSON::PP->new->utf8->canonical->allow_nonref;
my $p = Proxyd->new(conf => <<'EOT');
worker_processes 4;
http {
    upstream app { zone app 256k; state {{dir}}/state/app.conf; }
    upstream fixed { server 127.0.0.1:{{port:a}}; }
    upstream lines {
        zone lines 128k;
        server 127.0.0.1:{{port:a}} weight=5 max_fails=3 fail_timeout=30s max_conns=100 slow_start=20s route=a;
        server 127.0.0.1:{{port:b}} down;
        server 127.0.0.1:{{port:c}} backup;
    }
    upstream named { zone named 64k; server localhost:{{port:c}}; }
    upstream hashed { zone hashed 64k; hash $uri; server 127.0.0.1:{{port:a}}; }
    upstream queued { zone queued 64k; server 127.0.0.1:{{port:a}} max_conns=1; queue 10 timeout=5s; }
    upstream kept { zone kept 64k; server 127.0.0.1:{{port:a}}; keepalive 8; }
    upstream bad { zone bad 64k; server 127.0.0.1:1 max_fails=1 fail_timeout=1h; server 127.0.0.1:{{port:a}}; }
    upstream tiny { zone tiny 32k; server 127.0.0.1:{{port:a}}; }
    server {
        listen 127.0.0.1:{{port}};
        location /api { api write=on; }
        location /app { proxy_pass http://app; }
        location /lines { proxy_pass http://lines; }
        location /bad { proxy_pass http://bad; }
        location /queued { proxy_pass http://queued; }
        location /kept { proxy_pass http://kept; proxy_http_version 1.1; proxy_set_header Connection ""; }
    }
    server { listen 127.0.0.1:{{port:a}}; location / { return 200 a; } location /app/500 { return 500; } location /app/404 { return 404; } }
    server { listen 127.0.0.1:{{port:b}}; location / { return 200 b; } }
    server { listen 127.0.0.1:{{port:c}}; location / { return 200 c; } }
}
EOT
mkdir $p->dir . '/state';
chmod 0777, $p->dir . '/state';
$p->start;
my %at = map { $_ => '127.0.0.1:' . $p->port($_) } qw(a b c);

sub api {
    my ($method, $path, $body, %o) = @_;
    my $version = $o{version} || 9;
    my $r = $p->request($method, "/api/$version/http/upstreams$path", defined $body ? (body => ref $body ? $json->encode($body) : $body) : ());
    $r->{json} = $r->body eq '' ? undef : eval { $json->decode($r->body) };
    return $r;
}
sub get { return api('GET', $_[0])->{json} }
sub state { return $p->read_file('state/app.conf') // '' }

# --- what is shown -------------------------------------------------------------------------------------

my %plain = (weight => 1, max_conns => 0, max_fails => 1, fail_timeout => '10s', slow_start => '0s', route => '',
    backup => JSON::PP::false, down => JSON::PP::false);
is($json->encode(get('/app/servers')), '[]', 'a group without servers');
is($json->encode(get('/lines/servers')), $json->encode([
    { %plain, id => 0, server => $at{a}, weight => 5, max_fails => 3, fail_timeout => '30s', max_conns => 100, slow_start => '20s', route => 'a' },
    { %plain, id => 1, server => $at{b}, down => JSON::PP::true },
    { %plain, id => 2, server => $at{c}, backup => JSON::PP::true },
]), 'servers as they are configured');
is($json->encode(get('/lines/servers/1')), $json->encode(get('/lines/servers')->[1]), 'one of them');
my $group = get('/lines');
is(join(',', sort keys %$group), 'keepalive,peers,zombies,zone', 'a group');
is($group->{zone}, 'lines', 'its zone');
is($json->encode($group->{peers}[1]), $json->encode({ id => 1, server => $at{b}, name => $at{b}, backup => JSON::PP::false,
    weight => 1, state => 'down', active => 0, requests => 0, sent => 0, received => 0, fails => 0, unavail => 0, downtime => 0,
    responses => { (map { ("${_}xx" => 0) } 1 .. 5), total => 0,
        exists $group->{peers}[1]{responses}{codes} ? (codes => {}) : () },
    health_checks => { checks => 0, fails => 0, unhealthy => 0 } }), 'a server that is down');
for my $peer (@{ get('/named')->{peers} }) {
    is($peer->{name}, 'localhost:' . $p->port('c'), 'a name as it is written');
    like($peer->{server}, qr/^(?:127\.0\.0\.1|\[::1\]):\d+$/, 'and its address');
}
like($_->{server}, qr/^(?:127\.0\.0\.1|\[::1\]):\d+$/, 'where servers are listed its address') for @{ get('/named/servers') };
is($group->{peers}[0]{max_conns}, 100, 'max_conns');
is(join(',', sort keys %{ api('GET', '/lines?fields=zone,keepalive')->{json} }), 'keepalive,zone', 'fields');
is($json->encode(api('GET', '?fields=')->{json}), $json->encode([qw(app lines named hashed queued kept bad tiny)]), 'names');
is(join(',', sort keys %{ get('') }), 'app,bad,hashed,kept,lines,named,queued,tiny', 'groups with a zone');
is($json->encode(get('/queued')->{queue}), '{"max_size":40,"overflows":0,"size":0}', 'a queue, of four workers') or diag($json->encode(get('/queued')));

# --- numbers -------------------------------------------------------------------------------------------

$p->get('/kept') for 1 .. 40;
is(get('/kept')->{peers}[0]{requests}, 40, 'requests of all workers');
cmp_ok(get('/kept')->{keepalive}, '>=', 1, 'kept connections of all workers');
is(get('/kept')->{peers}[0]{responses}{'2xx'}, 40, 'responses');
cmp_ok(get('/kept')->{peers}[0]{received}, '>', 40 * 50, 'bytes received');
cmp_ok(get('/kept')->{peers}[0]{sent}, '>', 40 * 20, 'bytes sent');
like(get('/kept')->{peers}[0]{selected}, qr/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/, 'when it was chosen last');
ok(defined get('/kept')->{peers}[0]{$_}, $_) for qw(header_time response_time);
$p->expect_log(qr/Connection refused|upstream server temporarily disabled/);
$p->get('/bad') for 1 .. 8;
my $bad = get('/bad')->{peers}[0];
is("$bad->{state} $bad->{fails} $bad->{unavail}", 'unavail 1 1', 'a server that failed');
like($bad->{downstart}, qr/^\d{4}-.*Z$/, 'since when');
is(api('DELETE', '/bad')->status, 204, 'reset');
is(get('/bad')->{peers}[0]{fails}, 0, 'failures are forgotten');
is(get('/bad')->{peers}[1]{requests}, 0, 'requests too');
is(api('DELETE', '/kept')->status, 204, 'reset of another group');
is(get('/kept')->{peers}[0]{requests}, 0, 'its requests');

# --- changes ---------------------------------------------------------------------------------------------

my $r = api('POST', '/app/servers', { server => $at{a} });
is($r->status, 201, 'POST');
is($json->encode($r->{json}), $json->encode({ %plain, id => 0, server => $at{a} }), 'POST: the server');
like($r->header('Location'), qr{/api/9/http/upstreams/app/servers/0$}, 'POST: Location');
like(state(), qr/^server $at{a};$/m, 'POST: in the state file');
is($p->get('/app')->body, 'a', 'POST: it serves');
$r = api('POST', '/app/servers/', { server => $at{b}, weight => 3, max_conns => 7, max_fails => 2, fail_timeout => '1m', slow_start => 5,
    route => 'rb', down => JSON::PP::true });
is($json->encode($r->{json}), $json->encode({ %plain, id => 1, server => $at{b}, weight => 3, max_conns => 7, max_fails => 2,
    fail_timeout => '60s', slow_start => '5s', route => 'rb', down => JSON::PP::true }), 'POST: all parameters');
for (
    [{ down => JSON::PP::false }, { down => JSON::PP::false }, 'down'],
    [{ weight => 2 }, { weight => 2 }, 'weight'], [{ weight => '4' }, { weight => 4 }, 'a number in a string'],
    [{ max_conns => 0 }, { max_conns => 0 }, 'max_conns'], [{ max_fails => 0 }, { max_fails => 0 }, 'max_fails'],
    [{ fail_timeout => 3 }, { fail_timeout => '3s' }, 'fail_timeout'], [{ fail_timeout => '2m' }, { fail_timeout => '120s' }, 'as a time'],
    [{ slow_start => '0' }, { slow_start => '0s' }, 'slow_start'], [{ route => 'x' }, { route => 'x' }, 'route'],
    [{ drain => JSON::PP::true }, { drain => JSON::PP::true }, 'drain'],
    [{ down => JSON::PP::false }, { drain => undef }, 'down: false ends draining'],
    [{ id => 1, server => $at{b}, backup => JSON::PP::false, weight => 1 }, { weight => 1 }, 'what is shown may be sent back'],
    [{}, {}, 'nothing'],
) {
    my ($change, $want, $what) = @$_;
    my $before = get('/app/servers/1');
    my $r = api('PATCH', '/app/servers/1', $change);
    my %want = (%$before, %$want);
    defined $want{$_} or delete $want{$_} for keys %want;
    is($r->status, 200, "PATCH: $what: status");
    is($json->encode($r->{json}), $json->encode(\%want), "PATCH: $what");
    is($json->encode(get('/app/servers/1')), $json->encode(\%want), "PATCH: $what: seen again");
}
is(join('', sort map { $p->get('/app')->body } 1 .. 40) =~ tr/b//, 20, 'both serve in turn, over all workers');
is(get('/app')->{peers}[1]{requests}, 20, 'and their requests add up');
$p->get("/app/$_") for (500) x 8, (404) x 8;
my $codes = get('/app')->{peers}[0]{responses};
is("$codes->{'4xx'} $codes->{'5xx'}", '4 4', 'responses by class');
$r = api('DELETE', '/app/servers/0');
is($r->status, 200, 'DELETE');
is($json->encode($r->{json}), $json->encode([get('/app/servers/1')]), 'DELETE: who is left');
is(join('', map { $p->get('/app')->body } 1 .. 12), 'b' x 12, 'DELETE: it serves no more');
is(api('POST', '/app/servers', { server => $at{c} })->{json}{id}, 2, 'ids are not used twice');
is(api('POST', '/lines/servers', { server => $at{a}, backup => JSON::PP::true })->{json}{id}, 3, 'a backup server');

# --- errors --------------------------------------------------------------------------------------------

my $s = '/app/servers';
for (
    ['GET', "$s/9", undef, 404, 'UpstreamServerNotFound', 'server with ID "9" does not exist'],
    ['PATCH', "$s/9", {}, 404, 'UpstreamServerNotFound', 'server with ID "9" does not exist'],
    ['DELETE', "$s/0", undef, 404, 'UpstreamServerNotFound', 'server with ID "0" does not exist'],
    (map { ['GET', "$s/$_", undef, 400, 'UpstreamBadServerId', 'invalid server ID'] } 'x', '-1', '1x', '99999999999'),
    ['POST', '/none/servers', {}, 404, 'UpstreamNotFound', 'upstream not found'],
    ['POST', '/fixed/servers', {}, 400, 'UpstreamStatic', 'upstream is static'],
    ['PATCH', '/fixed/servers/0', {}, 400, 'UpstreamStatic', 'upstream is static'],
    ['DELETE', '/fixed/servers/0', undef, 400, 'UpstreamStatic', 'upstream is static'],
    ['POST', $s, '', 415, 'JsonError', qr/json error/], ['POST', $s, '{', 415, 'JsonError', qr/json error/],
    ['POST', $s, '[]', 400, 'UpstreamConfFormatError', qr/object/],
    ['POST', $s, {}, 400, 'UpstreamConfFormatError', 'missing "server" argument'],
    ['POST', $s, { server => '' }, 400, 'UpstreamConfFormatError', 'missing "server" argument'],
    ['POST', $s, { server => 1 }, 400, 'UpstreamConfFormatError', 'invalid "server" value'],
    ['POST', $s, { server => '127.0.0.1:99999' }, 400, 'UpstreamBadAddress', qr/invalid port/],
    ['POST', $s, { server => '127.0.0.1:1;' }, 400, 'UpstreamBadAddress', qr/./],
    ['POST', $s, { server => 'name.test' }, 400, 'UpstreamConfNoResolver', qr/no resolver defined/],
    ['POST', $s, { server => $at{a}, x => 1 }, 400, 'UpstreamConfFormatError', 'unknown parameter "x"'],
    ['POST', $s, { server => $at{a}, weight => [1] }, 400, 'UpstreamConfFormatError', 'nested object or list'],
    ['POST', $s, { server => {} }, 400, 'UpstreamConfFormatError', 'nested object or list'],
    (map { ['POST', $s, { server => $at{a}, weight => $_ }, 400, 'UpstreamBadWeight', 'invalid "weight"'] } 0, -1, 'x', 1.5, 1e12, JSON::PP::true),
    (map { ['POST', $s, { server => $at{a}, max_conns => $_ }, 400, 'UpstreamBadMaxConns', 'invalid "max_conns"'] } -1, 'x'),
    (map { ['POST', $s, { server => $at{a}, max_fails => $_ }, 400, 'UpstreamBadMaxFails', 'invalid "max_fails"'] } -1, 'x'),
    (map { ['POST', $s, { server => $at{a}, fail_timeout => $_ }, 400, 'UpstreamBadFailTimeout', 'invalid "fail_timeout"'] } -1, '1x', '5ms'),
    (map { ['POST', $s, { server => $at{a}, slow_start => $_ }, 400, 'UpstreamBadSlowStart', 'invalid "slow_start"'] } -1, '1x'),
    ['POST', $s, { server => $at{a}, down => 1 }, 400, 'UpstreamConfFormatError', 'invalid "down" value'],
    ['POST', $s, { server => $at{a}, backup => 'yes' }, 400, 'UpstreamConfFormatError', 'invalid "backup" value'],
    ['POST', $s, { server => $at{a}, route => 'r' x 33 }, 400, 'UpstreamBadRoute', 'route is too long'],
    ['POST', $s, { server => $at{a}, service => '' }, 400, 'UpstreamBadService', '"service" is empty'],
    ['POST', $s, { server => '127.0.0.1:' . '0' x 5000 . '80' }, 400, 'UpstreamBadAddress', qr/./],
    ['POST', $s, { server => $at{a}, service => 'http', backup => JSON::PP::true }, 400, 'UpstreamConfFormatError', qr/"service"/],
    ['POST', '/hashed/servers', { server => $at{a}, backup => JSON::PP::true }, 400, 'UpstreamNoBackup', 'upstream "hashed" has no backup'],
    ['PATCH', "$s/1", { server => $at{c} }, 400, 'UpstreamServerImmutable', 'server "1" address is immutable'],
    ['PATCH', "$s/1", { backup => JSON::PP::true }, 400, 'UpstreamServerImmutable', 'server "1" backup is immutable'],
    ['PATCH', "$s/1", { service => 'x' }, 400, 'UpstreamServerImmutable', 'server "1" service is immutable'],
    ['PATCH', "$s/1", { weight => 0 }, 400, 'UpstreamBadWeight', 'invalid "weight"'],
    ['PUT', "$s/1", {}, 405, 'MethodNotAllowed', qr/./], ['POST', "$s/1", {}, 405, 'MethodNotAllowed', qr/./],
    ['DELETE', $s, undef, 405, 'MethodNotAllowed', qr/./],
) {
    my ($method, $path, $body, $status, $code, $text) = @$_;
    my $what = "$method $path " . (defined $body ? ref $body ? $json->encode($body) : $body : '');
    my $before = state() . $json->encode(get($s));
    my $r = api($method, $path, $body);
    is($r->status, $status, "$what: status");
    is($r->{json}{error}{code}, $code, "$what: code");
    ref $text ? like($r->{json}{error}{text}, $text, "$what: text") : is($r->{json}{error}{text}, $text, "$what: text");
    is(state() . $json->encode(get($s)), $before, "$what: nothing has changed");
}

# Whoever holds the lock of the state file and is stuck does not take a worker with it.
{
    open my $dir, '<', $p->dir . '/state' or die $!;
    flock $dir, 2 or die "flock: $!";
    $p->expect_log(qr{state file .* cannot be locked});
    my $before = state() . $json->encode(get($s));
    my $r = api('PATCH', "$s/1", { weight => 9 });
    is($r->status, 500, 'the lock is not to be had: status');
    is($r->{json}{error}{code}, 'UpstreamNotSaved', 'the lock is not to be had: code');
    is(state() . $json->encode(get($s)), $before, 'the lock is not to be had: nothing has changed');
}

# The zone's memory ends, and goes on when there is some again.
my ($full, @ids);
for my $n (1 .. 2000) {
    my $r = api('POST', '/tiny/servers', { server => "127.0.0.2:$n", route => "r$n" });
    if ($r->status != 201) { $full = $r; last }
    push @ids, $r->{json}{id};
}
ok($full, 'a zone can be full');
is($full->status . " $full->{json}{error}{code}", '400 UpstreamOutOfMemory', 'which is said') if $full;
is(scalar @{ get('/tiny/servers') }, 1 + @ids, 'what went in is there');
is(api('DELETE', "/tiny/servers/$ids[-1]")->status, 200, 'one less');
is(api('POST', '/tiny/servers', { server => '127.0.0.2:1' })->status, 201, 'makes room');
is($p->get('/app')->status, 200, 'others go on');

# --- changes under load ----------------------------------------------------------------------------------

# A child asks as fast as it can and writes down what was no 200, until the parent closes its end.
pipe my $stop_r, my $stop_w or die;
pipe my $out_r, my $out_w or die;
my $pid = fork;
die "fork: $!" unless defined $pid;
if (!$pid) {
    close $_ for $stop_w, $out_r;
    my ($requests, $wrong) = (0, 0);
    until (IO::Select->new($stop_r)->can_read(0)) {
        my $r = $p->get('/app');
        $requests++;
        $wrong++ if $r->status != 200 || $r->body !~ /^[abc]$/;
    }
    print $out_w "$requests $wrong\n";
    close $out_w;
    POSIX::_exit(0);
}
close $_ for $stop_r, $out_w;
my $failed = 0;
for my $n (1 .. 100) {
    my $id = api('POST', $s, { server => (values %at)[$n % 3], weight => 1 + $n % 4 })->{json}{id};
    my @all = @{ get($s) };
    $failed++ if api('PATCH', "$s/$id", { weight => 2 })->status != 200;
    $failed++ if api('PATCH', "$s/$all[0]{id}", { drain => JSON::PP::true })->status != 200;
    $failed++ if api('DELETE', "$s/$all[0]{id}")->status != 200;
}
close $stop_w;
my ($requests, $wrong) = split ' ', scalar readline $out_r;
waitpid $pid, 0;
is($failed, 0, 'changes under load');
is($wrong, 0, "none of $requests requests failed meanwhile");

# --- what survives -----------------------------------------------------------------------------------------

sub plain { my @s = map { { %$_ } } @{ get($s) }; delete $_->{id} for @s; return $json->encode(\@s) }
api('POST', $s, { server => $at{a}, weight => 9, max_conns => 5, max_fails => 7, fail_timeout => '11s', slow_start => '13s', route => 'z',
    down => JSON::PP::true });
my $servers = plain();
$p->reload;
is(plain(), $servers, 'a reload keeps the servers');
is(scalar @{ get('/lines/servers') }, 3, 'a group without a state file has those of the file again');
$p->expect_log(qr{exited on signal 9|the master process has gone});
my @w = $p->workers;
kill 'KILL', @w;
ok($p->wait_for(sub { my @now = $p->workers; @now == 4 && !grep { my $n = $_; grep { $_ == $n } @w } @now }, 10), 'workers die');
is(plain(), $servers, 'and their servers stay');
my @all = ($p->master, $p->workers);
kill 'KILL', @all;
waitpid $p->master, 0;
$p->wait_for(sub { !grep { Proxyd::alive($_) } @all }, 10);
unlink $p->dir . '/proxyd.pid';
$p->start;
is(plain(), $servers, 'kill -9 of all and a start: the state file has them');
is($p->get('/app')->status, 200, 'and they serve');
is(api('GET', '/lines/servers')->{json}[0]{weight}, 5, 'without a state file: as the file says');

$p->stop;
done_testing();
