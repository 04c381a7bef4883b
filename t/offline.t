# SPDX-License-Identifier: BSD-2-Clause
#
# -t --offline: a configuration is tested without the machine it is for. No name is looked up, no
# socket bound, no log and no directory made, and nobody needs to be root.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/lib";
use POSIX ();
use Test::More;
use Proxyd;

plan skip_all => 'proxyd only' if Proxyd::is_nginx();

# Runs the program as somebody without rights, if we are root; returns (status, stdout, stderr).
sub run_as_nobody {
    my ($dir, @args) = @_;
    pipe my $out, my $out_w or die "pipe: $!";
    pipe my $err, my $err_w or die "pipe: $!";
    my $pid = fork;
    die "fork: $!" unless defined $pid;
    if ($pid == 0) {
        open STDIN, '<', '/dev/null';
        open STDOUT, '>&', $out_w;
        open STDERR, '>&', $err_w;
        if ($> == 0) { $) = '65534 65534'; POSIX::setgid(65534); POSIX::setuid(65534) }
        chdir $dir;
        { exec { Proxyd::binary() } 'proxyd', @args }
        POSIX::_exit(127);
    }
    close $_ for $out_w, $err_w;
    my ($o, $e) = do { local $/; (scalar <$out>, scalar <$err>) };
    waitpid $pid, 0;
    return ($? >> 8, $o // '', $e // '');
}

# What is there below a directory, with sizes.
sub listing {
    my ($dir) = @_;
    return join ' ', map { "$_:" . (-d $_ ? 'd' : -s $_) } sort glob "$dir/* $dir/*/*";
}

my $p = Proxyd->new(globals => 0, conf => <<'EOT');
user nosuch-user nosuch-group;
pid run/proxyd.pid;
error_log logs/error.log;
error_log /nosuch/place/error.log info;
error_log syslog:server=logs.nosuch.invalid;
events { }
http {
    client_body_temp_path /nosuch/tmp/body;
    proxy_temp_path tmp/proxy 1 2;
    access_log /nosuch/place/access.log;
    resolver dns.nosuch.invalid;
    upstream app {
        server one.nosuch.invalid:8080;
        server two.nosuch.invalid:8080 backup;
    }
    server {
        listen front.nosuch.invalid:80;
        listen back.nosuch.invalid:80;
        listen 1;
        listen 192.0.2.1:443;
        listen unix:/nosuch/socket;
        server_name www.example.com;
        location / { proxy_pass http://app; }
        location /x { proxy_pass http://three.nosuch.invalid/; }
    }
}
EOT
my $dir = $p->dir;
chmod 0644, "$dir/proxyd.conf";
chmod 0555, $dir;
my $before = listing($dir);
my @test = ('-t', '--offline', '-p', $dir, '-c', 'proxyd.conf');
my ($status, $out, $err) = run_as_nobody($dir, @test);
is $status, 0, 'passes' or diag $err;
is $out,    '', 'nothing on stdout';
like $err, qr/\[warn\] getpwnam\("nosuch-user"\) failed in \Q$dir\E\/proxyd.conf:1$/m,
    'an unknown user is a warning';
like $err, qr/test is successful$/m, 'says so';
is scalar(() = $err =~ /\[(?:emerg|alert|error|crit)\]/g), 0, 'no errors' or diag $err;
is listing($dir), $before, 'nothing was made';

($status, $out, $err) = run_as_nobody($dir, @test, '-q');
unlike $err, qr/successful/, '-q';
($status, $out, $err) = run_as_nobody($dir, '-T', '--offline', '-p', $dir, '-c', 'proxyd.conf');
is $status, 0, '-T --offline';
like $out, qr/^# configuration file \Q$dir\E\/proxyd.conf:\n/, 'dumps';
($status, $out, $err) = run_as_nobody($dir, @test[1 .. $#test]);
is $status, 1, '--offline alone';
like $err, qr/^proxyd: option "--offline" requires "-t" or "--explain"$/m, 'does not start a server';

# --- what is wrong stays wrong --------------------------------------------------------------------
sub fails {
    my ($text, $want, $name) = @_;
    chmod 0755, $dir;
    $p->write_file('proxyd.conf', $text);
    chmod 0644, "$dir/proxyd.conf";
    chmod 0555, $dir;
    my ($status, $out, $err) = run_as_nobody($dir, @test);
    is $status, 1, "$name: status";
    like $err, $want, "$name: sentence";
}
fails("events {}\nhttp { frobnicate; }\n", qr/unknown directive "frobnicate"/, 'unknown directive');
fails("http { }\n", qr/no "events" section in configuration/, 'no events');
fails("events { worker_connections 1; }\nhttp { server { listen 80; listen 81; } }\n",
    qr/1 worker_connections are not enough for 2 listening sockets/, 'too few connections');
fails("events {}\nhttp { upstream a { server a b; } }\n", qr/invalid parameter "b"/, 'parameter');
fails("events {}\nhttp { server { location / { proxy_pass http://x:99999; } } }\n",
    qr/invalid port/, 'port');
fails("include missing.conf;\nevents {}\n", qr/open\(\) ".*missing.conf" failed/, 'include');

# Names are compared as names.
fails("events {}\nhttp { server { listen a.invalid:80; listen a.invalid:80; } }\n",
    qr/duplicate listen/, 'one name twice');

chmod 0755, $dir;
$p->discard;
done_testing;
