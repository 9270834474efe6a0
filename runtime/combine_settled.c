/*
 * Waiting for several futures without consuming them: see combine.h.
 *
 * The combinator is the consumer of each until it has settled, and then steps back. A cancel steps
 * back from those that are pending; those that are queued to report are waited for, a turn of the
 * loop at most.
 */
#include <errno.h>

#include "shoal/runtime/combine_impl.h"

struct settled {
    struct shoal_combine base;
    size_t count;
    size_t left; /* not settled, or not reported yet; and the call itself while it registers */
    bool gave_up;
    struct shoal_future *futures[];
};

static void put(struct settled *settled, size_t taken)
{
    settled->left -= taken;
    if (settled->left > 0)
        return;
    struct shoal_outcome outcome = {.code = settled->gave_up ? -ECANCELED : 0};
    shoal_combine_settle(&settled->base, &outcome);
    shoal_combine_free(&settled->base);
}

static void run_input(struct shoal_task *task)
{
    struct settled *settled = shoal_combine_ctx(task);
    shoal_combine_untake(SHOAL_CONTAINER_OF(task, struct shoal_future, task));
    put(settled, 1);
}

static void cancel_settled(struct shoal_combine *combine)
{
    struct settled *settled = SHOAL_CONTAINER_OF(combine, struct settled, base);
    size_t pending = 0;
    for (size_t i = 0; i < settled->count; i++) {
        struct shoal_future *future = settled->futures[i];
        if (future == NULL || !shoal_future_is_pending(future))
            continue;
        shoal_combine_untake(future);
        pending++;
    }
    settled->gave_up = pending > 0;
    put(settled, pending);
}

struct shoal_future *shoal_when_settled(struct shoal_future *const *futures, size_t count)
{
    size_t bytes = sizeof(struct settled) + count * sizeof(futures[0]);
    struct settled *settled = shoal_combine_new(bytes, cancel_settled);
    if (settled == NULL)
        return shoal_combine_no_memory();
    struct shoal_future *result = settled->base.result;
    settled->count = count;
    settled->left = 1;
    for (size_t i = 0; i < count; i++) {
        settled->futures[i] = futures[i];
        if (futures[i] == NULL || !shoal_future_is_pending(futures[i]))
            continue;
        (void)shoal_future_consume(futures[i], run_input, settled);
        settled->left++;
    }
    put(settled, 1);
    return result;
}
