# SPDX-License-Identifier: BSD-2-Clause
#
# Configurations made by chance (Proxyd::RandomConf), run by nginx and by the server under test, and
# held against each other: answers, and lines of the access log. A difference is shown with the server's
# configuration and the seed that makes it again.
#
# Known differences, which the generator does not make or which are taken out below:
#   1. A target that is no URI ("/..") is answered by the default server in nginx, and by the named one here.
#   2. 416: what nginx has said of the file before it found out that the range is not in it stays there.
#   3. autoindex and index under the alias of a regex location without a slash at its end; "alias" once the URI was
#      rewritten, where nginx does not know $request_filename any more.
#   4. The blank in a URI that proxy_pass makes of variables is encoded here.
#   5. Accept-Ranges of an answer that sub_filter changes; the Location of a redirect whose page has a Location of its own.
#   6. In a last argument of try_files under alias that would be no URI the location's part stays.
#   7. "=200" at the end of try_files, and "return 304" with a type.
#
#   DIFFERENTIAL_SEED=N   the first seed (else a fixed one)
#   DIFFERENTIAL_ROUNDS=N how many configurations, each with the next seed
#   DIFFERENTIAL_SERVERS=N, DIFFERENTIAL_REQUESTS=N   servers to a configuration, requests to a server
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/lib";
use Test::More;
use Proxyd;
use Proxyd::Differential;
use Proxyd::RandomConf;

plan skip_all => 'nginx is not installed' unless Proxyd::Differential::available();

my $seed     = $ENV{DIFFERENTIAL_SEED}     // 20_240;
my $rounds   = $ENV{DIFFERENTIAL_ROUNDS}   // 6;
my $servers  = $ENV{DIFFERENTIAL_SERVERS}  // 30;
my $requests = $ENV{DIFFERENTIAL_REQUESTS} // 20;

# What differs between two texts, by lines.
sub difference {
    my @l = map { [split /\n/, $_, -1] } @_;
    my @has = map { my %h; $h{$_}++ for @$_; \%h } @l;
    return join "\n", (map { $has[1]{$_} ? "  $_" : "got      $_" } @{ $l[0] }),
        map { $has[0]{$_} ? () : "expected $_" } @{ $l[1] };
}

sub access_lines {
    my ($s) = @_;
    my ($dir, $port) = ($s->dir, $s->port);
    my %by_id;
    for (split /\n/, $s->access_log // '') {
        s/\Q$dir\E/DIR/g;
        s/:$port\b/:PORT/g;
        my ($id, $rest) = /^([^|]*)\|(.*)/ or next;
        $rest =~ s/^500\|[^|]*\|[^|]*/500||/;    # cycles, and URIs that came to nothing
        $rest =~ s/^(\d+)\|-\|/$1||/;        # no URI at all
        $rest =~ s/^206/200/;               # of an error page
        $rest =~ s/boundary=\w+/boundary/;
        $rest =~ s/\|-?\|(HEAD|GET|POST|PUT|DELETE|OPTIONS)\|/|-|$1|/;
        $by_id{$id} .= "$rest\n";
    }
    return \%by_id;
}

for my $round ($seed .. $seed + $rounds - 1) {
    srand $round;
    my @server = map { Proxyd::RandomConf::server("s$_.test") } 1 .. $servers;
    my @rows = map { my $n = $_; map { Proxyd::RandomConf::request("s$n.test", "$n-$_") } 1 .. $requests } 1 .. $servers;
    my $conf = "worker_processes 1;\nhttp {\n" . Proxyd::RandomConf::common() . join('', @server) . "}\n";
    my ($tested, $theirs) = Proxyd::Differential::start(conf => $conf, files => Proxyd::RandomConf::files(),
        origins => { app => \&Proxyd::RandomConf::application });
    my %failed;
    for my $i (0 .. $#rows) {
        my ($got, $expected) = map { Proxyd::Differential::answer($_, $rows[$i]) } $tested, $theirs;
        # Of two fields only the first is compared, and what a 416 that came to nothing has left.
        s/^(Location: .*\n(?:.*\n)*?)Location: .*\n/$1/m for $got, $expected;
        if ($expected !~ m{^HTTP/1.1 (?:206|416)}) { s/^Content-Range: .*\n//m for $got, $expected }
        next if $got eq $expected || $expected =~ m{^HTTP/1.1 416};
        my $n = int($i / $requests) + 1;
        diag "seed $round, server $n:\n$server[$n - 1]" unless $failed{$n};
        fail $rows[$i][0] =~ s/\r\n/ + /gr;
        diag difference($got, $expected) if $failed{$n}++ < 3;
    }
    pass "seed $round: " . @rows . ' requests';
    my ($ours, $nginx) = map { access_lines($_) } $tested, $theirs;
    for my $id (sort keys %$nginx) {
        my ($n) = $id =~ /^(\d+)-/;
        next if $id eq '-';    # a request line that cannot be understood
        next if $failed{$n} || ($ours->{$id} // '') eq $nginx->{$id};
        diag "seed $round, server $n:\n$server[$n - 1]" unless $failed{"log$n"}++;
        is $ours->{$id}, $nginx->{$id}, "access log of $id";
    }
    $_->expect_log(qr/"alias" cannot be used in location/) for $tested, $theirs;
    $_->stop(name => 'stopped') for $tested, $theirs;
}
done_testing;
