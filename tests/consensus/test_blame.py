"""Who owes what for its word: a committee of any words, and what one honest member can rely on."""

from dataclasses import dataclass, replace

from hypothesis import given
from hypothesis import strategies as st

from consensus.blame import asked_in_vain, idle, wrong_passes
from consensus.values import Scores, Verdict
from consensus.verdicts import NO_SCORES

PASS, FAIL, ABSTAIN = Verdict.PASS, Verdict.FAIL, Verdict.ABSTAIN


@dataclass(frozen=True)
class Seat:
    verdict: Verdict | None
    commitment: bytes | None = b"committed"
    voided: Verdict | None = None
    round: int = 0
    engine_profile: str = "exact"
    clear: bool = True

    @property
    def scores(self) -> Scores:
        """Every token was another, or what noise may do."""
        return replace(NO_SCORES, positions=16, replay_mismatches=16 if self.clear else 1)


absent = Seat(None, commitment=None)
hidden = Seat(None)
passed, failed, abstained = Seat(PASS), Seat(FAIL), Seat(ABSTAIN)
voided_pass, voided_fail = Seat(ABSTAIN, voided=PASS), Seat(ABSTAIN, voided=FAIL)
seats = st.builds(
    Seat,
    verdict=st.sampled_from([PASS, FAIL, ABSTAIN, None]),
    commitment=st.sampled_from([b"committed", b"committed", None]),
    voided=st.none(),
    round=st.integers(0, 2),
    engine_profile=st.sampled_from(["exact", "fast"]),
) | st.sampled_from([hidden, voided_pass, voided_fail])
committees = st.lists(seats, max_size=31)


def test_idle_is_who_did_not_show_its_work_and_nobody_else() -> None:
    committee = [absent, hidden, passed, failed, abstained, voided_pass, voided_fail]
    assert idle(committee) == (1, 5, 6)


def test_a_pass_to_what_two_thirds_failed_is_wrong_and_so_is_hiding_it() -> None:
    committee = [failed, failed, failed, failed, passed, hidden, voided_pass, abstained, absent]
    assert wrong_passes(committee) == (4, 5, 6)


def test_a_pass_against_less_than_two_thirds_is_no_crime() -> None:
    assert wrong_passes([failed, failed, failed, passed, passed]) == ()


def test_a_pass_is_not_wrong_where_those_who_failed_it_may_have_seen_noise() -> None:
    assert wrong_passes([Seat(FAIL, clear=False)] * 6 + [passed]) == ()


def test_a_pass_is_held_to_those_of_its_own_arithmetic() -> None:
    other = Seat(PASS, engine_profile="fast")
    assert wrong_passes([failed, failed, failed, other]) == ()
    agreeing = Seat(FAIL, engine_profile="fast")
    assert wrong_passes([failed, agreeing, agreeing, other]) == (3,)


def test_who_asked_in_vain_is_named_with_the_seats_it_added() -> None:
    later = [Seat(PASS, round=1)] * 5 + [Seat(FAIL, round=1)]
    assert asked_in_vain([passed, failed, voided_fail, *later]) == ((1, 2), 6)


def test_nobody_asked_where_nobody_failed() -> None:
    assert asked_in_vain([passed, abstained, absent, Seat(PASS, round=1)]) == ((), 0)


@given(committees)
def test_nobody_is_blamed_for_staying_away_or_for_abstaining(committee: list[Seat]) -> None:
    blamed = {*idle(committee), *wrong_passes(committee), *asked_in_vain(committee)[0]}
    for place in blamed:
        seat = committee[place]
        assert seat.commitment is not None or seat.verdict is not None
        assert seat.verdict is not ABSTAIN or seat.voided is not None


@given(committees)
def test_hiding_never_costs_less_than_the_word_that_was_hidden(committee: list[Seat]) -> None:
    for place, seat in enumerate(committee):
        if seat.verdict is PASS and seat.commitment is not None:
            hiding = [*committee]
            hiding[place] = Seat(None, round=seat.round, engine_profile=seat.engine_profile)
            assert place in idle(hiding)
            if place in wrong_passes(committee):
                assert place in wrong_passes(hiding)


@given(committees)
def test_who_failed_it_never_pays_as_if_it_had_passed(committee: list[Seat]) -> None:
    for place in wrong_passes(committee):
        assert FAIL not in (committee[place].verdict, committee[place].voided)


@given(committees, st.integers(0, 30))
def test_no_third_of_a_committee_can_make_an_honest_pass_wrong(
    committee: list[Seat], honest_more: int
) -> None:
    liars = [Seat(seat.verdict, seat.commitment, seat.voided) for seat in committee]
    honest = [passed] * (len(liars) + 1 + honest_more)
    assert all(place < len(liars) for place in wrong_passes([*liars, *honest]))
