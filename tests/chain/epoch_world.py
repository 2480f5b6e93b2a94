"""A chain in memory whose validator set changes: short epochs, and operators with keys."""

from dataclasses import dataclass, field

from google.protobuf.message import Message

from assay.v1 import transactions_pb2 as pb
from chain.execution import BlockContext, BlockOutcome, LaneBatch, Ledger
from chain.execution.validators import key_claim
from chain.genesis import binding_message
from chain.parameters import Parameters
from chain.records import TransactionReceipt
from chain.transactions import Transaction, decode_transaction, make_operation
from consensus import vrf
from consensus.evidence import Evidence, Fault, conflict
from consensus.values import Validator, ValidatorSet, Vote, VoteBody, VoteKind
from consensus.wire import encode
from ext.hashing import sha256
from tests.builders import key
from tests.chain.ledger_world import CHAIN, MAX_FEE, START_MS, TREASURY, lane_batch, receipt_of

MINIMUM = 1_000
BLOCKS = 4
FUNDS = 10**12
RULES = Parameters(
    epoch_blocks=BLOCKS, validator_stake_min=MINIMUM, unbonding_ms=1, idle_blocks_min=2
)
NEWCOMERS = tuple(f"new {number}" for number in range(4))


def vrf_secret(name: str) -> vrf.VrfKey:
    return vrf.VrfKey.from_secret(sha256(b"vrf" + name.encode()))


def owner(name: str) -> bytes:
    return key(name).public_key


def keys_of(name: str, account: str = "", prover: str = "", signer: str = "") -> pb.ValidatorKeys:
    """Of a registration; `account` uses them, `prover` and `signer` really have the keys."""
    signing, secret = key(f"sign {name}"), vrf_secret(name)
    claim = key_claim(CHAIN, owner(account or name), signing.public_key, secret.public_key)
    certificate = b"certificate of " + name.encode()
    return pb.ValidatorKeys(
        signing_key=signing.public_key,
        possession=key(f"sign {signer or name}").sign(claim),
        vrf_key=secret.public_key,
        vrf_proof=vrf.prove(vrf_secret(prover or name), claim),
        address="127.0.0.1:20000",
        certificate=certificate,
        binding=signing.sign(binding_message(certificate)),
    )


def registration(name: str, stake: int = MINIMUM) -> pb.RegisterValidator:
    return pb.RegisterValidator(keys=keys_of(name), stake=stake)


def first_member(index: int) -> Validator:
    name = f"v{index}"
    return Validator(
        index,
        key(f"sign {name}").public_key,
        vrf_secret(name).public_key,
        owner(name),
        MINIMUM,
    )


@dataclass
class Chain:
    """A ledger of four validators with epochs of four blocks."""

    parameters: Parameters = RULES
    salt: int = 0
    ledger: Ledger = field(init=False)
    idle: frozenset[int] = frozenset()
    """Who leads no block."""

    def __post_init__(self) -> None:
        members = tuple(first_member(index) for index in range(4))
        names = [*(f"v{index}" for index in range(4)), *NEWCOMERS, "somebody"]
        funds = {owner(name): FUNDS for name in names}
        members_of_genesis = ValidatorSet(0, members)
        self.ledger = Ledger.from_genesis(
            CHAIN, self.parameters, members_of_genesis, funds, TREASURY, START_MS
        )

    def make(self, sender: str, *messages: Message) -> Transaction:
        self.salt += 1
        body = pb.TxBody(
            chain_id=CHAIN,
            valid_until_height=self.ledger.height + 9,
            salt=self.salt,
            max_fee=MAX_FEE,
            ops=[make_operation(message) for message in messages],
        )
        return decode_transaction(CHAIN, body.SerializeToString(), owner(sender))

    def do(self, sender: str, *messages: Message) -> TransactionReceipt:
        transaction = self.make(sender, *messages)
        return receipt_of(self.block(transaction), transaction)

    def admit(self, sender: str, *messages: Message) -> None:
        """Raise Rejection if it would fail in the next block."""
        self.ledger.admit(self.make(sender, *messages))

    def block(self, *transactions: Transaction) -> BlockOutcome:
        ledger = self.ledger
        ids = ledger.validators.ids
        leaders = [index for index in ids if index not in self.idle] or list(ids)
        context = BlockContext(
            height=ledger.height + 1,
            timestamp_ms=ledger.timestamp_ms + 100,
            beacon=bytes(32),
            proposer=leaders[ledger.height % len(leaders)],
        )
        lanes: list[LaneBatch] = [lane_batch(ids[0], transactions, ())]
        return ledger.execute(context, lanes)

    def epochs(self, count: int = 1) -> None:
        """Go on to the first block's eve of an epoch so many later."""
        target = self.ledger.epoch + count
        while self.ledger.epoch < target:
            self.block()

    def weights(self, epoch: int | None = None) -> dict[int, int]:
        elected = self.ledger.validator_set(self.ledger.epoch if epoch is None else epoch)
        if elected is None:
            raise ValueError("no such set")
        return {member.index: member.stake for member in elected.members}

    def money(self) -> int:
        """All there is, wherever it is."""
        held = sum(
            account.balance + account.stake + account.unbonding
            for _, account in self.ledger.accounts()
        )
        return held + self.ledger.supply().burned


def double_vote(culprit: int, name: str, epoch: int) -> pb.ReportFault:
    def vote(digest: bytes) -> Vote:
        body = VoteBody(VoteKind.NOTARIZE, epoch, 5, 4, digest)
        return Vote(body, culprit, key(f"sign {name}").sign(body.signed_message(CHAIN)))

    evidence: Evidence = conflict(
        Fault.CONFLICTING_VOTES, culprit, vote(b"d" * 32), vote(b"e" * 32)
    )
    return pb.ReportFault(evidence=encode(evidence))
