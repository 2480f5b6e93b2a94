/* Decoded public keys that are kept from one batch to the next: senders come again.
 *
 * A table of fixed size with one place for each hash; a newcomer takes the place. Only keys that are
 * points enter, under their exact 32 bytes, so an answer never depends on what is kept. */
#ifndef ASSAY_ED25519_KEYS_H
#define ASSAY_ED25519_KEYS_H

#include <stddef.h>
#include <stdint.h>

#include "edwards_engine.h"

#define ASSAY_KEY_CACHE_SECRET_SIZE 32

typedef struct assay_key_cache assay_key_cache;

/* `places` is rounded up to a power of two, at most 2^20; 0 keeps nothing. NULL when memory ran out. */
assay_key_cache *assay_key_cache_new(size_t places,
                                     const uint8_t secret[ASSAY_KEY_CACHE_SECRET_SIZE]);
void assay_key_cache_free(assay_key_cache *cache);

/* A hash that nobody can aim at who does not know the secret. */
uint64_t assay_key_cache_hash(const assay_key_cache *cache, const uint8_t public_key[32]);

/* For each of `count` keys: found[i] = 1 and points[i] set, or found[i] = 0. Threads take turns. */
void assay_key_cache_find(assay_key_cache *cache, size_t count, const uint8_t *const *public_keys,
                          edwards_ready *points, uint8_t *found);
/* Keeps the keys with valid[i] = 1. */
void assay_key_cache_keep(assay_key_cache *cache, size_t count, const uint8_t *const *public_keys,
                          const edwards_ready *points, const uint8_t *valid);

#endif
