# SPDX-License-Identifier: BSD-2-Clause
#
# The benchmark itself: it still builds and runs, its figures are there, and a wrong answer fails
# the run.  Nothing here judges speed.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/lib";
use File::Temp qw(tempdir);
use JSON::PP ();
use Test::More;
use Proxyd;

my $bench = "$FindBin::Bin/../scripts/bench";
plan skip_all => 'no /usr/bin/python3' unless -x '/usr/bin/python3';
plan skip_all => 'no C compiler' if system('command -v "${CC:-cc}" >/dev/null 2>&1') != 0;

my $dir = tempdir(CLEANUP => 1);
my @short = ('--rounds=2', '--seconds=0.1', '--connections=4');
my ($under_test, $option) = Proxyd::is_nginx() ? ('nginx', '--nginx=') : ('proxyd', '--proxyd=');
my @servers = ("--servers=relay,$under_test", $option . Proxyd::binary());

# Runs scripts/bench; its exit status, what it printed, and its --json.
sub bench {
    my (@args) = @_;
    unlink "$dir/json";
    open my $pipe, '-|', '/bin/sh', '-c', 'exec "$0" "$@" 2>&1', $bench, "--json=$dir/json", @args
        or die "bench: $!";
    my $out = join '', <$pipe>;
    close $pipe;
    my $status = $? >> 8;
    open my $fh, '<', "$dir/json" or return ($status, $out, undef);
    return ($status, $out, JSON::PP->new->decode(join '', <$fh>)->{measured});
}

my ($status, $out, $json) = bench(@short, @servers);
is($status, 0, 'every workload runs without an error') or diag($out);
for my $workload (qw(proxy1k proxy64k proxy1m static1k conn1k)) {
    my $runs = $json->{$workload}{$under_test} || [];
    is(scalar(grep { $_->{requests} > 0 && $_->{cpu_us} > 0 } @$runs), 2,
        "$workload: two rounds measured");
}
is_deeply($json->{static1k}{relay}, undef, 'the relay is not asked for files');
like($out, qr/^proxy1k +\Q$under_test\E +[\d.]+ /m, 'the table has a row for it');

($status, $out, $json) = bench(@short, @servers, '--workloads=keys1k,limit1k');
is($status, 0, 'requests with many keys, without and with limits') or diag($out);
cmp_ok($json->{$_}{$under_test}[0]{requests} // 0, '>', 0, "$_: measured") for qw(keys1k limit1k);

SKIP: {
    skip 'openssl cannot be built against', 3 if system('printf "#include <openssl/ssl.h>\\n" | "${CC:-cc}" -E - >/dev/null 2>&1') != 0;
    ($status, $out, $json) = bench(@short, "--servers=floor,$under_test", $servers[1], '--workloads=shake,shakeresumed');
    is($status, 0, 'handshakes, against the bare library') or diag($out);
    is(scalar(grep { $json->{$_}{floor}[0]{requests} > 0 && $json->{$_}{$under_test}[0]{requests} > 0 } qw(shake shakeresumed)), 2,
        'both are measured');
    like($out, qr/^shake +floor +[\d,]+ +1\.000$/m, 'the floor is what the others are held against');
}

($status, $out, $json) = bench(@short, '--peers', '--methods=round robin,least_conn; weights',
    @servers[1 .. $#servers], "--servers=$under_test");
is($status, 0, 'methods among 1, 10 and 1,000 servers') or diag($out);
is_deeply([map { "@$_[0 .. 2]" } @{ $json || [] }],
    [map { my $m = $_; map { "$m $_ $under_test" } 1, 10, 1000 } 'round robin', 'least_conn, weights'],
    'each is measured');

($status, $out) = bench(@short, '--servers=nginx', '--nginx=/nonexistent/nginx');
like($out, qr{nginx is not there \(/nonexistent/nginx\)}, 'a server that is missing is named');
unlike($out, qr/Traceback/, 'without an exception');
is($status, 1, 'and nothing to measure is a failure');

# A "server" that answers, but never with what was asked for.
my $liar = Proxyd->new(conf => <<'EOT')->start;
http {
    server {
        listen 127.0.0.1:{{port}};
        location / { return 200 short; }
    }
}
EOT
my $port = $liar->port;
my $cc = $ENV{CC} || 'cc';
is(system("$cc -std=gnu11 -D_GNU_SOURCE -O1 '$FindBin::Bin/bench/load.c' -o $dir/load -lm"), 0,
    'the load generator builds');
my $result = JSON::PP->new->decode(
    scalar qx{$dir/load --connect=127.0.0.1:$port --requests=10 --connections=2 --expect=1024});
isnt($?, 0, 'a wrong length fails the run');
is_deeply([@$result{qw(requests errors)}], [0, 10], 'each wrong answer is counted');
like($result->{first_error}, qr/Content-Length/, 'and the first one described');
$liar->stop;
done_testing;
