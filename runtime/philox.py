"""Philox4x32-10: a counter-based random function (Salmon, Moraes, Dror and Shaw, SC 2011).

Two 32-bit key words and four counter words in, four random words out; no state, so that anybody
computes the noise of one token at one position without the noise of any other.
"""

import numpy as np

from runtime.kernels import helper, kernel

_MULTIPLIER_0 = np.uint64(0xD2511F53)
_MULTIPLIER_1 = np.uint64(0xCD9E8D57)
_WEYL_0 = np.uint64(0x9E3779B9)
_WEYL_1 = np.uint64(0xBB67AE85)
_MASK = np.uint64(0xFFFFFFFF)
_WORD_BITS = np.uint64(32)
_ROUNDS = 10


@helper
def philox4x32(
    key_0: np.uint64,
    key_1: np.uint64,
    counter_0: np.uint64,
    counter_1: np.uint64,
    counter_2: np.uint64,
    counter_3: np.uint64,
) -> tuple[np.uint64, np.uint64, np.uint64, np.uint64]:
    """The four output words; every argument is a uint64 below 2^32."""
    for _ in range(_ROUNDS):
        product_0 = _MULTIPLIER_0 * counter_0
        product_1 = _MULTIPLIER_1 * counter_2
        counter_0 = (product_1 >> _WORD_BITS) ^ counter_1 ^ key_0
        counter_1 = product_1 & _MASK
        counter_2 = (product_0 >> _WORD_BITS) ^ counter_3 ^ key_1
        counter_3 = product_0 & _MASK
        key_0 = (key_0 + _WEYL_0) & _MASK
        key_1 = (key_1 + _WEYL_1) & _MASK
    return counter_0, counter_1, counter_2, counter_3


@kernel("void(uint64[::1], uint64[::1], uint64[::1])")
def philox_words(key: np.ndarray, counter: np.ndarray, out: np.ndarray) -> None:
    """One evaluation: key uint64[2], counter uint64[4], out uint64[4], each word below 2^32."""
    out[0], out[1], out[2], out[3] = philox4x32(
        key[0], key[1], counter[0], counter[1], counter[2], counter[3]
    )
