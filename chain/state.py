"""The state: typed tables of records, their Merkle roots, and undo.

Leaf data of a row is its table's number, its key and its encoded record, joined. A table's root is
the RFC 6962 tree over its rows in order of row number; the state root is the tree over all tables,
one leaf H("table", number, root) each, in order of number. Changes become part of the roots, and
of the journal, at `commit`, which hashes what changed and nothing else.

Accounts are native (`ext.ledger`): a row, once made, stays. Rows of the other tables may go; the
lowest free number is the next new row's, and a table ends with its last row in use. So which rows
there are follows from the stored ones, whatever came before (docs/decisions/0016).
"""

import enum
import heapq
import operator
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
from ext.ledger import AccountTable
from ext.rows import ROWS_MAX, RowTree

Record = TypeVar("Record")
Row = tuple[int, bytes, bytes]
"""(table, key, stored value) of any table but accounts."""
Change = tuple[int, bytes, bytes | None]
Savepoint = tuple[int, int]

ACCOUNT_BYTES = 32
ID_BYTES = 32
SINGLE_KEY = b""
"""The key of a table that has one row."""
ROW_NUMBER_BYTES = 4
"""A stored value is the row's number (u32-LE), then the encoded record."""
ACCOUNTS_PER_CHUNK = 4096


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
    """Records of one type by key; `State` counts for undo."""

    def __init__(
        self,
        number: TableNumber,
        kind: type[Record],
        key_bytes: int,
        group_bytes: int = 0,
    ) -> None:
        """Keys that share their first `group_bytes`, or what follows, can be had together."""
        self.number = number
        self.kind = kind
        self.key_bytes = key_bytes
        self.dirty: set[bytes] = set()
        self._group_bytes = group_bytes
        self._records: dict[bytes, Record] = {}
        self._by_prefix: dict[bytes, list[bytes]] = {}
        self._by_suffix: dict[bytes, list[bytes]] = {}
        self._numbers: dict[bytes, int] = {}
        self._tree = RowTree(number.to_bytes(1, "little"))
        self._free: set[int] = set()
        self._free_heap: list[int] = []
        """Every free number, and perhaps some that are free no longer."""

    def __len__(self) -> int:
        return len(self._records)

    def get(self, key: bytes) -> Record | None:
        """The record, or None."""
        return self._records.get(key)

    def scan(self, group: bytes = b"") -> Iterator[tuple[bytes, Record]]:
        """(key, record) of the group with this prefix, or of all rows, in order of key. Do not
        write meanwhile.

        Sorts all rows to give them all, so that is nothing for every transaction.
        """
        for key in self._by_prefix.get(group, ()) if group else sorted(self._records):
            yield key, self._records[key]

    def ending(self, suffix: bytes) -> Iterator[tuple[bytes, Record]]:
        """(key, record) of the rows of all groups with this key inside of their group, in order."""
        for key in self._by_suffix.get(suffix, ()):
            yield key, self._records[key]

    def put(self, key: bytes, record: Record | None) -> Record | None:
        """Set the record, or delete it with None; what was there. Only `State` calls this."""
        before = self._records.get(key)
        present = before is not None
        if record is not None:
            self._records[key] = record
            if self._group_bytes and not present:
                insort(self._by_prefix.setdefault(key[: self._group_bytes], []), key)
                insort(self._by_suffix.setdefault(key[self._group_bytes :], []), key)
        elif present:
            del self._records[key]
            if self._group_bytes:
                _leave(self._by_prefix, key[: self._group_bytes], key)
                _leave(self._by_suffix, key[self._group_bytes :], key)
        return before

    def load(self, values: dict[bytes, bytes]) -> None:
        """Fill the empty table from stored values. Raises StateError for any that is not ours."""
        rows: dict[int, tuple[bytes, bytes]] = {}
        for key, value in values.items():
            number = int.from_bytes(value[:ROW_NUMBER_BYTES], "little")
            record = value[ROW_NUMBER_BYTES:]
            if len(value) < ROW_NUMBER_BYTES or number >= ROWS_MAX or number in rows:
                raise StateError(
                    f"table {self.number.name}, key {key.hex()}: a bad or repeated row number"
                )
            try:
                self.put(key, decode(self.kind, record))
            except DecodeError as error:
                raise StateError(f"table {self.number.name}, key {key.hex()}: {error}") from error
            self._numbers[key] = number
            rows[number] = key, record
        for number in range(max(rows, default=-1) + 1):
            if number in rows:
                self._tree.set(number, *rows[number])
            else:
                self._tree.clear(number)
                self._free.add(number)
                self._free_heap.append(number)
        self._tree.commit()

    def commit(self) -> list[Change]:
        """Hash what changed since the last commit; the changes in order of key."""
        changes: list[Change] = []
        kept: list[tuple[bytes, Record]] = []
        tree, numbers = self._tree, self._numbers
        for key in sorted(self.dirty):
            record = self._records.get(key)
            if record is not None:
                kept.append((key, record))
            elif key in numbers:
                number = numbers.pop(key)
                self._free.add(number)
                heapq.heappush(self._free_heap, number)
                tree.clear(number)
                changes.append((self.number, key, None))
        self.dirty.clear()
        for key, record in kept:
            value = encode(record)
            known = numbers.get(key)
            if known is None:
                known = numbers[key] = self._next_number()
            if tree.set(known, key, value):
                stored = known.to_bytes(ROW_NUMBER_BYTES, "little") + value
                changes.append((self.number, key, stored))
        if changes:
            size = len(tree)
            while size and size - 1 in self._free:
                size -= 1
                self._free.discard(size)
            tree.truncate(size)
            tree.commit()
        changes.sort(key=_key_of)
        return changes

    def rows(self) -> Iterator[Row]:
        """(table, key, stored value) of what is committed, in order of key."""
        for key, record in self.scan():
            number = self._numbers[key].to_bytes(ROW_NUMBER_BYTES, "little")
            yield self.number, key, number + encode(record)

    @property
    def root(self) -> bytes:
        """Root as of the last commit."""
        return self._tree.root

    def _next_number(self) -> int:
        """The lowest free number, or that behind the last row."""
        while self._free_heap:
            number = heapq.heappop(self._free_heap)
            if number in self._free:
                self._free.discard(number)
                return number
        size = len(self._tree)
        if size >= ROWS_MAX:
            raise StateError(f"table {self.number.name} is full with {ROWS_MAX} rows")
        return size


_key_of = operator.itemgetter(1)
"""Of a change."""


def _leave(groups: dict[bytes, list[bytes]], name: bytes, key: bytes) -> None:
    group = groups[name]
    del group[bisect_left(group, key)]
    if not group:
        del groups[name]


class State:
    """All tables of the ledger, with one undo log over the small ones and one over accounts."""

    def __init__(self) -> None:
        self.accounts = AccountTable(TableNumber.ACCOUNTS)
        self.models = Table(TableNumber.MODELS, Model, ID_BYTES)
        self.offers = Table(TableNumber.OFFERS, Offer, ID_BYTES + ACCOUNT_BYTES, ID_BYTES)
        self.jobs = Table(TableNumber.JOBS, Job, ID_BYTES)
        self.verifiers = Table(TableNumber.VERIFIERS, Verifier, ID_BYTES + 2, ID_BYTES)
        self.validators = Table(TableNumber.VALIDATORS, Validator, 2)
        self.parameters = Table(TableNumber.PARAMETERS, Parameters, 0)
        self.supply = Table(TableNumber.SUPPLY, Supply, 0)
        self.included = Table(TableNumber.INCLUDED, IncludedIds, 8)
        self.fingerprints = Table(TableNumber.FINGERPRINTS, Fingerprint, ID_BYTES + 2, ID_BYTES)
        self._tables: tuple[Table[Any], ...] = (
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
        self._undo: list[tuple[Table[Any], bytes, Any, bool]] = []

    def put(self, table: Table[Record], key: bytes, record: Record | None) -> None:
        """Set a record, or delete it with None, so that it can be undone."""
        before = table.put(key, record)
        self._undo.append((table, key, before, key in table.dirty))
        table.dirty.add(key)

    def savepoint(self) -> Savepoint:
        """A point to roll back to, good until the next commit."""
        return len(self._undo), self.accounts.savepoint()

    def rollback(self, savepoint: Savepoint) -> None:
        """Undo every change made since the savepoint, newest first."""
        records, accounts = savepoint
        while len(self._undo) > records:
            table, key, record, was_dirty = self._undo.pop()
            table.put(key, record)
            if not was_dirty:
                table.dirty.discard(key)
        self.accounts.rollback(accounts)

    def commit(self) -> tuple[tuple[Change, ...], bytes]:
        """Make all changes part of the roots; they can no longer be undone.

        Returns the changes, in order of table and key, and the changed accounts, packed.
        """
        self._undo.clear()
        changes: list[Change] = []
        for table in self._tables:
            changes += table.commit()
        return tuple(changes), self.accounts.commit()

    def root(self) -> bytes:
        """The state root as of the last commit."""
        roots = {table.number: table.root for table in self._tables}
        roots[TableNumber.ACCOUNTS] = self.accounts.root
        return root_of_tables(roots)

    def rows(self) -> Iterator[Row]:
        """Every (table, key, stored value) but the accounts, sorted."""
        for table in self._tables:
            yield from table.rows()

    def account_chunks(self) -> Iterator[bytes]:
        """All accounts, packed, in order of row number."""
        for start in range(0, len(self.accounts), ACCOUNTS_PER_CHUNK):
            yield self.accounts.pack(start, ACCOUNTS_PER_CHUNK)

    @classmethod
    def from_rows(cls, rows: Iterable[Row], accounts: Iterable[bytes]) -> "State":
        """Rebuild from stored rows, in any order, and account chunks, in theirs.

        Raises StateError for anything that is not ours.
        """
        state = cls()
        tables = {int(table.number): table for table in state._tables}
        values: dict[int, dict[bytes, bytes]] = {number: {} for number in tables}
        for number, key, value in rows:
            if number not in tables:
                raise StateError(
                    f"table {number} is unknown; was the store written by a newer version?"
                )
            if len(key) != tables[number].key_bytes or key in values[number]:
                name = tables[number].number.name
                raise StateError(f"table {name} holds a bad or repeated key {key.hex()}")
            values[number][key] = value
        for number, table in tables.items():
            table.load(values[number])
        for chunk in accounts:
            try:
                state.accounts.load(chunk)
            except ValueError as error:
                raise StateError(f"table ACCOUNTS: {error}") from error
        return state


def root_of_tables(roots: dict[TableNumber, bytes]) -> bytes:
    """The state root over the roots of all tables."""
    return merkle.root(
        [
            merkle.leaf_hash(tagged_hash(b"table", number.to_bytes(1, "little"), roots[number]))
            for number in TableNumber
        ]
    )


def account_of(accounts: AccountTable, key: bytes) -> Account:
    """An account; all zeros if there is none."""
    return Account(*(accounts.get(key) or (0, 0, 0, 0)))
