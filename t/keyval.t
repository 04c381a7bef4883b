# SPDX-License-Identifier: BSD-2-Clause
#
# keyval: variables looked up in a zone of pairs by the three rules, set by `set`, kept in a file
# across restarts, reloads, kills and new binaries.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/lib";
use JSON::PP ();
use Test::More;
use Proxyd;

plan skip_all => 'nginx has no keyval' if Proxyd::is_nginx();

my $json = JSON::PP->new->utf8;

my $conf = <<'EOT';
worker_processes WORKERS;
http {
    keyval_zone zone=one:64k state=state/one.json;
    keyval_zone zone=ip:64k type=ip state=state/ip.json;
    keyval_zone zone=prefix:64k type=prefix state=state/prefix.json;
    keyval_zone zone=timed:64k timeout=1h state=state/timed.json;
    keyval_zone zone=short:64k timeout=300ms;
    keyval_zone zone=small:32k;
    keyval $arg_k $one zone=one;
    keyval $arg_k $ip zone=ip;
    keyval $remote_addr $peer zone=ip;
    keyval $arg_k $prefix zone=prefix;
    keyval $arg_k $timed zone=timed;
    keyval $arg_k $short zone=short;
    keyval $arg_k $small zone=small;
    keyval $arg_k-$arg_l $joined zone=one;
    map $one $mapped { default none; "" empty; v1 one; }
    server {
        listen 127.0.0.1:{{port}};
        location /one { return 200 "[$one]"; }
        location /ip { return 200 "[$ip]"; }
        location /peer { return 200 "[$peer]"; }
        location /prefix { return 200 "[$prefix]"; }
        location /timed { return 200 "[$timed]"; }
        location /short { return 200 "[$short]"; }
        location /small { return 200 "[$small]"; }
        location /joined { return 200 "[$joined]"; }
        location /mapped { return 200 "[$mapped]"; }
        location /if { if ($one) { return 200 yes; } return 200 no; }
        location /set/one { set $one $arg_v; return 200 "[$one]"; }
        location /set/ip { set $ip $arg_v; return 200 "[$ip]"; }
        location /set/prefix { set $prefix $arg_v; return 200 "[$prefix]"; }
        location /set/timed { set $timed $arg_v; return 200 "[$timed]"; }
        location /set/short { set $short $arg_v; return 200 "[$short]"; }
        location /set/small { set $small $arg_v; return 200 "[$small]"; }
        location /changed { set $before $one; set $one $arg_v; return 200 "[$before][$one]"; }
    }
}
EOT

sub conf { my ($workers) = @_; return $conf =~ s/WORKERS/$workers/r }

# The pairs in a state file: name => value or { value, expire }.
sub state {
    my ($p, $name) = @_;
    my $text = $p->read_file("state/$name.json");
    return defined $text ? eval { $json->decode($text) } || { error => $@ } : {};
}

sub body { my ($p, $uri) = @_; return $p->get($uri)->body }

# Waits until the file has a key with this value.
sub in_file {
    my ($p, $name, $key, $value) = @_;
    return $p->wait_for(sub {
        my $v = state($p, $name)->{$key};
        $v = $v->{value} if ref $v;
        return defined $v && $v eq $value;
    }, 10);
}

# --- looking up ------------------------------------------------------------------------------------

my $p = Proxyd->new(conf => conf(1), files => {
    'state/one.json' => '{"a":"v1", "e":"", "q\u0022\u00e9":"line\nfeed", "a-b":"both"}',
    'state/ip.json' => '{"10.0.0.0/8":"ten","10.1.2.3":"host","127.0.0.0/8":"loop","2001:db8::/32":"six"}',
    'state/prefix.json' => '{"/a":"1","/a/b":"2","/c":"3"}',
    'state/timed.json' => '{"gone":{"value":"x","expire":0},"here":{"value":"y","expire":3000000},"plain":"z"}',
});
$p->start;

for (
    ['/one?k=a', 'v1', 'a key'],
    ['/one?k=A', '', 'case counts'],
    ['/one?k=b', '', 'no such key'],
    ['/one', '', 'no key'],
    ['/one?k=e', '', 'an empty value'],
    ['/one?k=aa', '', 'a longer key'],
    ['/joined?k=a&l=b', 'both', 'a key of several variables'],
    ['/mapped?k=a', 'one', 'map sees the value'],
    ['/mapped?k=b', 'empty', 'and that there is none'],
    ['/ip?k=10.1.2.3', 'host', 'an address'],
    ['/ip?k=10.1.2.4', 'ten', 'the network around it'],
    ['/ip?k=10.1.0.0/16', 'ten', 'a network in a network'],
    ['/ip?k=11.0.0.1', '', 'no network'],
    ['/ip?k=2001:db8:1::1', 'six', 'IPv6'],
    ['/ip?k=x', '', 'no address'],
    ['/peer', 'loop', "the client's address"],
    ['/prefix?k=/a/x', '1', 'a prefix'],
    ['/prefix?k=/a/bc', '2', 'the longest one'],
    ['/prefix?k=/', '', 'no prefix'],
    ['/timed?k=here', 'y', 'time left'],
    ['/timed?k=gone', '', 'no time left'],
    ['/timed?k=plain', 'z', "the zone's time"],
) { is(body($p, $_->[0]), "[$_->[1]]", "$_->[0]: $_->[2]") }
is(body($p, '/if?k=a'), 'yes', 'if: there');
is(body($p, '/if?k=b'), 'no', 'if: not there');

# --- setting ---------------------------------------------------------------------------------------

is(body($p, '/set/one?k=new&v=n1'), '[n1]', 'set');
is(body($p, '/one?k=new'), '[n1]', 'the next request sees it');
is(body($p, '/changed?k=new&v=n2'), '[n1][n2]', 'before and after, in one request');
is(body($p, '/set/one?k=a&v='), '[]', 'an empty value');
is(body($p, '/set/ip?k=10.9.9.9/16&v=sixteen'), '[sixteen]', 'a network');
is(body($p, '/ip?k=10.9.1.1'), '[sixteen]', 'matches');
is(body($p, '/set/ip?k=nonsense&v=x'), '[x]', 'no address: the request has its value');
is(body($p, '/ip?k=nonsense'), '[]', 'but it is not stored');
ok($p->wait_log(qr/\[error\] .*could not set "ip" in keyval zone "ip": the key is neither an address nor a network.*request: "GET \/set\/ip/), 'and logged');
is(body($p, '/set/prefix?k=/a/b/c&v=9'), '[9]', 'a prefix');
is(body($p, '/prefix?k=/a/b/cd'), '[9]', 'matches');

my $full = 0;
for my $n (1 .. 2000) {
    body($p, "/set/small?k=k$n&v=" . 'x' x 100);
    next if body($p, "/small?k=k$n") ne '[]';
    $full = $n;
    last;
}
ok($full > 50, "a full zone keeps what it has ($full)");
ok($p->wait_log(qr/could not set "small" in keyval zone "small": the zone is full/), 'and says so');
isnt(body($p, '/small?k=k1'), '[]', 'the first pair is still there');

# --- expiry ------------------------------------------------------------------------------------------

is(body($p, '/set/short?k=a&v=1'), '[1]', 'set, for 300 ms');
ok($p->wait_for(sub { body($p, '/short?k=a') eq '[]' }), 'expired');
is(body($p, '/set/short?k=a&v=2'), '[2]', 'set again');

# --- the file ----------------------------------------------------------------------------------------

ok(in_file($p, 'one', 'new', 'n2'), 'a change comes into the file');
my $state = state($p, 'one');
is_deeply($state, { a => '', e => '', "q\"\x{e9}" => "line\nfeed", 'a-b' => 'both', new => 'n2' },
    'all pairs, escaped as JSON wants it') or diag(explain($state));
ok(in_file($p, 'ip', '10.9.0.0/16', 'sixteen'), 'addresses as text');
is(body($p, '/set/timed?k=t&v=1'), '[1]', 'a pair with a time');
ok(in_file($p, 'timed', 't', '1'), 'in the file');
my $left = state($p, 'timed')->{t}{expire};
ok($left > 3_500_000 && $left <= 3_600_000, 'with the milliseconds it has left');
ok(state($p, 'timed')->{here}{expire} <= 3_000_000, 'the older one too');
ok(!exists state($p, 'timed')->{gone}, 'what has expired is not there');
is((stat $p->dir . '/state/one.json')[2] & 07777, 0600, 'readable to us only');
ok(!-e $p->dir . '/state/one.json.tmp', 'nothing is left behind');

# Killed without warning.
my $master = $p->master;
kill 'KILL', -$p->{pgid};
waitpid $master, 0;
ok($p->wait_for(sub { !Proxyd::left_in_group($p->{pgid}) }), 'killed');
delete $p->{pid};
unlink $p->dir . '/proxyd.pid';
$p->start;
is(body($p, '/one?k=new'), '[n2]', 'after a new start');
is(body($p, '/prefix?k=/a/b/cd'), '[9]', 'prefixes too');
is(body($p, '/ip?k=10.9.1.1'), '[sixteen]', 'and addresses');
is(body($p, '/timed?k=t'), '[1]', 'and what has time left');
is(body($p, '/small?k=k1'), '[]', 'not what is not kept in a file');

# What was set last is written before the end.
is(body($p, '/set/one?k=last&v=1'), '[1]', 'set');
$p->signal('QUIT');
waitpid $p->master, 0;
delete $p->{pid};
is(state($p, 'one')->{last}, '1', 'in the file when the server has ended');
$p->start;

# A worker that dies takes nothing along.
is(body($p, '/set/one?k=worker&v=1'), '[1]', 'set');
is(body($p, '/set/small?k=worker&v=2'), '[2]', 'and in a zone without file');
my ($worker) = $p->workers;
$p->expect_log(qr/worker process \d+ exited on signal 9/);
kill 'KILL', $worker;
ok($p->wait_for(sub { my @w = $p->workers; @w == 1 && $w[0] != $worker }), 'another worker');
is(body($p, '/one?k=worker'), '[1]', 'the pair is there');
is(body($p, '/small?k=worker'), '[2]', 'the other one too');
ok(in_file($p, 'one', 'worker', '1'), 'and comes into the file');

# A reload.
$p->write_conf(conf(2) =~ s/timeout=300ms/timeout=1h/r);
ok($p->reload, 'reload');
is(body($p, '/one?k=worker'), '[1]', 'pairs survive it');
is(body($p, '/small?k=worker'), '[2]', 'without a file too');
is(body($p, '/set/short?k=long&v=1'), '[1]', 'set');
$p->write_conf(conf(2) =~ s/zone=small:32k/zone=small:64k/r =~ s/zone=one:64k/zone=one:128k/r);
ok($p->reload, 'other sizes');
is(body($p, '/short?k=long'), '[1]', "a pair keeps the time that it was given");
is(body($p, '/one?k=worker'), '[1]', 'a new zone is read from the file');
is(body($p, '/small?k=worker'), '[]', 'without one it is empty');

# Without a place to write to the server goes on, and writes when there is one.
rename $p->dir . '/state', $p->dir . '/away';
is(body($p, '/set/one?k=disk&v=1'), '[1]', 'set');
ok($p->wait_log(qr{\[crit\] .*writing keyval state file ".*/state/one.json" failed \(2: No such file}), 'cannot be written');
is(body($p, '/one?k=disk'), '[1]', 'the pair is there all the same');
rename $p->dir . '/away', $p->dir . '/state';
ok(in_file($p, 'one', 'disk', '1'), 'later it is written');

# Nor does it end where a file may grow no further, and the old file stays whole.
SKIP: {
    skip 'no prlimit', 7 unless -x '/usr/bin/prlimit';
    my @limited = $p->workers;
    my $size = sub { my ($n) = @_; system('prlimit', "--fsize=$n", '--pid', $_) for @limited };
    body($p, "/set/one?k=long$_&v=" . 'x' x 3000) for 1 .. 20;
    ok(in_file($p, 'one', 'long20', 'x' x 3000), 'a file of more than 60,000 bytes');
    my $before = $p->read_file('state/one.json');
    $p->expect_log(qr{write\(\) to ".*/access.log" failed \(27: File too large\)});
    $size->('61000:unlimited');
    body($p, "/set/one?k=more$_&v=" . 'y' x 3000) for 1 .. 3;
    ok($p->wait_log(qr{\[crit\] .*writing keyval state file ".*/state/one.json" failed \(27: File too large}), 'cannot grow');
    is($p->read_file('state/one.json'), $before, 'the old file is there');
    ok($p->wait_for(sub { !-e $p->dir . '/state/one.json.tmp' }), 'and only that');
    is(body($p, '/one?k=more3'), '[' . 'y' x 3000 . ']', 'pairs are served');
    is_deeply([$p->workers], \@limited, 'by the same workers');
    $size->('unlimited:unlimited');
    ok(in_file($p, 'one', 'more3', 'y' x 3000), 'without the limit it is written');
}
$p->stop;

# --- many workers -----------------------------------------------------------------------------------

$p = Proxyd->new(conf => conf(4), files => { 'state/none' => '' });
$p->start;
my @children;
for my $c (1 .. 4) {
    my $pid = fork;
    if ($pid == 0) {
        for my $n (1 .. 60) { body($p, "/set/one?k=c$c-$n&v=$n") }
        POSIX::_exit(0);
    }
    push @children, $pid;
}
waitpid $_, 0 for @children;
ok($p->wait_for(sub { keys %{ state($p, 'one') } == 240 }, 10), 'pairs of all workers are in the file');
is(scalar(grep { my ($v) = /-(\d+)$/; state($p, 'one')->{$_} ne $v } 'c1-1', 'c2-30', 'c4-60'), 0, 'with their values');
$p->stop;

# --- a new binary -----------------------------------------------------------------------------------

$p = Proxyd->new(conf => conf(1), files => { 'state/none' => '' });
$p->write_conf(conf(1) =~ s/^/daemon on;\n/r);
$p->start(daemon => 1);
is(body($p, '/set/small?k=u&v=1'), '[1]', 'set in the old binary');
$p->signal('USR2');
my $new;
ok($p->wait_for(sub {
    my $id = $p->pid_file;
    return defined $p->pid_file('proxyd.pid.oldbin') && defined $id && $id != $p->master && ($new = $id);
}, 10), 'a new one');
$p->signal('QUIT');
ok($p->adopt($new), 'the old one ends');
is(body($p, '/small?k=u'), '[1]', 'the new one has the pair');
is(body($p, '/set/one?k=u&v=2'), '[2]', 'set in the new one');
ok(in_file($p, 'one', 'u', '2'), 'comes into the file');
$p->stop;

# --- files that are none ------------------------------------------------------------------------------

for (
    ["{\"a\":\"b\",\n\"c\":}", 'unexpected character in keyval state file "%s/state/one.json":2'],
    ["{\"a\":\"b\"\n\n", 'unexpected end in keyval state file "%s/state/one.json":3'],
    ['["a"]', 'no JSON object in keyval state file "%s/state/one.json":1'],
    ["{\"a\":\n5}", 'a value is not a string in keyval state file "%s/state/one.json":2'],
    ['{"a":"' . 'x' x 100_000 . '"}', 'the zone is full in keyval state file "%s/state/one.json":1'],
) {
    my ($text, $error) = @$_;
    $p = Proxyd->new(conf => conf(1), files => { 'state/one.json' => $text });
    $error = sprintf $error, $p->dir;
    $p->expect_log(qr/\Q$error\E/);
    isnt($p->start(expect_failure => 1), 0, "$error: no start");
    like($p->read_file('stderr') . $p->error_log, qr/\[emerg\] .*\Q$error\E/, 'says why');
    is($p->read_file('state/one.json'), $text, 'and leaves the file alone');
    $p->stop;
}

done_testing();
