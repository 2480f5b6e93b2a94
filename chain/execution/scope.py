"""What operations work on while a block is executed: state, the block, what it leaves behind."""

from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from chain.events import EventKind
from chain.execution import refusals
from chain.execution.outcome import NewJob, RefusedAttestation
from chain.parameters import Parameters
from chain.records import (
    Account,
    Conviction,
    Job,
    JobReceipt,
    JobStatus,
    KeyRole,
    Model,
    Offer,
    RegisteredValidator,
    Supply,
    Tier,
    Verifier,
)
from chain.rejections import Rejection, RejectionReason
from chain.state import INDEX_BYTES, SINGLE_KEY, Savepoint, State
from consensus.values import ValidatorSet
from ext.transfers import RunOutput

NO_ACCOUNT = Account(balance=0, stake=0, unbonding=0, unbonding_until_ms=0)
_NOTHING = (0, 0, 0, 0)


class Output(Protocol):
    """Where the leaves of a block gather, in order: `ext.transfers.RunOutput`."""

    @property
    def events(self) -> int:
        """Number of event leaves so far."""

    def append_receipt(self, leaf: bytes) -> int:
        """Add a receipt leaf; its index."""

    def emit(self, kind: int, subject: bytes, other: bytes | None, amount: int, code: int) -> None:
        """Add an event's leaf."""

    def truncate_events(self, count: int) -> None:
        """Forget all but the first `count` events."""


class ScopeSavepoint(NamedTuple):
    """Where everything stood that operations change."""

    state: Savepoint
    events: int
    payloads: int
    new_jobs: int
    burned: int


class Taker(NamedTuple):
    """Who may take a job, as long as the offer has room."""

    provider: bytes
    offer_key: bytes
    stake: int
    seats: int
    """That a job of the tier asked for must be able to pay."""


@dataclass(slots=True)
class MarketNotes:
    """What `market` worked out of offers, stakes and announcements of verifiers; wrong when one of
    them changes, but for the counts in an offer."""

    floors: dict[tuple[bytes, bytes | None, Tier], tuple[tuple[int, int, int], ...]] = field(
        default_factory=dict
    )
    verifiers: dict[tuple[bytes, str], int] = field(default_factory=dict)
    takers: dict[tuple[bytes, bytes | None, Tier], tuple[Taker, ...]] = field(default_factory=dict)
    auditors: dict[tuple[bytes, bytes | None, int, str, int], dict[int, str]] = field(
        default_factory=dict
    )

    def forget(self) -> None:
        """Something changed."""
        self.auditors.clear()
        self.floors.clear()
        self.verifiers.clear()
        self.takers.clear()


@dataclass(slots=True)
class Scope:
    """One block under way. All writes to state go through it."""

    state: State
    chain_id: str
    parameters: Parameters
    sets: dict[int, ValidatorSet]
    """Of the epochs that are kept: the one under way, those before it for evidence, and after."""
    treasury: bytes
    height: int
    timestamp_ms: int
    beacon: bytes
    output: Output = field(default_factory=RunOutput)
    job_receipts: list[tuple[int, bytes, JobReceipt]] = field(default_factory=list)
    new_jobs: list[NewJob] = field(default_factory=list)
    payloads: list[tuple[bytes, bytes]] = field(default_factory=list)
    choices: list[tuple[bytes, bytes]] = field(default_factory=list)
    """(key, bytes) of each `choices.Choice` that is kept."""
    refused_attestations: list[RefusedAttestation] = field(default_factory=list)
    burned: int = 0
    """Not yet in the supply's row; `end_block` puts it there."""
    unbonding: set[bytes] = field(default_factory=set)
    """Accounts whose unbonding may have changed."""
    sessions_changed: set[tuple[int, bytes]] = field(default_factory=set)
    """(last height, account ‖ key) of sessions that may have come or gone."""
    notes: MarketNotes = field(default_factory=MarketNotes)

    epoch: int = field(init=False)
    validators: ValidatorSet = field(init=False)
    """The set in force."""

    def __post_init__(self) -> None:
        self.epoch = self.parameters.epoch_of(self.height)
        self.validators = self.sets[self.epoch]

    def savepoint(self) -> ScopeSavepoint:
        """A point that `rollback` returns to."""
        return ScopeSavepoint(
            self.state.savepoint(),
            self.output.events,
            len(self.payloads),
            len(self.new_jobs),
            self.burned,
        )

    def rollback(self, savepoint: ScopeSavepoint) -> None:
        """Undo what operations did since the savepoint."""
        self.state.rollback(savepoint.state)
        self.output.truncate_events(savepoint.events)
        del self.payloads[savepoint.payloads :]
        del self.new_jobs[savepoint.new_jobs :]
        self.burned = savepoint.burned
        self.notes.forget()

    def end_block(self) -> None:
        """Write what was gathered over the block."""
        if self.burned:
            supply = self.state.supply.get(SINGLE_KEY)
            if supply is None:
                raise RuntimeError("the state has no supply row")
            after = Supply(supply.issued, supply.burned + self.burned, supply.treasury)
            self.state.put(self.state.supply, SINGLE_KEY, after)
            self.burned = 0

    def emit(
        self,
        kind: EventKind,
        subject: bytes,
        other: bytes | None = None,
        amount: int = 0,
        code: int = 0,
    ) -> None:
        """Add an event."""
        self.output.emit(kind, subject, other, amount, code)

    def account(self, key: bytes) -> Account:
        """The account; all zeros if there is none."""
        found = self.state.accounts.get(key)
        return NO_ACCOUNT if found is None else Account(*found)

    def stake_of(self, key: bytes) -> int:
        """What the account has staked."""
        found = self.state.accounts.get(key)
        return 0 if found is None else found[1]

    def put_account(self, key: bytes, account: Account) -> None:
        """Store an account."""
        self.notes.forget()
        self.unbonding.add(key)
        self.state.accounts.put(
            key, account.balance, account.stake, account.unbonding, account.unbonding_until_ms
        )

    def credit(self, key: bytes, amount: int) -> None:
        """Add to a balance."""
        if amount:
            accounts = self.state.accounts
            balance, stake, unbonding, until_ms = accounts.get(key) or _NOTHING
            accounts.put(key, balance + amount, stake, unbonding, until_ms)

    def debit(self, key: bytes, amount: int) -> None:
        """Take from a balance. Raises Rejection if it holds less."""
        accounts = self.state.accounts
        balance, stake, unbonding, until_ms = accounts.get(key) or _NOTHING
        if balance < amount:
            raise refusals.insufficient_balance(balance, amount)
        accounts.put(key, balance - amount, stake, unbonding, until_ms)

    def burn(self, amount: int) -> None:
        """Count an amount, already taken from somewhere, as destroyed."""
        self.burned += amount

    def model(self, model: bytes) -> Model:
        """A registered model. Raises Rejection for an unknown one."""
        record = self.state.models.get(model)
        if record is None:
            raise Rejection(
                RejectionReason.UNKNOWN_MODEL,
                f"no model {model.hex()} is registered; list models to find one",
            )
        return record

    def offer(self, model: bytes, provider: bytes) -> Offer:
        """An offer that must exist: jobs refer to it, and offers are never deleted."""
        record = self.state.offers.get(model + provider)
        if record is None:
            raise RuntimeError(f"the offer of {provider.hex()} for {model.hex()} is gone")
        return record

    def put_offer(self, model: bytes, provider: bytes, offer: Offer) -> None:
        """Store an offer of which nothing but counts has changed."""
        self.state.put(self.state.offers, model + provider, offer)

    def put_new_offer(self, model: bytes, provider: bytes, offer: Offer) -> None:
        """Store an offer that is new, or has other terms."""
        self.notes.forget()
        self.put_offer(model, provider, offer)

    def put_verifier(self, key: bytes, verifier: Verifier | None) -> None:
        """Store what a validator says of a model; None: that it does not serve it."""
        self.notes.forget()
        self.state.put(self.state.verifiers, key, verifier)

    def validator(self, validator: int) -> RegisteredValidator:
        """Who has this id, member of a set or not; raises RuntimeError for an id never given."""
        record = self.state.validators.get(validator.to_bytes(INDEX_BYTES, "big"))
        if record is None:
            raise RuntimeError(f"validator {validator} is not registered")
        return record

    def validator_of(self, account: bytes) -> int | None:
        """The id of the account's validator, if it ever had one."""
        owner = self.state.validator_keys.get(account)
        return owner.validator if owner is not None and owner.role is KeyRole.ACCOUNT else None

    def conviction(self, validator: int) -> Conviction | None:
        """What the validator was shown to have done, if anything."""
        return self.state.convictions.get(validator.to_bytes(INDEX_BYTES, "big"))

    def put_conviction(self, validator: int, conviction: Conviction) -> None:
        """Store what a validator was shown to have done."""
        self.state.put(self.state.convictions, validator.to_bytes(INDEX_BYTES, "big"), conviction)

    def job(self, job: bytes) -> Job:
        """A job of the table. Raises Rejection for an unknown one."""
        record = self.state.jobs.get(job)
        if record is None:
            raise Rejection(RejectionReason.UNKNOWN_JOB, f"there is no job {job.hex()}")
        return record

    def put_job(self, job_id: bytes, job: Job, before: JobStatus | None) -> None:
        """Store a job; a change of status is an event."""
        self.state.put(self.state.jobs, job_id, job)
        if job.status is not before:
            self.output.emit(EventKind.JOB_CHANGED, job_id, job.provider, 0, job.status)
