/*
 * Futures with a type: the same calls for one member of union shoal_value, so that callers neither
 * cast nor spell the union out.
 *
 *   SHOAL_THEN_FN(add, const int64_t *, i64, i64)
 *   {
 *       *out = *in + *arg;
 *       return 0;
 *   }
 *
 *   int64_t sum;
 *   int rc = shoal_await_i64(shoal_then(shoal_ready_i64(40), add, &two), &sum);
 *
 * The members: ptr, i64, u64, f64, fd. Inline all of it; nothing is added to what the calls of
 * future.h cost, but for `shoal_ready_*`, which is cheaper.
 */
#ifndef SHOAL_RUNTIME_TYPED_H
#define SHOAL_RUNTIME_TYPED_H

#include "shoal/runtime/future.h"

SHOAL_BEGIN_DECLS

/*
 * Defines shoal_ready_M(value), shoal_resolve_M(future, value) and shoal_await_M(future, &value)
 * for the member M. The await leaves `*out` alone unless it returns 0.
 */
#define SHOAL_TYPED(member, type)                                                                  \
    static inline struct shoal_future *shoal_ready_##member(type from)                             \
    {                                                                                              \
        union shoal_value value;                                                                   \
        __builtin_memset(&value, 0, sizeof(value));                                                \
        value.member = from;                                                                       \
        return shoal_future_ready(&value);                                                         \
    }                                                                                              \
                                                                                                   \
    static inline void shoal_resolve_##member(struct shoal_future *future, type from)              \
    {                                                                                              \
        union shoal_value value;                                                                   \
        __builtin_memset(&value, 0, sizeof(value));                                                \
        value.member = from;                                                                       \
        shoal_future_resolve(future, &value);                                                      \
    }                                                                                              \
                                                                                                   \
    static inline int shoal_await_##member(struct shoal_future *future, type *out)                 \
    {                                                                                              \
        union shoal_value value;                                                                   \
        int code = shoal_await(future, &value);                                                    \
        if (SHOAL_LIKELY(code == 0))                                                               \
            *out = value.member;                                                                   \
        return code;                                                                               \
    }

SHOAL_TYPED(ptr, void *)
SHOAL_TYPED(i64, int64_t)
SHOAL_TYPED(u64, uint64_t)
SHOAL_TYPED(f64, double)
SHOAL_TYPED(fd, int)

/*
 * Begins the definition of a function for shoal_then() with the name `name`: its body follows, and
 * sees `arg` of type `arg_type` (a pointer), `in`, a pointer to the constant member `from` of the
 * value that came, and `out`, a pointer to the member `to` of the value to come.
 */
#define SHOAL_THEN_FN(name, arg_type, from, to)                                                    \
    static inline int name##_typed(arg_type arg,                                                   \
                                   const __typeof__(((union shoal_value *)0)->from) *in,           \
                                   __typeof__(((union shoal_value *)0)->to) *out);                 \
    static int name(void *arg, const union shoal_value *in, union shoal_value *out)                \
    {                                                                                              \
        return name##_typed((arg_type)arg, &in->from, &out->to);                                   \
    }                                                                                              \
    static inline int name##_typed(arg_type arg,                                                   \
                                   const __typeof__(((union shoal_value *)0)->from) *in,           \
                                   __typeof__(((union shoal_value *)0)->to) *out)

/* The same for shoal_then_future(): the body returns a future. */
#define SHOAL_THEN_FUTURE_FN(name, arg_type, from)                                                 \
    static inline struct shoal_future *name##_typed(                                               \
        arg_type arg, const __typeof__(((union shoal_value *)0)->from) *in);                       \
    static struct shoal_future *name(void *arg, const union shoal_value *in)                       \
    {                                                                                              \
        return name##_typed((arg_type)arg, &in->from);                                             \
    }                                                                                              \
    static inline struct shoal_future *name##_typed(                                               \
        arg_type arg, const __typeof__(((union shoal_value *)0)->from) *in)

/* The same for shoal_catch(): the body sees `arg`, `code`, `text` and `out`. */
#define SHOAL_CATCH_FN(name, arg_type, to)                                                         \
    static inline int name##_typed(arg_type arg, int code, const char *text,                       \
                                   __typeof__(((union shoal_value *)0)->to) *out);                 \
    static int name(void *arg, int code, const char *text, union shoal_value *out)                 \
    {                                                                                              \
        return name##_typed((arg_type)arg, code, text, &out->to);                                  \
    }                                                                                              \
    static inline int name##_typed(arg_type arg, int code, const char *text,                       \
                                   __typeof__(((union shoal_value *)0)->to) *out)

SHOAL_END_DECLS

#endif
