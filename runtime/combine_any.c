/*
 * Some of several futures, and what becomes of the others: see combine.h.
 *
 * 1. `left` counts the inputs whose outcome is not known. The state goes once it is 0 and, where
 *    the results were handed out before (SHOAL_LOSERS_LEAVE), the consumer has freed them.
 * 2. SHOAL_LOSERS_KEEP takes the combinator off its inputs again. One that has settled meanwhile is
 *    queued to report, and cannot be taken out of the queue: the result waits until it has come by,
 *    which takes a turn of the loop and nobody's help.
 */
#include <errno.h>
#include <stdio.h>

#include "shoal/runtime/check.h"
#include "shoal/runtime/combine_impl.h"

struct some_slot {
    struct some *some;
    struct shoal_future *future; /* NULL once its outcome is known, or it is not ours any more */
};

struct some {
    struct shoal_results_box box; /* its count: of the winners so far */
    struct some_slot *slots;
    struct shoal_future **futures; /* the caller's array, for SHOAL_LOSERS_KEEP; else NULL */
    uint64_t *indices;
    size_t *winner; /* shoal_await_any(): where to put the index; else NULL */
    size_t count;
    size_t needed;
    size_t left;
    enum shoal_losers losers;
    bool any; /* a failure decides, too */
    bool decided;
};

/* Takes the combinator off all that are pending; those that are queued stay counted. */
static void untake_pending(struct some *some)
{
    for (size_t i = 0; i < some->count; i++) {
        struct some_slot *slot = &some->slots[i];
        if (slot->future == NULL || !shoal_future_is_pending(slot->future))
            continue;
        shoal_combine_untake(slot->future);
        slot->future = NULL;
        some->left--;
    }
}

static void cancel_pending(struct some *some)
{
    for (size_t i = 0; i < some->count; i++)
        if (some->slots[i].future != NULL)
            shoal_future_cancel(some->slots[i].future);
}

/* Nothing that is still to come can change the outcome. */
static void decide(struct some *some)
{
    some->decided = true;
    if (some->losers == SHOAL_LOSERS_KEEP)
        untake_pending(some);
    else
        cancel_pending(some);
}

static void input_won(struct some *some, size_t index, const struct shoal_outcome *outcome)
{
    struct shoal_results *results = &some->box.results;
    struct shoal_combine *base = &some->box.base;
    results->values[results->count] = outcome->value;
    some->box.drops[results->count] = outcome->drop;
    some->indices[results->count] = index;
    if (++results->count < some->needed)
        return;
    shoal_text_free(base->text); /* of a failure that does not matter now */
    base->text = NULL;
    base->code = 0;
    decide(some);
}

/* `left` does not count this one any more. */
static void input_ended(struct some *some, size_t index, struct shoal_outcome *outcome)
{
    if (some->futures != NULL)
        some->futures[index] = NULL;
    if (some->decided) {
        shoal_outcome_drop(outcome);
        return;
    }
    if (some->winner != NULL)
        *some->winner = index;
    if (outcome->code == 0) {
        input_won(some, index, outcome);
        return;
    }
    shoal_combine_fault(&some->box.base, outcome->code, outcome->text);
    if (some->any || some->box.results.count + some->left < some->needed)
        decide(some);
}

/* Settles what can be settled, and frees what is not needed any more. */
static void advance(struct some *some)
{
    struct shoal_combine *base = &some->box.base;
    bool over = some->left == 0;
    if (over && !some->decided) {
        shoal_combine_fault(base, -ECANCELED, NULL);
        some->decided = true;
    }
    if (base->result != NULL && some->decided && (over || some->losers == SHOAL_LOSERS_LEAVE))
        shoal_results_settle(&some->box);
    if (over)
        shoal_results_put(&some->box);
}

static void run_input(struct shoal_task *task)
{
    struct some_slot *slot = shoal_combine_ctx(task);
    struct some *some = slot->some;
    some->left--;
    if (some->decided && some->losers == SHOAL_LOSERS_KEEP) {
        shoal_combine_untake(slot->future);
        slot->future = NULL;
    } else {
        struct shoal_outcome outcome;
        (void)shoal_combine_outcome(task, &outcome);
        slot->future = NULL;
        input_ended(some, (size_t)(slot - some->slots), &outcome);
    }
    advance(some);
}

static void cancel_some(struct shoal_combine *combine)
{
    struct some *some = SHOAL_CONTAINER_OF(combine, struct some, box.base);
    if (some->losers != SHOAL_LOSERS_KEEP) {
        cancel_pending(some);
        return;
    }
    untake_pending(some);
    if (some->left == 0)
        advance(some);
}

static void take_inputs(struct some *some, struct shoal_future **futures)
{
    bool keep = some->losers == SHOAL_LOSERS_KEEP;
    for (size_t i = 0; i < some->count; i++) {
        struct some_slot *slot = &some->slots[i];
        struct shoal_outcome outcome;
        slot->some = some;
        if (futures[i] == NULL)
            continue;
        if (keep && some->decided) {
            some->left--;
            continue;
        }
        if (!shoal_combine_take(futures[i], run_input, slot, &outcome)) {
            slot->future = futures[i];
            if (some->decided)
                shoal_future_cancel(slot->future);
            continue;
        }
        some->left--;
        input_ended(some, i, &outcome);
    }
}

struct some_options {
    size_t needed;
    enum shoal_losers losers;
    bool any;
    size_t *winner;
};

/* NULL when out of memory; then nothing was consumed. */
static struct shoal_future *when_some(struct shoal_future **futures, size_t count,
                                      const struct some_options *options)
{
    void *slots;
    size_t given = 0;
    for (size_t i = 0; i < count; i++)
        given += futures[i] != NULL;
    bool possible = options->needed <= given;
    const struct shoal_results_shape shape = {
        .state_bytes = sizeof(struct some),
        .values = possible ? options->needed : 0,
        .indices = true,
        .slots = count,
        .slot_bytes = sizeof(struct some_slot),
    };
    struct some *some = shoal_results_new(&shape, &slots, cancel_some);
    if (some == NULL)
        return NULL;
    struct shoal_future *result = some->box.base.result;
    some->slots = slots;
    some->futures = options->losers == SHOAL_LOSERS_KEEP ? futures : NULL;
    some->indices = (uint64_t *)(uintptr_t)some->box.results.indices;
    some->winner = options->winner;
    some->count = count;
    some->needed = options->needed;
    some->left = given;
    some->losers = options->losers;
    some->any = options->any;
    if (!possible) {
        char text[96];
        snprintf(text, sizeof(text), "%zu of %zu futures are wanted", options->needed, given);
        shoal_combine_fault(&some->box.base, -EINVAL, shoal_text_copy(text));
    }
    some->decided = !possible || options->needed == 0;
    take_inputs(some, futures);
    advance(some);
    return result;
}

static struct shoal_future *when_some_or_discard(struct shoal_future **futures, size_t count,
                                                 const struct some_options *options)
{
    struct shoal_future *some = when_some(futures, count, options);
    if (some != NULL)
        return some;
    if (options->losers != SHOAL_LOSERS_KEEP)
        shoal_combine_discard(futures, count);
    return shoal_combine_no_memory();
}

struct shoal_future *shoal_when_any(struct shoal_future **futures, size_t count,
                                    enum shoal_losers losers)
{
    const struct some_options options = {.needed = 1, .losers = losers, .any = true};
    return when_some_or_discard(futures, count, &options);
}

struct shoal_future *shoal_when_some(struct shoal_future **futures, size_t count, size_t needed,
                                     enum shoal_losers losers)
{
    const struct some_options options = {.needed = needed, .losers = losers};
    return when_some_or_discard(futures, count, &options);
}

int shoal_await_any(struct shoal_future **futures, size_t count, enum shoal_losers losers,
                    struct shoal_winner *out)
{
    const struct some_options options = {
        .needed = 1, .losers = losers, .any = true, .winner = &out->index};
    union shoal_value value;
    out->index = count;
    struct shoal_future *any = when_some(futures, count, &options);
    if (any == NULL)
        return shoal_combine_await_no_memory(futures, losers == SHOAL_LOSERS_KEEP ? 0 : count);
    int rc = shoal_await(any, &value);
    if (rc < 0)
        return rc;
    struct shoal_results *results = value.ptr;
    out->value = results->values[0];
    shoal_results_free(results);
    return 0;
}
