/*
 * A step again and again: see combine.h. Also shoal_reduce(), whose steps hand a sum on.
 *
 * One turn makes steps while each is ready at once, for a burst at most. A step that is not ready
 * takes the next turn when it has settled.
 */
#include <errno.h>

#include "shoal/runtime/check.h"
#include "shoal/runtime/combine_impl.h"

struct loop {
    struct shoal_combine base;
    struct shoal_future *step; /* under way; NULL without */
    /* The next step, or NULL where `end` is the outcome. */
    struct shoal_future *(*begin)(struct loop *loop, struct shoal_outcome *end);
    /* A step has succeeded; true where `*outcome` is the outcome of the loop. */
    bool (*ended)(struct loop *loop, struct shoal_outcome *outcome);
    union {
        struct {
            shoal_step_fn *step;
            shoal_done_fn *done;
            void *arg;
        } repeat;
        struct {
            shoal_reduce_fn *fn;
            void *arg;
            size_t next;
            size_t count;
            struct shoal_outcome sum;
            bool indices; /* in place of items */
        } reduce;
    };
    union shoal_value items[];
};

static void finish(struct loop *loop, struct shoal_outcome *outcome)
{
    shoal_combine_settle(&loop->base, outcome);
    shoal_combine_free(&loop->base);
}

/* Whether the loop is over, and freed. */
static bool step_ended(struct loop *loop, struct shoal_outcome *outcome)
{
    if (outcome->code == 0 && !loop->ended(loop, outcome))
        return false;
    finish(loop, outcome);
    return true;
}

static void turn(struct loop *loop);

static void run_step(struct shoal_task *task)
{
    struct shoal_outcome outcome;
    struct loop *loop = shoal_combine_outcome(task, &outcome);
    loop->step = NULL;
    if (!step_ended(loop, &outcome))
        turn(loop);
}

static void run_turn(struct shoal_task *task)
{
    struct loop *loop = SHOAL_CONTAINER_OF(task, struct loop, base.task);
    loop->base.posted = false;
    turn(loop);
}

static void turn(struct loop *loop)
{
    for (unsigned burst = 0; burst < SHOAL_COMBINE_BURST; burst++) {
        if (burst > 0 && shoal_need_preempt())
            break;
        struct shoal_outcome outcome = {.code = 0};
        struct shoal_future *step = loop->begin(loop, &outcome);
        if (step == NULL) {
            finish(loop, &outcome);
            return;
        }
        if (!shoal_combine_take(step, run_step, loop, &outcome)) {
            loop->step = step;
            if (loop->base.cancelled) /* by the step's own function */
                shoal_future_cancel(step);
            return;
        }
        if (step_ended(loop, &outcome))
            return;
    }
    shoal_combine_post(&loop->base, run_turn);
}

static void cancel_loop(struct shoal_combine *combine)
{
    struct loop *loop = SHOAL_CONTAINER_OF(combine, struct loop, base);
    if (loop->step != NULL)
        shoal_future_cancel(loop->step);
}

/* ---- repeat, do_until ---- */

static struct shoal_future *begin_repeat(struct loop *loop, struct shoal_outcome *end)
{
    if (loop->repeat.done != NULL && loop->repeat.done(loop->repeat.arg))
        return NULL;
    if (loop->base.cancelled) {
        end->code = -ECANCELED;
        return NULL;
    }
    struct shoal_future *step = loop->repeat.step(loop->repeat.arg);
    SHOAL_CHECK(step != NULL, "a step returned NULL in place of a future");
    return step;
}

static bool repeat_ended(struct loop *loop, struct shoal_outcome *outcome)
{
    if (loop->repeat.done == NULL && outcome->value.u64 != 0)
        return true;
    shoal_outcome_drop(outcome);
    return false;
}

static struct shoal_future *repeat(shoal_step_fn *step, shoal_done_fn *done, void *arg)
{
    struct loop *loop = shoal_combine_new(sizeof(*loop), cancel_loop);
    if (loop == NULL)
        return shoal_combine_no_memory();
    loop->begin = begin_repeat;
    loop->ended = repeat_ended;
    loop->repeat.step = step;
    loop->repeat.done = done;
    loop->repeat.arg = arg;
    shoal_combine_post(&loop->base, run_turn);
    return loop->base.result;
}

struct shoal_future *shoal_repeat(shoal_step_fn *step, void *arg)
{
    return repeat(step, NULL, arg);
}

struct shoal_future *shoal_do_until(shoal_done_fn *done, shoal_step_fn *step, void *arg)
{
    return repeat(step, done, arg);
}

/* ---- reduce ---- */

static struct shoal_future *begin_reduce(struct loop *loop, struct shoal_outcome *end)
{
    if (loop->reduce.next == loop->reduce.count) {
        *end = loop->reduce.sum;
        return NULL;
    }
    if (loop->base.cancelled) {
        shoal_outcome_drop(&loop->reduce.sum);
        end->code = -ECANCELED;
        return NULL;
    }
    size_t index = loop->reduce.next++;
    union shoal_value item = {.slice = {NULL, 0, 0}};
    if (loop->reduce.indices)
        item.u64 = index;
    else
        item = loop->items[index];
    struct shoal_future *step = loop->reduce.fn(loop->reduce.arg, &loop->reduce.sum.value, &item);
    SHOAL_CHECK(step != NULL, "a step returned NULL in place of a future");
    return step;
}

static bool reduce_ended(struct loop *loop, struct shoal_outcome *outcome)
{
    loop->reduce.sum = *outcome;
    return false;
}

struct shoal_future *shoal_reduce(const struct shoal_reduction *reduction)
{
    size_t items = reduction->items != NULL ? reduction->count : 0;
    size_t bytes = sizeof(struct loop) + items * sizeof(union shoal_value);
    struct loop *loop = shoal_combine_new(bytes, cancel_loop);
    if (loop == NULL) {
        union shoal_value initial = reduction->initial;
        if (reduction->drop != NULL)
            reduction->drop(&initial);
        return shoal_combine_no_memory();
    }
    loop->begin = begin_reduce;
    loop->ended = reduce_ended;
    loop->reduce.fn = reduction->fn;
    loop->reduce.arg = reduction->arg;
    loop->reduce.count = reduction->count;
    loop->reduce.indices = reduction->items == NULL;
    loop->reduce.sum.value = reduction->initial;
    loop->reduce.sum.drop = reduction->drop;
    for (size_t i = 0; i < items; i++)
        loop->items[i] = reduction->items[i];
    shoal_combine_post(&loop->base, run_turn);
    return loop->base.result;
}
