# SPDX-License-Identifier: BSD-2-Clause
#
# map: names, wildcards, regular expressions, values, volatile, include, and very large blocks.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/lib";
use Test::More;
use Proxyd;

# Under a sanitizer reading is slow.
my $names   = Proxyd::sanitized() ? 5_000 : 100_000;
my $regexes = Proxyd::sanitized() ? 100   : 1_000;

my $p = Proxyd->new(
    files => {
        'maps/a.map'   => "from-a 1;\nshared \"first\";\n",
        'maps/b.map'   => "from-b 2; # a comment\n~^reb(?<inc>.*) \"b-\$inc\";\n",
        'large.map'    => join('', map { "/Path/To/Item$_ v" . $_ % 50 . ";\n" } 1 .. $names),
        'regexes.map'  => join('', map {
            $_ % 2 ? "\"~^/app$_/(?<part$_>\\w*)\" \"app$_-\$part$_\";\n" : "\"~*/Page$_\\.html\$\" page$_;\n"
        } 1 .. $regexes),
    },
    conf => <<'EOT');
http {
    map $arg_k $plain { default D; a 1; B 2; "" empty; "two words" tw; \default d; \hostnames h; \volatile v; \include i;
        \~tilde t; \\back b; \a-b ab; *.x.y star; }
    map $arg_k $none { a 1; }
    map $arg_k $only_default { default "[$arg_j]"; }
    map "$arg_k-$arg_j" $two { a-b both; A-C upper; "~^(.)-(.)$" "$2$1"; default -; }
    map $arg_k $case { ~^Abc$ sensitive; ~*^abc$ insensitive; abc name; ABCD name2; }
    map $arg_k $capture { default -; "~^(?<first>\w+)\.(?<second>\w+)$" "$second.$first"; ~^pos(.)(.) "$2$1"; }
    map $arg_k $order { default 0; ~a 1; ~ab 2; ~abc 3; }
    map $arg_k $hosts { hostnames; default -; example.com exact; *.example.com head; .both.org both; www.example.* tail;
        *.sub.example.com subhead; www.* shorttail; ~^www\.re regex; ~dot\.$ dot; ~nodot$ nodot; }
    map $arg_k $volatile { volatile; default "$arg_j"; }
    map $arg_k $cached { default "$arg_j"; }
    map $plain $chain { 1 one; 2 two; default other; }
    map $arg_k $mixed { default "a${arg_j}b$uri-c"; }
    map $arg_k $included { include maps/*.map; default none; include maps/none-*.map; }
    map $arg_k $large { default none; include large.map; include regexes.map; }
    map $arg_k $redefined { default first; }
    map $arg_j $redefined { default second; }
    map $late $early { default "<$late>"; }
    map $arg_k $late { default late-$arg_k; }
    map $cycle $cycle_b { default x$cycle; }
    map $cycle_b $cycle { default y; }
    map $arg_k $arg_mapped { default "own"; }
    map_hash_max_size 4096;
    map_hash_bucket_size 128;
    server {
        listen 127.0.0.1:{{port}};
        location /plain { return 200 "$plain|$none|$only_default"; }
        location /two { return 200 "$two"; }
        location /case { return 200 "$case"; }
        location /capture { set $c $capture; return 200 "$c|$first|$second|$1"; }
        location /order { return 200 "$order"; }
        location /hosts { return 200 "$hosts"; }
        location /volatile { set $a "$volatile$cached"; set $args "j=new"; return 200 "$a|$volatile|$cached"; }
        location /chain { return 200 "$chain"; }
        location /mixed { return 200 "$mixed"; }
        location /included { return 200 "$included"; }
        location /large { return 200 "$large"; }
        location /redefined { return 200 "$redefined|$early|$arg_mapped"; }
        location /cycle { return 200 "[$cycle]"; }
        location /if { if ($plain = 1) { return 200 "if-one"; } return 200 "if-other"; }
        location /redirect { set $seen $cached; rewrite ^ /after?j=2 last; }
        location /after { return 200 "$seen|$cached|$volatile"; }
        location /err { error_page 404 = /errpage; return 404; }
        location /errpage { return 200 "$order"; }
        location /proxy { proxy_pass http://127.0.0.1:{{port:app}}; proxy_set_header X-Map "$plain,$two"; }
    }
}
EOT
$p->echo_origin('app');
$p->start;

sub body {
    my ($uri) = @_;
    $uri =~ s/ /%20/g;
    return $p->get($uri)->body;
}

my @rows = (
    # names do not heed case; arguments are not decoded, so a blank cannot come
    ['/plain?k=a'       => '1|1|[]'],
    ['/plain?k=A&j=x'   => '1|1|[x]'],
    ['/plain?k=b'       => '2||[]'],
    ['/plain'           => 'empty||[]'],
    ['/plain?k=zz'      => 'D||[]'],
    # special words behind a backslash are values; the backslash goes
    ['/plain?k=default' => 'd||[]'],
    ['/plain?k=hostnames' => 'h||[]'],
    ['/plain?k=volatile' => 'v||[]'],
    ['/plain?k=include' => 'i||[]'],
    ['/plain?k=~tilde'  => 't||[]'],
    ['/plain?k=\\back'  => 'D||[]', 'one backslash in the file is the mark, not a value'],
    ['/plain?k=back'    => 'b||[]'],
    ['/plain?k=a-b'     => 'ab||[]'],
    ['/plain?k=*.x.y'   => 'star||[]', 'without hostnames a star is a star'],
    ['/plain?k=q.x.y'   => 'D||[]'],
    ['/two?k=a&j=b'     => 'both'],
    ['/two?k=a&j=c'     => 'upper'],
    ['/two?k=x&j=y'     => 'yx'],
    ['/two?k=xx&j=y'    => '-'],
    ['/case?k=Abc'      => 'name', 'a name comes before all regexes'],
    ['/case?k=abcd'     => 'name2'],
    ['/order?k=abc'     => '1', 'the first regex counts'],
    ['/order?k='        => '0'],
    ['/order?k=zz'      => '0'],
    ['/capture?k=aa.bb' => 'bb.aa|aa|bb|aa', 'captures live on'],
    ['/capture?k=posxy' => 'yx|||x'],
    ['/capture?k=-'     => '-|||'],
    ['/hosts?k=example.com'        => 'exact'],
    ['/hosts?k=EXAMPLE.COM.'       => 'exact', 'case and a final dot do not matter'],
    ['/hosts?k=a.b.example.com'    => 'head'],
    ['/hosts?k=x.sub.example.com'  => 'subhead', 'the longest wildcard'],
    ['/hosts?k=sub.example.com'    => 'head'],
    ['/hosts?k=both.org'           => 'both'],
    ['/hosts?k=x.both.org'         => 'both'],
    ['/hosts?k=www.example.net'    => 'tail'],
    ['/hosts?k=www.example.com'    => 'head', 'a head before a tail'],
    ['/hosts?k=www.net'            => 'shorttail'],
    ['/hosts?k=www.re'             => 'shorttail', 'wildcards before regexes'],
    ['/hosts?k=www'                => '-'],
    ['/hosts?k=dot.'               => '-', 'the final dot is gone for regexes too'],
    ['/hosts?k=nodot.'             => 'nodot'],
    ['/hosts?k=' . 'x.' x 300 . 'example.com' => 'head', 'a long name'],
    ['/volatile?k=1&j=old'         => 'oldold|new|old'],
    ['/chain?k=a'                  => 'one'],
    ['/chain?k=c'                  => 'other'],
    ['/mixed?j=J'                  => 'aJb/mixed-c'],
    ['/included?k=from-a'          => '1'],
    ['/included?k=shared'          => 'first'],
    ['/included?k=FROM-B'          => '2'],
    ['/included?k=rebXX'           => 'b-XX'],
    ['/included?k=x'               => 'none'],
    ['/large?k=/path/to/item1'     => 'v1'],
    ["/large?k=/path/to/item$names" => 'v' . $names % 50],
    ['/large?k=/path/to/item0'     => 'none'],
    ['/large?k=/app1/zz'           => 'app1-zz'],
    ['/large?k=/app' . ($regexes - 1) . '/end' => 'app' . ($regexes - 1) . '-end'],
    ['/large?k=/PAGE2.html'        => 'page2'],
    ["/large?k=x/page$regexes.HTML" => "page$regexes"],
    ['/large?k=' . 'n' x 2000      => 'none'],
    ['/redefined?k=K&mapped=req'   => 'second|<late-K>|own', 'the last definition counts; a map may stand before what it uses'],
    ['/cycle'                      => '[y]', 'a circle ends'],
    ['/if?k=A'                     => 'if-one'],
    ['/if?k=2'                     => 'if-other'],
    ['/redirect?j=1'               => '1|1|2', 'values outlive an internal redirect, volatile ones do not'],
    ['/err?k=ab'                   => '0', 'error_page leaves no arguments'],
);
for my $row (@rows) {
    my ($uri, $want, $why) = @$row;
    is body($uri), $want, substr($uri, 0, 60) . ($why ? ": $why" : '');
}
is Proxyd::report_header(Proxyd::report($p->get('/proxy?k=a&j=b')), 'X-Map'), '1,both', 'in a field for an upstream';
like $p->error_log, qr/\[error\].* cycle while evaluating variable "cycle/, 'the circle is told';
is $p->head('/plain?k=a')->status, 200, 'HEAD';
my $x = $p->raw('main', "GET /order?k=a HTTP/1.1\r\nHost: h\r\n\r\nGET /capture?k=zz HTTP/1.1\r\nHost: h\r\n\r\n", count => 2);
is join(' ', map { $_->body } @{ $x->{responses} }), '1 -|||', 'nothing stays from one request to the next';

# A new file is read at a reload; a broken one leaves everything as it was.
$p->write_file('maps/a.map', "from-a new;\n");
ok $p->reload, 'a reload';
is body('/included?k=from-a'), 'new', 'takes the included file anew';
$p->write_file('maps/a.map', "from-a 1;\nfrom-a 2;\n");
ok $p->reload(fails => 1), 'a reload that fails';
like $p->error_log, qr{\[emerg\].* conflicting parameter "from-a" in \S+/maps/a\.map:2$}m, 'says where';
is body('/included?k=from-a'), 'new', 'changes nothing';
$p->expect_log(qr/conflicting parameter/);
$p->stop;
done_testing;
