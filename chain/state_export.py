"""A ledger as JSON lines: for audits, for counting, for whoever wants it in another database.

The first line is the head (chain, height, roots); every further one is a row of a table. What is
written has been checked: the tables hash to the state root of the newest block.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from chain.addresses import encode_address
from chain.execution import Ledger
from chain.genesis import Genesis
from chain.node.worker import open_ledger
from chain.readable import render
from chain.store import Store, StoreError


def export_state(store: Store, genesis: Genesis, output: Path) -> tuple[int, dict[str, Any]]:
    """Write the state into a new file; how many rows, and the head.

    Raises StoreError if the store is empty, or its tables are not what its roots say.
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
    count = 0
    with output.open("x", encoding="utf-8") as file:
        file.write(json.dumps({"table": "head", **head}) + "\n")
        for row in _rows(ledger):
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
            count += 1
        file.flush()
        os.fsync(file.fileno())
    return count, head


def _rows(ledger: Ledger) -> Iterator[dict[str, Any]]:
    for key, account in ledger.accounts():
        yield {"table": "accounts", "account": encode_address(key), **_fields(account)}
    for identity, model in ledger.models():
        yield {"table": "models", "model": identity.hex(), **_fields(model)}
        for index, verifier in ledger.verifiers(identity).items():
            yield {
                "table": "verifiers",
                "model": identity.hex(),
                "validator": index,
                **_fields(verifier),
            }
    for identity, provider, offer in ledger.offers():
        yield {
            "table": "offers",
            "model": identity.hex(),
            "provider": encode_address(provider),
            **_fields(offer),
        }
    for identity, job in ledger.jobs():
        yield {"table": "jobs", "job": identity.hex(), **_fields(job)}
    yield {"table": "supply", **_fields(ledger.supply())}


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
