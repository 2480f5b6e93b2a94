"""One Infer call: what its caller hears, and what is left when the caller has gone."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import TypeVar, cast

import pytest

from assay.v1 import node_pb2, transactions_pb2
from chain.execution import Ledger
from chain.node.inference import InferenceFlow
from chain.node.node import Node
from chain.records import TransactionReceipt
from chain.rejections import Rejection, RejectionReason
from chain.store import Store
from chain.transactions import Transaction, job_id
from tests.chain.ledger_world import ALICE, PASS_ALL, PROVIDERS, World, a_request
from tests.chain.node.agents import SOON_S, store_of

T = TypeVar("T")
SIGNED = transactions_pb2.SignedTx()


class Gateway:
    """The few things of a node that a call needs, over a ledger in memory. Blocks come when told.

    It is also the node's intake and its worker.
    """

    def __init__(self, store: Store, transfer: bool = False) -> None:
        self.store = store
        self.world = World()
        self.world.open_market()
        payment = transactions_pb2.Transfer(to=ALICE, amount=1)
        self.sent = self.world.make(ALICE, payment if transfer else a_request())
        self.outcome: tuple[int, TransactionReceipt] | None = None
        self.chunks: list[node_pb2.TokenChunk] = []
        self.refusal: Rejection | None = None
        self.admitted = 0
        self._executed = asyncio.Event()

    @property
    def intake(self) -> "Gateway":
        return self

    @property
    def worker(self) -> "Gateway":
        return self

    @property
    def height(self) -> int:
        return self.world.ledger.height

    def check(self, _: transactions_pb2.SignedTx) -> Transaction:
        return self.sent

    async def admit(self, transaction: Transaction, *_: transactions_pb2.SignedTx) -> None:
        assert transaction is self.sent
        self.admitted += 1
        if self.refusal is not None:
            raise self.refusal

    async def transaction(self, _: bytes) -> tuple[int, TransactionReceipt] | None:
        return self.outcome

    async def check_prompt(self, request: transactions_pb2.RequestInference) -> None:
        assert request.model

    async def read(self, function: Callable[[Ledger], T]) -> T:
        return function(self.world.ledger)

    async def look_up(self, function: Callable[..., T], *arguments: object) -> T:
        return await asyncio.to_thread(function, *arguments)

    async def wait_transaction(
        self, _: bytes, last_height: int
    ) -> tuple[int, TransactionReceipt] | None:
        while self.outcome is None and self.height <= last_height:
            await self.next_block()
        return self.outcome

    async def next_block(self) -> None:
        await self._executed.wait()

    async def tokens(self, *_: object) -> AsyncIterator[node_pb2.TokenChunk]:
        for chunk in self.chunks:
            yield chunk

    async def wait_receipt(self, _: bytes) -> node_pb2.InferEvent:
        return None  # type: ignore[return-value]  # an event without a receipt marks the end

    def tell(self) -> None:
        executed, self._executed = self._executed, asyncio.Event()
        executed.set()

    def include(self, accepted: bool = True, reason: str = "") -> bytes:
        """Execute the transaction in a block of its own; the job's id."""
        if accepted:
            self.world.waiting.append(self.sent)
        self.world.block()
        self.outcome = (self.height, TransactionReceipt(self.sent.id, accepted, reason, 1))
        self.tell()
        return job_id(self.sent.id, 0)

    def flow(self) -> AsyncIterator[node_pb2.InferEvent]:
        return InferenceFlow(cast(Node, self)).run(SIGNED)


async def following(source: AsyncIterator[node_pb2.InferEvent]) -> node_pb2.InferEvent:
    async with asyncio.timeout(SOON_S):
        return await anext(source)


async def test_a_job_is_followed_from_its_request_to_its_end(tmp_path: Path) -> None:
    with store_of(tmp_path) as (store, _):
        gateway = Gateway(store)
        gateway.chunks = [node_pb2.TokenChunk(text="Ray"), node_pb2.TokenChunk(text="leigh")]
        source = gateway.flow()
        accepted = (await following(source)).accepted
        job = gateway.include()
        assert (accepted.transaction, accepted.job) == (gateway.sent.id, job)
        said = [(await following(source)).status]
        gateway.world.block()
        gateway.tell()
        said.append((await following(source)).status)
        tokens = [(await following(source)).tokens.text for _ in range(2)]
        gateway.world.answer(job)
        gateway.tell()
        said.append((await following(source)).status)
        gateway.world.vote(job, PASS_ALL)
        gateway.tell()
        said.append((await following(source)).status)
        last = await following(source)
        with pytest.raises(StopAsyncIteration):
            await following(source)
    assert [view.status for view in said] == ["REQUESTED", "ASSIGNED", "ANSWERED", "VERIFIED"]
    assert said[1].provider == PROVIDERS[0]
    assert tokens == ["Ray", "leigh"]
    assert last.WhichOneof("kind") is None


async def test_a_request_that_fails_in_its_block_ends_with_that_reason(tmp_path: Path) -> None:
    with store_of(tmp_path) as (store, _):
        gateway = Gateway(store)
        source = gateway.flow()
        await following(source)
        gateway.include(accepted=False, reason=RejectionReason.INSUFFICIENT_BALANCE.value)
        with pytest.raises(Rejection) as caught:
            await following(source)
    assert caught.value.reason is RejectionReason.INSUFFICIENT_BALANCE


async def test_a_request_that_is_never_included_ends_when_it_has_expired(tmp_path: Path) -> None:
    with store_of(tmp_path) as (store, _):
        gateway = Gateway(store)
        source = gateway.flow()
        await following(source)
        while gateway.height <= gateway.sent.body.valid_until_height:
            gateway.world.block()
        gateway.tell()
        with pytest.raises(Rejection) as caught:
            await following(source)
    assert caught.value.reason is RejectionReason.EXPIRED


async def test_who_reads_on_when_the_job_has_left_the_state_still_gets_the_receipt(
    tmp_path: Path,
) -> None:
    with store_of(tmp_path) as (store, _):
        gateway = Gateway(store)
        source = gateway.flow()
        await following(source)
        job = gateway.include()
        assert (await following(source)).status.status == "REQUESTED"
        gateway.world.block()
        gateway.world.answer(job)
        gateway.world.vote(job, PASS_ALL)
        while gateway.world.ledger.job(job) is not None:
            gateway.world.block()
        gateway.tell()
        last = await following(source)
        with pytest.raises(StopAsyncIteration):
            await following(source)
    assert last.WhichOneof("kind") is None


async def test_a_request_that_is_on_chain_already_is_followed_and_not_taken_again(
    tmp_path: Path,
) -> None:
    with store_of(tmp_path) as (store, _):
        gateway = Gateway(store)
        gateway.chunks = [node_pb2.TokenChunk(text="Ray")]
        job = gateway.include()
        gateway.world.block()
        source = gateway.flow()
        assert (await following(source)).accepted.job == job
        assert (await following(source)).status.status == "ASSIGNED"
        assert (await following(source)).tokens.text == "Ray"
    assert gateway.admitted == 0


async def test_a_request_that_waits_here_already_is_followed(tmp_path: Path) -> None:
    with store_of(tmp_path) as (store, _):
        gateway = Gateway(store)
        gateway.refusal = Rejection(RejectionReason.REPLAYED, "already waits here")
        source = gateway.flow()
        await following(source)
        gateway.include()
        assert (await following(source)).status.status == "REQUESTED"


async def test_a_request_whose_job_has_left_the_state_is_answered_with_its_receipt(
    tmp_path: Path,
) -> None:
    with store_of(tmp_path) as (store, _):
        gateway = Gateway(store)
        job = gateway.include()
        gateway.world.block()
        gateway.world.answer(job)
        gateway.world.vote(job, PASS_ALL)
        while gateway.world.ledger.job(job) is not None:
            gateway.world.block()
        source = gateway.flow()
        assert (await following(source)).accepted.job == job
        assert (await following(source)).WhichOneof("kind") is None
        with pytest.raises(StopAsyncIteration):
            await following(source)


async def test_only_a_question_is_taken(tmp_path: Path) -> None:
    with store_of(tmp_path) as (store, _), pytest.raises(Rejection) as caught:
        await following(Gateway(store, transfer=True).flow())
    assert caught.value.reason is RejectionReason.MALFORMED
    assert "transfer" in caught.value.detail


async def test_a_caller_who_hangs_up_leaves_nothing_running(tmp_path: Path) -> None:
    with store_of(tmp_path) as (store, _):
        source = Gateway(store).flow()
        await following(source)
        waiting = asyncio.ensure_future(anext(source))
        await asyncio.sleep(0.01)
        waiting.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await waiting
        for _ in range(3):
            await asyncio.sleep(0)
        assert asyncio.all_tasks() == {asyncio.current_task()}
