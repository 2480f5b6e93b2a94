"""C declarations of ext/native/sha256.h, for the Cython modules that hash."""

from libc.stdint cimport uint8_t, uint32_t

cdef extern from "sha256.h" nogil:
    const size_t ASSAY_SHA256_SIZE
    ctypedef void (*assay_sha256_compress)(uint32_t *state, const uint8_t *data, size_t blocks)
    ctypedef struct assay_sha256_context:
        pass
    assay_sha256_compress assay_sha256_portable()
    assay_sha256_compress assay_sha256_native()
    void assay_sha256_select()
    void assay_sha256_init(assay_sha256_context *context)
    void assay_sha256_init_with(assay_sha256_context *context, assay_sha256_compress compress)
    void assay_sha256_update(assay_sha256_context *context, const uint8_t *data, size_t length)
    void assay_sha256_final(assay_sha256_context *context, uint8_t *digest)
    void assay_tagged_tag(assay_sha256_context *context, const uint8_t *tag, size_t length)
    void assay_tagged_field(assay_sha256_context *context, const uint8_t *field, size_t length)
