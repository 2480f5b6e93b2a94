"""A validator's secrets, opened once at start."""

from dataclasses import dataclass, field
from pathlib import Path

from chain.genesis import Genesis
from chain.keys import KeyPair, Role
from chain.keystore import KeystoreError, load_key, read_passphrase
from chain.node.config import ConfigError, KeyFiles
from chain.tls import TlsError, TlsIdentity, load_identity
from consensus.vrf import VrfKey, prove


@dataclass(frozen=True, slots=True)
class NodeKeys:
    """Everything a validator signs or proves with."""

    signing: KeyPair
    vrf: KeyPair
    account: KeyPair
    tls: TlsIdentity
    _vrf_secret: VrfKey = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_vrf_secret", VrfKey.from_secret(self.vrf.seed))

    def sign(self, message: bytes) -> bytes:
        """By the signing key: votes, proposals, batches, acks."""
        return self.signing.sign(message)

    def prove_vrf(self, alpha: bytes) -> bytes:
        """ECVRF proof (80 bytes) by the VRF key."""
        return prove(self._vrf_secret, alpha)


def load_keys(files: KeyFiles, genesis: Genesis, index: int) -> NodeKeys:
    """Open the key files and check them against the validator's entry in genesis.

    Raises ConfigError.
    """
    if index >= len(genesis.validators):
        raise ConfigError(
            f"validator = {index}, but genesis names {len(genesis.validators)}: 0 to "
            f"{len(genesis.validators) - 1}"
        )
    try:
        passphrase = read_passphrase(files.passphrase_file)
        keys = NodeKeys(
            signing=load_key(files.signing, passphrase, Role.SIGNING),
            vrf=load_key(files.vrf, passphrase, Role.VRF),
            account=load_key(files.account, passphrase, Role.ACCOUNT),
            tls=load_identity(_read(files.tls_key), _read(files.tls_certificate)),
        )
    except (KeystoreError, TlsError) as error:
        raise ConfigError(str(error)) from error
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
