"""The wires between validators: two outgoing streams to each peer, over mutual TLS.

A peer is whoever holds the TLS key whose certificate is pinned to a validator, by genesis or by the
ledger; nobody else gets past the handshake. Links come and go with the contacts. Urgent and bulk
traffic (see `traffic`) go over connections of their own, each with a bounded queue. Of urgent
frames the oldest is dropped when a peer is too slow, of bulk the newest, since batches are of use
in order only: consensus sends again what matters, and one slow peer must not cost memory. Answers
to what a peer asked for wait until it has taken most of the others.
"""

import asyncio
import logging
import random
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from types import MappingProxyType

import grpc

from assay.v1 import node_pb2, peer_pb2, peer_pb2_grpc
from chain.contacts import Contact, Contacts
from chain.listening import why_not
from chain.node.errors import CallContext, refuse
from chain.node.rate_limit import OpenCalls
from chain.node.streams import TokenStreams
from chain.node.traffic import Traffic, traffic_of
from chain.rejections import Busy
from chain.tls import TlsError, TlsIdentity, channel_credentials, peer_index, server_credentials
from consensus.messages import (
    BatchRequest,
    BlocksRequest,
    Message,
    Status,
    decode_message,
    encode_message,
)
from consensus.wire import DecodeError

FRAME_BYTES_MAX = 2 * 1024 * 1024
URGENT_QUEUE_BYTES_MAX = 4 * 1024 * 1024
BULK_QUEUE_BYTES_MAX = 24 * 1024 * 1024
"""More than the largest batches that a node has out for acks. Their frames are shared by all
queues; what is a peer's own are answers, of which ANSWERS_BYTES_MAX wait."""
ANSWERS_BYTES_MAX = 4 * 1024 * 1024
TOKEN_CALLS_MAX = 4096
TOKEN_CALLS_MAX_BY_PEER = 1024
_RECONNECT_MS = (50, 2_000)
_STEADY_S = 5.0
"""A call that lasted so long was a good one: the next is tried at once."""

logger = logging.getLogger(__name__)

_OPTIONS = [
    ("grpc.max_receive_message_length", FRAME_BYTES_MAX + 1024),
    ("grpc.max_send_message_length", FRAME_BYTES_MAX + 1024),
    ("grpc.keepalive_time_ms", 5_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.http2.min_ping_interval_without_data_ms", 2_000),
    ("grpc.initial_reconnect_backoff_ms", 100),
    # How long a handshake may take, whatever its name says: three round trips, on busy machines.
    ("grpc.min_reconnect_backoff_ms", 5_000),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    ("grpc.so_reuseport", 0),
    # Of one connection; what is not answered yet costs memory.
    ("grpc.max_concurrent_streams", TOKEN_CALLS_MAX_BY_PEER + 64),
]

ReceiveMessage = Callable[[int, Message, int], Awaitable[None]]
"""Takes a peer, its message and the bytes of it; done when the peer may be read again."""
RoomFor = Callable[[int, Traffic], Awaitable[None]]
"""Done when a peer may be read on one of its streams."""


class Outbox:
    """Frames of one kind that wait for one peer. Used from the event loop only."""

    def __init__(self, bytes_max: int, drops_oldest: bool) -> None:
        self._bytes_max = bytes_max
        self._drops_oldest = drops_oldest
        self._frames: deque[bytes] = deque()
        self._bytes = 0
        self._filled = asyncio.Event()
        self._drained = asyncio.Event()

    def put(self, frame: bytes) -> None:
        """Queue a frame; without room it is dropped, or what is older than it."""
        if not self._drops_oldest and self._bytes + len(frame) > self._bytes_max:
            return
        self._frames.append(frame)
        self._bytes += len(frame)
        while self._bytes > self._bytes_max:
            self._bytes -= len(self._frames.popleft())
        self._filled.set()

    def clear(self) -> None:
        """Drop everything: there is nobody to take it."""
        self._frames.clear()
        self._bytes = 0
        self._drained.set()

    async def get(self) -> bytes:
        """The oldest frame, once there is one."""
        while not self._frames:
            self._filled.clear()
            await self._filled.wait()
        frame = self._frames.popleft()
        self._bytes -= len(frame)
        self._drained.set()
        return frame

    async def below(self, size_bytes: int) -> None:
        """Return when no more than so much waits."""
        while self._bytes > size_bytes:
            self._drained.clear()
            await self._drained.wait()


class Redial:
    """How long to wait before the next call: twice as long for each one that ended early, with
    jitter, so that validators that lost each other at once do not come back at once."""

    def __init__(self, jitter: Callable[[float, float], float] = random.uniform) -> None:
        self._jitter = jitter
        self._next_ms = _RECONNECT_MS[0]

    def delay_s(self, lasted_s: float) -> float:
        """After a call that lasted so long."""
        least_ms, most_ms = _RECONNECT_MS
        delay_ms = least_ms if lasted_s >= _STEADY_S else self._next_ms
        self._next_ms = min(2 * delay_ms, most_ms)
        return delay_ms * self._jitter(0.5, 1.5) / 1000


class _Stream:
    """The outgoing side of one kind of traffic to one peer: one push call, dialled again whenever
    it ends."""

    def __init__(self, peer: int, traffic: Traffic, on_connected: Callable[[], None]) -> None:
        self.connected = False
        self._peer = peer
        self._traffic = traffic
        self._on_connected = on_connected
        urgent = traffic is Traffic.URGENT
        size = URGENT_QUEUE_BYTES_MAX if urgent else BULK_QUEUE_BYTES_MAX
        self.outbox = Outbox(size, drops_oldest=urgent)

    async def run(self, channel: grpc.aio.Channel) -> None:
        """Keep the call open until cancelled."""
        stub = peer_pb2_grpc.PeerStub(channel)
        push = stub.PushUrgent if self._traffic is Traffic.URGENT else stub.Push
        loop = asyncio.get_running_loop()
        redial = Redial()
        while True:
            began_s = loop.time()
            try:
                await channel.channel_ready()
                began_s = loop.time()
                self.connected = True
                self._on_connected()
                await push(self._frames())
            except grpc.aio.AioRpcError as error:
                logger.info("peer %d: %s: %s", self._peer, self._traffic.value, error.code().name)
            finally:
                self.connected = False
                self.outbox.clear()
            await asyncio.sleep(redial.delay_s(loop.time() - began_s))

    async def _frames(self) -> AsyncIterator[peer_pb2.Frame]:
        while True:
            yield peer_pb2.Frame(message=await self.outbox.get())


class PeerLink:
    """This node's outgoing side to one peer."""

    def __init__(
        self,
        contact: Contact,
        identity: TlsIdentity,
        on_connected: Callable[[int], None],
        address: str = "",
    ) -> None:
        """`address` replaces the contact's. Raises TlsError."""
        index = self.index = contact.index
        self.contact = contact
        self._address = address or contact.address
        self._credentials, self._target_name = channel_credentials(identity, contact)
        self._on_connected = on_connected
        self._streams = {
            traffic: _Stream(index, traffic, self._stream_connected) for traffic in Traffic
        }
        self._channel: grpc.aio.Channel | None = None

    @property
    def connected(self) -> bool:
        """Whether both streams are."""
        return all(stream.connected for stream in self._streams.values())

    def send(self, traffic: Traffic, frame: bytes) -> None:
        """Queue a frame; while there is no connection frames are dropped, as on any lossy link."""
        stream = self._streams[traffic]
        if stream.connected:
            stream.outbox.put(frame)

    async def room(self) -> None:
        """Return when the peer has taken most of the answers that it asked for, or is gone."""
        await self._streams[Traffic.BULK].outbox.below(ANSWERS_BYTES_MAX)

    async def run(self) -> None:
        """Keep both calls open until cancelled."""
        async with asyncio.TaskGroup() as group:
            for stream in self._streams.values():
                group.create_task(self._run(stream))

    async def _run(self, stream: _Stream) -> None:
        options = [
            *_OPTIONS,
            ("grpc.ssl_target_name_override", self._target_name),
            ("grpc.use_local_subchannel_pool", 1),  # or both would share one connection
        ]
        async with grpc.aio.secure_channel(self._address, self._credentials, options) as channel:
            if stream is self._streams[Traffic.BULK]:
                self._channel = channel
            await stream.run(channel)

    def _stream_connected(self) -> None:
        if self.connected:
            self._on_connected(self.index)

    @property
    def channel(self) -> grpc.aio.Channel | None:
        """For calls beside the streams; None before the first dial."""
        return self._channel

    async def tokens(self, job: bytes, attempt: int) -> AsyncIterator[node_pb2.TokenChunk]:
        """Chunks of a job that is assigned at that peer. Ends early if the peer goes away."""
        if self._channel is None:
            return
        stub = peer_pb2_grpc.PeerStub(self._channel)
        request = peer_pb2.TokensRequest(job=job, attempt=attempt)
        try:
            async for chunk in stub.Tokens(request):
                yield chunk
        except grpc.aio.AioRpcError as error:
            logger.info("peer %d: tokens ended: %s", self.index, error.code().name)


class PeerService(peer_pb2_grpc.PeerServicer):
    """The incoming side: authenticated frames to the consensus driver, tokens to gateways."""

    def __init__(
        self, contacts: Contacts, receive: ReceiveMessage, room: RoomFor, streams: TokenStreams
    ) -> None:
        self._contacts = contacts
        self._receive = receive
        self._room = room
        self._streams = streams
        self._pushing: dict[tuple[int, Traffic], CallContext] = {}
        self._reading = OpenCalls(TOKEN_CALLS_MAX, TOKEN_CALLS_MAX_BY_PEER)

    def add_to(self, server: grpc.aio.Server) -> None:
        """Serve these calls."""
        peer_pb2_grpc.add_PeerServicer_to_server(self, server)

    async def Push(  # noqa: N802 (gRPC names its methods so)
        self,
        request_iterator: AsyncIterator[peer_pb2.Frame],
        context: CallContext,
    ) -> peer_pb2.PushSummary:
        """Hand each frame of bulk to consensus; one that is none ends the call."""
        return await self._push(Traffic.BULK, request_iterator, context)

    async def PushUrgent(  # noqa: N802
        self,
        request_iterator: AsyncIterator[peer_pb2.Frame],
        context: CallContext,
    ) -> peer_pb2.PushSummary:
        """The same for what is urgent."""
        return await self._push(Traffic.URGENT, request_iterator, context)

    async def _push(
        self, traffic: Traffic, frames: AsyncIterator[peer_pb2.Frame], context: CallContext
    ) -> peer_pb2.PushSummary:
        # Only the newest call of a peer is listened to, and none is read before there is room: a
        # peer has one frame here beside its backlog, and no more by calling often.
        index = await authenticate(context, self._contacts)
        self._pushing[index, traffic] = context
        known = self._contacts.all
        await self._room(index, traffic)
        count = 0
        async for frame in frames:
            if self._pushing[index, traffic] is not context:
                await context.abort(grpc.StatusCode.ABORTED, "a newer call of yours took over")
            if self._contacts.all is not known:
                await authenticate(context, self._contacts)
                known = self._contacts.all
            try:
                message = decode_message(frame.message)
            except DecodeError as error:
                logger.warning("peer %d sent no message: %s", index, error)
                await context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"not a message: {error}")
            if traffic_of(message) is not traffic:
                detail = f"a {type(message).__name__} is not {traffic.value}: use the other stream"
                logger.warning("peer %d: %s", index, detail)
                await context.abort(grpc.StatusCode.INVALID_ARGUMENT, detail)
            await self._receive(index, message, len(frame.message))
            count += 1
        return peer_pb2.PushSummary(frames=count)

    async def Tokens(  # noqa: N802
        self, request: peer_pb2.TokensRequest, context: CallContext
    ) -> AsyncIterator[node_pb2.TokenChunk]:
        """Stream an attempt's chunks from its first."""
        index = await authenticate(context, self._contacts)
        try:
            with self._reading.open(str(index)):
                async with aclosing(self._streams.read(request.job, request.attempt)) as chunks:
                    async for chunk in chunks:
                        yield chunk
        except Busy as busy:
            await refuse(context, busy)


async def authenticate(context: CallContext, contacts: Contacts) -> int:
    """Whose call it is; a stranger's ends here."""
    index = peer_index(context.auth_context(), contacts)
    if index is None:
        await context.abort(
            grpc.StatusCode.UNAUTHENTICATED,
            "the client certificate is not one that the chain pins to a validator",
        )
        raise PermissionError  # abort never returns; this tells the type checker
    return index


class Peers:
    """All links of a node."""

    def __init__(
        self,
        contacts: Contacts,
        own_index: int | None,
        identity: TlsIdentity,
        on_connected: Callable[[int], None],
        services: Sequence[Callable[[grpc.aio.Server], None]],
        addresses: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        """`services` put what this node serves onto the peers' port; `addresses` are dialled
        instead of the contacts', by index. Raises TlsError."""
        self._contacts = contacts
        self._own_index = own_index
        self._identity = identity
        self._on_connected = on_connected
        self._services = services
        self._addresses = addresses
        self.links: dict[int, PeerLink] = {}
        self._turn = 0
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._server: grpc.aio.Server | None = None
        for contact in contacts.all.values():
            if contact.index != own_index:
                self._add(contact)

    def _add(self, contact: Contact) -> None:
        address = self._addresses.get(str(contact.index), "")
        link = PeerLink(contact, self._identity, self._on_connected, address)
        self.links[contact.index] = link
        if self._server is not None:
            self._tasks[contact.index] = asyncio.create_task(link.run())

    def follow_contacts(self) -> None:
        """Dial who is new, or has moved; hang up on who is gone."""
        wanted = {
            index: contact
            for index, contact in self._contacts.all.items()
            if index != self._own_index
        }
        for index, link in list(self.links.items()):
            if link.contact == wanted.get(index):
                continue
            del self.links[index]
            task = self._tasks.pop(index, None)
            if task is not None:
                task.cancel()
        for index, contact in wanted.items():
            if index in self.links:
                continue
            try:
                self._add(contact)
            except TlsError as error:
                logger.warning("validator %d cannot be dialled: %s", index, error)

    async def start(self, listen: str) -> None:
        """Listen and dial. Raises OSError if the address is taken."""
        server = grpc.aio.server(options=_OPTIONS)
        for add_service in self._services:
            add_service(server)
        try:
            port = server.add_secure_port(
                listen, server_credentials(self._identity, self._contacts)
            )
        except RuntimeError as error:
            raise OSError(_no_listening(listen)) from error
        if port == 0:
            raise OSError(_no_listening(listen))
        await server.start()
        self._server = server
        self._tasks = {index: asyncio.create_task(link.run()) for index, link in self.links.items()}

    def send(self, peer: int, message: Message) -> None:
        """Queue a message for one peer. What anybody can answer goes to another if that one is not
        connected: all members of an epoch that is over may be gone."""
        link = self.links.get(peer)
        if isinstance(message, BlocksRequest | BatchRequest | Status) and not (
            link is not None and link.connected
        ):
            connected = [other for other in self.links.values() if other.connected]
            link = connected[self._turn % len(connected)] if connected else None
            self._turn += 1
        if link is not None:
            link.send(traffic_of(message), encode_message(message))

    def broadcast(self, message: Message) -> None:
        """Queue a message for all peers; encoded once."""
        frame, traffic = encode_message(message), traffic_of(message)
        for link in self.links.values():
            link.send(traffic, frame)

    def channels(self) -> dict[int, grpc.aio.Channel]:
        """To each connected peer, for calls beside the streams."""
        return {
            peer: link.channel
            for peer, link in self.links.items()
            if link.connected and link.channel is not None
        }

    async def room(self, peer: int) -> None:
        """Return when another answer may be prepared for a peer, which has taken most of them."""
        if peer in self.links:
            await self.links[peer].room()

    async def stop(self) -> None:
        """Hang up."""
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)
        if self._server is not None:
            await self._server.stop(grace=0.5)


def _no_listening(address: str) -> str:
    return (
        f"cannot listen on {address} for peers: {why_not(address)}; stop another process that has "
        "the port, or set peer_listen in node.toml"
    )
