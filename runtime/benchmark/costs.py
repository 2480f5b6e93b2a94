"""Costs of one run, and how their ratios spread over the rounds."""

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

SIGNIFICANT_DIGITS: Final = 4
NINTH_TENTH: Final = 0.9


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one variant, or of one verification, in one round."""

    wall_s: float
    cpu_s: float
    tokens: int

    @property
    def wall_per_token_s(self) -> float:
        """Seconds on the clock for each output token."""
        return self.wall_s / self.tokens

    @property
    def cpu_per_token_s(self) -> float:
        """Processor seconds for each output token."""
        return self.cpu_s / self.tokens


@dataclass(frozen=True, slots=True)
class Spread:
    """Of one value over the rounds."""

    median: float
    least: float
    greatest: float
    rounds: int


def rounded(value: float) -> float:
    """To as many digits as a measurement here deserves."""
    if value == 0 or not math.isfinite(value):
        return value
    return round(value, SIGNIFICANT_DIGITS - 1 - math.floor(math.log10(abs(value))))


def spread(values: Iterable[float]) -> Spread:
    """Raises ValueError where there is no round."""
    found = [rounded(value) for value in values]
    if not found:
        raise ValueError("no rounds to summarise")
    return Spread(rounded(statistics.median(found)), min(found), max(found), len(found))


def ratios(costs: Sequence[Cost], bases: Sequence[Cost]) -> tuple[Spread, Spread]:
    """(wall, CPU) of a token over a token of the base, round by round."""
    pairs = list(zip(costs, bases, strict=True))
    wall = spread(a.wall_per_token_s / b.wall_per_token_s for a, b in pairs)
    cpu = spread(a.cpu_per_token_s / b.cpu_per_token_s for a, b in pairs)
    return wall, cpu


def quantile(values: Sequence[float], share: float) -> float:
    """The least value that at least this share of them does not exceed. Raises ValueError."""
    if not values:
        raise ValueError("no values")
    place = max(math.ceil(share * len(values)) - 1, 0)
    return sorted(values)[place]
