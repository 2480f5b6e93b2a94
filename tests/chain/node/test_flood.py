"""Who floods a validator is served as fast as it can, and nobody else is kept waiting for it."""

import asyncio
import itertools
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import grpc
import pytest

from assay.v1 import node_pb2, peer_pb2, peer_pb2_grpc, transactions_pb2
from chain.client import NodeClient
from chain.contacts import Contacts
from chain.genesis import Genesis
from chain.node import services
from chain.node.config import NodeConfig
from chain.node.driver import TURN_BYTES_MAX, Driver
from chain.node.node import LOOKUPS_MAX, Node
from chain.node.recovery import Opened
from chain.node.signer import NodeKeys
from chain.store import Store
from chain.tls import channel_credentials, channel_options
from chain.transactions import make_operation
from consensus.events import (
    Effect,
    Event,
    Executed,
    LoadBatch,
    MessageReceived,
    Start,
    Tick,
    WakeAt,
)
from consensus.messages import BatchMessage, BatchRequest, Message, encode_message
from consensus.replica import Replica
from consensus.values import Batch, BatchHeader, Tip, Vote, VoteBody, VoteKind
from ext.hashing import sha256
from tests.builders import key, tls_identity
from tests.chain.node.running_node import running_node, solitary_genesis

SOON_S = 60.0
FLOODER = 2
STAKES = (100, 100, 1)
"""The first two are a quorum, and neither is without the other."""


class Wires:
    """Keeps what is sent; there is room for answers when told."""

    def __init__(self) -> None:
        self.sent: list[tuple[int, Message]] = []
        self.asked = 0
        self.open = asyncio.Event()

    def send(self, peer: int, message: Message) -> None:
        self.sent.append((peer, message))

    def broadcast(self, _: Message) -> None: ...

    async def room(self, _: int) -> None:
        self.asked += 1
        await self.open.wait()


class Scripted:
    """Stands where the replica would be, and answers with what a function says."""

    def __init__(self, answer: Callable[[Event, int], list[Effect]]) -> None:
        self.step = answer
        self.lane_room = 1


@asynccontextmanager
async def driving(
    answer: Callable[[Event, int], list[Effect]], wires: Wires, store: object = None
) -> AsyncIterator[Driver]:
    clock = itertools.count()  # a millisecond for each look at it
    driver = Driver(
        Opened(0, cast("Replica", Scripted(answer)), None, ""),
        "chain",
        cast("Store", store),
        wires,
        lambda _: None,
        lambda: next(clock),
    )
    running = asyncio.create_task(driver.run())
    try:
        yield driver
    finally:
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running
        driver.close()


def a_vote(view: int) -> Vote:
    body = VoteBody(VoteKind.NOTARIZE, 0, view, 0, sha256(view.to_bytes(8, "big")))
    return Vote(body, FLOODER, bytes(64))


def a_batch(sequence: int, payload: bytes) -> Batch:
    header = BatchHeader(0, FLOODER, sequence, bytes(32), sha256(payload))
    signature = key(f"signing-{FLOODER}").sign(header.signed_message("chain"))
    return Batch(header, signature, payload)


async def test_a_timer_rings_although_there_is_always_something_to_step() -> None:
    rang = asyncio.Event()
    driver: Driver

    def answer(event: Event, now_ms: int) -> list[Effect]:
        if isinstance(event, Tick):
            rang.set()
        else:
            driver.post(Executed(1, bytes(32)))
        return [WakeAt(now_ms + 5)] if isinstance(event, Start) else []

    async with driving(answer, Wires()) as driver, asyncio.timeout(SOON_S):
        await rang.wait()


async def test_a_turn_ends_after_some_bytes_so_that_a_vote_waits_for_no_more() -> None:
    stepped: list[int] = []
    driver: Driver

    def answer(event: Event, _: int) -> list[Effect]:
        if isinstance(event, MessageReceived):
            stepped.append(event.peer)
        return []

    message = BatchMessage(a_batch(1, b"payload"), None)
    async with driving(answer, Wires()) as driver, asyncio.timeout(SOON_S):
        for peer in range(8):
            await driver.receive(peer, message, TURN_BYTES_MAX // 2)
        while not stepped:
            await asyncio.sleep(0)
        await driver.receive(9, a_vote(1), 99)
        while len(stepped) < 9:
            await asyncio.sleep(0)
    assert stepped.index(9) <= 3


async def test_a_peer_gets_one_answer_at_a_time_as_fast_as_it_takes_them() -> None:
    def answer(event: Event, _: int) -> list[Effect]:
        if isinstance(event, MessageReceived):
            return [LoadBatch(event.peer, 0, 1, bytes(32), 1)]
        return []

    batch = a_batch(1, b"payload")

    class Stored:
        def batch_by_digest(self, _: bytes) -> Batch:
            return batch

    wires = Wires()
    async with driving(answer, wires, Stored()) as driver, asyncio.timeout(SOON_S):
        for _ in range(3):
            await driver.receive(FLOODER, BatchRequest(Tip(0, 1, bytes(32)), 1), 99)
        while not wires.asked:
            await asyncio.sleep(0.001)
        assert (wires.asked, wires.sent) == (1, [])
        wires.open.set()
        while len(wires.sent) < 3:
            await asyncio.sleep(0.001)
    assert wires.sent == [(FLOODER, BatchMessage(batch, None))] * 3


def three_validators() -> Genesis:
    chain = solitary_genesis("alice", validators=3)
    staked = tuple(
        replace(entry, stake=stake) for entry, stake in zip(chain.validators, STAKES, strict=True)
    )
    return replace(chain, validators=staked)


@asynccontextmanager
async def validator(folder: Path, genesis: Genesis, index: int) -> AsyncIterator[Node]:
    """One without a public port."""
    folder.mkdir()
    config = NodeConfig.model_validate({"validator": index, "data": folder})
    signing, vrf, account = (key(f"{role}-{index}") for role in ("signing", "vrf", "account"))
    keys = NodeKeys(signing, vrf, account, tls_identity(index))
    node = Node(config, genesis, keys)
    running = asyncio.create_task(node.run())
    try:
        yield node
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


class Flood:
    """Pushes on both streams of a peer as fast as it is read."""

    def __init__(self, genesis: Genesis) -> None:
        self.urgent = 0
        self.bulk = 0
        self._genesis = genesis
        self._payload = bytes(64 * 1024)

    def votes(self) -> Message:
        self.urgent += 1
        return a_vote(1 + self.urgent % 64)

    def batches(self) -> Message:
        self.bulk += 1
        if self.bulk % 2:
            return BatchRequest(Tip(self.bulk % 3, 1, sha256(b"none")), 32)
        return BatchMessage(a_batch(self.bulk, self._payload), None)

    @asynccontextmanager
    async def against(self, index: int) -> AsyncIterator[None]:
        contact = Contacts.of_genesis(self._genesis).all[index]
        credentials, _ = channel_credentials(tls_identity(FLOODER), contact)
        address, options = contact.address, channel_options(contact)
        async with grpc.aio.secure_channel(address, credentials, options=options) as channel:
            stub = peer_pb2_grpc.PeerStub(channel)
            pushing: list[Coroutine[Any, Any, None]] = [
                push(stub.PushUrgent(), self.votes),
                push(stub.Push(), self.batches),
            ]
            tasks = [asyncio.create_task(coroutine) for coroutine in pushing]
            try:
                yield
                for task in tasks:
                    assert not task.done(), task
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)


async def push(call: Any, message: Callable[[], Message]) -> None:
    while True:
        await call.write(peer_pb2.Frame(message=encode_message(message())))


async def transfer(client: NodeClient) -> None:
    paid = transactions_pb2.Transfer(to=key("bob").public_key, amount=1)
    signed = await client.sign(key("alice"), [make_operation(paid)])
    assert (await client.wait(await client.submit(signed), SOON_S)).accepted


async def test_validators_that_are_flooded_by_a_third_go_on_finalizing(tmp_path: Path) -> None:
    genesis = three_validators()
    async with AsyncExitStack() as stack:
        first, client = await stack.enter_async_context(running_node(tmp_path / "a", genesis))
        second = await stack.enter_async_context(validator(tmp_path / "b", genesis, 1))
        await transfer(client)
        flood = Flood(genesis)
        await stack.enter_async_context(flood.against(0))
        await stack.enter_async_context(flood.against(1))
        async with asyncio.timeout(SOON_S):
            for _ in range(3):
                before = flood.urgent, flood.bulk
                await transfer(client)
                while flood.urgent == before[0] or flood.bulk == before[1]:
                    await asyncio.sleep(0.01)
            while second.height < first.height:
                await asyncio.sleep(0.01)
        assert flood.urgent > 100
        assert flood.bulk > 10


async def test_a_flood_of_lookups_does_not_hold_up_blocks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = threading.Event()

    def block_view(_: Store, height: int) -> node_pb2.BlockView:
        assert held.wait(SOON_S)
        return node_pb2.BlockView(height=height)

    monkeypatch.setattr(services, "block_view", block_view)
    async with (
        running_node(tmp_path, solitary_genesis("alice")) as (node, client),
        asyncio.timeout(SOON_S),
    ):
        paid = transactions_pb2.Transfer(to=key("bob").public_key, amount=1)
        sent = [await client.sign(key("alice"), [make_operation(paid)]) for _ in range(3)]
        flood = [asyncio.create_task(client.block(1)) for _ in range(100)]
        while not node._lookups.locked():
            await asyncio.sleep(0.01)
        for signed in sent:  # each in a block of its own, for which somebody waits
            identity = await client.submit(signed)
            waiting = asyncio.create_task(node.wait_transaction(identity, 1_000))
            before = node.height
            while node.height == before:
                await asyncio.sleep(0.01)
            waiting.cancel()
        held.set()
        assert [view.height for view in await asyncio.gather(*flood)] == [1] * 100


async def test_a_lookup_that_nobody_waits_for_any_more_still_counts(tmp_path: Path) -> None:
    held = threading.Event()
    begun: list[int] = []

    def look(number: int) -> int:
        begun.append(number)
        assert held.wait(SOON_S)
        return number

    async with (
        running_node(tmp_path, solitary_genesis("alice")) as (node, _),
        asyncio.timeout(SOON_S),
    ):
        gone = [asyncio.create_task(node.look_up(look, number)) for number in range(LOOKUPS_MAX)]
        while len(begun) < LOOKUPS_MAX:
            await asyncio.sleep(0.01)
        for task in gone:
            task.cancel()
        await asyncio.gather(*gone, return_exceptions=True)
        later = asyncio.create_task(node.look_up(look, LOOKUPS_MAX))
        await asyncio.sleep(0.1)
        assert len(begun) == LOOKUPS_MAX
        held.set()
        assert await later == LOOKUPS_MAX
