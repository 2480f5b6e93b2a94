"""A small chain in memory: validators, accounts, a model, and helpers that take a job through its
life.

Transactions here are unsigned bodies: signatures are the business of `check_signed` and of the
node.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from google.protobuf.message import Message

from assay.v1 import inference_pb2 as inference
from assay.v1 import transactions_pb2 as pb
from chain.events import Event
from chain.execution import BlockContext, BlockOutcome, LaneBatch, Ledger
from chain.parameters import GRAIN_PER_ASY, Parameters
from chain.records import Job, JobReceipt, JobStatus, Offer, TransactionReceipt
from chain.state import Row
from chain.transactions import Transaction, decode_transaction, job_id, make_operation
from consensus.evidence import Evidence, Fault, conflict
from consensus.values import (
    AttestationKind,
    JobCommit,
    JobReveal,
    Scores,
    Validator,
    ValidatorSet,
    Verdict,
    Vote,
    VoteBody,
    VoteKind,
)
from consensus.verdicts import NO_SCORES
from consensus.wire import decode, encode
from ext.hashing import tagged_hash
from ext.transactions import parse_batch
from tests.builders import key

CHAIN = "assay-test"
MODEL = tagged_hash(b"test-model")
PROFILE = "reference/float32"
MAX_FEE = 10**9
START_MS = 1_000_000
FUNDS = 10_000 * GRAIN_PER_ASY
MAX_PRICE = 10 * GRAIN_PER_ASY
SEAT_PRICE = Parameters().seat_price(6, 8)
"""Of a job with `a_result`."""
BOND = pb.Stake(amount=Parameters().verifier_stake_min)
"""What a validator needs before it says that it verifies."""


def account(name: str) -> bytes:
    return tagged_hash(b"test-account", name.encode())


ALICE = account("alice")
OWNER = account("owner")
TREASURY = account("treasury")
PASS, FAIL, ABSTAIN = Verdict.PASS, Verdict.FAIL, Verdict.ABSTAIN
PASS_ALL = (PASS,) * 3
PROVIDERS = tuple(account(f"provider {index}") for index in range(3))


def validator_set(count: int, accounts: Mapping[int, bytes] | None = None) -> ValidatorSet:
    """`accounts` are those of some, by index."""
    members = tuple(
        Validator(
            index=index,
            signing_key=key(f"signing {index}").public_key,
            vrf_key=account(f"vrf {index}"),
            account=(accounts or {}).get(index, account(f"validator {index}")),
            stake=100 + index,
        )
        for index in range(count)
    )
    return ValidatorSet(epoch=0, members=members)


def good_scores(job: Job) -> Scores:
    return Scores(
        positions=job.output_tokens,
        replay_mismatches=0,
        margin_max=0,
        margin_sum=0,
        distance_max=3,
        distance_sum=3,
        outside_candidates=0,
        doubt_sum=job.output_tokens << 19,
        input_tokens=job.input_tokens,
        finish_plausible=True,
        text_matches=True,
    )


def bad_scores(job: Job) -> Scores:
    good = good_scores(job)
    return Scores(
        positions=good.positions,
        replay_mismatches=5,
        margin_max=1 << 20,
        margin_sum=1 << 20,
        distance_max=1 << 20,
        distance_sum=1 << 20,
        outside_candidates=2,
        doubt_sum=good.doubt_sum,
        input_tokens=good.input_tokens,
        finish_plausible=True,
        text_matches=True,
    )


def a_pair(
    provider: str = PROFILE,
    verifier: str = PROFILE,
    distance_max: int = 100,
    fingerprint_tolerance: int = 1_000,
    bets: pb.Bets | None = None,
) -> pb.CalibratedPair:
    return pb.CalibratedPair(
        bets=bets,
        provider_profile=provider,
        verifier_profile=verifier,
        thresholds=pb.Thresholds(
            mismatch_bound=pb.Bound(),
            margin_bound=pb.Bound(),
            distance_max=distance_max,
            distance_bound=pb.Bound(base=50, rate=50),
            outside_bound=pb.Bound(),
            fingerprint_tolerance=fingerprint_tolerance,
        ),
    )


def a_registration(*pairs: pb.CalibratedPair) -> pb.RegisterModel:
    return pb.RegisterModel(
        model=MODEL,
        name="tiny",
        context_tokens=512,
        royalty_bps=500,
        pairs=pairs or (a_pair(),),
        parameters=135_000_000,
    )


def an_offer(
    capacity: int = 2, operator: int = 0, price: int = 1_000, profile: str = PROFILE
) -> pb.SetOffer:
    return pb.SetOffer(
        model=MODEL,
        input_price=price,
        output_price=2 * price,
        capacity=capacity,
        operator=operator,
        engine_profile=profile,
    )


def serving(profile: str = PROFILE) -> pb.SetVerifier:
    return pb.SetVerifier(model=MODEL, serving=True, engine_profile=profile)


def a_request(
    text: str = "Why is the sky blue?",
    max_output_tokens: int = 16,
    max_price: int = MAX_PRICE,
    tier: int = pb.TIER_STANDARD,
    provider: bytes = b"",
    seed: bytes = b"",
) -> pb.RequestInference:
    return pb.RequestInference(
        model=MODEL,
        input=inference.InferenceInput(text=text),
        sampling=inference.Sampling(max_output_tokens=max_output_tokens),
        max_price=max_price,
        tier=pb.Tier.ValueType(tier),
        provider=provider,
        seed=seed,
    )


def longest_prompt(request: pb.RequestInference) -> int:
    """Tokens: one for each byte of the request, and a template's."""
    return request.ByteSize() + 256


def least_price(request: pb.RequestInference, price: int = 1_000, seats: int = 3) -> int:
    """Grain that an offer at `price` needs for the request, whose own length has a part in it."""
    asked, needed = pb.RequestInference.FromString(request.SerializeToString()), 0
    while asked.max_price != needed or not needed:
        asked.max_price = needed
        tokens, output = longest_prompt(asked), asked.sampling.max_output_tokens
        needed = (tokens + 2 * output) * price + seats * Parameters().seat_price(tokens, output)
    return needed


def a_result(tokens: int = 8, profile: str = PROFILE) -> inference.InferenceResult:
    return inference.InferenceResult(
        token_ids=range(tokens),
        logprobs=[-5] * tokens,
        finish_reason=inference.FINISH_REASON_LENGTH,
        input_tokens=6,
        text="Rayleigh",
        engine_profile=profile,
    )


def double_vote(culprit: int, chain: str = CHAIN, key_name: str = "") -> Evidence:
    """Two votes for different blocks in one view, by a validator of `validator_set` or by a key."""

    def vote(digest: bytes) -> Vote:
        body = VoteBody(VoteKind.NOTARIZE, 0, 5, 4, digest)
        signer = key(key_name or f"signing {culprit}").signing_key
        signed = signer.sign(body.signed_message(chain))
        return Vote(body, culprit, signed.signature)

    return conflict(Fault.CONFLICTING_VOTES, culprit, vote(b"d" * 32), vote(b"e" * 32))


def a_report(evidence: Evidence) -> pb.ReportFault:
    return pb.ReportFault(evidence=encode(evidence))


@dataclass
class World:
    """A ledger, the transactions and attestations waiting for its next block, and its clock."""

    validators: int = 5
    parameters: Parameters = field(default_factory=Parameters)
    waiting: list[Transaction] = field(default_factory=list)
    attestations: dict[int, list[bytes]] = field(default_factory=dict)
    reveals: dict[tuple[bytes, int, int], JobReveal] = field(default_factory=dict)
    salt: int = 0
    accounts: Mapping[int, bytes] = field(default_factory=dict)
    """Of validators, where a test needs its own."""

    def __post_init__(self) -> None:
        self.set = validator_set(self.validators, self.accounts)
        people = (ALICE, OWNER, *PROVIDERS, *(member.account for member in self.set.members))
        self.ledger = Ledger.from_genesis(
            CHAIN, self.parameters, self.set, dict.fromkeys(people, FUNDS), TREASURY, START_MS
        )

    def make(self, sender: bytes, *messages: Message, valid_for: int = 100) -> Transaction:
        self.salt += 1
        body = pb.TxBody(
            chain_id=CHAIN,
            valid_until_height=self.ledger.height + valid_for,
            salt=self.salt,
            max_fee=MAX_FEE,
            ops=[make_operation(message) for message in messages],
        )
        return decode_transaction(CHAIN, body.SerializeToString(), sender)

    def send(self, sender: bytes, *messages: Message) -> Transaction:
        transaction = self.make(sender, *messages)
        self.waiting.append(transaction)
        return transaction

    def next_block(self, after_ms: int = 100) -> tuple[BlockContext, list[LaneBatch]]:
        """The next block with all that waits: transactions in lane 0, attestations in theirs."""
        context = BlockContext(
            height=self.ledger.height + 1,
            timestamp_ms=self.ledger.timestamp_ms + after_ms,
            beacon=tagged_hash(b"test-beacon", self.ledger.height.to_bytes(8, "little")),
            proposer=0,
        )
        lanes = [
            lane_batch(index, self.waiting if index == 0 else (), self.attestations.get(index, ()))
            for index in self.ledger.validators.ids
        ]
        self.waiting, self.attestations = [], {}
        return context, lanes

    def block(self, after_ms: int = 100) -> BlockOutcome:
        return self.ledger.execute(*self.next_block(after_ms))

    def do(self, sender: bytes, *messages: Message) -> TransactionReceipt:
        """Send, execute a block, and give the transaction's receipt."""
        transaction = self.send(sender, *messages)
        return receipt_of(self.block(), transaction)

    def open_market(
        self,
        providers: Sequence[bytes] = PROVIDERS[:1],
        pairs: Sequence[pb.CalibratedPair] = (),
        profiles: Sequence[str] = (PROFILE,),
    ) -> None:
        """The model, offers at operator 0, every validator verifying; old enough to be drawn.

        Provider and validator i run `profiles[i % len(profiles)]`.
        """
        self.send(OWNER, a_registration(*pairs))
        for index, member in enumerate(self.set.members):
            self.send(member.account, BOND, serving(profiles[index % len(profiles)]))
        for index, provider in enumerate(providers):
            stake = pb.Stake(amount=self.parameters.stake_min_per_offer)
            self.send(provider, stake, an_offer(profile=profiles[index % len(profiles)]))
        self.block()
        for _ in range(self.parameters.audit_delay_blocks):
            self.block()

    def request(self, message: pb.RequestInference | None = None, sender: bytes = ALICE) -> bytes:
        """Include a request; the job's id."""
        transaction = self.send(sender, message or a_request())
        outcome = self.block()
        receipt = receipt_of(outcome, transaction)
        if not receipt.accepted:
            raise ValueError(f"the request was refused: {receipt.reason}")
        return job_id(transaction.id, 0)

    def job(self, job: bytes) -> Job:
        found = self.ledger.job(job)
        if found is None:
            raise ValueError("no such job")
        return found

    def answer(self, job: bytes, result: inference.InferenceResult | None = None) -> None:
        """Let the assigned provider answer, in a block of its own."""
        provider = self.job(job).provider
        if provider is None:
            raise ValueError("the job is assigned to nobody")
        result = result or a_result(profile=self.job(job).engine_profile)
        receipt = self.do(provider, pb.SubmitResult(job=job, result=result))
        if not receipt.accepted:
            raise ValueError(f"the result was refused: {receipt.reason}")

    def seats(self, job: bytes) -> tuple[int, ...]:
        """Validators seated in the current round."""
        record = self.job(job)
        return tuple(s.validator for s in record.committee if s.round == record.round)

    def reveal_for(
        self, job: bytes, validator: int, verdict: Verdict, fingerprint: int = 0
    ) -> JobReveal:
        """What the validator would reveal; `fingerprint` shifts its numbers."""
        record = self.job(job)
        spoken = verdict is not Verdict.ABSTAIN
        count = len(self.ledger.fingerprint_positions(job))
        scores = {
            Verdict.PASS: good_scores(record),
            Verdict.FAIL: bad_scores(record),
            Verdict.ABSTAIN: NO_SCORES,
        }[verdict]
        return JobReveal(
            kind=AttestationKind.REVEAL,
            job=job,
            round=record.round,
            verdict=verdict,
            scores=scores,
            fingerprint=tuple(fingerprint - 100 * n for n in range(count)) if spoken else (),
            salt=tagged_hash(b"test-salt", bytes([validator])),
        )

    def commit(self, job: bytes, validator: int, verdict: Verdict, fingerprint: int = 0) -> None:
        """Queue a commitment, and keep what it opens to."""
        reveal = self.reveal_for(job, validator, verdict, fingerprint)
        self.reveals[job, reveal.round, validator] = reveal
        digest = reveal.commitment(self.set.members[validator].account)
        message = JobCommit(AttestationKind.COMMIT, job, reveal.round, digest)
        self.attest(validator, encode(message))

    def reveal(self, job: bytes, validator: int) -> None:
        """Queue the opening of the validator's commitment."""
        self.attest(validator, encode(self.reveals[job, self.job(job).round, validator]))

    def attest(self, validator: int, data: bytes) -> None:
        self.attestations.setdefault(validator, []).append(data)

    def seat_committee(self, job: bytes) -> None:
        """Execute blocks until the current round's committee is drawn."""
        for _ in range(self.parameters.audit_delay_blocks + 1):
            if self.job(job).status is JobStatus.COMMITTING:
                return
            self.block()
        if self.job(job).status is not JobStatus.COMMITTING:
            raise ValueError(f"no committee was drawn, the job is {self.job(job).status.name}")

    def vote(self, job: bytes, verdicts: Sequence[Verdict | None]) -> BlockOutcome:
        """Draw, then let the seats of this round commit and reveal; None stays silent."""
        self.seat_committee(job)
        speakers = [
            (validator, verdict)
            for validator, verdict in zip(self.seats(job), verdicts, strict=True)
            if verdict is not None
        ]
        for validator, verdict in speakers:
            self.commit(job, validator, verdict)
        outcome = self.block()
        if self.job(job).status is JobStatus.COMMITTING:
            outcome = self.block(after_ms=self.parameters.commit_within_ms + 1)
        for validator, _ in speakers:
            self.reveal(job, validator)
        return self.block() if speakers else outcome

    def answered_job(self, request: pb.RequestInference | None = None) -> bytes:
        """A job in an open market, assigned and answered."""
        if self.ledger.model(MODEL) is None:
            self.open_market()
        job = self.request(request)
        self.block()
        self.answer(job)
        return job


def lane_batch(
    lane: int,
    transactions: Sequence[Transaction | pb.SignedTx] = (),
    attestations: Sequence[bytes] = (),
) -> LaneBatch:
    """A batch as it comes off the wire; the signatures are nobody's."""
    signed = [
        item
        if isinstance(item, pb.SignedTx)
        else pb.SignedTx(
            body=item.body.SerializeToString(),
            public_key=item.session_key or item.sender,
            signature=bytes(64),
        )
        for item in transactions
    ]
    payload = pb.BatchPayload(transactions=signed, attestations=attestations)
    return LaneBatch(lane, parse_batch(payload.SerializeToString()))


def receipt_of(outcome: BlockOutcome, transaction: Transaction) -> TransactionReceipt:
    for receipt in receipts_in(outcome):
        if receipt.transaction == transaction.id:
            return receipt
    raise ValueError("the block has no receipt for this transaction")


def receipts_in(outcome: BlockOutcome) -> list[TransactionReceipt]:
    """The receipts of transactions, in order."""
    return [decode(TransactionReceipt, leaf[1:]) for leaf in outcome.receipts if leaf[:1] == b"T"]


def events_in(outcome: BlockOutcome) -> list[Event]:
    """What the block did, in order."""
    return [decode(Event, leaf[1:]) for leaf in outcome.events]


def everything(ledger: Ledger) -> tuple[list[Row], bytes]:
    """All rows of all tables."""
    return list(ledger.to_records()), b"".join(ledger.account_chunks())


def restarted(ledger: Ledger) -> Ledger:
    """The ledger as its own records give it back."""
    return Ledger.from_records(CHAIN, ledger.meta, ledger.to_records(), ledger.account_chunks())


def total_value(ledger: Ledger) -> int:
    """All money, wherever it is: it must always be what was issued."""
    held = sum(a.balance + a.stake + a.unbonding for _, a in ledger.accounts())
    held += sum(ejection.held for _, _, ejection in ledger.ejections()) + ledger.appeal_bonds()
    return held + sum(job.escrow for _, job in ledger.jobs()) + ledger.supply().burned


def balance(world: World, key: bytes) -> int:
    return world.ledger.account(key).balance


def offer_of(world: World, provider: bytes | None) -> Offer:
    offer = world.ledger.offer(MODEL, provider or b"")
    if offer is None:
        raise ValueError("there is no such offer")
    return offer


def receipt_for(outcome: BlockOutcome, job: bytes) -> JobReceipt:
    for _, identifier, receipt in outcome.job_receipts:
        if identifier == job:
            return receipt
    raise ValueError("the job has no receipt in this block")
