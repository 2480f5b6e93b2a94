"""The few things we ask of RocksDB, with its errors as ours.

Iterators never leave this module: an iterator that outlives `close` would keep RocksDB's own lock,
and the home could not be opened again.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from rocksdict import DbClosedError, DBRecoveryMode, Options, Rdict, WriteBatch, WriteOptions

CHUNK_ROWS: Final = 4096
OPEN_FILES_MAX: Final = 256
LOG_FILES_KEPT: Final = 2
WAL_BYTES_MAX: Final = 64 << 20


class StoreError(Exception):
    """The home directory cannot be used. The message says why and what to do."""


@contextmanager
def _errors_as_ours(path: Path) -> Iterator[None]:
    try:
        yield
    except DbClosedError as error:
        raise StoreError(f"{path} is closed") from error
    except Exception as error:
        if type(error) is not Exception:
            raise
        raise StoreError(
            f"{path}: {error}; if the disk is sound, restore this home from a snapshot"
        ) from error


class Rocks:
    """An ordered map of byte strings on disk. Any thread may call any method."""

    def __init__(self, path: Path) -> None:
        """Open or create. Raises StoreError."""
        options = Options(raw_mode=True)
        options.create_if_missing(True)
        options.set_max_open_files(OPEN_FILES_MAX)
        options.set_keep_log_file_num(LOG_FILES_KEPT)
        options.set_max_total_wal_size(WAL_BYTES_MAX)
        # A killed process tears the log's last record, no other: damage before it is told, where
        # the default would silently forget every block after it.
        options.set_wal_recovery_mode(DBRecoveryMode.tolerate_corrupted_tail_records())
        self._path = path
        self._sync = WriteOptions()
        self._sync.sync = True
        self._no_sync = WriteOptions()
        with _errors_as_ours(path):
            self._rdict = Rdict(str(path), options)
        self._is_open = True

    def close(self) -> None:
        """Flush and release. Closing twice is nothing."""
        if self._is_open:
            self._is_open = False
            with _errors_as_ours(self._path):
                self._rdict.close()

    def get(self, key: bytes) -> bytes | None:
        """The value of a key."""
        with _errors_as_ours(self._path):
            value: bytes | None = self._rdict.get(key)
        return value

    def write(self, changes: WriteBatch, sync: bool) -> None:
        """All changes or none; with `sync` they are durable on return, and all before them."""
        with _errors_as_ours(self._path):
            self._rdict.write(changes, self._sync if sync else self._no_sync)

    def rows(self, prefix: bytes, start: bytes, limit: int) -> list[tuple[bytes, bytes]]:
        """Up to `limit` rows from key `start` on whose keys begin with `prefix`, in order."""
        found: list[tuple[bytes, bytes]] = []
        with _errors_as_ours(self._path):
            cursor = self._rdict.iter()
            cursor.seek(start)
            while len(found) < limit and cursor.valid():
                key: bytes = cursor.key()
                if not key.startswith(prefix):
                    break
                found.append((key, cursor.value()))
                cursor.next()
            cursor.status()
        return found

    def all_rows(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Every row under a prefix, in order, read in chunks: not one instant's picture."""
        start = prefix
        while True:
            chunk = self.rows(prefix, start, CHUNK_ROWS)
            yield from chunk
            if len(chunk) < CHUNK_ROWS:
                return
            start = chunk[-1][0] + b"\0"

    def last(self, prefix: bytes) -> tuple[bytes, bytes] | None:
        """The row with the greatest key under a prefix."""
        with _errors_as_ours(self._path):
            cursor = self._rdict.iter()
            cursor.seek_for_prev(prefix + b"\xff" * 64)
            found = (cursor.key(), cursor.value()) if cursor.valid() else None
            cursor.status()
        return found if found is not None and found[0].startswith(prefix) else None
