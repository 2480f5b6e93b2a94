"""Traps: results that their provider and requester know to be false, so that verifiers stay awake.

A provider commits to a request and a false answer to it (`SetTrap`) before the request is made, and
answers so if the job comes to it. Until the reveals nobody can tell the job from another. When a
FAIL has asked for the larger committee, the requester opens the trap (`OpenTrap`): the provider is
not slashed. If everybody failed it, the job ends there, and costs the seats of one round; if
somebody passed it or hid, the larger committee says what is true, and who was wrong pays.

Who cannot use it: a provider caught on somebody's job (the requester must open, and both must have
known request and answer before there was a seed); verifiers who want to be paid for nothing (the
committee is drawn, and the treasury pays one trap in `trap_every_jobs`); nobody at all against
honest verifiers (a PASS is wrong only if two thirds find the result false beyond doubt).
"""

from assay.v1 import transactions_pb2 as pb
from chain.execution.scope import Scope
from chain.records import Job, JobStatus, Trap
from chain.rejections import Rejection, RejectionReason
from chain.state import ID_BYTES
from consensus.values import Verdict
from ext.hashing import tagged_hash

TRAPS_MAX = 16
"""Of one provider at a time; another one takes the place of the oldest."""
SALT_BYTES = 32
OPEN_STATUSES = (JobStatus.ANSWERED, JobStatus.COMMITTING, JobStatus.REVEALING)


def commitment(request_digest: bytes, result_digest: bytes, salt: bytes) -> bytes:
    """What a provider says before the request is made."""
    return tagged_hash(b"trap", request_digest, result_digest, salt)


def set_trap(scope: Scope, sender: bytes, message: pb.SetTrap) -> None:
    """Remember the sender's word that it will answer one request falsely."""
    if len(message.commitment) != ID_BYTES:
        raise _bad(f"the commitment has {len(message.commitment)} bytes, needs {ID_BYTES}")
    table = scope.state.traps
    if table.get(sender + message.commitment) is not None:
        raise _bad("this trap is set already; use another salt")
    own = sorted((trap.height, key) for key, trap in table.scan(sender))
    if len(own) >= TRAPS_MAX:
        scope.state.put(table, own[0][1], None)
    scope.state.put(table, sender + message.commitment, Trap(scope.height))


def open_trap(scope: Scope, sender: bytes, message: pb.OpenTrap) -> bool:
    """Show that the sender's job is a trap; whether it can end now, as nobody doubts that."""
    job = scope.job(message.job)
    if job.requester != sender:
        raise _bad(f"job {message.job.hex()} is somebody else's; only its requester opens a trap")
    if job.status not in OPEN_STATUSES or not job.escalated or job.trap:
        raise Rejection(
            RejectionReason.JOB_NOT_OPEN,
            f"job {message.job.hex()} is {job.status.name}: a trap is opened once, when a FAIL has "
            "asked for the larger committee and before the job is final",
        )
    if len(message.salt) != SALT_BYTES or job.result_digest is None or job.provider is None:
        raise _bad(f"the salt has {len(message.salt)} bytes, needs {SALT_BYTES}")
    said = commitment(job.request_digest, job.result_digest, message.salt)
    trap = scope.state.traps.get(job.provider + said)
    if trap is None or trap.height >= job.requested_height:
        raise _bad("its provider has set no such trap before the request was included")
    scope.state.put(scope.state.traps, job.provider + said, None)
    opened = job._replace(trap=True)
    scope.put_job(message.job, opened, before=job.status)
    return job.status is JobStatus.ANSWERED and _is_plain(scope, job)


def pay_from_treasury(scope: Scope, job: Job, provider: bytes, cost: int) -> tuple[int, int]:
    """(what the treasury gives for the seats, the provider's reward); nothing for a provider that
    has set more than its share of traps."""
    offer = scope.offer(job.model, provider)
    if (offer.traps + 1) * scope.parameters.trap_every_jobs > offer.completed:
        return 0, 0
    balance = scope.account(scope.treasury).balance
    seats = min(cost, balance)
    reward = min(scope.parameters.trap_reward, balance - seats)
    scope.debit(scope.treasury, seats + reward)
    scope.put_offer(job.model, provider, offer._replace(traps=offer.traps + 1))
    return seats, reward


def _is_plain(scope: Scope, job: Job) -> bool:
    """Whether a quorum has failed it, and nobody has said anything else or hidden its word."""
    words = [seat.verdict for seat in job.committee if seat.commitment is not None]
    return len(words) >= scope.model(job.model).quorum and set(words) == {Verdict.FAIL}


def _bad(detail: str) -> Rejection:
    return Rejection(RejectionReason.BAD_TRAP, detail)
