"""Fixtures of the black-box tests.

`SHOAL_BIN_DIR` is the folder of the programs (default: build/dev/bin), `SHOAL_TEST_IO_BACKEND` the
backend to run on, `io_uring` or `epoll` (default: each test on both).
"""

import os
import random
import resource
import shutil
import subprocess
import tempfile

import pytest

import harness
import wire


def pytest_configure(config):
    # Thousands of client sockets: take what the hard limit gives.
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def pytest_sessionstart(session):
    for program in ("shoal-httpd", "shoal-hello"):
        if not os.access(harness.binary(program), os.X_OK):
            pytest.exit(f"no {program} in {harness.BIN_DIR} (SHOAL_BIN_DIR)", returncode=1)


def pytest_generate_tests(metafunc):
    if "backend" in metafunc.fixturenames:
        chosen = os.environ.get("SHOAL_TEST_IO_BACKEND")
        assert chosen in (None, "io_uring", "epoll"), f"SHOAL_TEST_IO_BACKEND={chosen}"
        backends = [chosen] if chosen else ["io_uring", "epoll"]
        metafunc.parametrize("backend", backends, indirect=True, scope="session")


@pytest.fixture(scope="session")
def backend(request):
    if request.param == "io_uring" and (why := harness.io_uring_refused()):
        harness.missing(f"io_uring ({why})")
    return request.param


@pytest.fixture
def folder():
    """A folder of the test's own that any user may enter (pytest's tmp_path is private)."""
    path = tempfile.mkdtemp(prefix="shoal-test-")
    os.chmod(path, 0o755)
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def start(backend, folder):
    """start(*args, **kw) runs a server that is checked and stopped when the test ends."""
    servers = []

    def launch(*args, **kw):
        server = harness.Server(folder, kw.pop("backend", backend), args, **kw)
        servers.append(server)
        return server

    yield launch
    wire.close_all()
    for server in servers:
        try:
            if not server.stopped:
                server.check()
                server.stop()
        finally:
            server.kill()


@pytest.fixture(scope="session")
def site():
    """A folder to serve: see the names below. Outside it lies `secret.txt`."""
    outer = tempfile.mkdtemp(prefix="shoal-site-")
    os.chmod(outer, 0o755)
    root = os.path.join(outer, "root")
    os.makedirs(os.path.join(root, "sub"))
    rng = random.Random(7)
    files = {
        "page.html": b"<!doctype html><title>t</title><p>page</p>\n",
        "plain.txt": b"plain text\n",
        "style.css": b"p{margin:0}\n",
        "code.js": b"let a = 1;\n",
        "data.json": b'{"a":1}\n',
        "picture.png": b"\x89PNG\r\n\x1a\n" + bytes(16),
        "drawing.svg": b"<svg xmlns='http://www.w3.org/2000/svg'/>\n",
        "unknown.zzz": rng.randbytes(100),
        "noextension": rng.randbytes(100),
        "empty.txt": b"",
        "with space.txt": b"space\n",
        "\u20ac.txt": b"euro\n",
        "sub/inner.txt": b"inner\n",
        "big.bin": rng.randbytes(20 << 20),
    }
    for name, data in files.items():
        with open(os.path.join(root, name), "wb") as file:
            file.write(data)
    with open(os.path.join(outer, "secret.txt"), "wb") as file:
        file.write(b"TOP-SECRET\n")
    os.symlink("../secret.txt", os.path.join(root, "link-out.txt"))
    os.symlink(os.path.join(outer, "secret.txt"), os.path.join(root, "link-absolute.txt"))
    os.symlink("..", os.path.join(root, "link-folder"))
    os.symlink("loop", os.path.join(root, "loop"))
    os.symlink("nowhere", os.path.join(root, "dangling"))
    os.mkfifo(os.path.join(root, "fifo"))
    yield type("Site", (), {"root": root, "outer": outer, "files": files})
    shutil.rmtree(outer, ignore_errors=True)


@pytest.fixture(scope="module")
def module_httpd(backend, site):
    """One server for the tests of a module, with the site and a 128 MiB limit on bodies."""
    path = tempfile.mkdtemp(prefix="shoal-test-")
    server = harness.Server(path, backend, ["--root", site.root, "--max-body", str(128 << 20)])
    yield server
    wire.close_all()
    try:
        server.stop()
    finally:
        server.kill()
        shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def httpd(module_httpd):
    """The module's server, checked after each test."""
    yield module_httpd
    module_httpd.check()


@pytest.fixture(scope="session")
def deny_io_uring():
    """A launcher under which io_uring_setup fails with EPERM."""
    path = tempfile.mkdtemp(prefix="shoal-test-")
    os.chmod(path, 0o755)
    program = os.path.join(path, "deny_io_uring")
    source = os.path.join(harness.HERE, "deny_io_uring.c")
    subprocess.run(["cc", "-O1", "-Wall", "-Werror", "-o", program, source], check=True)
    yield program
    shutil.rmtree(path, ignore_errors=True)
