#include "leaves.h"

#include <stdlib.h>
#include <string.h>

#include "little_endian.h"
#include "merkle.h"

enum { END_BYTES = 4, BYTES_AT_FIRST = 4096 };

static inline uint32_t load_end(const uint8_t *ends, size_t index) {
    return load_le32(ends + END_BYTES * index);
}

void assay_leaves_free(assay_leaves *leaves) {
    free(leaves->data);
    free(leaves->ends);
    memset(leaves, 0, sizeof *leaves);
}

static int reserve(uint8_t **bytes, size_t *capacity, size_t length) {
    size_t wanted = *capacity > 0 ? *capacity : BYTES_AT_FIRST;
    if (*bytes != NULL && length <= *capacity) return 1; /* an empty leaf has an address, too */
    while (wanted < length) wanted *= 2;
    uint8_t *grown = realloc(*bytes, wanted);
    if (grown == NULL) return 0;
    *bytes = grown;
    *capacity = wanted;
    return 1;
}

assay_leaves_status assay_leaves_reserve(assay_leaves *leaves, size_t more, size_t bytes) {
    /* Ends are 32 bits, and no more than 2^32 leaves can be numbered. */
    if (bytes > UINT32_MAX - leaves->length || more > UINT32_MAX - leaves->count)
        return ASSAY_LEAVES_TOO_LONG;
    if (reserve(&leaves->data, &leaves->capacity, leaves->length + bytes) &&
        reserve(&leaves->ends, &leaves->ends_capacity, END_BYTES * (leaves->count + more)))
        return ASSAY_LEAVES_OK;
    return ASSAY_LEAVES_NO_MEMORY;
}

uint8_t *assay_leaves_open(assay_leaves *leaves, size_t bytes) {
    uint8_t *data = leaves->data + leaves->length;
    leaves->length += bytes;
    store_le32(leaves->ends + END_BYTES * leaves->count++, (uint32_t)leaves->length);
    return data;
}

void assay_leaves_truncate(assay_leaves *leaves, size_t count) {
    leaves->count = count;
    leaves->length = count > 0 ? load_end(leaves->ends, count - 1) : 0;
}

int assay_leaves_valid(const uint8_t *ends, size_t count, size_t length) {
    uint32_t start = 0;
    for (size_t i = 0; i < count; i++) {
        uint32_t end = load_end(ends, i);
        if (end < start) return 0;
        start = end;
    }
    return start == length;
}

int assay_leaves_root(const uint8_t *data, const uint8_t *ends, size_t count, uint8_t root[32],
                      size_t index, uint8_t *path, size_t *steps) {
    uint32_t start = 0;
    if (count == 0) {
        assay_merkle_empty(root);
        return 1;
    }
    uint8_t *hashes = malloc(ASSAY_MERKLE_HASH_SIZE * count);
    if (hashes == NULL) return 0;
    assay_merkle_queue queues[ASSAY_MERKLE_BLOCKS_MAX];
    for (size_t i = 0; i < ASSAY_MERKLE_BLOCKS_MAX; i++) assay_merkle_queue_open(&queues[i], i + 1);
    for (size_t i = 0; i < count; i++) {
        uint32_t end = load_end(ends, i), length = end - start;
        uint8_t *hash = hashes + ASSAY_MERKLE_HASH_SIZE * i;
        size_t blocks = assay_merkle_leaf_blocks(length);
        if (blocks <= ASSAY_MERKLE_BLOCKS_MAX)
            assay_merkle_queue_leaf(&queues[blocks - 1], data + start, length, hash);
        else
            assay_merkle_leaf(data + start, length, hash);
        start = end;
    }
    for (size_t i = 0; i < ASSAY_MERKLE_BLOCKS_MAX; i++) assay_merkle_queue_flush(&queues[i]);
    size_t taken = assay_merkle_reduce(hashes, count, index, path);
    if (path != NULL) *steps = taken;
    memcpy(root, hashes, ASSAY_MERKLE_HASH_SIZE);
    free(hashes);
    return 1;
}
