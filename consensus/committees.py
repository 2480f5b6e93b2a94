"""Drawing by lot from a beacon: committees, and the provider of a job.

A draw is a pure function of its seed and the candidates' weights, in integers, so that everybody
who has the beacon draws the same. The seed is a fresh hash for each purpose; nobody can choose it
who cannot choose the beacon.
"""

from collections.abc import Sequence

from ext.hashing import tagged_hash


def committee_seed(beacon: bytes, job: bytes, round_number: int) -> bytes:
    """The seed of one round's draw for one job."""
    return tagged_hash(b"committee", beacon, job, round_number.to_bytes(1, "little"))


def draw(seed: bytes, weights: Sequence[int], count: int) -> tuple[int, ...]:
    """Places of up to `count` distinct candidates, weighted, without replacement, in order drawn.

    The order of the weights is part of the function. A weight of 0 is never drawn. Raises
    ValueError for a negative one.

    A 256-bit number modulo the remaining weight (below 2^128) is biased by less than 2^-128.
    """
    if weights and min(weights) < 0:
        raise ValueError("a candidate has a negative weight")
    remaining = list(weights)
    total = sum(remaining)
    drawn: list[int] = []
    while total and len(drawn) < count:
        number = tagged_hash(b"draw", seed, len(drawn).to_bytes(4, "little"))
        point = int.from_bytes(number, "little") % total
        # The candidate whose stretch of the line of remaining weights holds the point.
        for place, weight in enumerate(remaining):
            if point < weight:
                drawn.append(place)
                total -= weight
                remaining[place] = 0
                break
            point -= weight
    return tuple(drawn)
