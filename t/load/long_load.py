# SPDX-License-Identifier: BSD-2-Clause
"""What lasts, for t/chaos_reload.t: paced downloads, uploads and WebSocket sessions, always some of each.

long_load.py PORT EACH, in front of t/apps/node_app.js. "report" on stdin is answered with the numbers of
what came to its end and of what failed since the last report, a line "KIND LOCAL_PORT WHERE WHY" for
each failure, and a dot; "end" with a dot once all that was under way has ended, and nothing begins any more.
"""
import asyncio
import hashlib
import random
import sys

import websockets

PORT, EACH = int(sys.argv[1]), int(sys.argv[2])
PIECE = 65536
done = 0
failures = []
ending = False
STREAM = (b"streamed content, over and over; " * 2000)[:PIECE]


async def connect(connection):
    reader, writer = await asyncio.open_connection("127.0.0.1", PORT)
    connection.append(writer.get_extra_info("sockname")[1])
    return reader, writer


async def pause():
    await asyncio.sleep(random.uniform(0, 0.1))


async def head(reader):
    text = (await reader.readuntil(b"\r\n\r\n")).decode()
    if not text.startswith("HTTP/1.1 200 "):
        raise ValueError(text.split("\r\n")[0])
    return text.lower()


async def download(where, connection):
    reader, writer = await connect(connection)
    writer.write(f"GET {where}/stream?mib=2 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode())
    if "transfer-encoding: chunked" not in await head(reader):
        raise ValueError("no chunks")
    body = hashlib.sha256()
    octets = 0
    while size := int(await reader.readuntil(b"\r\n"), 16):
        body.update(await reader.readexactly(size))
        await reader.readexactly(2)
        if octets // PIECE != (octets + size) // PIECE:
            await pause()
        octets += size
    await reader.readexactly(2)
    writer.close()
    if body.digest() != hashlib.sha256(STREAM * 32).digest():
        raise ValueError("wrong octets")


async def upload(where, connection):
    reader, writer = await connect(connection)
    pieces = [random.randbytes(PIECE) for _ in range(32)]
    writer.write(f"POST {where}/upload HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: {PIECE * 32}\r\n\r\n".encode())
    for piece in pieces:
        writer.write(piece)
        await writer.drain()
        await pause()
    await head(reader)
    body = await reader.read()
    writer.close()
    if hashlib.sha256(b"".join(pieces)).hexdigest().encode() not in body:
        raise ValueError("the application got something else")


async def websocket(where, connection):
    async with websockets.connect(f"ws://127.0.0.1:{PORT}{where}/ws", open_timeout=30, close_timeout=30) as ws:
        connection.append(ws.local_address[1])
        for _ in range(32):
            sent = random.randbytes(random.randrange(3000))
            await ws.send(sent)
            if await ws.recv() != sent:
                raise ValueError("wrong octets")
            await pause()


async def forever(use, where):
    global done
    while not ending:
        connection = []
        try:
            await asyncio.wait_for(use(where, connection), 60)
            done += 1
        except Exception as e:  # whatever it was, it should not have been
            failures.append(f"{use.__name__} {connection[0] if connection else 0} {where} {e!r}"[:200].replace("\n", " "))
            await asyncio.sleep(0.05)


async def commands(tasks):
    global done, ending
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        if line == b"report\n":
            print("\n".join([f"{done} {len(failures)}"] + failures))
            done = 0
            failures.clear()
        else:
            ending = True
            await asyncio.gather(*tasks)
        print(".", flush=True)


async def main():
    tasks = [asyncio.create_task(forever(use, where)) for use in (download, upload, websocket)
             for where in ("/app", "/direct") for _ in range(EACH)]
    await commands(tasks)
    for task in tasks:
        task.cancel()


asyncio.run(main())
