"""A snapshot that anyone can check: a state in one order, cut into chunks, and the proof of it.

`state` is one file of frames in a fixed order: records, account pages, what open jobs need
(requests, results, where they come from), and the receipts and events of the snapshot's block. So
any two validators write the same bytes for the same height, and a receiver may take chunks from all
of them. `manifest` names the hash of each chunk and holds the anchor (`snapshot_anchor`).

A chunk's hash only says that it is what the manifest means. What the state is worth is decided when
it is whole: its roots must be those that the anchor proves (`snapshot_install`).
"""

import enum
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, BinaryIO, Final

from chain.execution.ledger import FINAL
from chain.genesis import Genesis
from chain.records import Job
from chain.snapshot_anchor import Anchor, SnapshotInvalid
from chain.state import TableNumber
from chain.store import Store
from chain.store_rows import leaves_bytes
from consensus.wire import U8, U64, Count, DecodeError, Hash, Size, decode, encode
from ext.hashing import sha256, tagged_hash
from ext.tables import ROW_NUMBER_BYTES

MANIFEST_NAME: Final = "manifest"
STATE_FILE_NAME: Final = "state"
VERSION: Final = 1
CHUNK_BYTES: Final = 1 << 20
CHUNKS_MAX: Final = 16_384
"""16 GiB: two hundred million accounts."""
MANIFEST_BYTES_MAX: Final = 2 << 20
CHAIN_ID_BYTES_MAX: Final = 64
KEY_BYTES_MAX: Final = 1024
HEAD_BYTES: Final = 8
"""Of a frame: kind and table (u8 each), size of the key (u16-LE) and of the value (u32-LE)."""


class FrameKind(enum.IntEnum):
    """What a frame holds; frames come in this order."""

    RECORD = 1
    """A row of a small table, key and stored value; in order of table and key."""
    ACCOUNTS = 2
    """Packed account rows, in order of number."""
    PAYLOAD = 3
    """A request or a result that an open job names, by digest, in order of digest."""
    ORIGIN = 4
    """Where an open job comes from (`JobOrigin`), in order of job."""
    RECEIPTS = 5
    EVENTS = 6


KEYED: Final = (FrameKind.RECORD, FrameKind.PAYLOAD, FrameKind.ORIGIN)


@dataclass(frozen=True, slots=True)
class Frame:
    """One piece of a state."""

    kind: FrameKind
    table: int
    """0 for all but records."""
    key: bytes
    value: bytes


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a snapshot says of itself; nothing in it is believed before it is checked."""

    version: U8
    chain_id: Annotated[str, Size(CHAIN_ID_BYTES_MAX)]
    genesis: Hash
    height: U64
    state_bytes: U64
    chunks: Annotated[tuple[Hash, ...], Count(CHUNKS_MAX)]
    """SHA-256 of each CHUNK_BYTES of the state; the last may be shorter."""
    anchor: Anchor

    def content(self) -> bytes:
        """What two validators that wrote the same state have in common: 32 bytes."""
        return tagged_hash(
            b"snapshot",
            self.genesis,
            self.height.to_bytes(8, "little"),
            self.state_bytes.to_bytes(8, "little"),
            b"".join(self.chunks),
        )


def decode_manifest(data: bytes, genesis: Genesis) -> Manifest:
    """A manifest of this chain whose sizes fit each other. Raises SnapshotInvalid."""
    if len(data) > MANIFEST_BYTES_MAX:
        raise SnapshotInvalid(f"the manifest has {len(data)} bytes, at most {MANIFEST_BYTES_MAX}")
    try:
        manifest = decode(Manifest, data)
    except DecodeError as error:
        raise SnapshotInvalid(f"the manifest cannot be read: {error}") from error
    if manifest.version != VERSION:
        raise SnapshotInvalid(f"the manifest is of version {manifest.version}, not {VERSION}")
    if (manifest.chain_id, manifest.genesis) != (genesis.chain_id, genesis.digest()):
        raise SnapshotInvalid(f"the snapshot is of another chain, {manifest.chain_id}")
    if not manifest.chunks or len(manifest.chunks) != chunk_count(manifest.state_bytes):
        raise SnapshotInvalid(
            f"{manifest.state_bytes} bytes are not {len(manifest.chunks)} chunks of {CHUNK_BYTES}"
        )
    return manifest


def fits(state_bytes: int) -> bool:
    """Whether a state has a size that snapshots have."""
    return 1 <= chunk_count(state_bytes) <= CHUNKS_MAX


def chunk_count(state_bytes: int) -> int:
    """How many chunks a state has."""
    return -(-state_bytes // CHUNK_BYTES)


def chunk_size(state_bytes: int, index: int) -> int:
    """How many bytes a chunk has."""
    return min(CHUNK_BYTES, state_bytes - index * CHUNK_BYTES)


def read_chunk(folder: Path, index: int) -> bytes:
    """A chunk of a snapshot's state; short or empty where the file is."""
    with (folder / STATE_FILE_NAME).open("rb") as file:
        return os.pread(file.fileno(), CHUNK_BYTES, index * CHUNK_BYTES)


def write_chunk(folder: Path, index: int, data: bytes) -> None:
    """Put a chunk into its place in a snapshot's state, which exists. Raises OSError."""
    descriptor = os.open(folder / STATE_FILE_NAME, os.O_WRONLY)
    written = 0
    try:
        while written < len(data):  # a disk that is nearly full takes a part and says so
            written += os.pwrite(descriptor, data[written:], index * CHUNK_BYTES + written)
    finally:
        os.close(descriptor)


def write_state(store: Store, folder: Path) -> tuple[int, tuple[bytes, ...]]:
    """Write the state of the store's newest block; its size and the hashes of its chunks.

    Nothing may be committed meanwhile. Raises StoreError, OSError, and ValueError for a state that
    is too large.
    """
    size = 0
    with (folder / STATE_FILE_NAME).open("wb") as file:
        for frame in state_frames(store):
            head = bytes((frame.kind, frame.table))
            sizes = len(frame.key).to_bytes(2, "little") + len(frame.value).to_bytes(4, "little")
            size += file.write(b"".join((head, sizes, frame.key, frame.value)))
            if not fits(size):
                raise ValueError(f"the state has more than {CHUNKS_MAX} chunks of {CHUNK_BYTES}")
        file.flush()
        os.fsync(file.fileno())
    return size, tuple(sha256(read_chunk(folder, at)) for at in range(chunk_count(size)))


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Raises ValueError for one that is larger than a receiver takes."""
    data = encode(manifest)
    if len(data) > MANIFEST_BYTES_MAX:
        raise ValueError(f"the manifest has {len(data)} bytes, allowed are {MANIFEST_BYTES_MAX}")
    with (folder / MANIFEST_NAME).open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def state_frames(store: Store) -> Iterator[Frame]:
    """The state of a store's newest block, in the order of snapshots."""
    height = store.height or 0
    open_jobs: dict[bytes, Job] = {}
    for table, key, value in store.load_records():
        if table == TableNumber.JOBS:
            job = decode(Job, value[ROW_NUMBER_BYTES:])
            if job.status not in FINAL:
                open_jobs[key] = job
        yield Frame(FrameKind.RECORD, table, key, value)
    for rows in store.load_accounts():
        yield Frame(FrameKind.ACCOUNTS, 0, b"", rows)
    for digest in needed_payloads(open_jobs.values()):
        payload = store.payload(digest)
        if payload is not None:
            yield Frame(FrameKind.PAYLOAD, 0, digest, payload)
    for identity in sorted(open_jobs):
        origin = store.job_origin(identity)
        if origin is not None:
            yield Frame(FrameKind.ORIGIN, 0, identity, encode(origin))
    yield Frame(FrameKind.RECEIPTS, 0, b"", leaves_bytes(store.receipts_at(height)))
    yield Frame(FrameKind.EVENTS, 0, b"", leaves_bytes(store.events_at(height)))


def needed_payloads(open_jobs: Iterable[Job]) -> list[bytes]:
    """Digests of the requests and results that open jobs name, rising."""
    digests = set()
    for job in open_jobs:
        digests.add(job.request_digest)
        if job.result_digest is not None:
            digests.add(job.result_digest)
    return sorted(digests)


def read_frames(folder: Path) -> Iterator[Frame]:
    """The frames of a state, in order of kind. Raises SnapshotInvalid for what is none; no value is
    larger than what is left of the file."""
    path = folder / STATE_FILE_NAME
    left = path.stat().st_size
    newest = FrameKind.RECORD
    with path.open("rb") as file:
        while left:
            frame = _read_frame(file, left)
            left -= HEAD_BYTES + len(frame.key) + len(frame.value)
            if frame.kind < newest:
                raise SnapshotInvalid(f"a frame of {frame.kind.name} comes after {newest.name}")
            newest = frame.kind
            yield frame


def _read_frame(file: BinaryIO, left: int) -> Frame:
    head = file.read(HEAD_BYTES)
    if len(head) < HEAD_BYTES:
        raise SnapshotInvalid("the state ends within the head of a frame")
    key_bytes, value_bytes = (
        int.from_bytes(head[2:4], "little"),
        int.from_bytes(head[4:8], "little"),
    )
    if key_bytes > KEY_BYTES_MAX or HEAD_BYTES + key_bytes + value_bytes > left:
        raise SnapshotInvalid(f"a frame of {key_bytes} and {value_bytes} bytes, {left} are left")
    try:
        kind = FrameKind(head[0])
    except ValueError as error:
        raise SnapshotInvalid(f"a frame of kind {head[0]} is not known") from error
    has_table, has_key = kind is FrameKind.RECORD, kind in KEYED
    if (head[1] and not has_table) or (key_bytes and not has_key):
        raise SnapshotInvalid(f"a frame of {kind.name} names a table or a key, and has none")
    return Frame(kind, head[1], file.read(key_bytes), file.read(value_bytes))
