"""Abuse: garbage, resets, no descriptors. The server answers others meanwhile, and its memory and
descriptors come back to where they were.
"""

import os
import random
import resource
import signal
import subprocess
import time

import pytest

import harness
import wire

RESET_STAGES = {
    "connected": b"",
    "half a request line": b"GET /pl",
    "half a header": b"GET /plaintext HTTP/1.1\r\nHost: x\r\nA",
    "before a body": wire.request("/echo", "POST", [("Content-Length", "100000")]),
    "within a body": wire.request("/echo", "POST", [("Content-Length", "100000")]) + bytes(5000),
    "within a chunk": wire.request("/echo", "POST", [("Transfer-Encoding", "chunked")])
    + b"fff\r\nab",
    "after a request": wire.request("/plaintext"),
    "after an error": b"garbage\r\n\r\n",
    "after a pipeline": wire.request("/plaintext") * 200,
    "while it sleeps": wire.request("/sleep?ms=50"),
    "while others are asked": wire.request("/cores"),
    "within a large answer": wire.request("/files/big.bin"),
    "at 100-continue": wire.request("/echo", "POST", [("Content-Length", "9"),
                                                      ("Expect", "100-continue")]),
}


@pytest.mark.parametrize("stage", RESET_STAGES)
@pytest.mark.parametrize("how", ["reset", "close"])
def test_client_leaves_at_any_stage_nothing_lost(httpd, stage, how):
    for index in range(12):
        conn = httpd.conn()
        conn.send(RESET_STAGES[stage])
        if index % 3 == 1:
            time.sleep(0.002)
        elif index % 3 == 2 and stage.startswith(("after", "within a large")):
            conn.sock.recv(100)
        conn.reset() if how == "reset" else conn.close()


def garbage(rng):
    """Bytes that a broken or hostile client might send; always the same for one seed."""
    kind = rng.randrange(5)
    if kind == 0:
        return rng.randbytes(rng.randrange(1, 3000))
    if kind == 1:
        alphabet = b"GET POST/ HTTP/1.1\r\n\r\n:;,= chunked\t\x00\xff0123456789abcdef"
        return bytes(rng.choice(alphabet) for _ in range(rng.randrange(1, 1500)))
    raw = bytearray(rng.choice([
        wire.request("/greet/x?y=z", headers=[("Accept", "*/*"), ("Cookie", "a=b; c=d")]),
        wire.request("/echo", "POST", [("Content-Type", "text/plain")], b"hello" * 20),
        wire.request("/echo", "PUT", [("Transfer-Encoding", "chunked")])
        + wire.chunked([b"hello", b"x" * 300], b"T: u\r\n"),
        wire.request("/plaintext") * 3,
    ]))
    for _ in range(rng.randrange(1, 4)):
        place = rng.randrange(len(raw))
        if kind == 2:
            raw[place] = rng.randrange(256)
        elif kind == 3:
            del raw[place : place + rng.randrange(1, 20)]
        else:
            raw[place:place] = rng.randbytes(rng.randrange(1, 20))
        if not raw:
            raw = bytearray(b"\r")
    return bytes(raw)


@pytest.mark.parametrize("seed", range(4))
def test_garbage_clean_close_or_status(httpd, seed):
    rng = random.Random(seed)
    for _ in range(150):
        raw = garbage(rng)
        with httpd.conn() as conn:
            conn.send_lossy(raw)
            conn.finish()
            answer = conn.drain()
            assert answer == b"" or answer.startswith(b"HTTP/1.1 "), (raw, answer[:200])
            assert b"HTTP/1.1 500" not in answer, (raw, answer[:200])


def test_two_thousand_connections_opened_and_dropped(httpd):
    for number in range(4):
        conns = []
        for index in range(500):
            conn = httpd.conn()
            if index % 3 == 0:
                conn.send(b"GET /")
            elif index % 3 == 1:
                conn.send(wire.request("/plaintext"))
            conns.append(conn)
        assert httpd.get("/plaintext").status == 200
        for index, conn in enumerate(conns):
            conn.reset() if (index + number) % 2 else conn.close()


def test_abuse_in_rounds_memory_flat(start, site):
    server = start("--root", site.root, "--header-timeout", "0.2", "--body-timeout", "0.2",
                   "--write-timeout", "0.2")
    rng = random.Random(11)
    rounds = 4 if harness.sanitizer() else 20
    sizes = []
    for _ in range(rounds):
        conns = []
        for stage in RESET_STAGES.values():
            for _ in range(8):
                conn = server.conn()
                conn.send_lossy(stage)
                conns.append(conn)
        for _ in range(50):
            conn = server.conn()
            conn.send_lossy(garbage(rng))
            conns.append(conn)
        lazy = [server.conn(receive_buffer=4096) for _ in range(4)]
        for conn in lazy:
            conn.send(wire.request("/files/big.bin"))
        for index, conn in enumerate(conns):
            conn.reset() if index % 2 else conn.close()
        for conn in lazy:
            conn.close()
        harness.wait_for(lambda: server.fd_count() <= server.baseline, "descriptors back")
        sizes.append(server.rss_bytes())
    if not harness.sanitizer():
        # The first rounds fill slabs and stack pools to their high-water marks. After that 1,600
        # connections more, of all kinds, leave less than 330 bytes each behind.
        assert sizes[-1] - sizes[9] < 512 << 10, f"resident memory after each round: {sizes}"


# No descriptors


def cpu_share(server, seconds):
    """CPU time that the server used while nothing was asked of it, as a share of one core."""
    before, begin = server.cpu_seconds(), time.monotonic()
    time.sleep(seconds)
    return (server.cpu_seconds() - before) / (time.monotonic() - begin)


def test_accept_without_descriptors_listener_kept_no_spin(start):
    server = start("--idle-timeout", "60", "--header-timeout", "60", "--max-connections", "500")
    room = 20
    server.leave_fds(room)
    conns = []
    for _ in range(room * 4):
        conns.append(server.conn())
        conns[-1].send(wire.request("/plaintext"))
    harness.wait_for(lambda: server.fd_count() >= server.baseline + room - 1, "it is full")
    assert cpu_share(server, 1.0) < 0.25, "it spins at EMFILE"
    assert len(server.messages()) < 100, "it floods the log at EMFILE"
    # As some leave, those that waited get their turn; nobody is lost.
    served = 0
    waiting = list(conns)
    while waiting:
        ready = [conn for conn in waiting if conn.readable()]
        for conn in ready:
            assert conn.read().status == 200
            conn.close()
            waiting.remove(conn)
            served += 1
        if not ready:
            harness.wait_for(lambda: any(c.readable() for c in waiting), "the next is accepted")
    assert served == room * 4
    for _ in range(10):
        assert server.get("/plaintext").status == 200


def test_accept_without_descriptors_kept_connections_served(start):
    """Those who are in are served as ever, while others wait outside."""
    server = start("--idle-timeout", "60", "--max-connections", "500")
    inside = [server.conn() for _ in range(10)]
    for conn in inside:
        assert conn.ask("/plaintext").status == 200
    server.leave_fds(0)
    outside = [server.conn() for _ in range(10)]
    for _ in range(20):
        for conn in inside:
            assert conn.ask("/plaintext").status == 200
    server.leave_fds(None)
    for conn in outside:
        assert conn.ask("/plaintext").status == 200


def test_file_without_descriptors_503_or_500_not_lost(start, site):
    """A handler that finds no descriptor answers with an error; the connection lives on."""
    server = start("--root", site.root, "--idle-timeout", "60", "--max-connections", "500")
    server.allowed_errors.append("descriptor|open files")
    with server.conn() as conn:
        assert conn.ask("/files/plain.txt").status == 200
        server.leave_fds(0)
        assert conn.ask("/files/plain.txt").status in (500, 503)
        server.leave_fds(None)
        assert conn.ask("/files/plain.txt").status == 200


def test_more_than_max_connections_bounded(start):
    """Over the limit: refused or left waiting, but never more inside than allowed."""
    server = start("--max-connections", "20", "--idle-timeout", "60")
    conns = []
    for _ in range(60):
        conn = server.conn(patience=0.5)
        conns.append(conn)
        conn.send_lossy(wire.request("/plaintext"))
    time.sleep(0.2)
    assert server.fd_count() <= server.baseline + 20 + 2 * server.cores
    for conn in conns:
        conn.close()
    harness.wait_for(lambda: server.fd_count() <= server.baseline, "descriptors back")
    for _ in range(10):
        assert server.get("/plaintext").status == 200


def test_few_descriptors_for_max_connections_exit_2(backend):
    def limit():
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))

    line = harness.run_refused(
        "shoal-httpd", ["--port", "0", "--io-backend", backend, "--max-connections", "10000"],
        preexec_fn=limit,
    )
    assert "max-connections" in line and "10000" in line


def test_few_descriptors_small_max_connections_serves(start):
    def limit():
        resource.setrlimit(resource.RLIMIT_NOFILE, (128, 128))

    server = start("--max-connections", "16", preexec_fn=limit)
    with server.conn() as conn:
        assert conn.ask("/plaintext").status == 200


def test_idle_server_uses_no_cpu(start):
    """Nothing asked, nothing done: no ticking, no spinning."""
    server = start()
    conns = [server.conn() for _ in range(50)]
    for conn in conns:
        assert conn.ask("/plaintext").status == 200
    time.sleep(0.3)
    assert cpu_share(server, 1.0) < 0.05


# Nobody reads the log


def exit_after_sigterm(process, address):
    """Serves, then stops with 0, whatever became of its log."""
    try:
        harness.wait_for(lambda: not harness.connect_refused(address), "it listens")
        for target, status in (("/plaintext", 200), ("/nothing", 404), ("/cores", 200)) * 5:
            assert wire.fetch(address, target).status == status
        with wire.Conn(address) as conn:
            conn.send(b"garbage\r\n\r\n")
            assert conn.read().status == 400
        process.send_signal(signal.SIGTERM)
        return process.wait(harness.PATIENCE)
    finally:
        process.kill()
        process.wait()


def test_log_pipe_without_reader_no_sigpipe(backend):
    port = harness.free_port()
    reader, writer = os.pipe()
    process = subprocess.Popen(
        [harness.binary("shoal-httpd"), "--port", str(port), "--log-level", "debug",
         "--io-backend", backend], stderr=writer)
    os.close(writer)
    os.read(reader, 1)
    os.close(reader)
    assert exit_after_sigterm(process, ("127.0.0.1", port)) == 0


def test_standard_descriptors_closed_log_never_in_an_answer(backend):
    """Descriptor 2 is free to be given to a socket: log lines must not end up there."""
    port = harness.free_port()
    process = subprocess.Popen(
        ["/bin/sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", harness.binary("shoal-httpd"),
         "--port", str(port), "--log-level", "debug", "--io-backend", backend])
    assert exit_after_sigterm(process, ("127.0.0.1", port)) == 0
