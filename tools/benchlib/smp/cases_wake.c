/*
 * How io_uring rings of two threads wake each other: through an eventfd that the sleeping ring
 * polls, as Shoal does, or by MSG_RING, which puts a completion into the other ring.
 *
 * 1. Both rings are made as Shoal's are: SINGLE_ISSUER, DEFER_TASKRUN, COOP_TASKRUN, TASKRUN_FLAG,
 *    each by the thread that uses it.
 * 2. wake-uring: there and back, both sides asleep, after a pause as in submit-sleeping. By
 * MSG_RING the write and the wait are one system call. wake-uring-busy is the same without pauses.
 * 3. wake-send: what the sender pays for waking a thread that sleeps, in its own time: write(2) to
 *    the eventfd, or a submit with MSG_RING in it. wake-send-awake: when the other does not sleep.
 */
#include <errno.h>
#include <time.h>

#include <liburing.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "smp.h"

#define PAUSE_NS  (400 * SHOAL_NS_PER_US)
#define ENTRIES   64
#define WAKE_DATA UINT64_C(1)

struct side {
    struct io_uring ring;
    int event_fd;
};

enum way { WAY_EVENTFD, WAY_MSG_RING };

static struct {
    struct side side[2];
    enum way way;
    uint64_t ops;
    bool answers;
    atomic_bool other_open;
    atomic_bool own_open;
    atomic_bool stop;
    _Atomic uint64_t seen;
} pair;

static void arm(struct side *side)
{
    struct io_uring_sqe *sqe = io_uring_get_sqe(&side->ring);
    io_uring_prep_poll_multishot(sqe, side->event_fd, POLLIN);
    io_uring_sqe_set_data64(sqe, WAKE_DATA);
}

static void side_open(struct side *side, enum way way)
{
    struct io_uring_params params = {
        .flags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN |
                 IORING_SETUP_COOP_TASKRUN | IORING_SETUP_TASKRUN_FLAG,
    };
    int rc = io_uring_queue_init_params(ENTRIES, &side->ring, &params);
    if (rc < 0)
        smp_fail("a ring", rc);
    io_uring_register_ring_fd(&side->ring);
    side->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (side->event_fd < 0)
        smp_fail("eventfd", -errno);
    if (way == WAY_EVENTFD) {
        arm(side);
        io_uring_submit(&side->ring);
    }
}

static void side_close(struct side *side)
{
    io_uring_queue_exit(&side->ring);
    close(side->event_fd);
}

static void side_wake(struct side *from, struct side *to)
{
    if (pair.way == WAY_EVENTFD) {
        const uint64_t one = 1;
        if (write(to->event_fd, &one, sizeof(one)) != (ssize_t)sizeof(one))
            smp_fail("a write to an eventfd", -errno);
        return;
    }
    struct io_uring_sqe *sqe = io_uring_get_sqe(&from->ring);
    io_uring_prep_msg_ring(sqe, to->ring.ring_fd, 0, WAKE_DATA, 0);
    sqe->flags |= IOSQE_CQE_SKIP_SUCCESS;
}

/* Takes what has come; returns whether a wake-up was among it. */
static bool side_reap(struct side *side)
{
    struct io_uring_cqe *cqe;
    bool woken = false;
    while (io_uring_peek_cqe(&side->ring, &cqe) == 0) {
        if (cqe->res < 0)
            smp_fail("a wake-up", cqe->res);
        woken |= cqe->user_data == WAKE_DATA;
        if (pair.way == WAY_EVENTFD && (cqe->flags & IORING_CQE_F_MORE) == 0)
            arm(side);
        io_uring_cqe_seen(&side->ring, cqe);
    }
    return woken;
}

static void side_wait(struct side *side)
{
    do {
        int rc = io_uring_submit_and_wait(&side->ring, 1);
        if (rc < 0 && rc != -EINTR)
            smp_fail("io_uring_enter", rc);
    } while (!side_reap(side));
}

/* Both rings must be there before either is written to. */
static void meet(atomic_bool *own, atomic_bool *other)
{
    atomic_store_explicit(own, true, memory_order_release);
    while (!atomic_load_explicit(other, memory_order_acquire))
        ;
}

static int pair_peer(void *arg, union shoal_value *out)
{
    (void)arg;
    smp_peer_begun();
    side_open(&pair.side[1], pair.way);
    meet(&pair.other_open, &pair.own_open);
    for (uint64_t i = 0; i < pair.ops; i++) {
        side_wait(&pair.side[1]);
        if (pair.answers)
            side_wake(&pair.side[1], &pair.side[0]);
        atomic_store_explicit(&pair.seen, i + 1, memory_order_release);
    }
    io_uring_submit(&pair.side[1].ring);
    out->u64 = pair.ops;
    return 0;
}

static void pair_start(uint64_t ops, enum way way, bool answers, shoal_submit_fn *peer)
{
    pair.way = way;
    pair.ops = ops;
    pair.answers = answers;
    atomic_store_explicit(&pair.other_open, false, memory_order_relaxed);
    atomic_store_explicit(&pair.own_open, false, memory_order_relaxed);
    atomic_store_explicit(&pair.stop, false, memory_order_relaxed);
    atomic_store_explicit(&pair.seen, 0, memory_order_relaxed);
    smp_peer_start(peer, NULL);
    side_open(&pair.side[0], way);
    meet(&pair.own_open, &pair.other_open);
}

static void pair_end(void)
{
    smp_peer_join();
    side_close(&pair.side[0]);
    side_close(&pair.side[1]);
}

static uint64_t round_trips(uint64_t ops, struct smp_sample *sample, enum way way,
                            uint64_t pause_ns)
{
    const struct timespec pause = {.tv_nsec = (long)pause_ns};
    pair_start(ops, way, true, pair_peer);
    for (uint64_t i = 0; i < ops; i++) {
        if (pause_ns != 0)
            nanosleep(&pause, NULL);
        uint64_t begin_ns = shoal_now_ns();
        side_wake(&pair.side[0], &pair.side[1]);
        side_wait(&pair.side[0]);
        smp_latency_ns[i] = shoal_now_ns() - begin_ns;
    }
    pair_end();
    return smp_median_us(sample, smp_latency_ns, ops);
}

static uint64_t paused_eventfd(uint64_t ops, struct smp_sample *sample)
{
    return round_trips(ops, sample, WAY_EVENTFD, PAUSE_NS);
}

static uint64_t paused_msg_ring(uint64_t ops, struct smp_sample *sample)
{
    return round_trips(ops, sample, WAY_MSG_RING, PAUSE_NS);
}

static uint64_t busy_eventfd(uint64_t ops, struct smp_sample *sample)
{
    return round_trips(ops, sample, WAY_EVENTFD, 0);
}

static uint64_t busy_msg_ring(uint64_t ops, struct smp_sample *sample)
{
    return round_trips(ops, sample, WAY_MSG_RING, 0);
}

/* ---- What the sender pays ---- */

static void send_timed(uint64_t i)
{
    uint64_t begin_ns = shoal_now_ns();
    side_wake(&pair.side[0], &pair.side[1]);
    if (pair.way == WAY_MSG_RING) {
        int rc = io_uring_submit(&pair.side[0].ring);
        if (rc != 1)
            smp_fail("a submit", rc < 0 ? rc : -EIO);
    }
    smp_latency_ns[i] = shoal_now_ns() - begin_ns;
}

static uint64_t send_asleep(uint64_t ops, struct smp_sample *sample, enum way way)
{
    const struct timespec pause = {.tv_nsec = 100 * SHOAL_NS_PER_US};
    pair_start(ops, way, false, pair_peer);
    for (uint64_t i = 0; i < ops; i++) {
        while (atomic_load_explicit(&pair.seen, memory_order_acquire) != i)
            ;
        nanosleep(&pause, NULL); /* it sleeps by then */
        send_timed(i);
    }
    pair_end();
    return smp_median_us(sample, smp_latency_ns, ops);
}

static int awake_peer(void *arg, union shoal_value *out)
{
    (void)arg;
    smp_peer_begun();
    side_open(&pair.side[1], pair.way);
    meet(&pair.other_open, &pair.own_open);
    while (!atomic_load_explicit(&pair.stop, memory_order_acquire)) {
        (void)io_uring_get_events(&pair.side[1].ring);
        if (side_reap(&pair.side[1]))
            atomic_fetch_add_explicit(&pair.seen, 1, memory_order_release);
    }
    out->u64 = 0;
    return 0;
}

static uint64_t send_awake(uint64_t ops, struct smp_sample *sample, enum way way)
{
    pair_start(ops, way, false, awake_peer);
    for (uint64_t i = 0; i < ops; i++) {
        uint64_t seen = atomic_load_explicit(&pair.seen, memory_order_acquire);
        send_timed(i);
        while (atomic_load_explicit(&pair.seen, memory_order_acquire) == seen)
            ;
    }
    atomic_store_explicit(&pair.stop, true, memory_order_release);
    pair_end();
    return smp_median_us(sample, smp_latency_ns, ops);
}

static uint64_t asleep_eventfd(uint64_t ops, struct smp_sample *sample)
{
    return send_asleep(ops, sample, WAY_EVENTFD);
}

static uint64_t asleep_msg_ring(uint64_t ops, struct smp_sample *sample)
{
    return send_asleep(ops, sample, WAY_MSG_RING);
}

static uint64_t awake_eventfd(uint64_t ops, struct smp_sample *sample)
{
    return send_awake(ops, sample, WAY_EVENTFD);
}

static uint64_t awake_msg_ring(uint64_t ops, struct smp_sample *sample)
{
    return send_awake(ops, sample, WAY_MSG_RING);
}

const struct smp_case smp_wake_cases[] = {
    {"wake-uring",
     "us",
     "two rings wake each other, after a pause",
     2,
     50,
     false,
     {{"eventfd", paused_eventfd}, {"msg-ring", paused_msg_ring}}},
    {"wake-uring-busy",
     "us",
     "the same without pauses",
     2,
     50,
     false,
     {{"eventfd", busy_eventfd}, {"msg-ring", busy_msg_ring}}},
    {"wake-send",
     "us",
     "what waking a thread costs the sender",
     2,
     50,
     false,
     {{"eventfd", asleep_eventfd}, {"msg-ring", asleep_msg_ring}}},
    {"wake-send-awake",
     "us",
     "the same when the thread is awake",
     2,
     200,
     true,
     {{"eventfd", awake_eventfd}, {"msg-ring", awake_msg_ring}}},
    {.name = NULL},
};
