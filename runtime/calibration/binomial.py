"""Exact confidence bounds for shares (Clopper and Pearson), without a statistics library."""

import math

CONFIDENCE = 0.95
_HALVINGS = 60


def _log_choose(trials: int, hits: int) -> float:
    return math.lgamma(trials + 1) - math.lgamma(hits + 1) - math.lgamma(trials - hits + 1)


def at_most(hits: int, trials: int, share: float) -> float:
    """Probability of at most so many hits when each trial hits with this share."""
    if share <= 0:
        return 1.0
    if share >= 1:
        return 1.0 if hits >= trials else 0.0
    return min(
        math.fsum(
            math.exp(
                _log_choose(trials, k) + k * math.log(share) + (trials - k) * math.log1p(-share)
            )
            for k in range(hits + 1)
        ),
        1.0,
    )


def upper_share(hits: int, trials: int, confidence: float = CONFIDENCE) -> float:
    """One-sided upper bound of the share; about 3 / trials when nothing was hit."""
    if not 0 <= hits <= trials:
        raise ValueError(f"{hits} hits in {trials} trials")
    if hits == trials:
        return 1.0
    low, high = hits / trials, 1.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if at_most(hits, trials, middle) > 1 - confidence:
            low = middle
        else:
            high = middle
    return high


def lower_share(hits: int, trials: int, confidence: float = CONFIDENCE) -> float:
    """One-sided lower bound of the share."""
    return 1.0 - upper_share(trials - hits, trials, confidence)
