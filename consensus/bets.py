"""Evidence that adds up over the audited jobs of a provider: the e-process, in integers.

Each audited job is two bets against honesty, one on its margins, one on its distances. A bet is a
table that a calibration fitted (`runtime.calibration.eprocess` says how, and what holds of it):
edges of bins, and for each bin the logarithm of its e-value, in 2^-20 nats, rounded down. Of
honest scores an e-value has a mean of at most 1, so the product over all jobs, the wealth, is a
supermartingale: it reaches WEALTH / 2 in an honest provider's whole life with a probability of at
most 10^-6 for both bets together (Ville).

The bets look at the first OPENING_TOKENS tokens of an output, for which the tables were fitted, and
at no shorter output.
"""

from bisect import bisect_left
from collections.abc import Sequence
from typing import NamedTuple, Protocol

from consensus.values import Scores, Verdict
from consensus.verdicts import UNIT_BITS

OPENING_TOKENS = 32
"""Of an output; what comes later has no part in a bet."""
LIMIT_LOG = 15_213_431
"""ln(2 x 10^6) in 2^-20 nats, rounded up: what the sum of one kind of bets must reach."""


class Table(Protocol):
    """Bins and their e-values (records.BettingTable)."""

    @property
    def edges(self) -> Sequence[int]:
        """Rising; a value lies in the bin of the first edge it does not exceed."""

    @property
    def log_e_values(self) -> Sequence[int]:
        """In 2^-20 nats, one more than there are edges."""


class Tables(Protocol):
    """The two bets of a pair of engine profiles (records.Bets)."""

    @property
    def margin(self) -> Table:
        """On the sum of replay margins."""

    @property
    def distance(self) -> Table:
        """On the sum of distances."""


class Word(NamedTuple):
    """What one verifier's scores make of both bets."""

    margin_log: int
    distance_log: int


NOTHING = Word(0, 0)


def for_doubt(total: int, doubt: int) -> int:
    """A sum for each unit of doubt, rounded up; one unit more stands for what is hardly in doubt,
    whose ratio would be noise. All in 2^-20."""
    return -((-total << UNIT_BITS) // (doubt + (1 << UNIT_BITS)))


def log_e_value(table: Table, value: int) -> int:
    """Of one job's statistic."""
    return table.log_e_values[bisect_left(table.edges, value)]


def word_of(scores: Scores, tables: Tables) -> Word:
    """What one verifier's scores say; nothing of an output that is too short to have a bet."""
    if scores.positions < OPENING_TOKENS:
        return NOTHING
    doubt = scores.opening_doubt_sum
    return Word(
        log_e_value(tables.margin, for_doubt(scores.opening_margin_sum, doubt)),
        log_e_value(tables.distance, for_doubt(scores.opening_distance_sum, doubt)),
    )


def is_opening_possible(scores: Scores) -> bool:
    """Whether the sums of the opening can be part of the sums of the whole."""
    looked_at = min(scores.positions, OPENING_TOKENS)
    return (
        scores.opening_margin_sum <= scores.margin_sum
        and scores.opening_distance_sum <= scores.distance_sum
        and scores.opening_doubt_sum <= min(scores.doubt_sum, looked_at << UNIT_BITS)
    )


def settled(words: Sequence[tuple[str, Verdict, Word]]) -> Word:
    """What a committee's words, (engine profile, verdict, word) each, add to the wealth.

    Of each bet the lower median among those who share the profile of most seats (of profiles with
    equally many, the least): honest verifiers with one exact engine say the same, so as long as
    they are more than the others nobody moves it. Who abstained does not count.
    """
    by_profile: dict[str, list[Word]] = {}
    for profile, verdict, word in words:
        if verdict is not Verdict.ABSTAIN:
            by_profile.setdefault(profile, []).append(word)
    most = max(map(len, by_profile.values()), default=0)
    medians = [_median(group) for group in by_profile.values() if len(group) == most]
    if not medians:
        return NOTHING
    return Word(
        min(word.margin_log for word in medians), min(word.distance_log for word in medians)
    )


def _median(group: Sequence[Word]) -> Word:
    middle = (len(group) - 1) // 2
    return Word(
        sorted(word.margin_log for word in group)[middle],
        sorted(word.distance_log for word in group)[middle],
    )
