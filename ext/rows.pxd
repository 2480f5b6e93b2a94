"""What ext.tables needs of the tree over its rows."""

from libc.stdint cimport uint8_t, uint32_t

cdef extern from "row_tree.h" nogil:
    const size_t ASSAY_ROW_TREE_ROWS_MAX
    ctypedef struct assay_row_tree:
        uint8_t *levels[25]
        size_t rows
    void assay_row_tree_free(assay_row_tree *tree)
    int assay_row_tree_reserve(assay_row_tree *tree, size_t rows)
    void assay_row_tree_update(assay_row_tree *tree, size_t rows, uint32_t *dirty, size_t count)
    void assay_row_tree_root(const assay_row_tree *tree, uint8_t *root)

cdef class RowTree:
    cdef assay_row_tree tree
    cdef bytes prefix
    # Leaves of the rows up to here stand in the lowest level, those in the tree before them.
    cdef size_t size
    cdef set dirty
    cdef uint8_t[32] empty
    # Set or add the row of this key and record; whether its leaf is another than before.
    cdef bint set_row(self, Py_ssize_t row, bytes key, const uint8_t *record,
                      size_t length) except -1
    cdef bint put(self, Py_ssize_t row, const uint8_t *leaf) except -1
