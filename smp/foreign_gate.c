/*
 * The gate between foreign threads and the cores, and who the process belongs to.
 *
 * All here is the process's: it must be there before a runtime is and after it has gone, since a
 * thread may come at any time.
 *
 * 1. `word` counts the threads inside, by twos; bit 0 is set while calls are taken. Who comes while
 *    it is not set goes away again. A close takes the bit away and waits until nobody is inside;
 *    from then on no thread touches a core, until the next open.
 * 2. In a child after fork() nobody is inside, nothing runs, and what belonged to the parent's
 *    threads is known by the count of forks.
 */
#include <pthread.h>

#include "shoal/runtime/clock.h"
#include "shoal/runtime/fiber.h"

#include "shoal/smp/foreign_impl.h"
#include "shoal/smp/launch_impl.h"

#define OPEN   UINT64_C(1)
#define INSIDE UINT64_C(2)

#define CLOSE_LOOK_NS (50 * SHOAL_NS_PER_US)

static struct {
    _Atomic uint64_t word;
    _Atomic uint64_t posted;
    _Atomic unsigned forks;
    _Atomic bool claimed;
    struct shoal_launch *launch; /* written while the gate is closed and nobody inside */
} gate;

/* ---- Forks ---- */

static void in_child(void)
{
    atomic_store_explicit(&gate.word, 0, memory_order_relaxed);
    atomic_store_explicit(&gate.claimed, false, memory_order_relaxed);
    atomic_fetch_add_explicit(&gate.forks, 1, memory_order_relaxed);
    shoal_launch_current = NULL;
}

static void watch_forks(void)
{
    (void)pthread_atfork(NULL, NULL, in_child);
}

unsigned shoal_foreign_forks(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, watch_forks);
    return atomic_load_explicit(&gate.forks, memory_order_relaxed);
}

bool shoal_process_claim(void)
{
    (void)shoal_foreign_forks();
    /* acquire, release: what the runtime before has left is seen by the next one. */
    return !atomic_exchange_explicit(&gate.claimed, true, memory_order_acquire);
}

void shoal_process_release(void)
{
    atomic_store_explicit(&gate.claimed, false, memory_order_release);
}

/* ---- The gate ---- */

struct shoal_launch *shoal_foreign_enter(void)
{
    /* A look first: threads that come again and again must not keep a close from its end. */
    if ((atomic_load_explicit(&gate.word, memory_order_relaxed) & OPEN) == 0)
        return NULL;
    /* acquire: `launch` and the cores. Pairs with the release in shoal_foreign_open(). */
    if ((atomic_fetch_add_explicit(&gate.word, INSIDE, memory_order_acquire) & OPEN) != 0)
        return gate.launch;
    shoal_foreign_leave();
    return NULL;
}

void shoal_foreign_leave(void)
{
    /* release: all that was done inside. Pairs with the acquire in shoal_foreign_close(). */
    atomic_fetch_sub_explicit(&gate.word, INSIDE, memory_order_release);
}

void shoal_foreign_post(struct shoal_core *core, struct shoal_task *task)
{
    atomic_fetch_add_explicit(&gate.posted, 1, memory_order_relaxed);
    shoal_core_post_foreign(core, task);
}

void shoal_foreign_open(struct shoal_launch *launch)
{
    gate.launch = launch;
    atomic_store_explicit(&gate.posted, 0, memory_order_relaxed);
    /* A thread that came too early may be inside for a moment: it adds and subtracts, and is left
     * to. release: pairs with the acquire in shoal_foreign_enter(). */
    atomic_fetch_or_explicit(&gate.word, OPEN, memory_order_release);
}

void shoal_foreign_close(void)
{
    /* acquire here and below: what those inside have done. Pairs with shoal_foreign_leave(). */
    uint64_t word = atomic_fetch_and_explicit(&gate.word, ~OPEN, memory_order_acquire) & ~OPEN;
    while (word != 0) {
        (void)shoal_sleep_ns(CLOSE_LOOK_NS);
        word = atomic_load_explicit(&gate.word, memory_order_acquire);
    }
}

uint64_t shoal_foreign_posted(void)
{
    return atomic_load_explicit(&gate.posted, memory_order_relaxed);
}
