// SPDX-License-Identifier: BSD-2-Clause
//
// An application such as people put behind a reverse proxy, for t/real.t and t/real_app.t: routes,
// JSON, cookies, uploads, redirects, an answer compressed by itself, server-sent events, streaming,
// WebSockets, a page with a hundred assets, and one that uses all the rest.  node node_app.js PORT; prints "ready" when it listens.
'use strict';
const http = require('http');
const crypto = require('crypto');
const zlib = require('zlib');
const fs = require('fs');
const path = require('path');
const { URL } = require('url');
const websocket = require('./websocket.js');

const ASSETS = 100;
const log = [];
let pageReport = null;

function send(res, status, type, body, headers = {}) {
    res.writeHead(status, { 'Content-Type': type, 'Content-Length': Buffer.byteLength(body), ...headers });
    res.end(body);
}

function json(res, value, headers) { send(res, 200, 'application/json', JSON.stringify(value), headers); }

function cookies(req) {
    const all = {};
    for (const pair of (req.headers.cookie || '').split(/;\s*/)) {
        const at = pair.indexOf('=');
        if (at > 0) all[pair.slice(0, at)] = decodeURIComponent(pair.slice(at + 1));
    }
    return all;
}

function body(req, done) {
    const hash = crypto.createHash('sha256');
    const pieces = [];
    let size = 0;
    req.on('data', (d) => { hash.update(d); size += d.length; if (size <= 65536) pieces.push(d); });
    req.on('end', () => done(size, hash.digest('hex'), Buffer.concat(pieces)));
}

// A grey image of one pixel whose shade is the asset's number.
function png(n) {
    const crcTable = Array.from({ length: 256 }, (_, i) => {
        let c = i;
        for (let k = 0; k < 8; k++) c = c & 1 ? 0xedb88320 ^ (c >>> 1) : c >>> 1;
        return c >>> 0;
    });
    const crc = (b) => (b.reduce((c, x) => crcTable[(c ^ x) & 255] ^ (c >>> 8), 0xffffffff) ^ 0xffffffff) >>> 0;
    const chunk = (name, data) => {
        const out = Buffer.alloc(data.length + 12);
        out.writeUInt32BE(data.length, 0);
        out.write(name, 4, 'latin1');
        data.copy(out, 8);
        out.writeUInt32BE(crc(out.subarray(4, 8 + data.length)), 8 + data.length);
        return out;
    };
    const header = Buffer.from([0, 0, 0, 1, 0, 0, 0, 1, 8, 0, 0, 0, 0]);
    return Buffer.concat([Buffer.from('89504e470d0a1a0a', 'hex'), chunk('IHDR', header),
        chunk('IDAT', zlib.deflateSync(Buffer.from([0, n]))), chunk('IEND', Buffer.alloc(0))]);
}

// A TrueType font of two glyphs; the one for "A" is a box as wide as 100 * (N + 1) of 1000 units.
function font(n) {
    const u16 = (...v) => Buffer.from(v.flatMap((x) => [(x >> 8) & 255, x & 255]));
    const u32 = (...v) => Buffer.concat(v.map((x) => u16(x >>> 16, x & 65535)));
    const wide = 100 * (n + 1);
    // One contour of four points on the curve, each with coordinates of two octets.
    const box = Buffer.concat([u16(1, 0, 0, wide, 700, 3, 0), Buffer.from([1, 1, 1, 1]),
        u16(0, wide, 0, -wide, 0, 0, 700, 0), Buffer.alloc(2)]);
    const cmap = u16(4, 32, 0, 4, 4, 1, 0, 65, 0xffff, 0, 65, 0xffff, 1 - 65, 1, 0, 0);
    const tables = {
        'OS/2': Buffer.concat([u16(3, wide, 400, 5, 0), Buffer.alloc(22), Buffer.alloc(10), u32(1, 0, 0, 0),
            Buffer.from('none'), u16(64, 65, 65, 700, 0, 0, 700, 0), u32(1, 0), u16(500, 700, 0, 32, 1)]),
        cmap: Buffer.concat([u16(0, 1, 3, 1), u32(12), cmap]),
        glyf: Buffer.concat([box, box]),
        head: Buffer.concat([u32(0x10000, 0x10000, 0, 0x5f0f3cf5), u16(3, 1000), Buffer.alloc(16),
            u16(0, 0, wide, 700, 0, 8, 2, 0, 0)]),
        hhea: Buffer.concat([u32(0x10000), u16(700, 0, 0, wide, 0, 0, wide, 1, 0, 0, 0, 0, 0, 0, 0, 2)]),
        hmtx: u16(wide, 0, wide, 0),
        loca: u16(0, box.length / 2, box.length),
        maxp: Buffer.concat([u32(0x10000), u16(2, 4, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0)]),
        name: u16(0, 0, 6),
        post: Buffer.concat([u32(0x30000, 0), u16(0, 0), u32(0, 0, 0, 0, 0)]),
    };
    const names = Object.keys(tables).sort();
    const directory = [u32(0x10000), u16(names.length, 128, 3, names.length * 16 - 128)];
    const data = [];
    let at = 12 + names.length * 16;
    for (const name of names) {
        const padded = Buffer.concat([tables[name], Buffer.alloc((4 - tables[name].length % 4) % 4)]);
        let sum = 0;
        for (let i = 0; i < padded.length; i += 4) sum = (sum + padded.readUInt32BE(i)) >>> 0;
        directory.push(Buffer.from(name), u32(sum, at, tables[name].length));
        data.push(padded);
        at += padded.length;
    }
    return Buffer.concat([...directory, ...data]);
}

// What asset N is: scripts, styles, images, fonts and data to fetch; every one says so when it is there.
function asset(res, n, ext) {
    const pad = '/* ' + 'x'.repeat(n * 300) + ' */';
    if (ext === 'js') return send(res, 200, 'text/javascript', `window.loaded.add(${n});${pad}`, { ETag: `"${n}"` });
    if (ext === 'css') return send(res, 200, 'text/css', `${pad}#css${n} { width: ${n + 1000}px }`);
    if (ext === 'png') return send(res, 200, 'image/png', png(n));
    if (ext === 'ttf') return send(res, 200, 'font/ttf', font(n));
    return json(res, { n, data: 'y'.repeat(n * 500) });
}

const kinds = ['js', 'css', 'png', 'json', 'ttf'];

function page(res) {
    let head = '';
    let main = '';
    const fetches = [];
    const fonts = [];
    for (let n = 0; n < ASSETS; n++) {
        const kind = kinds[n % 5];
        const url = `/assets/${n}.${kind}`;
        if (kind === 'js') head += `<script src="${url}"></script>\n`;
        if (kind === 'css') {
            head += `<link rel="stylesheet" href="${url}">\n`;
            main += `<div id="css${n}"></div>\n`;
        }
        if (kind === 'png') main += `<img src="${url}" id="png${n}">\n`;
        if (kind === 'json') fetches.push(n);
        if (kind === 'ttf') fonts.push(n);
    }
    send(res, 200, 'text/html; charset=utf-8', `<!doctype html><meta charset="utf-8"><title>assets</title>
<script>window.loaded = new Set(); window.failed = [];</script>
${head}<body>${main}<p id="result">loading</p>
<script>
async function go() {
    await Promise.all(${JSON.stringify(fetches)}.map(async (n) => {
        const r = await (await fetch('/assets/' + n + '.json')).json();
        if (r.n === n && r.data.length === n * 500) loaded.add(n);
    }));
    await Promise.all(${JSON.stringify(fonts)}.map(async (n) => {
        const face = new FontFace('font' + n, 'url(/assets/' + n + '.ttf)');
        document.fonts.add(await face.load());
        const pen = document.createElement('canvas').getContext('2d');
        pen.font = '100px font' + n;
        if (Math.round(pen.measureText('A').width) === 10 * (n + 1)) loaded.add(n);
    }));
    for (let n = 1; n < ${ASSETS}; n += 5)
        if (document.getElementById('css' + n).getBoundingClientRect().width === n + 1000) loaded.add(n);
    for (let n = 2; n < ${ASSETS}; n += 5) {
        const i = document.getElementById('png' + n);
        if (i.complete && i.naturalWidth === 1) loaded.add(n);
    }
    const events = await new Promise((done) => {
        const seen = [];
        const s = new EventSource('/events?n=5');
        s.onmessage = (e) => { seen.push(e.data); if (seen.length === 5) { s.close(); done(seen); } };
        s.onerror = () => { s.close(); done(['error']); };
    });
    await fetch('/page-report', { method: 'POST', body: JSON.stringify({ loaded: loaded.size, events,
        cookie: document.cookie }) });
    document.getElementById('result').textContent = 'loaded ' + loaded.size + ' of ${ASSETS}';
}
window.addEventListener('load', () => go().catch((e) => {
    document.getElementById('result').textContent = 'failed: ' + e;
}));
</script>`, { 'Set-Cookie': 'page=seen; Path=/' });
}

function events(req, res, n) {
    res.writeHead(200, { 'Content-Type': 'text/event-stream', 'Cache-Control': 'no-store', 'X-Accel-Buffering': 'no' });
    // A browser that lost the stream says what it has seen.
    let i = Number(req.headers['last-event-id'] ?? -1) + 1;
    const next = () => {
        res.write(`id: ${i}\ndata: event ${i}\n\n`);
        if (++i < n) setTimeout(next, 10);
        else if (req.url.includes('end')) res.end();
    };
    next();
    req.on('close', () => log.push('events closed'));
}

// Three events, then the end; the browser comes again for the rest.
function ticks(req, res) {
    const from = Number(req.headers['last-event-id'] ?? -1) + 1;
    res.writeHead(200, { 'Content-Type': 'text/event-stream' });
    res.write('retry: 20\n\n');
    for (let i = from; i < from + 3; i++) res.write(`id: ${i}\nevent: tick\ndata: ${i}\n\n`);
    setTimeout(() => res.end(), 20);
}

function stream(res, mib) {
    const piece = Buffer.alloc(65536, 'streamed content, over and over; ');
    let left = mib * 16;
    res.writeHead(200, { 'Content-Type': 'application/octet-stream' });
    const more = () => {
        while (left > 0) {
            left--;
            if (!res.write(piece)) return res.once('drain', more);
        }
        res.end();
    };
    res.on('close', () => { if (!res.writableFinished) log.push('stream cut'); });
    more();
}

// As an application that believes to be at the root of http://app.internal.
const own = 'http://app.internal';
const cookieLines = ['sid=abc; Path=/; Domain=app.internal; HttpOnly', 'lang=en; Path=/; Domain=.app.internal; Max-Age=3600',
    'deep=1; Path=/account/; Domain=app.internal', 'tls=1; Path=/; Secure; SameSite=None', 'bare=1'];

const routes = {
    'GET /': (req, res) => send(res, 200, 'text/plain', 'hello\n'),
    'GET /headers': (req, res) => json(res, req.headers),
    'GET /page': (req, res) => page(res),
    'GET /page-report': (req, res) => json(res, pageReport),
    'GET /login': (req, res) => send(res, 302, 'text/plain', '', { Location: '/account', 'Set-Cookie':
        ['session=s3cret; Path=/; HttpOnly', 'theme=dark%20blue; Path=/'] }),
    'GET /account': (req, res) => json(res, cookies(req)),
    'GET /absolute': (req, res) => send(res, 301, 'text/plain', '', { Location: `http://${req.headers.host}/account` }),
    'GET /cookies/set': (req, res) => json(res, 'set', { 'Set-Cookie': cookieLines }),
    'GET /account/': (req, res) => json(res, cookies(req)),
    'GET /go': (req, res) => send(res, 302, 'text/plain', '', { Location: `${own}/account?from=go` }),
    'GET /refresh': (req, res) => send(res, 200, 'text/plain', '', { Refresh: `5; url=${own}/account` }),
    'GET /elsewhere': (req, res) => send(res, 302, 'text/plain', '', { Location: 'http://elsewhere.test/x' }),
    'GET /ticks': ticks,
    'GET /app': (req, res) => send(res, 200, 'text/html; charset=utf-8', fs.readFileSync(path.join(__dirname, 'app_page.html'))),
    'GET /log': (req, res) => json(res, log),
    'GET /missing': (req, res) => send(res, 404, 'text/html', '<h1>the application\'s own page</h1>'),
    'GET /empty': (req, res) => { res.writeHead(204); res.end(); },
    'GET /crash': (req) => req.socket.destroy(),
    'POST /page-report': (req, res) => body(req, (size, sum, text) => { pageReport = JSON.parse(text); json(res, { size }); }),
    'POST /upload': (req, res) => body(req, (size, sum) => json(res, { size, sum, type: req.headers['content-type'],
        framing: req.headers['transfer-encoding'] || req.headers['content-length'] })),
    'POST /form': (req, res) => body(req, (size, sum, text) =>
        json(res, Object.fromEntries(new URLSearchParams(text.toString())))),
    'PUT /thing': (req, res) => body(req, (size) => send(res, 201, 'text/plain', `${size}\n`, { Location: '/thing/1' })),
    'DELETE /thing': (req, res) => { res.writeHead(204); res.end(); },
};

const server = http.createServer((req, res) => {
    const url = new URL(req.url, 'http://localhost');
    const route = routes[`${req.method === 'HEAD' ? 'GET' : req.method} ${url.pathname}`];
    const found = url.pathname.match(/^\/assets\/(\d+)\.(\w+)$/);
    if (route) return route(req, res);
    if (found) return asset(res, Number(found[1]), found[2]);
    if (url.pathname === '/events') return events(req, res, Number(url.searchParams.get('n') || 3));
    if (url.pathname === '/stream') return stream(res, Number(url.searchParams.get('mib') || 1));
    if (url.pathname === '/gzip') {
        const text = 'text worth compressing '.repeat(5000);
        if (!/\bgzip\b/.test(req.headers['accept-encoding'] || '')) return send(res, 200, 'text/plain', text, { Vary: 'Accept-Encoding' });
        const packed = zlib.gzipSync(text);
        res.writeHead(200, { 'Content-Type': 'text/plain', 'Content-Encoding': 'gzip', 'Content-Length': packed.length, Vary: 'Accept-Encoding' });
        return res.end(packed);
    }
    return send(res, 404, 'text/plain', `no ${req.method} ${url.pathname}\n`);
});
server.on('upgrade', (req, socket, head) => websocket.accept(req, socket, head, log));
server.listen(Number(process.argv[2]), '127.0.0.1', () => console.log('ready'));
