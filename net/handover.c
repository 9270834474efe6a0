/*
 * Handing over what a program holds: see handover.h.
 *
 * A stream receives all the time, so that its operation has to end first; what comes in that moment
 * is found afterwards, and then the stream stays. Between the two cores only the descriptor
 * travels; the answer says whose it is.
 */
#include "shoal/net/handover.h"

#include <errno.h>
#include <string.h>

#include <fcntl.h>
#include <sys/socket.h>

#include "shoal/runtime/check.h"
#include "shoal/runtime/errors.h"
#include "shoal/runtime/owner_impl.h"

#include "shoal/smp/submit.h"

#include "shoal/net/listen_impl.h"
#include "shoal/net/stream_impl.h"

struct parcel {
    shoal_connection_fn *serve;
    void *arg;
    int fd;
};

static int take_here(void *arg, union shoal_value *out)
{
    (void)out;
    const struct parcel *parcel = arg;
    struct shoal_net *net = shoal_net_self();
    int rc = -ENOMEM;
    if (net != NULL)
        rc = shoal_connection_start(parcel->fd, parcel->serve, parcel->arg);
    if (net != NULL && rc == 0)
        net->handover.taken++;
    else if (net != NULL)
        net->handover.refused++;
    return rc;
}

/* Shielded: a cancel comes before or after, so that the answer is never in doubt. */
static int send_parcel(unsigned core, const struct parcel *parcel)
{
    shoal_fiber_shield();
    int rc = shoal_await(shoal_submit_copy_to(core, take_here, parcel, sizeof(*parcel)), NULL);
    shoal_fiber_unshield();
    struct shoal_net *net = shoal_net_self();
    if (net != NULL && rc == 0)
        net->handover.handed++;
    else if (net != NULL)
        net->handover.kept++;
    if (rc < 0 && shoal_error_message()[0] == '\0')
        return shoal_fiber_explain(rc, "core %u cannot take the connection: %s", core,
                                   shoal_error_text(rc));
    return rc;
}

/* What both calls ask for. */
static int check_call(unsigned core, const char *what)
{
    const struct shoal_fiber *fiber = shoal_core_self->fiber;
    SHOAL_CHECK(fiber != NULL, "%s is handed over on a fiber", what);
    int code = shoal_fiber_cancel_code(fiber);
    if (code < 0)
        return shoal_fiber_explain(code, "the fiber was cancelled before the %s was handed over",
                                   what);
    if (core < shoal_core_count())
        return 0;
    return shoal_fiber_explain(SHOAL_ENOCORE, "core %u does not exist (allowed: 0 to %u)", core,
                               shoal_core_count() - 1);
}

/* ---- Streams ---- */

/* 0 at a safe point. */
static int check_safe(const struct shoal_stream *stream)
{
    if (stream->closing)
        return shoal_fiber_explain(SHOAL_ECLOSED, "the stream has been closed");
    if (stream->fd.fd < 0)
        return shoal_fiber_explain(SHOAL_ECLOSED, "the stream has been handed over already");
    if (stream->reader != NULL || stream->writer != NULL)
        return shoal_fiber_explain(-EBUSY, "a fiber waits at the stream");
    if (stream->in.bytes > 0)
        return shoal_fiber_explain(-ENOTEMPTY, "%zu bytes have been received and not been read",
                                   stream->in.bytes);
    if (shoal_stream_unsent(stream))
        return shoal_fiber_explain(-ENOTEMPTY, "%zu bytes have been written and not been sent",
                                   stream->out.bytes + stream->sending.bytes);
    int rc = stream->in_error != 0 ? stream->in_error : stream->out_error;
    return rc == 0 ? 0
                   : shoal_fiber_explain(rc, "the connection has ended: %s", shoal_error_text(rc));
}

/* Goes on receiving, as if nothing had been. */
static void receive_again(struct shoal_stream *stream)
{
    stream->paused = true;
    shoal_stream_resume(stream);
}

/* Ends the receiving. 0 with the descriptor off this core's backend, or why it stays. */
static int detach(struct shoal_stream *stream)
{
    struct shoal_core *core = shoal_core_self;
    stream->reader = core->fiber;
    stream->detaching = true;
    shoal_fiber_shield(); /* a moment, with nobody else in it: the kernel lets go at once */
    while (shoal_io_busy(&stream->recv)) {
        shoal_io_cancel(core, &stream->recv);
        shoal_fiber_park(core, core->fiber);
    }
    shoal_fiber_unshield();
    stream->reader = NULL;
    stream->detaching = false;
    int rc = check_safe(stream);
    if (rc < 0) {
        receive_again(stream);
        return rc;
    }
    core->io.ops->remove(core, &stream->fd);
    return 0;
}

/* The other core did not take it. */
static void attach_again(struct shoal_stream *stream)
{
    struct shoal_core *core = shoal_core_self;
    int rc = core->io.ops->add(core, &stream->fd);
    if (rc == 0) {
        receive_again(stream);
        return;
    }
    shoal_stream_fail_in(stream, rc);
    shoal_stream_fail_out(stream, rc);
}

int shoal_handover_stream(struct shoal_stream *stream, unsigned core, shoal_connection_fn *serve,
                          void *arg)
{
    SHOAL_CHECK_OWNER(stream->core, "handover", "stream %p", (void *)stream);
    int rc = check_call(core, "stream");
    if (rc == 0)
        rc = check_safe(stream);
    if (rc == 0)
        rc = detach(stream);
    if (rc < 0)
        return rc;
    const struct parcel parcel = {.serve = serve, .arg = arg, .fd = stream->fd.fd};
    rc = send_parcel(core, &parcel);
    if (rc < 0) {
        attach_again(stream);
        return rc;
    }
    stream->fd.fd = -1;
    shoal_stream_fail_in(stream, SHOAL_ECLOSED);
    shoal_stream_fail_out(stream, SHOAL_ECLOSED);
    return 0;
}

/* ---- Descriptors ---- */

static int int_option(int fd, int option, int *out)
{
    socklen_t len = sizeof(*out);
    return getsockopt(fd, SOL_SOCKET, option, out, &len) == 0 ? 0 : -errno;
}

static int check_socket(int fd)
{
    int type = 0, listens = 0;
    struct sockaddr_storage peer;
    socklen_t len = sizeof(peer);
    int rc = int_option(fd, SO_TYPE, &type);
    if (rc < 0)
        return shoal_fiber_explain(rc, "descriptor %d: %s", fd, shoal_error_text(rc));
    if (type != SOCK_STREAM)
        return shoal_fiber_explain(-EPROTOTYPE, "descriptor %d is not a stream socket", fd);
    if (int_option(fd, SO_ACCEPTCONN, &listens) == 0 && listens != 0)
        return shoal_fiber_explain(-EINVAL, "descriptor %d listens", fd);
    if (getpeername(fd, (struct sockaddr *)&peer, &len) != 0)
        return shoal_fiber_explain(-errno, "descriptor %d is not connected", fd);
    return 0;
}

int shoal_handover_fd(int fd, unsigned core, shoal_connection_fn *serve, void *arg)
{
    int rc = check_call(core, "descriptor");
    if (rc == 0)
        rc = check_socket(fd);
    if (rc < 0)
        return rc;
    int flags = fcntl(fd, F_GETFL);
    /* As the running backend wants it, see io_ops.accept_flags. */
    int wanted = (shoal_core_self->io.ops->accept_flags & SOCK_NONBLOCK) != 0 ? flags | O_NONBLOCK
                                                                              : flags & ~O_NONBLOCK;
    (void)fcntl(fd, F_SETFL, wanted);
    const struct parcel parcel = {.serve = serve, .arg = arg, .fd = fd};
    rc = send_parcel(core, &parcel);
    if (rc < 0)
        (void)fcntl(fd, F_SETFL, flags);
    return rc;
}

void shoal_handover_stats(struct shoal_handover_stats *out)
{
    const struct shoal_net *net = shoal_core_self->layers[SHOAL_LAYER_NET];
    *out = (struct shoal_handover_stats){0};
    if (net == NULL)
        return;
    *out = net->handover;
    out->open = shoal_load_open(&net->load);
}
