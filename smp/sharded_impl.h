/*
 * Services inside: what their life (sharded.c), their invocations (sharded_invoke.c) and map-reduce
 * share.
 *
 *   core 0's memory                        each core's memory
 *   shoal_sharded                          shoal_shard | instance
 *     slots[core]  ---------------------->
 *     members[core]: command, shard ----->
 *
 * 1. slots[i] is written and read by core i alone, at its start and its stop: in between the lines
 *    of the table are in every cache. All else that an invocation reads in the handle is never
 *    written after the start.
 * 2. Members are core 0's, but while a start message or a command is under way to their core.
 * 3. Each shard has a fiber from its start on, the keeper, which closes, stops and frees it when
 *    told so: a stop needs no memory.
 */
#ifndef SHOAL_SMP_SHARDED_IMPL_H
#define SHOAL_SMP_SHARDED_IMPL_H

#include "shoal/runtime/core_impl.h"
#include "shoal/runtime/gate.h"
#include "shoal/runtime/mutex.h"
#include "shoal/runtime/owner_impl.h"

#include "shoal/smp/command_impl.h"
#include "shoal/smp/sharded.h"

enum shoal_shard_state { SHOAL_SHARD_STARTING, SHOAL_SHARD_OPEN, SHOAL_SHARD_CLOSED };

/* The head of an instance, on its core. */
struct shoal_shard {
    struct shoal_sharded *sharded;
    size_t bytes; /* with the instance */
    struct shoal_gate gate;
    struct shoal_list running; /* invocations on fibers */
    struct shoal_fiber *keeper;
    struct shoal_command *command; /* what the keeper is to do next; NULL: nothing */
    uint8_t state;
    bool abandoned; /* `start` has failed: the keeper only ends */
} __attribute__((aligned(SHOAL_CACHE_LINE)));

struct shoal_sharded_member {
    struct shoal_command command;
    struct shoal_sharded *sharded;
    struct shoal_shard *shard;   /* NULL: not started */
    struct shoal_future *future; /* of its start */
};

struct shoal_sharded {
    const struct shoal_sharded_ops *ops;
    void *arg;
    struct shoal_service_group *group;
    struct shoal_shard **slots;
    unsigned cores;
    /* Core 0's from here on. */
    struct shoal_sharded_member *members __attribute__((aligned(SHOAL_CACHE_LINE)));
    struct shoal_sharded *next; /* of the handles that there are */
    struct shoal_mutex stopping;
    uint64_t timeout_ns; /* of the stop; read by the others on a command */
    enum shoal_sharded_order order;
    bool running;
};

static inline void *shoal_shard_instance(struct shoal_shard *shard)
{
    return shard + 1;
}

/* Whether an invocation from the calling core makes sense: it does not once its own shard is shut.
 */
static inline bool shoal_sharded_seems_open(const struct shoal_sharded *sharded)
{
    SHOAL_CHECK_ON_CORE("an invocation of a service");
    const struct shoal_shard *shard = sharded->slots[shoal_core_self->id];
    return shard != NULL && shard->state != SHOAL_SHARD_CLOSED;
}

/* SHOAL_ECLOSED, with a text that says which service. */
int shoal_sharded_say_closed(const struct shoal_sharded *sharded);

/*
 * Runs `fn` on this core, inside the service: in a task, or on the running fiber, which the
 * service's stop can cancel. `sharded` may be NULL: then it is called without an instance.
 */
int shoal_sharded_run(struct shoal_sharded *sharded, shoal_sharded_fn *fn, void *arg,
                      union shoal_value *out);
int shoal_sharded_run_inside(struct shoal_sharded *sharded, shoal_sharded_fn *fn, void *arg,
                             union shoal_value *out);

#endif
