/*
 * A value with a copy on each core: see replicated.h.
 *
 * It is a service whose instance holds the copy of its core. A set runs on core 0, one at a time:
 * messages make the new copies, which may fail, and then commands (command_impl.h), which may not,
 * put them in place or free them.
 */
#include "shoal/smp/replicated.h"

#include <errno.h>
#include <string.h>

#include "shoal/runtime/check.h"
#include "shoal/runtime/core_impl.h"
#include "shoal/runtime/mutex.h"

#include "shoal/smp/sharded_impl.h"

#define HOME 0u

struct copy {
    size_t bytes;
    uint64_t unused; /* what follows is aligned to 16 */
};

struct replica {
    struct shoal_command command; /* sent by core 0 */
    struct copy *now;
    struct copy *next; /* made by a set that has not ended yet */
    uint64_t version;
    struct shoal_mutex setting; /* core 0's orders the sets */
};

/* What a set gives to the cores. */
struct change {
    struct shoal_sharded *sharded;
    const void *data;
    size_t bytes;
};

static struct shoal_sharded *service_of(const struct shoal_replicated *replicated)
{
    return (struct shoal_sharded *)(uintptr_t)replicated;
}

/* ---- Copies ---- */

static struct copy *copy_new(const void *data, size_t bytes)
{
    struct copy *copy = shoal_mem_alloc(sizeof(*copy) + bytes);
    if (copy == NULL)
        return NULL;
    copy->bytes = bytes;
    if (bytes > 0)
        memcpy(copy + 1, data, bytes);
    return copy;
}

static void copy_free(struct copy *copy)
{
    if (copy != NULL)
        shoal_mem_free(copy, sizeof(*copy) + copy->bytes);
}

/* ---- The service ---- */

static int start_replica(void *instance, void *arg)
{
    struct replica *replica = instance;
    const struct change *initial = arg;
    replica->now = copy_new(initial->data, initial->bytes);
    if (replica->now == NULL)
        return -ENOMEM;
    shoal_mutex_init(&replica->setting);
    return 0;
}

static void stop_replica(void *instance)
{
    struct replica *replica = instance;
    SHOAL_CHECK(replica->next == NULL, "a replicated value ends within a set");
    copy_free(replica->now);
    replica->now = NULL;
    shoal_mutex_deinit(&replica->setting);
}

static const struct shoal_sharded_ops replicated_ops = {
    .name = "replicated value",
    .instance_bytes = sizeof(struct replica),
    .start = start_replica,
    .stop = stop_replica,
};

static int check_bytes(size_t bytes)
{
    if (bytes <= SHOAL_REPLICATED_BYTES_MAX)
        return 0;
    return shoal_fiber_explain(-EINVAL, "a replicated value of %zu bytes (allowed: up to %zu)",
                               bytes, SHOAL_REPLICATED_BYTES_MAX);
}

int shoal_replicated_new(struct shoal_replicated **out, const void *data, size_t bytes)
{
    struct change initial = {.data = data, .bytes = bytes};
    struct shoal_sharded *sharded = NULL;
    *out = NULL;
    int rc = check_bytes(bytes);
    if (rc == 0)
        rc = shoal_sharded_start(
            &sharded, &(struct shoal_sharded_options){.ops = &replicated_ops, .arg = &initial});
    *out = (struct shoal_replicated *)sharded;
    return rc;
}

void shoal_replicated_free(struct shoal_replicated *replicated)
{
    if (replicated != NULL)
        shoal_sharded_free(service_of(replicated));
}

/* ---- Reading ---- */

const void *shoal_replicated_get(const struct shoal_replicated *replicated, size_t *bytes)
{
    const struct replica *replica = shoal_sharded_local(service_of(replicated));
    const struct copy *copy = replica != NULL ? replica->now : NULL;
    if (bytes != NULL)
        *bytes = copy != NULL ? copy->bytes : 0;
    return copy != NULL ? copy + 1 : NULL;
}

uint64_t shoal_replicated_version(const struct shoal_replicated *replicated)
{
    const struct replica *replica = shoal_sharded_local(service_of(replicated));
    return replica != NULL ? replica->version : 0;
}

/* ---- Setting ---- */

static int prepare(void *instance, void *arg, union shoal_value *out)
{
    struct replica *replica = instance;
    const struct change *change = arg;
    (void)out;
    replica->next = copy_new(change->data, change->bytes);
    return replica->next != NULL ? 0 : -ENOMEM;
}

static void commit(struct shoal_command *command)
{
    struct replica *replica = SHOAL_CONTAINER_OF(command, struct replica, command);
    copy_free(replica->now);
    replica->now = replica->next;
    replica->next = NULL;
    replica->version++;
    shoal_command_done(command);
}

static void discard(struct shoal_command *command)
{
    struct replica *replica = SHOAL_CONTAINER_OF(command, struct replica, command);
    copy_free(replica->next);
    replica->next = NULL;
    shoal_command_done(command);
}

/* On all cores. The service is entered on core 0, so that no instance can go. */
static void conclude(struct shoal_sharded *sharded, shoal_command_fn *run)
{
    struct shoal_command_round round;
    shoal_command_begin(&round);
    for (unsigned i = 0; i < sharded->cores; i++) {
        struct replica *replica = shoal_shard_instance(sharded->members[i].shard);
        shoal_command_send(&round, &replica->command, i, run);
    }
    shoal_command_wait(&round);
}

/* On core 0, inside the service. */
static int set_here(void *instance, void *arg, union shoal_value *out)
{
    struct replica *home = instance;
    struct change *change = arg;
    (void)out;
    int rc = shoal_mutex_lock(&home->setting, SHOAL_NS_FOREVER);
    if (rc < 0)
        return rc;
    rc = shoal_sharded_invoke_all(change->sharded,
                                  &(struct shoal_sharded_call){.fn = prepare, .arg = change});
    conclude(change->sharded, rc == 0 ? commit : discard);
    shoal_mutex_unlock(&home->setting);
    return rc;
}

int shoal_replicated_set(struct shoal_replicated *replicated, const void *data, size_t bytes)
{
    struct shoal_sharded *sharded = service_of(replicated);
    struct change change = {.sharded = sharded, .data = data, .bytes = bytes};
    int rc = check_bytes(bytes);
    return rc < 0 ? rc
                  : shoal_await(shoal_sharded_invoke_fiber(sharded, HOME, set_here, &change), NULL);
}
