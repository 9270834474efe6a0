/*
 * Fuzz target of the channel: senders and receivers of all forms, cancelled and discarded at any
 * time.
 *
 *  1. A message whose send has succeeded is received once, or dropped once at the end; one whose
 *     send has failed never.
 *  2. Messages leave in the order of their sends: when one does, all before it have left, are in
 *     the hands of a future that nobody has looked at yet, or were not sent. One that such a future
 *     gives back is first again.
 *  3. Nobody waits for what is there: no receiver while there is a message, no sender while there
 *     is room.
 *
 * Input: the capacity, then operations of one byte and one operand, see operate().
 */
#include <errno.h>

#include "shoal/runtime/channel.h"
#include "shoal/runtime/errors.h"
#include "shoal/runtime/fiber.h"
#include "shoal/runtime/future.h"

#include "fuzz/fuzz_core.h"

enum { CLIENTS = 12, MESSAGES_MAX = 300, OPERATIONS_MAX = 280 };

enum fate { NEVER, SENDING, SENT, FAILED, RECEIVED, DROPPED };

/* A fiber that sends or receives once, or a future that does. */
struct client {
    struct shoal_fiber *fiber;
    struct shoal_future *future;
    bool receives;
    bool cancelled;
    uint32_t message; /* of a sender */
};

static struct {
    struct shoal_channel channel;
    struct client clients[CLIENTS];
    enum fate fates[MESSAGES_MAX];
    uint32_t messages;
    bool closed;
} run;

/* Messages that futures have been given and nobody has taken. */
static unsigned in_hands(void)
{
    unsigned hands = 0;
    for (unsigned i = 0; i < CLIENTS; i++)
        hands += run.clients[i].receives && run.clients[i].future != NULL &&
                 !shoal_future_is_pending(run.clients[i].future);
    return hands;
}

static void note_sent(uint32_t message, int rc)
{
    if (rc == 0 && run.fates[message] == SENDING)
        run.fates[message] = SENT;
    else if (rc != 0) {
        REQUIRE(run.fates[message] == SENDING);
        run.fates[message] = FAILED;
    }
}

/* A send that succeeded may hear of it only after the message was received. */
static void note_received(uint32_t message)
{
    REQUIRE(message < run.messages);
    REQUIRE(run.fates[message] == SENDING || run.fates[message] == SENT);
    run.fates[message] = RECEIVED;
}

/* Straight out of the channel: nothing that was sent before may be in it. */
static void note_received_in_order(uint32_t message)
{
    unsigned before = 0;
    for (uint32_t i = 0; i < message; i++)
        before += run.fates[i] == SENT;
    REQUIRE(before <= in_hands());
    note_received(message);
}

static void drop_message(void *item)
{
    uint32_t message;
    memcpy(&message, item, sizeof(message));
    REQUIRE(message < run.messages && run.fates[message] == SENT);
    run.fates[message] = DROPPED;
}

static int send_one(void *arg)
{
    struct client *client = arg;
    const int rc = shoal_channel_send(&run.channel, &client->message, SHOAL_NS_FOREVER);
    REQUIRE(rc == 0 || (rc == SHOAL_ECLOSED && run.closed) ||
            (rc == -ECANCELED && client->cancelled));
    note_sent(client->message, rc);
    client->fiber = NULL;
    return 0;
}

static int receive_one(void *arg)
{
    struct client *client = arg;
    uint32_t message;
    const int rc = shoal_channel_receive(&run.channel, &message, SHOAL_NS_FOREVER);
    REQUIRE(rc == 0 || (rc == SHOAL_ECLOSED && run.closed) ||
            (rc == -ECANCELED && client->cancelled));
    if (rc == 0)
        note_received_in_order(message);
    client->fiber = NULL;
    return 0;
}

static void begin(struct client *client, bool receives, bool as_future)
{
    *client = (struct client){.receives = receives};
    if (!receives) {
        client->message = run.messages;
        run.fates[run.messages++] = SENDING;
    }
    if (!as_future) {
        REQUIRE(shoal_fiber_spawn(&client->fiber, receives ? receive_one : send_one, client,
                                  "client") == 0);
        shoal_fiber_detach(client->fiber);
    } else if (receives) {
        client->future = shoal_channel_receive_future(&run.channel, SHOAL_NS_FOREVER);
    } else {
        client->future =
            shoal_channel_send_future(&run.channel, &client->message, SHOAL_NS_FOREVER);
    }
}

static int look_at_future(void *arg)
{
    struct client *client = arg;
    struct shoal_future *future = client->future;
    union shoal_value value;
    uint32_t message;
    const int rc = shoal_await(future, &value); /* ready: does not yield */
    client->future = NULL;
    REQUIRE(rc == 0 || rc == SHOAL_ECLOSED || rc == -ECANCELED);
    if (!client->receives) {
        note_sent(client->message, rc);
    } else if (rc == 0) {
        shoal_channel_take(&value, &message);
        note_received(message);
    }
    return 0;
}

/* Takes what a settled future has, or lets it go back. */
static void finish_future(struct client *client, bool discard)
{
    if (client->future == NULL || shoal_future_is_pending(client->future))
        return;
    if (discard && client->receives) {
        struct shoal_future *future = client->future;
        client->future = NULL;
        shoal_discard(future);
    } else {
        REQUIRE(shoal_fiber_spawn_detached(look_at_future, client, "look") == 0);
    }
}

static void cancel(struct client *client)
{
    client->cancelled = true;
    if (client->fiber != NULL)
        shoal_fiber_cancel(client->fiber);
    if (client->future != NULL)
        shoal_future_cancel(client->future);
}

static void try_send(void)
{
    const uint32_t message = run.messages++;
    run.fates[message] = SENDING;
    const int rc = shoal_channel_try_send(&run.channel, &message);
    REQUIRE(rc == 0 || rc == -EAGAIN || (rc == SHOAL_ECLOSED && run.closed));
    note_sent(message, rc);
}

static void try_receive(void)
{
    uint32_t message;
    const uint64_t length = shoal_channel_length(&run.channel);
    const int rc = shoal_channel_try_receive(&run.channel, &message);
    REQUIRE((rc == 0) == (length > 0));
    if (rc == 0)
        note_received_in_order(message);
}

static void operate(struct fuzz_input *in)
{
    const uint8_t code = fuzz_byte(in);
    struct client *client = &run.clients[fuzz_byte(in) % CLIENTS];
    const bool idle = client->fiber == NULL && client->future == NULL;
    switch (code % 8) {
    case 0:
    case 1:
        if (idle && run.messages < MESSAGES_MAX)
            begin(client, false, code % 8 == 1);
        break;
    case 2:
    case 3:
        if (idle)
            begin(client, true, code % 8 == 3);
        break;
    case 4:
        cancel(client);
        break;
    case 5:
        finish_future(client, (code & 64) != 0);
        break;
    case 6:
        if ((code & 64) == 0)
            try_receive();
        else if (run.messages < MESSAGES_MAX)
            try_send();
        break;
    default:
        if (code >= 250) { /* seldom: little happens after it */
            run.closed = true;
            shoal_channel_close(&run.channel);
        }
        break;
    }
}

static void require_nobody_waits_in_vain(void)
{
    unsigned senders = 0, receivers = 0;
    for (unsigned i = 0; i < CLIENTS; i++) {
        const struct client *client = &run.clients[i];
        const bool waits = client->fiber != NULL ||
                           (client->future != NULL && shoal_future_is_pending(client->future));
        senders += waits && !client->receives;
        receivers += waits && client->receives;
    }
    const uint64_t length = shoal_channel_length(&run.channel);
    REQUIRE(receivers == 0 || length == 0);
    REQUIRE(senders == 0 || (length >= run.channel.capacity && !run.closed && receivers == 0));
}

static void finish(struct shoal_core *core)
{
    for (unsigned i = 0; i < CLIENTS; i++)
        cancel(&run.clients[i]);
    fuzz_core_run(core);
    for (unsigned i = 0; i < CLIENTS; i++)
        finish_future(&run.clients[i], i % 2 == 0);
    fuzz_core_run(core);
    shoal_channel_deinit(&run.channel);
    for (uint32_t i = 0; i < run.messages; i++)
        REQUIRE(run.fates[i] == RECEIVED || run.fates[i] == DROPPED || run.fates[i] == FAILED);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input in = {data, data + size};
    struct shoal_core *core = fuzz_core();
    const uint32_t live_before = shoal_slab_live(&core->hot.futures);
    memset(&run, 0, sizeof(run));
    const struct shoal_channel_options options = {
        .item_bytes = sizeof(uint32_t), .capacity = fuzz_byte(&in) % 5, .drop = drop_message};
    REQUIRE(shoal_channel_init(&run.channel, &options) == 0);
    for (unsigned i = 0; i < OPERATIONS_MAX && fuzz_more(&in); i++) {
        operate(&in);
        fuzz_core_run(core);
        require_nobody_waits_in_vain();
    }
    finish(core);
    REQUIRE(shoal_slab_live(&core->hot.futures) == live_before);
    return 0;
}
