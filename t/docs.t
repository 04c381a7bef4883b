# SPDX-License-Identifier: BSD-2-Clause
#
# What is written down is what the program does: docs/directives.md is what -x directives prints,
# the manual page knows every option of -h and is well formed, links between the documents lead
# somewhere.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/lib";
use File::Basename qw(dirname);
use Test::More;
use Proxyd;

plan skip_all => 'proxyd only' if Proxyd::is_nginx();
my $root = "$FindBin::Bin/..";

sub slurp {
    open my $fh, '<', $_[0] or die "$_[0]: $!";
    local $/;
    return scalar <$fh>;
}

my $p = Proxyd->new;

# --- the list of directives -----------------------------------------------------------------------
my @printed = split /\n/, $p->run(args => ['-x', 'directives'])->{out}, -1;
my @written = split /\n/, slurp("$root/docs/directives.md"), -1;
cmp_ok scalar(grep { /^### / } @printed), '>=', 100, 'the list has directives';
my $same = @printed == @written;
for my $i (0 .. $#printed) {
    last if $i > $#written;
    next if $printed[$i] eq $written[$i];
    $same = 0;
    diag "line ${\($i + 1)}: written \"$written[$i]\", printed \"$printed[$i]\"";
    last;
}
ok $same, 'docs/directives.md is up to date'
    or diag 'write it anew: proxyd -x directives > docs/directives.md';

# --- the manual page ------------------------------------------------------------------------------
my $page = slurp("$root/docs/proxyd.8");
my @options = $p->run(args => ['-h'])->{out} =~ /^\s+-(\w)\b/mg;
@options = $p->run(args => ['-h'])->{err} =~ /^\s+-(\w)\b/mg unless @options;
cmp_ok scalar @options, '>=', 10, '-h names options';
like $page, qr/^\.It Fl $_\b/m, "the manual page has -$_" for @options;
SKIP: {
    skip 'no mandoc here', 1 if !grep { -x "$_/mandoc" } split /:/, $ENV{PATH};
    is qx{mandoc -T lint -W warning '$root/docs/proxyd.8' 2>&1}, '', 'mandoc finds nothing';
}
$p->discard;

# --- links ----------------------------------------------------------------------------------------
for my $file ("$root/README.md", "$root/CHANGELOG.md", glob "$root/docs/*.md") {
    my @dead = grep { !-e dirname($file) . "/$_" }
        map { s/#.*//r } grep { !/^(?:#|\w+:)/ } slurp($file) =~ /\]\(([^()\s]+)\)/g;
    is "@dead", '', 'links lead somewhere: ' . $file =~ s{.*/\.\./}{}r;
}
done_testing;
