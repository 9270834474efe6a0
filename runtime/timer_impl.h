/*
 * A hierarchical timing wheel: 64 slots a level, a tick of 1,024 ns, nine levels, which together
 * cover 64 bits of nanoseconds, so that no deadline needs a special case.
 *
 * A timer sits on the level of the highest 6-bit digit in which its tick differs from the wheel's
 * cursor, in the slot of that digit:
 *
 *   tick digits:   ... d3 d2 d1 d0        level 0: 64 ticks ahead, one slot a tick
 *   cursor digits: ... c3 c2 c1 c0        level 1: 64 slots of 64 ticks, ...
 *
 * 1. Every armed timer is in a slot whose digit is greater than the cursor's digit on its level,
 *    and agrees with the cursor on all higher digits; or it is in `due`.
 * 2. Therefore the lowest occupied level holds the earliest slot, found by one count of zeros.
 * 3. The cursor moves to the start of the earliest slot and spreads it over lower levels: a timer
 *    moves at most once a level. A tick is rounded up, so that nothing fires early.
 *
 * Rejected: a heap (O(log n) to arm), and slots of one fixed width (rounds for far deadlines).
 */
#ifndef SHOAL_RUNTIME_TIMER_IMPL_H
#define SHOAL_RUNTIME_TIMER_IMPL_H

#include "shoal/runtime/timer.h"

#define SHOAL_TIMER_TICK_BITS  10
#define SHOAL_TIMER_LEVEL_BITS 6
#define SHOAL_TIMER_SLOTS      (1 << SHOAL_TIMER_LEVEL_BITS)
#define SHOAL_TIMER_LEVELS     9

struct shoal_timer_wheel {
    uint64_t cursor_tick;
    uint64_t next_ns; /* no timer fires before; may be early, never late */
    uint64_t occupied[SHOAL_TIMER_LEVELS];
    struct shoal_list due;
    struct shoal_list slots[SHOAL_TIMER_LEVELS][SHOAL_TIMER_SLOTS];
    uint64_t armed;
};

void shoal_timer_wheel_init(struct shoal_timer_wheel *wheel, uint64_t now_ns);

/* Fires what is due at `now_ns`; returns how many fired. */
unsigned shoal_timer_wheel_expire(struct shoal_timer_wheel *wheel, uint64_t now_ns);

/* The time to look at the wheel again; SHOAL_NS_FOREVER when it is empty. */
static inline uint64_t shoal_timer_wheel_next_ns(const struct shoal_timer_wheel *wheel)
{
    return wheel->next_ns;
}

/*
 * timer_exact.c, for clocks that stand still: the earliest deadline to the nanosecond, and the one
 * timer that is due by then; returns how many fired, 0 or 1. O(timers of a slot).
 */
uint64_t shoal_timer_wheel_next_exact_ns(const struct shoal_timer_wheel *wheel);
unsigned shoal_timer_wheel_expire_exact(struct shoal_timer_wheel *wheel, uint64_t now_ns);

/* Fires `timer`, which has been taken out of the wheel, and arms a periodic one again. */
void shoal_timer_wheel_fire(struct shoal_timer_wheel *wheel, struct shoal_timer *timer,
                            uint64_t now_ns);

void shoal_timer_wheel_arm(struct shoal_timer_wheel *wheel, struct shoal_timer *timer,
                           uint64_t deadline_ns);
void shoal_timer_wheel_cancel(struct shoal_timer_wheel *wheel, struct shoal_timer *timer);

#endif
