"""Coming back from far behind: which snapshot to take, and how it is fetched.

Nobody is trusted. Offers are only a reason to ask; a manifest is believed for its certificate; a
chunk is what the manifest's hash says, whoever sends it; the whole state must have the roots that
the certificate's block vouches for. Who gives anything else is asked no more in this process. What
was fetched stays on disk under the snapshot's content, so that a killed process goes on with what
is missing.
"""

import asyncio
import logging
import shutil
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, TypeVar

import grpc

from assay.v1 import peer_pb2, peer_pb2_grpc
from chain.genesis import Genesis
from chain.light import decode_boundary
from chain.node.config import SnapshotSettings
from chain.rocks import StoreError
from chain.snapshot_anchor import Anchored, SnapshotInvalid, verify_anchor
from chain.snapshot_install import INCOMING_NAME, install_snapshot
from chain.state_snapshots import (
    MANIFEST_NAME,
    STATE_FILE_NAME,
    Manifest,
    chunk_size,
    decode_manifest,
    fits,
    read_chunk,
    write_chunk,
)
from consensus.epochs import BoundaryInvalid, EpochBoundary
from consensus.values import ValidatorSet
from ext.hashing import sha256

LOOK_S: Final = 2.0
"""How often a node that lags asks its peers for snapshots."""
CALL_S: Final = 30.0
CHUNK_CALLS: Final = 4
FAILURES_MAX: Final = 3
"""Calls of one peer that may fail before it is left out of this download."""
OFFERS_MAX: Final = 2
CONTENT_BYTES: Final = 32
SPACE_FACTOR: Final = 3
"""The state as chunks, as tables, and as much again for RocksDB's rewriting."""

T = TypeVar("T")
logger = logging.getLogger(__name__)


class SnapshotReady(Exception):
    """A checked store waits to take the place of this node's: it must stop and start anew."""


class _NothingLeft(Exception):
    """No peer is left that could give what is missing."""


@dataclass(frozen=True, slots=True)
class Offered:
    """One snapshot that peers say they have."""

    height: int
    content: bytes
    state_bytes: int


@dataclass(frozen=True, slots=True)
class Offers:
    """What a peer says of itself."""

    kept_from: int
    snapshots: tuple[Offered, ...]


def choose(
    offers: Mapping[int, Offers],
    final_height: int,
    validators: ValidatorSet,
    behind_blocks: int,
    begun: bytes | None = None,
    given_up: Collection[bytes] = (),
) -> tuple[Offered, list[int]] | None:
    """The snapshot to fetch for a node at `final_height`, and who has it; None if blocks will do.

    One that is worth it lies far enough ahead; or anywhere ahead, when more than a third of the
    stake says that it has forgotten the next block. First those that more than a third of the
    stake has, one of whom is honest; of the others last what was `given_up`, as whoever offered it
    did not give it. Of these the one that was `begun`, else the highest.
    """
    pruned = {peer for peer, offer in offers.items() if offer.kept_from > final_height + 1}
    is_pruned = validators.weight(pruned) >= validators.honest_stake
    least = final_height + (1 if is_pruned else behind_blocks)
    holders: dict[Offered, list[int]] = {}
    for peer in sorted(offers):
        for snapshot in dict.fromkeys(offers[peer].snapshots):
            if snapshot.height >= least:
                holders.setdefault(snapshot, []).append(peer)
    if not holders:
        return None

    def worth(snapshot: Offered) -> tuple[bool, bool, bool, int, int, bytes]:
        stake = validators.weight(set(holders[snapshot]))
        is_backed = stake >= validators.honest_stake
        content = snapshot.content
        is_hoped_for = is_backed or content not in given_up
        return is_backed, is_hoped_for, content == begun, snapshot.height, stake, content

    best = max(holders, key=worth)
    return best, holders[best]


class Joiner:
    """Looks whether this node is far behind, and if so brings it a snapshot."""

    def __init__(
        self,
        genesis: Genesis,
        data: Path,
        settings: SnapshotSettings,
        channels: Callable[[], Mapping[int, grpc.aio.Channel]],
        final_height: Callable[[], int],
        is_behind: Callable[[], bool],
        validators: Callable[[], ValidatorSet] | None = None,
    ) -> None:
        """`is_behind` says whether a certificate is known whose block is not; `validators` are
        those of this node's own epoch, whose word on who has what is weighed; genesis' if None."""
        self._validators = validators or genesis.validator_set
        self._genesis = genesis
        self._data = data
        self._settings = settings
        self._channels = channels
        self._final_height = final_height
        self._is_behind = is_behind
        self._banned: set[int] = set()
        """Peers that gave what was provably wrong."""
        self._refused: set[bytes] = set()
        """Contents that turned out to be no state of this chain."""
        self._given_up: set[bytes] = set()
        """Contents that could not be had, or not be kept."""

    async def run(self) -> None:
        """Look now and then, until cancelled. Raises SnapshotReady when the node must give way."""
        while True:
            await asyncio.sleep(LOOK_S)
            if not self._is_behind():
                continue
            try:
                chosen = choose(
                    await self._ask(),
                    self._final_height(),
                    self._validators(),
                    self._settings.use_when_behind_blocks,
                    self._begun(),
                    self._given_up,
                )
                if chosen is not None:
                    await self._take(*chosen)
            except _NothingLeft as error:
                logger.warning("the snapshot is not complete yet, trying again: %s", error)
            except (OSError, StoreError) as error:
                logger.error("the snapshot cannot be kept: %s", error)

    async def _ask(self) -> dict[int, Offers]:
        async def ask(peer: int, channel: grpc.aio.Channel) -> tuple[int, Offers] | None:
            stub = peer_pb2_grpc.SnapshotsStub(channel)
            try:
                reply = await stub.Offers(peer_pb2.OffersRequest(), timeout=LOOK_S)
            except grpc.aio.AioRpcError as error:
                logger.debug("peer %d offers nothing: %s", peer, error.code().name)
                return None
            return peer, self._offers(reply)

        channels = self._channels()
        asked = [ask(peer, channels[peer]) for peer in channels if peer not in self._banned]
        return dict(answer for answer in await asyncio.gather(*asked) if answer is not None)

    def _offers(self, reply: peer_pb2.OffersReply) -> Offers:
        snapshots = tuple(
            Offered(offer.height, offer.content, offer.state_bytes)
            for offer in reply.offers[:OFFERS_MAX]
            if len(offer.content) == CONTENT_BYTES
            and offer.content not in self._refused
            and fits(offer.state_bytes)
        )
        return Offers(reply.kept_from, snapshots)

    def _begun(self) -> bytes | None:
        """The content of which an earlier attempt, or process, left a part."""
        folder = self._data / INCOMING_NAME
        names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
        try:
            return bytes.fromhex(names[0]) if names else None
        except ValueError:
            return None

    async def _take(self, offered: Offered, peers: Sequence[int]) -> None:
        """Fetch, check and install a snapshot, then say so. Raises SnapshotReady."""
        logger.info(
            "far behind at block %d: fetching the snapshot of height %d, %d bytes, from %s",
            *(self._final_height(), offered.height, offered.state_bytes, list(peers)),
        )
        folder = await asyncio.to_thread(self._folder, offered)
        download = _Download(self._genesis, folder, offered, self._channels(), peers)
        try:
            anchored = await download.run()
            await asyncio.to_thread(install_snapshot, folder, self._data, self._genesis, anchored)
        except SnapshotInvalid as error:
            # All of it was as the manifest says, so those who offered it are to blame.
            logger.error("the snapshot of height %d is refused: %s", offered.height, error)
            self._refused.add(offered.content)
            self._banned.update(peers)
            await asyncio.to_thread(shutil.rmtree, folder, True)
            return
        except _NothingLeft:
            self._given_up.add(offered.content)
            raise
        finally:
            self._banned |= download.liars
        raise SnapshotReady(f"snapshot of height {offered.height}")

    def _folder(self, offered: Offered) -> Path:
        """Where this content is gathered; what belongs to another goes. Raises OSError."""
        incoming = self._data / INCOMING_NAME
        folder = incoming / offered.content.hex()
        if incoming.is_dir():
            for other in incoming.iterdir():
                if other != folder:
                    shutil.rmtree(other, ignore_errors=True)
        folder.mkdir(parents=True, exist_ok=True)
        state = folder / STATE_FILE_NAME
        present = state.stat().st_blocks * 512 if state.exists() else 0
        needed = SPACE_FACTOR * offered.state_bytes - present
        free = shutil.disk_usage(folder).free
        if free < needed:
            self._given_up.add(offered.content)  # it may be a lie that it has so many bytes
            raise OSError(f"{needed} bytes are needed in {self._data}, {free} are free")
        return folder


class _Download:
    """One snapshot, from all who have it."""

    def __init__(
        self,
        genesis: Genesis,
        folder: Path,
        offered: Offered,
        channels: Mapping[int, grpc.aio.Channel],
        peers: Sequence[int],
    ) -> None:
        self._genesis = genesis
        self._folder = folder
        self._offered = offered
        self._stubs = {
            peer: peer_pb2_grpc.SnapshotsStub(channels[peer]) for peer in peers if peer in channels
        }
        self._failures: Counter[int] = Counter()
        self._answers: Counter[int] = Counter()
        self._waiting: Counter[int] = Counter()
        """Calls of a peer that it has not answered yet."""
        self.liars: set[int] = set()
        """Who gave bytes that are provably not the snapshot's."""

    async def run(self) -> Anchored:
        """Fetch what is missing; what the snapshot's anchor proves.

        Raises _NothingLeft, or OSError for the own disk.
        """
        boundaries = await self._boundaries()
        manifest, anchored = await self._manifest(boundaries)
        missing = await asyncio.to_thread(self._missing, manifest)
        logger.info("%d of %d chunks are missing", len(missing), len(manifest.chunks))
        missing.reverse()

        async def work() -> None:
            while missing:
                await self._chunk(manifest, missing.pop())

        for ended in await asyncio.gather(
            *(work() for _ in range(CHUNK_CALLS)), return_exceptions=True
        ):
            if ended is not None:
                raise ended
        return anchored

    async def _boundaries(self) -> list[EpochBoundary]:
        """The ends of all epochs before the snapshot's, each believed by the validators of its own,
        from genesis on."""
        trusted = self._genesis.validator_set()
        boundaries: list[EpochBoundary] = []

        def check(data: bytes) -> tuple[EpochBoundary, ValidatorSet]:
            try:
                boundary = decode_boundary(data)
                return boundary, boundary.follow(trusted, self._genesis.chain_id)
            except BoundaryInvalid as error:
                raise SnapshotInvalid(str(error)) from error

        for epoch in range(self._genesis.parameters.epoch_of(self._offered.height)):
            request = peer_pb2.BoundaryRequest(epoch=epoch)
            boundary, trusted = await self._fetch(
                lambda stub, asked=request: stub.Boundary(asked, timeout=CALL_S),  # type: ignore[misc]
                f"the end of epoch {epoch}",
                check,
            )
            boundaries.append(boundary)
        return boundaries

    async def _manifest(self, boundaries: list[EpochBoundary]) -> tuple[Manifest, Anchored]:
        trusted = boundaries[-1].validators if boundaries else self._genesis.validator_set()

        def check(data: bytes) -> tuple[Manifest, Anchored]:
            manifest = decode_manifest(data, self._genesis)
            offered = self._offered
            found = (manifest.height, manifest.state_bytes, manifest.content())
            if found != (offered.height, offered.state_bytes, offered.content):
                raise SnapshotInvalid("the manifest is of another snapshot than was offered")
            anchored = verify_anchor(manifest.anchor, self._genesis, manifest.height, trusted)
            anchored = replace(anchored, boundaries=(*boundaries, *anchored.boundaries))
            (self._folder / MANIFEST_NAME).write_bytes(data)
            return manifest, anchored

        return await self._fetch(
            lambda stub: stub.Manifest(self._request(0), timeout=CALL_S), "the manifest", check
        )

    async def _chunk(self, manifest: Manifest, index: int) -> None:
        def check(data: bytes) -> None:
            if sha256(data) != manifest.chunks[index]:
                raise SnapshotInvalid(f"chunk {index} has not the manifest's hash")
            write_chunk(self._folder, index, data)

        await self._fetch(
            lambda stub: stub.Chunk(self._request(index), timeout=CALL_S), f"chunk {index}", check
        )

    async def _fetch(
        self,
        call: "Callable[[peer_pb2_grpc.SnapshotsAsyncStub], Awaitable[peer_pb2.SnapshotData]]",
        what: str,
        check: Callable[[bytes], T],
    ) -> T:
        """What `check` makes of the first answer that it takes, from one peer after the other."""
        while True:
            peer = self._next_peer(what)
            self._waiting[peer] += 1
            try:
                answer = await call(self._stubs[peer])
                self._answers[peer] += 1
                return await asyncio.to_thread(check, answer.data)
            except grpc.aio.AioRpcError as error:
                self._failures[peer] += 1
                logger.info("peer %d gave no %s: %s", peer, what, error.code().name)
            except SnapshotInvalid as error:
                self.liars.add(peer)
                logger.error("peer %d is asked no more: %s", peer, error)
            finally:
                self._waiting[peer] -= 1

    def _next_peer(self, what: str) -> int:
        """Of those that have least to answer the one that has answered most, so that who is slow
        holds up one call and not all of them."""
        able = [
            peer
            for peer in sorted(self._stubs)
            if peer not in self.liars and self._failures[peer] < FAILURES_MAX
        ]
        if not able:
            raise _NothingLeft(f"{what}: nobody is left of {sorted(self._stubs)}")
        return min(able, key=lambda peer: (self._waiting[peer], -self._answers[peer]))

    def _request(self, chunk: int) -> peer_pb2.SnapshotRequest:
        offered = self._offered
        return peer_pb2.SnapshotRequest(height=offered.height, content=offered.content, chunk=chunk)

    def _missing(self, manifest: Manifest) -> list[int]:
        """Chunks that are not on disk as they should be, in order."""
        state = self._folder / STATE_FILE_NAME
        with state.open("ab") as file:
            file.truncate(manifest.state_bytes)
        missing = []
        for index, digest in enumerate(manifest.chunks):
            data = read_chunk(self._folder, index)
            if len(data) != chunk_size(manifest.state_bytes, index) or sha256(data) != digest:
                missing.append(index)
        return missing
