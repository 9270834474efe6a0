/*
 * Other programs, as children of this process: start, pipes, signals, exit status.
 *
 *   static const char *const argv[] = {"sort", "-n", NULL};
 *   struct shoal_process_how how = {.argv = argv,
 *                                   .in = {SHOAL_PROCESS_PIPE},
 *                                   .out = {SHOAL_PROCESS_PIPE}};
 *   struct shoal_process *sort;
 *   int rc = shoal_process_spawn(&sort, &how);
 *   ...
 *   rc = shoal_process_pipe_write(shoal_process_stdin(sort), text, len, NULL);
 *   rc = shoal_process_pipe_read(shoal_process_stdout(sort), buf, sizeof(buf));
 *   rc = shoal_process_wait(sort, &status, SHOAL_NS_FOREVER);
 *   shoal_process_free(sort);
 *
 * shoal_process_run() below does all that for a program whose output fits in memory.
 *
 * 1. The child starts as if from a shell, whatever the core is like: no signal blocked or ignored,
 *    on all CPUs that the process was given, with no descriptor but those asked for. Limits,
 *    umask, priority and working directory are inherited.
 * 2. A child is reaped as soon as it ends, waited for or not: no zombie is left. Its status is kept
 *    until shoal_process_free(), and can be asked for any number of times.
 * 3. Signals go through a pidfd: never to a stranger who got the child's number.
 * 4. A cancelled or timed-out wait changes nothing about the child. One that is freed while it runs
 *    is killed, or left alone, as `on_free` says; so is one that nobody has freed, at the end of
 *    the program.
 * 5. All calls are made on the core that spawned the child. Linux 5.4 or later.
 */
#ifndef SHOAL_RUNTIME_PROCESS_H
#define SHOAL_RUNTIME_PROCESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <sys/types.h>

#include "shoal/runtime/compiler.h"

SHOAL_BEGIN_DECLS

struct shoal_future;
struct shoal_process;

/* ---- Starting ---- */

/* What one of the child's three standard descriptors is. */
enum shoal_process_stdio {
    SHOAL_PROCESS_INHERIT, /* this process's own; /dev/null where that is closed */
    SHOAL_PROCESS_NULL,    /* /dev/null */
    SHOAL_PROCESS_PIPE,    /* a pipe, whose other end is shoal_process_stdin() and so on */
    SHOAL_PROCESS_FD,      /* a duplicate of `fd` */
    SHOAL_PROCESS_STDOUT,  /* for `err` only: whatever `out` is */
};

struct shoal_process_stdio_how {
    enum shoal_process_stdio kind;
    int fd; /* SHOAL_PROCESS_FD only; stays the caller's */
};

enum shoal_process_group {
    SHOAL_PROCESS_GROUP_SAME, /* this process's group: Ctrl-C at the terminal reaches the child */
    SHOAL_PROCESS_GROUP_NEW,  /* a process group of its own; setpgid(2) */
    SHOAL_PROCESS_SESSION,    /* a session of its own, without a terminal; setsid(2) */
};

enum shoal_process_on_free {
    SHOAL_PROCESS_KILL,  /* SIGKILL; to its whole group if it has one of its own */
    SHOAL_PROCESS_LEAVE, /* it runs on, also after this process has ended */
};

/* A descriptor of this process that the child gets under the number `child_fd` (3 or more). */
struct shoal_process_fd {
    int fd;
    int child_fd;
};

#define SHOAL_PROCESS_FDS_MAX 64

/* Who the child is; needs the privileges that setresuid(2), setresgid(2), setgroups(2) ask for. */
struct shoal_process_user {
    uid_t uid;
    gid_t gid;
    const gid_t *groups; /* supplementary groups */
    size_t group_count;  /* 0: none */
};

/* How to start. What is pointed to is read until the spawn returns. 0 means the default. */
struct shoal_process_how {
    const char *const *argv; /* ends with NULL; argv[0] is the program, unless `path` is set */
    const char *path;       /* NULL: argv[0]. Without a slash it is looked up in the child's PATH */
    const char *const *env; /* "NAME=value" sets, "NAME" removes; ends with NULL. NULL: no change */
    bool env_clear;         /* begin with an empty environment, not with this process's */
    bool end_with_parent;   /* SIGKILL when this process ends; prctl(2) PR_SET_PDEATHSIG */
    const char *directory;  /* working directory; NULL: this process's. `path` is relative to it */
    struct shoal_process_stdio_how in;
    struct shoal_process_stdio_how out;
    struct shoal_process_stdio_how err;
    const struct shoal_process_fd *fds; /* more descriptors; NULL: none */
    size_t fd_count;
    enum shoal_process_group group;
    enum shoal_process_on_free on_free;
    const struct shoal_process_user *user; /* NULL: this process's */
};

/*
 * Starts a program, on a helper thread (runtime/blocking.h), and returns once it runs or could not
 * be started. 0 with *out to be freed; on failure a negative code, with what failed in
 * shoal_error_message(): -ENOENT, -EACCES, -ENOEXEC, -E2BIG (execve(2)), -ENOTDIR, -EPERM, -EAGAIN
 * (too many processes), -EMFILE, -EBADF (a descriptor that is not open), -EINVAL (the options
 * contradict themselves), -ENOMEM, -ECANCELED. No shell is involved: a file without an interpreter
 * line fails with -ENOEXEC. A cancel does not interrupt it. On a fiber; yields.
 */
SHOAL_API int shoal_process_spawn(struct shoal_process **out, const struct shoal_process_how *how);

/*
 * Lets go of a child: see `on_free`. Closes its pipes. No fiber may wait for it or use its pipes;
 * futures that are pending fail with -ECANCELED. Does not yield. NULL is fine.
 */
SHOAL_API void shoal_process_free(struct shoal_process *process);

/* The child's number, for reports. Stays the same after its end, when another may have it. */
SHOAL_API pid_t shoal_process_id(const struct shoal_process *process);

/* ---- Its end ---- */

struct shoal_process_status {
    bool signalled;        /* ended by a signal, not by exit(3) */
    bool core_dumped;      /* with `signalled` */
    int exit_code;         /* 0 to 255; with `signalled` 128 + the signal, as a shell says it */
    int signal;            /* with `signalled`; else 0 */
    uint64_t user_time_ns; /* CPU time, with that of its own children that it waited for */
    uint64_t system_time_ns;
    uint64_t memory_bytes_max; /* largest resident set */
};

/*
 * Waits until the child has ended, at most `timeout_ns` (0: not at all; SHOAL_NS_FOREVER). 0 with
 * *out (NULL if not wanted); -ETIMEDOUT, -ECANCELED: the child runs on and can be waited for again;
 * -ECHILD: its status is lost, because somebody else reaped it or SIGCHLD is ignored. Any number of
 * fibers may wait. On a fiber; yields unless it has ended.
 */
SHOAL_API int shoal_process_wait(struct shoal_process *process, struct shoal_process_status *out,
                                 uint64_t timeout_ns);

/*
 * The same as a future: `i64` is the exit code as in the status, which shoal_process_status() tells
 * whole. A cancel fails it with -ECANCELED and does nothing to the child.
 */
SHOAL_API struct shoal_future *shoal_process_wait_future(struct shoal_process *process);

/* 0 with *out when the child's end is known; -EAGAIN before; -ECHILD as above. Does not yield. */
SHOAL_API int shoal_process_status(const struct shoal_process *process,
                                   struct shoal_process_status *out);

/* ---- Signals ---- */

/*
 * Sends signal `number` to the child alone. 0; -ESRCH when it has ended; -EINVAL, -EPERM. Does not
 * yield.
 */
SHOAL_API int shoal_process_signal(struct shoal_process *process, int number);

/*
 * The same to all of its process group, for a child that has one of its own (else -EINVAL). -ESRCH
 * when the child itself has ended: what it has left behind cannot be told from strangers any more.
 */
SHOAL_API int shoal_process_signal_group(struct shoal_process *process, int number);

/*
 * Ends the child: SIGTERM (and SIGCONT, in case it is stopped), and SIGKILL when it has not ended
 * within `grace_ns`; each to its group if it has one of its own. Returns as shoal_process_wait();
 * -ECANCELED may come before the SIGKILL. On a fiber; yields.
 */
SHOAL_API int shoal_process_terminate(struct shoal_process *process, uint64_t grace_ns,
                                      struct shoal_process_status *out);

/* ---- Pipes ---- */

struct shoal_process_pipe;

/* The other end of a standard descriptor that is a SHOAL_PROCESS_PIPE; else NULL. The child's. */
SHOAL_API struct shoal_process_pipe *shoal_process_stdin(struct shoal_process *process);
SHOAL_API struct shoal_process_pipe *shoal_process_stdout(struct shoal_process *process);
SHOAL_API struct shoal_process_pipe *shoal_process_stderr(struct shoal_process *process);

/*
 * Reads up to `len` bytes into `buf`, as soon as there are any. Returns how many; 0 when everybody
 * who could write has closed the pipe, and with `len` 0; -ECANCELED, then nothing was read; -EBADF
 * when it is closed. Nothing is read ahead: a child that writes more than the kernel's pipe holds
 * (64 KiB) waits for the reader. One fiber at a time; yields unless something is there.
 */
SHOAL_API int shoal_process_pipe_read(struct shoal_process_pipe *pipe, void *buf, size_t len);

/*
 * Writes all of `data`, waiting while the pipe is full. 0; -EPIPE when nobody can read it any more;
 * -ECANCELED; -EBADF when it is closed. *written (NULL if not wanted) is how much the pipe has
 * taken, also on failure. One fiber at a time; may yield.
 */
SHOAL_API int shoal_process_pipe_write(struct shoal_process_pipe *pipe, const void *data,
                                       size_t len, size_t *written);

/*
 * Closes the pipe: a child that reads its standard input sees the end. No fiber may use it. Closing
 * it again does nothing. Does not yield.
 */
SHOAL_API void shoal_process_pipe_close(struct shoal_process_pipe *pipe);

/* ---- All at once ---- */

#define SHOAL_PROCESS_OUTPUT_BYTES_MAX (UINT64_C(1) << 20)

struct shoal_process_run_how {
    const void *input; /* for its standard input; NULL with `input_bytes` 0: as `how->in` says */
    size_t input_bytes;
    uint64_t out_bytes_max; /* 0: SHOAL_PROCESS_OUTPUT_BYTES_MAX */
    uint64_t err_bytes_max; /* the same */
    bool truncate;          /* over a limit: throw the rest away (else: kill it, -EMSGSIZE) */
    uint64_t timeout_ns;    /* for all of it; 0: SHOAL_NS_FOREVER. Then it is killed, -ETIMEDOUT */
};

struct shoal_process_output {
    char *data; /* `bytes` and a terminating 0; NULL when it was not a pipe */
    size_t bytes;
    size_t room_bytes; /* private */
    bool truncated;
};

struct shoal_process_result {
    struct shoal_process_status status;
    struct shoal_process_output out;
    struct shoal_process_output err;
};

/*
 * Runs a program to its end, with both outputs captured (`how->out` and `how->err` that are
 * SHOAL_PROCESS_INHERIT count as SHOAL_PROCESS_PIPE; others are as they say), while its input is
 * fed. Returns 0 with *result, whatever its exit code is; a negative code as from
 * shoal_process_spawn(), or -ETIMEDOUT, -ECANCELED, -EMSGSIZE, -ENOMEM: then the child has been
 * killed and has ended, and *result holds what was captured until then. Returns when the child has
 * ended and everybody who holds its outputs has closed them. A child that does not read all of its
 * input is no failure. To be freed in any case. `run` NULL: the defaults. On a fiber; yields.
 */
SHOAL_API int shoal_process_run(struct shoal_process_result *result,
                                const struct shoal_process_how *how,
                                const struct shoal_process_run_how *run);

/* Frees the outputs. Fine with a result that was freed before, or that is all zero. */
SHOAL_API void shoal_process_result_free(struct shoal_process_result *result);

SHOAL_END_DECLS

#endif
