/*
 * What the balancer decides from what it sees: by connections, by time, and when to leave all as it
 * is. No clocks and no sockets: views are written by hand, and a model of several cores plays on.
 */
/* backends: io_uring */
#include <sched.h>

#include "shoal/runtime/clock.h"

#include "shoal/net/balance_impl.h"

#include "unit/harness.h"

#define CORES_MAX 64
#define SECOND    SHOAL_NS_PER_S

struct rig {
    struct shoal_balancer *balancer;
    struct shoal_load *lines;
    _Atomic(struct shoal_load *) loads[CORES_MAX];
};

static void rig_init(struct rig *rig, unsigned self, unsigned cores)
{
    size_t bytes = sizeof(struct shoal_balancer) + cores * sizeof(struct shoal_balance_view);
    memset(rig, 0, sizeof(*rig));
    rig->balancer = calloc(1, bytes);
    rig->lines = aligned_alloc(64, cores * sizeof(struct shoal_load));
    assert_non_null(rig->balancer);
    assert_non_null(rig->lines);
    memset((void *)rig->lines, 0, cores * sizeof(struct shoal_load));
    rig->balancer->self = self;
    rig->balancer->cores = cores;
    rig->balancer->loads = rig->loads;
    rig->balancer->interval_ns = 1000;
    for (unsigned i = 0; i < cores; i++) {
        rig->lines[i].cpu_clock = shoal_load_cpu_clock();
        rig->loads[i] = &rig->lines[i];
        rig->balancer->view[i].there = true;
    }
}

static void rig_deinit(struct rig *rig)
{
    free(rig->balancer);
    free(rig->lines);
}

static void set_open(struct rig *rig, const unsigned *open)
{
    for (unsigned i = 0; i < rig->balancer->cores; i++)
        rig->balancer->view[i].open = open[i];
}

static void set_busy(struct rig *rig, const unsigned *percent)
{
    for (unsigned i = 0; i < rig->balancer->cores; i++)
        rig->balancer->view[i].busy = (uint16_t)(percent[i] * 1024 / 100);
}

/* How many connections core 0 plans to hand over, with so many open on each core. */
static unsigned planned(struct rig *rig, const unsigned *open)
{
    set_open(rig, open);
    shoal_balancer_plan(rig->balancer);
    return rig->balancer->by_open.count;
}

/* ---- By connections ---- */

static void plan_even_or_fewer_than_the_mean_keeps(void **state)
{
    (void)state;
    struct rig rig;
    rig_init(&rig, 0, 4);
    assert_int_equal(planned(&rig, (unsigned[]){0, 0, 0, 0}), 0);
    assert_int_equal(planned(&rig, (unsigned[]){1, 1, 1, 1}), 0);
    assert_int_equal(planned(&rig, (unsigned[]){0, 9, 0, 0}), 0);
    assert_int_equal(planned(&rig, (unsigned[]){2, 2, 2, 1}), 0);
    assert_int_equal(planned(&rig, (unsigned[]){1000, 1010, 990, 1000}), 0);
    assert_int_equal(planned(&rig, (unsigned[]){1020, 1000, 1000, 980}), 0); /* within the margin */
    rig_deinit(&rig);
}

static void plan_over_the_mean_goes_to_those_with_fewest(void **state)
{
    (void)state;
    struct rig rig;
    rig_init(&rig, 0, 4);
    assert_int_equal(planned(&rig, (unsigned[]){1, 0, 0, 0}),
                     3); /* one each, and then all have 1 */
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(rig.balancer->by_open.core[i], i + 1);
    rig.balancer->over = false;
    assert_int_equal(planned(&rig, (unsigned[]){3, 2, 0, 3}), 4);
    const unsigned wanted[] = {2, 2, 1, 2};
    for (unsigned i = 0; i < 4; i++)
        assert_int_equal(rig.balancer->by_open.core[i], wanted[i]);
    rig.balancer->over = false;
    assert_int_equal(planned(&rig, (unsigned[]){500, 100, 100, 100}), SHOAL_BALANCE_PLAN_MAX);
    rig_deinit(&rig);
}

static void plan_hysteresis_goes_on_until_well_below_where_it_began(void **state)
{
    (void)state;
    struct rig rig;
    rig_init(&rig, 0, 2);
    assert_int_equal(planned(&rig, (unsigned[]){1030, 1000}), 0);
    assert_true(planned(&rig, (unsigned[]){1100, 1000}) > 0);
    assert_true(planned(&rig, (unsigned[]){1100, 1060}) > 0); /* that would not have begun it */
    assert_int_equal(planned(&rig, (unsigned[]){1100, 1090}), 0);
    assert_int_equal(planned(&rig, (unsigned[]){1100, 1060}), 0);
    rig_deinit(&rig);
}

static void plan_ties_begin_behind_oneself(void **state)
{
    (void)state;
    for (unsigned self = 0; self < 5; self++) {
        struct rig rig;
        unsigned open[5] = {0};
        open[self] = 3;
        rig_init(&rig, self, 5);
        set_open(&rig, open);
        shoal_balancer_plan(rig.balancer);
        assert_int_equal(rig.balancer->by_open.core[0], (self + 1) % 5);
        rig_deinit(&rig);
    }
}

static void plan_core_that_does_not_listen_or_has_no_time_gets_nothing(void **state)
{
    (void)state;
    struct rig rig;
    rig_init(&rig, 0, 3);
    rig.balancer->view[1].there = false;
    assert_int_equal(planned(&rig, (unsigned[]){4, 0, 3}), 1);
    assert_int_equal(rig.balancer->by_open.core[0], 2);
    rig.balancer->view[1].there = true;
    set_busy(&rig, (unsigned[]){20, 90, 20});
    rig.balancer->over = false;
    assert_int_equal(planned(&rig, (unsigned[]){4, 0, 3}), 1);
    assert_int_equal(rig.balancer->by_open.core[0], 2);
    set_busy(&rig, (unsigned[]){88, 90, 20}); /* hardly busier than this one */
    rig.balancer->over = false;
    assert_true(planned(&rig, (unsigned[]){4, 0, 3}) > 1);
    rig_deinit(&rig);
}

/* ---- Whether connections last ---- */

/* Whether connections count as brief after `closed` of them, of `ms` each, in a second. */
static bool brief_after(struct rig *rig, uint64_t closed, uint64_t ms)
{
    shoal_balancer_judge_counts(rig->balancer, 1000000, closed, closed * ms * 1000);
    return rig->balancer->brief;
}

static void judge_brief_connections_are_left_where_they_are(void **state)
{
    (void)state;
    struct rig rig;
    rig_init(&rig, 0, 2);
    const unsigned open[2] = {60, 4};
    assert_true(planned(&rig, open) > 0);
    assert_true(brief_after(&rig, 20000, 3));
    assert_int_equal(planned(&rig, open), 0);
    assert_true(brief_after(&rig, 2000, 64)); /* not yet twice 50 */
    assert_false(brief_after(&rig, 2000, 128));
    assert_true(planned(&rig, open) > 0);
    assert_false(brief_after(&rig, 2000, 64)); /* still lasting */
    assert_true(brief_after(&rig, 2000, 49));
    rig_deinit(&rig);
}

static void judge_few_brief_connections_are_worth_their_messages(void **state)
{
    (void)state;
    struct rig rig;
    rig_init(&rig, 0, 4);
    assert_false(brief_after(&rig, 0, 0));
    assert_false(brief_after(&rig, 3999, 1));
    assert_true(brief_after(&rig, 4000, 1)); /* 1000 a core */
    assert_false(brief_after(&rig, 3999, 1));
    shoal_balancer_judge_counts(rig.balancer, 20000, 80, 80 * 1000); /* a shorter time */
    assert_true(rig.balancer->brief);
    rig_deinit(&rig);
}

static void load_adds_up_how_long_connections_were_open(void **state)
{
    (void)state;
    struct rig rig;
    struct shoal_balance_target target;
    rig_init(&rig, 0, 2);
    struct shoal_load *load = &rig.lines[1];
    uint64_t now = 50000 * SECOND;
    (void)shoal_balancer_pick(rig.balancer, now, &target);
    shoal_load_count(load, now + 1000000, false);
    shoal_load_count(load, now + 3000000, false);
    shoal_load_count(load, now + 4000000, true);
    assert_int_equal(load->open, 1);
    assert_int_equal(load->closed, 1);
    assert_int_equal(load->lived_us, 2000 + 2 * 1000);
    (void)shoal_balancer_pick(rig.balancer, now + 14000000, &target); /* too soon to judge */
    assert_int_equal(rig.balancer->view[1].lived_us, 0);
    (void)shoal_balancer_pick(rig.balancer, now + 24000000, &target);
    assert_int_equal(rig.balancer->view[1].lived_us, 4000 + 20000); /* one is open up to now */
    assert_int_equal(rig.balancer->view[1].closed, 1);
    rig_deinit(&rig);
}

/* As pick sees it: many connections that end, with others or without that stay. */
static void pick_judges_by_how_long_connections_were_open(void **state)
{
    (void)state;
    struct rig rig;
    struct shoal_balance_target target;
    rig_init(&rig, 0, 2);
    struct shoal_load *load = &rig.lines[1];
    uint64_t now = 50000 * SECOND;
    for (unsigned each_ms = 10; each_ms <= 60; each_ms += 50) {
        (void)shoal_balancer_pick(rig.balancer, now, &target);
        for (int i = 0; i < 300; i++)
            shoal_load_count(load, now, false);
        for (int i = 0; i < 300; i++)
            shoal_load_count(load, now + each_ms * SHOAL_NS_PER_MS, true);
        now += 100 * SHOAL_NS_PER_MS; /* none is open any more */
        (void)shoal_balancer_pick(rig.balancer, now, &target);
        assert_int_equal(rig.balancer->brief, each_ms == 10);
        rig.balancer->brief = false;
    }
    rig_deinit(&rig);
}

/* ---- By time ---- */

/* The share after so many samples that all see the same. */
static unsigned share_after(struct rig *rig, unsigned samples, const unsigned *percent)
{
    for (unsigned i = 0; i < samples; i++) {
        set_busy(rig, percent);
        shoal_balancer_judge_times(rig->balancer);
    }
    return rig->balancer->share;
}

static void judge_share_grows_stays_and_shrinks_with_the_skew(void **state)
{
    (void)state;
    struct rig rig;
    rig_init(&rig, 0, 2);
    assert_int_equal(share_after(&rig, 5, (unsigned[]){40, 0}), 0); /* has time enough itself */
    assert_int_equal(share_after(&rig, 5, (unsigned[]){90, 85}), 0);
    unsigned first = share_after(&rig, 1, (unsigned[]){100, 0});
    assert_int_equal(first, 256); /* half of what it is over the mean */
    assert_int_equal(share_after(&rig, 20, (unsigned[]){100, 0}), 768);
    assert_int_equal(share_after(&rig, 20, (unsigned[]){70, 66}), 768); /* as it should be */
    assert_true(share_after(&rig, 1, (unsigned[]){60, 90}) < 768);
    assert_int_equal(share_after(&rig, 40, (unsigned[]){10, 8}), 0);
    rig_deinit(&rig);
}

static void pick_by_time_hands_over_the_share_to_those_with_time(void **state)
{
    (void)state;
    struct rig rig;
    struct shoal_balance_target target;
    unsigned given[4] = {0};
    rig_init(&rig, 0, 4);
    rig.balancer->brief = true;
    (void)share_after(&rig, 1, (unsigned[]){100, 20, 60, 20}); /* the mean is 50 */
    assert_int_equal(rig.balancer->share, 256);
    rig.balancer->next_look_ns = UINT64_MAX;
    for (int i = 0; i < 4096; i++) {
        if (!shoal_balancer_pick(rig.balancer, 1, &target))
            continue;
        given[target.core]++;
        assert_int_equal(target.below, UINT32_MAX);
    }
    assert_int_equal(given[0] + given[2], 0); /* itself, and one above the mean */
    assert_int_equal(given[1] + given[3], 1024);
    assert_in_range(given[1], 450, 574);
    rig_deinit(&rig);
}

static void plan_by_time_everybody_below_the_mean_has_a_part(void **state)
{
    (void)state;
    struct rig rig;
    unsigned times[4] = {0};
    rig_init(&rig, 1, 4);
    (void)share_after(&rig, 1, (unsigned[]){0, 100, 30, 38}); /* mean 42 */
    const struct shoal_balance_plan *plan = &rig.balancer->by_busy;
    assert_in_range(plan->count, 14, SHOAL_BALANCE_PLAN_MAX);
    for (unsigned i = 0; i < plan->count; i++)
        times[plan->core[i]]++;
    assert_int_equal(times[1], 0);
    assert_true(times[0] > times[2] && times[2] > times[3] && times[3] > 0);
    rig_deinit(&rig);
}

/* ---- Looking ---- */

static void pick_looks_once_an_interval_and_tells_how_many_it_serves(void **state)
{
    (void)state;
    struct rig rig;
    struct shoal_balance_target target;
    rig_init(&rig, 0, 2);
    rig.lines[0].open = 5;
    rig.lines[1].open = 3;
    uint64_t now = 50000 * SECOND;
    assert_true(shoal_balancer_pick(rig.balancer, now, &target));
    assert_int_equal(target.core, 1);
    assert_int_equal(target.below, 5);
    rig.lines[0].open = 6;
    assert_true(shoal_balancer_pick(rig.balancer, now + 999, &target)); /* the plan's second */
    assert_int_equal(target.below, 6);
    assert_false(shoal_balancer_pick(rig.balancer, now + 999, &target)); /* no look: no more */
    assert_true(shoal_balancer_pick(rig.balancer, now + 1000, &target));
    rig.loads[1] = NULL; /* has stopped */
    assert_false(shoal_balancer_pick(rig.balancer, now + 2000, &target));
    assert_false(rig.balancer->view[1].there);
    rig_deinit(&rig);
}

/* All in one turn of the loop, for which the clock stands still. */
static void pick_in_a_burst_looks_again_when_it_has_got_many(void **state)
{
    (void)state;
    struct rig rig;
    struct shoal_balance_target target;
    rig_init(&rig, 0, 4);
    uint64_t now = 50000 * SECOND;
    unsigned kept = 0, given[4] = {0};
    for (int i = 0; i < 64; i++) {
        if (shoal_balancer_pick(rig.balancer, now, &target)) {
            given[target.core]++;
            shoal_load_count(&rig.lines[target.core], now, false);
        } else {
            kept++;
            shoal_load_count(&rig.lines[0], now, false);
        }
    }
    assert_in_range(kept, 16, 24);
    for (unsigned i = 1; i < 4; i++)
        assert_in_range(given[i], 12, 16);
    rig_deinit(&rig);
}

static void pick_samples_closed_connections_across_the_wrap(void **state)
{
    (void)state;
    struct rig rig;
    struct shoal_balance_target target;
    rig_init(&rig, 0, 2);
    rig.balancer->samples_cpu = true;
    rig.lines[1].closed = UINT32_MAX - 10;
    for (volatile int i = 0; i < 20000000; i++) {
    }
    rig.lines[0].open = rig.lines[1].open = 10;
    uint64_t now = 50000 * SECOND;
    rig.loads[1] = NULL; /* listens later */
    assert_false(shoal_balancer_pick(rig.balancer, now - SECOND, &target));
    rig.loads[1] = &rig.lines[1];
    assert_false(shoal_balancer_pick(rig.balancer, now, &target));
    assert_int_equal(rig.balancer->view[1].busy, 0); /* the first reading says nothing */
    rig.lines[1].closed += 20;
    assert_false(shoal_balancer_pick(rig.balancer, now + SECOND, &target));
    assert_false(rig.balancer->brief); /* few */
    assert_int_equal(rig.balancer->view[1].closed, 9);
    for (volatile int i = 0; i < 20000000; i++) {
    }
    assert_false(shoal_balancer_pick(rig.balancer, now + SECOND + SECOND / 10, &target));
    assert_true(rig.balancer->view[0].busy > 0);
    assert_true(rig.balancer->view[0].busy <= 1024);
    rig_deinit(&rig);
}

/* ---- All together ---- */

/*
 * A model: fresh connections arrive at cores by chance, as the kernel deals them; each core looks
 * once in `stale` arrivals of its own; a target takes what it is offered by `below`.
 */
struct model {
    unsigned cores;
    unsigned stale;
    struct rig rigs[8];
    unsigned open[8];
    unsigned arrivals[8];
    unsigned moved;
    unsigned refused;
};

static unsigned model_max(const struct model *model)
{
    unsigned max = 0;
    for (unsigned i = 0; i < model->cores; i++)
        max = model->open[i] > max ? model->open[i] : max;
    return max;
}

static void model_arrive(struct model *model, unsigned at)
{
    struct shoal_balancer *balancer = model->rigs[at].balancer;
    if (model->arrivals[at]++ % model->stale == 0) {
        set_open(&model->rigs[at], model->open);
        shoal_balancer_plan(balancer);
    }
    struct shoal_balance_plan *plan = &balancer->by_open;
    unsigned to = at;
    if (plan->next < plan->count)
        to = plan->core[plan->next++];
    if (to != at && model->open[to] >= model->open[at]) {
        model->refused++;
        to = at;
    }
    model->moved += to != at;
    model->open[to]++;
}

static void model_run(struct model *model, unsigned cores, unsigned stale, unsigned connections)
{
    uint64_t random = 42;
    memset(model, 0, sizeof(*model));
    model->cores = cores;
    model->stale = stale;
    for (unsigned i = 0; i < cores; i++)
        rig_init(&model->rigs[i], i, cores);
    for (unsigned i = 0; i < connections; i++)
        model_arrive(model, (unsigned)((shoal_test_random(&random) >> 20) % cores));
    for (unsigned i = 0; i < cores; i++)
        rig_deinit(&model->rigs[i]);
}

static void model_long_lived_connections_become_even(void **state)
{
    (void)state;
    struct model model;
    for (unsigned cores = 2; cores <= 8; cores++) {
        model_run(&model, cores, 1, cores * 2);
        assert_in_range(model_max(&model), 2, 3);
        model_run(&model, cores, 1, cores * 1000);
        assert_in_range(model_max(&model), 1000, 1035);
        assert_true(model.moved < cores * 1000 / 4);
        assert_int_equal(model.refused, 0);
    }
}

static void model_stale_numbers_never_make_the_fullest_fuller(void **state)
{
    (void)state;
    struct model model;
    model_run(&model, 8, 32, 8000);
    assert_in_range(model_max(&model), 1000, 1060);
    /* Seven cores are full and one is empty: all see it at once. */
    memset(&model, 0, sizeof(model));
    model.cores = 8;
    model.stale = 1000;
    for (unsigned i = 0; i < 8; i++) {
        rig_init(&model.rigs[i], i, 8);
        model.open[i] = i < 7 ? 20 : 0;
    }
    for (unsigned round = 0; round < 16; round++)
        for (unsigned i = 0; i < 7; i++)
            model_arrive(&model, i);
    assert_true(model.refused > 0);
    assert_true(model.open[7] <= 40);
    assert_true(model.open[7] <= model_max(&model));
    for (unsigned i = 0; i < 8; i++)
        rig_deinit(&model.rigs[i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(plan_even_or_fewer_than_the_mean_keeps),
        cmocka_unit_test(plan_over_the_mean_goes_to_those_with_fewest),
        cmocka_unit_test(plan_hysteresis_goes_on_until_well_below_where_it_began),
        cmocka_unit_test(plan_ties_begin_behind_oneself),
        cmocka_unit_test(plan_core_that_does_not_listen_or_has_no_time_gets_nothing),
        cmocka_unit_test(judge_brief_connections_are_left_where_they_are),
        cmocka_unit_test(judge_few_brief_connections_are_worth_their_messages),
        cmocka_unit_test(pick_judges_by_how_long_connections_were_open),
        cmocka_unit_test(load_adds_up_how_long_connections_were_open),
        cmocka_unit_test(judge_share_grows_stays_and_shrinks_with_the_skew),
        cmocka_unit_test(pick_by_time_hands_over_the_share_to_those_with_time),
        cmocka_unit_test(plan_by_time_everybody_below_the_mean_has_a_part),
        cmocka_unit_test(pick_looks_once_an_interval_and_tells_how_many_it_serves),
        cmocka_unit_test(pick_in_a_burst_looks_again_when_it_has_got_many),
        cmocka_unit_test(pick_samples_closed_connections_across_the_wrap),
        cmocka_unit_test(model_long_lived_connections_become_even),
        cmocka_unit_test(model_stale_numbers_never_make_the_fullest_fuller),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
