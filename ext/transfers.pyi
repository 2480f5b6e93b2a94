"""Runs of plain transfers, executed without the interpreter lock, and other envelopes.

The rules are those of chain/execution/block.py and transfers.py, in their order: expired, too far
ahead, replayed (no receipt), fee too low, balance below the fee (a receipt without fee); then the
fee is taken, one part burned and the rest the lane owner's, and the operations are all done or all
undone, the latter too if they make an account beyond `accounts_max`. Receipts and events are the
bytes of TransactionReceipt.leaf() and Event.leaf().
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from ext.bodies import Bodies
from ext.ledger import AccountTable, IdWindow

ACCEPTED: Final = 0
EXPIRED: Final = 1
TOO_FAR_AHEAD: Final = 2
REPLAYED: Final = 3
FEE_TOO_LOW: Final = 4
INSUFFICIENT_BALANCE: Final = 5
AMOUNT_ZERO: Final = 6
STATE_FULL: Final = 7
"""What `check` says of a transaction."""

class TransferRules:
    """What a run needs to know of its block and of the chain's parameters."""

    def __init__(
        self,
        *,
        height: int,
        window_blocks: int,
        fee_per_transaction: int,
        fee_per_operation: int,
        fee_per_byte: int,
        fee_burn_bps: int,
        accounts_max: int,
    ) -> None:
        """Heights, fees and `accounts_max`, beyond which no operations may make an account, are
        u64, the window u32. Raises OverflowError, and ValueError for more
        than 10,000 basis points."""

class RunOutput:
    """What a block leaves behind, in order: leaves of receipts and of events, and what was burned.

    Runs append to it, and so does Python for what it executes in between. Included ids are in the
    IdWindow (`ids_at`). One thread at a time.
    """

    def __init__(self) -> None: ...
    @property
    def receipts(self) -> int:
        """Number of receipt leaves so far: the index of the next one."""
    @property
    def events(self) -> int:
        """Number of event leaves so far."""
    @property
    def burned(self) -> int:
        """Grain burned by runs; what Python burns is not in it."""
    def append_receipt(self, leaf: bytes) -> int:
        """Add leaf data made by Python; its index. Raises OverflowError above 4 GiB of leaves."""
    def append_event(self, leaf: bytes) -> int:
        """Add leaf data made by Python; its index. Raises OverflowError above 4 GiB of leaves."""
    def emit(self, kind: int, subject: bytes, other: bytes | None, amount: int, code: int) -> None:
        """Add the leaf of an event (chain.events.Event). Raises ValueError for a subject or another
        that is not 32 bytes, and OverflowError."""
    def truncate_events(self, count: int) -> None:
        """Forget all but the first `count` events. Raises ValueError for more than there are."""
    def receipt_leaves(self) -> tuple[bytes, bytes]:
        """(leaf data joined, end offset of each leaf as u32-LE)."""
    def event_leaves(self) -> tuple[bytes, bytes]:
        """(leaf data joined, end offset of each leaf as u32-LE)."""
    def receipts_root(self) -> bytes:
        """RFC 6962 root over the receipt leaves."""
    def events_root(self) -> bytes:
        """RFC 6962 root over the event leaves."""

def run(
    accounts: AccountTable,
    window: IdWindow,
    bodies: Bodies,
    start: int,
    stop: int,
    rules: TransferRules,
    lane_owner: bytes,
    output: RunOutput,
) -> int:
    """Execute bodies[start:stop] up to the first that is not PLAIN; the index of that one, or stop.

    Raises IndexError for a range outside the batch, ValueError for a lane owner that is not 32
    bytes or a window that cannot take this height, TableFullError, and OverflowError when a balance
    would exceed 64 bits, which a supply below 2^63 excludes: after the last two the transaction
    that met it has left nothing, those before it stand.
    """

class Envelopes:
    """The same rules round any parsed transaction of a batch, whose operations somebody else
    applies: `charge`, the operations, `conclude`. One thread at a time."""

    def __init__(
        self,
        accounts: AccountTable,
        window: IdWindow,
        bodies: Bodies,
        rules: TransferRules,
        lane_owner: bytes,
        output: RunOutput,
    ) -> None:
        """Raises ValueError for a lane owner that is not 32 bytes."""
    def charge(self, index: int) -> int | None:
        """The fee that was taken; None for a transaction that is refused without paying, which
        has its receipt then (none if it is replayed). Raises IndexError, ValueError for a body
        that is OTHER, and what `run` raises."""
    def conclude(self, index: int, fee: int, reason: str) -> None:
        """Add the receipt of a charged transaction, and its id to the window. `reason` is empty if
        it was accepted. Raises ValueError above 64 bytes of it, and as `charge`."""

def check(
    accounts: AccountTable,
    window: IdWindow,
    bodies: Bodies,
    rules: TransferRules,
    lane_owner: bytes,
) -> tuple[NDArray[np.uint8], NDArray[np.uint64], NDArray[np.uint64]]:
    """What `run` would say of each of n bodies if it were the first of its block.

    Three (n,) arrays: the code (a constant above); what was seen; and what would have been allowed.
    The numbers are heights for EXPIRED and TOO_FAR_AHEAD, fees for FEE_TOO_LOW, a balance and what
    it had to hold for INSUFFICIENT_BALANCE, rows for STATE_FULL, else 0; a bound above 64 bits is
    the largest. A body that is OTHER is not judged: ACCEPTED, 0, 0. Changes nothing. Raises
    ValueError for a lane owner that is not 32 bytes.
    """
