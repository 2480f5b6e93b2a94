/* Leaf data of a tree, joined, with the end of each leaf: grows, and is hashed when its root is asked. */
#ifndef ASSAY_LEAVES_H
#define ASSAY_LEAVES_H

#include <stddef.h>
#include <stdint.h>

typedef struct {
    uint8_t *data;
    size_t length, capacity;
    uint8_t *ends; /* u32-LE each */
    size_t count, ends_capacity;
} assay_leaves;

typedef enum {
    ASSAY_LEAVES_OK = 0,
    ASSAY_LEAVES_NO_MEMORY,
    ASSAY_LEAVES_TOO_LONG,
} assay_leaves_status;

void assay_leaves_free(assay_leaves *leaves);
/* Room for so many more leaves of so many bytes together. */
assay_leaves_status assay_leaves_reserve(assay_leaves *leaves, size_t more, size_t bytes);
/* Opens a leaf of this size, for which room was reserved: where its data goes. */
uint8_t *assay_leaves_open(assay_leaves *leaves, size_t bytes);
/* Forgets all but the first `count` leaves, of which there are at least as many. */
void assay_leaves_truncate(assay_leaves *leaves, size_t count);

/* The functions below take packed leaves from anywhere. */

/* Whether the ends rise and the last is `length`. */
int assay_leaves_valid(const uint8_t *ends, size_t count, size_t length);
/* The root of `count` leaves that are valid. When `path` is not NULL it receives the siblings of leaf
 * `index`, lowest first, and `*steps` their number. 0 when there is no memory. */
int assay_leaves_root(const uint8_t *data, const uint8_t *ends, size_t count, uint8_t root[32],
                      size_t index, uint8_t *path, size_t *steps);

#endif
