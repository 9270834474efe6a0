"""HTTP/1.1 over raw sockets, for tests that must see every byte.

1. The reader is strict: a response that is not exactly well-formed fails the test that got it.
2. Nothing is hidden: what follows a response stays in `Conn.pending`, and closes and resets are
   told apart.
3. Every socket has a time-out, so that a server that hangs fails a test and never hangs the run.

http.client was not used: it accepts malformed responses, cannot send malformed requests, and
cannot tell a torn answer from a closed connection.
"""

import email.utils
import errno
import re
import select
import socket
import struct
import time
import weakref

PATIENCE = 30.0
TOKEN = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+\Z")
STATUS_LINE = re.compile(rb"HTTP/1\.1 ([1-5][0-9][0-9]) ([\t \x21-\x7e]*)\Z")
DATE = re.compile(
    r"(Mon|Tue|Wed|Thu|Fri|Sat|Sun), \d\d (Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec) "
    r"\d{4} \d\d:\d\d:\d\d GMT\Z"
)

_live = weakref.WeakSet()


class Torn(Exception):
    """The connection ended inside a response."""


class Closed(Exception):
    """The connection ended before the first byte of a response; `reset` says how."""

    def __init__(self, reset):
        super().__init__("reset" if reset else "closed")
        self.reset = reset


class Response:
    def __init__(self, status, reason, headers):
        self.status = status
        self.reason = reason
        self.headers = headers
        self.body = b""
        self.interim = []
        self.chunked = False

    def all(self, name):
        return [value for key, value in self.headers if key == name.lower()]

    def get(self, name):
        values = self.all(name)
        assert len(values) <= 1, f"{name} occurs {len(values)} times: {values}"
        return values[0] if values else None

    @property
    def text(self):
        return self.body.decode("utf-8")

    @property
    def closes(self):
        return "close" in (self.get("connection") or "").lower()

    def __repr__(self):
        return f"<{self.status} {self.reason} {self.headers} {self.body[:200]!r}>"


def request(target, method="GET", headers=(), body=None, version="1.1", host="test"):
    """The bytes of one well-formed request."""
    lines = [f"{method} {target} HTTP/{version}"]
    if host is not None:
        lines.append(f"Host: {host}")
    lines += [f"{name}: {value}" for name, value in headers]
    if body is not None:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join(lines).encode("utf-8") + b"\r\n\r\n" + (body or b"")


def chunked(parts, trailers=b""):
    """The chunked coding of `parts`, each a chunk."""
    coded = [b"%x\r\n%b\r\n" % (len(part), part) for part in parts if part]
    return b"".join(coded) + b"0\r\n" + trailers + b"\r\n"


def close_all():
    """Closes what a test left open, so that descriptors can be counted after it."""
    for conn in list(_live):
        conn.close()


def check_headers(response, version="1.1"):
    """Every final response: one Date that is right, one Server, framing said exactly once; only to
    HTTP/1.0 may the end of the connection be the framing."""
    dates = response.all("date")
    assert len(dates) == 1, f"{len(dates)} Date fields: {response!r}"
    assert DATE.match(dates[0]), f"not an IMF-fixdate: {dates[0]!r}"
    moment = email.utils.parsedate_to_datetime(dates[0]).timestamp()
    assert abs(moment - time.time()) < 3600, f"Date is off: {dates[0]!r}"
    assert len(response.all("server")) == 1, f"not one Server field: {response!r}"
    lengths = response.all("content-length")
    codings = response.all("transfer-encoding")
    if version == "1.0":
        assert codings == [], f"chunked to HTTP/1.0: {response!r}"
    if not lengths and version == "1.0":
        assert response.closes, f"no framing and no close: {response!r}"
        return
    assert len(lengths) + len(codings) == 1, f"framing not said exactly once: {response!r}"
    if lengths:
        assert re.fullmatch(r"0|[1-9][0-9]*", lengths[0]), f"Content-Length {lengths[0]!r}"
    else:
        assert codings == ["chunked"], f"Transfer-Encoding {codings!r}"
    if response.body or not (lengths == ["0"] or response.status in (204, 304)):
        assert len(response.all("content-type")) <= 1


class Conn:
    """One client connection; a context manager."""

    def __init__(self, address, patience=PATIENCE, receive_buffer=None):
        family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
        if family == socket.AF_INET and ":" in address[0]:
            family = socket.AF_INET6
        self.sock = socket.socket(family, socket.SOCK_STREAM)
        self.sock.settimeout(patience)
        self.pending = b""
        if receive_buffer:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        try:
            self.sock.connect(address)
        except BaseException:
            self.sock.close()
            raise
        if family != socket.AF_UNIX:
            self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        _live.add(self)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.sock.close()
        _live.discard(self)

    def reset(self):
        """Closes with RST instead of FIN."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()

    def finish(self):
        """Half-closes: no more will be sent. The server may have closed already."""
        try:
            self.sock.shutdown(socket.SHUT_WR)
        except OSError as error:
            if error.errno != errno.ENOTCONN:
                raise

    def send(self, data):
        self.sock.sendall(data)

    def send_lossy(self, data):
        """Sends as much as the server takes; for requests that it may refuse half-way."""
        try:
            self.sock.sendall(data)
        except (BrokenPipeError, ConnectionResetError):
            pass

    def readable(self):
        """Whether bytes or an end have come."""
        poll = select.poll()
        poll.register(self.sock, select.POLLIN)
        return bool(poll.poll(0))

    def more(self):
        """Reads some; False at the end of the stream. Lets ConnectionResetError through."""
        data = self.sock.recv(262144)
        self.pending += data
        return bool(data)

    def _until(self, mark, start=True):
        while mark not in self.pending:
            had = bool(self.pending) or not start
            try:
                if not self.more():
                    if had:
                        raise Torn(f"closed within a response: {self.pending[:300]!r}")
                    raise Closed(False)
            except ConnectionResetError:
                if had:
                    raise Torn(f"reset within a response: {self.pending[:300]!r}") from None
                raise Closed(True) from None
        head, _, self.pending = self.pending.partition(mark)
        return head

    def _exactly(self, count):
        parts = [self.pending[:count]]
        self.pending = self.pending[count:]
        missing = count - len(parts[0])
        while missing:
            try:
                data = self.sock.recv(min(missing, 1 << 20))
            except ConnectionResetError:
                data = b""
            if not data:
                raise Torn(f"{missing} of {count} body bytes missing")
            parts.append(data)
            missing -= len(data)
        return b"".join(parts)

    def _head(self):
        lines = self._until(b"\r\n\r\n").split(b"\r\n")
        match = STATUS_LINE.match(lines[0])
        assert match, f"bad status line {lines[0]!r}"
        headers = []
        for line in lines[1:]:
            name, colon, value = line.partition(b":")
            assert colon and TOKEN.match(name), f"bad header line {line!r}"
            value = value.strip(b" \t").decode("latin-1")
            assert not re.search(r"[\x00-\x08\x0a-\x1f\x7f]", value), f"bad value {line!r}"
            headers.append((name.decode().lower(), value))
        return Response(int(match[1]), match[2].decode(), headers)

    def _chunks(self):
        parts = []
        while True:
            line = self._until(b"\r\n", start=False)
            assert re.fullmatch(rb"[0-9A-Fa-f]+", line), f"bad chunk size {line!r}"
            size = int(line, 16)
            if size == 0:
                break
            parts.append(self._exactly(size))
            assert self._exactly(2) == b"\r\n", "no CRLF after a chunk"
        while self._until(b"\r\n", start=False):
            pass
        return b"".join(parts)

    def read(self, method="GET", version="1.1"):
        """The next final response, with the interim ones before it in `.interim`. `method` and
        `version` are those of the request."""
        interim = []
        while True:
            response = self._head()
            if response.status >= 200 or response.status == 101:
                break
            interim.append(response.status)
        response.interim = interim
        check_headers(response, version)
        response.chunked = bool(response.all("transfer-encoding"))
        if method == "HEAD" or response.status in (204, 304):
            return response
        if response.chunked:
            response.body = self._chunks()
        elif response.get("content-length") is None:
            response.body = self.drain()
        else:
            response.body = self._exactly(int(response.get("content-length")))
        return response

    def ask(self, target, method="GET", **kw):
        """One request and its response."""
        self.send(request(target, method, **kw))
        return self.read(method, kw.get("version", "1.1"))

    def ended(self):
        """Waits for the end of the stream; fails if another byte comes. Says "eof" or "reset"."""
        assert not self.pending, f"bytes after the last response: {self.pending[:300]!r}"
        try:
            data = self.sock.recv(65536)
        except ConnectionResetError:
            return "reset"
        assert not data, f"bytes after the last response: {data[:300]!r}"
        return "eof"

    def drain(self):
        """All bytes until the stream ends, however it ends."""
        parts = [self.pending]
        self.pending = b""
        try:
            while data := self.sock.recv(1 << 20):
                parts.append(data)
        except ConnectionResetError:
            pass
        return b"".join(parts)


def fetch(address, target, method="GET", **kw):
    """One request on a connection of its own."""
    with Conn(address) as conn:
        return conn.ask(target, method, **kw)
