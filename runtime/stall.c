/*
 * The stall detector: see stall_impl.h. Everything in the handler is async-signal-safe.
 */
#include <errno.h>
#include <string.h>

#include <sys/syscall.h>
#include <unistd.h>

#include "shoal/runtime/backtrace_impl.h"
#include "shoal/runtime/core_impl.h"
#include "shoal/runtime/log.h"

#define REPORT_PERIOD_NS SHOAL_NS_PER_S

#ifndef sigev_notify_thread_id
#define sigev_notify_thread_id _sigev_un._tid
#endif

static size_t append_text(char *line, size_t size, size_t len, const char *text)
{
    while (*text != '\0' && len + 1 < size)
        line[len++] = *text++;
    return len;
}

static size_t append_number(char *line, size_t size, size_t len, uint64_t number)
{
    char digits[24];
    size_t n = sizeof(digits);
    digits[--n] = '\0';
    do {
        digits[--n] = (char)('0' + number % 10);
        number /= 10;
    } while (number > 0);
    return append_text(line, size, len, digits + n);
}

static void report(struct shoal_core *core, struct shoal_stall *stall)
{
    char line[256];
    size_t len = append_text(line, sizeof(line), 0, "shoal: core ");
    len = append_number(line, sizeof(line), len, core->id);
    len = append_text(line, sizeof(line), len, " is held for over ");
    len = append_number(line, sizeof(line), len,
                        stall->stalled_ticks * stall->notify_ns / SHOAL_NS_PER_MS);
    len = append_text(line, sizeof(line), len, " ms by ");
    const struct shoal_fiber *fiber = core->fiber;
    if (fiber != NULL) {
        len = append_text(line, sizeof(line), len, "fiber \"");
        len = append_text(line, sizeof(line), len, fiber->name);
        len = append_text(line, sizeof(line), len, "\"");
    } else {
        len = append_text(line, sizeof(line), len, "a task");
    }
    if (stall->suppressed > 0) {
        len = append_text(line, sizeof(line), len, " (reports left out: ");
        len = append_number(line, sizeof(line), len, stall->suppressed);
        len = append_text(line, sizeof(line), len, ")");
    }
    len = append_text(line, sizeof(line), len, "\n");
    if (write(STDERR_FILENO, line, len) < 0)
        return;
    shoal_backtrace_write(STDERR_FILENO, 3);
}

static void on_tick(int signal_number)
{
    (void)signal_number;
    struct shoal_core *core = shoal_core_self;
    if (core == NULL || !core->stall.running)
        return;
    struct shoal_stall *stall = &core->stall;
    uint64_t progress = stall->progress * UINT32_MAX - core->budget; /* differs with each task */
    if (progress != stall->seen_progress) {
        stall->seen_progress = progress;
        stall->stalled_ticks = 0;
        return;
    }
    int saved_errno = errno;
    stall->stalled_ticks++;
    uint64_t now_ns = shoal_clock_system.now_ns(&shoal_clock_system);
    if (now_ns - stall->last_report_ns >= REPORT_PERIOD_NS) {
        report(core, stall);
        stall->last_report_ns = now_ns;
        stall->suppressed = 0;
    } else {
        stall->suppressed++;
    }
    errno = saved_errno;
}

void shoal_stall_install(void)
{
    struct sigaction action;
    memset(&action, 0, sizeof(action));
    action.sa_handler = on_tick;
    action.sa_flags = SA_RESTART | SA_ONSTACK; /* a fiber's stack may be too small for a report */
    sigemptyset(&action.sa_mask);
    sigaction(SHOAL_STALL_SIGNAL, &action, NULL);
}

void shoal_stall_start(struct shoal_core *core, uint64_t notify_ns)
{
    struct shoal_stall *stall = &core->stall;
    memset(stall, 0, sizeof(*stall));
    if (notify_ns == 0)
        return;
    stall->notify_ns = notify_ns;
    struct sigevent event;
    memset(&event, 0, sizeof(event));
    event.sigev_notify = SIGEV_THREAD_ID;
    event.sigev_signo = SHOAL_STALL_SIGNAL;
    event.sigev_notify_thread_id = (pid_t)syscall(SYS_gettid);
    struct timespec period = {.tv_sec = (time_t)(notify_ns / SHOAL_NS_PER_S),
                              .tv_nsec = (long)(notify_ns % SHOAL_NS_PER_S)};
    struct itimerspec spec = {.it_interval = period, .it_value = period};
    if (timer_create(CLOCK_THREAD_CPUTIME_ID, &event, &stall->timer) != 0) {
        SHOAL_WARN("no stall detector on this core: timer_create: %s", strerror(errno));
        return;
    }
    stall->running = true;
    timer_settime(stall->timer, 0, &spec, NULL);
}

void shoal_stall_stop(struct shoal_core *core)
{
    if (!core->stall.running)
        return;
    core->stall.running = false;
    timer_delete(core->stall.timer);
}
