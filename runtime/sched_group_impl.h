/*
 * Scheduling groups inside.
 *
 * Each group has a run queue and a virtual time: cycles it has run, divided by its shares. Of the
 * groups that have something ready, the one with the least virtual time runs, for a slice. A group
 * that wakes starts no further back than the one that ran last, so that sleeping earns nothing.
 *
 * `core->current` is the group whose tasks run, and the main group between tasks. A task that is
 * queued goes to the current group without a look at anything else; therefore:
 *
 * 1. The bit of a group that is not current is set in `core->ready_groups` if and only if its queue
 *    holds something. The bit of the current group means nothing: its queue is asked.
 */
#ifndef SHOAL_RUNTIME_SCHED_GROUP_IMPL_H
#define SHOAL_RUNTIME_SCHED_GROUP_IMPL_H

#include <stdbool.h>
#include <stdint.h>

#include "shoal/runtime/sched_group.h"
#include "shoal/runtime/task.h"

struct shoal_core;

struct shoal_sched_group {
    struct shoal_task_queue ready;
    uint64_t virtual_time;
    uint64_t ready_since_cycles; /* while it waits for its turn */
    uint32_t weight;             /* virtual time for 1024 cycles */
    uint16_t shares;
    uint16_t core;
    uint8_t id;
    bool used;
    unsigned fibers;
    uint64_t runtime_cycles;
    uint64_t waited_cycles;
    uint64_t tasks;
    uint64_t slices;
    char name[SHOAL_SCHED_NAME_MAX + 1];
};

void shoal_sched_init(struct shoal_core *core);

/* The group that is to run next, made current; NULL when nothing is ready. */
struct shoal_sched_group *shoal_sched_pick(struct shoal_core *core, uint64_t now_cycles);

/* Ends the slice of the current group; the main group is current afterwards. */
void shoal_sched_leave(struct shoal_core *core, uint64_t now_cycles);

/* Whether any group but the current one waits for its turn. */
bool shoal_sched_others_wait(const struct shoal_core *core);

/* After work was queued in the main group as if it were current, while another one is. */
void shoal_sched_note_main(struct shoal_core *core);

/* Queues `task` in a group that is not current. */
void shoal_sched_wake(struct shoal_core *core, struct shoal_sched_group *group,
                      struct shoal_task *task);

#endif
