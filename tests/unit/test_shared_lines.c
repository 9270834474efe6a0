/*
 * Which cache lines two cores both touch, and that nothing else lies in them: the table of
 * docs/cross-core.md, "What two cores share".
 *
 * Each field of a struct that others can reach has a class. Two classes that do not go together are
 * never in one line. What is added to such a struct is to be classed here, unless it lies in what
 * was left of a line, where nobody can tell it from padding.
 */
#include "shoal/runtime/core_impl.h"

#include "shoal/smp/core_channel_impl.h"
#include "shoal/smp/launch_impl.h"
#include "shoal/smp/mailbox_impl.h"
#include "shoal/smp/submit.h"

#include "shoal/net/stream_impl.h"

#include "unit/harness.h"

enum sharing {
    OWN,   /* written by its core at work, and of nobody else's interest */
    MEET,  /* written by one thread or several, and read by another, at work */
    OTHER, /* the same, by the other core than MEET's */
    FIXED, /* read by others at work, and written before they know of it */
    RARE,  /* at the start, at the stop, for reports: goes with all */
};

struct field {
    const char *name;
    size_t begin;
    size_t end;
    enum sharing sharing;
};

#define FIELD(type, member, sharing)                                                               \
    {                                                                                              \
#member, offsetof(type, member), offsetof(type, member) + sizeof(((type *)0)->member),     \
            (sharing)                                                                              \
    }

/* From `first` up to `next`, not included. */
#define FIELDS(type, first, next, sharing)                                                         \
    {                                                                                              \
#first "...", offsetof(type, first), offsetof(type, next), (sharing)                       \
    }

static bool go_together(enum sharing a, enum sharing b)
{
    if (a == b || a == RARE || b == RARE)
        return true;
    return (a == FIXED && b == MEET) || (a == MEET && b == FIXED); /* for the same readers */
}

/* Padding: to the alignment of what follows, or the rest of a line. */
static bool may_be_padding(size_t begin, size_t end)
{
    return end - begin < 8 || (end % SHOAL_CACHE_LINE == 0 && end - begin < SHOAL_CACHE_LINE);
}

static void check_field(const char *name, const struct field *fields, size_t i)
{
    const struct field *field = &fields[i];
    for (size_t j = 0; j < i; j++) {
        const struct field *before = &fields[j];
        if (!go_together(field->sharing, before->sharing) &&
            (before->end - 1) / SHOAL_CACHE_LINE == field->begin / SHOAL_CACHE_LINE)
            fail_msg("%s and %s are in one line of struct %s", before->name, field->name, name);
    }
}

static void check_struct(const char *name, size_t size, const struct field *fields, size_t count)
{
    size_t at = 0;
    for (size_t i = 0; i < count; i++) {
        const struct field *field = &fields[i];
        if (field->begin < at || !may_be_padding(at, field->begin))
            fail_msg("bytes %zu to %zu of struct %s, before %s, have no class", at, field->begin,
                     name, field->name);
        at = field->end;
        check_field(name, fields, i);
    }
    if (!may_be_padding(at, size))
        fail_msg("bytes %zu to %zu of struct %s have no class", at, size, name);
}

#define CHECK_STRUCT(type, fields)                                                                 \
    do {                                                                                           \
        check_struct(#type, sizeof(type), fields, SHOAL_ARRAY_SIZE(fields));                       \
        assert_int_equal(_Alignof(type) % SHOAL_CACHE_LINE, 0);                                    \
    } while (0)

/* ---- Structs ---- */

typedef struct shoal_member member;

static void lines_of_a_core_are_its_own_but_for_mail_tasks_and_helpers(void **state)
{
    (void)state;
    static const struct field fields[] = {
        FIELDS(member, core, core.blocking, OWN),
        FIELD(member, core.blocking, MEET), /* the core, its helper threads */
        FIELDS(member, core.stall, core.shared, OWN),
        FIELD(member, core.shared, MEET),   /* anybody posts and wakes */
        FIELD(member, core.wake_fd, FIXED), /* by who wakes */
        FIELD(member, foreign, OWN),
        FIELDS(member, mail, mail.rows, OWN),
        FIELD(member, mail.rows, RARE),   /* its own; grows with the first message of a group */
        FIELD(member, mail.dirty, FIXED), /* by who announces */
        FIELD(member, launch, FIXED),
        FIELDS(member, quit, rc, RARE), /* at the stop */
        FIELD(member, rc, RARE),        /* at the start */
        FIELD(member, error, RARE),
    };
    CHECK_STRUCT(member, fields);
}

typedef struct shoal_mail_channel channel;

static void lines_of_a_channel_have_one_writer_each(void **state)
{
    (void)state;
    static const struct field fields[] = {
        FIELD(channel, requests_watched, MEET), FIELD(channel, answers_watched, OTHER),
        FIELDS(channel, slots, cancels, FIXED), FIELD(channel, cancels, FIXED),
        FIELD(channel, requests, FIXED),        FIELD(channel, answers, FIXED),
    };
    CHECK_STRUCT(channel, fields);
    assert_int_equal(sizeof(struct shoal_request_slot), SHOAL_CACHE_LINE);
    assert_int_equal(sizeof(struct shoal_answer_slot), SHOAL_CACHE_LINE);
}

typedef struct shoal_core_inlet inlet;
typedef struct shoal_core_sender sender;

static void lines_of_a_core_channel_have_one_writer_each(void **state)
{
    (void)state;
    /* MEET's writer is the sending core, OTHER's the home; each reads the other's. */
    static const struct field inlet_fields[] = {
        FIELDS(inlet, node, from, OWN),    FIELD(inlet, from, OWN),  FIELD(inlet, tail, MEET),
        FIELD(inlet, tail_watched, MEET),  FIELD(inlet, bell, MEET), FIELD(inlet, head, OTHER),
        FIELD(inlet, head_watched, OTHER),
    };
    static const struct field sender_fields[] = {
        FIELDS(sender, line, asked, OWN),  FIELD(sender, asked, OWN),
        FIELD(sender, credit_bell, OTHER), FIELD(sender, please_close, OTHER),
        FIELD(sender, farewell, RARE),
    };
    CHECK_STRUCT(inlet, inlet_fields);
    CHECK_STRUCT(sender, sender_fields);
}

typedef struct shoal_launch launch;

/* Read with each announcement: the fleet. Core 0 alone: what it stops with. */
static void lines_of_the_launch_are_read_only_at_work(void **state)
{
    (void)state;
    static const struct field fields[] = {
        FIELDS(launch, program, fleet, FIXED),
        FIELDS(launch, fleet, fleet.groups_lock, FIXED),
        FIELDS(launch, fleet.groups_lock, fleet.default_group, RARE), /* groups come and go */
        FIELDS(launch, fleet.default_group, members, FIXED),
        FIELDS(launch, members, gate, FIXED),
        FIELDS(launch, gate, io, RARE), /* start and stop */
        FIELDS(launch, io, probe, RARE),
        FIELD(launch, probe, RARE), /* reports of fibers */
        FIELDS(launch, leaked, stop_hooks, RARE),
        FIELDS(launch, stop_hooks, exit_code, OWN),
        FIELD(launch, exit_code, OWN),
    };
    check_struct("launch", sizeof(launch), fields, SHOAL_ARRAY_SIZE(fields));
}

typedef struct shoal_net net;

static void lines_of_the_net_are_its_cores_own_but_for_the_load(void **state)
{
    (void)state;
    static const struct field fields[] = {
        FIELD(net, load, MEET), /* its core writes, balancers read */
        FIELDS(net, blocks, handover, OWN),
        FIELD(net, handover, OWN),
    };
    CHECK_STRUCT(net, fields);
}

/* ---- What is laid out when it is made ---- */

static size_t line_of(const volatile void *at)
{
    return (uintptr_t)at / SHOAL_CACHE_LINE;
}

static void check_channel(const struct shoal_outbox *outbox)
{
    const struct shoal_mail_channel *made = outbox->channel;
    uint32_t slots = made->slots;
    SHOAL_EXPECT((uintptr_t)made % SHOAL_CACHE_LINE == 0);
    SHOAL_EXPECT((uintptr_t)made->requests % SHOAL_CACHE_LINE == 0);
    SHOAL_EXPECT((uintptr_t)made->answers % SHOAL_CACHE_LINE == 0);
    SHOAL_EXPECT(line_of(made->cancels) > line_of(&made->answers));
    SHOAL_EXPECT(line_of(made->requests) >
                 line_of(&made->cancels[shoal_mail_cancel_words(slots) - 1]));
    SHOAL_EXPECT(line_of(made->answers) > line_of(&made->requests[slots - 1]));
    SHOAL_EXPECT((const char *)(made->answers + slots) ==
                 (const char *)made + shoal_mail_channel_bytes(slots));
}

static int answer_nothing(void *arg, union shoal_value *out)
{
    (void)arg;
    (void)out;
    return 0;
}

static int check_mail(void *arg, union shoal_value *out)
{
    (void)arg;
    (void)out;
    const struct shoal_mail *mail = shoal_mail_self();
    SHOAL_EXPECT((uintptr_t)mail->dirty % SHOAL_CACHE_LINE == 0);
    SHOAL_EXPECT(line_of(&mail->dirty) != line_of(&mail->unverified));
    SHOAL_EXPECT(line_of(mail->core) == line_of(shoal_core_self));
    SHOAL_EXPECT((uintptr_t)shoal_core_self % SHOAL_CACHE_LINE == 0);
    for (unsigned to = 0; to < mail->cores; to++) {
        SHOAL_EXPECT_INT(shoal_await(shoal_submit_to(to, answer_nothing, NULL), NULL), 0);
        if (to != shoal_core_self->id)
            check_channel(mail->outboxes[to]);
    }
    return 0;
}

static int check_program(void *arg)
{
    for (unsigned core = 0; core < shoal_core_count(); core++)
        SHOAL_EXPECT_INT(shoal_await(shoal_submit_fiber_to(core, check_mail, arg), NULL), 0);
    struct shoal_service_group *small;
    SHOAL_EXPECT_INT(shoal_service_group_new(&small, "small", 1), 0);
    const struct shoal_submit call = {.group = small, .fn = answer_nothing};
    SHOAL_EXPECT_INT(shoal_await(shoal_submit(1, &call), NULL), 0);
    check_channel(shoal_mail_self()->rows[small->id].outboxes[1]);
    SHOAL_EXPECT_INT(shoal_service_group_free(small), 0);
    return 0;
}

static void lines_of_what_is_allocated_are_of_one_writer(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(3, check_program, NULL), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lines_of_a_core_are_its_own_but_for_mail_tasks_and_helpers),
        cmocka_unit_test(lines_of_a_channel_have_one_writer_each),
        cmocka_unit_test(lines_of_a_core_channel_have_one_writer_each),
        cmocka_unit_test(lines_of_the_launch_are_read_only_at_work),
        cmocka_unit_test(lines_of_the_net_are_its_cores_own_but_for_the_load),
        cmocka_unit_test(lines_of_what_is_allocated_are_of_one_writer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
