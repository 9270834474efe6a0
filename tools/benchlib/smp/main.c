/*
 * The benchmark of messages between cores as a program: `tools/bench smp` runs it and judges.
 *
 *   shoal-bench-smp --smp 2                                  every case, one line a sample
 *   shoal-bench-smp --smp 2 --case submit-idle-16            this alone
 *   shoal-bench-smp --smp 2 --check --rounds 1               fails when a message allocates
 *
 * A line is: case, subject, round, value, unit, p50, p99, p99.9, max ("-" where the case has no
 * latencies) and allocations an operation, in columns. Shoal's own options work too.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <sched.h>

#include "smp.h"

#define ROUNDS_MAX    1000
#define CASES_MAX     64u
#define WORDS_MAX     64
#define OPS_FIRST     16u
#define OPS_MAX       50000000u
#define SAMPLE_US_MAX 1000000

static uint64_t rounds = 9;
static uint64_t sample_us = 2000;
static const char *only;
static bool check;
static bool list;
static unsigned cpus;

static const struct shoal_option options[] = {
    {"rounds", SHOAL_OPTION_UINT, &rounds, "N", "Samples of each subject.", 1, ROUNDS_MAX, NULL,
     NULL},
    {"sample-us", SHOAL_OPTION_UINT, &sample_us, "N",
     "How long a sample is to take, where the case does not say.", 1, SAMPLE_US_MAX, NULL, NULL},
    {"case", SHOAL_OPTION_STRING, &only, "A,B", "Only these cases.", 0, 0, NULL, NULL},
    {"check", SHOAL_OPTION_FLAG, &check, NULL, "End with exit code 1 when a message allocates.", 0,
     0, NULL, NULL},
    {"list", SHOAL_OPTION_FLAG, &list, NULL, "List the cases and what they measure.", 0, 0, NULL,
     NULL},
    {.name = NULL},
};

static const struct smp_case *const tables[] = {smp_idle_cases, smp_call_cases, smp_sleep_cases,
                                                smp_wake_cases, smp_busy_cases, smp_mesh_cases};

struct series {
    const struct smp_case *work;
    uint64_t ops[SMP_SUBJECTS_MAX];
    uint64_t least_allocs[SMP_SUBJECTS_MAX]; /* of a sample */
    unsigned subjects;
};

static struct series series[CASES_MAX];
static unsigned series_count;
uint64_t smp_latency_ns[SMP_LATENCIES_MAX];

/* ---- For the cases ---- */

unsigned smp_target(void)
{
    return shoal_core_count() > 1 ? 1 : 0;
}

void smp_fail(const char *what, int code)
{
    fprintf(stderr, "shoal-bench-smp: %s: %s\n", what, shoal_error_name(code));
    exit(1);
}

void smp_pause_awake(uint64_t ns)
{
    uint64_t until_ns = shoal_now_ns() + ns;
    while (shoal_now_ns() < until_ns)
        (void)shoal_yield();
}

static struct shoal_future *peer;
static atomic_bool peer_runs;

void smp_peer_begun(void)
{
    /* release: pairs with the load in smp_peer_start(). */
    atomic_store_explicit(&peer_runs, true, memory_order_release);
}

void smp_peer_start(shoal_submit_fn *fn, void *arg)
{
    atomic_store_explicit(&peer_runs, false, memory_order_relaxed);
    peer = shoal_submit_to(1, fn, arg);
    while (!atomic_load_explicit(&peer_runs, memory_order_acquire)) {
        if (!shoal_future_is_pending(peer))
            smp_fail("a limit's other side did not begin", shoal_await(peer, NULL));
        (void)shoal_yield();
    }
}

void smp_peer_join(void)
{
    smp_check(shoal_await(peer, NULL), "a limit's other side");
}

static int compare_ns(const void *a, const void *b)
{
    const uint64_t *x = a;
    const uint64_t *y = b;
    return (*x > *y) - (*x < *y);
}

static double percentile_us(const uint64_t *sorted, uint64_t count, double share)
{
    uint64_t at = (uint64_t)(share * (double)count);
    return (double)sorted[at < count ? at : count - 1] / 1e3;
}

void smp_latencies(struct smp_sample *sample, uint64_t *ns, uint64_t count)
{
    if (count == 0)
        return;
    qsort(ns, count, sizeof(*ns), compare_ns);
    sample->has_latencies = true;
    sample->p50 = percentile_us(ns, count, 0.5);
    sample->p99 = percentile_us(ns, count, 0.99);
    sample->p999 = percentile_us(ns, count, 0.999);
    sample->max = percentile_us(ns, count, 1.0);
    sample->value = sample->p99;
}

uint64_t smp_median_us(struct smp_sample *sample, uint64_t *ns, uint64_t count)
{
    smp_latencies(sample, ns, count);
    sample->value = sample->p50;
    return count;
}

/* ---- Measuring ---- */

static int read_allocs(void *arg, union shoal_value *out)
{
    (void)arg;
    struct shoal_mem_stats stats;
    shoal_mem_stats(&stats);
    out->u64 = stats.allocs;
    return 0;
}

static uint64_t allocs_of_all_cores(void)
{
    uint64_t sum = 0;
    for (unsigned core = 0; core < shoal_core_count(); core++) {
        union shoal_value value;
        smp_check(shoal_await(shoal_submit_to(core, read_allocs, NULL), &value), "a message");
        sum += value.u64;
    }
    return sum;
}

static bool wanted(const char *name)
{
    if (only == NULL)
        return true;
    size_t len = strlen(name);
    for (const char *at = only; (at = strstr(at, name)) != NULL; at += len)
        if ((at == only || at[-1] == ',') && (at[len] == ',' || at[len] == '\0'))
            return true;
    return false;
}

static bool subject_fits(const struct smp_case *work, const struct smp_subject *subject)
{
    bool is_shoal = strncmp(subject->name, "shoal", strlen("shoal")) == 0;
    return is_shoal || (shoal_core_count() >= 2 && (!work->limits_spin || cpus >= 2) &&
                        (!work->limits_spin || shoal_core_count() <= cpus));
}

/* How many operations take about as long as a sample is to take. Warms up, too. */
static uint64_t ops_of_sample(const struct smp_case *work, const struct smp_subject *subject)
{
    struct smp_sample unused = {0};
    if (work->ops != 0) {
        (void)subject->run(work->ops, &unused);
        return work->ops;
    }
    uint64_t wanted_ns = sample_us * SHOAL_NS_PER_US;
    for (uint64_t ops = OPS_FIRST;; ops *= 4) {
        uint64_t begin_ns = shoal_now_ns();
        uint64_t done = subject->run(ops, &unused);
        uint64_t took_ns = shoal_now_ns() - begin_ns + 1;
        if (took_ns < wanted_ns / 4 && ops < OPS_MAX / 4)
            continue;
        uint64_t fit = done * wanted_ns / took_ns;
        return fit < 1 ? 1 : fit;
    }
}

static void print_sample(const struct smp_case *work, const struct smp_subject *subject,
                         uint64_t round, const struct smp_sample *sample)
{
    printf("%s\t%s\t%" PRIu64 "\t%.4f\t%s", work->name, subject->name, round, sample->value,
           work->unit);
    if (sample->has_latencies)
        printf("\t%.3f\t%.3f\t%.3f\t%.3f", sample->p50, sample->p99, sample->p999, sample->max);
    else
        printf("\t-\t-\t-\t-");
    printf("\t%.6f\n", sample->allocs);
    fflush(stdout);
}

static void sample_subject(struct series *one, unsigned at, uint64_t round)
{
    const struct smp_subject *subject = &one->work->subjects[at];
    if (one->ops[at] == 0)
        return;
    struct smp_sample sample = {0};
    uint64_t allocs = allocs_of_all_cores();
    uint64_t done = subject->run(one->ops[at], &sample);
    allocs = allocs_of_all_cores() - allocs;
    sample.allocs = done != 0 ? (double)allocs / (double)done : 0.0;
    print_sample(one->work, subject, round, &sample);
    if (round == 0 || allocs < one->least_allocs[at])
        one->least_allocs[at] = allocs;
}

/* Whether a case allocates in every sample. Once in a while a pool may grow. */
static bool any_allocates(void)
{
    bool any = false;
    for (unsigned i = 0; i < series_count; i++)
        for (unsigned at = 0; at < series[i].subjects; at++)
            if (series[i].least_allocs[at] > 0) {
                fprintf(stderr, "%s allocates (%s): at least %" PRIu64 " times a sample\n",
                        series[i].work->name, series[i].work->subjects[at].name,
                        series[i].least_allocs[at]);
                any = true;
            }
    return any;
}

/* The cases that were asked for and that this many cores can run. False: there is none at all. */
static bool gather(void)
{
    bool known = false;
    for (unsigned table = 0; table < sizeof(tables) / sizeof(tables[0]); table++)
        for (const struct smp_case *work = tables[table]; work->name != NULL; work++) {
            if (!wanted(work->name) || series_count == CASES_MAX)
                continue;
            known = true;
            if (list || work->cores_min <= shoal_core_count())
                series[series_count++].work = work;
        }
    return known;
}

static void prepare(struct series *one)
{
    for (const struct smp_subject *subject = one->work->subjects;
         one->subjects < SMP_SUBJECTS_MAX && subject->name != NULL; subject++) {
        one->ops[one->subjects++] =
            subject_fits(one->work, subject) ? ops_of_sample(one->work, subject) : 0;
    }
}

static int run(void *arg)
{
    (void)arg;
    if (!gather())
        return shoal_config_error("--case: \"%s\" names no case; see --list",
                                  only != NULL ? only : "");
    if (list) {
        for (unsigned i = 0; i < series_count; i++)
            printf("%-24s %-5s %s\n", series[i].work->name, series[i].work->unit,
                   series[i].work->what);
        return 0;
    }
    printf("backend\t%s\tcores\t%u\tcpus\t%u\n", shoal_core_io_backend(), shoal_core_count(), cpus);
    smp_mesh_init();
    (void)allocs_of_all_cores(); /* makes the rings between core 0 and the others */
    for (unsigned i = 0; i < series_count; i++)
        prepare(&series[i]);
    for (unsigned i = 0; i < 2; i++) /* what the first samples brought about is not theirs */
        (void)allocs_of_all_cores();
    for (uint64_t round = 0; round < rounds; round++)
        for (unsigned i = 0; i < series_count; i++)
            for (unsigned turn = 0; turn < series[i].subjects; turn++)
                sample_subject(&series[i], (unsigned)((turn + round) % series[i].subjects), round);
    return check && any_allocates() ? 1 : 0;
}

int main(int argc, char **argv)
{
    static const struct shoal_program program = {
        .name = "shoal-bench-smp",
        .about = "Measures messages between cores, beside their limits.",
        .options = options,
        .run = run,
    };
    cpu_set_t usable;
    cpus = sched_getaffinity(0, sizeof(usable), &usable) == 0 ? (unsigned)CPU_COUNT(&usable) : 1;
    /* A limit holds its core for long, which is no stall. What the user says wins. */
    static char *own[] = {"--blocked-reactor-notify-ms", "0", "--log-level", "warn"};
    enum { OWN = sizeof(own) / sizeof(own[0]) };
    char *words[WORDS_MAX] = {argv[0]};
    int count = 1;
    for (unsigned i = 0; i < OWN; i++)
        words[count++] = own[i];
    for (int i = 1; i < argc && count < WORDS_MAX - 1; i++)
        words[count++] = argv[i];
    return shoal_main(count, words, &program);
}
