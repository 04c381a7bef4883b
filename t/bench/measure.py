# SPDX-License-Identifier: BSD-2-Clause
"""What is measured, and how: CPU time and rate, memory, system calls, instructions, allocations.

Used by scripts/bench. Each function starts what it needs through servers.py, in `bench.directory`,
and returns plain data; report.py prints it.
"""
import json
import os
import re
import shutil
import signal
import struct
import subprocess
import sys
import time

K = 1024
WARM = {"requests": 2000}       # before anything is counted


class Workload:
    """One kind of request. `big`: the header fields of a browser instead of those of curl.
    `keys`: an argument with so many random values. `tls`: the kind of key of the certificate;
    `resume`: new connections come again with the session they had. `fill`: as many requests as
    it takes until nearly every key has been there come before anything is counted."""

    def __init__(self, path, size, servers, big=False, fresh=False, weight=1, keys=0, tls=None,
                 resume=False, fill=False):
        self.path, self.size, self.servers = path, size, servers
        self.big, self.fresh, self.keys = big, fresh, keys
        self.tls, self.resume = tls, resume
        self.fill = fill
        self.weight = weight    # one request stands for about so many small ones

    def load_args(self, server):
        args = ["--path=" + self.path, "--expect=%d" % self.size]
        port = server.ports_tls[self.tls] if self.tls else server.port
        if self.big:
            args.append("--big-headers")
        if self.keys:
            args.append("--keys=%d" % self.keys)
        if self.resume:
            args.append("--resume")
        if self.fresh:
            args.append("--new-connections")
            if server.port_close:
                port = server.port_close
                args.append("--server-closes")
        return args + ["--connect=127.0.0.1:%d" % port]


ALL = ("relay", "floor", "nginx", "haproxy", "proxyd")
PLAIN = ("relay", "nginx", "haproxy", "proxyd")
SHAKE = ("floor", "nginx", "haproxy", "proxyd")
TLS = ("nginx", "haproxy", "proxyd")
WORKLOADS = {
    "proxy1k": Workload("/1k", K, PLAIN),
    "proxy64k": Workload("/64k", 64 * K, PLAIN, weight=3),
    "proxy1m": Workload("/1m", K * K, PLAIN, weight=30),
    "static1k": Workload("/static/1k.html", K, ("nginx", "proxyd")),
    "conn1k": Workload("/1k", K, PLAIN, fresh=True, weight=3),
    "app1k": Workload("/app/1k", K, PLAIN, big=True),
    "tls1k": Workload("/1k", K, TLS, tls="ecdsa"),
    "tls1m": Workload("/1m", K * K, TLS, weight=30, tls="ecdsa"),
    # A handshake and a request.
    "tlsconn": Workload("/1k", K, TLS, fresh=True, weight=15, tls="ecdsa"),
    "tlsrsa": Workload("/1k", K, TLS, fresh=True, weight=30, tls="rsa"),
    "tlsresumed": Workload("/1k", K, TLS, fresh=True, weight=10, tls="ecdsa", resume=True),
    # A handshake and the least of answers, by the server itself: all but the first is next to nothing.
    "shake": Workload("/ready", 2, SHAKE, fresh=True, weight=15, tls="ecdsa"),
    "shakersa": Workload("/ready", 2, SHAKE, fresh=True, weight=30, tls="rsa"),
    "shakeresumed": Workload("/ready", 2, SHAKE, fresh=True, weight=10, tls="ecdsa", resume=True),
    # What limits cost is the difference of these two.
    "keys1k": Workload("/keyed/1k", K, ("nginx", "proxyd"), keys=1000000),
    "limit1k": Workload("/limit/1k", K, ("nginx", "proxyd"), keys=1000000, fill=True),
}
DEFAULT_WORKLOADS = ("proxy1k", "proxy64k", "proxy1m", "static1k", "conn1k", "tls1k", "tlsconn")


# Methods of `--peers`: the lines in the upstream block, and who has them.
BOTH, OURS = ("nginx", "proxyd"), ("proxyd",)
PEERS = (1, 10, 1000)
WEIGHTED = "weights"    # instead of a line: the servers weigh 1 to 7
METHODS = {
    # What as many connections cost without a choice: by the relay, one after the other, or any.
    "in turn": ("", ("relay",)),
    "at random": ("", ("relay",)),
    "round robin": ("", BOTH),
    "round robin, weights": (WEIGHTED, BOTH),
    "round robin, zone": ("zone peers@N@ 2m;", BOTH),
    "least_conn": ("least_conn;", BOTH),
    "least_conn, weights": (WEIGHTED + " least_conn;", BOTH),
    "least_conn, zone": ("zone peers@N@ 2m; least_conn;", BOTH),
    "least_time": ("least_time header;", OURS),
    "ip_hash": ("ip_hash;", BOTH),
    "hash": ("hash $arg_k;", BOTH),
    "hash consistent": ("hash $arg_k consistent;", BOTH),
    "maglev": ("maglev $arg_k;", OURS),
    "random": ("random;", BOTH),
    "random two": ("random two least_conn;", BOTH),
}


class Failed(Exception):
    """A run in which not every answer was right."""


def load(bench, server, workload, **options):
    """Runs the load generator; its result. Raises Failed where there was an error in it."""
    tool = bench.tools["load_tls" if workload.tls else "load"]
    args = [tool, *workload.load_args(server)]
    args += ["--%s=%s" % (name, value) for name, value in options.items()]
    if "connections" not in options:
        args.append("--connections=%d" % bench.connections)
    limit = options.get("seconds", 0) + 600 if "requests" in options else \
        options["seconds"] + 30
    done = subprocess.run(args, stdout=subprocess.PIPE, text=True, timeout=limit, check=False)
    try:
        result = json.loads(done.stdout)
    except ValueError:
        raise Failed("%s: the load generator ended with %d" % (server.name, done.returncode))
    if result["errors"] or not result["requests"]:
        raise Failed("%s %s: %d errors in %d requests, the first: %s" % (
            server.name, workload.path, result["errors"], result["requests"],
            result["first_error"]))
    return result


def cpu_run(bench, server, workload, seconds):
    """One measured run: the load's result and cpu_us, the server's CPU time per request."""
    before = server.cpu_ns()
    result = load(bench, server, workload, seconds=seconds)
    after = server.cpu_ns()
    spent = sum(ns - before.get(pid, 0) for pid, ns in after.items())
    result["cpu_us"] = spent / 1000.0 / result["requests"]
    return result


def cpu_rounds(bench, kinds, names):
    """Interleaved rounds of every workload on every server: {workload: {server: [run, ...]}}.
    The order of the servers turns with each round, so that none always follows another."""
    servers = [bench.start(kind) for kind in kinds]
    runs = {name: {s.name: [] for s in servers if s.name in WORKLOADS[name].servers}
            for name in names}
    for name in (name for name in names if WORKLOADS[name].fill):
        for server in servers:
            # Who asks for rounds of less wants to know whether it works, not what it costs.
            if server.name in runs[name] and bench.seconds >= 0.5:
                load(bench, server, WORKLOADS[name], requests=4 * WORKLOADS[name].keys)
    for number in range(-1, bench.rounds):      # round -1 warms up and is not counted
        turn = servers[number % len(servers):] + servers[:number % len(servers)]
        for name in names:
            for server in turn:
                if server.name not in runs[name]:
                    continue
                run = cpu_run(bench, server, WORKLOADS[name],
                              bench.seconds if number >= 0 else min(0.3, bench.seconds))
                if number >= 0:
                    runs[name][server.name].append(run)
                    bench.note("round %d of %d, %s, %s: %.1f µs, %.0f/s" % (
                        number + 1, bench.rounds, name, server.name, run["cpu_us"], run["rps"]))
    for server in servers:
        bench.stop(server)
    return runs


def peers_groups(method, port):
    """The upstream blocks of a method: servers 127.1.x.y, all one origin's."""
    line, _ = METHODS[method]
    text = ""
    for count in PEERS:
        text += "    upstream peers%d {\n        %s\n" % (
            count, line.replace(WEIGHTED, "").replace("@N@", str(count)))
        for i in range(count):
            weight = " weight=%d" % (i % 7 + 1) if line.startswith(WEIGHTED) else ""
            text += "        server 127.1.%d.%d:%d%s max_fails=0;\n" % (
                i // 250, i % 250 + 1, port, weight)
        # Enough for every server's: what is lost to connecting is not the choice's.
        text += "        keepalive 4096;\n        keepalive_requests 1000000000;\n" \
                "        keepalive_timeout 600s;\n    }\n"
    return text


def peers_workload(count):
    """Requests that any of so many servers answers, by a million keys."""
    return Workload("/peers%d/1k" % count if count > 1 else "/1k", K, BOTH, keys=1000000)


def peers_start(bench, kind, method, **more):
    return bench.start(kind, connections=16384, template="peers.conf.in",
                       groups=peers_groups(method, bench.origin.port),
                       at_random=method == "at random", **more)


def peers_rounds(bench, kinds, methods):
    """[(method, peers, server, [run, ...])]: rounds interleaved over servers and numbers of
    peers, one method after the other; before them every connection is made."""
    rows = []
    for method in methods:
        found = {}
        running = [peers_start(bench, kind, method) for kind in kinds
                   if kind.name in METHODS[method][1]]
        for server in running:
            for count in PEERS:
                load(bench, server, peers_workload(count), requests=10 * count + 2000)
        pairs = [(server, count) for server in running for count in PEERS]
        for number in range(bench.rounds):
            for server, count in pairs[number % len(pairs):] + pairs[:number % len(pairs)]:
                run = cpu_run(bench, server, peers_workload(count), bench.seconds)
                found.setdefault((count, server.name), []).append(run)
                bench.note("round %d of %d, %s, %s, %d peers: %.1f µs" % (
                    number + 1, bench.rounds, method, server.name, count, run["cpu_us"]))
        for server in running:
            bench.stop(server)
        rows += [(method, count, server.name, found[count, server.name])
                 for server in running for count in PEERS]
    return rows


def peers_instructions(bench, kinds, methods):
    """[(method, peers, server, instructions in user space per request)], by callgrind: what
    2,000 requests more cost when there is a connection to every server."""
    rows = []
    for method in methods:
        for kind in kinds:
            if kind.name not in METHODS[method][1]:
                continue
            for count in PEERS:
                total = [callgrind_total(bench, kind, peers_workload(count), requests,
                                         connections=16384, template="peers.conf.in",
                                         groups=peers_groups(method, bench.origin.port))
                         for requests in (5000, 7000)]
                rows.append((method, count, kind.name, (total[1] - total[0]) / 2000))
                bench.note("%s, %s, %d peers: %.0f" % (method, kind.name, count, rows[-1][-1]))
    return rows


def memory_of(pid):
    """Octets of user memory of a process: private, anonymous, and in [heap]."""
    found = {"private": 0, "anonymous": 0, "heap": 0}
    with open("/proc/%d/smaps_rollup" % pid) as rollup:
        for line in rollup:
            name, _, value = line.partition(":")
            if name in ("Private_Clean", "Private_Dirty"):
                found["private"] += int(value.split()[0]) * K
            elif name == "Anonymous":
                found["anonymous"] = int(value.split()[0]) * K
    in_heap = False
    with open("/proc/%d/smaps" % pid) as smaps:
        for line in smaps:
            if re.match(r"[0-9a-f]+-[0-9a-f]+ ", line):
                in_heap = line.rstrip().endswith("[heap]")
            elif in_heap and line.startswith("Rss:"):
                found["heap"] += int(line.split()[1]) * K
    return found


class Idle:
    """`count` connections that have had one answer each, held open until closed."""

    def __init__(self, bench, server, count, workload):
        tool = bench.tools["load_tls" if workload.tls else "load"]
        self.popen = subprocess.Popen(
            [tool, *workload.load_args(server), "--idle",
             "--connections=%d" % count, "--flight=%d" % bench.flight],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        line = self.popen.stdout.readline()
        if line != "ready\n":
            self.popen.communicate()
            raise Failed("%s: idle connections: %s" % (server.name, line.strip()))

    def close(self):
        """Ends them; raises Failed where the server had closed some."""
        result = json.loads(self.popen.communicate(timeout=60)[0])
        if result["errors"]:
            raise Failed("idle connections: %d errors, the first: %s" % (
                result["errors"], result["first_error"]))


def memory(bench, kind, count, name="proxy1k"):
    """User memory per idle kept-alive connection of one server, two ways, in octets:
    "grown": from no connection to `count`, in one warmed-up process;
    "all": the same compared with a process configured for 256 connections: whatever is
    prepared in advance for connections to come is in it."""
    measured = []
    # A sixteenth more: nginx closes idle connections where fewer slots than that are free.
    for slots, idle in ((256, 0), ((count + 128) * 16 // 15 + 1, count)):
        server = bench.start(kind, connections=slots)
        load(bench, server, WORKLOADS[name], **WARM)
        pid = server.worker()
        before = memory_of(pid)
        if idle:
            connections = Idle(bench, server, idle, WORKLOADS[name])
            after = memory_of(pid)
            connections.close()
        else:
            after = before
        measured.append((before, after))
        bench.stop(server)
    base, (before, after) = measured[0][1], measured[1]
    return {"grown": {part: (after[part] - before[part]) / count for part in after},
            "all": {part: (after[part] - base[part]) / count for part in after}}


def strace_summary(text, requests):
    """{system call: calls per request} out of strace -c; failed calls stand apart."""
    calls = {}
    for line in text.splitlines():
        words = line.split()
        if len(words) not in (2, 3) or not all(word.isdigit() for word in words[1:]) \
                or words[0] == "total":
            continue
        failed = int(words[2]) if len(words) == 3 else 0
        for name, number in ((words[0], int(words[1]) - failed),
                             (words[0] + " (failed)", failed)):
            if number / requests >= 0.005:
                calls[name] = number / requests
    return calls


def syscalls(bench, server, workload):
    """System calls per request of the server's worker, by strace, connections included."""
    requests = max(200, 6000 // workload.weight)
    load(bench, server, workload, requests=max(200, WARM["requests"] // workload.weight))
    pid, out = server.worker(), os.path.join(bench.directory, "strace.out")
    strace = subprocess.Popen(
        [shutil.which("strace"), "-c", "-f", "-U", "name,calls,errors", "-o", out,
         "-p", str(pid)], stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 10
        while True:
            with open("/proc/%d/status" % pid) as status:
                if "TracerPid:\t0\n" not in status.read():
                    break
            if strace.poll() is not None or time.monotonic() > deadline:
                raise Failed("strace cannot trace %s (%d)" % (server.name, pid))
            time.sleep(0.02)
        load(bench, server, workload, requests=requests)
    finally:
        if strace.poll() is None:
            strace.send_signal(signal.SIGINT)
        strace.wait(20)
    with open(out) as summary:
        return strace_summary(summary.read(), requests)


def callgrind_total(bench, kind, workload, requests, **more):
    """Instructions in user space from the start of a server to its end."""
    server = bench.start(kind, start_s=60, **more, wrap=[
        shutil.which("valgrind"), "--tool=callgrind", "-q",
        "--callgrind-out-file=@DIR@/callgrind.%p"])
    load(bench, server, workload, requests=requests, connections=8)
    bench.stop(server, 60)
    total = 0
    for name in os.listdir(server.directory):
        if name.startswith("callgrind."):
            with open(os.path.join(server.directory, name)) as out:
                found = re.findall(r"^(?:summary|totals): (\d+)", out.read(), re.M)
            total += int(found[0]) if found else 0
    if total == 0:
        raise Failed("callgrind wrote no totals for " + kind.name)
    return total


def instructions(bench, kind, workload):
    """User-space instructions per request: what 1,000 requests more cost, by callgrind."""
    few, more = 200, max(100, 1000 // workload.weight)
    return (callgrind_total(bench, kind, workload, few + more)
            - callgrind_total(bench, kind, workload, few)) / more


def allocations(bench, kind, names):
    """{workload: (allocations, frees) per request} of a warm server, counted by a preloaded
    library around 6,000 small requests or so; the connections' own are in it."""
    path = os.path.join(bench.directory, "malloc." + kind.name)
    with open(path, "wb") as counts:
        counts.write(bytes(16))
    os.chmod(path, 0o666)
    server = bench.start(kind, env={"LD_PRELOAD": bench.tools["malloc_count"],
                                    "BENCH_MALLOC_COUNT": path})
    found = {}

    def read():
        with open(path, "rb") as counts:
            return struct.unpack("QQ", counts.read(16))

    for name in names:
        workload = WORKLOADS[name]
        if kind.name not in workload.servers:
            continue
        requests = max(200, 6000 // workload.weight)
        load(bench, server, workload, requests=requests)    # warm
        before = read()
        load(bench, server, workload, requests=requests)
        after = read()
        found[name] = tuple((b - a) / requests for a, b in zip(before, after))
    bench.stop(server)
    if read() == (0, 0):
        print("bench: %s does not let its allocations be counted" % kind.name, file=sys.stderr)
        return {}
    return found
