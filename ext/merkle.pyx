"""RFC 6962-shaped Merkle trees. See merkle.pyi for the contract."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport uint8_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy

from ext.sha256 cimport assay_sha256_select

cdef extern from "merkle.h" nogil:
    void assay_merkle_leaf(const uint8_t *data, size_t length, uint8_t *hash)
    void assay_merkle_empty(uint8_t *root)
    size_t assay_merkle_reduce(uint8_t *hashes, size_t count, size_t index, uint8_t *path)
    int assay_merkle_verify(const uint8_t *leaf, uint64_t index, uint64_t size,
                            const uint8_t *path, size_t steps, const uint8_t *root)

cdef extern from "leaves.h" nogil:
    int assay_leaves_valid(const uint8_t *ends, size_t count, size_t length)
    int assay_leaves_root(const uint8_t *data, const uint8_t *ends, size_t count, uint8_t *root,
                          size_t index, uint8_t *path, size_t *steps)

HASH_BYTES = 32
PATH_STEPS_MAX = 64

assay_sha256_select()


cdef bytes digest_of(const uint8_t *source):
    return PyBytes_FromStringAndSize(<const char *>source, 32)


cdef uint8_t *gather(list hashes) except NULL:
    """Copies the hashes one after another into memory that the caller frees."""
    cdef Py_ssize_t count = len(hashes), position
    cdef object item
    cdef uint8_t *gathered = <uint8_t *>malloc(32 * (count if count > 0 else 1))
    if gathered == NULL:
        raise MemoryError(f"no memory for {count} leaf hashes")
    for position in range(count):
        item = hashes[position]
        if type(item) is not bytes or len(<bytes>item) != 32:
            free(gathered)
            raise ValueError(f"leaf hash {position} is not {HASH_BYTES} bytes: {item!r}")
        memcpy(gathered + 32 * position, PyBytes_AS_STRING(item), 32)
    return gathered


def leaf_hash(const uint8_t[::1] data not None):
    cdef uint8_t digest[32]
    cdef Py_ssize_t length = data.shape[0]
    with nogil:
        assay_merkle_leaf(&data[0] if length > 0 else NULL, length, digest)
    return digest_of(digest)


def root(list leaf_hashes not None):
    cdef size_t count = len(leaf_hashes)
    cdef uint8_t digest[32]
    cdef uint8_t *hashes = gather(leaf_hashes)
    with nogil:
        if count == 0:
            assay_merkle_empty(digest)
        else:
            assay_merkle_reduce(hashes, count, 0, NULL)
            memcpy(digest, hashes, 32)
        free(hashes)
    return digest_of(digest)


def proof(list leaf_hashes not None, Py_ssize_t index):
    cdef Py_ssize_t count = len(leaf_hashes)
    cdef uint8_t path[32 * 64]
    cdef uint8_t *hashes
    cdef size_t steps
    if not 0 <= index < count:
        raise IndexError(f"leaf {index} is not in a tree of {count} leaves")
    hashes = gather(leaf_hashes)
    with nogil:
        steps = assay_merkle_reduce(hashes, count, index, path)
        free(hashes)
    return [digest_of(path + 32 * position) for position in range(<Py_ssize_t>steps)]


cdef bytes walk_packed(bytes data, bytes ends, size_t index, uint8_t *path, size_t *steps):
    """The root of packed leaves, and the path of one of them unless `path` is NULL."""
    cdef size_t length = len(data), count = len(ends) // 4
    cdef const uint8_t *leaves = <const uint8_t *>PyBytes_AS_STRING(data)
    cdef const uint8_t *places = <const uint8_t *>PyBytes_AS_STRING(ends)
    cdef uint8_t digest[32]
    cdef bint valid, done = False
    with nogil:
        valid = assay_leaves_valid(places, count, length)
        if valid:
            done = assay_leaves_root(leaves, places, count, digest, index, path, steps)
    if not valid or len(ends) % 4 != 0:
        raise ValueError(f"{len(ends)} bytes of ends do not rise to the data's {length} bytes")
    if not done:
        raise MemoryError(f"no memory for {count} leaf hashes")
    return digest_of(digest)


def packed_root(bytes data not None, bytes ends not None):
    return walk_packed(data, ends, 0, NULL, NULL)


def packed_proof(bytes data not None, bytes ends not None, Py_ssize_t index):
    cdef uint8_t path[32 * 64]
    cdef size_t steps = 0
    if not 0 <= index < len(ends) // 4:
        raise IndexError(f"leaf {index} is not in a tree of {len(ends) // 4} leaves")
    walk_packed(data, ends, index, path, &steps)
    return [digest_of(path + 32 * step) for step in range(<Py_ssize_t>steps)]


def verify_proof(bytes leaf_hash not None, index, size, list path not None, bytes root not None):
    cdef uint8_t steps[32 * 64]
    cdef Py_ssize_t position = 0
    if len(leaf_hash) != 32 or len(root) != 32 or len(path) > 64:
        return False
    if not 0 <= index < size <= 1 << 63:
        return False
    for item in path:
        if type(item) is not bytes or len(<bytes>item) != 32:
            return False
        memcpy(steps + 32 * position, PyBytes_AS_STRING(item), 32)
        position += 1
    return assay_merkle_verify(
        <const uint8_t *>PyBytes_AS_STRING(leaf_hash), index, size, steps, position,
        <const uint8_t *>PyBytes_AS_STRING(root),
    ) == 1
