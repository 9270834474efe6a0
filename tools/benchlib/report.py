"""What a benchmark says: rows as a table for people, or one JSON object a line for programs.

Rows go to stdout; everything else (progress, notes, the machine) goes to stderr, so that
`tools/bench NAME --json > file` holds nothing but rows.
"""

import json
import os
import platform
import sys


class BenchError(Exception):
    """The run cannot go on; the text says why and what to do."""


class Report:
    def __init__(self, bench, as_json):
        self.bench = bench
        self.as_json = as_json

    def row(self, case, subject, value, unit, ratio_to_limit=None, text="", **extra):
        """One result. `text` is appended for people, `extra` are further JSON keys."""
        if self.as_json:
            row = {
                "bench": self.bench,
                "case": case,
                "subject": subject,
                "value": tidy(value),
                "unit": unit,
                "ratio_to_limit": tidy(ratio_to_limit),
            }
            row.update({key: tidy(extra[key]) for key in extra})
            print(json.dumps(row), flush=True)
            return
        ratio = "" if ratio_to_limit is None else f"x{ratio_to_limit:.3f}"
        print(f"{case:20} {subject:16} {value:10.4g} {unit:8} {ratio:>9}  {text}".rstrip(),
              flush=True)

    def heading(self, text):
        if not self.as_json:
            print(f"\n{text}", flush=True)

    def note(self, text):
        print(f"# {text}", file=sys.stderr, flush=True)

    def machine(self):
        """Says where this ran, and warns when something else is running there too."""
        model = "unknown processor"
        with open("/proc/cpuinfo", encoding="ascii", errors="replace") as info:
            for line in info:
                if line.startswith("model name"):
                    model = line.split(":", 1)[1].strip()
                    break
        cpus = len(os.sched_getaffinity(0))
        self.note(f"{model}, {cpus} CPUs, Linux {platform.release()}")
        load = os.getloadavg()[0]
        if load > 0.5:
            self.note(f"load average {load:.1f}: other work disturbs these figures, "
                      "look at the ratios only")


def tidy(value):
    """Six significant digits are more than any of these measurements holds."""
    return float(f"{value:.6g}") if isinstance(value, float) else value
