"""Appeals: the exact engine's scores rule, a wronged provider is made whole, who appeals in vain
pays, and whatever happens no bond stays stuck."""

from collections.abc import Mapping
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from assay.v1 import transactions_pb2 as pb
from chain.events import EventKind
from chain.execution.appeals import AppealRuling
from chain.pairs import ARBITER_PROFILE
from chain.parameters import GRAIN_PER_ASY, Parameters
from chain.records import JobStatus
from chain.rejections import RejectionReason
from consensus.values import (
    APPEAL_ROUND,
    AttestationKind,
    JobCommit,
    JobReveal,
    Scores,
    ValidatorSet,
    Verdict,
)
from consensus.verdicts import NO_SCORES
from consensus.wire import encode
from ext.hashing import tagged_hash
from tests.chain.execution.test_suspicion import BETS, GAIN, LOSS, LOUD, QUIET, audited, scores_of
from tests.chain.ledger_world import (
    ALICE,
    FAIL,
    MODEL,
    PROVIDERS,
    World,
    a_pair,
    a_request,
    a_result,
    account,
    an_offer,
    bad_scores,
    balance,
    events_in,
    good_scores,
    offer_of,
    restarted,
    total_value,
)

PROVIDER = PROVIDERS[0]
ARBITERS = (1, 2, 3, 4)
TRUE, FALSE = "true", "false"


def a_world(bets: pb.Bets | None = None, parameters: Parameters | None = None) -> World:
    """Five validators with the exact engine; the first one is the operator."""
    world = World(parameters=parameters or Parameters())
    pairs = [a_pair(ARBITER_PROFILE, ARBITER_PROFILE, bets=bets)]
    world.open_market(pairs=pairs, profiles=[ARBITER_PROFILE])
    return world


def rejected_job(world: World, request: pb.RequestInference | None = None) -> bytes:
    """A job that everybody who was asked has failed."""
    job = world.request(request)
    world.block()
    world.answer(job, a_result(profile=ARBITER_PROFILE))
    for _ in range(2):
        world.seat_committee(job)
        world.vote(job, (FAIL,) * len(world.seats(job)))
    assert world.job(job).status is JobStatus.REJECTED
    return job


def appealed(world: World, job: bytes, sender: bytes = PROVIDER) -> str:
    return world.do(sender, pb.Appeal(job=job)).reason


def words(job: bytes, said: Mapping[int, Scores | None]) -> dict[int, JobReveal]:
    """What arbiters would reveal; None abstains."""
    return {
        validator: JobReveal(
            kind=AttestationKind.REVEAL,
            job=job,
            round=APPEAL_ROUND,
            verdict=_verdict(scores),
            scores=scores or NO_SCORES,
            fingerprint=(),
            salt=tagged_hash(b"appeal-salt", bytes([validator])),
        )
        for validator, scores in said.items()
    }


def _verdict(scores: Scores | None) -> Verdict:
    if scores is None:
        return Verdict.ABSTAIN
    return Verdict.FAIL if scores.replay_mismatches else Verdict.PASS


def ruled(
    world: World,
    job: bytes,
    said: Mapping[int, Scores | None],
    hidden: frozenset[int] = frozenset(),
) -> tuple[AppealRuling, int]:
    """Play an appeal to its end: (ruling, paid to the provider)."""
    reveals = words(job, said)
    for validator, reveal in reveals.items():
        digest = reveal.commitment(world.set.members[validator].account)
        message = JobCommit(AttestationKind.COMMIT, job, APPEAL_ROUND, digest)
        world.attest(validator, encode(message))
    outcomes = [world.block()]
    if list(world.ledger.appealed_jobs()):
        if len(reveals) < len(ARBITERS):
            outcomes.append(world.block(after_ms=world.parameters.commit_within_ms + 1))
        for validator, reveal in reveals.items():
            if validator not in hidden:
                world.attest(validator, encode(reveal))
        outcomes.append(world.block())
    if list(world.ledger.appealed_jobs()):
        outcomes.append(world.block(after_ms=world.parameters.reveal_within_ms + 1))
    assert not list(world.ledger.appealed_jobs()), "no appeal stays open"
    assert world.ledger.appeal_bonds() == 0
    events = [event for outcome in outcomes for event in events_in(outcome)]
    (event,) = [event for event in events if event.kind is EventKind.APPEAL_RULED]
    assert (event.subject, event.other) == (job, PROVIDER)
    return AppealRuling(event.code), event.amount


def wealth(world: World, key: bytes) -> int:
    return sum(world.ledger.account(key)[:3])


def test_a_wronged_provider_is_made_whole_and_those_who_made_up_scores_pay() -> None:
    world = a_world()
    before = wealth(world, PROVIDER)
    job = rejected_job(world)
    record = world.job(job)
    assert record.lost > 0
    offer = offer_of(world, PROVIDER)
    assert appealed(world, job) == ""
    liars = {v: wealth(world, world.set.members[v].account) for v in ARBITERS}
    fees_paid = before - record.lost - wealth(world, PROVIDER) - world.ledger.appeal_bonds()
    truth = good_scores(record)
    ruling, paid = ruled(world, job, dict.fromkeys(ARBITERS, truth))
    price = record.input_tokens * record.input_price + record.output_tokens * record.output_price
    assert ruling is AppealRuling.WON
    assert paid == record.lost + price
    assert wealth(world, PROVIDER) == before - fees_paid + price
    for validator, owned in liars.items():
        assert wealth(world, world.set.members[validator].account) < owned
    after = offer_of(world, PROVIDER)
    assert (after.completed, after.failed) == (offer.completed + 1, offer.failed - 1)
    assert total_value(world.ledger) == world.ledger.supply().issued


def test_one_who_is_everybody_in_a_market_takes_nothing_out_of_the_treasury() -> None:
    world = a_world()
    treasury = world.ledger.treasury
    dear = an_offer(price=20 * GRAIN_PER_ASY, profile=ARBITER_PROFILE)
    assert world.do(ALICE, pb.Transfer(to=treasury, amount=1_000 * GRAIN_PER_ASY)).accepted
    assert world.do(PROVIDER, dear).accepted
    held = balance(world, treasury)
    job = rejected_job(world, a_request(max_price=8_000 * GRAIN_PER_ASY))
    record = world.job(job)
    assert appealed(world, job) == ""
    ruling, paid = ruled(world, job, dict.fromkeys(ARBITERS, good_scores(record)))
    assert ruling is AppealRuling.WON
    assert paid >= record.lost
    assert balance(world, treasury) >= held
    assert total_value(world.ledger) == world.ledger.supply().issued


def test_arbiters_are_known_by_their_ids_and_not_by_places_in_the_set() -> None:
    world = a_world()
    job = rejected_job(world)
    assert appealed(world, job) == ""
    gone, *still_there = ARBITERS
    members = [one for one in world.ledger.validators.members if one.index != gone]
    world.ledger._sets[0] = ValidatorSet(0, tuple(members))  # as another epoch's may be
    ruling, _ = ruled(world, job, dict.fromkeys(still_there, good_scores(world.job(job))))
    assert ruling is AppealRuling.WON


def test_who_appeals_in_vain_pays_the_arbiters_and_loses_its_bond() -> None:
    world = a_world()
    job = rejected_job(world)
    assert appealed(world, job) == ""
    bond, burned = world.ledger.appeal_bonds(), world.ledger.supply().burned
    owned = {v: balance(world, world.set.members[v].account) for v in ARBITERS}
    held = wealth(world, PROVIDER)
    record = world.job(job)
    ruling, paid = ruled(world, job, dict.fromkeys(ARBITERS, bad_scores(record)))
    assert (ruling, paid) == (AppealRuling.LOST, 0)
    seat = world.parameters.seat_price(record.input_tokens, record.output_tokens)
    for validator, before in owned.items():
        assert balance(world, world.set.members[validator].account) == before + seat
    assert bond == world.parameters.appeal_bond + len(ARBITERS) * seat
    assert world.ledger.supply().burned == burned + world.parameters.appeal_bond
    assert wealth(world, PROVIDER) == held
    assert appealed(world, job) == RejectionReason.JOB_NOT_OPEN, "once"


def test_an_arbiter_whose_scores_are_not_the_fact_is_slashed_whatever_its_verdict() -> None:
    world = a_world()
    job = rejected_job(world)
    appealed(world, job)
    truth = bad_scores(world.job(job))
    liar = world.set.members[1].account
    held = wealth(world, liar)
    said = dict.fromkeys(ARBITERS, truth) | {1: replace(truth, doubt_sum=truth.doubt_sum - 1)}
    assert ruled(world, job, said)[0] is AppealRuling.LOST
    assert held - wealth(world, liar) == world.parameters.wrong_pass_slash


def test_without_most_of_all_arbiters_of_one_mind_all_stays_as_it_was() -> None:
    for said in (
        dict.fromkeys((1, 2), TRUE),
        {1: TRUE, 2: TRUE, 3: FALSE, 4: FALSE},
        dict.fromkeys(ARBITERS),
        {},
    ):
        world = a_world()
        job = rejected_job(world)
        record, offer, held = world.job(job), offer_of(world, PROVIDER), wealth(world, PROVIDER)
        before = world.ledger.supply()
        appealed(world, job)
        charged = held - wealth(world, PROVIDER) - world.ledger.appeal_bonds()
        scores = {TRUE: good_scores(record), FALSE: bad_scores(record), None: None}
        ruling = ruled(world, job, {v: scores[word] for v, word in said.items()})
        assert ruling == (AppealRuling.NO_FACT, 0)
        assert wealth(world, PROVIDER) == held - charged
        assert offer_of(world, PROVIDER) == offer
        assert world.ledger.supply().burned - before.burned <= charged


def test_nobody_appeals_but_the_provider_of_a_rejected_job_and_only_before_exact_arbiters() -> None:
    world = a_world()
    job = rejected_job(world)
    assert appealed(world, job, account("alice")) == RejectionReason.NOT_ASSIGNED_TO_YOU
    assert appealed(world, b"?" * 32) == RejectionReason.UNKNOWN_JOB
    for validator in (1, 2, 3):
        key = world.set.members[validator].account
        assert world.do(key, pb.SetVerifier(model=MODEL, serving=False)).accepted
    assert appealed(world, job) == RejectionReason.NO_ARBITER


def test_the_last_job_of_an_ejected_provider_can_be_appealed_and_the_ejection_undone() -> None:
    world = a_world(BETS)
    last = b""
    for _ in range(3):
        audited(world, LOUD, profile=ARBITER_PROFILE)
        last = world.ledger.newest_jobs(1)[0][0]
    stake = world.ledger.account(PROVIDER).stake
    ((_, _, held),) = world.ledger.ejections()
    assert appealed(world, last) == ""
    truth = scores_of(world, last, QUIET)
    assert ruled(world, last, dict.fromkeys(ARBITERS, truth)) == (AppealRuling.WON, 0)
    suspicion = world.ledger.suspicion(MODEL, PROVIDER)
    assert (suspicion.distance_log, suspicion.ejected_height) == (2 * GAIN + LOSS, 0)
    assert world.ledger.account(PROVIDER).stake == stake + held.held
    assert not list(world.ledger.ejections())
    assert world.do(PROVIDER, an_offer(profile=ARBITER_PROFILE)).accepted
    assert total_value(world.ledger) == world.ledger.supply().issued


WORDS = st.sampled_from([TRUE, FALSE, "odd", None])


@settings(max_examples=25, deadline=None)
@given(
    st.dictionaries(st.sampled_from(ARBITERS), WORDS),
    st.sets(st.sampled_from(ARBITERS)),
    st.sampled_from([0, 10**9]),
)
def test_whatever_is_said_no_value_is_lost_and_no_bond_stays_stuck(
    said: dict[int, str | None], hidden: set[int], bond: int
) -> None:
    world = a_world(parameters=Parameters(appeal_bond=bond))
    job = rejected_job(world)
    assert appealed(world, job) == ""
    assert total_value(world.ledger) == world.ledger.supply().issued
    record = world.job(job)
    scores: dict[str | None, Scores | None] = {
        TRUE: good_scores(record),
        FALSE: bad_scores(record),
        "odd": replace(good_scores(record), doubt_sum=0),
        None: None,
    }
    owned = {v: wealth(world, world.set.members[v].account) for v in ARBITERS}
    words_said = {v: scores[word] for v, word in said.items()}
    ruling, _ = ruled(world, job, words_said, frozenset(hidden))
    spoken = [word for v, word in said.items() if v not in hidden and word is not None]
    agreed = [word for word in set(spoken) if 2 * spoken.count(word) > len(ARBITERS)]
    expected = {"": AppealRuling.NO_FACT, FALSE: AppealRuling.LOST}
    assert ruling is expected.get("".join(agreed), AppealRuling.WON)
    for validator, before in owned.items():
        silent = validator not in said or said[validator] is None
        if silent and ruling is not AppealRuling.WON and validator not in hidden:
            assert wealth(world, world.set.members[validator].account) == before, (
                "abstaining is free"
            )
    assert total_value(world.ledger) == world.ledger.supply().issued
    assert restarted(world.ledger).state_root() == world.ledger.state_root()


def test_an_appeal_under_way_survives_a_restart() -> None:
    world = a_world()
    job = rejected_job(world)
    appealed(world, job)
    again = restarted(world.ledger)
    assert list(again.appealed_jobs()) == list(world.ledger.appealed_jobs())
    assert again.next_deadline_ms() == world.ledger.next_deadline_ms() is not None
