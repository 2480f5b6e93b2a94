"""Drawing by lot from a beacon: committees, and the provider of a job.

A draw is a pure function of its seed and the candidates' weights, in integers, so that everybody
who has the beacon draws the same. The seed is a fresh hash for each purpose; nobody can choose it
who cannot choose the beacon.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from ext.hashing import tagged_hash


@dataclass(frozen=True, slots=True)
class Candidate:
    """One who may be drawn. A weight of 0 is never drawn."""

    index: int
    weight: int


def committee_seed(beacon: bytes, job: bytes, round_number: int) -> bytes:
    """The seed of one round's draw for one job."""
    return tagged_hash(b"committee", beacon, job, round_number.to_bytes(1, "little"))


def draw(seed: bytes, candidates: Sequence[Candidate], count: int) -> tuple[int, ...]:
    """Indices of up to `count` distinct candidates, weighted, without replacement, in order drawn.

    The order of `candidates` is part of the function: callers pass them in order of index. Raises
    ValueError for a negative weight or an index that occurs twice.
    """
    if len({candidate.index for candidate in candidates}) != len(candidates):
        raise ValueError("a candidate occurs twice")
    weights = [candidate.weight for candidate in candidates]
    return tuple([candidates[place].index for place in draw_places(seed, weights, count)])


def draw_places(seed: bytes, weights: Sequence[int], count: int) -> tuple[int, ...]:
    """`draw` for candidates that have no name but their place.

    A 256-bit number modulo the remaining weight (below 2^128) is biased by less than 2^-128.
    """
    remaining = [place for place, weight in enumerate(weights) if weight]
    if remaining and min(weights) < 0:
        raise ValueError("a candidate has a negative weight")
    drawn: list[int] = []
    total = sum(weights)
    while remaining and len(drawn) < count:
        number = tagged_hash(b"draw", seed, len(drawn).to_bytes(4, "little"))
        chosen = _pick(weights, remaining, int.from_bytes(number, "little") % total)
        remaining.remove(chosen)
        total -= weights[chosen]
        drawn.append(chosen)
    return tuple(drawn)


def _pick(weights: Sequence[int], remaining: Sequence[int], point: int) -> int:
    """The place whose stretch of the remaining weight line holds `point`."""
    for place in remaining:
        if point < weights[place]:
            return place
        point -= weights[place]
    raise ValueError(f"the point lies {point} beyond the total weight")
