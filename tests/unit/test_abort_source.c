/*
 * The abort source: one request, everyone told, links to fibers and futures.
 */
/* backends: both */
#include "shoal/runtime/abort_source.h"

#include "unit/sync_check.h"

static struct shoal_abort_source source;

static void begin(void)
{
    sync_clock_begin();
    shoal_abort_source_init(&source);
}

static void end(void)
{
    SHOAL_EXPECT_INT(sync_waiters(), 0);
    shoal_abort_source_deinit(&source);
    sync_clock_end();
}

static char told[16];

static void note(struct shoal_abort_subscription *subscription, int code, const char *text)
{
    size_t len = strlen(told);
    told[len] = *(const char *)subscription->arg;
    SHOAL_EXPECT_INT(code, -EPIPE);
    SHOAL_EXPECT(strcmp(text, "the peer has gone") == 0);
}

static struct shoal_abort_subscription victim;

static void unsubscribe_victim(struct shoal_abort_subscription *subscription, int code,
                               const char *text)
{
    note(subscription, code, text);
    shoal_abort_unsubscribe(&victim);
    SHOAL_EXPECT(!shoal_abort_request(&source, -EIO, "again"));
}

static int check_subscribers(void *arg)
{
    (void)arg;
    begin();
    memset(told, 0, sizeof(told));
    struct shoal_abort_subscription a, b, c, d = {.fn = NULL};
    shoal_abort_unsubscribe(&d); /* a zeroed one: nothing */
    SHOAL_EXPECT_INT(shoal_abort_code(&source), 0);
    SHOAL_EXPECT(strcmp(shoal_abort_text(&source), "") == 0);
    SHOAL_EXPECT_INT(shoal_abort_subscribe(&source, &a, note, "a"), 0);
    SHOAL_EXPECT_INT(shoal_abort_subscribe(&source, &b, note, "b"), 0);
    SHOAL_EXPECT_INT(shoal_abort_subscribe(&source, &c, unsubscribe_victim, "c"), 0);
    SHOAL_EXPECT_INT(shoal_abort_subscribe(&source, &victim, note, "v"), 0);
    SHOAL_EXPECT_INT(shoal_abort_subscribe(&source, &d, note, "d"), 0);
    shoal_abort_unsubscribe(&b);
    char text[] = "the peer has gone";
    SHOAL_EXPECT(shoal_abort_request(&source, -EPIPE, text));
    memset(text, 'x', 3); /* it was copied */
    SHOAL_EXPECT(strcmp(told, "acd") == 0);
    SHOAL_EXPECT(!shoal_abort_request(&source, -EIO, "another"));
    SHOAL_EXPECT_INT(shoal_abort_code(&source), -EPIPE);
    SHOAL_EXPECT(strcmp(shoal_abort_text(&source), "the peer has gone") == 0);
    SHOAL_EXPECT_INT(shoal_abort_subscribe(&source, &b, note, "b"), -EPIPE); /* too late */
    shoal_abort_unsubscribe(&b);
    shoal_abort_unsubscribe(&a);
    SHOAL_EXPECT(strcmp(told, "acd") == 0);
    end();
    return 0;
}

static void abort_tells_each_subscriber_once_with_code_and_text(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(1, check_subscribers, NULL), 0);
}

static int check_deadline(void *arg)
{
    (void)arg;
    begin();
    shoal_abort_set_timeout(&source, 2 * TICK);
    sync_pass(TICK);
    SHOAL_EXPECT_INT(shoal_abort_code(&source), 0);
    shoal_abort_set_deadline(&source, shoal_now_ns() + 3 * TICK); /* moved */
    sync_pass(2 * TICK);
    SHOAL_EXPECT_INT(shoal_abort_code(&source), 0);
    sync_pass(TICK);
    SHOAL_EXPECT_INT(shoal_abort_code(&source), -ETIMEDOUT);
    shoal_abort_set_timeout(&source, TICK); /* nothing more to come */
    SHOAL_EXPECT(!shoal_timer_armed(&source.deadline));
    end();
    begin();
    shoal_abort_set_timeout(&source, TICK);
    shoal_abort_set_timeout(&source, FOREVER); /* taken back */
    sync_pass(10 * TICK);
    SHOAL_EXPECT_INT(shoal_abort_code(&source), 0);
    shoal_abort_set_timeout(&source, TICK);
    SHOAL_EXPECT(shoal_abort_request(&source, -EIO, NULL));
    SHOAL_EXPECT(!shoal_timer_armed(&source.deadline));
    sync_pass(TICK);
    SHOAL_EXPECT_INT(shoal_abort_code(&source), -EIO);
    end();
    begin();
    shoal_abort_set_timeout(&source, TICK);
    end(); /* disarmed with the source */
    return 0;
}

static void abort_deadline_requests_with_its_own_code(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(1, check_deadline, NULL), 0);
}

static int wait_for_abort(void *arg)
{
    return shoal_abort_wait(&source, *(uint64_t *)arg);
}

static int sleep_forever(void *arg)
{
    (void)arg;
    return shoal_sleep_ns(FOREVER);
}

static int check_waiters(void *arg)
{
    (void)arg;
    uint64_t forever = FOREVER, tick = TICK;
    begin();
    struct shoal_fiber *waiter = sync_spawn(wait_for_abort, &forever);
    struct shoal_fiber *late = sync_spawn(wait_for_abort, &tick);
    struct shoal_fiber *cancelled = sync_spawn(wait_for_abort, &forever);
    struct shoal_fiber *sleeper = sync_spawn(sleep_forever, NULL);
    struct shoal_fiber *other = sync_spawn(sleep_forever, NULL);
    struct shoal_future *future = shoal_abort_future(&source, FOREVER);
    struct shoal_future *gone = shoal_abort_future(&source, FOREVER);
    struct shoal_abort_subscription links[2];
    shoal_abort_link_fiber(&source, &links[0], sleeper);
    sync_settle();
    SHOAL_EXPECT_INT(shoal_abort_wait(&source, 0), -ETIMEDOUT);
    sync_pass(TICK);
    SHOAL_EXPECT_INT(shoal_fiber_join(late), -ETIMEDOUT);
    shoal_fiber_cancel(cancelled);
    SHOAL_EXPECT_INT(shoal_fiber_join(cancelled), -ECANCELED);
    shoal_future_cancel(gone);
    SHOAL_EXPECT_INT(sync_await(gone), -ECANCELED);
    SHOAL_EXPECT(shoal_abort_request(&source, -EIO, "no disk"));
    shoal_fiber_cancel(waiter); /* the abort was faster */
    SHOAL_EXPECT_INT(shoal_fiber_join(waiter), 0);
    SHOAL_EXPECT_INT(shoal_fiber_join(sleeper), -ECANCELED);
    SHOAL_EXPECT_INT(sync_await(future), -EIO);
    SHOAL_EXPECT(strcmp(shoal_error_message(), "no disk") == 0);
    SHOAL_EXPECT_INT(shoal_abort_wait(&source, FOREVER), 0);
    SHOAL_EXPECT_INT(sync_await(shoal_abort_future(&source, 0)), -EIO);
    SHOAL_EXPECT(strcmp(shoal_error_message(), "no disk") == 0);
    shoal_abort_link_fiber(&source, &links[1], other); /* after the request: at once */
    SHOAL_EXPECT_INT(shoal_fiber_join(other), -ECANCELED);
    shoal_abort_unsubscribe(&links[0]);
    shoal_abort_unsubscribe(&links[1]);
    end();
    return 0;
}

static void abort_ends_waits_and_cancels_linked_fibers(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(1, check_waiters, NULL), 0);
}

/* ---- Linked futures ---- */

static struct shoal_future *producing;
static int asked;
static int dropped;

static void refuse_to_end(void *ctx)
{
    (void)ctx;
    asked++;
}

static void end_cancelled(void *ctx)
{
    (void)ctx;
    asked++;
    shoal_future_fail(producing, -ECANCELED, "asked to end");
}

static void drop(union shoal_value *value)
{
    dropped += (int)value->i64;
}

static struct shoal_future *produce(shoal_cancel_fn *cancel)
{
    producing = shoal_future_new();
    shoal_future_on_cancel(producing, cancel, NULL);
    shoal_future_on_drop(producing, drop);
    asked = 0;
    dropped = 0;
    return producing;
}

static void resolve(int64_t number)
{
    union shoal_value value = {.i64 = number};
    shoal_future_resolve(producing, &value);
}

static int check_links(void *arg)
{
    (void)arg;
    union shoal_value value = {.i64 = 0};
    begin(); /* without an abort: as it ends */
    struct shoal_future *outer = shoal_abort_link(&source, produce(end_cancelled));
    resolve(5);
    SHOAL_EXPECT_INT(shoal_await(outer, &value), 0);
    SHOAL_EXPECT_INT(value.i64, 5);
    outer = shoal_abort_link(&source, produce(end_cancelled));
    shoal_future_fail(producing, -EBADF, "of its own");
    SHOAL_EXPECT_INT(sync_await(outer), -EBADF);
    SHOAL_EXPECT(strcmp(shoal_error_message(), "of its own") == 0);
    outer = shoal_abort_link(&source, produce(end_cancelled));
    shoal_future_cancel(outer); /* reaches the producer */
    SHOAL_EXPECT_INT(asked, 1);
    SHOAL_EXPECT_INT(sync_await(outer), -ECANCELED);
    outer = shoal_abort_link(&source, produce(refuse_to_end));
    shoal_discard(outer); /* what its value owns is freed */
    resolve(6);
    sync_settle();
    SHOAL_EXPECT_INT(dropped, 6);
    SHOAL_EXPECT_INT(sync_waiters(), 0);
    /* With an abort: code and text of it, once the producer has ended. */
    outer = shoal_abort_link(&source, produce(end_cancelled));
    SHOAL_EXPECT(shoal_abort_request(&source, -EIO, "no disk"));
    SHOAL_EXPECT_INT(asked, 1);
    SHOAL_EXPECT_INT(sync_await(outer), -EIO);
    SHOAL_EXPECT(strcmp(shoal_error_message(), "no disk") == 0);
    outer = shoal_abort_link(&source, produce(end_cancelled)); /* after the request */
    SHOAL_EXPECT_INT(sync_await(outer), -EIO);
    SHOAL_EXPECT(strcmp(shoal_error_message(), "no disk") == 0);
    outer = shoal_abort_link(&source, shoal_future_ready(&value));
    value.i64 = 0;
    SHOAL_EXPECT_INT(shoal_await(outer, &value), 0); /* the value was faster */
    SHOAL_EXPECT_INT(value.i64, 5);
    end();
    begin(); /* a producer that takes its time: the result waits for it */
    outer = shoal_abort_link(&source, produce(refuse_to_end));
    SHOAL_EXPECT(shoal_abort_request(&source, -EIO, "no disk"));
    SHOAL_EXPECT_INT(asked, 1);
    sync_settle();
    SHOAL_EXPECT(shoal_future_is_pending(outer));
    resolve(7);
    SHOAL_EXPECT_INT(shoal_await(outer, &value), 0);
    SHOAL_EXPECT_INT(value.i64, 7);
    end();
    begin();
    outer = shoal_abort_link(&source, produce(refuse_to_end));
    SHOAL_EXPECT(shoal_abort_request(&source, -EIO, "no disk"));
    shoal_abort_source_deinit(&source); /* the link has its own copy */
    shoal_future_fail(producing, -ECANCELED, NULL);
    SHOAL_EXPECT_INT(sync_await(outer), -EIO);
    SHOAL_EXPECT(strcmp(shoal_error_message(), "no disk") == 0);
    SHOAL_EXPECT_INT(sync_waiters(), 0);
    sync_clock_end();
    return 0;
}

static void abort_link_passes_values_and_replaces_failures(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(1, check_links, NULL), 0);
}

/* ---- Stress: waits, links and aborts meet in every order ---- */

struct world {
    bool requested;
};

static void check_world(void *arg)
{
    struct world *world = arg;
    SHOAL_EXPECT_INT(shoal_abort_code(&source), world->requested ? -EIO : 0);
    SHOAL_EXPECT(!world->requested || source.queue.count == 0);
}

static void step(struct sync_actor *actor, void *arg)
{
    struct world *world = arg;
    union shoal_value value;
    uint64_t timeout_ns = TICK * (1 + sync_random(actor, 8));
    int code = -ECANCELED;
    switch (sync_random(actor, 12)) {
    case 0:
        if (sync_random(actor, 4) == 0) {
            SHOAL_EXPECT_INT(shoal_abort_request(&source, -EIO, NULL), !world->requested);
            world->requested = true;
        }
        return;
    case 1:
    case 2:
    case 3:
        (void)sync_end_somehow(actor, shoal_abort_future(&source, timeout_ns), &value, &code);
        SHOAL_EXPECT(sync_early(code) || (code == -EIO && world->requested));
        break;
    case 4:
    case 5:
    case 6: {
        struct shoal_abort_source never;
        shoal_abort_source_init(&never);
        struct shoal_future *inner = shoal_abort_future(&never, timeout_ns);
        (void)sync_end_somehow(actor, shoal_abort_link(&source, inner), &value, &code);
        SHOAL_EXPECT(sync_early(code) || (code == -EIO && world->requested));
        shoal_abort_request(&never, -EIO, NULL); /* a discarded link's */
        shoal_abort_source_deinit(&never);
        break;
    }
    default:
        code = shoal_abort_wait(&source, timeout_ns);
        SHOAL_EXPECT(sync_early(code) || (code == 0 && world->requested));
        break;
    }
}

static void end_round(void *arg)
{
    ((struct world *)arg)->requested = false;
    sync_settle();
    shoal_abort_source_deinit(&source);
    shoal_abort_source_init(&source);
}

static int check_stress(void *arg)
{
    (void)arg;
    struct world world = {0};
    const struct sync_stress stress = {.rounds = 200,
                                       .actors = 8,
                                       .steps = 10,
                                       .step = step,
                                       .check = check_world,
                                       .round_end = end_round,
                                       .arg = &world};
    shoal_abort_source_init(&source);
    sync_stress_run(&stress);
    shoal_abort_source_deinit(&source);
    return 0;
}

static void abort_reaches_everyone_under_stress(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(1, check_stress, NULL), 0);
}

static int end_subscribed(void *arg)
{
    (void)arg;
    struct shoal_abort_subscription subscription;
    shoal_abort_source_init(&source);
    shoal_abort_subscribe(&source, &subscription, note, "a");
    shoal_abort_source_deinit(&source);
    return 0;
}

static void abort_source_end_with_a_subscriber_aborts(void **state)
{
    (void)state;
    shoal_test_fiber_aborts_with(1, end_subscribed, "while somebody is subscribed");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(abort_tells_each_subscriber_once_with_code_and_text),
        cmocka_unit_test(abort_deadline_requests_with_its_own_code),
        cmocka_unit_test(abort_ends_waits_and_cancels_linked_fibers),
        cmocka_unit_test(abort_link_passes_values_and_replaces_failures),
        cmocka_unit_test(abort_reaches_everyone_under_stress),
        cmocka_unit_test(abort_source_end_with_a_subscriber_aborts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
