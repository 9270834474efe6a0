"""A small HTTP client over bare sockets: verifies a subject, asks /cores, holds connections."""

import http.client
import json
import socket
import time

from .report import BenchError

BODY = b"Hello, World!"
ANSWER_LIMIT_S = 10.0
IP_BIND_ADDRESS_NO_PORT = 24
CONNECTIONS_AN_ADDRESS = 4000


def request(path):
    return f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode()


def connect(port, source=None):
    sock = socket.socket()
    sock.settimeout(ANSWER_LIMIT_S)
    if source is not None:
        sock.setsockopt(socket.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)
        sock.bind((source, 0))
    try:
        sock.connect(("127.0.0.1", port))
    except OSError:
        sock.close()
        raise
    return sock


def read_answer(sock, pending=b""):
    """One answer: its status, its body, and the bytes that follow it."""
    while b"\r\n\r\n" not in pending:
        pending += _receive(sock)
    head, rest = pending.split(b"\r\n\r\n", 1)
    lines = head.split(b"\r\n")
    status = int(lines[0].split()[1])
    size = None
    for line in lines[1:]:
        name, _, value = line.partition(b":")
        if name.strip().lower() == b"content-length":
            size = int(value)
    if size is None:
        raise BenchError(f"an answer without Content-Length: {head!r}")
    while len(rest) < size:
        rest += _receive(sock)
    return status, rest[:size], rest[size:]


def _receive(sock):
    data = sock.recv(65536)
    if not data:
        raise BenchError("the connection was closed before the answer was whole")
    return data


def get(port, path):
    with connect(port) as sock:
        sock.sendall(request(path))
        return read_answer(sock)[:2]


def get_json(port, path):
    """The parsed body of GET `path`, however it is framed."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        if response.status != 200:
            raise BenchError(f"{path} answers {response.status}")
        return json.loads(response.read())
    finally:
        connection.close()



def wait_for_port(server):
    end = time.monotonic() + ANSWER_LIMIT_S
    while True:
        try:
            connect(server.port).close()
            return
        except ConnectionRefusedError:
            server.check_running()
            if time.monotonic() > end:
                raise BenchError(f"{server.name}: port {server.port} does not open") from None
            time.sleep(0.01)


def verify(server):
    """One request, then 16 pipelined: each must be answered with 200 and the 13 bytes."""
    try:
        for count in (1, 16):
            with connect(server.port) as sock:
                sock.sendall(request("/plaintext") * count)
                pending = b""
                for _ in range(count):
                    status, body, pending = read_answer(sock, pending)
                    if status != 200 or body != BODY:
                        raise BenchError(f"GET /plaintext answers {status} with {body[:40]!r}")
                if pending:
                    raise BenchError(f"more answers than requests: {pending[:40]!r}")
    except (OSError, BenchError) as error:
        raise BenchError(f"{server.name} does not answer as it must: {error}") from error


class IdleConnections:
    """Keep-alive connections that each have had one answer."""

    BATCH = 100

    def __init__(self, port):
        self._port = port
        self._sockets = []

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        for sock in self._sockets:
            sock.close()

    def grow(self, count):
        while len(self._sockets) < count:
            fresh = []
            for _ in range(min(self.BATCH, count - len(self._sockets))):
                # several source addresses, so that ports do not run out
                source = f"127.0.0.{2 + len(self._sockets) // CONNECTIONS_AN_ADDRESS}"
                sock = connect(self._port, source)
                self._sockets.append(sock)
                fresh.append(sock)
            for sock in fresh:
                sock.sendall(request("/plaintext"))
            for sock in fresh:
                status, body, _ = read_answer(sock)
                if status != 200 or body != BODY:
                    raise BenchError(f"answer {status} on connection {len(self._sockets)}")

    def check_open(self):
        """None may have been closed by the server meanwhile."""
        for sock in self._sockets:
            sock.setblocking(False)
            try:
                closed = sock.recv(1) == b""
            except BlockingIOError:
                closed = False
            if closed:
                raise BenchError("the server closed idle connections during the measurement")
