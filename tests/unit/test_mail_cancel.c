/*
 * Calls that are cancelled or time out at any moment, while their arguments lie on the stack of
 * whoever asks: in the ring, before they begin, while they run, as they end. Ids are few and come
 * back at once, so that a cancel that hits the next request of its id is seen.
 *
 * 1. A call that nobody wanted to end never ends by a cancel.
 * 2. The argument is the target's until the future has settled, and not a moment longer.
 * 3. A call that is cancelled ends, even if it would never end by itself.
 * 4. The argument's free function runs once, on the asking core, whatever becomes of the call.
 */
/* backends: both */
#include "shoal/runtime/combine.h"
#include "shoal/runtime/scope.h"

#include "unit/mail_check.h"

#define ASKERS  4 /* fibers of a core */
#define CALLS   (1200 / SHOAL_TEST_SLOWDOWN)
#define LIVE    UINT64_C(0x11fe11fe11fe11fe)
#define DEAD    UINT64_C(0xdeaddeaddeaddead)
#define BOUND   3
#define ENDLESS UINT64_MAX

enum call_kind { CALL_PLAIN, CALL_FIBER, CALL_FUTURE, CALL_KINDS };

/* On the stack of the asker. */
struct call {
    uint64_t magic;
    uint64_t sleep_ns; /* of the target; ENDLESS: until it is cancelled */
    uint32_t yields;
    bool begun;
    bool ended;
    struct shoal_timer timer; /* FUTURE: of the target */
    struct shoal_future *future;
};

static uint64_t random_of[MAIL_CORES_MAX];
static uint32_t frees_wanted[MAIL_CORES_MAX];
static uint32_t frees_seen[MAIL_CORES_MAX];
static struct shoal_service_group *narrow;
static bool failures_allowed;

static uint64_t draw(void)
{
    return shoal_test_random(&random_of[shoal_core_id()]);
}

static unsigned other_core(void)
{
    unsigned cores = shoal_core_count();
    return ((unsigned)shoal_core_id() + 1 + (unsigned)(draw() % (cores - 1))) % cores;
}

/* ---- On the target ---- */

static int run_plain(void *arg, union shoal_value *out)
{
    struct call *call = arg;
    SHOAL_EXPECT(call->magic == LIVE && !call->begun);
    call->begun = true;
    call->ended = true;
    out->u64 = LIVE;
    return 0;
}

static int run_fiber(void *arg, union shoal_value *out)
{
    struct call *call = arg;
    int rc = 0;
    SHOAL_EXPECT(call->magic == LIVE && !call->begun);
    call->begun = true;
    for (uint32_t i = 0; rc == 0 && i < call->yields; i++) {
        rc = shoal_yield();
        SHOAL_EXPECT(call->magic == LIVE);
    }
    while (rc == 0 && call->sleep_ns == ENDLESS)
        rc = shoal_sleep_ns(SHOAL_NS_PER_S);
    if (rc == 0 && call->sleep_ns > 0)
        rc = shoal_sleep_ns(call->sleep_ns);
    SHOAL_EXPECT(call->magic == LIVE && !call->ended);
    call->ended = true;
    out->u64 = LIVE;
    return rc;
}

static void future_done(struct shoal_timer *timer)
{
    struct call *call = SHOAL_CONTAINER_OF(timer, struct call, timer);
    SHOAL_EXPECT(call->magic == LIVE && !call->ended);
    call->ended = true;
    shoal_future_resolve(call->future, &(union shoal_value){.u64 = LIVE});
}

static void future_cancelled(void *ctx)
{
    struct call *call = ctx;
    SHOAL_EXPECT(call->magic == LIVE);
    if (!shoal_timer_cancel(&call->timer))
        return;
    call->ended = true;
    shoal_future_fail(call->future, -ECANCELED, "as it was asked");
}

static struct shoal_future *run_future(void *arg)
{
    struct call *call = arg;
    SHOAL_EXPECT(call->magic == LIVE && !call->begun);
    call->begun = true;
    struct shoal_future *future = shoal_future_new();
    if (!shoal_future_is_pending(future))
        return future;
    call->future = future;
    shoal_timer_init(&call->timer, future_done);
    shoal_timer_arm(&call->timer,
                    call->sleep_ns == ENDLESS ? 1000 * SHOAL_NS_PER_S : call->sleep_ns);
    shoal_future_on_cancel(future, future_cancelled, call);
    return future;
}

/* ---- The asker ---- */

static void free_nothing(void *arg)
{
    struct call *call = arg;
    SHOAL_EXPECT(call->magic == LIVE);
    frees_seen[shoal_core_id()]++;
}

/* A fiber cancels the future that another awaits, through the fiber that awaits it. */
static int await_call(void *arg)
{
    struct shoal_future *future = arg;
    union shoal_value value;
    int rc = shoal_await(future, &value);
    if (rc == 0)
        SHOAL_EXPECT(value.u64 == LIVE);
    return rc;
}

enum way { WAY_WAIT, WAY_CANCEL_AT_ONCE, WAY_CANCEL_FIBER, WAY_TIMEOUT, WAY_SCOPE, WAYS };

static void start(struct shoal_submit *what, struct call *call, unsigned kind)
{
    if (kind == CALL_FIBER)
        what->fiber_fn = run_fiber;
    else if (kind == CALL_FUTURE)
        what->future_fn = run_future;
    else
        what->fn = run_plain;
    what->arg = call;
    if (draw() % 3 == 0) {
        what->arg_free = free_nothing;
        frees_wanted[shoal_core_id()]++;
    }
}

/* Awaits the call on a fiber of its own, which is cancelled some time later. */
static int cancel_fiber(struct shoal_future *future)
{
    struct shoal_fiber *fiber;
    if (shoal_fiber_spawn(&fiber, await_call, future, "awaiter") != 0) {
        shoal_future_cancel(future);
        return shoal_await(future, NULL);
    }
    for (uint64_t i = draw() % 8; i > 0; i--)
        (void)shoal_yield();
    if (draw() % 4 == 0)
        (void)shoal_sleep_ns(draw() % 30000);
    shoal_fiber_cancel(fiber);
    return shoal_fiber_join(fiber);
}

static int ask(struct shoal_submit *what, enum way way)
{
    struct shoal_future *future;
    struct shoal_scope scope;
    int rc;
    switch (way) {
    case WAY_CANCEL_AT_ONCE:
        future = shoal_submit(other_core(), what);
        for (uint64_t i = draw() % 3; i > 0; i--)
            (void)shoal_yield();
        shoal_future_cancel(future);
        return shoal_await(future, NULL);
    case WAY_CANCEL_FIBER:
        return cancel_fiber(shoal_submit(other_core(), what));
    case WAY_TIMEOUT:
        what->timeout_ns = 1 + draw() % 60000;
        return shoal_await(shoal_submit(other_core(), what), NULL);
    case WAY_SCOPE:
        shoal_scope_enter(&scope, &(struct shoal_scope_options){.timeout_ns = 1 + draw() % 60000});
        rc = shoal_await(shoal_submit(other_core(), what), NULL);
        (void)shoal_scope_leave(&scope);
        return rc;
    default:
        return await_call(shoal_submit(other_core(), what));
    }
}

static void ask_once(void)
{
    struct call call = {.magic = LIVE};
    struct shoal_submit what = {.group = draw() % 8 != 0 ? narrow : NULL};
    enum way way = (enum way)(draw() % WAYS);
    unsigned kind = (unsigned)(draw() % CALL_KINDS);
    uint64_t length = draw() % 4;
    if (way != WAY_WAIT && length == 0)
        call.sleep_ns = ENDLESS;
    else if (length == 1)
        call.sleep_ns = draw() % 40000;
    call.yields = (uint32_t)(draw() % 5);
    start(&what, &call, kind);
    int rc = ask(&what, way);
    bool cancel = way == WAY_CANCEL_AT_ONCE || way == WAY_CANCEL_FIBER;
    bool limit = way == WAY_TIMEOUT || way == WAY_SCOPE;
    bool good = rc == 0 || (cancel && rc == -ECANCELED) || (limit && rc == -ETIMEDOUT) ||
                (failures_allowed && rc == -ENOMEM);
    if (!SHOAL_EXPECT(good))
        fprintf(stderr, "kind %u, way %d: %d\n", kind, (int)way, rc);
    if (rc == 0)
        SHOAL_EXPECT(call.begun && call.ended);
    else if (!failures_allowed && way != WAY_SCOPE)
        SHOAL_EXPECT_INT(call.begun, call.ended);
    SHOAL_EXPECT(call.magic == LIVE);
    call.magic = DEAD;
    __asm__ volatile("" ::"r"(&call) : "memory"); /* who reads it later finds that */
}

static int ask_many(void *arg)
{
    (void)arg;
    for (unsigned i = 0; i < CALLS; i++)
        ask_once();
    return 0;
}

static int ask_from_here(void *arg, union shoal_value *out)
{
    struct shoal_fiber *fiber[ASKERS];
    unsigned started = 0;
    (void)out;
    for (unsigned i = 0; i < ASKERS; i++)
        if (shoal_fiber_spawn(&fiber[started], ask_many, arg, "asker") == 0)
            started++;
    for (unsigned i = 0; i < started; i++)
        SHOAL_EXPECT_INT(shoal_fiber_join(fiber[i]), 0);
    return 0;
}

static void ask_from_all(void)
{
    struct shoal_future *done[MAIL_CORES_MAX] = {NULL};
    for (unsigned i = 0; i < shoal_core_count(); i++)
        done[i] = shoal_submit_fiber_to(i, ask_from_here, NULL);
    for (unsigned i = 0; i < shoal_core_count(); i++) {
        int rc = shoal_await(done[i], NULL);
        SHOAL_EXPECT(rc == 0 || failures_allowed);
    }
}

static void begin(unsigned run)
{
    for (unsigned i = 0; i < MAIL_CORES_MAX; i++)
        random_of[i] = mail_random_start(run * 10 + i);
    memset(frees_wanted, 0, sizeof(frees_wanted));
    memset(frees_seen, 0, sizeof(frees_seen));
    failures_allowed = false;
    SHOAL_EXPECT_INT(shoal_service_group_new(&narrow, "narrow", BOUND), 0);
    mail_delays(run, 100000, 20000);
}

static void end(void)
{
    mail_on_all(mail_disarm_delays_here, NULL);
    for (unsigned i = 0; i < shoal_core_count(); i++)
        SHOAL_EXPECT_INT(frees_seen[i], frees_wanted[i]);
    SHOAL_EXPECT_INT(shoal_service_group_free(narrow), 0);
}

static int cancel_at_random(void *arg)
{
    struct mail_holding before[MAIL_CORES_MAX] = {0}, after[MAIL_CORES_MAX] = {0};
    begin((unsigned)(uintptr_t)arg);
    ask_from_all();
    mail_on_all(mail_look, before);
    ask_from_all();
    if (!SHOAL_EXPECT(mail_settle(before, after)))
        mail_say_difference(before, after);
    end();
    return 0;
}

static const char *const sleepy[] = {"--overprovisioned", "--idle-poll-time-us", "0", NULL};
static const char *const spinning[] = {"--idle-poll-time-us", "200", NULL};

static void run_with(unsigned cores, const char *const *words, int (*fn)(void *arg))
{
    struct shoal_test_options options = {.cores = cores, .words = words};
    assert_int_equal(shoal_test_run_options(&options, fn, (void *)(uintptr_t)cores), 0);
}

static void mail_cancels_at_random_hit_only_their_calls(void **state)
{
    (void)state;
    run_with(2, sleepy, cancel_at_random);
    run_with(2, spinning, cancel_at_random);
    run_with(4, sleepy, cancel_at_random);
}

/* ---- Without memory ---- */

static int cancel_without_memory(void *arg)
{
    struct mail_holding before[MAIL_CORES_MAX] = {0}, after[MAIL_CORES_MAX] = {0};
    begin((unsigned)(uintptr_t)arg);
    ask_from_all();
    mail_on_all(mail_look, before);
    failures_allowed = true;
    mail_on_all(mail_arm_faults, (void *)2000);
    ask_from_all();
    mail_on_all(mail_disarm_faults, NULL);
    if (!SHOAL_EXPECT(mail_settle(before, after)))
        mail_say_difference(before, after);
    failures_allowed = false;
    ask_from_all();
    end();
    return 0;
}

static void mail_cancels_without_memory_free_each_argument_once(void **state)
{
    (void)state;
    run_with(3, sleepy, cancel_without_memory);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(mail_cancels_at_random_hit_only_their_calls),
        cmocka_unit_test(mail_cancels_without_memory_free_each_argument_once),
    };
    mail_begin();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
