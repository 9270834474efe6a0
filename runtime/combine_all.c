/*
 * All of several futures: see combine.h.
 *
 * A slot for each input says where its outcome goes. `pending` counts inputs and, while they are
 * registered, the call itself, so that one which has settled already cannot end the whole early.
 */
#include "shoal/runtime/check.h"
#include "shoal/runtime/combine_impl.h"

struct all_slot {
    struct all *all;
    struct shoal_future *future; /* NULL once its outcome is known */
};

struct all {
    struct shoal_results_box box;
    struct all_slot *slots;
    size_t pending;
    bool cancel_on_failure;
};

static void cancel_inputs(struct all *all)
{
    for (size_t i = 0; i < all->box.results.count; i++)
        if (all->slots[i].future != NULL)
            shoal_future_cancel(all->slots[i].future);
}

static void cancel_all(struct shoal_combine *combine)
{
    cancel_inputs(SHOAL_CONTAINER_OF(combine, struct all, box.base));
}

static void input_ended(struct all *all, size_t index, struct shoal_outcome *outcome)
{
    struct shoal_combine *base = &all->box.base;
    if (outcome->code == 0 && base->code == 0) {
        all->box.results.values[index] = outcome->value;
        all->box.drops[index] = outcome->drop;
        return;
    }
    if (outcome->code == 0) {
        shoal_outcome_drop(outcome);
        return;
    }
    bool first = base->code == 0;
    shoal_combine_fault(base, outcome->code, outcome->text);
    if (!first)
        return;
    shoal_results_drop_values(&all->box);
    if (all->cancel_on_failure)
        cancel_inputs(all);
}

static void put(struct all *all)
{
    if (--all->pending > 0)
        return;
    shoal_results_settle(&all->box);
    shoal_results_put(&all->box);
}

static void run_input(struct shoal_task *task)
{
    struct shoal_outcome outcome;
    struct all_slot *slot = shoal_combine_outcome(task, &outcome);
    struct all *all = slot->all;
    slot->future = NULL;
    input_ended(all, (size_t)(slot - all->slots), &outcome);
    put(all);
}

/* NULL when out of memory; then nothing was consumed. */
static struct shoal_future *when_all(struct shoal_future *const *futures, size_t count,
                                     bool cancel_on_failure)
{
    void *slots;
    const struct shoal_results_shape shape = {
        .state_bytes = sizeof(struct all),
        .values = count,
        .slots = count,
        .slot_bytes = sizeof(struct all_slot),
    };
    struct all *all = shoal_results_new(&shape, &slots, cancel_all);
    if (all == NULL)
        return NULL;
    struct shoal_future *result = all->box.base.result;
    all->slots = slots;
    all->box.results.count = count;
    all->pending = count + 1;
    all->cancel_on_failure = cancel_on_failure;
    for (size_t i = 0; i < count; i++) {
        struct all_slot *slot = &all->slots[i];
        struct shoal_outcome outcome;
        slot->all = all;
        if (!shoal_combine_take(futures[i], run_input, slot, &outcome)) {
            slot->future = futures[i];
            if (all->box.base.code != 0 && cancel_on_failure)
                shoal_future_cancel(slot->future);
            continue;
        }
        input_ended(all, i, &outcome);
        all->pending--;
    }
    put(all);
    return result;
}

static struct shoal_future *when_all_or_discard(struct shoal_future *const *futures, size_t count,
                                                bool cancel_on_failure)
{
    struct shoal_future *all = when_all(futures, count, cancel_on_failure);
    if (all != NULL)
        return all;
    shoal_combine_discard(futures, count);
    return shoal_combine_no_memory();
}

struct shoal_future *shoal_when_all(struct shoal_future *const *futures, size_t count)
{
    return when_all_or_discard(futures, count, false);
}

struct shoal_future *shoal_when_all_or_cancel(struct shoal_future *const *futures, size_t count)
{
    return when_all_or_discard(futures, count, true);
}

int shoal_await_all(struct shoal_future *const *futures, size_t count, union shoal_value *values)
{
    struct shoal_future *all = when_all(futures, count, false);
    if (all == NULL)
        return shoal_combine_await_no_memory(futures, count);
    if (values == NULL) /* then the await drops them */
        return shoal_await(all, NULL);
    union shoal_value value;
    int rc = shoal_await(all, &value);
    if (rc < 0)
        return rc;
    struct shoal_results *results = value.ptr;
    for (size_t i = 0; i < count; i++)
        values[i] = results->values[i];
    shoal_results_free(results);
    return 0;
}
