"""Keys of simulated validators: real ones from a seed, or cheap ones that nobody here forges.

A cheap signature is a hash of public key and message: unforgeable only because no simulated
validator tries. Twins misbehave by what they sign, not by whose key they use.
"""

from collections.abc import Sequence
from dataclasses import replace

from nacl.signing import SigningKey

from consensus.certificates import Checks, RealChecks
from consensus.events import Signer
from consensus.values import Validator, ValidatorSet
from consensus.vrf import VrfKey, prove
from ext.hashing import tagged_hash


class RealSigner:
    """Ed25519 and ECVRF keys derived from a label."""

    def __init__(self, label: bytes) -> None:
        self._signing = SigningKey(tagged_hash(b"sim-signing", label))
        self._vrf = VrfKey.from_secret(tagged_hash(b"sim-vrf", label))
        self.signing_key = bytes(self._signing.verify_key)
        self.vrf_key = self._vrf.public_key

    def sign(self, message: bytes) -> bytes:
        """See `Signer`."""
        return self._signing.sign(message).signature

    def prove_vrf(self, alpha: bytes) -> bytes:
        """See `Signer`."""
        return prove(self._vrf, alpha)


class CheapSigner:
    """Hashes in place of signatures."""

    def __init__(self, label: bytes) -> None:
        self.signing_key = tagged_hash(b"sim-signing", label)
        self.vrf_key = tagged_hash(b"sim-vrf", label)

    def sign(self, message: bytes) -> bytes:
        """See `Signer`."""
        return _cheap(self.signing_key, message)

    def prove_vrf(self, alpha: bytes) -> bytes:
        """See `Signer`."""
        return _cheap(self.vrf_key, alpha) + bytes(16)


class CheapChecks:
    """The other side of CheapSigner."""

    def verify_many(self, items: Sequence[tuple[bytes, bytes, bytes]]) -> list[bool]:
        """See `Checks`."""
        return [signature == _cheap(key, message) for key, message, signature in items]

    def vrf_output(self, public_key: bytes, alpha: bytes, proof: bytes) -> bytes | None:
        """See `Checks`."""
        return proof[:64] if proof == _cheap(public_key, alpha) + bytes(16) else None


def _cheap(key: bytes, message: bytes) -> bytes:
    return tagged_hash(b"sim-sign", key, message) * 2


def make_member(index: int, rotation: int, real: bool) -> tuple[Signer, Validator]:
    """A validator's keys after so many rotations, and what a set of stake 1 says of it."""
    label = index.to_bytes(2, "little")
    keys = label + rotation.to_bytes(2, "little") if rotation else label
    signer = RealSigner(keys) if real else CheapSigner(keys)
    account = tagged_hash(b"account", label)
    return signer, Validator(index, signer.signing_key, signer.vrf_key, account, 1)


def make_checks(real: bool) -> Checks:
    """The checks that fit them."""
    return RealChecks() if real else CheapChecks()


def make_validators(
    stakes: Sequence[int], real: bool
) -> tuple[ValidatorSet, tuple[Signer, ...], Checks]:
    """A validator set with these stakes, the keys, and the checks that fit them."""
    made = [make_member(index, 0, real) for index in range(len(stakes))]
    members = tuple(
        replace(member, stake=stake) for (_, member), stake in zip(made, stakes, strict=True)
    )
    return ValidatorSet(0, members), tuple(signer for signer, _ in made), make_checks(real)
