#include "row_tree.h"

#include <stdlib.h>
#include <string.h>

#include "merkle.h"

enum { ROWS_AT_FIRST = 64 };

static uint8_t *node_at(const assay_row_tree *tree, int level, size_t place) {
    return tree->levels[level] + ASSAY_MERKLE_HASH_SIZE * place;
}

void assay_row_tree_free(assay_row_tree *tree) {
    for (int level = 0; level < ASSAY_ROW_TREE_LEVELS; level++) free(tree->levels[level]);
    memset(tree, 0, sizeof *tree);
}

int assay_row_tree_reserve(assay_row_tree *tree, size_t rows) {
    size_t nodes = ROWS_AT_FIRST;
    while (nodes < rows) nodes *= 2;
    for (int level = 0; level < ASSAY_ROW_TREE_LEVELS && nodes > 0; level++, nodes /= 2) {
        if (tree->capacities[level] >= nodes) continue;
        uint8_t *grown = realloc(tree->levels[level], ASSAY_MERKLE_HASH_SIZE * nodes);
        if (grown == NULL) return 0;
        tree->levels[level] = grown;
        tree->capacities[level] = nodes;
    }
    return 1;
}

void assay_row_tree_update(assay_row_tree *tree, size_t rows, uint32_t *dirty, size_t count) {
    assay_merkle_queue queue;
    assay_merkle_queue_open(&queue, ASSAY_MERKLE_NODE_BLOCKS);
    tree->rows = rows;
    for (int level = 0; rows > 1; level++, rows = (rows + 1) / 2) {
        size_t parents = 0;
        for (size_t i = 0; i < count; i++) {
            const uint32_t parent = dirty[i] / 2;
            if (parents == 0 || dirty[parents - 1] != parent) dirty[parents++] = parent;
        }
        count = parents;
        for (size_t i = 0; i < count; i++) {
            const size_t parent = dirty[i], left = 2 * parent;
            if (left + 1 < rows)
                assay_merkle_queue_node(&queue, node_at(tree, level, left),
                                        node_at(tree, level, left + 1),
                                        node_at(tree, level + 1, parent));
            else /* an odd last node is promoted */
                memcpy(node_at(tree, level + 1, parent), node_at(tree, level, left),
                       ASSAY_MERKLE_HASH_SIZE);
        }
        assay_merkle_queue_flush(&queue);
    }
}

void assay_row_tree_root(const assay_row_tree *tree, uint8_t root[32]) {
    int level = 0;
    if (tree->rows == 0) {
        assay_merkle_empty(root);
        return;
    }
    for (size_t nodes = tree->rows; nodes > 1; nodes = (nodes + 1) / 2) level++;
    memcpy(root, node_at(tree, level, 0), ASSAY_MERKLE_HASH_SIZE);
}
