/*
 * Who runs now: what reports (log lines, panics, stalls) need to know of the running code without
 * depending on the reactor or on fibers, which are built on top of them.
 *
 * 1. shoal_context_core is written only by the thread itself, as it becomes or stops being a core.
 * 2. shoal_context_fiber_name is set once, before the first core starts, and never again; readers
 *    therefore need no synchronisation.
 * 3. Both may be read from a signal handler: the TLS block is part of the thread (initial-exec).
 *
 * Rejected: asking the core pointer. It belongs to the reactor, and a log line written while a core
 * is half made or half gone must not look inside it.
 */
#ifndef SHOAL_RUNTIME_CONTEXT_IMPL_H
#define SHOAL_RUNTIME_CONTEXT_IMPL_H

/* Number of the core that this thread is, or -1 on a foreign thread. */
extern _Thread_local int shoal_context_core
    __attribute__((tls_model("initial-exec"), visibility("hidden")));

/*
 * Name of the fiber that runs on this thread, or NULL outside of fibers; valid until the fiber
 * ends. The pointer itself is NULL until the fiber module sets it. Must not allocate or lock.
 */
extern const char *(*shoal_context_fiber_name)(void)__attribute__((visibility("hidden")));

#endif
