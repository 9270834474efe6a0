/*
 * A task: something to run once, queued on its core. It is embedded in what it belongs to (a
 * future, a fiber, an I/O operation), so that queueing allocates nothing and cannot fail.
 *
 * 1. A task is in at most one queue; it may be queued again as soon as `run` has been entered.
 * 2. `run` is called by the loop, never inside the call that queued the task.
 */
#ifndef SHOAL_RUNTIME_TASK_H
#define SHOAL_RUNTIME_TASK_H

#include <stdbool.h>
#include <stdint.h>

#include "shoal/runtime/compiler.h"

SHOAL_BEGIN_DECLS

struct shoal_task {
    struct shoal_task *next;
    void (*run)(struct shoal_task *task);
};

struct shoal_task_queue {
    struct shoal_task *head;
    struct shoal_task **tail;
};

static inline void shoal_task_queue_init(struct shoal_task_queue *queue)
{
    queue->head = NULL;
    queue->tail = &queue->head;
}

static inline void shoal_task_queue_push(struct shoal_task_queue *queue, struct shoal_task *task)
{
    task->next = NULL;
    *queue->tail = task;
    queue->tail = &task->next;
}

static inline struct shoal_task *shoal_task_queue_take(struct shoal_task_queue *queue)
{
    struct shoal_task *task = queue->head;
    if (SHOAL_UNLIKELY(task == NULL))
        return NULL;
    queue->head = task->next;
    if (queue->head == NULL)
        queue->tail = &queue->head;
    return task;
}

/*
 * Queues `task` on the calling core. The caller keeps it alive until `run` is entered.
 * Core threads only; does not yield.
 */
SHOAL_API void shoal_task_post(struct shoal_task *task);

/*
 * Whether the running task or fiber has used up its quota (--task-quota-us) and should yield.
 * A few cycles. Core threads only.
 */
SHOAL_API bool shoal_need_preempt(void);

SHOAL_END_DECLS

#endif
