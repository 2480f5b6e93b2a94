"""Who is a validator when: the sets of a world, epoch by epoch, and everybody's keys.

Without epochs a world has one set, of all its machines. With them the first `len(stakes)` ids are
the first set and two more wait; from then on, every epoch, somebody waiting takes a member's seat,
somebody's stake changes, and somebody's keys do. All of it follows from the seed: what a ledger
would say. The Byzantine hold less than a third of the stake of every set.
"""

from dataclasses import dataclass, field, replace
from random import Random
from typing import Final

from consensus.epochs import last_height
from consensus.events import Signer
from consensus.sim.crypto import make_member
from consensus.sim.scenario import Scenario
from consensus.values import Validator, ValidatorSet

WAITING: Final = 2
"""Ids beyond those of the first set."""
_ATTEMPTS_MAX: Final = 1_000
_STAKES: Final = (1, 1, 2, 3)


@dataclass(slots=True)
class _Epoch:
    """One epoch's members: id -> stake, and how often each id has changed its keys by then."""

    stakes: dict[int, int]
    rotations: dict[int, int]


@dataclass
class Calendar:
    """The sets of one world."""

    scenario: Scenario
    _epochs: list[_Epoch] = field(default_factory=list)
    _sets: dict[int, ValidatorSet] = field(default_factory=dict)
    _signers: dict[tuple[int, int], tuple[Signer, Validator]] = field(default_factory=dict)

    @property
    def ids(self) -> range:
        """Everybody who ever is a member."""
        return range(len(self.scenario.stakes) + (WAITING if self.scenario.epoch_blocks else 0))

    def last_height(self, epoch: int) -> int | None:
        """Of an epoch; None if it lasts for ever."""
        return last_height(epoch, self.scenario.epoch_blocks)

    def epoch_of(self, height: int) -> int:
        """The epoch of the block at a height above 0."""
        blocks = self.scenario.epoch_blocks
        return (height - 1) // blocks if blocks else 0

    def validators(self, epoch: int) -> ValidatorSet:
        """The set of an epoch."""
        if epoch not in self._sets:
            stakes = self._epoch(epoch).stakes
            members = tuple(
                replace(self._keys(epoch, index)[1], stake=stakes[index])
                for index in sorted(stakes)
            )
            self._sets[epoch] = ValidatorSet(epoch, members)
        return self._sets[epoch]

    def signer(self, epoch: int, index: int) -> Signer:
        """The keys that an id signs with in an epoch."""
        return self._keys(epoch, index)[0]

    def _keys(self, epoch: int, index: int) -> tuple[Signer, Validator]:
        rotation = self._epoch(epoch).rotations.get(index, 0)
        if (index, rotation) not in self._signers:
            made = make_member(index, rotation, self.scenario.real_crypto)
            self._signers[index, rotation] = made
        return self._signers[index, rotation]

    def _epoch(self, epoch: int) -> _Epoch:
        if not self._epochs:
            self._epochs.append(_Epoch(dict(enumerate(self.scenario.stakes)), {}))
        while len(self._epochs) <= epoch:
            self._epochs.append(self._after(len(self._epochs), self._epochs[-1]))
        return self._epochs[epoch]

    def _after(self, epoch: int, before: _Epoch) -> _Epoch:
        """Draw until the Byzantine hold less than a third."""
        random = Random(f"epoch {self.scenario.seed} {epoch}")
        for _ in range(_ATTEMPTS_MAX):
            stakes = dict(before.stakes)
            leaves = random.choice(sorted(stakes))
            joins = random.choice([index for index in self.ids if index not in stakes])
            del stakes[leaves]
            stakes[joins] = random.choice(_STAKES)
            stakes[random.choice(sorted(stakes))] = random.choice(_STAKES)
            rotations = dict(before.rotations)
            turns = random.choice(sorted(stakes))
            rotations[turns] = rotations.get(turns, 0) + 1
            byzantine = sum(stakes.get(index, 0) for index, _ in self.scenario.byzantine)
            if 3 * byzantine < sum(stakes.values()):
                return _Epoch(stakes, rotations)
        raise RuntimeError("no set bears the Byzantine validators of this world: this is a bug")
