# SPDX-License-Identifier: BSD-2-Clause
"""The servers under test: how each is configured, started, recognised in /proc and stopped.

Used by scripts/bench. Every process is ended by its own pid; nothing is looked up by name.
"""
import ctypes
import grp
import os
import pwd
import re
import resource
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
START_S = 10        # for a server to answer, and to stop
OWN = {"relay": "relay", "floor": "handshake_floor"}     # yardsticks: their sources
CFLAGS = ["-std=gnu11", "-D_GNU_SOURCE", "-O2", "-Wall", "-Wextra"]


def build_tools(directory):
    """Compiles relay, handshake floor, origin, the load generators and the malloc counter into
    directory: {name: path}."""
    tools = {}
    for name, source, more in (("relay", "relay.c", []), ("origin", "origin.c", []),
                               ("load", "load.c", ["-lm"]),
                               ("load_tls", "load_tls.c", ["-lssl", "-lcrypto"]),
                               ("floor", "handshake_floor.c", ["-lssl", "-lcrypto"]),
                               ("malloc_count", "malloc_count.c", ["-shared", "-fPIC"])):
        tools[name] = os.path.join(directory, name)
        subprocess.run([os.environ.get("CC", "cc"), *CFLAGS, os.path.join(HERE, source),
                        "-o", tools[name], *more], check=True)
    return tools


def make_certificates(directory):
    """bench.pem (ECDSA P-256) and rsa.pem (RSA 2048), each with its key in the same file."""
    for name, key in (("bench", ["ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]),
                      ("rsa", ["rsa:2048"])):
        path = os.path.join(directory, name + ".pem")
        parts = [path + ".key", path + ".crt"]
        subprocess.run(["openssl", "req", "-x509", "-newkey", *key, "-nodes", "-days", "30",
                        "-subj", "/CN=bench.example.com", "-keyout", parts[0], "-out", parts[1]],
                       check=True, stderr=subprocess.DEVNULL)
        with open(path, "w") as pem:
            for part in parts:
                with open(part) as text:
                    pem.write(text.read())


def free_port():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


def raise_nofile(wanted):
    """Raises the limit of open files to `wanted` if it may; the limit there is now."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for limit in ((wanted, max(wanted, hard)), (min(wanted, hard), hard)):
        if soft >= wanted:
            break
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, limit)
            break
        except (ValueError, OSError):
            continue
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def cpus():
    """(the server's, the load's), and whether they differ."""
    usable = sorted(os.sched_getaffinity(0))
    return usable[0], usable[-1], usable[0] != usable[-1]


def nobody():
    """The "user" line: workers of a server started by root run as nobody."""
    if os.geteuid() != 0:
        return ""
    user = pwd.getpwnam("nobody")
    return "user nobody %s;" % grp.getgrgid(user.pw_gid).gr_name


def answers(port, tls=False):
    """Whether a GET is answered on the port with a status line."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=START_S) as sock:
            sock.settimeout(START_S)
            if tls:
                context = ssl.create_default_context()
                context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
                sock = context.wrap_socket(sock)
            sock.sendall(b"GET /1k HTTP/1.1\r\nHost: bench.example.com\r\n"
                         b"Connection: close\r\n\r\n")
            return sock.recv(64).startswith(b"HTTP/1.1 200")
    except OSError:
        return False


LIBC = ctypes.CDLL(None)
PR_SET_PDEATHSIG = 1


class Process:
    """A process of ours, on one CPU, with its children."""

    def __init__(self, name, argv, port, cpu, env=None, start_s=START_S, log=None, tls=False):
        self.name, self.port = name, port
        self.seen = set()
        output = open(log, "ab") if log else subprocess.DEVNULL
        try:
            self.popen = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                env=dict(os.environ, **(env or {})),
                preexec_fn=lambda: (os.sched_setaffinity(0, {cpu}),
                                    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)))
        finally:
            if log:
                output.close()
        deadline = time.monotonic() + start_s
        while not answers(port, tls):
            if self.popen.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise RuntimeError("%s does not start: %s%s" % (
                    name, " ".join(argv), "\n" + tail(log) if log else ""))
            time.sleep(0.02)
        self.pids()

    def pids(self):
        """The process and all its descendants."""
        found, todo = [], [self.popen.pid]
        while todo:
            pid = todo.pop()
            try:
                for task in os.listdir("/proc/%d/task" % pid):
                    with open("/proc/%d/task/%s/children" % (pid, task)) as children:
                        todo += [int(child) for child in children.read().split()]
                found.append(pid)
            except OSError:
                continue
        self.seen.update(found)
        return found

    def worker(self):
        """The process that serves: the child where there is one, else the process itself."""
        pids = self.pids()
        for pid in pids[1:]:
            with open("/proc/%d/cmdline" % pid, "rb") as cmdline:
                if b"worker" in cmdline.read():
                    return pid
        return pids[1] if len(pids) > 1 else pids[0]

    def cpu_ns(self):
        """{pid: nanoseconds on a processor, over all its threads}."""
        times = {}
        for pid in self.pids():
            times[pid] = 0
            for task in os.listdir("/proc/%d/task" % pid):
                with open("/proc/%d/task/%s/schedstat" % (pid, task)) as stat:
                    times[pid] += int(stat.read().split()[0])
        return times

    def stop(self, stop_s=START_S):
        if self.popen.poll() is None:
            self.pids()
            self.popen.terminate()
            try:
                self.popen.wait(stop_s)
            except subprocess.TimeoutExpired:
                self.popen.kill()
                self.popen.wait()
                for pid in self.seen - {self.popen.pid}:    # orphans of the one just killed
                    try:
                        os.kill(pid, signal.SIGKILL)
                    except OSError:
                        pass


def tail(path):
    try:
        with open(path, errors="replace") as log:
            return "".join(log.readlines()[-8:])
    except OSError:
        return ""


class Kind:
    """How one of the servers is run. `binary` is None where it is not there."""

    def __init__(self, name, binary, template=None):
        self.name, self.binary, self.template = name, binary, template

    def version(self):
        if self.template is None:
            return "t/bench/%s.c" % self.binary
        out = subprocess.run([self.binary, "-v"], stdout=subprocess.PIPE,
                             stderr=subprocess.STDOUT, text=True, check=False).stdout
        line = out.splitlines()[0] if out else "?"
        match = re.search(r"(\S+/[0-9]\S*)|version ([0-9]\S*)", line)
        return (match.group(1) or self.name + "/" + match.group(2)) if match else line

    def configure(self, directory, port, ports_tls, origin, connections, template=None, groups=""):
        template = template or self.template
        path = os.path.join(directory, template[:-3])
        more = "".join("%s_temp_path %s/tmp_%s; " % (name, directory, name)
                       for name in ("fastcgi", "uwsgi", "scgi")) if self.name == "nginx" else ""
        values = {"USER": nobody(), "DIR": directory, "LISTEN": "127.0.0.1:%d" % port,
                  "TLS": "127.0.0.1:%d" % ports_tls[0], "RSA": "127.0.0.1:%d" % ports_tls[1],
                  "PEM": os.path.join(directory, ".."), "ORIGIN": origin,
                  "CONNECTIONS": str(connections), "MORE": more, "GROUPS": groups,
                  "NOFILE": str(connections + 256)}
        with open(os.path.join(HERE, template)) as text, open(path, "w") as out:
            out.write(re.sub(r"@([A-Z]+)@", lambda m: values[m.group(1)], text.read()))
        return path

    def start(self, directory, tools, origin, cpu, connections=1024, wrap=(), template=None,
              groups="", at_random=False, **more):
        """Starts it in a new folder below directory; wrap: a command before its own, in
        which "@DIR@" is that folder. template: another one than usual, for nginx and proxyd; at_random: how the
        relay takes peers."""
        where = os.path.join(directory, "%s-%d" % (self.name, len(os.listdir(directory))))
        os.mkdir(where)
        os.chmod(where, 0o777)      # its worker may be nobody
        port, port_close, ports_tls = free_port(), None, (free_port(), free_port())
        if self.name == "floor":
            port, more["tls"] = ports_tls[0], True
            argv = [tools["floor"], *("127.0.0.1:%d" % p for p in ports_tls), directory]
        elif self.name == "relay":
            port_close = free_port()
            argv = [tools["relay"], "127.0.0.1:%d" % port, "127.0.0.1:%d" % port_close, origin]
            argv += ["random"] if at_random else []
        else:
            conf = self.configure(where, port, ports_tls, origin, connections, template, groups)
            argv = [self.binary, "-db", "-f", conf] if self.name == "haproxy" else \
                [self.binary, "-p", where, "-e", where + "/error.log", "-c", conf]
        wrap = [word.replace("@DIR@", where) for word in wrap]
        process = Process(self.name, wrap + argv, port, cpu, log=where + "/output", **more)
        process.port_close, process.directory = port_close, where
        process.ports_tls = dict(zip(("ecdsa", "rsa"), ports_tls))
        return process


def kinds(names, paths):
    """The servers of `names` that are there, in that order; says which are left out."""
    found = []
    for name in names:
        if name in OWN:
            found.append(Kind(name, OWN[name]))
            continue
        binary = shutil.which(paths[name], path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
        if binary is None:
            print("bench: %s is not there (%s): left out" % (name, paths[name]),
                  file=sys.stderr)
            continue
        template = "haproxy.cfg.in" if name == "haproxy" else "nginx.conf.in"
        found.append(Kind(name, os.path.abspath(binary), template))
    return found
