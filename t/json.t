# SPDX-License-Identifier: BSD-2-Clause
#
# --json: what -t and --lint find, as one JSON object on standard output.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/lib";
use JSON::PP ();
use Test::More;
use Proxyd;

plan skip_all => 'proxyd only' if Proxyd::is_nginx();

my $p    = Proxyd->new;
my $dir  = $p->dir;
my $json = JSON::PP->new->utf8;

# Tests a configuration as it is; returns the status, the object and standard error.
sub tested {
    my ($text, @add) = @_;
    $p->write_file('proxyd.conf', $text);
    my $r = $p->run(add => ['-t', '--offline', '--json', @add]);
    like $r->{out}, qr/\A[^\n]+\n\z/, 'one line';
    my $o = eval { $json->decode($r->{out}) };
    ok $o, 'valid JSON' or diag "$@: $r->{out}";
    return ($r->{status}, $o || {}, $r->{err});
}

my ($status, $o, $err) = tested("events {}\n");
is $status, 0, 'status';
is_deeply $o, { ok => JSON::PP::true, file => "$dir/proxyd.conf", messages => [] }, 'nothing to say';
like $err, qr/test is successful/, 'people are told as ever';
($status, $o, $err) = tested("events {}\n", '-q');
is $err, '', 'but not with -q';

($status, $o, $err) = tested("events {}\nhttp {\n    sendfile maybe;\n    proxy_pas x;\n}\n");
is $status, 1, 'errors: status';
is_deeply $o, {
    ok => JSON::PP::false,
    file => "$dir/proxyd.conf",
    messages => [
        { level => 'emerg', file => "$dir/proxyd.conf", line => 3, column => 14, hint => undef,
            message => 'invalid value "maybe" in "sendfile" directive, it must be "on" or "off"' },
        { level => 'emerg', file => "$dir/proxyd.conf", line => 4, column => 5,
            hint => 'did you mean "proxy_pass"?', message => 'unknown directive "proxy_pas"' },
    ],
}, 'errors with their places and hints' or diag explain $o;
is scalar(() = $err =~ /^proxyd: \[emerg\]/mg), 2, 'people see them too';
like $err, qr/^proxyd: configuration file \S+ test failed$/m, 'and the last line';

# A word with everything in it that JSON and UTF-8 dislike.
($status, $o) = tested("events {}\nhttp { \"a\\\"b\\\\\\tc\xff\xc3\xa9\x01\"; }\n");
is $o->{messages}[0]{message}, "unknown directive \"a\"b\\\tc\x{fffd}\x{e9}\x01\"", 'escapes';

($status, $o) = tested("events {}\nhttp {}\nuser nosuch-user-here;\n");
is $status, 0, 'a warning: status';
ok $o->{ok}, 'ok';
is $o->{messages}[0]{level},   'warn',                               'its level';
is $o->{messages}[0]{message}, 'getpwnam("nosuch-user-here") failed', 'its text, without the place';
is $o->{messages}[0]{line},    3,                                    'its line';

$p->write_file('part.conf', "# nothing\nfrobnicate;\n");
($status, $o) = tested("events {}\nhttp {\n    include part.conf;\n}\n");
is $o->{messages}[0]{file}, "$dir/part.conf", 'an included file';
is $o->{messages}[0]{line}, 2,                'its line';

($status, $o) = tested("events {}\n", '-g', 'frobnicate;');
is $o->{messages}[0]{message}, 'unknown directive "frobnicate"', '-g';
is $o->{messages}[0]{file}, 'command line', '-g: the place';

($status, $o) = tested(join '', "events {}\nhttp {\n", map({ "frobnicate$_;\n" } 1 .. 30), "}\n");
is scalar @{ $o->{messages} }, 21, 'twenty errors, and that there are more';

unlink "$dir/proxyd.conf";
my $r = $p->run(add => ['-t', '--json']);
$o = eval { $json->decode($r->{out}) } || {};
is $r->{status}, 1, 'no file: status';
like $o->{messages}[0]{message}, qr{^open\(\) "\Q$dir\E/proxyd.conf" failed \(2: }, 'no file: text';
is $o->{messages}[0]{file}, undef, 'no file: no place';

# Without --offline what happens when files are opened belongs to it.
$p->write_file('proxyd.conf', "events {}\nerror_log /nosuch/dir/x.log;\n");
$r = $p->run(add => ['-t', '--json']);
$o = eval { $json->decode($r->{out}) } || {};
is $r->{status}, 1, 'a log that cannot be opened: status';
is_deeply $o->{messages}, [{ level => 'emerg', file => undef, line => undef, column => undef,
    hint => undef, message => 'open() "/nosuch/dir/x.log" failed (2: No such file or directory)' }],
    'a log that cannot be opened' or diag explain $o;

# The rules of --lint come the same way.
($status, $o, $err) = tested(<<'EOT', '--lint');
events {}
http {
    server {
        listen 80;
        location /i {
            alias /data/i/;
        }
    }
}
EOT
is $status, 0, '--lint: warnings do not fail';
is_deeply [map { [@$_{qw(level rule line column)}] } @{ $o->{messages} }],
    [['warn', 'alias-traversal', 6, 19]], '--lint: the rule is named' or diag explain $o;
ok $o->{messages}[0]{hint}, '--lint: the remedy' if @{ $o->{messages} };

# More than one block of memory (the sanitized program says what is left at its end).
($status, $o, $err) = tested("events {}\n" . join '', map { "unknown_directive_number_$_ x;\n" } 1 .. 19);
is scalar @{ $o->{messages} }, 19, 'a long report';
unlike $err, qr/Sanitizer/, 'a long report: nothing is left';
$p->discard;
done_testing;
