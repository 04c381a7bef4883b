// SPDX-License-Identifier: BSD-2-Clause
//
// A WebSocket server of as much of RFC 6455 as an echo needs: text, binary and fragmented messages,
// ping and close. accept(req, socket, head) takes over a connection that asked for the upgrade.
// A text message "close N" is answered with a close of that code, "burst N" with N messages.
'use strict';
const crypto = require('crypto');

const GUID = '258EAFA5-E914-47DA-95CA-C5AB0DC85B11';
const MESSAGE_MAX = 64 * 1024 * 1024;
const CONTINUATION = 0;
const TEXT = 1;
const BINARY = 2;
const CLOSE = 8;
const PING = 9;

function frame(opcode, data, fin = true) {
    const first = (fin ? 0x80 : 0) | opcode;
    let head;
    if (data.length < 126) {
        head = Buffer.from([first, data.length]);
    } else if (data.length < 65536) {
        head = Buffer.from([first, 126, data.length >> 8, data.length & 255]);
    } else {
        head = Buffer.alloc(10);
        head[0] = first;
        head[1] = 127;
        head.writeBigUInt64BE(BigInt(data.length), 2);
    }
    return Buffer.concat([head, data]);
}

// { fin, opcode, data, size } of the first frame, or { needs: octets } while it is not all there.
function parse(bytes) {
    if (bytes.length < 2) return { needs: 2 };
    let size = bytes[1] & 127;
    let at = 2;
    if (size === 126) {
        if (bytes.length < 4) return { needs: 4 };
        size = bytes.readUInt16BE(2);
        at = 4;
    } else if (size === 127) {
        if (bytes.length < 10) return { needs: 10 };
        size = Number(bytes.readBigUInt64BE(2));
        at = 10;
    }
    if (!(bytes[1] & 128) || size > MESSAGE_MAX) throw new Error('bad frame');
    if (bytes.length < at + 4 + size) return { needs: at + 4 + size };
    const mask = bytes.subarray(at, at + 4);
    const data = Buffer.from(bytes.subarray(at + 4, at + 4 + size));
    for (let i = 0; i < size; i++) data[i] ^= mask[i & 3];
    return { fin: (bytes[0] & 128) !== 0, opcode: bytes[0] & 15, data, size: at + 4 + size };
}

// True: the close handshake has begun.
function message(socket, opcode, data) {
    const order = opcode === TEXT && data.length < 20 && data.toString().match(/^(close|burst) (\d+)$/);
    if (!order) {
        // Given back in two fragments, as far as that goes.
        const half = data.length >> 1;
        socket.write(frame(opcode, data.subarray(0, half), false));
        socket.write(frame(CONTINUATION, data.subarray(half)));
    } else if (order[1] === 'close') {
        socket.write(frame(CLOSE, Buffer.concat([Buffer.from([order[2] >> 8, order[2] & 255]), Buffer.from('as asked')])));
    } else {
        for (let i = 0; i < Number(order[2]); i++) socket.write(frame(TEXT, Buffer.from(`burst ${i}`)));
    }
    return order && order[1] === 'close';
}

exports.accept = (req, socket, head, log) => {
    const key = req.headers['sec-websocket-key'];
    if (!/^\/ws\b/.test(req.url)) {
        return socket.end('HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n');
    }
    if ((req.headers.upgrade || '').toLowerCase() !== 'websocket' || !key) {
        return socket.end('HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n');
    }
    const accept = crypto.createHash('sha1').update(key + GUID).digest('base64');
    const protocol = req.headers['sec-websocket-protocol'];
    socket.setNoDelay(true);
    socket.write('HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n'
        + `Sec-WebSocket-Accept: ${accept}\r\n`
        + (protocol ? `Sec-WebSocket-Protocol: ${protocol.split(',')[0].trim()}\r\n` : '') + '\r\n');
    let pieces = [];
    let have = 0;
    let needs = 2;
    let parts = [];
    let kind = TEXT;
    let closing = false;
    const take = (f) => {
        if (f.opcode === PING) return socket.write(frame(10, f.data));
        if (f.opcode === CLOSE) {
            log.push(`websocket closed ${f.data.length >= 2 ? f.data.readUInt16BE(0) : 'without a code'}`);
            return closing ? socket.end() : socket.end(frame(CLOSE, f.data));
        }
        if (f.opcode > BINARY) return undefined;
        if (f.opcode !== CONTINUATION) kind = f.opcode;
        parts.push(f.data);
        if (!f.fin) return undefined;
        const all = Buffer.concat(parts);
        parts = [];
        closing = message(socket, kind, all);
        return undefined;
    };
    const came = (d) => {
        pieces.push(d);
        have += d.length;
        // A large frame is put together once, not with every piece of it.
        if (have < needs) return;
        let bytes = Buffer.concat(pieces);
        try {
            let f = parse(bytes);
            for (; f.data; f = parse(bytes)) {
                bytes = bytes.subarray(f.size);
                take(f);
            }
            needs = f.needs;
        } catch (e) {
            socket.destroy();
        }
        pieces = [bytes];
        have = bytes.length;
    };
    if (head.length > 0) came(head);
    socket.on('data', came);
    socket.on('error', () => {});
    socket.on('close', () => log.push('websocket gone'));
};
