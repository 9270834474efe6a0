"""Tables of requests: what must be refused with which status, and what must be understood.

RFC 9112 lets a server repair some of what stands here; Shoal does not, since two parties that
repair differently are how requests are smuggled. Where the RFC leaves the status open, all that
would be right are listed.
"""

HOST = b"Host: x\r\n"


def get(*fields, line=b"GET /plaintext HTTP/1.1"):
    return line + b"\r\n" + HOST + b"".join(field + b"\r\n" for field in fields) + b"\r\n"


def post(*fields, body=b""):
    return get(*fields, line=b"POST /echo HTTP/1.1") + body


CHUNKED_HELLO = b"5\r\nhello\r\n0\r\n\r\n"

BAD_REQUESTS = [
    # Content-Length
    ("length-twice-different",
     post(b"Content-Length: 5", b"Content-Length: 6", body=b"hello"), {400}),
    ("length-twice-equal", post(b"Content-Length: 5", b"Content-Length: 5", body=b"hello"), {400}),
    ("length-list", post(b"Content-Length: 5, 5", body=b"hello"), {400}),
    ("length-plus", post(b"Content-Length: +5", body=b"hello"), {400}),
    ("length-minus", post(b"Content-Length: -5", body=b"hello"), {400}),
    ("length-hex", post(b"Content-Length: 0x5", body=b"hello"), {400}),
    ("length-word", post(b"Content-Length: five", body=b"hello"), {400}),
    ("length-two-words", post(b"Content-Length: 5 5", body=b"hello"), {400}),
    ("length-decimal", post(b"Content-Length: 5.0", body=b"hello"), {400}),
    ("length-empty", post(b"Content-Length: ", body=b"hello"), {400}),
    ("length-trailing", post(b"Content-Length: 5;", body=b"hello"), {400}),
    ("length-2-to-64", post(b"Content-Length: 18446744073709551616"), {400, 413}),
    ("length-2-to-64-plus-5",
     post(b"Content-Length: 18446744073709551621", body=b"hello"), {400, 413}),
    ("length-2-to-63", post(b"Content-Length: 9223372036854775808"), {400, 413}),
    ("length-endless", post(b"Content-Length: " + b"9" * 1000), {400, 413}),
    # Content-Length and Transfer-Encoding
    ("length-and-chunked",
     post(b"Content-Length: 15", b"Transfer-Encoding: chunked", body=CHUNKED_HELLO), {400}),
    ("chunked-and-length",
     post(b"Transfer-Encoding: chunked", b"Content-Length: 15", body=CHUNKED_HELLO), {400}),
    ("length-0-and-chunked",
     post(b"Content-Length: 0", b"transfer-encoding: CHUNKED", body=CHUNKED_HELLO), {400}),
    # Transfer-Encoding
    ("coding-gzip", post(b"Transfer-Encoding: gzip", body=b"x"), {400, 501}),
    ("coding-gzip-chunked", post(b"Transfer-Encoding: gzip, chunked", body=CHUNKED_HELLO), {501}),
    ("coding-unknown", post(b"Transfer-Encoding: xchunked", body=CHUNKED_HELLO), {501}),
    ("coding-suffix", post(b"Transfer-Encoding: chunkedx", body=CHUNKED_HELLO), {501}),
    ("coding-identity", post(b"Transfer-Encoding: identity"), {400, 501}),
    ("coding-twice-in-list",
     post(b"Transfer-Encoding: chunked, chunked", body=CHUNKED_HELLO), {400, 501}),
    ("coding-not-last", post(b"Transfer-Encoding: chunked, gzip", body=CHUNKED_HELLO), {400, 501}),
    ("coding-twice",
     post(b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked", body=CHUNKED_HELLO),
     {400, 501}),
    ("coding-then-identity",
     post(b"Transfer-Encoding: chunked", b"Transfer-Encoding: identity", body=CHUNKED_HELLO),
     {400, 501}),
    ("coding-empty", post(b"Transfer-Encoding:", body=CHUNKED_HELLO), {400, 501}),
    ("coding-vertical-tab", post(b"Transfer-Encoding: \x0bchunked", body=CHUNKED_HELLO), {400}),
    ("coding-quoted", post(b'Transfer-Encoding: "chunked"', body=CHUNKED_HELLO), {400, 501}),
    ("coding-parameter", post(b"Transfer-Encoding: chunked;q=1", body=CHUNKED_HELLO), {400, 501}),
    ("coding-in-1.0",
     b"POST /echo HTTP/1.0\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" + CHUNKED_HELLO,
     {400}),
    # Line ends and white space
    ("bare-lf", b"GET /plaintext HTTP/1.1\nHost: x\n\n", {400}),
    ("bare-lf-request-line", b"GET /plaintext HTTP/1.1\nHost: x\r\n\r\n", {400}),
    ("bare-lf-field", b"GET /plaintext HTTP/1.1\r\nHost: x\nA: b\r\n\r\n", {400}),
    ("bare-lf-last", b"GET /plaintext HTTP/1.1\r\nHost: x\r\n\n", {400}),
    ("bare-cr-in-value", get(b"A: b\rContent-Length: 5"), {400}),
    ("bare-cr-in-line", b"GET /plaintext\rx HTTP/1.1\r\nHost: x\r\n\r\n", {400}),
    ("cr-cr-lf", get(b"A: b\r"), {400}),
    ("obs-fold", get(b"A: b\r\n c"), {400}),
    ("obs-fold-tab", get(b"A: b\r\n\tc"), {400}),
    ("fold-first", b"GET /plaintext HTTP/1.1\r\n Host: x\r\nHost: x\r\n\r\n", {400}),
    ("space-before-colon", get(b"A : b"), {400}),
    ("tab-before-colon", get(b"A\t: b"), {400}),
    ("space-before-colon-length", post(b"Content-Length : 5", body=b"hello"), {400}),
    ("space-in-name", get(b"A B: c"), {400}),
    ("name-empty", get(b": c"), {400}),
    ("colon-missing", get(b"Alone"), {400}),
    # Bytes that may not occur
    ("nul-in-value", get(b"A: b\x00c"), {400}),
    ("nul-in-name", get(b"A\x00: b"), {400}),
    ("nul-in-target", b"GET /plain\x00text HTTP/1.1\r\nHost: x\r\n\r\n", {400}),
    ("nul-first", b"\x00GET /plaintext HTTP/1.1\r\nHost: x\r\n\r\n", {400}),
    ("control-in-value", get(b"A: \x01"), {400}),
    ("delete-in-value", get(b"A: \x7f"), {400}),
    ("control-in-target", b"GET /plain\x01text HTTP/1.1\r\nHost: x\r\n\r\n", {400}),
    ("high-byte-in-target", b"GET /greet/\xff HTTP/1.1\r\nHost: x\r\n\r\n", {400}),
    ("high-byte-in-name", get(b"\xc3\xa9: b"), {400}),
    ("separator-in-name", get(b"A(b): c"), {400}),
    ("tls-hello", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\r\n\r\n", {400}),
    # Request line
    ("method-empty", b" /plaintext HTTP/1.1\r\nHost: x\r\n\r\n", {400}),
    ("method-separator", b"G@T /plaintext HTTP/1.1\r\nHost: x\r\n\r\n", {400}),
    ("method-only", b"GET\r\nHost: x\r\n\r\n", {400}),
    ("version-missing", b"GET /plaintext\r\nHost: x\r\n\r\n", {400, 505}),
    ("two-spaces", b"GET  /plaintext HTTP/1.1\r\nHost: x\r\n\r\n", {400}),
    ("two-spaces-version", b"GET /plaintext  HTTP/1.1\r\nHost: x\r\n\r\n", {400}),
    ("tabs", b"GET\t/plaintext\tHTTP/1.1\r\nHost: x\r\n\r\n", {400}),
    ("trailing-space", b"GET /plaintext HTTP/1.1 \r\nHost: x\r\n\r\n", {400}),
    ("space-in-target", b"GET /plain text HTTP/1.1\r\nHost: x\r\n\r\n", {400}),
    ("target-no-slash", b"GET plaintext HTTP/1.1\r\nHost: x\r\n\r\n", {400}),
    ("target-fragment", b"GET /plaintext#x HTTP/1.1\r\nHost: x\r\n\r\n", {400}),
    ("target-empty", b"GET  HTTP/1.1\r\nHost: x\r\n\r\n", {400}),
    ("version-lower-case", b"GET /plaintext http/1.1\r\nHost: x\r\n\r\n", {400}),
    ("version-two-digits", b"GET /plaintext HTTP/1.10\r\nHost: x\r\n\r\n", {400, 505}),
    ("version-comma", b"GET /plaintext HTTP/1,1\r\nHost: x\r\n\r\n", {400}),
    ("version-trailing", b"GET /plaintext HTTP/1.1x\r\nHost: x\r\n\r\n", {400}),
    ("version-word", b"GET /plaintext HTTP/a.b\r\nHost: x\r\n\r\n", {400}),
    ("version-other", b"GET /plaintext HTCPCP/1.0\r\nHost: x\r\n\r\n", {400}),
    ("version-2", b"GET /plaintext HTTP/2.0\r\nHost: x\r\n\r\n", {505}),
    ("version-3", b"GET /plaintext HTTP/3.0\r\nHost: x\r\n\r\n", {505}),
    ("version-9.9", b"GET /plaintext HTTP/9.9\r\nHost: x\r\n\r\n", {505}),
    ("version-0.9", b"GET /plaintext HTTP/0.9\r\nHost: x\r\n\r\n", {400, 505}),
    ("http2-preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", {400, 505}),
    # Host
    ("host-missing", b"GET /plaintext HTTP/1.1\r\nA: b\r\n\r\n", {400}),
    ("no-fields", b"GET /plaintext HTTP/1.1\r\n\r\n", {400}),
    ("host-twice", get(b"Host: x"), {400}),
    ("host-twice-different", get(b"Host: y"), {400}),
    ("host-space", b"GET /plaintext HTTP/1.1\r\nHost: a b\r\n\r\n", {400}),
    ("host-slash", b"GET /plaintext HTTP/1.1\r\nHost: a/b\r\n\r\n", {400}),
    ("host-user", b"GET /plaintext HTTP/1.1\r\nHost: a@b\r\n\r\n", {400}),
    ("host-list", b"GET /plaintext HTTP/1.1\r\nHost: a, b\r\n\r\n", {400}),
]

# After the header of a chunked POST.
BAD_CHUNKS = [
    ("size-word", b"g\r\nhello\r\n0\r\n\r\n"),
    ("size-empty", b"\r\nhello\r\n0\r\n\r\n"),
    ("size-minus", b"-5\r\nhello\r\n0\r\n\r\n"),
    ("size-plus", b"+5\r\nhello\r\n0\r\n\r\n"),
    ("size-0x", b"0x5\r\nhello\r\n0\r\n\r\n"),
    ("size-space-before", b" 5\r\nhello\r\n0\r\n\r\n"),
    ("size-two", b"5 5\r\nhello\r\n0\r\n\r\n"),
    ("size-2-to-64", b"10000000000000000\r\nhello\r\n0\r\n\r\n"),
    ("size-2-to-64-plus-5", b"10000000000000005\r\nhello\r\n0\r\n\r\n"),
    ("size-2-to-63", b"8000000000000000\r\nhello\r\n0\r\n\r\n"),
    ("size-bare-lf", b"5\nhello\r\n0\r\n\r\n"),
    ("size-bare-cr", b"5\rhello\r\n0\r\n\r\n"),
    ("size-many-zeros", b"0" * 100000 + b"5\r\nhello\r\n0\r\n\r\n"),
    ("extension-bare-lf", b"5;a\nb\r\nhello\r\n0\r\n\r\n"),
    ("extension-nul", b"5;a\x00\r\nhello\r\n0\r\n\r\n"),
    ("extension-endless", b"5;" + b"a" * (1 << 20) + b"\r\nhello\r\n0\r\n\r\n"),
    ("extensions-endless", (b"1;" + b"a" * 500 + b"\r\nx\r\n") * 20000),
    ("data-too-long", b"5\r\nhello!\r\n0\r\n\r\n"),
    ("data-no-crlf", b"5\r\nhello0\r\n\r\n"),
    ("data-bare-lf", b"5\r\nhello\n0\r\n\r\n"),
    ("data-bare-cr", b"5\r\nhello\r0\r\n\r\n"),
    ("second-size-word", b"5\r\nhello\r\nz\r\n\r\n"),
    ("trailer-no-colon", b"5\r\nhello\r\n0\r\nalone\r\n\r\n"),
    ("trailer-space-before-colon", b"5\r\nhello\r\n0\r\nA : b\r\n\r\n"),
    ("trailer-bare-lf", b"5\r\nhello\r\n0\r\nA: b\n\r\n"),
    ("trailer-fold", b"5\r\nhello\r\n0\r\nA: b\r\n c\r\n\r\n"),
    ("trailer-nul", b"5\r\nhello\r\n0\r\nA: \x00\r\n\r\n"),
    ("trailer-endless", b"5\r\nhello\r\n0\r\nA: " + b"b" * (1 << 20) + b"\r\n\r\n"),
    ("trailers-many", b"5\r\nhello\r\n0\r\n" + b"A: b\r\n" * 100000 + b"\r\n"),
]

# Wrong before the first byte of the body: nothing can have been echoed, so the answer is a 400.
UNECHOED_CHUNKS = {
    name for name, _ in BAD_CHUNKS
    if name.startswith(("size-", "extension-")) and name != "extension-endless"
}

LARGE_REQUESTS = [
    ("target-64k", b"GET /" + b"a" * 65536 + b" HTTP/1.1\r\nHost: x\r\n\r\n", {414}),
    ("target-1m", b"GET /" + b"a" * (1 << 20) + b" HTTP/1.1\r\nHost: x\r\n\r\n", {414}),
    ("target-endless", b"GET /" + b"a" * (1 << 20), {414}),
    ("query-64k", b"GET /plaintext?" + b"a" * 65536 + b" HTTP/1.1\r\nHost: x\r\n\r\n", {414}),
    ("method-endless", b"A" * (1 << 20), {400, 414, 431, 501}),
    ("field-256k", get(b"A: " + b"b" * (256 << 10)), {431}),
    ("field-name-256k", get(b"a" * (256 << 10) + b": b"), {431}),
    ("field-endless", b"GET /plaintext HTTP/1.1\r\nHost: x\r\nA: " + b"b" * (1 << 20), {431}),
    ("fields-2000-short", get(*[b"a:b"] * 2000), {431}),
    ("fields-10000", get(*[b"A%d: b" % i for i in range(10000)]), {431}),
    ("cookies-1m", get(*[b"Cookie: " + b"c" * 1000] * 1000), {431}),
]

GOOD_REQUESTS = [
    ("crlf-before", b"\r\n" + get(), 200),
    ("space-around-value", get(b"A: \t b \t "), 200),
    ("no-space-after-colon", get(b"A:b"), 200),
    ("value-empty", get(b"A:"), 200),
    ("value-high-bytes", get(b"A: \xc3\xa9\xff"), 200),
    ("value-inner-tab", get(b"A: b\tc"), 200),
    ("name-all-token-characters", get(b"!#$%&'*+-.^_`|~09azAZ: b"), 200),
    ("names-lower-case", b"GET /plaintext HTTP/1.1\r\nhost: x\r\naccept: */*\r\n\r\n", 200),
    ("names-upper-case", b"GET /plaintext HTTP/1.1\r\nHOST: x\r\n\r\n", 200),
    ("host-port", b"GET /plaintext HTTP/1.1\r\nHost: localhost:8080\r\n\r\n", 200),
    ("host-ipv6", b"GET /plaintext HTTP/1.1\r\nHost: [::1]:8080\r\n\r\n", 200),
    ("absolute-target", b"GET http://x/plaintext HTTP/1.1\r\nHost: x\r\n\r\n", 200),
    ("absolute-target-port", b"GET http://x:80/plaintext?a HTTP/1.1\r\nHost: x:80\r\n\r\n", 200),
    ("query-marks", b"GET /plaintext??a=/?&&= HTTP/1.1\r\nHost: x\r\n\r\n", 200),
    ("percent-in-path", b"GET /%70laintext HTTP/1.1\r\nHost: x\r\n\r\n", 200),
    ("fields-50", get(*[b"A%d: b" % i for i in range(50)]), 200),
    ("field-4k", get(b"Cookie: " + b"c" * 4000), 200),
    ("target-4k", b"GET /plaintext?" + b"a" * 4000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 200),
    ("length-zero", get(b"Content-Length: 0"), 200),
    ("length-leading-zeros", post(b"Content-Length: 0005", body=b"hello"), 200),
    ("length-space-around", post(b"Content-Length: \t5 ", body=b"hello"), 200),
    ("coding-mixed-case", post(b"TRANSFER-encoding: \tcHuNkEd ", body=CHUNKED_HELLO), 200),
    ("chunk-size-leading-zeros", post(b"Transfer-Encoding: chunked",
                                      body=b"0005\r\nhello\r\n000\r\n\r\n"), 200),
    ("chunk-size-upper-case", post(b"Transfer-Encoding: chunked",
                                   body=b"A\r\n0123456789\r\n0\r\n\r\n"), 200),
    ("chunk-extension", post(b"Transfer-Encoding: chunked",
                             body=b'5;a;b=c;d="e"\r\nhello\r\n0;x\r\n\r\n'), 200),
    ("trailers",
     post(b"Transfer-Encoding: chunked", body=b"5\r\nhello\r\n0\r\nA: b\r\nC:\r\n\r\n"), 200),
    ("trailer-framing-ignored", post(b"Transfer-Encoding: chunked",
                                     body=b"5\r\nhello\r\n0\r\nContent-Length: 40\r\n\r\n"), 200),
    ("method-unknown", get(line=b"BREW /plaintext HTTP/1.1"), 405),
    ("upgrade-ignored", get(b"Connection: Upgrade", b"Upgrade: h2c"), 200),
    ("connection-odd", get(b"Connection: keep-alive, foo"), 200),
]
