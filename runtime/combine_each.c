/*
 * Work on each of several items, a few at a time: see combine.h.
 *
 * 1. A slot for each item that can be under way at once; free ones are chained. A slot is taken
 *    when its item is begun, and given back when the outcome is known.
 * 2. Items are begun by begin_items() alone, in a task. It goes on while slots are free, but for
 *    a burst at most, and then queues itself; an item that ends calls it again.
 * 3. Nothing is begun after a failure or a cancel.
 *
 * A value replaces its item in place (map), is a mark beside it (filter) or is dropped (for_each,
 * which has no values where the items are indices, and so any number of them in constant memory).
 */
#include <errno.h>

#include "shoal/runtime/check.h"
#include "shoal/runtime/combine_impl.h"

enum each_kind { EACH_RUN, EACH_MAP, EACH_FILTER };

struct each_slot {
    struct each *each;
    struct shoal_future *future; /* NULL unless it is under way */
    size_t index;
    struct each_slot *next_free;
};

struct each {
    struct shoal_results_box box;
    struct shoal_each work;
    struct each_slot *slots;
    struct each_slot *free;
    uint64_t *marks; /* filter: the indices, and before the end whether the item is kept */
    size_t slot_count;
    size_t next;    /* item to begin */
    size_t running; /* items under way */
    enum each_kind kind;
};

static bool stopped(const struct each *each)
{
    return each->box.base.code != 0 || each->box.base.cancelled;
}

static void cancel_running(struct each *each)
{
    for (size_t i = 0; i < each->slot_count; i++)
        if (each->slots[i].future != NULL)
            shoal_future_cancel(each->slots[i].future);
}

static void keep_marked(struct each *each)
{
    struct shoal_results *results = &each->box.results;
    size_t kept = 0;
    for (size_t i = 0; i < each->work.count; i++) {
        if (each->marks[i] == 0)
            continue;
        results->values[kept] = results->values[i];
        each->marks[kept++] = i;
    }
    results->count = kept;
}

static void finish(struct each *each)
{
    struct shoal_combine *base = &each->box.base;
    if (each->next < each->work.count)
        shoal_combine_fault(base, -ECANCELED, NULL);
    if (each->kind == EACH_FILTER && base->code == 0)
        keep_marked(each);
    if (each->kind == EACH_RUN && base->code == 0) {
        struct shoal_outcome none = {.code = 0};
        shoal_combine_settle(base, &none);
    } else {
        shoal_results_settle(&each->box);
    }
    shoal_results_put(&each->box);
}

static void item_failed(struct each *each, struct shoal_outcome *outcome)
{
    bool first = each->box.base.code == 0;
    shoal_combine_fault(&each->box.base, outcome->code, outcome->text);
    if (!first)
        return;
    if (each->kind == EACH_MAP)
        shoal_results_drop_values(&each->box);
    if (each->work.cancel_on_failure)
        cancel_running(each);
}

static void item_ended(struct each *each, size_t index, struct shoal_outcome *outcome)
{
    if (outcome->code < 0) {
        item_failed(each, outcome);
        return;
    }
    if (each->kind == EACH_MAP && each->box.base.code == 0) {
        each->box.results.values[index] = outcome->value;
        each->box.drops[index] = outcome->drop;
        return;
    }
    if (each->kind == EACH_FILTER)
        each->marks[index] = outcome->value.u64 != 0;
    shoal_outcome_drop(outcome);
}

static void give_slot(struct each *each, struct each_slot *slot)
{
    slot->future = NULL;
    slot->next_free = each->free;
    each->free = slot;
    each->running--;
}

static void begin_items(struct each *each);

static void run_item(struct shoal_task *task)
{
    struct shoal_outcome outcome;
    struct each_slot *slot = shoal_combine_outcome(task, &outcome);
    struct each *each = slot->each;
    size_t index = slot->index;
    give_slot(each, slot);
    item_ended(each, index, &outcome);
    if (!each->box.base.posted)
        begin_items(each);
}

static void run_turn(struct shoal_task *task)
{
    struct each *each = SHOAL_CONTAINER_OF(task, struct each, box.base.task);
    each->box.base.posted = false;
    begin_items(each);
}

static void begin_item(struct each *each)
{
    struct each_slot *slot = each->free;
    size_t index = each->next++;
    struct shoal_outcome outcome;
    union shoal_value item = {.slice = {NULL, 0, 0}};
    if (each->work.items != NULL)
        item = each->box.results.values[index];
    else
        item.u64 = index;
    each->free = slot->next_free;
    slot->index = index;
    each->running++;
    const struct shoal_call call = {each->work.fn, each->work.fiber, each->work.drop,
                                    each->work.arg, each->work.name};
    struct shoal_future *future = shoal_combine_call(&call, &item);
    if (shoal_combine_take(future, run_item, slot, &outcome)) {
        give_slot(each, slot);
        item_ended(each, index, &outcome);
        return;
    }
    slot->future = future;
    if (each->box.base.cancelled) /* by the function itself */
        shoal_future_cancel(future);
}

static void begin_items(struct each *each)
{
    unsigned burst = SHOAL_COMBINE_BURST;
    while (!stopped(each) && each->next < each->work.count && each->free != NULL) {
        if (burst == 0 || (burst < SHOAL_COMBINE_BURST && shoal_need_preempt())) {
            shoal_combine_post(&each->box.base, run_turn);
            return;
        }
        burst--;
        begin_item(each);
    }
    if (each->running == 0)
        finish(each);
}

static void cancel_each(struct shoal_combine *combine)
{
    cancel_running(SHOAL_CONTAINER_OF(combine, struct each, box.base));
}

static struct shoal_future *start(const struct shoal_each *work, enum each_kind kind)
{
    if ((work->fn == NULL) == (work->fiber == NULL))
        return shoal_future_failed(-EINVAL, "one of fn and fiber is to be set");
    void *slots;
    size_t limit = work->limit == 0 || work->limit > work->count ? work->count : work->limit;
    bool values = kind != EACH_RUN || work->items != NULL;
    const struct shoal_results_shape shape = {
        .state_bytes = sizeof(struct each),
        .values = values ? work->count : 0,
        .indices = kind == EACH_FILTER,
        .slots = limit,
        .slot_bytes = sizeof(struct each_slot),
    };
    struct each *each = shoal_results_new(&shape, &slots, cancel_each);
    if (each == NULL)
        return shoal_combine_no_memory();
    struct shoal_results *results = &each->box.results;
    each->kind = kind;
    each->work = *work;
    each->slots = slots;
    each->slot_count = limit;
    each->marks = (uint64_t *)(uintptr_t)results->indices;
    results->count = values ? work->count : 0;
    for (size_t i = 0; values && i < work->count; i++)
        if (work->items != NULL)
            results->values[i] = work->items[i];
        else
            results->values[i] = (union shoal_value){.slice = {(void *)(uintptr_t)i, 0, 0}};
    for (size_t i = limit; i-- > 0;) {
        each->slots[i].each = each;
        each->slots[i].next_free = each->free;
        each->free = &each->slots[i];
    }
    shoal_combine_post(&each->box.base, run_turn);
    return each->box.base.result;
}

struct shoal_future *shoal_for_each(const struct shoal_each *each)
{
    return start(each, EACH_RUN);
}

struct shoal_future *shoal_map(const struct shoal_each *each)
{
    return start(each, EACH_MAP);
}

struct shoal_future *shoal_filter(const struct shoal_each *each)
{
    return start(each, EACH_FILTER);
}
