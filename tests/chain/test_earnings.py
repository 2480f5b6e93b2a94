"""Why a provider was paid for a job or not, of each way that a job can go."""

from pathlib import Path

import pytest

from chain.earnings import Reward, reward_of
from chain.execution import BlockOutcome
from chain.node.views import explanation, job_view
from chain.records import JobReceipt
from consensus.values import Verdict
from tests.chain.ledger_world import (
    FAIL,
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
