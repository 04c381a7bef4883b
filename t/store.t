# SPDX-License-Identifier: BSD-2-Clause
#
# proxy_store: which answers become files, what the files are like, and what never becomes one:
# answers that are cut, that are not a 200, or whose name leads elsewhere.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/lib";
use Test::More;
use Proxyd;

my $shm = -d '/dev/shm' && -w '/dev/shm' ? "/dev/shm/proxyd-store-$$" : undef;
my $p = Proxyd->new(conf => <<'EOT');
worker_processes 1;
http {
    upstream s { server 127.0.0.1:{{port:s}}; }
    upstream two { server 127.0.0.1:{{port:s}} max_fails=0; server 127.0.0.1:{{port:t}} backup; }
    root {{dir}}/html;
    server {
        listen 127.0.0.1:{{port}};
        location /on/ { proxy_pass http://s/; proxy_store on; }
        location /alias/ { alias {{dir}}/html/aliased/; proxy_pass http://s/; proxy_store on; }
        location /off/ { proxy_pass http://s/; proxy_store off; }
        location /named/ { proxy_pass http://s/; proxy_store {{dir}}/html/named/$arg_n; }
        location /rel/ { proxy_pass http://s/; proxy_store html/rel/$arg_n; }
        location /same/ { proxy_pass http://s/; proxy_store {{dir}}/html/../html/same/$arg_n; }
        location /var/ { set $u $arg_n; if ($arg_n = '') { set $u ''; }
            proxy_pass http://s/; proxy_store $u; }
        location /outer/ { proxy_store {{dir}}/html/outer/$arg_n;
            location /outer/in/ { proxy_pass http://s/; }
            location /outer/off/ { proxy_pass http://s/; proxy_store off; } }
        location /access/ { proxy_pass http://s/; proxy_store on;
            proxy_store_access user:rw group:rw all:r; }
        location /access2/ { proxy_pass http://s/; proxy_store on; proxy_store_access group:r; }
        location /access3/ { proxy_pass http://s/; proxy_store on; proxy_store_access user:r all:r; }
        location /plain/ { proxy_pass http://s/; proxy_buffering off; proxy_store on; }
        location /small/ { proxy_pass http://s/; proxy_store on; proxy_buffers 2 4k;
            proxy_busy_buffers_size 4k; proxy_max_temp_file_size 0; }
        location /smallun/ { proxy_pass http://s/; proxy_store on; proxy_buffers 2 4k;
            proxy_busy_buffers_size 4k; proxy_buffering off; }
        location /next/ { proxy_pass http://two/; proxy_store on; proxy_next_upstream error http_404; }
        location /force/ { proxy_pass http://s/; proxy_store on; proxy_force_ranges on; }
        location /method/ { proxy_pass http://s/; proxy_store on; proxy_method HEAD; }
        location /methodget/ { proxy_pass http://s/; proxy_store on; proxy_method GET; }
        location /int/ { proxy_pass http://s/; proxy_store on; proxy_intercept_errors on;
            error_page 404 =200 /off/ok; }
        location /xa/ { proxy_pass http://s/; proxy_store on; }
        location /gone/ { proxy_pass http://s/; proxy_store on; }
        location /shm/ { proxy_pass http://s/; proxy_store {{dir}}/shm/a/$arg_n; proxy_store_access all:r; }
        location /spool/ { proxy_pass http://s/; proxy_temp_path {{dir}}/tiny/spool; proxy_buffers 2 4k;
            proxy_busy_buffers_size 4k; }
        location /tinyslow/ { proxy_pass http://s/; proxy_store {{dir}}/tiny/$arg_n; proxy_buffers 2 4k;
            proxy_busy_buffers_size 4k; }
        location /tiny/ { proxy_pass http://s/; proxy_store {{dir}}/tiny/$arg_n; }
        location /mirror/ { error_page 404 = @fetch; }
        location /img/ { error_page 404 = /fetch$uri; }
        location /fetch/ { internal; proxy_pass http://s/; proxy_store on; proxy_store_access all:rw;
            alias {{dir}}/html/; }
        location @fetch { proxy_pass http://s; proxy_store on; }
        location /ssi { ssi on; default_type text/html; return 200 '<!--#include virtual="/on/ok?inc" -->+<!--#include virtual="/on/short" -->'; }
        location /ssi1 { ssi on; default_type text/html; return 200 '[<!--#include virtual="/on/inc" -->]'; }
        location /file { proxy_pass http://s/ok; proxy_store on; }
    }
}
EOT

my $block = 'b' x 65536;
my $time  = 'Sat, 01 Jan 2000 00:00:00 GMT';
my %say   = (
    ok    => "HTTP/1.1 200 OK\r\nLast-Modified: $time\r\nContent-Length: 5\r\n\r\nhello",
    inc   => "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\ninc",
    empty => "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    date  => "HTTP/1.1 200 OK\r\nLast-Modified: yesterday\r\nContent-Length: 2\r\n\r\nok",
    chunked =>
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n4\r\ndefg\r\n0\r\n\r\n",
    gzip => "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\nzz",
    extra => "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokextra",
    201 => "HTTP/1.1 201 Created\r\nContent-Length: 2\r\n\r\n21",
    204 => "HTTP/1.1 204 No\r\n\r\n",
    206 =>
        "HTTP/1.1 206 Part\r\nContent-Range: bytes 0-1/5\r\nContent-Length: 2\r\n\r\nhe",
    301 => "HTTP/1.1 301 Moved\r\nLocation: /x\r\nContent-Length: 2\r\n\r\nmv",
    304 => "HTTP/1.1 304 Same\r\n\r\n",
    404 => "HTTP/1.1 404 None\r\nContent-Length: 2\r\n\r\nno",
    500 => "HTTP/1.1 500 Oops\r\nContent-Length: 2\r\n\r\noo",
    xaccel => "HTTP/1.1 200 OK\r\nX-Accel-Redirect: /off/ok\r\nContent-Length: 2\r\n\r\nxa",
    nobuf => "HTTP/1.1 200 OK\r\nX-Accel-Buffering: no\r\nContent-Length: 2\r\n\r\nnb",
);
my %cut = (
    short    => "HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nshort",
    chunk    => "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
    halfchunk => "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nhello",
    badchunk => "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nzz\r\n",
);
my %eof = (eof => "HTTP/1.1 200 OK\r\n\r\nto the end", eof10 => "HTTP/1.0 200 OK\r\n\r\nten");

sub answer {
    my ($c, $q) = @_;
    my ($what)  = $q->{uri} =~ m{([^/?]*)(?:\?.*)?$};
    return $c->write($say{$what}) if $say{$what};
    if ($cut{$what} || $eof{$what}) { $c->write($cut{$what} || $eof{$what}); return 0 }
    if ($what eq 'reset') {
        $c->write("HTTP/1.1 200 OK\r\n\r\nreset");
        $c->write('x' x 100_000);
        $c->abort;
        return 0;
    }
    if ($what eq 'head') {
        return $c->write("HTTP/1.1 200 OK\r\n"
                . ($q->{method} eq 'HEAD' ? "\r\n" : "Content-Length: 2\r\n\r\nhd"));
    }
    if ($what eq 'big') {
        $c->write("HTTP/1.1 200 OK\r\nContent-Length: " . 400 * 65536 . "\r\n\r\n");
        $c->write($block) or return 0 for 1 .. 400;
        $c->{origin}->note('D big');
        return 1;
    }
    if ($what eq 'bigchunked') {
        $c->write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
        $c->write("10000\r\n$block\r\n") or return 0 for 1 .. 100;
        return $c->write("0\r\n\r\n");
    }
    if ($what eq 'slow') {
        $c->write("HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n");
        $c->write('s' x 500_000);
        my $go = $c->{origin}{log} . '.go';
        select undef, undef, undef, 0.01 until -e $go;
        $c->write('s' x 500_000);
        return 1;
    }
    return $c->write("HTTP/1.1 404 None\r\nContent-Length: 2\r\n\r\n??");
}
my $handler = sub {
    my ($c) = @_;
    while (my $q = $c->request) { answer($c, $q) or return }
};
my $s = $p->origin('s', $handler);
my $t = $p->origin('t', sub { my ($c) = @_;
    while ($c->request) { $c->write("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nsecond") } });
mkdir $p->dir . '/shm';
if ($shm) {
    mkdir $shm;
    chmod 0777, $shm;
    rmdir $p->dir . '/shm';
    symlink $shm, $p->dir . '/shm';
}
my $tiny = 0;
mkdir $p->dir . '/tiny';
$tiny = 1
    if $> == 0 && system('mount', '-t', 'tmpfs', '-o', 'size=256k,mode=777', 'tmpfs', $p->dir . '/tiny') == 0;
sub unmount { system 'umount', '-l', $p->dir . '/tiny' if $tiny; $tiny = 0 }
END {
    unmount();
    if ($shm) { system 'rm', '-rf', $shm }
}
chmod 0777, $p->dir . '/html', $p->dir . '/shm/.', $p->dir . '/tiny';
$p->start;

my $html = $p->dir . '/html';

sub stored {
    my ($name) = @_;
    my $path = $name =~ m{^/} ? $name : "$html/$name";
    open my $fh, '<:raw', $path or return undef;
    local $/;
    return scalar <$fh>;
}
sub mode { my @st = stat "$html/$_[0]"; return @st ? sprintf '%o', $st[2] & 07777 : 'none' }

# Temporary files that were left.
sub leftovers { return grep { length } split /\n/, `find -L '@{[ $p->dir ]}' -path '*_temp/*' -type f -o -name '.proxyd-store-*'` }

# --- what is stored ---------------------------------------------------------------------------------
for (
    ['/on/ok', 'on/ok', 'hello', 'on: below root'],
    ['/on/new/dir/ok', 'on/new/dir/ok', 'hello', 'directories are made'],
    ['/on/chunked', 'on/chunked', 'abcdefg', 'chunked: what it holds'],
    ['/on/empty', 'on/empty', '', 'an empty answer is an empty file'],
    ['/on/eof', 'on/eof', 'to the end', 'an answer that ends with the connection'],
    ['/on/eof10', 'on/eof10', 'ten', 'of HTTP/1.0'],
    ['/on/gzip', 'on/gzip', 'zz', 'encoded: as it came'],
    ['/on/extra', 'on/extra', 'ok', 'not what follows the body'],
    ['/on/nobuf', 'on/nobuf', 'nb', 'X-Accel-Buffering: no'],
    ['/on/a%20b/ok', 'on/a b/ok', 'hello', 'the name is the decoded URI'],
    ['/on/x/../ok?args', 'on/ok', 'hello', 'normalised, without arguments'],
    ['/alias/d/ok', 'aliased/d/ok', 'hello', 'below alias'],
    ['/named/ok?n=a/b', 'named/a/b', 'hello', 'a name with variables'],
    ['/rel/ok?n=r', 'rel/r', 'hello', 'a relative one is below the prefix'],
    ['/same/ok?n=s', 'same/s', 'hello', 'the configuration itself may climb'],
    ['/outer/in/ok?n=i', 'outer/i', 'hello', 'inherited'],
    ['/plain/chunked', 'plain/chunked', 'abcdefg', 'unbuffered'],
    ['/file', 'file', 'hello', 'a file of the root'],
    ['/next/404', 'next/404', 'second', 'what the next server said'],
    ['/fetch/ok', 'fetch/ok', undef, '(internal)'],
    ['/mirror/ok', 'mirror/ok', 'hello', 'error_page 404 = @fetch'],
    ['/img/ok', 'img/ok', 'hello', 'error_page 404 = /fetch$uri'],
    )
{
    my ($uri, $file, $text, $what) = @$_;
    my $r = $p->get($uri);
    is stored($file), $text, $what;
    is $r->body, $text, "$what: the client has it too" if defined $text;
}
is((stat "$html/on/ok")[9], 946684800, 'the time is that of Last-Modified');
cmp_ok +(stat "$html/on/date")[9] // 0, '>', time - 100, 'else the present, if it cannot be read'
    if $p->get('/on/date')->status == 200;
my $n = $s->requests;
$p->get('/mirror/ok') for 1 .. 3;
is $s->requests, $n, 'the stored file is served from then on';
$say{ok} =~ s/hello/HELLO/;
is $p->get('/on/ok')->status, 200, 'again';
is $p->get('/ssi1')->body, '[inc]', 'a subrequest';
is stored('on/inc'), 'inc', 'is stored as well';
is $p->post('/on/sub/ok', 'x')->body . stored('on/sub/ok'), 'hellohello', 'of a POST too';
is $p->get('/force/ok', headers => ['Range', 'bytes=1-2'])->body, 'el', 'a part for the client';
is stored('force/ok'), 'hello', 'is stored as a whole';
is $p->head('/methodget/ok')->status, 200, 'HEAD, but GET to the server';
ok $p->wait_for(sub { (stored('methodget/ok') // '') eq 'hello' }), 'is stored as a whole';
ok $p->get('/on/bigchunked')->body eq $block x 100, 'a large one';
ok stored('on/bigchunked') eq $block x 100, 'is stored';
is mode('on/ok'),          '600', 'proxy_store_access: user:rw';
is mode('on/new'),         '700', 'with directories';
is $p->get('/access/d/ok')->status, 200;
is mode('access/d/ok') . mode('access/d'), '664775', 'user:rw group:rw all:r';
is $p->get('/access2/d/ok')->status, 200;
is mode('access2/d/ok') . mode('access2/d'), '640750', 'group:r: the user may read and write';
is $p->get('/access3/d/ok')->status, 200;
is mode('access3/d/ok') . mode('access3/d'), '404505', 'user:r all:r';

# --- what is not ------------------------------------------------------------------------------------
for (map { "/on/$_" } (sort keys %cut), 'reset') {
    my $r = $p->get($_);
    is $r->status . $r->{complete}, '2000', "$_ is seen to be cut";
}
my ($w) = $p->workers;
for (
    ['/on/201', 201], ['/on/204', 204], ['/on/206', 206], ['/on/301', 301], ['/on/304', 304],
    ['/on/404', 404], ['/on/500', 500], ['/off/ok', 200], ['/outer/off/ok?n=o', 200],
    ['/method/head', 200], ['/xa/xaccel', 200], ['/int/404', 200], ['/var/ok', 200],
    ['/named/ok?n=../up', 200], ['/named/ok?n=a/../../up', 200], ['/named/ok?n=..', 200],
    ['/named/ok?n=', 200], ['/named/ok?n=d/', 200], ['/on/', 404], ['/same/ok?n=../up', 200],
    ['/same/ok?n=x/../y', 200],
    )
{
    is $p->get($_->[0])->status, $_->[1], "$_->[0] is answered";
}
is $p->head('/on/h/head')->status, 200, 'HEAD is answered';
is join(' ', grep { -e "$html/$_" } 'on/short', 'on/chunk', 'on/halfchunk', 'on/badchunk',
    'on/reset', 'on/201', 'on/204', 'on/206', 'on/301', 'on/304', 'on/404', 'on/500', 'off/ok',
    'outer/o', 'method/head', 'xa/xaccel', 'int/404', 'up', '../up', 'on/h/head', 'named/d', 'same/y'),
    '', 'none of them is stored';
like $p->error_log, qr{\[error\] [^\n]*unsafe path "[^"]*/named/\.\./up"}, 'a name that climbs is logged';
is $p->get('/named/ok?n=a')->status, 200, 'where a directory is';
ok -d "$html/named/a", 'it stays';
like $p->error_log, qr{\[crit\] [^\n]*rename\(\) "[^"]+" to "[^"]+/named/a" failed \(21: Is a directory\)},
    'and that is logged as nginx does';
is $p->get('/named/ok?n=a/b/c')->status, 200, 'below a file';
like $p->error_log, qr{\[crit\] [^\n]*failed \(20: Not a directory\)}, 'is logged too';
is join(' ', leftovers()), '', 'no temporary file is left';
{
    my $r = $p->get('/ssi');
    ok !$r->{complete}, 'a cut subrequest cuts the page';
    is stored('on/short'), undef, 'and is not stored';
}

# --- clients that are slow or go ----------------------------------------------------------------------
# Asks, and reads only after `wait` is true; returns how much came.
sub slowly {
    my ($uri, $wait) = @_;
    my $c = $p->connect;
    $s->reset_counts;
    $c->send("GET $uri HTTP/1.1\r\nHost: a\r\n\r\n");
    $wait->();
    my ($got, $head) = (0);
    while ($got < 400 * 65536 + length($head // '') && $c->wait_input(10)) {
        ($head) = $c->{in} =~ /^(.*?\r\n\r\n)/s unless defined $head;
        $got += length $c->{in};
        $c->{in} = '';
    }
    $c->close;
    return $got - length $head;
}
for my $loc ('small', 'smallun') {
    is slowly("/$loc/big", sub {
        ok $p->wait_for(sub { -e "$html/$loc/big" }, 20), "$loc: stored while the client has not read anything";
        is -s "$html/$loc/big", 400 * 65536, "$loc: whole";
    }), 400 * 65536, "$loc: the client gets all of it";
}
for my $how ('close', 'abort') {
    unlink "$html/gone/slow", $s->{log} . '.go';
    my $c = $p->connect;
    $s->reset_counts;
    $c->send("GET /gone/slow HTTP/1.1\r\nHost: a\r\n\r\n");
    ok $p->wait_for(sub { $c->wait_input(0.1); length($c->{in}) > 1000 }), "$how in the midst";
    $c->$how;
    open my $fh, '>', $s->{log} . '.go';
    ok $p->wait_for(sub { -e "$html/gone/slow" }), 'the file is stored nevertheless';
    is -s "$html/gone/slow", 1_000_000, 'whole';
}
ok $p->wait_log(qr{"GET /gone/slow HTTP/1\.1" 200 }, 'access.log'), 'logged with its status';

# --- other file systems -------------------------------------------------------------------------------
SKIP: {
    skip 'no /dev/shm', 4 unless $shm;
    is $p->get('/shm/chunked?n=b/c')->body, 'abcdefg', 'to another file system';
    is stored("$shm/a/b/c"), 'abcdefg', 'is stored';
    is sprintf('%o', (stat "$shm/a/b/c")[2] & 07777), '604', 'with its permissions';
    is $p->get('/shm/short?n=b/s')->{complete}, 0, 'a cut one';
    ok !-e "$shm/a/b/s", 'is not';
}
SKIP: {
    skip 'cannot mount', 10 unless $tiny;
    ok $p->get('/tiny/bigchunked?n=x')->body eq $block x 100, 'a full disk: the client has its answer';
    ok !-e $p->dir . '/tiny/x', 'nothing is stored';
    like $p->error_log, qr{\[crit\] [^\n]*pwritev\(\) "[^"]+" failed \(28: No space left on device\)}, 'and that is logged';
    my $full = sub { ok $p->wait_log(qr/No space left[^\n]*tinyslow/), 'full while the client has not read anything' };
    is slowly('/tinyslow/big?n=z', $full), 400 * 65536, 'a slow client has its answer too';
    ok !-e $p->dir . '/tiny/z', 'which is not stored';
    $full = sub { ok $p->wait_log(qr/pwritev\(\) to a temporary file failed[^\n]*No space left/), 'the spool fills the disk' };
    is slowly('/spool/big', $full), 400 * 65536, 'then the server waits for the client';
    is $p->get('/tiny/ok?n=y')->status, 200, 'then one that fits';
    is stored($p->dir . '/tiny/y'), 'hello', 'is stored: the room has been given back';
}
is join(' ', leftovers()), '', 'no temporary file is left';
is join(' ', $p->workers), $w, 'by the same worker';
unmount();
$p->stop;
done_testing;
