"""A ledger as JSON lines: for audits, for counting, for whoever wants it in another database.

The first line is the head (chain, height, roots); every further one is a row of a table. What is
written has been checked: the tables hash to the state root of the newest block.
"""

import errno
import json
import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Final

from chain.addresses import encode_address
from chain.execution import Ledger
from chain.execution.ledger import HEIGHT_BYTES
from chain.genesis import Genesis
from chain.node.worker import open_ledger
from chain.readable import render
from chain.state import ACCOUNT_BYTES, EPOCH_BYTES, ID_BYTES, INDEX_BYTES, TableNumber
from chain.store import Store, StoreError

PART_SUFFIX: Final = ".part"


def export_state(store: Store, genesis: Genesis, output: Path) -> tuple[int, dict[str, Any]]:
    """Write the state into a new file; how many rows, and the head.

    What is there under this name is whole: it is written beside it first. Raises StoreError if
    the store is empty, or its tables are not what its roots say, and OSError.
    """
    if store.height is None:
        raise StoreError("the store has no state yet; start the node once")
    ledger = open_ledger(genesis, store)
    head = {
        "chain_id": genesis.chain_id,
        "height": store.height,
        "execution_root": (store.execution_root or b"").hex(),
        "state_root": ledger.state_root().hex(),
    }
    if output.exists():
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(output))
    part = output.with_name(output.name + PART_SUFFIX)
    try:
        count = _write(part, head, ledger)
        part.replace(output)
    finally:
        part.unlink(missing_ok=True)
    return count, head


def _write(part: Path, head: dict[str, Any], ledger: Ledger) -> int:
    """How many rows. Raises OSError that names the file, as a full disk's does not by itself."""
    count = 0
    try:
        with part.open("w", encoding="utf-8") as file:
            file.write(json.dumps({"table": "head", **head}) + "\n")
            for row in _rows(ledger):
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
                count += 1
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(part)) from error
    return count


def _rows(ledger: Ledger) -> Iterator[dict[str, Any]]:
    """Every row of every table: what its key names, then the record's fields."""
    for key, account in ledger.accounts():
        yield {"table": "accounts", "account": encode_address(key), **_fields(account)}
    for number, key, record in ledger.records():
        yield {"table": number.name.lower(), **_named(number, key), **_fields(record)}


Part = tuple[str, int, Callable[[bytes], Any]]
"""A part of a key: its name, its bytes, and how it is shown."""
_NUMBER: Final = partial(int.from_bytes, byteorder="big")
_ACCOUNT: Final[Part] = ("account", ACCOUNT_BYTES, encode_address)
_MODEL: Final[Part] = ("model", ID_BYTES, bytes.hex)
_PROVIDER: Final[Part] = ("provider", ACCOUNT_BYTES, encode_address)
_JOB: Final[Part] = ("job", ID_BYTES, bytes.hex)
_VALIDATOR: Final[Part] = ("validator", INDEX_BYTES, _NUMBER)
KEYS: Final[dict[TableNumber, tuple[Part, ...]]] = {
    TableNumber.MODELS: (_MODEL,),
    TableNumber.OFFERS: (_MODEL, _PROVIDER),
    TableNumber.JOBS: (_JOB,),
    TableNumber.VERIFIERS: (_MODEL, _VALIDATOR),
    TableNumber.VALIDATORS: (_VALIDATOR,),
    TableNumber.PARAMETERS: (),
    TableNumber.SUPPLY: (),
    TableNumber.INCLUDED: (("height", HEIGHT_BYTES, _NUMBER),),
    TableNumber.FINGERPRINTS: (_JOB, _VALIDATOR),
    TableNumber.SESSIONS: (_ACCOUNT, ("session_key", ACCOUNT_BYTES, bytes.hex)),
    TableNumber.SESSION_JOBS: (_JOB,),
    TableNumber.CONVICTIONS: (_VALIDATOR,),
    TableNumber.TRAPS: (_PROVIDER, ("commitment", ID_BYTES, bytes.hex)),
    TableNumber.SUSPICIONS: (_MODEL, _PROVIDER),
    TableNumber.EJECTIONS: (_MODEL, _PROVIDER),
    TableNumber.APPEALS: (("appealed_job", ID_BYTES, bytes.hex),),  # a field is named `job`
    TableNumber.VALIDATOR_KEYS: (("key", ACCOUNT_BYTES, bytes.hex),),
    TableNumber.ELECTED_SETS: (("epoch", EPOCH_BYTES, _NUMBER),),
    TableNumber.PROPOSED_BLOCKS: (_VALIDATOR,),
}
"""What the key of each table but the accounts is made of."""


def _named(number: TableNumber, key: bytes) -> dict[str, Any]:
    named, start = {}, 0
    for name, length, show in KEYS[number]:
        named[name] = show(key[start : start + length])
        start += length
    return named


def _fields(value: Any) -> dict[str, Any]:
    """A record's fields by name, whether it is a dataclass or a named tuple."""
    names = value._fields if hasattr(value, "_fields") else value.__dataclass_fields__
    return {name: _shown(getattr(value, name)) for name in names}


def _shown(value: Any) -> Any:
    if hasattr(value, "_fields"):
        return _fields(value)
    if isinstance(value, tuple):
        return [_shown(item) for item in value]
    return render(value)
