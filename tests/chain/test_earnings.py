"""Why a provider was paid for a job or not, of each way that a job can go."""

from pathlib import Path

import pytest

from chain.earnings import Reward, reward_of, reward_of_verifier
from chain.execution import BlockOutcome
from chain.node.views import explanation, job_view
from chain.records import JobReceipt
from consensus.values import Verdict
from tests.chain.ledger_world import (
    ABSTAIN,
    FAIL,
    PASS,
    PASS_ALL,
    PROVIDERS,
    World,
    a_request,
    a_result,
    an_offer,
    least_price,
    receipt_for,
)
from tests.chain.node.agents import store_of


def told(
    world: World,
    folder: Path,
    job: bytes,
    blocks: list[BlockOutcome],
    provider: bytes = PROVIDERS[0],
    receipt: JobReceipt | None = None,
) -> Reward:
    with store_of(folder) as (store, chain):
        for outcome in blocks:
            chain.commit(payloads=outcome.payloads)
        view = job_view(job, world.job(job), store)
        choices = list(explanation(job, None, 3, store).choices)
    return reward_of(provider, view, choices, receipt, world.parameters)


@pytest.mark.parametrize(
    ("verdicts", "code"),
    [(PASS_ALL, "PAID"), ((FAIL,) * 3, "REJECTED"), ((None,) * 3, "NOT_JUDGED")],
)
def test_an_answered_job_is_paid_by_its_verdicts(
    tmp_path: Path, verdicts: tuple[Verdict | None, ...], code: str
) -> None:
    world = World()
    world.open_market()
    job = world.request()
    blocks = [world.block()]
    world.answer(job)
    assert told(world, tmp_path / "open", job, blocks).code == "PENDING"
    ruled = world.vote(job, verdicts)
    while world.job(job).escrow:
        ruled = world.block(after_ms=world.parameters.reveal_within_ms + 1)
    reward = told(world, tmp_path / "final", job, blocks, receipt=receipt_for(ruled, job))
    assert reward.code == code
    assert bool(reward.paid) is (code == "PAID")


def test_a_long_prompt_beyond_the_escrow_is_told_as_underpaid_to_the_grain(tmp_path: Path) -> None:
    world = World()
    world.open_market()
    world.do(PROVIDERS[0], an_offer(price=10_000_000))
    floor = least_price(a_request(), price=10_000_000)
    job = world.request(a_request(max_price=floor))
    blocks = [world.block()]
    result = a_result()
    result.input_tokens = 400
    world.answer(job, result)
    ruled = world.vote(job, PASS_ALL)
    reward = told(world, tmp_path, job, blocks, receipt=receipt_for(ruled, job))
    tokens = result.input_tokens * 10_000_000 + 8 * 20_000_000
    seats = 3 * world.parameters.seat_price(result.input_tokens, 8)
    assert reward.code == "UNDERPAID"
    assert f"{tokens + seats - floor} grain more" in reward.detail


def test_who_was_late_and_who_was_left_out_are_told_so(tmp_path: Path) -> None:
    world = World()
    world.open_market(providers=PROVIDERS)
    world.do(PROVIDERS[2], an_offer(capacity=0))
    job = world.request()
    blocks = [world.block()]
    late = world.job(job).provider
    assert late is not None
    world.block(after_ms=60_001)
    blocks.append(world.block())
    reasons = {
        name: told(world, tmp_path / name.hex(), job, blocks, name).code for name in PROVIDERS
    }
    (second,) = set(PROVIDERS[:2]) - {late}
    assert reasons == {late: "LATE", second: "PENDING", PROVIDERS[2]: "WITHDRAWN"}
    assert told(world, tmp_path / "forgot", job, [], PROVIDERS[2]).code == "NOT_KEPT"


def verifier_told(
    world: World, folder: Path, job: bytes, seat: int, receipt: JobReceipt | None
) -> Reward:
    with store_of(folder) as (store, _):
        view = job_view(job, world.job(job), store)
    return reward_of_verifier(seat, world.ledger.validators.by_index[seat].account, view, receipt)


def end_of(world: World, job: bytes, ruled: BlockOutcome) -> JobReceipt:
    while world.job(job).escrow:
        ruled = world.block(after_ms=world.parameters.reveal_within_ms + 1)
    return receipt_for(ruled, job)


def test_who_spoke_with_the_committee_is_told_what_it_was_paid(tmp_path: Path) -> None:
    world = World(validators=6)
    job = world.answered_job()
    receipt = end_of(world, job, world.vote(job, PASS_ALL))
    paid = {item.account: item.amount for item in receipt.payments}
    for index, member in world.ledger.validators.by_index.items():
        reward = verifier_told(world, tmp_path / str(index), job, index, receipt)
        if index in world.seats(job):
            assert (reward.code, reward.paid) == ("PAID", paid[member.account])
        else:
            named = index == world.job(job).operator
            assert (reward.code, reward.paid) == ("OPERATOR" if named else "NOT_DRAWN", 0)


@pytest.mark.parametrize(
    ("verdicts", "codes"),
    [
        ((None, PASS, PASS), ["NO_COMMIT", "PAID", "PAID"]),
        ((ABSTAIN, PASS, PASS), ["ABSTAINED", "PAID", "PAID"]),
        ((PASS, FAIL, FAIL), ["OUTVOTED", "PAID", "PAID"]),
        ((PASS, None, None), ["NOT_RULED", "NO_COMMIT", "NO_COMMIT"]),
    ],
)
def test_each_seat_of_a_small_committee_is_told_its_own_reason(
    tmp_path: Path, verdicts: tuple[Verdict | None, ...], codes: list[str]
) -> None:
    world = World(validators=4)
    job = world.answered_job()
    ruled = world.vote(job, verdicts)
    receipt = end_of(world, job, ruled)
    told_codes = [
        verifier_told(world, tmp_path / str(seat), job, seat, receipt).code
        for seat in world.seats(job)
    ]
    assert told_codes == codes


def test_who_commits_and_never_reveals_is_told_so(tmp_path: Path) -> None:
    world = World(validators=4)
    job = world.answered_job()
    world.seat_committee(job)
    seats = world.seats(job)
    for seat in seats:
        world.commit(job, seat, PASS)
    world.block()
    for seat in seats[1:]:
        world.reveal(job, seat)
    open_reward = verifier_told(world, tmp_path / "open", job, seats[0], None)
    receipt = end_of(world, job, world.block())
    reward = verifier_told(world, tmp_path / "final", job, seats[0], receipt)
    assert (open_reward.code, reward.code, reward.paid) == ("PENDING", "NO_REVEAL", 0)


def test_whose_numbers_nobody_bears_out_is_told_so_and_what_is_forgotten_is_not_guessed(
    tmp_path: Path,
) -> None:
    world = World(validators=4)
    job = world.answered_job()
    receipt = end_of(world, job, world.vote(job, PASS_ALL))
    seat = world.seats(job)[0]
    account = world.ledger.validators.by_index[seat].account
    with store_of(tmp_path) as (store, _):
        view = job_view(job, world.job(job), store)
    view.committee[0].voided, view.committee[0].verdict = "PASS", "ABSTAIN"
    assert reward_of_verifier(seat, account, view, receipt).code == "FINGERPRINT_OUT"
    del view.committee[:]
    assert reward_of_verifier(seat, account, view, receipt).code == "PAID"
    assert reward_of_verifier(99, bytes(32), view, receipt).code == "NOT_KEPT"
