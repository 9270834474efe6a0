/*
 * Timers: embedded in what they belong to, armed and cancelled in O(1).
 *
 * 1. A cancelled timer never fires.
 * 2. A timer fires from the loop, not before its deadline, on the core that armed it.
 * 3. It is disarmed before its function runs, which may arm it again. A periodic one is armed for
 *    its next time instead, which its function may cancel or change.
 */
#ifndef SHOAL_RUNTIME_TIMER_H
#define SHOAL_RUNTIME_TIMER_H

#include <stdbool.h>
#include <stdint.h>

#include "shoal/runtime/compiler.h"
#include "shoal/runtime/list.h"

SHOAL_BEGIN_DECLS

struct shoal_timer {
    struct shoal_list node;
    uint64_t deadline_ns;
    uint64_t period_ns; /* 0: fires once */
    void (*fire)(struct shoal_timer *timer);
    uint16_t slot; /* private: where the wheel keeps it */
    uint16_t core; /* private: who armed it */
};

/* Makes `timer` ready to be armed; `fire` may not yield (spawn a fiber for that). */
SHOAL_API void shoal_timer_init(struct shoal_timer *timer, void (*fire)(struct shoal_timer *timer));

/* Arms `timer` for `deadline_ns` on the core's clock; one that is armed is moved. Never fails. */
SHOAL_API void shoal_timer_arm_at(struct shoal_timer *timer, uint64_t deadline_ns);

/* Arms `timer` for `delay_ns` from now. */
SHOAL_API void shoal_timer_arm(struct shoal_timer *timer, uint64_t delay_ns);

/*
 * Arms `timer` to fire at `first_ns` on the core's clock and then every `period_ns` (> 0) after
 * that: it does not drift. Where the core was too busy for several, it fires once for them; inside
 * `fire`, deadline_ns is the next time.
 */
SHOAL_API void shoal_timer_arm_every(struct shoal_timer *timer, uint64_t first_ns,
                                     uint64_t period_ns);

/* Disarms `timer`; returns whether it was armed. Fine on a timer that is not. */
SHOAL_API bool shoal_timer_cancel(struct shoal_timer *timer);

static inline bool shoal_timer_armed(const struct shoal_timer *timer)
{
    return shoal_list_linked(&timer->node);
}

SHOAL_END_DECLS

#endif
