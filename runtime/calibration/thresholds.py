"""Thresholds: what an honest result may score at most, fitted for a budget of false rejections.

The rule of the fit. A job's statistic is the greatest of those of its prefixes of 32, 64, 128, 256
and of the whole output, so that one threshold holds for every length. For each statistic:

1. Order the values of the n fitting jobs; u is the (m + 1)-th greatest, m = max(20, n / 10), and e
   the mean of what the m greatest exceed it by.
2. Excesses over u are taken for exponential, the limit for maxima of all distributions with tails
   like the normal's or lighter than a power law's. The bound is where their tail reaches the
   statistic's share p of the budget: u + e' ln(m / (n p)), with e' = e (1 + z / sqrt(m)), the
   margin for m excesses being few: z is 2.39, the upper end of six one-sided intervals that hold
   together with 95%.
3. Never less than the greatest value seen; rounded up to an integer. A count (mismatches, tokens
   that are no candidates) is also never less than the k that a Poisson number exceeds with a
   probability of at most p, if its mean is what the longest output would have at the rate of all
   fitting tokens, with the same margin for counts being few: small counts have no tail to fit.

A statistic that is the same in every fitting job keeps that value: two sides that give the same
bits get zeros. But where distances differ from zero and yet no fitting job has a mismatch, some
later job will: two tokens whose noisy scores are closer than the noise. So then

4. margin_max and margin_mean_max are at least 2 distance_max times the scale of the lowest
   temperature: what noise of that size can do to the difference of two tokens.
5. replay_mismatches_max is at least the k of step 3 for a mean of 3 / n: the most that n jobs
   without a mismatch allow (rule of three).

The budget is shared out evenly among the statistics, so that together they keep
it (the union bound). Whether the fit keeps it is measured on the other half.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, astuple, dataclass, replace

from runtime.calibration.corpus import TEMPERATURES_MILLI
from runtime.calibration.evidence import LENGTHS, Evidence, PrefixScores
from runtime.sampling import MARGIN_CLIP

FALSE_REJECT_BUDGET = 0.001
"""Of honest jobs, for one verifier."""
FITTING_JOBS_MIN = 24
TAIL_JOBS_MIN = 20
TAIL_SHARE = 10
NORMAL_JOINT = 2.394
"""The standard normal's quantile at 1 - .05 / 6."""
RULE_OF_THREE = 3.0
MILLI = 1_000
THRESHOLD_MAX = (1 << 32) - 1


@dataclass(frozen=True, slots=True)
class Thresholds:
    """assay.v1.Thresholds without the fingerprint's tolerance, and one more: the margins' mean."""

    replay_mismatches_max: int
    margin_max: int
    distance_max: int
    distance_mean_max: int
    outside_candidates_max: int
    margin_mean_max: int
    """Judged like distance_mean_max; on chain as soon as consensus looks at margin_sum."""

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if type(value) is not int or not 0 <= value <= THRESHOLD_MAX:
                raise ValueError(f"{name} is {value!r}, must be an integer of 32 bits")


@dataclass(frozen=True, slots=True)
class Judgement:
    """Which evidence speaks against a result; each is a rule of its own."""

    margins: bool
    """Mismatches, the greatest margin, tokens that are no candidates."""
    margin_mean: bool
    distances: bool

    @property
    def registered(self) -> bool:
        """FAIL by the rule of consensus as it is: everything but the margins' mean."""
        return self.margins or self.distances

    @property
    def replay(self) -> bool:
        """FAIL by what no forger can forge."""
        return self.margins or self.margin_mean

    @property
    def complete(self) -> bool:
        """FAIL by anything."""
        return self.margins or self.margin_mean or self.distances


def judge(scores: PrefixScores, thresholds: Thresholds) -> Judgement:
    """The verdict of `consensus.verdicts.judge`, in parts; counts and text are taken for right."""
    return Judgement(
        margins=scores.replay_mismatches > thresholds.replay_mismatches_max
        or scores.margin_max > thresholds.margin_max
        or scores.outside_candidates > thresholds.outside_candidates_max,
        margin_mean=scores.margin_sum > thresholds.margin_mean_max * scores.positions,
        distances=scores.distance_max > thresholds.distance_max
        or scores.distance_sum > thresholds.distance_mean_max * scores.positions,
    )


def statistics(scores: PrefixScores) -> Thresholds:
    """The thresholds that these scores just pass."""
    return Thresholds(
        replay_mismatches_max=scores.replay_mismatches,
        margin_max=scores.margin_max,
        distance_max=scores.distance_max,
        distance_mean_max=scores.distance_mean,
        outside_candidates_max=scores.outside_candidates,
        margin_mean_max=scores.margin_mean,
    )


def tail_bound(values: Sequence[int], tail_probability: float) -> int:
    """The bound of steps 1 to 3 above. Raises ValueError for fewer than FITTING_JOBS_MIN values."""
    count = len(values)
    if count < FITTING_JOBS_MIN:
        raise ValueError(f"{count} honest jobs are too few to fit, at least {FITTING_JOBS_MIN}")
    if not 0 < tail_probability < 1:
        raise ValueError(f"a tail probability of {tail_probability} is not between 0 and 1")
    ordered = sorted(values, reverse=True)
    if ordered[0] == ordered[-1]:
        return ordered[0]
    tail = min(max(TAIL_JOBS_MIN, count // TAIL_SHARE), count - 1)
    start = ordered[tail]
    mean_excess = sum(value - start for value in ordered[:tail]) / tail
    cautious = mean_excess * (1 + NORMAL_JOINT / math.sqrt(tail))
    extrapolated = start + cautious * max(math.log(tail / (count * tail_probability)), 0.0)
    return max(ordered[0], math.ceil(extrapolated))


def longest_mean(counts: Sequence[int], tokens: Sequence[int]) -> float:
    """The mean of step 3 from each fitting job's count and length; 0 if nothing was counted."""
    total = sum(counts)
    if not total:
        return 0.0
    rate = total * (1 + NORMAL_JOINT / math.sqrt(total)) / sum(tokens)
    return rate * max(tokens)


def count_bound(mean: float, tail_probability: float) -> int:
    """The k that a Poisson number of this mean exceeds with at most this probability."""
    term = math.exp(-mean)
    below, count = term, 0
    while 1 - below > tail_probability:
        count += 1
        term *= mean / count
        below += term
    return count


def fit_thresholds(
    honest: Sequence[Evidence],
    budget: float = FALSE_REJECT_BUDGET,
    lengths: Sequence[int] = LENGTHS,
    temperatures_milli: Sequence[int] = TEMPERATURES_MILLI,
) -> Thresholds:
    """Thresholds for honest jobs like these, asked at these temperatures.

    Raises ValueError for too few jobs.
    """
    worst = []
    for evidence in honest:
        columns = zip(*(astuple(statistics(s)) for s in evidence.prefixes(lengths)), strict=True)
        worst.append([max(column) for column in columns])
    if not worst:
        raise ValueError(f"no honest jobs to fit, at least {FITTING_JOBS_MIN}")
    share = budget / len(worst[0])
    fitted = Thresholds(*(tail_bound(values, share) for values in zip(*worst, strict=True)))
    tokens = [evidence.tokens for evidence in honest]
    mismatches = longest_mean([int(evidence.mismatches.sum()) for evidence in honest], tokens)
    outside = longest_mean([int(evidence.outside.sum()) for evidence in honest], tokens)
    fitted = replace(
        fitted,
        replay_mismatches_max=max(fitted.replay_mismatches_max, count_bound(mismatches, share)),
        outside_candidates_max=max(fitted.outside_candidates_max, count_bound(outside, share)),
    )
    if fitted.replay_mismatches_max or not fitted.distance_max:
        return fitted
    lowest_milli = min((t for t in temperatures_milli if 0 < t < MILLI), default=MILLI)
    tie = min(-(-2 * fitted.distance_max * MILLI // lowest_milli), MARGIN_CLIP)
    return replace(
        fitted,
        replay_mismatches_max=count_bound(RULE_OF_THREE / len(worst), share),
        margin_max=max(fitted.margin_max, tie),
        margin_mean_max=max(fitted.margin_mean_max, tie),
    )
