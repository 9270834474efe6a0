/*
 * A request, as its handler sees it. All on the handler's core; strings live until the handler has
 * returned (or its future has settled) unless said otherwise.
 */
#ifndef SHOAL_NET_HTTP_REQUEST_H
#define SHOAL_NET_HTTP_REQUEST_H

#include <stdbool.h>
#include <stdint.h>

#include "shoal/runtime/compiler.h"

#include "shoal/net/http/http1_parser.h"
#include "shoal/net/http/str.h"

SHOAL_BEGIN_DECLS

struct shoal_http_request;

/* The parsed head: method, target, path, query, host, fields. */
SHOAL_API const struct shoal_http1_head *shoal_http_head(const struct shoal_http_request *request);

/* The value of the first field called `name` (case ignored); empty if there is none. */
SHOAL_API struct shoal_str shoal_http_header(const struct shoal_http_request *request,
                                             const char *name);

/* The decoded segment that matched `:name` of the route, or the rest that matched `*` ("*"). */
SHOAL_API struct shoal_str shoal_http_param(const struct shoal_http_request *request,
                                            const char *name);

/* Whether the request announces a body, and its length; UINT64_MAX when it is chunked. */
SHOAL_API uint64_t shoal_http_body_length(const struct shoal_http_request *request);

/*
 * Waits for the next piece of the body. 1 with *piece, which is valid until the next call; 0 at the
 * end of the body; or a negative code: SHOAL_EHTTP_BODY_TOO_LARGE (413), SHOAL_EHTTP_SYNTAX (400),
 * -ETIMEDOUT (408), SHOAL_EEOF or -errno when the client has gone, -ECANCELED. The first call sends
 * `100 Continue` if the client waits for it. On a fiber; yields.
 */
SHOAL_API int shoal_http_body_read(struct shoal_http_request *request, struct shoal_str *piece);

/*
 * Reads the whole body into one string of at most `bytes_max` (and 1 GiB). 0 with *body; codes as
 * above, -ENOMEM. The memory is the request's; asked again, it is the same string.
 */
SHOAL_API int shoal_http_body_read_all(struct shoal_http_request *request, uint32_t bytes_max,
                                       struct shoal_str *body);

SHOAL_END_DECLS

#endif
