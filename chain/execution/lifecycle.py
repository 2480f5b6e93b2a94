"""What time and beacons do to open jobs: assignment, missed deadlines, the draw of committees.

This runs at the start of a block, before its transactions: a step sees the state its beacon was
not yet known to. Every open status has a deadline, and every deadline leads on, so no escrow
stays stuck.
"""

from collections.abc import Sequence
from functools import lru_cache

from chain.execution.choices import assignment_seed, note_choice
from chain.execution.market import (
    eligible_verifiers,
    price_needed,
    seats_to_draw,
    takers,
)
from chain.execution.ruling import count_round, start_reveals
from chain.execution.scope import Scope, Taker
from chain.execution.settlement import refund
from chain.execution.standing import after_failure
from chain.records import CommitteeSeat, Job, JobStatus, Offer
from consensus.committees import committee_seed, draw
from ext.hashing import tagged_hash

FACTOR_SCALE = 1_000
"""Price counts as whole thousandths, at least one."""
MOVED_BY_BLOCKS = (JobStatus.REQUESTED, JobStatus.ANSWERED)
"""What waits for a beacon, and not for somebody's word."""
SEATS_KEPT = 4_096
"""Empty seats that are kept: every draw among the same verifiers has the same."""


def advance(scope: Scope, job_id: bytes) -> None:
    """Take an open job as far as this block's time and beacon allow."""
    job = scope.job(job_id)
    late = scope.timestamp_ms > job.deadline_ms
    if job.status is JobStatus.REQUESTED:
        if not assign(scope, job_id, job) and late:
            note_choice(scope, job_id, job, (), (), None)
            refund(scope, job_id, job)
    elif job.status is JobStatus.ASSIGNED:
        if late:
            miss(scope, job_id, job)
    elif job.status is JobStatus.ANSWERED:
        if scope.height >= job.draw_height:
            draw_committee(scope, job_id, job, late)
    elif job.status is JobStatus.COMMITTING and late:
        if any(seat.commitment for seat in job.committee if seat.round == job.round):
            start_reveals(scope, job_id, job)
        else:
            count_round(scope, job_id, job)
    elif job.status is JobStatus.REVEALING and late:
        count_round(scope, job_id, job)


def available_offers(scope: Scope, job: Job) -> list[tuple[Taker, Offer]]:
    """Who could take the job now: free, affordable, not tried before, and with verifiers enough to
    judge what it answers."""
    offers, tried, escrow = scope.state.offers, job.tried, job.escrow
    input_tokens, output_tokens = job.input_tokens_max, job.max_output_tokens
    seat_price = scope.parameters.seat_price(input_tokens, output_tokens)
    found = []
    for taker in takers(scope, job.model, job.pinned_provider, job.tier):
        offer = offers.get(taker.offer_key)
        if (
            offer is not None
            and offer.open_jobs < offer.capacity
            and price_needed(
                offer.input_price,
                offer.output_price,
                taker.seats,
                input_tokens,
                output_tokens,
                seat_price,
            )
            <= escrow
            and taker.provider not in tried
        ):
            found.append((taker, offer))
    return found


def assignment_weights(scope: Scope, offers: Sequence[tuple[Taker, Offer]]) -> list[int]:
    """Weights: capped stake x free capacity x price x record, in integers.

    The price factor is the cheapest offer's price over this one's; the record is the standing.
    """
    if not offers:
        return []
    cheapest = min([offer.input_price + offer.output_price for _, offer in offers])
    stake_max = scope.parameters.stake_weight_cap
    weights = []
    for taker, offer in offers:
        input_price, output_price, capacity, _, _, open_jobs, _, _, _, standing = offer
        price, stake = input_price + output_price, taker.stake
        price_factor = FACTOR_SCALE * (cheapest + 1) // (price + 1) or 1
        # One more, so that a chain without required stake can assign, too.
        capped = (stake if stake < stake_max else stake_max) + 1
        weights.append(capped * (capacity - open_jobs) * price_factor * standing)
    return weights


def assign(scope: Scope, job_id: bytes, job: Job) -> bool:
    """Draw a provider by this block's beacon; False if nobody could take the job."""
    offers = available_offers(scope, job)
    weights = assignment_weights(scope, offers)
    drawn = draw(assignment_seed(scope.beacon, job_id, job.attempts), weights, 1)
    if not drawn:
        return False
    taker, offer = offers[drawn[0]]
    provider = taker.provider
    note_choice(scope, job_id, job, offers, weights, provider)
    scope.put_offer(job.model, provider, offer._replace(open_jobs=offer.open_jobs + 1))
    assigned = job._replace(
        status=JobStatus.ASSIGNED,
        attempts=job.attempts + 1,
        provider=provider,
        operator=offer.operator,
        engine_profile=offer.engine_profile,
        input_price=offer.input_price,
        output_price=offer.output_price,
        seed=job.seed or tagged_hash(b"seed", scope.beacon, job_id),
        deadline_ms=scope.timestamp_ms + job.answer_within_ms,
    )
    scope.put_job(job_id, assigned, before=job.status)
    return True


def miss(scope: Scope, job_id: bytes, job: Job) -> None:
    """The provider did not answer: mark its record; another one is drawn in the next block."""
    if job.provider is None:
        raise RuntimeError(f"job {job_id.hex()} is assigned to nobody")
    offer = scope.offer(job.model, job.provider)
    missed = after_failure(offer._replace(open_jobs=offer.open_jobs - 1))
    scope.put_offer(job.model, job.provider, missed)
    waiting = job._replace(
        status=JobStatus.REQUESTED,
        provider=None,
        operator=0,
        engine_profile="",
        input_price=0,
        output_price=0,
        tried=(*job.tried, job.provider),
        deadline_ms=scope.timestamp_ms + scope.parameters.assign_within_ms,
    )
    if job.attempts >= scope.parameters.attempts_max or pinned_is_gone(waiting):
        refund(scope, job_id, waiting._replace(status=job.status))
    else:
        scope.put_job(job_id, waiting, before=job.status)


def pinned_is_gone(job: Job) -> bool:
    """Whether the only provider allowed has missed its chance."""
    return job.pinned_provider is not None and job.pinned_provider in job.tried


def draw_committee(scope: Scope, job_id: bytes, job: Job, late: bool) -> None:
    """Seat the current round's verifiers by this block's beacon, weighted by stake.

    The first round waits until enough verifiers serve the model, then refunds. A later round that
    finds nobody new is counted as it stands.
    """
    eligible = eligible_verifiers(scope, job, scope.height)
    if job.round == 0 and len(eligible) < scope.model(job.model).quorum:
        if late:
            refund(scope, job_id, job)
        return
    members, indices = scope.validators.by_index, list(eligible)
    seed = committee_seed(scope.beacon, job_id, job.round)
    stakes = [members[index].stake for index in indices]
    drawn = draw(seed, stakes, seats_to_draw(scope, job))
    if not drawn:
        count_round(scope, job_id, job)
        return
    seats = tuple(
        [_new_seat(indices[place], eligible[indices[place]], job.round) for place in drawn]
    )
    committing = job._replace(
        status=JobStatus.COMMITTING,
        audit_beacon=scope.beacon,
        committee=job.committee + seats,
        deadline_ms=scope.timestamp_ms + scope.parameters.commit_within_ms,
    )
    scope.put_job(job_id, committing, before=job.status)


@lru_cache(maxsize=SEATS_KEPT)
def _new_seat(validator: int, engine_profile: str, round_number: int) -> CommitteeSeat:
    """Of one who has said nothing yet."""
    return CommitteeSeat(validator, engine_profile, round_number, None, None, None, None, None)


def wants_block(scope: Scope, job: Job) -> bool:
    """Whether the next block, whatever its time, moves this job on; only in MOVED_BY_BLOCKS."""
    if job.status is JobStatus.REQUESTED:
        return bool(available_offers(scope, job))
    if job.status is not JobStatus.ANSWERED:
        return False
    if job.round > 0 or scope.height + 1 < job.draw_height:
        return True
    soon = scope.height + 1 + scope.parameters.audit_delay_blocks
    return len(eligible_verifiers(scope, job, soon)) >= scope.model(job.model).quorum
