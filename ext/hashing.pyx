"""SHA-256 and the chain's one domain-separated hash. See hashing.pyi for the contract."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport uint8_t

from ext.sha256 cimport (
    assay_sha256_compress,
    assay_sha256_context,
    assay_sha256_final,
    assay_sha256_init,
    assay_sha256_init_with,
    assay_sha256_native,
    assay_sha256_portable,
    assay_sha256_select,
    assay_sha256_update,
    assay_tagged_field,
    assay_tagged_tag,
)

DIGEST_BYTES = 32
TAG_BYTES_MAX = 255
FIELD_BYTES_MAX = 0xFFFFFFFF

# Below this, handing the lock over costs more than the hash.
cdef Py_ssize_t UNLOCK_BYTES_MIN = 8192

assay_sha256_select()


cdef void absorb(assay_sha256_context *context, const uint8_t[::1] data):
    cdef Py_ssize_t length = data.shape[0]
    cdef const uint8_t *start = &data[0] if length > 0 else NULL
    if length < UNLOCK_BYTES_MIN:
        assay_sha256_update(context, start, length)
    else:
        with nogil:
            assay_sha256_update(context, start, length)


cdef bytes finish(assay_sha256_context *context):
    cdef bytes digest = PyBytes_FromStringAndSize(NULL, 32)
    assay_sha256_final(context, <uint8_t *>PyBytes_AS_STRING(digest))
    return digest


cdef bytes hash_with(assay_sha256_compress compress, const uint8_t[::1] data):
    cdef assay_sha256_context context
    assay_sha256_init_with(&context, compress)
    absorb(&context, data)
    return finish(&context)


def sha256(const uint8_t[::1] data not None):
    cdef assay_sha256_context context
    assay_sha256_init(&context)
    absorb(&context, data)
    return finish(&context)


def sha256_portable(const uint8_t[::1] data not None):
    return hash_with(assay_sha256_portable(), data)


def sha256_native(const uint8_t[::1] data not None):
    cdef assay_sha256_compress compress = assay_sha256_native()
    if compress == NULL:
        raise NotImplementedError("this processor has no SHA-256 instructions known here")
    return hash_with(compress, data)


def implementations():
    if assay_sha256_native() == NULL:
        return ("portable",)
    return ("native", "portable")


def tagged_hash(bytes tag not None, *fields):
    cdef assay_sha256_context context
    cdef const uint8_t[::1] data
    cdef Py_ssize_t length = len(tag)
    if length > 255:
        raise ValueError(f"tag has {length} bytes; at most {TAG_BYTES_MAX} are allowed")
    assay_tagged_tag(&context, <const uint8_t *>PyBytes_AS_STRING(tag), length)
    for field in fields:
        if type(field) is bytes:
            length = len(<bytes>field)
            if length < UNLOCK_BYTES_MIN:
                assay_tagged_field(&context, <const uint8_t *>PyBytes_AS_STRING(field), length)
                continue
        if field is None:
            raise TypeError("a field must be bytes or another contiguous buffer, not None")
        data = field
        length = data.shape[0]
        if <unsigned long long>length > 0xFFFFFFFFULL:
            raise ValueError(f"field has {length} bytes; at most {FIELD_BYTES_MAX} are allowed")
        with nogil:
            assay_tagged_field(&context, &data[0] if length > 0 else NULL, length)
    return finish(&context)
