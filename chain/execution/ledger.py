"""The ledger: state, and the one function that moves it from block to block."""

from bisect import insort
from collections.abc import Iterable, Iterator, Mapping, Sequence

from chain.execution.block import apply_operations, charge, check_envelope, run_block
from chain.execution.lifecycle import wants_block
from chain.execution.outcome import BlockContext, BlockOutcome, LaneBatch, LedgerMeta
from chain.execution.ruling import round_positions
from chain.execution.scope import NO_ACCOUNT, Scope
from chain.parameters import Parameters
from chain.records import (
    Account,
    ExecutionLink,
    IncludedIds,
    Job,
    JobStatus,
    Model,
    Offer,
    Supply,
    Verifier,
)
from chain.state import (
    ACCOUNT_BYTES,
    ID_BYTES,
    SINGLE_KEY,
    Change,
    Row,
    State,
    StateError,
    TableNumber,
)
from chain.transactions import WINDOW_BLOCKS, Transaction
from consensus.values import ZERO_HASH, ValidatorSet
from ext import merkle

SUPPLY_MAX = 1 << 63
"""All money of a chain; half of U64, so that no sum of amounts can overflow a record."""
HEIGHT_BYTES = 8
FINAL = (JobStatus.VERIFIED, JobStatus.REJECTED, JobStatus.REFUNDED)


class Ledger:
    """State after `height`. Not thread-safe: `admit` tries a transaction on it and rolls back.

    Indices beside the state (open jobs, unbonding accounts, ids of the window) follow from its
    tables, so a ledger rebuilt from stored rows goes on exactly as the one that wrote them.
    """

    def __init__(self, chain_id: str, state: State, meta: LedgerMeta) -> None:
        """Use `from_genesis` or `from_records`."""
        parameters = state.parameters.get(SINGLE_KEY)
        supply = state.supply.get(SINGLE_KEY)
        if parameters is None or supply is None:
            raise StateError(
                "the tables hold no parameters or no supply: the store is not complete"
            )
        members = tuple(validator for _, validator in state.validators.scan())
        self.chain_id = chain_id
        self.parameters: Parameters = parameters
        self.validators = ValidatorSet(epoch=0, members=members)
        self.treasury: bytes = supply.treasury
        self.height = meta.height
        self.timestamp_ms = meta.timestamp_ms
        self.execution_root = meta.execution_root
        self._state = state
        self._open: list[tuple[int, bytes]] = sorted(
            (job.requested_height, key) for key, job in state.jobs.scan() if job.status not in FINAL
        )
        self._unbonding = {key for key, account in state.accounts.scan() if account.unbonding}
        self._seen: set[bytes] = set()
        for _, record in state.included.scan():
            self._seen.update(_ids(record))

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
        """The ledger at height 0. Raises ValueError for keys or amounts that cannot be."""
        for key, balance in accounts.items():
            if len(key) != ACCOUNT_BYTES or balance < 0:
                raise ValueError(f"account {key.hex()} with {balance} grain is not possible")
        if len(treasury) != ACCOUNT_BYTES:
            raise ValueError(f"the treasury has {len(treasury)} bytes, needs {ACCOUNT_BYTES}")
        issued = sum(accounts.values())
        if issued >= SUPPLY_MAX:
            raise ValueError(f"{issued} grain are issued, a chain has less than {SUPPLY_MAX}")
        state = State()
        for key in sorted(accounts):
            if accounts[key]:
                state.put(state.accounts, key, Account(accounts[key], 0, 0, 0))
        for member in validators.members:
            state.put(state.validators, member.index.to_bytes(2, "big"), member)
        state.put(state.parameters, SINGLE_KEY, parameters)
        state.put(state.supply, SINGLE_KEY, Supply(issued, 0, treasury))
        state.commit()
        root = genesis_link(state.root()).extend(ZERO_HASH)
        return cls(chain_id, state, LedgerMeta(0, timestamp_ms, root))

    @classmethod
    def from_records(cls, chain_id: str, meta: LedgerMeta, rows: Iterable[Row]) -> "Ledger":
        """Rebuild after a restart: every (table, key, value), in any order. Raises StateError."""
        return cls(chain_id, State.from_rows(rows), meta)

    def to_records(self) -> Iterator[Row]:
        """Every row of every table, sorted."""
        return self._state.rows()

    @property
    def meta(self) -> LedgerMeta:
        """What `from_records` needs beside the rows."""
        return LedgerMeta(self.height, self.timestamp_ms, self.execution_root)

    def state_root(self) -> bytes:
        """Root over all tables after `height`."""
        return self._state.root()

    def genesis_link(self) -> ExecutionLink:
        """The execution link of height 0. Raises ValueError at any other height."""
        if self.height != 0:
            raise ValueError(f"the ledger is at height {self.height}, past genesis")
        return genesis_link(self.state_root())

    def account(self, key: bytes) -> Account:
        """A zero account if there is none."""
        return self._state.accounts.get(key) or NO_ACCOUNT

    def accounts(self) -> Iterator[tuple[bytes, Account]]:
        """(key, account) in order of key, as all iterators here but `open_jobs`."""
        return self._state.accounts.scan()

    def supply(self) -> Supply:
        """What was issued and burned."""
        record = self._state.supply.get(SINGLE_KEY)
        if record is None:
            raise StateError("the supply row is gone")
        return record

    def model(self, model: bytes) -> Model | None:
        """A registered model."""
        return self._state.models.get(model)

    def models(self) -> Iterator[tuple[bytes, Model]]:
        """(id, model)."""
        return self._state.models.scan()

    def offer(self, model: bytes, provider: bytes) -> Offer | None:
        """A provider's offer, withdrawn (capacity 0) or not."""
        return self._state.offers.get(model + provider)

    def offers(self, model: bytes | None = None) -> Iterator[tuple[bytes, bytes, Offer]]:
        """(model, provider, offer) of one model, or of all."""
        for key, offer in self._state.offers.scan(model or b""):
            yield key[:ID_BYTES], key[ID_BYTES:], offer

    def job(self, job: bytes) -> Job | None:
        """A job, open or final."""
        return self._state.jobs.get(job)

    def jobs(self) -> Iterator[tuple[bytes, Job]]:
        """(id, job), open and final."""
        return self._state.jobs.scan()

    def open_jobs(self) -> Iterator[tuple[bytes, Job]]:
        """(id, job) of those that are not final, oldest first."""
        for _, key in self._open:
            job = self._state.jobs.get(key)
            if job is None:
                raise StateError(f"open job {key.hex()} is gone")
            yield key, job

    def wants_blocks(self) -> bool:
        """Whether some job's next step needs nothing but another block."""
        scope = self._scope(self.height, self.timestamp_ms)
        return any(wants_block(scope, job) for _, job in self.open_jobs())

    def next_deadline_ms(self) -> int | None:
        """The earliest deadline of an open job; a block later than this moves it on."""
        return min((job.deadline_ms for _, job in self.open_jobs()), default=None)

    def verifiers(self, model: bytes) -> dict[int, Verifier]:
        """The validators that say they serve the model, by index, rising."""
        return {
            int.from_bytes(key[ID_BYTES:], "big"): verifier
            for key, verifier in self._state.verifiers.scan(model)
        }

    def fingerprint_positions(self, job: bytes) -> tuple[int, ...]:
        """Output positions that the committee of the job's current round fingerprints.

        Raises Rejection for an unknown job, ValueError if no committee was drawn yet.
        """
        return round_positions(
            self._scope(self.height, self.timestamp_ms).job(job), self.validators
        )

    def admit(self, transaction: Transaction) -> None:
        """Raise Rejection if the transaction would fail in the next block.

        Runs the very rules of execution on the current state, and undoes them.
        """
        scope = self._scope(self.height + 1, self.timestamp_ms)
        savepoint = scope.savepoint()
        try:
            fee = check_envelope(scope, transaction, self._seen)
            charge(scope, transaction.sender, fee, self.treasury)
            apply_operations(scope, transaction)
        finally:
            scope.rollback(savepoint)

    def execute(self, block: BlockContext, lanes: Sequence[LaneBatch]) -> BlockOutcome:
        """Apply the final block `height + 1`; lanes in order of (lane, sequence).

        Raises ValueError, before anything changes, for a block that does not follow.
        """
        self._check_follows(block, lanes)
        scope = self._scope(block.height, block.timestamp_ms, block.beacon)
        due = [
            key
            for key in sorted(self._unbonding)
            if self.account(key).unbonding_until_ms <= block.timestamp_ms
        ]
        open_jobs = [key for _, key in self._open]
        included = run_block(scope, lanes, due, open_jobs, self._seen)
        self._turn_window(included, block.height)
        journal = self._state.commit()
        changed_jobs = self._follow(journal)
        link = ExecutionLink(
            height=block.height,
            state_root=self._state.root(),
            receipts_root=tree_root(scope.receipt_leaves),
            events_root=tree_root([event.leaf() for event in scope.events]),
        )
        self.height, self.timestamp_ms = block.height, block.timestamp_ms
        self.execution_root = link.extend(self.execution_root)
        return BlockOutcome(
            link=link,
            execution_root=self.execution_root,
            meta=self.meta,
            receipt_leaves=tuple(scope.receipt_leaves),
            transaction_receipts=tuple(scope.transaction_receipts),
            job_receipts=tuple(scope.job_receipts),
            events=tuple(scope.events),
            journal=journal,
            changed_jobs=changed_jobs,
            payloads=tuple(scope.payloads),
            refused_attestations=tuple(scope.refused_attestations),
            wants_blocks=self.wants_blocks(),
            next_deadline_ms=self.next_deadline_ms(),
        )

    def _scope(self, height: int, timestamp_ms: int, beacon: bytes = ZERO_HASH) -> Scope:
        return Scope(
            state=self._state,
            parameters=self.parameters,
            validators=self.validators,
            treasury=self.treasury,
            height=height,
            timestamp_ms=timestamp_ms,
            beacon=beacon,
        )

    def _check_follows(self, block: BlockContext, lanes: Sequence[LaneBatch]) -> None:
        if block.height != self.height + 1:
            raise ValueError(f"block {block.height} does not follow height {self.height}")
        if block.timestamp_ms < self.timestamp_ms:
            raise ValueError(f"time {block.timestamp_ms} lies before {self.timestamp_ms}")
        order = [batch.lane for batch in lanes]
        if order != sorted(order):
            raise ValueError("batches are not in order of lane")
        if order and not 0 <= order[0] <= order[-1] < len(self.validators.members):
            raise ValueError(f"lane {order[-1]} belongs to no validator")

    def _turn_window(self, included: bytes, height: int) -> None:
        """Remember this block's ids, and forget those that can no longer be valid."""
        state = self._state
        if included:
            state.put(state.included, _height_key(height), IncludedIds(included))
        for key, record in list(state.included.scan()):
            if int.from_bytes(key, "big") + WINDOW_BLOCKS > height:
                break
            self._seen.difference_update(_ids(record))
            state.put(state.included, key, None)

    def _follow(self, journal: Sequence[Change]) -> tuple[tuple[bytes, Job], ...]:
        """Bring the indices up to date; the jobs that changed, in order of id."""
        changed: list[tuple[bytes, Job]] = []
        open_before = set(self._open)
        for table, key, _ in journal:
            if table == TableNumber.ACCOUNTS:
                if self.account(key).unbonding:
                    self._unbonding.add(key)
                else:
                    self._unbonding.discard(key)
            elif table == TableNumber.JOBS:
                job = self._state.jobs.get(key)
                if job is None:
                    raise StateError(f"job {key.hex()} was deleted, jobs never are")
                changed.append((key, job))
                place = (job.requested_height, key)
                if job.status in FINAL:
                    if place in open_before:
                        self._open.remove(place)
                elif place not in open_before:
                    insort(self._open, place)
        return tuple(changed)


def genesis_link(state_root: bytes) -> ExecutionLink:
    """The execution link of height 0, which extends 32 zero bytes."""
    empty = tree_root([])
    return ExecutionLink(height=0, state_root=state_root, receipts_root=empty, events_root=empty)


def tree_root(leaves: Sequence[bytes]) -> bytes:
    """RFC 6962 root over leaf data in order: of receipts, or of events."""
    return merkle.root([merkle.leaf_hash(leaf) for leaf in leaves])


def _height_key(height: int) -> bytes:
    return height.to_bytes(HEIGHT_BYTES, "big")


def _ids(record: IncludedIds) -> list[bytes]:
    return [record.ids[start : start + ID_BYTES] for start in range(0, len(record.ids), ID_BYTES)]
