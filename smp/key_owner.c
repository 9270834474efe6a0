/*
 * Which core owns a key: see key_owner.h. What is computed here is part of the interface: never to
 * change.
 *
 *   hash:   state = mix(length);  for each 8 bytes, little-endian, the last ones filled up with
 *           zeros:  state = mix(state ^ word).  mix() can be undone, so two keys of one length that
 *           differ in one word never have one hash.
 *   owner:  a random walk that the hash seeds. With b the owner among so many that it has just
 *           become one, the number of owners at which the key moves next is drawn so that it moves
 *           with chance 1/n at each n; the last b that is an owner is the answer.
 *
 * Rejected: the high half of hash * owners, which takes 1 ns but moves half of all keys when a core
 * is added; highest random weight, which asks for every core; the floating point of the paper,
 * where the rounding mode of the thread could move a key.
 */
#include "shoal/smp/key_owner.h"

#include <string.h>

#include <endian.h>

#include "shoal/runtime/check.h"

#include "shoal/smp/submit.h"

#define OWNERS_MAX 65536u

/* Multiplier of the generator that the paper names; any full-period one would do. */
#define WALK_FACTOR UINT64_C(2862933555777941757)

/* Each bit of the input changes each bit of the result with chance 1/2. */
static uint64_t mix(uint64_t x)
{
    x += UINT64_C(0x9e3779b97f4a7c15);
    x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
    return x ^ (x >> 31);
}

uint64_t shoal_key_hash(const void *key, size_t bytes)
{
    const unsigned char *at = key;
    uint64_t state = mix(bytes);
    uint64_t word;
    for (; bytes >= sizeof(word); bytes -= sizeof(word), at += sizeof(word)) {
        memcpy(&word, at, sizeof(word));
        state = mix(state ^ le64toh(word));
    }
    if (bytes > 0) {
        word = 0;
        memcpy(&word, at, bytes);
        state = mix(state ^ le64toh(word));
    }
    return state;
}

uint64_t shoal_key_hash_u64(uint64_t key)
{
    return mix(mix(sizeof(key)) ^ key);
}

unsigned shoal_key_owner(uint64_t hash, unsigned owners)
{
    SHOAL_CHECK(owners >= 1 && owners <= OWNERS_MAX, "a key with %u owners (allowed: 1 to %u)",
                owners, OWNERS_MAX);
    uint64_t owner = 0;
    uint64_t next = 0;
    while (next < owners) {
        owner = next;
        hash = hash * WALK_FACTOR + 1;
        /* (owner + 1) / a random fraction of (0, 1], in 31 bits of binary fraction. */
        next = ((owner + 1) << 31) / ((hash >> 33) + 1);
    }
    return (unsigned)owner;
}

unsigned shoal_key_core(const void *key, size_t bytes)
{
    return shoal_key_owner(shoal_key_hash(key, bytes), shoal_core_count());
}

unsigned shoal_key_core_u64(uint64_t key)
{
    return shoal_key_owner(shoal_key_hash_u64(key), shoal_core_count());
}
