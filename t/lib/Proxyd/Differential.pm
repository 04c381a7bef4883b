# SPDX-License-Identifier: BSD-2-Clause
#
# One configuration run by Debian's nginx and by the server under test, and their answers to the
# same requests held against each other, field for field and in the same order.  What may differ is
# taken out first: the values of Server and Date, the name at the foot of built-in pages (and with
# it their length), boundaries, directories and ports, times made from the present.
package Proxyd::Differential;

use strict;
use warnings;
use Test::More ();
use Proxyd;

my $nginx = '/usr/sbin/nginx';

sub available { return -x $nginx }

# start(conf => TEMPLATE, files => { path below html => text }, origins => { name => handler },
#     closed => [names of ports where nothing listens]): the two servers, running.
# Lines of the template that end in "#? NAME" are left out where the server under test does not
# know the directive NAME. Files get the same old time in both.
sub start {
    my (%o) = @_;
    my $tested = Proxyd->new;
    my $theirs = Proxyd->new(binary => $nginx);
    my @shared = (keys %{ $o{origins} || {} }, @{ $o{closed} || [] });
    $tested->origin($_, $o{origins}{$_}) for sort keys %{ $o{origins} || {} };
    $tested->port($_) for @{ $o{closed} || [] };
    for my $s ($tested, $theirs) {
        $s->{ports}{$_} = $tested->port($_) for @shared;
        my $files = $o{files} || {};
        for (keys %$files) {
            $s->write_file("html/$_", $files->{$_});
            utime 1_500_000_000, 1_500_000_000, $s->dir . "/html/$_";
        }
        # What the tested binary does not have, neither is asked for.
        $s->write_conf($tested->strip($o{conf}));
        $s->start;
    }
    return ($tested, $theirs);
}

# A row of the table: row(METHOD, URI, [NAME, VALUE ...], [BODY]) is [bytes, [method]].
sub row {
    my ($method, $uri, @h) = @_;
    my $body = @h % 2 ? pop @h : undef;
    my %has  = map { lc $_ => 1 } @h[grep { !($_ & 1) } 0 .. $#h];
    my $req  = "$method $uri HTTP/1.1\r\n";
    $req .= "Host: main.test\r\n" unless $has{host};
    while (my ($n, $v) = splice @h, 0, 2) { $req .= "$n: $v\r\n" }
    $req .= 'Content-Length: ' . length($body) . "\r\n"
        if defined $body && !$has{'transfer-encoding'};
    return ["$req\r\n" . (defined $body ? $body : ''), [$method]];
}

# One answer, with what may differ taken out.
sub answer {
    my ($s, $row)         = @_;
    my ($bytes, $methods) = @$row;
    my $x = $s->raw('main', $bytes, count => 1, methods => [@$methods], timeout => 5);
    my $r = $x->{responses}[0] or return '(nothing)';
    my ($dir, $port) = ($s->dir, $s->port);
    my $body  = $r->body;
    my $named = $body =~ s{<hr><center>(?:nginx|proxyd)[^<]*</center>}{<hr><center>NAME</center>}g;
    $body =~ s{\[hr>\[center>(?:nginx|proxyd)[^\[]*}{[hr>[center>NAME}g;    # behind a sub_filter
    my $out   = join '', map { "interim $_->{status}\n" } @{ $r->{interim} };
    $out .= sprintf "HTTP/%s %s %s\n", $r->version, $r->status, $r->reason;
    my $boundary = ($r->header('Content-Type') // '') =~ /boundary=(\w+)/ ? $1 : undef;
    if (defined $boundary) { $body =~ s/\Q$boundary\E/BOUNDARY/g }

    for (@{ $r->headers }) {
        my ($n, $v) = @$_;
        $v = 'VALUE' if $n =~ /^(?:Server|Date)$/ && $v !~ /^app/;
        $v = 'TIME'  if $n eq 'Expires' && $v !~ / (?:1970|20[01]\d) /;
        $v = 'LENGTH'
            if $n eq 'Content-Length'
            && ($named || defined $boundary || $methods->[0] eq 'HEAD' && $r->status >= 300);
        $v =~ s/boundary=\w+/boundary=BOUNDARY/;
        $v =~ s/\Q$dir\E/DIR/g;
        $v =~ s/\b$port(?!\d)/PORT/g;
        $out .= "$n: $v\n";
    }
    $body =~ s/\Q$dir\E/DIR/g;
    $body =~ s/:$port\b/:PORT/g;
    $out .= "\n"
        . (length $body > 4000 ? length($body) . ' bytes, ' . unpack('%32C*', $body) : $body)
        . "\n";
    $out .= "incomplete\n" unless $r->{complete};
    $out .= 'malformed: ' . join('|', @{ $r->{bad} }) . "\n" if @{ $r->{bad} };
    return $out;
}

# A test for each row.
sub compare {
    my ($tested, $theirs, @table) = @_;
    local $Test::Builder::Level = $Test::Builder::Level + 1;
    for my $row (@table) {
        my $what = $row->[0] =~ s/\r\nHost: main\.test\r\n/\r\n/r;
        $what =~ s/\r\n\r\n.*//s;
        $what =~ s/\r?\n/ + /g;
        $what =~ s/[^ -~]/?/g;
        Test::More::is(answer($tested, $row), answer($theirs, $row), substr $what, 0, 100);
    }
}

1;
