"""Those who wait for a transaction: a block is searched for them, and for nobody else.

Who wants to wait says so first and looks into the store then: whatever block the transaction comes
in, one of the two finds it.
"""

import asyncio
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeAlias

from chain.leaves import PackedLeaves
from chain.records import TRANSACTION_LEAF, TransactionReceipt
from chain.store_lookups import LookupKind, find, receipt_entries
from consensus.wire import decode

Outcome: TypeAlias = tuple[int, TransactionReceipt]
"""The height of an executed transaction, and its receipt."""


@dataclass(frozen=True, slots=True, eq=False)
class _Wait:
    last_height: int
    found: asyncio.Future[Outcome | None]


class TransactionWaits:
    """Waits by transaction id. Used from the event loop only."""

    def __init__(self) -> None:
        self._waits: dict[bytes, list[_Wait]] = {}

    @property
    def wanted(self) -> tuple[bytes, ...]:
        """The ids that somebody waits for."""
        return tuple(self._waits)

    @contextmanager
    def waiting(
        self, identity: bytes, last_height: int
    ) -> Iterator[asyncio.Future[Outcome | None]]:
        """A future of the transaction's outcome: None once a later block than `last_height` was
        executed without it."""
        wait = _Wait(last_height, asyncio.get_running_loop().create_future())
        self._waits.setdefault(identity, []).append(wait)
        try:
            yield wait.found
        finally:
            wait.found.cancel()
            left = [other for other in self._waits.pop(identity, ()) if other is not wait]
            if left:
                self._waits[identity] = left

    def settle(self, height: int, receipts: dict[bytes, TransactionReceipt]) -> None:
        """Tell what the block of this height holds, and who waited too long."""
        for identity, waits in self._waits.items():
            receipt = receipts.get(identity)
            for wait in waits:
                if wait.found.done():
                    continue
                if receipt is not None:
                    wait.found.set_result((height, receipt))
                elif height > wait.last_height:
                    wait.found.set_result(None)


def receipts_of(
    height: int, leaves: PackedLeaves, wanted: Iterable[bytes]
) -> dict[bytes, TransactionReceipt]:
    """The receipts of the wanted transactions that a block holds, by transaction; of several, as
    `StoreReads.transaction_location` has it, the one that says it was included, or the newest."""
    entries = receipt_entries(height, leaves)
    found: dict[bytes, TransactionReceipt] = {}
    for identity in wanted:
        for _, place in find(entries, identity, LookupKind.TRANSACTION):
            leaf = leaves[place]
            if not leaf.startswith(TRANSACTION_LEAF + identity):
                continue
            receipt = decode(TransactionReceipt, leaf[len(TRANSACTION_LEAF) :])
            if receipt.was_included or identity not in found:
                found[identity] = receipt
    return found
