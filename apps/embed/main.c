/*
 * A host with a main loop and signals of its own, and Shoal's cores beside it: counts the words
 * that come on standard input, a word to a line, and says after each how often it has come.
 *
 *   poll() -- stdin: a line -> a call to the core that owns the word (table.c)
 *          -- the port: drain, print
 *          -- the host's own signals, by a pipe
 *          -- the runtime has ended
 *
 * Input is read only while there is room for more calls: a slow core slows its sender down.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include <fcntl.h>
#include <poll.h>
#include <shoal/shoal.h>
#include <unistd.h>

#include "table.h"

#define CALLS_MAX 128

/* A call under way; the core reads it, so that it stays until the outcome has come. */
struct job {
    struct job *next_free;
    char word[WORD_MAX];
};

static struct {
    struct shoal_embed *runtime;
    struct shoal_foreign_port *port;
    struct job jobs[CALLS_MAX];
    struct job *free;
    char line[WORD_MAX]; /* what has been read of the next word */
    size_t line_size;
    char input[4096];
    size_t input_at, input_size;
    bool input_ended;
    bool stopping;
    int signals[2];
} host;

/* ---- Signals ---- */

static void on_signal(int number)
{
    int saved_errno = errno;
    unsigned char byte = (unsigned char)number;
    ssize_t rc = write(host.signals[1], &byte, 1);
    (void)rc; /* a full pipe: one that nobody has read is as good */
    errno = saved_errno;
}

static int catch_signals(void)
{
    struct sigaction action;
    memset(&action, 0, sizeof(action));
    action.sa_handler = on_signal;
    if (pipe2(host.signals, O_CLOEXEC | O_NONBLOCK) != 0)
        return -errno;
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    return 0;
}

static void take_signals(void)
{
    unsigned char number;
    while (read(host.signals[0], &number, 1) == 1) {
        fprintf(stderr, "shoal-embed: the host got signal %d\n", number);
        host.input_ended = true;
    }
}

/* ---- Calls ---- */

static bool has_room(void)
{
    return host.free != NULL;
}

static int submit_word(const char *word, size_t size)
{
    struct job *job = host.free;
    memcpy(job->word, word, size);
    job->word[size] = '\0';
    const struct shoal_foreign_call call = {
        .fn = table_count,
        .arg = job->word,
        .tag = (uint64_t)(uintptr_t)job,
        .core = table_core_of(job->word, shoal_core_count()),
    };
    int rc = shoal_foreign_port_submit(host.port, &call, 1);
    if (rc < 0)
        return rc;
    host.free = job->next_free;
    return 0;
}

static void take_outcomes(void)
{
    struct shoal_foreign_outcome outcomes[32];
    int count = shoal_foreign_port_drain(host.port, outcomes, 32);
    for (int i = 0; i < count; i++) {
        struct job *job = (struct job *)(uintptr_t)outcomes[i].tag;
        if (outcomes[i].code < 0)
            printf("%s: %s\n", job->word, shoal_error_text(outcomes[i].code));
        else
            printf("%s %llu\n", job->word, (unsigned long long)outcomes[i].value.u64);
        job->next_free = host.free;
        host.free = job;
    }
    fflush(stdout);
}

/* ---- Input ---- */

/* Takes words out of what has been read, while there is room. 0 or a negative code. */
static int take_words(void)
{
    while (host.input_at < host.input_size && has_room()) {
        char byte = host.input[host.input_at++];
        if (byte != '\n') {
            if (host.line_size < sizeof(host.line) - 1) /* what is too long is cut */
                host.line[host.line_size++] = byte;
            continue;
        }
        int rc = host.line_size > 0 ? submit_word(host.line, host.line_size) : 0;
        host.line_size = 0;
        if (rc < 0)
            return rc;
    }
    return 0;
}

static void read_input(void)
{
    ssize_t size = read(STDIN_FILENO, host.input, sizeof(host.input));
    if (size < 0 && (errno == EINTR || errno == EAGAIN))
        return;
    host.input_at = 0;
    host.input_size = size > 0 ? (size_t)size : 0;
    if (size <= 0)
        host.input_ended = true;
}

/* ---- The loop ---- */

static void stop_when_done(void)
{
    bool all_read = host.input_ended && host.input_at == host.input_size;
    if (host.stopping || !all_read || shoal_foreign_port_in_flight(host.port) > 0)
        return;
    host.stopping = true;
    shoal_embed_stop(host.runtime);
}

/* Until the runtime has ended. 0 or a negative code. */
static int loop(void)
{
    for (;;) {
        bool reads = !host.input_ended && host.input_at == host.input_size;
        struct pollfd fds[] = {
            {.fd = shoal_foreign_port_fd(host.port), .events = POLLIN},
            {.fd = host.signals[0], .events = POLLIN},
            {.fd = shoal_embed_fd(host.runtime), .events = POLLIN},
            {.fd = reads ? STDIN_FILENO : -1, .events = POLLIN},
        };
        if (poll(fds, 4, -1) < 0 && errno != EINTR)
            return -errno;
        if (fds[2].revents != 0)
            return 0;
        take_signals();
        take_outcomes();
        if (fds[3].revents != 0)
            read_input();
        int rc = host.stopping ? 0 : take_words();
        if (rc < 0)
            return rc;
        stop_when_done();
    }
}

static int run_host(void)
{
    for (int i = 0; i < CALLS_MAX; i++) {
        host.jobs[i].next_free = host.free;
        host.free = &host.jobs[i];
    }
    int rc = shoal_foreign_port_new(&host.port, CALLS_MAX);
    if (rc == 0)
        rc = loop();
    shoal_foreign_port_free(host.port);
    if (rc < 0)
        fprintf(stderr, "shoal-embed: %s\n", shoal_error_text(rc));
    return rc;
}

int main(int argc, char **argv)
{
    if (argc > 1 && strcmp(argv[1], "--help") == 0) {
        printf("Usage: shoal-embed [OPTION]...\nCounts the words on standard input, one a line, on "
               "Shoal's cores; its options are Shoal's.\n");
        return 0;
    }
    struct shoal_embed_failure failure;
    const struct shoal_embed_options options = {
        .words = (const char *const *)argv + 1,
        .setup = table_setup,
    };
    int rc = catch_signals();
    if (rc == 0)
        rc = shoal_embed_start(&host.runtime, &options, &failure);
    else
        return 1;
    if (rc < 0) {
        fprintf(stderr, "shoal-embed: %s\n", failure.text);
        return failure.exit_code;
    }
    rc = run_host();
    int exit_code = 0;
    shoal_embed_stop(host.runtime);
    (void)shoal_embed_wait(host.runtime, SHOAL_NS_FOREVER, &exit_code);
    (void)shoal_embed_free(host.runtime);
    return rc < 0 ? 1 : exit_code;
}
