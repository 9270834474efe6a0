/*
 * The choice of CPUs apart from the machine it is made for, so that tests can invent machines.
 */
#ifndef SHOAL_SMP_TOPOLOGY_IMPL_H
#define SHOAL_SMP_TOPOLOGY_IMPL_H

#include <stddef.h>

#include <sched.h>

#include "shoal/smp/topology.h"

/* What is known of a machine. */
struct shoal_machine {
    unsigned cpus;                                /* how many `cpu` holds */
    struct shoal_placement_core cpu[CPU_SETSIZE]; /* CPUs that are there, in any order */
    cpu_set_t affinity;                           /* CPUs on which the process may run */
    unsigned quota_cpus;                          /* cgroup quota; 0: none */
};

/* As shoal_placement_init, on the given machine; leaves `topology` NULL. */
SHOAL_NODISCARD int shoal_placement_choose(struct shoal_placement *out,
                                           const struct shoal_placement_request *request,
                                           const struct shoal_machine *machine, char *error,
                                           size_t error_size);

/* Describes the CPUs of `machine` through hwloc. Returns its topology, or NULL with a reason. */
struct hwloc_topology *shoal_machine_load_hwloc(struct shoal_machine *machine, const char **reason);

/* Describes the CPUs of `machine` as those of its affinity mask, each a physical core. */
void shoal_machine_load_plain(struct shoal_machine *machine);

#endif
