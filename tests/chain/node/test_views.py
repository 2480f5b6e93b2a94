"""What the public API shows is what the ledger and the store hold."""

from dataclasses import fields
from pathlib import Path

from assay.v1 import inference_pb2, transactions_pb2
from chain.execution.jobs import result_digest
from chain.node.views import (
    account_view,
    block_view,
    explanation,
    job_view,
    model_view,
    offer_view,
    settled_job_view,
    transaction_receipt,
)
from chain.records import JobStatus
from consensus.values import Scores, Verdict
from tests.chain.finished_job import JOB, JOB_HEIGHT, RESULT, job_receipt
from tests.chain.ledger_world import (
    ALICE,
    FUNDS,
    MODEL,
    PASS_ALL,
    PROFILE,
    PROVIDERS,
    World,
    a_registration,
    a_result,
    an_offer,
)
from tests.chain.node.agents import store_of


def test_an_account_shows_what_it_holds() -> None:
    world = World()
    world.do(ALICE, transactions_pb2.Stake(amount=70))
    world.do(ALICE, transactions_pb2.Unstake(amount=30))
    account = world.ledger.account(ALICE)
    view = account_view(ALICE, account)
    assert (view.account, view.stake, view.unbonding) == (ALICE, 40, 30)
    assert view.balance == account.balance < FUNDS
    assert view.unbonding_until_ms == account.unbonding_until_ms > world.ledger.timestamp_ms


def test_a_model_shows_its_registration_and_its_verifiers() -> None:
    world = World()
    world.open_market()
    model = world.ledger.model(MODEL)
    assert model is not None
    view = model_view(MODEL, model, world.ledger.verifiers(MODEL))
    registered = a_registration()
    for name in ("model", "name", "context_tokens", "royalty_bps", "pairs", "parameters"):
        assert getattr(view, name) == getattr(registered, name)
    shown = [(verifier.validator, verifier.engine_profile) for verifier in view.verifiers]
    assert shown == [(index, PROFILE) for index in range(5)]


def test_an_offer_shows_its_price_and_its_record() -> None:
    world = World()
    world.vote(world.answered_job(), PASS_ALL)
    offer = world.ledger.offer(MODEL, PROVIDERS[0])
    assert offer is not None
    view = offer_view(MODEL, PROVIDERS[0], offer)
    assert (view.model, view.provider) == (MODEL, PROVIDERS[0])
    assert (view.input_price, view.output_price, view.capacity) == (1_000, 2_000, 2)
    assert (view.completed, view.failed, view.open_jobs) == (1, 0, 0)
    assert view.engine_profile == PROFILE


def test_a_job_shows_its_life(tmp_path: Path) -> None:
    world = World()
    world.open_market()
    identity = world.request()
    with store_of(tmp_path) as (store, chain):
        waiting = job_view(identity, world.job(identity), store)
        assert (waiting.status, waiting.provider, waiting.seed) == ("REQUESTED", b"", b"")
        assert not waiting.HasField("result")
        assert waiting.requester == ALICE
        assert waiting.escrow == waiting.max_price > 0
        world.block()
        world.answer(identity)
        data = a_result().SerializeToString()
        world.vote(identity, PASS_ALL)
        chain.commit(payloads=((result_digest(data), data),))
        job = world.job(identity)
        view = job_view(identity, job, store)
    assert (view.job, view.status) == (identity, JobStatus.VERIFIED.name)
    assert (view.provider, view.operator, view.attempts) == (PROVIDERS[0], 0, 1)
    assert (view.input_tokens, view.output_tokens) == (6, 8)
    assert (waiting.engine_profile, view.engine_profile) == ("", PROFILE)
    assert (view.escrow, view.seed) == (0, job.seed)
    assert view.result == inference_pb2.InferenceResult.FromString(data)
    assert [seat.validator for seat in view.committee] == [s.validator for s in job.committee]
    for seat, held in zip(view.committee, job.committee, strict=True):
        assert seat.committed
        assert seat.engine_profile == PROFILE
        assert seat.verdict == Verdict.PASS.name
        for item in fields(Scores):
            assert getattr(seat.scores, item.name) == getattr(held.scores, item.name)


def test_a_result_that_is_no_longer_kept_is_left_out(tmp_path: Path) -> None:
    world = World()
    identity = world.answered_job()
    with store_of(tmp_path) as (store, _):
        view = job_view(identity, world.job(identity), store)
    assert view.status == "ANSWERED"
    assert not view.HasField("result")


def test_a_block_shows_its_roots_its_transactions_and_its_signers(tmp_path: Path) -> None:
    with store_of(tmp_path) as (store, chain):
        chain.run_job()
        view = block_view(store, JOB_HEIGHT)
        assert view is not None
        block = chain.blocks[JOB_HEIGHT - 1]
        assert (view.height, view.digest) == (JOB_HEIGHT, block.digest())
        assert view.parent == chain.blocks[JOB_HEIGHT - 2].digest()
        assert view.execution_root == chain.roots[JOB_HEIGHT]
        assert view.transactions == 4  # and one receipt of a job
        assert view.signers == 3
        assert block_view(store, JOB_HEIGHT + 1) is None


def test_a_transaction_is_found_by_its_id(tmp_path: Path) -> None:
    with store_of(tmp_path) as (store, chain):
        commit = chain.commit()
        identity = commit.receipt_leaves[0][1:33]
        found = transaction_receipt(store, identity)
        assert found is not None
        height, receipt = found
        assert (height, receipt.transaction, receipt.accepted) == (chain.height, identity, True)
        assert transaction_receipt(store, bytes(32)) is None


def test_a_job_that_left_the_state_is_shown_from_its_receipt(tmp_path: Path) -> None:
    with store_of(tmp_path) as (store, chain):
        chain.run_job()
        view = settled_job_view(JOB, store)
        assert view is not None
        receipt = job_receipt(RESULT.SerializeToString())
        assert (view.job, view.status) == (JOB, "VERIFIED")
        assert (view.requester, view.provider) == (receipt.requester, receipt.provider)
        assert (view.input_tokens, view.output_tokens) == (12, 4)
        assert view.result == RESULT
        assert settled_job_view(bytes(32), store) is None


def test_a_choice_is_shown_with_every_offer_as_it_stood(tmp_path: Path) -> None:
    world = World()
    world.open_market(providers=PROVIDERS)
    identity = world.request()
    waiting = world.ledger.explain(identity)
    with store_of(tmp_path) as (store, chain):
        chain.commit(payloads=world.block().payloads)
        view = explanation(identity, waiting, 3, store)
        (choice,) = view.choices
        assert (choice.attempt, choice.provider) == (1, world.job(identity).provider)
        assert [item.standing for item in choice.candidates] == ["WEIGHED"] * 3
        assert {item.provider for item in view.now.candidates} == set(PROVIDERS)
        # The state has gone on; what was written down has not.
        world.do(PROVIDERS[0], an_offer(price=7))
        assert explanation(identity, None, 3, store).choices == view.choices
        assert not explanation(MODEL, None, 3, store).choices
