"""One block, from its first due deadline to its last attestation.

Order: unbonding that is due, open jobs (oldest first), then each batch's transactions and
attestations in the order given. A transaction pays its fee if its balance covers it, whether its
operations then succeed or not; the operations are all done or all undone.

Plain transfers run natively, as many in one call as stand beside each other. Where a
transaction's only operation asks for a job or answers one, it is parsed and its fee taken
natively. `ext.transfers` has the rules below once more, and tests/chain/specification has all of
them in plain Python.
"""

from collections.abc import Iterable, Sequence

from assay.v1 import transactions_pb2 as pb
from chain.execution import (
    appeals,
    capacity,
    faults,
    jobs,
    market,
    refusals,
    sessions,
    transfers,
    traps,
    validators,
)
from chain.execution.lifecycle import advance
from chain.execution.outcome import LaneBatch, NewJob, RefusedAttestation
from chain.execution.ruling import attest
from chain.execution.scope import Scope
from chain.execution.settlement import end_trap
from chain.execution.suspicion import forfeit_held
from chain.parameters import BASIS_POINTS, Parameters
from chain.records import receipt_leaf
from chain.rejections import Rejection, RejectionReason
from chain.transactions import WINDOW_BLOCKS, Transaction, decode_transaction, job_id
from ext.bodies import OTHER, REQUEST, Bodies, parse_bodies
from ext.ledger import IdWindow
from ext.transactions import ParsedBatch, SignedTransaction
from ext.transfers import Envelopes, RunOutput, TransferRules, run


def begin_block(scope: Scope, unbonding_due: Iterable[bytes], open_jobs: Iterable[bytes]) -> None:
    """What time and this block's beacon do, before its transactions."""
    for account in unbonding_due:
        transfers.release_unbonded(scope, account)
    appeals.advance_appeals(scope)
    forfeit_held(scope)
    for job in open_jobs:
        advance(scope, job)


def run_lanes(
    scope: Scope, chain_id: str, lanes: Sequence[LaneBatch], window: IdWindow, output: RunOutput
) -> None:
    """Apply all batches in order. `output` is the scope's own."""
    rules = transfer_rules(scope.parameters, scope.height)
    for lane in lanes:
        owner = faults.lane_earner(scope, lane.lane)
        batch = lane.batch
        bodies = parse_bodies(batch, chain_id.encode(), jobs.LIMITS)
        envelopes = Envelopes(scope.state.accounts, window, bodies, rules, owner, output)
        classes = bodies.classes.tobytes()
        place, count = 0, len(batch)
        while place < count:
            stop = bodies.next_other(place)
            if stop > place:
                run(scope.state.accounts, window, bodies, place, stop, rules, owner, output)
            if stop < count and classes[stop] == OTHER:
                include(scope, chain_id, batch.transaction(stop), owner, window)
            elif stop < count:
                include_parsed(scope, bodies, stop, classes[stop], envelopes)
            place = stop + 1
        attest_all(scope, lane.lane, batch)
    scope.burn(output.burned)


def transfer_rules(parameters: Parameters, height: int) -> TransferRules:
    """The governed numbers that native transfers go by in the block of this height."""
    return TransferRules(
        height=height,
        window_blocks=WINDOW_BLOCKS,
        fee_per_transaction=parameters.fee_per_transaction,
        fee_per_operation=parameters.fee_per_operation,
        fee_per_byte=parameters.fee_per_byte,
        fee_burn_bps=parameters.fee_burn_bps,
        accounts_max=capacity.ACCOUNTS_MAX,
    )


def attest_all(scope: Scope, lane: int, batch: ParsedBatch) -> None:
    """Apply a batch's attestations; what is refused changes nothing."""
    for index in range(len(batch.attestations)):
        try:
            attest(scope, lane, batch.attestation(index))
        except Rejection as rejection:
            refused = RefusedAttestation(lane, rejection.reason, rejection.detail)
            scope.refused_attestations.append(refused)


def fee_of(parameters: Parameters, operations: int, body_bytes: int) -> int:
    """The fee of a transaction, in grain."""
    return (
        parameters.fee_per_transaction
        + parameters.fee_per_operation * operations
        + parameters.fee_per_byte * body_bytes
    )


def check_envelope(scope: Scope, transaction: Transaction, seen: IdWindow) -> int:
    """Refuse what is expired, replayed or offers too small a fee; the fee. Raises Rejection."""
    last, max_fee = transaction.body.valid_until_height, transaction.body.max_fee
    if last < scope.height:
        raise refusals.expired(last, scope.height)
    if last > scope.height + WINDOW_BLOCKS:
        raise refusals.too_far_ahead(last, scope.height + WINDOW_BLOCKS)
    if transaction.id in seen:
        raise refusals.replayed(transaction.id)
    fee = fee_of(scope.parameters, len(transaction.op_bytes), transaction.body_bytes)
    if max_fee < fee:
        raise refusals.fee_too_low(max_fee, fee)
    return fee


def charge(scope: Scope, sender: bytes, fee: int, lane_owner: bytes) -> None:
    """Take the fee: one part is burned, so that spam costs its own lane's owner, too."""
    scope.debit(sender, fee)
    burned = fee * scope.parameters.fee_burn_bps // BASIS_POINTS
    scope.burn(burned)
    scope.credit(lane_owner, fee - burned)


def take_fee(scope: Scope, transaction: Transaction, seen: IdWindow, lane_owner: bytes) -> int:
    """Check what must hold before a transaction pays, and let it pay; the fee.

    Raises Rejection before anything has changed.
    """
    fee = check_envelope(scope, transaction, seen)
    if transaction.session_key is None:
        charge(scope, transaction.sender, fee, lane_owner)
        return fee
    place = transaction.sender + transaction.session_key
    after = sessions.after_fee(scope, place, fee, len(transaction.op_bytes))
    charge(scope, transaction.sender, fee, lane_owner)
    scope.state.put(scope.state.sessions, place, after)
    return fee


def apply_operations(scope: Scope, transaction: Transaction, fee: int) -> None:
    """Apply all operations in order. Raises Rejection; the caller rolls back."""
    sizes = scope.state.sizes()
    for index, operation in enumerate(transaction.body.ops):
        if transaction.session_key is None:
            _apply(scope, transaction, index, operation)
            continue
        place = transaction.sender + transaction.session_key
        sessions.check_allowed(scope, place, operation)
        held = scope.account(transaction.sender).balance
        _apply(scope, transaction, index, operation)
        taken = held - scope.account(transaction.sender).balance
        sessions.count(scope, place, taken, sessions.fee_part(fee, len(transaction.op_bytes)))
        if operation.HasField("request_inference"):
            sessions.note_job(scope, place, job_id(transaction.id, index))
    capacity.check_room(scope.state, sizes)


def include(
    scope: Scope, chain_id: str, signed: SignedTransaction, lane_owner: bytes, window: IdWindow
) -> None:
    """Apply one transaction that is more than plain transfers, or is malformed."""
    try:
        transaction = decode_transaction(chain_id, signed.body, signed.public_key)
        fee = take_fee(scope, transaction, window, lane_owner)
    except Rejection as rejection:
        # Who sends through two lanes has the receipt of the first; a second would contradict it.
        if rejection.reason is not RejectionReason.REPLAYED:
            scope.output.append_receipt(receipt_leaf(signed.id, rejection.reason, 0))
        return
    savepoint = scope.savepoint()
    reason = ""
    try:
        apply_operations(scope, transaction, fee)
    except Rejection as rejection:
        scope.rollback(savepoint)
        reason = rejection.reason
    leaf = scope.output.append_receipt(receipt_leaf(signed.id, reason, fee))
    window.add(signed.id, scope.height, leaf)


def include_parsed(
    scope: Scope, bodies: Bodies, place: int, kind: int, envelopes: Envelopes
) -> None:
    """`include` for a transaction whose only operation asks for a job or answers one.

    There is nothing to roll back: both refuse before they write.
    """
    fee = envelopes.charge(place)
    if fee is None:
        return
    reason = ""
    try:
        if kind == REQUEST:
            new_job = bodies.job_opened(place, NewJob)
            request = bodies.request(place, jobs.Request)
            jobs.open_job(scope, bodies.sender(place), request, new_job.job)
            scope.new_jobs.append(new_job)
        else:
            jobs.answer_job(scope, bodies.sender(place), bodies.result(place, jobs.Result))
    except Rejection as rejection:
        reason = rejection.reason
    envelopes.conclude(place, fee, reason)


def _apply(scope: Scope, transaction: Transaction, index: int, operation: pb.Op) -> None:
    sender, signed = transaction.sender, transaction.op_bytes[index]
    match operation.WhichOneof("kind"):
        case "transfer":
            transfers.transfer(scope, sender, operation.transfer)
        case "stake":
            transfers.stake(scope, sender, operation.stake)
        case "unstake":
            transfers.unstake(scope, sender, operation.unstake)
        case "register_model":
            market.register_model(scope, sender, operation.register_model)
        case "set_offer":
            market.set_offer(scope, sender, operation.set_offer)
        case "set_verifier":
            market.set_verifier(scope, sender, operation.set_verifier)
        case "request_inference":
            new_job = job_id(transaction.id, index)
            jobs.request_inference(scope, sender, operation.request_inference, signed, new_job)
            scope.new_jobs.append(NewJob(new_job, transaction.id, index))
        case "submit_result":
            jobs.submit_result(scope, sender, operation.submit_result, signed)
        case "grant_session":
            grant = sessions.grant_id(transaction.id, index)
            sessions.grant(scope, sender, operation.grant_session, grant)
        case "revoke_session":
            sessions.revoke(scope, sender, operation.revoke_session)
        case _:
            _apply_rare(scope, sender, index, operation)


def _apply_rare(scope: Scope, sender: bytes, index: int, operation: pb.Op) -> None:
    match operation.WhichOneof("kind"):
        case "report_fault":
            faults.report_fault(scope, operation.report_fault)
        case "set_trap":
            traps.set_trap(scope, sender, operation.set_trap)
        case "open_trap":
            end_trap(scope, sender, operation.open_trap)
        case "register_validator":
            validators.register_validator(scope, sender, operation.register_validator)
        case "rotate_validator":
            validators.rotate_validator(scope, sender, operation.rotate_validator)
        case "leave_validators":
            validators.leave_validators(scope, sender)
        case "unjail":
            validators.unjail(scope, sender)
        case "appeal":
            appeals.appeal(scope, sender, operation.appeal)
        case _:
            raise Rejection(RejectionReason.MALFORMED, f"operation {index} is of no known kind")
