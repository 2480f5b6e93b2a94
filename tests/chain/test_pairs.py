"""Calibrated pairs: registered in one way only, and nobody is judged by a pair nobody measured."""

from collections.abc import Callable
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from assay.v1 import transactions_pb2 as pb
from chain.pairs import checked_pairs, pair_message, thresholds_for, verifier_profiles
from chain.records import (
    PAIRS_MAX,
    PROFILE_BYTES_MAX,
    Bound,
    CalibratedPair,
    JobStatus,
    Model,
    Thresholds,
)
from chain.rejections import Rejection, RejectionReason
from consensus.values import Verdict
from consensus.wire import decode, encode
from tests.chain.ledger_world import (
    ALICE,
    BOND,
    FAIL,
    MODEL,
    OWNER,
    PASS,
    PROVIDERS,
    World,
    a_pair,
    a_registration,
    a_request,
    a_result,
    an_offer,
    least_price,
    offer_of,
    receipt_for,
    serving,
    total_value,
)

EXACT, FAST, OTHER = "exact", "fast", "other"
FAST_BY_EXACT = a_pair(FAST, EXACT, distance_max=5_000, fingerprint_tolerance=200)
PAIRS = (a_pair(EXACT, EXACT, distance_max=0), FAST_BY_EXACT, a_pair(FAST, FAST))
profiles = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=20)
numbers = st.integers(0, (1 << 32) - 1)
bounds = st.builds(Bound, numbers, numbers)
pairs = st.builds(
    CalibratedPair,
    provider_profile=profiles,
    verifier_profile=profiles,
    thresholds=st.builds(Thresholds, bounds, numbers, bounds, numbers, bounds, bounds, numbers),
)


def refused(messages: list[pb.CalibratedPair]) -> str:
    with pytest.raises(Rejection) as caught:
        checked_pairs(messages)
    assert caught.value.reason is RejectionReason.BAD_MODEL
    return caught.value.detail


def detail_of(world: World, sender: bytes, message: pb.SetOffer | pb.SetVerifier) -> str:
    """Why the ledger does not take it now, for want of a pair."""
    with pytest.raises(Rejection) as caught:
        world.ledger.admit(world.make(sender, message))
    assert caught.value.reason is RejectionReason.NO_CALIBRATED_PAIR
    return caught.value.detail


@given(st.lists(pairs, min_size=1, max_size=PAIRS_MAX, unique_by=lambda p: p.provider_profile))
def test_a_registration_keeps_its_pairs_and_finds_each_by_both_profiles(
    drawn: list[CalibratedPair],
) -> None:
    listed = sorted(drawn, key=lambda pair: pair.provider_profile)
    kept = checked_pairs([pair_message(pair) for pair in listed])
    model = Model(OWNER, "m", 512, 0, kept, 2, 1)
    assert decode(Model, encode(model)) == model
    known = {(pair.provider_profile, pair.verifier_profile): pair.thresholds for pair in drawn}
    names = {name for place in known for name in place}
    for provider in names:
        for verifier in names:
            assert thresholds_for(model, provider, verifier) == known.get((provider, verifier))
        assert verifier_profiles(model, provider) == tuple(
            sorted(v for p, v in known if p == provider)
        )
    assert verifier_profiles(model) == tuple(sorted({verifier for _, verifier in known}))


@given(st.lists(pairs.map(pair_message), min_size=2, max_size=4), st.randoms())
def test_pairs_have_one_order_and_each_stands_once(
    messages: list[pb.CalibratedPair], chance: Random
) -> None:
    def place(pair: pb.CalibratedPair) -> tuple[str, str]:
        return pair.provider_profile, pair.verifier_profile

    chance.shuffle(messages)
    places = [place(message) for message in messages]
    if places == sorted(set(places)):
        assert len(checked_pairs(messages)) == len(messages)
    else:
        assert "each once" in refused(messages)


@pytest.mark.parametrize(
    ("messages", "said"),
    [
        ([], "0 calibrated pairs, needs 1 to 16"),
        ([a_pair(f"p{n:02}") for n in range(PAIRS_MAX + 1)], "17 calibrated pairs"),
        ([a_pair("")], "pairs[0].provider_profile must be 1 to 128 printable"),
        ([a_pair("a"), a_pair("b", "")], "pairs[1].verifier_profile"),
        ([a_pair("x" * (PROFILE_BYTES_MAX + 1))], "pairs[0].provider_profile"),
        ([a_pair("two words")], "pairs[0].provider_profile"),
        ([a_pair("a\nb")], "pairs[0].provider_profile"),
        ([a_pair("caf\xe9")], "pairs[0].provider_profile"),
        ([a_pair("b"), a_pair("a")], "pairs[1] does not lie after the one before it"),
        ([a_pair("a", "b"), a_pair("a", "a")], "pairs[1] does not lie after"),
        ([a_pair("a"), a_pair("a")], "pairs[1] does not lie after"),
        (
            [pb.CalibratedPair(provider_profile="a", verifier_profile="a")],
            "pairs[0] has no thresholds",
        ),
    ],
)
def test_any_other_list_of_pairs_is_refused_with_the_place(
    messages: list[pb.CalibratedPair], said: str
) -> None:
    assert said in refused(messages)
    registration = a_registration()
    del registration.pairs[:]
    registration.pairs.extend(messages)
    assert World().do(OWNER, registration).reason == RejectionReason.BAD_MODEL


def test_the_longest_registration_is_accepted() -> None:
    longest = [
        a_pair("x" * PROFILE_BYTES_MAX, f"{n:0{PROFILE_BYTES_MAX}}") for n in range(PAIRS_MAX)
    ]
    world = World()
    assert world.do(OWNER, a_registration(*longest)).accepted
    model = world.ledger.model(MODEL)
    assert model is not None
    assert decode(Model, encode(model)) == model


def test_an_offer_whose_results_nobody_can_verify_is_refused() -> None:
    world = World()
    world.open_market(pairs=PAIRS, profiles=[EXACT])
    said = detail_of(world, PROVIDERS[0], an_offer(profile=OTHER))
    assert said == (
        "no calibrated pair: profiles of verifiers are exact; results of 'other' can be verified "
        "with none: offer another profile, or find such a verifier"
    )
    assert "'exact'" not in detail_of(world, PROVIDERS[0], an_offer(profile=""))
    assert len(detail_of(world, PROVIDERS[0], an_offer(profile="x" * 90_000))) < 400
    assert world.do(PROVIDERS[0], an_offer(profile=FAST)).accepted
    assert offer_of(world, PROVIDERS[0]).engine_profile == FAST


def test_an_offer_needs_a_verifier_of_its_pair_as_soon_as_there_are_others_at_all() -> None:
    world = World()
    world.do(OWNER, a_registration(*PAIRS))
    stake = pb.Stake(amount=world.parameters.stake_min_per_offer)
    assert world.do(PROVIDERS[0], stake, an_offer(profile=EXACT)).accepted
    operator, other, third = (member.account for member in world.set.members[:3])
    # Its operator and its own validator never judge it, so they say nothing about who will.
    assert world.do(operator, BOND, serving(FAST)).accepted
    assert world.do(PROVIDERS[0], an_offer(profile=EXACT, price=5)).accepted
    assert world.do(other, BOND, serving(FAST)).accepted
    assert "profiles of verifiers are fast;" in detail_of(
        world, PROVIDERS[0], an_offer(profile=EXACT)
    )
    assert world.do(third, BOND, serving(EXACT)).accepted
    assert world.do(PROVIDERS[0], an_offer(profile=EXACT, price=7)).accepted


def test_withdrawing_needs_no_pair_and_keeps_the_profile() -> None:
    world = World()
    world.open_market(pairs=PAIRS, profiles=[EXACT])
    assert world.do(PROVIDERS[0], an_offer(capacity=0, profile=OTHER)).accepted
    assert offer_of(world, PROVIDERS[0]).engine_profile == EXACT


def test_a_verifier_whose_profile_the_model_does_not_know_is_refused() -> None:
    world = World()
    world.do(OWNER, a_registration(a_pair(FAST, EXACT), a_pair(OTHER, EXACT)))
    validator = world.set.members[0].account
    said = detail_of(world, validator, serving(FAST))
    assert said == (
        "no calibrated pair: this model can be verified with exact, your runtime has 'fast'"
    )
    assert world.do(validator, BOND, serving(EXACT)).accepted


def test_another_profile_makes_a_verifier_wait_before_it_is_drawn_again() -> None:
    world = World(validators=4)
    world.open_market(pairs=PAIRS, profiles=[EXACT])
    world.do(PROVIDERS[0], an_offer(profile=FAST))
    job = world.answered_job()
    for member in world.set.members[1:3]:
        world.send(member.account, serving(FAST))
    world.block()
    world.block()
    assert world.job(job).status is JobStatus.ANSWERED, "one of three is not enough"
    world.seat_committee(job)
    seats = {seat.validator: seat.engine_profile for seat in world.job(job).committee}
    assert seats == {1: FAST, 2: FAST, 3: EXACT}


places = st.tuples(*[st.sampled_from((EXACT, FAST, OTHER))] * 2)


@settings(max_examples=60)
@given(
    st.sets(places, min_size=1),
    st.lists(st.sampled_from((EXACT, FAST, OTHER)), min_size=7, max_size=7),
    st.sampled_from((EXACT, FAST, OTHER)),
    st.sampled_from([pb.TIER_STANDARD, pb.TIER_CRITICAL]),
)
def test_whatever_pairs_a_model_has_a_job_is_judged_by_those_alone(
    known: set[tuple[str, str]], running: list[str], offered: str, tier: pb.Tier.ValueType
) -> None:
    world = World(validators=len(running))
    world.do(OWNER, a_registration(*(a_pair(*place) for place in sorted(known))))
    announced = {}
    for index, profile in enumerate(running):
        accepted = world.do(world.set.members[index].account, BOND, serving(profile)).accepted
        assert accepted == any(verifier == profile for _, verifier in known)
        if accepted:
            announced[index] = profile
    able = {i: p for i, p in announced.items() if i != 0 and (offered, p) in known}
    stake = pb.Stake(amount=world.parameters.stake_min_per_offer)
    nobody_yet = not announced.keys() - {0} and any(place[0] == offered for place in known)
    offer = world.do(PROVIDERS[0], stake, an_offer(profile=offered))
    assert offer.accepted == (bool(able) or nobody_yet), offer.reason
    if not offer.accepted:
        assert offer.reason == RejectionReason.NO_CALIBRATED_PAIR
        return
    job = world.request(a_request(tier=tier))
    world.block()
    if len(able) < world.parameters.reveal_quorum:
        assert world.job(job).status is JobStatus.REQUESTED
        world.block(after_ms=world.parameters.assign_within_ms + 1)
        assert world.job(job).status is JobStatus.REFUNDED
    else:
        world.answer(job)
        world.seat_committee(job)
        seats = {seat.validator: seat.engine_profile for seat in world.job(job).committee}
        assert seats.items() <= able.items()
        wanted = len(able) if tier == pb.TIER_CRITICAL else world.parameters.committee_size
        assert len(seats) == min(wanted, len(able))
        world.vote(job, [PASS] * len(seats))
        assert world.job(job).status is JobStatus.VERIFIED
    assert total_value(world.ledger) == world.ledger.supply().issued


def test_only_verifiers_of_a_calibrated_pair_are_drawn() -> None:
    world = World(validators=9)
    world.open_market(pairs=PAIRS, profiles=[EXACT, FAST])
    job = world.answered_job(a_request(tier=pb.TIER_CRITICAL))
    assert world.job(job).engine_profile == EXACT
    world.seat_committee(job)
    assert sorted(world.seats(job)) == [2, 4, 6, 8]
    assert {seat.engine_profile for seat in world.job(job).committee} == {EXACT}


def test_a_critical_job_is_priced_by_those_who_can_be_drawn_for_it() -> None:
    world = World(validators=9)
    world.open_market(pairs=PAIRS, profiles=[EXACT, FAST])
    able = 5  # of profile exact, the operator counted
    floor = least_price(a_request(tier=pb.TIER_CRITICAL), seats=able)
    critical = a_request(tier=pb.TIER_CRITICAL, max_price=floor - 1)
    assert world.do(ALICE, critical).reason == RejectionReason.PRICE_TOO_LOW
    assert world.do(ALICE, a_request(tier=pb.TIER_CRITICAL, max_price=floor)).accepted


def test_a_committee_of_several_profiles_settles_an_honest_job() -> None:
    world = World(validators=4)
    world.open_market(pairs=PAIRS, profiles=[FAST, EXACT])
    job = world.answered_job()
    world.seat_committee(job)
    tolerant = world.job(job).committee
    assert {seat.validator: seat.engine_profile for seat in tolerant} == {
        1: EXACT,
        2: FAST,
        3: EXACT,
    }
    for shift, seat in enumerate(world.seats(job)):
        # Engines that differ give values that differ, here by less than the pairs allow.
        world.commit(job, seat, PASS, fingerprint=100 * shift)
    world.block()
    for seat in world.seats(job):
        world.reveal(job, seat)
    receipt = receipt_for(world.block(), job)
    assert receipt.status is JobStatus.VERIFIED
    assert len(receipt.payments) >= 4
    by_profile = {word.engine_profile: word.thresholds for word in receipt.verdicts}
    assert by_profile[EXACT].distance_max == 5_000
    assert by_profile[FAST].distance_max == 100
    assert total_value(world.ledger) == world.ledger.supply().issued


@pytest.mark.parametrize(
    ("provider", "verifier", "verdict"),
    [(EXACT, EXACT, FAIL), (FAST, EXACT, PASS), (FAST, FAST, PASS)],
)
def test_the_same_scores_mean_what_the_pair_of_profiles_says(
    provider: str, verifier: str, verdict: Verdict
) -> None:
    world = World(validators=4)
    world.open_market(pairs=PAIRS, profiles=[verifier])
    world.do(PROVIDERS[0], an_offer(profile=provider))
    job = world.answered_job()
    world.seat_committee(job)
    seats = world.seats(job)
    # Distances of 3 units: nothing for two engines, too much for one that has pinned bits.
    for seat in seats:
        world.commit(job, seat, PASS)
    world.block()
    for seat in seats:
        world.reveal(job, seat)
    refusals = world.block().refused_attestations
    if verdict is PASS:
        assert not refusals
        assert world.job(job).status is JobStatus.VERIFIED
    else:
        assert {refusal.reason for refusal in refusals} == {RejectionReason.BAD_ATTESTATION}


def shifted(world: World, job: bytes, shifts: dict[int, int]) -> dict[int, Verdict | None]:
    """Everybody passes the job with values so far apart; what counts of their words."""
    for seat, shift in shifts.items():
        world.commit(job, seat, PASS, fingerprint=shift)
    world.block()
    for seat in shifts:
        world.reveal(job, seat)
    world.block()
    return {seat.validator: seat.verdict for seat in world.job(job).committee}


def test_fingerprints_are_compared_within_the_looser_of_two_pairs() -> None:
    def committee() -> tuple[World, bytes]:
        # Validators 1 and 3 verify with exact (tolerance 200), 2 with fast (1,000).
        world = World(validators=4)
        world.open_market(pairs=PAIRS, profiles=[FAST, EXACT])
        job = world.answered_job()
        world.seat_committee(job)
        return world, job

    assert shifted(*committee(), {1: 0, 2: 1_000, 3: 200}) == dict.fromkeys((1, 2, 3), PASS)
    words = shifted(*committee(), {1: 0, 2: 1_201, 3: 200})
    assert words == {1: PASS, 2: Verdict.ABSTAIN, 3: PASS}
    # Two of one profile that differ: neither can be told from the honest one as long as the third
    # bears both out.
    assert shifted(*committee(), {1: 0, 2: 500, 3: 900}) == dict.fromkeys((1, 2, 3), PASS)


@pytest.mark.parametrize("change", [lambda world: an_offer(profile=EXACT), None])
def test_a_result_has_the_profile_its_offer_had_at_assignment(
    change: Callable[[World], pb.SetOffer] | None,
) -> None:
    world = World()
    world.open_market(pairs=PAIRS, profiles=[FAST, EXACT])
    job = world.request()
    world.block()
    if change is not None:
        assert world.do(PROVIDERS[0], change(world)).accepted
    other = world.do(PROVIDERS[0], pb.SubmitResult(job=job, result=a_result(profile=EXACT)))
    assert other.reason == RejectionReason.BAD_RESULT
    assert world.do(PROVIDERS[0], pb.SubmitResult(job=job, result=a_result(profile=FAST))).accepted


def test_an_offer_that_too_few_can_judge_gets_no_job() -> None:
    world = World()
    world.do(OWNER, a_registration(a_pair("A", "A"), a_pair("B", "B")))
    members = world.set.members
    for member in members:
        world.do(member.account, BOND, serving("B" if member is members[-1] else "A"))
    stake = pb.Stake(amount=world.parameters.stake_min_per_offer)
    good, lonely = PROVIDERS[:2]
    assert world.do(good, stake, an_offer(profile="A", capacity=50)).accepted
    assert world.do(lonely, stake, an_offer(profile="B", price=0, capacity=50)).accepted
    for _ in range(world.parameters.audit_delay_blocks + 1):
        world.block()
    for number in range(12):
        job = world.request(a_request(str(number)))
        world.block()
        assert world.job(job).provider == good
