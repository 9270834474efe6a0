/*
 * A function on a core that sleeps, asked for by a core that slept until then; and the limit: two
 * threads that wake each other by eventfd.
 *
 * 1. Before each question the asking fiber sleeps for PAUSE_NS, twice what a core spins for at
 *    most after a message (--idle-poll-time-us): both cores are asleep in the kernel, and core 0 is
 *    woken by its timer. What counts begins then.
 * 2. The limits do the same: a sleep of that length, then the time from the write that wakes the
 *    other thread to the return of the wait for its answer. Two CPUs that have been idle for as
 *    long are in the same depth of sleep.
 * 3. "limit" is the form that the kernel makes fastest here: tools/bench takes, in each round, the
 *    least of the three forms. "there-and-back" is the same without the pauses.
 */
#include <errno.h>
#include <time.h>

#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "smp.h"

#define PAUSE_NS (400 * SHOAL_NS_PER_US)

static int add_one(void *arg, union shoal_value *out)
{
    uint64_t *counter = arg;
    out->u64 = ++*counter;
    return 0;
}

static uint64_t ask_sleeping(uint64_t ops, struct smp_sample *sample)
{
    static uint64_t counter;
    unsigned core = smp_target();
    for (uint64_t i = 0; i < ops; i++) {
        smp_check(shoal_sleep_ns(PAUSE_NS), "a pause");
        uint64_t begin_ns = shoal_now_ns();
        smp_check(shoal_await(shoal_submit_to(core, add_one, &counter), NULL), "a message");
        smp_latency_ns[i] = shoal_now_ns() - begin_ns;
    }
    return smp_median_us(sample, smp_latency_ns, ops);
}

/* ---- Two threads with an eventfd each ---- */

enum form { FORM_READ, FORM_EPOLL, FORM_EDGE };

struct side {
    int event_fd;
    int epoll_fd;
};

static struct {
    struct side side[2];
    enum form form;
    uint64_t ops;
} pair;

static void side_open(struct side *side, enum form form)
{
    side->event_fd = eventfd(0, EFD_CLOEXEC | (form == FORM_READ ? 0 : EFD_NONBLOCK));
    side->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event event = {.events = EPOLLIN | (form == FORM_EDGE ? EPOLLET : 0)};
    if (side->event_fd < 0 || side->epoll_fd < 0 ||
        epoll_ctl(side->epoll_fd, EPOLL_CTL_ADD, side->event_fd, &event) != 0)
        smp_fail("eventfd", -errno);
}

static void side_close(struct side *side)
{
    close(side->epoll_fd);
    close(side->event_fd);
}

static void side_wake(const struct side *side)
{
    const uint64_t one = 1;
    if (write(side->event_fd, &one, sizeof(one)) != (ssize_t)sizeof(one))
        smp_fail("a write to an eventfd", -errno);
}

static void side_wait(const struct side *side, enum form form)
{
    uint64_t count;
    struct epoll_event event;
    if (form != FORM_READ)
        while (epoll_wait(side->epoll_fd, &event, 1, -1) != 1)
            ;
    if (form == FORM_EDGE)
        return; /* the next write is another edge; the count does no harm */
    if (read(side->event_fd, &count, sizeof(count)) != (ssize_t)sizeof(count))
        smp_fail("a read from an eventfd", -errno);
}

static int pair_peer(void *arg, union shoal_value *out)
{
    (void)arg;
    smp_peer_begun();
    for (uint64_t i = 0; i < pair.ops; i++) {
        side_wait(&pair.side[1], pair.form);
        side_wake(&pair.side[0]);
    }
    out->u64 = pair.ops;
    return 0;
}

static uint64_t pair_of(uint64_t ops, struct smp_sample *sample, enum form form, uint64_t pause_ns)
{
    pair.form = form;
    pair.ops = ops;
    side_open(&pair.side[0], form);
    side_open(&pair.side[1], form);
    smp_peer_start(pair_peer, NULL);
    const struct timespec pause = {.tv_nsec = (long)pause_ns};
    for (uint64_t i = 0; i < ops; i++) {
        if (pause_ns != 0)
            nanosleep(&pause, NULL);
        uint64_t begin_ns = shoal_now_ns();
        side_wake(&pair.side[1]);
        side_wait(&pair.side[0], form);
        smp_latency_ns[i] = shoal_now_ns() - begin_ns;
    }
    smp_peer_join();
    side_close(&pair.side[0]);
    side_close(&pair.side[1]);
    return smp_median_us(sample, smp_latency_ns, ops);
}

static uint64_t limit_read(uint64_t ops, struct smp_sample *sample)
{
    return pair_of(ops, sample, FORM_READ, PAUSE_NS);
}

static uint64_t limit_epoll(uint64_t ops, struct smp_sample *sample)
{
    return pair_of(ops, sample, FORM_EPOLL, PAUSE_NS);
}

static uint64_t limit_edge(uint64_t ops, struct smp_sample *sample)
{
    return pair_of(ops, sample, FORM_EDGE, PAUSE_NS);
}

static uint64_t there_and_back(uint64_t ops, struct smp_sample *sample)
{
    return pair_of(ops, sample, FORM_READ, 0);
}

const struct smp_case smp_sleep_cases[] = {
    {"submit-sleeping",
     "us",
     "a function on a core that sleeps; limit: eventfds",
     2,
     50,
     false,
     {{"shoal", ask_sleeping},
      {"limit-read", limit_read},
      {"limit-epoll", limit_epoll},
      {"limit-edge", limit_edge},
      {"there-and-back", there_and_back}}},
    {.name = NULL},
};
