/* Leaf hashes of a table's numbered rows and their RFC 6962 tree, of which only what changed is hashed
 * again. All levels are kept. Nothing here is thread-safe. */
#ifndef ASSAY_ROW_TREE_H
#define ASSAY_ROW_TREE_H

#include <stddef.h>
#include <stdint.h>

#define ASSAY_ROW_TREE_ROWS_MAX 0x1000000u
/* Levels of a tree over ASSAY_ROW_TREE_ROWS_MAX rows, leaves and root included. */
#define ASSAY_ROW_TREE_LEVELS 25

typedef struct {
    uint8_t *levels[ASSAY_ROW_TREE_LEVELS];
    size_t capacities[ASSAY_ROW_TREE_LEVELS]; /* hashes */
    size_t rows;
} assay_row_tree;

void assay_row_tree_free(assay_row_tree *tree);
/* Room for so many rows, at most ASSAY_ROW_TREE_ROWS_MAX. 0 when there is no memory. */
int assay_row_tree_reserve(assay_row_tree *tree, size_t rows);
/* Makes the tree's size `rows`, for which there is room, and hashes the nodes above `dirty` leaves:
 * `count` row numbers, rising, all below `rows`, which become scratch. Leaves that are new, and what
 * stood beside a removed one, are among them. */
void assay_row_tree_update(assay_row_tree *tree, size_t rows, uint32_t *dirty, size_t count);
void assay_row_tree_root(const assay_row_tree *tree, uint8_t root[32]);

#endif
