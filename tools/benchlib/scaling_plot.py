"""Charts as SVG, written by hand, and as PNG by rsvg-convert.

1. A chart draws its own background, and its colours follow the viewer's light or dark scheme by a
   media query; a renderer that knows none draws the light one.
2. Colour never stands alone: series differ by marker or dash, too. A hollow marker is a point that
   is not clean (see scaling_points).
3. What is written (title, legend, axes) stands outside of the plotted area, so that no curve can
   run through it.
"""

import math
import shutil
import subprocess
from dataclasses import dataclass, field
from xml.sax.saxutils import escape

WIDTH, HEIGHT = 760, 470
LEFT, RIGHT, BOTTOM = 90, 28, 62
LEGEND_TOP, LEGEND_LINE = 76, 20
LETTER = 7.0  # width of a letter of the legend: generous
PNG_WIDTH = 2 * WIDTH

STYLE = """
text{font-family:system-ui,"DejaVu Sans",Arial,sans-serif;fill:#1c2730}
.paper{fill:#ffffff}.title{font-size:18px;font-weight:600}
.note{font-size:12px;fill:#55636e}.tick{font-size:12px;fill:#3b4851}.label{font-size:13px}
.legend{font-size:12.5px}
.grid{stroke:#e1e6ea;stroke-width:1}.axis{stroke:#7b8892;stroke-width:1}
.line{fill:none;stroke-width:2;stroke-linejoin:round}.dash{stroke-dasharray:7 5}
.dot{stroke-dasharray:2 4;stroke-linecap:round}
.bar{stroke-width:1.5;fill:none}
.c0{stroke:#1769aa}.f0{fill:#1769aa}.c1{stroke:#b45309}.f1{fill:#b45309}
.c2{stroke:#7b2d8e}.f2{fill:#7b2d8e}.c3{stroke:#66737d}.f3{fill:#66737d}
.hollow{fill:#ffffff;stroke-width:2}
@media (prefers-color-scheme:dark){
text{fill:#e6edf2}.paper{fill:#11191f}.note{fill:#9fb0bb}.tick{fill:#b9c6cf}
.grid{stroke:#27333c}.axis{stroke:#6f808c}
.c0{stroke:#6cb8f5}.f0{fill:#6cb8f5}.c1{stroke:#f5a656}.f1{fill:#f5a656}
.c2{stroke:#d59bea}.f2{fill:#d59bea}.c3{stroke:#9fb0bb}.f3{fill:#9fb0bb}
.hollow{fill:#11191f}}
"""


@dataclass
class Series:
    name: str
    colour: int
    points: list  # (x, y)
    bars: list = field(default_factory=list)  # (x, low, high)
    hollow: set = field(default_factory=set)  # the x of points that are not clean
    marker: str = ""  # circle, square, triangle; none for a line alone
    line: str = "line"  # line, line dash, line dot; none for markers alone
    legend_hollow: bool = False  # its marker in the legend


@dataclass
class Chart:
    title: str
    note: str
    x_label: str
    y_label: str
    series: list
    x_ticks: list
    log: bool = False  # the y axis


# ---- Numbers ----

def number(value):
    """Short, with a suffix: 12.5k, 3M, 0.25."""
    if value == 0:
        return "0"
    for limit, suffix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= limit:
            return f"{value / limit:.3g}{suffix}"
    return f"{value:.3g}"


def linear_ticks(top):
    """0 and up to seven steps of 1, 2, 2.5 or 5 times a power of ten; the last reaches `top`."""
    if top <= 0:
        return [0.0, 1.0]
    power = 10.0 ** math.floor(math.log10(top))
    for step in (power * factor for factor in (0.1, 0.2, 0.25, 0.5, 1, 2, 2.5, 5)):
        count = math.ceil(top / step - 1e-9)
        if count <= 7:
            return [step * i for i in range(count + 1)]
    return [0.0, 10 * power]


def log_ticks(low, high):
    """1, 2, 5 times powers of ten (powers alone over wide ranges), around both ends."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    factors = (1, 2, 5) if last - first <= 2 else (1,)
    ticks = [factor * 10.0 ** power for power in range(first - 1, last + 1) for factor in factors]
    begin = max((tick for tick in ticks if tick <= low), default=ticks[0])
    end = min((tick for tick in ticks if tick >= high), default=ticks[-1])
    if begin == end:
        end = ticks[ticks.index(begin) + 1] if begin != ticks[-1] else begin * 10
        ticks.append(end)
    return sorted({tick for tick in ticks if begin <= tick <= end})


def core_ticks(cores, width=WIDTH - LEFT - RIGHT):
    """Those of the measured numbers of cores whose labels do not touch; the largest always."""
    largest = max(cores)
    kept = [largest]
    for core in sorted(set(cores), reverse=True):
        if (kept[-1] - core) * width / largest >= 30:
            kept.append(core)
    return kept[::-1]


# ---- SVG ----

class Frame:
    """Where values lie on the paper."""

    def __init__(self, chart, top):
        self.top, self.bottom = top, HEIGHT - BOTTOM
        self.log = chart.log
        values = [y for s in chart.series for _, y in s.points]
        values += [y for s in chart.series for _, low, high in s.bars for y in (low, high)]
        self.ticks = log_ticks(min(values), max(values)) if chart.log else linear_ticks(max(values))
        self.low, self.high = self.ticks[0], self.ticks[-1]
        self.x_high = max([x for s in chart.series for x, _ in s.points] + chart.x_ticks) * 1.03

    def x(self, value):
        return LEFT + (WIDTH - LEFT - RIGHT) * value / self.x_high

    def y(self, value):
        if self.log:
            part = math.log(max(value, self.low) / self.low) / math.log(self.high / self.low)
        else:
            part = value / self.high
        return self.bottom - (self.bottom - self.top) * part


def svg(chart):
    rows = _legend_rows(chart.series)
    frame = Frame(chart, LEGEND_TOP + LEGEND_LINE * len(rows))
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
           f'width="{WIDTH}" height="{HEIGHT}" role="img">',
           f"<title>{escape(chart.title)}</title>", f"<desc>{escape(_description(chart))}</desc>",
           f"<style>{STYLE}</style>",
           f'<rect class="paper" width="{WIDTH}" height="{HEIGHT}"/>',
           f'<text class="title" x="20" y="32">{escape(chart.title)}</text>',
           f'<text class="note" x="20" y="53">{escape(chart.note)}</text>']
    out += _legend(rows)
    out += _axes(chart, frame)
    for series in chart.series:
        out += _series(series, frame)
    return "\n".join(out + ["</svg>"]) + "\n"


def _description(chart):
    parts = [f"{chart.y_label} over {chart.x_label}."]
    for series in chart.series:
        if series.marker and series.points:
            parts.append(f"{series.name}: " +
                         ", ".join(f"{x:g}: {number(y)}" for x, y in series.points) + ".")
    return " ".join(parts)


def _legend_rows(all_series):
    """The entries with their x, in as many rows as they need."""
    rows, x = [[]], 20.0
    for series in all_series:
        width = 44 + LETTER * len(series.name)
        if rows[-1] and x + width > WIDTH - 16:
            rows.append([])
            x = 20.0
        rows[-1].append((x, series))
        x += width + 14
    return rows


def _legend(rows):
    out = []
    for index, row in enumerate(rows):
        y = LEGEND_TOP + LEGEND_LINE * index
        for x, series in row:
            if series.line:
                out.append(f'<path class="{series.line} c{series.colour}" '
                           f'd="M{x:.1f} {y}h30"/>')
            if series.marker:
                out.append(_marker(series, x + 15, y, series.legend_hollow))
            out.append(f'<text class="legend" x="{x + 38:.1f}" y="{y + 4}">'
                       f'{escape(series.name)}</text>')
    return out


def _axes(chart, frame):
    right = WIDTH - RIGHT
    out = []
    for tick in frame.ticks:
        y = frame.y(tick)
        out.append(f'<path class="grid" d="M{LEFT} {y:.1f}H{right}"/>')
        out.append(f'<text class="tick" x="{LEFT - 10}" y="{y + 4:.1f}" text-anchor="end">'
                   f'{number(tick)}</text>')
    for tick in chart.x_ticks:
        x = frame.x(tick)
        out.append(f'<path class="axis" d="M{x:.1f} {frame.bottom}v5"/>')
        out.append(f'<text class="tick" x="{x:.1f}" y="{frame.bottom + 20}" '
                   f'text-anchor="middle">{tick:g}</text>')
    out.append(f'<path class="axis" d="M{LEFT} {frame.bottom}H{right}"/>')
    middle = (frame.top + frame.bottom) / 2
    out.append(f'<text class="label" x="{(LEFT + right) / 2:.1f}" y="{frame.bottom + 44}" '
               f'text-anchor="middle">{escape(chart.x_label)}</text>')
    out.append(f'<text class="label" transform="translate(24 {middle:.1f}) rotate(-90)" '
               f'text-anchor="middle">{escape(chart.y_label)}</text>')
    return out


def _series(series, frame):
    out = []
    for x, low, high in series.bars:
        left, bottom, top = frame.x(x) - 5, frame.y(low), frame.y(high)
        out.append(f'<path class="bar c{series.colour}" d="M{left:.1f} {bottom:.1f}h10m-5 0'
                   f'V{top:.1f}m-5 0h10"/>')
    if series.line and len(series.points) > 1:
        steps = " ".join(f"{frame.x(x):.1f} {frame.y(y):.1f}" for x, y in series.points)
        out.append(f'<path class="{series.line} c{series.colour}" d="M{steps}"/>')
    if series.marker:
        out += [_marker(series, frame.x(x), frame.y(y), x in series.hollow)
                for x, y in series.points]
    return out


def _marker(series, x, y, hollow):
    fill = "hollow" if hollow else f"f{series.colour}"
    kind = f'class="{fill} c{series.colour}"'
    if series.marker == "square":
        return f'<rect {kind} x="{x - 4:.1f}" y="{y - 4:.1f}" width="8" height="8"/>'
    if series.marker == "triangle":
        return f'<path {kind} d="M{x:.1f} {y - 5:.1f}l5 9h-10z"/>'
    return f'<circle {kind} cx="{x:.1f}" cy="{y:.1f}" r="4.5"/>'


# ---- PNG ----

def png_renderer():
    """The program that makes PNGs; None when it is missing (Debian: librsvg2-bin)."""
    return shutil.which("rsvg-convert")


def write_png(svg_path, png_path):
    """None, or why it failed."""
    result = subprocess.run([png_renderer(), "--width", str(PNG_WIDTH), "--output", str(png_path),
                             str(svg_path)], capture_output=True, text=True, check=False)
    if result.returncode == 0:
        return None
    return (result.stderr.strip().splitlines() or ["no message"])[0]
