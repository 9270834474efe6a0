/*
 * Ports of foreign threads: see foreign_thread.h, and foreign_impl.h for what is shared with cores.
 *
 *   free -> submitted (in_flight) -> [delivered] -> ready -> drained -> free
 *                                                        \-> held: its text is being read -> free
 *                                                        \-> limbo: its cancel is on its way ->
 * free
 *
 * 1. All here but the stack's word is the thread's alone.
 * 2. There are twice as many slots as calls may be in flight: those whose texts the thread reads,
 *    until its next drain, are at most as many again. So a text is never copied.
 * 3. Between two calls of the thread, either it is parked and nothing is ready, or its descriptor
 *    is readable, or will be by a write that is owed.
 * 4. Slots are used for the first time in order, and later the one that was used last comes first:
 *    a port that has little to do touches little of its memory.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "shoal/runtime/check.h"
#include "shoal/runtime/errors.h"
#include "shoal/runtime/fault_impl.h"

#include "shoal/smp/foreign_impl.h"
#include "shoal/smp/launch_impl.h"

#define BATCHES    16 /* cores that one submit collects calls for at a time */
#define ERROR_MAX  128
#define ROUNDS_MAX 8 /* of one drain, whose functions submit what ends while it drains */

struct shoal_foreign_port {
    struct shoal_foreign_stack stack __attribute__((aligned(SHOAL_CACHE_LINE)));
    struct shoal_foreign_slot *slots __attribute__((aligned(SHOAL_CACHE_LINE)));
    char *texts; /* SHOAL_FOREIGN_TEXT_MAX a slot */
    uint32_t in_flight_max;
    uint32_t in_flight; /* submitted and not drained */
    uint32_t limbo;
    uint32_t fresh; /* slots from here on have never been used */
    unsigned forks;
    struct shoal_foreign_slot *free;
    struct shoal_foreign_slot *held;
    struct shoal_foreign_slot *ready; /* by next_free, oldest first */
    struct shoal_foreign_slot **ready_tail;
    uint32_t wakes_owed; /* writes to the eventfd that have come, or will */
    bool parked;
    bool wants_room;
    bool draining;
    char error[ERROR_MAX];
};

struct shoal_foreign_stack *shoal_foreign_port_stack(struct shoal_foreign_port *port)
{
    return &port->stack;
}

static uint32_t slot_count(const struct shoal_foreign_port *port)
{
    return 2 * port->in_flight_max;
}

/* ---- Life ---- */

static void free_memory(struct shoal_foreign_port *port)
{
    size_t slots = slot_count(port);
    shoal_mem_free_aligned(port->slots, slots * sizeof(*port->slots), SHOAL_CACHE_LINE);
    shoal_mem_free(port->texts, slots * SHOAL_FOREIGN_TEXT_MAX);
    shoal_mem_free_aligned(port, sizeof(*port), SHOAL_CACHE_LINE);
}

static int open_event(struct shoal_foreign_port *port)
{
    if (shoal_fault_hit("eventfd"))
        return -ENOMEM;
    port->stack.event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    return port->stack.event_fd >= 0 ? 0 : -errno;
}

int shoal_foreign_port_new(struct shoal_foreign_port **out, unsigned in_flight_max)
{
    *out = NULL;
    if (shoal_core_self != NULL)
        return -EDEADLK;
    if (in_flight_max < 1 || in_flight_max > SHOAL_FOREIGN_IN_FLIGHT_MAX)
        return -EINVAL;
    struct shoal_foreign_port *port = shoal_mem_alloc_aligned(sizeof(*port), SHOAL_CACHE_LINE);
    if (port == NULL)
        return -ENOMEM;
    memset(port, 0, sizeof(*port));
    port->in_flight_max = in_flight_max;
    port->forks = shoal_foreign_forks();
    port->ready_tail = &port->ready;
    size_t slots = slot_count(port);
    port->slots = shoal_mem_alloc_aligned(slots * sizeof(*port->slots), SHOAL_CACHE_LINE);
    port->texts = shoal_mem_alloc(slots * SHOAL_FOREIGN_TEXT_MAX);
    int rc = port->slots == NULL || port->texts == NULL ? -ENOMEM : 0;
    if (rc == 0)
        rc = open_event(port);
    if (rc < 0) {
        free_memory(port);
        return rc;
    }
    port->parked = true;
    atomic_init(&port->stack.head, SHOAL_FOREIGN_PARKED);
    *out = port;
    return 0;
}

static bool in_other_process(const struct shoal_foreign_port *port)
{
    return port->forks != shoal_foreign_forks();
}

/* ---- Slots ---- */

static struct shoal_foreign_slot *slot_take(struct shoal_foreign_port *port)
{
    struct shoal_foreign_slot *slot = port->free;
    if (slot != NULL) {
        port->free = slot->next_free;
        return slot;
    }
    SHOAL_CHECK(port->fresh < slot_count(port), "a port with %u slots has none", slot_count(port));
    slot = &port->slots[port->fresh];
    memset(slot, 0, sizeof(*slot));
    slot->port = port;
    slot->text = port->texts + (size_t)port->fresh * SHOAL_FOREIGN_TEXT_MAX;
    slot->text_size = SHOAL_FOREIGN_TEXT_MAX;
    slot->cancel_node.is_cancel = true;
    port->fresh++;
    return slot;
}

static void slot_give(struct shoal_foreign_port *port, struct shoal_foreign_slot *slot)
{
    slot->in_use = false;
    slot->next_free = port->free;
    port->free = slot;
}

/* The thread has had the outcome of `slot`, whose text it may read for some time if it `reads`. */
static void slot_drained(struct shoal_foreign_port *port, struct shoal_foreign_slot *slot,
                         bool reads)
{
    port->in_flight--;
    slot->drained = true;
    if (slot->cancel_posted && !slot->cancel_seen) {
        port->limbo++;
    } else if (reads) {
        slot->next_free = port->held;
        port->held = slot;
    } else {
        slot_give(port, slot);
    }
}

/* The texts of the last drain are read no more. */
static void give_held(struct shoal_foreign_port *port)
{
    struct shoal_foreign_slot *slot = port->held;
    port->held = NULL;
    while (slot != NULL) {
        struct shoal_foreign_slot *next = slot->next_free;
        slot_give(port, slot);
        slot = next;
    }
}

/* ---- What comes from the cores ---- */

/* A slot has been delivered: by its end, or by a cancel that came after it. */
static void receive(struct shoal_foreign_port *port, struct shoal_foreign_node *node)
{
    if (node->is_cancel) {
        struct shoal_foreign_slot *slot =
            SHOAL_CONTAINER_OF(node, struct shoal_foreign_slot, cancel_node);
        slot->cancel_seen = true;
        if (!slot->drained)
            return; /* it is among the ready ones */
        port->limbo--;
        slot_give(port, slot);
        return;
    }
    struct shoal_foreign_slot *slot =
        SHOAL_CONTAINER_OF(node, struct shoal_foreign_slot, done_node);
    if (slot->done_on_core) {
        slot_drained(port, slot, false);
        return;
    }
    slot->next_free = NULL;
    *port->ready_tail = slot;
    port->ready_tail = &slot->next_free;
}

/* Once all that was delivered is about to be handed on: the descriptor is readable no more. */
static void take_wakes(struct shoal_foreign_port *port)
{
    uint64_t count;
    if (port->wakes_owed > 0 && read(port->stack.event_fd, &count, sizeof(count)) == sizeof(count))
        port->wakes_owed -= (uint32_t)count;
}

/*
 * Takes what the cores have delivered; from here on they write no eventfd. One that was written
 * stays readable: who polls it without a drain first must not miss what is ready.
 */
static void collect(struct shoal_foreign_port *port)
{
    /* acquire: the slots. Pairs with the compare-exchange in foreign_core.c:deliver(). */
    uintptr_t head = atomic_exchange_explicit(&port->stack.head, 0, memory_order_acquire);
    if (port->parked && (head & SHOAL_FOREIGN_PARKED) == 0)
        port->wakes_owed++; /* who took the bit away writes, or has written */
    port->parked = false;
    struct shoal_foreign_node *newest = (struct shoal_foreign_node *)(head & ~SHOAL_FOREIGN_BITS);
    struct shoal_foreign_node *oldest = NULL;
    while (newest != NULL) {
        struct shoal_foreign_node *next = newest->next;
        newest->next = oldest;
        oldest = newest;
        newest = next;
    }
    while (oldest != NULL) {
        struct shoal_foreign_node *next = oldest->next;
        receive(port, oldest);
        oldest = next;
    }
}

/* Has the next delivery write the eventfd; false when there is one already. */
static bool park(struct shoal_foreign_port *port)
{
    uintptr_t empty = 0;
    uintptr_t bits = SHOAL_FOREIGN_PARKED | (port->wants_room ? SHOAL_FOREIGN_WANTS_ROOM : 0);
    /* relaxed: only the bits are published, and a failure is followed by an exchange. */
    port->parked = atomic_compare_exchange_strong_explicit(
        &port->stack.head, &empty, bits, memory_order_relaxed, memory_order_relaxed);
    return port->parked;
}

/*
 * At the end of a call that has not parked: what is ready, or has come since, must be told of. Who
 * delivered it while the thread was awake has not written the eventfd.
 */
static void stay_readable(struct shoal_foreign_port *port)
{
    if (port->parked || port->wakes_owed > 0)
        return;
    const uint64_t one = 1;
    ssize_t rc = write(port->stack.event_fd, &one, sizeof(one));
    SHOAL_CHECK(rc == sizeof(one), "a port's eventfd: %s", strerror(errno));
    port->wakes_owed++;
}

/* ---- Submitting ---- */

static SHOAL_PRINTF(3, 4) int refuse(struct shoal_foreign_port *port, int code, const char *fmt,
                                     ...)
{
    va_list args;
    va_start(args, fmt);
    vsnprintf(port->error, sizeof(port->error), fmt, args);
    va_end(args);
    return code;
}

/* Room for one more; looks for calls that have ended unseen when there is none. */
static int make_room(struct shoal_foreign_port *port)
{
    if (SHOAL_LIKELY(port->in_flight + port->limbo < port->in_flight_max))
        return 0;
    bool was_parked = port->parked;
    port->wants_room = true;
    do
        collect(port);
    while (was_parked && port->ready == NULL && !park(port)); /* who polls must hear of room */
    if (was_parked)
        stay_readable(port);
    if (port->in_flight + port->limbo < port->in_flight_max)
        return 0;
    return refuse(port, -ENOBUFS, "%u calls are in flight (allowed: up to %u)",
                  port->in_flight + port->limbo, port->in_flight_max);
}

/* Calls for one core, in order, that are posted together. */
struct batch {
    struct shoal_foreign_slot *first;
    struct shoal_foreign_slot *last;
};

static void batch_post(struct shoal_launch *launch, struct batch *batch)
{
    if (batch->first == NULL)
        return;
    shoal_foreign_post(launch->fleet.core[batch->first->core], &batch->first->task);
    batch->first = NULL;
}

static void batch_add(struct shoal_launch *launch, struct batch *batch,
                      struct shoal_foreign_slot *slot)
{
    if (batch->first != NULL && batch->first->core != slot->core)
        batch_post(launch, batch);
    if (batch->first == NULL) {
        batch->first = slot;
    } else {
        batch->last->batch_next = slot;
        batch->first->batch_count++;
    }
    batch->last = slot;
    batch->first->batch_last = slot;
}

/* Inside the gate. Returns how many were taken; `*code`: why not all. */
static unsigned submit_some(struct shoal_foreign_port *port, struct shoal_launch *launch,
                            const struct shoal_foreign_call *calls, unsigned count, int *code)
{
    struct batch batches[BATCHES] = {0};
    unsigned taken = 0;
    for (; taken < count; taken++) {
        *code = make_room(port);
        if (*code < 0)
            break;
        struct shoal_foreign_slot *slot = slot_take(port);
        *code = shoal_foreign_slot_fill(slot, &calls[taken], launch->fleet.cores, port->error,
                                        sizeof(port->error));
        if (*code < 0) {
            slot_give(port, slot);
            break;
        }
        slot->in_use = true;
        port->in_flight++;
        batch_add(launch, &batches[slot->core % BATCHES], slot);
    }
    for (unsigned i = 0; i < BATCHES; i++)
        batch_post(launch, &batches[i]);
    if (*code != -ENOBUFS)
        port->wants_room = false;
    return taken;
}

static unsigned submit(struct shoal_foreign_port *port, const struct shoal_foreign_call *calls,
                       unsigned count, int *code)
{
    *code = 0;
    port->error[0] = '\0';
    if (count == 0)
        return 0;
    struct shoal_launch *launch = in_other_process(port) ? NULL : shoal_foreign_enter();
    if (launch == NULL) {
        *code = refuse(port, SHOAL_ESTOPPING, "the runtime does not run, or stops");
        return 0;
    }
    unsigned taken = submit_some(port, launch, calls, count, code);
    shoal_foreign_leave();
    return taken;
}

int shoal_foreign_port_submit(struct shoal_foreign_port *port,
                              const struct shoal_foreign_call *calls, unsigned count)
{
    int code;
    unsigned taken = submit(port, calls, count, &code);
    return taken > 0 ? (int)taken : code;
}

/* ---- Draining ---- */

static void outcome_of(const struct shoal_foreign_slot *slot, struct shoal_foreign_outcome *out)
{
    out->tag = slot->tag;
    out->code = slot->code;
    out->core = slot->core;
    out->text = slot->code < 0 ? slot->text : "";
    out->value = slot->value;
}

static struct shoal_foreign_slot *ready_take(struct shoal_foreign_port *port)
{
    struct shoal_foreign_slot *slot = port->ready;
    port->ready = slot->next_free;
    if (port->ready == NULL)
        port->ready_tail = &port->ready;
    return slot;
}

static void call_done(struct shoal_foreign_port *port, struct shoal_foreign_slot *slot)
{
    struct shoal_foreign_outcome outcome;
    char text[SHOAL_FOREIGN_TEXT_MAX];
    shoal_foreign_done_fn *done = slot->done;
    outcome_of(slot, &outcome);
    if (outcome.text[0] != '\0') { /* `done` may submit, and so use the slot again */
        memcpy(text, outcome.text, sizeof(text));
        outcome.text = text;
    } else {
        outcome.text = "";
    }
    slot_drained(port, slot, false);
    done(&outcome);
}

/* Hands on what is ready; false when the next one needs room in `outcomes` and there is none. */
static bool hand_on(struct shoal_foreign_port *port, struct shoal_foreign_outcome *outcomes,
                    unsigned max, unsigned *count)
{
    while (port->ready != NULL) {
        struct shoal_foreign_slot *slot = port->ready;
        if (slot->done == NULL && *count == max)
            return false;
        (void)ready_take(port);
        if (slot->done != NULL) {
            call_done(port, slot);
            continue;
        }
        outcome_of(slot, &outcomes[*count]);
        (*count)++;
        slot_drained(port, slot, slot->code < 0);
    }
    return true;
}

int shoal_foreign_port_drain(struct shoal_foreign_port *port,
                             struct shoal_foreign_outcome *outcomes, unsigned max)
{
    SHOAL_CHECK(!port->draining, "a port is drained inside its drain");
    unsigned count = 0;
    if (in_other_process(port))
        return 0;
    port->draining = true;
    give_held(port);
    for (int round = 0; round < ROUNDS_MAX; round++) {
        collect(port);
        take_wakes(port);
        if (!hand_on(port, outcomes, max, &count) || park(port))
            break;
    }
    stay_readable(port);
    port->draining = false;
    return (int)count;
}

int shoal_foreign_port_turn(struct shoal_foreign_port *port, struct shoal_foreign_turn *turn)
{
    int count = shoal_foreign_port_drain(port, turn->outcomes, turn->outcomes_max);
    turn->outcomes_count = (uint32_t)count;
    turn->calls_taken = submit(port, turn->calls, turn->calls_count, &turn->code);
    return count;
}

/* ---- Waiting, cancelling ---- */

/* Until the eventfd is readable: 0, -ETIMEDOUT, -EINTR. */
static int poll_port(const struct shoal_foreign_port *port, uint64_t timeout_ns)
{
    struct pollfd ready = {.fd = port->stack.event_fd, .events = POLLIN};
    struct timespec timeout = {.tv_sec = (time_t)(timeout_ns / SHOAL_NS_PER_S),
                               .tv_nsec = (long)(timeout_ns % SHOAL_NS_PER_S)};
    int rc = ppoll(&ready, 1, timeout_ns == SHOAL_NS_FOREVER ? NULL : &timeout, NULL);
    return rc > 0 ? 0 : rc == 0 ? -ETIMEDOUT : -errno;
}

int shoal_foreign_port_wait(struct shoal_foreign_port *port, uint64_t timeout_ns)
{
    if (shoal_core_self != NULL)
        return -EDEADLK;
    if (in_other_process(port))
        return SHOAL_ESTOPPING;
    const uint64_t begun_ns = shoal_clock_system.now_ns(&shoal_clock_system);
    for (;;) {
        collect(port);
        if (port->ready != NULL) {
            stay_readable(port);
            return 0;
        }
        take_wakes(port);
        if (!park(port))
            continue;
        if (port->in_flight == 0)
            return -ENOENT;
        uint64_t waited_ns = shoal_clock_system.now_ns(&shoal_clock_system) - begun_ns;
        uint64_t left_ns = timeout_ns > waited_ns ? timeout_ns - waited_ns : 0;
        int rc = poll_port(port, timeout_ns == SHOAL_NS_FOREVER ? timeout_ns : left_ns);
        if (rc < 0)
            return rc;
    }
}

static bool may_cancel(const struct shoal_foreign_slot *slot)
{
    return slot->in_use && !slot->drained && !slot->cancel_posted;
}

/* Cancels those with `tag`, or all. Returns their number. */
static int cancel(struct shoal_foreign_port *port, bool all, uint64_t tag)
{
    struct shoal_launch *launch = in_other_process(port) ? NULL : shoal_foreign_enter();
    int count = 0;
    if (launch == NULL)
        return 0; /* the stop cancels them */
    for (uint32_t i = 0; i < port->fresh; i++) {
        struct shoal_foreign_slot *slot = &port->slots[i];
        if (!may_cancel(slot) || (!all && slot->tag != tag))
            continue;
        shoal_foreign_slot_cancel(launch, slot);
        count++;
    }
    shoal_foreign_leave();
    return count;
}

int shoal_foreign_port_cancel(struct shoal_foreign_port *port, uint64_t tag)
{
    return cancel(port, false, tag);
}

static void drop_ready(struct shoal_foreign_port *port)
{
    while (port->ready != NULL)
        slot_drained(port, ready_take(port), false);
}

/* Until no core has anything of `port` any more. */
static void wait_all(struct shoal_foreign_port *port)
{
    port->wants_room = true; /* so that also those which end unseen are told */
    for (;;) {
        collect(port);
        take_wakes(port);
        drop_ready(port);
        if (port->in_flight + port->limbo + port->wakes_owed == 0)
            return;
        if (port->wakes_owed > 0 || park(port))
            (void)poll_port(port, SHOAL_NS_FOREVER);
    }
}

void shoal_foreign_port_free(struct shoal_foreign_port *port)
{
    if (port == NULL)
        return;
    SHOAL_CHECK(!port->draining, "a port is freed inside its drain");
    if (!in_other_process(port)) {
        SHOAL_CHECK(shoal_core_self == NULL, "a port is freed on a core");
        (void)cancel(port, true, 0);
        wait_all(port);
    }
    close(port->stack.event_fd);
    free_memory(port);
}

int shoal_foreign_port_fd(const struct shoal_foreign_port *port)
{
    return port->stack.event_fd;
}

unsigned shoal_foreign_port_in_flight(const struct shoal_foreign_port *port)
{
    return port->in_flight;
}

const char *shoal_foreign_port_error(const struct shoal_foreign_port *port)
{
    return port->error;
}
