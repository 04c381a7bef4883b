# SPDX-License-Identifier: BSD-2-Clause
#
# Origin servers for the system tests, each a forked process that forks once more per connection.
# Counts survive in a file to which every process appends whole lines.  Stopped by pid.
package Proxyd::Origin;

use strict;
use warnings;
use IO::Socket::INET;
use IO::Socket::UNIX;
use JSON::PP ();
use POSIX ();
use Socket qw(IPPROTO_TCP TCP_NODELAY SOL_SOCKET SO_LINGER);

my $json = JSON::PP->new->canonical->latin1;

# Starts an origin on a port or "unix:PATH".  handler->($conn) is run in a child per connection;
# $conn is a Proxyd::Origin::Conn.  `log` names the file of the counts.
sub start {
    my ($class, %o) = @_;
    my $listen;
    if ($o{listen} =~ /^unix:(.*)/) {
        unlink $1;
        $listen = IO::Socket::UNIX->new(Local => $1, Listen => 512);
    }
    else {
        my $host = '127.0.0.1';
        my $port = $o{listen};
        ($host, $port) = ($1, $2) if $port =~ /^([\d.]+):(\d+)$/;
        $listen = IO::Socket::INET->new(LocalAddr => $host, LocalPort => $port, Proto => 'tcp',
            Listen => 512, ReuseAddr => 1);
    }
    die "origin: cannot listen on $o{listen}: $!" unless $listen;
    my $self = bless { %o, owner => $$, dead => 0 }, $class;
    my $pid = fork;
    die "fork: $!" unless defined $pid;
    if ($pid == 0) {
        $self->serve($listen);
        POSIX::_exit(0);
    }
    $self->{pid} = $pid;
    close $listen;
    return $self;
}

sub serve {
    my ($self, $listen) = @_;
    setpgrp 0, 0;
    $SIG{CHLD} = 'IGNORE';
    $SIG{TERM} = $SIG{INT} = 'DEFAULT';
    $SIG{PIPE} = 'IGNORE';
    my $n = 0;
    while (1) {
        my $sock = $listen->accept or next;
        $n++;
        $self->note("C $n");
        my $pid = fork;
        if (!defined $pid) { close $sock; next }
        if ($pid) { close $sock; next }
        close $listen;
        setsockopt($sock, IPPROTO_TCP, TCP_NODELAY, 1);
        my $conn = bless { sock => $sock, n => $n, in => '', origin => $self, reqs => 0 },
            'Proxyd::Origin::Conn';
        eval { $self->{handler}->($conn); 1 } or do { print STDERR "# origin: $@" if $@ };
        close $sock;
        POSIX::_exit(0);
    }
}

sub note {
    my ($self, $line) = @_;
    open my $fh, '>>', $self->{log} or return;
    syswrite $fh, "$line\n";
    close $fh;
}

sub lines {
    my ($self, $re) = @_;
    open my $fh, '<', $self->{log} or return ();
    my @l = grep { !$re || /$re/ } <$fh>;
    chomp @l;
    return @l;
}

# How many connections were accepted, and how many requests were read.
sub connections { scalar $_[0]->lines(qr/^C /) }
sub requests    { scalar $_[0]->lines(qr/^R /) }
sub reset_counts { unlink $_[0]{log} }

sub stop {
    my ($self) = @_;
    return if $self->{dead} || $self->{owner} != $$;
    $self->{dead} = 1;
    kill 'KILL', $self->{pid};
    kill 'KILL', -$self->{pid};
    waitpid $self->{pid}, 0;
}

sub DESTROY {
    my ($self) = @_;
    local ($?, $!);
    $self->stop if defined $self->{pid};
}

# The handler of an origin that reports each request as JSON and keeps the connection.
sub echo_handler {
    my (%o) = @_;
    return sub {
        my ($c) = @_;
        while (my $req = $c->request) {
            my $body = $json->encode({ method => $req->{method}, uri => $req->{uri},
                version => $req->{version}, headers => $req->{headers}, body => $req->{body},
                framing => $req->{framing}, conn => $c->{n}, req => $c->{reqs},
                name => $o{name} || '', trailers => $req->{trailers} || [] });
            my $close = $req->{version} eq '1.0' || ($req->{h}{connection} || '') =~ /close/i;
            $c->write("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: "
                . length($body) . "\r\n" . ($close ? "Connection: close\r\n" : '') . "\r\n"
                . ($req->{method} eq 'HEAD' ? '' : $body));
            last if $close;
        }
    };
}

package Proxyd::Origin::Conn;

use strict;
use warnings;
use Socket qw(SOL_SOCKET SO_LINGER);

sub sock { $_[0]{sock} }

sub write {
    my ($self, $bytes) = @_;
    my $off = 0;
    while ($off < length $bytes) {
        my $n = syswrite($self->{sock}, $bytes, length($bytes) - $off, $off);
        return 0 unless defined $n;
        $off += $n;
    }
    return 1;
}

sub more {
    my ($self) = @_;
    my $n = sysread($self->{sock}, $self->{in}, 1 << 18, length $self->{in});
    return $n;
}

# Reads one request with its body; undef at the end of the connection.
sub request {
    my ($self) = @_;
    my $end;
    while (($end = index($self->{in}, "\r\n\r\n")) < 0) { return undef unless $self->more }
    my @lines = split /\r\n/, substr($self->{in}, 0, $end);
    my $head = substr($self->{in}, 0, $end + 4, '');
    my $first = shift @lines;
    my %r = (head => $head, headers => [], h => {}, body => '', framing => 'none');
    @r{qw(method uri version)} = $first =~ m{^(\S+) (.*) HTTP/(\d\.\d)$};
    for (@lines) {
        my ($n, $v) = /^([^:]+):[ \t]*(.*)$/ or next;
        push @{ $r{headers} }, [$n, $v];
        $r{h}{lc $n} = exists $r{h}{lc $n} ? "$r{h}{lc $n}, $v" : $v;
    }
    $self->{reqs}++;
    $self->{origin}->note("R $self->{n} $first");
    return \%r if $self->{head_only};
    if (lc($r{h}{'transfer-encoding'} || '') eq 'chunked') {
        $r{framing} = 'chunked';
        return $self->chunked(\%r);
    }
    if (defined $r{h}{'content-length'}) {
        $r{framing} = 'length';
        my $want = $r{h}{'content-length'};
        if ($self->{discard}) {
            my $got = length $self->{in};
            $self->{in} = '';
            while ($got < $want) {
                my $n = $self->more or return undef;
                $got += $n;
                $self->{in} = '';
            }
            $r{length} = $got;
            return \%r;
        }
        while (length $self->{in} < $want) { return undef unless $self->more }
        $r{body} = substr($self->{in}, 0, $want, '');
    }
    return \%r;
}

sub chunked {
    my ($self, $r) = @_;
    while (1) {
        my $nl;
        while (($nl = index($self->{in}, "\r\n")) < 0) { return undef unless $self->more }
        my $line = substr($self->{in}, 0, $nl + 2, '');
        my $size = hex((split /[;\r]/, $line)[0]);
        last if $size == 0;
        while (length $self->{in} < $size + 2) { return undef unless $self->more }
        $r->{body} .= substr($self->{in}, 0, $size, '');
        substr($self->{in}, 0, 2, '');
    }
    while (1) {
        my $nl;
        while (($nl = index($self->{in}, "\r\n")) < 0) { return undef unless $self->more }
        my $line = substr($self->{in}, 0, $nl + 2, '');
        last if $line eq "\r\n";
        $line =~ s/\r\n$//;
        push @{ $r->{trailers} }, [split /:\s*/, $line, 2];
    }
    return $r;
}

# Closes with a reset.
sub abort {
    my ($self) = @_;
    setsockopt($self->{sock}, SOL_SOCKET, SO_LINGER, pack('ll', 1, 0));
    close $self->{sock};
}

# Blocks until the peer closes, so that a test can see that it does.
sub wait_close {
    my ($self) = @_;
    1 while $self->more;
    $self->{origin}->note("X $self->{n}");
}

1;
