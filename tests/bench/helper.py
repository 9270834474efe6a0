"""What the tests of the benchmarks' own code share: its modules, the built programs, a checker."""

import os
import sys
import zlib
from xml.etree import ElementTree

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.abspath(os.path.join(HERE, "..", ".."))
BIN_DIR = os.path.abspath(
    os.environ.get("SHOAL_BIN_DIR", os.path.join(ROOT, "build", "dev", "bin")))
BENCH = os.path.join(ROOT, "tools", "bench")
SVG = "{http://www.w3.org/2000/svg}"

sys.path.insert(0, os.path.join(ROOT, "tools"))
sys.dont_write_bytecode = True

from benchlib import (bench_scaling, report, scaling_load, scaling_mesh,  # noqa: E402, F401
                      scaling_plot, scaling_points, scaling_report)
from benchlib import scaling_usl as usl  # noqa: E402, F401


def samples_of(workload, known, cores, rounds=3, **more):
    """Samples that follow the law exactly, as entries of a file for --from."""
    out = []
    for count in cores:
        for number in range(rounds):
            rate = usl.law(count, *known) * (1 + 0.01 * (number - rounds // 2))
            cost = count * 1e6 / rate
            out.append({"workload": workload, "cores": count, "round": number, "ops_per_s": rate,
                        "p50_us": 10 * cost, "p99_us": 20 * cost, "p999_us": 50 * cost,
                        "cpus": 0.99 * count, "cpu_us_per_op": cost, **more})
    return out


def texts(svg_text):
    """Each text of a chart with the box that it may cover: (text, left, top, right, bottom)."""
    root = ElementTree.fromstring(svg_text)
    assert root.tag == SVG + "svg"
    size = {"title": 18.0, "note": 12.0, "tick": 12.0, "label": 13.0, "legend": 12.5}
    out = []
    for element in root.iter(SVG + "text"):
        height = size[element.get("class")]
        width = 0.56 * height * len(element.text)
        if element.get("transform"):
            place = element.get("transform").split("(")[1].split(")")[0].split()
            x, y = map(float, place)
            out.append((element.text, x - height, y - width / 2, x + 3, y + width / 2))
            continue
        x, y = float(element.get("x")), float(element.get("y"))
        left = x - {"end": width, "middle": width / 2}.get(element.get("text-anchor"), 0)
        out.append((element.text, left, y - 0.8 * height, left + width, y + 0.2 * height))
    return out


def check_svg(text):
    """Well-formed, all within the paper, and no text over another one."""
    boxes = texts(text)
    for name, left, top, right, bottom in boxes:
        assert left >= 0 and top >= 0, name
        assert right <= scaling_plot.WIDTH and bottom <= scaling_plot.HEIGHT, name
    for index, (name, left, top, right, bottom) in enumerate(boxes):
        for other, left2, top2, right2, bottom2 in boxes[:index]:
            apart = right <= left2 or right2 <= left or bottom <= top2 or bottom2 <= top
            assert apart, f"{name!r} covers {other!r}"
    return ElementTree.fromstring(text)


def check_png(data):
    """The signature, the size in the header, and pixels that can be unpacked; returns the size."""
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    offset, packed, size, kinds = 8, b"", None, []
    while offset < len(data):
        length = int.from_bytes(data[offset:offset + 4], "big")
        kind, body = data[offset + 4:offset + 8], data[offset + 8:offset + 8 + length]
        crc = int.from_bytes(data[offset + 8 + length:offset + 12 + length], "big")
        assert crc == zlib.crc32(kind + body)
        kinds.append(kind)
        if kind == b"IHDR":
            size = int.from_bytes(body[:4], "big"), int.from_bytes(body[4:8], "big")
        elif kind == b"IDAT":
            packed += body
        offset += 12 + length
    assert kinds[0] == b"IHDR" and kinds[-1] == b"IEND" and offset == len(data)
    pixels = zlib.decompress(packed)
    assert len(pixels) > size[0] * size[1] * 3 and len(set(pixels)) > 10
    return size
