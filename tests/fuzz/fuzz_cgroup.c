/*
 * Fuzz target of the files that tell a control group's quota.
 *
 *  1. Whatever the files hold, an answer comes; the same again for the same files.
 *  2. A line more in mountinfo that is about another file system changes nothing.
 *  3. Where no quota file holds a digit other than 0, there is no quota.
 *
 * Input, ended by NUL each: proc/self/mountinfo, proc/self/cgroup, then for the root of the
 * hierarchy and for its group /a/b: cpu.max, cpu.cfs_quota_us, cpu.cfs_period_us. They are written
 * into a folder of this process.
 */
#include <ftw.h>
#include <sys/stat.h>
#include <unistd.h>

#include "shoal/smp/cgroup_impl.h"

#include "fuzz/fuzz_input.h"

enum { TEXT_MAX = 4096, QUOTA_FILES = 3 };

static char root[64];

static int remove_entry(const char *path, const struct stat *info, int kind, struct FTW *walk)
{
    (void)info;
    (void)kind;
    (void)walk;
    return remove(path);
}

static void remove_root(void)
{
    (void)nftw(root, remove_entry, 8, FTW_DEPTH | FTW_PHYS);
}

static void make_root(void)
{
    static const char *const folders[] = {"proc",
                                          "proc/self",
                                          "sys",
                                          "sys/fs",
                                          "sys/fs/cgroup",
                                          "sys/fs/cgroup/a",
                                          "sys/fs/cgroup/a/b"};
    if (root[0] != '\0')
        return;
    snprintf(root, sizeof(root), "/tmp/shoal-fuzz-cgroup-XXXXXX");
    REQUIRE(mkdtemp(root) != NULL);
    REQUIRE(atexit(remove_root) == 0);
    for (size_t i = 0; i < sizeof(folders) / sizeof(folders[0]); i++) {
        char path[128];
        snprintf(path, sizeof(path), "%s/%s", root, folders[i]);
        REQUIRE(mkdir(path, 0700) == 0);
    }
}

static void write_file(const char *name, const char *text, const char *more)
{
    char path[128];
    snprintf(path, sizeof(path), "%s/%s", root, name);
    FILE *file = fopen(path, "we");
    REQUIRE(file != NULL);
    REQUIRE(fputs(text, file) >= 0 && fputs(more, file) >= 0);
    REQUIRE(fclose(file) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const quota_files[QUOTA_FILES] = {"cpu.max", "cpu.cfs_quota_us",
                                                         "cpu.cfs_period_us"};
    static const char *const groups[] = {"sys/fs/cgroup", "sys/fs/cgroup/a/b"};
    struct fuzz_input in = {data, data + size};
    if (size > TEXT_MAX)
        return 0;
    make_root();
    char *mountinfo = fuzz_word(&in);
    char *cgroup = fuzz_word(&in);
    write_file("proc/self/mountinfo", mountinfo, "");
    write_file("proc/self/cgroup", cgroup, "");
    bool digits = false;
    for (size_t group = 0; group < 2; group++)
        for (size_t i = 0; i < QUOTA_FILES; i++) {
            char name[64];
            char *text = fuzz_word(&in);
            digits |= strpbrk(text, "123456789") != NULL;
            snprintf(name, sizeof(name), "%s/%s", groups[group], quota_files[i]);
            write_file(name, text, "");
            free(text);
        }
    const unsigned quota = shoal_cgroup_cpu_quota(root);
    REQUIRE(digits || quota == 0);
    REQUIRE(shoal_cgroup_cpu_quota(root) == quota);
    write_file("proc/self/mountinfo", mountinfo,
               "\n99 1 0:5 / /tmp rw - tmpfs tmpfs rw,cpu\n99 1 0:5 / /tmp\n");
    REQUIRE(shoal_cgroup_cpu_quota(root) == quota);
    free(mountinfo);
    free(cgroup);
    return 0;
}
