/*
 * Timers: the wheel of timer_impl.h, and the public calls on the current core's wheel.
 */
#include "shoal/runtime/check.h"
#include "shoal/runtime/core_impl.h"
#include "shoal/runtime/owner_impl.h"
#include "shoal/runtime/timer_impl.h"

#define SLOT_DUE  0xfffeu
#define SLOT_MASK (SHOAL_TIMER_SLOTS - 1)

static uint64_t tick_of_deadline(uint64_t deadline_ns)
{
    const uint64_t round_up = (UINT64_C(1) << SHOAL_TIMER_TICK_BITS) - 1;
    uint64_t tick = deadline_ns >> SHOAL_TIMER_TICK_BITS;
    /* The last tick is not rounded up: the next one would lie beyond the highest level. */
    return tick + ((deadline_ns & round_up) != 0 && tick < UINT64_MAX >> SHOAL_TIMER_TICK_BITS);
}

void shoal_timer_wheel_init(struct shoal_timer_wheel *wheel, uint64_t now_ns)
{
    wheel->cursor_tick = now_ns >> SHOAL_TIMER_TICK_BITS;
    wheel->next_ns = SHOAL_NS_FOREVER;
    wheel->armed = 0;
    shoal_list_init(&wheel->due);
    for (int level = 0; level < SHOAL_TIMER_LEVELS; level++) {
        wheel->occupied[level] = 0;
        for (int slot = 0; slot < SHOAL_TIMER_SLOTS; slot++)
            shoal_list_init(&wheel->slots[level][slot]);
    }
}

/* Puts `timer` where invariant 1 wants it. */
static void place(struct shoal_timer_wheel *wheel, struct shoal_timer *timer)
{
    uint64_t tick = tick_of_deadline(timer->deadline_ns);
    if (tick <= wheel->cursor_tick) {
        timer->slot = SLOT_DUE;
        shoal_list_push_back(&wheel->due, &timer->node);
        return;
    }
    unsigned level =
        (63u - (unsigned)__builtin_clzll(tick ^ wheel->cursor_tick)) / SHOAL_TIMER_LEVEL_BITS;
    unsigned slot = (unsigned)(tick >> (level * SHOAL_TIMER_LEVEL_BITS)) & SLOT_MASK;
    timer->slot = (uint16_t)(level * SHOAL_TIMER_SLOTS + slot);
    wheel->occupied[level] |= UINT64_C(1) << slot;
    shoal_list_push_back(&wheel->slots[level][slot], &timer->node);
}

void shoal_timer_wheel_arm(struct shoal_timer_wheel *wheel, struct shoal_timer *timer,
                           uint64_t deadline_ns)
{
    timer->deadline_ns = deadline_ns;
    place(wheel, timer);
    wheel->armed++;
    uint64_t at_ns = tick_of_deadline(deadline_ns) << SHOAL_TIMER_TICK_BITS;
    if (at_ns < wheel->next_ns)
        wheel->next_ns = at_ns;
}

void shoal_timer_wheel_cancel(struct shoal_timer_wheel *wheel, struct shoal_timer *timer)
{
    shoal_list_remove(&timer->node);
    wheel->armed--;
    if (timer->slot == SLOT_DUE)
        return;
    unsigned level = timer->slot / SHOAL_TIMER_SLOTS;
    unsigned slot = timer->slot & SLOT_MASK;
    if (!shoal_list_linked(&wheel->slots[level][slot]))
        wheel->occupied[level] &= ~(UINT64_C(1) << slot);
}

/* The lowest occupied level and the tick at which its first slot starts; false when empty. */
static bool earliest_slot(const struct shoal_timer_wheel *wheel, unsigned *level, uint64_t *tick)
{
    for (unsigned i = 0; i < SHOAL_TIMER_LEVELS; i++) {
        if (wheel->occupied[i] == 0)
            continue;
        unsigned shift = i * SHOAL_TIMER_LEVEL_BITS;
        uint64_t digit = (uint64_t)__builtin_ctzll(wheel->occupied[i]);
        uint64_t above = shift + SHOAL_TIMER_LEVEL_BITS >= 64
                             ? 0
                             : wheel->cursor_tick >> (shift + SHOAL_TIMER_LEVEL_BITS)
                                                         << (shift + SHOAL_TIMER_LEVEL_BITS);
        *level = i;
        *tick = above | digit << shift;
        return true;
    }
    return false;
}

/* Moves the cursor to `now_tick`, spreading every slot that it passes. */
static void advance(struct shoal_timer_wheel *wheel, uint64_t now_tick)
{
    unsigned level;
    uint64_t tick;
    while (earliest_slot(wheel, &level, &tick) && tick <= now_tick) {
        unsigned slot = (unsigned)__builtin_ctzll(wheel->occupied[level]);
        struct shoal_list passed;
        shoal_list_init(&passed);
        shoal_list_splice(&passed, &wheel->slots[level][slot]);
        wheel->occupied[level] &= ~(UINT64_C(1) << slot);
        wheel->cursor_tick = tick;
        struct shoal_list *node;
        while ((node = shoal_list_take_front(&passed)) != NULL)
            place(wheel, SHOAL_CONTAINER_OF(node, struct shoal_timer, node));
    }
    if (now_tick > wheel->cursor_tick)
        wheel->cursor_tick = now_tick;
}

void shoal_timer_wheel_fire(struct shoal_timer_wheel *wheel, struct shoal_timer *timer,
                            uint64_t now_ns)
{
    uint64_t period_ns = timer->period_ns;
    if (SHOAL_UNLIKELY(period_ns != 0)) {
        uint64_t late_ns = now_ns > timer->deadline_ns ? now_ns - timer->deadline_ns : 0;
        uint64_t step_ns = (late_ns / period_ns + 1) * period_ns;
        shoal_timer_wheel_arm(wheel, timer, shoal_deadline_ns(timer->deadline_ns, step_ns));
    }
    timer->fire(timer);
}

unsigned shoal_timer_wheel_expire(struct shoal_timer_wheel *wheel, uint64_t now_ns)
{
    if (now_ns < wheel->next_ns)
        return 0;
    advance(wheel, now_ns >> SHOAL_TIMER_TICK_BITS);
    /* What fires may arm timers that are due at once: they wait for the next turn. */
    struct shoal_list due;
    shoal_list_init(&due);
    shoal_list_splice(&due, &wheel->due);
    unsigned fired = 0;
    struct shoal_list *node;
    while ((node = shoal_list_take_front(&due)) != NULL) {
        struct shoal_timer *timer = SHOAL_CONTAINER_OF(node, struct shoal_timer, node);
        wheel->armed--;
        fired++;
        shoal_timer_wheel_fire(wheel, timer, now_ns);
    }
    unsigned level;
    uint64_t tick;
    if (shoal_list_linked(&wheel->due))
        wheel->next_ns = now_ns;
    else if (earliest_slot(wheel, &level, &tick))
        wheel->next_ns = tick << SHOAL_TIMER_TICK_BITS;
    else
        wheel->next_ns = SHOAL_NS_FOREVER;
    return fired;
}

/* One that is not armed is nobody's: any core may arm it. To look whether it is, when it is another
 * core's, is the race that this check is to report, and not the thread sanitizer. */
static SHOAL_NO_TSAN void check_mine(const struct shoal_timer *timer, const char *op)
{
    if (timer->node.next != &timer->node)
        SHOAL_CHECK_OWNER(timer->core, op, "timer %p", (const void *)timer);
}

void shoal_timer_init(struct shoal_timer *timer, void (*fire)(struct shoal_timer *timer))
{
    shoal_list_init(&timer->node);
    timer->deadline_ns = 0;
    timer->period_ns = 0;
    timer->fire = fire;
    timer->slot = SLOT_DUE;
    timer->core = SHOAL_OWNER_NONE;
}

void shoal_timer_arm_at(struct shoal_timer *timer, uint64_t deadline_ns)
{
    struct shoal_core *core = shoal_core_self;
    check_mine(timer, "arm");
    SHOAL_CHECK_ON_CORE("arm of a timer");
    shoal_timer_cancel(timer);
    timer->core = (uint16_t)core->id;
    timer->period_ns = 0;
    shoal_timer_wheel_arm(&core->timers, timer, deadline_ns);
}

void shoal_timer_arm_every(struct shoal_timer *timer, uint64_t first_ns, uint64_t period_ns)
{
    SHOAL_CHECK(period_ns > 0, "a timer with a period of 0");
    shoal_timer_arm_at(timer, first_ns);
    timer->period_ns = period_ns;
}

void shoal_timer_arm(struct shoal_timer *timer, uint64_t delay_ns)
{
    shoal_timer_arm_at(timer, shoal_deadline_ns(shoal_now_ns(), delay_ns));
}

bool shoal_timer_cancel(struct shoal_timer *timer)
{
    check_mine(timer, "cancel");
    if (!shoal_timer_armed(timer))
        return false;
    struct shoal_core *core = shoal_core_self;
    shoal_timer_wheel_cancel(&core->timers, timer);
    return true;
}
