"""Draws of a simulation: a hash of the seed and of what is drawn for.

A draw depends on its own words only, so the same job has the same fate whatever strategies are
compared on it.
"""

from dataclasses import dataclass

from chain.market_simulation.assumptions import MILLION
from ext.hashing import tagged_hash

SEED_BYTES = 8


@dataclass(frozen=True, slots=True)
class Chance:
    """All draws of one seed."""

    seed: int

    def digest(self, purpose: bytes, *words: bytes) -> bytes:
        """32 bytes that nothing else draws."""
        return tagged_hash(
            b"market-simulation", self.seed.to_bytes(SEED_BYTES, "little"), purpose, *words
        )

    def below(self, bound: int, purpose: bytes, *words: bytes) -> int:
        """An integer from 0 to `bound` - 1."""
        return int.from_bytes(self.digest(purpose, *words), "little") % bound

    def happens(self, share_ppm: int, purpose: bytes, *words: bytes) -> bool:
        """True in so many of a million cases."""
        return self.below(MILLION, purpose, *words) < share_ppm
