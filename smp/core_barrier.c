/*
 * A barrier of all cores: see core_barrier.h.
 *
 * Two levels. A core collects fibers until it has enough of them; then it tells the barrier's home
 * core, which counts cores, and when all have come tells each to let its fibers go.
 *
 *   core i                                     home
 *   enough fibers    --- arrive --->           one more; all have come: open for each core
 *   lets them go     <--- open -----
 *   one wants out,   --- leave ---->           one less, unless it has opened since
 *   and none stands
 *   in for it        <--- left -----           whether it was in time
 *   break            --- break ---->           the first wins
 *   fails all        <--- broke ----           each core
 *
 * 1. Each of these is a task in the core's part, posted to the other side: nothing is allocated.
 *    Between two cores they run in the order in which they were posted. So an answer to a leave
 *    comes after the open that it lost against.
 * 2. A task is not posted again before it has run. For arrive and open that follows from the order
 *    of things; `leaving` and `breaking` see to it for the others.
 * 3. While a core has arrived, its line is never shorter than the number of fibers that it stands
 *    for: who wants out then stays in it until home has let the core leave.
 *
 * Rejected: counting fibers at home (a message for each), atomic counters that all cores write (the
 * line moves as often, and a wake-up is needed all the same).
 */
#include "shoal/smp/core_barrier.h"

#include <errno.h>
#include <string.h>

#include "shoal/runtime/check.h"
#include "shoal/runtime/clock.h"
#include "shoal/runtime/core_impl.h"
#include "shoal/runtime/timer.h"

#include "shoal/smp/command_impl.h"
#include "shoal/smp/submit.h"

/* A core's part. By that core, but for what home says in `serial` and `left_in_time`. */
struct part {
    struct shoal_core_barrier *barrier;
    struct shoal_list line; /* struct waiter, first in, first out */
    uint64_t generation;
    uint32_t waiting;  /* in the line */
    uint32_t quitting; /* of those, who wants out */
    int32_t broken;
    int32_t breaking; /* the code that this core has sent */
    uint16_t core;
    bool arrived;      /* as far as this core knows */
    bool leaving;      /* until the answer is there */
    bool serial;       /* written by home before `open`: one of these fibers returns 1 */
    bool left_in_time; /* written by home before `left` */
    struct shoal_task arrive, leave, break_all; /* run at home */
    struct shoal_task open, left, broke;        /* run on this core */
    struct shoal_command probe;
} __attribute__((aligned(SHOAL_CACHE_LINE)));

struct shoal_core_barrier {
    uint32_t cores;
    uint32_t fibers; /* of each core */
    uint16_t home;
    /* Home's from here on; `broken` is read by the others on `broke`. */
    uint32_t arrived __attribute__((aligned(SHOAL_CACHE_LINE)));
    int32_t broken;
    bool *counted; /* by core: it is one of `arrived` */
    struct part parts[];
};

struct waiter {
    struct shoal_list node;
    struct part *part;
    struct shoal_fiber *fiber;
    struct shoal_timer timer;
    int32_t result; /* while it wants out: what it will be */
    bool quits;
    bool ended;
};

static void post_home(const struct part *part, struct shoal_task *task)
{
    shoal_post_to_core(part->barrier->home, task);
}

/* ---- A core's line ---- */

static void end_waiter(struct waiter *waiter, int result)
{
    struct part *part = waiter->part;
    shoal_list_remove(&waiter->node);
    part->waiting--;
    part->quitting -= waiter->quits;
    waiter->result = result;
    waiter->ended = true;
    shoal_fiber_make_ready(shoal_core_self, waiter->fiber);
}

/* How many more stay in the line than the core needs. */
static int64_t spare(const struct part *part)
{
    return (int64_t)part->waiting - part->quitting - part->barrier->fibers;
}

static void arrive_if_enough(struct part *part)
{
    if (part->arrived || spare(part) < 0)
        return;
    part->arrived = true;
    post_home(part, &part->arrive);
}

/* Lets those out who want out, as far as that is possible; else asks home. */
static void serve_quitters(struct part *part)
{
    if (part->quitting == 0)
        return;
    if (part->arrived && spare(part) < 0) {
        if (!part->leaving) {
            part->leaving = true;
            post_home(part, &part->leave);
        }
        return;
    }
    SHOAL_LIST_FOREACH_SAFE (node, &part->line) {
        struct waiter *waiter = SHOAL_CONTAINER_OF(node, struct waiter, node);
        if (waiter->quits)
            end_waiter(waiter, waiter->result);
    }
}

static void quit(struct waiter *waiter, int code)
{
    if (waiter->quits || waiter->ended)
        return;
    waiter->quits = true;
    waiter->result = code;
    waiter->part->quitting++;
    serve_quitters(waiter->part);
}

/* ---- What home tells ---- */

static void run_open(struct shoal_task *task)
{
    struct part *part = SHOAL_CONTAINER_OF(task, struct part, open);
    part->arrived = false;
    part->generation++;
    SHOAL_CHECK(part->waiting >= part->barrier->fibers, "a core barrier opens for %u of %u fibers",
                part->waiting, part->barrier->fibers);
    for (uint32_t left = part->barrier->fibers; left > 0; left--)
        end_waiter(SHOAL_CONTAINER_OF(part->line.next, struct waiter, node),
                   left == 1 && part->serial);
    arrive_if_enough(part);
    serve_quitters(part);
}

static void run_left(struct shoal_task *task)
{
    struct part *part = SHOAL_CONTAINER_OF(task, struct part, left);
    part->leaving = false;
    if (part->left_in_time)
        part->arrived = false;
    serve_quitters(part);
    arrive_if_enough(part);
}

static void run_broke(struct shoal_task *task)
{
    struct part *part = SHOAL_CONTAINER_OF(task, struct part, broke);
    part->broken = part->barrier->broken;
    part->arrived = false;
    while (part->waiting > 0)
        end_waiter(SHOAL_CONTAINER_OF(part->line.next, struct waiter, node), part->broken);
}

/* ---- At home ---- */

static void open_all(struct shoal_core_barrier *barrier, const struct part *last)
{
    barrier->arrived = 0;
    for (uint32_t i = 0; i < barrier->cores; i++) {
        struct part *part = &barrier->parts[i];
        barrier->counted[i] = false;
        part->serial = part == last;
        shoal_post_to_core(i, &part->open);
    }
}

static void run_arrive(struct shoal_task *task)
{
    struct part *part = SHOAL_CONTAINER_OF(task, struct part, arrive);
    struct shoal_core_barrier *barrier = part->barrier;
    if (barrier->broken != 0)
        return;
    barrier->counted[part->core] = true;
    if (++barrier->arrived == barrier->cores)
        open_all(barrier, part);
}

static void run_leave(struct shoal_task *task)
{
    struct part *part = SHOAL_CONTAINER_OF(task, struct part, leave);
    struct shoal_core_barrier *barrier = part->barrier;
    part->left_in_time = barrier->counted[part->core];
    if (part->left_in_time) {
        barrier->counted[part->core] = false;
        barrier->arrived--;
    }
    shoal_post_to_core(part->core, &part->left);
}

static void run_break(struct shoal_task *task)
{
    const struct part *part = SHOAL_CONTAINER_OF(task, struct part, break_all);
    struct shoal_core_barrier *barrier = part->barrier;
    if (barrier->broken != 0)
        return;
    barrier->broken = part->breaking;
    for (uint32_t i = 0; i < barrier->cores; i++)
        shoal_post_to_core(i, &barrier->parts[i].broke);
}

/* ---- Waiting ---- */

static struct part *part_here(struct shoal_core_barrier *barrier)
{
    SHOAL_CHECK(shoal_core_self != NULL, "a core barrier is touched on a thread that is no core");
    return &barrier->parts[shoal_core_self->id];
}

static void cancel_wait(struct shoal_fiber *fiber)
{
    quit(fiber->wait_ctx, fiber->cancel_code);
}

static void time_out(struct shoal_timer *timer)
{
    quit(SHOAL_CONTAINER_OF(timer, struct waiter, timer), -ETIMEDOUT);
}

int shoal_core_barrier_wait(struct shoal_core_barrier *barrier, uint64_t timeout_ns)
{
    struct part *part = part_here(barrier);
    struct shoal_core *core = shoal_core_self;
    struct shoal_fiber *fiber = core->fiber;
    SHOAL_CHECK(fiber != NULL, "wait at a core barrier outside a fiber");
    int code = shoal_fiber_cancel_code(fiber);
    if (code == 0)
        code = part->broken != 0 ? part->broken : part->breaking;
    if (code == 0 && timeout_ns == 0)
        code = -ETIMEDOUT;
    if (code < 0)
        return code;
    struct waiter waiter = {.part = part, .fiber = fiber};
    shoal_list_push_back(&part->line, &waiter.node);
    part->waiting++;
    shoal_timer_init(&waiter.timer, time_out);
    if (timeout_ns != SHOAL_NS_FOREVER)
        shoal_timer_arm(&waiter.timer, timeout_ns);
    arrive_if_enough(part);
    serve_quitters(part); /* this one may stand in for one of them */
    shoal_fiber_wait_begin(fiber, "core barrier", cancel_wait, &waiter);
    while (!waiter.ended) {
        shoal_fiber_park(core, fiber);
        if (shoal_fiber_cancelled_now(fiber)) /* perhaps while it was on its way here */
            quit(&waiter, fiber->cancel_code);
    }
    shoal_fiber_wait_end(fiber);
    (void)shoal_timer_cancel(&waiter.timer);
    return waiter.result;
}

void shoal_core_barrier_break(struct shoal_core_barrier *barrier, int code)
{
    struct part *part = part_here(barrier);
    SHOAL_CHECK(code < 0, "a core barrier is broken with code %d (allowed: negative)", code);
    if (part->breaking != 0 || part->broken != 0)
        return;
    part->breaking = code;
    post_home(part, &part->break_all);
}

uint64_t shoal_core_barrier_generation(const struct shoal_core_barrier *barrier)
{
    return barrier->parts[shoal_core_self->id].generation;
}

/* ---- Life ---- */

static size_t barrier_bytes(uint32_t cores)
{
    return sizeof(struct shoal_core_barrier) + cores * sizeof(struct part);
}

static void part_init(struct part *part, struct shoal_core_barrier *barrier, uint16_t core)
{
    part->barrier = barrier;
    part->core = core;
    shoal_list_init(&part->line);
    part->arrive.run = run_arrive;
    part->leave.run = run_leave;
    part->break_all.run = run_break;
    part->open.run = run_open;
    part->left.run = run_left;
    part->broke.run = run_broke;
}

int shoal_core_barrier_new(struct shoal_core_barrier **out, uint32_t fibers_per_core)
{
    *out = NULL;
    if (fibers_per_core == 0)
        return -EINVAL;
    uint32_t cores = shoal_core_count();
    struct shoal_core_barrier *barrier =
        shoal_mem_alloc_aligned(barrier_bytes(cores), SHOAL_CACHE_LINE);
    bool *counted = shoal_mem_alloc_zeroed(cores * sizeof(bool));
    if (barrier == NULL || counted == NULL) {
        shoal_mem_free(counted, cores * sizeof(bool));
        shoal_mem_free_aligned(barrier, barrier_bytes(cores), SHOAL_CACHE_LINE);
        return -ENOMEM;
    }
    memset(barrier, 0, barrier_bytes(cores));
    barrier->cores = cores;
    barrier->fibers = fibers_per_core;
    barrier->home = (uint16_t)shoal_core_self->id;
    barrier->counted = counted;
    for (uint32_t i = 0; i < cores; i++)
        part_init(&barrier->parts[i], barrier, (uint16_t)i);
    *out = barrier;
    return 0;
}

static void run_probe(struct shoal_command *command)
{
    const struct part *part = SHOAL_CONTAINER_OF(command, struct part, probe);
    SHOAL_CHECK(part->waiting == 0, "core barrier %p is freed while %u wait on core %u",
                (void *)part->barrier, part->waiting, part->core);
    shoal_command_done(command);
}

void shoal_core_barrier_free(struct shoal_core_barrier *barrier)
{
    if (barrier == NULL)
        return;
    SHOAL_CHECK(shoal_core_self != NULL && shoal_core_self->id == barrier->home,
                "core barrier %p of core %u is freed on core %d", (void *)barrier, barrier->home,
                shoal_context_core);
    /* Behind all that is under way: in the first round to the cores and back, in the second what
     * home has answered meanwhile. */
    for (int i = 0; i < 2; i++) {
        struct shoal_command_round round;
        shoal_command_begin(&round);
        for (uint32_t core = 0; core < barrier->cores; core++)
            shoal_command_send(&round, &barrier->parts[core].probe, core, run_probe);
        shoal_command_wait(&round);
    }
    shoal_mem_free(barrier->counted, barrier->cores * sizeof(bool));
    shoal_mem_free_aligned(barrier, barrier_bytes(barrier->cores), SHOAL_CACHE_LINE);
}
