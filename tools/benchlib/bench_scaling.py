"""Scaling: throughput, latency and CPU over the number of cores, and the law that they follow.

1. Every round runs each workload at each number of cores once; where a round begins turns by one.
   What drifts in the machine so spreads over all points, and does not bend the curve.
2. A server is started anew for each run: how its connections fall on the cores is chance, and the
   spread shows it.
3. Results, charts and report lie in build/bench/scaling/; `--from` makes charts and report anew.
"""

import os
import platform
import time
from pathlib import Path

from . import scaling_load, scaling_mesh, scaling_points, scaling_report, subjects
from .report import BenchError
from .subjects import ROOT

SUMMARY = "throughput, latency and CPU at --smp 1..N, and a fit of the universal scalability law"

CORES_MAX = 1024
FEW = 8  # up to so many CPUs, every number of cores is measured
BIN = ROOT / "build" / "release" / "bin"


def add_arguments(parser):
    parser.add_argument("--quick", action="store_true",
                        help="one round of a second: shows that all works, and little else")
    parser.add_argument("--seconds", type=float, default=None, metavar="N",
                        help="seconds a run (default: 2; wrk takes whole ones)")
    parser.add_argument("--rounds", type=int, default=None, metavar="N",
                        help="rounds (default: 5)")
    parser.add_argument("--workloads", default=",".join(scaling_points.WORKLOADS), metavar="A,B",
                        help="workloads (default: %(default)s)")
    parser.add_argument("--cores", default=None, metavar="1,2,4",
                        help="numbers of cores (default: from 1 to the CPUs there are)")
    parser.add_argument("--overprovisioned", action="store_true",
                        help="also more cores than CPUs, by default up to twice as many")
    parser.add_argument("--connections", type=int, default=64, metavar="N",
                        help="HTTP connections for each core (default: 64)")
    parser.add_argument("--window", type=int, default=128, metavar="N",
                        help="messages that each core keeps in flight (default: 128)")
    parser.add_argument("--io-backend", default="auto", choices=("auto", "io_uring", "epoll"),
                        help="I/O backend (default: auto)")
    parser.add_argument("--from", dest="source", type=Path, default=None, metavar="FILE",
                        help="measure nothing, but draw and judge what FILE holds")
    parser.add_argument("--mesh", action="store_true",
                        help="only what the mesh of rings costs in memory and polling")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "bench" / "scaling",
                        metavar="DIR", help="where it writes (default: build/bench/scaling)")
    parser.add_argument("--program", type=Path, default=BIN / "shoal-bench-scaling",
                        metavar="PATH", help="the program to run (default: build/release/bin/"
                        "shoal-bench-scaling)")
    parser.add_argument("--mesh-program", type=Path, default=BIN / "shoal-bench-mesh",
                        metavar="PATH", help="for --mesh (default: build/release/bin/"
                        "shoal-bench-mesh)")


def run(args, report):
    check(args)
    if args.source is not None:
        machine, options, samples = scaling_points.load(args.source)
        scaling_report.write(args.out, machine, options, samples, report,
                             [f"Drawn from {args.source.name}."])
        return
    report.machine()
    if args.mesh:
        scaling_mesh.run(args, report)
        return
    measure(args, report)


def check(args):
    args.seconds = args.seconds if args.seconds is not None else 1 if args.quick else 2
    args.rounds = args.rounds if args.rounds is not None else 1 if args.quick else 5
    if not 0.001 <= args.seconds <= 3600:
        raise BenchError(f"--seconds: {args.seconds:g} is out of range (allowed: 0.001 to 3600)")
    for name, low, high in (("rounds", 1, 1000), ("connections", 1, 100000), ("window", 1, 255)):
        value = getattr(args, name)
        if not low <= value <= high:
            raise BenchError(f"--{name}: {value} is out of range (allowed: {low} to {high})")


def choose_cores(text, cpus, overprovisioned):
    """The numbers of cores to run on."""
    largest = 2 * cpus if overprovisioned else cpus
    if text is not None:
        try:
            cores = sorted({int(word) for word in text.split(",")})
        except ValueError:
            raise BenchError(f"--cores: \"{text}\" is not a list of numbers") from None
        if cores[0] < 1 or cores[-1] > CORES_MAX:
            raise BenchError(f"--cores: \"{text}\" is out of range (allowed: 1 to {CORES_MAX})")
        if cores[-1] > cpus and not overprovisioned:
            raise BenchError(f"--cores: {cores[-1]} cores, but {cpus} CPUs (allowed with "
                             "--overprovisioned)")
        return cores
    if largest <= FEW:
        return list(range(1, largest + 1))
    steps = {1, 2, 3, 4, cpus, largest}
    for power in range(2, 11):
        steps |= {2 ** power, 3 * 2 ** (power - 1)}
    return sorted(cores for cores in steps if cores <= largest)


def describe_machine():
    model = "unknown processor"
    with open("/proc/cpuinfo", encoding="ascii", errors="replace") as info:
        for line in info:
            if line.startswith("model name"):
                model = line.split(":", 1)[1].strip()
                break
    groups = scaling_load.cpu_groups()
    nodes = list(Path("/sys/devices/system/node").glob("node[0-9]*"))
    return {"cpu": model, "cpus": sum(map(len, groups)), "physical_cores": len(groups),
            "numa_nodes": max(1, len(nodes)), "kernel": platform.release(),
            "date": time.strftime("%Y-%m-%d")}


def measure(args, report):
    workloads = subjects.parse_names(args.workloads, list(scaling_points.WORKLOADS),
                                     "--workloads")
    bench = scaling_load.Bench(args)
    cores = choose_cores(args.cores, bench.cpus, args.overprovisioned)
    if set(workloads) != {"messages"}:
        scaling_load.require_wrk()
    subjects.descriptor_limit()
    runs = [(workload, count) for workload in workloads for count in cores]
    samples = []
    for number in range(args.rounds):
        turn = number % len(runs)
        for workload, count in runs[turn:] + runs[:turn]:
            samples.append(bench.sample(workload, count, number))
        report.note(f"round {number + 1} of {args.rounds} is done")
    machine = {**describe_machine(), "backend": bench.ran_on}
    options = {"rounds": args.rounds, "seconds": args.seconds,
               "connections a core": args.connections, "messages in flight a core": args.window}
    extra = warnings(args.rounds, machine, workloads, cores, bench)
    for line in extra:
        report.note(line)
    args.out.mkdir(parents=True, exist_ok=True)
    scaling_points.save(args.out / "results.json", machine, options, samples)
    scaling_report.write(args.out, machine, options, samples, report, extra)


def warnings(rounds, machine, workloads, cores, bench):
    """What a reader must know before the figures."""
    out, load = [], os.getloadavg()[0]
    if rounds < 5:
        out.append("Fewer than 5 rounds: good for a glance only.")
    shared = [count for count in cores if count <= bench.cpus and
              scaling_load.split_cpus(bench.groups, count)[2] == "shared"]
    if shared and set(workloads) & {"http", "hop"}:
        out.append(f"{bench.cpus} CPUs: with {', '.join(map(str, shared))} cores the HTTP server "
                   "and its client share them, so that throughput there is not the server's alone.")
    if machine["numa_nodes"] == 1:
        out.append("One NUMA node: nothing here says what happens beyond one socket.")
    if load > bench.cpus + 1:
        out.append(f"Load average {load:.1f}: other work may have disturbed these figures.")
    return out
