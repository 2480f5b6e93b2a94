#include "merkle.h"

#include <string.h>

#include "sha256.h"

static const uint8_t LEAF_PREFIX = 0x00;
static const uint8_t NODE_PREFIX = 0x01;

void assay_merkle_leaf(const uint8_t *data, size_t length, uint8_t hash[32]) {
    assay_sha256_context context;
    assay_sha256_init(&context);
    assay_sha256_update(&context, &LEAF_PREFIX, 1);
    assay_sha256_update(&context, data, length);
    assay_sha256_final(&context, hash);
}

void assay_merkle_empty(uint8_t root[32]) {
    assay_sha256_context context;
    assay_sha256_init(&context);
    assay_sha256_final(&context, root);
}

void assay_merkle_node(const uint8_t left[32], const uint8_t right[32], uint8_t out[32]) {
    assay_sha256_context context;
    assay_sha256_init(&context);
    assay_sha256_update(&context, &NODE_PREFIX, 1);
    assay_sha256_update(&context, left, ASSAY_MERKLE_HASH_SIZE);
    assay_sha256_update(&context, right, ASSAY_MERKLE_HASH_SIZE);
    assay_sha256_final(&context, out);
}

size_t assay_merkle_leaf_blocks(size_t length) {
    return ASSAY_SHA256_PADDED(1 + length) / ASSAY_SHA256_BLOCK_SIZE;
}

void assay_merkle_queue_open(assay_merkle_queue *queue, size_t blocks) {
    queue->blocks = blocks;
    queue->count = 0;
}

void assay_merkle_queue_flush(assay_merkle_queue *queue) {
    uint8_t digests[ASSAY_MERKLE_QUEUE][ASSAY_MERKLE_HASH_SIZE];
    assay_sha256_padded(queue->messages, queue->blocks, queue->count, digests[0]);
    for (size_t i = 0; i < queue->count; i++)
        memcpy(queue->targets[i], digests[i], ASSAY_MERKLE_HASH_SIZE);
    queue->count = 0;
}

/* The message that the caller fills, behind its prefix. */
static uint8_t *queue_message(assay_merkle_queue *queue, uint8_t prefix, size_t length,
                              uint8_t *target) {
    if (queue->count == ASSAY_MERKLE_QUEUE) assay_merkle_queue_flush(queue);
    uint8_t *message = queue->messages + ASSAY_SHA256_BLOCK_SIZE * queue->blocks * queue->count;
    queue->targets[queue->count++] = target;
    message[0] = prefix;
    assay_sha256_pad(message, 1 + length);
    return message + 1;
}

void assay_merkle_queue_leaf(assay_merkle_queue *queue, const uint8_t *data, size_t length,
                             uint8_t *target) {
    memcpy(queue_message(queue, LEAF_PREFIX, length, target), data, length);
}

void assay_merkle_queue_node(assay_merkle_queue *queue, const uint8_t left[32],
                             const uint8_t right[32], uint8_t *target) {
    uint8_t *children = queue_message(queue, NODE_PREFIX, 2 * ASSAY_MERKLE_HASH_SIZE, target);
    memcpy(children, left, ASSAY_MERKLE_HASH_SIZE);
    memcpy(children + ASSAY_MERKLE_HASH_SIZE, right, ASSAY_MERKLE_HASH_SIZE);
}

size_t assay_merkle_reduce(uint8_t *hashes, size_t count, size_t index, uint8_t *path) {
    size_t steps = 0;
    assay_merkle_queue queue;
    assay_merkle_queue_open(&queue, ASSAY_MERKLE_NODE_BLOCKS);
    /* Pairing neighbours and promoting an odd last node gives the same tree as the recursive split
     * at the largest power of two. */
    while (count > 1) {
        size_t sibling = index ^ 1;
        if (path != NULL && sibling < count) {
            memcpy(path + ASSAY_MERKLE_HASH_SIZE * steps, hashes + ASSAY_MERKLE_HASH_SIZE * sibling,
                   ASSAY_MERKLE_HASH_SIZE);
            steps++;
        }
        size_t pairs = count / 2;
        for (size_t pair = 0; pair < pairs; pair++) {
            const uint8_t *left = hashes + 2 * ASSAY_MERKLE_HASH_SIZE * pair;
            assay_merkle_queue_node(&queue, left, left + ASSAY_MERKLE_HASH_SIZE,
                                    hashes + ASSAY_MERKLE_HASH_SIZE * pair);
        }
        assay_merkle_queue_flush(&queue);
        if (count & 1)
            memmove(hashes + ASSAY_MERKLE_HASH_SIZE * pairs,
                    hashes + ASSAY_MERKLE_HASH_SIZE * (count - 1), ASSAY_MERKLE_HASH_SIZE);
        count = pairs + (count & 1);
        index >>= 1;
    }
    return steps;
}

int assay_merkle_verify(const uint8_t leaf[32], uint64_t index, uint64_t size, const uint8_t *path,
                        size_t steps, const uint8_t root[32]) {
    uint8_t hash[ASSAY_MERKLE_HASH_SIZE];
    if (index >= size) return 0;
    memcpy(hash, leaf, ASSAY_MERKLE_HASH_SIZE);
    /* (node, last): position of the current node and of the last node on its level. */
    uint64_t node = index, last = size - 1;
    for (size_t step = 0; step < steps; step++) {
        const uint8_t *sibling = path + ASSAY_MERKLE_HASH_SIZE * step;
        if (last == 0) return 0; /* a step beyond the root */
        /* An odd last node is promoted until it has a left neighbour. */
        while (node == last && !(node & 1)) {
            node >>= 1;
            last >>= 1;
        }
        if (node & 1)
            assay_merkle_node(sibling, hash, hash);
        else
            assay_merkle_node(hash, sibling, hash);
        node >>= 1;
        last >>= 1;
    }
    return last == 0 && memcmp(hash, root, ASSAY_MERKLE_HASH_SIZE) == 0;
}
