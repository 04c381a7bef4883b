# SPDX-License-Identifier: BSD-2-Clause
#
# A virtual machine for tests that need another kernel than the one they run on: qemu boots a Debian kernel with everything that one perl
# script needs in its initial file system, at the paths that it has here; what the script prints is the test's TAP.
#
# The kernel is looked for in $TEST_PROXYD_KERNEL, a directory into which a package has been unpacked (boot/vmlinuz-*, lib/modules/*;
# scripts/fetch-kernel makes one), in objs-kernel beside t/, then in the system itself. $TEST_PROXYD_VM is "kvm" or "tcg" where that is not
# to be found out.
package Proxyd::Vm;

use strict;
use warnings;
use Cwd qw(abs_path);
use File::Basename qw(basename dirname);
use File::Temp ();
use IO::Handle ();
use Time::HiRes qw(time);

use Proxyd;

sub slurp {
    my ($path) = @_;
    open my $fh, '<:raw', $path or die "$path: $!";
    local $/;
    return scalar <$fh>;
}

sub which { my ($n) = @_; for (split(/:/, $ENV{PATH}), '/usr/sbin', '/sbin') { return "$_/$n" if -x "$_/$n" } return }

# The image of a kernel whose modules are there, and where these are.
sub kernel {
    my $root = abs_path(dirname(__FILE__) . '/../../..');
    for my $top (grep { defined } $ENV{TEST_PROXYD_KERNEL}, "$root/objs-kernel", '') {
        for my $image (reverse sort glob "$top/boot/vmlinuz-*") {
            my ($version) = $image =~ m{vmlinuz-([^/]+)$};
            return ($image, "$top/lib/modules/$version", $version, $top) if -r $image && -d "$top/lib/modules/$version/kernel";
        }
    }
    return;
}

# Whether the processor can run a machine: /dev/kvm alone may run only kernels that are made for it.
sub accelerator {
    return $ENV{TEST_PROXYD_VM} if $ENV{TEST_PROXYD_VM};
    open my $fh, '<', '/proc/cpuinfo' or return 'tcg';
    return -w '/dev/kvm' && grep({ /^flags\s*:.*\b(?:vmx|svm)\b/ } <$fh>) ? 'kvm' : 'tcg';
}

# new(machine => [qemu's options for it], needs => [modules without which there is no point], modules => [names, loaded when they are wanted], load => [names, loaded at once], commands => [programs, by name or path], script => PATH, files => { path there => contents }), or
# undef and why it cannot be.
sub new {
    my ($class, %o) = @_;
    my $self = bless { %o, added => {}, cpio => '', inode => 0 }, $class;
    $self->{qemu} = which('qemu-system-x86_64') or return (undef, 'qemu-system-x86_64 is not installed');
    (@$self{qw(image modules_dir version)}, my $top) = kernel() or return (undef, 'no kernel is there to be booted: scripts/fetch-kernel gets one');
    my ($busybox) = grep { -x && slurp($_) !~ m{/lib64/ld-linux} } "$top/bin/busybox", '/bin/busybox' or return (undef, 'no static busybox is there: scripts/fetch-kernel gets one');
    for my $name (@{ $o{needs} || [] }) {
        my @found = glob "$self->{modules_dir}/kernel/{*,*/*,*/*/*}/$name.ko*";
        return (undef, "the kernel $self->{version} has no module \"$name\"") unless @found;
    }
    $self->add_directory($_) for qw(/proc /sys /dev /tmp /run /root /var/tmp /bin /sbin);
    $self->add_file('/bin/busybox', slurp($busybox), 0755);
    $self->add_link("/bin/$_", 'busybox') for qw(sh mount poweroff stty ip cat ls kill ps ln mkdir);
    $self->add_link('/sbin/modprobe', '../bin/busybox');
    $self->add_modules(@{ $o{modules} || [] }, @{ $o{load} || [] });
    $self->add_perl($o{script});
    $self->add_program(which($_) || $_) for @{ $o{commands} || [] };
    for my $path (qw(/etc/passwd /etc/group /etc/hosts /etc/nsswitch.conf /etc/ssl/openssl.cnf)) {
        $self->add_file($path, slurp($path)) if -r $path;
    }
    $self->add_link('/usr/lib/ssl/openssl.cnf', '/etc/ssl/openssl.cnf');
    $self->add_file($_, $o{files}{$_}) for sort keys %{ $o{files} || {} };
    $self->add_file('/init', $self->init, 0755);
    return $self;
}

# What becomes of the file system: an archive as of "cpio -H newc".
sub put {
    my ($self, $path, $mode, $data) = @_;
    $path =~ s{^/+}{};
    my $head = '070701' . join '', map { sprintf '%08X', $_ }
        ++$self->{inode}, $mode, 0, 0, 1, 0, length $data, 0, 0, 0, 0, 1 + length $path, 0;
    my $name = "$head$path\0";
    $self->{cpio} .= $name . "\0" x (-length($name) % 4) . $data . "\0" x (-length($data) % 4);
}

sub add_directory {
    my ($self, $path) = @_;
    return if $path eq '/' || $path eq '.' || $self->{added}{$path}++;
    $self->add_directory(dirname($path));
    $self->put($path, 040755, '');
}

sub add_file {
    my ($self, $path, $data, $mode) = @_;
    return if $self->{added}{$path}++;
    $self->add_directory(dirname($path));
    $self->put($path, 0100000 | ($mode || 0644), $data);
}

sub add_link {
    my ($self, $path, $to) = @_;
    return if $self->{added}{$path}++;
    $self->add_directory(dirname($path));
    $self->put($path, 0120777, $to);
}

# A file of this system's, under the path by which it is asked for.
sub add_ours { my ($self, $path) = @_; $self->add_file($path, slurp($path), -x $path ? 0755 : 0644) }

# With the libraries that it is linked with.
sub add_program {
    my ($self, $path) = @_;
    die "$path is not there\n" unless -f $path;
    return if $self->{added}{$path};
    $self->add_ours($path);
    $self->add_ours($_) for map { m{(?:=> )?(/\S+) \(0x} ? $1 : () } `ldd '$path' 2>/dev/null`;
}

# The interpreter, the script, and the modules that it uses, as they are here when they have been loaded.
sub add_perl {
    my ($self, $script) = @_;
    my $lib = abs_path(dirname(__FILE__) . '/..');
    my @use = map { /^use ([A-Z][\w:]*)/ ? "-M$1=" : () } split /\n/, slurp($script);
    my @list = split /\n/, join '', do {
        open my $pipe, '-|', $^X, "-I$lib", @use, '-e', 'require "Config_heavy.pl"; print "$_\n" for grep { -f } values %INC, @DynaLoader::dl_shared_objects'
            or die "$^X: $!";
        <$pipe>;
    };
    die "$script: its modules are not there\n" unless @list;
    $self->add_program($^X);
    $self->{perl} = $^X;
    for my $path (@list, $script) {
        my $full = $path =~ m{^/} ? $path : abs_path($path);
        $full =~ /\.so/ ? $self->add_program($full) : $self->add_ours($full);
        $self->add_ours($_) for $full =~ m{/auto/} ? glob dirname($full) . '/*.{al,ix}' : (); # functions that are loaded when called
    }
    $self->{lib} = $lib;
    # Loaded when they are wanted.
    for my $dir (grep { m{^/} } split /\n/, `$^X -e 'print join "\n", \@INC'`) {
        $self->add_ours($_) for grep { -f } glob "$dir/unicore/lib/*/*.pl $dir/unicore/*.pl";
    }
}

sub module_data {
    my ($path) = @_;
    return slurp($path) unless $path =~ /\.(xz|zst|gz)$/;
    my $tool = { xz => 'xz', zst => 'zstd', gz => 'gzip' }->{$1};
    return scalar `$tool -dc '$path'`;
}

# Modules by name, with those that they need.
sub add_modules {
    my ($self, @names) = @_;
    my $dir = "/lib/modules/$self->{version}";
    my (%path, %all);
    $path{ basename($_) =~ s/\.ko.*//r =~ tr/-/_/r } = $_ for split /\n/, `find '$self->{modules_dir}/kernel' -name '*.ko*'`;
    my ($dep, $alias) = ('', '');
    my $add;
    $add = sub {
        my ($name) = @_;
        my $from = $path{$name} or return;
        return if $all{$name};
        my $data = module_data($from);
        my @needs = grep { $path{$_} } map { tr/-/_/r } $data =~ /\0depends=([^\0]+)\0/ ? split /,/, $1 : ();
        $add->($_) for @needs;
        # All of them, each before those that it needs itself.
        $all{$name} = [map { ($_, @{ $all{$_} }) } @needs];
        $self->add_file("$dir/$name.ko", $data);
        $dep .= "$name.ko:" . join('', map { " $_.ko" } @{ $all{$name} }) . "\n";
        $alias .= "alias $1 $name\n" while $data =~ /\0alias=([^\0]+)\0/g;
    };
    $add->(tr/-/_/r) for @names;
    $self->add_file("$dir/modules.dep", $dep);
    $self->add_file("$dir/modules.alias", $alias);
    $self->add_file("$dir/modules.symbols", '');
}

sub init {
    my ($self) = @_;
    # Reports go where the script sees them.
    my $env = join '', map { defined $ENV{$_} ? "export $_='@{[ $ENV{$_} =~ s/(?:^|:)log_path=[^:]*//r ]}'\n" : () } qw(TEST_PROXYD_SANITIZED ASAN_OPTIONS UBSAN_OPTIONS TEST_PROXYD_LOG);
    my $binary = Proxyd::binary();
    my $load = join '', map { "modprobe $_ 2>/dev/null\n" } @{ $self->{load} || [] };
    return <<"EOT";
#!/bin/sh
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
ln -s /proc/self/fd /dev/fd
ip link set lo up
${load}stty -F /dev/ttyS1 raw
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root TMPDIR=/tmp
export TEST_PROXYD_BINARY='$binary'
$env
$self->{perl} -I$self->{lib} $self->{script} </dev/null >/dev/ttyS1 2>&1
echo "# ended with \$?" >/dev/ttyS1
poweroff -f
EOT
}

# Boots it and passes on what the script prints, to its end or for at most so many seconds. Whether the script came to its end, and status 0.
sub run {
    my ($self, $seconds) = @_;
    my $dir = File::Temp->newdir(DIR => $ENV{TMPDIR} || '/tmp');
    $self->put('TRAILER!!!', 0, '');
    open my $fh, '>:raw', "$dir/initrd" or die $!;
    print $fh $self->{cpio};
    close $fh or die $!;
    my $size = int(length($self->{cpio}) / 1048576);
    $self->{cpio} = '';
    my $accel = accelerator();
    my @machine = @{ $self->{machine} || ['-accel', $accel eq 'kvm' ? 'kvm' : 'tcg,thread=multi', '-cpu', $accel eq 'kvm' ? 'host' : 'max', '-smp', 2] };
    my @command = ($self->{qemu}, @machine, '-m', 768 + 2 * $size,
        qw(-nodefaults -display none -no-reboot -serial), "file:$dir/console", qw(-serial stdio -kernel), $self->{image}, '-initrd', "$dir/initrd", '-append', 'console=ttyS0 quiet panic=-1');
    print "# $self->{version}, $accel, $size MB\n";
    STDOUT->flush;
    my $pid = open my $pipe, '-|', @command or die "qemu: $!";
    my $status;
    local $SIG{ALRM} = sub { kill 'KILL', $pid };
    alarm $seconds;
    while (my $line = <$pipe>) {
        $line =~ s/\r?\n$//;
        if ($line =~ /^# ended with (\d+)$/) { $status = $1; next }
        print "$line\n";
        STDOUT->flush;
    }
    alarm 0;
    close $pipe;
    return 1 if defined $status && $status == 0;
    print '# ', defined $status ? "the script's status is $status" : "the machine did not come to its end within $seconds s", "\n";
    print "# $_\n" for -e "$dir/console" ? grep { /\S/ } split /[\r\n]+/, slurp("$dir/console") =~ s/.*(.{3000})$/$1/sr : ();
    return 0;
}

1;
