# SPDX-License-Identifier: BSD-2-Clause
#
# --lint: each rule where it must speak and where it must not; what silences it; what is printed.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/lib";
use Test::More;
use Proxyd;

plan skip_all => 'proxyd only' if Proxyd::is_nginx();

my $p = Proxyd->new;

# Rules that speak, as "RULE:LINE …", and the result. The text stands in a server unless it begins with "http".
sub linted {
    my ($text, @add) = @_;
    $text = "http {\nserver {\nlisten 8080;\n$text\n}\n}" unless $text =~ /^(?:http|stream)\b/;
    $p->write_file('proxyd.conf', "events {} $text\n");
    my $r = $p->run(add => ['--lint', '--offline', @add]);
    my @found = map { /^proxyd: \[warn\] ([a-z0-9-]+): .* in \S+proxyd\.conf:(\d+)$/ ? "$1:$2" : () }
        split /\n/, $r->{err};
    return (join(' ', @found), $r);
}

# Rule => [texts in which it speaks (once, and no other)], [texts in which nothing speaks]. A text may begin
# with names of directives in angle brackets, without which it is passed over.
my %rules = (
    'alias-traversal' => [
        ['location /i { alias /data/i/; }', 'location ^~ /i { alias /data/i/; }',
            'location /a/ { location /a/i { alias /data/i/; } }'],
        ['location /i/ { alias /data/i/; }', 'location /i { alias /data/i; }',
            'location = /i { alias /data/i/; }', 'location ~ ^/i(/.*)$ { alias /data/i/; }'],
    ],
    'alias-slash' => [
        ['location /i/ { alias /data/i; }', 'location ^~ /i/ { alias /data/i; }'],
        ['location /i/ { alias /data/$arg_x; }', 'location = /i/ { alias /data/i; }'],
    ],
    'proxy-pass-slash' => [
        ['location /x { proxy_pass http://127.0.0.1/; }', 'location /x { proxy_pass http://127.0.0.1/y/; }',
            'location /x/ { proxy_pass http://127.0.0.1/y; }', 'location / { proxy_pass http://127.0.0.1/y; }',
            'location /x/ { proxy_pass http://unix:/run/s:/y; }'],
        ['location /x { proxy_pass http://127.0.0.1; }', 'location /x/ { proxy_pass http://127.0.0.1/; }',
            'location /x { proxy_pass http://127.0.0.1/y; }', 'location = /x { proxy_pass http://127.0.0.1/; }',
            'location /x/ { proxy_pass http://127.0.0.1:$server_port/y; }', 'location /x/ { proxy_pass http://unix:/run/s; }',
            'location /x/ { proxy_pass http://127.0.0.1/y?a=; }',
            'location /x { rewrite ^/x(.*)$ /z$1 break; proxy_pass http://127.0.0.1/; }'],
    ],
    'regex-dot' => [
        ['location ~ .php$ { }', 'location ~* .(png|jpe?g|gif)$ { }', 'location ~ ^/x.(?:html|txt)$ { }',
            'location ~ /.ht { deny all; }', 'location ~ ^/(a.css|b)$ { }', 'location ~.php$ { }',
            'rewrite ^/(.*).html$ /$1;', 'server_name ~^www.example\.com$;', 'server_name a ~^(?<s>.+).example\.com$;'],
        ['location ~ \.php$ { }', 'location ~ ^/.*$ { }', 'location ~ ^/a.+b$ { }', 'location ~ [.]php$ { }',
            'location ~ ^/x/.{3}$ { }' =~ s/\S*\{3\}\S*/"$&"/r, 'location = /a.php { }', 'location /x.php { }',
            'location ~ \.(png|gif)$ { }', 'rewrite ^/(.*)\.html$ /$1;', 'server_name ~^(www\.)?example\.com$ b.example.com;',
            'location ~ /\.ht { deny all; }', 'location ~ ^/(.*)$ { }', 'location ~ ^/a.b$ { }'],
    ],
    'regex-anchor' => [
        ['location ~ /admin { }', 'location ~* /wp-admin/x { }', 'rewrite /old /new;', 'server_name ~example;',
            'server_name ~www\.example\.com;'],
        ['location ~ ^/admin { }', 'location ~ /admin$ { }', 'location /admin { }', 'location ~ /\.git { }',
            'location ~ /(a|b)/ { }', 'rewrite ^/old$ /new;', 'rewrite ^ /new;', 'server_name ~^www\d+\.;',
            'server_name ~\.example\.com$;', 'location ~ \.php { }'],
    ],
    'root-repeated' => [
        ['root /srv/a; location /x { root /srv/a; }',
            'location /x { root /srv/a; } location /y { root /srv/a; } location /z { root /srv/a; }'],
        ['root /srv/a; location /x { root /srv/b; }', 'location /x { root /srv/a; } location /y { root /srv/a; }',
            'location /x { root /srv/a; } location /y { root /srv/b; } location /z { root /srv/c; }'],
    ],
    'root-exposed' => [
        ['root /;', 'root /etc;', 'root /etc/nginx/;', 'location / { root /home; }', 'location /x/ { alias /; }',
            'location /conf/ { alias /etc/; }'],
        ['root /srv/www;', 'location /usr/share/ { root /; }', 'location = /hosts { alias /etc/; }',
            'location /x/ { alias /var/www/; }'],
    ],
    'capture-without-regex' => [
        ['return 200 "costs $5";', 'set $price $9;', 'add_header X-Price "$1";', 'location /x { root /srv/$2; }'],
        ['location ~ ^/(a)$ { return 200 $1; }', 'rewrite ^/(a)$ /b; set $x $1;',
            'if ($uri ~ (a)) { return 200 $1; }', 'server_name ~^(.+)\.test$; root /srv/$1;',
            "http {\nmap \$uri \$m { ~(a) \$1; }\nserver { listen 8080; return 200 \"\$m \$1\"; } }"],
    ],
    'header-lost' => [
        ['add_header A 1; location /x { add_header B 2; }', 'add_header A 1; add_header C 2; location /x { add_header C 3; }',
            "http { add_header A 1; server { listen 8080;\nlocation / { add_header B 1; } } }",
            'proxy_set_header A 1; location /x { proxy_set_header B 2; proxy_pass http://127.0.0.1; }',
            'location /x { add_header A 1; location /x/y { add_header B 1; } }'],
        ['add_header A 1; location /x { add_header A 2; add_header B 3; }', 'add_header A 1; location /x { expires 1d; }',
            'location /x { add_header A 1; } location /y { add_header B 1; }', 'add_header A 1; add_header B 1;',
            'add_header X-a 1; location /x { add_header x-A 2; }'],
    ],
    'host-spoofing' => [
        ['location / { proxy_set_header Host $http_host; proxy_pass http://127.0.0.1; }',
            'proxy_set_header host ${http_host};', 'return 301 https://$http_host$request_uri;',
            'rewrite ^ https://$http_host/ permanent;', 'root /srv/$http_host;',
            '<proxy_cache_key>proxy_cache_key $http_host$request_uri;'],
        ['proxy_set_header Host $host;', 'proxy_set_header X-Forwarded-Host $http_host;', 'proxy_set_header Host $http_hosts;',
            'return 301 https://$host$request_uri;'],
    ],
    'response-splitting' => [
        ['return 301 https://$host$uri;', 'return 302 $document_uri;', 'return https://$host$uri;', 'rewrite ^ $uri/x redirect;',
            'rewrite ^ https://h$uri;', 'add_header X-Uri $uri;', 'proxy_set_header X-Uri "${uri}";',
            'location ~ ^/a/([^/]*)$ { return 301 /b/$1; }', 'location ~ "^/a/(?<n>[^/]*)$" { add_header X-N $n; }'],
        ['return 301 https://$host$request_uri;', 'return 200 "$uri";', 'return 404 $uri;', 'rewrite ^ /x$uri last;',
            'add_header X-Uri $request_uri;', 'rewrite ^/(.*)$ /x/$1 permanent;', 'location ~ ^/a/(.*)$ { return 301 /b/$1; }',
            'location ~ ^/a/([^/\s]*)$ { return 301 /b/$1; }', 'location ~ ^/a/([a-z]+)$ { return 301 /b/$1; }',
            'return 301 https://$host$urim;' =~ s/\$urim/\$request_uri/r],
    ],
    'tunnel-open' => [
        ['<tunnel_pass> tunnel_pass;', '<tunnel_pass> location / { tunnel_pass $host:443; }',
            '<tunnel_pass> location / { tunnel_pass; tunnel_read_timeout 1s; }'],
        ['<tunnel_pass> tunnel_pass 127.0.0.1:22;', '<tunnel_pass> if ($request_port != 443) { return 502; } tunnel_pass;',
            '<tunnel_pass> allow 10.0.0.0/8; deny all; tunnel_pass;',
            '<tunnel_pass> tunnel_allow_upstream $arg_a; location / { tunnel_pass; }',
            '<tunnel_pass> if ($request_port != 443) { return 502; } location / { tunnel_pass; }'],
    ],
    'merge-slashes-off' => [
        ['merge_slashes off; location /admin { deny all; }', 'merge_slashes off; location /i/ { internal; }'],
        ['merge_slashes on; location /admin { deny all; }', 'merge_slashes off; location /x { }',
            'merge_slashes off; location / { deny all; }'],
    ],
    'allow-without-deny' => [
        ['allow 10.0.0.0/8;', 'location / { allow 10.0.0.0/8; allow 127.0.0.1; }', 'deny all; location /x { allow 127.0.0.1; }'],
        ['allow 10.0.0.0/8; deny all;', 'deny all; location /x { allow all; }', 'deny 10.0.0.1;'],
    ],
    'satisfy-any' => [
        ['satisfy any;', 'satisfy any; allow 127.0.0.1; deny all;', '<auth_basic>satisfy any; auth_basic x; auth_basic_user_file f;'],
        ['satisfy all;', '<auth_basic>satisfy any; allow 127.0.0.1; deny all; auth_basic x; auth_basic_user_file f;',
            '<auth_request>satisfy any; allow 127.0.0.1; deny all; location /x { auth_request /a; }'],
    ],
    'status-exposed' => [
        ['location = /status { stub_status; }', 'stub_status;'],
        ['location = /status { stub_status; allow 127.0.0.1; deny all; }', 'deny all; location /s { stub_status; }',
            'location /s { internal; stub_status; }', "http { server { listen 127.0.0.1:8080; location /s { stub_status; } } }",
            "http { server { listen unix:/run/s; listen [::1]:80; stub_status; } }"],
    ],
    'proxy-target' => [
        ['resolver 127.0.0.1; location / { proxy_pass http://$arg_host; }', 'resolver 127.0.0.1; location / { proxy_pass http://$http_host/x; }',
            'resolver 127.0.0.1; location / { proxy_pass $scheme://$host$uri; }', 'resolver 127.0.0.1; location ~ ^/p/(.*)$ { proxy_pass http://$1; }',
            'resolver 127.0.0.1; location ~ ^/p/(?<to>[^/]+)/ { proxy_pass http://$to/; }', 'resolver 127.0.0.1; location / { proxy_pass http://x.$cookie_c; }'],
        ['resolver 127.0.0.1; location /x { internal; proxy_pass http://$arg_host; }', 'location / { proxy_pass http://127.0.0.1/$arg_x; }',
            'location / { proxy_pass http://127.0.0.1$request_uri; }', 'resolver 127.0.0.1; location ~ ^/p/(\w+)/ { proxy_pass http://$1.internal/; }',
            'location ~ ^/p/(.*)$ { proxy_pass http://127.0.0.1/$1; }', 'resolver 127.0.0.1; set $b backend.test; location / { proxy_pass http://$b; }'],
    ],
    'tls-protocols' => [
        ['<ssl_protocols>ssl_protocols TLSv1 TLSv1.1 TLSv1.2;', '<ssl_protocols>ssl_protocols SSLv3 TLSv1.3;'],
        ['<ssl_protocols>ssl_protocols TLSv1.2 TLSv1.3;'],
    ],
    'if-settings' => [
        ['location / { if ($arg_a) { add_header X 1; } }', 'location / { if ($arg_a) { set $x 1; root /srv/x; } }',
            'location / { if ($arg_a) { return 403; } else { expires 1d; } }'],
        ['location / { if ($arg_a) { return 403; } }', 'location / { if ($arg_a) { set $x 1; rewrite ^ /x last; } }',
            'location / { if ($arg_a) { access_log off; break; } }', 'if ($arg_a) { return 403; }',
            'location / { if ($arg_a) { } else { } }'],
    ],
    'if-try-files' => [
        ['location / { try_files $uri /x; if ($arg_a) { set $b 1; } }', 'location / { if ($arg_a) { return 403; } elif ($arg_b) { set $b 1; } try_files $uri /x; }'],
        ['location / { try_files $uri /x; if ($arg_a) { return 403; } }', 'location / { if ($arg_a) { set $b 1; } }',
            'try_files $uri /x; if ($arg_a) { set $b 1; }'],
    ],
    'server-name-underscore' => [
        ["http { server { listen 80; server_name a; }\nserver { listen 80; server_name _; } }",
            "http { server { listen 80; server_name _; }\nserver { listen 80 default_server; server_name a; } }",
            "http { server { server_name a; }\nserver { listen *:80; server_name _; } }"],
        ["http { server { listen 80 default_server; server_name _; }\nserver { listen 80; server_name a; } }",
            "http { server { listen 80; server_name _; }\nserver { listen 80; server_name a; } }",
            "http { server { listen 81; server_name a; }\nserver { listen 80; server_name _; } }",
            "http { server { listen 80; server_name a; }\nserver { listen 80 default_server; server_name _ b; } }"],
    ],
    'resolver-missing' => [
        ['set $b backend.test; location / { proxy_pass http://$b; }', 'location / { set $b http://backend.test; proxy_pass $b; }',
            "http { map \$uri \$b { default 127.0.0.1; /x name.test; }\nserver { listen 8080; location / { proxy_pass http://\$b:80; } } }",
            'server_name ~^(?<sub>\w+)\.test$; location / { proxy_pass http://$sub.internal; }'],
        ['resolver 127.0.0.1; set $b backend.test; location / { proxy_pass http://$b; }', 'location / { proxy_pass http://backend.test; }',
            'set $b 127.0.0.1:81; location / { proxy_pass http://$b; }', 'location / { proxy_pass http://127.0.0.1:$server_port; }',
            "http { upstream app { server 127.0.0.1; }\nmap \$uri \$b { default app; /x 127.0.0.1:8; }\nserver { listen 8080; location / { proxy_pass http://\$b; } } }",
            "http { upstream App { server 127.0.0.1; }\nserver { listen 8080; set \$b http://app; location / { proxy_pass \$b; } } }",
            'location / { proxy_pass http://127.0.0.1$request_uri; }', 'location / { proxy_pass http://backend.test/$uri; }'],
    ],
    'error-page-status' => [
        ['error_page 404 @app; location @app { proxy_pass http://127.0.0.1; }',
            'location / { error_page 404 502 @app; } location @app { proxy_pass http://127.0.0.1; }'],
        ['error_page 404 = @app; location @app { proxy_pass http://127.0.0.1; }', 'error_page 404 =200 @app; location @app { proxy_pass http://127.0.0.1; }',
            'error_page 404 @app; location @app { return 404 x; }', 'error_page 404 /404.html;'],
    ],
    'zone-unused' => [
        ["<limit_req_zone>http { limit_req_zone \$uri zone=a:1m rate=1r/s;\nserver { listen 8080; limit_req zone=b; } limit_req_zone \$uri zone=b:1m rate=1r/s; }",
            "<limit_conn_zone>http { limit_conn_zone \$uri zone=a:1m; }",
            "<proxy_cache_path>http { proxy_cache_path /tmp/c keys_zone=c:1m; }"],
        ["<limit_req_zone>http { limit_req_zone \$uri zone=a:1m rate=1r/s; server { listen 8080; location / { limit_req zone=a burst=5; } } }",
            "<limit_conn_zone>http { limit_conn_zone \$uri zone=a:1m; limit_conn a 5; }",
            "<proxy_cache_path>http { proxy_cache_path /tmp/c keys_zone=c:1m; server { listen 8080; proxy_cache c; } }",
            "<proxy_cache_path>http { proxy_cache_path /tmp/c keys_zone=c:1m; server { listen 8080; proxy_cache \$arg_c; } }"],
    ],
    'try-files-proxy' => [
        ['location / { try_files $uri =404; proxy_pass http://127.0.0.1; }', 'location / { proxy_pass http://127.0.0.1; try_files $uri $uri/ =404; }'],
        ['location / { try_files $uri @app; } location @app { proxy_pass http://127.0.0.1; }', 'location / { try_files $uri =404; }',
            'location / { try_files $uri @app; proxy_pass http://127.0.0.1; } location @app { return 404; }',
            '<fastcgi_pass>location ~ \.php$ { try_files $uri =404; fastcgi_pass 127.0.0.1:9000; }'],
    ],
);

sub available {
    my ($text) = @_;
    while ($$text =~ s/^<(\w+)>//) { return 0 if !$p->has($1) }
    return 1;
}
for my $rule (sort keys %rules) {
    my ($bad, $good) = @{ $rules{$rule} };
    for my $text (@$bad) {
        my $t = $text;
        next if !available(\$t);
        my ($found, $r) = linted($t);
        like $found, qr/\A\Q$rule\E:\d+\z/, "$rule: $t" or diag $r->{err};
    }
    for my $text (@$good) {
        my $t = $text;
        next if !available(\$t);
        my ($found, $r) = linted($t);
        is "$r->{status} $found", '0 ', "nothing: $t" or diag $r->{err};
    }
}
if ($p->has('ssl_certificate')) {
    # a certificate is not needed with --offline
    my ($found, $r) = linted("http { server { listen 443; ssl_certificate c.pem; ssl_certificate_key k.pem; } }");
    like $found, qr/\Alisten-443:1\z/, 'listen-443' or diag $r->{err};
    for my $listen ('443 ssl', '8080', '443 ssl reuseport') {
        ($found, $r) = linted("http { server { listen $listen; ssl_certificate c.pem; ssl_certificate_key k.pem; } }");
        is $found, '', "nothing: listen $listen" or diag $r->{err};
    }
}

# --- every rule is tested and documented, and documented ones are there ---------------------------
{
    my $docs = do { local $/; open my $fh, '<', "$FindBin::Bin/../docs/lint.md" or die $!; <$fh> };
    my $source = do { local $/; open my $fh, '<', "$FindBin::Bin/../modules/lint/lint.c" or die $!; <$fh> };
    my @there = $source =~ /^    \{ "([a-z0-9-]+)",/mg;
    my @documented = $docs =~ /^### ([a-z0-9-]+)$/mg;
    is "@{[sort @documented]}", "@{[sort @there]}", 'docs/lint.md has each rule';
    is "@{[sort keys %rules, 'listen-443']}", "@{[sort @there]}", 'and so has this test';
}

# --- comments that silence ------------------------------------------------------------------------
my %silenced = (
    "location /i {\nalias /d/; # lint: ignore alias-traversal\n}"            => '',
    "location /i {\n# lint: ignore alias-traversal\nalias /d/;\n}"           => '',
    "location /i {\n    # lint: ignore all\n    alias /d/;\n}"               => '',
    "location /i {\nalias /d/; # lint: ignore regex-dot, alias-traversal\n}" => '',
    "location /i {\nalias /d/; # lint: ignore regex-dot alias-traversal x\n}" => '',
    "location /i {\nalias /d/; # lint: ignore alias-slash\n}"                => 'alias-traversal:5',
    "location /i {\nalias /d/; # lint: ignore alias\n}"                      => 'alias-traversal:5',
    "location /i {\n# lint: ignore alias-traversal\n\nalias /d/;\n}"         => 'alias-traversal:7',
    "location /i { # lint: ignore alias-traversal\nalias /d/;\n}"            => 'alias-traversal:5',
    "location /i {\nalias\n/d/; # lint: ignore alias-traversal\n}"           => '',
    "location /i {\nalias # lint: ignore alias-traversal\n/d/;\n}"           => '',
);
is +(linted($_))[0], $silenced{$_}, 'silenced: ' . s/\n/ | /gr for sort keys %silenced;

# --- what is printed ------------------------------------------------------------------------------
my ($found, $r) = linted("location /i {\n    alias /d/;\n}\nlocation ~ .php\$ { }");
is $r->{status}, 0, 'warnings do not fail';
like $r->{err}, qr{
    ^proxyd:\ \[warn\]\ alias-traversal:\ [^\n]+\ in\ \S+proxyd\.conf:5\n
    \ \ \ \ alias\ /d/;\n
    \ {10}\^\ let\ both\ end\ with\ a\ slash\n}mx, 'the line, the place and the remedy';
like $r->{err}, qr/^proxyd: 2 lint warnings in configuration file \S+proxyd\.conf$/m, 'the count';
like $r->{err}, qr/test is successful$/m, 'it tests as well';
is $found, 'alias-traversal:5 regex-dot:7', 'in the order of the file';
($found, $r) = linted('location / { }');
like $r->{err}, qr/^proxyd: 0 lint warnings in /m, 'none';
($found, $r) = linted("location /i { alias /d/; }", '-q');
is $found, 'alias-traversal:4', '-q: warnings stay';
unlike $r->{err}, qr/lint warning|successful/, '-q: the rest does not';
($found, $r) = linted("location /i { alias /d/; }\nfrobnicate;");
is "$r->{status} $found", '1 ', 'an error comes first';
($found, $r) = linted("include part.conf;");
is $r->{status}, 1, 'a missing include';
$p->write_file('part.conf', "\nlocation /i {\n    alias /d/;\n}\n");
($found, $r) = linted("include part.conf;");
like $r->{err}, qr{alias-traversal: .* in \S+/part\.conf:3\n    alias /d/;\n}, 'in an included file';
unlike $p->run(add => ['-t', '--offline'])->{err}, qr/alias-traversal/, '-t alone does not lint';

# --- the files that are installed -----------------------------------------------------------------
for my $file (glob "$FindBin::Bin/../conf/proxyd.conf") {
    my $r = $p->run(args => ['--lint', '--offline', '-p', $p->dir, '-c', $file, '-e', 'stderr']);
    is $r->{status}, 0, "$file: status" or diag $r->{err};
    like $r->{err}, qr/^proxyd: 0 lint warnings/m, 'nothing to say' or diag $r->{err};
}
$p->discard;
done_testing;
