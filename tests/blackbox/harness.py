"""Starts, watches and stops the real programs.

1. A server is ready once its log says that it listens; the backend that runs is asserted from the
   log and again from GET /cores.
2. A server is stopped by its own pid, never by name, and must exit with 0.
3. Its stderr goes to a file, so that a chatty server never blocks on a pipe; each line must have
   the form of a log line (or be a stall report), and lines of level error or of a sanitizer fail
   the test that made them.
4. Descriptors are counted when the server is warm and must come back to that after each test.
"""

import ctypes
import errno
import itertools
import json
import os
import re
import resource
import shutil
import signal
import socket
import subprocess
import time

import pytest

import wire

HERE = os.path.dirname(os.path.abspath(__file__))
BIN_DIR = os.path.abspath(
    os.environ.get("SHOAL_BIN_DIR", os.path.join(HERE, "..", "..", "build", "dev", "bin"))
)
PATIENCE = 60.0
SHORTEST_LIMIT = 0.1  # among the time-outs that tests give to servers

LOG_LINE = re.compile(
    r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z (error|warn |info |debug) core (\d+|-): (.+)\Z"
)
LISTENING = re.compile(r"listening on (http://(.+):(\d+)|unix:(.+)) \((\d+) cores?\)\Z")
# A core that was held for long, with a backtrace: on a busy machine that happens to anyone.
STALL = re.compile(r"shoal: core \d+ is held for over \d+ ms by |    #\d+ +\S|    \(no frames\)")
SANITIZER = re.compile(r"(Address|Thread|Leak|Memory|UndefinedBehavior)Sanitizer|runtime error:")


def binary(name):
    return os.path.join(BIN_DIR, name)


def _mentions(path, word):
    try:
        with open(path, "rb") as file:
            return word in file.read()
    except OSError:
        return False


def sanitizer():
    """"address", "thread" or "" for the programs under test: memory is not measured then."""
    program = binary("shoal-httpd")
    if _mentions(program, b"__asan_"):
        return "address"
    if _mentions(program, b"__tsan_"):
        return "thread"
    return ""


def io_uring_refused():
    """Why this machine has no io_uring, or "" where it has."""
    libc = ctypes.CDLL(None, use_errno=True)
    params = ctypes.create_string_buffer(256)
    fd = libc.syscall(425, 4, params)
    if fd < 0:
        return os.strerror(ctypes.get_errno())
    os.close(fd)
    return ""


def cpus():
    return len(os.sched_getaffinity(0))


def missing(feature):
    pytest.skip(f"SKIP: missing feature: {feature}")


def need_tool(name):
    path = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/bin:/usr/sbin")
    if path is None:
        missing(name)
    return path


def wait_for(condition, what, patience=PATIENCE, step=0.01):
    """Polls until `condition()` is true; the patience is only there so that no run hangs."""
    deadline = time.monotonic() + patience
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"never happened: {what}")
        time.sleep(step)


def unless_held_up(limit, attempt):
    """Gives what `attempt(mark)` gives. It calls mark() whenever the server's clock starts anew; a
    failure does not count if the machine let `limit` pass between two of these moments."""
    for _ in range(20):
        moments = [time.monotonic()]
        try:
            return attempt(lambda: moments.append(time.monotonic()))
        except TimeoutError:
            raise
        except (AssertionError, wire.Closed, wire.Torn, OSError):
            moments.append(time.monotonic())
            if max(end - begin for begin, end in zip(moments, moments[1:])) < limit:
                raise
    raise AssertionError(f"the machine never let it proceed for {limit} s")


def free_port():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


def run_refused(program, args, wrapper=(), preexec_fn=None):
    """Runs a program that must refuse to start: exit code 2 and one line, which is returned."""
    result = subprocess.run(
        [*wrapper, binary(program), *args],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=PATIENCE,
        preexec_fn=preexec_fn, check=False,
    )
    lines = result.stderr.splitlines()
    said = f"exit {result.returncode}, stderr {result.stderr!r}, stdout {result.stdout!r}"
    assert result.returncode == 2, said
    assert len(lines) == 1 and lines[0].strip(), f"not exactly one line: {said}"
    assert result.stdout == "", said
    assert "listening" not in lines[0], said
    return lines[0]


class Server:
    """One running program. `args` come after the defaults, so that they win."""

    def __init__(self, folder, backend, args=(), program="shoal-httpd", smp=2, wrapper=(),
                 log_backend=None, port=0, env=None, preexec_fn=None):
        self.folder = folder
        self.program = program
        self.allowed_errors = []
        self.stopped = False
        self.log_path = os.path.join(folder, f"{program}-{time.monotonic_ns()}.log")
        argv = [*wrapper, binary(program), "--smp", str(smp)]
        if smp > cpus():
            argv.append("--overprovisioned")
        if backend is not None:
            argv += ["--io-backend", backend]
        if port is not None:
            argv += ["--port", str(port)]
        argv += [str(arg) for arg in args]
        self.argv = argv
        with open(self.log_path, "wb") as log:
            self.process = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=folder,
                env={**os.environ, **(env or {})}, preexec_fn=preexec_fn,
            )
        self.pid = self.process.pid
        self.backend = log_backend or backend
        try:
            self._wait_ready()
            self.baseline = self._warm_up()
        except BaseException:
            self.kill()
            raise

    # Log

    def raw_log(self):
        with open(self.log_path, encoding="utf-8", errors="replace") as log:
            return log.read()

    def messages(self):
        """(level, text) of each complete log line."""
        text = self.raw_log()
        found = []
        for line in text[: text.rfind("\n") + 1].splitlines():
            match = LOG_LINE.match(line)
            found.append((match[1].strip(), match[3]) if match else ("raw", line))
        return found

    def log_says(self, pattern):
        return any(re.search(pattern, text) for _, text in self.messages())

    def check_log(self):
        for level, text in self.messages():
            assert not SANITIZER.search(text), f"sanitizer report:\n{self.raw_log()[:8000]}"
            if level == "error" or (level == "raw" and not STALL.match(text)):
                if not any(re.search(p, text) for p in self.allowed_errors):
                    raise AssertionError(f"unexpected line {text!r}:\n{self.raw_log()[-4000:]}")

    # Start

    def _wait_ready(self):
        def listening():
            for _, text in self.messages():
                if match := LISTENING.match(text):
                    return match
            code = self.process.poll()
            assert code is None, f"{self.argv} ended with {code}: {self.raw_log()}"
            return None

        match = wait_for(listening, f"{self.program} listens", step=0.002)
        self.cores = int(match[5])
        if match[4]:
            self.address = match[4]
            self.port = None
            self.url = "http://localhost"
        else:
            self.port = int(match[3])
            self.address = (match[2].strip("[]"), self.port)
            self.url = f"http://{match[2]}:{self.port}"
        backends = [t for _, t in self.messages() if t.startswith("io backend: ")]
        assert len(backends) == 1, f"not one line about the backend: {self.raw_log()}"
        if self.backend != "auto":
            assert re.match(rf"io backend: {self.backend}\b", backends[0]), backends[0]
        if self.program == "shoal-httpd" and self.backend != "auto":
            assert self.cores_json()["io_backend"] == self.backend

    def _warm_up(self):
        """Makes what is made lazily, so that the descriptors counted now are all there are."""
        target = "/cores" if self.program == "shoal-httpd" else "/"
        for _ in range(8 * self.cores):
            self.get_at_last(target)
        if self.program == "shoal-httpd":
            self.get_at_last("/files/")
        return wait_for(self._steady_fds, "a steady number of descriptors")

    def _steady_fds(self):
        before = self.fd_count()
        time.sleep(0.02)
        return before if before == self.fd_count() else 0

    # Requests

    def conn(self, **kw):
        return wire.Conn(self.address, **kw)

    def get(self, target, method="GET", **kw):
        return wire.fetch(self.address, target, method, **kw)

    def get_at_last(self, target):
        """For servers with short time-outs, on machines that do not let their clients proceed."""
        return unless_held_up(SHORTEST_LIMIT, lambda _: self.get(target))

    def cores_json(self):
        response = self.get_at_last("/cores")
        assert response.status == 200, response
        return json.loads(response.body)

    def served(self):
        return [core["requests"] for core in self.cores_json()["cores"]]

    # Process

    def fd_count(self):
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def open_files(self):
        """What the descriptors refer to."""
        names = []
        for fd in os.listdir(f"/proc/{self.pid}/fd"):
            try:
                names.append(os.readlink(f"/proc/{self.pid}/fd/{fd}"))
            except FileNotFoundError:
                pass
        return sorted(names)

    def cpu_seconds(self):
        with open(f"/proc/{self.pid}/stat", encoding="ascii", errors="replace") as stat:
            fields = stat.read().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def rss_bytes(self):
        with open(f"/proc/{self.pid}/statm", encoding="ascii") as statm:
            return int(statm.read().split()[1]) * os.sysconf("SC_PAGESIZE")

    def leave_fds(self, room):
        """Lets the program open `room` more descriptors; None takes the limit away again. The
        limit is on the number of a descriptor, so holes among those that are open count too."""
        hard = resource.prlimit(self.pid, resource.RLIMIT_NOFILE)[1]
        limit = hard
        if room is not None:
            used = {int(fd) for fd in os.listdir(f"/proc/{self.pid}/fd")}
            free = (fd for fd in itertools.count() if fd not in used)
            limit = next(itertools.islice(free, room, None))
        resource.prlimit(self.pid, resource.RLIMIT_NOFILE, (limit, hard))

    def signal(self, number):
        os.kill(self.pid, number)

    def wait(self):
        try:
            return self.process.wait(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"did not stop:\n{self.raw_log()[-4000:]}") from None

    def kill(self):
        self.stopped = True
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()

    # What must hold after each test

    def check(self):
        """Still runs, still answers, complains about nothing, has its descriptors back."""
        wire.close_all()
        code = self.process.poll()
        assert code is None, f"ended with {code}:\n{self.raw_log()[-4000:]}"
        target = "/plaintext" if self.program == "shoal-httpd" else "/"
        assert self.get_at_last(target).status == 200
        try:
            wait_for(lambda: self.fd_count() <= self.baseline, "descriptors back", 20.0)
        except AssertionError:
            files = self.open_files()
            raise AssertionError(
                f"{len(files)} descriptors instead of {self.baseline}: {files[-20:]}"
            ) from None
        self.check_log()

    def stop(self, send=True):
        """SIGTERM, unless it was sent already; exit code 0; a clean log."""
        if self.stopped:
            return
        self.stopped = True
        try:
            if send and self.process.poll() is None:
                self.signal(signal.SIGTERM)
            code = self.wait()
            self.check_log()
            assert code == 0, f"exit code {code}:\n{self.raw_log()[-4000:]}"
        finally:
            self.kill()


def check_memory_settles(server, one_round, rounds=15, slack=256 << 10):
    """Repeats `one_round` until its memory stays put over a series of rounds. Slabs and pools that
    only now reach their high-water marks may make it grow in some series; a leak grows in all."""
    if sanitizer():
        one_round()
        return
    sizes = [server.rss_bytes()]
    for _ in range(8):
        for _ in range(rounds):
            one_round()
        sizes.append(server.rss_bytes())
        if sizes[-1] - sizes[-2] < slack:
            return
    raise AssertionError(f"resident memory grows with each {rounds} rounds: {sizes}")


def connect_refused(address):
    """Whether nothing listens there."""
    try:
        wire.Conn(address).close()
        return False
    except OSError as error:
        return error.errno in (errno.ECONNREFUSED, errno.ENOENT)


def as_nobody():
    """A wrapper that runs a program as nobody; empty where the tests are not run by root."""
    if os.geteuid() != 0:
        return []
    wrapper = [need_tool("setpriv"), "--reuid=65534", "--regid=65534", "--clear-groups"]
    probe = subprocess.run(
        [*wrapper, binary("shoal-httpd"), "--version"], capture_output=True, check=False
    )
    if probe.returncode != 0:
        missing(f"programs that nobody may run ({BIN_DIR})")
    return wrapper
