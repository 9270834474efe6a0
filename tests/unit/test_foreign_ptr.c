/*
 * Foreign pointers: objects that travel, and go home to be freed, once, whatever happens.
 */
/* backends: both */
#include <pthread.h>

#include "shoal/runtime/fault.h"

#include "shoal/smp/foreign_ptr.h"

#include "unit/core_channel_check.h"

#define ROUNDS (20000 / SHOAL_TEST_SLOWDOWN)

struct note {
    struct shoal_foreign foreign;
    uint64_t words[8];
};

static atomic_int made;
static atomic_int freed;

static void note_free(struct shoal_foreign *foreign)
{
    struct note *note = SHOAL_CONTAINER_OF(foreign, struct note, foreign);
    SHOAL_EXPECT_INT(shoal_core_id(), note->words[0]);
    for (size_t i = 1; i < SHOAL_ARRAY_SIZE(note->words); i++)
        SHOAL_EXPECT_INT(note->words[i], note->words[0] + i);
    atomic_fetch_add(&freed, 1);
    shoal_mem_free(note, sizeof(*note)); /* checked builds abort on another core */
}

static struct note *note_new(void)
{
    struct note *note = shoal_mem_alloc(sizeof(*note));
    SHOAL_CHECK(note != NULL, "no memory for a test");
    for (size_t i = 0; i < SHOAL_ARRAY_SIZE(note->words); i++)
        note->words[i] = (uint64_t)shoal_core_id() + i;
    shoal_foreign_init(&note->foreign, note_free);
    atomic_fetch_add(&made, 1);
    return note;
}

static void begin(void)
{
    atomic_store(&made, 0);
    atomic_store(&freed, 0);
}

/* ---- One owner ---- */

static int read_and_release(void *arg, union shoal_value *out)
{
    struct note *note = arg;
    out->u64 = note->words[7];
    SHOAL_EXPECT_INT(shoal_foreign_home(&note->foreign), note->words[0]);
    shoal_foreign_release(&note->foreign);
    return 0;
}

static int make_one(void *arg, union shoal_value *out)
{
    (void)arg;
    out->ptr = note_new();
    return 0;
}

static int check_one_owner(void *arg)
{
    (void)arg;
    unsigned cores = shoal_core_count();
    begin();
    for (int i = 0; i < ROUNDS; i++) { /* from each core to each */
        unsigned from = (unsigned)i % cores, to = (unsigned)i / cores % cores;
        union shoal_value value;
        SHOAL_EXPECT_INT(shoal_await(shoal_submit_to(from, make_one, NULL), &value), 0);
        SHOAL_EXPECT_INT(shoal_await(shoal_submit_to(to, read_and_release, value.ptr), &value), 0);
        SHOAL_EXPECT_INT(value.u64, from + 7);
    }
    wait_for(&freed, ROUNDS);
    SHOAL_EXPECT_INT(atomic_load(&freed), ROUNDS);
    return 0;
}

static void foreign_ptr_released_anywhere_is_freed_at_home(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(1, check_one_owner, NULL), 0);
    assert_int_equal(shoal_test_run(2, check_one_owner, NULL), 0);
    assert_int_equal(shoal_test_run(3, check_one_owner, NULL), 0);
    assert_int_equal(shoal_test_run(8, check_one_owner, NULL), 0);
}

/* The free runs as a task, even where the home itself releases. */
static int check_asynchronous(void *arg)
{
    (void)arg;
    begin();
    shoal_foreign_release(&note_new()->foreign);
    SHOAL_EXPECT_INT(atomic_load(&freed), 0);
    wait_for(&freed, 1);
    return 0;
}

static void foreign_ptr_release_does_not_free_inside_the_call(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(1, check_asynchronous, NULL), 0);
}

/* ---- Units ---- */

/* Passes its unit's copies on to random cores, and releases its own now or later. */
static int pass_on(void *arg, union shoal_value *out)
{
    (void)out;
    struct note *note = arg;
    static _Thread_local uint64_t random;
    if (random == 0)
        random = 77u + (uint64_t)shoal_core_id();
    unsigned copies = (unsigned)(shoal_test_random(&random) >> 20) % 4;
    bool early = (shoal_test_random(&random) >> 20) % 2 == 0;
    if (copies == 3)
        copies = 0; /* one copy each on average, so that it ends */
    struct shoal_future *passed[3] = {NULL};
    for (unsigned i = 0; i < copies; i++) {
        unsigned to = (unsigned)(shoal_test_random(&random) >> 20) % shoal_core_count();
        shoal_foreign_ref(&note->foreign);
        passed[i] = shoal_submit_fiber_to(to, pass_on, note);
    }
    SHOAL_EXPECT_INT(note->words[3], note->words[0] + 3);
    if (early)
        shoal_foreign_release(&note->foreign);
    for (unsigned i = 0; i < copies; i++)
        SHOAL_EXPECT_INT(shoal_await(passed[i], NULL), 0);
    if (!early) {
        SHOAL_EXPECT_INT(note->words[5], note->words[0] + 5);
        shoal_foreign_release(&note->foreign);
    }
    return 0;
}

static int check_units(void *arg)
{
    (void)arg;
    begin();
    for (int i = 0; i < ROUNDS / 50; i++) {
        union shoal_value value;
        SHOAL_EXPECT_INT(
            shoal_await(shoal_submit_to((unsigned)i % shoal_core_count(), make_one, NULL), &value),
            0);
        SHOAL_EXPECT_INT(run_on(0, pass_on, value.ptr), 0);
    }
    wait_for(&freed, atomic_load(&made));
    SHOAL_EXPECT_INT(atomic_load(&freed), atomic_load(&made));
    return 0;
}

static void foreign_ptr_units_on_many_cores_free_it_once(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(2, check_units, NULL), 0);
    assert_int_equal(shoal_test_run(3, check_units, NULL), 0);
    assert_int_equal(shoal_test_run(8, check_units, NULL), 0);
}

/* All cores release their units at the same moment, again and again. */
struct race {
    struct note *notes[256];
    atomic_int ready;
};

static int release_all(void *arg, union shoal_value *out)
{
    (void)out;
    struct race *race = arg;
    atomic_fetch_add(&race->ready, 1);
    while (atomic_load(&race->ready) < (int)shoal_core_count())
        (void)shoal_yield();
    for (size_t i = 0; i < SHOAL_ARRAY_SIZE(race->notes); i++) {
        SHOAL_EXPECT_INT(race->notes[i]->words[1], race->notes[i]->words[0] + 1);
        shoal_foreign_release(&race->notes[i]->foreign);
    }
    return 0;
}

static int check_race(void *arg)
{
    (void)arg;
    unsigned cores = shoal_core_count();
    begin();
    for (int round = 0; round < 100 / SHOAL_TEST_SLOWDOWN + 1; round++) {
        struct race race;
        struct shoal_future *done[8];
        atomic_init(&race.ready, 0);
        for (size_t i = 0; i < SHOAL_ARRAY_SIZE(race.notes); i++) {
            race.notes[i] = note_new();
            for (unsigned core = 1; core < cores; core++)
                shoal_foreign_ref(&race.notes[i]->foreign);
        }
        for (unsigned core = 0; core < cores; core++)
            done[core] = start_on(core, release_all, &race);
        for (unsigned core = 0; core < cores; core++)
            SHOAL_EXPECT_INT(shoal_await(done[core], NULL), 0);
        wait_for(&freed, atomic_load(&made));
        SHOAL_EXPECT_INT(atomic_load(&freed), atomic_load(&made));
    }
    return 0;
}

static void foreign_ptr_units_released_at_once_free_it_once(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(2, check_race, NULL), 0);
    assert_int_equal(shoal_test_run(8, check_race, NULL), 0);
}

/* ---- Holders ---- */

static int use_holder(void *arg)
{
    struct shoal_foreign_holder *holder = arg;
    const struct note *note = SHOAL_CONTAINER_OF(holder->foreign, struct note, foreign);
    for (int i = 0; i < 3; i++) {
        SHOAL_EXPECT_INT(note->words[2], note->words[0] + 2);
        (void)shoal_yield();
    }
    shoal_foreign_holder_unref(holder);
    return 0;
}

static int hold(void *arg, union shoal_value *out)
{
    (void)out;
    struct note *note = arg;
    struct shoal_foreign_holder holder;
    struct shoal_fiber *users[10];
    shoal_foreign_holder_init(&holder, &note->foreign);
    for (int i = 0; i < 10; i++) {
        shoal_foreign_holder_ref(&holder);
        SHOAL_EXPECT_INT(shoal_fiber_spawn(&users[i], use_holder, &holder, "user"), 0);
    }
    for (int i = 0; i < 10; i++) {
        SHOAL_EXPECT_INT(shoal_fiber_join(users[i]), 0);
        SHOAL_EXPECT(holder.foreign == &note->foreign);
    }
    SHOAL_EXPECT_INT(atomic_load(&freed), 0);
    shoal_foreign_holder_unref(&holder);
    SHOAL_EXPECT(holder.foreign == NULL);
    return 0;
}

static int check_holder(void *arg)
{
    (void)arg;
    begin();
    struct note *note = note_new();
    shoal_foreign_ref(&note->foreign);
    struct shoal_future *other = start_on(1, hold, note);
    SHOAL_EXPECT_INT(shoal_await(other, NULL), 0);
    SHOAL_EXPECT_INT(atomic_load(&freed), 0); /* this core has one still */
    SHOAL_EXPECT_INT(run_on(0, hold, note), 0);
    wait_for(&freed, 1);
    return 0;
}

static void foreign_ptr_holder_releases_with_its_last_user(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(2, check_holder, NULL), 0);
}

/* ---- Objects without room ---- */

static void free_plain(void *object)
{
    SHOAL_EXPECT_INT(shoal_core_id(), 0);
    atomic_fetch_add(&freed, 1);
    shoal_mem_free(object, 100);
}

static int release_ptr(void *arg, union shoal_value *out)
{
    (void)out;
    struct shoal_foreign_ptr *ptr = arg;
    SHOAL_EXPECT_STR(ptr->object, "text");
    shoal_foreign_release(&ptr->foreign);
    return 0;
}

/* Nothing that a release does asks for memory. */
static int release_without_memory(void *arg, union shoal_value *out)
{
    struct shoal_fault_stats stats;
    shoal_fault_arm(&(struct shoal_fault_plan){.nth = 1, .count = UINT32_MAX});
    int rc = release_ptr(arg, out);
    shoal_fault_disarm(&stats);
    SHOAL_EXPECT_INT(stats.asked, 0);
    return rc;
}

static int check_ptr(void *arg)
{
    (void)arg;
    struct shoal_foreign_ptr *ptr = NULL;
    begin();
    for (int i = 0; i < 2; i++) {
        char *text = shoal_mem_alloc(100);
        if (!SHOAL_EXPECT(text != NULL))
            return 1;
        memcpy(text, "text", 5);
        SHOAL_EXPECT_INT(shoal_foreign_ptr_new(&ptr, text, free_plain), 0);
        SHOAL_EXPECT_INT(run_on(1, i == 0 ? release_ptr : release_without_memory, ptr), 0);
        wait_for(&freed, i + 1);
    }
    char unused;
    shoal_fault_arm(&(struct shoal_fault_plan){.nth = 1});
    SHOAL_EXPECT_INT(shoal_foreign_ptr_new(&ptr, &unused, free_plain), -ENOMEM);
    shoal_fault_disarm(NULL);
    return 0;
}

static void foreign_ptr_to_any_object_needs_memory_only_when_made(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(2, check_ptr, NULL), 0);
}

/* ---- Threads that are no cores ---- */

static void *release_on_thread(void *arg)
{
    struct note *note = arg;
    shoal_foreign_ref(&note->foreign);
    shoal_foreign_release(&note->foreign);
    shoal_foreign_release(&note->foreign);
    return NULL;
}

static int check_thread(void *arg)
{
    (void)arg;
    pthread_t threads[4];
    begin();
    for (int i = 0; i < 4; i++)
        SHOAL_EXPECT_INT(pthread_create(&threads[i], NULL, release_on_thread, note_new()), 0);
    wait_for(&freed, 4);
    for (int i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    return 0;
}

static void foreign_ptr_released_by_a_thread_that_is_no_core_goes_home(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(1, check_thread, NULL), 0);
}

/* ---- The stop ---- */

struct link {
    struct shoal_foreign foreign;
    struct link *next; /* of another core; its unit is this one's */
};

static void link_free(struct shoal_foreign *foreign)
{
    struct link *link = SHOAL_CONTAINER_OF(foreign, struct link, foreign);
    if (link->next != NULL)
        shoal_foreign_release(&link->next->foreign);
    atomic_fetch_add(&freed, 1);
    shoal_mem_free(link, sizeof(*link));
}

static int link_new(void *arg, union shoal_value *out)
{
    struct link *link = shoal_mem_alloc(sizeof(*link));
    SHOAL_CHECK(link != NULL, "no memory for a test");
    shoal_foreign_init(&link->foreign, link_free);
    link->next = arg;
    out->ptr = link;
    return 0;
}

/* Objects over all cores, each of which holds the next one. */
static struct link *chain_new(unsigned length)
{
    union shoal_value value = {.ptr = NULL};
    for (unsigned i = 0; i < length; i++)
        SHOAL_EXPECT_INT(
            shoal_await(shoal_submit_to(i % shoal_core_count(), link_new, value.ptr), &value), 0);
    return value.ptr;
}

static void drop_chain(void *item)
{
    struct link *const *link = item;
    shoal_foreign_release(&(*link)->foreign);
}

static int release_when_cancelled(void *arg)
{
    SHOAL_EXPECT_INT(shoal_sleep_ns(3600 * SHOAL_NS_PER_S), -ECANCELED);
    drop_chain(&arg);
    return 0;
}

static int hold_until_stop(void *arg, union shoal_value *out)
{
    (void)out;
    SHOAL_EXPECT_INT(shoal_fiber_spawn_detached(release_when_cancelled, arg, "holds"), 0);
    return 0;
}

#define CHAIN 100

static int stop_with_chains(void *arg)
{
    (void)arg;
    begin();
    for (unsigned core = 0; core < shoal_core_count(); core++)
        SHOAL_EXPECT_INT(run_on(core, hold_until_stop, chain_new(CHAIN)), 0);
    /* In a channel that nobody empties; of each chain the first link is of another core. */
    struct shoal_core_channel *channel = make_channel(sizeof(struct link *), 10, 0, drop_chain);
    struct shoal_core_sender *sender = make_sender(channel);
    for (unsigned i = 0; i < 10; i++) {
        struct link *chain = chain_new(CHAIN + i);
        SHOAL_EXPECT_INT(shoal_core_channel_send(sender, &chain, FOREVER), 0);
    }
    return 0;
}

static void foreign_ptr_released_during_the_stop_is_freed(void **state)
{
    (void)state;
    static const unsigned cores[] = {1, 2, 3, 8};
    for (size_t i = 0; i < SHOAL_ARRAY_SIZE(cores); i++)
        for (int round = 0; round < 5; round++) {
            assert_int_equal(shoal_test_run(cores[i], stop_with_chains, NULL), 0);
            assert_int_equal(atomic_load(&freed), cores[i] * CHAIN + 10 * CHAIN + 45);
        }
}

/* ---- Misuse ---- */

#ifdef SHOAL_DEBUG

static struct note still; /* is there after its home has ended */

static void keep(struct shoal_foreign *foreign)
{
    (void)foreign;
}

static int release_twice(void *arg)
{
    (void)arg;
    shoal_foreign_init(&still.foreign, keep);
    shoal_foreign_release(&still.foreign);
    shoal_foreign_release(&still.foreign);
    return 0;
}

static int release_elsewhere(void *arg, union shoal_value *out)
{
    (void)out;
    shoal_foreign_release(arg);
    return 0;
}

/* The second time when it has been freed. */
static int release_freed(void *arg)
{
    (void)arg;
    begin();
    struct note *note = note_new();
    (void)shoal_await(shoal_submit_to(1, release_elsewhere, &note->foreign), NULL);
    shoal_foreign_init(&still.foreign, keep);
    (void)shoal_await(shoal_submit_to(1, release_elsewhere, &still.foreign), NULL);
    wait_for(&freed, 1);
    (void)shoal_await(shoal_submit_to(1, release_elsewhere, &still.foreign), NULL);
    return 0;
}

static int ref_released(void *arg)
{
    (void)arg;
    shoal_foreign_init(&still.foreign, keep);
    shoal_foreign_release(&still.foreign);
    shoal_foreign_ref(&still.foreign);
    return 0;
}

static int init_still(void *arg)
{
    (void)arg;
    shoal_foreign_init(&still.foreign, keep);
    return 0;
}

static int release_after_the_end(void *arg)
{
    (void)arg;
    (void)shoal_test_run(1, init_still, NULL);
    shoal_foreign_release(&still.foreign);
    return 0;
}

static struct shoal_foreign_holder lent;

static int unref_elsewhere(void *arg, union shoal_value *out)
{
    (void)arg;
    (void)out;
    shoal_foreign_holder_unref(&lent);
    return 0;
}

static int lend_holder(void *arg)
{
    (void)arg;
    shoal_foreign_init(&still.foreign, keep);
    shoal_foreign_holder_init(&lent, &still.foreign);
    return run_on(1, unref_elsewhere, NULL);
}

static void foreign_ptr_misuse_aborts_and_says_why(void **state)
{
    (void)state;
    shoal_test_fiber_aborts_with(1, release_twice, "its last unit was released before");
    shoal_test_fiber_aborts_with(2, release_freed, "its last unit was released before");
    shoal_test_fiber_aborts_with(1, ref_released, "its last unit was released before");
    shoal_test_aborts_with(release_after_the_end, NULL, "after its home has ended");
    shoal_test_fiber_aborts_with(2, lend_holder, "unref of foreign holder");
}

#endif

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(foreign_ptr_released_anywhere_is_freed_at_home),
        cmocka_unit_test(foreign_ptr_release_does_not_free_inside_the_call),
        cmocka_unit_test(foreign_ptr_units_on_many_cores_free_it_once),
        cmocka_unit_test(foreign_ptr_units_released_at_once_free_it_once),
        cmocka_unit_test(foreign_ptr_holder_releases_with_its_last_user),
        cmocka_unit_test(foreign_ptr_to_any_object_needs_memory_only_when_made),
        cmocka_unit_test(foreign_ptr_released_by_a_thread_that_is_no_core_goes_home),
        cmocka_unit_test(foreign_ptr_released_during_the_stop_is_freed),
#ifdef SHOAL_DEBUG
        cmocka_unit_test(foreign_ptr_misuse_aborts_and_says_why),
#endif
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
