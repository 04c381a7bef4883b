# SPDX-License-Identifier: BSD-2-Clause
#
# WebSocket peers for t/websocket.t, made with the "websockets" package.
#
#   websocket_peer.py serve PORT              an echo server; "say N" asks for N bytes, "fragments" for a message in five
#                                             frames, "headers NAME" for a field of the handshake
#   websocket_peer.py CLIENT URL [ARGUMENT]   one of the clients below; says what it saw, one line each
import asyncio
import hashlib
import sys

import websockets


def block(seed, size):
    """Bytes that show a loss, a repetition or a change of order."""
    unit = b"".join(hashlib.sha256(b"%d %d" % (seed, i)).digest() for i in range(1021))
    return (unit * (size // len(unit) + 1))[:size]


async def echo(ws, path=None):
    async for message in ws:
        if isinstance(message, str) and message.startswith("say "):
            await ws.send(block(1, int(message[4:])))
        elif message == "fragments":
            await ws.send(["a" * 10, "b" * 70000, "", "c" * 200, "d"])
        elif isinstance(message, str) and message.startswith("header "):
            await ws.send(str(ws.request_headers.get_all(message[7:])))
        else:
            await ws.send(message)


async def serve(port):
    async with websockets.serve(echo, "127.0.0.1", int(port), max_size=None, max_queue=4,
                                ping_interval=None, compression=None):
        print("ready", flush=True)
        await asyncio.Future()


def connect(url):
    return websockets.connect(url, max_size=None, ping_interval=None, compression=None)


async def basic(url):
    async with connect(url) as ws:
        for message in ("hello", "", "x" * 125, "y" * 126, "z" * 65535, "w" * 65536, b"\0" * 1000):
            await ws.send(message)
            print("echo", len(message), (await ws.recv()) == message)
        await ws.send(["one ", "two ", "three"])
        print("fragments up", await ws.recv())
        await ws.send("fragments")
        got = await ws.recv()
        print("fragments down", got == "a" * 10 + "b" * 70000 + "c" * 200 + "d")
        await (await ws.ping())
        print("pong")
        await ws.send("header X-Test")
        print("field", await ws.recv())
    print("closed", ws.close_code)


async def big(url, size):
    size = int(size)
    data = block(1, size)
    async with connect(url) as ws:
        await ws.send("say %d" % size)
        print("down", (await ws.recv()) == data)
        await ws.send(data)
        print("both", (await ws.recv()) == data)
    print("closed", ws.close_code)


async def hold(url, count):
    """Opens so many, and shows when all are open, and how they end."""
    open_ones = []
    for _ in range(int(count)):
        ws = await connect(url)
        await ws.send("hello")
        await ws.recv()
        open_ones.append(ws)
    print("open", len(open_ones), flush=True)
    loop = asyncio.get_running_loop()
    while True:
        line = (await loop.run_in_executor(None, sys.stdin.readline)).strip()
        if line == "talk":
            good = 0
            for ws in open_ones:
                await ws.send("still here")
                good += (await ws.recv()) == "still here"
            print("talked", good, flush=True)
        elif line == "end":
            codes = {}
            for ws in open_ones:
                try:
                    await asyncio.wait_for(ws.recv(), 20)
                except websockets.ConnectionClosed:
                    pass
                codes[ws.close_code] = codes.get(ws.close_code, 0) + 1
            print("ended", sorted(codes.items()), flush=True)
            return
        elif line == "":
            return


mode, *arguments = sys.argv[1:]
asyncio.run({"serve": serve, "basic": basic, "big": big, "hold": hold}[mode](*arguments))
