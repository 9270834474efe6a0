/*
 * For the tests of inspection: a report as one text, and what may be asked of it.
 */
#ifndef SHOAL_TESTS_UNIT_INSPECT_CHECK_H
#define SHOAL_TESTS_UNIT_INSPECT_CHECK_H

#include "shoal/runtime/check.h"
#include "shoal/runtime/core_impl.h"

#include "shoal/smp/inspect.h"

#include "unit/harness.h"

#define TEXT_MAX (4u << 20)

/* The text of a report, and what its writer is to return. */
struct collected {
    char *text;
    size_t length;
    unsigned pieces;
    int answer;
    bool yields;
};

static inline int collect(void *ctx, const char *text, size_t size)
{
    struct collected *all = ctx;
    all->pieces++;
    if (size < TEXT_MAX - all->length) {
        memcpy(all->text + all->length, text, size);
        all->length += size;
        all->text[all->length] = '\0';
    }
    if (all->yields)
        (void)shoal_yield();
    return all->answer;
}

static inline void collected_init(struct collected *all)
{
    memset(all, 0, sizeof(*all));
    all->text = malloc(TEXT_MAX);
    SHOAL_CHECK(all->text != NULL, "no memory for a test");
    all->text[0] = '\0';
}

static inline void report(struct collected *all)
{
    collected_init(all);
    SHOAL_EXPECT_INT(shoal_inspect_all(collect, all), 0);
}

/* Whether `text` is there; prints the whole when not. */
static inline bool says(const struct collected *all, const char *text)
{
    bool there = strstr(all->text, text) != NULL;
    if (!there)
        fprintf(stderr, "\"%s\" is not in:\n%s\n", text, all->text);
    return there;
}

static inline unsigned count_of(const char *text, const char *what)
{
    unsigned count = 0;
    for (; (text = strstr(text, what)) != NULL; text += strlen(what))
        count++;
    return count;
}

static inline struct shoal_fiber *spawn(shoal_fiber_fn *fn, void *arg, const char *name)
{
    struct shoal_fiber *fiber = NULL;
    SHOAL_EXPECT_INT(shoal_fiber_spawn(&fiber, fn, arg, name), 0);
    return fiber;
}

static inline int cancel_sleepers(void *arg, union shoal_value *out)
{
    (void)arg;
    (void)out;
    SHOAL_LIST_FOREACH (node, &shoal_core_self->fibers.live)
        shoal_fiber_cancel(SHOAL_CONTAINER_OF(node, struct shoal_fiber, node));
    return 0;
}

#endif
