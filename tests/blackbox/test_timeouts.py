"""Time-outs: each with a status or a silent close of its own, and none for a client that proceeds.

No test asserts that something happened soon: only that it happened at all, or that it happened
before a client that went on far longer than the limit had finished. And what a client has to do
within a limit it does again if a busy machine held it up.
"""

import time

import harness
import wire

LONG = "30"


def send_each(server, raws, limit):
    """A connection for each of these requests, sent well within `limit`, which then wait side by
    side."""
    conns = []
    for raw in raws:
        took = limit
        while took > limit / 2:
            begin = time.monotonic()
            conn = server.conn()
            conn.send_lossy(raw)
            took = time.monotonic() - begin
        conns.append(conn)
    return conns


def test_header_partial_408(start):
    server = start("--header-timeout", "0.3", "--idle-timeout", LONG)
    whole = b"GET /plaintext HTTP/1.1\r\nHost: x\r\n\r\n"
    for conn in send_each(server, (whole[:1], whole[:-2], whole[:-1]), 0.3):
        response = conn.read()
        assert response.status == 408 and response.closes
        assert conn.ended() == "eof"


def test_header_partial_second_request_408(start):
    """The clock of the second header starts with the second header."""
    server = start("--header-timeout", "0.3", "--idle-timeout", LONG)

    def first(_):
        conn = server.conn()
        assert conn.ask("/plaintext").status == 200
        return conn

    with harness.unless_held_up(0.3, first) as conn:
        time.sleep(0.7)
        assert conn.ask("/plaintext").status == 200, "the header time-out ran while idle"
        conn.send(wire.request("/plaintext") + b"GET /")
        assert conn.read().status == 200
        assert conn.read().status == 408
        conn.ended()


def test_header_trickle_not_extended(start):
    """Slowloris: a byte now and then does not buy more time."""
    server = start("--header-timeout", "0.5", "--idle-timeout", LONG)
    raw = b"GET /plaintext HTTP/1.1\r\nHost: x\r\nX-Slow: " + b"a" * 300
    with server.conn() as conn:
        for sent, byte in enumerate(raw):
            conn.send_lossy(bytes([byte]))
            conn.sock.settimeout(0.05)
            try:
                if not conn.more() or conn.pending:
                    break
            except TimeoutError:
                pass
        else:
            raise AssertionError("300 bytes trickled for 30 times the limit")
        assert sent > 1
        conn.sock.settimeout(wire.PATIENCE)
        assert conn.read().status == 408


def test_header_many_slow_clients_others_served(start):
    server = start("--header-timeout", "0.5", "--idle-timeout", LONG)
    slow = send_each(server, [b"GET /plaintext HTTP/1.1\r\nHost: "] * 200, 0.5)
    for _ in range(20):
        assert server.get("/plaintext").status == 200
    for conn in slow:
        assert conn.read().status == 408
        conn.close()


def test_body_missing_408(start):
    server = start("--body-timeout", "0.3", "--idle-timeout", LONG)
    fields = ([("Content-Length", "10")], [("Transfer-Encoding", "chunked")],
              [("Content-Length", "10"), ("Expect", "100-continue")])
    raws = [wire.request("/echo", "POST", each) for each in fields]
    for conn in send_each(server, raws, float(LONG)):
        response = conn.read()
        assert response.status == 408 and response.closes
        assert conn.ended() == "eof"


def test_body_partial_408_or_torn(start):
    """Once part of the body was echoed the status is out; then only a torn answer can tell."""
    server = start("--body-timeout", "0.3", "--idle-timeout", LONG)
    length = wire.request("/echo", "POST", [("Content-Length", "10")])
    chunked = wire.request("/echo", "POST", [("Transfer-Encoding", "chunked")])
    raws = (length + b"abc", chunked + b"5\r\nhello\r\n", chunked + b"5\r\nhel")
    for conn in send_each(server, raws, float(LONG)):
        try:
            assert conn.read().status == 408
        except wire.Torn:
            pass


def test_body_of_unread_upload_does_not_hold_the_connection(start):
    """A 404 whose body never comes: the connection ends all the same."""
    server = start("--body-timeout", "0.3", "--idle-timeout", "0.3")
    with server.conn() as conn:
        conn.send(wire.request("/nothing", "POST", [("Content-Length", "1000")]))
        assert conn.read().status in (404, 408)
        conn.drain()


def test_idle_silent_close(start):
    server = start("--idle-timeout", "0.3", "--header-timeout", LONG)

    def asked(mark):
        conn = server.conn()
        for _ in range(3):
            assert conn.ask("/plaintext").status == 200
            mark()
        return conn

    with harness.unless_held_up(0.3, asked) as conn:
        assert conn.ended() == "eof"


def test_idle_many_connections_all_closed(start):
    server = start("--idle-timeout", "0.3", "--header-timeout", LONG)
    conns = []
    for _ in range(300):
        conns.append(server.conn())
        assert conns[-1].ask("/plaintext").status == 200
    for conn in conns:
        assert conn.ended() == "eof"
    harness.wait_for(lambda: server.fd_count() <= server.baseline, "descriptors back")


def test_idle_fresh_connection_without_a_byte_closed(start):
    server = start("--idle-timeout", "0.3", "--header-timeout", "0.3")
    with server.conn() as conn:
        assert conn.drain()[:12] in (b"", b"HTTP/1.1 408")


def test_idle_server_serves_the_next_client(start):
    """The server slept longer than any limit: the clock of who comes then starts when he comes."""
    server = start("--header-timeout", "0.2", "--body-timeout", "0.2", "--idle-timeout", "0.2",
                   "--write-timeout", "0.2")

    def ask(mark):
        with server.conn() as conn:
            assert conn.ask("/plaintext").status == 200
            mark()
            assert conn.ask("/echo", "POST", body=b"hello").body == b"hello"

    for _ in range(3):
        time.sleep(0.4)
        harness.unless_held_up(0.2, ask)


def test_idle_clock_restarts_with_each_request(start):
    server = start("--idle-timeout", "1", "--header-timeout", LONG)

    def ask(mark):
        with server.conn() as conn:
            for _ in range(8):
                time.sleep(0.25)
                assert conn.ask("/plaintext").status == 200
                mark()

    harness.unless_held_up(1, ask)


def test_idle_not_counted_while_the_handler_works(start):
    server = start("--idle-timeout", "0.4", "--header-timeout", "0.4", "--body-timeout", "0.4",
                   "--write-timeout", "0.4")
    for conn in send_each(server, [wire.request("/sleep?ms=1500")], 0.4):
        assert conn.read().status == 200


def test_write_reader_that_never_reads_dropped(start, site):
    server = start("--write-timeout", "0.3", "--root", site.root)
    with server.conn(receive_buffer=65536) as conn:
        conn.send(wire.request("/files/big.bin"))
        harness.wait_for(conn.readable, "the answer begins")
        harness.wait_for(lambda: server.fd_count() <= server.baseline, "the connection is dropped")
        assert len(conn.drain()) < len(site.files["big.bin"])


def test_write_pipeliner_that_never_reads_dropped(start):
    """Answers that nobody reads pile up: the connection stalls, then it is dropped."""
    server = start("--write-timeout", "0.3", "--idle-timeout", LONG)
    with server.conn(receive_buffer=4096, patience=0.2) as conn:
        raw = wire.request("/") * 1000
        dropped = False
        for _ in range(2000):
            try:
                conn.send(raw)
            except TimeoutError:
                pass
            except (BrokenPipeError, ConnectionResetError):
                dropped = True
                break
        assert dropped, "it took requests without end from a client that reads nothing"


def test_write_slow_reader_that_proceeds_not_cut(start, site):
    """Several times the limit in all, but always moving: less within the limit than the server's
    kernel wants to be rid of before it takes more from the server."""
    server = start("--write-timeout", "0.5", "--idle-timeout", LONG, "--root", site.root)

    def read_slowly(mark):
        with server.conn(receive_buffer=65536) as conn:
            conn.send(wire.request("/files/big.bin"))
            begin = time.monotonic()
            while time.monotonic() - begin < 2.5:
                conn.pending += conn.sock.recv(16384)
                mark()
                time.sleep(0.02)
            while len(conn.pending) <= len(site.files["big.bin"]) and conn.more():
                mark()
            assert conn.read().body == site.files["big.bin"]

    # Four reads make room enough to be announced to the server.
    harness.unless_held_up(0.125, read_slowly)


def test_timeouts_memory_settles(start):
    """Connections that timed out are gone for good, on all paths."""
    server = start("--header-timeout", "0.1", "--body-timeout", "0.1", "--idle-timeout", "0.1")

    def neglect():
        conns = [server.conn() for _ in range(200)]
        for index, conn in enumerate(conns):
            if index % 3 == 0:
                conn.send_lossy(b"GET / HTTP/1.1\r\n")
            elif index % 3 == 1:
                conn.send_lossy(wire.request("/echo", "POST", [("Content-Length", "9")]))
            else:
                conn.send_lossy(wire.request("/plaintext"))
        for conn in conns:
            conn.drain()
            conn.close()

    harness.check_memory_settles(server, neglect, rounds=4, slack=128 << 10)
