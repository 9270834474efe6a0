/*
 * The pool for blocking calls: see blocking.h.
 */
#include "shoal/runtime/blocking.h"

#include <errno.h>
#include <signal.h>

#include <sched.h>

#include "shoal/runtime/check.h"
#include "shoal/runtime/core_impl.h"
#include "shoal/runtime/fault_impl.h"
#include "shoal/runtime/owner_impl.h"

#define HELPER_STACK_BYTES (256u * 1024)

static void job_home(struct shoal_task *task)
{
    struct shoal_blocking_job *job = SHOAL_CONTAINER_OF(task, struct shoal_blocking_job, task);
    job->done(job);
}

static void *helper_main(void *arg)
{
    struct shoal_blocking_pool *pool = arg;
    pthread_mutex_lock(&pool->lock);
    for (;;) {
        struct shoal_list *node = shoal_list_take_front(&pool->queue);
        if (node == NULL) {
            if (pool->stopping)
                break;
            pool->idle++;
            pthread_cond_wait(&pool->work, &pool->lock);
            pool->idle--;
            continue;
        }
        pool->queued--;
        pthread_mutex_unlock(&pool->lock);
        struct shoal_blocking_job *job = SHOAL_CONTAINER_OF(node, struct shoal_blocking_job, node);
        job->result = job->fn(job->arg);
        job->task.run = job_home;
        shoal_core_post_foreign(pool->core, &job->task);
        pthread_mutex_lock(&pool->lock);
    }
    pthread_mutex_unlock(&pool->lock);
    return NULL;
}

void shoal_blocking_init(struct shoal_core *core)
{
    struct shoal_blocking_pool *pool = &core->blocking;
    pool->core = core;
    pthread_mutex_init(&pool->lock, NULL);
    pthread_cond_init(&pool->work, NULL);
    shoal_list_init(&pool->queue);
    pool->thread_count = 0;
    pool->idle = 0;
    pool->queued = 0;
    pool->stopping = false;
}

void shoal_blocking_deinit(struct shoal_core *core)
{
    struct shoal_blocking_pool *pool = &core->blocking;
    pthread_mutex_lock(&pool->lock);
    pool->stopping = true;
    pthread_cond_broadcast(&pool->work);
    pthread_mutex_unlock(&pool->lock);
    for (unsigned i = 0; i < pool->thread_count; i++)
        pthread_join(pool->threads[i], NULL);
    pthread_cond_destroy(&pool->work);
    pthread_mutex_destroy(&pool->lock);
}

/* Called under the lock. Signals stay with the cores' threads. */
static int helper_start(struct shoal_blocking_pool *pool)
{
    sigset_t all, before;
    pthread_attr_t attr;
    sigfillset(&all);
    pthread_attr_init(&attr);
    pthread_attr_setstacksize(&attr, HELPER_STACK_BYTES);
    const void *cpus = pool->core->config.helper_cpus;
    if (cpus != NULL)
        (void)pthread_attr_setaffinity_np(&attr, sizeof(cpu_set_t), cpus);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int rc = EAGAIN;
    if (!shoal_fault_alloc("helper thread", HELPER_STACK_BYTES))
        rc = pthread_create(&pool->threads[pool->thread_count], &attr, helper_main, pool);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attr);
    if (rc == 0)
        pool->thread_count++;
    return -rc;
}

int shoal_blocking_submit(struct shoal_core *core, struct shoal_blocking_job *job)
{
    struct shoal_blocking_pool *pool = &core->blocking;
    int rc = 0;
    pthread_mutex_lock(&pool->lock);
    if (pool->queued >= pool->idle && pool->thread_count < SHOAL_BLOCKING_THREADS_MAX)
        rc = helper_start(pool);
    shoal_list_init(&job->node);
    if (rc == 0 || pool->thread_count > 0) {
        rc = 0;
        shoal_list_push_back(&pool->queue, &job->node);
        pool->queued++;
        pthread_cond_signal(&pool->work);
    }
    pthread_mutex_unlock(&pool->lock);
    return rc;
}

void shoal_blocking_cancel(struct shoal_core *core, struct shoal_blocking_job *job)
{
    struct shoal_blocking_pool *pool = &core->blocking;
    pthread_mutex_lock(&pool->lock);
    bool waits = shoal_list_linked(&job->node);
    if (waits) {
        shoal_list_remove(&job->node);
        pool->queued--;
    }
    pthread_mutex_unlock(&pool->lock);
    if (!waits)
        return;
    job->result = -ECANCELED;
    job->task.run = job_home;
    shoal_core_post(core, &job->task);
}

struct waiting_job {
    struct shoal_blocking_job job;
    struct shoal_fiber *fiber;
    int (*fn)(void *arg);
    void *arg;
    bool begun; /* the helper thread's, until `ended` */
    bool ended;
};

static void waiting_done(struct shoal_blocking_job *job)
{
    struct waiting_job *waiting = SHOAL_CONTAINER_OF(job, struct waiting_job, job);
    waiting->ended = true;
    shoal_fiber_make_ready(shoal_core_self, waiting->fiber);
}

static int run_waiting(void *arg)
{
    struct waiting_job *waiting = arg;
    waiting->begun = true;
    return waiting->fn(waiting->arg);
}

static void cancel_waiting(struct shoal_fiber *fiber)
{
    struct waiting_job *waiting = fiber->wait_ctx;
    shoal_blocking_cancel(shoal_core_self, &waiting->job);
}

int shoal_blocking_run(struct shoal_core *core, int (*fn)(void *arg), void *arg, const char *what)
{
    struct shoal_fiber *fiber = core->fiber;
    SHOAL_CHECK(fiber != NULL, "a blocking call outside a fiber");
    int code = shoal_fiber_cancel_code(fiber);
    if (code < 0)
        return code;
    struct waiting_job waiting = {.fn = fn, .arg = arg, .fiber = fiber};
    waiting.job =
        (struct shoal_blocking_job){.fn = run_waiting, .arg = &waiting, .done = waiting_done};
    int rc = shoal_blocking_submit(core, &waiting.job);
    if (rc < 0)
        return rc;
    shoal_fiber_wait_begin(fiber, what, cancel_waiting, &waiting);
    while (!waiting.ended)
        shoal_fiber_park(core, fiber);
    shoal_fiber_wait_end(fiber);
    return waiting.begun ? waiting.job.result : fiber->cancel_code;
}

int shoal_blocking_call(int (*fn)(void *arg), void *arg)
{
    SHOAL_CHECK_ON_CORE("blocking_call");
    return shoal_blocking_run(shoal_core_self, fn, arg, "helper thread");
}
