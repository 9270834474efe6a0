/*
 * Outboxes, for outbox.c and submit.c: the marks of a request, credit.
 *
 * A request's id, without its highest bit, is its place in `waiting`, where the pointer to its
 * future carries two marks: that its argument is to be freed with it, and that it was asked to end.
 *
 * Such a cancel is a bit in the channel, by id, which the other core takes and then applies to what
 * has that id. It must not hit the next request of the place. So the bit is taken back when the
 * answer has come; and because the other core may have taken it just then, without having applied
 * it, each place has two ids, used in turn. The other core answers nothing between taking the bit
 * and applying it: meanwhile a place may be used once more, with the other id, but not twice.
 */
#ifndef SHOAL_SMP_OUTBOX_IMPL_H
#define SHOAL_SMP_OUTBOX_IMPL_H

#include "shoal/smp/mailbox_impl.h"

#define SHOAL_MARK_ARG_FREE ((uintptr_t)1)
#define SHOAL_MARK_CANCEL   ((uintptr_t)2)
#define SHOAL_MARKS         (SHOAL_MARK_ARG_FREE | SHOAL_MARK_CANCEL)

/* What leads from a future's cancel hook to its outbox and id, in one word. */
#define SHOAL_KEY_TO_SHIFT    16
#define SHOAL_KEY_GROUP_SHIFT 32
#define SHOAL_KEY_ID_MASK     ((UINT32_C(1) << SHOAL_KEY_TO_SHIFT) - 1)

static inline struct shoal_future *shoal_unmarked(const struct shoal_future *marked)
{
    return (struct shoal_future *)((uintptr_t)marked & ~SHOAL_MARKS);
}

static inline struct shoal_future *shoal_marked(struct shoal_future *future, uintptr_t marks)
{
    return (struct shoal_future *)((uintptr_t)future | marks);
}

static inline uintptr_t shoal_marks_of(const struct shoal_future *marked)
{
    return (uintptr_t)marked & SHOAL_MARKS;
}

/*
 * Waits, in order, until there is a credit for the calling code: for `timeout_ns` at most (0: as
 * long as it takes). 0; -ENOBUFS where no fiber runs, which cannot wait; -ETIMEDOUT; the code of
 * the fiber's cancel.
 */
int shoal_outbox_wait_credit(struct shoal_mail *mail, struct shoal_outbox *outbox,
                             uint64_t timeout_ns);

/* Lets the first in the line go on, if there is a credit for it. */
void shoal_outbox_wake_first(struct shoal_mail *mail, struct shoal_outbox *outbox);

static inline void shoal_outbox_wake_waiter(struct shoal_mail *mail, struct shoal_outbox *outbox)
{
    if (SHOAL_UNLIKELY(shoal_list_linked(&outbox->credit_waiters)))
        shoal_outbox_wake_first(mail, outbox);
}

#endif
