"""SIGQUIT: every fiber is listed with what it waits for and where, and the server goes on serving."""

import fcntl
import os
import re
import signal
import subprocess
import termios
import threading
import time

import harness
import wire

BEGIN = "shoal: fibers of {} cores\n"
END = "shoal: end of the report\n"
# What a report is made of; anything else in the log is an error to harness.check_log().
LINES = [
    r"^shoal: (fibers of \d+ cores?|end of the report)$",
    r"^core \d+: (\d+ fibers?( \(.*\))?, \d+ timers? armed|does not answer)",
    r"^  (fiber|\d+ fibers) \".*\" \((first )?0x[0-9a-f]+\): ",
    r"^  \d+ messages? without an answer",
    r"^      #\d+  \S",
]


class Load(threading.Thread):
    """Asks for /plaintext on a connection of its own until told to stop."""

    def __init__(self, server):
        super().__init__(daemon=True)
        self.server = server
        self.over = threading.Event()
        self.answers = 0
        self.wrong = []

    def run(self):
        try:
            with self.server.conn() as conn:
                while not self.over.is_set():
                    response = conn.ask("/plaintext")
                    self.answers += 1
                    if response.status != 200 or response.body != b"Hello, World!":
                        self.wrong.append(response)
        except (OSError, wire.Torn, wire.Closed) as error:
            self.wrong.append(error)


def report_count(server):
    return server.raw_log().count(END)


def reports(server, number=signal.SIGQUIT):
    """Sends the signal and returns the report that it made."""
    before = report_count(server)
    server.signal(number)
    harness.wait_for(lambda: report_count(server) > before, "a report")
    log = server.raw_log()
    begin = log.rindex(BEGIN.format(server.cores) if server.cores > 1 else "shoal: fibers of 1 core\n")
    return log[begin : log.rindex(END) + len(END)]


def park(server, count):
    """Connections whose requests wait in /sleep."""
    conns = [server.conn() for _ in range(count)]
    for conn in conns:
        conn.send(wire.request("/sleep?ms=600000"))
    return conns


def parked_in_sleep(text):
    """Over all cores, how many fibers the report has in httpd_sleep."""
    total = 0
    for match in re.finditer(
        r'^  (?:fiber|(\d+) fibers) "http" \(.*\): parked, waits for sleep\n((?:      #.*\n)+)', text, re.M
    ):
        if re.search(r" httpd_sleep\+0x", match[2]):
            total += int(match[1] or 1)
    return total


def serve(start, *args, **kw):
    server = start("--shutdown-timeout", "0.1", *args, **kw)
    server.allowed_errors = LINES
    return server


def end(server):
    """For a server whose requests wait for longer than a test: it still serves, and can stop."""
    assert server.get("/plaintext").status == 200
    server.stop()


def test_sigquit_lists_parked_requests_while_serving(start):
    server = serve(start)
    loads = [Load(server) for _ in range(4)]
    for load in loads:
        load.start()
    conns = park(server, 40)
    harness.wait_for(lambda: parked_in_sleep(reports(server)) == 40, "forty parked requests")
    text = reports(server)
    assert [int(n) for n in re.findall(r"^core (\d+): ", text, re.M)] == list(range(server.cores))
    assert re.search(r'^  fiber "main" \(.*\): parked, waits for stop\n', text, re.M), text
    assert " shoal_stop_wait+0x" in text and " main_fiber+0x" in text
    assert re.search(r"^core 0: .* timers armed$", text, re.M), text
    before = [load.answers for load in loads]
    harness.wait_for(
        lambda: all(load.answers > b + 50 for load, b in zip(loads, before)), "answers go on"
    )
    for load in loads:
        load.over.set()
        load.join(harness.PATIENCE)
        assert not load.wrong, load.wrong
    end(server)


def test_sigquit_in_quick_succession_makes_whole_reports(start):
    server = serve(start)
    conns = park(server, 10)
    for _ in range(200):
        server.signal(signal.SIGQUIT)
    harness.wait_for(lambda: report_count(server) >= 1, "a report")
    text = reports(server)
    log = server.raw_log()
    marks = re.findall(r"^shoal: (fibers|end)", log, re.M)
    assert marks == ["fibers", "end"] * (len(marks) // 2), marks
    assert parked_in_sleep(text) == 10
    end(server)


def test_sigquit_with_one_core(start):
    server = serve(start, smp=1)
    text = reports(server)
    assert re.search(r"^core 0: \d+ fibers? \(", text, re.M), text


def test_sigquit_while_stopping_shows_what_is_left(start):
    server = serve(start, "--shutdown-timeout", "60")
    conn = park(server, 1)[0]
    harness.wait_for(lambda: parked_in_sleep(reports(server)) == 1, "a parked request")
    server.signal(signal.SIGTERM)
    harness.wait_for(lambda: server.log_says("stopping"), "the stop")
    assert parked_in_sleep(reports(server)) == 1
    server.signal(signal.SIGTERM)  # a second one ends it at once
    assert server.wait() == 128 + signal.SIGTERM
    conn.close()
    server.kill()


def test_sigquit_with_thousands_of_connections_stays_readable(start):
    server = serve(start)
    count = 400 if harness.sanitizer() else 3000
    conns = park(server, count)
    harness.wait_for(lambda: parked_in_sleep(reports(server)) == count, "all parked")
    text = reports(server)
    assert len(text.splitlines()) < 200, f"{len(text.splitlines())} lines"
    assert server.get("/plaintext").status == 200
    end(server)


def test_report_into_a_full_pipe_does_not_stop_the_server(folder, backend):
    """Standard error is a pipe that nobody reads: requests are answered all the same."""
    port = harness.free_port()
    read, write = os.pipe()
    fcntl.fcntl(write, fcntl.F_SETPIPE_SZ, 4096)
    process = subprocess.Popen(
        [harness.binary("shoal-httpd"), "--smp", "1", "--io-backend", backend, "--port", str(port)],
        stdin=subprocess.DEVNULL, stdout=write, stderr=write, cwd=folder,
    )
    os.close(write)
    try:
        address = ("127.0.0.1", port)
        harness.wait_for(lambda: not harness.connect_refused(address), "the server listens")
        for _ in range(100):
            process.send_signal(signal.SIGQUIT)
            assert wire.fetch(address, "/plaintext").status == 200
            time.sleep(0.002)
        waiting = fcntl.ioctl(read, termios.FIONREAD, bytes(4))
        assert int.from_bytes(waiting, "little") > 3500, "the pipe is not full"
        with os.fdopen(read, "rb") as pipe:
            text = b""
            process.send_signal(signal.SIGTERM)
            while piece := pipe.read1(1 << 16):
                text += piece
        assert process.wait(harness.PATIENCE) == 0, text[-2000:]
        assert text.count(b"shoal: end of the report\n") >= 1, text
    finally:
        process.kill()
        process.wait()
