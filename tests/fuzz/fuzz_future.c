/*
 * Fuzz target of futures and their chains, beside a model that knows the outcome of each.
 *
 * A chain grows at its open end: a promise, a ready or a failed future, then continuations of all
 * kinds. The model keeps what each link does, and works out the outcome, the calls and the drops
 * when all promises have been settled.
 *
 *  1. Each open end gives the outcome of the model: code, value, and text.
 *  2. A continuation runs once where the model says so, and never where not; never inside the call
 *     that registers it or that settles its future.
 *  3. A value whose consumer is gone is dropped once; one that was delivered is not.
 *  4. A cancel reaches the promise at the other end while that is pending, and nobody else.
 *  5. Nothing is left: no future is live that was not before.
 *
 * Input: operations of one byte and their operands, see operate().
 */
#include "shoal/runtime/errors.h"
#include "shoal/runtime/future.h"

#include "fuzz/fuzz_core.h"

enum { LINKS_MAX = 160, OPERATIONS_MAX = 200 };

enum kind { PROMISE, READY, FAILED, THEN, THEN_FUTURE, CATCH, FINALLY };

/* What happened to the future that a link made. */
enum fate { OPEN, CHAINED, DISCARDED, AWAITED, AWAITED_WITHOUT_VALUE };

struct outcome {
    int code;
    uint64_t value;
    bool droppable; /* the value came with a drop hook and nobody has taken it */
    bool texted;    /* a failure with the text "text" */
};

struct link {
    enum kind kind;
    enum fate fate;
    struct shoal_future *future; /* while open; a promise's while unsettled */
    struct shoal_future *promise;
    unsigned from;  /* the link that this one consumes */
    unsigned inner; /* of THEN_FUTURE: the chain that it returns */
    uint8_t param;
    struct outcome own; /* of PROMISE, READY, FAILED */
    unsigned calls;     /* of its function */
    unsigned drops;
    unsigned cancels;
    bool checked; /* by its awaiting fiber */
};

static struct link links[LINKS_MAX];
static unsigned count;
static bool in_call; /* a continuation must not run now */

/* ---- What links do ---- */

static void drop_value(union shoal_value *value)
{
    REQUIRE(value->slice.tag < count);
    links[value->slice.tag].drops++;
}

static void note_cancel(void *ctx)
{
    struct link *link = ctx;
    REQUIRE(link->promise != NULL);
    link->cancels++;
}

static uint64_t then_value(const struct link *link, uint64_t value)
{
    return value * 3 + link->param;
}

static bool fails(const struct link *link)
{
    return link->param % 5 == 4;
}

static int failure_code(const struct link *link)
{
    return -1 - link->param % 100;
}

static int run_then_fn(void *arg, const union shoal_value *in, union shoal_value *out)
{
    struct link *link = arg;
    REQUIRE(!in_call);
    link->calls++;
    out->u64 = then_value(link, in->u64);
    return fails(link) ? failure_code(link) : 0;
}

static int run_catch_fn(void *arg, int code, const char *text, union shoal_value *out)
{
    struct link *link = arg;
    REQUIRE(!in_call && code < 0 && text != NULL);
    link->calls++;
    out->u64 = then_value(link, (uint64_t)-code);
    return fails(link) ? failure_code(link) : 0;
}

static void run_finally_fn(void *arg)
{
    struct link *link = arg;
    REQUIRE(!in_call);
    link->calls++;
}

static struct shoal_future *run_then_future_fn(void *arg, const union shoal_value *in)
{
    struct link *link = arg;
    struct link *inner = &links[link->inner];
    (void)in;
    REQUIRE(!in_call && inner->future != NULL);
    link->calls++;
    struct shoal_future *future = inner->future;
    inner->future = NULL;
    return future;
}

/* ---- The model: what must have come of a link ---- */

/* Whether the function of a link runs after an outcome with `code`. */
static bool runs_after(enum kind kind, int code)
{
    return kind == FINALLY || (kind == CATCH ? code != 0 : code == 0);
}

static bool is_source(const struct link *link)
{
    return link->kind == PROMISE || link->kind == READY || link->kind == FAILED;
}

static struct outcome expect(unsigned which)
{
    const struct link *link = &links[which];
    if (is_source(link))
        return link->own;
    const struct outcome from = expect(link->from);
    if (!runs_after(link->kind, from.code) || link->kind == FINALLY)
        return from;
    if (link->kind == THEN_FUTURE)
        return expect(link->inner);
    if (fails(link)) /* again with the same code: that keeps the text */
        return (struct outcome){.code = failure_code(link),
                                .texted = from.code == failure_code(link) && from.texted};
    const uint64_t in = from.code == 0 ? from.value : (uint64_t)-from.code;
    return (struct outcome){.value = then_value(link, in)};
}

static unsigned expected_calls(unsigned which)
{
    const struct link *link = &links[which];
    return !is_source(link) && runs_after(link->kind, expect(link->from).code);
}

/* The promise whose value comes out at `which` unchanged, if it was dropped there. */
static unsigned source_of(unsigned which)
{
    const struct link *link = &links[which];
    while (link->kind != PROMISE) {
        REQUIRE(link->kind != READY && link->kind != FAILED);
        which = link->kind == THEN_FUTURE ? link->inner : link->from;
        link = &links[which];
    }
    return which;
}

/* ---- Making and ending ---- */

static struct link *add(enum kind kind, uint8_t param)
{
    struct link *link = &links[count++];
    *link = (struct link){.kind = kind, .param = param};
    return link;
}

static void add_promise(uint8_t param)
{
    struct link *link = add(PROMISE, param);
    link->promise = shoal_future_new();
    link->future = link->promise;
    if ((param & 1) != 0) {
        shoal_future_on_drop(link->promise, drop_value);
        link->own.droppable = true;
    }
    if ((param & 2) != 0)
        shoal_future_on_cancel(link->promise, note_cancel, link);
}

static void add_settled(bool ready, uint8_t param)
{
    struct link *link = add(ready ? READY : FAILED, param);
    if (ready) {
        const union shoal_value value = {.u64 = param};
        link->own.value = param;
        link->future = shoal_future_ready(&value);
    } else {
        link->own.code = failure_code(link);
        link->own.texted = (param & 1) != 0;
        link->future = link->own.texted ? shoal_future_failed(link->own.code, "%s", "text")
                                        : shoal_future_failed(link->own.code, NULL);
    }
}

static void settle(struct link *link, bool resolved)
{
    struct shoal_future *promise = link->promise;
    const uint64_t index = (uint64_t)(link - links);
    link->promise = NULL;
    in_call = true;
    if (resolved) {
        union shoal_value value = {.slice = {.tag = index}}; /* for drop_value() */
        value.u64 = link->param;
        link->own.value = link->param;
        shoal_future_resolve(promise, &value);
    } else {
        link->own.code = failure_code(link);
        link->own.droppable = false;
        link->own.texted = (link->param & 4) != 0;
        shoal_future_fail(promise, link->own.code, link->own.texted ? "text" : NULL);
    }
    in_call = false;
}

/* Appends a continuation to the open end `from`. */
static void chain(unsigned from, enum kind kind, uint8_t param, unsigned inner)
{
    struct shoal_future *future = links[from].future;
    links[from].future = NULL;
    links[from].fate = CHAINED;
    struct link *link = add(kind, param);
    link->from = from;
    link->inner = inner;
    in_call = true;
    switch (kind) {
    case THEN:
        link->future = shoal_then(future, run_then_fn, link);
        break;
    case CATCH:
        link->future = shoal_catch(future, run_catch_fn, link);
        break;
    case FINALLY:
        link->future = shoal_finally(future, run_finally_fn, link);
        break;
    default:
        link->future = shoal_then_future(future, run_then_future_fn, link);
        break;
    }
    in_call = false;
    REQUIRE(link->future != NULL);
}

static int await_it(void *arg)
{
    struct link *link = arg;
    struct shoal_future *future = link->future;
    union shoal_value out = {.u64 = 0};
    link->future = NULL;
    const bool value_wanted = link->fate == AWAITED;
    const int code = shoal_await(future, value_wanted ? &out : NULL);
    const struct outcome expected = expect((unsigned)(link - links));
    REQUIRE(code == expected.code);
    REQUIRE(code != 0 || !value_wanted || out.u64 == expected.value);
    REQUIRE(code == 0 || strcmp(shoal_error_message(), expected.texted ? "text" : "") == 0);
    link->checked = true;
    return 0;
}

static void await_end(struct link *link, bool value_wanted)
{
    link->fate = value_wanted ? AWAITED : AWAITED_WITHOUT_VALUE;
    REQUIRE(shoal_fiber_spawn_detached(await_it, link, "awaiter") == 0);
}

static void discard(struct link *link)
{
    struct shoal_future *future = link->future;
    link->future = NULL;
    link->fate = DISCARDED;
    shoal_discard(future);
}

/* The promise that the chain up to `which` waits for; NULL when it waits for none. */
static struct link *waited_for(unsigned which)
{
    const struct link *link = &links[which];
    while (!is_source(link)) {
        which = link->kind == THEN_FUTURE && link->calls > 0 ? link->inner : link->from;
        link = &links[which];
    }
    return link->promise != NULL ? &links[which] : NULL;
}

static void cancel(unsigned which)
{
    unsigned before = 0, after = 0;
    struct link *root = waited_for(which);
    const bool hears = root != NULL && (root->param & 2) != 0;
    const unsigned root_before = root != NULL ? root->cancels : 0;
    for (unsigned i = 0; i < count; i++)
        before += links[i].cancels;
    shoal_future_cancel(links[which].future);
    for (unsigned i = 0; i < count; i++)
        after += links[i].cancels;
    REQUIRE(after == before + hears);
    REQUIRE(!hears || root->cancels == root_before + 1);
}

/* ---- Operations ---- */

static bool is_end(unsigned which)
{
    return links[which].fate == OPEN && links[which].future != NULL;
}

/* The n-th open end, going round from there; LINKS_MAX if there is none. */
static unsigned some_end(unsigned n, unsigned but)
{
    for (unsigned i = 0; i < count; i++) {
        const unsigned which = (n + i) % count;
        if (which != but && is_end(which))
            return which;
    }
    return LINKS_MAX;
}

static void operate_end(uint8_t code, uint8_t param, unsigned end)
{
    unsigned inner;
    switch (code) {
    case 0:
        chain(end, THEN, param, 0);
        break;
    case 1:
        chain(end, CATCH, param, 0);
        break;
    case 2:
        chain(end, FINALLY, param, 0);
        break;
    case 3:
        inner = some_end(param, end);
        if (inner != LINKS_MAX) {
            links[inner].fate = CHAINED;
            chain(end, THEN_FUTURE, param, inner);
        }
        break;
    case 4:
        discard(&links[end]);
        break;
    case 5:
        await_end(&links[end], (param & 1) != 0);
        break;
    default:
        cancel(end);
        break;
    }
}

static void operate(struct fuzz_input *in, struct shoal_core *core)
{
    const uint8_t code = fuzz_byte(in);
    const uint8_t param = fuzz_byte(in);
    const unsigned end = some_end(fuzz_byte(in), LINKS_MAX);
    switch (code % 12) {
    case 0:
        add_promise(param);
        return;
    case 1:
    case 2:
        add_settled(code % 12 == 1, param);
        return;
    case 3:
        for (unsigned i = 0; i < count; i++)
            if (links[(param + i) % count].promise != NULL) {
                settle(&links[(param + i) % count], code < 128);
                return;
            }
        return;
    case 4:
        fuzz_core_run(core);
        return;
    default:
        if (end != LINKS_MAX)
            operate_end((code % 12) - 5, param, end);
        return;
    }
}

/* What a THEN_FUTURE would have returned, had it been called, is still there: away with it. */
static void discard_unused_inner(void)
{
    for (unsigned i = 0; i < count; i++)
        if (links[i].kind == THEN_FUTURE && links[i].calls == 0 &&
            links[links[i].inner].future != NULL)
            discard(&links[links[i].inner]);
}

static void require_calls_and_drops(void)
{
    unsigned drops[LINKS_MAX] = {0};
    for (unsigned i = 0; i < count; i++) {
        const struct link *link = &links[i];
        REQUIRE(link->calls == expected_calls(i));
        const bool unwanted = link->fate == DISCARDED || link->fate == AWAITED_WITHOUT_VALUE;
        const struct outcome outcome = expect(i);
        if (unwanted && outcome.code == 0 && outcome.droppable)
            drops[source_of(i)]++;
        REQUIRE(link->fate == CHAINED || link->fate == DISCARDED || link->checked);
    }
    for (unsigned i = 0; i < count; i++)
        REQUIRE(links[i].drops == drops[i]);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input in = {data, data + size};
    struct shoal_core *core = fuzz_core();
    const uint32_t live_before = shoal_slab_live(&core->hot.futures);
    count = 0;
    for (unsigned i = 0; i < OPERATIONS_MAX && fuzz_more(&in) && count < LINKS_MAX - 1; i++)
        operate(&in, core);
    for (unsigned i = 0; i < count; i++)
        if (is_end(i))
            await_end(&links[i], true);
    for (unsigned i = 0; i < count; i++)
        if (links[i].promise != NULL)
            settle(&links[i], i % 3 != 2);
    fuzz_core_run(core);
    discard_unused_inner();
    fuzz_core_run(core);
    require_calls_and_drops();
    REQUIRE(shoal_slab_live(&core->hot.futures) == live_before);
    return 0;
}
