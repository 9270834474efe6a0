/*
 * Scopes: see scope.h.
 *
 * The scopes that a fiber has entered are a stack, linked by `outer`; the fibers spawned in one are
 * its list of children. A child takes the deadline that holds in its scope with it, for others to
 * ask; only the scope's own timer enforces it.
 */
#include <errno.h>

#include "shoal/runtime/check.h"
#include "shoal/runtime/core_impl.h"
#include "shoal/runtime/owner_impl.h"

static void check_mine(const struct shoal_scope *scope, const char *what)
{
    SHOAL_CHECK_OWNER(scope->owner->core, what, "a scope of fiber \"%s\"", scope->owner->name);
}

static uint64_t deadline_of(const struct shoal_fiber *fiber)
{
    return fiber->scope != NULL ? fiber->scope->deadline_ns : fiber->deadline_ns;
}

static void cancel_children(struct shoal_scope *scope, int code)
{
    SHOAL_LIST_FOREACH_SAFE (node, &scope->children)
        shoal_fiber_cancel_with(SHOAL_CONTAINER_OF(node, struct shoal_fiber, sibling), code);
}

/* Cancels what belongs to the scope; the owner only while its wait to leave is not what it does:
 * that wait ends with the last child. */
static void cancel_with(struct shoal_scope *scope, int code)
{
    struct shoal_core *core = shoal_core_self;
    if (scope->cancelled != 0)
        return;
    scope->cancelled = code;
    cancel_children(scope, code);
    if (scope->leaving)
        return;
    for (struct shoal_scope *inner = scope->owner->scope; inner != scope; inner = inner->outer)
        cancel_children(inner, code);
    shoal_fiber_apply_cancel(core, scope->owner, code);
}

static void deadline_passed(struct shoal_timer *timer)
{
    cancel_with(SHOAL_CONTAINER_OF(timer, struct shoal_scope, timer), -ETIMEDOUT);
}

void shoal_scope_enter(struct shoal_scope *scope, const struct shoal_scope_options *options)
{
    SHOAL_CHECK_ON_CORE("enter of a scope");
    struct shoal_core *core = shoal_core_self;
    struct shoal_fiber *fiber = core->fiber;
    SHOAL_CHECK(fiber != NULL, "a scope is entered outside a fiber");
    *scope = (struct shoal_scope){
        .owner = fiber,
        .outer = fiber->scope,
        .deadline_ns = deadline_of(fiber),
        .cancel_on_failure = options != NULL && options->cancel_on_failure,
    };
    shoal_list_init(&scope->children);
    shoal_timer_init(&scope->timer, deadline_passed);
    fiber->scope = scope;
    if (options == NULL || options->timeout_ns == 0)
        return;
    uint64_t deadline_ns = shoal_deadline_ns(shoal_now_ns(), options->timeout_ns);
    /* Also where the one around it comes first: in a shield that one may have passed already. */
    shoal_timer_arm_at(&scope->timer, deadline_ns);
    if (deadline_ns < scope->deadline_ns)
        scope->deadline_ns = deadline_ns;
}

static int spawn(struct shoal_scope *scope, struct shoal_fiber *fiber)
{
    if (fiber == NULL)
        return -ENOMEM;
    fiber->parent = scope;
    fiber->deadline_ns = scope->deadline_ns;
    shoal_list_push_back(&scope->children, &fiber->sibling);
    for (const struct shoal_scope *around = scope; around != NULL; around = around->outer)
        if (around->cancelled != 0)
            shoal_fiber_cancel_with(fiber, around->cancelled);
    if (scope->leaving && shoal_fiber_cancelled_now(scope->owner))
        shoal_fiber_cancel_with(fiber, scope->owner->cancel_code);
    shoal_fiber_make_ready(shoal_core_self, fiber);
    return 0;
}

int shoal_scope_spawn(struct shoal_scope *scope, shoal_fiber_fn *fn, void *arg, const char *name)
{
    check_mine(scope, "spawn");
    return spawn(scope, shoal_fiber_take(shoal_core_self, fn, arg, name));
}

int shoal_scope_spawn_with(struct shoal_scope *scope, shoal_fiber_fn *fn, void *arg,
                           const struct shoal_fiber_options *options)
{
    check_mine(scope, "spawn");
    if (options->stack_bytes > SHOAL_FIBER_STACK_MAX)
        return -EINVAL;
    return spawn(scope, shoal_fiber_take_with(shoal_core_self, fn, arg, options));
}

void shoal_scope_child_done(struct shoal_core *core, struct shoal_fiber *fiber)
{
    struct shoal_scope *scope = fiber->parent;
    int result = fiber->result;
    bool by_cancel = fiber->own_cancel != 0 && result == fiber->own_cancel;
    shoal_list_unlink(&fiber->sibling);
    shoal_fiber_release(core, fiber);
    if (result < 0 && !by_cancel && scope->failure == 0) {
        scope->failure = result;
        if (scope->cancel_on_failure)
            cancel_with(scope, -ECANCELED);
    }
    if (scope->leaving && !shoal_list_linked(&scope->children))
        shoal_fiber_make_ready(core, scope->owner);
}

void shoal_scope_cancel(struct shoal_scope *scope)
{
    check_mine(scope, "cancel");
    cancel_with(scope, -ECANCELED);
}

static void cancel_leave(struct shoal_fiber *owner)
{
    cancel_children(owner->wait_ctx, owner->cancel_code);
}

/* What of the owner's cancel is left without the innermost scope. */
static void leave_cancel(struct shoal_core *core, struct shoal_fiber *fiber)
{
    int code = fiber->own_cancel;
    for (const struct shoal_scope *scope = fiber->scope; scope != NULL; scope = scope->outer)
        if (code == 0)
            code = scope->cancelled;
    fiber->cancelled = code != 0;
    fiber->cancel_code = (int16_t)code;
    core->hot.may_await = !shoal_fiber_cancelled_now(fiber);
}

int shoal_scope_leave(struct shoal_scope *scope)
{
    check_mine(scope, "leave");
    struct shoal_core *core = shoal_core_self;
    struct shoal_fiber *fiber = core->fiber;
    SHOAL_CHECK(fiber != NULL && fiber->scope == scope,
                "a scope is left that is not the innermost of its fiber");
    scope->leaving = true;
    while (shoal_list_linked(&scope->children)) {
        /* Each time round: a cancel may have come while the fiber was about to run. */
        if (shoal_fiber_cancelled_now(fiber))
            cancel_children(scope, fiber->cancel_code);
        shoal_fiber_wait_begin(fiber, "scope", cancel_leave, scope);
        shoal_fiber_park(core, fiber);
        shoal_fiber_wait_end(fiber);
    }
    shoal_timer_cancel(&scope->timer);
    fiber->scope = scope->outer;
    leave_cancel(core, fiber);
    if (scope->failure != 0)
        return scope->failure;
    return scope->cancelled == -ETIMEDOUT ? -ETIMEDOUT : 0;
}

uint64_t shoal_fiber_deadline_ns(void)
{
    SHOAL_CHECK_ON_CORE("deadline of a fiber");
    const struct shoal_fiber *fiber = shoal_core_self->fiber;
    return fiber != NULL ? deadline_of(fiber) : SHOAL_NS_FOREVER;
}
