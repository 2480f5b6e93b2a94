"""Whatever happens, money is conserved, no escrow stays stuck, and a restart changes nothing.

Hypothesis draws what people do in each block, how much time passes, and where the process
restarts. Then the chain is driven as a node drives it: a block when the outcome wants one or a
deadline has passed.
"""

from dataclasses import dataclass

from google.protobuf.message import Message
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from assay.v1 import transactions_pb2 as pb
from chain.execution import BlockOutcome, Ledger
from chain.pairs import pair_record
from chain.parameters import Parameters
from chain.records import Job, JobStatus, VerdictRecord
from chain.state import Row, TableNumber
from consensus.blame import asked_in_vain, idle
from consensus.values import JobReveal, Verdict
from consensus.verdicts import judge
from consensus.wire import encode
from ext.hashing import tagged_hash
from ext.ledger import AccountTable
from tests.chain.ledger_world import (
    ALICE,
    CHAIN,
    MODEL,
    OWNER,
    PROVIDERS,
    TREASURY,
    World,
    a_pair,
    a_request,
    a_result,
    account,
    an_offer,
    total_value,
)

FINAL = (JobStatus.VERIFIED, JobStatus.REJECTED, JobStatus.REFUNDED)
BLOCKS_TO_FINISH = 60
PEOPLE = (ALICE, OWNER, *PROVIDERS, account("validator 1"), account("stranger"))
STAKE = 100 * 10**9
FAST, EXACT, OTHER = PROFILES = ("fast", "exact", "other")
PAIRS = (
    a_pair(EXACT, EXACT, fingerprint_tolerance=10),
    a_pair(EXACT, OTHER),
    a_pair(FAST, EXACT, fingerprint_tolerance=100),
    a_pair(FAST, FAST),
)
"""Nobody can verify what `other` says; `fast` can't verify what `exact` says."""
PAIRS_BY_PROFILES = {(pair.provider_profile, pair.verifier_profile): pair for pair in PAIRS}
AMOUNTS = st.sampled_from([0, 1, 10**9, STAKE, 10**13, (1 << 64) - 1])
PRICES = st.sampled_from([3_000_000, 32_000 + 3 * Parameters().seat_price(0, 16), 10**7, 10**10])


@dataclass(frozen=True)
class Send:
    sender: bytes
    messages: tuple[Message, ...]


@dataclass(frozen=True)
class Push:
    """Somebody does something about an open job; `choice` picks the job and the seats."""

    choice: int
    verdict: Verdict
    fingerprint: int
    everybody: bool
    honest: bool


operations = st.one_of(
    st.builds(pb.Transfer, to=st.sampled_from(PEOPLE), amount=AMOUNTS),
    st.builds(pb.Stake, amount=AMOUNTS),
    st.builds(pb.Unstake, amount=AMOUNTS),
    st.builds(
        an_offer,
        capacity=st.integers(0, 3),
        operator=st.integers(0, 4),
        price=st.sampled_from([0, 1_000, 10**6]),
        profile=st.sampled_from(PROFILES),
    ),
    st.builds(
        pb.SetVerifier,
        model=st.just(MODEL),
        serving=st.booleans(),
        engine_profile=st.sampled_from(PROFILES),
    ),
)
requests = st.builds(
    a_request,
    max_price=PRICES,
    tier=st.sampled_from([pb.TIER_STANDARD, pb.TIER_CRITICAL]),
    provider=st.sampled_from([b"", b"", PROVIDERS[0]]),
    seed=st.sampled_from([b"", bytes(32)]),
)
sends = st.builds(
    Send, st.sampled_from(PEOPLE), st.lists(operations, min_size=1, max_size=3).map(tuple)
)
asks = st.builds(Send, st.just(ALICE), st.lists(requests, min_size=1, max_size=2).map(tuple))
pushes = st.builds(
    Push,
    choice=st.integers(0, 50),
    verdict=st.sampled_from([Verdict.PASS, Verdict.PASS, Verdict.FAIL, Verdict.ABSTAIN]),
    fingerprint=st.sampled_from([0, 0, 10**6]),
    everybody=st.booleans(),
    honest=st.booleans(),
)
times = st.sampled_from([100] * 12 + [0, 1, 30_001, 60_001, 600_001])
words = st.sampled_from([Verdict.PASS] * 4 + [Verdict.FAIL] * 2 + [Verdict.ABSTAIN, None])
moods = st.sampled_from([[Verdict.PASS], [Verdict.FAIL], None]) | st.lists(
    words, min_size=3, max_size=5
)
blocks = st.lists(
    st.tuples(times, moods, st.lists(asks | sends | pushes, max_size=3)), min_size=8, max_size=30
)
worlds = st.sampled_from([(EXACT,), (FAST, EXACT), (FAST, EXACT, FAST)])
Mood = list[Verdict | None] | None


def answer(world: World, key: bytes, job: Job, push: Push) -> None:
    provider = job.provider if push.honest and job.provider else PROVIDERS[push.choice % 3]
    profile = job.engine_profile if push.honest else PROFILES[push.choice % 3]
    result = a_result(tokens=8 if push.choice % 5 else 17, profile=profile)
    world.send(provider, pb.SubmitResult(job=key, result=result))


def speak(world: World, key: bytes, job: Job, push: Push) -> None:
    seats = world.seats(key)
    chosen = seats if push.everybody else (seats[push.choice % len(seats)],)
    for seat in chosen:
        if job.status is JobStatus.COMMITTING:
            world.commit(key, seat, push.verdict, push.fingerprint)
        elif (key, job.round, seat) in world.reveals:
            world.reveal(key, seat)
    if not push.honest:
        forged: JobReveal = world.reveal_for(key, seats[0], push.verdict, 5)
        world.attest(push.choice % world.validators, encode(forged))


def act(world: World, step: Send | Push) -> None:
    if isinstance(step, Send):
        world.send(step.sender, *step.messages)
        return
    open_jobs = list(world.ledger.open_jobs())
    if not open_jobs:
        return
    key, job = open_jobs[step.choice % len(open_jobs)]
    if job.status in (JobStatus.COMMITTING, JobStatus.REVEALING):
        speak(world, key, job, step)
    elif job.status is JobStatus.ASSIGNED or not step.honest:
        answer(world, key, job, step)


def drive(world: World, mood: list[Verdict | None]) -> None:
    """Everybody does what is due on every open job; validator i says `mood[i % len(mood)]`."""
    for key, job in world.ledger.open_jobs():
        if job.status is JobStatus.ASSIGNED and job.provider is not None:
            result = a_result(profile=job.engine_profile)
            world.send(job.provider, pb.SubmitResult(job=key, result=result))
        for seat in world.seats(key):
            word = mood[seat % len(mood)]
            if job.status is JobStatus.COMMITTING and word is not None:
                world.commit(key, seat, word)
            elif job.status is JobStatus.REVEALING and (key, job.round, seat) in world.reveals:
                world.reveal(key, seat)


class Checked:
    """A world whose every block is checked, with a twin that was restarted on the way."""

    def __init__(self, world: World, restart_at: int) -> None:
        self.world = world
        self.restart_at = restart_at
        self.twin: Ledger | None = None
        self.rows = {row[:2]: row[2] for row in world.ledger.to_records()}
        self.accounts = AccountTable(TableNumber.ACCOUNTS)
        for chunk in world.ledger.account_chunks():
            self.accounts.load(chunk)

    def block(self, after_ms: int) -> BlockOutcome:
        context, lanes = self.world.next_block(after_ms)
        ledger = self.world.ledger
        if ledger.height == self.restart_at:
            self.twin = Ledger.from_records(
                CHAIN, ledger.meta, self.stored(), [self.accounts.pack(0, len(self.accounts))]
            )
            assert self.twin.next_deadline_ms() == ledger.next_deadline_ms()
        outcome = ledger.execute(context, lanes)
        if self.twin is not None:
            assert self.twin.execute(context, lanes) == outcome
            assert self.twin.wants_blocks() == outcome.wants_blocks
        self.follow(outcome)
        assert total_value(ledger) == ledger.supply().issued
        for key, job in ledger.jobs():
            assert (job.status in FINAL) == (job.escrow == 0), key.hex()
            for seat in job.committee:
                pair = (job.engine_profile, seat.engine_profile)
                assert pair in PAIRS_BY_PROFILES, "a seat without a calibrated pair"
        return outcome

    def stored(self) -> list[Row]:
        """What a store that applied every journal holds."""
        return [(*place, value) for place, value in self.rows.items()]

    def follow(self, outcome: BlockOutcome) -> None:
        self.accounts.apply(outcome.accounts)
        for table, key, value in outcome.journal:
            if value is None:
                del self.rows[table, key]
            else:
                self.rows[table, key] = value
        for _, key, receipt in outcome.job_receipts:
            job = self.world.job(key)
            for word in receipt.verdicts:
                self.check_word(job, word)
            paid = sum(p.amount for p in receipt.payments)
            kinds = len({word.engine_profile for word in receipt.verdicts})
            event(f"{kinds} profiles of verifiers")
            event(f"{job.status.name} in round {job.round}, escalated {job.escalated}")
            assert receipt.status is job.status
            price = self.world.parameters.seat_price(job.input_tokens, job.output_tokens)
            fines = len(idle(job.committee)) * price
            to_treasury = sum(p.amount for p in receipt.payments if p.account == TREASURY)
            if job.status is JobStatus.REFUNDED:
                assert paid - to_treasury == job.max_price
                assert to_treasury <= fines
            elif job.status is JobStatus.VERIFIED:
                assert paid <= job.max_price + fines + asked_in_vain(job.committee)[1] * price

    def check_word(self, job: Job, word: VerdictRecord) -> None:
        """The receipt says by what the scores were judged, and judging them gives the verdict."""
        pair = PAIRS_BY_PROFILES[job.engine_profile, word.engine_profile]
        assert word.thresholds == pair_record(pair).thresholds
        if word.verdict is not Verdict.ABSTAIN:
            said = judge(word.scores, word.thresholds, job.input_tokens, job.output_tokens)
            assert said is word.verdict


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(blocks, st.integers(0, 30), st.sampled_from([4, 5, 9]), worlds)
def test_money_is_conserved_and_every_job_ends(
    script: list[tuple[int, Mood, list[Send | Push]]],
    restart_at: int,
    validators: int,
    profiles: tuple[str, ...],
) -> None:
    parameters = Parameters(unbonding_ms=100_000)
    world = World(validators=validators, parameters=parameters)
    world.open_market(PROVIDERS, PAIRS, profiles)
    checked = Checked(world, world.ledger.height + restart_at)
    for after_ms, mood, steps in script:
        for step in steps:
            act(world, step)
        if mood is not None:
            drive(world, mood)
        outcome = checked.block(after_ms)
    for _ in range(BLOCKS_TO_FINISH):
        if outcome.wants_blocks:
            outcome = checked.block(after_ms=1)
        elif outcome.next_deadline_ms is not None:
            outcome = checked.block(
                max(0, outcome.next_deadline_ms - world.ledger.timestamp_ms) + 1
            )
        else:
            break
    assert list(world.ledger.open_jobs()) == []
    assert sum(job.escrow for _, job in world.ledger.jobs()) == 0
    assert not [row for row in world.ledger.to_records() if row[0] == 10], "fingerprints are left"
    assert sorted(checked.stored()) == list(world.ledger.to_records())
    assert checked.accounts.pack(0, 1 << 20) == b"".join(world.ledger.account_chunks())


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 12), st.binary(min_size=1, max_size=8))
def test_free_capacity_never_goes_below_zero_nor_leaks(jobs: int, salt: bytes) -> None:
    world = World()
    world.open_market(PROVIDERS)
    seed = tagged_hash(b"test-salt", salt)
    for _ in range(jobs):
        world.send(ALICE, a_request(seed=seed))
    outcome = world.block()
    while outcome.wants_blocks or outcome.next_deadline_ms is not None:
        outcome = world.block(after_ms=60_001)
        for _, _, offer in world.ledger.offers(MODEL):
            assert 0 <= offer.open_jobs <= offer.capacity
    assert all(offer.open_jobs == 0 for _, _, offer in world.ledger.offers(MODEL))
