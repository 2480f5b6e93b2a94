"""Why a job went to one provider and not to another: what the draw was made from.

A choice is derived from the state and the beacon of its block, so every node that executes the
block writes down the same. It is no part of the state: nothing later depends on it. It is kept
with the block like a request's bytes, and pruned with it. `redraw` draws anew from what is
written, so that a reader need not believe the outcome.
"""

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Annotated

from chain.execution.market import can_be_judged, price_needed, seats_to_pay
from chain.execution.scope import Scope, Taker
from chain.records import Job, Offer, Profile
from chain.state import ID_BYTES
from consensus.committees import draw
from consensus.wire import U8, U16, U32, U64, Count, Hash, PublicKey, Size, encode
from ext.hashing import tagged_hash

CANDIDATES_NOTED_MAX = 64
DIGITS_MAX = 40
CHOICES_NOTED_MAX = 64
"""Of one block. In a busier block the rest of its draws is not written down: it costs CPU and disk
on every node, and serves whoever asks why, not the chain."""


Decimal = Annotated[str, Size(DIGITS_MAX)]
"""A number that 64 bits may not hold."""


class Standing(enum.IntEnum):
    """What became of an offer in a draw. The first reason that holds."""

    WEIGHED = 1
    """It took part, with its weight."""
    WITHDRAWN = 2
    OTHER_ASKED_FOR = 3
    """The request names another provider."""
    STAKE_TOO_SMALL = 4
    TOO_FEW_VERIFIERS = 5
    """Fewer can judge its results than a ruling needs."""
    ALREADY_TRIED = 6
    """It had the job before, and was late."""
    NO_ROOM = 7
    """As many jobs are open with it as its capacity."""
    ESCROW_TOO_SMALL = 8
    """For its price of the longest prompt and output, and verification."""


WHY = {
    Standing.WEIGHED: "took part in the draw",
    Standing.WITHDRAWN: "its offer is withdrawn",
    Standing.OTHER_ASKED_FOR: "the request names another provider",
    Standing.STAKE_TOO_SMALL: "its stake is below the least an offer needs",
    Standing.TOO_FEW_VERIFIERS: "too few verifiers can judge its results",
    Standing.ALREADY_TRIED: "had this job before, and was late",
    Standing.NO_ROOM: "as many jobs were open with it as its capacity",
    Standing.ESCROW_TOO_SMALL: "the escrow does not reach what it needs",
}


@dataclass(frozen=True, slots=True)
class Candidate:
    """An offer as it stood when the provider was drawn."""

    provider: PublicKey
    standing: Standing
    weight: Decimal
    """0 unless it was weighed."""
    input_price: U64
    output_price: U64
    capacity: U32
    open_jobs: U32
    completed: U64
    failed: U64
    operator: U16
    engine_profile: Profile
    stake: U64
    price_needed: Decimal
    """What the escrow must reach: the longest prompt and output, and the seats' verification."""


@dataclass(frozen=True, slots=True)
class Choice:
    """One draw of a provider, or that nobody could be drawn until the deadline."""

    attempt: U8
    """From 1."""
    height: U64
    beacon: Hash
    escrow: U64
    max_output_tokens: U32
    stake_min: U64
    provider: PublicKey | None
    complete: bool
    """Whether `candidates` are all offers for the model."""
    candidates: Annotated[tuple[Candidate, ...], Count(CANDIDATES_NOTED_MAX)]
    """Those that were weighed come first, in the order of the draw."""


def choice_key(job: bytes, attempt: int) -> bytes:
    """Where the store keeps the choice of an attempt."""
    return tagged_hash(b"choice", job, attempt.to_bytes(1, "little"))


def assignment_seed(beacon: bytes, job: bytes, attempts: int) -> bytes:
    """The seed of the draw after so many attempts."""
    return tagged_hash(b"assign", beacon, job, attempts.to_bytes(1, "little"))


def note_choice(
    scope: Scope,
    job_id: bytes,
    job: Job,
    offers: Sequence[tuple[Taker, Offer]],
    weights: Sequence[int],
    provider: bytes | None,
) -> None:
    """Write down a draw for the job as it was before; `offers` and `weights` were drawn from."""
    if len(scope.choices) >= CHOICES_NOTED_MAX:
        return
    choice = choice_of(scope, job, offers, weights, provider)
    scope.choices.append((choice_key(job_id, choice.attempt), encode(choice)))


def choice_of(
    scope: Scope,
    job: Job,
    offers: Sequence[tuple[Taker, Offer]],
    weights: Sequence[int],
    provider: bytes | None,
) -> Choice:
    """The draw of a provider for the job as the scope has it now."""
    found = [
        _candidate(scope, job, taker.provider, offer, Standing.WEIGHED, weight)
        for (taker, offer), weight in zip(
            offers[:CANDIDATES_NOTED_MAX], weights[:CANDIDATES_NOTED_MAX], strict=True
        )
    ]
    weighed = {taker.provider for taker, _ in offers}
    # One more than there is room for tells whether there are others.
    looked_at = islice(scope.state.offers.scan(job.model), len(weighed) + CANDIDATES_NOTED_MAX + 1)
    others = [(key[ID_BYTES:], offer) for key, offer in looked_at if key[ID_BYTES:] not in weighed]
    room = CANDIDATES_NOTED_MAX - len(found)
    found += [
        _candidate(scope, job, other, offer, _standing(scope, job, other, offer), 0)
        for other, offer in others[:room]
    ]
    return Choice(
        attempt=job.attempts + 1,
        height=scope.height,
        beacon=scope.beacon,
        escrow=job.escrow,
        max_output_tokens=job.max_output_tokens,
        stake_min=scope.parameters.stake_min_per_offer,
        provider=provider,
        complete=len(weighed) <= CANDIDATES_NOTED_MAX and len(others) <= room,
        candidates=tuple(found),
    )


def redraw(
    job_id: bytes, beacon: bytes, attempt: int, weights: Sequence[int], complete: bool
) -> int | None:
    """The place that the beacon draws from the weights of a choice; None if there are none.

    Raises ValueError if they may not be all that were drawn from.
    """
    if not complete and len(weights) >= CANDIDATES_NOTED_MAX:
        raise ValueError("more offers may have been weighed than are written down")
    drawn = draw(assignment_seed(beacon, job_id, attempt - 1), weights, 1)
    return drawn[0] if drawn else None


def _price_needed(scope: Scope, job: Job, offer: Offer) -> int:
    seats = seats_to_pay(scope, offer, job.model, job.tier)
    input_tokens, output_tokens = job.input_tokens_max, job.max_output_tokens
    seat_price = scope.parameters.seat_price(input_tokens, output_tokens)
    return price_needed(
        offer.input_price, offer.output_price, seats, input_tokens, output_tokens, seat_price
    )


def _standing(scope: Scope, job: Job, provider: bytes, offer: Offer) -> Standing:
    """Why an offer did not take part: the rules of `market.takers` and
    `lifecycle.available_offers`, one by one."""
    if not offer.capacity:
        return Standing.WITHDRAWN
    if job.pinned_provider not in (None, provider):
        return Standing.OTHER_ASKED_FOR
    if scope.stake_of(provider) < scope.parameters.stake_min_per_offer:
        return Standing.STAKE_TOO_SMALL
    if not can_be_judged(scope, job.model, provider, offer):
        return Standing.TOO_FEW_VERIFIERS
    if provider in job.tried:
        return Standing.ALREADY_TRIED
    if offer.open_jobs >= offer.capacity:
        return Standing.NO_ROOM
    return Standing.ESCROW_TOO_SMALL


def _candidate(
    scope: Scope, job: Job, provider: bytes, offer: Offer, standing: Standing, weight: int
) -> Candidate:
    return Candidate(
        provider=provider,
        standing=standing,
        weight=str(weight),
        input_price=offer.input_price,
        output_price=offer.output_price,
        capacity=offer.capacity,
        open_jobs=offer.open_jobs,
        completed=offer.completed,
        failed=offer.failed,
        operator=offer.operator,
        engine_profile=offer.engine_profile,
        stake=scope.stake_of(provider),
        price_needed=str(_price_needed(scope, job, offer)),
    )
