# SPDX-License-Identifier: BSD-2-Clause
#
# queue: requests that wait for a server which has all the connections that max_conns allows.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/lib";
use Test::More;
use Proxyd;

plan skip_all => 'proxyd only' if Proxyd::is_nginx();

my $p = Proxyd->new;

# Answers /N once the file "go-N" is there.
my $origin = $p->origin('app', sub {
    my ($c) = @_;
    while (my $q = $c->request) {
        my ($n) = $q->{uri} =~ m{(\w+)$};
        Proxyd::wait_for(sub { -e $p->dir . "/go-$n" }, 30);
        $c->write("HTTP/1.1 200 OK\r\nContent-Length: " . length($n) . "\r\n\r\n$n");
    }
});
# One worker has one queue.
my $conf = <<'EOT';
worker_processes 1;
http {
    log_format queue '$request_uri $status [$upstream_addr] [$upstream_queue_time]';
    access_log {{dir}}/queue.log queue;
    upstream one   { server 127.0.0.1:{{port:app}} max_conns=1; queue 2 timeout=1h; }
    upstream brief { server 127.0.0.1:{{port:app}} max_conns=1; queue 2 timeout=50ms; }
    upstream both  { zone both 64k; server 127.0.0.1:{{port:app}} max_conns=1; queue 10; }
    upstream down  { server 127.0.0.1:{{port:app}} down; server 127.0.0.1:{{port:app}} down; queue 10; }
    server {
        listen 127.0.0.1:{{port}};
        location /one/   { proxy_pass http://one/; }
        location /brief/ { proxy_pass http://brief/; }
        location /both/  { proxy_pass http://both/; }
        location /down/  { proxy_pass http://down/; }
    }
}
EOT
$p->write_conf($conf);
$p->start;

sub ask { my ($uri) = @_; my $c = $p->connect; $c->send("GET $uri HTTP/1.1\r\nHost: x\r\n\r\n"); return $c }
sub go { my ($n) = @_; $p->write_file("go-$n", '') }
sub arrived { my ($n) = @_; return Proxyd::wait_for(sub { $origin->lines(qr{/$n }) }) }

my $first = ask('/one/a');
ok arrived('a'), 'the first request has the only connection';
my $second = ask('/one/b');
my $third;
# The second one is in the queue when a fourth finds it full.
ok Proxyd::wait_for(sub {
    $third ||= ask('/one/c');
    return $p->get('/one/full')->status == 502;
}), 'two wait, the next one is refused';
ok $p->wait_log(qr/the queue of upstream "one" is full/), 'and it is said why';
is scalar($origin->lines(qr{/[bc] })), 0, 'nobody has been let through';
go('a');
is $first->response->body, 'a', 'the first one is answered';
ok arrived('b'), 'then it is the turn of the one that came next';
is scalar($origin->lines(qr{/c })), 0, 'and of nobody else';
$second->close;
ok arrived('c'), 'a client that leaves makes room';
go('c');
is $third->response->body, 'c', 'for the last one';
ok $p->wait_log(qr{^/one/c 200 \[127.*\] \[\d+\.\d{3}\]$}m, 'queue.log'), 'its time in the queue is known';
like $p->read_file('queue.log'), qr{^/one/full 502 \[one\] \[0\.000\]$}m, 'and that of one that was refused';
go('b');

# a client that leaves the queue
$first = ask('/one/d');
ok arrived('d'), 'busy again';
$second = ask('/one/e');
$third  = ask('/one/f');
ok Proxyd::wait_for(sub { $p->get('/one/full')->status == 502 }), 'the queue is full';
$second->close;
ok $p->wait_log(qr{^/one/e 499}m, 'queue.log'), 'one that waits leaves';
go('d');
ok arrived('f'), 'those behind go on';
go('f');
is $third->response->body, 'f', 'and are answered';
is scalar($origin->lines(qr{/e })), 0, 'nobody was asked for the one that left';

# timeout
$first = ask('/brief/g');
ok arrived('g'), 'busy';
is $p->get('/brief/h')->status, 502, 'waited too long';
ok $p->wait_log(qr/no server had a connection to spare in time/), 'it is said';
go('g');
is $first->response->body, 'g', 'the other one is answered';
is $p->get('/down/x')->status, 502, 'servers that are down are not waited for';
$p->stop;

# a connection that another worker gives back
$p = Proxyd->new;
$origin = $p->origin('app', $origin->{handler});
$p->write_conf($conf =~ s/worker_processes 1/worker_processes 2/r);
$p->start;
my @c = map { ask("/both/n$_") } 1 .. 8;
go("n$_") for 1 .. 8;
is join(' ', map { my $r = $_->response; $r ? $r->body : 'none' } @c), join(' ', map { "n$_" } 1 .. 8),
    'two workers, one connection: all are served in the end';
$p->stop;

my $q = Proxyd->new;
for (['queue 0;', 'invalid value "0" in "queue" directive'], ['queue x;', 'invalid value "x" in "queue" directive'],
    ['queue 1 wait=1s;', 'invalid parameter "wait=1s"'], ['queue 1 timeout=x;', 'invalid parameter "timeout=x"'],
    ['queue 1; queue 2;', '"queue" directive is duplicate']) {
    $q->write_conf("http { upstream u { $_->[0] server 127.0.0.1:1; } }");
    like $q->run(args => ['-t', '-p', $q->dir . '/', '-c', 'proxyd.conf', '-e', 'error.log'])->{err}, qr/\Q$_->[1]\E/, "$_->[0] $_->[1]";
}
done_testing;
