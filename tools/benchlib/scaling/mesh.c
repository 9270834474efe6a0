/*
 * shoal-bench-mesh: what the steps of the message protocol cost, one by one, in nanoseconds.
 *
 * 1. The steps are the library's own: smp/ring_impl.h, and the look at a ring of smp/serve.c.
 * 2. A look is timed over 1 to 2,046 rings in turn, as a core goes through the list of those that
 *    it watches: each with an inbox and memory of its own, at a random index, in random order.
 *    What many rings cost in cache and TLB misses is in the figure.
 * 3. `near` means that the line was last written by this core, `far` by another: a second thread on
 *    another CPU writes all lines first, and then they are taken back in random order, each after
 *    the one before has come: the full latency, of which real code can hide a part.
 * 4. The median of the samples counts.
 *
 * Prints lines of a name, a tab and a value. With one CPU there is no `far`.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <pthread.h>
#include <sched.h>

#include "shoal/runtime/options.h"

#include "shoal/smp/mailbox_impl.h"

#define RINGS_MAX   2046u
#define SLOTS       256u
#define LINES       256u /* that change hands: half of a first-level cache */
#define SAMPLES_MAX 999u
#define LOOKS       4096u /* a sample, at least */

static uint64_t samples = 31;
static struct shoal_inbox *inboxes[RINGS_MAX];
static struct shoal_request_slot *rings[RINGS_MAX];
static unsigned made;
static struct shoal_mail mail; /* nothing of it is looked at but its lists */
static volatile uint64_t sink;

static uint64_t now_ns(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC_RAW, &time);
    return (uint64_t)time.tv_sec * UINT64_C(1000000000) + (uint64_t)time.tv_nsec;
}

static uint32_t random32(void)
{
    static uint64_t state = UINT64_C(0x9e3779b97f4a7c15);
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return (uint32_t)(state >> 32);
}

/* The numbers below `count`, in random order. */
static void shuffle(unsigned *numbers, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        unsigned place = random32() % (i + 1);
        numbers[i] = numbers[place];
        numbers[place] = i;
    }
}

static int compare_doubles(const void *a, const void *b)
{
    const double *x = a;
    const double *y = b;
    return (*x > *y) - (*x < *y);
}

static double median(double *values)
{
    qsort(values, samples, sizeof(*values), compare_doubles);
    return values[samples / 2];
}

static void print_ns(const char *name, double ns)
{
    printf("%s\t%.3f\n", name, ns);
}

/* ---- Looks ---- */

/* One more ring, which is empty. False when out of memory. */
static bool make_ring(void)
{
    /* a ring of answers beside it, as in a channel: so it has pages of its own */
    size_t bytes = 2 * SLOTS * sizeof(struct shoal_request_slot);
    struct shoal_request_slot *ring = aligned_alloc(SHOAL_CACHE_LINE, bytes);
    struct shoal_inbox *inbox = calloc(1, sizeof(*inbox));
    rings[made] = ring;
    inboxes[made++] = inbox;
    if (ring == NULL || inbox == NULL)
        return false;
    memset((void *)ring, 0, bytes);
    inbox->requests = ring;
    inbox->mask = SLOTS - 1;
    inbox->next_request = random32() % SLOTS;
    return true;
}

/* Has the first `count` of them watched, in random order. */
static void watch_rings(unsigned count)
{
    unsigned shuffled[RINGS_MAX];
    shoal_list_init(&mail.watched_inboxes);
    shuffle(shuffled, count);
    for (unsigned i = 0; i < count; i++)
        shoal_list_push_back(&mail.watched_inboxes, &inboxes[shuffled[i]]->reader.node);
}

/* As smp/mailbox.c looks, over rings that bring nothing. */
static unsigned look_at_rings(void)
{
    unsigned found = 0;
    SHOAL_LIST_FOREACH_SAFE (node, &mail.watched_inboxes) {
        struct shoal_ring_reader *reader = SHOAL_CONTAINER_OF(node, struct shoal_ring_reader, node);
        unsigned ran =
            shoal_inbox_run(&mail, SHOAL_CONTAINER_OF(reader, struct shoal_inbox, reader));
        if (ran == 0)
            reader->empty_looks++;
        found += ran;
    }
    return found;
}

static double look_ns(unsigned count)
{
    double values[SAMPLES_MAX];
    unsigned turns = LOOKS / count + 1;
    watch_rings(count);
    for (uint64_t sample = 0; sample < samples; sample++) {
        uint64_t found = 0;
        uint64_t begin_ns = now_ns();
        for (unsigned turn = 0; turn < turns; turn++)
            found += look_at_rings();
        values[sample] = (double)(now_ns() - begin_ns) / ((double)turns * count);
        sink = found;
    }
    return median(values);
}

static int print_looks(void)
{
    static const unsigned counts[] = {1, 2, 14, 32, 126, 510, RINGS_MAX};
    for (size_t i = 0; i < sizeof(counts) / sizeof(counts[0]); i++) {
        while (made < counts[i])
            if (!make_ring())
                return -1;
        char name[32];
        snprintf(name, sizeof(name), "look_ns_%u", counts[i]);
        print_ns(name, look_ns(counts[i]));
    }
    return 0;
}

/* Words of bits that are all clear; as many as 1,024 cores have. */
static double dirty_word_ns(void)
{
    static _Atomic uint64_t words[16] __attribute__((aligned(SHOAL_CACHE_LINE)));
    double values[SAMPLES_MAX];
    for (uint64_t sample = 0; sample < samples; sample++) {
        uint64_t found = 0;
        uint64_t begin_ns = now_ns();
        for (unsigned turn = 0; turn < LOOKS; turn++)
            for (unsigned i = 0; i < 16; i++)
                if (atomic_load_explicit(&words[i], memory_order_relaxed) != 0)
                    found++;
        values[sample] = (double)(now_ns() - begin_ns) / (16.0 * LOOKS);
        sink = found;
    }
    return median(values);
}

/* ---- Steps that write ---- */

/* A line that two cores write, with what `announce` looks at beside it in a line of its own. */
struct shared_line {
    _Atomic uint32_t watched __attribute__((aligned(SHOAL_CACHE_LINE)));
    _Atomic uint64_t dirty __attribute__((aligned(SHOAL_CACHE_LINE)));
    _Atomic bool asleep __attribute__((aligned(SHOAL_CACHE_LINE)));
};

static struct shared_line lines[LINES];
static unsigned order[LINES]; /* random, so that nothing is fetched in advance */

typedef uint64_t step_fn(struct shared_line *line);

/* Each step returns something that comes from the line and is small. */

static uint64_t step_announce(struct shared_line *line)
{
    uint64_t bits = atomic_fetch_or_explicit(&line->dirty, 1, memory_order_seq_cst);
    return bits + atomic_load_explicit(&line->asleep, memory_order_seq_cst);
}

static uint64_t step_take_dirty(struct shared_line *line)
{
    return atomic_exchange_explicit(&line->dirty, 0, memory_order_seq_cst);
}

static uint64_t step_verify(struct shared_line *line)
{
    return shoal_ring_verify(&line->watched);
}

static uint64_t step_watch(struct shared_line *line)
{
    return shoal_ring_watch(&line->watched);
}

static uint64_t step_unwatch(struct shared_line *line)
{
    shoal_ring_unwatch(&line->watched);
    return atomic_load_explicit(&line->watched, memory_order_relaxed);
}

static const struct {
    const char *name;
    step_fn *step;
    step_fn *other; /* what the other core did to the line before */
} steps[] = {
    {"announce", step_announce, step_take_dirty}, {"take_dirty", step_take_dirty, step_announce},
    {"verify", step_verify, step_unwatch},        {"watch", step_watch, step_verify},
    {"unwatch", step_unwatch, step_verify},
};

/* The second thread does `work` to all lines whenever `asked` differs from `done`. */
static struct {
    _Atomic uint64_t asked;
    _Atomic uint64_t done;
    _Atomic bool stop;
    step_fn *work;
    int cpu;
} helper;

static void pin(int cpu)
{
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(cpu, &set);
    (void)sched_setaffinity(0, sizeof(set), &set);
}

static void *help(void *arg)
{
    (void)arg;
    pin(helper.cpu);
    uint64_t done = 0;
    /* acquire: pairs with the release in ask_helper(). */
    while (!atomic_load_explicit(&helper.stop, memory_order_acquire)) {
        if (atomic_load_explicit(&helper.asked, memory_order_acquire) == done)
            continue;
        for (unsigned i = 0; i < LINES; i++)
            sink = helper.work(&lines[order[i]]);
        /* release: pairs with the acquire in ask_helper(). */
        atomic_store_explicit(&helper.done, ++done, memory_order_release);
    }
    return NULL;
}

static void ask_helper(step_fn *work)
{
    helper.work = work;
    uint64_t asked = atomic_load_explicit(&helper.asked, memory_order_relaxed) + 1;
    atomic_store_explicit(&helper.asked, asked, memory_order_release);
    while (atomic_load_explicit(&helper.done, memory_order_acquire) != asked)
        continue;
}

/* Which line comes next depends on what the step before has returned: nothing overlaps. */
static uint64_t step_all(step_fn *step)
{
    uint64_t last = 0;
    for (unsigned i = 0; i < LINES; i++)
        last = step(&lines[order[(i + (last >> 40)) % LINES]]);
    return last;
}

/* With `far` the other core has written the lines first. */
static double step_ns(unsigned which, bool far)
{
    double values[SAMPLES_MAX];
    for (uint64_t sample = 0; sample < samples; sample++) {
        (void)step_all(steps[which].step);
        if (far)
            ask_helper(steps[which].other);
        uint64_t begin_ns = now_ns();
        sink = step_all(steps[which].step);
        values[sample] = (double)(now_ns() - begin_ns) / LINES;
    }
    return median(values);
}

static void print_steps(bool far)
{
    for (unsigned which = 0; which < sizeof(steps) / sizeof(steps[0]); which++) {
        char name[32];
        snprintf(name, sizeof(name), "%s_%s_ns", steps[which].name, far ? "far" : "near");
        print_ns(name, step_ns(which, far));
    }
}

/* Pins this thread to the first CPU that it may use; false when there is no second one. */
static bool choose_cpus(void)
{
    cpu_set_t set;
    int first = -1;
    helper.cpu = -1;
    if (sched_getaffinity(0, sizeof(set), &set) != 0)
        return false;
    for (int cpu = 0; cpu < CPU_SETSIZE && helper.cpu < 0; cpu++)
        if (CPU_ISSET(cpu, &set)) {
            helper.cpu = first >= 0 ? cpu : -1;
            first = first >= 0 ? first : cpu;
        }
    pin(first);
    return helper.cpu >= 0;
}

static int measure(void)
{
    bool second_cpu = choose_cpus();
    shuffle(order, LINES);
    if (print_looks() < 0) {
        fprintf(stderr, "shoal-bench-mesh: no memory for %u rings\n", RINGS_MAX);
        return 1;
    }
    print_ns("dirty_word_ns", dirty_word_ns());
    print_steps(false);
    pthread_t thread;
    if (!second_cpu || pthread_create(&thread, NULL, help, NULL) != 0)
        return 0;
    print_steps(true);
    atomic_store_explicit(&helper.stop, true, memory_order_release);
    pthread_join(thread, NULL);
    return 0;
}

int main(int argc, char **argv)
{
    const struct shoal_option table[] = {
        {.name = "samples",
         .type = SHOAL_OPTION_UINT,
         .target = &samples,
         .value_name = "N",
         .help = "Samples of each figure; the median counts.",
         .min = 1,
         .max = SAMPLES_MAX},
        {.name = NULL},
    };
    const struct shoal_option *const tables[] = {table, NULL};
    char error[256];
    switch (shoal_options_parse(argc, argv, tables, NULL, "Times the steps of a ring, one by one.",
                                NULL, error, sizeof(error))) {
    case SHOAL_OPTIONS_EXIT:
        return 0;
    case SHOAL_OPTIONS_BAD:
        fprintf(stderr, "shoal-bench-mesh: %s\n", error);
        return 2;
    default:
        break;
    }
    int code = measure();
    for (unsigned i = 0; i < made; i++) {
        free(inboxes[i]);
        free(rings[i]);
    }
    return code;
}
