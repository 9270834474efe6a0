/* backends: both */
/*
 * What the loop looks at while tasks of one turn run: with a quota of a tenth of a second, nothing
 * of this may wait for the turn's end. A turn is told by the core's count of them, not by time.
 */
#include "shoal/runtime/clock.h"
#include "shoal/runtime/core_impl.h"
#include "shoal/runtime/fiber.h"
#include "shoal/runtime/sched_group.h"
#include "shoal/runtime/timer.h"

#include "unit/harness.h"

static const char *const long_quota[] = {"--task-quota-us", "100000", "--blocked-reactor-notify-ms",
                                         "0", NULL};

static void spin_ns(uint64_t span_ns)
{
    uint64_t end_ns = shoal_now_ns() + span_ns;
    while (shoal_now_ns() < end_ns)
        ;
}

/* A task that posts itself until `over`, each time for `span_ns`. */
struct repeater {
    struct shoal_task task;
    uint64_t span_ns;
    uint64_t runs;
    bool over;
    bool ended;
};

static void repeat(struct shoal_task *task)
{
    struct repeater *repeater = SHOAL_CONTAINER_OF(task, struct repeater, task);
    repeater->runs++;
    spin_ns(repeater->span_ns);
    if (repeater->over)
        repeater->ended = true;
    else
        shoal_task_post(task);
}

/* ---- Timers ---- */

struct noting_timer {
    struct shoal_timer timer;
    struct repeater *repeater;
    uint64_t turn;
    uint64_t coarse_ns;
};

static void note_turn(struct shoal_timer *timer)
{
    struct noting_timer *noting = SHOAL_CONTAINER_OF(timer, struct noting_timer, timer);
    noting->turn = shoal_core_self->counters.turns;
    noting->coarse_ns = shoal_coarse_now_ns();
    noting->repeater->over = true;
}

struct timer_start {
    struct shoal_task task;
    struct noting_timer *timer;
    uint64_t turn;
};

/* At the beginning of a turn, so that there is time left in it. */
static void start_timer(struct shoal_task *task)
{
    struct timer_start *start = SHOAL_CONTAINER_OF(task, struct timer_start, task);
    start->turn = shoal_core_self->counters.turns;
    shoal_timer_arm(&start->timer->timer, 2 * SHOAL_NS_PER_MS);
    shoal_task_post(&start->timer->repeater->task);
}

static int timer_within(void *arg)
{
    (void)arg;
    /* A busy machine may take the rest of the quota away between two tasks: not five times. */
    bool within = false;
    for (int i = 0; i < 5 && !within; i++) {
        struct repeater repeater = {.task.run = repeat, .span_ns = 1000};
        struct noting_timer timer = {.repeater = &repeater};
        shoal_timer_init(&timer.timer, note_turn);
        struct timer_start start = {.task.run = start_timer, .timer = &timer};
        SHOAL_EXPECT_INT(shoal_sleep_ns(1000), 0); /* a new turn */
        shoal_task_post(&start.task);
        while (!repeater.ended)
            SHOAL_EXPECT_INT(shoal_yield(), 0);
        SHOAL_EXPECT(timer.coarse_ns >= timer.timer.deadline_ns);
        within = timer.turn == start.turn;
    }
    SHOAL_EXPECT(within);
    return 0;
}

static void look_at_timers_comes_within_a_turn(void **state)
{
    (void)state;
    shoal_test_run_with(1, long_quota, timer_within, NULL);
}

/* ---- Groups ---- */

static int note_turn_and_end(void *arg)
{
    uint64_t *turn = arg;
    *turn = shoal_core_self->counters.turns;
    return 0;
}

struct crowding {
    struct shoal_sched_group *other;
    uint64_t begun; /* the turn in which the other group has got work */
    uint64_t seen;  /* the turn in which that ran */
};

static int crowd(void *arg)
{
    struct crowding *crowding = arg;
    SHOAL_EXPECT_INT(shoal_sleep_ns(1000), 0); /* a new turn */
    const struct shoal_fiber_options options = {.group = crowding->other};
    SHOAL_EXPECT_INT(shoal_fiber_spawn_with(NULL, note_turn_and_end, &crowding->seen, &options), 0);
    crowding->begun = shoal_core_self->counters.turns;
    while (crowding->seen == 0) {
        spin_ns(1000);
        SHOAL_EXPECT_INT(shoal_yield(), 0);
    }
    return 0;
}

static int group_within(void *arg)
{
    (void)arg;
    struct crowding crowding = {0};
    struct shoal_sched_group *busy;
    SHOAL_EXPECT_INT(shoal_sched_group_new(&busy, "busy", SHOAL_SCHED_SHARES_MAX), 0);
    SHOAL_EXPECT_INT(shoal_sched_group_new(&crowding.other, "other", 1), 0);
    bool within = false;
    for (int i = 0; i < 5 && !within; i++) {
        crowding.seen = 0;
        struct shoal_fiber *fiber;
        const struct shoal_fiber_options options = {.group = busy};
        SHOAL_EXPECT_INT(shoal_fiber_spawn_with(&fiber, crowd, &crowding, &options), 0);
        SHOAL_EXPECT_INT(shoal_fiber_join(fiber), 0);
        within = crowding.seen == crowding.begun;
    }
    SHOAL_EXPECT(within);
    return 0;
}

static void look_at_groups_comes_within_a_turn(void **state)
{
    (void)state;
    shoal_test_run_with(1, long_quota, group_within, NULL);
}

/* ---- Batches ---- */

static int batches(void *arg)
{
    (void)arg;
    struct shoal_core *core = shoal_core_self;
    struct repeater slow = {.task.run = repeat, .span_ns = 50 * SHOAL_NS_PER_US};
    shoal_task_post(&slow.task);
    while (slow.runs < 200)
        SHOAL_EXPECT_INT(shoal_yield(), 0);
    SHOAL_EXPECT(core->batch <= 2);
    slow.over = true;
    while (!slow.ended)
        SHOAL_EXPECT_INT(shoal_yield(), 0);
    for (int i = 0; i < 20000; i++)
        SHOAL_EXPECT_INT(shoal_yield(), 0);
    SHOAL_EXPECT(core->batch >= 8 || SHOAL_TEST_SLOWDOWN > 1);
    return 0;
}

static void look_at_messages_comes_sooner_while_tasks_are_long(void **state)
{
    (void)state;
    shoal_test_run(1, batches, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(look_at_timers_comes_within_a_turn),
        cmocka_unit_test(look_at_groups_comes_within_a_turn),
        cmocka_unit_test(look_at_messages_comes_sooner_while_tasks_are_long),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
