"""Ed25519 verification by ZIP-215, one and many. See ed25519.pyi for the contract."""

import os
from typing import TypedDict

import numpy

from cpython.bytes cimport PyBytes_AS_STRING
from libc.stdint cimport uint8_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memset

cdef extern from "ed25519.h" nogil:
    ctypedef struct assay_message:
        const uint8_t *data
        size_t length
    ctypedef struct assay_ed25519_verifier:
        pass
    ctypedef struct assay_ed25519_costs:
        uint64_t sums
        uint64_t sum_members
        uint64_t singles
        uint64_t keys_decoded
        uint64_t keys_known
    void assay_ed25519_prepare()
    const char *const *assay_ed25519_engines()
    assay_ed25519_verifier *assay_ed25519_verifier_new(
        const char *engine, size_t kept_keys, const uint8_t *secret)
    void assay_ed25519_verifier_free(assay_ed25519_verifier *verifier)
    int assay_ed25519_verify(
        const uint8_t *public_key, assay_message message, const uint8_t *signature)
    int assay_ed25519_verify_batch(
        assay_ed25519_verifier *verifier, size_t count, const uint8_t *public_keys,
        const assay_message *messages, const uint8_t *signatures, const uint8_t *coefficients,
        uint8_t *accepted, assay_ed25519_costs *costs)

PUBLIC_KEY_BYTES = 32
SIGNATURE_BYTES = 64
COEFFICIENT_BYTES = 16
KEPT_KEYS = 1 << 16
KEPT_KEYS_MAX = 1 << 20
SECRET_BYTES = 32
ENGINE_NEEDS = {"ifma": "AVX-512 F with IFMA", "avx2": "AVX2 with FMA"}


Costs = TypedDict("Costs", {
    "sums": int, "sum_members": int, "singles": int, "keys_decoded": int, "keys_known": int})


def verify(bytes public_key not None, bytes message not None, bytes signature not None):
    cdef assay_message wrapped
    cdef const uint8_t *key_start = <const uint8_t *>PyBytes_AS_STRING(public_key)
    cdef const uint8_t *signature_start = <const uint8_t *>PyBytes_AS_STRING(signature)
    cdef int accepted
    if len(public_key) != 32 or len(signature) != 64:
        return False
    wrapped.data = <const uint8_t *>PyBytes_AS_STRING(message)
    wrapped.length = len(message)
    with nogil:
        accepted = assay_ed25519_verify(key_start, wrapped, signature_start)
    return accepted == 1


cdef bytes joined_exactly(list items, Py_ssize_t size, str name):
    for item in items:
        if type(item) is not bytes or len(<bytes>item) != size:
            raise ValueError(f"every {name} must be {size} bytes, not {item!r}")
    return b"".join(items)


def engines():
    cdef const char *const *names = assay_ed25519_engines()
    found = []
    while names[len(found)] != NULL:
        found.append((<bytes>names[len(found)]).decode())
    return tuple(found)


cdef class Verifier:
    cdef assay_ed25519_verifier *verifier
    cdef assay_ed25519_costs spent

    def __cinit__(self, Py_ssize_t kept_keys=KEPT_KEYS, str engine=None):
        cdef bytes name = (engines()[0] if engine is None else engine).encode()
        cdef bytes secret = os.urandom(SECRET_BYTES)
        memset(&self.spent, 0, sizeof(self.spent))
        if engine is not None and engine not in engines():
            raise ValueError(
                f"engine {engine!r} is none of {', '.join(engines())}" + (
                    f": this processor, or its operating system, lacks {ENGINE_NEEDS[engine]}"
                    if engine in ENGINE_NEEDS else ""))
        if not 0 <= kept_keys <= KEPT_KEYS_MAX:
            raise ValueError(f"kept_keys is {kept_keys}, not from 0 to {KEPT_KEYS_MAX}")
        self.verifier = assay_ed25519_verifier_new(
            PyBytes_AS_STRING(name), kept_keys, <const uint8_t *>PyBytes_AS_STRING(secret))
        if self.verifier == NULL:
            raise MemoryError(f"no memory to keep {kept_keys} public keys")

    def __dealloc__(self):
        assay_ed25519_verifier_free(self.verifier)

    def costs(self):
        return dict(self.spent)

    cdef object run(self, size_t count, const uint8_t *keys, const assay_message *messages,
                    const uint8_t *signatures):
        """Checks with fresh coefficients; an array of bool comes back."""
        cdef bytes coefficients = os.urandom(16 * count)
        cdef const uint8_t *random = <const uint8_t *>PyBytes_AS_STRING(coefficients)
        answers = numpy.zeros(count, dtype=numpy.uint8)
        cdef uint8_t[::1] out = answers
        cdef int done
        cdef assay_ed25519_costs costs
        memset(&costs, 0, sizeof(costs))
        if count == 0:
            return answers.view(numpy.bool_)
        with nogil:
            done = assay_ed25519_verify_batch(
                self.verifier, count, keys, messages, signatures, random, &out[0], &costs)
        self.spent.sums += costs.sums
        self.spent.sum_members += costs.sum_members
        self.spent.singles += costs.singles
        self.spent.keys_decoded += costs.keys_decoded
        self.spent.keys_known += costs.keys_known
        if not done:
            raise MemoryError(f"no memory to check {count} signatures at once")
        return answers.view(numpy.bool_)

    def verify_batch(self, const uint8_t[:, ::1] public_keys not None,
                     const uint8_t[:, ::1] messages not None,
                     const uint8_t[:, ::1] signatures not None):
        cdef Py_ssize_t count = public_keys.shape[0], size = messages.shape[1], index
        cdef assay_message *wrapped
        if public_keys.shape[1] != 32 or signatures.shape[1] != 64:
            raise ValueError(
                f"keys must be (n, {PUBLIC_KEY_BYTES}) and signatures (n, {SIGNATURE_BYTES}), not "
                f"(n, {public_keys.shape[1]}) and (n, {signatures.shape[1]})")
        if messages.shape[0] != count or signatures.shape[0] != count:
            raise ValueError(
                f"{count} keys, {messages.shape[0]} messages and {signatures.shape[0]} signatures: "
                "there must be as many of each")
        if count == 0:
            return numpy.zeros(0, dtype=numpy.bool_)
        wrapped = <assay_message *>malloc(count * sizeof(assay_message))
        if wrapped == NULL:
            raise MemoryError(f"no memory to check {count} signatures at once")
        try:
            for index in range(count):
                wrapped[index].data = &messages[index, 0] if size > 0 else NULL
                wrapped[index].length = size
            return self.run(count, &public_keys[0, 0], wrapped, &signatures[0, 0])
        finally:
            free(wrapped)

    def verify_each(self, list public_keys not None, list messages not None,
                    list signatures not None):
        cdef Py_ssize_t count = len(public_keys), index
        cdef assay_message *wrapped
        if len(messages) != count or len(signatures) != count:
            raise ValueError(
                f"{count} keys, {len(messages)} messages and {len(signatures)} signatures: "
                "there must be as many of each")
        cdef bytes keys = joined_exactly(public_keys, PUBLIC_KEY_BYTES, "public key")
        cdef bytes joined = joined_exactly(signatures, SIGNATURE_BYTES, "signature")
        # Lists can be changed by others while the lock is released; this tuple keeps the bytes alive.
        cdef tuple held = tuple(messages)
        wrapped = <assay_message *>malloc((count + 1) * sizeof(assay_message))
        if wrapped == NULL:
            raise MemoryError(f"no memory to check {count} signatures at once")
        try:
            for index in range(count):
                message = held[index]
                if type(message) is not bytes:
                    raise TypeError(f"message {index} is not bytes: {type(message).__name__}")
                wrapped[index].data = <const uint8_t *>PyBytes_AS_STRING(message)
                wrapped[index].length = len(<bytes>message)
            return self.run(
                count, <const uint8_t *>PyBytes_AS_STRING(keys), wrapped,
                <const uint8_t *>PyBytes_AS_STRING(joined))
        finally:
            free(wrapped)


assay_ed25519_prepare()
