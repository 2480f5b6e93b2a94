"""What this node gives to validators that are far behind, by their calls: bounded, and never
believed by them."""

import asyncio
from collections.abc import Callable
from typing import Final

import grpc

from assay.v1 import peer_pb2, peer_pb2_grpc
from chain.contacts import Contacts
from chain.light import EPOCHS_MAX
from chain.node.errors import CallContext, refuse
from chain.node.peers import authenticate
from chain.node.rate_limit import OpenCalls
from chain.node.shelf import Shelf
from chain.rejections import Rejection, RejectionReason
from chain.store import Store
from consensus.wire import encode

CALLS_MAX: Final = 16
CALLS_MAX_BY_PEER: Final = 8
"""Reads of at most 2 MiB at once, each on a thread; others are told to come again."""


class SnapshotService(peer_pb2_grpc.SnapshotsServicer):
    """The shelf, as peers see it."""

    def __init__(self, contacts: Contacts, store: Store, shelf: Shelf) -> None:
        self._contacts = contacts
        self._store = store
        self._shelf = shelf
        self._reading = OpenCalls(CALLS_MAX, CALLS_MAX_BY_PEER)

    def add_to(self, server: grpc.aio.Server) -> None:
        """Serve these calls."""
        peer_pb2_grpc.add_SnapshotsServicer_to_server(self, server)

    async def Offers(  # noqa: N802 (gRPC names its methods so)
        self, request: peer_pb2.OffersRequest, context: CallContext
    ) -> peer_pb2.OffersReply:
        """Where this node stands, how far back it goes, and its snapshots."""
        del request
        await authenticate(context, self._contacts)
        return peer_pb2.OffersReply(
            final_height=self._store.final_height,
            kept_from=self._store.pruned_through + 1,
            offers=[
                peer_pb2.SnapshotOffer(
                    height=snapshot.height,
                    content=snapshot.content,
                    state_bytes=snapshot.state_bytes,
                )
                for snapshot in self._shelf.published
            ],
        )

    async def Manifest(  # noqa: N802
        self, request: peer_pb2.SnapshotRequest, context: CallContext
    ) -> peer_pb2.SnapshotData:
        """What a snapshot says of itself."""
        return await self._read(
            context, lambda: self._shelf.manifest(request.height, request.content)
        )

    async def Chunk(  # noqa: N802
        self, request: peer_pb2.SnapshotRequest, context: CallContext
    ) -> peer_pb2.SnapshotData:
        """A piece of a snapshot's state."""
        return await self._read(
            context, lambda: self._shelf.chunk(request.height, request.content, request.chunk)
        )

    async def Boundary(  # noqa: N802
        self, request: peer_pb2.BoundaryRequest, context: CallContext
    ) -> peer_pb2.SnapshotData:
        """How an epoch ended."""
        return await self._read(context, lambda: self._boundary(request.epoch))

    def _boundary(self, epoch: int) -> bytes:
        boundary = self._store.boundary(epoch) if epoch < EPOCHS_MAX else None
        if boundary is None:
            raise Rejection(RejectionReason.NOT_FOUND, f"epoch {epoch} has not ended here")
        return encode(boundary)

    async def _read(self, context: CallContext, read: Callable[[], bytes]) -> peer_pb2.SnapshotData:
        peer = await authenticate(context, self._contacts)
        try:
            with self._reading.open(str(peer)):
                return peer_pb2.SnapshotData(data=await asyncio.to_thread(read))
        except Rejection as rejection:
            await refuse(context, rejection)
