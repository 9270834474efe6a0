/*
 * Which core owns a key: the promises of key_owner.h.
 */
/* backends: both */
#include "shoal/smp/key_owner.h"
#include "shoal/smp/submit.h"

#include "unit/harness.h"

#define KEYS 200000u

/* Written down once: what is on disk depends on them. */
static void key_hash_is_the_same_for_ever(void **state)
{
    (void)state;
    static const struct {
        const char *key;
        uint64_t hash;
    } known[] = {
        {"", UINT64_C(0xe220a8397b1dcdaf)},
        {"a", UINT64_C(0x5e025f9ade9eaf3e)},
        {"shoal", UINT64_C(0xf65178e2c3b802d5)},
        {"12345678", UINT64_C(0x83dbec76b33f9ca3)},
        {"a key of more than two words, and an odd end", UINT64_C(0x007e508d38f99a15)},
    };
    for (size_t i = 0; i < SHOAL_ARRAY_SIZE(known); i++)
        assert_int_equal(shoal_key_hash(known[i].key, strlen(known[i].key)), known[i].hash);
    assert_int_equal(shoal_key_hash(NULL, 0), known[0].hash);
    static const unsigned owners[][3] = {{0, 2, 0}, {1, 2, 1},  {2, 8, 4},
                                         {3, 8, 4}, {4, 64, 1}, {123456789, 1024, 137}};
    for (size_t i = 0; i < SHOAL_ARRAY_SIZE(owners); i++)
        assert_int_equal(shoal_key_owner(shoal_key_hash_u64(owners[i][0]), owners[i][1]),
                         owners[i][2]);
}

static void key_hash_of_a_number_is_that_of_its_bytes(void **state)
{
    (void)state;
    const unsigned char bytes[8] = {0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11};
    assert_int_equal(shoal_key_hash_u64(UINT64_C(0x1122334455667788)),
                     shoal_key_hash(bytes, sizeof(bytes)));
}

static void key_hash_ignores_where_the_key_lies(void **state)
{
    (void)state;
    char text[64];
    for (size_t offset = 0; offset < 16; offset++) {
        memset(text, (int)offset, sizeof(text));
        memcpy(text + offset, "somewhere in memory", 19);
        assert_int_equal(shoal_key_hash(text + offset, 19),
                         shoal_key_hash("somewhere in memory", 19));
    }
}

static void key_hash_tells_zeros_of_each_length_apart(void **state)
{
    (void)state;
    static const char zeros[40];
    for (size_t a = 0; a <= sizeof(zeros); a++)
        for (size_t b = 0; b < a; b++)
            assert_int_not_equal(shoal_key_hash(zeros, a), shoal_key_hash(zeros, b));
}

/* Each bit of a key changes about half of the bits of its hash. */
static void key_hash_spreads_each_bit(void **state)
{
    (void)state;
    unsigned char key[24] = {0};
    for (size_t length = 1; length <= sizeof(key); length += 7) {
        uint64_t base = shoal_key_hash(key, length);
        unsigned flipped = 0;
        for (size_t bit = 0; bit < length * 8; bit++) {
            key[bit / 8] ^= (unsigned char)(1u << bit % 8);
            unsigned count = (unsigned)__builtin_popcountll(base ^ shoal_key_hash(key, length));
            assert_in_range(count, 10, 54);
            flipped += count;
            key[bit / 8] ^= (unsigned char)(1u << bit % 8);
        }
        assert_in_range(flipped / (length * 8), 26, 38);
    }
}

static void key_owner_is_even(void **state)
{
    (void)state;
    static const unsigned counts[] = {1, 2, 3, 7, 8, 64};
    for (size_t c = 0; c < SHOAL_ARRAY_SIZE(counts); c++) {
        unsigned owned[64] = {0};
        for (uint64_t key = 0; key < KEYS; key++) {
            unsigned owner = shoal_key_owner(shoal_key_hash_u64(key), counts[c]);
            assert_in_range(owner, 0, counts[c] - 1);
            owned[owner]++;
        }
        unsigned share = KEYS / counts[c];
        for (unsigned i = 0; i < counts[c]; i++)
            assert_in_range(owned[i], share - share / 4, share + share / 4);
    }
}

static void key_owner_moves_few_keys_and_only_to_the_new_one(void **state)
{
    (void)state;
    for (unsigned owners = 1; owners < 40; owners++) {
        unsigned moved = 0;
        for (uint64_t key = 0; key < KEYS / 10; key++) {
            uint64_t hash = shoal_key_hash_u64(key);
            unsigned before = shoal_key_owner(hash, owners);
            unsigned after = shoal_key_owner(hash, owners + 1);
            if (before == after)
                continue;
            assert_int_equal(after, owners);
            moved++;
        }
        unsigned fair = KEYS / 10 / (owners + 1);
        assert_in_range(moved, fair - fair / 3, fair + fair / 3);
    }
}

static void key_owner_of_extreme_hashes_exists(void **state)
{
    (void)state;
    static const uint64_t hashes[] = {0, 1, UINT64_MAX, UINT64_MAX - 1, UINT64_C(1) << 63};
    static const unsigned counts[] = {1, 2, 1024, 65536};
    for (size_t h = 0; h < SHOAL_ARRAY_SIZE(hashes); h++)
        for (size_t c = 0; c < SHOAL_ARRAY_SIZE(counts); c++)
            assert_in_range(shoal_key_owner(hashes[h], counts[c]), 0, counts[c] - 1);
}

static int own_nothing(void *arg)
{
    return (int)shoal_key_owner(1, (unsigned)(uintptr_t)arg);
}

static void key_owner_without_owners_aborts(void **state)
{
    (void)state;
    shoal_test_aborts_with(own_nothing, (void *)0, "a key with 0 owners (allowed: 1 to 65536)");
    shoal_test_aborts_with(own_nothing, (void *)65537, "a key with 65537 owners");
}

static int check_core(void *arg)
{
    (void)arg;
    SHOAL_EXPECT_INT(shoal_key_core("k", 1), shoal_key_owner(shoal_key_hash("k", 1), 3));
    SHOAL_EXPECT_INT(shoal_key_core_u64(77), shoal_key_owner(shoal_key_hash_u64(77), 3));
    return 0;
}

static void key_core_is_the_owner_among_all_cores(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(3, check_core, NULL), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(key_hash_is_the_same_for_ever),
        cmocka_unit_test(key_hash_of_a_number_is_that_of_its_bytes),
        cmocka_unit_test(key_hash_ignores_where_the_key_lies),
        cmocka_unit_test(key_hash_tells_zeros_of_each_length_apart),
        cmocka_unit_test(key_hash_spreads_each_bit),
        cmocka_unit_test(key_owner_is_even),
        cmocka_unit_test(key_owner_moves_few_keys_and_only_to_the_new_one),
        cmocka_unit_test(key_owner_of_extreme_hashes_exists),
        cmocka_unit_test(key_owner_without_owners_aborts),
        cmocka_unit_test(key_core_is_the_owner_among_all_cores),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
