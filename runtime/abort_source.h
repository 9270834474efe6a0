/*
 * An abort source: one place that asks many to end, once, with a reason.
 *
 *   shoal_abort_source_init(&abort);
 *   shoal_abort_set_timeout(&abort, 10 * SHOAL_NS_PER_S);
 *   rc = shoal_await(shoal_abort_link(&abort, load(part)), &value);
 *
 * 1. The first request counts; later ones, the deadline among them, have no effect.
 * 2. Subscribers' functions run inside the request, newest last, and may not yield. They may
 *    subscribe and unsubscribe; the source must live on until the request returns.
 * 3. After the request nobody can subscribe: that returns the code, and the caller ends at once.
 */
#ifndef SHOAL_RUNTIME_ABORT_SOURCE_H
#define SHOAL_RUNTIME_ABORT_SOURCE_H

#include "shoal/runtime/wait_queue.h"

SHOAL_BEGIN_DECLS

struct shoal_abort_source {
    struct shoal_wait_queue queue; /* who waits for the abort; private, as is the rest */
    struct shoal_list subscriptions;
    struct shoal_timer deadline;
    char *text;
    int code; /* 0: not requested */
};

struct shoal_abort_subscription;

/* `code` and `text` ("" without) are those of the request. May not yield. */
typedef void shoal_abort_fn(struct shoal_abort_subscription *subscription, int code,
                            const char *text);

struct shoal_abort_subscription {
    struct shoal_list node; /* private, but for `arg` */
    shoal_abort_fn *fn;
    void *arg;
    uint16_t core; /* private: whose it is, in checked builds */
};

SHOAL_API void shoal_abort_source_init(struct shoal_abort_source *source);

/* Nobody may be subscribed, linked or wait. A deadline is disarmed. */
SHOAL_API void shoal_abort_source_deinit(struct shoal_abort_source *source);

/*
 * Requests the abort. `code` is negative (-ECANCELED where there is nothing better to say); `text`
 * is copied and may be NULL. Whether this was the first request. Does not yield.
 */
SHOAL_API bool shoal_abort_request(struct shoal_abort_source *source, int code, const char *text);

/* Requests the abort with -ETIMEDOUT after `timeout_ns`, or at a time; FOREVER takes that back. */
SHOAL_API void shoal_abort_set_timeout(struct shoal_abort_source *source, uint64_t timeout_ns);
SHOAL_API void shoal_abort_set_deadline(struct shoal_abort_source *source, uint64_t deadline_ns);

/* The code of the request, 0 without one; its text, "" without, valid until the source ends. */
SHOAL_API int shoal_abort_code(const struct shoal_abort_source *source);
SHOAL_API const char *shoal_abort_text(const struct shoal_abort_source *source);

/*
 * Has `fn` called when the abort is requested. `subscription` is the caller's and lives until it
 * is unsubscribed or called. 0; the code if there was a request already: then `fn` is not called.
 */
SHOAL_API int shoal_abort_subscribe(struct shoal_abort_source *source,
                                    struct shoal_abort_subscription *subscription,
                                    shoal_abort_fn *fn, void *arg);

/* Fine after the call of `fn`, and on a zeroed subscription. */
SHOAL_API void shoal_abort_unsubscribe(struct shoal_abort_subscription *subscription);

/*
 * Has `fiber` cancelled by the abort; at once if it has been requested. To be unsubscribed before
 * `fiber` is joined: its pointer is dead then.
 */
SHOAL_API void shoal_abort_link_fiber(struct shoal_abort_source *source,
                                      struct shoal_abort_subscription *subscription,
                                      struct shoal_fiber *fiber);

/*
 * Consumes `future` and returns one that ends as it does. The abort cancels `future`; if that fails
 * thereupon, the result fails with the abort's code and text. A value that was faster comes
 * through. -ENOMEM: then `future` has been cancelled and discarded.
 */
SHOAL_API struct shoal_future *shoal_abort_link(struct shoal_abort_source *source,
                                                struct shoal_future *future);

/*
 * Waits for the request. 0, with shoal_abort_code() to tell more; -ETIMEDOUT; the code of the
 * fiber's cancel. On a fiber; yields unless it has been requested.
 */
SHOAL_API int shoal_abort_wait(struct shoal_abort_source *source, uint64_t timeout_ns);

/* A future that fails with code and text of the request. -ETIMEDOUT, -ECANCELED, -ENOMEM. */
SHOAL_API struct shoal_future *shoal_abort_future(struct shoal_abort_source *source,
                                                  uint64_t timeout_ns);

SHOAL_END_DECLS

#endif
