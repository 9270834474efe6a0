/*
 * The wheel to the nanosecond, for clocks that stand still between two steps: there a timer that is
 * due in the middle of a tick would fire only once time has moved past the tick's end, and two
 * timers of one tick would fire in the order in which they were armed.
 *
 * Both look through the timers of one slot: O(slot), which is for tests.
 */
#include "shoal/runtime/clock_impl.h"
#include "shoal/runtime/timer_impl.h"

static struct shoal_timer *earliest_in(const struct shoal_list *list)
{
    struct shoal_timer *earliest = NULL;
    SHOAL_LIST_FOREACH (node, list) {
        struct shoal_timer *timer = SHOAL_CONTAINER_OF(node, struct shoal_timer, node);
        if (earliest == NULL || timer->deadline_ns < earliest->deadline_ns)
            earliest = timer;
    }
    return earliest;
}

/* The timer with the earliest deadline, of those the first that was armed; NULL without any. */
static struct shoal_timer *earliest_timer(const struct shoal_timer_wheel *wheel)
{
    struct shoal_timer *earliest = earliest_in(&wheel->due);
    for (unsigned level = 0; earliest == NULL && level < SHOAL_TIMER_LEVELS; level++)
        if (wheel->occupied[level] != 0)
            earliest = earliest_in(&wheel->slots[level][__builtin_ctzll(wheel->occupied[level])]);
    return earliest;
}

uint64_t shoal_timer_wheel_next_exact_ns(const struct shoal_timer_wheel *wheel)
{
    const struct shoal_timer *timer = earliest_timer(wheel);
    return timer != NULL ? timer->deadline_ns : SHOAL_NS_FOREVER;
}

unsigned shoal_timer_wheel_expire_exact(struct shoal_timer_wheel *wheel, uint64_t now_ns)
{
    struct shoal_timer *timer = earliest_timer(wheel);
    if (timer == NULL || timer->deadline_ns > now_ns)
        return 0;
    shoal_timer_wheel_cancel(wheel, timer);
    shoal_timer_wheel_fire(wheel, timer, now_ns);
    return 1;
}
