"""Valid things by default, so that a test shows only what differs. Keep it small."""

from functools import cache

from chain.contacts import Contact, Contacts
from chain.genesis import Genesis, GenesisValidator, binding_message, make_genesis
from chain.keys import KeyPair
from chain.parameters import GRAIN_PER_ASY, Parameters
from chain.tls import TlsIdentity, new_identity
from consensus.values import Block, Certificate, Tip, VoteBody, VoteKind
from ext.hashing import sha256


def key(name: str) -> KeyPair:
    """The key pair of a name."""
    return KeyPair(sha256(name.encode()))


@cache
def tls_identity(index: int) -> TlsIdentity:
    """One TLS identity for each validator and test run."""
    return new_identity(index)


def genesis_validator(index: int, stake: int = 100) -> GenesisValidator:
    signing = key(f"signing-{index}")
    certificate = tls_identity(index).certificate_der
    return GenesisValidator(
        index=index,
        signing_key=signing.public_key,
        vrf_key=key(f"vrf-{index}").public_key,
        account=key(f"account-{index}").public_key,
        stake=stake,
        address=f"127.0.0.1:{20_000 + index}",
        certificate=certificate,
        binding=signing.sign(binding_message(certificate)),
    )


@cache
def genesis(name: str = "test", stakes: tuple[int, ...] = (100, 100, 100, 100)) -> Genesis:
    """A chain whose validators hold `key("signing-0")` and so on."""
    return make_genesis(
        name=name,
        genesis_time_ms=1_750_000_000_000,
        parameters=Parameters(),
        validators=tuple(genesis_validator(index, stake) for index, stake in enumerate(stakes)),
        balances={key("alice").public_key: 1_000 * GRAIN_PER_ASY},
        treasury=key("treasury").public_key,
    )


def contacts() -> Contacts:
    """Of the validators of `genesis()`."""
    return Contacts.of_genesis(genesis())


def contact(index: int) -> Contact:
    """Of one of them."""
    return contacts().all[index]


def block(
    height: int,
    parent: bytes,
    executed: tuple[int, bytes],
    cut: tuple[Tip, ...] = (),
) -> Block:
    """A block of view `height` on `parent`, vouching for `executed` (height, root)."""
    return Block(
        epoch=0,
        view=height,
        height=height,
        parent_view=height - 1,
        parent=parent,
        proposer=height % 4,
        timestamp_ms=1_750_000_000_000 + height,
        cut=cut,
        vrf_proof=bytes(80),
        executed_height=executed[0],
        executed_root=executed[1],
    )


def certify(
    chain: Genesis,
    certified: Block,
    signers: tuple[int, ...] = (0, 1, 2),
    kind: VoteKind = VoteKind.FINALIZE,
) -> Certificate:
    """A certificate of the given signers, really signed."""
    body = VoteBody(
        kind, certified.epoch, certified.view, certified.parent_view, certified.digest()
    )
    message = body.signed_message(chain.chain_id)
    return Certificate(
        body, signers, tuple(key(f"signing-{index}").sign(message) for index in signers)
    )
