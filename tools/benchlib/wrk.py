"""Runs wrk and reads its report."""

import os
import re
import shutil
import subprocess
from dataclasses import dataclass

from .process import child_setup
from .report import BenchError
from .subjects import SOURCES

UNITS_US = {"us": 1.0, "ms": 1e3, "s": 1e6, "m": 60e6}


@dataclass
class Load:
    requests: int  # answered, each pipelined one counted
    rps: float
    p99_us: float


def require():
    if shutil.which("wrk") is None:
        raise BenchError("wrk is not installed (apt-get install wrk)")


def run(name, port, connections, pipeline, seconds, cpus, headers=()):
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency"]
    if pipeline:
        command += ["-s", str(SOURCES / "pipeline.lua")]
    for header in headers:
        command += ["-H", header]
    command.append(f"http://127.0.0.1:{port}/plaintext")
    environment = dict(os.environ, SHOAL_BENCH_CONNECTIONS=str(connections))
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                               text=True, env=environment, start_new_session=True,
                               preexec_fn=child_setup(cpus))
    try:
        text = process.communicate(timeout=seconds + 30)[0]
    except subprocess.TimeoutExpired:
        raise BenchError(f"{name}: wrk does not end") from None
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    return parse(name, text)


def parse(name, text):
    total = re.search(r"(\d+) requests in", text)
    rate = re.search(r"Requests/sec:\s+([\d.]+)", text)
    p99 = (re.search(r"batch p99: (\d+)(us)\s", text) or
           re.search(r"\s99%\s+([\d.]+)(us|ms|s|m)\s", text))
    if not (total and rate and p99) or int(total[1]) == 0:
        raise BenchError(f"{name}: wrk reports nothing: {text.strip()[-200:]}")
    for trouble in (r"Non-2xx or 3xx responses: \d+", r"Socket errors: .*"):
        match = re.search(trouble, text)
        if match:
            raise BenchError(f"{name}: wrk reports {match[0]}")
    return Load(int(total[1]), float(rate[1]), float(p99[1]) * UNITS_US[p99[2]])
