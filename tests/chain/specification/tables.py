"""The state in plain Python: dicts of records, and roots computed from all rows each time.

What `chain.state` and `ext.ledger` do faster is said here once more as simply as can be, so that
the two can be compared. Leaf data of a row: table number, key, encoded record. Rows are numbered:
an account's row stays for ever; the other tables give a new row the lowest free number, in order of
key, after what the block deleted, and end with their last row in use.
"""

from collections.abc import Iterator
from typing import Any

from chain.records import Account
from chain.state import TableNumber
from consensus.wire import encode
from ext import merkle
from ext.hashing import tagged_hash

Amounts = tuple[int, int, int, int]


class PlainAccounts:
    """Accounts by key; `order` is that of first appearance, which numbers the rows."""

    def __init__(self) -> None:
        self.amounts: dict[bytes, Amounts] = {}
        self.order: list[bytes] = []

    def get(self, key: bytes) -> Amounts | None:
        return self.amounts.get(key)

    def put(self, key: bytes, *amounts: int) -> None:
        balance, stake, unbonding, until_ms = amounts
        empty = balance == stake == unbonding == 0
        if key not in self.amounts:
            if empty:
                return
            self.order.append(key)
        self.amounts[key] = (0, 0, 0, 0) if empty else (balance, stake, unbonding, until_ms)

    def copy(self) -> "PlainAccounts":
        twin = PlainAccounts()
        twin.amounts, twin.order = dict(self.amounts), list(self.order)
        return twin

    def root(self) -> bytes:
        return merkle.root(
            [row_leaf(TableNumber.ACCOUNTS, key, Account(*self.amounts[key])) for key in self.order]
        )


class PlainTable:
    """Records by key, and the row numbers of those that a block has ended with."""

    def __init__(self, number: TableNumber) -> None:
        self.number = number
        self.records: dict[bytes, Any] = {}
        self.rows: dict[bytes, int] = {}

    def get(self, key: bytes) -> Any:
        return self.records.get(key)

    def scan(self, prefix: bytes = b"") -> Iterator[tuple[bytes, Any]]:
        for key in sorted(self.records):
            if key.startswith(prefix):
                yield key, self.records[key]

    def ending(self, suffix: bytes) -> Iterator[tuple[bytes, Any]]:
        for key in sorted(self.records):
            if key.endswith(suffix):
                yield key, self.records[key]

    def __len__(self) -> int:
        return len(self.records)

    def number_rows(self) -> None:
        self.rows = {key: row for key, row in self.rows.items() if key in self.records}
        for key in sorted(self.records):
            if key not in self.rows:
                taken = set(self.rows.values())
                self.rows[key] = min(set(range(len(taken) + 1)) - taken)

    def root(self) -> bytes:
        leaves = [merkle.leaf_hash(b"")] * (max(self.rows.values(), default=-1) + 1)
        for key, row in self.rows.items():
            leaves[row] = row_leaf(self.number, key, self.records[key])
        return merkle.root(leaves)


class PlainState:
    """All tables; a savepoint is a copy of everything."""

    def __init__(self) -> None:
        self.accounts = PlainAccounts()
        self.models = PlainTable(TableNumber.MODELS)
        self.offers = PlainTable(TableNumber.OFFERS)
        self.jobs = PlainTable(TableNumber.JOBS)
        self.verifiers = PlainTable(TableNumber.VERIFIERS)
        self.validators = PlainTable(TableNumber.VALIDATORS)
        self.parameters = PlainTable(TableNumber.PARAMETERS)
        self.supply = PlainTable(TableNumber.SUPPLY)
        self.included = PlainTable(TableNumber.INCLUDED)
        self.fingerprints = PlainTable(TableNumber.FINGERPRINTS)
        self.sessions = PlainTable(TableNumber.SESSIONS)
        self.session_jobs = PlainTable(TableNumber.SESSION_JOBS)
        self.convictions = PlainTable(TableNumber.CONVICTIONS)
        self.traps = PlainTable(TableNumber.TRAPS)
        self.suspicions = PlainTable(TableNumber.SUSPICIONS)
        self.ejections = PlainTable(TableNumber.EJECTIONS)
        self.validator_keys = PlainTable(TableNumber.VALIDATOR_KEYS)
        self.elected_sets = PlainTable(TableNumber.ELECTED_SETS)
        self.proposed_blocks = PlainTable(TableNumber.PROPOSED_BLOCKS)
        self.appeals = PlainTable(TableNumber.APPEALS)

    def tables(self) -> list[PlainTable]:
        return [item for item in vars(self).values() if isinstance(item, PlainTable)]

    def put(self, table: PlainTable, key: bytes, record: Any) -> None:
        if record is None:
            table.records.pop(key, None)
        else:
            table.records[key] = record

    def savepoint(self) -> Any:
        records = {table.number: dict(table.records) for table in self.tables()}
        return records, self.accounts.copy()

    def rollback(self, savepoint: Any) -> None:
        records, self.accounts = savepoint
        for table in self.tables():
            table.records = records[table.number]

    def end_block(self) -> None:
        for table in self.tables():
            table.number_rows()

    def root(self) -> bytes:
        roots = {table.number: table.root() for table in self.tables()}
        roots[TableNumber.ACCOUNTS] = self.accounts.root()
        return merkle.root(
            [
                merkle.leaf_hash(tagged_hash(b"table", bytes([number]), roots[number]))
                for number in sorted(roots)
            ]
        )


def row_leaf(number: int, key: bytes, record: Any) -> bytes:
    return merkle.leaf_hash(bytes([number]) + key + encode(record))
