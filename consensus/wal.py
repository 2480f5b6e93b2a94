"""The write-ahead log: what this validator must not forget, on disk before it speaks.

Layout: a header group, then one group for each flush. A group is magic, length, CRC-32 of these
two, CRC-32 of the body, body; the body is the records, each behind its length. A flush is one
append and one fdatasync, so a crash can only tear the last group: that is cut off, nothing in it
was ever sent. A bad group with a good one behind it is damage, and so is a bad header: then
nobody knows what was promised, and the validator must not vote. The header names chain and
signing key: one key's promises are no other's; and the epoch, since what was promised in one binds
nobody in the next, which begins a new log. Beginning and compaction write a new file and rename it
over the old.

The directory is injected; `FileDirectory` is the real one and holds an exclusive lock.
"""

import fcntl
import os
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

WAL_NAME: Final = "votes.wal"
LOCK_NAME: Final = "votes.lock"
RECORD_BYTES_MAX: Final = 1 << 20
WAL_BYTES_MAX: Final = 1 << 30
"""A log that was compacted now and then stays far below."""
_MAGIC: Final = b"AWG1"
_HEAD_BYTES: Final = 16
_HEADER_RECORDS: Final = 3
"""Chain id, signing key, epoch."""
_EPOCH_BYTES: Final = 8


class WalError(Exception):
    """The validator must not vote with this log; the message says why and what to do."""


class WalDamaged(WalError):
    """Something else than the tail of the log is broken."""


class WalForeign(WalError):
    """The log belongs to another chain or key."""


class WalAhead(WalError):
    """The log is of a later epoch than the one that is to be voted in."""


class WalMissing(WalError):
    """There should be a log, and there is none."""


class WalLocked(WalError):
    """Another process uses the log."""


class Directory(Protocol):
    """The few disk operations that the log needs. Only what was synced survives a crash."""

    def read(self, name: str) -> bytes | None:
        """The whole file, None if there is none."""
        ...

    def append(self, name: str, data: bytes) -> None:
        """Add to the end of a file, making it if need be."""
        ...

    def sync(self, name: str) -> None:
        """Make the file's content durable."""
        ...

    def truncate(self, name: str, size: int) -> None:
        """Cut a file to `size` bytes, durably."""
        ...

    def replace(self, name: str, data: bytes) -> None:
        """Make `data` the file's whole content, atomically and durably."""
        ...


class FileDirectory:
    """A directory on disk, locked for this process as long as the object is open."""

    def __init__(self, path: Path) -> None:
        """Make the directory if need be and lock it. Raises WalLocked if it is in use."""
        path.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._files: dict[str, int] = {}
        self._lock = os.open(path / LOCK_NAME, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(self._lock)
            raise WalLocked(
                f"{path} is in use by another process: two nodes with one key would be slashed"
            ) from error

    def close(self) -> None:
        """Close the files and give up the lock."""
        for descriptor in self._files.values():
            os.close(descriptor)
        self._files.clear()
        os.close(self._lock)

    def read(self, name: str) -> bytes | None:
        """See `Directory`."""
        try:
            return (self._path / name).read_bytes()
        except FileNotFoundError:
            return None

    def append(self, name: str, data: bytes) -> None:
        """See `Directory`."""
        descriptor = self._descriptor(name)
        view = memoryview(data)
        while view:
            view = view[os.write(descriptor, view) :]

    def sync(self, name: str) -> None:
        """See `Directory`."""
        os.fdatasync(self._descriptor(name))

    def truncate(self, name: str, size: int) -> None:
        """See `Directory`."""
        descriptor = self._descriptor(name)
        os.ftruncate(descriptor, size)
        os.fsync(descriptor)

    def replace(self, name: str, data: bytes) -> None:
        """See `Directory`."""
        temporary = f"{name}.new"
        (self._path / temporary).unlink(missing_ok=True)
        self.append(temporary, data)
        self.sync(temporary)
        os.rename(self._path / temporary, self._path / name)
        self._sync_directory()
        previous = self._files.pop(name, None)
        if previous is not None:
            os.close(previous)
        self._files[name] = self._files.pop(temporary)

    def _descriptor(self, name: str) -> int:
        descriptor = self._files.get(name)
        if descriptor is None:
            path = self._path / name
            is_new = not path.exists()
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
            self._files[name] = descriptor
            if is_new:
                self._sync_directory()
        return descriptor

    def _sync_directory(self) -> None:
        descriptor = os.open(self._path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


class Wal:
    """Append records, flush once a turn. After any OSError it refuses further use."""

    def __init__(self, directory: Directory, header: bytes, size: int) -> None:
        """Use `open`."""
        self._directory = directory
        self._header = header
        self._pending: list[bytes] = []
        self._failed = False
        self.size = size
        """Bytes on disk."""

    @classmethod
    def open(
        cls,
        directory: Directory,
        chain_id: str,
        signing_key: bytes,
        create: bool,
        first: Sequence[bytes] = (),
        epoch: int = 0,
        carry: Callable[[Sequence[bytes]], Sequence[bytes]] = lambda records: (),
    ) -> "tuple[Wal, tuple[bytes, ...]]":
        """The log of an epoch and its records, oldest first.

        `create` is for a validator that never voted: without it a missing log is WalMissing, since
        its promises are lost; or if `first`, what a new log begins with, says so. The log of an
        earlier epoch, of whatever key, gives way to a new one that begins with what `carry` makes
        of its records. One of a later epoch is left alone: WalAhead. Raises WalDamaged or
        WalForeign as the module says.
        """
        names = [chain_id.encode(), signing_key, epoch.to_bytes(_EPOCH_BYTES, "little")]
        header = _group(names)
        data = directory.read(WAL_NAME)
        if not data:
            if not create:
                raise WalMissing(
                    "the vote log is missing: what this key has signed is unknown; restore the "
                    "log, or run as an observer"
                )
            data = header + (_group(first) if first else b"")
            directory.replace(WAL_NAME, data)
            return cls(directory, header, len(data)), tuple(first)
        groups, good_size = _read_groups(data)
        if not groups or len(groups[0]) != _HEADER_RECORDS:
            raise WalDamaged("the vote log's header is broken: run as an observer")
        records = tuple(record for group in groups[1:] for record in group)
        logged_epoch = int.from_bytes(groups[0][2], "little")
        if groups[0][0] == names[0] and logged_epoch > epoch:
            raise WalAhead(
                f"the vote log is of epoch {logged_epoch}, the ledger here stands in epoch {epoch}:"
                " this validator observes until it has caught up"
            )
        if groups[0][0] == names[0] and logged_epoch < epoch:
            first = carry(records)
            data = header + (_group(first) if first else b"")
            directory.replace(WAL_NAME, data)
            return cls(directory, header, len(data)), tuple(first)
        if groups[0] != names:
            raise WalForeign(
                f"the vote log belongs to chain {groups[0][0].decode(errors='replace')!r} and key "
                f"{groups[0][1].hex()}, this is chain {chain_id!r} and key {signing_key.hex()}"
            )
        if good_size < len(data):
            directory.truncate(WAL_NAME, good_size)
        return cls(directory, header, good_size), records

    def append(self, record: bytes) -> None:
        """Put a record into the next flush."""
        if len(record) > RECORD_BYTES_MAX:
            raise ValueError(f"record of {len(record)} bytes exceeds {RECORD_BYTES_MAX}")
        self._pending.append(record)

    def flush(self) -> None:
        """Make everything appended durable: one write, one fdatasync; nothing if nothing is new."""
        if not self._pending:
            return
        data = _group(self._pending)
        self._guard()
        self._directory.append(WAL_NAME, data)
        self._directory.sync(WAL_NAME)
        self._failed = False
        self._pending.clear()
        self.size += len(data)

    def compact(self, records: Sequence[bytes]) -> None:
        """Replace all records, pending ones included, atomically."""
        data = self._header + (_group(records) if records else b"")
        self._guard()
        self._directory.replace(WAL_NAME, data)
        self._failed = False
        self._pending.clear()
        self.size = len(data)

    def _guard(self) -> None:
        """Enter a write. If it raises, the disk's state is unknown and stays so: a later fdatasync
        may succeed although the pages of the failed one are gone."""
        if self._failed:
            raise WalError("an earlier write of the vote log failed: restart to read what survived")
        self._failed = True


@dataclass(frozen=True, slots=True)
class InspectedGroup:
    """What one flush wrote."""

    offset: int
    size: int
    """Bytes, the group's head included."""
    records: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Inspection:
    """What a log's bytes say, without opening it."""

    size: int
    chain_id: str | None
    """None if the header is broken."""
    signing_key: bytes | None
    epoch: int | None
    groups: tuple[InspectedGroup, ...]
    """Good ones from the start, the header's not among them."""
    torn_bytes: int
    """What the next start cuts off the end."""
    damage: str | None
    """Why a validator must not vote with it; None if it may."""


def inspect(data: bytes) -> Inspection:
    """Read a log as `Wal.open` would, and say what it finds; nothing is changed or raised."""
    groups: list[InspectedGroup] = []
    damage: str | None = None
    offset = 0
    while (end := _group_end(data, offset)) is not None:
        try:
            records = _records(data[offset + _HEAD_BYTES : end])
        except WalDamaged as error:
            damage = str(error)
            break
        groups.append(InspectedGroup(offset, end - offset, tuple(records)))
        offset = end
    try:
        _read_groups(data)
    except WalDamaged as error:
        damage = str(error)
    header = groups[0].records if groups else ()
    named = len(header) == _HEADER_RECORDS
    if not named and damage is None:
        damage = "the vote log's header is broken"
    return Inspection(
        size=len(data),
        chain_id=header[0].decode(errors="replace") if named else None,
        signing_key=header[1] if named else None,
        epoch=int.from_bytes(header[2], "little") if named else None,
        groups=tuple(groups[1:]),
        torn_bytes=len(data) - offset if damage is None else 0,
        damage=damage,
    )


def _group(records: Sequence[bytes]) -> bytes:
    body = b"".join(len(record).to_bytes(4, "little") + record for record in records)
    length = len(body).to_bytes(4, "little")
    return b"".join((_MAGIC, length, _crc(_MAGIC + length), _crc(body), body))


def _crc(data: bytes) -> bytes:
    return zlib.crc32(data).to_bytes(4, "little")


def _read_groups(data: bytes) -> tuple[list[list[bytes]], int]:
    """The good groups and where they end. Raises WalDamaged if a good one follows a bad one."""
    if len(data) > WAL_BYTES_MAX:
        raise WalDamaged(f"the vote log has {len(data)} bytes, allowed are {WAL_BYTES_MAX}")
    groups: list[list[bytes]] = []
    offset = 0
    while offset < len(data):
        end = _group_end(data, offset)
        if end is None:
            _refuse_damage(data, offset)
            break
        groups.append(_records(data[offset + _HEAD_BYTES : end]))
        offset = end
    return groups, offset


def _group_end(data: bytes, offset: int) -> int | None:
    """Where the good group at `offset` ends, None if there is none."""
    head = data[offset : offset + _HEAD_BYTES]
    if len(head) < _HEAD_BYTES or head[:4] != _MAGIC or head[8:12] != _crc(head[:8]):
        return None
    end = offset + _HEAD_BYTES + int.from_bytes(head[4:8], "little")
    if end > len(data) or head[12:] != _crc(data[offset + _HEAD_BYTES : end]):
        return None
    return end


def _refuse_damage(data: bytes, offset: int) -> None:
    later = data.find(_MAGIC, offset + 1)
    while later >= 0:
        if _group_end(data, later) is not None:
            raise WalDamaged(
                f"the vote log is broken at byte {offset} and goes on at byte {later}: "
                "run as an observer"
            )
        later = data.find(_MAGIC, later + 1)


def _records(body: bytes) -> list[bytes]:
    records = []
    offset = 0
    while offset < len(body):
        end = offset + 4 + int.from_bytes(body[offset : offset + 4], "little")
        if end > len(body):
            raise WalDamaged(f"record at byte {offset} of a good group passes its end")
        records.append(body[offset + 4 : end])
        offset = end
    return records
