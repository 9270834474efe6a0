/*
 * Fuzz target of the timer wheel, beside a plain array of deadlines.
 *
 *  1. Expiring fires what is due by the tick and nothing else, each once, and nothing early.
 *  2. The next time to look that the wheel tells is never later than the first timer's, or now.
 *  3. A cancelled timer does not fire; one that fires may arm itself again.
 *  4. The exact forms (for clocks that stand still) fire the very first, at its nanosecond.
 *
 * Input: operations of one byte and their operands, see run().
 */
#include "shoal/runtime/clock_impl.h"
#include "shoal/runtime/timer_impl.h"

#include "fuzz/fuzz_input.h"

enum { TIMERS = 24, OPERATIONS_MAX = 400 };

#define TICK_NS (UINT64_C(1) << SHOAL_TIMER_TICK_BITS)

struct timer {
    struct shoal_timer timer;
    bool armed; /* as the model has it */
    bool again; /* arms itself again when it fires, `delay_ns` after its deadline */
    uint64_t delay_ns;
};

static struct {
    struct shoal_timer_wheel wheel;
    struct timer timers[TIMERS];
    uint64_t now_ns;
    uint64_t first_ns; /* exact mode: all that fires now has this deadline */
    bool exact;
    unsigned fired;
} run;

/* The tick in which a deadline has passed; the last one is not rounded up. */
static uint64_t due_tick(uint64_t deadline_ns)
{
    const uint64_t tick = deadline_ns / TICK_NS;
    return tick == UINT64_MAX / TICK_NS ? tick : tick + (deadline_ns % TICK_NS != 0);
}

static void arm(struct timer *timer, uint64_t deadline_ns)
{
    shoal_timer_wheel_arm(&run.wheel, &timer->timer, deadline_ns);
    timer->armed = true;
}

static void fire(struct shoal_timer *fired)
{
    struct timer *timer = SHOAL_CONTAINER_OF(fired, struct timer, timer);
    const uint64_t deadline_ns = timer->timer.deadline_ns;
    REQUIRE(timer->armed && !shoal_timer_armed(fired));
    REQUIRE(due_tick(deadline_ns) <= run.now_ns / TICK_NS || run.exact);
    REQUIRE(!run.exact || (deadline_ns <= run.now_ns && deadline_ns == run.first_ns));
    timer->armed = false;
    run.fired++;
    if (timer->again) {
        timer->again = false;
        arm(timer, shoal_deadline_ns(deadline_ns, timer->delay_ns));
    }
}

static uint64_t model_next_ns(void)
{
    uint64_t next_ns = SHOAL_NS_FOREVER;
    for (unsigned i = 0; i < TIMERS; i++)
        if (run.timers[i].armed && run.timers[i].timer.deadline_ns < next_ns)
            next_ns = run.timers[i].timer.deadline_ns;
    return next_ns;
}

static void require_sound(void)
{
    uint64_t armed = 0;
    for (unsigned i = 0; i < TIMERS; i++) {
        REQUIRE(shoal_timer_armed(&run.timers[i].timer) == run.timers[i].armed);
        armed += run.timers[i].armed;
    }
    REQUIRE(run.wheel.armed == armed);
    const uint64_t next_ns = model_next_ns();
    REQUIRE(shoal_timer_wheel_next_exact_ns(&run.wheel) == next_ns);
    if (armed > 0) {
        const uint64_t due_ns = due_tick(next_ns) * TICK_NS;
        REQUIRE(shoal_timer_wheel_next_ns(&run.wheel) <=
                (due_ns > run.now_ns ? due_ns : run.now_ns));
    }
}

static void expire(void)
{
    bool due[TIMERS];
    unsigned count = 0;
    for (unsigned i = 0; i < TIMERS; i++) {
        due[i] = run.timers[i].armed &&
                 due_tick(run.timers[i].timer.deadline_ns) <= run.now_ns / TICK_NS;
        count += due[i];
    }
    run.fired = 0;
    run.exact = false;
    REQUIRE(shoal_timer_wheel_expire(&run.wheel, run.now_ns) == run.fired);
    REQUIRE(run.fired == count);
}

static void expire_exact(void)
{
    const bool armed = run.wheel.armed > 0; /* one for the end of time counts, too */
    run.fired = 0;
    run.exact = true;
    run.first_ns = model_next_ns();
    REQUIRE(shoal_timer_wheel_expire_exact(&run.wheel, run.now_ns) == run.fired);
    REQUIRE(run.fired == (armed && run.first_ns <= run.now_ns));
}

static uint64_t take_span_ns(struct fuzz_input *in)
{
    const uint8_t shape = fuzz_byte(in);
    const uint64_t value = fuzz_number(in, 1 + shape % 8);
    return shape & 0x80 ? value * TICK_NS : value;
}

static void operate(struct fuzz_input *in)
{
    const uint8_t code = fuzz_byte(in);
    struct timer *timer = &run.timers[fuzz_byte(in) % TIMERS];
    switch (code % 6) {
    case 0:
        if (timer->armed)
            shoal_timer_wheel_cancel(&run.wheel, &timer->timer);
        arm(timer, shoal_deadline_ns(run.now_ns, take_span_ns(in)));
        break;
    case 1:
        if (timer->armed)
            shoal_timer_wheel_cancel(&run.wheel, &timer->timer);
        timer->armed = false;
        break;
    case 2:
        run.now_ns = shoal_deadline_ns(run.now_ns, take_span_ns(in));
        expire();
        break;
    case 3:
        timer->again = true;
        timer->delay_ns = take_span_ns(in);
        break;
    case 4: { /* to the moment of the first timer, as the manual clock does it */
        const uint64_t next_ns = model_next_ns();
        if (next_ns != SHOAL_NS_FOREVER && next_ns > run.now_ns)
            run.now_ns = next_ns;
        expire();
        expire_exact();
        break;
    }
    default: /* a deadline that has passed, or anywhere at all */
        if (!timer->armed)
            arm(timer, fuzz_number(in, 8));
        break;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input in = {data, data + size};
    memset(&run, 0, sizeof(run));
    run.now_ns = fuzz_number(&in, 6);
    shoal_timer_wheel_init(&run.wheel, run.now_ns);
    for (unsigned i = 0; i < TIMERS; i++)
        shoal_timer_init(&run.timers[i].timer, fire);
    for (unsigned i = 0; i < OPERATIONS_MAX && fuzz_more(&in); i++) {
        operate(&in);
        require_sound();
    }
    return 0;
}
