"""C declarations of bodies.h, and the layout of parsed bodies, for ext.transfers."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t

cdef extern from "bodies.h" nogil:
    ctypedef struct assay_slice:
        uint32_t offset
        uint32_t length
    ctypedef struct assay_bodies:
        uint8_t *classes
        uint64_t *valid_until_heights
        uint64_t *max_fees
        uint32_t *body_bytes
        uint32_t *first_operations
        uint32_t *operation_counts
        uint32_t *receivers
        uint64_t *amounts
    const uint8_t ASSAY_BODY_PLAIN
    size_t assay_bodies_room(const assay_slice *bodies, size_t count)
    size_t assay_parse_bodies(const uint8_t *data, const assay_slice *bodies, size_t count,
                              const uint8_t *chain_id, size_t chain_id_length, assay_bodies *out)

cdef class Bodies:
    cdef readonly object batch
    cdef readonly object classes
    cdef readonly object valid_until_heights
    cdef readonly object max_fees
    cdef readonly object body_bytes
    cdef readonly object first_operations
    cdef readonly object operation_counts
    cdef readonly object receivers
    cdef readonly object amounts
    cdef Py_ssize_t count
    # Points into the arrays above, which nothing resizes or replaces.
    cdef assay_bodies parsed
