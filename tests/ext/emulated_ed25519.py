"""``ext.ed25519`` with the eight lanes of AVX-512 emulated, called through ctypes.

The same C sources, compiled with ``ifma_emulated.h`` in place of the processor's instructions.
"""

import ctypes
import hashlib
from ctypes import c_char_p, c_size_t, c_uint64, c_void_p
from pathlib import Path

from tests.ext import compiling

SOURCES = [
    *("ed25519", "ed25519_keys", "edwards25519", "edwards25519_avx2", "edwards25519_ifma"),
    *("field25519", "multiples25519", "scalar25519", "sha512"),
]
ENGINE = b"ifma"


class Message(ctypes.Structure):
    """assay_message"""

    _fields_ = (("data", c_char_p), ("length", c_size_t))


class Costs(ctypes.Structure):
    """assay_ed25519_costs"""

    _fields_ = tuple(
        (name, c_uint64)
        for name in ("sums", "sum_members", "singles", "keys_decoded", "keys_known")
    )


class Library:
    """The compiled library; verifiers come from it."""

    def __init__(self, directory: Path) -> None:
        target = directory / "emulated_ed25519.so"
        sources = [str(compiling.NATIVE / f"{source}.c") for source in SOURCES]
        flags = [*compiling.SMALL_FUNCTIONS, *compiling.EMULATED_IFMA, "-fPIC", "-shared"]
        compiling.compile_with([*flags, *sources, "-o", str(target)], directory)
        self._library = ctypes.CDLL(str(target))
        self._library.assay_ed25519_verifier_new.argtypes = [c_char_p, c_size_t, c_char_p]
        self._library.assay_ed25519_verifier_new.restype = c_void_p
        self._library.assay_ed25519_verifier_free.argtypes = [c_void_p]
        self._library.assay_ed25519_verify_batch.argtypes = [c_void_p, c_size_t, *[c_void_p] * 6]
        self._library.assay_ed25519_prepare()

    def keys_known(self, batches: list[list[tuple[bytes, bytes, bytes]]], seed: bytes) -> int:
        """How many public keys were known from before, over ``batches`` by one verifier."""
        costs = Costs()
        self._run(batches, 1, seed, costs)
        return int(costs.keys_known)

    def verify(self, items: list[tuple[bytes, bytes, bytes]], seed: bytes) -> list[bool]:
        """The answers of one batch, with coefficients that ``seed`` (one byte or more) decides."""
        return self._run([items], 0, seed, Costs())[0]

    def _run(
        self,
        batches: list[list[tuple[bytes, bytes, bytes]]],
        kept_keys: int,
        seed: bytes,
        costs: Costs,
    ) -> list[list[bool]]:
        secret = hashlib.sha256(seed).digest()
        verifier = self._library.assay_ed25519_verifier_new(ENGINE, kept_keys, secret)
        assert verifier is not None
        answers = []
        for items in batches:
            count = len(items)
            accepted = ctypes.create_string_buffer(count)
            done = self._library.assay_ed25519_verify_batch(
                verifier,
                count,
                b"".join(item[0] for item in items),
                (Message * count)(*[Message(item[1], len(item[1])) for item in items]),
                b"".join(item[2] for item in items),
                hashlib.shake_256(seed).digest(16 * count),
                accepted,
                ctypes.byref(costs),
            )
            assert done == 1
            answers.append([answer == 1 for answer in accepted.raw])
        self._library.assay_ed25519_verifier_free(verifier)
        return answers
