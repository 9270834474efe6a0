"""What the demo serves: routes, both cores, curl as a client, Unix sockets, uploads."""

import hashlib
import json
import os
import random
import re
import selectors
import subprocess
import threading
import time

import pytest

import harness
import wire

GET_ROUTES = ["/", "/plaintext", "/json", "/cores", "/sleep?ms=0", "/greet/you", "/sum?a=1&b=2"]


def curl(server, *args, data=None):
    """Runs the real curl; returns (body, what -v said)."""
    argv = [harness.need_tool("curl"), "-sS", "-v", "--max-time", "60"]
    if server.port is None:
        argv += ["--unix-socket", server.address]
    argv += [arg.replace("URL", server.url) for arg in args]
    result = subprocess.run(argv, input=data, capture_output=True, timeout=90, check=False)
    said = result.stderr.decode("utf-8", "replace")
    assert result.returncode == 0, f"curl ended with {result.returncode}:\n{said[-3000:]}"
    return result.stdout, said


# Routes


def test_plaintext_get_thirteen_bytes(httpd):
    response = httpd.get("/plaintext")
    assert response.status == 200
    assert response.body == b"Hello, World!"
    assert response.get("content-type").startswith("text/plain")
    assert response.get("content-length") == "13"


def test_json_get_message(httpd):
    response = httpd.get("/json")
    assert response.status == 200
    assert response.get("content-type").startswith("application/json")
    assert json.loads(response.body) == {"message": "Hello, World!"}


def test_front_page_get_html(httpd):
    response = httpd.get("/")
    assert response.status == 200
    assert response.get("content-type").startswith("text/html")
    assert b"<title>" in response.body and b"Shoal" in response.body


@pytest.mark.parametrize("target", GET_ROUTES)
def test_route_head_like_get_without_body(httpd, target):
    with httpd.conn() as conn:
        full = conn.ask(target)
        head = conn.ask(target, "HEAD")
        after = conn.ask("/plaintext")
    assert full.status == head.status == 200
    assert head.body == b""
    assert head.get("content-type") == full.get("content-type")
    if target != "/cores":  # its numbers grow
        assert head.get("content-length") == full.get("content-length")
    assert after.body == b"Hello, World!"


@pytest.mark.parametrize("target", ["/nothing", "/plaintextx", "/plaintext/", "/json/x", "/greet",
                                    "/greet/a/b", "//plaintext", "/PLAINTEXT"])
def test_unknown_path_any_method_404(httpd, target):
    with httpd.conn() as conn:
        for method in ("GET", "HEAD", "DELETE"):
            response = conn.ask(target, method)
            assert response.status == 404, (method, response)
        assert conn.ask("/plaintext").status == 200


@pytest.mark.parametrize("target,method,allowed", [
    ("/plaintext", "POST", {"GET", "HEAD"}),
    ("/plaintext", "DELETE", {"GET", "HEAD"}),
    ("/json", "PUT", {"GET", "HEAD"}),
    ("/", "PATCH", {"GET", "HEAD"}),
    ("/greet/you", "DELETE", {"GET", "HEAD"}),
    ("/files/plain.txt", "DELETE", {"GET", "HEAD"}),
    ("/echo", "GET", {"POST", "PUT"}),
    ("/echo", "HEAD", {"POST", "PUT"}),
    ("/echo", "DELETE", {"POST", "PUT"}),
])
def test_known_path_wrong_method_405_with_allow(httpd, target, method, allowed):
    with httpd.conn() as conn:
        response = conn.ask(target, method)
        assert response.status == 405
        names = {name.strip() for name in response.get("allow").split(",")}
        assert allowed <= names, names
        assert method not in names
        assert conn.ask("/plaintext").status == 200


@pytest.mark.parametrize("path,name", [
    ("Ada", "Ada"),
    ("Ada%20Lovelace", "Ada Lovelace"),
    ("a%2Fb", "a/b"),
    ("%C3%A9t%c3%a9", "\u00e9t\u00e9"),
    ("100%25", "100%"),
    ("a+b", "a+b"),
    ("~tilde.-_", "~tilde.-_"),
    ("x" * 500, "x" * 500),
], ids=lambda value: ascii(value)[:30])
def test_greet_percent_encoded_name_decoded(httpd, path, name):
    response = httpd.get("/greet/" + path)
    assert response.status == 200
    assert name in response.text
    assert response.get("content-type").startswith("text/plain")


def test_greet_query_not_part_of_name(httpd):
    response = httpd.get("/greet/Ada?Bob")
    assert response.status == 200
    assert "Ada" in response.text and "Bob" not in response.text


@pytest.mark.parametrize("path", ["%", "%4", "%zz", "a%2", "%G0", "%%41"])
def test_greet_bad_percent_400(httpd, path):
    assert httpd.get("/greet/" + path).status == 400


@pytest.mark.parametrize("query,answer", [
    ("a=1234&b=8766", "10000"),
    ("b=8766&a=1234", "10000"),
    ("a=0&b=0", "0"),
    ("a=20&b=1&c=9", "21"),
    ("a=-50&b=8", "-42"),
])
def test_sum_numbers_added(httpd, query, answer):
    response = httpd.get("/sum?" + query)
    assert response.status == 200
    assert answer in re.findall(r"-?\d+", response.text)


@pytest.mark.parametrize("query", [
    "", "a=1", "b=1", "a=&b=2", "a=x&b=2", "a=1&b=2x", "a=1.5&b=2", "a=0x10&b=2",
    "a=99999999999999999999&b=1", "a=9223372036854775807&b=1",
])
def test_sum_bad_query_400(httpd, query):
    with httpd.conn() as conn:
        response = conn.ask("/sum?" + query)
        assert response.status == 400
        assert response.body.strip(), "a 400 that does not say why"
        assert conn.ask("/plaintext").status == 200, "a bad query is no reason to close"


@pytest.mark.parametrize("query", ["", "ms=", "ms=x", "ms=-1", "ms=1e9", "ms=99999999999999999999"])
def test_sleep_bad_query_400(httpd, query):
    assert httpd.get("/sleep?" + query).status == 400


# Cores


def test_cores_requests_counted(httpd):
    before = sum(httpd.served())
    asked = 0
    for _ in range(20):
        with httpd.conn() as conn:
            for _ in range(5):
                assert conn.ask("/plaintext").status == 200
                asked += 1
    looks = 0

    def counted():
        nonlocal looks
        looks += 1
        return sum(httpd.served()) - before == asked + looks

    harness.wait_for(counted, f"{asked} requests counted, besides those that ask")


def test_cores_many_connections_each_core_serves(httpd):
    before = httpd.cores_json()
    assert [core["core"] for core in before["cores"]] == list(range(httpd.cores))
    answered = set()
    for _ in range(256):
        state = httpd.cores_json()
        assert len(state["cores"]) == httpd.cores
        assert set(state) >= {"answered_by", "io_backend", "cores"}
        answered.add(state["answered_by"])
    assert answered == set(range(httpd.cores))
    for old, new in zip(before["cores"], state["cores"]):
        assert new["requests"] >= old["requests"] + 20, (before, state)


def test_cores_each_asked_by_the_other_consistent(httpd):
    """One kept connection a core: each sees the other's requests, by messages."""
    found = {}
    conns = []
    while len(found) < httpd.cores:
        conn = httpd.conn()
        conns.append(conn)
        found.setdefault(json.loads(conn.ask("/cores").body)["answered_by"], conn)
    for core, conn in found.items():
        other = found[(core + 1) % httpd.cores]
        before = json.loads(other.ask("/cores").body)["cores"][core]["requests"]
        for _ in range(10):
            conn.ask("/plaintext")
        after = json.loads(other.ask("/cores").body)["cores"][core]["requests"]
        assert after - before in (9, 10, 11), (core, before, after)


# Sleep


def sleepers(server):
    """Connections that sent a long sleep and then 99 short ones, within a second."""
    while True:
        begin = time.monotonic()
        conns = [server.conn() for _ in range(100)]
        for index, conn in enumerate(conns):
            conn.send(wire.request("/sleep?ms=1500" if index == 0 else "/sleep?ms=200"))
        if time.monotonic() - begin < 1:
            return conns
        wire.close_all()  # the machine was busy


def test_sleep_hundred_at_once_overlap(start):
    """On one core a long sleeper that came first is answered after 99 short ones."""
    server = start(smp=1)
    conns = sleepers(server)
    selector = selectors.DefaultSelector()
    for index, conn in enumerate(conns):
        selector.register(conn.sock, selectors.EVENT_READ, index)
    order = []
    while len(order) < 100:
        events = selector.select(wire.PATIENCE)
        assert events, f"only {len(order)} answers"
        # Of those that came while this test did not run, nobody knows the order: the long one last.
        for key, _ in sorted(events, key=lambda event: -event[0].data):
            response = conns[key.data].read()
            wanted = "slept 1500 ms" if key.data == 0 else "slept 200 ms"
            assert response.status == 200 and wanted in response.text
            order.append(key.data)
            selector.unregister(key.fileobj)
    selector.close()
    assert order[-1] == 0, f"the long sleeper came at place {order.index(0)}"


def test_sleep_asked_time_at_least(httpd):
    begin = time.monotonic()
    assert "slept 150 ms" in httpd.get("/sleep?ms=150").text
    assert time.monotonic() - begin >= 0.150


# curl


def test_curl_get_keeps_alive(httpd):
    body, said = curl(httpd, "URL/plaintext", "URL/json")
    assert body.startswith(b"Hello, World!") and json.loads(body[13:])
    assert "< HTTP/1.1 200 OK" in said
    assert "Re-using existing connection" in said


def test_curl_head_only_headers(httpd):
    body, _ = curl(httpd, "-I", "URL/plaintext")
    assert b"HTTP/1.1 200 OK" in body and b"Hello" not in body


def test_curl_post_echoed(httpd):
    body, said = curl(httpd, "-H", "Content-Type: text/x-test", "--data-binary", "@-", "URL/echo",
                      data=b"a small body")
    assert body == b"a small body"
    assert "< Content-Type: text/x-test" in re.sub("(?i)content-type", "Content-Type", said)


def test_curl_large_post_gets_100_continue(httpd):
    data = random.Random(1).randbytes((1 << 20) + 12345)
    body, said = curl(httpd, "--expect100-timeout", "30", "-H", "Expect: 100-continue",
                      "--data-binary", "@-", "URL/echo", data=data)
    assert "> Expect: 100-continue" in said
    assert "< HTTP/1.1 100 Continue" in said
    assert body == data


def test_curl_http10_closes(httpd):
    body, said = curl(httpd, "--http1.0", "URL/plaintext")
    assert body == b"Hello, World!"
    assert "> GET /plaintext HTTP/1.0" in said
    assert "Closing connection" in said


def test_curl_http10_post_echoed(httpd):
    body, _ = curl(httpd, "--http1.0", "--data-binary", "@-", "URL/echo", data=b"x" * 5000)
    assert body == b"x" * 5000


def test_curl_chunked_upload_echoed(httpd):
    data = random.Random(2).randbytes(3 << 20)
    body, said = curl(httpd, "-T", "-", "URL/echo", data=data)
    assert "> Transfer-Encoding: chunked" in said
    assert body == data


# Other addresses


def test_unix_socket_served_and_removed(start, folder):
    path = os.path.join(folder, "shoal.sock")
    server = start("--host", "unix:" + path, "--max-body", "16M", port=None)
    assert server.address == path
    body, said = curl(server, "URL/plaintext")
    assert body == b"Hello, World!"
    assert "HTTP/1.1 200 OK" in said
    data = random.Random(3).randbytes(2 << 20)
    assert curl(server, "--data-binary", "@-", "URL/echo", data=data)[0] == data
    for _ in range(50):
        assert server.get("/json").status == 200
    server.check()
    server.stop()
    assert not os.path.exists(path), "the socket file outlived the server"


def test_unix_socket_stale_file_replaced(start, folder):
    path = os.path.join(folder, "stale.sock")
    first = start("--host", "unix:" + path, port=None)
    first.kill()
    # The kernel takes an io_uring down a moment after its process, and the socket with it.
    harness.wait_for(lambda: harness.connect_refused(path), "the socket is gone")
    assert os.path.exists(path)
    assert start("--host", "unix:" + path, port=None).get("/plaintext").status == 200


def test_ipv6_loopback_served(start):
    if not os.path.exists("/proc/net/if_inet6"):
        harness.missing("IPv6")
    with open("/proc/net/if_inet6", encoding="ascii") as table:
        if "00000000000000000000000000000001" not in table.read():
            harness.missing("IPv6 loopback")
    server = start("--host", "::1")
    assert server.url.startswith("http://[::1]:")
    assert curl(server, "-g", "URL/plaintext")[0] == b"Hello, World!"


def test_hello_serves(start):
    server = start(program="shoal-hello")
    response = server.get("/")
    assert response.status == 200 and response.body
    assert curl(server, "URL/")[0] == response.body


# Uploads


@pytest.mark.parametrize("headers,body", [
    ((("Content-Type", "text/plain"),), b"abc"),
    ((("Content-Type", "application/x-odd; a=\"b c\""),), b"\x00\xff" * 500),
    ((), b"no type"),
    ((("Content-Type", "text/plain"),), b""),
], ids=["text", "binary", "untyped", "empty"])
def test_echo_content_length_same_type_and_length(httpd, headers, body):
    for method in ("POST", "PUT"):
        response = httpd.get("/echo", method, headers=headers, body=body)
        assert response.status == 200
        assert response.body == body
        assert response.get("content-length") == str(len(body))
        if headers:
            assert response.get("content-type") == headers[0][1]


def test_echo_no_framing_empty_body(httpd):
    response = httpd.get("/echo", "POST")
    assert response.status == 200 and response.body == b""


def test_echo_chunked_sizes_and_extensions(httpd):
    rng = random.Random(4)
    parts = [rng.randbytes(size) for size in (1, 2, 15, 16, 17, 255, 4095, 4096, 65537, 1)]
    with httpd.conn() as conn:
        for _ in range(3):
            conn.send(wire.request("/echo", "POST", [("Transfer-Encoding", "chunked")]))
            conn.send(wire.chunked(parts, b"X-Trailer: 1\r\n"))
            response = conn.read()
            assert response.chunked and response.body == b"".join(parts)
        conn.send(wire.request("/echo", "POST", [("Transfer-Encoding", "Chunked")]))
        conn.send(b"5;a=b\r\nhello\r\n005;c=\"d;e\"\r\nworld\r\n00\r\n\r\n")
        assert conn.read().body == b"helloworld"


def test_echo_streams_before_the_end(httpd):
    """The first part comes back while the rest has not been sent."""
    with httpd.conn() as conn:
        conn.send(wire.request("/echo", "POST", [("Transfer-Encoding", "chunked")]))
        conn.send(b"5\r\nfirst\r\n")
        while b"first" not in conn.pending:
            assert conn.more()
        conn.send(b"6\r\nsecond\r\n0\r\n\r\n")
        assert conn.read().body == b"firstsecond"


@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_echo_64_mib_bit_exact(httpd, framing):
    """Sent while it is read back: a server that waits for the whole body would still do, but one
    that holds back-pressure wrongly hangs or tears."""
    block = random.Random(5).randbytes(1 << 20)
    sent = hashlib.sha256()
    with httpd.conn() as conn:
        if framing == "length":
            head = wire.request("/echo", "POST", [("Content-Length", 64 << 20)])
        else:
            head = wire.request("/echo", "POST", [("Transfer-Encoding", "chunked")])

        def upload():
            conn.send(head)
            for index in range(64):
                data = bytes([index]) + block[1:]
                sent.update(data)
                conn.send(data if framing == "length" else b"%x\r\n%b\r\n" % (len(data), data))
            if framing == "chunked":
                conn.send(b"0\r\n\r\n")

        sender = threading.Thread(target=upload)
        sender.start()
        response = conn.read()
        sender.join()
        assert response.status == 200
        assert len(response.body) == 64 << 20
        assert hashlib.sha256(response.body).digest() == sent.digest()
        assert response.chunked == (framing == "chunked")
        assert conn.ask("/plaintext").status == 200


def test_echo_sender_that_reads_nothing_until_sent_back_pressure(httpd):
    """The server may not buffer without bound for a client that sends and does not read."""
    before = httpd.rss_bytes()
    with httpd.conn(patience=1.0) as conn:
        conn.send(wire.request("/echo", "POST", [("Content-Length", 100 << 20)]))
        sent = 0
        block = bytes(1 << 20)
        try:
            while sent < 100 << 20:
                sent += conn.sock.send(block)
        except TimeoutError:
            pass
        assert sent < 100 << 20, "the server took 100 MiB that nobody read"
        if not harness.sanitizer():
            assert httpd.rss_bytes() - before < 32 << 20
