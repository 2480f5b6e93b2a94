"""What a peer sends is taken as fast as it is worked off, from one call at a time."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest

from assay.v1 import peer_pb2, peer_pb2_grpc
from chain.contacts import Contact, Contacts
from chain.node.peers import FRAME_BYTES_MAX, PeerLink, Peers, PeerService
from chain.node.streams import TokenStreams
from chain.node.traffic import Traffic
from chain.tls import (
    TlsIdentity,
    channel_credentials,
    channel_options,
    new_identity,
    server_credentials,
)
from consensus.messages import BatchMessage, Message, encode_message
from consensus.values import Batch, BatchHeader
from ext.hashing import sha256
from tests.builders import contact, contacts, tls_identity

SOON_S = 60.0
PAYLOAD = bytes(1024 * 1024)
FRAMES = 24


class Receiver:
    """Takes messages, and is done with each when told."""

    def __init__(self) -> None:
        self.taken: list[tuple[int, int]] = []
        self.open = asyncio.Event()
        self.has_room = asyncio.Event()
        self.has_room.set()
        self.asked_for_room = 0

    async def __call__(self, peer: int, _: Message, size_bytes: int) -> None:
        self.taken.append((peer, size_bytes))
        await self.open.wait()

    async def room(self, _: int, __: Traffic) -> None:
        self.asked_for_room += 1
        await self.has_room.wait()

    async def until(self, count: int) -> None:
        async with asyncio.timeout(SOON_S):
            while len(self.taken) < count:
                await asyncio.sleep(0.005)


@asynccontextmanager
async def serving(
    receiver: Receiver, identity: TlsIdentity | None = None, known: Contacts | None = None
) -> AsyncIterator[int]:
    """A validator's side of the wires, by default 0's; yields its port."""
    known = known or contacts()
    limit = [("grpc.max_receive_message_length", FRAME_BYTES_MAX)]
    server = grpc.aio.server(options=limit)
    service = PeerService(known, receiver, receiver.room, TokenStreams())
    peer_pb2_grpc.add_PeerServicer_to_server(service, server)
    port = server.add_secure_port(
        "127.0.0.1:0", server_credentials(identity or tls_identity(0), known)
    )
    await server.start()
    try:
        yield port
    finally:
        receiver.open.set()
        await server.stop(None)


@asynccontextmanager
async def pushing(port: int, index: int) -> AsyncIterator[Any]:
    """A call of validator `index`."""
    credentials, _ = channel_credentials(tls_identity(index), contact(0))
    options = channel_options(contact(0))
    async with grpc.aio.secure_channel(f"127.0.0.1:{port}", credentials, options) as channel:
        yield peer_pb2_grpc.PeerStub(channel).Push(timeout=SOON_S)


def a_message(sequence: int = 1) -> BatchMessage:
    header = BatchHeader(0, 1, sequence, bytes(32), sha256(PAYLOAD))
    return BatchMessage(Batch(header, bytes(64), PAYLOAD), None)


def a_frame(sequence: int = 1) -> peer_pb2.Frame:
    return peer_pb2.Frame(message=encode_message(a_message(sequence)))


@asynccontextmanager
async def far_away(port: int, one_way_s: float) -> AsyncIterator[int]:
    """A port whose bytes take so long to and from another port."""

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        loop = asyncio.get_running_loop()
        while data := await reader.read(65_536):
            loop.call_later(one_way_s, writer.write, data)

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there_reader, there_writer = await asyncio.open_connection("127.0.0.1", port)
        ways = (carry(reader, there_writer), carry(there_reader, writer))
        await asyncio.gather(*ways, return_exceptions=True)

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def test_a_peer_on_the_other_side_of_the_world_is_reached() -> None:
    connected = asyncio.Event()
    async with serving(Receiver()) as port, far_away(port, one_way_s=0.4) as far:
        link = PeerLink(contact(0), tls_identity(1), lambda _: connected.set(), f"127.0.0.1:{far}")
        running = asyncio.create_task(link.run())
        try:
            async with asyncio.timeout(SOON_S):
                await connected.wait()
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)


async def test_a_peer_is_read_no_further_until_what_it_sent_is_worked_off() -> None:
    receiver = Receiver()
    async with serving(receiver) as port, pushing(port, 1) as call:

        async def send_all() -> None:
            for sequence in range(FRAMES):
                await call.write(a_frame(sequence))
            await call.done_writing()

        sending = asyncio.create_task(send_all())
        await receiver.until(1)
        await asyncio.sleep(0.3)
        assert receiver.taken == [(1, len(a_frame().message))]
        assert not sending.done()
        receiver.open.set()
        await sending
        assert (await call).frames == FRAMES
        assert len(receiver.taken) == FRAMES


async def test_the_newest_call_of_a_peer_takes_over_and_others_are_left_alone() -> None:
    receiver = Receiver()
    receiver.open.set()
    async with serving(receiver) as port, pushing(port, 1) as old, pushing(port, 2) as other:
        await old.write(a_frame())
        await receiver.until(1)
        await other.write(a_frame())
        await receiver.until(2)
        async with pushing(port, 1) as new:
            await new.write(a_frame())
            await receiver.until(3)
            await old.write(a_frame())
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await old
            assert caught.value.code() is grpc.StatusCode.ABORTED
            await other.write(a_frame())
            await receiver.until(4)
        assert [peer for peer, _ in receiver.taken] == [1, 2, 1, 2]


async def test_a_call_that_is_opened_anew_is_not_read_before_there_is_room() -> None:
    receiver = Receiver()
    receiver.open.set()
    receiver.has_room.clear()
    async with serving(receiver) as port, pushing(port, 1) as first, pushing(port, 1) as second:
        for call in (first, second):
            await call.write(a_frame())
            await call.done_writing()
        async with asyncio.timeout(SOON_S):
            while receiver.asked_for_room < 2:
                await asyncio.sleep(0.005)
        await asyncio.sleep(0.3)
        assert receiver.taken == []
        receiver.has_room.set()
        # Which of the two came last is the network's choice.
        ended = await asyncio.gather(first, second, return_exceptions=True)
    assert [reply.frames for reply in ended if isinstance(reply, peer_pb2.PushSummary)] == [1]
    (aborted,) = [error for error in ended if isinstance(error, grpc.aio.AioRpcError)]
    assert aborted.code() is grpc.StatusCode.ABORTED
    assert len(receiver.taken) == 1


async def test_links_come_and_go_with_the_contacts() -> None:
    receiver = Receiver()
    receiver.open.set()
    reached: asyncio.Queue[int] = asyncio.Queue()
    newcomer = new_identity(7)
    known = contacts()
    only_self = Contact(1, "127.0.0.1:1", tls_identity(1).certificate_der)
    known.replace([only_self])
    async with serving(receiver) as port, serving(receiver, newcomer) as new_port:
        node = Peers(known, 1, tls_identity(1), reached.put_nowait, ())
        await node.start("127.0.0.1:0")
        try:
            assert not node.links
            first = Contact(0, f"127.0.0.1:{port}", tls_identity(0).certificate_der)
            known.replace([only_self, first])
            node.follow_contacts()
            async with asyncio.timeout(SOON_S):
                assert await reached.get() == 0
            seventh = Contact(7, f"127.0.0.1:{new_port}", newcomer.certificate_der)
            known.replace([only_self, seventh])
            node.follow_contacts()
            async with asyncio.timeout(SOON_S):
                assert await reached.get() == 7
            assert list(node.links) == [7]
            node.broadcast(a_message())
            await receiver.until(1)
        finally:
            await node.stop()


async def test_a_peer_that_is_a_contact_no_more_is_not_heard_on_its_open_call() -> None:
    receiver = Receiver()
    receiver.open.set()
    known = contacts()
    async with serving(receiver, known=known) as port, pushing(port, 1) as call:
        await call.write(a_frame())
        await receiver.until(1)
        known.replace([known.all[0]])
        await call.write(a_frame(2))
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call
    assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
    assert len(receiver.taken) == 1
