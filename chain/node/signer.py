"""A validator's secrets, opened once at start."""

from dataclasses import dataclass, field
from pathlib import Path

from chain.genesis import Genesis
from chain.keys import KeyPair, Role
from chain.keystore import KeystoreError, load_key, read_passphrase
from chain.node.config import ConfigError, KeyFiles
from chain.tls import TlsError, TlsIdentity, load_identity
from consensus.values import Validator
from consensus.vrf import VrfKey, prove


class UnknownKeys(Exception):
    """The set names keys of this validator that this node does not hold."""


@dataclass(frozen=True, slots=True)
class EpochSigner:
    """What a validator signs and proves with in one epoch."""

    signing: KeyPair
    vrf: KeyPair
    _vrf_secret: VrfKey = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_vrf_secret", VrfKey.from_secret(self.vrf.seed))

    def sign(self, message: bytes) -> bytes:
        """By the signing key: votes, proposals, batches, acks."""
        return self.signing.sign(message)

    def prove_vrf(self, alpha: bytes) -> bytes:
        """ECVRF proof (80 bytes) by the VRF key."""
        return prove(self._vrf_secret, alpha)


@dataclass(frozen=True, slots=True)
class NodeKeys:
    """Everything a validator signs or proves with."""

    signing: KeyPair
    vrf: KeyPair
    account: KeyPair
    tls: TlsIdentity
    next_signing: KeyPair | None = None
    """Held beside the other until a set names it."""
    next_vrf: KeyPair | None = None

    def signer(self, member: Validator) -> EpochSigner:
        """With the keys that a set names. Raises UnknownKeys."""
        return EpochSigner(
            _held("signing", member.signing_key, self.signing, self.next_signing),
            _held("VRF", member.vrf_key, self.vrf, self.next_vrf),
        )


def _held(name: str, wanted: bytes, *keys: KeyPair | None) -> KeyPair:
    for key in keys:
        if key is not None and key.public_key == wanted:
            return key
    raise UnknownKeys(
        f"the validator set names {name} key {wanted.hex()}, which is not in this home: put its "
        "file there, name it in [keys] of node.toml, and restart"
    )


def load_keys(files: KeyFiles, genesis: Genesis, index: int) -> NodeKeys:
    """Open the key files and, on a chain whose first validators are its last, check them against
    the validator's entry in genesis; else the ledger says which count.

    Raises ConfigError.
    """
    has_epochs = genesis.parameters.epoch_blocks > 0
    if index >= len(genesis.validators) and not has_epochs:
        raise ConfigError(
            f"validator = {index}, but genesis names {len(genesis.validators)}: 0 to "
            f"{len(genesis.validators) - 1}"
        )
    try:
        passphrase = read_passphrase(files.passphrase_file)

        def load(path: Path, role: Role) -> KeyPair:
            return load_key(path, passphrase, role)

        next_signing, next_vrf = files.next_signing, files.next_vrf
        keys = NodeKeys(
            signing=load(files.signing, Role.SIGNING),
            vrf=load(files.vrf, Role.VRF),
            account=load(files.account, Role.ACCOUNT),
            tls=load_identity(_read(files.tls_key), _read(files.tls_certificate)),
            next_signing=None if next_signing is None else load(next_signing, Role.SIGNING),
            next_vrf=None if next_vrf is None else load(next_vrf, Role.VRF),
        )
    except (KeystoreError, TlsError) as error:
        raise ConfigError(str(error)) from error
    if has_epochs:
        return keys
    entry = genesis.validators[index]
    for name, own, expected in (
        ("signing key", keys.signing.public_key, entry.signing_key),
        ("VRF key", keys.vrf.public_key, entry.vrf_key),
        ("account", keys.account.public_key, entry.account),
        ("TLS certificate", keys.tls.certificate_der, entry.certificate),
    ):
        if own != expected:
            raise ConfigError(
                f"the {name} is not that of validator {index} in genesis; "
                "check 'validator' and the key files in node.toml"
            )
    return keys


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
