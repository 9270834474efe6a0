/*
 * Commands between cores: see command_impl.h.
 */
#include "shoal/runtime/check.h"
#include "shoal/runtime/core_impl.h"

#include "shoal/smp/command_impl.h"
#include "shoal/smp/mailbox_impl.h"

void shoal_post_to_core(unsigned core, struct shoal_task *task)
{
    shoal_core_post_foreign(shoal_mail_self()->fleet->core[core], task);
}

void shoal_command_begin(struct shoal_command_round *round)
{
    round->fiber = shoal_core_self->fiber;
    round->pending = 0;
    SHOAL_DCHECK(round->fiber != NULL, "commands are sent on a fiber");
}

static void run_command(struct shoal_task *task)
{
    struct shoal_command *command = SHOAL_CONTAINER_OF(task, struct shoal_command, task);
    command->run(command);
}

static void run_ended(struct shoal_task *task)
{
    const struct shoal_command *command = SHOAL_CONTAINER_OF(task, struct shoal_command, ended);
    struct shoal_command_round *round = command->round;
    if (--round->pending == 0)
        shoal_fiber_make_ready(shoal_core_self, round->fiber);
}

void shoal_command_send(struct shoal_command_round *round, struct shoal_command *command,
                        unsigned core, shoal_command_fn *run)
{
    command->task.run = run_command;
    command->ended.run = run_ended;
    command->run = run;
    command->round = round;
    command->core = (uint16_t)core;
    command->home = (uint16_t)shoal_core_self->id;
    round->pending++;
    shoal_post_to_core(core, &command->task);
}

void shoal_command_done(struct shoal_command *command)
{
    SHOAL_DCHECK(command->core == shoal_core_self->id, "a command to core %u ends on core %u",
                 command->core, shoal_core_self->id);
    shoal_post_to_core(command->home, &command->ended);
}

void shoal_command_wait(struct shoal_command_round *round)
{
    struct shoal_core *core = shoal_core_self;
    shoal_fiber_wait_begin(round->fiber, "other cores", NULL, NULL);
    while (round->pending > 0)
        shoal_fiber_park(core, round->fiber);
    shoal_fiber_wait_end(round->fiber);
}
