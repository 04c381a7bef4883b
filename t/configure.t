#!/usr/bin/perl
# SPDX-License-Identifier: BSD-2-Clause
#
# configure on a small tree of its own: which modules are in and in which order, what nginx's
# switches do, what -V will show, the sentences for what is missing, and that make notices new files.
use strict;
use warnings;
use Cwd qw(abs_path);
use File::Basename qw(dirname);
use File::Copy qw(copy);
use File::Path qw(make_path);
use File::Temp qw(tempdir);
use Test::More;

my $root = abs_path(dirname(__FILE__) . '/..');
my $dir = abs_path(tempdir('proxyd-configure-t-XXXXXXXX', TMPDIR => 1, CLEANUP => 1));
my $objs = "$dir/objs";
delete @ENV{qw(CC CFLAGS CPPFLAGS LDFLAGS MAKEFLAGS MFLAGS ASAN_OPTIONS UBSAN_OPTIONS)};

sub write_file {
    my ($path, $text) = @_;
    make_path(dirname("$dir/$path"));
    open my $fh, '>', "$dir/$path" or die "$path: $!";
    print $fh $text;
    close $fh;
}

sub slurp {
    open my $fh, '<', shift or return '';
    local $/;
    return <$fh>;
}

sub module {
    my ($path, $name, $facts) = @_;
    write_file($path, qq{#include "core/module.h"\n}
        . ($facts ? "/* configure: $facts */\n" : '')
        . "extern const struct module module_$name;\n"
        . "const struct module module_$name = {\n    \"$name\",\n};\n");
}

# Runs a command in the tree; its status and its words.
sub run {
    my $text = qx{cd '$dir' && $_[0] 2>&1};
    return ($? >> 8, $text);
}

sub modules_in { return join ' ', slurp("$objs/proxyd_modules.c") =~ /^    &module_(\w+),$/mg }

sub macro { return slurp("$objs/proxyd_config.h") =~ /^#define \Q$_[0]\E (.*)$/m ? $1 : undef }

copy("$root/$_", "$dir/$_") or die "$_: $!" for qw(configure Makefile.in);
chmod 0755, "$dir/configure";
make_path("$dir/core");
copy("$root/core/version.h", "$dir/core/version.h") or die $!;
write_file('core/module.h', "struct module { const char *name; };\n"
    . "extern const struct module *const modules[];\n");
write_file('workers/main.c', <<'C');
#include <stdio.h>
#include "core/module.h"
int main(void)
{
    int i;
    for (i = 0; modules[i]; i++) printf("%s ", modules[i]->name);
    return 0;
}
C
module('core/http/http.c', 'http', '');
module('modules/alpha/alpha.c', 'alpha', 'switch=http_proxy_module needs=omega');
module('modules/alpha/helper.c', 'helper', 'switch=http_sub_module default=off');
module('modules/omega/omega.c', 'omega', 'switch=http_rewrite_module default=always also=http_map_module');
module('modules/gzip/gzip.c', 'gzip', 'switch=http_gzip_module libs=zlib');
write_file('modules/gzip/plain.c', "int plain(void);\nint plain(void) { return 1; }\n");

my ($status, $text) = run('./configure');
is $status, 0, 'configure works without options' or diag $text;
is modules_in(), 'http gzip omega alpha', 'core first, a module after what it needs, else by name';
my $args = macro('PROXYD_CONFIGURE_ARGS');
unlike $args, qr/http_(?:proxy|rewrite|map|gzip)_module/, 'what is there as in nginx is not said';
like $args, qr/--without-http_geo_module/, 'what nginx has by default and is not here is said';
unlike $args, qr/http_sub_module/, 'an optional one that is not in is not said';
is macro('PROXYD_PREFIX'), '"/usr/local/proxyd/"', 'the default prefix';
is macro('PROXYD_CONF_PATH'), '"conf/proxyd.conf"', 'default names are relative to it';
is macro('HAVE_HTTP_GZIP_MODULE'), '1', 'a switch makes a macro';

($status, $text) = run('make');
is $status, 0, 'it builds' or diag $text;
is qx{$objs/proxyd}, 'http gzip omega alpha ', 'and the modules are in the program';
unlike $text, qr/warning/, 'without a warning';
($status, $text) = run('make');
unlike $text, qr/CC|LD|configure/, 'a second make does nothing';

module('modules/alpha/beta.c', 'beta', '');
($status, $text) = run('make');
is qx{$objs/proxyd}, 'http beta gzip omega alpha ', 'make notices a new module';
unlink "$dir/modules/alpha/beta.c";
run('make');
is qx{$objs/proxyd}, 'http gzip omega alpha ', 'and one that has gone';

($status, $text) = run(q{./configure --prefix=/etc/x --sbin-path=/usr/sbin/x --conf-path=/etc/x/x.conf }
    . q{--with-http_sub_module --without-http_gzip_module --with-threads --with-cc-opt='-O2 -g' }
    . q{--http-client-body-temp-path=/var/cache/x --user=www --build='a "b"' --without-http_map_module });
is $status, 0, 'nginx\'s switches are taken' or diag $text;
is modules_in(), 'http helper omega alpha', 'with and without';
like macro('PROXYD_CONFIGURE_ARGS'), qr{^"--prefix=/etc/x --sbin-path=/usr/sbin/x }, 'paths are shown as given';
like macro('PROXYD_CONFIGURE_ARGS'), qr{--with-cc-opt='-O2 -g'}, 'values with blanks are quoted';
like macro('PROXYD_CONFIGURE_ARGS'), qr{--with-threads --with-http_sub_module --without-}, 'options that are in';
like macro('PROXYD_CONFIGURE_ARGS'), qr{--without-http_gzip_module}, 'defaults that were left out';
is macro('PROXYD_CONF_PATH'), '"/etc/x/x.conf"', 'an absolute name stays';
is macro('PROXYD_GROUP'), '"www"', 'the group is the user\'s';
is macro('PROXYD_BUILD'), '"a \\"b\\""', 'quotes are escaped for C';
unlike slurp("$objs/Makefile"), qr{gzip/(?:gzip|plain)\.o}, 'a folder whose modules are all out is not compiled';
run('make');
is qx{$objs/proxyd}, 'http helper omega alpha ', 'and it builds';

for my $case (
    ['--with-http_xslt_module', qr/--with-http_xslt_module: .*does not have/],
    ['--with-mail=dynamic', qr/--with-mail: .*does not have/],
    ['--with-http_wrong_module', qr/invalid option "--with-http_wrong_module"/],
    ['--without-wrong', qr/invalid option "--without-wrong"/],
    ['--bogus', qr/invalid option "--bogus"/],
    ['--prefix=', qr/--prefix needs a value/],
    ['--with-openssl=../openssl', qr/takes no directory of sources/],
    ['--add-module=/nonexistent', qr/no such directory/],
    ["--add-module=$dir/modules/gzip/none", qr/no such directory/],
    ['--with-cc=nonesuch', qr/"nonesuch" was not found.*apt-get install gcc/],
    ['--with-cc-opt=--nonesuch', qr/does not build even an empty program/],
    ['--with-sanitize=nonesuch', qr/--with-sanitize=nonesuch: the compiler cannot/])
{
    my ($option, $sentence) = @$case;
    ($status, $text) = run("./configure $option");
    ok $status != 0 && $text =~ $sentence, "refused with a sentence: $option" or diag $text;
}

($status, $text) = run('PKG_CONFIG_LIBDIR=/nonexistent PKG_CONFIG_PATH= ./configure');
is $status, 1, 'a missing library is an error';
like $text, qr/library openssl was not found.*apt-get install libssl-dev.*dnf install openssl-devel/s,
    'that names the packages';
like $text, qr/library zlib was not found.*leave out what needs it: --without-http_gzip_module/s,
    'and the switch that leaves out what needs it';
($status, $text) = run('PKG_CONFIG_LIBDIR=/nonexistent PKG_CONFIG_PATH= ./configure --without-http_gzip_module');
unlike $text, qr/zlib/, 'which is then not wanted any more';

($status, $text) = run('./configure --without-http_rewrite_module');
is $status, 0, '--without of what is always there is accepted';
like $text, qr/note: --without-http_rewrite_module has no effect/, 'with a word';
($status, $text) = run('./configure --without-http_ssi_module --without-mail_smtp_module');
is $status, 0, '--without of what is not there is accepted' or diag $text;

module('modules/one/one.c', 'one', 'needs=two switch=http_one_module');
module('modules/two/two.c', 'two', 'needs=one switch=http_two_module');
($status, $text) = run('./configure');
ok $status && $text =~ /need each other in a circle: one two/, 'a circle of needs is an error' or diag $text;
module('modules/two/two.c', 'two', 'switch=http_two_module default=maybe');
($status, $text) = run('./configure');
ok $status && $text =~ /default=maybe/, 'a fact that is not understood is an error' or diag $text;
module('modules/two/two.c', 'two', 'switch=http_two_module default=off');
($status, $text) = run('./configure');
is modules_in(), 'http gzip omega alpha', 'what needs something that is out is out too' or diag $text;
like $text, qr/http_one_module is left out: it needs http_two_module/, 'with a word';
($status, $text) = run('./configure --with-http_one_module');
ok $status && $text =~ /--with-http_one_module needs http_two_module/, 'unless asked for by name';

module('added/third.c', 'third', 'switch=http_third_module');
($status, $text) = run("./configure --add-module=added && make");
is $status, 0, '--add-module' or diag $text;
is qx{$objs/proxyd}, 'http gzip omega alpha third ', 'is compiled in';

done_testing;
