/*
 * Foreign pointers: an object that was made on one core, its home, travels to others, is read
 * there, and goes home to be freed.
 *
 *   struct reply {                              static void reply_free(struct shoal_foreign *home)
 *       struct shoal_foreign foreign;           {
 *       char text[256];                             ... on the home again: shoal_mem_free()
 *   };                                          }
 *
 *   shoal_foreign_init(&reply->foreign, reply_free);      // on the home; then it is sent away
 *   shoal_foreign_release(&reply->foreign);               // wherever it is
 *
 * 1. What travels are units. Making the object gives one; who has one may read the object, hand the
 *    unit on (by a message, a channel: whatever orders memory), make another of it, or release it.
 *    When the last one is released, the object goes home.
 * 2. A release never fails, allocates nothing and does not yield: the way home is a task inside the
 *    object. It is freed on its home, as a task, even when the home releases it itself.
 * 3. Between shoal_foreign_init() and its end nobody writes to the object: cores that read it at
 *    the same time do so without locks. (Who has the only unit may write, as nobody else has it.)
 * 4. Of one object that many fibers of a core use, a holder takes one unit and counts them: plain
 *    counting, which touches no memory that cores share.
 * 5. What is released while the program stops is still freed. An object with units that were never
 *    released is a leak of its home.
 *
 * Checked builds (SHOAL_DEBUG) end the program when an object is released more often than it has
 * units, and when something is released after its home has ended.
 */
#ifndef SHOAL_SMP_FOREIGN_PTR_H
#define SHOAL_SMP_FOREIGN_PTR_H

#include <stdint.h>

#include "shoal/runtime/compiler.h"
#include "shoal/runtime/task.h"

SHOAL_BEGIN_DECLS

struct shoal_foreign;

/* Frees the object that `foreign` is a part of. Runs on its home, as a task: it must not yield. */
typedef void shoal_foreign_free_fn(struct shoal_foreign *foreign);

/* A part of the object. */
struct shoal_foreign {
    struct shoal_task task; /* private, as is the rest */
    shoal_foreign_free_fn *free;
    uint32_t units; /* atomic */
    uint16_t home;
    uint16_t state; /* for checked builds */
};

/*
 * Makes the calling core the home of the object around `foreign`, which has one unit, the caller's.
 * Core threads only; does not yield.
 */
SHOAL_API void shoal_foreign_init(struct shoal_foreign *foreign, shoal_foreign_free_fn *free);

/* One unit more, for whoever is given it. The caller has one. Any thread while the program runs. */
SHOAL_API void shoal_foreign_ref(struct shoal_foreign *foreign);

/*
 * Gives up a unit: the object is not the caller's any more. The last one sends it home. Any thread
 * while the program runs; does not yield.
 */
SHOAL_API void shoal_foreign_release(struct shoal_foreign *foreign);

/* The number of the core that the object goes home to. The caller has a unit. */
SHOAL_API unsigned shoal_foreign_home(const struct shoal_foreign *foreign);

/* ---- Objects that have no room for a struct shoal_foreign ---- */

struct shoal_foreign_ptr {
    struct shoal_foreign foreign;      /* for shoal_foreign_ref() and shoal_foreign_release() */
    void *object;                      /* to be read */
    void (*object_free)(void *object); /* private */
};

/*
 * Makes a foreign pointer to `object`, whose home is the calling core; `object_free(object)` runs
 * there, as a task, when its last unit is released. 0 or -ENOMEM. Core threads only; does not
 * yield.
 */
SHOAL_API int shoal_foreign_ptr_new(struct shoal_foreign_ptr **out, void *object,
                                    void (*object_free)(void *object));

/* ---- Many users on one core ---- */

struct shoal_foreign_holder {
    struct shoal_foreign *foreign; /* to be read; NULL once nobody uses it */
    uint32_t users;                /* private, as is the rest */
    uint16_t core;
};

/*
 * Makes `holder` (of the calling core) the owner of a unit that the caller had; the caller is its
 * first user. Core threads only; does not yield.
 */
SHOAL_API void shoal_foreign_holder_init(struct shoal_foreign_holder *holder,
                                         struct shoal_foreign *foreign);

/* One user more, who is given it by one; one less, of whom the last releases the unit. Own core. */
SHOAL_API void shoal_foreign_holder_ref(struct shoal_foreign_holder *holder);
SHOAL_API void shoal_foreign_holder_unref(struct shoal_foreign_holder *holder);

SHOAL_END_DECLS

#endif
