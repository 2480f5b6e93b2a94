"""What was bought, for whom, and what it cost: written down before anything is sent.

A purchase is open with the most it may cost, until its cost is known. What an API key has spent is
what its settled purchases cost, and what its open ones may: so a cap holds through crashes. One
SQLite file, one transaction a change, on disk when the call returns.
"""

import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from chain.gateway.errors import GatewayReason, bad_request

KEPT_S: Final = 24 * 3600
"""How long a settled purchase is known by its Idempotency-Key."""
IN_MEMORY: Final = ":memory:"
VERSION: Final = 1
BUSY_S: Final = 5.0
"""How long to wait for a file that another process has."""
_SCHEMA: Final = """
CREATE TABLE purchase (
  job BLOB PRIMARY KEY,
  api_key TEXT NOT NULL,
  idempotency TEXT,
  question BLOB NOT NULL,
  chain_id TEXT NOT NULL,
  body BLOB NOT NULL,
  public_key BLOB NOT NULL,
  signature BLOB NOT NULL,
  valid_until INTEGER NOT NULL,
  created_s INTEGER NOT NULL,
  most INTEGER NOT NULL,
  cost INTEGER
) STRICT;
CREATE UNIQUE INDEX by_idempotency ON purchase (api_key, idempotency)
  WHERE idempotency IS NOT NULL;
CREATE INDEX open_purchase ON purchase (api_key, most) WHERE cost IS NULL;
CREATE INDEX by_age ON purchase (created_s) WHERE cost IS NOT NULL;
CREATE TABLE spent (api_key TEXT PRIMARY KEY, grain INTEGER NOT NULL) STRICT;
"""
_COLUMNS: Final = (
    "job, api_key, idempotency, question, chain_id, body, public_key, signature, valid_until, "
    "created_s, most, cost"
)


class BookError(Exception):
    """The file can't be used. The message says which and what to do."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One purchase."""

    job: bytes
    api_key: str
    """Its name."""
    idempotency: str | None
    question: bytes
    """Digest of the HTTP request, to tell a retry from another question."""
    chain_id: str
    body: bytes
    public_key: bytes
    signature: bytes
    """The signed transaction."""
    valid_until: int
    created_s: int
    most: int
    """Grain it may cost at most, fee included."""
    cost: int | None = None
    """Grain it did cost; None while that is open."""


class Book:
    """The file, or a book in memory. Calls block: use a thread. Use `with`."""

    def __init__(self, path: Path | None = None, busy_s: float = BUSY_S) -> None:
        self._lock = threading.Lock()
        try:
            self._database = sqlite3.connect(
                IN_MEMORY if path is None else path,
                timeout=busy_s,
                isolation_level=None,
                check_same_thread=False,
            )
            # One process has the file, for as long as it runs: caps are added up here.
            self._database.execute("PRAGMA locking_mode = EXCLUSIVE")
            self._database.execute("PRAGMA synchronous = FULL")
            self._open(path)
        except sqlite3.Error as error:
            raise BookError(f"{path}: {error}; is another gateway using it?") from error

    def _open(self, path: Path | None) -> None:
        with self._transaction():
            (version,) = self._database.execute("PRAGMA user_version").fetchone()
            if version == 0:
                for statement in _SCHEMA.split(";"):
                    self._database.execute(statement)
                self._database.execute(f"PRAGMA user_version = {VERSION}")
            elif version != VERSION:
                raise BookError(f"{path} is of version {version}, this gateway reads {VERSION}")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._database.close()

    def reserve(self, entry: Entry, spend_cap: int | None) -> Entry:
        """Write a purchase down; the one that stands there already, if its Idempotency-Key is
        known. Raises GatewayError (402) if the cap would not cover it."""
        with self._transaction():
            known = self._find(entry.api_key, entry.idempotency)
            if known is not None:
                return known
            committed = self._committed(entry.api_key)
            if spend_cap is not None and committed + entry.most > spend_cap:
                raise bad_request(
                    GatewayReason.SPEND_CAP_REACHED,
                    f"this may cost {entry.most} grain; of API key {entry.api_key!r}'s cap of "
                    f"{spend_cap} grain {committed} are spent or reserved: ask for fewer tokens, "
                    "or ask the gateway's operator for a higher cap",
                    status=402,
                )
            self._forget_before(entry.created_s - KEPT_S)
            self._database.execute(
                f"INSERT INTO purchase ({_COLUMNS}) VALUES (?,?,?,?,?,?,?,?,?,?,?,?)",
                (
                    *(entry.job, entry.api_key, entry.idempotency, entry.question),
                    *(entry.chain_id, entry.body, entry.public_key, entry.signature),
                    *(entry.valid_until, entry.created_s, entry.most, None),
                ),
            )
        return entry

    def settle(self, job: bytes, cost: int) -> None:
        """What a purchase cost, once. Later words about it change nothing.

        One that cost nothing never was: it is forgotten at once, so that who asks again with its
        Idempotency-Key reserves anew, against the cap.
        """
        with self._transaction():
            if cost == 0:
                self._database.execute(
                    "DELETE FROM purchase WHERE job = ? AND cost IS NULL", (job,)
                )
                return
            row = self._database.execute(
                "UPDATE purchase SET cost = ? WHERE job = ? AND cost IS NULL RETURNING api_key",
                (cost, job),
            ).fetchone()
            if row is not None:
                self._database.execute(
                    "INSERT INTO spent VALUES (?1, ?2) "
                    "ON CONFLICT DO UPDATE SET grain = grain + ?2",
                    (row[0], cost),
                )

    def find(self, api_key: str, idempotency: str) -> Entry | None:
        """The purchase made with this Idempotency-Key, while it is kept."""
        with self._lock:
            return self._find(api_key, idempotency)

    def open_entries(self, limit: int) -> Sequence[Entry]:
        """Purchases whose cost is not known, oldest first."""
        with self._lock:
            rows = self._database.execute(
                f"SELECT {_COLUMNS} FROM purchase WHERE cost IS NULL ORDER BY created_s LIMIT ?",
                (limit,),
            )
            return [Entry(*row) for row in rows]

    def committed(self, api_key: str) -> int:
        """Grain an API key has spent, and may yet have to pay for what is open."""
        with self._lock:
            return self._committed(api_key)

    def _committed(self, api_key: str) -> int:
        spent = self._database.execute("SELECT grain FROM spent WHERE api_key = ?", (api_key,))
        open_ones = self._database.execute(
            "SELECT most FROM purchase WHERE api_key = ? AND cost IS NULL", (api_key,)
        )
        # Added up here: SQLite's sum fails beyond 63 bits.
        return sum(grain for (grain,) in (*spent, *open_ones))

    def _find(self, api_key: str, idempotency: str | None) -> Entry | None:
        if idempotency is None:
            return None
        row: tuple[Any, ...] | None = self._database.execute(
            f"SELECT {_COLUMNS} FROM purchase WHERE api_key = ? AND idempotency = ?",
            (api_key, idempotency),
        ).fetchone()
        return None if row is None else Entry(*row)

    def _forget_before(self, created_s: int) -> None:
        self._database.execute(
            "DELETE FROM purchase WHERE cost IS NOT NULL AND created_s < ?", (created_s,)
        )

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._lock:
            self._database.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._database.execute("COMMIT")
            except BaseException:
                if self._database.in_transaction:  # some failures have rolled it back already
                    self._database.execute("ROLLBACK")
                raise
