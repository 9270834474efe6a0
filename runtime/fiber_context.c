/*
 * The first context of a fiber: for the assembly switch where there is one, and a switch on
 * ucontext elsewhere (slower by a system call a switch, for the signal mask), or everywhere with
 * SHOAL_FIBER_UCONTEXT, so that it can be tested.
 */
#include <stdint.h>
#include <string.h>

#include "shoal/runtime/fiber_impl.h"
#include "shoal/runtime/inspect_impl.h"

#if defined(__x86_64__) && !defined(SHOAL_FIBER_UCONTEXT)

void shoal_fiber_first_pc(void);

const bool shoal_fiber_visits = true;

void *shoal_fiber_context(char *low, size_t bytes, void (*entry)(void *), void *arg)
{
    /* r15 r14 r13 r12 rbx rbp rip, then one word so that the first frame is aligned to 16. */
    void **sp = (void **)(void *)(low + bytes) - 9;
    memset(sp, 0, 9 * sizeof(*sp));
    sp[3] = arg;
    memcpy(&sp[4], &entry, sizeof(entry));
    void (*first)(void) = shoal_fiber_first_pc;
    memcpy(&sp[6], &first, sizeof(first));
    return sp;
}

#elif defined(__aarch64__) && !defined(SHOAL_FIBER_UCONTEXT)

void shoal_fiber_first_pc(void);

const bool shoal_fiber_visits = true;

void *shoal_fiber_context(char *low, size_t bytes, void (*entry)(void *), void *arg)
{
    void **sp = (void **)(void *)(low + bytes) - 20;
    memset(sp, 0, 20 * sizeof(*sp));
    memcpy(&sp[0], &entry, sizeof(entry));
    sp[1] = arg;
    void (*first)(void) = shoal_fiber_first_pc;
    memcpy(&sp[11], &first, sizeof(first));
    return sp;
}

#else

#include <ucontext.h>

const bool shoal_fiber_visits = false;

void shoal_fiber_visit(void *sp, void (*fn)(void *arg), void *arg)
{
    (void)sp;
    fn(arg);
}

const char shoal_fiber_visit_return[1] = "";

/* Lives at the high end of the stack that it describes; `sp` points at it. */
struct portable {
    ucontext_t context;
    void (*entry)(void *);
    void *arg;
};

static void portable_start(unsigned high, unsigned low)
{
    struct portable *p = (struct portable *)(((uintptr_t)high << 16 << 16) | low);
    p->entry(p->arg);
}

void shoal_fiber_switch(void **save_sp, void *load_sp)
{
    ucontext_t here;
    *save_sp = &here;
    swapcontext(&here, load_sp);
}

void *shoal_fiber_context(char *low, size_t bytes, void (*entry)(void *), void *arg)
{
    uintptr_t at = ((uintptr_t)low + bytes - sizeof(struct portable)) & ~(uintptr_t)63;
    struct portable *p = (struct portable *)at;
    p->entry = entry;
    p->arg = arg;
    getcontext(&p->context);
    p->context.uc_stack.ss_sp = low;
    p->context.uc_stack.ss_size = at - (uintptr_t)low;
    p->context.uc_link = NULL;
    makecontext(&p->context, (void (*)(void))portable_start, 2, (unsigned)(at >> 16 >> 16),
                (unsigned)at);
    return p;
}

#endif
