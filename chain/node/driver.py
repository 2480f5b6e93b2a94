"""Drives the consensus core: events in, effects out, in the order that safety needs.

One loop takes whatever events have come, steps the replica through them, and performs the effects.
What must be durable (own votes, batches, final blocks) is written and synced once a turn on the
disk thread; only then does anything of that turn leave for the peers. While the disk works, new
events gather, so that one sync serves many of them.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from chain.node.arrivals import Arrivals, Rounds
from chain.node.early import Early, epoch_of
from chain.node.recovery import Opened
from chain.node.traffic import Traffic
from chain.node.worker import check_payloads
from chain.store import Store
from consensus.events import (
    BatchChecked,
    Broadcast,
    CheckBatch,
    Compact,
    Deliver,
    Diverged,
    Effect,
    EpochEnded,
    Event,
    Finalized,
    LoadBatch,
    LoadBlocks,
    Misbehaviour,
    Persist,
    SealBatch,
    Send,
    Start,
    StoreBatch,
    Tick,
    WakeAt,
)
from consensus.lanes import BUFFERED_BATCHES_MAX, LANE_AHEAD_MAX
from consensus.messages import (
    BLOCKS_BYTES_MAX,
    BLOCKS_PER_MESSAGE_MAX,
    BatchMessage,
    Blocks,
    Message,
)
from consensus.values import BATCH_PAYLOAD_BYTES_MAX, ZERO_HASH
from consensus.wire import encode

EVENTS_PER_TURN = 256
TURN_BYTES_MAX = 1024 * 1024
"""Of messages stepped in one turn, and one more: urgent ones that come meanwhile wait for it."""
CHECKED_BYTES = 1024 * 1024
"""Of payloads checked at once, if so many wait, and one more: a client's request waits for them."""
ANSWERS_WAITING_MAX = 32
"""For one peer, which takes them one at a time; further ones are dropped, and asked for again.
Nothing else waits for them: two peers that hold answers for each other read on."""
UNPROVEN_BATCHES_MAX = BUFFERED_BATCHES_MAX
"""Own batches out for acks: peers buffer no more."""
NOT_FINAL_BATCHES_MAX = 256
"""Own batches above the final tip, 64 MiB of full ones: behind a slow chain clients wait, not
batches."""

T = TypeVar("T")


class DivergedError(Exception):
    """This validator's ledger is not the one that the others have."""


class Wires(Protocol):
    """The way to the other validators."""

    def send(self, peer: int, message: Message) -> None:
        """Queue a message for one peer."""

    def broadcast(self, message: Message) -> None:
        """Queue a message for all peers."""

    async def room(self, peer: int) -> None:
        """Return when another answer may be prepared for a peer, which has taken most of them."""


@dataclass(frozen=True, slots=True)
class Epochs:
    """What is told to whoever owns the driver."""

    seal_later: Callable[[bytes], None]
    """A payload that came too late for the epoch that ended."""
    begun: Callable[[Opened], None]
    """Each epoch after the one that the driver began with."""


ONE_EPOCH = Epochs(lambda payload: None, lambda opened: None)


@dataclass(slots=True)
class _Turn:
    """What one turn of the loop must write before it may speak."""

    records: list[bytes] = field(default_factory=list)
    batches: list[StoreBatch] = field(default_factory=list)
    finalized: list[Finalized | EpochEnded] = field(default_factory=list)
    compact: Compact | None = None
    deliveries: list[Deliver] = field(default_factory=list)
    outgoing: list[Send | Broadcast] = field(default_factory=list)


@dataclass(frozen=True, slots=True, eq=False)
class _Unchecked:
    """A batch that waits for its check, and how to count it off."""

    effect: CheckBatch
    done: Callable[[], None]


class Driver:
    """Owns a replica, its WAL, and the order of their effects."""

    def __init__(
        self,
        opened: Opened,
        chain_id: str,
        store: Store,
        wires: Wires,
        deliver: Callable[[Deliver | Misbehaviour], None],
        clock_ms: Callable[[], int],
        said: Callable[[Message], None] = lambda message: None,
        epochs: Epochs = ONE_EPOCH,
    ) -> None:
        """`said` is told what goes to all peers."""
        self.replica = opened.replica
        self.epoch = opened.epoch
        self._chain_id = chain_id
        self._store = store
        self._log = opened.log
        self._epochs = epochs
        self._prepare_next: Callable[[], Opened] | None = None
        self._early = Early()
        self._wires = wires
        self._deliver = deliver
        self._clock_ms = clock_ms
        self._said = said
        self._arrivals = Arrivals()
        self._arrivals.post(Start())
        self._wake_at_ms: int | None = None
        self._sealing = 0
        self._failure: BaseException | None = None
        self._disk = ThreadPoolExecutor(1, thread_name_prefix="disk")
        self._pipeline = ThreadPoolExecutor(1, thread_name_prefix="pipeline")
        self._checks: set[asyncio.Task[None]] = set()
        self._unchecked: Rounds[_Unchecked] = Rounds()
        self._checking = False
        self._turns: dict[int, asyncio.Lock] = {}
        self._answers: Counter[int] = Counter()
        """Under way or waiting, by peer."""

    @property
    def seal_room(self) -> int:
        """How many more payloads `seal` may be given now.

        The peers set the pace: a batch that they have no room for would be sent in vain, and what
        waits for them would hold up votes.
        """
        room = self.replica.lane_room
        not_final = LANE_AHEAD_MAX - room
        unproven = self.replica.lane_unproven
        allowed = min(room, UNPROVEN_BATCHES_MAX - unproven, NOT_FINAL_BATCHES_MAX - not_final)
        return max(0, allowed - self._sealing)

    def seal(self, payload: bytes) -> None:
        """Put a payload into the own lane; only while there is `seal_room`."""
        self._sealing += 1
        self.post(SealBatch(payload))

    def post(self, event: Event) -> None:
        """Queue an event of this node's own; from the event loop only."""
        self._arrivals.post(event)

    def succeed(self, prepare: Callable[[], Opened]) -> None:
        """Go on with what `prepare` makes, between two turns: the replica of the next epoch.

        It is called on the disk's thread, with all that the ended epoch wrote on disk.
        """
        self._prepare_next = prepare
        self._arrivals.wake()

    async def receive(self, peer: int, message: Message, size_bytes: int) -> None:
        """Queue a peer's message; returns when the peer may be read again on its stream.

        Until then its messages of this kind that were not stepped, and of bulk its batches that
        are being checked, stay above their bound.
        """
        if epoch_of(message) == self.epoch + 1:
            self._early.keep(peer, message, size_bytes)
        else:
            await self._arrivals.receive(peer, message, size_bytes)

    async def room(self, peer: int, traffic: Traffic) -> None:
        """Return when the peer may be read on this stream."""
        await self._arrivals.room(peer, traffic)

    async def in_pipeline(self, function: Callable[..., T], *arguments: object) -> T:
        """Run a function on the pipeline's thread."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._pipeline, function, *arguments)

    async def run(self) -> None:
        """Step until cancelled. An error here is a bug or a dead disk: the node must stop."""
        while True:
            await self._wait()
            if self._failure is not None:
                raise self._failure
            if self._prepare_next is not None:
                await self._begin_next(self._prepare_next)
            turn = self._step()
            await asyncio.sleep(0)  # where nothing is written, too: others want the event loop
            if turn.records or turn.batches or turn.finalized or turn.compact:
                loop = asyncio.get_running_loop()
                await loop.run_in_executor(self._disk, self._write, turn)
            for delivery in turn.deliveries:
                self._deliver(delivery)
            for message in turn.outgoing:
                if isinstance(message, Send):
                    self._wires.send(message.peer, message.message)
                else:
                    self._said(message.message)
                    self._wires.broadcast(message.message)

    async def _begin_next(self, prepare: Callable[[], Opened]) -> None:
        self._prepare_next = None
        opened = await asyncio.get_running_loop().run_in_executor(self._disk, prepare)
        self.replica, self._log, self.epoch = opened.replica, opened.log, opened.epoch
        self._wake_at_ms = None
        while (item := self._unchecked.take()) is not None:
            item.done()
        self._arrivals.begin_epoch()
        self._epochs.begun(opened)
        self._early.release(self._arrivals.put)

    def close(self) -> None:
        """Let the disk finish."""
        self._pipeline.shutdown(wait=True, cancel_futures=True)
        self._disk.shutdown(wait=True)

    def _step(self) -> _Turn:
        turn = _Turn()
        size_bytes = 0
        for _ in range(EVENTS_PER_TURN):
            arrived = self._arrivals.take()
            if arrived is None:
                break
            if isinstance(arrived.event, SealBatch):
                self._sealing -= 1
                if self.replica.lane_room == 0:  # it was given to the replica of an ended epoch
                    self._epochs.seal_later(arrived.event.payload)
                    continue
            for effect in self.replica.step(arrived.event, self._clock_ms()):
                self._perform(effect, turn)
            arrived.done()
            size_bytes += arrived.size_bytes
            if size_bytes > TURN_BYTES_MAX:
                break
        return turn

    def _ring(self) -> None:
        """Post a Tick if it is due: also to a replica that always has something to step."""
        if self._wake_at_ms is not None and self._clock_ms() >= self._wake_at_ms:
            self._wake_at_ms = None
            self.post(Tick())

    async def _wait(self) -> None:
        self._ring()
        while not (self._arrivals or self._failure or self._prepare_next):
            timeout_s = None
            if self._wake_at_ms is not None:
                timeout_s = max(0.0, (self._wake_at_ms - self._clock_ms()) / 1000)
            try:
                async with asyncio.timeout(timeout_s):
                    await self._arrivals.changed()
            except TimeoutError:
                self._ring()

    def _perform(self, effect: Effect, turn: _Turn) -> None:
        match effect:
            case Persist():
                turn.records.append(effect.record)
            case Compact():
                turn.compact = effect
                turn.records.clear()
            case StoreBatch():
                turn.batches.append(effect)
            case Finalized() | EpochEnded():
                turn.finalized.append(effect)
            case Send() | Broadcast():
                turn.outgoing.append(effect)
            case CheckBatch():
                done = self._arrivals.hold(effect.peer, len(effect.batch.payload))
                self._unchecked.put(effect.peer, _Unchecked(effect, done))
                if not self._checking:
                    self._checking = True
                    self._start(self._check())
            case Deliver():
                turn.deliveries.append(effect)
            case WakeAt():
                self._wake_at_ms = effect.at_ms
            case LoadBlocks():
                self._answer(effect.peer, lambda: self._serve_blocks(effect))
            case LoadBatch():
                self._answer(effect.peer, lambda: self._serve_batches(effect))
            case Diverged():
                raise DivergedError(
                    f"execution of height {effect.height} gave {effect.own_root.hex()} here, but "
                    f"a quorum vouches for {effect.final_root.hex()}: this validator must not go "
                    "on; keep its home for study, and restore from a snapshot or from genesis"
                )
            case Misbehaviour():
                self._deliver(effect)

    def _write(self, turn: _Turn) -> None:
        for index, item in enumerate(turn.batches, 1):
            self._store.put_batch(item.batch, sync=index == len(turn.batches))
        for ended in turn.finalized:
            if isinstance(ended, EpochEnded):  # before its block: who has that has this
                self._store.put_boundary(ended.boundary)
        for finalized in turn.finalized:
            if isinstance(finalized, EpochEnded):
                continue
            self._store.put_final_blocks(
                [(final.block, final.beacon) for final in finalized.blocks], finalized.certificate
            )
        if self._log is None:  # an observer promises nothing
            return
        if turn.compact is not None:
            self._log.compact(turn.compact.records)
        for record in turn.records:
            self._log.append(record)
        self._log.flush()

    def _answer(self, peer: int, serve: Callable[[], Coroutine[None, None, None]]) -> None:
        """Begin an answer to a peer, unless enough of them wait for it."""
        if self._answers[peer] >= ANSWERS_WAITING_MAX:
            return
        self._answers[peer] += 1
        self._start(serve()).add_done_callback(lambda _: self._answers.subtract((peer,)))

    def _start(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._checks.add(task)
        task.add_done_callback(self._finished)
        return task

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._checks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            self._failure = task.exception()
            self._arrivals.wake()

    async def _check(self) -> None:
        """Check all batches that wait, and those that come meanwhile."""
        while waiting := self._next_unchecked():
            batches = [item.effect.batch for item in waiting]
            verdicts = await self.in_pipeline(check_payloads, self._chain_id, batches)
            for item, valid in zip(waiting, verdicts, strict=True):
                digest = item.effect.batch.header.digest()
                self.post(BatchChecked(item.effect.peer, digest, valid))
                item.done()
        self._checking = False

    def _next_unchecked(self) -> list[_Unchecked]:
        """Batches to be checked at once, one of each peer in turn."""
        waiting: list[_Unchecked] = []
        size_bytes = 0
        while size_bytes < CHECKED_BYTES and (item := self._unchecked.take()) is not None:
            waiting.append(item)
            size_bytes += len(item.effect.batch.payload)
        return waiting

    @asynccontextmanager
    async def _answering(self, peer: int) -> AsyncIterator[None]:
        """One answer to a peer at a time, once it has taken most of those before."""
        async with self._turns.setdefault(peer, asyncio.Lock()):
            await self._wires.room(peer)
            yield

    async def _serve_blocks(self, effect: LoadBlocks) -> None:
        async with self._answering(effect.peer):
            message = await self.in_pipeline(self._load_blocks, effect)
            if message is not None:
                self._wires.send(effect.peer, message)

    def _load_blocks(self, effect: LoadBlocks) -> Blocks | None:
        """From the asked height to the last block in bounds that has a certificate of its own, or
        ends the epoch."""
        found_blocks = self._store.final_blocks_from(effect.from_height, BLOCKS_PER_MESSAGE_MAX)
        blocks = [block for block in found_blocks if block.epoch == found_blocks[0].epoch]
        size = 0
        for count, block in enumerate(blocks):
            size += len(encode(block))
            if size > BLOCKS_BYTES_MAX:
                blocks = blocks[:count]
                break
        if blocks and blocks[-1].next_validators != ZERO_HASH:
            boundary = self._store.boundary(blocks[-1].epoch)
            if boundary is not None:
                return Blocks(tuple(blocks), boundary.certificate, boundary.descendants)
        while blocks:
            found = self._store.certificate_at(blocks[-1].height)
            if found is not None and found[0] == blocks[-1].height:
                return Blocks(tuple(blocks), found[1])
            blocks.pop()
        return None

    async def _serve_batches(self, effect: LoadBatch) -> None:
        async with self._answering(effect.peer):
            for message in await self.in_pipeline(self._load_batches, effect):
                self._wires.send(effect.peer, message)

    def _load_batches(self, effect: LoadBatch) -> list[BatchMessage]:
        """The asked batch and its ancestors, within the bounds."""
        messages: list[BatchMessage] = []
        size = 0
        digest = effect.digest
        while len(messages) < effect.count:
            batch = self._store.batch_by_digest(digest)
            if batch is None:
                break
            size += len(batch.payload)
            if messages and size > BATCH_PAYLOAD_BYTES_MAX:
                break
            messages.append(BatchMessage(batch, None))
            digest = batch.header.parent
        return messages
