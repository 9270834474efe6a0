/*
 * An HTTP/1.1 server on every core.
 *
 *   static int hello(struct shoal_http_request *request, void *arg)
 *   {
 *       (void)arg;
 *       return shoal_http_reply_text(request, 200, "Hello, World!");
 *   }
 *   ...
 *   struct shoal_http_server *server = shoal_http_server_new(NULL);
 *   shoal_http_route(server, "GET", "/", hello, NULL);
 *   return shoal_http_serve(server);
 *
 * 1. A handler runs on a pooled fiber of the core that serves the connection: it may await.
 *    Requests of one connection are handled one after the other, in order; a connection that waits
 *    for its next request holds neither fiber nor buffer.
 * 2. Routes and options are fixed once the server has started, and read by all cores.
 * 3. Limits and time-outs are on by default, and answered: 431 (header), 414 (URI), 413 (body), 408
 *    (header or body too slow). Framing that could be read in two ways is 400 and close.
 * 4. A handler that returns a negative code without having replied gets the status that fits:
 *    400 (-EINVAL, SHOAL_EHTTP_SYNTAX), 403 (-EACCES, -EPERM), 404 (-ENOENT), 408, 413, 503
 *    (-ENOMEM, -ENOBUFS, -ECANCELED, SHOAL_ESTOPPING), 504 (-ETIMEDOUT), else 500.
 */
#ifndef SHOAL_NET_HTTP_SERVER_H
#define SHOAL_NET_HTTP_SERVER_H

#include <stdint.h>

#include "shoal/runtime/compiler.h"
#include "shoal/runtime/future.h"
#include "shoal/runtime/options.h"

#include "shoal/net/http/request.h"
#include "shoal/net/http/response.h"

SHOAL_BEGIN_DECLS

struct shoal_http_server;

struct shoal_http_options {
    const char *host; /* address, name, or unix:/path; kept by reference */
    uint64_t port;    /* 0: the kernel chooses */
    uint64_t head_bytes_max;
    uint64_t fields_max;
    uint64_t uri_bytes_max;
    uint64_t body_bytes_max;
    uint64_t header_timeout_ns; /* from a request's first byte (or the accept) to its head's end */
    uint64_t body_timeout_ns;   /* between two pieces of a body */
    uint64_t idle_timeout_ns;   /* between two requests */
    uint64_t write_timeout_ns;  /* without any byte of the answer being taken */
};

/* 127.0.0.1:8080, and limits fit for a server that faces strangers. */
SHOAL_API void shoal_http_options_init(struct shoal_http_options *options);

/* Fills `table` (SHOAL_HTTP_OPTION_COUNT entries) with command-line options for `options`. */
#define SHOAL_HTTP_OPTION_COUNT 8
SHOAL_API void shoal_http_options_table(struct shoal_http_options *options,
                                        struct shoal_option *table);

/*
 * Handles one request; `arg` is the route's. Returns 0 once it has replied, or a negative code. The
 * request and all its strings live until it returns.
 */
typedef int shoal_http_handler(struct shoal_http_request *request, void *arg);

/* The same, with its outcome as a future: the request lives until that settles. May not yield. */
typedef struct shoal_future *shoal_http_future_handler(struct shoal_http_request *request,
                                                       void *arg);

/* A server with a copy of `options` (NULL: the defaults). NULL when out of memory. */
SHOAL_API struct shoal_http_server *shoal_http_server_new(const struct shoal_http_options *options);

/* Stops it if it runs, and frees it. NULL is fine. On a fiber of core 0; yields if it runs. */
SHOAL_API void shoal_http_server_free(struct shoal_http_server *server);

/*
 * Adds a route. `pattern` is a path whose segments are literal, `:name` (one segment, decoded, see
 * shoal_http_param) or, as the last, `*` (all the rest, decoded). Literal segments win over
 * parameters, and those over `*`. `method` is a token such as "GET"; GET answers HEAD too. Before
 * the start. 0; -EINVAL for a pattern that is none; -EEXIST; -ENOMEM. `pattern` is copied.
 */
SHOAL_API int shoal_http_route(struct shoal_http_server *server, const char *method,
                               const char *pattern, shoal_http_handler *handler, void *arg);
SHOAL_API int shoal_http_route_future(struct shoal_http_server *server, const char *method,
                                      const char *pattern, shoal_http_future_handler *handler,
                                      void *arg);

/*
 * Listens on every core, and has the server stopped and freed when the program stops, if it has not
 * been freed before. 0, or SHOAL_EOPTION with the one line of a configuration error printed
 * (address, port), or -ENOMEM. On a fiber of core 0; yields.
 */
SHOAL_API int shoal_http_start(struct shoal_http_server *server);

/*
 * Stops: accepts no more, answers what has begun and what accepted connections still ask, at most
 * `timeout_ns`; then cancels handlers and closes. On a fiber of core 0; yields.
 */
SHOAL_API void shoal_http_stop(struct shoal_http_server *server, uint64_t timeout_ns);

/*
 * Starts, waits until the program is asked to stop, and returns; what `run` of a server returns.
 * The server is freed by the program's stop, or here if it does not start.
 */
SHOAL_API int shoal_http_serve(struct shoal_http_server *server);

/* What the calling core has done for `server`. */
struct shoal_http_stats {
    uint64_t requests;
    uint64_t accepted;    /* connections that it served, ever */
    uint64_t connections; /* open now */
};
SHOAL_API void shoal_http_stats(const struct shoal_http_server *server,
                                struct shoal_http_stats *out);

SHOAL_END_DECLS

#endif
