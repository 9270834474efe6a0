/*
 * Children inside: the struct, and what is needed to start one.
 *
 *   core:    shoal_process_spawn() -> plan -> helper thread: pipes, clone -> core: poll the pidfd
 *   child:   process_child.c, from the clone to the exec, in the parent's memory
 *
 * A process is in its core's list from the spawn until it has both ended and been freed.
 */
#ifndef SHOAL_RUNTIME_PROCESS_IMPL_H
#define SHOAL_RUNTIME_PROCESS_IMPL_H

#include "shoal/runtime/io_impl.h"
#include "shoal/runtime/list.h"
#include "shoal/runtime/process.h"
#include "shoal/runtime/timer.h"

struct shoal_process_pipe {
    int fd; /* -1: closed, or never was */
    uint16_t core;
    bool piped;
    bool busy; /* a fiber reads or writes */
};

struct shoal_process {
    struct shoal_list node;
    struct shoal_list waiters;
    struct shoal_io_op exit_op; /* waits for the pidfd until the end is known */
    struct shoal_timer retry;   /* where that is not enough */
    struct shoal_process_pipe in;
    struct shoal_process_pipe out;
    struct shoal_process_pipe err;
    struct shoal_process_status status;
    pid_t pid;
    int pidfd; /* -1 once it has ended */
    int ended; /* 0: it runs; 1: `status` holds; -ECHILD: it is lost */
    uint16_t core;
    bool own_group;
    bool leave;
    bool freed;
};

/* What the child does with one descriptor: `from`, of the parent, becomes `to`. */
struct shoal_process_move {
    int from;
    int to;
};

#define SHOAL_PROCESS_MOVES_MAX (3 + SHOAL_PROCESS_FDS_MAX)

enum shoal_process_stage {
    SHOAL_PROCESS_AT_START,
    SHOAL_PROCESS_AT_DESCRIPTOR,
    SHOAL_PROCESS_AT_GROUP,
    SHOAL_PROCESS_AT_USER,
    SHOAL_PROCESS_AT_DIRECTORY,
    SHOAL_PROCESS_AT_EXEC,
};

/* All that the child needs, made beforehand: between clone and exec nothing is allocated. */
struct shoal_process_child {
    char *const *argv;
    char *const *env;
    const char *paths; /* where the program may be: strings, one after the other; "" ends them */
    const char *directory;
    struct shoal_process_move moves[SHOAL_PROCESS_MOVES_MAX]; /* by `to`, ascending */
    unsigned move_count;
    int fd_end; /* no descriptor has a number from here on, where close_range(2) is missing */
    enum shoal_process_group group;
    const struct shoal_process_user *user;
    bool end_with_parent;
    pid_t parent;
    char *stack;
    size_t stack_bytes;
    /* Written by the child. */
    volatile int error; /* errno; 0 when it has run the program */
    volatile enum shoal_process_stage stage;
    volatile int culprit; /* a descriptor */
};

/*
 * Starts `child`, which must stay until this returns: when it has run its program, or failed. 0
 * with its pidfd and number, or -errno, with child->error if the child itself found it. Any thread
 * that may be suspended that long; not for signal handlers.
 */
int shoal_process_clone(struct shoal_process_child *child, int *pidfd, pid_t *pid);

/* Reaps the child behind `pidfd`: 1 with *out; 0 when it still runs; -ECHILD, or another -errno. */
int shoal_process_reap(int pidfd, struct shoal_process_status *out);

/* What a core needs to watch children, made with the first one. 0 or -ENOMEM. */
int shoal_processes_ready(void);

/* SIGKILL, to its group if it has one of its own. Fine when it has ended. */
void shoal_process_kill(struct shoal_process *process);

/* Begins to watch a child that was just started; `process` is zeroed but for pid and pidfd. */
void shoal_process_begin(struct shoal_process *process);

#endif
