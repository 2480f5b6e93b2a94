"""The report: what was assumed, what every strategy earns, what each rule does to it."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from chain.market_simulation.assumptions import Assumptions
from chain.market_simulation.catalogue import (
    FRAUD,
    by_provider,
    detections,
    strategies,
    sweeps,
    with_detection,
)
from chain.market_simulation.comparison import Arena, Comparison
from chain.market_simulation.scenarios import Scenario

VERSION: Final = 1
SWEEP_SEEDS: Final = 1
Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Options:
    """How much is played."""

    seeds: Sequence[int]
    sweep_jobs: int
    with_sweeps: bool
    trap_jobs: int
    """A run, of strategies that only traps find out: at least so many."""


def build(base: Scenario, assumptions: Assumptions, options: Options, tell: Tell) -> dict[str, Any]:
    """Play everything; a JSON object. `base` says rules and sizes, its strategies are replaced."""
    arena = Arena(assumptions, options.seeds)
    rows = []
    for name, scenario in strategies(base, options.trap_jobs):
        tell(name)
        rows.append(_row(arena.compare(name, scenario)))
    report: dict[str, Any] = {
        "version": VERSION,
        "units": "grain a part: a provider's job, or a verifier's seat where there is no provider",
        "seeds": list(options.seeds),
        "jobs": base.jobs,
        "traps_ppm": base.traps_ppm,
        "providers": len(base.providers),
        "verifiers": len(base.verifiers),
        "work": asdict(base.work),
        "parameters": asdict(base.parameters),
        "assumptions": asdict(assumptions),
        "strategies": rows,
        "honesty_does_not_pay_against": [row["name"] for row in rows if not row["honesty_pays"]],
    }
    if options.with_sweeps:
        report["sweeps"] = _sweeps(base, assumptions, options, tell)
    return report


def lines(report: dict[str, Any]) -> list[str]:
    """The report for people."""
    names = ("strategy", "honest", "margin", "least", "over cost", "others")
    head = f"{'grain a part':<52}" + "".join(f"{name:>15}" for name in names)
    found = [head]
    for row in report["strategies"]:
        mark = "" if row["honesty_pays"] else "  HONESTY DOES NOT PAY"
        found.append(
            f"{row['name']:<52}{row['strategy']['mean']:>15,.0f}{row['honest']['mean']:>15,.0f}"
            f"{row['margin']['mean']:>15,.0f}{row['margin']['least']:>15,.0f}"
            f"{row['margin_over_cost']:>15,.1f}{_change(row['others']):>15,.0f}{mark}"
        )
    return found


def _change(others: dict[str, float]) -> float:
    """What a verifier outside of the group gains a seat by the strategy."""
    return others["beside_strategy"] - others["beside_honest"]


def break_even_slash(comparison: Comparison) -> float | None:
    """The `wrong_pass_slash` at which the strategy would earn what honesty does; None if it passed
    nothing false. Far below the rule's own is safe."""
    if not comparison.wrong_passes:
        return None
    slash = comparison.scenario.parameters.wrong_pass_slash
    return max(0.0, slash - comparison.margin.mean / comparison.wrong_passes)


def _sweeps(
    base: Scenario, assumptions: Assumptions, options: Options, tell: Tell
) -> list[dict[str, Any]]:
    seeds = options.seeds[:SWEEP_SEEDS]
    small = Scenario(
        providers=base.providers,
        verifiers=base.verifiers,
        group_providers=1,
        jobs=options.sweep_jobs,
        traps_ppm=base.traps_ppm,
        work=base.work,
        parameters=base.parameters,
    )
    arena = Arena(assumptions, seeds)
    found = []
    for sweep in sweeps(len(base.verifiers)):
        tell(f"turning {sweep.name}")
        points = [
            {"value": value, "curve": name, **_row(arena.compare(name, scenario))}
            for value in sweep.values
            for name, scenario in sweep.scenarios(small, value)
        ]
        found.append({"name": sweep.name, "unit": sweep.unit, "points": points})
    tell("turning detection")
    points = [
        {
            "value": detection,
            "curve": FRAUD.name,
            **_row(
                Arena(with_detection(assumptions, detection), seeds).compare(
                    FRAUD.name, by_provider(small, FRAUD)
                )
            ),
        }
        for detection in detections()
    ]
    found.append({"name": "detection", "unit": "parts in a million", "points": points})
    return found


def _row(comparison: Comparison) -> dict[str, Any]:
    verified, rejected, refunded = comparison.statuses
    return {
        "name": comparison.name,
        "jobs_a_run": comparison.scenario.jobs,
        "strategy": asdict(comparison.strategy),
        "honest": asdict(comparison.honest),
        "margin": asdict(comparison.margin),
        "margin_over_cost": comparison.margin_over_cost,
        "honesty_pays": comparison.honesty_pays,
        "honest_cost": comparison.honest_cost,
        "parts": comparison.parts,
        "honest_parts": comparison.honest_parts,
        "others": {
            "beside_strategy": comparison.others,
            "beside_honest": comparison.others_beside_honest,
        },
        "wrong_passes": comparison.wrong_passes,
        "wrong_fails": comparison.wrong_fails,
        "traps": comparison.traps,
        "break_even_slash": break_even_slash(comparison),
        "jobs": {"verified": verified, "rejected": rejected, "refunded": refunded},
        "frauds_passed": comparison.frauds_passed,
    }
