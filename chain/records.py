"""Records of the ledger's tables and of receipts: what the state root and a receipt commit to.

Every record is laid out by `consensus.wire`: a frozen dataclass, or a named tuple where execution
copies it with changes all the time. Amounts are in grain (1 ASY = 10^9 grain), times in unix
milliseconds.
"""

import enum
from dataclasses import dataclass
from typing import Annotated, NamedTuple

from consensus.evidence import Fault
from consensus.values import (
    FINGERPRINT_VALUES_MAX,
    VALIDATORS_MAX,
    Scores,
    Validator,
    Verdict,
)
from consensus.wire import I32, I64, U8, U16, U32, U64, Count, Hash, PublicKey, Size, encode
from ext.hashing import tagged_hash
from ext.tuples import quickly_replaced

COMMITTEE_MAX = 31
NAME_BYTES_MAX = 64
PROFILE_BYTES_MAX = 128
PAIRS_MAX = 16
INCLUDED_BYTES_MAX = 1 << 28
SESSION_LIST_MAX = 16
BET_EDGES_MAX = 32
VALIDATOR_ADDRESS_BYTES_MAX = 261
"""A host name of 253 characters, brackets, a colon and a port."""
CERTIFICATE_BYTES_MAX = 4096
TRANSACTION_LEAF = b"T"
JOB_LEAF = b"J"

Profile = Annotated[str, Size(PROFILE_BYTES_MAX)]
"""Name of an engine's arithmetic, as a runtime reports it."""


@quickly_replaced
class Account(NamedTuple):
    """Balance and stake of one key. Escrow is held by the job, not by the account."""

    balance: U64
    stake: U64
    unbonding: U64
    """Unstaked, still slashable until `unbonding_until_ms`."""
    unbonding_until_ms: U64


@dataclass(frozen=True, slots=True)
class Bound:
    """What a sum over an output may be at most: base + rate x doubt (consensus.verdicts)."""

    base: U32
    rate: U32
    """For each whole unit of doubt; both are in 2^-20 of what is summed."""


@dataclass(frozen=True, slots=True)
class Thresholds:
    """What an honest result may score at most, for one pair of engine profiles."""

    mismatch_bound: Bound
    margin_max: U32
    margin_bound: Bound
    distance_max: U32
    distance_bound: Bound
    outside_bound: Bound
    fingerprint_tolerance: U32
    """Between the two engines' log-probabilities at one position, in 2^-20 nats."""


@dataclass(frozen=True, slots=True)
class BettingTable:
    """E-values by bins of one statistic (consensus.bets); without edges there is no bet."""

    edges: Annotated[tuple[U32, ...], Count(BET_EDGES_MAX)] = ()
    log_e_values: Annotated[tuple[I32, ...], Count(BET_EDGES_MAX + 1)] = (0,)
    """In 2^-20 nats, one more than there are edges."""


@dataclass(frozen=True, slots=True)
class Bets:
    """What a job's scores tell of honesty, to add up over many jobs."""

    margin: BettingTable = BettingTable()
    distance: BettingTable = BettingTable()

    @property
    def idle(self) -> bool:
        """Whether there is no bet."""
        return not any(self.margin.log_e_values) and not any(self.distance.log_e_values)


@dataclass(frozen=True, slots=True)
class CalibratedPair:
    """Thresholds for results of one engine profile, verified with another or the same."""

    provider_profile: Profile
    verifier_profile: Profile
    thresholds: Thresholds
    bets: Bets = Bets()


@dataclass(frozen=True, slots=True)
class Model:
    """A registered package."""

    owner: PublicKey
    name: Annotated[str, Size(NAME_BYTES_MAX)]
    context_tokens: U32
    royalty_bps: U16
    pairs: Annotated[tuple[CalibratedPair, ...], Count(PAIRS_MAX)]
    """Rising by provider's, then verifier's profile; `chain.pairs` has the rules."""
    quorum: U16
    """Fewest verdicts (not ABSTAIN) that a ruling may rest on."""
    parameters: U64
    """Weights, as its registrar says; `chain.units` makes compute units of them."""


@quickly_replaced
class Offer(NamedTuple):
    """A provider's standing offer; the table's key is model ‖ provider."""

    input_price: U64
    """Grain for one input token."""
    output_price: U64
    """Grain for one output token."""
    capacity: U32
    """Jobs it takes at once."""
    operator: U16
    """The validator at whose node the provider runs; it never audits this provider."""
    engine_profile: Profile
    """Of its answers."""
    open_jobs: U32
    completed: U64
    failed: U64
    traps: U64
    """That the treasury has paid for."""
    standing: U16
    """What its last jobs say of it; `chain.execution.standing` has the rule."""


class JobStatus(enum.IntEnum):
    """Where a job is. The last three are final, and hold no escrow."""

    REQUESTED = 1
    ASSIGNED = 2
    ANSWERED = 3
    COMMITTING = 4
    REVEALING = 5
    VERIFIED = 6
    REJECTED = 7
    REFUNDED = 8


class Tier(enum.IntEnum):
    """How much verification the requester pays for."""

    STANDARD = 1
    CRITICAL = 2


@quickly_replaced
class CommitteeSeat(NamedTuple):
    """One verifier's place on a job's committee, and what it has said so far."""

    validator: U16
    engine_profile: Profile
    """As the verifier had announced it when the seat was drawn."""
    round: U8
    commitment: Hash | None
    verdict: Verdict | None
    scores: Scores | None
    reveal_digest: Hash | None
    """SHA-256 of the reveal's encoding, so that state stays small."""
    voided: Verdict | None
    """The word that its fingerprint voided; `verdict` is ABSTAIN then."""


@quickly_replaced
class Job(NamedTuple):
    """One inference request from escrow to settlement."""

    requester: PublicKey
    model: Hash
    request_digest: Hash
    """H("request", the operation's RequestInference bytes)."""
    tier: Tier
    max_price: U64
    escrow: U64
    """Still held; zero in a final status."""
    input_tokens_max: U32
    """How many tokens the prompt can have, by its bytes; what it has, if it is token ids."""
    max_output_tokens: U32
    pinned_provider: PublicKey | None
    requested_height: U64
    requested_ms: U64
    answer_within_ms: U32
    status: JobStatus
    attempts: U8
    provider: PublicKey | None
    operator: U16
    engine_profile: Profile
    """Of the provider, as its offer named it at assignment; empty while nobody is assigned."""
    input_price: U64
    output_price: U64
    seed: Hash | None
    deadline_ms: U64
    """Of the current step: answer, commit or reveal."""
    result_digest: Hash | None
    """H("result", the operation's InferenceResult bytes)."""
    answered_height: U64
    draw_height: U64
    """The first height whose beacon may draw the current round's committee."""
    input_tokens: U32
    output_tokens: U32
    round: U8
    audit_beacon: Hash | None
    committee: Annotated[tuple[CommitteeSeat, ...], Count(COMMITTEE_MAX)]
    tried: Annotated[tuple[PublicKey, ...], Count(8)]
    """Providers that missed this job's deadline."""
    escalated: bool
    """A FAIL was said and a larger committee asked, which happens once."""
    redrawn: bool
    """Too few spoke and new verifiers were asked, which happens once."""
    final_height: U64
    """Where it became final, 0 before; its row goes `job_rows_kept_blocks` later."""
    trap: bool
    """Its requester has shown that it was answered falsely on purpose."""
    lost: U64
    """What its rejection took of the provider's collateral."""
    burned: U64
    """How much of that was burned."""
    appealed: bool
    """It was appealed, which happens once."""


@quickly_replaced
class Appeal(NamedTuple):
    """A job under appeal; the table's key is the job's."""

    job: Job
    """As the arbiters see it: COMMITTING or REVEALING, with their seats, and no escrow."""
    bond: U64
    heard: Annotated[tuple[CommitteeSeat, ...], Count(COMMITTEE_MAX)]
    """The seats whose words had decided it."""
    status: JobStatus
    """That is appealed."""


@dataclass(frozen=True, slots=True)
class Trap:
    """A provider's word that it will answer one request falsely; the key is provider ‖ H."""

    height: U64
    """It was said at."""


@quickly_replaced
class Suspicion(NamedTuple):
    """What many jobs show of a provider; the table's key is model ‖ provider."""

    margin_log: I64
    """Logarithm of its wealth, in 2^-20 nats; `consensus.bets` says where that is too much."""
    distance_log: I64
    jobs: U64
    """That were bet on."""
    ejected_height: U64
    """0 unless it was ejected."""


@dataclass(frozen=True, slots=True)
class Ejection:
    """What an ejected provider stands to lose; key: model ‖ provider."""

    held: U64
    """Grain, out of its collateral."""
    until_ms: U64
    """When it is forfeited."""


@dataclass(frozen=True, slots=True)
class Verifier:
    """A validator's word that it serves a model; the table's key is model ‖ u16-BE index."""

    since_height: U64
    engine_profile: Profile
    """It verifies with; saying another one starts `since_height` anew."""
    abstained: U8 = 0
    """Seats in a row; `chain.execution.abstentions` says how many are too many."""


@dataclass(frozen=True, slots=True)
class Conviction:
    """What a validator was shown to have done; the table's key is its u16-BE index."""

    fault: Fault
    height: U64
    evidence: Hash
    slashed: U64
    """Grain, from its account's stake and from what was unbonding."""


class RegisteredValidator(NamedTuple):
    """Who is, was or would be a validator; the table's key is its u16-BE id, which is for life.

    Its stake is its account's; what it weighs in an epoch, and with which keys, `ElectedSet` says.
    """

    account: PublicKey
    signing_key: PublicKey
    vrf_key: PublicKey
    address: Annotated[str, Size(VALIDATOR_ADDRESS_BYTES_MAX)]
    """HOST:PORT where its peers reach it."""
    certificate: Annotated[bytes, Size(CERTIFICATE_BYTES_MAX)]
    """The TLS certificate its peers pin, DER; empty once it has wholly left."""
    changed_epoch: U64
    """When it registered or last changed a key; once an epoch, no more."""
    leaving: bool
    """It wants no seat any more."""
    jailed_until_epoch: U64
    """It may ask to be a candidate again from this epoch on; 0 while it is not jailed."""
    locked_until_epoch: U64
    """Nothing that unbonds returns before this epoch begins."""


class KeyRole(enum.IntEnum):
    """What a validator has a key for."""

    ACCOUNT = 1
    SIGNING = 2
    VRF = 3
    CERTIFICATE = 4
    """Not a key, but the hash of the certificate that holds one."""


class KeyOwner(NamedTuple):
    """Whose a key is, or was: no validator can use another's; the table's key is that key."""

    validator: U16
    role: KeyRole


@dataclass(frozen=True, slots=True)
class ElectedSet:
    """The validators of one epoch, rising by id; the table's key is the u64-BE epoch."""

    members: Annotated[tuple[Validator, ...], Count(VALIDATORS_MAX)]


@dataclass(frozen=True, slots=True)
class ProposedBlocks:
    """Of one validator, final in the epoch under way; the table's key is its u16-BE id."""

    count: U32


@dataclass(frozen=True, slots=True)
class Supply:
    """The money outside of accounts and escrow."""

    issued: U64
    """At genesis; nothing is minted later."""
    burned: U64
    treasury: PublicKey


@dataclass(frozen=True, slots=True)
class IncludedIds:
    """Transaction ids of one block, so that none is included twice; the key is u64-BE height."""

    ids: Annotated[bytes, Size(INCLUDED_BYTES_MAX)]
    """32 bytes each, in order of inclusion."""
    leaves: Annotated[bytes, Size(INCLUDED_BYTES_MAX)]
    """u32-LE each: where their receipts stand among the block's."""


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """A revealed fingerprint, kept until the round is counted; key: job ‖ u16-BE validator."""

    values: Annotated[tuple[I32, ...], Count(FINGERPRINT_VALUES_MAX)]


@quickly_replaced
class Session(NamedTuple):
    """What a key may do for an account; the table's key is account ‖ key."""

    grant: Hash
    """Names the operation that granted it: the same key may be granted again."""
    operation_cap: U64
    """Of what one operation takes from the balance, with its part of the fee."""
    total_cap: U64
    spent: U64
    """Fees, and what operations took and did not get back; at most `total_cap`."""
    expires_at_height: U64
    """The last height it acts at."""
    kinds: Annotated[tuple[U8, ...], Count(SESSION_LIST_MAX)]
    """Numbers of the fields of `Op`, rising."""
    models: Annotated[tuple[Hash, ...], Count(SESSION_LIST_MAX)]
    """That operations may name; empty: every one."""
    recipients: Annotated[tuple[PublicKey, ...], Count(SESSION_LIST_MAX)]
    """Of transfers; empty: everybody."""


@quickly_replaced
class SessionJob(NamedTuple):
    """Which grant an open job was asked for under, for what it gives back."""

    account: PublicKey
    key: PublicKey
    grant: Hash


@dataclass(frozen=True, slots=True)
class VerdictRecord:
    """One verifier's final word, as a receipt shows it."""

    validator: U16
    engine_profile: Profile
    verdict: Verdict
    scores: Scores
    thresholds: Thresholds
    """What the scores were judged by: the pair's of the result's profile and this one."""
    reveal_digest: Hash


@dataclass(frozen=True, slots=True)
class Payment:
    """One credit made at settlement."""

    account: PublicKey
    amount: U64


@dataclass(frozen=True, slots=True)
class JobReceipt:
    """The leaf a receipt proves: everything the chain ruled about one job."""

    job: Hash
    requester: PublicKey
    model: Hash
    provider: PublicKey | None
    request_digest: Hash
    result_digest: Hash | None
    seed: Hash | None
    status: JobStatus
    height: U64
    input_tokens: U32
    output_tokens: U32
    verdicts: Annotated[tuple[VerdictRecord, ...], Count(COMMITTEE_MAX)]
    payments: Annotated[tuple[Payment, ...], Count(COMMITTEE_MAX + 8)]

    def leaf(self) -> bytes:
        """The receipt tree's leaf data: a tag byte, then the encoding."""
        return JOB_LEAF + encode(self)


@dataclass(frozen=True, slots=True)
class TransactionReceipt:
    """The leaf for one included transaction."""

    transaction: Hash
    accepted: bool
    reason: Annotated[str, Size(64)]
    """Empty if accepted, else a RejectionReason."""
    fee: U64

    @property
    def was_included(self) -> bool:
        """Whether it paid its fee, so that it can't come again; else it may have other receipts."""
        return self.accepted or self.fee > 0

    def leaf(self) -> bytes:
        """The receipt tree's leaf data: a tag byte, then the encoding."""
        return TRANSACTION_LEAF + encode(self)


@dataclass(frozen=True, slots=True)
class ExecutionLink:
    """What one executed block adds to the execution chain."""

    height: U64
    state_root: Hash
    receipts_root: Hash
    events_root: Hash

    def extend(self, previous_root: bytes) -> bytes:
        """The execution root after this block: it commits to every block before it, too."""
        return tagged_hash(b"execution", previous_root, encode(self))


def receipt_leaf(transaction: bytes, reason: str, fee: int) -> bytes:
    """`TransactionReceipt(transaction, not reason, reason, fee).leaf()`, laid out by hand: the
    same bytes at a fraction of the cost."""
    return b"".join(
        (
            TRANSACTION_LEAF,
            transaction,
            b"\0" if reason else b"\1",
            len(reason).to_bytes(4, "little"),
            reason.encode(),
            fee.to_bytes(8, "little"),
        )
    )
