/*
 * Trying again: one operation, until it succeeds or is given up.
 *
 *   struct shoal_future *row = shoal_retry(&(struct shoal_retry){
 *       .fiber = ask_database, .arg = query, .attempts = 5,
 *       .delay_ns = 10 * SHOAL_NS_PER_MS, .delay_max_ns = SHOAL_NS_PER_S, .jitter_percent = 50});
 *
 * The points at the top of combine.h hold here too. A limit for each attempt is a shoal_timeout()
 * inside `fn`; one for the whole is a shoal_timeout() around shoal_retry().
 */
#ifndef SHOAL_RUNTIME_RETRY_H
#define SHOAL_RUNTIME_RETRY_H

#include <stdbool.h>
#include <stdint.h>

#include "shoal/runtime/combine.h"
#include "shoal/runtime/compiler.h"
#include "shoal/runtime/future.h"

SHOAL_BEGIN_DECLS

#define SHOAL_RETRY_UNLIMITED UINT32_MAX

/* An attempt that has failed, and will be followed by another one if the program wants. */
struct shoal_retry_failure {
    uint32_t attempt; /* from 1 */
    int code;
    const char *text;  /* "" without; valid during the call */
    uint64_t delay_ns; /* how long it would wait before the next */
};

/*
 * What to do, and how often. One of `fn` and `fiber` is set; the number of the attempt, from 1, is
 * in `u64` of what they get.
 */
struct shoal_retry {
    shoal_then_future_fn *fn; /* returns the future of one attempt */
    shoal_async_fn *fiber;    /* or makes one attempt, on a fiber of its own */
    shoal_drop_fn *drop;      /* frees a value of `fiber` */
    void *arg;                /* for all functions here */
    const char *name;         /* of the fibers, for reports; kept by reference; NULL: "async" */

    uint32_t attempts;       /* at most so many in all: 1 or more, or SHOAL_RETRY_UNLIMITED */
    uint32_t growth_percent; /* each delay, of the one before; 100 or more; 0: 200, doubling */
    uint32_t jitter_percent; /* a delay is made shorter by a random part of up to this; 0 to 100 */
    uint64_t delay_ns;       /* before the second attempt; 0: none at all, the others run first */
    uint64_t delay_max_ns;   /* no delay is longer; 0: no cap */
    uint64_t seed;           /* of the jitter, for a run that can be repeated; 0: by the clock */

    /*
     * Asked after each failure but that of the last attempt: whether to go on. A place for a log
     * line, too. NULL: after any code but -ECANCELED.
     */
    bool (*again)(void *arg, const struct shoal_retry_failure *failure);
};

/*
 * The value of the first attempt that succeeds, or the code and text of the last one made. A
 * cancel during an attempt is passed on to it, and what comes of that is the result; during a
 * delay it ends the whole at once with -ECANCELED and the text of the last failure. Numbers outside
 * the limits above fail with -EINVAL.
 */
SHOAL_API struct shoal_future *shoal_retry(const struct shoal_retry *retry);

SHOAL_END_DECLS

#endif
