# SPDX-License-Identifier: BSD-2-Clause
#
# Values that one request keeps or computes anew, in nginx and here: through rewrites, internal redirects, named
# locations, error_page, subrequests and the log; captures of regular expressions wherever they come from.
#
# Not compared: captures that a variable in the midst of a text changes, for nginx measures the text before it writes it; an
# index whose name is empty, which nginx takes for the directory; blanks behind a field's value that are tabs.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/lib";
use Test::More;
use Proxyd;
use Proxyd::Differential;

plan skip_all => 'nginx is not installed' unless Proxyd::Differential::available();

my $conf = <<'EOT';
worker_processes 1;
http {
    uninitialized_variable_warn off;
    default_type text/plain;
    map $uri $u { default "m:$uri"; }
    map $arg_a $cap { ~(?<n1>.)(?<n2>.)? "[$n1|$n2|$1|$2]"; default none; }
    map $arg_a $cap2 { ~^(\w)-(\w)$ $2$1; default $arg_b; }
    map $arg_b $n2 { default b$arg_b; }
    map $http_host $hm { hostnames; default def; *.x.test sub; x.test ex; ~^(?<sub>.+)\.y\.test$ "y-$sub"; y.* yy; "" e; }
    map $remote_addr$arg_a $dup { 127.0.0.1 lo; 127.0.0.1x lox; }
    map $content_length $length { volatile; default "[$content_length]"; "" none; }
    map $arg_a $undefined { }
    split_clients $arg_a $rarely { 0.01% x; }
    geo $nowhere { 1.2.3.4 x; }
    map $sent_http_x_y $late { default "late:$sent_http_x_y"; "" nolate; }
    map $content_length $length { volatile; default "[$content_length]"; "" none; }
    map $arg_a $undefined { }
    split_clients $arg_a $rarely { 0.01% x; }
    geo $nowhere { 1.2.3.4 x; }
    map $sent_http_x_y $latev { volatile; default "late:$sent_http_x_y"; "" nolate; }
    log_format json escape=json "{\"x\":\"$http_x\",\"a\":\"$arg_a\",\"n\":\"$sent_http_nothing\",\"r\":\"$request\"}";
    log_format none escape=none "$http_x,$arg_a,$sent_http_nothing,$request";
    log_format plain escape=default "$http_x${arg_a}," "$sent_http_nothing,"
        "$request";
    log_format a "$request|$undefined|$rarely|$nowhere|$remote_user|$length|$uid_reset|$u|$cap|$cap2|$hm|$dup|$late|$latev|$sub|$status|$s|$uri|$args|$arg_a|$request_uri|$n1";
    server {
        listen 127.0.0.1:{{port}};
        access_log {{dir}}/all.log a;
        access_log {{dir}}/all.log json;
        access_log {{dir}}/all.log none;
        access_log {{dir}}/all.log plain if=$arg_a;
        access_log {{dir}}/all.log plain if=$undefined;
        root {{dir}}/html;
        set $s "server-$uri";
        location /a { add_header X-Y 1; add_header X-U "$u|$late|$latev"; return 200 "$cap|$cap2|$hm|$dup|$s|$1|$2|$n1"; }
        location /rw { rewrite ^/rw/(.*)$ /a?a=$1-$u last; }
        location /rwq { set $o $u; rewrite ^/rwq/(.*)$ /a?$args&x=$1? last; }
        location /rwb { rewrite ^/rwb/(.*)$ /b$1 break; add_header X "$uri|$u|$1"; return 200 never; }
        location /err { error_page 404 /a?from=err; set $e1 $u; return 404; }
        location /errn { error_page 404 @named; set $s changed; return 404; }
        location @named { add_header X-Y named; return 200 "$s|$u|$uri|$args|$late|$latev|$status"; }
        location /idx/ { index i$arg_i index.txt; add_header X-U "$u|$uri|$s"; }
        location /try { try_files /$arg_a /d/$arg_b /a?z=$u; add_header X-U "$u|$uri|$args"; }
        location /trye { try_files /none =405; add_header X-U "$u" always; }
        location /au { auth_request /aa; auth_request_set $got $sent_http_x_q; auth_request_set $st $status; auth_request_set $uu $u; add_header X-G "$got|$st|$uu|$u|$s" always; alias {{dir}}/html/d/a.txt; }
        location /aa { add_header X-Q q-$arg_a; set $s "in-auth$uri"; if ($arg_a = deny) { return 403; } return 204; }
        location /addn { add_before_body /inc; add_after_body /inc?2; addition_types *; add_header X-U "$u|$s"; alias {{dir}}/html/d/a.txt; }
        location /inc { set $s "$s+"; return 200 "inc $u $uri $args $s\n"; }
        location /ifs { if ($arg_a ~ "^(.)(.)") { set $s $2$1; add_header X-If "$1|$2"; } if ($cap ~ "(x)") { set $s "$s$1"; } return 200 "$s|$1|$2|$cap"; }
        location ~ ^/re/(?<n1>[a-z]+)/(\d+)$ { if ($cap2) { set $s "$n1-$2-$1"; } add_header X-R "$n1|$1|$2"; add_header X-C $cap; return 200 "$s|$1|$2"; }
        location /length { if ($content_length) { set $s early; } proxy_http_version 1.1; proxy_pass http://127.0.0.1:{{port:app}};
            proxy_set_header X-Length "$content_length|$length"; add_header X-Length "$content_length|$length|$s"; }
        location /absent { set $s ""; if ($undefined) { set $s "${s}1"; } if ($undefined = "") { set $s "${s}2"; } if ($http_x = "") { set $s "${s}3"; }
            if ($http_x ~ "^$") { set $s "${s}4"; } if ($http_x !~ x) { set $s "${s}5"; } if ($http_x != "") { set $s "${s}6"; }
            add_header X-Empty $undefined; add_header X-Same "$undefined" always; return 200 "$s|$undefined|$rarely|$nowhere"; }
        location /ssi { ssi on; ssi_types *; alias {{dir}}/html/d/s.txt; }
        location /user { return 200 "$remote_user"; }
        location /lr { set $limit_rate $arg_a; return 200 $limit_rate; }
        location /setargs { set $args $arg_a; rewrite ^ /a last; }
    }
}
EOT
my $ssi = 'A <!--#include virtual="/inc?a=1" --> <!--#include virtual="/inc?a=2" --> <!--#set var="s" value="$u" --><!--#echo var="s" -->'
    . ' <!--#echo var="nope" default="ND" --> <!--#echo var="arg_a" default="ND" --> <!--#if expr="$undefined" -->T<!--#else -->F<!--#endif -->';
my ($tested, $theirs) = Proxyd::Differential::start(conf => $conf, origins => { app => \&app },
    files => { 'd/a.txt' => "A\n", 'd/s.txt' => $ssi, 'idx/index.txt' => "i\n", 'b1' => "b1\n", 'f' => "f\n", 'idx/io' => "o\n" });

# Says what it was told of the length.
sub app {
    my ($c) = @_;
    while (my $q = $c->request) {
        my ($length) = map { $_->[1] } grep { lc $_->[0] eq 'x-length' } @{ $q->{headers} };
        $c->write('HTTP/1.1 200 OK' . "\r\nContent-Length: " . length($length) . "\r\n\r\n$length");
    }
}

my @table;
sub add { push @table, Proxyd::Differential::row(@_) }
for my $q ('', '?a=xy', '?a=x', '?a=x-y', '?a=', '?a=deny', '?a=zz&b=q', '?b=a.txt', '?a=f', '?i=o', '?a=%78y', '?a=1k', '?a=-1', '?a=q%26b=3',
    '?a=x&a=y') {
    add('GET', "$_$q") for qw(/a /rw/q /rwq/q /rwb/1 /err /errn /idx/ /try /trye /au /addn /ifs /re/ab/12 /lr /setargs /nope /inc /ssi /absent);
}
add('GET', '/a', 'Host', $_) for 'x.test', 'a.x.test', 'q.y.test', 'y.z', 'Y.Z.', 'X.TEST.', '.x.test', '';
add('HEAD', $_) for '/a?a=xy', '/au', '/addn', '/ssi';
add('GET', '/absent', 'X', $_) for '', 'x', '0', "\xff\"\\\x01\x7f";
add('GET', "/absent?a=$_") for '%22', '"', "\xff\x01", '\\';
add('GET', '/user', 'Authorization', $_) for 'Basic Og==', 'Basic dQ==', 'Basic dTo=', 'Basic', 'Basic ', 'basic   dTpw  ', 'Basic dTpw dTpw', 'Basic ZcO8OnA=';
add('POST', '/length', $_) for 'abc', '';
add('POST', '/length', 'Transfer-Encoding', 'chunked', $_) for "3\r\nabc\r\n0\r\n\r\n", "0\r\n\r\n";
add('GET', '/length');
Proxyd::Differential::compare($tested, $theirs, @table);
like Proxyd::Differential::answer($tested, Proxyd::Differential::row('GET', '/length')), qr/^X-Length: \|none\|server-\/length\n/m, 'the origin answers';
Proxyd::Differential::answer($theirs, Proxyd::Differential::row('GET', '/length'));

sub lines {
    my ($s) = @_;
    my ($dir, $port) = ($s->dir, $s->port);
    my @l = split /\n/, $s->access_log('all.log') // '';
    for (@l) { s/\Q$dir\E/DIR/g; s/\b$port\b/PORT/g }
    return @l;
}
# Lines are written when answers are out: those of the last ones may be a moment behind.
Proxyd::wait_for(sub { lines($tested) == lines($theirs) });
my @ours = lines($tested);
my @nginx = lines($theirs);
is scalar @ours, scalar @nginx, 'as many lines in the log';
for (0 .. $#nginx) { is $ours[$_], $nginx[$_], 'logged: ' . substr $nginx[$_], 0, 60 }
$_->stop for $tested, $theirs;
done_testing;
