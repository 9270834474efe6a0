"""`tools/bench scaling` for real, as short as it can be: every output must be there and be valid.

Figures are not judged: a loaded machine and a sanitizer make them worthless.
"""
# builds: all

import json
import os
import shutil
import subprocess

import pytest
from helper import BENCH, BIN_DIR, check_png, check_svg, scaling_plot, scaling_points

TSAN = "thread" in os.environ.get("SHOAL_SANITIZE", "")
BACKEND = "epoll" if TSAN else "auto"  # TSan does not model io_uring
WORKLOADS = ("http", "hop", "messages")


def program(name):
    path = os.path.join(BIN_DIR, name)
    assert os.access(path, os.X_OK), f"no {path} (SHOAL_BIN_DIR)"
    return path


def run(out, *arguments):
    command = [BENCH, "scaling", "--io-backend", BACKEND, "--out", out,
               "--program", program("shoal-bench-scaling"),
               "--mesh-program", program("shoal-bench-mesh"), *arguments]
    result = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return result


@pytest.fixture(scope="module")
def quick(tmp_path_factory):
    if shutil.which("wrk") is None:
        pytest.skip("wrk is missing (apt-get install wrk)")
    out = tmp_path_factory.mktemp("scaling")
    # two cores on any machine; wrk takes no less than a second
    result = run(out, "--quick", "--seconds", 0.05, "--connections", 8, "--cores", "1,2",
                 "--overprovisioned", "--json")
    return out, result


def test_quick_prints_a_row_for_each_point(quick):
    rows = [json.loads(line) for line in quick[1].stdout.splitlines()]
    assert [row["case"] for row in rows] == [f"scaling-{workload}-{cores}"
                                             for workload in WORKLOADS for cores in (1, 2)]
    for row in rows:
        assert row["bench"] == "scaling" and row["subject"] == "shoal" and row["unit"] == "ops/s"
        for name in ("value", "ratio_to_limit", "p50_us", "cpus", "cpu_us_per_op"):
            assert row[name] > 0
        assert row["p50_us"] <= row["p99_us"] <= row["p999_us"]
        assert row["cpus"] < 1.2 * row["cores"]
        cpu_us = row["cpus"] * 1e6 / row["value"]
        assert row["cpu_us_per_op"] == pytest.approx(cpu_us, rel=0.5)


def test_latency_and_throughput_of_messages_agree(quick):
    rows = [json.loads(line) for line in quick[1].stdout.splitlines()]
    for row in rows:
        if row["workload"] == "messages":
            mean_us = 128 * row["cores"] * 1e6 / row["value"]  # Little's law; 128 in flight each
            assert row["p50_us"] < 2.5 * mean_us  # no median is above twice the mean


def test_quick_says_what_cannot_be_concluded(quick):
    assert "Fewer than 5 rounds" in quick[1].stderr
    assert "3 parameters" in quick[1].stderr or "No point can be used" in quick[1].stderr
    if len(os.sched_getaffinity(0)) == 2:
        assert "the HTTP server and its client share them" in quick[1].stderr


def test_quick_writes_the_report(quick):
    text = (quick[0] / "report.md").read_text()
    for workload in scaling_points.WORKLOADS.values():
        assert f"## {workload.title}" in text
    assert "nothing crosses" in text and text.count("![") == 9
    assert all(line.count("|") == 11 for line in text.splitlines() if line.startswith("|"))


def test_quick_writes_charts(quick):
    for workload in WORKLOADS:
        for kind in ("throughput", "latency", "cpu"):
            check_svg((quick[0] / f"{workload}-{kind}.svg").read_text())
    if shutil.which("rsvg-convert") is None:
        pytest.skip("rsvg-convert is missing (apt-get install librsvg2-bin)")
    for path in quick[0].glob("*.svg"):
        size = check_png(path.with_suffix(".png").read_bytes())
        assert size == (2 * scaling_plot.WIDTH, 2 * scaling_plot.HEIGHT)


def test_quick_saves_its_samples_and_draws_them_again(quick, tmp_path):
    machine, options, samples = scaling_points.load(quick[0] / "results.json")
    assert len(samples) == 6 and machine["cpus"] >= 1 and options["rounds"] == 1
    assert machine["backend"] in ("epoll", "io_uring")
    again = run(tmp_path, "--from", quick[0] / "results.json", "--json")
    assert again.stdout == quick[1].stdout
    assert (tmp_path / "hop-latency.svg").read_text() == \
        (quick[0] / "hop-latency.svg").read_text()


def test_more_cores_than_cpus_work_and_are_not_fitted(tmp_path):
    cores = len(os.sched_getaffinity(0)) + 1
    result = run(tmp_path, "--quick", "--seconds", 0.05, "--workloads", "messages", "--cores",
                 cores, "--overprovisioned", "--json")
    row = json.loads(result.stdout)
    assert row["cores"] == cores and "more cores than CPUs" in row["remarks"]
    assert not row["clean"]


def test_mesh_measures_every_constant(tmp_path):
    result = run(tmp_path, "--mesh", "--quick", "--json")
    rows = {row["case"]: row for row in map(json.loads, result.stdout.splitlines())}
    for case in ("asking-bytes", "answering-bytes", "core-bytes"):
        assert rows[f"mesh-{case}"]["value"] > 0 and rows[f"mesh-{case}"]["unit"] == "B"
    # both rings of 256 slots, a line each, are made by the core that asks
    assert 1 <= rows["mesh-asking-bytes"]["value"] / (2 * 256 * 64) < 2
    assert rows["mesh-answering-bytes"]["value"] < 8192
    assert 2 * 16 * 64 <= rows["mesh-small-bytes"]["value"] < rows["mesh-asking-bytes"]["value"]
    assert rows["mesh-table-bytes"]["value"] >= 0
    for case in ("dirty-word", "look-1", "look-2046", "announce-near", "verify-near",
                 "unwatch-near"):
        assert rows[f"mesh-{case}"]["value"] > 0 and rows[f"mesh-{case}"]["unit"] == "ns"
    if len(os.sched_getaffinity(0)) > 1:
        assert rows["mesh-verify-far"]["value"] > 0
    everyone, few = rows["mesh-1024-1023"], rows["mesh-1024-8"]
    assert everyone["value"] > few["value"] and everyone["look_ns"] > few["look_ns"]
    assert everyone["total_bytes"] == pytest.approx(1024 * everyone["value"] + 8 * 1024 ** 2,
                                                    rel=1e-4)
    text = (tmp_path / "mesh.md").read_text()
    assert "| 1,024 | everyone |" in text


@pytest.mark.parametrize("words, message", [
    (("--window", "256"), "--window"),
    (("--seconds", "0"), "--seconds"),
    (("--workload", "nope"), "--workload"),
])
def test_the_program_names_wrong_options(words, message):
    result = subprocess.run([program("shoal-bench-scaling"), *words], capture_output=True,
                            text=True, check=False)
    assert result.returncode == 2 and message in result.stderr


def test_the_mesh_program_names_wrong_options():
    for words in (("--samples", "0"), ("--nope",)):
        result = subprocess.run([program("shoal-bench-mesh"), *words], capture_output=True,
                                text=True, check=False)
        assert result.returncode == 2 and words[0] in result.stderr
