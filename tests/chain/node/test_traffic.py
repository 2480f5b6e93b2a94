"""Votes never wait for batches: not where they leave, not on the way, not where they come."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import get_args

import grpc
import pytest

from assay.v1 import peer_pb2, peer_pb2_grpc
from chain.contacts import Contacts
from chain.genesis import Genesis
from chain.node import peers
from chain.node.arrivals import URGENT_BACKLOG_BYTES_MAX, URGENT_RUN_MAX, Arrivals, Arrived
from chain.node.backlog import BACKLOG_BYTES_MAX
from chain.node.peers import Outbox, PeerLink, PeerService, Redial
from chain.node.streams import TokenStreams
from chain.node.traffic import Traffic, traffic_of
from chain.tls import channel_credentials, channel_options, server_credentials
from consensus.events import Executed, MessageReceived
from consensus.messages import (
    BatchMessage,
    BatchRequest,
    Blocks,
    BlocksRequest,
    Message,
    encode_message,
)
from consensus.values import Batch, BatchHeader, Tip, Vote, VoteBody, VoteKind
from ext.hashing import sha256
from tests.builders import contact, contacts, genesis, tls_identity

SOON_S = 60.0
PAYLOAD = bytes(1 << 20)
FLOODER, HONEST = 1, 2


def a_vote(signer: int, view: int = 1) -> Vote:
    return Vote(VoteBody(VoteKind.NULLIFY, 0, view, 0, bytes(32)), signer, bytes(64))


def a_batch(sequence: int = 1) -> BatchMessage:
    header = BatchHeader(0, 1, sequence, bytes(32), sha256(PAYLOAD))
    return BatchMessage(Batch(header, bytes(64), PAYLOAD), None)


def taken(arrivals: Arrivals) -> list[Arrived]:
    """All that waits, in the order in which it is stepped."""
    found = []
    while (arrived := arrivals.take()) is not None:
        found.append(arrived)
    return found


def messages(found: list[Arrived]) -> list[tuple[int, Message]]:
    return [
        (arrived.event.peer, arrived.event.message)
        for arrived in found
        if isinstance(arrived.event, MessageReceived)
    ]


def test_only_what_carries_payloads_or_has_them_read_is_bulk() -> None:
    bulk = {BatchMessage, BatchRequest, Blocks, BlocksRequest}
    assert bulk < set(get_args(Message))
    for kind in get_args(Message):
        expected = Traffic.BULK if kind in bulk else Traffic.URGENT
        assert traffic_of(object.__new__(kind)) is expected


async def test_whoever_floods_waits_behind_itself_and_nobody_else() -> None:
    arrivals = Arrivals()
    flood = [asyncio.create_task(arrivals.receive(FLOODER, a_vote(1, n), 99)) for n in range(50)]
    await asyncio.sleep(0)
    await arrivals.receive(HONEST, a_vote(2), 99)
    await asyncio.gather(*flood)
    order = messages(taken(arrivals))
    assert [peer for peer, _ in order[:3]] == [FLOODER, HONEST, FLOODER]
    assert [message for peer, message in order if peer == FLOODER] == [
        a_vote(1, view) for view in range(50)
    ]


async def test_votes_are_stepped_before_batches_and_own_events_before_both() -> None:
    arrivals = Arrivals()
    await arrivals.receive(HONEST, a_batch(), 1000)
    await arrivals.receive(FLOODER, a_vote(1), 99)
    arrivals.post(Executed(1, bytes(32)))
    first, *others = taken(arrivals)
    assert first.event == Executed(1, bytes(32))
    assert messages(others) == [(FLOODER, a_vote(1)), (HONEST, a_batch())]


async def test_a_flood_of_votes_does_not_keep_batches_out() -> None:
    arrivals = Arrivals()
    await arrivals.receive(HONEST, a_batch(), 1000)
    for view in range(2 * URGENT_RUN_MAX):
        await arrivals.receive(FLOODER, a_vote(1, view), 99)
    order = messages(taken(arrivals))
    assert order[URGENT_RUN_MAX] == (HONEST, a_batch())
    assert len(order) == 2 * URGENT_RUN_MAX + 1


async def test_a_peer_whose_batches_wait_is_still_read_for_votes_and_the_other_way_round() -> None:
    arrivals = Arrivals()
    done = arrivals.hold(FLOODER, BACKLOG_BYTES_MAX)
    bulk = asyncio.create_task(arrivals.receive(FLOODER, a_batch(), 1000))
    await asyncio.wait_for(arrivals.receive(FLOODER, a_vote(1), 99), SOON_S)
    votes = asyncio.create_task(
        arrivals.receive(FLOODER, a_vote(1, 2), URGENT_BACKLOG_BYTES_MAX + 1)
    )
    await asyncio.sleep(0)
    assert not bulk.done()
    assert not votes.done()
    done()
    await asyncio.wait_for(bulk, SOON_S)
    assert not votes.done()
    for arrived in taken(arrivals):
        arrived.done()
    await asyncio.wait_for(votes, SOON_S)


async def test_a_full_queue_of_votes_drops_the_oldest_and_one_of_batches_the_newest() -> None:
    urgent, bulk = Outbox(100, drops_oldest=True), Outbox(100, drops_oldest=False)
    for number in range(5):
        urgent.put(bytes([number]) * 30)
        bulk.put(bytes([number]) * 30)
    assert [(await urgent.get())[0] for _ in range(3)] == [2, 3, 4]
    assert [(await bulk.get())[0] for _ in range(3)] == [0, 1, 2]


async def test_room_comes_when_frames_are_taken_or_the_peer_is_gone() -> None:
    outbox = Outbox(100, drops_oldest=False)
    for _ in range(3):
        outbox.put(bytes(30))
    waiting = asyncio.create_task(outbox.below(40))
    await asyncio.sleep(0)
    await outbox.get()
    await asyncio.sleep(0)
    assert not waiting.done()
    await outbox.get()
    await asyncio.wait_for(waiting, SOON_S)
    outbox.put(bytes(30))
    waiting = asyncio.create_task(outbox.below(40))
    await asyncio.sleep(0)
    outbox.clear()
    await asyncio.wait_for(waiting, SOON_S)


def test_calls_that_end_at_once_are_dialled_ever_more_slowly_and_good_ones_at_once() -> None:
    redial = Redial(jitter=lambda low, high: (low + high) / 2)
    delays = [redial.delay_s(0.0) for _ in range(8)]
    assert delays == [0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 2.0]
    assert redial.delay_s(60.0) == 0.05
    assert redial.delay_s(0.0) == 0.1


def test_two_validators_that_lost_each_other_do_not_dial_in_step() -> None:
    first, second = Redial(), Redial()
    delays = [(first.delay_s(0.0), second.delay_s(0.0)) for _ in range(8)]
    assert len({delay for pair in delays for delay in pair}) > 8
    assert all(0.025 <= delay <= 3.0 for pair in delays for delay in pair)


class Receiver:
    """Takes votes at once, and of batches the first, with which it is not done until told."""

    def __init__(self) -> None:
        self.votes: list[Message] = []
        self.batches = 0
        self.voted = asyncio.Event()
        self.open = asyncio.Event()

    async def __call__(self, _: int, message: Message, __: int) -> None:
        if isinstance(message, Vote):
            self.votes.append(message)
            self.voted.set()
        else:
            self.batches += 1
            await self.open.wait()

    async def room(self, _: int, __: Traffic) -> None: ...


@asynccontextmanager
async def serving(receiver: Receiver) -> AsyncIterator[tuple[int, Genesis]]:
    """Validator 0's side of the wires; its port, and a genesis that has it there."""
    server = grpc.aio.server(options=[("grpc.max_receive_message_length", peers.FRAME_BYTES_MAX)])
    service = PeerService(contacts(), receiver, receiver.room, TokenStreams())
    peer_pb2_grpc.add_PeerServicer_to_server(service, server)
    port = server.add_secure_port("127.0.0.1:0", server_credentials(tls_identity(0), contacts()))
    await server.start()
    chain = genesis()
    first = replace(chain.validators[0], address=f"127.0.0.1:{port}")
    try:
        yield port, replace(chain, validators=(first, *chain.validators[1:]))
    finally:
        receiver.open.set()
        await server.stop(None)


async def test_a_peer_whose_queue_of_batches_is_full_still_gets_votes() -> None:
    receiver = Receiver()
    connected = asyncio.Event()
    async with serving(receiver) as (_, chain):
        link = PeerLink(
            Contacts.of_genesis(chain).all[0], tls_identity(1), lambda _: connected.set()
        )
        running = asyncio.create_task(link.run())
        async with asyncio.timeout(SOON_S):
            await connected.wait()
            frame = encode_message(a_batch())
            for _ in range(2 * peers.BULK_QUEUE_BYTES_MAX // len(frame)):
                link.send(Traffic.BULK, frame)
            room = asyncio.create_task(link.room())
            for view in range(3):
                receiver.voted.clear()
                link.send(Traffic.URGENT, encode_message(a_vote(1, view)))
                await receiver.voted.wait()
            assert receiver.votes == [a_vote(1, view) for view in range(3)]
            assert receiver.batches <= 1
            assert not room.done()
            receiver.open.set()
            await room
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


@pytest.mark.parametrize(
    ("traffic", "message"),
    [
        (Traffic.URGENT, a_batch()),
        (Traffic.URGENT, BatchRequest(Tip(0, 1, bytes(32)), 1)),
        (Traffic.URGENT, BlocksRequest(1)),
        (Traffic.BULK, a_vote(1)),
    ],
)
async def test_a_message_on_the_wrong_stream_ends_the_call(
    traffic: Traffic, message: Message
) -> None:
    receiver = Receiver()
    credentials, _ = channel_credentials(tls_identity(1), contact(0))
    async with (
        serving(receiver) as (port, _),
        grpc.aio.secure_channel(
            f"127.0.0.1:{port}", credentials, options=channel_options(contact(0))
        ) as channel,
    ):
        stub = peer_pb2_grpc.PeerStub(channel)
        push = stub.PushUrgent if traffic is Traffic.URGENT else stub.Push
        call = push(timeout=SOON_S)
        await call.write(peer_pb2.Frame(message=encode_message(message)))
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert caught.value.details() == (
        f"a {type(message).__name__} is not {traffic.value}: use the other stream"
    )
    assert not receiver.votes
    assert not receiver.batches
