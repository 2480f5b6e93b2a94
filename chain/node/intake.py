"""From clients and agents into the own lane: admitted transactions and own attestations, sealed in
order.

What waits here are raw bytes, exactly as they will stand in a payload, so sealing joins them. All
that waits or is being checked on its way here is bounded in bytes: room is reserved before the work
begins, and without room a client is told BUSY and when to come again, by how fast the lane drains.
The node's own transactions have room of their own and are sealed first: a flood of payments must
not keep a provider from delivering.

A payload is sealed when it is full or its oldest entry has waited the batch interval, and only
while the lane has room.
"""

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping

from assay.v1 import transactions_pb2
from chain.node.worker import LedgerWorker
from chain.rejections import Busy, Rejection, RejectionReason
from chain.transactions import Transaction, check_signed
from consensus.values import BATCH_PAYLOAD_BYTES_MAX

_ENVELOPE_BYTES = 8
"""A field's tag and length in BatchPayload, at most."""
OWN_BYTES_MAX = 1024 * 1024
"""Of the node's own transactions, beside what clients may fill."""
DRAIN_WINDOW_S = 1.0
RETRY_DELAY_MS = (20, 5_000)
"""At least and at most."""


class DrainRate:
    """How fast bytes leave the queue, averaged over about the last DRAIN_WINDOW_S."""

    def __init__(self, clock_s: Callable[[], float]) -> None:
        self._clock_s = clock_s
        self._weighed_bytes = 0.0
        self._at_s = clock_s()

    def sealed(self, size_bytes: int) -> None:
        """So many bytes have left."""
        self._fade()
        self._weighed_bytes += size_bytes

    def delay_ms(self, size_bytes: int) -> int:
        """How long until so many bytes have left, within RETRY_DELAY_MS."""
        self._fade()
        least_ms, most_ms = RETRY_DELAY_MS
        per_ms = self._weighed_bytes / (DRAIN_WINDOW_S * 1000)
        if size_bytes >= per_ms * most_ms:
            return most_ms
        return max(least_ms, math.ceil(size_bytes / per_ms))

    def _fade(self) -> None:
        now_s = self._clock_s()
        self._weighed_bytes *= math.exp((self._at_s - now_s) / DRAIN_WINDOW_S)
        self._at_s = now_s


class Intake:
    """The queue before the own lane. Used from the event loop only."""

    def __init__(
        self,
        chain_id: str,
        worker: LedgerWorker,
        seal: Callable[[bytes], None],
        lane_room: Callable[[], int],
        batch_bytes: int,
        batch_interval_ms: int,
        pending_bytes_max: int,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._chain_id = chain_id
        self._worker = worker
        self._seal = seal
        self._lane_room = lane_room
        self._batch_bytes = min(batch_bytes, BATCH_PAYLOAD_BYTES_MAX)
        self._batch_interval_ms = batch_interval_ms
        self._pending_bytes_max = pending_bytes_max
        self._own: dict[bytes, bytes] = {}
        self._pending: dict[bytes, bytes] = {}
        """By id, as fields of BatchPayload; own transactions, and those of clients."""
        self._own_bytes = 0
        self._pending_bytes = 0
        self._reserved_bytes = 0
        self._attestations: list[bytes] = []
        self._again: deque[bytes] = deque()
        """Whole payloads of an ended epoch."""
        self.closed = ""
        """Why nothing is taken, if so: this validator has no lane in the epoch under way."""
        self._filled = asyncio.Event()
        self._freed = asyncio.Event()
        self._line = asyncio.Lock()
        self._drain = DrainRate(clock_s)

    @property
    def pending(self) -> int:
        """Transactions that wait to be sealed."""
        return len(self._pending) + len(self._own)

    @property
    def waiting_bytes(self) -> int:
        """Of clients' transactions that wait to be sealed, or for their check."""
        return self._pending_bytes + self._reserved_bytes

    def check(self, signed: transactions_pb2.SignedTx) -> Transaction:
        """What a signed transaction says, without admitting it. Raises Rejection."""
        return check_signed(self._chain_id, signed.body, signed.public_key, signed.signature)

    async def submit(self, signed: transactions_pb2.SignedTx) -> Transaction:
        """Check a transaction of the node's own and admit it. Raises Rejection."""
        transaction = self.check(signed)
        field = payload_field(signed)
        if self.closed:
            raise self.busy(len(field))
        if self._own_bytes + len(field) > OWN_BYTES_MAX:
            detail = (
                f"{self._own_bytes} bytes of this node's own wait, the limit is {OWN_BYTES_MAX}"
            )
            raise Busy(detail, self._drain.delay_ms(self._own_bytes))
        await self._worker.admit(transaction)
        if self._waits(transaction.id):
            raise already_waits(transaction.id)
        self._own[transaction.id] = field
        self._own_bytes += len(field)
        self._filled.set()
        return transaction

    async def admit(self, transaction: Transaction, signed: transactions_pb2.SignedTx) -> None:
        """Queue one checked transaction of a client. Raises Rejection."""
        field = payload_field(signed)
        if self._room() < len(field):
            raise self.busy(len(field))
        self._reserved_bytes += len(field)
        try:
            await self._worker.admit(transaction)
            if self.add({transaction.id: field}):
                raise already_waits(transaction.id)
        finally:
            self.release(len(field))

    def reserve(self, wanted_bytes: int) -> int:
        """Keep up to so much room for what is about to be checked; how much there was.

        Whoever reserves releases as much. Callers in `reserve_all`'s line go first.
        """
        granted = 0 if self._line.locked() else min(wanted_bytes, self._room())
        self._reserved_bytes += granted
        return granted

    async def reserve_all(self, wanted_bytes: int) -> None:
        """Wait in line until there is so much room, and keep it. No more than all can be wanted."""
        async with self._line:
            while self._room() < wanted_bytes:
                self._freed.clear()
                await self._freed.wait()
            self._reserved_bytes += wanted_bytes

    def release(self, reserved_bytes: int) -> None:
        """Give reserved room back, also after what it was kept for has been added."""
        self._reserved_bytes -= reserved_bytes
        self._freed.set()

    def add(self, fields: Mapping[bytes, bytes]) -> frozenset[bytes]:
        """Queue admitted transactions of clients, by id; those ids that wait here already.

        The caller has reserved room for them.
        """
        known = (self._pending.keys() & fields.keys()) | (self._own.keys() & fields.keys())
        fresh = (
            {identity: field for identity, field in fields.items() if identity not in known}
            if known
            else fields
        )
        self._pending.update(fresh)
        self._pending_bytes += sum(map(len, fresh.values()))
        if fresh:
            self._filled.set()
        return frozenset(known)

    def busy(self, wanted_bytes: int) -> Busy:
        """What a client is told for whom there is no room."""
        if self.closed:
            return Busy(f"{self.closed}: use another node", RETRY_DELAY_MS[1])
        missing = max(0, wanted_bytes - self._room())
        return Busy(
            f"{self.waiting_bytes} bytes wait to be sealed, the limit is "
            f"{self._pending_bytes_max}; try again after the delay in RetryInfo, or use another "
            "node",
            self._drain.delay_ms(max(missing, self._batch_bytes)),
        )

    def attest(self, attestation: bytes) -> None:
        """Queue one of this validator's own attestations."""
        self._attestations.append(attestation)
        self._filled.set()

    def seal_again(self, payloads: Iterable[bytes]) -> None:
        """Seal these before all else: an epoch ended before they were final."""
        self._again.extend(payloads)
        self._filled.set()

    async def run(self) -> None:
        """Seal until cancelled."""
        while True:
            await self._filled.wait()
            if not self._again and self._pending_bytes + self._own_bytes < self._batch_bytes:
                await asyncio.sleep(self._batch_interval_ms / 1000)
            if self._lane_room() > 0:
                self._seal(self._again.popleft() if self._again else self._take())
                await asyncio.sleep(0)  # a long queue must not hold up everything else
            else:
                await asyncio.sleep(self._batch_interval_ms / 1000)
            if not (self._pending or self._own or self._attestations or self._again):
                self._filled.clear()

    def _waits(self, identity: bytes) -> bool:
        return identity in self._pending or identity in self._own

    def _room(self) -> int:
        if self.closed:
            return 0
        return self._pending_bytes_max - self._pending_bytes - self._reserved_bytes

    def _take(self) -> bytes:
        """The next payload: attestations and own transactions before those of clients."""
        attested = transactions_pb2.BatchPayload()
        size = 0
        while self._attestations:
            size += len(self._attestations[0]) + _ENVELOPE_BYTES
            if size > self._batch_bytes and attested.attestations:
                break
            attested.attestations.append(self._attestations.pop(0))
        own = _take_fields(self._own, self._batch_bytes - size, size == 0)
        self._own_bytes -= sum(map(len, own))
        size += sum(map(len, own))
        others = _take_fields(self._pending, self._batch_bytes - size, size == 0)
        freed = sum(map(len, others))
        self._pending_bytes -= freed
        self._drain.sealed(freed)
        self._freed.set()
        return b"".join((*own, *others, attested.SerializeToString()))


def payload_field(signed: transactions_pb2.SignedTx) -> bytes:
    """A transaction as a field of BatchPayload, without what nobody signed."""
    known = transactions_pb2.SignedTx(
        body=signed.body, public_key=signed.public_key, signature=signed.signature
    )
    return transactions_pb2.BatchPayload(transactions=[known]).SerializeToString()


def already_waits(transaction: bytes) -> Rejection:
    """The refusal of what is queued here."""
    return Rejection(
        RejectionReason.REPLAYED,
        f"transaction {transaction.hex()} already waits here; wait for its outcome",
    )


def _take_fields(fields: dict[bytes, bytes], room_bytes: int, one_at_least: bool) -> list[bytes]:
    """Remove from the front what fits; the first also if it does not, if one must go."""
    taken: list[bytes] = []
    identities: list[bytes] = []
    for identity, field in fields.items():
        room_bytes -= len(field)
        if room_bytes < 0 and (taken or not one_at_least):
            break
        taken.append(field)
        identities.append(identity)
    for identity in identities:
        del fields[identity]
    return taken
