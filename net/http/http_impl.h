/*
 * The HTTP server inside.
 *
 *   server (core 0 made it; read-only once started)
 *     shard, one a core: connections, statistics, slabs, the Date
 *       connection: a stream, a timer, a phase; no fiber and no buffer while it waits
 *         request: while one is being handled; from the shard's slab
 *
 * A data path: accepted() -> input() -> connection_fiber() -> parse -> route -> handler ->
 * response.c -> flush -> drained().
 *
 * Phases of a connection, and what its deadline means in each:
 *
 *   IDLE     between requests; passed: closed in silence
 *   IN_HEAD  a head is awaited whole, since its first byte (or since the accept): 408
 *   HANDLER  a fiber runs the handler: no deadline; BODY while that waits for the body: 408
 *   SENDING  nothing left to do but to send the last answer
 *   LINGER   answered and half closed: reads and drops until the client closes, for a while, so
 *            that a reset does not overtake the answer
 *
 * In every phase output that makes no progress for the write time-out ends the connection.
 *
 * The one timer is lazy: a later deadline is only noted; the timer fires at the old one, looks, and
 * is armed again. A busy connection touches the wheel about once per time-out.
 */
#ifndef SHOAL_NET_HTTP_HTTP_IMPL_H
#define SHOAL_NET_HTTP_HTTP_IMPL_H

#include "shoal/runtime/core_impl.h"
#include "shoal/runtime/owner_impl.h"

#include "shoal/net/http/http1_chunked.h"
#include "shoal/net/http/router_impl.h"
#include "shoal/net/http/server.h"
#include "shoal/net/listen_impl.h"
#include "shoal/net/stream_impl.h"

#define SHOAL_HTTP_EXTRA_BYTES_MAX 4000u
#define SHOAL_HTTP_LINGER_NS       (2 * SHOAL_NS_PER_S)
#define SHOAL_HTTP_DRAIN_BYTES_MAX 65536u /* of an unread body, to keep the connection */

enum shoal_http_phase {
    SHOAL_HTTP_IDLE,
    SHOAL_HTTP_IN_HEAD,
    SHOAL_HTTP_HANDLER,
    SHOAL_HTTP_BODY,
    SHOAL_HTTP_SENDING,
    SHOAL_HTTP_LINGER,
};

struct shoal_http_shard {
    struct shoal_http_server *server;
    struct shoal_list connections;
    struct shoal_slab connection_slab;
    struct shoal_slab request_slab;
    struct shoal_listener *listener; /* told of closed connections; NULL once stopping */
    struct shoal_http_stats stats;
    bool stopping;
    uint64_t date_valid_until_ns;
    uint32_t common_len; /* of `common` */
    char common[96];     /* "\r\nServer: ...\r\nDate: ...\r\n" */
};

struct shoal_http_connection {
    struct shoal_stream stream;
    struct shoal_list node;
    struct shoal_timer timer;
    uint64_t deadline_ns;
    uint64_t sent_mark; /* stream.sent_bytes, as it was at sent_mark_ns */
    uint64_t sent_mark_ns;
    struct shoal_http_shard *shard;
    struct shoal_fiber *fiber; /* while requests are handled */
    uint32_t scanned;          /* bytes of an incomplete head that were seen already */
    uint32_t requests;
    int32_t in_kernel; /* bytes that the client has not taken, when output was last late; or -1 */
    uint8_t phase;
    bool close_after; /* no further request is read */
    bool linger;      /* the client may still be sending */
    bool aborted;     /* nothing more can be said to this client */
};

enum shoal_http_reply_state {
    SHOAL_HTTP_NOT_BEGUN,
    SHOAL_HTTP_BODY_FOLLOWS,
    SHOAL_HTTP_ENDED,
};

struct shoal_http_request {
    struct shoal_http_connection *connection;
    struct shoal_http1_head head; /* the parser's */
    struct shoal_http1_chunked chunked;

    /* From here to `params`: zeroed for each request. */
    struct shoal_block *head_block;  /* keeps the head's bytes */
    struct shoal_block *piece_block; /* keeps the last body piece */
    struct shoal_slice *whole_body;  /* of shoal_http_body_read_all */
    struct shoal_slice *decoded;     /* decoded parameters */
    char *extra;                     /* fields set by the handler */
    uint64_t body_left;              /* Content-Length: bytes still to come */
    uint64_t body_read;
    uint64_t reply_left;
    uint32_t extra_len;
    int32_t body_error;
    uint8_t reply_state;
    uint8_t param_count;
    bool body_done;
    bool continue_sent;
    bool chunked_reply;
    bool body_forbidden; /* HEAD, 204, 304 */

    struct {
        struct shoal_str name, value;
    } params[SHOAL_ROUTE_PARAMS_MAX];
    struct shoal_http_field fields[]; /* options.fields_max of them */
};

struct shoal_http_server {
    struct shoal_http_options options;
    struct shoal_http_limits limits;
    struct shoal_router router;
    struct shoal_listening *listening;
    struct shoal_http_shard **shards; /* by core; each belongs to its core */
    unsigned cores;
    uint32_t connections_max; /* a core */
    uint16_t core;            /* whose it is, in checked builds */
    bool hooked;              /* it stops with the program */
    bool route_missing; /* for want of memory: not to be served without, whoever looked or not */
};

static inline void shoal_http_check_mine(const struct shoal_http_request *request, const char *op)
{
    SHOAL_CHECK_OWNER(request->connection->stream.core, op, "HTTP request %p",
                      (const void *)request);
}

/* connection.c */
int shoal_http_accepted(struct shoal_listener *listener, int fd, void *server);
void shoal_http_connection_abort(struct shoal_http_connection *connection);
void shoal_http_connection_phase(struct shoal_http_connection *connection,
                                 enum shoal_http_phase phase, uint64_t deadline_ns);
/* Output waits: its progress is watched from now. */
void shoal_http_connection_watch_output(struct shoal_http_connection *connection);
/*
 * On stop: closes a connection that is between two requests, with nothing in the socket; one that
 * has not sent anything since its accept only if `fresh_too`.
 */
void shoal_http_connection_retire(struct shoal_http_connection *connection, bool fresh_too);

/* exchange.c: one request and its answer, on the connection's fiber. */
void shoal_http_exchange(struct shoal_http_connection *connection,
                         struct shoal_http_request *request);
void shoal_http_request_clear(struct shoal_http_request *request);   /* a fresh one */
void shoal_http_request_release(struct shoal_http_request *request); /* what it holds */
unsigned shoal_http_status_of_error(int code);

/* Drops the reference that `*place` holds, if any. */
static inline void shoal_http_block_unref(struct shoal_block **place)
{
    struct shoal_block *block = *place;
    *place = NULL;
    if (block != NULL && --block->refs == 0)
        block->release(block);
}

/* request.c: reads on until the body's end, if that is near; whether it is reached. */
bool shoal_http_body_skip(struct shoal_http_request *request);

/* response.c */
void shoal_http_reply_error(struct shoal_http_request *request, unsigned status, const char *text);
void shoal_http_shard_refresh_date(struct shoal_http_shard *shard, uint64_t now_ns);

static inline struct shoal_http_shard *shoal_http_shard_self(struct shoal_http_server *server)
{
    return server->shards[shoal_core_self->id];
}

#endif
