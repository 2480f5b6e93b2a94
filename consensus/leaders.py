"""Who leads which view: round robin by stake, in an order that the epoch's seed shuffles."""

from math import gcd
from typing import Final

from consensus.values import ValidatorSet
from ext.hashing import tagged_hash

SLOTS_MAX: Final = 1_024
"""Length bound of one round; stakes that need more are rounded, never below one turn."""


class LeaderSchedule:
    """The leaders of one epoch's views, the same for everyone."""

    def __init__(self, validators: ValidatorSet, seed: bytes) -> None:
        """`seed` is the epoch's: the genesis digest for epoch 0."""
        order = _order(validators, seed)
        places = _spread(_turns(validators), order)
        self._round = tuple(validators.members[place].index for place in places)

    def leader(self, view: int) -> int:
        """Id of the leader of `view` (from 1)."""
        return self._round[(view - 1) % len(self._round)]


def _turns(validators: ValidatorSet) -> list[int]:
    """Turns a round of each validator, in proportion to its stake, in lowest terms if they fit."""
    stakes = [member.stake for member in validators.members]
    divisor = gcd(*stakes)
    turns = [stake // divisor for stake in stakes]
    if sum(turns) <= SLOTS_MAX:
        return turns
    slots = SLOTS_MAX - len(stakes)
    return [1 + stake * slots // validators.stake_total for stake in stakes]


def _order(validators: ValidatorSet, seed: bytes) -> list[int]:
    """Places in the set, shuffled."""

    def rank(place: int) -> bytes:
        index = validators.members[place].index
        return tagged_hash(b"leader-order", seed, index.to_bytes(2, "little"))

    return sorted(range(len(validators.members)), key=rank)


def _spread(turns: list[int], order: list[int]) -> tuple[int, ...]:
    """One round in which each validator's turns lie as far apart as they can.

    Each step everyone gains its turns as credit, the richest leads and pays a round's worth.
    """
    total = sum(turns)
    credit = [0] * len(turns)
    slots = []
    for _ in range(total):
        for index in order:
            credit[index] += turns[index]
        chosen = max(order, key=credit.__getitem__)
        credit[chosen] -= total
        slots.append(chosen)
    return tuple(slots)
