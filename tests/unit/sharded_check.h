/*
 * Services for the tests of services: one that writes down when its instances start and stop, and
 * one that counts its invocations.
 */
#ifndef SHOAL_TESTS_UNIT_SHARDED_CHECK_H
#define SHOAL_TESTS_UNIT_SHARDED_CHECK_H

#include <stdatomic.h>

#include "shoal/runtime/clock.h"
#include "shoal/runtime/core.h"
#include "shoal/runtime/errors.h"
#include "shoal/runtime/fiber.h"

#include "shoal/smp/service_group.h"
#include "shoal/smp/sharded.h"
#include "shoal/smp/submit.h"

#include "unit/harness.h"

#define CORES_MAX 8

/* ---- A service that writes down what happens ---- */

static struct {
    atomic_uint count;
    char lines[256][8]; /* "+3": started on core 3; "-3": stopped */
} diary;

static atomic_int live;  /* instances between start and stop */
static int fail_on;      /* this core's start fails; -1: none */
static int fail_also_on; /* and this one's */
static bool await_in_start;
static atomic_bool held; /* those who hold wait for it to end */
static atomic_int holding;

struct instance {
    unsigned char zeros[100];
    unsigned core;
    uint64_t magic;
    void *arg;
};

static inline void note(char what, unsigned core)
{
    unsigned i = atomic_fetch_add(&diary.count, 1);
    if (SHOAL_EXPECT(i < SHOAL_ARRAY_SIZE(diary.lines)))
        snprintf(diary.lines[i], sizeof(diary.lines[i]), "%c%u", what, core);
}

static inline void diary_text(char *text, size_t size)
{
    size_t at = 0;
    text[0] = '\0';
    for (unsigned i = 0; i < atomic_load(&diary.count); i++)
        at += (size_t)snprintf(text + at, size - at, "%s%s", i > 0 ? " " : "", diary.lines[i]);
}

static inline void forget(void)
{
    atomic_store(&diary.count, 0);
    atomic_store(&live, 0);
    fail_on = -1;
    fail_also_on = -1;
    await_in_start = false;
    atomic_store(&held, false);
    atomic_store(&holding, 0);
}

static inline int start_noting(void *instance, void *arg)
{
    struct instance *mine = instance;
    int core = shoal_core_id();
    SHOAL_EXPECT(shoal_fiber_self() != NULL);
    SHOAL_EXPECT_INT((uintptr_t)instance % SHOAL_CACHE_LINE, 0);
    for (size_t i = 0; i < sizeof(mine->zeros); i++)
        SHOAL_EXPECT_INT(mine->zeros[i], 0);
    SHOAL_EXPECT_INT(mine->magic, 0);
    if (await_in_start)
        SHOAL_EXPECT_INT(shoal_sleep_ns((uint64_t)(core + 1) * 200 * SHOAL_NS_PER_US), 0);
    if (core == fail_on || core == fail_also_on)
        return shoal_await(shoal_future_failed(-EIO, "disk %d is full", core), NULL);
    mine->core = (unsigned)core;
    mine->magic = 0x1234;
    mine->arg = arg;
    memset(mine->zeros, 0xff, sizeof(mine->zeros));
    atomic_fetch_add(&live, 1);
    note('+', mine->core);
    return 0;
}

static inline void stop_noting(void *instance)
{
    struct instance *mine = instance;
    SHOAL_EXPECT_INT(mine->core, shoal_core_id());
    SHOAL_EXPECT_INT(mine->magic, 0x1234);
    SHOAL_EXPECT_INT(shoal_sleep_ns(1000), 0); /* it may await, and is not cancelled */
    SHOAL_EXPECT(shoal_sharded_local(shoal_sharded_of(instance)) == instance);
    note('-', mine->core);
    atomic_fetch_sub(&live, 1);
}

static const struct shoal_sharded_ops noting = {
    .name = "noting",
    .instance_bytes = sizeof(struct instance),
    .start = start_noting,
    .stop = stop_noting,
};

static inline int start_it(struct shoal_sharded **out, enum shoal_sharded_order order)
{
    return shoal_sharded_start(
        out, &(struct shoal_sharded_options){.ops = &noting, .arg = &diary, .order = order});
}

/* ---- A service that counts ---- */

struct counter {
    unsigned core;
    uint64_t calls;
};

static inline int open_counter(void *instance, void *arg)
{
    (void)arg;
    ((struct counter *)instance)->core = (unsigned)shoal_core_id();
    return 0;
}

static const struct shoal_sharded_ops counters = {
    .name = "counters", .instance_bytes = sizeof(struct counter), .start = open_counter};

static struct shoal_sharded *service;

static inline bool begin(struct shoal_service_group *of)
{
    return SHOAL_EXPECT_INT(
        shoal_sharded_start(&service,
                            &(struct shoal_sharded_options){.ops = &counters, .group = of}),
        0);
}

/* Value: the core, and how often it was called. */
static inline int count(void *instance, void *arg, union shoal_value *out)
{
    struct counter *mine = instance;
    SHOAL_EXPECT_INT(mine->core, shoal_core_id());
    mine->calls += (uintptr_t)arg;
    out->slice.size = mine->core;
    out->slice.tag = mine->calls;
    return 0;
}

static inline int count_slowly(void *instance, void *arg, union shoal_value *out)
{
    SHOAL_EXPECT(shoal_fiber_self() != NULL);
    SHOAL_EXPECT_INT(shoal_yield(), 0);
    return count(instance, arg, out);
}

#endif
