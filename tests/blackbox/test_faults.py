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
from abuse import RESET_STAGES, garbage


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


def test_resets_right_after_connecting_none_missed(start):
    """The bytes and the reset meet the server while it begins to receive: a kernel loses the reset
    then, about once in a thousand times, and the time-outs that would help are far away."""
    server = start("--body-timeout", "3600", "--header-timeout", "3600")
    rng = random.Random(5)
    for _ in range(4000):
        conn = server.conn()
        until = time.monotonic_ns() + rng.randrange(60000)
        while time.monotonic_ns() < until:
            pass
        conn.send_lossy(RESET_STAGES["within a body"])
        conn.reset()


@pytest.mark.parametrize("listen", ["tcp", "unix"])
@pytest.mark.parametrize("how", ["reset", "close"])
def test_bytes_and_end_at_once_none_missed(start, folder, listen, how):
    """Both have come by the time that the server looks: it has to see both."""
    args = ["--body-timeout", "3600", "--header-timeout", "3600", "--idle-timeout", "3600"]
    if listen == "unix":
        args += ["--host", f"unix:{folder}/socket"]
    server = start(*args, port=None if listen == "unix" else 0)
    for stage in ("half a header", "within a body", "after a request"):
        conns = [server.conn() for _ in range(20)]
        harness.wait_for(lambda: server.fd_count() >= server.baseline + 20, "all accepted")
        server.get("/plaintext")
        server.signal(signal.SIGSTOP)
        for conn in conns:
            conn.send(RESET_STAGES[stage])
            conn.reset() if how == "reset" else conn.close()
        server.signal(signal.SIGCONT)
        harness.wait_for(lambda: server.fd_count() <= server.baseline, "all let go")


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


def test_clients_that_leave_do_not_flood_the_log(start, site):
    """What a client does is no news; a warning for each would let anyone fill the disk."""
    server = start("--root", site.root)
    before = len(server.messages())
    for stage in RESET_STAGES.values():
        for index in range(20):
            conn = server.conn()
            conn.send(stage)
            conn.reset() if index % 2 else conn.close()
    server.check()
    said = server.messages()[before:]
    assert len(said) < 20, said[:5]


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


def test_abuse_in_rounds_memory_settles(start, site):
    server = start("--root", site.root, "--header-timeout", "0.2", "--body-timeout", "0.2",
                   "--write-timeout", "0.2")
    rng = random.Random(11)

    def abuse():
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
        for _ in range(4):
            conn = server.conn(receive_buffer=4096)
            conn.send(wire.request("/files/big.bin"))
            conns.append(conn)
        for index, conn in enumerate(conns):
            conn.reset() if index % 2 else conn.close()
        harness.wait_for(lambda: server.fd_count() <= server.baseline, "descriptors back")

    harness.check_memory_settles(server, abuse)


# No memory


def crowd(server, count):
    """Many clients that each make the server hold something; returns those it answers in full."""
    conns = []
    for index in range(count):
        conn = server.conn(patience=20)
        conns.append(conn)
        conn.send_lossy((
            wire.request("/sleep?ms=1500"),
            wire.request("/echo", "POST", [("Content-Length", 1000000)]) + bytes(60000),
            wire.request("/files/big.bin"),
            b"GET / HTTP/1.1\r\nX: " + b"y" * 9000,
        )[index % 4])
    answered = 0
    for conn in conns[::4]:
        try:
            answered += conn.read().status == 200
        except (wire.Closed, wire.Torn, OSError):
            pass
    return answered


def test_out_of_address_space_some_refused_server_lives(start, site):
    """mmap fails: whoever cannot be served is turned away, and nothing else happens."""
    if harness.sanitizer():
        harness.missing("a limited address space under sanitizers")
    server = start("--root", site.root)
    with open(f"/proc/{server.pid}/statm", encoding="ascii") as statm:
        size = int(statm.read().split()[0]) * os.sysconf("SC_PAGESIZE") + (8 << 20)
    resource.prlimit(server.pid, resource.RLIMIT_AS, (size, size))
    idle = server.fd_count()
    assert crowd(server, 800) < 200, "the limit had no effect"
    wire.close_all()
    harness.wait_for(lambda: server.fd_count() <= idle, "the crowd is let go")
    for _ in range(20):
        assert server.get("/plaintext").status == 200


def test_memory_option_bounds_and_server_lives(start, site):
    server = start("--root", site.root, "--memory", "16M")
    before = server.rss_bytes()
    idle = server.fd_count()
    crowd(server, 800)
    if not harness.sanitizer():
        # Stacks and what belongs to the kernel's rings are not counted.
        assert server.rss_bytes() - before < 48 << 20
    wire.close_all()
    harness.wait_for(lambda: server.fd_count() <= idle, "the crowd is let go")
    for _ in range(20):
        assert server.get("/plaintext").status == 200


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
