/*
 * A response: at once, or streamed.
 *
 * 1. Date, Server, Content-Length or Transfer-Encoding, and Connection are the server's own.
 * 2. HEAD is answered like GET; the body's bytes are left out by the server.
 * 3. Names and values are checked before anything is written: what could split a response is
 *    -EINVAL (SHOAL_EHTTP_FIELD) and never reaches the wire.
 * 4. Data is gathered and sent with the answers to other pipelined requests; what a handler has
 *    written goes out when it next waits.
 */
#ifndef SHOAL_NET_HTTP_RESPONSE_H
#define SHOAL_NET_HTTP_RESPONSE_H

#include <stddef.h>
#include <stdint.h>

#include "shoal/runtime/buffer.h"
#include "shoal/runtime/compiler.h"

SHOAL_BEGIN_DECLS

struct shoal_http_request;

#define SHOAL_HTTP_CHUNKED UINT64_MAX

/*
 * Adds a field to the response that follows. `name` and `value` are copied. 0; SHOAL_EHTTP_FIELD if
 * one of them is not valid or the name is the server's own; SHOAL_EHTTP_STATE once the response has
 * begun; -ENOBUFS beyond 4,000 bytes of fields; -ENOMEM.
 */
SHOAL_API int shoal_http_set_header(struct shoal_http_request *request, const char *name,
                                    const char *value);

/*
 * The whole response: `status` 200 to 999, `type` a Content-Type (NULL: none), `len` bytes of body,
 * copied. 0; SHOAL_EHTTP_STATE if one was begun; the connection's error. On a fiber or in a
 * continuation; yields only when the client reads too slowly, and never for less than 64 KiB.
 */
SHOAL_API int shoal_http_reply(struct shoal_http_request *request, unsigned status,
                               const char *type, const void *body, size_t len);

/* The same with a NUL-terminated text/plain body. */
SHOAL_API int shoal_http_reply_text(struct shoal_http_request *request, unsigned status,
                                    const char *text);

/*
 * Begins a response whose body follows in writes: `length` bytes in all, or SHOAL_HTTP_CHUNKED (to
 * HTTP/1.0 clients the end of the connection then ends the body). Codes as above.
 */
SHOAL_API int shoal_http_begin(struct shoal_http_request *request, unsigned status,
                               const char *type, uint64_t length);

/*
 * Writes a part of the body: a copy, or a slice that is taken over whatever the result. Waits while
 * the client reads too slowly. 0; SHOAL_EHTTP_STATE before begin, after end, or beyond the length;
 * the connection's error; -ECANCELED. On a fiber; yields.
 */
SHOAL_API int shoal_http_write(struct shoal_http_request *request, const void *data, size_t len);
SHOAL_API int shoal_http_write_slice(struct shoal_http_request *request, struct shoal_slice *slice);

/* Ends the body. 0; SHOAL_EHTTP_STATE when bytes of the promised length are missing. */
SHOAL_API int shoal_http_end(struct shoal_http_request *request);

/* The standard reason of `status`; "Unknown" if there is none. Static. */
SHOAL_API const char *shoal_http_reason(unsigned status);

SHOAL_END_DECLS

#endif
