"""ECVRF-EDWARDS25519-SHA512-TAI (RFC 9381): an output nobody can choose and anybody can check.

Point arithmetic is libsodium's. One rule is stricter than the RFC: the public key and gamma must
lie in the subgroup of prime order. Every honest proof does, and it makes the verdict independent
of what a library's scalar multiplication thinks of other points. Steps are named after the RFC's
sections.
"""

import hashlib
from dataclasses import dataclass
from typing import Final

from nacl.bindings import (
    crypto_core_ed25519_add,
    crypto_core_ed25519_is_valid_point,
    crypto_core_ed25519_scalar_add,
    crypto_core_ed25519_scalar_mul,
    crypto_core_ed25519_scalar_reduce,
    crypto_core_ed25519_sub,
    crypto_scalarmult_ed25519_base_noclamp,
    crypto_scalarmult_ed25519_noclamp,
)
from nacl.exceptions import RuntimeError as SodiumError

PROOF_BYTES: Final = 80
OUTPUT_BYTES: Final = 64
SECRET_KEY_BYTES: Final = 32
_SUITE: Final = b"\x03"
_CHALLENGE_BYTES: Final = 16
_FIELD_PRIME: Final = 2**255 - 19
_GROUP_ORDER: Final = 2**252 + 27742317777372353535851937790883648493
_IDENTITY: Final = (1).to_bytes(32, "little")
_COUNTER_END: Final = 256


@dataclass(frozen=True, slots=True)
class VrfKey:
    """The scalar and the nonce prefix of a secret key, with its public key."""

    scalar: bytes
    prefix: bytes
    public_key: bytes

    @classmethod
    def from_secret(cls, secret_key: bytes) -> "VrfKey":
        """From 32 secret bytes, as RFC 8032 section 5.1.5 derives an Ed25519 key."""
        if len(secret_key) != SECRET_KEY_BYTES:
            raise ValueError(f"secret key of {len(secret_key)} bytes, must be {SECRET_KEY_BYTES}")
        digest = hashlib.sha512(secret_key).digest()
        clamped = bytearray(digest[:32])
        clamped[0] &= 248
        clamped[31] = clamped[31] & 127 | 64
        scalar = crypto_core_ed25519_scalar_reduce(bytes(clamped) + bytes(32))
        return cls(scalar, digest[32:], crypto_scalarmult_ed25519_base_noclamp(scalar))


def prove(key: VrfKey, alpha: bytes) -> bytes:
    """The 80-byte proof on `alpha` (section 5.1)."""
    point = _encode_to_curve(key.public_key, alpha)
    gamma = crypto_scalarmult_ed25519_noclamp(key.scalar, point)
    nonce = crypto_core_ed25519_scalar_reduce(hashlib.sha512(key.prefix + point).digest())
    challenge = _challenge(
        key.public_key,
        point,
        gamma,
        crypto_scalarmult_ed25519_base_noclamp(nonce),
        crypto_scalarmult_ed25519_noclamp(nonce, point),
    )
    product = crypto_core_ed25519_scalar_mul(challenge + bytes(16), key.scalar)
    return gamma + challenge + crypto_core_ed25519_scalar_add(nonce, product)


def verify(public_key: bytes, alpha: bytes, proof: bytes) -> bytes | None:
    """The 64-byte output if the proof holds (section 5.3), else None. Total on any bytes."""
    if len(public_key) != 32 or len(proof) != PROOF_BYTES:
        return None
    gamma, challenge, response = proof[:32], proof[32:48], proof[48:]
    if int.from_bytes(response, "little") >= _GROUP_ORDER:
        return None
    if not any(challenge) or not any(response):
        return None
    if not (
        crypto_core_ed25519_is_valid_point(public_key) and crypto_core_ed25519_is_valid_point(gamma)
    ):
        return None
    point = _encode_to_curve(public_key, alpha)
    scalar = challenge + bytes(16)
    try:
        u = crypto_core_ed25519_sub(
            crypto_scalarmult_ed25519_base_noclamp(response),
            crypto_scalarmult_ed25519_noclamp(scalar, public_key),
        )
        v = crypto_core_ed25519_sub(
            crypto_scalarmult_ed25519_noclamp(response, point),
            crypto_scalarmult_ed25519_noclamp(scalar, gamma),
        )
    except SodiumError:
        return None
    if _challenge(public_key, point, gamma, u, v) != challenge:
        return None
    return _output(gamma)


def output_of(proof: bytes) -> bytes:
    """The 64-byte output of a proof already known to hold (section 5.2)."""
    return _output(proof[:32])


def _output(gamma: bytes) -> bytes:
    return hashlib.sha512(_SUITE + b"\x03" + _times_cofactor(gamma) + b"\x00").digest()


def _challenge(*points: bytes) -> bytes:
    """Section 5.4.3."""
    digest = hashlib.sha512(_SUITE + b"\x02" + b"".join(points) + b"\x00").digest()
    return digest[:_CHALLENGE_BYTES]


def _encode_to_curve(salt: bytes, alpha: bytes) -> bytes:
    """Section 5.4.1.1: try and increment."""
    for counter in range(_COUNTER_END):
        data = _SUITE + b"\x01" + salt + alpha + bytes((counter,)) + b"\x00"
        candidate = hashlib.sha512(data).digest()[:32]
        # RFC 8032 decoding refuses a y that is not reduced; the library would reduce it.
        if int.from_bytes(candidate, "little") & (1 << 255) - 1 >= _FIELD_PRIME:
            continue
        try:
            point = _times_cofactor(candidate)
        except SodiumError:
            continue
        if point != _IDENTITY:
            return point
    raise ArithmeticError("no counter gives a curve point: one chance in 2^256")


def _times_cofactor(point: bytes) -> bytes:
    """Eight times a point by doubling; raises SodiumError if it is not on the curve."""
    for _ in range(3):
        point = crypto_core_ed25519_add(point, point)
    return point
