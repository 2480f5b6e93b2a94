"""C declarations of bodies.h, and the layout of parsed bodies, for ext.transfers."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t

cdef extern from "job_operations.h" nogil:
    ctypedef struct assay_slice:
        uint32_t offset
        uint32_t length
    ctypedef struct assay_job_limits:
        uint32_t temperature_milli_max
        uint32_t top_k_max
        uint32_t top_p_milli_max
        uint32_t logprob_ceiling_milli_max
        uint32_t stop_strings_max
        uint32_t stop_bytes_max
        uint32_t messages_max
        uint32_t text_bytes_max
        uint32_t tier_max
        uint32_t role_max
        uint32_t finish_reason_max
    ctypedef struct assay_job_operation:
        uint32_t subject
        assay_slice message
        uint8_t digest[32]
        uint32_t input_tokens
        uint32_t output_tokens
        uint32_t input_bytes
        uint32_t tier
        uint32_t answer_within_ms
        uint32_t provider
        uint32_t seed
        uint64_t max_price
        assay_slice engine_profile
    void assay_job_id(const uint8_t *transaction, uint32_t operation, uint8_t *job)

cdef extern from "bodies.h" nogil:
    ctypedef struct assay_bodies:
        uint8_t *classes
        uint64_t *valid_until_heights
        uint64_t *max_fees
        uint32_t *body_bytes
        uint32_t *first_operations
        uint32_t *operation_counts
        uint32_t *receivers
        uint64_t *amounts
        assay_job_operation *job_operations
    const uint8_t ASSAY_BODY_OTHER
    const uint8_t ASSAY_BODY_PLAIN
    const uint8_t ASSAY_BODY_REQUEST
    const uint8_t ASSAY_BODY_RESULT
    size_t assay_bodies_room(const assay_slice *bodies, size_t count)
    int assay_parse_bodies(const uint8_t *data, const assay_slice *bodies, size_t count,
                           const uint8_t *chain_id, size_t chain_id_length,
                           const assay_job_limits *limits, assay_bodies *out, size_t *transfers)
    void assay_bodies_free(assay_bodies *bodies)

cdef class JobLimits:
    cdef assay_job_limits limits

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
    # Those of the batch, which keeps them.
    cdef const uint8_t *payload
    cdef const uint8_t *public_keys
    cdef const uint8_t *ids
    cdef assay_job_operation *job_operation(self, Py_ssize_t index, uint8_t kind) except NULL
    cdef int check(self, Py_ssize_t index) except -1
