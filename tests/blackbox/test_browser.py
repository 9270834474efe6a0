"""A real browser loads the front page and shows it."""

import os
import shutil
import struct
import subprocess
import zlib

import pytest

import harness

CHROMIUM = "/usr/bin/chromium"


def browse(server, folder, *args):
    if not os.access(CHROMIUM, os.X_OK):
        harness.missing("chromium")
    profile = os.path.join(folder, "profile")
    argv = [
        CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
        "--disable-background-networking", "--disable-component-update", "--disable-sync",
        "--disable-default-apps", "--disable-extensions", "--no-first-run", "--no-proxy-server",
        "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1", "--hide-scrollbars",
        f"--user-data-dir={profile}", "--window-size=1000,800", *args, server.url + "/",
    ]
    result = subprocess.run(argv, capture_output=True, timeout=120, cwd=folder, check=False)
    shutil.rmtree(profile, ignore_errors=True)
    assert result.returncode == 0, result.stderr.decode("utf-8", "replace")[-2000:]
    return result.stdout.decode("utf-8", "replace")


def png_rows(path):
    """Width, height and the raw rows of a PNG file; enough to see whether it shows something."""
    with open(path, "rb") as file:
        data = file.read()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    position, packed = 8, b""
    while position < len(data):
        length, kind = struct.unpack(">I4s", data[position : position + 8])
        chunk = data[position + 8 : position + 8 + length]
        if kind == b"IHDR":
            width, height = struct.unpack(">II", chunk[:8])
        elif kind == b"IDAT":
            packed += chunk
        position += 12 + length
    raw = zlib.decompress(packed)
    stride = len(raw) // height
    return width, height, {raw[i * stride : (i + 1) * stride] for i in range(height)}


@pytest.mark.parametrize("show", ["dom", "screenshot"])
def test_browser_front_page_shown(start, folder, show):
    server = start()
    if show == "dom":
        dom = browse(server, folder, "--dump-dom")
        assert "<title>" in dom and "Shoal" in dom and "<body" in dom
        assert "/plaintext" in dom, "the page does not lead anywhere"
    else:
        path = os.path.join(folder, "page.png")
        browse(server, folder, f"--screenshot={path}", "--virtual-time-budget=2000")
        width, height, rows = png_rows(path)
        assert (width, height) == (1000, 800)
        assert len(rows) > 40, "the page is blank"
