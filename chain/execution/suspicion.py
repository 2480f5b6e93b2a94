"""What many audited jobs together show of a provider, and what follows: its ejection.

Every job that ends VERIFIED or REJECTED adds its bets (`consensus.bets`) to the wealth of its
provider for its model, by the tables that the model was registered with. When the sum of one kind
reaches the limit, the offer is withdrawn for good, and a share of the provider's collateral is held
until an appeal could have undone it; then it is forfeited. A trap that was opened is no evidence,
and a job that was refunded is none either.
"""

from chain.events import EventKind
from chain.execution.scope import Scope
from chain.execution.transfers import burn_part, take_collateral
from chain.pairs import pair_for
from chain.parameters import BASIS_POINTS
from chain.records import Ejection, Job, JobStatus, Model, Suspicion
from chain.rejections import Rejection, RejectionReason
from chain.state import ACCOUNT_BYTES
from consensus.bets import LIMIT_LOG, NOTHING, Word, settled, word_of

NO_SUSPICION = Suspicion(margin_log=0, distance_log=0, jobs=0, ejected_height=0)
BET_ON = (JobStatus.VERIFIED, JobStatus.REJECTED)


def bet(scope: Scope, job: Job, status: JobStatus) -> None:
    """Count a job that has just ended so."""
    if status not in BET_ON or job.trap or job.provider is None:
        return
    word = word_on(scope.model(job.model), job)
    if word != NOTHING:
        _add(scope, job.model, job.provider, word)


def word_on(model: Model, job: Job) -> Word:
    """What the committee's scores of the job add to its provider's wealth."""
    if all(pair.bets.idle for pair in model.pairs):
        return NOTHING  # as with the engine whose bits are pinned: each job shows everything
    words = []
    for seat in job.committee:
        pair = pair_for(model, job.engine_profile, seat.engine_profile)
        if pair is not None and seat.verdict is not None and seat.scores is not None:
            words.append((seat.engine_profile, seat.verdict, word_of(seat.scores, pair.bets)))
    return settled(words)


def check_not_ejected(scope: Scope, model: bytes, provider: bytes) -> None:
    """Refuse an ejected provider. Raises Rejection."""
    found = scope.state.suspicions.get(model + provider)
    if found is not None and found.ejected_height:
        raise Rejection(
            RejectionReason.EJECTED,
            f"you were ejected at height {found.ejected_height}: what your jobs for this model "
            "have shown together no honest provider shows; offer another model",
        )


def correct(scope: Scope, job: Job, before: Word, after: Word) -> bool:
    """Replace what a job of an appeal had added to its provider's wealth; whether that undoes the
    provider's ejection. What was held goes back to its stake; its offer it makes anew."""
    if job.provider is None:
        return False
    key = job.model + job.provider
    found = scope.state.suspicions.get(key)
    if found is None or before == NOTHING:
        return False
    mended = found._replace(
        margin_log=found.margin_log + after.margin_log - before.margin_log,
        distance_log=found.distance_log + after.distance_log - before.distance_log,
    )
    held = scope.state.ejections.get(key)
    undone = held is not None and max(mended.margin_log, mended.distance_log) < LIMIT_LOG
    if undone and held is not None:
        mended = mended._replace(ejected_height=0)
        scope.state.put(scope.state.ejections, key, None)
        account = scope.account(job.provider)
        scope.put_account(job.provider, account._replace(stake=account.stake + held.held))
        scope.emit(EventKind.STAKED, job.provider, amount=held.held)
    scope.state.put(scope.state.suspicions, key, mended)
    return undone


def forfeit_held(scope: Scope) -> None:
    """Take for good what is held of those whose time to appeal has passed."""
    due = [
        (key, ejection)
        for key, ejection in scope.state.ejections.scan()
        if ejection.until_ms <= scope.timestamp_ms and not _is_appealed(scope, key)
    ]
    for key, ejection in due:
        _, to_treasury = burn_part(scope, ejection.held)
        scope.credit(scope.treasury, to_treasury)
        scope.state.put(scope.state.ejections, key, None)
        model, provider = key[:-ACCOUNT_BYTES], key[-ACCOUNT_BYTES:]
        scope.emit(EventKind.SLASHED, provider, other=model, amount=ejection.held)


def _add(scope: Scope, model: bytes, provider: bytes, word: Word) -> None:
    key = model + provider
    before = scope.state.suspicions.get(key) or NO_SUSPICION
    if before.ejected_height:
        return
    after = before._replace(
        margin_log=before.margin_log + word.margin_log,
        distance_log=before.distance_log + word.distance_log,
        jobs=before.jobs + 1,
    )
    if max(after.margin_log, after.distance_log) >= LIMIT_LOG:
        after = after._replace(ejected_height=scope.height)
        _eject(scope, model, provider)
    scope.state.put(scope.state.suspicions, key, after)


def _eject(scope: Scope, model: bytes, provider: bytes) -> None:
    account = scope.account(provider)
    due = (account.stake + account.unbonding) * scope.parameters.eject_slash_bps // BASIS_POINTS
    held = take_collateral(scope, provider, due)
    until_ms = scope.timestamp_ms + scope.parameters.appeal_within_ms
    scope.state.put(scope.state.ejections, model + provider, Ejection(held, until_ms))
    offer = scope.offer(model, provider)
    scope.put_new_offer(model, provider, offer._replace(capacity=0))
    scope.emit(EventKind.OFFER_SET, model, other=provider, amount=0)
    scope.emit(EventKind.PROVIDER_EJECTED, provider, other=model, amount=held)


def _is_appealed(scope: Scope, key: bytes) -> bool:
    return any(
        appeal.job.model + (appeal.job.provider or b"") == key
        for _, appeal in scope.state.appeals.scan()
    )
