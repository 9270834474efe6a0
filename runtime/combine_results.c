/*
 * Results of several futures: memory and ownership. See combine.h and combine_impl.h.
 *
 * Results may hold results. Those that the drop of one brings up go into a list of the core, which
 * the outermost drop empties: no depth of nesting needs stack.
 */
#include <errno.h>
#include <string.h>

#include "shoal/runtime/check.h"
#include "shoal/runtime/combine_impl.h"
#include "shoal/runtime/core_impl.h"
#include "shoal/runtime/owner_impl.h"

/* Adds `count` elements of `bytes` to `*total`; false where that does not fit. */
static bool add_bytes(size_t *total, size_t count, size_t bytes)
{
    size_t more;
    return !__builtin_mul_overflow(count, bytes, &more) &&
           !__builtin_add_overflow(*total, more, total);
}

void *shoal_results_new(const struct shoal_results_shape *shape, void **slots,
                        void (*cancel)(struct shoal_combine *combine))
{
    size_t head = shape->state_bytes;
    if (!add_bytes(&head, shape->values, sizeof(shoal_drop_fn *)) ||
        !add_bytes(&head, shape->indices ? shape->values : 0, sizeof(uint64_t)) ||
        !add_bytes(&head, shape->slots, shape->slot_bytes))
        return NULL;
    size_t bytes = head;
    if (!add_bytes(&bytes, shape->values, sizeof(union shoal_value)))
        return NULL;
    struct shoal_results_box *box = shoal_combine_new_in(bytes, head, cancel);
    if (box == NULL)
        return NULL;
    box->users = 1;
    box->drops = (shoal_drop_fn **)(void *)((char *)box + shape->state_bytes);
    uint64_t *indices = (uint64_t *)(void *)(box->drops + shape->values);
    box->results.indices = shape->indices ? indices : NULL;
    *slots = shape->indices ? indices + shape->values : indices;
    box->results.values = (union shoal_value *)(void *)((char *)box + head);
    return box;
}

void shoal_results_drop_values(struct shoal_results_box *box)
{
    struct shoal_results *results = &box->results;
    for (size_t i = 0; i < results->count; i++) {
        shoal_drop_fn *drop = box->drops[i];
        box->drops[i] = NULL;
        if (drop != NULL)
            drop(&results->values[i]);
    }
}

void shoal_results_put(struct shoal_results_box *box)
{
    if (--box->users == 0)
        shoal_combine_free(&box->base);
}

static struct shoal_results_box *box_of(struct shoal_results *results, const char *op)
{
    struct shoal_results_box *box = SHOAL_CONTAINER_OF(results, struct shoal_results_box, results);
    SHOAL_CHECK_OWNER(box->base.core, op, "results %p", (void *)results);
    return box;
}

void shoal_results_free(struct shoal_results *results)
{
    if (results != NULL)
        shoal_results_put(box_of(results, "free"));
}

void shoal_results_drop(struct shoal_results *results)
{
    if (results == NULL)
        return;
    struct shoal_combine *base = &box_of(results, "drop")->base;
    struct shoal_combine_pool *pool = &shoal_core_self->combines;
    base->link = pool->drop_head;
    pool->drop_head = base;
    if (pool->dropping)
        return;
    pool->dropping = true;
    while ((base = pool->drop_head) != NULL) {
        struct shoal_results_box *box = SHOAL_CONTAINER_OF(base, struct shoal_results_box, base);
        pool->drop_head = base->link;
        shoal_results_drop_values(box);
        shoal_results_put(box);
    }
    pool->dropping = false;
}

static void drop_results(union shoal_value *value)
{
    shoal_results_drop(value->ptr);
}

void shoal_results_settle(struct shoal_results_box *box)
{
    if (box->base.code < 0) {
        shoal_results_drop_values(box);
        shoal_combine_settle_failed(&box->base);
        return;
    }
    struct shoal_outcome outcome = {.drop = drop_results, .value.slice = {&box->results, 0, 0}};
    box->users++;
    shoal_combine_settle(&box->base, &outcome);
}
