/*
 * Every core floods every other, with calls of all kinds that nest in two more service groups,
 * while cores sleep and wake all the time and are held up at random: nothing is lost, nothing comes
 * in a wrong order, nothing hangs, memory stays where it was.
 *
 * The groups form a chain (default, outer, inner), each with a bound of its own:
 *
 *   a fiber of core a --default--> fiber or future on b --outer--> fiber on c --inner--> plain on d
 *
 * Order is checked for each pair of cores and group, among what runs as a task and among fibers:
 * a message carries its number, which its sender counts as it sends.
 */
/* backends: both */
#include "unit/mail_check.h"

#define GROUPS      3
#define OUTER_BOUND 5
#define INNER_BOUND 3
#define WINDOW      12
#define SENDERS     3 /* fibers of a core */
#define CALLS       (900 / SHOAL_TEST_SLOWDOWN)
#define ROUNDS      4

enum call_kind { CALL_PLAIN, CALL_COPY, CALL_FIBER, CALL_FUTURE, CALL_KINDS };
enum order_class { ORDER_TASKS, ORDER_FIBERS, ORDER_CLASSES };

struct message {
    uint32_t number;
    uint8_t from;
    uint8_t group;
    uint8_t kind;
    uint8_t depth; /* calls that are to follow from this one */
};

/* Numbers by peer, group and class. */
struct numbers {
    uint32_t of[MAIL_CORES_MAX][GROUPS][ORDER_CLASSES];
};

/* A core's own; others look at it only when nothing is on its way. */
static struct core_state {
    struct numbers sent;
    struct numbers ran;
    uint64_t random;
    uint64_t sent_count;
    uint64_t ran_count;
} core_state[MAIL_CORES_MAX];

static struct shoal_service_group *group_of[GROUPS];
static bool failures_allowed; /* for want of memory */
static bool stop_allowed;     /* calls end as the program stops */

static struct core_state *mine(void)
{
    return &core_state[shoal_core_id()];
}

static uint64_t pack(struct message message)
{
    uint64_t word;
    _Static_assert(sizeof(word) == sizeof(message), "fits");
    memcpy(&word, &message, sizeof(word));
    return word;
}

static struct message unpack(uint64_t word)
{
    struct message message;
    memcpy(&message, &word, sizeof(message));
    return message;
}

static uint64_t answer_to(uint64_t word)
{
    return word * UINT64_C(0x9e3779b97f4a7c15) + 1;
}

static enum order_class class_of(unsigned kind)
{
    return kind == CALL_FIBER ? ORDER_FIBERS : ORDER_TASKS;
}

/* ---- Receiving ---- */

static void arrived(struct message message)
{
    uint32_t *next = &mine()->ran.of[message.from][message.group][class_of(message.kind)];
    if (failures_allowed || stop_allowed)
        SHOAL_EXPECT(message.number >= *next); /* what could not be sent leaves a gap */
    else
        SHOAL_EXPECT_INT(message.number, *next);
    *next = message.number + 1;
    mine()->ran_count++;
}

static bool call_one(unsigned group, unsigned to, unsigned kind, unsigned depth,
                     struct shoal_future **out, uint64_t *word);
static unsigned other_core(void);

static int run_plain(void *arg, union shoal_value *out)
{
    uint64_t word = (uint64_t)(uintptr_t)arg;
    arrived(unpack(word));
    out->u64 = answer_to(word);
    return 0;
}

static int run_copy(void *arg, union shoal_value *out)
{
    uint64_t words[SHOAL_SUBMIT_COPY_MAX / sizeof(uint64_t)];
    memcpy(words, arg, sizeof(words));
    for (size_t i = 1; i < SHOAL_ARRAY_SIZE(words); i++)
        SHOAL_EXPECT_INT(words[i], words[0] + i);
    memset(arg, 0xee, SHOAL_SUBMIT_COPY_MAX); /* it is the function's */
    return run_plain((void *)(uintptr_t)words[0], out);
}

static int check_answer(struct shoal_future *future, uint64_t word)
{
    union shoal_value value;
    int rc = shoal_await(future, &value);
    if (rc == 0)
        SHOAL_EXPECT_INT(value.u64, answer_to(word));
    return rc;
}

static bool tolerable(int rc)
{
    return rc == 0 || (failures_allowed && rc == -ENOMEM) || (stop_allowed && rc == -ECANCELED);
}

static int run_fiber(void *arg, union shoal_value *out)
{
    uint64_t word = (uint64_t)(uintptr_t)arg;
    struct message message = unpack(word);
    arrived(message);
    out->u64 = answer_to(word);
    if (message.depth == 0)
        return 0;
    struct shoal_future *future;
    uint64_t inner;
    unsigned kind = message.depth > 1 ? CALL_FIBER : (unsigned)(message.number % CALL_KINDS);
    (void)call_one(message.group + 1u, other_core(), kind, message.depth - 1u, &future, &inner);
    int rc = check_answer(future, inner);
    SHOAL_EXPECT(tolerable(rc));
    return rc;
}

static int to_outer_answer(void *arg, const union shoal_value *in, union shoal_value *out)
{
    (void)in;
    out->u64 = answer_to((uint64_t)(uintptr_t)arg);
    return 0;
}

/* Its outcome comes from yet another core, or it is ready. */
static struct shoal_future *run_future(void *arg)
{
    uint64_t word = (uint64_t)(uintptr_t)arg;
    struct message message = unpack(word);
    arrived(message);
    if (message.depth == 0)
        return shoal_future_ready(&(union shoal_value){.u64 = answer_to(word)});
    struct shoal_future *future;
    uint64_t inner;
    /* No fiber: at the bound of the group the call fails, which is no fault. */
    if (!call_one(message.group + 1u, other_core(), CALL_PLAIN, 0, &future, &inner)) {
        shoal_discard(future);
        return shoal_future_ready(&(union shoal_value){.u64 = answer_to(word)});
    }
    return shoal_then(future, to_outer_answer, arg);
}

/* ---- Sending ---- */

static unsigned other_core(void)
{
    unsigned cores = shoal_core_count();
    unsigned step = 1 + (unsigned)(shoal_test_random(&mine()->random) % (cores - 1));
    return ((unsigned)shoal_core_id() + step) % cores;
}

static struct shoal_future *submit(unsigned to, unsigned kind, unsigned group, uint64_t word)
{
    void *arg = (void *)(uintptr_t)word;
    struct shoal_submit call = {.arg = arg, .group = group_of[group]};
    if (kind == CALL_COPY && group == 0) {
        uint64_t words[SHOAL_SUBMIT_COPY_MAX / sizeof(uint64_t)];
        for (size_t i = 0; i < SHOAL_ARRAY_SIZE(words); i++)
            words[i] = word + i;
        return shoal_submit_copy_to(to, run_copy, words, sizeof(words));
    }
    if (kind == CALL_FIBER)
        call.fiber_fn = run_fiber;
    else if (kind == CALL_FUTURE)
        call.future_fn = run_future;
    else
        call.fn = run_plain;
    return shoal_submit(to, &call);
}

/*
 * Sends one call. Its number is taken first: whoever waits for a credit keeps its place in the
 * line. False, and the number is not taken, where no fiber runs and the call has failed at once.
 */
static bool call_one(unsigned group, unsigned to, unsigned kind, unsigned depth,
                     struct shoal_future **out, uint64_t *word)
{
    struct core_state *state = mine();
    uint32_t *number = &state->sent.of[to][group][class_of(kind)];
    bool waits = shoal_core_self->fiber != NULL;
    struct message message = {.number = *number,
                              .from = (uint8_t)shoal_core_id(),
                              .group = (uint8_t)group,
                              .kind = (uint8_t)kind,
                              .depth = (uint8_t)(kind == CALL_FUTURE && depth > 1 ? 1 : depth)};
    *word = pack(message);
    if (waits)
        (*number)++;
    *out = submit(to, kind, group, *word);
    if (!waits && !shoal_future_is_pending(*out))
        return false;
    if (!waits)
        (*number)++;
    state->sent_count++;
    return true;
}

static int send_calls(void *arg)
{
    struct core_state *state = mine();
    struct shoal_future *future[WINDOW] = {NULL};
    uint64_t word[WINDOW];
    unsigned begun = 0, ended = 0;
    const unsigned calls = (unsigned)(uintptr_t)arg;
    while (ended < calls) {
        uint64_t random = shoal_test_random(&state->random);
        unsigned room = ended + 1 + (unsigned)(random % WINDOW);
        while (begun < calls && begun < room) {
            random = shoal_test_random(&state->random);
            (void)call_one(0, other_core(), (unsigned)(random >> 8) % CALL_KINDS,
                           (unsigned)(random >> 16) % GROUPS, &future[begun % WINDOW],
                           &word[begun % WINDOW]);
            begun++;
        }
        if (ended < begun) {
            SHOAL_EXPECT(tolerable(check_answer(future[ended % WINDOW], word[ended % WINDOW])));
            ended++;
        }
        if (random % 64 == 0)
            (void)shoal_sleep_ns(random >> 32 & 0xffff);
    }
    return 0;
}

/* The senders of one core. */
static int flood_here(void *arg, union shoal_value *out)
{
    struct shoal_fiber *fiber[SENDERS];
    unsigned started = 0;
    (void)out;
    for (unsigned i = 0; i < SENDERS; i++)
        if (shoal_fiber_spawn(&fiber[started], send_calls, arg, "sender") == 0)
            started++;
    SHOAL_EXPECT(started == SENDERS || failures_allowed);
    for (unsigned i = 0; i < started; i++)
        SHOAL_EXPECT_INT(shoal_fiber_join(fiber[i]), 0);
    return 0;
}

static void flood_from_all(unsigned calls)
{
    struct shoal_future *done[MAIL_CORES_MAX] = {NULL};
    unsigned cores = shoal_core_count();
    for (unsigned i = 0; i < cores; i++)
        done[i] = shoal_submit_fiber_to(i, flood_here, (void *)(uintptr_t)calls);
    for (unsigned i = 0; i < cores; i++)
        SHOAL_EXPECT(tolerable(shoal_await(done[i], NULL)));
}

/* What was sent has run, between each two cores. */
static void expect_all_ran(void)
{
    uint64_t sent = 0, ran = 0;
    unsigned cores = shoal_core_count();
    for (unsigned i = 0; i < cores; i++) {
        sent += core_state[i].sent_count;
        ran += core_state[i].ran_count;
        for (unsigned peer = 0; peer < cores; peer++)
            SHOAL_EXPECT(memcmp(core_state[i].sent.of[peer], core_state[peer].ran.of[i],
                                sizeof(core_state[i].sent.of[peer])) == 0);
    }
    SHOAL_EXPECT_INT(sent, ran);
}

static void begin_groups(void)
{
    unsigned cores = shoal_core_count();
    memset(core_state, 0, sizeof(core_state));
    for (unsigned i = 0; i < cores; i++)
        core_state[i].random = mail_random_start(i);
    group_of[0] = NULL;
    SHOAL_EXPECT_INT(shoal_service_group_new(&group_of[1], "outer", OUTER_BOUND), 0);
    SHOAL_EXPECT_INT(shoal_service_group_new(&group_of[2], "inner", INNER_BOUND), 0);
}

static void end_groups(void)
{
    SHOAL_EXPECT_INT(shoal_service_group_free(group_of[1]), 0);
    SHOAL_EXPECT_INT(shoal_service_group_free(group_of[2]), 0);
}

static int flood(void *arg)
{
    struct mail_holding before[MAIL_CORES_MAX] = {0}, after[MAIL_CORES_MAX] = {0};
    begin_groups();
    mail_delays((unsigned)(uintptr_t)arg, 100000, 20000);
    flood_from_all(CALLS); /* rings, slabs and stacks */
    mail_on_all(mail_look, before);
    for (int round = 0; round < ROUNDS; round++)
        flood_from_all(CALLS);
    mail_on_all(mail_disarm_delays_here, NULL);
    if (!SHOAL_EXPECT(mail_settle(before, after)))
        mail_say_difference(before, after);
    for (unsigned i = 0; i < shoal_core_count(); i++)
        if (!SHOAL_EXPECT(after[i].used_bytes <=
                          before[i].used_bytes + before[i].used_bytes / 2 + (512 << 10)))
            fprintf(stderr, "core %u: %llu bytes, %llu in the first round\n", i,
                    (unsigned long long)after[i].used_bytes,
                    (unsigned long long)before[i].used_bytes);
    expect_all_ran();
    end_groups();
    return 0;
}

static void flood_with(unsigned cores, const char *const *words, int (*fn)(void *arg))
{
    struct shoal_test_options options = {.cores = cores, .words = words};
    failures_allowed = false;
    stop_allowed = false;
    assert_int_equal(shoal_test_run_options(&options, fn, (void *)(uintptr_t)cores), 0);
}

static const char *const sleepy[] = {"--overprovisioned", "--idle-poll-time-us", "0", NULL};
static const char *const spinning[] = {"--idle-poll-time-us", "200", NULL};

static void mail_flood_of_sleepy_cores_loses_and_reorders_nothing(void **state)
{
    (void)state;
    for (unsigned cores = 2; cores <= MAIL_CORES_MAX; cores += cores < 4 ? 1 : 4)
        flood_with(cores, sleepy, flood);
}

static void mail_flood_of_spinning_cores_loses_and_reorders_nothing(void **state)
{
    (void)state;
    flood_with(2, spinning, flood);
    flood_with(3, spinning, flood);
}

/* ---- One message at a time: each of them has to wake a core ---- */

#define LONE_CALLS (3000 / SHOAL_TEST_SLOWDOWN)

static int send_lone_calls(void *arg, union shoal_value *out)
{
    (void)arg;
    (void)out;
    struct core_state *state = mine();
    for (unsigned i = 0; i < LONE_CALLS; i++) {
        struct shoal_future *future;
        uint64_t word;
        (void)call_one(0, other_core(), i % 3 != 0 ? CALL_PLAIN : CALL_FIBER, 0, &future, &word);
        SHOAL_EXPECT_INT(check_answer(future, word), 0);
        uint64_t random = shoal_test_random(&state->random);
        if (random % 4 == 0)
            (void)shoal_sleep_ns(random >> 40 & 0x3fff); /* so that the others fall asleep */
    }
    return 0;
}

static int lone_calls(void *arg)
{
    struct shoal_future *done[MAIL_CORES_MAX] = {NULL};
    begin_groups();
    mail_delays((unsigned)(uintptr_t)arg, 200000, 5000);
    for (unsigned i = 0; i < shoal_core_count(); i++)
        done[i] = shoal_submit_fiber_to(i, send_lone_calls, NULL);
    for (unsigned i = 0; i < shoal_core_count(); i++)
        SHOAL_EXPECT_INT(shoal_await(done[i], NULL), 0);
    mail_on_all(mail_disarm_delays_here, NULL);
    expect_all_ran();
    end_groups();
    return 0;
}

static void mail_lone_message_always_wakes_the_other_core(void **state)
{
    (void)state;
    static const char *const short_spin[] = {"--idle-poll-time-us", "1", NULL};
    flood_with(2, sleepy, lone_calls);
    flood_with(3, sleepy, lone_calls);
    flood_with(2, short_spin, lone_calls);
}

/* ---- Out of memory now and then ---- */

static int flood_without_memory(void *arg)
{
    struct mail_holding before[MAIL_CORES_MAX] = {0}, after[MAIL_CORES_MAX] = {0};
    begin_groups();
    mail_delays((unsigned)(uintptr_t)arg, 50000, 5000);
    flood_from_all(CALLS / 4);
    mail_on_all(mail_look, before);
    failures_allowed = true; /* seen by the others with the message that follows */
    for (int round = 0; round < ROUNDS; round++) {
        mail_on_all(mail_arm_faults, (void *)1000);
        flood_from_all(CALLS / 2);
        mail_on_all(mail_disarm_faults, NULL);
        if (!SHOAL_EXPECT(mail_settle(before, after))) {
            mail_say_difference(before, after);
            break;
        }
    }
    flood_from_all(CALLS / 4);
    mail_on_all(mail_disarm_delays_here, NULL);
    end_groups();
    return 0;
}

static void mail_flood_without_memory_ends_and_leaks_nothing(void **state)
{
    (void)state;
    flood_with(3, sleepy, flood_without_memory);
}

/* ---- A stop in the middle ---- */

/* Until its own await says that the program ends. */
static int send_until_stopped(void *arg)
{
    (void)arg;
    int rc = 0;
    while (rc == 0) {
        struct shoal_future *future[WINDOW] = {NULL};
        uint64_t word[WINDOW];
        for (unsigned i = 0; i < WINDOW; i++)
            (void)call_one(0, other_core(), i % CALL_KINDS, i % GROUPS, &future[i], &word[i]);
        for (unsigned i = 0; i < WINDOW; i++) {
            int code = shoal_await(future[i], NULL);
            rc = rc == 0 ? code : rc;
        }
    }
    SHOAL_EXPECT(rc == -ECANCELED);
    return 0;
}

static int flood_in_background(void *arg, union shoal_value *out)
{
    (void)arg;
    (void)out;
    for (unsigned i = 0; i < SENDERS; i++)
        SHOAL_EXPECT_INT(shoal_fiber_spawn_detached(send_until_stopped, NULL, "until stop"), 0);
    return 0;
}

static int stop_in_flood(void *arg)
{
    uint64_t random = mail_random_start((uintptr_t)arg);
    begin_groups();
    mail_delays((unsigned)(uintptr_t)arg, 100000, 20000);
    stop_allowed = true; /* gaps: whoever is cancelled in the line for a credit leaves one */
    mail_on_all(flood_in_background, NULL);
    (void)shoal_sleep_ns(random % (5 * SHOAL_NS_PER_MS));
    return 0;
}

static void mail_stop_in_the_middle_of_a_flood_leaks_nothing(void **state)
{
    (void)state;
    for (unsigned run = 0; run < (SHOAL_TEST_SLOWDOWN > 1 ? 4 : 12); run++)
        flood_with(2 + run % 4, run % 3 == 0 ? spinning : sleepy, stop_in_flood);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(mail_lone_message_always_wakes_the_other_core),
        cmocka_unit_test(mail_flood_of_sleepy_cores_loses_and_reorders_nothing),
        cmocka_unit_test(mail_flood_of_spinning_cores_loses_and_reorders_nothing),
        cmocka_unit_test(mail_flood_without_memory_ends_and_leaks_nothing),
        cmocka_unit_test(mail_stop_in_the_middle_of_a_flood_leaks_nothing),
    };
    mail_begin();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
