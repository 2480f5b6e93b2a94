"""What becomes of a question, as its asker hears it."""

from dataclasses import dataclass
from typing import TypeAlias

from assay.v1 import inference_pb2, node_pb2
from chain.receipts import Receipt, parse_request
from chain.records import JobStatus


@dataclass(frozen=True, slots=True)
class Accepted:
    """A node has the transaction."""

    node: str


@dataclass(frozen=True, slots=True)
class Progress:
    """The job as the ledger has it now."""

    view: node_pb2.JobView


@dataclass(frozen=True, slots=True)
class Tokens:
    """The next piece of the answer."""

    text: str
    """May be empty: a character can take several tokens."""
    token_ids: tuple[int, ...]
    logprobs: tuple[int, ...]
    """In 2^-20 nats, one a token."""


@dataclass(frozen=True, slots=True)
class Restarted:
    """Another answer took the place of the one told so far: it is told from its start."""


@dataclass(frozen=True, slots=True)
class Answered:
    """The result is on chain, and all of its tokens have been told."""

    result: inference_pb2.InferenceResult


@dataclass(frozen=True, slots=True)
class Settled:
    """The chain has ruled. The last event."""

    receipt: Receipt
    result: inference_pb2.InferenceResult | None
    checked: bool
    """Whether the receipt was checked against a genesis."""

    @property
    def status(self) -> JobStatus:
        """VERIFIED, REJECTED or REFUNDED."""
        return self.receipt.job_receipt.status

    @property
    def paid(self) -> int:
        """Grain it took from the requester's escrow, what is burnt included; fees are not."""
        ruled = self.receipt.job_receipt
        back = sum(item.amount for item in ruled.payments if item.account == ruled.requester)
        return max(0, parse_request(self.receipt.request).max_price - back)


Event: TypeAlias = Accepted | Progress | Tokens | Restarted | Answered | Settled
