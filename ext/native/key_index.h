/* Finds the row of a 32-byte key: open addressing, linear probing, a seed from the operating system.
 *
 * A slot holds 32 bits of the key's hash and the row, so most probes end without touching a row, and
 * neither growing nor removing reads one. Removal moves later slots back: there are no tombstones, so a
 * table that forgets as much as it learns does not slow down. Keys are chosen by strangers, hence
 * SipHash under a secret seed; where a key is found never shows outside. */
#ifndef ASSAY_KEY_INDEX_H
#define ASSAY_KEY_INDEX_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define ASSAY_KEY_BYTES 32
#define ASSAY_NO_ROW UINT32_MAX

typedef struct {
    uint64_t *slots; /* hash << 32 | row + 1; 0 is empty */
    uint64_t mask;   /* slots - 1; at most half of the slots are used */
    uint64_t seed[2];
} assay_key_index;

/* An empty index with room for `rows` keys, a power of two. 0 when there is no memory. */
int assay_key_index_make(assay_key_index *index, const uint64_t seed[2], size_t rows);
void assay_key_index_free(assay_key_index *index);
/* Makes room for `rows` keys, a power of two not below the keys it holds. 0 when there is no memory;
 * the index is then as before. */
int assay_key_index_grow(assay_key_index *index, size_t rows);
void assay_key_index_insert(assay_key_index *index, uint32_t hash, uint32_t row);
/* The key must be there. */
void assay_key_index_remove(assay_key_index *index, uint32_t hash, uint32_t row);
uint32_t assay_key_hash(const assay_key_index *index, const uint8_t key[ASSAY_KEY_BYTES]);

static inline void assay_key_index_prefetch(const assay_key_index *index, uint32_t hash) {
    __builtin_prefetch(&index->slots[hash & index->mask]);
}

/* The row that most likely holds the key: the first with its hash. For prefetching alone. */
static inline uint32_t assay_key_index_guess(const assay_key_index *index, uint32_t hash) {
    for (uint64_t at = hash & index->mask; index->slots[at] != 0; at = (at + 1) & index->mask)
        if (index->slots[at] >> 32 == hash) return (uint32_t)index->slots[at] - 1;
    return ASSAY_NO_ROW;
}

/* The row of a key, or ASSAY_NO_ROW. Keys stand `stride` bytes apart. */
static inline uint32_t assay_key_index_find(const assay_key_index *index, const uint8_t *keys,
                                            size_t stride, const uint8_t key[ASSAY_KEY_BYTES],
                                            uint32_t hash) {
    for (uint64_t at = hash & index->mask; index->slots[at] != 0; at = (at + 1) & index->mask) {
        uint64_t slot = index->slots[at];
        if (slot >> 32 != hash) continue;
        uint32_t row = (uint32_t)slot - 1;
        if (memcmp(keys + stride * row, key, ASSAY_KEY_BYTES) == 0) return row;
    }
    return ASSAY_NO_ROW;
}

#endif
