/*
 * Where cores run: how many there are, and the CPU of each. Made once, before any core starts.
 */
#ifndef SHOAL_SMP_TOPOLOGY_H
#define SHOAL_SMP_TOPOLOGY_H

#include <stdbool.h>
#include <stddef.h>

#include <sched.h>

#include "shoal/runtime/compiler.h"

SHOAL_BEGIN_DECLS

/* The most cores that a process can have. */
#define SHOAL_CORES_MAX 1024

struct shoal_placement_request {
    unsigned smp;         /* cores; 0: the CPUs there are, limited by the cgroup quota */
    const char *cpuset;   /* such as "0-3,8"; NULL: all CPUs that the process may run on */
    bool overprovisioned; /* more cores than CPUs are fine */
    bool pin;             /* bind each core to its CPU */
};

/* The CPU of a core. `cpu` and `numa_node` are the numbers of the operating system. */
struct shoal_placement_core {
    unsigned cpu;
    unsigned numa_node;
    unsigned package;       /* counted from 0 */
    unsigned physical_core; /* differs between all physical cores of the machine */
};

struct shoal_placement {
    unsigned cores;
    bool pinned;                       /* each core has a CPU of its own and is bound to it */
    struct shoal_placement_core *core; /* `cores` of them; owned */
    unsigned allowed_cpus;             /* CPUs in `usable` */
    cpu_set_t usable;                  /* affinity mask and cpuset: where cores may run */
    cpu_set_t original;                /* the mask at start: for helper threads */
    struct hwloc_topology *topology;   /* private; NULL if hwloc could not be had */
};

/*
 * Chooses CPUs for the cores: distinct physical cores before SMT siblings, packed by NUMA node.
 * With `overprovisioned` and more cores than CPUs, CPUs are given out again from the first one, and
 * nothing is pinned. Without hwloc, CPUs are taken in the order of their numbers (one warning).
 * Returns 0, SHOAL_EOPTION with one line in `error` (which names --smp or --cpuset, the value and
 * what is allowed), or -ENOMEM and the like with a line as well. Does not keep `request`. The
 * calling thread stays as it is. Before the cores start. On failure *out needs no deinit.
 */
SHOAL_API SHOAL_NODISCARD int shoal_placement_init(struct shoal_placement *out,
                                                   const struct shoal_placement_request *request,
                                                   char *error, size_t error_size);

/* Frees what init made; fine on a zeroed struct and twice. No thread is unbound. */
SHOAL_API void shoal_placement_deinit(struct shoal_placement *placement);

/*
 * Binds the calling thread to the CPU of `core`, or, if the placement is not pinned, to all usable
 * CPUs. Any number of threads may call it at once. Returns 0, SHOAL_ENOCORE, or -errno.
 */
SHOAL_API SHOAL_NODISCARD int shoal_placement_bind(const struct shoal_placement *placement,
                                                   unsigned core);

SHOAL_END_DECLS

#endif
