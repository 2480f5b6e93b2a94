"""Who asks for what is pruned is told so, with the oldest height there is, also if it is pruned at
that very moment."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import grpc
import pytest

from assay.v1 import node_pb2, node_pb2_grpc, transactions_pb2
from chain import pruning
from chain.client import NodeClient
from chain.node.errors import CallContext
from chain.node.node import Node
from chain.node.services import ChainService
from chain.node.views import block_view, settled_job_view
from chain.pruning import PruningPolicy
from chain.rejections import Rejection, RejectionReason
from chain.store import LeafLocation, Store
from chain.transactions import make_operation
from tests.builders import key
from tests.chain.finished_job import JOB, JOB_HEIGHT, Chain
from tests.chain.node.agents import store_of
from tests.chain.node.running_node import running_node, solitary_genesis

SOON_S = 60.0


@pytest.fixture(autouse=True)
def few_blocks_are_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    """A node keeps the last two blocks here, instead of 512."""
    monkeypatch.setattr(pruning, "KEEP_BLOCKS_MIN", 2)


def prune(store: Store) -> int:
    """Forget what may be forgotten; the oldest height that is left."""
    store.prune(PruningPolicy(keep_blocks=2))
    return store.pruned_through + 1


@asynccontextmanager
async def a_node(folder: Path) -> AsyncIterator[tuple[Node, NodeClient, bytes]]:
    """A node, its client, and a transaction in one of its first blocks."""
    async with running_node(folder, solitary_genesis("alice")) as (node, client):
        yield node, client, await a_block(client)


async def a_block(client: NodeClient) -> bytes:
    """The transaction in it."""
    paid = transactions_pb2.Transfer(to=key("bob").public_key, amount=1)
    identity = await client.submit(await client.sign(key("alice"), [make_operation(paid)]))
    assert (await client.wait(identity, SOON_S)).accepted
    return identity


async def until_height(node: Node, client: NodeClient, height: int) -> None:
    async with asyncio.timeout(SOON_S):
        while node.height < height:
            await a_block(client)


async def test_a_pruned_block_is_refused_as_such_over_grpc(tmp_path: Path) -> None:
    async with a_node(tmp_path) as (node, client, _):
        await until_height(node, client, 5)
        oldest = await asyncio.to_thread(prune, node.store)
        assert oldest > 1
        assert (await client.block(oldest)).height == oldest
        with pytest.raises(Rejection) as caught:
            await client.block(1)
    assert caught.value.reason is RejectionReason.PRUNED
    assert caught.value.detail == (
        f"block 1 is pruned: this node keeps blocks from height {oldest}; ask a node that keeps "
        "the archive"
    )


class Context:
    """What a handler sees of a call."""

    def peer(self) -> str:
        return "ipv4:127.0.0.1:1"


async def test_a_subscriber_that_is_too_slow_is_told_what_it_missed(tmp_path: Path) -> None:
    async with a_node(tmp_path) as (node, client, _):
        source = ChainService(node).Subscribe(
            node_pb2.SubscribeRequest(), cast("CallContext", Context())
        )
        first = asyncio.ensure_future(anext(source))
        await a_block(client)
        async with asyncio.timeout(SOON_S):
            seen = (await first).height
            await until_height(node, client, seen + 4)
            oldest = await asyncio.to_thread(prune, node.store)
            assert oldest > seen + 1
            with pytest.raises(Rejection) as caught:
                await anext(source)
    assert caught.value.reason is RejectionReason.PRUNED
    assert f"block {seen + 1} is pruned" in caught.value.detail
    assert f"from height {oldest};" in caught.value.detail


def racing(store: Store, find: Callable[[bytes], LeafLocation | None]) -> Any:
    """A lookup behind which everything is pruned at once."""

    def found(identity: bytes) -> LeafLocation | None:
        location = find(identity)
        prune(store)
        return location

    return found


async def test_a_transaction_that_is_pruned_while_it_is_looked_up_is_refused_as_such(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with a_node(tmp_path) as (node, client, identity):
        await until_height(node, client, 5)
        store = node.store
        monkeypatch.setattr(
            store, "transaction_location", racing(store, store.transaction_location)
        )
        async with grpc.aio.insecure_channel(client.address) as channel:
            stub = node_pb2_grpc.TransactionsStub(channel)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stub.Get(node_pb2.TransactionRequest(id=identity), timeout=SOON_S)
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    assert "is pruned: this node keeps blocks from height" in (caught.value.details() or "")


def test_a_job_that_is_pruned_while_it_is_looked_up_is_refused_as_such(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with store_of(tmp_path) as (store, chain):
        finish_a_job(chain)
        assert settled_job_view(JOB, store) is not None
        monkeypatch.setattr(store, "job_location", racing(store, store.job_location))
        with pytest.raises(Rejection) as caught:
            settled_job_view(JOB, store)
    assert caught.value.reason is RejectionReason.PRUNED


def finish_a_job(chain: Chain) -> None:
    chain.run_job()
    for _ in range(5):
        chain.commit()


def test_a_block_that_is_pruned_while_it_is_read_is_not_taken_for_an_empty_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with store_of(tmp_path) as (store, chain):
        finish_a_job(chain)
        read = store.block_by_height

        def block_by_height(height: int) -> Any:
            stored = read(height)
            prune(store)
            return stored

        monkeypatch.setattr(store, "block_by_height", block_by_height)
        with pytest.raises(Rejection) as caught:
            block_view(store, JOB_HEIGHT)
    assert caught.value.reason is RejectionReason.PRUNED
