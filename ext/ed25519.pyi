"""Ed25519 verification by ZIP-215, one and many, without the interpreter lock.

A signature (R, S) by key A over a message is accepted when A and R decode to curve points (their
encodings need not be canonical), S < L, and [8][S]B = [8]R + [8][k]A with k = SHA-512(R | A |
message) mod L. A batch gives exactly the answers of one by one, up to a chance below 2^-100 over
random coefficients drawn fresh for each call. Use ``ext.signatures``; docs/ed25519.md has the
derivations.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

PUBLIC_KEY_BYTES: Final = 32
SIGNATURE_BYTES: Final = 64
COEFFICIENT_BYTES: Final = 16

def verify(public_key: bytes, message: bytes, signature: bytes) -> bool:
    """Whether one signature is accepted. Total: a key or signature of another length is False."""

def verify_batch(
    public_keys: NDArray[np.uint8], messages: NDArray[np.uint8], signatures: NDArray[np.uint8]
) -> NDArray[np.bool_]:
    """Which of n signatures are accepted, as (n,) booleans.

    Contiguous arrays: keys (n, 32), messages (n, m) of one length m, signatures (n, 64). Raises
    ValueError for other shapes, MemoryError.
    """

def verify_each(
    public_keys: list[bytes], messages: list[bytes], signatures: list[bytes]
) -> NDArray[np.bool_]:
    """The same for lists of bytes; messages may differ in length.

    Raises ValueError when the lists differ in length or an item has the wrong size, TypeError,
    MemoryError.
    """
