# SPDX-License-Identifier: BSD-2-Clause
#
# What tests of the key process share: to find it, and what a worker that has been taken over could do to it.
package Proxyd::KeyProcess;
use strict;
use warnings;
use Exporter qw(import);
use Proxyd;

our @EXPORT_OK = qw(key_processes successor fds socket_of);

# The key processes of a master.
sub key_processes {
    my ($p, $master) = @_;
    return grep { $p->title($_) =~ /key process/ } $p->children($master // $p->master);
}

# The one that has taken over from that pid.
sub successor {
    my ($p, $old) = @_;
    my $new;
    Proxyd::wait_for(sub { ($new) = grep { $_ != $old } key_processes($p) }, 20);
    return $new;
}

# How many descriptors a process has.
sub fds { my $pid = shift; opendir my $d, "/proc/$pid/fd" or return 0; return scalar grep { /\d/ } readdir $d }

# A worker's socket to the key process (pidfd_open, pidfd_getfd); nothing where that is not to be had.
sub socket_of {
    my ($pid) = @_;
    open my $unix, '<', '/proc/net/unix' or return;
    my %seqpacket = map { (split)[4] eq '0005' ? ((split)[6] => 1) : () } <$unix>;
    my ($n) = map { m{/(\d+)$} } grep { (readlink($_) // '') =~ /^socket:\[(\d+)\]/ && $seqpacket{$1} } glob "/proc/$pid/fd/*";
    my $pidfd = syscall 434, $pid + 0, 0;
    return if !defined $n || $pidfd < 0;
    my $fd = syscall 438, $pidfd, $n + 0, 0;
    return if $fd < 0;
    open my $socket, '+<&=', $fd or return;
    return $socket;
}

1;
