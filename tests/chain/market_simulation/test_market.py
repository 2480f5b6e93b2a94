"""The market simulation: real ledger, agents that do what their rows say, the same grains again."""

from dataclasses import replace

import pytest

from chain.market_simulation.assumptions import MILLION, Assumptions, read_reports
from chain.market_simulation.catalogue import FRAUD, LAZY, by_provider, by_verifiers, strategies
from chain.market_simulation.comparison import Arena
from chain.market_simulation.market import FUNDS, Market
from chain.market_simulation.report import break_even_slash
from chain.market_simulation.scenarios import Scenario
from chain.market_simulation.strategies import PROVIDERS, VERIFIERS, VerifierStrategy
from chain.parameters import Parameters

BASE = Scenario(group_providers=1, jobs=4)
SLASH_BPS = Parameters().slash_bps
TRAPS_PPM = 10_000
"""What the treasury pays for."""
MANY_TRAPS_PPM = 300_000
"""So that a short run has some."""


def undisturbed() -> Assumptions:
    """Nobody is ever down or wrong, and every fraud shows."""
    measured = read_reports()
    return replace(
        measured,
        detection_ppm=dict.fromkeys(measured.detection_ppm, MILLION),
        false_rejection_ppm=0,
        down_ppm=0,
        crash_ppm=0,
    )


def verifier(name: str) -> VerifierStrategy:
    return next(row for row in VERIFIERS if row.name == name)


def seat_profit(strategy: VerifierStrategy) -> float:
    """Grain a seat of one such verifier, where nothing else goes wrong."""
    scenario = replace(by_verifiers(BASE, strategy, 1), jobs=12)
    return Arena(undisturbed(), [1]).compare("", scenario).strategy.mean


def test_the_same_seed_gives_the_same_ledger_and_another_seed_another() -> None:
    scenario = by_provider(BASE, FRAUD)
    first, again, other = (Market(scenario, read_reports(), seed).play() for seed in (7, 7, 8))
    assert first == again
    assert first.execution_root != other.execution_root


def test_money_is_only_moved_whatever_the_agents_do() -> None:
    market = Market(by_provider(BASE, FRAUD), undisturbed(), 1)
    market.play()
    supply = market.ledger.supply()
    held = sum(a.balance + a.stake + a.unbonding for _, a in market.ledger.accounts())
    assert held + supply.burned == supply.issued
    assert supply.issued % FUNDS == 0


def test_an_honest_verifier_earns_the_price_of_its_seat_less_its_work() -> None:
    assumed = undisturbed()
    price = Parameters().seat_price(BASE.work.input_tokens, BASE.work.output_tokens)
    work = assumed.generation_cost * BASE.work.output_tokens
    verification = work * assumed.verify_over_generate_ppm // MILLION
    scenario = by_verifiers(BASE, LAZY, 1)
    assert Arena(assumed, [1]).compare("", scenario).honest.mean == price - verification


def test_a_fraud_that_always_shows_is_rejected_and_slashed_every_time() -> None:
    played = Market(by_provider(BASE, FRAUD), undisturbed(), 2).play()
    verified, rejected, refunded = played.statuses
    assert (verified, rejected, refunded) == (4 - played.provider_parts, played.provider_parts, 0)
    assert played.provider_parts > 0
    assert played.frauds_passed == 0
    # The wave's jobs are slashed one after the other, each from what the last has left.
    stake = Parameters().stake_min_per_offer
    assert played.profit < -played.provider_parts * stake * SLASH_BPS // 10_000 // 2


def test_a_fraud_that_never_shows_earns_what_it_saves() -> None:
    hidden = replace(undisturbed(), detection_ppm=dict.fromkeys(read_reports().detection_ppm, 0))
    comparison = Arena(hidden, [2]).compare("", by_provider(BASE, FRAUD))
    work = hidden.generation_cost * BASE.work.output_tokens
    saved = work - work * hidden.cost_of_fraud_ppm["int4"] // MILLION
    assert comparison.margin.mean == -saved
    assert not comparison.honesty_pays


@pytest.mark.parametrize("name", ["lazy", "copies commits and reveals"])
def test_who_feigns_work_pays_as_much_as_it_would_have_earned(name: str) -> None:
    price = Parameters().seat_price(BASE.work.input_tokens, BASE.work.output_tokens)
    assert seat_profit(verifier(name)) == -price


def test_who_abstains_earns_nothing() -> None:
    assert seat_profit(verifier("abstains")) == 0


def test_who_works_and_never_reveals_has_only_the_cost() -> None:
    assert seat_profit(verifier("works, never reveals")) < 0


def test_with_default_parameters_honesty_pays_against_every_strategy() -> None:
    market = Scenario(group_providers=1, jobs=12, traps_ppm=MANY_TRAPS_PPM)
    arena = Arena(read_reports(), [1])
    for name, scenario in strategies(market, trap_jobs=60):
        compared = arena.compare(name, scenario)
        assert compared.margin.least > 0, name
        needed = break_even_slash(compared)
        if needed is not None:
            # With fewer traps a penalty has to be so much the greater; twice that is still covered.
            fewer = MANY_TRAPS_PPM // TRAPS_PPM
            assert 2 * fewer * needed < Parameters().wrong_pass_slash, name


def test_a_provider_that_asks_itself_pays_for_it() -> None:
    asks = next(row for row in PROVIDERS if row.name == "asks itself")
    comparison = Arena(undisturbed(), [1]).compare("", by_provider(BASE, asks))
    assert comparison.honesty_pays


def test_a_group_must_have_somebody_in_it() -> None:
    with pytest.raises(ValueError, match="the group is empty"):
        Scenario()
