/*
 * The CPU quota that control groups put on this process.
 *
 * /proc/self/cgroup says in which group of each hierarchy the process is, /proc/self/mountinfo
 * where a hierarchy is mounted and which group is the root of that mount:
 *
 *     mountinfo:  31 22 0:28 /docker/ab /sys/fs/cgroup/cpu ro - cgroup cgroup rw,cpu,cpuacct
 *     cgroup:     4:cpu,cpuacct:/docker/ab/web      ->  /sys/fs/cgroup/cpu/web
 *
 * 1. A quota binds all that is below it: the least one on the way from the process's group up to
 *    the root of the mount counts, in version 1 (cpu.cfs_quota_us, cpu.cfs_period_us) as in
 *    version 2 (cpu.max). Where both are mounted, the lesser of both.
 * 2. A group outside of the mount ("/../x", or another root) cannot be walked to; the mount's own
 *    root is then the best that is known.
 * 3. What is missing, unlimited or unreadable is no quota; nothing here can fail a start.
 *
 * Rejected: a fixed /sys/fs/cgroup, which is wrong on hybrid machines and in containers that share
 * their host's cgroup namespace.
 */
#include <inttypes.h>
#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "shoal/smp/cgroup_impl.h"

/* A file beyond this depth of names is left alone. */
enum { PATH_BYTES_MAX = 4096 };

enum version { CGROUP_V1, CGROUP_V2 };

/* Reads the first line of a small file. */
static bool read_line(const char *path, char *out, size_t size)
{
    FILE *file = fopen(path, "re");
    if (file == NULL)
        return false;
    bool got = fgets(out, (int)size, file) != NULL;
    fclose(file);
    return got;
}

static bool read_line_in(const char *folder, const char *name, char *out, size_t size)
{
    char path[PATH_BYTES_MAX];
    int length = snprintf(path, sizeof(path), "%s/%s", folder, name);
    return length > 0 && (size_t)length < sizeof(path) && read_line(path, out, size);
}

/* quota / period rounded up, 0 where that makes no sense. */
static unsigned cpus_of(uint64_t quota, uint64_t period)
{
    if (quota == 0 || period == 0)
        return 0;
    uint64_t cpus = quota / period + (quota % period != 0);
    return cpus < UINT_MAX ? (unsigned)cpus : UINT_MAX;
}

/* The quota of one group by itself, 0 for none. */
static unsigned group_quota(const char *folder, enum version version)
{
    char line[128];
    uint64_t quota, period;
    if (version == CGROUP_V2) {
        if (!read_line_in(folder, "cpu.max", line, sizeof(line)))
            return 0;
        int fields = line[0] >= '0' && line[0] <= '9'
                         ? sscanf(line, "%" SCNu64 " %" SCNu64, &quota, &period)
                         : 0; /* "max 100000" */
        return fields == 2 ? cpus_of(quota, period) : 0;
    }
    int64_t signed_quota; /* -1: none */
    if (!read_line_in(folder, "cpu.cfs_quota_us", line, sizeof(line)) ||
        sscanf(line, "%" SCNd64, &signed_quota) != 1 || signed_quota <= 0 ||
        !read_line_in(folder, "cpu.cfs_period_us", line, sizeof(line)) ||
        sscanf(line, "%" SCNu64, &period) != 1)
        return 0;
    return cpus_of((uint64_t)signed_quota, period);
}

static unsigned lesser_quota(unsigned a, unsigned b)
{
    if (a == 0 || b == 0)
        return a + b;
    return a < b ? a : b;
}

/* The least quota on the way from `mount`/`group` up to `mount`. */
static unsigned walk_up(const char *mount, const char *group, enum version version)
{
    char folder[PATH_BYTES_MAX];
    int length = snprintf(folder, sizeof(folder), "%s%s", mount, group);
    if (length < 0 || (size_t)length >= sizeof(folder))
        return group_quota(mount, version);
    unsigned quota = 0;
    for (;;) {
        quota = lesser_quota(quota, group_quota(folder, version));
        char *slash = strrchr(folder, '/');
        if (slash == NULL || slash < folder + strlen(mount))
            return quota;
        *slash = 0;
    }
}

/* Whether the comma-separated `list` has `word`. */
static bool list_has(const char *list, const char *word)
{
    size_t length = strlen(word);
    while (*list != 0) {
        size_t item = strcspn(list, ",\n");
        if (item == length && memcmp(list, word, length) == 0)
            return true;
        list += item + (list[item] != 0);
    }
    return false;
}

/* Finds the process's group in the hierarchy: the part after "4:cpu,cpuacct:" or "0::". */
static bool find_group(const char *root, enum version version, char *out, size_t size)
{
    char path[PATH_BYTES_MAX];
    snprintf(path, sizeof(path), "%s/proc/self/cgroup", root);
    FILE *file = fopen(path, "re");
    if (file == NULL)
        return false;
    char *line = NULL;
    size_t line_size = 0;
    bool found = false;
    while (!found && getline(&line, &line_size, file) > 0) {
        line[strcspn(line, "\n")] = 0;
        char *controllers = strchr(line, ':');
        char *group = controllers != NULL ? strchr(controllers + 1, ':') : NULL;
        if (group == NULL)
            continue;
        *controllers++ = 0;
        *group++ = 0;
        bool is_v2 = *controllers == 0 && strcmp(line, "0") == 0;
        if (version == CGROUP_V2 ? is_v2 : list_has(controllers, "cpu"))
            found = snprintf(out, size, "%s", group) < (int)size;
    }
    free(line);
    fclose(file);
    return found;
}

/* Undoes mountinfo's octal escapes (\040 for a blank) in place. */
static void unescape(char *text)
{
    char *out = text;
    while (*text != 0) {
        if (text[0] == '\\' && text[1] >= '0' && text[1] <= '3' && text[2] >= '0' &&
            text[2] <= '7' && text[3] >= '0' && text[3] <= '7') {
            *out++ = (char)((text[1] - '0') << 6 | (text[2] - '0') << 3 | (text[3] - '0'));
            text += 4;
        } else {
            *out++ = *text++;
        }
    }
    *out = 0;
}

/* Makes `group` relative to the root of its mount; "" for the root and for what is outside. */
static const char *below(const char *group, const char *mount_root)
{
    if (strstr(group, "/..") != NULL)
        return "";
    size_t length = strcmp(mount_root, "/") == 0 ? 0 : strlen(mount_root);
    if (strncmp(group, mount_root, length) != 0)
        return "";
    group += length;
    return *group == '/' && group[1] != 0 ? group : "";
}

/* The quota found through one line of mountinfo, 0 if it is no hierarchy of interest. */
static unsigned mount_quota(const char *root, char *line)
{
    char *separator = strstr(line, " - ");
    if (separator == NULL)
        return 0;
    char type[32], options[1024];
    if (sscanf(separator + 3, "%31s %*s %1023s", type, options) != 2)
        return 0;
    bool is_v2 = strcmp(type, "cgroup2") == 0;
    if (!is_v2 && (strcmp(type, "cgroup") != 0 || !list_has(options, "cpu")))
        return 0;

    *separator = 0;
    char *fields[5]; /* id, parent, device, root, mount point */
    char *rest = line;
    for (size_t i = 0; i < 5; i++)
        if ((fields[i] = strsep(&rest, " ")) == NULL)
            return 0;
    unescape(fields[3]);
    unescape(fields[4]);

    enum version version = is_v2 ? CGROUP_V2 : CGROUP_V1;
    char group[PATH_BYTES_MAX], mount[PATH_BYTES_MAX];
    if (!find_group(root, version, group, sizeof(group)))
        return 0;
    int length = snprintf(mount, sizeof(mount), "%s%s", root, fields[4]);
    if (length < 0 || (size_t)length >= sizeof(mount))
        return 0;
    return walk_up(mount, below(group, fields[3]), version);
}

unsigned shoal_cgroup_cpu_quota(const char *root)
{
    char path[PATH_BYTES_MAX];
    int length = snprintf(path, sizeof(path), "%s/proc/self/mountinfo", root);
    if (length < 0 || (size_t)length >= sizeof(path))
        return 0;
    FILE *file = fopen(path, "re");
    if (file == NULL)
        return 0;
    char *line = NULL;
    size_t line_size = 0;
    unsigned quota = 0;
    while (getline(&line, &line_size, file) > 0) {
        line[strcspn(line, "\n")] = 0;
        quota = lesser_quota(quota, mount_quota(root, line));
    }
    free(line);
    fclose(file);
    return quota;
}
