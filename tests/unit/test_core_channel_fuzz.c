/*
 * Channels between cores under random operations, against a model: every value that was sent is
 * received or dropped, once, on its home; nothing that was not sent is; one end's values keep their
 * order; nobody hangs, and nothing leaks.
 *
 * In each round every core makes some channels and, in every channel that it picks, some ends. At
 * each end some fibers send by all forms; at each channel one fiber or some receive by all forms.
 * Ends are closed and freed, and fibers cancelled, at random moments.
 */
/* backends: both */
#include "shoal/runtime/delay_impl.h"

#include "shoal/smp/core_channel_impl.h"

#include "unit/core_channel_check.h"

#define CORES_MAX    8
#define CHANNELS_MAX 6  /* in a round */
#define ACTORS_MAX   64 /* that send in a channel */
#define SENDS        60 /* of an actor */

struct item {
    uint64_t channel; /* number of the channel in the round */
    uint64_t actor;
    uint64_t number;
};

struct model_channel {
    struct shoal_core_channel *channel;
    unsigned number;
    unsigned home;
    unsigned receivers;
    bool ordered; /* one receives, who sees the order */
    atomic_uint actors;
    /* Of each actor and number: SENT by its core, RECEIVED or DROPPED by the home. */
    atomic_uchar what[ACTORS_MAX][SENDS];
    uint64_t last[ACTORS_MAX]; /* the number received last, + 1; home only */
    atomic_int senders;        /* fibers that will make an end, or have one */
};

/* MAYBE: a cancelled fiber has awaited the future of a send, which tells it of its cancel alone. */
enum { SENT = 1, RECEIVED = 2, DROPPED = 4, MAYBE = 8 };

struct round {
    uint64_t seed;
    unsigned cores;
    unsigned channels;
    struct model_channel *all;
};

static struct round *now;

static unsigned below(uint64_t *random, unsigned range)
{
    return (unsigned)(shoal_test_random(random) >> 33) % range;
}

static uint64_t some_time(uint64_t *random)
{
    switch (below(random, 6)) {
    case 0:
        return 0;
    case 1:
        return 1 + below(random, 200) * SHOAL_NS_PER_US;
    default:
        return FOREVER;
    }
}

static void some_work(uint64_t *random)
{
    switch (below(random, 12)) {
    case 0:
        (void)shoal_yield();
        break;
    case 1:
        (void)shoal_sleep_ns(below(random, 300) * SHOAL_NS_PER_US);
        break;
    case 2:
        for (volatile unsigned spin = below(random, 3000); spin > 0; spin--)
            ;
        break;
    default:
        break;
    }
}

static bool early(int rc)
{
    return rc == -ETIMEDOUT || rc == -ECANCELED || rc == -EAGAIN;
}

static void mark(const struct item *item, unsigned how)
{
    struct model_channel *model = &now->all[item->channel];
    if (!SHOAL_EXPECT(item->actor < ACTORS_MAX && item->number < SENDS))
        return;
    unsigned before = atomic_fetch_or(&model->what[item->actor][item->number], (uint8_t)how);
    unsigned excluded = how == SENT || how == MAYBE ? SENT | MAYBE : RECEIVED | DROPPED;
    SHOAL_EXPECT((before & excluded) == 0);
}

static void note_received(const struct item *item, bool ordered)
{
    struct model_channel *model = &now->all[item->channel];
    SHOAL_EXPECT_INT(shoal_core_id(), model->home);
    mark(item, RECEIVED);
    if (ordered && item->actor < ACTORS_MAX) {
        SHOAL_EXPECT(item->number + 1 > model->last[item->actor]);
        model->last[item->actor] = item->number + 1;
    }
}

static void drop_item(void *place)
{
    const struct item *item = place;
    SHOAL_EXPECT_INT(shoal_core_id(), now->all[item->channel].home);
    mark(item, DROPPED);
}

/* ---- Sending ---- */

struct actor {
    struct shoal_core_sender *sender;
    struct model_channel *model;
    uint64_t random;
    unsigned number;
    struct shoal_fiber *fiber;
};

static int send_somehow(struct actor *actor, const struct item *item)
{
    struct shoal_future *future;
    int rc;
    switch (below(&actor->random, 6)) {
    case 0:
        return shoal_core_channel_try_send(actor->sender, item);
    case 1: {
        struct shoal_select_case cases[] = {shoal_select_core_send(actor->sender, item)};
        rc = shoal_select(cases, 1, some_time(&actor->random));
        return rc == 0 ? cases[0].result : rc;
    }
    case 2:
        future = shoal_core_channel_send_future(actor->sender, item, some_time(&actor->random));
        some_work(&actor->random);
        if (below(&actor->random, 4) == 0)
            shoal_future_cancel(future);
        rc = shoal_await(future, NULL);
        if (rc == -ECANCELED)
            mark(item, MAYBE);
        return rc;
    default:
        return shoal_core_channel_send(actor->sender, item, some_time(&actor->random));
    }
}

static int act(void *arg)
{
    struct actor *actor = arg;
    struct item item = {actor->model->number, actor->number, 0};
    for (; item.number < SENDS; item.number++) {
        int rc = send_somehow(actor, &item);
        if (rc == 0)
            mark(&item, SENT);
        else if (rc == SHOAL_ECLOSED)
            break;
        else if (!SHOAL_EXPECT(early(rc)) || shoal_yield() != 0)
            break; /* cancelled */
        some_work(&actor->random);
    }
    return 0;
}

/* An end of one channel with some actors, until they are done or the end is closed under them. */
static int run_end(struct model_channel *model, uint64_t *random)
{
    struct actor actors[3];
    unsigned count = 1 + below(random, 3);
    unsigned first = atomic_fetch_add(&model->actors, count);
    struct shoal_core_sender *sender;
    int rc =
        first + count > ACTORS_MAX ? SHOAL_ECLOSED : shoal_core_sender_new(&sender, model->channel);
    atomic_fetch_sub(&model->senders, 1); /* from here on the channel may be freed */
    if (rc < 0) {
        SHOAL_EXPECT_INT(rc, SHOAL_ECLOSED);
        return 0;
    }
    for (unsigned i = 0; i < count; i++) {
        actors[i] = (struct actor){sender, model, shoal_test_random(random), first + i, NULL};
        SHOAL_EXPECT_INT(shoal_fiber_spawn(&actors[i].fiber, act, &actors[i], "actor"), 0);
    }
    some_work(random);
    if (below(random, 4) == 0)
        shoal_fiber_cancel(actors[below(random, count)].fiber);
    if (below(random, 4) == 0)
        shoal_core_sender_close(sender);
    for (unsigned i = 0; i < count; i++)
        SHOAL_EXPECT_INT(shoal_fiber_join(actors[i].fiber), 0);
    shoal_core_sender_free(sender);
    return 0;
}

struct end_task {
    struct model_channel *model;
    uint64_t seed;
};

static int end_fiber(void *arg, union shoal_value *out)
{
    (void)out;
    struct end_task *task = arg;
    uint64_t random = task->seed;
    return run_end(task->model, &random);
}

/* ---- Receiving ---- */

static int take(struct shoal_future *future, struct item *item)
{
    union shoal_value value;
    int rc = shoal_await(future, &value);
    if (rc == 0)
        shoal_core_channel_take(&value, item);
    return rc;
}

static int receive_somehow(struct model_channel *model, uint64_t *random, struct item *item)
{
    struct shoal_future *future;
    switch (below(random, 8)) {
    case 0:
        return shoal_core_channel_try_receive(model->channel, item);
    case 1: {
        struct shoal_select_case cases[] = {shoal_select_core_receive(model->channel, item),
                                            shoal_select_after(some_time(random))};
        int rc = shoal_select(cases, 2, FOREVER);
        return rc == 0 ? cases[0].result : rc == 1 ? -ETIMEDOUT : rc;
    }
    case 2:
        future = shoal_core_channel_receive_future(model->channel, some_time(random));
        some_work(random);
        if (below(random, 4) == 0)
            shoal_future_cancel(future);
        return take(future, item);
    case 3: /* nobody takes it, so it stays */
        future = shoal_core_channel_receive_future(model->channel, some_time(random));
        some_work(random);
        shoal_future_cancel(future); /* else it might still be in line at the end */
        shoal_discard(future);
        return -EAGAIN;
    case 4:
        future = shoal_core_channel_receive_future(model->channel, 50 * SHOAL_NS_PER_US);
        (void)shoal_await(future, NULL);
        return -EAGAIN;
    default:
        return shoal_core_channel_receive(model->channel, item, some_time(random));
    }
}

struct receiver {
    struct model_channel *model;
    uint64_t random;
    unsigned limit; /* values to be received; then it leaves the rest */
};

static int receive_some(void *arg)
{
    struct receiver *receiver = arg;
    struct item item;
    while (receiver->limit > 0) {
        int rc = receive_somehow(receiver->model, &receiver->random, &item);
        if (rc == 0) {
            receiver->limit--;
            note_received(&item, receiver->model->ordered);
        } else if (rc == SHOAL_ECLOSED) {
            break;
        } else if (!SHOAL_EXPECT(early(rc)) || shoal_yield() != 0) {
            break;
        }
        some_work(&receiver->random);
    }
    return 0;
}

static int run_home(struct model_channel *model, uint64_t *random)
{
    struct receiver receivers[3];
    struct shoal_fiber *fibers[3];
    for (unsigned i = 0; i < model->receivers; i++) {
        receivers[i] = (struct receiver){model, shoal_test_random(random), UINT32_MAX};
        if (below(random, 3) == 0)
            receivers[i].limit = below(random, 100);
        SHOAL_EXPECT_INT(shoal_fiber_spawn(&fibers[i], receive_some, &receivers[i], "receiver"), 0);
    }
    if (below(random, 3) == 0) {
        (void)shoal_sleep_ns(below(random, 2000) * SHOAL_NS_PER_US);
        if (below(random, 2) == 0)
            shoal_fiber_cancel(fibers[0]);
        shoal_core_channel_close(model->channel);
    }
    for (unsigned i = 0; i < model->receivers; i++)
        SHOAL_EXPECT_INT(shoal_fiber_join(fibers[i]), 0);
    while (atomic_load(&model->senders) > 0) /* about to make an end */
        (void)shoal_sleep_ns(20 * SHOAL_NS_PER_US);
    shoal_core_channel_free(model->channel);
    return 0;
}

static int home_fiber(void *arg, union shoal_value *out)
{
    (void)out;
    struct end_task *task = arg;
    uint64_t random = task->seed;
    return run_home(task->model, &random);
}

/* ---- Rounds ---- */

static int make_here(void *arg, union shoal_value *out)
{
    (void)out;
    struct end_task *task = arg;
    uint64_t random = task->seed;
    struct model_channel *model = task->model;
    static const uint32_t credits[] = {1, 2, 3, 8, 9, 50};
    model->channel =
        make_channel(sizeof(struct item), credits[below(&random, SHOAL_ARRAY_SIZE(credits))],
                     (uint32_t)atomic_load(&model->senders), drop_item);
    return 0;
}

static void check_model(const struct round *round)
{
    for (unsigned c = 0; c < round->channels; c++)
        for (unsigned a = 0; a < ACTORS_MAX; a++)
            for (unsigned n = 0; n < SENDS; n++) {
                unsigned what = atomic_load(&round->all[c].what[a][n]);
                if ((what & MAYBE) != 0)
                    what = (what & (RECEIVED | DROPPED)) != 0 ? what ^ MAYBE ^ SENT : 0;
                if (!SHOAL_EXPECT(what == 0 || what == (SENT | RECEIVED) ||
                                  what == (SENT | DROPPED)))
                    fprintf(stderr, "seed %llu: channel %u, actor %u, value %u: %u\n",
                            (unsigned long long)round->seed, c, a, n, what);
            }
}

static int ends_here(void *arg, union shoal_value *out)
{
    (void)arg;
    const struct shoal_core_channels *mine = shoal_core_channels_self();
    if (mine != NULL)
        out->u64 = shoal_list_linked(&mine->channels) || shoal_list_linked(&mine->senders);
    return 0;
}

/* Until the last end has learned of the end of its channel, and all memory is back. */
static void settle(void)
{
    for (unsigned core = 0; core < shoal_core_count(); core++) {
        union shoal_value some = {.u64 = 1};
        while (shoal_await(shoal_submit_to(core, ends_here, NULL), &some) != 0 || some.u64 != 0)
            (void)shoal_sleep_ns(50 * SHOAL_NS_PER_US);
    }
}

/* Has the threads held up at random where they meet (runtime/delay_impl.h), or no more. */
static int delay_here(void *arg, union shoal_value *out)
{
    (void)out;
    const struct shoal_delay_plan *plan = arg;
    struct shoal_delay_plan mine = *plan;
    mine.seed += (uint64_t)shoal_core_id();
    if (plan->chance_ppm > 0)
        shoal_delay_arm(&mine);
    else
        shoal_delay_disarm(NULL);
    return 0;
}

static void delay(const struct round *round, bool on)
{
    struct shoal_delay_plan plan = {
        .seed = round->seed, .chance_ppm = on ? 20000 : 0, .sleep_ns_max = 20 * SHOAL_NS_PER_US};
    for (unsigned core = 0; core < round->cores; core++)
        SHOAL_EXPECT_INT(shoal_await(shoal_submit_to(core, delay_here, &plan), NULL), 0);
}

static void run_round(uint64_t seed)
{
    uint64_t random = seed * 2654435769u + 1;
    struct round round = {.seed = seed, .cores = shoal_core_count()};
    struct shoal_future *futures[CHANNELS_MAX * 12];
    struct end_task tasks[CHANNELS_MAX * 12];
    unsigned count = 0;
    round.channels = 1 + below(&random, CHANNELS_MAX);
    round.all = calloc(round.channels, sizeof(*round.all));
    now = &round;
    delay(&round, seed % 2 == 0);
    for (unsigned c = 0; c < round.channels; c++) {
        struct model_channel *model = &round.all[c];
        model->number = c;
        model->home = below(&random, round.cores);
        model->receivers = 1 + (below(&random, 2) == 0 ? below(&random, 3) : 0);
        model->ordered = model->receivers == 1;
        atomic_store(&model->senders, 1 + (int)below(&random, 9));
        struct end_task task = {model, shoal_test_random(&random)};
        SHOAL_EXPECT_INT(run_on(model->home, make_here, &task), 0);
    }
    for (unsigned c = 0; c < round.channels; c++) {
        struct model_channel *model = &round.all[c];
        unsigned ends = (unsigned)atomic_load(&model->senders);
        tasks[count] = (struct end_task){model, shoal_test_random(&random)};
        futures[count] = start_on(model->home, home_fiber, &tasks[count]);
        count++;
        for (unsigned e = 0; e < ends; e++) {
            tasks[count] = (struct end_task){model, shoal_test_random(&random)};
            futures[count] = start_on(below(&random, round.cores), end_fiber, &tasks[count]);
            count++;
        }
    }
    for (unsigned i = 0; i < count; i++)
        SHOAL_EXPECT_INT(shoal_await(futures[i], NULL), 0);
    settle();
    delay(&round, false);
    check_model(&round);
    free(round.all);
}

static int check_rounds(void *arg)
{
    unsigned rounds = (unsigned)(uintptr_t)arg;
    const char *only = getenv("SHOAL_TEST_SEED");
    if (only != NULL) {
        run_round(strtoull(only, NULL, 10));
        return 0;
    }
    for (unsigned seed = 1; seed <= rounds && shoal_test_failures() == 0; seed++)
        run_round(seed + 1000 * shoal_core_count());
    return 0;
}

static void fuzz(unsigned cores, unsigned rounds)
{
    assert_int_equal(
        shoal_test_run(cores, check_rounds, (void *)(uintptr_t)(rounds / SHOAL_TEST_SLOWDOWN + 3)),
        0);
}

static void core_channel_random_operations_agree_with_a_model_on_1_core(void **state)
{
    (void)state;
    fuzz(1, 61);
}

static void core_channel_random_operations_agree_with_a_model_on_2_cores(void **state)
{
    (void)state;
    fuzz(2, 121);
}

static void core_channel_random_operations_agree_with_a_model_on_3_cores(void **state)
{
    (void)state;
    fuzz(3, 101);
}

static void core_channel_random_operations_agree_with_a_model_on_8_cores(void **state)
{
    (void)state;
    fuzz(CORES_MAX, 61);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(core_channel_random_operations_agree_with_a_model_on_1_core),
        cmocka_unit_test(core_channel_random_operations_agree_with_a_model_on_2_cores),
        cmocka_unit_test(core_channel_random_operations_agree_with_a_model_on_3_cores),
        cmocka_unit_test(core_channel_random_operations_agree_with_a_model_on_8_cores),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
