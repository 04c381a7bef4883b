# SPDX-License-Identifier: BSD-2-Clause
"""Tables of what was measured, plain or as markdown, and the goals they are held against.

Used by scripts/bench. A ratio is between medians of the same run; none is made across runs.
"""
import statistics

# CPU time per request of proxyd at most this many times the other server's.
GOALS = {
    "proxy1k": {"nginx": 0.82, "relay": 1.15},
    "proxy64k": {"nginx": 0.62},
    "proxy1m": {"nginx": 0.90},
    "static1k": {"nginx": 0.62},
    "conn1k": {"nginx": 0.80},
    "tls1k": {"nginx": 0.85},
    "tls1m": {"nginx": 0.95},
    "tlsconn": {"nginx": 0.97},
    # As many handshakes a second as all but 3 % of what the library alone makes.
    "shake": {"floor": 1.03},
    "shakersa": {"floor": 1.03},
    "shakeresumed": {"floor": 1.03},
}
MEMORY_GOAL = 512   # octets per idle connection, everything prepared for it included


def table(head, rows, markdown, text=(0, 1)):
    """The rows below the head, as lines. The columns in `text` are words, the others numbers."""
    rows = [[str(cell) for cell in row] for row in rows]
    if markdown:
        return ["| " + " | ".join(head) + " |",
                "|" + "|".join(" --- " if i in text else " ---: " for i in range(len(head))) + "|",
                *("| " + " | ".join(row) + " |" for row in rows)]
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
    return ["  ".join(cell.ljust(width) if i in text else cell.rjust(width)
                      for i, (cell, width) in enumerate(zip(row, widths))).rstrip()
            for row in [head, *rows]]


def median(runs, what):
    return statistics.median(run[what] for run in runs)


def ratio(runs, server, other):
    if not runs.get(other) or not runs.get(server):
        return None
    return median(runs[server], "cpu_us") / median(runs[other], "cpu_us")


def show(value, form="%.2f"):
    return "–" if value is None else form % value


def cpu_table(runs, markdown):
    head = ["workload", "server", "CPU µs/request", "lowest–highest", "× nginx", "× relay",
            "requests/s", "p50 µs", "p99 µs"]
    rows = []
    for workload, servers in runs.items():
        for server, measured in servers.items():
            times = [run["cpu_us"] for run in measured]
            rows.append([workload, server, "%.1f" % statistics.median(times),
                         "%.1f–%.1f" % (min(times), max(times)),
                         show(ratio(servers, server, "nginx")),
                         show(ratio(servers, server, "relay")),
                         "{:,.0f}".format(median(measured, "rps")),
                         "%.0f" % median(measured, "p50_us"),
                         "%.0f" % median(measured, "p99_us")])
    return table(head, rows, markdown)


def goals(runs):
    """[(workload, other, goal, ratio)] for proxyd, where both were measured."""
    found = []
    for workload, limits in GOALS.items():
        for other, limit in limits.items():
            value = ratio(runs.get(workload, {}), "proxyd", other)
            if value is not None:
                found.append((workload, other, limit, value))
    return found


def goals_table(runs, markdown):
    rows = [[workload, "proxyd / " + other, "%.2f" % limit, "%.2f" % value,
             "met" if value <= limit else "missed"]
            for workload, other, limit, value in goals(runs)]
    return table(["workload", "ratio", "goal", "measured", ""], rows, markdown,
                 (0, 1, 4)) if rows else []


def handshakes_table(runs, markdown):
    """Of the workloads that the floor has a part in: what a second of CPU time gets done."""
    rows = []
    for workload, servers in runs.items():
        if not servers.get("floor"):
            continue
        for server in servers:
            rows.append([workload, server,
                         "{:,.0f}".format(1e6 / median(servers[server], "cpu_us")),
                         "%.3f" % (1 / ratio(servers, server, "floor"))])
    return table(["workload", "server", "handshakes/CPU second", "× the bare library's"], rows,
                 markdown) if rows else []


def memory_table(found, count, markdown):
    head = ["server", "connections", "all, private", "all, anonymous", "grown, private",
            "grown, anonymous", "grown, heap"]
    rows = [[server, "{:,}".format(count),
             "%.0f" % f["all"]["private"], "%.0f" % f["all"]["anonymous"],
             "%.0f" % f["grown"]["private"], "%.0f" % f["grown"]["anonymous"],
             "%.0f" % f["grown"]["heap"]] for server, f in found.items()]
    return table(head, rows, markdown)


def syscalls_table(found, markdown):
    rows = []
    for workload, server, calls in found:
        each = sorted(calls.items(), key=lambda item: -item[1])
        rows.append([workload, server, "%.2f" % sum(calls.values()),
                     ", ".join("%s %.2f" % item for item in each)])
    return table(["workload", "server", "all", "system calls per request"], rows, markdown,
                 (0, 1, 3))


def peers_table(rows, markdown):
    least = {(method, count, server): min(run["cpu_us"] for run in runs)
             for method, count, server, runs in rows}
    return table(["method", "peers", "server", "CPU µs/request, lowest", "median", "× 1 peer"],
                 [[method, count, server, "%.2f" % least[method, count, server],
                   "%.2f" % median(runs, "cpu_us"),
                   "%.3f" % (least[method, count, server] / least[method, 1, server])]
                  for method, count, server, runs in rows], markdown, (0, 2))


def peers_instructions_table(rows, markdown):
    one = {(method, server): value for method, count, server, value in rows if count == 1}
    return table(["method", "peers", "server", "instructions/request", "more than for 1", "× 1 peer"],
                 [[method, count, server, "{:,.0f}".format(value),
                   "{:,.0f}".format(value - one[method, server]),
                   "%.3f" % (value / one[method, server])]
                  for method, count, server, value in rows], markdown, (0, 2))


def instructions_table(found, markdown):
    return table(["workload", "server", "instructions/request"],
                 [[w, s, "{:,.0f}".format(n)] for w, s, n in found], markdown)


def allocations_table(found, markdown):
    return table(["workload", "server", "allocations/request", "frees/request"],
                 [[w, s, "%.3f" % a, "%.3f" % f] for w, s, a, f in found], markdown)
