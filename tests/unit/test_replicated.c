/*
 * Values with a copy on each core: the promises of replicated.h.
 */
/* backends: both */
#include <stdatomic.h>

#include "shoal/runtime/clock.h"
#include "shoal/runtime/core.h"
#include "shoal/runtime/errors.h"
#include "shoal/runtime/fault.h"
#include "shoal/runtime/fiber.h"

#include "shoal/smp/replicated.h"
#include "shoal/smp/submit.h"

#include "unit/harness.h"

static struct shoal_replicated *shared;

struct expected {
    const char *text;
    uint64_t version;
};

static int check_here(void *arg, union shoal_value *out)
{
    const struct expected *expected = arg;
    size_t bytes = 99;
    const char *mine = shoal_replicated_get(shared, &bytes);
    SHOAL_EXPECT_INT((uintptr_t)mine % 16, 0);
    if (SHOAL_EXPECT_INT(bytes, strlen(expected->text)))
        SHOAL_EXPECT(memcmp(mine, expected->text, bytes) == 0);
    SHOAL_EXPECT(shoal_replicated_get(shared, NULL) == mine);
    SHOAL_EXPECT_INT(shoal_replicated_version(shared), expected->version);
    out->ptr = (void *)(uintptr_t)mine;
    return 0;
}

/* Each core has its own. */
static void check_everywhere(const char *text, uint64_t version)
{
    struct expected expected = {text, version};
    union shoal_value copies[8];
    for (unsigned i = 0; i < shoal_core_count(); i++) {
        SHOAL_EXPECT_INT(shoal_await(shoal_submit_to(i, check_here, &expected), &copies[i]), 0);
        for (unsigned j = 0; j < i; j++)
            SHOAL_EXPECT(copies[i].ptr != copies[j].ptr);
    }
}

static int set_there(void *arg, union shoal_value *out)
{
    (void)out;
    return shoal_replicated_set(shared, arg, strlen(arg));
}

static int check_values(void *arg)
{
    (void)arg;
    char text[] = "first";
    SHOAL_EXPECT_INT(shoal_replicated_new(&shared, text, strlen(text)), 0);
    memset(text, 'x', 5); /* the caller's again */
    check_everywhere("first", 0);
    SHOAL_EXPECT_INT(shoal_replicated_set(shared, "a longer second", 15), 0);
    check_everywhere("a longer second", 1);
    char third[] = "third", nothing[] = "";
    unsigned last = shoal_core_count() - 1;
    SHOAL_EXPECT_INT(shoal_await(shoal_submit_fiber_to(last, set_there, third), NULL), 0);
    check_everywhere("third", 2);
    SHOAL_EXPECT_INT(shoal_await(shoal_submit_fiber_to(last, set_there, nothing), NULL), 0);
    check_everywhere("", 3);
    SHOAL_EXPECT_INT(shoal_replicated_set(shared, third, SIZE_MAX), -EINVAL);
    check_everywhere("", 3);
    struct shoal_replicated *none;
    SHOAL_EXPECT_INT(shoal_replicated_new(&none, third, SIZE_MAX), -EINVAL);
    SHOAL_EXPECT(none == NULL);
    shoal_replicated_free(NULL);
    if (last > 0)
        shoal_replicated_free(shared); /* else it ends with the program */
    return 0;
}

static void replicated_each_core_has_its_copy_of_the_last_value(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(1, check_values, NULL), 0);
    assert_int_equal(shoal_test_run(3, check_values, NULL), 0);
    assert_int_equal(shoal_test_run(8, check_values, NULL), 0);
}

/* ---- All or none ---- */

static int arm(void *arg, union shoal_value *out)
{
    (void)out;
    shoal_fault_arm(arg);
    return 0;
}

static int disarm(void *arg, union shoal_value *out)
{
    (void)arg;
    struct shoal_fault_stats stats;
    shoal_fault_disarm(&stats);
    out->u64 = stats.failed;
    return 0;
}

static int check_all_or_none(void *arg)
{
    (void)arg;
    uint64_t version = 0;
    unsigned failures = 0;
    const char *now = "old";
    SHOAL_EXPECT_INT(shoal_replicated_new(&shared, now, 3), 0);
    for (unsigned core = 0; core < 3; core++) {
        for (uint64_t n = 1;; n++) {
            struct shoal_fault_plan plan = {.nth = n};
            union shoal_value failed = {.u64 = 0};
            const char *next = version % 2 == 0 ? "new one" : "old";
            SHOAL_EXPECT_INT(shoal_await(shoal_submit_to(core, arm, &plan), NULL), 0);
            int rc = shoal_replicated_set(shared, next, strlen(next));
            while (shoal_await(shoal_submit_to(core, disarm, NULL), &failed) != 0)
                ; /* the message itself may be what fails */
            SHOAL_EXPECT(rc == 0 || rc == -ENOMEM);
            if (rc == 0) {
                version++;
                now = next;
            } else {
                failures++;
            }
            check_everywhere(now, version);
            if (failed.u64 == 0)
                break;
        }
    }
    SHOAL_EXPECT(failures >= 3);
    return 0;
}

static void replicated_set_that_fails_on_one_core_changes_none(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(3, check_all_or_none, NULL), 0);
}

/* ---- Sets and reads from everywhere ---- */

#define WRITERS 4
#define SETS    (30 / SHOAL_TEST_SLOWDOWN)

struct stamp {
    uint64_t writer, n, check;
    uint64_t fill[40];
};

static atomic_bool writing;
static atomic_uint writers_left;

static void stamp_fill(struct stamp *stamp, uint64_t writer, uint64_t n)
{
    stamp->writer = writer;
    stamp->n = n;
    for (size_t i = 0; i < SHOAL_ARRAY_SIZE(stamp->fill); i++)
        stamp->fill[i] = writer * 1000003 + n;
    stamp->check = writer ^ n << 8;
}

static int write_often(void *arg, union shoal_value *out)
{
    (void)out;
    struct stamp stamp;
    for (uint64_t n = 1; n <= SETS; n++) {
        stamp_fill(&stamp, (uintptr_t)arg, n);
        SHOAL_EXPECT_INT(shoal_replicated_set(shared, &stamp, sizeof(stamp)), 0);
        size_t bytes;
        const struct stamp *mine = shoal_replicated_get(shared, &bytes);
        SHOAL_EXPECT(mine->writer != stamp.writer || mine->n == n); /* none goes back */
    }
    return 0;
}

static int read_often(void *arg, union shoal_value *out)
{
    (void)arg;
    (void)out;
    uint64_t last[WRITERS + 1] = {0}, version = 0;
    while (atomic_load(&writing)) {
        size_t bytes;
        const struct stamp *mine = shoal_replicated_get(shared, &bytes);
        SHOAL_EXPECT_INT(bytes, sizeof(*mine));
        SHOAL_EXPECT_INT(mine->check, mine->writer ^ mine->n << 8);
        for (size_t i = 0; i < SHOAL_ARRAY_SIZE(mine->fill); i++)
            SHOAL_EXPECT_INT(mine->fill[i], mine->writer * 1000003 + mine->n);
        SHOAL_EXPECT(mine->n >= last[mine->writer]);
        last[mine->writer] = mine->n;
        SHOAL_EXPECT(shoal_replicated_version(shared) >= version);
        version = shoal_replicated_version(shared);
        SHOAL_EXPECT_INT(shoal_yield(), 0);
    }
    return 0;
}

static int check_concurrent(void *arg)
{
    (void)arg;
    struct shoal_future *readers[4], *writers[WRITERS];
    struct stamp stamp;
    stamp_fill(&stamp, 0, 0);
    atomic_store(&writing, true);
    SHOAL_EXPECT_INT(shoal_replicated_new(&shared, &stamp, sizeof(stamp)), 0);
    for (unsigned i = 0; i < 4; i++)
        readers[i] = shoal_submit_fiber_to(i, read_often, NULL);
    for (uintptr_t i = 0; i < WRITERS; i++)
        writers[i] = shoal_submit_fiber_to((unsigned)i % 4, write_often, (void *)(i + 1));
    for (unsigned i = 0; i < WRITERS; i++)
        SHOAL_EXPECT_INT(shoal_await(writers[i], NULL), 0);
    atomic_store(&writing, false);
    for (unsigned i = 0; i < 4; i++)
        SHOAL_EXPECT_INT(shoal_await(readers[i], NULL), 0);
    SHOAL_EXPECT_INT(shoal_replicated_version(shared), WRITERS * SETS);
    return 0;
}

static void replicated_sets_from_all_cores_are_ordered_and_whole(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(4, check_concurrent, NULL), 0);
}

/* ---- The end ---- */

static int set_until_it_ends(void *arg, union shoal_value *out)
{
    (void)arg;
    (void)out;
    int rc;
    shoal_fiber_shield();
    do {
        rc = shoal_replicated_set(shared, "again", 5);
    } while (rc == 0);
    SHOAL_EXPECT_INT(rc, SHOAL_ECLOSED);
    while (shoal_replicated_get(shared, NULL) != NULL || shoal_replicated_version(shared) != 0)
        (void)shoal_sleep_ns(SHOAL_NS_PER_US); /* others may still be inside */
    SHOAL_EXPECT_INT(shoal_replicated_set(shared, "again", 5), SHOAL_ECLOSED);
    shoal_fiber_unshield();
    atomic_fetch_sub(&writers_left, 1);
    return 0;
}

static int leave_writers(void *arg)
{
    (void)arg;
    SHOAL_EXPECT_INT(shoal_replicated_new(&shared, "once", 4), 0);
    atomic_store(&writers_left, 6);
    for (unsigned i = 0; i < 6; i++)
        shoal_discard(shoal_submit_fiber_to(i % 3, set_until_it_ends, NULL));
    return shoal_sleep_ns(2 * SHOAL_NS_PER_MS);
}

static void replicated_ends_with_the_program_in_the_middle_of_sets(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(3, leave_writers, NULL), 0);
    assert_int_equal(atomic_load(&writers_left), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(replicated_each_core_has_its_copy_of_the_last_value),
        cmocka_unit_test(replicated_set_that_fails_on_one_core_changes_none),
        cmocka_unit_test(replicated_sets_from_all_cores_are_ordered_and_whole),
        cmocka_unit_test(replicated_ends_with_the_program_in_the_middle_of_sets),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
