/*
 * Foreign threads and the end of the runtime: every call is answered, later ones are refused, and
 * nobody touches what is gone, wherever the threads are at that moment.
 */
/* backends: both */
#include <poll.h>
#include <sys/wait.h>
#include <unistd.h>

#include "shoal/runtime/core_impl.h"
#include "shoal/runtime/timer.h"

#include "shoal/smp/launch_impl.h"

#include "unit/foreign_check.h"

#define THREADS 6
#define BATCH   24

static int brief(void *arg, union shoal_value *out)
{
    (void)arg;
    (void)out;
    return shoal_yield();
}

static struct shoal_future *brief_future(void *arg)
{
    (void)arg;
    return shoal_future_ready(NULL);
}

/* ---- Threads that call all the time ---- */

struct caller {
    pthread_t thread;
    unsigned number;
    atomic_int *over;
    uint64_t answered;
    uint64_t refused;
};

/* A mix of what ends at once, what waits for a turn, and what waits until it is cancelled. */
static struct shoal_foreign_call some_call(uint64_t draw)
{
    struct shoal_foreign_call call = {.core = (unsigned)(draw >> 8) % FOREIGN_CORES};
    switch (draw % 8) {
    case 0:
        call.fiber_fn = foreign_wait;
        call.timeout_ns = (draw >> 16) % 3 == 0 ? 50 * SHOAL_NS_PER_US : 0;
        break;
    case 1:
        call.future_fn = foreign_wait_future;
        call.timeout_ns = (draw >> 16) % 3 == 0 ? 50 * SHOAL_NS_PER_US : 0;
        break;
    case 2:
        call.fiber_fn = brief;
        break;
    case 3:
        call.future_fn = brief_future;
        break;
    default:
        call.fn = foreign_plus;
        break;
    }
    return call;
}

static void expect_known(int code)
{
    SHOAL_EXPECT(code == 0 || code == -ECANCELED || code == -ETIMEDOUT);
}

static void *call_by_port(void *arg)
{
    struct caller *caller = arg;
    struct shoal_foreign_port *port;
    struct shoal_foreign_outcome outcomes[BATCH];
    uint64_t random = 99 + caller->number, submitted = 0;
    if (!SHOAL_EXPECT_INT(shoal_foreign_port_new(&port, 2 * BATCH), 0))
        return NULL;
    while (atomic_load(caller->over) == 0) {
        struct shoal_foreign_call calls[BATCH];
        for (int i = 0; i < BATCH; i++) {
            calls[i] = some_call(shoal_test_random(&random));
            calls[i].tag = ++submitted;
        }
        int rc = shoal_foreign_port_submit(port, calls, BATCH);
        SHOAL_EXPECT(rc > 0 || rc == -ENOBUFS || rc == SHOAL_ESTOPPING);
        submitted -= (uint64_t)(rc > 0 ? BATCH - rc : BATCH);
        if (rc == SHOAL_ESTOPPING && ++caller->refused % 32 == 0)
            foreign_pause();
        if (rc == -ENOBUFS) /* those that wait for ever make room */
            for (uint64_t tag = submitted; tag + 2 * BATCH > submitted && tag > 0; tag--)
                (void)shoal_foreign_port_cancel(port, tag);
        (void)shoal_foreign_port_wait(port, 100 * SHOAL_NS_PER_US);
        int count = shoal_foreign_port_drain(port, outcomes, BATCH);
        caller->answered += (uint64_t)count;
        for (int i = 0; i < count; i++)
            expect_known(outcomes[i].code);
    }
    while (shoal_foreign_port_in_flight(port) > 0) { /* the stop has answered them all */
        int count = shoal_foreign_port_drain(port, outcomes, BATCH);
        SHOAL_EXPECT(count > 0);
        caller->answered += (uint64_t)count;
        for (int i = 0; i < count; i++)
            expect_known(outcomes[i].code);
        if (count <= 0)
            break;
    }
    SHOAL_EXPECT_INT(caller->answered, submitted);
    shoal_foreign_port_free(port);
    return NULL;
}

static void *call_and_wait(void *arg)
{
    struct caller *caller = arg;
    uint64_t random = 99 + caller->number;
    while (atomic_load(caller->over) == 0) {
        struct shoal_foreign_call call = some_call(shoal_test_random(&random));
        if (call.fn == NULL && call.timeout_ns == 0 && call.fiber_fn != brief &&
            call.future_fn != brief_future && shoal_test_random(&random) % 4 != 0)
            call.timeout_ns = 100 * SHOAL_NS_PER_US; /* few wait for the stop */
        int rc = shoal_foreign_run(&call, NULL, NULL);
        caller->answered += rc != SHOAL_ESTOPPING;
        if (rc != SHOAL_ESTOPPING)
            expect_known(rc);
        else if (++caller->refused % 32 == 0)
            foreign_pause();
    }
    return NULL;
}

static void start_callers(struct caller *callers, atomic_int *over)
{
    for (unsigned i = 0; i < THREADS; i++) {
        callers[i] = (struct caller){.number = i, .over = over};
        assert_int_equal(pthread_create(&callers[i].thread, NULL,
                                        i % 2 == 0 ? call_by_port : call_and_wait, &callers[i]),
                         0);
    }
}

/* One set of threads over several runtimes, each stopped in the middle. */
static void stop_in_the_middle_answers_every_call_again_and_again(void **state)
{
    (void)state;
    const int rounds = 40 / SHOAL_TEST_SLOWDOWN;
    atomic_int over = 0;
    struct caller callers[THREADS];
    uint64_t answered = 0, refused = 0;
    start_callers(callers, &over);
    for (int round = 0; round < rounds; round++) {
        struct shoal_embed *embed = foreign_start();
        for (int i = 0; i < 20 * (round % 5); i++)
            foreign_pause();
        foreign_stop(embed);
    }
    atomic_store(&over, 1);
    for (int i = 0; i < THREADS; i++) {
        pthread_join(callers[i].thread, NULL);
        answered += callers[i].answered;
        refused += callers[i].refused;
    }
    assert_int_equal(shoal_test_failures(), 0);
    print_message("%llu answered, %llu refused\n", (unsigned long long)answered,
                  (unsigned long long)refused);
    assert_true(answered > 0 && refused > 0);
}

/* ---- Outcomes outlive the runtime ---- */

static void stop_leaves_outcomes_to_be_drained_afterwards(void **state)
{
    (void)state;
    struct shoal_embed *embed = foreign_start();
    struct shoal_foreign_port *port;
    struct shoal_foreign_outcome outcomes[8];
    atomic_int waits = 0;
    const struct shoal_foreign_call calls[4] = {
        {.core = 1, .fiber_fn = foreign_wait, .arg = &waits, .tag = 1},
        {.core = 0, .future_fn = foreign_wait_future, .arg = &waits, .tag = 2},
        {.core = 1, .future_fn = foreign_wait_future, .arg = &waits, .tag = 3},
        {.core = 0, .fiber_fn = foreign_wait, .arg = &waits, .tag = 4}};
    assert_int_equal(shoal_foreign_port_new(&port, 4), 0);
    assert_int_equal(shoal_foreign_port_submit(port, calls, 4), 4);
    foreign_await(&waits, 4);
    foreign_stop(embed);
    struct pollfd fd = {.fd = shoal_foreign_port_fd(port), .events = POLLIN};
    assert_int_equal(poll(&fd, 1, 0), 1);
    assert_int_equal(shoal_foreign_port_drain(port, outcomes, 8), 4);
    for (int i = 0; i < 4; i++) {
        const bool future = outcomes[i].tag == 2 || outcomes[i].tag == 3;
        assert_int_equal(outcomes[i].code, -ECANCELED);
        assert_string_equal(outcomes[i].text, future ? "the future was asked to end" : "");
    }
    assert_int_equal(shoal_foreign_port_submit(port, calls, 4), SHOAL_ESTOPPING);
    assert_int_equal(shoal_foreign_port_cancel(port, 1), 0);
    embed = foreign_start(); /* and the port serves the next one */
    const struct shoal_foreign_call call = {.fn = foreign_plus, .arg = (void *)4};
    assert_int_equal(shoal_foreign_port_submit(port, &call, 1), 1);
    assert_int_equal(shoal_foreign_port_wait(port, SHOAL_NS_FOREVER), 0);
    assert_int_equal(shoal_foreign_port_drain(port, outcomes, 8), 1);
    assert_int_equal(outcomes[0].value.i64, 4);
    foreign_stop(embed);
    shoal_foreign_port_free(port);
}

/* An answer that a timer gives, and that no cancel hastens: no fiber tells that it is awaited. */
static struct shoal_timer late_timer;
static struct shoal_future *late_future;
static atomic_int late_begun;

static void resolve_late(struct shoal_timer *timer)
{
    (void)timer;
    shoal_future_resolve(late_future, &(union shoal_value){.i64 = 44});
}

static struct shoal_future *answer_late(void *arg)
{
    (void)arg;
    shoal_timer_init(&late_timer, resolve_late);
    shoal_timer_arm(&late_timer, 30 * SHOAL_NS_PER_MS);
    late_future = shoal_future_new();
    atomic_store(&late_begun, 1);
    return late_future;
}

static void stop_waits_for_an_answer_that_no_fiber_gives(void **state)
{
    (void)state;
    struct shoal_embed *embed = foreign_start();
    struct shoal_foreign_port *port;
    struct shoal_foreign_outcome outcome;
    const struct shoal_foreign_call call = {.core = 1, .future_fn = answer_late};
    assert_int_equal(shoal_foreign_port_new(&port, 4), 0);
    assert_int_equal(shoal_foreign_port_submit(port, &call, 1), 1);
    foreign_await(&late_begun, 1);
    foreign_stop(embed);
    assert_int_equal(shoal_foreign_port_drain(port, &outcome, 1), 1);
    assert_int_equal(outcome.code, 0);
    assert_int_equal(outcome.value.i64, 44);
    shoal_foreign_port_free(port);
}

/* ---- Services may still call while they stop ---- */

static atomic_int served;

static void *call_once(void *arg)
{
    struct shoal_foreign_call call = {.core = 1, .fn = foreign_plus, .arg = arg};
    if (shoal_foreign_run(&call, NULL, NULL) == 0)
        atomic_fetch_add(&served, 1);
    return NULL;
}

/* A service that needs a foreign thread to end: as a handler that Python runs does. */
static void stop_service(void *arg)
{
    pthread_t *thread = arg;
    SHOAL_EXPECT_INT(pthread_create(thread, NULL, call_once, (void *)1), 0);
    while (atomic_load(&served) == 0)
        (void)shoal_sleep_ns(SHOAL_NS_PER_US);
}

static pthread_t service_thread;

static int register_service(void *arg)
{
    (void)arg;
    atomic_store(&served, 0);
    return shoal_at_stop(stop_service, &service_thread);
}

static void stop_takes_calls_until_the_services_have_stopped(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(2, register_service, NULL), 0);
    pthread_join(service_thread, NULL);
    assert_int_equal(atomic_load(&served), 1);
}

/* ---- A thread that is inside the gate ---- */

struct insider {
    pthread_t thread;
    atomic_int inside;
    atomic_int leave;
    atomic_int posted_ran;
    struct shoal_task task;
};

static void posted_task(struct shoal_task *task)
{
    struct insider *insider = SHOAL_CONTAINER_OF(task, struct insider, task);
    shoal_launch_current->members[shoal_core_self->id]->foreign.received++;
    atomic_store(&insider->posted_ran, 1);
}

static void *be_inside(void *arg)
{
    struct insider *insider = arg;
    struct shoal_launch *launch = shoal_foreign_enter();
    SHOAL_EXPECT(launch != NULL);
    atomic_store(&insider->inside, 1);
    foreign_await(&insider->leave, 1);
    insider->task.run = posted_task;
    shoal_foreign_post(launch->fleet.core[1], &insider->task); /* the core must still be there */
    shoal_foreign_leave();
    return NULL;
}

static void stop_waits_for_a_thread_in_the_middle_of_a_call(void **state)
{
    (void)state;
    struct shoal_embed *embed = foreign_start();
    struct insider insider = {.inside = 0};
    assert_int_equal(pthread_create(&insider.thread, NULL, be_inside, &insider), 0);
    foreign_await(&insider.inside, 1);
    shoal_embed_stop(embed);
    const struct shoal_foreign_call call = {.core = 0, .fn = foreign_plus};
    int rc;
    while ((rc = shoal_foreign_run(&call, NULL, NULL)) == 0) /* until the gate is closed */
        foreign_pause();
    assert_int_equal(rc, SHOAL_ESTOPPING);
    assert_int_equal(shoal_embed_wait(embed, 20 * SHOAL_NS_PER_MS, NULL), -ETIMEDOUT);
    atomic_store(&insider.leave, 1);
    foreign_stop(embed);
    pthread_join(insider.thread, NULL);
    assert_int_equal(atomic_load(&insider.posted_ran), 1);
}

/* ---- What is posted when the loops have ended ---- */

#define HOPS 25

/* Runs until the end of its core's loop, and then goes from core to core. */
struct traveller {
    struct shoal_task task;
    int hops;
    bool on_its_way;
};

static struct traveller travellers[3];

static void travel(struct shoal_task *task)
{
    struct traveller *traveller = SHOAL_CONTAINER_OF(task, struct traveller, task);
    struct shoal_core *core = shoal_core_self;
    if (!traveller->on_its_way && !core->quit) {
        shoal_core_post(core, task); /* keeps the loop from its end, but not from quit */
        return;
    }
    traveller->on_its_way = true;
    if (++traveller->hops < HOPS)
        shoal_core_post_foreign(
            shoal_launch_current->fleet.core[(core->id + 1) % shoal_core_count()], task);
}

static int begin_travel(void *arg, union shoal_value *out)
{
    (void)out;
    struct traveller *traveller = arg;
    *traveller = (struct traveller){.task = {.run = travel}};
    shoal_core_post(shoal_core_self, &traveller->task);
    return 0;
}

static int leave_travellers(void *arg)
{
    (void)arg;
    for (unsigned i = 0; i < 3; i++)
        SHOAL_EXPECT_INT(shoal_await(shoal_submit_to(i, begin_travel, &travellers[i]), NULL), 0);
    return 0;
}

static void stop_runs_what_is_posted_after_the_loops_have_ended(void **state)
{
    (void)state;
    for (int round = 0; round < 20 / SHOAL_TEST_SLOWDOWN + 1; round++) {
        assert_int_equal(shoal_test_run(3, leave_travellers, NULL), 0);
        for (int i = 0; i < 3; i++)
            assert_int_equal(travellers[i].hops, HOPS);
    }
}

/* ---- Children ---- */

static void fork_child_is_refused_and_can_run_its_own(void **state)
{
    (void)state;
    struct shoal_embed *embed = foreign_start();
    struct shoal_foreign_port *port;
    atomic_int waits = 0;
    const struct shoal_foreign_call wait = {.core = 1, .fiber_fn = foreign_wait, .arg = &waits};
    const struct shoal_foreign_call call = {.core = 1, .fn = foreign_plus, .arg = (void *)3};
    assert_int_equal(shoal_foreign_port_new(&port, 4), 0);
    assert_int_equal(shoal_foreign_port_submit(port, &wait, 1), 1);
    foreign_await(&waits, 1);
    fflush(NULL);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        struct shoal_foreign_outcome outcome;
        int bad = shoal_foreign_run(&call, NULL, NULL) != SHOAL_ESTOPPING;
        bad += shoal_foreign_port_submit(port, &call, 1) != SHOAL_ESTOPPING;
        bad += shoal_foreign_port_drain(port, &outcome, 1) != 0;
        bad += shoal_foreign_port_cancel(port, 0) != 0;
        bad += shoal_foreign_port_wait(port, SHOAL_NS_FOREVER) != SHOAL_ESTOPPING;
        shoal_foreign_port_free(port);
        shoal_embed_stop(embed);
        bad += shoal_embed_wait(embed, SHOAL_NS_FOREVER, NULL) != SHOAL_ESTOPPING;
        bad += shoal_embed_free(embed) != 0;
#ifndef SHOAL_TSAN /* which cannot make threads in the child of a process that has some */
        struct shoal_foreign_answer answer = {.text = NULL};
        foreign_running = NULL;
        embed = foreign_start();
        bad += shoal_foreign_run(&call, NULL, &answer) != 0 || answer.value.i64 != 1003;
        foreign_stop(embed);
#endif
        _exit(bad);
    }
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
    /* The parent has noticed nothing. */
    assert_int_equal(shoal_foreign_run(&call, NULL, NULL), 0);
    shoal_foreign_port_free(port);
    foreign_stop(embed);
}

/* ---- A call that does not end ---- */

static int stubborn(void *arg, union shoal_value *out)
{
    (void)arg;
    (void)out;
    shoal_fiber_shield();
    while (!shoal_fiber_cancelled()) /* never seen behind the shield */
        (void)shoal_sleep_ns(SHOAL_NS_PER_MS);
    return 0;
}

static void *call_stubborn(void *arg)
{
    const struct shoal_foreign_call call = {.core = 1, .fiber_fn = stubborn};
    (void)shoal_foreign_run(&call, NULL, NULL);
    return arg;
}

static int leave_stubborn(void *arg)
{
    pthread_t thread;
    (void)arg;
    int rc = pthread_create(&thread, NULL, call_stubborn, NULL);
    return rc == 0 ? shoal_sleep_ns(50 * SHOAL_NS_PER_MS) : -rc;
}

static int run_stubborn(void *arg)
{
    return shoal_test_run(2, leave_stubborn, arg);
}

static void stop_gives_up_on_a_call_that_never_ends_and_names_it(void **state)
{
    (void)state;
    struct shoal_test_child child;
    shoal_test_in_child(&child, run_stubborn, NULL);
    assert_int_equal(child.exit_code, 1);
    assert_non_null(strstr(child.text, "fiber \"foreign call\" does not end"));
    assert_non_null(strstr(child.text, "1 calls of foreign threads have no answer"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(stop_in_the_middle_answers_every_call_again_and_again),
        cmocka_unit_test(stop_leaves_outcomes_to_be_drained_afterwards),
        cmocka_unit_test(stop_waits_for_an_answer_that_no_fiber_gives),
        cmocka_unit_test(stop_takes_calls_until_the_services_have_stopped),
        cmocka_unit_test(stop_waits_for_a_thread_in_the_middle_of_a_call),
        cmocka_unit_test(stop_runs_what_is_posted_after_the_loops_have_ended),
        cmocka_unit_test(fork_child_is_refused_and_can_run_its_own),
        cmocka_unit_test(stop_gives_up_on_a_call_that_never_ends_and_names_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
