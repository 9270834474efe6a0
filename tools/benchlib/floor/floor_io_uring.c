/*
 * The floor with io_uring: multishot accept and recv, provided buffers, one enter a turn.
 *
 * 1. The ring is SINGLE_ISSUER | DEFER_TASKRUN | COOP_TASKRUN with a registered descriptor, and
 *    the enter that submits the sends is the one that waits.
 * 2. A recv is armed once for a connection and again only when the kernel ended it. Its buffer
 *    goes back in the same turn, since nothing is kept of it.
 * 3. Sends complete silently; one that fails brings the recv to its end too, which closes.
 *
 * Rejected, because they cost more: one-shot recv (1-9 %), a second enter that looks before the
 * one that blocks (2-6 %), buffers too small for a pipelined batch (about 20 %). Rejected, because
 * they measured the same: send() as a call, direct descriptors, recv bundles, a CQE for each send,
 * other sizes of the buffer ring.
 */
#include <liburing.h>
#include <sys/mman.h>

#include "floor.h"

#define BUFFER_COUNT 1024u
#define SQ_ENTRIES   1024u
#define CQ_ENTRIES   8192u

enum op { OP_ACCEPT, OP_RECV, OP_SEND };

static struct io_uring ring;
static struct io_uring_buf_ring *buffer_ring;
static char *buffers;
static int returned; /* buffers given back since the last advance */

static struct io_uring_sqe *sqe_get(void)
{
    struct io_uring_sqe *sqe = io_uring_get_sqe(&ring);
    if (__builtin_expect(sqe == NULL, 0)) {
        io_uring_submit(&ring);
        sqe = io_uring_get_sqe(&ring);
    }
    return sqe;
}

/* After the prep call, since some versions of liburing clear user_data in it. */
static void tag(struct io_uring_sqe *sqe, enum op op, int fd)
{
    sqe->user_data = (uint64_t)op | (uint64_t)fd << 8;
}

static void arm_accept(int listen_fd)
{
    struct io_uring_sqe *sqe = sqe_get();
    io_uring_prep_multishot_accept(sqe, listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    tag(sqe, OP_ACCEPT, listen_fd);
}

static void arm_recv(int fd)
{
    struct io_uring_sqe *sqe = sqe_get();
    io_uring_prep_recv_multishot(sqe, fd, NULL, 0, 0);
    sqe->flags |= IOSQE_BUFFER_SELECT;
    sqe->buf_group = 0;
    tag(sqe, OP_RECV, fd);
}

static void reply(int fd, uint32_t count)
{
    struct io_uring_sqe *sqe = sqe_get();
    io_uring_prep_send(sqe, fd, floor_replies, count * FLOOR_REPLY_SIZE,
                       MSG_NOSIGNAL | MSG_WAITALL);
    sqe->flags |= IOSQE_CQE_SKIP_SUCCESS;
    tag(sqe, OP_SEND, fd);
}

static void give_back(uint32_t id)
{
    io_uring_buf_ring_add(buffer_ring, buffers + (size_t)id * FLOOR_BUFFER_SIZE, FLOOR_BUFFER_SIZE,
                          (unsigned short)id, io_uring_buf_ring_mask(BUFFER_COUNT), returned++);
}

static void on_accept(const struct io_uring_cqe *cqe, int listen_fd)
{
    if (cqe->res >= 0) {
        if (floor_conn_init(cqe->res)) {
            arm_recv(cqe->res);
        } else {
            close(cqe->res);
        }
    }
    if (!(cqe->flags & IORING_CQE_F_MORE)) {
        arm_accept(listen_fd);
    }
}

static void on_recv(const struct io_uring_cqe *cqe, int fd)
{
    if (__builtin_expect(cqe->res > 0, 1)) {
        uint32_t id = cqe->flags >> IORING_CQE_BUFFER_SHIFT;
        uint32_t count = floor_count(&floor_conns[fd], buffers + (size_t)id * FLOOR_BUFFER_SIZE,
                                     (uint32_t)cqe->res);
        give_back(id);
        if (count != 0) {
            reply(fd, count);
        }
        if (!(cqe->flags & IORING_CQE_F_MORE)) {
            arm_recv(fd);
        }
    } else if (cqe->res == -ENOBUFS) {
        arm_recv(fd);
    } else {
        close(fd);
    }
}

static void *map(size_t size)
{
    void *at =
        mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    if (at == MAP_FAILED) {
        floor_die("mmap", errno);
    }
    return at;
}

static void ring_init(void)
{
    struct io_uring_params params = {
        .flags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN |
                 IORING_SETUP_COOP_TASKRUN | IORING_SETUP_SUBMIT_ALL | IORING_SETUP_CQSIZE,
        .cq_entries = CQ_ENTRIES,
    };
    int rc = io_uring_queue_init_params(SQ_ENTRIES, &ring, &params);
    if (rc != 0) {
        floor_die("io_uring_setup", -rc);
    }
    io_uring_register_ring_fd(&ring);

    buffers = map((size_t)BUFFER_COUNT * FLOOR_BUFFER_SIZE);
    buffer_ring = map(BUFFER_COUNT * sizeof(struct io_uring_buf));
    struct io_uring_buf_reg reg = {.ring_addr = (uintptr_t)buffer_ring,
                                   .ring_entries = BUFFER_COUNT};
    rc = io_uring_register_buf_ring(&ring, &reg, 0);
    if (rc != 0) {
        floor_die("io_uring_register_buf_ring", -rc);
    }
    for (uint32_t id = 0; id < BUFFER_COUNT; id++) {
        give_back(id);
    }
    io_uring_buf_ring_advance(buffer_ring, returned);
}

int main(void)
{
    int listen_fd = floor_listen();
    ring_init();
    arm_accept(listen_fd);
    for (;;) {
        io_uring_submit_and_wait(&ring, 1);
        returned = 0;
        unsigned head, seen = 0;
        struct io_uring_cqe *cqe;
        io_uring_for_each_cqe(&ring, head, cqe)
        {
            int fd = (int)(cqe->user_data >> 8);
            enum op op = (enum op)(cqe->user_data & 0xff);
            if (op == OP_RECV) {
                on_recv(cqe, fd);
            } else if (op == OP_ACCEPT) {
                on_accept(cqe, fd);
            }
            seen++;
        }
        if (returned != 0) {
            io_uring_buf_ring_advance(buffer_ring, returned);
        }
        io_uring_cq_advance(&ring, seen);
    }
}
