# SPDX-License-Identifier: BSD-2-Clause
#
# Active health checks: what is asked, how answers are judged, and what comes of it for clients.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/lib";
use Test::More;
use Proxyd;
use Time::HiRes ();

plan skip_all => 'proxyd only' if Proxyd::is_nginx();

sub ok_answer { "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok" }

# Answers a check of /check… with the bytes of the file of that name, a client's request with its name.
sub origin {
    my ($p, $name) = @_;
    return $p->origin($name, sub {
        my ($c) = @_;
        while (my $q = $c->request) {
            if ($q->{uri} =~ m{^/(check[\w-]*)}) {
                my $text = $p->read_file("$name-$1") // $p->read_file($1);
                $c->write($text // ok_answer());
                last unless $q->{version} eq '1.1' && ($text // '') =~ /^HTTP\/1\.1/;
                next;
            }
            $c->write("HTTP/1.1 200 OK\r\nContent-Length: " . length($name) . "\r\n\r\n$name");
        }
    });
}

# The name of the server that answers, or the status.
sub ask {
    my ($p, $uri, @o) = @_;
    my $r = $p->get($uri, @o);
    return $r->status == 200 ? $r->body : $r->status;
}
sub served { my ($p, $uri, $n) = @_; return join '', map { ask($p, $uri) } 1 .. $n }
# At once: an origin reads it at any time.
sub put {
    my ($p, $name, $text) = @_;
    $p->write_file("$name.new", $text);
    rename $p->dir . "/$name.new", $p->dir . "/$name" or die "$name: $!";
}
sub lines { my ($p, $re) = @_; return scalar(() = ($p->error_log || '') =~ /$re/g) }

# --- how answers are judged -----------------------------------------------------------------------
my $head = "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nConnection: close, x\r\nX-A: 1\r\nX-A: 2\r\n\r\n";
sub status_is { "HTTP/1.0 $_[0] Text\r\nContent-Length: 0\r\n\r\n" }
my $large = 'a' x (256 * 1024 - 4);
# tests of the block, the answer, whether it passes, what was looked at last
my @cases = (
    (map { ['', status_is($_), ($_ =~ /^[23]/) ? 1 : 0, 'checking status code'] } 200, 204, 299, 301, 399, 400, 404, 500, 503),
    (map { ['status 200;', status_is($_), ($_ == 200) ? 1 : 0, 'checking status code'] } 200, 201, 500),
    (map { ['status ! 500;', status_is($_), ($_ != 500) ? 1 : 0, 'checking status code'] } 200, 500, 501),
    (map { ['status 200 204;', status_is($_), ($_ =~ /20[04]/) ? 1 : 0, 'checking status code'] } 200, 201, 204),
    (map { ['status ! 301 302;', status_is($_), ($_ !~ /30[12]/) ? 1 : 0, 'checking status code'] } 200, 301, 302, 303),
    (map { ['status 200-399;', status_is($_), ($_ < 400) ? 1 : 0, 'checking status code'] } 200, 399, 400),
    (map { ['status ! 400-599;', status_is($_), ($_ < 400) ? 1 : 0, 'checking status code'] } 399, 400, 599),
    (map { ['status 301-303 307;', status_is($_), ($_ =~ /30[1237]/) ? 1 : 0, 'checking status code'] } 300, 301, 303, 304, 307, 308),
    ['status 200-299; status ! 204;', status_is(204), 0, 'checking status code'],
    ['header Content-Type = text/html;', $head, 1, 'checking status code'],
    ['header content-type = text/html;', $head, 1, 'checking status code'],
    ['header Content-Type = text/plain;', $head, 0, 'checking header'],
    ['header Content-Type != text/plain;', $head, 1, 'checking status code'],
    ['header Content-Type != text/html;', $head, 0, 'checking header'],
    ['header X-None != text/html;', $head, 0, 'checking header'],
    ['header X-None = "";', $head, 0, 'checking header'],
    ['header Connection ~ close;', $head, 1, 'checking status code'],
    ['header Connection ~ ^x;', $head, 0, 'checking header'],
    ['header X-None ~ close;', $head, 0, 'checking header'],
    ['header Connection !~ keep;', $head, 1, 'checking status code'],
    ['header Connection !~ close;', $head, 0, 'checking header'],
    ['header X-None !~ close;', $head, 0, 'checking header'],
    ['header X-A = 2;', $head, 1, 'checking status code'],
    ['header X-A != 2;', $head, 0, 'checking header'],
    ['header X-A;', $head, 1, 'checking status code'],
    ['header X-None;', $head, 0, 'checking header'],
    ['header ! X-None;', $head, 1, 'checking status code'],
    ['header ! X-A;', $head, 0, 'checking header'],
    ['body ~ "Welcome to";', "${head}Welcome to it", 1, 'checking body'],
    ['body ~ "Welcome to";', "${head}welcome to it", 0, 'checking body'],
    ['body !~ "Welcome to";', "${head}Goodbye", 1, 'checking body'],
    ['body !~ "Welcome to";', "${head}Welcome to it", 0, 'checking body'],
    ['body ~ ^$;', status_is(200), 1, 'checking body'],
    ['body ~ one; body ~ two;', "${head}one two", 1, 'checking body'],
    ['body ~ one; body ~ two;', "${head}one", 0, 'checking body'],
    ['body ~ ^12$;', "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n1\r\n1\r\n2\r\n0\r\n\r\n", 1, 'checking body'],
    ['body ~ last;', "$head${large}last", 1, 'checking body'],
    ['body ~ last;', "$head${large}.last", 0, 'checking body'],
    ['body !~ last;', "$head${large}" . '.' x 500_000 . 'last', 1, 'checking body'],
    ['status 200; header X-A; header ! X-B; body ~ it;', "${head}it", 1, 'checking body'],
    ['status 201; header X-A; header ! X-B; body ~ it;', "${head}it", 0, 'checking status code'],
    ['require $good;', status_is(204), 1, 'checking variables'],
    ['require $good;', status_is(200), 0, 'checking variables'],
    ['require $zero;', status_is(200), 0, 'checking variables'],
    ['require $upstream_http_x_a $good_a;', $head, 1, 'checking variables'],
    ['require $upstream_http_x_a $upstream_http_x_b;', $head, 0, 'checking variables'],
    ['require $every;', $head, 1, 'checking variables'],
    # answers that are none
    ['', "SSH-2.0-OpenSSH\r\n\r\n", 0, 'reading response header from upstream'],
    ['', "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab", 0, 'reading response header from upstream'],
    ['', "HTTP/1.1 200 OK\r\nX: " . 'x' x 5000 . "\r\n\r\n", 0, 'reading response header from upstream'],
    ['', "HTTP/1.1 200 OK\r\nX: 1\r\n", 0, 'reading response header from upstream'],
    ['', '', 0, 'reading response header from upstream'],
    ['', "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nshort", 0, 'reading response body from upstream'],
    ['', "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 0, 'reading response body from upstream'],
    ['', "HTTP/1.1 100 Continue\r\n\r\n" . status_is(200), 1, 'checking status code'],
    ['', "HTTP/1.1 100 Continue\r\n\r\n" . status_is(500), 0, 'checking status code'],
    ['', "${head}until the end", 1, 'checking status code'],
);

my $p = Proxyd->new;
my $app = origin($p, 'app');
my $conf = "http {\n";
# variables of all sorts, none of which may harm where there is no request
my $every = join '-', map { "\$$_" } qw(args arg_a binary_remote_addr body_bytes_sent bytes_sent connection
    connection_requests connection_time content_length content_type cookie_a document_root document_uri host hostname
    http_a https is_args limit_rate msec nginx_version pid pipe proxy_add_x_forwarded_for proxy_host proxy_port
    proxy_protocol_addr proxy_protocol_tlv_alpn query_string realpath_root remote_addr remote_port remote_user request
    request_body request_body_file request_completion request_filename request_id request_length request_method
    request_time request_uri scheme sent_http_a server_addr server_name server_port server_protocol status tcpinfo_rtt
    time_iso8601 time_local upstream_addr upstream_bytes_received upstream_bytes_sent upstream_connect_time
    upstream_cookie_a upstream_header_time upstream_http_server upstream_response_length upstream_response_time
    upstream_status uri);
$conf .= <<"EOT";
    map \$upstream_status \$good { 204 1; }
    map \$upstream_status \$good_a { 200 yes; }
    map \$upstream_status \$zero { default 0; }
    map "$every" \$every { default 1; }
EOT
for my $n (0 .. $#cases) {
    my ($tests) = @{ $cases[$n] };
    my $match = $tests eq '' ? '' : "match=m$n";
    put($p, "check$n", $cases[$n][1]);
    $conf .= "    match m$n { $tests }\n" if $match;
    $conf .= "    upstream u$n { zone all 1m; server 127.0.0.1:{{port:app}}; }\n";
    $conf .= "    server { listen 127.0.0.1:{{port}}; server_name s$n; location / { proxy_pass http://u$n;"
        . " health_check interval=1h mandatory uri=/check$n $match; } }\n";
}
$conf .= "}\n";
$p->write_conf($conf);
$p->start;
for my $n (0 .. $#cases) {
    my ($tests, $answer, $passes, $action) = @{ $cases[$n] };
    my $what = "$tests|" . substr($answer, 0, 60) =~ s/\s+/ /gr;
    my $log = $p->wait_log(qr/(\[\w+\] \S+ peer is \w+ while .*upstream "u$n")/, undef, 10) || '';
    my ($level, $word) = $passes ? ('notice', 'healthy') : ('warn', 'unhealthy');
    my $by = $tests eq '' ? '' : "m$n";
    my $port = $p->port('app');
    like $log, qr/^\[$level\] \S+ peer is $word while \Q$action\E, health check "$by" of peer 127.0.0.1:$port in upstream "u$n"$/,
        "$n: $what: $word";
    is ask($p, '/', host => "s$n"), $passes ? 'app' : 502, "$n: and clients see it";
}
is scalar($app->lines(qr{ /check})), scalar @cases, 'each has been asked once';
$p->stop(name => 'judged without harm');

# --- what is asked -----------------------------------------------------------------------------------
$p = Proxyd->new;
my %o = map { $_ => origin($p, $_) } qw(a b c d);
put($p, 'c-check-http', "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
$p->write_conf(<<'EOT');
http {
    upstream Plain { zone all 256k; server 127.0.0.1:{{port:a}}; }
    upstream port  { zone all; server 127.0.0.1:{{port:a}}; server 127.0.0.1:{{port:a}} down; }
    upstream keep  { zone all; server 127.0.0.1:{{port:c}}; }
    upstream tcp   { zone all; server 127.0.0.1:{{port:d}}; server 127.0.0.1:{{port:none}}; }
    upstream two   { zone all; server 127.0.0.1:{{port:a}}; server 127.0.0.1:{{port:b}}; }
    match tea { body ~ tea; }
    server {
        listen 127.0.0.1:{{port}};
        location /plain { proxy_pass http://Plain; health_check interval=1h; }
        location /port  { proxy_pass http://port; health_check port={{port:b}} uri=/check-port?a=%20b interval=1h type=http; }
        location /keep  { proxy_pass http://keep; health_check interval=20ms jitter=5ms keepalive_time=1h uri=/check-http; }
        location /tcp   { proxy_pass http://tcp; health_check interval=100ms type=tcp; }
        # two checks of one group, in two places: one that fails is enough
        location /two   { health_check interval=100ms uri=/check-one match=tea; proxy_pass http://two; }
        location /two2  { proxy_pass http://two; health_check interval=100ms uri=/check-two; }
    }
}
EOT
put($p, 'check-one', "HTTP/1.0 200 OK\r\n\r\ntea");
$p->start;
ok Proxyd::wait_for(sub { $o{a}->lines(qr{^R \d+ GET / HTTP/1.0$}) }), 'the default: GET / of HTTP/1.0';
ok Proxyd::wait_for(sub { $o{b}->lines(qr{^R \d+ GET /check-port\?a=%20b HTTP/1.0$}) }), 'port= and uri=';
ok Proxyd::wait_for(sub { ($o{c}->lines(qr{^R 1 GET /check-http HTTP/1.1$}) // 0) > 4 }), 'keepalive_time= asks in HTTP/1.1';
is $o{c}->connections, 1, 'over one connection';
ok $p->wait_log(qr/peer is unhealthy while connecting to upstream, health check "" of peer 127.0.0.1:@{[$p->port('none')]} in upstream "tcp"/),
    'type=tcp: nobody listens';
like $p->error_log, qr/\[info\] \S+ connect\(\) failed \(111: Connection refused\) while connecting to upstream, health check/, 'why is said at info';
is served($p, '/tcp', 4), 'd' x 4, 'the other one is asked';
is scalar($o{d}->lines(qr{^R })), 4, 'and was only connected to';
is served($p, '/two', 4), 'abab', 'both pass both checks';
put($p, 'a-check-one', "HTTP/1.0 200 OK\r\n\r\ncoffee");
ok $p->wait_log(qr/\[info\] \S+ the body of 6 bytes does not match "tea" while checking body.*upstream "two"/), 'the first check of one of them fails';
ok $p->wait_log(qr/peer is unhealthy while checking body, health check "tea" of peer 127.0.0.1:@{[$p->port('a')]} in upstream "two"/), 'which is said';
is served($p, '/two', 4), 'bbbb', 'that is enough';
put($p, 'b-check-two', status_is(500));
ok $p->wait_log(qr/the status is 500 while checking status code/), 'of the other the second one';
ok Proxyd::wait_for(sub { ask($p, '/two') eq '502' }), 'none is left';
like $p->error_log, qr/no live upstreams while connecting to upstream/, 'as the log says';
unlink $p->dir . '/b-check-two';
ok Proxyd::wait_for(sub { ask($p, '/two') eq 'b' }), 'one is well again';
is lines($p, qr/peer is unhealthy/), 3, 'each change has one line';
is lines($p, qr/peer is healthy/), 1, 'both ways';
$p->stop;

# The request as it is sent.
$p = Proxyd->new;
my $seen = $p->origin('raw', sub {
    my ($c) = @_;
    my $q = $c->request or return;
    open my $fh, '>', $p->dir . '/seen.tmp';
    print $fh $q->{head};
    close $fh;
    rename $p->dir . '/seen.tmp', $p->dir . '/seen';
    $c->write(ok_answer());
});
$p->write_conf('http { upstream My_Group { zone z 64k; server 127.0.0.1:{{port:raw}}; }
    server { listen 127.0.0.1:{{port}}; location / { proxy_pass http://My_Group; health_check uri=/x; } } }');
$p->start;
ok Proxyd::wait_for(sub { -e $p->dir . '/seen' });
is $p->read_file('seen'), "GET /x HTTP/1.0\r\nConnection: close\r\nHost: My_Group\r\n\r\n", 'Host is the group';
unlink $p->dir . '/seen';
$p->write_conf('http { upstream My_Group { zone z 64k; server 127.0.0.1:{{port:raw}}; }
    proxy_set_header X-Check yes; proxy_set_header host example.com; proxy_set_header Connection upgrade; proxy_set_header X-Peer $remote_addr;
    server { listen 127.0.0.1:{{port}}; location / { proxy_pass http://My_Group; health_check uri=/y; } } }');
$p->reload;
ok Proxyd::wait_for(sub { -e $p->dir . '/seen' });
is $p->read_file('seen'), "GET /y HTTP/1.0\r\nConnection: close\r\nX-Check: yes\r\nhost: example.com\r\n\r\n",
    'what proxy_set_header says without variables goes along';
$p->stop;

# --- states, in four workers -----------------------------------------------------------------------------
$p = Proxyd->new;
%o = map { $_ => origin($p, $_) } qw(a b c s);
my $three = join ' ', map { "server 127.0.0.1:{{port:$_}} max_fails=0;" } qw(a b c);
my @methods = ('ip_hash', 'hash $request_id', 'hash $request_id consistent', 'maglev $request_id', 'random', 'random two',
    'least_conn', 'least_time header');
sub states_conf {
    my ($more) = @_;
    my $methods = join '', map { "upstream by$_ { zone all; $methods[$_]; $three }\n" } 0 .. $#methods;
    my $methods_in = join '', map { "location /by$_ { proxy_pass http://by$_; health_check interval=1s uri=/check-by; }\n" } 0 .. $#methods;
    return <<"EOT";
worker_processes 4;
daemon on;
http {
    upstream group  { zone all 512k; $three }
    $methods
    upstream counts { zone all; $three }
    upstream steps  { zone all; $three }
    upstream stuck  { zone all; sticky cookie name; $three }
    upstream slow   { zone all; server 127.0.0.1:{{port:a}} slow_start=1h; server 127.0.0.1:{{port:b}} slow_start=1h; }
    upstream late   { zone all; server 127.0.0.1:{{port:s}}; }
    upstream must   { zone all; server 127.0.0.1:{{port:a}}; }
    upstream pers   { zone all; server 127.0.0.1:{{port:a}}; }
    $more
    server {
        listen 127.0.0.1:{{port}};
        $methods_in
        location /group  { proxy_pass http://group; health_check interval=150ms uri=/check-group; }
        location /counts { proxy_pass http://counts; health_check interval=500ms uri=/check-counts; }
        location /steps  { proxy_pass http://steps; health_check interval=150ms fails=3 passes=4 uri=/check-steps; }
        location /stuck  { proxy_pass http://stuck; health_check interval=150ms uri=/check-stuck; }
        location /slow   { proxy_pass http://slow; health_check interval=150ms uri=/check-slow; }
        location /late   { proxy_pass http://late; proxy_read_timeout 1s; health_check interval=150ms uri=/check-late; }
        location /must   { proxy_pass http://must; health_check interval=150ms mandatory uri=/check-must; }
        location /pers   { proxy_pass http://pers; health_check interval=150ms mandatory persistent uri=/check-pers; }
        location /pid { return 200 \$pid; }
    }
}
EOT
}
$p->write_conf(states_conf(''));
my $began = Time::HiRes::time();
$p->start(daemon => 1);
Proxyd::wait_for(sub { $p->workers == 4 });
my ($port_a, $port_b) = ($p->port('a'), $p->port('b'));

ok Proxyd::wait_for(sub { ask($p, '/must') eq 'a' }), 'mandatory: served once it has passed';
ok $p->wait_log(qr/\[notice\] \S+ peer is healthy while checking status code, health check "" of peer 127.0.0.1:$port_a in upstream "must"/), 'which is said';
ok Proxyd::wait_for(sub { ask($p, '/pers') eq 'a' }), 'persistent as well';

is join('', sort split //, served($p, '/group', 12)), 'aaaabbbbcccc', 'all are well';
put($p, 'a-check-group', status_is(500));
ok $p->wait_log(qr/(\[warn\] \S+ peer is unhealthy while checking status code, health check "" of peer 127.0.0.1:$port_a in upstream "group")/), 'one is not';
unlike served($p, '/group', 40), qr/a/, 'and gets no request from any worker';
my $owner = $p->wait_log(qr/\[warn\] (\d+)#\d+: peer is unhealthy .*upstream "group"/);
ok scalar(grep { $_ == $owner } $p->workers), 'a worker has found out';
put($p, "$_-check-group", "nonsense\r\n\r\n") for 'b', 'c';
ok Proxyd::wait_for(sub { lines($p, qr/unhealthy .*upstream "group"/) == 3 }), 'then all of them';
is served($p, '/group', 12), '502' x 12, 'nobody is asked';
unlink $p->dir . "/$_-check-group" for qw(a b c);
ok Proxyd::wait_for(sub { lines($p, qr/\[notice\].* healthy .*upstream "group"/) == 3 }), 'all are well again';
is join('', sort split //, served($p, '/group', 12)), 'aaaabbbbcccc', 'and all serve';

# whatever the method
put($p, 'a-check-by', status_is(500));
ok Proxyd::wait_for(sub { lines($p, qr/unhealthy .*upstream "by\d"/) == @methods }), 'a server is sick in many groups';
unlike served($p, "/by$_", 12), qr/a|502/, "$methods[$_]: it is not asked" for 0 .. $#methods;

# fails= and passes=
sub checks { my ($o, $what) = @_; return scalar($o->lines(qr{check-$what})) }
my $before = checks($o{b}, 'steps');
put($p, 'b-check-steps', status_is(500));
ok $p->wait_log(qr/unhealthy .*$port_b in upstream "steps"/), 'fails=3';
# One may have been under way when the answer changed.
cmp_ok checks($o{b}, 'steps') - $before, '>=', 3 - 1, 'after three failures, not earlier';
my ($till) = $p->error_log =~ /^(.*?unhealthy [^\n]*$port_b in upstream "steps")/s;
is scalar(() = $till =~ /the status is 500.*$port_b in upstream "steps"/g), 3, 'as the log says';
$before = checks($o{b}, 'steps');
unlink $p->dir . '/b-check-steps';
ok $p->wait_log(qr/ healthy .*$port_b in upstream "steps"/), 'passes=4';
cmp_ok checks($o{b}, 'steps') - $before, '>=', 4 - 1, 'after four answers';

# a server that is connected to and says nothing
ok Proxyd::wait_for(sub { ask($p, '/late') eq 's' }), 'a server that answers';
my $silent = lines($p, qr/unhealthy .*upstream "late"/);
kill 'STOP', $o{s}{pid};
ok Proxyd::wait_for(sub { lines($p, qr/unhealthy .*upstream "late"/) > $silent }, 10), 'one that is silent is sick when proxy_read_timeout is over';
like $p->error_log, qr/upstream timed out \(110: Connection timed out\) while reading response header from upstream, health check/, 'which is said at info';
like $p->error_log, qr/peer is unhealthy while reading response header from upstream, health check "" of peer \S+ in upstream "late"/, 'and warn';
is ask($p, '/late'), 502, 'and not asked';
kill 'CONT', $o{s}{pid};
ok Proxyd::wait_for(sub { ask($p, '/late') eq 's' }), 'when it goes on it is well again';

# sticky
my ($cookie) = map { /^(name=\w+)/ } grep { defined } map { my $r = $p->get('/stuck'); $r->body eq 'a' ? $r->header('Set-Cookie') : undef } 1 .. 6;
ok $cookie, 'a client bound to a server';
is join('', map { ask($p, '/stuck', headers => [Cookie => $cookie]) } 1 .. 6), 'aaaaaa', 'goes there';
put($p, 'a-check-stuck', status_is(500));
ok $p->wait_log(qr/unhealthy .*upstream "stuck"/);
unlike join('', map { ask($p, '/stuck', headers => [Cookie => $cookie]) } 1 .. 12), qr/a|502/, 'and elsewhere when it is sick';

# slow_start
is served($p, '/slow', 4) =~ tr/a//, 2, 'two servers of the same weight';
put($p, 'a-check-slow', status_is(500));
ok $p->wait_log(qr/unhealthy .*upstream "slow"/);
unlink $p->dir . '/a-check-slow';
ok $p->wait_log(qr/ healthy .*upstream "slow"/);
cmp_ok served($p, '/slow', 40) =~ tr/a//, '<=', 2, 'one that was sick begins with little';

# Who said so last.
sub last_pid {
    my ($word) = @_;
    my @pids = ($p->error_log || '') =~ /(\d+)#\d+: peer is $word while [^\n]*upstream "group"/g;
    return $pids[-1];
}

# one prober, whatever happens to it
$p->expect_log(qr/exited on signal 9/);
for my $round (1 .. 3) {
    my $pid = last_pid('\w+');
    kill 'KILL', $pid;
    ok Proxyd::wait_for(sub { !Proxyd::alive($pid) }), "round $round: the prober is killed";
    my $n = lines($p, qr/unhealthy .*upstream "group"/);
    put($p, 'a-check-group', status_is(500));
    ok Proxyd::wait_for(sub { lines($p, qr/unhealthy .*upstream "group"/) > $n }, 10), 'another one goes on';
    isnt last_pid('unhealthy'), $pid, 'which is not the dead one';
    unlike served($p, '/group', 12), qr/a|502/, 'and all workers see what it finds';
    $n = lines($p, qr/ healthy .*upstream "group"/);
    unlink $p->dir . '/a-check-group';
    ok Proxyd::wait_for(sub { lines($p, qr/ healthy .*upstream "group"/) > $n }, 10), 'well again';
}
# one that is stopped: others cannot see that it is gone, but that it is silent
my $stopped = last_pid('healthy');
my $warned = lines($p, qr/unhealthy .*upstream "group"/);
kill 'STOP', $stopped;
put($p, 'a-check-group', status_is(500));
ok Proxyd::wait_for(sub { lines($p, qr/unhealthy .*upstream "group"/) > $warned }, 20), 'a prober that is stopped is replaced';
unlink $p->dir . '/a-check-group';
ok Proxyd::wait_for(sub { my $pid = last_pid('healthy'); $pid && $pid != $stopped }, 10),
    'and the other one goes on';
kill 'CONT', $stopped;
Proxyd::wait_for(sub { $p->workers == 4 });
my $n = checks($o{a}, 'counts');
cmp_ok $n, '>', 1, 'checks go on';
cmp_ok $n, '<=', (Time::HiRes::time() - $began) / 0.5 + 1, 'never more than one an interval, over four workers and four probers that were lost';

# --- reload -----------------------------------------------------------------------------------------------
put($p, 'a-check-group', status_is(500));
ok Proxyd::wait_for(sub { served($p, '/group', 6) !~ /a/ }), 'a sick server';
# mandatory servers that would pass, but nobody asks them any more
$p->write_conf(states_conf('') =~ s{interval=150ms (mandatory.*?) uri}{interval=1h $1 uri}gr);
my $healthy = lines($p, qr/ healthy .*upstream "must"/);
my $sick = lines($p, qr/unhealthy .*upstream "group"/);
my $pers = lines($p, qr/ healthy .*upstream "pers"/);
ok $p->reload, 'reload';
unlike served($p, '/group', 12), qr/a/, 'still sick';
is ask($p, '/pers'), 'a', 'persistent: well, as before';
ok Proxyd::wait_for(sub { lines($p, qr/ healthy .*upstream "must"/) == $healthy + 1 }), 'mandatory: checked again';
is ask($p, '/must'), 'a', 'and served';
is lines($p, qr/ healthy .*upstream "pers"/), $pers, 'persistent: no news';
put($p, 'a-check-must', "HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\n");
kill 'STOP', $o{a}{pid};
ok $p->reload, 'reload while the server is stopped';
is ask($p, '/must'), 502, 'mandatory: nobody is served before the check has ended';
kill 'CONT', $o{a}{pid};
unlink $p->dir . '/a-check-must';
ok $p->reload;
ok Proxyd::wait_for(sub { ask($p, '/must') eq 'a' }), 'when it has';
is lines($p, qr/unhealthy .*upstream "group"/), $sick, 'what was known is not said again';

# other servers in the group, and another check
$three = "server 127.0.0.1:{{port:a}}; server 127.0.0.1:{{port:b}};";
$p->write_conf(states_conf(''));
ok $p->reload, 'reload with other servers';
is served($p, '/group', 6), 'bbbbbb', 'still sick';

# --- binary upgrade -----------------------------------------------------------------------------------------
$p->signal('USR2');
ok Proxyd::wait_for(sub {
    my $pid = $p->pid_file || 0;
    -e $p->dir . '/proxyd.pid.oldbin' && $pid > 0 && $pid != $p->master && $p->workers($pid) == 4;
}, 15), 'upgrade: a new master and its workers';
my $new = $p->pid_file;
$p->signal('QUIT');
ok $p->adopt($new), 'the old one goes';
is served($p, '/group', 6), 'bbbbbb', 'still sick';
is lines($p, qr/unhealthy .*upstream "group"/), $sick, 'nothing was found out anew';
unlink $p->dir . '/a-check-group';
ok Proxyd::wait_for(sub { served($p, '/group', 4) =~ /a/ }, 10), 'the new program goes on checking';
$p->stop;

# --- many servers -------------------------------------------------------------------------------------------
# All are due within 20 ms and none is answered.
my $crowd = Proxyd->new;
my $pid = origin($crowd, 'a')->{pid};
kill 'STOP', $pid;
$crowd->write_conf("error_log error.log debug; http {
    upstream crowd { zone crowd 1m; @{[ 'server 127.0.0.1:{{port:a}};' x 200 ]} }
    server { listen 127.0.0.1:{{port}}; location / { proxy_pass http://crowd;
        health_check uri=/check interval=20ms mandatory; } } }");
$crowd->start;
ok $crowd->wait_log(qr/waits, for 64 others are under way/), 'a worker makes 64 checks at a time';
kill 'CONT', $pid;
ok Proxyd::wait_for(sub { served($crowd, '/', 1) eq 'a' && lines($crowd, qr/peer is healthy/) == 200 }, 20),
    'and all servers are checked';
$crowd->stop;
done_testing;
