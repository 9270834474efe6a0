/*
 * What the sanitizers and valgrind want to know about stacks that switch. All of it is nothing in
 * other builds; valgrind's requests are a few no-op instructions, made once a stack.
 */
#ifndef SHOAL_RUNTIME_SANITIZER_IMPL_H
#define SHOAL_RUNTIME_SANITIZER_IMPL_H

#include <stddef.h>

#include "shoal/runtime/compiler.h"

#if defined(__has_include)
#if __has_include(<valgrind/memcheck.h>)
#include <valgrind/memcheck.h>
#define SHOAL_VALGRIND_STACK_REGISTER(low, high) VALGRIND_STACK_REGISTER(low, high)
#define SHOAL_VALGRIND_STACK_DEREGISTER(id)      VALGRIND_STACK_DEREGISTER(id)
#define SHOAL_VALGRIND_UNDEFINED(low, bytes)     VALGRIND_MAKE_MEM_UNDEFINED(low, bytes)
#endif
#endif
#ifndef SHOAL_VALGRIND_STACK_REGISTER
#define SHOAL_VALGRIND_STACK_REGISTER(low, high) 0
#define SHOAL_VALGRIND_STACK_DEREGISTER(id)      ((void)(id))
#define SHOAL_VALGRIND_UNDEFINED(low, bytes)     ((void)(low))
#endif

#ifdef SHOAL_ASAN
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
/* A stack that begins anew: what its former frames have left behind is forgotten. */
static inline void shoal_sanitizer_forget_stack(void *low, size_t bytes)
{
    ASAN_UNPOISON_MEMORY_REGION(low, bytes);
}
static inline void shoal_asan_start_switch(void **fake_stack, const void *low, size_t bytes)
{
    __sanitizer_start_switch_fiber(fake_stack, low, bytes);
}
static inline void shoal_asan_finish_switch(void *fake_stack, const void **low, size_t *bytes)
{
    __sanitizer_finish_switch_fiber(fake_stack, low, bytes);
}
#else
static inline void shoal_sanitizer_forget_stack(void *low, size_t bytes)
{
    (void)bytes;
    (void)SHOAL_VALGRIND_UNDEFINED(low, bytes);
}
static inline void shoal_asan_start_switch(void **fake_stack, const void *low, size_t bytes)
{
    (void)fake_stack;
    (void)low;
    (void)bytes;
}
static inline void shoal_asan_finish_switch(void *fake_stack, const void **low, size_t *bytes)
{
    (void)fake_stack;
    (void)low;
    (void)bytes;
}
#endif

#ifdef SHOAL_TSAN
#include <sanitizer/tsan_interface.h>
static inline void *shoal_tsan_current(void)
{
    return __tsan_get_current_fiber();
}
static inline void *shoal_tsan_create(void)
{
    return __tsan_create_fiber(0);
}
static inline void shoal_tsan_destroy(void *fiber)
{
    __tsan_destroy_fiber(fiber);
}
/* Inlined always: a function that were entered on one fiber must not be left on another. */
static inline __attribute__((always_inline)) void shoal_tsan_switch(void *fiber)
{
    __tsan_switch_to_fiber(fiber, 0);
}
#else
static inline void *shoal_tsan_current(void)
{
    return NULL;
}
static inline void *shoal_tsan_create(void)
{
    return NULL;
}
static inline void shoal_tsan_destroy(void *fiber)
{
    (void)fiber;
}
static inline void shoal_tsan_switch(void *fiber)
{
    (void)fiber;
}
#endif

#endif
