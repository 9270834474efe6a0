"""What `tools/bench scaling` makes of measurements: points, charts, the report, rows, the mesh."""

import json
import pathlib
import re
import shutil
import subprocess

import pytest
from helper import (BENCH, SVG, bench_scaling, check_png, check_svg, report, samples_of,
                    scaling_load, scaling_mesh, scaling_plot, scaling_points, scaling_report,
                    texts)

MANY = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)
KNOWN = {"http": (180e3, 0.012, 4e-5), "hop": (110e3, 0.03, 4e-4), "messages": (14e6, 0.02, 1.5e-3)}


def simulated(cores=MANY, rounds=3, **more):
    return [entry for name, known in KNOWN.items()
            for entry in samples_of(name, known, cores, rounds,
                                    **{"load": "none" if name == "messages" else "apart", **more})]


def points_of(entries):
    return [scaling_points.Sample(**entry) for entry in entries]


def curve(name, entries):
    return scaling_points.curve_of(name, points_of(entries))


def write_file(folder, entries, **more):
    path = folder / "results.json"
    path.write_text(json.dumps({"machine": {"cpu": "Simulated", "cpus": 64}, "options": {},
                                "samples": entries, **more}))
    return path


def run(*arguments):
    return subprocess.run([BENCH, "scaling", *map(str, arguments)], capture_output=True, text=True,
                          check=False)


# ---- Points ----

def test_points_are_medians_with_their_spread():
    entries = samples_of("http", (100.0, 0, 0), (1,), rounds=5)
    point = curve("http", entries).points[0]
    assert point.ops_per_s == 100 and point.spread == pytest.approx(0.02)
    assert point.range_of("ops_per_s") == pytest.approx((98, 102))


def test_efficiency_is_measured_against_the_first_clean_point():
    made = curve("http", simulated())
    assert made.base.cores == 1 and made.points[0].efficiency == 1
    last = made.points[-1]
    assert last.efficiency == pytest.approx(last.ops_per_s / (64 * made.points[0].ops_per_s))


def test_what_crosses_has_its_base_at_two_cores():
    for name in ("hop", "messages"):
        made = curve(name, simulated())
        assert made.base.cores == 2 and made.points[0].local and not made.points[1].local
        assert made.points[1].efficiency == 1
        assert made.points[2].efficiency == pytest.approx(
            made.points[2].ops_per_s / made.points[1].ops_per_s * 2 / 3)
        assert made.fit.points == len(MANY) - 1
        assert made.fit.sigma == pytest.approx(KNOWN[name][1], rel=1e-3)


@pytest.mark.parametrize("more, flaw", [
    ({"load": "shared"}, "server and client share the CPUs"),
    ({"load": "siblings"}, "the client runs on siblings of the server's CPUs"),
    ({"load": "apart", "load_busy": 0.99, "cpus": 0.5}, "the client is the limit"),
    ({"overprovisioned": True}, "more cores than CPUs"),
    ({"paired": True}, "siblings share physical cores"),
    ({"cpus": 0.5}, "its CPUs were not busy: other work had them"),
])
def test_a_point_with_a_flaw_is_not_fitted(more, flaw):
    entries = samples_of("http", KNOWN["http"], (1, 2, 3, 4))
    entries += [{**entry, **more} for entry in samples_of("http", KNOWN["http"], (5,))]
    made = curve("http", entries)
    assert made.points[-1].flaws == [flaw] and not made.points[-1].clean
    assert made.fit.points == 4
    assert f"Not fitted, since {flaw}: 5 cores." in scaling_report.limits(made)


def test_a_busy_client_is_fine_while_the_server_is_busier():
    assert curve("http", samples_of("http", KNOWN["http"], (1,), load="apart",
                                    load_busy=0.97)).points[0].clean


def test_without_a_clean_point_the_base_is_the_first():
    made = curve("http", samples_of("http", KNOWN["http"], (1, 2), load="shared"))
    assert made.base.cores == 1 and not made.fit.determined and made.fit.points == 0


def test_only_a_local_point_has_no_base():
    made = curve("hop", samples_of("hop", KNOWN["hop"], (1,)))
    assert made.base is None and made.points[0].efficiency is None
    for chart in scaling_report.charts(made, {}).values():
        check_svg(scaling_plot.svg(chart))
    assert "| - |" in scaling_report.markdown([made], {}, {}, {}, [])


# ---- CPUs ----

def flat(cpus):
    return [[cpu] for cpu in range(cpus)]


def siblings(cores):
    return [[core, core + cores] for core in range(cores)]


@pytest.mark.parametrize("groups, cores, server, load, how", [
    (flat(2), 1, [0], [1], "apart"),
    (flat(2), 2, [0, 1], [0, 1], "shared"),
    (flat(1), 1, [0], [0], "shared"),
    (flat(8), 2, [0, 1], [2, 3, 4, 5], "apart"),
    (flat(8), 6, [0, 1, 2, 3, 4, 5], [6, 7], "apart"),
    (siblings(4), 1, [0], [1, 5], "apart"),
    (siblings(4), 2, [0, 1], [2, 6, 3, 7], "apart"),
    (siblings(4), 4, [0, 1, 2, 3], [4, 5, 6, 7], "siblings"),
    (siblings(4), 5, [0, 1, 2, 3, 4], [5, 6, 7], "siblings"),
    (siblings(4), 8, [0, 1, 2, 3, 4, 5, 6, 7], [0, 1, 2, 3, 4, 5, 6, 7], "shared"),
])
def test_server_and_load_get_cpus_apart_where_there_are_enough(groups, cores, server, load, how):
    assert scaling_load.split_cpus(groups, cores) == (server, load, how)


def test_the_cores_to_run_on():
    choose = bench_scaling.choose_cores
    assert choose(None, 2, False) == [1, 2]
    assert choose(None, 2, True) == [1, 2, 3, 4]
    assert choose(None, 64, False) == [1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64]
    assert choose(None, 20, False)[-1] == 20
    assert choose("4,1,1", 4, False) == [1, 4]
    for text, words in (("3", "2 CPUs"), ("0", "allowed: 1 to 1024"), ("x", "not a list"),
                        ("2000", "out of range")):
        with pytest.raises(report.BenchError, match=words):
            choose(text, 2, False)


def test_what_wrk_reports_is_read():
    text = "percentiles_us: 10 20 30\nanswered: 500 in 2000000 us\nerrors: 0\n"
    found = scaling_load.parse_wrk(text)
    assert found == {"requests": 500, "ops_per_s": 250.0, "p50_us": 10.0, "p99_us": 20.0,
                     "p999_us": 30.0}
    for broken in ("", text.replace("errors: 0", "errors: 3"), text.replace("500 in", "0 in")):
        with pytest.raises(report.BenchError):
            scaling_load.parse_wrk(broken)


# ---- Charts ----

@pytest.mark.parametrize("cores", [MANY, (1,), (1, 2), (1, 2, 3), tuple(range(1, 9)),
                                   tuple(range(1, 65)), (1, 1024), (63, 64)])
@pytest.mark.parametrize("scale", [1e-6, 1, 100])
def test_charts_are_legible_at_any_size(cores, scale):
    for name, (lam, sigma, kappa) in KNOWN.items():
        made = curve(name, samples_of(name, (lam * scale, sigma, kappa), cores, load="shared"))
        made_clean = curve(name, samples_of(name, (lam * scale, sigma, kappa), cores))
        for chart in (*scaling_report.charts(made, {"cpu": "A processor", "cpus": 64}).values(),
                      *scaling_report.charts(made_clean, {}).values()):
            check_svg(scaling_plot.svg(chart))


def test_throughput_shows_points_ranges_linear_and_law():
    made = curve("http", simulated())
    root = check_svg(scaling_plot.svg(scaling_report.charts(made, {})["http-throughput"]))
    circles = [e for e in root.iter(SVG + "circle") if "f0" in e.get("class")]
    assert len(circles) == len(MANY) + 1  # and the one of the legend
    ranges = [e for e in root.iter(SVG + "path") if e.get("class").startswith("bar")]
    assert len(ranges) == len(MANY)
    dashes = [e.get("class") for e in root.iter(SVG + "path") if e.get("class").startswith("line")]
    assert sorted(dashes) == ["line dash c1", "line dash c1", "line dot c3", "line dot c3"]
    labels = " ".join(text[0] for text in texts(scaling_plot.svg(
        scaling_report.charts(made, {})["http-throughput"])))
    for word in ("requests/s", "cores (--smp)", "linear from 1 core", "universal scalability law"):
        assert word in labels


def test_points_lie_where_their_values_are():
    made = curve("http", samples_of("http", (100.0, 0, 0), (1, 2, 4)))
    root = check_svg(scaling_plot.svg(scaling_report.charts(made, {})["http-throughput"]))
    circles = [(float(e.get("cx")), float(e.get("cy"))) for e in root.iter(SVG + "circle")][1:]
    ticks = {}
    for element in root.iter(SVG + "text"):
        if element.get("class") == "tick" and element.get("text-anchor") == "end":
            ticks[float(element.text)] = float(element.get("y")) - 4
    assert circles[2][1] == pytest.approx(ticks[400.0], abs=0.2)
    assert circles[1][1] == pytest.approx(ticks[200.0], abs=0.2)
    assert circles[1][0] - circles[0][0] == pytest.approx((circles[2][0] - circles[1][0]) / 2,
                                                          abs=0.2)


def test_the_log_axis_has_even_decades():
    made = curve("http", samples_of("http", (1000.0, 0, 0.1), (1, 2, 8)))
    root = check_svg(scaling_plot.svg(scaling_report.charts(made, {})["http-latency"]))
    ticks = {e.text: float(e.get("y")) for e in root.iter(SVG + "text")
             if e.get("class") == "tick" and e.get("text-anchor") == "end"}
    assert ticks["10k"] - ticks["100k"] == pytest.approx(ticks["20k"] - ticks["200k"], abs=0.2)
    assert ticks["10k"] - ticks["100k"] > 50


def test_hollow_points_are_explained():
    made = curve("hop", simulated())
    for chart in scaling_report.charts(made, {}).values():
        text = scaling_plot.svg(chart)
        assert "hollow: not fitted" in text
        hollow = [e for e in check_svg(text).iter() if "hollow" in (e.get("class") or "")]
        per_series = 3 if "latency" in chart.title else 1
        assert len(hollow) == per_series + 1
    clean = curve("http", simulated())
    assert "hollow: not fitted" not in scaling_plot.svg(
        scaling_report.charts(clean, {})["http-throughput"])


def test_text_is_escaped():
    made = curve("http", simulated())
    text = scaling_plot.svg(scaling_report.charts(made, {"cpu": "A <&> B"})["http-cpu"])
    check_svg(text)
    assert "A &lt;&amp;&gt; B" in text


def test_charts_follow_a_dark_scheme():
    style = scaling_plot.STYLE
    light, dark = style.split("@media (prefers-color-scheme:dark)")
    colours = re.compile(r"\.([cf]\d|paper|hollow|grid|note|tick)\{")
    assert set(colours.findall(light)) == set(colours.findall(dark))


@pytest.mark.parametrize("top", [0.003, 1, 7, 10, 99, 1234, 5e7])
def test_linear_ticks_reach_the_top(top):
    ticks = scaling_plot.linear_ticks(top)
    assert ticks[0] == 0 and ticks[-1] >= top * 0.999 and ticks[-2] < top and len(ticks) <= 8
    assert len({scaling_plot.number(tick) for tick in ticks}) == len(ticks)


@pytest.mark.parametrize("low, high", [(1, 1), (0.3, 0.4), (5, 5000), (1, 1e6), (90, 110)])
def test_log_ticks_hold_the_range(low, high):
    ticks = scaling_plot.log_ticks(low, high)
    assert ticks[0] <= low and ticks[-1] >= high and ticks == sorted(set(ticks))
    assert 2 <= len(ticks) <= 10


def test_core_ticks_keep_their_distance():
    for cores in (MANY, range(1, 65), (1, 1023, 1024), (1,)):
        kept = scaling_plot.core_ticks(list(cores))
        assert kept[-1] == max(cores) and set(kept) <= set(cores) and kept == sorted(kept)


# ---- --from: all outputs ----

def test_from_a_file_draws_everything(tmp_path):
    result = run("--from", write_file(tmp_path, simulated()), "--out", tmp_path / "out", "--json")
    assert result.returncode == 0, result.stderr
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    for row in rows:
        assert list(row)[:6] == ["bench", "case", "subject", "value", "unit", "ratio_to_limit"]
        assert row["bench"] == "scaling" and row["subject"] == "shoal" and row["value"] > 0
    cases = {row["case"]: row for row in rows}
    assert len(cases) == len(rows) == 3 * (len(MANY) + 1)
    assert cases["scaling-http-64"]["ratio_to_limit"] == pytest.approx(0.525, abs=0.01)
    law = cases["scaling-messages-usl"]
    assert law["sigma"] == pytest.approx(0.02, rel=0.01) and law["kappa"] == pytest.approx(1.5e-3)
    assert law["peak_cores"] == pytest.approx(25.56, abs=0.01)
    out = tmp_path / "out"
    text = (out / "report.md").read_text()
    for name in KNOWN:
        for kind in ("throughput", "latency", "cpu"):
            check_svg((out / f"{name}-{kind}.svg").read_text())
            assert f"]({name}-{kind}.svg)" in text
            if shutil.which("rsvg-convert"):
                size = check_png((out / f"{name}-{kind}.png").read_bytes())
                assert size == (2 * scaling_plot.WIDTH, 2 * scaling_plot.HEIGHT)
    assert "peak at N* = 25.6 cores" in text
    assert all(line.count("|") == 11 for line in text.splitlines() if line.startswith("|"))


def test_two_points_say_that_nothing_is_determined(tmp_path):
    path = write_file(tmp_path, simulated(cores=(1, 2)))
    result = run("--from", path, "--out", tmp_path / "out")
    assert result.returncode == 0, result.stderr
    text = (tmp_path / "out" / "report.md").read_text()
    assert "2 points, 3 parameters" in text and "sigma + 2 kappa = " in text
    assert "1 point, 3 parameters" in text and "N*" not in text
    assert "universal scalability law" not in (tmp_path / "out" / "http-throughput.svg").read_text()
    assert "-usl" not in result.stdout


def test_what_was_saved_is_loaded_again(tmp_path):
    path = tmp_path / "results.json"
    samples = points_of(simulated())
    scaling_points.save(path, {"cpu": "x"}, {"rounds": 3}, samples)
    assert scaling_points.load(path) == ({"cpu": "x"}, {"rounds": 3}, samples)


@pytest.mark.parametrize("change, words", [
    ({"workload": "nope"}, "'nope' is not one of http, hop, messages"),
    ({"cores": 0}, "no number of cores"),
    ({"cores": 1.5}, "no number of cores"),
    ({"ops_per_s": 0}, "ops_per_s 0 is not a positive number"),
    ({"p99_us": "fast"}, "is not a positive number"),
    ({"surprise": 1}, 'unknown key "surprise"'),
    ({"load": "far"}, "load 'far'"),
])
def test_a_wrong_sample_is_named(tmp_path, change, words):
    entries = simulated(cores=(1,), rounds=1)
    entries[1].update(change)
    result = run("--from", write_file(tmp_path, entries), "--out", tmp_path / "out")
    assert result.returncode == 1 and words in result.stderr and "sample 1" in result.stderr
    assert "Traceback" not in result.stderr and not (tmp_path / "out").exists()


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"samples": []}', '{"samples": 3}',
                                  '{"samples": [1]}', '{"samples": [{}]}'])
def test_a_file_that_is_none_is_refused(tmp_path, text):
    path = tmp_path / "results.json"
    path.write_text(text)
    result = run("--from", path)
    assert result.returncode == 1 and "--from" in result.stderr and "Traceback" not in result.stderr


def test_a_missing_key_is_named(tmp_path):
    entries = simulated(cores=(1,), rounds=1)
    del entries[0]["p999_us"]
    result = run("--from", write_file(tmp_path, entries))
    assert result.returncode == 1 and '"p999_us" is missing' in result.stderr


@pytest.mark.parametrize("words, message", [
    (("--from", "/nonexistent.json"), "No such file"),
    (("--rounds", "0"), "--rounds: 0 is out of range"),
    (("--seconds", "0"), "--seconds: 0 is out of range"),
    (("--window", "256"), "allowed: 1 to 255"),
    (("--workloads", "x"), "not one of http, hop, messages"),
    (("--program", "/nonexistent"), "build it first"),
])
def test_wrong_options_are_named(words, message):
    result = run(*words)
    assert result.returncode == 1 and message in result.stderr


# ---- The mesh ----

def constants():
    few = {"cores": "8", "fixed_bytes": "100128", "asking_bytes": "30000",
           "answering_bytes": "2000", "small_bytes": "3000"}
    many = {"cores": "128", "fixed_bytes": "102048"}
    steps = {"dirty_word_ns": "0.5", "look_ns_1": "1", "look_ns_10": "2", "look_ns_1000": "4"}
    for name in ("announce", "take_dirty", "verify", "watch", "unwatch"):
        steps[f"{name}_near_ns"], steps[f"{name}_far_ns"] = "5", "50"
    return scaling_mesh.Constants(few, many, steps, dict.fromkeys(steps, (30.0, 60.0)))


def test_the_mesh_is_a_sum_of_products():
    made = constants()
    assert made.fixed_slope == 16 and made.fixed_base == 100000
    mesh = scaling_mesh.Mesh(made, 256, 255)
    assert mesh.memory == 256 * 16 + 255 * 32000
    assert mesh.total == 256 * mesh.memory + 256 * 256 * 8
    assert mesh.small == 256 * 16 + 255 * 5000
    assert mesh.rings == 510 and mesh.idle_ns == 2.0
    assert mesh.look_ns == pytest.approx(2 + 510 * made.look_ns(510))
    assert mesh.sleep_ns == 510 * 50
    few = scaling_mesh.Mesh(made, 256, 8)
    assert few.memory == 256 * 16 + 8 * 32000 and few.rings == 16
    assert scaling_mesh.Mesh(made, 8, 32).neighbours == 7


def test_a_look_is_interpolated_between_what_was_timed():
    made = constants()
    assert made.look_ns(1) == 1 and made.look_ns(10) == 2 and made.look_ns(1000) == 4
    assert made.look_ns(100) == pytest.approx(3) and made.look_ns(5000) == 4
    assert made.look_ns(0.5) == 1


def test_without_a_second_cpu_the_near_figure_counts():
    made = constants()
    del made.steps["verify_far_ns"]
    assert made.step("verify") == 5 and made.step("watch") == 50


def test_the_tables_name_every_size_and_constant():
    text = scaling_mesh.markdown(constants())
    for words in ("1,024 | everyone | 2,046", "8 | everyone | 14", "256 | 8 neighbours | 16",
                  "asking-bytes | 30,000 B", "unwatch-far | 50.00 ns"):
        assert words in text
    for block in text.split("\n\n"):
        assert len({line.count("|") for line in block.splitlines()}) == 1


def test_sizes_are_short():
    assert [scaling_mesh.size(n) for n in (12, 2048, 5 << 20, 3 << 30, 1023 << 10)] == \
        ["12 B", "2 KiB", "5 MiB", "3 GiB", "1,023 KiB"]


def test_the_documented_workloads_and_files_exist():
    page = pathlib.Path(BENCH).parents[1] / "docs" / "scaling.md"
    text = page.read_text()
    for name in scaling_points.WORKLOADS:
        assert f"`{name}`" in text
