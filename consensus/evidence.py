"""Proof that a validator broke a rule: two of its own signatures that no honest validator makes.

Evidence is self-contained (it needs the validator set and the chain id, nothing else) and
canonical (the two halves are sorted by their encoding), so the same fault found twice is the same
evidence.

Faults: two notarize votes in a view for different blocks; two finalize votes in a view for
different blocks; nullify and finalize in one view; two proposals for a view; two batches at one
place of a lane.
"""

import enum
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

from consensus.values import BatchHeader
from consensus.wire import U16, Signature, Size, encode
from ext.hashing import tagged_hash

EVIDENCE_HALF_BYTES_MAX = 8_192

Verify = Callable[[bytes, bytes, bytes], bool]
"""(public key, message, signature) -> whether the signature is good."""


class Fault(enum.IntEnum):
    """Which rule was broken."""

    CONFLICTING_VOTES = 1
    CONFLICTING_PROPOSALS = 2
    CONFLICTING_BATCHES = 3


@dataclass(frozen=True, slots=True)
class SignedHeader:
    """A batch without its payload, as its owner signed it."""

    header: BatchHeader
    signature: Signature


@dataclass(frozen=True, slots=True)
class Evidence:
    """Two encoded values of the kind that `fault` names, both signed by `culprit`."""

    fault: Fault
    culprit: U16
    first: Annotated[bytes, Size(EVIDENCE_HALF_BYTES_MAX)]
    second: Annotated[bytes, Size(EVIDENCE_HALF_BYTES_MAX)]

    def digest(self) -> bytes:
        """What makes two reports the same: 32 bytes."""
        return tagged_hash(b"evidence", encode(self))
