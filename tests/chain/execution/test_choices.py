"""Why a job went to one provider and not to another, as every node writes it down."""

from chain.execution import BlockOutcome
from chain.execution.choices import (
    CHOICES_NOTED_MAX,
    Choice,
    Standing,
    choice_key,
    redraw,
)
from chain.parameters import Parameters
from consensus.wire import decode
from tests.chain.ledger_world import (
    ALICE,
    PROVIDERS,
    World,
    a_request,
    an_offer,
    least_price,
    longest_prompt,
)


def choice_in(outcome: BlockOutcome, job: bytes, attempt: int = 1) -> Choice:
    return decode(Choice, dict(outcome.payloads)[choice_key(job, attempt)])


def standings_of(choice: Choice) -> dict[bytes, Standing]:
    return {item.provider: item.standing for item in choice.candidates}


def test_a_draw_is_written_down_with_what_it_was_made_from_and_can_be_drawn_anew() -> None:
    world = World()
    world.open_market(providers=PROVIDERS)
    job = world.request()
    choice = choice_in(world.block(), job)
    weights = [int(item.weight) for item in choice.candidates]
    place = redraw(job, choice.beacon, choice.attempt, weights, choice.complete)
    assert place is not None
    assert choice.provider == world.job(job).provider == choice.candidates[place].provider
    assert choice.complete
    assert standings_of(choice) == dict.fromkeys(PROVIDERS, Standing.WEIGHED)
    (chosen,) = (item for item in choice.candidates if item.provider == choice.provider)
    assert (chosen.output_price, chosen.capacity, chosen.open_jobs) == (2_000, 2, 0)
    tokens = longest_prompt(a_request())
    seats = 3 * world.parameters.seat_price(tokens, 16)
    assert int(chosen.price_needed) == tokens * 1_000 + 16 * 2_000 + seats


def test_an_offer_left_out_of_a_draw_has_its_reason() -> None:
    world = World()
    world.open_market(providers=PROVIDERS)
    first = world.request(a_request(provider=PROVIDERS[0]))
    choice = choice_in(world.block(), first)
    assert standings_of(choice) == {
        PROVIDERS[0]: Standing.WEIGHED,
        PROVIDERS[1]: Standing.OTHER_ASKED_FOR,
        PROVIDERS[2]: Standing.OTHER_ASKED_FOR,
    }
    world.do(PROVIDERS[0], an_offer(capacity=1))
    world.do(PROVIDERS[1], an_offer(capacity=0))
    second = world.request()
    choice = choice_in(world.block(), second)
    assert choice.provider == PROVIDERS[2]
    assert standings_of(choice) == {
        PROVIDERS[0]: Standing.NO_ROOM,
        PROVIDERS[1]: Standing.WITHDRAWN,
        PROVIDERS[2]: Standing.WEIGHED,
    }


def test_who_was_late_is_named_as_tried_in_the_next_draw() -> None:
    world = World()
    world.open_market(providers=PROVIDERS)
    job = world.request()
    world.block()
    late = world.job(job).provider
    assert late is not None
    world.block(after_ms=60_001)
    choice = choice_in(world.block(), job, attempt=2)
    assert standings_of(choice)[late] is Standing.ALREADY_TRIED
    assert choice.provider == world.job(job).provider != late


def test_a_job_that_waits_shows_how_offers_stand_and_a_refund_says_why() -> None:
    world = World()
    world.open_market()
    world.send(ALICE, a_request(max_price=least_price(a_request())))
    world.send(PROVIDERS[0], an_offer(price=50_000))
    world.block()
    (job,) = (key for key, _ in world.ledger.open_jobs())
    waiting = world.ledger.explain(job)
    assert waiting is not None
    assert standings_of(waiting) == {PROVIDERS[0]: Standing.ESCROW_TOO_SMALL}
    choice = choice_in(world.block(after_ms=world.parameters.assign_within_ms + 1), job)
    assert choice.provider is None
    assert standings_of(choice) == {PROVIDERS[0]: Standing.ESCROW_TOO_SMALL}
    assert world.ledger.explain(job) is None


def test_a_busy_block_writes_down_no_more_draws_than_its_bound() -> None:
    world = World(parameters=Parameters(stake_min_per_offer=0))
    world.open_market()
    world.do(PROVIDERS[0], an_offer(capacity=1_000))
    for _ in range(CHOICES_NOTED_MAX + 3):
        world.send(ALICE, a_request())
    world.block()
    outcome = world.block()
    assert len(outcome.payloads) == CHOICES_NOTED_MAX
    assert all(job.provider == PROVIDERS[0] for _, job in world.ledger.open_jobs())
