"""The ledger: state, and the one function that moves it from block to block."""

import heapq
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from chain.contacts import Contact
from chain.execution import refusals, sessions, validators
from chain.execution.block import (
    apply_operations,
    begin_block,
    run_lanes,
    take_fee,
    transfer_rules,
)
from chain.execution.choices import Choice, choice_of
from chain.execution.lifecycle import (
    MOVED_BY_BLOCKS,
    assignment_weights,
    available_offers,
    wants_block,
)
from chain.execution.outcome import BlockContext, BlockOutcome, LaneBatch, LedgerMeta
from chain.execution.ruling import round_positions
from chain.execution.scope import Scope
from chain.execution.suspicion import NO_SUSPICION
from chain.execution.transfers import stake_needed
from chain.leaves import PackedLeaves
from chain.parameters import SUPPLY_MAX, Parameters
from chain.records import (
    Account,
    Appeal,
    Conviction,
    Ejection,
    ExecutionLink,
    IncludedIds,
    Job,
    JobStatus,
    Model,
    Offer,
    RegisteredValidator,
    Session,
    Supply,
    Suspicion,
    Verifier,
)
from chain.rejections import Rejection
from chain.state import (
    ACCOUNT_BYTES,
    ID_BYTES,
    SINGLE_KEY,
    Row,
    State,
    StateError,
    TableNumber,
    account_of,
)
from chain.transactions import WINDOW_BLOCKS, Transaction
from consensus.values import ZERO_HASH, ValidatorSet
from ext.bodies import Bodies
from ext.ledger import IdWindow
from ext.transfers import RunOutput, check

HEIGHT_BYTES = 8
FINAL = (JobStatus.VERIFIED, JobStatus.REJECTED, JobStatus.REFUNDED)


class Ledger:
    """State after `height`. Not thread-safe: `admit` tries a transaction on it and rolls back.

    Indices beside the state (open jobs, final jobs, unbonding accounts, ids of the window) follow
    from its tables, so a ledger rebuilt from stored rows goes on exactly as the one that wrote
    them.
    """

    def __init__(self, chain_id: str, state: State, meta: LedgerMeta) -> None:
        """Use `from_genesis` or `from_records`."""
        parameters = state.parameters.get(SINGLE_KEY)
        supply = state.supply.get(SINGLE_KEY)
        if parameters is None or supply is None:
            raise StateError(
                "the tables hold no parameters or no supply: the store is not complete"
            )
        self.chain_id = chain_id
        self.parameters: Parameters = parameters
        self._sets = validators.stored_sets(state)
        self.treasury: bytes = supply.treasury
        self.height = meta.height
        if self.epoch not in self._sets:
            raise StateError(f"the tables hold no validator set of epoch {self.epoch}")
        self.timestamp_ms = meta.timestamp_ms
        self.execution_root = meta.execution_root
        self._state = state
        self._open: dict[bytes, Job] = {}
        """Oldest first: a job is opened by the block that is its `requested_height`."""
        self._final: dict[int, list[bytes]] = {}
        """By the height at which they became final, rising."""
        jobs = sorted(state.jobs.scan(), key=lambda item: (item[1].requested_height, item[0]))
        for key, job in jobs:
            self._place_job(key, job)
        self._final = dict(sorted(self._final.items()))
        self._unbonding = set(state.accounts.unbonding_keys())
        self._sessions: dict[int, set[bytes]] = {}
        """Places of sessions by the last height they act at."""
        for place, session in state.sessions.scan():
            self._sessions.setdefault(session.expires_at_height, set()).add(place)
        self._window = IdWindow(WINDOW_BLOCKS)
        for key, record in state.included.scan():
            try:
                self._window.load(int.from_bytes(key, "big"), record.ids, record.leaves)
            except ValueError as error:
                raise StateError(f"table INCLUDED, key {key.hex()}: {error}") from error

    @classmethod
    def from_genesis(
        cls,
        chain_id: str,
        parameters: Parameters,
        members: ValidatorSet,
        accounts: Mapping[bytes, int],
        treasury: bytes,
        timestamp_ms: int = 0,
        contacts: Mapping[int, Contact] | None = None,
    ) -> "Ledger":
        """The ledger at height 0. Raises ValueError for keys or amounts that cannot be."""
        for key, balance in accounts.items():
            if len(key) != ACCOUNT_BYTES or balance < 0:
                raise ValueError(f"account {key.hex()} with {balance} grain is not possible")
        if len(treasury) != ACCOUNT_BYTES:
            raise ValueError(f"the treasury has {len(treasury)} bytes, needs {ACCOUNT_BYTES}")
        issued = sum(accounts.values())
        if parameters.epoch_blocks:
            issued += members.stake_total
        if issued > SUPPLY_MAX:
            raise ValueError(f"{issued} grain are issued, a chain has at most {SUPPLY_MAX}")
        state = State()
        for key in sorted(accounts):
            state.accounts.put(key, accounts[key], 0, 0, 0)
        validators.enter_genesis(state, parameters, members, contacts or {})
        state.put(state.parameters, SINGLE_KEY, parameters)
        state.put(state.supply, SINGLE_KEY, Supply(issued, 0, treasury))
        state.commit()
        root = genesis_link(state.root()).extend(ZERO_HASH)
        return cls(chain_id, state, LedgerMeta(0, timestamp_ms, root))

    @classmethod
    def from_records(
        cls, chain_id: str, meta: LedgerMeta, rows: Iterable[Row], accounts: Iterable[bytes]
    ) -> "Ledger":
        """Rebuild after a restart: every (table, key, stored value) in any order, and all accounts
        as packed chunks in order of row number. Raises StateError."""
        return cls(chain_id, State.from_rows(rows, accounts), meta)

    def to_records(self) -> Iterator[Row]:
        """Every row of every table but the accounts, sorted."""
        return self._state.rows()

    def account_chunks(self) -> Iterator[bytes]:
        """All accounts, packed, in order of row number."""
        return self._state.account_chunks()

    @property
    def epoch(self) -> int:
        """Of the next block."""
        return self.parameters.epoch_of(self.height + 1)

    @property
    def validators(self) -> ValidatorSet:
        """The set in force for the next block."""
        return self._sets[self.epoch]

    def validator_set(self, epoch: int) -> ValidatorSet | None:
        """The set of an epoch, if it is elected and still kept: of the epoch under way, the two
        before it and the next one; of one more ahead between two epochs."""
        return self._sets.get(epoch)

    def registered(self) -> Iterator[tuple[int, RegisteredValidator]]:
        """(id, registration) of everybody who ever was one, rising by id."""
        for key, record in self._state.validators.scan():
            yield int.from_bytes(key, "big"), record

    def contacts(self) -> tuple[Contact, ...]:
        """How everybody is reached who is a validator or may become one; none where genesis was
        given without contacts."""
        return tuple(validators.contacts_of(self._state))

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
        return account_of(self._state.accounts, key)

    def accounts(self) -> Iterator[tuple[bytes, Account]]:
        """(key, account) in order of first appearance, empty ones too."""
        for number in range(len(self._state.accounts)):
            key, *amounts = self._state.accounts.row(number)
            yield key, Account(*amounts)

    def supply(self) -> Supply:
        """What was issued and burned."""
        record = self._state.supply.get(SINGLE_KEY)
        if record is None:
            raise StateError("the supply row is gone")
        return record

    def records(self) -> Iterator[tuple[TableNumber, bytes, Any]]:
        """(table, key, record) of every table but the accounts."""
        return self._state.records()

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
        """A job, open, or final since less than `job_rows_kept_blocks`."""
        return self._state.jobs.get(job)

    def jobs(self) -> Iterator[tuple[bytes, Job]]:
        """(id, job), open and final."""
        return self._state.jobs.scan()

    def explain(self, job_id: bytes) -> Choice | None:
        """How the offers stand for a job that nobody has now; None for any other. It draws nobody:
        the next block's beacon will."""
        job = self._state.jobs.get(job_id)
        if job is None or job.status is not JobStatus.REQUESTED:
            return None
        scope = self._scope(self.height, self.timestamp_ms)
        offers = available_offers(scope, job)
        return choice_of(scope, job, offers, assignment_weights(scope, offers), None)

    def newest_jobs(self, limit: int) -> list[tuple[bytes, Job]]:
        """(id, job) of the last requested ones, newest first."""
        return heapq.nlargest(
            limit,
            self._state.jobs.scan(),
            key=lambda item: (item[1].requested_height, item[0]),
        )

    def open_jobs(self) -> Iterator[tuple[bytes, Job]]:
        """(id, job) of those that are not final, oldest first."""
        return iter(self._open.items())

    def appealed_jobs(self) -> Iterator[tuple[bytes, Job]]:
        """(id, job as its arbiters see it) of open appeals."""
        for key, appeal in self._state.appeals.scan():
            yield key, appeal.job

    def appeals(self) -> Iterator[tuple[bytes, Appeal]]:
        """(job, appeal) of open ones, rising by job."""
        return self._state.appeals.scan()

    def appeal(self, job: bytes) -> Appeal | None:
        """The job's appeal, while it is open."""
        return self._state.appeals.get(job)

    def appeal_bonds(self) -> int:
        """Grain in the bonds of open appeals."""
        return sum(appeal.bond for _, appeal in self._state.appeals.scan())

    def wants_blocks(self) -> bool:
        """Whether some job's next step needs nothing but another block."""
        scope = self._scope(self.height, self.timestamp_ms)
        return any(
            wants_block(scope, job) for job in self._open.values() if job.status in MOVED_BY_BLOCKS
        )

    def next_deadline_ms(self) -> int | None:
        """The earliest deadline of an open job; a block later than this moves it on."""
        appealed = [appeal.job.deadline_ms for _, appeal in self._state.appeals.scan()]
        return min([*appealed, *[job.deadline_ms for job in self._open.values()]], default=None)

    def sessions(self, account: bytes) -> Iterator[tuple[bytes, Session]]:
        """(key, session) of the account, in order of key."""
        for place, session in self._state.sessions.scan(account):
            yield place[ACCOUNT_BYTES:], session

    def convictions(self) -> dict[int, Conviction]:
        """What validators were shown to have done, by index, rising."""
        return {
            int.from_bytes(key, "big"): record for key, record in self._state.convictions.scan()
        }

    def suspicion(self, model: bytes, provider: bytes) -> Suspicion:
        """What the provider's jobs for the model have shown together."""
        return self._state.suspicions.get(model + provider) or NO_SUSPICION

    def ejections(self) -> Iterator[tuple[bytes, bytes, Ejection]]:
        """(model, provider, what is held) of those whose time to appeal has not passed."""
        for key, ejection in self._state.ejections.scan():
            yield key[:ID_BYTES], key[ID_BYTES:], ejection

    def verifiers(self, model: bytes) -> dict[int, Verifier]:
        """The validators that say they serve the model, by index, rising."""
        return {
            int.from_bytes(key[ID_BYTES:], "big"): verifier
            for key, verifier in self._state.verifiers.scan(model)
        }

    def stake_needed(self, key: bytes, verifying: bool = False) -> int:
        """Stake that the account's offers and announcements bind; with `verifying` as if it had
        announced a model."""
        return stake_needed(self._scope(self.height, self.timestamp_ms), key, verifying)

    def fingerprint_positions(self, job: bytes) -> tuple[int, ...]:
        """Output positions that the committee of the job's current round fingerprints.

        Raises Rejection for an unknown job, ValueError if no committee was drawn yet.
        """
        scope = self._scope(self.height, self.timestamp_ms)
        return round_positions(scope, scope.job(job))

    def admit(self, transaction: Transaction) -> None:
        """Raise Rejection if the transaction would fail in the next block.

        Runs the very rules of execution on the current state, and undoes them.
        """
        scope = self._scope(self.height + 1, self.timestamp_ms)
        savepoint = scope.savepoint()
        try:
            fee = take_fee(scope, transaction, self._window, self.treasury)
            apply_operations(scope, transaction, fee)
        finally:
            scope.rollback(savepoint)

    def admit_plain(self, bodies: Bodies) -> dict[int, Rejection]:
        """`admit` for all plain transfers of a batch: which places are refused, and why."""
        rules = transfer_rules(self.parameters, self.height + 1)
        codes, seen, bounds = check(
            self._state.accounts, self._window, bodies, rules, self.treasury
        )
        return {
            place: refusals.of_check(
                int(codes[place]),
                bodies.batch.ids[place].tobytes(),
                int(seen[place]),
                int(bounds[place]),
            )
            for place in codes.nonzero()[0].tolist()
        }

    def admit_each(self, transactions: Mapping[int, Transaction]) -> dict[int, Rejection]:
        """`admit` for transactions by place, one by one: which are refused, and why."""
        refused = {}
        for place, transaction in transactions.items():
            try:
                self.admit(transaction)
            except Rejection as rejection:
                refused[place] = rejection
        return refused

    def execute(self, block: BlockContext, lanes: Sequence[LaneBatch]) -> BlockOutcome:
        """Apply the final block `height + 1`; lanes in order of (lane, sequence).

        Raises ValueError, before anything changes, for a block that does not follow.
        """
        self._check_follows(block, lanes)
        output = RunOutput()
        scope = self._scope(block.height, block.timestamp_ms, block.beacon, output)
        self._forget_final_jobs(block.height)
        sessions.expire(scope, self._sessions.pop(block.height - 1, ()))
        due = [
            key
            for key in sorted(self._unbonding)
            if self.account(key).unbonding_until_ms <= block.timestamp_ms
        ]
        begin_block(scope, due, tuple(self._open))
        run_lanes(scope, self.chain_id, lanes, self._window, output)
        if self.parameters.epoch_blocks:
            validators.count_proposal(scope, block.proposer)
        if self.parameters.is_boundary(block.height):
            validators.end_epoch(scope)
        scope.end_block()
        self._turn_window(block.height)
        journal, accounts = self._state.commit()
        changed_jobs = self._follow(scope)
        changed_appeals = tuple((key, appeal.job) for key, appeal in self._state.appeals.changed)
        link = ExecutionLink(
            height=block.height,
            state_root=self._state.root(),
            receipts_root=output.receipts_root(),
            events_root=output.events_root(),
        )
        self.height, self.timestamp_ms = block.height, block.timestamp_ms
        self.execution_root = link.extend(self.execution_root)
        return BlockOutcome(
            link=link,
            execution_root=self.execution_root,
            meta=self.meta,
            receipts=PackedLeaves(*output.receipt_leaves()),
            events=PackedLeaves(*output.event_leaves()),
            job_receipts=tuple(scope.job_receipts),
            journal=journal,
            accounts=accounts,
            changed_jobs=changed_jobs,
            changed_appeals=changed_appeals,
            new_jobs=tuple(scope.new_jobs),
            payloads=(*scope.payloads, *scope.choices),
            refused_attestations=tuple(scope.refused_attestations),
            wants_blocks=self.wants_blocks(),
            next_deadline_ms=self.next_deadline_ms(),
        )

    def _scope(
        self,
        height: int,
        timestamp_ms: int,
        beacon: bytes = ZERO_HASH,
        output: RunOutput | None = None,
    ) -> Scope:
        return Scope(
            state=self._state,
            chain_id=self.chain_id,
            output=RunOutput() if output is None else output,
            parameters=self.parameters,
            sets=self._sets,
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
        strangers = [lane for lane in order if lane not in self.validators.by_index]
        if strangers:
            raise ValueError(f"lane {strangers[0]} belongs to no validator of epoch {self.epoch}")

    def _turn_window(self, height: int) -> None:
        """Remember this block's ids, and forget those that can no longer be valid."""
        state, window = self._state, self._window
        ids = window.ids_at(height)
        if ids:
            record = IncludedIds(ids, window.leaves_at(height))
            state.put(state.included, _height_key(height), record)
        for old in window.heights():
            if old + WINDOW_BLOCKS > height:
                break
            state.put(state.included, _height_key(old), None)
        window.drop_through(max(0, height - WINDOW_BLOCKS))

    def _forget_final_jobs(self, height: int) -> None:
        """Jobs that are long final leave the state; their receipts stay."""
        for final_height in list(self._final):  # rising
            if final_height + self.parameters.job_rows_kept_blocks > height:
                break
            for key in self._final.pop(final_height):
                self._state.put(self._state.jobs, key, None)

    def _follow(self, scope: Scope) -> tuple[tuple[bytes, Job], ...]:
        """Bring the indices up to date; the jobs that changed, in order of id."""
        for key in scope.unbonding:
            if self.account(key).unbonding:
                self._unbonding.add(key)
            else:
                self._unbonding.discard(key)
        for last_height, place in scope.sessions_changed:
            self._place_session(last_height, place)
        changed = self._state.jobs.changed
        for key, job in changed:
            self._place_job(key, job)
        return tuple(changed)

    def _place_session(self, last_height: int, place: bytes) -> None:
        session = self._state.sessions.get(place)
        places = self._sessions.setdefault(last_height, set())
        if session is not None and session.expires_at_height == last_height:
            places.add(place)
        else:
            places.discard(place)
        if not places:
            del self._sessions[last_height]

    def _place_job(self, key: bytes, job: Job) -> None:
        if job.status in FINAL:
            self._open.pop(key, None)
            self._final.setdefault(job.final_height, []).append(key)
        else:
            self._open[key] = job


def genesis_link(state_root: bytes) -> ExecutionLink:
    """The execution link of height 0, which extends 32 zero bytes."""
    empty = PackedLeaves().root()
    return ExecutionLink(height=0, state_root=state_root, receipts_root=empty, events_root=empty)


def _height_key(height: int) -> bytes:
    return height.to_bytes(HEIGHT_BYTES, "big")
