"""Messages between cores: what they cost, beside bare cache lines, slots and eventfds.

bin/shoal-bench-smp measures (tools/benchlib/smp/); this runs it on both I/O backends in turn, with
two cores and then with as many as were asked for, takes medians over all rounds, and judges them by
what Shoal must reach.

1. Within a round all subjects of a case are measured one right after the other, on the same two
   threads and CPUs; the ratio to the limit is taken there, and then its median. How far two CPUs are
   from each other may change from second to second on a virtual machine: limits change with it.
2. The backends take turns, a pass each.
3. Percentiles are those within a round; the row has their medians over the rounds, and the largest
   of all. One round in which the machine did something else is not the figure, but shows in `max`.
"""

import os
import statistics
import subprocess
from pathlib import Path

from . import process
from .report import BenchError
from .subjects import ROOT

SUMMARY = "messages between cores: round trips, busy and sleeping targets, all cores; and limits"

# case: (what must be reached, of which figure)
RATIO, VALUE = "ratio", "value"
REACH = {
    "submit-idle-1": (2.0, RATIO),
    "submit-idle-16": (3.0, RATIO),
    "submit-idle-256": (3.0, RATIO),
    "submit-sleeping": (0.9, RATIO),
    "submit-busy": (20.0, VALUE),
    "submit-busy-100us": (120.0, VALUE),
}
# Seastar's figures on record, in the unit of the case
SEASTAR = {"submit-idle-1": 1020.0, "submit-idle-16": 115.0, "submit-idle-256": 75.0,
           "submit-sleeping": 40.0, "submit-busy": 1500.0}
# forms of the same limit: in each round the least of them counts
FORMS = {"submit-sleeping": ("limit-read", "limit-epoll", "limit-edge")}
# throughput: more is better, and the ratio is what Shoal reaches of the limit
RATES = {"all-to-all"}
# the worst of these cases is a row of its own
WORST = ("submit-busy-100us", "submit-busy")
# what --io-backend gets, and what the row calls it
BACKENDS = {"auto": "shoal", "epoll": "shoal-epoll"}
MESH_CASES = "all-to-all,map-reduce,broadcast,barrier,submit-self-1,submit-self-16"


def add_arguments(parser):
    parser.add_argument("--rounds", type=int, default=9, metavar="N",
                        help="samples of each subject in a pass (default: 9)")
    parser.add_argument("--passes", type=int, default=2, metavar="N",
                        help="runs of the program on each backend (default: 2)")
    parser.add_argument("--cases", default=None, metavar="A,B", help="cases (default: all)")
    parser.add_argument("--smp", default=None, metavar="1,2,4",
                        help="numbers of cores for the cases of all cores (default: 1, the CPUs "
                             "there are, and twice as many)")
    parser.add_argument("--sample-us", type=int, default=2000, metavar="N",
                        help="how long a sample takes, where the case does not say")
    parser.add_argument("--program", metavar="PATH", type=Path,
                        default=ROOT / "build" / "release" / "bin" / "shoal-bench-smp",
                        help="the program to run (default: build/release/bin/shoal-bench-smp)")


class Samples:
    """All samples of one subject in one case."""

    def __init__(self, unit):
        self.unit, self.rounds, self.latencies, self.allocs = unit, {}, [], None

    def values(self):
        return list(self.rounds.values())

    def percentiles(self):
        """p50, p99, p99.9 and the largest, or None."""
        if not self.latencies:
            return None
        columns = list(zip(*self.latencies))
        return [statistics.median(column) for column in columns[:3]] + [max(columns[3])]


def run(args, report):
    if args.rounds < 1 or args.passes < 1:
        raise BenchError("--rounds and --passes must be 1 or more")
    if not os.access(args.program, os.X_OK):
        raise BenchError(f"no {args.program}; build it first: "
                         "cmake --preset release && cmake --build --preset release")
    if args.rounds * args.passes < 7:
        report.note("fewer than 7 samples: good for a glance only")
    report.machine()
    cpus = len(process.usable_cpus())
    wrong = []
    if cpus >= 2:
        report.heading("two cores; medians over the rounds")
        wrong += measure(args, report, 2, args.cases, "")
    else:
        report.note("one CPU: two cores would take turns on it; only the cases of all cores run")
    for cores in numbers_of_cores(args, cpus):
        wanted = args.cases if args.cases is not None else MESH_CASES
        report.heading(f"--smp {cores}" + (" --overprovisioned" if cores > cpus else ""))
        wrong += measure(args, report, cores, wanted, f"-smp{cores}")
    for text in wrong:
        report.note(text)
    if not wrong:
        report.note("every row that has a figure to reach is met, without allocations")


def numbers_of_cores(args, cpus):
    if args.smp is None:
        return sorted({1, cpus, 2 * cpus} - {2 if cpus >= 2 else 0})
    try:
        numbers = [int(word) for word in args.smp.split(",")]
    except ValueError:
        numbers = []
    if not numbers or min(numbers) < 1:
        raise BenchError(f'--smp: "{args.smp}" is no list of numbers of cores, such as 1,2,4')
    return numbers


def measure(args, report, cores, cases, suffix):
    """Runs and prints one number of cores; returns what is wrong, as a list of lines."""
    found = {subject: {} for subject in BACKENDS.values()}
    ran_on = {}
    for turn in range(args.passes):
        for backend, subject in BACKENDS.items():
            ran_on[subject] = gather(args, cores, cases, backend, turn, found[subject])
    wrong = []
    for case in found["shoal"]:
        for subject, cases_of in found.items():
            if case in cases_of:
                wrong += print_case(report, case, suffix, subject, cases_of[case], ran_on[subject])
        print_limits(report, case, suffix, [of[case] for of in found.values() if case in of])
    for name in WORST:
        for subject, cases_of in found.items():
            wrong += print_worst(report, name, suffix, subject, cases_of)
    if suffix == "":
        print_peers(report, found["shoal"])
    return wrong


def gather(args, cores, cases, backend, turn, found):
    """Runs one pass, adds its samples to `found`, and returns the backend that it ran on."""
    command = [str(args.program), "--smp", str(cores), "--io-backend", backend,
               "--rounds", str(args.rounds), "--sample-us", str(args.sample_us)]
    cpus = process.usable_cpus()
    if cores > len(cpus):
        command.append("--overprovisioned")
    if cases is not None:
        command += ["--case", cases]
    result = subprocess.run(command, capture_output=True, text=True, check=False,
                            preexec_fn=process.child_setup(cpus))
    if result.returncode != 0:
        last = (result.stderr.strip().splitlines() or ["no message"])[-1]
        raise BenchError(f"{args.program.name} ended with code {result.returncode}: {last}")
    lines = [line.split("\t") for line in result.stdout.splitlines()]
    for case, subject, number, value, unit, *latencies, allocs in lines[1:]:
        samples = found.setdefault(case, {}).setdefault(subject, Samples(unit))
        samples.rounds[(turn, int(number))] = float(value)
        # the least of all rounds: a pool that grows once is no allocation of each message
        least = samples.allocs
        samples.allocs = float(allocs) if least is None else min(least, float(allocs))
        if latencies[0] != "-":
            samples.latencies.append([float(text) for text in latencies])
    return lines[0][1]


def limit_of(case, subjects):
    """The limit by round, or None."""
    forms = [subjects[form] for form in FORMS.get(case, ("limit",)) if form in subjects]
    if not forms:
        return None
    return {key: min(form.rounds[key] for form in forms) for key in forms[0].rounds}


def ratio_to(limit, samples):
    if limit is None:
        return None
    return statistics.median(samples.rounds[key] / limit[key] for key in limit if limit[key] > 0)


def print_case(report, case, suffix, subject, subjects, backend):
    """Prints Shoal's rows of one case on one backend; returns what is wrong with them."""
    wrong = []
    limit = limit_of(case, subjects)
    for name, samples in subjects.items():
        if not name.startswith("shoal"):
            continue
        row = subject + name[len("shoal"):]
        value, ratio = statistics.median(samples.values()), ratio_to(limit, samples)
        best = max if case in RATES else min
        text = f"best {best(samples.values()):.4g}   {samples.allocs:g} allocs   {backend}"
        extra = {"best": best(samples.values()), "allocs": samples.allocs, "io_backend": backend}
        wrong += judge(case, suffix, row, value, ratio, extra)
        percentiles = samples.percentiles()
        if percentiles is not None:
            p50, p99, p999, largest = percentiles
            extra.update(p50=p50, p99=p99, p999=p999, max=largest)
            text += f"   p50 {p50:.1f} p99 {p99:.1f} p99.9 {p999:.1f} max {largest:.0f}"
        if "must_reach" in extra:
            text += f"   must reach {extra['must_reach']:g}: {'met' if extra['met'] else 'MISSED'}"
        report.row(case + suffix, row, value, samples.unit, ratio, text, **extra)
        if samples.allocs > 0:
            wrong.append(f"missed: {case}{suffix} makes {samples.allocs:g} allocations a message")
    return wrong


def judge(case, suffix, row, value, ratio, extra):
    if case not in REACH or suffix != "":
        return []
    wanted, of = REACH[case]
    figure = ratio if of == RATIO else value
    if figure is None:
        return []
    extra.update(must_reach=wanted, met=figure <= wanted)
    if extra["met"]:
        return []
    return [f"missed: {case} {figure:.2f} on {row} (must reach {wanted:g})"]


def print_limits(report, case, suffix, backends):
    """The rows of what is not Shoal: the same code whichever backend runs."""
    limits = [limit for limit in (limit_of(case, subjects) for subjects in backends) if limit]
    values = [value for limit in limits for value in limit.values()]
    if values:
        unit = next(iter(backends[0].values())).unit
        report.row(case + suffix, "limit", statistics.median(values), unit, 1.0,
                   f"best {(max if case in RATES else min)(values):.4g}")
    for name in backends[0]:
        if name.startswith("shoal") or name == "limit":
            continue
        samples = [value for subjects in backends for value in subjects[name].values()]
        report.row(case + suffix, name, statistics.median(samples), backends[0][name].unit, None,
                   f"best {min(samples):.4g}")


def print_worst(report, name, suffix, subject, cases_of):
    """One row for all the kinds of work that keep the target busy."""
    kinds = [case for case in cases_of if case.startswith(name + "-") and
             not any(case.startswith(other + "-") and other.startswith(name + "-")
                     for other in WORST)]
    rows = {case: cases_of[case]["shoal"] for case in kinds if "shoal" in cases_of[case]}
    if not rows:
        return []
    worst = max(rows, key=lambda case: statistics.median(rows[case].values()))
    value = statistics.median(rows[worst].values())
    extra = {"kind": worst}
    wrong = judge(name, suffix, subject, value, None, extra)
    text = f"p99 of the worst kind, {worst}"
    if "must_reach" in extra:
        text += f"   must reach {extra['must_reach']:g}: {'met' if extra['met'] else 'MISSED'}"
    report.row(name + suffix, subject, value, rows[worst].unit, None, text, **extra)
    return wrong


def print_peers(report, found):
    units = {case: next(iter(subjects.values())).unit for case, subjects in found.items()}
    for case, value in SEASTAR.items():
        if case in units or any(name.startswith(case + "-") for name in units):
            unit = units.get(case, "us")
            report.row(case, "seastar", value, unit, None, "recorded, not measured here",
                       recorded=True)
