"""Child processes: pinning, CPU time and memory from /proc, and stopping by process id.

1. Every server started here is stopped here, by its id: at the end of its `with`, at exit, on
   Ctrl-C and on SIGTERM. Should this process be killed, the kernel sends them SIGTERM, which
   nginx passes on to its workers.
2. CPU time comes from schedstat (nanoseconds), never from clock ticks, and covers every thread
   of every process of a server: nginx has a master and workers.
"""

import atexit
import ctypes
import os
import re
import signal
import subprocess
import tempfile
import time

from .report import BenchError

PR_SET_PDEATHSIG = 1
START_LIMIT_S = 15.0
STOP_LIMIT_S = 15.0

_libc = ctypes.CDLL(None, use_errno=True)
_running = []


class NotAvailable(BenchError):
    """A subject that cannot run on this machine; the others still can."""


def stop_children_at_exit():
    atexit.register(stop_all)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)


def stop_all():
    for server in list(_running):
        server.stop(patience_s=2.0)


def usable_cpus():
    return sorted(os.sched_getaffinity(0))


def server_and_load_cpus():
    """One CPU for the server and another one for the load."""
    cpus = usable_cpus()
    if len(cpus) < 2:
        raise BenchError("needs two CPUs: one for the server, one for the load")
    return cpus[0], cpus[1]


def child_setup(cpus):
    """For preexec_fn: pins the child and ties its life to this process."""

    def setup():
        _libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if cpus is not None:
            os.sched_setaffinity(0, cpus)

    return setup


class Server:
    """A server process whose stderr goes to a file that can be searched while it runs."""

    def __init__(self, name, command, cpus=None, temp_dir=None, stop_signal=signal.SIGTERM):
        self.name = name
        self.port = None
        self.temp_dir = temp_dir
        self._stop_signal = stop_signal
        self._log = tempfile.TemporaryFile(mode="w+b")
        try:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=self._log,
                start_new_session=True, preexec_fn=child_setup(cpus))
        except OSError as error:
            raise NotAvailable(f"{name}: {command[0]}: {error.strerror}") from error
        _running.append(self)

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.stop()

    @property
    def pid(self):
        return self._process.pid

    def log(self):
        # pread, since the child shares the file's offset
        descriptor = self._log.fileno()
        size = os.fstat(descriptor).st_size
        return os.pread(descriptor, size, 0).decode(errors="replace")

    def check_running(self):
        if self._process.poll() is not None:
            last = self.log().strip().splitlines()[-1:] or ["no message"]
            raise NotAvailable(
                f"{self.name} ended with code {self._process.returncode}: {last[0]}")

    def wait_for_log(self, pattern):
        """Waits until stderr has a match of the pattern, and returns it."""
        end = time.monotonic() + START_LIMIT_S
        while time.monotonic() < end:
            match = re.search(pattern, self.log())
            if match:
                return match
            self.check_running()
            time.sleep(0.01)
        raise BenchError(f"{self.name}: no line like '{pattern}' within {START_LIMIT_S:g} s")

    def pids(self):
        """The process and all below it."""
        found, todo = [], [self.pid]
        while todo:
            pid = todo.pop()
            found.append(pid)
            for task in _tasks(pid):
                todo += [int(child) for child in _read(f"{task}/children").split()]
        return found

    def cpu_ns(self):
        """CPU time, user and system, that its threads have used so far."""
        return sum(int((_read(f"{task}/schedstat") or "0").split()[0])
                   for pid in self.pids() for task in _tasks(pid))

    def memory_bytes(self):
        """Resident memory, and the part of it that is private, of all its processes."""
        resident = private = 0
        for pid in self.pids():
            for line in _read(f"/proc/{pid}/smaps_rollup").splitlines():
                fields = line.split()
                if fields[0] == "Rss:":
                    resident += int(fields[1]) * 1024
                elif fields[0] in ("Private_Clean:", "Private_Dirty:"):
                    private += int(fields[1]) * 1024
        return resident, private

    def stop(self, patience_s=STOP_LIMIT_S):
        if self in _running:
            _running.remove(self)
        if self._process.poll() is None:
            self._process.send_signal(self._stop_signal)
            try:
                self._process.wait(patience_s)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._log.close()
        if self.temp_dir is not None:
            self.temp_dir.cleanup()
            self.temp_dir = None


def _tasks(pid):
    try:
        return [f"/proc/{pid}/task/{task}" for task in os.listdir(f"/proc/{pid}/task")]
    except OSError:
        return []


def _read(path):
    """The text of a file below /proc; empty when its thread has ended."""
    try:
        with open(path, encoding="ascii") as file:
            return file.read()
    except OSError:
        return ""
