/*
 * Listening on every core: see listen.h.
 */
#include "shoal/net/listen.h"

#include <errno.h>
#include <string.h>

#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "shoal/runtime/check.h"
#include "shoal/runtime/errors.h"
#include "shoal/runtime/log.h"

#include "shoal/smp/app.h"
#include "shoal/smp/submit.h"

#include "shoal/net/listen_impl.h"
#include "shoal/net/stream_impl.h"

#define BACKLOG           4096 /* the kernel caps it at net.core.somaxconn */
#define IN_USE_ATTEMPTS   10
#define IN_USE_WAIT_NS    (20 * SHOAL_NS_PER_MS)
#define DRAIN_AT_ONCE     64
#define RETRY_NS          (50 * SHOAL_NS_PER_MS)
#define WARNING_PERIOD_NS SHOAL_NS_PER_S
#define UNLIMITED         SHOAL_LISTEN_UNLIMITED
#define CAREFUL_ROOM      SHOAL_LISTEN_CAREFUL_ROOM

/* ---- One core's listener ---- */

static void arm(struct shoal_listener *listener)
{
    if (shoal_io_busy(&listener->accept) || listener->paused || listener->closing)
        return;
    shoal_timer_cancel(&listener->retry);
    listener->accept.careful = listener->open_max - listener->open <= CAREFUL_ROOM;
    shoal_io_submit(shoal_core_self, &listener->accept);
}

static void retry_fire(struct shoal_timer *timer)
{
    arm(SHOAL_CONTAINER_OF(timer, struct shoal_listener, retry));
}

void shoal_listener_take_room(struct shoal_listener *listener)
{
    struct shoal_io_op *op = &listener->accept;
    listener->open += listener->open_max != UNLIMITED; /* then nobody reports them closed */
    uint32_t room = listener->open_max - listener->open;
    listener->paused = room == 0;
    if (room == 0 || (room <= CAREFUL_ROOM && !op->careful))
        shoal_io_cancel(shoal_core_self, op); /* armed again, one at a time */
}

void shoal_listener_serve(struct shoal_listener *listener, int fd)
{
    int rc = listener->listening->accepted(listener, fd, listener->listening->arg);
    if (SHOAL_LIKELY(rc == 0))
        return;
    close(fd);
    shoal_listener_give_room(listener);
}

static void accept_shot(struct shoal_io_op *op, int fd, struct shoal_slice *slice)
{
    (void)slice;
    struct shoal_listener *listener = SHOAL_CONTAINER_OF(op, struct shoal_listener, accept);
    if (listener->open >= listener->open_max) {
        close(fd); /* came in one batch with those that filled the room */
        return;
    }
    shoal_listener_take_room(listener);
    if (listener->balancer == NULL || !shoal_listener_hand_over(listener, fd))
        shoal_listener_serve(listener, fd);
}

static void accept_done(struct shoal_io_op *op)
{
    struct shoal_listener *listener = SHOAL_CONTAINER_OF(op, struct shoal_listener, accept);
    if (listener->closing) {
        if (listener->stopper != NULL)
            shoal_fiber_make_ready(shoal_core_self, listener->stopper);
        return;
    }
    if (op->result == -ECANCELED) {
        arm(listener); /* paused, and perhaps resumed meanwhile */
        return;
    }
    uint64_t now_ns = shoal_coarse_now_ns();
    if (now_ns - listener->last_warning_ns >= WARNING_PERIOD_NS) {
        listener->last_warning_ns = now_ns;
        SHOAL_WARN("accept: %s; trying again until it works", shoal_error_text(op->result));
    }
    shoal_timer_arm(&listener->retry, RETRY_NS);
}

static const struct shoal_io_handler accept_handler = {.done = accept_done, .shot = accept_shot};

void shoal_listener_closed(struct shoal_listener *listener)
{
    listener->open--;
    if (SHOAL_LIKELY(!listener->paused && !shoal_timer_armed(&listener->retry)))
        return;
    listener->paused = false;
    arm(listener);
}

void shoal_listener_give_room(struct shoal_listener *listener)
{
    if (listener->open_max != UNLIMITED)
        shoal_listener_closed(listener);
}

/* Tells the others how much this core has to do, and gets to know it of them. 0 or -ENOMEM. */
static int start_balancing(struct shoal_listener *listener)
{
    struct shoal_listening *listening = listener->listening;
    struct shoal_core *core = shoal_core_self;
    struct shoal_net *net = shoal_net_self();
    if (net == NULL)
        return -ENOMEM;
    listener->balancer =
        shoal_balancer_new(listening->loads, listening->cores, !core->config.poll_mode);
    if (listener->balancer == NULL)
        return -ENOMEM;
    /* release: pairs with the acquire load in net/balance.c:load_of(). */
    atomic_store_explicit(&listening->loads[core->id], &net->load, memory_order_release);
    return 0;
}

static void stop_balancing(struct shoal_listener *listener)
{
    struct shoal_listening *listening = listener->listening;
    if (listener->balancer == NULL)
        return;
    /* relaxed: the line itself stays; nobody gains anything by seeing this at once. */
    atomic_store_explicit(&listening->loads[shoal_core_self->id], NULL, memory_order_relaxed);
    shoal_balancer_free(listener->balancer);
    listener->balancer = NULL;
}

static int start_here(void *arg, union shoal_value *out)
{
    (void)out;
    struct shoal_listening *listening = arg;
    struct shoal_core *core = shoal_core_self;
    struct shoal_listener *listener = shoal_mem_alloc_zeroed(sizeof(*listener));
    if (listener == NULL)
        return -ENOMEM;
    listener->listening = listening;
    listener->fd.fd = listening->fds[core->id];
    int rc = listening->loads != NULL ? start_balancing(listener) : 0;
    if (rc == 0)
        rc = core->io.ops->add(core, &listener->fd);
    if (rc < 0) {
        stop_balancing(listener);
        shoal_mem_free(listener, sizeof(*listener));
        return rc;
    }
    listening->fds[core->id] = -1;
    listening->listeners[core->id] = listener;
    listener->accept.kind = SHOAL_IO_ACCEPT;
    listener->accept.on = &accept_handler;
    listener->accept.fd = &listener->fd;
    listener->open_max = listening->open_max;
    shoal_timer_init(&listener->retry, retry_fire);
    arm(listener);
    return 0;
}

/* Beyond the limit too, which nothing will be accepted under any more. */
static void serve_last(const struct shoal_listener *listener, int fd)
{
    struct shoal_listening *listening = listener->listening;
    if (listening->accepted(listening->listeners[shoal_core_self->id], fd, listening->arg) < 0)
        close(fd);
}

/* Takes what has been established already, so that nobody who got through is reset. */
static void drain_queue(struct shoal_listener *listener)
{
    int fd = listener->fd.fd;
    (void)fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
    /* Bounded: clients that keep coming do not hold the stop up. */
    for (int i = 1; i <= BACKLOG; i++) {
        int accepted = accept4(fd, NULL, NULL, shoal_core_self->io.ops->accept_flags);
        if (accepted >= 0)
            serve_last(listener, accepted);
        else if (errno != EINTR && errno != ECONNABORTED)
            return;
        if (i % DRAIN_AT_ONCE == 0)
            (void)shoal_yield();
    }
}

static int stop_here(void *arg, union shoal_value *out)
{
    (void)out;
    struct shoal_listening *listening = arg;
    struct shoal_core *core = shoal_core_self;
    struct shoal_listener *listener = listening->listeners[core->id];
    if (listener == NULL)
        return 0;
    listener->closing = true;
    shoal_timer_cancel(&listener->retry);
    stop_balancing(listener);
    shoal_fiber_shield();
    listener->stopper = core->fiber;
    while (shoal_io_busy(&listener->accept) || listener->handing > 0) {
        if (shoal_io_busy(&listener->accept))
            shoal_io_cancel(core, &listener->accept);
        shoal_fiber_park(core, core->fiber);
    }
    listener->stopper = NULL;
    shoal_fiber_unshield();
    drain_queue(listener);
    core->io.ops->remove(core, &listener->fd);
    close(listener->fd.fd);
    listening->listeners[core->id] = NULL;
    SHOAL_CHECK(listener->handing == 0, "a listener ends with %u connections on their way",
                listener->handing);
    shoal_mem_free(listener, sizeof(*listener));
    return 0;
}

/* ---- Sockets ---- */

static int set_one(int fd, int level, int option)
{
    const int one = 1;
    return setsockopt(fd, level, option, &one, sizeof(one)) == 0 ? 0 : -errno;
}

static int bound_socket(const struct shoal_address *address, bool share)
{
    int family = address->storage.ss_family;
    int fd = socket(family, SOCK_STREAM | shoal_core_self->io.ops->accept_flags, 0);
    if (fd < 0)
        return -errno;
    int rc = 0;
    if (family != AF_UNIX) {
        rc = set_one(fd, SOL_SOCKET, SO_REUSEADDR);
        if (rc == 0 && share)
            rc = set_one(fd, SOL_SOCKET, SO_REUSEPORT);
        if (rc == 0 && family == AF_INET6)
            rc = set_one(fd, IPPROTO_IPV6, IPV6_V6ONLY);
        if (rc == 0)
            (void)set_one(fd, IPPROTO_TCP, TCP_NODELAY); /* accepted sockets inherit it */
    }
    if (rc == 0 && bind(fd, (const struct sockaddr *)&address->storage, address->len) != 0)
        rc = -errno;
    if (rc < 0) {
        close(fd);
        return rc;
    }
    return fd;
}

/*
 * With SO_REUSEPORT a second server would share the port in silence: ask without it first. The bind
 * alone tells; a listen would accept clients, and the close reset them.
 */
static int probe(const struct shoal_address *address)
{
    int fd = bound_socket(address, false);
    if (fd < 0)
        return fd;
    close(fd);
    return 0;
}

/* A socket file that nobody answers at is left over from a process that is gone. */
static void remove_stale(const struct shoal_address *address)
{
    const struct sockaddr_un *unix_address = (const struct sockaddr_un *)&address->storage;
    struct stat info;
    if (unix_address->sun_path[0] == '\0' || lstat(unix_address->sun_path, &info) != 0 ||
        !S_ISSOCK(info.st_mode))
        return;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return;
    if (connect(fd, (const struct sockaddr *)unix_address, address->len) != 0 &&
        errno == ECONNREFUSED)
        (void)unlink(unix_address->sun_path);
    close(fd);
}

static int open_socket(struct shoal_listening *listening, unsigned core)
{
    bool is_unix = listening->address.storage.ss_family == AF_UNIX;
    int fd;
    if (is_unix && core > 0)
        fd = fcntl(listening->fds[0], F_DUPFD_CLOEXEC, 0);
    else
        fd = bound_socket(&listening->address, true);
    if (fd < 0)
        return is_unix && core > 0 ? -errno : fd;
    listening->fds[core] = fd;
    listening->bound = true;
    if (listen(fd, BACKLOG) != 0)
        return -errno;
    if (core == 0) {
        listening->address.len = sizeof(listening->address.storage);
        if (getsockname(fd, (struct sockaddr *)&listening->address.storage,
                        &listening->address.len) != 0)
            return -errno;
    }
    return 0;
}

static int try_sockets(struct shoal_listening *listening)
{
    int rc = 0;
    if (listening->address.storage.ss_family == AF_UNIX)
        remove_stale(&listening->address);
    else if (shoal_address_port(&listening->address) != 0)
        rc = probe(&listening->address);
    for (unsigned core = 0; core < listening->cores && rc == 0; core++)
        rc = open_socket(listening, core);
    return rc;
}

static void close_sockets(struct shoal_listening *listening)
{
    for (unsigned core = 0; core < listening->cores; core++) {
        if (listening->fds[core] >= 0)
            close(listening->fds[core]);
        listening->fds[core] = -1;
    }
}

/*
 * A server that was killed leaves its sockets to the kernel, which takes some milliseconds to tear
 * an io_uring down: who restarts it at once must not be told that the address is in use.
 */
static int open_sockets(struct shoal_listening *listening)
{
    for (int attempt = 1;; attempt++) {
        int rc = try_sockets(listening);
        if (rc != -EADDRINUSE || attempt == IN_USE_ATTEMPTS)
            return rc;
        close_sockets(listening);
        rc = shoal_sleep_ns(IN_USE_WAIT_NS);
        if (rc < 0)
            return rc;
    }
}

/* ---- All cores ---- */

static void tables_free(struct shoal_listening *listening)
{
    shoal_mem_free(listening->fds, listening->cores * sizeof(int));
    shoal_mem_free(listening->listeners, listening->cores * sizeof(void *));
    shoal_mem_free((void *)listening->loads, listening->cores * sizeof(void *));
}

static void listening_free(struct shoal_listening *listening)
{
    close_sockets(listening);
    tables_free(listening);
    shoal_mem_free(listening, sizeof(*listening));
}

static struct shoal_listening *listening_new(const struct shoal_address *address)
{
    struct shoal_listening *listening = shoal_mem_alloc_zeroed(sizeof(*listening));
    if (listening == NULL)
        return NULL;
    listening->address = *address;
    listening->cores = shoal_core_count();
    listening->fds = shoal_mem_alloc(listening->cores * sizeof(int));
    listening->listeners = shoal_mem_alloc_zeroed(listening->cores * sizeof(void *));
    bool balances = shoal_config_accept_balanced() && listening->cores > 1;
    if (balances)
        listening->loads = shoal_mem_alloc_zeroed(listening->cores * sizeof(void *));
    if (listening->fds == NULL || listening->listeners == NULL ||
        (balances && listening->loads == NULL)) {
        tables_free(listening);
        shoal_mem_free(listening, sizeof(*listening));
        return NULL;
    }
    for (unsigned core = 0; core < listening->cores; core++)
        listening->fds[core] = -1;
    return listening;
}

static int listen_with(struct shoal_listening **out, const struct shoal_address *address,
                       uint32_t open_max, shoal_accepted_fn *accepted, shoal_connection_fn *serve,
                       void *arg)
{
    struct shoal_listening *listening = listening_new(address);
    if (listening == NULL)
        return -ENOMEM;
    listening->accepted = accepted;
    listening->serve = serve;
    listening->open_max = open_max;
    listening->arg = arg;
    int rc = open_sockets(listening);
    for (unsigned core = 0; core < listening->cores && rc == 0; core++)
        rc = shoal_await(shoal_submit_to(core, start_here, listening), NULL);
    if (rc < 0) {
        shoal_listening_stop(listening);
        return rc;
    }
    *out = listening;
    return 0;
}

int shoal_listen_raw(struct shoal_listening **out, const struct shoal_address *address,
                     uint32_t open_max, shoal_accepted_fn *accepted, void *arg)
{
    return listen_with(out, address, open_max, accepted, NULL, arg);
}

const struct shoal_address *shoal_listening_address(const struct shoal_listening *listening)
{
    return &listening->address;
}

void shoal_listening_stop(struct shoal_listening *listening)
{
    if (listening == NULL)
        return;
    /* While somebody still answers there: a successor might take a silent file for a stale one,
     * and this would remove the successor's. */
    const struct sockaddr_un *unix_address =
        (const struct sockaddr_un *)&listening->address.storage;
    if (listening->bound && unix_address->sun_family == AF_UNIX &&
        unix_address->sun_path[0] != '\0')
        (void)unlink(unix_address->sun_path);
    shoal_fiber_shield();
    for (unsigned core = 0; core < listening->cores; core++)
        while (shoal_await(shoal_submit_fiber_to(core, stop_here, listening), NULL) == -ENOMEM)
            (void)shoal_sleep_ns(SHOAL_NS_PER_MS);
    shoal_fiber_unshield();
    listening_free(listening);
}

/* ---- Streams ---- */

struct connection {
    struct shoal_stream *stream;
    shoal_connection_fn *serve;
    void *arg;
};

static int serve_connection(void *arg)
{
    struct connection connection = *(struct connection *)arg;
    shoal_mem_free(arg, sizeof(struct connection));
    if (connection.stream == NULL)
        return 0; /* there was no memory for it */
    connection.serve(connection.stream, connection.arg);
    (void)shoal_stream_drain(connection.stream);
    shoal_stream_close(connection.stream);
    shoal_load_count(&shoal_net_self()->load, shoal_core_self->now_ns, true);
    return 0;
}

/* The fiber comes first: without one the descriptor must still be good for another core. */
int shoal_connection_start(int fd, shoal_connection_fn *serve, void *arg)
{
    struct connection *connection = shoal_mem_alloc(sizeof(*connection));
    if (connection == NULL)
        return -ENOMEM;
    *connection = (struct connection){.serve = serve, .arg = arg};
    int rc = shoal_fiber_spawn_detached(serve_connection, connection, "connection");
    if (rc < 0) {
        shoal_mem_free(connection, sizeof(*connection));
        return rc;
    }
    rc = shoal_stream_adopt(&connection->stream, fd);
    if (rc == 0)
        shoal_load_count(&shoal_net_self()->load, shoal_core_self->now_ns, false);
    return rc;
}

static int accepted_stream(struct shoal_listener *listener, int fd, void *arg)
{
    return shoal_connection_start(fd, listener->listening->serve, arg);
}

int shoal_listen(struct shoal_listening **out, const struct shoal_address *address,
                 shoal_connection_fn *serve, void *arg)
{
    return listen_with(out, address, UNLIMITED, accepted_stream, serve, arg);
}
