"""What hostile or broken clients send: requests to leave in the middle of, and seeded garbage."""

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


def conversation(rng):
    """A few pipelined requests, more often than not with a mistake in them: (whether they are all
    well-formed, the bytes)."""
    raw = bytearray()
    for _ in range(rng.randrange(1, 5)):
        raw += rng.choice([
            wire.request("/greet/x?y=z"),
            wire.request("/sum?a=1&b=2"),
            wire.request("/nothing"),
            wire.request("/plaintext", "POST", body=b"abc"),
            wire.request("/plaintext", version="1.0", headers=[("Connection", "keep-alive")]),
            wire.request("/echo", "POST", body=b"h" * rng.randrange(300)),
            wire.request("/echo", "PUT", [("Transfer-Encoding", "chunked")])
            + wire.chunked([b"hello", b"x" * rng.randrange(300)], b"T: u\r\n"),
        ])
    if rng.random() < 0.4:
        return True, bytes(raw)
    alphabet = b"\r\n\0 :;,0123456789abcdefxX/%\xff"
    for _ in range(rng.randrange(1, 3)):
        place = rng.randrange(len(raw))
        kind = rng.randrange(4)
        if kind == 0:
            raw[place] = rng.choice(alphabet)
        elif kind == 1:
            del raw[place : place + rng.randrange(1, 8)]
        elif kind == 2:
            raw[place:place] = bytes(rng.choice(alphabet) for _ in range(rng.randrange(1, 5)))
        else:
            raw[place:place] = raw[place : place + rng.randrange(1, 40)]
    return False, bytes(raw)
