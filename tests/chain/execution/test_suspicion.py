"""Ejection: jobs that each pass withdraw a provider's offer together, and nothing else does."""

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from assay.v1 import transactions_pb2 as pb
from chain.events import EventKind
from chain.execution.outcome import BlockOutcome
from chain.records import JobStatus
from chain.rejections import RejectionReason
from consensus.bets import LIMIT_LOG, OPENING_TOKENS
from consensus.values import AttestationKind, JobCommit, Scores, Verdict
from consensus.wire import encode
from tests.chain.ledger_world import (
    FAIL,
    MODEL,
    OWNER,
    PASS,
    PROFILE,
    PROVIDERS,
    TREASURY,
    World,
    a_pair,
    a_registration,
    a_request,
    a_result,
    an_offer,
    balance,
    events_in,
    offer_of,
    restarted,
    total_value,
)

PROVIDER = PROVIDERS[0]
GAIN = LIMIT_LOG // 3 + 1
"""Of a job whose first tokens lie far: three reach the limit."""
LOSS = -(1 << 20)
BETS = pb.Bets(distance=pb.BettingTable(edges=[1], log_e_values=[LOSS, GAIN]))
QUIET, LOUD = 0, 60
"""Sums of the first tokens' distances: in the one bin, and in the other."""


def a_world(bets: pb.Bets = BETS) -> World:
    world = World()
    world.open_market(pairs=[a_pair(distance_max=100, bets=bets)])
    return world


def scores_of(world: World, job: bytes, distance: int) -> Scores:
    tokens = world.job(job).output_tokens
    doubt = tokens << 20
    return Scores(
        *(tokens, 0, 0, 0, distance, distance, 0, doubt, world.job(job).input_tokens, True, True),
        *(0, distance, min(tokens, OPENING_TOKENS) << 20),
    )


def audited(
    world: World,
    distance: int,
    tokens: int = 40,
    liars: int = 0,
    lie: int = 0,
    profile: str = PROFILE,
) -> BlockOutcome:
    """A job whose committee passes it and finds so much distance in the first tokens."""
    request = a_request()
    request.sampling.max_output_tokens = tokens
    job = world.request(request)
    world.block()
    world.answer(job, a_result(tokens, profile))
    world.seat_committee(job)
    for place, validator in enumerate(world.seats(job)):
        reveal = world.reveal_for(job, validator, PASS)
        shown = lie if place < liars else distance
        reveal = replace(reveal, scores=scores_of(world, job, shown))
        world.reveals[job, reveal.round, validator] = reveal
        digest = reveal.commitment(world.set.members[validator].account)
        world.attest(validator, encode(JobCommit(AttestationKind.COMMIT, job, 0, digest)))
    world.block()
    for validator in world.seats(job):
        world.attest(validator, encode(world.reveals[job, 0, validator]))
    outcome = world.block()
    assert world.job(job).status is JobStatus.VERIFIED
    return outcome


def test_jobs_that_pass_one_by_one_eject_their_provider_together() -> None:
    world = a_world()
    before = world.ledger.account(PROVIDER).stake
    for _ in range(2):
        audited(world, LOUD)
    assert offer_of(world, PROVIDER).capacity
    outcome = audited(world, LOUD)
    suspicion = world.ledger.suspicion(MODEL, PROVIDER)
    assert suspicion.distance_log == 3 * GAIN and suspicion.jobs == 3
    assert suspicion.ejected_height == world.ledger.height
    assert offer_of(world, PROVIDER).capacity == 0
    held = before // 10
    assert [(model, provider, e.held) for model, provider, e in world.ledger.ejections()] == [
        (MODEL, PROVIDER, held)
    ]
    (event,) = [e for e in events_in(outcome) if e.kind is EventKind.PROVIDER_EJECTED]
    assert (event.subject, event.other, event.amount) == (PROVIDER, MODEL, held)
    assert world.ledger.account(PROVIDER).stake == before - held
    assert world.do(PROVIDER, an_offer()).reason == RejectionReason.EJECTED
    assert total_value(world.ledger) == world.ledger.supply().issued


def test_what_is_held_is_forfeited_when_the_time_to_appeal_has_passed_and_not_before() -> None:
    world = a_world()
    for _ in range(3):
        audited(world, LOUD)
    ((_, _, ejection),) = world.ledger.ejections()
    burned, treasury = world.ledger.supply().burned, balance(world, TREASURY)
    world.block(after_ms=ejection.until_ms - world.ledger.timestamp_ms - 1)
    assert list(world.ledger.ejections())
    world.block(after_ms=1)
    assert not list(world.ledger.ejections())
    assert world.ledger.supply().burned - burned == ejection.held // 2
    assert balance(world, TREASURY) - treasury == ejection.held - ejection.held // 2
    assert restarted(world.ledger).suspicion(MODEL, PROVIDER).ejected_height
    assert total_value(world.ledger) == world.ledger.supply().issued


def test_quiet_jobs_take_from_the_wealth_and_short_ones_do_not_count() -> None:
    world = a_world()
    audited(world, QUIET)
    assert world.ledger.suspicion(MODEL, PROVIDER).distance_log == LOSS
    audited(world, QUIET, tokens=OPENING_TOKENS - 1)
    assert world.ledger.suspicion(MODEL, PROVIDER).jobs == 1


def test_a_refunded_job_is_no_evidence() -> None:
    world = a_world()
    job = world.answered_job()
    world.vote(job, (None,) * 3)
    for _ in range(3):
        world.block(after_ms=61_000)
    assert world.job(job).status is JobStatus.REFUNDED
    assert world.ledger.suspicion(MODEL, PROVIDER).jobs == 0


def test_one_liar_of_three_neither_ejects_nor_saves_a_provider() -> None:
    world = a_world()
    audited(world, QUIET, liars=1, lie=LOUD)
    assert world.ledger.suspicion(MODEL, PROVIDER).distance_log == LOSS
    audited(world, LOUD, liars=1, lie=QUIET)
    assert world.ledger.suspicion(MODEL, PROVIDER).distance_log == LOSS + GAIN


def test_tables_that_no_calibration_gives_are_refused() -> None:
    table = pb.BettingTable
    bad = (
        table(edges=[5, 5], log_e_values=[-1, 1, 1]),
        table(edges=[5], log_e_values=[1]),
        table(edges=[5], log_e_values=[0, 1]),
        table(edges=[5], log_e_values=[-1, 17 << 20]),
        table(edges=range(33), log_e_values=[-1] * 34),
    )
    world = World()
    for wrong in bad:
        receipt = world.do(OWNER, a_registration(a_pair(bets=pb.Bets(margin=wrong))))
        assert receipt.reason == RejectionReason.BAD_MODEL
    assert world.do(OWNER, a_registration(a_pair(PROFILE, bets=BETS))).accepted


@settings(max_examples=10, deadline=None)
@given(
    st.lists(st.sampled_from([QUIET, LOUD]), min_size=1, max_size=6), st.sampled_from([PASS, FAIL])
)
def test_whatever_jobs_show_no_value_is_lost_and_a_restart_changes_nothing(
    shown: list[int], last: Verdict
) -> None:
    world = a_world()
    for distance in shown:
        if offer_of(world, PROVIDER).capacity:
            audited(world, distance)
        assert total_value(world.ledger) == world.ledger.supply().issued
    wealth, ejected = 0, False
    for distance in shown:
        if not ejected:
            wealth += GAIN if distance == LOUD else LOSS
            ejected = wealth >= LIMIT_LOG
    suspicion = world.ledger.suspicion(MODEL, PROVIDER)
    assert (suspicion.distance_log, bool(suspicion.ejected_height)) == (wealth, ejected)
    if not ejected:
        world.vote(world.answered_job(), (last,) * 3)
    world.block(after_ms=world.parameters.appeal_within_ms)
    assert total_value(world.ledger) == world.ledger.supply().issued
    assert restarted(world.ledger).state_root() == world.ledger.state_root()
