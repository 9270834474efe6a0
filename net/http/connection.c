/*
 * Connections: input, the fiber that handles a batch of requests, time-outs, and the end.
 *
 * A connection takes a fiber from the pool when bytes arrive and gives it back when no complete
 * request is left. All answers of the batch go out in one write.
 */
#include <errno.h>
#include <string.h>

#include <linux/sockios.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "shoal/runtime/check.h"
#include "shoal/runtime/errors.h"
#include "shoal/runtime/log.h"

#include "shoal/net/http/http_impl.h"

static const char gathered[] = "http head"; /* the owner of blocks that gather() made */

static void settle(struct shoal_http_connection *connection);

/* ---- Time ---- */

static void arm_by(struct shoal_http_connection *connection, uint64_t deadline_ns)
{
    if (deadline_ns == SHOAL_NS_FOREVER)
        return;
    if (!shoal_timer_armed(&connection->timer) || deadline_ns < connection->timer.deadline_ns)
        shoal_timer_arm_at(&connection->timer, deadline_ns);
}

void shoal_http_connection_phase(struct shoal_http_connection *connection,
                                 enum shoal_http_phase phase, uint64_t deadline_ns)
{
    connection->phase = (uint8_t)phase;
    connection->deadline_ns = deadline_ns;
    arm_by(connection, deadline_ns);
}

static uint64_t write_timeout_ns(const struct shoal_http_connection *connection)
{
    return connection->shard->server->options.write_timeout_ns;
}

static void mark_progress(struct shoal_http_connection *connection, uint64_t now_ns)
{
    if (connection->stream.sent_bytes == connection->sent_mark && connection->sent_mark_ns != 0)
        return;
    connection->sent_mark = connection->stream.sent_bytes;
    connection->sent_mark_ns = now_ns;
    connection->in_kernel = -1;
}

void shoal_http_connection_watch_output(struct shoal_http_connection *connection)
{
    uint64_t now_ns = shoal_core_self->now_ns;
    mark_progress(connection, now_ns);
    arm_by(connection, shoal_deadline_ns(now_ns, write_timeout_ns(connection)));
}

/*
 * Whether the client has taken something since this was last asked. The kernel accepts more only
 * when a third of its buffer is free, which may be a megabyte: a slow client may need longer than
 * the time-out for that, and yet take some all the time.
 */
static bool took_some(struct shoal_http_connection *connection)
{
    int in_kernel = 0;
    (void)ioctl(connection->stream.fd.fd, SIOCOUTQ, &in_kernel);
    bool some = in_kernel != connection->in_kernel;
    connection->in_kernel = in_kernel;
    return some;
}

/* When output must have made progress; FOREVER if none waits, 0 if it is late. */
static uint64_t output_deadline_ns(struct shoal_http_connection *connection, uint64_t now_ns)
{
    if (!shoal_stream_unsent(&connection->stream)) {
        connection->sent_mark_ns = 0;
        return SHOAL_NS_FOREVER;
    }
    mark_progress(connection, now_ns);
    uint64_t by_ns = shoal_deadline_ns(connection->sent_mark_ns, write_timeout_ns(connection));
    if (by_ns > now_ns)
        return by_ns;
    if (!took_some(connection))
        return 0;
    connection->sent_mark_ns = now_ns;
    return shoal_deadline_ns(now_ns, write_timeout_ns(connection));
}

/* The phase's deadline has passed. */
static void phase_expired(struct shoal_http_connection *connection)
{
    struct shoal_stream *stream = &connection->stream;
    connection->deadline_ns = SHOAL_NS_FOREVER;
    switch (connection->phase) {
    case SHOAL_HTTP_BODY:
        shoal_stream_fail_in(stream, -ETIMEDOUT);
        break;
    case SHOAL_HTTP_IN_HEAD:
        /* Somebody who has sent nothing at all is told nothing. */
        if (stream->in.bytes > 0)
            shoal_http_reply_error(&(struct shoal_http_request){.connection = connection}, 408,
                                   NULL);
        connection->close_after = true;
        connection->linger = stream->in.bytes > 0;
        settle(connection);
        break;
    case SHOAL_HTTP_IDLE:
        connection->close_after = true;
        settle(connection);
        break;
    case SHOAL_HTTP_LINGER:
        shoal_stream_end(stream);
        break;
    default:
        break;
    }
}

static void timer_fire(struct shoal_timer *timer)
{
    struct shoal_http_connection *connection =
        SHOAL_CONTAINER_OF(timer, struct shoal_http_connection, timer);
    if (connection->stream.closing)
        return;
    uint64_t now_ns = shoal_core_self->now_ns;
    uint64_t output_ns = output_deadline_ns(connection, now_ns);
    if (output_ns == 0) {
        shoal_http_connection_abort(connection);
        return;
    }
    arm_by(connection, output_ns);
    if (connection->deadline_ns > now_ns)
        arm_by(connection, connection->deadline_ns);
    else
        phase_expired(connection);
}

/* ---- The end ---- */

void shoal_http_connection_abort(struct shoal_http_connection *connection)
{
    connection->aborted = true;
    connection->close_after = true;
    if (connection->fiber == NULL) {
        shoal_stream_end(&connection->stream);
        return;
    }
    shoal_stream_fail_in(&connection->stream, -ECONNRESET);
    shoal_stream_fail_out(&connection->stream, -ETIMEDOUT);
}

/* Everything is sent: closes now, or listens a little longer so that the answer is not lost. */
static void finish(struct shoal_http_connection *connection)
{
    struct shoal_stream *stream = &connection->stream;
    if (!connection->linger || stream->in_error != 0 || stream->out_error != 0) {
        shoal_stream_end(stream);
        return;
    }
    shoal_chain_clear(&stream->in);
    (void)shutdown(stream->fd.fd, SHUT_WR);
    shoal_http_connection_phase(connection, SHOAL_HTTP_LINGER,
                                shoal_core_self->now_ns + SHOAL_HTTP_LINGER_NS);
    shoal_stream_resume(stream);
}

static void on_drained(struct shoal_stream *stream)
{
    struct shoal_http_connection *connection =
        SHOAL_CONTAINER_OF(stream, struct shoal_http_connection, stream);
    if (connection->fiber != NULL)
        return;
    if (stream->out_error != 0)
        shoal_stream_end(stream);
    else if (connection->phase == SHOAL_HTTP_SENDING)
        finish(connection);
}

static void on_closed(struct shoal_stream *stream)
{
    struct shoal_http_connection *connection =
        SHOAL_CONTAINER_OF(stream, struct shoal_http_connection, stream);
    struct shoal_http_shard *shard = connection->shard;
    shoal_timer_cancel(&connection->timer);
    shoal_list_remove(&connection->node);
    shoal_slab_give(&shard->connection_slab, connection);
    shard->stats.connections--;
    shoal_load_count(&shoal_net_self()->load, shoal_core_self->now_ns, true);
    if (shard->listener != NULL)
        shoal_listener_closed(shard->listener);
}

/* No fiber runs any more: decides how the connection goes on. */
static void settle(struct shoal_http_connection *connection)
{
    struct shoal_stream *stream = &connection->stream;
    const struct shoal_http_options *options = &connection->shard->server->options;
    uint64_t now_ns = shoal_core_self->now_ns;
    if (SHOAL_UNLIKELY(connection->aborted || stream->out_error != 0)) {
        shoal_stream_end(stream);
        return;
    }
    shoal_stream_flush(stream);
    bool unsent = shoal_stream_unsent(stream);
    if (unsent)
        shoal_http_connection_watch_output(connection);
    if (SHOAL_UNLIKELY(connection->close_after || stream->in_error != 0)) {
        shoal_http_connection_phase(connection, SHOAL_HTTP_SENDING, SHOAL_NS_FOREVER);
        if (!unsent)
            finish(connection);
        return;
    }
    if (stream->in.bytes == 0)
        shoal_http_connection_phase(connection, SHOAL_HTTP_IDLE,
                                    shoal_deadline_ns(now_ns, options->idle_timeout_ns));
    else if (connection->phase != SHOAL_HTTP_IN_HEAD)
        shoal_http_connection_phase(connection, SHOAL_HTTP_IN_HEAD,
                                    shoal_deadline_ns(now_ns, options->header_timeout_ns));
    shoal_stream_resume(stream);
}

/* ---- Heads ---- */

static bool is_gathered(const struct shoal_slice *slice)
{
    return slice->block->owner == gathered;
}

static uint32_t space_behind(const struct shoal_slice *slice)
{
    const struct shoal_block *block = slice->block;
    return (uint32_t)(block->data + block->size - (slice->data + slice->len));
}

/*
 * Makes all of `in` one contiguous slice on the heap, so that a head can be parsed and the receive
 * buffers go back. Grows by doubling: a head that comes byte by byte is copied a few times at most.
 */
static bool gather(struct shoal_chain *in)
{
    struct shoal_slice *whole = in->head;
    size_t total = in->bytes;
    if (!is_gathered(whole) || whole->block->refs > 1 || space_behind(whole) < total - whole->len) {
        size_t size = total * 2 < 1024 ? 1024 : total * 2;
        whole = shoal_slice_new((uint32_t)size, gathered);
        if (whole == NULL)
            return false;
    } else {
        (void)shoal_chain_take(in);
    }
    struct shoal_slice *slice;
    while ((slice = shoal_chain_take(in)) != NULL) {
        memcpy(whole->data + whole->len, slice->data, slice->len);
        whole->len += slice->len;
        shoal_slice_free(slice);
    }
    shoal_chain_push(in, whole);
    return true;
}

/*
 * The next head of `in`, consumed from it: > 0; 0 when it is not complete; -(HTTP status).
 */
static int next_head(struct shoal_http_connection *connection, struct shoal_http_request *request)
{
    struct shoal_chain *in = &connection->stream.in;
    const struct shoal_http_limits *limits = &connection->shard->server->limits;
    if (in->bytes == 0)
        return 0;
    if (SHOAL_UNLIKELY(shoal_bufpool_short(&shoal_core_self->buffers)) && !is_gathered(in->head) &&
        !gather(in))
        return -503;
    for (;;) {
        struct shoal_slice *slice = in->head;
        int rc = shoal_http1_parse_head(slice->data, slice->len, connection->scanned, limits,
                                        &request->head);
        if (SHOAL_LIKELY(rc > 0)) {
            connection->scanned = 0;
            request->head_block = slice->block;
            slice->block->refs++;
            shoal_chain_consume(in, (size_t)rc);
            return rc;
        }
        if (rc < 0)
            return rc;
        connection->scanned = slice->len;
        bool more = in->slices > 1;
        if ((more || !is_gathered(slice)) && !gather(in))
            return -503;
        if (!more)
            return 0;
    }
}

/* ---- The fiber ---- */

static int connection_fiber(void *arg)
{
    struct shoal_http_connection *connection = arg;
    struct shoal_http_shard *shard = connection->shard;
    struct shoal_http_request *request = shoal_slab_take(&shard->request_slab);
    if (request == NULL) {
        shoal_http_connection_abort(connection);
        return 0;
    }
    request->connection = connection;
    request->head.fields = request->fields;
    while (!connection->close_after) {
        shoal_http_request_clear(request);
        int rc = next_head(connection, request);
        if (rc == 0)
            break;
        if (SHOAL_UNLIKELY(rc < 0)) {
            memset(&request->head, 0, sizeof(request->head)); /* undefined, says the parser */
            shoal_http_reply_error(request, (unsigned)-rc, NULL);
            connection->close_after = true;
            connection->linger = true;
            break;
        }
        shoal_http_exchange(connection, request);
        shoal_http_request_release(request);
    }
    shoal_slab_give(&shard->request_slab, request);
    return 0;
}

/* Whenever the handler gives way: what it has written so far goes out. At its end: settle. */
static void gave_way(struct shoal_fiber *fiber)
{
    struct shoal_http_connection *connection = fiber->arg;
    shoal_stream_flush(&connection->stream);
    if (shoal_stream_unsent(&connection->stream))
        shoal_http_connection_watch_output(connection);
}

static int connection_main(void *arg)
{
    struct shoal_http_connection *connection = arg;
    int rc = connection_fiber(connection);
    connection->fiber = NULL;
    settle(connection);
    return rc;
}

static void on_input(struct shoal_stream *stream)
{
    struct shoal_http_connection *connection =
        SHOAL_CONTAINER_OF(stream, struct shoal_http_connection, stream);
    struct shoal_core *core = shoal_core_self;
    if (connection->fiber != NULL)
        return; /* its handler will look when it wants to */
    if (SHOAL_UNLIKELY(connection->phase >= SHOAL_HTTP_SENDING)) {
        shoal_chain_clear(&stream->in);
        shoal_stream_resume(stream);
        if (stream->in_error != 0 && connection->phase == SHOAL_HTTP_LINGER)
            shoal_stream_end(stream);
        return;
    }
    if (stream->in.bytes == 0) {
        settle(connection); /* the end of the stream, or an error */
        return;
    }
    struct shoal_fiber *fiber = shoal_fiber_take(core, connection_main, connection, "http");
    if (fiber == NULL) {
        shoal_http_connection_abort(connection);
        return;
    }
    fiber->on_park = gave_way;
    connection->fiber = fiber;
    shoal_fiber_run(core, fiber);
}

/* ---- The beginning ---- */

static const struct shoal_stream_events connection_events = {
    .input = on_input, .drained = on_drained, .closed = on_closed};

int shoal_http_accepted(struct shoal_listener *listener, int fd, void *server)
{
    struct shoal_http_shard *shard = shoal_http_shard_self(server);
    if (!shard->stopping)
        shard->listener = listener;
    struct shoal_http_connection *connection = shoal_slab_take(&shard->connection_slab);
    int rc = -ENOMEM;
    if (connection != NULL) {
        memset(connection, 0, sizeof(*connection));
        rc = shoal_stream_init(&connection->stream, fd, &connection_events);
        if (rc < 0)
            shoal_slab_give(&shard->connection_slab, connection);
    }
    if (rc < 0)
        return rc;
    connection->shard = shard;
    shoal_list_push_back(&shard->connections, &connection->node);
    shoal_timer_init(&connection->timer, timer_fire);
    shoal_http_connection_phase(
        connection, SHOAL_HTTP_IN_HEAD,
        shoal_deadline_ns(shoal_core_self->now_ns, shard->server->options.header_timeout_ns));
    shard->stats.accepted++;
    shard->stats.connections++;
    shoal_load_count(&shoal_net_self()->load, shoal_core_self->now_ns, false);
    return 0;
}

void shoal_http_connection_retire(struct shoal_http_connection *connection, bool fresh_too)
{
    char byte;
    bool fresh = connection->phase == SHOAL_HTTP_IN_HEAD && connection->stream.in.bytes == 0;
    if (connection->fiber != NULL ||
        (connection->phase != SHOAL_HTTP_IDLE && !(fresh && fresh_too)))
        return;
    if (recv(connection->stream.fd.fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) > 0)
        return; /* a request is under way: it is answered, and then the connection closes */
    connection->close_after = true;
    settle(connection);
}
