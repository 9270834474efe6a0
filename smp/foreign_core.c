/*
 * The core's side of foreign calls: see foreign_impl.h.
 *
 *   batch -> begin each -> plain: finish
 *                       -> fiber, future: on the list of the running ones; the end finishes
 *   finish -> result into the slot -> deliver: onto the port's stack, or to the sleeper
 *
 * Batches are one chain, in the order in which they were posted. Calls of one port that end one
 * after the other are delivered together, by one read-modify-write and at most one write to the
 * eventfd. They are not held back for longer than HOLD_NS: with functions that take their time,
 * each is delivered as it ends.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "shoal/runtime/check.h"
#include "shoal/runtime/errors.h"
#include "shoal/runtime/future_impl.h"

#include "shoal/smp/foreign_impl.h"
#include "shoal/smp/launch_impl.h"

#define BURST   32 /* calls of a batch between two looks at anything else */
#define HOLD_NS (5 * SHOAL_NS_PER_US)

static struct shoal_foreign_core *foreign_self(void)
{
    return &shoal_launch_current->members[shoal_core_self->id]->foreign;
}

static void begin_some(struct shoal_task *task);

void shoal_foreign_core_init(struct shoal_foreign_core *core)
{
    memset(core, 0, sizeof(*core));
    shoal_list_init(&core->running);
    core->task.run = begin_some;
}

/* ---- Delivering ---- */

/* Nodes that go to one port together: `newest` leads to `oldest`. */
struct delivery {
    struct shoal_foreign_stack *stack;
    struct shoal_foreign_node *newest;
    struct shoal_foreign_node *oldest;
    bool quiet; /* none of them is for the thread to see */
};

static void deliver(struct delivery *delivery)
{
    struct shoal_foreign_stack *stack = delivery->stack;
    if (delivery->newest == NULL)
        return;
    const int event_fd = stack->event_fd; /* after the push, the port may be gone */
    uintptr_t head = atomic_load_explicit(&stack->head, memory_order_relaxed);
    uintptr_t pushed;
    bool tell;
    do {
        tell = !delivery->quiet || (head & SHOAL_FOREIGN_WANTS_ROOM) != 0;
        delivery->oldest->next = (struct shoal_foreign_node *)(head & ~SHOAL_FOREIGN_BITS);
        pushed = (uintptr_t)delivery->newest | (tell ? 0 : head & SHOAL_FOREIGN_BITS);
        /* release: the slots. Pairs with the exchange in foreign_port.c:collect(). */
    } while (!atomic_compare_exchange_weak_explicit(&stack->head, &head, pushed,
                                                    memory_order_release, memory_order_relaxed));
    delivery->newest = NULL;
    if (!tell || (head & SHOAL_FOREIGN_PARKED) == 0)
        return;
    const uint64_t one = 1;
    ssize_t rc = write(event_fd, &one, sizeof(one));
    SHOAL_CHECK(rc == sizeof(one), "a port's eventfd: %s", strerror(errno));
}

static void add(struct delivery *delivery, struct shoal_foreign_slot *slot,
                struct shoal_foreign_node *node, bool quiet)
{
    struct shoal_foreign_stack *stack = shoal_foreign_port_stack(slot->port);
    if (delivery->newest != NULL && (delivery->quiet != quiet || delivery->stack != stack))
        deliver(delivery);
    node->next = delivery->newest;
    if (delivery->newest == NULL)
        delivery->oldest = node;
    delivery->newest = node;
    delivery->stack = stack;
    delivery->quiet = quiet;
}

/* Tells a thread that waits in shoal_foreign_run(); its stack may be gone right afterwards. */
static void tell_sleeper(struct shoal_foreign_slot *slot, uint32_t what)
{
    _Atomic uint32_t *answered = &slot->answered;
    /* release: the slot. Pairs with the acquire in foreign_thread.c:wait_answered(). */
    uint32_t before = atomic_fetch_or_explicit(answered, what, memory_order_acq_rel);
    if ((before & SHOAL_FOREIGN_SLEEPS) != 0)
        (void)syscall(SYS_futex, answered, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}

/* ---- Ending ---- */

static const union shoal_value no_value;

static void call_done(const struct shoal_foreign_slot *slot, const char *text)
{
    const struct shoal_foreign_outcome outcome = {
        .tag = slot->tag,
        .code = slot->code,
        .core = slot->core,
        .text = text != NULL ? text : "",
        .value = slot->value,
    };
    slot->done(&outcome);
}

/* The answer. After it the slot is the thread's, unless `delivery` still holds it. */
static void finish(struct delivery *delivery, struct shoal_foreign_slot *slot, int code,
                   const char *text, const union shoal_value *value)
{
    struct shoal_foreign_core *core = foreign_self();
    struct delivery own = {0};
    core->in_flight--;
    if (slot->kind != SHOAL_FOREIGN_PLAIN) { /* a plain call touches only two lines of its slot */
        shoal_list_remove(&slot->node);
        if (slot->timed)
            (void)shoal_timer_cancel(&slot->timer);
    }
    if (code == -ECANCELED && slot->cancel_code != 0)
        code = slot->cancel_code;
    slot->code = code;
    slot->value = code < 0 ? no_value : *value;
    if (slot->text != NULL && code < 0)
        snprintf(slot->text, slot->text_size, "%s", text != NULL ? text : "");
    slot->ended = true;
    if (slot->done_on_core)
        call_done(slot, text);
    if (slot->port == NULL) {
        tell_sleeper(slot, SHOAL_FOREIGN_DONE);
        return;
    }
    add(delivery != NULL ? delivery : &own, slot, &slot->done_node, slot->done_on_core);
    deliver(&own);
}

static void finish_failed(struct delivery *delivery, struct shoal_foreign_slot *slot, int code)
{
    finish(delivery, slot, code, NULL, &no_value);
}

static int fiber_main(void *arg)
{
    struct shoal_foreign_slot *slot = arg;
    union shoal_value out = {.slice = {NULL, 0, 0}};
    int code = slot->cancel_code;
    const char *text = NULL;
    if (code == 0) {
        slot->fiber = shoal_core_self->fiber;
        code = slot->fn.plain(slot->arg, &out);
        text = code < 0 ? shoal_error_message() : NULL;
        slot->fiber = NULL;
    }
    finish(NULL, slot, code, text, &out);
    return 0;
}

static void future_settled(struct shoal_task *task)
{
    void *ctx;
    char *text;
    union shoal_value value = {.slice = {NULL, 0, 0}};
    int code = shoal_future_outcome(task, &ctx, &value, &text);
    struct shoal_foreign_slot *slot = ctx;
    slot->future = NULL;
    finish(NULL, slot, code, text, &value);
    shoal_text_free(text);
}

/* ---- Being asked to end ---- */

static void end_early(struct shoal_foreign_slot *slot, int code)
{
    if (slot->cancel_code != 0)
        return;
    slot->cancel_code = (int16_t)code;
    if (slot->fiber != NULL)
        shoal_fiber_cancel_with(slot->fiber, code);
    else if (slot->future != NULL)
        shoal_future_cancel(slot->future);
}

static void time_is_up(struct shoal_timer *timer)
{
    end_early(SHOAL_CONTAINER_OF(timer, struct shoal_foreign_slot, timer), -ETIMEDOUT);
}

static void begin_cancel(struct shoal_task *task)
{
    struct shoal_foreign_slot *slot =
        SHOAL_CONTAINER_OF(task, struct shoal_foreign_slot, cancel_task);
    foreign_self()->received++;
    if (!slot->ended) {
        slot->cancel_seen = true;
        end_early(slot, -ECANCELED);
        return;
    }
    if (slot->port == NULL) {
        tell_sleeper(slot, SHOAL_FOREIGN_CANCELLED);
        return;
    }
    struct delivery own = {0};
    add(&own, slot, &slot->cancel_node, true);
    deliver(&own);
}

void shoal_foreign_cancel_all(struct shoal_foreign_core *core)
{
    SHOAL_LIST_FOREACH (node, &core->running) {
        struct shoal_foreign_slot *slot = SHOAL_CONTAINER_OF(node, struct shoal_foreign_slot, node);
        if (slot->future != NULL)
            end_early(slot, -ECANCELED); /* settles it at most: what follows comes from the queue */
    }
}

/* ---- Beginning ---- */

/* What is left of the time-out; 0 when it is over. */
static uint64_t time_left_ns(const struct shoal_foreign_slot *slot)
{
    uint64_t now_ns = shoal_clock_system.now_ns(&shoal_clock_system);
    uint64_t waited_ns = now_ns > slot->submitted_ns ? now_ns - slot->submitted_ns : 0;
    return slot->timeout_ns > waited_ns ? slot->timeout_ns - waited_ns : 0;
}

static void begin_long(struct delivery *delivery, struct shoal_foreign_slot *slot)
{
    shoal_list_push_back(&foreign_self()->running, &slot->node);
    if (slot->kind == SHOAL_FOREIGN_FIBER) {
        int rc = shoal_fiber_spawn_detached(fiber_main, slot, "foreign call");
        if (rc != 0)
            finish_failed(delivery, slot, rc);
        return;
    }
    struct shoal_future *future = slot->fn.future(slot->arg);
    if (shoal_future_consume(future, future_settled, slot) != 0)
        finish_failed(delivery, slot, -ENOMEM);
    else
        slot->future = future;
}

static void begin(struct delivery *delivery, struct shoal_foreign_slot *slot)
{
    const bool plain = slot->kind == SHOAL_FOREIGN_PLAIN;
    if (!plain) {
        shoal_list_init(&slot->node);
        if (slot->timed)
            shoal_timer_init(&slot->timer, time_is_up);
    }
    uint64_t left_ns = slot->timed ? time_left_ns(slot) : SHOAL_NS_FOREVER;
    /* relaxed: a hint. The cancel itself comes behind, as a task. */
    if (slot->cancel_code == 0 && atomic_load_explicit(&slot->cancel_wanted, memory_order_relaxed))
        slot->cancel_code = -ECANCELED;
    if (slot->cancel_code != 0 || left_ns == 0) {
        finish_failed(delivery, slot, slot->cancel_code != 0 ? slot->cancel_code : -ETIMEDOUT);
        return;
    }
    if (!plain) {
        if (slot->timed)
            shoal_timer_arm(&slot->timer, left_ns);
        begin_long(delivery, slot);
        return;
    }
    union shoal_value out = {.slice = {NULL, 0, 0}};
    int code = slot->fn.plain(slot->arg, &out);
    finish(delivery, slot, code, NULL, &out);
}

/* The first of those that wait; NULL when none does. */
static struct shoal_foreign_slot *take_next(struct shoal_foreign_core *core)
{
    struct shoal_foreign_slot *slot = core->next;
    if (slot == NULL)
        return NULL;
    core->next = slot->batch_next;
    if (core->next != NULL)
        __builtin_prefetch(core->next);
    return slot;
}

static void begin_some(struct shoal_task *task)
{
    struct shoal_foreign_core *core = SHOAL_CONTAINER_OF(task, struct shoal_foreign_core, task);
    const uint64_t hold_cycles = shoal_tsc_cycles(&shoal_core_self->tsc, HOLD_NS);
    struct delivery delivery = {0};
    uint64_t delivered_cycles = shoal_cycles();
    struct shoal_foreign_slot *slot;
    for (int i = 0; i < BURST && (slot = take_next(core)) != NULL; i++) {
        begin(&delivery, slot);
        uint64_t now_cycles = shoal_cycles();
        if (now_cycles - delivered_cycles > hold_cycles) {
            deliver(&delivery);
            delivered_cycles = now_cycles;
            if (shoal_need_preempt())
                break;
        }
    }
    deliver(&delivery);
    if (core->next != NULL)
        shoal_core_post(shoal_core_self, &core->task);
}

static void begin_batch(struct shoal_task *task)
{
    struct shoal_foreign_slot *slot = SHOAL_CONTAINER_OF(task, struct shoal_foreign_slot, task);
    struct shoal_foreign_core *core = foreign_self();
    core->received++;
    core->in_flight += slot->batch_count;
    struct shoal_foreign_slot *last = slot->batch_last;
    if (core->next != NULL) { /* in the order of the posts: behind those that wait */
        core->last->batch_next = slot;
        core->last = last;
        return;
    }
    core->next = slot;
    core->last = last;
    begin_some(&core->task);
}

/* ---- On threads ---- */

void shoal_foreign_slot_cancel(struct shoal_launch *launch, struct shoal_foreign_slot *slot)
{
    slot->cancel_posted = true;
    atomic_store_explicit(&slot->cancel_wanted, true, memory_order_relaxed);
    slot->cancel_task.run = begin_cancel;
    shoal_foreign_post(launch->fleet.core[slot->core], &slot->cancel_task);
}

static int check_call(const struct shoal_foreign_call *call, unsigned cores, char *error,
                      size_t error_size)
{
    int functions = (call->fn != NULL) + (call->fiber_fn != NULL) + (call->future_fn != NULL);
    if (functions != 1) {
        snprintf(error, error_size, "a call with %d functions (allowed: one)", functions);
        return -EINVAL;
    }
    if (call->done_on_core && call->done == NULL) {
        snprintf(error, error_size, "a call with done_on_core and no done");
        return -EINVAL;
    }
    if (call->core >= cores) {
        snprintf(error, error_size, "core %u does not exist (allowed: 0 to %u)", call->core,
                 cores - 1);
        return SHOAL_ENOCORE;
    }
    return 0;
}

int shoal_foreign_slot_fill(struct shoal_foreign_slot *slot, const struct shoal_foreign_call *call,
                            unsigned cores, char *error, size_t error_size)
{
    int rc = check_call(call, cores, error, error_size);
    if (rc < 0)
        return rc;
    slot->task.run = begin_batch;
    slot->kind = SHOAL_FOREIGN_PLAIN;
    slot->fn.plain = call->fn;
    if (call->fiber_fn != NULL) {
        slot->kind = SHOAL_FOREIGN_FIBER;
        slot->fn.plain = call->fiber_fn;
    } else if (call->future_fn != NULL) {
        slot->kind = SHOAL_FOREIGN_FUTURE;
        slot->fn.future = call->future_fn;
    }
    slot->arg = call->arg;
    slot->core = (uint16_t)call->core;
    slot->done_on_core = call->done_on_core;
    slot->batch_next = NULL;
    slot->batch_count = 1;
    slot->batch_last = slot;
    slot->tag = call->tag;
    slot->done = call->done;
    slot->cancel_seen = false;
    slot->ended = false;
    slot->cancel_code = 0;
    slot->fiber = NULL;
    slot->future = NULL;
    slot->cancel_posted = false;
    atomic_store_explicit(&slot->cancel_wanted, false, memory_order_relaxed);
    slot->drained = false;
    slot->timed = call->timeout_ns != 0;
    if (slot->timed) {
        slot->timeout_ns = call->timeout_ns;
        slot->submitted_ns = shoal_clock_system.now_ns(&shoal_clock_system);
    }
    return 0;
}
