/*
 * Placement of cores: the choice on invented machines, and loading and binding on this one.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <pthread.h>
#include <unistd.h>

#include "shoal/runtime/errors.h"
#include "shoal/runtime/log.h"

#include "shoal/smp/topology.h"
#include "shoal/smp/topology_impl.h"

static char error[512];
static struct shoal_machine machine;
static struct shoal_placement placement;

/*
 * One package, 2 NUMA nodes, each with 2 cores of 2 threads; numbered as Linux does on x86: first
 * siblings 0-3, second siblings 4-7; nodes alternate.
 *     CPU   0 1 2 3 4 5 6 7
 *     node  0 1 0 1 0 1 0 1
 *     core  0 1 2 3 0 1 2 3
 */
static int setup(void **state)
{
    (void)state;
    memset(&machine, 0, sizeof(machine));
    memset(&placement, 0, sizeof(placement));
    memset(error, 0, sizeof(error));
    for (unsigned cpu = 8; cpu-- > 0;) { /* the order that comes in does not matter */
        machine.cpu[machine.cpus++] = (struct shoal_placement_core){
            .cpu = cpu, .numa_node = cpu % 2, .physical_core = cpu % 4};
        CPU_SET(cpu, &machine.affinity);
    }
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    shoal_placement_deinit(&placement);
    shoal_placement_deinit(&placement);
    return 0;
}

static int choose(struct shoal_placement_request request)
{
    shoal_placement_deinit(&placement);
    return shoal_placement_choose(&placement, &request, &machine, error, sizeof(error));
}

static void assert_cpus(const char *expected)
{
    char text[256] = "";
    for (unsigned i = 0; i < placement.cores; i++)
        snprintf(text + strlen(text), sizeof(text) - strlen(text), "%s%u", i > 0 ? " " : "",
                 placement.core[i].cpu);
    assert_string_equal(text, expected);
}

static void placement_default_takes_physical_cores_first_by_node(void **state)
{
    (void)state;
    assert_int_equal(choose((struct shoal_placement_request){.pin = true}), 0);
    assert_cpus("0 2 1 3 4 6 5 7");
    assert_int_equal(placement.allowed_cpus, 8);
    assert_true(placement.pinned);
    assert_int_equal(placement.core[2].numa_node, 1);
    assert_int_equal(placement.core[2].physical_core, 1);
}

static void placement_smp_takes_the_first_ones(void **state)
{
    (void)state;
    assert_int_equal(choose((struct shoal_placement_request){.smp = 3, .pin = true}), 0);
    assert_cpus("0 2 1");
}

static void placement_pin_false_is_not_pinned(void **state)
{
    (void)state;
    assert_int_equal(choose((struct shoal_placement_request){.smp = 3}), 0);
    assert_false(placement.pinned);
}

static void placement_cpuset_ranks_among_its_own(void **state)
{
    (void)state;
    assert_int_equal(choose((struct shoal_placement_request){.cpuset = "3,4-7", .pin = true}), 0);
    assert_cpus("4 6 5 3 7"); /* 7 is the sibling of 3; the rest have theirs outside */
    assert_int_equal(placement.allowed_cpus, 5);
    assert_int_equal(CPU_COUNT(&placement.usable), 5);
    assert_int_equal(CPU_COUNT(&placement.original), 8);
}

static void placement_affinity_mask_limits(void **state)
{
    (void)state;
    CPU_CLR(0, &machine.affinity);
    CPU_CLR(1, &machine.affinity);
    assert_int_equal(choose((struct shoal_placement_request){0}), 0);
    assert_cpus("4 2 5 3 6 7");
}

static void placement_cpu_unknown_to_the_machine_is_left_out(void **state)
{
    (void)state;
    CPU_SET(9, &machine.affinity);
    assert_int_equal(choose((struct shoal_placement_request){0}), 0);
    assert_int_equal(placement.cores, 8);
    assert_false(CPU_ISSET(9, &placement.usable));
}

static void placement_quota_limits_the_default_only(void **state)
{
    (void)state;
    machine.quota_cpus = 3;
    assert_int_equal(choose((struct shoal_placement_request){0}), 0);
    assert_int_equal(placement.cores, 3);
    assert_int_equal(choose((struct shoal_placement_request){.cpuset = "0-1"}), 0);
    assert_int_equal(placement.cores, 2);
    assert_int_equal(choose((struct shoal_placement_request){.cpuset = "0-5"}), 0);
    assert_int_equal(placement.cores, 3);
    assert_int_equal(choose((struct shoal_placement_request){.smp = 5}), 0);
    assert_int_equal(placement.cores, 5);
    machine.quota_cpus = 100;
    assert_int_equal(choose((struct shoal_placement_request){0}), 0);
    assert_int_equal(placement.cores, 8);
}

static void placement_smp_over_the_cpus_is_bad(void **state)
{
    (void)state;
    assert_int_equal(choose((struct shoal_placement_request){.smp = 9}), SHOAL_EOPTION);
    assert_string_equal(error, "--smp: \"9\" is more than the 8 CPUs this process may run on "
                               "(allowed: 1 to 8, or add --overprovisioned)");
    assert_null(placement.core);
    assert_int_equal(choose((struct shoal_placement_request){.smp = 2, .cpuset = "5"}),
                     SHOAL_EOPTION);
    assert_string_equal(error, "--smp: \"2\" is more than the 1 CPU of --cpuset \"5\" (allowed: 1, "
                               "or add --overprovisioned)");
}

static void placement_smp_over_the_limit_is_bad_even_overprovisioned(void **state)
{
    (void)state;
    assert_int_equal(choose((struct shoal_placement_request){.smp = 1025, .overprovisioned = true}),
                     SHOAL_EOPTION);
    assert_string_equal(error, "--smp: \"1025\" is out of range (allowed: 1 to 1024)");
    assert_int_equal(choose((struct shoal_placement_request){.smp = 1024, .overprovisioned = true}),
                     0);
}

static void placement_overprovisioned_wraps_around_unpinned(void **state)
{
    (void)state;
    assert_int_equal(choose((struct shoal_placement_request){
                         .smp = 5, .cpuset = "0,1", .overprovisioned = true, .pin = true}),
                     0);
    assert_cpus("0 1 0 1 0");
    assert_false(placement.pinned);
    assert_int_equal(placement.allowed_cpus, 2);
}

static void placement_overprovisioned_with_room_is_pinned(void **state)
{
    (void)state;
    assert_int_equal(
        choose((struct shoal_placement_request){.smp = 2, .overprovisioned = true, .pin = true}),
        0);
    assert_true(placement.pinned);
}

static void placement_cpuset_not_allowed_names_the_cpus(void **state)
{
    (void)state;
    CPU_CLR(7, &machine.affinity);
    assert_int_equal(choose((struct shoal_placement_request){.cpuset = "6-9"}), SHOAL_EOPTION);
    assert_string_equal(error, "--cpuset: \"6-9\" names CPUs 7-9, which do not exist or are not "
                               "open to this process (allowed: 0-6)");
    assert_int_equal(choose((struct shoal_placement_request){.cpuset = "0,7"}), SHOAL_EOPTION);
    assert_string_equal(error, "--cpuset: \"0,7\" names CPU 7, which does not exist or is not open "
                               "to this process (allowed: 0-6)");
}

static void placement_cpuset_malformed_is_bad(void **state)
{
    (void)state;
    assert_int_equal(choose((struct shoal_placement_request){.cpuset = "1-0"}), SHOAL_EOPTION);
    assert_non_null(strstr(error, "--cpuset: \"1-0\" has the reversed range"));
}

static void placement_no_known_cpu_is_an_error(void **state)
{
    (void)state;
    CPU_ZERO(&machine.affinity);
    assert_int_equal(choose((struct shoal_placement_request){0}), -ENODEV);
    assert_true(error[0] != 0);
}

/* ---- this machine ---- */

static void *in_thread(void *argument)
{
    unsigned core = *(const unsigned *)argument;
    cpu_set_t *mask = calloc(1, sizeof(*mask));
    assert_int_equal(shoal_placement_bind(&placement, core), 0);
    assert_int_equal(sched_getaffinity(0, sizeof(*mask), mask), 0);
    return mask;
}

/* The affinity mask of a new thread that was bound as `core`. */
static cpu_set_t bound_mask(unsigned core)
{
    pthread_t thread;
    void *mask;
    assert_int_equal(pthread_create(&thread, NULL, in_thread, &core), 0);
    assert_int_equal(pthread_join(thread, &mask), 0);
    cpu_set_t out = *(cpu_set_t *)mask;
    free(mask);
    return out;
}

static void placement_bind_pinned_is_that_cpu_alone(void **state)
{
    (void)state;
    struct shoal_placement_request request = {.pin = true};
    cpu_set_t before, after;
    assert_int_equal(sched_getaffinity(0, sizeof(before), &before), 0);
    assert_int_equal(shoal_placement_init(&placement, &request, error, sizeof(error)), 0);
    assert_non_null(placement.topology);
    assert_int_equal(sched_getaffinity(0, sizeof(after), &after), 0);
    assert_true(CPU_EQUAL(&before, &after));
    assert_true(CPU_EQUAL(&before, &placement.original));
    assert_in_range(placement.cores, 1, (unsigned)CPU_COUNT(&before));
    for (unsigned core = 0; core < placement.cores; core++) {
        cpu_set_t mask = bound_mask(core);
        assert_int_equal(CPU_COUNT(&mask), 1);
        assert_true(CPU_ISSET(placement.core[core].cpu, &mask));
    }
    assert_int_equal(shoal_placement_bind(&placement, placement.cores), SHOAL_ENOCORE);
    assert_null(getenv("HWLOC_PLUGINS_PATH"));
}

static void placement_bind_unpinned_stays_in_the_cpuset(void **state)
{
    (void)state;
    cpu_set_t before;
    assert_int_equal(sched_getaffinity(0, sizeof(before), &before), 0);
    int first = 0;
    while (!CPU_ISSET(first, &before))
        first++;
    char cpuset[16];
    snprintf(cpuset, sizeof(cpuset), "%d", first);
    struct shoal_placement_request request = {
        .smp = 3, .cpuset = cpuset, .overprovisioned = true, .pin = true};
    assert_int_equal(shoal_placement_init(&placement, &request, error, sizeof(error)), 0);
    cpu_set_t mask = bound_mask(2);
    assert_true(CPU_EQUAL(&mask, &placement.usable));
    assert_int_equal(CPU_COUNT(&mask), 1);
    shoal_placement_deinit(&placement);

    request = (struct shoal_placement_request){.smp = 1};
    assert_int_equal(shoal_placement_init(&placement, &request, error, sizeof(error)), 0);
    mask = bound_mask(0);
    assert_true(CPU_EQUAL(&mask, &before));
}

static void placement_init_cpu_that_does_not_exist_is_bad(void **state)
{
    (void)state;
    struct shoal_placement_request request = {.cpuset = "1023"};
    assert_int_equal(shoal_placement_init(&placement, &request, error, sizeof(error)),
                     SHOAL_EOPTION);
    assert_non_null(strstr(error, "--cpuset: \"1023\" names CPU 1023, which does not exist"));
    assert_null(placement.core);
    assert_null(placement.topology);
}

static void placement_init_without_hwloc_uses_the_mask(void **state)
{
    (void)state;
    /* a machine that is not this one is what hwloc is made to see; nothing of it may be used */
    setenv("HWLOC_SYNTHETIC", "core:2 pu:1", 1);
    shoal_log_set_level(SHOAL_LOG_ERROR); /* the warning is expected */
    struct shoal_placement_request request = {.pin = true};
    int rc = shoal_placement_init(&placement, &request, error, sizeof(error));
    shoal_log_set_level(SHOAL_LOG_INFO);
    unsetenv("HWLOC_SYNTHETIC");
    assert_int_equal(rc, 0);
    assert_null(placement.topology);
    assert_true(placement.allowed_cpus == (unsigned)CPU_COUNT(&placement.original));
    cpu_set_t mask = bound_mask(0);
    assert_int_equal(CPU_COUNT(&mask), 1);
    assert_true(CPU_ISSET(placement.core[0].cpu, &mask));
}

static void machine_load_hwloc_agrees_with_the_system(void **state)
{
    (void)state;
    assert_int_equal(sched_getaffinity(0, sizeof(machine.affinity), &machine.affinity), 0);
    const char *reason = NULL;
    placement.topology = shoal_machine_load_hwloc(&machine, &reason);
    assert_non_null(placement.topology);
    assert_in_range(machine.cpus, 1, (unsigned)sysconf(_SC_NPROCESSORS_ONLN));
    for (unsigned i = 0; i < machine.cpus; i++)
        assert_in_range(machine.cpu[i].physical_core, 0, machine.cpus - 1);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(placement_default_takes_physical_cores_first_by_node),
        CASE(placement_smp_takes_the_first_ones),
        CASE(placement_pin_false_is_not_pinned),
        CASE(placement_cpuset_ranks_among_its_own),
        CASE(placement_affinity_mask_limits),
        CASE(placement_cpu_unknown_to_the_machine_is_left_out),
        CASE(placement_quota_limits_the_default_only),
        CASE(placement_smp_over_the_cpus_is_bad),
        CASE(placement_smp_over_the_limit_is_bad_even_overprovisioned),
        CASE(placement_overprovisioned_wraps_around_unpinned),
        CASE(placement_overprovisioned_with_room_is_pinned),
        CASE(placement_cpuset_not_allowed_names_the_cpus),
        CASE(placement_cpuset_malformed_is_bad),
        CASE(placement_no_known_cpu_is_an_error),
        CASE(placement_bind_pinned_is_that_cpu_alone),
        CASE(placement_bind_unpinned_stays_in_the_cpuset),
        CASE(placement_init_cpu_that_does_not_exist_is_bad),
        CASE(placement_init_without_hwloc_uses_the_mask),
        CASE(machine_load_hwloc_agrees_with_the_system),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
