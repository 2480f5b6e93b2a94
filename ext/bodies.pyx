"""Bodies of plain transfers and of jobs, parsed into arrays. See bodies.pyi for the contract."""

import numpy

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.unicode cimport PyUnicode_DecodeUTF8
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from ext.sha256 cimport assay_sha256_select

from ext.transactions import ParsedBatch

OTHER = 0
PLAIN = 1
REQUEST = 2
RESULT = 3
OPERATIONS_MAX = 256

make_tuple = tuple.__new__

assay_sha256_select()


cdef class JobLimits:
    def __init__(self, *, uint32_t temperature_milli_max, uint32_t top_k_max,
                 uint32_t top_p_milli_max, uint32_t logprob_ceiling_milli_max,
                 uint32_t stop_strings_max, uint32_t stop_bytes_max, uint32_t messages_max,
                 uint32_t text_bytes_max, uint32_t tier_max, uint32_t role_max,
                 uint32_t finish_reason_max):
        self.limits.temperature_milli_max = temperature_milli_max
        self.limits.top_k_max = top_k_max
        self.limits.top_p_milli_max = top_p_milli_max
        self.limits.logprob_ceiling_milli_max = logprob_ceiling_milli_max
        self.limits.stop_strings_max = stop_strings_max
        self.limits.stop_bytes_max = stop_bytes_max
        self.limits.messages_max = messages_max
        self.limits.text_bytes_max = text_bytes_max
        self.limits.tier_max = tier_max
        self.limits.role_max = role_max
        self.limits.finish_reason_max = finish_reason_max


cdef class Bodies:
    def __init__(self):
        raise TypeError("Bodies are made by parse_bodies")

    def __dealloc__(self):
        assay_bodies_free(&self.parsed)

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

    def sender(self, Py_ssize_t index):
        self.check(index)
        return key_at(self.public_keys, 32 * index)

    def transaction_id(self, Py_ssize_t index):
        self.check(index)
        return key_at(self.ids, 32 * index)

    def job_opened(self, Py_ssize_t index, kind):
        cdef uint8_t job[32]
        self.job_operation(index, ASSAY_BODY_REQUEST)
        assay_job_id(self.ids + 32 * index, 0, job)
        return make_tuple(kind, (key_at(job, 0), key_at(self.ids, 32 * index), 0))

    def request(self, Py_ssize_t index, kind):
        cdef assay_job_operation *found = self.job_operation(index, ASSAY_BODY_REQUEST)
        return make_tuple(kind, (
            key_at(self.payload, found.subject),
            found.input_tokens,
            found.input_bytes,
            found.output_tokens,
            found.max_price,
            found.tier,
            None if found.provider == 0 else key_at(self.payload, found.provider),
            found.answer_within_ms,
            None if found.seed == 0 else key_at(self.payload, found.seed),
            key_at(found.digest, 0),
            bytes_in(self.payload, found.message),
        ))

    def result(self, Py_ssize_t index, kind):
        cdef assay_job_operation *found = self.job_operation(index, ASSAY_BODY_RESULT)
        return make_tuple(kind, (
            key_at(self.payload, found.subject),
            found.input_tokens,
            found.output_tokens,
            PyUnicode_DecodeUTF8(
                <const char *>self.payload + found.engine_profile.offset,
                found.engine_profile.length, NULL),
            key_at(found.digest, 0),
            bytes_in(self.payload, found.message),
        ))

    cdef assay_job_operation *job_operation(self, Py_ssize_t index, uint8_t kind) except NULL:
        self.check(index)
        if self.parsed.classes[index] != kind:
            raise ValueError(f"body {index} is of class {self.parsed.classes[index]}, not {kind}")
        return &self.parsed.job_operations[self.parsed.first_operations[index]]

    cdef int check(self, Py_ssize_t index) except -1:
        if not 0 <= index < self.count:
            raise IndexError(f"body {index} is not in a batch of {self.count}")
        return 0


cdef bytes key_at(const uint8_t *data, size_t offset):
    return PyBytes_FromStringAndSize(<const char *>data + offset, 32)


cdef bytes bytes_in(const uint8_t *data, assay_slice slice):
    return PyBytes_FromStringAndSize(<const char *>data + slice.offset, slice.length)


cdef uint8_t[::1] bytes_of(object array):
    """The array's memory; every array made here has at least one row."""
    return array.view(numpy.uint8)


def parse_bodies(batch, bytes chain_id not None, JobLimits limits=None):
    if type(batch) is not ParsedBatch:
        raise TypeError(f"a ParsedBatch is needed, not {type(batch).__name__}")
    chain_id.decode()  # a field of type string holds UTF-8 and nothing else
    cdef Py_ssize_t count = len(batch.bodies)
    cdef bytes payload = batch.payload
    cdef const uint8_t *data = <const uint8_t *>PyBytes_AS_STRING(payload)
    cdef const uint8_t *chain = <const uint8_t *>PyBytes_AS_STRING(chain_id)
    cdef size_t chain_length = len(chain_id), room, operations
    cdef const assay_job_limits *bounds = NULL if limits is None else &limits.limits
    cdef bint done
    # The array has a spare row, so there is always something to point at.
    cdef const uint32_t[:, ::1] rows = batch.bodies if count > 0 else numpy.zeros(
        (1, 2), dtype=numpy.uint32)
    cdef const assay_slice *slices = <const assay_slice *>&rows[0, 0]
    cdef Bodies bodies = Bodies.__new__(Bodies)
    cdef assay_bodies *parsed = &bodies.parsed
    room = assay_bodies_room(slices, count)

    bodies.batch = batch
    bodies.count = count
    bodies.payload = data
    if count > 0:
        bodies.public_keys = rows_of(batch.public_keys)
        bodies.ids = rows_of(batch.ids)
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
        done = assay_parse_bodies(
            data, slices, count, chain, chain_length, bounds, parsed, &operations)
    if not done:
        raise MemoryError(f"no memory for the operations of {count} bodies")
    bodies.classes = frozen(bodies.classes, count)
    bodies.valid_until_heights = frozen(bodies.valid_until_heights, count)
    bodies.max_fees = frozen(bodies.max_fees, count)
    bodies.body_bytes = frozen(bodies.body_bytes, count)
    bodies.first_operations = frozen(bodies.first_operations, count)
    bodies.operation_counts = frozen(bodies.operation_counts, count)
    bodies.receivers = frozen(bodies.receivers, operations)
    bodies.amounts = frozen(bodies.amounts, operations)
    return bodies


cdef const uint8_t *rows_of(object array):
    """The memory of a batch's array, which holds at least one row."""
    cdef const uint8_t[:, ::1] rows = array
    return &rows[0, 0]


cdef object frozen(object array, Py_ssize_t rows):
    """The array without its spare rows, read-only from here on."""
    array.flags.writeable = False
    return array[:rows]
