"""How a job ends: paid, rejected or refunded. After this it holds no escrow.

VERIFIED. price = min(escrow, input and output tokens at the offer's prices + verification), where
verification is a seat's price, by the job's tokens, for each seat of the first round. The
verifiers' pot is min(price, verification), and what is taken from those who asked for a larger
committee in vain, in equal parts for all seats; the part of a seat that earned nothing, and what
division leaves, goes to the treasury. Of the rest, royalty, treasury and burn take their
shares rounded down, and the provider has what remains. The requester gets back escrow - price.
Every grain of the escrow goes to exactly one place.

REJECTED. The requester gets the whole escrow. The verification, a seat's price for each seat of all
rounds, is paid out of the provider's collateral, as far as it reaches, and with two thirds saying
FAIL a share of what is left is slashed, and whoever said PASS. If the result was a trap (`traps`),
nothing of the provider is slashed, and the treasury pays the verification while the provider keeps
to its share.

REFUNDED. The requester gets the whole escrow; nobody else is paid or blamed.

A seat earns if its verdict was revealed, in tolerance, and the one that prevailed. However the job
ends, a seat that was idle is fined (`collateral`).
"""

from assay.v1 import transactions_pb2 as pb
from chain.execution import sessions, suspicion
from chain.execution.abstentions import count_abstentions
from chain.execution.collateral import charge_askers, fine_idle, seat_price, slash_wrong_passes
from chain.execution.scope import Scope
from chain.execution.standing import after_failure, after_success
from chain.execution.transfers import slash, take_collateral
from chain.execution.traps import open_trap, pay_from_treasury
from chain.pairs import judged_by
from chain.parameters import BASIS_POINTS
from chain.records import Job, JobReceipt, JobStatus, Payment, VerdictRecord
from consensus.values import Verdict


class Payments:
    """Credits made at one settlement; several to one account are shown as one."""

    def __init__(self, scope: Scope) -> None:
        self._scope = scope
        self._amounts: dict[bytes, int] = {}

    def pay(self, account: bytes, amount: int) -> None:
        """Credit the amount and note it."""
        if amount:
            self._scope.credit(account, amount)
            self.note(account, amount)

    def note(self, account: bytes, amount: int) -> None:
        """Note an amount that was credited already."""
        if amount:
            self._amounts[account] = self._amounts.get(account, 0) + amount

    def listed(self) -> tuple[Payment, ...]:
        """All payments, in the order of each account's first."""
        return tuple(Payment(account, amount) for account, amount in self._amounts.items())


def settle(scope: Scope, job_id: bytes, job: Job) -> None:
    """Pay everybody for a verified job."""
    provider = _provider(job_id, job)
    model = scope.model(job.model)
    tokens_price = job.input_tokens * job.input_price + job.output_tokens * job.output_price
    verification = verification_cost(scope, job)
    price = min(job.escrow, tokens_price + verification)
    pot = min(price, verification)
    rest = price - pot
    royalty = rest * model.royalty_bps // BASIS_POINTS
    to_treasury = rest * scope.parameters.treasury_bps // BASIS_POINTS
    burned = rest * scope.parameters.burn_bps // BASIS_POINTS
    payments = Payments(scope)
    payments.pay(provider, rest - royalty - to_treasury - burned)
    pay_verifiers(scope, job, pot + charge_askers(scope, job), Verdict.PASS, payments)
    payments.pay(model.owner, royalty)
    payments.pay(scope.treasury, to_treasury)
    scope.burn(burned)
    payments.pay(job.requester, job.escrow - price)
    offer = scope.offer(job.model, provider)
    scope.put_offer(job.model, provider, after_success(offer))
    _finish(scope, job_id, job, JobStatus.VERIFIED, payments, job.escrow - price)


def reject(scope: Scope, job_id: bytes, job: Job, with_slash: bool) -> None:
    """Refund a job whose result was found false, at the provider's cost."""
    provider = _provider(job_id, job)
    payments = Payments(scope)
    payments.pay(job.requester, job.escrow)
    held = _collateral(scope, provider)
    # Every seat of every round has worked because of this provider.
    cost = len(job.committee) * seat_price(scope, job)
    pot, reward = pay_from_treasury(scope, job, provider, cost) if job.trap else (0, 0)
    pot += take_collateral(scope, provider, cost - pot)
    pay_verifiers(scope, job, pot, Verdict.FAIL, payments)
    payments.pay(provider, reward)
    if with_slash:
        payments.note(scope.treasury, slash_wrong_passes(scope, job_id, job))
    burned = scope.burned
    if with_slash and not job.trap:
        payments.note(scope.treasury, slash(scope, provider, job_id))
    burned = scope.burned - burned
    if not job.trap:
        offer = scope.offer(job.model, provider)
        scope.put_offer(job.model, provider, after_failure(offer))
    lost = held - _collateral(scope, provider)
    job = job._replace(lost=lost, burned=burned)
    _finish(scope, job_id, job, JobStatus.REJECTED, payments, job.escrow)


def end_trap(scope: Scope, sender: bytes, message: pb.OpenTrap) -> None:
    """Open a trap, and end its job if that leaves nothing to ask."""
    if open_trap(scope, sender, message):
        reject(scope, message.job, scope.job(message.job), with_slash=True)


def refund(scope: Scope, job_id: bytes, job: Job) -> None:
    """Give the escrow back where nobody can be held to anything."""
    payments = Payments(scope)
    payments.pay(job.requester, job.escrow)
    _finish(scope, job_id, job, JobStatus.REFUNDED, payments, job.escrow)


def verification_cost(scope: Scope, job: Job) -> int:
    """Of a verified job: the price of the first round's seats."""
    first_round = sum(seat.round == 0 for seat in job.committee)
    return first_round * seat_price(scope, job)


def pay_verifiers(
    scope: Scope, job: Job, pot: int, prevailing: Verdict, payments: Payments
) -> None:
    """Share the pot among all seats; unearned parts and the remainder go to the treasury."""
    seats = len(job.committee)
    share = pot // seats if seats else 0
    paid = 0
    for seat in job.committee:
        if seat.verdict is prevailing:
            payments.pay(scope.validator(seat.validator).account, share)
            paid += share
    payments.pay(scope.treasury, pot - paid)


def _finish(
    scope: Scope, job_id: bytes, job: Job, status: JobStatus, payments: Payments, returned: int
) -> None:
    """`returned` of the escrow went back to the requester."""
    sessions.give_back(scope, job_id, returned)
    payments.note(scope.treasury, fine_idle(scope, job_id, job))
    suspicion.bet(scope, job, status)
    count_abstentions(scope, job)
    final = job._replace(status=status, escrow=0, final_height=scope.height)
    scope.put_job(job_id, final, before=job.status)
    model = scope.model(job.model)
    receipt = JobReceipt(
        job=job_id,
        requester=job.requester,
        model=job.model,
        provider=job.provider,
        request_digest=job.request_digest,
        result_digest=job.result_digest,
        seed=job.seed,
        status=status,
        height=scope.height,
        input_tokens=job.input_tokens,
        output_tokens=job.output_tokens,
        verdicts=tuple(
            VerdictRecord(
                validator=seat.validator,
                engine_profile=seat.engine_profile,
                verdict=seat.verdict,
                scores=seat.scores,
                thresholds=judged_by(model, job.engine_profile, seat.engine_profile),
                reveal_digest=seat.reveal_digest,
            )
            for seat in job.committee
            if seat.verdict is not None
            and seat.scores is not None
            and seat.reveal_digest is not None
        ),
        payments=payments.listed(),
    )
    scope.job_receipts.append((scope.output.append_receipt(receipt.leaf()), job_id, receipt))


def _provider(job_id: bytes, job: Job) -> bytes:
    if job.provider is None:
        raise RuntimeError(f"job {job_id.hex()} is to be settled without a provider")
    return job.provider


def _collateral(scope: Scope, provider: bytes) -> int:
    account = scope.account(provider)
    return account.stake + account.unbonding
