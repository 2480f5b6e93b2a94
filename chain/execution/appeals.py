"""Appeals: a provider that was wronged has its result scored by the bit-exact reference engine.

The provider of a rejected job posts a bond, and every validator that serves the model with that
engine scores the result once more: commit, then reveal, in a round of its own (APPEAL_ROUND), with
deadlines of its own. Scores that more than half of all of them reveal are a fact
(`consensus.arbitration`), and the ruling follows from it:

- WON: the bond comes back, and the provider has what the rejection took of its collateral, and its
  tokens' price. Seats that said FAIL pay: with the exact engine, where scores were made up, up to
  `wrong_pass_slash`; with others, which may have erred, their fee. What the slash had burned counts
  as burned no more, and the treasury gives back what it had of it. The requester keeps its refund.
  The arbiters' fees come first, then what was lost; the price only as far as wrong words pay.
- LOST: the bond pays the arbiters; the rest is burned.
- NO_FACT: too few spoke alike. The bond comes back, and all stays as it was.

What the job added to its provider's wealth (`suspicion`) is replaced by what the exact scores add;
that may undo an ejection. So the last job of an ejected provider can be appealed even if it was
verified. An appeal is open once for a job, and only while the job's row is in state.
"""

import enum

from assay.v1 import transactions_pb2 as pb
from chain.events import EventKind
from chain.execution import suspicion
from chain.execution.collateral import seat_price
from chain.execution.market import arbiters
from chain.execution.scope import Scope
from chain.execution.standing import after_appeal
from chain.execution.transfers import burn_part, forfeit, take_collateral
from chain.pairs import ARBITER_PROFILE, judged_by, pair_for
from chain.parameters import BASIS_POINTS
from chain.records import COMMITTEE_MAX, Appeal, CommitteeSeat, Job, JobStatus
from chain.rejections import Rejection, RejectionReason
from consensus.arbitration import fact
from consensus.bets import word_of
from consensus.values import APPEAL_ROUND, JobCommit, JobReveal, Scores, Verdict, commitment_to
from consensus.verdicts import judge
from ext.hashing import sha256


class AppealRuling(enum.IntEnum):
    """What an appeal came to."""

    LOST = 0
    WON = 1
    NO_FACT = 2


def appeal(scope: Scope, sender: bytes, message: pb.Appeal) -> None:
    """Open an appeal of the sender's rejected job, for a bond."""
    job = scope.job(message.job)
    if job.provider != sender:
        raise Rejection(
            RejectionReason.NOT_ASSIGNED_TO_YOU,
            f"job {message.job.hex()} is another provider's; only who answered it appeals",
        )
    ejected = scope.state.ejections.get(job.model + sender) is not None
    appealable = job.status is JobStatus.REJECTED or (job.status is JobStatus.VERIFIED and ejected)
    if not appealable or job.appealed or job.trap:
        raise Rejection(
            RejectionReason.JOB_NOT_OPEN,
            f"job {message.job.hex()} is {job.status.name}: an appeal is open once, to a REJECTED "
            "job, and to a VERIFIED one of a provider that was just ejected; never to a trap",
        )
    judging = arbiters(scope, job)[:COMMITTEE_MAX]
    quorum = scope.model(job.model).quorum
    if len(judging) < quorum:
        raise Rejection(
            RejectionReason.NO_ARBITER,
            f"{len(judging)} validators serve the model with {ARBITER_PROFILE} and a calibrated "
            f"pair, {quorum} are needed: ask operators to serve it so",
        )
    bond = scope.parameters.appeal_bond + len(judging) * seat_price(scope, job)
    scope.debit(sender, bond)
    seats = tuple(
        CommitteeSeat(validator, ARBITER_PROFILE, APPEAL_ROUND, None, None, None, None, None)
        for validator in judging
    )
    judged = job._replace(
        status=JobStatus.COMMITTING,
        round=APPEAL_ROUND,
        committee=seats,
        deadline_ms=scope.timestamp_ms + scope.parameters.commit_within_ms,
    )
    opened = Appeal(judged, bond, job.committee, job.status)
    scope.state.put(scope.state.appeals, message.job, opened)
    scope.put_job(message.job, job._replace(appealed=True), before=job.status)


def commit(scope: Scope, validator: int, message: JobCommit) -> None:
    """Bind an arbiter to scores not yet shown."""
    opened, place = _seat_in(scope, message.job, validator, JobStatus.COMMITTING)
    seat = opened.job.committee[place]
    if seat.commitment is not None:
        raise _bad(f"validator {validator} has committed already")
    opened = _with_seat(opened, place, seat._replace(commitment=message.commitment))
    scope.state.put(scope.state.appeals, message.job, opened)
    if all(seat.commitment is not None for seat in opened.job.committee):
        _start_reveals(scope, message.job, opened)


def reveal(scope: Scope, validator: int, message: JobReveal, encoded: bytes) -> None:
    """Open an arbiter's commitment; `encoded` is the message as it came."""
    opened, place = _seat_in(scope, message.job, validator, JobStatus.REVEALING)
    job, seat = opened.job, opened.job.committee[place]
    account = scope.validator(validator).account
    if seat.verdict is not None:
        raise _bad(f"validator {validator} has revealed already")
    if seat.commitment is None or commitment_to(encoded, message.job, account) != seat.commitment:
        raise _bad(f"the reveal does not open what validator {validator} committed to")
    if message.fingerprint:
        raise _bad("an arbiter reveals no fingerprint: its scores are compared themselves")
    if message.verdict is not Verdict.ABSTAIN:
        verdict = _verdict(scope, job, message.scores)
        if message.verdict is not verdict:
            raise _bad(f"the verdict is {message.verdict.name}, its scores say {verdict.name}")
    seat = seat._replace(
        verdict=message.verdict, scores=message.scores, reveal_digest=sha256(encoded)
    )
    opened = _with_seat(opened, place, seat)
    scope.state.put(scope.state.appeals, message.job, opened)
    seats = opened.job.committee
    if all(seat.verdict is not None for seat in seats if seat.commitment is not None):
        _rule(scope, message.job, opened)


def advance_appeals(scope: Scope) -> None:
    """Take every open appeal as far as this block's time allows."""
    late = [
        (key, opened)
        for key, opened in scope.state.appeals.scan()
        if scope.timestamp_ms > opened.job.deadline_ms
    ]
    for key, opened in late:
        spoken = any(seat.commitment is not None for seat in opened.job.committee)
        if opened.job.status is JobStatus.COMMITTING and spoken:
            _start_reveals(scope, key, opened)
        else:
            _rule(scope, key, opened)


def _start_reveals(scope: Scope, job_id: bytes, opened: Appeal) -> None:
    deadline_ms = scope.timestamp_ms + scope.parameters.reveal_within_ms
    job = opened.job._replace(status=JobStatus.REVEALING, deadline_ms=deadline_ms)
    scope.state.put(scope.state.appeals, job_id, opened._replace(job=job))


def _rule(scope: Scope, job_id: bytes, opened: Appeal) -> None:
    """End an appeal. The bond, and all that is taken, goes to exactly one place each."""
    job, provider = opened.job, opened.job.provider
    if provider is None:
        raise RuntimeError(f"the appeal of job {job_id.hex()} has no provider")
    scope.state.put(scope.state.appeals, job_id, None)
    words = [_spoken(seat) for seat in job.committee]
    scores = fact(words, scope.model(job.model).quorum)
    ruling, paid = AppealRuling.NO_FACT, 0
    if scores is None:
        scope.credit(provider, opened.bond)
    else:
        _fine_arbiters(scope, job_id, job, scores)
        right = [seat for seat, said in zip(job.committee, words, strict=True) if said == scores]
        fees = len(right) * seat_price(scope, job)
        if _mend_record(scope, opened, scores):
            ruling = AppealRuling.WON
            scope.credit(provider, opened.bond)
            fees, paid = _restitution(scope, job_id, opened, scores, fees)
            scope.credit(provider, paid)
        else:
            ruling = AppealRuling.LOST
            scope.burn(opened.bond - fees)
        share = fees // len(right)
        for seat in right:
            scope.credit(scope.validator(seat.validator).account, share)
        scope.credit(scope.treasury, fees - share * len(right))
    scope.emit(EventKind.APPEAL_RULED, job_id, other=provider, amount=paid, code=ruling)


def _mend_record(scope: Scope, opened: Appeal, scores: Scores) -> bool:
    """Put the provider's record right if the result is true; whether the appeal is won. That of a
    verified job is if it undoes the ejection."""
    job, model = opened.job, scope.model(opened.job.model)
    pair = pair_for(model, job.engine_profile, ARBITER_PROFILE)
    if pair is None or _verdict(scope, job, scores) is not Verdict.PASS:
        return False
    before = suspicion.word_on(model, job._replace(committee=opened.heard))
    reinstated = suspicion.correct(scope, job, before, word_of(scores, pair.bets))
    if opened.status is JobStatus.VERIFIED:
        return reinstated
    offer = scope.offer(job.model, job.provider or b"")
    scope.put_offer(job.model, job.provider or b"", after_appeal(offer))
    return True


def _restitution(
    scope: Scope, job_id: bytes, opened: Appeal, scores: Scores, fees: int
) -> tuple[int, int]:
    """(to the arbiters, to the provider), out of what wrong words cost, then of what was slashed.

    What is left of wrong words is slashed like any other.
    """
    job = opened.job
    tokens_price = job.input_tokens * job.input_price + job.output_tokens * job.output_price
    owed = min(job.max_price, tokens_price) + job.lost
    if opened.status is JobStatus.VERIFIED:
        owed = 0
    pot = 0
    for seat in opened.heard:
        if seat.verdict is Verdict.FAIL:
            made_up = seat.engine_profile == ARBITER_PROFILE and seat.scores != scores
            due = scope.parameters.wrong_pass_slash if made_up else seat_price(scope, job)
            account = scope.validator(seat.validator).account
            taken = take_collateral(scope, account, due)
            pot += taken
            if taken:
                scope.emit(EventKind.SLASHED, account, other=job_id, amount=taken)
    undone = min(max(0, fees + owed - pot), job.burned)
    scope.burn(-undone)  # of a slash that was none
    pot += undone
    missing = max(0, fees + owed - pot)
    given = min(missing, _treasury_had(scope, job), scope.account(scope.treasury).balance)
    scope.debit(scope.treasury, given)
    pot += given
    fees = min(fees, pot)
    paid = min(owed, pot - fees)
    _, to_treasury = burn_part(scope, pot - fees - paid)
    scope.credit(scope.treasury, to_treasury)
    return fees, paid


def _treasury_had(scope: Scope, job: Job) -> int:
    """At most what the slash that was none brought the treasury, and so all that it gives back.

    Whoever has provider, requester, committee and arbiters of a model would else name a price, have
    the result failed, the escrow back, and that price from the treasury.
    """
    share = scope.parameters.slash_burn_bps
    return job.burned * (BASIS_POINTS - share) // share if share else 0


def _fine_arbiters(scope: Scope, job_id: bytes, job: Job, scores: Scores) -> None:
    """Who revealed other scores made them up; who committed and hid pays a seat's price."""
    for seat in job.committee:
        account = scope.validator(seat.validator).account
        said = _spoken(seat)
        if said is not None and said != scores:
            forfeit(scope, account, job_id, scope.parameters.wrong_pass_slash)
        elif seat.commitment is not None and seat.verdict is None:
            forfeit(scope, account, job_id, seat_price(scope, job))


def _spoken(seat: CommitteeSeat) -> Scores | None:
    return seat.scores if seat.verdict in (Verdict.PASS, Verdict.FAIL) else None


def _verdict(scope: Scope, job: Job, scores: Scores) -> Verdict:
    thresholds = judged_by(scope.model(job.model), job.engine_profile, ARBITER_PROFILE)
    return judge(scores, thresholds, job.input_tokens, job.output_tokens)


def _seat_in(scope: Scope, job_id: bytes, validator: int, status: JobStatus) -> tuple[Appeal, int]:
    opened = scope.state.appeals.get(job_id)
    if opened is None or opened.job.status is not status:
        shown = "not open" if opened is None else opened.job.status.name
        raise Rejection(
            RejectionReason.JOB_NOT_OPEN,
            f"the appeal of job {job_id.hex()} is {shown}, this is for {status.name}",
        )
    for place, seat in enumerate(opened.job.committee):
        if seat.validator == validator:
            return opened, place
    raise Rejection(
        RejectionReason.NOT_ON_COMMITTEE, f"validator {validator} is no arbiter of this appeal"
    )


def _with_seat(opened: Appeal, place: int, seat: CommitteeSeat) -> Appeal:
    seats = opened.job.committee
    job = opened.job._replace(committee=(*seats[:place], seat, *seats[place + 1 :]))
    return opened._replace(job=job)


def _bad(detail: str) -> Rejection:
    return Rejection(RejectionReason.BAD_ATTESTATION, detail)
