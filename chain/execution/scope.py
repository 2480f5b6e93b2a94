"""What operations work on while a block is executed: state, the block, what it leaves behind."""

from dataclasses import dataclass, field

from chain.events import Event, EventKind
from chain.execution.outcome import RefusedAttestation
from chain.parameters import Parameters
from chain.records import Account, Job, JobReceipt, JobStatus, Model, Offer, Supply
from chain.rejections import Rejection, RejectionReason
from chain.state import SINGLE_KEY, State
from consensus.values import ValidatorSet

NO_ACCOUNT = Account(balance=0, stake=0, unbonding=0, unbonding_until_ms=0)


@dataclass(slots=True)
class Scope:
    """One block under way. All writes to state go through it."""

    state: State
    parameters: Parameters
    validators: ValidatorSet
    treasury: bytes
    height: int
    timestamp_ms: int
    beacon: bytes
    receipt_leaves: list[bytes] = field(default_factory=list)
    transaction_receipts: list[tuple[int, bytes]] = field(default_factory=list)
    job_receipts: list[tuple[int, bytes, JobReceipt]] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    payloads: list[tuple[bytes, bytes]] = field(default_factory=list)
    refused_attestations: list[RefusedAttestation] = field(default_factory=list)

    def savepoint(self) -> tuple[int, int, int]:
        """A point that `rollback` returns to: state, events and payloads."""
        return self.state.savepoint(), len(self.events), len(self.payloads)

    def rollback(self, savepoint: tuple[int, int, int]) -> None:
        """Undo what operations did since the savepoint."""
        state, events, payloads = savepoint
        self.state.rollback(state)
        del self.events[events:]
        del self.payloads[payloads:]

    def emit(
        self,
        kind: EventKind,
        subject: bytes,
        other: bytes | None = None,
        amount: int = 0,
        code: int = 0,
    ) -> None:
        """Add an event."""
        self.events.append(Event(kind, subject, other, amount, code))

    def account(self, key: bytes) -> Account:
        """The account; all zeros if there is none."""
        return self.state.accounts.get(key) or NO_ACCOUNT

    def put_account(self, key: bytes, account: Account) -> None:
        """Store an account; one without any money is not kept."""
        empty = account.balance == account.stake == account.unbonding == 0
        self.state.put(self.state.accounts, key, None if empty else account)

    def credit(self, key: bytes, amount: int) -> None:
        """Add to a balance."""
        if amount:
            account = self.account(key)
            self.put_account(key, _with_balance(account, account.balance + amount))

    def debit(self, key: bytes, amount: int) -> None:
        """Take from a balance. Raises Rejection if it holds less."""
        account = self.account(key)
        if account.balance < amount:
            raise Rejection(
                RejectionReason.INSUFFICIENT_BALANCE,
                f"the account holds {account.balance} grain, {amount} are needed: add funds",
            )
        self.put_account(key, _with_balance(account, account.balance - amount))

    def burn(self, amount: int) -> None:
        """Count an amount, already taken from somewhere, as destroyed."""
        supply = self.state.supply.get(SINGLE_KEY)
        if supply is None:
            raise RuntimeError("the state has no supply row")
        if amount:
            after = Supply(supply.issued, supply.burned + amount, supply.treasury)
            self.state.put(self.state.supply, SINGLE_KEY, after)

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
        """Store an offer."""
        self.state.put(self.state.offers, model + provider, offer)

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
            self.emit(EventKind.JOB_CHANGED, job_id, other=job.provider, code=job.status)


def _with_balance(account: Account, balance: int) -> Account:
    # Spelled out: dataclasses.replace takes several times as long, and each transfer needs four.
    return Account(balance, account.stake, account.unbonding, account.unbonding_until_ms)
