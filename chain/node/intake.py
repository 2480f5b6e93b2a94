"""From clients and agents into the own lane: admitted transactions and own attestations, sealed in
order.

A transaction is admitted (signature, limits, balance) before it waits here; what waits is bounded
in bytes, and a full intake answers BUSY. A payload is sealed when it is full or its oldest entry
has waited the batch interval, and only while the lane has room.
"""

import asyncio
from collections.abc import Callable

from assay.v1 import transactions_pb2
from chain.node.worker import LedgerWorker
from chain.rejections import Rejection, RejectionReason
from chain.transactions import Transaction, check_signed
from consensus.values import BATCH_PAYLOAD_BYTES_MAX

_ENVELOPE_BYTES = 8
"""A field's tag and length in BatchPayload, at most."""


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
    ) -> None:
        self._chain_id = chain_id
        self._worker = worker
        self._seal = seal
        self._lane_room = lane_room
        self._batch_bytes = min(batch_bytes, BATCH_PAYLOAD_BYTES_MAX)
        self._batch_interval_ms = batch_interval_ms
        self._pending_bytes_max = pending_bytes_max
        self._pending: dict[bytes, transactions_pb2.SignedTx] = {}
        self._pending_bytes = 0
        self._attestations: list[bytes] = []
        self._filled = asyncio.Event()

    @property
    def pending(self) -> int:
        """Transactions that wait to be sealed."""
        return len(self._pending)

    def check(self, signed: transactions_pb2.SignedTx) -> Transaction:
        """What a signed transaction says, without admitting it. Raises Rejection."""
        return check_signed(self._chain_id, signed.body, signed.public_key, signed.signature)

    async def submit(self, signed: transactions_pb2.SignedTx) -> Transaction:
        """Check a transaction and admit it into the own lane. Raises Rejection."""
        transaction = self.check(signed)
        await self.admit(transaction, signed)
        return transaction

    async def admit(self, transaction: Transaction, signed: transactions_pb2.SignedTx) -> None:
        """Queue a checked transaction for the own lane. Raises Rejection."""
        if self._pending_bytes > self._pending_bytes_max:
            raise Rejection(
                RejectionReason.BUSY,
                f"{self._pending_bytes} bytes wait to be sealed, the limit is "
                f"{self._pending_bytes_max}; try again in a moment or use another node",
            )
        if transaction.id in self._pending:
            raise Rejection(
                RejectionReason.REPLAYED,
                f"transaction {transaction.id.hex()} already waits here; wait for its outcome",
            )
        await self._worker.admit(transaction)
        self._pending[transaction.id] = transactions_pb2.SignedTx(
            body=signed.body, public_key=signed.public_key, signature=signed.signature
        )
        self._pending_bytes += signed.ByteSize()
        self._filled.set()

    def attest(self, attestation: bytes) -> None:
        """Queue one of this validator's own attestations."""
        self._attestations.append(attestation)
        self._filled.set()

    async def run(self) -> None:
        """Seal until cancelled."""
        while True:
            await self._filled.wait()
            if self._pending_bytes < self._batch_bytes:
                await asyncio.sleep(self._batch_interval_ms / 1000)
            if self._lane_room() > 0:
                self._seal(self._take())
            else:
                await asyncio.sleep(self._batch_interval_ms / 1000)
            if not self._pending and not self._attestations:
                self._filled.clear()

    def _take(self) -> bytes:
        payload = transactions_pb2.BatchPayload()
        size = 0
        while self._attestations:
            size += len(self._attestations[0]) + _ENVELOPE_BYTES
            if size > self._batch_bytes and payload.attestations:
                break
            payload.attestations.append(self._attestations.pop(0))
        for identity, signed in list(self._pending.items()):
            size += signed.ByteSize() + _ENVELOPE_BYTES
            if size > self._batch_bytes and (payload.transactions or payload.attestations):
                break
            payload.transactions.append(signed)
            del self._pending[identity]
            self._pending_bytes -= signed.ByteSize()
        return payload.SerializeToString()
