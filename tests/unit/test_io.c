/*
 * The I/O contract of io_impl.h, on each backend.
 */
/* backends: both */
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "shoal/runtime/clock.h"
#include "shoal/runtime/core_impl.h"
#include "shoal/runtime/fiber.h"
#include "shoal/runtime/io.h"

#include "unit/harness.h"

static struct shoal_fiber *spawn(shoal_fiber_fn *fn, void *arg)
{
    struct shoal_fiber *fiber = NULL;
    SHOAL_EXPECT_INT(shoal_fiber_spawn(&fiber, fn, arg, "child"), 0);
    return fiber;
}

static void pause_ms(unsigned ms)
{
    SHOAL_EXPECT_INT(shoal_sleep_ns(ms * SHOAL_NS_PER_MS), 0);
}

/* ---- shoal_poll_fd ---- */

struct poller {
    int fd;
    short events;
};

static int poll_it(void *arg)
{
    const struct poller *poller = arg;
    return shoal_poll_fd(poller->fd, poller->events);
}

static int check_poll(void *arg)
{
    (void)arg;
    int ends[2];
    SHOAL_EXPECT_INT(pipe2(ends, O_NONBLOCK), 0);
    SHOAL_EXPECT_INT(shoal_poll_fd(ends[1], POLLOUT), POLLOUT);
    struct poller in = {ends[0], POLLIN};
    struct shoal_fiber *waiting = spawn(poll_it, &in);
    struct shoal_fiber *also = spawn(poll_it, &in); /* the same descriptor twice */
    pause_ms(1);
    SHOAL_EXPECT_INT(write(ends[1], "x", 1), 1);
    SHOAL_EXPECT_INT(shoal_fiber_join(waiting), POLLIN);
    SHOAL_EXPECT_INT(shoal_fiber_join(also), POLLIN);
    SHOAL_EXPECT_INT(shoal_poll_fd(ends[0], POLLIN), POLLIN); /* level: it is still there */
    char byte;
    SHOAL_EXPECT_INT(read(ends[0], &byte, 1), 1);
    waiting = spawn(poll_it, &in);
    pause_ms(1);
    close(ends[1]);
    SHOAL_EXPECT((shoal_fiber_join(waiting) & POLLHUP) != 0);
    close(ends[0]);
    int event = eventfd(3, EFD_NONBLOCK);
    SHOAL_EXPECT_INT(shoal_poll_fd(event, POLLIN), POLLIN);
    SHOAL_EXPECT_INT(shoal_poll_fd(event, POLLIN | POLLOUT), POLLIN | POLLOUT);
    close(event);
    SHOAL_EXPECT_INT(shoal_poll_fd(event, POLLIN), -EBADF);
    int file = open("/proc/self/exe", O_RDONLY);
    SHOAL_EXPECT((shoal_poll_fd(file, POLLIN) & POLLIN) != 0); /* always ready */
    close(file);
    return 0;
}

static void poll_fd_tells_what_is_or_becomes_ready(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(1, check_poll, NULL), 0);
}

#define POLLS (3000 / (SHOAL_TEST_SLOWDOWN > 1 ? 2 : 1))

static int check_many_polls(void *arg)
{
    static struct shoal_fiber *fibers[POLLS];
    bool cancel = arg != NULL;
    int event = eventfd(0, EFD_NONBLOCK);
    struct poller in = {event, POLLIN};
    for (int i = 0; i < POLLS; i++) /* more than the submission queue holds */
        fibers[i] = spawn(poll_it, &in);
    pause_ms(1);
    uint64_t one = 1;
    if (!cancel)
        SHOAL_EXPECT_INT(write(event, &one, sizeof(one)), sizeof(one));
    for (int i = 0; i < POLLS && cancel; i++)
        shoal_fiber_cancel(fibers[i]);
    for (int i = 0; i < POLLS; i++)
        SHOAL_EXPECT_INT(shoal_fiber_join(fibers[i]), cancel ? -ECANCELED : POLLIN);
    close(event);
    return 0;
}

static void poll_fd_thousands_at_once_all_end(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(1, check_many_polls, NULL), 0);
    assert_int_equal(shoal_test_run(1, check_many_polls, (void *)1), 0);
}

/* ---- Sockets ---- */

struct socket_end {
    struct shoal_io_fd fd;
    struct shoal_io_op in;
    struct shoal_io_op out;
    struct shoal_io_handler in_handler;
    struct shoal_chain held;
    uint64_t received;
    uint64_t next_byte; /* what a received byte must be */
    bool hold;          /* slices are kept, not freed */
    bool cancel_at_shot;
    unsigned in_done;
    int in_result;
    int accepted[64];
    unsigned accepted_count;
};

static void note_done(struct shoal_io_op *op)
{
    struct socket_end *end = SHOAL_CONTAINER_OF(op, struct socket_end, in);
    end->in_done++;
    end->in_result = op->result;
}

static void note_shot(struct shoal_io_op *op, int result, struct shoal_slice *slice)
{
    struct socket_end *end = SHOAL_CONTAINER_OF(op, struct socket_end, in);
    SHOAL_EXPECT_INT(end->in_done, 0); /* no shot after the end */
    if (slice == NULL) {
        end->accepted[end->accepted_count++] = result;
        return;
    }
    SHOAL_EXPECT_INT(slice->len, result);
    for (uint32_t i = 0; i < slice->len; i++)
        if (!SHOAL_EXPECT_INT((unsigned char)slice->data[i], end->next_byte++ % 251))
            break;
    end->received += slice->len;
    if (end->hold)
        shoal_chain_push(&end->held, slice);
    else
        shoal_slice_free(slice);
    if (end->cancel_at_shot)
        shoal_io_cancel(shoal_core_self, op);
}

static void end_init(struct socket_end *end, int fd)
{
    memset(end, 0, sizeof(*end));
    end->fd.fd = fd;
    end->in_handler = (struct shoal_io_handler){note_done, note_shot};
    shoal_chain_init(&end->held);
    SHOAL_EXPECT_INT(shoal_core_self->io.ops->add(shoal_core_self, &end->fd), 0);
}

static void end_close(struct socket_end *end)
{
    SHOAL_EXPECT(!shoal_io_busy(&end->in) && !shoal_io_busy(&end->out));
    shoal_chain_clear(&end->held);
    shoal_core_self->io.ops->remove(shoal_core_self, &end->fd);
    close(end->fd.fd);
}

static void start_in(struct socket_end *end, enum shoal_io_kind kind)
{
    end->in_done = 0;
    end->in.kind = (uint8_t)kind;
    end->in.fd = &end->fd;
    end->in.on = &end->in_handler;
    shoal_io_submit(shoal_core_self, &end->in);
    SHOAL_EXPECT_INT(end->in_done, 0); /* never inside submit */
}

static void wait_in_done(struct socket_end *end)
{
    while (end->in_done == 0)
        pause_ms(1);
    SHOAL_EXPECT_INT(end->in_done, 1);
}

static void wait_received(struct socket_end *end, uint64_t bytes)
{
    while (end->received < bytes && end->in_done == 0)
        pause_ms(1);
    SHOAL_EXPECT_INT(end->received, bytes);
}

static int flags(void)
{
    return shoal_core_self->io.ops->accept_flags;
}

static void make_pair(struct socket_end *a, struct socket_end *b)
{
    int fds[2];
    SHOAL_EXPECT_INT(socketpair(AF_UNIX, SOCK_STREAM | flags(), 0, fds), 0);
    end_init(a, fds[0]);
    end_init(b, fds[1]);
}

/* Sends bytes that count up from `first`, modulo 251. Returns a failure, or what was sent. */
static int64_t send_bytes(struct socket_end *end, uint64_t first, size_t bytes)
{
    static char data[1 << 16];
    size_t sent = 0;
    while (sent < bytes) {
        size_t piece = bytes - sent < sizeof(data) ? bytes - sent : sizeof(data);
        for (size_t i = 0; i < piece; i++)
            data[i] = (char)((first + sent + i) % 251);
        end->out.kind = SHOAL_IO_SEND;
        end->out.fd = &end->fd;
        end->out.arg.send.data = data;
        end->out.arg.send.len = (uint32_t)piece;
        int n = shoal_io_run(shoal_core_self, &end->out);
        if (n < 0)
            return n;
        SHOAL_EXPECT(n > 0 && (size_t)n <= piece);
        sent += (size_t)n;
    }
    return (int64_t)sent;
}

#define BULK ((size_t)8 << 20)

static int check_bulk(void *arg)
{
    (void)arg;
    struct socket_end a, b;
    make_pair(&a, &b);
    start_in(&b, SHOAL_IO_RECV);
    SHOAL_EXPECT_INT(send_bytes(&a, 0, 1), 1); /* small ones, each on its own */
    wait_received(&b, 1);
    SHOAL_EXPECT_INT(send_bytes(&a, 1, 99), 99);
    wait_received(&b, 100);
    SHOAL_EXPECT_INT(send_bytes(&a, 100, BULK), BULK);
    wait_received(&b, BULK + 100);
    SHOAL_EXPECT_INT(b.in_done, 0); /* one operation all along */
    SHOAL_EXPECT_INT(send_bytes(&a, BULK + 100, 5000), 5000);
    shutdown(a.fd.fd, SHUT_WR); /* data, and the end of stream right behind it */
    wait_in_done(&b);
    SHOAL_EXPECT_INT(b.in_result, 0);
    SHOAL_EXPECT_INT(b.received, BULK + 5100);
    end_close(&a);
    end_close(&b);
    return 0;
}

static void recv_gets_all_bytes_in_order_and_the_end(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(1, check_bulk, NULL), 0);
}

static int check_end_before_submit(void *arg)
{
    (void)arg;
    struct socket_end a, b;
    make_pair(&a, &b);
    SHOAL_EXPECT_INT(send_bytes(&a, 0, 20000), 20000);
    end_close(&a); /* all is there before anybody asks */
    pause_ms(2);
    start_in(&b, SHOAL_IO_RECV);
    wait_in_done(&b);
    SHOAL_EXPECT_INT(b.in_result, 0);
    SHOAL_EXPECT_INT(b.received, 20000);
    start_in(&b, SHOAL_IO_RECV); /* and the end is told again */
    wait_in_done(&b);
    SHOAL_EXPECT_INT(b.in_result, 0);
    end_close(&b);
    return 0;
}

static void recv_finds_what_came_before_it(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(1, check_end_before_submit, NULL), 0);
}

static int check_recv_cancel(void *arg)
{
    (void)arg;
    struct socket_end a, b;
    make_pair(&a, &b);
    for (int round = 0; round < 50; round++) {
        start_in(&b, SHOAL_IO_RECV);
        if (round % 2 == 0)
            pause_ms(1);
        shoal_io_cancel(shoal_core_self, &b.in);
        shoal_io_cancel(shoal_core_self, &b.in);
        SHOAL_EXPECT_INT(b.in_done, 0); /* never inside cancel */
        wait_in_done(&b);
        SHOAL_EXPECT_INT(b.in_result, -ECANCELED);
        shoal_io_cancel(shoal_core_self, &b.in); /* idle: harmless */
    }
    b.cancel_at_shot = true;
    uint64_t sent = 0;
    while (sent < 1000000) {
        start_in(&b, SHOAL_IO_RECV);
        if (sent - b.received < 50000) {
            SHOAL_EXPECT_INT(send_bytes(&a, sent, 50000), 50000);
            sent += 50000;
        }
        wait_in_done(&b);
        SHOAL_EXPECT_INT(b.in_result, -ECANCELED);
    }
    b.cancel_at_shot = false;
    start_in(&b, SHOAL_IO_RECV);
    wait_received(&b, sent); /* nothing was lost */
    shoal_io_cancel(shoal_core_self, &b.in);
    wait_in_done(&b);
    end_close(&a);
    end_close(&b);
    return 0;
}

static void recv_cancel_ends_once_and_loses_nothing(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(1, check_recv_cancel, NULL), 0);
}

static int send_until_full(void *arg)
{
    return (int)send_bytes(arg, 0, (size_t)64 << 20);
}

static int check_send(void *arg)
{
    (void)arg;
    struct socket_end a, b;
    make_pair(&a, &b);
    struct shoal_fiber *sender = spawn(send_until_full, &a); /* nobody reads */
    pause_ms(5);
    shoal_fiber_cancel(sender);
    SHOAL_EXPECT_INT(shoal_fiber_join(sender), -ECANCELED);
    end_close(&b);
    int64_t rc = send_bytes(&a, 0, 1);
    SHOAL_EXPECT(rc == -EPIPE || rc == -ECONNRESET);
    end_close(&a);
    make_pair(&a, &b);
    struct iovec pieces[] = {{(void *)(uintptr_t) "\0\1\2", 3}, {(void *)(uintptr_t) "\3\4", 2}};
    struct msghdr message = {.msg_iov = pieces, .msg_iovlen = 2};
    a.out.kind = SHOAL_IO_SENDMSG;
    a.out.fd = &a.fd;
    a.out.arg.msg = &message;
    SHOAL_EXPECT_INT(shoal_io_run(shoal_core_self, &a.out), 5);
    start_in(&b, SHOAL_IO_RECV);
    wait_received(&b, 5);
    end_close(&a);
    wait_in_done(&b);
    end_close(&b);
    return 0;
}

static void send_full_cancelled_broken_and_gathered(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(1, check_send, NULL), 0);
}

/* ---- Running out of buffers ---- */

#define PAIRS 4

static int check_starvation(void *arg)
{
    (void)arg;
    struct shoal_core *core = shoal_core_self;
    static struct socket_end a[PAIRS], b[PAIRS];
    static void *pieces[4096];
    size_t count = 0;
    while (count < SHOAL_ARRAY_SIZE(pieces) && (pieces[count] = shoal_mem_alloc(65536)) != NULL)
        count++;
    uint64_t sent[PAIRS] = {0};
    for (int i = 0; i < PAIRS; i++) {
        make_pair(&a[i], &b[i]);
        b[i].hold = true;
        start_in(&b[i], SHOAL_IO_RECV);
    }
    for (int quiet = 0; quiet < 10; quiet++) { /* until no send of 50 ms has been received */
        for (int i = 0; i < PAIRS; i++) {
            if (sent[i] - b[i].received >= 45000)
                continue;
            SHOAL_EXPECT_INT(send_bytes(&a[i], sent[i], 15000), 15000);
            sent[i] += 15000;
            quiet = 0;
        }
        pause_ms(5);
    }
    for (int i = 0; i < PAIRS; i++) {
        SHOAL_EXPECT(b[i].received < sent[i]);
        SHOAL_EXPECT_INT(b[i].in_done, 0); /* starved, and not ended */
    }
    SHOAL_EXPECT_INT(core->buffers.free_count, 0);
    SHOAL_EXPECT_INT(b[3].in.state, SHOAL_IO_STARVED);
    shoal_io_cancel(core, &b[3].in); /* one that waits can be cancelled */
    wait_in_done(&b[3]);
    SHOAL_EXPECT_INT(b[3].in_result, -ECANCELED);
    for (int i = 0; i < PAIRS; i++) {
        b[i].hold = false;
        shoal_chain_clear(&b[i].held); /* buffers come back: the others go on by themselves */
    }
    start_in(&b[3], SHOAL_IO_RECV);
    for (int i = 0; i < PAIRS; i++) {
        shutdown(a[i].fd.fd, SHUT_WR);
        wait_in_done(&b[i]);
        SHOAL_EXPECT_INT(b[i].in_result, 0);
        SHOAL_EXPECT_INT(b[i].received, sent[i]);
        end_close(&a[i]);
        end_close(&b[i]);
    }
    SHOAL_EXPECT_INT(core->buffers.free_count, core->buffers.count);
    while (count > 0)
        shoal_mem_free(pieces[--count], 65536);
    return 0;
}

static void recv_without_buffers_waits_and_goes_on(void **state)
{
    (void)state;
    const char *const options[] = {"--memory", "10M", NULL};
    assert_int_equal(shoal_test_run_with(1, options, check_starvation, NULL), 0);
}

/* ---- Listening and connecting ---- */

static int listen_on_loopback(struct sockaddr_in *address, int backlog)
{
    int fd = socket(AF_INET, SOCK_STREAM | flags(), 0);
    socklen_t len = sizeof(*address);
    memset(address, 0, sizeof(*address));
    address->sin_family = AF_INET;
    address->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    SHOAL_EXPECT_INT(bind(fd, (struct sockaddr *)address, len), 0);
    SHOAL_EXPECT_INT(listen(fd, backlog), 0);
    SHOAL_EXPECT_INT(getsockname(fd, (struct sockaddr *)address, &len), 0);
    return fd;
}

struct connector {
    struct socket_end end;
    struct sockaddr_in address;
};

static int connect_it(void *arg)
{
    struct connector *connector = arg;
    struct shoal_io_op *op = &connector->end.out;
    op->kind = SHOAL_IO_CONNECT;
    op->fd = &connector->end.fd;
    op->arg.connect.address = (const struct sockaddr *)&connector->address;
    op->arg.connect.address_len = sizeof(connector->address);
    return shoal_io_run(shoal_core_self, op);
}

static void connector_init(struct connector *connector, const struct sockaddr_in *address)
{
    end_init(&connector->end, socket(AF_INET, SOCK_STREAM | flags(), 0));
    connector->address = *address;
}

#define CLIENTS 50

static int check_accept(void *arg)
{
    (void)arg;
    struct sockaddr_in address;
    static struct socket_end listener, served;
    static struct connector clients[CLIENTS];
    end_init(&listener, listen_on_loopback(&address, 128));
    start_in(&listener, SHOAL_IO_ACCEPT);
    pause_ms(1);
    for (int i = 0; i < CLIENTS; i++) {
        connector_init(&clients[i], &address);
        if (i % 3 == 0)
            pause_ms(1); /* registered for a while before it connects */
        SHOAL_EXPECT_INT(connect_it(&clients[i]), 0);
    }
    while (listener.accepted_count < CLIENTS)
        pause_ms(1);
    end_init(&served, listener.accepted[0]);
    start_in(&served, SHOAL_IO_RECV);
    SHOAL_EXPECT_INT(send_bytes(&clients[0].end, 0, 1000000), 1000000);
    wait_received(&served, 1000000);
    for (int i = 1; i < CLIENTS; i++)
        close(listener.accepted[i]);
    for (int i = 0; i < CLIENTS; i++)
        end_close(&clients[i].end);
    wait_in_done(&served);
    end_close(&served);
    shoal_io_cancel(shoal_core_self, &listener.in);
    wait_in_done(&listener);
    SHOAL_EXPECT_INT(listener.in_result, -ECANCELED);
    end_close(&listener);
    connector_init(&clients[0], &address); /* nobody listens there any more */
    SHOAL_EXPECT_INT(connect_it(&clients[0]), -ECONNREFUSED);
    end_close(&clients[0].end);
    return 0;
}

static void accept_takes_every_connection_until_cancelled(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(1, check_accept, NULL), 0);
}

static int check_connect_cancel(void *arg)
{
    (void)arg;
    struct sockaddr_in address;
    static struct connector clients[4];
    int listener = listen_on_loopback(&address, 0); /* room for one; others stay unanswered */
    struct shoal_fiber *fibers[4];
    for (int i = 0; i < 4; i++) {
        connector_init(&clients[i], &address);
        fibers[i] = spawn(connect_it, &clients[i]);
    }
    pause_ms(5);
    int cancelled = 0;
    for (int i = 0; i < 4; i++) {
        shoal_fiber_cancel(fibers[i]);
        int rc = shoal_fiber_join(fibers[i]);
        SHOAL_EXPECT(rc == 0 || rc == -ECANCELED);
        cancelled += rc == -ECANCELED;
        end_close(&clients[i].end);
    }
    SHOAL_EXPECT(cancelled >= 1);
    close(listener);
    return 0;
}

static void connect_that_nobody_answers_can_be_cancelled(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(1, check_connect_cancel, NULL), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(poll_fd_tells_what_is_or_becomes_ready),
        cmocka_unit_test(poll_fd_thousands_at_once_all_end),
        cmocka_unit_test(recv_gets_all_bytes_in_order_and_the_end),
        cmocka_unit_test(recv_finds_what_came_before_it),
        cmocka_unit_test(recv_cancel_ends_once_and_loses_nothing),
        cmocka_unit_test(send_full_cancelled_broken_and_gathered),
        cmocka_unit_test(recv_without_buffers_waits_and_goes_on),
        cmocka_unit_test(accept_takes_every_connection_until_cancelled),
        cmocka_unit_test(connect_that_nobody_answers_can_be_cancelled),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
