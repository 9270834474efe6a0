"""Runs the workloads of `tools/bench scaling`: which CPUs, the server, the load, one sample."""

import os
import re
import shutil
import subprocess
import time
from pathlib import Path

from . import client, process
from .process import child_setup
from .report import BenchError
from .scaling_points import Sample
from .subjects import LISTENING

SCRIPT = Path(__file__).resolve().parent / "scaling" / "percentiles.lua"
CONNECTIONS_SPARE = 64
LOAD_CPUS_A_CORE = 2  # wrk takes about as long for a request as the server
WARM_UP_S = 0.2


def cpu_groups():
    """The CPUs that may be used, one list for each physical core."""
    groups = {}
    for cpu in process.usable_cpus():
        path = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
        try:
            key = path.read_text().strip()
        except OSError:
            key = str(cpu)
        groups.setdefault(key, []).append(cpu)
    return list(groups.values())


def split_cpus(groups, cores):
    """CPUs for the server, CPUs for the load, and how the two stand (scaling_points.LOADS).

    The server gets one CPU of each physical core first; the load what lies farthest from these.
    """
    depth = max(len(group) for group in groups)
    order = [group[level] for level in range(depth) for group in groups if level < len(group)]
    server = order[:cores]
    rest = order[cores:]
    apart = [cpu for group in groups if not set(group) & set(server) for cpu in group]
    if len(apart) >= min(cores, len(rest)) and apart:
        return server, apart[:LOAD_CPUS_A_CORE * cores], "apart"
    if rest:
        return server, rest[:LOAD_CPUS_A_CORE * cores], "siblings"
    return server, order, "shared"


class Bench:
    """How to run: the program and the options that stay the same throughout."""

    def __init__(self, args):
        self.program = args.program
        self.backend = args.io_backend
        self.seconds = args.seconds
        self.connections = args.connections
        self.window = args.window
        self.groups = cpu_groups()
        self.cpus = sum(map(len, self.groups))
        self.ran_on = None  # the I/O backend
        if not os.access(self.program, os.X_OK):
            raise BenchError(f"no {self.program}; build it first: "
                             "cmake --preset release && cmake --build --preset release")

    def command(self, workload, cores, server_cpus):
        command = [str(self.program), "--workload", workload, "--smp", str(cores),
                   "--io-backend", self.backend, "--log-level", "info",
                   "--blocked-reactor-notify-ms", "0"]
        if cores > self.cpus:
            return command + ["--overprovisioned"]
        return command + ["--cpuset", ",".join(map(str, server_cpus))]

    def paired(self, cores):
        return len(self.groups) < cores <= self.cpus

    def sample(self, workload, cores, number):
        run = self._messages if workload == "messages" else self._http
        return run(workload, cores, number)

    def _messages(self, workload, cores, number):
        server_cpus = split_cpus(self.groups, cores)[0]
        command = self.command(workload, cores, server_cpus)
        command += ["--seconds", f"{self.seconds:g}", "--window", str(self.window),
                    "--warm-up", f"{min(WARM_UP_S, self.seconds):g}"]
        values = run_program(command, self.seconds + 60, server_cpus)
        self.ran_on = values.pop("backend")
        values.pop("operations")
        return Sample(workload, cores, number, **{k: float(v) for k, v in values.items()},
                      overprovisioned=cores > self.cpus, paired=self.paired(cores))

    def _http(self, workload, cores, number):
        server_cpus, load_cpus, load = split_cpus(self.groups, cores)
        connections = self.connections * cores
        command = self.command("serve", cores, server_cpus)
        command += ["--port", "0", "--idle-timeout", "3600",
                    "--max-connections", str(connections + CONNECTIONS_SPARE)]
        path = "/hop" if workload == "hop" else "/plaintext"
        with process.Server(f"{workload} on {cores} cores", command, server_cpus) as server:
            server.port = int(server.wait_for_log(LISTENING)[1])
            self.ran_on = server.wait_for_log(r"io backend: (\w+)")[1]
            status, body = client.get(server.port, path)
            if status != 200 or body != client.BODY:
                raise BenchError(f"GET {path} answers {status} with {body[:40]!r}")
            threads = min(len(load_cpus), connections)
            before_ns, begin = server.cpu_ns(), time.monotonic()
            found = run_wrk(server.port, path, connections, threads, self.seconds, load_cpus)
            used_ns, elapsed = server.cpu_ns() - before_ns, time.monotonic() - begin
            server.check_running()
        return Sample(workload, cores, number, found["ops_per_s"], found["p50_us"],
                      found["p99_us"], found["p999_us"], used_ns / 1e9 / elapsed,
                      used_ns / 1e3 / found["requests"], load,
                      min(1.0, found["cpu_s"] / elapsed / len(load_cpus)), cores > self.cpus,
                      self.paired(cores))


def run_program(command, limit_s, cpus):
    """Runs to the end; the lines of its output, each a name, a tab and a value."""
    try:
        result = subprocess.run(command, capture_output=True, text=True, check=False,
                                timeout=limit_s, preexec_fn=child_setup(cpus))
    except subprocess.TimeoutExpired:
        raise BenchError(f"{' '.join(command)}: does not end") from None
    except OSError as error:
        raise BenchError(f"{command[0]}: {error.strerror}") from error
    if result.returncode != 0:
        last = (result.stderr.strip().splitlines() or ["no message"])[-1]
        raise BenchError(f"{' '.join(command)}: ended with code {result.returncode}: {last}")
    return dict(line.split("\t", 1) for line in result.stdout.splitlines() if "\t" in line)


def require_wrk():
    if shutil.which("wrk") is None:
        raise BenchError("wrk is not installed (apt-get install wrk)")


def run_wrk(port, path, connections, threads, seconds, cpus):
    # wrk takes whole seconds only
    command = ["wrk", f"-t{threads}", f"-c{connections}", f"-d{max(1, round(seconds))}s",
               "-s", str(SCRIPT), f"http://127.0.0.1:{port}{path}"]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                             start_new_session=True, preexec_fn=child_setup(cpus))
    before = os.times()
    try:
        text = child.communicate(timeout=seconds + 60)[0]
    except subprocess.TimeoutExpired:
        raise BenchError("wrk does not end") from None
    finally:
        if child.poll() is None:
            child.kill()
            child.wait()
    after = os.times()
    used = (after.children_user - before.children_user +
            after.children_system - before.children_system)
    return {**parse_wrk(text), "cpu_s": used}


def parse_wrk(text):
    percentiles = re.search(r"percentiles_us: (\d+) (\d+) (\d+)", text)
    answered = re.search(r"answered: (\d+) in (\d+) us", text)
    errors = re.search(r"errors: (\d+)", text)
    if not (percentiles and answered and errors) or int(answered[1]) == 0:
        raise BenchError(f"wrk reports nothing: {text.strip()[-200:]}")
    if int(errors[1]) > 0:
        raise BenchError(f"wrk reports {errors[1]} errors")
    requests = int(answered[1])
    p50, p99, p999 = (float(max(1, int(value))) for value in percentiles.groups())
    return {"requests": requests, "ops_per_s": requests * 1e6 / int(answered[2]),
            "p50_us": p50, "p99_us": p99, "p999_us": p999}
