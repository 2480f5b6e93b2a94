"""Bodies of plain transfers, parsed into arrays. See bodies.pyi for the contract."""

import numpy

from cpython.bytes cimport PyBytes_AS_STRING
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from ext.transactions import ParsedBatch

OTHER = 0
PLAIN = 1
OPERATIONS_MAX = 256


cdef class Bodies:
    def __init__(self):
        raise TypeError("Bodies are made by parse_bodies")

    def __len__(self):
        return self.count

    def __repr__(self):
        return f"Bodies({self.count} bodies, {len(self.amounts)} operations)"

    def next_other(self, Py_ssize_t start):
        if start < 0:
            raise IndexError(f"body {start} is not in a batch of {self.count}")
        while start < self.count and self.parsed.classes[start] == ASSAY_BODY_PLAIN:
            start += 1
        return min(start, self.count)


cdef uint8_t[::1] bytes_of(object array):
    """The array's memory; every array made here has at least one row."""
    return array.view(numpy.uint8)


def parse_bodies(batch, bytes chain_id not None):
    if type(batch) is not ParsedBatch:
        raise TypeError(f"a ParsedBatch is needed, not {type(batch).__name__}")
    chain_id.decode()  # a field of type string holds UTF-8 and nothing else
    cdef Py_ssize_t count = len(batch.bodies)
    cdef bytes payload = batch.payload
    cdef const uint8_t *data = <const uint8_t *>PyBytes_AS_STRING(payload)
    cdef const uint8_t *chain = <const uint8_t *>PyBytes_AS_STRING(chain_id)
    cdef size_t chain_length = len(chain_id), room, operations
    # The array has a spare row, so there is always something to point at.
    cdef const uint32_t[:, ::1] rows = batch.bodies if count > 0 else numpy.zeros(
        (1, 2), dtype=numpy.uint32)
    cdef const assay_slice *slices = <const assay_slice *>&rows[0, 0]
    cdef Bodies bodies = Bodies.__new__(Bodies)
    cdef assay_bodies *parsed = &bodies.parsed
    room = assay_bodies_room(slices, count)

    bodies.batch = batch
    bodies.count = count
    # One spare row each: an empty array has no address to hand to C.
    bodies.classes = numpy.empty(count + 1, dtype=numpy.uint8)
    bodies.valid_until_heights = numpy.empty(count + 1, dtype=numpy.uint64)
    bodies.max_fees = numpy.empty(count + 1, dtype=numpy.uint64)
    bodies.body_bytes = numpy.empty(count + 1, dtype=numpy.uint32)
    bodies.first_operations = numpy.empty(count + 1, dtype=numpy.uint32)
    bodies.operation_counts = numpy.empty(count + 1, dtype=numpy.uint32)
    bodies.receivers = numpy.empty(room + 1, dtype=numpy.uint32)
    bodies.amounts = numpy.empty(room + 1, dtype=numpy.uint64)
    parsed.classes = &bytes_of(bodies.classes)[0]
    parsed.valid_until_heights = <uint64_t *>&bytes_of(bodies.valid_until_heights)[0]
    parsed.max_fees = <uint64_t *>&bytes_of(bodies.max_fees)[0]
    parsed.body_bytes = <uint32_t *>&bytes_of(bodies.body_bytes)[0]
    parsed.first_operations = <uint32_t *>&bytes_of(bodies.first_operations)[0]
    parsed.operation_counts = <uint32_t *>&bytes_of(bodies.operation_counts)[0]
    parsed.receivers = <uint32_t *>&bytes_of(bodies.receivers)[0]
    parsed.amounts = <uint64_t *>&bytes_of(bodies.amounts)[0]
    with nogil:
        operations = assay_parse_bodies(data, slices, count, chain, chain_length, parsed)
    bodies.classes = frozen(bodies.classes, count)
    bodies.valid_until_heights = frozen(bodies.valid_until_heights, count)
    bodies.max_fees = frozen(bodies.max_fees, count)
    bodies.body_bytes = frozen(bodies.body_bytes, count)
    bodies.first_operations = frozen(bodies.first_operations, count)
    bodies.operation_counts = frozen(bodies.operation_counts, count)
    bodies.receivers = frozen(bodies.receivers, operations)
    bodies.amounts = frozen(bodies.amounts, operations)
    return bodies


cdef object frozen(object array, Py_ssize_t rows):
    """The array without its spare rows, read-only from here on."""
    array.flags.writeable = False
    return array[:rows]
