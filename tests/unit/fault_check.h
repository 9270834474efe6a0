/*
 * Walking over a scene: it runs again and again, and in the Nth run the Nth allocation fails, until
 * a run asks for fewer than N. After each run everything must be as it was before: slabs, memory,
 * buffers, timers, fibers and descriptors of both cores.
 *
 * A scene runs on a fiber of core 0 of two. It returns 0 when it has done all its work, -ENOMEM
 * when it could not, and notes by SHOAL_EXPECT what is neither.
 *
 *   warm: all runs in one program, whose slabs have what the scene needs from the runs before
 *   cold: each run in a program of its own, in a child process, where chunks, rings and stacks are
 *         made for the first time; what leaks is reported as the program ends
 */
#ifndef SHOAL_TESTS_UNIT_FAULT_CHECK_H
#define SHOAL_TESTS_UNIT_FAULT_CHECK_H

#include <signal.h>

#include <dirent.h>
#include <unistd.h>

#ifdef SHOAL_ASAN
#include <sanitizer/lsan_interface.h>
#endif

#include "shoal/runtime/core_impl.h"
#include "shoal/runtime/fault.h"
#include "shoal/runtime/mem_report.h"

#include "shoal/smp/submit.h"

#include "unit/harness.h"

#define FAULT_CORES       2
#define FAULT_N_MAX       20000
#define FAULT_HANG_S      30
#define FAULT_SETTLE_LOOK 3000
#define FAULT_SAME_LOOKS  3
#define FAULT_SLABS_MAX   48
#define FAULT_LEAKED      98
#define FAULT_SOAK        60 /* runs */
#define FAULT_FAILURES    3  /* enough to be told of */
/* Every N in the build that checks most and takes least time for it. */
#if defined(SHOAL_DEBUG) && SHOAL_TEST_SLOWDOWN == 1
#define FAULT_STEP 1u
#else
#define FAULT_STEP 3u
#endif

typedef int fault_scene(void);

struct fault_walk {
    const char *name;
    fault_scene *scene;
    int (*begin)(void); /* before all runs, without faults; may be NULL */
    void (*end)(void);
    uint64_t step; /* of N; 0: the default */
    unsigned
        patience; /* runs in a row that do not get to N, where the way is not always the same */
};

/* What one core holds. */
struct fault_holding {
    uint64_t other_bytes;
    uint64_t timers;
    uint32_t fibers;
    uint32_t buffers_held;
    uint32_t slabs;
    uint32_t live[FAULT_SLABS_MAX];
    const char *name[FAULT_SLABS_MAX];
};

/* ---- Which run it is, for whoever has to say that it hangs ---- */

static struct {
    const char *scene;
    unsigned cores;
    uint64_t n;
    unsigned failures;
} fault_now;

static void fault_hangs(int signal_number)
{
    (void)signal_number;
    char line[200];
    int n = snprintf(line, sizeof(line), "%s hangs: allocation %llu, cores %x\n", fault_now.scene,
                     (unsigned long long)fault_now.n, fault_now.cores);
    if (write(STDERR_FILENO, line, (size_t)n) > 0)
        abort();
}

static inline void fault_expect_end(const char *scene, unsigned cores, uint64_t n)
{
    fault_now.scene = scene;
    fault_now.cores = cores;
    fault_now.n = n;
    signal(SIGALRM, fault_hangs);
    alarm(FAULT_HANG_S * SHOAL_TEST_SLOWDOWN);
}

/* ---- What is held ---- */

static inline void fault_note_slab(void *arg, const struct shoal_slab_stats *stats)
{
    struct fault_holding *holding = arg;
    if (!SHOAL_EXPECT(holding->slabs < FAULT_SLABS_MAX))
        return;
    holding->live[holding->slabs] = stats->live;
    holding->name[holding->slabs++] = stats->name;
}

static inline int fault_look(void *arg, union shoal_value *out)
{
    (void)out;
    struct fault_holding *holding = arg;
    struct shoal_mem_report report;
    memset(holding, 0, sizeof(*holding));
    shoal_mem_report(&report);
    holding->other_bytes = report.other_bytes;
    holding->timers = shoal_core_self->timers.armed;
    holding->fibers = report.fibers;
    holding->buffers_held = report.buffers - report.buffers_free;
    shoal_slab_stats(fault_note_slab, holding);
    for (uint32_t i = 0; i < holding->slabs; i++)
        if (strcmp(holding->name[i], "fiber") == 0)
            holding->live[i] -= report.fibers_free; /* the pool keeps them */
    return 0;
}

static inline int fault_descriptors(void)
{
    int count = 0;
    DIR *folder = opendir("/proc/self/fd");
    if (folder == NULL)
        return -1;
    while (readdir(folder) != NULL)
        count++;
    closedir(folder);
    return count;
}

struct fault_state {
    struct fault_holding core[FAULT_CORES];
    int descriptors;
};

static inline void fault_take_stock(struct fault_state *state)
{
    for (unsigned i = 0; i < FAULT_CORES; i++)
        (void)shoal_await(shoal_submit_to(i, fault_look, &state->core[i]), NULL);
    state->descriptors = fault_descriptors();
}

static inline bool fault_same(const struct fault_state *a, const struct fault_state *b)
{
    bool same = a->descriptors == b->descriptors;
    for (unsigned i = 0; i < FAULT_CORES; i++)
        same &= memcmp(&a->core[i], &b->core[i], sizeof(a->core[i])) == 0;
    return same;
}

static inline void fault_say(const char *what, const char *name, unsigned core, uint64_t was,
                             uint64_t is)
{
    if (was != is)
        fprintf(stderr, "  core %u: %s%s: %llu before, %llu now\n", core, what, name,
                (unsigned long long)was, (unsigned long long)is);
}

static inline void fault_say_difference(const struct fault_state *was, const struct fault_state *is)
{
    for (unsigned i = 0; i < FAULT_CORES; i++) {
        const struct fault_holding *a = &was->core[i], *b = &is->core[i];
        fault_say("bytes", "", i, a->other_bytes, b->other_bytes);
        fault_say("timers", "", i, a->timers, b->timers);
        fault_say("fibers", "", i, a->fibers, b->fibers);
        fault_say("buffers held", "", i, a->buffers_held, b->buffers_held);
        fault_say("slabs", "", i, a->slabs, b->slabs);
        for (uint32_t slab = 0; slab < a->slabs && slab < b->slabs; slab++)
            fault_say("slab ", a->name[slab], i, a->live[slab], b->live[slab]);
    }
    fault_say("descriptors", "", 0, (uint64_t)was->descriptors, (uint64_t)is->descriptors);
}

static inline int fault_nothing(void *arg, union shoal_value *out)
{
    (void)arg;
    (void)out;
    return 0;
}

/* The text of a failure stays with its slot of a ring until that is used again. */
static inline int fault_use_slots(void *arg, union shoal_value *out)
{
    (void)out;
    unsigned to = (unsigned)(uintptr_t)arg;
    for (int i = 0; i < SHOAL_SUBMIT_IN_FLIGHT_MAX; i++)
        (void)shoal_await(shoal_submit_to(to, fault_nothing, NULL), NULL);
    return 0;
}

/* Until all is as `wanted`, or, without that, as it was for some looks in a row. */
static inline void fault_settle(struct fault_state *now, const struct fault_state *wanted)
{
    struct fault_state last;
    int same = 0;
    (void)fault_use_slots((void *)1, NULL);
    (void)shoal_await(shoal_submit_fiber_to(1, fault_use_slots, (void *)0), NULL);
    fault_take_stock(now);
    for (int i = 0; i < FAULT_SETTLE_LOOK && same < FAULT_SAME_LOOKS; i++) {
        if (wanted != NULL && fault_same(now, wanted))
            return;
        last = *now;
        (void)shoal_sleep_ns((wanted != NULL ? 1 : 100) * SHOAL_NS_PER_MS);
        fault_take_stock(now);
        same = wanted == NULL && fault_same(now, &last) ? same + 1 : 0;
    }
}

/* ---- Arming ---- */

static inline int fault_arm_here(void *arg, union shoal_value *out)
{
    (void)out;
    shoal_fault_arm(arg);
    return 0;
}

static inline int fault_disarm_here(void *arg, union shoal_value *out)
{
    (void)arg;
    struct shoal_fault_stats stats;
    shoal_fault_disarm(&stats);
    out->slice.size = stats.failed;
    out->slice.tag = stats.asked;
    return 0;
}

/* `cores`: a bit each. Core 0 last, since the messages are its own. */
static inline void fault_arm(unsigned cores, struct shoal_fault_plan *plan)
{
    if ((cores & 2) != 0)
        (void)shoal_await(shoal_submit_to(1, fault_arm_here, plan), NULL);
    if ((cores & 1) != 0)
        shoal_fault_arm(plan);
}

/* How many have failed. */
static inline uint64_t fault_disarm(unsigned cores)
{
    struct shoal_fault_stats stats = {0};
    union shoal_value other = {.slice = {NULL, 0, 0}};
    if ((cores & 1) != 0)
        shoal_fault_disarm(&stats);
    if ((cores & 2) != 0)
        (void)shoal_await(shoal_submit_to(1, fault_disarm_here, NULL), &other);
    return stats.failed + other.slice.size;
}

/* ---- Warm walks ---- */

static inline int fault_scene_fiber(void *arg)
{
    const struct fault_walk *walk = arg;
    return walk->scene();
}

/* On a fiber of its own, so that nothing sticks to the walker's. */
static inline int fault_run_scene(const struct fault_walk *walk)
{
    struct shoal_fiber *fiber;
    int rc = shoal_fiber_spawn(&fiber, fault_scene_fiber, (void *)(uintptr_t)walk, walk->name);
    return rc == 0 ? shoal_fiber_join(fiber) : rc;
}

/* One run; whether the failure was reached. */
static inline bool fault_try(const struct fault_walk *walk, struct fault_state *before,
                             unsigned cores, struct shoal_fault_plan *plan)
{
    struct fault_state after;
    fault_expect_end(walk->name, cores, plan->nth);
    fault_arm(cores, plan);
    int rc = fault_run_scene(walk);
    uint64_t failed = fault_disarm(cores);
    SHOAL_EXPECT(rc == 0 || rc == -ENOMEM);
    if (failed == 0)
        SHOAL_EXPECT_INT(rc, 0);
    fault_settle(&after, before);
    if (!SHOAL_EXPECT(fault_same(&after, before)) || (rc != 0 && rc != -ENOMEM)) {
        fprintf(stderr, "%s: allocation %llu, %llu in a row, seed %llu, cores %x: returned %d\n",
                walk->name, (unsigned long long)plan->nth, (unsigned long long)plan->count,
                (unsigned long long)plan->seed, cores, rc);
        fault_say_difference(before, &after);
        *before = after; /* said once */
        fault_now.failures++;
    }
    return failed > 0;
}

/* N from 1 until a run does not get there. Returns the last N. */
static inline uint64_t fault_walk_cores(const struct fault_walk *walk, unsigned cores,
                                        uint64_t count)
{
    struct fault_state before;
    uint64_t step = walk->step != 0 ? walk->step : FAULT_STEP;
    for (int i = 0; i < 3; i++)
        SHOAL_EXPECT_INT(fault_run_scene(walk), 0);
    fault_settle(&before, NULL);
    uint64_t n = 1;
    for (unsigned missed = 0;
         fault_now.failures < FAULT_FAILURES && n < FAULT_N_MAX && missed <= walk->patience;
         n += step) {
        struct shoal_fault_plan plan = {.nth = n, .count = count};
        for (missed = 0; missed <= walk->patience; missed++)
            if (fault_try(walk, &before, cores, &plan))
                break;
    }
    SHOAL_EXPECT(n < FAULT_N_MAX);
    return n;
}

static inline int fault_walk_warm(void *arg)
{
    static const struct {
        unsigned cores;
        uint64_t in_a_row;
    } ways[] = {{1, 1}, {2, 1}, {3, 2}};
    const struct fault_walk *walk = arg;
    if (walk->begin != NULL && !SHOAL_EXPECT_INT(walk->begin(), 0))
        return 1;
    for (size_t i = 0; i < SHOAL_ARRAY_SIZE(ways); i++) {
        uint64_t last = fault_walk_cores(walk, ways[i].cores, ways[i].in_a_row);
        printf("%s: cores %x, %llu in a row: %llu\n", walk->name, ways[i].cores,
               (unsigned long long)ways[i].in_a_row, (unsigned long long)last);
    }
    alarm(0);
    if (walk->end != NULL)
        walk->end();
    return 0;
}

/* Each allocation of both cores fails with a chance, in runs with seeds of their own. */
static inline int fault_soak(void *arg)
{
    const struct fault_walk *walk = arg;
    struct fault_state before;
    uint64_t failed = 0;
    if (walk->begin != NULL && !SHOAL_EXPECT_INT(walk->begin(), 0))
        return 1;
    for (int i = 0; i < 3; i++)
        SHOAL_EXPECT_INT(fault_run_scene(walk), 0);
    fault_settle(&before, NULL);
    for (uint64_t seed = 1; seed <= FAULT_SOAK / SHOAL_TEST_SLOWDOWN; seed++) {
        struct shoal_fault_plan plan = {.seed = seed, .chance_ppm = seed % 2 != 0 ? 10000 : 100000};
        failed += fault_try(walk, &before, 3, &plan);
        if (fault_now.failures >= FAULT_FAILURES)
            break;
    }
    alarm(0);
    SHOAL_EXPECT(failed > 0);
    if (walk->end != NULL)
        walk->end();
    return 0;
}

/* ---- Cold walks ---- */

static inline int fault_cold_main(void *arg)
{
    const struct fault_walk *walk = arg;
    if (walk->begin != NULL) {
        int rc = walk->begin();
        if (rc < 0)
            return rc == -ENOMEM ? 3 : rc;
    }
    int rc = fault_run_scene(walk);
    if (walk->end != NULL)
        walk->end();
    SHOAL_EXPECT(rc == 0 || rc == -ENOMEM);
    return rc == 0 ? 0 : 3;
}

struct fault_cold {
    const struct fault_walk *walk;
    char plan[64];
};

static inline int fault_cold_child(void *arg)
{
    struct fault_cold *cold = arg;
    const char *const options[] = {"--fail-alloc", cold->plan, NULL};
    alarm(FAULT_HANG_S * SHOAL_TEST_SLOWDOWN); /* ends it by a signal */
    int code =
        shoal_test_run_with(FAULT_CORES, options, fault_cold_main, (void *)(uintptr_t)cold->walk);
#ifdef SHOAL_ASAN
    if (__lsan_do_recoverable_leak_check() != 0)
        return FAULT_LEAKED;
#endif
    return code;
}

/* One child; whether the failure was reached. */
static inline bool fault_try_cold(const struct fault_walk *walk, uint64_t n, unsigned core)
{
    static const char *const leaks[] = {"never", "neither", "armed at the end", "does not end",
                                        "LeakSanitizer"};
    static struct shoal_test_child child;
    struct fault_cold cold = {.walk = walk};
    snprintf(cold.plan, sizeof(cold.plan), "nth=%llu,core=%u", (unsigned long long)n, core);
    shoal_test_in_child(&child, fault_cold_child, &cold);
    bool failed = strstr(child.text, "fails on purpose") != NULL;
    bool good = child.signal == 0 && child.exit_code >= 0 && child.exit_code <= 3 &&
                (failed || child.exit_code == 0);
    for (size_t i = 0; i < SHOAL_ARRAY_SIZE(leaks); i++)
        good &= strstr(child.text, leaks[i]) == NULL;
    /* Whoever fails says why, in a line that begins with the program's name or ends in a reason. */
    if (child.exit_code == 1 || child.exit_code == 2)
        good &= strstr(child.text, "test: ") != NULL || strstr(child.text, "test failed: ") != NULL;
    if (!good)
        fail_msg("%s, cold, %s: signal %d, exit code %d:\n%s", walk->name, cold.plan, child.signal,
                 child.exit_code, child.text);
    return failed;
}

static inline void fault_walk_cold(const struct fault_walk *walk)
{
    for (unsigned core = 0; core < FAULT_CORES; core++) {
        uint64_t n = 1;
        while (n < FAULT_N_MAX && fault_try_cold(walk, n, core))
            n += 2 * FAULT_STEP - 1;
        assert_true(n < FAULT_N_MAX);
        printf("%s, cold: core %u: %llu\n", walk->name, core, (unsigned long long)n);
    }
}

#endif
