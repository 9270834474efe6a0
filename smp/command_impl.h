/*
 * Commands: a function run on other cores for the library's own needs, which cannot fail.
 *
 *   home core:   struct shoal_command_round round;
 *                shoal_command_begin(&round);
 *                shoal_command_send(&round, &command, core, run);      any number, to any cores
 *                shoal_command_wait(&round);                           on the fiber that began it
 *   the others:  run(&command) as a task; shoal_command_done(&command) there, or later
 *
 * 1. A command is embedded in what it belongs to. It takes no memory, no credit of a ring and no
 *    fiber, so that a stop works when memory has run out and all rings are full.
 * 2. It is in flight from the send until `done` was handed over to its home core; then it may be
 *    sent again, or freed there.
 * 3. Commands from one core to another run in the order in which they were sent.
 * 4. A round is not interrupted: a cancel of the fiber has no effect on the wait.
 *
 * Rejected: messages (shoal_submit_to), sent again until there is memory. A handler that waits for
 * ever can hold the last credit towards its core, and then the message that is to cancel it never
 * goes out.
 */
#ifndef SHOAL_SMP_COMMAND_IMPL_H
#define SHOAL_SMP_COMMAND_IMPL_H

#include <stdint.h>

#include "shoal/runtime/task.h"

struct shoal_fiber;
struct shoal_command;

typedef void shoal_command_fn(struct shoal_command *command);

struct shoal_command_round {
    struct shoal_fiber *fiber;
    uint32_t pending;
};

/* A line of its own: its cores write it in turn. */
struct shoal_command {
    struct shoal_task task;  /* on `core` */
    struct shoal_task ended; /* on `home` */
    shoal_command_fn *run;
    struct shoal_command_round *round;
    uint16_t core;
    uint16_t home;
} __attribute__((aligned(SHOAL_CACHE_LINE)));

void shoal_command_begin(struct shoal_command_round *round);
void shoal_command_send(struct shoal_command_round *round, struct shoal_command *command,
                        unsigned core, shoal_command_fn *run);
void shoal_command_wait(struct shoal_command_round *round);

/* On the core that `command` was sent to. Its memory may be gone right after. */
void shoal_command_done(struct shoal_command *command);

/* Queues `task` on core `core`, this one or another; see shoal_core_post_foreign(). */
void shoal_post_to_core(unsigned core, struct shoal_task *task);

#endif
