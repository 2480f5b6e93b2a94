"""What a validator's operator makes once: keys under a passphrase, a TLS pair, and a declaration.

The declaration is what the operator hands to whoever writes the genesis: public keys, address,
stake and the certificate bound to the signing key. The secrets stay in `HOME/keys`.
"""

from pathlib import Path
from typing import Final

from assay.v1 import transactions_pb2
from chain.execution.validators import key_claim
from chain.genesis import GenesisValidator, binding_message
from chain.keys import KeyPair, Role, ValidatorKeys
from chain.keystore import KdfCost, save_key, write_private
from chain.tls import new_identity
from consensus.vrf import VrfKey, prove

KEYS_FOLDER: Final = "keys"
TLS_KEY_FILE: Final = "tls.key.pem"
TLS_CERTIFICATE_FILE: Final = "tls.cert.pem"


def create_validator(
    home: Path,
    index: int,
    address: str,
    stake: int,
    words: str,
    passphrase: bytes,
    cost: KdfCost | None = None,
) -> GenesisValidator:
    """Write validator `index`'s keys, derived from BIP-39 `words`, and return its declaration.

    Writes signing.json, vrf.json, account.json, tls.key.pem and tls.cert.pem into `home/keys`.
    Raises MnemonicError, and KeystoreError if any of these files exists.
    """
    keys = ValidatorKeys.from_mnemonic(words)
    identity = new_identity(index)
    folder = home / KEYS_FOLDER
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    for role, pair in (
        (Role.SIGNING, keys.signing),
        (Role.VRF, keys.vrf),
        (Role.ACCOUNT, keys.account),
    ):
        save_key(folder / f"{role.value}.json", pair, role, passphrase, cost)
    write_private(folder / TLS_KEY_FILE, identity.private_key)
    write_private(folder / TLS_CERTIFICATE_FILE, identity.certificate)
    certificate = identity.certificate_der
    return GenesisValidator(
        index=index,
        signing_key=keys.signing.public_key,
        vrf_key=keys.vrf.public_key,
        account=keys.account.public_key,
        stake=stake,
        address=address,
        certificate=certificate,
        binding=keys.signing.sign(binding_message(certificate)),
    )


def shown_keys(
    chain_id: str,
    account: bytes,
    signing: KeyPair,
    vrf: KeyPair,
    address: str,
    certificate: bytes,
) -> transactions_pb2.ValidatorKeys:
    """What an account registers or rotates a validator with: public keys, and proofs that they are
    its own. `certificate` is DER."""
    claim = key_claim(chain_id, account, signing.public_key, vrf.public_key)
    return transactions_pb2.ValidatorKeys(
        signing_key=signing.public_key,
        possession=signing.sign(claim),
        vrf_key=vrf.public_key,
        vrf_proof=prove(VrfKey.from_secret(vrf.seed), claim),
        address=address,
        certificate=certificate,
        binding=signing.sign(binding_message(certificate)),
    )
