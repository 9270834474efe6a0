/*
 * The intrusive list: order, membership, and removal inside a walk.
 */
#include "shoal/runtime/list.h"

#include "unit/harness.h"

struct item {
    struct shoal_list node;
    int number;
};

static int number_of(struct shoal_list *node)
{
    return SHOAL_CONTAINER_OF(node, struct item, node)->number;
}

static void fill(struct shoal_list *head, struct item *items, int count, int first)
{
    shoal_list_init(head);
    for (int i = 0; i < count; i++) {
        items[i].number = first + i;
        shoal_list_push_back(head, &items[i].node);
    }
}

static void list_empty_has_no_members(void **state)
{
    (void)state;
    struct shoal_list head;
    shoal_list_init(&head);
    assert_false(shoal_list_linked(&head));
    assert_null(shoal_list_take_front(&head));
    SHOAL_LIST_FOREACH (node, &head)
        fail();
}

static void list_push_back_keeps_the_order(void **state)
{
    (void)state;
    struct shoal_list head;
    struct item items[5];
    fill(&head, items, 5, 0);
    int expected = 0;
    SHOAL_LIST_FOREACH (node, &head)
        assert_int_equal(number_of(node), expected++);
    assert_int_equal(expected, 5);
    for (int i = 0; i < 5; i++)
        assert_int_equal(number_of(shoal_list_take_front(&head)), i);
    assert_false(shoal_list_linked(&head));
}

static void list_remove_twice_is_harmless(void **state)
{
    (void)state;
    struct shoal_list head;
    struct item items[3];
    fill(&head, items, 3, 0);
    shoal_list_remove(&items[1].node);
    assert_false(shoal_list_linked(&items[1].node));
    shoal_list_remove(&items[1].node);
    assert_int_equal(number_of(head.next), 0);
    assert_int_equal(number_of(head.prev), 2);
    assert_ptr_equal(items[0].node.next, &items[2].node);
    assert_ptr_equal(items[2].node.prev, &items[0].node);
}

static void list_foreach_safe_may_remove_the_node(void **state)
{
    (void)state;
    struct shoal_list head;
    struct item items[6];
    fill(&head, items, 6, 0);
    int seen = 0;
    SHOAL_LIST_FOREACH_SAFE (node, &head) {
        assert_int_equal(number_of(node), seen++);
        if (number_of(node) % 2 == 0)
            shoal_list_remove(node);
    }
    assert_int_equal(seen, 6);
    for (int i = 1; i < 6; i += 2)
        assert_int_equal(number_of(shoal_list_take_front(&head)), i);
}

static void list_splice_moves_all_to_the_end(void **state)
{
    (void)state;
    struct shoal_list to, from;
    struct item first[2], second[3];
    fill(&to, first, 2, 0);
    fill(&from, second, 3, 2);
    shoal_list_splice(&to, &from);
    assert_false(shoal_list_linked(&from));
    shoal_list_splice(&to, &from); /* of nothing */
    for (int i = 0; i < 5; i++)
        assert_int_equal(number_of(shoal_list_take_front(&to)), i);
    fill(&from, second, 3, 7);
    shoal_list_splice(&to, &from); /* into an empty one */
    assert_int_equal(number_of(to.next), 7);
    assert_int_equal(number_of(to.prev), 9);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(list_empty_has_no_members),
        cmocka_unit_test(list_push_back_keeps_the_order),
        cmocka_unit_test(list_remove_twice_is_harmless),
        cmocka_unit_test(list_foreach_safe_may_remove_the_node),
        cmocka_unit_test(list_splice_moves_all_to_the_end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
