"""Execution: how a final block changes the ledger. Deterministic, integers only, no I/O, no clock.

Words: a *scope* is one block under way; a *lane batch* is what one validator put into the block;
a *round* is one committee's turn on a job; an *outcome* is everything a block changed, for the
store and the node.

Data goes one way: `Ledger.execute` -> `block` (order, fees, rollback) -> a run of plain transfers
(`ext.transfers`), an operation (`transfers`, `market`, `jobs`) or an attestation (`ruling`) ->
`settlement` -> records in `chain.state`. `lifecycle` is what time and beacons do to open jobs,
before a block's transactions. Batches come in as they stood on the wire, leaves and accounts go
out packed: only what is more than a plain transfer ever becomes a Python object.

Rules that must hold, each with a test:
- balances + stake + unbonding + escrow + burned is the issued supply after every block;
- a failed operation leaves nothing behind but its transaction's fee;
- every open job has a deadline that leads on, and a final job holds no escrow;
- a ledger rebuilt from its rows goes on to the same roots as the one that wrote them;
- however transactions are cut into batches, and whichever code hashes, the roots are those of
  tests/chain/specification.

Anything refused is a `Rejection`; a `RuntimeError` here is a bug of ours. Never imports the node,
the store, gRPC, or a runtime; randomness is the block's beacon, time the block's timestamp.
"""

from chain.execution.ledger import Ledger
from chain.execution.outcome import (
    BlockContext,
    BlockOutcome,
    LaneBatch,
    LedgerMeta,
    NewJob,
    RefusedAttestation,
)

__all__ = [
    "BlockContext",
    "BlockOutcome",
    "LaneBatch",
    "Ledger",
    "LedgerMeta",
    "NewJob",
    "RefusedAttestation",
]
