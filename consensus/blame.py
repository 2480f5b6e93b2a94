"""Who on a committee owes something for its word. Pure functions; a seat is named by its place.

Money is the ledger's business (`chain.execution.collateral`); here is only whose word was idle,
wrong, or asked for others in vain. Each follows from what everybody can read in the job's record.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Protocol

from consensus.values import Scores, Verdict

BLAME_RATIO = 2
"""FAILs to PASSes, among seats of one engine profile, at which a PASS was wrong: two thirds."""
BLATANT_DIVISOR = 8
"""A FAIL is beyond doubt if the sampling replays another token at one position in so many: noise
never does. At a threshold honest seats may differ, and somebody could aim there."""


class Seat(Protocol):
    """One verifier's place on a committee (records.CommitteeSeat)."""

    @property
    def engine_profile(self) -> str:
        """It verifies with."""

    @property
    def round(self) -> int:
        """It was drawn for, from 0."""

    @property
    def commitment(self) -> bytes | None:
        """None before it committed."""

    @property
    def verdict(self) -> Verdict | None:
        """None before it revealed."""

    @property
    def scores(self) -> Scores | None:
        """What it has measured."""

    @property
    def voided(self) -> Verdict | None:
        """The word that its fingerprint voided."""


def idle(seats: Sequence[Seat]) -> tuple[int, ...]:
    """Seats that did not show their work: committed and never revealed, or out of tolerance.

    Who never commits is not idle but absent, and who abstains says so before it sees the others.
    """
    return tuple(
        place
        for place, seat in enumerate(seats)
        if seat.voided is not None or (seat.commitment is not None and seat.verdict is None)
    )


def wrong_passes(seats: Sequence[Seat]) -> tuple[int, ...]:
    """Seats that passed a result which two thirds have failed beyond doubt, or hid their word.

    Hiding counts, or who sees that it is outvoted would hide; so does a voided PASS. Seats are
    held to those of their own engine profile: one kind of arithmetic may show what another can't.
    """
    fails = Counter(seat.engine_profile for seat in seats if _is_blatant(seat))
    passes = Counter(seat.engine_profile for seat in seats if seat.verdict is Verdict.PASS)
    return tuple(
        place
        for place, seat in enumerate(seats)
        if (
            Verdict.PASS in (seat.verdict, seat.voided)
            or (seat.commitment is not None and seat.verdict is None)
        )
        and fails[seat.engine_profile] >= BLAME_RATIO * max(1, passes[seat.engine_profile])
    )


def asked_in_vain(seats: Sequence[Seat]) -> tuple[tuple[int, ...], int]:
    """Of a result that was verified: (the seats whose FAIL asked for a larger committee, how many
    seats that added). Both empty if nobody failed it.

    Only the first round with a FAIL has asked; a FAIL of the larger committee costs nobody more.
    """
    failing = [
        place for place, seat in enumerate(seats) if Verdict.FAIL in (seat.verdict, seat.voided)
    ]
    if not failing:
        return (), 0
    first = min(seats[place].round for place in failing)
    askers = tuple(place for place in failing if seats[place].round == first)
    return askers, sum(seat.round > first for seat in seats)


def _is_blatant(seat: Seat) -> bool:
    scores = seat.scores
    return (
        seat.verdict is Verdict.FAIL
        and scores is not None
        and BLATANT_DIVISOR * scores.replay_mismatches >= max(1, scores.positions)
    )
