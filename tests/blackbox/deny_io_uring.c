/*
 * Runs a program in which io_uring_setup(2) fails with EPERM, as a container's seccomp filter
 * makes it fail: `deny_io_uring PROGRAM ARGS...`.
 *
 * 1. Only io_uring_setup is refused; every other call of the native ABI goes through.
 * 2. The filter is inherited by all threads, since it is in place before exec.
 * 3. No privilege is needed: no_new_privs is set first.
 *
 * A raw BPF program is four instructions here; libseccomp would be one more package to install.
 */
#include <errno.h>
#include <stddef.h>
#include <stdio.h>

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <unistd.h>

#ifndef __NR_io_uring_setup
#define __NR_io_uring_setup 425
#endif

int main(int argc, char **argv)
{
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, __NR_io_uring_setup, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {.len = sizeof(code) / sizeof(code[0]), .filter = code};

    if (argc < 2) {
        fprintf(stderr, "usage: deny_io_uring PROGRAM [ARGS...]\n");
        return 125;
    }
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 ||
        prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) != 0) {
        perror("deny_io_uring: seccomp");
        return 125;
    }
    execvp(argv[1], argv + 1);
    perror("deny_io_uring: exec");
    return 125;
}
