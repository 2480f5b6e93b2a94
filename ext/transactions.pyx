"""Batch payloads and signed transactions from the wire. See transactions.pyi for the contract."""

from enum import StrEnum

import numpy

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport uint8_t, uint32_t

from ext.sha256 cimport assay_sha256_select

cdef extern from "transactions.h" nogil:
    ctypedef enum assay_parse_status:
        ASSAY_PARSE_OK
        ASSAY_PARSE_PAYLOAD_TOO_LONG
    ctypedef struct assay_slice:
        uint32_t offset
        uint32_t length
    ctypedef struct assay_signed_tx:
        assay_slice body
        uint32_t public_key
        uint32_t signature
    assay_parse_status assay_parse_signed_tx(
        const uint8_t *data, size_t start, size_t end, assay_signed_tx *out, size_t *failed_at)
    assay_parse_status assay_count_batch(
        const uint8_t *data, size_t length, size_t *transactions, size_t *attestations,
        size_t *failed_at)
    assay_parse_status assay_parse_batch(
        const uint8_t *data, size_t length, assay_slice *bodies, uint8_t *public_keys,
        uint8_t *signatures, uint8_t *ids, assay_slice *attestations, size_t *failed_at)
    void assay_transaction_id(
        const uint8_t *body, size_t length, const uint8_t *public_key, uint8_t *id)
    void assay_signing_digest(
        const uint8_t *chain_id, size_t chain_id_length, const uint8_t *body, size_t length,
        uint8_t *digest)

BODY_BYTES_MAX = 131072
ATTESTATION_BYTES_MAX = 131072
TRANSACTIONS_MAX = 65536
ATTESTATIONS_MAX = 65536
PAYLOAD_BYTES_MAX = 0x7FFFFFFF
PUBLIC_KEY_BYTES = 32
SIGNATURE_BYTES = 64
TRANSACTION_TAG = b"tx"
SIGNING_TAG = b"tx-sign"

assay_sha256_select()


class ParseReason(StrEnum):
    PAYLOAD_TOO_LONG = "payload too long"
    TRUNCATED = "truncated"
    UNEXPECTED_FIELD = "unexpected field"
    LENGTH_NOT_MINIMAL = "length not minimal"
    LENGTH_TOO_LARGE = "length too large"
    BODY_SIZE = "body size"
    PUBLIC_KEY_SIZE = "public key size"
    SIGNATURE_SIZE = "signature size"
    ATTESTATION_SIZE = "attestation size"
    TRAILING_BYTES = "trailing bytes"
    TOO_MANY_TRANSACTIONS = "too many transactions"
    TOO_MANY_ATTESTATIONS = "too many attestations"


# By assay_parse_status, whose zero means accepted.
REASONS = (None, *ParseReason)

EXPLANATIONS = {
    ParseReason.PAYLOAD_TOO_LONG: f"at most {PAYLOAD_BYTES_MAX} bytes are allowed",
    ParseReason.TRUNCATED: "the bytes end inside a field",
    ParseReason.UNEXPECTED_FIELD: "fields must be known, present once and in order",
    ParseReason.LENGTH_NOT_MINIMAL: "a length must use as few bytes as possible",
    ParseReason.LENGTH_TOO_LARGE: "a length has at most 4 bytes",
    ParseReason.BODY_SIZE: f"a body has 1 to {BODY_BYTES_MAX} bytes",
    ParseReason.PUBLIC_KEY_SIZE: f"a public key has {PUBLIC_KEY_BYTES} bytes",
    ParseReason.SIGNATURE_SIZE: f"a signature has {SIGNATURE_BYTES} bytes",
    ParseReason.ATTESTATION_SIZE: f"an attestation has 1 to {ATTESTATION_BYTES_MAX} bytes",
    ParseReason.TRAILING_BYTES: "nothing may follow the signature",
    ParseReason.TOO_MANY_TRANSACTIONS: f"a batch holds at most {TRANSACTIONS_MAX} transactions",
    ParseReason.TOO_MANY_ATTESTATIONS: f"a batch holds at most {ATTESTATIONS_MAX} attestations",
}


class ParseError(ValueError):
    def __init__(self, reason, offset):
        super().__init__(f"{reason.value} at byte {offset}: {EXPLANATIONS[reason]}")
        self.reason = reason
        self.offset = offset


cdef object refused(assay_parse_status status, size_t offset):
    return ParseError(REASONS[<int>status], offset)


cdef class SignedTransaction:
    cdef readonly bytes body
    cdef readonly bytes public_key
    cdef readonly bytes signature
    cdef readonly bytes id

    def __repr__(self):
        return f"SignedTransaction(id={self.id.hex()}, body={len(self.body)} bytes)"

    def signing_digest(self, bytes chain_id not None):
        return signing_digest(chain_id, self.body)


cdef class ParsedBatch:
    cdef readonly bytes payload
    cdef readonly object bodies
    cdef readonly object public_keys
    cdef readonly object signatures
    cdef readonly object ids
    cdef readonly object attestations

    def __len__(self):
        return len(self.bodies)

    def __repr__(self):
        return (
            f"ParsedBatch({len(self.bodies)} transactions, {len(self.attestations)} attestations, "
            f"{len(self.payload)} bytes)"
        )

    def transaction(self, Py_ssize_t index):
        cdef SignedTransaction transaction = SignedTransaction.__new__(SignedTransaction)
        if not 0 <= index < len(self.bodies):
            raise IndexError(f"transaction {index} is not in a batch of {len(self.bodies)}")
        transaction.body = self.slice_of(self.bodies, index)
        transaction.public_key = self.public_keys[index].tobytes()
        transaction.signature = self.signatures[index].tobytes()
        transaction.id = self.ids[index].tobytes()
        return transaction

    def attestation(self, Py_ssize_t index):
        if not 0 <= index < len(self.attestations):
            raise IndexError(f"attestation {index} is not in a batch of {len(self.attestations)}")
        return self.slice_of(self.attestations, index)

    def signing_digests(self, bytes chain_id not None):
        cdef Py_ssize_t count = len(self.bodies), index
        cdef const uint8_t *data = <const uint8_t *>PyBytes_AS_STRING(self.payload)
        cdef const uint8_t *chain = <const uint8_t *>PyBytes_AS_STRING(chain_id)
        cdef size_t chain_length = len(chain_id)
        cdef const uint32_t[:, ::1] bodies = self.bodies
        digests = numpy.empty((count, 32), dtype=numpy.uint8)
        cdef uint8_t[:, ::1] out = digests
        with nogil:
            for index in range(count):
                assay_signing_digest(
                    chain, chain_length, data + bodies[index, 0], bodies[index, 1], &out[index, 0])
        return digests

    cdef bytes slice_of(self, object slices, Py_ssize_t index):
        cdef Py_ssize_t offset = slices[index, 0], length = slices[index, 1]
        return self.payload[offset:offset + length]


def count_batch(bytes payload not None):
    cdef const uint8_t *data = <const uint8_t *>PyBytes_AS_STRING(payload)
    cdef size_t length = len(payload), transactions, attestations, failed_at = 0
    cdef assay_parse_status status
    with nogil:
        status = assay_count_batch(data, length, &transactions, &attestations, &failed_at)
    if status != ASSAY_PARSE_OK:
        raise refused(status, failed_at)
    return transactions, attestations


def parse_batch(bytes payload not None):
    cdef const uint8_t *data = <const uint8_t *>PyBytes_AS_STRING(payload)
    cdef size_t length = len(payload), transactions, attestations, failed_at = 0
    cdef assay_parse_status status
    transactions, attestations = count_batch(payload)

    # One spare row each: an empty array has no address to hand to C.
    bodies = numpy.empty((transactions + 1, 2), dtype=numpy.uint32)
    public_keys = numpy.empty((transactions + 1, 32), dtype=numpy.uint8)
    signatures = numpy.empty((transactions + 1, 64), dtype=numpy.uint8)
    ids = numpy.empty((transactions + 1, 32), dtype=numpy.uint8)
    slices = numpy.empty((attestations + 1, 2), dtype=numpy.uint32)
    cdef uint32_t[:, ::1] bodies_out = bodies
    cdef uint8_t[:, ::1] keys_out = public_keys
    cdef uint8_t[:, ::1] signatures_out = signatures
    cdef uint8_t[:, ::1] ids_out = ids
    cdef uint32_t[:, ::1] slices_out = slices
    with nogil:
        status = assay_parse_batch(
            data, length, <assay_slice *>&bodies_out[0, 0], &keys_out[0, 0],
            &signatures_out[0, 0], &ids_out[0, 0], <assay_slice *>&slices_out[0, 0], &failed_at)
    if status != ASSAY_PARSE_OK:
        raise refused(status, failed_at)

    cdef ParsedBatch batch = ParsedBatch.__new__(ParsedBatch)
    batch.payload = payload
    batch.bodies = frozen(bodies, transactions)
    batch.public_keys = frozen(public_keys, transactions)
    batch.signatures = frozen(signatures, transactions)
    batch.ids = frozen(ids, transactions)
    batch.attestations = frozen(slices, attestations)
    return batch


cdef object frozen(object array, Py_ssize_t rows):
    """The array without its spare row, read-only from here on."""
    array.flags.writeable = False
    return array[:rows]


def parse_signed_tx(bytes data not None):
    cdef const uint8_t *start = <const uint8_t *>PyBytes_AS_STRING(data)
    cdef assay_signed_tx parsed
    cdef size_t failed_at = 0
    cdef assay_parse_status status = assay_parse_signed_tx(start, 0, len(data), &parsed, &failed_at)
    if status != ASSAY_PARSE_OK:
        raise refused(status, failed_at)
    cdef SignedTransaction transaction = SignedTransaction.__new__(SignedTransaction)
    cdef Py_ssize_t body_end = parsed.body.offset + parsed.body.length
    transaction.body = data[parsed.body.offset:body_end]
    transaction.public_key = data[parsed.public_key:parsed.public_key + 32]
    transaction.signature = data[parsed.signature:parsed.signature + 64]
    transaction.id = transaction_id(transaction.body, transaction.public_key)
    return transaction


def transaction_id(bytes body not None, bytes public_key not None):
    cdef bytes digest = PyBytes_FromStringAndSize(NULL, 32)
    if len(public_key) != 32:
        raise ValueError(f"public key has {len(public_key)} bytes; {PUBLIC_KEY_BYTES} are needed")
    assay_transaction_id(
        <const uint8_t *>PyBytes_AS_STRING(body), len(body),
        <const uint8_t *>PyBytes_AS_STRING(public_key), <uint8_t *>PyBytes_AS_STRING(digest))
    return digest


def signing_digest(bytes chain_id not None, bytes body not None):
    cdef bytes digest = PyBytes_FromStringAndSize(NULL, 32)
    assay_signing_digest(
        <const uint8_t *>PyBytes_AS_STRING(chain_id), len(chain_id),
        <const uint8_t *>PyBytes_AS_STRING(body), len(body), <uint8_t *>PyBytes_AS_STRING(digest))
    return digest
