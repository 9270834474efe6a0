/*
 * A function on all cores: see all_cores.h.
 *
 * All messages go out before the first answer is awaited. Answers are awaited in the order of the
 * cores, so that which failure is reported does not depend on which core was faster.
 */
#include "shoal/smp/all_cores.h"

#include <errno.h>
#include <string.h>

#include "shoal/runtime/check.h"
#include "shoal/runtime/combine_impl.h"
#include "shoal/runtime/core_impl.h"
#include "shoal/runtime/errors.h"
#include "shoal/runtime/scope.h"

#include "shoal/smp/all_cores_impl.h"

#define CORES_ON_STACK 64

/* ---- Failures ---- */

void shoal_first_note(struct shoal_first_failure *first, unsigned core, int code)
{
    if (code >= 0 || first->code != 0)
        return;
    struct shoal_fiber *fiber = shoal_core_self->fiber;
    first->code = code;
    first->core = core;
    first->text = fiber->message;
    fiber->message = NULL;
}

int shoal_first_await(struct shoal_first_failure *first, unsigned core, struct shoal_future *future,
                      union shoal_value *out)
{
    int code = shoal_await(future, out);
    shoal_first_note(first, core, code);
    return code;
}

void shoal_first_cancel(struct shoal_future *const *futures, unsigned count)
{
    for (unsigned i = 0; i < count && shoal_fiber_cancelled(); i++)
        if (futures[i] != NULL)
            shoal_future_cancel(futures[i]);
}

int shoal_first_report(struct shoal_first_failure *first, const char *subject)
{
    if (first->code == 0)
        return 0;
    const char *text = first->text != NULL ? first->text : shoal_error_text(first->code);
    (void)shoal_fiber_explain(first->code, "%s%score %u: %s", subject != NULL ? subject : "",
                              subject != NULL ? ": " : "", first->core, text);
    shoal_text_free(first->text);
    first->text = NULL;
    return first->code;
}

int shoal_first_return(struct shoal_first_failure *first)
{
    if (first->code < 0)
        shoal_fiber_set_message(shoal_core_self->fiber, first->text);
    first->text = NULL;
    return first->code;
}

/* ---- All cores ---- */

static struct shoal_future *send_to(const struct shoal_all_cores *what, size_t copy_bytes,
                                    unsigned core)
{
    if (copy_bytes > 0)
        return shoal_submit_copy_to(core, what->fn, what->arg, copy_bytes);
    if (what->group == NULL)
        return what->fn != NULL ? shoal_submit_to(core, what->fn, what->arg)
                                : shoal_submit_fiber_to(core, what->fiber_fn, what->arg);
    const struct shoal_submit submit = {
        .fn = what->fn, .fiber_fn = what->fiber_fn, .arg = what->arg, .group = what->group};
    return shoal_submit(core, &submit);
}

static int run_each(const struct shoal_all_cores *what, size_t copy_bytes, const char *subject,
                    struct shoal_future **futures)
{
    const unsigned cores = shoal_core_count(), here = shoal_core_self->id;
    for (unsigned i = 0; i < cores; i++)
        futures[i] = what->others && i == here ? NULL : send_to(what, copy_bytes, i);
    struct shoal_first_failure first = {.code = 0};
    for (unsigned i = 0; i < cores; i++) {
        if (futures[i] == NULL)
            continue;
        (void)shoal_first_await(&first, i, futures[i],
                                what->values != NULL ? &what->values[i] : NULL);
        shoal_first_cancel(futures + i + 1, cores - i - 1);
    }
    if (first.code < 0 && what->failed_core != NULL)
        *what->failed_core = first.core;
    return shoal_first_report(&first, subject);
}

int shoal_all_cores_run(const struct shoal_all_cores *what, size_t copy_bytes, const char *subject)
{
    struct shoal_future *on_stack[CORES_ON_STACK];
    SHOAL_CHECK(shoal_core_self != NULL && shoal_core_self->fiber != NULL,
                "all cores are awaited outside a fiber");
    if ((what->fn != NULL) == (what->fiber_fn != NULL))
        return shoal_fiber_explain(-EINVAL, "all cores need one function, for a task or a fiber");
    if (shoal_core_count() <= CORES_ON_STACK)
        return run_each(what, copy_bytes, subject, on_stack);
    size_t bytes = shoal_core_count() * sizeof(struct shoal_future *);
    struct shoal_future **futures = shoal_combine_alloc(bytes);
    if (futures == NULL)
        return -ENOMEM;
    int rc = run_each(what, copy_bytes, subject, futures);
    shoal_combine_release((void *)futures, bytes);
    return rc;
}

int shoal_all_cores(const struct shoal_all_cores *what)
{
    return shoal_all_cores_run(what, 0, NULL);
}

static int run_all_cores(void *spec, union shoal_value *out)
{
    (void)out;
    return shoal_all_cores(spec);
}

struct shoal_future *shoal_all_cores_future(const struct shoal_all_cores *what)
{
    return shoal_background(run_all_cores, what, sizeof(*what), "all cores");
}

/* ---- On a fiber of its own ---- */

struct background {
    struct shoal_future *result;
    struct shoal_fiber *fiber; /* detached: alive until it has settled `result` */
    shoal_background_fn *fn;
    uint64_t deadline_ns;
    uint64_t spec[SHOAL_BACKGROUND_MAX / sizeof(uint64_t)];
};

static void cancel_background(void *ctx)
{
    struct background *background = ctx;
    shoal_fiber_cancel(background->fiber);
}

static int run_with_deadline(struct background *background, union shoal_value *out)
{
    struct shoal_scope scope;
    uint64_t now_ns = shoal_now_ns();
    const struct shoal_scope_options options = {
        .timeout_ns = background->deadline_ns > now_ns ? background->deadline_ns - now_ns : 1};
    shoal_scope_enter(&scope, &options);
    int code = background->fn(background->spec, out);
    (void)shoal_scope_leave(&scope); /* has no children: a deadline that passes now is too late */
    return code;
}

static int run_background(void *arg)
{
    struct background *background = arg;
    union shoal_value out = {.slice = {NULL, 0, 0}};
    int code = background->deadline_ns == SHOAL_NS_FOREVER ? background->fn(background->spec, &out)
                                                           : run_with_deadline(background, &out);
    struct shoal_future *result = background->result;
    shoal_combine_release(background, sizeof(*background));
    if (code < 0)
        shoal_future_fail(result, code, shoal_error_message());
    else
        shoal_future_resolve(result, &out);
    return 0;
}

struct shoal_future *shoal_background(shoal_background_fn *fn, const void *spec, size_t bytes,
                                      const char *name)
{
    SHOAL_CHECK(bytes <= SHOAL_BACKGROUND_MAX, "a spec of %zu bytes", bytes);
    struct background *background = shoal_combine_alloc(sizeof(*background));
    if (background == NULL)
        return shoal_combine_no_memory();
    /* The future first: a fiber that was spawned cannot be taken back. */
    struct shoal_future *result = shoal_future_new();
    if (shoal_future_is_immortal(result) ||
        shoal_fiber_spawn(&background->fiber, run_background, background, name) < 0) {
        shoal_combine_release(background, sizeof(*background));
        if (!shoal_future_is_immortal(result)) {
            shoal_discard(result);
            shoal_future_fail(result, -ENOMEM, NULL);
        }
        return shoal_combine_no_memory();
    }
    background->result = result;
    background->fn = fn;
    background->deadline_ns =
        shoal_core_self->fiber != NULL ? shoal_fiber_deadline_ns() : SHOAL_NS_FOREVER;
    memcpy(background->spec, spec, bytes);
    shoal_fiber_detach(background->fiber);
    shoal_future_on_cancel(result, cancel_background, background);
    return result;
}
