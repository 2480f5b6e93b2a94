"""What a validator loses when somebody shows two signatures of it that no honest one makes.

Evidence proves itself (consensus.evidence), so it does not matter who brings it, and it counts
once: a validator is convicted of the first fault that reaches the chain. It is in no set that is
elected from then on; until the last one it is in has ended it judges nothing, operates no provider,
and the fees of its lane go to the treasury. Evidence is heard against the sets that the ledger
keeps: of the epoch under way and of the two before it.
"""

from assay.v1 import transactions_pb2 as pb
from chain.events import EventKind
from chain.execution.scope import Scope
from chain.execution.transfers import take_slashed
from chain.records import Conviction
from chain.rejections import Rejection, RejectionReason
from chain.state import ACCOUNT_BYTES, ID_BYTES, INDEX_BYTES
from consensus.evidence import EVIDENCE_BYTES_MAX, Evidence, evidence_fault
from consensus.wire import DecodeError, decode


def report_fault(scope: Scope, message: pb.ReportFault) -> None:
    """Convict the culprit of valid evidence."""
    if len(message.evidence) > EVIDENCE_BYTES_MAX:
        raise _bad(f"{len(message.evidence)} bytes, at most {EVIDENCE_BYTES_MAX}")
    try:
        evidence = decode(Evidence, message.evidence)
    except DecodeError as error:
        raise _bad(str(error)) from error
    before = scope.conviction(evidence.culprit)
    if before is not None:
        raise Rejection(
            RejectionReason.ALREADY_CONVICTED,
            f"validator {evidence.culprit} was convicted at height {before.height}: nothing is "
            "left to do",
        )
    _check_evidence(scope, evidence)
    convict(scope, evidence)


def _check_evidence(scope: Scope, evidence: Evidence) -> None:
    """Refuse what convicts the culprit in no epoch that is kept. Raises Rejection."""
    flaws = []
    for epoch in sorted(scope.sets, reverse=True):
        if epoch <= scope.epoch:
            flaw = evidence_fault(evidence, scope.sets[epoch], scope.chain_id)
            if flaw is None:
                return
            flaws.append(flaw)
    # Of several epochs the flaws are alike but for the one it is of, which gets furthest.
    raise _bad(next((flaw for flaw in flaws if not flaw.startswith("epoch is ")), flaws[0]))


def convict(scope: Scope, evidence: Evidence) -> None:
    """Slash the culprit and take its other offices."""
    index = evidence.culprit
    account = scope.validator(index).account
    taken, to_treasury = take_slashed(scope, account, scope.parameters.fault_slash_bps)
    scope.credit(scope.treasury, to_treasury)
    conviction = Conviction(evidence.fault, scope.height, evidence.digest(), taken)
    scope.put_conviction(index, conviction)
    for key, _ in list(scope.state.verifiers.ending(index.to_bytes(INDEX_BYTES, "big"))):
        scope.put_verifier(key, None)
        scope.emit(EventKind.VERIFIER_SET, key[:ID_BYTES], other=account, code=0)
    operated = [
        (key, offer)
        for key, offer in scope.state.offers.scan()
        if offer.operator == index and offer.capacity
    ]
    for key, offer in operated:
        model, provider = key[:ID_BYTES], key[-ACCOUNT_BYTES:]
        scope.put_new_offer(model, provider, offer._replace(capacity=0))
        scope.emit(EventKind.OFFER_SET, model, other=provider, amount=0)
    scope.emit(
        EventKind.VALIDATOR_CONVICTED,
        account,
        other=conviction.evidence,
        amount=taken,
        code=evidence.fault,
    )


def lane_earner(scope: Scope, lane: int) -> bytes:
    """The account that has the lane's part of the fees."""
    if scope.conviction(lane) is not None:
        return scope.treasury
    return scope.validators.by_index[lane].account


def check_in_office(scope: Scope, index: int) -> None:
    """Refuse a convicted validator. Raises Rejection."""
    conviction = scope.conviction(index)
    if conviction is not None:
        raise Rejection(
            RejectionReason.CONVICTED,
            f"validator {index} was convicted of {conviction.fault.name} at height "
            f"{conviction.height}, and neither judges nor operates providers: use another one",
        )


def _bad(detail: str) -> Rejection:
    return Rejection(RejectionReason.BAD_EVIDENCE, f"evidence: {detail}")
