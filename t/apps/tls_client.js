// SPDX-License-Identifier: BSD-2-Clause
//
// Node's https as a client, for t/tls_clients.t: the commands of tls_client.py on stdin, an answer a line, and one more.
//     agent VERSION PORT N    N requests by an agent that keeps connections alive: over how many, and how many requests the last one says it has had
// node tls_client.js CAFILE
'use strict';
const fs = require('fs');
const https = require('https');
const crypto = require('crypto');
const readline = require('readline');

const ca = fs.readFileSync(process.argv[2]);
const sessions = {};

function digest(bytes) { return crypto.createHash('sha256').update(bytes).digest('hex'); }

function options(version, port) {
    const v = 'TLSv' + version;
    return { ca, host: '127.0.0.1', port, servername: 'a.test', minVersion: v, maxVersion: v, headers: { Host: 'a.test' } };
}

// One request; resolves to { body, reused, session }. What it resolves with waits for a session if `keep`.
function ask(o, uri, body, keep) {
    return new Promise((resolve, reject) => {
        let session = null, result = null;
        const done = () => { if (result && (!keep || session)) resolve({ ...result, session }); };
        const req = https.request({ ...o, path: uri, method: body ? 'POST' : 'GET' }, (res) => {
            const parts = [];
            const reused = res.socket.isSessionReused();
            res.on('data', (d) => parts.push(d));
            res.on('end', () => { result = { body: Buffer.concat(parts), reused }; done(); });
        });
        if (keep) req.on('socket', (s) => s.on('session', (got) => { session = got; done(); }));
        req.on('error', reject);
        req.end(body);
    });
}

const commands = {
    async first(version, port) {
        const r = await ask({ ...options(version, port), agent: false }, '/session', null, true);
        sessions[version + port] = r.session;
        return { reused: r.reused, said: String(r.body).split(' ')[0] };
    },
    async again(version, port, count) {
        const pids = new Set();
        let reused = 0;
        for (let i = 0; i < count; i++) {
            const r = await ask({ ...options(version, port), agent: false, session: sessions[version + port] }, '/session');
            const [said, pid] = String(r.body).split(' ');
            if (r.reused && said === 'r') reused++;
            pids.add(pid);
        }
        return { reused, workers: pids.size };
    },
    async bodies(version, port, size) {
        const agent = new https.Agent({ keepAlive: true, maxSockets: 1 });
        const result = [];
        for (let i = 0; i < 2; i++) {
            const body = crypto.randomBytes(Number(size));
            const up = JSON.parse((await ask({ ...options(version, port), agent }, '/echo', body)).body);
            const down = (await ask({ ...options(version, port), agent }, '/large')).body;
            result.push([up.length, up.sum === digest(body), down.length, digest(down)]);
        }
        agent.destroy();
        return result;
    },
    async agent(version, port, count) {
        const agent = new https.Agent({ keepAlive: true, maxSockets: 4 });
        const all = await Promise.all(Array.from({ length: Number(count) }, () => ask({ ...options(version, port), agent }, '/connection')));
        const connections = new Set(all.map((r) => String(r.body).split(' ')[0]));
        // An agent keeps sessions too: the next connections to the same name resume.
        Object.values(agent.freeSockets).flat().forEach((s) => s.destroy());
        await new Promise((resolve) => setImmediate(resolve));
        const next = await ask({ ...options(version, port), agent }, '/session');
        agent.destroy();
        return { connections: connections.size, answers: all.length, resumed: next.reused };
    },
};

(async () => {
    for await (const line of readline.createInterface({ input: process.stdin })) {
        const [command, ...args] = line.split(' ');
        let result;
        try { result = await commands[command](...args); } catch (e) { result = { error: String(e) }; }
        console.log(JSON.stringify(result));
    }
})();
