/*
 * The read-write lock: who may be inside together, the order, waits that end early.
 */
/* backends: both */
#include "shoal/runtime/rwlock.h"

#include "unit/sync_check.h"

static struct shoal_rwlock rwlock;

static void begin(void)
{
    sync_clock_begin();
    shoal_rwlock_init(&rwlock);
}

static void end(void)
{
    SHOAL_EXPECT_INT(shoal_rwlock_readers(&rwlock), 0);
    SHOAL_EXPECT(!shoal_rwlock_writing(&rwlock));
    SHOAL_EXPECT_INT(sync_waiters(), 0);
    shoal_rwlock_deinit(&rwlock);
    sync_clock_end();
}

static int read_lock(void *arg)
{
    (void)arg;
    return shoal_rwlock_read_lock(&rwlock, FOREVER);
}

static int write_lock(void *arg)
{
    (void)arg;
    return shoal_rwlock_write_lock(&rwlock, FOREVER);
}

static int write_lock_a_tick(void *arg)
{
    (void)arg;
    return shoal_rwlock_write_lock(&rwlock, TICK);
}

static struct shoal_fiber *waiting(shoal_fiber_fn *fn)
{
    struct shoal_fiber *fiber = sync_spawn(fn, NULL);
    sync_settle();
    SHOAL_EXPECT(!sync_done(fiber));
    return fiber;
}

static int check_order(void *arg)
{
    (void)arg;
    begin();
    SHOAL_EXPECT_INT(shoal_rwlock_read_lock(&rwlock, 0), 0);
    SHOAL_EXPECT(shoal_rwlock_try_read_lock(&rwlock));
    SHOAL_EXPECT(!shoal_rwlock_try_write_lock(&rwlock));
    SHOAL_EXPECT_INT(shoal_rwlock_readers(&rwlock), 2);
    struct shoal_fiber *writer = waiting(write_lock);
    struct shoal_fiber *reader = waiting(read_lock); /* behind the writer: it must not starve */
    SHOAL_EXPECT(!shoal_rwlock_try_read_lock(&rwlock));
    struct shoal_future *also = shoal_rwlock_read_lock_future(&rwlock, FOREVER);
    struct shoal_future *last = shoal_rwlock_write_lock_future(&rwlock, FOREVER);
    struct shoal_future *behind = shoal_rwlock_read_lock_future(&rwlock, FOREVER);
    shoal_rwlock_read_unlock(&rwlock);
    sync_settle();
    SHOAL_EXPECT(!sync_done(writer));
    shoal_rwlock_read_unlock(&rwlock);
    SHOAL_EXPECT(shoal_rwlock_writing(&rwlock));
    SHOAL_EXPECT_INT(shoal_fiber_join(writer), 0);
    SHOAL_EXPECT(!sync_done(reader));
    shoal_rwlock_write_unlock(&rwlock);
    SHOAL_EXPECT_INT(shoal_fiber_join(reader), 0); /* with the reader after it */
    SHOAL_EXPECT_INT(shoal_rwlock_readers(&rwlock), 2);
    SHOAL_EXPECT_INT(sync_await(also), 0);
    shoal_rwlock_read_unlock(&rwlock);
    SHOAL_EXPECT(shoal_future_is_pending(last));
    shoal_rwlock_read_unlock(&rwlock);
    SHOAL_EXPECT(!shoal_future_is_pending(last) && shoal_future_is_pending(behind));
    SHOAL_EXPECT_INT(sync_await(last), 0);
    shoal_rwlock_downgrade(&rwlock); /* lets readers in, and no writer between */
    SHOAL_EXPECT_INT(shoal_rwlock_readers(&rwlock), 2);
    SHOAL_EXPECT(!shoal_rwlock_writing(&rwlock));
    SHOAL_EXPECT_INT(sync_await(behind), 0);
    shoal_rwlock_read_unlock(&rwlock);
    shoal_rwlock_read_unlock(&rwlock);
    SHOAL_EXPECT(shoal_rwlock_try_write_lock(&rwlock));
    SHOAL_EXPECT(!shoal_rwlock_try_read_lock(&rwlock));
    shoal_rwlock_write_unlock(&rwlock);
    end();
    return 0;
}

static void rwlock_serves_readers_and_writers_in_one_order(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(1, check_order, NULL), 0);
}

static int check_early(void *arg)
{
    (void)arg;
    begin();
    SHOAL_EXPECT(shoal_rwlock_try_read_lock(&rwlock));
    struct shoal_fiber *writer = waiting(write_lock_a_tick);
    struct shoal_fiber *reader = waiting(read_lock);
    sync_pass(TICK);
    SHOAL_EXPECT_INT(shoal_fiber_join(writer), -ETIMEDOUT);
    SHOAL_EXPECT_INT(shoal_fiber_join(reader), 0); /* nothing is in its way any more */
    struct shoal_future *cancelled = shoal_rwlock_write_lock_future(&rwlock, FOREVER);
    struct shoal_future *behind = shoal_rwlock_read_lock_future(&rwlock, FOREVER);
    shoal_future_cancel(cancelled);
    SHOAL_EXPECT_INT(sync_await(cancelled), -ECANCELED);
    SHOAL_EXPECT_INT(sync_await(behind), 0);
    SHOAL_EXPECT_INT(shoal_rwlock_readers(&rwlock), 3);
    writer = waiting(write_lock);
    for (int i = 0; i < 3; i++)
        shoal_rwlock_read_unlock(&rwlock);
    shoal_fiber_cancel(writer);
    SHOAL_EXPECT_INT(shoal_fiber_join(writer), 0); /* the lock was faster */
    for (int i = 0; i < 20000; i++) {              /* each unlocks for the next, on little stack */
        shoal_discard(shoal_rwlock_read_lock_future(&rwlock, FOREVER));
        shoal_discard(shoal_rwlock_write_lock_future(&rwlock, FOREVER));
    }
    shoal_rwlock_write_unlock(&rwlock);
    SHOAL_EXPECT_INT(shoal_await(shoal_rwlock_read_lock_future(&rwlock, 0), NULL), 0);
    SHOAL_EXPECT_INT(shoal_await(shoal_rwlock_write_lock_future(&rwlock, 0), NULL), 0);
    end();
    return 0;
}

static void rwlock_wait_that_ends_early_never_holds_it(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(1, check_early, NULL), 0);
}

/* ---- Stress ---- */

struct world {
    uint32_t readers;
    uint32_t writers;
};

static void check_world(void *arg)
{
    const struct world *world = arg;
    SHOAL_EXPECT(world->writers == 0 || (world->writers == 1 && world->readers == 0));
    SHOAL_EXPECT(world->readers <= shoal_rwlock_readers(&rwlock));
    const struct shoal_waiter *first = shoal_wait_queue_first(&rwlock.queue);
    bool free = !shoal_rwlock_writing(&rwlock) && shoal_rwlock_readers(&rwlock) == 0;
    SHOAL_EXPECT(first == NULL || !free);
    SHOAL_EXPECT(first == NULL || first->n == 1 || shoal_rwlock_writing(&rwlock));
}

static int try_lock(bool write)
{
    bool got = write ? shoal_rwlock_try_write_lock(&rwlock) : shoal_rwlock_try_read_lock(&rwlock);
    return got ? 0 : -ETIMEDOUT;
}

static void step(struct sync_actor *actor, void *arg)
{
    struct world *world = arg;
    bool write = sync_random(actor, 3) == 0;
    uint64_t timeout_ns = sync_random_timeout(actor);
    union shoal_value value;
    int code = 0;
    bool got;
    switch (sync_random(actor, 4)) {
    case 0:
        code = try_lock(write);
        got = code == 0;
        break;
    case 1:
        got = sync_end_somehow(actor,
                               write ? shoal_rwlock_write_lock_future(&rwlock, timeout_ns)
                                     : shoal_rwlock_read_lock_future(&rwlock, timeout_ns),
                               &value, &code);
        break;
    default:
        code = write ? shoal_rwlock_write_lock(&rwlock, timeout_ns)
                     : shoal_rwlock_read_lock(&rwlock, timeout_ns);
        got = code == 0;
        break;
    }
    SHOAL_EXPECT(code == 0 || sync_early(code));
    if (!got)
        return;
    *(write ? &world->writers : &world->readers) += 1;
    check_world(world);
    (void)shoal_sleep_ns(sync_random(actor, 3) * TICK);
    check_world(world);
    *(write ? &world->writers : &world->readers) -= 1;
    if (!write) {
        shoal_rwlock_read_unlock(&rwlock);
    } else if (sync_random(actor, 2) == 0) {
        shoal_rwlock_write_unlock(&rwlock);
    } else {
        shoal_rwlock_downgrade(&rwlock);
        (void)shoal_yield();
        shoal_rwlock_read_unlock(&rwlock);
    }
}

static void end_round(void *arg)
{
    (void)arg;
    SHOAL_EXPECT_INT(shoal_rwlock_readers(&rwlock), 0);
    SHOAL_EXPECT(!shoal_rwlock_writing(&rwlock));
}

static int check_stress(void *arg)
{
    (void)arg;
    struct world world = {0};
    const struct sync_stress stress = {.rounds = 200,
                                       .actors = 12,
                                       .steps = 20,
                                       .step = step,
                                       .check = check_world,
                                       .round_end = end_round,
                                       .arg = &world};
    shoal_rwlock_init(&rwlock);
    sync_stress_run(&stress);
    shoal_rwlock_deinit(&rwlock);
    return 0;
}

static void rwlock_keeps_writers_alone_under_stress(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(1, check_stress, NULL), 0);
}

/* ---- Misuse ---- */

static int read_unlock_unlocked(void *arg)
{
    (void)arg;
    shoal_rwlock_init(&rwlock);
    (void)shoal_rwlock_try_write_lock(&rwlock);
    shoal_rwlock_read_unlock(&rwlock);
    return 0;
}

static int write_unlock_unlocked(void *arg)
{
    (void)arg;
    shoal_rwlock_init(&rwlock);
    (void)shoal_rwlock_try_read_lock(&rwlock);
    shoal_rwlock_write_unlock(&rwlock);
    return 0;
}

static int downgrade_unlocked(void *arg)
{
    (void)arg;
    shoal_rwlock_init(&rwlock);
    shoal_rwlock_downgrade(&rwlock);
    return 0;
}

static int end_locked(void *arg)
{
    (void)arg;
    shoal_rwlock_init(&rwlock);
    (void)shoal_rwlock_try_read_lock(&rwlock);
    shoal_rwlock_deinit(&rwlock);
    return 0;
}

static void rwlock_misuse_aborts_with_a_message(void **state)
{
    (void)state;
    static const struct {
        shoal_fiber_fn *fn;
        const char *text;
    } cases[] = {
        {read_unlock_unlocked, "read_unlock, and nobody reads"},
        {write_unlock_unlocked, "write_unlock, and nobody writes"},
        {downgrade_unlocked, "downgrade, and nobody writes"},
        {end_locked, "ends while it is locked"},
    };
    for (size_t i = 0; i < SHOAL_ARRAY_SIZE(cases); i++)
        shoal_test_fiber_aborts_with(1, cases[i].fn, cases[i].text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rwlock_serves_readers_and_writers_in_one_order),
        cmocka_unit_test(rwlock_wait_that_ends_early_never_holds_it),
        cmocka_unit_test(rwlock_keeps_writers_alone_under_stress),
        cmocka_unit_test(rwlock_misuse_aborts_with_a_message),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
