/*
 * What the tests of channels between cores share: values that say where they come from, and work on
 * other cores.
 */
#ifndef SHOAL_TESTS_UNIT_CORE_CHANNEL_CHECK_H
#define SHOAL_TESTS_UNIT_CORE_CHANNEL_CHECK_H

#include <stdatomic.h>

#include "shoal/runtime/check.h"
#include "shoal/runtime/core_impl.h"
#include "shoal/runtime/errors.h"
#include "shoal/runtime/fiber.h"
#include "shoal/runtime/future.h"
#include "shoal/runtime/timer.h"

#include "shoal/smp/core_channel.h"
#include "shoal/smp/submit.h"

#include "unit/harness.h"

#define FOREVER SHOAL_NS_FOREVER

/* Starts `fn(arg)` on a fiber of `core`; the future has what it returned as its code. */
static inline struct shoal_future *start_on(unsigned core, shoal_submit_fiber_fn *fn, void *arg)
{
    return shoal_submit_fiber_to(core, fn, arg);
}

/* The same, and waits for it. */
static inline int run_on(unsigned core, shoal_submit_fiber_fn *fn, void *arg)
{
    return shoal_await(start_on(core, fn, arg), NULL);
}

static inline struct shoal_core_channel *make_channel(uint32_t item_bytes, uint32_t credit,
                                                      uint32_t senders, void (*drop)(void *item))
{
    const struct shoal_core_channel_options options = {
        .item_bytes = item_bytes, .credit = credit, .senders = senders, .drop = drop};
    struct shoal_core_channel *channel = NULL;
    SHOAL_EXPECT_INT(shoal_core_channel_new(&channel, &options), 0);
    return channel;
}

static inline struct shoal_core_sender *make_sender(struct shoal_core_channel *channel)
{
    struct shoal_core_sender *sender = NULL;
    SHOAL_EXPECT_INT(shoal_core_sender_new(&sender, channel), 0);
    return sender;
}

/* Lets all cores run until `*word` is at least `wanted`. */
static inline void wait_for(const atomic_int *word, int wanted)
{
    while (atomic_load(word) < wanted)
        (void)shoal_sleep_ns(50 * SHOAL_NS_PER_US);
}

#endif
