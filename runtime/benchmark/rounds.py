"""The rounds: everything in turn, for each number in flight, until there are enough of them."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from runtime.benchmark import meters
from runtime.benchmark.costs import NINTH_TENTH, Cost, quantile, ratios, rounded, spread
from runtime.benchmark.meters import MIB, Meter
from runtime.benchmark.subjects import (
    PROVIDER,
    Provided,
    Subject,
    deadline_s,
    provide,
    requests,
)

MISMATCH_SHARE_MAX: Final = 0.1
"""More replay mismatches than bfloat16 has: what was verified is not what was generated."""
WARM_TOKENS: Final = 4
MILLI: Final = 1000

Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Plan:
    """What to measure."""

    in_flight: tuple[int, ...]
    tokens: int
    rounds: int


@dataclass(slots=True)
class Readings:
    """All rounds at one number in flight."""

    costs: dict[str, list[Cost]] = field(default_factory=dict)
    verified: list[Cost] = field(default_factory=list)
    first_token_s: list[float] = field(default_factory=list)
    generate_peak_bytes: int = 0
    verify_peak_bytes: int = 0


class Rounds:
    """Runs a plan on a subject."""

    def __init__(
        self, subject: Subject, plan: Plan, tell: Tell, meter: Meter = meters.read
    ) -> None:
        self._subject = subject
        self._plan = plan
        self._tell = tell
        self._meter = meter
        self._readings = {count: Readings() for count in plan.in_flight}

    async def run(self) -> dict[int, Readings]:
        """All rounds, after one short one that is not counted. Raises RuntimeError."""
        await self._warm_up()
        for number in range(self._plan.rounds):
            for count in self._plan.in_flight:
                self._tell(f"round {number + 1} of {self._plan.rounds}, {count} in flight")
                await self._round(count, backwards=number % 2 == 1)
        return self._readings

    async def _warm_up(self) -> None:
        self._tell("warming up")
        asked = requests(max(self._plan.in_flight), min(WARM_TOKENS, self._plan.tokens))
        for variant in self._subject.variants:
            await self._subject.run(variant, asked)
        await self._verify(await provide(self._subject.backend, asked))

    async def _round(self, count: int, backwards: bool) -> None:
        asked = requests(count, self._plan.tokens)
        readings = self._readings[count]
        provided: list[Provided] = []

        async def provider() -> int:
            provided.extend(await provide(self._subject.backend, asked))
            return sum(len(one.completion.token_ids) for one in provided)

        order = (*self._subject.variants, PROVIDER)
        meters.forget_peaks()
        for variant in reversed(order) if backwards else order:
            work = provider() if variant == PROVIDER else self._subject.run(variant, asked)
            cost = await self._measured(work)
            if cost.tokens != count * self._plan.tokens:
                raise RuntimeError(f"{variant}: {cost.tokens} tokens of {count} requests")
            readings.costs.setdefault(variant, []).append(cost)
        readings.first_token_s += [one.first_token_s for one in provided]
        peak = meters.peak_bytes()
        readings.generate_peak_bytes = max(readings.generate_peak_bytes, peak)
        meters.forget_peaks()
        readings.verified.append(await self._measured(self._verify(provided)))
        readings.verify_peak_bytes = max(readings.verify_peak_bytes, meters.peak_bytes())

    async def _measured(self, work: Awaitable[int]) -> Cost:
        before = self._meter()
        tokens = await work
        return self._meter().cost_since(before, tokens)

    async def _verify(self, provided: Sequence[Provided]) -> int:
        """All claims at once; returns how many positions were scored."""
        backend = self._subject.backend
        verdicts = await asyncio.gather(
            *(backend.verify(one.asked, one.completion, [0], deadline_s()) for one in provided)
        )
        positions = sum(verdict.scores.positions for verdict in verdicts)
        mismatches = sum(verdict.scores.replay_mismatches for verdict in verdicts)
        if mismatches > MISMATCH_SHARE_MAX * positions:
            raise RuntimeError(
                f"{mismatches} of {positions} verified positions differ from what was generated"
            )
        return positions


def summarise(subject: Subject, count: int, readings: Readings) -> dict[str, Any]:
    """One number in flight, as the report has it."""
    made = readings.costs[PROVIDER]
    overheads = []
    for overhead in subject.overheads:
        wall, cpu = ratios(readings.costs[overhead.variant], readings.costs[overhead.base])
        overheads.append(
            {
                "variant": overhead.variant,
                "base": overhead.base,
                "wall": asdict(wall),
                "cpu": asdict(cpu),
            }
        )
    wall, cpu = ratios(readings.verified, made)
    return {
        "in_flight": count,
        "generate": {name: rates(costs) for name, costs in readings.costs.items()},
        "verify": rates(readings.verified),
        "verify_over_generate": {"wall": asdict(wall), "cpu": asdict(cpu)},
        "overheads": overheads,
        "first_token_ms": {
            "median": rounded(quantile(readings.first_token_s, 0.5) * MILLI),
            "nine_tenths": rounded(quantile(readings.first_token_s, NINTH_TENTH) * MILLI),
            "requests": len(readings.first_token_s),
        },
        "peak_resident_mib": {
            "generate": round(readings.generate_peak_bytes / MIB),
            "verify": round(readings.verify_peak_bytes / MIB),
        },
    }


def rates(costs: Sequence[Cost]) -> dict[str, Any]:
    """Speed on the clock, and processor time, of output tokens."""
    return {
        "tokens_per_s": asdict(spread(1 / cost.wall_per_token_s for cost in costs)),
        "cpu_ms_per_token": asdict(spread(cost.cpu_per_token_s * MILLI for cost in costs)),
    }
