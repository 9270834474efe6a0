"""Footprint: memory of an idle connection, CPU when idle, build time, time to first answer.

The ratio of these rows is to what Shoal must reach (LIMITS), since no floor exists for them.
"""

import os
import shutil
import statistics
import subprocess
import tempfile
import time

from . import client, process, subjects
from .report import BenchError

SUMMARY = "memory per idle connection, idle CPU, build time, time to first answer"

LIMITS = {"idle-conn-bytes": 512, "idle-cpu": 0.05, "build-time": 30, "first-answer": 50}
PEERS = subjects.SHOAL + ("nginx",)
FEW, MANY = 1000, 9000
SETTLE_S = 2.0
FIRST_ANSWER_RUNS = 20


def add_arguments(parser):
    parser.add_argument("--seconds", type=float, default=60, metavar="N",
                        help="how long idle CPU is watched (default: 60)")
    parser.add_argument("--cases", default=",".join(LIMITS), metavar="A,B",
                        help="cases (default: %(default)s)")
    parser.add_argument("--subjects", default=None, metavar="A,B",
                        help=f"subjects (default: {','.join(PEERS)}, what can be had)")
    subjects.add_arguments(parser)


def run(args, report):
    if args.seconds <= 0:
        raise BenchError("--seconds must be more than 0")
    cases = subjects.parse_names(args.cases, list(LIMITS), "--cases")
    names = subjects.parse_names(args.subjects or ",".join(PEERS), PEERS, "--subjects")
    report.machine()
    measure = {"idle-conn-bytes": idle_conn_bytes, "idle-cpu": idle_cpu,
               "build-time": build_time, "first-answer": first_answer}
    for case in cases:
        measure[case](names, args, report)


def idle_conn_bytes(names, args, report):
    """The slope of resident memory over the number of connections."""
    many = min(MANY, subjects.descriptor_limit() - 500)
    if many < 2 * FEW:
        raise BenchError(f"too few descriptors (ulimit -n) for {2 * FEW} connections")
    cpu = process.server_and_load_cpus()[0]
    report.heading(f"idle-conn-bytes: resident memory from {FEW} to {many} connections")
    for name in names:
        for server in subjects.start_available([name], args, report, args.subjects is not None,
                                               cpus=[cpu], connections=many + 100):
            with server, client.IdleConnections(server.port) as connections:
                samples = []
                for count in (FEW, many):
                    connections.grow(count)
                    time.sleep(SETTLE_S)
                    samples.append(server.memory_bytes())
                connections.check_open()
                slope = [(after - before) / (many - FEW) for before, after in zip(*samples)]
                report.row("idle-conn-bytes", name, slope[0], "B",
                           slope[0] / LIMITS["idle-conn-bytes"],
                           f"private {slope[1]:.0f} B, in all "
                           f"{samples[1][0] / 2**20:.1f} MiB at {many}",
                           private=slope[1], resident=samples[1][0])


def idle_cpu(names, args, report):
    """All subjects idle side by side through the same seconds."""
    subjects.all_cpus_needed(2)
    report.heading(f"idle-cpu: two cores or workers, no connection, over {args.seconds:g} s")
    servers = subjects.start_available(names, args, report, args.subjects is not None, cores=2)
    try:
        time.sleep(SETTLE_S)
        start = time.monotonic()
        before = [server.cpu_ns() for server in servers]
        time.sleep(args.seconds)
        after = [server.cpu_ns() for server in servers]
        elapsed_ns = (time.monotonic() - start) * 1e9
        for server, first, last in zip(servers, before, after):
            server.check_running()
            percent = 100 * (last - first) / elapsed_ns
            report.row("idle-cpu", server.name, percent, "percent",
                       percent / LIMITS["idle-cpu"], f"{(last - first) / 1e6:.2f} ms of CPU",
                       cpu_ms=(last - first) / 1e6)
    finally:
        for server in servers:
            server.stop()


def build_time(names, args, report):
    """Configure and build both libraries from nothing, with the release preset."""
    if not any(name in subjects.SHOAL for name in names):
        return
    report.heading("build-time: configure and build the shared and the static library")
    for tool in ("cmake", "ninja"):
        if shutil.which(tool) is None:
            raise BenchError(f"build-time: {tool} is not installed")
    with tempfile.TemporaryDirectory(prefix="shoal-bench-build-") as directory:
        # a compiler cache would measure nothing
        environment = dict(os.environ, CCACHE_DISABLE="1")
        start = time.monotonic()
        for command in (
                ["cmake", "--preset", "release", "-B", directory],
                ["cmake", "--build", directory, "--target", "shoal", "shoal_static",
                 "--parallel", str(len(process.usable_cpus()))]):
            result = subprocess.run(command, cwd=subjects.ROOT, env=environment,
                                    stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                    stderr=subprocess.STDOUT, text=True)
            if result.returncode != 0:
                last = "\n".join(result.stdout.strip().splitlines()[-5:])
                raise BenchError(f"build-time: {' '.join(command)} fails:\n{last}")
        seconds = time.monotonic() - start
    report.row("build-time", "shoal", seconds, "s", seconds / LIMITS["build-time"],
               f"{len(process.usable_cpus())} CPUs")


def first_answer(names, args, report):
    """From the start of the process to the first byte of its first answer."""
    subjects.all_cpus_needed(2)
    report.heading(f"first-answer: two cores or workers, median of {FIRST_ANSWER_RUNS} starts")
    for name in names:
        try:
            times_ms = [start_to_answer_ms(name, args) for _ in range(FIRST_ANSWER_RUNS)]
        except process.NotAvailable as error:
            if args.subjects is not None:
                raise
            report.note(f"left out: {error}")
            continue
        value = statistics.median(times_ms)
        report.row("first-answer", name, value, "ms", value / LIMITS["first-answer"],
                   f"{min(times_ms):.1f}-{max(times_ms):.1f} ms", worst=max(times_ms))


def start_to_answer_ms(name, args):
    port = subjects.free_port()
    with tempfile.TemporaryDirectory(prefix="shoal-bench-nginx-") as directory:
        if name == "nginx":
            command = subjects.nginx_command(directory, 2, 1024, port)
        else:
            command = subjects.shoal_command(name, args.httpd, 2, 1024, port)
        start = time.monotonic()
        with process.Server(name, command) as server:
            server.port = port
            sock = connect_when_open(server, start)
            with sock:
                sock.sendall(client.request("/plaintext"))
                first = sock.recv(1)
                elapsed_ms = (time.monotonic() - start) * 1e3
                status, body, _ = client.read_answer(sock, first)
            if status != 200 or body != client.BODY:
                raise BenchError(f"{name}: the first answer is {status} with {body[:40]!r}")
            return elapsed_ms


def connect_when_open(server, start):
    while True:
        try:
            return client.connect(server.port)
        except ConnectionRefusedError:
            server.check_running()
            if time.monotonic() - start > process.START_LIMIT_S:
                raise BenchError(f"{server.name}: port does not open") from None
            # short enough not to show, long enough not to take a core from the server
            time.sleep(0.0001)
