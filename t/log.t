# SPDX-License-Identifier: BSD-2-Clause
#
# The access log and the error log.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/lib";
use IO::Uncompress::Gunzip qw(gunzip $GunzipError);
use JSON::PP               ();
use Socket;
use Test::More;
use Proxyd;

my $p = Proxyd->new(log => 'info', conf => <<'EOT');
http {
    log_format own '$remote_addr|$request|$status|$body_bytes_sent|$http_x_y|$args';
    log_format js escape=json '{"uri":"$uri","x":"$http_x_y","none":"$http_none"}';
    log_format raw escape=none '$http_x_y|$http_none|';
    log_format dflt escape=default '$http_x_y|$http_none|$arg_q';
    log_format times '$msec|$request_time|$time_iso8601|$time_local|$pid|$connection|$connection_requests|$pipe|$request_length|$bytes_sent|$upstream_response_time';
    log_format many "a" 'b' c "$status";
    map $status $bad { ~^[23] 0; default 1; } #? map
    access_log {{dir}}/access.log;

    server {
        listen 127.0.0.1:{{port}};
        server_name log.test;
        root {{dir}}/html;
        location /plain { return 200 plain; }
        location /own { access_log {{dir}}/own.log own; return 200 "body"; }
        location /js { access_log {{dir}}/js.log js; return 200; }
        location /raw { access_log {{dir}}/raw.log raw; return 200; }
        location /dflt { access_log {{dir}}/dflt.log dflt; return 200; }
        location /times { access_log {{dir}}/times.log times; return 200 t; }
        location /many { access_log {{dir}}/many.log many; return 200; }
        location /off { access_log off; return 200; }
        location /two { access_log {{dir}}/two1.log own; access_log {{dir}}/two2.log many;
            return 200; }
        location /if0 { access_log {{dir}}/if.log own if=$arg_log; return 200; }
        location /ifbad/ { access_log {{dir}}/ifbad.log own if=$bad; } #? map
        location /var/ { access_log {{dir}}/logs/$arg_n.log own; return 200; }
        location /varcached/ { open_log_file_cache max=10 inactive=1s min_uses=1 valid=1m;
            access_log {{dir}}/logs/cached-$arg_n.log own; return 200; }
        location /buffer { access_log {{dir}}/buffer.log own buffer=32k; return 200; }
        location /flush { access_log {{dir}}/flush.log own buffer=32k flush=200ms; return 200; }
        location /gzip { access_log {{dir}}/gzip.log own gzip buffer=4k; return 200 x; }
        location /stderr { access_log /dev/stderr own; return 200; }
        location /syslog {
            access_log syslog:server=unix:{{dir}}/syslog.sock,tag=ptag,facility=local3,severity=notice,nohostname own; return 200; }
        location /nested/ { access_log {{dir}}/nested.log own; location /nested/in/ { return 200; }
            }
        location /ep/ { error_page 404 /eptarget; access_log {{dir}}/eporigin.log own; }
        location = /eptarget { access_log {{dir}}/eptarget.log own; return 200 x; }
        location /sub/ { log_subrequest on; return 200; }
        location /missing/ { }
        location /missingoff/ { log_not_found off; }
        location /errfile/ { error_log {{dir}}/errfile.log; }
        location /errcrit/ { error_log {{dir}}/errcrit.log crit; }
        location /errtwo/ { error_log {{dir}}/errtwo1.log error; error_log {{dir}}/errtwo2.log crit;
            error_log {{dir}}/errtwo3.log info; }
        location /syslogerr/ { error_log syslog:server=unix:{{dir}}/syslog.sock,nohostname info; }
        location /proxy/ { proxy_pass http://127.0.0.1:{{port:closed}}; }
        location /rwlog/ { rewrite_log on; error_log {{dir}}/rewrite.log notice;
            rewrite ^/rwlog/(.*) /plain$1 last; }
    }
    server {
        listen 127.0.0.1:{{port:b}};
        error_log {{dir}}/server-error.log warn;
        root {{dir}}/html;
        location /inner/ { error_log {{dir}}/inner-error.log; }
    }
}
EOT
socket my $syslog, PF_UNIX, SOCK_DGRAM, 0 or die;
bind $syslog, sockaddr_un($p->dir . '/syslog.sock') or die $!;
$p->port('closed');
$p->start;
my $dir = $p->dir;
sub get   { return $p->get($_[0], host => 'log.test', @_[1 .. $#_]) }
sub line  { my ($file, $re) = @_; return $p->wait_log($re || qr/^(.*)\n\z/m, $file) }
sub lines { my $t = $p->read_file($_[0]); return defined $t ? scalar(() = $t =~ /\n/g) : 0 }

# --- formats --------------------------------------------------------------------------------------
get('/plain?a=b', headers => ['User-Agent', 'ag ent', 'Referer', 'http://r/']);
like line('access.log', qr/^(.*\/plain.*)$/m),
    qr{^127\.0\.0\.1 - - \[\d\d/\w{3}/\d{4}:\d\d:\d\d:\d\d [+-]\d{4}\] "GET /plain\?a=b HTTP/1\.1" 200 5 "http://r/" "ag ent"$},
    'combined is the default';
get('/own?x=y', headers => ['X-Y', 'z']);
is line('own.log'), '127.0.0.1|GET /own?x=y HTTP/1.1|200|4|z|x=y', 'a format of our own';
get('/own');
is line('own.log', qr/\n(.*)\n\z/), '127.0.0.1|GET /own HTTP/1.1|200|4|-|-',
    'an absent value is a hyphen';
get('/js', headers => ['X-Y', "a\"b\\c\td\x01e/\xc3\xa4"]);
my $js = line('js.log');
is $js, "{\"uri\":\"/js\",\"x\":\"a\\\"b\\\\c\\td\\u0001e/\xc3\xa4\",\"none\":\"\"}", 'escape=json';
ok eval { JSON::PP->new->utf8->decode($js) }, 'and it is JSON';
get('/raw', headers => ['X-Y', "a\"b\\c\td"]);
is line('raw.log'), "a\"b\\c\td||", 'escape=none';
get('/dflt?q=%22', headers => ['X-Y', "a\"b\\c\td\x7f\xe4"]);
is line('dflt.log'), 'a\x22b\x5Cc\x09d\x7F\xE4|-|%22', 'escape=default';
my $x = $p->raw('main', "GET /times HTTP/1.1\r\nHost: a\r\n\r\n" x 2, count => 2);
line('times.log', qr/\n.*\n\z/);
my @t        = split /\n/, $p->read_file('times.log');
my @f        = split /\|/, $t[0];
my ($worker) = $p->workers;
like $f[0], qr/^\d{10}\.\d{3}$/,                               '$msec';
like $f[1], qr/^\d+\.\d{3}$/,                                  '$request_time';
like $f[2], qr/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d\d:\d\d$/, '$time_iso8601';
like $f[3], qr{^\d\d/\w{3}/\d{4}:\d\d:\d\d:\d\d [+-]\d{4}$},   '$time_local';
is $f[4],  $worker,                                         '$pid is the worker';
is $f[6],  1,                                               '$connection_requests';
is $f[7],  '.',                                             '$pipe: the first was not pipelined';
is $f[8],  length "GET /times HTTP/1.1\r\nHost: a\r\n\r\n", '$request_length';
is $f[9],  length $x->{responses}[0]{raw},                  '$bytes_sent';
is $f[10], '-', '$upstream_response_time without an upstream';
@f = split /\|/, $t[1];
is "$f[6]$f[7]", '2p', 'the second request of the connection was';
get('/many');
is line('many.log'), 'abc200', 'a format in several words';

# --- where to -------------------------------------------------------------------------------------
my $n = lines('access.log');
get('/off');
get('/own');
get('/plain?sync');
line('access.log', qr/sync/);
is lines('access.log'), $n + 1,
    'off, and a location with a log of its own, write nothing to the outer log';
get('/two');
ok line('two1.log') && line('two2.log'), 'two logs';
get('/if0?log=0&a');
get('/if0?log=&b');
get('/if0?c');
get('/if0?log=1&d');
is line('if.log'), '127.0.0.1|GET /if0?log=1&d HTTP/1.1|200|0|-|log=1&d',
    'if= with 0, with nothing, with 1';
is lines('if.log'), 1, 'only the one';
$p->write_file('html/ifbad/f', 'x');
$p->with(
    'map',
    sub {
        get('/ifbad/f');
        get('/ifbad/none');
        like line('ifbad.log'), qr{\|404\|}, 'if= by the status';
        is lines('ifbad.log'), 1, 'only that one';
    }
);
get('/nested/in/x');
ok line('nested.log'), 'a nested location inherits';
get('/ep/x');
like line('eptarget.log'), qr{GET /ep/x HTTP/1\.1\|404\|1},
    'an error page is logged where it ended';
is lines('eporigin.log'), 0, 'not where it began';
get("/var/?n=$_")       for qw(a b);
get("/varcached/?n=$_") for qw(a a b);
ok line("logs/a.log") && line('logs/b.log'), 'variables in the path';
ok $p->wait_for(sub { lines('logs/cached-a.log') . lines('logs/cached-b.log') eq '21' }),
    'with the cache of files';

# --- buffers --------------------------------------------------------------------------------------
get('/buffer');
get('/flush');
ok $p->wait_log(qr/./, 'flush.log', 5), 'flush= writes in time';
is lines('buffer.log'), 0, 'buffer= waits';
get('/gzip?' . 'x' x 100) for 1 .. 60;
ok $p->wait_for(sub { -s "$dir/gzip.log" }), 'gzip: a full buffer is written';
$p->signal('USR1');
ok $p->wait_log(qr/./, 'buffer.log'), 'USR1 flushes the buffer';

# --- syslog ---------------------------------------------------------------------------------------
sub syslog_line {
    my $re  = shift;
    my $rin = '';
    vec($rin, fileno $syslog, 1) = 1;
    for (1 .. 20) {
        return '' unless select(my $r = $rin, undef, undef, 5);
        recv $syslog, my $m, 65536, 0;
        return $m if $m =~ $re;
    }
    return '';
}
get('/syslog');
like syslog_line(qr/./),
    qr{^<157>\w{3} [ \d]\d \d\d:\d\d:\d\d ptag: 127\.0\.0\.1\|GET /syslog HTTP/1\.1\|200\|0\|-\|-$},
    'access log by syslog';
get('/syslogerr/none');
like syslog_line(qr/open/),
    qr{^<187>\w{3} [ \d]\d \d\d:\d\d:\d\d \w+: \S+ \S+ \[error\] \d+#\d+: \*\d+ open\(\) "},
    'error log by syslog';

# --- the error log --------------------------------------------------------------------------------
get('/missing/f', headers => ['Referer', 'http://ref/']);
like line('error.log', qr/^(.*missing\/f.*)$/m),
    qr{^\d{4}/\d\d/\d\d \d\d:\d\d:\d\d \[error\] $worker#\d+: \*\d+ open\(\) "\Q$dir\E/html/missing/f" failed \(2: No such file or directory\), client: 127\.0\.0\.1, server: log\.test, request: "GET /missing/f HTTP/1\.1", host: "log\.test", referrer: "http://ref/"$},
    'the form of a line, and its context';
get('/missingoff/f');
get('/missing/sync');
line('error.log', qr/missing\/sync/);
unlike $p->error_log, qr/missingoff/, 'log_not_found off';
get('/proxy/x');
like line('error.log', qr/^(.*proxy\/x.*)$/m),
    qr{ \[error\] \d+#\d+: \*\d+ connect\(\) failed \(111: Connection refused\) while connecting to upstream, client: 127\.0\.0\.1, server: log\.test, request: "GET /proxy/x HTTP/1\.1", upstream: "http://127\.0\.0\.1:\d+/proxy/x", host: "log\.test"$},
    'with an upstream';
get('/errfile/none');
ok line('errfile.log', qr/errfile/), 'error_log of a location';
unlike $p->error_log, qr/errfile/, 'replaces the outer one';
get('/errcrit/none');
get('/errtwo/none');
ok line('errtwo1.log', qr/errtwo/) && line('errtwo3.log', qr/errtwo/),
    'several: each whose level admits it';
is lines('errtwo2.log'), 0, 'not the one whose level does not';
is lines('errcrit.log'), 0, 'a level keeps lesser messages out';
$p->get('/x', port => 'b');
ok line('server-error.log', qr/html\/x/), 'error_log of a server';
$p->get('/inner/x', port => 'b');
ok line('inner-error.log', qr/inner\/x/), 'of a location in it';
unlike $p->read_file('server-error.log'), qr/inner/, 'which replaces it';
get('/rwlog/x');
ok line('rewrite.log', qr{\[notice\] \d+#\d+: \*\d+ rewritten data: "/plainx", args: "", client:}),
    'rewrite_log';
$p->http("GET / HTTP/1.1\r\nHost: a b\r\n\r\n");
ok line(
    'error.log',
    qr{\[info\] \d+#\d+: \*\d+ client sent invalid host header while reading client request headers, client: 127\.0\.0\.1, server: log\.test, request: "GET / HTTP/1\.1", host: "a b"}
    ),
    'a bad request says why, at info';
$p->http("garbage\r\n\r\n");
ok line(
    'error.log',
    qr{\[info\] \d+#\d+: \*\d+ client sent invalid method while reading client request line, client: 127\.0\.0\.1, server: log\.test, request: "garbage"}
    ),
    'a bad request line';
ok line('access.log', qr{"garbage" 400 }), 'is in the access log as it came';
$p->http("G\x01\"\\\xff / HTTP/1.1\r\n\r\n");
ok line('access.log', qr{"G\\x01\\x22\\x5C\\xFF / HTTP/1\.1" 400 }), 'escaped';
unlike $p->read_file('access.log'), qr/[^\x0a\x20-\x7e]/, 'no byte that a terminal would obey';

# --- reopen ---------------------------------------------------------------------------------------
rename "$dir/$_", "$dir/$_.1" for qw(access.log error.log own.log errfile.log);
get('/own?before');
ok $p->wait_log(qr/before/, 'own.log.1'), 'a moved log is written on';
$p->signal('USR1');
ok $p->wait_for(
    sub {
        -e "$dir/access.log" && -e "$dir/error.log" && -e "$dir/own.log" && -e "$dir/errfile.log";
    }
    ),
    'USR1 opens them anew';
ok $p->wait_for(sub { get('/own?after'); ($p->read_file('own.log') || '') =~ /after/ }),
    'and the workers write there';
get('/errfile/none2');
ok line('errfile.log', qr/none2/), 'error logs too';

# --- the end --------------------------------------------------------------------------------------
get('/buffer?last');
my $r;
$p->signal('QUIT');
$p->wait_for(sub { !-e "$dir/proxyd.pid" });
like $p->read_file('buffer.log'), qr/last/, 'QUIT flushes the buffers';
my $gz    = $p->read_file('gzip.log');
my $plain = '';
ok gunzip(\$gz => \$plain, MultiStream => 1), 'the compressed log can be read';
is scalar(() = $plain =~ /\n/g), 60, 'and holds all lines';
$p->stop;
done_testing;
