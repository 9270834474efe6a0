/*
 * The gate: entering, leaving, closing.
 */
/* backends: both */
#include "shoal/runtime/gate.h"

#include "unit/sync_check.h"

static struct shoal_gate gate;

static int close_gate(void *arg)
{
    return shoal_gate_close(&gate, *(uint64_t *)arg);
}

static int check_close(void *arg)
{
    (void)arg;
    uint64_t forever = FOREVER, tick = TICK;
    sync_clock_begin();
    shoal_gate_init(&gate);
    SHOAL_EXPECT_INT(shoal_gate_enter(&gate), 0);
    SHOAL_EXPECT_INT(shoal_gate_enter(&gate), 0);
    shoal_gate_leave(&gate);
    SHOAL_EXPECT_INT(shoal_gate_inside(&gate), 1);
    SHOAL_EXPECT(!shoal_gate_closed(&gate));
    struct shoal_fiber *closer = sync_spawn(close_gate, &forever);
    struct shoal_fiber *late = sync_spawn(close_gate, &tick);
    sync_settle();
    SHOAL_EXPECT(shoal_gate_closed(&gate));
    SHOAL_EXPECT_INT(shoal_gate_enter(&gate), SHOAL_ECLOSED);
    SHOAL_EXPECT_INT(shoal_gate_inside(&gate), 1);
    sync_pass(TICK);
    SHOAL_EXPECT_INT(shoal_fiber_join(late), -ETIMEDOUT);
    struct shoal_fiber *cancelled = sync_spawn(close_gate, &forever);
    sync_settle();
    shoal_fiber_cancel(cancelled);
    SHOAL_EXPECT_INT(shoal_fiber_join(cancelled), -ECANCELED);
    struct shoal_future *future = shoal_gate_close_future(&gate, FOREVER);
    struct shoal_future *asked = shoal_gate_close_future(&gate, FOREVER);
    shoal_discard(shoal_gate_close_future(&gate, FOREVER));
    shoal_future_cancel(asked);
    SHOAL_EXPECT_INT(sync_await(asked), -ECANCELED);
    SHOAL_EXPECT_INT(shoal_gate_close(&gate, 0), -ETIMEDOUT);
    SHOAL_EXPECT(!sync_done(closer) && shoal_future_is_pending(future));
    shoal_gate_leave(&gate); /* the last one */
    SHOAL_EXPECT_INT(shoal_fiber_join(closer), 0);
    SHOAL_EXPECT_INT(sync_await(future), 0);
    SHOAL_EXPECT_INT(shoal_gate_close(&gate, FOREVER), 0); /* again: nobody is there */
    SHOAL_EXPECT_INT(sync_await(shoal_gate_close_future(&gate, FOREVER)), 0);
    SHOAL_EXPECT_INT(shoal_gate_enter(&gate), SHOAL_ECLOSED);
    SHOAL_EXPECT_INT(sync_waiters(), 0);
    shoal_gate_deinit(&gate);
    sync_clock_end();
    return 0;
}

static void gate_close_waits_until_all_have_left(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(1, check_close, NULL), 0);
}

static int check_close_cancelled(void *arg)
{
    (void)arg;
    uint64_t forever = FOREVER;
    shoal_gate_init(&gate);
    SHOAL_EXPECT_INT(shoal_gate_enter(&gate), 0);
    struct shoal_fiber *closer = sync_spawn(close_gate, &forever);
    shoal_fiber_cancel(closer); /* before it runs: it closes all the same */
    SHOAL_EXPECT_INT(shoal_fiber_join(closer), -ECANCELED);
    SHOAL_EXPECT(shoal_gate_closed(&gate));
    shoal_gate_leave(&gate);
    shoal_gate_deinit(&gate);
    shoal_gate_init(&gate);
    SHOAL_EXPECT_INT(shoal_gate_enter(&gate), 0);
    struct shoal_future *future = shoal_gate_close_future(&gate, FOREVER);
    SHOAL_EXPECT(shoal_gate_closed(&gate));
    shoal_gate_leave(&gate);
    SHOAL_EXPECT_INT(sync_await(future), 0);
    shoal_gate_deinit(&gate);
    shoal_gate_init(&gate); /* the last one to leave an open gate wakes nobody */
    SHOAL_EXPECT_INT(shoal_gate_enter(&gate), 0);
    shoal_gate_leave(&gate);
    SHOAL_EXPECT_INT(shoal_gate_enter(&gate), 0);
    shoal_gate_leave(&gate);
    shoal_gate_deinit(&gate);
    return 0;
}

static void gate_close_closes_whatever_becomes_of_its_wait(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(1, check_close_cancelled, NULL), 0);
}

/* ---- Stress ---- */

static void check_world(void *arg)
{
    SHOAL_EXPECT_INT(shoal_gate_inside(&gate), *(uint64_t *)arg);
}

static void step(struct sync_actor *actor, void *arg)
{
    uint64_t *inside = arg;
    union shoal_value value;
    int code = 0;
    if (sync_random(actor, 50) == 0) {
        if (sync_random(actor, 2) == 0)
            code = shoal_gate_close(&gate, sync_random_timeout(actor));
        else if (!sync_end_somehow(actor,
                                   shoal_gate_close_future(&gate, sync_random_timeout(actor)),
                                   &value, &code) &&
                 code == 0)
            return;
        SHOAL_EXPECT(sync_early(code) || (code == 0 && *inside == 0));
        SHOAL_EXPECT(shoal_gate_closed(&gate));
        return;
    }
    code = shoal_gate_enter(&gate);
    SHOAL_EXPECT_INT(code, shoal_gate_closed(&gate) ? SHOAL_ECLOSED : 0);
    if (code < 0)
        return;
    ++*inside;
    (void)shoal_sleep_ns(sync_random(actor, 3) * TICK);
    --*inside;
    shoal_gate_leave(&gate);
}

static void end_round(void *arg)
{
    (void)arg;
    SHOAL_EXPECT_INT(shoal_gate_inside(&gate), 0);
    shoal_gate_deinit(&gate);
    shoal_gate_init(&gate);
}

static int check_stress(void *arg)
{
    (void)arg;
    uint64_t inside = 0;
    const struct sync_stress stress = {.rounds = 200,
                                       .actors = 10,
                                       .steps = 20,
                                       .step = step,
                                       .check = check_world,
                                       .round_end = end_round,
                                       .arg = &inside};
    shoal_gate_init(&gate);
    sync_stress_run(&stress);
    shoal_gate_deinit(&gate);
    return 0;
}

static void gate_close_finds_nobody_inside_under_stress(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(1, check_stress, NULL), 0);
}

static int leave_unentered(void *arg)
{
    (void)arg;
    shoal_gate_init(&gate);
    shoal_gate_leave(&gate);
    return 0;
}

static int end_occupied(void *arg)
{
    (void)arg;
    shoal_gate_init(&gate);
    (void)shoal_gate_enter(&gate);
    shoal_gate_deinit(&gate);
    return 0;
}

static void gate_misuse_aborts_with_a_message(void **state)
{
    (void)state;
    shoal_test_fiber_aborts_with(1, leave_unentered, "more have left than entered");
    shoal_test_fiber_aborts_with(1, end_occupied, "ends while 1 are inside");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gate_close_waits_until_all_have_left),
        cmocka_unit_test(gate_close_closes_whatever_becomes_of_its_wait),
        cmocka_unit_test(gate_close_finds_nobody_inside_under_stress),
        cmocka_unit_test(gate_misuse_aborts_with_a_message),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
