"""Ed25519 key pairs, their roles, and how all of them grow from one list of words.

A person or a validator keeps 24 words (BIP-39). The words give BIP-39's 64-byte seed, and each key
is

    key seed = H("key", bip39_seed, role, index as u32-LE)

so one backup restores the account key, the signing key and the VRF key, and knowing one of them
tells nothing about the others. There is no BIP-32 path and no derivation of public keys from public
keys.
"""

import enum
from collections.abc import Callable
from dataclasses import dataclass, field
from os import urandom
from typing import Final

from mnemonic import Mnemonic
from nacl.signing import SigningKey

from ext.hashing import tagged_hash

SEED_BYTES: Final = 32
MNEMONIC_ENTROPY_BYTES: Final = 32
"""24 words."""
KEY_INDEX_MAX: Final = 0xFFFFFFFF


class Role(enum.StrEnum):
    """What a key may be used for. One key has one role."""

    ACCOUNT = "account"
    SIGNING = "signing"
    VRF = "vrf"


class MnemonicError(ValueError):
    """The words are no BIP-39 backup."""


@dataclass(frozen=True, slots=True)
class KeyPair:
    """An Ed25519 key pair. A VRF key has the same shape (RFC 9381, 5.4.1) but never signs."""

    seed: bytes = field(repr=False)
    """32 bytes, the secret."""
    signing_key: SigningKey = field(init=False, repr=False, compare=False)
    """PyNaCl's view of the secret."""

    def __post_init__(self) -> None:
        if len(self.seed) != SEED_BYTES:
            raise ValueError(f"a key seed has {SEED_BYTES} bytes, not {len(self.seed)}")
        object.__setattr__(self, "signing_key", SigningKey(self.seed))

    @classmethod
    def generate(cls, random_bytes: Callable[[int], bytes] = urandom) -> "KeyPair":
        """A fresh key pair; `random_bytes(size)` is the operating system's unless a test gives its
        own.
        """
        return cls(random_bytes(SEED_BYTES))

    @property
    def public_key(self) -> bytes:
        """32 bytes."""
        return bytes(self.signing_key.verify_key)

    def sign(self, message: bytes) -> bytes:
        """Signature (64 bytes) over the message."""
        return self.signing_key.sign(message).signature


@dataclass(frozen=True, slots=True)
class ValidatorKeys:
    """The three secrets of a validator; their public keys differ."""

    account: KeyPair
    signing: KeyPair
    vrf: KeyPair

    @classmethod
    def from_mnemonic(cls, words: str) -> "ValidatorKeys":
        """All three keys from one backup, each at index 0. Raises MnemonicError."""
        return cls(
            account=derive_key(words, Role.ACCOUNT),
            signing=derive_key(words, Role.SIGNING),
            vrf=derive_key(words, Role.VRF),
        )


def new_mnemonic(random_bytes: Callable[[int], bytes] = urandom) -> str:
    """24 English words for fresh entropy."""
    return Mnemonic("english").to_mnemonic(random_bytes(MNEMONIC_ENTROPY_BYTES))


def derive_key(words: str, role: Role, index: int = 0) -> KeyPair:
    """The key pair of one role and index from BIP-39 words.

    Raises MnemonicError for wrong words.
    """
    if not 0 <= index <= KEY_INDEX_MAX:
        raise ValueError(f"key index {index}, allowed are 0 to {KEY_INDEX_MAX}")
    normal = " ".join(words.split())
    bip39 = Mnemonic("english")
    if not bip39.check(normal):
        raise MnemonicError(
            "these words are no BIP-39 backup: 12 to 24 English words whose last holds a checksum; "
            "check their spelling and order"
        )
    seed = bip39.to_seed(normal)
    return KeyPair(tagged_hash(b"key", seed, role.value.encode(), index.to_bytes(4, "little")))
