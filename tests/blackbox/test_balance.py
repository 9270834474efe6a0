"""--accept-balance: connections that change cores are served like any other, the cores share them
evenly, and the default moves none.

GET /cores tells of each core: connections (open now), handed (to other cores), kept (offered to
another core and not taken) and taken (from other cores).
"""

import os
import signal
import subprocess
import threading
import time

import pytest

import harness
import wire
from abuse import RESET_STAGES
from test_stop import Client

CORES = 4
SANITIZED = bool(os.environ.get("SHOAL_SANITIZE"))
BALANCED = ("--accept-balance", "balanced", "--idle-timeout", "600", "--header-timeout", "600")


def cores_of(server):
    return server.cores_json()["cores"]


def total(server, what):
    return sum(core[what] for core in cores_of(server))


def open_by_core(server):
    """Without the one that asks."""
    answer = server.cores_json()
    counts = [core["connections"] for core in answer["cores"]]
    counts[answer["answered_by"]] -= 1
    return counts


def open_lasting(server, count, pause=0.0):
    """So many connections that each have had an answer and stay open."""
    conns = []
    for _ in range(count):
        conn = server.conn()
        assert conn.ask("/plaintext").status == 200
        conns.append(conn)
        time.sleep(pause)
    return conns


def wait_counted(server, count):
    harness.wait_for(lambda: sum(open_by_core(server)) == count, f"{count} connections counted")


def wait_settled(server):
    """The answer to the last hand-over may still be on its way."""
    def settled():
        cores = cores_of(server)
        return sum(core["handed"] - core["taken"] for core in cores) == 0

    harness.wait_for(settled, "whatever one core gave, another took")


@pytest.mark.parametrize("listen", ["tcp", "unix"])
def test_lasting_connections_are_even(start, folder, listen):
    """One more or less than the mean, and not what the kernel's hash or its queue happens to do.
    The machine may hold a core up while the others decide, so that a round can fail."""
    args = list(BALANCED)
    if listen == "unix":
        args += ["--host", f"unix:{folder}/socket"]
    server = start(*args, smp=CORES, port=None if listen == "unix" else 0)
    for _ in range(20):
        wait_counted(server, 0)
        time.sleep(0.25)  # those of the warm-up were brief, which is forgotten by then
        conns = open_lasting(server, 10 * CORES, pause=0.002)
        wait_counted(server, len(conns))
        counts = open_by_core(server)
        for conn in conns:  # wherever they are, they are served
            assert conn.ask("/plaintext").status == 200
        for conn in conns:
            conn.close()
        if max(counts) - min(counts) <= 4:
            break
    else:
        raise AssertionError(f"never even: {counts}")
    wait_settled(server)


def test_default_moves_nothing(start):
    server = start(smp=CORES)
    conns = open_lasting(server, 60)
    wait_counted(server, 60)
    for what in ("handed", "kept", "taken"):
        assert total(server, what) == 0
    for conn in conns:
        conn.close()
    wait_counted(server, 0)


def test_default_is_kernel_and_can_be_named(start):
    server = start("--accept-balance", "kernel", smp=CORES)
    open_lasting(server, 30)
    assert total(server, "handed") == 0


def test_one_core_has_nobody_to_hand_over_to(start):
    server = start(*BALANCED, smp=1)
    open_lasting(server, 20)
    assert total(server, "handed") + total(server, "kept") == 0


def test_counts_come_back_to_zero(start):
    """Opened on one core, closed on another, thousands of times."""
    server = start(*BALANCED, smp=CORES)
    for _ in range(20):
        conns = open_lasting(server, 100)
        wait_counted(server, 100)
        for index, conn in enumerate(conns):
            conn.reset() if index % 3 == 0 else conn.close()
    wait_counted(server, 0)
    wait_settled(server)
    assert total(server, "handed") > 0


def test_brief_connections_all_answered(start):
    """Wherever each of them goes, with many at a time."""
    server = start("--accept-balance", "balanced", smp=CORES)
    over = threading.Event()
    counts = [0] * 8
    failures = []

    def ask(number):
        try:
            while not over.is_set():
                assert server.get(f"/greet/n{number}.").text.endswith(f"n{number}.!\n")
                counts[number] += 1
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=ask, args=(n,), daemon=True) for n in range(len(counts))]
    before = cores_of(server)
    for thread in threads:
        thread.start()
    harness.wait_for(lambda: failures or min(counts) > 100, "all have asked often")
    over.set()
    for thread in threads:
        thread.join(60)
    assert not failures, failures[:3]
    wait_counted(server, 0)
    after = cores_of(server)
    requests = sum(a["requests"] - b["requests"] for a, b in zip(after, before))
    assert requests >= sum(counts)
    wait_settled(server)


# Stop


@pytest.mark.parametrize("target", ["/plaintext", "/sleep?ms=5"])
def test_sigterm_under_load_all_answered(start, target):
    server = start("--accept-balance", "balanced", smp=CORES)
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
            if entry[1] != "answered" and entry[0] is not None and entry[0] < killed]
    assert not lost, f"{len(lost)} requests sent before the signal were not answered"


@pytest.mark.parametrize("listen", ["tcp", "unix"])
def test_sigterm_connections_on_their_way_all_answered(start, folder, listen):
    """The server is frozen while connections arrive: it accepts them, hands over and stops at
    once."""
    for _ in range(5):
        args = list(BALANCED)
        if listen == "unix":
            args += ["--host", f"unix:{folder}/socket"]
        server = start(*args, smp=CORES, port=None if listen == "unix" else 0)
        kept = open_lasting(server, 20)
        server.signal(signal.SIGSTOP)
        try:
            fresh = [server.conn() for _ in range(60)]
            for index, conn in enumerate(fresh):
                conn.send(wire.request(f"/greet/n{index}."))
            server.signal(signal.SIGTERM)
        finally:
            server.signal(signal.SIGCONT)
        for index, conn in enumerate(fresh):
            assert f"n{index}." in conn.read().text
            conn.ended()
            conn.close()
        for conn in kept:
            conn.drain()
            conn.close()
        server.stop(send=False)


# Limits


def test_target_at_its_limit_nobody_lost(start):
    """Each core may serve 5. Whoever comes beyond waits in the kernel's queue, and has its turn."""
    server = start(*BALANCED, "--max-connections", str(5 * CORES), smp=CORES)
    waiting = []
    for _ in range(15 * CORES):
        conn = server.conn()
        conn.send(wire.request("/plaintext"))
        waiting.append(conn)
    served = 0
    while waiting:
        ready = [conn for conn in waiting if conn.readable()]
        assert server.fd_count() <= server.baseline + 5 * CORES
        for conn in ready:
            assert conn.read().status == 200
            conn.close()
            waiting.remove(conn)
            served += 1
        if not ready:
            harness.wait_for(lambda: any(c.readable() for c in waiting), "the next has its turn")
    assert served == 15 * CORES
    wait_counted(server, 0)


def test_more_than_max_connections_bounded(start):
    server = start(*BALANCED, "--max-connections", str(5 * CORES), smp=CORES)
    conns = []
    for _ in range(60):
        conn = server.conn(patience=0.5)
        conns.append(conn)
        conn.send_lossy(wire.request("/plaintext"))
    time.sleep(0.2)
    assert server.fd_count() <= server.baseline + 5 * CORES
    for conn in conns:
        conn.close()
    harness.wait_for(lambda: server.fd_count() <= server.baseline, "descriptors back")


# No memory


def start_failing(backend, plan):
    """A server whose allocations fail by chance; a seed with which it can start at all is sought."""
    for seed in range(1, 60):
        port = harness.free_port()
        process = subprocess.Popen(
            [harness.binary("shoal-httpd"), "--smp", str(CORES), "--overprovisioned",
             "--port", str(port), "--io-backend", backend, *BALANCED, "--log-level", "error",
             "--shutdown-timeout", "5", "--fail-alloc", f"{plan},seed={seed}"],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        address = ("127.0.0.1", port)
        harness.wait_for(
            lambda: process.poll() is not None or not harness.connect_refused(address),
            "it listens or ends", step=0.02)
        if process.poll() is None:
            return process, address
    raise AssertionError("it never starts")


@pytest.mark.parametrize("plan", ["p=0.005", "p=0.1,core=1", "p=0.05,core=0"])
def test_allocations_fail_some_refused_server_lives(backend, plan):
    """A core without memory leaves what it is offered to the one that accepted it. Some clients
    are turned away; whoever is answered is answered in full, nobody waits for ever, and all that
    was counted ends, or the stop would not."""
    process, address = start_failing(backend, plan)
    try:
        outcomes = {"answered": 0, "closed": 0}
        for _ in range(10):
            conns = [wire.Conn(address) for _ in range(24)]
            for conn in conns:
                conn.send_lossy(wire.request("/plaintext"))
            for conn in conns:
                try:
                    status = conn.read().status
                    assert status in (200, 503)
                    outcomes["answered"] += 1
                except (wire.Closed, ConnectionResetError, BrokenPipeError):
                    outcomes["closed"] += 1
                conn.close()
        assert outcomes["answered"] > 24, outcomes
        assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        assert process.wait(harness.PATIENCE) == 0
    finally:
        process.kill()
        process.wait()


# Abuse


def test_many_short_connections_under_abuse(start, site):
    server = start(*BALANCED[:2], "--root", site.root, "--header-timeout", "0.3", "--body-timeout",
                   "0.3", "--write-timeout", "0.3", smp=CORES)
    over = threading.Event()
    failures = []

    def abuse(number):
        stages = list(RESET_STAGES.values())
        conns = []
        index = number
        while not over.is_set():
            index += 1
            try:
                if SANITIZED:  # not to fill the queue of those not accepted faster than it empties
                    time.sleep(0.003)
                conn = server.conn(patience=5)
                conns.append(conn)
                conn.send_lossy(stages[index % len(stages)])
            except OSError as error:
                failures.append(error)
                return
            if len(conns) > 15:
                for place, old in enumerate(conns):
                    old.reset() if place % 2 else old.close()
                conns.clear()
        for conn in conns:
            conn.close()

    threads = [threading.Thread(target=abuse, args=(n,), daemon=True)
               for n in range(4)]
    for thread in threads:
        thread.start()
    for _ in range(50 if SANITIZED else 200):
        status = 408
        while status == 408:  # this thread was held up: the abusers share its interpreter
            status = server.get_at_last("/plaintext").status
        assert status == 200
    over.set()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    assert not failures, failures[:3]
    wait_counted(server, 0)
    wait_settled(server)
