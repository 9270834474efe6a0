/*
 * The stall detector: says which task holds its core for too long, with a backtrace of where.
 *
 * A timer on the core thread's CPU clock fires a signal each --blocked-reactor-notify-ms of CPU
 * time that the thread uses. The handler looks whether the loop has moved on since the last tick.
 * Nothing runs on the hot path, and a core that sleeps uses no CPU time and gets no tick. A task
 * that sleeps inside a system call is not seen, since it uses no CPU.
 *
 * At most one report a second and core; the number left out is part of the next report.
 */
#ifndef SHOAL_RUNTIME_STALL_IMPL_H
#define SHOAL_RUNTIME_STALL_IMPL_H

#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <time.h>

struct shoal_core;

#define SHOAL_STALL_SIGNAL (SIGRTMIN + 1)
#define SHOAL_PROBE_SIGNAL (SIGRTMIN + 2) /* asks a thread where it is: smp/inspect.c */

struct shoal_stall {
    timer_t timer;
    bool running;
    uint64_t notify_ns;
    volatile uint64_t progress; /* counts batches of tasks; read by the handler */
    uint64_t seen_progress;
    uint64_t stalled_ticks;
    uint64_t last_report_ns;
    uint64_t suppressed;
};

/* Installs the process's signal handler; once, before the cores start. */
void shoal_stall_install(void);

/* On the core's own thread. Failure to get a timer is logged and leaves the detector off. */
void shoal_stall_start(struct shoal_core *core, uint64_t notify_ns);
void shoal_stall_stop(struct shoal_core *core);

#endif
