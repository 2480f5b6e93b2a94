"""What a job brought a provider or a verifier, and why nothing: read off what a node shows."""

from collections.abc import Sequence
from dataclasses import dataclass

from assay.v1 import node_pb2
from chain.execution.choices import Standing
from chain.parameters import Parameters
from chain.records import JobReceipt, JobStatus
from consensus.values import Verdict

FINAL_NAMES = frozenset(
    status.name for status in (JobStatus.VERIFIED, JobStatus.REJECTED, JobStatus.REFUNDED)
)

_LEFT_OUT = {
    Standing.WITHDRAWN.name: ("your offer was withdrawn", "offer a capacity above 0"),
    Standing.OTHER_ASKED_FOR.name: ("the request named another provider", "nothing"),
    Standing.STAKE_TOO_SMALL.name: (
        "your stake was below the least an offer needs",
        "stake more: a slash may have taken some",
    ),
    Standing.TOO_FEW_VERIFIERS.name: (
        "too few verifiers could judge your engine profile's results",
        "offer a profile that more verifiers have a calibrated pair with",
    ),
    Standing.ALREADY_TRIED.name: ("you had the job before, and were late", "see your runtime"),
    Standing.NO_ROOM.name: (
        "as many jobs were open with you as your capacity",
        "raise the capacity, or add a runtime",
    ),
    Standing.ESCROW_TOO_SMALL.name: (
        "the escrow did not reach your price of the longest prompt and output, and verification",
        "lower your prices, if such jobs are worth it to you",
    ),
}


@dataclass(frozen=True, slots=True)
class Reward:
    """What a job brought one provider or verifier. `code` is stable."""

    code: str
    detail: str
    advice: str
    paid: int | None
    """Grain; None while it is open, or where it can't be told from a refund to the same account."""


def reward_of(
    provider: bytes,
    job: node_pb2.JobView,
    choices: Sequence[node_pb2.Explanation.Choice],
    receipt: JobReceipt | None,
    parameters: Parameters,
) -> Reward:
    """Why the provider was paid for the job, or was not. `choices` are those that are kept."""
    mine = [choice for choice in choices if choice.provider == provider]
    if job.provider != provider:
        if mine:
            attempt = mine[-1].attempt
            return Reward(
                "LATE",
                f"you were drawn for attempt {attempt} and did not answer in time",
                "see that your runtime answers, and that your capacity is what it can bear",
                0,
            )
        return _not_drawn(provider, choices)
    if job.status not in FINAL_NAMES or receipt is None:
        return Reward("PENDING", f"the job is {job.status}", "wait until it is settled", None)
    paid = sum(item.amount for item in receipt.payments if item.account == provider)
    if job.requester == provider:
        return Reward("OWN_REQUEST", "you asked for it yourself", "nothing", None)
    if receipt.status is JobStatus.REJECTED:
        failed = [item.validator for item in receipt.verdicts if item.verdict is Verdict.FAIL]
        return Reward(
            "REJECTED",
            f"validators {_listed(failed)} of {len(receipt.verdicts)} that spoke said FAIL",
            "see `assay query job` for their scores; check that your runtime serves the registered "
            "package with the profile you offer",
            paid,
        )
    if receipt.status is JobStatus.REFUNDED:
        spoke = len(receipt.verdicts)
        return Reward(
            "NOT_JUDGED",
            f"you answered, and {spoke} verifiers said something: too few to rule",
            "nothing of yours is at fault; offer a profile that more verifiers can judge",
            paid,
        )
    short = _short_by(job, mine, receipt, parameters)
    if short:
        return Reward(
            "UNDERPAID",
            f"the tokens and verification came to {short} grain more than the escrow of "
            f"{job.max_price}: the prompt has more tokens than its bytes let expect",
            "set the input price so that it bears the model's chat template",
            paid,
        )
    return Reward("PAID", "verified and paid", "nothing", paid)


def reward_of_verifier(
    validator: int, account: bytes, job: node_pb2.JobView, receipt: JobReceipt | None
) -> Reward:
    """Why a validator was paid for judging the job, or was not. A receipt is there once the job is
    final and has a ruling that is kept."""
    seat = next((seat for seat in job.committee if seat.validator == validator), None)
    if job.status not in FINAL_NAMES or receipt is None:
        if seat is None:
            return Reward("PENDING", f"the job is {job.status}, you have no seat", "wait", None)
        return Reward("PENDING", f"the job is {job.status}, you have a seat", "wait", None)
    if seat is None:
        return _without_seat(validator, account, job, receipt)
    if not seat.committed:
        return Reward(
            "NO_COMMIT",
            "you were drawn, and no commitment of yours came in time",
            "see that your node was up and your runtime answered; it cost no more than the fee",
            0,
        )
    if not seat.verdict:
        return Reward(
            "NO_REVEAL",
            "you committed, and no reveal that opens it came in time: fined a seat's price",
            "see that your node stays up until the round has ended",
            0,
        )
    if seat.voided:
        return Reward(
            "FINGERPRINT_OUT",
            f"nobody bears out the numbers beside your {seat.voided}: fined a seat's price",
            "see that your runtime serves the registered package with the profile it announces",
            0,
        )
    if seat.verdict == Verdict.ABSTAIN.name:
        return Reward("ABSTAINED", "you abstained", "see why in your node's log", 0)
    return _spoken(seat.verdict, account, job, receipt)


def _spoken(verdict: str, account: bytes, job: node_pb2.JobView, receipt: JobReceipt) -> Reward:
    """Of a verifier whose word counted."""
    if receipt.status is JobStatus.REFUNDED:
        return Reward(
            "NOT_RULED",
            f"you said {verdict}, and too few others spoke to rule: nobody is paid",
            "nothing of yours is at fault",
            0,
        )
    prevailed = Verdict.PASS if receipt.status is JobStatus.VERIFIED else Verdict.FAIL
    if verdict != prevailed.name:
        return Reward(
            "OUTVOTED",
            f"you said {verdict}, the committee {prevailed.name}",
            "compare your scores in `assay query job`; what else it may have cost is decision 0024",
            0,
        )
    if account in (job.requester, job.provider):
        return Reward("PAID", f"you said {verdict}; other payments are yours, too", "nothing", None)
    paid = sum(item.amount for item in receipt.payments if item.account == account)
    if not paid:
        return Reward(
            "NOTHING_TO_SHARE",
            f"you said {verdict}, and what was to pay the seats came to nothing",
            "nothing: a provider's collateral was used up",
            0,
        )
    return Reward("PAID", f"you said {verdict}, as the committee", "nothing", paid)


def _without_seat(
    validator: int, account: bytes, job: node_pb2.JobView, receipt: JobReceipt
) -> Reward:
    if not job.committee and receipt.verdicts:  # its row has left the state
        word = next((item for item in receipt.verdicts if item.validator == validator), None)
        if word is None:
            return Reward(
                "NOT_KEPT",
                "the committee is not kept any more, and the receipt has no word of yours",
                "ask sooner: rows of jobs leave the state some blocks after their end",
                None,
            )
        if word.verdict is Verdict.ABSTAIN:
            return Reward("ABSTAINED", "you abstained, or your word was voided", "nothing", 0)
        return _spoken(word.verdict.name, account, job, receipt)
    if account == job.provider:
        return Reward("OWN_ANSWER", "you answered it yourself", "nothing", 0)
    if job.provider and job.operator == validator and job.committee:
        return Reward("OPERATOR", "its provider names you as its operator", "nothing", 0)
    return Reward("NOT_DRAWN", "you were not drawn for its committee", "nothing", 0)


def _not_drawn(provider: bytes, choices: Sequence[node_pb2.Explanation.Choice]) -> Reward:
    if not choices:
        return Reward(
            "NOT_KEPT",
            "this node has not kept how the job was assigned",
            "ask a node that executed its block and has not pruned it",
            0,
        )
    last = choices[-1]
    for item in last.candidates:
        if item.provider != provider:
            continue
        if item.standing in _LEFT_OUT:
            detail, advice = _LEFT_OUT[item.standing]
            return Reward(item.standing, detail, advice, 0)
        total = sum(int(other.weight) for other in last.candidates)
        return Reward(
            "NOT_DRAWN",
            f"you took part with {100 * int(item.weight) // total}% of the weight, and the beacon "
            "drew another",
            "a lower price, more stake up to the cap, free capacity and a good record weigh more",
            0,
        )
    if not last.complete:
        return Reward("NOT_KEPT", "more offers stood than were written down", "nothing", 0)
    return Reward("NO_OFFER", "you had no offer for this model", "make one", 0)


def _short_by(
    job: node_pb2.JobView,
    mine: Sequence[node_pb2.Explanation.Choice],
    receipt: JobReceipt,
    parameters: Parameters,
) -> int:
    """By how much the escrow fell short of what was used; 0 if it did not, or that is not kept."""
    seats = sum(seat.round == 0 for seat in job.committee)
    if not mine or not seats:
        return 0
    asked = next(item for item in mine[-1].candidates if item.provider == job.provider)
    price = (
        receipt.input_tokens * asked.input_price
        + receipt.output_tokens * asked.output_price
        + seats * parameters.seat_price(receipt.input_tokens, receipt.output_tokens)
    )
    return max(0, price - job.max_price)


def _listed(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers)) or "none"
