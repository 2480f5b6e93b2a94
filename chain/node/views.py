"""Ledger records as the public API shows them."""

from collections.abc import Mapping

from assay.v1 import inference_pb2, node_pb2
from assay.v1.transactions_pb2 import OperationKind
from chain.execution.choices import Choice, choice_key
from chain.node.provider import stored_result
from chain.pairs import pair_message
from chain.records import (
    JOB_LEAF,
    TRANSACTION_LEAF,
    Account,
    Appeal,
    CommitteeSeat,
    Job,
    JobReceipt,
    Model,
    Offer,
    Session,
    TransactionReceipt,
    Verifier,
)
from chain.runtime_member import RuntimeState
from chain.standings import ValidatorStanding
from chain.store import Store
from chain.track_records import ProviderRecord, Records, Ruled, ValidatorRecord
from consensus.bets import LIMIT_LOG
from consensus.wire import decode


def account_view(key: bytes, account: Account) -> node_pb2.AccountView:
    """An account."""
    return node_pb2.AccountView(
        account=key,
        balance=account.balance,
        stake=account.stake,
        unbonding=account.unbonding,
        unbonding_until_ms=account.unbonding_until_ms,
    )


def session_view(key: bytes, session: Session) -> node_pb2.SessionView:
    """A session key of an account."""
    return node_pb2.SessionView(
        key=key,
        operation_cap=session.operation_cap,
        total_cap=session.total_cap,
        spent=session.spent,
        expires_at_height=session.expires_at_height,
        kinds=[OperationKind.ValueType(kind) for kind in session.kinds],
        models=session.models,
        recipients=session.recipients,
    )


def model_view(
    identity: bytes, model: Model, verifiers: Mapping[int, Verifier]
) -> node_pb2.ModelView:
    """A registered model and who audits it."""
    return node_pb2.ModelView(
        model=identity,
        owner=model.owner,
        name=model.name,
        context_tokens=model.context_tokens,
        royalty_bps=model.royalty_bps,
        pairs=[pair_message(pair) for pair in model.pairs],
        verifiers=[
            node_pb2.VerifierView(
                validator=index,
                engine_profile=verifier.engine_profile,
                abstained=verifier.abstained,
            )
            for index, verifier in verifiers.items()
        ],
        quorum=model.quorum,
        parameters=model.parameters,
    )


def offer_view(model: bytes, provider: bytes, offer: Offer) -> node_pb2.OfferView:
    """An offer."""
    return node_pb2.OfferView(
        model=model,
        provider=provider,
        input_price=offer.input_price,
        output_price=offer.output_price,
        capacity=offer.capacity,
        operator=offer.operator,
        open_jobs=offer.open_jobs,
        completed=offer.completed,
        failed=offer.failed,
        engine_profile=offer.engine_profile,
    )


def job_view(identity: bytes, job: Job, store: Store) -> node_pb2.JobView:
    """A job, with its result once there is one."""
    return node_pb2.JobView(
        job=identity,
        status=job.status.name,
        requester=job.requester,
        model=job.model,
        provider=job.provider or b"",
        operator=job.operator,
        attempts=job.attempts,
        max_price=job.max_price,
        escrow=job.escrow,
        requested_height=job.requested_height,
        deadline_ms=job.deadline_ms,
        seed=job.seed or b"",
        input_tokens=job.input_tokens,
        output_tokens=job.output_tokens,
        committee=[_seat_view(seat) for seat in job.committee],
        result=stored_result(job, store),
        requested_ms=job.requested_ms,
        answered_height=job.answered_height,
        engine_profile=job.engine_profile,
        appealed=job.appealed,
    )


def settled_job_view(identity: bytes, store: Store) -> node_pb2.JobView | None:
    """A job whose row has left the state, as its receipt tells it; None if there is none.

    Raises Rejection (PRUNED) if its block is forgotten at this very moment.
    """
    location = store.job_location(identity)
    if location is None:
        return None
    leaf = store.receipt_leaf(location)
    receipt = decode(JobReceipt, leaf[len(JOB_LEAF) :])
    digest = receipt.result_digest
    payload = None if digest is None else store.payload(digest)
    return node_pb2.JobView(
        job=identity,
        status=receipt.status.name,
        requester=receipt.requester,
        model=receipt.model,
        provider=receipt.provider or b"",
        seed=receipt.seed or b"",
        input_tokens=receipt.input_tokens,
        output_tokens=receipt.output_tokens,
        result=None if payload is None else inference_pb2.InferenceResult.FromString(payload),
    )


def explanation(
    identity: bytes, now: Choice | None, attempts_max: int, store: Store
) -> node_pb2.Explanation:
    """Why each attempt of a job went to its provider, as far as it is kept here. A job has one draw
    for each attempt, and one more that ended it if nobody could be drawn."""
    view = node_pb2.Explanation(job=identity)
    for attempt in range(1, attempts_max + 1):
        kept = store.payload(choice_key(identity, attempt))
        if kept is not None:
            view.choices.append(_choice_view(decode(Choice, kept)))
    if now is not None:
        view.now.CopyFrom(_choice_view(now))
    return view


def _choice_view(choice: Choice) -> node_pb2.Explanation.Choice:
    return node_pb2.Explanation.Choice(
        attempt=choice.attempt,
        height=choice.height,
        beacon=choice.beacon,
        escrow=choice.escrow,
        max_output_tokens=choice.max_output_tokens,
        stake_min=choice.stake_min,
        provider=choice.provider or b"",
        complete=choice.complete,
        candidates=[
            node_pb2.Explanation.Candidate(
                provider=item.provider,
                standing=item.standing.name,
                weight=item.weight,
                input_price=item.input_price,
                output_price=item.output_price,
                capacity=item.capacity,
                open_jobs=item.open_jobs,
                completed=item.completed,
                failed=item.failed,
                operator=item.operator,
                engine_profile=item.engine_profile,
                stake=item.stake,
                price_needed=item.price_needed,
            )
            for item in choice.candidates
        ],
    )


def _seat_view(seat: CommitteeSeat) -> node_pb2.SeatView:
    scores = seat.scores
    return node_pb2.SeatView(
        validator=seat.validator,
        round=seat.round,
        committed=seat.commitment is not None,
        verdict="" if seat.verdict is None else seat.verdict.name,
        voided="" if seat.voided is None else seat.voided.name,
        engine_profile=seat.engine_profile,
        scores=None
        if scores is None
        else inference_pb2.Scores(
            positions=scores.positions,
            replay_mismatches=scores.replay_mismatches,
            margin_max=scores.margin_max,
            margin_sum=scores.margin_sum,
            distance_max=scores.distance_max,
            distance_sum=scores.distance_sum,
            outside_candidates=scores.outside_candidates,
            doubt_sum=scores.doubt_sum,
            input_tokens=scores.input_tokens,
            finish_plausible=scores.finish_plausible,
            text_matches=scores.text_matches,
            opening_margin_sum=scores.opening_margin_sum,
            opening_distance_sum=scores.opening_distance_sum,
            opening_doubt_sum=scores.opening_doubt_sum,
        ),
    )


def block_view(store: Store, height: int) -> node_pb2.BlockView | None:
    """An executed block, or None. Raises Rejection (PRUNED) for one that is forgotten."""
    stored = store.block_by_height(height)
    if stored is None:
        store.check_kept(height)
        return None
    certified = store.certificate_at(height)
    block = stored.block
    view = node_pb2.BlockView(
        height=block.height,
        view=block.view,
        digest=block.digest(),
        parent=block.parent,
        proposer=block.proposer,
        timestamp_ms=block.timestamp_ms,
        execution_root=stored.execution_root,
        state_root=stored.link.state_root,
        receipts_root=stored.link.receipts_root,
        events_root=stored.link.events_root,
        transactions=store.receipts_at(height).starting_with(TRANSACTION_LEAF),
        signers=0 if certified is None else len(certified[1].signers),
    )
    store.check_kept(height)  # last, so that what was forgotten meanwhile is not taken for nothing
    return view


def runtime_view(state: RuntimeState) -> node_pb2.RuntimeView:
    """One of this node's runtimes."""
    return node_pb2.RuntimeView(
        address=state.address,
        healthy=state.healthy,
        detail=state.detail,
        in_flight=state.in_flight,
        queued=state.queued,
        running=state.running,
        models=state.models,
    )


def transaction_receipt(store: Store, identity: bytes) -> tuple[int, TransactionReceipt] | None:
    """Height and receipt of an executed transaction.

    Raises Rejection (PRUNED) if its block is forgotten at this very moment.
    """
    location = store.transaction_location(identity)
    if location is None:
        return None
    return location.height, decode(TransactionReceipt, store.receipt_leaf(location)[1:])


def validator_view(entry: ValidatorStanding) -> node_pb2.ValidatorView:
    """A registered validator."""
    record, conviction = entry.registered, entry.conviction
    return node_pb2.ValidatorView(
        index=entry.index,
        signing_key=record.signing_key,
        vrf_key=record.vrf_key,
        account=record.account,
        stake=entry.weight,
        address=record.address,
        fault="" if conviction is None else conviction.fault.name,
        convicted_height=0 if conviction is None else conviction.height,
        status=entry.standing.value,
        bonded=entry.bonded,
        unbonding=entry.unbonding,
        from_epoch=entry.from_epoch,
        jailed_until_epoch=record.jailed_until_epoch,
    )


def standings_view(found: Records) -> node_pb2.StandingsReply:
    """What the state holds for and against providers and validators."""
    return node_pb2.StandingsReply(
        providers=[_provider_standing(record) for record in found.providers],
        validators=[_validator_duties(record) for record in found.validators],
        jobs=found.jobs,
        complete=found.complete,
    )


def _provider_standing(record: ProviderRecord) -> node_pb2.ProviderStanding:
    offer, shown, held = record.offer, record.suspicion, record.ejection
    return node_pb2.ProviderStanding(
        model=record.model,
        provider=record.provider,
        operator=offer.operator,
        capacity=offer.capacity,
        completed=offer.completed,
        failed=offer.failed,
        traps=offer.traps,
        standing=offer.standing,
        stake=record.stake,
        margin_log=shown.margin_log,
        distance_log=shown.distance_log,
        limit_log=LIMIT_LOG,
        jobs_bet_on=shown.jobs,
        ejected_height=shown.ejected_height,
        held=0 if held is None else held.held,
        held_until_ms=0 if held is None else held.until_ms,
        open_appeals=record.open_appeals,
    )


def _validator_duties(record: ValidatorRecord) -> node_pb2.ValidatorDuties:
    counts, conviction = record.counts, record.conviction
    return node_pb2.ValidatorDuties(
        validator=record.validator,
        account=record.account,
        seats=counts.seats,
        passed=counts.passed,
        failed=counts.failed,
        abstained=counts.abstained,
        voided=counts.voided,
        hidden=counts.hidden,
        silent=counts.silent,
        fault="" if conviction is None else conviction.fault.name,
        convicted_height=0 if conviction is None else conviction.height,
        slashed=0 if conviction is None else conviction.slashed,
    )


def appeal_view(identity: bytes, appeal: Appeal) -> node_pb2.AppealView:
    """An open appeal."""
    job = appeal.job
    return node_pb2.AppealView(
        job=identity,
        model=job.model,
        provider=job.provider or b"",
        status=job.status.name,
        deadline_ms=job.deadline_ms,
        bond=appeal.bond,
        appealed_status=appeal.status.name,
        arbiters=[_seat_view(seat) for seat in job.committee],
        heard=[_seat_view(seat) for seat in appeal.heard],
    )


def ruled_appeal_view(identity: bytes, job: Job, ruled: Ruled) -> node_pb2.AppealView:
    """An appeal that has ended."""
    return node_pb2.AppealView(
        job=identity,
        model=job.model,
        provider=job.provider or b"",
        status=ruled.ruling.name,
        appealed_status=job.status.name,
        heard=[_seat_view(seat) for seat in job.committee],
        ruled_height=ruled.height,
        paid=ruled.paid,
    )
