"""Play what a profile and a seed name, say how it went, and reduce what fails.

A `Run` names a world completely; the command line that plays it again is `Run.command`.
"""

import re
from dataclasses import asdict, dataclass, replace
from typing import Any, Final, TextIO

from consensus.sim.invariants import InvariantBroken
from consensus.sim.mutants import MUTANTS, planted
from consensus.sim.scenario import Hazard, Misdeed, Scenario, draw
from consensus.sim.world import Fate, World

NOTHING: Final = "none"
"""Stands for no name at all."""


@dataclass(frozen=True, slots=True)
class Run:
    """Everything that decides how a world goes."""

    profile: str
    seed: int
    validators: int
    stakes: tuple[int, ...] | None = None
    only: tuple[str, ...] | None = None
    """Names of the hazards and misdeeds that are kept; None for all that were drawn."""
    mutant: str | None = None

    def scenario(self) -> Scenario:
        """The world. Raises KeyError or ValueError for a name or number that is none."""
        scenario = draw(self.profile, self.seed, self.validators, self.stakes)
        kept = scenario.hazards() if self.only is None else self.only
        for name in scenario.hazards():
            if name not in kept:
                scenario = scenario.without(name)
        return scenario

    def command(self) -> str:
        """The shortest command line that plays this again."""
        words = [
            f"assay sim run --seeds {self.seed}:{self.seed + 1} --validators {self.validators}",
            f"--profile {self.profile}",
        ]
        if self.stakes is not None:
            words.append(f"--stakes {','.join(map(str, self.stakes))}")
        if self.only is not None:
            words.append(f"--only {','.join(self.only) or NOTHING}")
        if self.mutant is not None:
            words.append(f"--mutant {self.mutant}")
        return " ".join(words)


@dataclass(frozen=True, slots=True)
class Verdict:
    """How a run went."""

    run: Run
    violation: str | None
    """What the invariants said; None if nothing was wrong."""
    hazards: tuple[str, ...]
    stakes: tuple[int, ...]
    byzantine: dict[str, list[str]]
    """Byzantine validators, and what each did."""
    fate: Fate | None
    """None after a violation."""

    def as_json(self) -> dict[str, Any]:
        """For a report."""
        value = asdict(self)
        value["command"] = self.run.command()
        return value


def parse_names(text: str) -> tuple[str, ...]:
    """Hazards and misdeeds, with commas between. Raises ValueError for a name that is none."""
    names = () if text == NOTHING else tuple(text.split(","))
    known = [*Hazard, *Misdeed]
    for name in names:
        if name not in known:
            raise ValueError(
                f"nothing that may go wrong is called {name!r}; known are {', '.join(known)}"
            )
    return names


def play(run: Run, sink: TextIO | None = None) -> Verdict:
    """Play a world to its end."""
    scenario = run.scenario()
    violation: str | None = None
    fate: Fate | None = None
    with planted(run.mutant):
        try:
            fate = World(scenario, sink).run()
        except InvariantBroken as broken:
            violation = str(broken)
    return Verdict(
        run=run,
        violation=violation,
        hazards=tuple(scenario.hazards()),
        stakes=scenario.stakes,
        byzantine={str(index): sorted(misdeeds) for index, misdeeds in scenario.byzantine},
        fate=fate,
    )


def reduced(verdict: Verdict) -> Verdict:
    """A failing run with so few faults that it fails with none of them left out."""
    for name in verdict.hazards:
        kept = tuple(other for other in verdict.hazards if other != name)
        fewer = play(replace(verdict.run, only=kept))
        if fewer.violation is not None:
            return reduced(fewer)
    return verdict


def hunt(name: str, seeds: range) -> Verdict | None:
    """The first seed that catches a mutant for what it does wrong; None if none of them does.

    Another violation than the mutant's own proves nothing about it. KeyError if unknown.
    """
    mutant = MUTANTS[name]
    for seed in seeds:
        verdict = play(Run(mutant.profile, seed, mutant.validators, mutant=name))
        if verdict.violation is not None and re.search(mutant.violation, verdict.violation):
            return verdict
    return None
