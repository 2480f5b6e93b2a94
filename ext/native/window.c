#include "window.h"

#include <stdlib.h>

#include "little_endian.h"
#include "memory.h"

enum {
    IDS_AT_FIRST = 64,
    GROUP = 32, /* ids whose slots are fetched ahead */
};

static inline size_t place_of(const assay_window *window, size_t position) {
    return (window->head + position) & (window->capacity - 1);
}

static inline uint8_t *id_at(const assay_window *window, size_t place) {
    return window->ids + ASSAY_KEY_BYTES * place;
}

int assay_window_make(assay_window *window, const uint64_t seed[2], uint32_t blocks) {
    memset(window, 0, sizeof *window);
    window->blocks = blocks;
    window->capacity = IDS_AT_FIRST;
    window->ids = assay_table_memory((size_t)ASSAY_KEY_BYTES * IDS_AT_FIRST);
    window->leaves = malloc(sizeof *window->leaves * IDS_AT_FIRST);
    /* The oldest, and as many more as may stand above it. */
    window->heights = malloc(sizeof *window->heights * ((size_t)blocks + 1));
    if (window->ids != NULL && window->leaves != NULL && window->heights != NULL &&
        assay_key_index_make(&window->index, seed, IDS_AT_FIRST))
        return 1;
    assay_window_free(window);
    return 0;
}

void assay_window_free(assay_window *window) {
    assay_key_index_free(&window->index);
    free(window->ids);
    free(window->leaves);
    free(window->heights);
    memset(window, 0, sizeof *window);
}

assay_ledger_status assay_window_accepts(const assay_window *window, uint64_t height) {
    if (window->height_count == 0) return ASSAY_LEDGER_OK;
    if (height < window->heights[window->height_count - 1].height)
        return ASSAY_LEDGER_HEIGHT_FALLS;
    if (height - window->heights[0].height > window->blocks) return ASSAY_LEDGER_HEIGHT_TOO_FAR;
    return ASSAY_LEDGER_OK;
}

assay_ledger_status assay_window_reserve(assay_window *window, size_t more) {
    size_t capacity = window->capacity;
    assay_window grown = *window;
    if (capacity - window->count >= more) return ASSAY_LEDGER_OK;
    if (more > ASSAY_ACCOUNT_ROWS_MAX - window->count) return ASSAY_LEDGER_FULL;
    while (capacity - window->count < more) capacity *= 2;
    grown.ids = assay_table_memory(ASSAY_KEY_BYTES * capacity);
    grown.leaves = malloc(sizeof *grown.leaves * capacity);
    grown.head = 0;
    grown.capacity = capacity;
    if (grown.ids == NULL || grown.leaves == NULL ||
        !assay_key_index_make(&grown.index, window->index.seed, capacity)) {
        free(grown.ids);
        free(grown.leaves);
        return ASSAY_LEDGER_NO_MEMORY;
    }
    for (size_t position = 0; position < window->count; position++) {
        size_t place = place_of(window, position);
        memcpy(id_at(&grown, position), id_at(window, place), ASSAY_KEY_BYTES);
        grown.leaves[position] = window->leaves[place];
        assay_key_index_insert(&grown.index, assay_key_hash(&grown.index, id_at(window, place)),
                               (uint32_t)position);
    }
    assay_key_index_free(&window->index);
    free(window->ids);
    free(window->leaves);
    *window = grown;
    return ASSAY_LEDGER_OK;
}

void assay_window_add(assay_window *window, const uint8_t *id, uint32_t hash, uint64_t height,
                      uint32_t leaf) {
    size_t place = place_of(window, window->count);
    memcpy(id_at(window, place), id, ASSAY_KEY_BYTES);
    window->leaves[place] = leaf;
    assay_key_index_insert(&window->index, hash, (uint32_t)place);
    window->count++;
    if (window->height_count == 0 || window->heights[window->height_count - 1].height != height) {
        assay_window_height opened = {height, 0};
        window->heights[window->height_count++] = opened;
    }
    window->heights[window->height_count - 1].count++;
}

uint64_t assay_window_height_at(const assay_window *window, uint32_t place) {
    size_t position = (place - window->head) & (window->capacity - 1), height = 0;
    while (position >= window->heights[height].count) position -= window->heights[height++].count;
    return window->heights[height].height;
}

size_t assay_window_range(const assay_window *window, uint64_t height, size_t *first) {
    *first = 0;
    for (size_t i = 0; i < window->height_count; i++) {
        if (window->heights[i].height == height) return window->heights[i].count;
        *first += window->heights[i].count;
    }
    return 0;
}

void assay_window_copy(const assay_window *window, size_t first, size_t count, uint8_t *ids,
                       uint8_t *leaves) {
    for (size_t i = 0; i < count; i++) {
        size_t place = place_of(window, first + i);
        if (ids != NULL) memcpy(ids + ASSAY_KEY_BYTES * i, id_at(window, place), ASSAY_KEY_BYTES);
        if (leaves != NULL) store_le32(leaves + 4 * i, window->leaves[place]);
    }
}

/* Forgets the newest id. */
static void pop(assay_window *window) {
    size_t place = place_of(window, --window->count);
    assay_key_index_remove(&window->index, assay_key_hash(&window->index, id_at(window, place)),
                           (uint32_t)place);
    if (--window->heights[window->height_count - 1].count == 0) window->height_count--;
}

void assay_window_drop_through(assay_window *window, uint64_t height) {
    size_t dropped = 0, ids = 0;
    while (dropped < window->height_count && window->heights[dropped].height <= height)
        ids += window->heights[dropped++].count;
    for (size_t start = 0; start < ids; start += GROUP) {
        const size_t count = ids - start < GROUP ? ids - start : GROUP;
        uint32_t hashes[GROUP];
        for (size_t i = 0; i < count; i++) {
            hashes[i] = assay_key_hash(&window->index, id_at(window, place_of(window, start + i)));
            assay_key_index_prefetch(&window->index, hashes[i]);
        }
        for (size_t i = 0; i < count; i++)
            assay_key_index_remove(&window->index, hashes[i],
                                   (uint32_t)place_of(window, start + i));
    }
    window->head = place_of(window, ids);
    window->count -= ids;
    window->height_count -= dropped;
    memmove(window->heights, window->heights + dropped,
            sizeof *window->heights * window->height_count);
}

assay_ledger_status assay_window_load(assay_window *window, uint64_t height, const uint8_t *ids,
                                      const uint8_t *leaves, size_t count) {
    assay_ledger_status status = assay_window_accepts(window, height);
    if (status == ASSAY_LEDGER_OK) status = assay_window_reserve(window, count);
    if (status != ASSAY_LEDGER_OK) return status;
    for (size_t i = 0; i < count; i++) {
        const uint8_t *id = ids + ASSAY_KEY_BYTES * i;
        uint32_t hash = assay_key_hash(&window->index, id), leaf = (uint32_t)i;
        if (assay_window_find(window, id, hash) != ASSAY_NO_ROW) {
            while (i-- > 0) pop(window);
            return ASSAY_LEDGER_KNOWN_ID;
        }
        if (leaves != NULL) leaf = load_le32(leaves + 4 * i);
        assay_window_add(window, id, hash, height, leaf);
    }
    return ASSAY_LEDGER_OK;
}
