/*
 * The manual clock: see test_impl.h.
 */
#include <errno.h>
#include <stdlib.h>

#include "shoal/runtime/check.h"
#include "shoal/runtime/core_impl.h"
#include "shoal/runtime/log.h"

#include "shoal/smp/launch_impl.h"
#include "shoal/smp/test_impl.h"

#define START_NS (1000 * SHOAL_NS_PER_S) /* the same in every run */
#define GRACE_NS SHOAL_NS_PER_MS         /* real time that I/O in flight gets to complete */
#define STUCK_NS (10 * SHOAL_NS_PER_S)   /* real time without anything to do: worth a word */

/* A fiber in shoal_test_clock_advance() and its kin; on its stack. */
struct shoal_test_wait {
    struct shoal_task task; /* ends the wait, on the fiber's core */
    struct shoal_test_time *time;
    struct shoal_fiber *fiber;
    unsigned core;
    bool to_next; /* the goal is the next timer, whenever that is */
    uint64_t goal_ns;
    int result;
    bool done;
    bool cancelled;
};

static uint64_t system_ns(void)
{
    return shoal_clock_system.now_ns(&shoal_clock_system);
}

static uint64_t manual_now_ns(const struct shoal_clock *clock)
{
    const struct shoal_test_time *time = (const struct shoal_test_time *)(const void *)clock;
    /* acquire: pairs with the release in shoal_test_time_release(). */
    uint64_t released_ns = atomic_load_explicit(&time->released_ns, memory_order_acquire);
    uint64_t now_ns = atomic_load_explicit(&time->now_ns, memory_order_acquire);
    return released_ns == 0 ? now_ns : now_ns + (system_ns() - released_ns);
}

/* ---- Pokes ---- */

static void run_poke(struct shoal_task *task)
{
    struct shoal_test_core *mine = SHOAL_CONTAINER_OF(task, struct shoal_test_core, poke);
    pthread_mutex_lock(&mine->time->lock);
    mine->poked = false;
    mine->pokes++;
    pthread_mutex_unlock(&mine->time->lock);
}

/* Under the lock. Those that have looked in this round stay asleep. */
static void poke_others(struct shoal_test_time *time, const struct shoal_test_core *mine)
{
    for (unsigned i = 0; i < time->cores; i++) {
        struct shoal_test_core *other = &time->core[i];
        if (other == mine || other->poked || other->round == time->round)
            continue;
        other->poked = true;
        shoal_core_post_foreign(shoal_launch_current->fleet.core[i], &other->poke);
    }
}

/* ---- Coming to rest ---- */

static bool helpers_work(struct shoal_core *core)
{
    struct shoal_blocking_pool *pool = &core->blocking;
    pthread_mutex_lock(&pool->lock);
    bool work = pool->queued > 0 || pool->idle < pool->thread_count;
    pthread_mutex_unlock(&pool->lock);
    return work;
}

static uint64_t tasks_run(const struct shoal_core *core)
{
    uint64_t tasks = 0;
    for (unsigned i = 0; i < SHOAL_SCHED_GROUPS_MAX; i++)
        tasks += core->groups[i].tasks;
    return tasks;
}

/* Under the lock: notes a look of the calling core. Returns whether it is quiet; else `*wait_ns`
 * says how long it may wait, in real time, before it looks again. */
static bool note_look(struct shoal_test_time *time, struct shoal_test_core *mine,
                      struct shoal_core *core, uint64_t *wait_ns)
{
    uint64_t work = tasks_run(core) - mine->pokes + mine->fired;
    if (work != mine->work) {
        mine->work = work;
        time->round++;
    }
    if (mine->round != time->round) {
        mine->round = time->round;
        mine->looks = 0;
    }
    mine->looks++;
    mine->helpers_work = helpers_work(core);
    mine->next_ns = shoal_timer_wheel_next_exact_ns(&core->timers);
    const unsigned needed = core->io.in_flight > 0 ? 3 : 2;
    mine->quiet = mine->looks >= needed && !mine->helpers_work;
    *wait_ns = mine->looks == 1 ? 0 : GRACE_NS;
    return mine->quiet;
}

/* Under the lock: whether everything is at rest, and the first timer of all. */
static bool all_quiet(const struct shoal_test_time *time, uint64_t *next_ns)
{
    *next_ns = SHOAL_NS_FOREVER;
    for (unsigned i = 0; i < time->cores; i++) {
        const struct shoal_test_core *one = &time->core[i];
        if (one->round != time->round || !one->quiet || one->poked)
            return false;
        if (one->next_ns < *next_ns)
            *next_ns = one->next_ns;
    }
    return true;
}

/* ---- Moving time ---- */

static void set_now(struct shoal_test_time *time, const struct shoal_test_core *mine,
                    uint64_t now_ns)
{
    atomic_store_explicit(&time->now_ns, now_ns, memory_order_release);
    time->round++;
    poke_others(time, mine);
}

static void run_wait_end(struct shoal_task *task)
{
    struct shoal_test_wait *wait = SHOAL_CONTAINER_OF(task, struct shoal_test_wait, task);
    wait->done = true;
    shoal_fiber_make_ready(shoal_core_self, wait->fiber);
}

static void end_wait(struct shoal_test_time *time, int result)
{
    struct shoal_test_wait *wait = time->wait;
    time->wait = NULL;
    wait->result = result;
    wait->task.run = run_wait_end;
    shoal_core_post_foreign(shoal_launch_current->fleet.core[wait->core], &wait->task);
}

/* Everything is at rest, nobody has asked for time to move, and it does not move by itself. */
static uint64_t wait_for_outside(struct shoal_test_time *time, uint64_t next_ns)
{
    uint64_t real_ns = system_ns();
    if (time->stuck_round != time->round) {
        time->stuck_round = time->round;
        time->stuck_since_ns = real_ns;
    }
    if (next_ns == SHOAL_NS_FOREVER || time->stuck_told)
        return SHOAL_NS_FOREVER;
    uint64_t stuck_ns = real_ns - time->stuck_since_ns;
    if (stuck_ns < time->stuck_ns)
        return time->stuck_ns - stuck_ns;
    time->stuck_told = true;
    SHOAL_WARN("the test's clock stands still, %llu ns before the next timer, and nothing else "
               "happens: is there nobody to move it?",
               (unsigned long long)(next_ns - atomic_load(&time->now_ns)));
    return SHOAL_NS_FOREVER;
}

/* All are quiet. Returns how long the calling core may wait. */
static uint64_t at_rest(struct shoal_test_time *time, const struct shoal_test_core *mine,
                        uint64_t next_ns)
{
    struct shoal_test_wait *wait = time->wait;
    uint64_t now_ns = atomic_load(&time->now_ns);
    if (wait == NULL) {
        if (!time->moves_by_itself || next_ns == SHOAL_NS_FOREVER)
            return wait_for_outside(time, next_ns);
        set_now(time, mine, next_ns);
        return 0;
    }
    if (wait->to_next) {
        wait->to_next = false;
        wait->result = next_ns == SHOAL_NS_FOREVER ? -ENOENT : 0;
        wait->goal_ns = next_ns == SHOAL_NS_FOREVER ? now_ns : next_ns;
    }
    if (now_ns < wait->goal_ns) {
        set_now(time, mine, next_ns < wait->goal_ns ? next_ns : wait->goal_ns);
        return 0;
    }
    end_wait(time, wait->result);
    return SHOAL_NS_FOREVER;
}

/* A core has nothing to do until `next_ns`: how long, in real time, may it wait? */
static uint64_t manual_wait_ns(const struct shoal_clock *clock, struct shoal_core *core,
                               uint64_t next_ns)
{
    struct shoal_test_time *time = (struct shoal_test_time *)(uintptr_t)clock;
    struct shoal_test_core *mine = &time->core[core->id];
    uint64_t now_ns = manual_now_ns(clock);
    if (atomic_load_explicit(&time->released_ns, memory_order_acquire) != 0) {
        if (next_ns <= now_ns)
            return 0;
        return next_ns == SHOAL_NS_FOREVER ? SHOAL_NS_FOREVER : next_ns - now_ns;
    }
    unsigned fired = shoal_timer_wheel_expire_exact(&core->timers, now_ns);
    if (fired > 0 || shoal_timer_wheel_next_exact_ns(&core->timers) <= now_ns) {
        mine->fired += fired;
        return 0;
    }
    uint64_t wait_ns;
    uint64_t first_ns;
    pthread_mutex_lock(&time->lock);
    if (note_look(time, mine, core, &wait_ns)) {
        poke_others(time, mine);
        wait_ns = all_quiet(time, &first_ns) ? at_rest(time, mine, first_ns) : SHOAL_NS_FOREVER;
    }
    pthread_mutex_unlock(&time->lock);
    return wait_ns;
}

/* ---- Life ---- */

int shoal_test_time_init(struct shoal_test_time *time, unsigned cores, bool moves_by_itself)
{
    *time = (struct shoal_test_time){
        .clock = {.now_ns = manual_now_ns, .wait_ns = manual_wait_ns},
        .moves_by_itself = moves_by_itself,
        .cores = cores,
        .core = aligned_alloc(SHOAL_CACHE_LINE, cores * sizeof(*time->core)),
        .round = 1,
        .stuck_ns = STUCK_NS,
    };
    if (time->core == NULL)
        return -ENOMEM;
    atomic_init(&time->now_ns, START_NS);
    atomic_init(&time->released_ns, 0);
    pthread_mutex_init(&time->lock, NULL);
    for (unsigned i = 0; i < cores; i++)
        time->core[i] = (struct shoal_test_core){
            .time = time,
            .poke.run = run_poke,
            .next_ns = SHOAL_NS_FOREVER,
        };
    return 0;
}

void shoal_test_time_deinit(struct shoal_test_time *time)
{
    pthread_mutex_destroy(&time->lock);
    free(time->core);
}

void shoal_test_time_release(struct shoal_test_time *time)
{
    pthread_mutex_lock(&time->lock);
    /* release: pairs with the acquire in manual_now_ns(). */
    atomic_store_explicit(&time->released_ns, system_ns(), memory_order_release);
    time->round++;
    poke_others(time, NULL); /* they sleep without an end: now their timers count */
    pthread_mutex_unlock(&time->lock);
}

/* ---- Asking for time to move ---- */

static void cancel_wait(struct shoal_fiber *fiber)
{
    struct shoal_test_wait *wait = fiber->wait_ctx;
    pthread_mutex_lock(&wait->time->lock);
    if (wait->time->wait == wait) { /* else it ends just now */
        wait->time->wait = NULL;
        wait->cancelled = true;
        shoal_fiber_make_ready(shoal_core_self, fiber);
    }
    pthread_mutex_unlock(&wait->time->lock);
}

static struct shoal_test_time *time_of_run(const struct shoal_core *core)
{
    SHOAL_CHECK(core != NULL && core->fiber != NULL, "a clock is moved on a fiber");
    struct shoal_test_time *time = shoal_launch_current->test_time;
    SHOAL_CHECK(time != NULL, "only a test run with a manual clock can move it");
    return time;
}

static int wait_for_rest(bool to_next, uint64_t ns)
{
    struct shoal_core *core = shoal_core_self;
    struct shoal_test_time *time = time_of_run(core);
    int code = shoal_fiber_cancel_code(core->fiber);
    if (code != 0)
        return code;
    struct shoal_test_wait wait = {
        .time = time,
        .fiber = core->fiber,
        .core = core->id,
        .to_next = to_next,
        .goal_ns = shoal_deadline_ns(atomic_load(&time->now_ns), ns),
    };
    pthread_mutex_lock(&time->lock);
    SHOAL_CHECK(atomic_load(&time->released_ns) == 0,
                "the test is over: its clock is the system's");
    SHOAL_CHECK(time->wait == NULL, "the clock is moved by one fiber at a time");
    time->wait = &wait;
    pthread_mutex_unlock(&time->lock);
    shoal_fiber_wait_begin(core->fiber, "clock of the test", cancel_wait, &wait);
    while (!wait.done && !wait.cancelled)
        shoal_fiber_park(core, core->fiber);
    shoal_fiber_wait_end(core->fiber);
    return wait.cancelled ? core->fiber->cancel_code : wait.result;
}

int shoal_test_clock_advance(uint64_t ns)
{
    return wait_for_rest(false, ns);
}

int shoal_test_clock_advance_to_next(void)
{
    return wait_for_rest(true, 0);
}

int shoal_test_clock_settle(void)
{
    return wait_for_rest(false, 0);
}
