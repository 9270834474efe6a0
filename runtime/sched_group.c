/*
 * Scheduling groups: see sched_group.h and sched_group_impl.h.
 *
 * With one group, which is the usual case, picking it costs a test: no virtual time is compared.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "shoal/runtime/check.h"
#include "shoal/runtime/core_impl.h"
#include "shoal/runtime/owner_impl.h"
#include "shoal/runtime/sched_group_impl.h"

#define WEIGHT_SHIFT 10

static uint32_t weight_of(unsigned shares)
{
    return (SHOAL_SCHED_SHARES_MAX << WEIGHT_SHIFT) / shares;
}

static void check_mine(const struct shoal_sched_group *group, const char *what)
{
    SHOAL_CHECK_OWNER(group->core, what, "scheduling group \"%s\"", group->name);
    SHOAL_DCHECK(group->used, "%s of a scheduling group that was freed", what);
}

static void group_init(struct shoal_core *core, struct shoal_sched_group *group, unsigned id,
                       const char *name, unsigned shares)
{
    memset(group, 0, sizeof(*group));
    shoal_task_queue_init(&group->ready);
    group->weight = weight_of(shares);
    group->shares = (uint16_t)shares;
    group->core = (uint16_t)core->id;
    group->id = (uint8_t)id;
    group->used = true;
    snprintf(group->name, sizeof(group->name), "%s", name);
}

void shoal_sched_init(struct shoal_core *core)
{
    group_init(core, &core->groups[0], 0, "main", SHOAL_SCHED_SHARES_DEFAULT);
    shoal_sched_set_current(core, &core->groups[0]);
    core->ready_groups = 0;
}

/* ---- Inside the loop ---- */

bool shoal_sched_others_wait(const struct shoal_core *core)
{
    return (core->ready_groups & ~(1u << core->current->id)) != 0;
}

/* Where a group begins that had nothing ready: not behind those that went on running. */
static void catch_up(const struct shoal_core *core, struct shoal_sched_group *group)
{
    if (group->virtual_time < core->virtual_time)
        group->virtual_time = core->virtual_time;
}

void shoal_sched_wake(struct shoal_core *core, struct shoal_sched_group *group,
                      struct shoal_task *task)
{
    if (SHOAL_UNLIKELY(!group->used)) {
        shoal_core_post_to(core, &core->groups[0], task);
        return;
    }
    if (group->ready.head == NULL) {
        catch_up(core, group);
        group->ready_since_cycles = shoal_cycles();
    }
    shoal_task_queue_push(&group->ready, task);
    core->ready_groups |= 1u << group->id;
}

void shoal_sched_note_main(struct shoal_core *core)
{
    struct shoal_sched_group *main = &core->groups[0];
    if (core->current == main || main->ready.head == NULL || (core->ready_groups & 1u) != 0)
        return;
    catch_up(core, main);
    main->ready_since_cycles = shoal_cycles();
    core->ready_groups |= 1u;
}

static struct shoal_sched_group *least_served(struct shoal_core *core, uint32_t ready)
{
    struct shoal_sched_group *best = &core->groups[__builtin_ctz(ready)];
    for (ready &= ready - 1; ready != 0; ready &= ready - 1) {
        struct shoal_sched_group *group = &core->groups[__builtin_ctz(ready)];
        if (group->virtual_time < best->virtual_time)
            best = group;
    }
    return best;
}

struct shoal_sched_group *shoal_sched_pick(struct shoal_core *core, uint64_t now_cycles)
{
    struct shoal_sched_group *main = &core->groups[0];
    SHOAL_DCHECK(core->current == main, "a slice begins inside another");
    uint32_t ready = core->ready_groups & ~1u;
    if (main->ready.head != NULL) {
        if ((core->ready_groups & 1u) == 0) {
            catch_up(core, main);
            main->ready_since_cycles = now_cycles;
        }
        ready |= 1u;
    }
    if (ready == 0)
        return NULL;
    core->ready_groups = ready;
    struct shoal_sched_group *group = main;
    if (SHOAL_UNLIKELY(ready != 1u)) {
        group = least_served(core, ready);
        if (now_cycles > group->ready_since_cycles && group->ready_since_cycles != 0)
            group->waited_cycles += now_cycles - group->ready_since_cycles;
    }
    shoal_sched_set_current(core, group);
    core->virtual_time = group->virtual_time; /* the least of all that are ready: it only grows */
    core->slice_start_cycles = now_cycles;
    group->slices++;
    return group;
}

void shoal_sched_leave(struct shoal_core *core, uint64_t now_cycles)
{
    struct shoal_sched_group *group = core->current;
    uint64_t ran = now_cycles - core->slice_start_cycles;
    group->runtime_cycles += ran;
    group->virtual_time += ran * group->weight >> WEIGHT_SHIFT;
    shoal_sched_set_current(core, &core->groups[0]);
    uint32_t bit = 1u << group->id;
    if (group->ready.head != NULL) {
        core->ready_groups |= bit;
        group->ready_since_cycles = now_cycles;
    } else {
        core->ready_groups &= ~bit;
        group->ready_since_cycles = 0;
    }
}

/* ---- The public calls ---- */

int shoal_sched_group_new(struct shoal_sched_group **out, const char *name, unsigned shares)
{
    SHOAL_CHECK_ON_CORE("making of a scheduling group");
    struct shoal_core *core = shoal_core_self;
    if (shares < 1 || shares > SHOAL_SCHED_SHARES_MAX)
        return -EINVAL;
    for (unsigned id = 1; id < SHOAL_SCHED_GROUPS_MAX; id++) {
        struct shoal_sched_group *group = &core->groups[id];
        if (group->used)
            continue;
        group_init(core, group, id, name, shares);
        *out = group;
        return 0;
    }
    return -ENOSPC;
}

int shoal_sched_group_free(struct shoal_sched_group *group)
{
    struct shoal_core *core = shoal_core_self;
    check_mine(group, "free");
    if (group->id == 0)
        return -EINVAL;
    if (group->fibers > 0 || core->current == group)
        return -EBUSY;
    group->used = false;
    struct shoal_task *task;
    while ((task = shoal_task_queue_take(&group->ready)) != NULL)
        shoal_core_post_to(core, &core->groups[0], task);
    core->ready_groups &= ~(1u << group->id);
    return 0;
}

int shoal_sched_group_set_shares(struct shoal_sched_group *group, unsigned shares)
{
    check_mine(group, "set_shares");
    if (shares < 1 || shares > SHOAL_SCHED_SHARES_MAX)
        return -EINVAL;
    group->shares = (uint16_t)shares;
    group->weight = weight_of(shares);
    return 0;
}

struct shoal_sched_group *shoal_sched_group_self(void)
{
    SHOAL_CHECK_ON_CORE("scheduling group of the caller");
    return shoal_core_self->current;
}

struct shoal_sched_group *shoal_sched_group_main(void)
{
    SHOAL_CHECK_ON_CORE("main scheduling group");
    return &shoal_core_self->groups[0];
}

void shoal_sched_group_enter(struct shoal_sched_group *group)
{
    check_mine(group, "enter");
    struct shoal_core *core = shoal_core_self;
    struct shoal_fiber *fiber = core->fiber;
    SHOAL_CHECK(fiber != NULL, "a scheduling group is entered outside a fiber");
    if (core->current == group)
        return;
    fiber->group->fibers--;
    fiber->group = group;
    group->fibers++;
    uint64_t now_cycles = shoal_cycles();
    shoal_sched_leave(core, now_cycles);
    if (group->ready.head == NULL)
        catch_up(core, group);
    shoal_sched_set_current(core, group);
    core->slice_start_cycles = now_cycles;
}

void shoal_sched_group_stats(const struct shoal_sched_group *group,
                             struct shoal_sched_group_stats *out)
{
    const struct shoal_core *core = shoal_core_self;
    check_mine(group, "stats");
    uint64_t running = group == core->current ? shoal_cycles() - core->slice_start_cycles : 0;
    *out = (struct shoal_sched_group_stats){
        .name = group->name,
        .shares = group->shares,
        .fibers = group->fibers,
        .runtime_ns = shoal_tsc_ns(&core->tsc, group->runtime_cycles + running),
        .waited_ns = shoal_tsc_ns(&core->tsc, group->waited_cycles),
        .tasks = group->tasks,
        .slices = group->slices,
    };
}

struct shoal_sched_group *shoal_sched_group_next(const struct shoal_sched_group *previous)
{
    SHOAL_CHECK_ON_CORE("list of scheduling groups");
    if (previous != NULL)
        SHOAL_CHECK_OWNER(previous->core, "next", "scheduling group \"%s\"", previous->name);
    struct shoal_core *core = shoal_core_self;
    for (unsigned id = previous != NULL ? previous->id + 1u : 0; id < SHOAL_SCHED_GROUPS_MAX; id++)
        if (core->groups[id].used)
            return &core->groups[id];
    return NULL;
}
