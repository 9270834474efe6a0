"""`tools/bench smp` for real, as short as it can be: each case must run, and its rows be valid.

Figures are not judged, but for allocations: a loaded machine and a sanitizer make them worthless.
"""
# builds: all

import json
import os
import subprocess

import pytest
from helper import BENCH, BIN_DIR

TSAN = "thread" in os.environ.get("SHOAL_SANITIZE", "")
BACKEND = "epoll" if TSAN else "io_uring"  # TSan does not model io_uring
PROGRAM = os.path.join(BIN_DIR, "shoal-bench-smp")

# cases that say themselves how often they ask would take long
QUICK = ("submit-idle-1,submit-idle-16,submit-idle-256,submit-copy-16,submit-fiber-16,"
         "submit-future-16,submit-self-16,all-to-all,broadcast,map-reduce,barrier")
KEYS = {"bench", "case", "subject", "value", "unit", "ratio_to_limit"}


def run(*command):
    result = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout.splitlines()


@pytest.mark.parametrize("cores", [1, 2, 3])
def test_program_with_so_many_cores_prints_valid_samples(cores):
    lines = run(PROGRAM, "--smp", cores, "--overprovisioned", "--io-backend", BACKEND,
                "--rounds", 2, "--sample-us", 1, "--case", QUICK)
    words = lines[0].split("\t")
    assert words[:4] == ["backend", BACKEND, "cores", str(cores)]
    cases = set()
    for line in lines[1:]:
        case, subject, number, value, unit, *latencies, allocs = line.split("\t")
        assert subject and number in "01" and unit in ("ns", "us", "M/s") and len(latencies) == 4
        assert float(value) > 0 and float(allocs) >= 0
        cases.add(case)
    pairs = {"submit-self-16", "broadcast", "map-reduce", "barrier"} if cores == 1 else set(
        QUICK.split(","))
    assert cases == pairs


@pytest.mark.skipif(TSAN, reason="missing feature: TSan has no model of io_uring, which is half of it")
def test_tool_prints_json_rows_for_each_case():
    lines = run(BENCH, "smp", "--json", "--program", PROGRAM, "--rounds", 1, "--passes", 1,
                "--sample-us", 1, "--cases", "submit-idle-16,submit-sleeping,wake-send,submit-busy-one",
                "--smp", 1)
    rows = [json.loads(line) for line in lines]
    assert all(KEYS <= row.keys() and row["bench"] == "smp" for row in rows)
    found = {(row["case"], row["subject"]): row for row in rows}
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("missing feature: a second CPU, to measure two cores on")
    for case in ("submit-idle-16", "submit-sleeping", "submit-busy"):
        for subject in ("shoal", "shoal-epoll"):
            row = found[case, subject]
            assert row["value"] > 0 and isinstance(row["met"], bool)
    assert found["submit-idle-16", "limit"]["ratio_to_limit"] == 1
    assert found["submit-idle-16", "shoal"]["ratio_to_limit"] > 0
    busy = found["submit-busy-one", "shoal"]
    assert 0 < busy["p50"] <= busy["p99"] <= busy["p999"] <= busy["max"]
    sleeping = found["submit-sleeping", "limit"]["value"]
    assert sleeping <= found["submit-sleeping", "limit-read"]["value"]
    assert {subject for case, subject in found if case == "wake-send"} == {"eventfd", "msg-ring"}


def test_message_in_steady_state_allocates_nothing():
    run(PROGRAM, "--smp", 2, "--overprovisioned", "--io-backend", BACKEND, "--rounds", 5,
        "--sample-us", 200, "--check", "--case", QUICK)


def test_unknown_case_is_an_error():
    result = subprocess.run([PROGRAM, "--smp", "1", "--case", "nothing"], capture_output=True,
                            text=True, check=False)
    assert result.returncode == 2 and '"nothing"' in result.stderr
