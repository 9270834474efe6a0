/*
 * Channels between cores: what a core does for all its ends, with its looks at messages, before it
 * sleeps, and at the end. See core_channel_impl.h.
 *
 * A look is O(what was used since the last one, and what somebody waits for).
 */
#include <errno.h>

#include "shoal/smp/core_channel_impl.h"
#include "shoal/smp/launch_impl.h"

void shoal_core_channel_post(unsigned to, struct shoal_task *task)
{
    shoal_core_post_foreign(shoal_launch_current->fleet.core[to], task);
}

/* Gives back what was received, and verifies what was sent. */
static void settle(struct shoal_core_channels *mine)
{
    while (shoal_list_linked(&mine->owing))
        shoal_core_inlet_settle(
            SHOAL_CONTAINER_OF(mine->owing.next, struct shoal_core_inlet, owing));
    while (shoal_list_linked(&mine->unverified))
        shoal_core_sender_verify(
            SHOAL_CONTAINER_OF(mine->unverified.next, struct shoal_core_sender, unverified));
}

static bool poll(struct shoal_poller *poller)
{
    struct shoal_core_channels *mine =
        SHOAL_CONTAINER_OF(poller, struct shoal_core_channels, poller);
    bool any = false;
    SHOAL_LIST_FOREACH_SAFE (node, &mine->hungry_channels)
        any |= shoal_core_channel_look(SHOAL_CONTAINER_OF(node, struct shoal_core_channel, hungry));
    SHOAL_LIST_FOREACH_SAFE (node, &mine->hungry_senders)
        any |= shoal_core_sender_look(SHOAL_CONTAINER_OF(node, struct shoal_core_sender, hungry));
    settle(mine);
    return any;
}

/* The last look before the core sleeps. */
static bool pending(struct shoal_poller *poller)
{
    struct shoal_core_channels *mine =
        SHOAL_CONTAINER_OF(poller, struct shoal_core_channels, poller);
    bool any = false;
    settle(mine);
    SHOAL_LIST_FOREACH (node, &mine->hungry_channels)
        any |=
            shoal_core_channel_cease(SHOAL_CONTAINER_OF(node, struct shoal_core_channel, hungry));
    SHOAL_LIST_FOREACH (node, &mine->hungry_senders)
        any |= shoal_core_sender_ask(SHOAL_CONTAINER_OF(node, struct shoal_core_sender, hungry));
    return any;
}

void shoal_core_channels_quit(struct shoal_core *core)
{
    struct shoal_core_channels *mine = core->layers[SHOAL_LAYER_CORE_CHANNEL];
    if (mine == NULL || mine->over)
        return;
    mine->over = true;
    struct shoal_list left; /* what is dropped may be the last that knew of another channel */
    shoal_list_init(&left);
    shoal_list_splice(&left, &mine->channels);
    struct shoal_list *next;
    while ((next = shoal_list_take_front(&left)) != NULL) {
        shoal_list_push_back(&mine->channels, next);
        shoal_core_channel_quit(SHOAL_CONTAINER_OF(next, struct shoal_core_channel, node));
    }
    SHOAL_LIST_FOREACH (node, &mine->senders)
        shoal_core_sender_quit(SHOAL_CONTAINER_OF(node, struct shoal_core_sender, node));
}

/* Every other core has ended its loop, too, and only frees what is its own. */
static void end(struct shoal_core *core)
{
    struct shoal_core_channels *mine = core->layers[SHOAL_LAYER_CORE_CHANNEL];
    shoal_core_channels_quit(core);
    while (shoal_list_linked(&mine->channels))
        shoal_core_channel_destroy(
            SHOAL_CONTAINER_OF(mine->channels.next, struct shoal_core_channel, node));
    while (shoal_list_linked(&mine->senders))
        shoal_core_sender_destroy(
            SHOAL_CONTAINER_OF(mine->senders.next, struct shoal_core_sender, node));
    shoal_list_remove(&mine->poller.node);
    core->layers[SHOAL_LAYER_CORE_CHANNEL] = NULL;
    core->layer_end[SHOAL_LAYER_CORE_CHANNEL] = NULL;
    shoal_mem_free(mine, sizeof(*mine));
}

struct shoal_core_channels *shoal_core_channels_get(void)
{
    SHOAL_CHECK_ON_CORE("the making of an end of a core channel");
    struct shoal_core *core = shoal_core_self;
    struct shoal_core_channels *mine = core->layers[SHOAL_LAYER_CORE_CHANNEL];
    if (mine != NULL)
        return mine;
    mine = shoal_mem_alloc_zeroed(sizeof(*mine));
    if (mine == NULL)
        return NULL;
    shoal_list_init(&mine->channels);
    shoal_list_init(&mine->senders);
    shoal_list_init(&mine->hungry_channels);
    shoal_list_init(&mine->hungry_senders);
    shoal_list_init(&mine->owing);
    shoal_list_init(&mine->unverified);
    mine->poller.poll = poll;
    mine->poller.pending = pending;
    shoal_list_push_back(&core->pollers, &mine->poller.node);
    core->layers[SHOAL_LAYER_CORE_CHANNEL] = mine;
    core->layer_end[SHOAL_LAYER_CORE_CHANNEL] = end;
    return mine;
}
