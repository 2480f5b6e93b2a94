"""Purchases under way: each bought once, followed to its receipt, whoever still listens.

A purchase's events are one list; any number of readers follow it from the start of the answer that
counts, so a retry joins what is under way, and a reader that is slow or gone holds up nothing.
"""

import asyncio
import logging
import sqlite3
import time
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final

from assay.v1 import transactions_pb2
from chain.client import VALIDITY_BLOCKS, NodeClient, NodeUnavailableError
from chain.dapp.client import complete_request
from chain.dapp.events import Accepted, Event, Restarted, Settled
from chain.dapp.following import FINAL, Following, NotSettledInTime
from chain.dapp.nodes import Nodes
from chain.gateway.access import ApiKey
from chain.gateway.book import Book, Entry
from chain.gateway.errors import GatewayReason, bad_request
from chain.gateway.questions import GRAIN_MAX, Question
from chain.genesis import Genesis
from chain.receipt_files import from_protobuf
from chain.receipts import ReceiptInvalid
from chain.rejections import Busy, Rejection, RejectionReason
from ext.transactions import transaction_id

RECENT_MAX: Final = 64
"""Finished purchases that a retry still finds in memory."""
RETRY_WITHIN_S: Final = 600
"""How long after a question the same one, marked as a retry by the client, is taken as one."""
BUSY_DELAY_MS: Final = 1000
RECONCILE_S: Final = 30.0
RECONCILED_AT_ONCE: Final = 100
FEE_WITHIN_S: Final = 10.0
FAILURES: Final = (Rejection, NodeUnavailableError, NotSettledInTime, ReceiptInvalid)
LATER: Final = (*FAILURES, sqlite3.Error)
"""What leaves a purchase open, for the next look at what is."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class PurchaseLimits:
    """What the gateway takes on."""

    jobs_max: int = 64
    """Purchases under way at once."""
    timeout_s: float = 600.0
    """From a question to its receipt."""


class Purchase:
    """One question on its way. Read from the event loop only."""

    def __init__(self, entry: Entry, following: Following) -> None:
        self.entry = entry
        self.following = following
        self.delivered = False
        """Whether a caller has had all of its answer."""
        self._events: list[Event] = []
        self._from = 0
        """Where the events of the newest answer begin."""
        self._error: Exception | None = None
        self._ended = False
        self._changed = asyncio.Event()

    async def events(self) -> AsyncGenerator[Event, None]:
        """All events of the newest answer, and what comes; raises what ended the purchase, if it
        failed. What came before an answer that was replaced is nothing to a reader who comes now.
        """
        read = self._from
        while True:
            changed = self._changed
            while read < len(self._events):
                read += 1
                yield self._events[read - 1]
            if self._ended:
                break
            await changed.wait()
        if self._error is not None:
            raise self._error

    async def begun(self) -> None:
        """Return once the chain has the question, or raise what refused it."""
        async with aclosing(self.events()) as events:
            async for event in events:
                if not isinstance(event, Accepted):
                    return

    def add(self, event: Event) -> None:
        """The next event."""
        self._events.append(event)
        if isinstance(event, Restarted):
            self._from = len(self._events)
        self._wake()

    def end(self, error: Exception | None) -> None:
        """No more will come."""
        self._error, self._ended = error, True
        self._wake()

    @property
    def ended(self) -> bool:
        """Whether all events are there."""
        return self._ended

    @property
    def failed(self) -> bool:
        """Whether it ended without a receipt; asking again may still find one."""
        return self._error is not None

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


class Purchases:
    """All of them. Lives on one event loop; `run` minds what was left open."""

    def __init__(
        self,
        nodes: Nodes,
        book: Book,
        limits: PurchaseLimits,
        trusted: Genesis | None = None,
        now_s: Callable[[], float] = time.time,
    ) -> None:
        self._nodes = nodes
        self._book = book
        self._limits = limits
        self._trusted = trusted
        self._now_s = now_s
        self._purchases: OrderedDict[bytes, Purchase] = OrderedDict()
        """By job, under way and recent; what has ended in the order of its end."""
        self._tasks: dict[bytes, asyncio.Task[None]] = {}
        self._signing: dict[asyncio.Task[Purchase], tuple[str, bytes]] = {}
        """Whose question, by the digest of its request, is not under way yet but will be."""

    async def buy(
        self,
        caller: ApiKey,
        question: Question,
        digest: bytes,
        idempotency: str | None,
        is_retry: bool,
    ) -> Purchase:
        """The purchase of a question; one that is there already, if this asks for it again.

        `digest` names the HTTP request; `is_retry` says that the client sends it once more. Raises
        GatewayError, Rejection, NodeUnavailableError.
        """
        if idempotency is not None:
            known = await asyncio.to_thread(self._book.find, caller.name, idempotency)
            if known is not None:
                return self._again(known, digest)
        elif is_retry:
            for signing, whose in self._signing.items():
                if whose == (caller.name, digest):
                    return await asyncio.shield(signing)
            lost = self._undelivered(caller, digest)
            if lost is not None:
                return lost
        self._check_room()
        signing = asyncio.create_task(self._sign_and_start(caller, question, digest, idempotency))
        self._signing[signing] = (caller.name, digest)
        signing.add_done_callback(self._signing.pop)
        return await asyncio.shield(signing)

    async def _sign_and_start(
        self, caller: ApiKey, question: Question, digest: bytes, idempotency: str | None
    ) -> Purchase:
        entry, signed = await self._signed(caller, question, digest, idempotency)
        written = await asyncio.to_thread(self._book.reserve, entry, caller.spend_cap)
        if written is not entry:
            return self._again(written, digest)
        return self._start(entry, signed, sent=False)

    async def run(self) -> None:
        """Settle what earlier runs or failures left open, until cancelled."""
        while True:
            try:
                await self.reconcile()
            except sqlite3.Error as error:
                logger.warning("open purchases wait: %s", error)
            await asyncio.sleep(RECONCILE_S)

    async def stop(self) -> None:
        """Stop following; what is open then is settled by the next run."""
        tasks = dict(self._tasks)
        for job, task in tasks.items():
            if not self._purchases[job].ended:  # those that have ended are being settled
                task.cancel()
        await asyncio.gather(*tasks.values(), return_exceptions=True)

    async def reconcile(self) -> None:
        """Look up what became of purchases that nobody follows. One that fails waits alone."""
        for entry in await asyncio.to_thread(self._book.open_entries, RECONCILED_AT_ONCE):
            if entry.job not in self._tasks:
                try:
                    cost = await self._cost_of(entry)
                    if cost is not None:
                        await asyncio.to_thread(self._book.settle, entry.job, cost)
                except LATER as error:
                    logger.warning("open purchase %s waits: %s", entry.job.hex(), error)

    def _check_room(self) -> None:
        if len(self._tasks) + len(self._signing) >= self._limits.jobs_max:
            raise Busy(
                f"{self._limits.jobs_max} questions are under way, as many as this gateway takes; "
                "try again when Retry-After says",
                BUSY_DELAY_MS,
            )

    def _again(self, entry: Entry, digest: bytes) -> Purchase:
        if entry.question != digest:
            raise bad_request(
                GatewayReason.IDEMPOTENCY_KEY_REUSED,
                "this Idempotency-Key came with another request before; use a new one",
                "Idempotency-Key",
                status=422,
            )
        purchase = self._purchases.get(entry.job)
        # One that was not sent is over with its failure: what it had reserved is free again.
        if purchase is not None and not (purchase.failed and purchase.following.sent):
            return purchase
        if entry.job not in self._tasks:
            self._check_room()
        signed = transactions_pb2.SignedTx(
            body=entry.body, public_key=entry.public_key, signature=entry.signature
        )
        return self._start(entry, signed, sent=True)

    def _undelivered(self, caller: ApiKey, digest: bytes) -> Purchase | None:
        since_s = self._now_s() - RETRY_WITHIN_S
        for purchase in reversed(self._purchases.values()):
            entry = purchase.entry
            if (
                entry.question == digest
                and entry.api_key == caller.name
                and not purchase.delivered
                and not purchase.failed
                and entry.created_s >= since_s
            ):
                return purchase
        return None

    async def _signed(
        self, caller: ApiKey, question: Question, digest: bytes, idempotency: str | None
    ) -> tuple[Entry, transactions_pb2.SignedTx]:
        request = await complete_request(
            self._nodes, question.request, question.model, question.max_price
        )
        if request.max_price > GRAIN_MAX:
            raise Rejection(
                RejectionReason.MAX_TOKENS_OUT_OF_RANGE,
                f"so many tokens may cost {request.max_price} grain, the gateway counts to "
                f"{GRAIN_MAX}: ask for fewer",
            )
        operation = transactions_pb2.Op(request_inference=request)
        signed, body = await self._nodes.sign(caller.payer, operation, caller.account)
        following = self._following(signed, body.chain_id, sent=False)
        entry = Entry(
            job=following.job,
            api_key=caller.name,
            idempotency=idempotency,
            question=digest,
            chain_id=body.chain_id,
            body=signed.body,
            public_key=signed.public_key,
            signature=signed.signature,
            valid_until=body.valid_until_height,
            created_s=int(self._now_s()),
            most=request.max_price + body.max_fee,
        )
        return entry, signed

    def _following(self, signed: transactions_pb2.SignedTx, chain_id: str, sent: bool) -> Following:
        return Following(self._nodes, signed, chain_id, self._trusted, sent)

    def _start(self, entry: Entry, signed: transactions_pb2.SignedTx, sent: bool) -> Purchase:
        if entry.job in self._tasks:  # somebody asked for the same at the same moment
            return self._purchases[entry.job]
        following = self._following(signed, entry.chain_id, sent)
        purchase = Purchase(entry, following)
        self._purchases.pop(entry.job, None)
        self._purchases[entry.job] = purchase
        self._tasks[entry.job] = asyncio.create_task(self._follow(purchase))
        self._tasks[entry.job].add_done_callback(lambda _: self._tasks.pop(entry.job))
        self._forget_old()
        return purchase

    def _forget_old(self) -> None:
        """Of what has ended, first what was delivered, then what ended first."""
        over = [job for job in self._purchases if job not in self._tasks]
        over.sort(key=lambda job: not self._purchases[job].delivered)
        for job in over[: max(0, len(over) - RECENT_MAX)]:
            del self._purchases[job]

    async def _follow(self, purchase: Purchase) -> None:
        following = purchase.following
        failure: Exception | None = NotSettledInTime(
            f"the gateway stopped following job {purchase.entry.job.hex()}; ask again soon"
        )
        settled: Settled | None = None
        try:
            async for event in following.run(self._limits.timeout_s):
                settled = event if isinstance(event, Settled) else None
                purchase.add(event)
            failure = None
        except FAILURES as error:
            failure = error
        finally:
            self._purchases.move_to_end(purchase.entry.job)
            purchase.end(failure)
        try:
            await self._settle(purchase, settled)
        except LATER as error:
            logger.warning("purchase %s stays open: %s", purchase.entry.job.hex(), error)

    async def _settle(self, purchase: Purchase, settled: Settled | None) -> None:
        entry = purchase.entry
        cost: int | None = None
        if settled is not None:
            cost = settled.paid + await self._fee(entry)
        elif not purchase.following.sent:
            cost = 0
        else:
            cost = await self._cost_of(entry)
        if cost is not None:
            await asyncio.to_thread(self._book.settle, entry.job, cost)

    async def _fee(self, entry: Entry) -> int:
        """Of the transaction, which is on chain; what it offered at most if no node says."""
        identity = transaction_id(entry.body, entry.public_key)
        try:
            return (await self._nodes.ask(lambda client: client.wait(identity, FEE_WITHIN_S))).fee
        except FAILURES as error:
            logger.warning("the fee of %s is taken as offered: %s", entry.job.hex(), error)
            return transactions_pb2.TxBody.FromString(entry.body).max_fee

    async def _cost_of(self, entry: Entry) -> int | None:
        """What a purchase has cost, as the chain tells it; None while that is open. What the nodes
        have forgotten cost as much as it may have."""

        async def cost_at(client: NodeClient) -> int | None:
            late = (await self._nodes.status(client)).height > entry.valid_until
            try:
                if (await client.job(entry.job)).status not in FINAL:
                    return None
                receipt = from_protobuf(await client.receipt(entry.job))
            except Rejection as rejection:
                match rejection.reason:
                    case RejectionReason.UNKNOWN_JOB:
                        return await _cost_of_no_job(client, entry) if late else None
                    case RejectionReason.PRUNED:
                        return entry.most
                    case RejectionReason.NOT_READY:
                        return None
                raise
            return Settled(receipt, None, False).paid + await self._fee(entry)

        return await self._nodes.ask(cost_at)


async def _cost_of_no_job(client: NodeClient, entry: Entry) -> int:
    """Of a transaction that opened no job and is too late to: refused in its block, or lost. If
    the node may have forgotten it, all that it may have cost."""
    try:
        status = await client.transaction(transaction_id(entry.body, entry.public_key))
    except Rejection as rejection:
        if rejection.reason is not RejectionReason.NOT_FOUND:
            raise
        try:
            await client.block(max(1, entry.valid_until - VALIDITY_BLOCKS))
        except Rejection as other:
            if other.reason is not RejectionReason.PRUNED:
                raise
            return entry.most
        return 0  # the node has every block that may hold it, and none does
    return entry.most if status.accepted else status.fee
