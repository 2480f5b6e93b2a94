"""Calls that wait for something are so many and no more, and leave nothing behind."""

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import grpc
import pytest

from assay.v1 import node_pb2, node_pb2_grpc, peer_pb2, peer_pb2_grpc
from chain.node import peers
from chain.node.errors import rejection_of
from chain.node.peers import PeerService
from chain.node.rate_limit import OPEN_CALL_DELAY_MS, OpenCalls, host_of
from chain.node.streams import TokenStreams
from chain.node.traffic import Traffic
from chain.node.unreadable import REQUEST_BYTES_MAX
from chain.rejections import Busy, RejectionReason
from chain.tls import channel_credentials, channel_options, server_credentials
from consensus.messages import Message
from tests.builders import contact, contacts, tls_identity
from tests.chain.node.running_node import running_node, solitary_genesis

SOON_S = 60.0
JOB = b"j" * 32


def test_a_client_gets_so_many_and_all_together_so_many() -> None:
    calls = OpenCalls(all_max=3, client_max=2)
    with calls.open("a"), calls.open("a"):
        with pytest.raises(Busy) as caught, calls.open("a"):
            pass
        assert caught.value.retry_delay_ms == OPEN_CALL_DELAY_MS
        assert "2 calls of yours wait here" in caught.value.detail
        with calls.open("b"):
            with pytest.raises(Busy) as caught, calls.open("c"):
                pass
            assert "3 calls wait here" in caught.value.detail
        with calls.open("c"):
            pass
    with calls.open("a"), calls.open("a"), calls.open("b"):
        pass


def test_a_client_is_a_host_whatever_its_ports() -> None:
    assert host_of("ipv4:10.0.0.1:5001") == host_of("ipv4:10.0.0.1:5002") == "ipv4:10.0.0.1"
    assert host_of("ipv6:%5B::1%5D:5001") == host_of("ipv6:%5B::1%5D:5002")
    assert host_of("ipv4:10.0.0.1:5001") != host_of("ipv4:10.0.0.2:5001")
    assert host_of("unix:/run/a:b") == "unix:/run/a:b"


async def refused(call: Any) -> Busy:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    rejection = rejection_of(caught.value)
    assert isinstance(rejection, Busy)
    return rejection


async def test_waits_and_subscriptions_share_a_clients_bound_until_they_end(
    tmp_path: Path,
) -> None:
    settings = {"calls": {"open_max": 8, "open_max_by_client": 3}}
    async with AsyncExitStack() as stack:
        node, client = await stack.enter_async_context(
            running_node(tmp_path, solitary_genesis("alice"), **settings)
        )
        channel = await stack.enter_async_context(grpc.aio.insecure_channel(client.address))
        transactions = node_pb2_grpc.TransactionsStub(channel)
        chain = node_pb2_grpc.ChainStub(channel)
        waiting: list[Any] = [
            transactions.Wait(node_pb2.TransactionRequest(id=bytes([number]) * 32), timeout=SOON_S)
            for number in range(2)
        ]
        waiting.append(chain.Subscribe(node_pb2.SubscribeRequest(), timeout=SOON_S))
        async with asyncio.timeout(SOON_S):
            while node.open_calls._all < 3:
                await asyncio.sleep(0.01)
            more = node_pb2.TransactionRequest(id=bytes(32))
            assert (await refused(transactions.Wait(more))).retry_delay_ms == OPEN_CALL_DELAY_MS
            await refused(chain.Subscribe(node_pb2.SubscribeRequest()).read())
            inference = node_pb2_grpc.InferenceStub(channel)
            await refused(inference.Infer(node_pb2.InferRequest()).read())
            assert (await client.status()).validator == 0
            for call in waiting:
                call.cancel()
            while node.open_calls._all:
                await asyncio.sleep(0.01)


async def test_a_request_larger_than_any_of_its_kind_is_refused_before_it_is_read(
    tmp_path: Path,
) -> None:
    """A call that waits keeps its request, and a thousand may wait."""
    async with running_node(tmp_path, solitary_genesis("alice")) as (_, client):
        request = node_pb2.TransactionRequest(id=bytes(REQUEST_BYTES_MAX))
        async with grpc.aio.insecure_channel(client.address) as channel:
            stub = node_pb2_grpc.TransactionsStub(channel)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stub.Wait(request, timeout=SOON_S)
        refusal = rejection_of(caught.value)
        assert refusal is not None
        assert refusal.reason is RejectionReason.TOO_LARGE


async def test_a_reader_of_tokens_that_never_come_leaves_nothing_behind() -> None:
    streams = TokenStreams()
    readers = [
        asyncio.ensure_future(anext(streams.read(number.to_bytes(32, "big"), 1)))
        for number in range(100)
    ]
    again = asyncio.ensure_future(anext(streams.read(bytes(32), 1)))
    await asyncio.sleep(0)
    assert not streams._attempts
    for reader in readers:
        reader.cancel()
    await asyncio.gather(*readers, return_exceptions=True)
    assert len(streams._awaited) == 1
    streams.publish(node_pb2.TokenChunk(job=bytes(32), attempt=1, text="word"))
    assert (await asyncio.wait_for(again, SOON_S)).text == "word"
    assert not streams._awaited


async def test_readers_of_unknown_jobs_push_out_no_tokens_that_are_known() -> None:
    streams = TokenStreams()
    streams.publish(node_pb2.TokenChunk(job=JOB, attempt=1, text="kept", last=True))
    readers = [
        asyncio.ensure_future(anext(streams.read(number.to_bytes(32, "big"), 1)))
        for number in range(2000)
    ]
    await asyncio.sleep(0)
    assert [chunk.text async for chunk in streams.read(JOB, 1)] == ["kept"]
    for reader in readers:
        reader.cancel()
    await asyncio.gather(*readers, return_exceptions=True)


async def test_a_peer_reads_so_many_token_streams_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(peers, "TOKEN_CALLS_MAX_BY_PEER", 2)

    async def receive(*_: int | Message) -> None: ...

    async def room(_: int, __: Traffic) -> None: ...

    service = PeerService(contacts(), receive, room, TokenStreams())
    server = grpc.aio.server()
    peer_pb2_grpc.add_PeerServicer_to_server(service, server)
    port = server.add_secure_port("127.0.0.1:0", server_credentials(tls_identity(0), contacts()))
    await server.start()
    credentials, _ = channel_credentials(tls_identity(1), contact(0))
    async with grpc.aio.secure_channel(
        f"127.0.0.1:{port}", credentials, options=channel_options(contact(0))
    ) as channel:
        stub = peer_pb2_grpc.PeerStub(channel)
        request = peer_pb2.TokensRequest(job=JOB, attempt=1)
        calls = [stub.Tokens(request, timeout=SOON_S) for _ in range(2)]
        async with asyncio.timeout(SOON_S):
            while service._reading._all < 2:
                await asyncio.sleep(0.01)
            await refused(stub.Tokens(request).read())
            for call in calls:
                call.cancel()
            while service._reading._all:
                await asyncio.sleep(0.01)
    await server.stop(None)
