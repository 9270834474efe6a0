/*
 * Service groups: see service_group.h.
 *
 * A group is a row of outboxes and inboxes on each core that uses it, and the table by which the
 * answering side finds a channel. Freeing one goes over all cores four times, by messages of the
 * default group: is nothing in flight; it is no longer found; the answering ends go; the asking
 * ends, which own the channels, go.
 */
#include <errno.h>
#include <string.h>

#include "shoal/runtime/check.h"
#include "shoal/runtime/clock.h"

#include "shoal/smp/mailbox_impl.h"

static size_t channels_bytes(const struct shoal_fleet *fleet)
{
    return (size_t)fleet->cores * fleet->cores * sizeof(_Atomic(struct shoal_mail_channel *));
}

static uint32_t power_of_two(unsigned at_least)
{
    return at_least <= 1 ? 1 : UINT32_C(1) << (32 - __builtin_clz(at_least - 1));
}

/* ---- Making ---- */

/* Gives `group` a number. 0 or -ENOSPC. */
static int enlist(struct shoal_fleet *fleet, struct shoal_service_group *group)
{
    int rc = -ENOSPC;
    pthread_mutex_lock(&fleet->groups_lock);
    for (unsigned id = 1; id < SHOAL_SERVICE_GROUPS_MAX && rc < 0; id++) {
        if (fleet->group_used[id])
            continue;
        fleet->group_used[id] = true;
        group->id = id;
        /* release: pairs with the acquire load in shoal_fleet_group(). */
        atomic_store_explicit(&fleet->groups[id], group, memory_order_release);
        rc = 0;
    }
    pthread_mutex_unlock(&fleet->groups_lock);
    return rc;
}

static void group_free(const struct shoal_fleet *fleet, struct shoal_service_group *group)
{
    shoal_mem_free((void *)group->channels, channels_bytes(fleet));
    shoal_mem_free(group, sizeof(*group));
}

int shoal_service_group_new(struct shoal_service_group **out, const char *name,
                            unsigned in_flight_max)
{
    struct shoal_mail *mail = shoal_mail_self();
    if (in_flight_max == 0 || in_flight_max > SHOAL_SERVICE_IN_FLIGHT_MAX)
        return -EINVAL;
    struct shoal_service_group *group = shoal_mem_alloc_zeroed(sizeof(*group));
    if (group == NULL)
        return -ENOMEM;
    group->in_flight_max = in_flight_max;
    group->slots = power_of_two(in_flight_max);
    group->home = mail->core->id;
    size_t length = strnlen(name, SHOAL_SERVICE_GROUP_NAME_MAX);
    memcpy(group->name, name, length);
    group->channels = shoal_mem_alloc_zeroed(channels_bytes(mail->fleet));
    int rc = group->channels != NULL ? enlist(mail->fleet, group) : -ENOMEM;
    if (rc < 0) {
        group_free(mail->fleet, group);
        return rc;
    }
    shoal_list_push_back(&mail->own_groups, &group->node);
    *out = group;
    return 0;
}

/* ---- Freeing ---- */

static int check_idle(void *arg, union shoal_value *out)
{
    const struct shoal_service_group *group = arg;
    const struct shoal_mail *mail = shoal_mail_self();
    const struct shoal_mail_row *row = &mail->rows[group->id];
    (void)out;
    for (unsigned i = 0; row->outboxes != NULL && i < mail->cores; i++)
        if (shoal_outbox_in_flight(row->outboxes[i]) > 0)
            return -EBUSY;
    return 0;
}

static int drop_inboxes(void *arg, union shoal_value *out)
{
    const struct shoal_service_group *group = arg;
    struct shoal_mail *mail = shoal_mail_self();
    struct shoal_mail_row *row = &mail->rows[group->id];
    (void)out;
    shoal_mail_verify(mail);
    for (unsigned i = 0; row->inboxes != NULL && i < mail->cores; i++)
        if (row->inboxes[i] != NULL)
            shoal_inbox_free(mail, row->inboxes[i]);
    shoal_mem_free((void *)row->inboxes, mail->cores * sizeof(struct shoal_inbox *));
    row->inboxes = NULL;
    return 0;
}

static int drop_outboxes(void *arg, union shoal_value *out)
{
    const struct shoal_service_group *group = arg;
    struct shoal_mail *mail = shoal_mail_self();
    struct shoal_mail_row *row = &mail->rows[group->id];
    (void)out;
    shoal_mail_verify(mail);
    for (unsigned i = 0; row->outboxes != NULL && i < mail->cores; i++)
        if (row->outboxes[i] != NULL)
            shoal_outbox_free(mail, row->outboxes[i]);
    shoal_mem_free((void *)row->outboxes, mail->cores * sizeof(struct shoal_outbox *));
    row->outboxes = NULL;
    return 0;
}

static int drop_group(void *arg, union shoal_value *out)
{
    struct shoal_service_group *group = arg;
    struct shoal_fleet *fleet = shoal_mail_self()->fleet;
    (void)out;
    shoal_list_remove(&group->node);
    pthread_mutex_lock(&fleet->groups_lock);
    fleet->group_used[group->id] = false;
    pthread_mutex_unlock(&fleet->groups_lock);
    group_free(fleet, group);
    return 0;
}

/*
 * Runs `step` on a core, come what may: without memory for the message, a little later. On a fiber,
 * since a plain function is called while the core goes through its rings.
 */
static int step_on(unsigned core, shoal_submit_fiber_fn *step, struct shoal_service_group *group)
{
    int rc;
    while ((rc = shoal_await(shoal_submit_fiber_to(core, step, group), NULL)) == -ENOMEM)
        (void)shoal_sleep_ns(SHOAL_NS_PER_MS);
    return rc;
}

/* Returns the first failure. */
static int step_on_all(shoal_submit_fiber_fn *step, struct shoal_service_group *group)
{
    int rc = 0;
    for (unsigned i = 0; rc == 0 && i < shoal_mail_self()->cores; i++)
        rc = step_on(i, step, group);
    return rc;
}

int shoal_service_group_free(struct shoal_service_group *group)
{
    if (group == NULL)
        return 0;
    struct shoal_fleet *fleet = shoal_mail_self()->fleet;
    SHOAL_CHECK(group != &fleet->default_group, "the default service group is not freed");
    shoal_fiber_shield(); /* and so no deadline holds for the steps: all are done, or none */
    int rc = step_on_all(check_idle, group);
    if (rc == 0) {
        /* No core makes an inbox of it from here on: each has taken up the message of the next
         * step, which orders this before. */
        atomic_store_explicit(&fleet->groups[group->id], NULL, memory_order_release);
        (void)step_on_all(drop_inboxes, group);
        (void)step_on_all(drop_outboxes, group);
        (void)step_on(group->home, drop_group, group);
    }
    shoal_fiber_unshield();
    return rc;
}

void shoal_service_groups_deinit(struct shoal_mail *mail)
{
    struct shoal_list *node;
    while ((node = shoal_list_take_front(&mail->own_groups)) != NULL)
        group_free(mail->fleet, SHOAL_CONTAINER_OF(node, struct shoal_service_group, node));
}

/* ---- Asking about one ---- */

const char *shoal_service_group_name(const struct shoal_service_group *group)
{
    return group->name;
}

unsigned shoal_service_group_in_flight_max(const struct shoal_service_group *group)
{
    return group->in_flight_max;
}

unsigned shoal_service_group_in_flight(const struct shoal_service_group *group, unsigned core)
{
    const struct shoal_mail *mail = shoal_mail_self();
    if (core >= mail->cores)
        return 0;
    struct shoal_outbox **outboxes = mail->rows[group != NULL ? group->id : 0].outboxes;
    return outboxes != NULL ? shoal_outbox_in_flight(outboxes[core]) : 0;
}
