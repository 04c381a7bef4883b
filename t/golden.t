# SPDX-License-Identifier: BSD-2-Clause
#
# Configurations and what -t says of them, word for word: golden/NAME.conf and golden/NAME.expect.
# An .expect file holds the exit status and every line that begins with the program's name (which
# is normalised, as is the directory).  What proxyd adds below such a line is not compared.
#
# A case's first line may be "# files: a.conf b/c.conf"; these come from golden/files/.
# PROXYD_GOLDEN_WRITE=1 writes the .expect files that are missing.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/lib";
use File::Copy qw(copy);
use Test::More;
use Proxyd;

my @cases = map { m{([^/]+)\.conf$} } sort glob "$FindBin::Bin/golden/*.conf";
cmp_ok scalar @cases, '>=', 80, 'enough cases';

sub slurp { open my $fh, '<', $_[0] or return undef; local $/; return scalar <$fh> }

for my $name (@cases) {
    my $base = "$FindBin::Bin/golden/$name";
    my $text = slurp("$base.conf");
    my $p    = Proxyd->new;
    if ($text =~ /^# files: (.*)/) {
        for (split ' ', $1) {
            $p->write_file($_, $p->expand(slurp("$FindBin::Bin/golden/files/$_")));
        }
    }
    # the harness's globals go in front of the first line, so that line numbers stay true
    my ($globals, $body) = $text =~ /^# bare/ ? ('', $text) : $p->complete_parts($text);
    $globals =~ s/\n/ /g;
    $p->write_file('proxyd.conf', $p->expand("$globals$body"));
    my $r       = $p->run(add => ['-t']);
    my $program = Proxyd::program();
    my $dir     = $p->dir;
    my @lines   = grep { s/^$program: // } split /\n/, $r->{err};
    my $port    = $p->port;
    for (@lines) { s/\Q$dir\E/{{dir}}/g; s/\b$port\b/{{port}}/g }
    my $got = join "\n", "status $r->{status}", @lines, '';

    if (!-e "$base.expect" && $ENV{PROXYD_GOLDEN_WRITE}) {
        open my $fh, '>', "$base.expect" or die $!;
        print $fh $got;
    }
    my $want = slurp("$base.expect");
    # nginx names no line where a variable turns out to be unknown; doing so is welcome
    $got =~ s/(unknown "\w+" variable) in \S+:\d+/$1/g if $want !~ /variable in /;
    # nginx names the line where such a statement or block ends; where it begins is as good
    if ($name =~ /^(?:syntax_no_semicolon|value_bufs_small|http_upstream_(?:empty|no_server)|secure_link_mixed\w*)$/) {
        s/\.conf:\d+$/.conf:LINE/mg for $got, $want;
    }
    SKIP: {
        # modules that a build may well lack; for any other directive it is a failure
        skip "$name: $1 is not built in", 1
            if $got =~ /unknown directive "(map|geo)"/ && $want !~ /unknown directive/;
        is $got, $want, $name or diag $r->{err};
    }
    $p->discard;
}
done_testing;
