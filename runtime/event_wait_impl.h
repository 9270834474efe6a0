/*
 * Waits for events that come from the kernel: a list of waiters, each a fiber with a time-out or a
 * future. What is waited for (a child's end, a signal) owns the list and ends its waiters.
 *
 * 1. A waiter is in the list until it is ended, by an event, its time-out or its cancel; whichever
 *    comes first takes it out, so that each gets exactly one code.
 * 2. A fiber's waiter lies on its stack; a future's is allocated and freed with its end.
 * 3. Waiters end in the order in which they came.
 */
#ifndef SHOAL_RUNTIME_EVENT_WAIT_IMPL_H
#define SHOAL_RUNTIME_EVENT_WAIT_IMPL_H

#include <stdbool.h>
#include <stdint.h>

#include "shoal/runtime/list.h"

struct shoal_future;

/*
 * Waits on the running fiber as a member of `list`. `what` says what for, in reports. Returns the
 * code that ended it, -ETIMEDOUT, or the fiber's cancel code. A time-out of 0 does not wait.
 */
int shoal_event_wait(struct shoal_list *list, const char *what, uint64_t timeout_ns);

/* The same as a future: `i64` is the code that ended it; a cancel fails it with -ECANCELED. */
struct shoal_future *shoal_event_future(struct shoal_list *list);

/* Ends the first waiter of `list`, if there is one, with `code`: negative is a failure. */
bool shoal_event_end_first(struct shoal_list *list, int64_t code);

/* Ends all. */
void shoal_event_end_all(struct shoal_list *list, int64_t code);

/* Whether a fiber is among the waiters. */
bool shoal_event_has_fiber(const struct shoal_list *list);

#endif
