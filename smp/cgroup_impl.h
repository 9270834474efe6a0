/*
 * The CPU quota that control groups put on this process, as a number of CPUs.
 */
#ifndef SHOAL_SMP_CGROUP_IMPL_H
#define SHOAL_SMP_CGROUP_IMPL_H

/*
 * CPUs' worth of time that this process may use, rounded up (0.5 gives 1, 1.5 gives 2); 0 if there
 * is no quota or none can be read. `root` is put before all paths: "" for the machine itself, a
 * folder with proc/self/cgroup, proc/self/mountinfo and the mounts below it for tests. Allocates
 * and reads files: before the cores start.
 */
unsigned shoal_cgroup_cpu_quota(const char *root);

#endif
