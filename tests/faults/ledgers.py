"""What must hold of every node's ledger at the end, whatever befell it."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from chain.client import NodeClient
from chain.rejections import Rejection, RejectionReason
from tests.faults.load import Payment

CALLS_AT_ONCE = 32
T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Found:
    """Faults of the ledgers; all of them must be empty."""

    height: int
    """Compared up to here."""
    lost: tuple[str, ...]
    """Transactions that a client was told are final, and that a node does not have there."""
    conflicts: tuple[int, ...]
    """Heights at which two nodes hold different final blocks or results."""
    convicted: tuple[int, ...]
    """Validators that the chain punished: all of these are honest."""


async def compare(clients: Sequence[NodeClient], payments: Sequence[Payment]) -> Found:
    """Look at every block and every acknowledged payment on every node."""
    statuses = [await client.status() for client in clients]
    height = min(status.height for status in statuses)
    conflicts = await _all(range(1, height + 1), lambda at: _conflicting(clients, at))
    acknowledged = [payment for payment in payments if payment.acknowledged_s is not None]
    missing = await _all(acknowledged, lambda payment: _missing(clients, payment))
    views = await clients[0].validators()
    return Found(
        height=height,
        lost=tuple(text for text in missing if text),
        conflicts=tuple(at for at in conflicts if at),
        convicted=tuple(view.index for view in views if view.fault),
    )


async def _all(items: Iterable[T], check: Callable[[T], Awaitable[R]]) -> list[R]:
    room = asyncio.Semaphore(CALLS_AT_ONCE)

    async def checked(item: T) -> R:
        async with room:
            return await check(item)

    return await asyncio.gather(*(checked(item) for item in items))


async def _conflicting(clients: Sequence[NodeClient], height: int) -> int:
    blocks = [await client.block(height) for client in clients]
    same = len({(block.digest, block.execution_root) for block in blocks}) == 1
    return 0 if same else height


async def _missing(clients: Sequence[NodeClient], payment: Payment) -> str:
    for client in clients:
        try:
            status = await client.transaction(payment.identity)
        except Rejection as rejection:
            if rejection.reason is not RejectionReason.NOT_FOUND:
                raise
            return f"{payment.identity.hex()} is not on {client.address}"
        if status.height != payment.height or not (status.accepted or payment.refused):
            return f"{payment.identity.hex()} stands otherwise on {client.address}"
    return ""
