"""What the mesh of rings costs on paper, from constants that are measured here and now.

1. Memory: the allocator's own count of a core with few and with many cores (the slope is what each
   further core costs everyone), and of both sides of a pair before and after its first message. The
   table of channels, one pointer for each ordered pair, exists once for all.
2. Time: shoal-bench-mesh, the steps of the protocol one by one, medians over several runs. Steps
   on another core's line depend on where that core is, and a virtual machine's CPUs move: the range
   of the runs is named.
3. What a look at many rings costs each is interpolated between the numbers of rings that are timed.
4. A core with k neighbours asks k others and is asked by k others: it holds k asking and k
   answering sides, and watches up to 2 k rings (their requests, and the answers to its own).

The tables are a model: sums of products of what was measured, for machines larger than this one.
"""

import math
import statistics

from . import scaling_load
from .report import BenchError

SIZES = (8, 64, 256, 1024)
NEIGHBOURS = (8, 32)
MANY = 128  # cores of the larger run that memory is read off
FEW = 8
LOOK_US = 4.0  # a busy core looks at its messages about this often (runtime/core.c)
WORD_CORES = 64
FAR = "_far_ns"
POINTER = 8


class Constants:
    """Measured: bytes and nanoseconds."""

    def __init__(self, few, many, steps, ranges):
        self.steps = {name: float(value) for name, value in steps.items()}
        self.ranges = ranges
        self.fixed_slope = ((int(many["fixed_bytes"]) - int(few["fixed_bytes"])) /
                            (int(many["cores"]) - int(few["cores"])))
        self.fixed_base = int(few["fixed_bytes"]) - self.fixed_slope * int(few["cores"])
        self.asking = int(few["asking_bytes"])
        self.answering = int(few["answering_bytes"])
        self.small = int(few["small_bytes"])
        self.pair_table = POINTER
        self.looks = sorted((int(name.rsplit("_", 1)[1]), value)
                            for name, value in self.steps.items() if name.startswith("look_ns_"))

    def step(self, name):
        """The cost where another core has had the line; without a second CPU, of an own line."""
        return self.steps.get(name + FAR, self.steps[f"{name}_near_ns"])

    def look_ns(self, rings):
        """One look at one of so many rings, linear in the logarithm of their number."""
        if rings <= self.looks[0][0]:
            return self.looks[0][1]
        for (few, low), (many, high) in zip(self.looks, self.looks[1:]):
            if rings <= many:
                part = (math.log(rings) - math.log(few)) / (math.log(many) - math.log(few))
                return low + (high - low) * part
        return self.looks[-1][1]


class Mesh:
    """One size of machine, with so many neighbours for each core."""

    def __init__(self, constants, cores, neighbours):
        self.cores, self.neighbours = cores, min(neighbours, cores - 1)
        self.rings = 2 * self.neighbours
        words = (cores + WORD_CORES - 1) // WORD_CORES
        self.tables = constants.fixed_slope * cores
        self.memory = self.tables + self.neighbours * (constants.asking + constants.answering)
        self.small = self.memory - self.neighbours * (constants.asking - constants.small)
        self.total = self.memory * cores + constants.pair_table * cores * cores
        self.idle_ns = words * constants.steps["dirty_word_ns"]
        self.look_ns = self.idle_ns + self.rings * constants.look_ns(self.rings)
        self.sleep_ns = self.rings * constants.step("unwatch")
        self.share = self.look_ns / 1e3 / LOOK_US

    def silent_looks(self, constants):
        """Looks in vain after which announcing would have been cheaper for both sides together."""
        announced = constants.step("announce") + constants.step("take_dirty")
        return (announced + constants.step("watch")) / constants.look_ns(self.rings)


def gather(args):
    """The constants of this machine."""
    few, many = (memory(args, cores) for cores in (FEW, 32 if args.quick else MANY))
    command = [str(args.mesh_program), "--samples", "3" if args.quick else "31"]
    runs = [scaling_load.run_program(command, 300, None) for _ in range(1 if args.quick else 9)]
    values = {name: sorted(float(run[name]) for run in runs) for name in runs[0]}
    steps = {name: statistics.median(found) for name, found in values.items()}
    ranges = {name: (found[0], found[-1]) for name, found in values.items()}
    return Constants(few, many, steps, ranges)


def memory(args, cores):
    command = [str(args.program), "--workload", "memory", "--smp", str(cores), "--overprovisioned",
               "--io-backend", args.io_backend, "--log-level", "warn",
               "--blocked-reactor-notify-ms", "0"]
    values = scaling_load.run_program(command, 120, None)
    if "small_bytes" not in values:
        raise BenchError(f"{args.program}: says nothing about the memory of a pair")
    return values


def run(args, report):
    constants = gather(args)
    report.heading("constants")
    for case, value, unit, text in list_constants(constants):
        report.row(f"mesh-{case}", "shoal", value, unit, None, text)
    report.heading("the mesh, each core")
    for cores in SIZES:
        for neighbours in (cores - 1, *NEIGHBOURS):
            if neighbours > cores - 1:
                continue
            mesh = Mesh(constants, cores, neighbours)
            report.row(f"mesh-{cores}-{neighbours}", "model", mesh.memory, "B", None,
                       f"{size(mesh.total)} in all; look {mesh.look_ns:.0f} ns, "
                       f"idle {mesh.idle_ns:.1f} ns, sleep {mesh.sleep_ns / 1e3:.2f} us",
                       cores=cores, neighbours=neighbours, total_bytes=mesh.total,
                       look_ns=mesh.look_ns, idle_ns=mesh.idle_ns, sleep_ns=mesh.sleep_ns)
    args.out.mkdir(parents=True, exist_ok=True)
    path = args.out / "mesh.md"
    path.write_text(markdown(constants))
    report.note(f"tables: {path}")


def list_constants(constants):
    """(name, value, unit, what it is)"""
    out = [("asking-bytes", constants.asking, "B", "a pair, on the core that asks: both rings"),
           ("answering-bytes", constants.answering, "B", "a pair, on the core that is asked"),
           ("small-bytes", constants.small, "B", "asking, with 16 messages in flight at most"),
           ("table-bytes", constants.fixed_slope, "B", "each core there is, on every core"),
           ("pair-table-bytes", constants.pair_table, "B", "each ordered pair, once for all cores"),
           ("core-bytes", constants.fixed_base, "B", "a core, however many there are"),
           ("dirty-word", constants.steps["dirty_word_ns"], "ns", "a look at 64 clear dirty bits")]
    out += [(f"look-{rings}", ns, "ns", f"a look at one empty ring of {rings}")
            for rings, ns in constants.looks]
    texts = {"announce": "dirty bit set, and a look whether the core sleeps",
             "take_dirty": "a dirty word taken", "verify": "a ring verified by its writer",
             "watch": "a ring watched again", "unwatch": "a ring watched no more"}
    for name, text in texts.items():
        for where, whose in (("near", "the line was here"), ("far", "another core had the line")):
            key = f"{name}_{where}_ns"
            if key in constants.steps:
                low, high = constants.ranges[key]
                out.append((f"{name.replace('_', '-')}-{where}", constants.steps[key], "ns",
                            f"{text}; {whose} ({low:.1f} to {high:.1f})"))
    return out


def markdown(constants):
    out = ["| constant | value | what |", "|---|---:|---|"]
    out += [f"| {case} | {value:,.0f} B | {text} |" if unit == "B" else
            f"| {case} | {value:.2f} ns | {text} |"
            for case, value, unit, text in list_constants(constants)]
    out += ["", "| cores | talk to | rings a core | memory a core | in all | a core, small rings "
            "| a look, none watched | a look, all watched | of 4 us | all unwatched, to sleep |",
            "|---:|---|---:|---:|---:|---:|---:|---:|---:|---:|"]
    for cores in SIZES:
        for neighbours in (cores - 1, *(k for k in NEIGHBOURS if k < cores - 1)):
            mesh = Mesh(constants, cores, neighbours)
            whom = "everyone" if neighbours == cores - 1 else f"{neighbours} neighbours"
            out.append(f"| {cores:,} | {whom} | {mesh.rings:,} | {size(mesh.memory)} | "
                       f"{size(mesh.total)} | {size(mesh.small)} | {mesh.idle_ns:.1f} ns | "
                       f"{mesh.look_ns:,.0f} ns | {100 * mesh.share:.1f} % | "
                       f"{mesh.sleep_ns / 1e3:.2f} us |")
    out += ["", "| rings watched | a look at one in vain | looks in vain that cost as much as an "
            "announced message |", "|---:|---:|---:|"]
    for cores in SIZES:
        mesh = Mesh(constants, cores, cores - 1)
        out.append(f"| {mesh.rings:,} | {constants.look_ns(mesh.rings):.2f} ns | "
                   f"{mesh.silent_looks(constants):.0f} |")
    return "\n".join(out) + "\n"


def size(value):
    for limit, unit in ((2 ** 30, "GiB"), (2 ** 20, "MiB"), (2 ** 10, "KiB")):
        if value >= limit:
            return f"{value / limit:.3g} {unit}" if value < 999.5 * limit else \
                f"{value / limit:,.0f} {unit}"
    return f"{value:.0f} B"
