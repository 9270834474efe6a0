/*
 * Stack overflow of a fiber: a fault inside the guard page of the running fiber is reported by
 * name. Any other fault goes to whoever handled SIGSEGV before.
 *
 * The handler runs on an alternate stack, one a core thread, since the fiber's own is used up.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <sys/mman.h>
#include <unistd.h>

#include "shoal/runtime/backtrace_impl.h"
#include "shoal/runtime/core_impl.h"

#define ALTSTACK_BYTES (64u * 1024)

static struct sigaction previous_segv;
static struct sigaction previous_bus;

static void append(char *line, size_t size, size_t *len, const char *text)
{
    while (*text != '\0' && *len + 1 < size)
        line[(*len)++] = *text++;
}

static void report(const struct shoal_fiber *fiber)
{
    char line[256];
    size_t len = 0;
    append(line, sizeof(line), &len, "shoal: stack overflow in fiber \"");
    append(line, sizeof(line), &len, fiber->name);
    append(line, sizeof(line), &len, "\"\n");
    if (write(STDERR_FILENO, line, len) < 0)
        return;
    shoal_backtrace_write(STDERR_FILENO, 0);
}

static void on_fault(int signal_number, siginfo_t *info, void *context)
{
    const struct shoal_core *core = shoal_core_self;
    const struct shoal_fiber *fiber = core != NULL ? core->fiber : NULL;
    if (fiber != NULL) {
        const char *at = info->si_addr;
        /* A frame may be larger than the guard: what lies just below it counts too. */
        const size_t reach = (size_t)sysconf(_SC_PAGESIZE);
        if (at >= fiber->stack - reach && at < fiber->stack + reach) {
            report(fiber);
            abort();
        }
    }
    const struct sigaction *previous = signal_number == SIGSEGV ? &previous_segv : &previous_bus;
    if ((previous->sa_flags & SA_SIGINFO) != 0 && previous->sa_sigaction != NULL) {
        previous->sa_sigaction(signal_number, info, context);
        return;
    }
    /* Back to the former action; returning repeats the fault under it. */
    sigaction(signal_number, previous, NULL);
}

/* Installed already: the former action stays what it was, or the handler would call itself. */
static void install(int signal_number, const struct sigaction *action, struct sigaction *previous)
{
    struct sigaction found;
    sigaction(signal_number, action, &found);
    if ((found.sa_flags & SA_SIGINFO) == 0 || found.sa_sigaction != on_fault)
        *previous = found;
}

void shoal_fiber_guard_install(void)
{
    struct sigaction action;
    memset(&action, 0, sizeof(action));
    action.sa_sigaction = on_fault;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK;
    sigemptyset(&action.sa_mask);
    install(SIGSEGV, &action, &previous_segv);
    install(SIGBUS, &action, &previous_bus);
}

void *shoal_fiber_guard_thread_begin(void)
{
    stack_t current;
    if (sigaltstack(NULL, &current) == 0 && (current.ss_flags & SS_DISABLE) == 0)
        return NULL; /* a sanitizer or the host has one already */
    void *memory =
        mmap(NULL, ALTSTACK_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        return NULL;
    stack_t stack = {.ss_sp = memory, .ss_size = ALTSTACK_BYTES};
    sigaltstack(&stack, NULL);
    return memory;
}

void shoal_fiber_guard_thread_end(void *altstack)
{
    if (altstack == NULL)
        return;
    stack_t off = {.ss_flags = SS_DISABLE};
    sigaltstack(&off, NULL);
    munmap(altstack, ALTSTACK_BYTES);
}
