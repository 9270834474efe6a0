/*
 * shoal-bench-scaling: one workload on the number of cores that --smp says.
 *
 *   shoal-bench-scaling --smp 2 --workload serve --port 0       serves until it is stopped
 *   shoal-bench-scaling --smp 2 --workload messages --seconds 2
 *   shoal-bench-scaling --smp 8 --workload memory --overprovisioned
 *
 * `messages` and `memory` print lines of a name, a tab and a value. `tools/bench scaling` runs it
 * at each number of cores, in turn, and draws the curves; see docs/scaling.md.
 */
#include "scaling.h"

static struct scaling scaling = {
    .run_ns = 2 * SHOAL_NS_PER_S,
    .warm_up_ns = SHOAL_NS_PER_S / 5,
    .window = 128,
};

static int workload;

static int run(void *arg)
{
    static int (*const workloads[])(const struct scaling *scaling) = {
        scaling_serve, scaling_messages, scaling_memory};
    (void)arg;
    return workloads[workload](&scaling);
}

int main(int argc, char **argv)
{
    static const char *const names[] = {"serve", "messages", "memory", NULL};
    struct shoal_option table[SHOAL_HTTP_OPTION_COUNT + 5] = {
        {.name = "workload",
         .type = SHOAL_OPTION_CHOICE,
         .target = &workload,
         .choices = names,
         .help = "What to run."},
        {.name = "seconds",
         .type = SHOAL_OPTION_SECONDS_NS,
         .target = &scaling.run_ns,
         .value_name = "SECONDS",
         .help = "How long messages are measured.",
         .min = SHOAL_NS_PER_MS,
         .max = 3600 * SHOAL_NS_PER_S},
        {.name = "warm-up",
         .type = SHOAL_OPTION_SECONDS_NS,
         .target = &scaling.warm_up_ns,
         .value_name = "SECONDS",
         .help = "How long messages flow before that.",
         .max = 60 * SHOAL_NS_PER_S},
        {.name = "window",
         .type = SHOAL_OPTION_UINT,
         .target = &scaling.window,
         .value_name = "N",
         .help = "Messages that each core keeps in flight.",
         .min = 1,
         .max = SCALING_WINDOW_MAX},
    };
    shoal_http_options_init(&scaling.http);
    shoal_http_options_table(&scaling.http, table + 4);
    const struct shoal_program program = {
        .name = "shoal-bench-scaling",
        .about = "One workload of the scaling benchmark.",
        .options = table,
        .run = run,
    };
    return shoal_main(argc, argv, &program);
}
