/*
 * As much of hwloc as the placement of cores uses, for a processor for which none is installed:
 * the CPUs that the process may run on, each a core of its own, and nothing known of packages and
 * memory.
 */
#ifndef SHOAL_TESTS_CROSS_HWLOC_H
#define SHOAL_TESTS_CROSS_HWLOC_H

#include <stddef.h>

#include <sched.h>

typedef struct hwloc_topology {
    cpu_set_t cpus;
} * hwloc_topology_t;

typedef cpu_set_t *hwloc_bitmap_t;
typedef enum {
    HWLOC_OBJ_PU,
    HWLOC_OBJ_CORE,
    HWLOC_OBJ_PACKAGE,
    HWLOC_OBJ_NUMANODE
} hwloc_obj_type_t;
typedef struct hwloc_obj {
    unsigned os_index;
    unsigned logical_index;
    hwloc_bitmap_t cpuset;
} * hwloc_obj_t;

enum {
    HWLOC_TYPE_FILTER_KEEP_NONE,
    HWLOC_TYPE_FILTER_KEEP_ALL,
    HWLOC_TOPOLOGY_COMPONENTS_FLAG_BLACKLIST,
    HWLOC_TOPOLOGY_FLAG_DONT_CHANGE_BINDING = 1,
    HWLOC_TOPOLOGY_FLAG_NO_DISTANCES = 2,
    HWLOC_TOPOLOGY_FLAG_NO_MEMATTRS = 4,
    HWLOC_TOPOLOGY_FLAG_NO_CPUKINDS = 8,
    HWLOC_CPUBIND_THREAD = 1,
};

int hwloc_topology_init(hwloc_topology_t *topology);
int hwloc_topology_load(hwloc_topology_t topology);
void hwloc_topology_destroy(hwloc_topology_t topology);
int hwloc_topology_is_thissystem(hwloc_topology_t topology);
int hwloc_topology_set_components(hwloc_topology_t topology, unsigned long flags, const char *name);
int hwloc_topology_set_flags(hwloc_topology_t topology, unsigned long flags);
int hwloc_topology_set_all_types_filter(hwloc_topology_t topology, int filter);
int hwloc_topology_set_type_filter(hwloc_topology_t topology, hwloc_obj_type_t type, int filter);
hwloc_obj_t hwloc_get_ancestor_obj_by_type(hwloc_topology_t topology, hwloc_obj_type_t type,
                                           hwloc_obj_t obj);
hwloc_obj_t hwloc_get_next_obj_by_type(hwloc_topology_t topology, hwloc_obj_type_t type,
                                       hwloc_obj_t previous);
hwloc_bitmap_t hwloc_bitmap_alloc(void);
int hwloc_bitmap_only(hwloc_bitmap_t set, unsigned cpu);
int hwloc_bitmap_isset(hwloc_bitmap_t set, unsigned cpu);
void hwloc_bitmap_free(hwloc_bitmap_t set);
int hwloc_set_cpubind(hwloc_topology_t topology, hwloc_bitmap_t set, int flags);

#endif
