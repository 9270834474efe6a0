/*
 * The balancer: looking, judging and planning. See balance_impl.h.
 *
 * The constants, and why:
 *   interval      20 us a core: a look costs a cache miss a core, about 0.1 us, so that looks take
 *                 0.5 % of a core's time at most, whatever their number. In a burst sooner: when
 * this core has got as many connections since as there are cores, a line read for each. times
 * looked at every 100 ms: reading another thread's clock is a system call a core, and a shorter
 * time says little about how busy a core is. counts        looked at every 20 ms, so that a new
 * kind of client is seen soon. margin        a 32nd of the mean, half a connection at least: for
 * connections that last, a message each costs nothing that matters, and a few that last for hours
 * can be even to one. brief         connections that last less than 50 ms, and so many of them
 * (1000 a second for each core) that a message each would cost: they are gone before anything can
 * be made even by them.
 */
#include <pthread.h>

#include "shoal/runtime/check.h"
#include "shoal/runtime/clock.h"
#include "shoal/runtime/core_impl.h"

#include "shoal/net/balance_impl.h"

#define INTERVAL_PER_CORE_NS (20 * SHOAL_NS_PER_US)
#define TIMES_NS             (100 * SHOAL_NS_PER_MS)
#define COUNTS_NS            (20 * SHOAL_NS_PER_MS)
#define BRIEF_US             UINT64_C(50000)
#define BRIEF_A_SECOND       UINT64_C(1000)
#define WHOLE                1024u        /* a CPU, or all connections */
#define BUSY_MIN             (WHOLE / 2)  /* below that nobody needs relief */
#define BUSY_MARGIN          (WHOLE / 16) /* over or under the mean; within it nothing changes */
#define SHARE_MAX            (WHOLE * 3 / 4)

clockid_t shoal_load_cpu_clock(void)
{
    clockid_t clock;
    int rc = pthread_getcpuclockid(pthread_self(), &clock);
    return rc == 0 ? clock : CLOCK_THREAD_CPUTIME_ID;
}

static size_t balancer_bytes(unsigned cores)
{
    return sizeof(struct shoal_balancer) + cores * sizeof(struct shoal_balance_view);
}

struct shoal_balancer *shoal_balancer_new(_Atomic(struct shoal_load *) *loads, unsigned cores,
                                          bool samples_cpu)
{
    struct shoal_balancer *balancer = shoal_mem_alloc_zeroed(balancer_bytes(cores));
    if (balancer == NULL)
        return NULL;
    balancer->loads = loads;
    balancer->self = shoal_core_self->id;
    balancer->cores = cores;
    balancer->samples_cpu = samples_cpu;
    balancer->interval_ns = cores * INTERVAL_PER_CORE_NS;
    return balancer;
}

void shoal_balancer_free(struct shoal_balancer *balancer)
{
    if (balancer != NULL)
        shoal_mem_free(balancer, balancer_bytes(balancer->cores));
}

/* ---- Judging: whether connections last, and how busy the cores are ---- */

/*
 * Connections last, on the average, (the time that all were open) / (how many ended). Back from
 * brief to lasting takes twice as much as the other way.
 */
void shoal_balancer_judge_counts(struct shoal_balancer *balancer, uint64_t elapsed_us,
                                 uint64_t closed, uint64_t lived_us)
{
    uint64_t limit_us = balancer->brief ? 2 * BRIEF_US : BRIEF_US;
    bool many = closed * 1000000 / BRIEF_A_SECOND >= elapsed_us * balancer->cores;
    balancer->brief = many && lived_us < closed * limit_us;
}

static unsigned mean_busy(const struct shoal_balancer *balancer)
{
    unsigned total = 0;
    SHOAL_DCHECK(balancer->cores > 0, "a balancer without cores");
    for (unsigned i = 0; i < balancer->cores; i++)
        total += balancer->view[i].busy;
    return total / balancer->cores;
}

static void adapt_share(struct shoal_balancer *balancer, unsigned mean)
{
    unsigned mine = balancer->view[balancer->self].busy;
    unsigned share = balancer->share;
    if (mine >= BUSY_MIN && mine > mean + BUSY_MARGIN)
        share += (mine - mean) / 2; /* half the way at a time: what it brings shows later */
    else if (mine < BUSY_MIN || mine + BUSY_MARGIN < mean)
        share -= (share + 3) / 4;
    balancer->share = (uint16_t)(share > SHARE_MAX ? SHARE_MAX : share);
}

/* Those below the mean, each as often as it is below it. */
static void plan_by_busy(struct shoal_balancer *balancer, unsigned mean)
{
    struct shoal_balance_plan *plan = &balancer->by_busy;
    plan->count = plan->next = 0;
    if (balancer->share == 0)
        return;
    unsigned room = 0;
    for (unsigned i = 0; i < balancer->cores; i++)
        if (balancer->view[i].there && i != balancer->self && balancer->view[i].busy < mean)
            room += mean - balancer->view[i].busy;
    /* Walks over the room in even steps; the first half of a step in, so that nobody is left out
     * for being last. */
    unsigned step = room / SHOAL_BALANCE_PLAN_MAX + 1, at = step / 2, passed = 0;
    for (unsigned k = 1; k < balancer->cores; k++) {
        unsigned i = (balancer->self + k) % balancer->cores;
        if (!balancer->view[i].there || balancer->view[i].busy >= mean)
            continue;
        passed += mean - balancer->view[i].busy;
        for (; at < passed && plan->count < SHOAL_BALANCE_PLAN_MAX; at += step)
            plan->core[plan->count++] = (uint16_t)i;
    }
}

void shoal_balancer_judge_times(struct shoal_balancer *balancer)
{
    unsigned mean = mean_busy(balancer);
    adapt_share(balancer, mean);
    plan_by_busy(balancer, mean);
}

/* ---- Planning by connections ---- */

static uint64_t total_open(const struct shoal_balancer *balancer)
{
    uint64_t total = 0;
    for (unsigned i = 0; i < balancer->cores; i++)
        total += balancer->view[i].open;
    return total;
}

/* In units of 1/cores of a connection, so that the mean is a whole number. */
static bool is_over(const struct shoal_balancer *balancer, uint64_t total)
{
    uint64_t mine = (uint64_t)balancer->view[balancer->self].open * balancer->cores;
    /* To leave, it must be well below where it entered. */
    uint64_t margin = total / (balancer->over ? 128 : 32);
    uint64_t least = balancer->cores / (balancer->over ? 4 : 2);
    return mine >= total + (margin > least ? margin : least);
}

/* Whoever is short of time gets nothing for having few connections. */
static bool is_busier(const struct shoal_balancer *balancer, unsigned core)
{
    unsigned busy = balancer->view[core].busy;
    return busy >= BUSY_MIN && busy > balancer->view[balancer->self].busy + BUSY_MARGIN;
}

/* Who serves the fewest of those that may get one; `self` if nobody has fewer than it. */
static unsigned emptiest(const struct shoal_balancer *balancer)
{
    unsigned best = balancer->self;
    for (unsigned k = 1; k < balancer->cores; k++) {
        unsigned i = (balancer->self + k) % balancer->cores;
        if (balancer->view[i].there && balancer->view[i].open < balancer->view[best].open &&
            !is_busier(balancer, i))
            best = i;
    }
    return best;
}

void shoal_balancer_plan(struct shoal_balancer *balancer)
{
    struct shoal_balance_plan *plan = &balancer->by_open;
    plan->count = plan->next = 0;
    balancer->over = !balancer->brief && is_over(balancer, total_open(balancer));
    while (balancer->over && plan->count < SHOAL_BALANCE_PLAN_MAX) {
        unsigned core = emptiest(balancer);
        if (core == balancer->self)
            return;
        balancer->view[core].open++;
        plan->core[plan->count++] = (uint16_t)core;
    }
}

/* ---- Looking ---- */

static struct shoal_load *load_of(const struct shoal_balancer *balancer, unsigned core)
{
    /* acquire: pairs with the release store in net/listen.c:start_here(). */
    return atomic_load_explicit(&balancer->loads[core], memory_order_acquire);
}

static uint64_t lived_until(const struct shoal_load *load, uint64_t now_us)
{
    uint64_t changed_us = atomic_load_explicit(&load->changed_us, memory_order_relaxed);
    uint64_t more_us = now_us > changed_us ? shoal_load_open(load) * (now_us - changed_us) : 0;
    return atomic_load_explicit(&load->lived_us, memory_order_relaxed) + more_us;
}

static void look_at_counts(struct shoal_balancer *balancer, uint64_t now_ns)
{
    uint64_t elapsed_us = (now_ns - balancer->counted_ns) / SHOAL_NS_PER_US;
    uint64_t all_closed = 0, all_lived_us = 0;
    for (unsigned i = 0; i < balancer->cores; i++) {
        const struct shoal_load *load = load_of(balancer, i);
        struct shoal_balance_view *view = &balancer->view[i];
        if (load == NULL)
            continue;
        uint32_t closed = atomic_load_explicit(&load->closed, memory_order_relaxed);
        uint64_t lived_us = lived_until(load, now_ns / SHOAL_NS_PER_US);
        all_closed += (uint32_t)(closed - view->closed);
        all_lived_us += lived_us - view->lived_us;
        view->closed = closed;
        view->lived_us = lived_us;
    }
    if (balancer->counted_ns != 0)
        shoal_balancer_judge_counts(balancer, elapsed_us, all_closed, all_lived_us);
    balancer->counted_ns = now_ns;
}

/* For a thread whose clock cannot be read, all stays as it was. */
static void look_at_time(struct shoal_balance_view *view, const struct shoal_load *load,
                         uint64_t elapsed_ns)
{
    struct timespec time;
    if (clock_gettime(load->cpu_clock, &time) != 0)
        return;
    uint64_t cpu_ns = (uint64_t)time.tv_sec * SHOAL_NS_PER_S + (uint64_t)time.tv_nsec;
    double busy = (double)(cpu_ns - view->cpu_ns) * WHOLE / (double)elapsed_ns;
    if (view->cpu_ns != 0) /* not the first reading */
        view->busy = (uint16_t)(busy > WHOLE ? WHOLE : busy);
    view->cpu_ns = cpu_ns;
}

static void look_at_times(struct shoal_balancer *balancer, uint64_t now_ns)
{
    for (unsigned i = 0; i < balancer->cores; i++) {
        const struct shoal_load *load = load_of(balancer, i);
        if (load != NULL)
            look_at_time(&balancer->view[i], load, now_ns - balancer->timed_ns);
    }
    balancer->timed_ns = now_ns;
    shoal_balancer_judge_times(balancer);
}

static void look(struct shoal_balancer *balancer, uint64_t now_ns)
{
    balancer->next_look_ns = now_ns + balancer->interval_ns;
    balancer->looked_open = shoal_load_open(load_of(balancer, balancer->self));
    for (unsigned i = 0; i < balancer->cores; i++) {
        const struct shoal_load *load = load_of(balancer, i);
        balancer->view[i].there = load != NULL;
        balancer->view[i].open = load != NULL ? shoal_load_open(load) : 0;
    }
    if (now_ns - balancer->counted_ns >= COUNTS_NS)
        look_at_counts(balancer, now_ns);
    if (balancer->samples_cpu && now_ns - balancer->timed_ns >= TIMES_NS)
        look_at_times(balancer, now_ns);
    shoal_balancer_plan(balancer);
}

bool shoal_balancer_pick(struct shoal_balancer *balancer, uint64_t now_ns,
                         struct shoal_balance_target *out)
{
    uint32_t mine = shoal_load_open(load_of(balancer, balancer->self));
    if (now_ns >= balancer->next_look_ns || mine >= balancer->looked_open + balancer->cores)
        look(balancer, now_ns);
    struct shoal_balance_plan *by_open = &balancer->by_open;
    if (by_open->next < by_open->count) {
        out->core = by_open->core[by_open->next++];
        out->below = mine;
        return true;
    }
    struct shoal_balance_plan *by_busy = &balancer->by_busy;
    if (by_busy->count == 0)
        return false;
    balancer->owed = (uint16_t)(balancer->owed + balancer->share);
    if (balancer->owed < WHOLE)
        return false;
    balancer->owed = (uint16_t)(balancer->owed - WHOLE);
    out->core = by_busy->core[by_busy->next];
    out->below = UINT32_MAX;
    by_busy->next = (uint8_t)((by_busy->next + 1) % by_busy->count);
    return true;
}
