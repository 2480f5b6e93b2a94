"""The wires between validators: one outgoing stream to each peer, over mutual TLS.

A peer is whoever holds the TLS key whose certificate genesis pins to a validator; nobody else gets
past the handshake. Outgoing frames wait in a bounded queue that drops its oldest when a peer is
too slow: consensus retransmits what matters, and one slow peer must not cost memory.
"""

import asyncio
import logging
import random
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable

import grpc

from assay.v1 import node_pb2, peer_pb2, peer_pb2_grpc
from chain.genesis import Genesis
from chain.node.errors import CallContext
from chain.node.streams import TokenStreams
from chain.tls import TlsIdentity, channel_credentials, peer_index, server_credentials
from consensus.messages import Message, decode_message, encode_message
from consensus.wire import DecodeError

FRAME_BYTES_MAX = 2 * 1024 * 1024
QUEUE_BYTES_MAX = 32 * 1024 * 1024
_RECONNECT_MS = (50, 2_000)

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
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    ("grpc.so_reuseport", 0),
]

ReceiveMessage = Callable[[int, Message, int], Awaitable[None]]
"""Takes a peer, its message and the bytes of it; done when the peer may be read again."""


class _Outbox:
    """Frames waiting for one peer."""

    def __init__(self) -> None:
        self._frames: deque[bytes] = deque()
        self._bytes = 0
        self._filled = asyncio.Event()

    def put(self, frame: bytes) -> None:
        self._frames.append(frame)
        self._bytes += len(frame)
        while self._bytes > QUEUE_BYTES_MAX:
            self._bytes -= len(self._frames.popleft())
        self._filled.set()

    def clear(self) -> None:
        self._frames.clear()
        self._bytes = 0

    async def get(self) -> bytes:
        while not self._frames:
            self._filled.clear()
            await self._filled.wait()
        frame = self._frames.popleft()
        self._bytes -= len(frame)
        return frame


class PeerLink:
    """This node's outgoing side to one peer: dials, pushes frames, dials again with jittered
    back-off."""

    def __init__(
        self,
        index: int,
        genesis: Genesis,
        identity: TlsIdentity,
        on_connected: Callable[[int], None],
    ) -> None:
        self.index = index
        self.connected = False
        self._address = genesis.validators[index].address
        self._credentials, self._target_name = channel_credentials(identity, genesis, index)
        self._on_connected = on_connected
        self._outbox = _Outbox()
        self._channel: grpc.aio.Channel | None = None

    def send(self, frame: bytes) -> None:
        """Queue a frame; while there is no connection frames are dropped, as on any lossy link."""
        if self.connected:
            self._outbox.put(frame)

    async def run(self) -> None:
        """Keep one push call open until cancelled."""
        options = [*_OPTIONS, ("grpc.ssl_target_name_override", self._target_name)]
        delay_ms = float(_RECONNECT_MS[0])
        async with grpc.aio.secure_channel(self._address, self._credentials, options) as channel:
            self._channel = channel
            stub = peer_pb2_grpc.PeerStub(channel)
            while True:
                try:
                    await channel.channel_ready()
                    delay_ms = _RECONNECT_MS[0]
                    self._outbox.clear()
                    self.connected = True
                    self._on_connected(self.index)
                    await stub.Push(self._frames())
                except grpc.aio.AioRpcError as error:
                    logger.info("peer %d: push ended: %s", self.index, error.code().name)
                finally:
                    self.connected = False
                await asyncio.sleep(delay_ms * random.uniform(0.5, 1.5) / 1000)
                delay_ms = min(delay_ms * 2, _RECONNECT_MS[1])

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

    async def _frames(self) -> AsyncIterator[peer_pb2.Frame]:
        while True:
            yield peer_pb2.Frame(message=await self._outbox.get())


class PeerService(peer_pb2_grpc.PeerServicer):
    """The incoming side: authenticated frames to the consensus driver, tokens to gateways."""

    def __init__(self, genesis: Genesis, receive: ReceiveMessage, streams: TokenStreams) -> None:
        self._genesis = genesis
        self._receive = receive
        self._streams = streams
        self._pushing: dict[int, CallContext] = {}

    async def Push(  # noqa: N802 (gRPC names its methods so)
        self,
        request_iterator: AsyncIterator[peer_pb2.Frame],
        context: CallContext,
    ) -> peer_pb2.PushSummary:
        """Hand each frame to consensus; a frame that is no message ends the call.

        Only the newest call of a peer is listened to, so a peer has one frame here to be worked
        off beside its backlog, and no more by calling often.
        """
        index = await self._authenticate(context)
        self._pushing[index] = context
        count = 0
        async for frame in request_iterator:
            if self._pushing[index] is not context:
                await context.abort(grpc.StatusCode.ABORTED, "a newer call of yours took over")
            try:
                message = decode_message(frame.message)
            except DecodeError as error:
                logger.warning("peer %d sent no message: %s", index, error)
                await context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"not a message: {error}")
            await self._receive(index, message, len(frame.message))
            count += 1
        return peer_pb2.PushSummary(frames=count)

    async def Tokens(  # noqa: N802
        self, request: peer_pb2.TokensRequest, context: CallContext
    ) -> AsyncIterator[node_pb2.TokenChunk]:
        """Stream an attempt's chunks from its first."""
        await self._authenticate(context)
        async for chunk in self._streams.read(request.job, request.attempt):
            yield chunk

    async def _authenticate(self, context: CallContext) -> int:
        index = peer_index(context.auth_context(), self._genesis)
        if index is None:
            await context.abort(
                grpc.StatusCode.UNAUTHENTICATED,
                "the client certificate is not one that genesis pins to a validator",
            )
            raise PermissionError  # abort never returns; this tells the type checker
        return index


class Peers:
    """All links of a node."""

    def __init__(
        self,
        genesis: Genesis,
        own_index: int | None,
        identity: TlsIdentity,
        receive: ReceiveMessage,
        on_connected: Callable[[int], None],
        streams: TokenStreams,
    ) -> None:
        self._genesis = genesis
        self._own_index = own_index
        self._identity = identity
        self._service = PeerService(genesis, receive, streams)
        self.links = {
            entry.index: PeerLink(entry.index, genesis, identity, on_connected)
            for entry in genesis.validators
            if entry.index != own_index
        }
        self._server: grpc.aio.Server | None = None
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self, listen: str) -> None:
        """Listen and dial. Raises OSError if the address is taken."""
        server = grpc.aio.server(options=_OPTIONS)
        peer_pb2_grpc.add_PeerServicer_to_server(self._service, server)
        try:
            port = server.add_secure_port(listen, server_credentials(self._identity, self._genesis))
        except RuntimeError as error:
            raise OSError(f"cannot listen on {listen} for peers: address in use?") from error
        if port == 0:
            raise OSError(f"cannot listen on {listen} for peers: address in use?")
        await server.start()
        self._server = server
        self._tasks = [asyncio.create_task(link.run()) for link in self.links.values()]

    def send(self, peer: int, message: Message) -> None:
        """Queue a message for one peer."""
        if peer in self.links:
            self.links[peer].send(encode_message(message))

    def broadcast(self, message: Message) -> None:
        """Queue a message for all peers; encoded once."""
        frame = encode_message(message)
        for link in self.links.values():
            link.send(frame)

    async def stop(self) -> None:
        """Hang up."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._server is not None:
            await self._server.stop(grace=0.5)
