/*
 * Without memory, one core and two: futures, fibers, messages, timers, buffers, files and names.
 * See fault_check.h for what a walk is.
 */
/* backends: both */
#include <fcntl.h>
#include <poll.h>
#include <sys/eventfd.h>

#include "shoal/runtime/buffer.h"
#include "shoal/runtime/clock.h"
#include "shoal/runtime/errors.h"
#include "shoal/runtime/fiber.h"
#include "shoal/runtime/file.h"
#include "shoal/runtime/future.h"
#include "shoal/runtime/io.h"
#include "shoal/runtime/resolve.h"
#include "shoal/runtime/timer.h"

#include "unit/fault_check.h"

/* The first failure counts. */
static void note(int *rc, int code)
{
    if (*rc == 0 && code < 0)
        *rc = code;
}

/* ---- Futures ---- */

static int add_one(void *arg, const union shoal_value *in, union shoal_value *out)
{
    (void)arg;
    out->i64 = in->i64 + 1;
    return 0;
}

static struct shoal_future *add_later(void *arg, const union shoal_value *in)
{
    (void)arg;
    const union shoal_value value = {.i64 = in->i64 + 10};
    return shoal_then(shoal_future_ready(&value), add_one, NULL);
}

static int refuse(void *arg, const union shoal_value *in, union shoal_value *out)
{
    (void)arg;
    (void)in;
    (void)out;
    return -EDOM;
}

/* Lets -EDOM become a value; whatever else passes. */
static int recover(void *arg, int code, const char *text, union shoal_value *out)
{
    (void)arg;
    (void)text;
    out->i64 = 7;
    return code == -EDOM ? 0 : code;
}

static int finals;
static int drops;

static void count_final(void *arg)
{
    (void)arg;
    finals++;
}

static void count_drop(union shoal_value *value)
{
    (void)value;
    drops++;
}

static int chains(void)
{
    union shoal_value value;
    finals = 0;
    struct shoal_future *first = shoal_future_new();
    struct shoal_future *last = shoal_then(first, add_one, NULL);
    last = shoal_then_future(last, add_later, NULL);
    last = shoal_finally(shoal_catch(last, recover, NULL), count_final, NULL);
    if (first != shoal_core_self->no_memory) {
        const union shoal_value three = {.i64 = 3};
        shoal_future_resolve(first, &three);
    }
    int rc = shoal_await(last, &value);
    if (rc == 0)
        SHOAL_EXPECT_INT(value.i64, 15);
    SHOAL_EXPECT_INT(finals, 1);
    return rc;
}

static int failing_chains(void)
{
    union shoal_value value;
    struct shoal_future *last = shoal_then(shoal_future_ready(NULL), refuse, NULL);
    last = shoal_catch(shoal_then(last, shoal_test_unexpected_then, NULL), recover, NULL);
    int rc = shoal_await(last, &value);
    if (rc == 0)
        SHOAL_EXPECT_INT(value.i64, 7);
    int failed =
        shoal_await(shoal_finally(shoal_future_failed(-EDOM, "no %d", 5), count_final, NULL), NULL);
    SHOAL_EXPECT(failed == -EDOM || failed == -ENOMEM);
    if (failed == -EDOM) /* without memory for it the text is lost, and only that */
        SHOAL_EXPECT(strcmp(shoal_error_message(), "no 5") == 0 || shoal_error_message()[0] == 0);
    return rc == 0 && failed == -ENOMEM ? -ENOMEM : rc;
}

static int discarded(void)
{
    drops = 0;
    struct shoal_future *future = shoal_future_new();
    if (future == shoal_core_self->no_memory)
        return -ENOMEM;
    shoal_future_on_drop(future, count_drop);
    shoal_discard(shoal_finally(future, count_final, NULL));
    shoal_future_resolve(future, NULL);
    int rc = shoal_yield();
    SHOAL_EXPECT_INT(drops, 1);
    return rc;
}

/* What a chain works on is its consumer's again once the result is there, and not before. */
static bool given_back;
static int begun, ended;

static int use(void *arg, const union shoal_value *in, union shoal_value *out)
{
    (void)arg;
    (void)in;
    (void)out;
    SHOAL_EXPECT(!given_back);
    return 0;
}

static struct shoal_future *use_later(void *arg, const union shoal_value *in)
{
    (void)in;
    SHOAL_EXPECT(!given_back);
    return shoal_then(shoal_future_ready(NULL), use, arg);
}

static int count_end(void *arg, union shoal_value *out)
{
    (void)arg;
    (void)out;
    SHOAL_EXPECT(!given_back);
    ended++;
    return 0;
}

static int count_end_on_fiber(void *arg, union shoal_value *out)
{
    int rc = shoal_yield();
    return rc < 0 ? rc : count_end(arg, out);
}

static int lifetimes(void)
{
    given_back = false;
    struct shoal_future *first = shoal_then(shoal_future_ready(NULL), use, NULL);
    int rc = shoal_await(shoal_then(shoal_then_future(first, use_later, NULL), use, NULL), NULL);
    struct shoal_future *asked = shoal_submit_fiber_to(0, count_end_on_fiber, NULL);
    begun = shoal_future_is_pending(asked);
    ended = 0;
    note(&rc, shoal_await(shoal_catch(shoal_then(asked, use, NULL), recover, NULL), NULL));
    given_back = true;
    for (int i = 0; i < 4; i++)
        note(&rc, shoal_yield());
    SHOAL_EXPECT(ended <= begun);
    return rc;
}

static int futures_scene(void)
{
    int rc = chains();
    note(&rc, lifetimes());
    note(&rc, failing_chains());
    note(&rc, discarded());
    return rc;
}

/* ---- Fibers ---- */

static int sleep_long(void *arg)
{
    (void)arg;
    return shoal_sleep_ns(3600 * SHOAL_NS_PER_S);
}

static int await_arg(void *arg)
{
    return shoal_await(arg, NULL);
}

static int count_down(void *arg)
{
    int rc = shoal_yield();
    --*(int *)arg;
    return rc;
}

static int give_five(void *arg)
{
    (void)arg;
    return 5;
}

static int spawn_cancelled(void)
{
    struct shoal_fiber *sleeper;
    int rc = shoal_fiber_spawn(&sleeper, sleep_long, NULL, "sleeper");
    if (rc < 0)
        return rc;
    note(&rc, shoal_yield());
    shoal_fiber_cancel(sleeper);
    SHOAL_EXPECT_INT(shoal_fiber_join(sleeper), -ECANCELED);
    return rc;
}

static int spawn_awaiting(void)
{
    struct shoal_fiber *fiber;
    struct shoal_future *future = shoal_future_new();
    if (future == shoal_core_self->no_memory)
        return -ENOMEM;
    int rc = shoal_fiber_spawn(&fiber, await_arg, future, "awaits");
    if (rc < 0) {
        shoal_discard(future);
        shoal_future_fail(future, -EDOM, "nobody is there");
        return rc;
    }
    note(&rc, shoal_yield());
    shoal_future_fail(future, -EDOM, "a text that is copied");
    SHOAL_EXPECT_INT(shoal_fiber_join(fiber), -EDOM);
    return rc;
}

/* More than a batch of stacks, so that cold ones are mapped. */
static int spawn_many(void)
{
    enum { FIBERS = 40 };
    struct shoal_fiber *fibers[FIBERS];
    int left = 0;
    int spawned = 0;
    int rc = 0;
    while (spawned < FIBERS && rc == 0) {
        rc = shoal_fiber_spawn(&fibers[spawned], count_down, &left, "counts");
        left += rc == 0;
        spawned += rc == 0;
    }
    if (shoal_fiber_spawn_detached(count_down, &left, "detached") == 0)
        left++;
    for (int i = 0; i < spawned; i++)
        SHOAL_EXPECT_INT(shoal_fiber_join(fibers[i]), 0);
    while (left > 0 && shoal_yield() == 0)
        ;
    SHOAL_EXPECT_INT(left, 0);
    return rc;
}

static int fibers_scene(void)
{
    struct shoal_fiber *fiber;
    int rc = shoal_fiber_spawn(&fiber, give_five, NULL, "five");
    if (rc == 0)
        SHOAL_EXPECT_INT(shoal_fiber_join(fiber), 5);
    note(&rc, spawn_cancelled());
    note(&rc, spawn_awaiting());
    note(&rc, spawn_many());
    note(&rc, shoal_sleep_ns(1000));
    return rc;
}

/* ---- Messages ---- */

static int plus_one(void *arg, union shoal_value *out)
{
    out->i64 = (intptr_t)arg + 1;
    return 0;
}

static int plus_copied(void *arg, union shoal_value *out)
{
    int64_t term;
    memcpy(&term, arg, sizeof(term));
    out->i64 = term + 1;
    return 0;
}

/* On a fiber of the target, which asks back. */
static int plus_back(void *arg, union shoal_value *out)
{
    return shoal_await(shoal_submit_to(0, plus_one, arg), out);
}

static struct shoal_future *plus_future(void *arg)
{
    const union shoal_value value = {.i64 = (intptr_t)arg};
    return shoal_then(shoal_future_ready(&value), add_one, NULL);
}

static int fail_with_text(void *arg, union shoal_value *out)
{
    (void)arg;
    (void)out;
    return shoal_await(shoal_future_failed(-EDOM, "the text of core %d", shoal_core_id()), NULL);
}

static struct shoal_future *fail_future(void *arg)
{
    (void)arg;
    return shoal_future_failed(-EDOM, "the text of a future");
}

/* Waits for one that gives 5. */
static int five(struct shoal_future *future)
{
    union shoal_value value;
    int rc = shoal_await(future, &value);
    if (rc == 0)
        SHOAL_EXPECT_INT(value.i64, 5);
    return rc;
}

/* Waits for one that fails. */
static int edom(struct shoal_future *future)
{
    int rc = shoal_await(future, NULL);
    SHOAL_EXPECT(rc == -EDOM || rc == -ENOMEM);
    return rc == -EDOM ? 0 : rc;
}

static int messages_scene(void)
{
    const int64_t four = 4;
    void *arg = (void *)4;
    int rc = 0;
    for (unsigned core = 0; core < FAULT_CORES; core++) {
        note(&rc, five(shoal_submit_to(core, plus_one, arg)));
        note(&rc, five(shoal_submit_copy_to(core, plus_copied, &four, sizeof(four))));
        note(&rc, five(shoal_submit_fiber_to(core, plus_back, arg)));
        note(&rc, five(shoal_submit_future_to(core, plus_future, arg)));
        note(&rc, edom(shoal_submit_fiber_to(core, fail_with_text, arg)));
        note(&rc, edom(shoal_submit_future_to(core, fail_future, arg)));
        shoal_discard(shoal_submit_fiber_to(core, plus_back, arg));
    }
    int wrong = shoal_await(shoal_submit_to(FAULT_CORES, plus_one, arg), NULL);
    SHOAL_EXPECT(wrong == SHOAL_ENOCORE || wrong == -ENOMEM);
    return rc;
}

/* More than a ring holds, from several fibers, so that some wait for room in it. */
static int ask_often(void *arg)
{
    enum { MESSAGES = 100 };
    struct shoal_future *answers[MESSAGES];
    int rc = 0;
    for (int i = 0; i < MESSAGES; i++)
        answers[i] = shoal_submit_to(1, plus_one, (void *)4);
    for (int i = 0; i < MESSAGES; i++)
        note(&rc, five(answers[i]));
    *(int *)arg = rc;
    return 0;
}

static int crowd_scene(void)
{
    enum { FIBERS = 4 };
    struct shoal_fiber *fibers[FIBERS];
    int codes[FIBERS] = {0};
    int rc = 0;
    for (int i = 0; i < FIBERS; i++) {
        int spawned = shoal_fiber_spawn(&fibers[i], ask_often, &codes[i], "asks");
        if (spawned < 0)
            fibers[i] = NULL;
        note(&rc, spawned);
    }
    for (int i = 0; i < FIBERS; i++) {
        if (fibers[i] != NULL)
            SHOAL_EXPECT_INT(shoal_fiber_join(fibers[i]), 0);
        note(&rc, codes[i]);
    }
    return rc;
}

/* ---- Timers, buffers, descriptors ---- */

static int fired;

static void fire(struct shoal_timer *timer)
{
    (void)timer;
    fired++;
}

static int timers_scene(void)
{
    struct shoal_timer soon, late;
    fired = 0;
    shoal_timer_init(&soon, fire);
    shoal_timer_init(&late, fire);
    shoal_timer_arm(&soon, 1000);
    shoal_timer_arm(&late, 3600 * SHOAL_NS_PER_S);
    int rc = shoal_sleep_ns(100000);
    SHOAL_EXPECT(shoal_timer_cancel(&late));
    SHOAL_EXPECT_INT(fired, 1);
    int event = eventfd(1, EFD_NONBLOCK | EFD_CLOEXEC);
    SHOAL_EXPECT_INT(shoal_poll_fd(event, POLLIN), POLLIN);
    close(event);
    return rc;
}

static int released;

static void release(void *ctx)
{
    (void)ctx;
    released++;
}

static int buffers_scene(void)
{
    static char bytes[100];
    released = 0;
    struct shoal_chain chain;
    shoal_chain_init(&chain);
    struct shoal_slice *own = shoal_slice_new(1000, "test");
    struct shoal_slice *other = shoal_slice_take_over(bytes, sizeof(bytes), release, NULL, "test");
    int rc = own != NULL && other != NULL ? 0 : -ENOMEM;
    struct shoal_slice *share = other != NULL ? shoal_slice_share(other, 10, 20) : NULL;
    if (share == NULL)
        rc = -ENOMEM;
    else
        shoal_chain_push(&chain, share);
    shoal_slice_free(own);
    shoal_slice_free(other);
    SHOAL_EXPECT_INT(released, other != NULL && share == NULL);
    shoal_chain_clear(&chain);
    SHOAL_EXPECT_INT(released, other != NULL);
    return rc;
}

/* ---- Files and names ---- */

static int read_some(struct shoal_file *file)
{
    char bytes[4096];
    struct shoal_file_stat stat;
    int rc = shoal_file_stat(file, &stat);
    if (rc == 0)
        rc = shoal_file_read(file, bytes, sizeof(bytes), 0);
    if (rc > 0)
        SHOAL_EXPECT(memcmp(bytes, "\177ELF", 4) == 0);
    return rc < 0 ? rc : 0;
}

static int file_scene(void)
{
    const struct shoal_file_how how = {.flags = O_RDONLY};
    struct shoal_file file;
    int rc = shoal_file_open(&file, AT_FDCWD, "/proc/self/exe", &how);
    if (rc < 0)
        return rc == -EAGAIN ? -ENOMEM : rc;
    rc = read_some(&file);
    shoal_file_close(&file);
    return rc == -EAGAIN ? -ENOMEM : rc; /* no helper thread */
}

static int names_scene(void)
{
    char error[SHOAL_RESOLVE_ERROR_MAX];
    struct shoal_resolved found;
    int rc = shoal_resolve("localhost", "80", &found, error, sizeof(error));
    if (rc == 0)
        SHOAL_EXPECT(found.count > 0);
    return rc == -EAGAIN ? -ENOMEM : rc;
}

/* ---- The walks ---- */

static const struct fault_walk walks[] = {
    {.name = "futures", .scene = futures_scene},   {.name = "fibers", .scene = fibers_scene},
    {.name = "messages", .scene = messages_scene}, {.name = "timers", .scene = timers_scene},
    {.name = "buffers", .scene = buffers_scene},   {.name = "file", .scene = file_scene},
    {.name = "names", .scene = names_scene},
};

static const struct fault_walk crowd = {
    .name = "crowd", .scene = crowd_scene, .step = 7 * FAULT_STEP};

static void core_without_memory_fails_and_leaks_nothing(void **state)
{
    (void)state;
    for (size_t i = 0; i < SHOAL_ARRAY_SIZE(walks); i++)
        assert_int_equal(shoal_test_run(FAULT_CORES, fault_walk_warm, (void *)(uintptr_t)&walks[i]),
                         0);
}

static void crowded_ring_without_memory_fails_and_leaks_nothing(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(FAULT_CORES, fault_walk_warm, (void *)(uintptr_t)&crowd), 0);
}

/* All of it, in a program whose slabs, rings and stacks are not there yet. */
static int everything(void)
{
    int rc = 0;
    for (size_t i = 0; i < SHOAL_ARRAY_SIZE(walks); i++)
        note(&rc, walks[i].scene());
    return rc;
}

static void fresh_program_without_memory_fails_and_leaks_nothing(void **state)
{
    (void)state;
    const struct fault_walk walk = {.name = "everything", .scene = everything};
    fault_walk_cold(&walk);
}

static int nothing(void)
{
    return 0;
}

/* The start and the end alone, where io_uring may be given up for epoll. */
static void start_without_memory_says_so_or_takes_epoll(void **state)
{
    (void)state;
    const struct fault_walk walk = {.name = "start", .scene = nothing};
    const char *backend = getenv("SHOAL_TEST_IO_BACKEND");
    char before[32];
    snprintf(before, sizeof(before), "%s", backend != NULL ? backend : "");
    setenv("SHOAL_TEST_IO_BACKEND", "auto", 1);
    fault_walk_cold(&walk);
    setenv("SHOAL_TEST_IO_BACKEND", before, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(start_without_memory_says_so_or_takes_epoll),
        cmocka_unit_test(core_without_memory_fails_and_leaks_nothing),
        cmocka_unit_test(crowded_ring_without_memory_fails_and_leaks_nothing),
        cmocka_unit_test(fresh_program_without_memory_fails_and_leaks_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
