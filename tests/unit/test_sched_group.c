/* backends: both */
/*
 * Scheduling groups: shares, what runs where, and that nobody is left waiting.
 */
#include <unistd.h>

#include "shoal/runtime/clock.h"
#include "shoal/runtime/core_impl.h"
#include "shoal/runtime/fiber.h"
#include "shoal/runtime/io.h"
#include "shoal/runtime/sched_group.h"
#include "shoal/runtime/scope.h"
#include "shoal/runtime/task.h"
#include "shoal/runtime/timer.h"

#include "unit/harness.h"

#define MS SHOAL_NS_PER_MS

static bool spinning;

static int spin_main(void *arg)
{
    uint64_t *rounds = arg;
    while (spinning) {
        while (!shoal_need_preempt())
            ++*rounds;
        shoal_yield();
    }
    return 0;
}

static struct shoal_sched_group *group_new(const char *name, unsigned shares)
{
    struct shoal_sched_group *group = NULL;
    SHOAL_EXPECT_INT(shoal_sched_group_new(&group, name, shares), 0);
    return group;
}

static struct shoal_sched_group_stats stats_of(const struct shoal_sched_group *group)
{
    struct shoal_sched_group_stats stats;
    shoal_sched_group_stats(group, &stats);
    return stats;
}

/*
 * CPU-bound fibers in both groups: whether b runs `wanted` times what a runs, within 5 %. What else
 * runs on the machine is charged to the group that it interrupts, and evens out: the longer it
 * takes, the better it must fit.
 */
static bool ratio_holds(struct shoal_sched_group *a, struct shoal_sched_group *b, int fibers_a,
                        double wanted)
{
    uint64_t rounds[2] = {0, 0};
    struct shoal_scope scope;
    shoal_scope_enter(&scope, NULL);
    spinning = true;
    for (int i = 0; i < fibers_a; i++)
        shoal_scope_spawn_with(&scope, spin_main, &rounds[0],
                               &(struct shoal_fiber_options){.name = "a", .group = a});
    shoal_scope_spawn_with(&scope, spin_main, &rounds[1],
                           &(struct shoal_fiber_options){.name = "b", .group = b});
    SHOAL_EXPECT_INT(shoal_sleep_ns(5 * MS), 0);
    uint64_t before_a = stats_of(a).runtime_ns, before_b = stats_of(b).runtime_ns;
    double ratio = 0;
    bool holds = false;
    for (int i = 0; i < 40 && !holds; i++) {
        SHOAL_EXPECT_INT(shoal_sleep_ns(100 * MS), 0);
        ratio = (double)(stats_of(b).runtime_ns - before_b) /
                (double)(stats_of(a).runtime_ns - before_a);
        holds = i >= 2 && ratio > 0.95 * wanted && ratio < 1.05 * wanted;
    }
    spinning = false;
    SHOAL_EXPECT_INT(shoal_scope_leave(&scope), 0);
    if (!holds)
        fprintf(stderr, "%g times, wanted %g\n", ratio, wanted);
    return holds;
}

static int shares_hold(void *arg)
{
    (void)arg;
    struct shoal_sched_group *a = group_new("one", 100);
    struct shoal_sched_group *b = group_new("three", 300);
    SHOAL_EXPECT(ratio_holds(a, b, 1, 3));
    SHOAL_EXPECT(ratio_holds(a, b, 8, 3)); /* however many fibers a group has */
    SHOAL_EXPECT_INT(shoal_sched_group_set_shares(b, 100), 0);
    SHOAL_EXPECT(ratio_holds(a, b, 3, 1));
    SHOAL_EXPECT(stats_of(a).waited_ns > 0 && stats_of(b).waited_ns > 0);
    SHOAL_EXPECT_INT(stats_of(a).fibers, 0);
    SHOAL_EXPECT_INT(shoal_sched_group_free(a), 0);
    SHOAL_EXPECT_INT(shoal_sched_group_free(b), 0);
    return 0;
}

static void sched_group_shares_hold_under_load(void **state)
{
    (void)state;
    shoal_test_run(1, shares_hold, NULL);
}

/* A group that has slept does not make up for it: it begins where the others are. */
static int sleep_earns_nothing(void *arg)
{
    (void)arg;
    struct shoal_sched_group *busy = group_new("busy", 100);
    struct shoal_sched_group *late = group_new("late", 100);
    uint64_t rounds = 0;
    struct shoal_scope scope;
    shoal_scope_enter(&scope, NULL);
    spinning = true;
    shoal_scope_spawn_with(&scope, spin_main, &rounds,
                           &(struct shoal_fiber_options){.name = "busy", .group = busy});
    SHOAL_EXPECT_INT(shoal_sleep_ns(50 * MS), 0);
    SHOAL_EXPECT(busy->virtual_time > 0 && late->virtual_time == 0);
    shoal_scope_spawn_with(&scope, spin_main, &rounds,
                           &(struct shoal_fiber_options){.name = "late", .group = late});
    SHOAL_EXPECT(late->virtual_time >= shoal_core_self->virtual_time);
    SHOAL_EXPECT(late->virtual_time > 0);
    /* The main group, too, which has slept while these were busy. */
    SHOAL_EXPECT_INT(shoal_sleep_ns(20 * MS), 0);
    SHOAL_EXPECT(shoal_sched_group_main()->virtual_time > 0);
    spinning = false;
    SHOAL_EXPECT_INT(shoal_scope_leave(&scope), 0);
    return 0;
}

static int spin_a_while(void *arg)
{
    uint64_t end_ns = shoal_now_ns() + 30 * MS;
    while (shoal_now_ns() < end_ns)
        shoal_yield();
    *(uint64_t *)arg = shoal_core_self->virtual_time;
    return 0;
}

/* One that runs alone after others have run alone is not behind them for as long as they ran. */
static int alone_earns_nothing(void *arg)
{
    (void)arg;
    uint64_t reached = 0;
    const struct shoal_fiber_options options = {.group = group_new("first", 100)};
    SHOAL_EXPECT_INT(shoal_fiber_spawn_with(NULL, spin_a_while, &reached, &options), 0);
    while (reached == 0)
        SHOAL_EXPECT_INT(shoal_sleep_ns(200 * MS), 0); /* wakes when the other has gone */
    SHOAL_EXPECT(shoal_sched_group_main()->virtual_time >= reached);
    SHOAL_EXPECT(shoal_core_self->virtual_time >= reached);
    return 0;
}

static void sched_group_virtual_time_never_goes_back(void **state)
{
    (void)state;
    shoal_test_run(1, alone_earns_nothing, NULL);
}

static void sched_group_that_slept_gets_no_more_than_its_share(void **state)
{
    (void)state;
    shoal_test_run(1, sleep_earns_nothing, NULL);
}

/* The bit of each group that is not current says whether its queue holds something. */
static bool bits_hold(void)
{
    const struct shoal_core *core = shoal_core_self;
    for (unsigned id = 0; id < SHOAL_SCHED_GROUPS_MAX; id++) {
        const struct shoal_sched_group *group = &core->groups[id];
        if (group == core->current)
            continue;
        bool bit = (core->ready_groups & 1u << id) != 0;
        if (bit != (group->used && group->ready.head != NULL))
            return false;
    }
    return core->hot.ready == &core->current->ready && core->hot.group == core->current->id &&
           core->hot.then_consumer == (SHOAL_CONSUMER_THEN | core->current->id << 8);
}

static int spin_and_check(void *arg)
{
    uint64_t *rounds = arg;
    while (spinning && SHOAL_EXPECT(bits_hold())) {
        ++*rounds;
        shoal_yield();
    }
    return 0;
}

/* The main group sleeps while another runs, and is woken in the middle of that one's slices: it is
 * no more behind than any other that has slept. */
static int main_earns_nothing(void *arg)
{
    (void)arg;
    struct shoal_core *core = shoal_core_self;
    struct shoal_sched_group *busy = group_new("busy", 100);
    uint64_t rounds = 0, last_virtual = 0;
    struct shoal_scope scope;
    shoal_scope_enter(&scope, NULL);
    spinning = true;
    shoal_scope_spawn_with(&scope, spin_and_check, &rounds,
                           &(struct shoal_fiber_options){.name = "busy", .group = busy});
    for (int i = 0; i < 20; i++) {
        SHOAL_EXPECT_INT(shoal_sleep_ns(5 * MS + (uint64_t)i * 70000), 0);
        SHOAL_EXPECT(core->virtual_time >= last_virtual); /* it only grows */
        SHOAL_EXPECT(shoal_sched_group_main()->virtual_time >= core->virtual_time);
        last_virtual = core->virtual_time;
    }
    SHOAL_EXPECT(last_virtual >= busy->virtual_time / 2);
    struct shoal_sched_group *late = group_new("late", 100);
    shoal_sched_group_enter(late);
    SHOAL_EXPECT(late->virtual_time >= core->virtual_time);
    shoal_sched_group_enter(shoal_sched_group_main());
    spinning = false;
    SHOAL_EXPECT_INT(shoal_scope_leave(&scope), 0);
    return 0;
}

static void sched_group_main_that_slept_gets_no_more_than_its_share(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(1, main_earns_nothing, NULL), 0);
}

/* ---- What is looked at while a group never idles ---- */

struct ticker {
    struct shoal_timer timer;
    uint64_t fired;
};

static void tick(struct shoal_timer *timer)
{
    SHOAL_CONTAINER_OF(timer, struct ticker, timer)->fired++;
}

static int pipe_reader(void *arg)
{
    const int *fds = arg;
    char byte;
    SHOAL_EXPECT(shoal_poll_fd(fds[0], 1 /* POLLIN */) >= 0);
    SHOAL_EXPECT_INT(read(fds[0], &byte, 1), 1);
    spinning = false; /* only the reader ends the spinners */
    return 0;
}

static int timers_and_io(void *arg)
{
    (void)arg;
    struct shoal_sched_group *busy = group_new("busy", 1000);
    uint64_t rounds = 0;
    int fds[2];
    SHOAL_EXPECT_INT(pipe(fds), 0);
    struct shoal_scope scope;
    shoal_scope_enter(&scope, NULL);
    spinning = true;
    for (int i = 0; i < 4; i++)
        shoal_scope_spawn_with(&scope, spin_main, &rounds,
                               &(struct shoal_fiber_options){.name = "busy", .group = busy});
    shoal_scope_spawn(&scope, pipe_reader, fds, "reader");
    struct ticker ticker = {.fired = 0};
    shoal_timer_init(&ticker.timer, tick);
    shoal_timer_arm_every(&ticker.timer, shoal_now_ns() + MS, MS);
    SHOAL_EXPECT_INT(shoal_sleep_ns(30 * MS), 0);
    SHOAL_EXPECT(ticker.fired > 5); /* of 30; a busy machine may swallow some */
    SHOAL_EXPECT_INT(write(fds[1], "x", 1), 1);
    SHOAL_EXPECT_INT(shoal_scope_leave(&scope), 0);
    shoal_timer_cancel(&ticker.timer);
    close(fds[0]);
    close(fds[1]);
    return 0;
}

static void sched_group_that_never_idles_lets_timers_and_io_through(void **state)
{
    (void)state;
    shoal_test_run(1, timers_and_io, NULL);
}

/* Fibers that yield switch to one another directly: that must not keep anything else out. */
static int yielder(void *arg)
{
    (void)arg;
    while (spinning)
        shoal_yield();
    return 0;
}

static int yields_let_others(void *arg)
{
    (void)arg;
    struct shoal_scope scope;
    shoal_scope_enter(&scope, NULL);
    spinning = true;
    for (int i = 0; i < 3; i++)
        shoal_scope_spawn(&scope, yielder, NULL, "yielder");
    SHOAL_EXPECT_INT(shoal_sleep_ns(5 * MS), 0); /* a timer ends it, seen between two looks */
    spinning = false;
    SHOAL_EXPECT_INT(shoal_scope_leave(&scope), 0);
    return 0;
}

static void fiber_yields_among_themselves_let_timers_through(void **state)
{
    (void)state;
    shoal_test_run(1, yields_let_others, NULL);
}

/* ---- What runs where ---- */

static int where(void *arg, const union shoal_value *in, union shoal_value *out)
{
    (void)in;
    SHOAL_EXPECT(shoal_sched_group_self() == arg);
    out->ptr = arg;
    return 0;
}

static int where_caught(void *arg, int code, const char *text, union shoal_value *out)
{
    (void)text;
    (void)out;
    SHOAL_EXPECT_INT(code, -EIO);
    SHOAL_EXPECT(shoal_sched_group_self() == arg);
    return 0;
}

struct inside {
    struct shoal_sched_group *group;
    struct shoal_future *promise;
    struct shoal_future *chained;
};

static int check_group(void *arg)
{
    SHOAL_EXPECT(shoal_sched_group_self() == arg);
    return 0;
}

static int inside_main(void *arg)
{
    struct inside *inside = arg;
    SHOAL_EXPECT(shoal_sched_group_self() == inside->group);
    inside->chained =
        shoal_then(shoal_then(inside->promise, where, inside->group), where, inside->group);
    struct shoal_fiber *child;
    SHOAL_EXPECT_INT(shoal_fiber_spawn(&child, check_group, inside->group, "child"), 0);
    SHOAL_EXPECT_INT(shoal_fiber_join(child), 0); /* a child inherits */
    SHOAL_EXPECT_INT(shoal_sleep_ns(1000), 0);
    SHOAL_EXPECT(shoal_sched_group_self() == inside->group);
    SHOAL_EXPECT_INT(
        shoal_await(shoal_catch(shoal_future_failed(-EIO, "x"), where_caught, inside->group), NULL),
        0);
    return 0;
}

static int runs_where(void *arg)
{
    (void)arg;
    struct shoal_sched_group *main = shoal_sched_group_main();
    SHOAL_EXPECT(shoal_sched_group_self() == main);
    struct inside inside = {.group = group_new("inside", 50), .promise = shoal_future_new()};
    struct shoal_fiber *fiber;
    const struct shoal_fiber_options options = {.name = "inside", .group = inside.group};
    SHOAL_EXPECT_INT(shoal_fiber_spawn_with(&fiber, inside_main, &inside, &options), 0);
    SHOAL_EXPECT_INT(stats_of(inside.group).fibers, 1);
    SHOAL_EXPECT_INT(shoal_sched_group_free(inside.group), -EBUSY);
    SHOAL_EXPECT_INT(shoal_fiber_join(fiber), 0);
    /* Resolved from the main group: the continuations still run in theirs. */
    shoal_future_resolve(inside.promise, NULL);
    union shoal_value value;
    SHOAL_EXPECT_INT(shoal_await(inside.chained, &value), 0);
    SHOAL_EXPECT(value.ptr == inside.group);
    SHOAL_EXPECT(stats_of(inside.group).tasks > 0);

    shoal_sched_group_enter(inside.group);
    SHOAL_EXPECT(shoal_sched_group_self() == inside.group);
    SHOAL_EXPECT_INT(shoal_yield(), 0);
    SHOAL_EXPECT(shoal_sched_group_self() == inside.group);
    SHOAL_EXPECT_INT(shoal_sched_group_free(inside.group), -EBUSY);
    shoal_sched_group_enter(main);
    SHOAL_EXPECT_INT(shoal_yield(), 0);
    SHOAL_EXPECT(shoal_sched_group_self() == main);

    /* A continuation of a group that is gone runs in the main one. */
    struct shoal_future *promise = shoal_future_new();
    shoal_sched_group_enter(inside.group);
    struct shoal_future *orphan = shoal_then(promise, where, main);
    shoal_sched_group_enter(main);
    SHOAL_EXPECT_INT(shoal_sched_group_free(inside.group), 0);
    shoal_future_resolve(promise, NULL);
    SHOAL_EXPECT_INT(shoal_await(orphan, NULL), 0);
    return 0;
}

static void sched_group_fibers_and_continuations_run_where_they_were_made(void **state)
{
    (void)state;
    shoal_test_run(1, runs_where, NULL);
}

/* ---- Groups that end, and bits ---- */

struct wanderer {
    struct shoal_sched_group **groups;
    uint64_t seed;
    uint64_t *steps;
};

static int note_bits(void *arg, const union shoal_value *in, union shoal_value *out)
{
    (void)in;
    (void)out;
    SHOAL_EXPECT(shoal_sched_group_self() == arg);
    SHOAL_EXPECT(bits_hold());
    return 0;
}

/* Enters groups at random; some of them have tasks waiting, and others wander as well. */
static int wander(void *arg)
{
    struct wanderer *wanderer = arg;
    for (int i = 0; i < 300; i++) {
        uint64_t random = shoal_test_random(&wanderer->seed);
        struct shoal_sched_group *group = wanderer->groups[random % 4];
        shoal_sched_group_enter(group);
        SHOAL_EXPECT(shoal_sched_group_self() == group && bits_hold());
        if (random >> 8 & 1)
            shoal_discard(shoal_then(shoal_future_ready(NULL), note_bits, group));
        if (random >> 9 & 1)
            SHOAL_EXPECT_INT(shoal_yield(), 0);
        if ((random >> 10 & 31) == 0)
            SHOAL_EXPECT_INT(shoal_sleep_ns(random >> 20 & 65535), 0);
        SHOAL_EXPECT(shoal_sched_group_self() == group && bits_hold());
        ++*wanderer->steps;
    }
    return 0;
}

static int wanderers(void *arg)
{
    (void)arg;
    struct shoal_sched_group *groups[4] = {shoal_sched_group_main(), group_new("a", 10),
                                           group_new("b", 100), group_new("c", 1000)};
    struct wanderer all[8];
    uint64_t steps = 0;
    struct shoal_scope scope;
    shoal_scope_enter(&scope, NULL);
    for (unsigned i = 0; i < SHOAL_ARRAY_SIZE(all); i++) {
        all[i] = (struct wanderer){groups, i * 77 + 1, &steps};
        SHOAL_EXPECT_INT(shoal_scope_spawn(&scope, wander, &all[i], "wanderer"), 0);
    }
    SHOAL_EXPECT_INT(shoal_scope_leave(&scope), 0);
    SHOAL_EXPECT_INT(steps, 300 * SHOAL_ARRAY_SIZE(all));
    while (groups[1]->ready.head != NULL || groups[2]->ready.head != NULL ||
           groups[3]->ready.head != NULL) /* what they have left behind */
        SHOAL_EXPECT_INT(shoal_sleep_ns(1000), 0);
    SHOAL_EXPECT_INT(stats_of(groups[0]).fibers, 1);
    for (int i = 1; i < 4; i++)
        SHOAL_EXPECT_INT(shoal_sched_group_free(groups[i]), 0); /* nobody is counted twice */
    return 0;
}

static void sched_group_entered_at_random_keeps_its_invariants(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(1, wanderers, NULL), 0);
}

/* Freed while its tasks wait, by a fiber of a third group: they run in the main one. */
static int freed_with_tasks(void *arg)
{
    (void)arg;
    struct shoal_sched_group *main = shoal_sched_group_main();
    struct shoal_sched_group *gone = group_new("gone", 1000), *third = group_new("third", 1);
    struct shoal_future *promise = shoal_future_new(), *ready[3];
    shoal_sched_group_enter(gone);
    for (int i = 0; i < 3; i++)
        ready[i] = shoal_then(shoal_future_ready(NULL), note_bits, main);
    struct shoal_future *late = shoal_then(promise, note_bits, main);
    shoal_sched_group_enter(third);
    SHOAL_EXPECT_INT(shoal_sched_group_free(gone), 0);
    SHOAL_EXPECT(bits_hold());
    shoal_future_resolve(promise, NULL);
    for (int i = 0; i < 3; i++)
        SHOAL_EXPECT_INT(shoal_await(ready[i], NULL), 0);
    SHOAL_EXPECT_INT(shoal_await(late, NULL), 0);
    shoal_sched_group_enter(main);
    SHOAL_EXPECT_INT(shoal_sched_group_free(third), 0);
    return 0;
}

static void sched_group_freed_leaves_its_tasks_to_the_main_group(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(1, freed_with_tasks, NULL), 0);
}

/* By a timer in the middle of its slice, which no fiber of it needs. */
struct freer {
    struct shoal_timer timer;
    struct shoal_sched_group *group;
    bool freed;
};

static void free_group(struct shoal_timer *timer)
{
    struct freer *freer = SHOAL_CONTAINER_OF(timer, struct freer, timer);
    SHOAL_EXPECT_INT(shoal_sched_group_free(freer->group), 0);
    freer->freed = true;
}

static uint64_t task_rounds;
static const bool *task_over;

static void run_again(struct shoal_task *task)
{
    task_rounds++;
    SHOAL_EXPECT_INT(shoal_sched_group_free(shoal_sched_group_self()),
                     *task_over ? -EINVAL : -EBUSY);
    if (!*task_over)
        shoal_task_post(task);
}

static int freed_while_running(void *arg)
{
    (void)arg;
    struct shoal_sched_group *main = shoal_sched_group_main();
    for (int i = 0; i < 10; i++) {
        struct freer freer = {.group = group_new("gone", 1000)};
        struct shoal_task task = {.run = run_again};
        task_over = &freer.freed;
        shoal_sched_group_enter(freer.group);
        shoal_task_post(&task);
        shoal_sched_group_enter(main);
        shoal_timer_init(&freer.timer, free_group);
        shoal_timer_arm(&freer.timer, MS + (uint64_t)i * 30000);
        while (!freer.freed)
            SHOAL_EXPECT_INT(shoal_sleep_ns(MS), 0);
        SHOAL_EXPECT_INT(shoal_yield(), 0);
        SHOAL_EXPECT_INT(shoal_sleep_ns(1000), 0);
        SHOAL_EXPECT(bits_hold() && task_rounds > 0);
    }
    SHOAL_EXPECT(shoal_sched_group_next(main) == NULL);
    return 0;
}

static void sched_group_freed_in_its_own_slice_ends_it(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(1, freed_while_running, NULL), 0);
}

static int limits(void *arg)
{
    (void)arg;
    struct shoal_sched_group *group;
    SHOAL_EXPECT_INT(shoal_sched_group_new(&group, "none", 0), -EINVAL);
    SHOAL_EXPECT_INT(shoal_sched_group_new(&group, "many", SHOAL_SCHED_SHARES_MAX + 1), -EINVAL);
    for (int i = 1; i < SHOAL_SCHED_GROUPS_MAX; i++)
        (void)group_new("a name that is longer than a group can keep", 1);
    SHOAL_EXPECT_INT(shoal_sched_group_new(&group, "over", 1), -ENOSPC);
    SHOAL_EXPECT_INT(shoal_sched_group_free(shoal_sched_group_main()), -EINVAL);
    int count = 0;
    struct shoal_sched_group *next = NULL;
    while ((next = shoal_sched_group_next(next)) != NULL) {
        count++;
        SHOAL_EXPECT(strlen(stats_of(next).name) <= SHOAL_SCHED_NAME_MAX);
        SHOAL_EXPECT_INT(shoal_sched_group_set_shares(next, 0), -EINVAL);
    }
    SHOAL_EXPECT_INT(count, SHOAL_SCHED_GROUPS_MAX);
    return 0;
}

static void sched_group_limits_are_told(void **state)
{
    (void)state;
    shoal_test_run(1, limits, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sched_group_shares_hold_under_load),
        cmocka_unit_test(sched_group_that_slept_gets_no_more_than_its_share),
        cmocka_unit_test(sched_group_virtual_time_never_goes_back),
        cmocka_unit_test(sched_group_that_never_idles_lets_timers_and_io_through),
        cmocka_unit_test(fiber_yields_among_themselves_let_timers_through),
        cmocka_unit_test(sched_group_fibers_and_continuations_run_where_they_were_made),
        cmocka_unit_test(sched_group_main_that_slept_gets_no_more_than_its_share),
        cmocka_unit_test(sched_group_entered_at_random_keeps_its_invariants),
        cmocka_unit_test(sched_group_freed_leaves_its_tasks_to_the_main_group),
        cmocka_unit_test(sched_group_freed_in_its_own_slice_ends_it),
        cmocka_unit_test(sched_group_limits_are_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
