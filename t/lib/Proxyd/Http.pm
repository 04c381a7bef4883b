# SPDX-License-Identifier: BSD-2-Clause
#
# The client side of the system tests: sends exactly the bytes it is given and parses what comes
# back with strict RFC 9112 framing.  Used by Proxyd.pm and by the tests; it starts no process.
package Proxyd::Http;

use strict;
use warnings;
use IO::Select;
use IO::Socket::INET;
use IO::Socket::UNIX;
use Socket qw(IPPROTO_TCP TCP_NODELAY SOL_SOCKET SO_LINGER);
use Errno qw(EAGAIN EWOULDBLOCK EINTR);
use Time::HiRes qw(time);

# Opens a connection.  Target: a port number, "host:port", "[v6]:port" or "unix:/path".
sub connect_to {
    my ($target) = @_;
    my $sock;
    if ($target =~ /^unix:(.*)/) {
        $sock = IO::Socket::UNIX->new(Peer => $1);
    }
    elsif ($target =~ /^\[(.*)\]:(\d+)$/) {
        require IO::Socket::IP;
        $sock = IO::Socket::IP->new(PeerHost => $1, PeerPort => $2);
    }
    else {
        $target = "127.0.0.1:$target" if $target =~ /^\d+$/;
        $sock = IO::Socket::INET->new(PeerAddr => $target, Timeout => 5);
        setsockopt($sock, IPPROTO_TCP, TCP_NODELAY, 1) if $sock;
    }
    return undef unless $sock;
    $sock->blocking(0);
    return bless { sock => $sock, in => '', eof => 0, reset => 0, timed_out => 0 }, __PACKAGE__;
}

# Wraps a connected socket (a TLS one, for instance) in the same interface.
sub wrap {
    my ($class, $sock) = @_;
    $sock->blocking(0);
    return bless { sock => $sock, in => '', eof => 0, reset => 0, timed_out => 0 }, $class;
}

sub sock { $_[0]{sock} }
sub in   { $_[0]{in} }
sub eof  { $_[0]{eof} }

# Reads what is there, once; returns false at the end of the stream.
sub fill {
    my ($self) = @_;
    my $n = sysread($self->{sock}, $self->{in}, 1 << 18, length $self->{in});
    if (defined $n) {
        $self->{eof} = 1 if $n == 0;
    }
    elsif (!$!{EAGAIN} && !$!{EINTR}) {
        $self->{eof} = $self->{reset} = 1;
    }
    return !$self->{eof};
}

# Waits up to `timeout` seconds for input and reads it; 0 when time ran out or the peer closed.
sub wait_input {
    my ($self, $timeout) = @_;
    return 0 if $self->{eof};
    return 0 unless IO::Select->new($self->{sock})->can_read($timeout);
    $self->fill;
    return 1;
}

# Sends all bytes (in pieces of `piece` bytes when given) and reads in the meantime, so that a
# peer which answers early is never deadlocked with.  Stops quietly when the peer has closed.
sub send {
    my ($self, $bytes, %o) = @_;
    my ($off, $end) = (0, time + ($o{timeout} || 10));
    my $sel = IO::Select->new($self->{sock});
    local $SIG{PIPE} = 'IGNORE';
    while ($off < length $bytes) {
        if (time > $end) { $self->{timed_out} = 1; last }
        my ($r, $w) = IO::Select->select($sel, $sel, undef, 1);
        last if $r && @$r && !$self->fill;
        next unless $w && @$w;
        my $n = syswrite($self->{sock}, $bytes, $o{piece} || 1 << 18, $off);
        if (defined $n) { $off += $n }
        elsif (!$!{EAGAIN} && !$!{EINTR}) { last }
    }
    return $off;
}

sub half_close { shutdown($_[0]{sock}, 1) }
sub close      { CORE::close($_[0]{sock}) }

# Closes with a reset instead of a FIN.
sub abort {
    my ($self) = @_;
    setsockopt($self->{sock}, SOL_SOCKET, SO_LINGER, pack('ll', 1, 0));
    CORE::close($self->{sock});
}

# Reads to the end of the stream; everything that had not been consumed is returned.
sub read_eof {
    my ($self, $timeout) = @_;
    my $end = time + ($timeout || 10);
    while (!$self->{eof}) {
        if (time > $end) { $self->{timed_out} = 1; last }
        $self->wait_input(0.5);
    }
    my $all = $self->{in};
    $self->{in} = '';
    return $all;
}

# Takes the next response off the connection (interim ones are kept in ->{interim}).  `method` is
# the request's, for HEAD.  Returns an incomplete response (complete = 0) at a premature end, and
# undef when not even a status line came.
sub response {
    my ($self, %o) = @_;
    my $end = time + ($o{timeout} || 10);
    while (1) {
        my $r = Proxyd::Response::parse(\$self->{in}, $o{method} || 'GET', $self->{eof},
            $o{keep_interim});
        return $r if $r;
        return undef if $self->{eof};
        if (time > $end) { $self->{timed_out} = 1; return undef }
        $self->wait_input(0.5);
    }
}

package Proxyd::Response;

use strict;
use warnings;

sub status  { $_[0]{status} }
sub reason  { $_[0]{reason} }
sub version { $_[0]{version} }
sub headers { $_[0]{headers} }
sub body    { $_[0]{body} }
sub raw     { $_[0]{raw} }
sub framing { $_[0]{framing} }

# The field's value; several lines are joined with ", "; undef when absent.
sub header {
    my ($self, $name) = @_;
    my @v = $self->header_all($name);
    return @v ? join(', ', @v) : undef;
}

sub header_all {
    my ($self, $name) = @_;
    return map { $_->[1] } grep { lc $_->[0] eq lc $name } @{ $self->{headers} };
}

# Field names in the order and case in which they were received.
sub names { map { $_->[0] } @{ $_[0]{headers} } }

# Parses one complete final response off the front of $$buf.  undef: more bytes are needed.
sub parse {
    my ($buf, $method, $eof, $keep_interim) = @_;
    my (@interim, $pos);
    $pos = 0;
    while (1) {
        my $r = parse_head($buf, $pos);
        if (!$r) {
            return undef unless $eof && length($$buf) > $pos;
            $r = bless { status => 0, reason => '', version => '', headers => [],
                body => substr($$buf, $pos), raw => $$buf, framing => 'none', complete => 0,
                interim => \@interim }, __PACKAGE__;
            $$buf = '';
            return $r;
        }
        if ($r->{status} >= 100 && $r->{status} < 200 && $r->{status} != 101 && !$keep_interim) {
            push @interim, $r;
            $pos = $r->{body_at};
            next;
        }
        $r->{interim} = \@interim;
        my $end = parse_body($buf, $r, $method, $eof);
        return undef unless defined $end;
        $r->{raw} = substr($$buf, 0, $end);
        $$buf = substr($$buf, $end);
        return $r;
    }
}

sub parse_head {
    my ($buf, $pos) = @_;
    my $end = index($$buf, "\r\n\r\n", $pos);
    return undef if $end < 0;
    my @lines = split /\r\n/, substr($$buf, $pos, $end - $pos), -1;
    my $first = shift @lines;
    my $r = bless { headers => [], body => '', complete => 1, bad => [] }, __PACKAGE__;
    if ($first =~ m{^HTTP/(\d\.\d) (\d{3})(?: (.*))?$}) {
        @$r{qw(version status reason)} = ($1, $2, defined $3 ? $3 : '');
    }
    else {
        @$r{qw(version status reason)} = ('', 0, '');
        push @{ $r->{bad} }, $first;
    }
    for (@lines) {
        if (/^([!#\$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*(.*?)[ \t]*$/) {
            push @{ $r->{headers} }, [$1, $2];
        }
        else { push @{ $r->{bad} }, $_ }
    }
    $r->{head} = substr($$buf, $pos, $end + 4 - $pos);
    $r->{body_at} = $end + 4;
    return $r;
}

# Finds the body by RFC 9112 section 6.3; returns where it ends, or undef when it is not all there.
sub parse_body {
    my ($buf, $r, $method, $eof) = @_;
    my $at = $r->{body_at};
    my $te = $r->header('Transfer-Encoding');
    my @cl = $r->header_all('Content-Length');
    if ($method eq 'HEAD' || $r->{status} =~ /^1|^204$|^304$/) {
        $r->{framing} = 'none';
        return $at;
    }
    return parse_chunked($buf, $r, $eof) if defined $te && lc $te eq 'chunked';
    if (@cl) {
        $r->{framing} = 'length';
        push @{ $r->{bad} }, 'several Content-Length' if @cl > 1;
        my $have = length($$buf) - $at;
        if ($have < $cl[0]) {
            return undef unless $eof;
            $r->{complete} = 0;
            $r->{body} = substr($$buf, $at);
            return length $$buf;
        }
        $r->{body} = substr($$buf, $at, $cl[0]);
        return $at + $cl[0];
    }
    $r->{framing} = 'eof';
    return undef unless $eof;
    $r->{body} = substr($$buf, $at);
    return length $$buf;
}

sub parse_chunked {
    my ($buf, $r, $eof) = @_;
    my $pos = $r->{body_at};
    my ($body, $chunks) = ('', 0);
    $r->{framing} = 'chunked';
    my $short = sub {
        return undef unless $eof;
        @$r{qw(complete body chunks)} = (0, $body, $chunks);
        return length $$buf;
    };
    while (1) {
        my $nl = index($$buf, "\r\n", $pos);
        return $short->() if $nl < 0;
        my $line = substr($$buf, $pos, $nl - $pos);
        if ($line !~ /^([0-9a-fA-F]+)(?:;.*)?$/) {
            push @{ $r->{bad} }, "chunk size \"$line\"";
            return length $$buf;
        }
        my $size = hex $1;
        $pos = $nl + 2;
        last if $size == 0;
        return $short->() if length($$buf) < $pos + $size + 2;
        $body .= substr($$buf, $pos, $size);
        $chunks++;
        push @{ $r->{bad} }, 'no CRLF after chunk' if substr($$buf, $pos + $size, 2) ne "\r\n";
        $pos += $size + 2;
    }
    $r->{trailers} = [];
    while (1) {
        my $nl = index($$buf, "\r\n", $pos);
        return $short->() if $nl < 0;
        my $line = substr($$buf, $pos, $nl - $pos);
        $pos = $nl + 2;
        last if $line eq '';
        push @{ $r->{trailers} }, [split /:\s*/, $line, 2];
    }
    @$r{qw(body chunks)} = ($body, $chunks);
    return $pos;
}

1;
