/* Ids of the transactions included in the last blocks, and where their receipts stand: a queue by
 * height with an index over it. Nothing here is thread-safe: the owner locks. */
#ifndef ASSAY_WINDOW_H
#define ASSAY_WINDOW_H

#include <stddef.h>
#include <stdint.h>

#include "accounts.h"
#include "key_index.h"

#define ASSAY_WINDOW_BLOCKS_MAX 65536u

typedef struct {
    uint64_t height;
    uint64_t count;
} assay_window_height;

typedef struct {
    assay_key_index index;        /* from an id to its place in the ring */
    uint8_t *ids;                 /* a ring of `capacity` ids, a power of two */
    uint32_t *leaves;             /* beside it */
    size_t head, count, capacity; /* the oldest id's place; ids; */
    assay_window_height *heights; /* rising, each with at least one id */
    size_t height_count;
    uint32_t blocks;
} assay_window;

/* 0 when there is no memory. `blocks` is 1 to ASSAY_WINDOW_BLOCKS_MAX. */
int assay_window_make(assay_window *window, const uint64_t seed[2], uint32_t blocks);
void assay_window_free(assay_window *window);

/* The id's place in the ring, or ASSAY_NO_ROW. */
static inline uint32_t assay_window_find(const assay_window *window, const uint8_t *id,
                                         uint32_t hash) {
    return assay_key_index_find(&window->index, window->ids, ASSAY_KEY_BYTES, id, hash);
}

/* Whether ids of this height may be added now. */
assay_ledger_status assay_window_accepts(const assay_window *window, uint64_t height);
assay_ledger_status assay_window_reserve(assay_window *window, size_t more);
/* Needs room that was reserved, a height that is accepted, and an id that is not there. */
void assay_window_add(assay_window *window, const uint8_t *id, uint32_t hash, uint64_t height,
                      uint32_t leaf);
/* The height of the id at a place. */
uint64_t assay_window_height_at(const assay_window *window, uint32_t place);
/* First id (counted from the oldest) and number of ids of a height; 0 when it has none. */
size_t assay_window_range(const assay_window *window, uint64_t height, size_t *first);
/* Copies ids (32 bytes each) and leaf indices (u32-LE each); either may be NULL. */
void assay_window_copy(const assay_window *window, size_t first, size_t count, uint8_t *ids,
                       uint8_t *leaves);
void assay_window_drop_through(assay_window *window, uint64_t height);
/* Adds `count` ids of one height, or none. `leaves` is u32-LE each, or NULL for 0, 1, 2, ... */
assay_ledger_status assay_window_load(assay_window *window, uint64_t height, const uint8_t *ids,
                                      const uint8_t *leaves, size_t count);

#endif
