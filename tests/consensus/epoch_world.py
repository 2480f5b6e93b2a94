"""Replicas that go through epochs together, in virtual time over links that lose and delay.

Each executes at once what is delivered; the set of each epoch is prescribed.
"""

import heapq
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from random import Random

from consensus.epochs import EpochBoundary
from consensus.events import (
    BatchChecked,
    Broadcast,
    CheckBatch,
    Deliver,
    Effect,
    EpochEnded,
    Event,
    Executed,
    FinalBlock,
    Finalized,
    LoadBatch,
    LoadBlocks,
    MessageReceived,
    PeerConnected,
    Recovered,
    ReplicaConfig,
    SealBatch,
    Send,
    Signer,
    Start,
    StoreBatch,
    Tick,
    Timing,
    WakeAt,
)
from consensus.messages import BLOCKS_PER_MESSAGE_MAX, BatchMessage, Blocks, Message
from consensus.replica import Replica
from consensus.sim.crypto import make_validators
from consensus.values import Batch, Block, Certificate, Validator, ValidatorSet
from ext.hashing import sha256

CHAIN_ID = "epochs"
GENESIS = sha256(b"genesis of epochs")
TIMING = Timing(block_interval_ms=20, heartbeat_ms=200)
DELAY_MS = 10
POOL = 10
EVERYBODY, SIGNERS, CHECKS = make_validators((100,) * POOL, real=False)
START_MS = 1_000_000


def members(epoch: int, *ids: int, stake: int = 100) -> ValidatorSet:
    """A set of some of the pool."""
    chosen = (EVERYBODY.members[index] for index in ids)
    return ValidatorSet(
        epoch, tuple(Validator(m.index, m.signing_key, m.vrf_key, m.account, stake) for m in chosen)
    )


@dataclass
class Machine:
    """One validator, or who will be one, and its disk."""

    index: int
    replica: Replica | None = None
    blocks: list[tuple[FinalBlock, Certificate | None]] = field(default_factory=list)
    boundaries: list[EpochBoundary] = field(default_factory=list)
    batches: dict[bytes, Batch] = field(default_factory=dict)
    payloads: list[bytes] = field(default_factory=list)
    """Executed, in order."""
    roots: list[tuple[int, bytes]] = field(default_factory=list)
    deaf: bool = False

    @property
    def height(self) -> int:
        return len(self.roots)


class World:
    """The machines, and the messages between them."""

    def __init__(
        self,
        sets: Callable[[int], ValidatorSet],
        epoch_blocks: int,
        seed: int = 1,
        loss: float = 0.0,
    ) -> None:
        self.machines = [Machine(index) for index in range(POOL)]
        self.now_ms = START_MS
        self.dropped: Callable[[int, int, Message], bool] = lambda sender, to, message: False
        self._sets = sets
        self._epoch_blocks = epoch_blocks
        self._random = Random(seed)
        self._loss = loss
        self._queue: list[tuple[int, int, int, Event, int]] = []
        self._serial = count()
        for machine in self.machines:
            self._begin(machine, 0)

    def run_until(self, holds: Callable[[], bool], bound_ms: int = 120_000) -> None:
        """Let time pass. Raises AssertionError if it never comes."""
        end_ms = self.now_ms + bound_ms
        while not holds():
            assert self._queue, "nothing will ever happen"
            at_ms, _, index, event, epoch = heapq.heappop(self._queue)
            assert at_ms < end_ms, [(m.index, m.height) for m in self.machines]
            self.now_ms = max(self.now_ms, at_ms)
            machine = self.machines[index]
            replica = machine.replica
            if replica is None or (isinstance(event, Tick | Executed) and epoch != replica.epoch):
                continue
            self._step(machine, event)

    def seal(self, index: int, payload: bytes) -> None:
        """Into a machine's lane."""
        self._step(self.machines[index], SealBatch(payload))

    def _begin(self, machine: Machine, epoch: int) -> None:
        root = machine.blocks[-1][0] if epoch else None
        own = self._sets(epoch)
        signer: Signer | None = SIGNERS[machine.index]
        if machine.index not in own.by_index:
            signer = None
        config = ReplicaConfig(
            chain_id=CHAIN_ID,
            genesis_digest=GENESIS,
            genesis_timestamp_ms=START_MS - 1,
            genesis_execution_root=GENESIS,
            validators=own,
            own_index=None if signer is None else machine.index,
            timing=TIMING,
            epoch_blocks=self._epoch_blocks,
            root=root,
            next_validators=self._sets(epoch + 1),
        )
        recovered = Recovered(executed=tuple(machine.roots[-256:]))
        machine.replica = Replica.recover(config, signer, recovered, self.now_ms, CHECKS)
        self._step(machine, Start())
        for other in self.machines:
            if other is not machine:
                self._step(machine, PeerConnected(other.index))

    def _step(self, machine: Machine, event: Event) -> None:
        assert machine.replica is not None
        for effect in machine.replica.step(event, self.now_ms):
            self._perform(machine, effect)

    def _perform(self, machine: Machine, effect: Effect) -> None:
        match effect:
            case Send():
                self._send(machine.index, effect.peer, effect.message)
            case Broadcast():
                for other in self.machines:
                    if other is not machine:
                        self._send(machine.index, other.index, effect.message)
            case WakeAt():
                self._put(effect.at_ms, machine, Tick())
            case StoreBatch():
                machine.batches[effect.batch.header.digest()] = effect.batch
            case CheckBatch():
                checked = BatchChecked(effect.peer, effect.batch.header.digest(), True)
                self._put(self.now_ms, machine, checked)
            case Finalized():
                for final in effect.blocks:
                    assert final.block.height == len(machine.blocks) + 1
                    last = final is effect.blocks[-1]
                    machine.blocks.append((final, effect.certificate if last else None))
            case EpochEnded():
                machine.boundaries.append(effect.boundary)
            case Deliver():
                self._execute(machine, effect)
            case LoadBlocks() | LoadBatch():
                self._serve(machine, effect)

    def _execute(self, machine: Machine, deliver: Deliver) -> None:
        below = machine.roots[-1][1] if machine.roots else GENESIS
        for increment in deliver.increments:
            machine.payloads += [machine.batches[digest].payload for digest in increment.digests]
        height = deliver.block.height
        assert height == machine.height + 1
        machine.roots.append((height, sha256(below + deliver.block.digest())))
        if height % self._epoch_blocks:
            self._put(self.now_ms, machine, Executed(*machine.roots[-1]))
        else:
            self._begin_later(machine, height // self._epoch_blocks)

    def _begin_later(self, machine: Machine, epoch: int) -> None:
        """What is left of the step under way comes of the ended epoch."""
        assert len(machine.boundaries) == epoch
        self._begin(machine, epoch)

    def _serve(self, machine: Machine, effect: LoadBlocks | LoadBatch) -> None:
        if isinstance(effect, LoadBatch):
            batch = machine.batches.get(effect.digest)
            if batch is not None:
                self._send(machine.index, effect.peer, BatchMessage(batch, None))
            return
        found = machine.blocks[effect.from_height - 1 :][:BLOCKS_PER_MESSAGE_MAX]
        epoch = found[0][0].block.epoch
        found = [item for item in found if item[0].block.epoch == epoch]
        while found:
            final, certificate = found[-1]
            fillers: tuple[Block, ...] = ()
            if final.block.height % self._epoch_blocks == 0:
                boundary = machine.boundaries[final.block.epoch]
                certificate, fillers = boundary.certificate, boundary.descendants
            if certificate is not None:
                blocks = tuple(item[0].block for item in found)
                self._send(machine.index, effect.peer, Blocks(blocks, certificate, fillers))
                return
            found.pop()

    def _send(self, sender: int, to: int, message: Message) -> None:
        lost = self._random.random() < self._loss or self.machines[to].deaf
        if not lost and not self.machines[sender].deaf and not self.dropped(sender, to, message):
            delay_ms = self._random.randrange(1, 2 * DELAY_MS)
            event = MessageReceived(sender, message)
            self._put(self.now_ms + delay_ms, self.machines[to], event)

    def _put(self, at_ms: int, machine: Machine, event: Event) -> None:
        epoch = machine.replica.epoch if machine.replica is not None else 0
        entry = (at_ms, next(self._serial), machine.index, event, epoch)
        heapq.heappush(self._queue, entry)
