"""How verdicts are reached, checked and counted. Pure functions over integers.

- `judge` turns scores into PASS or FAIL; a reveal whose verdict is not what its own scores give
  is void.
- Fingerprints show that a verifier ran the model: the log-probabilities it found for the
  runner-up tokens at positions nobody knew before the draw. Members are compared with each other
  (`outliers`).
- `rule` decides what the words of a committee amount to.
"""

import enum
from bisect import bisect_left, bisect_right, insort
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from consensus.values import FINGERPRINT_VALUES_MAX, Scores, Verdict
from ext.hashing import tagged_hash

UNIT_BITS = 20
"""Margins, distances, doubt and bounds are in 2^-20."""
FINGERPRINT_POSITIONS_EACH = 4
COMPARISON_MEMBERS_MIN = 3
"""With two members who differ there is no telling which of them is wrong."""
NO_SCORES = Scores(0, 0, 0, 0, 0, 0, 0, 0, 0, False, False)
"""What an abstaining verifier reveals."""


class ScoreBound(Protocol):
    """What a sum over the output may be at most (records.Bound)."""

    @property
    def base(self) -> int:
        """For any output, in 2^-20."""

    @property
    def rate(self) -> int:
        """More for each whole unit of doubt, in 2^-20."""


class ScoreThresholds(Protocol):
    """What an honest result may score at most (records.Thresholds)."""

    @property
    def mismatch_bound(self) -> ScoreBound:
        """Positions where the claimed token is not the replayed one."""

    @property
    def margin_max(self) -> int:
        """The largest replay margin, in 2^-20 nats."""

    @property
    def margin_bound(self) -> ScoreBound:
        """The sum of replay margins."""

    @property
    def distance_max(self) -> int:
        """The largest distance of log-probabilities, in 2^-20 nats."""

    @property
    def distance_bound(self) -> ScoreBound:
        """The sum of distances."""

    @property
    def outside_bound(self) -> ScoreBound:
        """Claimed tokens that were no candidates."""


def judge(
    scores: Scores, thresholds: ScoreThresholds, claimed_input_tokens: int, output_tokens: int
) -> Verdict:
    """PASS if every score is within its threshold and the counts are as claimed, else FAIL.

    Sums may grow with the output: by doubt, of which a position has at most 1
    (docs/decisions/0022).
    Exact: nothing is rounded, and no value overflows.
    """
    doubt = max(min(scores.doubt_sum, scores.positions << UNIT_BITS), 0)
    honest = (
        scores.positions == output_tokens
        and scores.input_tokens == claimed_input_tokens
        and scores.margin_max <= thresholds.margin_max
        and scores.distance_max <= thresholds.distance_max
        and is_within(scores.replay_mismatches << UNIT_BITS, thresholds.mismatch_bound, doubt)
        and is_within(scores.margin_sum, thresholds.margin_bound, doubt)
        and is_within(scores.distance_sum, thresholds.distance_bound, doubt)
        and is_within(scores.outside_candidates << UNIT_BITS, thresholds.outside_bound, doubt)
        and scores.finish_plausible
        and scores.text_matches
    )
    return Verdict.PASS if honest else Verdict.FAIL


def is_within(value: int, bound: ScoreBound, doubt: int) -> bool:
    """Whether a sum is at most base + rate x doubt, all four in 2^-20."""
    return value << UNIT_BITS <= (bound.base << UNIT_BITS) + bound.rate * doubt


def fingerprint_positions(
    audit_beacon: bytes, committee: Sequence[bytes], output_tokens: int
) -> tuple[int, ...]:
    """Output positions, rising and distinct, at which every member reveals its own numbers.

    Each member (32-byte account) adds four positions of its own; all answer for the union, so
    that there is something to compare at each of them. At most 256, and `output_tokens`.
    """
    if output_tokens < 1:
        raise ValueError(f"output_tokens is {output_tokens}, must be at least 1")
    positions: set[int] = set()
    for verifier in committee:
        digest = tagged_hash(b"fingerprint", audit_beacon, verifier)
        for index in range(FINGERPRINT_POSITIONS_EACH):
            word = int.from_bytes(digest[8 * index : 8 * index + 8], "little")
            positions.add(word % output_tokens)
    if len(positions) > FINGERPRINT_VALUES_MAX:
        raise ValueError(f"{len(committee)} members ask for {len(positions)} positions")
    return tuple(sorted(positions))


def outliers(
    fingerprints: Mapping[int, Sequence[int]], tolerances: Mapping[int, int]
) -> tuple[int, ...]:
    """Members (rising) whose fingerprint the others do not bear out at more than half of the
    positions.

    `tolerances` has one for each member: how far its engine's values may honestly lie from the
    provider's engine's. At a position two members agree if they differ by no more than the greater
    of theirs, and a member misses if it disagrees with more than half of all members, itself
    counted among those it agrees with. So while those who pairwise agree are at least half,
    nothing that others say can make one of them miss. There is no common value that all are
    measured by: among members of different tolerances a liar could place itself there, next to a
    strict member and yet out of its tolerance.

    Empty if fewer than three members gave one: no blame without a majority. All fingerprints must
    have one length (ValueError).
    """
    members = sorted(fingerprints)
    lengths = {len(fingerprints[member]) for member in members}
    if len(lengths) > 1:
        raise ValueError(f"fingerprints of different lengths: {sorted(lengths)}")
    if len(members) < COMPARISON_MEMBERS_MIN:
        return ()
    count = lengths.pop()
    strictest = min([tolerances[member] for member in members])
    values_at = zip(*[fingerprints[member] for member in members], strict=True)
    if all([max(values) - min(values) <= strictest for values in values_at]):
        return ()  # nobody disagrees with anybody, as almost always
    misses = dict.fromkeys(members, 0)
    for position in range(count):
        sorted_values: dict[int, list[int]] = {}
        for member in members:
            values = sorted_values.setdefault(tolerances[member], [])
            insort(values, fingerprints[member][position])
        for member in members:
            value, agreeing = fingerprints[member][position], 0
            for tolerance, values in sorted_values.items():
                reach = max(tolerance, tolerances[member])
                agreeing += bisect_right(values, value + reach) - bisect_left(values, value - reach)
            misses[member] += 2 * agreeing < len(members)
    return tuple(member for member in members if 2 * misses[member] > count)


class Ruling(enum.Enum):
    """What a committee's words amount to."""

    ACCEPT = "accept"
    REJECT = "reject"
    REJECT_AND_SLASH = "reject and slash"
    ESCALATE = "escalate"
    REDRAW = "redraw"
    NO_RULING = "no ruling"


@dataclass(frozen=True, slots=True)
class Remedies:
    """What may still be done for this job: each once, and only if there is somebody new."""

    escalate: bool
    redraw: bool


def rule(verdicts: Sequence[Verdict], quorum: int, remedies: Remedies) -> Ruling:
    """Rule on the verdicts that were validly revealed (missing ones are left out).

    ABSTAIN does not speak. Unanimous PASS by a quorum accepts; any FAIL escalates while it can;
    too few words redraw while they can. After that: no ruling without a quorum or on a tie, else
    the majority; at least two thirds FAIL slash.
    """
    passes = sum(verdict is Verdict.PASS for verdict in verdicts)
    fails = sum(verdict is Verdict.FAIL for verdict in verdicts)
    if fails and remedies.escalate:
        return Ruling.ESCALATE
    spoke = passes + fails
    if spoke < quorum:
        return Ruling.REDRAW if remedies.redraw else Ruling.NO_RULING
    if 3 * fails >= 2 * spoke:
        return Ruling.REJECT_AND_SLASH
    if 2 * fails > spoke:
        return Ruling.REJECT
    return Ruling.ACCEPT if 2 * passes > spoke else Ruling.NO_RULING
