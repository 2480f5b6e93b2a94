"""The bodies of a batch's transactions (TxBody), parsed where one look is all they need.

PLAIN is a body that is canonical (what a protobuf serialiser writes: known fields once, in order,
minimal numbers, no default written out), signed for this chain, and holds 1 to 256 operations, all
of them transfers to a receiver of 32 bytes. REQUEST and RESULT are as canonical and hold one
operation, a RequestInference or a SubmitResult that passes every rule that needs no state
(`read_request` and `read_result` of chain/execution/jobs.py). Anything else is OTHER, which is no
verdict: Python's decoder then accepts it or names the reason. Total on any bytes; runs without the
interpreter lock.
"""

from typing import Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from ext.transactions import ParsedBatch

Kind = TypeVar("Kind", bound=tuple[object, ...])

OTHER: Final = 0
PLAIN: Final = 1
REQUEST: Final = 2
RESULT: Final = 3
OPERATIONS_MAX: Final = 256

class JobLimits:
    """What the operations of a job are measured by, whatever the state; each is u32."""

    def __init__(
        self,
        *,
        temperature_milli_max: int,
        top_k_max: int,
        top_p_milli_max: int,
        logprob_ceiling_milli_max: int,
        stop_strings_max: int,
        stop_bytes_max: int,
        messages_max: int,
        text_bytes_max: int,
        tier_max: int,
        role_max: int,
        finish_reason_max: int,
    ) -> None:
        """Raises OverflowError."""

class Bodies:
    """n bodies of one batch with m transfers, as read-only arrays. Made by parse_bodies alone.

    A body that is OTHER has zeros everywhere but in `body_bytes`.
    """

    @property
    def batch(self) -> ParsedBatch: ...
    @property
    def classes(self) -> NDArray[np.uint8]:
        """(n,): OTHER, PLAIN, REQUEST or RESULT."""
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
        """(n,): index of a PLAIN body's first transfer in the arrays below."""
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
        """Index of the first body from `start` on that is not PLAIN, or n."""
    def sender(self, index: int) -> bytes:
        """The public key of a body's signer. This and what follows raises IndexError."""
    def transaction_id(self, index: int) -> bytes: ...
    def job_opened(self, index: int, kind: type[Kind]) -> Kind:
        """The job that a REQUEST opens, as a named tuple of such fields: its id, the transaction's,
        place of the operation. This and what follows raises ValueError for a body of another
        class."""
    def request(self, index: int, kind: type[Kind]) -> Kind:
        """A REQUEST as a named tuple of such fields: model, input ids, input bytes, most output
        tokens, max_price, tier, provider or None, answer_within_ms, seed or None, digest, message
        as signed."""
    def result(self, index: int, kind: type[Kind]) -> Kind:
        """A RESULT as one of these: job, input tokens, output tokens, engine profile, digest,
        message as signed."""

def parse_bodies(batch: ParsedBatch, chain_id: bytes, limits: JobLimits | None = None) -> Bodies:
    """Classify and parse every body of the batch. `chain_id` is UTF-8. Without limits, operations
    of jobs are OTHER."""
