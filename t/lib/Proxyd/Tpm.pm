# SPDX-License-Identifier: BSD-2-Clause
#
# A TPM for the tests: swtpm, to which whoever uses it connects anew for each command.
package Proxyd::Tpm;

use strict;
use warnings;
use File::Path qw(make_path);
use IO::Socket::INET;
use POSIX ();
use Proxyd;

use constant { OWNER => 0x40000001, CREATE_PRIMARY => 0x131, EVICT => 0x120, FLUSH => 0x165, SHUTDOWN => 0x145 };

# The program, the provider, and what connects them.
sub available {
    return (grep { -x "$_/swtpm" } split /:/, $ENV{PATH}) && glob('/usr/lib/*/ossl-modules/tpm2.so') ? 1 : 0;
}

sub start {
    my ($class, $dir) = @_;
    make_path("$dir/state");
    for (1 .. 20) {
        # Its TCTI takes it that the control port is the next one.
        my $port = Proxyd::free_port();
        my $next = IO::Socket::INET->new(LocalAddr => '127.0.0.1', LocalPort => $port + 1, Listen => 1, ReuseAddr => 1) or next;
        close $next;
        my $self = bless { owner => $$, port => $port }, $class;
        $self->{pid} = fork // die "fork: $!";
        if ($self->{pid} == 0) {
            open STDIN, '<', '/dev/null';
            open STDOUT, '>', '/dev/null';
            open STDERR, '>', '/dev/null' unless $ENV{TEST_PROXYD_KEEP};
            { no warnings 'exec'; exec 'swtpm', 'socket', '--tpm2', '--tpmstate', "dir=$dir/state", '--flags', 'not-need-init,startup-clear', '--server',
                "type=tcp,port=$port,bindaddr=127.0.0.1", '--ctrl', 'type=tcp,port=' . ($port + 1) . ',bindaddr=127.0.0.1' }
            POSIX::_exit(127);
        }
        my $gone;
        Proxyd::wait_for(sub { $self->_socket || ($gone = waitpid($self->{pid}, POSIX::WNOHANG()) != 0) }, 20);
        return $self unless $gone;
        delete $self->{pid};
    }
    die "swtpm did not start\n";
}

# What tpm2-tss knows it by (TPM2OPENSSL_TCTI).
sub tcti { my $self = shift; return "swtpm:host=127.0.0.1,port=$self->{port}" }

# A key for signatures, for ever at that handle: 'ec' or 'rsa' (TPM 2.0, part 3: 24.1, 28.5, 28.4).
sub make_key {
    my ($self, $handle, $type) = @_;
    my $auth     = pack 'N N n C n', 9, 0x40000009, 0, 0, 0;
    my $specific = $type eq 'ec' ? pack('n6', 0x10, 0x10, 3, 0x10, 0, 0) : pack('n3 N n', 0x10, 0x10, 2048, 0, 0);
    my $public   = pack('n n N n', $type eq 'ec' ? 0x23 : 1, 0xb, 0x00040472, 0) . $specific;
    my $transient = unpack 'x10 N', $self->_ask(0x8002, CREATE_PRIMARY,
        pack('N', OWNER) . $auth . pack('n3', 4, 0, 0) . pack('n/a*', $public) . pack('n N', 0, 0));
    $self->_ask(0x8002, EVICT, pack('N N', OWNER, $transient) . $auth . pack('N', $handle));
    $self->_ask(0x8001, FLUSH, pack 'N', $transient);
}

sub _socket { my $self = shift; return IO::Socket::INET->new(PeerAddr => "127.0.0.1:$self->{port}") }

sub _ask {
    my ($self, $tag, $code, $rest) = @_;
    my $s = $self->_socket or die "TPM: $!\n";
    syswrite $s, pack('n N N', $tag, 10 + length $rest, $code) . $rest;
    my $answer = '';
    while (length $answer < 10 || length $answer < unpack 'x2 N', $answer) {
        sysread $s, $answer, 4096, length $answer or die "the TPM does not answer\n";
    }
    my $rc = unpack 'x6 N', $answer;
    die sprintf "the TPM answers %x to command %x\n", $rc, $code if $rc;
    return $answer;
}

sub stop {
    my ($self) = @_;
    my $pid = delete $self->{pid} or return;
    # Otherwise it takes its end for an attack, and locks itself after some of them.
    eval { $self->_ask(0x8001, SHUTDOWN, pack 'n', 0) };
    kill 'TERM', $pid;
    waitpid $pid, 0;
}

sub DESTROY { my ($self) = @_; local $?; $self->stop if $self->{owner} == $$ }

1;
