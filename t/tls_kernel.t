# SPDX-License-Identifier: BSD-2-Clause
#
# ssl_conf_command Options KTLS where the kernel can encrypt: t/vm/tls_kernel.pl in a virtual machine. Without one that works, or a kernel
# for it, nothing is tested. serial, for a machine without KVM needs two processors.
# serial
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/lib";
use Test::More;
use Proxyd;
use Proxyd::Vm;

plan skip_all => 'proxyd only' if Proxyd::is_nginx();
my $script = "$FindBin::Bin/vm/tls_kernel.pl";
my ($vm, $why) = Proxyd::Vm->new(
    script   => $script,
    needs    => ['tls'],
    modules  => [qw(tls gcm ctr ghash_generic chacha20poly1305)],
    load     => [qw(aesni_intel chacha_x86_64 poly1305_x86_64)], # as udev does, by what the processor has
    commands => ['openssl', Proxyd::binary()],
);
plan skip_all => $why unless $vm;
exit($vm->run($ENV{TEST_PROXYD_VM_SECONDS} || 500) ? 0 : 1);
