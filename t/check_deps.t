#!/usr/bin/perl
# SPDX-License-Identifier: BSD-2-Clause
#
# scripts/check-deps finds each way of breaking the one-way rule, at its line, and nothing else.
use strict;
use warnings;
use Cwd qw(abs_path);
use File::Basename qw(dirname);
use File::Path qw(make_path);
use File::Temp qw(tempdir);
use Test::More;

my $script = abs_path(dirname(__FILE__) . '/../scripts/check-deps');

# What check-deps says of a tree made of these files (path => text).
sub check {
    my %files = (
        'core/module.h' => "#include \"core/config/config.h\"\n", 'core/version.h' => '',
        'core/base/str.h' => '', 'core/os/file.h' => '', 'core/event/loop.h' => '',
        'core/config/config.h' => '', 'core/zone/zone.h' => '', 'core/http/req.h' => '',
        'core/stream/session.h' => '', 'modules/a/a.h' => '', 'modules/a/inner.h' => '',
        'modules/b/b.h' => '', 'workers/worker.h' => '', @_);
    my $dir = tempdir('proxyd-deps-t-XXXXXXXX', TMPDIR => 1, CLEANUP => 1);
    for my $path (keys %files) {
        make_path(dirname("$dir/$path"));
        open my $fh, '>', "$dir/$path" or die "$path: $!";
        print $fh $files{$path};
        close $fh;
    }
    my $text = qx{'$script' '$dir' 2>&1};
    return ($? >> 8, $text);
}

sub includes { return join '', map { "#include $_\n" } @_ }

my ($status, $text) = check(
    'core/os/file.c' => includes('"core/os/file.h"', '"core/base/str.h"', '<unistd.h>'),
    'core/config/parse.c' => includes('"core/module.h"', '"core/zone/zone.h"', '"config.h"'),
    'core/config/parse.h' => includes('"core/module.h"'),
    'core/http/req.c' => includes('"core/module.h"', '"core/config/config.h"', '"core/version.h"'),
    'modules/a/a.c' => includes('"core/http/req.h"', '"modules/a/inner.h"', '"modules/b/b.h"', '<zlib.h>'),
    'workers/main.c' => includes('"modules/a/a.h"', '"worker.h"', '"proxyd_config.h"'));
is $status, 0, 'what goes one way is fine' or diag $text;

for my $case (
    ['up a layer', 'core/base/x.c', '"core/os/file.h"', qr/base is below os/],
    ['zone to config', 'core/zone/x.c', '"core/config/config.h"', qr/zone is below config/],
    ['http to stream', 'core/http/x.c', '"core/stream/session.h"', qr/stand beside each other/],
    ['core to a module', 'core/http/x.c', '"modules/a/a.h"', qr/core includes no header of modules/],
    ['core to workers', 'core/event/x.c', '"workers/worker.h"', qr/core includes no header of modules or workers/],
    ['core to a library', 'core/http/x.c', '<zlib.h>', qr/no third-party header: <zlib.h>/],
    ['core to OpenSSL', 'core/event/x.h', '<openssl/ssl.h>', qr/no third-party header/],
    ['base to module.h', 'core/base/x.c', '"core/module.h"', qr/core\/module\.h is for/],
    ['what module.h includes to module.h', 'core/config/config.h', '"core/module.h"', qr/is included by core\/module\.h/],
    ['another module\'s inner header', 'modules/b/x.c', '"modules/a/inner.h"', qr/only its public header "modules\/a\/a\.h"/],
    ['module to workers', 'modules/b/x.c', '"workers/worker.h"', qr/modules is below workers/],
    ['workers to an inner header', 'workers/x.c', '"modules/a/inner.h"', qr/only its public header/],
    ['nowhere', 'workers/x.c', '"core/none.h"', qr/neither below the root nor beside/],
    ['a folder without a layer', 'core/extra/x.c', '<stdio.h>', qr/no place in the order/])
{
    my ($name, $path, $include, $sentence) = @$case;
    ($status, $text) = check($path => includes('<stddef.h>', $include));
    my $line = $path =~ m{^core/extra/} ? 1 : 2;
    ok $status == 1 && $text =~ m{^\Q$path\E:$line: .*$sentence}m, "found: $name" or diag $text;
}

($status, $text) = check('modules/a/x.c' => includes('"modules/b/b.h"'),
    'modules/b/x.c' => includes('"modules/a/a.h"'));
ok $status == 1 && $text =~ m{in a circle: modules/a -> modules/b -> modules/a}, 'found: a circle of modules'
    or diag $text;
($status, $text) = check('core/module.h' => includes('"core/http/req.h"'));
ok $status == 1 && $text =~ m{core/module\.h:1: .*may include config}, 'found: module.h to http' or diag $text;

done_testing;
