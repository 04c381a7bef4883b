#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
#
# A gRPC server for the tests of health checks: grpc_health.py PORT DIRECTORY [CERTIFICATE KEY]. What it answers is in the
# file DIRECTORY/grpc: "serving N", "status CODE", "none" (the method is unknown), "bytes HEX" (a message). The requests,
# "METHOD HEX NAME=VALUE...", are appended to DIRECTORY/grpc.asked.
import sys
from concurrent import futures

import grpc

port, directory = sys.argv[1], sys.argv[2]


def told():
    try:
        with open(directory + '/grpc') as f:
            return (f.read().split() + ['1'])[:2]
    except OSError:
        return ['serving', '1']


def check(request, context):
    what, arg = told()
    with open(directory + '/grpc.asked', 'a') as f:
        fields = sorted('%s=%s' % (k, v) for k, v in context.invocation_metadata())
        f.write('Check %s %s\n' % (request.hex() or '-', ' '.join(fields)))
    if what == 'status':
        context.abort(next(c for c in grpc.StatusCode if c.value[0] == int(arg)), 'as told')
    if what == 'bytes':
        return bytes.fromhex(arg)
    return bytes([8, int(arg)]) if arg != '0' else b''


class Handler(grpc.GenericRpcHandler):
    def service(self, details):
        if details.method != '/grpc.health.v1.Health/Check' or told()[0] == 'none':
            return None
        return grpc.unary_unary_rpc_method_handler(check)


server = grpc.server(futures.ThreadPoolExecutor(max_workers=4), handlers=[Handler()])
if len(sys.argv) > 3:
    with open(sys.argv[3], 'rb') as c, open(sys.argv[4], 'rb') as k:
        server.add_secure_port('127.0.0.1:' + port, grpc.ssl_server_credentials([(k.read(), c.read())]))
else:
    server.add_insecure_port('127.0.0.1:' + port)
server.start()
server.wait_for_termination()
