/*
 * Which core owns a key: a stable hash, and from it a core.
 *
 *   unsigned core = shoal_key_owner(shoal_key_hash(name, length), shoal_core_count());
 *
 * 1. The same key gives the same hash and the same owner in every run, on every machine and in
 *    every version: what a core keeps on disk it finds again. No floating point is involved.
 * 2. Owners are even: of K keys each of N cores gets K/N, as chance has it.
 * 3. Going from N to N + 1 cores moves 1 in N + 1 keys, all of them to the new core; no key moves
 *    between two cores that were there before. That is the jump consistent hash of Lamping and
 *    Veach (arXiv:1406.2294).
 * 4. The hash is not keyed: who chooses keys can have them all land on one core. Mix a secret into
 *    keys that strangers choose, if that matters.
 *
 * All are pure functions: any thread, no errors, no yield.
 */
#ifndef SHOAL_SMP_KEY_OWNER_H
#define SHOAL_SMP_KEY_OWNER_H

#include <stddef.h>
#include <stdint.h>

#include "shoal/runtime/compiler.h"

SHOAL_BEGIN_DECLS

/*
 * 64-bit hash of `bytes` bytes at `key` (NULL is fine if there are none). About 6 ns for each 8
 * bytes.
 */
SHOAL_API uint64_t shoal_key_hash(const void *key, size_t bytes);

/* The same for a number: the hash of its 8 bytes, the lowest first. */
SHOAL_API uint64_t shoal_key_hash_u64(uint64_t key);

/*
 * Who of `owners` (1 to 65536; aborts otherwise), counted from 0, owns what has this `hash`. Its
 * time grows with the logarithm of `owners`: some 20 ns for 16.
 */
SHOAL_API unsigned shoal_key_owner(uint64_t hash, unsigned owners);

/* The core of this program that owns a key, in one call. */
SHOAL_API unsigned shoal_key_core(const void *key, size_t bytes);
SHOAL_API unsigned shoal_key_core_u64(uint64_t key);

SHOAL_END_DECLS

#endif
