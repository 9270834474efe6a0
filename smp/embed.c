/*
 * The runtime inside a host: see embed.h. The same start and stop as a program's (launch.c), on a
 * thread that becomes core 0; here is what the host's threads and that one tell each other.
 *
 *   STARTING -> RUNNING (setup has returned) -> ENDED (all cores have been joined)
 *        `-----------------------------------------^   the start has failed
 *
 * `lock` guards the state and what follows it. A core takes it, too, for some instructions: nobody
 * holds it while it waits for anything else.
 */
#include "shoal/smp/embed.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include <pthread.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "shoal/runtime/check.h"
#include "shoal/runtime/errors.h"
#include "shoal/runtime/fault_impl.h"
#include "shoal/runtime/future.h"
#include "shoal/runtime/stall_impl.h"

#include "shoal/smp/launch_impl.h"

#define WORDS_OWN_MAX 6
#define WORDS_MAX     256

enum state { STARTING, RUNNING, ENDED };

static const int borrowed[] = {SIGSEGV, SIGBUS, -1, -2}; /* SIGRTMIN + 1, + 2 */

struct shoal_embed {
    struct shoal_launch launch;
    struct shoal_program program;
    struct shoal_embed_options options;
    char *words; /* the copy that options of the program point into */
    size_t words_bytes;
    char **argv;
    int argc;
    pthread_t thread;
    unsigned forks;
    int event_fd;
    struct sigaction actions[SHOAL_ARRAY_SIZE(borrowed)];

    pthread_mutex_t lock;
    pthread_cond_t changed;
    enum state state;
    bool stoppable; /* core 0 takes what asks for a stop */
    int rc;         /* of the start */
    char text[SHOAL_EMBED_TEXT_MAX];
};

/* ---- Signals ---- */

static int number_of(int borrowed_signal)
{
    return borrowed_signal > 0 ? borrowed_signal : SIGRTMIN - borrowed_signal;
}

static void save_actions(struct shoal_embed *embed)
{
    for (size_t i = 0; i < SHOAL_ARRAY_SIZE(borrowed); i++)
        sigaction(number_of(borrowed[i]), NULL, &embed->actions[i]);
}

static void restore_actions(const struct shoal_embed *embed)
{
    for (size_t i = 0; i < SHOAL_ARRAY_SIZE(borrowed); i++)
        sigaction(number_of(borrowed[i]), &embed->actions[i], NULL);
}

/* What cores let through: faults of their own, and with diagnostics what asks them for reports. */
static void core_mask(const struct shoal_embed *embed, sigset_t *mask)
{
    static const int faults[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGSYS, SIGABRT};
    sigfillset(mask);
    for (size_t i = 0; i < SHOAL_ARRAY_SIZE(faults); i++)
        sigdelset(mask, faults[i]);
    if (embed->options.diagnostics) {
        sigdelset(mask, SHOAL_STALL_SIGNAL);
        sigdelset(mask, SHOAL_PROBE_SIGNAL);
    }
}

/* ---- Core 0 ---- */

static void move_to(struct shoal_embed *embed, enum state state)
{
    pthread_mutex_lock(&embed->lock);
    embed->state = state;
    embed->stoppable = state == RUNNING;
    pthread_cond_broadcast(&embed->changed);
    pthread_mutex_unlock(&embed->lock);
}

static void take_text(struct shoal_embed *embed, const char *text)
{
    pthread_mutex_lock(&embed->lock);
    snprintf(embed->text, sizeof(embed->text), "%s", text);
    pthread_mutex_unlock(&embed->lock);
}

/* A function of the host's has returned `rc`: why, if it failed. */
static void explain(struct shoal_embed *embed, int rc)
{
    const char *text = embed->launch.error; /* of shoal_config_error() */
    if (rc >= 0)
        return;
    if (text[0] == '\0')
        text = shoal_error_message();
    if (text[0] == '\0')
        text = shoal_error_text(rc);
    take_text(embed, text);
}

/* What a program's `run` is: on core 0's first fiber. */
static int embed_run(void *arg)
{
    struct shoal_embed *embed = arg;
    const struct shoal_embed_options *options = &embed->options;
    int rc = options->setup != NULL ? options->setup(options->arg) : 0;
    if (rc < 0) {
        explain(embed, rc);
        embed->rc = rc;
        return rc;
    }
    move_to(embed, RUNNING);
    rc = options->run != NULL ? options->run(options->arg) : shoal_stop_wait();
    explain(embed, rc);
    pthread_mutex_lock(&embed->lock);
    embed->stoppable = false;
    pthread_mutex_unlock(&embed->lock);
    return rc;
}

static void stop_hangs(struct shoal_launch *launch)
{
    take_text(SHOAL_CONTAINER_OF(launch, struct shoal_embed, launch),
              "the stop waits for fibers or calls that do not end although they were cancelled: "
              "the log names them");
}

static void *core0_main(void *arg)
{
    struct shoal_embed *embed = arg;
    const bool diagnostics = embed->options.diagnostics;
    if (diagnostics)
        save_actions(embed);
    int rc = shoal_launch_run(&embed->launch);
    shoal_fault_disarm(NULL);
    if (diagnostics)
        restore_actions(embed);
    if (rc < 0) {
        embed->rc = rc;
        take_text(embed, embed->launch.error);
    }
    const uint64_t one = 1;
    ssize_t written = write(embed->event_fd, &one, sizeof(one));
    SHOAL_CHECK(written == sizeof(one), "eventfd: %s", strerror(errno));
    move_to(embed, ENDED);
    return NULL;
}

/* ---- The command line ---- */

static bool answers_user(const char *word)
{
    return strcmp(word, "--help") == 0 || strcmp(word, "--version") == 0;
}

/* Copies all words into one block, behind the pointers to them. 0, -ENOMEM or SHOAL_EOPTION. */
static int copy_words(struct shoal_embed *embed, const char *const *own, int own_count, char *error,
                      size_t error_size)
{
    const char *all[WORDS_MAX];
    size_t bytes = 0;
    int count = 0;
    for (; count < own_count; count++)
        all[count] = own[count];
    for (const char *const *word = embed->options.words; word != NULL && *word != NULL; word++) {
        if (count == WORDS_MAX || answers_user(*word)) {
            if (count == WORDS_MAX)
                snprintf(error, error_size, "more than %d words of options", WORDS_MAX);
            else
                snprintf(error, error_size, "%s: an embedded runtime does not answer it", *word);
            return SHOAL_EOPTION;
        }
        all[count++] = *word;
    }
    for (int i = 0; i < count; i++)
        bytes += strlen(all[i]) + 1;
    embed->words_bytes = (size_t)(count + 1) * sizeof(char *) + bytes;
    embed->words = shoal_mem_alloc_zeroed(embed->words_bytes);
    if (embed->words == NULL)
        return -ENOMEM;
    embed->argv = (char **)(void *)embed->words;
    embed->argc = count;
    char *at = embed->words + (size_t)(count + 1) * sizeof(char *);
    for (int i = 0; i < count; i++) {
        size_t size = strlen(all[i]) + 1;
        embed->argv[i] = memcpy(at, all[i], size);
        at += size;
    }
    return 0;
}

static int make_command_line(struct shoal_embed *embed, char *error, size_t error_size)
{
    char cores[16];
    const char *own[WORDS_OWN_MAX] = {"embedded", "--log-level", "warn"};
    int count = 3;
    if (embed->options.cores != 0) {
        snprintf(cores, sizeof(cores), "%u", embed->options.cores);
        own[count++] = "--smp";
        own[count++] = cores;
    }
    return copy_words(embed, own, count, error, error_size);
}

/* ---- Start ---- */

static struct shoal_embed *embed_new(const struct shoal_embed_options *options)
{
    struct shoal_embed *embed = shoal_mem_alloc_aligned(sizeof(*embed), SHOAL_CACHE_LINE);
    if (embed == NULL)
        return NULL;
    memset(embed, 0, sizeof(*embed));
    embed->event_fd = shoal_fault_hit("eventfd") ? -1 : eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (embed->event_fd < 0) {
        shoal_mem_free_aligned(embed, sizeof(*embed), SHOAL_CACHE_LINE);
        return NULL;
    }
    embed->options = *options;
    embed->forks = shoal_foreign_forks();
    embed->program =
        (struct shoal_program){.name = "embedded", .options = options->options, .run = embed_run};
    embed->program.arg = embed;
    embed->launch.program = &embed->program;
    embed->launch.host_signals = true;
    embed->launch.hosted = true;
    embed->launch.diagnostics = options->diagnostics;
    embed->launch.stuck = stop_hangs;
    pthread_mutex_init(&embed->lock, NULL);
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&embed->changed, &attr);
    pthread_condattr_destroy(&attr);
    return embed;
}

static void embed_delete(struct shoal_embed *embed)
{
    pthread_cond_destroy(&embed->changed);
    pthread_mutex_destroy(&embed->lock);
    close(embed->event_fd);
    shoal_mem_free(embed->words, embed->words_bytes);
    shoal_mem_free_aligned(embed, sizeof(*embed), SHOAL_CACHE_LINE);
}

/* The mask is the new thread's from its beginning: it is this thread's while that is made. */
static int make_thread(struct shoal_embed *embed)
{
    sigset_t mask;
    sigset_t before;
    core_mask(embed, &mask);
    pthread_sigmask(SIG_SETMASK, &mask, &before);
    int rc = shoal_fault_hit("thread") ? EAGAIN
                                       : pthread_create(&embed->thread, NULL, core0_main, embed);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return -rc;
}

static int run_thread(struct shoal_embed *embed)
{
    int rc = make_thread(embed);
    if (rc < 0) {
        shoal_launch_drop(&embed->launch);
        snprintf(embed->text, sizeof(embed->text), "core 0 gets no thread: %s",
                 shoal_error_text(rc));
        return rc;
    }
    pthread_mutex_lock(&embed->lock);
    while (embed->state == STARTING)
        pthread_cond_wait(&embed->changed, &embed->lock);
    rc = embed->rc;
    pthread_mutex_unlock(&embed->lock);
    if (rc < 0)
        pthread_join(embed->thread, NULL);
    return rc;
}

static int refuse(struct shoal_embed_failure *failure, int rc, const char *text)
{
    if (failure != NULL) {
        failure->exit_code = rc == SHOAL_EOPTION ? 2 : 1;
        snprintf(failure->text, sizeof(failure->text), "%s",
                 text[0] != '\0' ? text : shoal_error_text(rc));
    }
    return rc;
}

int shoal_embed_start(struct shoal_embed **out, const struct shoal_embed_options *options,
                      struct shoal_embed_failure *failure)
{
    *out = NULL;
    if (shoal_core_self != NULL)
        return refuse(failure, -EBUSY, "a runtime runs in this process already");
    struct shoal_embed *embed = embed_new(options);
    if (embed == NULL)
        return refuse(failure, -ENOMEM, "");
    int rc = make_command_line(embed, embed->text, sizeof(embed->text));
    if (rc == 0) {
        rc = shoal_launch_prepare(&embed->launch, embed->argc, embed->argv);
        if (rc < 0)
            snprintf(embed->text, sizeof(embed->text), "%s", embed->launch.error);
    }
    if (rc == 0)
        rc = run_thread(embed);
    if (rc < 0) {
        (void)refuse(failure, rc, embed->text);
        embed_delete(embed);
        return rc;
    }
    *out = embed;
    return 0;
}

/* ---- Stop ---- */

static bool in_other_process(const struct shoal_embed *embed)
{
    return embed->forks != shoal_foreign_forks();
}

void shoal_embed_stop(struct shoal_embed *embed)
{
    if (in_other_process(embed))
        return;
    pthread_mutex_lock(&embed->lock);
    if (embed->stoppable)
        shoal_stop_post(&embed->launch);
    pthread_mutex_unlock(&embed->lock);
}

static struct timespec time_after_ns(uint64_t ns)
{
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    uint64_t nsec = (uint64_t)at.tv_nsec + ns % SHOAL_NS_PER_S;
    at.tv_sec += (time_t)(ns / SHOAL_NS_PER_S + nsec / SHOAL_NS_PER_S);
    at.tv_nsec = (long)(nsec % SHOAL_NS_PER_S);
    return at;
}

int shoal_embed_wait(struct shoal_embed *embed, uint64_t timeout_ns, int *exit_code)
{
    if (in_other_process(embed))
        return SHOAL_ESTOPPING;
    if (shoal_core_self != NULL)
        return -EDEADLK;
    struct timespec end = {0};
    if (timeout_ns != SHOAL_NS_FOREVER)
        end = time_after_ns(timeout_ns);
    int rc = 0;
    pthread_mutex_lock(&embed->lock);
    while (embed->state != ENDED && rc == 0)
        rc = timeout_ns == SHOAL_NS_FOREVER
                 ? pthread_cond_wait(&embed->changed, &embed->lock)
                 : pthread_cond_timedwait(&embed->changed, &embed->lock, &end);
    bool ended = embed->state == ENDED;
    if (ended && exit_code != NULL)
        *exit_code = embed->launch.exit_code;
    pthread_mutex_unlock(&embed->lock);
    return ended ? 0 : -ETIMEDOUT;
}

int shoal_embed_fd(const struct shoal_embed *embed)
{
    return embed->event_fd;
}

void shoal_embed_text(struct shoal_embed *embed, char *text, size_t size)
{
    pthread_mutex_lock(&embed->lock);
    snprintf(text, size, "%s", embed->text);
    pthread_mutex_unlock(&embed->lock);
}

int shoal_embed_free(struct shoal_embed *embed)
{
    if (embed == NULL)
        return 0;
    if (in_other_process(embed)) { /* the threads and what they hold are the parent's */
        close(embed->event_fd);
        return 0;
    }
    pthread_mutex_lock(&embed->lock);
    bool ended = embed->state == ENDED;
    pthread_mutex_unlock(&embed->lock);
    if (!ended)
        return -EBUSY;
    pthread_join(embed->thread, NULL);
    embed_delete(embed);
    return 0;
}
