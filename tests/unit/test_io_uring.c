/*
 * io_uring on a kernel that takes nothing for a while (operations and cancels wait, and none is
 * lost), on one that knows no multishot receive, and on one that loses the end of a receive.
 *
 * The backend is compiled into this test once more, with a submission queue that can be said to be
 * full; the library's own copy stays in its archive.
 */
/* backends: io_uring */
#include <liburing.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
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

static void start_receive(struct receiver *receiver, int fd)
{
    *receiver = (struct receiver){.fd.fd = fd, .handler = {note_done, note_shot}};
    receiver->op.kind = SHOAL_IO_RECV;
    receiver->op.fd = &receiver->fd;
    receiver->op.on = &receiver->handler;
    shoal_io_submit(shoal_core_self, &receiver->op);
}

static void sleep_until(const unsigned *count, unsigned value)
{
    while (*count < value)
        SHOAL_EXPECT_INT(shoal_sleep_ns(SHOAL_NS_PER_MS), 0);
}

static int check_single_shot(void *arg)
{
    (void)arg;
    struct shoal_core *core = shoal_core_self;
    struct uring_backend *backend = core->io.backend;
    backend->recv_multishot = false;
    int fds[2];
    SHOAL_EXPECT_INT(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
    struct receiver receiver;
    start_receive(&receiver, fds[0]);
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
    sleep_until(&receiver.done, 1);
    SHOAL_EXPECT_INT(receiver.result, 0);
    SHOAL_EXPECT_INT(receiver.bytes, sent);
    close(fds[0]);
    return 0;
}

/* ---- A kernel that loses the end of a receive ---- */

/* A socket that has three bytes to read and then its end. */
static int ended_socket(void)
{
    int fds[2];
    SHOAL_EXPECT_INT(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
    SHOAL_EXPECT_INT(write(fds[1], "end", 3), 3);
    close(fds[1]);
    return fds[0];
}

/* A receive that has given a byte. Returns the other side of its socket. */
static int received_one(struct receiver *receiver)
{
    int fds[2];
    SHOAL_EXPECT_INT(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
    start_receive(receiver, fds[0]);
    SHOAL_EXPECT_INT(write(fds[1], "x", 1), 1);
    sleep_until(&receiver->shots, 1);
    return fds[1];
}

/*
 * The receive stays armed at its old socket, to which nothing will happen, while its descriptor now
 * names one that has ended: to the backend just what a kernel looks like that has lost the end.
 */
static void lose_end(const struct receiver *receiver)
{
    int ended = ended_socket();
    SHOAL_EXPECT_INT(dup2(ended, receiver->fd.fd), receiver->fd.fd);
    close(ended);
}

static int check_lost_end(void *arg)
{
    (void)arg;
    struct receiver lost;
    int peer = received_one(&lost);
    lose_end(&lost);
    sleep_until(&lost.done, 1);
    SHOAL_EXPECT_INT(lost.result, 0);
    SHOAL_EXPECT_INT(lost.bytes, 4);
    close(lost.fd.fd);
    close(peer);
    return 0;
}

/* More than one look takes; every third has lost its end, the others stay armed and undisturbed. */
#define MANY ((LOOK_BATCH * LOOK_BATCHES) + LOOK_BATCH + 1)

static int check_many_lost_ends(void *arg)
{
    (void)arg;
    static struct receiver receivers[MANY];
    static int peers[MANY];
    struct rlimit limit;
    SHOAL_EXPECT_INT(getrlimit(RLIMIT_NOFILE, &limit), 0);
    limit.rlim_cur = limit.rlim_max;
    SHOAL_EXPECT_INT(setrlimit(RLIMIT_NOFILE, &limit), 0);
    struct uring_backend *backend = shoal_core_self->io.backend;
    for (int i = 0; i < MANY; i++)
        peers[i] = received_one(&receivers[i]);
    for (int i = 0; i < MANY; i++) {
        if (!receivers[i].op.doubted)
            doubt(backend, &receivers[i].op); /* was looked at while the others received */
        if (i % 3 == 0)
            lose_end(&receivers[i]);
    }
    for (int i = 0; i < MANY; i += 3)
        sleep_until(&receivers[i].done, 1);
    while (shoal_list_linked(&backend->doubted) || shoal_list_linked(&backend->looking))
        SHOAL_EXPECT_INT(shoal_sleep_ns(SHOAL_NS_PER_MS), 0);
    for (int i = 0; i < MANY; i++) {
        bool ended = i % 3 == 0;
        SHOAL_EXPECT_INT(receivers[i].done, ended);
        SHOAL_EXPECT_INT(receivers[i].bytes, ended ? 4 : 1);
        if (!ended)
            SHOAL_EXPECT_INT(write(peers[i], "more", 4), 4);
        close(peers[i]);
    }
    for (int i = 0; i < MANY; i++) {
        sleep_until(&receivers[i].done, 1);
        SHOAL_EXPECT_INT(receivers[i].result, 0);
        SHOAL_EXPECT_INT(receivers[i].bytes, i % 3 == 0 ? 4 : 5);
        close(receivers[i].fd.fd);
    }
    return 0;
}

/* The look and the owner cancel one receive; and a look for whose cancel the kernel has no room. */
static int check_lost_end_cancelled(void *arg)
{
    (void)arg;
    struct uring_backend *backend = shoal_core_self->io.backend;
    struct receiver lost;
    int peer = received_one(&lost);
    lose_end(&lost);
    refuse = true;
    look(backend);
    SHOAL_EXPECT(lost.op.doubted);
    refuse = false;
    look(backend);
    SHOAL_EXPECT(!lost.op.doubted);
    refuse = true; /* the owner's waits while the look's is under way */
    shoal_io_cancel(shoal_core_self, &lost.op);
    SHOAL_EXPECT(lost.op.cancel_waits);
    refuse = false;
    sleep_until(&lost.done, 1);
    SHOAL_EXPECT_INT(lost.result, -ECANCELED);
    SHOAL_EXPECT(backend->cancels.head == NULL);
    SHOAL_EXPECT_INT(shoal_sleep_ns(SHOAL_NS_PER_MS), 0);
    SHOAL_EXPECT_INT(lost.done, 1);
    SHOAL_EXPECT_INT(lost.bytes, 1);
    close(lost.fd.fd);
    close(peer);
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

static void recv_whose_end_the_kernel_lost_ends(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(1, check_lost_end, NULL), 0);
}

static void recv_many_lost_ends_found_others_undisturbed(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(1, check_many_lost_ends, NULL), 0);
}

static void recv_whose_end_was_lost_can_be_cancelled(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(1, check_lost_end_cancelled, NULL), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(backlog_operations_wait_and_can_be_cancelled),
        cmocka_unit_test(backlog_cancels_wait_and_are_not_lost),
        cmocka_unit_test(recv_of_a_kernel_without_multishot_is_armed_again),
        cmocka_unit_test(recv_whose_end_the_kernel_lost_ends),
        cmocka_unit_test(recv_many_lost_ends_found_others_undisturbed),
        cmocka_unit_test(recv_whose_end_was_lost_can_be_cancelled),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
