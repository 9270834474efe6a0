/*
 * What the tests of foreign threads and of embedding share: functions to submit, and a runtime
 * inside the test, whose own thread is then a foreign one.
 */
#ifndef SHOAL_TESTS_UNIT_FOREIGN_CHECK_H
#define SHOAL_TESTS_UNIT_FOREIGN_CHECK_H

#include <stdatomic.h>
#include <time.h>

#include <pthread.h>

#include "shoal/runtime/clock.h"
#include "shoal/runtime/core.h"
#include "shoal/runtime/errors.h"
#include "shoal/runtime/fiber.h"

#include "shoal/smp/embed.h"
#include "shoal/smp/foreign_thread.h"

#include "unit/harness.h"

#define FOREIGN_CORES 2

/* ---- On cores ---- */

static inline int foreign_plus(void *arg, union shoal_value *out)
{
    out->i64 = (intptr_t)arg + shoal_core_id() * 1000;
    return 0;
}

static inline struct shoal_future *foreign_plus_future(void *arg)
{
    const union shoal_value value = {.i64 = (intptr_t)arg + shoal_core_id() * 1000};
    return shoal_future_ready(&value);
}

/* A fiber that waits until it is cancelled. `arg`: NULL, or an atomic_int to be counted up first.
 */
static inline int foreign_wait(void *arg, union shoal_value *out)
{
    (void)out;
    if (arg != NULL)
        atomic_fetch_add((atomic_int *)arg, 1);
    return shoal_sleep_ns(SHOAL_NS_FOREVER);
}

static inline void foreign_end_future(void *ctx)
{
    shoal_future_fail(ctx, -ECANCELED, "the future was asked to end");
}

/* A future that ends when it is cancelled. */
static inline struct shoal_future *foreign_wait_future(void *arg)
{
    struct shoal_future *future = shoal_future_new();
    shoal_future_on_cancel(future, foreign_end_future, future);
    if (arg != NULL)
        atomic_fetch_add((atomic_int *)arg, 1);
    return future;
}

static inline void foreign_pause(void)
{
    const struct timespec pause = {.tv_nsec = 50000};
    nanosleep(&pause, NULL);
}

/* Holds its core until `*arg` is not 0; counts itself in by a second one. */
static inline int foreign_hold(void *arg, union shoal_value *out)
{
    (void)out;
    atomic_int *gate = arg;
    atomic_fetch_add(&gate[1], 1);
    while (atomic_load(&gate[0]) == 0)
        foreign_pause();
    return 0;
}

static inline void foreign_await(atomic_int *counter, int at_least)
{
    while (atomic_load(counter) < at_least)
        foreign_pause();
}

/* ---- A runtime around a test ---- */

static struct shoal_embed *foreign_running;

static inline struct shoal_embed *foreign_start_with(const char *const *more)
{
    if (foreign_running != NULL) { /* a test before has failed in the middle */
        shoal_embed_stop(foreign_running);
        (void)shoal_embed_wait(foreign_running, 10 * SHOAL_NS_PER_S, NULL);
        (void)shoal_embed_free(foreign_running);
    }
    const char *words[16] = {"--overprovisioned"};
    int count = 1;
    const char *backend = getenv("SHOAL_TEST_IO_BACKEND");
    if (backend != NULL && backend[0] != '\0') {
        words[count++] = "--io-backend";
        words[count++] = backend;
    }
    for (; more != NULL && *more != NULL; more++)
        words[count++] = *more;
    struct shoal_embed *embed;
    struct shoal_embed_failure failure;
    const struct shoal_embed_options options = {.cores = FOREIGN_CORES, .words = words};
    if (shoal_embed_start(&embed, &options, &failure) < 0)
        fail_msg("no runtime: %s", failure.text);
    foreign_running = embed;
    return embed;
}

static inline struct shoal_embed *foreign_start(void)
{
    return foreign_start_with(NULL);
}

static inline void foreign_stop(struct shoal_embed *embed)
{
    int code = -1;
    shoal_embed_stop(embed);
    assert_int_equal(shoal_embed_wait(embed, SHOAL_NS_FOREVER, &code), 0);
    assert_int_equal(code, 0);
    assert_int_equal(shoal_embed_free(embed), 0);
    foreign_running = NULL;
    assert_int_equal(shoal_test_failures(), 0);
}

#endif
