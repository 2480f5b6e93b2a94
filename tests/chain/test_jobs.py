"""The life of a job up to its audit: asked, assigned, answered, paid for, or given back."""

import pytest

from assay.v1 import transactions_pb2 as pb
from chain.execution.jobs import request_digest, result_digest
from chain.execution.lifecycle import assignment_weights
from chain.execution.scope import Scope, Taker
from chain.parameters import Parameters
from chain.records import JobStatus, Offer
from chain.rejections import RejectionReason
from chain.state import State
from ext.hashing import tagged_hash
from tests.chain.ledger_world import (
    ALICE,
    CHAIN,
    MAX_PRICE,
    MODEL,
    OWNER,
    PASS,
    PASS_ALL,
    PROFILE,
    PROVIDERS,
    SEAT_PRICE,
    TREASURY,
    World,
    a_request,
    a_result,
    an_offer,
    balance,
    least_price,
    longest_prompt,
    offer_of,
    receipt_for,
    receipt_of,
    serving,
    total_value,
    validator_set,
)


def test_a_request_escrows_its_highest_price_and_is_assigned_in_the_next_block() -> None:
    world = World()
    world.open_market()
    before = balance(world, ALICE)
    transaction = world.send(ALICE, a_request())
    outcome = world.block()
    fee = receipt_of(outcome, transaction).fee
    (job,) = [key for key, _ in world.ledger.open_jobs()]
    assert world.job(job).status is JobStatus.REQUESTED
    assert world.job(job).escrow == MAX_PRICE
    assert balance(world, ALICE) == before - MAX_PRICE - fee
    assert outcome.wants_blocks
    assert outcome.payloads == ((request_digest(transaction.op_bytes[0]), transaction.op_bytes[0]),)
    world.block()
    assert world.job(job).status is JobStatus.ASSIGNED
    assert world.job(job).provider == PROVIDERS[0]
    assert world.job(job).seed is not None


def test_the_requesters_seed_is_kept_and_else_the_beacon_gives_one() -> None:
    world = World()
    world.open_market()
    chosen = tagged_hash(b"my seed")
    mine, theirs = world.request(a_request(seed=chosen)), world.request()
    world.block()
    assert world.job(mine).seed == chosen
    assert world.job(theirs).seed not in (None, chosen)


def test_a_unanimous_committee_verifies_and_everybody_is_paid_to_the_grain() -> None:
    world = World()
    world.open_market()
    before = {key: balance(world, key) for key in (ALICE, OWNER, PROVIDERS[0], TREASURY)}
    spent_on_fees = 0
    transaction = world.send(ALICE, a_request())
    spent_on_fees += receipt_of(world.block(), transaction).fee
    (job,) = [key for key, _ in world.ledger.open_jobs()]
    world.block()
    answer = world.send(PROVIDERS[0], pb.SubmitResult(job=job, result=a_result()))
    provider_fee = receipt_of(world.block(), answer).fee
    world.seat_committee(job)
    seats = world.seats(job)
    outcome = world.vote(job, [PASS, PASS, PASS])
    receipt = receipt_for(outcome, job)
    assert receipt.status is JobStatus.VERIFIED
    assert [verdict.validator for verdict in receipt.verdicts] == list(seats)
    # 6 input tokens at 1,000 grain, 8 output tokens at 2,000, three seats.
    tokens_price, pot = 22_000, 3 * SEAT_PRICE
    royalty, to_treasury, burned = 1_100, 660, 440
    paid = {payment.account: payment.amount for payment in receipt.payments}
    assert paid[PROVIDERS[0]] == tokens_price - royalty - to_treasury - burned
    assert paid[OWNER] == royalty
    assert paid[TREASURY] == to_treasury
    assert paid[ALICE] == MAX_PRICE - tokens_price - pot
    assert [paid[world.set.members[seat].account] for seat in seats] == [SEAT_PRICE] * 3
    assert sum(paid.values()) + burned == MAX_PRICE
    assert balance(world, ALICE) == before[ALICE] - spent_on_fees - tokens_price - pot
    assert balance(world, PROVIDERS[0]) == before[PROVIDERS[0]] + paid[PROVIDERS[0]] - provider_fee
    assert world.job(job).escrow == 0
    assert offer_of(world, PROVIDERS[0]).completed == 1
    assert total_value(world.ledger) == world.ledger.supply().issued


def test_the_price_never_exceeds_the_escrow() -> None:
    world = World()
    world.open_market()
    floor = least_price(a_request())
    request = a_request(max_price=floor)
    job = world.request(request)
    world.block()
    result = a_result()
    result.input_tokens = longest_prompt(request) + 9  # by a template that is longer than most
    world.answer(job, result)
    world.seat_committee(job)
    for seat in world.seats(job):
        world.commit(job, seat, PASS)
    world.block()
    for seat in world.seats(job):
        world.reveal(job, seat)
    receipt = receipt_for(world.block(), job)
    assert receipt.status is JobStatus.VERIFIED
    paid = {payment.account: payment.amount for payment in receipt.payments}
    assert ALICE not in paid
    left = floor - 3 * world.parameters.seat_price(result.input_tokens, 8)
    assert sum(paid.values()) == floor - left * world.parameters.burn_bps // 10_000


@pytest.mark.parametrize("text", ["Why?", "Why is the sky blue? " * 8])
def test_who_asks_at_the_least_price_pays_a_prompt_of_a_token_a_byte_in_full(text: str) -> None:
    world = World()
    world.open_market()
    request = a_request(text, max_price=least_price(a_request(text)))
    job = world.request(request)
    world.block()
    result = a_result(tokens=16)
    result.input_tokens = longest_prompt(request)
    world.answer(job, result)
    receipt = receipt_for(world.vote(job, PASS_ALL), job)
    paid = {payment.account: payment.amount for payment in receipt.payments}
    price = result.input_tokens * 1_000 + 16 * 2_000
    assert sum(paid.values()) == request.max_price - price * world.parameters.burn_bps // 10_000
    shares = [price * bps // 10_000 for bps in (500, 300, world.parameters.burn_bps)]
    assert paid[PROVIDERS[0]] >= price - sum(shares)


def test_a_prompt_of_token_ids_is_escrowed_by_their_number() -> None:
    world = World()
    world.open_market()
    request = a_request()
    request.input.token_ids.ids.extend([7] * 40)
    request.max_price = 40 * 1_000 + 16 * 2_000 + 3 * world.parameters.seat_price(40, 16)
    assert world.do(ALICE, request).accepted
    request.max_price -= 1
    assert world.do(ALICE, request).reason == RejectionReason.PRICE_TOO_LOW


def test_an_offer_dearer_than_the_escrow_is_not_drawn() -> None:
    world = World()
    world.open_market()
    job_transaction = world.send(ALICE, a_request(max_price=least_price(a_request())))
    world.send(PROVIDERS[0], an_offer(price=50_000))
    assert receipt_of(world.block(), job_transaction).accepted
    outcome = world.block()
    (job,) = [key for key, _ in world.ledger.open_jobs()]
    assert world.job(job).status is JobStatus.REQUESTED
    assert not outcome.wants_blocks
    world.block(after_ms=world.parameters.assign_within_ms + 1)
    assert world.job(job).status is JobStatus.REFUNDED


def test_the_committee_is_drawn_two_blocks_after_the_answer_without_the_operator() -> None:
    world = World(validators=6)
    job = world.answered_job()
    assert world.job(job).status is JobStatus.ANSWERED
    assert world.block().wants_blocks
    assert world.job(job).status is JobStatus.ANSWERED
    world.block()
    record = world.job(job)
    assert record.status is JobStatus.COMMITTING
    assert len(world.seats(job)) == 3
    assert record.operator not in world.seats(job)


def test_a_provider_that_is_a_validator_is_not_on_its_own_committee() -> None:
    world = World(validators=5)
    world.open_market(providers=())
    provider = world.set.members[3].account
    stake = pb.Stake(amount=world.parameters.stake_min_per_offer)
    world.do(provider, stake, an_offer(operator=1))
    job = world.answered_job(a_request(tier=pb.TIER_CRITICAL))
    world.seat_committee(job)
    assert sorted(world.seats(job)) == [0, 2, 4]


def test_a_critical_job_is_audited_by_every_other_verifier() -> None:
    world = World(validators=7)
    job = world.answered_job(a_request(tier=pb.TIER_CRITICAL))
    world.seat_committee(job)
    assert sorted(world.seats(job)) == [1, 2, 3, 4, 5, 6]


def test_verifiers_that_join_after_the_answer_wait_for_the_audit_delay() -> None:
    world = World()
    world.open_market()
    job = world.request()
    world.block()
    for member in world.set.members[:4]:
        world.send(member.account, pb.SetVerifier(model=MODEL, serving=False))
    world.answer(job)
    for _ in range(3):
        outcome = world.block()
    assert world.job(job).status is JobStatus.ANSWERED
    assert not outcome.wants_blocks
    assert outcome.next_deadline_ms == world.job(job).deadline_ms
    world.send(world.set.members[1].account, serving())
    joined = world.block()
    assert joined.wants_blocks
    world.block()
    assert world.job(job).status is JobStatus.ANSWERED
    world.block()
    assert sorted(world.seats(job)) == [1, 4]


def test_without_verifiers_an_answered_job_is_refunded_at_its_deadline() -> None:
    world = World()
    world.open_market()
    before = balance(world, ALICE)
    transaction = world.send(ALICE, a_request())
    fee = receipt_of(world.block(), transaction).fee
    (job,) = [key for key, _ in world.ledger.open_jobs()]
    world.block()
    for member in world.set.members:
        world.send(member.account, pb.SetVerifier(model=MODEL, serving=False))
    world.answer(job)
    world.block()
    world.block()
    world.block(after_ms=world.parameters.audit_within_ms + 1)
    assert world.job(job).status is JobStatus.REFUNDED
    assert balance(world, ALICE) == before - fee


def test_a_missed_deadline_reassigns_to_another_provider() -> None:
    world = World()
    world.open_market(providers=PROVIDERS)
    job = world.request()
    world.block()
    first = world.job(job).provider
    outcome = world.block(after_ms=60_001)
    assert world.job(job).status is JobStatus.REQUESTED
    assert outcome.wants_blocks
    world.block()
    assert world.job(job).status is JobStatus.ASSIGNED
    assert world.job(job).provider not in (first, None)
    assert world.job(job).tried == (first,)
    assert offer_of(world, first).failed == 1
    assert offer_of(world, first).open_jobs == 0


def test_a_provider_that_missed_a_job_does_not_get_it_again() -> None:
    world = World()
    world.open_market()
    job = world.request()
    world.block()
    world.block(after_ms=60_001)
    outcome = world.block()
    assert world.job(job).status is JobStatus.REQUESTED
    assert not outcome.wants_blocks
    world.block(after_ms=world.parameters.assign_within_ms + 1)
    assert world.job(job).status is JobStatus.REFUNDED


def test_jobs_go_by_stake_free_capacity_price_and_record() -> None:
    offer = Offer(
        input_price=999,
        output_price=0,
        capacity=2,
        operator=0,
        engine_profile=PROFILE,
        open_jobs=0,
        completed=0,
        failed=0,
        traps=0,
        standing=500,
    )
    stake = 10**9 - 1
    state = State()
    for index, provider in enumerate(PROVIDERS):
        state.accounts.put(provider, 0, stake * (1 + (index == 1)), 0, 0)
    scope = Scope(
        state=state,
        chain_id=CHAIN,
        parameters=Parameters(stake_weight_cap=2 * stake),
        sets={0: validator_set(4)},
        treasury=TREASURY,
        height=1,
        timestamp_ms=0,
        beacon=bytes(32),
    )

    def weights(*offers: Offer) -> list[int]:
        named = [
            (Taker(provider, MODEL + provider, scope.stake_of(provider), 3), offer)
            for provider, offer in zip(PROVIDERS, offers, strict=False)
        ]
        return assignment_weights(scope, named)

    one = 10**9 * 2 * 1_000 * 500
    more_stake = (2 * stake + 1) * 2 * 1_000 * 500
    assert weights(offer, offer) == [one, more_stake]
    assert weights(offer._replace(open_jobs=1)) == [one // 2]
    assert weights(offer, offer, offer._replace(input_price=1_999)) == [one, more_stake, one // 2]
    assert weights(offer._replace(standing=250)) == [one // 2]
    assert weights(offer._replace(standing=450)) == [one * 9 // 10]
    assert weights() == []


def test_a_job_that_no_provider_answers_is_refunded_after_all_attempts() -> None:
    world = World()
    world.open_market(providers=PROVIDERS)
    job = world.request()
    for attempt in range(1, world.parameters.attempts_max + 1):
        world.block()
        assert world.job(job).attempts == attempt
        outcome = world.block(after_ms=60_001)
    assert receipt_for(outcome, job).status is JobStatus.REFUNDED
    assert world.job(job).escrow == 0
    assert outcome.next_deadline_ms is None


def test_a_pinned_provider_that_stays_silent_is_not_replaced() -> None:
    world = World()
    world.open_market(providers=PROVIDERS)
    job = world.request(a_request(provider=PROVIDERS[1]))
    world.block()
    assert world.job(job).provider == PROVIDERS[1]
    world.block(after_ms=60_001)
    assert world.job(job).status is JobStatus.REFUNDED


def test_capacity_bounds_how_many_jobs_a_provider_holds() -> None:
    world = World()
    world.open_market()
    for _ in range(3):
        world.send(ALICE, a_request())
    world.block()
    world.block()
    statuses = sorted(job.status for _, job in world.ledger.open_jobs())
    assert statuses == [JobStatus.REQUESTED, JobStatus.ASSIGNED, JobStatus.ASSIGNED]
    assigned = [key for key, job in world.ledger.open_jobs() if job.status is JobStatus.ASSIGNED]
    world.answer(assigned[0])
    world.block()
    assert all(job.status is not JobStatus.REQUESTED for _, job in world.ledger.open_jobs())


def test_a_result_counts_only_from_the_assigned_provider_before_the_deadline() -> None:
    world = World()
    world.open_market()
    job = world.request()
    world.block()
    stranger = world.do(PROVIDERS[1], pb.SubmitResult(job=job, result=a_result()))
    assert stranger.reason == RejectionReason.NOT_ASSIGNED_TO_YOU
    transaction = world.send(PROVIDERS[0], pb.SubmitResult(job=job, result=a_result()))
    outcome = world.block()
    assert receipt_of(outcome, transaction).accepted
    assert world.job(job).result_digest == result_digest(a_result().SerializeToString())
    again = world.do(PROVIDERS[0], pb.SubmitResult(job=job, result=a_result()))
    assert again.reason == RejectionReason.JOB_NOT_OPEN
    unknown = world.do(PROVIDERS[0], pb.SubmitResult(job=bytes(32), result=a_result()))
    assert unknown.reason == RejectionReason.UNKNOWN_JOB
    late = world.request()
    world.block()
    world.send(PROVIDERS[0], pb.SubmitResult(job=late, result=a_result()))
    world.block(after_ms=60_001)
    assert world.job(late).status is not JobStatus.ANSWERED


@pytest.mark.parametrize(
    "change",
    [
        {"token_ids": []},
        {"token_ids": list(range(17)), "logprobs": [-1] * 17},
        {"logprobs": [-5] * 7},
        {"logprobs": [1] + [-5] * 7},
        {"finish_reason": 0},
        {"finish_reason": 9},
        {"input_tokens": 0},
        {"input_tokens": 512},
        {"engine_profile": "another"},
        {"text": "x" * 70_000},
    ],
)
def test_an_ill_formed_result_is_refused_and_the_job_stays_assigned(
    change: dict[str, object],
) -> None:
    world = World()
    world.open_market()
    job = world.request()
    world.block()
    result = a_result()
    for name, value in change.items():
        result.ClearField(name)  # type: ignore[arg-type]
        if isinstance(value, list):
            getattr(result, name).extend(value)
        else:
            setattr(result, name, value)
    receipt = world.do(PROVIDERS[0], pb.SubmitResult(job=job, result=result))
    assert receipt.reason == RejectionReason.BAD_RESULT
    assert world.job(job).status is JobStatus.ASSIGNED
