/*
 * Reports of a core's memory: see mem_report.h. Every slab registers with the core that makes it,
 * so that nobody keeps a list by hand.
 */
#include "shoal/runtime/mem_report.h"

#include <string.h>

#include "shoal/runtime/core_impl.h"
#include "shoal/runtime/log.h"
#include "shoal/runtime/owner_impl.h"

void shoal_slab_stats(shoal_slab_stats_fn *each, void *arg)
{
    SHOAL_CHECK_ON_CORE("statistics of slabs");
    SHOAL_LIST_FOREACH (node, &shoal_core_self->mem.slabs) {
        struct shoal_slab_stats stats;
        shoal_slab_describe(SHOAL_CONTAINER_OF(node, struct shoal_slab, registered), &stats);
        each(arg, &stats);
    }
}

static void add_slab(void *arg, const struct shoal_slab_stats *stats)
{
    struct shoal_mem_report *report = arg;
    report->slabs++;
    report->slab_bytes += stats->bytes;
    report->slab_live_bytes += (uint64_t)stats->live * stats->object_bytes;
}

void shoal_mem_report(struct shoal_mem_report *out)
{
    SHOAL_CHECK_ON_CORE("report of memory");
    const struct shoal_core *core = shoal_core_self;
    memset(out, 0, sizeof(*out));
    out->allocator = core->mem.stats;
    shoal_slab_stats(add_slab, out);
    out->buffers = core->buffers.count;
    out->buffers_free = core->buffers.free_count;
    out->buffer_bytes = shoal_bufpool_bytes(&core->buffers);
    out->fibers = core->fibers.live_count;
    out->fibers_free = core->fibers.free_count;
    struct shoal_stack_usage stacks;
    shoal_stack_usage(&core->fibers, &stacks);
    out->stack_reserved_bytes = stacks.reserved_bytes;
    out->stack_committed_bytes = stacks.committed_bytes;
    out->other_bytes =
        out->allocator.used_bytes - out->slab_bytes - out->buffer_bytes - stacks.bookkeeping_bytes;
}

static void log_slab(void *arg, const struct shoal_slab_stats *stats)
{
    (void)arg;
    SHOAL_INFO("memory:   %-20s %8u %10u %10u %8u %12llu", stats->name, stats->object_bytes,
               stats->live, stats->objects, stats->chunks, (unsigned long long)stats->bytes);
}

void shoal_mem_report_log(void)
{
    struct shoal_mem_report report;
    shoal_mem_report(&report);
    const struct shoal_mem_stats *stats = &report.allocator;
    if (stats->limit_bytes == UINT64_MAX)
        SHOAL_INFO("memory: %llu bytes used, %llu at most, no limit",
                   (unsigned long long)stats->used_bytes, (unsigned long long)stats->peak_bytes);
    else
        SHOAL_INFO("memory: %llu bytes used, %llu at most, limit %llu",
                   (unsigned long long)stats->used_bytes, (unsigned long long)stats->peak_bytes,
                   (unsigned long long)stats->limit_bytes);
    SHOAL_INFO("memory: %llu allocations, %llu frees, %llu failures",
               (unsigned long long)stats->allocs, (unsigned long long)stats->frees,
               (unsigned long long)stats->failures);
    SHOAL_INFO("memory:   %-20s %8s %10s %10s %8s %12s", "slab", "size", "live", "objects",
               "chunks", "bytes");
    shoal_slab_stats(log_slab, NULL);
    SHOAL_INFO("memory: receive buffers: %llu bytes, %u of %u free",
               (unsigned long long)report.buffer_bytes, report.buffers_free, report.buffers);
    SHOAL_INFO("memory: stacks: %llu bytes reserved, %llu in memory; %u fibers, %u free",
               (unsigned long long)report.stack_reserved_bytes,
               (unsigned long long)report.stack_committed_bytes, report.fibers, report.fibers_free);
    SHOAL_INFO("memory: others: %llu bytes", (unsigned long long)report.other_bytes);
}
