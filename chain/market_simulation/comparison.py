"""A strategy against honesty: the same market, the same beacons, twice."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean, stdev

from chain.market_simulation.assumptions import Assumptions
from chain.market_simulation.market import Market, Played
from chain.market_simulation.scenarios import Scenario
from chain.market_simulation.strategies import HONEST_PROVIDER, HONEST_VERIFIER


@dataclass(frozen=True, slots=True)
class Spread:
    """Over seeds: mean, standard deviation, extremes."""

    mean: float
    deviation: float
    least: float
    greatest: float


@dataclass(frozen=True, slots=True)
class Comparison:
    """What a strategy earns a part, and what honesty would have earned there. Grain."""

    name: str
    scenario: Scenario
    strategy: Spread
    honest: Spread
    margin: Spread
    """Honest less strategy, seed by seed: above 0, honesty pays."""
    honest_cost: float
    """Of the work of one part, done honestly: the unit of `margin_over_cost`."""
    parts: float
    """Of the strategy, a run."""
    honest_parts: float
    others: float
    """What a verifier outside of the group earned a seat beside the strategy."""
    others_beside_honest: float
    wrong_passes: float
    """Seats that passed what two thirds failed, a part."""
    wrong_fails: float
    """Seats that failed what was then verified, a part."""
    traps: int
    frauds_passed: int
    statuses: tuple[int, int, int]
    """Jobs verified, rejected, refunded with the strategy, over all seeds."""

    @property
    def margin_over_cost(self) -> float:
        """Mean margin in units of the honest work of one part; 0 if nobody was drawn for any."""
        return self.margin.mean / self.honest_cost if self.honest_cost else 0.0

    @property
    def honesty_pays(self) -> bool:
        """Whether the strategy earned less than honesty with every seed."""
        return self.margin.least > 0


@dataclass(slots=True)
class Arena:
    """Where markets are played; each only once, so that baselines are shared."""

    assumptions: Assumptions
    seeds: Sequence[int]
    _played: dict[tuple[Scenario, int], Played] = field(default_factory=dict)

    def play(self, scenario: Scenario, seed: int) -> Played:
        """One run."""
        key = scenario, seed
        if key not in self._played:
            self._played[key] = Market(scenario, self.assumptions, seed).play()
        return self._played[key]

    def compare(self, name: str, scenario: Scenario) -> Comparison:
        """The scenario as it is, and with an honest group, once a seed each.

        Parts are a provider's jobs; a group without a provider has its seats. Both runs are divided
        by the honest run's parts: whoever loses business by cheating has lost it.
        """
        honest = as_honest(scenario)
        pairs = [(self.play(scenario, seed), self.play(honest, seed)) for seed in self.seeds]
        divisors = [_parts(scenario, base) for _, base in pairs]
        strategy = [run.profit / parts for (run, _), parts in zip(pairs, divisors, strict=True)]
        base = [run.profit / parts for (_, run), parts in zip(pairs, divisors, strict=True)]
        first, second, third = zip(*(run.statuses for run, _ in pairs), strict=True)
        return Comparison(
            name=name,
            scenario=scenario,
            strategy=spread(strategy),
            honest=spread(base),
            margin=spread([good - bad for good, bad in zip(base, strategy, strict=True)]),
            honest_cost=fmean(
                run.spent / parts for (_, run), parts in zip(pairs, divisors, strict=True)
            ),
            parts=fmean(_parts(scenario, run) for run, _ in pairs),
            honest_parts=fmean(divisors),
            others=fmean(_others(run) for run, _ in pairs),
            others_beside_honest=fmean(_others(run) for _, run in pairs),
            wrong_passes=sum(run.wrong_passes for run, _ in pairs) / sum(divisors),
            wrong_fails=sum(run.wrong_fails for run, _ in pairs) / sum(divisors),
            traps=sum(run.traps for run, _ in pairs),
            frauds_passed=sum(run.frauds_passed for run, _ in pairs),
            statuses=(sum(first), sum(second), sum(third)),
        )


def as_honest(scenario: Scenario) -> Scenario:
    """The same market with an honest group."""
    providers, verifiers = scenario.group_providers, scenario.group_verifiers
    return replace(
        scenario,
        providers=(HONEST_PROVIDER,) * providers + scenario.providers[providers:],
        verifiers=(HONEST_VERIFIER,) * verifiers + scenario.verifiers[verifiers:],
    )


def spread(values: Sequence[float]) -> Spread:
    """Of at least one value."""
    deviation = stdev(values) if len(values) > 1 else 0.0
    return Spread(fmean(values), deviation, min(values), max(values))


def _parts(scenario: Scenario, played: Played) -> int:
    return max(1, played.provider_parts if scenario.group_providers else played.verifier_parts)


def _others(played: Played) -> float:
    return played.others_profit / max(1, played.others_parts)
