"""One simulated machine: replica, log, store, execution. What a node does, in small."""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final, Protocol

from consensus.certificates import Checks
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
    Executed,
    Finalized,
    LoadBatch,
    LoadBlocks,
    Misbehaviour,
    Persist,
    Recovered,
    ReplicaConfig,
    SealBatch,
    Send,
    Start,
    StoreBatch,
    WakeAt,
)
from consensus.journal import FORGOTTEN, carried, encode_record
from consensus.messages import BatchMessage, Blocks, Message
from consensus.replica import COMPACT_AFTER_RECORDS, Replica
from consensus.sim.byzantine import Liar
from consensus.sim.disk import Disk
from consensus.sim.epochs import Calendar
from consensus.sim.invariants import InvariantBroken, Invariants
from consensus.values import Batch, Block, Certificate
from consensus.wal import Wal
from ext.hashing import tagged_hash

SERVED_BLOCKS_MAX: Final = 8
"""Fewer than a real node serves, so that catching up takes several rounds."""
BAD_PAYLOAD: Final = b"bad"
"""How a payload begins that the pipeline refuses."""
ATTESTATION: Final = b"job"
"""How a payload begins that attests: then one byte names the job, one the verdict."""


class Surroundings(Protocol):
    """What a machine needs of the world."""

    def transmit(self, machine: int, peer: int, message: Message) -> None:
        """Put a message on the link."""
        ...

    def soon(self, machine: int, event: Event) -> None:
        """Feed an event after a random short while, unless the machine goes down before."""
        ...

    def wake(self, machine: int, at_ms: int) -> None:
        """Feed a Tick at a time of the machine's own clock."""
        ...

    def note(self, machine: int, text: str, data: bytes) -> None:
        """Add to the trace."""
        ...


class Machine:
    """Machine number `number` runs validator `index`; twins share an index."""

    def __init__(
        self,
        number: int,
        index: int,
        genesis: ReplicaConfig,
        calendar: Calendar,
        checks: Checks,
        disk: Disk,
        world: Surroundings,
        invariants: Invariants,
    ) -> None:
        self.number = number
        self.index = index
        self.disk = disk
        self.up = False
        self.replica: Replica | None = None
        self.lives = 0
        """How often it went down."""
        self.now_ms = 0
        """Its own clock at the last step."""
        self.delivered_block: Block | None = None
        self.delivered_payloads: set[bytes] = set()
        """On a chain of epochs: of all batches ever executed here."""
        self.compactions = 0
        self.compact_after_records = COMPACT_AFTER_RECORDS
        self.evidence: list[Misbehaviour] = []
        self.liar: Liar | None = None
        """Speaks in its place, if the validator is Byzantine."""
        self.forgets = False
        """Whether a new log says that the key may have been used before, as a node's does."""
        self._genesis = genesis
        self._config = genesis
        self._calendar = calendar
        self._checks = checks
        self._world = world
        self._invariants = invariants
        self._wal: Wal | None = None
        self._executed = 0
        self._executing: deque[Executed] = deque()
        self._again: deque[bytes] = deque()
        """Payloads of own batches that an ended epoch did not make final."""

    @property
    def epoch(self) -> int:
        """The epoch that its replica is made for."""
        return self._config.validators.epoch

    @property
    def seated(self) -> bool:
        """Whether it is a validator in this epoch."""
        return self._config.own_index is not None

    def start(self, now_ms: int) -> None:
        """Recover from the disk and begin."""
        executed = self._executed_height()
        epoch = self._calendar.epoch_of(executed + 1)
        self._config = self._config_of(epoch)
        records: tuple[bytes, ...] = ()
        self._wal = None
        if self.seated:
            self._wal, records = Wal.open(
                self.disk,
                self._config.chain_id,
                self._config.validators.by_index[self.index].signing_key,
                create=True,
                first=(encode_record(FORGOTTEN),) if self.forgets else (),
                epoch=epoch,
                carry=carried,
            )
        recovered = self._recovered(records, executed)
        self._executed = executed
        self._invariants.restarted(self.number, self.index, epoch, executed, records)
        signer = self._calendar.signer(epoch, self.index) if self.seated else None
        if self.liar is not None:
            liars_keys = self._calendar.signer(epoch, self.index)
            self.liar.enter(liars_keys, self._config.validators)
        self.replica = Replica.recover(self._config, signer, recovered, now_ms, self._checks)
        self.replica.compact_after_records = self.compact_after_records
        self._again = deque(self._left_over())
        self.up = True
        self.step(Start(), now_ms)

    @property
    def remembers(self) -> bool:
        """Whether it knows what it signed, and leaves no views to the others."""
        return self.replica is not None and not self.replica.silence

    def stop(self) -> None:
        """Lose power."""
        self.up = False
        self.lives += 1
        self.replica = None
        self._executing.clear()
        self._again.clear()
        self.disk.lose_power()

    def step(self, event: Event, now_ms: int) -> None:
        """Feed an event and perform the effects. Raises PowerLost at a write."""
        if self.replica is None:
            return
        self.now_ms = now_ms
        if isinstance(event, Executed):
            self._invariants.executed(self.number, event.height, event.root)
            self._executing.popleft()
            if self._executing:
                self._world.soon(self.number, self._executing[0])
        if isinstance(event, SealBatch) and self.replica.lane_room == 0:
            return
        for effect in self.replica.step(event, now_ms):
            self._perform(effect)
        while self._again and self.replica.lane_room:
            for effect in self.replica.step(SealBatch(self._again.popleft()), now_ms):
                self._perform(effect)
        if isinstance(event, Executed) and event.height == self._config.last_height:
            # Everything of the epoch is executed: the next one's replica takes over.
            self._flush()
            self.start(now_ms)

    def _perform(self, effect: Effect) -> None:
        handler = _HANDLERS.get(type(effect))
        if handler is None:
            raise InvariantBroken(f"the driver knows no effect {type(effect).__name__}")
        handler(self, effect)

    def persist(self, effect: Persist) -> None:
        """Into the log, not flushed yet."""
        self._invariants.persisted(self.index, self.epoch, effect.record)
        if self._wal is not None:
            self._wal.append(effect.record)

    def compact(self, effect: Compact) -> None:
        """Store first: the log forgets what final blocks have settled."""
        self._flush()
        if self._wal is not None:
            self._wal.compact(effect.records)
            self.compactions += 1

    def store_batch(self, effect: StoreBatch) -> None:
        """Into the store."""
        self.disk.stage_batch(effect.batch)

    def send(self, effect: Send) -> None:
        """Everything promised so far is durable before this leaves."""
        self._transmit((effect.peer,), effect.message)

    def broadcast(self, effect: Broadcast) -> None:
        """To every other validator."""
        peers = [peer for peer in self._calendar.ids if peer != self.index]
        self._transmit(peers, effect.message)

    def check_batch(self, effect: CheckBatch) -> None:
        """The pipeline finds a payload bad that says so."""
        digest = effect.batch.header.digest()
        valid = not effect.batch.payload.startswith(BAD_PAYLOAD)
        self._world.soon(self.number, BatchChecked(effect.peer, digest, valid))

    def finalized(self, effect: Finalized) -> None:
        """Into the store."""
        self._invariants.finalized(self.number, effect)
        for final in effect.blocks:
            last = final is effect.blocks[-1]
            self.disk.stage_block(final, effect.certificate if last else None)
        self._world.note(self.number, "final", effect.blocks[-1].block.digest())

    def epoch_ended(self, effect: EpochEnded) -> None:
        """Into the store, with the epoch's last block."""
        self._invariants.ended(self.number, self.index, effect.boundary)
        self.disk.stage_boundary(effect.boundary)

    def deliver(self, effect: Deliver) -> None:
        """Execute: a hash chain over blocks, beacons, payloads, and which verdicts counted."""
        self._flush()  # as the node does: nothing is executed whose batches could still be lost
        self._invariants.delivered(self.number, effect, self._executed)
        height = effect.block.height
        fields = [self._root(height - 1), effect.block.digest(), effect.beacon]
        for increment in effect.increments:
            for digest in increment.digests:
                batch = self.disk.find_batch(digest)
                if batch is None:
                    raise InvariantBroken(f"block {height} was delivered without its batches")
                fields += (batch.payload, self._attested(increment.lane, batch.payload, height))
                if self._config.epoch_blocks:
                    self.delivered_payloads.add(batch.payload)
        root = tagged_hash(b"sim-execution", *fields)
        self.disk.store.roots[height] = root
        self.delivered_block = effect.block
        self._executing.append(Executed(height, root))
        if len(self._executing) == 1:
            self._world.soon(self.number, self._executing[0])

    def wake_at(self, effect: WakeAt) -> None:
        """One timer."""
        self._world.wake(self.number, effect.at_ms)

    def load_blocks(self, effect: LoadBlocks) -> None:
        """Serve final blocks up to one with a certificate."""
        blocks: list[Block] = []
        best: tuple[int, Certificate] | None = None
        fillers: tuple[Block, ...] = ()
        height = effect.from_height
        epoch = self._calendar.epoch_of(height)
        while (entry := self.disk.find_block(height)) is not None:
            final, certificate = entry
            blocks.append(final.block)
            if height == self._calendar.last_height(epoch):
                boundary = self.disk.find_boundary(epoch)
                if boundary is not None:
                    best, fillers = (len(blocks), boundary.certificate), boundary.descendants
                break
            if certificate is not None:
                best = (len(blocks), certificate)
                if len(blocks) >= SERVED_BLOCKS_MAX:
                    break
            height += 1
        if best is not None:
            self._transmit((effect.peer,), Blocks(tuple(blocks[: best[0]]), best[1], fillers))

    def load_batch(self, effect: LoadBatch) -> None:
        """Serve a batch and its ancestors, oldest first; the links shuffle them anyway."""
        digest = effect.digest
        batches: list[Batch] = []
        while len(batches) < effect.count and (batch := self.disk.find_batch(digest)) is not None:
            batches.append(batch)
            digest = batch.header.parent
        for batch in reversed(batches):
            self._transmit((effect.peer,), BatchMessage(batch, None))

    def misbehaviour(self, effect: Misbehaviour) -> None:
        """Keep the evidence."""
        self._invariants.convicted(self.number, effect)
        self.evidence.append(effect)
        self._world.note(self.number, "evidence", effect.evidence.digest())

    def diverged(self, effect: Diverged) -> None:
        """Never, in a world of honest executions."""
        raise InvariantBroken(f"replica {self.number} diverged at height {effect.height}")

    def _flush(self) -> None:
        self.disk.commit_store()
        if self._wal is not None:
            self._wal.flush()

    def _transmit(self, peers: Sequence[int], message: Message) -> None:
        """Everything promised so far is durable before a message leaves."""
        self._flush()
        self._invariants.sent(self.index, message, self.disk)
        for peer in peers:
            for said in self._said(peer, message):
                self._world.transmit(self.number, peer, said)

    def _said(self, peer: int, message: Message) -> Sequence[Message]:
        if self.liar is None or self.replica is None or not self.seated:
            return (message,)
        tree = self.replica._simplex.tree
        return self.liar.say(peer, message, self.now_ms, tree, self.replica.view)

    def _attested(self, lane: int, payload: bytes, height: int) -> bytes:
        """The verdict that counts, if the payload attests: a lane's first one on the job."""
        if not payload.startswith(ATTESTATION):
            return b""
        size = len(ATTESTATION)
        job, verdict = payload[size : size + 1], payload[size + 1 : size + 2]
        return self.disk.store.verdicts.setdefault((lane, job), (height, verdict))[1]

    def _root(self, height: int) -> bytes:
        if height == 0:
            return self._genesis.genesis_execution_root
        return self.disk.store.roots[height]

    def _config_of(self, epoch: int) -> ReplicaConfig:
        """What the replica of an epoch must know, off the store."""
        calendar = self._calendar
        validators = calendar.validators(epoch)
        seat = self.index if self.index in validators.by_index else None
        blocks = calendar.scenario.epoch_blocks
        if not blocks:
            return self._genesis
        return replace(
            self._genesis,
            validators=validators,
            own_index=seat,
            epoch_blocks=blocks,
            root=self.disk.store.blocks[epoch * blocks][0] if epoch else None,
            next_validators=calendar.validators(epoch + 1),
        )

    def _left_over(self) -> list[bytes]:
        """Own payloads that no epoch has made final and that this one's lane does not hold."""
        if not self.seated or not self._config.epoch_blocks:
            return []
        batches = self.disk.store.batches.values()
        own = [batch for batch in batches if batch.header.lane == self.index]
        held = {batch.payload for batch in own if batch.header.epoch == self.epoch}
        earlier = [batch for batch in own if batch.header.epoch < self.epoch]
        earlier.sort(key=lambda batch: (batch.header.epoch, batch.header.sequence))
        payloads = dict.fromkeys(batch.payload for batch in earlier)
        return [one for one in payloads if one not in held | self.delivered_payloads]

    def owed(self) -> frozenset[bytes]:
        """Own payloads that are stored and not executed yet."""
        if not self.seated or not self._config.epoch_blocks:
            return frozenset()
        own = (b for b in self.disk.store.batches.values() if b.header.lane == self.index)
        return frozenset(batch.payload for batch in own) - self.delivered_payloads

    def _executed_height(self) -> int:
        """How far the store is executed; forgets what it is said to have done above that."""
        store = self.disk.store
        executed = 0
        while executed + 1 in store.roots and executed + 1 in store.blocks:
            executed += 1
        for height in [height for height in store.roots if height > executed]:
            del store.roots[height]
        executed = min(executed, self._newest_proven())
        for key in [key for key, (height, _) in store.verdicts.items() if height > executed]:
            del store.verdicts[key]
        return executed

    def _newest_proven(self) -> int:
        """The highest final block that is stored with what proves it."""
        store = self.disk.store
        proven = [h for h, (_, certificate) in store.blocks.items() if certificate is not None]
        proven += [boundary.block.height for boundary in store.boundaries.values()]
        return max(proven, default=0)

    def _recovered(self, records: tuple[bytes, ...], executed: int) -> Recovered:
        """What the store holds of this epoch, and the log's records."""
        store = self.disk.store
        newest = self._newest_proven()
        first = self.epoch * self._config.epoch_blocks + 1
        stored = store.blocks[executed][0].block if executed >= first else None
        finalized = tuple(store.blocks[h][0] for h in range(max(executed, first), newest + 1))
        floors = {tip.lane: tip.sequence for tip in stored.cut} if stored is not None else {}
        batches = store.batches.values()
        headers = [batch.header for batch in batches if batch.header.epoch == self.epoch]
        own = [header for header in headers if header.lane == self.index]
        return Recovered(
            wal_records=records,
            finalized=finalized,
            certificate=store.blocks[newest][1] if newest >= first else None,
            executed=tuple((h, store.roots[h]) for h in range(1, executed + 1)),
            own_tip=max(own, key=lambda header: header.sequence, default=None),
            headers=tuple(h for h in headers if h.sequence > floors.get(h.lane, 0)),
        )


_HANDLERS: dict[type, Callable[..., None]] = {
    Persist: Machine.persist,
    Compact: Machine.compact,
    StoreBatch: Machine.store_batch,
    Send: Machine.send,
    Broadcast: Machine.broadcast,
    CheckBatch: Machine.check_batch,
    Finalized: Machine.finalized,
    EpochEnded: Machine.epoch_ended,
    Deliver: Machine.deliver,
    WakeAt: Machine.wake_at,
    LoadBlocks: Machine.load_blocks,
    LoadBatch: Machine.load_batch,
    Misbehaviour: Machine.misbehaviour,
    Diverged: Machine.diverged,
}
