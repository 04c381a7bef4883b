# SPDX-License-Identifier: BSD-2-Clause
#
# Builds and runs the C programs of t/load: the constant load of t/lost.t with its origin, and
# whatever else a test has compiled.  Programs are built into the test's own directory and stopped
# by pid.
package Load;

use strict;
use warnings;
no warnings 'exec';
use File::Basename qw(dirname);
use IO::Handle;
use POSIX ();

my $here = dirname(__FILE__);

# Compiles t/load/NAME.c (or a path below t/) into DIR; returns the program, or undef with the
# reason in $@.  add => [switches].
sub build {
    my ($dir, $name, %o) = @_;
    my $source = $name =~ m{/} ? "$here/../$name" : "$here/../load/$name.c";
    my ($base) = $source =~ m{([^/]+)\.c$};
    my $to = "$dir/$base";
    my @cc = split ' ', $ENV{CC} || 'cc';
    my $pid = fork;
    die "fork: $!" unless defined $pid;
    if (!$pid) {
        open STDOUT, '>', "$to.log";
        open STDERR, '>&', \*STDOUT;
        exec @cc, '-O2', '-g', '-D_GNU_SOURCE', @{ $o{add} || [] }, '-o', $to, $source;
        POSIX::_exit(127);
    }
    waitpid $pid, 0;
    return $to if $? == 0;
    open my $fh, '<', "$to.log";
    $@ = "@cc: " . join '', <$fh>;
    return undef;
}

# Starts a program with a pipe to its stdin and one from its stdout.
sub spawn {
    my ($class, @command) = @_;
    pipe my $in_r, my $in_w or die "pipe: $!";
    pipe my $out_r, my $out_w or die "pipe: $!";
    my $pid = fork;
    die "fork: $!" unless defined $pid;
    if (!$pid) {
        open STDIN, '<&', $in_r;
        open STDOUT, '>&', $out_w;
        close $_ for $in_r, $in_w, $out_r, $out_w;
        exec { $command[0] } @command;
        POSIX::_exit(127);
    }
    close $_ for $in_r, $out_w;
    $in_w->autoflush(1);
    return bless { pid => $pid, in => $in_w, out => $out_r, owner => $$ }, $class;
}

# The lines of an answer, up to the one with a dot.
sub answer {
    my ($self) = @_;
    my @lines;
    while (defined(my $l = readline $self->{out})) {
        chomp $l;
        return @lines if $l eq '.';
        push @lines, $l;
    }
    die 'the program ended';
}

sub command {
    my ($self, $line) = @_;
    print { $self->{in} } "$line\n";
    return $self->answer;
}

# What happened since the last report: { requests, failed, kept, fresh, first => [lines] }.
sub report {
    my ($self) = @_;
    my ($first, @lines) = $self->command('report');
    my %r = (first => \@lines);
    @r{qw(requests failed kept fresh)} = split ' ', $first;
    return \%r;
}

sub pid { $_[0]{pid} }

sub stop {
    my ($self) = @_;
    return if !$self->{pid} || $self->{owner} != $$;
    close $self->{in};
    kill 'TERM', $self->{pid};
    waitpid delete $self->{pid}, 0;
}

sub DESTROY {
    my ($self) = @_;
    local ($?, $!);
    $self->stop;
}

1;
