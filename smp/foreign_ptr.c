/*
 * Foreign pointers: see foreign_ptr.h.
 *
 * 1. `units` is the one word that cores share; the last unit is told by it, and by nothing else.
 * 2. Who sees that it has the only unit needs no atomic read-modify-write: nobody else can make
 *    another one. So an object with a single owner costs a push on its home's stack of foreign
 *    tasks and nothing more.
 * 3. The task is in the object, and is posted once.
 *
 * Rejected: counts for each core inside the object (a line for each core in every object, and a
 * second protocol for units on their way); units that split without touching the object (each needs
 * a way home of its own, which must be allocated); asking the home for a unit (a round trip, which
 * can fail, for what is one instruction).
 */
#include "shoal/smp/foreign_ptr.h"

#include <errno.h>

#include "shoal/runtime/check.h"
#include "shoal/runtime/core_impl.h"
#include "shoal/runtime/mem.h"
#include "shoal/runtime/owner_impl.h"

#include "shoal/smp/launch_impl.h"

/* Unlike what lies in memory by chance, or as poison. */
#define STATE_LIVE  0x51feu
#define STATE_GOING 0x90e5u

static inline void check_live(const struct shoal_foreign *foreign, const char *op)
{
    SHOAL_DCHECK(foreign->state == STATE_LIVE,
                 "%s: foreign object %p, whose home is core %u, on core %d: %s", op,
                 (const void *)foreign, foreign->home, shoal_context_core,
                 foreign->state == STATE_GOING ? "its last unit was released before"
                                               : "it is none, or was freed");
}

/* The cores are torn down: no loop is there to free anything. */
static inline void check_running(const struct shoal_foreign *foreign, const char *op)
{
    SHOAL_DCHECK(shoal_launch_current != NULL &&
                     (shoal_core_self == NULL || shoal_core_self->layers[SHOAL_LAYER_SMP] != NULL),
                 "%s: foreign object %p after its home has ended", op, (const void *)foreign);
    (void)foreign;
    (void)op;
}

static void free_object(struct shoal_task *task)
{
    struct shoal_foreign *foreign = SHOAL_CONTAINER_OF(task, struct shoal_foreign, task);
    foreign->free(foreign);
}

void shoal_foreign_init(struct shoal_foreign *foreign, shoal_foreign_free_fn *free)
{
    SHOAL_CHECK(shoal_core_self != NULL, "a foreign object is made on a thread that is no core");
    foreign->task.next = NULL;
    foreign->task.run = free_object;
    foreign->free = free;
    foreign->home = (uint16_t)shoal_core_self->id;
    foreign->state = STATE_LIVE;
    /* relaxed: what hands the object on orders it. */
    __atomic_store_n(&foreign->units, 1, __ATOMIC_RELAXED);
}

void shoal_foreign_ref(struct shoal_foreign *foreign)
{
    check_running(foreign, "ref");
    check_live(foreign, "ref");
    /* relaxed: the caller has a unit, and hands on the new one by something that orders it. */
    uint32_t before = __atomic_fetch_add(&foreign->units, 1, __ATOMIC_RELAXED);
    SHOAL_CHECK(before != 0 && before != UINT32_MAX, "foreign object %p has %u units",
                (void *)foreign, before);
}

void shoal_foreign_release(struct shoal_foreign *foreign)
{
    check_running(foreign, "release");
    check_live(foreign, "release");
    /* acquire: what others did before they released comes before the free. Pairs with the release
     * of the fetch_sub below. */
    if (__atomic_load_n(&foreign->units, __ATOMIC_ACQUIRE) != 1) {
        uint32_t before = __atomic_fetch_sub(&foreign->units, 1, __ATOMIC_ACQ_REL);
        SHOAL_CHECK(before != 0, "release: foreign object %p has no units left", (void *)foreign);
        if (before != 1)
            return;
    }
    foreign->state = STATE_GOING;
    struct shoal_core *home = shoal_launch_current->fleet.core[foreign->home];
    struct shoal_core *self = shoal_core_self;
    if (self != NULL && self == home)
        shoal_core_post(self, &foreign->task);
    else
        shoal_core_post_foreign(home, &foreign->task);
}

unsigned shoal_foreign_home(const struct shoal_foreign *foreign)
{
    check_live(foreign, "home");
    return foreign->home;
}

/* ---- Objects without room ---- */

static void free_ptr(struct shoal_foreign *foreign)
{
    struct shoal_foreign_ptr *ptr = SHOAL_CONTAINER_OF(foreign, struct shoal_foreign_ptr, foreign);
    void *object = ptr->object;
    void (*object_free)(void *object) = ptr->object_free;
    shoal_mem_free(ptr, sizeof(*ptr));
    object_free(object);
}

int shoal_foreign_ptr_new(struct shoal_foreign_ptr **out, void *object,
                          void (*object_free)(void *object))
{
    struct shoal_foreign_ptr *ptr = shoal_mem_alloc(sizeof(*ptr));
    if (ptr == NULL)
        return -ENOMEM;
    shoal_foreign_init(&ptr->foreign, free_ptr);
    ptr->object = object;
    ptr->object_free = object_free;
    *out = ptr;
    return 0;
}

/* ---- Holders ---- */

static void check_holder(const struct shoal_foreign_holder *holder, const char *op)
{
    SHOAL_CHECK_OWNER(holder->core, op, "foreign holder %p", (const void *)holder);
    SHOAL_CHECK(holder->users > 0, "%s: foreign holder %p has no users", op, (const void *)holder);
}

void shoal_foreign_holder_init(struct shoal_foreign_holder *holder, struct shoal_foreign *foreign)
{
    SHOAL_CHECK(shoal_core_self != NULL, "a foreign holder is made on a thread that is no core");
    check_live(foreign, "hold");
    holder->foreign = foreign;
    holder->users = 1;
    holder->core = (uint16_t)shoal_core_self->id;
}

void shoal_foreign_holder_ref(struct shoal_foreign_holder *holder)
{
    check_holder(holder, "ref");
    SHOAL_CHECK(holder->users != UINT32_MAX, "foreign holder %p has too many users",
                (void *)holder);
    holder->users++;
}

void shoal_foreign_holder_unref(struct shoal_foreign_holder *holder)
{
    check_holder(holder, "unref");
    if (--holder->users > 0)
        return;
    struct shoal_foreign *foreign = holder->foreign;
    holder->foreign = NULL;
    shoal_foreign_release(foreign);
}
