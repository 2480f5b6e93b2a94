#include "leaves.h"

#include <stdlib.h>
#include <string.h>

#include "merkle.h"

enum { END_BYTES = 4, BYTES_AT_FIRST = 4096 };

static inline uint32_t load_end(const uint8_t *ends, size_t index) {
    const uint8_t *bytes = ends + END_BYTES * index;
    return (uint32_t)bytes[0] | (uint32_t)bytes[1] << 8 | (uint32_t)bytes[2] << 16 |
           (uint32_t)bytes[3] << 24;
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
    uint8_t *data = leaves->data + leaves->length, *end = leaves->ends + END_BYTES * leaves->count;
    leaves->length += bytes;
    leaves->count++;
    for (int i = 0; i < END_BYTES; i++) end[i] = (uint8_t)(leaves->length >> 8 * i);
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
    for (size_t i = 0; i < count; i++) {
        uint32_t end = load_end(ends, i);
        assay_merkle_leaf(data + start, end - start, hashes + ASSAY_MERKLE_HASH_SIZE * i);
        start = end;
    }
    size_t taken = assay_merkle_reduce(hashes, count, index, path);
    if (path != NULL) *steps = taken;
    memcpy(root, hashes, ASSAY_MERKLE_HASH_SIZE);
    free(hashes);
    return 1;
}
