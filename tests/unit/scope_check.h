/*
 * What the tests of scopes share: a child that sleeps and tells what became of it.
 */
#ifndef SHOAL_TESTS_UNIT_SCOPE_CHECK_H
#define SHOAL_TESTS_UNIT_SCOPE_CHECK_H

#include "shoal/runtime/clock.h"
#include "shoal/runtime/fiber.h"

#include "unit/harness.h"

#define MS      SHOAL_NS_PER_MS
#define HOUR_NS (3600 * SHOAL_NS_PER_S)

struct child {
    uint64_t sleep_ns;
    int result; /* returned when the sleep was not cancelled */
    int ended;  /* how often it has returned */
    int slept;  /* what the sleep said */
};

static inline int child_main(void *arg)
{
    struct child *child = arg;
    child->slept = shoal_sleep_ns(child->sleep_ns);
    child->ended++;
    return child->slept != 0 ? child->slept : child->result;
}

#endif
