"""The state: typed tables of records, their Merkle roots, and undo.

Leaf data of a row is its table's number, its key and its encoded record, joined. A table's root is
the RFC 6962 tree over its rows in order of row number; the state root is the tree over all tables,
one leaf H("table", number, root) each, in order of number. Changes become part of the roots, and
of the journal, at `commit`, which hashes what changed and nothing else.

Accounts (`ext.ledger`): a row, once made, stays. Rows of the other tables (`ext.tables`) may go;
the lowest free number is the next new row's, and a table ends with its last row in use. So which
rows there are follows from the stored ones, whatever came before (docs/decisions/0016).
"""

import enum
from collections.abc import Iterable, Iterator
from typing import Any

from chain.parameters import Parameters
from chain.records import (
    Account,
    Appeal,
    Conviction,
    Ejection,
    ElectedSet,
    Fingerprint,
    IncludedIds,
    Job,
    KeyOwner,
    Model,
    Offer,
    ProposedBlocks,
    RegisteredValidator,
    Session,
    SessionJob,
    Supply,
    Suspicion,
    Trap,
    Verifier,
)
from consensus.wire import layout_of
from ext import merkle, tables
from ext.hashing import tagged_hash
from ext.ledger import AccountTable
from ext.tables import RecordTable, UndoLog

Row = tuple[int, bytes, bytes]
"""(table, key, stored value) of any table but accounts."""
Change = tuple[int, bytes, bytes | None]
Savepoint = tuple[int, int]

ACCOUNT_BYTES = 32
ID_BYTES = 32
INDEX_BYTES = 2
"""Of a validator."""
EPOCH_BYTES = 8
SINGLE_KEY = b""
"""The key of a table that has one row."""
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
    SESSIONS = 11
    SESSION_JOBS = 12
    CONVICTIONS = 16
    TRAPS = 20
    SUSPICIONS = 21
    EJECTIONS = 22
    APPEALS = 23
    VALIDATOR_KEYS = 24
    ELECTED_SETS = 25
    PROPOSED_BLOCKS = 26


class StateError(Exception):
    """Stored rows that no ledger of this version wrote."""


class State:
    """All tables of the ledger, with one undo log over the small ones and one over accounts."""

    def __init__(self) -> None:
        self._undo = undo = UndoLog()
        self.accounts = AccountTable(TableNumber.ACCOUNTS)
        self.models: RecordTable[Model] = RecordTable(
            TableNumber.MODELS, layout_of(Model), ID_BYTES, undo
        )
        self.offers: RecordTable[Offer] = RecordTable(
            TableNumber.OFFERS,
            layout_of(Offer),
            ID_BYTES + ACCOUNT_BYTES,
            undo,
            group_bytes=ID_BYTES,
            with_suffixes=True,
        )
        self.jobs: RecordTable[Job] = RecordTable(TableNumber.JOBS, layout_of(Job), ID_BYTES, undo)
        self.verifiers: RecordTable[Verifier] = RecordTable(
            TableNumber.VERIFIERS,
            layout_of(Verifier),
            ID_BYTES + INDEX_BYTES,
            undo,
            group_bytes=ID_BYTES,
            with_suffixes=True,
        )
        self.validators: RecordTable[RegisteredValidator] = RecordTable(
            TableNumber.VALIDATORS, layout_of(RegisteredValidator), INDEX_BYTES, undo
        )
        self.parameters: RecordTable[Parameters] = RecordTable(
            TableNumber.PARAMETERS, layout_of(Parameters), 0, undo
        )
        self.supply: RecordTable[Supply] = RecordTable(
            TableNumber.SUPPLY, layout_of(Supply), 0, undo
        )
        self.included: RecordTable[IncludedIds] = RecordTable(
            TableNumber.INCLUDED, layout_of(IncludedIds), 8, undo
        )
        self.fingerprints: RecordTable[Fingerprint] = RecordTable(
            TableNumber.FINGERPRINTS,
            layout_of(Fingerprint),
            ID_BYTES + INDEX_BYTES,
            undo,
            group_bytes=ID_BYTES,
        )
        self.sessions: RecordTable[Session] = RecordTable(
            TableNumber.SESSIONS,
            layout_of(Session),
            ACCOUNT_BYTES + ACCOUNT_BYTES,
            undo,
            group_bytes=ACCOUNT_BYTES,
        )
        self.session_jobs: RecordTable[SessionJob] = RecordTable(
            TableNumber.SESSION_JOBS, layout_of(SessionJob), ID_BYTES, undo
        )
        self.convictions: RecordTable[Conviction] = RecordTable(
            TableNumber.CONVICTIONS, layout_of(Conviction), INDEX_BYTES, undo
        )
        self.traps: RecordTable[Trap] = RecordTable(
            TableNumber.TRAPS,
            layout_of(Trap),
            ACCOUNT_BYTES + ID_BYTES,
            undo,
            group_bytes=ACCOUNT_BYTES,
        )
        self.suspicions: RecordTable[Suspicion] = RecordTable(
            TableNumber.SUSPICIONS, layout_of(Suspicion), ID_BYTES + ACCOUNT_BYTES, undo
        )
        self.ejections: RecordTable[Ejection] = RecordTable(
            TableNumber.EJECTIONS, layout_of(Ejection), ID_BYTES + ACCOUNT_BYTES, undo
        )
        self.appeals: RecordTable[Appeal] = RecordTable(
            TableNumber.APPEALS, layout_of(Appeal), ID_BYTES, undo
        )
        self.validator_keys: RecordTable[KeyOwner] = RecordTable(
            TableNumber.VALIDATOR_KEYS, layout_of(KeyOwner), ID_BYTES, undo
        )
        self.elected_sets: RecordTable[ElectedSet] = RecordTable(
            TableNumber.ELECTED_SETS, layout_of(ElectedSet), EPOCH_BYTES, undo
        )
        self.proposed_blocks: RecordTable[ProposedBlocks] = RecordTable(
            TableNumber.PROPOSED_BLOCKS, layout_of(ProposedBlocks), INDEX_BYTES, undo
        )
        self._tables: tuple[RecordTable[Any], ...] = (
            self.models,
            self.offers,
            self.jobs,
            self.verifiers,
            self.validators,
            self.parameters,
            self.supply,
            self.included,
            self.fingerprints,
            self.sessions,
            self.session_jobs,
            self.convictions,
            self.traps,
            self.suspicions,
            self.ejections,
            self.appeals,
            self.validator_keys,
            self.elected_sets,
            self.proposed_blocks,
        )

    put = staticmethod(tables.put)
    """Set a record of a table, or delete it with None, so that it can be undone."""

    def sizes(self) -> tuple[int, ...]:
        """Rows of each table, uncommitted ones included, in order of number."""
        return len(self.accounts), *map(len, self._tables)

    def savepoint(self) -> Savepoint:
        """A point to roll back to, good until the next commit."""
        return len(self._undo), self.accounts.savepoint()

    def rollback(self, savepoint: Savepoint) -> None:
        """Undo every change made since the savepoint, newest first."""
        records, accounts = savepoint
        self._undo.rollback(records)
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
        roots = {TableNumber(table.number): table.root for table in self._tables}
        roots[TableNumber.ACCOUNTS] = self.accounts.root
        return root_of_tables(roots)

    def rows(self) -> Iterator[Row]:
        """Every (table, key, stored value) but the accounts, sorted."""
        for table in self._tables:
            yield from table.rows()

    def records(self) -> Iterator[tuple[TableNumber, bytes, Any]]:
        """Every (table, key, record) but the accounts, sorted."""
        for table in self._tables:
            for key, record in table.scan():
                yield TableNumber(table.number), key, record

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
        by_number = {int(table.number): table for table in state._tables}
        values: dict[int, dict[bytes, bytes]] = {number: {} for number in by_number}
        for number, key, value in rows:
            if number not in by_number:
                raise StateError(
                    f"table {number} is unknown; was the store written by a newer version?"
                )
            if len(key) != by_number[number].key_bytes or key in values[number]:
                name = TableNumber(number).name
                raise StateError(f"table {name} holds a bad or repeated key {key.hex()}")
            values[number][key] = value
        for number, table in by_number.items():
            try:
                table.load(values[number])
            except ValueError as error:
                raise StateError(f"table {TableNumber(number).name}, {error}") from error
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
