/*
 * Replays kept inputs through a fuzz target, so that plain gcc builds without libFuzzer run them
 * as tests.
 *
 * Usage: <target>_replay PATH...   where each PATH is an input or a directory of inputs
 * Ends with 0 when every input passed, with 2 when a path cannot be read or none was found (a test
 * that tests nothing must not pass), and by abort() in the target when an input fails; the name of
 * the input is then the last line on stderr.
 */
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <dirent.h>
#include <sys/stat.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static unsigned replayed;

static int fail(const char *path)
{
    fprintf(stderr, "%s: %s\n", path, strerror(errno));
    return -1;
}

static int replay_file(const char *path, size_t size)
{
    FILE *file = fopen(path, "rb");
    if (file == NULL)
        return fail(path);
    uint8_t *data = malloc(size != 0 ? size : 1); /* exactly, so that ASan sees one byte more */
    if (data == NULL || fread(data, 1, size, file) != size) {
        free(data);
        fclose(file);
        return fail(path);
    }
    fclose(file);
    fprintf(stderr, "%s\n", path);
    LLVMFuzzerTestOneInput(data, size);
    replayed++;
    free(data);
    return 0;
}

static int replay(const char *path);

static int replay_directory(const char *path)
{
    DIR *dir = opendir(path);
    if (dir == NULL)
        return fail(path);
    int rc = 0;
    const struct dirent *entry;
    while (rc == 0 && (entry = readdir(dir)) != NULL) {
        char inner[4096];
        if (entry->d_name[0] == '.')
            continue;
        const int len = snprintf(inner, sizeof(inner), "%s/%s", path, entry->d_name);
        if (len < 0 || (size_t)len >= sizeof(inner)) {
            errno = ENAMETOOLONG;
            rc = fail(path);
        } else {
            rc = replay(inner);
        }
    }
    closedir(dir);
    return rc;
}

static int replay(const char *path)
{
    struct stat info;
    if (stat(path, &info) != 0)
        return fail(path);
    return S_ISDIR(info.st_mode) ? replay_directory(path) : replay_file(path, (size_t)info.st_size);
}

int main(int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        if (replay(argv[i]) != 0)
            return 2;
    }
    printf("%u inputs replayed\n", replayed);
    return replayed != 0 ? 0 : 2;
}
