/*
 * io_uring on a kernel that takes nothing for a while (operations and cancels wait, and none is
 * lost), and on one that knows no multishot receive.
 *
 * The backend is compiled into this test once more, with a submission queue that can be said to be
 * full; the library's own copy stays in its archive.
 */
/* backends: io_uring */
#include <liburing.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "unit/harness.h"

static bool refuse;

static struct io_uring_sqe *get_sqe_or_refuse(struct io_uring *ring)
{
    return refuse ? NULL : io_uring_get_sqe(ring);
}

static unsigned space_left_or_none(const struct io_uring *ring)
{
    return refuse ? 0 : io_uring_sq_space_left(ring);
}

#define io_uring_get_sqe       get_sqe_or_refuse
#define io_uring_sq_space_left space_left_or_none
#include "shoal/runtime/fiber.h"
#include "shoal/runtime/io_uring.c"

#define POLLS 50

static int poll_it(void *arg)
{
    return shoal_poll_fd(*(const int *)arg, POLLIN);
}

static void spawn_polls(struct shoal_fiber **fibers, int *fd)
{
    for (int i = 0; i < POLLS; i++)
        SHOAL_EXPECT_INT(shoal_fiber_spawn(&fibers[i], poll_it, fd, "poll"), 0);
    SHOAL_EXPECT_INT(shoal_sleep_ns(SHOAL_NS_PER_MS), 0);
}

static void fire(int event)
{
    uint64_t one = 1;
    SHOAL_EXPECT_INT(write(event, &one, sizeof(one)), sizeof(one));
}

static int check_backlog(void *arg)
{
    (void)arg;
    struct shoal_fiber *fibers[POLLS];
    int event = eventfd(0, EFD_NONBLOCK);
    refuse = true;
    spawn_polls(fibers, &event);
    struct uring_backend *backend = shoal_core_self->io.backend;
    SHOAL_EXPECT(backend->backlog.head != NULL);
    for (int i = 0; i < POLLS; i += 5)
        shoal_fiber_cancel(fibers[i]); /* before the kernel has heard of it */
    SHOAL_EXPECT_INT(shoal_sleep_ns(SHOAL_NS_PER_MS), 0);
    refuse = false;
    SHOAL_EXPECT_INT(shoal_sleep_ns(SHOAL_NS_PER_MS), 0);
    fire(event);
    for (int i = 0; i < POLLS; i++)
        SHOAL_EXPECT_INT(shoal_fiber_join(fibers[i]), i % 5 == 0 ? -ECANCELED : POLLIN);
    SHOAL_EXPECT(backend->backlog.head == NULL);
    close(event);
    return 0;
}

static int check_cancels(void *arg)
{
    (void)arg;
    struct shoal_fiber *fibers[POLLS];
    struct shoal_fiber *others[POLLS];
    int event = eventfd(0, EFD_NONBLOCK);
    int other = eventfd(0, EFD_NONBLOCK);
    spawn_polls(fibers, &event);
    spawn_polls(others, &other);
    refuse = true;
    for (int i = 0; i < POLLS; i++) {
        shoal_fiber_cancel(fibers[i]);
        shoal_fiber_cancel(others[i]);
    }
    struct uring_backend *backend = shoal_core_self->io.backend;
    SHOAL_EXPECT(backend->cancels.head != NULL);
    fire(event); /* these end by themselves while their cancel waits */
    for (int i = 0; i < POLLS; i++)
        SHOAL_EXPECT_INT(shoal_fiber_join(fibers[i]), POLLIN);
    SHOAL_EXPECT(backend->cancels.head != NULL);
    refuse = false;
    for (int i = 0; i < POLLS; i++)
        SHOAL_EXPECT_INT(shoal_fiber_join(others[i]), -ECANCELED);
    SHOAL_EXPECT(backend->cancels.head == NULL);
    close(event);
    close(other);
    return 0;
}

/* ---- A kernel without multishot receive ---- */

struct receiver {
    struct shoal_io_op op;
    struct shoal_io_fd fd;
    struct shoal_io_handler handler;
    uint64_t bytes;
    unsigned shots;
    unsigned done;
    int result;
};

static void note_shot(struct shoal_io_op *op, int result, struct shoal_slice *slice)
{
    struct receiver *receiver = SHOAL_CONTAINER_OF(op, struct receiver, op);
    receiver->bytes += (unsigned)result;
    receiver->shots++;
    shoal_slice_free(slice);
}

static void note_done(struct shoal_io_op *op)
{
    struct receiver *receiver = SHOAL_CONTAINER_OF(op, struct receiver, op);
    receiver->done++;
    receiver->result = op->result;
}

static int check_single_shot(void *arg)
{
    (void)arg;
    struct shoal_core *core = shoal_core_self;
    struct uring_backend *backend = core->io.backend;
    backend->recv_multishot = false;
    int fds[2];
    SHOAL_EXPECT_INT(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
    struct receiver receiver = {.fd.fd = fds[0], .handler = {note_done, note_shot}};
    receiver.op.kind = SHOAL_IO_RECV;
    receiver.op.fd = &receiver.fd;
    receiver.op.on = &receiver.handler;
    shoal_io_submit(core, &receiver.op);
    static const char data[20000];
    uint64_t sent = 0;
    for (int i = 0; i < 20; i++) {
        SHOAL_EXPECT_INT(write(fds[1], data, sizeof(data)), sizeof(data));
        sent += sizeof(data);
        while (receiver.bytes < sent)
            SHOAL_EXPECT_INT(shoal_sleep_ns(SHOAL_NS_PER_MS), 0);
    }
    SHOAL_EXPECT(receiver.shots >= 20);
    SHOAL_EXPECT_INT(receiver.done, 0); /* the caller sees one operation */
    close(fds[1]);
    while (receiver.done == 0)
        SHOAL_EXPECT_INT(shoal_sleep_ns(SHOAL_NS_PER_MS), 0);
    SHOAL_EXPECT_INT(receiver.result, 0);
    SHOAL_EXPECT_INT(receiver.bytes, sent);
    close(fds[0]);
    return 0;
}

static void backlog_operations_wait_and_can_be_cancelled(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(1, check_backlog, NULL), 0);
}

static void backlog_cancels_wait_and_are_not_lost(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(1, check_cancels, NULL), 0);
}

static void recv_of_a_kernel_without_multishot_is_armed_again(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(1, check_single_shot, NULL), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(backlog_operations_wait_and_can_be_cancelled),
        cmocka_unit_test(backlog_cancels_wait_and_are_not_lost),
        cmocka_unit_test(recv_of_a_kernel_without_multishot_is_armed_again),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
