/*
 * What the tests of sync share: fibers that wait, a clock that the test moves, and a stress in
 * which actors are cancelled and timed out at every point.
 */
#ifndef SHOAL_TESTS_UNIT_SYNC_CHECK_H
#define SHOAL_TESTS_UNIT_SYNC_CHECK_H

#include "shoal/runtime/core_impl.h"
#include "shoal/runtime/errors.h"
#include "shoal/runtime/fiber.h"
#include "shoal/runtime/future_impl.h"
#include "shoal/runtime/sync_impl.h"

#include "unit/harness.h"

#define FOREVER SHOAL_NS_FOREVER
#define TICK    UINT64_C(1024) /* of the wheel: on the test's clock, deadlines in ticks are exact */

/* Makes time stand still; only sync_pass() moves it. Until sync_clock_end(). */
void sync_clock_begin(void);
void sync_clock_end(void);

/* Lets `ns` pass on the test's clock, and what that brings run. */
void sync_pass(uint64_t ns);

/* Lets all that is ready run, and what that makes ready. */
void sync_settle(void);

struct shoal_fiber *sync_spawn(shoal_fiber_fn *fn, void *arg);

static inline bool sync_done(const struct shoal_fiber *fiber)
{
    return fiber->state == SHOAL_FIBER_DONE;
}

/* Futures' waiters that are in use. */
static inline unsigned sync_waiters(void)
{
    return shoal_slab_live(&shoal_core_self->waiters);
}

/* Awaits for the code alone, keeping what the value stands for. */
static inline int sync_await(struct shoal_future *future)
{
    union shoal_value value;
    return shoal_await(future, &value);
}

struct sync_actor {
    struct shoal_fiber *fiber;
    const struct sync_stress *stress;
    uint64_t random;
    uint32_t number; /* from 0 */
    bool done;
};

/*
 * In each round so many actors make so many steps each, on the test's clock, while some of them are
 * cancelled; those that still wait at the end are. `check` holds at any time between.
 */
struct sync_stress {
    unsigned rounds;
    unsigned actors;
    unsigned steps;
    void (*step)(struct sync_actor *actor, void *arg);
    void (*check)(void *arg);
    void (*round_end)(void *arg); /* after the actors, NULL: nothing */
    void *arg;
};

void sync_stress_run(const struct sync_stress *stress);

/* A number below `range`. */
static inline unsigned sync_random(struct sync_actor *actor, unsigned range)
{
    return (unsigned)(shoal_test_random(&actor->random) >> 33) % range;
}

/* FOREVER, 0, or some ticks. */
static inline uint64_t sync_random_timeout(struct sync_actor *actor)
{
    unsigned kind = sync_random(actor, 8);
    return kind < 3 ? FOREVER : kind == 3 ? 0 : TICK * (1 + sync_random(actor, 6));
}

/*
 * Ends a future in one of many ways: awaits it, with or without a look at the value, at once or
 * later; cancels it before; discards it, pending or not. Whether the value is the caller's, in
 * *value; *code gets the result unless it was discarded.
 */
bool sync_end_somehow(struct sync_actor *actor, struct shoal_future *future,
                      union shoal_value *value, int *code);

/* A result that a wait may have which ends early. */
static inline bool sync_early(int code)
{
    return code == -ETIMEDOUT || code == -ECANCELED;
}

#endif
