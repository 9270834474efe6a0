/*
 * Starting all cores, and ending them: see launch_impl.h.
 */
#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <unistd.h>

#include "shoal/runtime/backtrace_impl.h"
#include "shoal/runtime/check.h"
#include "shoal/runtime/errors.h"
#include "shoal/runtime/log.h"

#include "shoal/smp/launch_impl.h"

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
        .io = launch->io,
        .helper_cpus = &launch->placement.original,
    };
}

static void meet(struct shoal_launch *launch)
{
    pthread_barrier_wait(&launch->barrier);
}

/* ---- Choosing the backend together ---- */

static int member_open(struct shoal_member *member, unsigned id)
{
    struct shoal_core_config config = core_config(member->launch, id);
    return shoal_core_init(&member->core, &config, member->error, sizeof(member->error));
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
    if (launch->io == &shoal_io_uring && launch->config.io_backend == SHOAL_BACKEND_AUTO) {
        snprintf(launch->fallback, sizeof(launch->fallback), "%s", bad->error);
        return;
    }
    launch->failed = true;
    if (launch->config.io_backend == SHOAL_BACKEND_URING)
        snprintf(launch->error, sizeof(launch->error),
                 "--io-backend: \"io_uring\" cannot be had here: %.120s (allowed: auto, epoll)",
                 bad->error);
    else
        snprintf(launch->error, sizeof(launch->error), "a core cannot start: %.200s", bad->error);
}

/* All cores come out with the same backend, or all fail. */
static bool open_together(struct shoal_member *member, unsigned id)
{
    struct shoal_launch *launch = member->launch;
    member->rc = member_open(member, id);
    meet(launch);
    if (id == 0)
        judge_attempt(launch);
    meet(launch);
    bool again = !launch->failed && launch->fallback[0] != '\0';
    if (launch->failed || again) {
        if (member->rc == 0)
            shoal_core_deinit(&member->core);
        if (!again)
            return false;
        if (id == 0)
            launch->io = &shoal_io_epoll;
        meet(launch);
        member->rc = member_open(member, id);
        meet(launch);
        if (id == 0)
            judge_attempt(launch);
        meet(launch);
        if (launch->failed && member->rc == 0)
            shoal_core_deinit(&member->core);
    }
    return !launch->failed;
}

/* ---- A core's thread ---- */

static int main_fiber(void *arg)
{
    struct shoal_launch *launch = arg;
    int rc = launch->program->run(launch->program->arg);
    if (rc == SHOAL_EOPTION) {
        launch->exit_code = 2;
    } else if (rc < 0) {
        SHOAL_ERROR("%s failed: %s", launch->program->name, shoal_error_text(rc));
        launch->exit_code = 1;
    } else {
        launch->exit_code = rc;
    }
    shoal_stop_all(launch);
    return 0;
}

static void quit_task(struct shoal_task *task)
{
    (void)task;
    shoal_mail_self()->closed = true;
    shoal_core_quit(shoal_core_self);
}

static void start_main(struct shoal_launch *launch)
{
    int rc = shoal_fiber_spawn_detached(shoal_signals_fiber, launch, "signals");
    if (rc == 0)
        rc = shoal_fiber_spawn_detached(main_fiber, launch, "main");
    SHOAL_CHECK(rc == 0, "no memory for the first fibers");
}

static void run_member(struct shoal_member *member, unsigned id)
{
    struct shoal_launch *launch = member->launch;
    member->quit.run = quit_task;
    member->rc = shoal_mail_init(&member->mail, &member->core, &launch->fleet);
    SHOAL_CHECK(member->rc == 0, "no memory for the mail of core %u", id);
    launch->fleet.core[id] = &member->core;
    launch->fleet.mail[id] = &member->mail;
    meet(launch);
    if (id == 0)
        start_main(launch);
    shoal_core_run(&member->core);
    meet(launch);
    shoal_mail_deinit(&member->mail);
    (void)shoal_core_deinit(&member->core);
}

static void member_main(struct shoal_launch *launch, unsigned id)
{
    int bound = shoal_placement_bind(&launch->placement, id);
    void *altstack = shoal_fiber_guard_thread_begin();
    struct shoal_member *member = NULL;
    /* Allocated on its own core, so that the pages are local to it. */
    if (posix_memalign((void **)&member, SHOAL_CACHE_LINE, sizeof(*member)) != 0)
        SHOAL_PANIC("no memory for core %u", id);
    memset(member, 0, sizeof(*member));
    member->launch = launch;
    launch->members[id] = member;
    if (open_together(member, id)) {
        if (bound < 0)
            SHOAL_WARN("cannot be bound to its CPU: %s", shoal_error_text(bound));
        run_member(member, id);
    }
    shoal_fiber_guard_thread_end(altstack);
}

struct thread_arg {
    struct shoal_launch *launch;
    unsigned id;
};

static void *thread_main(void *arg)
{
    struct thread_arg *mine = arg;
    member_main(mine->launch, mine->id);
    return NULL;
}

/* ---- The process ---- */

static int fleet_init(struct shoal_launch *launch, unsigned cores)
{
    launch->fleet.cores = cores;
    launch->fleet.core = calloc(cores, sizeof(*launch->fleet.core));
    launch->fleet.mail = calloc(cores, sizeof(*launch->fleet.mail));
    launch->fleet.channels = calloc((size_t)cores * cores, sizeof(*launch->fleet.channels));
    launch->members = calloc(cores, sizeof(*launch->members));
    if (launch->fleet.core == NULL || launch->fleet.mail == NULL ||
        launch->fleet.channels == NULL || launch->members == NULL)
        return -ENOMEM;
    return -pthread_barrier_init(&launch->barrier, NULL, cores);
}

static void fleet_deinit(struct shoal_launch *launch)
{
    for (unsigned i = 0; launch->members != NULL && i < launch->fleet.cores; i++)
        free(launch->members[i]);
    free(launch->members);
    free(launch->fleet.core);
    free(launch->fleet.mail);
    free((void *)launch->fleet.channels);
}

int shoal_launch_run(struct shoal_launch *launch)
{
    unsigned cores = launch->placement.cores;
    struct thread_arg *args = calloc(cores, sizeof(*args));
    pthread_t *threads = calloc(cores, sizeof(*threads));
    int rc = fleet_init(launch, cores);
    if (rc < 0 || args == NULL || threads == NULL)
        SHOAL_PANIC("no memory for %u cores", cores);
    shoal_list_init(&launch->stop_hooks);
    shoal_list_init(&launch->stop_waiters);
    launch->io =
        launch->config.io_backend == SHOAL_BACKEND_EPOLL ? &shoal_io_epoll : &shoal_io_uring;
    for (unsigned i = 1; i < cores; i++) {
        args[i] = (struct thread_arg){launch, i};
        rc = pthread_create(&threads[i], NULL, thread_main, &args[i]);
        /* The cores already made wait at the first barrier: there is no way back from here. */
        SHOAL_CHECK(rc == 0, "core %u of %u gets no thread: %s", i, cores, strerror(rc));
    }
    member_main(launch, 0);
    for (unsigned i = 1; i < cores; i++)
        pthread_join(threads[i], NULL);
    /* The main thread goes on after core 0 has ended: where it may run is the caller's again. */
    (void)pthread_setaffinity_np(pthread_self(), sizeof(cpu_set_t), &launch->placement.original);
    pthread_barrier_destroy(&launch->barrier);
    fleet_deinit(launch);
    free(args);
    free(threads);
    return launch->failed ? SHOAL_EOPTION : 0;
}

static int fail_line(const struct shoal_program *program, const char *error)
{
    fprintf(stderr, "%s: %s\n", program->name, error);
    return 2;
}

static void prepare_process(void)
{
    shoal_backtrace_init();
    shoal_fiber_guard_install();
    shoal_stall_install();
    shoal_fibers_install();
    shoal_signals_block();
}

int shoal_main(int argc, char **argv, const struct shoal_program *program)
{
    struct shoal_launch launch = {.program = program};
    char error[SHOAL_LAUNCH_ERROR_MAX * 2] = "";
    struct shoal_config *config = &launch.config;
    enum shoal_options_result parsed =
        shoal_config_parse(config, argc, argv, program, error, sizeof(error));
    if (parsed != SHOAL_OPTIONS_OK)
        return parsed == SHOAL_OPTIONS_EXIT ? 0 : fail_line(program, error);
    shoal_log_set_level((enum shoal_log_level)config->log_level);
    bool pin =
        config->thread_affinity == 0 && (!config->overprovisioned || config->thread_affinity_given);
    struct shoal_placement_request request = {
        .smp = (unsigned)config->smp,
        .cpuset = config->cpuset,
        .overprovisioned = config->overprovisioned,
        .pin = pin,
    };
    if (shoal_placement_init(&launch.placement, &request, error, sizeof(error)) != 0)
        return fail_line(program, error);
    if (shoal_config_check(config, launch.placement.cores, error, sizeof(error)) != 0) {
        shoal_placement_deinit(&launch.placement);
        return fail_line(program, error);
    }
    prepare_process();
    shoal_launch_current = &launch;
    int rc = shoal_launch_run(&launch);
    int code = rc < 0 ? fail_line(program, launch.error) : launch.exit_code;
    shoal_launch_current = NULL;
    shoal_placement_deinit(&launch.placement);
    return code;
}

int shoal_config_error(const char *fmt, ...)
{
    char text[SHOAL_LAUNCH_ERROR_MAX * 2];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof(text), fmt, args);
    va_end(args);
    fail_line(shoal_launch_current->program, text);
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
