"""The ledger: state, and the one function that moves it from block to block."""

from collections.abc import Iterable, Iterator, Mapping, Sequence

from chain.execution.outcome import BlockContext, BlockOutcome, LaneBatch, LedgerMeta
from chain.parameters import Parameters
from chain.records import Account, Job, Model, Offer
from chain.transactions import Transaction
from consensus.values import ValidatorSet


class Ledger:
    """State after `height`. Not thread-safe: `admit` tries a transaction on it and rolls back."""

    chain_id: str
    parameters: Parameters
    validators: ValidatorSet
    treasury: bytes
    height: int
    timestamp_ms: int
    execution_root: bytes

    @classmethod
    def from_genesis(
        cls,
        chain_id: str,
        parameters: Parameters,
        validators: ValidatorSet,
        accounts: Mapping[bytes, int],
        treasury: bytes,
        timestamp_ms: int = 0,
    ) -> "Ledger":
        """The ledger at height 0."""
        raise NotImplementedError

    @classmethod
    def from_records(
        cls, chain_id: str, meta: LedgerMeta, rows: Iterable[tuple[int, bytes, bytes]]
    ) -> "Ledger":
        """Rebuild after a restart: every (table, key, value), in any order."""
        raise NotImplementedError

    def to_records(self) -> Iterator[tuple[int, bytes, bytes]]:
        """Every row of every table, sorted."""
        raise NotImplementedError

    @property
    def meta(self) -> LedgerMeta:
        raise NotImplementedError

    def state_root(self) -> bytes:
        raise NotImplementedError

    def account(self, key: bytes) -> Account:
        """A zero account if there is none."""
        raise NotImplementedError

    def model(self, model: bytes) -> Model | None:
        raise NotImplementedError

    def models(self) -> Iterator[tuple[bytes, Model]]:
        """(id, model), in order of id; the other iterators are in order of key, too."""
        raise NotImplementedError

    def offer(self, model: bytes, provider: bytes) -> Offer | None:
        raise NotImplementedError

    def offers(self, model: bytes | None = None) -> Iterator[tuple[bytes, bytes, Offer]]:
        """(model, provider, offer)."""
        raise NotImplementedError

    def job(self, job: bytes) -> Job | None:
        raise NotImplementedError

    def jobs(self) -> Iterator[tuple[bytes, Job]]:
        raise NotImplementedError

    def open_jobs(self) -> Iterator[tuple[bytes, Job]]:
        """Jobs that are not final, oldest first."""
        raise NotImplementedError

    def verifiers(self, model: bytes) -> tuple[int, ...]:
        """Indices of the validators that say they serve the model."""
        raise NotImplementedError

    def fingerprint_positions(self, job: bytes) -> tuple[int, ...]:
        """Output positions that the committee of the job's current round fingerprints."""
        raise NotImplementedError

    def admit(self, transaction: Transaction) -> None:
        """Raise Rejection if the transaction would fail in the next block."""
        raise NotImplementedError

    def execute(self, block: BlockContext, lanes: Sequence[LaneBatch]) -> BlockOutcome:
        """Apply the final block `height + 1`; lanes in order of (lane, sequence)."""
        raise NotImplementedError
