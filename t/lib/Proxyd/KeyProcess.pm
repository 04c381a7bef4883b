# SPDX-License-Identifier: BSD-2-Clause
#
# What tests of the key process share: to find it, and what a worker that has been taken over could do to it.
package Proxyd::KeyProcess;
use strict;
use warnings;
use Exporter qw(import);
use Proxyd;
use Proxyd::Certs;

our @EXPORT_OK = qw(key_processes successor fds socket_of holds needles);

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

# Whether any of the needles is in a process's memory.
sub holds {
    no warnings "portable";
    my ($pid, @needles) = @_;
    open my $maps, '<', "/proc/$pid/maps" or die "maps: $!";
    open my $mem, '<:raw', "/proc/$pid/mem" or die "mem: $!";
    my $re = join '|', map { quotemeta } @needles;
    while (<$maps>) {
        my ($from, $to, $mode, $name) = /^(\w+)-(\w+) (\S+) \S+ \S+ \S+\s*(.*)/ or next;
        next if $mode !~ /^r/ || $name =~ /^\[v/ || $mode =~ /s$/;
        my ($at, $end, $last) = (hex $from, hex $to, '');
        while ($at < $end) {
            my $n = $end - $at > 1 << 20 ? 1 << 20 : $end - $at;
            sysseek $mem, $at, 0 or last;
            my $got = sysread $mem, my ($data), $n;
            last if !$got;
            return 1 if "$last$data" =~ /$re/s;
            $last = substr $data, -64;
            $at += $got;
        }
    }
    return 0;
}

# Parts of a key as they lie in memory: numbers in either order, and the file's text.
sub needles {
    my ($file, @password) = @_;
    my $text = `openssl pkey -in $file -text -noout @password 2>/dev/null`;
    my @found;
    for my $field (qw(priv privateExponent prime1 prime2)) {
        my ($hex) = $text =~ /^$field:\s*((?:\s+[0-9a-f:]+\n)+)/m or next;
        $hex =~ s/[^0-9a-f]//g;
        my $bytes = pack 'H*', $hex;
        $bytes =~ s/^\0//;
        push @found, substr($bytes, -24), substr(scalar reverse($bytes), 0, 24);
    }
    my @lines = split /\n/, Proxyd::Certs::slurp($file);
    return @found, $lines[2];
}

1;
