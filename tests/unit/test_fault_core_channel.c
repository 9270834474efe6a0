/*
 * Without memory: channels between cores and foreign pointers. See fault_check.h for what a walk
 * is.
 */
#include <stdatomic.h>

#include "shoal/runtime/errors.h"
#include "shoal/runtime/fiber.h"

#include "shoal/smp/core_channel.h"
#include "shoal/smp/foreign_ptr.h"

#include "unit/fault_check.h"

#define VALUES 5

/* The first failure counts. */
static void note(int *rc, int code)
{
    if (*rc == 0 && code < 0)
        *rc = code;
}

static atomic_int alive; /* values that were sent and neither received nor dropped */

static void drop_value(void *item)
{
    (void)item;
    atomic_fetch_sub(&alive, 1);
}

/* Of 40 bytes, so that a future needs memory for one. */
struct value {
    char bytes[40];
};

static int send_value(struct shoal_core_sender *sender, bool by_future)
{
    const struct value value = {{1}};
    int rc =
        by_future
            ? shoal_await(shoal_core_channel_send_future(sender, &value, SHOAL_NS_FOREVER), NULL)
            : shoal_core_channel_send(sender, &value, SHOAL_NS_FOREVER);
    if (rc == 0)
        atomic_fetch_add(&alive, 1);
    return rc;
}

/* On core 1. The values that could be sent are there, whatever else fails. */
static int send_values(void *arg, union shoal_value *out)
{
    (void)out;
    struct shoal_core_sender *sender;
    int rc = shoal_core_sender_new(&sender, arg);
    if (rc < 0)
        return rc;
    for (int i = 0; i < VALUES; i++)
        note(&rc, send_value(sender, i % 2 != 0));
    shoal_core_sender_free(sender);
    return rc;
}

static int receive_by_future(struct shoal_core_channel *channel, struct value *value)
{
    union shoal_value taken;
    int rc = shoal_await(shoal_core_channel_receive_future(channel, SHOAL_NS_FOREVER), &taken);
    if (rc == 0)
        shoal_core_channel_take(&taken, value);
    return rc;
}

/* Until the channel is closed and empty; without memory for a future it needs none. */
static int receive_values(void *arg)
{
    struct value value;
    int first = 0;
    int rc;
    for (int i = 0;; i++) {
        rc = i % 2 != 0 ? receive_by_future(arg, &value)
                        : shoal_core_channel_receive(arg, &value, SHOAL_NS_FOREVER);
        if (rc == SHOAL_ECLOSED)
            return first;
        note(&first, rc);
        if (rc != 0)
            continue;
        SHOAL_EXPECT_INT(value.bytes[0], 1);
        atomic_fetch_sub(&alive, 1);
    }
}

static int channel_scene(void)
{
    const struct shoal_core_channel_options options = {
        .item_bytes = sizeof(struct value), .credit = 2, .drop = drop_value};
    struct shoal_core_channel *channel;
    struct shoal_fiber *receiver;
    atomic_store(&alive, 0);
    int rc = shoal_core_channel_new(&channel, &options);
    if (rc < 0)
        return rc;
    int spawned = shoal_fiber_spawn(&receiver, receive_values, channel, "receiver");
    if (spawned < 0)
        shoal_core_channel_close(channel);
    note(&rc, spawned);
    int sent = shoal_await(shoal_submit_fiber_to(1, send_values, channel), NULL);
    SHOAL_EXPECT(sent == 0 || sent == -ENOMEM || (sent == SHOAL_ECLOSED && spawned < 0));
    note(&rc, sent);
    shoal_core_channel_close(channel);
    if (spawned == 0)
        note(&rc, shoal_fiber_join(receiver));
    shoal_core_channel_free(channel);
    while (atomic_load(&alive) > 0)
        (void)shoal_sleep_ns(20 * SHOAL_NS_PER_US);
    SHOAL_EXPECT_INT(atomic_load(&alive), 0);
    return rc;
}

/* ---- Foreign pointers ---- */

static atomic_int freed;

static void free_object(void *object)
{
    shoal_mem_free(object, 48);
    atomic_fetch_add(&freed, 1);
}

static int release_there(void *arg, union shoal_value *out)
{
    (void)out;
    struct shoal_foreign_ptr *ptr = arg;
    shoal_foreign_release(&ptr->foreign);
    return 0;
}

static int foreign_scene(void)
{
    struct shoal_foreign_ptr *ptr;
    void *object = shoal_mem_alloc(48);
    if (object == NULL)
        return -ENOMEM;
    atomic_store(&freed, 0);
    int rc = shoal_foreign_ptr_new(&ptr, object, free_object);
    if (rc < 0) {
        shoal_mem_free(object, 48);
        return rc;
    }
    shoal_foreign_ref(&ptr->foreign);
    rc = shoal_await(shoal_submit_to(1, release_there, ptr), NULL);
    if (rc < 0)
        shoal_foreign_release(&ptr->foreign); /* it was not sent */
    shoal_foreign_release(&ptr->foreign);
    while (atomic_load(&freed) == 0)
        (void)shoal_sleep_ns(20 * SHOAL_NS_PER_US);
    return rc;
}

static const struct fault_walk walks[] = {
    {.name = "core channel", .scene = channel_scene, .patience = 3},
    {.name = "foreign pointer", .scene = foreign_scene},
};

static void core_channel_without_memory_fails_and_loses_nothing(void **state)
{
    (void)state;
    for (size_t i = 0; i < SHOAL_ARRAY_SIZE(walks); i++)
        assert_int_equal(shoal_test_run(FAULT_CORES, fault_walk_warm, (void *)(uintptr_t)&walks[i]),
                         0);
}

static int everything(void)
{
    int rc = channel_scene();
    note(&rc, foreign_scene());
    return rc;
}

static int everything_often(void)
{
    int rc = 0;
    for (int i = 0; i < 10; i++)
        note(&rc, everything());
    return rc;
}

static void core_channel_with_random_failures_loses_nothing(void **state)
{
    (void)state;
    const struct fault_walk walk = {.name = "random", .scene = everything_often};
    assert_int_equal(shoal_test_run(FAULT_CORES, fault_soak, (void *)(uintptr_t)&walk), 0);
}

static void core_channel_in_a_fresh_program_without_memory_fails_and_loses_nothing(void **state)
{
    (void)state;
    const struct fault_walk walk = {.name = "fresh", .scene = everything, .patience = 3};
    fault_walk_cold(&walk);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(core_channel_without_memory_fails_and_loses_nothing),
        cmocka_unit_test(core_channel_with_random_failures_loses_nothing),
        cmocka_unit_test(core_channel_in_a_fresh_program_without_memory_fails_and_loses_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
