/*
 * Streams: see stream.h for the contract, stream_impl.h for the flow.
 */
#include "shoal/net/stream.h"

#include <errno.h>
#include <string.h>

#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/uio.h>
#include <unistd.h>

#include "shoal/runtime/buffer_impl.h"
#include "shoal/runtime/check.h"
#include "shoal/runtime/errors.h"

#include "shoal/net/address.h"
#include "shoal/net/stream_impl.h"

struct out_block {
    struct shoal_block block;
    struct shoal_slice slice;
    char bytes[SHOAL_STREAM_BLOCK - sizeof(struct shoal_block) - sizeof(struct shoal_slice)];
};
SHOAL_STATIC_ASSERT(sizeof(struct out_block) == SHOAL_STREAM_BLOCK, "no slack");

struct shoal_sendvec {
    struct msghdr msg;
    struct iovec iov[SHOAL_STREAM_IOV_MAX];
};

/* ---- The core's net state ---- */

static void net_end(struct shoal_core *core)
{
    struct shoal_net *net = core->layers[SHOAL_LAYER_NET];
    shoal_slab_deinit(&net->blocks);
    shoal_slab_deinit(&net->vectors);
    shoal_slab_deinit(&net->streams);
    shoal_slab_deinit(&net->handings);
    shoal_mem_free_aligned(net, sizeof(*net), SHOAL_CACHE_LINE);
    core->layers[SHOAL_LAYER_NET] = NULL;
}

struct shoal_net *shoal_net_self(void)
{
    struct shoal_core *core = shoal_core_self;
    struct shoal_net *net = core->layers[SHOAL_LAYER_NET];
    if (SHOAL_LIKELY(net != NULL))
        return net;
    net = shoal_mem_alloc_aligned(sizeof(*net), SHOAL_CACHE_LINE);
    if (net == NULL)
        return NULL;
    memset(net, 0, sizeof(*net));
    net->load.cpu_clock = shoal_load_cpu_clock();
    shoal_slab_init(&net->handings, "handover", SHOAL_NET_HANDING_BYTES, 16);
    shoal_slab_init(&net->blocks, "output block", sizeof(struct out_block), 64);
    shoal_slab_init(&net->vectors, "send vector", sizeof(struct shoal_sendvec), 64);
    shoal_slab_init(&net->streams, "stream", sizeof(struct shoal_stream), 64);
    core->layers[SHOAL_LAYER_NET] = net;
    core->layer_end[SHOAL_LAYER_NET] = net_end;
    return net;
}

/* ---- Receiving ---- */

static void queue_input(struct shoal_stream *stream)
{
    if (stream->input_queued)
        return;
    stream->input_queued = true;
    shoal_core_post(shoal_core_self, &stream->input_task);
}

static void go_on_closing(struct shoal_stream *stream);

static void run_input(struct shoal_task *task)
{
    struct shoal_stream *stream = SHOAL_CONTAINER_OF(task, struct shoal_stream, input_task);
    stream->input_queued = false;
    if (stream->closing) {
        go_on_closing(stream);
        return;
    }
    if (stream->reader != NULL)
        shoal_fiber_make_ready(shoal_core_self, stream->reader);
    else if (stream->on->input != NULL)
        stream->on->input(stream);
}

/* Where the core's buffers run short, one slice a stream is enough: others want to receive too. */
static bool holds_enough(struct shoal_core *core, const struct shoal_stream *stream)
{
    return stream->in.slices >= SHOAL_STREAM_HELD_MAX ||
           (stream->in.slices > 1 && shoal_bufpool_short(&core->buffers));
}

static void recv_shot(struct shoal_io_op *op, int result, struct shoal_slice *slice)
{
    (void)result;
    struct shoal_stream *stream = SHOAL_CONTAINER_OF(op, struct shoal_stream, recv);
    if (SHOAL_UNLIKELY(stream->closing)) {
        shoal_slice_free(slice);
        return;
    }
    struct shoal_core *core = shoal_core_self;
    shoal_chain_push(&stream->in, slice);
    if (SHOAL_UNLIKELY(holds_enough(core, stream)) && !stream->paused) {
        stream->paused = true;
        shoal_io_cancel(core, op);
    }
    /* Where this is a task already, the handler follows the read while all is in the cache. */
    bool at_once = core->io.in_task && !stream->input_queued;
    core->io.in_task = false;
    if (at_once)
        run_input(&stream->input_task);
    else
        queue_input(stream);
}

static void recv_done(struct shoal_io_op *op)
{
    struct shoal_stream *stream = SHOAL_CONTAINER_OF(op, struct shoal_stream, recv);
    if (stream->closing) {
        go_on_closing(stream);
        return;
    }
    if (SHOAL_UNLIKELY(stream->detaching)) {
        if (op->result != -ECANCELED)
            stream->in_error = op->result == 0 ? SHOAL_EEOF : op->result;
        shoal_fiber_make_ready(shoal_core_self, stream->reader);
        return;
    }
    if (op->result == -ECANCELED && stream->paused) {
        shoal_stream_resume(stream); /* `in` may have been taken meanwhile */
        return;
    }
    stream->in_error = op->result == 0 ? SHOAL_EEOF : op->result;
    queue_input(stream);
}

static const struct shoal_io_handler recv_handler = {.done = recv_done, .shot = recv_shot};

void shoal_stream_resume(struct shoal_stream *stream)
{
    if (!stream->paused || stream->in.slices >= SHOAL_STREAM_HELD_MAX / 2 ||
        shoal_io_busy(&stream->recv) || stream->in_error != 0 || stream->closing)
        return;
    stream->paused = false;
    shoal_io_submit(shoal_core_self, &stream->recv);
}

/* ---- Sending ---- */

static void submit_send(struct shoal_stream *stream)
{
    struct shoal_core *core = shoal_core_self;
    const struct shoal_slice *slice = stream->sending.head;
    struct shoal_io_op *op = &stream->send;
    if (stream->sending.slices > 1 && stream->vector == NULL)
        stream->vector = shoal_slab_take(&shoal_net_self()->vectors);
    if (stream->sending.slices == 1 || stream->vector == NULL) {
        op->kind = SHOAL_IO_SEND;
        op->arg.send.data = slice->data;
        op->arg.send.len = slice->len;
    } else {
        struct shoal_sendvec *vector = stream->vector;
        size_t n = 0;
        for (; slice != NULL && n < SHOAL_STREAM_IOV_MAX; slice = slice->next)
            vector->iov[n++] = (struct iovec){.iov_base = slice->data, .iov_len = slice->len};
        vector->msg = (struct msghdr){.msg_iov = vector->iov, .msg_iovlen = n};
        op->kind = SHOAL_IO_SENDMSG;
        op->arg.msg = &vector->msg;
    }
    shoal_io_submit(core, op);
}

static void free_vector(struct shoal_stream *stream)
{
    if (stream->vector == NULL)
        return;
    shoal_slab_give(&shoal_net_self()->vectors, stream->vector);
    stream->vector = NULL;
}

/*
 * Nearly always the socket has room. Where sending is a system call anyway (epoll), a plain one
 * says so at once, and saves the operation, its completion, and a second visit to a connection that
 * has gone cold. On io_uring a queued send is cheaper: many go out with one enter. Whether all is
 * sent.
 */
static bool send_at_once(struct shoal_stream *stream)
{
    const struct shoal_slice *slice = stream->out.head;
    if (stream->out.slices > 1 || !shoal_core_self->io.ops->plain_send)
        return false;
    ssize_t n = send(stream->fd.fd, slice->data, slice->len, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (n <= 0)
        return false; /* a queued send waits for room, or reports the error */
    stream->sent_bytes += (uint64_t)n;
    shoal_chain_consume(&stream->out, (size_t)n);
    return stream->out.bytes == 0;
}

static void check_mine(const struct shoal_stream *stream, const char *what)
{
    SHOAL_CHECK_OWNER(stream->core, what, "stream %p", (const void *)stream);
}

void shoal_stream_flush(struct shoal_stream *stream)
{
    check_mine(stream, "flush");
    if (stream->out.bytes == 0 || stream->sending.bytes > 0 || stream->closing)
        return;
    if (stream->out_error != 0) {
        shoal_chain_clear(&stream->out);
        return;
    }
    if (send_at_once(stream))
        return;
    stream->sending = stream->out;
    shoal_chain_init(&stream->out);
    submit_send(stream);
}

static void send_done(struct shoal_io_op *op)
{
    struct shoal_stream *stream = SHOAL_CONTAINER_OF(op, struct shoal_stream, send);
    if (SHOAL_UNLIKELY(op->result < 0)) {
        if (stream->out_error == 0)
            stream->out_error = op->result;
        shoal_chain_clear(&stream->sending);
        shoal_chain_clear(&stream->out);
    } else {
        stream->sent_bytes += (uint64_t)op->result;
        shoal_chain_consume(&stream->sending, (size_t)op->result);
        if (stream->sending.bytes > 0 && !stream->closing && stream->out_error == 0) {
            submit_send(stream);
            return;
        }
        shoal_chain_clear(&stream->sending);
    }
    free_vector(stream);
    if (stream->closing) {
        go_on_closing(stream);
        return;
    }
    shoal_stream_flush(stream);
    if (stream->writer != NULL)
        shoal_fiber_make_ready(shoal_core_self, stream->writer);
    if (!shoal_stream_unsent(stream) && stream->on->drained != NULL)
        stream->on->drained(stream);
}

static const struct shoal_io_handler send_handler = {.done = send_done};

static void block_release(struct shoal_block *block)
{
    shoal_slab_give(&shoal_net_self()->blocks, SHOAL_CONTAINER_OF(block, struct out_block, block));
}

/* A fresh block at the end of `out`. */
static bool add_block(struct shoal_stream *stream)
{
    struct out_block *out = shoal_slab_take(&shoal_net_self()->blocks);
    if (out == NULL)
        return false;
    out->block = (struct shoal_block){.data = out->bytes,
                                      .release = block_release,
                                      .owner = "stream output",
                                      .size = sizeof(out->bytes),
                                      .refs = 1};
    out->slice = (struct shoal_slice){.block = &out->block, .data = out->bytes, .embedded = true};
    SHOAL_NOTE_OWNER(out->slice.core);
    shoal_chain_push(&stream->out, &out->slice);
    return true;
}

/* The space behind the last slice of `out`, if that is a block of ours. */
static uint32_t tail_space(const struct shoal_stream *stream)
{
    const struct shoal_slice *tail = stream->out.tail;
    if (tail == NULL || tail->block->release != block_release)
        return 0;
    return (uint32_t)(tail->block->data + tail->block->size - (tail->data + tail->len));
}

char *shoal_stream_reserve(struct shoal_stream *stream, uint32_t bytes)
{
    SHOAL_DCHECK(bytes <= SHOAL_STREAM_BLOCK / 2, "a reserve of %u bytes", bytes);
    if (SHOAL_UNLIKELY(tail_space(stream) < bytes) && !add_block(stream))
        return NULL;
    return stream->out.tail->data + stream->out.tail->len;
}

void shoal_stream_commit(struct shoal_stream *stream, uint32_t bytes)
{
    stream->out.tail->len += bytes;
    stream->out.bytes += bytes;
}

int shoal_stream_append(struct shoal_stream *stream, const void *data, size_t len)
{
    const char *from = data;
    while (len > 0) {
        uint32_t space = tail_space(stream);
        if (space == 0) {
            if (!add_block(stream))
                return -ENOMEM;
            space = tail_space(stream);
        }
        uint32_t n = len < space ? (uint32_t)len : space;
        memcpy(stream->out.tail->data + stream->out.tail->len, from, n);
        shoal_stream_commit(stream, n);
        from += n;
        len -= n;
    }
    return 0;
}

int shoal_stream_append_slice(struct shoal_stream *stream, struct shoal_slice *slice)
{
    shoal_slice_check_mine(slice, "write");
    if (stream->out_error != 0 || slice->len == 0) {
        shoal_slice_free(slice); /* an empty one would be sent for ever */
        return stream->out_error;
    }
    shoal_chain_push(&stream->out, slice);
    return 0;
}

/* ---- Waiting ---- */

static void cancel_stream_wait(struct shoal_fiber *fiber)
{
    shoal_fiber_make_ready(shoal_core_self, fiber);
}

/* Parks the running fiber as the stream's reader or writer. */
static void park_at(struct shoal_core *core, struct shoal_fiber **place, const char *what)
{
    struct shoal_fiber *fiber = core->fiber;
    SHOAL_CHECK(*place == NULL, "two fibers use one side of a stream");
    *place = fiber;
    shoal_fiber_wait_begin(fiber, what, cancel_stream_wait, NULL);
    shoal_fiber_park(core, fiber);
    shoal_fiber_wait_end(fiber);
    *place = NULL;
}

int shoal_stream_wait_in(struct shoal_stream *stream)
{
    struct shoal_core *core = shoal_core_self;
    while (stream->in.bytes == 0) {
        if (stream->in_error != 0)
            return stream->in_error;
        if (shoal_fiber_cancelled_now(core->fiber))
            return core->fiber->cancel_code;
        shoal_stream_flush(stream);
        shoal_stream_resume(stream);
        park_at(core, &stream->reader, "stream input");
    }
    return 0;
}

int shoal_stream_wait_out(struct shoal_stream *stream, size_t bytes)
{
    struct shoal_core *core = shoal_core_self;
    shoal_stream_flush(stream);
    while (stream->out_error == 0 && stream->out.bytes + stream->sending.bytes > bytes) {
        if (shoal_fiber_cancelled_now(core->fiber))
            return core->fiber->cancel_code;
        park_at(core, &stream->writer, "stream output");
    }
    return stream->out_error;
}

void shoal_stream_fail_out(struct shoal_stream *stream, int code)
{
    if (stream->out_error == 0)
        stream->out_error = code;
    shoal_io_cancel(shoal_core_self, &stream->send);
    if (stream->writer != NULL)
        shoal_fiber_make_ready(shoal_core_self, stream->writer);
}

void shoal_stream_fail_in(struct shoal_stream *stream, int code)
{
    if (stream->in_error == 0)
        stream->in_error = code;
    if (stream->reader != NULL)
        shoal_fiber_make_ready(shoal_core_self, stream->reader);
}

/* ---- Life ---- */

int shoal_stream_init(struct shoal_stream *stream, int fd, const struct shoal_stream_events *on)
{
    if (shoal_net_self() == NULL)
        return -ENOMEM;
    memset(stream, 0, sizeof(*stream));
    struct shoal_core *core = shoal_core_self;
    stream->fd.fd = fd;
    stream->core = (uint16_t)core->id;
    int rc = core->io.ops->add(core, &stream->fd);
    if (rc < 0)
        return rc;
    stream->on = on;
    stream->input_task.run = run_input;
    stream->recv.kind = SHOAL_IO_RECV;
    stream->recv.on = &recv_handler;
    stream->recv.fd = &stream->fd;
    stream->send.on = &send_handler;
    stream->send.fd = &stream->fd;
    shoal_io_submit(core, &stream->recv);
    return 0;
}

void shoal_stream_end(struct shoal_stream *stream)
{
    struct shoal_core *core = shoal_core_self;
    if (stream->closing)
        return;
    SHOAL_CHECK(stream->reader == NULL && stream->writer == NULL,
                "a stream is closed while a fiber waits at it");
    stream->closing = true;
    shoal_io_cancel(core, &stream->recv);
    shoal_io_cancel(core, &stream->send);
    queue_input(stream);
}

/* The last of the input task and the two operations ends the stream. */
static void go_on_closing(struct shoal_stream *stream)
{
    struct shoal_core *core = shoal_core_self;
    if (stream->input_queued || shoal_io_busy(&stream->recv) || shoal_io_busy(&stream->send))
        return;
    shoal_chain_clear(&stream->in);
    shoal_chain_clear(&stream->out);
    shoal_chain_clear(&stream->sending);
    free_vector(stream);
    if (stream->fd.fd >= 0) { /* not handed over */
        core->io.ops->remove(core, &stream->fd);
        close(stream->fd.fd);
    }
    stream->on->closed(stream);
}

/* ---- The public calls ---- */

static void heap_closed(struct shoal_stream *stream)
{
    shoal_slab_give(&shoal_net_self()->streams, stream);
}

static const struct shoal_stream_events plain_events = {.closed = heap_closed};

int shoal_stream_adopt(struct shoal_stream **out, int fd)
{
    struct shoal_net *net = shoal_net_self();
    struct shoal_stream *stream = net != NULL ? shoal_slab_take(&net->streams) : NULL;
    int rc = stream != NULL ? shoal_stream_init(stream, fd, &plain_events) : -ENOMEM;
    if (rc < 0) {
        if (stream != NULL)
            shoal_slab_give(&net->streams, stream);
        return rc;
    }
    *out = stream;
    return 0;
}

struct connect_timer {
    struct shoal_timer timer;
    struct shoal_io_op *op;
    bool expired;
};

static void connect_expired(struct shoal_timer *timer)
{
    struct connect_timer *wait = SHOAL_CONTAINER_OF(timer, struct connect_timer, timer);
    wait->expired = true;
    shoal_io_cancel(shoal_core_self, wait->op);
}

static int connect_fd(int socket_fd, const struct shoal_address *address, uint64_t timeout_ns)
{
    struct shoal_core *core = shoal_core_self;
    struct shoal_io_fd fd = {.fd = socket_fd};
    int rc = core->io.ops->add(core, &fd);
    if (rc < 0)
        return rc;
    struct shoal_io_op op = {.kind = SHOAL_IO_CONNECT, .fd = &fd};
    op.arg.connect.address = (const struct sockaddr *)&address->storage;
    op.arg.connect.address_len = address->len;
    struct connect_timer wait = {.op = &op};
    shoal_timer_init(&wait.timer, connect_expired);
    if (timeout_ns != SHOAL_NS_FOREVER)
        shoal_timer_arm(&wait.timer, timeout_ns);
    rc = shoal_io_run(core, &op);
    shoal_timer_cancel(&wait.timer);
    core->io.ops->remove(core, &fd);
    return rc == -ECANCELED && wait.expired ? -ETIMEDOUT : rc;
}

int shoal_stream_connect(struct shoal_stream **out, const struct shoal_address *address,
                         uint64_t timeout_ns)
{
    const struct shoal_core *core = shoal_core_self;
    int family = address->storage.ss_family;
    int fd = socket(family, SOCK_STREAM | core->io.ops->accept_flags, 0);
    if (fd < 0)
        return -errno;
    const int one = 1;
    if (family != AF_UNIX)
        (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    int rc = connect_fd(fd, address, timeout_ns);
    if (rc == 0)
        rc = shoal_stream_adopt(out, fd);
    if (rc < 0)
        close(fd);
    return rc;
}

int shoal_stream_read(struct shoal_stream *stream, struct shoal_slice **out)
{
    check_mine(stream, "read");
    int rc = shoal_stream_wait_in(stream);
    if (rc < 0)
        return rc;
    *out = shoal_chain_take(&stream->in);
    shoal_stream_resume(stream);
    return 0;
}

static int after_append(struct shoal_stream *stream, int rc)
{
    if (rc < 0) {
        shoal_stream_fail_out(stream, rc); /* what follows a hole must not be sent */
        return rc;
    }
    if (stream->out.bytes + stream->sending.bytes <= SHOAL_STREAM_OUT_HIGH)
        return stream->out_error;
    return shoal_stream_wait_out(stream, SHOAL_STREAM_OUT_HIGH / 2);
}

int shoal_stream_write(struct shoal_stream *stream, const void *data, size_t len)
{
    check_mine(stream, "write");
    const char *from = data;
    while (len > 0) {
        size_t n = len < SHOAL_STREAM_OUT_HIGH ? len : SHOAL_STREAM_OUT_HIGH;
        int rc = stream->out_error != 0
                     ? stream->out_error
                     : after_append(stream, shoal_stream_append(stream, from, n));
        if (rc < 0)
            return rc;
        from += n;
        len -= n;
    }
    return 0;
}

int shoal_stream_write_slice(struct shoal_stream *stream, struct shoal_slice *slice)
{
    check_mine(stream, "write");
    return after_append(stream, shoal_stream_append_slice(stream, slice));
}

int shoal_stream_drain(struct shoal_stream *stream)
{
    check_mine(stream, "drain");
    return shoal_stream_wait_out(stream, 0);
}

int shoal_stream_shutdown(struct shoal_stream *stream)
{
    check_mine(stream, "shutdown");
    int rc = shoal_stream_drain(stream);
    if (rc < 0)
        return rc;
    return shutdown(stream->fd.fd, SHUT_WR) == 0 ? 0 : -errno;
}

void shoal_stream_close(struct shoal_stream *stream)
{
    if (stream == NULL)
        return;
    check_mine(stream, "close");
    shoal_stream_end(stream);
}
