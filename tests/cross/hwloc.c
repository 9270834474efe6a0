/*
 * See tests/cross/include/hwloc.h.
 */
#include "hwloc.h"

#include <stdlib.h>

int hwloc_topology_init(hwloc_topology_t *topology)
{
    *topology = calloc(1, sizeof(**topology));
    return *topology != NULL ? 0 : -1;
}

int hwloc_topology_load(hwloc_topology_t topology)
{
    return sched_getaffinity(0, sizeof(topology->cpus), &topology->cpus);
}

void hwloc_topology_destroy(hwloc_topology_t topology)
{
    free(topology);
}

int hwloc_topology_is_thissystem(hwloc_topology_t topology)
{
    (void)topology;
    return 1;
}

int hwloc_topology_set_components(hwloc_topology_t topology, unsigned long flags, const char *name)
{
    (void)topology;
    (void)flags;
    (void)name;
    return 0;
}

int hwloc_topology_set_flags(hwloc_topology_t topology, unsigned long flags)
{
    (void)topology;
    (void)flags;
    return 0;
}

int hwloc_topology_set_all_types_filter(hwloc_topology_t topology, int filter)
{
    (void)topology;
    (void)filter;
    return 0;
}

int hwloc_topology_set_type_filter(hwloc_topology_t topology, hwloc_obj_type_t type, int filter)
{
    (void)topology;
    (void)type;
    (void)filter;
    return 0;
}

hwloc_obj_t hwloc_get_ancestor_obj_by_type(hwloc_topology_t topology, hwloc_obj_type_t type,
                                           hwloc_obj_t obj)
{
    (void)topology;
    (void)type;
    (void)obj;
    return NULL;
}

/* One object, made over again: the caller looks at one at a time. */
hwloc_obj_t hwloc_get_next_obj_by_type(hwloc_topology_t topology, hwloc_obj_type_t type,
                                       hwloc_obj_t previous)
{
    static struct hwloc_obj unit;
    unsigned cpu = previous != NULL ? previous->os_index + 1 : 0;
    while (cpu < CPU_SETSIZE && !CPU_ISSET(cpu, &topology->cpus))
        cpu++;
    if (type != HWLOC_OBJ_PU || cpu == CPU_SETSIZE)
        return NULL;
    unit = (struct hwloc_obj){.os_index = cpu, .logical_index = cpu};
    return &unit;
}

hwloc_bitmap_t hwloc_bitmap_alloc(void)
{
    return calloc(1, sizeof(cpu_set_t));
}

int hwloc_bitmap_only(hwloc_bitmap_t set, unsigned cpu)
{
    CPU_ZERO(set);
    CPU_SET(cpu, set);
    return 0;
}

int hwloc_bitmap_isset(hwloc_bitmap_t set, unsigned cpu)
{
    return CPU_ISSET(cpu, set);
}

void hwloc_bitmap_free(hwloc_bitmap_t set)
{
    free(set);
}

int hwloc_set_cpubind(hwloc_topology_t topology, hwloc_bitmap_t set, int flags)
{
    (void)topology;
    (void)flags;
    return sched_setaffinity(0, sizeof(*set), set);
}
