/*
 * From clone to exec. The child shares the parent's memory and runs on a stack of its own while the
 * parent's thread is suspended (CLONE_VM | CLONE_VFORK, as posix_spawn(3) does it): a large process
 * is not copied, and a failed exec is told by a plain store.
 *
 * 1. Only what is async-signal-safe may happen here, and only through syscall(2): libc's wrappers
 *    of setresuid(2) and its kin would change all of the parent's threads.
 * 2. All signals are blocked on the thread before the clone, and the child's dispositions are set
 *    back before it unblocks any: a handler of the parent must not run in its memory from here.
 * 3. Sanitizers do not see these functions: they keep state by thread, and this is none that they
 *    know.
 * 4. The thread that clones is no core's: from it the child has its CPU affinity.
 *
 * Rejected: posix_spawn (no pidfd before glibc 2.39, no credentials, no word on which step failed),
 * and CLONE_CLEAR_SIGHAND, which leaves what was ignored ignored.
 */
#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <string.h>

#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "shoal/runtime/clock.h"
#include "shoal/runtime/process_impl.h"

#define KERNEL_SIGNALS     64
#define KERNEL_SIGSET_SIZE 8
#define EXIT_FAILED        127 /* nobody sees it */

#ifndef CLONE_PIDFD
#define CLONE_PIDFD 0x1000
#endif
#ifndef P_PIDFD
#define P_PIDFD 3
#endif
#ifndef SYS_close_range
#define SYS_close_range 436
#endif

#if defined(__clang__)
#define UNSEEN __attribute__((noinline, disable_sanitizer_instrumentation))
#else
#define UNSEEN __attribute__((noinline, no_sanitize("address", "thread", "undefined")))
#endif

#ifdef SHOAL_TSAN
/* Its clone() takes the child for a fork, and from then on does not watch the parent's thread. */
int __clone(int (*fn)(void *arg), void *stack, int flags, void *arg, ...);
#define plain_clone __clone
#else
#define plain_clone clone
#endif

/* ---- In the child ---- */

static UNSEEN SHOAL_NORETURN void fail(struct shoal_process_child *child,
                                       enum shoal_process_stage stage)
{
    child->stage = stage;
    child->error = errno;
    for (;;)
        syscall(SYS_exit_group, EXIT_FAILED);
}

/* The kernel's struct sigaction is all zero for SIG_DFL, on every architecture. */
static UNSEEN void reset_dispositions(void)
{
    unsigned long action[8];
    for (size_t i = 0; i < SHOAL_ARRAY_SIZE(action); i++)
        action[i] = 0;
    for (int number = 1; number <= KERNEL_SIGNALS; number++)
        if (number != SIGKILL && number != SIGSTOP)
            syscall(SYS_rt_sigaction, number, action, NULL, KERNEL_SIGSET_SIZE);
}

static UNSEEN void close_between(struct shoal_process_child *child, unsigned from, unsigned last)
{
    if (from > last || syscall(SYS_close_range, from, last, 0) == 0)
        return;
    unsigned end = (unsigned)child->fd_end;
    for (unsigned fd = from; fd <= last && fd < end; fd++)
        syscall(SYS_close, fd);
}

/* First all away from where they may be in each other's way, then each to its place. */
static UNSEEN void move_descriptors(struct shoal_process_child *child)
{
    int above = child->moves[child->move_count - 1].to + 1;
    for (unsigned i = 0; i < child->move_count; i++) {
        struct shoal_process_move *move = &child->moves[i];
        child->culprit = move->from;
        long fd = syscall(SYS_fcntl, move->from, F_DUPFD_CLOEXEC, above);
        if (fd < 0)
            fail(child, SHOAL_PROCESS_AT_DESCRIPTOR);
        move->from = (int)fd;
    }
    unsigned next = 0;
    for (unsigned i = 0; i < child->move_count; i++) {
        const struct shoal_process_move *move = &child->moves[i];
        child->culprit = move->to;
        if (syscall(SYS_dup3, move->from, move->to, 0) < 0)
            fail(child, SHOAL_PROCESS_AT_DESCRIPTOR);
        if (move->to > 0)
            close_between(child, next, (unsigned)move->to - 1);
        next = (unsigned)move->to + 1;
    }
    close_between(child, next, UINT_MAX);
}

static UNSEEN void become_user(struct shoal_process_child *child)
{
    const struct shoal_process_user *user = child->user;
    if (syscall(SYS_setgroups, user->group_count, user->groups) != 0 ||
        syscall(SYS_setresgid, user->gid, user->gid, user->gid) != 0 ||
        syscall(SYS_setresuid, user->uid, user->uid, user->uid) != 0)
        fail(child, SHOAL_PROCESS_AT_USER);
}

static UNSEEN void tie_to_parent(const struct shoal_process_child *child)
{
    syscall(SYS_prctl, PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
    if (syscall(SYS_getppid) != child->parent) /* it is gone already */
        syscall(SYS_exit_group, EXIT_FAILED);
}

/* As execvp(3): a file that is missing, or may not be run, does not end the search. */
static UNSEEN SHOAL_NORETURN void run_program(struct shoal_process_child *child)
{
    int refused = 0;
    const char *path = child->paths;
    do {
        syscall(SYS_execve, path, child->argv, child->env);
        if (errno == EACCES)
            refused = EACCES;
        else if (errno != ENOENT && errno != ENOTDIR)
            fail(child, SHOAL_PROCESS_AT_EXEC);
        while (*path != '\0')
            path++;
        path++;
    } while (*path != '\0');
    if (refused != 0)
        errno = refused;
    fail(child, SHOAL_PROCESS_AT_EXEC);
}

static UNSEEN int child_main(void *arg)
{
    struct shoal_process_child *child = arg;
    const unsigned long long no_signals = 0;
    reset_dispositions();
    if (child->group == SHOAL_PROCESS_SESSION && syscall(SYS_setsid) < 0)
        fail(child, SHOAL_PROCESS_AT_GROUP);
    if (child->group == SHOAL_PROCESS_GROUP_NEW && syscall(SYS_setpgid, 0, 0) < 0)
        fail(child, SHOAL_PROCESS_AT_GROUP);
    move_descriptors(child);
    if (child->user != NULL)
        become_user(child);
    if (child->end_with_parent)
        tie_to_parent(child); /* after the credentials, whose change would undo it */
    if (child->directory != NULL && syscall(SYS_chdir, child->directory) != 0)
        fail(child, SHOAL_PROCESS_AT_DIRECTORY);
    syscall(SYS_rt_sigprocmask, SIG_SETMASK, &no_signals, NULL, KERNEL_SIGSET_SIZE);
    run_program(child);
}

/* ---- In the parent ---- */

static UNSEEN int start(struct shoal_process_child *child, int *pidfd)
{
    const unsigned long long all_signals = ~0ull;
    unsigned long long before = 0;
    /* By the system call: libc's function would leave out its own two, which it uses as well. */
    syscall(SYS_rt_sigprocmask, SIG_SETMASK, &all_signals, &before, KERNEL_SIGSET_SIZE);
    int pid = plain_clone(child_main, child->stack + child->stack_bytes,
                          CLONE_VM | CLONE_VFORK | CLONE_PIDFD | SIGCHLD, child, pidfd);
    int error = errno;
    syscall(SYS_rt_sigprocmask, SIG_SETMASK, &before, NULL, KERNEL_SIGSET_SIZE);
    return pid >= 0 ? pid : -error;
}

int shoal_process_clone(struct shoal_process_child *child, int *pidfd, pid_t *pid)
{
    struct shoal_process_status unused;
    *pidfd = -1;
    child->error = 0;
    child->stage = SHOAL_PROCESS_AT_START;
    child->parent = getpid();
    int rc = start(child, pidfd);
    if (rc < 0)
        return rc;
    *pid = rc;
    if (*pidfd < 0) { /* a kernel before 5.2 */
        kill(*pid, SIGKILL);
        waitpid(*pid, NULL, 0);
        return -ENOSYS;
    }
    if (child->error == 0)
        return 0;
    struct pollfd last = {.fd = *pidfd, .events = POLLIN};
    while (shoal_process_reap(*pidfd, &unused) == 0)
        (void)poll(&last, 1, -1);
    close(*pidfd);
    *pidfd = -1;
    return -child->error;
}

static uint64_t time_ns(const struct timeval *time)
{
    return (uint64_t)time->tv_sec * SHOAL_NS_PER_S + (uint64_t)time->tv_usec * SHOAL_NS_PER_US;
}

int shoal_process_reap(int pidfd, struct shoal_process_status *out)
{
    siginfo_t info;
    struct rusage usage;
    memset(&info, 0, sizeof(info));
    memset(&usage, 0, sizeof(usage));
    /* The system call itself tells the child's usage as well. */
    while (syscall(SYS_waitid, P_PIDFD, pidfd, &info, WEXITED | WNOHANG, &usage) != 0)
        if (errno != EINTR)
            return -errno;
    if (info.si_pid == 0)
        return 0;
    memset(out, 0, sizeof(*out));
    out->signalled = info.si_code != CLD_EXITED;
    out->core_dumped = info.si_code == CLD_DUMPED;
    out->signal = out->signalled ? info.si_status : 0;
    out->exit_code = out->signalled ? 128 + info.si_status : info.si_status;
    out->user_time_ns = time_ns(&usage.ru_utime);
    out->system_time_ns = time_ns(&usage.ru_stime);
    out->memory_bytes_max = (uint64_t)usage.ru_maxrss * 1024;
    return 1;
}
