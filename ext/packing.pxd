"""What ext.tables needs of a layout: to write a value behind other bytes."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t

cdef struct buffer:
    uint8_t *data
    size_t length
    size_t capacity

cdef struct cursor:
    const uint8_t *data
    size_t at
    size_t end

cdef uint8_t *more(buffer *out, size_t bytes) except NULL

cdef class Layout:
    cdef int code
    cdef uint32_t size
    # No value has fewer bytes.
    cdef uint64_t least
    cdef tuple names
    cdef tuple inner
    cdef object kind
    cdef dict members
    cdef bint is_tuple
    # Of a record that nothing but its fields' descriptors need to make, else None.
    cdef tuple slots
    cdef object get(self, cursor *source)
    cdef object get_member(self, uint8_t byte)
    cdef object get_sequence(self, cursor *source)
    cdef object get_record(self, cursor *source)
    cdef int put(self, buffer *out, object value) except -1
    cdef int put_unsigned(self, buffer *out, object value) except -1
    cdef int put_signed(self, buffer *out, object value) except -1
    cdef object too_wide(self, object value)
    cdef int put_bytes(self, buffer *out, object value) except -1
    cdef int put_sequence(self, buffer *out, object value) except -1
    cdef int put_record(self, buffer *out, object value) except -1
