"""Who only ever abstains loses its place among a model's verifiers, and nobody else does."""

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from assay.v1 import transactions_pb2 as pb
from chain.events import EventKind
from chain.execution import abstentions
from chain.execution.abstentions import ABSTENTIONS_MAX, after_word
from chain.records import CommitteeSeat, JobStatus, Verifier
from consensus.values import Verdict
from tests.chain.ledger_world import (
    ABSTAIN,
    MODEL,
    PASS,
    PROFILE,
    World,
    a_request,
    events_in,
    restarted,
    serving,
    total_value,
)

IDLE = 4
ANNOUNCED = Verifier(since_height=1, engine_profile=PROFILE)
WORDS: dict[str, dict[str, Any]] = {
    "pass": {"verdict": Verdict.PASS},
    "fail": {"verdict": Verdict.FAIL},
    "abstain": {"verdict": Verdict.ABSTAIN},
    "voided": {"verdict": Verdict.ABSTAIN, "voided": Verdict.PASS},
    "silent": {"commitment": None},
    "hidden": {},
}


def a_seat(
    verdict: Verdict | None = None,
    voided: Verdict | None = None,
    commitment: bytes | None = bytes(32),
) -> CommitteeSeat:
    return CommitteeSeat(0, PROFILE, 0, commitment, verdict, None, None, voided)


@given(st.lists(st.sampled_from(sorted(WORDS)), max_size=3 * ABSTENTIONS_MAX))
def test_a_verifier_goes_when_it_has_abstained_so_often_in_a_row_and_never_else(
    words: list[str],
) -> None:
    standing: Verifier | None = ANNOUNCED
    for said, word in enumerate(words, start=1):
        assert standing is not None
        standing = after_word(standing, a_seat(**WORDS[word]))
        spoken = [word for word in words[:said] if word in ("pass", "fail", "abstain")]
        row = spoken[-ABSTENTIONS_MAX:]
        assert (standing is None) == (len(row) == ABSTENTIONS_MAX and set(row) == {"abstain"})
        if standing is None:
            return
        assert (standing.since_height, standing.engine_profile) == (1, PROFILE)


@given(st.lists(st.sampled_from(["pass", "fail", "voided", "silent", "hidden"]), max_size=200))
def test_a_verifier_whose_runtime_works_is_never_taken_out(words: list[str]) -> None:
    standing: Verifier | None = ANNOUNCED
    for word in words:
        assert standing is not None
        standing = after_word(standing, a_seat(**WORDS[word]))
    assert standing == ANNOUNCED


def play(world: World, words: dict[int, Verdict], jobs: int) -> list[bytes | None]:
    """So many jobs, in which these validators say these words and all others PASS."""
    played: list[bytes | None] = []
    for _ in range(jobs):
        job = world.answered_job(a_request())
        world.seat_committee(job)
        said = [words.get(validator, PASS) for validator in world.seats(job)]
        outcome = world.vote(job, said)
        assert world.job(job).status is JobStatus.VERIFIED
        played += [
            event.other
            for event in events_in(outcome)
            if event.kind is EventKind.VERIFIER_SET and event.code == 0
        ]
    return played


@settings(max_examples=4, deadline=None)
@given(st.integers(1, 4), st.integers(1, 6))
def test_the_idle_leave_the_candidates_without_a_slash_and_may_come_back(
    limit: int, more: int
) -> None:
    before = abstentions.ABSTENTIONS_MAX
    abstentions.ABSTENTIONS_MAX = limit
    try:
        world = World()
        world.open_market()
        account = world.set.members[IDLE].account
        stake = world.ledger.account(account).stake
        taken: list[bytes | None] = []
        for _ in range(40):
            taken += play(world, {IDLE: ABSTAIN}, 1)
            found = world.ledger.verifiers(MODEL).get(IDLE)
            if found is None:
                break
            assert found.abstained < limit
        assert taken == [account]
        assert world.ledger.account(account).stake == stake
        assert set(world.ledger.verifiers(MODEL)) == {0, 1, 2, 3}
        assert play(world, {}, more) == []
        assert world.do(account, serving()).accepted
        assert world.ledger.verifiers(MODEL)[IDLE].abstained == 0
        assert restarted(world.ledger).state_root() == world.ledger.state_root()
        assert total_value(world.ledger) == world.ledger.supply().issued
    finally:
        abstentions.ABSTENTIONS_MAX = before


def test_a_true_verdict_ends_the_row_and_old_seats_say_nothing_of_a_new_announcement() -> None:
    world = World()
    world.open_market()
    while not world.ledger.verifiers(MODEL)[IDLE].abstained:
        play(world, {IDLE: ABSTAIN}, 1)
    while world.ledger.verifiers(MODEL)[IDLE].abstained:
        play(world, {}, 1)
    account = world.set.members[IDLE].account
    for _ in range(40):
        job = world.answered_job(a_request())
        world.seat_committee(job)
        if IDLE in world.seats(job):
            break
    assert world.do(account, pb.SetVerifier(model=MODEL, serving=False)).accepted
    assert world.do(account, serving()).accepted
    world.vote(job, [ABSTAIN if seat == IDLE else PASS for seat in world.seats(job)])
    assert world.job(job).status is JobStatus.VERIFIED
    assert world.ledger.verifiers(MODEL)[IDLE].abstained == 0
