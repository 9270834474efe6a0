/*
 * The command line that every program has, and what it must satisfy before anything starts.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <sys/resource.h>

#include "shoal/runtime/errors.h"
#include "shoal/runtime/log.h"

#include "shoal/smp/launch_impl.h"

#define MEMORY_MIN_PER_CORE  (UINT64_C(8) << 20)
#define DESCRIPTORS_PER_CORE 32u /* ring, eventfds, listeners, files being served */
#define DESCRIPTORS_OTHER    32u /* standard streams, signals, logs, the program's own */
#define CONNECTIONS_MAX      UINT64_C(10000000)

enum shoal_options_result shoal_config_parse(struct shoal_config *config, int argc, char **argv,
                                             const struct shoal_program *program, char *error,
                                             size_t error_size)
{
    static const char *const backends[] = {"auto", "io_uring", "epoll", NULL};
    static const char *const on_off[] = {"on", "off", NULL};
    static const char *const balances[] = {"kernel", "balanced", NULL};
    static const char *const levels[] = {"error", "warn", "info", "debug", NULL};
    *config = (struct shoal_config){.idle_poll_us = 200,
                                    .task_quota_us = 500,
                                    .stall_notify_ms = 25,
                                    .shutdown_timeout_ns = 10 * SHOAL_NS_PER_S,
                                    .log_level = SHOAL_LOG_INFO};
    const struct shoal_option runtime_options[] = {
        {"smp", SHOAL_OPTION_UINT, &config->smp, "N",
         "Number of cores to run on; by default the CPUs that the process may use.", 1, 1024, NULL,
         NULL},
        {"cpuset", SHOAL_OPTION_STRING, &config->cpuset, "LIST", "CPUs to run on, such as 0-3,8.",
         0, 0, NULL, NULL},
        {"memory", SHOAL_OPTION_SIZE, &config->memory_bytes, "SIZE",
         "Memory that all cores together may use, such as 512M; by default no limit.", 1, 0, NULL,
         NULL},
        {"overprovisioned", SHOAL_OPTION_FLAG, &config->overprovisioned, NULL,
         "Allow more cores than CPUs; do not pin, do not spin.", 0, 0, NULL, NULL},
        {"poll-mode", SHOAL_OPTION_FLAG, &config->poll_mode, NULL,
         "Never sleep: poll all the time.", 0, 0, NULL, NULL},
        {"idle-poll-time-us", SHOAL_OPTION_UINT, &config->idle_poll_us, "N",
         "Microseconds to spin after the last message between cores before sleeping.", 0, 1000000,
         NULL, NULL},
        {"task-quota-us", SHOAL_OPTION_UINT, &config->task_quota_us, "N",
         "Microseconds for which tasks run before I/O is polled.", 1, 1000000, NULL, NULL},
        {"blocked-reactor-notify-ms", SHOAL_OPTION_UINT, &config->stall_notify_ms, "N",
         "Report a task that uses a core for this long; 0 for never.", 0, 100000, NULL, NULL},
        {"io-backend", SHOAL_OPTION_CHOICE, &config->io_backend, NULL,
         "How to do I/O; auto takes io_uring and falls back to epoll.", 0, 0, backends, NULL},
        {"thread-affinity", SHOAL_OPTION_CHOICE, &config->thread_affinity, NULL,
         "Pin each core to a CPU.", 0, 0, on_off, &config->thread_affinity_given},
        {"shutdown-timeout", SHOAL_OPTION_SECONDS_NS, &config->shutdown_timeout_ns, "SECONDS",
         "How long a stop waits for requests that are being answered.", 0, 3600 * SHOAL_NS_PER_S,
         NULL, NULL},
        {"max-connections", SHOAL_OPTION_UINT, &config->max_connections, "N",
         "Connections at most, over all cores; by default what the descriptors allow.", 1,
         CONNECTIONS_MAX, NULL, NULL},
        {"accept-balance", SHOAL_OPTION_CHOICE, &config->accept_balance, NULL,
         "Who serves a connection: the core that the kernel gave it to, or one with less to do.", 0,
         0, balances, NULL},
        {"log-level", SHOAL_OPTION_CHOICE, &config->log_level, NULL, "What to log.", 0, 0, levels,
         NULL},
        {"fail-alloc", SHOAL_OPTION_STRING, &config->fail_alloc, "PLAN",
         "For tests: let allocations fail, such as nth=100 or p=0.01,seed=7.", 0, 0, NULL, NULL},
        {.name = NULL},
    };
    const struct shoal_option none[] = {{.name = NULL}};
    const struct shoal_option *const tables[] = {program->options != NULL ? program->options : none,
                                                 runtime_options, NULL};
    const char *version = program->version != NULL ? program->version : SHOAL_VERSION;
    enum shoal_options_result result =
        shoal_options_parse(argc, argv, tables, version, program->about, NULL, error, error_size);
    if (result != SHOAL_OPTIONS_OK || config->fail_alloc == NULL)
        return result;
    if (shoal_fault_parse(config->fail_alloc, &config->faults, &config->faults_core, error,
                          error_size) != 0)
        return SHOAL_OPTIONS_BAD;
    config->faults.verbose = true;
    return SHOAL_OPTIONS_OK;
}

static int check_descriptors(struct shoal_config *config, unsigned cores, char *error,
                             size_t error_size)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0)
        return -errno;
    if (!config->keep_limits && limit.rlim_cur < limit.rlim_max) {
        limit.rlim_cur = limit.rlim_max;
        (void)setrlimit(RLIMIT_NOFILE, &limit);
        (void)getrlimit(RLIMIT_NOFILE, &limit);
    }
    uint64_t reserved = DESCRIPTORS_OTHER + (uint64_t)cores * DESCRIPTORS_PER_CORE;
    uint64_t available = limit.rlim_cur > reserved ? limit.rlim_cur - reserved : 0;
    if (config->max_connections == 0) {
        config->max_connections = available < CONNECTIONS_MAX ? available : CONNECTIONS_MAX;
        if (available >= cores)
            return 0;
        snprintf(error, error_size,
                 "the limit of %llu descriptors leaves none for connections (%llu are needed for "
                 "%u cores; raise it with ulimit -n)",
                 (unsigned long long)limit.rlim_cur, (unsigned long long)(reserved + cores), cores);
        return SHOAL_EOPTION;
    }
    if (config->max_connections <= available)
        return 0;
    snprintf(error, error_size,
             "--max-connections: \"%llu\" needs %llu descriptors (allowed: up to %llu with the "
             "limit of %llu; raise it with ulimit -n)",
             (unsigned long long)config->max_connections,
             (unsigned long long)(config->max_connections + reserved),
             (unsigned long long)available, (unsigned long long)limit.rlim_cur);
    return SHOAL_EOPTION;
}

int shoal_config_check(struct shoal_config *config, unsigned cores, char *error, size_t error_size)
{
    if (config->memory_bytes != 0 && config->memory_bytes / cores < MEMORY_MIN_PER_CORE) {
        bool whole_mib = (config->memory_bytes & ((1u << 20) - 1)) == 0;
        snprintf(
            error, error_size,
            "--memory: \"%llu%s\" is too small for %u cores (allowed: at least %lluM)",
            (unsigned long long)(whole_mib ? config->memory_bytes >> 20 : config->memory_bytes),
            whole_mib ? "M" : "", cores, (unsigned long long)(MEMORY_MIN_PER_CORE * cores >> 20));
        return SHOAL_EOPTION;
    }
    return check_descriptors(config, cores, error, error_size);
}
