/*
 * What the hard tests of messages share: a seed, random delays on every core, and a look at what
 * each core holds.
 *
 * The seed is printed at the start; SHOAL_TEST_SEED=<number> gives it. With the same seed each core
 * draws the same numbers; what the scheduler of the kernel makes of them is its own.
 */
#ifndef SHOAL_TESTS_UNIT_MAIL_CHECK_H
#define SHOAL_TESTS_UNIT_MAIL_CHECK_H

#include <signal.h>
#include <stdlib.h>
#include <time.h>

#include <unistd.h>

#include "shoal/runtime/clock.h"
#include "shoal/runtime/core_impl.h"
#include "shoal/runtime/delay_impl.h"
#include "shoal/runtime/fault.h"
#include "shoal/runtime/fiber.h"
#include "shoal/runtime/mem_report.h"

#include "shoal/smp/service_group.h"
#include "shoal/smp/submit.h"

#include "unit/harness.h"

#define MAIL_CORES_MAX 8
#define MAIL_HANG_S    100
#define MAIL_SLABS_MAX 48

static uint64_t mail_seed;

/* ---- Hanging ---- */

static void mail_hangs(int signal_number)
{
    (void)signal_number;
    char line[100];
    int n = snprintf(line, sizeof(line), "hangs; SHOAL_TEST_SEED=%llu\n",
                     (unsigned long long)mail_seed);
    if (write(STDERR_FILENO, line, (size_t)n) > 0)
        abort();
}

/* Once, at the start: the seed, and a limit for all, so that a hang is told with it. */
static inline void mail_begin(void)
{
    struct timespec now;
    const char *given = getenv("SHOAL_TEST_SEED");
    clock_gettime(CLOCK_REALTIME, &now);
    mail_seed = (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
    if (given != NULL)
        mail_seed = strtoull(given, NULL, 10);
    fprintf(stderr, "SHOAL_TEST_SEED=%llu\n", (unsigned long long)mail_seed);
    signal(SIGALRM, mail_hangs);
    alarm(MAIL_HANG_S);
}

/* A generator for whatever has the number `salt`; never 0. */
static inline uint64_t mail_random_start(uint64_t salt)
{
    uint64_t state = (mail_seed + salt * UINT64_C(0x9e3779b97f4a7c15)) | 1;
    for (int i = 0; i < 4; i++)
        (void)shoal_test_random(&state);
    return state;
}

/* ---- On all cores ---- */

/* Runs `fn(arg)` on all cores as a plain call, one after the other. */
static inline void mail_on_all(shoal_submit_fn *fn, void *arg)
{
    for (unsigned i = 0; i < shoal_core_count(); i++)
        while (shoal_await(shoal_submit_to(i, fn, arg), NULL) == -ENOMEM)
            (void)shoal_yield();
}

static inline int mail_arm_delays_here(void *arg, union shoal_value *out)
{
    const struct shoal_delay_plan *plan = arg;
    (void)out;
    struct shoal_delay_plan mine = *plan;
    mine.seed = mail_random_start(plan->seed * 100 + (unsigned)shoal_core_id());
    shoal_delay_arm(&mine);
    return 0;
}

static inline int mail_disarm_delays_here(void *arg, union shoal_value *out)
{
    (void)arg;
    (void)out;
    shoal_delay_disarm(NULL);
    return 0;
}

/* Delays at random from now on, on every core, in runs with a number each. */
static inline void mail_delays(unsigned run, uint32_t chance_ppm, uint32_t sleep_ns_max)
{
    struct shoal_delay_plan plan = {
        .seed = run, .chance_ppm = chance_ppm, .sleep_ns_max = sleep_ns_max};
    mail_on_all(mail_arm_delays_here, &plan);
}

/* ---- Runs, and what calls do ---- */

static const char *const mail_sleepy[] = {"--overprovisioned", "--idle-poll-time-us", "0", NULL};
static const char *const mail_polling[] = {"--poll-mode", NULL};
static const char *const mail_spinning[] = {"--idle-poll-time-us", "1000000", NULL};

static inline void mail_run_with(unsigned cores, const char *const *words, int (*fn)(void *arg))
{
    struct shoal_test_options options = {.cores = cores, .words = words};
    assert_int_equal(shoal_test_run_options(&options, fn, NULL), 0);
}

static inline int mail_nothing(void *arg, union shoal_value *out)
{
    (void)arg;
    (void)out;
    return 0;
}

static inline void mail_burn(uint64_t ns)
{
    for (uint64_t end_ns = shoal_now_ns() + ns; shoal_now_ns() < end_ns;)
        ;
}

/* ---- What a core holds ---- */

struct mail_holding {
    uint64_t used_bytes;
    uint64_t timers;
    uint32_t fibers;
    uint32_t slabs;
    uint32_t live[MAIL_SLABS_MAX];
    const char *name[MAIL_SLABS_MAX];
};

static inline void mail_note_slab(void *arg, const struct shoal_slab_stats *stats)
{
    struct mail_holding *holding = arg;
    if (!SHOAL_EXPECT(holding->slabs < MAIL_SLABS_MAX))
        return;
    holding->live[holding->slabs] = stats->live;
    holding->name[holding->slabs++] = stats->name;
}

static inline int mail_look(void *arg, union shoal_value *out)
{
    (void)out;
    struct mail_holding *holding = (struct mail_holding *)arg + shoal_core_id();
    struct shoal_mem_report report;
    memset(holding, 0, sizeof(*holding));
    shoal_mem_report(&report);
    holding->used_bytes = report.allocator.used_bytes;
    holding->timers = shoal_core_self->timers.armed;
    holding->fibers = report.fibers;
    shoal_slab_stats(mail_note_slab, holding);
    for (uint32_t i = 0; i < holding->slabs; i++)
        if (strcmp(holding->name[i], "fiber") == 0)
            holding->live[i] -= report.fibers_free;
    return 0;
}

static inline bool mail_same_live(const struct mail_holding *a, const struct mail_holding *b)
{
    return a->fibers == b->fibers && a->timers == b->timers && a->slabs == b->slabs &&
           memcmp(a->live, b->live, sizeof(a->live)) == 0;
}

/* Waits until each core holds what it held at `before`; false after some seconds of waiting. */
static inline bool mail_settle(const struct mail_holding *before, struct mail_holding *now)
{
    for (int look = 0; look < 2000; look++) {
        bool same = true;
        mail_on_all(mail_look, now);
        for (unsigned i = 0; i < shoal_core_count(); i++)
            same &= mail_same_live(&before[i], &now[i]);
        if (same)
            return true;
        (void)shoal_sleep_ns(SHOAL_NS_PER_MS);
    }
    return false;
}

static inline void mail_say_difference(const struct mail_holding *before,
                                       const struct mail_holding *now)
{
    for (unsigned core = 0; core < shoal_core_count(); core++) {
        const struct mail_holding *a = &before[core], *b = &now[core];
        fprintf(stderr, "core %u: %u fibers, were %u; %llu timers, were %llu\n", core, b->fibers,
                a->fibers, (unsigned long long)b->timers, (unsigned long long)a->timers);
        for (uint32_t i = 0; i < a->slabs && i < b->slabs; i++)
            if (a->live[i] != b->live[i])
                fprintf(stderr, "core %u: slab %s: %u live, were %u\n", core, a->name[i],
                        b->live[i], a->live[i]);
    }
}

/* ---- Tasks without end ---- */

static struct mail_endless {
    struct shoal_task task;
    bool over;
} mail_endless[64];

static inline void mail_run_endless(struct shoal_task *task)
{
    struct mail_endless *self = SHOAL_CONTAINER_OF(task, struct mail_endless, task);
    mail_burn(5000);
    if (!self->over)
        shoal_task_post(task);
}

static inline int mail_begin_endless(void *arg, union shoal_value *out)
{
    (void)arg;
    (void)out;
    for (size_t i = 0; i < SHOAL_ARRAY_SIZE(mail_endless); i++) {
        mail_endless[i].over = false;
        mail_endless[i].task.run = mail_run_endless;
        shoal_task_post(&mail_endless[i].task);
    }
    return 0;
}

static inline int mail_end_endless(void *arg, union shoal_value *out)
{
    (void)arg;
    (void)out;
    for (size_t i = 0; i < SHOAL_ARRAY_SIZE(mail_endless); i++)
        mail_endless[i].over = true;
    return 0;
}

/* ---- Allocations that fail now and then: `arg` is added to the seed ---- */

static inline int mail_arm_faults(void *arg, union shoal_value *out)
{
    (void)out;
    shoal_fault_arm(&(struct shoal_fault_plan){
        .chance_ppm = 20000,
        .seed = mail_random_start((unsigned)(uintptr_t)arg + (unsigned)shoal_core_id())});
    return 0;
}

static inline int mail_disarm_faults(void *arg, union shoal_value *out)
{
    (void)arg;
    (void)out;
    shoal_fault_disarm(NULL);
    return 0;
}

#endif
