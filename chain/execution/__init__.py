"""Execution: how a final block changes the ledger."""

from chain.execution.ledger import Ledger
from chain.execution.outcome import (
    BlockContext,
    BlockOutcome,
    LaneBatch,
    LedgerMeta,
    RefusedAttestation,
    Rejected,
)

__all__ = [
    "BlockContext",
    "BlockOutcome",
    "LaneBatch",
    "Ledger",
    "LedgerMeta",
    "RefusedAttestation",
    "Rejected",
]
