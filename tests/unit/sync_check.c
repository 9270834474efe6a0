/*
 * See sync_check.h.
 */
#include "unit/sync_check.h"

static struct {
    struct shoal_clock clock; /* first: the clock is handed itself */
    uint64_t now_ns;
    uint64_t ended_ns; /* of the system's clock; 0 while the time stands still */
    bool poll_mode;
} test_clock;

static uint64_t test_now_ns(const struct shoal_clock *clock)
{
    (void)clock;
    if (test_clock.ended_ns == 0)
        return test_clock.now_ns;
    return test_clock.now_ns + shoal_clock_system.now_ns(&shoal_clock_system) - test_clock.ended_ns;
}

void sync_clock_begin(void)
{
    struct shoal_core *core = shoal_core_self;
    test_clock.clock.now_ns = test_now_ns;
    test_clock.now_ns = ((shoal_now_ns() >> 20) + 2) << 20;
    test_clock.ended_ns = 0;
    test_clock.poll_mode = core->config.poll_mode;
    core->config.poll_mode = true; /* it would sleep by the system's clock */
    core->clock = &test_clock.clock;
    sync_pass(0);
}

void sync_clock_end(void)
{
    /* It goes on from here: a clock must not go back. */
    test_clock.ended_ns = shoal_clock_system.now_ns(&shoal_clock_system);
    shoal_core_self->config.poll_mode = test_clock.poll_mode;
}

void sync_settle(void)
{
    for (int i = 0; i < 8; i++) {
        shoal_fiber_shield();
        (void)shoal_yield();
        shoal_fiber_unshield();
    }
}

void sync_pass(uint64_t ns)
{
    test_clock.now_ns += ns;
    (void)shoal_timer_wheel_expire(&shoal_core_self->timers, test_clock.now_ns);
    sync_settle();
}

struct shoal_fiber *sync_spawn(shoal_fiber_fn *fn, void *arg)
{
    struct shoal_fiber *fiber = NULL;
    SHOAL_EXPECT_INT(shoal_fiber_spawn(&fiber, fn, arg, "waiter"), 0);
    return fiber;
}

/* ---- Stress ---- */

static int act(void *arg)
{
    struct sync_actor *actor = arg;
    for (unsigned i = 0; i < actor->stress->steps && !shoal_fiber_cancelled(); i++) {
        actor->stress->step(actor, actor->stress->arg);
        if (sync_random(actor, 4) == 0)
            (void)shoal_yield();
    }
    actor->done = true;
    return 0;
}

static unsigned still_acting(const struct sync_actor *actors, unsigned count)
{
    unsigned acting = 0;
    for (unsigned i = 0; i < count; i++)
        acting += !actors[i].done;
    return acting;
}

static void run_round(const struct sync_stress *stress, uint64_t *random)
{
    struct sync_actor actors[32];
    SHOAL_CHECK(stress->actors <= SHOAL_ARRAY_SIZE(actors), "too many actors");
    for (unsigned i = 0; i < stress->actors; i++) {
        actors[i] = (struct sync_actor){
            .stress = stress, .random = shoal_test_random(random) | 1, .number = i};
        actors[i].fiber = sync_spawn(act, &actors[i]);
    }
    for (unsigned turn = 0; still_acting(actors, stress->actors) > 0; turn++) {
        unsigned chance = (unsigned)(shoal_test_random(random) >> 33);
        struct sync_actor *actor = &actors[chance % stress->actors];
        if (chance % 7 == 0 && !actor->done)
            shoal_fiber_cancel(actor->fiber);
        if (chance % 3 != 0) { /* otherwise cancels meet what is ready */
            test_clock.now_ns += chance % 5 * TICK;
            (void)shoal_timer_wheel_expire(&shoal_core_self->timers, test_clock.now_ns);
        }
        SHOAL_EXPECT_INT(shoal_yield(), 0);
        stress->check(stress->arg);
        for (unsigned i = 0; turn > 1000 && i < stress->actors; i++)
            if (!actors[i].done)
                shoal_fiber_cancel(actors[i].fiber);
    }
    for (unsigned i = 0; i < stress->actors; i++)
        SHOAL_EXPECT_INT(shoal_fiber_join(actors[i].fiber), 0);
    sync_pass(16 * TICK); /* discarded futures time out */
    stress->check(stress->arg);
    if (stress->round_end != NULL)
        stress->round_end(stress->arg);
    SHOAL_EXPECT_INT(sync_waiters(), 0);
}

void sync_stress_run(const struct sync_stress *stress)
{
    uint64_t random = 88172645463325252u;
    sync_clock_begin();
    for (unsigned round = 0; round < 4 * stress->rounds / SHOAL_TEST_SLOWDOWN; round++)
        run_round(stress, &random);
    sync_clock_end();
}

bool sync_end_somehow(struct sync_actor *actor, struct shoal_future *future,
                      union shoal_value *value, int *code)
{
    unsigned how = sync_random(actor, 8);
    *code = -ECANCELED;
    if (how == 0) {
        shoal_discard(future);
        return false;
    }
    if (how == 1) { /* without a turn of the loop between */
        shoal_future_cancel(future);
        shoal_discard(future);
        return false;
    }
    if (how < 5) { /* it may settle before it is consumed */
        (void)shoal_yield();
        if (how == 3)
            shoal_future_cancel(future);
        if (how == 4) {
            shoal_discard(future);
            return false;
        }
    }
    if (how == 5) {
        *code = shoal_await(future, NULL);
        return false;
    }
    *code = shoal_await(future, value);
    return *code == 0;
}
