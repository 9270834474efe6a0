/*
 * A core for fuzz targets of what needs one: made at the first input, on the calling thread, and
 * kept. fuzz_core_run() runs what is ready and comes back.
 */
#ifndef SHOAL_TESTS_FUZZ_CORE_H
#define SHOAL_TESTS_FUZZ_CORE_H

#include "shoal/runtime/core_impl.h"

#include "fuzz/fuzz_input.h"

static inline struct shoal_core *fuzz_core(void)
{
    static struct shoal_core core;
    static bool made;
    if (!made) {
        const struct shoal_core_config config = {
            .memory_limit_bytes = UINT64_MAX,
            .task_quota_ns = SHOAL_NS_PER_MS,
            .io = &shoal_io_epoll,
        };
        char error[256];
        REQUIRE(shoal_core_init(&core, &config, error, sizeof(error)) == 0);
        made = true;
    }
    return &core;
}

static inline void fuzz_core_run(struct shoal_core *core)
{
    shoal_core_quit(core);
    shoal_core_run(core);
    core->quit = false;
}

#endif
