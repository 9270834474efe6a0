/*
 * The failure injector: see fault.h for the contract, fault_impl.h for how it stays out of the way.
 */
#include "shoal/runtime/fault.h"

#include <stdio.h>
#include <string.h>

#include <unistd.h>

#include "shoal/runtime/backtrace_impl.h"
#include "shoal/runtime/core_impl.h"
#include "shoal/runtime/errors.h"
#include "shoal/runtime/fault_impl.h"
#include "shoal/runtime/log.h"

#define MILLION       1000000u
#define PLAN_TEXT_MAX 200
#define SKIP_FRAMES   2 /* of a backtrace: this file's */

_Thread_local bool shoal_fault_armed;

static _Thread_local struct fault_state {
    struct shoal_fault_plan plan;
    struct shoal_fault_stats stats;
    uint64_t random;
    bool busy; /* reporting: what that allocates is not counted */
    struct shoal_poller poller;
} fault __attribute__((tls_model("initial-exec")));

/* ---- Deciding ---- */

/* splitmix64 */
static uint64_t next_random(uint64_t *state)
{
    uint64_t z = *state += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

static bool decide(struct fault_state *state)
{
    const struct shoal_fault_plan *plan = &state->plan;
    uint64_t number = ++state->stats.asked;
    uint64_t in_a_row = plan->count != 0 ? plan->count : 1;
    if (plan->nth != 0 && number >= plan->nth && number - plan->nth < in_a_row)
        return true;
    return plan->chance_ppm != 0 && next_random(&state->random) % MILLION < plan->chance_ppm;
}

bool shoal_fault_count(const char *what, size_t bytes)
{
    struct fault_state *state = &fault;
    if (state->busy || !decide(state))
        return false;
    state->stats.failed++;
    if (state->plan.verbose) {
        state->busy = true;
        SHOAL_WARN("allocation %llu (%s, %zu bytes) fails on purpose",
                   (unsigned long long)state->stats.asked, what, bytes);
        if (state->stats.failed == 1)
            shoal_backtrace_write(STDERR_FILENO, SKIP_FRAMES);
        state->busy = false;
    }
    return true;
}

bool shoal_fault_hit(const char *what)
{
    return shoal_fault_alloc(what, 0);
}

/* ---- Hiding free objects from inline takes ---- */

static void hide_free_objects(const struct shoal_core *core)
{
    SHOAL_LIST_FOREACH (node, &core->mem.slabs)
        shoal_slab_hide(SHOAL_CONTAINER_OF(node, struct shoal_slab, registered));
}

static bool poll_hide(struct shoal_poller *poller)
{
    (void)poller;
    hide_free_objects(shoal_core_self);
    return false;
}

static bool nothing_pending(struct shoal_poller *poller)
{
    (void)poller;
    return false;
}

void shoal_fault_attach(void)
{
    struct shoal_core *core = shoal_core_self;
    if (!shoal_fault_armed || core == NULL || fault.poller.poll != NULL)
        return;
    fault.poller.poll = poll_hide;
    fault.poller.pending = nothing_pending;
    shoal_list_push_back(&core->pollers, &fault.poller.node);
    hide_free_objects(core);
}

void shoal_fault_arm(const struct shoal_fault_plan *plan)
{
    fault.plan = *plan;
    fault.stats = (struct shoal_fault_stats){0};
    fault.random = plan->seed;
    if (plan->verbose)
        shoal_backtrace_init();
    shoal_fault_armed = true;
    shoal_fault_attach();
}

void shoal_fault_disarm(struct shoal_fault_stats *out)
{
    shoal_fault_armed = false;
    if (fault.poller.poll != NULL) {
        shoal_list_remove(&fault.poller.node);
        fault.poller.poll = NULL;
    }
    if (out != NULL)
        *out = fault.stats;
    fault.stats = (struct shoal_fault_stats){0};
}

/* ---- Plans as text ---- */

static bool read_number(const char *text, uint64_t *out)
{
    uint64_t value = 0;
    if (text[0] == '\0' || strlen(text) > 19)
        return false;
    for (; *text != '\0'; text++) {
        if (*text < '0' || *text > '9')
            return false;
        value = value * 10 + (uint64_t)(*text - '0');
    }
    *out = value;
    return true;
}

/* 0 to 1 with up to six decimals, into millionths. */
static bool read_chance(const char *text, uint32_t *out)
{
    if (text[0] != '0' && text[0] != '1')
        return false;
    uint32_t value = text[0] == '1' ? MILLION : 0;
    uint32_t place = MILLION / 10;
    if (text[1] != '\0' && (text[1] != '.' || text[2] == '\0'))
        return false;
    for (const char *at = text[1] == '.' ? text + 2 : text + 1; *at != '\0'; at++, place /= 10) {
        if (*at < '0' || *at > '9' || place == 0)
            return false;
        value += (uint32_t)(*at - '0') * place;
    }
    *out = value;
    return value <= MILLION;
}

static bool read_entry(const char *entry, struct shoal_fault_plan *plan, int *core)
{
    uint64_t number;
    if (strncmp(entry, "p=", 2) == 0)
        return read_chance(entry + 2, &plan->chance_ppm);
    const char *value = strchr(entry, '=');
    if (value == NULL || !read_number(value + 1, &number))
        return false;
    if (strncmp(entry, "nth=", 4) == 0)
        plan->nth = number;
    else if (strncmp(entry, "count=", 6) == 0)
        plan->count = number;
    else if (strncmp(entry, "seed=", 5) == 0)
        plan->seed = number;
    else if (strncmp(entry, "core=", 5) == 0 && number <= UINT16_MAX)
        *core = (int)number;
    else
        return false;
    return true;
}

int shoal_fault_parse(const char *text, struct shoal_fault_plan *out, int *core, char *error,
                      size_t error_size)
{
    static const char allowed[] =
        "allowed: nth=N and count=N, or p=CHANCE and seed=N, and core=N, with commas between";
    char copy[PLAN_TEXT_MAX];
    struct shoal_fault_plan plan = {.seed = 1};
    *core = -1;
    bool good = strlen(text) < sizeof(copy);
    snprintf(copy, sizeof(copy), "%s", text);
    char *next = copy;
    while (good && next != NULL) {
        const char *entry = next;
        next = strchr(next, ',');
        if (next != NULL)
            *next++ = '\0';
        good = read_entry(entry, &plan, core);
    }
    if (!good || (plan.nth == 0 && plan.chance_ppm == 0)) {
        snprintf(error, error_size, "--fail-alloc: \"%.100s\" is no plan (%s)", text, allowed);
        return SHOAL_EOPTION;
    }
    *out = plan;
    return 0;
}
