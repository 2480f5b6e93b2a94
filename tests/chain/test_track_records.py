"""What is held for and against providers and validators is what the ledger did with them."""

from pathlib import Path

import pytest

from chain.execution.appeals import AppealRuling
from chain.execution.outcome import BlockOutcome
from chain.node.views import appeal_view, ruled_appeal_view, standings_view
from chain.records import JobStatus
from chain.track_records import Ruled, find_ruling, open_appeals, records
from consensus.bets import LIMIT_LOG
from consensus.values import Verdict
from tests.chain.execution import test_appeals as appeals
from tests.chain.execution import test_suspicion as bets
from tests.chain.ledger_world import (
    ABSTAIN,
    ALICE,
    FAIL,
    MODEL,
    PASS,
    PROVIDERS,
    World,
    a_report,
    double_vote,
    good_scores,
    offer_of,
)
from tests.chain.node.agents import store_of

PROVIDER = PROVIDERS[0]


def test_wealth_is_shown_with_its_limit_until_the_ejection_and_what_is_held_after_it() -> None:
    world = bets.a_world()
    for jobs in (1, 2):
        bets.audited(world, bets.LOUD)
        (view,) = standings_view(records(world.ledger)).providers
        assert (view.model, view.provider, view.jobs_bet_on) == (MODEL, PROVIDER, jobs)
        assert (view.distance_log, view.margin_log) == (jobs * bets.GAIN, 0)
        assert view.limit_log == LIMIT_LOG > view.distance_log
        assert (view.standing, view.completed) == (offer_of(world, PROVIDER).standing, jobs)
        assert (view.ejected_height, view.held) == (0, 0)
    bets.audited(world, bets.LOUD)
    (view,) = standings_view(records(world.ledger)).providers
    ((_, _, ejection),) = world.ledger.ejections()
    assert view.distance_log >= view.limit_log
    assert view.ejected_height == world.ledger.height
    assert (view.held, view.held_until_ms) == (ejection.held, ejection.until_ms)
    assert view.capacity == 0


def test_only_the_provider_asked_for_is_shown() -> None:
    world = World()
    world.open_market(providers=PROVIDERS)
    assert len(records(world.ledger).providers) == len(PROVIDERS)
    (only,) = records(world.ledger, provider=PROVIDERS[1]).providers
    assert only.provider == PROVIDERS[1]
    assert not records(world.ledger, model=bytes(32)).providers


def test_each_seat_of_a_settled_job_is_counted_once_by_what_was_said() -> None:
    world = World()
    job = world.answered_job()
    world.seat_committee(job)
    seats = world.seats(job)
    assert not records(world.ledger).jobs, "it is not settled"
    world.vote(job, (PASS, PASS, ABSTAIN))
    assert world.job(job).status is JobStatus.VERIFIED
    found = records(world.ledger)
    assert found.jobs == 1
    counted = {record.validator: record.counts for record in found.validators}
    assert [(counted[index].passed, counted[index].abstained) for index in seats] == [
        (1, 0),
        (1, 0),
        (0, 1),
    ]
    assert sum(counts.seats for counts in counted.values()) == len(world.job(job).committee)


def test_silence_and_a_hidden_word_are_told_apart() -> None:
    world = World()
    job = world.answered_job()
    world.seat_committee(job)
    speaks, hides, silent = world.seats(job)
    for validator in (speaks, hides):
        world.commit(job, validator, PASS)
    world.block()
    world.block(after_ms=world.parameters.commit_within_ms + 1)
    world.reveal(job, speaks)
    while not world.job(job).final_height:
        world.block(after_ms=world.parameters.reveal_within_ms + 1)
    counted = {one.validator: one.counts for one in records(world.ledger).validators}
    assert counted[hides].hidden == 1
    assert counted[silent].silent >= 1
    assert not counted[hides].silent


def test_a_conviction_is_shown_with_what_it_took() -> None:
    world = World()
    world.open_market()
    assert world.do(ALICE, a_report(double_vote(2))).accepted
    view = standings_view(records(world.ledger)).validators[2]
    conviction = world.ledger.convictions()[2]
    assert (view.validator, view.fault) == (2, conviction.fault.name)
    assert (view.convicted_height, view.slashed) == (conviction.height, conviction.slashed)


def test_an_appeal_shows_its_step_and_deadline_and_then_its_ruling(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = appeals.a_world()
    with store_of(tmp_path) as (store, chain):
        job = appeals.rejected_job(world)
        while chain.height < world.ledger.height:
            chain.commit()
        assert open_appeals(world.ledger) == ([], True)
        assert appeals.appealed(world, job) == ""
        ((identity, appeal),), complete = open_appeals(world.ledger)
        assert complete
        view = appeal_view(identity, appeal)
        assert (view.job, view.status, view.appealed_status) == (job, "COMMITTING", "REJECTED")
        assert (view.bond, view.deadline_ms) == (
            world.ledger.appeal_bonds(),
            world.ledger.next_deadline_ms(),
        )
        assert {seat.validator for seat in view.arbiters} == set(appeals.ARBITERS)
        assert {seat.verdict for seat in view.heard} == {Verdict.FAIL.name}
        (record,) = records(world.ledger).providers
        assert record.open_appeals == 1
        outcomes: list[tuple[bytes, ...]] = []
        block = world.block

        def noted(after_ms: int = 100) -> BlockOutcome:
            outcome = block(after_ms)
            outcomes.append(tuple(outcome.events))
            return outcome

        monkeypatch.setattr(world, "block", noted)
        truth = good_scores(world.job(job))
        ruling, paid = appeals.ruled(world, job, dict.fromkeys(appeals.ARBITERS, truth))
        chain.commit()  # the block of the appeal itself
        for leaves in outcomes:
            chain.commit(events=leaves)
        ruled = find_ruling(store, job, world.job(job), chain.height)
        assert ruled == Ruled(chain.height, ruling, paid)
        assert find_ruling(store, bytes(32), world.job(job), chain.height) is None
        shown = ruled_appeal_view(job, world.job(job), ruled)
        assert (shown.status, shown.paid) == (AppealRuling.WON.name, paid)


def test_a_job_that_was_failed_by_all_counts_as_failed_words() -> None:
    world = World()
    job = world.answered_job()
    for _ in range(2):
        world.seat_committee(job)
        world.vote(job, (FAIL,) * len(world.seats(job)))
    assert world.job(job).status is JobStatus.REJECTED
    counts = [one.counts for one in records(world.ledger).validators]
    assert sum(one.failed for one in counts) == len(world.job(job).committee)
    assert sum(one.seats for one in counts) == len(world.job(job).committee)
