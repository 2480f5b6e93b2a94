"""Ed25519 verification by ZIP-215, one and many, without the interpreter lock.

A signature (R, S) by key A over a message is accepted when A and R decode to curve points (their
encodings need not be canonical), S < L, and [8][S]B = [8]R + [8][k]A with k = SHA-512(R | A |
message) mod L. A batch gives exactly the answers of one by one, up to a chance below 2^-100 over
random coefficients drawn fresh for each call. Use ``ext.signatures``; docs/ed25519.md has the
derivations.
"""

from typing import Final, TypedDict

import numpy as np
from numpy.typing import NDArray

PUBLIC_KEY_BYTES: Final = 32
SIGNATURE_BYTES: Final = 64
COEFFICIENT_BYTES: Final = 16
KEPT_KEYS: Final = 65536
KEPT_KEYS_MAX: Final = 1048576

def verify(public_key: bytes, message: bytes, signature: bytes) -> bool:
    """Whether one signature is accepted. Total: a key or signature of another length is False."""

def engines() -> tuple[str, ...]:
    """The ways this processor can do the arithmetic of a batch, fastest first.

    ``"ifma"`` (eight elements at once, where there is AVX-512 with IFMA), ``"avx2"`` (four at once,
    where there is AVX2 with FMA) and ``"portable"``.
    """

class Costs(TypedDict):
    """What a verifier's batches have cost since it was made."""

    sums: int
    """Equations over several signatures."""
    sum_members: int
    """Signatures in those, each time one took part."""
    singles: int
    """Equations of one signature."""
    keys_decoded: int
    """Public keys that had to be decoded, each once a batch of up to 8192."""
    keys_known: int
    """Public keys found decoded from before."""

class Verifier:
    """Checks batches; threads may share one. Decoded public keys are kept from batch to batch.

    ``kept_keys`` bounds how many (200 bytes each; rounded up to a power of two; 0 keeps none), and
    ``engine`` is one of ``engines()``, by default the fastest. No answer depends on either. Raises
    ValueError for others, MemoryError.
    """

    def __init__(self, kept_keys: int = ..., engine: str | None = None) -> None: ...
    def costs(self) -> Costs:
        """What was spent so far; counted when a batch is done."""

    def verify_batch(
        self,
        public_keys: NDArray[np.uint8],
        messages: NDArray[np.uint8],
        signatures: NDArray[np.uint8],
    ) -> NDArray[np.bool_]:
        """Which of n signatures are accepted, as (n,) booleans.

        Contiguous arrays: keys (n, 32), messages (n, m) of one length m, signatures (n, 64).
        Raises ValueError for other shapes, MemoryError.
        """

    def verify_each(
        self, public_keys: list[bytes], messages: list[bytes], signatures: list[bytes]
    ) -> NDArray[np.bool_]:
        """The same for lists of bytes; messages may differ in length.

        Raises ValueError when the lists differ in length or an item has the wrong size, TypeError,
        MemoryError.
        """
