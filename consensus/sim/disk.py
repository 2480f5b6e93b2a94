"""A disk in memory that can lose power: at any write, with everything unsynced gone or torn."""

from dataclasses import dataclass, field
from random import Random

from consensus.events import FinalBlock
from consensus.values import Batch, Certificate


class PowerLost(Exception):
    """The simulated machine stopped within a write."""


@dataclass(slots=True)
class _File:
    durable: bytes = b""
    unsynced: bytes = b""


@dataclass(slots=True)
class Store:
    """What a node keeps beside the log: blocks, batches, and how far it executed."""

    batches: dict[bytes, Batch] = field(default_factory=dict)
    blocks: dict[int, tuple[FinalBlock, Certificate | None]] = field(default_factory=dict)
    roots: dict[int, bytes] = field(default_factory=dict)


class Disk:
    """Implements `consensus.wal.Directory`, and holds the store."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self._files: dict[str, _File] = {}
        self._staged_batches: dict[bytes, Batch] = {}
        self._staged_blocks: dict[int, tuple[FinalBlock, Certificate | None]] = {}
        self.store = Store()
        self.writes_until_power_loss: int | None = None

    def read(self, name: str) -> bytes | None:
        """See `Directory`."""
        file = self._files.get(name)
        return None if file is None else file.durable + file.unsynced

    def append(self, name: str, data: bytes) -> None:
        """See `Directory`."""
        self._files.setdefault(name, _File()).unsynced += data
        self._write_point()

    def sync(self, name: str) -> None:
        """See `Directory`."""
        self._write_point()
        file = self._files[name]
        file.durable += file.unsynced
        file.unsynced = b""

    def truncate(self, name: str, size: int) -> None:
        """See `Directory`."""
        self._write_point()
        file = self._files[name]
        file.durable = (file.durable + file.unsynced)[:size]
        file.unsynced = b""

    def replace(self, name: str, data: bytes) -> None:
        """See `Directory`."""
        self._write_point()
        self._files[name] = _File(durable=data)
        self._write_point()

    def durable(self, name: str) -> bytes:
        """What a crash now would leave for sure."""
        file = self._files.get(name)
        return b"" if file is None else file.durable

    def stage_batch(self, batch: Batch) -> None:
        """Write a batch, not synced yet."""
        self._staged_batches[batch.header.digest()] = batch

    def stage_block(self, block: FinalBlock, certificate: Certificate | None) -> None:
        """Write a final block, not synced yet."""
        self._staged_blocks[block.block.height] = (block, certificate)

    def find_batch(self, digest: bytes) -> Batch | None:
        """A batch, synced or not."""
        return self._staged_batches.get(digest) or self.store.batches.get(digest)

    def find_block(self, height: int) -> tuple[FinalBlock, Certificate | None] | None:
        """A block, synced or not."""
        return self._staged_blocks.get(height) or self.store.blocks.get(height)

    def commit_store(self) -> None:
        """Sync batches and blocks, as one atomic write."""
        if self._staged_batches or self._staged_blocks:
            self._write_point()
            self.store.batches.update(self._staged_batches)
            self.store.blocks.update(self._staged_blocks)
            self._staged_batches.clear()
            self._staged_blocks.clear()

    def lose_power(self) -> None:
        """Keep what was synced, and of each file a random piece of the rest."""
        self._staged_batches.clear()
        self._staged_blocks.clear()
        self.writes_until_power_loss = None
        for file in self._files.values():
            torn = file.unsynced[: self._random.randint(0, len(file.unsynced))]
            if torn and self._random.random() < 0.3:
                torn = torn[:-1] + bytes((torn[-1] ^ 1,))
            file.durable += torn
            file.unsynced = b""

    def _write_point(self) -> None:
        if self.writes_until_power_loss is not None:
            self.writes_until_power_loss -= 1
            if self.writes_until_power_loss <= 0:
                raise PowerLost
