"""Judging scores, comparing fingerprints, counting words."""

from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consensus.values import Scores, Verdict
from consensus.verdicts import (
    Remedies,
    Ruling,
    fingerprint_positions,
    judge,
    outliers,
    rule,
)
from ext.hashing import tagged_hash

PASS, FAIL, ABSTAIN = Verdict.PASS, Verdict.FAIL, Verdict.ABSTAIN
NO_REMEDY = Remedies(escalate=False, redraw=False)
ANY_REMEDY = Remedies(escalate=True, redraw=True)


ONE = 1 << 20


@dataclass(frozen=True)
class Bound:
    base: int
    rate: int


@dataclass(frozen=True)
class Limits:
    mismatch_bound: Bound = Bound(ONE, ONE // 4)
    margin_max: int = 10
    margin_bound: Bound = Bound(2, 4)
    distance_max: int = 20
    distance_bound: Bound = Bound(28, 3)
    outside_bound: Bound = Bound(0, ONE // 4)


def same(tolerance: int) -> dict[int, int]:
    """One tolerance for all members."""
    return dict.fromkeys(range(12), tolerance)


AT_THE_LIMIT = Scores(
    positions=8,
    replay_mismatches=2,
    margin_max=10,
    margin_sum=18,
    distance_max=20,
    distance_sum=40,
    outside_candidates=1,
    doubt_sum=4 * ONE,
    input_tokens=6,
    finish_plausible=True,
    text_matches=True,
)


def test_scores_at_every_limit_pass() -> None:
    assert judge(AT_THE_LIMIT, Limits(), 6, 8) is PASS


@pytest.mark.parametrize(
    "change",
    [
        {"positions": 7},
        {"positions": 9},
        {"replay_mismatches": 3},
        {"margin_max": 11},
        {"margin_sum": 19},
        {"distance_max": 21},
        {"distance_sum": 41},
        {"outside_candidates": 2},
        {"doubt_sum": 4 * ONE - 1},
        {"input_tokens": 5},
        {"finish_plausible": False},
        {"text_matches": False},
    ],
)
def test_one_score_beyond_its_limit_fails(change: dict[str, int]) -> None:
    assert judge(replace(AT_THE_LIMIT, **change), Limits(), 6, 8) is FAIL  # type: ignore[arg-type]


def test_more_doubt_than_positions_have_allows_no_more() -> None:
    greedy = replace(AT_THE_LIMIT, distance_sum=28 + 3 * 8, doubt_sum=1 << 64)
    assert judge(greedy, Limits(), 6, 8) is PASS
    assert judge(replace(greedy, distance_sum=greedy.distance_sum + 1), Limits(), 6, 8) is FAIL


WHATEVER = st.one_of(st.integers(0, 40), st.integers(-(1 << 70), 1 << 70))
BOUNDS = st.builds(Bound, *[st.one_of(st.integers(0, 40), st.integers(0, (1 << 32) - 1))] * 2)
LIMITS = st.builds(Limits, BOUNDS, WHATEVER, BOUNDS, WHATEVER, BOUNDS, BOUNDS)
SCORES = st.builds(Scores, *[WHATEVER] * 9, st.booleans(), st.booleans())
WORSE = ("replay_mismatches", "margin_max", "margin_sum", "distance_max", "distance_sum")


@given(SCORES, LIMITS, WHATEVER, WHATEVER)
def test_there_is_a_verdict_on_whatever_numbers_came(
    scores: Scores, limits: Limits, input_tokens: int, output_tokens: int
) -> None:
    assert judge(scores, limits, input_tokens, output_tokens) in (PASS, FAIL)


@given(SCORES, LIMITS, st.sampled_from([*WORSE, "outside_candidates"]), st.integers(0, 1 << 40))
def test_a_worse_score_never_turns_fail_into_pass(
    scores: Scores, limits: Limits, name: str, more: int
) -> None:
    scores = replace(scores, finish_plausible=True, text_matches=True)
    worse = replace(scores, **{name: getattr(scores, name) + more})
    verdicts = [judge(s, limits, s.input_tokens, s.positions) for s in (scores, worse)]
    assert verdicts != [FAIL, PASS]


@given(
    st.integers(1, 1 << 20), st.data(), st.integers(0, (1 << 32) - 1), st.integers(0, (1 << 32) - 1)
)
def test_a_sum_may_be_exactly_what_its_bound_allows_at_any_length(
    positions: int, data: st.DataObject, base: int, rate: int
) -> None:
    doubt = data.draw(st.integers(0, positions << 20))
    allowed = int(base + Fraction(rate * doubt, 1 << 20))
    limits = Limits(margin_bound=Bound(base, rate), distance_bound=Bound(base, rate))
    scores = Scores(positions, 0, 0, 0, 0, allowed, 0, doubt, 6, True, True)
    assert judge(scores, limits, 6, positions) is PASS
    assert judge(replace(scores, margin_sum=allowed), limits, 6, positions) is PASS
    for name in ("margin_sum", "distance_sum"):
        beyond = replace(scores, **{name: allowed + 1})  # type: ignore[arg-type]
        assert judge(beyond, limits, 6, positions) is FAIL


members = st.lists(st.binary(min_size=32, max_size=32), min_size=1, max_size=31, unique=True)


@given(st.binary(min_size=32, max_size=32), members, st.integers(1, 4_096))
def test_positions_are_rising_and_lie_in_the_output(
    beacon: bytes, committee: list[bytes], output_tokens: int
) -> None:
    positions = fingerprint_positions(beacon, committee, output_tokens)
    assert list(positions) == sorted(set(positions))
    assert 1 <= len(positions) <= 4 * len(committee)
    assert min(positions) >= 0
    assert positions[-1] < output_tokens
    assert positions == fingerprint_positions(beacon, committee[::-1], output_tokens)


def test_every_member_brings_its_own_four_positions() -> None:
    beacon, verifier = tagged_hash(b"beacon"), tagged_hash(b"verifier")
    digest = tagged_hash(b"fingerprint", beacon, verifier)
    own = {int.from_bytes(digest[at : at + 8], "little") % 1_000 for at in (0, 8, 16, 24)}
    assert set(fingerprint_positions(beacon, [verifier], 1_000)) == own
    assert own <= set(fingerprint_positions(beacon, [verifier, bytes(32)], 1_000))


def test_an_empty_output_has_no_positions() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        fingerprint_positions(bytes(32), [bytes(32)], 0)


@given(
    st.lists(st.integers(-(10**6), 0), min_size=1, max_size=12),
    st.integers(0, 2),
    st.lists(st.integers(-(10**6), 10**6), min_size=12, max_size=12),
    st.integers(-5, 5),
)
def test_whatever_one_of_three_says_the_two_honest_ones_are_in_tolerance(
    truth: list[int], liar: int, lies: list[int], noise: int
) -> None:
    honest = [member for member in range(3) if member != liar]
    prints = {honest[0]: truth, honest[1]: [value + noise for value in truth]}
    prints[liar] = lies[: len(truth)]
    assert set(outliers(prints, same(5))) <= {liar}


def test_a_member_is_out_only_if_more_than_half_of_its_values_are() -> None:
    truth = [0, 0, 0, 0]
    half = {0: truth, 1: truth, 2: [99, 99, 0, 0]}
    most = {0: truth, 1: truth, 2: [99, 99, -99, 0]}
    edge = {0: truth, 1: truth, 2: [5, 5, 5, 5]}
    assert outliers(half, same(5)) == ()
    assert outliers(most, same(5)) == (2,)
    assert outliers(edge, same(5)) == ()
    assert outliers(edge, same(4)) == (2,)


@given(st.data(), st.integers(3, 9), st.integers(1, 8))
def test_half_of_the_members_agreeing_are_not_voided_whatever_profiles_and_others_say(
    data: st.DataObject, members: int, positions: int
) -> None:
    tolerances = {member: data.draw(st.sampled_from([0, 10, 1_000])) for member in range(members)}
    honest = data.draw(
        st.sets(st.integers(0, members - 1), min_size=(members + 1) // 2, max_size=members)
    )
    truth = data.draw(
        st.lists(st.integers(-5_000, 0), min_size=positions, max_size=positions), label="truth"
    )
    prints = {}
    for member, tolerance in tolerances.items():
        reach = tolerance // 2 if member in honest else 2_000
        noise = st.lists(st.integers(-reach, reach), min_size=positions, max_size=positions)
        prints[member] = [v + n for v, n in zip(truth, data.draw(noise), strict=True)]
    assert not honest.intersection(outliers(prints, tolerances))


@given(st.data(), st.integers(3, 9))
def test_who_is_far_from_a_majority_is_voided_whatever_others_of_its_kind_say(
    data: st.DataObject, members: int
) -> None:
    tolerances = {member: data.draw(st.sampled_from([0, 10, 1_000])) for member in range(members)}
    lazy = data.draw(st.sets(st.integers(0, members - 1), min_size=1, max_size=(members - 1) // 2))
    lies = st.lists(st.integers(5_000, 9_000), min_size=4, max_size=4)
    prints = {member: data.draw(lies) if member in lazy else [0] * 4 for member in tolerances}
    assert set(outliers(prints, tolerances)) == lazy


def test_a_loose_member_does_not_hide_a_strict_one_from_the_strict_majority() -> None:
    prints = {0: [0], 1: [0], 2: [500], 3: [500], 4: [0]}
    tolerances = {0: 10, 1: 10, 2: 10, 3: 1_000, 4: 10}
    assert outliers(prints, tolerances) == (2,)


def test_a_value_between_a_strict_and_a_loose_member_makes_no_honest_one_miss() -> None:
    assert outliers({0: [0], 1: [500], 2: [900]}, {0: 10, 1: 10, 2: 1_000}) == ()


def test_two_halves_that_differ_blame_nobody() -> None:
    assert outliers({0: [0], 1: [0], 2: [99], 3: [99]}, same(10)) == ()


def test_two_members_who_differ_are_not_judged() -> None:
    assert outliers({0: [0], 1: [10**6]}, same(1)) == ()
    assert outliers({}, same(1)) == ()


def test_fingerprints_must_have_one_length() -> None:
    with pytest.raises(ValueError, match="different lengths"):
        outliers({0: [1], 1: [1, 2], 2: [1]}, same(1))


@pytest.mark.parametrize(
    ("words", "remedies", "ruling"),
    [
        ([PASS, PASS, PASS], ANY_REMEDY, Ruling.ACCEPT),
        ([PASS, PASS, ABSTAIN], ANY_REMEDY, Ruling.ACCEPT),
        ([PASS, ABSTAIN, ABSTAIN], ANY_REMEDY, Ruling.REDRAW),
        ([PASS], NO_REMEDY, Ruling.NO_RULING),
        ([], ANY_REMEDY, Ruling.REDRAW),
        ([], NO_REMEDY, Ruling.NO_RULING),
        ([FAIL], ANY_REMEDY, Ruling.ESCALATE),
        ([FAIL, PASS, PASS], ANY_REMEDY, Ruling.ESCALATE),
        ([FAIL, FAIL, FAIL], ANY_REMEDY, Ruling.ESCALATE),
        ([FAIL], NO_REMEDY, Ruling.NO_RULING),
        ([FAIL, PASS], NO_REMEDY, Ruling.NO_RULING),
        ([FAIL, PASS, PASS], NO_REMEDY, Ruling.ACCEPT),
        ([FAIL, FAIL, PASS], NO_REMEDY, Ruling.REJECT_AND_SLASH),
        ([FAIL, FAIL, FAIL, PASS, PASS], NO_REMEDY, Ruling.REJECT),
        ([FAIL, FAIL, ABSTAIN], NO_REMEDY, Ruling.REJECT_AND_SLASH),
        ([FAIL, PASS], Remedies(escalate=False, redraw=True), Ruling.NO_RULING),
    ],
)
def test_what_words_amount_to(words: list[Verdict], remedies: Remedies, ruling: Ruling) -> None:
    assert rule(words, quorum=2, remedies=remedies) is ruling


def test_no_single_word_ever_decides_and_order_does_not_matter() -> None:
    for size in range(6):
        for words in product((PASS, FAIL, ABSTAIN), repeat=size):
            ruling = rule(words, 2, NO_REMEDY)
            spoken = [word for word in words if word is not ABSTAIN]
            assert rule(sorted(words), 2, NO_REMEDY) is ruling
            if len(spoken) < 2:
                assert ruling is Ruling.NO_RULING
            if ruling is Ruling.ACCEPT:
                assert spoken.count(PASS) > spoken.count(FAIL)
            if ruling in (Ruling.REJECT, Ruling.REJECT_AND_SLASH):
                assert spoken.count(FAIL) > spoken.count(PASS)
