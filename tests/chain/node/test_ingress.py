"""Transactions by the thousand into a running node: exactly the bad ones are refused, and no more
waits anywhere than is allowed."""

import asyncio
import re
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import grpc
import numpy as np
import pytest

from assay.v1 import node_pb2, node_pb2_grpc, transactions_pb2
from chain.client import NodeClient
from chain.execution import Ledger
from chain.genesis import Genesis
from chain.node.driver import UNPROVEN_BATCHES_MAX
from chain.node.errors import rejection_of
from chain.node.ingress import CALLS_MAX, FRAMES_MAX, STREAMS_MAX, Ingress, encode_reply, slices
from chain.node.intake import Intake
from chain.node.node import Node
from chain.rejections import Busy, Rejection, RejectionReason
from chain.transactions import (
    SUBMIT_BYTES_MAX,
    SUBMIT_MANY_MAX,
    Transaction,
    make_operation,
    sign_transaction,
)
from consensus.messages import Status
from ext.transactions import signing_digest, transaction_id
from tests.builders import key
from tests.chain.node.running_node import RICH, running_node, solitary_genesis

SOON_S = 60.0
MAX_FEE = 10_000_000
Signed = transactions_pb2.SignedTx
Outcome = node_pb2.SubmitManyReply.Outcome
T = TypeVar("T")


def a_transfer(
    genesis: Genesis,
    salt: int,
    sender: str = "alice",
    amount: int = 1,
    chain_id: str = "",
    valid_until_height: int = 200,
    max_fee: int = MAX_FEE,
    operations: int = 1,
) -> Signed:
    """Pays bob, who has nothing before."""
    transfer = transactions_pb2.Transfer(to=key("bob").public_key, amount=amount)
    return sign_transaction(
        key(sender).signing_key,
        chain_id or genesis.chain_id,
        [make_operation(transfer)] * operations,
        valid_until_height,
        max_fee,
        salt,
    )


def id_of(signed: Signed) -> bytes:
    return transaction_id(signed.body, signed.public_key)


def body_of(genesis: Genesis, body: bytes) -> Signed:
    """Any bytes, rightly signed by alice."""
    alice = key("alice")
    signature = alice.sign(signing_digest(genesis.chain_id.encode(), body))
    return Signed(body=body, public_key=alice.public_key, signature=signature)


def forged(signed: Signed) -> Signed:
    """The same without its sender's signature."""
    return Signed(body=signed.body, public_key=signed.public_key, signature=bytes(64))


def resigned(signed: Signed, change: Callable[[transactions_pb2.TxBody], Any]) -> bytes:
    body = transactions_pb2.TxBody.FromString(signed.body)
    change(body)
    return body.SerializeToString(deterministic=True)


async def balance(client: NodeClient, name: str) -> int:
    return (await client.account(key(name).public_key)).balance


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(SOON_S):
        while not holds():
            await asyncio.sleep(0.01)


async def until_executed(client: NodeClient, signed: Sequence[Signed]) -> None:
    async with asyncio.timeout(SOON_S):
        for transaction in signed:
            assert (await client.wait(id_of(transaction), SOON_S)).accepted


def numberless(detail: str) -> str:
    """Balances and heights move on between two calls."""
    return re.sub(r"\d+", "N", detail)


async def refused(call: Any) -> Rejection:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    rejection = rejection_of(caught.value)
    assert rejection is not None, caught.value
    return rejection


async def test_of_4096_exactly_the_bad_are_refused_each_with_its_reason_and_text(
    tmp_path: Path,
) -> None:
    genesis = solitary_genesis("alice")
    sent = [a_transfer(genesis, salt) for salt in range(SUBMIT_MANY_MAX)]
    expected: dict[int, str] = {}

    def spoil(place: int, signed: Signed, reason: RejectionReason) -> None:
        sent[place] = signed
        expected[place] = reason.value

    for place in (0, 7, 4095):
        spoil(place, forged(sent[7]), RejectionReason.BAD_SIGNATURE)
    spoil(9, sent[8], RejectionReason.REPLAYED)
    spoil(11, a_transfer(genesis, 11, chain_id="elsewhere-1"), RejectionReason.WRONG_CHAIN)
    elsewhere = a_transfer(genesis, 10, chain_id="elsewhere-1")
    spoil(10, forged(elsewhere), RejectionReason.WRONG_CHAIN)
    spoil(12, body_of(genesis, b"\xff" * 30), RejectionReason.MALFORMED)
    spoil(21, forged(body_of(genesis, b"\xff" * 30)), RejectionReason.BAD_SIGNATURE)
    spoil(13, a_transfer(genesis, 13, amount=0), RejectionReason.AMOUNT_ZERO)
    spoil(14, a_transfer(genesis, 14, amount=2 * RICH), RejectionReason.INSUFFICIENT_BALANCE)
    spoil(15, a_transfer(genesis, 15, sender="carol"), RejectionReason.INSUFFICIENT_BALANCE)
    spoil(16, a_transfer(genesis, 16, max_fee=1), RejectionReason.FEE_TOO_LOW)
    spoil(17, a_transfer(genesis, 17, valid_until_height=0), RejectionReason.EXPIRED)
    spoil(18, a_transfer(genesis, 18, valid_until_height=9_999), RejectionReason.TOO_FAR_AHEAD)
    empty = body_of(genesis, resigned(sent[19], lambda body: body.ClearField("ops")))
    spoil(19, empty, RejectionReason.NO_OPERATIONS)
    async with running_node(tmp_path, genesis) as (node, client):
        before = await client.submit_many([sent[20]])
        assert before[0].reason == ""
        await until_executed(client, [sent[20]])
        expected[20] = RejectionReason.REPLAYED.value
        outcomes = await client.submit_many(sent)
        told = {place: item.reason for place, item in enumerate(outcomes) if item.reason}
        assert told == expected
        assert [item.id for item in outcomes] == [id_of(signed) for signed in sent]
        good = [signed for place, signed in enumerate(sent) if place not in expected]
        await until_executed(client, good[-1:])
        await until_executed(client, good[::500])
        assert await balance(client, "bob") == len(good) + 1
        for place in expected:  # the same words, whichever way it came
            if place in {9, 20}:
                continue
            with pytest.raises(Rejection) as caught:
                await client.submit(sent[place])
            assert caught.value.reason == outcomes[place].reason
            assert numberless(caught.value.detail) == numberless(outcomes[place].detail)
        assert node.intake.pending == 0


async def test_a_request_that_is_not_canonical_is_refused_whole(tmp_path: Path) -> None:
    genesis = solitary_genesis("alice")
    good = node_pb2.SubmitManyRequest(transactions=[a_transfer(genesis, 1)]).SerializeToString()
    async with running_node(tmp_path, genesis) as (node, client):
        async with grpc.aio.insecure_channel(client.address) as channel:
            call: Any = channel.unary_unary("/assay.v1.Transactions/SubmitMany")
            for request in (
                b"\xff" * 9,
                good[:-1],
                good + b"\x1a\x01x",
                good + b"\x12\x03att",
                good + good[:1] + b"\x80" + good[1:],
            ):
                rejection = await refused(call(request))
                assert rejection.reason is RejectionReason.MALFORMED
                assert "schemas of this version" in rejection.detail
            rejection = await refused(call(b"\x0a\x00" * (SUBMIT_MANY_MAX + 1)))
            assert rejection.reason is RejectionReason.TOO_LARGE
            assert "4097 transactions" in rejection.detail
            rejection = await refused(call(bytes(SUBMIT_BYTES_MAX + 1)))
            assert rejection.reason is RejectionReason.TOO_LARGE
            assert node.intake.pending == 0
            assert await call(b"") == b""
        assert [item.reason for item in await client.submit_many([a_transfer(genesis, 1)])] == [""]


async def test_operations_of_every_kind_come_in_and_are_judged_by_the_ledger(
    tmp_path: Path,
) -> None:
    genesis = solitary_genesis("alice", "carol")

    def stake(sender: str, amount: int) -> Signed:
        operation = make_operation(transactions_pb2.Stake(amount=amount))
        signer = key(sender).signing_key
        return sign_transaction(signer, genesis.chain_id, [operation], 200, MAX_FEE, 1)

    unsigned = stake("carol", 3)
    unsigned.signature = bytes(64)
    async with running_node(tmp_path, genesis) as (_, client):
        sent = [stake("alice", 5), stake("carol", 2 * RICH), unsigned, a_transfer(genesis, 1)]
        outcomes = await client.submit_many(sent)
        reasons = [item.reason for item in outcomes]
        assert reasons == ["", "INSUFFICIENT_BALANCE", "BAD_SIGNATURE", ""]
        await until_executed(client, [sent[0], sent[3]])
        assert (await client.account(key("alice").public_key)).stake == 5


class Closed:
    """A lane without room, until it is opened."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._room = node.intake._lane_room
        node.intake._lane_room = lambda: 0

    def open(self) -> None:
        self._node.intake._lane_room = self._room


async def test_a_full_queue_says_busy_and_loses_nothing_that_it_accepted(tmp_path: Path) -> None:
    genesis = solitary_genesis("alice")
    sent = [a_transfer(genesis, salt, operations=100) for salt in range(600)]
    limit = SUBMIT_BYTES_MAX
    async with running_node(tmp_path, genesis, pending_bytes_max=limit) as (node, client):
        lane = Closed(node)
        outcomes = await client.submit_many(sent, deadline_s=0)
        reasons = [item.reason for item in outcomes]
        admitted = reasons.count("")
        assert 0 < admitted < len(sent)
        assert reasons == [""] * admitted + ["BUSY"] * (len(sent) - admitted)
        assert node.intake.pending == admitted
        size = len(node_pb2.SubmitManyRequest(transactions=sent[:admitted]).SerializeToString())
        assert limit - len(sent[0].SerializeToString()) - 8 < size <= limit
        async with grpc.aio.insecure_channel(client.address) as channel:
            stub = node_pb2_grpc.TransactionsStub(channel)
            request = node_pb2.SubmitManyRequest(transactions=sent[admitted : admitted + 9])
            busy = await refused(stub.SubmitMany(request))
            assert isinstance(busy, Busy)
            assert busy.retry_delay_ms > 0
        retry = asyncio.create_task(client.submit_many(sent[admitted:], SOON_S))
        await asyncio.sleep(0.1)
        assert not retry.done()
        lane.open()
        assert {item.reason for item in await retry} == {""}
        await until_executed(client, [sent[0], sent[admitted - 1], sent[-1]])
        assert await balance(client, "bob") == 100 * len(sent)


async def test_without_peers_that_take_its_batches_a_node_keeps_what_clients_sent_and_says_busy(
    tmp_path: Path,
) -> None:
    genesis = solitary_genesis("alice", validators=4)
    sent = [a_transfer(genesis, salt, operations=100) for salt in range(300)]
    settings = {"pending_bytes_max": SUBMIT_BYTES_MAX, "batch_bytes": 8 * 1024}
    async with running_node(tmp_path, genesis, **settings) as (node, client):
        for peer in (1, 2, 3):  # nobody has anything of ours: the lane is open
            await node.driver.receive(peer, Status(1, 0, 0, ()), size_bytes=0)
        outcomes = await client.submit_many(sent, deadline_s=1)
        admitted = sum(not item.reason for item in outcomes)
        assert {item.reason for item in outcomes} == {"", "BUSY"}
        await until(lambda: node.driver.replica.lane_unproven == UNPROVEN_BATCHES_MAX)
        assert node.driver.seal_room == 0
        assert 0 < node.intake.pending < admitted


async def test_requests_that_are_being_checked_count_against_the_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    genesis = solitary_genesis("alice")
    sent = [a_transfer(genesis, salt, operations=100) for salt in range(200)]
    parts = [sent[start : start + 20] for start in range(0, 200, 20)]
    async with running_node(tmp_path, genesis, pending_bytes_max=SUBMIT_BYTES_MAX) as (
        node,
        client,
    ):
        Closed(node)
        intake = node.intake
        held: list[int] = []

        def note(change: Callable[[int], T]) -> Callable[[int], T]:
            """What waits or is being checked grows by no other way than these."""

            def noting(size_bytes: int) -> T:
                result = change(size_bytes)
                held.append(intake._pending_bytes + intake._reserved_bytes)
                return result

            return noting

        monkeypatch.setattr(intake, "reserve", note(intake.reserve))
        monkeypatch.setattr(intake, "release", note(intake.release))
        told = await asyncio.gather(*(client.submit_many(part, 0) for part in [*parts, *parts]))
        counted = Counter(item.reason for outcomes in told for item in outcomes)
        assert counted[""] == intake.pending > 0
        assert len(held) >= 2 * len(told)
        assert 0 < max(held) <= SUBMIT_BYTES_MAX
        assert intake._reserved_bytes == 0


async def test_a_stream_is_read_on_only_while_there_is_room_and_all_of_it_is_executed(
    tmp_path: Path,
) -> None:
    genesis = solitary_genesis("alice")
    frames = [
        [a_transfer(genesis, 50 * number + place, operations=100) for place in range(50)]
        for number in range(12)
    ]
    async with running_node(tmp_path, genesis, pending_bytes_max=SUBMIT_BYTES_MAX) as (
        node,
        client,
    ):
        lane = Closed(node)
        replies: list[Sequence[Outcome]] = []

        async def source() -> AsyncIterator[Sequence[Signed]]:
            for frame in frames:
                yield frame

        async def follow() -> None:
            async for outcomes in client.submit_stream(source(), SOON_S):
                replies.append(outcomes)

        following = asyncio.create_task(follow())
        size = len(node_pb2.SubmitManyRequest(transactions=frames[0]).SerializeToString())
        fitting = SUBMIT_BYTES_MAX // size
        await until(lambda: len(replies) >= fitting)
        await asyncio.sleep(0.3)
        assert len(replies) == fitting < len(frames)
        assert not following.done()
        lane.open()
        await following
        reasons = [item.reason for outcomes in replies for item in outcomes]
        assert reasons == [""] * 600
        ids = [item.id for outcomes in replies for item in outcomes]
        assert ids == [id_of(signed) for frame in frames for signed in frame]
        await until_executed(client, [frames[0][0], frames[-1][-1]])
        assert await balance(client, "bob") == 60_000


async def test_a_stream_whose_replies_nobody_takes_has_few_frames_under_way() -> None:
    """Straight at the ingress, so that nothing between buffers replies."""
    taken = 0

    async def requests() -> AsyncIterator[bytes]:
        nonlocal taken
        while True:
            taken += 1
            yield b""

    genesis = solitary_genesis("alice")
    ingress = ingress_alone(genesis)
    stream = ingress.stream(requests())
    assert await anext(stream) == b""
    await asyncio.sleep(0.05)
    assert taken == FRAMES_MAX
    assert await anext(stream) == b""
    await asyncio.sleep(0.05)
    assert taken == FRAMES_MAX + 1
    await stream.aclose()
    assert ingress._streams == 0


async def at_once(function: Callable[..., Any], *arguments: object) -> Any:
    return function(*arguments)


async def test_a_stream_that_breaks_off_at_any_point_gives_its_room_back() -> None:
    async def requests() -> AsyncIterator[bytes]:
        yield b"not a request"
        await asyncio.Event().wait()

    async def read(stream: AsyncGenerator[bytes, None]) -> None:
        async for _ in stream:
            pass

    ingress = ingress_alone(solitary_genesis("alice"))
    for turns in range(12):
        stream = ingress.stream(requests())
        reader = asyncio.create_task(read(stream))
        for _ in range(turns):
            await asyncio.sleep(0)
        reader.cancel()
        await asyncio.gather(reader, return_exceptions=True)
        await stream.aclose()
        assert ingress._intake._reserved_bytes == 0


def ingress_alone(genesis: Genesis, in_pipeline: Any = at_once) -> Ingress:
    class Worker:
        async def read(self, function: Callable[[Ledger], Any]) -> Any:
            return {}

    worker: Any = Worker()
    intake = Intake(genesis.chain_id, worker, lambda _: None, lambda: 0, 1024, 1, SUBMIT_BYTES_MAX)
    return Ingress(genesis.chain_id, worker, intake, in_pipeline)


async def test_a_caller_who_goes_away_gives_the_room_back() -> None:
    genesis = solitary_genesis("alice")
    started, go_on = asyncio.Event(), asyncio.Event()

    async def in_pipeline(function: Callable[..., Any], *arguments: object) -> Any:
        started.set()
        await go_on.wait()
        return function(*arguments)

    ingress = ingress_alone(genesis, in_pipeline)
    request = node_pb2.SubmitManyRequest(transactions=[a_transfer(genesis, 1)]).SerializeToString()
    call = asyncio.create_task(ingress.submit_many(request))
    await started.wait()
    assert ingress._intake.reserve(SUBMIT_BYTES_MAX) == SUBMIT_BYTES_MAX - len(request)
    ingress._intake.release(SUBMIT_BYTES_MAX - len(request))
    call.cancel()
    await asyncio.gather(call, return_exceptions=True)
    assert ingress._intake.reserve(SUBMIT_BYTES_MAX) == SUBMIT_BYTES_MAX
    assert ingress._calls == 0


async def test_only_so_many_calls_are_checked_at_once() -> None:
    genesis = solitary_genesis("alice")
    go_on = asyncio.Event()

    async def in_pipeline(function: Callable[..., Any], *arguments: object) -> Any:
        await go_on.wait()
        return function(*arguments)

    ingress = ingress_alone(genesis, in_pipeline)
    calls = [asyncio.create_task(ingress.submit_many(b"")) for _ in range(CALLS_MAX)]
    await asyncio.sleep(0)
    with pytest.raises(Busy) as caught:
        await ingress.submit_many(b"")
    assert "SubmitStream" in caught.value.detail
    go_on.set()
    assert await asyncio.gather(*calls) == [b""] * CALLS_MAX
    assert await ingress.submit_many(b"") == b""


async def test_a_bad_frame_ends_its_stream_after_the_replies_to_those_before(
    tmp_path: Path,
) -> None:
    genesis = solitary_genesis("alice")
    good = node_pb2.SubmitManyRequest(transactions=[a_transfer(genesis, 1)]).SerializeToString()
    async with running_node(tmp_path, genesis) as (node, client):
        async with grpc.aio.insecure_channel(client.address) as channel:
            method: Any = channel.stream_stream("/assay.v1.Transactions/SubmitStream")
            call = method(timeout=SOON_S)
            await call.write(good)
            reply = node_pb2.SubmitManyReply.FromString(await call.read())
            assert [item.reason for item in reply.outcomes] == [""]
            await call.write(b"\xff\xff")
            assert (await refused(call.read())).reason is RejectionReason.MALFORMED
        await until_executed(client, [a_transfer(genesis, 1)])
        assert node.ingress._streams == 0


async def test_there_are_only_so_many_streams(tmp_path: Path) -> None:
    genesis = solitary_genesis("alice")
    async with running_node(tmp_path, genesis) as (node, client):
        async with grpc.aio.insecure_channel(client.address) as channel:
            method: Any = channel.stream_stream("/assay.v1.Transactions/SubmitStream")
            calls = [method(timeout=SOON_S) for _ in range(STREAMS_MAX)]
            for call in calls:
                await call.write(b"")
                assert await call.read() == b""
            late = method(timeout=SOON_S)
            # Nothing is written: a refusal that is sooner would meet the writing.
            busy = await refused(late.read())
            assert isinstance(busy, Busy)
            assert "use SubmitMany" in busy.detail
            for call in calls:
                await call.done_writing()
                assert await call.read() is grpc.aio.EOF
        assert node.ingress._streams == 0


async def test_who_calls_submit_too_often_is_told_what_to_do_and_others_are_not(
    tmp_path: Path,
) -> None:
    genesis = solitary_genesis("alice")
    limits = {"per_second": 1, "burst": 3}
    async with running_node(tmp_path, genesis, submit=limits) as (_, client):
        calls = (client.submit(a_transfer(genesis, salt)) for salt in range(9))
        told = await asyncio.gather(*calls, return_exceptions=True)
        refusals = [item for item in told if isinstance(item, BaseException)]
        assert len(told) - len(refusals) >= limits["burst"]
        assert refusals
        for refusal in refusals:
            assert isinstance(refusal, Busy)
            assert "SubmitMany" in refusal.detail
            assert 0 < refusal.retry_delay_ms <= 1_000
        options = [("grpc.use_local_subchannel_pool", 1)]
        async with grpc.aio.insecure_channel(client.address, options=options) as other:
            stub = node_pb2_grpc.TransactionsStub(other)
            request = node_pb2.SubmitRequest(transaction=a_transfer(genesis, 100))
            assert (await stub.Submit(request)).id == id_of(a_transfer(genesis, 100))


def test_a_reply_reads_as_the_message_it_is() -> None:
    ids = np.arange(5 * 32, dtype=np.uint8).reshape(5, 32)
    for places in ([], [0], [4], [1, 2], [0, 1, 2, 3, 4]):
        refusals = {
            place: Rejection(RejectionReason.EXPIRED, f"text of {place}") for place in places
        }
        reply = node_pb2.SubmitManyReply.FromString(encode_reply(ids, refusals, 7))
        assert reply.retry_delay_ms == 7
        assert [item.id for item in reply.outcomes] == [row.tobytes() for row in ids]
        assert [item.reason for item in reply.outcomes] == [
            "EXPIRED" if place in places else "" for place in range(5)
        ]
        details = [item.detail for item in reply.outcomes]
        assert details == [f"text of {place}" if place in places else "" for place in range(5)]


def test_slow_operations_are_admitted_in_slices_and_none_is_left_out() -> None:
    others = {
        place: Transaction(b"", b"", None, transactions_pb2.TxBody(), 0, (b"",) * count)
        for place, count in enumerate((200, 300, 13, 256, 256, 1, 600, 2))
    }
    parts = list(slices(others))
    assert [list(part) for part in parts] == [[0, 1], [2, 3], [4, 5], [6], [7]]
    assert {place for part in parts for place in part} == set(others)
    assert list(slices({})) == []
