"""The tree over a table's numbered rows. See rows.pyi for the contract."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport uint8_t, uint32_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcmp, memcpy

from ext.sha256 cimport (
    assay_sha256_context,
    assay_sha256_final,
    assay_sha256_init,
    assay_sha256_select,
    assay_sha256_update,
)

cdef extern from "merkle.h" nogil:
    void assay_merkle_leaf(const uint8_t *data, size_t length, uint8_t *hash)

ROWS_MAX = ASSAY_ROW_TREE_ROWS_MAX

assay_sha256_select()


cdef class RowTree:
    def __cinit__(self, bytes prefix not None):
        self.prefix = prefix
        self.dirty = set()
        assay_merkle_leaf(NULL, 0, self.empty)

    def __dealloc__(self):
        assay_row_tree_free(&self.tree)

    def __len__(self):
        return <Py_ssize_t>self.size

    def set(self, Py_ssize_t row, bytes key not None, bytes value not None):
        return self.set_row(row, key, <const uint8_t *>PyBytes_AS_STRING(value), len(value))

    def clear(self, Py_ssize_t row):
        self.put(row, self.empty)

    def truncate(self, Py_ssize_t rows):
        if not 0 <= rows <= <Py_ssize_t>self.size:
            raise ValueError(f"{rows} rows of {self.size} cannot be kept")
        if rows < <Py_ssize_t>self.size:
            self.size = rows
            if rows > 0:
                self.dirty.add(rows - 1)  # whose way to the root is another one now

    def commit(self):
        cdef list rows = sorted([row for row in self.dirty if row < <Py_ssize_t>self.size])
        cdef size_t count = len(rows), place
        cdef uint32_t *dirty
        self.dirty.clear()
        if count == 0 and self.size == self.tree.rows:
            return
        dirty = <uint32_t *>malloc(sizeof(uint32_t) * (count + 1))
        if dirty == NULL:
            raise MemoryError(f"no memory for {count} row numbers")
        for place in range(count):
            dirty[place] = <uint32_t>rows[place]
        with nogil:
            assay_row_tree_update(&self.tree, self.size, dirty, count)
            free(dirty)

    @property
    def root(self):
        cdef uint8_t root[32]
        assay_row_tree_root(&self.tree, root)
        return PyBytes_FromStringAndSize(<const char *>root, 32)

    cdef bint set_row(self, Py_ssize_t row, bytes key, const uint8_t *record,
                      size_t length) except -1:
        cdef uint8_t leaf[32]
        hash_row(self.prefix, key, record, length, leaf)
        return self.put(row, leaf)

    cdef bint put(self, Py_ssize_t row, const uint8_t *leaf) except -1:
        cdef uint8_t *place
        if not 0 <= row < <Py_ssize_t>ASSAY_ROW_TREE_ROWS_MAX or row > <Py_ssize_t>self.size:
            raise IndexError(f"row {row} leaves a gap behind {self.size} rows, or is one too many")
        if not assay_row_tree_reserve(&self.tree, row + 1):
            raise MemoryError(f"no memory for {row + 1} rows")
        place = self.tree.levels[0] + 32 * row
        if row < <Py_ssize_t>self.size:
            if memcmp(place, leaf, 32) == 0:
                return False
        else:
            self.size = row + 1
        memcpy(place, leaf, 32)
        self.dirty.add(row)
        return True


cdef void hash_row(bytes prefix, bytes key, const uint8_t *record, size_t length, uint8_t *leaf):
    """The leaf hash of the three, joined."""
    cdef assay_sha256_context context
    cdef uint8_t tag = 0  # of a leaf, by RFC 6962
    assay_sha256_init(&context)
    assay_sha256_update(&context, &tag, 1)
    assay_sha256_update(&context, <const uint8_t *>PyBytes_AS_STRING(prefix), len(prefix))
    assay_sha256_update(&context, <const uint8_t *>PyBytes_AS_STRING(key), len(key))
    assay_sha256_update(&context, record, length)
    assay_sha256_final(&context, leaf)
