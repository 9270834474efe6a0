/* backends: both */
/*
 * Fibers that switch to each other without the loop in between: the order is the queue's, nobody is
 * left out, and what the loop would have looked at is looked at.
 */
#include <pthread.h>

#include "shoal/runtime/clock.h"
#include "shoal/runtime/core_impl.h"
#include "shoal/runtime/fiber.h"
#include "shoal/runtime/future.h"
#include "shoal/runtime/scope.h"

#include "shoal/smp/submit.h"

#include "unit/harness.h"

static char order[4096];
static size_t order_len;

static void note(char what)
{
    if (order_len + 1 < sizeof(order))
        order[order_len++] = what;
    order[order_len] = '\0';
}

struct walker {
    char name;
    int rounds;
};

static int walk(void *arg)
{
    const struct walker *walker = arg;
    for (int i = 0; i < walker->rounds; i++) {
        note(walker->name);
        SHOAL_EXPECT_INT(shoal_yield(), 0);
    }
    note((char)(walker->name - 'a' + 'A'));
    return 0;
}

struct noting_task {
    struct shoal_task task;
    char name;
    int rounds;
};

static void run_noting(struct shoal_task *task)
{
    struct noting_task *noting = SHOAL_CONTAINER_OF(task, struct noting_task, task);
    note(noting->name);
    if (--noting->rounds > 0)
        shoal_task_post(task);
}

/* Three fibers and, between the second and the third, a task that posts itself. */
static int fifo(void *arg)
{
    (void)arg;
    struct walker a = {'a', 4}, b = {'b', 2}, c = {'c', 4};
    struct noting_task task = {.task = {.run = run_noting}, .name = '-', .rounds = 4};
    struct shoal_scope scope;
    order_len = 0;
    shoal_scope_enter(&scope, NULL);
    shoal_scope_spawn(&scope, walk, &a, "a");
    shoal_scope_spawn(&scope, walk, &b, "b");
    shoal_task_post(&task.task);
    shoal_scope_spawn(&scope, walk, &c, "c");
    SHOAL_EXPECT_INT(shoal_scope_leave(&scope), 0);
    SHOAL_EXPECT(strcmp(order, "ab-cab-caB-ca-cAC") == 0);
    if (strcmp(order, "ab-cab-caB-ca-cAC") != 0)
        fprintf(stderr, "order: %s\n", order);
    return 0;
}

static void fiber_handover_order_is_that_of_the_queue(void **state)
{
    (void)state;
    shoal_test_run(1, fifo, NULL);
}

static int alone(void *arg)
{
    (void)arg;
    for (int i = 0; i < 100000 / SHOAL_TEST_SLOWDOWN; i++)
        SHOAL_EXPECT_INT(shoal_yield(), 0);
    return 0;
}

static void fiber_handover_to_itself_goes_on(void **state)
{
    (void)state;
    shoal_test_run(1, alone, NULL);
}

/* ---- What comes from outside while fibers only switch among themselves ---- */

static bool over;

static int spin_by_yields(void *arg)
{
    uint64_t *count = arg;
    while (!over) {
        ++*count;
        shoal_yield();
    }
    return 0;
}

static int on_other_core(void *arg, union shoal_value *out)
{
    (void)arg;
    out->u64 = 17;
    return 0;
}

static struct shoal_task foreign_task;
static struct shoal_core *foreign_core;

static void run_foreign(struct shoal_task *task)
{
    (void)task;
    over = true;
}

static void *post_foreign(void *arg)
{
    (void)arg;
    shoal_core_post_foreign(foreign_core, &foreign_task);
    return NULL;
}

static int messages(void *arg)
{
    (void)arg;
    uint64_t count = 0;
    struct shoal_scope scope;
    over = false;
    shoal_scope_enter(&scope, NULL);
    for (int i = 0; i < 3; i++)
        shoal_scope_spawn(&scope, spin_by_yields, &count, "spin");
    union shoal_value value;
    for (int i = 0; i < 100; i++) { /* each answer comes while the others yield */
        SHOAL_EXPECT_INT(shoal_await(shoal_submit_to(1, on_other_core, NULL), &value), 0);
        SHOAL_EXPECT_INT(value.u64, 17);
    }
    SHOAL_EXPECT(!over && count > 0);
    foreign_core = shoal_core_self;
    foreign_task.run = run_foreign;
    pthread_t thread;
    SHOAL_EXPECT_INT(pthread_create(&thread, NULL, post_foreign, NULL), 0);
    SHOAL_EXPECT_INT(shoal_scope_leave(&scope), 0);
    pthread_join(thread, NULL);
    SHOAL_EXPECT(over);
    return 0;
}

static void fiber_handover_lets_messages_and_foreign_posts_through(void **state)
{
    (void)state;
    shoal_test_run(2, messages, NULL);
}

/* ---- Ping-pong ---- */

struct table {
    struct shoal_fiber *sides[2];
    int turns;
    int ball; /* whose turn it is; 2: over */
};

static int play(struct table *table, int side)
{
    while (table->ball != 2) {
        if (table->ball != side) {
            shoal_fiber_wait_begin(table->sides[side], "ball", NULL, NULL);
            shoal_fiber_park(shoal_core_self, table->sides[side]);
            shoal_fiber_wait_end(table->sides[side]);
            continue;
        }
        table->ball = --table->turns > 0 ? 1 - side : 2;
        shoal_fiber_make_ready(shoal_core_self, table->sides[1 - side]);
    }
    return side;
}

static int play_0(void *arg)
{
    return play(arg, 0);
}

static int play_1(void *arg)
{
    return play(arg, 1);
}

static int ping_pong(void *arg)
{
    (void)arg;
    struct table table = {.turns = 100000 / SHOAL_TEST_SLOWDOWN};
    SHOAL_EXPECT_INT(shoal_fiber_spawn(&table.sides[0], play_0, &table, "ping"), 0);
    SHOAL_EXPECT_INT(shoal_fiber_spawn(&table.sides[1], play_1, &table, "pong"), 0);
    SHOAL_EXPECT_INT(shoal_fiber_join(table.sides[0]), 0);
    SHOAL_EXPECT_INT(shoal_fiber_join(table.sides[1]), 1);
    SHOAL_EXPECT_INT(table.turns, 0);
    return 0;
}

static void fiber_handover_ping_pong_ends_where_it_should(void **state)
{
    (void)state;
    shoal_test_run(1, ping_pong, NULL);
}

/* ---- Spawns, ends and hooks in between ---- */

static int tree(void *arg)
{
    const intptr_t depth = (intptr_t)arg;
    if (depth == 0)
        return 1;
    struct shoal_fiber *left, *right;
    SHOAL_EXPECT_INT(shoal_fiber_spawn(&left, tree, (void *)(depth - 1), "left"), 0);
    SHOAL_EXPECT_INT(shoal_yield(), 0);
    SHOAL_EXPECT_INT(shoal_fiber_spawn(&right, tree, (void *)(depth - 1), "right"), 0);
    int count = shoal_fiber_join(left);
    SHOAL_EXPECT_INT(shoal_yield(), 0);
    return count + shoal_fiber_join(right);
}

static int grow(void *arg)
{
    (void)arg;
    struct shoal_fiber *root;
    const intptr_t depth = SHOAL_TEST_SLOWDOWN > 1 ? 6 : 10;
    SHOAL_EXPECT_INT(shoal_fiber_spawn(&root, tree, (void *)depth, "root"), 0);
    SHOAL_EXPECT_INT(shoal_fiber_join(root), 1 << depth);
    SHOAL_EXPECT_INT(shoal_fibers_running(shoal_core_self), 1);
    return 0;
}

static void fiber_handover_spawns_and_ends_in_between(void **state)
{
    (void)state;
    shoal_test_run(1, grow, NULL);
}

static int hooked_ran;
static int hooked_gave_way;

static void gave_way(struct shoal_fiber *fiber)
{
    SHOAL_EXPECT(shoal_core_self->fiber == NULL); /* the loop's stack, not another fiber's */
    SHOAL_EXPECT(fiber->state != SHOAL_FIBER_RUNNING);
    hooked_gave_way++;
}

static int hooked_main(void *arg)
{
    (void)arg;
    for (int i = 0; i < 10; i++) {
        hooked_ran++;
        SHOAL_EXPECT_INT(shoal_yield(), 0);
    }
    return 0;
}

static int hooks(void *arg)
{
    (void)arg;
    struct shoal_core *core = shoal_core_self;
    uint64_t count = 0;
    struct shoal_scope scope;
    over = false;
    shoal_scope_enter(&scope, NULL);
    shoal_scope_spawn(&scope, spin_by_yields, &count, "spin");
    struct shoal_fiber *hooked = shoal_fiber_take(core, hooked_main, NULL, "hooked");
    hooked->on_park = gave_way;
    shoal_fiber_make_ready(core, hooked);
    while (hooked_ran < 10 || hooked_gave_way < 10)
        SHOAL_EXPECT_INT(shoal_yield(), 0);
    over = true;
    SHOAL_EXPECT_INT(shoal_scope_leave(&scope), 0);
    SHOAL_EXPECT_INT(hooked_gave_way, 10);
    return 0;
}

static void fiber_handover_leaves_a_fiber_with_a_hook_to_the_loop(void **state)
{
    (void)state;
    shoal_test_run(1, hooks, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fiber_handover_order_is_that_of_the_queue),
        cmocka_unit_test(fiber_handover_to_itself_goes_on),
        cmocka_unit_test(fiber_handover_lets_messages_and_foreign_posts_through),
        cmocka_unit_test(fiber_handover_ping_pong_ends_where_it_should),
        cmocka_unit_test(fiber_handover_spawns_and_ends_in_between),
        cmocka_unit_test(fiber_handover_leaves_a_fiber_with_a_hook_to_the_loop),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
