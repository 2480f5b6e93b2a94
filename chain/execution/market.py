"""Models, offers and verifiers: what can be asked for, at what price, and who checks it."""

from collections.abc import Iterator, Mapping, Sequence

from assay.v1 import transactions_pb2 as pb
from chain.events import EventKind
from chain.execution import faults, suspicion
from chain.execution.scope import Scope, Taker
from chain.execution.standing import NEW
from chain.execution.transfers import stake_needed
from chain.pairs import ARBITER_PROFILE, checked_pairs, pair_for, thresholds_for, verifier_profiles
from chain.records import (
    COMMITTEE_MAX,
    NAME_BYTES_MAX,
    PROFILE_BYTES_MAX,
    Job,
    Model,
    Offer,
    Tier,
    Verifier,
)
from chain.rejections import Rejection, RejectionReason
from chain.state import ACCOUNT_BYTES, ID_BYTES, INDEX_BYTES
from chain.units import PARAMETERS_MAX

CONTEXT_TOKENS_MAX = 1 << 24
CAPACITY_MAX = 1 << 16
OFFERS_MAX = 64
"""Of one provider, withdrawn ones included: each is looked at whenever its stake is."""
DRAWN_STAKE_DIVISOR = 2
"""Of `verifier_stake_min`: who loses a little is not out before it can stake anew."""


def register_model(scope: Scope, sender: bytes, message: pb.RegisterModel) -> None:
    """Register a package under its digest; the sender becomes its owner, and pays its price."""
    if len(message.model) != ID_BYTES:
        raise _bad_model(f"the id has {len(message.model)} bytes, a digest has {ID_BYTES}")
    if scope.state.models.get(message.model) is not None:
        raise Rejection(
            RejectionReason.MODEL_EXISTS, f"model {message.model.hex()} is registered already"
        )
    if not 1 <= len(message.name.encode()) <= NAME_BYTES_MAX or _has_control(message.name):
        raise _bad_model(f"the name must be 1 to {NAME_BYTES_MAX} bytes without control characters")
    if not 2 <= message.context_tokens <= CONTEXT_TOKENS_MAX:
        raise _bad_model(f"context_tokens is {message.context_tokens}, 2 to {CONTEXT_TOKENS_MAX}")
    if message.royalty_bps > scope.parameters.royalty_bps_max:
        raise _bad_model(
            f"royalty_bps is {message.royalty_bps}, at most {scope.parameters.royalty_bps_max}"
        )
    if not 1 <= message.parameters <= PARAMETERS_MAX:
        raise _bad_model(
            f"parameters is {message.parameters}, 1 to {PARAMETERS_MAX}: take the manifest's"
        )
    quorum = message.quorum or scope.parameters.reveal_quorum
    if not scope.parameters.reveal_quorum <= quorum <= scope.parameters.committee_size:
        raise _bad_model(
            f"quorum is {quorum}, allowed are {scope.parameters.reveal_quorum} to the committee's "
            f"{scope.parameters.committee_size}, or 0"
        )
    model = Model(
        owner=sender,
        name=message.name,
        context_tokens=message.context_tokens,
        royalty_bps=message.royalty_bps,
        pairs=checked_pairs(message.pairs),
        quorum=quorum,
        parameters=message.parameters,
    )
    scope.debit(sender, scope.parameters.model_price)
    scope.burn(scope.parameters.model_price)
    scope.state.put(scope.state.models, message.model, model)
    scope.emit(EventKind.MODEL_REGISTERED, message.model, other=sender)


def set_offer(scope: Scope, sender: bytes, message: pb.SetOffer) -> None:
    """Open, change or (capacity 0) withdraw the sender's offer for a model.

    A withdrawn offer keeps its row: a bad record is not washed off by withdrawing. Assigned jobs
    keep the prices, the operator and the engine profile they were assigned with.
    """
    scope.model(message.model)
    if message.capacity > CAPACITY_MAX:
        raise Rejection(
            RejectionReason.BAD_OFFER,
            f"capacity is {message.capacity}, at most {CAPACITY_MAX} jobs at once",
        )
    if message.capacity and message.operator not in scope.validators.by_index:
        raise Rejection(
            RejectionReason.UNKNOWN_OPERATOR,
            f"operator {message.operator} is no validator of epoch {scope.epoch}: list the "
            "validators to see who is",
        )
    if message.capacity > 0:
        faults.check_in_office(scope, message.operator)
        suspicion.check_not_ejected(scope, message.model, sender)
    before = scope.state.offers.get(message.model + sender)
    if before is None and message.capacity == 0:
        raise Rejection(RejectionReason.BAD_OFFER, "there is no offer of yours to withdraw")
    if before is None and sum(1 for _ in scope.state.offers.ending(sender)) >= OFFERS_MAX:
        raise Rejection(
            RejectionReason.BAD_OFFER,
            f"you have offers for {OFFERS_MAX} models, withdrawn ones included, and no account may "
            "have more; use another account",
        )
    if before is None or message.capacity > 0:
        profile = message.engine_profile
        _check_verifiable(scope, message.model, sender, message.operator, profile)
    else:
        profile = before.engine_profile
    offer = Offer(
        input_price=message.input_price,
        output_price=message.output_price,
        capacity=message.capacity,
        operator=message.operator,
        engine_profile=profile,
        open_jobs=before.open_jobs if before else 0,
        completed=before.completed if before else 0,
        failed=before.failed if before else 0,
        traps=before.traps if before else 0,
        standing=before.standing if before else NEW,
    )
    scope.put_new_offer(message.model, sender, offer)
    if message.capacity > 0:
        _check_stake(scope, sender, "your open offers need")
    scope.emit(EventKind.OFFER_SET, message.model, other=sender, amount=message.capacity)


def set_verifier(scope: Scope, sender: bytes, message: pb.SetVerifier) -> None:
    """Record that the sending validator's runtime serves a model, or no longer does.

    Who says another profile than before joins the candidates anew: nobody may choose the jobs it
    can be drawn for knowing the beacon.
    """
    model = scope.model(message.model)
    index = scope.validator_of(sender)
    if index is None:
        raise Rejection(
            RejectionReason.NOT_A_VALIDATOR,
            "only a validator's account may say that it verifies a model",
        )
    if message.serving:
        faults.check_in_office(scope, index)
    key = message.model + index.to_bytes(INDEX_BYTES, "big")
    before = scope.state.verifiers.get(key)
    announced = None if before is None else before.engine_profile
    if announced == (message.engine_profile if message.serving else None):
        return
    if message.serving and message.engine_profile not in verifier_profiles(model):
        raise _no_pair(
            f"this model can be verified with {_listed(verifier_profiles(model))}, your runtime "
            f"has {_shown(message.engine_profile)}"
        )
    record = Verifier(scope.height, message.engine_profile) if message.serving else None
    scope.put_verifier(key, record)
    if message.serving:
        _check_stake(scope, sender, "what you verify and offer needs")
    scope.emit(EventKind.VERIFIER_SET, message.model, other=sender, code=int(message.serving))


def live_offers(scope: Scope, model: bytes, pinned: bytes | None) -> Iterator[tuple[bytes, Offer]]:
    """(provider, offer) of open offers with enough stake, in order of provider."""
    # A slashed provider is out until it has staked again.
    stake_min = scope.parameters.stake_min_per_offer
    offers = scope.state.offers
    if pinned is not None:
        offer = offers.get(model + pinned)
        if offer is not None and offer.capacity and scope.stake_of(pinned) >= stake_min:
            yield pinned, offer
        return
    for key, offer in offers.scan(model):
        provider = key[ID_BYTES:]
        if offer.capacity and scope.stake_of(provider) >= stake_min:
            yield provider, offer


def takers(scope: Scope, model: bytes, pinned: bytes | None, tier: Tier) -> tuple[Taker, ...]:
    """Those of open offers whose results can be judged, in order of provider."""
    found = scope.notes.takers.get((model, pinned, tier))
    if found is None:
        found = scope.notes.takers[model, pinned, tier] = tuple(
            Taker(
                provider,
                model + provider,
                scope.stake_of(provider),
                seats_to_pay(scope, offer, model, tier),
            )
            for provider, offer in live_offers(scope, model, pinned)
            if can_be_judged(scope, model, provider, offer)
        )
    return found


def price_needed(
    input_price: int,
    output_price: int,
    seats: int,
    input_tokens: int,
    output_tokens: int,
    seat_price: int,
) -> int:
    """What an escrow must reach for an offer at these prices: the longest prompt and output, and
    verification (docs/decisions/0037)."""
    return input_price * input_tokens + output_price * output_tokens + seats * seat_price


def price_floors(
    scope: Scope, model: bytes, pinned: bytes | None, tier: Tier
) -> tuple[tuple[int, int, int], ...]:
    """(price of an input token, of an output token, seats to pay) of open offers, each once."""
    found = scope.notes.floors.get((model, pinned, tier))
    if found is None:
        floors = {
            (offer.input_price, offer.output_price, seats_to_pay(scope, offer, model, tier))
            for _, offer in live_offers(scope, model, pinned)
        }
        found = scope.notes.floors[model, pinned, tier] = tuple(sorted(floors))
    return found


def seats_to_pay(scope: Scope, offer: Offer, model: bytes, tier: Tier) -> int:
    """How many seats of its first round a job by the offer may have to pay."""
    seats = scope.parameters.committee_size
    if tier is Tier.CRITICAL:
        able = able_verifiers(scope, model, offer.engine_profile)
        seats = max(seats, min(able, COMMITTEE_MAX))
    return seats


def able_verifiers(scope: Scope, model: bytes, profile: str) -> int:
    """How many validators say that they serve the model, and can judge results of the profile."""
    able = scope.notes.verifiers.get((model, profile))
    if able is None:
        registered = scope.model(model)
        able = scope.notes.verifiers[model, profile] = sum(
            thresholds_for(registered, profile, verifier.engine_profile) is not None
            for _, verifier in scope.state.verifiers.scan(model)
        )
    return able


def eligible_verifiers(scope: Scope, job: Job, height: int) -> Mapping[int, str]:
    """Validators that a draw at `height` may still put on the job's committee, and the profiles
    they verify with; rising.

    They said that they serve the model `audit_delay_blocks` before the draw, so nobody joins or
    leaves the candidates knowing the beacon. The provider and its operator never audit
    themselves. The model must have the pair of the provider's profile and the verifier's.
    """
    key = (job.model, job.provider, job.operator, job.engine_profile, height)
    able = scope.notes.auditors.get(key)
    if able is None:
        model = scope.model(job.model)
        able = scope.notes.auditors[key] = {
            index: verifier.engine_profile
            for index, verifier in _auditors(scope, job.model, job.provider, job.operator)
            if verifier.since_height + scope.parameters.audit_delay_blocks <= height
            and thresholds_for(model, job.engine_profile, verifier.engine_profile) is not None
        }
    if not job.committee:
        return able
    seated = {seat.validator for seat in job.committee}
    return {index: profile for index, profile in able.items() if index not in seated}


def arbiters(scope: Scope, job: Job) -> tuple[int, ...]:
    """Validators that serve the job's model with the exact engine, and may judge the job; of most
    stake first. Whoever judged it before is among them."""
    model = scope.model(job.model)
    if pair_for(model, job.engine_profile, ARBITER_PROFILE) is None:
        return ()
    members = scope.validators.by_index
    found = [
        index
        for index, verifier in _auditors(scope, job.model, job.provider, job.operator)
        if verifier.engine_profile == ARBITER_PROFILE
    ]
    return tuple(sorted(found, key=lambda index: (-members[index].stake, index)))


def can_be_judged(scope: Scope, model: bytes, provider: bytes, offer: Offer) -> bool:
    """Whether as many verifiers as a ruling needs have a pair for the offer's results.

    Without this, an offer that too few can judge draws jobs that all end in a refund.
    """
    registered = scope.model(model)
    able = sum(
        thresholds_for(registered, offer.engine_profile, verifier.engine_profile) is not None
        for _, verifier in _auditors(scope, model, provider, offer.operator)
    )
    return able >= registered.quorum


def _auditors(
    scope: Scope, model: bytes, provider: bytes | None, operator: int
) -> Iterator[tuple[int, Verifier]]:
    """(validator, its announcement) of all that are neither the provider nor its operator, have
    something to lose, and keep their seat in the next epoch: who loses it could not reveal."""
    staying = scope.sets.get(scope.epoch + 1, scope.validators).by_index
    stake_min = scope.parameters.verifier_stake_min // DRAWN_STAKE_DIVISOR
    for key, verifier in scope.state.verifiers.scan(model):
        index = int.from_bytes(key[ID_BYTES:], "big")
        member = scope.validators.by_index.get(index)
        if member is None or index not in staying:
            continue
        account = member.account
        if index != operator and account != provider and scope.stake_of(account) >= stake_min:
            yield index, verifier


def _check_stake(scope: Scope, sender: bytes, what: str) -> None:
    needed, stake = stake_needed(scope, sender), scope.stake_of(sender)
    if stake < needed:
        raise Rejection(
            RejectionReason.INSUFFICIENT_STAKE,
            f"{what} a stake of {needed} grain, you have {stake}: stake more first",
        )


def _check_verifiable(
    scope: Scope, identity: bytes, provider: bytes, operator: int, profile: str
) -> None:
    """Refuse a profile whose results nobody can judge.

    While nobody else has announced anything, the model's pairs alone decide: a market has to begin
    with somebody's offer.
    """
    able = verifier_profiles(scope.model(identity), profile)
    auditors = _auditors(scope, identity, provider, operator)
    announced = sorted({verifier.engine_profile for _, verifier in auditors})
    if not able or (announced and not set(able).intersection(announced)):
        raise _no_pair(
            f"profiles of verifiers are {_listed(announced)}; results of {_shown(profile)} can be "
            f"verified with {_listed(able)}: offer another profile, or find such a verifier"
        )


def seats_to_draw(scope: Scope, job: Job) -> int:
    """How many seats the job's current round adds to its committee; may be none."""
    room = COMMITTEE_MAX - len(job.committee)
    if job.escalated:
        return max(0, min(room, scope.parameters.escalated_committee_size - len(job.committee)))
    if job.tier is Tier.CRITICAL:
        return room
    return min(room, scope.parameters.committee_size)


def check_provider_key(provider: bytes) -> bytes | None:
    """A pinned provider, or None for the empty field. Raises Rejection for another length."""
    if provider and len(provider) != ACCOUNT_BYTES:
        raise Rejection(
            RejectionReason.BAD_ADDRESS,
            f"the provider has {len(provider)} bytes, an account has {ACCOUNT_BYTES}",
        )
    return provider or None


def _has_control(text: str) -> bool:
    # Not str.isprintable: its answer changes with the Unicode tables of each Python version.
    return any(ord(character) < 0x20 or ord(character) == 0x7F for character in text)


def _listed(profiles: Sequence[str]) -> str:
    return ", ".join(profiles) or "none"


def _shown(profile: str) -> str:
    return repr(profile[:PROFILE_BYTES_MAX])


def _no_pair(detail: str) -> Rejection:
    return Rejection(RejectionReason.NO_CALIBRATED_PAIR, f"no calibrated pair: {detail}")


def _bad_model(detail: str) -> Rejection:
    return Rejection(RejectionReason.BAD_MODEL, detail)
