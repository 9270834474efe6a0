"""Balance: what --accept-balance balanced costs and brings, next to kernel.

1. Both modes are up side by side, and take turns round by round, each of them first in every
   other round. A ratio is that of balanced to kernel within one round, then the median.
2. `brief` asks once a connection (wrk, Connection: close) and `lasting` keeps its connections. CPU
   per request is the server's, over everything: accepting, handing over, closing.
3. The spread of a round is the fullest core's connections over the mean, counted by GET /cores once
   all are open. Spreads need no processor of their own for each core: they are taken with more
   cores than there are, too.
4. A Unix socket has one queue, from which whoever is woken first takes: the kernel balances nothing.

With few CPUs the client and the cores take turns on them; what more cores would gain by being even
(throughput, latency) cannot be seen there, and is not reported.
"""

import json
import socket
import statistics
import tempfile
import time

from . import client, process, subjects, wrk
from .report import BenchError

SUMMARY = "accepted connections: kernel against balanced, spread and cost"

MODES = ("kernel", "balanced")
BACKENDS = ("epoll", "io_uring")
CASES = ("brief", "lasting", "spread-2", "spread-8", "spread-unix-8")
LOAD_CONNECTIONS = 64
SPREADS = (8, 16, 64, 512)
CONNECTIONS_MAX = 16384
COUNT_LIMIT_S = 10.0
QUIET_S = 0.15  # longer than the balancer's sample: rounds do not tell on one another


def add_arguments(parser):
    parser.add_argument("--seconds", type=int, default=2, metavar="N",
                        help="seconds a run of brief and lasting (default: 2)")
    parser.add_argument("--pairs", type=int, default=7, metavar="N",
                        help="rounds, each with both modes (default: 7)")
    parser.add_argument("--cases", default=",".join(CASES), metavar="A,B",
                        help="cases (default: %(default)s)")
    parser.add_argument("--backends", default=",".join(BACKENDS), metavar="A,B",
                        help="I/O backends (default: %(default)s)")
    subjects.add_arguments(parser)


def run(args, report):
    if args.seconds < 1 or args.pairs < 1:
        raise BenchError("--seconds and --pairs must be 1 or more")
    cases = subjects.parse_names(args.cases, list(CASES), "--cases")
    backends = subjects.parse_names(args.backends, list(BACKENDS), "--backends")
    report.machine()
    if args.pairs < 5:
        report.note("fewer than 5 rounds: good for a glance only")
    for backend in backends:
        for case in cases:
            try:
                run_case(case, backend, args, report)
            except process.NotAvailable as error:
                if len(backends) == 1:
                    raise
                report.note(f"left out: {error}")
                break


def run_case(case, backend, args, report):
    if case in ("brief", "lasting"):
        wrk.require()
        with Pair(backend, 2, args) as pair:
            cost(case, backend, pair, args, report)
        return
    cores = int(case.rsplit("-", 1)[1])
    with Pair(backend, cores, args, unix="unix" in case) as pair:
        for count in SPREADS:
            spread(case, backend, pair, count, args, report)


class Pair:
    """A server of each mode."""

    def __init__(self, backend, cores, args, unix=False):
        self.servers = []
        self._folder = tempfile.TemporaryDirectory(prefix="shoal-bench-balance-")
        try:
            for mode in MODES:
                self.servers.append(self._start(mode, backend, cores, args, unix))
        except BaseException:
            self.__exit__()
            raise

    def _start(self, mode, backend, cores, args, unix):
        room = min(CONNECTIONS_MAX, subjects.descriptor_limit() - 1000)
        command = subjects.shoal_command(f"shoal-{backend}", args.httpd, cores, room)
        command += ["--accept-balance", mode]
        if cores > len(process.usable_cpus()):
            command.append("--overprovisioned")
        path = f"{self._folder.name}/{mode}"
        if unix:
            command += ["--host", f"unix:{path}"]
        server = process.Server(f"{mode}-{backend}", command)
        server.mode = mode
        server.path = path if unix else None
        try:
            ran = server.wait_for_log(r"io backend: (\w+)")[1]
            if ran != backend:
                raise BenchError(f"{server.name}: runs on {ran}")
            listening = server.wait_for_log(r"listening on \S+?(?::(\d+))? \(")
            server.port = int(listening[1]) if listening[1] else None
        except BaseException:
            server.stop()
            raise
        return server

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        for server in self.servers:
            server.stop()
        self._folder.cleanup()

    def in_turn(self, number):
        return self.servers if number % 2 == 0 else self.servers[::-1]


def connect(server):
    if server.path is None:
        return client.connect(server.port)
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(client.ANSWER_LIMIT_S)
    sock.connect(server.path)
    return sock


def ask_cores(server):
    """What each core says, the connection that asks left out."""
    with connect(server) as sock:
        sock.sendall(client.request("/cores").replace(b"HTTP/1.1", b"HTTP/1.0"))
        text = b""
        while data := sock.recv(65536):
            text += data
    answer = json.loads(text.split(b"\r\n\r\n", 1)[1])
    answer["cores"][answer["answered_by"]]["connections"] -= 1
    return answer["cores"]


def wait_for_connections(server, count):
    end = time.monotonic() + COUNT_LIMIT_S
    while True:
        cores = ask_cores(server)
        if sum(core["connections"] for core in cores) == count:
            return cores
        server.check_running()
        if time.monotonic() > end:
            raise BenchError(f"{server.name}: never {count} connections: {cores}")
        time.sleep(0.01)


def changed(before, after, what):
    return [b[what] - a[what] for a, b in zip(before, after)]


def over_mean(counts):
    return max(counts) * len(counts) / sum(counts) if sum(counts) > 0 else 1.0


def in_ratio(rounds, key):
    """The median over the rounds of balanced / kernel."""
    pairs = zip(rounds["kernel"], rounds["balanced"])
    return statistics.median(b[key] / k[key] for k, b in pairs if k[key] > 0)


def median(rounds, mode, key):
    return statistics.median(entry[key] for entry in rounds[mode])


# brief and lasting


def cost(case, backend, pair, args, report):
    report.heading(f"{case}, {backend}, 2 cores: {LOAD_CONNECTIONS} connections at a time, medians "
                   f"of {args.pairs} rounds of {args.seconds} s; ratios are to kernel")
    rounds = {mode: [] for mode in MODES}
    for number in range(args.pairs):
        for server in pair.in_turn(number):
            rounds[server.mode].append(cost_round(case, server, args))
    for mode in MODES:
        for key, unit, better in (("cpu", "us", "CPU per request"), ("rate", "1/s", "requests"),
                                  ("p99", "us", "99th percentile"),
                                  ("spread", "", "fullest core's requests over the mean"),
                                  ("moved", "percent", "of connections handed over")):
            ratio = in_ratio(rounds, key) if mode == "balanced" and key != "moved" else None
            report.row(f"balance-{case}-{key}", f"{mode}-{backend}", median(rounds, mode, key),
                       unit, ratio, better)


def cost_round(case, server, args):
    before_cores, before_ns = ask_cores(server), server.cpu_ns()
    headers = ["Connection: close"] if case == "brief" else []
    load = wrk.run(server.name, server.port, LOAD_CONNECTIONS, False, args.seconds, None,
                   headers=headers)
    used_us = (server.cpu_ns() - before_ns) / 1000
    server.check_running()
    after_cores = ask_cores(server)
    handed = sum(changed(before_cores, after_cores, "handed"))
    requests = changed(before_cores, after_cores, "requests")
    connections = load.requests if case == "brief" else LOAD_CONNECTIONS
    wait_for_connections(server, 0)
    time.sleep(QUIET_S)
    return {"cpu": used_us / load.requests, "rate": load.rps, "p99": load.p99_us,
            "spread": over_mean(requests), "moved": 100 * handed / connections}


# Spread


def spread(case, backend, pair, count, args, report):
    report.heading(f"{case}, {backend}: {count} connections that last, medians of {args.pairs} "
                   "rounds")
    rounds = {mode: [] for mode in MODES}
    for number in range(args.pairs):
        for server in pair.in_turn(number):
            rounds[server.mode].append(spread_round(server, count))
    for mode in MODES:
        worst = max(entry["spread"] for entry in rounds[mode])
        ratio = in_ratio(rounds, "spread") if mode == "balanced" else None
        report.row(f"balance-{case}-{count}", f"{mode}-{backend}", median(rounds, mode, "spread"),
                   "x mean", ratio,
                   f"worst {worst:.2f}, {median(rounds, mode, 'moved'):.0f} % handed over",
                   worst=worst, moved=median(rounds, mode, "moved"))


def spread_round(server, count):
    before = wait_for_connections(server, 0)
    time.sleep(QUIET_S)
    socks = []
    try:
        for _ in range(count):
            socks.append(connect(server))
            socks[-1].sendall(client.request("/plaintext"))
            client.read_answer(socks[-1])
        after = wait_for_connections(server, count)
    finally:
        for sock in socks:
            sock.close()
    handed = sum(changed(before, after, "handed"))
    return {"spread": over_mean([core["connections"] for core in after]),
            "moved": 100 * handed / count}
