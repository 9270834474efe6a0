/*
 * A token bucket: lets through what a rate allows, and makes the rest wait, first come, first
 * served.
 *
 *   100 in a second, at most 20 of them at once:
 *   {.tokens = 100, .interval_ns = SHOAL_NS_PER_S, .burst = 20}
 *
 * 1. Tokens accrue continuously, by whole nanoseconds and in integers: over any time in which
 *    somebody waits, exactly the rate is let through, however late timers fire.
 * 2. A bucket that nobody waits at fills up to `burst` tokens. It begins full.
 * 3. Who wants many and is first in line is not overtaken; a wait that ends early takes nothing.
 * 4. One timer, for the first in line; none while nobody waits.
 */
#ifndef SHOAL_RUNTIME_RATE_LIMITER_H
#define SHOAL_RUNTIME_RATE_LIMITER_H

#include "shoal/runtime/wait_queue.h"

SHOAL_BEGIN_DECLS

struct shoal_rate_limiter_options {
    uint64_t tokens;      /* that accrue in `interval_ns`; both at least 1 */
    uint64_t interval_ns; /* `tokens` and burst * interval_ns below 2^62 */
    uint64_t burst;       /* tokens in a full bucket, at least 1 */
};

struct shoal_rate_limiter {
    struct shoal_wait_queue queue; /* private, as is the rest */
    struct shoal_timer timer;
    uint64_t tokens;
    uint64_t interval_ns;
    uint64_t burst;
    uint64_t credit; /* in tokens times interval_ns: `tokens` of it accrue in each nanosecond */
    uint64_t seen_ns;
};

/* 0; -EINVAL for options that are 0 or too large. Allocates nothing. */
SHOAL_API int shoal_rate_limiter_init(struct shoal_rate_limiter *limiter,
                                      const struct shoal_rate_limiter_options *options);

/* Nobody may wait, nor hold a future with tokens of it. */
SHOAL_API void shoal_rate_limiter_deinit(struct shoal_rate_limiter *limiter);

/*
 * Waits for `n` tokens and takes them. 0; -EINVAL for more than `burst`; -ETIMEDOUT, or the code of
 * the fiber's cancel, with none taken. On a fiber; yields if it has to wait. See wait_queue.h.
 */
SHOAL_API int shoal_rate_limiter_acquire(struct shoal_rate_limiter *limiter, uint64_t n,
                                         uint64_t timeout_ns);

/* Takes `n` tokens if they are there and nobody waits; whether it did. Does not yield. */
SHOAL_API bool shoal_rate_limiter_try_acquire(struct shoal_rate_limiter *limiter, uint64_t n);

/*
 * A future that resolves once `n` tokens are taken. -EINVAL, -ETIMEDOUT, -ECANCELED, -ENOMEM.
 * Discarding it, and awaiting it with NULL for the value, give the tokens back.
 */
SHOAL_API struct shoal_future *shoal_rate_limiter_acquire_future(struct shoal_rate_limiter *limiter,
                                                                 uint64_t n, uint64_t timeout_ns);

/* Whole tokens in the bucket now. */
SHOAL_API uint64_t shoal_rate_limiter_available(struct shoal_rate_limiter *limiter);

SHOAL_END_DECLS

#endif
