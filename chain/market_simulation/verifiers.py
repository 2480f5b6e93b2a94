"""A verifier's agent: what it commits to and reveals for the seats it is drawn for."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from chain.market_simulation.assumptions import MILLION, Assumptions
from chain.market_simulation.chance import Chance
from chain.market_simulation.strategies import (
    HONEST_VERIFIER,
    Numbers,
    Opening,
    VerifierStrategy,
    Words,
)
from chain.records import Job
from consensus.values import AttestationKind, JobCommit, JobReveal, Scores, Verdict
from consensus.verdicts import NO_SCORES, outliers
from consensus.wire import encode

NUMBERS_SPAN: Final = 1 << 22
"""Log-probabilities from -4 to 0 nats, in 2^-20 nats: a made-up one is borne out by accident with
a chance of twice the tolerance over this."""
WORD_BYTES: Final = 4


class Fate(NamedTuple):
    """What is true of a job, whatever anybody says."""

    ordinal: bytes
    """Which of the run's jobs it is, for draws."""
    shows: bool
    """Whether a verification finds the result false."""
    blatant: bool = False
    """Whether it shows at so many positions that no noise could have done it."""


class Seat(NamedTuple):
    """A seat that waits for its verifier's next move."""

    job_id: bytes
    job: Job
    fate: Fate
    positions: tuple[int, ...]
    groups_job: bool
    """Whether the provider belongs to the group."""
    reveals: Mapping[int, JobReveal]
    """What the round's members have revealed, by validator: everybody can read it."""


@dataclass(slots=True)
class VerifierAgent:
    """One validator and what it has spent."""

    validator: int
    account: bytes
    strategy: VerifierStrategy
    assumptions: Assumptions
    chance: Chance
    spent: int = 0
    seats: int = 0
    _prepared: dict[tuple[bytes, int], JobReveal | None] = field(default_factory=dict)

    def commit(self, seat: Seat) -> bytes | None:
        """The attestation that binds it, or None to say nothing, yet or ever."""
        key = seat.job_id, seat.job.round
        if key in self._prepared:
            return None
        round_word = seat.job.round.to_bytes(1, "little")
        if self._drawn(self.assumptions.down_ppm, b"down", seat, round_word):
            self._take_seat(key, None)
            return None
        strategy = self._strategy_for(seat)
        if strategy.copies:
            return self._copied_commit(key, seat)
        reveal = self._reveal(seat, strategy)
        if strategy.works:
            tokens_cost = self.assumptions.generation_cost * seat.job.output_tokens
            self.spent += tokens_cost * self.assumptions.verify_over_generate_ppm // MILLION
        self._take_seat(key, reveal)
        return _commit_bytes(seat, reveal.commitment(self.account))

    def reveal(self, seat: Seat) -> JobReveal | None:
        """The opening of its commitment, or None to say nothing, yet or ever."""
        strategy = self._strategy_for(seat)
        if strategy.copies:
            return next(iter(seat.reveals.values()), None)
        prepared = self._prepared.get((seat.job_id, seat.job.round))
        round_word = seat.job.round.to_bytes(1, "little")
        if prepared is None or strategy.opening is Opening.NEVER:
            return None
        if self._drawn(self.assumptions.crash_ppm, b"crash", seat, round_word):
            return None
        if strategy.opening is Opening.IF_BORNE_OUT and not self._is_borne_out(seat, prepared):
            return None
        return prepared

    def _strategy_for(self, seat: Seat) -> VerifierStrategy:
        if self.strategy.only_for_group and not seat.groups_job:
            return HONEST_VERIFIER
        return self.strategy

    def _take_seat(self, key: tuple[bytes, int], reveal: JobReveal | None) -> None:
        self._prepared[key] = reveal
        self.seats += 1

    def _copied_commit(self, key: tuple[bytes, int], seat: Seat) -> bytes | None:
        for other in seat.job.committee:
            if other.round == seat.job.round and other.commitment is not None:
                self._take_seat(key, None)
                return _commit_bytes(seat, other.commitment)
        return None

    def _is_borne_out(self, seat: Seat, own: JobReveal) -> bool:
        others = [
            member.validator
            for member in seat.job.committee
            if member.round == seat.job.round
            and member.commitment is not None
            and member.validator != self.validator
        ]
        if any(validator not in seat.reveals for validator in others):
            return False
        numbers = {
            validator: seat.reveals[validator].fingerprint
            for validator in others
            if seat.reveals[validator].fingerprint
        }
        numbers[self.validator] = own.fingerprint
        tolerance = self.assumptions.thresholds.fingerprint_tolerance
        return self.validator not in outliers(numbers, dict.fromkeys(numbers, tolerance))

    def _reveal(self, seat: Seat, strategy: VerifierStrategy) -> JobReveal:
        verdict = self._verdict(seat, strategy)
        spoken = verdict is not Verdict.ABSTAIN
        # Who makes its FAIL up may as well claim that there is no doubt.
        blatant = seat.fate.blatant or strategy.words is Words.FAIL
        return JobReveal(
            kind=AttestationKind.REVEAL,
            job=seat.job_id,
            round=seat.job.round,
            verdict=verdict,
            scores=_scores(seat.job, verdict, blatant) if spoken else NO_SCORES,
            fingerprint=self._fingerprint(seat, strategy.numbers) if spoken else (),
            salt=self.chance.digest(b"salt", seat.job_id, self.account),
        )

    def _verdict(self, seat: Seat, strategy: VerifierStrategy) -> Verdict:
        if strategy.words is not Words.TRUE:
            return Verdict[strategy.words.value]
        false = self._drawn(self.assumptions.false_rejection_ppm, b"false", seat)
        return Verdict.FAIL if seat.fate.shows or false else Verdict.PASS

    def _fingerprint(self, seat: Seat, numbers: Numbers) -> tuple[int, ...]:
        ordinal = seat.fate.ordinal
        if numbers is Numbers.TRUE:
            # Two honest members differ by less than the tolerance.
            noise = self.assumptions.thresholds.fingerprint_tolerance // 2 + 1
            return tuple(
                value - self.chance.below(noise, b"noise", ordinal, self.account, _word(position))
                for value, position in zip(self._values(seat, b"true"), seat.positions, strict=True)
            )
        owner = self.account if numbers is Numbers.MADE_UP else b""
        return self._values(seat, b"made up", owner)

    def _values(self, seat: Seat, purpose: bytes, *words: bytes) -> tuple[int, ...]:
        return tuple(
            -self.chance.below(NUMBERS_SPAN, purpose, seat.fate.ordinal, _word(position), *words)
            for position in seat.positions
        )

    def _drawn(self, share_ppm: int, purpose: bytes, seat: Seat, *words: bytes) -> bool:
        return self.chance.happens(share_ppm, purpose, seat.fate.ordinal, self.account, *words)


def _commit_bytes(seat: Seat, commitment: bytes) -> bytes:
    return encode(JobCommit(AttestationKind.COMMIT, seat.job_id, seat.job.round, commitment))


def _scores(job: Job, verdict: Verdict, blatant: bool) -> Scores:
    """Scores that give the verdict, whatever the thresholds."""
    fails = verdict is Verdict.FAIL
    return Scores(
        positions=job.output_tokens,
        replay_mismatches=job.output_tokens if fails and blatant else 0,
        margin_max=0,
        margin_sum=0,
        distance_max=0,
        distance_sum=0,
        outside_candidates=0,
        doubt_sum=0,
        input_tokens=job.input_tokens,
        finish_plausible=not fails,
        text_matches=True,
    )


def _word(position: int) -> bytes:
    return position.to_bytes(WORD_BYTES, "little")
