/*
 * What a core offers beside futures, fibers and timers: the clock, the preemption test, tasks.
 */
#include <stddef.h>
#include <time.h>

#include <shoal/shoal.h>

#include "micro.h"

static void clock_read(struct micro_watch *watch, uint64_t ops)
{
    micro_start(watch);
    for (uint64_t i = 0; i < ops; i++)
        MICRO_USE(shoal_now_ns());
    micro_stop(watch, ops);
}

static void clock_coarse(struct micro_watch *watch, uint64_t ops)
{
    micro_start(watch);
    for (uint64_t i = 0; i < ops; i++)
        MICRO_USE(shoal_coarse_now_ns());
    micro_stop(watch, ops);
}

static void clock_libc(struct micro_watch *watch, uint64_t ops)
{
    micro_start(watch);
    for (uint64_t i = 0; i < ops; i++) {
        struct timespec time;
        clock_gettime(CLOCK_MONOTONIC, &time);
        MICRO_USE(time.tv_nsec);
    }
    micro_stop(watch, ops);
}

static void need_preempt(struct micro_watch *watch, uint64_t ops)
{
    micro_start(watch);
    for (uint64_t i = 0; i < ops; i++)
        MICRO_USE(shoal_need_preempt());
    micro_stop(watch, ops);
}

static struct shoal_task tasks[MICRO_BATCH];
static uint64_t remaining;
static struct shoal_future *all_done;

static void count_task(struct shoal_task *task)
{
    (void)task;
    if (--remaining == 0)
        shoal_future_resolve(all_done, NULL);
}

static void task_post(struct micro_watch *watch, uint64_t ops)
{
    uint64_t done = 0;
    for (unsigned i = 0; i < MICRO_BATCH; i++)
        tasks[i].run = count_task;
    micro_start(watch);
    while (done < ops) {
        remaining = MICRO_BATCH;
        all_done = shoal_future_new();
        for (unsigned i = 0; i < MICRO_BATCH; i++)
            shoal_task_post(&tasks[i]);
        (void)shoal_await(all_done, NULL);
        done += MICRO_BATCH;
    }
    micro_stop(watch, done);
}

static void mem_alloc_free(struct micro_watch *watch, uint64_t ops)
{
    micro_start(watch);
    for (uint64_t i = 0; i < ops; i++) {
        void *memory = shoal_mem_alloc(64);
        MICRO_USE(memory);
        shoal_mem_free(memory, 64);
    }
    micro_stop(watch, ops);
}

const struct micro_case micro_core_cases[] = {
    {"task-post", "a task posted and run", task_post, micro_limit_queue,
     "run queue and indirect call", 0},
    {"need-preempt", "shoal_need_preempt()", need_preempt, micro_limit_cycles,
     "read of the cycle counter", 0},
    {"clock-read", "shoal_now_ns()", clock_read, micro_limit_cycles, "read of the cycle counter",
     0},
    {"clock-coarse", "shoal_coarse_now_ns()", clock_coarse, micro_limit_load, "a load", 0},
    {"clock-libc", "clock_gettime(), for comparison", clock_libc, micro_limit_cycles,
     "read of the cycle counter", 0},
    {"mem-alloc", "64 bytes allocated and freed, for comparison", mem_alloc_free, micro_limit_slab,
     "slab take and give", 0},
    {.name = NULL},
};
