# SPDX-License-Identifier: BSD-2-Clause
#
# Certificates for the tests, made on the fly by openssl below a directory: NAME.crt (the leaf, then
# what it was signed by, up to but without the root) and NAME.key; and the client's end of TLS.
package Proxyd::Certs;

use strict;
use warnings;
use File::Path qw(make_path);
use IO::Socket::SSL ();
use Proxyd::Http;

# new(DIR): an authority called "ca" is made with it.
sub new {
    my ($class, $dir) = @_;
    make_path($dir);
    my $self = bless { dir => $dir, made => {} }, $class;
    $self->make('ca', ca => 1);
    return $self;
}

sub path { my ($self, $file) = @_; return "$self->{dir}/$file" }

sub run {
    my (@command) = @_;
    my $pid = fork;
    die "fork: $!" unless defined $pid;
    if ($pid == 0) {
        open STDIN,  '<', '/dev/null';
        open STDOUT, '>', '/dev/null';
        open STDERR, '>', '/dev/null' unless $ENV{TEST_PROXYD_KEEP};
        exec @command or exit 127;
    }
    waitpid $pid, 0;
    die "@command failed\n" if $?;
}

# make(NAME, by => AUTHORITY or 'self', names => [DNS names], subject => "/CN=...", key => 'ec' or
# 'rsa', ca => 1 for an authority, password => of the key, days => N, ext => lines of further extensions)
sub make {
    my ($self, $name, %o) = @_;
    my $base = $self->path($name);
    my $by   = $o{ca} && !$o{by} ? 'self' : $o{by} || 'ca';
    my $subject = $o{subject} || "/CN=$name";
    my @key = ($o{key} || 'ec') eq 'rsa' ? ('-newkey', 'rsa:2048')
        : ('-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1');
    my @protect = defined $o{password} ? ('-passout', "pass:$o{password}") : ('-nodes');
    my $ext = $o{ca} ? "basicConstraints=critical,CA:TRUE\nkeyUsage=keyCertSign,cRLSign\n"
        : "basicConstraints=CA:FALSE\n";
    $ext .= 'subjectAltName=' . join(',', map { "DNS:$_" } @{ $o{names} }) . "\n" if $o{names};
    $ext .= "$o{ext}\n" if $o{ext};
    open my $fh, '>', "$base.ext" or die "$base.ext: $!";
    print $fh $ext;
    close $fh;
    run('openssl', 'req', '-new', @key, @protect, '-subj', $subject, '-keyout', "$base.key", '-out',
        "$base.csr");
    my @sign = $by eq 'self' ? ('-signkey', "$base.key")
        : ('-CA', $self->path("$by.only"), '-CAkey', $self->path("$by.key"), '-CAcreateserial');
    push @sign, '-passin', "pass:$o{password}" if defined $o{password} && $by eq 'self';
    run('openssl', 'x509', '-req', '-in', "$base.csr", '-out', "$base.only", '-days', $o{days} || 30,
        '-sha256', '-extfile', "$base.ext", @sign);
    $self->{made}{$name} = { by => $by };
    my $chain = slurp("$base.only");
    for (my $up = $by; $up ne 'self' && $self->{made}{$up}{by} ne 'self'; $up = $self->{made}{$up}{by}) {
        $chain .= slurp($self->path("$up.only"));
    }
    open $fh, '>', "$base.crt" or die "$base.crt: $!";
    print $fh $chain;
    close $fh;
    return $base;
}

# A list of what AUTHORITY has revoked: AUTHORITY.crl.
sub revoke {
    my ($self, $by, @names) = @_;
    my $base = $self->path($by);
    open my $fh, '>', "$base.cnf" or die $!;
    print $fh "[ca]\ndefault_ca = d\n[d]\ndatabase = $base.index\ncrlnumber = $base.number\n"
        . "default_md = sha256\ndefault_crl_days = 30\n";
    close $fh;
    for (["$base.index", ''], ["$base.number", "01\n"]) {
        open $fh, '>', $_->[0] or die $!;
        print $fh $_->[1];
        close $fh;
    }
    my @ca = ('openssl', 'ca', '-config', "$base.cnf", '-cert', "$base.only", '-keyfile', "$base.key");
    run(@ca, '-revoke', $self->path("$_.only")) for @names;
    run(@ca, '-gencrl', '-out', "$base.crl");
}

# What an OCSP responder of AUTHORITY answers to a request in DER (a file): in DER. status => { NAME => 'V' or 'R' }, others are
# unknown to it. openssl => further arguments; by => who signs in AUTHORITY's place; env => variables of its environment.
sub ocsp_answer {
    my ($self, $authority, $request, %o) = @_;
    local $SIG{CHLD} = 'DEFAULT'; # an origin's is to ignore them
    my $tmp = "$request.$$";
    open my $fh, '>', "$tmp.index" or die $!;
    for my $name (sort keys %{ $o{status} || {} }) {
        my $serial = `openssl x509 -noout -serial -in @{[ $self->path("$name.only") ]}`;
        my ($hex) = $serial =~ /=(\w+)/;
        my $revoked = $o{status}{$name} eq 'R' ? '250101000000Z' : '';
        print $fh join("\t", $o{status}{$name}, '490101000000Z', $revoked, $hex, 'unknown', "/CN=$name"), "\n";
    }
    close $fh;
    my $by = $o{by} || $authority;
    local @ENV{ keys %{ $o{env} || {} } } = values %{ $o{env} || {} };
    run('openssl', 'ocsp', '-index', "$tmp.index", '-CA', $self->path("$authority.only"), '-rsigner',
        $self->path("$by.only"), '-rkey', $self->path("$by.key"), '-reqin', $request, '-respout', "$tmp.der",
        @{ $o{openssl} || ['-nmin', 60] });
    return slurp("$tmp.der");
}

sub slurp {
    my ($file) = @_;
    open my $fh, '<', $file or die "$file: $!";
    local $/;
    return scalar <$fh>;
}

# The name in the certificate by which a handshake has come about, to its end; 'none'. Target and the rest as for connect.
sub shown {
    my ($self, $target, %o) = @_;
    my $c = $self->connect($target, %o) or return 'none';
    my $cn = $c->sock->peer_certificate('cn');
    $c->close;
    return $cn;
}

# In the place of a pair, or of one of its files (which: key, crt), another one's: by rename, so that each is there whole.
sub replace {
    my ($self, $name, $cert, @which) = @_;
    for (@which ? @which : qw(key crt)) {
        run('cp', $self->path("$cert.$_"), $self->path("$name.new"));
        rename $self->path("$name.new"), $self->path("$name.$_") or die $!;
    }
}

# A connection by TLS, to be used as one of Proxyd::Http, or undef with the reason in $@.
# name => for SNI; cert => NAME of a pair to be shown; version => 'TLSv12'; alpn => [...];
# on => an open Proxyd::Http to speak TLS over.
sub connect {
    my ($self, $target, %o) = @_;
    my $http = $o{on} || Proxyd::Http::connect_to($target) or do { $@ = "connect: $!"; return undef };
    my $sock = $http->sock;
    $sock->blocking(1);
    my $ssl = IO::Socket::SSL->start_SSL($sock,
        SSL_verify_mode => 0,
        SSL_hostname    => defined $o{name} ? $o{name} : '',
        $o{cert} ? (SSL_cert_file => $self->path("$o{cert}.crt"), SSL_key_file => $self->path("$o{cert}.key")) : (),
        $o{version} ? (SSL_version => $o{version}) : (),
        $o{ciphers} ? (SSL_cipher_list => $o{ciphers}) : (),
        $o{alpn} ? (SSL_alpn_protocols => $o{alpn}) : (),
        Timeout => 10);
    if (!$ssl) { $@ = $IO::Socket::SSL::SSL_ERROR; return undef }
    return Proxyd::Http->wrap($ssl);
}

# One request, and the answer to it (status 0 where there is none): get(TARGET, URI, host => ..., rest
# as for connect).
sub get {
    my ($self, $target, $uri, %o) = @_;
    my $c = $self->connect($target, %o) or return Proxyd::none();
    my $host = exists $o{host} ? $o{host} : defined $o{name} ? $o{name} : 'localhost';
    $c->send("GET $uri HTTP/1.1\r\n" . (defined $host ? "Host: $host\r\n" : '')
            . "Connection: close\r\n\r\n");
    my $r = $c->response;
    $c->close;
    return $r || Proxyd::none();
}

# What `openssl s_client` says of a connection that asks for PATH once: "New" or "Reused", and the body.
# session => FILE is resumed if it is there, and written.
sub s_client {
    my ($self, $port, $path, %o) = @_;
    my $file = $self->path($o{session});
    my @command = ('openssl', 's_client', '-connect', "127.0.0.1:$port", '-servername', $o{name}, '-ign_eof',
        $o{version}, $o{cert} ? ('-cert', $self->path("$o{cert}.crt"), '-key', $self->path("$o{cert}.key")) : (), -e $file ? ('-sess_in', $file) : (), '-sess_out', $o{keep} ? "$file.new" : $file);
    my $request = $self->path('request');
    open my $fh, '>', $request or die $!;
    print $fh "GET $path HTTP/1.1\r\nHost: $o{name}\r\nConnection: close\r\n\r\n";
    CORE::close($fh);
    my $out = join '', `@command < $request 2>/dev/null`;
    my ($how)  = $out =~ /^(New|Reused), TLSv/m;
    my ($length, $body) = $out =~ /^Content-Length: (\d+)\r\n.*?\r\n\r\n(.*)/ms;
    return ($how // '', defined $body ? substr $body, 0, $length : '');
}

1;
