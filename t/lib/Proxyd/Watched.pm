# SPDX-License-Identifier: BSD-2-Clause
#
# What tests of ssl_certificate_watch share: to replace pairs, and to wait until they are shown. A server named "clock" with the pair
# clock.crt and clock.key, and pairs "two" and "three" that it may have, are the test's.
package Proxyd::Watched;
use strict;
use warnings;
use Exporter qw(import);
use Test::More;
use Proxyd::Certs;

our @EXPORT_OK = qw(watch_of shown becomes looked replace lines);

my ($p, $certs);
my $turn = 0;

# Whose they are from now on.
sub watch_of { ($p, $certs) = @_ }

sub shown { my ($port, %o) = @_; return $certs->shown($p->port($port), %o) }

# By all workers: each connection may come to any of them.
sub becomes {
    my ($port, $want, $what, %o) = @_;
    my $row = 0;
    ok $p->wait_for(sub { $row = shown($port, %o) eq $want ? $row + 1 : 0; return $row >= 8 }, 20), $what
        or diag shown($port, %o), $p->error_log;
}

# The master has looked at all files twice since this was called.
sub looked {
    for (1 .. 2) {
        my $next = (qw(two three))[$turn++ % 2];
        replace('clock', $next);
        becomes('clock', $next, 'the master has looked');
    }
}

sub replace { return $certs->replace(@_) }

# How many lines of the log say so.
sub lines { my ($re) = @_; return scalar grep { /$re/ } split /\n/, $p->error_log }

1;
