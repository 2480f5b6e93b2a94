"""From attestations to a ruling: commits, reveals, and the count of a round.

Commits are taken while a job is COMMITTING, once a seat; reveals while it is REVEALING, and only
if they open the commitment and their verdict follows from their own scores. A reveal that is
refused counts as missing: the seat said nothing. A round ends when all have spoken, or at its
deadline.
"""

from functools import lru_cache

from chain.execution import appeals, capacity
from chain.execution.market import eligible_verifiers, seats_to_draw
from chain.execution.scope import Scope
from chain.execution.settlement import refund, reject, settle
from chain.pairs import judged_by
from chain.records import CommitteeSeat, Fingerprint, Job, JobStatus
from chain.rejections import Rejection, RejectionReason
from chain.state import ID_BYTES, INDEX_BYTES, TableNumber
from consensus.bets import is_opening_possible
from consensus.values import (
    APPEAL_ROUND,
    AttestationKind,
    JobCommit,
    JobReveal,
    Verdict,
    commitment_to,
)
from consensus.verdicts import (
    NO_SCORES,
    Remedies,
    Ruling,
    fingerprint_positions,
    judge,
    outliers,
    rule,
)
from consensus.wire import DecodeError, decode
from ext.hashing import sha256

ATTESTATION_BYTES_MAX = 2_048
POSITIONS_KEPT = 4_096
"""Sets of positions that are kept: each is asked for by every reveal of its round."""

NO_REMEDIES = Remedies(escalate=False, redraw=False)

_positions = lru_cache(maxsize=POSITIONS_KEPT)(fingerprint_positions)


def attest(scope: Scope, validator: int, data: bytes) -> None:
    """Apply one attestation by the owner of the lane it came in. Raises Rejection."""
    if not 1 <= len(data) <= ATTESTATION_BYTES_MAX:
        raise _bad(f"an attestation has 1 to {ATTESTATION_BYTES_MAX} bytes, this has {len(data)}")
    try:
        if data[0] == AttestationKind.COMMIT:
            committed = decode(JobCommit, data)
            appealed = committed.round == APPEAL_ROUND
            (appeals.commit if appealed else commit)(scope, validator, committed)
        elif data[0] == AttestationKind.REVEAL:
            revealed = decode(JobReveal, data)
            appealed = revealed.round == APPEAL_ROUND
            (appeals.reveal if appealed else reveal)(scope, validator, revealed, data)
        else:
            raise _bad(f"kind {data[0]} is unknown")
    except DecodeError as error:
        raise _bad(str(error)) from error


def commit(scope: Scope, validator: int, message: JobCommit) -> None:
    """Bind a seat to a verdict not yet shown."""
    job = _job_in(scope, message.job, message.round, JobStatus.COMMITTING)
    position = _seat_of(job, validator)
    if job.committee[position].commitment is not None:
        raise _bad(f"validator {validator} has committed already")
    seat = job.committee[position]._replace(commitment=message.commitment)
    job = _with_seat(job, position, seat)
    committed = [seat.commitment is not None for seat in job.committee if seat.round == job.round]
    if all(committed):
        start_reveals(scope, message.job, job)
        return
    if sum(committed) == scope.model(job.model).quorum:
        job = job._replace(deadline_ms=_grace_ends_ms(scope, job))
    scope.put_job(message.job, job, before=job.status)


def _grace_ends_ms(scope: Scope, job: Job) -> int:
    """A seat that is down must not hold up a quorum; one as slow as the quorum still gets in."""
    drawn_ms = job.deadline_ms - scope.parameters.commit_within_ms
    grace_ms = max(scope.parameters.commit_grace_ms, scope.timestamp_ms - drawn_ms)
    return min(job.deadline_ms, scope.timestamp_ms + grace_ms)


def reveal(scope: Scope, validator: int, message: JobReveal, encoded: bytes) -> None:
    """Open a seat's commitment; `encoded` is the message as it came."""
    job = _job_in(scope, message.job, message.round, JobStatus.REVEALING)
    position = _seat_of(job, validator)
    seat = job.committee[position]
    if seat.verdict is not None:
        raise _bad(f"validator {validator} has revealed already")
    account = scope.validator(validator).account
    if seat.commitment is None or commitment_to(encoded, message.job, account) != seat.commitment:
        raise _bad(f"the reveal does not open what validator {validator} committed to")
    _check_reveal(scope, job, seat, message)
    if message.fingerprint:
        held = len(scope.state.fingerprints)
        capacity.check_record_room(TableNumber.FINGERPRINTS, held)
        scope.state.put(
            scope.state.fingerprints,
            _fingerprint_key(message.job, validator),
            Fingerprint(message.fingerprint),
        )
    seat = seat._replace(
        verdict=message.verdict, scores=message.scores, reveal_digest=sha256(encoded)
    )
    job = _with_seat(job, position, seat)
    for seat in job.committee:
        if seat.verdict is None and seat.commitment is not None and seat.round == job.round:
            scope.put_job(message.job, job, before=job.status)
            return
    count_round(scope, message.job, job)


def start_reveals(scope: Scope, job_id: bytes, job: Job) -> None:
    """Nobody can commit any more, so everybody may show."""
    revealing = job._replace(
        status=JobStatus.REVEALING,
        deadline_ms=scope.timestamp_ms + scope.parameters.reveal_within_ms,
    )
    scope.put_job(job_id, revealing, before=job.status)


def round_positions(scope: Scope, job: Job) -> tuple[int, ...]:
    """Output positions that the current round fingerprints. ValueError before a draw."""
    if job.audit_beacon is None:
        raise ValueError("the job has no committee yet, so no positions")
    seated = tuple(
        [
            scope.validator(seat.validator).account
            for seat in job.committee
            if seat.round == job.round
        ]
    )
    return _positions(job.audit_beacon, seated, job.output_tokens)


def count_round(scope: Scope, job_id: bytes, job: Job) -> None:
    """End a round: void the words of outliers, then rule.

    A FAIL asks the larger committee even if its fingerprint is voided: two of three who agree on
    made-up numbers must not silence the one who did the work (docs/decisions/0021).
    """
    contested = any([seat.verdict is Verdict.FAIL for seat in job.committee])
    job = _without_outliers(scope, job_id, job)
    verdicts = [seat.verdict for seat in job.committee if seat.verdict is not None]
    quorum = scope.model(job.model).quorum
    if not contested and rule(verdicts, quorum, NO_REMEDIES) is Ruling.ACCEPT:
        settle(scope, job_id, job)  # as almost always: no need to ask what else could be done
        return
    somebody_new = bool(eligible_verifiers(scope, job, scope.height))
    room_to_escalate = seats_to_draw(scope, job._replace(escalated=True)) > 0
    room_to_redraw = seats_to_draw(scope, job) > 0
    remedies = Remedies(
        escalate=somebody_new and room_to_escalate and not job.escalated,
        redraw=somebody_new and room_to_redraw and not job.escalated and not job.redrawn,
    )
    ruling = rule(verdicts, quorum, remedies)
    if contested and remedies.escalate:
        ruling = Ruling.ESCALATE
    if ruling is Ruling.ACCEPT:
        settle(scope, job_id, job)
    elif ruling in (Ruling.REJECT, Ruling.REJECT_AND_SLASH):
        reject(scope, job_id, job, with_slash=ruling is Ruling.REJECT_AND_SLASH)
    elif ruling is Ruling.NO_RULING:
        refund(scope, job_id, job)
    else:
        _ask_more(scope, job_id, job, escalate=ruling is Ruling.ESCALATE)


def _ask_more(scope: Scope, job_id: bytes, job: Job, escalate: bool) -> None:
    """Open another round; its committee is drawn by a beacon that nobody knows yet."""
    reopened = job._replace(
        status=JobStatus.ANSWERED,
        round=job.round + 1,
        draw_height=scope.height + scope.parameters.audit_delay_blocks,
        deadline_ms=scope.timestamp_ms + scope.parameters.audit_within_ms,
        escalated=job.escalated or escalate,
        redrawn=job.redrawn or not escalate,
    )
    scope.put_job(job_id, reopened, before=job.status)


def _without_outliers(scope: Scope, job_id: bytes, job: Job) -> Job:
    """The job, with ABSTAIN for members whose fingerprint the round does not bear out."""
    model = scope.model(job.model)
    tolerances = {
        seat.validator: judged_by(
            model, job.engine_profile, seat.engine_profile
        ).fingerprint_tolerance
        for seat in job.committee
    }
    fingerprints = {
        int.from_bytes(key[ID_BYTES:], "big"): record.values
        for key, record in scope.state.fingerprints.scan(job_id)
    }
    for validator in fingerprints:  # rising
        scope.state.put(scope.state.fingerprints, _fingerprint_key(job_id, validator), None)
    voided = outliers(fingerprints, tolerances)
    if not voided:
        return job
    seats = tuple(
        seat._replace(verdict=Verdict.ABSTAIN, voided=seat.verdict)
        if seat.validator in voided
        else seat
        for seat in job.committee
    )
    return job._replace(committee=seats)


def _check_reveal(scope: Scope, job: Job, seat: CommitteeSeat, message: JobReveal) -> None:
    if message.verdict is Verdict.ABSTAIN:
        if message.scores != NO_SCORES or message.fingerprint:
            raise _bad("an abstaining verifier has neither scores nor a fingerprint")
        return
    if not is_opening_possible(message.scores):
        raise _bad("the opening's sums are no part of the whole output's")
    thresholds = judged_by(scope.model(job.model), job.engine_profile, seat.engine_profile)
    verdict = judge(message.scores, thresholds, job.input_tokens, job.output_tokens)
    if message.verdict is not verdict:
        raise _bad(f"the verdict is {message.verdict.name}, its own scores say {verdict.name}")
    count = len(round_positions(scope, job))
    if len(message.fingerprint) != count:
        raise _bad(f"the fingerprint has {len(message.fingerprint)} values, needs {count}")


def _job_in(scope: Scope, job_id: bytes, round_number: int, status: JobStatus) -> Job:
    job = scope.job(job_id)
    if job.status is not status or job.round != round_number:
        raise Rejection(
            RejectionReason.JOB_NOT_OPEN,
            f"job {job_id.hex()} is {job.status.name} in round {job.round}, "
            f"this is for {status.name} in round {round_number}",
        )
    # No look at the deadline: a late round was ended before the block's attestations.
    return job


def _seat_of(job: Job, validator: int) -> int:
    for position, seat in enumerate(job.committee):
        if seat.validator == validator and seat.round == job.round:
            return position
    raise Rejection(
        RejectionReason.NOT_ON_COMMITTEE,
        f"validator {validator} has no seat in round {job.round}",
    )


def _with_seat(job: Job, position: int, seat: CommitteeSeat) -> Job:
    seats = (*job.committee[:position], seat, *job.committee[position + 1 :])
    return job._replace(committee=seats)


def _fingerprint_key(job_id: bytes, validator: int) -> bytes:
    return job_id + validator.to_bytes(INDEX_BYTES, "big")


def _bad(detail: str) -> Rejection:
    return Rejection(RejectionReason.BAD_ATTESTATION, detail)
