"""One Infer call: from a signed request to its receipt, as a stream of events.

A request that is known already is not refused but followed: who lost the node it asked, or the
call, sends the same transaction to any node, and hears all of it from the start.

Two things run beside each other: following the job in the ledger block by block, and forwarding the
tokens of its current attempt from the provider's node. A reassigned job starts a new attempt, whose
tokens begin again.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator

from assay.v1 import node_pb2, receipts_pb2, transactions_pb2
from chain.execution import Ledger
from chain.node.node import Node
from chain.node.views import job_view
from chain.records import Job, JobStatus
from chain.rejections import Rejection, RejectionReason
from chain.transactions import Transaction, job_id

FINAL_STATUSES = frozenset({JobStatus.VERIFIED, JobStatus.REJECTED, JobStatus.REFUNDED})
EVENTS_QUEUED_MAX = 1024
"""Beyond it a slow reader holds up its own stream, and nothing else."""
TOKENS_GRACE_MS = 2_000
"""How long a settled job waits for tokens that are still on their way."""


class InferenceFlow:
    """The state of one call."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._events: asyncio.Queue[node_pb2.InferEvent] = asyncio.Queue(EVENTS_QUEUED_MAX)
        self._tokens: asyncio.Task[None] | None = None
        self._attempt: int | None = None

    async def run(
        self, signed: transactions_pb2.SignedTx
    ) -> AsyncGenerator[node_pb2.InferEvent, None]:
        """Submit what is not known yet, then yield events until the receipt. Raises Rejection."""
        transaction = await self._submit(signed)
        job = job_id(transaction.id, 0)
        yield node_pb2.InferEvent(
            accepted=node_pb2.InferEvent.Accepted(transaction=transaction.id, job=job)
        )
        follower = asyncio.create_task(self._follow(transaction, job))
        try:
            async for event in self._until(follower):
                yield event
        finally:
            follower.cancel()
            if self._tokens is not None:
                self._tokens.cancel()

    async def _until(self, follower: asyncio.Task[None]) -> AsyncIterator[node_pb2.InferEvent]:
        """Events as they come, until the follower has ended; then what ended it, if it failed."""
        while not (follower.done() and self._events.empty()):
            getter = asyncio.create_task(self._events.get())
            try:
                await asyncio.wait((getter, follower), return_when=asyncio.FIRST_COMPLETED)
                if getter.done():
                    yield getter.result()
            finally:
                getter.cancel()  # nothing to cancel, unless the follower or the caller has ended
        await follower

    async def _submit(self, signed: transactions_pb2.SignedTx) -> Transaction:
        transaction = await self._node.look_up(self._node.intake.check, signed)
        kinds = [operation.WhichOneof("kind") for operation in transaction.body.ops]
        if kinds != ["request_inference"]:
            raise Rejection(
                RejectionReason.MALFORMED,
                f"Infer takes a transaction with one request_inference, got {kinds}; use "
                "Transactions.Submit for others",
            )
        if await self._node.transaction(transaction.id) is None:
            await self._admit(transaction, signed)
        return transaction

    async def _admit(self, transaction: Transaction, signed: transactions_pb2.SignedTx) -> None:
        try:
            await self._node.worker.admit(transaction)  # a prompt is read for those who can pay
            await self._node.check_prompt(transaction.body.ops[0].request_inference)
            await self._node.intake.admit(transaction, signed)
        except Rejection as rejection:  # it waits here, or was executed meanwhile
            if rejection.reason is not RejectionReason.REPLAYED:
                raise

    async def _follow(self, transaction: Transaction, identity: bytes) -> None:
        job = await self._included(transaction, identity)
        shown: Job | None = None
        while job is not None:  # else it was final so long ago that its row has left the state
            if job != shown:
                shown = job
                view = await self._node.look_up(job_view, identity, job, self._node.store)
                self._forward_tokens(identity, job)
                await self._put(status=view)
            if job.status in FINAL_STATUSES:
                break
            await self._node.next_block()
            job = await self._job(identity)
        await self._drain_tokens()
        await self._put(receipt=await self._node.wait_receipt(identity))

    async def _included(self, transaction: Transaction, identity: bytes) -> Job | None:
        """The job, once its transaction is executed; None if it has left the state.

        Raises Rejection if the transaction failed."""
        last_height = transaction.body.valid_until_height
        found = await self._node.wait_transaction(transaction.id, last_height)
        if found is None:
            raise Rejection(
                RejectionReason.EXPIRED,
                f"not included up to height {last_height}; sign it anew with a later "
                "valid_until_height",
            )
        _, receipt = found
        if not receipt.accepted:
            raise Rejection(
                RejectionReason(receipt.reason),
                "refused when its block was executed; nothing but the fee was taken",
            )
        return await self._job(identity)

    async def _job(self, identity: bytes) -> Job | None:
        def read(ledger: Ledger) -> Job | None:
            return ledger.job(identity)

        return await self._node.worker.read(read)

    def _forward_tokens(self, identity: bytes, job: Job) -> None:
        if job.status is JobStatus.REQUESTED or self._attempt == job.attempts:
            return
        self._attempt = job.attempts
        if self._tokens is not None:
            self._tokens.cancel()
        self._tokens = asyncio.create_task(self._tokens_of(identity, job))

    async def _tokens_of(self, identity: bytes, job: Job) -> None:
        async for chunk in self._node.tokens(identity, job.attempts, job.operator):
            await self._put(tokens=chunk)

    async def _drain_tokens(self) -> None:
        if self._tokens is None:
            return
        await asyncio.wait([self._tokens], timeout=TOKENS_GRACE_MS / 1000)

    async def _put(
        self,
        status: node_pb2.JobView | None = None,
        tokens: node_pb2.TokenChunk | None = None,
        receipt: receipts_pb2.Receipt | None = None,
    ) -> None:
        await self._events.put(node_pb2.InferEvent(status=status, tokens=tokens, receipt=receipt))
