"""The snapshots that this node makes of itself, and keeps for validators that are far behind.

Every so many heights, on the ledger's thread, the database is linked into a folder, which costs a
flush. Everything else happens on a thread of its own: the linked copy is written as a snapshot
(`chain.state_snapshots`), and published once a certified block vouches for it. The newest two stay,
and so do all blocks above them: whoever takes one finds what follows.
"""

import logging
import shutil
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from chain.genesis import Genesis
from chain.rejections import Rejection, RejectionReason
from chain.rocks import StoreError
from chain.snapshot_anchor import Anchor, SnapshotInvalid, build_anchor
from chain.state_snapshots import (
    MANIFEST_NAME,
    STATE_FILE_NAME,
    VERSION,
    Manifest,
    chunk_count,
    decode_manifest,
    read_chunk,
    write_manifest,
    write_state,
)
from chain.store import DATABASE_NAME, Store
from consensus.wire import DecodeError

SHELF_NAME: Final = "snapshots"
"""The shelf's folder in a home's data folder; a folder in it for each snapshot, by height."""
LINKED_NAME: Final = "linked"
UNFINISHED_NAME: Final = "unfinished"
KEPT: Final = 2
VOUCHED_POLL_S: Final = 0.5

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Published:
    """A snapshot that others may have."""

    height: int
    content: bytes
    state_bytes: int
    folder: Path


class Shelf:
    """Makes snapshots and gives them away. `after_block` is for the ledger's thread, the rest for
    any."""

    def __init__(self, folder: Path, genesis: Genesis, store: Store, every_blocks: int) -> None:
        """`every_blocks` is 0 for a node that makes none."""
        self._folder = folder
        self._genesis = genesis
        self._store = store
        self._every_blocks = every_blocks
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="snapshots")
        self._stopped = threading.Event()
        self._making: int | None = None
        self.published: tuple[Published, ...] = ()
        """Rising in height, at most KEPT."""
        if every_blocks:
            folder.mkdir(parents=True, exist_ok=True)
            self._take_stock()
        else:
            shutil.rmtree(folder, ignore_errors=True)

    def close(self) -> None:
        """Give up what is not finished; it is made anew at another height."""
        self._stopped.set()
        self._thread.shutdown(wait=True)

    def after_block(self, height: int) -> None:
        """A block was committed, and the next one waits: begin a snapshot if it is time for one.

        One that can't be begun is told in the log; the node goes on without it.
        """
        if not self._every_blocks or height % self._every_blocks or self._making is not None:
            return
        linked = self._folder / LINKED_NAME
        self._making = height
        self._hold_blocks()
        try:
            shutil.rmtree(linked, ignore_errors=True)
            linked.mkdir()
            self._store.link_to(linked / DATABASE_NAME)
        except (StoreError, OSError) as error:
            logger.error("no snapshot of height %d: %s", height, error)
            self._making = None
            self._hold_blocks()
            return
        self._thread.submit(self._make, height)

    def find(self, height: int, content: bytes) -> Published | None:
        """The published snapshot of this height and content."""
        for snapshot in self.published:
            if (snapshot.height, snapshot.content) == (height, content):
                return snapshot
        return None

    def manifest(self, height: int, content: bytes) -> bytes:
        """An encoded manifest. Raises Rejection (NOT_FOUND)."""
        return self._read(height, content, lambda folder: (folder / MANIFEST_NAME).read_bytes())

    def chunk(self, height: int, content: bytes, index: int) -> bytes:
        """A chunk of a state. Raises Rejection (NOT_FOUND)."""
        found = self.find(height, content)
        if found is not None and index >= chunk_count(found.state_bytes):
            count = chunk_count(found.state_bytes)
            detail = f"chunk {index} of snapshot {height}, which has {count}"
            raise Rejection(RejectionReason.NOT_FOUND, detail)
        return self._read(height, content, lambda folder: read_chunk(folder, index))

    def _read(self, height: int, content: bytes, read: Callable[[Path], bytes]) -> bytes:
        found = self.find(height, content)
        if found is not None:
            try:
                return read(found.folder)
            except FileNotFoundError:  # a newer one took its place meanwhile
                logger.info("snapshot %d went while it was read", height)
        detail = f"no snapshot {content.hex()} of height {height} here: ask for the offers again"
        raise Rejection(RejectionReason.NOT_FOUND, detail)

    def _take_stock(self) -> None:
        """Find what earlier processes published; drop what they did not finish."""
        found = []
        for folder in self._folder.iterdir():
            published = self._published(folder) if folder.name.isdecimal() else None
            if published is None:
                shutil.rmtree(folder, ignore_errors=True)
            else:
                found.append(published)
        self._publish(found)

    def _published(self, folder: Path) -> Published | None:
        try:
            data = (folder / MANIFEST_NAME).read_bytes()
            manifest = decode_manifest(data, self._genesis)
            state_bytes = (folder / STATE_FILE_NAME).stat().st_size
        except (OSError, SnapshotInvalid) as error:
            logger.warning("%s is dropped: %s", folder, error)
            return None
        # Above the store's own blocks, or below what it keeps, nobody could go on from it.
        kept = self._store.pruned_through < manifest.height <= (self._store.height or 0)
        if state_bytes != manifest.state_bytes or not kept:
            return None
        return Published(manifest.height, manifest.content(), state_bytes, folder)

    def _publish(self, snapshots: list[Published]) -> None:
        rising = sorted(snapshots, key=lambda snapshot: snapshot.height)
        self.published = tuple(rising[-KEPT:])
        for dropped in rising[:-KEPT]:
            shutil.rmtree(dropped.folder, ignore_errors=True)
        self._hold_blocks()

    def _hold_blocks(self) -> None:
        """Keep the blocks from which a snapshot is anchored, and those that follow it."""
        heights = [snapshot.height for snapshot in self.published]
        if self._making is not None:
            heights.append(self._making)
        self._store.keep_from(max(0, min(heights) - 1) if heights else None)

    def _make(self, height: int) -> None:
        unfinished, linked = self._folder / UNFINISHED_NAME, self._folder / LINKED_NAME
        published = list(self.published)
        try:
            shutil.rmtree(unfinished, ignore_errors=True)
            unfinished.mkdir()
            size, chunks = self._write(linked, unfinished, height)
            anchor = self._anchor(height)
            if anchor is None:
                return
            manifest = Manifest(
                version=VERSION,
                chain_id=self._genesis.chain_id,
                genesis=self._genesis.digest(),
                height=height,
                state_bytes=size,
                chunks=chunks,
                anchor=anchor,
            )
            write_manifest(unfinished, manifest)
            folder = self._folder / str(height)
            unfinished.rename(folder)
            published.append(Published(height, manifest.content(), size, folder))
            logger.info("snapshot of height %d: %d bytes", height, size)
        except (StoreError, OSError, ValueError, DecodeError) as error:
            logger.error("no snapshot of height %d: %s", height, error)
        finally:
            for leftover in (unfinished, linked):
                shutil.rmtree(leftover, ignore_errors=True)
            self._making = None
            self._publish(published)

    def _write(self, linked: Path, folder: Path, height: int) -> tuple[int, tuple[bytes, ...]]:
        identity = self._genesis.chain_id, self._genesis.digest()
        with Store(linked, *identity, background=False) as copy:
            if copy.height != height:
                raise StoreError(f"the copy is of height {copy.height}")
            return write_state(copy, folder)

    def _anchor(self, height: int) -> Anchor | None:
        """The anchor, as soon as a certified block vouches for the height; None if that is too late
        for this process."""
        while not self._stopped.is_set():
            try:
                return build_anchor(self._store, self._genesis, height)
            except Rejection as rejection:
                if rejection.reason is not RejectionReason.NOT_READY:
                    raise ValueError(str(rejection)) from rejection
            self._stopped.wait(VOUCHED_POLL_S)
        return None
