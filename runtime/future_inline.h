/*
 * The layout of a future, one cache line, and what of its calls is worth inlining: making one,
 * chaining and awaiting it. Included by future.h; programs use the calls and leave the layout
 * alone.
 *
 *    0  task      queued when the future has settled and a continuation consumes it
 *   16  value     24 bytes; while pending it holds what only a pending future needs:
 *                 a root: the cancel hook and its context; a derived one: the function that will
 *                 make it, that function's argument, and the future it comes from
 *   40  consumer  the awaiting fiber, or the derived future
 *   48  drop (SHOAL_FUTURE_DROPS, not failed) or text (failed)
 *   56  error, core, and the status: state, flags, consumer, the scheduling group of its task
 *
 * A future that is ready, that nobody consumes yet and that has no flag is one comparison away.
 * Checked builds set a flag on each, and keep their free ones where inlined code finds none, so
 * that whatever was compiled without checks ends up in the functions that check.
 */
#ifndef SHOAL_RUNTIME_FUTURE_INLINE_H
#define SHOAL_RUNTIME_FUTURE_INLINE_H

#include "shoal/runtime/core_inline.h"
#include "shoal/runtime/future.h"
#include "shoal/runtime/task.h"

SHOAL_BEGIN_DECLS

struct shoal_fiber;

#define SHOAL_FUTURE_PENDING UINT8_C(1)
#define SHOAL_FUTURE_READY   UINT8_C(2)
#define SHOAL_FUTURE_FAILED  UINT8_C(3)

/* Who consumes a future. */
#define SHOAL_CONSUMER_NONE    UINT8_C(0)
#define SHOAL_CONSUMER_FIBER   UINT8_C(1)
#define SHOAL_CONSUMER_TASK    UINT8_C(2)
#define SHOAL_CONSUMER_DISCARD UINT8_C(3)
#define SHOAL_CONSUMER_THEN    UINT8_C(4)
/* A bit beside: a continuation found no memory, so that the outcome, whatever it is, will be
 * -ENOMEM. The future is still to be consumed, and settles no earlier than it would have. */
#define SHOAL_CONSUMER_SPOILED UINT8_C(0x80)

#define SHOAL_FUTURE_DERIVED  UINT8_C(1)  /* `derived` of the payload is valid */
#define SHOAL_FUTURE_HOOKED   UINT8_C(2)  /* `root` is valid */
#define SHOAL_FUTURE_IMMORTAL UINT8_C(4)  /* the -ENOMEM future: consumed any number of times */
#define SHOAL_FUTURE_CHECKED  UINT8_C(8)  /* a checked build's: not for inlined code */
#define SHOAL_FUTURE_DROPS    UINT8_C(16) /* `drop` is valid, while it has not failed */

/* In a status: somebody consumes it, or it is the immortal one. */
#define SHOAL_FUTURE_NOT_FREE (UINT32_C(0xff) << 16 | (uint32_t)SHOAL_FUTURE_IMMORTAL << 8)

struct shoal_future {
    struct shoal_task task;
    __extension__ union {
        union shoal_value value;
        struct {
            shoal_cancel_fn *cancel;
            void *ctx;
        } root; /* SHOAL_FUTURE_HOOKED */
        struct {
            union {
                shoal_then_fn *then;
                shoal_then_future_fn *then_future;
                shoal_catch_fn *caught;
                shoal_finally_fn *finally;
            } fn;
            void *arg;
            struct shoal_future *upstream; /* NULL once it has run */
        } derived;                         /* SHOAL_FUTURE_DERIVED */
    };
    union {
        struct shoal_fiber *fiber;
        struct shoal_future *derived;
        void *ctx; /* of a task of the library's own */
    } consumer;
    __extension__ union {
        shoal_drop_fn *drop;
        char *text;
    };
    __extension__ union {
        uint64_t word;
        __extension__ struct {
            int16_t error;
            uint16_t core;
            __extension__ union {
                uint32_t status;
                __extension__ struct {
                    uint8_t state;
                    uint8_t flags;
                    __extension__ union {
                        uint16_t consumer_and_group;
                        __extension__ struct {
                            uint8_t consumer_kind;
                            uint8_t group;
                        };
                    };
                };
            };
        };
    };
};
SHOAL_STATIC_ASSERT(sizeof(struct shoal_future) == SHOAL_CACHE_LINE, "a future is a cache line");
SHOAL_STATIC_ASSERT(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the state is the lowest byte");

SHOAL_API struct shoal_future *shoal_future_new_slow(void);
SHOAL_API struct shoal_future *shoal_future_ready_slow(const union shoal_value *value);
SHOAL_API int shoal_await_slow(struct shoal_future *future, union shoal_value *out);
SHOAL_API struct shoal_future *shoal_then_slow(struct shoal_future *future, shoal_then_fn *fn,
                                               void *arg);
SHOAL_API void shoal_discard_slow(struct shoal_future *future);

/*
 * Copies a value by words: what was written by words just now would hold a wider load up until it
 * had reached the cache, and the compiler would like to make it two wide moves. None of them is a
 * pointer, which for the compiler might be the one that the next free object is found by.
 */
#define SHOAL_VALUE_COPY(to, from)                                                                 \
    do {                                                                                           \
        uint64_t word0_ = (from)->u64;                                                             \
        uint64_t word1_ = (from)->slice.size;                                                      \
        uint64_t word2_ = (from)->slice.tag;                                                       \
        __asm__("" : "+r"(word0_));                                                                \
        __asm__("" : "+r"(word1_));                                                                \
        __asm__("" : "+r"(word2_));                                                                \
        (to)->u64 = word0_;                                                                        \
        (to)->slice.size = word1_;                                                                 \
        (to)->slice.tag = word2_;                                                                  \
    } while (0)

#if !defined(SHOAL_DEBUG) && !defined(SHOAL_ASAN)

/* Defined by the library as well: inlined where the compiler likes to. A checked build calls those:
 * a stale pointer must meet their checks before anything is read through it. */
#define SHOAL_INLINE_COPY extern inline __attribute__((gnu_inline))

SHOAL_INLINE_COPY struct shoal_future *shoal_future_new(void)
{
    struct shoal_core_inline *core = SHOAL_CORE_INLINE_SELF;
    struct shoal_slab_item *item = core->futures.free;
    if (SHOAL_UNLIKELY(item == NULL))
        return shoal_future_new_slow();
    core->futures.free = item->next;
    struct shoal_future *future = (struct shoal_future *)(void *)item;
    future->word = core->pending_word;
    return future;
}

SHOAL_INLINE_COPY struct shoal_future *shoal_future_ready(const union shoal_value *value)
{
    struct shoal_core_inline *core = SHOAL_CORE_INLINE_SELF;
    struct shoal_slab_item *item = core->futures.free;
    if (SHOAL_UNLIKELY(item == NULL))
        return shoal_future_ready_slow(value);
    core->futures.free = item->next;
    struct shoal_future *future = (struct shoal_future *)(void *)item;
    if (value != NULL)
        SHOAL_VALUE_COPY(&future->value, value);
    else
        __builtin_memset(&future->value, 0, sizeof(future->value));
    future->word = core->ready_word;
    return future;
}

SHOAL_INLINE_COPY struct shoal_future *shoal_then(struct shoal_future *future, shoal_then_fn *fn,
                                                  void *arg)
{
    struct shoal_core_inline *core = SHOAL_CORE_INLINE_SELF;
    struct shoal_slab_item *item = core->futures.free;
    if (SHOAL_UNLIKELY(item == NULL || (future->status & SHOAL_FUTURE_NOT_FREE) != 0))
        return shoal_then_slow(future, fn, arg);
    core->futures.free = item->next;
    struct shoal_future *derived = (struct shoal_future *)(void *)item;
    derived->word = core->derived_word;
    derived->derived.fn.then = fn;
    derived->derived.arg = arg;
    derived->derived.upstream = future;
    future->consumer.derived = derived;
    if (future->state != SHOAL_FUTURE_PENDING) {
        future->task.run = core->run_then;
        future->task.next = NULL;
        *core->ready->tail = &future->task;
        core->ready->tail = &future->task.next;
    }
    future->consumer_and_group = core->then_consumer;
    return derived;
}

SHOAL_INLINE_COPY void shoal_discard(struct shoal_future *future)
{
    if (SHOAL_LIKELY((future->status & (SHOAL_FUTURE_NOT_FREE | UINT32_C(0xff) |
                                        (uint32_t)SHOAL_FUTURE_CHECKED << 8)) ==
                     SHOAL_FUTURE_PENDING))
        future->consumer_kind = SHOAL_CONSUMER_DISCARD;
    else
        shoal_discard_slow(future);
}

SHOAL_INLINE_COPY int shoal_await(struct shoal_future *future, union shoal_value *out)
{
    struct shoal_core_inline *core = SHOAL_CORE_INLINE_SELF;
    if (SHOAL_UNLIKELY(future->status != SHOAL_FUTURE_READY || !core->may_await))
        return shoal_await_slow(future, out);
    if (out != NULL)
        SHOAL_VALUE_COPY(out, &future->value);
    struct shoal_slab_item *item = (struct shoal_slab_item *)(void *)future;
    item->next = core->futures.free;
    core->futures.free = item;
    return 0;
}

#endif

SHOAL_END_DECLS

#endif
