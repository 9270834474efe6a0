"""One core's operations: what each costs, beside the least that it could cost on this machine.

bin/shoal-bench-micro measures (tools/benchlib/micro/); this runs it on both I/O backends in turn,
takes medians over all rounds, and judges them by the figures that Shoal must reach.

1. Within a round each case and its limit are measured one right after the other; the ratio is taken
   there, and then its median.
2. The backends take turns, a pass each. No case does I/O, but the loop that runs it looks for some.
3. A peer's figure cannot be measured here, since its tree is not: it is the one on record, and says
   so. Ratios to the limit compare better than nanoseconds of two machines.
"""

import os
import statistics
import subprocess
from pathlib import Path

from . import process
from .report import BenchError
from .subjects import ROOT

SUMMARY = "nanoseconds and allocations of futures, fibers and timers, beside their limits"

# case: the figure that Shoal must reach in ns (None: none is set), and Seastar's on record
ROWS = {
    "then-suspended": (6.0, 17.8),
    "then-ready": (6.0, 0.26),
    "await-ready": (2.0, 0.26),
    "fiber-yield": (15.0, 75.0),
    "fiber-spawn-join": (50.0, 385.0),
    "timer-arm": (8.4, 8.4),
    "timer-cancel": (4.3, 4.3),
    "timer-arm-all": (8.4, None),
    "timer-cancel-all": (4.3, None),
}
MAY_ALLOCATE = {"mem-alloc"}
# what --io-backend gets, and what the row calls it
BACKENDS = {"auto": "shoal", "epoll": "shoal-epoll"}


def add_arguments(parser):
    parser.add_argument("--rounds", type=int, default=9, metavar="N",
                        help="samples of each case in a pass (default: 9)")
    parser.add_argument("--passes", type=int, default=2, metavar="N",
                        help="runs of the program on each backend (default: 2)")
    parser.add_argument("--cases", default=None, metavar="A,B", help="cases (default: all)")
    parser.add_argument("--program", metavar="PATH", type=Path,
                        default=ROOT / "build" / "release" / "bin" / "shoal-bench-micro",
                        help="the program to run (default: build/release/bin/shoal-bench-micro)")


class Samples:
    """All samples of one case on one backend."""

    def __init__(self):
        self.ns, self.limit_ns, self.allocs = [], [], 0.0

    def ratio(self):
        pairs = zip(self.ns, self.limit_ns)
        return statistics.median(own / limit for own, limit in pairs if limit > 0)


def run(args, report):
    if args.rounds < 1 or args.passes < 1:
        raise BenchError("--rounds and --passes must be 1 or more")
    if not os.access(args.program, os.X_OK):
        raise BenchError(f"no {args.program}; build it first: "
                         "cmake --preset release && cmake --build --preset release")
    if args.rounds * args.passes < 7:
        report.note("fewer than 7 samples: good for a glance only")
    report.machine()
    found = {subject: {} for subject in BACKENDS.values()}
    ran_on = {}
    for _ in range(args.passes):
        for backend, subject in BACKENDS.items():
            ran_on[subject] = gather(args, backend, found[subject])
    report.heading("ns an operation; medians of "
                   f"{args.rounds * args.passes} samples on each backend")
    worst = []
    for case in found["shoal"]:
        limits = [ns for samples in found.values() for ns in samples[case].limit_ns]
        for subject, samples in found.items():
            worst += print_subject(report, case, subject, samples[case], ran_on[subject])
        report.row(case, "limit", statistics.median(limits), "ns", 1.0,
                   f"least {min(limits):.2f}", least=min(limits))
        print_peer(report, case)
    for text in worst:
        report.note(text)
    if not worst:
        report.note("every row that has a figure to reach is met, without allocations")


def print_subject(report, case, subject, samples, backend):
    """Prints the row; returns what is wrong with it, as a list of lines."""
    wanted = ROWS.get(case, (None, None))[0]
    value = statistics.median(samples.ns)
    text = f"least {min(samples.ns):.2f}   {samples.allocs:g} allocs   {backend}"
    extra = {"least": min(samples.ns), "allocs": samples.allocs, "io_backend": backend}
    wrong = []
    if wanted is not None:
        met = value <= wanted
        text += f"   must reach {wanted:g}: {'met' if met else 'MISSED'}"
        extra.update(must_reach=wanted, met=met)
        if not met:
            wrong.append(f"missed: {case} {value:.2f} ns on {backend} (must reach {wanted:g})")
    if samples.allocs > 0 and case not in MAY_ALLOCATE:
        wrong.append(f"missed: {case} makes {samples.allocs:g} allocations an operation")
    report.row(case, subject, value, "ns", samples.ratio(), text, **extra)
    return wrong


def print_peer(report, case):
    recorded = ROWS.get(case, (None, None))[1]
    if recorded is not None:
        report.row(case, "seastar", recorded, "ns", None, "recorded, not measured here",
                   recorded=True)


def gather(args, backend, found):
    """Runs one pass, adds its samples to `found`, and returns the backend that it ran on."""
    command = [str(args.program), "--raw", "--rounds", str(args.rounds), "--io-backend", backend]
    if args.cases is not None:
        command += ["--case", args.cases]
    cpus = process.usable_cpus()[:1]
    result = subprocess.run(command, capture_output=True, text=True, check=False,
                            preexec_fn=process.child_setup(cpus))
    if result.returncode != 0:
        last = (result.stderr.strip().splitlines() or ["no message"])[-1]
        raise BenchError(f"{args.program.name} ended with code {result.returncode}: {last}")
    lines = [line.split("\t") for line in result.stdout.splitlines()]
    for case, ns, limit_ns, allocs in lines[1:]:
        samples = found.setdefault(case, Samples())
        samples.ns.append(float(ns))
        samples.limit_ns.append(float(limit_ns))
        samples.allocs = max(samples.allocs, float(allocs))
    return lines[0][1]
