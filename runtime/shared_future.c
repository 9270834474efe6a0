/*
 * Shared futures: see shared_future.h.
 *
 * 1. Each private future that is pending has a waiter in `waiters`, in the order of the calls. A
 *    discarded one keeps its waiter until the source has ended.
 * 2. The object lives as long as there is a reference or the source is pending; `refs` counts one
 *    more while outcomes are handed out, since hooks of the program run then.
 */
#include "shoal/runtime/shared_future.h"

#include <errno.h>
#include <string.h>

#include "shoal/runtime/check.h"
#include "shoal/runtime/combine_impl.h"
#include "shoal/runtime/core_impl.h"
#include "shoal/runtime/list.h"
#include "shoal/runtime/owner_impl.h"

struct shoal_shared_future {
    struct shoal_list waiters;
    struct shoal_future *source; /* NULL once it has ended */
    struct shoal_outcome outcome;
    struct shoal_shared_hooks hooks;
    uint32_t refs;
    uint16_t core;
    bool cancel_asked; /* a private future was cancelled */
    bool immortal;     /* the one of out of memory, which is never written to */
};

struct waiter {
    struct shoal_list node;
    struct shoal_shared_future *shared;
    struct shoal_future *future;
};

static const struct shoal_shared_future no_memory = {.immortal = true};

static void check_mine(const struct shoal_shared_future *shared, const char *what)
{
    if (!shared->immortal)
        SHOAL_CHECK_OWNER(shared->core, what, "shared future %p", (const void *)shared);
}

static void unref(struct shoal_shared_future *shared)
{
    SHOAL_CHECK(shared->refs > 0, "a shared future has no reference left to give back");
    if (--shared->refs > 0 || shared->source != NULL)
        return;
    shoal_outcome_drop(&shared->outcome);
    shoal_combine_release(shared, sizeof(*shared));
}

/* Settles a private future by the outcome. */
static void deliver(struct shoal_shared_future *shared, struct shoal_future *future)
{
    const struct shoal_outcome *outcome = &shared->outcome;
    if (outcome->code < 0) {
        shoal_future_fail(future, outcome->code, outcome->text);
        return;
    }
    if (shoal_combine_discarded(future)) { /* not worth a copy */
        shoal_future_fail(future, -ECANCELED, NULL);
        return;
    }
    if (shared->hooks.copy == NULL) {
        shoal_future_resolve(future, &outcome->value);
        return;
    }
    union shoal_value copy = {.slice = {NULL, 0, 0}};
    int code = shared->hooks.copy(&outcome->value, &copy);
    if (code < 0) {
        shoal_future_fail(future, code, NULL);
        return;
    }
    if (shared->hooks.drop != NULL)
        shoal_future_on_drop(future, shared->hooks.drop);
    shoal_future_resolve(future, &copy);
}

static void run_source(struct shoal_task *task)
{
    struct shoal_outcome outcome;
    struct shoal_shared_future *shared = shoal_combine_outcome(task, &outcome);
    shared->outcome = outcome;
    shared->source = NULL;
    shared->refs++;
    struct shoal_list *node;
    while ((node = shoal_list_take_front(&shared->waiters)) != NULL) {
        struct waiter *waiter = SHOAL_CONTAINER_OF(node, struct waiter, node);
        struct shoal_future *future = waiter->future;
        shoal_combine_release(waiter, sizeof(*waiter));
        deliver(shared, future);
    }
    unref(shared);
}

struct shoal_shared_future *shoal_shared_future_new(struct shoal_future *future,
                                                    const struct shoal_shared_hooks *hooks)
{
    struct shoal_shared_future *shared = shoal_combine_alloc(sizeof(*shared));
    if (shared == NULL) {
        shoal_combine_discard(&future, 1);
        return (struct shoal_shared_future *)(uintptr_t)&no_memory;
    }
    memset(shared, 0, sizeof(*shared));
    shoal_list_init(&shared->waiters);
    if (hooks != NULL)
        shared->hooks = *hooks;
    shared->refs = 1;
    shared->core = (uint16_t)shoal_core_self->id;
    if (!shoal_combine_take(future, run_source, shared, &shared->outcome))
        shared->source = future;
    return shared;
}

/* ---- Consumers ---- */

/* Whether somebody can still want the outcome: a reference is left, or that many wait. */
static bool wanted(const struct shoal_shared_future *shared, unsigned waiting)
{
    if (shared->refs > 0)
        return true;
    SHOAL_LIST_FOREACH (node, &shared->waiters) {
        const struct waiter *waiter = SHOAL_CONTAINER_OF(node, struct waiter, node);
        if (!shoal_combine_discarded(waiter->future) && --waiting == 0)
            return true;
    }
    return false;
}

static void cancel_private(void *ctx)
{
    struct waiter *waiter = ctx;
    struct shoal_shared_future *shared = waiter->shared;
    shared->cancel_asked = true;
    if (!wanted(shared, 2)) {
        shoal_future_cancel(shared->source);
        return;
    }
    struct shoal_future *future = waiter->future;
    shoal_list_remove(&waiter->node);
    shoal_combine_release(waiter, sizeof(*waiter));
    shoal_future_fail(future, -ECANCELED, NULL);
}

struct shoal_future *shoal_shared_future_get(struct shoal_shared_future *shared)
{
    check_mine(shared, "get");
    struct shoal_future *future = shoal_future_new();
    if (shared->immortal || shoal_future_is_immortal(future)) {
        if (!shoal_future_is_immortal(future))
            shoal_future_fail(future, -ENOMEM, NULL);
        return future;
    }
    if (shared->source == NULL) {
        deliver(shared, future);
        return future;
    }
    struct waiter *waiter = shoal_combine_alloc(sizeof(*waiter));
    if (waiter == NULL) {
        shoal_future_fail(future, -ENOMEM, NULL);
        return future;
    }
    waiter->shared = shared;
    waiter->future = future;
    shoal_list_push_back(&shared->waiters, &waiter->node);
    shoal_future_on_cancel(future, cancel_private, waiter);
    return future;
}

bool shoal_shared_future_is_pending(const struct shoal_shared_future *shared)
{
    check_mine(shared, "is_pending");
    return shared->source != NULL;
}

void shoal_shared_future_cancel(struct shoal_shared_future *shared)
{
    check_mine(shared, "cancel");
    if (shared->source != NULL)
        shoal_future_cancel(shared->source);
}

struct shoal_shared_future *shoal_shared_future_ref(struct shoal_shared_future *shared)
{
    check_mine(shared, "ref");
    if (!shared->immortal)
        shared->refs++;
    return shared;
}

void shoal_shared_future_unref(struct shoal_shared_future *shared)
{
    if (shared == NULL || shared->immortal)
        return;
    check_mine(shared, "unref");
    struct shoal_future *source = shared->source;
    unref(shared);
    if (source != NULL && shared->cancel_asked && !wanted(shared, 1))
        shoal_future_cancel(source);
}
