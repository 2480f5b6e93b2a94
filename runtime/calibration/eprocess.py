"""Evidence that adds up: what many audited jobs show that a single one cannot.

Each audited job yields an e-value for each kind of evidence: a bet against honesty, whose mean is
at most 1 if the provider is honest. The product of bets is wealth, which an honest provider
multiplies by 10^6 with a probability of at most 10^-6 in its whole life (Ville's inequality),
however often one looks. With two kinds of evidence, each must reach 2 x 10^6 (the union bound).

How a bet is made, for one kind of evidence and one output length:

1. The statistic of a job is the sum of its margins, or of its distances, for each unit of doubt
   (`PrefixScores.for_doubt`). Bins are cut at its quantiles in honest and in fraudulent fitting
   jobs.
2. A first part of the honest fitting jobs gives each bin's payoff b: the share of fraudulent jobs
   over the share of honest jobs in it, smoothed, at most some bound B.
3. The other part, which had no say in the payoffs, bounds the honest mean of b from above: mean +
   3.09 standard errors + 3 (largest b - least b) / jobs. (99.9% by the normal limit; the last
   term is the rule of three for what was never seen.)
4. The e-value of a bin is 1 - s + s b / bound. Stake s and B are those by which the fraudulent
   fitting jobs multiply fastest; s = 0 when nothing makes them grow.

What goes on chain of it is a table of integers: edges of the bins, and logarithms of their
e-values in 2^-20 nats, rounded down.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from runtime.calibration.evidence import Evidence, PrefixScores
from runtime.sampling import LOGPROB_UNITS_PER_NAT

WEALTH = 1_000_000
"""Where a provider is ejected."""
LIMIT_LOG = math.ceil(math.log(2 * WEALTH) * LOGPROB_UNITS_PER_NAT)
"""What the sum of one kind of evidence must reach, in 2^-20 nats."""
QUANTILES = 8
PAYOFF_BOUNDS = (2.0, 4.0, 16.0, 64.0, 256.0)
STAKES = (0.05, 0.1, 0.2, 0.35, 0.5, 0.7, 0.9, 0.98)
NORMAL_999 = 3.09
RULE_OF_THREE = 3.0
SMOOTHING = 0.5
BETTING_JOBS_MIN = 24
"""Honest jobs in either part below which no bet is made."""


class Kind(StrEnum):
    """The two kinds of evidence."""

    MARGIN = "margin"
    DISTANCE = "distance"


def statistic(scores: PrefixScores, kind: Kind) -> int:
    """What is looked at of a job, in 2^-20 nats for each unit of doubt."""
    return scores.for_doubt(scores.margin_sum if kind is Kind.MARGIN else scores.distance_sum)


@dataclass(frozen=True, slots=True)
class BettingTable:
    """E-values by bins: a value lies in the bin of the first edge it does not exceed."""

    kind: Kind
    length: int
    """Output tokens that are looked at."""
    edges: tuple[int, ...]
    """Rising."""
    log_e_values: tuple[int, ...]
    """In 2^-20 nats, one more than there are edges."""

    @property
    def idle(self) -> bool:
        """Whether it never bets."""
        return not any(self.log_e_values)

    def log_e_value(self, value: int) -> int:
        """For one job's statistic."""
        return self.log_e_values[int(np.searchsorted(self.edges, value))]


def idle_table(kind: Kind, length: int) -> BettingTable:
    """The table that never bets."""
    return BettingTable(kind, length, (), (0,))


def sets_payoffs(evidence: Evidence) -> bool:
    """Whether an honest fitting job is of the first part of step 2; by the job's hash."""
    return int(evidence.job[2:4], 16) % 3 == 0


def values_of(evidence: Sequence[Evidence], kind: Kind, length: int) -> list[int]:
    """Statistics of the jobs that are long enough."""
    return [statistic(e.prefix(length), kind) for e in evidence if e.tokens >= length]


def fit_table(
    kind: Kind, length: int, honest: Sequence[Evidence], frauds: Sequence[Sequence[Evidence]]
) -> BettingTable:
    """The table for these fitting jobs; frauds count equally, however many jobs each has."""
    setting = values_of([e for e in honest if sets_payoffs(e)], kind, length)
    bounding = values_of([e for e in honest if not sets_payoffs(e)], kind, length)
    fraudulent = [values for fraud in frauds if (values := values_of(fraud, kind, length))]
    if min(len(setting), len(bounding)) < BETTING_JOBS_MIN or not fraudulent:
        return idle_table(kind, length)
    edges = _edges([setting, *fraudulent])
    bins = len(edges) + 1
    honest_share = _shares(edges, setting, bins)
    fraud_share = np.mean([_shares(edges, values, bins) for values in fraudulent], axis=0)
    ratio = fraud_share / honest_share
    seen = np.searchsorted(edges, bounding)
    best_growth, best = 0.0, np.zeros(bins)
    for bound in PAYOFF_BOUNDS:
        payoff = np.minimum(ratio, bound)
        relative = payoff / _upper_mean(payoff, seen)
        for stake in STAKES:
            log_e_values = np.log(1 - stake + stake * relative)
            growth = float(fraud_share @ log_e_values)
            if growth > best_growth:
                best_growth, best = growth, log_e_values
    logs = np.floor(best * LOGPROB_UNITS_PER_NAT)
    return BettingTable(kind, length, tuple(edges), tuple(int(log) for log in logs))


def _edges(samples: Sequence[Sequence[int]]) -> list[int]:
    """Distinct quantiles of every sample; the greatest of each is no edge."""
    found: set[int] = set()
    for values in samples:
        ordered = sorted(values)
        found.update(ordered[len(ordered) * part // QUANTILES] for part in range(1, QUANTILES))
    # Too many bins hold too few honest jobs each; drop every other until they don't.
    edges = sorted(found)
    while len(edges) > 2 * QUANTILES:
        edges = edges[::2]
    return edges


def _shares(edges: Sequence[int], values: Sequence[int], bins: int) -> np.ndarray:
    counts = np.bincount(np.searchsorted(edges, values), minlength=bins) + SMOOTHING
    shares: np.ndarray = counts / counts.sum()
    return shares


def _upper_mean(payoff: np.ndarray, seen: np.ndarray) -> float:
    """Step 3: the upper bound of a payoff's honest mean."""
    paid = payoff[seen]
    spread = float(payoff.max() - payoff.min())
    error = float(paid.std(ddof=1)) / math.sqrt(paid.size)
    unseen = RULE_OF_THREE * spread / int(paid.size)
    return float(paid.mean()) + NORMAL_999 * error + unseen


def log_e_values(table: BettingTable, evidence: Sequence[Evidence]) -> np.ndarray:
    """int64, one for each job that is long enough."""
    values = values_of(evidence, table.kind, table.length)
    return np.array([table.log_e_value(value) for value in values], np.int64)


@dataclass(frozen=True, slots=True)
class Accumulation:
    """How many audited jobs it takes, over sequences drawn with replacement from held-out jobs."""

    sequences: int
    reached: int
    """Sequences in which some sum reached the limit within `jobs_max`."""
    jobs_max: int
    median_jobs: int | None
    """None when fewer than half of the sequences got there."""
    ninety_percent_jobs: int | None
    worst_log: int
    """The greatest any sum ever was, in 2^-20 nats."""


def accumulate(
    logs: Sequence[np.ndarray], sequences: int, jobs_max: int, random_seed: int
) -> Accumulation:
    """Play held-out jobs; `logs` are log e-values of the same jobs, one array a kind of evidence.

    Raises ValueError when there is no job.
    """
    jobs = len(logs[0]) if logs else 0
    if jobs == 0 or any(len(log) != jobs for log in logs):
        raise ValueError("log e-values of the same jobs, and of at least one, are needed")
    source = np.random.default_rng(random_seed)
    needed = []
    worst = 0
    for _ in range(sequences):
        drawn = source.integers(0, jobs, jobs_max)
        first = jobs_max
        for log in logs:
            sums = np.cumsum(log[drawn])
            worst = max(worst, int(sums.max()))
            crossing = np.flatnonzero(sums >= LIMIT_LOG)
            if crossing.size:
                first = min(first, int(crossing[0]))
        if first < jobs_max:
            needed.append(first + 1)
    needed.sort()

    def at_share(numerator: int, denominator: int) -> int | None:
        place = -(-sequences * numerator // denominator) - 1
        return needed[place] if place < len(needed) else None

    return Accumulation(sequences, len(needed), jobs_max, at_share(1, 2), at_share(9, 10), worst)


def greatest_prefix_sum(log: np.ndarray) -> int:
    """The greatest the sum ever was when jobs come in this order, and at least 0."""
    return max(int(np.cumsum(log).max(initial=0)), 0)
