/*
 * The report of all cores: see inspect.h.
 *
 * 1. A core is asked by a task that is posted to it as a foreign thread would, not by a message: it
 *    needs no credit in a ring and no memory, of which there may be none when a report is wanted.
 * 2. Question, answer and text share one mapping. It belongs to whoever comes last: the asker, or,
 *    when the asker has given up, the core that answers at last (`state`, one exchange each).
 * 3. A core that is held by one task is asked by a signal for its stack, once its time is over. The
 *    handler only copies addresses.
 * 4. Symbols are found and standard error is written on a helper thread, so that neither a slow
 *    disk nor a full pipe holds core 0. Without a helper thread it is done here.
 */
#include "shoal/smp/inspect.h"

#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <poll.h>
#include <sys/mman.h>
#include <unistd.h>

#include "shoal/runtime/backtrace_impl.h"
#include "shoal/runtime/blocking.h"
#include "shoal/runtime/check.h"
#include "shoal/runtime/clock.h"
#include "shoal/runtime/future_impl.h"
#include "shoal/runtime/log.h"

#include "shoal/smp/inspect_impl.h"
#include "shoal/smp/launch_impl.h"

#define ANSWER_NS        (500 * SHOAL_NS_PER_MS)
#define PROBE_NS         (200 * SHOAL_NS_PER_MS)
#define TEXT_BYTES       (2u << 20)
#define LOOKS_MAX        200000 /* words of rings looked at to name what futures come from */
#define WRITE_TIMEOUT_MS 1000

enum { ASKED, ANSWERED, ABANDONED };

/* A question to one core, in a mapping of its own. */
struct report {
    struct shoal_task go;   /* on the core asked */
    struct shoal_task done; /* back on the asker's */
    struct shoal_core *asker;
    struct shoal_fiber *fiber;
    bool arrived;
    _Atomic int state;
    struct shoal_inspect_snapshot snapshot;
    size_t length;
    char text[TEXT_BYTES];
};

static struct report *report_new(void)
{
    struct report *report = mmap(NULL, sizeof(*report), PROT_READ | PROT_WRITE,
                                 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return report != MAP_FAILED ? report : NULL;
}

static void report_free(struct report *report)
{
    munmap(report, sizeof(*report));
}

/* ---- On the core asked ---- */

struct search {
    const struct shoal_mail *mail;
    unsigned looks;
};

/* Calls `visit` for the outboxes that have messages in flight, until it returns false. */
static void for_each_busy(const struct shoal_mail *mail,
                          bool (*visit)(void *ctx, const struct shoal_outbox *outbox, unsigned to),
                          void *ctx)
{
    for (unsigned id = 0; mail != NULL && id < SHOAL_SERVICE_GROUPS_MAX; id++) {
        struct shoal_outbox **outboxes = mail->rows[id].outboxes;
        for (unsigned to = 0; outboxes != NULL && to < mail->cores; to++)
            if (shoal_outbox_in_flight(outboxes[to]) > 0 && !visit(ctx, outboxes[to], to))
                return;
    }
}

struct submit_search {
    struct search *search;
    const struct shoal_future *future;
    int to; /* -1: not found */
};

static bool look_for_submit(void *ctx, const struct shoal_outbox *outbox, unsigned to)
{
    struct submit_search *wanted = ctx;
    if (wanted->search->looks > LOOKS_MAX)
        return false;
    wanted->search->looks += outbox->mask + 1;
    if (shoal_outbox_awaits(outbox, wanted->future))
        wanted->to = (int)to;
    return wanted->to < 0;
}

/* Whether `future` is the answer to a message, and to which core it went. */
static bool describe_submit(void *ctx, const struct shoal_future *future, char *out, size_t size)
{
    struct search *search = ctx;
    struct submit_search wanted = {.search = search, .future = future, .to = -1};
    for_each_busy(search->mail, look_for_submit, &wanted);
    if (wanted.to < 0)
        return false;
    snprintf(out, size, "a submit to core %d", wanted.to);
    return true;
}

struct mail_text {
    char *out;
    size_t size;
    size_t length;
    const char *before;
};

static bool add_outbox(void *ctx, const struct shoal_outbox *outbox, unsigned to)
{
    struct mail_text *text = ctx;
    if (text->length + 48 >= text->size)
        return false;
    text->length +=
        (size_t)snprintf(text->out + text->length, text->size - text->length, "%s%u to core %u",
                         text->before, shoal_outbox_in_flight(outbox), to);
    text->before = ", ";
    return true;
}

/* "3 messages without an answer: 2 to core 1, 1 to core 4", or nothing. */
static void describe_mail(const struct shoal_mail *mail, char *out, size_t size)
{
    unsigned in_flight = mail != NULL ? shoal_mail_in_flight(mail) : 0;
    out[0] = '\0';
    if (in_flight == 0)
        return;
    struct mail_text text = {.out = out, .size = size, .before = ": "};
    text.length = (size_t)snprintf(out, size, "%u message%s without an answer", in_flight,
                                   in_flight == 1 ? "" : "s");
    for_each_busy(mail, add_outbox, &text);
}

static void take_snapshot(struct report *report)
{
    const struct shoal_mail *mail = shoal_mail_self();
    struct search search = {.mail = mail};
    const struct shoal_inspect_hooks hooks = {describe_submit, &search};
    shoal_inspect_take(shoal_core_self, &hooks, &report->snapshot);
    describe_mail(mail, report->snapshot.more, sizeof(report->snapshot.more));
}

static void answer_task(struct shoal_task *task)
{
    struct report *report = SHOAL_CONTAINER_OF(task, struct report, go);
    /* acquire: pairs with the exchange in ask(). */
    if (atomic_load_explicit(&report->state, memory_order_acquire) != ABANDONED)
        take_snapshot(report);
    /* acq_rel: hands the snapshot over, or takes over the mapping. Pairs with the one in ask(). */
    if (atomic_exchange_explicit(&report->state, ANSWERED, memory_order_acq_rel) == ABANDONED)
        report_free(report);
    else
        shoal_core_post_foreign(report->asker, &report->done);
}

/* ---- Asking ---- */

/* A wait for a flag that another thread's task sets, with an end. */
struct patience {
    struct shoal_timer timer;
    struct shoal_fiber *fiber;
    bool over;
};

static void patience_fire(struct shoal_timer *timer)
{
    struct patience *patience = SHOAL_CONTAINER_OF(timer, struct patience, timer);
    patience->over = true;
    shoal_fiber_make_ready(shoal_core_self, patience->fiber);
}

static void patience_cancel(struct shoal_fiber *fiber)
{
    struct patience *patience = fiber->wait_ctx;
    patience->over = true;
    shoal_fiber_make_ready(shoal_core_self, fiber);
}

/* Whether `*arrived` came true within `wait_ns`. A cancel ends the wait. */
static bool wait_for(const bool *arrived, uint64_t wait_ns)
{
    struct shoal_core *core = shoal_core_self;
    struct patience patience = {.fiber = core->fiber};
    if (shoal_fiber_cancel_code(core->fiber) < 0)
        return *arrived;
    shoal_timer_init(&patience.timer, patience_fire);
    shoal_timer_arm(&patience.timer, wait_ns);
    shoal_fiber_wait_begin(core->fiber, "another core's report", patience_cancel, &patience);
    while (!*arrived && !patience.over)
        shoal_fiber_park(core, core->fiber);
    shoal_fiber_wait_end(core->fiber);
    (void)shoal_timer_cancel(&patience.timer);
    return *arrived;
}

/* The same for what is on its way for certain. */
static void wait_arrival(const bool *arrived)
{
    shoal_fiber_shield();
    while (!*arrived)
        (void)wait_for(arrived, SHOAL_NS_PER_S);
    shoal_fiber_unshield();
}

static void report_arrived(struct shoal_task *task)
{
    struct report *report = SHOAL_CONTAINER_OF(task, struct report, done);
    report->arrived = true;
    shoal_fiber_make_ready(shoal_core_self, report->fiber);
}

/* Fills the snapshot of `core`. False: no answer, and `report` belongs to that core now. */
static bool ask(struct report *report, struct shoal_core *core)
{
    report->asker = shoal_core_self;
    report->fiber = shoal_core_self->fiber;
    if (core == report->asker) {
        take_snapshot(report);
        return true;
    }
    report->go.run = answer_task;
    report->done.run = report_arrived;
    atomic_init(&report->state, ASKED);
    shoal_core_post_foreign(core, &report->go);
    if (wait_for(&report->arrived, ANSWER_NS))
        return true;
    /* acq_rel: see answer_task(). */
    if (atomic_exchange_explicit(&report->state, ABANDONED, memory_order_acq_rel) != ANSWERED)
        return false;
    wait_arrival(&report->arrived);
    return true;
}

/* ---- A core that is held ---- */

enum { PROBE_IDLE, PROBE_ASKED, PROBE_WRITING, PROBE_DONE, PROBE_PHASES };

static void on_probe(int signal_number, siginfo_t *info, void *context)
{
    (void)signal_number;
    (void)context;
    int saved_errno = errno;
    struct shoal_launch *launch = shoal_launch_current;
    const struct shoal_core *core = shoal_core_self;
    uint32_t asked = (uint32_t)info->si_value.sival_int;
    /* acq_rel: `probe` is the handler's from here to the store. Pairs with probe_core(). */
    if (launch != NULL && core != NULL && info->si_code == SI_QUEUE &&
        asked % PROBE_PHASES == PROBE_ASKED &&
        atomic_compare_exchange_strong_explicit(&launch->probe.state, &asked, asked + 1,
                                                memory_order_acq_rel, memory_order_relaxed)) {
        struct shoal_inspect_probe *probe = &launch->probe;
        probe->frame_count = shoal_backtrace_collect(probe->frame, SHOAL_INSPECT_FRAMES_MAX,
                                                     __builtin_return_address(0));
        const char *name = core->fiber != NULL ? core->fiber->name : "";
        size_t length = strnlen(name, sizeof(probe->running) - 1);
        memcpy(probe->running, name, length);
        probe->running[length] = '\0';
        atomic_store_explicit(&probe->state, asked + 2, memory_order_release);
        shoal_core_post_foreign(probe->asker, &probe->done);
    }
    errno = saved_errno;
}

void shoal_inspect_install(void)
{
    struct sigaction action;
    memset(&action, 0, sizeof(action));
    action.sa_sigaction = on_probe;
    action.sa_flags = SA_SIGINFO | SA_RESTART | SA_ONSTACK;
    sigemptyset(&action.sa_mask);
    sigaction(SHOAL_PROBE_SIGNAL, &action, NULL);
    /* Nothing else refers to the table, which a linker would therefore leave out. */
    __asm__ volatile("" : : "r"(shoal_gdb_layout));
}

static void probe_arrived(struct shoal_task *task)
{
    struct shoal_inspect_probe *probe = SHOAL_CONTAINER_OF(task, struct shoal_inspect_probe, done);
    probe->arrived = true;
    shoal_fiber_make_ready(shoal_core_self, probe->fiber);
}

static bool send_probe(pthread_t thread, uint32_t asked)
{
    const union sigval value = {.sival_int = (int)asked};
    return pthread_sigqueue(thread, SHOAL_PROBE_SIGNAL, value) == 0;
}

/* Gets the stack of what core `id` runs into `probe`, which is the caller's until it is idle. */
static bool probe_core(struct shoal_launch *launch, unsigned id)
{
    struct shoal_inspect_probe *probe = &launch->probe;
    if (launch->hosted && !launch->diagnostics)
        return false; /* nobody would catch the signal */
    uint32_t idle = atomic_load_explicit(&probe->state, memory_order_relaxed);
    if (idle % PROBE_PHASES != PROBE_IDLE)
        return false; /* a report that another core makes uses it now */
    /* acquire: pairs with the release store of whoever used it before. */
    if (!atomic_compare_exchange_strong_explicit(&probe->state, &idle, idle + PROBE_WRITING,
                                                 memory_order_acquire, memory_order_relaxed))
        return false;
    uint32_t asked = idle + PROBE_ASKED;
    probe->done.run = probe_arrived;
    probe->asker = shoal_core_self;
    probe->fiber = shoal_core_self->fiber;
    probe->arrived = false;
    /* release: the fields above. Pairs with the compare-exchange in on_probe(). */
    atomic_store_explicit(&probe->state, asked, memory_order_release);
    bool sent = send_probe(launch->threads[id].thread, asked);
    if (sent && wait_for(&probe->arrived, PROBE_NS))
        return true;
    if (atomic_compare_exchange_strong_explicit(&probe->state, &asked, idle + PROBE_PHASES,
                                                memory_order_acq_rel, memory_order_relaxed))
        return false;
    wait_arrival(&probe->arrived);
    return true;
}

static void probe_release(struct shoal_inspect_probe *probe)
{
    uint32_t state = atomic_load_explicit(&probe->state, memory_order_relaxed);
    /* release: what was read from it has been read. Pairs with the acquire in probe_core(). */
    atomic_store_explicit(&probe->state, state + PROBE_PHASES - PROBE_DONE, memory_order_release);
}

/* ---- Text ---- */

/* Runs `fn(report)` on a helper thread, or here when none can be had. */
static void off_core(int (*fn)(void *arg), struct report *report)
{
    if (shoal_blocking_call(fn, report) != 0)
        (void)fn(report);
}

static int render(void *arg)
{
    struct report *report = arg;
    report->length = shoal_inspect_render(&report->snapshot, report->text, sizeof(report->text));
    return 0;
}

static int render_probe(void *arg)
{
    struct report *report = arg;
    const struct shoal_inspect_probe *probe = &shoal_launch_current->probe;
    report->length +=
        shoal_inspect_render_frames(probe->frame, probe->frame_count, report->text + report->length,
                                    sizeof(report->text) - report->length);
    return 0;
}

SHOAL_PRINTF(2, 3) static void append(struct report *report, const char *fmt, ...)
{
    size_t room = sizeof(report->text) - report->length;
    va_list args;
    va_start(args, fmt);
    int n = vsnprintf(report->text + report->length, room, fmt, args);
    va_end(args);
    if (n > 0 && (size_t)n < room)
        report->length += (size_t)n;
}

/* What can be said of core `id`, which gives no answer. */
static void describe_held(struct report *report, unsigned id)
{
    struct shoal_launch *launch = shoal_launch_current;
    report->length = 0;
    append(report, "core %u: does not answer", id);
    if (!probe_core(launch, id)) {
        append(report, ", and what it runs cannot be told\n");
        return;
    }
    const struct shoal_inspect_probe *probe = &launch->probe;
    if (probe->running[0] != '\0')
        append(report, ": it is held by fiber \"%s\"\n", probe->running);
    else
        append(report, ": it is held by a task\n");
    off_core(render_probe, report);
    probe_release(&launch->probe);
}

static int inspect_core(unsigned id, shoal_inspect_write_fn *write_text, void *ctx)
{
    struct report *report = report_new();
    if (report == NULL)
        return -ENOMEM;
    int rc = shoal_fiber_cancel_code(shoal_core_self->fiber);
    if (rc == 0 && ask(report, shoal_launch_current->fleet.core[id])) {
        off_core(render, report);
    } else if (rc == 0) {
        rc = shoal_fiber_cancel_code(shoal_core_self->fiber);
        report = report_new(); /* the other one is that core's now */
        if (report == NULL)
            return -ENOMEM;
        if (rc == 0)
            describe_held(report, id);
    }
    if (rc == 0)
        rc = write_text(ctx, report->text, report->length);
    report_free(report);
    return rc;
}

int shoal_inspect_all(shoal_inspect_write_fn *write_text, void *ctx)
{
    SHOAL_CHECK(shoal_core_self != NULL && shoal_core_self->fiber != NULL,
                "a report is made on a fiber");
    int rc = 0;
    for (unsigned id = 0; id < shoal_launch_current->fleet.cores && rc == 0; id++)
        rc = inspect_core(id, write_text, ctx);
    return rc;
}

/* ---- SIGQUIT ---- */

struct output {
    const char *text;
    size_t size;
};

static int write_stderr(void *arg)
{
    struct output *left = arg;
    while (left->size > 0) {
        ssize_t n = write(STDERR_FILENO, left->text, left->size);
        if (n > 0) {
            left->text += n;
            left->size -= (size_t)n;
        } else if (n < 0 && errno == EAGAIN) {
            struct pollfd ready = {.fd = STDERR_FILENO, .events = POLLOUT};
            if (poll(&ready, 1, WRITE_TIMEOUT_MS) == 0)
                return 0;
        } else if (n == 0 || errno != EINTR) {
            return 0;
        }
    }
    return 0;
}

static int print_piece(void *ctx, const char *text, size_t size)
{
    (void)ctx;
    struct output left = {text, size};
    if (shoal_blocking_call(write_stderr, &left) != 0)
        (void)write_stderr(&left);
    return 0;
}

static int print_fiber(void *arg)
{
    struct shoal_launch *launch = arg;
    char line[64];
    int length = snprintf(line, sizeof(line), "shoal: fibers of %u core%s\n", launch->fleet.cores,
                          launch->fleet.cores == 1 ? "" : "s");
    (void)print_piece(NULL, line, (size_t)length);
    int rc = shoal_inspect_all(print_piece, NULL);
    if (rc == -ENOMEM)
        SHOAL_WARN("no memory for a report of the fibers");
    static const char end[] = "shoal: end of the report\n";
    (void)print_piece(NULL, end, sizeof(end) - 1);
    launch->inspecting = false;
    return 0;
}

void shoal_inspect_print(void)
{
    struct shoal_launch *launch = shoal_launch_current;
    if (launch->inspecting)
        return; /* the one that is under way is as good */
    launch->inspecting = true;
    if (shoal_fiber_spawn_detached(print_fiber, launch, "report") != 0) {
        launch->inspecting = false;
        SHOAL_WARN("no memory for a report of the fibers");
    }
}
