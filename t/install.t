#!/usr/bin/perl
# SPDX-License-Identifier: BSD-2-Clause
#
# make install below DESTDIR: what is where, that a configuration is never overwritten, and that
# the files that name paths name the configured ones. The program itself is a stand-in.
use strict;
use warnings;
use Cwd qw(abs_path);
use File::Basename qw(dirname);
use File::Path qw(make_path);
use File::Temp qw(tempdir);
use Test::More;

my $root = abs_path(dirname(__FILE__) . '/..');
my $dir = abs_path(tempdir('proxyd-install-t-XXXXXXXX', TMPDIR => 1, CLEANUP => 1));
delete @ENV{qw(CC CFLAGS CPPFLAGS LDFLAGS MAKEFLAGS MFLAGS ASAN_OPTIONS UBSAN_OPTIONS)};

sub write_file {
    my ($path, $text) = @_;
    make_path(dirname($path));
    open my $fh, '>', $path or die "$path: $!";
    print $fh $text;
    close $fh;
}

sub slurp {
    open my $fh, '<', shift or return '';
    local $/;
    return <$fh>;
}

sub run {
    my $text = qx{cd '$dir/src' && $_[0] 2>&1};
    diag $text if $?;
    return $? >> 8;
}

make_path("$dir/src/core");
symlink "$root/$_", "$dir/src/$_" or die $! for qw(conf html docs Makefile.in);
write_file("$dir/src/configure", slurp("$root/configure"));
chmod 0755, "$dir/src/configure";
write_file("$dir/src/core/version.h", slurp("$root/core/version.h"));
write_file("$dir/src/core/module.h", "struct module { int x; };\nextern const struct module *const modules[];\n");
write_file("$dir/src/workers/main.c", "int main(void)\n{\n    return 0;\n}\n");

is run('./configure --prefix=/opt/edge'), 0, 'configured';
is run("make install DESTDIR='$dir/a'"), 0, 'installed';
my $a = "$dir/a/opt/edge";
ok -x "$a/sbin/proxyd", 'the program';
ok -s "$a/conf/$_" && -s "$a/conf/$_.default", "$_ and its default"
    for qw(proxyd.conf mime.types fastcgi_params fastcgi.conf uwsgi_params scgi_params koi-utf koi-win
        win-utf);
ok -s "$a/html/$_", "html/$_" for qw(index.html 50x.html);
ok -d "$a/logs", 'a directory for logs';
like slurp("$a/share/man/man8/proxyd.8"), qr{/opt/edge/conf/proxyd\.conf}, 'the manual page names its files';

write_file("$a/conf/proxyd.conf", "mine\n");
write_file("$a/conf/mime.types", "mine\n");
write_file("$a/html/index.html", "mine\n");
unlink "$a/html/50x.html";
is run("make install DESTDIR='$dir/a'"), 0, 'installed again';
is slurp("$a/conf/$_"), "mine\n", "conf/$_ is left alone" for qw(proxyd.conf mime.types);
is slurp("$a/html/index.html"), "mine\n", 'html/ is left alone';
ok !-e "$a/html/50x.html", 'all of it';
like slurp("$a/conf/proxyd.conf.default"), qr/http \{/, 'the default is there to compare';
ok -x "$a/sbin/proxyd.old", 'the program before is kept';

is run('./configure --prefix=/etc/edge --sbin-path=/usr/sbin/edge --conf-path=/etc/edge/edge.conf '
    . '--error-log-path=/var/log/edge/e.log --http-log-path=/var/log/edge/a.log --pid-path=/run/edge.pid'),
    0, 'configured as a distribution would';
is run("make install DESTDIR='$dir/b' SYSTEMD_DIR=/lib/systemd/system LOGROTATE_DIR=/etc/logrotate.d"), 0,
    'installed with unit and logrotate file';
my $b = "$dir/b";
ok -x "$b/usr/sbin/edge" && -s "$b/etc/edge/edge.conf" && -s "$b/etc/edge/mime.types", 'under their names';
ok -s "$b/usr/share/man/man8/proxyd.8", 'the manual page goes beside sbin';
like slurp("$b/lib/systemd/system/proxyd.service"),
    qr{^ExecStart=/usr/sbin/edge -c /etc/edge/edge\.conf }m, 'the unit names the configured paths';
my $rotate = slurp("$b/etc/logrotate.d/proxyd");
like $rotate, qr{^/var/log/edge/a\.log /var/log/edge/e\.log \{}m, 'logrotate: the logs';
like $rotate, qr{cat /run/edge\.pid}, 'and the pid file';

done_testing;
