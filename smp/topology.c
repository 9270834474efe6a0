/*
 * Where cores run.
 *
 * 1. What is usable is the affinity mask, cut down to what hwloc knows and to --cpuset. A cgroup
 *    quota limits only the default number of cores: it is about time and not about places, and who
 *    asks for more cores explicitly gets them.
 * 2. CPUs are ranked by (how many usable siblings of the same physical core come before it, NUMA
 *    node, package, physical core, number), and core i takes the i-th of them. Ranks are among
 *    usable CPUs only, so a cpuset of second siblings is as good as one of first ones.
 * 3. Cores that share a CPU are never pinned: two pinned to one CPU could not move to an idle one.
 *    They still stay inside of the cpuset.
 * 4. hwloc reads only what is used here: no caches, no I/O devices, no cpuid (its x86 component
 *    binds the thread to each CPU in turn), no distances. Its plugins are kept out where that is
 *    safe: they pull in OpenCL and X11 libraries that a server has no use for, and take most of the
 *    time. That needs the environment, so it is done only while the process has a single thread.
 * 5. The topology stays loaded for shoal_placement_bind, which only reads it.
 *
 * Rejected: hwloc_distrib, which spreads over NUMA nodes first; with few cores on a big machine
 * their memory would lie on different nodes.
 */
#include "shoal/smp/topology.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <hwloc.h>
#include <sys/single_threaded.h>

#include "shoal/runtime/check.h"
#include "shoal/runtime/errors.h"
#include "shoal/runtime/log.h"
#include "shoal/runtime/mem.h"

#include "shoal/smp/cgroup_impl.h"
#include "shoal/smp/cpuset_impl.h"
#include "shoal/smp/topology_impl.h"

static SHOAL_PRINTF(4, 5) int fail(int code, char *error, size_t error_size, const char *fmt, ...)
{
    if (error_size > 0) {
        va_list args;
        va_start(args, fmt);
        vsnprintf(error, error_size, fmt, args);
        va_end(args);
    }
    return code;
}

/* ---- the machine ---- */

/*
 * The calling thread's affinity mask. A kernel that knows more CPUs than a cpu_set_t wants a larger
 * buffer; CPUs beyond CPU_SETSIZE are left out.
 */
static int read_affinity(cpu_set_t *out)
{
    for (size_t bytes = sizeof(cpu_set_t); bytes <= 64 * sizeof(cpu_set_t); bytes *= 2) {
        cpu_set_t *set = shoal_mem_alloc_zeroed(bytes);
        if (set == NULL)
            return -ENOMEM;
        int rc = sched_getaffinity(0, bytes, set) == 0 ? 0 : -errno;
        memcpy(out, set, sizeof(*out));
        shoal_mem_free(set, bytes);
        if (rc != -EINVAL)
            return rc;
    }
    return -EINVAL;
}

void shoal_machine_load_plain(struct shoal_machine *machine)
{
    machine->cpus = 0;
    for (unsigned cpu = 0; cpu < CPU_SETSIZE; cpu++)
        if (CPU_ISSET(cpu, &machine->affinity))
            machine->cpu[machine->cpus++] =
                (struct shoal_placement_core){.cpu = cpu, .physical_core = cpu};
}

/* Leaves out all components that the placement does not need; unknown ones are no error. */
static void configure(hwloc_topology_t topology)
{
    static const char *const unwanted[] = {"x86",  "pci",  "opencl",    "cuda",
                                           "nvml", "rsmi", "levelzero", "gl"};
    for (size_t i = 0; i < SHOAL_ARRAY_SIZE(unwanted); i++)
        (void)hwloc_topology_set_components(topology, HWLOC_TOPOLOGY_COMPONENTS_FLAG_BLACKLIST,
                                            unwanted[i]);
    hwloc_topology_set_all_types_filter(topology, HWLOC_TYPE_FILTER_KEEP_NONE);
    hwloc_topology_set_type_filter(topology, HWLOC_OBJ_CORE, HWLOC_TYPE_FILTER_KEEP_ALL);
    hwloc_topology_set_type_filter(topology, HWLOC_OBJ_PACKAGE, HWLOC_TYPE_FILTER_KEEP_ALL);
    hwloc_topology_set_flags(
        topology, HWLOC_TOPOLOGY_FLAG_DONT_CHANGE_BINDING | HWLOC_TOPOLOGY_FLAG_NO_DISTANCES |
                      HWLOC_TOPOLOGY_FLAG_NO_MEMATTRS | HWLOC_TOPOLOGY_FLAG_NO_CPUKINDS);
}

/* hwloc_topology_init, without plugins where the environment may be touched. */
static int init_without_plugins(hwloc_topology_t *topology)
{
    static const char name[] = "HWLOC_PLUGINS_PATH";
    bool set = __libc_single_threaded && getenv(name) == NULL && setenv(name, "/dev/null", 0) == 0;
    int rc = hwloc_topology_init(topology);
    if (set)
        unsetenv(name);
    return rc;
}

/* Index of the ancestor of `type`, `otherwise` if there is none. */
static unsigned ancestor_index(hwloc_topology_t topology, hwloc_obj_type_t type, hwloc_obj_t pu,
                               unsigned otherwise)
{
    hwloc_obj_t object = hwloc_get_ancestor_obj_by_type(topology, type, pu);
    return object != NULL ? object->logical_index : otherwise;
}

static void describe_cpus(struct shoal_machine *machine, hwloc_topology_t topology)
{
    machine->cpus = 0;
    hwloc_obj_t pu = NULL;
    while ((pu = hwloc_get_next_obj_by_type(topology, HWLOC_OBJ_PU, pu)) != NULL) {
        if (pu->os_index >= CPU_SETSIZE || machine->cpus >= CPU_SETSIZE)
            continue;
        struct shoal_placement_core *cpu = &machine->cpu[machine->cpus++];
        cpu->cpu = pu->os_index;
        cpu->package = ancestor_index(topology, HWLOC_OBJ_PACKAGE, pu, 0);
        cpu->physical_core = ancestor_index(topology, HWLOC_OBJ_CORE, pu, pu->logical_index);
        cpu->numa_node = 0;
    }
    /* memory hangs beside the tree of CPUs: a node is asked for its CPUs, not the other way round
     */
    hwloc_obj_t node = NULL;
    while ((node = hwloc_get_next_obj_by_type(topology, HWLOC_OBJ_NUMANODE, node)) != NULL)
        for (unsigned i = 0; i < machine->cpus; i++)
            if (node->cpuset != NULL && hwloc_bitmap_isset(node->cpuset, machine->cpu[i].cpu))
                machine->cpu[i].numa_node = node->os_index;
}

struct hwloc_topology *shoal_machine_load_hwloc(struct shoal_machine *machine, const char **reason)
{
    hwloc_topology_t topology;
    if (init_without_plugins(&topology) != 0) {
        *reason = "it cannot be initialised";
        return NULL;
    }
    configure(topology);
    *reason = "the topology cannot be loaded";
    if (hwloc_topology_load(topology) == 0) {
        describe_cpus(machine, topology);
        bool any = false;
        for (unsigned i = 0; i < machine->cpus; i++)
            any = any || CPU_ISSET(machine->cpu[i].cpu, &machine->affinity);
        if (hwloc_topology_is_thissystem(topology) && any)
            return topology;
        *reason = "it describes another machine";
    }
    hwloc_topology_destroy(topology);
    return NULL;
}

/* ---- the choice ---- */

/* A CPU that may be used, and how many usable siblings come before it. */
struct candidate {
    struct shoal_placement_core core;
    unsigned rank;
};

static int compare_unsigned(unsigned a, unsigned b)
{
    return (a > b) - (a < b);
}

/* By physical core and then number: what ranks are counted in. */
static int compare_siblings(const void *a, const void *b)
{
    const struct candidate *x = a, *y = b;
    int order = compare_unsigned(x->core.physical_core, y->core.physical_core);
    return order != 0 ? order : compare_unsigned(x->core.cpu, y->core.cpu);
}

static int compare_preference(const void *a, const void *b)
{
    const struct candidate *x = a, *y = b;
    int order = compare_unsigned(x->rank, y->rank);
    if (order == 0)
        order = compare_unsigned(x->core.numa_node, y->core.numa_node);
    if (order == 0)
        order = compare_unsigned(x->core.package, y->core.package);
    return order != 0 ? order : compare_siblings(a, b);
}

/* Collects the machine's CPUs that are in `usable`, best first. Returns how many. */
static unsigned collect(struct candidate *out, const struct shoal_machine *machine,
                        const cpu_set_t *usable)
{
    unsigned count = 0;
    for (unsigned i = 0; i < machine->cpus; i++)
        if (CPU_ISSET(machine->cpu[i].cpu, usable))
            out[count++] = (struct candidate){.core = machine->cpu[i]};
    qsort(out, count, sizeof(out[0]), compare_siblings);
    for (unsigned i = 1; i < count; i++)
        if (out[i].core.physical_core == out[i - 1].core.physical_core)
            out[i].rank = out[i - 1].rank + 1;
    qsort(out, count, sizeof(out[0]), compare_preference);
    return count;
}

/* Writes the CPUs that may be used to *usable: those of the process, or those of the cpuset. */
static int find_usable(cpu_set_t *usable, const char *cpuset, const struct shoal_machine *machine,
                       char *error, size_t error_size)
{
    cpu_set_t there;
    CPU_ZERO(&there);
    for (unsigned i = 0; i < machine->cpus; i++)
        CPU_SET(machine->cpu[i].cpu, &there);
    cpu_set_t allowed;
    CPU_AND(&allowed, &there, &machine->affinity);
    if (CPU_COUNT(&allowed) == 0)
        return fail(-ENODEV, error, error_size, "this process may run on no CPU that is known");
    *usable = allowed;
    if (cpuset == NULL)
        return 0;

    int rc = shoal_cpuset_parse(cpuset, usable, error, error_size);
    if (rc != 0)
        return rc;
    cpu_set_t common, denied;
    CPU_AND(&common, usable, &allowed);
    CPU_XOR(&denied, usable, &common);
    int count = CPU_COUNT(&denied);
    if (count == 0)
        return 0;
    char denied_text[64], allowed_text[64];
    return fail(SHOAL_EOPTION, error, error_size,
                "--cpuset: \"%.100s\" names CPU%s %s, which do%s not exist or %s not open to this "
                "process (allowed: %s)",
                cpuset, count == 1 ? "" : "s",
                shoal_cpuset_format(&denied, denied_text, sizeof(denied_text)),
                count == 1 ? "es" : "", count == 1 ? "is" : "are",
                shoal_cpuset_format(&allowed, allowed_text, sizeof(allowed_text)));
}

/* Decides the number of cores. */
static int count_cores(unsigned *cores, const struct shoal_placement_request *request,
                       unsigned cpus, unsigned quota_cpus, char *error, size_t error_size)
{
    *cores = request->smp;
    if (request->smp == 0) {
        *cores = quota_cpus != 0 && quota_cpus < cpus ? quota_cpus : cpus;
        if (*cores > SHOAL_CORES_MAX)
            *cores = SHOAL_CORES_MAX;
        return 0;
    }
    if (request->smp > SHOAL_CORES_MAX)
        return fail(SHOAL_EOPTION, error, error_size,
                    "--smp: \"%u\" is out of range (allowed: 1 to %d)", request->smp,
                    SHOAL_CORES_MAX);
    if (request->smp <= cpus || request->overprovisioned)
        return 0;
    char where[160] = "this process may run on";
    if (request->cpuset != NULL)
        snprintf(where, sizeof(where), "of --cpuset \"%.100s\"", request->cpuset);
    char allowed[32] = "1";
    if (cpus > 1)
        snprintf(allowed, sizeof(allowed), "1 to %u", cpus);
    return fail(SHOAL_EOPTION, error, error_size,
                "--smp: \"%u\" is more than the %u CPU%s %s (allowed: %s, or add "
                "--overprovisioned)",
                request->smp, cpus, cpus == 1 ? "" : "s", where, allowed);
}

int shoal_placement_choose(struct shoal_placement *out,
                           const struct shoal_placement_request *request,
                           const struct shoal_machine *machine, char *error, size_t error_size)
{
    memset(out, 0, sizeof(*out));
    struct shoal_placement chosen = {.original = machine->affinity};
    int rc = find_usable(&chosen.usable, request->cpuset, machine, error, error_size);
    if (rc != 0)
        return rc;
    struct candidate *candidate = shoal_mem_alloc_zeroed(CPU_SETSIZE * sizeof(*candidate));
    if (candidate == NULL)
        return fail(-ENOMEM, error, error_size, "no memory for the placement of cores");
    chosen.allowed_cpus = collect(candidate, machine, &chosen.usable);
    rc = count_cores(&chosen.cores, request, chosen.allowed_cpus, machine->quota_cpus, error,
                     error_size);
    if (rc == 0) {
        chosen.core = shoal_mem_alloc_zeroed(chosen.cores * sizeof(*chosen.core));
        if (chosen.core == NULL)
            rc = fail(-ENOMEM, error, error_size, "no memory for the placement of cores");
    }
    if (rc == 0) {
        SHOAL_CHECK(chosen.allowed_cpus > 0 && chosen.core != NULL, "no CPU to place cores on");
        for (unsigned i = 0; i < chosen.cores; i++)
            chosen.core[i] = candidate[i % chosen.allowed_cpus].core;
        chosen.pinned = request->pin && chosen.cores <= chosen.allowed_cpus;
        *out = chosen;
    }
    shoal_mem_free(candidate, CPU_SETSIZE * sizeof(*candidate));
    return rc;
}

/* ---- the public part ---- */

int shoal_placement_init(struct shoal_placement *out, const struct shoal_placement_request *request,
                         char *error, size_t error_size)
{
    memset(out, 0, sizeof(*out));
    struct shoal_machine *machine = shoal_mem_alloc_zeroed(sizeof(*machine));
    if (machine == NULL)
        return fail(-ENOMEM, error, error_size, "no memory for the placement of cores");
    hwloc_topology_t topology = NULL;
    int rc = read_affinity(&machine->affinity);
    if (rc != 0) {
        fail(rc, error, error_size, "the CPU affinity mask cannot be read: %s",
             shoal_error_text(rc));
    } else {
        const char *reason;
        topology = shoal_machine_load_hwloc(machine, &reason);
        if (topology == NULL) {
            SHOAL_WARN("hwloc cannot be used (%s): CPUs are taken in numerical order", reason);
            shoal_machine_load_plain(machine);
        }
        machine->quota_cpus = shoal_cgroup_cpu_quota("");
        rc = shoal_placement_choose(out, request, machine, error, error_size);
    }
    if (rc == 0)
        out->topology = topology;
    else if (topology != NULL)
        hwloc_topology_destroy(topology);
    shoal_mem_free(machine, sizeof(*machine));
    return rc;
}

void shoal_placement_deinit(struct shoal_placement *placement)
{
    shoal_mem_free(placement->core, placement->cores * sizeof(*placement->core));
    if (placement->topology != NULL)
        hwloc_topology_destroy(placement->topology);
    memset(placement, 0, sizeof(*placement));
}

int shoal_placement_bind(const struct shoal_placement *placement, unsigned core)
{
    if (core >= placement->cores)
        return SHOAL_ENOCORE;
    if (!placement->pinned) {
        if (CPU_EQUAL(&placement->usable, &placement->original))
            return 0;
        return sched_setaffinity(0, sizeof(placement->usable), &placement->usable) == 0 ? 0
                                                                                        : -errno;
    }
    unsigned cpu = placement->core[core].cpu;
    if (placement->topology == NULL) {
        cpu_set_t set;
        CPU_ZERO(&set);
        CPU_SET(cpu, &set);
        return sched_setaffinity(0, sizeof(set), &set) == 0 ? 0 : -errno;
    }
    hwloc_bitmap_t set = hwloc_bitmap_alloc();
    if (set == NULL || hwloc_bitmap_only(set, cpu) != 0) {
        hwloc_bitmap_free(set);
        return -ENOMEM;
    }
    int rc = 0;
    if (hwloc_set_cpubind(placement->topology, set, HWLOC_CPUBIND_THREAD) != 0)
        rc = errno != 0 ? -errno : -EINVAL;
    hwloc_bitmap_free(set);
    return rc;
}
