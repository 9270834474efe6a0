/*
 * CPU quotas, read from trees of files that look like /proc and /sys/fs/cgroup.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <ftw.h>
#include <sys/stat.h>
#include <unistd.h>

#include "shoal/smp/cgroup_impl.h"

#define V2_MOUNT "30 20 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
#define V1_MOUNT "31 22 0:28 / /sys/fs/cgroup/cpu,cpuacct ro - cgroup cgroup rw,cpu,cpuacct\n"
#define V1_OTHER "32 22 0:29 / /sys/fs/cgroup/cpuset ro - cgroup cgroup rw,cpuset\n"

static char root[64];

/* Writes a file below the root, with its folders. */
static void put(const char *path, const char *text)
{
    char full[1024];
    snprintf(full, sizeof(full), "%s/%s", root, path);
    for (char *slash = full + strlen(root) + 1; (slash = strchr(slash, '/')) != NULL; slash++) {
        *slash = 0;
        (void)mkdir(full, 0700);
        *slash = '/';
    }
    FILE *file = fopen(full, "w");
    assert_non_null(file);
    fputs(text, file);
    fclose(file);
}

static int remove_entry(const char *path, const struct stat *status, int type, struct FTW *ftw)
{
    (void)status;
    (void)type;
    (void)ftw;
    return remove(path);
}

static int setup(void **state)
{
    (void)state;
    snprintf(root, sizeof(root), "/tmp/shoal-cgroup-XXXXXX");
    return mkdtemp(root) != NULL ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    return nftw(root, remove_entry, 8, FTW_DEPTH | FTW_PHYS);
}

static void v2(const char *group)
{
    char line[256];
    snprintf(line, sizeof(line), "0::%s\n", group);
    put("proc/self/cgroup", line);
    put("proc/self/mountinfo", "1 0 8:1 / / rw - ext4 /dev/sda rw\n" V2_MOUNT);
}

static void v1(const char *group, const char *quota, const char *period)
{
    char line[256];
    snprintf(line, sizeof(line), "9:cpuset:/\n4:cpu,cpuacct:%s\n", group);
    put("proc/self/cgroup", line);
    put("proc/self/mountinfo", V1_OTHER V1_MOUNT);
    put("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", quota);
    put("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", period);
}

static void cgroup_nothing_there_is_no_quota(void **state)
{
    (void)state;
    assert_int_equal(shoal_cgroup_cpu_quota(root), 0);
    assert_int_equal(shoal_cgroup_cpu_quota("/nonexistent"), 0);
    v2("/a");
    assert_int_equal(shoal_cgroup_cpu_quota(root), 0);
}

static void cgroup_v2_quota_is_rounded_up(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        unsigned cpus;
    } cases[] = {{"50000 100000\n", 1},  {"100000 100000\n", 1},
                 {"100001 100000\n", 2}, {"150000 100000\n", 2},
                 {"400000 100000\n", 4}, {"1000 1000000\n", 1},
                 {"max 100000\n", 0},    {"", 0},
                 {"x 1\n", 0},           {"5\n", 0},
                 {"-5 100000\n", 0},     {"0 100000\n", 0},
                 {"100000 0\n", 0}};
    v2("/");
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        put("sys/fs/cgroup/cpu.max", cases[i].text);
        assert_int_equal(shoal_cgroup_cpu_quota(root), cases[i].cpus);
    }
}

static void cgroup_v2_least_ancestor_counts(void **state)
{
    (void)state;
    v2("/a/b/c");
    put("sys/fs/cgroup/a/b/c/cpu.max", "800000 100000\n");
    put("sys/fs/cgroup/a/b/cpu.max", "max 100000\n");
    put("sys/fs/cgroup/a/cpu.max", "300000 100000\n");
    assert_int_equal(shoal_cgroup_cpu_quota(root), 3);
    put("sys/fs/cgroup/a/b/c/cpu.max", "200000 100000\n");
    assert_int_equal(shoal_cgroup_cpu_quota(root), 2);
    put("sys/fs/cgroup/cpu.max", "100000 100000\n");
    assert_int_equal(shoal_cgroup_cpu_quota(root), 1);
}

static void cgroup_v2_sibling_and_child_do_not_count(void **state)
{
    (void)state;
    v2("/a");
    put("sys/fs/cgroup/b/cpu.max", "100000 100000\n");
    put("sys/fs/cgroup/a/child/cpu.max", "100000 100000\n");
    put("cpu.max", "100000 100000\n"); /* above the mount */
    put("sys/fs/cpu.max", "100000 100000\n");
    assert_int_equal(shoal_cgroup_cpu_quota(root), 0);
}

static void cgroup_v2_group_outside_of_the_mount_uses_its_root(void **state)
{
    (void)state;
    v2("/../other");
    put("sys/fs/cgroup/cpu.max", "300000 100000\n");
    put("sys/fs/other/cpu.max", "100000 100000\n");
    assert_int_equal(shoal_cgroup_cpu_quota(root), 3);
}

static void cgroup_v1_quota_is_rounded_up(void **state)
{
    (void)state;
    v1("/", "150000\n", "100000\n");
    assert_int_equal(shoal_cgroup_cpu_quota(root), 2);
    v1("/", "25000\n", "50000\n");
    assert_int_equal(shoal_cgroup_cpu_quota(root), 1);
}

static void cgroup_v1_minus_one_is_no_quota(void **state)
{
    (void)state;
    v1("/", "-1\n", "100000\n");
    assert_int_equal(shoal_cgroup_cpu_quota(root), 0);
}

static void cgroup_v1_least_ancestor_counts(void **state)
{
    (void)state;
    v1("/docker/ab", "400000\n", "100000\n");
    assert_int_equal(shoal_cgroup_cpu_quota(root), 4);
    put("sys/fs/cgroup/cpu,cpuacct/docker/ab/cpu.cfs_quota_us", "200000\n");
    assert_int_equal(shoal_cgroup_cpu_quota(root), 4); /* its period is missing */
    put("sys/fs/cgroup/cpu,cpuacct/docker/ab/cpu.cfs_period_us", "100000\n");
    assert_int_equal(shoal_cgroup_cpu_quota(root), 2);
}

static void cgroup_v1_mount_of_a_container_is_relative_to_its_root(void **state)
{
    (void)state;
    put("proc/self/cgroup", "4:cpu:/docker/ab/web\n");
    put("proc/self/mountinfo",
        "31 22 0:28 /docker/ab /sys/fs/my\\040cpu ro - cgroup cgroup rw,cpu\n");
    put("sys/fs/my cpu/web/cpu.cfs_quota_us", "300000\n");
    put("sys/fs/my cpu/web/cpu.cfs_period_us", "100000\n");
    assert_int_equal(shoal_cgroup_cpu_quota(root), 3);
    put("sys/fs/my cpuc/cpu.cfs_quota_us", "300000\n");
    put("sys/fs/my cpuc/cpu.cfs_period_us", "100000\n");
    put("proc/self/cgroup", "4:cpu:/docker/abc\n"); /* not below /docker/ab */
    assert_int_equal(shoal_cgroup_cpu_quota(root), 0);
}

static void cgroup_v1_and_v2_mounted_lesser_counts(void **state)
{
    (void)state;
    v1("/", "300000\n", "100000\n");
    put("proc/self/cgroup", "4:cpu,cpuacct:/\n0::/x\n");
    put("proc/self/mountinfo",
        V1_MOUNT "40 22 0:30 / /sys/fs/cgroup/unified rw - cgroup2 none rw\n");
    put("sys/fs/cgroup/unified/x/cpu.max", "200000 100000\n");
    assert_int_equal(shoal_cgroup_cpu_quota(root), 2);
}

static void cgroup_malformed_proc_files_are_no_quota(void **state)
{
    (void)state;
    put("sys/fs/cgroup/cpu.max", "100000 100000\n");
    put("proc/self/cgroup", "\n:\n0\n0:\nnonsense\n");
    put("proc/self/mountinfo", "\n - \n - cgroup2\n1 2 - cgroup2 a b\n" V2_MOUNT);
    assert_int_equal(shoal_cgroup_cpu_quota(root), 0);
}

static void cgroup_of_this_machine_can_be_read(void **state)
{
    (void)state;
    (void)shoal_cgroup_cpu_quota(""); /* whatever it is */
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(cgroup_nothing_there_is_no_quota),
        CASE(cgroup_v2_quota_is_rounded_up),
        CASE(cgroup_v2_least_ancestor_counts),
        CASE(cgroup_v2_sibling_and_child_do_not_count),
        CASE(cgroup_v2_group_outside_of_the_mount_uses_its_root),
        CASE(cgroup_v1_quota_is_rounded_up),
        CASE(cgroup_v1_minus_one_is_no_quota),
        CASE(cgroup_v1_least_ancestor_counts),
        CASE(cgroup_v1_mount_of_a_container_is_relative_to_its_root),
        CASE(cgroup_v1_and_v2_mounted_lesser_counts),
        CASE(cgroup_malformed_proc_files_are_no_quota),
        CASE(cgroup_of_this_machine_can_be_read),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
