# SPDX-License-Identifier: BSD-2-Clause
#
# Python's ssl as a client, for t/tls_clients.t: commands on stdin, an answer a line.
#     first VERSION PORT      a new session, kept
#     again VERSION PORT N    N connections that offer it: how many were resumed, and by how many workers
#     bodies VERSION PORT N   N bytes up over one connection and down over it: their lengths and digests, twice
import hashlib
import http.client
import json
import os
import ssl
import sys

contexts = {}
for name, version in (('1.2', ssl.TLSVersion.TLSv1_2), ('1.3', ssl.TLSVersion.TLSv1_3)):
    context = ssl.create_default_context(cafile=sys.argv[1])
    context.minimum_version = context.maximum_version = version
    contexts[name] = context
sessions = {}


class Connection(http.client.HTTPSConnection):
    """To 127.0.0.1, by the name a.test."""

    def __init__(self, version, port, session=None):
        super().__init__('127.0.0.1', port, context=contexts[version], timeout=60)
        self.session = session
        self.context = contexts[version]

    def connect(self):
        http.client.HTTPConnection.connect(self)
        self.sock = self.context.wrap_socket(self.sock, server_hostname='a.test', session=self.session)

    def ask(self, method, uri, body=None):
        self.request(method, uri, body, {'Host': 'a.test'})
        return self.getresponse().read()


def first(version, port):
    c = Connection(version, int(port))
    answer = c.ask('GET', '/session').decode()
    sessions[version, port] = c.sock.session
    reused = c.sock.session_reused
    c.close()
    return {'reused': reused, 'said': answer.split()[0], 'version': contexts[version].maximum_version.name}


def again(version, port, count):
    reused, pids = 0, set()
    for _ in range(int(count)):
        c = Connection(version, int(port), sessions[version, port])
        said, pid = c.ask('GET', '/session').decode().split()[:2]
        if c.sock.session_reused and said == 'r':
            reused += 1
        pids.add(pid)
        c.close()
    return {'reused': reused, 'workers': len(pids)}


def bodies(version, port, size):
    body = os.urandom(int(size))
    c = Connection(version, int(port))
    result = []
    for _ in range(2):
        up = json.loads(c.ask('POST', '/echo', body))
        down = c.ask('GET', '/large')
        result.append([up['length'], up['sum'] == hashlib.sha256(body).hexdigest(), len(down), hashlib.sha256(down).hexdigest()])
    c.close()
    return result


for line in sys.stdin:
    command, *arguments = line.split()
    try:
        print(json.dumps({'first': first, 'again': again, 'bodies': bodies}[command](*arguments)), flush=True)
    except Exception as error:
        print(json.dumps({'error': repr(error)}), flush=True)
