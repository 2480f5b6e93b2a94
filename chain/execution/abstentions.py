"""Verifiers that only ever abstain stop being candidates (docs/decisions/0040).

Of each model a validator says that it serves, its abstentions in a row are counted as its jobs
end. A PASS or FAIL ends the row. At ABSTENTIONS_MAX the chain takes the validator's word back, as
if it had done so itself: nothing is slashed, since to abstain is what an honest verifier does whose
runtime is down, and it says that it serves again when it does.

Silence is not counted: a quorum that has committed ends the time of the others, so a verifier that
works but is slow may be silent for long. Nor is a word that its fingerprint voided, which costs
stake already, nor an arbiter's.
"""

from chain.events import EventKind
from chain.execution.scope import Scope
from chain.records import CommitteeSeat, Job, Verifier
from chain.state import INDEX_BYTES
from consensus.values import Verdict

ABSTENTIONS_MAX = 32
"""In a row; with less, an outage of some minutes on a busy chain would already count."""


def count_abstentions(scope: Scope, job: Job) -> None:
    """Note what the seats of a job that ends have said, and take back the words of the idle."""
    for seat in job.committee:
        key = job.model + seat.validator.to_bytes(INDEX_BYTES, "big")
        before = scope.state.verifiers.get(key)
        # Seats that it was drawn for before it said so anew say nothing of the new runtime.
        if before is None or before.since_height > job.requested_height:
            continue
        after = after_word(before, seat)
        if after == before:
            continue
        scope.put_verifier(key, after)
        if after is None:
            account = scope.validator(seat.validator).account
            scope.emit(EventKind.VERIFIER_SET, job.model, other=account, code=0)


def after_word(verifier: Verifier, seat: CommitteeSeat) -> Verifier | None:
    """The announcement after one seat of its validator; None if it no longer stands."""
    if seat.verdict is None or seat.voided is not None:
        return verifier
    abstained = verifier.abstained + 1 if seat.verdict is Verdict.ABSTAIN else 0
    if abstained == ABSTENTIONS_MAX:
        return None
    return Verifier(verifier.since_height, verifier.engine_profile, abstained)
