/*
 * What every header of Shoal needs from the compiler: export, layout and branch helpers.
 */
#ifndef SHOAL_RUNTIME_COMPILER_H
#define SHOAL_RUNTIME_COMPILER_H

#include <stddef.h>

#define SHOAL_API __attribute__((visibility("default")))

#ifdef __cplusplus
#define SHOAL_BEGIN_DECLS               extern "C" {
#define SHOAL_END_DECLS                 }
#define SHOAL_STATIC_ASSERT(cond, text) static_assert(cond, text)
#else
#define SHOAL_BEGIN_DECLS
#define SHOAL_END_DECLS
#define SHOAL_STATIC_ASSERT(cond, text) _Static_assert(cond, text)
#endif

#define SHOAL_CACHE_LINE 64

#define SHOAL_LIKELY(x)   __builtin_expect(!!(x), 1)
#define SHOAL_UNLIKELY(x) __builtin_expect(!!(x), 0)

#define SHOAL_PRINTF(fmt_index, first_arg) __attribute__((format(printf, fmt_index, first_arg)))
#define SHOAL_NO_TSAN                      __attribute__((no_sanitize("thread")))
#define SHOAL_NOINLINE                     __attribute__((noinline))
#define SHOAL_NORETURN                     __attribute__((noreturn))
#define SHOAL_NODISCARD                    __attribute__((warn_unused_result))

/* The object of `type` whose `member` is at `ptr`. */
#define SHOAL_CONTAINER_OF(ptr, type, member) ((type *)((char *)(ptr)-offsetof(type, member)))

#define SHOAL_ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))

#if defined(__SANITIZE_ADDRESS__)
#define SHOAL_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SHOAL_ASAN 1
#endif
#endif

#if defined(__SANITIZE_THREAD__)
#define SHOAL_TSAN 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define SHOAL_TSAN 1
#endif
#endif

#endif
