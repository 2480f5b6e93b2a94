"""The bodies of a batch's transactions (TxBody), parsed into arrays where that is all they need.

PLAIN is a body that is canonical (what a protobuf serialiser writes: known fields once, in order,
minimal numbers, no default written out), signed for this chain, and holds 1 to 256 operations, all
of them transfers to a receiver of 32 bytes. Anything else is OTHER, which is no verdict: Python's
decoder then accepts it or names the reason. Total on any bytes; runs without the interpreter lock.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from ext.transactions import ParsedBatch

OTHER: Final = 0
PLAIN: Final = 1
OPERATIONS_MAX: Final = 256

class Bodies:
    """n bodies of one batch with m operations, as read-only arrays. Made by parse_bodies alone.

    A body that is OTHER has zeros everywhere but in `body_bytes`.
    """

    @property
    def batch(self) -> ParsedBatch: ...
    @property
    def classes(self) -> NDArray[np.uint8]:
        """(n,): PLAIN or OTHER."""
    @property
    def valid_until_heights(self) -> NDArray[np.uint64]:
        """(n,)."""
    @property
    def max_fees(self) -> NDArray[np.uint64]:
        """(n,), grain."""
    @property
    def body_bytes(self) -> NDArray[np.uint32]:
        """(n,): length of each body, which the fee counts."""
    @property
    def first_operations(self) -> NDArray[np.uint32]:
        """(n,): index of each body's first operation in the arrays below."""
    @property
    def operation_counts(self) -> NDArray[np.uint32]:
        """(n,)."""
    @property
    def receivers(self) -> NDArray[np.uint32]:
        """(m,): offset of each operation's receiver (32 bytes) in the batch's payload."""
    @property
    def amounts(self) -> NDArray[np.uint64]:
        """(m,), grain; 0 is possible here and refused by execution."""
    def __len__(self) -> int:
        """Number of bodies."""
    def next_other(self, start: int) -> int:
        """Index of the first body from `start` on that is OTHER, or n."""

def parse_bodies(batch: ParsedBatch, chain_id: bytes) -> Bodies:
    """Classify and parse every body of the batch. `chain_id` is UTF-8."""
