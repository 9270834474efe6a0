/*
 * Select: see select.h.
 *
 * The cases stand in line at their sources with one waiter each. Whichever is served first takes
 * all the others out of their lines, in the same call: a second one cannot be served. What the
 * others leave behind (who is next in a line may be served now) is looked at by the fiber when it
 * runs, not inside that call, so that selects that share sources cannot call each other without
 * end.
 *
 * A future has no line: as its consumer, for the time of the wait, it gets the fiber, which it
 * wakes when it settles, as in an await; afterwards it has none again. A future that has settled
 * counts from then on: neither a time-out nor a cancel that comes later wins against it.
 */
#include "shoal/runtime/select.h"

#include <errno.h>

#include "shoal/runtime/future_impl.h"
#include "shoal/runtime/sync_impl.h"

#define UNDECIDED (-1)
#define FAILED    (-2) /* `code` says how */

struct shoal_selection {
    struct shoal_fiber *fiber;
    struct shoal_select_case *cases;
    size_t count;
    struct shoal_timer timer; /* of the select as a whole */
    int winner;               /* an index, UNDECIDED or FAILED */
    int code;
};

/* ---- Futures and times as sources ---- */

static bool future_ready(const struct shoal_select_case *source)
{
    return !shoal_future_is_pending(source->object);
}

static void take_nothing(struct shoal_select_case *source)
{
    source->result = 0;
}

static const struct shoal_select_ops future_ops = {future_ready, take_nothing, NULL};

struct shoal_select_case shoal_select_future(struct shoal_future *future)
{
    return (struct shoal_select_case){.ops = &future_ops, .object = future};
}

static void future_watch(struct shoal_future *future, struct shoal_fiber *fiber)
{
    SHOAL_CHECK(shoal_future_is_free(future), "future %p is consumed twice", (void *)future);
    shoal_future_set_consumer(future, SHOAL_CONSUMER_FIBER);
    future->consumer.fiber = fiber;
}

static void future_unwatch(struct shoal_future *future)
{
    shoal_future_set_consumer(future, SHOAL_CONSUMER_NONE);
    future->consumer.fiber = NULL;
}

static bool time_ready(const struct shoal_select_case *source)
{
    return source->n != SHOAL_NS_FOREVER && source->n <= shoal_now_ns();
}

static const struct shoal_select_ops time_ops = {time_ready, take_nothing, NULL};

struct shoal_select_case shoal_select_at(uint64_t deadline_ns)
{
    return (struct shoal_select_case){.ops = &time_ops, .n = deadline_ns};
}

struct shoal_select_case shoal_select_after(uint64_t delay_ns)
{
    return shoal_select_at(shoal_deadline_ns(shoal_now_ns(), delay_ns));
}

struct shoal_select_case shoal_select_never(void)
{
    return shoal_select_at(SHOAL_NS_FOREVER);
}

/* ---- Choosing ---- */

/*
 * A number below `range`, of a sequence that is the same in each run. Taking turns would be simpler
 * and not fair: two fibers that select alternately would each see every other turn.
 */
static unsigned random_below(struct shoal_core *core, unsigned range)
{
    uint32_t x = core->select_random;
    x ^= x << 13;
    x ^= x >> 17;
    x ^= x << 5;
    core->select_random = x;
    return (unsigned)((uint64_t)x * range >> 32);
}

/* One of those that are ready; UNDECIDED if none is. */
static int choose(struct shoal_core *core, const struct shoal_select_case *cases, size_t count,
                  bool (*counts)(const struct shoal_select_case *source))
{
    unsigned ready = 0;
    for (size_t i = 0; i < count; i++)
        ready += counts(&cases[i]);
    if (ready == 0)
        return UNDECIDED;
    unsigned skip = ready > 1 ? random_below(core, ready) : 0;
    for (size_t i = 0; i < count; i++)
        if (counts(&cases[i]) && skip-- == 0)
            return (int)i;
    SHOAL_PANIC("a source of a select was ready, and is not");
}

static bool is_ready(const struct shoal_select_case *source)
{
    return source->ops->ready(source);
}

static bool has_settled(const struct shoal_select_case *source)
{
    return source->ops == &future_ops && future_ready(source);
}

/* ---- Waiting ---- */

static void decide(struct shoal_selection *selection, int winner, int code)
{
    selection->winner = winner;
    selection->code = code;
    for (size_t i = 0; i < selection->count; i++)
        shoal_waiter_remove(&selection->cases[i].waiter);
    shoal_timer_cancel(&selection->timer);
    shoal_fiber_make_ready(shoal_core_self, selection->fiber);
}

void shoal_selection_won(struct shoal_waiter *waiter)
{
    struct shoal_selection *selection = waiter->who.selection;
    struct shoal_select_case *source = SHOAL_CONTAINER_OF(waiter, struct shoal_select_case, waiter);
    SHOAL_CHECK(selection->winner == UNDECIDED, "two sources of a select are used");
    source->result = waiter->result;
    decide(selection, (int)(source - selection->cases), 0);
}

/* A future that has settled was faster, though the fiber has not run yet. */
static bool future_was_faster(const struct shoal_selection *selection)
{
    for (size_t i = 0; i < selection->count; i++)
        if (has_settled(&selection->cases[i]))
            return true;
    return false;
}

static void time_comes(struct shoal_timer *timer)
{
    shoal_waiter_end(SHOAL_CONTAINER_OF(timer, struct shoal_waiter, timer), 0);
}

static void time_out(struct shoal_timer *timer)
{
    struct shoal_selection *selection = SHOAL_CONTAINER_OF(timer, struct shoal_selection, timer);
    if (!future_was_faster(selection))
        decide(selection, FAILED, -ETIMEDOUT);
}

/* Not after a future has settled: that has made the fiber ready, and it looks at those first. */
static void cancel(struct shoal_fiber *fiber)
{
    decide(fiber->wait_ctx, FAILED, fiber->cancel_code);
}

static void watch(struct shoal_selection *selection, struct shoal_select_case *source)
{
    struct shoal_waiter *waiter = &source->waiter;
    *waiter = (struct shoal_waiter){.kind = SHOAL_WAITER_SELECT,
                                    .item = source->item,
                                    .n = source->n,
                                    .who.selection = selection};
    shoal_timer_init(&waiter->timer, time_comes);
    if (source->ops == &future_ops)
        future_watch(source->object, selection->fiber);
    else if (source->ops->queue != NULL)
        shoal_waiter_push(source->ops->queue(source), waiter);
    else if (source->n != SHOAL_NS_FOREVER)
        shoal_timer_arm_at(&waiter->timer, source->n);
}

/* The others' places in line are free: whom does that let through? */
static void unwatch(const struct shoal_selection *selection)
{
    for (size_t i = 0; i < selection->count; i++) {
        struct shoal_select_case *source = &selection->cases[i];
        struct shoal_wait_queue *queue = source->waiter.queue;
        if (source->ops == &future_ops)
            future_unwatch(source->object);
        else if (queue != NULL && queue->left != NULL && (int)i != selection->winner)
            queue->left(queue);
    }
}

static void wait(struct shoal_core *core, struct shoal_selection *selection, uint64_t timeout_ns)
{
    struct shoal_fiber *fiber = selection->fiber;
    for (size_t i = 0; i < selection->count; i++)
        watch(selection, &selection->cases[i]);
    shoal_timer_init(&selection->timer, time_out);
    if (timeout_ns != SHOAL_NS_FOREVER)
        shoal_timer_arm(&selection->timer, timeout_ns);
    shoal_fiber_wait_begin(fiber, "select", cancel, selection);
    for (;;) {
        shoal_fiber_park(core, fiber);
        if (selection->winner != UNDECIDED)
            break;
        int settled = choose(core, selection->cases, selection->count, has_settled);
        if (settled != UNDECIDED) {
            take_nothing(&selection->cases[settled]);
            decide(selection, settled, 0);
        } else if (shoal_fiber_cancelled_now(fiber)) { /* on its way here, woken for nothing */
            cancel(fiber);
        }
        if (selection->winner != UNDECIDED)
            break;
    }
    shoal_fiber_wait_end(fiber);
    unwatch(selection);
}

int shoal_select(struct shoal_select_case *cases, size_t count, uint64_t timeout_ns)
{
    struct shoal_core *core = shoal_core_self;
    SHOAL_CHECK(core != NULL && core->fiber != NULL, "select outside a fiber");
    int rc = shoal_fiber_cancel_code(core->fiber);
    if (rc < 0)
        return rc;
    int winner = choose(core, cases, count, is_ready);
    if (winner != UNDECIDED) {
        cases[winner].ops->take(&cases[winner]);
        return winner;
    }
    if (timeout_ns == 0)
        return -ETIMEDOUT;
    struct shoal_selection selection = {
        .fiber = core->fiber, .cases = cases, .count = count, .winner = UNDECIDED};
    wait(core, &selection, timeout_ns);
    return selection.winner >= 0 ? selection.winner : selection.code;
}
