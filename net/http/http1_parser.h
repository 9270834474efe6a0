/*
 * The head of an HTTP/1.1 request (RFC 9112, RFC 9110), parsed strictly, in place, without
 * allocation.
 *
 *  1. Whatever two implementations could read as two different messages is refused with 400, and
 *     never repaired: only CRLF ends a line, no folding, no space before a colon, one Host, at most
 *     one Content-Length (a repetition is refused even if equal), never together with a
 *     Transfer-Encoding, which must be exactly `chunked`.
 *  2. The verdict depends on the bytes alone, never on how they were cut into pieces: every piece
 *     by piece feeding ends in the result that the whole gives at once.
 *  3. A head fed piece by piece costs O(bytes) in all, given that `scanned` is passed.
 *  4. Every string in the result points into the caller's bytes and lives as long as they do.
 *
 * Rejected: a callback for each element (slower, and each caller collects them anyway); a state
 * machine byte by byte (a request nearly always comes whole; the resumption costs one search).
 *
 * All functions here are pure: any core or thread may call them and they never yield.
 */
#ifndef SHOAL_NET_HTTP_HTTP1_PARSER_H
#define SHOAL_NET_HTTP_HTTP1_PARSER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "shoal/runtime/compiler.h"

#include "shoal/net/http/str.h"

SHOAL_BEGIN_DECLS

enum shoal_http_method {
    SHOAL_HTTP_GET,
    SHOAL_HTTP_HEAD,
    SHOAL_HTTP_POST,
    SHOAL_HTTP_PUT,
    SHOAL_HTTP_DELETE,
    SHOAL_HTTP_CONNECT,
    SHOAL_HTTP_OPTIONS,
    SHOAL_HTTP_TRACE,
    SHOAL_HTTP_PATCH,
    SHOAL_HTTP_OTHER, /* any other token of at most 32 bytes; methods are case-sensitive */
};

/* One field line. The name is as sent (compare it without case), the value without outer OWS. */
struct shoal_http_field {
    struct shoal_str name, value;
};

/* What a head may cost. Each maximum is itself still allowed. */
struct shoal_http_limits {
    uint32_t head_bytes_max; /* whole head, with the empty line that ends it: 431, or 414 when not
                                even the request line ends within it. At most INT32_MAX. */
    uint32_t fields_max;     /* field lines, and the size of the caller's array: 431 */
    uint32_t uri_bytes_max;  /* request target as sent: 414 */
};

#define SHOAL_HTTP_HEAD_BYTES_MAX_DEFAULT 16384
#define SHOAL_HTTP_FIELDS_MAX_DEFAULT     100
#define SHOAL_HTTP_URI_BYTES_MAX_DEFAULT  8192

/* A parsed head. The caller sets `fields`; all else is written by the parser. */
struct shoal_http1_head {
    enum shoal_http_method method;
    uint8_t minor_version;   /* 0 to 9; from 1 up it is treated as HTTP/1.1 */
    bool keep_alive;         /* after this request the connection may go on */
    bool chunked;            /* the body is chunked (never with has_content_length) */
    bool has_content_length; /* Content-Length was sent; neither of the two means no body */
    bool expect_continue;    /* the client waits for 100 (never with HTTP/1.0) */
    bool upgrade;            /* Upgrade was sent, and Connection names it; read the field itself */
    uint64_t content_length; /* at most INT64_MAX; 0 if there is none */
    struct shoal_str method_name;
    struct shoal_str target; /* as sent */
    struct shoal_str path;   /* raw, starts with '/'; `*` for OPTIONS *; empty for CONNECT */
    struct shoal_str query;  /* raw, after the first '?'; may be empty */
    struct shoal_str host;   /* with the port; an absolute target and CONNECT overrule the field;
                                may be empty */
    uint32_t head_bytes;     /* size of the whole head; the body starts there */
    uint32_t field_count;
    struct shoal_http_field
        *fields; /* the caller's array of limits->fields_max, as sent, in order */
};

/*
 * Parses the head that starts at `buf`, of which `len` bytes are there so far.
 *
 * `scanned` is 0 at first; when a call gave 0 and more bytes came, pass the `len` of that call,
 * with all bytes since the start of the head still contiguous at `buf` (they may have moved). Too
 * small a `scanned` costs time and nothing else.
 *
 * Returns > 0: the bytes of the whole head, and *head is filled; bytes after them are untouched.
 * Returns 0: incomplete, come back with more; *head is undefined but for `fields`.
 * Returns -(HTTP status), with *head undefined; answer with it and close the connection:
 *   -400 malformed or ambiguous        -414 target over the limit   -417 unknown expectation
 *   -431 fields over the limit         -501 method of more than 32 bytes, or unknown
 *   -505 not HTTP/1.x                       transfer coding
 * Where several apply, the first in the bytes wins; what needs the whole head (missing Host,
 * lengths, codings) is judged at its end, 400 before 501 before 417.
 *
 * 414 and 431 for too many bytes come with the first byte that makes the head too long, complete or
 * not. Other faults of an incomplete head are found at once when it came in one piece, otherwise
 * at the latest when its size has doubled.
 */
SHOAL_API SHOAL_NODISCARD int shoal_http1_parse_head(const char *buf, size_t len, size_t scanned,
                                                     const struct shoal_http_limits *limits,
                                                     struct shoal_http1_head *head);

/*
 * The value of the first field called `name` (ASCII case ignored) at or after index `*from`, which
 * is set past it; NULL if there is none. `from` may be NULL: the first of all. Repeated calls with
 * the same `from`, 0 at first, visit all of that name. The result lives as long as head->fields.
 */
SHOAL_API const struct shoal_str *shoal_http1_head_field(const struct shoal_http1_head *head,
                                                         const char *name, uint32_t *from);

/* Does the comma-separated `list` hold `token` (ASCII case ignored)? For Connection and the like.
 */
SHOAL_API bool shoal_http_list_has(struct shoal_str list, const char *token);

/* May `name` be sent as a field name (a token)? May `value` be sent as a field value (no controls
 * but HTAB; no line end)? What fails these must never be written to a connection. */
SHOAL_API bool shoal_http_field_name_valid(struct shoal_str name);
SHOAL_API bool shoal_http_field_value_valid(struct shoal_str value);

/* "GET" and so on; "OTHER" for SHOAL_HTTP_OTHER. Static storage. */
SHOAL_API const char *shoal_http_method_name(enum shoal_http_method method);

SHOAL_END_DECLS

#endif
