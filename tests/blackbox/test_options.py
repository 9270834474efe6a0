"""The command line: what is wrong is refused with one line that names the option and the value, and
exit code 2, before anything has started; what is right does what it says.
"""

import os
import re
import signal
import socket
import subprocess

import pytest

import harness
import wire

LONG_PATH = "/tmp/" + "x" * 120

# (arguments, what the line must name besides). `--port 0` comes before them all.
WRONG = [
    (["--smp", "0"], ["smp", "0"]),
    (["--smp", "-1"], ["smp", "-1"]),
    (["--smp", "two"], ["smp", "two"]),
    (["--smp", "2x"], ["smp", "2x"]),
    (["--smp", "1.5"], ["smp", "1.5"]),
    (["--smp", ""], ["smp"]),
    (["--smp="], ["smp"]),
    (["--smp"], ["smp"]),
    (["--smp", "99999999999999999999"], ["smp", "99999999999999999999"]),
    (["--port", "65536"], ["port", "65536"]),
    (["--port", "-1"], ["port", "-1"]),
    (["--port", "http"], ["port", "http"]),
    (["--port="], ["port"]),
    (["--host", "300.1.1.1"], ["host", "300.1.1.1"]),
    (["--host", "not an address"], ["host", "not an address"]),
    (["--host", ""], ["host"]),
    (["--host", "unix:"], ["host", "unix:"]),
    (["--host", "unix:" + LONG_PATH], ["host", LONG_PATH[:40]]),
    (["--host", "unix:/nonexistent-folder/sock"], ["/nonexistent-folder/sock"]),
    (["--host", "192.0.2.1"], ["192.0.2.1"]),
    (["--root", "/nonexistent-folder"], ["root", "/nonexistent-folder"]),
    (["--root", "/etc/passwd"], ["root", "/etc/passwd"]),
    (["--root", ""], ["root"]),
    (["--max-body", "much"], ["max-body", "much"]),
    (["--max-body", "-1"], ["max-body", "-1"]),
    (["--max-body", "12Q"], ["max-body", "12Q"]),
    (["--header-timeout", "soon"], ["header-timeout", "soon"]),
    (["--header-timeout", "-0.5"], ["header-timeout", "-0.5"]),
    (["--body-timeout", "1s"], ["body-timeout", "1s"]),
    (["--idle-timeout", "1,5"], ["idle-timeout", "1,5"]),
    (["--write-timeout", "nan"], ["write-timeout", "nan"]),
    (["--write-timeout", "1e400"], ["write-timeout", "1e400"]),
    (["--shutdown-timeout", "-1"], ["shutdown-timeout", "-1"]),
    (["--shutdown-timeout", "99999999999999999999"], ["shutdown-timeout"]),
    (["--io-backend", "kqueue"], ["io-backend", "kqueue", "io_uring", "epoll"]),
    (["--io-backend", "EPOLL"], ["io-backend", "EPOLL"]),
    (["--io-backend"], ["io-backend"]),
    (["--thread-affinity", "maybe"], ["thread-affinity", "maybe", "on", "off"]),
    (["--log-level", "loud"], ["log-level", "loud", "warn"]),
    (["--memory", "1"], ["memory", "1"]),
    (["--memory", "0"], ["memory", "0"]),
    (["--memory", "12Q"], ["memory", "12Q"]),
    (["--memory", "lots"], ["memory", "lots"]),
    (["--memory", "99999999T"], ["memory", "99999999T"]),
    (["--max-connections", "0"], ["max-connections", "0"]),
    (["--fail-alloc", "sometimes"], ["fail-alloc", "sometimes"]),
    (["--max-connections", "many"], ["max-connections", "many"]),
    (["--max-connections", "4000000000"], ["max-connections", "4000000000"]),
    (["--accept-balance", "fair"], ["accept-balance", "fair", "kernel", "balanced"]),
    (["--cpuset", "9999"], ["cpuset", "9999"]),
    (["--cpuset", "0,9999"], ["cpuset", "9999"]),
    (["--cpuset", "0-"], ["cpuset", "0-"]),
    (["--cpuset", "3-1"], ["cpuset", "3-1"]),
    (["--cpuset", "a"], ["cpuset", "a"]),
    (["--cpuset", ""], ["cpuset"]),
    (["--cpuset", "0,,1"], ["cpuset", "0,,1"]),
    (["--task-quota-us", "fast"], ["task-quota-us", "fast"]),
    (["--idle-poll-time-us", "-5"], ["idle-poll-time-us", "-5"]),
    (["--blocked-reactor-notify-ms", "x"], ["blocked-reactor-notify-ms", "x"]),
    (["--overprovisioned=yes"], ["overprovisioned", "yes"]),
    (["--poll-mode=1"], ["poll-mode"]),
    (["--smmp", "1"], ["--smmp", "--smp"]),
    (["--no-such-option"], ["--no-such-option"]),
    (["-x"], ["-x"]),
    (["stray"], ["stray"]),
    (["--", "stray"], ["stray"]),
]
HELLO_WRONG = [row for row in WRONG if row[1][0] in (
    "smp", "port", "host", "io-backend", "cpuset", "--smmp", "stray", "192.0.2.1")]


@pytest.mark.parametrize("args,names", WRONG, ids=[" ".join(row[0])[:40] for row in WRONG])
def test_wrong_option_one_line_exit_2(args, names):
    line = harness.run_refused("shoal-httpd", ["--port", "0", *args])
    for name in names:
        assert name in line, f"{name!r} is not named in {line!r}"


@pytest.mark.parametrize("args,names", HELLO_WRONG, ids=[" ".join(r[0])[:40] for r in HELLO_WRONG])
def test_wrong_option_of_hello_one_line_exit_2(args, names):
    line = harness.run_refused("shoal-hello", ["--port", "0", *args])
    for name in names:
        assert name in line, f"{name!r} is not named in {line!r}"


def test_wrong_option_of_httpd_unknown_to_hello():
    assert "--root" in harness.run_refused("shoal-hello", ["--port", "0", "--root", "/tmp"])


@pytest.mark.parametrize("program", ["shoal-httpd", "shoal-hello"])
def test_help_lists_every_option_exit_0(program):
    result = subprocess.run([harness.binary(program), "--help"], capture_output=True, text=True,
                            timeout=60, check=False)
    assert result.returncode == 0 and result.stderr == ""
    options = ["smp", "cpuset", "memory", "overprovisioned", "poll-mode", "idle-poll-time-us",
               "task-quota-us", "blocked-reactor-notify-ms", "io-backend", "thread-affinity",
               "shutdown-timeout", "max-connections", "accept-balance", "log-level", "fail-alloc",
               "help", "version", "host", "port"]
    if program == "shoal-httpd":
        options += ["root", "max-body", "header-timeout", "body-timeout", "idle-timeout",
                    "write-timeout"]
    for option in options:
        assert re.search(rf"--{option}\b", result.stdout), f"--{option} is not in --help"


@pytest.mark.parametrize("program", ["shoal-httpd", "shoal-hello"])
def test_version_exit_0(program):
    result = subprocess.run([harness.binary(program), "--version"], capture_output=True, text=True,
                            timeout=60, check=False)
    assert result.returncode == 0 and result.stderr == ""
    assert re.search(r"\d+\.\d+", result.stdout)


# Ports


@pytest.mark.parametrize("reuse", [False, True])
def test_port_held_by_plain_socket_exit_2(backend, reuse):
    """Also where the holder set SO_REUSEPORT: to bind beside it would steal its connections."""
    with socket.socket() as holder:
        if reuse:
            holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        for program in ("shoal-httpd", "shoal-hello"):
            args = ["--io-backend", backend, "--port", str(port)]
            line = harness.run_refused(program, args)
            assert "port" in line and str(port) in line
            line = harness.run_refused(program, [*args, "--host", "0.0.0.0"])
            assert str(port) in line


def test_port_held_by_shoal_exit_2_and_holder_unharmed(start, backend):
    server = start()
    for _ in range(3):
        line = harness.run_refused(
            "shoal-httpd", ["--io-backend", backend, "--port", str(server.port)])
        assert "port" in line and str(server.port) in line
    for _ in range(20):
        assert server.get("/plaintext").status == 200


def test_unix_path_held_exit_2_and_holder_unharmed(start, folder, backend):
    path = os.path.join(folder, "held.sock")
    server = start("--host", "unix:" + path, port=None)
    line = harness.run_refused("shoal-httpd", ["--io-backend", backend, "--host", "unix:" + path])
    assert path in line
    assert os.path.exists(path)
    assert server.get("/plaintext").status == 200


def test_unix_path_is_a_file_exit_2_and_file_kept(folder, backend):
    path = os.path.join(folder, "document.txt")
    with open(path, "wb") as file:
        file.write(b"precious")
    line = harness.run_refused("shoal-httpd", ["--io-backend", backend, "--host", "unix:" + path])
    assert path in line
    with open(path, "rb") as file:
        assert file.read() == b"precious"


def test_port_forbidden_exit_2(backend):
    with open("/proc/sys/net/ipv4/ip_unprivileged_port_start", encoding="ascii") as setting:
        first = int(setting.read())
    if first <= 80:
        harness.missing(f"forbidden ports (ip_unprivileged_port_start is {first})")
    line = harness.run_refused("shoal-httpd", ["--io-backend", backend, "--port", "80"],
                               wrapper=harness.as_nobody())
    assert "port" in line and "80" in line


def test_port_0_kernel_picks_and_log_names_it(start):
    servers = [start(), start()]
    assert servers[0].port != servers[1].port
    assert all(server.get("/plaintext").status == 200 for server in servers)


# Cores


def test_smp_more_than_cpus_exit_2(backend):
    count = harness.cpus() + 1
    line = harness.run_refused("shoal-httpd", ["--port", "0", "--io-backend", backend,
                                               "--smp", str(count)])
    assert "smp" in line and str(count) in line and "overprovisioned" in line


def test_smp_more_than_cpus_overprovisioned_serves(start):
    count = harness.cpus() + 2
    server = start(smp=count)
    assert server.cores == count
    assert len(server.cores_json()["cores"]) == count
    for _ in range(50):
        assert server.get("/plaintext").status == 200


def test_smp_default_is_the_affinity_mask(backend, folder):
    cpu = min(os.sched_getaffinity(0))
    log = os.path.join(folder, "default.log")
    with open(log, "wb") as out:
        process = subprocess.Popen(
            [harness.binary("shoal-httpd"), "--port", "0", "--io-backend", backend],
            stderr=out, preexec_fn=lambda: os.sched_setaffinity(0, {cpu}))
    try:
        def line():
            with open(log, encoding="utf-8") as text:
                return re.search(r"listening on \S+ \((\d+) cores?\)\n", text.read())
        assert harness.wait_for(line, "it listens")[1] == "1"
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.wait()


def test_cpuset_pins_the_cores(start):
    cpu = max(os.sched_getaffinity(0))
    server = start("--cpuset", str(cpu), smp=1)
    masks = set()
    for task in os.listdir(f"/proc/{server.pid}/task"):
        masks.add(frozenset(os.sched_getaffinity(int(task))))
    assert frozenset({cpu}) in masks
    assert server.get("/plaintext").status == 200


def test_cpuset_fewer_than_smp_exit_2(backend):
    cpu = min(os.sched_getaffinity(0))
    line = harness.run_refused("shoal-httpd", ["--port", "0", "--io-backend", backend,
                                               "--smp", "2", "--cpuset", str(cpu)])
    assert "smp" in line and "2" in line


@pytest.mark.parametrize("args", [
    ["--thread-affinity", "off"],
    ["--thread-affinity=on"],
    ["--memory", "512M"],
    ["--memory=1G", "--overprovisioned"],
    ["--idle-poll-time-us", "0"],
    ["--task-quota-us=200", "--blocked-reactor-notify-ms=100"],
    ["--max-connections", "100"],
    ["--accept-balance", "balanced"],
    ["--max-body=1k", "--header-timeout=1.5", "--body-timeout", "0.5", "--idle-timeout", "2"],
    ["--host", "0.0.0.0"],
    ["--log-level", "debug"],
], ids=" ".join)
def test_right_option_serves(start, args):
    server = start(*args)
    if "0.0.0.0" in args:
        server.address = ("127.0.0.1", server.port)
    for _ in range(5):
        assert server.get("/plaintext").status == 200


def test_poll_mode_serves(start):
    server = start("--poll-mode", smp=1)
    for _ in range(20):
        assert server.get("/plaintext").status == 200


@pytest.mark.parametrize("level", ["warn", "error"])
def test_log_level_quiet_says_nothing(backend, folder, level):
    port = harness.free_port()
    with open(os.path.join(folder, "quiet.log"), "w+b") as log:
        process = subprocess.Popen(
            [harness.binary("shoal-httpd"), "--port", str(port), "--log-level", level,
             "--io-backend", backend], stdout=log, stderr=log)
        try:
            address = ("127.0.0.1", port)
            harness.wait_for(lambda: not harness.connect_refused(address), "it listens")
            assert wire.fetch(address, "/plaintext").status == 200
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 0
        finally:
            process.kill()
            process.wait()
        log.seek(0)
        assert log.read() == b""


# Backends


def test_io_uring_denied_explicit_exit_2(deny_io_uring):
    for program in ("shoal-httpd", "shoal-hello"):
        line = harness.run_refused(program, ["--port", "0", "--io-backend", "io_uring"],
                                   wrapper=[deny_io_uring])
        assert "io-backend" in line and "io_uring" in line
        assert "epoll" in line, f"what is allowed is not named: {line!r}"


@pytest.mark.parametrize("args", [["--io-backend", "auto"], []], ids=["auto", "default"])
def test_io_uring_denied_auto_falls_back(folder, deny_io_uring, args):
    server = harness.Server(folder, None, args, wrapper=[deny_io_uring], log_backend="epoll")
    try:
        assert server.log_says(
            r"^io backend: epoll \(io_uring cannot be had: .*(EPERM|not permitted)")
        for _ in range(20):
            assert server.get("/plaintext").status == 200
        server.check()
        server.stop()
    finally:
        server.kill()


def test_io_uring_denied_epoll_serves(folder, deny_io_uring):
    server = harness.Server(folder, "epoll", wrapper=[deny_io_uring])
    try:
        assert server.log_says(r"^io backend: epoll$")
        assert server.get("/plaintext").status == 200
        server.stop()
    finally:
        server.kill()


def test_auto_takes_io_uring_where_it_can_be_had(folder):
    if why := harness.io_uring_refused():
        harness.missing(f"io_uring ({why})")
    server = harness.Server(folder, "auto")
    try:
        assert server.cores_json()["io_backend"] == "io_uring"
        assert server.log_says(r"^io backend: io_uring")
        server.stop()
    finally:
        server.kill()
