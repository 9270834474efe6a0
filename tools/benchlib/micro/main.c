/*
 * The single-core micro-benchmark as a program: `tools/bench micro` runs it and judges.
 *
 *   shoal-bench-micro                                  every case, a table
 *   shoal-bench-micro --case then-ready,fiber-yield    these alone
 *   shoal-bench-micro --raw                            one line a sample, for tools/bench
 *   shoal-bench-micro --check --rounds 1               fails when an operation allocates
 *
 * In each round every case takes one sample, and its limit one right before or after it, in turn:
 * a machine that drifts moves both. The median of the rounds counts, and of the ratios within each
 * round; the minimum is shown beside it. Shoal's own options work too (--io-backend).
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <shoal/shoal.h>

#include "micro.h"

#define SAMPLE_NS  1000000u
#define ROUNDS_MAX 1000u
#define CASES_MAX  64u
#define WORDS_MAX  64

static uint64_t rounds = 15;
static const char *only;
static bool raw;
static bool check;
static bool list;
static uint64_t watch_cost_ns;

static const struct shoal_option options[] = {
    {"rounds", SHOAL_OPTION_UINT, &rounds, "N", "Samples of each case; the median counts.", 1,
     ROUNDS_MAX, NULL, NULL},
    {"case", SHOAL_OPTION_STRING, &only, "A,B", "Only these cases.", 0, 0, NULL, NULL},
    {"raw", SHOAL_OPTION_FLAG, &raw, NULL, "Print each sample on a line, in columns.", 0, 0, NULL,
     NULL},
    {"check", SHOAL_OPTION_FLAG, &check, NULL,
     "End with exit code 1 when an operation that must not allocate does.", 0, 0, NULL, NULL},
    {"list", SHOAL_OPTION_FLAG, &list, NULL, "List the cases and what they measure.", 0, 0, NULL,
     NULL},
    {.name = NULL},
};

static const struct micro_case *const tables[] = {micro_future_cases,
                                                  micro_fiber_cases,
                                                  micro_timer_cases,
                                                  micro_core_cases,
                                                  micro_combine_cases,
                                                  micro_sync_cases,
                                                  NULL};

struct series {
    const struct micro_case *work;
    uint64_t ops;       /* a sample */
    uint64_t limit_ops; /* a sample of the limit */
    uint64_t total_ops;
    uint64_t total_allocs;
    double ns[ROUNDS_MAX];
    double limit_ns[ROUNDS_MAX];
    double ratio[ROUNDS_MAX];
};

static struct series series[CASES_MAX];
static unsigned series_count;

/* ---- The watch ---- */

static uint64_t cpu_ns(void)
{
    struct timespec time;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
    return (uint64_t)time.tv_sec * SHOAL_NS_PER_S + (uint64_t)time.tv_nsec;
}

static uint64_t allocs_so_far(void)
{
    struct shoal_mem_stats stats;
    shoal_mem_stats(&stats);
    return stats.allocs;
}

void micro_start(struct micro_watch *watch)
{
    watch->begin_allocs = allocs_so_far();
    watch->begin_ns = cpu_ns();
}

void micro_stop(struct micro_watch *watch, uint64_t ops)
{
    uint64_t ns = cpu_ns() - watch->begin_ns;
    watch->ns += ns > watch_cost_ns ? ns - watch_cost_ns : 0;
    watch->allocs += allocs_so_far() - watch->begin_allocs;
    watch->ops += ops;
}

/* What an empty stretch seems to take: left out of every other. */
static void calibrate_watch(void)
{
    uint64_t least_ns = UINT64_MAX;
    for (unsigned i = 0; i < 1000; i++) {
        struct micro_watch watch = {0};
        micro_start(&watch);
        micro_stop(&watch, 1);
        if (watch.ns < least_ns)
            least_ns = watch.ns;
    }
    watch_cost_ns = least_ns;
}

/* ---- Measuring ---- */

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

static uint64_t ops_of_sample(micro_fn *run, uint64_t fixed_ops)
{
    struct micro_watch watch = {0};
    run(&watch, fixed_ops != 0 ? fixed_ops : 1000); /* warms up, too */
    if (fixed_ops != 0 || watch.ops == 0)
        return fixed_ops;
    uint64_t an_op_ns = watch.ns / watch.ops + 1;
    uint64_t ops = SAMPLE_NS / an_op_ns;
    run(&watch, ops);
    return ops > 0 ? ops : 1;
}

static double ns_an_op(const struct micro_watch *watch)
{
    return watch->ops != 0 ? (double)watch->ns / (double)watch->ops : 0.0;
}

static void sample(struct series *one, unsigned round)
{
    struct micro_watch shoal = {0};
    struct micro_watch limit = {0};
    if (round % 2 == 0)
        one->work->limit(&limit, one->limit_ops);
    one->work->run(&shoal, one->ops);
    if (round % 2 != 0)
        one->work->limit(&limit, one->limit_ops);
    one->ns[round] = ns_an_op(&shoal);
    one->limit_ns[round] = ns_an_op(&limit);
    one->ratio[round] = one->limit_ns[round] > 0 ? one->ns[round] / one->limit_ns[round] : 0.0;
    one->total_ops += shoal.ops;
    one->total_allocs += shoal.allocs;
}

static int compare_doubles(const void *a, const void *b)
{
    const double *x = a;
    const double *y = b;
    return (*x > *y) - (*x < *y);
}

static double median(const double *values)
{
    double sorted[ROUNDS_MAX];
    memcpy(sorted, values, rounds * sizeof(*values));
    qsort(sorted, rounds, sizeof(*sorted), compare_doubles);
    return rounds % 2 != 0 ? sorted[rounds / 2] : (sorted[rounds / 2 - 1] + sorted[rounds / 2]) / 2;
}

static double least(const double *values)
{
    double low = values[0];
    for (uint64_t i = 1; i < rounds; i++)
        low = values[i] < low ? values[i] : low;
    return low;
}

/* ---- What it says ---- */

static void print_raw(const struct series *one)
{
    for (uint64_t i = 0; i < rounds; i++)
        printf("%s\t%.4f\t%.4f\t%.6f\n", one->work->name, one->ns[i], one->limit_ns[i],
               (double)one->total_allocs / (double)one->total_ops);
}

static void print_row(const struct series *one)
{
    printf("%-22s %9.2f %9.2f %9.2f %8.2f %8.2f  %s; limit: %s\n", one->work->name, median(one->ns),
           least(one->ns), median(one->limit_ns), median(one->ratio),
           (double)one->total_allocs / (double)one->total_ops, one->work->what,
           one->work->limit_what);
}

static bool may_allocate(const struct micro_case *work)
{
    return strcmp(work->name, "mem-alloc") == 0;
}

static int report(void)
{
    int code = 0;
    if (raw)
        printf("backend\t%s\n", shoal_core_io_backend());
    else
        printf("%-22s %9s %9s %9s %8s %8s  (%s)\n", "ns an operation", "median", "least", "limit",
               "ratio", "allocs", shoal_core_io_backend());
    for (unsigned i = 0; i < series_count; i++) {
        if (raw)
            print_raw(&series[i]);
        else
            print_row(&series[i]);
        if (check && series[i].total_allocs > 0 && !may_allocate(series[i].work)) {
            fprintf(stderr, "%s allocates: %" PRIu64 " times in %" PRIu64 " operations\n",
                    series[i].work->name, series[i].total_allocs, series[i].total_ops);
            code = 1;
        }
    }
    return code;
}

static void gather(void)
{
    for (unsigned table = 0; tables[table] != NULL; table++)
        for (const struct micro_case *work = tables[table]; work->name != NULL; work++)
            if (wanted(work->name) && series_count < CASES_MAX)
                series[series_count++].work = work;
}

static int run(void *arg)
{
    (void)arg;
    gather();
    if (series_count == 0)
        return shoal_config_error("--case: \"%s\" names no case; see --list", only);
    if (list) {
        for (unsigned i = 0; i < series_count; i++)
            printf("%-22s %s; limit: %s\n", series[i].work->name, series[i].work->what,
                   series[i].work->limit_what);
        return 0;
    }
    calibrate_watch();
    for (unsigned i = 0; i < series_count; i++) {
        const struct micro_case *work = series[i].work;
        series[i].ops = ops_of_sample(work->run, work->ops);
        series[i].limit_ops = ops_of_sample(work->limit, work->ops);
    }
    for (unsigned round = 0; round < rounds; round++)
        for (unsigned i = 0; i < series_count; i++)
            sample(&series[i], round);
    return report();
}

int main(int argc, char **argv)
{
    static const struct shoal_program program = {
        .name = "shoal-bench-micro",
        .about = "Measures what one core's operations cost, beside their limits.",
        .options = options,
        .run = run,
    };
    /* One core; a measurement holds it for long, which is no stall. What the user says wins. */
    static char *own[] = {"--smp", "1", "--blocked-reactor-notify-ms", "0", "--log-level", "warn"};
    enum { OWN = sizeof(own) / sizeof(own[0]) };
    char *words[WORDS_MAX] = {argv[0]};
    int count = 1;
    for (unsigned i = 0; i < OWN; i++)
        words[count++] = own[i];
    for (int i = 1; i < argc && count < WORDS_MAX - 1; i++)
        words[count++] = argv[i];
    return shoal_main(count, words, &program);
}
