/*
 * Cores share nothing: in checked builds an object that another core uses ends the program with a
 * text that names the object and both cores. Here: futures, fibers, scopes, timers, memory, slices,
 * scheduling groups, combinators. See isolation_check.h.
 */
#include "shoal/runtime/abort_source.h"
#include "shoal/runtime/blocking.h"
#include "shoal/runtime/buffer.h"
#include "shoal/runtime/clock.h"
#include "shoal/runtime/combine.h"
#include "shoal/runtime/core_impl.h"
#include "shoal/runtime/file_direct.h"
#include "shoal/runtime/future_impl.h"
#include "shoal/runtime/io.h"
#include "shoal/runtime/mem_report.h"
#include "shoal/runtime/scope.h"
#include "shoal/runtime/select.h"
#include "shoal/runtime/shared_future.h"

#include "unit/isolation_check.h"

#define AN_HOUR (SHOAL_NS_PER_S * 3600)

static void make_nothing(void)
{
}

/* ---- Futures ---- */

static struct shoal_future *future;
static struct shoal_shared_future *shared;
static struct shoal_results *results;
static union shoal_value value;

static void make_pending(void)
{
    future = shoal_future_new();
}

static void make_ready(void)
{
    future = shoal_future_ready(NULL);
}

static void make_no_memory(void)
{
    future = shoal_core_self->no_memory;
}

static void make_shared(void)
{
    shared = shoal_shared_future_new(shoal_future_new(), NULL);
}

static void make_results(void)
{
    struct shoal_future *inputs[] = {shoal_future_ready(NULL), shoal_future_ready(NULL)};
    SHOAL_EXPECT_INT(shoal_await(shoal_when_all(inputs, 2), &value), 0);
    results = value.ptr;
}

static int then_nothing(void *arg, const union shoal_value *in, union shoal_value *out)
{
    (void)arg;
    (void)in;
    (void)out;
    return 0;
}

static struct shoal_future *then_no_future(void *arg, const union shoal_value *in)
{
    (void)arg;
    (void)in;
    return shoal_future_ready(NULL);
}

static int catch_nothing(void *arg, int code, const char *text, union shoal_value *out)
{
    (void)arg;
    (void)code;
    (void)text;
    (void)out;
    return 0;
}

static void finally_nothing(void *arg)
{
    (void)arg;
}

static void drop_nothing(union shoal_value *dropped)
{
    (void)dropped;
}

static void run_nothing(struct shoal_task *task)
{
    (void)task;
}

static void select_future(void)
{
    struct shoal_select_case source = shoal_select_future(future);
    (void)shoal_select(&source, 1, 0);
}

static const struct shoal_stage stage = {.then = then_nothing};

#define FUTURES(X)                                                                                 \
    X(resolve, "resolve of future 0x", pending, shoal_future_resolve(future, NULL))                \
    X(fail, "fail of future 0x", pending, shoal_future_fail(future, -EIO, "text"))                 \
    X(fail_move, "fail of future 0x", pending, shoal_future_fail_move(future, -EIO, NULL))         \
    X(on_cancel, "on_cancel of future 0x", pending,                                                \
      shoal_future_on_cancel(future, finally_nothing, NULL))                                       \
    X(on_drop, "on_drop of future 0x", pending, shoal_future_on_drop(future, drop_nothing))        \
    X(is_pending, "is_pending of future 0x", pending, (void)shoal_future_is_pending(future))       \
    X(cancel, "cancel of future 0x", pending, shoal_future_cancel(future))                         \
    X(discard, "discard of future 0x", pending, shoal_discard(future))                             \
    X(discard_ready, "discard of future 0x", ready, shoal_discard(future))                         \
    X(await, "await of future 0x", ready, (void)shoal_await(future, NULL))                         \
    X(await_no_memory, "await of future 0x", no_memory, (void)shoal_await(future, NULL))           \
    X(then, "chain of future 0x", ready, (void)shoal_then(future, then_nothing, NULL))             \
    X(then_pending, "chain of future 0x", pending, (void)shoal_then(future, then_nothing, NULL))   \
    X(then_future, "chain of future 0x", ready,                                                    \
      (void)shoal_then_future(future, then_no_future, NULL))                                       \
    X(caught, "chain of future 0x", ready, (void)shoal_catch(future, catch_nothing, NULL))         \
    X(finally, "chain of future 0x", ready, (void)shoal_finally(future, finally_nothing, NULL))    \
    X(consume, "consume of future 0x", pending,                                                    \
      (void)shoal_future_consume(future, run_nothing, NULL))                                       \
    X(when_all, "is_pending of future 0x", pending, (void)shoal_when_all(&future, 1))              \
    X(when_all_ready, "is_pending of future 0x", ready, (void)shoal_when_all(&future, 1))          \
    X(when_any, "is_pending of future 0x", pending,                                                \
      (void)shoal_when_any(&future, 1, SHOAL_LOSERS_JOIN))                                         \
    X(when_settled, "is_pending of future 0x", pending, (void)shoal_when_settled(&future, 1))      \
    X(timeout, "is_pending of future 0x", pending, (void)shoal_timeout(future, AN_HOUR))           \
    X(pipeline, "is_pending of future 0x", pending, (void)shoal_pipeline(future, &stage, 1))       \
    X(select, "is_pending of future 0x", ready, select_future())                                   \
    X(share, "is_pending of future 0x", pending, (void)shoal_shared_future_new(future, NULL))      \
    X(shared_get, "get of shared future 0x", shared, (void)shoal_shared_future_get(shared))        \
    X(shared_is_pending, "is_pending of shared future 0x", shared,                                 \
      (void)shoal_shared_future_is_pending(shared))                                                \
    X(shared_cancel, "cancel of shared future 0x", shared, shoal_shared_future_cancel(shared))     \
    X(shared_ref, "ref of shared future 0x", shared, (void)shoal_shared_future_ref(shared))        \
    X(shared_unref, "unref of shared future 0x", shared, shoal_shared_future_unref(shared))        \
    X(results_free, "free of results 0x", results, shoal_results_free(results))                    \
    X(results_drop, "drop of results 0x", results, shoal_results_drop(results))

ISOLATION_TABLE(futures, FUTURES);

/* ---- Fibers, scopes, timers, scheduling groups ---- */

static struct shoal_fiber *fiber;
static struct shoal_scope *scope; /* new ones: at home the last one is still in use */
static struct shoal_timer *timer;
static struct shoal_sched_group *group;
static struct shoal_sched_group_stats group_stats;

static int return_at_once(void *arg)
{
    (void)arg;
    return 0;
}

static void make_fiber(void)
{
    SHOAL_EXPECT_INT(shoal_fiber_spawn(&fiber, return_at_once, NULL, "victim"), 0);
}

static void make_scope(void)
{
    scope = shoal_mem_alloc(sizeof(*scope));
    shoal_scope_enter(scope, NULL);
}

static void fire(struct shoal_timer *fired)
{
    (void)fired;
}

static void make_timer(void)
{
    timer = shoal_mem_alloc(sizeof(*timer));
    shoal_timer_init(timer, fire);
    shoal_timer_arm(timer, AN_HOUR);
}

static void make_group(void)
{
    SHOAL_EXPECT_INT(shoal_sched_group_new(&group, "background", 10), 0);
}

/* At home there is room for some only. */
static void make_main_group(void)
{
    group = shoal_sched_group_main();
}

static void spawn_in_group(void)
{
    const struct shoal_fiber_options options = {.group = group};
    (void)shoal_fiber_spawn_with(NULL, return_at_once, NULL, &options);
}

static void spawn_in_scope_with(void)
{
    const struct shoal_fiber_options options = {.name = "child"};
    (void)shoal_scope_spawn_with(scope, return_at_once, NULL, &options);
}

#define FIBERS(X)                                                                                  \
    X(join, "join of fiber \"victim\"", fiber, (void)shoal_fiber_join(fiber))                      \
    X(detach, "detach of fiber \"victim\"", fiber, shoal_fiber_detach(fiber))                      \
    X(fiber_cancel, "cancel of fiber \"victim\"", fiber, shoal_fiber_cancel(fiber))                \
    X(fiber_name, "name of fiber \"victim\"", fiber, (void)shoal_fiber_name(fiber))                \
    X(scope_spawn, "spawn of a scope of fiber \"", scope,                                          \
      (void)shoal_scope_spawn(scope, return_at_once, NULL, "child"))                               \
    X(scope_spawn_with, "spawn of a scope of fiber \"", scope, spawn_in_scope_with())              \
    X(scope_cancel, "cancel of a scope of fiber \"", scope, shoal_scope_cancel(scope))             \
    X(scope_leave, "leave of a scope of fiber \"", scope, (void)shoal_scope_leave(scope))          \
    X(timer_arm, "arm of timer 0x", timer, shoal_timer_arm(timer, AN_HOUR))                        \
    X(timer_arm_at, "arm of timer 0x", timer, shoal_timer_arm_at(timer, UINT64_MAX))               \
    X(timer_arm_every, "arm of timer 0x", timer, shoal_timer_arm_every(timer, UINT64_MAX, 1))      \
    X(timer_cancel, "cancel of timer 0x", timer, (void)shoal_timer_cancel(timer))                  \
    X(group_spawn, "spawn of a fiber of scheduling group \"background\"", group, spawn_in_group()) \
    X(group_free, "free of scheduling group \"background\"", group,                                \
      (void)shoal_sched_group_free(group))                                                         \
    X(group_set_shares, "set_shares of scheduling group \"main\"", main_group,                     \
      (void)shoal_sched_group_set_shares(group, 100))                                              \
    X(group_enter, "enter of scheduling group \"main\"", main_group,                               \
      shoal_sched_group_enter(group))                                                              \
    X(group_stats, "stats of scheduling group \"main\"", main_group,                               \
      shoal_sched_group_stats(group, &group_stats))                                                \
    X(group_next, "next of scheduling group \"main\"", main_group,                                 \
      (void)shoal_sched_group_next(group))

ISOLATION_TABLE(fibers, FIBERS);

/* ---- Memory ---- */

static void *memory;
static struct shoal_slab slab;
static struct shoal_slice *slice;
static struct shoal_chain chain;
static struct shoal_abort_source source;
static struct shoal_abort_subscription subscription;

static void make_memory(void)
{
    memory = shoal_mem_alloc(100);
}

static void make_aligned(void)
{
    memory = shoal_mem_alloc_aligned(4096, 4096);
}

static void make_slab_object(void)
{
    shoal_slab_init(&slab, "thing", 48, 16);
    memory = shoal_slab_take(&slab);
}

static void make_slice(void)
{
    slice = shoal_slice_new(100, "test");
    slice->len = 100;
}

static void make_chain(void)
{
    make_slice();
    shoal_chain_init(&chain);
    shoal_chain_push(&chain, slice);
}

static void make_taken_over(void)
{
    static char bytes[10];
    slice = shoal_slice_take_over(bytes, sizeof(bytes), finally_nothing, NULL, "taken");
}

static void make_share(void)
{
    make_slice();
    slice = shoal_slice_share(slice, 10, 20);
}

static void make_received(void)
{
    struct shoal_bufpool *pool = &shoal_core_self->buffers;
    SHOAL_EXPECT(pool->count > 0 || shoal_bufpool_grow(pool));
    slice =
        pool->give_to_kernel != NULL ? shoal_bufpool_filled(pool, 0, 10) : shoal_bufpool_take(pool);
}

static void called(struct shoal_abort_subscription *caller, int code, const char *text)
{
    (void)caller;
    (void)code;
    (void)text;
}

static void make_subscription(void)
{
    shoal_abort_source_init(&source);
    SHOAL_EXPECT_INT(shoal_abort_subscribe(&source, &subscription, called, NULL), 0);
}

#define MEMORY(X)                                                                                  \
    X(mem_free, "free of memory 0x", memory, shoal_mem_free(memory, 100))                          \
    X(mem_free_aligned, "free of memory 0x", aligned, shoal_mem_free_aligned(memory, 4096, 4096))  \
    X(slab_give, "free of thing 0x", slab_object, shoal_slab_give(&slab, memory))                  \
    X(slice_free, "free of slice 0x", slice, shoal_slice_free(slice))                              \
    X(slice_free_taken, "free of slice 0x", taken_over, shoal_slice_free(slice))                   \
    X(slice_free_share, "free of slice 0x", share, shoal_slice_free(slice))                        \
    X(slice_free_received, "free of slice 0x", received, shoal_slice_free(slice))                  \
    X(slice_share, "share of slice 0x", slice, (void)shoal_slice_share(slice, 0, 1))               \
    X(chain_consume, "consume of slice 0x", chain, shoal_chain_consume(&chain, 1))                 \
    X(chain_clear, "free of slice 0x", chain, shoal_chain_clear(&chain))                           \
    X(unsubscribe, "unsubscribe of subscription 0x", subscription,                                 \
      shoal_abort_unsubscribe(&subscription))

ISOLATION_TABLE(memories, MEMORY);

/* ---- Threads that are no cores ---- */

static int answer_at_once(void *arg)
{
    (void)arg;
    return 0;
}

static struct shoal_mem_stats mem_stats;
static struct shoal_mem_report mem_report;
static struct shoal_timer idle_timer = {.node = {&idle_timer.node, &idle_timer.node}};
static const struct shoal_fiber_options no_options;

#define FOREIGN(X)                                                                                 \
    X(future_new, "making of a future", nothing, (void)shoal_future_new())                         \
    X(future_ready, "making of a future", nothing, (void)shoal_future_ready(NULL))                 \
    X(future_failed, "making of a future", nothing, (void)shoal_future_failed(-EIO, NULL))         \
    X(foreign_await, "await of future 0x", ready, (void)shoal_await(future, NULL))                 \
    X(foreign_resolve, "resolve of future 0x", pending, shoal_future_resolve(future, NULL))        \
    X(foreign_then, "chain of future 0x", pending, (void)shoal_then(future, then_nothing, NULL))   \
    X(foreign_discard, "discard of future 0x", pending, shoal_discard(future))                     \
    X(error_message, "error_message", nothing, (void)shoal_error_message())                        \
    X(async, "making of a combinator", nothing, (void)shoal_when_all(NULL, 0))                     \
    X(spawn, "spawn of a fiber", nothing,                                                          \
      (void)shoal_fiber_spawn(&fiber, return_at_once, NULL, "x"))                                  \
    X(spawn_detached, "spawn of a fiber", nothing,                                                 \
      (void)shoal_fiber_spawn_detached(return_at_once, NULL, "x"))                                 \
    X(spawn_with, "spawn of a fiber", nothing,                                                     \
      (void)shoal_fiber_spawn_with(NULL, return_at_once, NULL, &no_options))                       \
    X(foreign_join, "join of fiber \"victim\"", fiber, (void)shoal_fiber_join(fiber))              \
    X(yield, "yield", nothing, (void)shoal_yield())                                                \
    X(sleep, "sleep", nothing, (void)shoal_sleep_until_ns(0))                                      \
    X(shield, "shield", nothing, shoal_fiber_shield())                                             \
    X(unshield, "unshield", nothing, shoal_fiber_unshield())                                       \
    X(cancelled, "fiber_cancelled", nothing, (void)shoal_fiber_cancelled())                        \
    X(local, "use of fiber-local data", nothing, (void)shoal_fiber_local_get(NULL))                \
    X(deadline, "deadline of a fiber", nothing, (void)shoal_fiber_deadline_ns())                   \
    X(scope_enter, "enter of a scope", nothing, shoal_scope_enter(scope, NULL))                    \
    X(foreign_scope, "cancel of a scope of fiber \"", scope, shoal_scope_cancel(scope))            \
    X(foreign_arm, "arm of a timer", nothing, shoal_timer_arm_at(&idle_timer, 1))                  \
    X(foreign_arm_armed, "arm of timer 0x", timer, shoal_timer_arm_at(timer, 1))                   \
    X(foreign_cancel, "cancel of timer 0x", timer, (void)shoal_timer_cancel(timer))                \
    X(foreign_mem_free, "free of memory 0x", memory, shoal_mem_free(memory, 100))                  \
    X(mem_stats, "statistics of memory", nothing, shoal_mem_stats(&mem_stats))                     \
    X(slab_stats, "statistics of slabs", nothing, shoal_slab_stats(NULL, NULL))                    \
    X(mem_report, "report of memory", nothing, shoal_mem_report(&mem_report))                      \
    X(foreign_slice, "free of slice 0x", slice, shoal_slice_free(slice))                           \
    X(group_new, "making of a scheduling group", nothing,                                          \
      (void)shoal_sched_group_new(&group, "x", 1))                                                 \
    X(group_self, "scheduling group of the caller", nothing, (void)shoal_sched_group_self())       \
    X(group_main, "main scheduling group", nothing, (void)shoal_sched_group_main())                \
    X(group_list, "list of scheduling groups", nothing, (void)shoal_sched_group_next(NULL))        \
    X(blocking, "blocking_call", nothing, (void)shoal_blocking_call(answer_at_once, NULL))         \
    X(poll_fd, "poll_fd", nothing, (void)shoal_poll_fd(0, 0))

ISOLATION_TABLE(foreigners, FOREIGN);

/* ---- */

static void isolation_at_home_nothing_is_said(void **state)
{
    (void)state;
    isolation_expect_silence(ISOLATION_ARGS(futures));
    isolation_expect_silence(ISOLATION_ARGS(fibers));
    isolation_expect_silence(ISOLATION_ARGS(memories));
}

static void isolation_thread_without_core_works_with_memory_and_slices_of_its_own(void **state)
{
    (void)state;
    void *bytes = shoal_mem_alloc(10);
    assert_non_null(bytes);
    shoal_mem_free(bytes, 10);
    make_taken_over();
    shoal_slice_free(slice);
    make_slice();
    shoal_slice_free(slice);
}

#if SHOAL_OWNER_CHECKED
static void isolation_future_of_another_core_aborts(void **state)
{
    (void)state;
    isolation_expect_aborts(ISOLATION_ARGS(futures));
}

static void isolation_fiber_scope_timer_group_of_another_core_abort(void **state)
{
    (void)state;
    isolation_expect_aborts(ISOLATION_ARGS(fibers));
}

static void isolation_memory_and_slices_of_another_core_abort(void **state)
{
    (void)state;
    isolation_expect_aborts(ISOLATION_ARGS(memories));
}

static void isolation_thread_without_core_aborts(void **state)
{
    (void)state;
    isolation_expect_foreign_aborts(ISOLATION_ARGS(foreigners));
}
#endif

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(isolation_at_home_nothing_is_said),
        cmocka_unit_test(isolation_thread_without_core_works_with_memory_and_slices_of_its_own),
#if SHOAL_OWNER_CHECKED
        cmocka_unit_test(isolation_future_of_another_core_aborts),
        cmocka_unit_test(isolation_fiber_scope_timer_group_of_another_core_abort),
        cmocka_unit_test(isolation_memory_and_slices_of_another_core_abort),
        cmocka_unit_test(isolation_thread_without_core_aborts),
#endif
    };
    (void)foreigners;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
