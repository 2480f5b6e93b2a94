"""A disk in memory that can lose power, be slow, and run full.

Power may be lost at any write; then everything unsynced is gone or torn, and what is left of it
may have flipped bits.
"""

import errno
from dataclasses import dataclass, field
from random import Random
from typing import Final

from consensus.epochs import EpochBoundary
from consensus.events import FinalBlock
from consensus.values import Batch, Certificate

FLIP_SHARE: Final = 0.3
"""How often a torn tail has a flipped bit, too."""


class PowerLost(Exception):
    """The simulated machine stopped within a write."""


@dataclass(slots=True)
class _File:
    durable: bytearray = field(default_factory=bytearray)
    unsynced: bytearray = field(default_factory=bytearray)


@dataclass(slots=True)
class Store:
    """What a node keeps beside the log: blocks, batches, and how far it executed."""

    batches: dict[bytes, Batch] = field(default_factory=dict)
    blocks: dict[int, tuple[FinalBlock, Certificate | None]] = field(default_factory=dict)
    boundaries: dict[int, EpochBoundary] = field(default_factory=dict)
    """Ends of epochs, by epoch."""
    roots: dict[int, bytes] = field(default_factory=dict)
    verdicts: dict[tuple[int, bytes], tuple[int, bytes]] = field(default_factory=dict)
    """(lane, job) -> height and verdict of the lane's first attestation on the job."""


class Disk:
    """Implements `consensus.wal.Directory`, and holds the store."""

    def __init__(self, random: Random, slow_ms_max: int = 0) -> None:
        self._random = random
        self.slow_ms_max = slow_ms_max
        """How long a sync may take."""
        self._files: dict[str, _File] = {}
        self._staged_batches: dict[bytes, Batch] = {}
        self._staged_blocks: dict[int, tuple[FinalBlock, Certificate | None]] = {}
        self._staged_boundaries: dict[int, EpochBoundary] = {}
        self.store = Store()
        self.writes_until_power_loss: int | None = None
        self.full = False
        self.stalled_ms = 0
        """How long syncs have taken since somebody last set this to 0."""

    def read(self, name: str) -> bytes | None:
        """See `Directory`."""
        file = self._files.get(name)
        return None if file is None else bytes(file.durable + file.unsynced)

    def append(self, name: str, data: bytes) -> None:
        """See `Directory`."""
        file = self._files.setdefault(name, _File())
        if self.full:
            file.unsynced += data[: self._random.randint(0, len(data))]
            raise OSError(errno.ENOSPC, "no space left on the simulated device")
        file.unsynced += data
        self._write_point()

    def sync(self, name: str) -> None:
        """See `Directory`."""
        self._write_point()
        self._stall()
        file = self._files[name]
        file.durable += file.unsynced
        file.unsynced.clear()

    def truncate(self, name: str, size: int) -> None:
        """See `Directory`."""
        self._write_point()
        file = self._files[name]
        file.durable = (file.durable + file.unsynced)[:size]
        file.unsynced.clear()

    def replace(self, name: str, data: bytes) -> None:
        """See `Directory`."""
        self._refuse_if_full()
        self._write_point()
        self._stall()
        self._files[name] = _File(durable=bytearray(data))
        self._write_point()

    def lose(self, name: str) -> None:
        """A file is gone."""
        self._files.pop(name, None)

    def restore(self, name: str, data: bytes) -> None:
        """Somebody puts a file back."""
        self._files[name] = _File(durable=bytearray(data))

    def durable(self, name: str) -> bytes | bytearray:
        """What a crash now would leave for sure."""
        file = self._files.get(name)
        return b"" if file is None else file.durable

    def stage_batch(self, batch: Batch) -> None:
        """Write a batch, not synced yet."""
        self._staged_batches[batch.header.digest()] = batch

    def stage_block(self, block: FinalBlock, certificate: Certificate | None) -> None:
        """Write a final block, not synced yet."""
        self._staged_blocks[block.block.height] = (block, certificate)

    def stage_boundary(self, boundary: EpochBoundary) -> None:
        """Write the end of an epoch, synced with its last block."""
        self._staged_boundaries[boundary.block.epoch] = boundary

    def find_boundary(self, epoch: int) -> EpochBoundary | None:
        """The end of an epoch, synced or not."""
        return self._staged_boundaries.get(epoch) or self.store.boundaries.get(epoch)

    def find_batch(self, digest: bytes) -> Batch | None:
        """A batch, synced or not."""
        return self._staged_batches.get(digest) or self.store.batches.get(digest)

    def find_block(self, height: int) -> tuple[FinalBlock, Certificate | None] | None:
        """A block, synced or not."""
        return self._staged_blocks.get(height) or self.store.blocks.get(height)

    def commit_store(self) -> None:
        """Sync batches and blocks, as one atomic write."""
        if self._staged_batches or self._staged_blocks:
            self._refuse_if_full()
            self._write_point()
            self._stall()
            self.store.batches.update(self._staged_batches)
            self.store.blocks.update(self._staged_blocks)
            self.store.boundaries.update(self._staged_boundaries)
            self._staged_batches.clear()
            self._staged_blocks.clear()
            self._staged_boundaries.clear()

    def lose_power(self) -> None:
        """Keep what was synced, and of each file a random piece of the rest."""
        self._staged_batches.clear()
        self._staged_blocks.clear()
        self._staged_boundaries.clear()
        self.writes_until_power_loss = None
        for file in self._files.values():
            # Nothing of it, all of it, or a piece.
            size = len(file.unsynced)
            torn = file.unsynced[: self._random.choice((0, size, self._random.randint(0, size)))]
            if torn and self._random.random() < FLIP_SHARE:
                torn[self._random.randrange(len(torn))] ^= 1 << self._random.randrange(8)
            file.durable += torn
            file.unsynced.clear()

    def _refuse_if_full(self) -> None:
        if self.full:
            raise OSError(errno.ENOSPC, "no space left on the simulated device")

    def _stall(self) -> None:
        if self.slow_ms_max:
            self.stalled_ms += self._random.randint(0, self.slow_ms_max)

    def _write_point(self) -> None:
        if self.writes_until_power_loss is not None:
            self.writes_until_power_loss -= 1
            if self.writes_until_power_loss <= 0:
                raise PowerLost
