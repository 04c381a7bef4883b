# SPDX-License-Identifier: BSD-2-Clause
#
# A name server for the system tests: a forked process that answers from a file, which is read for each question, so that
# a test changes the records by writing it. A line is a record, "NAME TTL A ADDRESS", "NAME TTL AAAA ADDRESS",
# "NAME TTL SRV PRIORITY WEIGHT PORT TARGET", or "NAME RCODE" or "NAME silent". Names that are not in it do not exist.
package Proxyd::Dns;

use strict;
use warnings;
use IO::Socket::INET;
use POSIX ();
use Socket qw(AF_INET6 inet_aton inet_pton);

my %types = (A => 1, AAAA => 28, SRV => 33);
my %rcodes = (servfail => 2, nxdomain => 3, refused => 5);

# file: where the records are; log: to which the questions are appended; tcp => 1: TCP is spoken too, and by UDP an answer of
# more than 512 bytes is cut, without any record.
sub start {
    my ($class, %o) = @_;
    my ($socket, $listen);

    # Both must have the same port: one that is free for UDP may be taken for TCP.
    for (1 .. 50) {
        $socket = IO::Socket::INET->new(LocalAddr => '127.0.0.1', LocalPort => $o{port}, Proto => 'udp')
            or die "dns: $!";
        last unless $o{tcp};
        $listen = IO::Socket::INET->new(LocalAddr => '127.0.0.1', LocalPort => $socket->sockport, Listen => 16,
            ReuseAddr => 1) and last;
    }
    die "dns, tcp: $!" if $o{tcp} && !$listen;
    my $self = bless { %o, owner => $$, port => $socket->sockport }, $class;
    $self->records('');
    my $pid = fork;
    die "fork: $!" unless defined $pid;
    if ($pid == 0) {
        $SIG{TERM} = $SIG{INT} = 'DEFAULT';
        while (1) {
            my $peer = recv $socket, my $q, 4096, 0;
            next unless defined $peer && length $q > 12;
            my $answer = $self->answer($q);
            send $socket, $answer, 0, $peer if defined $answer;
        }
    }
    $self->{pid} = $pid;
    $self->start_tcp($listen) if $listen;
    return $self;
}

sub start_tcp {
    my ($self, $listen) = @_;
    my $pid = fork;
    die "fork: $!" unless defined $pid;
    if ($pid) { $self->{tcp_pid} = $pid; return }
    $SIG{TERM} = $SIG{INT} = 'DEFAULT';
    $SIG{CHLD} = 'IGNORE';
    while (1) {
        my $c = $listen->accept or next;
        next if fork;
        while (read($c, my $head, 2) == 2) {
            my $q = '';
            read($c, $q, unpack 'n', $head) or last;
            my $answer = $self->answer($q, 'tcp');
            print $c pack('n', length $answer) . $answer if defined $answer;
            $c->flush;
        }
        POSIX::_exit(0);
    }
}

sub port { $_[0]{port} }

# Whole or not at all, for whoever reads it meanwhile.
sub records {
    my ($self, @lines) = @_;
    open my $fh, '>', "$self->{file}.new" or die "$self->{file}.new: $!";
    print $fh map { "$_\n" } @lines;
    close $fh;
    rename "$self->{file}.new", $self->{file} or die "rename: $!";
}

# The questions so far that match: "NAME TYPE" each.
sub questions {
    my ($self, $re) = @_;
    open my $fh, '<', $self->{log} or return ();
    return grep { /$re/ } <$fh>;
}

sub name_of {
    my ($q, $at) = @_;
    my @labels;
    while ((my $n = ord substr $q, $at, 1) > 0) {
        push @labels, substr $q, $at + 1, $n;
        $at += $n + 1;
    }
    return (lc join('.', @labels), $at + 1);
}

sub encoded { join('', map { chr(length) . $_ } split /\./, $_[0]) . "\0" }

sub data_of {
    my ($type, @rest) = @_;
    return inet_aton($rest[0]) if $type eq 'A';
    return inet_pton(AF_INET6, $rest[0]) if $type eq 'AAAA';
    return pack('nnn', @rest[0 .. 2]) . encoded($rest[3]);
}

sub answer {
    my ($self, $q, $by) = @_;
    my ($name, $at) = name_of($q, 12);
    my $type = unpack 'n', substr $q, $at, 2;
    my ($rcode, $known, @answers) = (3, 0);
    open my $log, '>>', $self->{log} or return undef;
    syswrite $log, "$name $type" . ($by ? " $by" : '') . "\n";
    open my $fh, '<', $self->{file} or return undef;
    while (defined(my $line = <$fh>)) {
        my ($owner, $what, $kind, @rest) = split " ", $line;
        next unless defined $owner && $owner eq $name;
        return undef if $what eq 'silent';
        if (defined $rcodes{$what}) { $rcode = $rcodes{$what}; next }
        $rcode = 0;
        next unless $types{$kind} == $type;
        my $data = data_of($kind, @rest);
        push @answers, pack('nnnNn', 0xc00c, $type, 1, $what, length $data) . $data;
    }
    my $cut = $self->{tcp} && !$by && length(join '', @answers) > 400;
    @answers = () if $cut;
    return pack('n6', unpack('n', $q), 0x8580 | ($cut ? 0x200 : 0) | $rcode, 1, scalar @answers, 0, 0)
        . substr($q, 12, $at + 4 - 12) . join '', @answers;
}

sub stop {
    my ($self) = @_;
    return unless $self->{pid} && $self->{owner} == $$;
    for my $pid (grep { defined } delete @$self{qw(pid tcp_pid)}) {
        kill 'KILL', $pid;
        waitpid $pid, 0;
    }
}

sub DESTROY { local $?; $_[0]->stop }

1;
