/*
 * Ports of foreign threads: each promise of foreign_thread.h.
 */
/* backends: both */
#include <signal.h>

#include <poll.h>
#include <unistd.h>

#include "shoal/runtime/fault.h"
#include "shoal/runtime/mem.h"

#include "unit/foreign_check.h"

#define PLACES 64

static struct shoal_foreign_port *port_new(unsigned in_flight_max)
{
    struct shoal_foreign_port *port;
    assert_int_equal(shoal_foreign_port_new(&port, in_flight_max), 0);
    return port;
}

/* Whether the descriptor of `port` is readable by `timeout_ms`. */
static bool readable(const struct shoal_foreign_port *port, int timeout_ms)
{
    struct pollfd fd = {.fd = shoal_foreign_port_fd(port), .events = POLLIN};
    return poll(&fd, 1, timeout_ms) == 1;
}

/* Drains until `count` outcomes have come; polls the descriptor as a host does. */
static void drain_all(struct shoal_foreign_port *port, struct shoal_foreign_outcome *outcomes,
                      unsigned count)
{
    unsigned got = 0;
    while (got < count) {
        int n = shoal_foreign_port_drain(port, outcomes + got, count - got);
        assert_true(n >= 0);
        got += (unsigned)n;
        if (got < count)
            assert_true(readable(port, -1));
    }
}

static void submit_all(struct shoal_foreign_port *port, const struct shoal_foreign_call *calls,
                       unsigned count)
{
    assert_int_equal(shoal_foreign_port_submit(port, calls, count), count);
}

/* ---- Values, order ---- */

static void port_outcomes_bring_tag_value_and_core_of_each_kind(void **state)
{
    (void)state;
    struct shoal_embed *embed = foreign_start();
    struct shoal_foreign_port *port = port_new(PLACES);
    struct shoal_foreign_call calls[PLACES];
    struct shoal_foreign_outcome outcomes[PLACES];
    for (unsigned round = 0; round < 200 / SHOAL_TEST_SLOWDOWN; round++) {
        bool seen[PLACES] = {false};
        memset(calls, 0, sizeof(calls));
        for (unsigned i = 0; i < PLACES; i++) {
            calls[i].core = (i + round) % FOREIGN_CORES;
            calls[i].arg = (void *)(intptr_t)i;
            calls[i].tag = i;
            if (i % 3 == 0)
                calls[i].fn = foreign_plus;
            else if (i % 3 == 1)
                calls[i].fiber_fn = foreign_plus;
            else
                calls[i].future_fn = foreign_plus_future;
        }
        submit_all(port, calls, PLACES);
        memset(calls, 0xee, sizeof(calls)); /* they have been copied */
        drain_all(port, outcomes, PLACES);
        for (unsigned i = 0; i < PLACES; i++) {
            const unsigned tag = (unsigned)outcomes[i].tag;
            assert_true(tag < PLACES && !seen[tag]);
            seen[tag] = true;
            assert_int_equal(outcomes[i].code, 0);
            assert_int_equal(outcomes[i].core, (tag + round) % FOREIGN_CORES);
            assert_int_equal(outcomes[i].value.i64, tag + outcomes[i].core * 1000);
            assert_string_equal(outcomes[i].text, "");
        }
        assert_int_equal(shoal_foreign_port_in_flight(port), 0);
    }
    shoal_foreign_port_free(port);
    foreign_stop(embed);
}

#define ORDER_CALLS 3000

static int next_on_core[FOREIGN_CORES];

static int note_order(void *arg, union shoal_value *out)
{
    (void)out;
    SHOAL_EXPECT_INT((intptr_t)arg, next_on_core[shoal_core_id()]);
    next_on_core[shoal_core_id()]++;
    return 0;
}

/* Also across batches that are larger than a burst, and of cores that take turns. */
static void port_calls_to_one_core_start_and_come_back_in_order(void **state)
{
    (void)state;
    static struct shoal_foreign_call calls[ORDER_CALLS];
    static struct shoal_foreign_outcome outcomes[ORDER_CALLS];
    struct shoal_embed *embed = foreign_start();
    struct shoal_foreign_port *port = port_new(ORDER_CALLS);
    int next[FOREIGN_CORES] = {0};
    memset(next_on_core, 0, sizeof(next_on_core));
    for (unsigned i = 0; i < ORDER_CALLS; i++) {
        unsigned core = (i * 7 / 5) % FOREIGN_CORES;
        intptr_t number = next[core]++;
        calls[i] = (struct shoal_foreign_call){
            .core = core, .fn = note_order, .arg = (void *)number, .tag = (uint64_t)number};
    }
    for (unsigned at = 0, size = 1; at < ORDER_CALLS; at += size, size = size * 3 + 1) {
        if (size > ORDER_CALLS - at)
            size = ORDER_CALLS - at;
        submit_all(port, calls + at, size);
    }
    drain_all(port, outcomes, ORDER_CALLS);
    memset(next, 0, sizeof(next));
    for (unsigned i = 0; i < ORDER_CALLS; i++)
        assert_int_equal(outcomes[i].tag, next[outcomes[i].core]++);
    shoal_foreign_port_free(port);
    foreign_stop(embed);
}

/* ---- Callbacks ---- */

static struct {
    pthread_t thread;
    struct shoal_foreign_port *port;
    atomic_int on_core;
    int here;
    int again;
} heard;

static void hear_here(const struct shoal_foreign_outcome *outcome)
{
    assert_true(pthread_equal(pthread_self(), heard.thread));
    assert_int_equal(outcome->value.i64, outcome->tag + outcome->core * 1000);
    heard.here++;
    if (heard.again-- > 0) { /* it may submit, also where no room was left */
        const struct shoal_foreign_call call = {
            .fn = foreign_plus, .arg = (void *)9, .tag = 9, .done = hear_here};
        submit_all(heard.port, &call, 1);
    }
}

static void hear_on_core(const struct shoal_foreign_outcome *outcome)
{
    SHOAL_EXPECT_INT(outcome->core, shoal_core_id());
    SHOAL_EXPECT_INT(outcome->value.i64, outcome->tag + outcome->core * 1000);
    atomic_fetch_add(&heard.on_core, 1);
}

static void count_end(const struct shoal_foreign_outcome *outcome)
{
    SHOAL_EXPECT_INT(outcome->core, shoal_core_id());
    atomic_fetch_add(&heard.on_core, 1);
}

static void port_done_runs_where_it_was_asked_to(void **state)
{
    (void)state;
    struct shoal_embed *embed = foreign_start();
    struct shoal_foreign_port *port = port_new(8);
    memset(&heard, 0, sizeof(heard));
    heard.thread = pthread_self();
    heard.port = port;
    for (uint64_t i = 0; i < 8; i++) {
        struct shoal_foreign_call call = {.core = (unsigned)i % 2, .tag = i, .arg = (void *)i};
        call.done_on_core = i >= 4;
        call.done = call.done_on_core ? hear_on_core : hear_here;
        if (i % 3 == 0)
            call.fn = foreign_plus;
        else if (i % 3 == 1)
            call.fiber_fn = foreign_plus;
        else
            call.future_fn = foreign_plus_future;
        submit_all(port, &call, 1);
    }
    heard.again = 3;
    while (heard.here < 7) {
        assert_true(readable(port, -1));
        assert_int_equal(shoal_foreign_port_drain(port, NULL, 0), 0);
    }
    foreign_await(&heard.on_core, 4);
    shoal_foreign_port_free(port);
    foreign_stop(embed);
}

/* Calls whose end the thread does not see wake it only when it has asked for room. */
static void port_full_of_unseen_calls_tells_when_there_is_room(void **state)
{
    (void)state;
    struct shoal_embed *embed = foreign_start();
    struct shoal_foreign_port *port = port_new(4);
    memset(&heard, 0, sizeof(heard));
    int wanted = 0;
    const struct shoal_foreign_call call = {
        .core = 1, .fn = foreign_plus, .done = hear_on_core, .done_on_core = true};
    for (int round = 0; round < 2000 / SHOAL_TEST_SLOWDOWN;) {
        int rc = shoal_foreign_port_submit(port, &call, 1);
        if (rc == 1) {
            round++;
            wanted++;
            continue;
        }
        assert_int_equal(rc, -ENOBUFS);
        assert_true(readable(port, -1));
        assert_int_equal(shoal_foreign_port_drain(port, NULL, 0), 0);
    }
    foreign_await(&heard.on_core, wanted);
    assert_int_equal(shoal_foreign_port_drain(port, NULL, 0), 0);
    assert_false(readable(port, 0));
    assert_int_equal(shoal_foreign_port_submit(port, &call, 1), 1);
    foreign_await(&heard.on_core, wanted + 1);
    assert_false(readable(port, 1));
    shoal_foreign_port_free(port);
    foreign_stop(embed);
}

/* A function that submits what ends at once must not keep a drain for ever. */
static void port_drain_ends_although_each_call_submits_another(void **state)
{
    (void)state;
    struct shoal_embed *embed = foreign_start();
    heard.port = port_new(64);
    heard.thread = pthread_self();
    heard.here = 0;
    heard.again = 1 << 20;
    const struct shoal_foreign_call call = {
        .fn = foreign_plus, .arg = (void *)9, .tag = 9, .done = hear_here};
    for (int i = 0; i < 64; i++)
        submit_all(heard.port, &call, 1);
    for (int drains = 0; drains < 50; drains++) {
        assert_true(readable(heard.port, -1));
        assert_int_equal(shoal_foreign_port_drain(heard.port, NULL, 0), 0);
    }
    assert_true(heard.again > 0);
    heard.again = 0;
    shoal_foreign_port_free(heard.port);
    foreign_stop(embed);
}

/* ---- Bounds and refusals ---- */

static void port_bad_calls_are_refused_with_a_reason(void **state)
{
    (void)state;
    struct shoal_foreign_port *port;
    assert_int_equal(shoal_foreign_port_new(&port, 0), -EINVAL);
    assert_null(port);
    assert_int_equal(shoal_foreign_port_new(&port, SHOAL_FOREIGN_IN_FLIGHT_MAX + 1), -EINVAL);
    port = port_new(4); /* before any runtime */
    struct shoal_foreign_call calls[3] = {
        {.fn = foreign_plus}, {.fn = foreign_plus, .core = 7}, {.fn = foreign_plus}};
    assert_int_equal(shoal_foreign_port_submit(port, calls, 3), SHOAL_ESTOPPING);
    assert_string_equal(shoal_foreign_port_error(port), "the runtime does not run, or stops");
    struct shoal_embed *embed = foreign_start();
    assert_int_equal(shoal_foreign_port_submit(port, calls, 0), 0);
    assert_int_equal(shoal_foreign_port_submit(port, calls, 3), 1);
    assert_string_equal(shoal_foreign_port_error(port), "core 7 does not exist (allowed: 0 to 1)");
    assert_int_equal(shoal_foreign_port_submit(port, calls + 1, 2), SHOAL_ENOCORE);
    calls[1] = (struct shoal_foreign_call){.core = 0};
    assert_int_equal(shoal_foreign_port_submit(port, calls + 1, 2), -EINVAL);
    calls[1] = (struct shoal_foreign_call){.fn = foreign_plus, .done_on_core = true};
    assert_int_equal(shoal_foreign_port_submit(port, calls + 1, 2), -EINVAL);
    assert_int_equal(shoal_foreign_port_in_flight(port), 1);
    struct shoal_foreign_outcome outcomes[4];
    drain_all(port, outcomes, 1);
    foreign_stop(embed);
    assert_int_equal(shoal_foreign_port_submit(port, calls, 1), SHOAL_ESTOPPING);
    shoal_foreign_port_free(port);
    shoal_foreign_port_free(NULL);
}

static void port_at_its_bound_takes_no_more_until_drained(void **state)
{
    (void)state;
    struct shoal_embed *embed = foreign_start();
    struct shoal_foreign_port *port = port_new(3);
    struct shoal_foreign_outcome outcomes[8];
    const struct shoal_foreign_call calls[5] = {{.fn = foreign_plus, .tag = 1},
                                                {.core = 1, .fn = foreign_plus, .tag = 2},
                                                {.fiber_fn = foreign_plus, .tag = 3},
                                                {.fn = foreign_plus, .tag = 4},
                                                {.core = 1, .fn = foreign_plus, .tag = 5}};
    for (int round = 0; round < 1000 / SHOAL_TEST_SLOWDOWN; round++) {
        assert_int_equal(shoal_foreign_port_submit(port, calls, 5), 3);
        assert_string_equal(shoal_foreign_port_error(port),
                            "3 calls are in flight (allowed: up to 3)");
        assert_int_equal(shoal_foreign_port_submit(port, calls + 3, 2), -ENOBUFS);
        /* Also when the submit has seen an outcome: the descriptor still tells of it. */
        assert_true(readable(port, -1));
        drain_all(port, outcomes, 1);
        assert_int_equal(shoal_foreign_port_submit(port, calls + 3, 2), 1);
        drain_all(port, outcomes + 1, 3);
        assert_int_equal(shoal_foreign_port_drain(port, outcomes, 8), 0);
        assert_false(readable(port, 0));
    }
    shoal_foreign_port_free(port);
    foreign_stop(embed);
}

/* ---- The descriptor ---- */

static void port_descriptor_is_readable_from_the_first_outcome_to_the_drain(void **state)
{
    (void)state;
    struct shoal_embed *embed = foreign_start();
    struct shoal_foreign_port *port = port_new(16);
    struct shoal_foreign_outcome outcomes[16];
    const struct shoal_foreign_call call = {.core = 1, .fn = foreign_plus};
    assert_false(readable(port, 0));
    for (int round = 0; round < 300 / SHOAL_TEST_SLOWDOWN; round++) {
        for (int i = 0; i < 4; i++)
            submit_all(port, &call, 1);
        assert_true(readable(port, -1));
        assert_true(readable(port, -1)); /* looking takes nothing away */
        /* What is left keeps it readable. */
        assert_int_equal(shoal_foreign_port_drain(port, outcomes, 1), 1);
        assert_true(readable(port, -1));
        drain_all(port, outcomes, 3);
        assert_int_equal(shoal_foreign_port_drain(port, outcomes, 16), 0);
        assert_false(readable(port, 0));
    }
    shoal_foreign_port_free(port);
    foreign_stop(embed);
}

static void nothing(int number)
{
    (void)number;
}

struct target {
    pthread_t thread;
    atomic_int over;
};

static void *interrupt(void *arg)
{
    struct target *target = arg;
    while (atomic_load(&target->over) == 0) {
        pthread_kill(target->thread, SIGUSR1);
        foreign_pause();
    }
    return NULL;
}

static void port_wait_ends_by_outcome_time_out_signal_or_for_want_of_calls(void **state)
{
    (void)state;
    struct shoal_embed *embed = foreign_start();
    struct shoal_foreign_port *port = port_new(16);
    struct shoal_foreign_outcome outcome;
    assert_int_equal(shoal_foreign_port_wait(port, SHOAL_NS_FOREVER), -ENOENT);
    struct shoal_foreign_call call = {.core = 1, .fn = foreign_plus};
    for (int round = 0; round < 200 / SHOAL_TEST_SLOWDOWN; round++) {
        submit_all(port, &call, 1);
        assert_int_equal(shoal_foreign_port_wait(port, SHOAL_NS_FOREVER), 0);
        assert_int_equal(shoal_foreign_port_wait(port, 0), 0); /* still there */
        assert_int_equal(shoal_foreign_port_drain(port, &outcome, 1), 1);
        assert_int_equal(shoal_foreign_port_wait(port, 0), -ENOENT);
    }
    call = (struct shoal_foreign_call){.core = 1, .fiber_fn = foreign_wait, .tag = 5};
    submit_all(port, &call, 1);
    assert_int_equal(shoal_foreign_port_wait(port, SHOAL_NS_PER_MS), -ETIMEDOUT);
    struct sigaction action = {.sa_handler = nothing}, before;
    struct target target = {.thread = pthread_self()};
    pthread_t thread;
    sigaction(SIGUSR1, &action, &before);
    assert_int_equal(pthread_create(&thread, NULL, interrupt, &target), 0);
    assert_int_equal(shoal_foreign_port_wait(port, SHOAL_NS_FOREVER), -EINTR);
    atomic_store(&target.over, 1);
    pthread_join(thread, NULL);
    sigaction(SIGUSR1, &before, NULL);
    assert_int_equal(shoal_foreign_port_cancel(port, 5), 1);
    while (shoal_foreign_port_wait(port, SHOAL_NS_FOREVER) == -EINTR)
        ;
    assert_int_equal(shoal_foreign_port_drain(port, &outcome, 1), 1);
    assert_int_equal(outcome.code, -ECANCELED);
    shoal_foreign_port_free(port);
    foreign_stop(embed);
}

static void port_turn_drains_before_it_submits(void **state)
{
    (void)state;
    struct shoal_embed *embed = foreign_start();
    struct shoal_foreign_port *port = port_new(2);
    struct shoal_foreign_outcome outcomes[4];
    const struct shoal_foreign_call calls[3] = {{.fn = foreign_plus, .tag = 1},
                                                {.fn = foreign_plus, .tag = 2},
                                                {.fn = foreign_plus, .tag = 3}};
    struct shoal_foreign_turn turn = {
        .calls = calls, .calls_count = 3, .outcomes = outcomes, .outcomes_max = 4};
    assert_int_equal(shoal_foreign_port_turn(port, &turn), 0);
    assert_int_equal(turn.calls_taken, 2);
    assert_int_equal(turn.code, -ENOBUFS);
    unsigned got = 0, taken = 2;
    while (got < 3) {
        turn.calls = calls + taken;
        turn.calls_count = 3 - taken;
        assert_true(readable(port, -1));
        got += (unsigned)shoal_foreign_port_turn(port, &turn);
        assert_true(turn.outcomes_count > 0 || turn.calls_taken == 0);
        taken += turn.calls_taken;
        assert_true(turn.code == 0 || turn.code == -ENOBUFS);
    }
    assert_int_equal(taken, 3);
    turn.calls_count = 0;
    assert_int_equal(shoal_foreign_port_turn(port, &turn), 0);
    assert_int_equal(turn.code, 0);
    shoal_foreign_port_free(port);
    foreign_stop(embed);
}

/* ---- Failures ---- */

static int fail_with_text(void *arg, union shoal_value *out)
{
    return shoal_await(shoal_future_failed(-EIO, "failure %d %0480d", (int)(intptr_t)arg, 7), out);
}

static void expect_text(const struct shoal_foreign_outcome *outcome)
{
    char text[SHOAL_FOREIGN_TEXT_MAX];
    snprintf(text, sizeof(text), "failure %d %0480d", (int)outcome->tag, 7);
    assert_int_equal(outcome->code, -EIO);
    assert_string_equal(outcome->text, text);
    assert_int_equal(outcome->value.u64, 0);
    heard.here++;
}

static void port_texts_are_whole_and_stay_until_the_next_drain(void **state)
{
    (void)state;
    struct shoal_embed *embed = foreign_start();
    struct shoal_foreign_port *port = port_new(8);
    struct shoal_foreign_outcome outcomes[8];
    struct shoal_foreign_call calls[8];
    for (uint64_t round = 0; round < 100 / SHOAL_TEST_SLOWDOWN; round++) {
        for (uint64_t i = 0; i < 8; i++)
            calls[i] = (struct shoal_foreign_call){.core = (unsigned)i % 2,
                                                   .fiber_fn = fail_with_text,
                                                   .arg = (void *)(round * 8 + i),
                                                   .tag = round * 8 + i};
        submit_all(port, calls, 8);
        unsigned got = 0;
        while (got < 8) {
            assert_true(readable(port, -1));
            int n = shoal_foreign_port_drain(port, outcomes, 8);
            /* What is submitted now does not use what is being read. */
            for (uint64_t i = 0; i < 8 && n > 0 && got + (unsigned)n == 8; i++) {
                calls[i].done = expect_text;
                submit_all(port, &calls[i], 1);
            }
            for (int i = 0; i < n; i++)
                expect_text(&outcomes[i]);
            got += (unsigned)n;
        }
        heard.here = 0;
        while (heard.here < 8) {
            assert_true(readable(port, -1));
            assert_int_equal(shoal_foreign_port_drain(port, NULL, 0), 0);
        }
    }
    shoal_foreign_port_free(port);
    foreign_stop(embed);
}

/* ---- Cancel ---- */

static void port_cancel_by_tag_ends_those_calls_alone(void **state)
{
    (void)state;
    struct shoal_embed *embed = foreign_start();
    struct shoal_foreign_port *port = port_new(PLACES);
    struct shoal_foreign_outcome outcomes[PLACES];
    struct shoal_foreign_call calls[PLACES];
    atomic_int waits = 0;
    memset(calls, 0, sizeof(calls));
    for (unsigned i = 0; i < PLACES; i++) {
        calls[i].core = i % FOREIGN_CORES;
        calls[i].arg = &waits;
        calls[i].tag = i % 4;
        if (i % 8 < 4)
            calls[i].fiber_fn = foreign_wait;
        else
            calls[i].future_fn = foreign_wait_future;
    }
    submit_all(port, calls, PLACES);
    foreign_await(&waits, PLACES);
    assert_int_equal(shoal_foreign_port_cancel(port, 99), 0);
    for (uint64_t tag = 0; tag < 4; tag++) {
        assert_int_equal(shoal_foreign_port_cancel(port, tag), PLACES / 4);
        assert_int_equal(shoal_foreign_port_cancel(port, tag), 0); /* each is asked once */
        drain_all(port, outcomes, PLACES / 4);
        for (unsigned i = 0; i < PLACES / 4; i++) {
            assert_int_equal(outcomes[i].tag, tag);
            assert_int_equal(outcomes[i].code, -ECANCELED);
        }
        assert_int_equal(shoal_foreign_port_drain(port, outcomes, PLACES), 0);
    }
    shoal_foreign_port_free(port);
    foreign_stop(embed);
}

static int yield_some(void *arg, union shoal_value *out)
{
    (void)out;
    for (intptr_t i = 0; i < (intptr_t)arg; i++) {
        int rc = shoal_yield();
        if (rc < 0)
            return rc;
    }
    return 0;
}

/* Cancels meet calls at every stage; slots are few, so that each is used again and again. */
static void port_cancel_that_races_with_the_end_leaves_the_next_call_alone(void **state)
{
    (void)state;
    struct shoal_embed *embed = foreign_start();
    struct shoal_foreign_port *port = port_new(4);
    struct shoal_foreign_outcome outcome;
    uint64_t random = 4711, tag = 0, ended = 0, cancelled = 0;
    const uint64_t total = 40000 / SHOAL_TEST_SLOWDOWN;
    bool asked[5] = {false};
    uint64_t tags[5] = {0};
    while (ended < total) {
        uint64_t draw = shoal_test_random(&random);
        struct shoal_foreign_call call = {.core = (unsigned)(draw >> 8) % FOREIGN_CORES,
                                          .arg = (void *)((draw >> 16) % 4),
                                          .tag = ++tag};
        if (draw % 3 == 0)
            call.fn = foreign_plus;
        else
            call.fiber_fn = yield_some;
        int rc = shoal_foreign_port_submit(port, &call, 1);
        assert_true(rc == 1 || rc == -ENOBUFS);
        if (rc == 1) {
            tags[tag % 5] = tag; /* at most four are in flight, but not always the last four */
            asked[tag % 5] = (draw >> 32) % 2 == 0;
            if (asked[tag % 5])
                assert_int_equal(shoal_foreign_port_cancel(port, tag), 1);
        } else {
            tag--;
            if (shoal_foreign_port_in_flight(port) == 4)
                assert_true(readable(port, -1));
        }
        while (shoal_foreign_port_drain(port, &outcome, 1) == 1) {
            ended++;
            if (tags[outcome.tag % 5] == outcome.tag && !asked[outcome.tag % 5])
                assert_int_equal(outcome.code, 0);
            assert_true(outcome.code == 0 || outcome.code == -ECANCELED);
            cancelled += outcome.code != 0;
        }
    }
    print_message("%llu of %llu cancelled\n", (unsigned long long)cancelled,
                  (unsigned long long)ended);
    assert_true(cancelled > 0 && cancelled < ended);
    shoal_foreign_port_free(port);
    foreign_stop(embed);
}

/* ---- The end of a port, and of its thread ---- */

static void port_free_cancels_and_waits_for_what_is_in_flight(void **state)
{
    (void)state;
    struct shoal_embed *embed = foreign_start();
    for (int round = 0; round < 200 / SHOAL_TEST_SLOWDOWN; round++) {
        struct shoal_foreign_port *port = port_new(PLACES);
        struct shoal_foreign_call calls[PLACES];
        memset(calls, 0, sizeof(calls));
        for (unsigned i = 0; i < PLACES; i++) {
            calls[i].core = i % FOREIGN_CORES;
            if (i % 4 == 0)
                calls[i].fiber_fn = foreign_wait;
            else if (i % 4 == 1)
                calls[i].future_fn = foreign_wait_future;
            else
                calls[i].fn = foreign_plus;
            calls[i].done_on_core = i % 8 == 7;
            calls[i].done = calls[i].done_on_core ? count_end : NULL;
        }
        submit_all(port, calls, (unsigned)round % PLACES + 1);
        shoal_foreign_port_free(port);
    }
    foreign_stop(embed);
}

static void *submit_and_end(void *arg)
{
    struct shoal_foreign_port **port = arg;
    *port = port_new(PLACES);
    const struct shoal_foreign_call calls[] = {{.core = 1, .fiber_fn = foreign_wait, .tag = 1},
                                               {.core = 0, .fn = foreign_plus, .tag = 2}};
    submit_all(*port, calls, 2);
    return NULL;
}

static void port_of_a_thread_that_ended_is_taken_over(void **state)
{
    (void)state;
    struct shoal_embed *embed = foreign_start();
    struct shoal_foreign_port *port = NULL;
    struct shoal_foreign_outcome outcomes[2];
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, submit_and_end, &port), 0);
    pthread_join(thread, NULL);
    drain_all(port, outcomes, 1);
    assert_int_equal(outcomes[0].tag, 2);
    assert_int_equal(shoal_foreign_port_cancel(port, 1), 1);
    drain_all(port, outcomes, 1);
    assert_int_equal(outcomes[0].code, -ECANCELED);
    shoal_foreign_port_free(port);
    foreign_stop(embed);
}

/* ---- Memory ---- */

static int count_allocs(void *arg, union shoal_value *out)
{
    struct shoal_mem_stats stats;
    (void)arg;
    shoal_mem_stats(&stats);
    out->u64 = stats.allocs;
    return 0;
}

static uint64_t core_allocs(void)
{
    uint64_t sum = 0;
    for (unsigned core = 0; core < FOREIGN_CORES; core++) {
        struct shoal_foreign_answer answer = {.text = NULL};
        const struct shoal_foreign_call call = {.core = core, .fn = count_allocs};
        assert_int_equal(shoal_foreign_run(&call, NULL, &answer), 0);
        sum += answer.value.u64;
    }
    return sum;
}

static void port_calls_allocate_nothing_once_it_is_warm(void **state)
{
    (void)state;
    struct shoal_embed *embed = foreign_start();
    struct shoal_foreign_port *port = port_new(PLACES);
    struct shoal_foreign_call calls[PLACES];
    struct shoal_foreign_outcome outcomes[PLACES];
    const struct shoal_fault_plan counting = {.nth = UINT64_MAX};
    struct shoal_fault_stats stats;
    uint64_t before = 0;
    memset(calls, 0, sizeof(calls));
    for (unsigned i = 0; i < PLACES; i++) {
        calls[i].core = i % FOREIGN_CORES;
        if (i % 3 == 0)
            calls[i].fiber_fn = foreign_plus;
        else if (i % 3 == 1)
            calls[i].future_fn = foreign_plus_future;
        else
            calls[i].fn = foreign_plus;
        calls[i].timeout_ns = i % 2 == 0 ? 100 * SHOAL_NS_PER_S : 0;
    }
    for (int round = 0; round < 200 / SHOAL_TEST_SLOWDOWN; round++) {
        if (round == 10) {
            before = core_allocs();
            shoal_fault_arm(&counting);
        }
        submit_all(port, calls, PLACES);
        drain_all(port, outcomes, PLACES);
    }
    shoal_fault_disarm(&stats);
    assert_int_equal(stats.asked, 0);
    assert_int_equal(core_allocs(), before);
    shoal_foreign_port_free(port);
    foreign_stop(embed);
}

static void port_without_memory_is_not_made(void **state)
{
    (void)state;
    struct shoal_foreign_port *port;
    struct shoal_fault_stats stats;
    uint64_t nth = 1;
    for (;; nth++) {
        shoal_fault_arm(&(struct shoal_fault_plan){.nth = nth});
        int rc = shoal_foreign_port_new(&port, 4);
        shoal_fault_disarm(&stats);
        if (stats.failed == 0)
            break;
        assert_int_equal(rc, -ENOMEM);
        assert_null(port);
    }
    assert_int_equal(nth, 5);
    shoal_foreign_port_free(port);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(port_outcomes_bring_tag_value_and_core_of_each_kind),
        cmocka_unit_test(port_calls_to_one_core_start_and_come_back_in_order),
        cmocka_unit_test(port_done_runs_where_it_was_asked_to),
        cmocka_unit_test(port_full_of_unseen_calls_tells_when_there_is_room),
        cmocka_unit_test(port_drain_ends_although_each_call_submits_another),
        cmocka_unit_test(port_bad_calls_are_refused_with_a_reason),
        cmocka_unit_test(port_at_its_bound_takes_no_more_until_drained),
        cmocka_unit_test(port_descriptor_is_readable_from_the_first_outcome_to_the_drain),
        cmocka_unit_test(port_wait_ends_by_outcome_time_out_signal_or_for_want_of_calls),
        cmocka_unit_test(port_turn_drains_before_it_submits),
        cmocka_unit_test(port_texts_are_whole_and_stay_until_the_next_drain),
        cmocka_unit_test(port_cancel_by_tag_ends_those_calls_alone),
        cmocka_unit_test(port_cancel_that_races_with_the_end_leaves_the_next_call_alone),
        cmocka_unit_test(port_free_cancels_and_waits_for_what_is_in_flight),
        cmocka_unit_test(port_of_a_thread_that_ended_is_taken_over),
        cmocka_unit_test(port_calls_allocate_nothing_once_it_is_warm),
        cmocka_unit_test(port_without_memory_is_not_made),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
