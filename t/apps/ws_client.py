# SPDX-License-Identifier: BSD-2-Clause
"""Drives the WebSocket of node_app.js with Python's websockets; prints what came of it as JSON.

ws_client.py URL SCALE: SCALE divides what is costly.
"""
import asyncio
import hashlib
import json
import random
import sys

import websockets

URL, SCALE = sys.argv[1], int(sys.argv[2])
random.seed(1)


def connect(**options):
    return websockets.connect(URL, max_size=2**27, open_timeout=60, close_timeout=60, ping_timeout=60, **options)


async def echo(number):
    """Messages of all sizes and both kinds on one connection."""
    wrong = 0
    async with connect() as ws:
        for _ in range(20):
            size = random.choice((0, 1, 125, 126, 1000, 65535, 65536, 300000)) // (SCALE if number else 1)
            sent = random.choice((random.randbytes(size), f"{number}" * (size // len(f"{number}"))))
            await ws.send(sent)
            wrong += await ws.recv() != sent
    return wrong


async def many():
    return sum(await asyncio.gather(*(echo(n) for n in range(50 // SCALE))))


async def large():
    """Far more than any buffer, in pieces, and the same back."""
    data = random.randbytes(40_000_000 // SCALE)
    async with connect() as ws:
        await ws.send(data[i:i + 100_000] for i in range(0, len(data), 100_000))
        return hashlib.sha256(await ws.recv()).digest() == hashlib.sha256(data).digest()


async def pipelined():
    """Both directions at once."""
    async with connect() as ws:
        async def send():
            for n in range(2000 // SCALE):
                await ws.send(f"message {n}")
        task = asyncio.create_task(send())
        seen = [await ws.recv() for _ in range(2000 // SCALE)]
        await task
    return seen == [f"message {n}" for n in range(2000 // SCALE)]


async def pings():
    async with connect(ping_interval=None) as ws:
        for n in range(20):
            await (await ws.ping(f"ping {n}"))
    return True


async def protocol():
    async with connect(subprotocols=["chat", "other"]) as ws:
        return ws.subprotocol


async def closed():
    async with connect() as ws:
        await ws.send("close 4999")
        try:
            await ws.recv()
        except websockets.ConnectionClosed:
            pass
        return [ws.close_code, ws.close_reason]


async def closing():
    ws = await connect()
    await ws.close(4001, "bye")
    return ws.close_code


async def lost():
    """Goes without a word."""
    ws = await connect()
    await ws.send("x")
    await ws.recv()
    ws.transport.abort()
    return True


async def idle():
    """Silent for longer than the proxy's timeout, but for the pings."""
    async with connect(ping_interval=0.4) as ws:
        await asyncio.sleep(3)
        await ws.send("still here")
        return await ws.recv()


async def refused():
    """The application says no: the answer comes through."""
    try:
        await websockets.connect(URL.replace("/ws", "/nowhere"), open_timeout=60)
    except websockets.InvalidStatusCode as e:
        return e.status_code


async def main():
    report = {}
    for test in (many, large, pipelined, pings, protocol, closed, closing, lost, idle, refused):
        try:
            report[test.__name__] = await asyncio.wait_for(test(), 120)
        except Exception as e:  # whatever it is, it is the answer
            report[test.__name__] = repr(e)
    print(json.dumps(report))


asyncio.run(main())
