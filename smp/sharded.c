/*
 * Services: their life. See sharded.h for the contract and sharded_impl.h for the layout.
 *
 * The start goes by messages, since it may fail and be cancelled; the stop goes by commands
 * (command_impl.h), since it may not.
 *
 *   core 0                                    core i
 *   start: message ------------------------>  shard, keeper, `start`; the slot is set
 *   stop:  CLOSE ---------------------------> no more invocations; waits for those inside
 *          STOP ----------------------------> `stop`
 *          FREE ----------------------------> the slot is emptied, the shard is gone
 */
#include <errno.h>
#include <string.h>

#include "shoal/runtime/check.h"
#include "shoal/runtime/errors.h"
#include "shoal/runtime/future_impl.h"

#include "shoal/smp/all_cores_impl.h"
#include "shoal/smp/app.h"
#include "shoal/smp/sharded_impl.h"
#include "shoal/smp/submit.h"

#define INSTANCE_BYTES_MAX ((size_t)1 << 30)

SHOAL_STATIC_ASSERT(sizeof(struct shoal_shard) % SHOAL_CACHE_LINE == 0, "an instance is aligned");
SHOAL_STATIC_ASSERT(sizeof(struct shoal_command) == SHOAL_CACHE_LINE, "a command is one line");

/* ---- The handle: core 0 ---- */

static size_t align_up(size_t bytes)
{
    return (bytes + SHOAL_CACHE_LINE - 1) & ~(size_t)(SHOAL_CACHE_LINE - 1);
}

static size_t handle_bytes(unsigned cores)
{
    return sizeof(struct shoal_sharded) + cores * sizeof(struct shoal_sharded_member) +
           align_up(cores * sizeof(struct shoal_shard *));
}

static void handle_free(struct shoal_sharded *sharded)
{
    shoal_mem_free_aligned(sharded, handle_bytes(sharded->cores), SHOAL_CACHE_LINE);
}

/* The handles that nobody has freed. */
static void free_handles(struct shoal_core *core)
{
    struct shoal_sharded *sharded = core->layers[SHOAL_LAYER_SHARDED];
    core->layers[SHOAL_LAYER_SHARDED] = NULL;
    while (sharded != NULL) {
        struct shoal_sharded *next = sharded->next;
        handle_free(sharded);
        sharded = next;
    }
}

static void handle_link(struct shoal_core *core, struct shoal_sharded *sharded)
{
    sharded->next = core->layers[SHOAL_LAYER_SHARDED];
    core->layers[SHOAL_LAYER_SHARDED] = sharded;
    core->layer_end[SHOAL_LAYER_SHARDED] = free_handles;
}

static void handle_unlink(struct shoal_core *core, struct shoal_sharded *sharded)
{
    struct shoal_sharded *first = core->layers[SHOAL_LAYER_SHARDED];
    struct shoal_sharded **at = &first;
    while (*at != sharded)
        at = &(*at)->next;
    *at = sharded->next;
    core->layers[SHOAL_LAYER_SHARDED] = first;
}

static struct shoal_sharded *handle_new(const struct shoal_sharded_options *options)
{
    unsigned cores = shoal_core_count();
    struct shoal_sharded *sharded = shoal_mem_alloc_aligned(handle_bytes(cores), SHOAL_CACHE_LINE);
    if (sharded == NULL)
        return NULL;
    memset(sharded, 0, handle_bytes(cores));
    sharded->ops = options->ops;
    sharded->arg = options->arg;
    sharded->group = options->group;
    sharded->order = options->order;
    sharded->cores = cores;
    sharded->members = (struct shoal_sharded_member *)(sharded + 1);
    sharded->slots = (struct shoal_shard **)(void *)(sharded->members + cores);
    for (unsigned i = 0; i < cores; i++)
        sharded->members[i].sharded = sharded;
    shoal_mutex_init(&sharded->stopping);
    return sharded;
}

/* ---- One shard, on its core ---- */

static void shard_free(struct shoal_shard *shard)
{
    shard->sharded->slots[shoal_core_self->id] = NULL;
    shoal_gate_deinit(&shard->gate);
    shoal_mem_free_aligned(shard, shard->bytes, SHOAL_CACHE_LINE);
}

static struct shoal_command *next_command(struct shoal_shard *shard)
{
    struct shoal_core *core = shoal_core_self;
    shoal_fiber_wait_begin(core->fiber, "stop of its service", NULL, NULL);
    while (shard->command == NULL && !shard->abandoned)
        shoal_fiber_park(core, core->fiber);
    shoal_fiber_wait_end(core->fiber);
    struct shoal_command *command = shard->command;
    shard->command = NULL;
    return command;
}

struct running {
    struct shoal_list node;
    struct shoal_fiber *fiber;
};

static void close_shard(struct shoal_shard *shard)
{
    shard->state = SHOAL_SHARD_CLOSED;
    if (shoal_gate_close(&shard->gate, shard->sharded->timeout_ns) == 0)
        return;
    SHOAL_LIST_FOREACH_SAFE (node, &shard->running)
        shoal_fiber_cancel(SHOAL_CONTAINER_OF(node, struct running, node)->fiber);
    (void)shoal_gate_close(&shard->gate, SHOAL_NS_FOREVER);
}

/* What the keeper does once it is told to, by the first of three commands. */
static void end_shard(struct shoal_shard *shard, struct shoal_command *command)
{
    close_shard(shard);
    shoal_command_done(command);
    command = next_command(shard);
    if (shard->sharded->ops->stop != NULL)
        shard->sharded->ops->stop(shoal_shard_instance(shard));
    shoal_command_done(command);
    command = next_command(shard);
    shard_free(shard);
    shoal_command_done(command);
}

/* The keeper: on a fiber of its own, which nothing cancels. */
static int keep_shard(void *arg)
{
    struct shoal_shard *shard = arg;
    shoal_fiber_shield();
    struct shoal_command *command = next_command(shard);
    if (command != NULL)
        end_shard(shard, command);
    shoal_fiber_unshield();
    return 0;
}

static void tell_keeper(struct shoal_command *command)
{
    struct shoal_shard *shard =
        SHOAL_CONTAINER_OF(command, struct shoal_sharded_member, command)->shard;
    shard->command = command;
    shoal_fiber_make_ready(shoal_core_self, shard->keeper);
}

static struct shoal_shard *shard_new(struct shoal_sharded *sharded)
{
    size_t bytes = sizeof(struct shoal_shard) + align_up(sharded->ops->instance_bytes);
    struct shoal_shard *shard = shoal_mem_alloc_aligned(bytes, SHOAL_CACHE_LINE);
    if (shard == NULL)
        return NULL;
    memset(shard, 0, bytes);
    shard->sharded = sharded;
    shard->bytes = bytes;
    shoal_gate_init(&shard->gate);
    shoal_list_init(&shard->running);
    if (shoal_fiber_spawn(&shard->keeper, keep_shard, shard, sharded->ops->name) < 0) {
        shoal_gate_deinit(&shard->gate);
        shoal_mem_free_aligned(shard, bytes, SHOAL_CACHE_LINE);
        return NULL;
    }
    return shard;
}

/* After `start` has failed. */
static void shard_abandon(struct shoal_shard *shard)
{
    shard->abandoned = true;
    shoal_fiber_make_ready(shoal_core_self, shard->keeper);
    (void)shoal_fiber_join(shard->keeper);
    shard_free(shard);
}

/* The message that starts a shard. */
static int start_shard(void *arg, union shoal_value *out)
{
    struct shoal_sharded_member *member = arg;
    struct shoal_sharded *sharded = member->sharded;
    struct shoal_core *core = shoal_core_self;
    (void)out;
    struct shoal_shard *shard = shard_new(sharded);
    if (shard == NULL)
        return -ENOMEM;
    sharded->slots[core->id] = shard;
    int rc = sharded->ops->start != NULL
                 ? sharded->ops->start(shoal_shard_instance(shard), sharded->arg)
                 : 0;
    if (rc < 0) {
        shard_abandon(shard);
        return rc;
    }
    shoal_fiber_detach(shard->keeper);
    shard->state = SHOAL_SHARD_OPEN;
    member->shard = shard;
    return 0;
}

/* ---- Stopping ---- */

static void round_begin(struct shoal_sharded *sharded, struct shoal_command_round *round,
                        unsigned core)
{
    struct shoal_sharded_member *member = &sharded->members[core];
    if (member->shard != NULL)
        shoal_command_send(round, &member->command, core, tell_keeper);
}

/* One step on all cores, at once. */
static void step_together(struct shoal_sharded *sharded)
{
    struct shoal_command_round round;
    shoal_command_begin(&round);
    for (unsigned i = sharded->cores; i-- > 0;)
        round_begin(sharded, &round, i);
    shoal_command_wait(&round);
}

/* One step on one core after the other, the last core first. */
static void step_in_order(struct shoal_sharded *sharded)
{
    for (unsigned i = sharded->cores; i-- > 0;) {
        struct shoal_command_round round;
        shoal_command_begin(&round);
        round_begin(sharded, &round, i);
        shoal_command_wait(&round);
    }
}

/* Stops what has started. On a fiber that is shielded. */
static void stop_started(struct shoal_sharded *sharded, uint64_t timeout_ns)
{
    sharded->timeout_ns = timeout_ns;
    step_together(sharded);
    if (sharded->order == SHOAL_SHARDED_IN_ORDER)
        step_in_order(sharded);
    else
        step_together(sharded);
    step_together(sharded);
    for (unsigned i = 0; i < sharded->cores; i++)
        sharded->members[i].shard = NULL;
}

static void stop_with_program(void *arg)
{
    shoal_sharded_stop(arg, shoal_config_shutdown_timeout_ns());
}

static void check_not_inside(const struct shoal_sharded *sharded)
{
    const struct shoal_core *core = shoal_core_self;
    struct shoal_shard *shard = sharded->slots[core->id];
    if (shard == NULL)
        return;
    SHOAL_CHECK(core->fiber != shard->keeper, "service \"%s\" is stopped from its own stop",
                sharded->ops->name);
    SHOAL_LIST_FOREACH (node, &shard->running)
        SHOAL_CHECK(SHOAL_CONTAINER_OF(node, struct running, node)->fiber != core->fiber,
                    "service \"%s\" is stopped from inside an invocation", sharded->ops->name);
}

static void check_home(const char *what)
{
    const struct shoal_core *core = shoal_core_self;
    SHOAL_CHECK(core != NULL && core->id == 0 && core->fiber != NULL,
                "a service is %s on a fiber of core 0, not here (core %d)", what,
                shoal_context_core);
}

void shoal_sharded_stop(struct shoal_sharded *sharded, uint64_t timeout_ns)
{
    if (sharded == NULL)
        return;
    check_home("stopped");
    check_not_inside(sharded);
    shoal_fiber_shield();
    (void)shoal_mutex_lock(&sharded->stopping, SHOAL_NS_FOREVER);
    if (sharded->running) {
        (void)shoal_at_stop_cancel(stop_with_program, sharded);
        stop_started(sharded, timeout_ns);
        sharded->running = false;
    }
    shoal_mutex_unlock(&sharded->stopping);
    shoal_fiber_unshield();
}

void shoal_sharded_free(struct shoal_sharded *sharded)
{
    if (sharded == NULL)
        return;
    shoal_sharded_stop(sharded, SHOAL_NS_FOREVER);
    shoal_mutex_deinit(&sharded->stopping);
    handle_unlink(shoal_core_self, sharded);
    handle_free(sharded);
}

/* ---- Starting ---- */

static struct shoal_future *send_start(struct shoal_sharded *sharded, unsigned core)
{
    return shoal_submit_fiber_to(core, start_shard, &sharded->members[core]);
}

static void start_together(struct shoal_sharded *sharded, struct shoal_first_failure *first)
{
    for (unsigned i = 0; i < sharded->cores; i++)
        sharded->members[i].future = send_start(sharded, i);
    for (unsigned i = 0; i < sharded->cores; i++) {
        (void)shoal_first_await(first, i, sharded->members[i].future, NULL);
        for (unsigned j = i + 1; j < sharded->cores && shoal_fiber_cancelled(); j++)
            shoal_future_cancel(sharded->members[j].future);
    }
}

static void start_in_order(struct shoal_sharded *sharded, struct shoal_first_failure *first)
{
    for (unsigned i = 0; i < sharded->cores && first->code == 0; i++)
        (void)shoal_first_await(first, i, send_start(sharded, i), NULL);
}

/* Has it stopped with the program. Nothing would, once all has been stopped. */
static int hook_stop(struct shoal_sharded *sharded)
{
    if (shoal_core_self->stopping)
        return shoal_fiber_explain(SHOAL_ESTOPPING, "service \"%s\" has started too late",
                                   sharded->ops->name);
    return shoal_at_stop(stop_with_program, sharded);
}

static int start_all(struct shoal_sharded *sharded)
{
    struct shoal_first_failure first = {.code = 0};
    if (sharded->order == SHOAL_SHARDED_IN_ORDER)
        start_in_order(sharded, &first);
    else
        start_together(sharded, &first);
    int rc = shoal_first_report(&first, sharded->ops->name);
    if (rc == 0)
        rc = hook_stop(sharded);
    if (rc < 0) {
        char *text = shoal_core_self->fiber->message; /* the stop may write another one */
        shoal_core_self->fiber->message = NULL;
        shoal_fiber_shield();
        stop_started(sharded, SHOAL_NS_FOREVER);
        shoal_fiber_unshield();
        shoal_fiber_set_message(shoal_core_self->fiber, text);
    }
    return rc;
}

static int check_options(const struct shoal_sharded_options *options)
{
    const struct shoal_sharded_ops *ops = options->ops;
    if (ops == NULL || ops->name == NULL)
        return shoal_fiber_explain(-EINVAL, "a service needs ops with a name");
    if (ops->instance_bytes >= INSTANCE_BYTES_MAX)
        return shoal_fiber_explain(
            -EINVAL, "service \"%s\": instances of %zu bytes (allowed: less than %zu)", ops->name,
            ops->instance_bytes, INSTANCE_BYTES_MAX);
    return 0;
}

int shoal_sharded_start(struct shoal_sharded **out, const struct shoal_sharded_options *options)
{
    check_home("started");
    *out = NULL;
    int rc = check_options(options);
    if (rc < 0)
        return rc;
    rc = shoal_fiber_cancel_code(shoal_core_self->fiber);
    if (rc < 0)
        return rc;
    struct shoal_sharded *sharded = handle_new(options);
    if (sharded == NULL)
        return -ENOMEM;
    rc = start_all(sharded);
    if (rc < 0) {
        shoal_mutex_deinit(&sharded->stopping);
        handle_free(sharded);
        return rc;
    }
    sharded->running = true;
    handle_link(shoal_core_self, sharded);
    *out = sharded;
    return 0;
}

/* ---- On each core ---- */

void *shoal_sharded_local(const struct shoal_sharded *sharded)
{
    SHOAL_CHECK_ON_CORE("sharded_local");
    struct shoal_shard *shard = sharded->slots[shoal_core_self->id];
    return shard != NULL ? shoal_shard_instance(shard) : NULL;
}

void *shoal_sharded_enter(struct shoal_sharded *sharded)
{
    SHOAL_CHECK_ON_CORE("sharded_enter");
    struct shoal_shard *shard = sharded->slots[shoal_core_self->id];
    if (shard == NULL || shard->state != SHOAL_SHARD_OPEN || shoal_gate_enter(&shard->gate) < 0)
        return NULL;
    return shoal_shard_instance(shard);
}

void shoal_sharded_leave(struct shoal_sharded *sharded)
{
    struct shoal_shard *shard = sharded->slots[shoal_core_self->id];
    SHOAL_CHECK(shard != NULL, "service \"%s\" is left by who has not entered it",
                sharded->ops->name);
    shoal_gate_leave(&shard->gate);
}

struct shoal_sharded *shoal_sharded_of(void *instance)
{
    struct shoal_shard *shard = (struct shoal_shard *)instance - 1;
    SHOAL_DCHECK(shard->sharded->slots[shoal_core_self->id] == shard,
                 "%p is no instance of core %u", instance, shoal_core_self->id);
    return shard->sharded;
}

const char *shoal_sharded_name(const struct shoal_sharded *sharded)
{
    return sharded->ops->name;
}

int shoal_sharded_say_closed(const struct shoal_sharded *sharded)
{
    return shoal_fiber_explain(SHOAL_ECLOSED, "service \"%s\" does not run on core %u",
                               sharded->ops->name, shoal_core_self->id);
}

int shoal_sharded_run(struct shoal_sharded *sharded, shoal_sharded_fn *fn, void *arg,
                      union shoal_value *out)
{
    if (sharded == NULL)
        return fn(NULL, arg, out);
    struct shoal_shard *shard = sharded->slots[shoal_core_self->id];
    if (SHOAL_UNLIKELY(shard == NULL || shard->state != SHOAL_SHARD_OPEN))
        return shoal_sharded_say_closed(sharded);
    return fn(shoal_shard_instance(shard), arg, out);
}

int shoal_sharded_run_inside(struct shoal_sharded *sharded, shoal_sharded_fn *fn, void *arg,
                             union shoal_value *out)
{
    if (sharded == NULL)
        return fn(NULL, arg, out);
    void *instance = shoal_sharded_enter(sharded);
    if (instance == NULL)
        return shoal_sharded_say_closed(sharded);
    struct shoal_shard *shard = (struct shoal_shard *)instance - 1;
    struct running running = {.fiber = shoal_core_self->fiber};
    shoal_list_push_back(&shard->running, &running.node);
    int rc = fn(instance, arg, out);
    shoal_list_remove(&running.node);
    shoal_gate_leave(&shard->gate);
    return rc;
}
