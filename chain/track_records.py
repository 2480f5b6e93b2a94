"""What the state holds for and against providers and validators, gathered for whoever looks.

Of a provider: its fading standing, its wealth in the e-process (`chain.execution.suspicion`), what
is held of it, its open appeals. Of a validator: what it did with its seats on the committees of
jobs whose rows are in state, and its conviction. Nothing here is a node's own opinion: every node
at the same height shows the same.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice

from chain.events import Event, EventKind
from chain.execution import Ledger
from chain.execution.appeals import AppealRuling
from chain.leaves import PackedLeaves
from chain.records import (
    Appeal,
    CommitteeSeat,
    Conviction,
    Ejection,
    Job,
    Offer,
    Suspicion,
)
from chain.standings import Standing, standings
from chain.store import Store
from consensus.values import Verdict
from consensus.wire import DecodeError, decode

PROVIDERS_SHOWN_MAX = 1_000
VALIDATORS_SHOWN_MAX = 512
JOBS_COUNTED_MAX = 1_000
"""Newest jobs whose committees are looked at."""
APPEALS_SHOWN_MAX = 200
EVENT_LEAF = b"E"


@dataclass(frozen=True, slots=True)
class ProviderRecord:
    """One offer, open or withdrawn, and what its jobs have shown."""

    model: bytes
    provider: bytes
    offer: Offer
    stake: int
    suspicion: Suspicion
    ejection: Ejection | None
    """While its time to appeal has not passed."""
    open_appeals: int


@dataclass(frozen=True, slots=True)
class SeatCounts:
    """How often a validator had a seat, and what it said; the parts add up to the seats."""

    passed: int = 0
    failed: int = 0
    abstained: int = 0
    voided: int = 0
    """Its fingerprint was out of the others' tolerance."""
    hidden: int = 0
    """It committed, and never revealed."""
    silent: int = 0
    """It did not even commit."""

    @property
    def seats(self) -> int:
        """All of them."""
        spoken = self.passed + self.failed + self.abstained
        return spoken + self.voided + self.hidden + self.silent


@dataclass(frozen=True, slots=True)
class ValidatorRecord:
    """One validator's seats, and its conviction."""

    validator: int
    account: bytes
    counts: SeatCounts
    conviction: Conviction | None


@dataclass(frozen=True, slots=True)
class Records:
    """Everybody's, as far as the bounds allow."""

    providers: tuple[ProviderRecord, ...]
    complete: bool
    """Whether all providers are among them."""
    validators: tuple[ValidatorRecord, ...]
    jobs: int
    """Final ones that the seats are of."""


@dataclass(frozen=True, slots=True)
class Ruled:
    """How an appeal ended."""

    height: int
    ruling: AppealRuling
    paid: int
    """To the provider, beside its bond."""


def records(ledger: Ledger, model: bytes = b"", provider: bytes = b"") -> Records:
    """Of the providers asked for (empty: all), and of all validators that have not left."""
    held = {key[0] + key[1]: key[2] for key in ledger.ejections()}
    appeals = Counter(job.model + (job.provider or b"") for _, job in ledger.appealed_jobs())
    asked = (
        ProviderRecord(
            model=model_id,
            provider=account,
            offer=offer,
            stake=ledger.account(account).stake,
            suspicion=ledger.suspicion(model_id, account),
            ejection=held.get(model_id + account),
            open_appeals=appeals[model_id + account],
        )
        for model_id, account, offer in ledger.offers(model or None)
        if provider in (b"", account)
    )
    providers = tuple(islice(asked, PROVIDERS_SHOWN_MAX))
    complete = next(asked, None) is None
    final = [job for _, job in ledger.newest_jobs(JOBS_COUNTED_MAX) if job.final_height]
    counts = seat_counts(final)
    validators = tuple(
        ValidatorRecord(
            validator=entry.index,
            account=entry.registered.account,
            counts=counts.get(entry.index, SeatCounts()),
            conviction=entry.conviction,
        )
        for entry in standings(ledger, limit=VALIDATORS_SHOWN_MAX)
        if entry.standing is not Standing.LEFT
    )
    return Records(providers, complete, validators, len(final))


def seat_counts(final: Iterable[Job]) -> dict[int, SeatCounts]:
    """What each validator did with its seats on these jobs, by id."""
    found: dict[int, Counter[str]] = {}
    for job in final:
        for seat in job.committee:
            found.setdefault(seat.validator, Counter())[_word(seat)] += 1
    return {index: SeatCounts(**counted) for index, counted in sorted(found.items())}


def open_appeals(ledger: Ledger) -> tuple[list[tuple[bytes, Appeal]], bool]:
    """(job, appeal), rising by job, and whether that is all of them."""
    found = list(islice(ledger.appeals(), APPEALS_SHOWN_MAX + 1))
    return found[:APPEALS_SHOWN_MAX], len(found) <= APPEALS_SHOWN_MAX


def find_ruling(store: Store, job_id: bytes, job: Job, newest: int) -> Ruled | None:
    """How the job's appeal ended: in a block since the job was final, as far as those are kept."""
    first = max(job.final_height, store.pruned_through + 1)
    for height in range(newest, first - 1, -1):
        leaves = store.events_at(height)
        if job_id in leaves.data and (ruled := _ruling_in(leaves, job_id)) is not None:
            return Ruled(height, AppealRuling(ruled.code), ruled.amount)
    return None


def _word(seat: CommitteeSeat) -> str:
    if seat.voided is not None:
        return "voided"
    if seat.verdict is None:
        return "silent" if seat.commitment is None else "hidden"
    return {Verdict.PASS: "passed", Verdict.FAIL: "failed"}.get(seat.verdict, "abstained")


def _ruling_in(leaves: PackedLeaves, job_id: bytes) -> Event | None:
    for leaf in leaves:
        if not leaf.startswith(EVENT_LEAF) or job_id not in leaf:
            continue
        try:
            event = decode(Event, leaf[len(EVENT_LEAF) :])
        except DecodeError:
            continue
        if event.kind is EventKind.APPEAL_RULED and event.subject == job_id:
            return event
    return None
