/*
 * What fibers wait for each other with: without anybody waiting, and handed from fiber to fiber.
 */
#include <stddef.h>

#include <shoal/shoal.h>

#include "micro.h"

static void semaphore_free(struct micro_watch *watch, uint64_t ops)
{
    struct shoal_semaphore semaphore;
    shoal_semaphore_init(&semaphore, 1);
    micro_start(watch);
    for (uint64_t i = 0; i < ops; i++) {
        (void)shoal_semaphore_acquire(&semaphore, 1, SHOAL_NS_FOREVER);
        shoal_semaphore_release(&semaphore, 1);
    }
    micro_stop(watch, ops);
    shoal_semaphore_deinit(&semaphore);
}

static void mutex_free(struct micro_watch *watch, uint64_t ops)
{
    struct shoal_mutex mutex;
    shoal_mutex_init(&mutex);
    micro_start(watch);
    for (uint64_t i = 0; i < ops; i++) {
        (void)shoal_mutex_lock(&mutex, SHOAL_NS_FOREVER);
        shoal_mutex_unlock(&mutex);
    }
    micro_stop(watch, ops);
    shoal_mutex_deinit(&mutex);
}

struct relay {
    struct shoal_semaphore ping;
    struct shoal_semaphore pong;
    struct shoal_channel channel;
    uint64_t each;
};

static int return_each(void *arg)
{
    struct relay *relay = arg;
    for (uint64_t i = 0; i < relay->each; i++) {
        (void)shoal_semaphore_acquire(&relay->ping, 1, SHOAL_NS_FOREVER);
        shoal_semaphore_release(&relay->pong, 1);
    }
    return 0;
}

static void semaphore_handed(struct micro_watch *watch, uint64_t ops)
{
    struct relay relay = {.each = ops / 2 + 1};
    struct shoal_fiber *fiber;
    shoal_semaphore_init(&relay.ping, 0);
    shoal_semaphore_init(&relay.pong, 0);
    if (shoal_fiber_spawn(&fiber, return_each, &relay, "returner") != 0)
        return;
    micro_start(watch);
    for (uint64_t i = 0; i < relay.each; i++) {
        shoal_semaphore_release(&relay.ping, 1);
        (void)shoal_semaphore_acquire(&relay.pong, 1, SHOAL_NS_FOREVER);
    }
    micro_stop(watch, relay.each * 2);
    (void)shoal_fiber_join(fiber);
    shoal_semaphore_deinit(&relay.ping);
    shoal_semaphore_deinit(&relay.pong);
}

static int send_each(void *arg)
{
    struct relay *relay = arg;
    for (uint64_t i = 0; i < relay->each; i++)
        (void)shoal_channel_send(&relay->channel, &i, SHOAL_NS_FOREVER);
    return 0;
}

static void channel_through(struct micro_watch *watch, uint64_t ops, uint32_t capacity)
{
    const struct shoal_channel_options options = {.item_bytes = sizeof(uint64_t),
                                                  .capacity = capacity};
    struct relay relay = {.each = ops};
    struct shoal_fiber *fiber;
    if (shoal_channel_init(&relay.channel, &options) != 0)
        return;
    if (shoal_fiber_spawn(&fiber, send_each, &relay, "sender") == 0) {
        uint64_t item;
        micro_start(watch);
        for (uint64_t i = 0; i < ops; i++)
            (void)shoal_channel_receive(&relay.channel, &item, SHOAL_NS_FOREVER);
        micro_stop(watch, ops);
        (void)shoal_fiber_join(fiber);
    }
    shoal_channel_deinit(&relay.channel);
}

static void channel_64(struct micro_watch *watch, uint64_t ops)
{
    channel_through(watch, ops, 64);
}

static void channel_0(struct micro_watch *watch, uint64_t ops)
{
    channel_through(watch, ops, 0);
}

const struct micro_case micro_sync_cases[] = {
    {"semaphore", "a unit acquired and released, nobody waits", semaphore_free, micro_limit_call,
     "an indirect call", 0},
    {"semaphore-handed", "a unit handed to a fiber that waits", semaphore_handed,
     micro_limit_switch, "one register switch, indirect jump", 0},
    {"mutex", "locked and unlocked, nobody waits", mutex_free, micro_limit_call, "an indirect call",
     0},
    {"channel", "a message through a channel of 64", channel_64, micro_limit_queue,
     "run queue and indirect call", 0},
    {"channel-0", "a message handed from fiber to fiber", channel_0, micro_limit_switch,
     "one register switch, indirect jump", 0},
    {.name = NULL},
};
