"""Models, offers and verifiers: what can be asked for, at what price, and who checks it."""

from collections.abc import Iterator

from assay.v1 import transactions_pb2 as pb
from chain.events import EventKind
from chain.execution.scope import Scope
from chain.execution.transfers import stake_needed
from chain.records import (
    COMMITTEE_MAX,
    NAME_BYTES_MAX,
    PROFILE_BYTES_MAX,
    Job,
    Model,
    Offer,
    Thresholds,
    Tier,
    Verifier,
)
from chain.rejections import Rejection, RejectionReason
from chain.state import ACCOUNT_BYTES, ID_BYTES

CONTEXT_TOKENS_MAX = 1 << 24
CAPACITY_MAX = 1 << 16
INDEX_BYTES = 2


def register_model(scope: Scope, sender: bytes, message: pb.RegisterModel) -> None:
    """Register a package under its digest; the sender becomes its owner."""
    if len(message.model) != ID_BYTES:
        raise _bad_model(f"the id has {len(message.model)} bytes, a digest has {ID_BYTES}")
    if scope.state.models.get(message.model) is not None:
        raise Rejection(
            RejectionReason.MODEL_EXISTS, f"model {message.model.hex()} is registered already"
        )
    if not 1 <= len(message.name.encode()) <= NAME_BYTES_MAX or _has_control(message.name):
        raise _bad_model(f"the name must be 1 to {NAME_BYTES_MAX} bytes without control characters")
    profile_bytes = len(message.engine_profile.encode())
    if not 1 <= profile_bytes <= PROFILE_BYTES_MAX:
        raise _bad_model(
            f"engine_profile has {profile_bytes} bytes, needs 1 to {PROFILE_BYTES_MAX}"
        )
    if not 2 <= message.context_tokens <= CONTEXT_TOKENS_MAX:
        raise _bad_model(f"context_tokens is {message.context_tokens}, 2 to {CONTEXT_TOKENS_MAX}")
    if message.royalty_bps > scope.parameters.royalty_bps_max:
        raise _bad_model(
            f"royalty_bps is {message.royalty_bps}, at most {scope.parameters.royalty_bps_max}"
        )
    if not message.HasField("thresholds"):
        raise _bad_model("thresholds are missing: calibrate the model first")
    given = message.thresholds
    thresholds = Thresholds(
        replay_mismatches_max=given.replay_mismatches_max,
        margin_max=given.margin_max,
        distance_max=given.distance_max,
        distance_mean_max=given.distance_mean_max,
        outside_candidates_max=given.outside_candidates_max,
        fingerprint_tolerance=given.fingerprint_tolerance,
    )
    model = Model(
        owner=sender,
        name=message.name,
        engine_profile=message.engine_profile,
        context_tokens=message.context_tokens,
        royalty_bps=message.royalty_bps,
        thresholds=thresholds,
    )
    scope.state.put(scope.state.models, message.model, model)
    scope.emit(EventKind.MODEL_REGISTERED, message.model, other=sender)


def set_offer(scope: Scope, sender: bytes, message: pb.SetOffer) -> None:
    """Open, change or (capacity 0) withdraw the sender's offer for a model.

    A withdrawn offer keeps its row: a bad record is not washed off by withdrawing. Assigned jobs
    keep the prices and the operator they were assigned with.
    """
    scope.model(message.model)
    if message.capacity > CAPACITY_MAX:
        raise Rejection(
            RejectionReason.BAD_OFFER,
            f"capacity is {message.capacity}, at most {CAPACITY_MAX} jobs at once",
        )
    if message.operator >= len(scope.validators.members):
        raise Rejection(
            RejectionReason.UNKNOWN_OPERATOR,
            f"operator {message.operator} is no validator: "
            f"there are {len(scope.validators.members)}, counted from 0",
        )
    before = scope.state.offers.get(message.model + sender)
    if before is None and message.capacity == 0:
        raise Rejection(RejectionReason.BAD_OFFER, "there is no offer of yours to withdraw")
    offer = Offer(
        input_price=message.input_price,
        output_price=message.output_price,
        capacity=message.capacity,
        operator=message.operator,
        open_jobs=before.open_jobs if before else 0,
        completed=before.completed if before else 0,
        failed=before.failed if before else 0,
    )
    scope.put_offer(message.model, sender, offer)
    needed = stake_needed(scope, sender)
    if message.capacity > 0 and scope.account(sender).stake < needed:
        raise Rejection(
            RejectionReason.INSUFFICIENT_STAKE,
            f"your open offers need a stake of {needed} grain, "
            f"you have {scope.account(sender).stake}: stake more first",
        )
    scope.emit(EventKind.OFFER_SET, message.model, other=sender, amount=message.capacity)


def set_verifier(scope: Scope, sender: bytes, message: pb.SetVerifier) -> None:
    """Record that the sending validator's runtime serves a model, or no longer does."""
    scope.model(message.model)
    index = scope.validators.by_account.get(sender)
    if index is None:
        raise Rejection(
            RejectionReason.NOT_A_VALIDATOR,
            "only a validator's account may say that it verifies a model",
        )
    key = message.model + index.to_bytes(INDEX_BYTES, "big")
    present = scope.state.verifiers.get(key) is not None
    if present == message.serving:
        return
    record = Verifier(since_height=scope.height) if message.serving else None
    scope.state.put(scope.state.verifiers, key, record)
    scope.emit(EventKind.VERIFIER_SET, message.model, other=sender, code=int(message.serving))


def live_offers(scope: Scope, model: bytes, pinned: bytes | None) -> Iterator[tuple[bytes, Offer]]:
    """(provider, offer) of open offers with enough stake, in order of provider."""
    for key, offer in scope.state.offers.scan(model):
        provider = key[ID_BYTES:]
        if pinned is not None and provider != pinned:
            continue
        # A slashed provider is out until it has staked again.
        if offer.capacity and scope.account(provider).stake >= scope.parameters.stake_min_per_offer:
            yield provider, offer


def price_floor(scope: Scope, offer: Offer, model: bytes, tier: Tier, output_tokens: int) -> int:
    """What a job may cost before its input is counted: the whole output, and its verification."""
    seats = scope.parameters.committee_size
    if tier is Tier.CRITICAL:
        registered = sum(1 for _ in scope.state.verifiers.scan(model))
        seats = max(seats, min(registered, COMMITTEE_MAX))
    return offer.output_price * output_tokens + scope.parameters.verification_price * seats


def eligible_verifiers(scope: Scope, job: Job, height: int) -> tuple[int, ...]:
    """Validators that a draw at `height` may still put on the job's committee, rising.

    They said that they serve the model `audit_delay_blocks` before the draw, so nobody joins or
    leaves the candidates knowing the beacon. The provider and its operator never audit
    themselves.
    """
    seated = {seat.validator for seat in job.committee}
    found = []
    for key, verifier in scope.state.verifiers.scan(job.model):
        index = int.from_bytes(key[ID_BYTES:], "big")
        if verifier.since_height + scope.parameters.audit_delay_blocks > height:
            continue
        if index in seated or index == job.operator:
            continue
        if scope.validators.members[index].account == job.provider:
            continue
        found.append(index)
    return tuple(found)


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


def _bad_model(detail: str) -> Rejection:
    return Rejection(RejectionReason.BAD_MODEL, detail)
