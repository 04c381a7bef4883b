# SPDX-License-Identifier: BSD-2-Clause
#
# TLS as the programs that people use speak it: curl, openssl, Python, Node, a headless Chromium. Bodies both ways, sessions resumed
# by every worker, after a reload and by a new binary, clients' certificates, stapled answers, redirects to https.
use strict;
use warnings;
no warnings 'exec';
use Cwd qw(abs_path);
use Digest::SHA qw(sha256_hex);
use FindBin;
use IPC::Open2;
use JSON::PP ();
use lib "$FindBin::Bin/lib";
use POSIX qw(WNOHANG);
use Test::More;
use Proxyd;
use Proxyd::Certs;

plan skip_all => 'proxyd only' if Proxyd::is_nginx();
sub which { my ($n) = @_; for (split /:/, $ENV{PATH}) { return "$_/$n" if -x "$_/$n" } return }
plan skip_all => 'curl is not installed' unless which('curl');
my $apps  = abs_path("$FindBin::Bin/apps");
my $p     = Proxyd->new;
my $dir   = $p->dir;
my $certs = Proxyd::Certs->new("$dir/certs");
my @started;
END { local $?; for (@started) { kill 'KILL', -$_; waitpid $_, 0 } }
$SIG{PIPE} = 'IGNORE';

$certs->make('a', names => ['a.test', 'localhost'], ext => 'tlsfeature=status_request');
$certs->make('other', ca => 1);
$certs->make('good');
$certs->make('expired', days => -1);
$certs->make('revoked');
$certs->make('strange', by => 'other');
$certs->revoke('ca', 'revoked');
# With its root: curl wants the issuer in the chain before it looks at what is stapled.
$p->write_file('certs/whole.crt', Proxyd::Certs::slurp($certs->path('a.crt')) . Proxyd::Certs::slurp($certs->path('ca.only')));
my $question = "$dir/certs/question";
Proxyd::Certs::run('openssl', 'ocsp', '-issuer', $certs->path('ca.only'), '-cert', $certs->path('a.only'), '-no_nonce', '-reqout', $question);
$p->write_file('certs/a.der', $certs->ocsp_answer('ca', $question, status => { a => 'V' }));

my $size = 3_000_000;
$p->write_file('html/large', my $large = join '', map { pack 'N', $_ * 2654435761 % 4294967296 } 1 .. $size / 4);
my $sum = sha256_hex($large);
$p->write_file('html/favicon.ico', '');
$p->write_file("html/asset$_", "$_" x 1000) for 1 .. 60;
$p->write_file('html/page.html', <<'EOT');
<!doctype html><title>TLS</title><script>
(async () => {
    const r = {};
    try {
        const texts = await Promise.all(Array.from({ length: 60 }, (_, i) => fetch('/asset' + (i + 1)).then((x) => x.text())));
        r.assets = texts.filter((t, i) => t === String(i + 1).repeat(1000)).length;
        const down = await (await fetch('/large', { cache: 'no-store' })).arrayBuffer();
        const hash = new Uint8Array(await crypto.subtle.digest('SHA-256', down));
        r.sum = Array.from(hash, (b) => b.toString(16).padStart(2, '0')).join('');
        const up = await (await fetch('/echo', { method: 'POST', body: new Uint8Array(500000) })).json();
        r.up = up.length;
        r.secure = isSecureContext && location.protocol;
    } catch (e) { r.error = String(e); }
    await fetch('/report?' + encodeURIComponent(JSON.stringify(r)));
})();
</script>
EOT

$p->write_conf(<<'EOT');
daemon on;
worker_processes 4;
events { worker_connections 256; }
http {
    default_type text/html;
    root {{dir}}/html;
    log_format main '$ssl_protocol $status $connection_requests $request';
    access_log {{dir}}/access.log main;
    ssl_certificate certs/whole.crt;
    ssl_certificate_key certs/a.key;
    client_max_body_size 0;
    proxy_http_version 1.1;
    server {
        listen 127.0.0.1:{{port}} ssl;
        server_name a.test localhost;
        ssl_stapling on;
        ssl_stapling_file certs/a.der;
        error_page 497 =307 https://a.test:$server_port$request_uri;
        add_header Strict-Transport-Security "max-age=31536000; includeSubDomains" always;
        location / { }
        location /session { return 200 "$ssl_session_reused $pid"; }
        location /connection { return 200 "$pid.$connection $connection_requests"; }
        location /echo { proxy_pass http://127.0.0.1:{{port:origin}}; }
        location /report { return 204; }
        location /missing { return 404; }
    }
    server {
        listen 127.0.0.1:{{port:cached}} ssl;
        server_name a.test;
        ssl_session_cache shared:sessions:1m;
        ssl_session_tickets off;
        location /session { return 200 "$ssl_session_reused $pid"; }
        location /connection { return 200 "$pid.$connection $connection_requests"; }
    }
    server {
        listen 127.0.0.1:{{port:on}} ssl;
        ssl_client_certificate certs/ca.crt;
        ssl_crl certs/ca.crl;
        ssl_verify_client on;
        location / { return 200 "$ssl_client_verify $ssl_client_s_dn"; }
    }
    server {
        listen 127.0.0.1:{{port:optional}} ssl;
        ssl_client_certificate certs/ca.crt;
        ssl_crl certs/ca.crl;
        ssl_verify_client optional;
        error_page 495 496 = /failed;
        location / { return 200 "$ssl_client_verify $ssl_client_s_dn"; }
        location /failed { return 200 "failed $ssl_client_verify"; }
    }
}
EOT
$p->origin('origin', sub {
    my ($c) = @_;
    while (my $q = $c->request) {
        my $said = JSON::PP->new->encode({ length => length $q->{body} // '', sum => sha256_hex($q->{body} // '') });
        $c->write("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: " . length($said) . "\r\n\r\n$said");
    }
});
$p->start(daemon => 1);
my $main = $p->port;
my @versions = ('1.2', '1.3');

# --- curl ---------------------------------------------------------------------------------------------

# What curl prints, and ($code) its exit status. The name a.test leads to 127.0.0.1, and its certificate is judged.
my $code;
sub curl {
    my ($port, @args) = @_;
    my $pid = open my $out, '-|', which('curl'), '-sS', '--max-time', 60, '--noproxy', '*', '--cacert', $certs->path('ca.only'),
        '--resolve', "a.test:$port:127.0.0.1", '--stderr', "$dir/curl.err", @args or die $!;
    binmode $out;
    my $text = do { local $/; <$out> } // '';
    close $out;
    $code = $? >> 8;
    return $text;
}
my $arrived = JSON::PP->new->canonical->encode({ length => $size, sum => $sum });
sub arrived { my $r = eval { JSON::PP->new->decode($_[0]) } || {}; return JSON::PP->new->canonical->encode($r) }
for my $v (@versions) {
    my @v = ("--tlsv$v", '--tls-max', $v);
    ok curl($main, @v, "https://a.test:$main/large") eq $large, "curl $v: down";
    is arrived(curl($main, @v, '-H', 'Expect:', '--data-binary', "\@$dir/html/large", "https://a.test:$main/echo")), $arrived, "curl $v: up";
    is arrived(curl($main, @v, '--data-binary', "\@$dir/html/large", "https://a.test:$main/echo")), $arrived, "curl $v: up, when told to go on";
    is arrived(curl($main, @v, '-H', 'Transfer-Encoding: chunked', '--data-binary', "\@$dir/html/large", "https://a.test:$main/echo")), $arrived, "curl $v: in chunks";
    is curl($main, @v, ('-w', '%{num_connects}.', '-o', '/dev/null', "https://a.test:$main/asset1", '-o', '/dev/null', "https://a.test:$main/asset2")), '1.0.', "curl $v: kept alive";
    like curl($main, @v, '-I', "https://a.test:$main/asset1"), qr/^Strict-Transport-Security: max-age=31536000; includeSubDomains\r$/m, "curl $v: HSTS";
    like curl($main, @v, '-I', "https://a.test:$main/missing"), qr{^HTTP/1.1 404.*^Strict-Transport-Security: }ms, "curl $v: HSTS with an error";
    like curl($main, @v, '--cert-status', "https://a.test:$main/session"), qr/^\. \d+$/, "curl $v: --cert-status" or diag $p->read_file('curl.err');
    curl($p->port('cached'), @v, '--cert-status', "https://a.test:@{[ $p->port('cached') ]}/session");
    is $code, 91, "curl $v: --cert-status where nothing is stapled";
    unlink "$dir/hsts";
    curl($main, @v, '--hsts', "$dir/hsts", "https://a.test:$main/session");
    like $p->read_file('hsts') // '', qr/^\.a\.test "/m, "curl $v: keeps it in mind";

    for (
        # certificate, what "on" says, what "optional" says
        ['good',    qr/^SUCCESS CN=good$/, qr/^SUCCESS CN=good$/],
        ['expired', qr{<title>400 The SSL certificate error</title>}, qr/^failed FAILED:certificate has expired$/],
        ['revoked', qr{<title>400 The SSL certificate error</title>}, qr/^failed FAILED:certificate revoked$/],
        ['strange', qr{<title>400 The SSL certificate error</title>}, qr/^failed FAILED:unable to (?:verify the first certificate|get local issuer certificate|get certificate CRL)$/],
        ['none',    qr{<title>400 No required SSL certificate was sent</title>}, qr/^NONE $/],
    ) {
        my ($name, @want) = @$_;
        my @cert = $name eq 'none' ? () : ('--cert', $certs->path("$name.crt"), '--key', $certs->path("$name.key"));
        for my $kind (qw(on optional)) {
            my $port = $p->port($kind);
            like curl($port, @v, @cert, "https://a.test:$port/"), shift @want, "curl $v: $kind: $name";
            is $code, 0, "curl $v: $kind: $name: an answer, not an alert";
        }
    }
}
is curl($main, '-w', '%{http_code} %{redirect_url}', '-o', '/dev/null', "http://a.test:$main/asset7?x=1"), "307 https://a.test:$main/asset7?x=1", 'curl: plain HTTP is sent to https';
is curl($main, '-L', "http://a.test:$main/asset7"), '7' x 1000, 'curl: and goes there';
is arrived(curl($main, '-L', '--data-binary', "\@$dir/html/large", "http://a.test:$main/echo")), $arrived, 'curl: with a body';
for my $v (@versions) {
    my $option = $v eq '1.2' ? '-tls1_2' : '-tls1_3';
    my $said = `openssl s_client -connect 127.0.0.1:$main -servername a.test -CAfile @{[ $certs->path('ca.only') ]} -status $option < /dev/null 2>&1`;
    like $said, qr/OCSP Response Status: successful.*Cert Status: good/s, "s_client $v: the stapled answer";
    like $said, qr/Verify return code: 0 \(ok\)/, "s_client $v: the chain";
}

# --- sessions: Python and Node, which stay from the first binary to the second ----------------------------

# A client that answers commands.
sub talker {
    my (@command) = @_;
    my $pid = open2(my $out, my $in, 'setsid', @command);
    push @started, $pid;
    return sub {
        print $in join(' ', @_) . "\n";
        $in->flush;
        my $line = <$out> // '{"error":"no answer"}';
        return JSON::PP->new->decode($line);
    };
}
my ($python) = grep { -x } '/usr/bin/python3';
$python //= which('python3');
my %talk = ($python ? (python => talker($python, "$apps/tls_client.py", $certs->path('ca.only'))) : (),
    which('node') ? (node => talker(which('node'), "$apps/tls_client.js", $certs->path('ca.only'))) : ());
my $true = JSON::PP::true;
my $false = JSON::PP::false;

sub resumed {
    my ($when) = @_;
    for my $name (sort keys %talk) {
        for my $v (@versions) {
            for my $kind (qw(main cached)) {
                my $r = $talk{$name}->('again', $v, $p->port($kind), 16);
                is $r->{reused}, 16, "$name $v $kind: resumed $when" or diag explain $r;
                cmp_ok $r->{workers} // 0, '>', 1, "$name $v $kind: by several workers" if $when eq 'at once';
            }
        }
    }
}
for my $name (sort keys %talk) {
    for my $v (@versions) {
        my $want = [$size, $true, $size, $sum];
        is_deeply $talk{$name}->('bodies', $v, $main, $size), [$want, $want], "$name $v: bodies both ways";
        for my $kind (qw(main cached)) {
            my $r = $talk{$name}->('first', $v, $p->port($kind));
            is_deeply [@$r{qw(reused said)}], [$false, '.'], "$name $v $kind: a new session" or diag explain $r;
        }
    }
}
resumed('at once');
if ($talk{node}) {
    for my $v (@versions) {
        for my $kind (qw(main cached)) {
            is_deeply $talk{node}->('agent', $v, $p->port($kind), 200), { connections => 4, answers => 200, resumed => $true }, "node $v $kind: an agent";
        }
    }
}
ok $p->reload, 'reloaded';
resumed('after a reload');
my $new = $p->upgrade_begin(4);
ok $new, 'a new binary';
resumed('while the old master is there');
$p->signal('QUIT');
ok $p->adopt($new), 'the old one ends';
resumed('by the new binary');

# --- a browser ----------------------------------------------------------------------------------------------

SKIP: {
    my $chromium = which('chromium') or skip 'chromium is not installed', 2;
    for my $v (@versions) {
        local $ENV{HOME} = "$dir/profile$v";
        mkdir $ENV{HOME};
        my $browser = fork // die "fork: $!";
        if (!$browser) {
            setpgrp 0, 0;
            open STDIN, '<', '/dev/null';
            open STDOUT, '>', "$dir/chromium.out";
            open STDERR, '>', "$dir/chromium.err";
            exec $chromium, qw(--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking
                --disable-component-update --disable-sync --disable-dev-shm-usage --no-proxy-server --ignore-certificate-errors
                --remote-debugging-port=0), '--host-resolver-rules=MAP a.test 127.0.0.1', $v eq '1.2' ? '--ssl-version-max=tls1.2' : (),
                "--user-data-dir=$ENV{HOME}", "https://a.test:$main/page.html";
            POSIX::_exit(127);
        }
        push @started, $browser;
        my $gone = 0;
        my $line;
        $p->wait_for(sub {
            ($line) = ($p->access_log // '') =~ m{^(TLSv\Q$v\E 204 \d+ GET /report\?\S+)}m;
            return $line || ($gone ||= waitpid($browser, WNOHANG) == $browser);
        }, 200);
        kill 'KILL', -$browser;
        waitpid $browser, 0 unless $gone;
        @started = grep { $_ != $browser } @started;
        my ($json) = ($line // '') =~ /\?(\S+)/;
        $json = ($json // '') =~ s/%([0-9A-Fa-f]{2})/chr hex $1/ger;
        is_deeply eval { JSON::PP->new->decode($json) }, { assets => 60, sum => $sum, up => 500000, secure => 'https:' }, "Chromium $v"
            or diag substr $p->read_file('chromium.err') // '', -2000;
    }
}

is join("\n", grep { /\[(?:crit|error|alert|emerg)\]/ } split /\n/, $p->error_log), '', 'nothing alarming in the error log';
$p->stop;
done_testing;
