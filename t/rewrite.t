# SPDX-License-Identifier: BSD-2-Clause
#
# What the rewrite module adds to nginx's: elif and else, conditions combined with and, or, not and
# parentheses; ${env:NAME}; include … optional. What it shares with nginx is in differential_rewrite.t; here
# are the parts of that which a build without nginx at hand must show too.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/lib";
use Test::More;
use Proxyd;

plan skip_all => 'proxyd only' if Proxyd::is_nginx();

# --- conditions -----------------------------------------------------------------------------------
# Condition; then what holds for the arguments a, b, c: those of which it is true.
my @all   = map { my $n = $_; join '', map { $n & (1 << $_) ? qw(a b c)[$_] : () } 0 .. 2 } 0 .. 7;
my @table = (
    # nginx's own forms
    ['($arg_a)'               => sub { /a/ }],
    ['( $arg_a )'             => sub { /a/ }],
    ['($arg_a = 1)'           => sub { /a/ }],
    ['($arg_a != 1)'          => sub { !/a/ }],
    ['($args ~ (a|b)=1)'      => sub { /[ab]/ }],
    ['($args ~ "(a|b)=1")'    => sub { /[ab]/ }],
    # two
    ['($arg_a and $arg_b)'         => sub { /a/ && /b/ }],
    ['($arg_a or $arg_b)'          => sub { /a/ || /b/ }],
    ['($arg_a = 1 and $arg_b = 1)' => sub { /a/ && /b/ }],
    ['($arg_a = 1 or $arg_b != 1)' => sub { /a/ || !/b/ }],
    ['($arg_a and $arg_b != 1)'    => sub { /a/ && !/b/ }],
    ['($arg_a != 1 and $arg_b)'    => sub { !/a/ && /b/ }],
    ['( $arg_a and $arg_b )'       => sub { /a/ && /b/ }],
    # not, and what binds closer
    ['(not $arg_a)'                       => sub { !/a/ }],
    ['(not not $arg_a)'                   => sub { /a/ }],
    ['(not $arg_a = 1)'                   => sub { !/a/ }],
    ['(not $arg_a != 1)'                  => sub { /a/ }],
    ['(not $arg_a and $arg_b)'            => sub { !/a/ && /b/ }],
    ['(not ($arg_a and $arg_b))'          => sub { !(/a/ && /b/) }],
    ['(not ($arg_a or $arg_b) and $arg_c)' => sub { !(/a/ || /b/) && /c/ }],
    ['($arg_a or $arg_b and $arg_c)'      => sub { /a/ || /b/ && /c/ }],
    ['($arg_a and $arg_b or $arg_c)'      => sub { /a/ && /b/ || /c/ }],
    ['(($arg_a or $arg_b) and $arg_c)'    => sub { (/a/ || /b/) && /c/ }],
    ['( ( $arg_a or $arg_b ) and $arg_c )' => sub { (/a/ || /b/) && /c/ }],
    ['($arg_a and ($arg_b or $arg_c))'    => sub { /a/ && (/b/ || /c/) }],
    ['($arg_a and (not $arg_b or not ($arg_c)))' => sub { /a/ && (!/b/ || !/c/) }],
    ['((($arg_a)))'                       => sub { /a/ }],
    ['(($arg_a = 1))'                     => sub { /a/ }],
    ['($arg_a) and ($arg_b)'              => sub { /a/ && /b/ }],
    ['($arg_a and $arg_b and $arg_c)'     => sub { $_ eq 'abc' }],
    ['($arg_a or $arg_b or $arg_c)'       => sub { $_ ne '' }],
    # regular expressions and their parentheses
    ['($args ~ (a|b)=1 and $arg_c)'       => sub { /[ab]/ && /c/ }],
    ['($arg_c and $args ~ (a|b)=1)'       => sub { /[ab]/ && /c/ }],
    ['(($args ~ (a|b)=1) and $arg_c)'     => sub { /[ab]/ && /c/ }],
    ['(not ($args ~ ^(a|b)=(1)))'         => sub { !/^[ab]/ }],
    ['(not ($args ~ "^(a|b)=(1)"))'       => sub { !/^[ab]/ }],
    ['($args !~ a=1 and $args !~* B=1)'   => sub { !/[ab]/ }],
    ['($args ~ "=1)?$" and $arg_a)'       => undef],
    # words in quotes are values
    ['($arg_a = "and" or $arg_b)'         => sub { /b/ }],
    ['($arg_a = and)'                     => sub { 0 }],
    ['($arg_a = or or $arg_b)'            => sub { /b/ }],
    ['($arg_a = "1" and $arg_b = "1")'    => sub { /a/ && /b/ }],
    ['($arg_a = "" and $arg_b = "")'      => sub { !/[ab]/ }],
    # files
    ['(-f {{dir}}/html/f and $arg_a)'     => sub { /a/ }],
    ['($arg_a and -f {{dir}}/html/f)'     => sub { /a/ }],
    ['(!-f {{dir}}/html/f or $arg_a)'     => sub { /a/ }],
    ['(-d {{dir}}/html and -e {{dir}}/html/f and not -x {{dir}}/html/f)' => sub { 1 }],
    # the words over lines
    ["(\n\t\$arg_a\n\tand\n\t\$arg_b\n)"  => sub { /a/ && /b/ }],
);
my $conf = '';
for my $i (0 .. $#table) {
    next if !$table[$i][1];
    $conf .= "        location = /c$i { if $table[$i][0] { return 200 yes; } return 200 no; }\n";
}

my $p = Proxyd->new(files => { 'html/f' => "f\n", 'part.conf' => 'return 200 "from part";' },
    env => { T_WORD => 'word', T_TRICKY => 'a "b" ; } { # \' $arg_a', T_EMPTY => '', T_PORTS => '1' },
    conf => <<"EOT");
http {
    root {{dir}}/html;
    uninitialized_variable_warn off;
    server {
        listen 127.0.0.1:{{port}};
$conf
        location = /chain {
            set \$log start;
            if (\$arg_a) { set \$log "\$log a"; }
            elif (\$arg_b) { set \$log "\$log b"; }
            elif (\$arg_c and not \$arg_d) { set \$log "\$log c"; }
            else { set \$log "\$log else"; }
            return 200 "\$log end";
        }
        location = /once {
            # what the first arm sets must not make the second one true
            set \$n "";
            if (\$arg_a) { set \$n 1; }
            elif (\$n) { set \$n 2; }
            if (\$n) { return 200 "n \$n"; }
            else { return 200 "none"; }
        }
        location /settings/ {
            alias {{dir}}/html/;
            add_header X-Out 1;
            if (\$arg_a) { add_header X-A 1; }
            else { add_header X-Else 1; }
            if (\$arg_b) { add_header X-B 1; }
            elif (\$arg_c) { add_header X-C 1; }
        }
        location = /last {
            if (\$arg_a) { rewrite ^ /target last; }
            else { set \$x 1; break; }
            return 200 "not reached";
        }
        location = /target { return 200 "target \$x"; }
        location = /capture {
            if (\$args ~ ^x=(.) and \$args ~ y=(.)) { return 200 "both \$1"; }
            elif (\$args ~ ^x=(.)) { return 200 "one \$1"; }
            else { return 200 "<\$1>"; }
        }
        location = /short {
            # the second is not asked, so its captures are not there
            if (\$args ~ ^x=(.) or \$args ~ y=(.)) { return 200 "<\$1>"; }
        }
        if (\$arg_srv = 1) { return 200 "srv if"; }
        elif (\$arg_srv = 2) { return 200 "srv elif"; }
        else { set \$srv else; }
        location = /srv { return 200 "\$srv"; }
        location = /env { return 200 "\${env:T_WORD} \${env:T_NONE:-default} \${env:T_EMPTY:-empty} <\${env:T_EMPTY}>"; }
        location = /env2 { return 200 \${env:T_WORD}\${env:T_WORD:-x}\${env:T_NONE:-}; }
        location = /tricky { return 200 \${env:T_TRICKY}; }
        location = /opt { include none.conf optional; include part.conf optional; }
        location = /opt2 { include no*.conf optional; include part.conf; }
    }
    map \$arg_m \$m { include none.map optional; default d; \${env:T_WORD} "is \${env:T_WORD}"; include some.map optional; }
    server { listen 127.0.0.1:{{port}}; server_name map.test; return 200 \$m; }
}
EOT
$p->write_file('some.map', "other \"in map\";\n");
{
    local %ENV = (%ENV, %{ $p->{env} });
    is $p->run(add => ['-t'])->{status}, 0, 'the configuration is fine';
}
$p->start;
for my $i (0 .. $#table) {
    my ($condition, $holds) = @{ $table[$i] };
    next if !$holds;
    my (@got, @want);
    for (@all) {
        my $args = join '&', map { "$_=1" } split //;
        my $body = $p->get("/c$i" . ($args ne '' ? "?$args" : ''))->body;
        push @got, $_ if $body eq 'yes';
        push @want, $_ if $holds->();
    }
    is "@got", "@want", $condition =~ s/\s+/ /gr;
}

my %get = (
    '/chain'             => 'start else end',
    '/chain?a=1'         => 'start a end',
    '/chain?b=1'         => 'start b end',
    '/chain?c=1'         => 'start c end',
    '/chain?c=1&d=1'     => 'start else end',
    '/chain?a=1&b=1&c=1' => 'start a end',
    '/once'              => 'none',
    '/once?a=1'          => 'n 1',
    '/last?a=1'          => 'target ',
    '/capture?x=1&y=2'   => 'both 2',
    '/capture?x=1'       => 'one 1',
    '/capture?z=1'       => '<>',
    '/short?x=1&y=2'     => '<1>',
    '/short?y=2'         => '<2>',
    '/srv?srv=1'         => 'srv if',
    '/srv?srv=2'         => 'srv elif',
    '/srv'               => 'else',
    '/env'               => 'word default empty <>',
    '/env2'              => 'wordword',
    '/tricky?a=1'        => 'a "b" ; } { # \' 1',
    '/opt'               => 'from part',
    '/opt2'              => 'from part',
);
is $p->get($_)->body, $get{$_}, $_ for sort keys %get;
is $p->get('/last')->status, 404, '/last: break in else';
is $p->get("/?m=$_->[0]", host => 'map.test')->body, $_->[1], "map: $_->[0]"
    for ['word', 'is word'], ['other', 'in map'], ['x', 'd'];

sub fields { my ($uri) = @_; my $r = $p->get($uri); return join ' ', grep { defined $r->header($_) } qw(X-Out X-A X-Else X-B X-C) }
is fields('/settings/f'),         'X-Else',  'settings: else';
is fields('/settings/f?a=1'),     'X-A',     'settings: if';
is fields('/settings/f?a=1&b=1'), 'X-B',     'settings: the last true one';
is fields('/settings/f?c=1'),     'X-C',     'settings: elif, over else';
is fields('/settings/f?b=1&c=1'), 'X-B',     'settings: the first of a chain';
$p->stop;

# --- what cannot be -------------------------------------------------------------------------------
sub says {
    my ($text, $want, $name) = @_;
    my $t = Proxyd->new(conf => "http {\n    server {\n        listen 127.0.0.1:{{port}};\n$text\n    }\n}\n");
    my $r = $t->run(add => ['-t']);
    is $r->{status}, 1, ($name // $text) . ': status';
    like $r->{err}, qr/\[emerg\] $want in \S+proxyd\.conf:\d+$/m, $name // $text;
    $t->discard;
}
for my $row (
    ['($arg_a and)'             => 'unexpected "and\)" in condition'],
    ['($arg_a and )'            => 'unexpected "\)" in condition'],
    ['(and $arg_a)'             => 'invalid condition "and"'],
    ['($arg_a or or $arg_b)'    => 'invalid condition "or"'],
    ['($arg_a $arg_b and $arg_c)' => 'unexpected "\$arg_b" in condition'],
    ['(($arg_a and $arg_b)'     => 'unexpected end of condition'],
    ['($arg_a and $arg_b))'     => 'unexpected "\)" in condition'],
    ['($arg_a and $arg_b = )'   => 'unexpected "\)" in condition'],
    ['($arg_a and "x")'         => 'invalid condition "x"'],
    ['(not)'                    => 'invalid condition "not"'],
    ['(not )'                   => 'invalid condition "not"'],
    ['(-f and)'                 => undef],
    ['(-q a and $arg_b)'        => 'invalid condition "-q"'],
    ['($arg_a == 1 and $arg_b)' => 'unexpected "==" in condition'],
    ['($arg_a == 1)'            => 'unexpected "==" in condition'],
    ['($arg_a and $arg_b ~ "(")' => 'pcre2_compile\(\) failed.*'],
    ['$arg_a and $arg_b'        => 'invalid condition "\$arg_a"'],
    ['(' . '(' x 20 . '$arg_a' . ')' x 20 . ')' => 'too many nested parentheses in condition'],
    ['()'                       => 'invalid condition "\)"'],
    ['( )'                      => 'invalid condition "\)"'],
    ['('                        => 'invalid condition ""'],
    ['($arg_a ~ a) b'           => 'invalid condition "b"'],
    ['(())'                     => 'invalid condition "\)?"|unexpected.*'],
) {
    says("if $row->[0] { }", $row->[1]) if defined $row->[1];
}
says('else { }', '"else" directive must follow "if" or "elif"');
says('elif ($arg_a) { }', '"elif" directive must follow "if" or "elif"');
says('if ($arg_a) { } set $x 1; else { }', '"else" directive must follow "if" or "elif"');
says('if ($arg_a) { } root /x; elif ($arg_b) { }', '"elif" directive must follow "if" or "elif"');
says('if ($arg_a) { } else { } else { }', '"else" directive must follow "if" or "elif"');
says('if ($arg_a) { } else { } elif ($arg_a) { }', '"elif" directive must follow "if" or "elif"');
says('if ($arg_a) { } location / { else { } }', '"else" directive must follow "if" or "elif"');
says('if ($arg_a) { } else x { }', 'invalid number of arguments in "else" directive');
says('if ($arg_a) { } else if ($arg_b) { }', '"else if" is written "elif"');
says('if ($arg_a) { } elif { }', 'invalid number of arguments in "elif" directive');
says('if ($arg_a) { else { } }', '"else" directive is not allowed here');
says('root "${env:T_SURELY_NOT_SET}";', 'environment variable "T_SURELY_NOT_SET" is not set');
says('root ${env:T_SURELY_NOT_SET}/x;', 'environment variable "T_SURELY_NOT_SET" is not set');
says('location ${env:T_SURELY_NOT_SET} { root /x; }', 'environment variable "T_SURELY_NOT_SET" is not set');
says('root ${env:};', 'invalid name of an environment variable in "\$\{env:\}"');
says('root ${env:1A};', 'invalid name of an environment variable in "\$\{env:1A\}"');
says('root ${env:A-B:-x};', 'invalid name of an environment variable in "\$\{env:A-B:-x\}"');
says('root ${env:HOME;', 'the closing bracket in "\$\{env:HOME" is missing');
says('include none.conf opt;', 'invalid number of arguments in "include" directive');
says('include none.conf;', 'open\(\) "\S+none.conf" failed \(2: No such file or directory\)');
says('types { include none.conf; }', 'open\(\) "\S+none.conf" failed \(2: No such file or directory\)');

# After an error in the first arm the others are read too, and not reported as orphans.
{
    my $t = Proxyd->new(conf => "http {\n server {\n listen 127.0.0.1:{{port}};\n"
            . "if (\$arg_a = 1 2) { }\nelif (\$arg_b) { }\nelse { frobnicate; }\n}\n}\n");
    my $r = $t->run(add => ['-t']);
    is join('|', $r->{err} =~ /\[emerg\] (.*?) in /g),
        'invalid condition "$arg_a"|unknown directive "frobnicate"', 'a chain after an error'
        or diag $r->{err};
    $t->discard;
}

# --- the environment over a reload and for workers ------------------------------------------------
{
    my $q = Proxyd->new(env => { T_NAME => 'kept' }, conf => <<'EOT');
http { server { listen 127.0.0.1:{{port}}; location / { return 200 "${env:T_NAME}"; } } }
EOT
    $q->start;
    is $q->get('/')->body, 'kept', 'a value of the environment';
    ok $q->reload, 'reload';
    is $q->get('/')->body, 'kept', 'after a reload';
    my ($worker) = $q->workers;
    open my $fh, '<', "/proc/$worker/environ" or die $!;
    my $environ = do { local $/; <$fh> };
    # /proc shows the memory that the environment was in at the start; it may be overwritten
    ok defined $environ, 'a worker has an environment';
    $q->stop;
}
done_testing;
