/*
 * Starting all cores, and ending them: see launch_impl.h.
 */
#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <unistd.h>

#include "shoal/runtime/backtrace_impl.h"
#include "shoal/runtime/check.h"
#include "shoal/runtime/errors.h"
#include "shoal/runtime/fault_impl.h"
#include "shoal/runtime/log.h"

#include "shoal/smp/core_channel_impl.h"
#include "shoal/smp/launch_impl.h"
#include "shoal/smp/test_impl.h"

struct shoal_launch *shoal_launch_current;

static struct shoal_core_config core_config(const struct shoal_launch *launch, unsigned id)
{
    const struct shoal_config *config = &launch->config;
    bool overcommitted = launch->fleet.cores > launch->placement.allowed_cpus;
    return (struct shoal_core_config){
        .id = id,
        .memory_limit_bytes =
            config->memory_bytes != 0 ? config->memory_bytes / launch->fleet.cores : UINT64_MAX,
        .task_quota_ns = config->task_quota_us * SHOAL_NS_PER_US,
        .idle_poll_ns =
            config->overprovisioned || overcommitted ? 0 : config->idle_poll_us * SHOAL_NS_PER_US,
        .stall_notify_ns = config->stall_notify_ms * SHOAL_NS_PER_MS,
        .poll_mode = config->poll_mode,
        .clock = launch->test_time != NULL ? &launch->test_time->clock : NULL,
        .io = launch->io,
        .helper_cpus = &launch->placement.original,
    };
}

static void meet(struct shoal_launch *launch)
{
    pthread_barrier_wait(&launch->barrier);
}

/* ---- Starting together ---- */

/* Between two barriers, on core 0: nothing will run. The first reason given is the one told. */
static SHOAL_PRINTF(3, 4) void fail_start(struct shoal_launch *launch, int code, const char *fmt,
                                          ...)
{
    if (launch->failure != 0)
        return;
    launch->failure = code;
    va_list args;
    va_start(args, fmt);
    vsnprintf(launch->error, sizeof(launch->error), fmt, args);
    va_end(args);
}

static int member_open(struct shoal_launch *launch, struct shoal_member *member, unsigned id)
{
    struct shoal_core_config config = core_config(launch, id);
    member->error[0] = '\0';
    int rc = shoal_core_init(&member->core, &config, member->error, sizeof(member->error));
    if (rc == 0)
        return 0;
    (void)shoal_mem_deinit(&member->core.mem, id);
    if (member->error[0] == '\0')
        snprintf(member->error, sizeof(member->error), "%s", shoal_error_text(rc));
    return rc;
}

static void core_end(struct shoal_member *member, unsigned id)
{
    unsigned leaked = shoal_core_deinit(&member->core);
    leaked += shoal_mem_deinit(&member->core.mem, id) > 0;
    atomic_fetch_add(&member->launch->leaked, leaked);
}

/* Between two barriers, on core 0: what all do after the first attempt. */
static void judge_attempt(struct shoal_launch *launch)
{
    const struct shoal_member *bad = NULL;
    for (unsigned i = 0; i < launch->fleet.cores && bad == NULL; i++)
        if (launch->members[i]->rc < 0)
            bad = launch->members[i];
    if (bad == NULL)
        return;
    if (launch->io == &shoal_io_uring && launch->config.io_backend == SHOAL_BACKEND_AUTO)
        snprintf(launch->fallback, sizeof(launch->fallback), "%s", bad->error);
    else if (launch->config.io_backend == SHOAL_BACKEND_URING)
        fail_start(launch, SHOAL_EOPTION,
                   "--io-backend: \"io_uring\" cannot be had here: %.120s (allowed: auto, epoll)",
                   bad->error);
    else
        fail_start(launch, bad->rc, "a core cannot start: %.200s", bad->error);
}

/* One attempt of all cores. On failure of any, those that succeeded are closed again. */
static bool try_together(struct shoal_launch *launch, struct shoal_member *member, unsigned id)
{
    member->rc = member_open(launch, member, id);
    meet(launch);
    if (id == 0)
        judge_attempt(launch);
    meet(launch);
    bool bad =
        launch->failure != 0 || (launch->fallback[0] != '\0' && launch->io == &shoal_io_uring);
    if (bad && member->rc == 0)
        core_end(member, id);
    return !bad;
}

/* All cores come out with the same backend, or all fail. */
static bool open_together(struct shoal_launch *launch, struct shoal_member *member, unsigned id)
{
    if (try_together(launch, member, id))
        return true;
    if (launch->failure != 0)
        return false;
    meet(launch);
    if (id == 0)
        launch->io = &shoal_io_epoll;
    meet(launch);
    return try_together(launch, member, id);
}

/* ---- A core's thread ---- */

/* Calls the program, which may take its time, and turns what it returns into an exit code. */
static int run_program(struct shoal_launch *launch)
{
    int rc = launch->host_signals ? 0 : shoal_signals_start(launch);
    shoal_foreign_open(launch);
    if (rc == 0)
        rc = launch->program->run(launch->program->arg);
    if (rc == SHOAL_EOPTION)
        return 2;
    if (rc >= 0)
        return rc;
    if (!launch->hosted)
        SHOAL_ERROR("%s failed: %s", launch->program->name, shoal_error_text(rc));
    return 1;
}

static int main_fiber(void *arg)
{
    struct shoal_launch *launch = arg;
    launch->exit_code = run_program(launch);
    shoal_stop_all(launch);
    return 0;
}

static void quit_task(struct shoal_task *task)
{
    (void)task;
    shoal_mail_self()->closed = true;
    shoal_core_quit(shoal_core_self);
}

/* Between two barriers, on core 0. */
static void judge_mail(struct shoal_launch *launch)
{
    for (unsigned i = 0; i < launch->fleet.cores; i++)
        if (launch->members[i]->rc < 0)
            fail_start(launch, launch->members[i]->rc, "no memory for the mail of core %u", i);
    if (launch->failure != 0)
        return;
    int rc = shoal_fiber_spawn_detached(main_fiber, launch, "main");
    if (rc < 0)
        fail_start(launch, rc, "no memory for the first fiber");
}

/* All loops have ended: runs what was posted meanwhile, until no core has anything any more. */
static void run_leftovers(struct shoal_launch *launch, struct shoal_core *core, unsigned id)
{
    meet(launch);
    shoal_core_channels_quit(core);
    do {
        meet(launch);
        if (shoal_core_drain(core) > 0)
            atomic_store_explicit(&launch->leftovers, true, memory_order_relaxed);
        meet(launch);
        if (id == 0)
            launch->leftovers_again =
                atomic_exchange_explicit(&launch->leftovers, false, memory_order_relaxed);
        meet(launch);
    } while (launch->leftovers_again);
}

static void run_member(struct shoal_launch *launch, struct shoal_member *member, unsigned id)
{
    member->quit.run = quit_task;
    shoal_foreign_core_init(&member->foreign);
    member->rc = shoal_mail_init(&member->mail, &member->core, &launch->fleet);
    launch->fleet.core[id] = &member->core;
    launch->fleet.mail[id] = &member->mail;
    meet(launch);
    if (id == 0)
        judge_mail(launch);
    meet(launch);
    if (launch->failure == 0) {
        shoal_fault_attach();
        shoal_core_run(&member->core);
        run_leftovers(launch, &member->core, id);
    }
    shoal_fault_disarm(NULL);
    if (member->rc == 0)
        shoal_mail_deinit(&member->mail);
    core_end(member, id);
}

/* The struct of a core, allocated on that core, so that its pages are local to it. */
static struct shoal_member *member_new(struct shoal_launch *launch)
{
    struct shoal_member *member = shoal_mem_alloc_aligned(sizeof(*member), SHOAL_CACHE_LINE);
    if (member != NULL) {
        memset(member, 0, sizeof(*member));
        member->launch = launch;
    }
    return member;
}

static void arm_faults(const struct shoal_launch *launch, unsigned id)
{
    struct shoal_fault_plan plan = launch->config.faults;
    if (launch->config.fail_alloc == NULL ||
        (launch->config.faults_core >= 0 && (unsigned)launch->config.faults_core != id))
        return;
    plan.seed ^= (uint64_t)id << 32; /* cores do not fail in step */
    shoal_fault_arm(&plan);
}

static void member_main(struct shoal_launch *launch, unsigned id)
{
    int bound = shoal_placement_bind(&launch->placement, id);
    void *altstack = shoal_fiber_guard_thread_begin();
    struct shoal_member *member = member_new(launch);
    launch->members[id] = member;
    meet(launch);
    if (id == 0)
        for (unsigned i = 0; i < launch->fleet.cores; i++)
            if (launch->members[i] == NULL)
                fail_start(launch, -ENOMEM, "no memory for core %u", i);
    meet(launch);
    if (launch->failure == 0 && open_together(launch, member, id)) {
        if (bound < 0)
            SHOAL_WARN("cannot be bound to its CPU: %s", shoal_error_text(bound));
        run_member(launch, member, id);
    }
    shoal_fault_disarm(NULL);
    shoal_fiber_guard_thread_end(altstack);
}

/* The threads wait at the gate until all are there: a barrier that lacks one would never open. */
static void *thread_main(void *arg)
{
    struct shoal_core_thread *mine = arg;
    pthread_mutex_lock(&mine->launch->gate);
    pthread_mutex_unlock(&mine->launch->gate);
    if (mine->launch->failure == 0) {
        arm_faults(mine->launch, mine->id);
        member_main(mine->launch, mine->id);
    }
    return NULL;
}

/* ---- The process ---- */

/* An array of `count` zeroed elements. */
static void *table_new(size_t count, size_t element_bytes)
{
    return shoal_mem_alloc_zeroed(count * element_bytes);
}

static void table_free(void *table, size_t count, size_t element_bytes)
{
    shoal_mem_free(table, count * element_bytes);
}

static int fleet_init(struct shoal_launch *launch, size_t cores)
{
    launch->fleet.cores = (unsigned)cores;
    launch->fleet.core = table_new(cores, sizeof(*launch->fleet.core));
    launch->fleet.mail = table_new(cores, sizeof(*launch->fleet.mail));
    launch->members = table_new(cores, sizeof(*launch->members));
    launch->threads = table_new(cores, sizeof(*launch->threads));
    if (launch->fleet.core == NULL || launch->fleet.mail == NULL || launch->members == NULL ||
        launch->threads == NULL || shoal_fleet_mail_init(&launch->fleet) < 0)
        return -ENOMEM;
    return -pthread_barrier_init(&launch->barrier, NULL, (unsigned)cores);
}

static void fleet_deinit(struct shoal_launch *launch)
{
    size_t cores = launch->fleet.cores;
    for (size_t i = 0; launch->members != NULL && i < cores; i++)
        shoal_mem_free_aligned(launch->members[i], sizeof(struct shoal_member), SHOAL_CACHE_LINE);
    table_free(launch->members, cores, sizeof(*launch->members));
    table_free(launch->threads, cores, sizeof(*launch->threads));
    table_free(launch->fleet.core, cores, sizeof(*launch->fleet.core));
    table_free(launch->fleet.mail, cores, sizeof(*launch->fleet.mail));
    shoal_fleet_mail_deinit(&launch->fleet);
}

/* Makes the threads of all cores but core 0. Returns how many cores there are then. */
static unsigned make_threads(struct shoal_launch *launch)
{
    unsigned made = 1;
    for (; made < launch->fleet.cores; made++) {
        struct shoal_core_thread *mine = &launch->threads[made];
        mine->launch = launch;
        mine->id = made;
        int rc = shoal_fault_hit("thread") ? EAGAIN
                                           : pthread_create(&mine->thread, NULL, thread_main, mine);
        if (rc != 0) {
            fail_start(launch, -rc, "core %u of %u gets no thread: %s", made, launch->fleet.cores,
                       strerror(rc));
            break;
        }
    }
    return made;
}

/* Starts all cores, is core 0, and returns when all have ended. */
static void run_all(struct shoal_launch *launch)
{
    pthread_mutex_init(&launch->gate, NULL);
    pthread_mutex_lock(&launch->gate);
    unsigned made = make_threads(launch);
    launch->threads[0].thread = pthread_self();
    pthread_mutex_unlock(&launch->gate);
    if (launch->failure == 0)
        member_main(launch, 0);
    for (unsigned i = 1; i < made; i++)
        pthread_join(launch->threads[i].thread, NULL);
    pthread_mutex_destroy(&launch->gate);
    pthread_barrier_destroy(&launch->barrier);
    /* This thread goes on after core 0 has ended: where it may run is the caller's again. */
    (void)pthread_setaffinity_np(pthread_self(), sizeof(cpu_set_t), &launch->placement.original);
}

static int run_claimed(struct shoal_launch *launch)
{
    shoal_list_init(&launch->stop_hooks);
    shoal_list_init(&launch->stop_waiters);
    launch->io =
        launch->config.io_backend == SHOAL_BACKEND_EPOLL ? &shoal_io_epoll : &shoal_io_uring;
    int rc = fleet_init(launch, launch->placement.cores);
    if (rc < 0)
        fail_start(launch, rc, "no memory for %u cores", launch->placement.cores);
    else
        run_all(launch);
    fleet_deinit(launch);
    return launch->failure;
}

static void prepare_process(const struct shoal_launch *launch)
{
    shoal_backtrace_init();
    shoal_fibers_install();
    if (!launch->hosted || launch->diagnostics) {
        shoal_fiber_guard_install();
        shoal_stall_install();
        shoal_inspect_install();
    }
    if (!launch->host_signals)
        shoal_signals_block();
    if (launch->hosted)
        return; /* its cores block SIGPIPE and SIGXFSZ, which has the same effect for them */
    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN); /* a write beyond RLIMIT_FSIZE returns -EFBIG */
}

int shoal_launch_run(struct shoal_launch *launch)
{
    if (launch->hosted)
        arm_faults(launch, 0);
    if (!shoal_process_claim()) {
        fail_start(launch, -EBUSY, "a runtime runs in this process already");
    } else {
        prepare_process(launch);
        shoal_launch_current = launch;
        (void)run_claimed(launch);
        shoal_launch_current = NULL;
        shoal_process_release();
    }
    shoal_placement_deinit(&launch->placement);
    return launch->failure;
}

void shoal_launch_drop(struct shoal_launch *launch)
{
    shoal_placement_deinit(&launch->placement);
}

int shoal_launch_prepare(struct shoal_launch *launch, int argc, char **argv)
{
    struct shoal_config *config = &launch->config;
    char *error = launch->error;
    const size_t error_size = sizeof(launch->error);
    enum shoal_options_result parsed =
        shoal_config_parse(config, argc, argv, launch->program, error, error_size);
    if (parsed != SHOAL_OPTIONS_OK)
        return parsed == SHOAL_OPTIONS_EXIT ? SHOAL_LAUNCH_ANSWERED : SHOAL_EOPTION;
    config->keep_limits = launch->hosted;
    if (launch->hosted && !launch->diagnostics)
        config->stall_notify_ms = 0; /* nobody would catch the signal */
    shoal_log_set_level((enum shoal_log_level)config->log_level);
    if (!launch->hosted) /* else another thread becomes core 0 */
        arm_faults(launch, 0);
    struct shoal_placement_request request = {
        .smp = (unsigned)config->smp,
        .cpuset = config->cpuset,
        .overprovisioned = config->overprovisioned,
        .pin = config->thread_affinity == 0 &&
               (!config->overprovisioned || config->thread_affinity_given),
    };
    int rc = shoal_placement_init(&launch->placement, &request, error, error_size);
    if (rc != 0)
        return rc;
    rc = shoal_config_check(config, launch->placement.cores, error, error_size);
    if (rc != 0)
        shoal_placement_deinit(&launch->placement);
    return rc;
}

/* Prints the one line; returns the exit code: 2 for what the user has given, else 1. */
static int fail_line(const struct shoal_program *program, int rc, const char *error)
{
    fprintf(stderr, "%s: %s\n", program->name, error);
    return rc == SHOAL_EOPTION ? 2 : 1;
}

int shoal_launch_program(struct shoal_launch *launch, int argc, char **argv)
{
    int rc = shoal_launch_prepare(launch, argc, argv);
    if (rc == 0)
        rc = shoal_launch_run(launch);
    shoal_fault_disarm(NULL);
    if (rc < 0)
        return fail_line(launch->program, rc, launch->error);
    return rc == SHOAL_LAUNCH_ANSWERED ? 0 : launch->exit_code;
}

int shoal_main(int argc, char **argv, const struct shoal_program *program)
{
    struct shoal_launch launch = {.program = program};
    return shoal_launch_program(&launch, argc, argv);
}

int shoal_config_error(const char *fmt, ...)
{
    struct shoal_launch *launch = shoal_launch_current;
    char text[SHOAL_LAUNCH_ERROR_MAX];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof(text), fmt, args);
    va_end(args);
    if (launch->hosted)
        memcpy(launch->error, text, sizeof(text));
    else
        (void)fail_line(launch->program, SHOAL_EOPTION, text);
    return SHOAL_EOPTION;
}

unsigned shoal_core_count(void)
{
    return shoal_launch_current->fleet.cores;
}

uint64_t shoal_config_shutdown_timeout_ns(void)
{
    return shoal_launch_current->config.shutdown_timeout_ns;
}

uint32_t shoal_config_max_connections(void)
{
    return (uint32_t)shoal_launch_current->config.max_connections;
}

bool shoal_config_accept_balanced(void)
{
    return shoal_launch_current->config.accept_balance != 0;
}

void shoal_announce_backend(void)
{
    struct shoal_launch *launch = shoal_launch_current;
    if (launch->announced)
        return;
    launch->announced = true;
    if (launch->fallback[0] != '\0')
        SHOAL_INFO("io backend: %s (io_uring cannot be had: %s)", launch->io->name,
                   launch->fallback);
    else
        SHOAL_INFO("io backend: %s", launch->io->name);
    if (!shoal_mem_uses_jemalloc())
        SHOAL_INFO("memory: jemalloc is not linked, libc's allocator is used");
}
