"""One signed question, followed from node to node until its receipt.

While all goes well a single Infer call tells everything. A call that breaks off, or falls silent
because its node is gone, is made to the next node with the same transaction: that one knows the
job or takes it, and tells it from the start; what was told already is left out. Once every node
has failed so, the job is also asked for, again and again, until it is settled.
"""

import asyncio
import itertools
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing
from typing import Final, cast

from assay.v1 import inference_pb2, node_pb2, receipts_pb2, transactions_pb2
from chain import receipt_files
from chain.client import NodeClient, NodeUnavailableError
from chain.dapp.events import Accepted, Answered, Event, Progress, Restarted, Settled, Tokens
from chain.dapp.nodes import ANOTHER_NODE_MAY, Nodes, worst_of
from chain.dapp.transcript import AnswerChanged, Transcript
from chain.genesis import Genesis
from chain.node.streams import chunk_message
from chain.receipts import ReceiptFault, ReceiptInvalid, parse_result, verify_receipt
from chain.records import JobStatus
from chain.rejections import Rejection, RejectionReason
from chain.transactions import job_id
from ext.signatures import verify
from ext.transactions import transaction_id

FINAL: Final = frozenset(
    status.name for status in (JobStatus.VERIFIED, JobStatus.REJECTED, JobStatus.REFUNDED)
)
POLL_S: Final = 0.25
SILENT_S: Final = 5.0
"""A node that tells nothing for so long is asked whether it is there, and has as long to say so."""
STALLED_S: Final = 30.0
"""A node that shows nothing new for so long is left for the next."""
ROUND_PAUSE_S: Final = 0.5
"""After every node has failed."""


class NotSettledInTime(Exception):
    """The asker's time is over; the job goes on."""


class Following:
    """The way of one question. `run` may be called once."""

    def __init__(
        self,
        nodes: Nodes,
        signed: transactions_pb2.SignedTx,
        chain_id: str,
        trusted: Genesis | None = None,
        sent: bool = False,
        clock_s: Callable[[], float] = time.monotonic,
        silent_s: float = SILENT_S,
    ) -> None:
        """`sent` says that a node may have the transaction already."""
        self.transaction = transaction_id(signed.body, signed.public_key)
        self.job = job_id(self.transaction, 0)
        self.sent = sent
        """Whether any node may have the transaction. While it is False nothing can be charged."""
        self._nodes = nodes
        self._signed = signed
        self._chain_id = chain_id
        self._trusted = trusted
        self._clock_s = clock_s
        self._silent_s = silent_s
        self._transcript = Transcript()
        self._view = node_pb2.JobView()
        self._answered = False

    async def run(self, deadline_s: float) -> AsyncGenerator[Event, None]:
        """Events until Settled.

        Raises Rejection (the chain or every node refuses), NodeUnavailableError (no node answers,
        and none may have the transaction), NotSettledInTime, ReceiptInvalid (what every node
        gives is no receipt).
        """
        ends_s = self._clock_s() + deadline_s
        for turn in itertools.count():
            refusals: list[Rejection] = []
            failures: list[NodeUnavailableError] = []
            invalid: list[ReceiptInvalid] = []
            for client in self._nodes.in_order():
                try:
                    async with aclosing(self._at(client, ends_s, turn > 0)) as events:
                        async for event in events:
                            yield event
                    return
                except NodeUnavailableError as error:
                    self._nodes.rest(client)
                    failures.append(error)
                except ReceiptInvalid as error:
                    self._nodes.rest(client)
                    invalid.append(error)
                except Rejection as rejection:
                    if rejection.reason not in ANOTHER_NODE_MAY:
                        raise
                    refusals.append(rejection)
            if not self.sent:
                raise worst_of(refusals, failures)
            if invalid and not failures and not refusals:
                raise invalid[0]
            await asyncio.sleep(min(ROUND_PAUSE_S, self._left_s(ends_s)))

    def _left_s(self, ends_s: float) -> float:
        left_s = ends_s - self._clock_s()
        if left_s <= 0:
            raise NotSettledInTime(
                f"job {self.job.hex()} is not settled in time; it goes on: ask for its receipt"
            )
        return left_s

    async def _at(
        self, client: NodeClient, ends_s: float, ask_on: bool
    ) -> AsyncGenerator[Event, None]:
        """Send to one node and hear it out. Then, or if it knows the transaction, ask it for the
        job; if its call broke off, only with `ask_on`."""
        accepted = False
        unsure = self.sent
        try:
            self._transcript.begin()
            call = cast(
                AsyncGenerator[node_pb2.InferEvent, None],
                client.infer(self._signed, self._left_s(ends_s)),
            )
            async with (
                aclosing(call) as source,
                aclosing(self._unless_silent(client, source, ends_s)) as messages,
            ):
                async for message in messages:
                    self.sent = accepted = True
                    for event in self._heard(client, message):
                        yield event
                        if isinstance(event, Settled):
                            return
        except NodeUnavailableError:
            self.sent = True  # it may have had it before it failed
            if not ask_on:
                raise
            await client.status(self._silent_s)
        except Rejection as rejection:
            replayed = rejection.reason is RejectionReason.REPLAYED
            if accepted or not (replayed or unsure) or rejection.reason in ANOTHER_NODE_MAY:
                raise
            self.sent = True
            if not replayed:
                await self._check_known(client, rejection)
        async with aclosing(self._asked(client, ends_s)) as events:
            async for event in events:
                yield event

    async def _unless_silent(
        self, client: NodeClient, source: AsyncGenerator[node_pb2.InferEvent, None], ends_s: float
    ) -> AsyncGenerator[node_pb2.InferEvent, None]:
        """What the source tells. Raises NodeUnavailableError if it tells nothing and the node does
        not answer, as one that is stopped or cut off, or nothing for STALLED_S."""
        step = asyncio.ensure_future(anext(source, None))
        try:
            told_s = self._clock_s()
            while True:
                await asyncio.wait((step,), timeout=min(self._silent_s, self._left_s(ends_s)))
                if not step.done():
                    await client.status(min(self._silent_s, self._left_s(ends_s)))
                    self._check_moved(client, told_s)
                    continue
                message = step.result()
                if message is None:
                    return
                yield message
                told_s = self._clock_s()
                step = asyncio.ensure_future(anext(source, None))
        finally:
            step.cancel()
            await asyncio.wait((step,))

    async def _check_known(self, client: NodeClient, refusal: Rejection) -> None:
        """Raise the refusal, unless the job is on chain nevertheless (by way of another node)."""
        try:
            await client.job(self.job)
        except Rejection as rejection:
            if rejection.reason is RejectionReason.UNKNOWN_JOB:
                raise refusal from rejection
            raise

    def _heard(self, client: NodeClient, message: node_pb2.InferEvent) -> Iterator[Event]:
        match message.WhichOneof("kind"):
            case "accepted":
                yield Accepted(client.address)
            case "status":
                yield from self._moved(message.status)
            case "tokens":
                yield from self._streamed(message.tokens)
            case "receipt":
                yield from self._settled(message.receipt)

    async def _asked(self, client: NodeClient, ends_s: float) -> AsyncGenerator[Event, None]:
        """The job's way as one node's ledger has it.

        Raises NodeUnavailableError if it shows nothing new for a while: another node may be ahead.
        """
        status = await client.wait(self.transaction, min(STALLED_S, self._left_s(ends_s)))
        if not status.accepted:
            raise Rejection(
                RejectionReason(status.reason),
                "refused when its block was executed; nothing but the fee was taken",
            )
        moved_s = self._clock_s()
        while True:
            before = self._view
            view = await client.job(self.job)
            for event in self._moved(view):
                yield event
            if view.status in FINAL:
                break
            moved_s = moved_s if self._view == before else self._clock_s()
            await self._pause(client, moved_s, ends_s)
        moved_s = self._clock_s()
        while True:
            try:
                receipt = await client.receipt(self.job)
                break
            except Rejection as rejection:
                if rejection.reason is not RejectionReason.NOT_READY:
                    raise
            await self._pause(client, moved_s, ends_s)
        for event in self._settled(receipt):
            yield event

    def _check_moved(self, client: NodeClient, moved_s: float) -> None:
        if self._clock_s() - moved_s > STALLED_S:
            raise NodeUnavailableError(
                f"node {client.address} has had nothing new of job {self.job.hex()} for "
                f"{STALLED_S:g} s"
            )

    async def _pause(self, client: NodeClient, moved_s: float, ends_s: float) -> None:
        self._check_moved(client, moved_s)
        await asyncio.sleep(min(POLL_S, self._left_s(ends_s)))

    def _moved(self, view: node_pb2.JobView) -> Iterator[Event]:
        if view == self._view:
            return
        if view.attempts != self._view.attempts:
            self._transcript.begin()
        self._view = view
        yield Progress(view)
        if view.HasField("result"):
            yield from self._complete(view.result)

    def _streamed(self, chunk: node_pb2.TokenChunk) -> Iterator[Event]:
        """Raises NodeUnavailableError: a node that alters tokens is not asked further."""
        if chunk.attempt != self._view.attempts or self._answered:
            return
        signed = verify(chunk.provider, chunk_message(self._chain_id, chunk), chunk.signature)
        if chunk.job != self.job or chunk.provider != self._view.provider or not signed:
            raise NodeUnavailableError("a chunk of tokens is not signed by the assigned provider")
        yield from self._told(
            self._transcript.add, chunk.text, tuple(chunk.token_ids), tuple(chunk.logprobs)
        )

    def _complete(self, result: inference_pb2.InferenceResult) -> Iterator[Event]:
        if self._answered:
            return
        yield from self._told(
            self._transcript.complete,
            result.text,
            tuple(result.token_ids),
            tuple(result.logprobs),
        )
        self._answered = True
        yield Answered(result)

    def _told(
        self,
        add: Callable[[str, tuple[int, ...], tuple[int, ...]], Tokens | None],
        text: str,
        token_ids: tuple[int, ...],
        logprobs: tuple[int, ...],
    ) -> Iterator[Event]:
        try:
            tokens = add(text, token_ids, logprobs)
        except AnswerChanged:
            self._transcript.clear()
            yield Restarted()
            tokens = self._transcript.add(text, token_ids, logprobs)
        if tokens is not None:
            yield tokens

    def _settled(self, message: receipts_pb2.Receipt) -> Iterator[Event]:
        receipt = receipt_files.from_protobuf(message)
        if receipt.job_receipt.job != self.job:
            raise ReceiptInvalid(ReceiptFault.WRONG_JOB, "the receipt is of another job")
        if self._trusted is not None:
            verify_receipt(receipt, self._trusted)
        result = None if receipt.result is None else parse_result(receipt.result)
        if result is not None:
            yield from self._complete(result)
        yield Settled(receipt, result, self._trusted is not None)
