/*
 * One call of a foreign thread that waits for its end: the slot is on its stack.
 *
 * The thread sleeps on a word of the slot (a futex) and not on a condition variable, whose mutex a
 * core would have to wait for. The word is the last that the core touches; the wake-up that follows
 * it names an address only, and one too many does no harm there.
 */
#include "shoal/smp/foreign_thread.h"

#include <errno.h>
#include <string.h>

#include <linux/futex.h>
#include <pthread.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "shoal/runtime/check.h"
#include "shoal/runtime/errors.h"

#include "shoal/smp/foreign_impl.h"
#include "shoal/smp/launch_impl.h"

/* Until the core has set all bits of `what`. */
static void wait_answered(struct shoal_foreign_slot *slot, uint32_t what)
{
    for (;;) {
        /* acquire: what the core has written into the slot. Pairs with tell_sleeper(). */
        uint32_t is = atomic_load_explicit(&slot->answered, memory_order_acquire);
        if ((is & what) == what)
            return;
        if ((is & SHOAL_FOREIGN_SLEEPS) == 0 && !atomic_compare_exchange_strong_explicit(
                                                    &slot->answered, &is, is | SHOAL_FOREIGN_SLEEPS,
                                                    memory_order_relaxed, memory_order_relaxed))
            continue;
        /* EAGAIN, EINTR: the word has changed, or a signal handler ran. Look again. */
        (void)syscall(SYS_futex, &slot->answered, FUTEX_WAIT_PRIVATE, is | SHOAL_FOREIGN_SLEEPS,
                      NULL, NULL, 0);
    }
}

/* ---- Ending it from elsewhere ---- */

void shoal_foreign_cancel_init(struct shoal_foreign_cancel *cancel)
{
    memset(cancel, 0, sizeof(*cancel));
    pthread_mutex_init(&cancel->lock, NULL);
}

void shoal_foreign_cancel_deinit(struct shoal_foreign_cancel *cancel)
{
    SHOAL_CHECK(cancel->slot == NULL, "a cancel is freed while a call uses it");
    pthread_mutex_destroy(&cancel->lock);
}

void shoal_foreign_cancel(struct shoal_foreign_cancel *cancel)
{
    pthread_mutex_lock(&cancel->lock);
    struct shoal_foreign_slot *slot = cancel->slot;
    if (slot != NULL && !slot->cancel_posted) {
        struct shoal_launch *launch = shoal_foreign_enter();
        if (launch != NULL) { /* else the stop cancels it */
            shoal_foreign_slot_cancel(launch, slot);
            shoal_foreign_leave();
        }
    }
    cancel->cancelled = true;
    pthread_mutex_unlock(&cancel->lock);
}

/* Whether `slot` may begin; from here on it can be cancelled. The lock is held until it is posted.
 */
static bool cancel_begin(struct shoal_foreign_cancel *cancel, struct shoal_foreign_slot *slot)
{
    pthread_mutex_lock(&cancel->lock);
    if (cancel->cancelled) {
        pthread_mutex_unlock(&cancel->lock);
        return false;
    }
    SHOAL_CHECK(cancel->slot == NULL, "a cancel is used by two calls at once");
    cancel->slot = slot;
    return true;
}

/* The call has ended: nobody cancels it any more; a cancel that is on its way is waited for. */
static void cancel_end(struct shoal_foreign_cancel *cancel, struct shoal_foreign_slot *slot)
{
    pthread_mutex_lock(&cancel->lock);
    cancel->slot = NULL;
    pthread_mutex_unlock(&cancel->lock);
    if (slot->cancel_posted && !slot->cancel_seen)
        wait_answered(slot, SHOAL_FOREIGN_CANCELLED);
}

/* ---- The call ---- */

/* 0 once the core has it. */
static int post(struct shoal_foreign_slot *slot, const struct shoal_foreign_call *call,
                struct shoal_foreign_answer *answer)
{
    struct shoal_launch *launch = shoal_foreign_enter();
    if (launch == NULL)
        return SHOAL_ESTOPPING;
    int rc =
        shoal_foreign_slot_fill(slot, call, launch->fleet.cores, answer->text, answer->text_size);
    if (rc == 0)
        shoal_foreign_post(launch->fleet.core[slot->core], &slot->task);
    shoal_foreign_leave();
    return rc;
}

static int run_slot(struct shoal_foreign_slot *slot, const struct shoal_foreign_call *call,
                    struct shoal_foreign_cancel *cancel, struct shoal_foreign_answer *answer)
{
    if (cancel != NULL && !cancel_begin(cancel, slot))
        return -ECANCELED;
    int rc = post(slot, call, answer);
    if (cancel != NULL) {
        if (rc < 0)
            cancel->slot = NULL;
        pthread_mutex_unlock(&cancel->lock);
    }
    if (rc < 0)
        return rc;
    wait_answered(slot, SHOAL_FOREIGN_DONE);
    if (cancel != NULL)
        cancel_end(cancel, slot);
    answer->value = slot->value;
    return slot->code;
}

int shoal_foreign_run(const struct shoal_foreign_call *call, struct shoal_foreign_cancel *cancel,
                      struct shoal_foreign_answer *answer)
{
    struct shoal_foreign_answer none = {.text = NULL};
    if (answer == NULL)
        answer = &none;
    memset(&answer->value, 0, sizeof(answer->value));
    if (answer->text_size > 0)
        answer->text[0] = '\0';
    if (shoal_core_self != NULL)
        return -EDEADLK;
    struct shoal_foreign_call plain = *call;
    plain.done = NULL;
    plain.done_on_core = false;
    struct shoal_foreign_slot slot;
    memset(&slot, 0, sizeof(slot));
    slot.text = answer->text_size > 0 ? answer->text : NULL;
    slot.text_size = (uint32_t)(answer->text_size < UINT32_MAX ? answer->text_size : UINT32_MAX);
    int cancel_state;
    pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &cancel_state); /* the slot is on this stack */
    int rc = run_slot(&slot, &plain, cancel, answer);
    pthread_setcancelstate(cancel_state, NULL);
    return rc;
}
