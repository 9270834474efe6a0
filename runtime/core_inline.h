/*
 * The head of a core: what inlined code of the public headers reads and writes. Its layout is part
 * of the library's ABI; programs leave it alone.
 */
#ifndef SHOAL_RUNTIME_CORE_INLINE_H
#define SHOAL_RUNTIME_CORE_INLINE_H

#include <stdbool.h>
#include <stdint.h>

#include "shoal/runtime/compiler.h"
#include "shoal/runtime/slab.h"

SHOAL_BEGIN_DECLS

struct shoal_core;
struct shoal_task;
struct shoal_task_queue;

struct shoal_core_inline {
    struct shoal_task_queue *ready; /* of the scheduling group that runs */
    uint64_t pending_word;          /* what a future ends with: one that is pending, */
    uint64_t derived_word;          /* one that a continuation will make, */
    uint64_t ready_word;            /* one that is ready */
    void (*run_then)(struct shoal_task *task);
    uint64_t preempt_cycles; /* shoal_need_preempt() compares with this */
    uint16_t then_consumer;  /* what shoal_then() makes of a future's consumer */
    uint8_t group;           /* number of the scheduling group that runs */
    bool may_await;          /* a fiber runs that is not cancelled */
    struct shoal_slab futures;
};

/* The core of the calling thread; NULL on others. */
extern __thread struct shoal_core *shoal_core_self
    __attribute__((tls_model("initial-exec"), visibility("default")));

#define SHOAL_CORE_INLINE_SELF ((struct shoal_core_inline *)(void *)shoal_core_self)

/* Counts at a fixed rate; never leaves its core. */
static inline uint64_t shoal_cycles(void)
{
#if defined(__x86_64__)
    return __builtin_ia32_rdtsc();
#elif defined(__aarch64__)
    uint64_t value;
    __asm__ volatile("mrs %0, cntvct_el0" : "=r"(value));
    return value;
#else
    extern uint64_t shoal_clock_cycles(void);
    return shoal_clock_cycles();
#endif
}

SHOAL_END_DECLS

#endif
