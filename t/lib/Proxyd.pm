# SPDX-License-Identifier: BSD-2-Clause
#
# The harness of the system tests: writes a configuration into a directory of its own, runs the
# server binary on it, talks to it, and stops it, checking on the way out that nothing went wrong
# unnoticed.  Binary: $TEST_PROXYD_BINARY, else objs/proxyd.  Debian's nginx can stand in for it
# (is_nginx then tells the tests which single assertions to skip).
#
# $TEST_PROXYD_KEEP=1 keeps the directories; $TEST_PROXYD_LOG sets the error log level.
package Proxyd;

use strict;
use warnings;
no warnings 'exec';
use Cwd qw(abs_path);
use Fcntl qw(:flock);
use File::Basename qw(dirname);
use File::Path qw(make_path remove_tree);
use File::Temp ();
use IO::Socket::INET;
use JSON::PP ();
use POSIX qw(:sys_wait_h);
use Test::More ();
use Time::HiRes qw(time sleep);

use Scalar::Util qw(weaken);

use Proxyd::Http;
use Proxyd::Origin;

my $owner = $$;
my %live;     # objects whose servers run, to be cleaned up when a test dies
# Ended from outside, it still goes through END.
$SIG{$_} = sub { exit 143 if $$ == $owner; POSIX::_exit(143) } for qw(TERM INT HUP);

my @locks;    # held until the process ends

# Ports below the ephemeral range; a lock file per port keeps parallel tests apart.
sub free_port {
    my $dir = ($ENV{TMPDIR} || '/tmp') . '/proxyd-test-ports';
    if (!-d $dir) { mkdir $dir; chmod 01777, $dir }
    for (1 .. 2000) {
        my $port = 10000 + int rand 20000;
        open my $fh, '>>', "$dir/$port" or next;
        next unless flock $fh, LOCK_EX | LOCK_NB;
        my $s = IO::Socket::INET->new(LocalAddr => '0.0.0.0', LocalPort => $port, Proto => 'tcp',
            Listen => 1, ReuseAddr => 1) or next;
        close $s;
        push @locks, $fh;
        return $port;
    }
    die 'no free port found';
}

# Asked of an object made with binary => PATH, that one's.
sub binary {
    my ($self) = @_;
    return $self->{binary} if ref $self && $self->{binary};
    my $b = $ENV{TEST_PROXYD_BINARY} || dirname(__FILE__) . '/../../objs/proxyd';
    return abs_path($b) || $b;
}

my ($version_text, $is_nginx);

# The text of -V.
sub version_text {
    $version_text = qx{'@{[ binary() ]}' -V 2>&1} unless defined $version_text;
    return $version_text;
}

sub is_nginx {
    return $is_nginx if defined $is_nginx;
    return $is_nginx = version_text() !~ m{^proxyd version: proxyd/}m ? 1 : 0;
}

my $sanitized;

# Whether the binary was built with a sanitizer, which costs time and memory.
sub sanitized {
    return $sanitized if defined $sanitized;
    return $sanitized = 1 if $ENV{TEST_PROXYD_SANITIZED};
    open my $fh, '<:raw', binary() or return 0;
    local $/;
    return $sanitized = <$fh> =~ /__[au]b?san_/ ? 1 : 0;
}

# The program's name as it stands in messages ("nginx: [emerg] ...").
sub program { is_nginx() ? 'nginx' : 'proxyd' }

# new(conf => template, files => { path => text }, globals => 0 to add nothing, log => level)
sub new {
    my ($class, %o) = @_;
    my $dir = File::Temp::tempdir('proxyd-t-XXXXXXXX', DIR => $ENV{TMPDIR} || '/tmp');
    chmod 0755, $dir;
    $dir = abs_path($dir);
    my $self = bless { %o, dir => $dir, ports => {}, origins => [], allowed => [], env => $o{env} },
        $class;
    make_path("$dir/logs", "$dir/html", "$dir/tmp");
    my $files = $o{files} || {};
    $self->write_file($_, $files->{$_}) for keys %$files;
    $self->write_conf($o{conf}) if defined $o{conf};
    weaken($live{$self} = $self);
    return $self;
}

sub dir { $_[0]{dir} }

my %has;

# Whether the binary knows a directive.
sub has {
    my ($self, $directive) = @_;
    my $key = $self->binary . " $directive";
    if (!defined $has{$key}) {
        $self->write_file('has.conf', "events {}\n");
        my $r = $self->run(args => ['-t', '-p', "$self->{dir}/", '-c', 'has.conf', '-e', 'has.log',
            '-g', "$directive;"]);
        $has{$key} = $r->{err} !~ /unknown directive "\Q$directive\E"/ ? 1 : 0;
    }
    return $has{$key};
}

# Runs tests that need a directive, or says that they are skipped.
sub with {
    my ($self, $directive, $tests) = @_;
    return $tests->() if $self->has($directive);
    Test::More::pass("skipped: $directive is not built in");
}

# The port called NAME, allotted at first use.
sub port {
    my ($self, $name) = @_;
    $name = 'main' unless defined $name;
    return $name if $name =~ /^\d+$|^unix:|:\d+$/;
    return $self->{ports}{$name} ||= free_port();
}

# Drops lines that end in "#? NAME" where the binary does not know the directive NAME.
sub strip {
    my ($self, $text) = @_;
    $text =~ s/^(.*)#\? (\w+)$/$self->has($2) ? $1 : ''/gme;
    return $text;
}

# Fills in the placeholders.
sub expand {
    my ($self, $text) = @_;
    $text = $self->strip($text);
    $text =~ s/\{\{dir\}\}/$self->{dir}/g;
    $text =~ s/\{\{port\}\}/$self->port('main')/ge;
    $text =~ s/\{\{port:(\w+)\}\}/$self->port($1)/ge;
    return $text;
}

# Writes DIR/PATH, placeholders expanded (raw => 1: as it is).
sub write_file {
    my ($self, $path, $text, %o) = @_;
    $path = "$self->{dir}/$path" unless $path =~ m{^/};
    make_path(dirname($path));
    open my $fh, '>', $path or die "$path: $!";
    binmode $fh;
    print $fh $text;
    close $fh or die "$path: $!";
    return $path;
}

sub read_file {
    my ($self, $path) = @_;
    $path = "$self->{dir}/$path" unless $path =~ m{^/};
    open my $fh, '<', $path or return undef;
    binmode $fh;
    local $/;
    return scalar <$fh>;
}

# Adds the globals that a test run needs, where the template does not set them itself.
sub complete_conf {
    my ($self, $t) = @_;
    return $t if exists $self->{globals} && !$self->{globals};
    return join '', $self->complete_parts($t);
}

# The same in two parts: what goes in front, and the template with paths put into its http block.
sub complete_parts {
    my ($self, $t) = @_;
    my $level = $ENV{TEST_PROXYD_LOG} || $self->{log} || 'info';
    my @g = (
        ['daemon', 'daemon off;'],
        ['pid', 'pid {{dir}}/proxyd.pid;'],
        ['error_log', "error_log {{dir}}/error.log $level;"],
        ['worker_processes', 'worker_processes 1;'],
    );
    push @g, ['user', 'user root;'] if $> == 0;
    # An upgrade starts the new program in an environment made anew.
    push @g, ['env ASAN_OPTIONS', 'env ASAN_OPTIONS; env UBSAN_OPTIONS;']
        if $ENV{TEST_PROXYD_SANITIZED};
    my $head = join '', map { $t =~ /^\Q$_->[0]\E\s/m ? () : "$_->[1]\n" } @g;
    $head .= "events {}\n" unless $t =~ /^events\b/m;
    my @http = ('client_body_temp_path {{dir}}/tmp/body;', 'proxy_temp_path {{dir}}/tmp/proxy;');
    push @http, map { "${_}_temp_path {{dir}}/tmp/$_;" } qw(fastcgi uwsgi scgi) if $self->{binary} ? $self->{binary} =~ /nginx$/ : is_nginx();
    push @http, 'access_log {{dir}}/access.log;' unless $t =~ /\baccess_log\b/;
    @http = grep { /^(\w+)/; $t !~ /\b$1\b/ } @http;
    my $in = join ' ', @http;
    $t =~ s/^(http\s*\{)/$1 $in/m;
    return ($head, $t);
}

sub write_conf {
    my ($self, $template) = @_;
    return $self->write_file('proxyd.conf', $self->expand($self->complete_conf($template)));
}

# Runs the binary to its end with the usual switches (args => [...] replaces them).
# Returns { status, out, err } where status is the exit code, or "signal N".
sub run {
    my ($self, %o) = @_;
    my @args = $o{args} ? @{ $o{args} } : ('-p', "$self->{dir}/", '-c', 'proxyd.conf', '-e',
        'error.log', @{ $o{add} || [] });
    my ($out, $err) = ("$self->{dir}/run.out", "$self->{dir}/run.err");
    my $pid = fork;
    die "fork: $!" unless defined $pid;
    if ($pid == 0) {
        chdir $o{cwd} if $o{cwd};
        open STDIN, '<', '/dev/null';
        open STDOUT, '>', $out;
        open STDERR, '>', $err;
        exec { $self->binary } $o{argv0} || $self->binary, @args;
        POSIX::_exit(127);
    }
    my $ok = wait_for(sub { waitpid($pid, WNOHANG) == $pid }, $o{timeout} || 30);
    my $status = $? & 127 ? 'signal ' . ($? & 127) : $? >> 8;
    if (!$ok) {
        kill 'KILL', $pid;
        waitpid $pid, 0;
        $status = 'timeout';
    }
    my %r = (status => $status, out => $self->read_file($out), err => $self->read_file($err));
    $self->{sanitizer} .= $r{err} if sanitizer_output($r{err});
    return \%r;
}

sub sanitizer_output {
    return $_[0] =~ /AddressSanitizer|LeakSanitizer|UndefinedBehaviorSanitizer|runtime error:/;
}

# Starts the server and waits until its pid file is there (sockets listen before that).
# expect_failure => 1: returns the exit status instead.
sub start {
    my ($self, %o) = @_;
    my $err = "$self->{dir}/stderr";
    my $pid = fork;
    die "fork: $!" unless defined $pid;
    if ($pid == 0) {
        setpgrp 0, 0;
        open STDIN, '<', '/dev/null';
        open STDOUT, '>>', $err;
        open STDERR, '>>', $err;
        if ($o{closed_fds}) { POSIX::close($_) for 0 .. 2 }
        my $env = { %{ $self->{env} || {} }, %{ $o{env} || {} } };
        $ENV{$_} = $env->{$_} for keys %$env;
        exec { $self->binary } $self->binary, '-p', "$self->{dir}/", '-c', 'proxyd.conf', '-e', 'error.log',
            @{ $o{add} || [] };
        POSIX::_exit(127);
    }
    @$self{qw(pid pgid)} = ($pid, $pid);
    my $exited;
    my $ok = wait_for(sub {
        return 1 if !$exited && waitpid($pid, WNOHANG) == $pid && ($exited = 1) && !$o{daemon};
        return ($self->pid_file || 0) > 0 && (!$o{daemon} || $exited);
    }, $o{timeout} || 15);
    if ($o{expect_failure}) {
        my $status = $exited ? $? >> 8 : 'running';
        if (!$exited) { $self->stop; }
        delete $self->{pid};
        return $status;
    }
    if ($o{daemon}) {
        $self->{daemon} = 1;
        $self->{pid} = $self->pid_file;
        return $self;
    }
    if ($exited || !$ok) {
        delete $self->{pid} if $exited;
        my $why = ($self->read_file('stderr') || '') . ($self->error_log || '');
        $self->stop if $self->{pid};
        Test::More::BAIL_OUT("no binary: " . binary()) unless -x binary();
        die "server did not start: $why";
    }
    my $alone = ($self->read_file('proxyd.conf') || '') =~ /^\s*master_process\s+off/m;
    wait_for(sub { scalar $self->workers }) unless $alone;
    return $self;
}

# The first half of an upgrade of a daemon: USR2, and WINCH once the new master has its workers.
# Returns the new master.
sub upgrade_begin {
    my ($self, $workers) = @_;
    my ($old, $oldbin) = ($self->master, "$self->{dir}/proxyd.pid.oldbin");
    wait_for(sub { !-e $oldbin }, 10);
    my @old = $self->workers;
    $self->signal('USR2');
    wait_for(sub { -e $oldbin && ($self->pid_file || 0) > 0 && $self->pid_file != $old }, 15) or return 0;
    my $new = $self->pid_file;
    wait_for(sub { $self->workers($new) == $workers }, 10);
    $self->signal('WINCH');
    wait_for(sub { !grep { !$self->retired($_) } @old }, 10) or return 0;
    return $new;
}

# After an upgrade of a daemon: waits for the old master's end; another one is the master now.
sub adopt {
    my ($self, $new, $timeout) = @_;
    my $old = $self->{pid};
    $self->{pid} = $new;
    return wait_for(sub { !alive($old) }, $timeout || 10);
}

# The ports of the clients whose established connections to these ports a process holds.
sub clients_of {
    my ($self, $pid, @ports) = @_;
    my %inode = map { (readlink($_) || '') =~ /^socket:\[(\d+)\]/ ? ($1 => 1) : () } glob "/proc/$pid/fd/*";
    my %port = map { sprintf('%04X', $_) => 1 } @ports;
    open my $fh, '<', '/proc/net/tcp' or return;
    return map {
        my @f = split ' ';
        $f[1] =~ /:(\w+)$/ && $port{$1} && $f[3] ne '0A' && $inode{ $f[9] } && $f[2] =~ /:(\w+)$/ ? hex $1 : ();
    } <$fh>;
}

sub pid_file {
    my ($self, $name) = @_;
    my $t = $self->read_file($name || 'proxyd.pid');
    return undef unless defined $t && $t =~ /^(\d+)\n?$/;
    return $1;
}

sub master { $_[0]{pid} }

# Children of a process that are still alive (zombies excluded).
sub children {
    my ($self, $pid) = @_;
    $pid ||= $self->{pid};
    my @c;
    for my $f (glob "/proc/$pid/task/*/children") {
        open my $fh, '<', $f or next;
        push @c, split ' ', (<$fh> || '');
    }
    return sort { $a <=> $b } grep { alive($_) } @c;
}

sub alive {
    my ($pid) = @_;
    open my $fh, '<', "/proc/$pid/stat" or return 0;
    my $l = <$fh>;
    return defined $l && $l =~ /\) (\w)/ && $1 !~ /[ZX]/;
}

# Living members of a process group (the group is ours: it was made in start).
sub left_in_group {
    my ($pgid) = @_;
    return grep {
        my ($state, $grp) = stat_of($_);
        defined $grp && $grp == $pgid && $state !~ /[ZX]/
    } map { m{/(\d+)$} } glob '/proc/[0-9]*';
}

# State and process group.
sub stat_of {
    my ($pid) = @_;
    open my $fh, '<', "/proc/$pid/stat" or return;
    my $l = <$fh>;
    return defined $l && $l =~ /\) (\w) \d+ (\d+)/ ? ($1, $2) : ();
}

sub title {
    my ($self, $pid) = @_;
    open my $fh, '<', "/proc/$pid/cmdline" or return '';
    my $t = join '', <$fh>;
    $t =~ s/\0+$//;
    $t =~ s/\0/ /g;
    return $t;
}

sub workers { my ($self, $pid) = @_; return grep { $self->title($_) =~ /worker/ } $self->children($pid) }

sub signal {
    my ($self, $sig, $pid) = @_;
    return kill $sig, $pid || $self->{pid};
}

# Workers that no longer accept: gone, titled so, or having said so in the log.
sub retired {
    my ($self, $pid) = @_;
    return 1 if !alive($pid) || $self->title($pid) =~ /shutting down/;
    return ($self->error_log || '') =~ /\[notice\] $pid#\d+: gracefully shutting down/;
}

# HUP, then waits until the old workers have stopped accepting and new ones are there.
sub reload {
    my ($self, %o) = @_;
    my @old = $self->workers;
    my %old = map { $_ => 1 } @old;
    my $errors = () = ($self->error_log || '') =~ /\[emerg\]/g;
    $self->signal('HUP');
    return wait_for(sub {
        if ($o{fails}) { return $errors < (() = ($self->error_log || '') =~ /\[emerg\]/g) }
        my @new = grep { !$old{$_} } $self->workers;
        return @new && !grep { !$self->retired($_) } @old;
    }, $o{timeout} || 10);
}

sub wait_for {
    shift if ref $_[0] && ref $_[0] ne 'CODE';
    my ($cond, $timeout) = @_;
    my $end = time + ($timeout || 5);
    my $step = 0.002;
    while (1) {
        my $r = $cond->();
        return $r if $r;
        return 0 if time > $end;
        sleep $step;
        $step *= 1.5 if $step < 0.05;
    }
}

sub error_log  { $_[0]->read_file($_[1] || 'error.log') }
sub access_log { $_[0]->read_file($_[1] || 'access.log') }

# Waits until a log holds a match; returns what the first group (or the whole) matched.
sub wait_log {
    my ($self, $re, $file, $timeout) = @_;
    return $self->wait_for(sub {
        my $t = $self->read_file($file || 'error.log');
        return unless defined $t && $t =~ $re;
        return defined $1 ? $1 : $&;
    }, $timeout || 5);
}

# [alert] and [emerg] lines that match are not a failure at stop.
sub expect_log { my ($self, @re) = @_; push @{ $self->{allowed} }, @re }

# --- talking to it ------------------------------------------------------------------------------

sub connect {
    my ($self, $port) = @_;
    my $t = $self->port($port);
    return Proxyd::Http::connect_to($t) || die "cannot connect to $t: $!";
}

# Sends exact bytes and reads until the end of the stream, or until `count` complete responses.
# Options: piece, half_close, count, methods => [..] (for HEAD), timeout.
# Returns { responses => [...], raw, eof, reset, timed_out, rest }.
sub raw {
    my ($self, $port, $bytes, %o) = @_;
    my $c = $self->connect($port);
    $c->send($bytes, piece => $o{piece}, timeout => $o{timeout});
    $c->half_close if $o{half_close};
    my (@res, $raw);
    my @methods = @{ $o{methods} || [] };
    $raw = '';
    while (!defined $o{count} || @res < $o{count}) {
        my $r = $c->response(method => shift @methods || 'GET', timeout => $o{timeout} || 10);
        last unless $r;
        push @res, $r;
        $raw .= $r->{raw};
    }
    my %x = (responses => \@res, raw => $raw . $c->in, rest => $c->in, eof => $c->eof,
        reset => $c->{reset}, timed_out => $c->{timed_out});
    $c->close;
    return \%x;
}

# The first response to exact bytes.
sub http {
    my ($self, $bytes, %o) = @_;
    my $x = $self->raw($o{port}, $bytes, count => 1, %o);
    return $x->{responses}[0] || Proxyd::none();
}

sub none {
    return bless { status => 0, reason => '', version => '', headers => [], body => '', raw => '',
        framing => 'none', complete => 0, interim => [], bad => [] }, 'Proxyd::Response';
}

# One request on a connection of its own.  headers => [name, value, ...]; host => undef for none.
sub request {
    my ($self, $method, $uri, %o) = @_;
    my $host = exists $o{host} ? $o{host} : 'localhost';
    my $v = $o{version} || '1.1';
    my $req = "$method $uri HTTP/$v\r\n";
    $req .= "Host: $host\r\n" if defined $host;
    my @h = @{ $o{headers} || [] };
    while (my ($n, $val) = splice @h, 0, 2) { $req .= "$n: $val\r\n" }
    $req .= 'Content-Length: ' . length($o{body}) . "\r\n" if defined $o{body} && !$o{no_length};
    $req .= "Connection: close\r\n" unless $o{keep};
    $req .= "\r\n" . (defined $o{body} ? $o{body} : '');
    return $self->http($req, port => $o{port}, methods => [$method], timeout => $o{timeout},
        piece => $o{piece});
}

sub get    { my ($self, $uri, %o) = @_; return $self->request('GET', $uri, %o) }
sub head   { my ($self, $uri, %o) = @_; return $self->request('HEAD', $uri, %o) }
sub post   { my ($self, $uri, $body, %o) = @_; $self->request('POST', $uri, %o, body => $body) }

# The report of an echo origin, from the response that carried it.
sub report {
    my ($r) = @_;
    return eval { JSON::PP->new->latin1->decode($r->body) } || {};
}

sub report_header {
    my ($rep, $name) = @_;
    my @v = map { $_->[1] } grep { lc $_->[0] eq lc $name } @{ $rep->{headers} || [] };
    return @v ? join(', ', @v) : undef;
}

# An origin with a handler of the test's own, on the port called NAME (or "unix:PATH").
sub origin {
    my ($self, $name, $handler) = @_;
    my $listen = $name =~ /^unix:|:\d+$/ ? $name : $self->port($name);
    (my $file = $name) =~ s/\W+/_/g;
    my $o = Proxyd::Origin->start(listen => $listen, handler => $handler,
        log => "$self->{dir}/origin-$file.log");
    push @{ $self->{origins} }, $o;
    return $o;
}

sub echo_origin { my ($self, $name) = @_; $self->origin($name, Proxyd::Origin::echo_handler(name => $name)) }

# --- the end ------------------------------------------------------------------------------------

# Stops the server (signal => first one to try), reaps it, and checks what it left: one test.
sub stop {
    my ($self, %o) = @_;
    my @bad;
    if ($self->{pid}) {
        push @bad, $self->end_server($o{signal} || 'QUIT', $o{status} || 0, $o{timeout} || 8);
    }
    $_->stop for @{ $self->{origins} };
    push @bad, $self->complaints;
    Test::More::ok(!@bad, $o{name} || 'stopped cleanly') or Test::More::diag(join "\n", @bad);
    $self->discard;
    return !@bad;
}

sub end_server {
    my ($self, $first, $want, $timeout) = @_;
    my (@bad, $status);
    my $pid = $self->{pid};
    for my $sig ($first, 'TERM', 'KILL') {
        kill $sig, $pid;
        my $done = wait_for(sub {
            return !alive($pid) if $self->{daemon};
            return waitpid($pid, WNOHANG) == $pid && (($status = $?), 1);
        }, $timeout);
        last if $done;
        push @bad, "did not stop on $sig";
    }
    delete $self->{pid};
    push @bad, sprintf 'exit status %s', $status & 127 ? 'signal ' . ($status & 127) : $status >> 8
        if defined $status && $status != $want << 8;
    push @bad, 'processes left behind' unless wait_for(sub { !left_in_group($self->{pgid}) }, 5);
    kill 'KILL', -$self->{pgid} if left_in_group($self->{pgid});
    push @bad, 'pid file left behind' if -e "$self->{dir}/proxyd.pid" && !@bad;
    return @bad;
}

# What the logs hold that no test has announced.
sub complaints {
    my ($self) = @_;
    my @bad;
    my $log = $self->error_log || '';
    LINE: for (grep { /\[(?:alert|emerg)\]/ } split /\n/, $log) {
        for my $re (@{ $self->{allowed} }) { next LINE if $_ =~ $re }
        push @bad, "log: $_";
        last if @bad > 20;
    }
    my $err = ($self->read_file('stderr') || '') . ($self->{sanitizer} || '');
    for ($err, $log) { push @bad, "sanitizer:\n" . substr($_, 0, 8000) if sanitizer_output($_) }
    return @bad;
}

sub discard {
    my ($self) = @_;
    delete $live{$self};
    if ($ENV{TEST_PROXYD_KEEP}) { Test::More::diag("kept $self->{dir}") }
    else { remove_tree($self->{dir}) }
}

sub DESTROY {
    my ($self) = @_;
    return if $$ != $owner || !exists $live{$self};
    local ($?, $!, $@);
    $_->stop for @{ $self->{origins} };
    if ($self->{pid}) {
        kill 'TERM', $self->{pid};
        kill 'KILL', -$self->{pgid} if $self->{pgid} && !wait_for(sub { waitpid($self->{pid}, WNOHANG) }, 2);
        kill 'KILL', -$self->{pgid} if $self->{pgid};
    }
    delete $live{$self};
    remove_tree($self->{dir}) unless $ENV{TEST_PROXYD_KEEP};
}

# A test that dies leaves no process behind.
END {
    local $?;
    if ($$ == $owner) { $_ && $_->DESTROY for values %live }
}

1;
