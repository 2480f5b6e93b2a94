"""Thresholds: what an honest result may score at most, fitted for a budget of false rejections.

Four sums grow with the output: mismatches, tokens that are no candidates, margins, distances. Each
has a bound base + rate x doubt, where doubt (`runtime.scoring.doubt_of`, summed over the output)
says how much honest engines may differ on these very tokens. Two maxima have a constant bound. The
rule of the fit, each with its share p of the budget:

1. **Distances and margins.** The rate is the greatest that any long fitting job (at least half as
   long as the longest) has for a unit of doubt: jobs differ, and in an output of any length that
   difference does not average out. The base bounds what is left, the scatter of short outputs: a
   job's greatest excess over rate x doubt at 16, 32, 64, 128, 256 tokens and at its end. Of the n
   fitting jobs' excesses u is the (m + 1)-th greatest, m = max(20, n / 10), and e the mean of what
   the m greatest exceed it by; their tail is taken for exponential, the limit for maxima of all
   distributions with tails like the normal's or lighter than a power law's. The base is u + e'
   ln(m / (n p)), with e' = e (1 + z / sqrt(m)), the margin for m excesses being few: z is 2.39, the
   upper end of six one-sided intervals that hold together with 95%. Never less than the greatest
   value seen.
2. **Counts** are those of a Poisson process whose clock is doubt, of rate l, the upper end of its
   interval. It ever crosses b + c l x doubt with a probability of at most exp(-t b), where
   exp(t) - 1 = c t (Lundberg): one bound for all lengths. c is the one that allows least at the
   end of the longest fitting output. If counts scatter f times as much as Poisson's, b is f times
   as great. Never less than what fitting jobs had.
3. **Maxima** are over single tokens: the same tail through the greatest hundredth of all fitting
   tokens, and at most the greater half of those that are not zero, carried on to p / 8,192: for
   outputs of up to 8,192 tokens.

A statistic that is zero in every fitting job is its own bound: two sides that give the same bits
get zeros. But where distances differ from zero and yet no fitting job has a mismatch, some later
job will: two tokens whose noisy scores are closer than the noise. So then

4. margin_max is at least 2 distance_max times the scale of the lowest temperature: what noise of
   that size can do to the difference of two tokens.
5. As many such ties are allowed as the fitting jobs leave room for: the base is the k that a
   Poisson number of mean 3 / n exceeds with a probability of at most p (rule of three), the rate
   3 / doubt of all fitting jobs. Margins may be that many times 4.

The budget is shared out evenly among the six statistics, so that together they keep it (the union
bound). Whether the fit keeps it is measured on the other part.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np

from runtime.calibration.corpus import TEMPERATURES_MILLI
from runtime.calibration.evidence import FITTED_LENGTHS, Evidence, PrefixScores
from runtime.sampling import LOGPROB_UNITS_PER_NAT, MARGIN_CLIP

FALSE_REJECT_BUDGET = 0.001
"""Of honest jobs, for one verifier."""
STATISTICS = 6
FITTING_JOBS_MIN = 24
TAIL_MIN = 20
TAIL_SHARE_JOBS = 10
TAIL_SHARE_TOKENS = 100
NORMAL_JOINT = 2.394
"""The standard normal's quantile at 1 - .05 / 6."""
RULE_OF_THREE = 3.0
LONG_SHARE = 2
RATE_FACTORS = tuple(1 + quarter / 4 for quarter in range(1, 61))
"""c of step 2."""
LONGEST_TOKENS = 8_192
MILLI = 1_000
ONE = LOGPROB_UNITS_PER_NAT
"""2^20: a nat, a token, a whole unit of doubt."""
THRESHOLD_MAX = (1 << 32) - 1


@dataclass(frozen=True, slots=True)
class Bound:
    """assay.v1.Bound: a sum may be at most base + rate x doubt, all in 2^-20."""

    base: int
    rate: int

    def __post_init__(self) -> None:
        _check_fields(self)

    def is_within(self, value: int, doubt: int) -> bool:
        """`consensus.verdicts.is_within`."""
        return value * ONE <= self.base * ONE + self.rate * doubt


@dataclass(frozen=True, slots=True)
class Thresholds:
    """assay.v1.Thresholds without the fingerprint's tolerance."""

    mismatch_bound: Bound
    margin_max: int
    margin_bound: Bound
    distance_max: int
    distance_bound: Bound
    outside_bound: Bound

    def __post_init__(self) -> None:
        _check_fields(self)


def _check_fields(value: Bound | Thresholds) -> None:
    for name, number in asdict(value).items():
        if isinstance(number, dict):
            continue
        if type(number) is not int or not 0 <= number <= THRESHOLD_MAX:
            raise ValueError(f"{name} is {number!r}, must be an integer of 32 bits")


@dataclass(frozen=True, slots=True)
class Judgement:
    """Which evidence speaks against a result; each is a rule of its own."""

    margins: bool
    """Mismatches, margins, tokens that are no candidates: what no forger can forge."""
    distances: bool

    @property
    def registered(self) -> bool:
        """FAIL by the rule of consensus."""
        return self.margins or self.distances


def judge(scores: PrefixScores, thresholds: Thresholds) -> Judgement:
    """The verdict of `consensus.verdicts.judge`, in parts; counts and text are taken for right."""
    doubt = min(scores.doubt_sum, scores.positions * ONE)
    return Judgement(
        margins=scores.margin_max > thresholds.margin_max
        or not thresholds.mismatch_bound.is_within(scores.replay_mismatches * ONE, doubt)
        or not thresholds.margin_bound.is_within(scores.margin_sum, doubt)
        or not thresholds.outside_bound.is_within(scores.outside_candidates * ONE, doubt),
        distances=scores.distance_max > thresholds.distance_max
        or not thresholds.distance_bound.is_within(scores.distance_sum, doubt),
    )


def tail_bound(values: Sequence[int], tail_probability: float, tail: int | None = None) -> int:
    """What a value exceeds with this probability, by the tail of step 1 above, of so many values.

    Raises ValueError for fewer than FITTING_JOBS_MIN values.
    """
    count = len(values)
    if count < FITTING_JOBS_MIN:
        raise ValueError(f"{count} honest jobs are too few to fit, at least {FITTING_JOBS_MIN}")
    if not 0 < tail_probability < 1:
        raise ValueError(f"a tail probability of {tail_probability} is not between 0 and 1")
    ordered = sorted(values, reverse=True)
    if ordered[0] == ordered[-1]:
        return ordered[0]
    tail = min(tail or max(TAIL_MIN, count // TAIL_SHARE_JOBS), count - 1)
    start = ordered[tail]
    mean_excess = sum(value - start for value in ordered[:tail]) / tail
    cautious = mean_excess * (1 + NORMAL_JOINT / math.sqrt(tail))
    extrapolated = start + cautious * max(math.log(tail / (count * tail_probability)), 0.0)
    return max(ordered[0], math.ceil(extrapolated))


def fit_maximum(tokens: Sequence[np.ndarray], share: float) -> int:
    """Step 3, from each job's values."""
    values = np.concatenate(tokens).tolist()
    above_zero = sum(value > 0 for value in values)
    tail = max(min(len(values) // TAIL_SHARE_TOKENS, above_zero // 2), 1)
    return min(tail_bound(values, share / LONGEST_TOKENS, tail), MARGIN_CLIP)


def fit_nats(
    sums: Sequence[Sequence[int]],
    doubts: Sequence[Sequence[int]],
    tokens: Sequence[int],
    share: float,
) -> Bound:
    """Step 1, from each job's sums of margins or distances, and of doubt, up to each length, and
    from their lengths."""
    if not any(job[-1] for job in sums):
        return Bound(0, 0)
    rate = max(
        -(-job[-1] * ONE // max(doubt[-1], ONE))
        for job, doubt, length in zip(sums, doubts, tokens, strict=True)
        if length * LONG_SHARE >= max(tokens)
    )
    excesses = [
        max(-((rate * d - s * ONE) // ONE) for s, d in zip(job, doubt, strict=True))
        for job, doubt in zip(sums, doubts, strict=True)
    ]
    return Bound(max(tail_bound(excesses, share), 0), rate)


def fit_count(counts: Sequence[int], doubts: Sequence[int], share: float) -> Bound:
    """Step 2, from each job's count and doubt."""
    total = sum(counts)
    if not total:
        return Bound(0, 0)
    units = [doubt / ONE for doubt in doubts]
    mean = total / max(sum(units), 1 / ONE)
    scatter = sum((k - mean * d) ** 2 for k, d in zip(counts, units, strict=True)) / total
    rate = mean * (1 + NORMAL_JOINT / math.sqrt(total))
    longest = max(units)
    deviance = max(scatter, 1.0) * -math.log(share)
    bases = {c: deviance / lundberg_exponent(c) for c in RATE_FACTORS}
    factor = min(bases, key=lambda c: bases[c] + c * rate * longest)
    base = bases[factor]
    slope = math.ceil(factor * rate * ONE)
    seen = max(-((slope * d - k * ONE * ONE) // ONE) for k, d in zip(counts, doubts, strict=True))
    return Bound(max(math.ceil(base * ONE), seen), slope)


def lundberg_exponent(factor: float) -> float:
    """The t > 0 with exp(t) - 1 = factor t, for a factor above 1."""
    low, high = 0.0, 2 * math.log(factor) + 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if math.expm1(middle) < factor * middle else (low, middle)
    return low


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
    lengths: Sequence[int] = FITTED_LENGTHS,
    temperatures_milli: Sequence[int] = TEMPERATURES_MILLI,
) -> Thresholds:
    """Thresholds for honest jobs like these, asked at these temperatures.

    Raises ValueError for too few jobs.
    """
    if len(honest) < FITTING_JOBS_MIN:
        raise ValueError(
            f"{len(honest)} honest jobs are too few to fit, at least {FITTING_JOBS_MIN}"
        )
    share = budget / STATISTICS
    prefixes = [evidence.prefixes(lengths) for evidence in honest]
    wholes = [scores[-1] for scores in prefixes]
    doubts = [[s.doubt_sum for s in scores] for scores in prefixes]
    whole_doubts = [scores.doubt_sum for scores in wholes]
    tokens = [evidence.tokens for evidence in honest]
    margins = [[s.margin_sum for s in scores] for scores in prefixes]
    distances = [[s.distance_sum for s in scores] for scores in prefixes]
    fitted = Thresholds(
        mismatch_bound=fit_count([s.replay_mismatches for s in wholes], whole_doubts, share),
        margin_max=fit_maximum([e.margins for e in honest], share),
        margin_bound=fit_nats(margins, doubts, tokens, share),
        distance_max=fit_maximum([e.distances for e in honest], share),
        distance_bound=fit_nats(distances, doubts, tokens, share),
        outside_bound=fit_count([s.outside_candidates for s in wholes], whole_doubts, share),
    )
    if fitted.mismatch_bound.base or not fitted.distance_max:
        return fitted
    return _with_ties(fitted, len(honest), sum(whole_doubts), min_scale(temperatures_milli), share)


def min_scale(temperatures_milli: Sequence[int]) -> int:
    """The lowest temperature that scales logits up, in thousandths."""
    return min((t for t in temperatures_milli if 0 < t < MILLI), default=MILLI)


def _with_ties(
    fitted: Thresholds, jobs: int, doubt: int, lowest_milli: int, share: float
) -> Thresholds:
    """Steps 4 and 5."""
    tie = min(-(-2 * fitted.distance_max * MILLI // lowest_milli), MARGIN_CLIP)
    ties = count_bound(RULE_OF_THREE / jobs, share)
    rate = min(math.ceil(RULE_OF_THREE * ONE * ONE / max(doubt, 1)), ONE)
    margin_max = max(fitted.margin_max, tie)
    return replace(
        fitted,
        mismatch_bound=Bound(ties * ONE, rate),
        margin_max=margin_max,
        margin_bound=Bound(ties * margin_max, -(-rate * margin_max // ONE)),
    )
