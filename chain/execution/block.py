"""One block, from its first due deadline to its last attestation.

Order: unbonding that is due, open jobs (oldest first), then each batch's transactions and
attestations in the order given. A transaction pays its fee if its balance covers it, whether its
operations then succeed or not; the operations are all done or all undone.
"""

from collections.abc import Iterable, Sequence

from assay.v1 import transactions_pb2 as pb
from chain.execution import jobs, market, transfers
from chain.execution.lifecycle import advance
from chain.execution.outcome import LaneBatch, RefusedAttestation, Rejected
from chain.execution.ruling import attest
from chain.execution.scope import Scope
from chain.parameters import BASIS_POINTS, Parameters
from chain.records import TransactionReceipt
from chain.rejections import Rejection, RejectionReason
from chain.transactions import WINDOW_BLOCKS, Transaction, job_id


def run_block(
    scope: Scope,
    lanes: Sequence[LaneBatch],
    unbonding_due: Iterable[bytes],
    open_jobs: Iterable[bytes],
    seen: set[bytes],
) -> bytes:
    """Apply a block to the scope; the ids of included transactions, joined. Adds them to `seen`."""
    for account in unbonding_due:
        transfers.release_unbonded(scope, account)
    for job in open_jobs:
        advance(scope, job)
    included: list[bytes] = []
    for batch in lanes:
        owner = scope.validators.members[batch.lane].account
        for transaction in batch.transactions:
            if isinstance(transaction, Rejected):
                receipt = TransactionReceipt(transaction.id, False, transaction.reason, 0)
                _add_receipt(scope, receipt)
            else:
                _include(scope, transaction, owner, seen, included)
        for data in batch.attestations:
            try:
                attest(scope, batch.lane, data)
            except Rejection as rejection:
                refused = RefusedAttestation(batch.lane, rejection.reason, rejection.detail)
                scope.refused_attestations.append(refused)
    return b"".join(included)


def fee_of(parameters: Parameters, operations: int, body_bytes: int) -> int:
    """The fee of a transaction, in grain."""
    return (
        parameters.fee_per_transaction
        + parameters.fee_per_operation * operations
        + parameters.fee_per_byte * body_bytes
    )


def check_envelope(scope: Scope, transaction: Transaction, seen: set[bytes]) -> int:
    """Refuse what is expired, replayed or offers too small a fee; the fee. Raises Rejection."""
    last = transaction.body.valid_until_height
    if last < scope.height:
        raise Rejection(
            RejectionReason.EXPIRED,
            f"valid until height {last}, the next block is {scope.height}: sign it again",
        )
    if last > scope.height + WINDOW_BLOCKS:
        raise Rejection(
            RejectionReason.TOO_FAR_AHEAD,
            f"valid until height {last}, at most {scope.height + WINDOW_BLOCKS} is allowed now",
        )
    if transaction.id in seen:
        raise Rejection(
            RejectionReason.REPLAYED,
            f"transaction {transaction.id.hex()} is included already; a new one needs a new salt",
        )
    fee = fee_of(scope.parameters, len(transaction.op_bytes), transaction.body_bytes)
    if transaction.body.max_fee < fee:
        raise Rejection(
            RejectionReason.FEE_TOO_LOW,
            f"max_fee is {transaction.body.max_fee} grain, this transaction costs {fee}",
        )
    return fee


def charge(scope: Scope, sender: bytes, fee: int, lane_owner: bytes) -> None:
    """Take the fee: one part is burned, so that spam costs its own lane's owner, too."""
    scope.debit(sender, fee)
    burned = fee * scope.parameters.fee_burn_bps // BASIS_POINTS
    scope.burn(burned)
    scope.credit(lane_owner, fee - burned)


def apply_operations(scope: Scope, transaction: Transaction) -> None:
    """Apply all operations in order. Raises Rejection; the caller rolls back."""
    for index, operation in enumerate(transaction.body.ops):
        _apply(scope, transaction, index, operation)


def _include(
    scope: Scope,
    transaction: Transaction,
    lane_owner: bytes,
    seen: set[bytes],
    included: list[bytes],
) -> None:
    try:
        fee = check_envelope(scope, transaction, seen)
        charge(scope, transaction.sender, fee, lane_owner)
    except Rejection as rejection:
        # Who sends through two lanes has the receipt of the first; a second would contradict it.
        if rejection.reason is not RejectionReason.REPLAYED:
            _add_receipt(scope, TransactionReceipt(transaction.id, False, rejection.reason, 0))
        return
    seen.add(transaction.id)
    included.append(transaction.id)
    savepoint = scope.savepoint()
    reason = ""
    try:
        apply_operations(scope, transaction)
    except Rejection as rejection:
        scope.rollback(savepoint)
        reason = rejection.reason
    _add_receipt(scope, TransactionReceipt(transaction.id, not reason, reason, fee))


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
        case "submit_result":
            jobs.submit_result(scope, sender, operation.submit_result, signed)
        case _:
            raise Rejection(RejectionReason.MALFORMED, f"operation {index} is of no known kind")


def _add_receipt(scope: Scope, receipt: TransactionReceipt) -> None:
    scope.transaction_receipts.append((len(scope.receipt_leaves), receipt.transaction))
    scope.receipt_leaves.append(receipt.leaf())
