/*
 * Inspection of one core: what is said of fibers is true, and alike ones are told once.
 */
#include "shoal/runtime/clock.h"
#include "shoal/runtime/inspect.h"
#include "shoal/runtime/inspect_impl.h"
#include "shoal/runtime/sched_group.h"

#include "shoal/smp/submit.h"

#include "unit/inspect_check.h"

/* ---- Fibers that wait, with functions of known names on their stacks ---- */

static struct shoal_future *gate;

static __attribute__((noinline)) int wait_inner(void)
{
    int rc = shoal_sleep_ns(3600 * SHOAL_NS_PER_S);
    return rc == -ECANCELED ? 3 : 0;
}

static __attribute__((noinline)) int wait_outer(void *arg)
{
    (void)arg;
    int rc = wait_inner();
    return rc == 3 ? 3 : 1;
}

static int await_gate(void *arg)
{
    (void)arg;
    return shoal_await(gate, NULL);
}

static int join_other(void *arg)
{
    return shoal_fiber_join(arg);
}

static int return_at_once(void *arg)
{
    (void)arg;
    return 0;
}

static void end(struct shoal_fiber *fiber)
{
    shoal_fiber_cancel(fiber);
    (void)shoal_fiber_join(fiber);
}

/* ---- shoal_inspect_fibers ---- */

struct seen {
    struct {
        char name[32], state[16], waits_for[64], group[32], stack[4096];
        unsigned frames;
        bool cancelled;
        shoal_fiber_fn *fn;
        const struct shoal_fiber *fiber;
    } fiber[16];
    unsigned count;
    unsigned stop_after;
};

static bool note_fiber(void *ctx, const struct shoal_inspect_fiber *found)
{
    struct seen *seen = ctx;
    unsigned i = seen->count++;
    snprintf(seen->fiber[i].name, 32, "%s", found->name);
    snprintf(seen->fiber[i].state, 16, "%s", found->state);
    snprintf(seen->fiber[i].group, 32, "%s", found->group);
    snprintf(seen->fiber[i].waits_for, 64, "%s",
             found->waits_for != NULL ? found->waits_for : "nothing");
    seen->fiber[i].frames = found->frame_count;
    seen->fiber[i].cancelled = found->cancelled;
    seen->fiber[i].fn = found->fn;
    seen->fiber[i].fiber = found->fiber;
    size_t length = 0;
    for (unsigned f = 0; f < found->frame_count && length < 3800; f++) {
        length += shoal_inspect_symbol(found->frames[f], seen->fiber[i].stack + length, 200);
        seen->fiber[i].stack[length++] = '\n';
    }
    seen->fiber[i].stack[length] = '\0';
    return seen->count != seen->stop_after;
}

static int index_of(const struct seen *seen, const char *name)
{
    for (unsigned i = 0; i < seen->count; i++)
        if (strcmp(seen->fiber[i].name, name) == 0)
            return (int)i;
    return -1;
}

static int look_at_fibers(void *arg)
{
    static struct seen seen;
    (void)arg;
    memset(&seen, 0, sizeof(seen));
    gate = shoal_future_new();
    struct shoal_fiber *sleeper = spawn(wait_outer, NULL, "sleeper");
    struct shoal_fiber *awaiter = spawn(await_gate, NULL, "awaiter");
    struct shoal_fiber *joiner = spawn(join_other, sleeper, "joiner");
    struct shoal_fiber *done = spawn(return_at_once, NULL, "done");
    (void)shoal_yield();
    struct shoal_fiber *fresh = spawn(return_at_once, NULL, "fresh");
    SHOAL_EXPECT_INT(shoal_inspect_fibers(note_fiber, &seen), 6);
    SHOAL_EXPECT_INT(seen.count, 6);
    int at = index_of(&seen, "sleeper");
    if (SHOAL_EXPECT(at >= 0)) {
        SHOAL_EXPECT(strcmp(seen.fiber[at].state, "parked") == 0);
        SHOAL_EXPECT(strcmp(seen.fiber[at].waits_for, "sleep") == 0);
        SHOAL_EXPECT(strcmp(seen.fiber[at].group, "main") == 0);
        SHOAL_EXPECT(seen.fiber[at].fn == wait_outer && seen.fiber[at].fiber == sleeper);
        const char *inner = strstr(seen.fiber[at].stack, " wait_inner+");
        SHOAL_EXPECT(inner != NULL && strstr(inner, " wait_outer+") != NULL);
        SHOAL_EXPECT(strstr(seen.fiber[at].stack, " shoal_fiber_first_frame+") != NULL);
    }
    at = index_of(&seen, "awaiter");
    SHOAL_EXPECT(at >= 0 && strcmp(seen.fiber[at].waits_for, "future") == 0);
    at = index_of(&seen, "joiner");
    SHOAL_EXPECT(at >= 0 && strcmp(seen.fiber[at].waits_for, "join of fiber \"sleeper\"") == 0);
    at = index_of(&seen, "done");
    SHOAL_EXPECT(at >= 0 && strcmp(seen.fiber[at].state, "done") == 0);
    SHOAL_EXPECT(at >= 0 && seen.fiber[at].frames == 0);
    at = index_of(&seen, "fresh");
    SHOAL_EXPECT(at >= 0 && strcmp(seen.fiber[at].state, "ready") == 0);
    SHOAL_EXPECT(at >= 0 && strcmp(seen.fiber[at].waits_for, "nothing") == 0);
    SHOAL_EXPECT(at >= 0 && seen.fiber[at].frames > 0); /* it begins, or began another time */
    SHOAL_EXPECT(strcmp(seen.fiber[0].state, "running") == 0);
    SHOAL_EXPECT(seen.fiber[0].frames == 0 && !seen.fiber[0].cancelled);
    seen.count = 0;
    shoal_fiber_cancel(awaiter); /* which does not end the wait: nobody is asked */
    shoal_fiber_cancel(sleeper); /* this one is woken, and has not run yet */
    (void)shoal_inspect_fibers(note_fiber, &seen);
    at = index_of(&seen, "sleeper");
    SHOAL_EXPECT(at >= 0 && strcmp(seen.fiber[at].state, "ready") == 0);
    SHOAL_EXPECT(at >= 0 && strcmp(seen.fiber[at].waits_for, "nothing") == 0);
    SHOAL_EXPECT(at >= 0 && seen.fiber[at].cancelled && seen.fiber[at].frames > 3);
    at = index_of(&seen, "awaiter");
    SHOAL_EXPECT(at >= 0 && strcmp(seen.fiber[at].state, "parked") == 0);
    SHOAL_EXPECT(at >= 0 && seen.fiber[at].cancelled);
    seen.count = 0;
    seen.stop_after = 2;
    SHOAL_EXPECT_INT(shoal_inspect_fibers(note_fiber, &seen), 2);
    shoal_future_resolve(gate, NULL);
    SHOAL_EXPECT_INT(shoal_fiber_join(joiner), 3);
    SHOAL_EXPECT_INT(shoal_fiber_join(awaiter), 0);
    SHOAL_EXPECT_INT(shoal_fiber_join(done), 0);
    SHOAL_EXPECT_INT(shoal_fiber_join(fresh), 0);
    return 0;
}

static void inspect_tells_name_state_wait_and_stack_of_each_fiber(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(1, look_at_fibers, NULL), 0);
}

/* ---- What is waited for ---- */

static int pass(void *arg, const union shoal_value *in, union shoal_value *out)
{
    (void)arg;
    *out = *in;
    return 0;
}

static int sleep_there(void *arg, union shoal_value *out)
{
    (void)arg;
    int rc = shoal_sleep_ns(3600 * SHOAL_NS_PER_S);
    out->i64 = rc; /* no tail call: the function is to be on the stack */
    return rc;
}

static int await_submit(void *arg)
{
    (void)arg;
    return shoal_await(shoal_submit_fiber_to(1, sleep_there, NULL), NULL);
}

static int await_chain(void *arg)
{
    (void)arg;
    struct shoal_future *chain = shoal_then(shoal_then(gate, pass, NULL), pass, NULL);
    return shoal_await(chain, NULL);
}

static int describe_waits(void *arg)
{
    (void)arg;
    struct collected all;
    struct shoal_sched_group *group;
    gate = shoal_future_new();
    SHOAL_EXPECT_INT(shoal_sched_group_new(&group, "background", 100), 0);
    struct shoal_fiber *submitter = spawn(await_submit, NULL, "submitter");
    struct shoal_fiber *chained = spawn(await_chain, NULL, "chained");
    struct shoal_fiber *grouped;
    const struct shoal_fiber_options options = {.name = "two\nlines", .group = group};
    SHOAL_EXPECT_INT(shoal_fiber_spawn_with(&grouped, wait_outer, NULL, &options), 0);
    SHOAL_EXPECT(shoal_sleep_ns(20 * SHOAL_NS_PER_MS) == 0);
    report(&all);
    SHOAL_EXPECT(says(&all, "\"submitter\" (0x"));
    SHOAL_EXPECT(says(&all, "parked, waits for future of a submit to core 1\n"));
    SHOAL_EXPECT(says(&all, "parked, waits for future, 2 steps on\n"));
    SHOAL_EXPECT(says(&all, "  1 message without an answer: 1 to core 1\n"));
    SHOAL_EXPECT(says(&all, "fiber \"two?lines\" (0x"));
    SHOAL_EXPECT(says(&all, "waits for sleep, group \"background\"\n"));
    SHOAL_EXPECT(says(&all, "fiber \"submit\" (0x"));
    SHOAL_EXPECT(says(&all, " sleep_there+"));
    SHOAL_EXPECT(says(&all, "running\n"));
    SHOAL_EXPECT(strstr(all.text, "core 0: ") != NULL &&
                 strstr(strstr(all.text, "core 0: "), "\ncore 1: ") != NULL);
    SHOAL_EXPECT_INT(all.pieces, 2);
    free(all.text);
    shoal_future_resolve(gate, NULL);
    SHOAL_EXPECT_INT(shoal_fiber_join(chained), 0);
    end(grouped);
    SHOAL_EXPECT_INT(shoal_sched_group_free(group), 0);
    SHOAL_EXPECT_INT(shoal_await(shoal_submit_to(1, cancel_sleepers, NULL), NULL), 0);
    SHOAL_EXPECT_INT(shoal_fiber_join(submitter), -ECANCELED);
    return 0;
}

static void report_says_what_futures_come_from_and_of_which_group_fibers_are(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(2, describe_waits, NULL), 0);
}

/* ---- Groups ---- */

#define MANY (1500 / SHOAL_TEST_SLOWDOWN)

static __attribute__((noinline)) int deeper(unsigned levels)
{
    volatile unsigned mine = levels;
    int rc = levels > 0 ? deeper(levels - 1) : shoal_sleep_ns(3600 * SHOAL_NS_PER_S);
    return mine == levels ? rc : 1;
}

static int sleep_deep(void *arg)
{
    return deeper((unsigned)(uintptr_t)arg);
}

static int count_groups(void *arg)
{
    (void)arg;
    static struct shoal_fiber *fibers[MANY];
    struct collected all;
    for (unsigned i = 0; i < MANY; i++)
        fibers[i] = spawn(sleep_deep, (void *)(uintptr_t)(i % 3), "many");
    (void)shoal_yield();
    report(&all);
    char wanted[128];
    snprintf(wanted, sizeof(wanted), "core 0: %u fibers (1 running, %u parked), %u timers armed\n",
             MANY + 1, MANY, MANY);
    SHOAL_EXPECT(says(&all, wanted));
#if defined(__OPTIMIZE__) && SHOAL_TEST_SLOWDOWN == 1
    snprintf(wanted, sizeof(wanted), "\n  %u fibers \"many\" (first 0x", MANY / 3);
    SHOAL_EXPECT_INT(count_of(all.text, wanted), 3);
    SHOAL_EXPECT_INT(count_of(all.text, " deeper+"), 1 + 2 + 3);
#else
    /* Where nothing is inlined, it shows whether a fiber gave way to the loop or to another. */
    SHOAL_EXPECT(count_of(all.text, " fibers \"many\" (first 0x") >= 3);
    SHOAL_EXPECT(count_of(all.text, "\"many\"") <= 6);
#endif
    free(all.text);
    for (unsigned i = 0; i < MANY; i++)
        end(fibers[i]);
    return 0;
}

static void report_tells_fibers_with_the_same_stack_once(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(1, count_groups, NULL), 0);
}

static int join_two(void *arg)
{
    (void)arg;
    struct collected all;
    struct shoal_fiber *one = spawn(wait_outer, NULL, "one");
    struct shoal_fiber *two = spawn(wait_outer, NULL, "two");
    struct shoal_fiber *joiners[2] = {spawn(join_other, one, "j"), spawn(join_other, two, "j")};
    (void)shoal_yield();
    report(&all);
    SHOAL_EXPECT(says(&all, "\"j\" (0x"));
    SHOAL_EXPECT(says(&all, "waits for join of fiber \"one\"\n"));
    SHOAL_EXPECT(says(&all, "waits for join of fiber \"two\"\n"));
    free(all.text);
    end(joiners[0]);
    end(joiners[1]);
    return 0;
}

static void report_keeps_fibers_apart_that_wait_for_different_things(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(1, join_two, NULL), 0);
}

/* Whatever way a fiber took to where it waits, comparing words says what a walk says. */
static int compare_walks(void *arg)
{
    (void)arg;
    enum { COUNT = 60 };
    struct shoal_fiber *fibers[COUNT];
    static struct shoal_inspect_stack walks[COUNT];
    unsigned equal = 0, matched = 0;
    for (unsigned i = 0; i < COUNT; i++)
        fibers[i] = spawn(i % 2 == 0 ? sleep_deep : wait_outer, (void *)(uintptr_t)(i % 5), "x");
    (void)shoal_yield();
    for (unsigned i = 0; i < COUNT; i++)
        shoal_inspect_stack_walk(fibers[i], &walks[i]);
    SHOAL_EXPECT(walks[0].count > 3);
    for (unsigned i = 0; i < COUNT; i++) {
        for (unsigned j = 0; j < COUNT; j++) {
            bool same = walks[i].count == walks[j].count &&
                        memcmp(walks[i].frame + 1, walks[j].frame + 1,
                               (walks[i].count - 1) * sizeof(walks[i].frame[0])) == 0;
            bool match = shoal_inspect_stack_matches(fibers[i], &walks[j]);
            SHOAL_EXPECT(same || !match);
            equal += same;
            matched += match;
        }
    }
#if defined(__x86_64__) && !defined(SHOAL_ASAN)
    SHOAL_EXPECT_INT(matched, equal); /* where slots are known, no walk is needed twice */
#endif
    SHOAL_EXPECT(equal > COUNT);
    for (unsigned i = 0; i < COUNT; i++)
        end(fibers[i]);
    return 0;
}

static void stacks_that_match_are_stacks_that_walk_alike(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(1, compare_walks, NULL), 0);
}

static int too_many_groups(void *arg)
{
    (void)arg;
    enum { COUNT = SHOAL_INSPECT_GROUPS_MAX + 40 };
    static struct shoal_fiber *fibers[COUNT];
    static char names[COUNT][16];
    struct collected all;
    for (unsigned i = 0; i < COUNT; i++) {
        snprintf(names[i], sizeof(names[i]), "fiber-%u", i);
        fibers[i] = spawn(wait_outer, NULL, names[i]);
    }
    (void)shoal_yield();
    report(&all);
    SHOAL_EXPECT(says(&all, "  and 41 fibers that are like none of these\n"));
    SHOAL_EXPECT(says(&all, "\"fiber-510\""));
    SHOAL_EXPECT(strstr(all.text, "\"fiber-511\"") == NULL);
    free(all.text);
    for (unsigned i = 0; i < COUNT; i++)
        end(fibers[i]);
    return 0;
}

static void report_of_more_groups_than_there_is_room_for_counts_the_rest(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(1, too_many_groups, NULL), 0);
}

static void render_into_too_little_room_is_cut_and_says_so(void **state)
{
    (void)state;
    static struct shoal_inspect_snapshot snapshot;
    memset(&snapshot, 0, sizeof(snapshot));
    snapshot.group_count = 100;
    for (unsigned i = 0; i < 100; i++) {
        snapshot.groups[i].state = SHOAL_FIBER_PARKED;
        snapshot.groups[i].count = 1;
        snprintf(snapshot.groups[i].name, sizeof(snapshot.groups[i].name), "f%u", i);
    }
    static char text[2000];
    for (size_t size = 100; size < sizeof(text); size += 37) {
        memset(text, '#', sizeof(text));
        size_t length = shoal_inspect_render(&snapshot, text, size);
        assert_true(length < size);
        assert_int_equal(text[length], 0);
        assert_int_equal(strlen(text), length);
        assert_int_equal(text[size], '#');
        assert_non_null(strstr(text, "... (the rest does not fit)\n"));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(inspect_tells_name_state_wait_and_stack_of_each_fiber),
        cmocka_unit_test(report_says_what_futures_come_from_and_of_which_group_fibers_are),
        cmocka_unit_test(report_tells_fibers_with_the_same_stack_once),
        cmocka_unit_test(report_keeps_fibers_apart_that_wait_for_different_things),
        cmocka_unit_test(stacks_that_match_are_stacks_that_walk_alike),
        cmocka_unit_test(report_of_more_groups_than_there_is_room_for_counts_the_rest),
        cmocka_unit_test(render_into_too_little_room_is_cut_and_says_so),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
