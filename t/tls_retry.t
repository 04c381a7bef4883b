# SPDX-License-Identifier: BSD-2-Clause
#
# A client that is asked for another hello (TLS 1.3, HelloRetryRequest), and asks for another server in it: nothing of the first one's is
# left, neither its word for a client's certificate nor its sessions. And servers without a certificate of their own.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/lib";
use IO::Select;
use IO::Socket::INET;
use Net::SSLeay;
use Test::More;
use Proxyd;
use Proxyd::Certs;

plan skip_all => 'proxyd only' if Proxyd::is_nginx();
my $p     = Proxyd->new;
my $certs = Proxyd::Certs->new($p->dir . '/certs');
$certs->make('ca2', ca => 1);
$certs->make($_) for qw(a b one);
$certs->make('two', by => 'ca2');

my $listen = 'listen 127.0.0.1:{{port}} ssl';
$p->write_conf(<<"EOT");
worker_processes 1;
http {
    ssl_protocols TLSv1.3;
    ssl_ecdh_curve X25519;
    ssl_certificate_key certs/a.key;
    map \$ssl_server_name \$pair { default certs/a; }
    server { $listen; server_name first.test; ssl_certificate certs/a.crt; return 200 "\$server_name \$ssl_client_verify \$ssl_session_reused"; }
    server { $listen; server_name one.test; ssl_verify_client on; ssl_client_certificate certs/ca.crt; ssl_certificate certs/a.crt;
             return 200 "\$server_name \$ssl_client_s_dn \$ssl_session_reused"; }
    server { $listen; server_name two.test; ssl_verify_client on; ssl_client_certificate certs/ca2.crt;
             ssl_certificate \$pair.crt; ssl_certificate_key \$pair.key;
             return 200 "\$server_name \$ssl_client_s_dn \$ssl_session_reused"; }
    server { $listen; server_name b.test; ssl_certificate certs/b.crt; ssl_certificate_key certs/b.key; ssl_ecdh_curve auto;
             return 200 "\$server_name \$ssl_curve"; }
    server { $listen; server_name rejected.test; ssl_reject_handshake on; }
    server { listen 127.0.0.1:{{port:bare}} ssl; server_name one.test; ssl_verify_client on; ssl_client_certificate certs/ca.crt;
             ssl_certificate certs/a.crt; return 200 "\$server_name"; }
    server { listen 127.0.0.1:{{port:bare}} ssl; server_name same.test; ssl_verify_client on; ssl_client_certificate certs/ca.crt;
             return 200 "\$server_name \$ssl_client_s_dn"; }
    server { listen 127.0.0.1:{{port:bare}} ssl; server_name other.test; ssl_verify_client on; ssl_client_certificate certs/ca2.crt;
             return 200 "\$server_name \$ssl_client_s_dn"; }
}
EOT
$p->start;

# A request: name => in the first hello, then => in the second one, cert => pair, session => to be resumed, direct => 1 for no second
# hello. "STATUS BODY", the subject of the server's certificate, and the session.
sub talk {
    my (%o) = @_;
    my $host = $o{then} // $o{name};
    my $sock = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $p->port($o{port} // 'main'), Timeout => 10) or die $!;
    my $ctx = Net::SSLeay::CTX_new_with_method(Net::SSLeay::TLS_client_method());
    # a key is sent for the first group only, which the servers do not have
    Net::SSLeay::CTX_set1_groups_list($ctx, $o{direct} ? 'X25519' : 'P-521:X25519');
    if ($o{cert}) {
        Net::SSLeay::CTX_use_certificate_chain_file($ctx, $certs->path("$o{cert}.crt"));
        Net::SSLeay::CTX_use_PrivateKey_file($ctx, $certs->path("$o{cert}.key"), Net::SSLeay::FILETYPE_PEM());
    }
    my $ssl = Net::SSLeay::new($ctx);
    my ($in, $out) = map { Net::SSLeay::BIO_new(Net::SSLeay::BIO_s_mem()) } 1, 2;
    Net::SSLeay::set_bio($ssl, $in, $out);
    Net::SSLeay::set_connect_state($ssl);
    Net::SSLeay::set_tlsext_host_name($ssl, $o{name});
    Net::SSLeay::set_session($ssl, $o{session}) if $o{session};
    my ($got, $asked, $hello) = ('', 0, 1);
    for (1 .. 100) {
        if (!$asked && Net::SSLeay::do_handshake($ssl) == 1) {
            Net::SSLeay::write($ssl, "GET / HTTP/1.1\r\nHost: $host\r\nConnection: close\r\n\r\n");
            $asked = 1;
        }
        while (my $bytes = Net::SSLeay::BIO_read($out)) { syswrite $sock, $bytes }
        while ($asked && defined(my $bytes = Net::SSLeay::read($ssl))) { last if $bytes eq ''; $got .= $bytes }
        last if $got =~ /\r\n\r\n./s;
        Net::SSLeay::set_tlsext_host_name($ssl, $host) if $hello--;
        $hello = 0;
        IO::Select->new($sock)->can_read(10) && sysread $sock, my $bytes, 65536 or last;
        Net::SSLeay::BIO_write($in, $bytes);
    }
    my $cert    = Net::SSLeay::get_peer_certificate($ssl);
    my $subject = $cert ? Net::SSLeay::X509_NAME_oneline(Net::SSLeay::X509_get_subject_name($cert)) : '';
    my $session = Net::SSLeay::get1_session($ssl);
    Net::SSLeay::set_shutdown($ssl, 3);
    Net::SSLeay::free($ssl);
    my ($status) = $got =~ /^HTTP\/1.1 (\d+)/;
    my ($body)   = $got =~ /\r\n\r\n(.*)/s;
    $body = $1 if ($body // '') =~ /<title>\d* ?(.*?)<\/title>/;
    return wantarray ? (join(' ', $status // 'none', $body // ''), $subject, $session) : join ' ', $status // 'none', $body // '';
}

is talk(name => 'one.test', cert => 'one'), '200 one.test CN=one .', 'asked again, for the same';
is talk(name => 'two.test', cert => 'one'), '400 The SSL certificate error', 'whom another authority vouches for';
is talk(name => 'two.test', then => 'one.test', cert => 'two'), '400 The SSL certificate error', 'nor does the name before help';
is talk(name => 'one.test', then => 'two.test', cert => 'two'), '200 two.test CN=two .', 'the second name counts';
is talk(name => 'one.test', then => 'first.test', cert => 'one'), '200 first.test NONE .', 'a server that asks for nothing';
is talk(name => 'one.test', then => 'nobody.test', cert => 'one'), '200 first.test NONE .', 'a name that nobody has: the first server';
is talk(name => 'first.test', then => 'one.test'), '400 No required SSL certificate was sent', 'one that asks';
is talk(name => 'first.test', then => 'rejected.test'), 'none ', 'one that rejects';
is talk(name => 'rejected.test', then => 'first.test'), 'none ', 'there is no second hello for who is rejected';
{
    my ($answer, $subject) = talk(name => 'first.test', then => 'b.test');
    is $answer,  '200 b.test X25519', 'another certificate';
    is $subject, '/CN=b', 'is shown';
}
{
    my (undef, undef, $session) = talk(name => 'two.test', cert => 'two');
    is talk(name => 'two.test', session => $session), '200 two.test CN=two r', 'a session';
    is talk(name => 'two.test', session => $session, direct => 1), '200 two.test CN=two r', 'at once';
    is talk(name => 'two.test', then => 'one.test', session => $session), '400 No required SSL certificate was sent',
        'is none of another server\'s';
    is talk(name => 'one.test', session => $session, direct => 1), '400 No required SSL certificate was sent', 'nor at once';
    is talk(name => 'two.test', then => 'first.test', session => $session), '200 first.test NONE .', 'nor of the first one\'s';
}

# --- servers without a certificate, which take the first one's, and with it what that one has asked of the client -----------

is talk(port => 'bare', name => 'same.test', cert => 'one'), '200 same.test CN=one', 'the same authorities';
is talk(port => 'bare', name => 'same.test', cert => 'two'), '400 The SSL certificate error', 'know nobody else';
is talk(port => 'bare', name => 'other.test', cert => 'one'), '421 Misdirected Request', 'others have not been asked';
is talk(port => 'bare', name => 'other.test', cert => 'two'), '400 The SSL certificate error', 'for anybody';
is talk(port => 'bare', name => 'other.test', cert => $_, direct => 1), talk(port => 'bare', name => 'other.test', cert => $_), "at once: $_"
    for qw(one two);
$p->stop;
done_testing;
