/*
 * The pool of helper threads of one core. The queue is intrusive (a job lives with its caller), so
 * that its length is bounded by the callers that wait, and nothing is allocated.
 *
 *   QUEUED -> RUNNING -> its task comes home -> `done`
 *   QUEUED -> cancelled, its task is queued  -> `done`
 */
#ifndef SHOAL_RUNTIME_BLOCKING_IMPL_H
#define SHOAL_RUNTIME_BLOCKING_IMPL_H

#include <stdbool.h>

#include <pthread.h>

#include "shoal/runtime/blocking.h"
#include "shoal/runtime/compiler.h"
#include "shoal/runtime/list.h"
#include "shoal/runtime/task.h"

struct shoal_core;

struct shoal_blocking_job {
    struct shoal_task task; /* comes home to the core */
    struct shoal_list node; /* links the queue */
    int (*fn)(void *arg);
    void *arg;
    int result;
    void (*done)(struct shoal_blocking_job *job); /* on the core, from the loop */
};

struct shoal_blocking_pool {
    struct shoal_core *core;
    pthread_mutex_t lock; /* guards what follows */
    pthread_cond_t work;
    struct shoal_list queue;
    pthread_t threads[SHOAL_BLOCKING_THREADS_MAX];
    unsigned thread_count;
    unsigned idle;
    unsigned queued;
    bool stopping;
} __attribute__((aligned(SHOAL_CACHE_LINE))); /* its lines are not the core's: threads write them */

void shoal_blocking_init(struct shoal_core *core);
void shoal_blocking_deinit(struct shoal_core *core);

/* Queues `job`, which lives until `done`. 0, or -EAGAIN when no thread can be had. */
int shoal_blocking_submit(struct shoal_core *core, struct shoal_blocking_job *job);

/* Ends `job`, which is not done, with -ECANCELED if it still waits for a thread. */
void shoal_blocking_cancel(struct shoal_core *core, struct shoal_blocking_job *job);

/* shoal_blocking_call() of the calling core, for whose reports the fiber waits for `what`. */
int shoal_blocking_run(struct shoal_core *core, int (*fn)(void *arg), void *arg, const char *what);

#endif
