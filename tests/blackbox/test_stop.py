"""SIGTERM: whoever was accepted gets an answer, nobody gets half of one, and the exit code is 0."""

import random
import signal
import threading
import time

import pytest

import harness
import wire
from abuse import RESET_STAGES

ANSWERED, CLOSED, TORN = "answered", "closed", "torn"


class Client(threading.Thread):
    """Asks until the server is gone. `log` has (when it was fully sent, what came of it)."""

    def __init__(self, server, keep, target):
        super().__init__(daemon=True)
        self.server, self.keep, self.target = server, keep, target
        self.log = []
        self.wrong = []

    def run(self):
        raw = wire.request(self.target)
        conn = None
        while True:
            try:
                conn = conn or self.server.conn()
            except OSError:
                return  # nothing listens any more
            sent = None
            try:
                conn.send(raw)
                sent = time.monotonic()
                response = conn.read()
                self.log.append((sent, ANSWERED))
                if response.status != 200:
                    self.wrong.append(response)
                if not self.keep or response.closes:
                    conn.close()
                    conn = None
                continue
            except wire.Torn as error:
                self.log.append((sent, TORN))
                self.wrong.append(error)
            except (wire.Closed, ConnectionResetError, BrokenPipeError):
                self.log.append((sent, CLOSED))
            except OSError as error:
                self.wrong.append(error)
            conn.close()
            conn = None


@pytest.mark.parametrize("target", ["/plaintext", "/cores", "/sleep?ms=5"])
def test_sigterm_under_load_all_answered(start, target):
    server = start()
    clients = [Client(server, index % 2 == 0, target) for index in range(16)]
    for client in clients:
        client.start()
    harness.wait_for(lambda: all(len(client.log) > 20 for client in clients), "load")
    killed = time.monotonic()
    server.signal(signal.SIGTERM)
    code = server.wait()
    for client in clients:
        client.join(60)
        assert not client.is_alive()
    server.stopped = True
    server.check_log()
    assert code == 0
    wrong = [what for client in clients for what in client.wrong]
    assert not wrong, f"{len(wrong)} torn or wrong answers: {wrong[:3]}"
    lost = [entry for client in clients for entry in client.log
            if entry[1] != ANSWERED and entry[0] is not None and entry[0] < killed]
    assert not lost, f"{len(lost)} requests sent before the signal were not answered"


def test_sigterm_requests_waiting_in_the_kernel_all_answered(start):
    """The server is frozen while requests arrive on kept and on fresh connections: it finds signal
    and requests together, and must not close an idle connection that has one to read."""
    server = start()
    kept = [server.conn() for _ in range(40)]
    for conn in kept:
        assert conn.ask("/plaintext").status == 200
    server.signal(signal.SIGSTOP)
    try:
        fresh = [server.conn() for _ in range(40)]
        for index, conn in enumerate(kept + fresh):
            conn.send(wire.request(f"/greet/n{index}."))
        server.signal(signal.SIGTERM)
    finally:
        server.signal(signal.SIGCONT)
    for index, conn in enumerate(kept + fresh):
        assert f"n{index}." in conn.read().text
        conn.ended()
        conn.close()
    server.stop(send=False)


def test_sigterm_pipeline_in_the_kernel_all_answered(start):
    server = start()
    with server.conn() as conn:
        assert conn.ask("/plaintext").status == 200
        server.signal(signal.SIGSTOP)
        try:
            conn.send(b"".join(wire.request(f"/greet/n{i}.") for i in range(100)))
            server.signal(signal.SIGTERM)
        finally:
            server.signal(signal.SIGCONT)
        # What was sent in one go is answered until an answer says close; none is torn.
        for index in range(100):
            response = conn.read()
            assert f"n{index}." in response.text
            if response.closes:
                break
        conn.drain()
    server.stop(send=False)


def test_sigterm_sleeper_finishes(start):
    server = start()
    conns = [server.conn() for _ in range(20)]
    for conn in conns:
        conn.send(wire.request("/sleep?ms=700"))
    # A later request on each core, answered, shows that the sleepers were taken in.
    for _ in range(20):
        server.get("/plaintext")
    server.signal(signal.SIGTERM)
    for conn in conns:
        assert "slept 700 ms" in conn.read().text
        assert conn.ended() == "eof"
        conn.close()
    server.stop(send=False)


def test_sigterm_upload_and_download_finish(start, site):
    server = start("--root", site.root)
    with server.conn() as up, server.conn(receive_buffer=65536) as down:
        up.send(wire.request("/echo", "POST", [("Content-Length", "200000")]) + bytes(100000))
        down.send(wire.request("/files/big.bin"))
        while len(down.pending) < 100000 or len(up.pending) < 1000:
            if len(down.pending) < 100000:
                down.more()
            if len(up.pending) < 1000:
                up.more()
        server.signal(signal.SIGTERM)
        time.sleep(0.1)
        up.send(bytes(100000))
        assert up.read().body == bytes(200000)
        assert down.read().body == site.files["big.bin"]
    server.stop(send=False)


def test_sigterm_no_new_connections(start):
    server = start()
    with server.conn() as sleeper:
        sleeper.send(wire.request("/sleep?ms=800"))
        server.get("/plaintext")
        server.signal(signal.SIGTERM)
        harness.wait_for(lambda: harness.connect_refused(server.address), "the port is closed")
        assert sleeper.read().status == 200, "the port closed only with the last connection"
    server.stop(send=False)


def test_sigterm_longer_than_shutdown_timeout_cut_exit_0(start):
    server = start("--shutdown-timeout", "0.3")
    conns = [server.conn() for _ in range(5)]
    for conn in conns:
        conn.send(wire.request("/sleep?ms=60000"))
    half = server.conn()
    half.send(b"GET /plaintext HTTP/1.1\r\nHo")
    server.get("/plaintext")
    server.signal(signal.SIGTERM)
    server.stop(send=False)
    for conn in conns:
        assert not conn.drain().startswith(b"HTTP/1.1 200")


def test_sigterm_client_that_never_reads_cut_exit_0(start, site):
    server = start("--root", site.root, "--shutdown-timeout", "0.3", "--write-timeout", "600")
    with server.conn(receive_buffer=4096) as conn:
        conn.send(wire.request("/files/big.bin"))
        while len(conn.pending) < 1000:
            assert conn.more()
        server.signal(signal.SIGTERM)
        server.stop(send=False)
        assert len(conn.drain()) < len(site.files["big.bin"])


def test_sigterm_shutdown_timeout_0_exit_0(start):
    server = start("--shutdown-timeout", "0")
    conns = [server.conn() for _ in range(20)]
    for index, conn in enumerate(conns):
        conn.send(wire.request("/sleep?ms=60000") if index % 2 else b"GET / HT")
    server.get("/plaintext")
    server.signal(signal.SIGTERM)
    server.stop(send=False)


@pytest.mark.parametrize("seed", range(2))
def test_sigterm_amid_abuse_exit_0(start, site, seed):
    """Clients come, misbehave and leave at every moment of the stop."""
    server = start("--root", site.root, "--shutdown-timeout", "1", "--header-timeout", "0.3")
    rng = random.Random(seed)
    over = threading.Event()

    def abuse(rng):
        conns = []
        while not over.is_set():
            try:
                conn = server.conn(patience=1)
                conns.append(conn)
                conn.send_lossy(rng.choice(list(RESET_STAGES.values())))
            except OSError:
                time.sleep(0.001)
            if len(conns) > 20 or (conns and over.is_set()):
                conn = conns.pop(rng.randrange(len(conns)))
                conn.reset() if rng.random() < 0.5 else conn.close()
        for conn in conns:
            conn.close()

    threads = [threading.Thread(target=abuse, args=(random.Random(rng.random()),), daemon=True)
               for _ in range(4)]
    for thread in threads:
        thread.start()
    time.sleep(0.2)
    server.signal(signal.SIGTERM)
    try:
        server.stop(send=False)
    finally:
        over.set()
        for thread in threads:
            thread.join(30)


@pytest.mark.parametrize("number,codes", [
    (signal.SIGTERM, (143, -15)),
    (signal.SIGINT, (130, -2)),
])
def test_second_signal_stops_at_once(start, number, codes):
    server = start("--shutdown-timeout", "600")
    conn = server.conn()
    conn.send(wire.request("/sleep?ms=600000"))
    server.get("/plaintext")
    server.signal(number)
    harness.wait_for(lambda: harness.connect_refused(server.address), "the first signal is seen")
    assert server.process.poll() is None
    server.signal(number)
    code = server.wait()
    server.stopped = True
    assert code in codes
    server.check_log()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_idle_connections_closed_exit_0(start, number):
    """Idle connections do not hold the stop up until the time-out, which would be ten minutes."""
    server = start("--shutdown-timeout", "600", "--idle-timeout", "600", "--header-timeout", "600")
    conns = [server.conn() for _ in range(200)]
    for conn in conns[:100]:
        assert conn.ask("/plaintext").status == 200
    server.signal(number)
    server.stop(send=False)
    for conn in conns:
        assert conn.drain() == b""


def test_stop_port_free_at_once(start):
    server = start()
    port = server.port
    for _ in range(3):
        with server.conn() as conn:
            assert conn.ask("/plaintext").status == 200
            server.signal(signal.SIGTERM)  # the server closes first: its end lingers in TIME_WAIT
            server.stop(send=False)
        server = start(port=port)
        assert server.port == port


@pytest.mark.parametrize("program", ["shoal-httpd", "shoal-hello"])
def test_stop_right_after_start_exit_0(start, program):
    for _ in range(5):
        server = start(program=program)
        server.stop()


def test_stop_unused_cores_exit_0(start):
    server = start(smp=harness.cpus() + 3)
    server.stop()
