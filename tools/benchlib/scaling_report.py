"""What `tools/bench scaling` writes: charts, the Markdown report, and rows."""

from . import scaling_plot as plot
from .scaling_plot import Chart, Series, number
from .scaling_points import WORKLOADS, curve_of

CURVE_STEPS = 120
FIELDS = ("p50_us", "p99_us", "p999_us", "cpus", "cpu_us_per_op", "load_busy")


# ---- Charts ----

def charts(curve, machine):
    """{name of the file: Chart} of one workload."""
    name = curve.workload.name
    note = machine_line(machine)
    return {f"{name}-throughput": _throughput(curve, note),
            f"{name}-latency": _latency(curve, note),
            f"{name}-cpu": _cpu(curve, note)}


def _hollow(curve):
    return {point.cores for point in curve.points if not point.clean or point.local}


def _ticks(curve):
    return plot.core_ticks([point.cores for point in curve.points])


def _throughput(curve, note):
    points = curve.points
    largest = points[-1].cores
    series = []
    if curve.base is not None:
        begin = curve.base.cores
        end = min(largest, _visible_linear(curve))
        series.append(Series(f"linear from {begin} core{'s' if begin > 1 else ''}", 3,
                             [(0, 0), (end, curve.linear(end))], line="line dot"))
    if curve.fit.determined:
        least = next(point.cores for point in points if point.clean and not point.local)
        steps = [least + (largest - least) * i / CURVE_STEPS for i in range(CURVE_STEPS + 1)]
        series.append(Series("universal scalability law", 1,
                             [(n, curve.fit.at(n)) for n in steps], line="line dash"))
    series.append(Series("measured: median, range of the rounds", 0,
                         [(point.cores, point.ops_per_s) for point in points],
                         [(point.cores, min(point.throughputs), max(point.throughputs))
                          for point in points], _hollow(curve), "circle", ""))
    return Chart(f"{curve.workload.title}: throughput", note, "cores (--smp)",
                 curve.workload.unit, _with_hollow(series, curve), _ticks(curve))


def _visible_linear(curve):
    """Where the linear line leaves the chart: at twice what was measured it tells no more."""
    highest = max(point.ops_per_s for point in curve.points)
    return 2 * highest / (curve.base.ops_per_s / curve.base.cores)


def _latency(curve, note):
    series = []
    for index, (attribute, label, marker) in enumerate((
            ("p50_us", "p50", "circle"), ("p99_us", "p99", "square"),
            ("p999_us", "p99.9", "triangle"))):
        series.append(Series(label, index,
                             [(p.cores, getattr(p, attribute)) for p in curve.points],
                             hollow=_hollow(curve), marker=marker))
    return Chart(f"{curve.workload.title}: latency", note, "cores (--smp)",
                 "microseconds (log scale)", _with_hollow(series, curve), _ticks(curve), log=True)


def _cpu(curve, note):
    points = curve.points
    series = [Series("server's user and system time: median, range of the rounds", 0,
                     [(point.cores, point.cpu_us_per_op) for point in points],
                     [(point.cores, *point.range_of("cpu_us_per_op")) for point in points],
                     _hollow(curve), "circle")]
    return Chart(f"{curve.workload.title}: CPU per operation", note, "cores (--smp)",
                 "CPU microseconds an operation", _with_hollow(series, curve), _ticks(curve))


def _with_hollow(series, curve):
    """An entry for the legend, when there are hollow markers to explain."""
    if not _hollow(curve):
        return series
    last = series[-1]
    return series + [Series("hollow: not fitted, see the report", last.colour, [],
                            marker=last.marker, line="", legend_hollow=True)]


# ---- Markdown ----

def machine_line(machine):
    parts = [machine.get("cpu", "unknown processor")]
    if "cpus" in machine:
        parts.append(f"{machine['cpus']} CPUs")
    if machine.get("kernel"):
        parts.append(f"Linux {machine['kernel']}")
    if machine.get("backend"):
        parts.append(machine["backend"])
    if machine.get("date"):
        parts.append(machine["date"])
    return ", ".join(map(str, parts))


def markdown(curves, machine, options, pictures, extra):
    out = ["# Scaling", "", machine_line(machine) + "."]
    if options:
        out.append("Run with " + ", ".join(f"{key} {value}" for key, value in options.items()) +
                   ".")
    out += ["Figures are medians over the rounds; how to read them is in docs/scaling.md.", ""]
    out += [f"> {line}" for line in extra] + ([""] if extra else [])
    for curve in curves:
        out += _section(curve, pictures)
    return "\n".join(out).rstrip() + "\n"


def _section(curve, pictures):
    out = [f"## {curve.workload.title}", ""]
    out += _table(curve)
    for name in charts(curve, {}):
        if name in pictures:
            out += [f"![{name.replace('-', ', ')}]({pictures[name]})", ""]
    out += ["**The universal scalability law.** " + fit_text(curve), ""]
    out += [f"- {line}" for line in limits(curve)]
    return out + [""]


def _table(curve):
    rows = [("cores", curve.workload.unit, "spread", "of linear", "p50 us", "p99 us", "p99.9 us",
             "CPUs used", "CPU us each", "remarks")]
    for point in curve.points:
        efficiency = "-" if point.efficiency is None else f"{100 * point.efficiency:.1f} %"
        spread = f"±{100 * point.spread:.1f} %" if len(point.samples) > 1 else "-"
        rows.append((str(point.cores), f"{point.ops_per_s:,.0f}", spread, efficiency,
                     *map(short, (point.p50_us, point.p99_us, point.p999_us)),
                     f"{point.cpus:.2f}", short(point.cpu_us_per_op),
                     "; ".join(remarks(point)) or " "))
    out = ["| " + " | ".join(row) + " |" for row in rows]
    out.insert(1, "|" + "---:|" * (len(rows[0]) - 1) + "---|")
    return out + [""]


def short(value):
    """Four digits, and never an exponent."""
    return f"{value:,.0f}" if value >= 1000 else f"{value:.4g}"


def remarks(point):
    own = ["nothing crosses: messages to itself"] if point.local else []
    return own + point.flaws


def fit_text(curve):
    fit = curve.fit
    if not fit.determined:
        text = f"{fit.points} of {len(curve.points)} points can be fitted."
        return text + (f" lambda is {number(fit.lam)}/s, as measured." if fit.lam else "")
    peak = "throughput only grows" if fit.peak_cores is None else \
        f"peak at N* = {fit.peak_cores:.3g} cores with {number(fit.peak)}/s"
    return (f"lambda = {number(fit.lam)}/s{_interval(fit, 'lam')}, "
            f"sigma = {fit.sigma:.4g}{_interval(fit, 'sigma')}, "
            f"kappa = {fit.kappa:.3g}{_interval(fit, 'kappa')}; {peak}; the curve misses the "
            f"{fit.points} points by {100 * fit.error:.1f} % (root mean square).")


def _interval(fit, name):
    if name not in fit.intervals:
        return ""
    low, high = fit.intervals[name]
    return f" (95 %: {number(low)} to {number(high)})" if name == "lam" else \
        f" (95 %: {low:.3g} to {high:.3g})"


def limits(curve):
    """What cannot be concluded, and what can in spite of it."""
    out = list(curve.fit.limits)
    if curve.workload.base > 1 and any(point.local for point in curve.points):
        out.append(f"The point at 1 core is not fitted: nothing crosses there. Linear starts at "
                   f"{curve.base.cores if curve.base else curve.workload.base} cores.")
    flawed = [point for point in curve.points if point.flaws]
    for flaw in sorted({flaw for point in flawed for flaw in point.flaws}):
        cores = ", ".join(str(point.cores) for point in flawed if flaw in point.flaws)
        out.append(f"Not fitted, since {flaw}: {cores} core{'' if cores == '1' else 's'}.")
    return out + _cpu_ratios(curve)


def _cpu_ratios(curve):
    """What CPU an operation says, which a client that is in the way does not distort."""
    out = []
    local = [point for point in curve.points if point.local]
    proper = [point for point in curve.points if not point.local and not point.overprovisioned]
    if local and proper:
        ratio = proper[0].cpu_us_per_op / local[-1].cpu_us_per_op
        out.append(f"Where something crosses ({proper[0].cores} cores) an operation takes "
                   f"x{ratio:.2f} the CPU of one that stays at home (1 core).")
    if len(proper) > 1:
        ratio = proper[-1].cpu_us_per_op / proper[0].cpu_us_per_op
        shared = proper[-1].load != "none" and not proper[-1].clean
        out.append(f"An operation takes x{ratio:.2f} the CPU with {proper[-1].cores} cores that it "
                   f"takes with {proper[0].cores}" +
                   ("; a client in the way changes that little." if shared else "."))
    return out


# ---- Rows ----

def rows(curve, report):
    name = curve.workload.name
    report.heading(f"{curve.workload.title}: {curve.workload.unit}, ratio to linear")
    for point in curve.points:
        text = (f"p50 {point.p50_us:.4g}  p99 {point.p99_us:.4g}  p99.9 {point.p999_us:.4g} us   "
                f"{point.cpu_us_per_op:.4g} CPU us   {'; '.join(remarks(point))}")
        report.row(f"scaling-{name}-{point.cores}", "shoal", point.ops_per_s, "ops/s",
                   point.efficiency, text, cores=point.cores, workload=name,
                   rounds=len(point.samples), spread=point.spread, clean=point.clean,
                   remarks="; ".join(remarks(point)),
                   **{key: getattr(point, key) for key in FIELDS})
    fit = curve.fit
    if fit.determined:
        report.row(f"scaling-{name}-usl", "shoal", fit.lam, "ops/s", None,
                   f"sigma {fit.sigma:.4g}   kappa {fit.kappa:.3g}   peak "
                   + ("none" if fit.peak_cores is None else f"{fit.peak_cores:.3g} cores"),
                   workload=name, points=fit.points, sigma=fit.sigma, kappa=fit.kappa,
                   peak_cores=fit.peak_cores, peak=fit.peak, error=fit.error,
                   limits=limits(curve))
    for line in limits(curve):
        report.note(f"{name}: {line}")


# ---- Everything ----

def write(folder, machine, options, samples, report, extra=()):
    """Charts, report and rows of all workloads that there are samples of; returns the curves."""
    folder.mkdir(parents=True, exist_ok=True)
    curves = [curve for curve in (curve_of(name, samples) for name in WORKLOADS) if curve]
    renderer = plot.png_renderer()
    if renderer is None:
        report.note("no PNG: rsvg-convert is missing (apt-get install librsvg2-bin)")
    pictures = {}
    for curve in curves:
        for name, chart in charts(curve, machine).items():
            path = folder / f"{name}.svg"
            path.write_text(plot.svg(chart))
            pictures[name] = path.name
            why = plot.write_png(path, path.with_suffix(".png")) if renderer else None
            if why:
                report.note(f"no PNG of {path.name}: {why}")
    (folder / "report.md").write_text(markdown(curves, machine, options, pictures, extra))
    for curve in curves:
        rows(curve, report)
    report.note(f"report and charts: {folder}/report.md")
    return curves
