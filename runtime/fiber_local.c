/*
 * Fiber-local data: a short list on the fiber, searched from its start. Fibers have none or a few,
 * so that a table would only cost them memory.
 */
#include <errno.h>

#include "shoal/runtime/check.h"
#include "shoal/runtime/core_impl.h"
#include "shoal/runtime/owner_impl.h"

struct shoal_fiber_local {
    struct shoal_fiber_local *next;
    const struct shoal_fiber_key *key;
    void *value;
};

void shoal_fiber_locals_init(struct shoal_core *core)
{
    shoal_slab_init(&core->fibers.locals, "fiber-local value", sizeof(struct shoal_fiber_local),
                    16);
}

/* On the fiber, which may set others meanwhile. */
void shoal_fiber_locals_free(struct shoal_core *core, struct shoal_fiber *fiber)
{
    while (fiber->locals != NULL) {
        struct shoal_fiber_local *local = fiber->locals;
        fiber->locals = local->next;
        const struct shoal_fiber_key *key = local->key;
        void *value = local->value;
        shoal_slab_give(&core->fibers.locals, local);
        if (key->destroy != NULL)
            key->destroy(value);
    }
}

/* Where the pointer to the entry of `key` is; that pointer is NULL when there is none. */
static struct shoal_fiber_local **find(struct shoal_fiber *fiber, const struct shoal_fiber_key *key)
{
    struct shoal_fiber_local **at = &fiber->locals;
    while (*at != NULL && (*at)->key != key)
        at = &(*at)->next;
    return at;
}

static struct shoal_fiber *self(void)
{
    SHOAL_CHECK_ON_CORE("use of fiber-local data");
    struct shoal_fiber *fiber = shoal_core_self->fiber;
    SHOAL_CHECK(fiber != NULL, "fiber-local data outside a fiber");
    return fiber;
}

int shoal_fiber_local_set(const struct shoal_fiber_key *key, void *value)
{
    struct shoal_core *core = shoal_core_self;
    struct shoal_fiber_local **at = find(self(), key);
    struct shoal_fiber_local *local = *at;
    if (value == NULL) {
        if (local != NULL) {
            *at = local->next;
            shoal_slab_give(&core->fibers.locals, local);
        }
        return 0;
    }
    if (local == NULL) {
        local = shoal_slab_take(&core->fibers.locals);
        if (local == NULL)
            return -ENOMEM;
        local->next = NULL;
        local->key = key;
        *at = local;
    }
    local->value = value;
    return 0;
}

void *shoal_fiber_local_get(const struct shoal_fiber_key *key)
{
    const struct shoal_fiber_local *local = *find(self(), key);
    return local != NULL ? local->value : NULL;
}
