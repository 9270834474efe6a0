/*
 * The start and the end of all cores. One struct for the process, made by shoal_main.
 *
 *   main thread: options -> placement -> threads (core 0 stays on the main thread)
 *   each core:   bind -> try the backend -> | barrier | -> fall back together, or fail together
 *                -> mail -> | barrier | -> loop -> | barrier | -> tear down
 *
 * 1. One backend for all: if io_uring fails on any core, all take epoll (--io-backend auto) or the
 *    program ends (io_uring). Nothing listens before that is decided.
 * 2. No core frees memory that another may touch before every loop has ended (last barrier).
 */
#ifndef SHOAL_SMP_LAUNCH_IMPL_H
#define SHOAL_SMP_LAUNCH_IMPL_H

#include <pthread.h>

#include "shoal/smp/app.h"
#include "shoal/smp/mailbox_impl.h"
#include "shoal/smp/topology.h"

#define SHOAL_LAUNCH_ERROR_MAX 256

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
    int log_level;
};

struct shoal_member {
    struct shoal_core core;
    struct shoal_mail mail;
    struct shoal_launch *launch;
    pthread_t thread;
    struct shoal_task quit; /* posted by core 0 to end the loop */
    int rc;
    char error[SHOAL_LAUNCH_ERROR_MAX];
} __attribute__((aligned(SHOAL_CACHE_LINE)));

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
    pthread_barrier_t barrier;
    const struct shoal_io_ops *io;
    bool failed; /* written between two barriers by core 0 */
    char fallback[SHOAL_LAUNCH_ERROR_MAX];
    char error[SHOAL_LAUNCH_ERROR_MAX];

    /* Core 0 only from here on. */
    struct shoal_list stop_hooks;
    struct shoal_list stop_waiters;
    bool stop_requested;
    bool announced;
    int exit_code;
};

extern struct shoal_launch *shoal_launch_current __attribute__((visibility("hidden")));

/* config.c: parses and checks. Returns SHOAL_OPTIONS_*; on BAD `error` holds the line. */
enum shoal_options_result shoal_config_parse(struct shoal_config *config, int argc, char **argv,
                                             const struct shoal_program *program, char *error,
                                             size_t error_size);

/* Once the number of cores is known: memory a core, descriptors. 0 or SHOAL_EOPTION. */
int shoal_config_check(struct shoal_config *config, unsigned cores, char *error, size_t error_size);

/* launch.c */
int shoal_launch_run(struct shoal_launch *launch);

/* stop.c: on core 0. The signal fiber, and all that comes after `run` has returned. */
int shoal_signals_fiber(void *arg);
void shoal_signals_block(void);
void shoal_stop_all(struct shoal_launch *launch);

#endif
