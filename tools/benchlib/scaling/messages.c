/*
 * The workload of pure messages: every core keeps a window of submits in flight, spread evenly over
 * the other cores, and sends the next when an answer comes. No I/O.
 *
 * 1. With one core the messages go to itself: through the run queue, and no ring.
 * 2. Each core measures by itself between its own two looks at the clock, in the middle of the run:
 *    the rates add up, and who began earlier does not count for more.
 * 3. One in TIMED_EVERY messages is timed, since a look at the clock costs as much as a message.
 * 4. What the functions counted where they ran must agree with the answers, and with more than one
 *    core none may have run where it was sent: else the run fails.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "scaling.h"

#define TIMED_EVERY 16u

/* Latencies in buckets of a sixty-fourth of a power of two: 1.6 % apart. */
#define FINE_BITS 6u
#define FINE      (1u << FINE_BITS)
#define BUCKETS   (40u << FINE_BITS)

struct sender;

struct client {
    struct sender *sender;
    uint64_t sent_ns; /* of a timed one */
    bool timed;
};

/* One core's part. Written by that core alone; core 0 reads it when that core has answered. */
struct sender {
    uint64_t served;  /* messages that ran here */
    uint64_t at_home; /* of these, its own */
    uint64_t answered;
    uint64_t in_flight;
    unsigned last; /* core that was sent to */
    bool measuring;
    bool stopping;
    bool sending; /* guards against an answer inside the call that sends */
    struct shoal_future *drained;
    uint64_t ops; /* of the measured stretch, as are the next two */
    uint64_t elapsed_ns;
    uint64_t cpu_ns;
    struct client clients[SCALING_WINDOW_MAX];
    uint64_t latency[BUCKETS];
} __attribute__((aligned(SHOAL_CACHE_LINE)));

static struct sender *senders; /* by core */
static const struct scaling *config;

static unsigned bucket_of(uint64_t ns)
{
    if (ns < FINE)
        return (unsigned)ns;
    unsigned power = 63u - (unsigned)__builtin_clzll(ns) - FINE_BITS;
    unsigned bucket = ((power + 1) << FINE_BITS) + (unsigned)((ns >> power) - FINE);
    return bucket < BUCKETS ? bucket : BUCKETS - 1;
}

/* The middle of a bucket. */
static double bucket_ns(unsigned bucket)
{
    if (bucket < FINE)
        return (double)bucket;
    unsigned power = (bucket >> FINE_BITS) - 1;
    uint64_t low = (uint64_t)(FINE + (bucket & (FINE - 1))) << power;
    return (double)low + (double)(UINT64_C(1) << power) / 2;
}

/* `arg` is the sender: only its address is looked at. */
static int serve(void *arg, union shoal_value *out)
{
    struct sender *mine = &senders[shoal_core_id()];
    out->u64 = ++mine->served;
    if (arg == mine)
        mine->at_home++;
    return 0;
}

static void answered(void *arg);

static void send_next(struct client *client)
{
    struct sender *sender = client->sender;
    sender->last = scaling_next_core(sender->last);
    if (client->timed)
        client->sent_ns = shoal_now_ns();
    sender->in_flight++;
    sender->sending = true;
    shoal_discard(shoal_finally(shoal_submit_to(sender->last, serve, sender), answered, client));
    sender->sending = false;
}

static void answered(void *arg)
{
    struct client *client = (struct client *)arg;
    struct sender *sender = client->sender;
    sender->in_flight--;
    sender->answered++;
    if (client->timed && sender->measuring)
        sender->latency[bucket_of(shoal_now_ns() - client->sent_ns)]++;
    if (!sender->stopping && !sender->sending)
        send_next(client);
    else if (sender->in_flight == 0 && sender->drained != NULL)
        shoal_future_resolve(sender->drained, NULL);
}

static uint64_t thread_cpu_ns(void)
{
    struct timespec time;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
    return (uint64_t)time.tv_sec * SHOAL_NS_PER_S + (uint64_t)time.tv_nsec;
}

/* On a fiber of each core. */
static int send_and_measure(void *arg, union shoal_value *out)
{
    struct sender *sender = (struct sender *)arg;
    (void)out;
    sender->last = (unsigned)shoal_core_id();
    for (unsigned i = 0; i < config->window; i++) {
        sender->clients[i] = (struct client){.sender = sender, .timed = i % TIMED_EVERY == 0};
        send_next(&sender->clients[i]);
    }
    int rc = shoal_sleep_ns(config->warm_up_ns);
    uint64_t begin_ns = shoal_now_ns();
    uint64_t begin_cpu_ns = thread_cpu_ns();
    uint64_t begin_ops = sender->answered;
    sender->measuring = true;
    if (rc == 0)
        rc = shoal_sleep_ns(config->run_ns);
    sender->measuring = false;
    sender->ops = sender->answered - begin_ops;
    sender->cpu_ns = thread_cpu_ns() - begin_cpu_ns;
    sender->elapsed_ns = shoal_now_ns() - begin_ns;
    sender->stopping = true;
    if (sender->in_flight > 0) {
        sender->drained = shoal_future_new();
        int drained = shoal_await(sender->drained, NULL);
        rc = rc < 0 ? rc : drained;
    }
    return rc;
}

static double percentile_us(const uint64_t *latency, uint64_t total, double part)
{
    double below = 0;
    for (unsigned bucket = 0; bucket < BUCKETS; bucket++) {
        below += (double)latency[bucket];
        if (below >= part * (double)total)
            return bucket_ns(bucket) / 1e3;
    }
    return 0;
}

static int report(unsigned cores)
{
    uint64_t latency[BUCKETS] = {0};
    uint64_t timed = 0;
    uint64_t ops = 0;
    uint64_t sent = 0;
    uint64_t served = 0;
    uint64_t at_home = 0;
    uint64_t in_flight = 0;
    uint64_t cpu_ns = 0;
    double rate = 0;
    double cpus = 0;
    for (unsigned core = 0; core < cores; core++) {
        const struct sender *sender = &senders[core];
        ops += sender->ops;
        sent += sender->answered;
        served += sender->served;
        at_home += sender->at_home;
        in_flight += sender->in_flight;
        cpu_ns += sender->cpu_ns;
        rate += (double)sender->ops * 1e9 / (double)sender->elapsed_ns;
        cpus += (double)sender->cpu_ns / (double)sender->elapsed_ns;
        for (unsigned bucket = 0; bucket < BUCKETS; bucket++) {
            latency[bucket] += sender->latency[bucket];
            timed += sender->latency[bucket];
        }
    }
    if (sent != served || in_flight != 0 || at_home != (cores > 1 ? 0 : served) || ops == 0 ||
        timed == 0) {
        fprintf(stderr,
                "%" PRIu64 " messages sent, %" PRIu64 " of them ran, %" PRIu64 " at home, %" PRIu64
                " timed\n",
                sent, served, at_home, timed);
        return 1;
    }
    printf("ops_per_s\t%.1f\n", rate);
    printf("cpus\t%.4f\n", cpus);
    printf("cpu_us_per_op\t%.6f\n", (double)cpu_ns / 1e3 / (double)ops);
    printf("p50_us\t%.4f\n", percentile_us(latency, timed, 0.5));
    printf("p99_us\t%.4f\n", percentile_us(latency, timed, 0.99));
    printf("p999_us\t%.4f\n", percentile_us(latency, timed, 0.999));
    printf("operations\t%" PRIu64 "\n", ops);
    printf("backend\t%s\n", shoal_core_io_backend());
    return 0;
}

int scaling_messages(const struct scaling *scaling)
{
    unsigned cores = shoal_core_count();
    struct shoal_future *done[SHOAL_CORES_MAX];
    size_t bytes = cores * sizeof(struct sender);
    config = scaling;
    senders = shoal_mem_alloc_aligned(bytes, SHOAL_CACHE_LINE);
    if (senders == NULL)
        return -ENOMEM;
    memset(senders, 0, bytes);
    for (unsigned core = 0; core < cores; core++)
        done[core] = shoal_submit_fiber_to(core, send_and_measure, &senders[core]);
    int rc = 0;
    for (unsigned core = 0; core < cores; core++) {
        int ended = shoal_await(done[core], NULL);
        rc = rc < 0 ? rc : ended;
    }
    if (rc == 0)
        rc = report(cores);
    shoal_mem_free_aligned(senders, bytes, SHOAL_CACHE_LINE);
    return rc;
}
