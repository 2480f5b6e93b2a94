/* Merkle trees in the shape of RFC 6962, over leaf hashes of 32 bytes that stand one after another. */
#ifndef ASSAY_MERKLE_H
#define ASSAY_MERKLE_H

#include <stddef.h>
#include <stdint.h>

#define ASSAY_MERKLE_HASH_SIZE 32
/* Proofs of a tree with at most 2^63 leaves have at most this many steps. */
#define ASSAY_MERKLE_PATH_MAX 64

void assay_merkle_leaf(const uint8_t *data, size_t length, uint8_t hash[32]);
/* `hash` may be one of the two children. */
void assay_merkle_node(const uint8_t left[32], const uint8_t right[32], uint8_t hash[32]);
void assay_merkle_empty(uint8_t root[32]);

/* Collects messages of so many blocks, to hash several at a time. A hash stands at its target only after
 * a flush; sources are copied at once and may change meanwhile. */
enum { ASSAY_MERKLE_QUEUE = 16, ASSAY_MERKLE_BLOCKS_MAX = 2, ASSAY_MERKLE_NODE_BLOCKS = 2 };
typedef struct {
    uint8_t messages[ASSAY_MERKLE_QUEUE * 64 * ASSAY_MERKLE_BLOCKS_MAX];
    uint8_t *targets[ASSAY_MERKLE_QUEUE];
    size_t blocks, count;
} assay_merkle_queue;

/* Blocks of a leaf with its prefix; only leaves of the queue's own number may enter it. */
size_t assay_merkle_leaf_blocks(size_t length);
void assay_merkle_queue_open(assay_merkle_queue *queue, size_t blocks);
void assay_merkle_queue_leaf(assay_merkle_queue *queue, const uint8_t *data, size_t length,
                             uint8_t *target);
/* For a queue of ASSAY_MERKLE_NODE_BLOCKS. */
void assay_merkle_queue_node(assay_merkle_queue *queue, const uint8_t left[32],
                             const uint8_t right[32], uint8_t *target);
void assay_merkle_queue_flush(assay_merkle_queue *queue);

/* Reduces `count` >= 1 leaf hashes in place; the root stands in the first 32 bytes afterwards.
 * When `path` is not NULL it receives the siblings of leaf `index`, lowest first (room for
 * ASSAY_MERKLE_PATH_MAX). Returns the number of siblings. */
size_t assay_merkle_reduce(uint8_t *hashes, size_t count, size_t index, uint8_t *path);
/* 1 when the path leads from the leaf hash to the root of a tree of `size` leaves, else 0. */
int assay_merkle_verify(const uint8_t leaf[32], uint64_t index, uint64_t size, const uint8_t *path,
                        size_t steps, const uint8_t root[32]);

#endif
