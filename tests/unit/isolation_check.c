/*
 * See isolation_check.h.
 */
#include "unit/isolation_check.h"

#include <signal.h>
#include <stdatomic.h>

#include <pthread.h>
#include <unistd.h>

#include "shoal/runtime/clock.h"
#include "shoal/runtime/fiber.h"

#include "shoal/smp/submit.h"

#define FOREIGN (-1)

struct attempt {
    const struct isolation_case *at;
    size_t count;
    int maker;         /* a core */
    int user;          /* a core, or FOREIGN */
    _Atomic bool over; /* release, acquire: what was made is seen by who waits for it */
};

/* ---- In the child ---- */

static int make_there(void *arg)
{
    struct attempt *attempt = arg;
    attempt->at->make();
    atomic_store_explicit(&attempt->over, true, memory_order_release);
    return shoal_sleep_ns(SHOAL_NS_PER_S * 3600); /* a scope, for one, ends with its fiber */
}

static int spawn_maker(void *arg, union shoal_value *out)
{
    (void)out;
    return shoal_fiber_spawn_detached(make_there, arg, "maker");
}

static int call_there(void *arg, union shoal_value *out)
{
    (void)out;
    const struct attempt *attempt = arg;
    attempt->at->call();
    return 0;
}

static void *call_foreign(void *arg)
{
    (void)call_there(arg, NULL);
    return NULL;
}

static void wait_for(struct attempt *attempt)
{
    while (!atomic_load_explicit(&attempt->over, memory_order_acquire))
        SHOAL_EXPECT_INT(shoal_sleep_ns(50 * SHOAL_NS_PER_US), 0);
    attempt->over = false;
}

static int misuse(void *arg)
{
    struct attempt *attempt = arg;
    (void)shoal_await(shoal_submit_to((unsigned)attempt->maker, spawn_maker, arg), NULL);
    wait_for(attempt);
    if (attempt->user == FOREIGN) {
        pthread_t thread;
        SHOAL_EXPECT_INT(pthread_create(&thread, NULL, call_foreign, arg), 0);
        SHOAL_EXPECT_INT(pthread_join(thread, NULL), 0);
    } else {
        (void)shoal_await(shoal_submit_fiber_to((unsigned)attempt->user, call_there, arg), NULL);
    }
    _exit(0); /* nobody has said a word */
}

static int run_misuse(void *arg)
{
    return shoal_test_run(2, misuse, arg);
}

static int make_and_call(void *arg)
{
    struct attempt *attempt = arg;
    attempt->at->make();
    attempt->at->call();
    atomic_store_explicit(&attempt->over, true, memory_order_release);
    shoal_fiber_shield(); /* it may have cancelled itself */
    return shoal_sleep_ns(SHOAL_NS_PER_S * 3600);
}

/* On a fiber of each case's own: what one leaves cancelled or in a scope is nothing to the next. */
static int run_at_home(void *arg, union shoal_value *out)
{
    (void)out;
    struct attempt *attempt = arg;
    for (size_t i = 0; i < attempt->count; i++) {
        struct shoal_fiber *fiber;
        SHOAL_EXPECT_INT(shoal_fiber_spawn(&fiber, make_and_call, arg, attempt->at->name), 0);
        wait_for(attempt);
        attempt->at++;
    }
    _exit(0); /* with all that they have left behind */
}

static int use_at_home(void *arg)
{
    return shoal_await(shoal_submit_fiber_to(1, run_at_home, arg), NULL);
}

static int run_use_at_home(void *arg)
{
    return shoal_test_run(2, use_at_home, arg);
}

/* ---- In the parent ---- */

/* Whether one line says `: TEXT... of core MAKER on WHERE`. */
static bool says(const char *output, const char *text, const char *end)
{
    char begin[160];
    snprintf(begin, sizeof(begin), ": %s", text);
    const char *line = strstr(output, begin);
    const char *rest = line != NULL ? strstr(line, end) : NULL;
    return rest != NULL && memchr(line, '\n', (size_t)(rest - line)) == NULL;
}

static void expect_abort(const struct isolation_case *one, int maker, int user)
{
    struct attempt attempt = {.at = one, .count = 1, .maker = maker, .user = user};
    struct shoal_test_child child;
    char end[96];
    if (user == FOREIGN)
        snprintf(end, sizeof(end), "on a thread that is no core (core -, no fiber)");
    else
        snprintf(end, sizeof(end), " of core %d on core %d (core %d, ", maker, user, user);
    shoal_test_in_child(&child, run_misuse, &attempt);
    if (child.signal != SIGABRT || !says(child.text, one->text, end))
        fail_msg("case %s: signal %d, exit code %d, no \"%s ...%s\" in:\n%s", one->name,
                 child.signal, child.exit_code, one->text, end, child.text);
}

void isolation_expect_aborts(const struct isolation_case *cases, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        bool turned = i % 2 != 0;
        expect_abort(&cases[i], turned ? 1 : 0, turned ? 0 : 1);
    }
}

void isolation_expect_foreign_aborts(const struct isolation_case *cases, size_t count)
{
    for (size_t i = 0; i < count; i++)
        expect_abort(&cases[i], 0, FOREIGN);
}

void isolation_expect_silence(const struct isolation_case *cases, size_t count)
{
    struct attempt attempt = {.at = cases, .count = count};
    struct shoal_test_child child;
    shoal_test_in_child(&child, run_use_at_home, &attempt);
    if (child.exit_code != 0)
        fail_msg("signal %d, exit code %d:\n%s", child.signal, child.exit_code, child.text);
}
