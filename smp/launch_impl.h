/*
 * The start and the end of all cores. One struct for the process, made by shoal_main.
 *
 *   main thread: options -> placement -> threads (core 0 stays on the main thread)
 *   each core:   gate -> bind -> memory -> | barrier | -> try the backend -> | barrier | -> fall
 *                back together, or fail together -> mail -> | barrier | -> loop -> | barrier |
 *                -> what was posted late -> | barrier | -> tear down
 *
 * 1. One backend for all: if io_uring fails on any core, all take epoll (--io-backend auto) or the
 *    program ends (io_uring). Nothing listens before that is decided.
 * 2. No core frees memory that another may touch before every loop has ended (last barrier).
 *    What was posted to a core until then runs on it: after the loops each core runs what it has,
 *    round by round, until no core has had anything in one round. So whatever goes home to be freed
 *    may be sent up to the end, and may send others.
 * 3. A core that cannot start for want of memory still comes to the barriers, until core 0 has
 *    decided for all, between two of them: nobody waits for one that is gone. Nobody passes the
 *    gate before all threads are there.
 */
#ifndef SHOAL_SMP_LAUNCH_IMPL_H
#define SHOAL_SMP_LAUNCH_IMPL_H

#include <pthread.h>

#include "shoal/runtime/fault.h"
#include "shoal/runtime/signal.h"

#include "shoal/smp/app.h"
#include "shoal/smp/foreign_impl.h"
#include "shoal/smp/inspect_impl.h"
#include "shoal/smp/mailbox_impl.h"
#include "shoal/smp/topology.h"

#define SHOAL_LAUNCH_ERROR_MAX 512

enum shoal_backend_choice { SHOAL_BACKEND_AUTO, SHOAL_BACKEND_URING, SHOAL_BACKEND_EPOLL };

struct shoal_config {
    uint64_t smp;
    const char *cpuset;
    uint64_t memory_bytes; /* 0: no limit */
    bool overprovisioned;
    bool poll_mode;
    uint64_t idle_poll_us;
    uint64_t task_quota_us;
    uint64_t stall_notify_ms;
    int io_backend;
    int thread_affinity; /* 0: on, 1: off */
    bool thread_affinity_given;
    uint64_t shutdown_timeout_ns;
    uint64_t max_connections; /* 0: what the descriptors allow */
    bool keep_limits;         /* the limit of descriptors is the host's: not raised */
    int accept_balance;       /* 0: kernel, 1: balanced */
    int log_level;
    const char *fail_alloc; /* NULL: no allocation fails on purpose */
    struct shoal_fault_plan faults;
    int faults_core; /* -1: each */
};

struct shoal_member {
    struct shoal_core core;
    struct shoal_foreign_core foreign;
    struct shoal_mail mail; /* its end, which others read, is in no line with what is written */
    struct shoal_launch *launch;
    struct shoal_task quit; /* posted by core 0 to end the loop */
    int rc;
    char error[SHOAL_LAUNCH_ERROR_MAX];
} __attribute__((aligned(SHOAL_CACHE_LINE)));

struct shoal_core_thread {
    struct shoal_launch *launch;
    pthread_t thread;
    unsigned id;
};

struct shoal_test_time;

struct shoal_stop_hook {
    struct shoal_list node;
    void (*stop)(void *arg);
    void *arg;
};

struct shoal_launch {
    const struct shoal_program *program;
    struct shoal_config config;
    struct shoal_placement placement;
    struct shoal_fleet fleet;
    struct shoal_member **members;
    struct shoal_core_thread *threads;
    pthread_mutex_t gate;
    pthread_barrier_t barrier;
    const struct shoal_io_ops *io;
    int failure; /* why nothing runs; written by core 0, behind the gate or between two barriers */
    char fallback[SHOAL_LAUNCH_ERROR_MAX];
    char error[SHOAL_LAUNCH_ERROR_MAX];
    bool host_signals; /* SIGINT, SIGTERM and SIGQUIT are left alone */
    bool hosted;       /* by embed.c: nothing of the process is changed, no line is
                          printed, and core 0 has a thread of its own */
    bool diagnostics;  /* handlers for faults, stalls and reports; unless hosted */
    void (*stuck)(struct shoal_launch *launch); /* hosted: the stop hangs; the log says where */
    struct shoal_test_time *test_time; /* what all cores tell the time by; NULL: the system's */
    struct shoal_inspect_probe probe;
    atomic_uint leaked; /* objects that were never consumed, over all cores */

    _Atomic bool stop_posted;
    struct shoal_task stop_task; /* posted to core 0 by others that ask for a stop */
    _Atomic bool leftovers;      /* a core has run something after the loops had ended */

    /* Core 0 only from here on. */
    bool leftovers_again; /* read by all, between two barriers */
    struct shoal_list stop_hooks;
    struct shoal_list stop_waiters;
    struct shoal_signal interrupt;
    struct shoal_signal terminate;
    struct shoal_signal quit;
    bool stop_requested;
    bool announced;
    bool inspecting; /* a report is being printed */
    int exit_code;
};

extern struct shoal_launch *shoal_launch_current __attribute__((visibility("hidden")));

/* config.c: parses and checks. Returns SHOAL_OPTIONS_*; on BAD `error` holds the line. */
enum shoal_options_result shoal_config_parse(struct shoal_config *config, int argc, char **argv,
                                             const struct shoal_program *program, char *error,
                                             size_t error_size);

/* Once the number of cores is known: memory a core, descriptors. 0 or SHOAL_EOPTION. */
int shoal_config_check(struct shoal_config *config, unsigned cores, char *error, size_t error_size);

/*
 * launch.c, in two steps. All that is not given in `launch` is zero, or as its maker wants. Each
 * returns 0, or SHOAL_EOPTION or -errno with a line in launch->error.
 *
 * Parses the options, chooses the CPUs and checks what can be had. SHOAL_LAUNCH_ANSWERED: --help or
 * --version were answered, and there is nothing to do. Undone by the second step.
 */
#define SHOAL_LAUNCH_ANSWERED 1
int shoal_launch_prepare(struct shoal_launch *launch, int argc, char **argv);

/* Claims the process, starts all cores, of which the calling thread becomes core 0, and returns
 * when all have ended. -EBUSY when another runtime runs. */
int shoal_launch_run(struct shoal_launch *launch);

/* Instead of the second step. */
void shoal_launch_drop(struct shoal_launch *launch);

/* Both, as a program: prints the line of an error, and returns the exit code. */
int shoal_launch_program(struct shoal_launch *launch, int argc, char **argv);

/* stop.c: on core 0. The signals, and all that comes after `run` has returned. */
void shoal_signals_block(void);
int shoal_signals_start(struct shoal_launch *launch);
void shoal_stop_all(struct shoal_launch *launch);

/* The same as shoal_stop_request(), on any thread that knows that `launch` runs. */
void shoal_stop_post(struct shoal_launch *launch);

#endif
