"""Which comparisons a report makes: all strategies with default rules, then rules turned."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

from chain.market_simulation.assumptions import MILLION, Assumptions
from chain.market_simulation.scenarios import Scenario, Work
from chain.market_simulation.strategies import (
    ACCOMPLICE,
    HONEST_PROVIDER,
    HONEST_VERIFIER,
    LAZY_TOGETHER,
    PROVIDERS,
    VERIFIERS,
    Numbers,
    ProviderStrategy,
    VerifierStrategy,
    Words,
)
from chain.parameters import Parameters

FRAUD: Final = ProviderStrategy("int4 weights", fraud="int4")
ABSTAINS: Final = next(row for row in VERIFIERS if row.name == "abstains")
LAZY: Final = next(row for row in VERIFIERS if row.name == "lazy")


@dataclass(frozen=True, slots=True)
class Sweep:
    """One number turned, everything else left alone."""

    name: str
    unit: str
    values: tuple[int, ...]
    scenarios: Callable[[Scenario, int], list[tuple[str, Scenario]]]
    """(name of the curve, scenario) at a value."""


def by_provider(base: Scenario, strategy: ProviderStrategy) -> Scenario:
    """One provider of this strategy among honest people."""
    honest = len(base.providers) - 1
    return replace(base, providers=(strategy, *(HONEST_PROVIDER,) * honest), group_providers=1)


def by_verifiers(base: Scenario, strategy: VerifierStrategy, count: int) -> Scenario:
    """So many verifiers of this strategy among honest people; no provider in the group."""
    honest = len(base.verifiers) - count
    return replace(
        base,
        verifiers=(strategy,) * count + (HONEST_VERIFIER,) * honest,
        providers=(HONEST_PROVIDER,) * len(base.providers),
        group_providers=0,
        group_verifiers=count,
    )


def cartel(base: Scenario, count: int) -> Scenario:
    """A provider with int4 weights, and so many verifiers that pass it."""
    return by_provider(by_verifiers(base, ACCOMPLICE, count), FRAUD)


def strategies(base: Scenario, trap_jobs: int) -> Iterator[tuple[str, Scenario]]:
    """Every strategy, alone; those that need company with up to the greatest count below a third,
    and, to show what more can do, below a half. What only traps find is played for `trap_jobs`."""
    longer = replace(base, jobs=max(base.jobs, trap_jobs))
    for provider in PROVIDERS:
        yield f"provider: {provider.name}", by_provider(base, provider)
    for verifier in VERIFIERS:
        told = verifier.numbers is Numbers.TRUE and not verifier.works
        market = longer if told and verifier.words is Words.PASS else base
        yield f"verifier: {verifier.name}", by_verifiers(market, verifier, 1)
    for count in group_sizes(len(base.verifiers)):
        share = f"{count} of {len(base.verifiers)}"
        lazy = by_verifiers(longer, LAZY_TOGETHER, count)
        yield f"verifiers: {LAZY_TOGETHER.name}, {share}", lazy
        yield f"provider and verifiers: int4 weights passed, {share}", cartel(base, count)


def group_sizes(verifiers: int) -> tuple[int, ...]:
    """Just under a third, just under a half, just over a half."""
    return tuple(sorted({max(1, (verifiers - 1) // 3), max(1, (verifiers - 1) // 2)}))


def sweeps(verifiers: int) -> tuple[Sweep, ...]:
    """Rules and market turned one by one."""
    return (
        Sweep(
            "verification_price",
            "grain a seat",
            (200_000, 300_000, 500_000, 1_000_000, 4_000_000),
            _with_verification_price,
        ),
        Sweep("slash_bps", "basis points", (0, 1, 100, 1_000), _with_slash),
        Sweep(
            "stake_min_per_offer",
            "grain",
            (10**6, 10**7, 10**9, 10**11),
            _with_stake,
        ),
        Sweep(
            "adversaries",
            "verifiers of one group",
            tuple(range(1, verifiers // 2 + 2)),
            _with_adversaries,
        ),
        Sweep("output_price", "grain a token", (100, 1_000, 10_000, 100_000), _with_output_price),
        Sweep("output_tokens", "tokens a job", (16, 128, 448, 1_024), _with_output_tokens),
    )


def detections() -> tuple[int, ...]:
    """Shares (ppm) of frauds whose evidence shows."""
    return (0, 50_000, 200_000, 500_000, MILLION)


def with_detection(assumptions: Assumptions, detection_ppm: int) -> Assumptions:
    """Every class of fraud shows in this share of jobs."""
    return replace(
        assumptions, detection_ppm=dict.fromkeys(assumptions.detection_ppm, detection_ppm)
    )


def _alone(base: Scenario, strategies: Sequence[VerifierStrategy]) -> list[tuple[str, Scenario]]:
    return [(row.name, by_verifiers(base, row, 1)) for row in strategies]


def _with_verification_price(base: Scenario, value: int) -> list[tuple[str, Scenario]]:
    turned = replace(base, parameters=Parameters(verification_price=value))
    company = by_verifiers(turned, LAZY_TOGETHER, group_sizes(len(base.verifiers))[0])
    return [*_alone(turned, (LAZY, ABSTAINS)), (LAZY_TOGETHER.name, company)]


def _with_slash(base: Scenario, value: int) -> list[tuple[str, Scenario]]:
    turned = replace(base, parameters=Parameters(slash_bps=value))
    return [(FRAUD.name, by_provider(turned, FRAUD))]


def _with_stake(base: Scenario, value: int) -> list[tuple[str, Scenario]]:
    parameters = Parameters(stake_min_per_offer=value, stake_weight_cap=100 * value)
    return [(FRAUD.name, by_provider(replace(base, parameters=parameters), FRAUD))]


def _with_adversaries(base: Scenario, value: int) -> list[tuple[str, Scenario]]:
    return [
        (LAZY_TOGETHER.name, by_verifiers(base, LAZY_TOGETHER, value)),
        ("int4 weights passed", cartel(base, value)),
    ]


def _with_output_price(base: Scenario, value: int) -> list[tuple[str, Scenario]]:
    work = Work(input_price=value // 10, output_price=value)
    turned = replace(base, work=work)
    return [(row.name, by_provider(turned, row)) for row in PROVIDERS if row.name == "no answer"]


def _with_output_tokens(base: Scenario, value: int) -> list[tuple[str, Scenario]]:
    return _alone(replace(base, work=Work(output_tokens=value)), (ABSTAINS,))
