"""The one place where Ed25519 signatures are checked: ZIP-215, in ``ext.ed25519``.

One signature and many obey one rule (docs/ed25519.md), so how signatures were grouped can never
decide whether a block is valid. Signing and key generation stay with PyNaCl, whose signatures all
pass. ``ASSAY_ED25519=portable`` in the environment keeps batches off the processor's own
instructions, and ``avx2`` off AVX-512, where somebody doubts them or measures what they are worth.
"""

import os
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ext import ed25519

PUBLIC_KEY_BYTES = ed25519.PUBLIC_KEY_BYTES
SIGNATURE_BYTES = ed25519.SIGNATURE_BYTES

# RFC 8032, section 7.1, test 2: public key, message, signature.
_KNOWN_PUBLIC_KEY = bytes.fromhex(
    "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c"
)
_KNOWN_MESSAGE = b"\x72"
_KNOWN_SIGNATURE = bytes.fromhex(
    "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
    "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"
)
_SELF_TEST_SIZE = 32

# One for the process: every thread profits from the public keys another has decoded.
_VERIFIER = ed25519.Verifier(engine=os.environ.get("ASSAY_ED25519"))


def verify(public_key: bytes, message: bytes, signature: bytes) -> bool:
    """Whether ``signature`` (64 bytes) by ``public_key`` (32 bytes) covers ``message``.

    Total: a key or signature of another length is False.
    """
    return ed25519.verify(public_key, message, signature)


def verify_many(items: Sequence[tuple[bytes, bytes, bytes]]) -> list[bool]:
    """``verify`` for each ``(public_key, message, signature)``, in order, in one batch."""
    answers = [False] * len(items)
    sized = [
        index
        for index, (public_key, _, signature) in enumerate(items)
        if len(public_key) == PUBLIC_KEY_BYTES and len(signature) == SIGNATURE_BYTES
    ]
    accepted = _VERIFIER.verify_each(
        [items[index][0] for index in sized],
        [items[index][1] for index in sized],
        [items[index][2] for index in sized],
    )
    for index, answer in zip(sized, accepted.tolist(), strict=True):
        answers[index] = answer
    return answers


def verify_batch(
    public_keys: NDArray[np.uint8], messages: NDArray[np.uint8], signatures: NDArray[np.uint8]
) -> NDArray[np.bool_]:
    """``verify`` for each row of contiguous arrays (n, 32), (n, m) and (n, 64): (n,) booleans.

    Raises ValueError for other shapes. The messages of transactions are their signing digests.
    """
    return _VERIFIER.verify_batch(public_keys, messages, signatures)


def self_test() -> None:
    """Check a known signature, damaged and whole, alone and in a batch. Raises RuntimeError."""
    damaged = bytes([_KNOWN_SIGNATURE[0] ^ 1]) + _KNOWN_SIGNATURE[1:]
    good = (_KNOWN_PUBLIC_KEY, _KNOWN_MESSAGE, _KNOWN_SIGNATURE)
    bad = (_KNOWN_PUBLIC_KEY, _KNOWN_MESSAGE, damaged)
    alone = verify(*good) and not verify(*bad)
    together = all(verify_many([good] * _SELF_TEST_SIZE))
    found = verify_many([good] * _SELF_TEST_SIZE + [bad])
    if not alone or not together or found != [True] * _SELF_TEST_SIZE + [False]:
        raise RuntimeError(
            "the Ed25519 self-test failed: this build checks signatures wrongly on this processor; "
            "rebuild with `make clean build` and report the processor and compiler"
        )


self_test()
