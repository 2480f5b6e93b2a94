"""What verifiers pay for their words, out of their stake: `consensus.blame` says who, this what.

- *Idle* (committed and never revealed, or out of tolerance): one seat's price of that job, however
  the job ends. It loses its fee as well.
- *A wrong PASS*, when the provider is slashed: `wrong_pass_slash`.
- *A FAIL in vain*: when the job is verified, the price of the seats that the FAIL added, in equal
  parts. This is paid to the verifiers; all else is burned in part, and the rest the treasury's,
  so that nobody gains by another's mistake.

Each is taken as far as stake and unbonding reach.
"""

from chain.execution.scope import Scope
from chain.execution.transfers import forfeit, take_collateral
from chain.records import Job
from consensus.blame import asked_in_vain, idle, wrong_passes


def seat_price(scope: Scope, job: Job) -> int:
    """Of one verification of an answered job."""
    return scope.parameters.seat_price(job.input_tokens, job.output_tokens)


def fine_idle(scope: Scope, job_id: bytes, job: Job) -> int:
    """Fine the idle of a job that ends; the treasury's part."""
    price = seat_price(scope, job)
    return sum(
        [
            forfeit(scope, _account(scope, job, place), job_id, price)
            for place in idle(job.committee)
        ]
    )


def slash_wrong_passes(scope: Scope, job_id: bytes, job: Job) -> int:
    """Slash who passed what two thirds failed; the treasury's part."""
    due = scope.parameters.wrong_pass_slash
    return sum(
        [
            forfeit(scope, _account(scope, job, place), job_id, due)
            for place in wrong_passes(job.committee)
        ]
    )


def charge_askers(scope: Scope, job: Job) -> int:
    """Take from whose FAIL was in vain what it has cost; for the verifiers of the job."""
    askers, added = asked_in_vain(job.committee)
    if not askers:
        return 0
    due = added * seat_price(scope, job) // len(askers)
    return sum([take_collateral(scope, _account(scope, job, place), due) for place in askers])


def _account(scope: Scope, job: Job, place: int) -> bytes:
    return scope.validator(job.committee[place].validator).account
