/*
 * Starting a child: the core makes a plan of everything the child needs, a helper thread carries it
 * out (opening, clone, exec may all wait for a disk), and the core takes over what came of it.
 *
 * 1. The helper sees only the plan, which is on the stack of the fiber that waits for it.
 * 2. Every descriptor made here is close-on-exec from its birth.
 * 3. The parent's ends of pipes do not block; the child's do, as a program expects.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <fcntl.h>
#include <sys/resource.h>
#include <unistd.h>

#include "shoal/runtime/blocking.h"
#include "shoal/runtime/check.h"
#include "shoal/runtime/core_impl.h"
#include "shoal/runtime/errors.h"
#include "shoal/runtime/future_impl.h"
#include "shoal/runtime/process_impl.h"

#define CHILD_STACK_BYTES (64u * 1024) /* the first call of a function may run the linker on it */
#define PATH_DEFAULT      "/bin:/usr/bin"

extern char **environ;

struct plan {
    const struct shoal_process_how *how;
    const char *name; /* of the program, as it was asked for */
    struct shoal_process_child child;
    char **env;
    size_t env_bytes;
    char *paths;
    size_t paths_bytes;
    /* What the helper makes. */
    int ends[3]; /* the parent's, of pipes; else -1 */
    int pidfd;
    pid_t pid;
};

/* ---- The environment ---- */

static size_t name_len(const char *entry)
{
    return strcspn(entry, "=");
}

static bool same_name(const char *a, const char *b)
{
    size_t len = name_len(a);
    return len == name_len(b) && memcmp(a, b, len) == 0;
}

/* Whether one of `entries` is about the same name. */
static bool is_named(const char *entry, const char *const *entries)
{
    for (; entries != NULL && *entries != NULL; entries++)
        if (same_name(entry, *entries))
            return true;
    return false;
}

static size_t count_strings(const char *const *strings)
{
    size_t count = 0;
    while (strings != NULL && strings[count] != NULL)
        count++;
    return count;
}

static int plan_env(struct plan *plan)
{
    const char *const *changes = plan->how->env;
    const char *const *inherited =
        plan->how->env_clear ? NULL : (const char *const *)(uintptr_t)environ;
    for (size_t i = 0; changes != NULL && changes[i] != NULL; i++)
        if (name_len(changes[i]) == 0)
            return shoal_fiber_explain(
                -EINVAL, "\"%.100s\" has no name (allowed: \"NAME=value\" and \"NAME\")",
                changes[i]);
    plan->env_bytes = (count_strings(inherited) + count_strings(changes) + 1) * sizeof(*plan->env);
    plan->env = shoal_mem_alloc(plan->env_bytes);
    if (plan->env == NULL)
        return -ENOMEM;
    size_t n = 0;
    for (; inherited != NULL && *inherited != NULL; inherited++)
        if (!is_named(*inherited, changes))
            plan->env[n++] = (char *)(uintptr_t)*inherited;
    for (; changes != NULL && *changes != NULL; changes++)
        if (strchr(*changes, '=') != NULL && !is_named(*changes, changes + 1))
            plan->env[n++] = (char *)(uintptr_t)*changes;
    plan->env[n] = NULL;
    plan->child.env = plan->env;
    return 0;
}

/* ---- The program ---- */

static const char *search_path(const struct plan *plan)
{
    for (char **entry = plan->env; entry != NULL && *entry != NULL; entry++)
        if (strncmp(*entry, "PATH=", 5) == 0)
            return *entry + 5;
    return PATH_DEFAULT;
}

/* Appends `len` bytes of `dir`, a slash if there is one to be, and `name`, with its 0. */
static char *append_path(char *to, const char *dir, size_t len, const char *name)
{
    size_t name_bytes = strlen(name) + 1;
    memcpy(to, dir, len);
    to += len;
    if (len > 0)
        *to++ = '/';
    memcpy(to, name, name_bytes);
    return to + name_bytes;
}

/* Every place where the program may be. Empty parts of PATH are left out. */
static int plan_paths(struct plan *plan)
{
    const char *name = plan->name;
    if (*name == '\0')
        return shoal_fiber_explain(-ENOENT, "the name of the program is empty");
    bool search = strchr(name, '/') == NULL;
    const char *dirs = search ? search_path(plan) : "";
    size_t parts = 1;
    for (const char *c = dirs; *c != '\0'; c++)
        parts += *c == ':';
    plan->paths_bytes = strlen(dirs) + parts * (strlen(name) + 2) + 2;
    plan->paths = shoal_mem_alloc(plan->paths_bytes);
    if (plan->paths == NULL)
        return -ENOMEM;
    char *end = plan->paths;
    if (!search)
        end = append_path(end, "", 0, name);
    while (search && *dirs != '\0') {
        size_t len = strcspn(dirs, ":");
        if (len > 0)
            end = append_path(end, dirs, len, name);
        dirs += len + (dirs[len] == ':');
    }
    if (end == plan->paths) /* an empty PATH */
        return shoal_fiber_explain(-ENOENT, "cannot start \"%.200s\": PATH is empty", name);
    *end = '\0';
    plan->child.paths = plan->paths;
    return 0;
}

/* ---- Checking, on the core ---- */

static int check_stdio(const struct shoal_process_stdio_how *how, const char *which, bool is_err)
{
    if (how->kind > SHOAL_PROCESS_STDOUT || (how->kind == SHOAL_PROCESS_STDOUT && !is_err))
        return shoal_fiber_explain(-EINVAL, "%s: kind %d is not allowed here", which,
                                   (int)how->kind);
    return 0;
}

static int check_fds(const struct shoal_process_how *how)
{
    if (how->fd_count > SHOAL_PROCESS_FDS_MAX)
        return shoal_fiber_explain(-EINVAL, "%zu descriptors for the child (allowed: up to %d)",
                                   how->fd_count, SHOAL_PROCESS_FDS_MAX);
    for (size_t i = 0; i < how->fd_count; i++) {
        if (how->fds[i].child_fd < 3)
            return shoal_fiber_explain(
                -EINVAL, "descriptor %d of the child is given twice (allowed: 3 and more)",
                how->fds[i].child_fd);
        for (size_t j = 0; j < i; j++)
            if (how->fds[i].child_fd == how->fds[j].child_fd)
                return shoal_fiber_explain(-EINVAL, "descriptor %d of the child is given twice",
                                           how->fds[i].child_fd);
    }
    return 0;
}

static int check_how(const struct shoal_process_how *how)
{
    if (how->argv == NULL || how->argv[0] == NULL)
        return shoal_fiber_explain(-EINVAL,
                                   "argv is empty (allowed: at least the name of the program)");
    if (how->group > SHOAL_PROCESS_SESSION)
        return shoal_fiber_explain(-EINVAL, "group %d is not known", (int)how->group);
    if (how->on_free > SHOAL_PROCESS_LEAVE)
        return shoal_fiber_explain(-EINVAL, "on_free %d is not known", (int)how->on_free);
    int rc = check_stdio(&how->in, "in", false);
    rc = rc == 0 ? check_stdio(&how->out, "out", false) : rc;
    rc = rc == 0 ? check_stdio(&how->err, "err", true) : rc;
    return rc == 0 ? check_fds(how) : rc;
}

static int descriptor_limit(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_max > 1u << 20)
        return 1 << 20;
    return (int)limit.rlim_max;
}

static int plan_init(struct plan *plan, const struct shoal_process_how *how)
{
    *plan = (struct plan){.how = how, .ends = {-1, -1, -1}, .pidfd = -1};
    int rc = check_how(how);
    if (rc < 0)
        return rc;
    plan->name = how->path != NULL ? how->path : how->argv[0];
    plan->child.argv = (char *const *)(uintptr_t)how->argv;
    plan->child.directory = how->directory;
    plan->child.group = how->group;
    plan->child.user = how->user;
    plan->child.end_with_parent = how->end_with_parent;
    plan->child.fd_end = descriptor_limit();
    rc = plan_env(plan);
    rc = rc == 0 ? plan_paths(plan) : rc;
    if (rc < 0)
        return rc;
    plan->child.stack = shoal_mem_alloc(CHILD_STACK_BYTES);
    plan->child.stack_bytes = CHILD_STACK_BYTES;
    return plan->child.stack != NULL ? 0 : -ENOMEM;
}

static void plan_deinit(struct plan *plan)
{
    shoal_mem_free(plan->env, plan->env_bytes);
    shoal_mem_free(plan->paths, plan->paths_bytes);
    shoal_mem_free(plan->child.stack, CHILD_STACK_BYTES);
}

/* ---- Carrying out, on a helper thread ---- */

/* Descriptors that only the child needs, to be closed once it has them. */
struct loan {
    int fds[3];
    unsigned count;
};

static int lend(struct loan *loan, int fd)
{
    if (fd < 0)
        return -errno;
    loan->fds[loan->count++] = fd;
    return fd;
}

/* A pipe: its end of number `theirs` is lent, the other is the parent's. */
static int open_pipe(struct loan *loan, int theirs, int *ours)
{
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) != 0)
        return -errno;
    *ours = ends[1 - theirs];
    (void)fcntl(*ours, F_SETFL, O_NONBLOCK);
    return lend(loan, ends[theirs]);
}

/* What the child's descriptor `number` is to be a duplicate of, or -errno. */
static int open_stdio(struct plan *plan, struct loan *loan, int number,
                      const struct shoal_process_stdio_how *how)
{
    switch (how->kind) {
    case SHOAL_PROCESS_INHERIT:
        if (fcntl(number, F_GETFD) >= 0)
            return number;
        break;
    case SHOAL_PROCESS_PIPE:
        return open_pipe(loan, number == STDIN_FILENO ? 0 : 1, &plan->ends[number]);
    case SHOAL_PROCESS_FD:
        return how->fd;
    case SHOAL_PROCESS_STDOUT:
        return plan->child.moves[STDOUT_FILENO].from;
    default:
        break;
    }
    return lend(loan, open("/dev/null", O_RDWR | O_CLOEXEC));
}

static int by_target(const void *a, const void *b)
{
    const struct shoal_process_move *left = a;
    const struct shoal_process_move *right = b;
    return (left->to > right->to) - (left->to < right->to);
}

static int open_all(struct plan *plan, struct loan *loan)
{
    const struct shoal_process_how *how = plan->how;
    const struct shoal_process_stdio_how *stdio[] = {&how->in, &how->out, &how->err};
    struct shoal_process_child *child = &plan->child;
    for (int i = 0; i < 3; i++) {
        int from = open_stdio(plan, loan, i, stdio[i]);
        if (from < 0 && stdio[i]->kind != SHOAL_PROCESS_FD)
            return from;
        child->moves[i] = (struct shoal_process_move){from, i};
    }
    for (size_t i = 0; i < how->fd_count; i++)
        child->moves[3 + i] = (struct shoal_process_move){how->fds[i].fd, how->fds[i].child_fd};
    child->move_count = 3 + (unsigned)how->fd_count;
    qsort(child->moves, child->move_count, sizeof(child->moves[0]), by_target);
    return 0;
}

static int carry_out(void *arg)
{
    struct plan *plan = arg;
    struct loan loan = {.count = 0};
    int rc = open_all(plan, &loan);
    if (rc == 0)
        rc = shoal_process_clone(&plan->child, &plan->pidfd, &plan->pid);
    for (unsigned i = 0; i < loan.count; i++)
        close(loan.fds[i]);
    for (int i = 0; i < 3 && rc < 0; i++)
        if (plan->ends[i] >= 0)
            close(plan->ends[i]);
    return rc;
}

/* ---- On the core again ---- */

static int explain(const struct plan *plan, int rc)
{
    const char *name = plan->name;
    const struct shoal_process_child *child = &plan->child;
    const char *why = shoal_error_text(rc);
    if (child->error == 0 && (rc == -ECANCELED || rc == -ETIMEDOUT))
        return rc;
    if (child->error == 0)
        return shoal_fiber_explain(rc, "cannot start \"%.200s\": %s", name, why);
    switch (child->stage) {
    case SHOAL_PROCESS_AT_DESCRIPTOR:
        return shoal_fiber_explain(rc, "cannot start \"%.200s\": descriptor %d: %s", name,
                                   child->culprit, why);
    case SHOAL_PROCESS_AT_GROUP:
        return shoal_fiber_explain(rc, "cannot start \"%.200s\" in a group of its own: %s", name,
                                   why);
    case SHOAL_PROCESS_AT_USER:
        return shoal_fiber_explain(rc, "cannot start \"%.200s\" as user %u, group %u: %s", name,
                                   child->user->uid, child->user->gid, why);
    case SHOAL_PROCESS_AT_DIRECTORY:
        return shoal_fiber_explain(rc, "cannot start \"%.200s\" in directory \"%.200s\": %s", name,
                                   child->directory, why);
    default:
        return shoal_fiber_explain(rc, "cannot run \"%.200s\": %s", name, why);
    }
}

static void pipe_init(struct shoal_process_pipe *pipe, int fd)
{
    pipe->fd = fd;
    pipe->piped = fd >= 0;
    pipe->core = (uint16_t)shoal_core_self->id;
}

static int spawn(struct shoal_process *process, struct plan *plan)
{
    int rc = plan_init(plan, plan->how);
    if (rc < 0)
        return rc;
    rc = shoal_blocking_call(carry_out, plan);
    if (rc < 0)
        return explain(plan, rc);
    process->pid = plan->pid;
    process->pidfd = plan->pidfd;
    process->own_group = plan->how->group != SHOAL_PROCESS_GROUP_SAME;
    process->leave = plan->how->on_free == SHOAL_PROCESS_LEAVE;
    pipe_init(&process->in, plan->ends[STDIN_FILENO]);
    pipe_init(&process->out, plan->ends[STDOUT_FILENO]);
    pipe_init(&process->err, plan->ends[STDERR_FILENO]);
    return 0;
}

int shoal_process_spawn(struct shoal_process **out, const struct shoal_process_how *how)
{
    const struct shoal_core *core = shoal_core_self;
    SHOAL_CHECK(core != NULL && core->fiber != NULL, "a process is spawned outside a fiber");
    *out = NULL;
    shoal_fiber_set_message(core->fiber, NULL);
    int rc = shoal_fiber_cancel_code(core->fiber);
    if (rc < 0)
        return rc;
    rc = shoal_processes_ready();
    if (rc < 0)
        return rc;
    struct shoal_process *process = shoal_mem_alloc_zeroed(sizeof(*process));
    if (process == NULL)
        return -ENOMEM;
    struct plan plan = {.how = how};
    rc = spawn(process, &plan);
    plan_deinit(&plan);
    if (rc < 0) {
        shoal_mem_free(process, sizeof(*process));
        return rc;
    }
    shoal_process_begin(process);
    *out = process;
    return 0;
}
