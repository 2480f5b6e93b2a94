"""The state: typed tables of records, their Merkle roots, and undo.

Leaf of a row: RFC 6962 leaf hash of H("row", table number, key, encoded record). A table's root
is the tree over its rows in order of key; the state root is the tree over all tables, one leaf
H("table", number, root) each, in order of number. Changes become part of the roots, and of the
journal, at `commit`.
"""

import enum
from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator
from typing import Any, Generic, TypeVar

from chain.parameters import Parameters
from chain.records import (
    Account,
    Fingerprint,
    IncludedIds,
    Job,
    Model,
    Offer,
    Supply,
    Verifier,
)
from consensus.values import Validator
from consensus.wire import DecodeError, decode, encode
from ext import merkle
from ext.hashing import tagged_hash

Record = TypeVar("Record")
Row = tuple[int, bytes, bytes]
Change = tuple[int, bytes, bytes | None]

ACCOUNT_BYTES = 32
ID_BYTES = 32
SINGLE_KEY = b""
"""The key of a table that has one row."""


class TableNumber(enum.IntEnum):
    """Names of the tables, which enter their hashes: never reuse one."""

    ACCOUNTS = 1
    MODELS = 2
    OFFERS = 3
    JOBS = 4
    VERIFIERS = 5
    VALIDATORS = 6
    PARAMETERS = 7
    SUPPLY = 8
    INCLUDED = 9
    FINGERPRINTS = 10


class StateError(Exception):
    """Stored rows that no ledger of this version wrote."""


class Table(Generic[Record]):
    """Rows of one type by key, sorted; counts on `State` for undo."""

    def __init__(self, number: TableNumber, kind: type[Record], key_bytes: int) -> None:
        self.number = number
        self.kind = kind
        self.key_bytes = key_bytes
        self._rows: dict[bytes, Record] = {}
        self._keys: list[bytes] = []
        self._leaves: dict[bytes, bytes] = {}
        self._root = merkle.root([])
        self.dirty: set[bytes] = set()

    def __len__(self) -> int:
        return len(self._rows)

    def get(self, key: bytes) -> Record | None:
        """The record, or None."""
        return self._rows.get(key)

    def scan(self, prefix: bytes = b"") -> Iterator[tuple[bytes, Record]]:
        """(key, record) of keys that start with `prefix`, in order. Do not write meanwhile."""
        for position in range(bisect_left(self._keys, prefix), len(self._keys)):
            key = self._keys[position]
            if not key.startswith(prefix):
                return
            yield key, self._rows[key]

    def put(self, key: bytes, record: Record | None) -> None:
        """Set the record, or delete it with None. Only `State.put` calls this."""
        present = key in self._rows
        if record is None:
            if present:
                del self._rows[key]
                del self._keys[bisect_left(self._keys, key)]
        else:
            if not present:
                insort(self._keys, key)
            self._rows[key] = record

    def load(self, rows: dict[bytes, Record], leaves: dict[bytes, bytes]) -> None:
        """Replace the contents by stored rows and their leaf hashes."""
        self._rows, self._keys, self._leaves = rows, sorted(rows), leaves
        self._root = merkle.root([leaves[key] for key in self._keys])

    def leaf(self, key: bytes, value: bytes) -> bytes:
        """The leaf hash of one row."""
        number = self.number.to_bytes(1, "little")
        return merkle.leaf_hash(tagged_hash(b"row", number, key, value))

    def commit(self) -> list[Change]:
        """Hash what changed since the last commit; the changes in order of key."""
        changes: list[Change] = []
        for key in sorted(self.dirty):
            record = self._rows.get(key)
            if record is None:
                if self._leaves.pop(key, None) is not None:
                    changes.append((self.number, key, None))
                continue
            value = encode(record)
            leaf = self.leaf(key, value)
            if self._leaves.get(key) != leaf:
                self._leaves[key] = leaf
                changes.append((self.number, key, value))
        self.dirty.clear()
        if changes:
            self._root = merkle.root([self._leaves[key] for key in self._keys])
        return changes

    @property
    def root(self) -> bytes:
        """Root as of the last commit."""
        return self._root


class State:
    """All tables of the ledger, with one undo log over them."""

    def __init__(self) -> None:
        self.accounts = Table(TableNumber.ACCOUNTS, Account, ACCOUNT_BYTES)
        self.models = Table(TableNumber.MODELS, Model, ID_BYTES)
        self.offers = Table(TableNumber.OFFERS, Offer, ID_BYTES + ACCOUNT_BYTES)
        self.jobs = Table(TableNumber.JOBS, Job, ID_BYTES)
        self.verifiers = Table(TableNumber.VERIFIERS, Verifier, ID_BYTES + 2)
        self.validators = Table(TableNumber.VALIDATORS, Validator, 2)
        self.parameters = Table(TableNumber.PARAMETERS, Parameters, 0)
        self.supply = Table(TableNumber.SUPPLY, Supply, 0)
        self.included = Table(TableNumber.INCLUDED, IncludedIds, 8)
        self.fingerprints = Table(TableNumber.FINGERPRINTS, Fingerprint, ID_BYTES + 2)
        tables: tuple[Table[Any], ...] = (
            self.accounts,
            self.models,
            self.offers,
            self.jobs,
            self.verifiers,
            self.validators,
            self.parameters,
            self.supply,
            self.included,
            self.fingerprints,
        )
        self._tables = {table.number: table for table in tables}
        self._undo: list[tuple[Table[Any], bytes, Any, bool]] = []

    def put(self, table: Table[Record], key: bytes, record: Record | None) -> None:
        """Set a record, or delete it with None, so that it can be undone."""
        self._undo.append((table, key, table.get(key), key in table.dirty))
        table.put(key, record)
        table.dirty.add(key)

    def savepoint(self) -> int:
        """A point to roll back to, good until the next commit."""
        return len(self._undo)

    def rollback(self, savepoint: int) -> None:
        """Undo every change made since the savepoint, newest first."""
        while len(self._undo) > savepoint:
            table, key, record, was_dirty = self._undo.pop()
            table.put(key, record)
            if not was_dirty:
                table.dirty.discard(key)

    def commit(self) -> tuple[Change, ...]:
        """Make all changes part of the roots; they can no longer be undone."""
        self._undo.clear()
        changes: list[Change] = []
        for number in TableNumber:
            changes += self._tables[number].commit()
        return tuple(changes)

    def root(self) -> bytes:
        """The state root as of the last commit."""
        return merkle.root(
            [
                merkle.leaf_hash(
                    tagged_hash(b"table", number.to_bytes(1, "little"), self._tables[number].root)
                )
                for number in TableNumber
            ]
        )

    def rows(self) -> Iterator[Row]:
        """Every (table, key, value), sorted."""
        for number in TableNumber:
            for key, record in self._tables[number].scan():
                yield number, key, encode(record)

    @classmethod
    def from_rows(cls, rows: Iterable[Row]) -> "State":
        """Rebuild from stored rows, in any order. Raises StateError for a row that is not ours."""
        state = cls()
        records: dict[int, dict[bytes, Any]] = {number: {} for number in TableNumber}
        leaves: dict[int, dict[bytes, bytes]] = {number: {} for number in TableNumber}
        for number, key, value in rows:
            if number not in records:
                raise StateError(
                    f"table {number} is unknown; was the store written by a newer version?"
                )
            table = state._tables[TableNumber(number)]
            if len(key) != table.key_bytes or key in records[number]:
                raise StateError(
                    f"table {table.number.name} holds a bad or repeated key {key.hex()}"
                )
            try:
                records[number][key] = decode(table.kind, value)
            except DecodeError as error:
                raise StateError(f"table {table.number.name}, key {key.hex()}: {error}") from error
            leaves[number][key] = table.leaf(key, value)
        for number in TableNumber:
            state._tables[number].load(records[number], leaves[number])
        return state
