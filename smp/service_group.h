/*
 * Service groups: how much of one service may be in flight from a core towards another.
 *
 * 1. Each group has credits of its own for each ordered pair of cores, and rings of its own, made
 *    when first used: calls of one group never wait for those of another.
 * 2. So services whose calls nest (the handler of a call in group A makes calls in group B, on any
 *    core) cannot deadlock as long as the groups form no cycle. Calls that nest within one group
 *    can, once all its credits are held by handlers that wait for one.
 * 3. What a core submits to itself is not bounded.
 * 4. The order of submit.h holds within one group and pair of cores.
 */
#ifndef SHOAL_SMP_SERVICE_GROUP_H
#define SHOAL_SMP_SERVICE_GROUP_H

#include "shoal/runtime/compiler.h"

SHOAL_BEGIN_DECLS

#define SHOAL_SERVICE_GROUPS_MAX     16 /* the default one included */
#define SHOAL_SERVICE_GROUP_NAME_MAX 31
#define SHOAL_SERVICE_IN_FLIGHT_MAX  4096

struct shoal_service_group;

/*
 * Makes a group in which each core may have `in_flight_max` messages (1 to
 * SHOAL_SERVICE_IN_FLIGHT_MAX) without an answer towards each other core. `name` is copied, up to
 * SHOAL_SERVICE_GROUP_NAME_MAX bytes. 0; -EINVAL; -ENOSPC when there are SHOAL_SERVICE_GROUPS_MAX;
 * -ENOMEM. Any core may use it once it has been told of it, by a message. Core threads only; does
 * not yield.
 */
SHOAL_API int shoal_service_group_new(struct shoal_service_group **out, const char *name,
                                      unsigned in_flight_max);

/*
 * Frees `group` and its rings on all cores. -EBUSY while a message of it has no answer; nobody may
 * submit in it any more. NULL is fine. On a fiber; yields.
 */
SHOAL_API int shoal_service_group_free(struct shoal_service_group *group);

/* As given to shoal_service_group_new(). Any core, while the group lives. */
SHOAL_API const char *shoal_service_group_name(const struct shoal_service_group *group);
SHOAL_API unsigned shoal_service_group_in_flight_max(const struct shoal_service_group *group);

/* Messages of `group` (NULL: the default one) from the calling core to `core` without an answer. */
SHOAL_API unsigned shoal_service_group_in_flight(const struct shoal_service_group *group,
                                                 unsigned core);

SHOAL_END_DECLS

#endif
