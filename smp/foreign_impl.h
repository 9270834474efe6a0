/*
 * Calls of foreign threads inside: what a thread and a core share, and the gate between them.
 *
 *   thread                                         core
 *   slot of a port, or of its own stack  --task--> foreign_core.c: begins, watches, finishes
 *   foreign_port.c, foreign_thread.c     <--node-- pushes the slot onto the port's stack, or sets
 *                                                  the word that the thread sleeps on
 *
 * 1. A slot is the thread's memory. The core has it from the post until it delivers it, and touches
 *    nothing of it afterwards.
 * 2. A cancel is a second task of the same slot. The thread does not use a slot again before the
 *    core has seen the cancel: either it was seen before the call ended (`cancel_seen`), or the
 *    core delivers the slot a second time, by its other node.
 * 3. A port's stack has one word: the newest node, and in bit 0 whether the thread has parked,
 *    which it can do only while the stack is empty. Who pushes onto a parked stack takes the bit
 *    away and writes the eventfd: once for each parking, and after the write nothing of the port
 *    is touched. The thread knows how many such writes are owed, and does not close the descriptor
 *    before they have come. A node that is not for the thread to see (quiet) leaves it parked,
 *    unless bit 1 says that it waits for room.
 * 4. Threads touch cores only between shoal_foreign_enter() and _leave(). Before the cores end, the
 *    gate is closed, nobody is inside, and all that was posted has been received: see stop.c.
 *
 * Rejected: a mutex and a condition a port, since a core must not wait for a thread; a lock-free
 * ring from each core to each port, which would cost memory for pairs that never meet and a look at
 * each of them in a drain.
 */
#ifndef SHOAL_SMP_FOREIGN_IMPL_H
#define SHOAL_SMP_FOREIGN_IMPL_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "shoal/runtime/core_impl.h"

#include "shoal/smp/foreign_thread.h"

struct shoal_launch;

enum shoal_foreign_kind { SHOAL_FOREIGN_PLAIN, SHOAL_FOREIGN_FIBER, SHOAL_FOREIGN_FUTURE };

/* How a slot hangs in a port's stack. */
struct shoal_foreign_node {
    struct shoal_foreign_node *next;
    bool is_cancel; /* the second delivery of a slot */
};

struct shoal_foreign_slot {
    /* Written by the thread, read by the core. */
    struct shoal_task task;
    union {
        shoal_submit_fn *plain;
        shoal_submit_future_fn *future;
    } fn;
    void *arg;
    struct shoal_foreign_port *port; /* NULL: a thread that waits in shoal_foreign_run() */
    struct shoal_foreign_slot *batch_next;
    uint32_t batch_count; /* of the first of a batch: all of them */
    uint16_t core;
    uint8_t kind : 2;
    bool done_on_core : 1;
    bool timed : 1;             /* it has a time-out */
    _Atomic bool cancel_wanted; /* also after the post: a cancel is on its way */
    char *text;                 /* where a failure's text goes, text_size bytes; NULL: nowhere */

    /* Written by the core, read by the thread once it has been delivered. */
    struct shoal_foreign_node done_node;
    union shoal_value value;
    int32_t code;
    bool cancel_seen;
    bool ended;
    int16_t cancel_code; /* the core's: why it is to end; 0: it is not */
    uint64_t tag;        /* the thread's */
    shoal_foreign_done_fn *done;

    /* The core's, but for the task. */
    struct shoal_list node; /* of the running ones; linked while it is a fiber or a future */
    struct shoal_fiber *fiber;
    struct shoal_future *future;
    uint32_t text_size; /* the thread's */
    struct shoal_task cancel_task;
    struct shoal_foreign_node cancel_node;
    _Atomic uint32_t answered; /* of one without a port: SHOAL_FOREIGN_DONE... */

    /* The thread's. */
    bool in_use;
    bool cancel_posted;
    bool drained; /* and waits for its second delivery */
    struct shoal_foreign_slot *next_free;
    uint64_t timeout_ns;
    uint64_t submitted_ns;                 /* by the system's clock */
    struct shoal_foreign_slot *batch_last; /* of the first of a batch */
    struct shoal_timer timer;              /* the core's */
} __attribute__((aligned(SHOAL_CACHE_LINE)));

SHOAL_STATIC_ASSERT(offsetof(struct shoal_foreign_slot, done_node) == SHOAL_CACHE_LINE,
                    "what goes to the core is one line, what comes back is the next");
SHOAL_STATIC_ASSERT(offsetof(struct shoal_foreign_slot, node) == 2L * SHOAL_CACHE_LINE,
                    "a plain call needs no third line");

/* Bits of `answered`. */
#define SHOAL_FOREIGN_DONE      UINT32_C(1)
#define SHOAL_FOREIGN_CANCELLED UINT32_C(2) /* the cancel was seen, after the end */
#define SHOAL_FOREIGN_SLEEPS    UINT32_C(4) /* the thread does */

/* What the cores see of a port. */
struct shoal_foreign_stack {
    _Atomic uintptr_t head; /* newest node, | the bits below */
    int event_fd;           /* read-only */
};
#define SHOAL_FOREIGN_PARKED     ((uintptr_t)1)
#define SHOAL_FOREIGN_WANTS_ROOM ((uintptr_t)2)
#define SHOAL_FOREIGN_BITS       ((uintptr_t)3)

/* A core's side: in its struct shoal_member. */
struct shoal_foreign_core {
    uint64_t received;  /* tasks that threads have posted and that have run */
    uint32_t in_flight; /* calls that have come and are not answered */
    struct shoal_list running;
    struct shoal_foreign_slot *next; /* the first that has not begun, by batch_next */
    struct shoal_foreign_slot *last;
    struct shoal_task task; /* queued while there are such */
};

/* ---- The gate (foreign_gate.c): any thread ---- */

/*
 * The runtime that runs, to be used until shoal_foreign_leave(), which must come soon: a stop waits
 * for it. NULL when none takes calls, and then there is nothing to leave.
 */
struct shoal_launch *shoal_foreign_enter(void);
void shoal_foreign_leave(void);

/* Posts `task` of a foreign thread to `core`. Inside the gate. */
void shoal_foreign_post(struct shoal_core *core, struct shoal_task *task);

/* How often this process is a child of one that used Shoal: what was made before is not its own. */
unsigned shoal_foreign_forks(void);

/* Claims the process for one runtime; false when it has one. Released when that has ended. */
bool shoal_process_claim(void);
void shoal_process_release(void);

/* On core 0: calls are taken from here on, and until here. The latter waits, on a fiber. */
void shoal_foreign_open(struct shoal_launch *launch);
void shoal_foreign_close(void);

/* How many tasks threads have posted in this run. After the close. */
uint64_t shoal_foreign_posted(void);

/* ---- foreign_core.c: on a core ---- */

void shoal_foreign_core_init(struct shoal_foreign_core *core);

/* At the stop: asks the futures that calls wait for to end. Fibers are cancelled with all others.
 */
void shoal_foreign_cancel_all(struct shoal_foreign_core *core);

/* The rest is for threads. Fills what a new call needs. 0, or a negative code with a text in
 * `error`. */
int shoal_foreign_slot_fill(struct shoal_foreign_slot *slot, const struct shoal_foreign_call *call,
                            unsigned cores, char *error, size_t error_size);

/* Has the core end what was posted before. Inside the gate, once a call. */
void shoal_foreign_slot_cancel(struct shoal_launch *launch, struct shoal_foreign_slot *slot);

/* ---- foreign_port.c ---- */

struct shoal_foreign_stack *shoal_foreign_port_stack(struct shoal_foreign_port *port);

#endif
