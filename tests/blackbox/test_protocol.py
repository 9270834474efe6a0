"""HTTP/1.1 byte by byte: what is ambiguous is refused and the connection closed, what is allowed is
understood however it is cut into packets, and answers come in the order of the requests.
"""

import random
import time

import pytest

import harness
import wire
from abuse import conversation
from bad_requests import BAD_CHUNKS, BAD_REQUESTS, GOOD_REQUESTS, LARGE_REQUESTS, UNECHOED_CHUNKS

EVIL = b"GET /greet/evil HTTP/1.1\r\nHost: x\r\n\r\n"


def refused(conn, statuses):
    """Exactly one answer of one of these statuses that says close, then the end."""
    response = conn.read()
    assert response.status in statuses, response
    assert response.closes, f"no Connection: close in {response!r}"
    assert b"evil" not in response.body
    conn.ended()
    return response


@pytest.mark.parametrize("name,raw,statuses", BAD_REQUESTS, ids=[row[0] for row in BAD_REQUESTS])
def test_bad_request_refused_once_and_closed(httpd, name, raw, statuses):
    """A second request in the same packet is never answered: nobody may smuggle one."""
    for tail in (b"", EVIL):
        with httpd.conn() as conn:
            conn.send_lossy(raw + tail)
            if not tail:
                conn.finish()
            refused(conn, statuses)


def test_bad_request_after_good_ones_in_order(httpd):
    with httpd.conn() as conn:
        conn.send(wire.request("/greet/one") + wire.request("/greet/two"))
        conn.send(b"GET /plaintext HTTP/1.1\r\nHost: x\r\nBad : y\r\n\r\n" + EVIL)
        assert b"one" in conn.read().body
        assert b"two" in conn.read().body
        refused(conn, {400})


@pytest.mark.parametrize("name,raw", BAD_CHUNKS, ids=[row[0] for row in BAD_CHUNKS])
def test_bad_chunk_never_a_complete_answer(httpd, name, raw):
    """400 while nothing has been echoed; after that only a torn answer or none at all can tell the
    client."""
    for tail in (b"", EVIL):
        with httpd.conn() as conn:
            conn.send_lossy(
                b"POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" + raw + tail
            )
            if not tail:
                conn.finish()
            try:
                response = conn.read("POST")
            except (wire.Torn, wire.Closed):
                assert name not in UNECHOED_CHUNKS, "not a word about what was wrong"
                continue
            assert response.status in (400, 413, 431), response
            assert response.closes
            conn.ended()


@pytest.mark.parametrize("name,raw,statuses", LARGE_REQUESTS, ids=[r[0] for r in LARGE_REQUESTS])
def test_large_request_refused_with_its_status(httpd, name, raw, statuses):
    with httpd.conn() as conn:
        conn.send_lossy(raw)
        refused(conn, statuses)


def test_large_header_that_never_ends_refused(httpd):
    """The limit counts what came, not what is complete."""
    with httpd.conn() as conn:
        conn.send(b"GET /plaintext HTTP/1.1\r\nHost: x\r\n")
        for index in range(4096):
            conn.send_lossy(b"X-%d: %s\r\n" % (index, b"y" * 1000))
            if conn.readable():
                break
        else:
            raise AssertionError("4 MiB of header were taken")
        refused(conn, {431})


@pytest.mark.parametrize("name,raw,status", GOOD_REQUESTS, ids=[row[0] for row in GOOD_REQUESTS])
def test_unusual_request_understood(httpd, name, raw, status):
    with httpd.conn() as conn:
        conn.send(raw + wire.request("/greet/after"))
        assert conn.read().status == status
        assert b"after" in conn.read().body


# Bodies and their limits


@pytest.mark.parametrize("framing", ["length", "length-sent", "length-expect", "chunked"])
def test_body_over_the_limit_413(start, framing):
    server = start("--max-body", "65536")
    with server.conn() as conn:
        if framing == "chunked":
            conn.send(wire.request("/echo", "POST", [("Transfer-Encoding", "chunked")]))
            conn.send(b"20000\r\n")
            conn.send_lossy(bytes(0x20000) + b"\r\n0\r\n\r\n")
        else:
            fields = [("Content-Length", 1 << 20)]
            if framing == "length-expect":
                fields.append(("Expect", "100-continue"))
            conn.send(wire.request("/echo", "POST", fields))
            if framing == "length-sent":
                conn.send_lossy(bytes(1 << 20))
        response = refused(conn, {413})
        assert response.interim == []
    for size in (65535, 65536):
        assert len(server.get("/echo", "POST", body=bytes(size)).body) == size
    with server.conn() as conn:
        conn.send(wire.request("/echo", "POST", [("Content-Length", 65537)]))
        refused(conn, {413})
    with server.conn() as conn:
        conn.send(wire.request("/echo", "POST", [("Transfer-Encoding", "chunked")]))
        conn.send(wire.chunked([bytes(32768), bytes(32768)]))
        assert len(conn.read().body) == 65536


def test_body_over_the_limit_by_many_chunks_torn_or_413(start):
    """Small chunks were echoed already when the limit is passed: the answer must not look whole."""
    server = start("--max-body", "65536")
    with server.conn() as conn:
        conn.send(wire.request("/echo", "POST", [("Transfer-Encoding", "chunked")]))
        conn.send_lossy(wire.chunked([bytes(1000)] * 100))
        try:
            assert conn.read().status == 413
        except wire.Torn:
            pass


def test_refused_upload_answer_survives_the_sender(httpd):
    """The client is still sending when the answer comes; a close with unread bytes would reset the
    connection and destroy the answer on its way."""
    for _ in range(5):
        with httpd.conn() as conn:
            conn.send(wire.request("/echo", "POST", [("Content-Length", 1 << 30)]))
            conn.send_lossy(bytes(4 << 20))
            time.sleep(0.02)
            refused(conn, {413})


@pytest.mark.parametrize("target", ["/plaintext", "/nothing", "/echo-not", "/files/plain.txt"])
@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_unread_body_never_taken_for_a_request(httpd, target, framing):
    with httpd.conn() as conn:
        if framing == "length":
            conn.send(wire.request(target, "POST", body=EVIL))
        else:
            conn.send(wire.request(target, "POST", [("Transfer-Encoding", "chunked")]))
            conn.send(wire.chunked([EVIL]))
        conn.send_lossy(wire.request("/greet/good"))
        first = conn.read("POST")
        assert first.status in (404, 405)
        if first.closes:
            conn.ended()
        else:
            assert b"good" in conn.read().body


def test_get_with_body_body_skipped(httpd):
    with httpd.conn() as conn:
        conn.send(wire.request("/plaintext", "GET", body=EVIL) + wire.request("/greet/good"))
        assert conn.read().status == 200
        assert b"good" in conn.read().body


# Expect


def test_expect_continue_interim_then_answer(httpd):
    with httpd.conn() as conn:
        fields = [("Expect", "100-continue"), ("Content-Length", "5")]
        for _ in range(2):
            conn.send(wire.request("/echo", "POST", fields))
            while b"\r\n\r\n" not in conn.pending:
                assert conn.more()
            assert conn.pending.startswith(b"HTTP/1.1 100 ")
            conn.send(b"hello")
            response = conn.read()
            assert response.interim == [100] and response.body == b"hello"


def test_expect_continue_body_sent_at_once(httpd):
    with httpd.conn() as conn:
        conn.send(wire.request("/echo", "POST", [("Expect", "100-Continue")], body=b"hello"))
        assert conn.read().body == b"hello"
        assert conn.ask("/plaintext").status == 200


def test_expect_continue_refused_final_at_once(httpd):
    for target, status in (("/nothing", 404), ("/plaintext", 405)):
        with httpd.conn() as conn:
            conn.send(wire.request(target, "POST", [("Expect", "100-continue"),
                                                    ("Content-Length", "1000000")]))
            assert conn.read().status == status


def test_expect_continue_http10_ignored(httpd):
    with httpd.conn() as conn:
        conn.send(wire.request("/echo", "POST", [("Expect", "100-continue")], b"hi", version="1.0"))
        response = conn.read()
        assert response.interim == [] and response.body == b"hi"


def test_expect_unknown_417(httpd):
    with httpd.conn() as conn:
        conn.send(wire.request("/echo", "POST", [("Expect", "foo")], b"hi"))
        assert conn.read().status == 417


# Cut into packets


CUT_REQUESTS = {
    "get": wire.request("/greet/cut?q=1", "GET", [("X-Long", "value"), ("Accept", "*/*")]),
    "length": wire.request("/echo", "POST", [("Content-Type", "text/plain")], b"hello\r\n\r\nbody"),
    "chunked": wire.request("/echo", "POST", [("Transfer-Encoding", "chunked")])
    + wire.chunked([b"hello", b"\r\n", b"sixteen bytes ok"], b"X-T: 1\r\n"),
}


@pytest.mark.parametrize("name", CUT_REQUESTS)
def test_request_cut_at_every_byte_understood(httpd, name):
    raw = CUT_REQUESTS[name]
    with httpd.conn() as conn:
        conn.send(raw)
        whole = conn.read()
        for cut in range(1, len(raw)):
            conn.send(raw[:cut])
            time.sleep(0.0005)
            conn.send(raw[cut:])
            response = conn.read()
            assert (response.status, response.body) == (200, whole.body), f"cut at {cut}"


@pytest.mark.parametrize("name", CUT_REQUESTS)
def test_request_byte_at_a_time_understood(httpd, name):
    with httpd.conn() as conn:
        for byte in CUT_REQUESTS[name]:
            conn.send(bytes([byte]))
            time.sleep(0.0002)
        assert conn.read().status == 200


def answers(server, raw, cuts):
    """What the server answers in full when these bytes come in these pieces, and nothing more."""
    found = []
    with server.conn() as conn:
        for begin, end in zip([0, *cuts], [*cuts, len(raw)]):
            conn.send_lossy(raw[begin:end])
            if end < len(raw):
                time.sleep(0.0005)
        conn.finish()
        try:
            while True:
                response = conn.read()
                found.append((response.status, response.body))
        except (wire.Closed, wire.Torn):
            return found


@pytest.mark.parametrize("seed", range(4))
def test_random_cuts_same_answers(httpd, seed):
    """What is said must not depend on how it is cut, right or wrong. Only of the request that is
    wrong or incomplete it may depend how much is said about it."""
    rng = random.Random(seed)
    for _ in range(100):
        right, raw = conversation(rng)
        cuts = sorted(rng.sample(range(1, len(raw)), min(len(raw) - 1, rng.randrange(1, 6))))
        one, other = sorted((answers(httpd, raw, []), answers(httpd, raw, cuts)), key=len)
        assert one == other[: len(one)], (raw, cuts)
        if right:
            assert len(one) == len(other) > 0, (raw, cuts)
        else:
            assert len(other) - len(one) <= 1, (raw, cuts)
            assert all(status >= 400 for status, _ in other[len(one) :]), (raw, cuts)


def test_two_requests_cut_between_understood(httpd):
    raw = CUT_REQUESTS["chunked"] + CUT_REQUESTS["get"]
    with httpd.conn() as conn:
        for cut in range(len(CUT_REQUESTS["chunked"]) - 4, len(raw), 3):
            conn.send(raw[:cut])
            time.sleep(0.0005)
            conn.send(raw[cut:])
            assert conn.read().status == 200
            assert b"cut" in conn.read().body


# Pipelining


@pytest.mark.parametrize("count", [2, 16, 100, 1000])
def test_pipelined_one_packet_in_order(httpd, count):
    with httpd.conn() as conn:
        conn.send(b"".join(wire.request(f"/greet/n{i}.") for i in range(count)))
        for index in range(count):
            assert f"n{index}." in conn.read().text
        assert conn.pending == b""


def test_pipelined_with_bodies_in_order(httpd):
    raw = []
    for index in range(60):
        body = b"%d-" % index * (index * 37 % 200 + 1)
        if index % 3 == 0:
            raw.append(wire.request("/echo", "POST", body=body))
        elif index % 3 == 1:
            raw.append(wire.request("/echo", "PUT", [("Transfer-Encoding", "chunked")]))
            raw.append(wire.chunked([body[:7], body[7:]]))
        else:
            raw.append(wire.request(f"/greet/{index}-"))
    with httpd.conn() as conn:
        conn.send(b"".join(raw))
        for index in range(60):
            text = conn.read().text
            if index % 3 == 2:
                assert f"{index}-" in text
            else:
                assert text == f"{index}-" * (index * 37 % 200 + 1)


def test_pipelined_slow_and_fast_in_order(httpd):
    targets = []
    for index in range(20):
        targets.append(f"/sleep?ms={(20 - index) * 3}" if index % 2 else f"/greet/n{index}.")
    with httpd.conn() as conn:
        conn.send(b"".join(wire.request(target) for target in targets))
        for index in range(20):
            wanted = f"slept {(20 - index) * 3} ms" if index % 2 else f"n{index}."
            assert wanted in conn.read().text


def test_pipelined_mixed_statuses_and_methods_in_order(httpd):
    kinds = [("/plaintext", "GET", 200), ("/plaintext", "HEAD", 200), ("/nothing", "GET", 404),
             ("/json", "POST", 405), ("/sum?a=x", "GET", 400), ("/files/big.bin", "HEAD", 200),
             ("/files/plain.txt", "GET", 200), ("/cores", "GET", 200)]
    with httpd.conn() as conn:
        conn.send(b"".join(wire.request(t, m, body=b"" if m == "POST" else None)
                           for t, m, _ in kinds * 5))
        for _, method, status in kinds * 5:
            assert conn.read(method).status == status


@pytest.mark.parametrize("tail", [
    wire.request("/echo", "POST", [("Transfer-Encoding", "chunked")]) + b"5\r\nhello\r\nzz\r\n",
    wire.request("/echo", "POST", [("Transfer-Encoding", "chunked")]) + b"5\r\nhello!\r\n0\r\n\r\n",
    wire.request("/echo", "POST", [("Transfer-Encoding", "chunked")]) + b"5\r\nhel",
    wire.request("/echo", "POST", [("Content-Length", 100)]) + b"hello",
    wire.request("/echo", "POST", [("Content-Length", 100)]),
], ids=["bad size", "bad end", "cut chunk", "cut body", "no body"])
def test_pipelined_before_a_bad_body_answered(httpd, tail):
    """Whatever the last request did: those before it were whole and get their answers."""
    with httpd.conn() as conn:
        conn.send(wire.request("/greet/one.") + wire.request("/nothing") + tail)
        conn.finish()
        assert "one." in conn.read().text
        assert conn.read().status == 404
        conn.drain()


def test_pipelined_after_close_not_answered(httpd):
    with httpd.conn() as conn:
        conn.send(wire.request("/plaintext", headers=[("Connection", "close")]) + EVIL)
        response = conn.read()
        assert response.status == 200 and response.closes
        conn.ended()


def test_pipelined_more_than_buffers_hold_in_order(httpd):
    """20,000 requests whose answers are read only later: back-pressure, and nothing lost."""
    with httpd.conn() as conn:
        raw = b"".join(wire.request(f"/greet/n{i}.") for i in range(20000))
        conn.sock.setblocking(False)
        got = []
        harness.wait_for(lambda: _exchange(conn, raw, got) >= len(raw), "all was sent")
        conn.sock.settimeout(wire.PATIENCE)
        conn.pending = b"".join(got)
        for index in range(20000):
            assert f"n{index}." in conn.read().text


def _exchange(conn, raw, got):
    """Sends what goes; only when nothing goes it reads. Says how much went in all."""
    position = getattr(conn, "position", 0)
    try:
        while position < len(raw):
            position += conn.sock.send(raw[position : position + 65536])
    except BlockingIOError:
        try:
            got.append(conn.sock.recv(65536))
        except BlockingIOError:
            pass
    conn.position = position
    return position


# Ends of connections


def test_half_close_after_request_answered(httpd):
    for target in ("/plaintext", "/sleep?ms=100", "/files/big.bin", "/cores"):
        with httpd.conn() as conn:
            conn.send(wire.request(target))
            conn.finish()
            assert conn.read().status == 200
            assert conn.ended() == "eof"


def test_half_close_after_pipeline_all_answered(httpd):
    with httpd.conn() as conn:
        conn.send(b"".join(wire.request(f"/greet/n{i}.") for i in range(50)))
        conn.finish()
        for index in range(50):
            assert f"n{index}." in conn.read().text
        assert conn.ended() == "eof"


def test_half_close_within_request_no_success(httpd):
    for raw in (b"GET /plain", CUT_REQUESTS["get"][:-2], b"GET /plaintext HTTP/1.1\r\nHost: x\r\n"):
        with httpd.conn() as conn:
            conn.send(raw)
            conn.finish()
            assert not conn.drain().startswith(b"HTTP/1.1 2")


def test_half_close_within_body_not_a_whole_answer(httpd):
    for raw in (CUT_REQUESTS["length"][:-3], CUT_REQUESTS["chunked"][:-3]):
        with httpd.conn() as conn:
            conn.send(raw)
            conn.finish()
            try:
                assert conn.read().status >= 400
            except (wire.Torn, wire.Closed):
                pass


def test_half_close_without_request_closed(httpd):
    with httpd.conn() as conn:
        conn.finish()
        assert conn.ended() == "eof"


def test_http10_default_closes(httpd):
    for host in ("x", None):
        with httpd.conn() as conn:
            response = conn.ask("/plaintext", version="1.0", host=host)
            assert response.status == 200 and response.body == b"Hello, World!"
            assert conn.ended() == "eof"


def test_http10_keep_alive_kept(httpd):
    with httpd.conn() as conn:
        for _ in range(3):
            response = conn.ask("/plaintext", version="1.0", headers=[("Connection", "Keep-Alive")])
            assert (response.get("connection") or "").lower() == "keep-alive"
        assert conn.ask("/plaintext", version="1.0").status == 200
        assert conn.ended() == "eof"


def test_http10_answer_never_chunked(httpd):
    for target in ("/", "/cores", "/files/plain.txt", "/greet/x"):
        assert not httpd.get(target, version="1.0").chunked


@pytest.mark.parametrize("value", ["close", "Close", "foo, close", "close, foo",
                                   "keep-alive, close"])
def test_http11_connection_close_closes(httpd, value):
    with httpd.conn() as conn:
        response = conn.ask("/plaintext", headers=[("Connection", value)])
        assert response.closes
        assert conn.ended() == "eof"


def test_http11_many_requests_on_one_connection(httpd):
    with httpd.conn() as conn:
        for _ in range(2000):
            assert conn.ask("/plaintext").body == b"Hello, World!"
