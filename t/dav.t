# SPDX-License-Identifier: BSD-2-Clause
#
# WebDAV: what t/differential_files.t cannot compare, because nginx does otherwise or has no such
# thing: bodies of all kinds, other file systems, a full disk, links, destinations in other locations,
# conditions, nothing half done left behind. Real clients: curl.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/lib";
use Digest::MD5 qw(md5_hex);
use Test::More;
use Proxyd;

umask 022;
# Another file system, where there is one; a small one, if it can be made.
my $shm = -d '/dev/shm' && -w '/dev/shm' ? "/dev/shm/proxyd-dav-$$" : undef;
my $full;
END { system 'umount', $full if defined $full; system 'rm', '-rf', $shm if defined $shm }
mkdir $shm if defined $shm;

my %files = (
    'd/f'              => "file\n",
    'd/g'              => "other\n",
    'd/tree/a'         => "a\n",
    'd/tree/b/c'       => "c\n",
    'd/tree/b/e/f'     => "f\n",
    'd/tree2/x'        => "x\n",
    'alias/f'          => "aliased\n",
    'closed/secret'    => "secret\n",
    'guarded/x'        => "x\n",
    're/a.php'         => "php\n",
    'ro/x'             => "x\n",
    'naked/x'          => "x\n",
    'nake/x'           => "neighbour\n",
    'circle/in/x'        => "x\n",
    'outside/x'        => "outside\n",
    '404.html'         => "page\n",
);
my $other = defined $shm ? $shm : '{{dir}}/tmp/other';
my $p = Proxyd->new(files => { map { ("html/$_" => $files{$_}) } keys %files }, conf => <<'EOT' =~ s/OTHER/$other/gr);
http {
    root {{dir}}/html;
    client_body_buffer_size 16k;
    client_max_body_size 100m;
    client_body_temp_path {{dir}}/tmp/body;
    server {
        listen 127.0.0.1:{{port}};
        server_name dav.test;
        location /d/ { dav_methods PUT DELETE MKCOL COPY MOVE; }
        location /full/ { alias {{dir}}/html/d/; dav_methods PUT MKCOL; create_full_put_path on;
            dav_access user:rw group:rw all:r; }
        location /access/ { alias {{dir}}/html/d/; dav_methods PUT MKCOL; dav_access user:r group:rw; }
        location /other/ { alias {{dir}}/html/d/; dav_methods PUT; client_body_temp_path OTHER/body; }
        location /small/ { alias {{dir}}/html/d/; dav_methods PUT; client_max_body_size 10; }
        location /alias/ { alias {{dir}}/html/alias/; dav_methods PUT COPY MOVE DELETE; }
        location /closed/ { }
        location /guarded/ { dav_methods COPY MOVE PUT; deny all; }
        location /rewrites/ { dav_methods COPY MOVE; return 404; }
        location /if/ { if ($http_x) { set $y 1; } alias {{dir}}/html/d/; dav_methods COPY PUT; }
        location /any/ { dav_methods COPY MOVE; satisfy any; }
        location /sub/ { dav_methods COPY MOVE; alias {{dir}}/html/d/; }
        location ~ \.php$ { return 200 php; }
        location ~ ^/re/(.*)\.txt$ { alias {{dir}}/html/re/$1.txt; dav_methods PUT COPY; }
        location /limit/ { alias {{dir}}/html/d/; dav_methods PUT DELETE COPY;
            limit_except GET PUT COPY { deny all; } }
        location /links/ { alias {{dir}}/html/d/; dav_methods PUT DELETE COPY MOVE MKCOL; disable_symlinks on; }
        location /some/ { alias {{dir}}/html/d/; dav_methods put Mkcol; }
        location /none/ { alias {{dir}}/html/d/; dav_methods off; }
        location /mirror/ { alias {{dir}}/html/d/; dav_methods PUT; mirror /m; mirror_request_body on; } #? mirror
        location = /m { return 204; }
        location /page/ { alias {{dir}}/html/d/; dav_methods PUT; error_page 409 412 413 /404.html; }
        location /deep/ { alias {{dir}}/html/d/; dav_methods DELETE; min_delete_depth 4; }
        location /tiny/ { dav_methods PUT COPY; alias {{dir}}/tiny/; client_body_temp_path {{dir}}/tiny/; }
        location /naked/ { dav_methods DELETE; alias {{dir}}/html/naked; }
        location /circle/ { dav_methods COPY MOVE DELETE; }
        location /tiny2/ { dav_methods PUT; alias {{dir}}/tiny/; }
    }
}
EOT
my $html = $p->dir . '/html';
symlink '../outside', "$html/d/link" or die $!;
symlink '../../outside/x', "$html/d/tree/lnk" or die $!;
symlink $shm, "$html/d/shm" or die $! if defined $shm;
mkdir $p->dir . '/tiny';
if ($> == 0 && system('mount', '-t', 'tmpfs', '-o', 'size=256k', 'tmpfs', $p->dir . '/tiny') == 0) {
    $full = $p->dir . '/tiny';
}
$p->start;

sub status {
    my ($method, $uri, @o) = @_;
    my $body = @o % 2 ? pop @o : undef;
    return $p->request($method, $uri, host => 'dav.test', headers => \@o, body => $body)->status;
}
sub content { return $p->read_file("html/$_[0]") }
sub mode { return sprintf '%o', (stat "$html/$_[0]")[2] & 07777 }

# Nothing of ours may lie about.
sub no_leftovers {
    my ($what) = @_;
    my @left = grep { !/^\s*$/ } split /\n/, qx{find '@{[$p->dir]}/tmp' '$html' ${\($shm || '')} -name '.proxyd-dav*' -o -path '*/body/*' -type f};
    is_deeply \@left, [], "no leftovers after $what";
}

# --- PUT ------------------------------------------------------------------------------------------
my $r = $p->request('PUT', '/d/new', host => 'dav.test', body => 'hello');
is $r->status, 201, 'a new file';
is $r->header('Location'), 'http://dav.test:' . $p->port . '/d/new', 'says where it is';
is $r->header('Content-Length'), 0, 'and nothing else';
is content('d/new'), 'hello', 'it is there';
is mode('d/new'), '600', 'dav_access user:rw is the default';
is status('PUT', '/d/new', 'again'), 204, 'an existing file';
is content('d/new'), 'again', 'is replaced';
is status('PUT', '/d/empty', ''), 201, 'an empty body';
is content('d/empty'), '', 'makes an empty file';
is $p->http("PUT /d/nolength HTTP/1.1\r\nHost: dav.test\r\nConnection: close\r\n\r\n")->status, 201, 'no length: no body';
is content('d/nolength'), '', 'an empty file too';
is $p->http("PUT /d/chunks HTTP/1.1\r\nHost: dav.test\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n3\r\nabc\r\n4\r\ndefg\r\n0\r\n\r\n",
    piece => 1)->status, 201, 'chunks, a byte at a time';
is content('d/chunks'), 'abcdefg', 'are put together';
my $large = join '', map { pack 'N', $_ } 1 .. 500_000;
is status('PUT', '/d/large', $large), 201, 'two megabytes';
is md5_hex(content('d/large')), md5_hex($large), 'as they were sent';
is status('PUT', '/full/p/q/r', 'x'), 201, 'create_full_put_path';
is mode('d/p/q'), '775', 'directories with dav_access';
is mode('d/p/q/r'), '664', 'and files';
is status('PUT', '/access/y', 'x') . mode('d/y'), '201460', 'user:r group:rw';
is status('PUT', '/d/no/where', 'x'), 409, 'no directory to put it in (RFC 4918, 9.7.1)';
is status('PUT', '/d/f/under', 'x'), 409, 'a file where a directory should be';
is status('PUT', '/d/tree', 'x'), 409, 'a directory is there';
is status('PUT', '/d/', 'x'), 409, 'a collection';
is status('PUT', '/d/part', 'Content-Range', 'bytes 0-0/5', 'x'), 501, 'a part of a file';
is status('PUT', '/d/dated', 'Date', 'Fri, 14 Jul 2017 02:40:00 GMT', 'x'), 201, 'with a date';
is((stat "$html/d/dated")[9], 1_500_000_000, 'is given to the file');
is status('PUT', '/d/undated', 'Date', 'yesterday', 'x'), 201, 'a malformed date is none';
cmp_ok +(stat "$html/d/undated")[9], '>', 1_700_000_000, 'the present';
is status('PUT', '/small/z', 'x' x 11), 413, 'too large';
ok !-e "$html/d/z", 'leaves nothing';
is $p->http("PUT /small/z HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n14\r\n" . 'x' x 20 . "\r\n0\r\n\r\n")->status,
    413, 'too large in chunks';
ok !-e "$html/d/z", 'nothing either';
is $p->request('PUT', '/page/tree', body => 'x')->body, "page\n", 'error_page';
is status('PUT', '/closed/x', 'x'), 405, 'not where it is not allowed';
is status('PUT', '/none/x', 'x'), 405, 'dav_methods off';
is status('PUT', '/some/xyz', 'x') . status('MKCOL', '/some/xyzd/') . status('DELETE', '/some/xyz'), '201201405',
    'methods in any case, and no others';

# conditions (RFC 9110, 13)
my $etag = $p->get('/d/f')->header('ETag');
for (['If-None-Match', '*', 'f', 412], ['If-None-Match', '*', 'cond1', 201], ['If-Match', '*', 'cond2', 412],
    ['If-Match', '*', 'cond1', 204], ['If-Match', '"x"', 'f', 412], ['If-Match', "\"x\", $etag", 'f', 204],
    ['If-None-Match', $etag, 'g', 204], ['If-Unmodified-Since', 'Fri, 14 Jul 2017 02:40:00 GMT', 'f', 412],
    ['If-Unmodified-Since', 'Fri, 14 Jul 2017 02:40:00 GMT', 'dated', 204]) {
    my ($name, $value, $file, $want) = @$_;
    is status('PUT', "/d/$file", $name, $value, 'c'), $want, "PUT $file with $name: $value";
}
is status('DELETE', '/d/cond1', 'If-Match', '"x"') . status('DELETE', '/d/cond1', 'If-Match', '*'), '412204', 'DELETE with If-Match';

# a client that goes away leaves the old file, and nothing of the new one
my $c = $p->connect;
$c->send("PUT /d/g HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n" . 'x' x 100_000);
ok $p->wait_for(sub { qx{find '@{[$p->dir]}/tmp/body' -type f} ne '' }), 'a temporary file';
$c->abort;
ok $p->wait_for(sub { qx{find '@{[$p->dir]}/tmp/body' -type f} eq '' }), 'is gone with its client';
is content('d/g'), 'c', 'and the old one is there';

# Expect: refused before anything is sent; else asked for
my $x = $p->raw('main', "PUT /d/tree HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n", count => 1);
is $x->{responses}[0]->status . scalar @{ $x->{responses}[0]{interim} }, '4090', 'no 100 before a refusal';
$x = $p->raw('main', "PUT /d/exp HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\nhello", count => 1);
is $x->{responses}[0]->status . scalar @{ $x->{responses}[0]{interim} }, '2011', 'but before an upload';
# keep-alive after it
$x = $p->raw('main', join('', map { "PUT /d/ka$_ HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nab$_" } 1 .. 3), count => 3);
is join(',', map { $_->status } @{ $x->{responses} }), '201,201,201', 'three on a connection';
is content('d/ka3'), 'ab3', 'each with its own body';
SKIP: {
    skip 'no mirror', 2 unless $p->has('mirror');
    is status('PUT', '/mirror/mir', 'x' x 50_000), 201, 'a body that another one has read';
    is content('d/mir'), 'x' x 50_000, 'is the same';
}
# the temporary file on another file system
is status('PUT', '/other/cross', $large), 201, 'from another file system';
is md5_hex(content('d/cross')), md5_hex($large), 'as it was sent';
is mode('d/cross'), '600', 'with its permissions';
is status('PUT', '/other/cross', 'Date', 'Fri, 14 Jul 2017 02:40:00 GMT', 'short'), 204, 'and again';
is content('d/cross') . (stat "$html/d/cross")[9], 'short1500000000', 'with its time';
no_leftovers('PUT');

SKIP: {
    skip 'no file system to fill', 8 unless defined $full;
    is status('PUT', '/tiny/a', 'x' x 100_000), 201, 'while there is room';
    is status('PUT', '/tiny/b', 'x' x 2_000_000), 507, 'a full disk';
    like $p->wait_log(qr/(write\(\) .* failed \(28: No space left on device\))/), qr/28/, 'is logged';
    is join(',', map { m{([^/]+)$} } glob "$full/*"), 'a', 'no half file';
    is status('PUT', '/tiny2/b', 'x' x 2_000_000), 507, 'a full disk while copying';
    is status('COPY', '/tiny/a', 'Destination', '/tiny/c'), 204, 'a copy that fits';
    is status('COPY', '/tiny/a', 'Destination', '/tiny/e'), 507, 'one that does not';
    # which goes when the request does, and that may be after its answer
    ok $p->wait_for(sub { join(',', map { m{([^/]+)$} } glob("$full/*"), glob("$full/.p*")) eq 'a,c' }), 'no half copy';
    system 'umount', $full;
    undef $full;
}

# --- MKCOL, DELETE --------------------------------------------------------------------------------
is status('MKCOL', '/d/col/'), 201, 'MKCOL';
is mode('d/col'), '700', 'with dav_access';
is status('MKCOL', '/full/colf/') . mode('d/colf'), '201775', 'another dav_access';
is status('MKCOL', '/d/col/'), 405, 'it is there';
is status('MKCOL', '/d/x/y/'), 409, 'no parent';
is status('MKCOL', '/d/slash'), 409, 'without slash';
is $p->http("MKCOL /d/b/ HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n")->status, 415, 'a body in chunks';
is status('DELETE', '/d/col/'), 204, 'DELETE';
is status('DELETE', '/d/link', 'Depth', '0'), 204, 'a link is deleted';
ok -e "$html/outside/x", 'not what it leads to';
symlink '../outside', "$html/d/link";
is status('DELETE', '/d/link/x'), 204, 'through a link, as the system has it';
is status('DELETE', '/links/link/y'), 403, 'unless disable_symlinks forbids it';
is status('PUT', '/links/link/y', 'x'), 403, 'PUT as well';
is status('MKCOL', '/links/link/m/'), 403, 'and MKCOL';
is status('COPY', '/links/f', 'Destination', '/links/link/y'), 403, 'and a destination';
is status('COPY', '/links/link/y', 'Destination', '/links/y'), 403, 'and a source';
is status('DELETE', '/deep/tree2'), 409, 'not deep enough';
is status('DELETE', '/deep/p/q/r'), 204, 'deep enough';
# many entries: in steps, while others are served
mkdir "$html/d/many";
for my $i (1 .. 40) {
    mkdir "$html/d/many/$i";
    $p->write_file("html/d/many/$i/$_", 'x') for 1 .. 50;
}
symlink '../../outside', "$html/d/many/1/out";
is status('DELETE', '/d/many/'), 204, 'two thousand files';
ok !-e "$html/d/many" && -e "$html/outside", 'are gone, nothing outside is';

is status('DELETE', '/naked/'), 204, 'a directory whose alias lacks the slash';
ok !-e "$html/naked" && -e "$html/nake/x", 'and not its neighbour';

# --- COPY and MOVE --------------------------------------------------------------------------------
is status('COPY', '/d/f', 'Destination', '/d/copy'), 204, 'COPY';
is content('d/copy'), content('d/f'), 'the same';
is status('COPY', '/d/f', 'Destination', '/d/f'), 403, 'onto itself (nginx empties the file)';
is content('d/f'), 'c', 'which stays as it is';
is status($_, '/d/tree/', 'Destination', '/d/tree/'), 403, "$_ of a tree onto itself" for qw(COPY MOVE);
is status($_, '/d/tree/', 'Destination', '/d/tree/b/in/'), 403, "$_ of a tree into itself" for qw(COPY MOVE);
is status($_, '/d/tree/b/', 'Destination', '/d/tree/'), 403, "$_ of a part over the whole" for qw(COPY MOVE);
is content('d/tree/b/e/f'), "f\n", 'all of it is there';
is status('COPY', '/d/f', 'Destination', '/d/no/way'), 409, 'no directory for a copy';
is status('COPY', '/d/tree/', 'Destination', '/d/no/way/'), 409, 'nor for a tree';
is status('MOVE', '/d/tree/', 'Destination', '/d/no/way/'), 409, 'nor for a tree that is moved';
is status('COPY', '/d/tree/', 'Destination', '/d/t0/', 'Depth', '0'), 201, 'Depth: 0';
is_deeply [glob "$html/d/t0/*"], [], 'the directory alone';
is status('COPY', '/d/tree/', 'Destination', '/d/t1/'), 201, 'a tree';
is content('d/t1/b/e/f'), "f\n", 'all of it';
ok !-l "$html/d/t1/lnk", 'but no links';
is status('COPY', '/d/tree/', 'Destination', '/d/tree2/'), 201, 'over another one';
ok !-e "$html/d/tree2/x" && -e "$html/d/tree2/a", 'which is replaced';
is status('MOVE', '/d/t1/', 'Destination', '/d/tree2/', 'Overwrite', 'F'), 412, 'Overwrite: F';
is status('MOVE', '/d/t1/', 'Destination', '/d/tree2/'), 201, 'MOVE over another one';
ok !-e "$html/d/t1" && -e "$html/d/tree2/b/c", 'moved';
is status('MOVE', '/d/copy', 'Destination', '/d/new/'), 409, 'a file is no collection';
is $p->request('COPY', '/d/f', host => 'dav.test', headers => ['Destination', "http://$_/d/host"])->status, 204, "host $_"
    for 'dav.test', 'DAV.test', 'dav.test:8443';
is $p->request('COPY', '/d/f', host => 'dav.test', headers => ['Destination', "http://$_/d/host"])->status, 400, "host $_"
    for 'dav.test.evil', 'dav.testx', 'dav.test@evil', 'evil', 'dav.test:x', '';
for my $dest ('/../etc/x', '/d/../../x', '/d/%2e%2e/%2e%2e/x', '/d/%2e%2e%2f%2e%2e%2fx', '/d/..%2f..%2fx', '/d/a%00b',
    'd/x', '', '//', '/d/%zz', "/d/\\..\\x") {
    my $s = status('COPY', '/d/f', 'Destination', $dest);
    like $s, $dest eq "/d/\\..\\x" ? qr/^204$/ : $dest eq '//' ? qr/^409$/ : qr/^40[039]$/, "destination $dest";
}
is_deeply [grep { !m{/(?:d|alias|closed|guarded|re|ro|outside|naked|nake|circle|404\.html)$} } glob "$html/*"], [], 'nothing went elsewhere';

# locations: the destination's own has a say, and its own root
is status('COPY', '/d/f', 'Destination', '/closed/x'), 403, 'a location without dav_methods';
is status('COPY', '/d/f', 'Destination', '/d/shell.php'), 403, 'one that a pattern takes';
is status('COPY', '/d/f', 'Destination', '/guarded/x'), 403, 'one that is guarded otherwise';
is content('guarded/x'), "x\n", 'untouched';
is status('COPY', '/d/f', 'Destination', '/rewrites/x'), 403, 'one that would say 404';
is status('COPY', '/if/f', 'Destination', '/if/byif', 'X', '1'), 204, 'inside of if it is the same location';
is status('COPY', '/d/f', 'Destination', '/any/x'), 403, 'one with another satisfy';
is status('COPY', '/d/f', 'Destination', '/alias/copied'), 204, 'another directory';
is content('alias/copied'), content('d/f'), 'is used for what is put there';
is status('COPY', '/alias/f', 'Destination', '/al'), 403, 'shorter than the alias';
is status('COPY', '/alias/f', 'Destination', '/d/from-alias'), 204, 'from an alias';
is content('d/from-alias'), "aliased\n", 'to another place';
is status('PUT', '/re/one.txt', 'one') . status('COPY', '/re/one.txt', 'Destination', '/re/two.txt'), '201204',
    'captures of the destination';
is content('re/two.txt'), 'one', 'are its own';
like $p->wait_log(qr/(destination forbidden by location "\/guarded\/" in \S+:\d+)/), qr/guarded/, 'the line that forbids';
is status('DELETE', '/limit/f'), 403, 'limit_except';
is status('PUT', '/limit/lim', 'x'), 201, 'what it lets pass';
is status('COPY', '/d/f', 'Destination', '/limit/f2'), 204, 'and as a destination';
is status('MOVE', '/d/f', 'Destination', '/limit/f3'), 403, 'what it does not let pass';

SKIP: {
    skip 'one file system', 5 unless defined $shm;
    is status('COPY', '/d/tree/', 'Destination', '/d/shm/t/'), 201, 'a copy on another file system';
    is status('MOVE', '/d/tree2/', 'Destination', '/d/shm/t/'), 201, 'a move over it';
    ok -e "$shm/t/b/e/f" && !-e "$html/d/tree2", 'is done by copying';
    is status('MOVE', '/d/from-alias', 'Destination', '/d/shm/file'), 204, 'a file too';
    is status('MOVE', '/d/tree/', 'Destination', '/d/shm/links/'), 201, 'links';
    is readlink "$shm/links/lnk", '../../outside/x', 'move along';
}
chmod 04755, "$html/circle/in/x";
is status('COPY', '/circle/in/x', 'Destination', '/circle/y') . mode('circle/y'), '204755', 'a copy is nobody\'s set-user-id program';
symlink 'in', "$html/circle/out" or die $!;
is status($_, '/circle/in/', 'Destination', '/circle/out/in/'), 403, "$_ of a tree into itself by way of a link" for qw(COPY MOVE);
mkdir "$html/circle/in/deep";
is status($_, '/circle/out/deep/', 'Destination', '/circle/in/'), 403, "$_ of a tree onto the one it is in" for qw(COPY MOVE);
is content('circle/in/x'), "x\n", 'leaves it alone';
is status('MOVE', '/circle/out/x', 'Destination', '/circle/in/deep/x'), 204, 'a file may go there';
no_leftovers('COPY and MOVE');

# --- a real client ----------------------------------------------------------------------------------
SKIP: {
    skip 'no curl', 4 if system('sh', '-c', 'command -v curl > /dev/null') != 0;
    my $url = 'http://127.0.0.1:' . $p->port . '/d';
    $p->write_file('upload', $large);
    my $up = $p->dir . '/upload';
    is qx{curl -s -o /dev/null -w '%{http_code}' -T '$up' $url/curl}, 201, 'curl -T';
    is qx{curl -s -o /dev/null -w '%{http_code}' -T - $url/curl2 < '$up'}, 201, 'curl -T -';
    is md5_hex(content('d/curl2')), md5_hex($large), 'in chunks';
    is md5_hex(qx{curl -s -r 1000-200000 $url/curl}), md5_hex(substr $large, 1000, 199_001), 'curl -r';
}
$p->stop;
done_testing;
