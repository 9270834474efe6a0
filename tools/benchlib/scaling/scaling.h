/*
 * bin/shoal-bench-scaling, the program that `tools/bench scaling` runs at each number of cores:
 * what its files share. It sees what a user's program sees: public headers and the shared library.
 */
#ifndef SHOAL_BENCH_SCALING_H
#define SHOAL_BENCH_SCALING_H

#include <stdint.h>

#include <shoal/shoal.h>

/* What may be in flight towards one core, less what core 0 uses to start the others. */
#define SCALING_WINDOW_MAX (SHOAL_SUBMIT_IN_FLIGHT_MAX - 1)

struct scaling {
    struct shoal_http_options http;
    uint64_t run_ns;
    uint64_t warm_up_ns;
    uint64_t window; /* messages that each core keeps in flight */
};

/* serve.c: an HTTP server whose answers need no other core (/plaintext) or one (/hop). */
int scaling_serve(const struct scaling *scaling);

/* messages.c: every core sends to every other one, nothing else; prints what came of it. */
int scaling_messages(const struct scaling *scaling);

/* memory.c: what the mesh takes, by the allocator's own count; prints it. */
int scaling_memory(const struct scaling *scaling);

/* The core that follows `last` in turn and is not this one, unless there is no other. */
static inline unsigned scaling_next_core(unsigned last)
{
    unsigned count = shoal_core_count();
    unsigned self = (unsigned)shoal_core_id();
    unsigned next = last + 1 < count ? last + 1 : 0;
    if (next == self && count > 1)
        next = next + 1 < count ? next + 1 : 0;
    return next;
}

#endif
