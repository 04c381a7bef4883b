# SPDX-License-Identifier: BSD-2-Clause
#
# limit_req and limit_conn in nginx and in the server under test: the same requests in the same
# order pass, are refused, and answered with the same fields; and the same lines are logged, but for
# the excess, which depends on the moment.
#
# Not compared: zones that are full (ours keeps what is in use, theirs what was used last).
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
    limit_req_zone $arg_k zone=a:1m rate=1r/m;
    limit_req_zone $arg_b zone=b:1m rate=1r/m;
    limit_req_zone $arg_k$arg_b zone=ab:1m rate=1r/m;
    limit_conn_zone $arg_k zone=c:1m;
    add_header X-Limits "$limit_req_status $limit_conn_status" always;
    limit_req_log_level notice;

    server {
        listen 127.0.0.1:{{port}};
        server_name main.test;
        root {{dir}}/html;
        location /plain { try_files /page =404; }
        location /one { limit_req zone=a; limit_conn c 1; try_files /page =404; }
        location /burst { limit_req zone=a burst=2 nodelay; try_files /page =404; }
        location /delay { limit_req zone=a burst=4 delay=3; try_files /page =404; }
        location /two { limit_req zone=a burst=3 nodelay; limit_req zone=b burst=1 nodelay;
            try_files /page =404; }
        location /owt { limit_req zone=b burst=1 nodelay; limit_req zone=a burst=3 nodelay;
            try_files /page =404; }
        location /three { limit_req zone=ab nodelay; limit_req zone=a burst=1 nodelay;
            limit_req zone=b burst=2 nodelay; try_files /page =404; }
        location /code { limit_req zone=a; limit_req_status 429; try_files /page =404;
            location /code/in { limit_req_status 444; try_files /page =404; } }
        location /dry { limit_req zone=a burst=1 nodelay; limit_req_dry_run on; try_files /page =404; }
        location /sorry { limit_req zone=a; error_page 503 /pages/sorry; try_files /page =404; }
        location /named { limit_req zone=a; error_page 503 =200 @named; try_files /page =404; }
        location @named { limit_req zone=a; limit_conn c 1; try_files /sorry =404; }
        location /pages/ { limit_req zone=a; limit_conn c 1; try_files /sorry =404; }
        location /again { limit_req zone=a; try_files /nothing /one; }
        location /static { limit_req zone=a; limit_conn c 1; }
        location /return { limit_req zone=a; return 200 "returned\n"; }
        location /if { limit_req zone=a; if ($arg_x) { return 402; } try_files /page =404; }
        location = /count { stub_status; }
    }
}
EOT
my %files = (page => "page\n", sorry => "sorry\n", static => 'x' x 3000);
my ($tested, $theirs) = Proxyd::Differential::start(conf => $conf, files => \%files);

my @rows;
my $n = 0;
for my $uri (qw(plain one burst two owt three code code/in dry sorry named again static return if)) {
    $n++;
    push @rows, map { [GET => "/$uri?k=key$n$_"] } ('') x 4, '&b=x', '&b=x', '&x=1';
    push @rows, [HEAD => "/$uri?k=key$n"], [POST => "/$uri?k=key$n", 'body'], [GET => "/$uri"],
        [GET => "/$uri?k=key$n"], [GET => "/$uri", Range => 'bytes=0-1'], [GET => "/$uri?k=" . 'y' x 300];
}
push @rows, map { [GET => '/delay?k=delayed'] } 1 .. 4;
push @rows, [GET => '/one?k=delayed'];
Proxyd::Differential::compare($tested, $theirs, map { Proxyd::Differential::row(@$_) } @rows);

# --- what was logged -------------------------------------------------------------------------------------
sub lines {
    my ($s) = @_;
    return map { s/excess: [\d.]+/excess: N/r }
        map { /\[(\w+)\] \d+#\d+: \*\d+ (.*(?:limiting|delaying|more than \d+ bytes).*)/ ? "$1: $2" : () }
        split /\n/, $s->error_log;
}
my ($ours, $others) = ([lines($tested)], [lines($theirs)]);
cmp_ok scalar @$others, '>', 50, 'lines to compare';
is join("\n", @$ours), join("\n", @$others), 'the same lines were logged, in the same order';
$_->stop for $tested, $theirs;

done_testing();
