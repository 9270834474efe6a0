/*
 * What the mesh of rings takes: read off the allocator's count of each core, so that it holds
 * whatever the structures look like.
 *
 *   fixed bytes      of the last core once it has been asked one thing: what of it grows with the
 *                    number of cores are its tables of peers and its dirty words
 *   asking bytes     what a core takes that asks another one for the first time
 *   answering bytes  what the core takes that is asked
 *   small bytes      what a core takes that asks another one for the first time in a service group
 *                    with SMALL messages in flight
 *
 * The last three when both have exchanged messages with others before, so that slabs are warm. Core
 * 2 tells what core 0 caused there through core 1: a question of core 0's own would be the first
 * message itself.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "scaling.h"

#define SMALL 16

static uint64_t used_bytes(void)
{
    struct shoal_mem_stats stats;
    shoal_mem_stats(&stats);
    return stats.used_bytes;
}

static int used_here(void *arg, union shoal_value *out)
{
    (void)arg;
    out->u64 = used_bytes();
    return 0;
}

static int nothing(void *arg, union shoal_value *out)
{
    (void)arg;
    (void)out;
    return 0;
}

/* On a fiber of core 1. */
static int used_on_2(void *arg, union shoal_value *out)
{
    (void)arg;
    return shoal_await(shoal_submit_to(2, used_here, NULL), out);
}

static int ask_core_2(uint64_t *used)
{
    union shoal_value value = {.u64 = 0};
    int rc = shoal_await(shoal_submit_fiber_to(1, used_on_2, NULL), &value);
    *used = value.u64;
    return rc;
}

/* The first messages in a group of small rings: to core 3 with all tables, then to core 2 alone. */
static int ask_in_small_group(uint64_t *bytes)
{
    struct shoal_service_group *group;
    int rc = shoal_service_group_new(&group, "small", SMALL);
    if (rc < 0)
        return rc;
    const struct shoal_submit call = {.fn = nothing, .group = group};
    rc = shoal_await(shoal_submit(3, &call), NULL);
    uint64_t before = used_bytes();
    if (rc == 0)
        rc = shoal_await(shoal_submit(2, &call), NULL);
    *bytes = used_bytes() - before;
    int freed = shoal_service_group_free(group);
    return rc < 0 ? rc : freed;
}

int scaling_memory(const struct scaling *scaling)
{
    (void)scaling;
    unsigned cores = shoal_core_count();
    if (cores < 4)
        return shoal_config_error("--smp: %u (with --workload memory: 4 or more)", cores);
    union shoal_value last = {.u64 = 0};
    uint64_t before[2] = {0};
    uint64_t after[2] = {0};
    int rc = shoal_await(shoal_submit_to(cores - 1, used_here, NULL), &last);
    for (int warm = 0; warm < 3 && rc == 0; warm++)
        rc = ask_core_2(&before[1]);
    before[0] = used_bytes();
    if (rc == 0)
        rc = shoal_await(shoal_submit_to(2, nothing, NULL), NULL);
    after[0] = used_bytes();
    if (rc == 0)
        rc = ask_core_2(&after[1]);
    uint64_t small = 0;
    if (rc == 0)
        rc = ask_in_small_group(&small);
    if (rc < 0)
        return rc;
    printf("cores\t%u\n", cores);
    printf("fixed_bytes\t%" PRIu64 "\n", last.u64);
    printf("asking_bytes\t%" PRIu64 "\n", after[0] - before[0]);
    printf("answering_bytes\t%" PRIu64 "\n", after[1] - before[1]);
    printf("small_bytes\t%" PRIu64 "\n", small);
    return 0;
}
