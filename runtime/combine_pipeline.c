/*
 * Stages, one after another: see combine.h.
 *
 * The value goes from stage to stage inside the state; a stage that waits takes the next turn when
 * it has settled.
 */
#include <errno.h>

#include "shoal/runtime/check.h"
#include "shoal/runtime/combine_impl.h"

struct pipeline {
    struct shoal_combine base;
    struct shoal_future *step; /* under way; NULL without */
    struct shoal_outcome value;
    size_t next;
    size_t count;
    struct shoal_stage stages[];
};

static void finish(struct pipeline *pipeline)
{
    shoal_combine_settle(&pipeline->base, &pipeline->value);
    shoal_combine_free(&pipeline->base);
}

static void turn(struct pipeline *pipeline);

static void run_step(struct shoal_task *task)
{
    struct shoal_outcome outcome;
    struct pipeline *pipeline = shoal_combine_outcome(task, &outcome);
    pipeline->value = outcome;
    pipeline->step = NULL;
    turn(pipeline);
}

static void run_turn(struct shoal_task *task)
{
    struct pipeline *pipeline = SHOAL_CONTAINER_OF(task, struct pipeline, base.task);
    pipeline->base.posted = false;
    turn(pipeline);
}

/* Runs one stage; false where it is under way. */
static bool run_stage(struct pipeline *pipeline, const struct shoal_stage *stage)
{
    struct shoal_outcome *value = &pipeline->value;
    if (stage->then != NULL) {
        union shoal_value out = {.slice = {NULL, 0, 0}};
        int code = stage->then(stage->arg, &value->value, &out);
        *value = (struct shoal_outcome){.code = code < 0 ? code : 0, .drop = stage->drop};
        value->value = out;
        return true;
    }
    const struct shoal_call call = {stage->then_future, stage->fiber, stage->drop, stage->arg,
                                    stage->name};
    struct shoal_future *step = shoal_combine_call(&call, &value->value);
    if (stage->fiber != NULL && shoal_future_is_immortal(step))
        shoal_outcome_drop(value); /* the fiber could not be made, and never got it */
    if (shoal_combine_take(step, run_step, pipeline, value))
        return true;
    pipeline->step = step;
    if (pipeline->base.cancelled) /* by the stage's own function */
        shoal_future_cancel(step);
    return false;
}

static void turn(struct pipeline *pipeline)
{
    struct shoal_outcome *value = &pipeline->value;
    for (unsigned burst = 0; burst < SHOAL_COMBINE_BURST; burst++) {
        if (value->code < 0 || pipeline->next == pipeline->count) {
            finish(pipeline);
            return;
        }
        if (pipeline->base.cancelled) {
            shoal_outcome_drop(value);
            *value = (struct shoal_outcome){.code = -ECANCELED};
            finish(pipeline);
            return;
        }
        if (burst > 0 && shoal_need_preempt())
            break;
        if (!run_stage(pipeline, &pipeline->stages[pipeline->next++]))
            return;
    }
    shoal_combine_post(&pipeline->base, run_turn);
}

static void cancel_pipeline(struct shoal_combine *combine)
{
    struct pipeline *pipeline = SHOAL_CONTAINER_OF(combine, struct pipeline, base);
    if (pipeline->step != NULL)
        shoal_future_cancel(pipeline->step);
}

struct shoal_future *shoal_pipeline(struct shoal_future *future, const struct shoal_stage *stages,
                                    size_t count)
{
    if (count == 0)
        return future;
    for (size_t i = 0; i < count; i++) {
        const struct shoal_stage *stage = &stages[i];
        if ((stage->then != NULL) + (stage->then_future != NULL) + (stage->fiber != NULL) == 1)
            continue;
        shoal_discard(future);
        return shoal_future_failed(-EINVAL, "stage %zu has none, or several, of its functions", i);
    }
    size_t bytes = sizeof(struct pipeline) + count * sizeof(*stages);
    struct pipeline *pipeline = shoal_combine_new(bytes, cancel_pipeline);
    if (pipeline == NULL)
        return shoal_combine_spoil(future);
    pipeline->count = count;
    for (size_t i = 0; i < count; i++)
        pipeline->stages[i] = stages[i];
    if (shoal_combine_take(future, run_step, pipeline, &pipeline->value))
        shoal_combine_post(&pipeline->base, run_turn);
    else
        pipeline->step = future;
    return pipeline->base.result;
}
