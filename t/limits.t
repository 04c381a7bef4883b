# SPDX-License-Identifier: BSD-2-Clause
#
# limit_req and limit_conn: what passes, waits and is refused, by which key, with which status, line
# of the log and variable; over several workers, reloads, an upgrade, and the death of a worker.
#
# Rates are a request a minute where nothing may leak while the test runs. A request is held by a
# body that does not end: it is counted from the moment on that its 100 Continue comes.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/lib";
use Test::More;
use Proxyd;

my $http = <<'EOT';
    log_format limits "$request_uri $status $limit_req_status $limit_conn_status";
    access_log {{dir}}/limits.log limits;
    limit_req_zone $arg_k zone=slow:1m rate=1r/m;
    limit_req_zone $arg_other zone=other:1m rate=2r/m;
    limit_req_zone $arg_k zone=quick:1m rate=5r/s;
    limit_req_zone $arg_k zone=bare:1m rate=5;
    limit_req_zone "$server_port$arg_k" rate=1r/m zone=mixed:1m;
    limit_req_zone $http_k zone=field:1m rate=1r/m; #? auth_request
    limit_conn_zone $arg_k zone=conn:1m;
    limit_conn_zone all$arg_other zone=conn2:1m;
EOT
my $server = <<'EOT';
        listen 127.0.0.1:{{port}};
        root {{dir}}/html;
        location = /stub { stub_status; }
        location /origin/ { proxy_pass http://127.0.0.1:{{port:origin}}/; }
        location /r0 { limit_req zone=slow; try_files /page =404; }
        location /r2 { limit_req zone=slow burst=2 nodelay; try_files /page =404; }
        location /late { limit_req zone=slow burst=5; try_files /page =404; }
        location /delay2 { limit_req zone=slow burst=5 delay=2; try_files /page =404; }
        location /quick { limit_req zone=quick burst=3; try_files /page =404; }
        location /bare { limit_req zone=bare burst=3; try_files /page =404; }
        location /mixed { limit_req zone=mixed; try_files /page =404; }
        location /both { limit_req zone=slow burst=4 nodelay; limit_req zone=other burst=1 nodelay;
            try_files /page =404; }
        location /both2 { limit_req zone=other burst=1 nodelay; limit_req zone=slow burst=4 nodelay;
            try_files /page =404; }
        location /code { limit_req zone=slow; limit_req_status 429; try_files /page =404; }
        location /dry { limit_req zone=slow burst=1; limit_req_dry_run on; try_files /page =404; }
        location /page503 { limit_req zone=slow; error_page 503 /sorry; try_files /page =404; }
        location = /sorry { limit_req zone=slow; limit_conn conn 1; try_files /sorry.txt =404; }
        location /twice { limit_req zone=slow; limit_conn conn 1; try_files /nothing /again; }
        location /again { limit_req zone=slow; limit_conn conn 1; try_files /page =404; }
        location /info { limit_req zone=slow burst=1; limit_req_log_level info;
            limit_conn conn 1; limit_conn_log_level info; proxy_pass http://127.0.0.1:{{port:origin}}/; }
        location /notice { limit_req zone=slow burst=1; limit_req_log_level notice;
            limit_conn conn 1; limit_conn_log_level notice; proxy_pass http://127.0.0.1:{{port:origin}}/; }
        location /warn { limit_req zone=slow burst=1; limit_req_log_level warn;
            limit_conn conn 1; limit_conn_log_level warn; proxy_pass http://127.0.0.1:{{port:origin}}/; }
        location /c1 { limit_conn conn 1; proxy_pass http://127.0.0.1:{{port:origin}}/; }
        location /c3 { limit_conn conn 3; proxy_pass http://127.0.0.1:{{port:origin}}/; }
        location /c12 { limit_conn conn 1; limit_conn conn2 2; proxy_pass http://127.0.0.1:{{port:origin}}/; }
        location /c21 { limit_conn conn2 2; limit_conn conn 1; proxy_pass http://127.0.0.1:{{port:origin}}/; }
        location /ccode { limit_conn conn 1; limit_conn_status 444; proxy_pass http://127.0.0.1:{{port:origin}}/; }
        location /cdry { limit_conn conn 1; limit_conn_dry_run on; proxy_pass http://127.0.0.1:{{port:origin}}/; }
        location /sub { limit_req zone=field; auth_request /check; try_files /page =404; } #? auth_request
        location /nosub { auth_request /check; try_files /page =404; } #? auth_request
        location = /check { limit_req zone=field; try_files /page =404; } #? auth_request
        location /none { try_files /page =404; }
EOT
my $conf = "worker_processes 1;\nhttp {\n$http    server {\n$server    }\n}\n";
my @files = ('html/page' => "page\n", 'html/sorry.txt' => "sorry\n");
my $p = Proxyd->new(conf => $conf, files => {@files});
$p->echo_origin('origin');
$p->start;

# Requests on one connection, written at once: the second is judged as soon as the first is answered.
sub train {
    my ($p, @uris) = @_;
    my $bytes = join '', map { "GET $_ HTTP/1.1\r\nHost: a\r\n\r\n" } @uris;
    my $x = $p->raw(undef, $bytes, count => scalar @uris, timeout => 20);
    return join ' ', map { $_->status } @{ $x->{responses} };
}

# A request under way, or the answer of one that was refused.
sub hold {
    my ($p, $uri) = @_;
    my $c = $p->connect;
    $c->send("POST $uri HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n");
    my $r = $c->response(keep_interim => 1, timeout => 20) || Proxyd::none();
    return ($c, $r->status);
}

sub let_go {
    my ($c) = @_;
    $c->send('xx');
    my $r = $c->response(timeout => 20) || Proxyd::none();
    $c->close;
    return $r->status;
}

sub access {
    my ($p, $uri) = @_;
    my $line = $p->wait_log(qr/^\Q$uri\E (.*)$/m, 'limits.log');
    return $line;
}

# --- the rate ------------------------------------------------------------------------------------------
is train($p, ('/r0?k=a') x 3), '200 503 503', 'no burst: one request, the next ones are refused';
is train($p, '/r0?k=b'), '200', 'another key, another bucket';
is train($p, '/r0', '/r0?k=', '/r0'), '200 200 200', 'an empty key is not counted';
is train($p, ('/r2?k=r2') x 5), '200 200 200 503 503', 'burst=2 nodelay: three at once';
is train($p, ('/bare?k=r') x 3), '200 200 200', 'a rate without unit is per second: nobody waits for minutes';
is train($p, ('/mixed?k=m') x 2), '200 503', 'a key of several variables, parameters in any order';
is train($p, ('/quick?k=q') x 3), '200 200 200', 'more than the rate waits';
is access($p, '/r0?k=b'), '200 PASSED -', '$limit_req_status: PASSED';
is access($p, '/r0'), '200 - -', 'absent where nothing was counted';
ok $p->wait_log(qr{^/quick\?k=q 200 DELAYED -$}m, 'limits.log'), 'DELAYED';
ok $p->wait_log(qr{^/r0\?k=a 503 REJECTED -$}m, 'limits.log'), 'REJECTED';
ok $p->wait_log(
    qr/\[error\] \d+#\d+: \*\d+ limiting requests, excess: [01]\.\d{3} by zone "slow", client: 127\.0\.0\.1, server: , request: "GET \/r0\?k=a HTTP\/1\.1", host: "a"\n/
    ),
    'the line of a refusal';
ok $p->wait_log(
    qr/\[warn\] \d+#\d+: \*\d+ delaying request, excess: [01]\.\d{3}, by zone "quick", client/),
    'the line of a delay, one level lower';
like $p->error_log, qr/\[info\] .*limited by "limit_req zone=slow" in \S+proxyd\.conf:\d+/,
    'and which line of the configuration it was';
like $p->error_log, qr/excess: [23]\.\d{3} by zone "slow".*\/r2\?k=r2/, 'the excess over the burst';

is train($p, ('/delay2?k=d2') x 3), '200 200 200', 'delay=2: as many go on at once';
is train($p, ('/r0?k=d2')), '503', 'and fill the bucket as others do';
{
    # The next one waits for a minute: long enough to see it wait, and to go away.
    my ($n, $c) = (0, $p->connect);
    $c->send("GET /delay2?k=d2&last HTTP/1.1\r\nHost: a\r\n\r\n");
    ok $p->wait_log(qr/delaying request, excess: [23]\.\d{3}, by zone "slow", .*&last/),
        'the one above the delay waits';
    ok !$c->wait_input(0.05), 'it is not answered yet';
    $c->close;
    is access($p, '/delay2?k=d2&last'), '499 DELAYED -', 'who closes meanwhile is not waited for';
    like $p->error_log, qr/\[info\] .*client prematurely closed connection, client: .*&last/,
        'and that is told';
}
is train($p, ('/late?k=l')), '200', 'the first one of a burst';
{
    my @c = map { my $c = $p->connect; $c->send("GET /late?k=l&n=$_ HTTP/1.1\r\nHost: a\r\n\r\n"); $c } 1 .. 5;
    ok $p->wait_log(qr/delaying request, excess: [45]\.\d{3}, by zone "slow", .*k=l&n=\d/),
        'five wait';
    is train($p, '/late?k=l&n=6'), '503', 'the sixth is refused';
    $_->abort for @c;
    ok access($p, "/late?k=l&n=$_"), "request $_ ended with its client" for 1 .. 5;
}

# several limits: all must agree, and only then are they charged
is train($p, ('/both?k=m1&other=m1') x 3), '200 200 503', 'the smaller limit decides';
is train($p, ('/both?k=m1&other=m2') x 3), '200 200 503', 'by its own key';
is train($p, ('/r2?k=m1')), '503', 'those that passed were charged to the other limit too';
is train($p, ('/both2?k=m3&other=m3') x 3, ('/r2?k=m3') x 2), '200 200 503 200 503',
    'a request that one limit refuses is not charged to the others';
like $p->error_log, qr/limiting requests, excess: [12]\.\d{3} by zone "other"/, 'the zone is named';
is train($p, ('/both?other=m4') x 3), '200 200 503', 'an empty key leaves the other limit';
is train($p, ('/both?k=m5') x 6), '200 200 200 200 200 503', 'also the last one';

# status, dry run, error pages, redirects
is train($p, ('/code?k=c') x 2), '200 429', 'limit_req_status';
is train($p, ('/dry?k=y') x 3), '200 200 200', 'limit_req_dry_run lets all pass';
ok $p->wait_log(qr{^/dry\?k=y 200 DELAYED_DRY_RUN -$}m, 'limits.log'), 'DELAYED_DRY_RUN';
ok $p->wait_log(qr{^/dry\?k=y 200 REJECTED_DRY_RUN -$}m, 'limits.log'), 'REJECTED_DRY_RUN';
like $p->error_log, qr/\[error\] .*limiting requests, dry run, excess: [12]\.\d{3} by zone "slow"/,
    'the line of what would be refused';
like $p->error_log, qr/\[warn\] .*delaying request, dry run, excess: [01]\.\d{3}, by zone "slow"/,
    'and of what would wait';
is train($p, '/r0?k=y'), '503', 'dry runs are counted';
{
    my $r = $p->get('/page503?k=e');
    is $r->status, 200, 'error_page: the first one passes';
    $r = $p->get('/page503?k=e');
    is $r->status, 503, 'the second one is refused';
    is $r->body, "sorry\n", 'with the page for it, in whose location it is not counted again';
    is $p->head('/page503?k=e')->status, 503, 'HEAD';
}
is train($p, ('/twice?k=t') x 2), '200 503', 'counted once although a redirect comes by twice';
is access($p, '/twice?k=t'), '200 PASSED PASSED', 'once for each of both modules';
is train($p, ('/twice?k=t2', '/none', '/twice?k=t2', '/none')), '200 200 503 200',
    'a connection goes on after a refusal';

$p->with(
    'auth_request',
    sub {
        my $x = sub { map { $p->get($_[0], headers => [K => $_[1]])->status } 1 .. 2 };
        is join(' ', $x->('/sub', 's1')), '200 503', 'a subrequest is not counted beside its main request';
        is join(' ', $x->('/nosub', 's2')), '200 500', 'but where that is not counted';
    }
);

# the levels of the lines
for (['info', 'info'], ['notice', 'info'], ['warn', 'notice']) {
    my ($level, $lower) = @$_;
    my @c = map { my $c = $p->connect; $c->send("GET /$level?k=$level&n=$_ HTTP/1.1\r\nHost: a\r\n\r\n"); $c } 1, 2;
    ok $p->wait_log(qr/\[$lower\] .*delaying request, .*k=$level&n=/),
        "limit_req_log_level $level: delays are $lower";
    is train($p, "/$level?k=$level&n=3"), '503', 'refused';
    like $p->error_log, qr/\[$level\] .*limiting requests, .*k=$level&n=3/, "refusals are $level";
    $_->abort for @c;
}

# long keys
{
    my $long = 'x' x 300;
    is train($p, ("/r0?k=$long") x 2), '200 503', 'a key of limit_req may be long';
    is train($p, ("/c1?k=$long") x 2), '200 200', 'one of limit_conn no longer than 255 bytes';
    like $p->error_log, qr/\[error\] .*the value of the "\$arg_k" key is more than 255 bytes: "x{300}"/,
        'which is told';
    is access($p, "/c1?k=$long"), '200 - -', 'and the request is not counted';
}

# --- connections ---------------------------------------------------------------------------------------
{
    my ($c, $s) = hold($p, '/c1?k=1');
    is $s, 100, 'a request is under way';
    is +(hold($p, '/c1?k=1'))[1], 503, 'limit_conn 1: another one is refused';
    is +(hold($p, '/c1?k=2'))[1], 100, 'one of another key is not';
    is +(hold($p, '/c1'))[1], 100, 'nor one with an empty key';
    is +(hold($p, '/c1'))[1], 100, 'however many';
    is +(hold($p, '/c3?k=1'))[1], 100, 'a place with a greater limit for the same zone';
    is let_go($c), 200, 'the first one is answered';
    ok $p->wait_for(sub { (hold($p, '/c1?k=1'))[1] == 100 }), 'and gave its place back';
    ok $p->wait_log(
        qr/\[error\] \d+#\d+: \*\d+ limiting connections by zone "conn", client: 127\.0\.0\.1, server: , request: "POST \/c1\?k=1 HTTP\/1\.1", host: "a"\n/
        ),
        'the line of a refusal';
    ok $p->wait_log(qr{^/c1\?k=1 503 - REJECTED$}m, 'limits.log'), 'REJECTED';
    ok $p->wait_log(qr{^/c1\?k=1 200 - PASSED$}m, 'limits.log'), 'PASSED';
    like $p->error_log, qr/\[info\] .*limited by "limit_conn conn 1" in \S+proxyd\.conf:\d+/,
        'and which line of the configuration it was';
}
for my $end (qw(close abort)) {
    my ($c, $s) = hold($p, "/c1?k=$end");
    is $s, 100, "a request whose client goes away ($end)";
    $c->$end;
    ok $p->wait_for(sub { (hold($p, "/c1?k=$end"))[1] == 100 }), 'gives its place back';
}
{
    my @held = map { [hold($p, '/c3?k=three')] } 1 .. 5;
    is join(' ', map { $_->[1] } @held), '100 100 100 503 503', 'limit_conn 3';
    is let_go($held[1][0]), 200, 'one ends';
    ok $p->wait_for(sub { push @held, [hold($p, '/c3?k=three')]; $held[-1][1] == 100 }), 'one may begin';
    is +(hold($p, '/c3?k=three'))[1], 503, 'but no two';
}
{
    my ($c, $s) = hold($p, '/c12?k=t1&other=x');
    is $s, 100, 'two limits';
    is +(hold($p, '/c12?k=t1&other=x'))[1], 503, 'the first one refuses';
    my ($c2, $s2) = hold($p, '/c12?k=t2&other=x');
    is $s2, 100, 'another key of the first';
    is +(hold($p, '/c12?k=t3&other=x'))[1], 503, 'the second one refuses';
    is +(hold($p, '/c1?k=t3'))[1], 100, 'and what the first one had counted is given back';
    is let_go($c), 200, 'one ends';
    is +(hold($p, '/c21?k=t2&other=x'))[1], 503, 'the order of limits does not matter';
    my ($c3, $s3) = hold($p, '/c21?k=t4&other=x');
    is $s3, 100, 'nothing remained of the refused ones';
}
is +(hold($p, '/ccode?k=cc'))[1], 100, 'limit_conn_status';
is +(hold($p, '/ccode?k=cc'))[1], 100, 'clients that went away hold nothing';
{
    my ($c) = hold($p, '/ccode?k=c4');
    my $c2 = $p->connect;
    $c2->send("GET /ccode?k=c4 HTTP/1.1\r\nHost: a\r\n\r\n");
    is $c2->read_eof(5), '', 'limit_conn_status 444: closed without an answer';
    let_go($c);
    my ($d, $s) = hold($p, '/cdry?k=cd');
    is +(hold($p, '/cdry?k=cd&2'))[1], 100, 'limit_conn_dry_run lets pass';
    ok $p->wait_log(qr/\[error\] .*limiting connections, dry run, by zone "conn", client/),
        'and tells';
    my ($e) = hold($p, '/cdry?k=cd&3');
    is let_go($e), 200, 'answered';
    is access($p, '/cdry?k=cd&3'), '200 - REJECTED_DRY_RUN', 'REJECTED_DRY_RUN';
    let_go($d);
}
for my $level (qw(info notice warn)) {
    my ($c) = hold($p, "/c1?k=lv$level");
    is +(hold($p, "/$level?k=lv$level"))[1], 503, "limit_conn_log_level $level";
    ok $p->wait_log(qr/\[$level\] .*limiting connections by zone "conn".*k=lv$level/), 'its line';
    let_go($c);
}
is +($p->get('/stub')->body =~ /^Active connections: (\d+) /)[0], 1, 'no connection was forgotten';

# --- reload: the state is kept -----------------------------------------------------------------------------
{
    is train($p, '/r0?k=kept'), '200', 'a request before a reload';
    my ($c, $s) = hold($p, '/c1?k=kept');
    $p->write_conf($conf =~ s/zone=slow:1m rate=1r\/m/zone=slow:1m rate=2r\/m/r);
    ok $p->reload, 'a reload with another rate';
    is train($p, '/r0?k=kept'), '503', 'the bucket is still full';
    is +(hold($p, '/c1?k=kept'))[1], 503, 'the request under way in the old worker still counts';
    is let_go($c), 200, 'it ends';
    ok $p->wait_for(sub { (hold($p, '/c1?k=kept'))[1] == 100 }), 'in the old worker, and its place is free';
    $p->write_conf($conf =~ s/\$arg_k zone=slow:1m/\$arg_kk zone=slow:1m/r);
    $p->expect_log(qr/previously it used/);
    ok $p->reload(fails => 1), 'a reload with another key';
    like $p->error_log,
        qr/\[emerg\] .*limit_req "slow" uses the "\$arg_kk" key while previously it used the "\$arg_k" key/,
        'is refused';
    $p->write_conf($conf =~ s/\$arg_k zone=conn:1m/\$arg_kk zone=conn:1m/r);
    ok $p->reload(fails => 1), 'of limit_conn as well';
    like $p->error_log,
        qr/\[emerg\] .*limit_conn_zone "conn" uses the "\$arg_kk" key while previously it used the "\$arg_k" key/,
        'is refused';
    is train($p, '/r0?k=kept'), '503', 'the old configuration goes on';
    $p->write_conf($conf =~ s/zone=slow:1m/zone=slow:2m/r);
    ok $p->reload, 'a zone of another size';
    is train($p, ('/r0?k=kept') x 2), '200 503', 'begins anew';
}
{
    # Three generations: the first one's worker ends last, when its zones are no longer configured.
    my ($c) = hold($p, '/c1?k=gen');
    $p->write_conf($conf);
    ok $p->reload, 'a second configuration';
    $p->write_conf("http { server { listen 127.0.0.1:{{port}}; location / { return 200 without; } } }\n");
    ok $p->reload, 'a third one without zones';
    ok $p->wait_for(sub { $p->workers == 2 }), 'the second one has gone';
    is let_go($c), 200, 'the first one ends';
    ok $p->wait_for(sub { $p->workers == 1 }), 'and its worker';
    is $p->get('/')->body, 'without', 'the master lives';
    $p->write_conf($conf);
    ok $p->reload, 'zones again';
    is train($p, ('/r0?k=kept') x 2), '200 503', 'new ones';
}
$p->stop;

# --- where limits may stand ----------------------------------------------------------------------------------
$p = Proxyd->new(files => {@files}, conf => <<'EOT');
http {
    limit_req_zone $arg_k zone=a:1m rate=1r/m;
    limit_req_zone $arg_k zone=b:1m rate=1r/m;
    limit_conn_zone $arg_k zone=ca:1m;
    limit_conn_zone $arg_k zone=cb:1m;
    limit_req zone=a burst=1 nodelay;
    limit_conn ca 1;
    limit_req_status 429;
    limit_conn_status 430;
    root {{dir}}/html;
    server {
        listen 127.0.0.1:{{port}};
        location /up { try_files /page =404; }
        location /own { limit_req zone=b; try_files /page =404;
            location /own/in { limit_req_status 500; try_files /page =404; } }
        location /body { limit_conn cb 2; proxy_pass http://127.0.0.1:{{port:origin}}/; }
        location /body1 { proxy_pass http://127.0.0.1:{{port:origin}}/; }
        location /if { if ($arg_x) { set $y 1; } try_files /page =404; }
        location /return { limit_req zone=b; return 204; }
    }
    server {
        listen 127.0.0.1:{{port:second}};
        limit_req zone=b burst=2 nodelay;
        location / { try_files /page =404; }
    }
}
EOT
$p->echo_origin('origin');
$p->start;
is train($p, ('/up?k=1') x 3), '200 200 429', 'inherited from http, with its status';
is train($p, ('/own?k=2') x 2), '200 429', 'replaced as a whole in a location';
is train($p, ('/own/in?k=3') x 2), '200 500', 'a nested location inherits the limit';
is train($p, ('/if?k=4&x=1') x 3), '404 404 429', 'if inherits (but no try_files)';
is train($p, ('/return?k=5') x 3), '204 204 204', 'return comes before the limit';
{
    my $c = $p->connect('second');
    $c->send("GET /?k=6 HTTP/1.1\r\nHost: a\r\n\r\n" x 4);
    is join(' ', map { ($c->response || Proxyd::none())->status } 1 .. 4), '200 200 200 429', 'a server of its own';
    $c->close;
    my @c = map { [hold($p, '/body?k=7')] } 1 .. 3;
    is join(' ', map { $_->[1] } @c), '100 100 429', 'limit_req is asked before limit_conn';
    @c = map { [hold($p, '/body1?k=8')] } 1 .. 2;
    is join(' ', map { $_->[1] } @c), '100 430', 'limit_conn inherited from http';
}
$p->stop;

# --- four workers ------------------------------------------------------------------------------------------------
my $four = $conf =~ s/worker_processes 1/worker_processes 4/r;
$four =~ s/location \/none/location \/burst { limit_req zone=slow burst=19 nodelay; try_files \/page =404; }
        location \/c40 { limit_conn conn 40; proxy_pass http:\/\/127.0.0.1:{{port:origin}}\/; }
        location \/pid { return 200 \$pid; }
        location \/none/;
$p = Proxyd->new(conf => $four, files => {@files}, log => 'error');
$p->echo_origin('origin');
$p->start;
{
    my @c = map { $p->connect } 1 .. 60;
    for my $round (1 .. 4) {
        $_->send("GET /burst?k=exact HTTP/1.1\r\nHost: a\r\n\r\n" x 3) for @c;
        my %n;
        for my $c (@c) { $n{ ($c->response(timeout => 20) || Proxyd::none())->status }++ for 1 .. 3 }
        is $n{200} || 0, $round == 1 ? 20 : 0, "180 requests over four workers, round $round: exactly burst + 1 pass";
        is $n{503}, $round == 1 ? 160 : 180, 'the others are refused';
    }
    my ($accepted) = $p->get('/stub')->body =~ /\n (\d+) \d+ (\d+)/;
    is $accepted, 61, 'stub_status counts all workers';
    my $requests = ($p->get('/stub')->body =~ /\n \d+ \d+ (\d+)/)[0];
    is $requests, 722, 'their requests too';
    my ($active, $waiting) = $p->get('/stub')->body =~ /^Active connections: (\d+) .*Waiting: (\d+)/s;
    is "$active $waiting", '61 60', 'and their connections';
    $_->close for @c;
    ok $p->wait_for(sub { $p->get('/stub')->body =~ /^Active connections: 1 \n/ }), 'which end';
}
{
    my @held = map { [hold($p, '/c40?k=exact')] } 1 .. 60;
    is scalar(grep { $_->[1] == 100 } @held), 40, 'limit_conn 40 over four workers: exactly 40';
    is scalar(grep { $_->[1] == 503 } @held), 20, 'the others are refused';
    @held = grep { $_->[1] == 100 } @held;

    # What a killed worker held is given back, and only that.
    my ($dead) = $p->workers;
    $p->expect_log(qr/exited on signal 9/);
    kill 'KILL', $dead;
    ok $p->wait_log(qr/worker process $dead exited on signal 9/), 'a worker is killed';
    ok $p->wait_for(sub { $p->workers == 4 }), 'and replaced';
    my (@alive, $lost);
    $lost = 0;
    for (@held) { $_->[0]->wait_input(0.01); if ($_->[0]->eof) { $lost++ } else { push @alive, $_ } }
    cmp_ok $lost, '>', 0, 'it held some of the places';
    cmp_ok scalar @alive, '>', 0, 'others the rest';
    my ($active) = $p->get('/stub')->body =~ /^Active connections: (\d+)/;
    is $active, 1 + @alive, 'stub_status: its connections are gone';
    my $requests = ($p->get('/stub')->body =~ /\n \d+ \d+ (\d+)/)[0];
    cmp_ok $requests, '>', 780, 'what it had served still counts';
    my @again = map { [hold($p, '/c40?k=exact')] } 1 .. $lost + 5;
    is scalar(grep { $_->[1] == 100 } @again), $lost, "just as many places as it held are free: $lost";
    is let_go($_->[0]), 200, 'those of other workers are answered' for @alive[0 .. 1];
    $_->[0]->abort for @alive[2 .. $#alive], grep { $_->[1] == 100 } @again;
    $_->[0]->close for grep { $_->[1] != 100 } @again;
    ok $p->wait_for(sub { $p->get('/stub')->body =~ /^Active connections: 1 \n/ }), 'all end';
    @again = map { [hold($p, '/c40?k=exact')] } 1 .. 41;
    is scalar(grep { $_->[1] == 100 } @again), 40, 'no place was lost, none was given twice';
    $_->[0]->abort for @again;
}

# killed in the midst of work, over and over, while all workers count
{
    for my $n (1 .. 6) {
        my @c = map { my $c = $p->connect; $c->send("GET /c40?k=storm$_ HTTP/1.1\r\nHost: a\r\n\r\n" x 20); $c } 1 .. 30;
        my @w = $p->workers;
        kill 'KILL', $w[$n % @w];
        $_->wait_input(0.2) for @c;
        $p->wait_for(sub { $p->workers == 4 });
        $_->abort for @c;
    }
    ok $p->wait_for(sub { $p->get('/stub')->body =~ /^Active connections: 1 \n/ }, 10), 'stub_status after six deaths';
    for my $key (1, 2) {
        my @again = map { [hold($p, "/c40?k=storm$key")] } 1 .. 41;
        is scalar(grep { $_->[1] == 100 } @again), 40, 'every place is free again';
        $_->[0]->abort for @again;
    }
}
$p->stop;

# --- a binary upgrade keeps the state -------------------------------------------------------------------------------
$p = Proxyd->new(conf => "daemon on;\n$conf", files => {@files});
$p->echo_origin('origin');
$p->start(daemon => 1);
{
    is train($p, '/r0?k=up'), '200', 'a request before an upgrade';
    my ($c, $s) = hold($p, '/c1?k=up');
    my $before = ($p->get('/stub')->body =~ /\n (\d+)/)[0];
    my $old = $p->master;
    $p->signal('USR2');
    my $new;
    ok $p->wait_for(sub { ($new = $p->pid_file || 0) && $new != $old && -e $p->dir . '/proxyd.pid.oldbin' }),
        'a new master';
    ok $p->wait_for(sub { scalar $p->workers($new) }), 'and its worker';
    kill 'WINCH', $old;
    ok $p->wait_for(sub { !grep { !$p->retired($_) } $p->workers($old) }), 'the old worker drains';
    is train($p, '/r0?k=up'), '503', 'the bucket is still full in the new binary';
    is +(hold($p, '/c1?k=up'))[1], 503, 'the request under way in the old one counts';
    cmp_ok +($p->get('/stub')->body =~ /\n (\d+)/)[0], '>', $before, 'stub_status counts on';
    is let_go($c), 200, 'it ends';
    ok $p->wait_for(sub { (hold($p, '/c1?k=up'))[1] == 100 }), 'and gives its place back';
    kill 'QUIT', $old;
    ok $p->adopt($new), 'the old master goes';
    is train($p, '/r0?k=up'), '503', 'the state stays';
}
$p->stop;

# --- full zones ------------------------------------------------------------------------------------------------------
$p = Proxyd->new(files => {@files}, log => 'crit', conf => <<'EOT');
worker_processes 1;
worker_rlimit_nofile 4096;
events { worker_connections 3000; }
http {
    access_log off;
    limit_req_zone $arg_k zone=r:32k rate=1r/m;
    limit_conn_zone $arg_k zone=c:32k;
    server {
        listen 127.0.0.1:{{port}} backlog=2048;
        root {{dir}}/html;
        location /r { limit_req zone=r; try_files /page =404; }
        location /c { limit_conn c 1; proxy_pass http://127.0.0.1:{{port:origin}}/; }
        location = /stub { stub_status; }
    }
}
EOT
$p->echo_origin('origin');
$p->start;
{
    my ($ok, $kept) = (0, 0);
    for my $n (0 .. 9) {
        # The first key is asked for again and again: it is not the oldest.
        my $s = train($p, map { ("/r?k=full" . ($n * 200 + $_), $_ % 40 ? () : '/r?k=full1') } 1 .. 200);
        $ok += () = $s =~ /200/g;
        $kept += () = $s =~ /503/g;
    }
    is $ok, 2000, 'more keys than the zone has room for: old ones make way';
    is $kept, 50, 'those in use stay';
    is train($p, '/r?k=full2', '/r?k=full2000'), '200 503', 'the oldest have gone, the youngest are there';

    my (@held, %n);
    $p->expect_log(qr/no memory/);
    for (1 .. 1000) { my @h = hold($p, "/c?k=key$_"); $n{ $h[1] }++; push @held, $h[0] }
    cmp_ok $n{100}, '>', 300, 'a full zone of limit_conn';
    is $n{503}, 1000 - $n{100}, 'refuses, since all entries are in use';
    ok $p->wait_log(qr/\[crit\] .*no memory in limit_conn_zone "c"/), 'and tells';
    $_->abort for @held;
    ok $p->wait_for(sub { $p->get('/stub')->body =~ /^Active connections: 1 \n/ }), 'all end';
    my $again = 0;
    @held = ();
    for (1 .. 200) { my @h = hold($p, "/c?k=again$_"); $again++ if $h[1] == 100; push @held, $h[0] }
    is $again, 200, 'and the room is there again';
    $_->abort for @held;
}
$p->stop;

# --- many keys ----------------------------------------------------------------------------------------------------------
$p = Proxyd->new(files => {@files}, log => 'crit', conf => <<'EOT');
worker_processes 2;
http {
    access_log off;
    limit_req_zone $arg_k zone=r:16m rate=1r/m;
    limit_conn_zone $arg_k zone=c:16m;
    keepalive_requests 100000;
    server {
        listen 127.0.0.1:{{port}};
        root {{dir}}/html;
        location / { limit_req zone=r; limit_conn c 1; try_files /page =404; }
    }
}
EOT
$p->start;
{
    my $n = Proxyd::sanitized() ? 10_000 : 60_000;
    for my $pass (1, 2) {
        my %n;
        for (my $i = 0; $i < $n; $i += 500) {
            $n{$_}++ for split ' ', train($p, map { "/?k=many$_" } $i .. $i + 499);
        }
        is $n{ $pass == 1 ? 200 : 503 }, $n, "$n keys, " . ($pass == 1 ? 'each passes once' : 'and none a second time');
    }
}
$p->stop;

done_testing();
