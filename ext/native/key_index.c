#include "key_index.h"

#include <stdlib.h>

#include "little_endian.h"
#include "memory.h"

int assay_key_index_make(assay_key_index *index, const uint64_t seed[2], size_t rows) {
    index->slots = assay_table_memory(2 * rows * sizeof *index->slots);
    index->mask = 2 * (uint64_t)rows - 1;
    index->seed[0] = seed[0];
    index->seed[1] = seed[1];
    if (index->slots == NULL) return 0;
    memset(index->slots, 0, 2 * rows * sizeof *index->slots);
    return 1;
}

void assay_key_index_free(assay_key_index *index) {
    free(index->slots);
    index->slots = NULL;
}

int assay_key_index_grow(assay_key_index *index, size_t rows) {
    assay_key_index grown;
    if (2 * (uint64_t)rows <= index->mask + 1) return 1;
    if (!assay_key_index_make(&grown, index->seed, rows)) return 0;
    for (uint64_t at = 0; at <= index->mask; at++)
        if (index->slots[at] != 0)
            assay_key_index_insert(&grown, (uint32_t)(index->slots[at] >> 32),
                                   (uint32_t)index->slots[at] - 1);
    assay_key_index_free(index);
    *index = grown;
    return 1;
}

void assay_key_index_insert(assay_key_index *index, uint32_t hash, uint32_t row) {
    uint64_t at = hash & index->mask;
    while (index->slots[at] != 0) at = (at + 1) & index->mask;
    index->slots[at] = (uint64_t)hash << 32 | (row + 1u);
}

void assay_key_index_remove(assay_key_index *index, uint32_t hash, uint32_t row) {
    const uint64_t mask = index->mask, wanted = (uint64_t)hash << 32 | (row + 1u);
    uint64_t hole = hash & mask;
    while (index->slots[hole] != wanted) hole = (hole + 1) & mask;
    /* A later slot of the same run may move into the hole unless its home lies behind the hole. */
    for (uint64_t at = (hole + 1) & mask; index->slots[at] != 0; at = (at + 1) & mask) {
        uint64_t home = (index->slots[at] >> 32) & mask;
        if (((at - home) & mask) < ((at - hole) & mask)) continue;
        index->slots[hole] = index->slots[at];
        hole = at;
    }
    index->slots[hole] = 0;
}

static inline uint64_t rotate_left(uint64_t word, unsigned bits) {
    return word << bits | word >> (64 - bits);
}

static inline void sip_round(uint64_t v[4]) {
    v[0] += v[1];
    v[2] += v[3];
    v[1] = rotate_left(v[1], 13) ^ v[0];
    v[3] = rotate_left(v[3], 16) ^ v[2];
    v[0] = rotate_left(v[0], 32);
    v[2] += v[1];
    v[0] += v[3];
    v[1] = rotate_left(v[1], 17) ^ v[2];
    v[3] = rotate_left(v[3], 21) ^ v[0];
    v[2] = rotate_left(v[2], 32);
}

/* SipHash-1-3 (Aumasson, Bernstein: SipHash, 2012) of the key, folded to 32 bits. */
uint32_t assay_key_hash(const assay_key_index *index, const uint8_t key[ASSAY_KEY_BYTES]) {
    uint64_t v[4] = {
        index->seed[0] ^ 0x736f6d6570736575u,
        index->seed[1] ^ 0x646f72616e646f6du,
        index->seed[0] ^ 0x6c7967656e657261u,
        index->seed[1] ^ 0x7465646279746573u,
    };
    for (int word = 0; word <= ASSAY_KEY_BYTES / 8; word++) {
        /* The last word holds only the length, in its top byte. */
        uint64_t message = word < ASSAY_KEY_BYTES / 8 ? load_le64(key + 8 * word)
                                                      : (uint64_t)ASSAY_KEY_BYTES << 56;
        v[3] ^= message;
        sip_round(v);
        v[0] ^= message;
    }
    v[2] ^= 0xff;
    for (int round = 0; round < 3; round++) sip_round(v);
    uint64_t hash = v[0] ^ v[1] ^ v[2] ^ v[3];
    return (uint32_t)(hash ^ hash >> 32);
}
