"""tools/gdb/shoal.py: all fibers and their stacks, of a live process and of a core file."""

import functools
import os
import platform
import re
import resource
import signal
import subprocess

import pytest

import harness
import wire

HELPER = os.path.join(harness.HERE, "..", "..", "tools", "gdb", "shoal.py")
PARKED = 3


def gdb(*args, commands=(), patience=120):
    """What gdb prints when it runs `commands` in batch mode."""
    argv = [harness.need_tool("gdb"), "-nx", "-q", "-batch", "-iex", "set debuginfod enabled off"]
    argv += args
    for command in commands:
        argv += ["-ex", command]
    result = subprocess.run(
        argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=patience, check=False
    )
    return result.stdout + result.stderr


@functools.cache
def refused_ptrace():
    """Why a debugger cannot attach to a child here, or ""."""
    with subprocess.Popen(["sleep", "60"]) as child:
        try:
            text = gdb("-p", str(child.pid), commands=["info threads"])
        finally:
            child.kill()
    match = re.search(r".*(not permitted|ptrace:).*", text)
    return match[0] if match else ""


def need_ptrace():
    harness.need_tool("gdb")
    if why := refused_ptrace():
        harness.missing(f"ptrace ({why})")


def park(server):
    conns = [server.conn() for _ in range(PARKED)]
    for conn in conns:
        conn.send(wire.request("/sleep?ms=600000"))
    # What came first has been read by a core once it has answered what came later.
    for _ in range(8 * server.cores):
        server.get("/plaintext")
    return conns


@pytest.fixture
def parked(start):
    """A server with requests that wait in /sleep."""
    server = start("--shutdown-timeout", "0.1")
    park(server)
    yield server
    assert server.get("/plaintext").status == 200
    server.stop()


def heads(text):
    """(core, name, state, what is waited for) of each fiber listed."""
    line = re.compile(r'^core (\d+)  0x[0-9a-f]+  "(.*)": (\w+)(?:, waits for ([^,[]*?))?[, ].*$', re.M)
    return [(int(m[1]), m[2], m[3], (m[4] or "").strip()) for m in line.finditer(text)]


def frames(text):
    """The names of the functions, stack by stack."""
    stacks = []
    for line in text.splitlines():
        if match := re.match(r"    #(\d+)\s+0x[0-9a-f]+ in (\S+) \(", line):
            if match[1] == "0":
                stacks.append([])
            stacks[-1].append(match[2])
    return stacks


def check_report(text, cores):
    found = heads(text)
    http = [fiber for fiber in found if fiber[1] == "http" and fiber[3] == "sleep"]
    assert len(http) == PARKED, text
    assert all(core < cores and state == "parked" for core, _, state, _ in http), text
    assert (0, "main", "parked", "stop") in found, text
    assert re.search(rf"^{len(found)} fibers$", text, re.M), text


def check_stacks(text, wanted, count):
    right = [
        stack for stack in frames(text)
        if set(wanted) <= set(stack) and stack[-1] == "shoal_fiber_first_frame"
    ]
    assert len(right) == count, text


def test_helper_lists_fibers_of_a_live_process(parked):
    need_ptrace()
    text = gdb("-p", str(parked.pid), commands=[f"source {HELPER}", "shoal fibers"])
    check_report(text, parked.cores)
    text = gdb(
        "-p", str(parked.pid),
        commands=[f"source {HELPER}", "shoal fiber-bt http", "shoal fiber-bt main", "shoal fiber-bt no",
                  "shoal fibers -core x", "bt"],
    )
    check_stacks(text, ["shoal_sleep_ns", "httpd_sleep", "fiber_entry"], PARKED)
    check_stacks(text, ["shoal_stop_wait", "main_fiber", "fiber_entry"], 1)
    assert 'no fiber is named or lies at "no"' in text
    assert "usage: shoal fibers" in text
    assert re.search(r"^#\d+ .* shoal_core_run ", text, re.M), f"the thread's own stack:\n{text}"
    assert parked.get("/plaintext").status == 200


def test_helper_prints_all_stacks_of_one_core_or_all(parked):
    need_ptrace()
    commands = [f"source {HELPER}", "shoal fibers -bt"]
    text = gdb("-p", str(parked.pid), commands=commands)
    check_report(text, parked.cores)
    # Once for all three, or twice: some gave way to the loop, others to another fiber.
    assert 1 <= sum("httpd_sleep" in stack for stack in frames(text)) <= 2, text
    addresses = re.findall(r'(0x[0-9a-f]+)  "http"', text)
    commands = [f"source {HELPER}", f"shoal fiber-bt {addresses[0]}", "shoal fibers -core 1"]
    text = gdb("-p", str(parked.pid), commands=commands)
    check_stacks(text, ["httpd_sleep"], 1)
    assert {core for core, *_ in heads(text.split("first_frame")[-1])} <= {1}, text


# The address sanitizer forbids core files, and what a stepped switch would show is not in its build.
if not harness.sanitizer():

    def core_pattern():
        with open("/proc/sys/kernel/core_pattern", encoding="ascii", errors="replace") as file:
            return file.read().strip()

    def allow_core():
        resource.setrlimit(resource.RLIMIT_CORE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))

    def test_helper_reads_a_core_file(start, folder):
        harness.need_tool("gdb")
        if core_pattern().startswith(("|", "/")):
            harness.missing(f"core files in the working folder (core_pattern is {core_pattern()})")
        if resource.getrlimit(resource.RLIMIT_CORE)[1] != resource.RLIM_INFINITY:
            harness.missing("core files (RLIMIT_CORE)")
        server = start(preexec_fn=allow_core)
        park(server)
        before = set(os.listdir(folder))
        server.signal(signal.SIGABRT)
        server.process.wait(harness.PATIENCE)
        server.kill()
        cores = [name for name in set(os.listdir(folder)) - before if "core" in name]
        if not cores:
            harness.missing("core files in the working folder (none was written)")
        text = gdb(
            "-core", os.path.join(folder, cores[0]), harness.binary("shoal-httpd"),
            commands=[f"source {HELPER}", "shoal fibers", "shoal fiber-bt http", "shoal fiber-bt main"],
        )
        check_stacks(text, ["shoal_sleep_ns", "httpd_sleep", "fiber_entry"], PARKED)
        check_stacks(text, ["shoal_stop_wait", "main_fiber", "fiber_entry"], 1)
        check_report(text[: text.index(" fibers\n") + 8], server.cores)

    def test_switch_unwinds_at_each_instruction():
        need_ptrace()
        if platform.machine() != "x86_64":
            harness.missing("a script for gdb that knows the registers of this processor")
        program = os.path.join(harness.BIN_DIR, "..", "tests", "test_fiber_switch")
        script = os.path.join(harness.HERE, "gdb_step.py")
        text = gdb(program, commands=[f"source {script}"])
        match = re.search(r"^ALL RIGHT: (\d+) instructions$", text, re.M)
        assert match and int(match[1]) > 50, text
