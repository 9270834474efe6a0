"""What `tools/bench scaling` has measured: samples, the points made of them, and their file.

1. A sample is one run: one workload at one number of cores in one round. A point is the medians
   over the rounds, with the spread of its throughput.
2. A point is `clean` when it says something about Shoal alone: every core has a physical one
   of its own, the load generator was neither on these nor what limited the throughput, and no
   other work had the CPUs. Only clean points are fitted and count for efficiency's base, since the
   others would be taken for contention.
3. The two workloads in which messages cross have their base at 2 cores: with one core nothing
   crosses, and the step from 1 to 2 says what a crossing costs, not how crossings scale.
4. results.json holds all samples, so that `--from` renders them again, or those of another machine.
"""

import json
import statistics
from dataclasses import asdict, dataclass, fields

from . import scaling_usl
from .report import BenchError

# load generator: on CPUs of its own; on siblings of the server's; on the server's; there is none
LOADS = ("apart", "siblings", "shared", "none")
BUSY = 0.95  # from here on a side counts as the limit
IDLE = 0.9


@dataclass
class Workload:
    name: str
    title: str
    unit: str
    base: int  # the least number of cores at which it does what it is named after


WORKLOADS = {
    "http": Workload("http", "HTTP plaintext", "requests/s", 1),
    "hop": Workload("hop", "HTTP with a hop to another core", "requests/s", 2),
    "messages": Workload("messages", "Messages, all to all", "messages/s", 2),
}


@dataclass
class Sample:
    workload: str
    cores: int
    round: int
    ops_per_s: float
    p50_us: float
    p99_us: float
    p999_us: float
    cpus: float  # that the server used: CPU seconds a second, user and system
    cpu_us_per_op: float
    load: str = "none"
    load_busy: float = 0.0  # share of the load generator's CPUs that it used
    overprovisioned: bool = False
    paired: bool = False  # two of the server's cores are siblings on one physical core


NUMBERS = ("ops_per_s", "p50_us", "p99_us", "p999_us", "cpus", "cpu_us_per_op")


class Point:
    """One workload at one number of cores."""

    def __init__(self, samples):
        self.samples = samples
        first = samples[0]
        self.workload, self.cores = first.workload, first.cores
        self.load, self.overprovisioned = first.load, first.overprovisioned
        self.paired = first.paired
        for name in NUMBERS + ("load_busy",):
            setattr(self, name, statistics.median(getattr(s, name) for s in samples))
        self.throughputs = [s.ops_per_s for s in samples]
        self.efficiency = None  # filled in by curve_of()
        self.linear = None

    @property
    def spread(self):
        """Half of the range, over the median."""
        return (max(self.throughputs) - min(self.throughputs)) / 2 / self.ops_per_s

    def range_of(self, name):
        values = [getattr(sample, name) for sample in self.samples]
        return min(values), max(values)

    @property
    def busy(self):
        return self.cpus / self.cores

    @property
    def flaws(self):
        """Why the point does not speak for Shoal alone; empty when it does."""
        found = []
        if self.overprovisioned:
            found.append("more cores than CPUs")
        elif self.paired:
            found.append("siblings share physical cores")
        if self.load == "shared":
            found.append("server and client share the CPUs")
        elif self.load == "siblings":
            found.append("the client runs on siblings of the server's CPUs")
        elif self.load == "apart" and self.load_busy >= BUSY > self.busy:
            found.append("the client is the limit")
        if self.busy < IDLE and self.load_busy < BUSY and not found:
            found.append("its CPUs were not busy: other work had them")
        return found

    @property
    def local(self):
        return self.cores < WORKLOADS[self.workload].base

    @property
    def clean(self):
        return not self.flaws


@dataclass
class Curve:
    workload: Workload
    points: list
    fit: scaling_usl.Fit
    base: Point | None  # what linear is drawn from

    def linear(self, cores):
        return self.base.ops_per_s / self.base.cores * cores


def curve_of(name, samples):
    """The points of one workload with their fit; None when there are none."""
    by_cores = {}
    for sample in samples:
        if sample.workload == name:
            by_cores.setdefault(sample.cores, []).append(sample)
    if not by_cores:
        return None
    points = [Point(by_cores[cores]) for cores in sorted(by_cores)]
    proper = [point for point in points if not point.local]
    clean = [point for point in proper if point.clean]
    fit = scaling_usl.fit({point.cores: point.throughputs for point in clean})
    curve = Curve(WORKLOADS[name], points, fit, (clean or proper or [None])[0])
    for point in points:
        if curve.base is not None:
            point.linear = curve.linear(point.cores)
            point.efficiency = point.ops_per_s / point.linear
    return curve


# ---- The file ----

def save(path, machine, options, samples):
    data = {"machine": machine, "options": options,
            "samples": [asdict(sample) for sample in samples]}
    path.write_text(json.dumps(data, indent=1) + "\n")


def load(path):
    """The machine, the options and the samples of a file that save() wrote, or one made by hand."""
    try:
        data = json.loads(path.read_text())
        samples = [_sample(entry, number) for number, entry in enumerate(data["samples"])]
        machine, options = data.get("machine", {}), data.get("options", {})
    except OSError as error:
        raise BenchError(f"--from: {path}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BenchError(f"--from: {path}: not a file of results: {error}") from error
    if not samples or not isinstance(machine, dict) or not isinstance(options, dict):
        raise BenchError(f"--from: {path}: holds no samples")
    return machine, options, samples


def _sample(entry, number):
    known = {field.name: field for field in fields(Sample)}
    unknown = sorted(set(entry) - set(known))
    if unknown:
        raise ValueError(f"sample {number}: unknown key \"{unknown[0]}\"")
    if entry.get("workload") not in WORKLOADS:
        raise ValueError(f"sample {number}: workload {entry.get('workload')!r} is not one of "
                         f"{', '.join(WORKLOADS)}")
    if entry.get("load", "none") not in LOADS:
        raise ValueError(f"sample {number}: load {entry['load']!r} is not one of "
                         f"{', '.join(LOADS)}")
    try:
        sample = Sample(**{"round": 0, **entry})
    except TypeError:
        missing = [name for name in NUMBERS + ("cores",) if name not in entry]
        raise ValueError(f"sample {number}: \"{missing[0]}\" is missing") from None
    if not isinstance(sample.cores, int) or sample.cores < 1:
        raise ValueError(f"sample {number}: cores {sample.cores!r} is no number of cores")
    for name in NUMBERS:
        value = getattr(sample, name)
        if not isinstance(value, (int, float)) or not 0 < value < 1e15:
            raise ValueError(f"sample {number}: {name} {value!r} is not a positive number")
    return sample
