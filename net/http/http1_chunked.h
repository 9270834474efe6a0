/*
 * Incremental decoder of the chunked transfer coding (RFC 9112 7.1): bytes go in as they come, cut
 * anywhere, and pieces of the body come out that point into them.
 *
 *  1. Nothing is copied or allocated, and every byte given is consumed: the caller never has to
 *     keep a tail. Only trailer fields, where somebody asks for them, are gathered in his buffer.
 *  2. The result depends on the bytes alone, never on how they were cut.
 *  3. Only CRLF ends a line. A chunk size has 1 to 16 hexadecimal digits, and the body as a whole
 *     at most INT64_MAX bytes. Nothing but an extension may stand between size and CRLF.
 *  4. Everything beside the body is bounded. Extensions: 4096 bytes over the whole body and one
 *     more for each 16 bytes of body, so that signed chunks of any number pass while one-byte
 *     chunks with long extensions do not. Trailers: 8192 bytes and 64 fields.
 *  5. What a body of any size may cost is the caller's to say: `body_bytes` is what came out so
 *     far, and `body_bytes + chunk_left` what the client has announced.
 *
 * Rejected: decoding in place by moving the data together (it copies every byte of a streamed
 * body); a fixed bound for extensions (it refuses long signed uploads).
 *
 * All functions here are pure: any thread may call them and they never yield.
 */
#ifndef SHOAL_NET_HTTP_HTTP1_CHUNKED_H
#define SHOAL_NET_HTTP_HTTP1_CHUNKED_H

#include <stddef.h>
#include <stdint.h>

#include "shoal/runtime/compiler.h"

#include "shoal/net/http/str.h"

SHOAL_BEGIN_DECLS

/*
 * Wants the trailer fields. It must live as long as the decoder. `field` is called from within
 * shoal_http1_chunked_decode once for each valid field line, in order, with strings that are valid
 * during the call only (value without outer OWS). It must not call the decoder. Trailer fields are
 * a stranger's afterthought: never merge them into the head, and never let them change framing,
 * routing or authentication (RFC 9110 6.5.1).
 */
struct shoal_http1_trailers {
    void (*field)(void *arg, struct shoal_str name, struct shoal_str value);
    void *arg;
    char *buf;         /* the longest field line (name and value) must fit, else -431 */
    uint32_t buf_size; /* bytes */
    uint32_t used;     /* private; the decoder sets it */
    uint32_t name_len; /* private */
};

/* The decoder's state. Readable: chunk_left and body_bytes. */
struct shoal_http1_chunked {
    uint64_t chunk_left; /* data bytes of the current chunk still to come */
    uint64_t body_bytes; /* data bytes handed out so far */
    uint64_t extension_bytes;
    struct shoal_http1_trailers *trailers;
    uint32_t trailer_bytes;
    uint16_t trailer_count;
    int16_t status; /* 0, or what decode returned when it ended */
    uint8_t step;
    uint8_t size_digits;
};
SHOAL_STATIC_ASSERT(sizeof(struct shoal_http1_chunked) <= 48, "one for each connection");

#define SHOAL_HTTP1_CHUNKED_MORE 0 /* all input is used up */
#define SHOAL_HTTP1_CHUNKED_DATA 1 /* *piece holds data; call again with the rest */
#define SHOAL_HTTP1_CHUNKED_END  2 /* the body and its trailers are over */

/* Starts a body. `trailers` is NULL when trailer fields are to be checked and dropped. */
SHOAL_API void shoal_http1_chunked_init(struct shoal_http1_chunked *state,
                                        struct shoal_http1_trailers *trailers);

/*
 * Decodes the next of the `len` bytes at `in`; *consumed says how many were used up, counting those
 * in *piece, which is empty unless DATA is returned and otherwise points into `in` (at most
 * UINT32_MAX bytes; never empty with DATA). Returns
 *   SHOAL_HTTP1_CHUNKED_MORE  *consumed is `len`: come back with more bytes
 *   SHOAL_HTTP1_CHUNKED_DATA  call again with what follows *consumed (an empty rest is fine)
 *   SHOAL_HTTP1_CHUNKED_END   what follows *consumed is the next request
 *   -400                      malformed; the connection cannot be used any further
 *   -431                      trailers over their limit; likewise
 * After END or an error every further call gives the same again and consumes nothing.
 */
SHOAL_API SHOAL_NODISCARD int shoal_http1_chunked_decode(struct shoal_http1_chunked *state,
                                                         const char *in, size_t len,
                                                         size_t *consumed, struct shoal_str *piece);

SHOAL_END_DECLS

#endif
