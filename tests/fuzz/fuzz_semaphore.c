/*
 * Fuzz target of the semaphore, beside a queue of numbers.
 *
 *  1. Who has been granted its units, who waits and who was cancelled is as in the model, which
 *     serves strictly in order of arrival.
 *  2. Units are neither lost nor made: free ones, held ones and those of futures that nobody has
 *     looked at yet are as many as there were, whoever is cancelled or discarded and when.
 *
 * Input: the number of units, then operations of one byte and their operands, see operate().
 */
#include <errno.h>

#include "shoal/runtime/fiber.h"
#include "shoal/runtime/future.h"
#include "shoal/runtime/semaphore.h"

#include "fuzz/fuzz_core.h"

enum { CLIENTS = 40, OPERATIONS_MAX = 200 };

enum state { UNUSED, WAITING, HOLDING, ENDED };

struct client {
    enum state state; /* as the model has it */
    uint64_t units;
    unsigned arrival;
    struct shoal_fiber *fiber;   /* while it lives */
    struct shoal_future *gate;   /* a holding fiber waits here before it releases */
    struct shoal_future *future; /* the other form; not consumed yet */
    bool holds;                  /* as it is */
    bool cancelled;
};

static struct {
    struct shoal_semaphore semaphore;
    struct client clients[CLIENTS];
    uint64_t free_units;
    unsigned arrivals;
} run;

/* ---- The model ---- */

static struct client *first_waiting(void)
{
    struct client *first = NULL;
    for (unsigned i = 0; i < CLIENTS; i++) {
        struct client *client = &run.clients[i];
        if (client->state == WAITING && (first == NULL || client->arrival < first->arrival))
            first = client;
    }
    return first;
}

static void model_grant(void)
{
    struct client *first;
    while ((first = first_waiting()) != NULL && first->units <= run.free_units) {
        run.free_units -= first->units;
        first->state = HOLDING;
    }
}

static void model_end(struct client *client)
{
    if (client->state == HOLDING)
        run.free_units += client->units;
    client->state = ENDED;
    model_grant();
}

/* ---- Clients ---- */

static int hold_a_while(void *arg)
{
    struct client *client = arg;
    int rc = shoal_semaphore_acquire(&run.semaphore, client->units, SHOAL_NS_FOREVER);
    REQUIRE(rc == 0 || (rc == -ECANCELED && client->cancelled));
    if (rc == 0) {
        client->holds = true;
        shoal_fiber_shield();
        client->gate = shoal_future_new();
        (void)shoal_await(client->gate, NULL);
        client->gate = NULL;
        shoal_fiber_unshield();
        client->holds = false;
        shoal_semaphore_release(&run.semaphore, client->units);
    }
    client->fiber = NULL;
    return 0;
}

static void arrive(struct client *client, uint64_t units, bool as_future)
{
    *client = (struct client){.state = WAITING, .units = units, .arrival = run.arrivals++};
    if (as_future) {
        client->future = shoal_semaphore_acquire_future(&run.semaphore, units, SHOAL_NS_FOREVER);
    } else {
        REQUIRE(shoal_fiber_spawn(&client->fiber, hold_a_while, client, "holder") == 0);
        shoal_fiber_detach(client->fiber);
    }
    model_grant();
}

static void leave(struct client *client)
{
    if (client->state == HOLDING && client->gate != NULL) {
        shoal_future_resolve(client->gate, NULL);
        model_end(client);
    } else if (client->future != NULL) { /* wherever it is: units that it has go back */
        shoal_discard(client->future);
        client->future = NULL;
        if (client->state == WAITING) { /* nobody asks for it to end: it is served and gives back */
            client->cancelled = true;
            return;
        }
        model_end(client);
    }
}

static void cancel(struct client *client)
{
    if (client->fiber != NULL && client->state == WAITING) {
        client->cancelled = true;
        shoal_fiber_cancel(client->fiber);
        model_end(client);
    } else if (client->future != NULL && client->state == WAITING) {
        shoal_future_cancel(client->future);
        REQUIRE(!shoal_future_is_pending(client->future));
        shoal_discard(client->future);
        client->future = NULL;
        model_end(client);
    }
}

/* ---- Operations ---- */

/* A discarded future that is granted in the model gives back at once. */
static void settle_discarded(void)
{
    bool again = true;
    while (again) {
        again = false;
        for (unsigned i = 0; i < CLIENTS; i++) {
            struct client *client = &run.clients[i];
            if (client->state == HOLDING && client->fiber == NULL && client->future == NULL) {
                model_end(client);
                again = true;
            }
        }
    }
}

static void require_as_modelled(void)
{
    uint32_t waiting = 0;
    settle_discarded();
    for (unsigned i = 0; i < CLIENTS; i++) {
        const struct client *client = &run.clients[i];
        waiting += client->state == WAITING;
        if (client->future != NULL)
            REQUIRE(shoal_future_is_pending(client->future) == (client->state == WAITING));
        else
            REQUIRE(client->holds == (client->state == HOLDING));
    }
    REQUIRE(shoal_semaphore_available(&run.semaphore) == run.free_units);
    REQUIRE(shoal_semaphore_waiting(&run.semaphore) == waiting);
}

static void operate(struct fuzz_input *in)
{
    const uint8_t code = fuzz_byte(in);
    struct client *client = &run.clients[fuzz_byte(in) % CLIENTS];
    const uint64_t units = fuzz_byte(in) % 9;
    const bool idle = client->fiber == NULL && client->future == NULL &&
                      (client->state == UNUSED || client->state == ENDED);
    switch (code % 6) {
    case 0:
    case 1:
        if (idle)
            arrive(client, units, code % 6 == 1);
        break;
    case 2:
        leave(client);
        break;
    case 3:
        cancel(client);
        break;
    case 4:
        if (shoal_semaphore_try_acquire(&run.semaphore, units)) {
            REQUIRE(first_waiting() == NULL && units <= run.free_units);
            shoal_semaphore_release(&run.semaphore, units);
        } else {
            REQUIRE(first_waiting() != NULL || units > run.free_units);
        }
        break;
    default:
        shoal_semaphore_release(&run.semaphore, units);
        run.free_units += units;
        model_grant();
        break;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input in = {data, data + size};
    struct shoal_core *core = fuzz_core();
    const uint32_t live_before = shoal_slab_live(&core->hot.futures);
    memset(&run, 0, sizeof(run));
    run.free_units = fuzz_byte(&in) % 16;
    shoal_semaphore_init(&run.semaphore, run.free_units);
    for (unsigned i = 0; i < OPERATIONS_MAX && fuzz_more(&in); i++) {
        operate(&in);
        fuzz_core_run(core);
        require_as_modelled();
    }
    for (unsigned i = 0; i < CLIENTS; i++) {
        cancel(&run.clients[i]);
        fuzz_core_run(core);
        require_as_modelled();
    }
    for (unsigned i = 0; i < CLIENTS; i++) {
        leave(&run.clients[i]);
        fuzz_core_run(core);
        require_as_modelled();
    }
    shoal_semaphore_release(&run.semaphore, 1000); /* discarded ones that still wait */
    run.free_units += 1000;
    model_grant();
    fuzz_core_run(core);
    require_as_modelled();
    shoal_semaphore_deinit(&run.semaphore);
    REQUIRE(shoal_slab_live(&core->hot.futures) == live_before);
    return 0;
}
